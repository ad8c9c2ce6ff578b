/* Warnings and expiry: passes over a destination's entries from the oldest, in bounded slices.
 *
 * Ids are given in the order of arrival, so the age of entries, without the time their destination
 * stood still, falls along a pass: it ends at the first that is too young. Ahead of that may stand
 * what a pass need never see again: held mail, mail that is warned, mail of the other class of
 * sender. A cursor on the destination remembers how far only such mail stands, and is wound back
 * when mail is released or comes in with an older id. An entry that was held for a while is younger
 * than its place says: it is passed over, and the cursor stays before it. */
#include "bh/queue.h"

#include "notice.h"

struct aging {
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    const struct bh_queue_notifier *notifier;
    struct bh_age_pass *pass;
    struct bh_aged *aged;
    size_t *aged_count;
    size_t rows_left;
    int64_t limit_ms; /* of the walk at hand */
    bool null_class;  /* ... its senders */
    bool warn;        /* ... else expire */
    struct bh_outcome outcome;
    bool (*in_flight)(void *ctx, struct bh_queue_key key);
    void *ctx;
    uint32_t destination;
    struct bh_destination d;
    struct bh_arena names; /* of d */
    struct bh_arena arena; /* of one entry */
};

static uint64_t *cursor_of(struct aging *a)
{
    if (a->warn) {
        return &a->d.warn_cursor;
    }
    return a->null_class ? &a->d.expire_null_cursor : &a->d.expire_cursor;
}

static enum bh_status load_destination(struct aging *a)
{
    bh_arena_reset(&a->names);
    return destination_load(a->txn, a->destination, &a->names, &a->d);
}

/* The next entry of the pass, decoded. BH_ENOTFOUND: the destination has no more. */
static enum bh_status next_entry(struct aging *a, struct bh_entry *e)
{
    struct bh_queue_key at = {.destination = a->destination};
    if (a->pass->begun) {
        at.id = a->pass->part == UINT16_MAX ? a->pass->id + 1 : a->pass->id;
        at.part = a->pass->part == UINT16_MAX ? 0 : (uint16_t)(a->pass->part + 1);
    } else {
        const uint64_t cursor = *cursor_of(a);
        at.id = cursor + 1;
    }
    const struct row_key from = key_entry(at);
    struct bh_slice key;
    struct bh_slice value;
    enum bh_status status = row_seek(a->txn, BH_KV_ENTRY, key_slice(&from), &key, &value);
    if (status != BH_OK) {
        return status;
    }
    struct bh_queue_key found;
    if (!key_entry_read(key, &found)) {
        return BH_ECORRUPT;
    }
    if (found.destination != a->destination) {
        return BH_ENOTFOUND;
    }
    struct bh_slice row;
    bh_arena_reset(&a->arena);
    if (!bh_arena_copy(&a->arena, value, &row)) {
        return BH_ENOMEM;
    }
    status = record_entry_decode(row, &a->arena, e);
    e->key = found;
    return status;
}

static void tell_caller(struct aging *a, const struct bh_entry *e)
{
    a->aged[(*a->aged_count)++] = (struct bh_aged){
        .key = e->key, .recipients = e->recipient_count, .sender_null = e->sender_null};
}

static enum bh_status expire(struct aging *a, const struct bh_entry *e)
{
    struct bh_settle_recipient *verdicts =
        bh_arena_alloc(&a->arena, e->recipient_count * sizeof(*verdicts));
    if (verdicts == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        const struct bh_entry_recipient *r = &e->recipients[i];
        verdicts[i] = (struct bh_settle_recipient){.verdict = BH_VERDICT_EXPIRED,
                                                   .outcome = r->tried ? r->last : a->outcome};
    }
    const struct bh_settle settle = {.key = e->key,
                                     .lane = BH_LANE_ENTRY,
                                     .recipients = verdicts,
                                     .recipient_count = e->recipient_count};
    struct bh_settle_result result;
    const enum bh_status status = bh_queue_settle(a->q, a->txn, &settle, a->notifier, &result);
    return status == BH_OK ? load_destination(a) : status;
}

static enum bh_status warn(struct aging *a, const struct bh_entry *was)
{
    struct bh_entry e = *was;
    struct notices notices = {.count = 0};
    for (uint16_t i = 0; i < e.recipient_count; i++) {
        const struct bh_entry_recipient *r = &e.recipients[i];
        notices_add(&notices, BH_NOTICE_DELAYED, &e, r, r->tried ? &r->last : &a->outcome);
    }
    enum bh_status status = BH_OK;
    if (notices.count > 0) {
        struct bh_message message;
        status = must_exist(message_load(a->txn, e.key.id, &a->arena, &message));
        if (status == BH_OK) {
            status = notices_tell(&notices, a->q, a->txn, &message, a->notifier);
        }
        if (status == BH_OK) {
            status = load_destination(a); /* a report may have gone to this very destination */
        }
    }
    e.warned = true;
    return status == BH_OK ? any_store(a->q, a->txn, &a->d, was, &e, &a->arena) : status;
}

/* @return BH_OK to go on, BH_ENOTFOUND at the first entry that is too young, or an error */
static enum bh_status consider(struct aging *a, const struct bh_entry *e)
{
    const int64_t now = a->notifier->now.unix_ms;
    const int64_t place_age =
        now - e->arrival_unix_ms - (bh_destination_stopped_ms(&a->d, now) - e->stopped_base_ms);
    if (place_age < a->limit_ms) {
        return BH_ENOTFOUND;
    }
    if (e->sender_null != a->null_class || e->state == BH_ENTRY_HELD || (a->warn && e->warned)) {
        return BH_OK;
    }
    if (bh_entry_age_ms(e, &a->d, now) < a->limit_ms ||
        (a->in_flight != NULL && a->in_flight(a->ctx, e->key))) {
        a->pass->stuck = true; /* to be seen again, once it is older or back */
        return BH_OK;
    }
    const enum bh_status status = a->warn ? warn(a, e) : expire(a, e);
    if (status == BH_OK) {
        tell_caller(a, e);
    }
    return must_exist(status);
}

static enum bh_status save_cursor(struct aging *a, uint64_t seen)
{
    uint64_t *cursor = cursor_of(a);
    if (seen <= *cursor) {
        return BH_OK;
    }
    *cursor = seen;
    return destination_save(a->txn, &a->d, &a->names);
}

/* One walk: one class of senders. BH_OK: at its end. */
static enum bh_status walk_class(struct aging *a)
{
    enum bh_status status = BH_OK;
    uint64_t seen = 0; /* ids up to here need not be seen again */
    while (status == BH_OK && a->rows_left > 0) {
        struct bh_entry e;
        status = next_entry(a, &e);
        if (status == BH_OK) {
            a->rows_left--;
            status = consider(a, &e);
        }
        if (status == BH_OK) {
            a->pass->begun = true;
            a->pass->id = e.key.id;
            a->pass->part = e.key.part;
            seen = a->pass->stuck ? seen : e.key.id - 1; /* more parts of it may follow */
        }
    }
    if (status != BH_OK && status != BH_ENOTFOUND) {
        return status;
    }
    const enum bh_status saved = save_cursor(a, seen);
    if (saved != BH_OK) {
        return saved;
    }
    return status == BH_ENOTFOUND ? BH_OK : BH_MORE;
}

static enum bh_status walk_classes(struct aging *a, int64_t limit_ms, int64_t limit_null_ms)
{
    enum bh_status status = load_destination(a);
    if (status != BH_OK) {
        return status;
    }
    if (!a->pass->null_class) {
        a->limit_ms = limit_ms;
        a->null_class = false;
        status = limit_ms == BH_QUEUE_NEVER ? BH_OK : walk_class(a);
        if (status != BH_OK) {
            return status;
        }
        *a->pass = (struct bh_age_pass){.null_class = true};
    }
    a->limit_ms = limit_null_ms;
    a->null_class = true;
    return limit_null_ms == BH_QUEUE_NEVER ? BH_OK : walk_class(a);
}

static enum bh_status run(struct aging *a, int64_t limit_ms, int64_t limit_null_ms)
{
    *a->aged_count = 0;
    bh_arena_init(&a->names, WORK_ARENA);
    bh_arena_init(&a->arena, WORK_ARENA);
    const enum bh_status status = walk_classes(a, limit_ms, limit_null_ms);
    bh_arena_fini(&a->arena);
    bh_arena_fini(&a->names);
    return status;
}

enum bh_status bh_queue_expire_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                     const struct bh_expire *params,
                                     const struct bh_queue_notifier *notifier,
                                     struct bh_age_pass *pass, struct bh_aged *aged,
                                     size_t *aged_count)
{
    struct aging a = {.q = q,
                      .txn = txn,
                      .notifier = notifier,
                      .pass = pass,
                      .aged = aged,
                      .aged_count = aged_count,
                      .rows_left = params->rows_max,
                      .outcome = params->outcome,
                      .in_flight = params->in_flight,
                      .ctx = params->ctx,
                      .destination = params->destination};
    return run(&a, params->expire_ms, params->expire_null_ms);
}

enum bh_status bh_queue_warn_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                   const struct bh_warn *params,
                                   const struct bh_queue_notifier *notifier,
                                   struct bh_age_pass *pass, struct bh_aged *aged,
                                   size_t *aged_count)
{
    struct aging a = {.q = q,
                      .txn = txn,
                      .notifier = notifier,
                      .pass = pass,
                      .aged = aged,
                      .aged_count = aged_count,
                      .rows_left = params->rows_max,
                      .warn = true,
                      .outcome = params->outcome,
                      .in_flight = params->in_flight,
                      .ctx = params->ctx,
                      .destination = params->destination};
    return run(&a, params->warn_ms, BH_QUEUE_NEVER); /* a null sender is never warned */
}
