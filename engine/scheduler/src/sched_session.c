#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

/* Sessions: connecting, idle, busy with a lease, or closing. */

struct session *session_find(const struct bh_sched *s, uint32_t id)
{
    unsigned char key[4];
    bh_put_be32(key, id);
    struct bh_map_node *node = bh_map_find(&s->sessions, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct session, node) : NULL;
}

static void count_in(struct limit *limit, const struct session *session)
{
    limit->sessions++;
    limit->unproven += session->unproven ? 1 : 0;
}

static void count_out(struct limit *limit, const struct session *session)
{
    BH_ASSERT(limit->sessions > 0);
    limit->sessions--;
    if (session->unproven) {
        BH_ASSERT(limit->unproven > 0);
        limit->unproven--;
    }
}

struct session *session_create(struct bh_sched *s, struct dest *d, bool unproven)
{
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    do {
        session->id = ++s->next_session;
        bh_put_be32(session->key, session->id);
        session->node.key = bh_slice(session->key, sizeof(session->key));
    } while (session->id == 0 || bh_map_find(&s->sessions, session->node.key) != NULL);
    if (bh_map_insert(&s->sessions, &session->node) != BH_OK) {
        free(session);
        return NULL;
    }
    session->state = SESSION_CONNECTING;
    session->dests[0] = d;
    session->dest_count = 1;
    session->connector = d->connector;
    session->opened_ms = s->now.mono_ms;
    session->life_ms = d->policy.connection_life_ms;
    session->messages_max = d->policy.messages_per_connection;
    session->idle_ms = d->policy.idle_ms;
    session->unproven = unproven;
    session->site = d->site;
    session->site_next = d->site->sessions;
    if (d->site->sessions != NULL) {
        d->site->sessions->site_prev = session;
    }
    d->site->sessions = session;
    d->site->session_count++;
    d->sessions++;
    d->opening++;
    count_in(&s->limit, session);
    count_in(&session->connector->limit, session);
    return session;
}

void session_add_host(struct session *session, struct host *host)
{
    BH_ASSERT(session->host_count < BH_ROUND_ADDRESSES_MAX);
    session->hosts[session->host_count++] = host;
    count_in(&host->limit, session);
}

void session_proven(struct bh_sched *s, struct session *session, const struct dest *d)
{
    for (uint32_t i = 0; i < session->dest_count; i++) {
        session->succeeded |= session->dests[i] == d ? UINT32_C(1) << i : 0;
    }
    session->delivered = true;
    session->site->success_ms = sched_mark(s);
    if (!session->unproven) {
        return;
    }
    count_out(&s->limit, session);
    count_out(&session->connector->limit, session);
    for (uint32_t i = 0; i < session->host_count; i++) {
        count_out(&session->hosts[i]->limit, session);
    }
    session->unproven = false;
    count_in(&s->limit, session);
    count_in(&session->connector->limit, session);
    for (uint32_t i = 0; i < session->host_count; i++) {
        count_in(&session->hosts[i]->limit, session);
    }
}

static void enter_idle(struct bh_sched *s, struct session *session)
{
    session->state = SESSION_IDLE;
    link_push(session->detour ? &session->site->idle_detours : &session->site->idle,
              &session->idle_site);
    link_push(&session->connector->idle, &session->idle_connector);
    if (session->host_count > 0) {
        link_push(&session->hosts[0]->idle, &session->idle_host);
    }
    sched_set_timer(s, &s->session_timers, &session->timer, s->now.mono_ms + session->idle_ms);
}

static void leave_idle(struct bh_sched *s, struct session *session)
{
    link_remove(&session->idle_site);
    link_remove(&session->idle_connector);
    link_remove(&session->idle_host);
    bh_heap_remove(&s->session_timers, &session->timer);
}

void session_begin_lease(struct bh_sched *s, struct session *session, struct dest *d)
{
    if (session->dest_count == 0) {
        BH_ASSERT(session->state == SESSION_IDLE);
        leave_idle(s, session);
        session->state = SESSION_BUSY;
        session->succeeded = 0;
        session->leased_ms = s->now.mono_ms;
    }
    BH_ASSERT(session->state == SESSION_BUSY && session->dest_count < BH_LEASE_ITEMS_MAX);
    session->dests[session->dest_count++] = d;
    d->sessions++;
}

bool sched_session_close(struct bh_sched *s, struct session *session)
{
    BH_ASSERT(session->state == SESSION_IDLE);
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_CLOSE, 0);
    if (action == NULL) {
        return false;
    }
    action->session = session->id;
    leave_idle(s, session);
    session->state = SESSION_CLOSING;
    session->site->ready_count--;
    return true;
}

void session_timer_fired(struct bh_sched *s, struct session *session)
{
    if (!sched_session_close(s, session)) {
        sched_set_timer(s, &s->session_timers, &session->timer, s->now.mono_ms + TICK_MS);
    }
}

/* Who had it, by id: stepping one of them may free another. */
struct released {
    uint32_t ids[BH_LEASE_ITEMS_MAX];
    uint32_t count;
};

/* The destinations that opened it, or were leased to it, have one session less. */
static struct released release_dests(struct session *session)
{
    struct released released = {.count = session->dest_count};
    for (uint32_t i = 0; i < session->dest_count; i++) {
        struct dest *d = session->dests[i];
        BH_ASSERT(d->sessions > 0);
        d->sessions--;
        if (session->state == SESSION_CONNECTING) {
            BH_ASSERT(d->opening > 0);
            d->opening--;
            d->detours_opening -= session->detour ? 1 : 0;
        }
        released.ids[i] = d->id;
    }
    session->dest_count = 0;
    return released;
}

/* Of the hosts that it could have reached, those that it did not connect to are not charged. */
static void return_unreached(struct bh_sched *s, struct session *session,
                             const struct bh_sched_address *reached, uint32_t count)
{
    const struct dest *d = session->dest_count > 0 ? session->dests[0] : NULL;
    if (session->state != SESSION_CONNECTING || d == NULL || !d->paced ||
        d->connector != session->connector) {
        return;
    }
    for (uint32_t i = 0; i < session->host_count; i++) {
        bool was = false;
        for (uint32_t k = 0; k < count; k++) {
            was = was || host_find(s, &reached[k]) == session->hosts[i];
        }
        if (!was) {
            rate_return_connection(s, d, session->hosts[i], session->opened_ms);
        }
    }
}

static void release_hosts(struct bh_sched *s, struct session *session)
{
    while (session->host_count > 0) {
        struct host *host = session->hosts[--session->host_count];
        count_out(&host->limit, session);
        host_release(s, host);
    }
}

/* Out of all counts and lists, and freed; its site stays. */
static void destroy(struct bh_sched *s, struct session *session)
{
    struct site *site = session->site;
    BH_ASSERT(session->leased == 0 && session->dest_count == 0);
    if (session->state == SESSION_IDLE) {
        leave_idle(s, session);
    }
    if (session->state == SESSION_IDLE || session->state == SESSION_BUSY) {
        site->ready_count--;
    }
    if (session->site_prev != NULL) {
        session->site_prev->site_next = session->site_next;
    } else {
        site->sessions = session->site_next;
    }
    if (session->site_next != NULL) {
        session->site_next->site_prev = session->site_prev;
    }
    site->session_count--;
    release_hosts(s, session);
    count_out(&s->limit, session);
    count_out(&session->connector->limit, session);
    sched_connector_release(s, session->connector);
    bh_map_remove(&s->sessions, &session->node);
    free(session);
}

void session_abandon(struct bh_sched *s, struct session *session)
{
    (void)release_dests(session);
    destroy(s, session);
}

/* Events */

/* The destinations, stepped, unless they were freed meanwhile. */
static void step_again(struct bh_sched *s, const struct released *released)
{
    for (uint32_t i = 0; i < released->count; i++) {
        struct dest *d = dest_find(s, released->ids[i]);
        if (d != NULL) {
            dest_step(s, d);
        }
    }
}

void bh_sched_session_ready(struct bh_sched *s, uint32_t session_id,
                            const struct bh_sched_address *address, struct bh_now now)
{
    struct session *session = session_find(s, session_id);
    s->now = now;
    if (session == NULL || session->state != SESSION_CONNECTING) {
        return;
    }
    struct host *host = host_get(s, address);
    return_unreached(s, session, address, 1);
    if (host != NULL) {
        count_in(&host->limit, session);
        release_hosts(s, session);
        session->hosts[session->host_count++] = host;
    }
    struct site *site = session->site;
    site->false_starts = 0;
    site->clear_until_ms = session->clear ? site->clear_until_ms : 0; /* TLS is well again */
    session->name = host_name(address);
    const struct released released = release_dests(session);
    enter_idle(s, session);
    site->ready_count++;
    site_recovered(s, site, session->clear);
    site_step(s, site);
    step_again(s, &released);
    site_step_blocked(s, BLOCKED_STEPS); /* hosts that it did not need came free */
}

static void grow_window(struct bh_sched *s, struct dest *d)
{
    const uint32_t max = pace_window_max(s, d);
    const uint32_t start = d->policy.per_destination_start;
    uint32_t window = d->window + 1;
    if (d->window < start) {
        window = d->window * 2 < start ? d->window * 2 : start;
    }
    d->window = window < max ? window : max;
}

/* A lease costs the hops between threads, whatever it holds, and a write and a read of its socket.
 * To spread what waits over all idle sessions gains time only where the partner is far, or slow:
 * there one message at a time is a quick lease at best. */
void bh_sched_session_took(struct bh_sched *s, uint32_t session_id, uint64_t ms)
{
    const struct session *session = session_find(s, session_id);
    if (session == NULL || session->state != SESSION_BUSY) {
        return;
    }
    struct site *site = session->site;
    if (ms > QUICK_MS) {
        site->together = site->together > 1 ? site->together / 2 : 1;
    } else if (session->lease_items >= site->together && site->together < TOGETHER_MAX) {
        site->together++;
    }
}

void bh_sched_session_idle(struct bh_sched *s, uint32_t session_id, struct bh_now now)
{
    struct session *session = session_find(s, session_id);
    s->now = now;
    if (session == NULL || session->state != SESSION_BUSY) {
        return;
    }
    BH_ASSERT(session->leased == 0);
    const struct released released = release_dests(session);
    enter_idle(s, session);
    for (uint32_t i = 0; i < released.count; i++) {
        struct dest *d = dest_find(s, released.ids[i]);
        if ((session->succeeded >> i & 1) != 0 && d != NULL && dest_may_run(s, d)) {
            grow_window(s, d);
        }
    }
    site_step(s, session->site);
    step_again(s, &released);
    site_step_blocked(s, BLOCKED_STEPS);
}

static void shrink_windows(struct bh_sched *s, const struct released *released)
{
    for (uint32_t i = 0; i < released->count; i++) {
        struct dest *d = dest_find(s, released->ids[i]);
        if (d != NULL && d->window > 1) {
            pace_shrink(d);
        }
    }
}

/* It ended in good order: what came of it? Somebody who opens sessions only to close them again
 * must not do so in circles. */
static void note_good_end(struct bh_sched *s, const struct session *session)
{
    struct site *site = session->site;
    const bool nothing_tried = session->state == SESSION_BUSY && session->messages == 0;
    site->false_starts += session->state == SESSION_CONNECTING ? 1 : 0;
    if (nothing_tried || site->false_starts >= FALSE_STARTS_MAX) {
        site->rest_until_ms = s->now.mono_ms + TICK_MS;
    }
}

void bh_sched_session_closed(struct bh_sched *s, uint32_t session_id,
                             const struct bh_sched_address *failed, uint32_t failed_count,
                             enum bh_sched_fault fault, const struct bh_outcome *outcome,
                             struct bh_now now)
{
    struct session *session = session_find(s, session_id);
    s->now = now;
    if (session == NULL) {
        return;
    }
    struct site *site = session->site;
    struct bh_sched_address first = {0};
    const enum session_state state = session->state;
    const bool delivered = session->delivered;
    if (failed_count == 0 && session->host_count > 0) {
        host_address(session->hosts[0],
                     &first); /* somebody must be avoided, or it goes in circles */
        failed = &first;
        failed_count = 1;
    }
    if (outcome == NULL) {
        note_good_end(s, session);
    } else {
        return_unreached(s, session, failed, failed_count);
    }
    const struct released released = release_dests(session);
    struct dest *d = released.count > 0 ? dest_find(s, released.ids[0]) : NULL;
    site->pins++;
    destroy(s, session);
    if (outcome != NULL && delivered && d != NULL) {
        shrink_windows(s, &released); /* a partner that ends a working connection wants fewer */
    } else if (outcome != NULL && !delivered &&
               (state == SESSION_CONNECTING || state == SESSION_BUSY)) {
        site_session_failed(s, site, d, failed, failed_count, fault, outcome);
    }
    site_step_blocked(s, BLOCKED_STEPS); /* those who wait come before the site itself */
    site->yielded = false;
    step_again(s, &released);
    site_step(s, site);
    site->pins--;
    site_release(s, site);
}
