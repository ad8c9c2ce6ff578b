/* The fresh lane: one row for all fresh parts of a message, appended at arrival and gone when the
 * last of them is delivered or has met trouble. */
#include "queue_internal.h"

enum bh_status fresh_load(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                          struct fresh_row *row)
{
    const struct row_key key = key_id(id);
    struct bh_slice octets;
    const enum bh_status status = row_get(txn, BH_KV_FRESH, key_slice(&key), arena, &octets);
    return status == BH_OK ? record_fresh_decode(octets, arena, row) : status;
}

static int find_part(const struct fresh_row *row, struct bh_queue_key key)
{
    for (uint16_t i = 0; i < row->part_count; i++) {
        if (row->parts[i].destination == key.destination && row->parts[i].part == key.part) {
            return i;
        }
    }
    return -1;
}

enum bh_status fresh_entry(const struct fresh_row *row, struct bh_queue_key key,
                           struct bh_arena *arena, struct bh_entry *e)
{
    const int index = find_part(row, key);
    if (index < 0) {
        return BH_ENOTFOUND;
    }
    const struct fresh_part *part = &row->parts[index];
    *e = (struct bh_entry){
        .key = key,
        .lane = BH_LANE_FRESH,
        .state = BH_ENTRY_READY,
        .arrival_unix_ms = row->arrival_unix_ms,
        .size = row->size,
        .sender_hash = row->sender_hash,
        .sender_null = row->sender_null,
        .stopped_base_ms = part->stopped_base_ms,
        .recipient_count = part->recipient_count,
    };
    e->recipients = bh_arena_alloc(arena, e->recipient_count * sizeof(e->recipients[0]));
    if (e->recipients == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        e->recipients[i].to = part->recipients[i];
    }
    return BH_OK;
}

enum bh_status fresh_erase(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_queue_key key,
                           struct bh_arena *arena)
{
    struct fresh_row row;
    enum bh_status status = fresh_load(txn, key.id, arena, &row);
    const int index = status == BH_OK ? find_part(&row, key) : -1;
    if (index < 0) {
        return must_exist(status == BH_OK ? BH_ENOTFOUND : status);
    }
    const struct row_key k = key_id(key.id);
    row.part_count--;
    for (int i = index; i < row.part_count; i++) {
        row.parts[i] = row.parts[i + 1];
    }
    status = fresh_count_add(q, key.destination, -1);
    if (status == BH_OK && row.part_count == 0) {
        status = bh_kv_del(txn, BH_KV_FRESH, key_slice(&k));
        return status == BH_OK ? fresh_count_add(q, 0, -1) : must_exist(status);
    }
    struct bh_slice octets;
    if (status == BH_OK) {
        status = record_fresh_encode(&row, arena, &octets);
    }
    return status == BH_OK ? bh_kv_put(txn, BH_KV_FRESH, key_slice(&k), octets, 0) : status;
}

static enum bh_status load_fresh_entry(struct bh_kv_txn *txn, struct bh_queue_key key,
                                       struct bh_arena *arena, struct bh_entry *e)
{
    struct fresh_row row;
    const enum bh_status status = fresh_load(txn, key.id, arena, &row);
    return status == BH_OK ? fresh_entry(&row, key, arena, e) : status;
}

enum bh_status any_load(struct bh_kv_txn *txn, struct bh_queue_key key, enum bh_lane first,
                        struct bh_arena *arena, struct bh_entry *e)
{
    enum bh_status status;
    if (first == BH_LANE_FRESH) {
        status = load_fresh_entry(txn, key, arena, e);
        return status == BH_ENOTFOUND ? entry_load(txn, key, arena, e) : status;
    }
    status = entry_load(txn, key, arena, e);
    return status == BH_ENOTFOUND ? load_fresh_entry(txn, key, arena, e) : status;
}

enum bh_status any_store(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_destination *d,
                         const struct bh_entry *was, struct bh_entry *e, struct bh_arena *arena)
{
    enum bh_status status;
    if (was->lane == BH_LANE_FRESH) {
        status = fresh_erase(q, txn, was->key, arena);
        if (status == BH_OK) {
            status = entry_insert(txn, d, e, arena);
        }
    } else {
        status = entry_replace(txn, d, was, e, arena);
    }
    e->lane = BH_LANE_ENTRY;
    return status == BH_OK ? destination_save(txn, d, arena) : status;
}
