/* What the scheduler and operators change about a destination: one record and its wake row. */
#include "queue_internal.h"

#define EMPTY_KEPT_MS BH_DAY_MS /* a destination without mail is kept for a day */

enum bh_status bh_queue_destination_for(struct bh_queue *q, struct bh_kv_txn *txn,
                                        struct bh_slice domain, struct bh_slice connector,
                                        struct bh_now now, uint32_t *id)
{
    (void)q;
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_destination d;
    const enum bh_status status =
        destination_resolve(txn, domain, connector, now.unix_ms, &arena, &d);
    if (status == BH_OK) {
        *id = d.id;
    }
    bh_arena_fini(&arena);
    return status;
}

/* Held and parked time is one sum: being both counts once. */
static void stop_clock(struct bh_destination *d, bool held, bool parked, int64_t now_unix_ms)
{
    const bool was = d->held || d->parked;
    const bool is = held || parked;
    if (was && !is) {
        d->stopped_ms = bh_destination_stopped_ms(d, now_unix_ms);
        d->stopped_since_unix_ms = 0;
    } else if (!was && is) {
        d->stopped_since_unix_ms = now_unix_ms;
    }
    d->held = held;
    d->parked = parked;
}

void destination_take_hold(struct bh_destination *to, const struct bh_destination *from,
                           int64_t now_unix_ms)
{
    if (!from->held || from->hold_until_unix_ms <= now_unix_ms ||
        (to->held && to->hold_until_unix_ms >= from->hold_until_unix_ms) ||
        !bh_slice_eq_nocase(to->domain, from->domain)) {
        return;
    }
    to->hold_since_unix_ms = to->held ? to->hold_since_unix_ms : from->hold_since_unix_ms;
    stop_clock(to, true, to->parked, now_unix_ms);
    to->hold_reason = from->hold_reason;
    to->hold_by = from->hold_by;
    to->hold_until_unix_ms = from->hold_until_unix_ms;
}

static void change_stops(struct bh_destination *d, const struct bh_destination_change *c,
                         int64_t now_unix_ms)
{
    const bool adds =
        (c->set & BH_ADD_HOLD) != 0 && (!d->held || d->hold_until_unix_ms < c->hold_until_unix_ms);
    if ((c->set & BH_SET_HOLD) != 0 || adds) {
        d->hold_since_unix_ms = d->held ? d->hold_since_unix_ms : now_unix_ms;
        stop_clock(d, true, d->parked, now_unix_ms);
        d->hold_reason = c->hold_reason;
        d->hold_by = c->hold_by;
        d->hold_until_unix_ms = c->hold_until_unix_ms;
    } else if ((c->set & BH_CLEAR_HOLD) != 0 || ((c->set & BH_END_HOLD) != 0 && d->held &&
                                                 d->hold_until_unix_ms == c->hold_until_unix_ms)) {
        stop_clock(d, false, d->parked, now_unix_ms);
    }
    if ((c->set & BH_SET_PARK) != 0) {
        d->park_since_unix_ms = d->parked ? d->park_since_unix_ms : now_unix_ms;
        stop_clock(d, d->held, true, now_unix_ms);
        d->park_reason = c->park_reason;
        d->next_event_unix_ms = c->next_event_unix_ms;
    } else if ((c->set & BH_CLEAR_PARK) != 0) {
        stop_clock(d, d->held, false, now_unix_ms);
        d->next_event_unix_ms = 0;
    }
}

static enum bh_status apply(struct bh_kv_txn *txn, struct bh_destination *d,
                            const struct bh_destination_change *c, int64_t now_unix_ms)
{
    change_stops(d, c, now_unix_ms);
    if ((c->set & BH_SET_BACKOFF) != 0) {
        d->backoff_stage = c->backoff_stage;
        d->glitches = c->glitches;
        d->next_event_unix_ms = c->next_event_unix_ms;
    }
    if ((c->set & BH_SET_LAST) != 0) {
        d->tried = true;
        d->last = c->last;
        d->last_unix_ms = now_unix_ms;
    }
    if ((c->set & BH_SET_TLS) != 0) {
        d->last_tls = c->last_tls;
    }
    if ((c->set & BH_SET_SUCCESS) != 0) {
        d->last_success_unix_ms = c->last_success_unix_ms;
    }
    if ((c->set & BH_CLEAR_FLUSH) != 0 && d->flush_up_to_id == c->flush_up_to_id &&
        d->flush_unix_ms == c->flush_unix_ms) {
        d->flush_up_to_id = 0;
        d->flush_unix_ms = 0;
    }
    if ((c->set & BH_SET_FLUSH) != 0) {
        d->backoff_stage = 0;
        d->glitches = 0;
        d->next_event_unix_ms = 0;
        d->flush_unix_ms = now_unix_ms;
        /* With nothing queued there is nothing to flush; a flush of it must not wait for mail. */
        return bh_destination_entries(d) > 0 ? queue_last_id(txn, &d->flush_up_to_id) : BH_OK;
    }
    return BH_OK;
}

enum bh_status bh_queue_destination_update(struct bh_queue *q, struct bh_kv_txn *txn, uint32_t id,
                                           const struct bh_destination_change *change,
                                           struct bh_now now)
{
    (void)q;
    BH_ASSERT(change->next_event_unix_ms >= 0);
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_destination d;
    enum bh_status status = destination_load(txn, id, &arena, &d);
    if (status == BH_OK) {
        status = apply(txn, &d, change, now.unix_ms);
    }
    if (status == BH_OK) {
        status = destination_save(txn, &d, &arena);
    }
    bh_arena_fini(&arena);
    return status;
}

static bool is_stale(const struct bh_queue *q, const struct bh_destination *d, int64_t now_unix_ms)
{
    if (bh_destination_entries(d) > 0 || fresh_count_get(q, d->id) > 0 || d->held ||
        d->next_event_unix_ms > now_unix_ms) {
        return false;
    }
    const int64_t used = d->last_success_unix_ms > d->empty_since_unix_ms ? d->last_success_unix_ms
                                                                          : d->empty_since_unix_ms;
    return now_unix_ms - used >= EMPTY_KEPT_MS;
}

static enum bh_status erase(struct bh_kv_txn *txn, const struct bh_destination *d)
{
    BH_ASSERT(d->wake_unix_ms < 0);
    const struct name_key name = key_name(d->domain, d->connector);
    const struct row_key key = key_destination(d->id);
    enum bh_status status = bh_kv_del(txn, BH_KV_DESTINATION_NAME, bh_slice(name.octets, name.len));
    if (status == BH_OK) {
        status = bh_kv_del(txn, BH_KV_DESTINATION, key_slice(&key));
    }
    return must_exist(status);
}

enum bh_status bh_queue_sweep(struct bh_queue *q, struct bh_kv_txn *txn, size_t max,
                              struct bh_now now, size_t *deleted)
{
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    enum bh_status status = BH_OK;
    *deleted = 0;
    for (size_t i = 0; i < max && status == BH_OK; i++) {
        struct bh_destination d;
        bh_arena_reset(&arena);
        status = bh_queue_next_destination(txn, q->sweep_cursor, &arena, &d);
        if (status == BH_OK) {
            q->sweep_cursor = d.id;
            if (is_stale(q, &d, now.unix_ms)) {
                status = erase(txn, &d);
                *deleted += status == BH_OK ? 1 : 0;
            }
        }
    }
    bh_arena_fini(&arena);
    if (status == BH_ENOTFOUND) {
        q->sweep_cursor = 0;
        status = BH_OK;
    }
    return status;
}
