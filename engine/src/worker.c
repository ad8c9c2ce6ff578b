#include "worker.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/inflight.h"
#include "bh/log.h"
#include "judge.h"
#include "probe.h"

#define RESUME_MAX 4096 /* TLS sessions kept for resumption, a worker */
#ifndef FILES_MS        /* a test's variant looks more often */
#define FILES_MS 60000  /* between looks at certificate files */
#endif

enum {
    WORKER_OPEN,
    WORKER_LEASE,
    WORKER_CLOSE,
    WORKER_FREE,
    WORKER_CALL,
    WORKER_DRAIN,
    WORKER_ABORT,
    WORKER_END,
};

struct worker {
    struct worker_options options;
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t doorbell;
    uv_timer_t files; /* certificates on disk are looked at */
    struct bh_mailbox *box;
    struct bh_tls_worker *tls;
    struct bh_delivery_worker *delivery;
    struct bh_letter drain, abort, end;
    bool draining;
    uint32_t session_count;
    struct session_link {
        struct worker_session *session;
    } * open; /* open sessions, for drain and abort */
    size_t open_cap;
};

static void ring(void *ctx)
{
    uv_async_send(ctx);
}

static bool remember_open(struct worker *w, struct worker_session *session)
{
    if (w->session_count == w->open_cap) {
        const size_t cap = w->open_cap > 0 ? w->open_cap * 2 : 64;
        struct session_link *open = realloc(w->open, cap * sizeof(*open));
        if (open == NULL) {
            return false;
        }
        w->open = open;
        w->open_cap = cap;
    }
    w->open[w->session_count++].session = session;
    return true;
}

static void forget_open(struct worker *w, const struct worker_session *session)
{
    for (uint32_t i = 0; i < w->session_count; i++) {
        if (w->open[i].session == session) {
            w->open[i] = w->open[--w->session_count];
            return;
        }
    }
}

static void keep_outcome(struct worker_session *s, const struct bh_outcome *outcome)
{
    struct bh_buf host = bh_buf(s->outcome_host, sizeof(s->outcome_host));
    struct bh_buf text = bh_buf(s->outcome_text, sizeof(s->outcome_text));
    s->outcome = *outcome;
    bh_buf_add_cut(&host, outcome->host);
    bh_buf_add_cut(&text, outcome->text);
    s->outcome.host = bh_buf_slice(&host);
    s->outcome.text = bh_buf_slice(&text);
}

/* Callbacks of the delivery session */

void worker_note_ready(struct worker_session *s, const struct bh_delivery_ready *ready)
{
    const struct session_host *host = &s->hosts[ready->target];
    s->target = ready->target;
    s->connect_ms = ready->connect_ms;
    s->tls_ms = ready->tls_ms;
    tls_seen_want(&s->seen, &host->demand, bh_slice_str(host->origin));
    if (host->audited && host->audit_refusal != NULL) {
        snprintf(s->seen.audit, sizeof(s->seen.audit), "%s", host->audit_refusal);
    } else if (host->audited) {
        (void)tls_audit(&host->audit, &host->demand, ready->tls, s->seen.audit);
    }
    if (ready->tls != NULL) {
        tls_seen_inside(&s->seen, &host->demand, ready->tls);
    } else {
        tls_seen_in_clear(&s->seen,
                          s->clear                          ? "in clear after broken TLS"
                          : host->demand.mode == BH_TLS_OFF ? "tls off"
                          : ready->facts->starttls_offered  ? "STARTTLS not used"
                                                            : "STARTTLS not offered",
                          ready->facts->starttls_offered);
    }
}

static void on_ready(void *ctx, struct bh_delivery *d, const struct bh_delivery_ready *ready)
{
    struct worker_session *s = ctx;
    (void)d;
    s->ready_ms = uv_now(&s->worker->loop);
    worker_note_ready(s, ready);
    bh_mailbox_post_always(s->worker->options.engine, &s->ready);
}

static bool on_before_end(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn,
                          const uint64_t ending[2])
{
    struct worker_session *s = ctx;
    struct lease_item *item = txn->user;
    struct bh_inflight_slot slot = {.state = BH_INFLIGHT_LEASED, .key = item->key};
    (void)d;
    judge_in_doubt(item, ending, slot.mask);
    bh_inflight_set(s->worker->options.inflight, item->slot, &slot);
    bh_inflight_dot_sent(s->worker->options.inflight, item->slot);
    return true;
}

static void on_handling(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn)
{
    struct worker_session *s = ctx;
    const struct lease_item *item = txn != NULL ? txn->user : NULL;
    (void)d;
    bh_inflight_handling(s->worker->options.inflight, STORE_THREADS_MAX + s->worker->options.number,
                         item != NULL ? BH_HANDLING_SEND : BH_HANDLING_NOTHING,
                         item != NULL ? item->key.id : 0);
}

/* The session's name of its host ends with the session; the results live longer. */
static void keep_hosts(struct lease_item *item)
{
    struct bh_slice copy = BH_EMPTY;
    for (uint32_t i = 0; i < item->txn.txn.recipients_count; i++) {
        struct bh_outcome *outcome = &item->txn.txn.results[i].outcome;
        if (copy.len == 0 && outcome->host.len > 0 &&
            !bh_arena_copy(&item->lease->arena, outcome->host, &copy)) {
            copy = BH_EMPTY;
        }
        outcome->host = outcome->host.len > 0 ? copy : BH_EMPTY;
    }
}

/* Where a message's time went with its session. */
static void note_times(struct worker_session *s, struct lease_item *item)
{
    const uint64_t now_ms = uv_now(&s->worker->loop);
    uint64_t from_ms = item->started_ms > s->done_ms ? item->started_ms : s->done_ms;
    from_ms = s->ready_ms > from_ms ? s->ready_ms : from_ms;
    item->took.transfer_ms = now_ms > from_ms ? now_ms - from_ms : 0;
    if (!s->setup_told && s->ready_ms > 0) {
        item->took.connect_ms = s->connect_ms;
        item->took.tls_ms = s->tls_ms;
        s->setup_told = true;
    }
    s->done_ms = now_ms;
}

static void on_done(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *first)
{
    struct worker_session *s = ctx;
    (void)d;
    while (first != NULL) {
        struct bh_delivery_txn *next = bh_delivery_next(first);
        struct lease_item *item = first->user;
        BH_ASSERT(s->given > 0);
        s->given--;
        note_times(s, item);
        keep_hosts(item);
        bh_mailbox_post_always(s->worker->options.engine, &item->letter);
        first = next;
    }
}

static void on_idle(void *ctx, struct bh_delivery *d)
{
    struct worker_session *s = ctx;
    (void)d;
    BH_ASSERT(s->given == 0);
    if (s->lease != NULL) {
        const uint64_t from_ms = s->given_ms > s->ready_ms ? s->given_ms : s->ready_ms;
        s->took_ms = uv_now(&s->worker->loop) - from_ms;
        s->lease = NULL;
        bh_mailbox_post_always(s->worker->options.engine, &s->idle);
    }
}

static void tell_closed(struct worker *w, struct worker_session *s)
{
    forget_open(w, s);
    s->delivery = NULL;
    bh_mailbox_post_always(w->options.engine, &s->closed);
}

static void on_closed(void *ctx, struct bh_delivery *d, const struct bh_delivery_closed *closed)
{
    worker_note_closed(ctx, d, closed);
}

/* The host could not, or would not, meet what it must prove: no fault of ours, no broken line. */
static bool is_unmet(const struct worker_session *s, const struct bh_delivery_failure *f)
{
    const enum bh_happened happened = f->outcome.happened;
    return f->target < s->address_count && f->outcome.stage != BH_STAGE_AUTH &&
           bh_tls_demand_requires_tls(&s->hosts[f->target].demand) &&
           (happened == BH_HAPPENED_TLS_NOT_OFFERED || happened == BH_HAPPENED_TLS_FAILED ||
            happened == BH_HAPPENED_TLS_UNVERIFIED);
}

/* ... or it said that it would not, for now. */
static bool is_of_tls(const struct worker_session *s, const struct bh_delivery_failure *f)
{
    const enum bh_stage stage = f->outcome.stage;
    return is_unmet(s, f) ||
           (f->target < s->address_count && (stage == BH_STAGE_STARTTLS || stage == BH_STAGE_TLS) &&
            bh_tls_demand_requires_tls(&s->hosts[f->target].demand));
}

/* What was demanded, by whose word, and which check failed. */
static void tell_unmet(struct worker_session *s, const struct bh_delivery_failure *last)
{
    const struct session_host *host = &s->hosts[last->target];
    const struct bh_slice why = last->outcome.text.len > 0
                                    ? last->outcome.text
                                    : BH_LIT("the host does not offer STARTTLS");
    struct bh_buf text = bh_buf(s->outcome_text, sizeof(s->outcome_text));
    bh_buf_add_cut(&text, BH_LIT("tls "));
    bh_buf_add_cut(&text, bh_slice_str(bh_tls_mode_name(host->demand.mode)));
    bh_buf_add_cut(&text, BH_LIT(" is demanded ("));
    bh_buf_add_cut(&text, bh_slice_str(host->origin));
    bh_buf_add_cut(&text, BH_LIT("): "));
    bh_buf_add_cut(&text, why);
    s->outcome.text = bh_buf_slice(&text);
}

/* Loud: somebody has to look at the credentials or the partner, and until then mail waits. Never
 * with the secret, which nobody here knows. */
static void log_auth_failed(const struct worker_session *s, const struct bh_delivery_closed *closed)
{
    char text[BH_LOG_QUOTE_MAX];
    const struct bh_outcome *o = &closed->outcome;
    const uint32_t mechanism = closed->facts != NULL ? closed->facts->mechanism : 0;
    bh_log(BH_LOG_ERROR,
           "evt=auth_failed connector=%.*s host=%.*s mechanism=%s happened=%s code=%u text=%s",
           BH_FMT(s->connector->name), BH_FMT(o->host),
           mechanism != 0 ? bh_sasl_name(mechanism) : "none", bh_happened_name(o->happened),
           o->code, bh_log_quote(o->text, text));
}

void worker_note_closed(struct worker_session *s, struct bh_delivery *d,
                        const struct bh_delivery_closed *closed)
{
    (void)d;
    s->failed = !closed->graceful;
    s->was_ready = closed->was_ready;
    s->tls_trouble = closed->tls_trouble;
    s->ahead_trouble = closed->facts != NULL && closed->facts->ahead_trouble;
    s->sync_trouble = closed->facts != NULL && closed->facts->sync_trouble;
    if (s->failed) {
        keep_outcome(s, &closed->outcome);
        if (closed->outcome.stage == BH_STAGE_AUTH) {
            log_auth_failed(s, closed);
        }
    }
    s->failure_count = 0;
    s->unmet = s->failed && !s->was_ready && closed->failures_count > 0;
    s->unmet_any = false;
    for (uint32_t i = 0; i < closed->failures_count; i++) {
        s->unmet = s->unmet && is_unmet(s, &closed->failures[i]);
        s->unmet_any = s->unmet_any || is_of_tls(s, &closed->failures[i]);
        if (closed->failures[i].target < s->address_count &&
            s->failure_count < BH_ROUND_ADDRESSES_MAX) {
            s->failures[s->failure_count++] = s->addresses[closed->failures[i].target];
        }
    }
    if (s->unmet) {
        tell_unmet(s, &closed->failures[closed->failures_count - 1]);
    }
    if (s->failed && s->was_ready && s->failure_count < BH_ROUND_ADDRESSES_MAX) {
        s->failures[s->failure_count++] = s->addresses[s->target];
    }
    tell_closed(s->worker, s);
}

/* Letters */

static struct bh_client_timeouts timeouts_of(const struct bh_timeouts *t)
{
    return (struct bh_client_timeouts){.greeting_ms = t->banner_ms,
                                       .ehlo_ms = t->ehlo_ms,
                                       .starttls_ms = t->starttls_ms,
                                       .tls_ms = t->tls_ms,
                                       .mail_ms = t->mail_ms,
                                       .rcpt_ms = t->rcpt_ms,
                                       .data_ms = t->data_ms,
                                       .block_ms = t->block_ms,
                                       .dot_ms = t->dot_ms,
                                       .auth_ms = t->auth_ms,
                                       .rset_ms = t->rset_ms};
}

static uint32_t mechanisms_of(enum bh_auth_mech mech)
{
    switch (mech) {
    case BH_AUTH_NONE:
        return 0;
    case BH_AUTH_AUTO:
        return BH_SASL_SCRAM_SHA_256 | BH_SASL_CRAM_MD5 | BH_SASL_PLAIN | BH_SASL_LOGIN;
    case BH_AUTH_PLAIN:
        return BH_SASL_PLAIN;
    case BH_AUTH_LOGIN:
        return BH_SASL_LOGIN;
    case BH_AUTH_CRAM_MD5:
        return BH_SASL_CRAM_MD5;
    case BH_AUTH_SCRAM_SHA_256:
        return BH_SASL_SCRAM_SHA_256;
    case BH_AUTH_XOAUTH2:
        return BH_SASL_XOAUTH2;
    }
    return 0;
}

static struct bh_delivery_auth auth_of(const struct bh_auth *auth)
{
    return (struct bh_delivery_auth){
        .mechanisms = mechanisms_of(auth->mech),
        .user = auth->user,
        .secret_file = auth->mech == BH_AUTH_XOAUTH2 ? auth->token_file : auth->password_file,
        .unauthenticated_until_unix_ms = auth->unauthenticated_peer.until_unix_ms};
}

static uint32_t extensions_off(const struct bh_connector *c)
{
    return (c->pipelining ? 0 : (uint32_t)BH_EXT_PIPELINING) |
           (c->chunking ? 0 : (uint32_t)BH_EXT_CHUNKING) |
           (c->smtputf8 ? 0 : (uint32_t)BH_EXT_SMTPUTF8) |
           (c->eightbitmime ? 0 : (uint32_t)BH_EXT_8BITMIME) |
           (c->dsn_extension ? 0 : (uint32_t)BH_EXT_DSN);
}

static void set_sources(const struct bh_connector *c, struct bh_delivery_params *params)
{
    for (size_t i = 0; i < c->source.count; i++) {
        if (c->source.at[i].family == 4 && params->source_ipv4.family == 0) {
            params->source_ipv4 = c->source.at[i];
        } else if (c->source.at[i].family == 6 && params->source_ipv6.family == 0) {
            params->source_ipv6 = c->source.at[i];
        }
    }
}

static void at_most(uint64_t *ms)
{
    *ms = *ms < PROBE_TIMEOUT_MS ? *ms : PROBE_TIMEOUT_MS;
}

/* Somebody waits for a probe's answer. */
static void hurry(struct bh_delivery_params *params)
{
    struct bh_client_timeouts *t = &params->timeouts;
    uint64_t *const all[] = {&t->greeting_ms, &t->ehlo_ms, &t->starttls_ms,
                             &t->tls_ms,      &t->auth_ms, &t->mail_ms,
                             &t->rcpt_ms,     &t->rset_ms, &params->connect_ms};
    for (size_t i = 0; i < BH_COUNT(all); i++) {
        at_most(all[i]);
    }
}

static void open_session(struct worker *w, struct worker_session *s)
{
    const struct bh_connector *c = s->connector;
    struct bh_delivery_params params = {
        .id = s->number,
        .generation = s->config->generation,
        .targets_count = s->address_count,
        .helo = c->helo.len > 0 ? c->helo : s->config->engine.hostname,
        .auth = auth_of(&c->auth),
        .clear = s->clear,
        .small_hello = s->small_hello,
        .lmtp = c->protocol == BH_PROTOCOL_LMTP,
        .helo_only = c->helo_only,
        .extensions_off = extensions_off(c),
        .speculative = c->speculative,
        .recipients_max = c->limits.recipients_per_transaction,
        .min_rate = s->config->engine.min_rate,
        .connect_ms = c->timeouts.connect_ms,
        .timeouts = timeouts_of(&c->timeouts),
    };
    set_sources(c, &params);
    for (uint32_t i = 0; i < s->address_count; i++) {
        params.targets[i] = (struct bh_delivery_target){.host = bh_slice_str(s->hosts[i].name),
                                                        .ip = s->addresses[i].ip,
                                                        .port = s->addresses[i].port,
                                                        .demand = &s->hosts[i].demand,
                                                        .route_proven = s->hosts[i].route_proven,
                                                        .route_unknown = s->hosts[i].route_unknown,
                                                        .step_by_step = s->hosts[i].step_by_step,
                                                        .no_pipelining = s->hosts[i].no_pipelining};
    }
    const struct bh_delivery_callbacks callbacks = {.ctx = s,
                                                    .ready = on_ready,
                                                    .before_end = on_before_end,
                                                    .handling = on_handling,
                                                    .done = on_done,
                                                    .idle = on_idle,
                                                    .closed = on_closed};
    enum bh_status status = BH_ENOMEM;
    if (!w->draining && remember_open(w, s)) {
        const struct bh_delivery_callbacks probing = probe_callbacks(s);
        if (s->probe != NULL) {
            hurry(&params);
        }
        status = bh_delivery_open(w->delivery, &params, s->probe != NULL ? &probing : &callbacks,
                                  &s->delivery);
    }
    if (status != BH_OK) {
        const struct bh_outcome outcome = {
            .stage = BH_STAGE_CONNECT,
            .happened = status == BH_EINVAL ? BH_HAPPENED_OUR_CONFIG : BH_HAPPENED_OUR_RESOURCE,
            .text = status == BH_EINVAL ? BH_LIT("this TLS demand can't be enforced")
                                        : BH_LIT("no memory for a session")};
        s->failed = !w->draining;
        keep_outcome(s, &outcome);
        tell_closed(w, s);
    }
}

/* A lease for a session that is gone or ending comes back untouched. */
static void give_lease(struct worker *w, struct lease *lease)
{
    struct worker_session *s = lease->owner;
    struct bh_delivery_txn *txns[BH_LEASE_ITEMS_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < lease->count; i++) {
        struct lease_item *item = &lease->items[i];
        if (item->what == LEASE_DELIVER) {
            item->started_ms = uv_now(&w->loop);
            txns[count++] = &item->txn;
        }
    }
    BH_ASSERT(s->lease == NULL && s->given == 0 && count > 0);
    if (s->delivery != NULL) {
        s->lease = lease;
        s->given = (uint32_t)count;
        s->given_ms = uv_now(&w->loop);
        s->took_ms = UINT64_MAX; /* unless it answers */
        if (bh_delivery_give(s->delivery, txns, count) == BH_OK) {
            return;
        }
        s->given = 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct lease_item *item = txns[i]->user;
        for (uint32_t r = 0; r < item->txn.txn.recipients_count; r++) {
            item->txn.txn.results[r] = (struct bh_client_result){.fate = BH_FATE_UNTOUCHED};
        }
        bh_mailbox_post_always(w->options.engine, &item->letter);
    }
    if (s->lease != NULL) {
        s->lease = NULL;
        bh_mailbox_post_always(w->options.engine, &s->idle);
    }
}

static void start_drain(struct worker *w)
{
    w->draining = true;
    for (uint32_t i = w->session_count; i > 0; i--) {
        bh_delivery_close(w->open[i - 1].session->delivery, true);
    }
    w->options.draining(w->options.ctx, w);
}

static void abort_all(struct worker *w)
{
    w->draining = true;
    for (uint32_t i = w->session_count; i > 0; i--) {
        bh_delivery_close(w->open[i - 1].session->delivery, false);
    }
}

static void free_session(struct worker_session *s)
{
    BH_ASSERT(s->delivery == NULL);
    bh_arena_fini(&s->demands);
    bh_config_unref(s->config);
    free(s);
}

static void handle(struct worker *w, struct bh_letter *letter)
{
    switch (letter->kind) {
    case WORKER_OPEN:
        open_session(w, BH_CONTAINER(letter, struct worker_session, open));
        break;
    case WORKER_LEASE:
        give_lease(w, BH_CONTAINER(letter, struct lease, letter));
        break;
    case WORKER_CLOSE: {
        struct worker_session *s = BH_CONTAINER(letter, struct worker_session, close);
        if (s->delivery != NULL) {
            bh_delivery_close(s->delivery, true);
        }
        break;
    }
    case WORKER_FREE:
        free_session(BH_CONTAINER(letter, struct worker_session, open));
        break;
    case WORKER_CALL: {
        struct worker_call *call = BH_CONTAINER(letter, struct worker_call, letter);
        call->run(call, w);
        break;
    }
    case WORKER_DRAIN:
        start_drain(w);
        break;
    case WORKER_ABORT:
        abort_all(w);
        break;
    case WORKER_END:
        BH_ASSERT(w->session_count == 0);
        uv_close((uv_handle_t *)&w->doorbell, NULL);
        uv_close((uv_handle_t *)&w->files, NULL);
        break;
    default:
        BH_ASSERT(false);
    }
}

static void on_doorbell(uv_async_t *async)
{
    struct worker *w = async->data;
    for (struct bh_letter *letter = bh_mailbox_take_all(w->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        handle(w, letter);
        letter = next;
    }
}

static void on_files(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    const size_t taken_up = bh_tls_worker_refresh(w->tls);
    if (taken_up > 0) {
        bh_log(BH_LOG_INFO, "evt=tls-files-new contexts=%zu", taken_up);
    }
}

static void *run(void *arg)
{
    struct worker *w = arg;
    uv_timer_start(&w->files, on_files, FILES_MS, FILES_MS);
    w->options.started(w->options.ctx, w, &w->loop, w->tls);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    bh_delivery_worker_destroy(w->delivery);
    bh_tls_worker_destroy(w->tls);
    uv_loop_close(&w->loop);
    /* Its random source of this thread. The library would free it by a key's destructor, which
     * finds it gone if the C library has cleared the thread's keys in another order. */
    OPENSSL_thread_stop();
    return NULL;
}

enum bh_status worker_create(const struct worker_options *options, struct worker **result)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return BH_ENOMEM;
    }
    w->options = *options;
    w->drain.kind = WORKER_DRAIN;
    w->abort.kind = WORKER_ABORT;
    w->end.kind = WORKER_END;
    if (uv_loop_init(&w->loop) != 0 || uv_async_init(&w->loop, &w->doorbell, on_doorbell) != 0 ||
        uv_timer_init(&w->loop, &w->files) != 0) {
        free(w);
        return BH_EIO;
    }
    w->doorbell.data = w;
    w->files.data = w;
    w->box = bh_mailbox_create(SIZE_MAX, SIZE_MAX, ring, &w->doorbell);
    w->tls = bh_tls_worker_create(RESUME_MAX);
    w->delivery = w->tls != NULL ? bh_delivery_worker_create(&w->loop, w->tls) : NULL;
    if (w->box == NULL || w->delivery == NULL || pthread_create(&w->thread, NULL, run, w) != 0) {
        /* At start only, and the process ends for it: the loop's memory goes with it. */
        return BH_ENOMEM;
    }
    *result = w;
    return BH_OK;
}

void worker_open(struct worker *worker, struct worker_session *session)
{
    session->worker = worker;
    session->open.kind = WORKER_OPEN;
    session->close.kind = WORKER_CLOSE;
    session->ready.kind = ENGINE_READY;
    session->idle.kind = ENGINE_IDLE;
    session->closed.kind = ENGINE_CLOSED;
    bh_mailbox_post_always(worker->box, &session->open);
}

void worker_give(struct worker *worker, struct worker_session *session, struct lease *lease)
{
    lease->owner = session;
    lease->letter.kind = WORKER_LEASE;
    for (uint32_t i = 0; i < lease->count; i++) {
        const struct bh_envelope *envelope = &lease->items[i].message.envelope;
        /* The last look: a session that was opened without what is published. */
        BH_ASSERT(!session->lifted || lease->items[i].what != LEASE_DELIVER ||
                  (envelope->tls_optional && !envelope->requiretls));
        lease->items[i].letter.kind = ENGINE_ITEM;
    }
    bh_mailbox_post_always(worker->box, &lease->letter);
}

void worker_close(struct worker_session *session)
{
    if (!session->close_sent) {
        session->close_sent = true;
        bh_mailbox_post_always(session->worker->box, &session->close);
    }
}

void worker_free(struct worker_session *session)
{
    session->open.kind = WORKER_FREE;
    bh_mailbox_post_always(session->worker->box, &session->open);
}

void worker_call(struct worker *worker, struct worker_call *call)
{
    call->letter.kind = WORKER_CALL;
    bh_mailbox_post_always(worker->box, &call->letter);
}

uint32_t worker_number(const struct worker *worker)
{
    return worker->options.number;
}

void worker_drain(struct worker *worker)
{
    bh_mailbox_post_always(worker->box, &worker->drain);
}

void worker_abort(struct worker *worker)
{
    bh_mailbox_post_always(worker->box, &worker->abort);
}

void worker_join(struct worker *worker)
{
    bh_mailbox_post_always(worker->box, &worker->end);
    pthread_join(worker->thread, NULL);
    for (struct bh_letter *letter = bh_mailbox_take_all(worker->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        if (letter->kind == WORKER_FREE) {
            free_session(BH_CONTAINER(letter, struct worker_session, open));
        }
        letter = next;
    }
    bh_mailbox_destroy(worker->box);
    free(worker->open);
    free(worker);
}
