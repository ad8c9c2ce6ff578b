#include "bh/pause.h"

#include "bh/wire.h"

#define PAUSE_VERSION 1
#define PAUSE_KEY BH_LIT("intake/pause")

enum bh_status bh_pause_put(struct bh_queue *q, struct bh_kv_txn *txn, const struct bh_pause *pause)
{
    char storage[BH_PAUSE_BY_MAX + BH_QUEUE_REASON_MAX + 32];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, PAUSE_VERSION);
    bh_write_i64(&w, pause->since_unix_ms);
    bh_write_slice(&w, bh_slice_take(pause->by, BH_PAUSE_BY_MAX));
    bh_write_slice(&w, bh_slice_take(pause->reason, BH_QUEUE_REASON_MAX));
    BH_ASSERT(!w.overflow);
    return bh_queue_policy_put(q, txn, PAUSE_KEY, bh_buf_slice(&w.buf));
}

enum bh_status bh_pause_clear(struct bh_queue *q, struct bh_kv_txn *txn)
{
    const enum bh_status status = bh_queue_policy_del(q, txn, PAUSE_KEY);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status bh_pause_get(struct bh_kv_txn *txn, struct bh_arena *arena, struct bh_pause *pause)
{
    struct bh_slice row;
    const enum bh_status status = bh_queue_policy_get(txn, PAUSE_KEY, arena, &row);
    if (status != BH_OK) {
        return status;
    }
    struct bh_reader r = {.rest = row};
    if (bh_read_u8(&r) > PAUSE_VERSION) {
        return BH_EVERSION;
    }
    pause->since_unix_ms = bh_read_i64(&r);
    pause->by = bh_read_slice(&r);
    pause->reason = bh_read_slice(&r);
    return r.failed || r.rest.len > 0 ? BH_ECORRUPT : BH_OK;
}
