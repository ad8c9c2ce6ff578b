#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

struct bh_sched *bh_sched_create(const struct bh_sched_params *params)
{
    struct bh_sched *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->params = *params;
    s->tick_ms = UINT64_MAX;
    s->due_last = &s->due_first;
    bh_rng_seed(&s->rng, params->seed);
    return s;
}

void bh_sched_destroy(struct bh_sched *s)
{
    if (s == NULL) {
        return;
    }
    struct bh_map_node *node = NULL;
    while ((node = bh_map_next(&s->sessions, NULL)) != NULL) {
        bh_map_remove(&s->sessions, node);
        free(BH_CONTAINER(node, struct session, node));
    }
    while ((node = bh_map_next(&s->dests, NULL)) != NULL) {
        dest_destroy(s, BH_CONTAINER(node, struct dest, node));
    }
    while ((node = bh_map_next(&s->sites, NULL)) != NULL) {
        bh_map_remove(&s->sites, node);
        free(BH_CONTAINER(node, struct site, node));
    }
    while ((node = bh_map_next(&s->owing, NULL)) != NULL) {
        bh_map_remove(&s->owing, node);
        free(BH_CONTAINER(node, struct owing, node));
    }
    while ((node = bh_map_next(&s->hosts, NULL)) != NULL) {
        bh_map_remove(&s->hosts, node);
        free(BH_CONTAINER(node, struct host, node));
    }
    while ((node = bh_map_next(&s->connectors, NULL)) != NULL) {
        bh_map_remove(&s->connectors, node);
        free(BH_CONTAINER(node, struct connector, node));
    }
    bh_map_fini(&s->dests);
    bh_map_fini(&s->sites);
    bh_map_fini(&s->hosts);
    bh_map_fini(&s->connectors);
    bh_map_fini(&s->sessions);
    bh_map_fini(&s->known);
    bh_map_fini(&s->owing);
    bh_heap_fini(&s->dest_timers);
    bh_heap_fini(&s->session_timers);
    bh_heap_fini(&s->rate_timers);
    bh_heap_fini(&s->host_timers);
    bh_heap_fini(&s->owing_timers);
    free(s->actions);
    free(s);
}

static bool grow_actions(struct bh_sched *s)
{
    const size_t cap = s->action_cap > 0 ? s->action_cap * 2 : 64;
    struct bh_sched_action *actions = malloc(cap * sizeof(*actions));
    if (actions == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->action_count; i++) {
        actions[i] = s->actions[(s->action_first + i) % s->action_cap];
    }
    free(s->actions);
    s->actions = actions;
    s->action_first = 0;
    s->action_cap = cap;
    return true;
}

void sched_starve(struct bh_sched *s)
{
    s->starved = true;
    s->tick_ms = s->now.mono_ms + TICK_MS;
}

struct bh_sched_action *sched_emit(struct bh_sched *s, enum bh_sched_action_kind kind,
                                   uint32_t destination)
{
    if (s->action_count == s->action_cap && !grow_actions(s)) {
        sched_starve(s);
        return NULL;
    }
    struct bh_sched_action *action =
        &s->actions[(s->action_first + s->action_count) % s->action_cap];
    s->action_count++;
    action->kind = kind;
    action->destination = destination;
    action->session = 0;
    action->count = 0;
    return action;
}

void sched_unemit(struct bh_sched *s)
{
    BH_ASSERT(s->action_count > 0);
    s->action_count--;
}

bool bh_sched_next(struct bh_sched *s, struct bh_sched_action *action)
{
    while (s->action_count == 0 && site_step_due(s)) {
    }
    if (s->action_count == 0) {
        return false;
    }
    *action = s->actions[s->action_first];
    s->action_first = (s->action_first + 1) % s->action_cap;
    s->action_count--;
    return true;
}

void sched_set_timer(struct bh_sched *s, struct bh_heap *heap, struct bh_heap_node *node,
                     uint64_t at_ms)
{
    if (at_ms == UINT64_MAX) {
        bh_heap_remove(heap, node);
    } else if (bh_heap_set(heap, node, at_ms) != BH_OK) {
        sched_starve(s);
    }
}

uint64_t sched_mark(const struct bh_sched *s)
{
    return s->now.mono_ms > 0 ? s->now.mono_ms : 1;
}

void link_push(struct link **head, struct link *link)
{
    link->next = *head;
    link->at = head;
    if (link->next != NULL) {
        link->next->at = &link->next;
    }
    *head = link;
}

void link_remove(struct link *link)
{
    if (link->at == NULL) {
        return;
    }
    *link->at = link->next;
    if (link->next != NULL) {
        link->next->at = link->at;
    }
    link->at = NULL;
    link->next = NULL;
}

uint64_t sched_mono_of(const struct bh_sched *s, int64_t unix_ms)
{
    if (unix_ms == INT64_MAX) {
        return UINT64_MAX;
    }
    return unix_ms <= s->now.unix_ms ? s->now.mono_ms
                                     : s->now.mono_ms + (uint64_t)(unix_ms - s->now.unix_ms);
}

struct connector *sched_connector(struct bh_sched *s, const char *name)
{
    struct bh_map_node *node = bh_map_find(&s->connectors, bh_slice_str(name));
    if (node != NULL) {
        return BH_CONTAINER(node, struct connector, node);
    }
    struct connector *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    memcpy(c->name, name, strlen(name) + 1);
    c->node.key = bh_slice_str(c->name);
    c->serial = ++s->next_serial;
    rate_init(c->buckets, c, NULL);
    if (bh_map_insert(&s->connectors, &c->node) != BH_OK) {
        free(c);
        return NULL;
    }
    return c;
}

void sched_connector_release(struct bh_sched *s, struct connector *c)
{
    if (c->dests > 0 || c->limit.sessions > 0 || rate_keeps(s, c->buckets)) {
        return; /* or a reload would forget what its rates owe */
    }
    bh_map_remove(&s->connectors, &c->node);
    free(c);
}

void sched_keep_said(struct bh_sched_said *said, const struct bh_outcome *outcome,
                     int64_t at_unix_ms)
{
    if (&said->outcome != outcome) {
        said->outcome = *outcome;
        struct bh_buf host = bh_buf(said->host, sizeof(said->host));
        struct bh_buf text = bh_buf(said->text, sizeof(said->text));
        bh_buf_add_cut(&host, outcome->host);
        bh_buf_add_cut(&text, outcome->text);
        said->outcome.host = bh_buf_slice(&host);
        said->outcome.text = bh_buf_slice(&text);
    }
    said->at_unix_ms = at_unix_ms;
}

uint64_t bh_sched_deadline_ms(const struct bh_sched *s)
{
    uint64_t deadline = s->tick_ms;
    const struct bh_heap *const heaps[] = {&s->dest_timers, &s->session_timers, &s->rate_timers,
                                           &s->host_timers, &s->owing_timers};
    for (size_t i = 0; i < BH_COUNT(heaps); i++) {
        const struct bh_heap_node *first = bh_heap_first(heaps[i]);
        if (first != NULL && first->at < deadline) {
            deadline = first->at;
        }
    }
    return deadline;
}

static void step_all(struct bh_sched *s)
{
    for (struct bh_map_node *node = bh_map_next(&s->dests, NULL); node != NULL;) {
        struct bh_map_node *next = bh_map_next(&s->dests, node);
        dest_step(s, BH_CONTAINER(node, struct dest, node));
        node = next;
    }
}

/* Timers that found no memory are set, and what waited for them is let go. */
static void rearm_all(struct bh_sched *s)
{
    struct bh_map_node *next = NULL;
    for (struct bh_map_node *node = bh_map_next(&s->sessions, NULL); node != NULL; node = next) {
        next = bh_map_next(&s->sessions, node);
        struct session *session = BH_CONTAINER(node, struct session, node);
        if (session->state == SESSION_IDLE && session->timer.index == 0) {
            session_timer_fired(s, session);
        }
    }
    for (struct bh_map_node *node = bh_map_next(&s->hosts, NULL); node != NULL; node = next) {
        next = bh_map_next(&s->hosts, node);
        host_release(s, BH_CONTAINER(node, struct host, node));
    }
    for (struct bh_map_node *node = bh_map_next(&s->connectors, NULL); node != NULL; node = next) {
        next = bh_map_next(&s->connectors, node);
        sched_connector_release(s, BH_CONTAINER(node, struct connector, node));
    }
    for (struct bh_map_node *node = bh_map_next(&s->owing, NULL); node != NULL; node = next) {
        next = bh_map_next(&s->owing, node);
        rate_release_owing(s, BH_CONTAINER(node, struct owing, node));
    }
}

static void tick_blocked(struct bh_sched *s)
{
    s->tick_ms = UINT64_MAX;
    if (s->starved) {
        s->starved = false;
        step_all(s);
        rearm_all(s);
    }
    site_step_blocked(s, 1024);
    if (s->blocked_first != NULL || s->starved) {
        s->tick_ms = s->now.mono_ms + TICK_MS;
    }
}

void bh_sched_tick(struct bh_sched *s, struct bh_now now)
{
    s->now = now;
    struct bh_heap_node *node = NULL;
    while ((node = bh_heap_first(&s->dest_timers)) != NULL && node->at <= now.mono_ms) {
        bh_heap_remove(&s->dest_timers, node);
        struct dest *d = BH_CONTAINER(node, struct dest, timer);
        if (d->next_due_unix_ms <= now.unix_ms) {
            d->next_due_unix_ms = INT64_MAX;
            d->has_entries = true;
        }
        dest_step(s, d);
    }
    while ((node = bh_heap_first(&s->session_timers)) != NULL && node->at <= now.mono_ms) {
        bh_heap_remove(&s->session_timers, node);
        session_timer_fired(s, BH_CONTAINER(node, struct session, timer));
    }
    while ((node = bh_heap_first(&s->rate_timers)) != NULL && node->at <= now.mono_ms) {
        bh_heap_remove(&s->rate_timers, node);
        rate_step(s, BH_CONTAINER(node, struct bucket, timer));
    }
    while ((node = bh_heap_first(&s->host_timers)) != NULL && node->at <= now.mono_ms) {
        bh_heap_remove(&s->host_timers, node);
        host_release(s, BH_CONTAINER(node, struct host, timer));
    }
    while ((node = bh_heap_first(&s->owing_timers)) != NULL && node->at <= now.mono_ms) {
        bh_heap_remove(&s->owing_timers, node);
        rate_release_owing(s, BH_CONTAINER(node, struct owing, timer));
    }
    if (s->tick_ms <= now.mono_ms) {
        tick_blocked(s);
    }
}

/* What was left of a back-off, by the monotonic clock or by the new wall clock: the shorter. The
 * former is wrong where the clock was wrong when the back-off was read, the latter when it stepped
 * back since. */
static void rederive_backoff(struct bh_sched *s, struct dest *d)
{
    if (d->backoff_until_unix_ms == 0) {
        return;
    }
    const uint64_t mono = d->backoff_until_mono_ms;
    const int64_t left = mono > s->now.mono_ms ? (int64_t)(mono - s->now.mono_ms) : 0;
    if (d->backoff_until_unix_ms - s->now.unix_ms <= left) {
        return;
    }
    d->backoff_until_unix_ms = s->now.unix_ms + left;
    struct bh_sched_action *action =
        sched_emit(s, d->parked ? BH_SCHED_PARK : BH_SCHED_BACKOFF, d->id);
    if (action != NULL) {
        action->stage = d->stage;
        action->glitches = d->glitches;
        action->until_unix_ms = d->backoff_until_unix_ms;
    }
}

void bh_sched_clock_stepped(struct bh_sched *s, struct bh_now now)
{
    s->now = now;
    for (struct bh_map_node *node = bh_map_next(&s->dests, NULL); node != NULL;) {
        struct bh_map_node *next = bh_map_next(&s->dests, node);
        struct dest *d = BH_CONTAINER(node, struct dest, node);
        rederive_backoff(s, d);
        if (d->next_due_unix_ms != INT64_MAX) {
            /* The store's due times are of the old clock; ask it anew. */
            d->next_due_unix_ms = INT64_MAX;
            d->has_entries = true;
        }
        dest_step(s, d);
        node = next;
    }
}

void bh_sched_totals(const struct bh_sched *s, struct bh_sched_totals *totals)
{
    *totals = (struct bh_sched_totals){
        .destinations = (uint32_t)s->dests.count,
        .sites = (uint32_t)s->sites.count,
        .sessions = (uint32_t)s->sessions.count,
        .items = s->items,
        .leased = s->leased,
        .lease_bytes = s->lease_bytes,
        .hosts = (uint32_t)s->hosts.count,
        .connectors = (uint32_t)s->connectors.count,
        .owing = (uint32_t)s->owing.count,
    };
}
