/* A queue whose rows were changed by whoever could: any octet of any database, rows cut, removed
 * and added. Whatever is done to it: the checker reads it to its end, every reader gives an answer,
 * and the writer refuses a row or changes the store, without ever stopping the process. And where
 * the checker had nothing to complain of before the writer worked, it has nothing afterwards.
 *
 * The input is a list of changes: how, which database, which row, where, then octets. */
#include <stdlib.h>

#include "bh/kv_memory.h"
#include "bh/log.h"
#include "bh/queue.h"
#include "bh/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define T INT64_C(1800000000000)
#define ITEMS_MAX 64

struct world {
    struct bh_kv *kv;
    struct bh_queue *q;
    struct bh_arena arena;
    struct bh_queue_item items[ITEMS_MAX];
    size_t count;
    bool sound; /* the checker had nothing to say */
};

static const struct bh_queue_limits limits = {.fresh_max = 40, .fresh_window = 15};
static const struct bh_now now = {.mono_ms = 1, .unix_ms = T + 1000};

/* ---- a queue with a row of every kind ---- */

static void put(struct world *w, struct bh_kv_txn *txn, const char *domain, enum bh_lane_hint hint,
                uint16_t recipients)
{
    static const struct bh_recipient to[] = {{{"a@x.test", 8}, {"rfc822;x", 8}, BH_NOTIFY_SUCCESS},
                                             {{"b@x.test", 8}, {"", 0}, 0}};
    static const struct bh_slice content = {"Subject: x\r\n\r\nhi\r\n", 18};
    const struct bh_envelope envelope = {.sender = {"s@y.test", 8}, .envid = {"e", 1}, .size = 18};
    const struct bh_origin origin = {.helo = {"h", 1},
                                     .user = {"", 0},
                                     .listener = {"l", 1},
                                     .protocol = {"ESMTP", 5},
                                     .arrival_unix_ms = T};
    const struct bh_queue_group group = {.domain = bh_slice_str(domain),
                                         .connector = BH_LIT("c"),
                                         .recipients = to,
                                         .recipient_count = recipients,
                                         .hint = hint,
                                         .hold = BH_EMPTY};
    const struct bh_queue_put what = {.envelope = &envelope,
                                      .origin = &origin,
                                      .content = &content,
                                      .content_count = 1,
                                      .head = BH_EMPTY,
                                      .groups = &group,
                                      .group_count = 1};
    struct bh_queue_put_result result;
    BH_ASSERT(bh_queue_put(w->q, txn, &what, now, &w->arena, &result) == BH_OK);
}

static struct bh_settle_recipient deferred(void)
{
    return (struct bh_settle_recipient){
        .verdict = BH_VERDICT_KEEP,
        .tried = true,
        .charged = true,
        .outcome = {.stage = BH_STAGE_RCPT, .code = 450, .text = {"no", 2}, .host = {"mx", 2}}};
}

static enum bh_status settle(struct world *w, struct bh_kv_txn *txn,
                             const struct bh_queue_item *item, enum bh_verdict verdict,
                             enum bh_entry_state remaining)
{
    struct bh_settle_recipient recipients[100];
    for (size_t i = 0; i < BH_COUNT(recipients); i++) {
        recipients[i] = deferred();
        recipients[i].verdict = verdict;
    }
    const struct bh_settle s = {.key = item->key,
                                .lane = item->lane,
                                .recipients = recipients,
                                .recipient_count = item->recipients,
                                .charged = true,
                                .remaining = remaining,
                                .due_unix_ms = T + 5000,
                                .reason = BH_LIT("because"),
                                .decision = BH_LIT("decision")};
    const struct bh_queue_notifier nobody = {.now = now};
    struct bh_settle_result result;
    return item->recipients <= BH_COUNT(recipients)
               ? bh_queue_settle(w->q, txn, &s, &nobody, &result)
               : BH_OK;
}

static void list(struct world *w, struct bh_kv_txn *txn)
{
    struct bh_destination d;
    uint64_t fresh_id = 0;
    w->count = 0;
    size_t count = 0;
    (void)!bh_queue_scan_fresh(txn, &fresh_id, w->items, ITEMS_MAX / 2, &count);
    w->count = count;
    for (uint32_t id = 0; bh_queue_next_destination(txn, id, &w->arena, &d) == BH_OK; id = d.id) {
        BH_ASSERT(d.id > id);
        count = 0;
        (void)!bh_queue_list_entries(txn, d.id, NULL, w->items + w->count, ITEMS_MAX - w->count,
                                     &count);
        w->count += count;
        if (w->count == ITEMS_MAX) {
            break;
        }
    }
}

static void build(struct world *w)
{
    char error[200];
    struct bh_kv_txn *txn;
    w->kv = bh_kv_memory_create((size_t)8 << 20, 0);
    BH_ASSERT(w->kv != NULL);
    BH_ASSERT(bh_queue_open(w->kv, &limits, &w->q, error, sizeof(error)) == BH_OK);
    BH_ASSERT(bh_queue_begin(w->q, NULL, &txn) == BH_OK);
    put(w, txn, "a.test", BH_HINT_FRESH_OK, 2);
    put(w, txn, "a.test", BH_HINT_ENTRY, 1);
    put(w, txn, "b.test", BH_HINT_ENTRY, 2);
    put(w, txn, "b.test", BH_HINT_ENTRY, 1);
    put(w, txn, "b.test", BH_HINT_ENTRY, 1);
    list(w, txn);
    BH_ASSERT(w->count == 5);
    BH_ASSERT(settle(w, txn, &w->items[2], BH_VERDICT_KEEP, BH_ENTRY_DUE) == BH_OK);
    BH_ASSERT(settle(w, txn, &w->items[3], BH_VERDICT_KEEP, BH_ENTRY_HELD) == BH_OK);
    struct bh_job job = {.verb = BH_JOB_HOLD, .reason = BH_LIT("r"), .by = BH_LIT("b")};
    bh_selection_init(&job.selection);
    uint64_t id = 0;
    BH_ASSERT(bh_queue_job_create(w->q, txn, &job, now, &id) == BH_OK);
    BH_ASSERT(bh_queue_large_begin(w->q, txn, now, &id) == BH_OK);
    BH_ASSERT(bh_queue_policy_put(w->q, txn, BH_LIT("sts/a.test"), BH_LIT("policy")) == BH_OK);
    BH_ASSERT(bh_queue_commit(w->q, txn) == BH_OK);
}

/* ---- changes ---- */

static bool row_at(struct bh_kv_txn *txn, enum bh_kv_db db, size_t index, struct bh_buf *key,
                   struct bh_buf *value)
{
    struct bh_kv_cursor *cursor;
    struct bh_slice k;
    struct bh_slice v;
    BH_ASSERT(bh_kv_cursor_open(txn, db, &cursor) == BH_OK);
    enum bh_status status = bh_kv_first(cursor, &k, &v);
    while (status == BH_OK && index > 0) {
        status = bh_kv_next(cursor, &k, &v);
        index--;
    }
    if (status == BH_OK) {
        bh_buf_add_cut(key, k);
        bh_buf_add_cut(value, v);
    }
    bh_kv_cursor_close(cursor);
    return status == BH_OK;
}

static void change(struct bh_kv_txn *txn, struct bh_reader *r)
{
    char key_octets[BH_KV_KEY_MAX];
    char value_octets[4096];
    struct bh_buf key = bh_buf(key_octets, sizeof(key_octets));
    struct bh_buf value = bh_buf(value_octets, sizeof(value_octets));
    const uint8_t how = bh_read_u8(r) % 6;
    const enum bh_kv_db db = (enum bh_kv_db)(bh_read_u8(r) % BH_KV_DB_COUNT);
    const size_t index = bh_read_u8(r);
    const size_t at = bh_read_u8(r);
    const struct bh_slice octets = bh_read_slice(r);
    if (!row_at(txn, db, index, &key, &value) && how != 5) {
        return;
    }
    enum bh_status status = BH_OK;
    if (how != 0) {
        status = how == 5 ? BH_OK : bh_kv_del(txn, db, bh_buf_slice(&key));
    }
    struct bh_buf *changed = how == 2 ? &key : &value;
    if (how == 0 || how == 2) { /* octets over others */
        for (size_t i = 0; i < octets.len && at + i < changed->len; i++) {
            changed->ptr[at + i] = octets.ptr[i];
        }
    } else if (how == 3) { /* cut, and something else behind */
        value.len = at < value.len ? at : value.len;
        bh_buf_add_cut(&value, octets);
    } else if (how == 4) { /* a key cut likewise */
        key.len = at < key.len ? at : key.len;
        bh_buf_add_cut(&key, octets);
    } else if (how == 5) { /* a row more */
        key.len = 0;
        bh_buf_add_cut(&key, bh_slice_take(octets, at));
        value.len = 0;
        bh_buf_add_cut(&value, bh_slice_skip(octets, at));
    }
    if (how != 1 && key.len > 0 && status == BH_OK) {
        status = bh_kv_put(txn, db, bh_buf_slice(&key), bh_buf_slice(&value), 0);
    }
    BH_ASSERT(status == BH_OK);
}

/* ---- what looks and works ---- */

static uint64_t problems(struct bh_kv_txn *txn)
{
    struct bh_queue_check_result result;
    BH_ASSERT(bh_queue_check(txn, NULL, NULL, &result) == BH_OK);
    return result.problems;
}

static bool count_match(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    (void)message;
    (void)entry;
    (*(size_t *)ctx)++;
    return true;
}

static void read_item(struct world *w, struct bh_kv_txn *txn, const struct bh_queue_item *item)
{
    char storage[64];
    struct bh_buf content = bh_buf(storage, sizeof(storage));
    struct bh_message message;
    struct bh_entry entry;
    struct bh_slice decisions[BH_QUEUE_HISTORY_MAX];
    size_t count = 0;
    if (bh_queue_read_message(txn, item->key.id, &w->arena, &message) == BH_OK) {
        (void)!bh_queue_read_content(txn, &message, 0, &content);
        content.len = 0;
        (void)!bh_queue_read_content(txn, &message, 5, &content);
    }
    (void)!bh_queue_read_entry(txn, item->key, &w->arena, &entry);
    (void)!bh_queue_read_history(txn, item->key, &w->arena, decisions, &count);
    BH_ASSERT(count <= BH_QUEUE_HISTORY_MAX);
}

static void read_destination(struct bh_kv_txn *txn, uint32_t id)
{
    struct bh_queue_item items[8];
    size_t count = BH_COUNT(items);
    int64_t due = 0;
    const struct bh_refill refill = {.destination = id,
                                     .now_unix_ms = T + 100000,
                                     .items_max = BH_COUNT(items),
                                     .bytes_max = 1 << 20,
                                     .rows_max = 100};
    struct bh_refill_cursor cursor = {0};
    (void)!bh_queue_refill(txn, &refill, &cursor, items, &count);
    (void)!bh_queue_first_due(txn, id, &due);
}

static void read_all(struct world *w, struct bh_kv_txn *txn)
{
    struct bh_destination d;
    struct bh_queue_wake wakes[8];
    struct bh_job job;
    struct bh_slice name = BH_EMPTY;
    struct bh_slice value;
    size_t count = BH_COUNT(wakes);
    int64_t at = 0;
    list(w, txn);
    for (size_t i = 0; i < w->count; i++) {
        read_item(w, txn, &w->items[i]);
        read_destination(txn, w->items[i].key.destination);
    }
    for (uint32_t id = 0; bh_queue_next_destination(txn, id, &w->arena, &d) == BH_OK; id = d.id) {
        read_destination(txn, d.id);
    }
    (void)!bh_queue_scan_wake(txn, BH_QUEUE_NEVER, NULL, wakes, BH_COUNT(wakes), &count);
    (void)!bh_queue_first_wake(txn, &at);
    for (uint64_t id = 0; bh_queue_job_next(txn, id, &w->arena, &job) == BH_OK; id = job.id) {
        BH_ASSERT(job.id > id);
    }
    while (bh_queue_policy_next(txn, name, &w->arena, &name, &value) == BH_OK) {
    }
    struct bh_selection all;
    struct bh_select_cursor cursor = {.fresh_done = false};
    bh_selection_init(&all);
    all.sender = BH_LIT("s@y.test");
    for (unsigned i = 0; i < 100; i++) {
        if (bh_queue_select(txn, &all, &cursor, 10, count_match, &count) != BH_MORE) {
            break;
        }
    }
}

/* One piece of the writer's work, in a nested transaction that an error undoes. */
static enum bh_status work(struct world *w, struct bh_kv_txn *txn, unsigned what, size_t which)
{
    const struct bh_queue_item *item = w->count > 0 ? &w->items[which % w->count] : NULL;
    const struct bh_queue_notifier nobody = {.now = now};
    const struct bh_now later = {.mono_ms = 2, .unix_ms = T + 2 * BH_DAY_MS};
    const uint64_t mask[2] = {1, 0};
    struct bh_aged aged[4];
    size_t count = 0;
    bool yes = false;
    struct bh_age_pass pass = {0};
    struct bh_queue_key to;
    struct bh_job job;
    if (item == NULL && what < 7) {
        return BH_OK;
    }
    switch (what) {
    case 0:
        return settle(w, txn, item, BH_VERDICT_DELIVERED, BH_ENTRY_READY);
    case 1:
        return settle(w, txn, item, BH_VERDICT_KEEP, BH_ENTRY_DUE);
    case 2:
        return bh_queue_mark_uncertain(w->q, txn, item->key, mask, BH_LIT("h"), BH_LIT("d"), now);
    case 3:
        return bh_queue_mark_crashed(w->q, txn, item->key.id, now, &yes);
    case 4:
        return bh_queue_rebind(w->q, txn, item->key, BH_LIT("c.test"), BH_LIT("c"), now, &to);
    case 5:
    case 6: {
        const struct bh_expire expire = {.destination = item->key.destination,
                                         .expire_ms = 10,
                                         .expire_null_ms = 10,
                                         .outcome = {.text = {"", 0}, .host = {"", 0}},
                                         .rows_max = BH_COUNT(aged)};
        const struct bh_warn warn = {.destination = item->key.destination,
                                     .warn_ms = 10,
                                     .outcome = {.text = {"", 0}, .host = {"", 0}},
                                     .rows_max = BH_COUNT(aged)};
        const struct bh_queue_notifier then = {.now = later};
        return what == 5 ? bh_queue_expire_slice(w->q, txn, &expire, &then, &pass, aged, &count)
                         : bh_queue_warn_slice(w->q, txn, &warn, &then, &pass, aged, &count);
    }
    case 7:
        return bh_queue_sweep(w->q, txn, 10, later, &count);
    case 8:
        return bh_queue_large_recover(w->q, txn, 10);
    case 9: {
        struct bh_job_slice slice = {.rows_max = 10, .outcome = {.text = {"", 0}, .host = {"", 0}}};
        if (bh_queue_job_next(txn, 0, &w->arena, &job) != BH_OK) {
            return BH_OK;
        }
        slice.job = job.id;
        return bh_queue_job_slice(w->q, txn, &slice, &nobody, &w->arena, &job);
    }
    case 10:
        return bh_queue_jobs_reopen(w->q, txn);
    default:
        return bh_queue_jobs_sweep(w->q, txn);
    }
}

static void write_all(struct world *w, unsigned seed)
{
    for (unsigned i = 0; i < 12; i++) {
        struct bh_kv_txn *txn;
        struct bh_kv_txn *nested;
        const unsigned what = (i + seed) % 12;
        bh_arena_reset(&w->arena);
        BH_ASSERT(bh_queue_begin(w->q, NULL, &txn) == BH_OK);
        list(w, txn);
        BH_ASSERT(bh_queue_begin(w->q, txn, &nested) == BH_OK);
        const enum bh_status status = work(w, nested, what, seed);
        if (status >= 0) {
            BH_ASSERT(bh_queue_commit(w->q, nested) == BH_OK);
        } else {
            bh_queue_abort(w->q, nested);
        }
        BH_ASSERT(!w->sound || problems(txn) == 0);
        BH_ASSERT(bh_queue_commit(w->q, txn) == BH_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    struct bh_reader r = {.rest = bh_slice(data, size)};
    struct bh_kv_txn *txn;
    char error[200];
    if (size == 0 || size > 4096) {
        return 0;
    }
    bh_log_set_level((enum bh_log_level)0);
    w = (struct world){.count = 0};
    bh_arena_init(&w.arena, (size_t)4 << 20);
    build(&w);
    const uint8_t seed = bh_read_u8(&r);
    BH_ASSERT(bh_kv_begin(w.kv, BH_KV_WRITE, NULL, &txn) == BH_OK);
    while (r.rest.len > 0 && !r.failed) {
        change(txn, &r);
    }
    w.sound = problems(txn) == 0;
    bh_arena_reset(&w.arena);
    read_all(&w, txn);
    BH_ASSERT(bh_kv_commit(txn) == BH_OK);
    bh_queue_destroy(w.q);
    w.q = NULL;
    if (bh_queue_open(w.kv, &limits, &w.q, error, sizeof(error)) == BH_OK) {
        write_all(&w, seed);
    }
    bh_queue_destroy(w.q);
    bh_kv_close(w.kv);
    bh_arena_fini(&w.arena);
    return 0;
}
