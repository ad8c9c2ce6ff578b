/* Bulk jobs and what was in flight: a job leaves alone what is with a session, and remembers that
 * it passed it (leased.h). When such an entry is back and still queued, the job is carried out on
 * it before anybody else is given it; the job itself stays listed until its last one is back.
 *
 *  1. leaving its lease, an item is found to have been passed, and by which jobs: follow_item
 *  2. the writer carries these out on its entry, if it still has one
 *  3. the item leaves its lease after all; with the last one the jobs that are done are removed */
#include "engine_internal.h"

#include <stdlib.h>

#include "bh/assert.h"

#define JOBS_MAX \
    64 /* that choose one entry while a session has it; of more it is not known which */

struct follow {
    struct engine_call call;
    struct bh_store_task task;
    struct engine *engine;
    struct lease_item *item; /* NULL: the jobs that are done are removed */
    struct notifier notifier;
    struct bh_now now;
    enum bh_status status;
};

static void tell_acted(void *ctx, const struct bh_job *job, const struct bh_entry *entry)
{
    const struct follow *f = ctx;
    struct event event;
    event_begin(&event, f->now.unix_ms, "operator");
    event_id(&event, entry->key.id);
    bh_json_key(&event.json, "verb");
    bh_json_cstr(&event.json, bh_job_verb_name(job->verb));
    bh_json_key(&event.json, "reason");
    bh_json_str(&event.json, job->reason);
    bh_json_key(&event.json, "recipients");
    bh_json_u64(&event.json, entry->recipient_count);
    event_end(f->engine->options.events, &event);
}

/* @return false: it is not leased where it is now */
static bool pass_on(struct leased_set *leased, const struct lease_item *item)
{
    bool leased_there = item->passed.unknown && leased_pass(leased, item->at, 0);
    for (const struct leased_pass *pass = item->passed.first; pass != NULL; pass = pass->next) {
        leased_there = leased_pass(leased, item->at, pass->job) || leased_there;
    }
    return leased_there;
}

static struct bh_job_follow follow_of(const struct lease_item *item, uint64_t jobs[JOBS_MAX])
{
    struct bh_job_follow follow = {.key = item->at, .lane = item->lane, .jobs = jobs};
    const struct leased_pass *pass = item->passed.first;
    for (; pass != NULL && follow.job_count < JOBS_MAX; pass = pass->next) {
        jobs[follow.job_count++] = pass->job;
    }
    if (pass != NULL || item->passed.unknown) {
        follow.job_count = 0;
    }
    return follow;
}

static enum bh_status run_follow(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct follow *f = BH_CONTAINER(task, struct follow, task);
    if (f->item == NULL) {
        return leased_unfollowed(f->engine->options.leased) == 0 ? bh_queue_jobs_sweep(q, txn)
                                                                 : BH_OK;
    }
    const struct lease_item *item = f->item;
    const struct bh_queue_notifier *notifier = notifier_begin(&f->notifier, f->now);
    if (item->at.destination != item->key.destination && pass_on(f->engine->options.leased, item)) {
        return BH_OK; /* it was moved, and is leased there: followed from there */
    }
    uint64_t jobs[JOBS_MAX];
    const struct bh_job_follow follow = follow_of(item, jobs);
    const struct bh_job_slice slice = {
        .acted = tell_acted,
        .ctx = f,
        .outcome = {.stage = BH_STAGE_NONE,
                    .happened = BH_HAPPENED_OPERATOR,
                    .text = BH_LIT("returned by the mail system's operator")}};
    const enum bh_status status = bh_queue_jobs_follow(q, txn, &follow, &slice, notifier);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void sweep(struct engine *e);

/* On the engine's thread. */
static void followed(struct engine_call *call, struct engine *e)
{
    struct follow *f = BH_CONTAINER(call, struct follow, call);
    struct lease_item *item = f->item;
    e->pending--;
    if (item == NULL) {
        e->sweeping = false;
        free(f);
        return;
    }
    if (f->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=job_follow_failed destination=%u error=\"%s\"",
               (unsigned)item->key.destination, bh_status_name(f->status));
        item->next_settled = e->unfollowed;
        e->unfollowed = item;
    } else {
        for (const struct notify_made *made = f->notifier.made; made != NULL; made = made->next) {
            engine_note_made(e, made);
        }
        leased_followed(e->options.leased);
        leased_passed_fini(&item->passed);
        item->changed = true;
        if (item->settled) {
            settle_leave(e, item);
        } else {
            settle_skip(e, item);
        }
        sweep(e);
    }
    notifier_fini(&f->notifier);
    free(f);
}

static void done_follow(struct bh_store_task *task, enum bh_status status)
{
    struct follow *f = BH_CONTAINER(task, struct follow, task);
    f->status = status;
    f->call.run = followed;
    engine_call(f->engine, &f->call);
}

static bool post(struct engine *e, struct lease_item *item)
{
    struct follow *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return false;
    }
    f->engine = e;
    f->item = item;
    f->now = engine_now(e);
    if (item != NULL) {
        notifier_init(&f->notifier, e->options.cell);
    }
    f->task = (struct bh_store_task){.run = run_follow,
                                     .done = done_follow,
                                     .dirty_bytes = 16384,
                                     .removal = true,
                                     .atomic = true};
    e->pending++;
    bh_store_write_always(e->options.store, &f->task);
    return true;
}

static void sweep(struct engine *e)
{
    if (!e->sweeping && leased_unfollowed(e->options.leased) == 0) {
        e->sweeping = post(e, NULL); /* otherwise the next start finds nothing left to do */
    }
}

void follow_item(struct engine *e, struct lease_item *item)
{
    if (!post(e, item)) {
        item->next_settled = e->unfollowed;
        e->unfollowed = item;
    }
}

void follow_retry(struct engine *e)
{
    struct lease_item *item = e->unfollowed;
    e->unfollowed = NULL;
    while (item != NULL) {
        struct lease_item *next = item->next_settled;
        follow_item(e, item);
        item = next;
    }
}
