/* The double of the web, for MTA-STS policies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"
#include "sts_fetch.h"
#include "world.h"

struct sts_fetcher {
    uv_loop_t *loop;
};

struct sts_fetch {
    struct work work; /* first */
    struct sim_event timer;
    struct sts_fetch *next;
    sts_fetch_fn *cb;
    void *ctx;
    char body[512], error[64];
    unsigned token;
};

static struct sts_fetch *fetches;

enum bh_status sts_fetcher_create(uv_loop_t *loop, struct sts_fetcher **fetcher)
{
    *fetcher = calloc(1, sizeof(**fetcher));
    if (*fetcher != NULL) {
        (*fetcher)->loop = loop;
    }
    return *fetcher != NULL ? BH_OK : BH_ENOMEM;
}

static void forget(struct sts_fetch *f)
{
    struct sts_fetch **at = &fetches;
    while (*at != f) {
        at = &(*at)->next;
    }
    *at = f->next;
}

static void run(struct work *work)
{
    struct sts_fetch *f = (struct sts_fetch *)(void *)work;
    forget(f);
    loop_hold(work->loop, -1);
    if (f->error[0] == '\0') {
        world_on_fetched(f->token);
    }
    f->cb(f->ctx, bh_slice_str(f->body), bh_slice_str(f->error));
    sim_free(f);
}

enum bh_status sts_fetch_start(struct sts_fetcher *fetcher, const struct sts_fetch_request *request,
                               sts_fetch_fn *cb, void *ctx, struct sts_fetch **fetch)
{
    struct sts_fetch *f = sim_alloc(sizeof(*f));
    *f = (struct sts_fetch){
        .work = {.run = run, .loop = fetcher->loop}, .next = fetches, .cb = cb, .ctx = ctx};
    fetches = f;
    uint64_t delay_us = 0;
    f->token = world_on_fetch(request->host, f->body, sizeof(f->body), f->error, sizeof(f->error),
                              &delay_us);
    if (delay_us > request->timeout_ms * SIM_MS) {
        delay_us = request->timeout_ms * SIM_MS;
        snprintf(f->error, sizeof(f->error), "timeout");
    }
    loop_hold(fetcher->loop, 1);
    loop_post_after(&f->work, delay_us, &f->timer);
    *fetch = f;
    return BH_OK;
}

void sts_fetch_cancel(struct sts_fetch *f)
{
    forget(f);
    sim_event_cancel(&f->timer);
    loop_unpost(&f->work);
    loop_hold(f->work.loop, -1);
    sim_free(f);
}

void sts_fetcher_close(struct sts_fetcher *fetcher)
{
    (void)fetcher;
}

void sts_fetcher_free(struct sts_fetcher *fetcher)
{
    free(fetcher);
}

void web_process_died(void)
{
    while (fetches != NULL) {
        struct sts_fetch *f = fetches;
        fetches = f->next;
        sim_event_cancel(&f->timer);
        sim_free(f);
    }
}
