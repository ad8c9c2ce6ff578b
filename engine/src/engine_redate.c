/* Due times in the store after a step of the wall clock backwards (promise 1): a pass of the writer
 * over what was put off by the clock of before. What the scheduler has in memory it derives anew
 * itself; here it is told where the store has changed, and the rest is found by its wake row. */
#include "engine_internal.h"

#include <stdlib.h>

#define REDATE_ROWS 500 /* looked at in one transaction: a few milliseconds */

struct redate_task {
    struct engine_call call;
    struct bh_store_task task;
    struct engine *engine;
    struct bh_now now;
    enum bh_status status;
    struct bh_redate_pass pass, next_pass; /* committed; of the slice under way */
    uint64_t told;
    size_t count;
    uint32_t ids[REDATE_ROWS];
};

static enum bh_status run_redate(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct redate_task *r = BH_CONTAINER(task, struct redate_task, task);
    r->next_pass = r->pass; /* a run may be repeated */
    r->status =
        bh_queue_redate_slice(q, txn, r->now, REDATE_ROWS, &r->next_pass, r->ids, &r->count);
    return r->status == BH_MORE ? BH_OK : r->status;
}

static void post(struct engine *e, struct redate_task *r);

/* On the engine's thread. */
static void redated(struct engine_call *call, struct engine *e)
{
    struct redate_task *r = BH_CONTAINER(call, struct redate_task, call);
    e->pending--;
    if (r->status == BH_OK || r->status == BH_MORE) {
        for (size_t i = 0; i < r->count; i++) {
            bh_sched_dirty(e->sched, r->ids[i], engine_now(e));
        }
        r->told += r->count;
        r->pass = r->next_pass;
        edest_scan_wake(e);
    }
    if (r->status == BH_MORE && !e->draining && !e->redate_wanted) {
        post(e, r);
        return;
    }
    if (r->status == BH_OK) {
        bh_log(BH_LOG_INFO, "evt=due_times_derived_anew destinations=%llu",
               (unsigned long long)r->told);
    } else if (r->status != BH_MORE) {
        bh_log(BH_LOG_ERROR, "evt=redate_failed error=\"%s\"", bh_status_name(r->status));
        e->redate_wanted = true;
    }
    e->redating = false;
    free(r);
}

static void done_redate(struct bh_store_task *task, enum bh_status status)
{
    struct redate_task *r = BH_CONTAINER(task, struct redate_task, task);
    r->status = status == BH_OK ? r->status : status;
    r->call.run = redated;
    engine_call(r->engine, &r->call);
}

static void post(struct engine *e, struct redate_task *r)
{
    r->now = engine_now(e);
    r->task = (struct bh_store_task){.run = run_redate,
                                     .done = done_redate,
                                     .dirty_bytes = (size_t)REDATE_ROWS * 512,
                                     .removal = true,
                                     .atomic = true};
    e->pending++;
    bh_store_write_always(e->options.store, &r->task);
}

void eredate_tick(struct engine *e)
{
    struct redate_task *r =
        e->redate_wanted && !e->redating && !e->draining ? calloc(1, sizeof(*r)) : NULL;
    if (r != NULL) { /* else the next tick tries again */
        r->engine = e;
        e->redate_wanted = false;
        e->redating = true;
        post(e, r);
    }
}
