/* kv_memory.h - the key-value interface in memory, for tests and the simulator: it can run full,
 * fail at any step, and crash. Trees of nodes that never change (a write copies the path to its
 * root), so a transaction is a set of roots and to abort is to forget them. Deterministic. Readers
 * on other threads are fine. */
#pragma once

#include "bh/kv.h"

enum bh_kv_step {
    BH_KV_STEP_BEGIN,
    BH_KV_STEP_GET, /* get and every cursor move */
    BH_KV_STEP_PUT,
    BH_KV_STEP_DEL,
    BH_KV_STEP_COMMIT,    /* of a top transaction, before it is durable */
    BH_KV_STEP_COMMITTED, /* it is durable, the caller does not know yet */
};

/** Called at every step of write transactions; what it returns other than BH_OK is what the step
 * returns, without effect. It may call bh_kv_memory_crash and return BH_EIO. */
typedef enum bh_status (*bh_kv_fault)(void *ctx, enum bh_kv_step step);

/** @param bytes_max  most octets of keys and values; a put beyond gives BH_EFULL, a del never does
 *  @param reserve    octets of it that bh_kv_room keeps for removals
 *  @return NULL for want of memory */
struct bh_kv *bh_kv_memory_create(size_t bytes_max, size_t reserve);
void bh_kv_memory_set_fault(struct bh_kv *kv, bh_kv_fault fault, void *ctx);
/** More or less room, as when somebody cleans up a disk. */
void bh_kv_memory_set_max(struct bh_kv *kv, size_t bytes_max);
/** The process dies here: what is not committed is gone. Open write transactions give BH_EIO from
 * now on and must still be aborted; new ones see what was committed. */
void bh_kv_memory_crash(struct bh_kv *kv);
/** Octets of keys and values committed. */
size_t bh_kv_memory_bytes(struct bh_kv *kv);
