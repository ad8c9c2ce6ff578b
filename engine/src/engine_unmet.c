/* `if-unmet bounce` (DESIGN 6): where every host that was tried failed to meet the connector's TLS
 * demand, mail ends at once, with the exact reason. A fault of ours, a host that failed in another
 * way, or one that may do later, leaves it in the queue. */
#include "engine_internal.h"

static struct bh_slice keep(char *storage, size_t cap, struct bh_slice s)
{
    struct bh_buf buf = bh_buf(storage, cap);
    bh_buf_add_cut(&buf, s);
    return bh_buf_slice(&buf);
}

static bool bounces(const struct engine *e, const struct dest_info *d)
{
    const struct bh_connector *c = edest_connector(e, d);
    return c != NULL && c->tls.if_unmet == BH_IF_UNMET_BOUNCE;
}

void eunmet_note(struct dest_info *d, const struct worker_session *s)
{
    d->unmet = d->unmet || s->unmet;
    d->otherwise = d->otherwise || !s->unmet;
    d->published_unmet = d->published_unmet || s->unmet_any;
    if (s->unmet) {
        d->unmet_outcome = s->outcome;
        d->unmet_outcome.text = keep(d->unmet_text, sizeof(d->unmet_text), s->outcome.text);
        d->unmet_outcome.host = keep(d->unmet_host, sizeof(d->unmet_host), s->outcome.host);
    }
}

void eunmet_round_failed(struct engine *e, struct dest_info *d)
{
    bool all = d->unmet && !d->otherwise && d->route != NULL && bounces(e, d);
    for (uint32_t i = 0; all && i < d->route->host_count; i++) {
        const enum bh_plan_verdict verdict = d->route->hosts[i].tls.verdict;
        all = verdict == BH_PLAN_USE || verdict == BH_PLAN_UNMET;
    }
    /* First by the policy as it is now (RFC 8461 section 5.1): it may have been replaced. */
    const bool look = all && d->sts_unmet && !d->route->sts_anew;
    if (all) {
        d->end_now = !look;
        bh_sched_flush(e->sched, d->id, engine_now(e));
    }
}

bool eunmet_ends(struct engine *e, const struct dest_info *d, const struct host_plan *plan)
{
    return plan->tls.verdict == BH_PLAN_UNMET && bounces(e, d);
}

bool eunmet_begin(struct dest_info *d)
{
    d->unmet_ends = d->end_now;
    d->unmet = false;
    d->otherwise = false;
    d->published_unmet = false;
    d->end_now = false;
    if (d->unmet_ends) {
        d->end_outcome = d->unmet_outcome;
    }
    return d->unmet_ends;
}
