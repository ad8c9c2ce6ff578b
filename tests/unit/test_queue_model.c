/* Random work on the queue over the store in memory, beside a model that only knows which
 * recipients are still queued. After every transaction the checker must find nothing and the queue
 * must hold exactly the model's recipients; each recipient ends at most once. The process "dies" at
 * random steps, before and after the commit; then the queue is opened anew and must hold what was
 * committed. Or an allocation fails, any one: then the transaction is taken back, the same process
 * goes on, and nothing of it is left. */
#define _XOPEN_SOURCE 700 /* nftw, mkdtemp */
#include "queue_fixture.h"

#include <ftw.h>
#include <unistd.h>

#include "bh/kv_lmdb.h"
#include "bh/rng.h"
#include "exhaust.h"

#define RECIPIENTS_MAX 60000
#define DOMAINS 6

enum trouble { NO_TROUBLE, DEATHS, WANT };

enum fate { NOT_YET, QUEUED, ENDED };

struct model {
    uint8_t fate[RECIPIENTS_MAX];
    uint32_t count;
};

struct world {
    struct bh_kv *kv;
    enum trouble trouble; /* the store can crash, or memory runs out */
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    struct bh_rng rng;
    int64_t now_ms;
    struct model work; /* as of the open transaction */
    struct model done; /* as committed */
    struct bh_arena arena;
    uint64_t steps_left; /* to the crash; 0: none is due */
    bool died;
    bool died_after_commit;
    uint64_t open_id; /* a large message being received, committed; 0: none */
    uint64_t open_work;
    uint64_t crashes;
    uint64_t wanting; /* transactions that ended for want of memory */
    uint64_t commits;
    uint64_t ended;
    uint64_t notices;
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return bh_rng_below(&w->rng, bound);
}

static enum bh_status fault(void *ctx, enum bh_kv_step step)
{
    struct world *w = ctx;
    if (w->steps_left == 0 || --w->steps_left > 0) {
        return BH_OK;
    }
    bh_kv_memory_crash(w->kv);
    w->died = true;
    w->died_after_commit = step == BH_KV_STEP_COMMITTED;
    return BH_EIO;
}

static uint32_t number_of(struct bh_slice address)
{
    uint64_t number = 0;
    const struct bh_slice local = bh_address_local(address);
    assert_true(bh_slice_u64(bh_slice_skip(local, 1), RECIPIENTS_MAX - 1, &number));
    return (uint32_t)number;
}

static void end_recipient(struct world *w, struct bh_slice address)
{
    const uint32_t number = number_of(address);
    assert_int_equal(w->work.fate[number], QUEUED);
    w->work.fate[number] = ENDED;
    w->ended++;
}

/* ---- operations ---- */

static struct bh_recipient new_recipient(struct world *w, uint64_t domain)
{
    const uint32_t number = w->work.count++;
    assert_true(number < RECIPIENTS_MAX);
    w->work.fate[number] = QUEUED;
    char text[64];
    snprintf(text, sizeof(text), "r%u@d%llu.test", number, (unsigned long long)domain);
    struct bh_recipient to = {.orcpt = BH_EMPTY};
    assert_true(bh_arena_copy(&w->arena, bh_slice_str(text), &to.address));
    static const uint8_t notify[] = {0, BH_NOTIFY_NEVER, BH_NOTIFY_SUCCESS | BH_NOTIFY_FAILURE,
                                     BH_NOTIFY_DELAY};
    to.notify = notify[below(w, BH_COUNT(notify))];
    return to;
}

static struct bh_slice domain_name(struct world *w, uint64_t domain)
{
    char text[32];
    struct bh_slice name;
    snprintf(text, sizeof(text), "d%llu.test", (unsigned long long)domain);
    assert_true(bh_arena_copy(&w->arena, bh_slice_str(text), &name));
    return name;
}

static struct bh_queue_group new_group(struct world *w, size_t recipients)
{
    const uint64_t domain = below(w, DOMAINS);
    struct bh_recipient *to = bh_arena_alloc(&w->arena, recipients * sizeof(*to));
    assert_non_null(to);
    for (size_t i = 0; i < recipients; i++) {
        to[i] = new_recipient(w, domain);
    }
    return (struct bh_queue_group){
        .domain = domain_name(w, domain),
        .connector = below(w, 3) == 0 ? BH_LIT("special") : BH_LIT("default"),
        .recipients = to,
        .recipient_count = recipients,
        .hint = below(w, 2) == 0 ? BH_HINT_ENTRY : BH_HINT_FRESH_OK,
        .hold = below(w, 12) == 0 ? BH_LIT("held at arrival") : BH_EMPTY,
    };
}

static enum bh_status put(struct world *w, struct bh_queue_group *groups, size_t group_count,
                          uint64_t open_id, uint64_t size, bool internal)
{
    static char content[40000];
    const struct bh_slice pieces[] = {
        bh_slice(content, open_id == 0 ? (size_t)size / 2 : 0),
        bh_slice(content, open_id == 0 ? (size_t)(size - size / 2) : 0)};
    const struct bh_envelope envelope = {
        .sender = internal || below(w, 4) == 0 ? BH_EMPTY : BH_LIT("sender@here.test"),
        .envid = BH_EMPTY,
        .size = size};
    const struct bh_origin origin = {.client = {.family = 4, .bytes = {127, 0, 0, 1}},
                                     .helo = BH_LIT("client.test"),
                                     .user = BH_EMPTY,
                                     .listener = BH_LIT("main"),
                                     .protocol = BH_LIT("ESMTP"),
                                     .arrival_unix_ms = w->now_ms};
    const struct bh_queue_put params = {.envelope = &envelope,
                                        .origin = &origin,
                                        .content = pieces,
                                        .content_count = 2,
                                        .open_id = open_id,
                                        .groups = groups,
                                        .group_count = group_count,
                                        .internal = internal};
    struct bh_queue_put_result result;
    return bh_queue_put(w->q, w->txn, &params, fixture_now(w->now_ms), &w->arena, &result);
}

static enum bh_status notify(void *ctx, struct bh_queue *q, struct bh_kv_txn *txn,
                             const struct bh_message *message, const struct bh_notice *notices,
                             size_t count)
{
    struct world *w = ctx;
    assert_ptr_equal(q, w->q);
    assert_true(count > 0);
    w->notices += count;
    for (size_t i = 0; i < count; i++) {
        assert_true(number_of(notices[i].to.address) < w->work.count);
    }
    char content[256];
    struct bh_buf out = bh_buf(content, sizeof(content));
    const enum bh_status status = bh_queue_read_content(txn, message, 0, &out);
    if (status != BH_OK) {
        return status;
    }
    assert_int_equal(out.len, message->envelope.size < 256 ? message->envelope.size : 256);
    if (message->envelope.sender.len == 0) {
        return BH_OK;
    }
    struct bh_queue_group group = new_group(w, 1);
    struct bh_kv_txn *outer = w->txn;
    w->txn = txn;
    const enum bh_status put_status = put(w, &group, 1, 0, 100, true);
    w->txn = outer;
    return put_status;
}

static struct bh_queue_notifier notifier(struct world *w)
{
    return (struct bh_queue_notifier){.hook = notify, .ctx = w, .now = fixture_now(w->now_ms)};
}

static enum bh_status op_put(struct world *w)
{
    struct bh_queue_group groups[5];
    const size_t count = 1 + below(w, BH_COUNT(groups));
    for (size_t i = 0; i < count; i++) {
        groups[i] = new_group(w, 1 + below(w, below(w, 6) == 0 ? 220 : 4));
    }
    static const uint64_t sizes[] = {0, 100, BH_QUEUE_CHUNK, BH_QUEUE_CHUNK + 1, 40000};
    return put(w, groups, count, 0, sizes[below(w, BH_COUNT(sizes))], false);
}

static enum bh_status op_large(struct world *w)
{
    static char content[BH_QUEUE_CHUNK * 2];
    enum bh_status status;
    if (w->open_work == 0) {
        return bh_queue_large_begin(w->q, w->txn, fixture_now(w->now_ms), &w->open_work);
    }
    switch (below(w, 3)) {
    case 0:
        do {
            status = bh_queue_large_discard(w->q, w->txn, w->open_work, 1);
        } while (status == BH_MORE);
        w->open_work = 0;
        return status;
    case 1:
        status =
            bh_queue_large_append(w->q, w->txn, w->open_work, bh_slice(content, sizeof(content)));
        if (status == BH_OK) {
            status = bh_queue_large_append(w->q, w->txn, w->open_work, bh_slice(content, 10));
        }
        if (status == BH_EINVAL) {
            return BH_OK; /* its last piece came before: wait for the put or the discard */
        }
        return status;
    default: {
        /* Sizes by chance: a wrong one is refused with nothing changed. */
        struct bh_queue_group group = {0};
        const struct model before = w->work;
        group = new_group(w, 2);
        status = put(w, &group, 1, w->open_work, sizeof(content) + 10, false);
        if (status == BH_EINVAL) {
            w->work = before;
            return BH_OK;
        }
        w->open_work = 0;
        return status;
    }
    }
}

/* A random entry of either lane. @return false if there is none */
struct picking {
    struct world *w;
    struct bh_queue_key key;
    uint64_t seen;
};

static bool pick_one(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    struct picking *p = ctx;
    (void)message;
    p->seen++;
    if (below(p->w, p->seen) == 0) {
        p->key = entry->key;
    }
    return true;
}

static enum bh_status pick(struct world *w, struct bh_queue_key *key, bool *any)
{
    struct bh_selection all;
    bh_selection_init(&all);
    struct bh_select_cursor cursor = {.fresh_done = false};
    struct picking p = {.w = w};
    const enum bh_status status = bh_queue_select(w->txn, &all, &cursor, SIZE_MAX, pick_one, &p);
    *any = p.seen > 0;
    *key = p.key;
    return status;
}

static struct bh_outcome outcome(struct world *w)
{
    return (struct bh_outcome){.stage = BH_STAGE_RCPT,
                               .happened = BH_HAPPENED_REPLY,
                               .code = below(w, 2) == 0 ? 450 : 550,
                               .text = BH_LIT("no\r\nsuch \x01 user"),
                               .host = BH_LIT("mx.test")};
}

static enum bh_status op_settle(struct world *w)
{
    struct bh_queue_key key;
    bool any;
    enum bh_status status = pick(w, &key, &any);
    if (status != BH_OK || !any) {
        return status;
    }
    struct bh_entry e;
    status = bh_queue_read_entry(w->txn, key, &w->arena, &e);
    if (status != BH_OK) {
        return status;
    }
    struct bh_settle_recipient verdicts[BH_RECIPIENTS_PER_ENTRY];
    const bool all = below(w, 2) == 0;
    const enum bh_verdict common = (enum bh_verdict)below(w, BH_VERDICT_CANCELLED + 1);
    for (uint16_t i = 0; i < e.recipient_count; i++) {
        const enum bh_verdict verdict =
            all ? common : (enum bh_verdict)below(w, BH_VERDICT_CANCELLED + 1);
        verdicts[i] = (struct bh_settle_recipient){.verdict = verdict,
                                                   .tried = below(w, 4) > 0,
                                                   .charged = below(w, 2) == 0,
                                                   .uncertain = below(w, 9) == 0,
                                                   .outcome = outcome(w)};
        if (verdict != BH_VERDICT_KEEP) {
            end_recipient(w, e.recipients[i].to.address);
        }
    }
    const struct bh_settle settle = {.key = key,
                                     .lane = (enum bh_lane)below(w, 2),
                                     .recipients = verdicts,
                                     .recipient_count = e.recipient_count,
                                     .charged = below(w, 2) == 0,
                                     .remaining = (enum bh_entry_state)below(w, BH_ENTRY_STATES),
                                     .due_unix_ms = w->now_ms + (int64_t)below(w, 100000),
                                     .reason = BH_LIT("a reason"),
                                     .decision = below(w, 3) > 0 ? BH_LIT("why") : BH_EMPTY};
    const struct bh_queue_notifier n = notifier(w);
    struct bh_settle_result result;
    status = bh_queue_settle(w->q, w->txn, &settle, &n, &result);
    if (status == BH_OK) {
        assert_int_equal(result.removed + result.remaining, e.recipient_count);
    }
    return status;
}

static enum bh_status op_move(struct world *w)
{
    struct bh_queue_key key;
    bool any;
    enum bh_status status = pick(w, &key, &any);
    if (status != BH_OK || !any) {
        return status;
    }
    const uint64_t mask[2] = {below(w, 16), 0};
    bool quarantined;
    struct bh_queue_key to;
    switch (below(w, 3)) {
    case 0:
        return bh_queue_rebind(w->q, w->txn, key, domain_name(w, below(w, DOMAINS)),
                               BH_LIT("other"), fixture_now(w->now_ms), &to);
    case 1:
        return bh_queue_mark_uncertain(w->q, w->txn, key, mask,
                                       below(w, 2) == 0 ? BH_LIT("uncertain") : BH_EMPTY,
                                       BH_LIT("crash"), fixture_now(w->now_ms));
    default:
        return bh_queue_mark_crashed(w->q, w->txn, key.id, fixture_now(w->now_ms), &quarantined);
    }
}

static enum bh_status op_destination(struct world *w)
{
    static const unsigned sets[] = {BH_SET_BACKOFF, BH_SET_LAST, BH_SET_SUCCESS, BH_SET_HOLD,
                                    BH_CLEAR_HOLD,  BH_SET_PARK, BH_CLEAR_PARK,  BH_SET_FLUSH,
                                    BH_CLEAR_FLUSH, BH_END_HOLD, BH_ADD_HOLD};
    struct bh_destination d;
    enum bh_status status =
        bh_queue_next_destination(w->txn, (uint32_t)below(w, 30), &w->arena, &d);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    const unsigned one_set = sets[below(w, BH_COUNT(sets))];
    const unsigned other_set = sets[below(w, BH_COUNT(sets))];
    const struct bh_destination_change change = {
        .set = one_set | other_set,
        .backoff_stage = (uint32_t)below(w, 3),
        .next_event_unix_ms = below(w, 2) == 0 ? 0 : w->now_ms + (int64_t)below(w, 100000),
        .last = outcome(w),
        .last_tls = BH_LIT("TLS 1.3"),
        .last_success_unix_ms = w->now_ms,
        .hold_reason = BH_LIT("ticket 8812"),
        .hold_by = BH_LIT("operator"),
        .hold_until_unix_ms = below(w, 2) == 0 ? BH_QUEUE_NEVER : w->now_ms + 5000,
        .park_reason = BH_LIT("secret"),
        .flush_up_to_id = d.flush_up_to_id,
        .flush_unix_ms = d.flush_unix_ms,
    };
    return bh_queue_destination_update(w->q, w->txn, d.id, &change, fixture_now(w->now_ms));
}

/* Which recipients an entry held, for what ends entries by their keys. */
struct held_by {
    struct world *w;
    struct bh_queue_key key;
    bool end;
};

static bool end_if_key(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    const struct held_by *h = ctx;
    (void)message;
    if (entry->key.destination == h->key.destination && entry->key.id == h->key.id &&
        entry->key.part == h->key.part) {
        for (uint16_t i = 0; i < entry->recipient_count; i++) {
            end_recipient(h->w, entry->recipients[i].to.address);
        }
    }
    return true;
}

static enum bh_status op_age(struct world *w)
{
    struct bh_destination d;
    enum bh_status status =
        bh_queue_next_destination(w->txn, (uint32_t)below(w, 30), &w->arena, &d);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    const struct bh_queue_notifier n = notifier(w);
    struct bh_age_pass pass = {0};
    struct bh_aged aged[3];
    size_t count;
    const bool warn = below(w, 2) == 0;
    do {
        const struct bh_warn warning = {.destination = d.id,
                                        .warn_ms = BH_HOUR_MS,
                                        .outcome = outcome(w),
                                        .rows_max = BH_COUNT(aged)};
        const struct bh_expire expiry = {.destination = d.id,
                                         .expire_ms = 10 * BH_HOUR_MS,
                                         .expire_null_ms = 5 * BH_HOUR_MS,
                                         .outcome = outcome(w),
                                         .rows_max = BH_COUNT(aged)};
        /* What expires is told by key: a second view of the same transaction is not to be had, so
         * the recipients come from the state before, read through a nested copy of the model. */
        struct bh_kv_txn *before;
        status = bh_kv_begin(w->kv, BH_KV_READ, NULL, &before);
        if (status != BH_OK) {
            return status;
        }
        status = warn ? bh_queue_warn_slice(w->q, w->txn, &warning, &n, &pass, aged, &count)
                      : bh_queue_expire_slice(w->q, w->txn, &expiry, &n, &pass, aged, &count);
        for (size_t i = 0; i < count && status >= 0 && !warn; i++) {
            struct bh_selection one;
            bh_selection_init(&one);
            one.ids[0] = aged[i].key.id;
            one.id_count = 1;
            struct bh_select_cursor cursor = {.fresh_done = false};
            struct held_by h = {.w = w, .key = aged[i].key};
            const unsigned long left = exhaust.left;
            exhaust.left = 0; /* The test's own looks do not fail. */
            assert_int_equal(bh_queue_select(before, &one, &cursor, SIZE_MAX, end_if_key, &h),
                             BH_OK);
            exhaust.left = left;
        }
        bh_kv_abort(before);
    } while (status == BH_MORE);
    return status;
}

static void job_acted(void *ctx, const struct bh_job *job, const struct bh_entry *entry)
{
    struct world *w = ctx;
    for (uint16_t i = 0; i < entry->recipient_count; i++) {
        if (job->verb == BH_JOB_CANCEL || job->verb == BH_JOB_BOUNCE) {
            end_recipient(w, entry->recipients[i].to.address);
        }
    }
}

static bool some_in_flight(void *ctx, struct bh_queue_key key)
{
    (void)ctx;
    return key.id % 7 == 0;
}

static enum bh_status op_job(struct world *w)
{
    struct bh_job job = {.verb = (enum bh_job_verb)below(w, BH_JOB_REQUEUE + 1),
                         .reason = BH_LIT("asked for"),
                         .by = BH_LIT("operator")};
    bh_selection_init(&job.selection);
    job.selection.recipient = BH_EMPTY;
    switch (below(w, 4)) {
    case 0:
        job.selection.domain = domain_name(w, below(w, DOMAINS));
        break;
    case 1:
        job.selection.sender = below(w, 2) == 0 ? BH_LIT("<>") : BH_LIT("@here.test");
        job.selection.states = BH_SELECT_DUE | BH_SELECT_HELD;
        break;
    case 2: {
        struct bh_queue_key key;
        bool any;
        const enum bh_status status = pick(w, &key, &any);
        if (status != BH_OK || !any) {
            return status;
        }
        job.selection.ids[0] = key.id;
        job.selection.id_count = 1;
        break;
    }
    default:
        job.selection.connector = BH_LIT("special");
        break;
    }
    uint64_t id;
    enum bh_status status = bh_queue_job_create(w->q, w->txn, &job, fixture_now(w->now_ms), &id);
    const struct bh_queue_notifier n = notifier(w);
    const struct bh_job_slice slice = {.job = id,
                                       .rows_max = 5,
                                       .in_flight = some_in_flight,
                                       .ctx = w,
                                       .outcome = outcome(w),
                                       .acted = job_acted};
    if (status == BH_OK) {
        do {
            status = bh_queue_job_slice(w->q, w->txn, &slice, &n, &w->arena, &job);
        } while (status == BH_MORE);
    }
    if (status == BH_OK) {
        assert_int_equal(job.matched, job.acted + job.in_flight);
        status = bh_queue_job_remove(w->q, w->txn, id);
    }
    return status;
}

static enum bh_status op_sweep(struct world *w)
{
    size_t deleted;
    return bh_queue_sweep(w->q, w->txn, 100, fixture_now(w->now_ms), &deleted);
}

static enum bh_status random_op(struct world *w)
{
    static enum bh_status (*const ops[])(struct world *) = {
        op_put,    op_put,  op_settle,      op_settle, op_settle, op_settle,
        op_settle, op_move, op_destination, op_job,    op_sweep,  op_large};
    return ops[below(w, BH_COUNT(ops))](w);
}

/* ---- what must hold ---- */

struct census {
    uint8_t *seen;
    uint64_t count;
};

static bool count_one(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    struct census *c = ctx;
    assert_int_equal(message->id, entry->key.id);
    for (uint16_t i = 0; i < entry->recipient_count; i++) {
        uint8_t *seen = &c->seen[number_of(entry->recipients[i].to.address)];
        assert_int_equal(*seen, 0);
        *seen = 1;
        c->count++;
    }
    return true;
}

static void check_world(struct world *w)
{
    const uint64_t steps = w->steps_left;
    w->steps_left = 0;
    struct bh_kv_txn *txn;
    assert_int_equal(bh_kv_begin(w->kv, BH_KV_READ, NULL, &txn), BH_OK);
    const struct bh_queue_check_result result = fixture_check_txn(txn);
    static uint8_t seen[RECIPIENTS_MAX];
    memset(seen, 0, sizeof(seen));
    struct census census = {.seen = seen};
    struct bh_selection all;
    bh_selection_init(&all);
    struct bh_select_cursor cursor = {.fresh_done = false};
    enum bh_status status;
    do { /* in small pages, which must give each entry once */
        status = bh_queue_select(txn, &all, &cursor, 7, count_one, &census);
    } while (status == BH_MORE);
    assert_int_equal(status, BH_OK);
    for (uint32_t i = 0; i < w->done.count; i++) {
        assert_int_equal(seen[i], w->done.fate[i] == QUEUED);
    }
    assert_int_equal(census.count, result.recipients);
    assert_int_equal(bh_queue_fresh_count(w->q), result.fresh);
    bh_kv_abort(txn);
    w->steps_left = steps;
}

static void commit_model(struct world *w)
{
    w->done = w->work;
    w->open_id = w->open_work;
}

/* The process dies and starts again. */
static void restart(struct world *w)
{
    bh_queue_destroy(w->q);
    if (w->died_after_commit) {
        commit_model(w);
    }
    w->work = w->done;
    w->died = false;
    w->died_after_commit = false;
    w->steps_left = 0;
    w->crashes++;
    w->q = fixture_open(w->kv);
    /* What was half received goes, in slices. */
    enum bh_status status;
    do {
        assert_int_equal(bh_queue_begin(w->q, NULL, &w->txn), BH_OK);
        status = bh_queue_large_recover(w->q, w->txn, 1);
        assert_int_equal(bh_queue_commit(w->q, w->txn), BH_OK);
    } while (status == BH_MORE);
    assert_int_equal(status, BH_OK);
    w->open_id = 0;
    w->open_work = 0;
}

/* One op in a nested transaction that is taken back: it must leave no trace. */
static enum bh_status nested_and_back(struct world *w)
{
    static struct model before;
    before = w->work;
    const uint64_t open = w->open_work;
    const uint32_t fresh = bh_queue_fresh_count(w->q);
    struct bh_kv_txn *outer = w->txn;
    enum bh_status status = bh_queue_begin(w->q, outer, &w->txn);
    if (status != BH_OK) {
        return status;
    }
    status = random_op(w);
    bh_queue_abort(w->q, w->txn);
    w->txn = outer;
    w->work = before;
    w->open_work = open;
    assert_int_equal(bh_queue_fresh_count(w->q), fresh);
    return status;
}

/* What is done in a transaction is put together before memory runs out: the arena has its block. */
static void want_memory(struct world *w)
{
    const bool want = w->trouble == WANT && below(w, 3) > 0;
    exhaust_at(want ? 1 + below(w, below(w, 2) == 0 ? 12 : 300) : 0);
}

static void take_back(struct world *w)
{
    w->work = w->done;
    w->open_work = w->open_id;
    w->wanting++;
}

static void one_transaction(struct world *w)
{
    bh_arena_reset(&w->arena);
    w->now_ms += (int64_t)below(w, 20 * BH_MINUTE_MS);
    if (below(w, 50) == 0) {
        w->now_ms -= 20 * BH_MINUTE_MS;
    }
    const bool dies = w->trouble == DEATHS && below(w, 8) == 0;
    w->steps_left = dies ? 1 + below(w, below(w, 2) == 0 ? 20 : 600) : 0;
    want_memory(w);
    enum bh_status status = bh_queue_begin(w->q, NULL, &w->txn);
    if (status == BH_OK) {
        /* Expiry alone, for the test reads the state before it beside it. */
        const uint64_t ops = below(w, 8) == 0 ? 0 : 1 + below(w, 4);
        if (ops == 0) {
            status = op_age(w);
        }
        for (uint64_t i = 0; i < ops && status == BH_OK; i++) {
            status = below(w, 10) == 0 ? nested_and_back(w) : random_op(w);
        }
        if (status == BH_OK) {
            status = bh_queue_commit(w->q, w->txn);
        } else {
            bh_queue_abort(w->q, w->txn);
        }
    }
    const bool wanted = exhaust_end();
    if (w->died) {
        assert_int_equal(status, BH_EIO);
        restart(w);
    } else if (wanted && status != BH_OK) {
        assert_int_equal(status, BH_ENOMEM);
        take_back(w);
    } else {
        assert_int_equal(status, BH_OK);
        commit_model(w);
        w->commits++;
    }
    check_world(w);
}

static void run_seed(uint64_t seed, unsigned transactions, struct bh_kv *kv, enum trouble trouble)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    bh_rng_seed(&w.rng, seed);
    bh_arena_init(&w.arena, (size_t)64 << 20);
    assert_non_null(bh_arena_alloc(&w.arena, (size_t)16 << 20)); /* its first block, which stays */
    w.now_ms = FIXTURE_NOW;
    w.kv = kv;
    w.trouble = trouble;
    w.q = fixture_open(w.kv);
    if (trouble == DEATHS) {
        bh_kv_memory_set_fault(w.kv, fault, &w);
    }
    for (unsigned i = 0; i < transactions && w.work.count < RECIPIENTS_MAX - 10000; i++) {
        one_transaction(&w);
    }
    printf("seed %llu: %llu commits, %llu crashes, %llu for want of memory, %u recipients, %llu "
           "ended, %llu notices\n",
           (unsigned long long)seed, (unsigned long long)w.commits, (unsigned long long)w.crashes,
           (unsigned long long)w.wanting, w.work.count, (unsigned long long)w.ended,
           (unsigned long long)w.notices);
    assert_true(w.commits > 0 && w.ended > 0 && w.notices > 0);
    assert_true((w.crashes > 0) == (trouble == DEATHS) && (w.wanting > 0) == (trouble == WANT));
    bh_queue_destroy(w.q);
    bh_kv_close(w.kv);
    bh_arena_fini(&w.arena);
}

static void run_in_memory(uint64_t seed, unsigned transactions, enum trouble trouble)
{
    struct bh_kv *kv = bh_kv_memory_create((size_t)256 << 20, 1 << 20);
    assert_non_null(kv);
    run_seed(seed, transactions, kv, trouble);
}

static void random_work_is_conserved(void **unused)
{
    (void)unused;
    const char *seed = getenv("BH_SEED");
    if (seed != NULL) {
        run_in_memory(strtoull(seed, NULL, 10), 600, DEATHS);
        return;
    }
    for (uint64_t i = 1; i <= 8; i++) {
        run_in_memory(i, 150, DEATHS);
    }
}

static void want_of_memory_leaves_no_trace(void **unused)
{
    (void)unused;
    for (uint64_t i = 101; i <= 106; i++) {
        run_in_memory(i, 300, WANT);
    }
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void lmdb_does_the_same(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/bh-model-XXXXXX";
    assert_non_null(mkdtemp(folder));
    const struct bh_kv_lmdb_options options = {
        .path = folder, .size_max = (size_t)256 << 20, .reserve = (size_t)4 << 20};
    struct bh_kv *kv = NULL;
    char error[300];
    assert_int_equal(bh_kv_lmdb_open(&options, &kv, error, sizeof(error)), BH_OK);
    run_seed(77, 250, kv, NO_TROUBLE);
    assert_int_equal(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_work_is_conserved),
                                       cmocka_unit_test(want_of_memory_leaves_no_trace),
                                       cmocka_unit_test(lmdb_does_the_same)};
    return cmocka_run_group_tests_name("queue_model", tests, NULL, NULL);
}
