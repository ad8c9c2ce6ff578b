/* store.h - the threads of the store: one writer that commits whatever waits as one group, two
 * readers whose transactions live for one task. The only place where a write transaction begins.
 *
 * Owners embed struct bh_store_task in their own struct, post it, and get it back in `done`, on the
 * store's thread: post it on from there to the owner's mailbox (whose slot the owner reserved). */
#pragma once

#include "bh/mailbox.h"
#include "bh/queue.h"

struct bh_store;

struct bh_store_task {
    struct bh_letter letter; /* letter.bytes: memory that it stands for while it waits */
    /** The work. For the writer: q is set, txn writes. For a reader: q is NULL. May run more than
     * once if a commit fails: it must not keep anything of a run but in its own fields, set anew.
     * BH_OK or BH_MORE: it counts. Else it alone fails. If it is not atomic, BH_ENOTFOUND,
     * BH_EINVAL, BH_ELIMIT, BH_EEXIST and BH_EBUSY mean that it wrote nothing (as bh_queue_put and
     * the others keep it), and after any other result the group is done again without it. */
    enum bh_status (*run)(struct bh_store_task *task, struct bh_queue *q, struct bh_kv_txn *txn);
    /** The end, exactly once, with what run returned. BH_OK, BH_MORE: for a write, it is on disk.
     * BH_EFULL: no space. BH_EIO: the store has stopped. */
    void (*done)(struct bh_store_task *task, enum bh_status status);
    size_t dirty_bytes; /* about how much it writes */
    bool urgent;  /* somebody waits for the commit (a put); else it may wait 20 ms for company */
    bool removal; /* frees space: goes first when the disk is full */
    bool atomic;  /* run in a nested transaction, at some cost: see below */
    enum bh_status status; /* private */
    bool committed;        /* private: its status stands, whatever becomes of the rest */
};

struct bh_store_options {
    struct bh_kv *kv;       /* the caller's; must outlive the store */
    struct bh_queue *queue; /* used by the writer thread alone from create to stop */
    size_t entries_max;     /* tasks waiting for the writer, and for the readers; 0: 65,536 */
    size_t bytes_max;       /* letter.bytes of those waiting; 0: 256 MiB */
    /** On the writer's thread about every second with no transaction open; may be NULL. The place
     * of bh_kv_lmdb_upkeep. Return BH_OK, or BH_EIO to stop the store. */
    enum bh_status (*idle)(void *ctx);
    /** Once, on the writer's thread: a commit failed with space free. The process should end. */
    void (*failed)(void *ctx, enum bh_status status);
    void *ctx;
};

/** Start the threads. @return BH_OK, BH_ENOMEM, BH_EIO (no thread) */
BH_MUST_USE enum bh_status bh_store_create(const struct bh_store_options *options,
                                           struct bh_store **store);
/** Any thread. @return BH_OK: done will be called. BH_EFULL: too much waits, the task is still the
 * caller's */
BH_MUST_USE enum bh_status bh_store_write(struct bh_store *store, struct bh_store_task *task);
BH_MUST_USE enum bh_status bh_store_read(struct bh_store *store, struct bh_store_task *task);
/** Whatever the bounds: for removals and outcomes, which are bounded by the leases. */
void bh_store_write_always(struct bh_store *store, struct bh_store_task *task);
/** Finish everything posted before, then end the threads and free the store. Nobody may post any
 * more, but `done` may still be called until this returns. NULL is fine. */
void bh_store_stop(struct bh_store *store);

struct bh_store_stats {
    uint64_t commits;
    uint64_t tasks;     /* written */
    uint64_t commit_ns; /* time in commits */
    uint64_t full;      /* groups that met a full disk or map */
    size_t waiting;     /* tasks */
    size_t waiting_bytes;
    bool stopped; /* by a failure */
};
/** Any thread. */
void bh_store_stats(struct bh_store *store, struct bh_store_stats *stats);
