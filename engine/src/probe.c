#include "probe.h"

#include "bh/outcome_policy.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/smtp_address.h"
#include "worker.h"

/* ---- as values ---- */

static struct bh_slice keep(char *text, size_t cap, struct bh_slice s)
{
    struct bh_buf buf = bh_buf(text, cap - 1);
    bh_buf_add_cut(&buf, s);
    text[buf.len] = '\0';
    return bh_buf_slice(&buf);
}

struct probe *probe_create(const struct bh_config *config, struct bh_slice address,
                           struct bh_slice sender)
{
    struct probe *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    const bool whole = bh_slice_find(address, '@') < address.len;
    p->config = bh_config_ref(config);
    snprintf(p->address, sizeof(p->address), "%s%.*s", whole ? "" : "postmaster@",
             BH_FMT(bh_slice_take(address, BH_ADDRESS_MAX)));
    const struct bh_slice domain = bh_address_domain(bh_slice_str(p->address));
    p->domain = keep(p->domain_text, sizeof(p->domain_text), domain);
    for (size_t i = 0; i < p->domain.len; i++) {
        p->domain_text[i] = bh_lower(p->domain_text[i]);
    }
    p->envelope = (struct bh_envelope){.sender = keep(p->sender, sizeof(p->sender), sender)};
    p->recipient =
        (struct bh_recipient){.address = bh_slice_str(p->address), .notify = BH_NOTIFY_NEVER};
    return p;
}

void probe_destroy(struct probe *p)
{
    if (p != NULL) {
        for (uint32_t i = 0; i < p->count; i++) {
            bh_arena_fini(&p->targets[i].arena);
        }
        bh_config_unref(p->config);
        free(p);
    }
}

const char *probe_verdict_name(enum probe_verdict verdict)
{
    switch (verdict) {
    case PROBE_OK:
        return "ok";
    case PROBE_REFUSED:
        return "refused by the peer";
    case PROBE_LATER_CLEAR:
        return "in clear after 5 minutes";
    case PROBE_WOULD_NOT:
        return "would not deliver";
    case PROBE_LEFT_OUT:
        return "left out";
    }
    return "";
}

bool probe_verdict_is_bad(enum probe_verdict verdict)
{
    return verdict == PROBE_WOULD_NOT;
}

/* ---- on the worker's thread ---- */

static void keep_outcome(struct probe_target *t, const struct bh_outcome *outcome)
{
    t->outcome = *outcome;
    t->outcome.text = keep(t->text, sizeof(t->text), outcome->text);
    t->outcome.host = bh_slice_str(t->host);
}

static void on_ready(void *ctx, struct bh_delivery *d, const struct bh_delivery_ready *ready)
{
    struct worker_session *s = ctx;
    struct probe_target *t = s->probe;
    struct bh_delivery_txn *txn = &t->txn;
    worker_note_ready(s, ready);
    t->ready = true;
    t->connect_ms = s->connect_ms;
    t->tls_ms = s->tls_ms;
    t->seen = s->seen;
    *txn = (struct bh_delivery_txn){.txn = {.envelope = &t->probe->envelope,
                                            .recipients = &t->probe->recipient,
                                            .results = t->results,
                                            .recipients_count = 1,
                                            .arena = &t->arena,
                                            .envelope_only = true}};
    if (bh_delivery_give(d, &txn, 1) != BH_OK) {
        bh_delivery_close(d, true);
    }
}

static bool on_before_end(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn,
                          const uint64_t ending[2])
{
    (void)ctx;
    (void)d;
    (void)txn;
    (void)ending;
    return false; /* no content was asked for: none ends */
}

/* What was said to MAIL or RCPT, and would be to all other mail: TLS or a login first, not now. */
static bool is_of_all(const struct bh_outcome *outcome)
{
    const enum bh_scope scope = bh_outcome_policy(outcome).scope;
    return scope != BH_SCOPE_RECIPIENT && scope != BH_SCOPE_MESSAGE;
}

static void on_done(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *first)
{
    struct worker_session *s = ctx;
    struct probe_target *t = s->probe;
    (void)first;
    if (t->results[0].fate == BH_FATE_DECIDED) {
        keep_outcome(t, &t->results[0].outcome);
        t->verdict = t->outcome.happened == BH_HAPPENED_REPLY && t->outcome.code / 100 == 2
                         ? PROBE_OK
                     : is_of_all(&t->outcome) ? PROBE_WOULD_NOT
                                              : PROBE_REFUSED;
    }
    bh_delivery_close(d, true);
}

static void on_idle(void *ctx, struct bh_delivery *d)
{
    (void)ctx;
    (void)d;
}

static void on_closed(void *ctx, struct bh_delivery *d, const struct bh_delivery_closed *closed)
{
    struct worker_session *s = ctx;
    struct probe_target *t = s->probe;
    const bool told = t->results[0].fate == BH_FATE_DECIDED;
    if (!told && closed->graceful) {
        const struct bh_outcome outcome = {.stage = t->ready ? BH_STAGE_MAIL : BH_STAGE_CONNECT,
                                           .happened = BH_HAPPENED_LOST,
                                           .text = BH_LIT("given up: the engine ends")};
        keep_outcome(t, &outcome);
    } else if (!told) {
        keep_outcome(t, &closed->outcome);
        if (closed->tls_trouble && !bh_tls_demand_requires_tls(&s->hosts[0].demand)) {
            t->verdict = PROBE_LATER_CLEAR;
        }
    }
    worker_note_closed(s, d, closed);
}

struct bh_delivery_callbacks probe_callbacks(struct worker_session *s)
{
    return (struct bh_delivery_callbacks){.ctx = s,
                                          .ready = on_ready,
                                          .before_end = on_before_end,
                                          .done = on_done,
                                          .idle = on_idle,
                                          .closed = on_closed};
}
