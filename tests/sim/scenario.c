/* What if this partner is down for four hours with 50 000 messages queued? The real daemon with the
 * user's configuration, on a queue that is filled before it starts; hours pass in seconds. */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/config.h"
#include "bh/dsn.h"
#include "bh/queue.h"
#include "daemon.h"

#define NAMES_MAX 16
#define PUTS_IN_COMMIT 500
#define SENDER "sender@scenario-senders.test"

static struct scenario {
    bool on;
    char names[NAMES_MAX][256]; /* the partner's: the domain first, then hosts */
    unsigned name_count;
    uint64_t messages, size;
    uint64_t down_from_us, down_to_us, until_us, think_us, latency_us;
    bool silent; /* down: no answer, else refused */
    /* what came of it */
    uint64_t taken, reports_failed, reports_delayed, connects, connects_down, attempts, deferred;
    uint32_t peak;
    uint64_t begin_us, first_us, last_us;
} s;

bool scenario_on(void)
{
    return s.on;
}

/* ---- the file ---- */

/* "4h", "90s", "20ms", "5d". */
static bool read_time(const char *text, uint64_t *us)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    const uint64_t unit = strcmp(end, "ms") == 0  ? SIM_MS
                          : strcmp(end, "s") == 0 ? SIM_SECOND
                          : strcmp(end, "m") == 0 ? SIM_MINUTE
                          : strcmp(end, "h") == 0 ? SIM_HOUR
                          : strcmp(end, "d") == 0 ? 24 * SIM_HOUR
                                                  : 0;
    *us = value >= 0 ? (uint64_t)(value * (double)unit) : 0;
    return end != text && unit != 0;
}

static bool read_number(const char *text, uint64_t *value)
{
    char *end = NULL;
    *value = strtoull(text, &end, 10);
    const uint64_t unit = *end == 'K' ? 1024 : *end == 'M' ? 1024 * 1024 : 1;
    *value *= unit;
    return end != text && (*end == '\0' || (unit > 1 && end[1] == '\0'));
}

static bool read_setting(const char *key, const char *first, const char *second)
{
    bool good = true;
    if (strcmp(key, "partner") == 0 || strcmp(key, "host") == 0) {
        good = s.name_count < NAMES_MAX && (strcmp(key, "partner") != 0 || s.name_count == 0);
        if (good) {
            snprintf(s.names[s.name_count++], sizeof(s.names[0]), "%s", first);
        }
    } else if (strcmp(key, "messages") == 0) {
        good = read_number(first, &s.messages);
    } else if (strcmp(key, "size") == 0) {
        good = read_number(first, &s.size);
    } else if (strcmp(key, "down") == 0) {
        good = read_time(first, &s.down_from_us) && read_time(second, &s.down_to_us);
    } else if (strcmp(key, "down-by") == 0) {
        s.silent = strcmp(first, "silence") == 0;
        good = s.silent || strcmp(first, "refusal") == 0;
    } else if (strcmp(key, "until") == 0) {
        good = read_time(first, &s.until_us);
    } else if (strcmp(key, "latency") == 0) {
        good = read_time(first, &s.latency_us);
    } else if (strcmp(key, "think") == 0) {
        good = read_time(first, &s.think_us);
    } else {
        good = false;
    }
    return good;
}

static bool read_file(const char *path)
{
    char line[512];
    unsigned number = 0;
    FILE *in = fopen(path, "r");
    if (in == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return false;
    }
    while (fgets(line, sizeof(line), in) != NULL) {
        char key[64] = "";
        char first[256] = "";
        char second[256] = "";
        number++;
        line[strcspn(line, "#\n")] = '\0';
        const int words = sscanf(line, "%63s %255s %255s", key, first, second);
        if (words > 0 && (words < 2 || !read_setting(key, first, second))) {
            fprintf(stderr,
                    "%s:%u: '%s' is not understood; see bh-sim --help for what a scenario says\n",
                    path, number, line);
            fclose(in);
            return false;
        }
    }
    fclose(in);
    if (s.name_count == 0 || s.messages == 0) {
        fprintf(stderr, "%s: a scenario names its partner and how many messages there are\n", path);
        return false;
    }
    return true;
}

/* ---- the queue before ---- */

static enum bh_status put_one(struct bh_queue *q, struct bh_kv_txn *txn,
                              const struct bh_config *config, struct bh_slice content, uint64_t i,
                              struct bh_arena *arena)
{
    char address[300];
    struct bh_match match;
    const struct bh_slice domain = bh_slice_str(s.names[0]);
    const struct bh_slice sender = bh_slice_str(SENDER);
    const enum bh_status matched =
        bh_config_match(config, domain, sender, content.len, NULL, NULL, &match);
    if (matched != BH_OK) {
        return matched;
    }
    snprintf(address, sizeof(address), "someone%llu@%s", (unsigned long long)i, s.names[0]);
    const struct bh_recipient to = {.address = bh_slice_str(address)};
    const struct bh_envelope envelope = {.sender = sender, .size = content.len};
    const struct bh_origin origin = {.listener = BH_LIT("scenario"),
                                     .protocol = BH_LIT("local"),
                                     .arrival_unix_ms = sim_unix_ms()};
    const struct bh_queue_group group = {.domain = domain,
                                         .connector = bh_match_first_choice(&match)->name,
                                         .recipients = &to,
                                         .recipient_count = 1,
                                         .hint = BH_HINT_FRESH_OK};
    const struct bh_queue_put put = {.envelope = &envelope,
                                     .origin = &origin,
                                     .content = &content,
                                     .content_count = 1,
                                     .groups = &group,
                                     .group_count = 1};
    struct bh_queue_put_result result;
    const struct bh_now now = {.mono_ms = sim_now_us() / SIM_MS, .unix_ms = sim_unix_ms()};
    return bh_queue_put(q, txn, &put, now, arena, &result);
}

static enum bh_status fill(struct bh_queue *q, const struct bh_config *config)
{
    struct bh_arena arena;
    enum bh_status status = BH_OK;
    char *octets = sim_alloc(s.size + 64);
    const int head = snprintf(octets, 64, "Subject: scenario\r\n\r\n");
    size_t len = (size_t)head;
    while (len + 2 < s.size) {
        const bool ends = len % 78 == 0;
        octets[len++] = ends ? '\r' : 'x';
        if (ends) {
            octets[len++] = '\n';
        }
    }
    memcpy(octets + len, "\r\n", 2);
    const struct bh_slice content = bh_slice(octets, len + 2);
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (uint64_t i = 0; status == BH_OK && i < s.messages;) {
        struct bh_kv_txn *txn = NULL;
        status = bh_queue_begin(q, NULL, &txn);
        for (unsigned k = 0; status == BH_OK && k < PUTS_IN_COMMIT && i < s.messages; k++, i++) {
            bh_arena_reset(&arena);
            status = put_one(q, txn, config, content, i, &arena);
        }
        if (status == BH_OK) {
            status = bh_queue_commit(q, txn);
        } else if (txn != NULL) {
            bh_queue_abort(q, txn);
        }
    }
    bh_arena_fini(&arena);
    sim_free(octets);
    return status;
}

static bool prepare(const char *config_path)
{
    struct bh_config_errors errors;
    const struct bh_config *config = NULL;
    struct bh_queue *q = NULL;
    char why[256] = "";
    bh_config_errors_init(&errors);
    enum bh_status status = daemon_load_config(config_path, 1, NULL, &config, &errors);
    for (size_t i = 0; status != BH_OK && i < errors.count; i++) {
        char text[1024];
        struct bh_buf line = bh_buf(text, sizeof(text));
        bh_config_error_text(&errors.list[i], &line);
        fprintf(stderr, "%.*s\n", BH_FMT(bh_buf_slice(&line)));
    }
    bh_config_errors_fini(&errors);
    if (status != BH_OK) {
        return false;
    }
    const struct bh_queue_limits limits = {.fresh_window = config->queue.fresh_window};
    status = bh_queue_open(disk_kv(), &limits, &q, why, sizeof(why));
    if (status == BH_OK) {
        why[0] = '\0';
        status = fill(q, config);
    }
    bh_queue_destroy(q);
    bh_config_unref(config);
    if (status != BH_OK) {
        fprintf(stderr, "the queue cannot be filled: %s %s\n", why,
                status == BH_ENOTFOUND ? "no connector takes mail for the partner"
                : status == BH_EFULL   ? "fewer or smaller messages fit the simulated disk"
                                       : bh_status_name(status));
    }
    return status == BH_OK;
}

/* ---- the world's answers ---- */

struct host *scenario_host(const char *name)
{
    for (unsigned i = 0; i < s.name_count; i++) {
        const size_t whole = strlen(name);
        const size_t len = strlen(s.names[i]);
        if (whole >= len && strcmp(name + whole - len, s.names[i]) == 0) {
            return &world.hosts[0];
        }
    }
    return &world.hosts[1];
}

bool scenario_is_down(const struct host *host, bool *silent)
{
    const uint64_t at = sim_now_us() - s.begin_us;
    const bool down = host->number == 0 && at >= s.down_from_us && at < s.down_to_us;
    *silent = s.silent;
    s.connects += host->number == 0 ? 1 : 0;
    s.connects_down += down ? 1 : 0;
    return down;
}

void scenario_taken(const struct host *host, size_t count)
{
    if (host->number == 0) {
        s.taken += count;
        s.first_us = s.first_us == 0 ? sim_now_us() : s.first_us;
        s.last_us = sim_now_us();
    }
}

/* Reports as they are written: what becomes of them is another matter. */
enum bh_status __real_bh_dsn_write(const struct bh_dsn *dsn, struct bh_dsn_sink sink,
                                   struct bh_dsn_written *written);
enum bh_status __wrap_bh_dsn_write(const struct bh_dsn *dsn, struct bh_dsn_sink sink,
                                   struct bh_dsn_written *written);
enum bh_status __wrap_bh_dsn_write(const struct bh_dsn *dsn, struct bh_dsn_sink sink,
                                   struct bh_dsn_written *written)
{
    for (size_t i = 0; i < dsn->recipients_count; i++) {
        s.reports_failed += dsn->recipients[i].action == BH_DSN_FAILED ? 1 : 0;
        s.reports_delayed += dsn->recipients[i].action == BH_DSN_DELAYED ? 1 : 0;
    }
    const enum bh_status status = __real_bh_dsn_write(dsn, sink, written);
    if (status == BH_OK && written != NULL) {
        disk_report_written((size_t)written->size);
    }
    return status;
}

void scenario_talks(const struct host *host, uint32_t connections)
{
    if (host->number == 0) {
        s.peak = connections > s.peak ? connections : s.peak;
    }
}

void scenario_attempt(const char *line)
{
    if (strstr(line, "\"evt\":\"attempt\"") != NULL) {
        s.attempts++;
        s.deferred += strstr(line, "\"result\":\"deferred\"") != NULL ? 1 : 0;
    }
}

/* ---- its course ---- */

static void draw(const char *config_path)
{
    world_blank(1);
    snprintf(world.conf_path, sizeof(world.conf_path), "%s", config_path);
    world.set.hosts = 2;
    world.host_count = 2;
    for (unsigned i = 0; i < 2; i++) {
        struct host *h = &world.hosts[i];
        *h = (struct host){.number = i,
                           .v4 = true,
                           .ip = {.family = 4, .bytes = {198, 51, 100, (uint8_t)(i + 1)}},
                           .shown = {.trusted = 1, .name = "*"},
                           .pipelining = true,
                           .chunking = true,
                           .think_us = i == 0 ? s.think_us : 0,
                           .path = {.latency_us = s.latency_us, .window = 262144}};
        snprintf(h->name, sizeof(h->name), i == 0 ? "partner" : "others");
    }
    disk_set_max((size_t)1 << 40); /* memory is the bound */
    s.begin_us = sim_now_us();
}

/* Mail for the partner that is in the queue, in either lane. */
static uint64_t queued(void)
{
    static struct bh_queue_item items[1024];
    struct bh_kv_txn *txn = NULL;
    struct bh_arena arena;
    struct bh_destination d = {0};
    uint32_t theirs[16];
    size_t their_count = 0;
    uint64_t count = 0;
    uint64_t id = 0;
    size_t some = 0;
    enum bh_status status = bh_kv_begin(disk_kv(), BH_KV_READ, NULL, &txn);
    BH_ASSERT(status == BH_OK);
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    while (bh_queue_next_destination(txn, d.id, &arena, &d) == BH_OK) {
        if (bh_slice_eq(d.domain, bh_slice_str(s.names[0])) && their_count < BH_COUNT(theirs)) {
            theirs[their_count++] = d.id;
            count += bh_destination_entries(&d);
        }
        bh_arena_reset(&arena);
    }
    do {
        status = bh_queue_scan_fresh(txn, &id, items, BH_COUNT(items), &some);
        for (size_t i = 0; i < some; i++) {
            for (size_t k = 0; k < their_count; k++) {
                count += items[i].key.destination == theirs[k] ? 1 : 0;
            }
        }
    } while (status == BH_MORE);
    bh_arena_fini(&arena);
    bh_kv_abort(txn);
    return count;
}

static const char *span(uint64_t us, char text[64])
{
    const unsigned long long seconds = us / SIM_SECOND;
    snprintf(text, 64, "%lluh %02llum %02llus", seconds / 3600, seconds / 60 % 60, seconds % 60);
    return text;
}

static void tell_now(uint64_t left)
{
    char text[64];
    printf("%16s %10llu queued %8u connections\n", span(sim_now_us() - s.begin_us, text),
           (unsigned long long)left, partners_talking(&world.hosts[0]));
    fflush(stdout);
}

static uint64_t run(void)
{
    uint64_t look_us = 0;
    uint64_t tell_us = 0;
    uint64_t left = s.messages;
    process_start();
    while (left > 0 && sim_now_us() - s.begin_us < s.until_us) {
        world_step();
        if (sim_now_us() >= look_us) {
            left = queued();
            look_us = sim_now_us() + 10 * SIM_SECOND;
            if (sim_now_us() >= tell_us) {
                tell_now(left);
                tell_us = sim_now_us() + 15 * SIM_MINUTE;
            }
        }
    }
    return left;
}

static void print(uint64_t left)
{
    char text[64];
    puts("");
    if (left == 0) {
        printf("drained after            %s\n", span(sim_now_us() - s.begin_us, text));
    } else {
        printf("not drained after        %s: %llu are left\n",
               span(sim_now_us() - s.begin_us, text), (unsigned long long)left);
    }
    if (s.first_us >= s.begin_us + s.down_to_us) {
        printf("first mail after the end %s\n", span(s.first_us - s.begin_us - s.down_to_us, text));
    }
    printf("taken by the partner     %llu\n", (unsigned long long)s.taken);
    printf("attempts at messages     %llu, %llu deferred\n", (unsigned long long)s.attempts,
           (unsigned long long)s.deferred);
    printf("connections asked for    %llu, %llu of them while it was down\n",
           (unsigned long long)s.connects, (unsigned long long)s.connects_down);
    printf("connections at a time    %u at most\n", s.peak);
    printf("bounces                  %llu\n", (unsigned long long)s.reports_failed);
    printf("delay warnings           %llu\n", (unsigned long long)s.reports_delayed);
}

int scenario_run(const char *config, const char *scenario)
{
    s = (struct scenario){
        .on = true, .size = 2048, .until_us = 14 * 24 * SIM_HOUR, .latency_us = 10 * SIM_MS};
    if (!read_file(scenario)) {
        return 2;
    }
    draw(config);
    if (!prepare(config)) {
        return 2;
    }
    printf("%llu messages of %llu octets for %s, which is down from %.0f to %.0f minutes\n\n",
           (unsigned long long)s.messages, (unsigned long long)s.size, s.names[0],
           (double)s.down_from_us / (double)SIM_MINUTE, (double)s.down_to_us / (double)SIM_MINUTE);
    uint64_t left = 0;
    const bool good = world_guard(run, &left);
    if (good) {
        print(left);
    } else {
        printf("failed: %s\n", world_failure());
    }
    world_clean();
    return good && left == 0 ? 0 : 1;
}
