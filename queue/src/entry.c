/* Rows of the entry lane. Each entry that is not held has exactly one marker, in ready or in due;
 * the destination's counts follow in the same step, and its record is saved by the caller. */
#include "queue_internal.h"

static enum bh_status put_marker(struct bh_kv_txn *txn, const struct bh_entry *e)
{
    struct row_key key;
    switch (e->state) {
    case BH_ENTRY_READY:
        key = key_entry(e->key);
        return bh_kv_put(txn, BH_KV_READY, key_slice(&key), BH_EMPTY, 0);
    case BH_ENTRY_DUE:
        key = key_due(e->key, e->due_unix_ms);
        return bh_kv_put(txn, BH_KV_DUE, key_slice(&key), BH_EMPTY, 0);
    case BH_ENTRY_HELD:
        break;
    }
    return BH_OK;
}

static enum bh_status del_marker(struct bh_kv_txn *txn, const struct bh_entry *e)
{
    struct row_key key;
    switch (e->state) {
    case BH_ENTRY_READY:
        key = key_entry(e->key);
        return must_exist(bh_kv_del(txn, BH_KV_READY, key_slice(&key)));
    case BH_ENTRY_DUE:
        key = key_due(e->key, e->due_unix_ms);
        return must_exist(bh_kv_del(txn, BH_KV_DUE, key_slice(&key)));
    case BH_ENTRY_HELD:
        break;
    }
    return BH_OK;
}

static enum bh_status put_row(struct bh_kv_txn *txn, const struct bh_entry *e,
                              struct bh_arena *arena)
{
    struct bh_slice row;
    const enum bh_status status = record_entry_encode(e, arena, &row);
    if (status != BH_OK) {
        return status;
    }
    const struct row_key key = key_entry(e->key);
    return bh_kv_put(txn, BH_KV_ENTRY, key_slice(&key), row, 0);
}

enum bh_status entry_insert(struct bh_kv_txn *txn, struct bh_destination *d,
                            const struct bh_entry *e, struct bh_arena *arena)
{
    BH_ASSERT(d->id == e->key.destination);
    enum bh_status status = put_row(txn, e, arena);
    if (status == BH_OK) {
        status = put_marker(txn, e);
    }
    destination_count(d, e);
    slots_add(d, e->arrival_unix_ms);
    destination_rewind(d, e->key.id);
    return status;
}

static enum bh_status erase_history(struct bh_kv_txn *txn, const struct bh_entry *e)
{
    const uint32_t kept =
        e->history_next < BH_QUEUE_HISTORY_MAX ? e->history_next : BH_QUEUE_HISTORY_MAX;
    enum bh_status status = BH_OK;
    for (uint32_t n = e->history_next - kept; n != e->history_next && status == BH_OK; n++) {
        const struct row_key key = key_history(e->key, n);
        status = must_exist(bh_kv_del(txn, BH_KV_HISTORY, key_slice(&key)));
    }
    return status;
}

enum bh_status entry_erase(struct bh_kv_txn *txn, struct bh_destination *d,
                           const struct bh_entry *e, bool keep_history, int64_t now_unix_ms)
{
    BH_ASSERT(d->id == e->key.destination);
    const struct row_key key = key_entry(e->key);
    enum bh_status status = must_exist(bh_kv_del(txn, BH_KV_ENTRY, key_slice(&key)));
    if (status == BH_OK) {
        status = del_marker(txn, e);
    }
    if (status == BH_OK && !keep_history) {
        status = erase_history(txn, e);
    }
    if (!destination_uncount(d, e, now_unix_ms) || !slots_remove(d, e->arrival_unix_ms)) {
        return BH_ECORRUPT;
    }
    return status;
}

enum bh_status entry_replace(struct bh_kv_txn *txn, struct bh_destination *d,
                             const struct bh_entry *was, const struct bh_entry *e,
                             struct bh_arena *arena)
{
    BH_ASSERT(d->id == e->key.destination && was->key.id == e->key.id);
    enum bh_status status = BH_OK;
    if (was->state != e->state || was->due_unix_ms != e->due_unix_ms) {
        status = del_marker(txn, was);
        if (status == BH_OK) {
            status = put_marker(txn, e);
        }
    }
    if (status == BH_OK) {
        status = put_row(txn, e, arena);
    }
    /* Counted before the other is uncounted: it was never empty. */
    destination_count(d, e);
    if (!destination_uncount(d, was, 0)) {
        return BH_ECORRUPT;
    }
    if (was->state == BH_ENTRY_HELD && e->state != BH_ENTRY_HELD) {
        destination_rewind(d, e->key.id);
    }
    return status;
}

void entry_set_state(struct bh_entry *e, const struct bh_destination *d, enum bh_entry_state state,
                     int64_t due_unix_ms, struct bh_slice reason, int64_t now_unix_ms)
{
    const int64_t stopped = bh_destination_stopped_ms(d, now_unix_ms);
    if (e->state == BH_ENTRY_HELD && state != BH_ENTRY_HELD) {
        const int64_t held = now_unix_ms - e->held_since_unix_ms - (stopped - e->held_stopped_ms);
        e->held_ms += held > 0 ? held : 0;
        e->held_since_unix_ms = 0;
        e->held_stopped_ms = 0;
    } else if (e->state != BH_ENTRY_HELD && state == BH_ENTRY_HELD) {
        e->held_since_unix_ms = now_unix_ms;
        e->held_stopped_ms = stopped;
    }
    e->state = state;
    e->due_unix_ms = state == BH_ENTRY_DUE && due_unix_ms > 0 ? due_unix_ms : 0;
    e->reason = state == BH_ENTRY_HELD ? reason : BH_EMPTY;
}

enum bh_status history_append(struct bh_kv_txn *txn, struct bh_entry *e, struct bh_slice decision)
{
    struct row_key key = key_history(e->key, e->history_next);
    enum bh_status status = bh_kv_put(txn, BH_KV_HISTORY, key_slice(&key),
                                      bh_slice_take(decision, BH_QUEUE_DECISION_MAX), 0);
    if (status == BH_OK && e->history_next >= BH_QUEUE_HISTORY_MAX) {
        key = key_history(e->key, e->history_next - BH_QUEUE_HISTORY_MAX);
        status = must_exist(bh_kv_del(txn, BH_KV_HISTORY, key_slice(&key)));
    }
    e->history_next++;
    return status;
}

enum bh_status entry_load(struct bh_kv_txn *txn, struct bh_queue_key key, struct bh_arena *arena,
                          struct bh_entry *e)
{
    const struct row_key k = key_entry(key);
    struct bh_slice row;
    enum bh_status status = row_get(txn, BH_KV_ENTRY, key_slice(&k), arena, &row);
    if (status == BH_OK) {
        status = record_entry_decode(row, arena, e);
        e->key = key;
    }
    return status;
}
