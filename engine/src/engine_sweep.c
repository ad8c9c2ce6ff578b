/* Destinations without mail for a day are deleted (DESIGN 4), a page at a time: else what every
 * domain ever written to left behind would be there for ever, and be walked by whoever looks for
 * destinations. */
#include "engine_internal.h"

#include <stdlib.h>

#define SWEEP_MS 10000  /* between two pages */
#define SWEEP_ROWS 1000 /* looked at in one transaction; without a find it writes nothing */

struct sweep_task {
    struct engine_call call;
    struct bh_store_task task;
    struct engine *engine;
    struct bh_now now;
    enum bh_status status;
    size_t deleted;
};

static enum bh_status run_sweep(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct sweep_task *s = BH_CONTAINER(task, struct sweep_task, task);
    return bh_queue_sweep(q, txn, SWEEP_ROWS, s->now, &s->deleted);
}

/* On the engine's thread. */
static void swept(struct engine_call *call, struct engine *e)
{
    struct sweep_task *s = BH_CONTAINER(call, struct sweep_task, call);
    e->pending--;
    e->sweeping_dests = false;
    if (s->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=sweep_failed error=\"%s\"", bh_status_name(s->status));
    } else if (s->deleted > 0) {
        bh_log(BH_LOG_DEBUG, "evt=swept destinations=%zu", s->deleted);
    }
    free(s);
}

static void done_sweep(struct bh_store_task *task, enum bh_status status)
{
    struct sweep_task *s = BH_CONTAINER(task, struct sweep_task, task);
    s->status = status;
    s->call.run = swept;
    engine_call(s->engine, &s->call);
}

void esweep_tick(struct engine *e)
{
    const struct bh_now now = engine_now(e);
    if (e->sweeping_dests || now.mono_ms < e->next_sweep_ms) {
        return;
    }
    e->next_sweep_ms = now.mono_ms + SWEEP_MS;
    struct sweep_task *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return;
    }
    s->engine = e;
    s->now = now;
    s->task = (struct bh_store_task){.run = run_sweep,
                                     .done = done_sweep,
                                     .dirty_bytes = (size_t)SWEEP_ROWS * 256,
                                     .removal = true,
                                     .atomic = true};
    e->sweeping_dests = true;
    e->pending++;
    bh_store_write_always(e->options.store, &s->task);
}
