/* cost.c - fixed loads for counting instructions: `cost NAME FOLDER` runs one; only cost_run is
 * counted. Nothing here depends on time, chance or addresses, so that two runs of one build count
 * alike.
 *
 * The cores: client, server, dots, match, lease. The store, over LMDB in FOLDER: put, settle,
 * refill. */
#include <stdlib.h>
#include <string.h>

#include "bench_tool.h"
#include "bh/config.h"
#include "bh/dot_stuff.h"
#include "bh/kv_lmdb.h"
#include "bh/queue.h"
#include "bh/scheduler.h"
#include "bh/smtp_client.h"
#include "bh/smtp_server.h"

#define MESSAGES 2000
#define CONTENT 4096
#define DOMAINS 100

struct bh_clearance {
    int unused;
};

static char content[CONTENT];
static const char *folder;
static const struct bh_now now = {.mono_ms = 1000, .unix_ms = 1800000000000};

/* What is counted. Not static and not inlined: callgrind is told its name. */
void cost_run(void (*work)(void));
__attribute__((noinline)) void cost_run(void (*work)(void))
{
    work();
}

static void must(enum bh_status status)
{
    bench_require(status == BH_OK);
}

static void make_content(void)
{
    for (size_t i = 0; i < CONTENT; i++) {
        content[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (char)('a' + i % 26);
    }
    content[CONTENT - 2] = '\r';
    content[CONTENT - 1] = '\n';
}

/* ---- the client core: 32 transactions in hand, a server that takes everything at once ---- */

static struct bh_client client;
static struct bh_client_options client_options;
static bool client_done[BH_CLIENT_TXNS_MAX];

static void client_drain(struct bh_client_txn *txns)
{
    static char scratch[65536];
    struct bh_client_action a;
    struct bh_buf out = bh_buf(scratch, sizeof(scratch));
    while (bh_client_next(&client, &out, &a)) {
        out = bh_buf(scratch, sizeof(scratch));
        if (a.kind == BH_CLIENT_WRITE) {
            bh_client_on_written(&client, a.bytes.len, now);
        } else if (a.kind == BH_CLIENT_WANT_CLEARANCE) {
            static const struct bh_clearance clearance;
            bh_client_on_clearance(&client, &clearance, now);
        } else if (a.kind == BH_CLIENT_WANT_CONTENT) {
            bh_client_on_content(&client, bh_slice(content, CONTENT), true, now);
        } else if (a.kind == BH_CLIENT_DONE) {
            client_done[a.txn - txns] = true;
        }
    }
}

static void run_client(void)
{
    static struct bh_client_txn txns[BH_CLIENT_TXNS_MAX];
    static struct bh_client_result results[BH_CLIENT_TXNS_MAX];
    static const struct bh_envelope envelope = {
        .sender = {"sender@bench.test", 17}, .envid = {"", 0}, .size = CONTENT};
    static const struct bh_recipient to = {.address = {"recipient@bench.test", 20},
                                           .orcpt = {"", 0}};
    struct bh_arena arena;
    bh_arena_init(&arena, (size_t)1 << 20);
    for (int round = 0; round < MESSAGES / BH_CLIENT_TXNS_MAX; round++) {
        bh_arena_reset(&arena);
        for (size_t i = 0; i < BH_CLIENT_TXNS_MAX; i++) {
            txns[i] = (struct bh_client_txn){.envelope = &envelope,
                                             .recipients = &to,
                                             .results = &results[i],
                                             .recipients_count = 1,
                                             .arena = &arena};
            bh_client_give(&client, &txns[i], now);
        }
        client_drain(txns);
        for (size_t i = 0; i < BH_CLIENT_TXNS_MAX; i++) {
            bh_client_on_bytes(&client,
                               BH_LIT("250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
                                      "250 2.0.0 Ok: queued as 4XYZ\r\n"),
                               now);
            client_drain(txns);
            bench_require(client_done[i]);
            client_done[i] = false;
        }
    }
    bh_arena_fini(&arena);
}

static void cost_client(void)
{
    client_options = (struct bh_client_options){.helo = BH_LIT("bench.test"),
                                                .host = BH_LIT("mx.bench.test"),
                                                .speculative = true,
                                                .timeouts = bh_client_default_timeouts()};
    bh_client_init(&client, &client_options);
    bh_client_on_event(&client, BH_CLIENT_CONNECTED, now);
    bh_client_on_bytes(&client, BH_LIT("220 mx\r\n"), now);
    client_drain(NULL);
    bh_client_on_bytes(&client,
                       BH_LIT("250-mx\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n"
                              "250-8BITMIME\r\n250 CHUNKING\r\n"),
                       now);
    client_drain(NULL);
    cost_run(run_client);
}

/* ---- the server core ---- */

static struct bh_server server;
static struct bh_server_options server_options;

static void server_drain(void)
{
    struct bh_server_action a;
    while (bh_server_next(&server, &a)) {
        if (a.kind == BH_SERVER_DELIVER) {
            bh_server_on_committed(&server, a.txn, BH_SERVER_COMMITTED, 77, now);
        }
    }
}

static void server_say(struct bh_slice octets)
{
    bh_server_on_bytes(&server, octets, now);
    server_drain();
}

static void run_server(void)
{
    for (int i = 0; i < MESSAGES; i++) {
        server_say(BH_LIT("MAIL FROM:<sender@bench.test> SIZE=4096\r\n"
                          "RCPT TO:<recipient@bench.test>\r\nDATA\r\n"));
        server_say(bh_slice(content, CONTENT));
        server_say(BH_LIT(".\r\n"));
    }
}

static void cost_server(void)
{
    server_options = (struct bh_server_options){.hostname = BH_LIT("mx.bench.test"),
                                                .postmaster = BH_LIT("p@bench.test"),
                                                .limits = bh_server_default_limits()};
    server_options.limits.commands = 0;
    bh_server_init(&server, &server_options, true, false);
    bh_server_start(&server, BH_SERVER_GREET, now);
    server_drain();
    server_say(BH_LIT("EHLO client.test\r\n"));
    cost_run(run_server);
    bh_server_on_event(&server, BH_SERVER_LOST, now);
    server_drain();
    bh_server_fini(&server);
}

/* ---- dots ---- */

static void run_dots(void)
{
    static char out_storage[2 * CONTENT];
    for (int i = 0; i < MESSAGES; i++) {
        struct bh_dot_stuff d = {0};
        struct bh_slice in = bh_slice(content, CONTENT);
        struct bh_buf out = bh_buf(out_storage, sizeof(out_storage));
        must(bh_dot_stuff_feed(&d, &in, &out));
        must(bh_dot_stuff_end(&d, &out));
        struct bh_dot_stuff checked = {0};
        must(bh_dot_stuff_check(&checked, bh_slice(content, CONTENT)));
    }
}

/* ---- matching ---- */

static const struct bh_config *config;

static enum bh_status read_text(void *ctx, const char *path, struct bh_arena *arena,
                                struct bh_slice *text)
{
    static char all[32768];
    size_t len = 0;
    (void)ctx;
    (void)path;
    for (int i = 0; i < 300; i++) {
        len += (size_t)snprintf(all + len, sizeof(all) - len,
                                "connector c%d { domains d%d.test *.s%d.test }\n", i, i, i);
    }
    len += (size_t)snprintf(all + len, sizeof(all) - len, "connector default { domains * }\n");
    return bh_arena_copy(arena, bh_slice(all, len), text) ? BH_OK : BH_ENOMEM;
}

static enum bh_status exists(void *ctx, const char *path)
{
    (void)ctx;
    (void)path;
    return BH_OK;
}

static void run_match(void)
{
    static const char *const domains[] = {"d7.test", "a.b.s9.test", "elsewhere.example"};
    for (int i = 0; i < MESSAGES; i++) {
        struct bh_match match;
        must(bh_config_match(config, bh_slice_str(domains[i % 3]), BH_LIT("sender@bench.test"),
                             CONTENT, NULL, NULL, &match));
    }
}

static void cost_match(void)
{
    const struct bh_config_reader reader = {
        .read = read_text, .exists = exists, .hostname = "bench.test"};
    struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    must(bh_config_parse(&reader, "bench.conf", 1, &config, &errors));
    cost_run(run_match);
    bh_config_unref(config);
    bh_config_errors_fini(&errors);
}

/* ---- the scheduler: a thousand destinations behind one host, 20 sessions ---- */

static struct bh_sched *sched;

/* Answer what the scheduler asks for. */
static void sched_drain(void)
{
    static const struct bh_sched_address host = {.ip = {.family = 4, .bytes = {192, 0, 2, 1}},
                                                 .port = 25};
    struct bh_sched_action a;
    while (bh_sched_next(sched, &a)) {
        if (a.kind == BH_SCHED_RESOLVE) {
            bh_sched_resolved(sched, a.destination, BH_LIT("site"), &host, 1, 3600000, now);
        } else if (a.kind == BH_SCHED_OPEN) {
            bh_sched_session_ready(sched, a.session, &host, now);
        } else if (a.kind == BH_SCHED_REFILL) {
            bh_sched_refilled(sched, a.destination, NULL, 0, false, INT64_MAX, now);
        } else if (a.kind == BH_SCHED_LEASE) {
            for (uint32_t i = 0; i < a.count; i++) {
                bh_sched_item_answered(sched, a.items[i]);
            }
            bh_sched_session_idle(sched, a.session, now);
            for (uint32_t i = 0; i < a.count; i++) {
                bh_sched_item_done(sched, a.items[i], BH_SIGNAL_SUCCESS, 1, NULL, now);
            }
        }
    }
}

static void run_lease(void)
{
    for (uint32_t i = 0; i < MESSAGES; i += 200) {
        for (uint32_t k = 0; k < 200; k++) {
            const struct bh_sched_item item = {
                .id = 1 + i + k, .destination = 1 + (i + k) % 1000, .size = CONTENT, .fresh = true};
            must(bh_sched_fresh(sched, &item, now));
        }
        sched_drain();
    }
}

static void cost_lease(void)
{
    const struct bh_sched_params params = {
        .sessions_max = 500, .lease_bytes_max = (uint64_t)1 << 30, .seed = 7};
    const struct bh_sched_policy policy = {.connector = "one",
                                           .per_destination_max = 20,
                                           .per_destination_start = 10,
                                           .per_host_max = 20,
                                           .idle_ms = 5000,
                                           .active = true,
                                           .retry = {.intervals_ms = {300000},
                                                     .intervals = 1,
                                                     .destination_ms = {300000},
                                                     .destination_intervals = 1}};
    const struct bh_sched_dest_state state = {.policy = &policy};
    sched = bh_sched_create(&params);
    bench_require(sched != NULL);
    for (uint32_t d = 1; d <= 1000; d++) {
        must(bh_sched_load(sched, d, &state, now));
    }
    cost_run(run_lease);
    bh_sched_destroy(sched);
}

/* ---- the store ---- */

static struct bh_kv *kv;
static struct bh_queue *queue;
static struct bh_queue_key keys[MESSAGES];

static void open_store(void)
{
    char error[512] = "";
    const struct bh_kv_lmdb_options options = {.path = folder, .size_max = (size_t)1 << 30};
    const struct bh_queue_limits limits = {0};
    must(bh_kv_lmdb_open(&options, &kv, error, sizeof(error)));
    must(bh_queue_open(kv, &limits, &queue, error, sizeof(error)));
}

static void close_store(void)
{
    bh_queue_destroy(queue);
    bh_kv_close(kv);
}

static void put(struct bh_kv_txn *txn, size_t i, enum bh_lane_hint hint, struct bh_arena *arena)
{
    char domain[32];
    snprintf(domain, sizeof(domain), "d%zu.bench.test", i % DOMAINS);
    const struct bh_recipient to = {.address = BH_LIT("recipient@bench.test"), .orcpt = BH_EMPTY};
    const struct bh_queue_group group = {.domain = bh_slice_str(domain),
                                         .connector = BH_LIT("default"),
                                         .recipients = &to,
                                         .recipient_count = 1,
                                         .hint = hint};
    const struct bh_envelope envelope = {
        .sender = BH_LIT("sender@bench.test"), .envid = BH_EMPTY, .size = CONTENT};
    const struct bh_origin origin = {.helo = BH_LIT("client.test"),
                                     .listener = BH_LIT("main"),
                                     .protocol = BH_LIT("ESMTP"),
                                     .arrival_unix_ms = now.unix_ms};
    const struct bh_slice piece = bh_slice(content, CONTENT);
    const struct bh_queue_put message = {.envelope = &envelope,
                                         .origin = &origin,
                                         .content = &piece,
                                         .content_count = 1,
                                         .groups = &group,
                                         .group_count = 1};
    struct bh_queue_put_result result;
    bh_arena_reset(arena);
    must(bh_queue_put(queue, txn, &message, now, arena, &result));
    keys[i] = (struct bh_queue_key){
        .destination = result.parts[0].destination, .id = result.id, .part = result.parts[0].part};
}

static void put_all(enum bh_lane_hint hint)
{
    struct bh_arena arena;
    bh_arena_init(&arena, (size_t)1 << 20);
    for (size_t i = 0; i < MESSAGES;) {
        struct bh_kv_txn *txn = NULL;
        must(bh_queue_begin(queue, NULL, &txn));
        for (size_t end = i + 100; i < end; i++) {
            put(txn, i, hint, &arena);
        }
        must(bh_queue_commit(queue, txn));
    }
    bh_arena_fini(&arena);
}

static void run_put(void)
{
    put_all(BH_HINT_FRESH_OK);
}

static void cost_put(void)
{
    open_store();
    cost_run(run_put);
    close_store();
}

static void run_settle(void)
{
    const struct bh_queue_notifier nobody = {.now = now};
    const struct bh_settle_recipient delivered = {
        .verdict = BH_VERDICT_DELIVERED,
        .tried = true,
        .charged = true,
        .outcome = {
            .stage = BH_STAGE_DOT, .code = 250, .text = BH_LIT("queued"), .host = BH_LIT("mx")}};
    for (size_t i = 0; i < MESSAGES;) {
        struct bh_kv_txn *txn = NULL;
        must(bh_queue_begin(queue, NULL, &txn));
        for (size_t end = i + 100; i < end; i++) {
            const struct bh_settle settle = {.key = keys[i],
                                             .lane = BH_LANE_FRESH,
                                             .recipients = &delivered,
                                             .recipient_count = 1,
                                             .charged = true};
            struct bh_settle_result result;
            must(bh_queue_settle(queue, txn, &settle, &nobody, &result));
        }
        must(bh_queue_commit(queue, txn));
    }
}

static void cost_settle(void)
{
    open_store();
    put_all(BH_HINT_FRESH_OK);
    cost_run(run_settle);
    close_store();
}

static void run_refill(void)
{
    struct bh_kv_txn *txn = NULL;
    must(bh_kv_begin(kv, BH_KV_READ, NULL, &txn));
    for (size_t d = 0; d < DOMAINS; d++) {
        static struct bh_queue_item items[256];
        struct bh_refill_cursor cursor = {0};
        const struct bh_refill refill = {.destination = keys[d].destination,
                                         .now_unix_ms = now.unix_ms,
                                         .items_max = 256,
                                         .bytes_max = UINT64_MAX};
        size_t count = 0;
        must(bh_queue_refill(txn, &refill, &cursor, items, &count));
        bench_require(count == MESSAGES / DOMAINS);
    }
    bh_kv_abort(txn);
}

static void cost_refill(void)
{
    open_store();
    put_all(BH_HINT_ENTRY);
    cost_run(run_refill);
    close_store();
}

static void cost_dots(void)
{
    cost_run(run_dots);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } costs[] = {
        {"client", cost_client}, {"server", cost_server}, {"dots", cost_dots},
        {"match", cost_match},   {"lease", cost_lease},   {"put", cost_put},
        {"settle", cost_settle}, {"refill", cost_refill},
    };
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
            printf("%s\n", costs[i].name);
        }
        return 0;
    }
    make_content();
    for (size_t i = 0; argc == 3 && i < sizeof(costs) / sizeof(costs[0]); i++) {
        if (strcmp(argv[1], costs[i].name) == 0) {
            folder = argv[2];
            costs[i].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: cost --list | cost NAME FOLDER\n");
    return 2;
}
