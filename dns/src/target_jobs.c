/* target_jobs.c - the lookups that a target plan wants: from the cache at once, else all of them in
 * flight together. */
#include <stdlib.h>

#include "resolver_internal.h"

#define JOB_ARENA_MAX ((size_t)1 << 20)

struct target_job {
    struct bh_resolver *resolver;
    struct target_job *next; /* among the done */
    struct bh_arena arena;
    struct bh_target_plan *plan;
    bh_resolver_targets_fn *cb;
    void *ctx;
    bool is_done;
};

/* The answer to one query of a job: where it belongs. Lives in the job's arena. */
struct job_query {
    struct target_job *job;
    size_t tag;
};

static void advance(struct target_job *job);

static void on_job_answer(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    (void)name;
    const struct job_query *query = ctx;
    struct target_job *job = query->job;
    bh_target_plan_answer(job->plan, query->tag, answer);
    advance(job);
}

static enum bh_status ask(struct target_job *job, const struct bh_target_query *query)
{
    struct bh_resolver *r = job->resolver;
    struct bh_dns_answer answer;
    if (bh_dns_cache_get(r->cache, r->config.set, query->name, query->type,
                         resolver_cache_now_ms(r), &job->arena, &answer) == BH_OK) {
        bh_target_plan_answer(job->plan, query->tag, &answer);
        return BH_OK;
    }
    struct job_query *record = bh_arena_alloc(&job->arena, sizeof(*record));
    if (record == NULL) {
        return BH_ENOMEM;
    }
    *record = (struct job_query){job, query->tag};
    return resolver_join(r, query->name, query->type, on_job_answer, record);
}

static void advance(struct target_job *job)
{
    struct bh_target_query query;
    while (bh_target_plan_next_query(job->plan, &query)) {
        if (ask(job, &query) != BH_OK) {
            const struct bh_dns_answer answer = {.status = BH_DNS_OVERLOAD, .type = query.type};
            bh_target_plan_answer(job->plan, query.tag, &answer);
        }
    }
    if (!job->is_done && bh_target_plan_is_complete(job->plan)) {
        job->is_done = true;
        job->next = job->resolver->done_jobs;
        job->resolver->done_jobs = job;
        resolver_kick(job->resolver);
    }
}

static void free_job(struct target_job *job)
{
    bh_arena_fini(&job->arena);
    free(job);
}

bool target_jobs_deliver(struct bh_resolver *r)
{
    struct target_job *job = r->done_jobs;
    if (job == NULL) {
        return false;
    }
    r->done_jobs = job->next;
    struct bh_target_list list;
    if (bh_target_plan_finish(job->plan, &r->rng, &list) != BH_OK) {
        list = (struct bh_target_list){
            .happened = BH_HAPPENED_OUR_RESOURCE, .site = BH_EMPTY, .ttl_s = 1};
    }
    job->cb(job->ctx, &list);
    free_job(job);
    return true;
}

enum bh_status bh_resolver_targets(struct bh_resolver *r, const struct bh_target_request *request,
                                   bh_resolver_targets_fn *cb, void *ctx)
{
    BH_ASSERT(!r->closing);
    struct target_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return BH_ENOMEM;
    }
    if (r->lookups >= r->config.lookups_max) {
        r->stats.refused++;
        free(job);
        return BH_EFULL;
    }
    bh_arena_init(&job->arena, JOB_ARENA_MAX);
    *job = (struct target_job){.resolver = r, .arena = job->arena, .cb = cb, .ctx = ctx};
    const enum bh_status status = bh_target_plan_init(request, &job->arena, &job->plan);
    if (status != BH_OK) {
        free_job(job);
        return status;
    }
    advance(job);
    return BH_OK;
}
