/* `TLS-Required: No` going out (RFC 8689 section 5): where what a domain publishes (DANE, MTA-STS)
 * keeps mail waiting, a message whose sender would rather have it arrive goes on without. Never
 * against a connector's own demand: only mode `auto` obeys what is published; never with
 * REQUIRETLS; and never before the way that policy wants has been tried and has failed.
 *
 *   1. a round of the destination fails, and a host did not meet what is published for it
 *   2. beside the destination a second one is loaded into the scheduler, which the store does not
 *      know: the same mail, of which it is handed out only what may go so, and plans whose demand
 * is opportunistic. Its sites are its own: no session of it serves other mail
 *   3. its entries are looked for with the reader, page by page; there may be none
 *   4. the lease is filtered where the message is read, and looked at where it is given to a worker
 *
 * Back-off, holds, expiry and reports stay with the destination of the store. */
#include "engine_internal.h"

#define LIFT_BIT UINT32_C(0x80000000)
#define LIFT_IDS_MAX UINT32_C(0x70000000) /* above them are the probes' */

bool elift_is(uint32_t id)
{
    return (id & LIFT_BIT) != 0 && (id & ~LIFT_BIT) < LIFT_IDS_MAX;
}

uint32_t elift_store_id(uint32_t id)
{
    return elift_is(id) ? id & ~LIFT_BIT : id;
}

bool elift_takes(const struct bh_envelope *envelope)
{
    return envelope->tls_optional && !envelope->requiretls;
}

/* Is it what is published that this host is held to? */
static bool is_published(const struct host_plan *plan)
{
    switch (plan->tls.verdict) {
    case BH_PLAN_USE:
        return bh_tls_demand_requires_tls(&plan->tls.demand) &&
               (plan->tls.origin == BH_TLS_BY_DANE || plan->tls.origin == BH_TLS_BY_STS);
    case BH_PLAN_LATER:
    case BH_PLAN_UNMET:
        return true;
    case BH_PLAN_OURS:
        break;
    }
    return false;
}

static bool is_auto(struct engine *e, const struct dest_info *d)
{
    const struct bh_connector *c = edest_connector(e, d);
    bool lapsed = false;
    return c != NULL && !elift_is(d->id) && d->id < LIFT_IDS_MAX && !d->failover.over &&
           bh_connector_tls_demand(c, engine_now(e).unix_ms, &lapsed)->mode == BH_TLS_AUTO &&
           !lapsed;
}

bool elift_wanted(struct engine *e, const struct dest_info *d)
{
    bool published = false;
    for (uint32_t i = 0; d->route != NULL && i < d->route->host_count; i++) {
        published = published || is_published(&d->route->hosts[i]);
    }
    return published && is_auto(e, d);
}

const char *elift_of_host(struct engine *e, const struct dest_info *d, const struct host_plan *plan)
{
    return is_published(plan) && is_auto(e, d) ? "opportunistic, once this can't be met" : "";
}

void elift_look(struct engine *e, struct dest_info *d)
{
    struct dest_info *lift = edest_learn(e, d->id | LIFT_BIT, d->domain, d->connector);
    d->lifting = true;
    if (lift == NULL) {
        return; /* the next round looks again */
    }
    lift->lift_cursor = (struct bh_refill_cursor){0};
    edest_set_policy(e, lift);
    const struct bh_sched_dest_state state = {.policy = &lift->policy, .has_entries = true};
    if (bh_sched_load(e->sched, lift->id, &state, engine_now(e)) != BH_OK &&
        !bh_sched_has(e->sched, lift->id)) {
        edest_drop(e, lift);
    }
}

void elift_round_failed(struct engine *e, struct dest_info *d)
{
    d->lifting = d->published_unmet && d->probe == NULL && elift_wanted(e, d);
    if (d->lifting) {
        elift_look(e, d);
    }
}

void elift_dirty(struct engine *e, uint32_t id)
{
    if (id < LIFT_IDS_MAX && bh_sched_has(e->sched, id | LIFT_BIT)) {
        bh_sched_dirty(e->sched, id | LIFT_BIT, engine_now(e));
    }
}
