/* Entries that change place or state without an attempt: re-binding, and the marks of a crash. */
#include "queue_internal.h"

#define CRASHES_MAX 2 /* handled twice when the process died: held */

/* ---- re-binding ---- */

static enum bh_status move_history(struct bh_kv_txn *txn, const struct bh_entry *e,
                                   struct bh_queue_key to, struct bh_arena *arena)
{
    const uint32_t kept =
        e->history_next < BH_QUEUE_HISTORY_MAX ? e->history_next : BH_QUEUE_HISTORY_MAX;
    enum bh_status status = BH_OK;
    for (uint32_t n = e->history_next - kept; n != e->history_next && status == BH_OK; n++) {
        struct row_key key = key_history(e->key, n);
        struct bh_slice row;
        status = must_exist(row_get(txn, BH_KV_HISTORY, key_slice(&key), arena, &row));
        if (status == BH_OK) {
            status = must_exist(bh_kv_del(txn, BH_KV_HISTORY, key_slice(&key)));
        }
        if (status == BH_OK) {
            key = key_history(to, n);
            status = bh_kv_put(txn, BH_KV_HISTORY, key_slice(&key), row, 0);
        }
    }
    return status;
}

/* The message lists where its parts are. @param to  its part is set here: one that was never used
 */
static enum bh_status move_part(struct bh_kv_txn *txn, struct bh_queue_key from,
                                struct bh_queue_key *to, struct bh_arena *arena)
{
    struct bh_message m;
    enum bh_status status = must_exist(message_load(txn, from.id, arena, &m));
    if (status != BH_OK) {
        return status;
    }
    struct bh_queue_part_ref *parts = bh_arena_alloc(arena, m.part_count * sizeof(*parts));
    if (parts == NULL) {
        return BH_ENOMEM;
    }
    bool found = false;
    bool taken = false;
    uint16_t highest = 0;
    for (uint32_t i = 0; i < m.part_count; i++) {
        parts[i] = m.parts[i];
        highest = parts[i].part > highest ? parts[i].part : highest;
        taken |= parts[i].destination == to->destination && parts[i].part == from.part;
    }
    if (taken && highest == UINT16_MAX) {
        return BH_ELIMIT;
    }
    to->part = taken ? (uint16_t)(highest + 1) : from.part;
    for (uint32_t i = 0; i < m.part_count && !found; i++) {
        if (parts[i].destination == from.destination && parts[i].part == from.part) {
            parts[i].destination = to->destination;
            parts[i].part = to->part;
            found = true;
        }
    }
    if (!found) {
        return BH_ECORRUPT;
    }
    m.parts = parts;
    struct bh_slice row;
    status = record_message_encode(&m, arena, &row);
    const struct row_key key = key_id(from.id);
    return status == BH_OK ? bh_kv_put(txn, BH_KV_MESSAGE, key_slice(&key), row, 0) : status;
}

/* What the entry stood still so far goes along to the clock of its new destination. */
static void move_clock(struct bh_entry *e, const struct bh_destination *from,
                       const struct bh_destination *to, int64_t now_unix_ms)
{
    const int64_t shift =
        bh_destination_stopped_ms(to, now_unix_ms) - bh_destination_stopped_ms(from, now_unix_ms);
    e->stopped_base_ms += shift;
    if (e->state == BH_ENTRY_HELD) {
        e->held_stopped_ms += shift;
    }
}

static enum bh_status rebind(struct bh_queue *q, struct bh_kv_txn *txn, const struct bh_entry *was,
                             struct bh_slice domain, struct bh_slice connector, int64_t now_unix_ms,
                             struct bh_arena *arena, struct bh_queue_key *to)
{
    struct bh_destination target;
    enum bh_status status =
        destination_resolve(txn, domain, connector, now_unix_ms, arena, &target);
    if (status != BH_OK) {
        return status;
    }
    *to = was->key;
    if (target.id == was->key.destination) {
        return BH_OK;
    }
    to->destination = target.id;
    struct bh_destination source;
    status = must_exist(destination_load(txn, was->key.destination, arena, &source));
    if (status == BH_OK) {
        status = move_part(txn, was->key, to, arena);
    }
    if (status == BH_OK && was->lane == BH_LANE_FRESH) {
        status = fresh_erase(q, txn, was->key, arena);
    } else if (status == BH_OK) {
        status = move_history(txn, was, *to, arena);
        if (status == BH_OK) {
            status = entry_erase(txn, &source, was, true, now_unix_ms);
        }
        if (status == BH_OK) {
            status = destination_save(txn, &source, arena);
        }
    }
    if (status != BH_OK) {
        return status;
    }
    struct bh_entry e = *was;
    e.key = *to;
    move_clock(&e, &source, &target, now_unix_ms);
    destination_take_hold(&target, &source, now_unix_ms);
    status = entry_insert(txn, &target, &e, arena);
    return status == BH_OK ? destination_save(txn, &target, arena) : status;
}

enum bh_status bh_queue_rebind(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_queue_key key,
                               struct bh_slice domain, struct bh_slice connector, struct bh_now now,
                               struct bh_queue_key *to)
{
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_entry was;
    enum bh_status status = any_load(txn, key, BH_LANE_ENTRY, &arena, &was);
    if (status == BH_OK) {
        status = rebind(q, txn, &was, domain, connector, now.unix_ms, &arena, to);
    }
    bh_arena_fini(&arena);
    return status;
}

enum bh_status bh_queue_carry_hold(struct bh_queue *q, struct bh_kv_txn *txn, uint32_t destination,
                                   struct bh_slice connector, struct bh_now now, uint32_t *to)
{
    struct bh_arena arena;
    struct bh_destination source;
    struct bh_destination target;
    (void)q;
    *to = 0;
    bh_arena_init(&arena, WORK_ARENA);
    enum bh_status status = destination_load(txn, destination, &arena, &source);
    if (status == BH_OK && source.held && source.hold_until_unix_ms > now.unix_ms) {
        status = destination_resolve(txn, source.domain, connector, now.unix_ms, &arena, &target);
        if (status == BH_OK && target.id != source.id) {
            destination_take_hold(&target, &source, now.unix_ms);
            status = destination_save(txn, &target, &arena);
            *to = target.id;
        }
    }
    bh_arena_fini(&arena);
    return status;
}

/* ---- marks of a crash ---- */

static enum bh_status mark(struct bh_queue *q, struct bh_kv_txn *txn, const struct bh_entry *was,
                           struct bh_entry *e, struct bh_slice hold, struct bh_slice decision,
                           int64_t now_unix_ms, struct bh_arena *arena)
{
    struct bh_destination d;
    enum bh_status status = must_exist(destination_load(txn, e->key.destination, arena, &d));
    if (status != BH_OK) {
        return status;
    }
    if (hold.len > 0) {
        entry_set_state(e, &d, BH_ENTRY_HELD, 0, hold, now_unix_ms);
    }
    if (decision.len > 0) {
        status = history_append(txn, e, decision);
    }
    return status == BH_OK ? any_store(q, txn, &d, was, e, arena) : status;
}

enum bh_status bh_queue_mark_uncertain(struct bh_queue *q, struct bh_kv_txn *txn,
                                       struct bh_queue_key key, const uint64_t mask[2],
                                       struct bh_slice hold, struct bh_slice decision,
                                       struct bh_now now)
{
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_entry was;
    enum bh_status status = any_load(txn, key, BH_LANE_ENTRY, &arena, &was);
    if (status == BH_OK) {
        struct bh_entry e = was;
        e.uncertain = true;
        for (uint16_t i = 0; i < e.recipient_count; i++) {
            e.recipients[i].uncertain |= (mask[i / 64] >> (i % 64) & 1) != 0;
        }
        status = mark(q, txn, &was, &e, hold, decision, now.unix_ms, &arena);
    }
    bh_arena_fini(&arena);
    return status;
}

static enum bh_status quarantine(struct bh_queue *q, struct bh_kv_txn *txn,
                                 const struct bh_message *m, int64_t now_unix_ms)
{
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < m->part_count && status == BH_OK; i++) {
        const struct bh_queue_key key = {
            .destination = m->parts[i].destination, .id = m->id, .part = m->parts[i].part};
        struct bh_entry was;
        bh_arena_reset(&arena);
        status = any_load(txn, key, BH_LANE_ENTRY, &arena, &was);
        if (status == BH_OK) {
            struct bh_entry e = was;
            status =
                mark(q, txn, &was, &e, BH_LIT("quarantined: handled twice when the process died"),
                     BH_EMPTY, now_unix_ms, &arena);
        } else if (status == BH_ENOTFOUND) {
            status = BH_OK; /* this part has ended */
        }
    }
    bh_arena_fini(&arena);
    return status;
}

enum bh_status bh_queue_mark_crashed(struct bh_queue *q, struct bh_kv_txn *txn, uint64_t id,
                                     struct bh_now now, bool *quarantined)
{
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_message m;
    enum bh_status status = message_load(txn, id, &arena, &m);
    if (status == BH_OK) {
        m.crashes = m.crashes < UINT8_MAX ? (uint8_t)(m.crashes + 1) : m.crashes;
        *quarantined = m.crashes >= CRASHES_MAX;
        status = message_save_state(txn, &m);
        if (status == BH_OK && *quarantined) {
            status = quarantine(q, txn, &m, now.unix_ms);
        }
    }
    bh_arena_fini(&arena);
    return status;
}
