/* Due times after the wall clock has stepped back.
 *
 * An entry was put off at one time until another; where the first lies in what is now the future,
 * the second is of a clock that nobody has any more, and would come as much too late as that clock
 * was fast. The interval between them still holds: it begins anew. Likewise the back-off of a
 * destination. What was written since the step is told apart by its own first time, so that a pass
 * may be repeated, be interrupted, and begin at any start of the daemon. */
#include "queue_internal.h"

#define TOLERANCE_MS (5 * BH_MINUTE_MS) /* as much as a clock may be off and right itself */

struct redating {
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    struct bh_redate_pass *pass;
    int64_t now;
    size_t rows_left;
    struct bh_destination d;
    bool changed;
    struct bh_arena names; /* of d */
    struct bh_arena arena; /* of one entry */
};

/* When a wait from `from` to `until` ends, if it began in what is now the future; else `until`. */
static int64_t redated(int64_t from, int64_t until, int64_t now)
{
    return from > now + TOLERANCE_MS && until >= from && until > now + TOLERANCE_MS
               ? now + (until - from)
               : until;
}

static enum bh_status begin_destination(struct redating *r)
{
    bh_arena_reset(&r->names);
    r->changed = false;
    if (r->pass->inside) {
        const enum bh_status status =
            destination_load(r->txn, r->pass->destination, &r->names, &r->d);
        if (status != BH_ENOTFOUND) {
            return status;
        }
        r->pass->inside = false; /* it was deleted between two slices */
        bh_arena_reset(&r->names);
    }
    enum bh_status status =
        bh_queue_next_destination(r->txn, r->pass->destination, &r->names, &r->d);
    if (status != BH_OK) {
        return status;
    }
    *r->pass = (struct bh_redate_pass){
        .destination = r->d.id, .inside = true, .due_unix_ms = r->now + TOLERANCE_MS};
    const int64_t from = r->d.parked && r->d.park_since_unix_ms > r->d.last_unix_ms
                             ? r->d.park_since_unix_ms
                             : r->d.last_unix_ms;
    const int64_t next = redated(from, r->d.next_event_unix_ms, r->now);
    if (next != r->d.next_event_unix_ms) {
        r->d.next_event_unix_ms = next;
        r->d.last_unix_ms = r->now;
        r->changed = true;
        status = destination_save(r->txn, &r->d, &r->names);
    }
    return status;
}

/* The due row behind the last that was looked at. BH_ENOTFOUND: the destination has no more. */
static enum bh_status next_due(struct redating *r, struct bh_entry *e)
{
    const struct row_key from = key_due((struct bh_queue_key){.destination = r->d.id,
                                                              .id = r->pass->due_id,
                                                              .part = r->pass->due_part},
                                        r->pass->due_unix_ms);
    struct bh_slice key;
    struct bh_slice value;
    struct bh_queue_key found;
    int64_t due_unix_ms;
    enum bh_status status = row_seek(r->txn, BH_KV_DUE, key_slice(&from), &key, &value);
    if (status != BH_OK) {
        return status;
    }
    if (!key_due_read(key, &found, &due_unix_ms)) {
        return BH_ECORRUPT;
    }
    if (found.destination != r->d.id) {
        return BH_ENOTFOUND;
    }
    r->pass->due_unix_ms = due_unix_ms;
    r->pass->due_id = found.part == UINT16_MAX ? found.id + 1 : found.id;
    r->pass->due_part = found.part == UINT16_MAX ? 0 : (uint16_t)(found.part + 1);
    bh_arena_reset(&r->arena);
    return must_exist(entry_load(r->txn, found, &r->arena, e));
}

static enum bh_status redate(struct redating *r, const struct bh_entry *was)
{
    struct bh_entry e = *was;
    const int64_t from = was->tried_unix_ms != 0 ? was->tried_unix_ms : was->arrival_unix_ms;
    e.due_unix_ms = redated(from, was->due_unix_ms, r->now);
    if (e.due_unix_ms == was->due_unix_ms) {
        return BH_OK;
    }
    e.tried_unix_ms = r->now;
    r->changed = true;
    return any_store(r->q, r->txn, &r->d, was, &e, &r->arena);
}

/* BH_OK: it is through; BH_MORE: the slice is full. */
static enum bh_status redate_destination(struct redating *r)
{
    enum bh_status status = BH_OK;
    while (status == BH_OK && r->rows_left > 0) {
        struct bh_entry e;
        r->rows_left--;
        status = next_due(r, &e);
        if (status == BH_OK) {
            status = redate(r, &e);
        }
    }
    if (status == BH_ENOTFOUND) {
        r->pass->inside = false;
        return BH_OK;
    }
    return status == BH_OK ? BH_MORE : status;
}

static enum bh_status run(struct redating *r, uint32_t *ids, size_t *count)
{
    enum bh_status status = BH_OK;
    while (status == BH_OK) {
        const bool new = !r->pass->inside;
        status = r->rows_left > 0 ? begin_destination(r) : BH_MORE;
        if (status == BH_OK) {
            r->rows_left -= new ? 1 : 0; /* one slice of a row goes on, too */
            status = redate_destination(r);
            if (r->changed) {
                ids[(*count)++] = r->d.id;
            }
        }
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status bh_queue_redate_slice(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_now now,
                                     size_t rows_max, struct bh_redate_pass *pass, uint32_t *ids,
                                     size_t *count)
{
    struct redating r = {
        .q = q, .txn = txn, .pass = pass, .now = now.unix_ms, .rows_left = rows_max};
    *count = 0;
    bh_arena_init(&r.names, WORK_ARENA);
    bh_arena_init(&r.arena, WORK_ARENA);
    const enum bh_status status = run(&r, ids, count);
    bh_arena_fini(&r.arena);
    bh_arena_fini(&r.names);
    return status;
}

enum bh_status bh_queue_clock_is_behind(struct bh_kv_txn *txn, struct bh_now now, bool *behind)
{
    uint64_t last = 0;
    const enum bh_status status = queue_last_id(txn, &last);
    *behind =
        status == BH_OK && last != 0 && bh_queue_id_unix_ms(last) > now.unix_ms + TOLERANCE_MS;
    return status;
}
