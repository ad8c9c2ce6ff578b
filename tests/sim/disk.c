/* The disk under the queue: the real schema over the in-memory store, behind the face of LMDB. It
 * is slow, full, or fails, by the world's settings; the process can die at any step of it. Every
 * commit is looked at from outside. */
#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/kv_lmdb.h"
#include "bh/kv_memory.h"
#include "mutate.h"
#include "world.h"

#define OPEN_MAX 64
#define RESERVE ((size_t)256 << 10)

static struct disk {
    struct bh_kv *kv;
    const struct bh_kv_ops *real;
    struct bh_kv_ops ops;
    struct bh_kv_txn *txns[OPEN_MAX];
    size_t txn_count;
    struct bh_kv_cursor *cursors[OPEN_MAX];
    size_t cursor_count;
    bool full;
    size_t max;
    struct {                      /* octets of reports since it is full */
        size_t kept, open, tried; /* on disk; in the transaction; in the largest that failed */
    } reports;
    struct bh_kv_txn *late; /* a commit that was said to be done (skip-commit-wait) */
} d;

static enum bh_status step(void *ctx, enum bh_kv_step what)
{
    (void)ctx;
    if (!world.faults || fiber_current() == NULL || what == BH_KV_STEP_BEGIN) {
        return BH_OK;
    }
    if (world.set.kv_step_crash > 0 &&
        bh_rng_below(sim_rng(CHANCE_DISK), 100000) < world.set.kv_step_crash) {
        sim_trace("the process dies at a step of the disk (%d)", (int)what);
        fiber_die(-1);
    }
    if (what == BH_KV_STEP_COMMIT && sim_chance(CHANCE_DISK, world.set.disk_fail_permille)) {
        sim_trace("a commit fails");
        return BH_EIO;
    }
    return BH_OK;
}

/* ---- transactions, kept on a list for when the process dies ---- */

static void forget(const struct bh_kv_txn *txn)
{
    for (size_t i = d.txn_count; i > 0; i--) {
        if (d.txns[i - 1] == txn) {
            for (size_t k = i - 1; k + 1 < d.txn_count; k++) {
                d.txns[k] = d.txns[k + 1];
            }
            d.txn_count--;
            return;
        }
    }
    BH_ASSERT(false);
}

static void end_reports(bool kept)
{
    if (kept) {
        d.reports.kept += d.reports.open;
    } else if (d.reports.open > d.reports.tried) {
        d.reports.tried = d.reports.open;
    }
    d.reports.open = 0;
}

static enum bh_status finish_commit(struct bh_kv_txn *txn, bool top)
{
    memory_foreign_begin();
    const enum bh_status status = d.real->commit(txn);
    forget(txn); /* only now: the process may die in there; its address is all that is looked at */
    if (top) {
        end_reports(status == BH_OK);
    }
    memory_foreign_end();
    if (top && status == BH_OK) {
        memory_foreign_begin();
        model_on_commit(d.kv);
        memory_foreign_end();
    }
    return status;
}

static enum bh_status on_begin(struct bh_kv *kv, enum bh_kv_mode mode, struct bh_kv_txn *parent,
                               struct bh_kv_txn **txn)
{
    if (d.late != NULL && parent == NULL && mode == BH_KV_WRITE) {
        struct bh_kv_txn *late = d.late;
        d.late = NULL;
        (void)finish_commit(late, true);
    }
    memory_foreign_begin();
    const enum bh_status status = d.real->begin(kv, mode, parent, txn);
    memory_foreign_end();
    if (status == BH_OK) {
        BH_ASSERT(d.txn_count < OPEN_MAX);
        d.txns[d.txn_count++] = *txn;
    }
    return status;
}

static enum bh_status on_commit(struct bh_kv_txn *txn)
{
    const bool top = txn->parent == NULL && txn->mode == BH_KV_WRITE;
    if (top && fiber_current() != NULL) {
        const uint64_t slow = world.faults ? world.set.disk_slow_us : 0;
        fiber_sleep(sim_range(CHANCE_DISK, 20, 200 + slow));
    }
    if (top && mutated(MUTATE_SKIP_COMMIT_WAIT)) {
        BH_ASSERT(d.late == NULL);
        d.late = txn; /* on disk with the next transaction */
        return BH_OK;
    }
    return finish_commit(txn, top);
}

static void on_abort(struct bh_kv_txn *txn)
{
    if (txn->parent == NULL && txn->mode == BH_KV_WRITE) {
        end_reports(false);
    }
    memory_foreign_begin();
    forget(txn);
    d.real->abort(txn);
    memory_foreign_end();
}

static enum bh_status on_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                             struct bh_slice *value)
{
    return d.real->get(txn, db, key, value);
}

static enum bh_status on_put(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                             struct bh_slice value, unsigned flags)
{
    memory_foreign_begin();
    const enum bh_status status = d.real->put(txn, db, key, value, flags);
    memory_foreign_end();
    return status;
}

static enum bh_status on_del(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key)
{
    memory_foreign_begin();
    const enum bh_status status = d.real->del(txn, db, key);
    memory_foreign_end();
    return status;
}

static enum bh_status on_room(struct bh_kv_txn *txn, size_t bytes)
{
    return mutated(MUTATE_RESERVE_LEAK) ? BH_OK : d.real->room(txn, bytes);
}

static enum bh_status on_cursor_open(struct bh_kv_txn *txn, enum bh_kv_db db,
                                     struct bh_kv_cursor **cursor)
{
    memory_foreign_begin();
    const enum bh_status status = d.real->cursor_open(txn, db, cursor);
    memory_foreign_end();
    if (status == BH_OK) {
        BH_ASSERT(d.cursor_count < OPEN_MAX);
        d.cursors[d.cursor_count++] = *cursor;
    }
    return status;
}

static void on_cursor_close(struct bh_kv_cursor *cursor)
{
    for (size_t i = 0; i < d.cursor_count; i++) {
        if (d.cursors[i] == cursor) {
            d.cursors[i] = d.cursors[--d.cursor_count];
            break;
        }
    }
    memory_foreign_begin();
    d.real->cursor_close(cursor);
    memory_foreign_end();
}

static enum bh_status on_move(struct bh_kv_cursor *cursor, int how, struct bh_slice seek,
                              struct bh_slice *key, struct bh_slice *value)
{
    memory_foreign_begin();
    const enum bh_status status = d.real->cursor_move(cursor, how, seek, key, value);
    memory_foreign_end();
    return status;
}

static void on_close(struct bh_kv *kv)
{
    (void)kv; /* the disk stays */
}

void disk_new(void)
{
    d = (struct disk){.max = (size_t)64 << 20};
    d.kv = bh_kv_memory_create(d.max, RESERVE);
    BH_ASSERT(d.kv != NULL);
    d.real = d.kv->ops;
    d.ops = (struct bh_kv_ops){.begin = on_begin,
                               .commit = on_commit,
                               .abort = on_abort,
                               .get = on_get,
                               .put = on_put,
                               .del = on_del,
                               .room = on_room,
                               .cursor_open = on_cursor_open,
                               .cursor_close = on_cursor_close,
                               .cursor_move = on_move,
                               .close = on_close};
    d.kv->ops = &d.ops;
    bh_kv_memory_set_fault(d.kv, step, NULL);
}

struct bh_kv *disk_kv(void)
{
    return d.kv;
}

void disk_set_max(size_t max)
{
    d.max = max;
    bh_kv_memory_set_max(d.kv, max);
}

/* Full: nothing more fits but what the reserve is for. */
void disk_set_full(bool full)
{
    if (full == d.full) {
        return;
    }
    d.full = full;
    d.reports.kept = d.reports.tried = 0;
    const size_t used = bh_kv_memory_bytes(d.kv);
    bh_kv_memory_set_max(d.kv, full ? used + RESERVE + 4096 : d.max);
    sim_trace("the disk is %s", full ? "full" : "roomy again");
}

void disk_report_written(size_t octets)
{
    d.reports.open += d.full ? octets : 0;
}

bool disk_is_full_of_reports(void)
{
    return d.reports.kept + d.reports.tried > RESERVE / 2;
}

void disk_process_died(void)
{
    d.late = NULL;
    d.reports.open = 0;
    bh_kv_memory_crash(d.kv);
    while (d.cursor_count > 0) {
        d.real->cursor_close(d.cursors[--d.cursor_count]);
    }
    while (d.txn_count > 0) {
        d.real->abort(d.txns[--d.txn_count]);
    }
    if (!world.over) {
        model_on_commit(d.kv); /* it may have died right behind a commit */
    }
}

void disk_gone(void)
{
    if (d.kv != NULL) {
        disk_process_died();
        d.real->close(d.kv);
        d.kv = NULL;
    }
}

/* ---- the face of LMDB ---- */

enum bh_status bh_kv_lmdb_open(const struct bh_kv_lmdb_options *options, struct bh_kv **kv,
                               char *error, size_t error_len)
{
    (void)options;
    (void)error;
    (void)error_len;
    *kv = d.kv;
    return BH_OK;
}

enum bh_status bh_kv_lmdb_upkeep(struct bh_kv *kv)
{
    (void)kv;
    return BH_OK;
}

enum bh_status bh_kv_lmdb_usage(struct bh_kv *kv, struct bh_kv_lmdb_usage *usage)
{
    const uint64_t used = bh_kv_memory_bytes(kv);
    *usage = (struct bh_kv_lmdb_usage){
        .map_bytes = d.max, .file_bytes = used, .disk_bytes = d.full ? 0 : d.max - used};
    return BH_OK;
}

bool bh_kv_lmdb_has_room(struct bh_kv *kv)
{
    (void)kv;
    return !d.full;
}

enum bh_status bh_kv_lmdb_copy(struct bh_kv *kv, const char *path)
{
    (void)kv;
    (void)path;
    return BH_EIO;
}

const char *bh_kv_lmdb_network_fs(uint64_t magic)
{
    (void)magic;
    return NULL;
}
