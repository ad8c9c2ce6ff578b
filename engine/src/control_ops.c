/* What the control socket's requests do: views on the store's readers, actions on its writer. */
#include "control_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/log.h"

#define JOB_ROWS 500 /* looked at in one transaction: a few milliseconds */
#define DESTS_ROWS 2000

static struct bh_control_reply *reply_of(struct daemon_call *call)
{
    return BH_CONTAINER(call, struct bh_control_reply, call);
}

static void end_counts(struct bh_control_reply *reply)
{
    char text[256];
    struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
    bh_json_begin_object(&json);
    bh_json_key(&json, "matched");
    bh_json_u64(&json, reply->matched + reply->freed_all);
    bh_json_key(&json, "acted");
    bh_json_u64(&json, reply->acted + reply->freed_all);
    bh_json_key(&json, "in_flight");
    bh_json_u64(&json, reply->in_flight);
    bh_json_key(&json, "destinations");
    bh_json_u64(&json, reply->destinations);
    bh_json_end_object(&json);
    reply_end(reply, bh_buf_slice(&json.buf));
}

static void fail(struct bh_control_reply *reply, const char *verb)
{
    char what[160];
    snprintf(what, sizeof(what), "%s: the store says: %s", verb, bh_status_name(reply->status));
    reply_error(reply, what,
                reply->status == BH_EFULL ? "the disk or the queue's max-size is full" : "");
}

/* ---- views ---- */

static bool live_engine(void *ctx, struct bh_live_engine *engine)
{
    const struct bh_control_reply *reply = ctx;
    if (reply->snapshot == NULL) {
        return false;
    }
    *engine = reply->snapshot->engine;
    return true;
}

static bool live_destination(void *ctx, uint32_t id, struct bh_live_destination *live)
{
    const struct bh_control_reply *reply = ctx;
    const struct snapshot *s = reply->snapshot;
    size_t low = 0;
    size_t high = s != NULL ? s->count : 0;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (s->dests[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (s == NULL || low == s->count || s->dests[low].id != id) {
        return false;
    }
    *live = (struct bh_live_destination){.connections = s->dests[low].sessions,
                                         .in_flight = s->dests[low].leased,
                                         .limit = limit_words_live(&s->dests[low].limit),
                                         .left = s->dests[low].left,
                                         .left_ms = s->dests[low].left_ms,
                                         .message_ns = s->dests[low].message_ns,
                                         .recipient_ns = s->dests[low].recipient_ns,
                                         .carrier = bh_slice_str(s->dests[low].carrier)};
    return true;
}

static bool live_host(void *ctx, size_t index, struct bh_live_host *live)
{
    const struct bh_control_reply *reply = ctx;
    const struct snapshot *s = reply->snapshot;
    if (s == NULL || index >= s->host_count) {
        return false;
    }
    const struct snapshot_host *host = &s->hosts[index];
    *live = (struct bh_live_host){.name = bh_slice_str(host->name),
                                  .connector = bh_slice_str(host->connector),
                                  .port = host->port,
                                  .used = host->used,
                                  .tls = bh_slice_str(host->tls),
                                  .from = bh_slice_str(host->from),
                                  .reason = bh_slice_str(host->reason),
                                  .dane = bh_slice_str(host->dane),
                                  .weakened = bh_slice_str(host->weakened),
                                  .lifted = bh_slice_str(host->lifted),
                                  .route_proven = host->route_proven,
                                  .base = bh_slice_str(host->base),
                                  .records = host->record_texts,
                                  .records_count = host->record_count,
                                  .records_all = host->record_all,
                                  .looked_unix_ms = host->made_unix_ms,
                                  .until_unix_ms = host->until_unix_ms};
    return true;
}

static bool live_sts(void *ctx, struct bh_live_sts *live)
{
    const struct bh_control_reply *reply = ctx;
    const struct snapshot *s = reply->snapshot;
    if (s == NULL || s->sts_origin == NULL) {
        return false;
    }
    *live = (struct bh_live_sts){.origin = bh_slice_str(s->sts_origin),
                                 .announced = bh_slice_str(s->sts_announced),
                                 .trouble = bh_slice_str(s->sts_trouble)};
    return true;
}

static void view_row(void *ctx, struct bh_slice object)
{
    reply_row(ctx, object);
}

static enum bh_status run_view(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    const struct bh_view_sink sink = {.row = view_row, .ctx = reply};
    (void)q;
    const enum bh_status status = bh_view_step(reply->view, txn, &sink);
    reply->more = status == BH_MORE;
    return status >= 0 ? BH_OK : status;
}

static void view_stepped(struct daemon_call *call, struct daemon *d);

static void view_written(struct bh_control_reply *reply)
{
    if (reply->conn == NULL) {
        reply_end(reply, BH_LIT("{}")); /* nobody reads on */
        return;
    }
    reply_read(reply, run_view, view_stepped);
}

static void view_stepped(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        const struct bh_control_error *error = bh_view_error(reply->view);
        if (error != NULL && error->what[0] != '\0') {
            reply_error(reply, error->what, error->hint);
        } else {
            fail(reply, bh_control_verb_name(reply->request.verb));
        }
        return;
    }
    if (reply->more) {
        reply_flush(reply, view_written);
        return;
    }
    reply_end(reply, bh_view_end(reply->view));
}

static void view_begin(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    struct bh_control_error error;
    if (reply->snapshot != NULL) {
        reply->snapshot->engine.intake_paused = d->paused;
        reply->snapshot->engine.started_unix_ms = d->started_unix_ms;
        reply->snapshot->engine.sessions_in = bh_intake_shared_sessions(d->intake_shared);
    }
    const struct bh_config *config = config_cell_get(&d->cell);
    const struct bh_view_options options = {.config = config,
                                            .live = {.ctx = reply,
                                                     .engine = live_engine,
                                                     .destination = live_destination,
                                                     .host = live_host,
                                                     .sts = live_sts},
                                            .now_unix_ms = reply->now.unix_ms};
    const enum bh_status status = bh_view_create(&reply->request, &options, &reply->view, &error);
    bh_config_unref(config);
    if (status != BH_OK) {
        reply_error(reply, status == BH_EINVAL ? error.what : "no memory",
                    status == BH_EINVAL ? error.hint : "");
        return;
    }
    reply_read(reply, run_view, view_stepped);
}

static void op_view(void *ctx, const struct bh_control_request *request,
                    struct bh_control_reply *reply)
{
    (void)ctx;
    (void)request;
    control_snapshot(reply, view_begin);
}

/* ---- selections ---- */

/* Whole destinations are meant, not single messages. */
static bool means_destinations(const struct bh_selection *s)
{
    return s->id_count == 0 && s->sender.len == 0 && s->recipient.len == 0 &&
           s->arrived_from_unix_ms == INT64_MIN && s->arrived_to_unix_ms == INT64_MAX &&
           s->states == 0;
}

static void counted(struct bh_control_reply *reply)
{
    if (reply->status != BH_OK) {
        fail(reply, "counting");
        return;
    }
    if (reply->hold && !reply->request.dry_run) { /* by their destination's hold */
        reply->acted = reply->matched - reply->in_flight;
    }
    end_counts(reply);
}

/* ---- whole destinations: flush, hold, release ---- */

static enum bh_status change_one(struct bh_control_reply *reply, struct bh_queue *q,
                                 struct bh_kv_txn *txn, const struct bh_destination *record)
{
    struct bh_destination_change change = {0};
    if (reply->request.verb == BH_VERB_FLUSH) {
        change.set = BH_SET_FLUSH | BH_SET_BACKOFF | BH_CLEAR_PARK;
    } else if (reply->hold) {
        change.set = BH_SET_HOLD;
        change.hold_reason = reply->request.reason;
        change.hold_by = bh_slice_str(reply->asker);
        change.hold_until_unix_ms =
            reply->request.until_unix_ms > 0 ? reply->request.until_unix_ms : BH_QUEUE_NEVER;
    } else {
        change.set = BH_CLEAR_HOLD;
    }
    const enum bh_status status =
        bh_queue_destination_update(q, txn, record->id, &change, reply->now);
    if (status == BH_OK) {
        reply->ids[reply->id_count++] = record->id;
        if (record->held && change.set == BH_CLEAR_HOLD) {
            /* Those that are held themselves are counted by the job that releases them. */
            reply->freed += bh_destination_entries(record) - record->count[BH_ENTRY_HELD].entries;
        }
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status run_destinations(struct bh_store_task *task, struct bh_queue *q,
                                       struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_destination record;
    enum bh_status status = BH_OK;
    uint32_t after = reply->after; /* a run may be repeated */
    uint64_t looked = 0;
    reply->id_count = 0;
    reply->freed = 0;
    reply->more = false;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    while (status == BH_OK) {
        bh_arena_reset(&arena);
        /* Of one domain there are few, whatever the queue holds. */
        status =
            reply->selection.domain.len > 0
                ? bh_queue_next_destination_of(txn, reply->selection.domain, after, &arena, &record)
                : bh_queue_next_destination(txn, after, &arena, &record);
        if (status != BH_OK) {
            break;
        }
        after = record.id;
        if (bh_selection_matches_destination(&reply->selection, record.domain, record.connector)) {
            status = change_one(reply, q, txn, &record);
        }
        if (++looked >= DESTS_ROWS || reply->id_count == BH_COUNT(reply->ids)) {
            reply->more = true;
            break;
        }
    }
    bh_arena_fini(&arena);
    reply->job = after; /* becomes `after` once this is committed */
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void destinations_told(struct daemon_call *call, struct daemon *d);
static void start_job(struct bh_control_reply *reply);

static void destinations_written(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        fail(reply, bh_control_verb_name(reply->request.verb));
        return;
    }
    reply->after = (uint32_t)reply->job;
    reply->destinations += reply->id_count;
    reply->freed_all += reply->freed;
    control_tell(reply,
                 reply->request.verb == BH_VERB_FLUSH ? CONTROL_FLUSHED
                 : reply->hold                        ? CONTROL_HELD
                                                      : CONTROL_RELEASED,
                 destinations_told);
}

static void destinations_told(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->more) {
        reply_write(reply, run_destinations, destinations_written);
        return;
    }
    if (reply->request.verb == BH_VERB_FLUSH) {
        end_counts(reply);
    } else if (reply->hold && reply->request.until_unix_ms > 0) {
        /* It ends by itself with the destination's hold: its messages are only counted. */
        control_count(reply, counted);
    } else {
        /* From here on nothing leaves; the messages follow one by one, so that each shows its hold
         * and can be released alone. */
        start_job(reply);
    }
}

/* ---- bulk jobs ---- */

static enum bh_job_verb job_verb(enum bh_control_verb verb)
{
    switch ((int)verb) {
    case BH_VERB_HOLD:
        return BH_JOB_HOLD;
    case BH_VERB_RELEASE:
        return BH_JOB_RELEASE;
    case BH_VERB_CANCEL:
        return BH_JOB_CANCEL;
    case BH_VERB_BOUNCE:
        return BH_JOB_BOUNCE;
    default:
        return BH_JOB_REQUEUE;
    }
}

static enum bh_status run_create(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    const struct bh_job job = {.verb = job_verb(reply->request.verb),
                               .selection = reply->selection,
                               .reason = reply->request.reason,
                               .by = bh_slice_str(reply->asker)};
    return bh_queue_job_create(q, txn, &job, reply->now, &reply->job);
}

static void tell_acted(void *ctx, const struct bh_job *job, const struct bh_entry *entry)
{
    struct bh_control_reply *reply = ctx;
    struct event event;
    event_begin(&event, reply->now.unix_ms, "operator");
    event_id(&event, entry->key.id);
    bh_json_key(&event.json, "verb");
    bh_json_cstr(&event.json, bh_job_verb_name(job->verb));
    bh_json_key(&event.json, "by");
    bh_json_str(&event.json, job->by);
    bh_json_key(&event.json, "reason");
    bh_json_str(&event.json, job->reason);
    bh_json_key(&event.json, "recipients");
    bh_json_u64(&event.json, entry->recipient_count);
    event_end(reply->server->daemon->events, &event);
}

/* What is with a session is left alone now; the engine carries the job out when it is back. */
static bool is_leased(void *ctx, struct bh_queue_key key)
{
    const struct bh_control_reply *reply = ctx;
    return leased_pass(&reply->server->daemon->leased, key, reply->job);
}

static enum bh_status run_slice(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_job job;
    const struct bh_job_slice slice = {
        .job = reply->job,
        .rows_max = JOB_ROWS,
        .in_flight = is_leased,
        .acted = tell_acted,
        .ctx = reply,
        .outcome = {.stage = BH_STAGE_NONE,
                    .happened = BH_HAPPENED_OPERATOR,
                    .text = reply->request.reason.len > 0
                                ? reply->request.reason
                                : BH_LIT("returned by the mail system's operator")}};
    const struct bh_queue_notifier *notifier = notifier_begin(&reply->notifier, reply->now);
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_job_slice(q, txn, &slice, notifier, &arena, &job);
    reply->more = status == BH_MORE;
    if (status >= 0) {
        reply->matched = job.matched;
        reply->acted = job.acted;
        reply->in_flight = job.in_flight;
    }
    if (status == BH_OK && leased_unfollowed(&reply->server->daemon->leased) == 0) {
        status = bh_queue_job_remove(q, txn, reply->job); /* else when the last one is back */
    }
    bh_arena_fini(&arena);
    return status >= 0 ? BH_OK : status;
}

static void job_told(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    end_counts(reply);
}

/* ---- single messages that are to be tried now: their destinations may be waiting ---- */

static void awaken(struct bh_control_reply *reply);

static enum bh_status run_awaken(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    const struct bh_destination_change change = {.set = BH_SET_BACKOFF | BH_CLEAR_PARK};
    for (size_t i = 0; i < reply->id_count; i++) {
        const enum bh_status status =
            bh_queue_destination_update(q, txn, reply->ids[i], &change, reply->now);
        if (status != BH_OK && status != BH_ENOTFOUND) {
            return status;
        }
    }
    return BH_OK;
}

static void awakened_told(struct daemon_call *call, struct daemon *d)
{
    (void)d;
    awaken(reply_of(call));
}

static void awakened(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        fail(reply, "flush");
        return;
    }
    control_tell(reply, CONTROL_FLUSHED, awakened_told);
}

static void awaken(struct bh_control_reply *reply)
{
    control_count_take(reply);
    if (reply->id_count == 0) {
        end_counts(reply);
    } else {
        reply_write(reply, run_awaken, awakened);
    }
}

static void job_sliced(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    if (reply->status == BH_ENOTFOUND) {
        end_counts(reply);
        return;
    }
    if (reply->status != BH_OK) {
        fail(reply, "bulk job");
        return;
    }
    for (const struct notify_made *made = reply->notifier.made; made != NULL; made = made->next) {
        const struct bh_queue_group group = {.domain = made->domain, .connector = made->connector};
        engine_note_put(d->engine, made->id, made->size, false, made->parts, made->part_count,
                        &group);
    }
    if (reply->more) {
        reply_write(reply, run_slice, job_sliced);
        return;
    }
    bh_log(BH_LOG_INFO, "evt=job_done job=%llu matched=%llu acted=%llu in_flight=%llu",
           (unsigned long long)reply->job, (unsigned long long)reply->matched,
           (unsigned long long)reply->acted, (unsigned long long)reply->in_flight);
    if (reply->has_request && reply->request.verb == BH_VERB_FLUSH) {
        awaken(reply);
        return;
    }
    reply->id_count = 0;
    control_tell(reply, CONTROL_RELEASED, job_told); /* a look at the wake rows */
}

static void run_job(struct bh_control_reply *reply)
{
    notifier_init(&reply->notifier, &reply->server->daemon->cell);
    reply->has_notifier = true;
    reply_write(reply, run_slice, job_sliced);
}

static void job_created(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    if (reply->status != BH_OK) {
        fail(reply, bh_control_verb_name(reply->request.verb));
        return;
    }
    /* A lease that was read before this commit has not met the job's filter: it is read again. */
    atomic_fetch_add(&d->leased.jobs, 1);
    run_job(reply);
}

static void start_job(struct bh_control_reply *reply)
{
    reply_write(reply, run_create, job_created);
}

static void op_bulk(void *ctx, const struct bh_control_request *request,
                    struct bh_control_reply *reply)
{
    (void)ctx;
    control_know_asker(reply);
    reply->selection = request->selection;
    const bool hold_or_release = request->verb == BH_VERB_HOLD || request->verb == BH_VERB_RELEASE;
    if (request->dry_run) {
        control_count(reply, counted);
    } else if (hold_or_release && means_destinations(&reply->selection)) {
        reply->hold = request->verb == BH_VERB_HOLD;
        reply_write(reply, run_destinations, destinations_written);
    } else if (request->verb == BH_VERB_HOLD && request->until_unix_ms > 0) {
        reply_error(reply, "--until holds whole destinations",
                    "give --destination or --connector alone, or leave --until out");
    } else {
        start_job(reply);
    }
}

static void flush_counted(struct bh_control_reply *reply)
{
    if (reply->status != BH_OK) {
        fail(reply, "flush");
        return;
    }
    /* The job counts what it acts on; destinations are told where they are meant as a whole. */
    reply->matched = reply->in_flight = reply->destinations = 0;
    start_job(reply);
}

static void op_flush(void *ctx, const struct bh_control_request *request,
                     struct bh_control_reply *reply)
{
    (void)ctx;
    control_know_asker(reply);
    reply->selection = request->selection;
    if (request->dry_run) {
        control_count(reply, counted);
    } else if (means_destinations(&reply->selection)) {
        reply_write(reply, run_destinations, destinations_written);
    } else {
        control_count(reply, flush_counted); /* single messages: requeued, due at once */
    }
}

/* ---- the rest ---- */

static enum bh_status run_jobs(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_job job = {0};
    enum bh_status status = BH_OK;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (uint64_t after = 0; status == BH_OK; after = job.id) {
        bh_arena_reset(&arena);
        status = bh_queue_job_next(txn, after, &arena, &job);
        if (status == BH_OK) {
            char text[1024];
            struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
            bh_json_begin_object(&json);
            bh_json_key(&json, "job");
            bh_json_u64(&json, job.id);
            bh_json_key(&json, "verb");
            bh_json_cstr(&json, bh_job_verb_name(job.verb));
            bh_json_key(&json, "reason");
            bh_json_str(&json, job.reason);
            bh_json_key(&json, "created_unix_ms");
            bh_json_i64(&json, job.created_unix_ms);
            bh_json_key(&json, "matched");
            bh_json_u64(&json, job.matched);
            bh_json_key(&json, "acted");
            bh_json_u64(&json, job.acted);
            bh_json_key(&json, "in_flight");
            bh_json_u64(&json, job.in_flight);
            bh_json_end_object(&json);
            reply_row(reply, bh_buf_slice(&json.buf));
        }
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void jobs_read(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        fail(reply, "jobs");
    } else {
        reply_end(reply, BH_LIT("{}"));
    }
}

static void op_jobs(void *ctx, struct bh_control_reply *reply)
{
    (void)ctx;
    reply_read(reply, run_jobs, jobs_read);
}

const struct bh_control_ops control_ops = {.view = op_view,
                                           .flush = op_flush,
                                           .bulk = op_bulk,
                                           .intake = control_op_intake,
                                           .reload = control_op_reload,
                                           .jobs = op_jobs,
                                           .probe = control_op_probe};

/* ---- jobs of an earlier process ---- */

static enum bh_status run_first_job(struct bh_store_task *task, struct bh_queue *q,
                                    struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_job job;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    const enum bh_status status = bh_queue_job_next(txn, reply->job, &arena, &job);
    if (status == BH_OK) {
        reply->job = job.id;
    }
    bh_arena_fini(&arena);
    return status;
}

static void first_job_found(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        reply_end(reply, BH_LIT("{}")); /* none left */
        return;
    }
    struct bh_control_reply *next = reply_create(reply->server, NULL);
    if (next != NULL) {
        next->job = reply->job;
        reply_read(next, run_first_job, first_job_found);
    }
    run_job(reply);
}

void control_resume_jobs(struct control_server *server)
{
    struct bh_control_reply *reply = reply_create(server, NULL);
    if (reply != NULL) {
        reply_read(reply, run_first_job, first_job_found);
    }
}
