#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"

/* What goes out now: leases to idle sessions, then new sessions, within every limit.
 *
 *  1. destinations of a site with waiting items stand in turn; each idle session takes a lease of
 *     the first, which then goes to the end; and of those behind it, where many wait
 *  2. where no session is idle, sessions are opened for those in turn
 *  3. a limit that other sites share ends the step: the site waits in the list of the blocked, and
 *     an idle session of another site is asked to end for it; a site that has no session at all
 *     also makes busy sessions end early (YIELD_MS)
 */

/* How many messages the connector's rate lets pass now (GCRA), up to `want`.
 * @param next_us when the next one passes, if none does now */
static uint32_t rate_allows(const struct bh_sched *s, const struct dest *d, uint32_t want,
                            uint64_t *next_us)
{
    const uint64_t interval = d->policy.rate_interval_us;
    if (interval == 0) {
        return want;
    }
    const uint64_t now_us = s->now.mono_ms * 1000;
    const uint64_t slack = interval * (d->policy.rate_burst > 0 ? d->policy.rate_burst - 1 : 0);
    uint32_t allowed = 0;
    uint64_t next = d->connector->next_us > now_us ? d->connector->next_us : now_us;
    while (allowed < want && next <= now_us + slack) {
        next += interval;
        allowed++;
    }
    *next_us = next - (next > slack ? slack : next);
    return allowed;
}

/* Fewer than `want` pass: the site waits until one more does. */
static void wait_for_rate(struct bh_sched *s, struct dest *d, uint64_t next_us)
{
    d->limited = BH_LIMITED_BY_RATE;
    sched_set_timer(s, &s->connector_timers, &d->connector->timer, next_us / 1000 + 1);
    if (d->connector->timer.index != 0) {
        site_wait_for_rate(d->site, d->connector);
    } else {
        site_block(s, d->site); /* no memory for the timer: the tick will do */
    }
}

static void rate_spend(const struct bh_sched *s, const struct dest *d, uint32_t count)
{
    const uint64_t now_us = s->now.mono_ms * 1000;
    struct connector *c = d->connector;
    if (d->policy.rate_interval_us > 0) {
        c->next_us =
            (c->next_us > now_us ? c->next_us : now_us) + d->policy.rate_interval_us * count;
    }
}

/* How many items the next lease of this destination should hold: enough to spare hops, few enough
 * that the other sessions it can hope for find work too; but where hosts are quick, a lease of one
 * message would cost more than the message (session_took). */
static uint32_t lease_share(const struct dest *d)
{
    const uint32_t busy = d->sessions - d->opening;
    const uint32_t fair = d->site->session_count / d->site->turn_count;
    uint32_t sessions = d->window > busy ? d->window - busy : 1;
    if (sessions > fair) {
        sessions = fair > 0 ? fair : 1;
    }
    const uint32_t share = (d->items + sessions - 1) / sessions;
    return share > d->site->together ? share : d->site->together;
}

/* ... and no more than this session may carry. */
static uint32_t bounded(const struct dest *d, const struct session *session, uint32_t share)
{
    if (share > BH_LEASE_ITEMS_MAX) {
        share = BH_LEASE_ITEMS_MAX;
    }
    if (d->breaker.state == BREAKER_HALF) {
        share = 1;
    }
    if (session->messages_max > 0 && share > session->messages_max - session->messages) {
        share = session->messages_max - session->messages;
    }
    return share;
}

static bool memory_allows(const struct bh_sched *s, uint64_t size)
{
    return s->lease_bytes == 0 || s->lease_bytes + size <= s->params.lease_bytes_max;
}

/* The next item for this session; NULL: none.
 * @param detours of those that other hosts can't take */
static struct bh_sched_item *next_item(const struct dest *d, const struct session *session,
                                       bool detours)
{
    struct bh_sched_item *item = detours ? d->detour_first : d->first;
    while (detours && item != NULL && !detour_can_take(item, session->name)) {
        item = item->next;
    }
    return item;
}

/* Move items of d, which has some, into the lease of this session.
 * @return how many; 0 if memory or rate allow none */
static uint32_t take(struct bh_sched *s, struct dest *d, struct session *session, bool detours,
                     uint32_t share, uint64_t *bytes, struct bh_sched_action *action)
{
    uint64_t next_us = 0;
    struct bh_sched_item *item = next_item(d, session, detours);
    BH_ASSERT(item != NULL);
    if (!memory_allows(s, item->size)) {
        d->limited = BH_LIMITED_BY_MEMORY;
        site_block(s, d->site);
        return 0;
    }
    share = rate_allows(s, d, bounded(d, session, share), &next_us);
    if (share == 0) {
        wait_for_rate(s, d, next_us);
        return 0;
    }
    uint32_t count = 0;
    while (count < share && action->count < BH_LEASE_ITEMS_MAX && item != NULL) {
        const uint64_t size = item->size;
        if (action->count > 0 && (*bytes + size > BH_LEASE_BYTES_MAX || !memory_allows(s, size))) {
            break;
        }
        *bytes += size;
        action->items[action->count++] = item;
        count++;
        if (detours) {
            item_lease_detour(s, d, item, session);
        } else {
            (void)item_lease(s, d, session);
        }
        item = next_item(d, session, detours);
    }
    rate_spend(s, d, count);
    session->messages += count;
    return count;
}

/* May this destination have one more session? Its own limits say so, no shared one. */
static bool may_lease(struct dest *d)
{
    d->limited = BH_LIMITED_BY_NOTHING;
    if (d->sessions - d->opening >= d->window || pace_waits(d)) {
        d->limited = BH_LIMITED_BY_DESTINATION;
        return false;
    }
    return true;
}

/* It had its turn. */
static void to_the_end(struct site *site, struct dest *d)
{
    site_turn_remove(site, d);
    if (d->items > 0) {
        site_turn_add(site, d);
    }
}

/* Where many destinations wait for few sessions, one lease carries items of several: else each
 * message of a smarthost's thousand domains would pay for a lease of its own, and a session to a
 * distant one would wait a round trip for each. As many as leave the other sessions their share. */
static void fill_up(struct bh_sched *s, struct site *site, struct session *session, uint64_t bytes,
                    struct bh_sched_action *action)
{
    uint32_t want = (site->turn_count + site->session_count) / site->session_count;
    want = want > site->together ? want : site->together;
    want = want < BH_LEASE_ITEMS_MAX ? want : BH_LEASE_ITEMS_MAX;
    for (uint32_t tries = site->turn_count; tries > 0 && site->turn_first != NULL; tries--) {
        struct dest *d = site->turn_first;
        if (action->count >= want ||
            (session->messages_max > 0 && session->messages >= session->messages_max)) {
            return;
        }
        if (!dest_may_run(s, d) || d->items == 0) {
            site_turn_remove(site, d);
            continue;
        }
        if (may_lease(d)) {
            const uint32_t share = lease_share(d);
            const uint32_t left = want - action->count;
            if (take(s, d, session, false, share < left ? share : left, &bytes, action) == 0) {
                return;
            }
            session_begin_lease(s, session, d);
        }
        to_the_end(site, d);
    }
}

/* Lease the next items of d, which has some, to an idle session; of others, too, where they wait.
 * @return false if nothing could be leased now */
static bool lease(struct bh_sched *s, struct dest *d, struct session *session, bool detours)
{
    struct site *site = d->site;
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_LEASE, d->id);
    if (action == NULL) {
        return false;
    }
    uint64_t bytes = 0;
    action->session = session->id;
    if (take(s, d, session, detours, detours ? d->detours : lease_share(d), &bytes, action) == 0) {
        sched_unemit(s);
        return false;
    }
    session_begin_lease(s, session, d);
    if (!detours) {
        to_the_end(site, d);
        fill_up(s, site, session, bytes, action);
    }
    session->lease_items = action->count;
    return true;
}

/* Does a site that has no session wait for this limit, and is this session old enough to go for it?
 */
static bool yields_to(const struct bh_sched *s, const struct session *session, struct limit *limit)
{
    if (limit->wanted_ms == 0 || s->now.mono_ms - limit->wanted_ms > 2 * TICK_MS ||
        s->now.mono_ms - session->opened_ms < YIELD_MS) {
        return false;
    }
    limit->wanted_ms = 0; /* one is enough; who still waits says so again */
    session->site->yielded = true;
    return true;
}

static bool worn_out(struct bh_sched *s, const struct session *session)
{
    return (session->life_ms > 0 && s->now.mono_ms - session->opened_ms >= session->life_ms) ||
           (session->messages_max > 0 && session->messages >= session->messages_max) ||
           yields_to(s, session, &s->limit) || yields_to(s, session, &session->connector->limit) ||
           (session->host_count > 0 && yields_to(s, session, &session->hosts[0]->limit));
}

static struct session *idle_session(const struct site *site)
{
    return site->idle != NULL ? BH_CONTAINER(site->idle, struct session, idle_site) : NULL;
}

/* Opening */

static bool recently(const struct bh_sched *s, uint64_t success_ms)
{
    return success_ms > 0 && s->now.mono_ms - success_ms < SUCCESS_RECENT_MS;
}

/* It, or another destination behind the same hosts. */
static bool recently_succeeded(const struct bh_sched *s, const struct dest *d)
{
    return recently(s, d->success_ms) || recently(s, d->site->success_ms);
}

/* A limit shared with others: who has not delivered lately gets at most half of it (promise 4). */
static bool shared_allows(const struct limit *limit, uint32_t max, bool proven)
{
    const uint32_t half = max > 1 ? max / 2 : 1;
    return max == 0 || (limit->sessions < max && (proven || limit->unproven < half));
}

/* A shared limit is met: somebody's idle session may go, one for each site that waits. Where only
 * the half for the unproven is used up, the end of a proven one would not help. */
static void want(struct bh_sched *s, struct dest *d, enum bh_sched_limit by, struct limit *limit,
                 uint32_t max, struct session *idle)
{
    struct site *site = d->site;
    const bool full = limit->sessions >= max;
    d->limited = by;
    site_block(s, site);
    if (full && site->session_count == 0) {
        limit->wanted_ms = sched_mark(s);
    }
    /* Once that one is gone and its place taken by somebody else, another may be asked for. */
    const bool evicting = site->evicted != 0 && session_find(s, site->evicted) != NULL;
    if (idle != NULL && idle->site != site && (full || idle->unproven) && !evicting) {
        site->evicted = sched_session_close(s, idle) ? idle->id : 0;
    }
}

static struct session *longest_idle(const struct bh_sched *s)
{
    struct bh_heap_node *node = bh_heap_first(&s->session_timers);
    return node != NULL ? BH_CONTAINER(node, struct session, timer) : NULL;
}

static bool may_open(struct bh_sched *s, struct dest *d, bool proven)
{
    struct connector *c = d->connector;
    uint64_t next_us = 0;
    if (d->sessions >= d->window) {
        d->limited = BH_LIMITED_BY_DESTINATION;
        return false;
    }
    if (d->site->rest_until_ms > s->now.mono_ms) {
        d->limited = BH_LIMITED_BY_HOST;
        site_block(s, d->site);
        return false;
    }
    if (d->policy.first_alone && d->site->ready_count == 0 && d->site->session_count > 0) {
        d->limited = BH_LIMITED_BY_DESTINATION;
        return false;
    }
    if (rate_allows(s, d, d->opening + 1, &next_us) <= d->opening) {
        wait_for_rate(s, d, next_us); /* a session without work would only stand idle */
        return false;
    }
    if (!shared_allows(&c->limit, d->policy.connections_max, proven)) {
        want(s, d, BH_LIMITED_BY_CONNECTOR, &c->limit, d->policy.connections_max,
             c->idle != NULL ? BH_CONTAINER(c->idle, struct session, idle_connector) : NULL);
        return false;
    }
    if (!shared_allows(&s->limit, s->params.sessions_max, proven)) {
        want(s, d, BH_LIMITED_BY_TOTAL, &s->limit, s->params.sessions_max, longest_idle(s));
        return false;
    }
    return true;
}

/* The next addresses to try: not avoided, not at their limit, in the plan's order.
 * @param detour only of hosts that may take this one; NULL: all
 * @param full a host that is at its limit, or NULL */
static uint32_t choose_addresses(struct bh_sched *s, const struct dest *d, bool proven,
                                 const struct bh_sched_item *detour,
                                 struct bh_sched_address chosen[BH_ROUND_ADDRESSES_MAX],
                                 struct host **full)
{
    uint32_t count = 0;
    const struct site *site = d->site;
    *full = NULL;
    for (uint32_t i = 0; i < site->address_count && count < BH_ROUND_ADDRESSES_MAX; i++) {
        const struct site_address *a = &site->addresses[i];
        struct host *host = host_find(s, &a->address);
        if (site_avoids(s, a) ||
            (detour != NULL && !detour_can_take(detour, host_name(&a->address)))) {
            continue;
        }
        if (host == NULL || shared_allows(&host->limit, d->policy.per_host_max, proven)) {
            chosen[count++] = a->address;
        } else if (*full == NULL) {
            *full = host;
        }
    }
    return count;
}

/* @return NULL for want of memory, with nothing changed */
static struct session *create(struct bh_sched *s, struct dest *d, bool proven,
                              const struct bh_sched_address *addresses, uint32_t count)
{
    struct host *hosts[BH_ROUND_ADDRESSES_MAX];
    struct session *session = NULL;
    uint32_t got = 0;
    while (got < count && (hosts[got] = host_get(s, &addresses[got])) != NULL) {
        got++;
    }
    if (got == count) {
        session = session_create(s, d, !proven);
    }
    for (uint32_t i = 0; i < got; i++) {
        if (session != NULL) {
            session_add_host(session, hosts[i]);
        } else {
            host_release(s, hosts[i]);
        }
    }
    return session;
}

/* @param detour for this one: only to hosts that may take it, and for nothing else; NULL: for all
 * @param none   set where no address of those is left to try
 * @return false if nothing more can be opened for d now */
static bool open_one(struct bh_sched *s, struct dest *d, const struct bh_sched_item *detour,
                     bool *none)
{
    struct bh_sched_address chosen[BH_ROUND_ADDRESSES_MAX];
    struct host *full = NULL;
    const bool proven = recently_succeeded(s, d);
    *none = false;
    if (!may_open(s, d, proven)) {
        return false;
    }
    const uint32_t count = choose_addresses(s, d, proven, detour, chosen, &full);
    if (count == 0 && full != NULL) {
        want(s, d, BH_LIMITED_BY_HOST, &full->limit, d->policy.per_host_max,
             full->idle != NULL ? BH_CONTAINER(full->idle, struct session, idle_host) : NULL);
        return false;
    }
    if (count == 0 && detour != NULL) {
        *none = true;
        return false;
    }
    if (count == 0) {
        d->limited = BH_LIMITED_BY_HOST;
        site_block(s, d->site); /* all avoided until a penalty ends */
        return false;
    }
    struct session *session = create(s, d, proven, chosen, count);
    if (session == NULL) {
        sched_starve(s);
        return false;
    }
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_OPEN, d->id);
    if (action == NULL) {
        session_abandon(s, session);
        return false;
    }
    session->detour = detour != NULL;
    d->detours_opening += session->detour ? 1 : 0;
    d->site->evicted = 0;
    action->session = session->id;
    action->count = count;
    memcpy(action->addresses, chosen, count * sizeof(chosen[0]));
    return true;
}

bool lease_detours(struct bh_sched *s, struct dest *d, struct session *session)
{
    if (d->sessions - d->opening >= d->window || pace_waits(d)) {
        d->limited = BH_LIMITED_BY_DESTINATION;
        return false;
    }
    if (next_item(d, session, true) == NULL) {
        return false;
    }
    if (worn_out(s, session)) {
        (void)sched_session_close(s, session);
        return false;
    }
    return lease(s, d, session, true);
}

bool open_detour(struct bh_sched *s, struct dest *d, const struct bh_sched_item *item, bool *none)
{
    struct site *site = d->site;
    if (open_one(s, d, item, none)) {
        return true;
    }
    const bool shared = d->limited == BH_LIMITED_BY_CONNECTOR || d->limited == BH_LIMITED_BY_TOTAL;
    if (!*none && shared && site->idle != NULL) {
        (void)sched_session_close(s, idle_session(site)); /* the place may be held by our own */
    }
    return false;
}

/* Destinations with waiting items, each once, in turn; what an idle session can take is leased. */
static void lease_all(struct bh_sched *s, struct site *site)
{
    uint32_t tries = site->turn_count;
    struct session *session = idle_session(site);
    while (session != NULL && site->turn_first != NULL && tries > 0) {
        struct dest *d = site->turn_first;
        if (worn_out(s, session)) {
            if (!sched_session_close(s, session)) {
                return;
            }
            session = idle_session(site);
            continue;
        }
        if (!dest_may_run(s, d) || d->items == 0) {
            site_turn_remove(site, d);
            tries--;
            continue;
        }
        if (!may_lease(d)) {
            tries--;
            to_the_end(site, d);
        } else if (lease(s, d, session, false)) {
            session = idle_session(site); /* it may have more for the next session */
        } else {
            return; /* memory or rate: the same for those behind it, and it stays the first */
        }
    }
}

void site_step(struct bh_sched *s, struct site *site)
{
    detour_step_site(s, site);
    lease_all(s, site);
    if (site->turn_first == NULL && site->detouring == NULL) {
        site->evicted = 0;
    }
    if (site->idle != NULL || site->blocked || site->rate_waiting) {
        return; /* what waits is held back by something else than connections, or waits its turn */
    }
    bool none = false;
    for (struct dest *d = site->turn_first; d != NULL; d = d->turn_next) {
        if (!dest_may_run(s, d)) {
            continue;
        }
        d->limited = BH_LIMITED_BY_NOTHING;
        while (d->opening - d->detours_opening < d->items && open_one(s, d, NULL, &none)) {
        }
        if (d->limited != BH_LIMITED_BY_NOTHING && d->limited != BH_LIMITED_BY_DESTINATION) {
            break; /* the same for those behind it */
        }
    }
}
