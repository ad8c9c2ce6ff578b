#include "life.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/log.h"
#include "sd_notify.h"

struct asked_worker {
    struct worker_call call;
    atomic_bool silent; /* asked, and not answered yet */
};

struct life {
    struct daemon *daemon;
    uv_timer_t timer;
    struct engine_call engine;
    struct bh_store_task writer, reader;
    atomic_bool engine_silent, writer_silent, reader_silent;
    struct asked_worker workers[WORKERS_MAX];
};

static void run_on_engine(struct engine_call *call, struct engine *engine)
{
    (void)engine;
    atomic_store(&BH_CONTAINER(call, struct life, engine)->engine_silent, false);
}

static void run_on_worker(struct worker_call *call, struct worker *worker)
{
    (void)worker;
    atomic_store(&BH_CONTAINER(call, struct asked_worker, call)->silent, false);
}

static enum bh_status run_nothing(struct bh_store_task *task, struct bh_queue *q,
                                  struct bh_kv_txn *txn)
{
    (void)task;
    (void)q;
    (void)txn;
    return BH_OK;
}

/* Whatever became of it: a full disk is no reason to end the process. */
static void on_written(struct bh_store_task *task, enum bh_status status)
{
    (void)status;
    atomic_store(&BH_CONTAINER(task, struct life, writer)->writer_silent, false);
}

static void on_read(struct bh_store_task *task, enum bh_status status)
{
    (void)status;
    atomic_store(&BH_CONTAINER(task, struct life, reader)->reader_silent, false);
}

/* Each letter is free again: it was answered. */
static void ask(struct life *life)
{
    struct daemon *d = life->daemon;
    atomic_store(&life->engine_silent, true);
    life->engine.run = run_on_engine;
    engine_call(d->engine, &life->engine);
    for (uint32_t i = 0; i < d->worker_count; i++) {
        atomic_store(&life->workers[i].silent, true);
        life->workers[i].call.run = run_on_worker;
        worker_call(d->workers[i].worker, &life->workers[i].call);
    }
    atomic_store(&life->writer_silent, true);
    life->writer = (struct bh_store_task){.run = run_nothing, .done = on_written};
    bh_store_write_always(d->store, &life->writer);
    atomic_store(&life->reader_silent, true);
    life->reader = (struct bh_store_task){.run = run_nothing, .done = on_read};
    if (bh_store_read(d->store, &life->reader) != BH_OK) {
        atomic_store(&life->reader_silent, false); /* As much waits as may: asked next time. */
    }
}

static bool tell_if(bool silent, const char *thread)
{
    if (silent) {
        bh_log(BH_LOG_ERROR, "evt=no_sign_of_life thread=\"%s\" action=\"the watchdog is not fed\"",
               thread);
    }
    return silent;
}

static bool anybody_silent(struct life *life)
{
    bool silent = tell_if(atomic_load(&life->engine_silent), "engine");
    silent |= tell_if(atomic_load(&life->writer_silent), "store writer");
    silent |= tell_if(atomic_load(&life->reader_silent), "store reader");
    for (uint32_t i = 0; i < life->daemon->worker_count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "worker %u", (unsigned)i);
        silent |= tell_if(atomic_load(&life->workers[i].silent), name);
    }
    return silent;
}

static void on_timer(uv_timer_t *timer)
{
    struct life *life = timer->data;
    if (!anybody_silent(life)) {
        sd_notify_send("WATCHDOG=1");
        ask(life);
    }
}

enum bh_status life_watch(struct daemon *d, struct life **life)
{
    *life = NULL;
    const uint64_t half_ms = sd_watchdog_ms();
    if (half_ms == 0) {
        return BH_OK;
    }
    struct life *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return BH_ENOMEM;
    }
    l->daemon = d;
    l->timer.data = l;
    uv_timer_init(&d->loop, &l->timer);
    ask(l);
    const uint64_t every_ms = half_ms / 2 > 0 ? half_ms / 2 : 1;
    uv_timer_start(&l->timer, on_timer, every_ms, every_ms);
    *life = l;
    return BH_OK;
}

void life_stop(struct life *life)
{
    if (life != NULL) {
        uv_timer_stop(&life->timer);
    }
}

void life_destroy(struct life *life)
{
    free(life);
}
