/* The core on a connection that stands: its actions are carried out here, and what the socket says
 * is fed to it. */
#include <openssl/crypto.h>

#include "bh/outcome_policy.h"
#include "delivery_internal.h"

void bh_delivery_fail_core(struct bh_delivery *d, enum bh_stage stage, enum bh_happened happened,
                           struct bh_slice text)
{
    const struct bh_outcome outcome = {.stage = stage, .happened = happened, .text = text};
    bh_client_on_failed(&d->client, &outcome, bh_delivery_now(d));
}

static void lost(struct bh_delivery *d)
{
    bh_client_on_event(&d->client, BH_CLIENT_LOST, bh_delivery_now(d));
}

/* The handshake has moved: send what it says, and tell the core when it has ended. */
static void on_handshake(struct bh_delivery *d)
{
    const enum bh_tls_state state = bh_tls_state(d->tls);
    if (!bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, BH_EMPTY)) {
        lost(d);
        return;
    }
    if (state == BH_TLS_SHAKING || d->client.phase != BH_CLIENT_PHASE_TLS) {
        return;
    }
    d->tls_ms = uv_now(d->worker->loop) - d->tls_started_ms;
    if (state != BH_TLS_UP) {
        bh_delivery_fail_core(d, BH_STAGE_TLS, BH_HAPPENED_TLS_FAILED, bh_tls_error(d->tls));
        return;
    }
    d->clearance = bh_clearance_of_tls(d->tls);
    if (d->clearance == NULL) {
        const struct bh_slice why = bh_tls_error(d->tls);
        bh_delivery_fail_core(d, BH_STAGE_TLS,
                              why.len > 0 ? BH_HAPPENED_TLS_UNVERIFIED : BH_HAPPENED_OUR_RESOURCE,
                              why.len > 0 ? why : BH_LIT("no memory for a clearance"));
        return;
    }
    const struct bh_delivery_target *target = &d->params.targets[d->won->target];
    const bool authenticated = bh_tls_facts(d->tls)->peer_authenticated;
    d->options.peer_proven = target->route_proven && authenticated;
    d->options.route_unknown = target->route_unknown && authenticated;
    bh_client_on_tls_up(&d->client, d->clearance, bh_delivery_now(d));
}

static void start_tls(struct bh_delivery *d)
{
    const struct bh_delivery_target *target = &d->params.targets[d->won->target];
    const struct bh_tls_client_params params = {.demand = target->demand,
                                                .host = target->host,
                                                .port = target->port,
                                                .connection = d->params.id,
                                                .generation = d->params.generation,
                                                .small_hello = d->params.small_hello};
    d->tls_started_ms = uv_now(d->worker->loop);
    char text[FAILURE_TEXT_MAX];
    struct bh_buf error = bh_buf(text, sizeof(text));
    enum bh_status status = bh_tls_client_create(d->worker->tls, &params, &d->tls, &error);
    if (status == BH_OK) {
        /* From here on the contents of files count, too: what is proven is proven against them. */
        status = bh_tls_worker_digest(d->worker->tls, target->demand, d->digest, &error);
    }
    if (status != BH_OK) {
        bh_delivery_fail_core(d, BH_STAGE_TLS,
                              status == BH_EIO      ? BH_HAPPENED_OUR_SECRET
                              : status == BH_EINVAL ? BH_HAPPENED_OUR_CONFIG
                                                    : BH_HAPPENED_OUR_RESOURCE,
                              error.len > 0 ? bh_buf_slice(&error)
                                            : BH_LIT("no TLS session to be had"));
        return;
    }
    bh_tls_handshake(d->tls);
    on_handshake(d);
}

static void want_clearance(struct bh_delivery *d)
{
    d->clearance = bh_clearance_plain(d->params.targets[d->won->target].demand, d->params.id,
                                      d->params.generation);
    if (d->clearance == NULL) {
        bh_delivery_fail_core(d, BH_STAGE_STARTTLS, BH_HAPPENED_TLS_NOT_OFFERED,
                              BH_LIT("the demand does not let mail go in clear text"));
        return;
    }
    bh_client_on_clearance(&d->client, d->clearance, bh_delivery_now(d));
}

static struct bh_delivery_txn *txn_of(const struct bh_client_txn *txn)
{
    return txn->user;
}

static void want_content(struct bh_delivery *d, const struct bh_client_action *action)
{
    struct bh_delivery_txn *txn = txn_of(action->txn);
    if (action->offset == 0) {
        txn->content_next = 0;
    }
    struct bh_slice piece = BH_EMPTY;
    while (txn->content_next < txn->content_count && piece.len == 0) {
        piece = txn->content[txn->content_next++];
    }
    const bool last = txn->content_next == txn->content_count;
    bh_client_on_content(&d->client, piece, last || piece.len == 0, bh_delivery_now(d));
}

static void before_end(struct bh_delivery *d, const struct bh_client_action *action)
{
    if (!d->callbacks.before_end(d->callbacks.ctx, d, txn_of(action->txn), action->ending)) {
        bh_delivery_fail_core(d, BH_STAGE_BODY, BH_HAPPENED_OUR_RESOURCE,
                              BH_LIT("what is in flight could not be noted"));
    }
}

static void is_done(struct bh_delivery *d, const struct bh_client_action *action)
{
    struct bh_delivery_txn *txn = txn_of(action->txn);
    txn->next = NULL;
    *d->done_end = txn;
    d->done_end = &txn->next;
    d->given--;
}

static void is_ready(struct bh_delivery *d)
{
    d->ready = true;
    d->tell_ready = true;
    while (d->waiting != NULL) {
        struct bh_delivery_txn *txn = d->waiting;
        d->waiting = txn->next;
        bh_client_give(&d->client, &txn->txn, bh_delivery_now(d));
    }
    d->waiting_end = &d->waiting;
}

/* An address that would not talk: the next one, where there is one and it may do better. */
static bool try_next(struct bh_delivery *d, const struct bh_outcome *outcome)
{
    const bool left = d->started < d->order_count;
    if (d->ready || d->quit || d->drop || !left || !bh_outcome_policy(outcome).next_host) {
        return false;
    }
    bh_delivery_end_talk(d);
    d->state = DELIVERY_CONNECTING;
    d->next_start_ms = 0;
    d->again = true;
    return true;
}

/* Trouble that a lesser TLS may help against: where TLS is demanded none is ever tried, so that
 * such a host must not bring the others to clear text; and what is wrong with us is no peer's
 * trouble. */
static bool may_do_with_less(const struct bh_delivery *d, const struct bh_outcome *outcome)
{
    const struct bh_tls_demand *demand = d->params.targets[d->won->target].demand;
    const bool ours = outcome != NULL && bh_outcome_policy(outcome).fault == BH_FAULT_OURS;
    return d->client.facts.tls_trouble && !ours && !bh_tls_demand_requires_tls(demand);
}

static void is_closed(struct bh_delivery *d, const struct bh_client_action *action)
{
    const struct bh_outcome *outcome = action->outcome;
    d->tls_trouble = d->tls_trouble || may_do_with_less(d, outcome);
    if (d->tls != NULL) {
        bh_tls_shutdown(d->tls);
        (void)bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, BH_EMPTY); /* courteous, too */
    }
    const bool graceful = action->graceful || d->drop;
    if (!graceful && !d->ready) {
        bh_delivery_fail_target(d, d->won->target, outcome);
    }
    if (graceful || !try_next(d, outcome)) {
        bh_delivery_finish(d, outcome, graceful);
    }
}

static void flush(struct bh_delivery *d, enum bh_client_output *output, struct bh_buf *plain)
{
    if (plain->len > 0 && !bh_delivery_wire(d, *output, bh_buf_slice(plain))) {
        const bool cleared =
            bh_clearance_valid(d->clearance, d->params.id, d->params.generation, d->digest);
        if (cleared) {
            lost(d);
        } else {
            bh_delivery_fail_core(d, BH_STAGE_MAIL, BH_HAPPENED_OUR_CONFIG, BH_LIT("no clearance"));
        }
    }
    if (*output == BH_OUTPUT_CREDENTIAL) {
        OPENSSL_cleanse(plain->ptr, plain->len);
    }
    plain->len = 0;
    *output = BH_OUTPUT_PREAMBLE;
}

/* Whose octets are made now. */
static void tell_handling(struct bh_delivery *d, bool any)
{
    const struct bh_client *c = &d->client;
    const struct bh_client_txn *txn = !any                 ? NULL
                                      : c->sending != NULL ? c->sending
                                      : c->count > 0       ? c->txns[0]
                                                           : NULL;
    if (d->callbacks.handling != NULL && d->handling != txn) {
        d->handling = txn;
        d->callbacks.handling(d->callbacks.ctx, d, txn != NULL ? txn_of(txn) : NULL);
    }
}

/* Nothing more is made for a socket that takes nothing, but for the end of the session, which must
 * not wait for a peer that has stopped reading. */
static bool may_make(const struct bh_delivery *d)
{
    return d->won->queued <= BH_DELIVERY_QUEUE_MAX || d->client.phase == BH_CLIENT_PHASE_ENDING;
}

void bh_delivery_talk(struct bh_delivery *d)
{
    struct bh_buf plain = bh_buf(d->worker->plain, sizeof(d->worker->plain));
    enum bh_client_output output = BH_OUTPUT_PREAMBLE;
    while (d->state == DELIVERY_TALKING && may_make(d)) {
        struct bh_client_action action;
        struct bh_buf out = bh_buf(plain.ptr + plain.len, bh_buf_room(&plain));
        tell_handling(d, true);
        if (!bh_client_next(&d->client, &out, &action)) {
            break;
        }
        switch (action.kind) {
        case BH_CLIENT_WRITE:
            plain.len += action.bytes.len; /* they lie right behind the others */
            output = action.output > output ? action.output : output;
            break;
        case BH_CLIENT_START_TLS:
            flush(d, &output, &plain);
            start_tls(d);
            break;
        case BH_CLIENT_WANT_CLEARANCE:
            want_clearance(d);
            break;
        case BH_CLIENT_WANT_SASL:
            bh_delivery_want_sasl(d, &action);
            break;
        case BH_CLIENT_READY:
            flush(d, &output, &plain);
            bh_delivery_end_sasl(d);
            is_ready(d);
            break;
        case BH_CLIENT_WANT_CONTENT:
            want_content(d, &action);
            break;
        case BH_CLIENT_BEFORE_END:
            before_end(d, &action);
            break;
        case BH_CLIENT_DONE:
            is_done(d, &action);
            break;
        case BH_CLIENT_CLOSE:
            flush(d, &output, &plain);
            is_closed(d, &action);
            break;
        }
        if (bh_buf_room(&plain) < BH_CLIENT_OUT_MIN) {
            flush(d, &output, &plain);
        }
    }
    if (d->state == DELIVERY_TALKING && plain.len > 0) {
        flush(d, &output, &plain);
        d->again = true; /* a failed write ends the core; so does nothing else */
    }
    tell_handling(d, false);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    const struct attempt *a = handle->data;
    *buf = uv_buf_init(a->d->worker->input, sizeof(a->d->worker->input));
}

/* Out of TLS, into the core. */
static void on_cipher(struct bh_delivery *d, struct bh_slice octets)
{
    if (bh_tls_feed(d->tls, octets) != BH_OK) {
        bh_delivery_fail_core(d, BH_STAGE_TLS, BH_HAPPENED_OUR_RESOURCE, BH_LIT("out of memory"));
        return;
    }
    on_handshake(d);
    for (;;) {
        struct bh_buf plain = bh_buf(d->worker->decoded, sizeof(d->worker->decoded));
        const enum bh_status status = bh_tls_read(d->tls, &plain);
        if (plain.len > 0) {
            bh_client_on_bytes(&d->client, bh_buf_slice(&plain), bh_delivery_now(d));
        }
        if (status == BH_EPROTO && !d->ready && bh_tls_state(d->tls) == BH_TLS_FAILED) {
            /* TLS 1.3 lets a peer refuse us after our side of the handshake is done. */
            bh_delivery_fail_core(d, BH_STAGE_TLS, BH_HAPPENED_TLS_FAILED, bh_tls_error(d->tls));
        } else if (status == BH_EPROTO) {
            lost(d);
        }
        if (status != BH_OK) {
            return;
        }
    }
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    const struct attempt *a = stream->data;
    struct bh_delivery *d = a->d;
    if (d->state != DELIVERY_TALKING || d->won != a || len == 0) {
        return;
    }
    if (len < 0) {
        lost(d);
    } else if (d->tls != NULL) {
        on_cipher(d, bh_slice(buf->base, (size_t)len));
    } else {
        bh_client_on_bytes(&d->client, bh_slice(buf->base, (size_t)len), bh_delivery_now(d));
    }
    bh_delivery_pump(d);
}

static enum bh_tls_want want_of(const struct bh_tls_demand *demand, bool clear)
{
    if (demand->implicit || bh_tls_demand_requires_tls(demand)) {
        return BH_TLS_MUST;
    }
    return demand->mode == BH_TLS_OFF || clear ? BH_TLS_NEVER : BH_TLS_MAY;
}

void bh_delivery_start_talk(struct bh_delivery *d, struct attempt *a)
{
    const struct bh_delivery_target *target = &d->params.targets[a->target];
    d->won = a;
    d->state = DELIVERY_TALKING;
    d->answered = true;
    d->options = (struct bh_client_options){.lmtp = d->params.lmtp,
                                            .helo_only = d->params.helo_only,
                                            .implicit_tls = target->demand->implicit,
                                            .auth = d->params.auth.mechanisms,
                                            .tls = want_of(target->demand, d->params.clear),
                                            .helo = d->params.helo,
                                            .host = target->host,
                                            .ip = target->ip,
                                            .port = target->port,
                                            .extensions_off =
                                                d->params.extensions_off |
                                                (target->no_pipelining ? BH_EXT_PIPELINING : 0),
                                            .recipients_max = d->params.recipients_max,
                                            .speculative = d->params.speculative,
                                            .speculation_off = target->step_by_step,
                                            .min_rate = d->params.min_rate,
                                            .timeouts = d->params.timeouts};
    bh_client_init(&d->client, &d->options);
    bh_client_on_event(&d->client, BH_CLIENT_CONNECTED, bh_delivery_now(d));
    if (bh_tls_demand_digest(target->demand, d->digest) != BH_OK) {
        bh_delivery_fail_core(d, BH_STAGE_CONNECT, BH_HAPPENED_OUR_RESOURCE,
                              BH_LIT("out of memory"));
    } else if (uv_read_start((uv_stream_t *)&a->tcp, on_alloc, on_read) != 0) {
        lost(d);
    }
}

void bh_delivery_end_talk(struct bh_delivery *d)
{
    bh_delivery_end_sasl(d);
    bh_clearance_destroy(d->clearance);
    d->clearance = NULL;
    bh_tls_destroy(d->tls);
    d->tls = NULL;
    if (d->won != NULL) {
        bh_delivery_close_attempt(d->won);
        d->won = NULL;
    }
}
