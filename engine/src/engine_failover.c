/* Connector failover (DESIGN 5): while the connector that mail is queued under is down or held for
 * a destination, a costlier one with the same address space and `failover yes` carries it, by its
 * own policy; no row moves.
 *
 *  - *Down*: the destination backs off past its glitches for a failure on the way to talking
 * (route, connect, greeting, EHLO, TLS) by their fault or nobody's. *Held*: by the configuration,
 * or because its TLS exception has lapsed. An operator's hold of the mail holds it, whoever would
 *    carry it.
 *  - The alternate starts like any destination without recent success. Where it fails past its own
 *    glitches the next one takes over; after the last one the destination backs off as its first
 *    choice does.
 *  - The first choice is tried again when its own back-off says so: with one session, which grows
 *    with success. Where that fails the alternate carries on, and the back-off goes to its next
 *    stage.
 *
 * The record in the store keeps the back-off of the first choice throughout, so that a restart
 * takes up where it was. */
#include "engine_internal.h"

#define WAIT_HELD_MS (5 * BH_MINUTE_MS)

struct bh_slice efail_carrier(const struct dest_info *d)
{
    return d->failover.over ? d->failover.carrier : d->connector;
}

int64_t efail_next(const struct dest_info *d, int64_t now_unix_ms)
{
    const int64_t at = d->failover.retry_unix_ms;
    return d->failover.over && at > now_unix_ms && at != INT64_MAX ? at
                                                                   : now_unix_ms + WAIT_HELD_MS;
}

/* It took the connection no further than to where mail would begin. */
static bool is_down(const struct bh_outcome *said)
{
    return said->stage >= BH_STAGE_ROUTE && said->stage <= BH_STAGE_TLS;
}

static void set_carrier(struct engine *e, struct dest_info *d, const struct bh_connector *carrier)
{
    struct failover *f = &d->failover;
    struct bh_buf text = bh_buf(f->carrier_text, sizeof(f->carrier_text));
    e->carried -= f->over ? 1 : 0;
    f->over = carrier != NULL;
    e->carried += f->over ? 1 : 0;
    if (carrier != NULL) {
        bh_buf_add_cut(&text, carrier->name);
    }
    f->carrier = bh_buf_slice(&text);
    f->changes++;
    f->failures = 0;
    edest_set_policy(e, d);
}

static bool lapsed(struct engine *e, const struct bh_connector *c)
{
    bool over = false;
    (void)bh_connector_tls_demand(c, engine_now(e).unix_ms, &over);
    return over;
}

/* The next that may take over: active, and its own exception not lapsed. */
static const struct bh_connector *alternate(struct engine *e, const struct dest_info *d,
                                            const struct bh_connector *after)
{
    const struct bh_connector *primary = bh_config_connector(e->config, d->connector);
    const struct bh_connector *c = NULL;
    if (primary == NULL || after == NULL) {
        return NULL;
    }
    do {
        c = bh_config_alternate(e->config, primary, d->domain,
                                c != NULL                     ? c->cost
                                : after->cost > primary->cost ? after->cost
                                                              : primary->cost);
    } while (c != NULL && lapsed(e, c));
    return c;
}

static void tell(const struct dest_info *d, const char *what)
{
    bh_log(BH_LOG_WARN, "evt=%s domain=%.*s connector=%.*s carrier=%.*s", what, BH_FMT(d->domain),
           BH_FMT(d->connector), BH_FMT(efail_carrier(d)));
}

void efail_begin(struct engine *e, struct dest_info *d)
{
    const struct bh_connector *primary = bh_config_connector(e->config, d->connector);
    const bool held =
        primary != NULL && (primary->state != BH_CONNECTOR_ACTIVE || lapsed(e, primary));
    const struct bh_connector *other = held ? alternate(e, d, primary) : NULL;
    set_carrier(e, d, other);
    d->failover.stage = 0;
    d->failover.glitches = 0;
    d->failover.retry_unix_ms = INT64_MAX;
    d->failover.told = false;
    if (other != NULL) {
        tell(d, "failover");
    }
}

/* @return false for want of memory, with the first choice in charge */
static bool carry(struct engine *e, struct dest_info *d, const struct bh_connector *other)
{
    set_carrier(e, d, other);
    if (bh_sched_carry(e->sched, d->id, &d->policy, 0, 0, 0, false, engine_now(e)) == BH_OK) {
        tell(d, "failover");
        return true;
    }
    set_carrier(e, d, NULL);
    return false;
}

/* The back-off of the first choice; while another carries the mail it holds up nothing. */
static void remember(struct engine *e, const struct dest_info *d, const struct bh_outcome *said)
{
    const struct failover *f = &d->failover;
    const struct bh_destination_change change = {
        .set = BH_SET_BACKOFF | BH_CLEAR_PARK | BH_SET_LAST,
        .backoff_stage = f->stage + 1,
        .glitches = f->glitches,
        .next_event_unix_ms = f->over ? 0 : f->retry_unix_ms,
        .last = *said};
    edest_update(e, d->id, &change);
}

void efail_recovered(struct engine *e, const struct dest_info *d)
{
    const struct failover *f = &d->failover;
    const bool down =
        f->retry_unix_ms != INT64_MAX; /* else it is held, and backs off from nothing */
    const struct bh_destination_change change = {.set = BH_SET_BACKOFF | BH_CLEAR_PARK,
                                                 .backoff_stage = down ? f->stage + 1 : 0,
                                                 .glitches = f->glitches};
    edest_update(e, d->id, &change);
}

bool efail_backoff(struct engine *e, struct dest_info *d, const struct bh_sched_action *action,
                   const struct bh_outcome *said)
{
    struct failover *f = &d->failover;
    const bool past_glitches = ++f->failures > d->policy.retry.glitches;
    const struct bh_connector *now_by = edest_connector(e, d);
    if (!past_glitches || !is_down(said)) {
        return f->over; /* its record keeps the back-off of the first choice */
    }
    const struct bh_connector *next = alternate(e, d, now_by);
    if (!f->over) {
        f->stage = action->stage;
        f->glitches = action->glitches;
        f->retry_unix_ms = action->until_unix_ms;
        if (next == NULL || !carry(e, d, next)) {
            return false;
        }
        f->told = true;
        remember(e, d, said);
        return true;
    }
    if (next != NULL && carry(e, d, next)) {
        f->told = true;
        return true;
    }
    /* The last of them: wait for whichever comes first, then begin with the first choice. */
    int64_t until =
        f->retry_unix_ms < action->until_unix_ms ? f->retry_unix_ms : action->until_unix_ms;
    set_carrier(e, d, NULL);
    f->failures = d->policy.retry.glitches; /* it has had them */
    if (bh_sched_carry(e->sched, d->id, &d->policy, f->stage, f->glitches, until, true,
                       engine_now(e)) != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=failback_failed destination=%u error=\"no memory\"",
               (unsigned)d->id);
    }
    f->retry_unix_ms = until;
    remember(e, d, said);
    tell(d, "failback");
    return true;
}

void efail_resume(struct dest_info *d, uint32_t stage, uint32_t glitches,
                  const struct bh_outcome *last)
{
    const struct bh_retry_policy *retry = &d->policy.retry;
    const bool past_glitches =
        stage > 0 || (retry->destination_intervals == 1 && glitches >= retry->glitches);
    if (past_glitches && is_down(last)) {
        d->failover.failures = retry->glitches; /* the next failure is one too many */
    }
}

static void try_first_choice(struct engine *e, struct dest_info *d)
{
    const struct failover *f = &d->failover;
    const struct bh_connector *other = edest_connector(e, d);
    set_carrier(e, d, NULL);
    d->failover.failures = d->policy.retry.glitches; /* it has had them */
    if (bh_sched_carry(e->sched, d->id, &d->policy, f->stage, f->glitches, 0, true,
                       engine_now(e)) != BH_OK) {
        set_carrier(e, d, other); /* the next tick tries again */
        return;
    }
    tell(d, "failback");
}

void efail_flush(struct dest_info *d)
{
    if (d->failover.over && d->failover.retry_unix_ms != INT64_MAX) {
        d->failover.retry_unix_ms = 0;
    }
}

void efail_tick(struct engine *e)
{
    const int64_t now = engine_now(e).unix_ms;
    if (e->carried == 0) {
        return;
    }
    for (struct bh_map_node *node = bh_map_next(&e->dests, NULL); node != NULL;
         node = bh_map_next(&e->dests, node)) {
        struct dest_info *d = BH_CONTAINER(node, struct dest_info, node);
        if (d->failover.over && d->failover.retry_unix_ms <= now && bh_sched_has(e->sched, d->id)) {
            try_first_choice(e, d);
        }
    }
}
