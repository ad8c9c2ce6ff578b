/* engine.h - the engine's thread: owns the scheduler's state, DNS and timers; turns its actions
 * into work for workers and the store, and what they say into events. Never blocks on disk or
 * network. */
#pragma once

#include "config_cell.h"
#include "event_log.h"
#include "leased.h"
#include "letters.h"
#include "worker.h"

struct engine;

struct engine_options {
    struct config_cell *cell;
    struct bh_store *store;
    struct bh_kv *kv;
    struct bh_inflight *inflight;
    struct leased_set *leased;
    struct event_log *events;
    struct worker **workers; /* set before engine_start */
    uint32_t worker_count;
    const struct bh_own_address *own_addresses; /* where we listen; outlives the engine */
    size_t own_address_count;
    bool clock_behind;      /* the queue has seen a later time */
    bool clock_unconfirmed; /* expiry is suspended since an earlier process */
    /** On the engine's thread, when every session is closed and every outcome committed. */
    void (*drained)(void *ctx);
    void *ctx;
};

/** Had the wall clock stepped, and nobody confirmed it, when an earlier process ended? */
bool engine_clock_stepped_before(struct bh_kv_txn *txn, struct bh_arena *arena);
/** Make it; its mailbox takes letters from now on. @return BH_OK, BH_ENOMEM, BH_EIO */
BH_MUST_USE enum bh_status engine_create(const struct engine_options *options,
                                         struct engine **engine);
struct bh_mailbox *engine_mailbox(struct engine *engine);
/** The workers exist now. Start the thread: reads the fresh lane and what is due, then delivers.
 * @return BH_OK or BH_EIO (the resolver's configuration, no thread) */
BH_MUST_USE enum bh_status engine_start(struct engine *engine, struct worker **workers,
                                        uint32_t count);
/** Mail was committed. On the store's writer thread. Names of groups are borrowed. When the engine
 * falls behind, notes are dropped and it looks at the store instead.
 * @param tls_optional  its header says TLS-Required: No */
void engine_note_put(struct engine *engine, uint64_t id, uint64_t size, bool tls_optional,
                     const struct bh_queue_part *parts, size_t count,
                     const struct bh_queue_group *groups);
/** Run a function on the engine's thread. Any thread. */
void engine_call(struct engine *engine, struct engine_call *call);
/** End in good order: no new leases, sessions end after their transaction. `drained` tells. */
void engine_drain(struct engine *engine);
/** The drain timeout is over: what meets a full disk is waited for no longer, it stays in flight
 * for the next start to find. */
void engine_hurry(struct engine *engine);
/** After `drained`: end the thread and free everything. The store must still run until then. */
void engine_join(struct engine *engine);
