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

/* Why nothing was leased. */
enum refused {
    REFUSED_NOT,
    REFUSED_SITE,    /* memory, or its connector's rate: the same for all */
    REFUSED_DEST,    /* its own rate: it has left the turn */
    REFUSED_SESSION, /* the rate of the host: other sessions may go on */
};

/* The rest of it is read only where it says something of `by`. */
static void limited_by(struct dest *d, enum bh_sched_limit by)
{
    d->limited.by = by;
    d->limited.half = false;
}

static void limited_by_rate(struct dest *d, const struct held_back *by)
{
    d->limited =
        (struct bh_sched_limited){.by = BH_LIMITED_BY_RATE, .scope = by->scope, .kind = by->kind};
    if (by->scope == BH_OF_HOST) {
        host_address(by->bucket->host, &d->limited.host);
    }
}

/* No message of d passes now: who waits, waits until one does.
 * @param soonest of the hosts that hold sessions back */
static enum refused wait_for_rate(struct bh_sched *s, struct dest *d, const struct held_back *by,
                                  struct held_back *soonest)
{
    struct site *site = d->site;
    limited_by_rate(d, by);
    switch (by->scope) {
    case BH_OF_CONNECTOR:
        rate_wait(s, site, &site->lease_wait, by);
        return REFUSED_SITE;
    case BH_OF_DESTINATION:
        d->pace_until_ms = rate_ms(by->next_ns);
        if (d->in_turn) {
            site_turn_remove(site, d);
        }
        dest_arm_timer(s, d);
        return REFUSED_DEST;
    case BH_OF_HOST:
    case BH_SCOPES:
        break;
    }
    if (soonest->bucket == NULL || by->next_ns < soonest->next_ns) {
        *soonest = *by;
    }
    return REFUSED_SESSION;
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
static struct bh_sched_item *next_item(const struct bh_sched *s, const struct dest *d,
                                       const struct session *session, bool detours)
{
    struct bh_sched_item *item = detours ? d->detour_first : d->first;
    while (item != NULL && ((detours && !detour_can_take(item, session->name)) ||
                            (session->clear && !clear_may_go(s, item)))) {
        item = item->next;
    }
    return item;
}

/* A lease being made. */
struct making {
    struct session *session;
    struct bh_sched_action *action;
    uint64_t bytes;
    bool detours;
    struct held_back *soonest; /* of the hosts whose rate held a session back */
};

/* Move items of d, which has some, into the lease.
 * @return REFUSED_NOT if there was at least one */
static enum refused take(struct bh_sched *s, struct dest *d, struct making *m, uint32_t share)
{
    struct session *session = m->session;
    struct bh_sched_action *action = m->action;
    struct host *host = session->host_count > 0 ? session->hosts[0] : NULL;
    struct held_back by;
    struct bh_sched_item *item = next_item(s, d, session, m->detours);
    BH_ASSERT(item != NULL);
    if (!memory_allows(s, item->size)) {
        limited_by(d, BH_LIMITED_BY_MEMORY);
        site_block(s, d->site);
        return REFUSED_SITE;
    }
    const bool paced = is_paced(d);
    if (paced && !rate_allows_message(s, d, host, 0, &by)) {
        return wait_for_rate(s, d, &by, m->soonest);
    }
    share = bounded(d, session, share);
    uint32_t count = 0;
    while (count < share && action->count < BH_LEASE_ITEMS_MAX && item != NULL) {
        const uint64_t size = item->size;
        if (action->count > 0 &&
            (m->bytes + size > BH_LEASE_BYTES_MAX || !memory_allows(s, size))) {
            break;
        }
        if (paced && count > 0 && !rate_allows_message(s, d, host, 0, &by)) {
            break;
        }
        m->bytes += size;
        action->items[action->count++] = item;
        count++;
        if (paced) {
            rate_spend_message(s, d, session, item->recipients);
        }
        if (m->detours) {
            item_lease_detour(s, d, item, session);
        } else {
            item_lease(s, d, item, session);
        }
        item = next_item(s, d, session, m->detours);
    }
    session->messages += count;
    return count > 0 ? REFUSED_NOT : REFUSED_SITE;
}

/* May this destination have one more session? Its own limits say so, no shared one. */
static bool may_lease(struct dest *d)
{
    if (d->sessions - d->opening >= d->window || pace_waits(d)) {
        limited_by(d, pace_waits(d) ? BH_LIMITED_BY_TRIAL : BH_LIMITED_BY_DESTINATION);
        return false;
    }
    limited_by(d, BH_LIMITED_BY_NOTHING);
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
static void fill_up(struct bh_sched *s, struct site *site, struct making *m)
{
    struct session *session = m->session;
    const struct bh_sched_action *action = m->action;
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
        if (may_lease(d) && next_item(s, d, session, false) != NULL) {
            const uint32_t share = lease_share(d);
            const uint32_t left = want - action->count;
            const enum refused refused = take(s, d, m, share < left ? share : left);
            if (refused == REFUSED_DEST) {
                continue;
            }
            if (refused != REFUSED_NOT) {
                return;
            }
            session_begin_lease(s, session, d);
        }
        to_the_end(site, d);
    }
}

/* Lease the next items of d, which has some, to an idle session; of others, too, where they wait.
 */
static enum refused lease(struct bh_sched *s, struct dest *d, struct session *session, bool detours,
                          struct held_back *soonest)
{
    struct site *site = d->site;
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_LEASE, d->id);
    if (action == NULL) {
        return REFUSED_SITE;
    }
    struct making m = {
        .session = session, .action = action, .detours = detours, .soonest = soonest};
    action->session = session->id;
    const enum refused refused = take(s, d, &m, detours ? d->detours : lease_share(d));
    if (refused != REFUSED_NOT) {
        sched_unemit(s);
        return refused;
    }
    session_begin_lease(s, session, d);
    if (!detours) {
        to_the_end(site, d);
        fill_up(s, site, &m);
    }
    session->lease_items = action->count;
    return REFUSED_NOT;
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

static struct session *next_idle(const struct session *session)
{
    struct link *next = session->idle_site.next;
    return next != NULL ? BH_CONTAINER(next, struct session, idle_site) : NULL;
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
    d->limited.by = by;
    d->limited.half = !full;
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

/* A rate allows no further connection, or no message for it. Where it does, but for those that are
 * being opened already, what becomes of them is waited for. */
static bool wait_to_open(struct bh_sched *s, struct dest *d, const struct held_back *by)
{
    limited_by_rate(d, by);
    if (by->ahead) {
        return false;
    }
    if (by->bucket != NULL) {
        rate_wait(s, d->site, &d->site->open_wait, by);
        return false;
    }
    d->open_at_ms = rate_ms(by->next_ns);
    dest_arm_timer(s, d);
    return false;
}

static bool may_open(struct bh_sched *s, struct dest *d, bool proven,
                     const struct bh_sched_item *detour)
{
    struct connector *c = d->connector;
    struct held_back by;
    if (d->sessions >= d->window) {
        limited_by(d, BH_LIMITED_BY_DESTINATION);
        return false;
    }
    if (d->site->rest_until_ms > s->now.mono_ms ||
        (detour != NULL && site_is_clear(s, d->site) && !clear_may_go(s, detour))) {
        limited_by(d, BH_LIMITED_BY_REST);
        site_block(s, d->site);
        return false;
    }
    if (d->policy.first_alone && d->site->ready_count == 0 && d->site->session_count > 0) {
        limited_by(d, BH_LIMITED_BY_FIRST);
        return false;
    }
    const bool paced = is_paced(d);
    if (paced && !rate_allows_message(s, d, NULL, d->opening, &by)) {
        return wait_to_open(s, d, &by); /* a session without work would only stand idle */
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
    return !paced || rate_allows_connection(s, d, NULL, &by) || wait_to_open(s, d, &by);
}

/* What keeps hosts from being chosen. */
struct kept_off {
    struct host *full;      /* one that is at its limit, or NULL */
    struct held_back paced; /* the rate that ends soonest; bucket NULL: none */
};

/* Do its rates let one more connection be opened to this host, with a message to follow? */
static bool host_allows(const struct bh_sched *s, struct dest *d, struct host *host,
                        struct kept_off *off)
{
    struct held_back by;
    struct held_back later;
    const bool message = rate_allows_message(s, d, host, d->opening, &by);
    const bool connection = rate_allows_connection(s, d, host, &later);
    if (message && connection) {
        return true;
    }
    by = by.next_ns < later.next_ns ? later : by;
    if (off->paced.bucket == NULL || off->paced.ahead ||
        (!by.ahead && by.next_ns < off->paced.next_ns)) {
        off->paced = by;
    }
    return false;
}

/* The next addresses to try: not avoided, not at their limit, in the plan's order.
 * @param detour only of hosts that may take this one; NULL: all */
static uint32_t choose_addresses(struct bh_sched *s, struct dest *d, bool proven,
                                 const struct bh_sched_item *detour,
                                 struct bh_sched_address chosen[BH_ROUND_ADDRESSES_MAX],
                                 struct kept_off *off)
{
    uint32_t count = 0;
    const struct site *site = d->site;
    const uint32_t most = dest_round_max(d);
    *off = (struct kept_off){0};
    for (uint32_t i = 0; i < site->address_count && count < most; i++) {
        const struct site_address *a = &site->addresses[i];
        struct host *host = host_find(s, &a->address);
        if (site_avoids(s, a) ||
            (detour != NULL && !detour_can_take(detour, host_name(&a->address)))) {
            continue;
        }
        if (host == NULL) {
            chosen[count++] = a->address;
        } else if (!shared_allows(&host->limit, d->policy.per_host_max, proven)) {
            off->full = off->full != NULL ? off->full : host;
        } else if (!is_paced(d) || host_allows(s, d, host, off)) {
            chosen[count++] = a->address;
        }
    }
    return count;
}

/* Every host that may be tried is at a limit. @return false if there is none */
static bool wait_for_host(struct bh_sched *s, struct dest *d, const struct kept_off *off)
{
    if (off->paced.bucket != NULL) {
        (void)wait_to_open(s, d, &off->paced);
    }
    if (off->full == NULL) {
        return off->paced.bucket != NULL;
    }
    struct host *full = off->full;
    want(s, d, BH_LIMITED_BY_HOST, &full->limit, d->policy.per_host_max,
         full->idle != NULL ? BH_CONTAINER(full->idle, struct session, idle_host) : NULL);
    host_address(full, &d->limited.host);
    return true;
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
    struct kept_off off;
    const bool proven = recently_succeeded(s, d);
    *none = false;
    if (!may_open(s, d, proven, detour)) {
        return false;
    }
    const uint32_t count = choose_addresses(s, d, proven, detour, chosen, &off);
    if (count == 0 && wait_for_host(s, d, &off)) {
        return false;
    }
    if (count == 0 && detour != NULL) {
        *none = true;
        return false;
    }
    if (count == 0) {
        limited_by(d, BH_LIMITED_BY_AVOIDED);
        site_block(s, d->site); /* until a penalty ends */
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
    rate_spend_connection(s, d, session);
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
    struct held_back soonest = {0};
    if (next_item(s, d, session, true) == NULL || d->pace_until_ms > s->now.mono_ms ||
        !may_lease(d)) {
        return false;
    }
    if (worn_out(s, session)) {
        (void)sched_session_close(s, session);
        return false;
    }
    const enum refused refused = lease(s, d, session, true, &soonest);
    if (refused == REFUSED_SESSION) {
        rate_wait(s, d->site, &d->site->lease_wait, &soonest);
    }
    return refused == REFUSED_NOT;
}

bool open_detour(struct bh_sched *s, struct dest *d, const struct bh_sched_item *item, bool *none)
{
    struct site *site = d->site;
    if (open_one(s, d, item, none)) {
        return true;
    }
    const bool shared =
        d->limited.by == BH_LIMITED_BY_CONNECTOR || d->limited.by == BH_LIMITED_BY_TOTAL;
    if (!*none && shared && site->idle != NULL) {
        (void)sched_session_close(s, idle_session(site)); /* the place may be held by our own */
    }
    return false;
}

/* Destinations with waiting items, each once, in turn; what an idle session can take is leased.
 * @return true if what is idle is held back by the rates of its hosts alone */
static bool lease_all(struct bh_sched *s, struct site *site)
{
    uint32_t tries = site->turn_count;
    struct held_back soonest = {0};
    struct session *session = idle_session(site);
    while (session != NULL && site->turn_first != NULL && tries > 0) {
        struct dest *d = site->turn_first;
        struct session *next = next_idle(session);
        if (worn_out(s, session)) {
            if (!sched_session_close(s, session)) {
                return false;
            }
            session = next;
            continue;
        }
        if (!dest_may_run(s, d) || d->items == 0) {
            site_turn_remove(site, d);
            tries--;
            continue;
        }
        if (!may_lease(d) || next_item(s, d, session, false) == NULL) {
            tries--;
            to_the_end(site, d);
            continue;
        }
        switch (lease(s, d, session, false, &soonest)) {
        case REFUSED_NOT: /* it may have more for the next session */
        case REFUSED_SESSION:
            session = next;
            break;
        case REFUSED_DEST:
            tries--;
            break;
        case REFUSED_SITE:
            site->limited = d->limited;
            return false; /* the same for those behind it, and it stays the first */
        }
    }
    if (soonest.bucket != NULL && site->turn_first != NULL) {
        rate_wait(s, site, &site->lease_wait, &soonest);
        return session == NULL;
    }
    return false;
}

/* Does this hold back all of a site, rather than this destination? */
static bool is_shared(const struct bh_sched_limited *limited)
{
    switch (limited->by) {
    case BH_LIMITED_BY_NOTHING:
    case BH_LIMITED_BY_DESTINATION:
    case BH_LIMITED_BY_FIRST:
    case BH_LIMITED_BY_TRIAL:
        return false;
    case BH_LIMITED_BY_RATE:
        return limited->scope != BH_OF_DESTINATION;
    case BH_LIMITED_BY_HOST:
    case BH_LIMITED_BY_CONNECTOR:
    case BH_LIMITED_BY_TOTAL:
    case BH_LIMITED_BY_MEMORY:
    case BH_LIMITED_BY_AVOIDED:
    case BH_LIMITED_BY_REST:
        break;
    }
    return true;
}

static bool waits_for_connector(const struct rate_wait *wait)
{
    return wait->at != NULL && wait->at->connector != NULL;
}

void site_step(struct bh_sched *s, struct site *site)
{
    detour_step_site(s, site);
    const bool hosts_hold_back = lease_all(s, site);
    if (!hosts_hold_back && !site->blocked && site->lease_wait.at == NULL) {
        clear_close_idle(s, site);
    }
    if (site->turn_first == NULL && site->detouring == NULL) {
        site->evicted = 0;
    }
    if ((site->idle != NULL && !hosts_hold_back) || site->blocked ||
        waits_for_connector(&site->open_wait) || waits_for_connector(&site->lease_wait)) {
        return; /* what waits is held back by something else than connections, or waits its turn */
    }
    bool none = false;
    struct dest *next = NULL;
    for (struct dest *d = site->turn_first; d != NULL; d = next) {
        next = d->turn_next;
        if (!dest_may_run(s, d)) {
            continue;
        }
        const bool clear = site_is_clear(s, site);
        const uint32_t items = clear ? clear_count(s, d, d->policy.per_destination_max) : d->items;
        if (clear && items == 0 && d->items > 0) {
            if (d->sessions == 0) { /* else when that has ended */
                dest_too_young(s, d);
            }
            continue;
        }
        limited_by(d, BH_LIMITED_BY_NOTHING);
        while (d->opening - d->detours_opening < items && open_one(s, d, NULL, &none)) {
        }
        if (is_shared(&d->limited)) {
            site->limited = d->limited;
            break; /* the same for those behind it */
        }
    }
}
