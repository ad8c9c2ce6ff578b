/* resolv.conf, whatever is in it: at most eight servers, each an address and a port that read as
 * themselves; and they are those of the lines that a plain reading finds. */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"

#include "../../dns/src/servers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same by lines. */
static void read_plainly(struct bh_slice text, struct dns_servers *servers)
{
    while (text.len > 0) {
        const size_t end = bh_slice_find(text, '\n');
        struct bh_slice line = bh_slice_take(text, end);
        text = bh_slice_skip(text, end + 1);
        if (bh_slice_eq(bh_slice_word(&line), BH_LIT("nameserver"))) {
            (void)!dns_servers_add(servers, bh_slice_word(&line));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct dns_servers servers = {.len = 0};
    struct dns_servers plain = {.len = 0};
    bh_log_set_level((enum bh_log_level)0);
    const int fd = memfd_create("resolv.conf", MFD_CLOEXEC);
    BH_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const enum bh_status status = dns_servers_read(&servers, path);
    close(fd);
    BH_ASSERT((status == BH_OK) == (servers.len > 0) && servers.len <= DNS_SERVERS_MAX);
    for (size_t i = 0; i < servers.len; i++) {
        struct dns_servers again = {.len = 0};
        BH_ASSERT(dns_servers_add(&again, bh_slice_str(servers.list[i].text)) == BH_OK);
        BH_ASSERT(strcmp(again.list[0].text, servers.list[i].text) == 0);
    }
    read_plainly(bh_slice(data, size), &plain);
    BH_ASSERT(plain.len == servers.len);
    for (size_t i = 0; i < plain.len; i++) {
        BH_ASSERT(strcmp(plain.list[i].text, servers.list[i].text) == 0);
    }
    return 0;
}
