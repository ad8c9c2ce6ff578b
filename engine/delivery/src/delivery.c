#include "bh/delivery.h"

#include <stdlib.h>
#include <time.h>

#include "delivery_internal.h"

struct bh_delivery_worker *bh_delivery_worker_create(uv_loop_t *loop, struct bh_tls_worker *tls)
{
    struct bh_delivery_worker *worker = calloc(1, sizeof(*worker));
    if (worker != NULL) {
        worker->loop = loop;
        worker->tls = tls;
        worker->secrets = bh_secrets_create();
    }
    if (worker != NULL && worker->secrets == NULL) {
        free(worker);
        worker = NULL;
    }
    return worker;
}

void bh_delivery_worker_destroy(struct bh_delivery_worker *worker)
{
    if (worker != NULL) {
        BH_ASSERT(worker->sessions == 0);
        bh_secrets_destroy(worker->secrets);
        free(worker);
    }
}

uint32_t bh_delivery_worker_sessions(const struct bh_delivery_worker *worker)
{
    return worker->sessions;
}

struct bh_now bh_delivery_now(const struct bh_delivery *d)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct bh_now){
        .mono_ms = uv_now(d->worker->loop),
        .unix_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000,
    };
}

struct bh_delivery_txn *bh_delivery_next(const struct bh_delivery_txn *txn)
{
    return txn->next;
}

void *bh_delivery_user(const struct bh_delivery *d)
{
    return d->callbacks.ctx;
}

uint64_t bh_delivery_id(const struct bh_delivery *d)
{
    return d->params.id;
}

/* ---- the end ---- */

/* What was never handed to the core comes back as it went. */
static void return_waiting(struct bh_delivery *d)
{
    while (d->waiting != NULL) {
        struct bh_delivery_txn *txn = d->waiting;
        d->waiting = txn->next;
        for (uint32_t i = 0; i < txn->txn.recipients_count; i++) {
            txn->txn.results[i] = (struct bh_client_result){
                .fate = BH_FATE_UNTOUCHED, .outcome = {.text = BH_EMPTY, .host = BH_EMPTY}};
        }
        txn->next = NULL;
        *d->done_end = txn;
        d->done_end = &txn->next;
        d->given--;
    }
    d->waiting_end = &d->waiting;
}

static void tell_done(struct bh_delivery *d)
{
    struct bh_delivery_txn *first = d->done;
    d->done = NULL;
    d->done_end = &d->done;
    if (first != NULL) {
        d->callbacks.done(d->callbacks.ctx, d, first);
    }
}

/* Called as each handle has closed; the last one frees the session. */
static void maybe_gone(struct bh_delivery *d)
{
    bool open = d->timer_open;
    for (uint32_t i = 0; i < d->started; i++) {
        open = open || d->attempts[i].open;
    }
    if (open || d->state != DELIVERY_FINISHED) {
        return;
    }
    while (d->waiting != NULL || d->done != NULL) { /* given while the handles closed */
        return_waiting(d);
        tell_done(d);
    }
    BH_ASSERT(d->given == 0);
    const struct bh_delivery_closed closed = {
        .graceful = d->graceful,
        .was_ready = d->ready,
        .outcome = d->outcome,
        .tls_trouble = d->tls_trouble,
        .facts = d->answered ? &d->client.facts : NULL,
        .failures = d->failures,
        .failures_count = d->failures_count,
    };
    d->worker->sessions--;
    d->callbacks.closed(d->callbacks.ctx, d, &closed);
    free(d);
}

static void on_attempt_closed(uv_handle_t *handle)
{
    struct attempt *a = handle->data;
    a->open = false;
    maybe_gone(a->d);
}

void bh_delivery_close_attempt(struct attempt *a)
{
    if (a->open && !a->closing) {
        a->closing = true;
        uv_close((uv_handle_t *)&a->tcp, on_attempt_closed);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct bh_delivery *d = handle->data;
    d->timer_open = false;
    maybe_gone(d);
}

void bh_delivery_finish(struct bh_delivery *d, const struct bh_outcome *outcome, bool graceful)
{
    BH_ASSERT(d->state != DELIVERY_FINISHED);
    d->state = DELIVERY_FINISHED;
    d->graceful = graceful;
    d->outcome = (struct bh_outcome){.text = BH_EMPTY, .host = BH_EMPTY};
    if (outcome != NULL && !graceful) {
        struct bh_buf text = bh_buf(d->outcome_text, sizeof(d->outcome_text));
        d->outcome = *outcome;
        bh_buf_add_cut(&text, outcome->text);
        d->outcome.text = bh_buf_slice(&text);
    }
    return_waiting(d);
    bh_delivery_end_talk(d);
    for (uint32_t i = 0; i < d->started; i++) {
        d->attempts[i].connecting = false;
        bh_delivery_close_attempt(&d->attempts[i]);
    }
}

/* ---- the loop ---- */

static void tell(struct bh_delivery *d)
{
    if (d->tell_ready) {
        d->tell_ready = false;
        const bool inside = d->tls != NULL;
        const struct bh_delivery_ready ready = {
            .target = d->won != NULL ? d->won->target : 0,
            .facts = &d->client.facts,
            .tls = inside ? bh_tls_facts(d->tls) : NULL,
            .connect_ms = d->connect_ms,
            .tls_ms = d->tls_ms,
        };
        if (d->state == DELIVERY_TALKING) {
            d->callbacks.ready(d->callbacks.ctx, d, &ready);
        }
    }
    tell_done(d);
    if (d->state == DELIVERY_TALKING && d->given == 0 && !d->idle_told && !d->quit &&
        bh_client_idle(&d->client)) {
        d->idle_told = true;
        d->callbacks.idle(d->callbacks.ctx, d);
        if (d->served && d->params.clear && d->tls == NULL) {
            d->quit = true; /* the next session tries TLS again */
            d->again = true;
        }
    }
}

/* What was asked from outside since the last time. */
static void obey(struct bh_delivery *d)
{
    if (d->drop && d->state == DELIVERY_TALKING) {
        bh_client_on_event(&d->client, BH_CLIENT_LOST, bh_delivery_now(d));
    } else if (d->quit && d->state == DELIVERY_TALKING) {
        bh_client_on_event(&d->client, BH_CLIENT_QUIT, bh_delivery_now(d));
    } else if ((d->drop || d->quit) && d->state == DELIVERY_CONNECTING) {
        bh_delivery_finish(d, NULL, true);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct bh_delivery *d = timer->data;
    d->armed_ms = UINT64_MAX;
    if (d->state == DELIVERY_TALKING &&
        uv_now(d->worker->loop) >= bh_client_deadline_ms(&d->client)) {
        bh_client_on_event(&d->client, BH_CLIENT_TIMEOUT, bh_delivery_now(d));
    }
    bh_delivery_pump(d);
}

static void arm_at(struct bh_delivery *d, uint64_t at_ms)
{
    const uint64_t now_ms = uv_now(d->worker->loop);
    if (at_ms >= d->armed_ms) {
        return; /* it rings earlier, and is set anew then: cheaper than moving it at every reply */
    }
    d->armed_ms = at_ms;
    const int error = uv_timer_start(&d->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
    BH_ASSERT(error == 0);
}

static void arm(struct bh_delivery *d)
{
    if (d->state == DELIVERY_FINISHED) {
        if (!uv_is_closing((uv_handle_t *)&d->timer)) {
            uv_close((uv_handle_t *)&d->timer, on_timer_closed);
        }
        return;
    }
    arm_at(d, d->state == DELIVERY_CONNECTING ? bh_delivery_connect_deadline_ms(d)
                                              : bh_client_deadline_ms(&d->client));
}

void bh_delivery_pump(struct bh_delivery *d)
{
    if (d->busy) {
        d->again = true;
        return;
    }
    d->busy = true;
    do {
        d->again = false;
        obey(d);
        if (d->state == DELIVERY_CONNECTING) {
            bh_delivery_connect(d);
        }
        if (d->state == DELIVERY_TALKING) {
            bh_delivery_talk(d);
        }
        tell(d);
    } while (d->again && d->state != DELIVERY_FINISHED);
    d->busy = false;
    arm(d);
}

/* ---- the face ---- */

static bool copy_text(struct bh_slice *s, char *storage)
{
    if (s->len > HOST_MAX) {
        return false;
    }
    if (s->len > 0) {
        memcpy(storage, s->ptr, s->len);
    }
    s->ptr = storage;
    return true;
}

static bool copy_params(struct bh_delivery *d, const struct bh_delivery_params *params)
{
    d->params = *params;
    bool good = copy_text(&d->params.helo, d->helo);
    for (uint32_t i = 0; i < params->targets_count; i++) {
        good = good && copy_text(&d->params.targets[i].host, d->hosts[i]);
        d->order[d->order_count++] = i;
    }
    return good;
}

static bool params_usable(const struct bh_delivery_params *p)
{
    bool usable =
        p->id != 0 && p->targets_count > 0 && p->targets_count <= BH_DELIVERY_TARGETS_MAX &&
        p->helo.len > 0 && p->connect_ms > 0 &&
        (p->auth.mechanisms == 0 || (p->auth.user.len > 0 && p->auth.secret_file.len > 0));
    for (uint32_t i = 0; usable && i < p->targets_count; i++) {
        const struct bh_tls_demand *demand = p->targets[i].demand;
        usable = demand != NULL && bh_tls_demand_is_effective(demand);
    }
    return usable;
}

enum bh_status bh_delivery_open(struct bh_delivery_worker *worker,
                                const struct bh_delivery_params *params,
                                const struct bh_delivery_callbacks *callbacks,
                                struct bh_delivery **d)
{
    if (!params_usable(params)) {
        return BH_EINVAL;
    }
    struct bh_delivery *new = calloc(1, sizeof(*new));
    if (new == NULL) {
        return BH_ENOMEM;
    }
    new->worker = worker;
    new->callbacks = *callbacks;
    new->armed_ms = UINT64_MAX;
    new->waiting_end = &new->waiting;
    new->done_end = &new->done;
    enum bh_status status = copy_params(new, params) ? BH_OK : BH_EINVAL;
    if (status == BH_OK && uv_timer_init(worker->loop, &new->timer) != 0) {
        status = BH_ENOMEM;
    }
    if (status != BH_OK) {
        free(new);
        return status;
    }
    new->timer.data = new;
    new->timer_open = true;
    worker->sessions++;
    arm_at(new, 0);
    *d = new;
    return BH_OK;
}

enum bh_status bh_delivery_give(struct bh_delivery *d, struct bh_delivery_txn **txns, size_t count)
{
    if (d->given + count > BH_CLIENT_TXNS_MAX) {
        return BH_ELIMIT;
    }
    for (size_t i = 0; i < count; i++) {
        struct bh_delivery_txn *txn = txns[i];
        txn->txn.user = txn;
        txn->content_next = 0;
        txn->next = NULL;
        d->given++;
        if (d->ready && d->state == DELIVERY_TALKING && bh_client_room(&d->client) > 0) {
            bh_client_give(&d->client, &txn->txn, bh_delivery_now(d));
        } else {
            *d->waiting_end = txn;
            d->waiting_end = &txn->next;
        }
    }
    d->idle_told = false;
    d->served = d->served || count > 0;
    if (d->busy) {
        d->again = true;
    } else if (d->state != DELIVERY_FINISHED) {
        arm_at(d, 0);
    }
    return BH_OK;
}

void bh_delivery_close(struct bh_delivery *d, bool graceful)
{
    d->quit = d->quit || graceful;
    d->drop = d->drop || !graceful;
    if (d->busy) {
        d->again = true;
    } else if (d->state != DELIVERY_FINISHED) {
        arm_at(d, 0);
    }
}
