#include "servers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/log.h"

#define DNS_PORT 53

/* Split "address[:port]"; a bare IPv6 address has more than one colon. */
static bool split(struct bh_slice text, struct bh_slice *address, struct bh_slice *port)
{
    const size_t colon = bh_slice_find(text, ':');
    size_t end = colon;
    *port = BH_EMPTY;
    *address = text;
    if (text.len > 0 && text.ptr[0] == '[') {
        end = bh_slice_find(text, ']');
        if (end == text.len) {
            return false;
        }
        *address = bh_slice(text.ptr + 1, end - 1);
        end++;
    } else if (bh_slice_find(bh_slice_skip(text, colon + 1), ':') <
               bh_slice_skip(text, colon + 1).len) {
        return true;
    } else {
        *address = bh_slice_take(text, end);
    }
    const struct bh_slice rest = bh_slice_skip(text, end);
    if (rest.len == 0) {
        return true;
    }
    *port = bh_slice_skip(rest, 1);
    return rest.ptr[0] == ':' && port->len > 0;
}

enum bh_status dns_servers_add(struct dns_servers *servers, struct bh_slice text)
{
    struct bh_slice address;
    struct bh_slice port_text;
    struct bh_ip ip;
    uint64_t port = DNS_PORT;
    if (!split(text, &address, &port_text) || !bh_ip_parse(address, &ip)) {
        return BH_EINVAL;
    }
    if (port_text.len > 0 && (!bh_slice_u64(port_text, 65535, &port) || port == 0)) {
        return BH_EINVAL;
    }
    if (servers->len >= DNS_SERVERS_MAX) {
        return BH_ELIMIT;
    }
    struct dns_server *server = &servers->list[servers->len++];
    char ip_text[BH_IP_TEXT_MAX];
    *server = (struct dns_server){0};
    snprintf(server->text, sizeof(server->text), ip.family == 6 ? "[%s]:%u" : "%s:%u",
             bh_ip_text(&ip, ip_text), (unsigned)port);
    return BH_OK;
}

enum bh_status dns_servers_read(struct dns_servers *servers, const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        bh_log(BH_LOG_ERROR, "evt=resolv_conf_unreadable path=%s errno=%d", path, errno);
        return BH_EIO;
    }
    char *line = NULL; /* whole, however long: its rest would count as a line of its own */
    size_t cap = 0;
    for (ssize_t len; servers->len < DNS_SERVERS_MAX && (len = getline(&line, &cap, file)) > 0;) {
        struct bh_slice rest = bh_slice(line, (size_t)len);
        rest = bh_slice_take(rest, bh_slice_find(rest, '\n'));
        if (!bh_slice_eq(bh_slice_word(&rest), BH_LIT("nameserver"))) {
            continue;
        }
        const struct bh_slice address = bh_slice_word(&rest);
        if (dns_servers_add(servers, address) != BH_OK) {
            char quoted[BH_LOG_QUOTE_MAX];
            bh_log(BH_LOG_WARN, "evt=nameserver_ignored path=%s address=%s", path,
                   bh_log_quote(address, quoted));
        }
    }
    free(line);
    fclose(file);
    return servers->len > 0 ? BH_OK : BH_EINVAL;
}

size_t dns_servers_pick(const struct dns_servers *servers, uint32_t tried)
{
    size_t silent = servers->len;
    for (size_t i = 0; i < servers->len; i++) {
        if ((tried >> i & 1) != 0) {
            continue;
        }
        if (!servers->list[i].silent) {
            return i;
        }
        silent = silent == servers->len ? i : silent;
    }
    return silent;
}

bool dns_server_answered(struct dns_server *server)
{
    const bool was_silent = server->silent;
    server->silent = false;
    server->timeouts_in_row = 0;
    server->probe_wait_ms = 0;
    return was_silent;
}

bool dns_server_timed_out(struct dns_server *server, uint32_t silent_after, uint32_t probe_ms,
                          uint64_t now_ms)
{
    server->timeouts_in_row++;
    if (server->timeouts_in_row < silent_after) {
        return false;
    }
    const bool newly = !server->silent;
    if (newly) {
        server->probe_wait_ms = probe_ms;
    } else if (server->probing && server->probe_wait_ms < probe_ms * 8) {
        server->probe_wait_ms *= 2;
    }
    server->silent = true;
    if (newly || server->probing) {
        server->probe_at_ms = now_ms + server->probe_wait_ms;
    }
    return newly;
}
