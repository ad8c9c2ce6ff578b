/* receiving.h - what ends the process while it is received: named in the in-flight file by the
 * fingerprint of its envelope, remembered by the next start, and refused when it did so twice. */
#pragma once

#include "daemon.h"

/** At start: what a dead process was receiving or storing, into the store's record of suspects, and
 * that record into memory. Inside the transaction that marks what was in flight. */
BH_MUST_USE enum bh_status receiving_recover(struct daemon *d, struct bh_kv_txn *txn,
                                             struct bh_arena *arena);
/** Hooks of intake; see there. */
void receiving_handling(void *ctx, uint32_t worker, enum bh_handling_step step,
                        uint64_t fingerprint);
bool receiving_refuse(void *ctx, uint64_t fingerprint, struct bh_slice sender);
/** From now on a fault of any thread, a failed assertion or a watchdog's SIGABRT is written into
 * the in-flight file before the process ends as it would have. Once, before other threads start. */
void dying_watch(struct bh_inflight *inflight);
