/* Bulk verbs as durable jobs: a cursor walks the queue in slices, each in one transaction. */
#include "queue_internal.h"

static enum bh_status job_save(struct bh_kv_txn *txn, const struct bh_job *job,
                               struct bh_arena *arena)
{
    struct bh_slice row;
    const enum bh_status status = record_job_encode(job, arena, &row);
    if (status != BH_OK) {
        return status;
    }
    const struct row_key key = key_id(job->id);
    return bh_kv_put(txn, BH_KV_JOB, key_slice(&key), row, 0);
}

static enum bh_status job_load(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                               struct bh_job *job)
{
    const struct row_key key = key_id(id);
    struct bh_slice row;
    enum bh_status status = row_get(txn, BH_KV_JOB, key_slice(&key), arena, &row);
    if (status == BH_OK) {
        status = record_job_decode(row, job);
        job->id = id;
    }
    return status;
}

enum bh_status bh_queue_job_create(struct bh_queue *q, struct bh_kv_txn *txn,
                                   const struct bh_job *job, struct bh_now now, uint64_t *id)
{
    (void)q;
    BH_ASSERT(job->selection.id_count <= BH_SELECTION_IDS_MAX);
    struct bh_job made = {.verb = job->verb,
                          .selection = job->selection,
                          .reason = job->reason,
                          .by = job->by,
                          .created_unix_ms = now.unix_ms};
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    enum bh_status status = queue_last_id(txn, &made.up_to_id);
    if (status == BH_OK) {
        status = queue_next_id(txn, now.unix_ms, &made.id); /* jobs share the ids of messages */
    }
    if (status == BH_OK) {
        status = job_save(txn, &made, &arena);
        *id = made.id;
    }
    bh_arena_fini(&arena);
    return status;
}

enum bh_status bh_queue_job_next(struct bh_kv_txn *txn, uint64_t after, struct bh_arena *arena,
                                 struct bh_job *job)
{
    if (after == UINT64_MAX) {
        return BH_ENOTFOUND;
    }
    const struct row_key from = key_id(after + 1);
    struct bh_slice key;
    struct bh_slice value;
    const enum bh_status status = row_seek(txn, BH_KV_JOB, key_slice(&from), &key, &value);
    if (status != BH_OK) {
        return status;
    }
    return key.len == 8 ? job_load(txn, bh_get_be64(key.ptr), arena, job) : BH_ECORRUPT;
}

enum bh_status bh_queue_job_remove(struct bh_queue *q, struct bh_kv_txn *txn, uint64_t id)
{
    (void)q;
    const struct row_key key = key_id(id);
    return bh_kv_del(txn, BH_KV_JOB, key_slice(&key));
}

/* What a verb is about: a release of what is not held is no match. */
static bool is_meant(enum bh_job_verb verb, const struct bh_entry *e)
{
    switch (verb) {
    case BH_JOB_HOLD:
        return e->state != BH_ENTRY_HELD;
    case BH_JOB_RELEASE:
        return e->state == BH_ENTRY_HELD;
    case BH_JOB_REQUEUE:
        return e->state != BH_ENTRY_HELD;
    case BH_JOB_CANCEL:
    case BH_JOB_BOUNCE:
        break;
    }
    return true;
}

struct acting {
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    const struct bh_job_slice *slice;
    const struct bh_queue_notifier *notifier;
    const struct bh_job *job;
};

static enum bh_status change_state(const struct acting *a, const struct bh_entry *was,
                                   enum bh_entry_state state, struct bh_arena *arena)
{
    struct bh_destination d;
    const enum bh_status status = destination_load(a->txn, was->key.destination, arena, &d);
    if (status != BH_OK) {
        return must_exist(status);
    }
    struct bh_entry e = *was;
    entry_set_state(&e, &d, state, 0, a->job->reason, a->notifier->now.unix_ms);
    return any_store(a->q, a->txn, &d, was, &e, arena);
}

static enum bh_status end_entry(const struct acting *a, const struct bh_entry *e,
                                enum bh_verdict verdict, struct bh_arena *arena)
{
    struct bh_settle_recipient *verdicts =
        bh_arena_alloc(arena, e->recipient_count * sizeof(*verdicts));
    if (verdicts == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        verdicts[i] =
            (struct bh_settle_recipient){.verdict = verdict, .outcome = a->slice->outcome};
    }
    const struct bh_settle settle = {.key = e->key,
                                     .lane = e->lane,
                                     .recipients = verdicts,
                                     .recipient_count = e->recipient_count};
    struct bh_settle_result result;
    return must_exist(bh_queue_settle(a->q, a->txn, &settle, a->notifier, &result));
}

static enum bh_status act(const struct acting *a, const struct bh_entry *e, struct bh_arena *arena)
{
    switch (a->job->verb) {
    case BH_JOB_HOLD:
        return change_state(a, e, BH_ENTRY_HELD, arena);
    case BH_JOB_RELEASE:
        return change_state(a, e, BH_ENTRY_READY, arena);
    case BH_JOB_REQUEUE: /* what is ready is where it should be */
        return e->state == BH_ENTRY_READY ? BH_OK : change_state(a, e, BH_ENTRY_READY, arena);
    case BH_JOB_CANCEL:
        return end_entry(a, e, BH_VERDICT_CANCELLED, arena);
    case BH_JOB_BOUNCE:
        return end_entry(a, e, BH_VERDICT_BOUNCED, arena);
    }
    return BH_EINVAL;
}

static enum bh_status run_slice(const struct acting *a, struct walk *w, struct bh_job *job)
{
    size_t rows = a->slice->rows_max;
    enum bh_status status = BH_OK;
    while (status == BH_OK) {
        struct bh_entry e;
        struct bh_message message;
        status = walk_next(w, a->txn, &rows, &e, &message);
        if (status != BH_OK || !is_meant(job->verb, &e)) {
            continue;
        }
        job->matched++;
        if (a->slice->in_flight != NULL && a->slice->in_flight(a->slice->ctx, e.key)) {
            job->in_flight++;
            continue;
        }
        status = act(a, &e, &w->arena);
        job->acted += status == BH_OK ? 1 : 0;
        if (status == BH_OK && a->slice->acted != NULL) {
            a->slice->acted(a->slice->ctx, job, &e);
        }
    }
    return status;
}

enum bh_status bh_queue_job_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                  const struct bh_job_slice *slice,
                                  const struct bh_queue_notifier *notifier, struct bh_arena *arena,
                                  struct bh_job *job)
{
    enum bh_status status = job_load(txn, slice->job, arena, job);
    if (status != BH_OK || job->done) {
        return status;
    }
    const struct acting a = {.q = q, .txn = txn, .slice = slice, .notifier = notifier, .job = job};
    struct walk w;
    walk_init(&w, &job->selection);
    w.at = job->cursor;
    w.fresh_done = job->fresh_done;
    w.up_to_id = job->up_to_id;
    status = run_slice(&a, &w, job);
    job->cursor = w.at;
    job->fresh_done = w.fresh_done;
    job->done = status == BH_ENOTFOUND;
    walk_fini(&w);
    if (status != BH_ENOTFOUND && status != BH_MORE) {
        return status;
    }
    const enum bh_status saved = job_save(txn, job, arena);
    if (saved != BH_OK) {
        return saved;
    }
    return job->done ? BH_OK : BH_MORE;
}

/* ---- what was in flight ---- */

struct following {
    struct acting acting;
    const struct bh_job_follow *follow;
    uint64_t held_by; /* the job that holds it, if no release comes behind; 0: none */
    bool ended;
    struct bh_arena arena; /* of the entry, with all that belongs to it */
    struct bh_entry e;
    struct bh_message message;
    struct bh_destination d;
};

static enum bh_status load_followed(struct following *f)
{
    struct bh_kv_txn *txn = f->acting.txn;
    const struct bh_queue_key key = f->follow->key;
    bh_arena_reset(&f->arena);
    enum bh_status status = any_load(txn, key, f->follow->lane, &f->arena, &f->e);
    if (status == BH_OK) {
        status = must_exist(message_load(txn, key.id, &f->arena, &f->message));
    }
    if (status == BH_OK) {
        status = must_exist(destination_load(txn, key.destination, &f->arena, &f->d));
    }
    return status;
}

/* Whatever its state has become since. */
static bool selects(const struct following *f, const struct bh_job *job)
{
    struct bh_selection s = job->selection;
    s.states = 0;
    return f->e.key.id <= job->up_to_id &&
           bh_selection_matches(&s, &f->message, &f->e, f->d.domain, f->d.connector);
}

static bool chose(const struct following *f, const struct bh_job *job)
{
    bool named = false;
    for (size_t i = 0; i < f->follow->job_count && !named; i++) {
        named = f->follow->jobs[i] == job->id;
    }
    return named || (f->follow->job_count == 0 && selects(f, job));
}

static bool takes_back(const struct following *f, const struct bh_job *job)
{
    const unsigned states = job->selection.states;
    return f->held_by != 0 && (states == 0 || (states & BH_SELECT_HELD) != 0) && selects(f, job);
}

static enum bh_status act_after_all(struct following *f, struct bh_job *job)
{
    if (!is_meant(job->verb, &f->e)) {
        return BH_OK; /* it is what the job would make of it */
    }
    f->acting.job = job;
    enum bh_status status = act(&f->acting, &f->e, &f->arena);
    f->acting.job = NULL; /* it lives with the caller */
    if (status == BH_OK) {
        job->acted++;
        job->in_flight -= job->in_flight > 0 ? 1 : 0;
        status = job_save(f->acting.txn, job, &f->arena);
    }
    if (status == BH_OK && f->acting.slice->acted != NULL) {
        f->acting.slice->acted(f->acting.slice->ctx, job, &f->e);
    }
    return status;
}

static enum bh_status follow_one(struct following *f, struct bh_job *job)
{
    enum bh_status status = BH_OK;
    switch (job->verb) {
    case BH_JOB_HOLD: /* only once it is known that nobody takes it back */
        f->held_by = chose(f, job) ? job->id : f->held_by;
        break;
    case BH_JOB_RELEASE:
        if (takes_back(f, job)) {
            f->held_by = 0;
        } else if (f->follow->job_count > 0 && chose(f, job)) {
            status = act_after_all(f, job); /* held by what was carried out on it before */
            status = status == BH_OK ? load_followed(f) : status;
        }
        break;
    case BH_JOB_REQUEUE: /* it has just been tried */
        break;
    case BH_JOB_CANCEL:
    case BH_JOB_BOUNCE:
        f->ended = chose(f, job);
        status = f->ended ? act_after_all(f, job) : BH_OK;
        break;
    }
    return status;
}

/* The listed jobs, oldest first. */
static enum bh_status follow_each(struct following *f, struct bh_arena *arena)
{
    struct bh_job job = {0};
    enum bh_status status = BH_OK;
    for (uint64_t after = 0; status == BH_OK && !f->ended; after = job.id) {
        bh_arena_reset(arena);
        status = bh_queue_job_next(f->acting.txn, after, arena, &job);
        if (status == BH_OK) {
            status = follow_one(f, &job);
        }
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status follow_hold(struct following *f, struct bh_arena *arena)
{
    struct bh_job job = {0};
    if (f->ended || f->held_by == 0) {
        return BH_OK;
    }
    bh_arena_reset(arena);
    const enum bh_status status = must_exist(job_load(f->acting.txn, f->held_by, arena, &job));
    return status == BH_OK ? act_after_all(f, &job) : status;
}

enum bh_status bh_queue_jobs_follow(struct bh_queue *q, struct bh_kv_txn *txn,
                                    const struct bh_job_follow *follow,
                                    const struct bh_job_slice *slice,
                                    const struct bh_queue_notifier *notifier)
{
    struct following f = {.acting = {.q = q, .txn = txn, .slice = slice, .notifier = notifier},
                          .follow = follow};
    struct bh_arena arena; /* of the job at hand */
    bh_arena_init(&arena, WORK_ARENA);
    bh_arena_init(&f.arena, WORK_ARENA);
    enum bh_status status = load_followed(&f);
    if (status == BH_OK) {
        status = follow_each(&f, &arena);
    }
    if (status == BH_OK) {
        status = follow_hold(&f, &arena);
    }
    bh_arena_fini(&f.arena);
    bh_arena_fini(&arena);
    return status;
}

/* Each listed job that is done. */
static enum bh_status each_done(struct bh_kv_txn *txn,
                                enum bh_status (*act_on)(struct bh_kv_txn *txn, struct bh_job *job,
                                                         struct bh_arena *arena))
{
    struct bh_job job = {0};
    struct bh_arena arena;
    enum bh_status status = BH_OK;
    bh_arena_init(&arena, WORK_ARENA);
    for (uint64_t after = 0; status == BH_OK; after = job.id) {
        bh_arena_reset(&arena);
        status = bh_queue_job_next(txn, after, &arena, &job);
        if (status == BH_OK && job.done) {
            status = act_on(txn, &job, &arena);
        }
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status sweep_one(struct bh_kv_txn *txn, struct bh_job *job, struct bh_arena *arena)
{
    (void)arena;
    const struct row_key key = key_id(job->id);
    return must_exist(bh_kv_del(txn, BH_KV_JOB, key_slice(&key)));
}

static enum bh_status reopen_one(struct bh_kv_txn *txn, struct bh_job *job, struct bh_arena *arena)
{
    job->done = false;
    job->fresh_done = false;
    job->cursor = (struct bh_queue_key){0};
    job->matched = job->acted;
    job->in_flight = 0;
    return job_save(txn, job, arena);
}

enum bh_status bh_queue_jobs_sweep(struct bh_queue *q, struct bh_kv_txn *txn)
{
    (void)q;
    return each_done(txn, sweep_one);
}

enum bh_status bh_queue_jobs_reopen(struct bh_queue *q, struct bh_kv_txn *txn)
{
    (void)q;
    return each_done(txn, reopen_one);
}
