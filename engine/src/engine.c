#include "engine_internal.h"
#include "probe.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "bh/assert.h"

/* ---- time ---- */

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct bh_now engine_clock(const struct engine *e)
{
    return (struct bh_now){.mono_ms = uv_now(&e->loop), .unix_ms = wall_ms()};
}

struct bh_now engine_now(struct engine *e)
{
    struct bh_now now = engine_clock(e);
    const int64_t known = (int64_t)now.mono_ms + e->clock_offset_ms;
    if (e->clock_begun &&
        (now.unix_ms - known > CLOCK_STEP_MS || known - now.unix_ms > CLOCK_STEP_MS)) {
        now.unix_ms = known;
    }
    return now;
}

/* ---- actions ---- */

static void back_off(struct engine *e, const struct bh_sched_action *action, bool park)
{
    const struct dest_info *d = edest_get(e, action->destination);
    struct bh_sched_dest_info info;
    /* It may have left memory meanwhile, and its words with it: it backs off all the same. */
    struct bh_outcome said = {.stage = BH_STAGE_NONE};
    const bool known = bh_sched_info(e->sched, action->destination, &info) && info.said != NULL;
    if (known) {
        said = info.said->outcome;
    }
    struct dest_info *carried = edest_get(e, action->destination);
    if (elift_is(action->destination)) {
        return; /* its destination's own rounds are those that the store knows of */
    }
    if (!park && carried != NULL && action->young && carried->failover.over) {
        return; /* its record keeps the back-off of the first choice */
    }
    if (!park && carried != NULL && !action->young && efail_backoff(e, carried, action, &said)) {
        return;
    }
    struct bh_destination_change change = {.set = BH_SET_BACKOFF | (known ? BH_SET_LAST : 0),
                                           /* 0 means in the store: not backing off */
                                           .backoff_stage = action->stage + 1,
                                           .glitches = action->glitches,
                                           .next_event_unix_ms = action->until_unix_ms,
                                           .last = said};
    if (d != NULL && d->last_tls[0] != '\0') {
        change.set |= BH_SET_TLS;
        change.last_tls = bh_slice_str(d->last_tls);
    }
    if (park) {
        change.set |= BH_SET_PARK;
        change.park_reason =
            said.text.len > 0 ? said.text : bh_slice_str(bh_happened_name(said.happened));
    } else {
        change.set |= BH_CLEAR_PARK; /* by their fault now: its time goes on */
    }
    edest_update(e, action->destination, &change);
    if (!park && carried != NULL && !action->young) {
        elift_round_failed(e, carried);
        eunmet_round_failed(e, carried);
    }

    char text[BH_LOG_QUOTE_MAX];
    if (d == NULL) {
        return;
    }
    bh_log(park ? BH_LOG_WARN : BH_LOG_INFO,
           "evt=%s domain=%.*s connector=%.*s stage=%u glitches=%u next_s=%lld happened=%s text=%s",
           park ? "parked" : "backoff", BH_FMT(d->domain), BH_FMT(d->connector),
           (unsigned)action->stage, (unsigned)action->glitches,
           (long long)(action->until_unix_ms - wall_ms()) / 1000, bh_happened_name(said.happened),
           bh_log_quote(bh_slice_take(said.text, 200), text));
}

static void recovered(struct engine *e, uint32_t destination)
{
    struct dest_info *d = edest_get(e, destination);
    const struct bh_destination_change change = {
        .set = BH_SET_BACKOFF | BH_CLEAR_PARK | BH_SET_SUCCESS, .last_success_unix_ms = wall_ms()};
    if (elift_is(destination)) {
        return; /* what got through says nothing of what is published */
    }
    if (d != NULL) {
        d->failover.failures = 0;
        d->lifting = false;
    }
    if (d != NULL && d->failover.over) {
        bh_log(BH_LOG_INFO, "evt=recovered domain=%.*s connector=%.*s", BH_FMT(d->domain),
               BH_FMT(efail_carrier(d)));
        efail_recovered(e, d);
        return; /* of the alternate: its first choice is still down */
    }
    edest_update(e, destination, &change);
    if (d != NULL) {
        bh_log(BH_LOG_INFO, "evt=recovered domain=%.*s connector=%.*s", BH_FMT(d->domain),
               BH_FMT(d->connector));
    }
}

/* Held rather than bounced (DESIGN 5). It is tried with one message when the hold ends. */
static void broken(struct engine *e, const struct bh_sched_action *action)
{
    struct bh_sched_dest_info info;
    struct dest_info *d = edest_get(e, action->destination);
    char text[BH_QUEUE_REASON_MAX];
    char quoted[BH_LOG_QUOTE_MAX];
    struct bh_slice said = BH_EMPTY;
    if (bh_sched_info(e->sched, action->destination, &info) && info.said != NULL) {
        said = bh_slice_take(info.said->outcome.text, 80);
    }
    snprintf(text, sizeof(text), "breaker: %u of %u messages refused by policy%s%.*s",
             (unsigned)action->count, (unsigned)action->stage, said.len > 0 ? "; " : "",
             BH_FMT(said));
    /* An operator may have held it for longer, while its last messages were refused. */
    const struct bh_destination_change change = {.set = BH_ADD_HOLD,
                                                 .hold_reason = bh_slice_str(text),
                                                 .hold_by = BH_LIT("breaker"),
                                                 .hold_until_unix_ms = action->until_unix_ms};
    edest_update(e, action->destination, &change);
    if (d == NULL) {
        return;
    }
    bh_log(BH_LOG_ERROR, "evt=breaker_open domain=%.*s connector=%.*s refused=%u of=%u text=%s",
           BH_FMT(d->domain), BH_FMT(efail_carrier(d)), (unsigned)action->count,
           (unsigned)action->stage, bh_log_quote(said, quoted));
    struct event event;
    event_begin(&event, wall_ms(), "breaker_open");
    bh_json_key(&event.json, "domain");
    bh_json_str(&event.json, d->domain);
    bh_json_key(&event.json, "connector");
    bh_json_str(&event.json, efail_carrier(d));
    bh_json_key(&event.json, "reason");
    bh_json_cstr(&event.json, text);
    bh_json_key(&event.json, "until");
    bh_json_i64(&event.json, action->until_unix_ms);
    event_end(e->options.events, &event);
}

static void failed_round(struct engine *e, uint32_t destination)
{
    struct bh_sched_dest_info info;
    const struct bh_outcome *said = NULL;
    /* By an answer of DNS or a timer this may be the first to see that the clock stepped. */
    eclock_watch(e);
    struct dest_info *d = edest_get(e, destination);
    if (elift_is(destination)) {
        return;
    }
    if (d != NULL && d->failover.told) {
        d->failover.told = false; /* another connector carries its mail: nothing has failed yet */
        return;
    }
    if (bh_sched_info(e->sched, destination, &info) && info.said != NULL) {
        said = &info.said->outcome;
    }
    /* Whose fault it was decides: an unknown one backs off, but ends nothing (promise 1). */
    if (said == NULL || bh_outcome_policy(said).fault == BH_FAULT_THEIRS) {
        age_pass(e, destination, true, said);
    }
}

/* What begins something new; an engine that ends leaves it to the next one. The scheduler goes on
 * believing that it is under way. */
static bool begins(enum bh_sched_action_kind kind)
{
    return kind == BH_SCHED_RESOLVE || kind == BH_SCHED_REFILL || kind == BH_SCHED_OPEN ||
           kind == BH_SCHED_LEASE || kind == BH_SCHED_DEMOTE;
}

static void act(struct engine *e, const struct bh_sched_action *action)
{
    if (e->draining && begins(action->kind)) {
        if (action->kind == BH_SCHED_LEASE) {
            for (uint32_t i = action->count; i > 0; i--) {
                bh_sched_item_returned(e->sched, action->items[i - 1], engine_now(e));
            }
        }
        return;
    }
    if (e->drained) {
        return; /* look-ups that are cut off: nobody waits for what the store would say any more */
    }
    switch (action->kind) {
    case BH_SCHED_RESOLVE:
        edest_resolve(e, action->destination);
        break;
    case BH_SCHED_REFILL:
        edest_refill(e, action->destination, action->count);
        break;
    case BH_SCHED_OPEN:
        outgoing_open(e, action);
        break;
    case BH_SCHED_LEASE:
        outgoing_lease(e, action);
        break;
    case BH_SCHED_CLOSE:
        outgoing_close(e, action->session);
        break;
    case BH_SCHED_DEMOTE:
        settle_demote(e, &action->item);
        break;
    case BH_SCHED_BACKOFF:
        back_off(e, action, false);
        break;
    case BH_SCHED_PARK:
        back_off(e, action, true);
        break;
    case BH_SCHED_RECOVERED:
        recovered(e, action->destination);
        break;
    case BH_SCHED_BREAK:
        broken(e, action);
        break;
    case BH_SCHED_FAILED_ROUND:
        failed_round(e, action->destination);
        break;
    case BH_SCHED_FORGET: {
        struct dest_info *d = edest_get(e, action->destination);
        if (d != NULL && !bh_sched_has(e->sched, action->destination)) {
            edest_drop(e, d);
        }
        break;
    }
    }
}

static void maybe_drained(struct engine *e)
{
    if (e->draining && !e->drained && e->sessions.count == 0 && e->leases == 0 &&
        e->settling == 0 && e->pending == 0 && e->failed == NULL && e->batch == NULL &&
        e->unjudged == NULL && e->unbatched == NULL && e->unfollowed == NULL) {
        e->drained = true;
        e->options.drained(e->options.ctx);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct engine *e = timer->data;
    eclock_watch(e);
    bh_sched_tick(e->sched, engine_now(e));
    engine_pump(e);
}

void engine_act(struct engine *e)
{
    struct bh_sched_action action;
    do {
        while (bh_sched_next(e->sched, &action)) {
            act(e, &action);
        }
    } while (outgoing_load(e)); /* what could not be loaded makes new actions */
}

void engine_pump(struct engine *e)
{
    engine_act(e);
    settle_flush(e);
    const uint64_t deadline = bh_sched_deadline_ms(e->sched);
    if (deadline == UINT64_MAX || e->draining) {
        uv_timer_stop(&e->timer);
    } else {
        const uint64_t now = uv_now(&e->loop);
        uv_timer_start(&e->timer, on_timer, deadline > now ? deadline - now : 0, 0);
    }
    maybe_drained(e);
}

/* ---- letters ---- */

static void handle(struct engine *e, struct bh_letter *letter)
{
    switch ((enum engine_letter)letter->kind) {
    case ENGINE_PUT:
        edest_on_put(e, BH_CONTAINER(letter, struct put_note, letter));
        break;
    case ENGINE_DESTS:
        edest_on_found(e, letter);
        break;
    case ENGINE_REFILLED:
        edest_on_refilled(e, letter);
        break;
    case ENGINE_LEASE_LOADED:
        outgoing_on_loaded(e, BH_CONTAINER(letter, struct lease, letter));
        break;
    case ENGINE_READY:
        outgoing_on_ready(e, BH_CONTAINER(letter, struct worker_session, ready));
        break;
    case ENGINE_ITEM:
        outgoing_on_item(e, BH_CONTAINER(letter, struct lease_item, letter));
        break;
    case ENGINE_IDLE:
        outgoing_on_idle(e, BH_CONTAINER(letter, struct worker_session, idle));
        break;
    case ENGINE_CLOSED:
        outgoing_on_closed(e, BH_CONTAINER(letter, struct worker_session, closed));
        break;
    case ENGINE_SETTLED:
        settle_on_done(e, BH_CONTAINER(letter, struct settle_batch, letter));
        break;
    case ENGINE_UPDATED:
        edest_on_updated(e, letter);
        break;
    case ENGINE_PASSED:
        age_on_passed(e, letter);
        break;
    case ENGINE_CALL: {
        struct engine_call *call = BH_CONTAINER(letter, struct engine_call, letter);
        call->run(call, e);
        break;
    }
    }
}

static void on_doorbell(uv_async_t *async)
{
    struct engine *e = async->data;
    uv_update_time(&e->loop);
    eclock_watch(e);
    for (struct bh_letter *letter = bh_mailbox_take_all(e->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        handle(e, letter);
        letter = next;
    }
    engine_pump(e);
}

static void on_wake_timer(uv_timer_t *timer)
{
    struct engine *e = timer->data;
    eclock_watch(e);
    settle_retry(e);
    follow_retry(e);
    outgoing_retry_unjudged(e);
    if (!e->draining) {
        if (atomic_exchange(&e->lost_notes, false)) {
            edest_scan_fresh(e);
        }
        edest_scan_wake(e);
        etrust_tick(e);
        eexception_tick(e);
        efail_tick(e);
        edest_watch_windows(e);
        esweep_tick(e);
        eredate_tick(e);
    }
    engine_pump(e);
}

static void ring(void *ctx)
{
    uv_async_send(ctx);
}

struct bh_mailbox *engine_mailbox(struct engine *engine)
{
    return engine->box;
}

void engine_call(struct engine *engine, struct engine_call *call)
{
    call->letter.kind = ENGINE_CALL;
    bh_mailbox_post_always(engine->box, &call->letter);
}

/* ---- notes of new mail ---- */

static struct put_note *make_note(uint64_t id, uint64_t size, const struct bh_queue_part *parts,
                                  size_t count, const struct bh_queue_group *groups)
{
    size_t names = 0;
    for (size_t i = 0; i < count; i++) {
        const struct bh_queue_group *g = &groups[parts[i].group];
        names += g->domain.len + g->connector.len;
    }
    const size_t bytes = sizeof(struct put_note) + count * sizeof(struct put_part) + names;
    struct put_note *note = malloc(bytes);
    if (note == NULL) {
        return NULL;
    }
    note->letter = (struct bh_letter){.kind = ENGINE_PUT, .bytes = bytes};
    note->id = id;
    note->size = size;
    note->tls_optional = false;
    note->count = count;
    struct bh_buf text = bh_buf(&note->parts[count], names);
    for (size_t i = 0; i < count; i++) {
        const struct bh_queue_group *g = &groups[parts[i].group];
        note->parts[i] = (struct put_part){
            .destination = parts[i].destination,
            .part = parts[i].part,
            .recipients = parts[i].recipients,
            .lane = parts[i].lane,
            .domain = bh_slice(text.ptr + text.len, g->domain.len),
            .connector = bh_slice(text.ptr + text.len + g->domain.len, g->connector.len)};
        bh_buf_put(&text, g->domain);
        bh_buf_put(&text, g->connector);
    }
    return note;
}

void engine_note_put(struct engine *engine, uint64_t id, uint64_t size, bool tls_optional,
                     const struct bh_queue_part *parts, size_t count,
                     const struct bh_queue_group *groups)
{
    struct put_note *note = make_note(id, size, parts, count, groups);
    if (note != NULL) {
        note->tls_optional = tls_optional;
    }
    if (note == NULL || bh_mailbox_post(engine->box, &note->letter) != BH_OK) {
        free(note);
        atomic_store(&engine->lost_notes, true); /* the store is the truth: it is read instead */
    }
}

void engine_note_made(struct engine *e, const struct notify_made *made)
{
    const struct bh_queue_group group = {.domain = made->domain, .connector = made->connector};
    engine_note_put(e, made->id, made->size, false, made->parts, made->part_count, &group);
}

/* ---- resolvers ---- */

static uint64_t hash_resolver(const struct bh_resolver_policy *p)
{
    uint64_t h = p->timeout_ms * 31 + p->attempts * 7 + p->min_ttl_ms * 3 + p->max_ttl_ms +
                 p->negative_ttl_ms * 5 + (p->trusted ? 1 : 0);
    for (size_t i = 0; i < p->servers.count; i++) {
        h = bh_hash(bh_slice(p->servers.at[i].ip.bytes, sizeof(p->servers.at[i].ip.bytes)),
                    h + p->servers.at[i].port + p->servers.at[i].ip.family);
    }
    for (size_t i = 0; p->trusted && i < p->self_test.count; i++) {
        h = bh_hash(p->self_test.at[i], h + 1);
    }
    return h;
}

static enum bh_status make_resolver(struct engine *e, const struct bh_resolver_policy *p,
                                    struct bh_resolver **resolver)
{
    struct bh_resolver_config config = bh_resolver_defaults();
    struct bh_slice servers[8];
    char texts[8][BH_IP_TEXT_MAX + 16];
    size_t count = 0;
    for (size_t i = 0; i < p->servers.count && count < BH_COUNT(servers); i++) {
        char ip[BH_IP_TEXT_MAX];
        const struct bh_server_addr *s = &p->servers.at[i];
        snprintf(texts[count], sizeof(texts[count]), s->ip.family == 6 ? "[%s]:%u" : "%s:%u",
                 bh_ip_text(&s->ip, ip), s->port > 0 ? s->port : 53u);
        servers[count] = bh_slice_str(texts[count]);
        count++;
    }
    config.servers = servers;
    config.servers_len = count;
    config.timeout_ms = (uint32_t)p->timeout_ms;
    config.rounds = count > 1 ? (p->attempts + (uint32_t)count - 1) / (uint32_t)count : p->attempts;
    config.trusted = p->trusted;
    config.cache.ttl_min_s = (uint32_t)(p->min_ttl_ms / 1000);
    config.cache.ttl_max_s = (uint32_t)(p->max_ttl_ms / 1000);
    config.cache.negative_ttl_max_s = (uint32_t)(p->negative_ttl_ms / 1000);
    return bh_resolver_create(&e->loop, &config, resolver);
}

/* NULL where one can't be made. */
static struct resolver_slot *slot_of(struct engine *e, const struct bh_resolver_policy *policy)
{
    const uint64_t hash = hash_resolver(policy);
    for (uint32_t i = 0; i < e->resolver_count; i++) {
        if (e->resolvers[i].hash == hash) {
            return &e->resolvers[i];
        }
    }
    if (e->resolver_count < RESOLVERS_MAX) {
        struct resolver_slot *slot = &e->resolvers[e->resolver_count];
        if (make_resolver(e, policy, &slot->resolver) == BH_OK) {
            slot->hash = hash;
            if (etrust_init(e, slot, policy) == BH_OK) {
                e->resolver_count++;
                return slot;
            }
            bh_resolver_destroy(slot->resolver, NULL, NULL);
        }
    }
    return NULL;
}

struct resolver_slot *engine_resolver(struct engine *e, const struct bh_connector *connector)
{
    struct resolver_slot *slot = slot_of(e, &connector->resolver);
    if (slot == NULL) {
        bh_log(BH_LOG_ERROR, "evt=resolver_failed connector=%.*s using=global",
               BH_FMT(connector->name));
        slot = &e->resolvers[0];
    }
    return slot;
}

struct bh_resolver *engine_global_resolver(struct engine *e)
{
    struct resolver_slot *slot = slot_of(e, &e->config->resolver);
    return slot != NULL ? slot->resolver : e->resolvers[0].resolver;
}

/* ---- life ---- */

enum bh_status engine_create(const struct engine_options *options, struct engine **result)
{
    struct engine *e = calloc(1, sizeof(*e));
    uint64_t seed = 0;
    if (e == NULL || getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        free(e);
        return BH_ENOMEM;
    }
    e->options = *options;
    e->config = config_cell_get(options->cell);
    e->windows_unix_ms = INT64_MAX;
    bh_rng_seed(&e->rng, seed);
    const struct bh_sched_params params = {.sessions_max = e->config->engine.connections,
                                           .lease_bytes_max = LEASE_BYTES_TOTAL,
                                           .seed = seed + 1};
    e->sched = bh_sched_create(&params);
    if (e->sched == NULL || uv_loop_init(&e->loop) != 0 ||
        uv_async_init(&e->loop, &e->doorbell, on_doorbell) != 0) {
        bh_sched_destroy(e->sched);
        bh_config_unref(e->config);
        free(e);
        return BH_ENOMEM;
    }
    uv_timer_init(&e->loop, &e->timer);
    uv_timer_init(&e->loop, &e->wake_timer);
    e->doorbell.data = e;
    e->timer.data = e;
    e->wake_timer.data = e;
    e->box = bh_mailbox_create(LETTERS_MAX, LETTERS_BYTES_MAX, ring, &e->doorbell);
    *result = e;
    return e->box != NULL ? ests_create(e) : BH_ENOMEM;
}

static void *run(void *arg)
{
    struct engine *e = arg;
    eclock_begin(e);
    etrust_start(e);
    sts_start(e->sts);
    eexception_tell(e);
    edest_scan_fresh(e);
    uv_timer_start(&e->wake_timer, on_wake_timer, 0, WAKE_SCAN_MS);
    uv_run(&e->loop, UV_RUN_DEFAULT);
    OPENSSL_thread_stop(); /* as workers do */
    return NULL;
}

enum bh_status engine_start(struct engine *e, struct worker **workers, uint32_t count)
{
    e->options.workers = workers;
    e->options.worker_count = count;
    const enum bh_status status = make_resolver(e, &e->config->resolver, &e->resolvers[0].resolver);
    if (status != BH_OK) {
        return status;
    }
    e->resolvers[0].hash = hash_resolver(&e->config->resolver);
    if (etrust_init(e, &e->resolvers[0], &e->config->resolver) != BH_OK) {
        return BH_ENOMEM;
    }
    e->resolver_count = 1;
    if (pthread_create(&e->thread, NULL, run, e) != 0) {
        return BH_EIO;
    }
    e->started = true;
    return BH_OK;
}

struct drain_call {
    struct engine_call call;
};

static void run_drain(struct engine_call *call, struct engine *e)
{
    free(BH_CONTAINER(call, struct drain_call, call));
    e->draining = true;
    eprobe_drain(e);
    sts_drain(e->sts);
    outgoing_close_all(e);
}

void engine_drain(struct engine *engine)
{
    struct drain_call *drain = calloc(1, sizeof(*drain));
    BH_ASSERT(drain != NULL);
    drain->call.run = run_drain;
    engine_call(engine, &drain->call);
}

static void run_hurry(struct engine_call *call, struct engine *e)
{
    free(BH_CONTAINER(call, struct drain_call, call));
    settle_hurry(e);
}

void engine_hurry(struct engine *engine)
{
    struct drain_call *hurry = calloc(1, sizeof(*hurry));
    if (hurry != NULL) {
        hurry->call.run = run_hurry;
        engine_call(engine, &hurry->call);
    }
}

static void run_end(struct engine_call *call, struct engine *e)
{
    free(BH_CONTAINER(call, struct drain_call, call));
    sts_stop(e->sts);
    for (uint32_t i = 0; i < e->resolver_count; i++) {
        bh_resolver_destroy(e->resolvers[i].resolver, NULL, NULL);
        etrust_fini(&e->resolvers[i]);
    }
    uv_close((uv_handle_t *)&e->timer, NULL);
    uv_close((uv_handle_t *)&e->wake_timer, NULL);
    uv_close((uv_handle_t *)&e->doorbell, NULL);
    e->resolver_count = 0;
}

void engine_join(struct engine *e)
{
    if (e->started) {
        struct drain_call *end = calloc(1, sizeof(*end));
        BH_ASSERT(end != NULL);
        end->call.run = run_end;
        engine_call(e, &end->call);
        pthread_join(e->thread, NULL);
    }
    for (struct bh_letter *letter = bh_mailbox_take_all(e->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        if (letter->kind == ENGINE_PUT) {
            free(BH_CONTAINER(letter, struct put_note, letter));
        }
        letter = next;
    }
    uv_loop_close(&e->loop);
    sts_destroy(e->sts);
    struct bh_map_node *node = NULL;
    while ((node = bh_map_next(&e->dests, NULL)) != NULL) {
        struct dest_info *d = BH_CONTAINER(node, struct dest_info, node);
        d->aging = false;
        d->resolving = 0;
        edest_drop(e, d);
    }
    bh_map_fini(&e->dests);
    bh_map_fini(&e->sessions);
    bh_sched_destroy(e->sched);
    bh_mailbox_destroy(e->box);
    bh_config_unref(e->config);
    free(e);
}
