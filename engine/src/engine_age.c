/* Expiry and delay warnings of a destination: passes over its entries, oldest first, in slices of
 * the writer. A pass of expiry follows a round that failed by their fault, so that nothing ends
 * without an attempt after its time (promise 1). */
#include "engine_internal.h"

#include <stdlib.h>

struct age_task {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    uint32_t destination;
    bool expire; /* expiry first, then warnings */
    bool warning;
    struct bh_age_pass pass, next_pass; /* committed; of the slice under way */
    struct bh_now now;
    int64_t expire_ms, expire_null_ms, warn_ms;
    bool told; /* outcome holds what the round came to */
    struct bh_outcome outcome;
    char host[NAME_MAX_OCTETS], text[BH_OUTCOME_TEXT_MAX];
    struct notifier notifier;
    size_t claimed; /* out of the engine's reach until this slice is committed */
    struct bh_queue_key claims[AGE_ROWS_MAX];
    enum bh_status status;
    size_t count;
    struct bh_aged aged[AGE_ROWS_MAX];
};

/* Leased entries are skipped; the others are claimed, since a lease that began before this commit
 * would deliver what has ended. */
static bool is_leased(void *ctx, struct bh_queue_key key)
{
    struct age_task *a = ctx;
    if (a->claimed == AGE_ROWS_MAX ||
        leased_add(a->engine->options.leased, key, LEASED_BY_WRITER) != BH_OK) {
        return true;
    }
    a->claims[a->claimed++] = key;
    return false;
}

static void unclaim(struct age_task *a)
{
    while (a->claimed > 0) {
        leased_remove(a->engine->options.leased, a->claims[--a->claimed]);
    }
}

static enum bh_status run_age(struct bh_store_task *task, struct bh_queue *q, struct bh_kv_txn *txn)
{
    struct age_task *a = BH_CONTAINER(task, struct age_task, task);
    const struct bh_queue_notifier *notifier = notifier_begin(&a->notifier, a->now);
    a->next_pass = a->pass; /* a run may be repeated */
    a->count = 0;
    unclaim(a);
    if (!a->warning) {
        const struct bh_expire expire = {.destination = a->destination,
                                         .expire_ms = a->expire_ms,
                                         .expire_null_ms = a->expire_null_ms,
                                         .outcome = a->outcome,
                                         .in_flight = is_leased,
                                         .ctx = a,
                                         .rows_max = AGE_ROWS_MAX};
        a->status =
            bh_queue_expire_slice(q, txn, &expire, notifier, &a->next_pass, a->aged, &a->count);
    } else {
        const struct bh_warn warn = {.destination = a->destination,
                                     .warn_ms = a->warn_ms,
                                     .outcome = a->outcome,
                                     .in_flight = is_leased,
                                     .ctx = a,
                                     .rows_max = AGE_ROWS_MAX};
        a->status = bh_queue_warn_slice(q, txn, &warn, notifier, &a->next_pass, a->aged, &a->count);
    }
    if (a->status < 0 && a->status != BH_ENOTFOUND) {
        return a->status;
    }
    return BH_OK;
}

static void done_age(struct bh_store_task *task, enum bh_status status)
{
    struct age_task *a = BH_CONTAINER(task, struct age_task, task);
    unclaim(a);
    if (status != BH_OK) {
        a->status = status;
    } else {
        a->pass = a->next_pass;
    }
    a->letter.kind = ENGINE_PASSED;
    bh_mailbox_post_always(a->engine->box, &a->letter);
}

static void post(struct engine *e, struct age_task *a)
{
    a->now = engine_now(e);
    a->task = (struct bh_store_task){.run = run_age,
                                     .done = done_age,
                                     .dirty_bytes = AGE_ROWS_MAX * 8192,
                                     .removal = true,
                                     .atomic = true};
    e->pending++;
    bh_store_write_always(e->options.store, &a->task);
}

void age_pass(struct engine *e, uint32_t destination, bool expire, const struct bh_outcome *outcome)
{
    struct dest_info *d = edest_get(e, destination);
    if (d == NULL || d->aging || e->draining) {
        if (d != NULL) {
            d->age_again = d->age_again || expire;
        }
        return;
    }
    struct age_task *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return; /* the next failed round brings the next pass */
    }
    a->engine = e;
    a->destination = destination;
    a->expire = expire && !e->expiry_suspended;
    a->warning = !a->expire;
    a->expire_ms = d->policy.retry.expire_ms;
    a->expire_null_ms = d->policy.retry.expire_bounces_ms;
    a->warn_ms = d->policy.retry.warn_ms;
    if (outcome != NULL) {
        struct bh_buf host = bh_buf(a->host, sizeof(a->host));
        struct bh_buf text = bh_buf(a->text, sizeof(a->text));
        a->told = true;
        a->outcome = *outcome;
        bh_buf_add_cut(&host, outcome->host);
        bh_buf_add_cut(&text, outcome->text);
        a->outcome.host = bh_buf_slice(&host);
        a->outcome.text = bh_buf_slice(&text);
    }
    if (a->warning && a->warn_ms <= 0) {
        free(a);
        return;
    }
    notifier_init(&a->notifier, e->options.cell);
    d->aging = true;
    post(e, a);
}

/* Mail of a dead destination has no attempts of its own: the round that ended it is told here. */
static void put_round(struct bh_json *json, const struct age_task *a, const struct dest_info *d)
{
    if (d != NULL) {
        bh_json_key(json, "domain");
        bh_json_str(json, d->domain);
        bh_json_key(json, "connector");
        bh_json_str(json, efail_carrier(d));
    }
    if (a->outcome.host.len > 0) {
        bh_json_key(json, "mx");
        bh_json_str(json, a->outcome.host);
    }
    bh_json_key(json, "stage");
    bh_json_cstr(json, bh_stage_name(a->outcome.stage));
    bh_json_key(json, "happened");
    bh_json_cstr(json, bh_happened_name(a->outcome.happened));
    bh_json_key(json, "code");
    bh_json_u64(json, a->outcome.code);
    bh_json_key(json, "text");
    bh_json_str(json, bh_slice_take(a->outcome.text, 256));
}

static void tell_aged(struct engine *e, const struct age_task *a)
{
    const struct dest_info *d = edest_get(e, a->destination);
    for (size_t i = 0; i < a->count; i++) {
        struct event event;
        char id[BH_QUEUE_ID_TEXT];
        event_begin(&event, engine_now(e).unix_ms, a->warning ? "warned" : "expired");
        event_id(&event, a->aged[i].key.id);
        bh_json_key(&event.json, "recipients");
        bh_json_u64(&event.json, a->aged[i].recipients);
        if (a->told) {
            put_round(&event.json, a, d);
        }
        event_end(e->options.events, &event);
        bh_log(BH_LOG_INFO, "evt=%s msg=%s recipients=%u reported=%s",
               a->warning ? "warned" : "expired", bh_queue_id_text(a->aged[i].key.id, id),
               a->aged[i].recipients, a->aged[i].sender_null ? "no" : "yes");
        e->bounced += a->warning ? 0 : a->aged[i].recipients;
    }
}

void age_on_passed(struct engine *e, struct bh_letter *letter)
{
    struct age_task *a = BH_CONTAINER(letter, struct age_task, letter);
    e->pending--;
    if (a->status >= 0) {
        for (const struct notify_made *made = a->notifier.made; made != NULL; made = made->next) {
            engine_note_made(e, made);
        }
        tell_aged(e, a);
    } else if (a->status != BH_ENOTFOUND) {
        bh_log(BH_LOG_ERROR, "evt=age_pass_failed destination=%u error=\"%s\"",
               (unsigned)a->destination, bh_status_name(a->status));
    }
    if (e->expiry_suspended && !a->warning) {
        a->status = BH_ENOTFOUND; /* the clock stepped: no more ends by age */
    }
    if (a->status == BH_MORE && !e->draining) {
        post(e, a);
        return;
    }
    if (a->status == BH_OK && !a->warning && a->warn_ms > 0 && !e->draining) {
        a->warning = true;
        a->pass = (struct bh_age_pass){0};
        post(e, a);
        return;
    }
    struct dest_info *d = edest_get(e, a->destination);
    const bool again = d != NULL && d->age_again;
    if (d != NULL) {
        d->aging = false;
        d->age_again = false;
        if (d->forget) {
            edest_drop(e, d);
        } else if (again) {
            age_pass(e, a->destination, true, &a->outcome);
        }
    }
    notifier_fini(&a->notifier);
    free(a);
}
