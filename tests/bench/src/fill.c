/* fill.c - fills a queue through the store's library: a backlog that nobody has to send first.
 *
 *  -q DIR    the queue's folder; made if missing. No daemon may have it
 *  -n N      messages (2000000)       -s SIZE  octets of content (1024)
 *  -d N      domains, d0.ZONE to dN-1.ZONE (100000), in turn
 *  -b N      so many of the messages are for d0.ZONE alone (0)
 *  -z ZONE   (dead.bench.test)        -c NAME  connector (default)
 *  -m GIB    bound of the map (64)    -w SECS  until the destinations' next attempt (3600)
 *
 * Mail lies in the entry lane, ready, at destinations that back off: as it does behind hosts that
 * are down. A line at the end: messages a second, octets of the file. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bench_tool.h"
#include "bh/kv_lmdb.h"
#include "bh/queue.h"

#define PER_COMMIT 2000

static struct {
    const char *queue, *zone, *connector;
    long messages, size, domains, at_first, map_gib, wait_s;
} opt = {NULL, "dead.bench.test", "default", 2000000, 1024, 100000, 0, 64, 3600};

static char *content;

static void require(enum bh_status status, const char *what)
{
    if (status != BH_OK) {
        fprintf(stderr, "%s: %s\n", what, bh_status_name(status));
        exit(2);
    }
}

static struct bh_now now(void)
{
    return (struct bh_now){.mono_ms = (uint64_t)(bench_seconds(CLOCK_MONOTONIC) * 1e3),
                           .unix_ms = (int64_t)(bench_seconds(CLOCK_REALTIME) * 1e3)};
}

static long domain_of(long message)
{
    return message < opt.at_first ? 0 : message % opt.domains;
}

static void put(struct bh_queue *q, struct bh_kv_txn *txn, long message, struct bh_arena *arena)
{
    char domain[128];
    char address[192];
    snprintf(domain, sizeof(domain), "d%ld.%s", domain_of(message), opt.zone);
    snprintf(address, sizeof(address), "u%ld@%s", message, domain);
    const struct bh_recipient to = {.address = bh_slice_str(address), .orcpt = BH_EMPTY};
    const struct bh_queue_group group = {.domain = bh_slice_str(domain),
                                         .connector = bh_slice_str(opt.connector),
                                         .recipients = &to,
                                         .recipient_count = 1,
                                         .hint = BH_HINT_ENTRY};
    const struct bh_envelope envelope = {
        .sender = BH_LIT("sender@bench.test"), .envid = BH_EMPTY, .size = (uint64_t)opt.size};
    const struct bh_now at = now();
    const struct bh_origin origin = {.helo = BH_LIT("fill.bench.test"),
                                     .listener = BH_LIT("main"),
                                     .protocol = BH_LIT("ESMTP"),
                                     .arrival_unix_ms = at.unix_ms};
    const struct bh_slice piece = bh_slice(content, (size_t)opt.size);
    const struct bh_queue_put message_put = {.envelope = &envelope,
                                             .origin = &origin,
                                             .content = &piece,
                                             .content_count = 1,
                                             .groups = &group,
                                             .group_count = 1};
    struct bh_queue_put_result result;
    bh_arena_reset(arena);
    require(bh_queue_put(q, txn, &message_put, at, arena, &result), "put");
    const bool first_of_all = message == 0;
    const bool first_of_its_domain =
        message >= opt.at_first && message < opt.at_first + opt.domains;
    if (!first_of_all && !first_of_its_domain) {
        return; /* Its destination has been told to wait. */
    }
    const struct bh_destination_change wait = {
        .set = BH_SET_BACKOFF,
        .backoff_stage = 1,
        .next_event_unix_ms = at.unix_ms + opt.wait_s * 1000,
    };
    require(bh_queue_destination_update(q, txn, result.parts[0].destination, &wait, at),
            "destination");
}

static void options(int argc, char **argv)
{
    int o;
    while ((o = getopt(argc, argv, "q:n:s:d:b:z:c:m:w:")) != -1) {
        switch (o) {
        case 'q':
            opt.queue = optarg;
            break;
        case 'n':
            opt.messages = bench_number(optarg, 1, 1000000000);
            break;
        case 's':
            opt.size = bench_number(optarg, 8, 10000000);
            break;
        case 'd':
            opt.domains = bench_number(optarg, 1, 100000000);
            break;
        case 'b':
            opt.at_first = bench_number(optarg, 0, 1000000000);
            break;
        case 'z':
            opt.zone = optarg;
            break;
        case 'c':
            opt.connector = optarg;
            break;
        case 'm':
            opt.map_gib = bench_number(optarg, 1, 4096);
            break;
        case 'w':
            opt.wait_s = bench_number(optarg, 1, 10000000);
            break;
        default:
            opt.queue = NULL;
            break;
        }
    }
    if (opt.queue == NULL) {
        fprintf(stderr, "the options are at the head of fill.c\n");
        exit(2);
    }
}

static void make_content(void)
{
    const size_t size = (size_t)opt.size;
    content = (char *)bench_alloc(size);
    memset(content, 'x', size);
    for (size_t i = 76; i + 1 < size; i += 78) {
        content[i] = '\r';
        content[i + 1] = '\n';
    }
    memcpy(content + size - 3, "x\r\n", 3);
}

int main(int argc, char **argv)
{
    char error[512] = "";
    struct bh_kv *kv = NULL;
    struct bh_queue *q = NULL;
    options(argc, argv);
    make_content();
    const struct bh_kv_lmdb_options store = {.path = opt.queue,
                                             .size_max = (size_t)opt.map_gib << 30};
    const struct bh_queue_limits limits = {0};
    if (bh_kv_lmdb_open(&store, &kv, error, sizeof(error)) != BH_OK ||
        bh_queue_open(kv, &limits, &q, error, sizeof(error)) != BH_OK) {
        errno = 0;
        bench_die(error);
    }
    struct bh_arena arena;
    bh_arena_init(&arena, (size_t)1 << 20);
    const double began = bench_seconds(CLOCK_MONOTONIC);
    for (long at = 0; at < opt.messages;) {
        struct bh_kv_txn *txn = NULL;
        require(bh_queue_begin(q, NULL, &txn), "begin");
        for (long end = at + PER_COMMIT; at < end && at < opt.messages; at++) {
            put(q, txn, at, &arena);
        }
        require(bh_queue_commit(q, txn), "commit");
    }
    struct bh_kv_lmdb_usage usage = {0};
    require(bh_kv_lmdb_usage(kv, &usage), "usage");
    printf("{\"tool\":\"fill\",\"messages\":%ld,\"msgs_s\":%.0f,\"file_octets\":%" PRIu64 "}\n",
           opt.messages, (double)opt.messages / (bench_seconds(CLOCK_MONOTONIC) - began),
           usage.file_bytes);
    bh_arena_fini(&arena);
    bh_queue_destroy(q);
    bh_kv_close(kv);
    free(content);
    return 0;
}
