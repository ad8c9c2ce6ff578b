/* Small durable things of other rooms, by name: the queue does not look inside. */
#include "queue_internal.h"

#define NAME_MAX_OCTETS 255

enum bh_status bh_queue_policy_put(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_slice name,
                                   struct bh_slice value)
{
    (void)q;
    BH_ASSERT(name.len > 0 && name.len <= NAME_MAX_OCTETS);
    return bh_kv_put(txn, BH_KV_POLICY, name, value, 0);
}

enum bh_status bh_queue_policy_del(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_slice name)
{
    (void)q;
    BH_ASSERT(name.len > 0 && name.len <= NAME_MAX_OCTETS);
    return bh_kv_del(txn, BH_KV_POLICY, name);
}

enum bh_status bh_queue_policy_get(struct bh_kv_txn *txn, struct bh_slice name,
                                   struct bh_arena *arena, struct bh_slice *value)
{
    BH_ASSERT(name.len > 0 && name.len <= NAME_MAX_OCTETS);
    return row_get(txn, BH_KV_POLICY, name, arena, value);
}

enum bh_status bh_queue_policy_next(struct bh_kv_txn *txn, struct bh_slice after,
                                    struct bh_arena *arena, struct bh_slice *name,
                                    struct bh_slice *value)
{
    BH_ASSERT(after.len <= NAME_MAX_OCTETS);
    /* The next possible name is this one and a NUL. */
    char storage[NAME_MAX_OCTETS + 1];
    struct bh_buf from = bh_buf(storage, sizeof(storage));
    bh_buf_put(&from, after);
    if (after.len > 0) {
        bh_buf_put_char(&from, '\0');
    }
    struct bh_slice key;
    struct bh_slice row;
    const enum bh_status status = row_seek(txn, BH_KV_POLICY, bh_buf_slice(&from), &key, &row);
    if (status != BH_OK) {
        return status;
    }
    if (key.len > NAME_MAX_OCTETS) {
        return BH_ECORRUPT; /* It was never put under such a name. */
    }
    return bh_arena_copy(arena, key, name) && bh_arena_copy(arena, row, value) ? BH_OK : BH_ENOMEM;
}
