/* servers.h - which servers there are, and which of them are silent. No I/O but reading
 * resolv.conf. */
#pragma once

#include "bh/ip.h"
#include "bh/status.h"

#define DNS_SERVERS_MAX ((size_t)8)
#define DNS_SERVER_TEXT_MAX (BH_IP_TEXT_MAX + 9)

struct dns_server {
    char text[DNS_SERVER_TEXT_MAX]; /* "192.0.2.1:53", "[2001:db8::1]:53" */
    uint32_t timeouts_in_row;
    bool silent;
    bool probing; /* a probe is in flight */
    uint32_t probe_wait_ms;
    uint64_t probe_at_ms; /* when silent */
};

struct dns_servers {
    struct dns_server list[DNS_SERVERS_MAX];
    size_t len;
};

/** "192.0.2.1", "192.0.2.1:5302", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5302"; port 53.
 * @return BH_OK, BH_EINVAL, BH_ELIMIT (more than DNS_SERVERS_MAX) */
BH_MUST_USE enum bh_status dns_servers_add(struct dns_servers *servers, struct bh_slice text);
/** Add the nameserver lines of a resolv.conf; lines that can't be used are logged and left out.
 * @return BH_OK, BH_EIO, BH_EINVAL: none found */
BH_MUST_USE enum bh_status dns_servers_read(struct dns_servers *servers, const char *path);

/** The server to ask: the first that is not in the `tried` bits, those not silent before the
 * silent.
 * @return its index, or servers->len when all were tried */
size_t dns_servers_pick(const struct dns_servers *servers, uint32_t tried);
/** It answered, whatever it said. @return true if it was silent before */
bool dns_server_answered(struct dns_server *server);
/** It did not. Silent after `silent_after` in a row; each failure of a probe doubles the wait, up
 * to 8 times probe_ms. @return true if it has now become silent */
bool dns_server_timed_out(struct dns_server *server, uint32_t silent_after, uint32_t probe_ms,
                          uint64_t now_ms);
