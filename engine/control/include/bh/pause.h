/* pause.h - that an operator has paused intake: a small record in the store, so that it survives a
 * restart, and so that tools can tell of it with the engine down. */
#pragma once

#include "bh/queue.h"

#define BH_PAUSE_BY_MAX 64 /* octets; longer ones are cut. Of the reason: BH_QUEUE_REASON_MAX */

struct bh_pause {
    int64_t since_unix_ms;
    struct bh_slice by; /* who asked: a user of this machine */
    struct bh_slice reason;
};

/** @return BH_OK, or what the store says */
BH_MUST_USE enum bh_status bh_pause_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                        const struct bh_pause *pause);
/** Intake is open again. @return BH_OK also if it was not paused */
BH_MUST_USE enum bh_status bh_pause_clear(struct bh_queue *q, struct bh_kv_txn *txn);
/** @param pause  slices live in the arena
 * @return BH_OK, BH_ENOTFOUND (not paused), BH_ECORRUPT, BH_EVERSION (a newer form), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_pause_get(struct bh_kv_txn *txn, struct bh_arena *arena,
                                        struct bh_pause *pause);
