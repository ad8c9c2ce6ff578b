/* The wall clock (promise 1): a step by more than five minutes suspends expiry until an operator
 * confirms the time. That is written down, and outlives the process: to start the daemon again says
 * nothing of the clock. */
#include "engine_internal.h"

#include <stdlib.h>

#include "bh/wire.h"

#define CLOCK_KEY BH_LIT("engine/clock")
#define CLOCK_VERSION 1

struct clock_task {
    struct engine_call call;
    struct bh_store_task task;
    struct engine *engine;
    bool suspended;
    int64_t at_unix_ms;
    enum bh_status status;
};

bool engine_clock_stepped_before(struct bh_kv_txn *txn, struct bh_arena *arena)
{
    struct bh_slice row;
    const enum bh_status status = bh_queue_policy_get(txn, CLOCK_KEY, arena, &row);
    if (status == BH_ENOTFOUND) {
        return false;
    }
    /* What can't be read is taken for a step: it only delays. */
    bh_log(BH_LOG_ERROR,
           "evt=clock_unconfirmed expiry=suspended hint=\"check the clock, then: bhctl "
           "resume\"");
    return true;
}

static enum bh_status run_write(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    const struct clock_task *c = BH_CONTAINER(task, struct clock_task, task);
    if (!c->suspended) {
        const enum bh_status status = bh_queue_policy_del(q, txn, CLOCK_KEY);
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    char storage[16];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, CLOCK_VERSION);
    bh_write_i64(&w, c->at_unix_ms);
    return bh_queue_policy_put(q, txn, CLOCK_KEY, bh_buf_slice(&w.buf));
}

/* On the engine's thread. */
static void written(struct engine_call *call, struct engine *e)
{
    struct clock_task *c = BH_CONTAINER(call, struct clock_task, call);
    e->pending--;
    e->clock_writing = false;
    if (c->status == BH_OK) {
        e->suspended_written = c->suspended;
    } else {
        bh_log(BH_LOG_ERROR, "evt=clock_not_written error=\"%s\"", bh_status_name(c->status));
    }
    free(c);
}

static void done_write(struct bh_store_task *task, enum bh_status status)
{
    struct clock_task *c = BH_CONTAINER(task, struct clock_task, task);
    c->status = status;
    c->call.run = written;
    engine_call(c->engine, &c->call);
}

static void write_down(struct engine *e)
{
    if (e->clock_writing || e->drained || e->expiry_suspended == e->suspended_written) {
        return;
    }
    struct clock_task *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return; /* the next look tries again */
    }
    c->engine = e;
    c->suspended = e->expiry_suspended;
    c->at_unix_ms = engine_now(e).unix_ms;
    c->task = (struct bh_store_task){
        .run = run_write, .done = done_write, .dirty_bytes = 4096, .urgent = true, .removal = true};
    e->clock_writing = true;
    e->pending++;
    bh_store_write_always(e->options.store, &c->task);
}

void eclock_begin(struct engine *e)
{
    const struct bh_now now = engine_clock(e);
    e->clock_offset_ms = now.unix_ms - (int64_t)now.mono_ms;
    e->clock_begun = true;
    e->expiry_suspended = e->options.clock_unconfirmed;
    e->suspended_written = e->expiry_suspended;
    e->redate_wanted = e->options.clock_behind;
}

void eclock_watch(struct engine *e)
{
    const struct bh_now now = engine_clock(e);
    const int64_t offset = now.unix_ms - (int64_t)now.mono_ms;
    const int64_t step = offset - e->clock_offset_ms;
    e->clock_offset_ms = offset;
    if (step > CLOCK_STEP_MS || step < -CLOCK_STEP_MS) {
        e->expiry_suspended = true;
        bh_log(BH_LOG_ERROR,
               "evt=clock_stepped by_ms=%lld expiry=suspended hint=\"check the clock, then: bhctl "
               "resume\"",
               (long long)step);
        /* Due times are derived anew. */
        bh_sched_clock_stepped(e->sched, now);
        e->redate_wanted = e->redate_wanted || step < 0;
    }
    write_down(e);
}

void eclock_confirm(struct engine *e)
{
    if (e->expiry_suspended) {
        e->expiry_suspended = false;
        bh_log(BH_LOG_INFO, "evt=clock_confirmed expiry=resumed");
        write_down(e);
    }
}
