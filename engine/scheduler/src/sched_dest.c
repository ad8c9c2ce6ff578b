#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

struct dest *dest_find(const struct bh_sched *s, uint32_t id)
{
    unsigned char key[4];
    bh_put_be32(key, id);
    struct bh_map_node *node = bh_map_find(&s->dests, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct dest, node) : NULL;
}

uint32_t dest_round_max(const struct dest *d)
{
    const uint32_t wanted = d != NULL ? d->policy.round_addresses_max : 0;
    return wanted > 0 && wanted < BH_ROUND_ADDRESSES_MAX ? wanted : BH_ROUND_ADDRESSES_MAX;
}

bool dest_may_run(const struct bh_sched *s, const struct dest *d)
{
    return d->policy.active && !d->held && d->backoff_until_unix_ms <= s->now.unix_ms;
}

void dest_destroy(struct bh_sched *s, struct dest *d)
{
    if (d->site != NULL) {
        site_detach(s, d);
    }
    item_free_all(s, d);
    bh_heap_remove(&s->dest_timers, &d->timer);
    bh_map_remove(&s->dests, &d->node);
    d->connector->dests--;
    sched_connector_release(s, d->connector);
    free(d);
}

/* When a rate of its own lets it go on. */
static uint64_t pace_ends_ms(const struct bh_sched *s, const struct dest *d)
{
    uint64_t at = UINT64_MAX;
    if (d->items + d->detours > 0 && d->pace_until_ms > s->now.mono_ms) {
        at = d->pace_until_ms;
    }
    if (d->items + d->detours > 0 && d->open_at_ms > s->now.mono_ms && d->open_at_ms < at) {
        at = d->open_at_ms;
    }
    return at;
}

void dest_arm_timer(struct bh_sched *s, struct dest *d)
{
    uint64_t at = UINT64_MAX;
    if (d->policy.active && !d->held) {
        if (d->backoff_until_unix_ms > s->now.unix_ms) {
            at = sched_mono_of(s, d->backoff_until_unix_ms);
        } else if (d->next_due_unix_ms != INT64_MAX) {
            at = sched_mono_of(s, d->next_due_unix_ms);
        }
        if ((d->pace_until_ms | d->open_at_ms) != 0) {
            const uint64_t paced = pace_ends_ms(s, d);
            at = paced < at ? paced : at;
        }
    }
    if (d->idle_since_ms > 0 && d->idle_since_ms + DEST_IDLE_MS < at) {
        at = d->idle_since_ms + DEST_IDLE_MS;
        if (at <= s->now.mono_ms) {
            at = s->now.mono_ms + TICK_MS; /* it should have gone, but memory was short */
        }
    }
    sched_set_timer(s, &s->dest_timers, &d->timer, at);
}

/* Nothing is under way that will come back to it. */
static bool at_rest(const struct dest *d)
{
    return d->items == 0 && d->detours == 0 && d->leased_count == 0 && d->sessions == 0 &&
           !d->resolving && !d->refilling;
}

/* A destination at rest leaves memory: at once when there are many, else after a while. The store's
 * wake row brings back what waits for a time. @return true if it was freed */
static bool maybe_forget(struct bh_sched *s, struct dest *d)
{
    const bool waits = !dest_may_run(s, d) || !d->has_entries;
    if (!at_rest(d) || !waits) {
        d->idle_since_ms = 0;
        return false;
    }
    if (d->idle_since_ms == 0) {
        d->idle_since_ms = sched_mark(s);
    }
    const bool backing_off = d->backoff_until_unix_ms > s->now.unix_ms;
    const bool keep = s->dests.count <= DEST_KEEP_MAX &&
                      (backing_off || s->now.mono_ms - d->idle_since_ms < DEST_IDLE_MS);
    if (keep) {
        if (backing_off) {
            d->idle_since_ms = sched_mark(s);
        }
        return false;
    }
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_FORGET, d->id);
    if (action == NULL) {
        return false;
    }
    if (!rate_put_owing(s, d)) {
        sched_unemit(s);
        sched_starve(s);
        return false;
    }
    dest_destroy(s, d);
    return true;
}

static void emit_endings(struct bh_sched *s, struct dest *d)
{
    while (d->first != NULL) {
        struct bh_sched_action *action = sched_emit(s, BH_SCHED_LEASE, d->id);
        if (action == NULL) {
            return;
        }
        while (d->first != NULL && action->count < BH_LEASE_ITEMS_MAX) {
            action->items[action->count++] = d->first;
            item_lease(s, d, d->first, NULL);
        }
    }
}

static uint32_t entry_items(const struct dest *d)
{
    return d->items - d->fresh_items;
}

/* By what waits of the entry lane alone: a stream of fresh mail must not keep retries out. */
static void want_refill(struct bh_sched *s, struct dest *d)
{
    if (!d->has_entries || d->refilling || entry_items(d) >= LOW_WATER) {
        return;
    }
    if (d->in_vain && s->now.mono_ms - d->refill_ms < TICK_MS) {
        /* It would bring what was skipped a moment ago, again and again. */
        const int64_t later = s->now.unix_ms + TICK_MS;
        d->next_due_unix_ms = d->next_due_unix_ms < later ? d->next_due_unix_ms : later;
        return;
    }
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_REFILL, d->id);
    if (action != NULL) {
        action->count = BH_WINDOW_ITEMS_MAX + d->leased_count;
        d->refilling = true;
        d->in_vain = false;
        d->refill_ms = s->now.mono_ms;
        d->has_entries = false; /* a note that arrives meanwhile sets it again */
    }
}

static void set_backoff(struct bh_sched *s, struct dest *d, int64_t until_unix_ms)
{
    d->backoff_until_unix_ms = until_unix_ms;
    d->backoff_until_mono_ms = sched_mono_of(s, until_unix_ms);
}

/* A password that was wrong a moment ago for another destination is so for this one, too: it is
 * tried again with the other's. */
static void dest_refused(struct bh_sched *s, struct dest *d)
{
    const uint64_t until_ms = d->site->refused_until_ms;
    dest_failed(s, d, BH_SCHED_OURS, &d->site->refused, true);
    if (d->backoff_until_mono_ms < until_ms) {
        set_backoff(s, d, s->now.unix_ms + (int64_t)(until_ms - s->now.mono_ms));
    }
}

static void step_runnable(struct bh_sched *s, struct dest *d)
{
    want_refill(s, d);
    if (d->items == 0 && d->detours == 0) {
        return;
    }
    if (d->plan_until_ms <= s->now.mono_ms) {
        if (!d->resolving && sched_emit(s, BH_SCHED_RESOLVE, d->id) != NULL) {
            d->resolving = true;
        }
        return;
    }
    if (d->ending) {
        detour_end_all(s, d);
        emit_endings(s, d);
    } else if (d->site != NULL) {
        struct bh_outcome outcome;
        if (d->policy.first_alone && site_refuses(s, d->site)) {
            dest_refused(s, d);
            return;
        }
        if (site_is_dead(s, d->site, &outcome)) {
            dest_failed(s, d, BH_SCHED_THEIRS, &outcome, true);
            return;
        }
        if (!d->in_turn && d->items > 0 && d->pace_until_ms <= s->now.mono_ms) {
            site_turn_add(d->site, d);
        }
        site_step_soon(s, d->site);
    }
}

void dest_step(struct bh_sched *s, struct dest *d)
{
    flow_look(s, d);
    if (dest_may_run(s, d)) {
        step_runnable(s, d);
    } else {
        item_drop_window(s, d);
    }
    if (!maybe_forget(s, d)) {
        dest_arm_timer(s, d);
    }
}

/* When it tries TLS again, all its mail being too young to go in clear: after its interval, or when
 * the first is old enough if that comes earlier. Not a stage further: it is no failed round. */
static int64_t retry_of_young(struct bh_sched *s, struct dest *d, int64_t first_unix_ms)
{
    uint32_t stage = 0;
    const int64_t soonest = s->now.unix_ms + (int64_t)penalty_ms(d);
    const int64_t until =
        bh_retry_destination(&d->policy.retry, &d->glitches, &stage, &s->rng, s->now.unix_ms);
    const int64_t old_enough = first_unix_ms > soonest ? first_unix_ms : soonest;
    return old_enough < until ? old_enough : until;
}

/* @param young none of its mail may go in clear yet */
static void fail(struct bh_sched *s, struct dest *d, enum bh_sched_fault fault,
                 const struct bh_outcome *outcome, bool by_site, bool young)
{
    sched_keep_said(&d->said, outcome, s->now.unix_ms);
    if (!dest_may_run(s, d)) {
        return; /* what was still under way when it stopped says nothing new */
    }
    if (fault == BH_SCHED_OURS && outcome != NULL && outcome->stage == BH_STAGE_AUTH) {
        d->glitches = d->policy.retry.glitches; /* a wrong password is no glitch */
    }
    struct bh_sched_action *action =
        sched_emit(s, fault == BH_SCHED_OURS ? BH_SCHED_PARK : BH_SCHED_BACKOFF, d->id);
    bool never = false;
    const int64_t first_unix_ms = young ? clear_first(d, &never) : 0;
    set_backoff(s, d,
                young ? retry_of_young(s, d, first_unix_ms)
                      : bh_retry_destination(&d->policy.retry, &d->glitches, &d->stage, &s->rng,
                                             s->now.unix_ms));
    d->young = young;
    d->parked = fault == BH_SCHED_OURS;
    d->by_site = by_site;
    d->was_failing = true;
    d->window = 1; /* recovery is ramped */
    d->streak = 0;
    d->streak_several = false;
    d->plan_until_ms = 0; /* the next round asks again who its hosts are */
    d->has_entries = true;
    if (action != NULL) {
        action->stage = d->stage;
        action->glitches = d->glitches;
        action->until_unix_ms = d->backoff_until_unix_ms;
        action->young = young;
        /* What is young was not tried in every way that it has. */
        if (fault == BH_SCHED_THEIRS && (!young || never)) {
            (void)sched_emit(s, BH_SCHED_FAILED_ROUND, d->id);
        }
    }
    item_drop_window(s, d);
}

void dest_failed(struct bh_sched *s, struct dest *d, enum bh_sched_fault fault,
                 const struct bh_outcome *outcome, bool by_site)
{
    fail(s, d, fault, outcome, by_site, false);
}

void dest_too_young(struct bh_sched *s, struct dest *d)
{
    fail(s, d, BH_SCHED_THEIRS, &d->site->said.outcome, true, true);
    dest_arm_timer(s, d);
}

void dest_wait_too(struct bh_sched *s, struct dest *d, const struct dest *other)
{
    if (d->parked && d->by_site && d->backoff_until_mono_ms > s->now.mono_ms &&
        d->backoff_until_mono_ms < other->backoff_until_mono_ms) {
        set_backoff(s, d, other->backoff_until_unix_ms);
        dest_arm_timer(s, d);
    }
}

/* Events */

bool bh_sched_has(const struct bh_sched *s, uint32_t destination)
{
    return dest_find(s, destination) != NULL;
}

static struct dest *create(struct bh_sched *s, uint32_t id, struct connector *connector,
                           const struct bh_sched_dest_state *state)
{
    struct dest *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    d->id = id;
    d->last = &d->first;
    d->detour_last = &d->detour_first;
    d->next_due_unix_ms = INT64_MAX;
    bh_put_be32(d->key, id);
    d->node.key = bh_slice(d->key, sizeof(d->key));
    if (bh_map_insert(&s->dests, &d->node) != BH_OK) {
        free(d);
        return NULL;
    }
    rate_take_owing(s, d);
    d->connector = connector;
    connector->dests++;
    d->parked = state->parked;
    d->stage = state->stage;
    d->glitches = state->glitches;
    set_backoff(s, d, state->next_attempt_unix_ms);
    d->was_failing = d->parked || d->stage > 0 || d->glitches > 0;
    d->window = d->was_failing ? 1 : state->policy->per_destination_start;
    if (state->broken) {
        d->breaker.state = state->held ? BREAKER_OPEN : BREAKER_HALF;
        d->window = 1;
    }
    return d;
}

static void change_connector(struct bh_sched *s, struct dest *d, struct connector *connector)
{
    if (d->connector == connector) {
        return;
    }
    if (d->site != NULL) {
        site_detach(s, d); /* its sessions are of another policy */
    }
    d->plan_until_ms = 0;
    struct connector *old = d->connector;
    d->connector = connector;
    connector->dests++;
    old->dests--;
    sched_connector_release(s, old);
}

/* What waits by rates that have changed asks again. */
static void set_policy(struct bh_sched *s, struct dest *d, const struct bh_sched_policy *policy)
{
    static const struct bh_sched_rate none[BH_KINDS];
    struct connector *c = d->connector;
    const struct bh_sched_rate *own = policy->rates[BH_OF_CONNECTOR];
    const bool changed = memcmp(&d->policy.rates, &policy->rates, sizeof(policy->rates)) != 0 ||
                         memcmp(&c->rates, own, sizeof(c->rates)) != 0;
    d->policy = *policy;
    if (!changed) {
        return;
    }
    memcpy(c->rates, own, sizeof(c->rates));
    c->paced = memcmp(c->rates, none, sizeof(none)) != 0;
    d->paced = memcmp(policy->rates[BH_OF_DESTINATION], none, sizeof(none)) != 0 ||
               memcmp(policy->rates[BH_OF_HOST], none, sizeof(none)) != 0;
    d->pace_until_ms = 0;
    d->open_at_ms = 0;
    rate_hurry(s, c, d->site);
}

enum bh_status bh_sched_load(struct bh_sched *s, uint32_t destination,
                             const struct bh_sched_dest_state *state, struct bh_now now)
{
    const struct bh_sched_policy *policy = state->policy;
    BH_ASSERT(destination != 0);
    BH_ASSERT(policy->per_destination_max > 0 && policy->per_destination_start > 0);
    BH_ASSERT(policy->per_host_max > 0);
    BH_ASSERT(policy->retry.intervals > 0 && policy->retry.destination_intervals > 0);
    s->now = now;
    struct connector *connector = sched_connector(s, policy->connector);
    if (connector == NULL) {
        return BH_ENOMEM;
    }
    struct dest *d = dest_find(s, destination);
    if (d == NULL) {
        d = create(s, destination, connector, state);
        if (d == NULL) {
            sched_connector_release(s, connector);
            return BH_ENOMEM;
        }
    } else {
        change_connector(s, d, connector);
        if (d->parked && !state->parked) {
            d->parked = false; /* what was wrong on our side may be mended */
            d->backoff_until_unix_ms = 0;
            d->plan_until_ms = 0;
        }
    }
    set_policy(s, d, policy);
    d->held = state->held;
    d->has_entries = d->has_entries || state->has_entries;
    if (d->window > policy->per_destination_max) {
        d->window = policy->per_destination_max;
    }
    dest_step(s, d);
    return BH_OK;
}

enum bh_status bh_sched_carry(struct bh_sched *s, uint32_t destination,
                              const struct bh_sched_policy *policy, uint32_t stage,
                              uint32_t glitches, int64_t next_attempt_unix_ms, bool probe,
                              struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL) {
        return BH_ENOTFOUND;
    }
    struct connector *connector = sched_connector(s, policy->connector);
    if (connector == NULL) {
        return BH_ENOMEM;
    }
    change_connector(s, d, connector);
    set_policy(s, d, policy);
    d->plan_until_ms = 0;
    d->ending = false;
    d->parked = false;
    d->by_site = false;
    d->young = false;
    d->stage = stage;
    d->glitches = glitches;
    d->was_failing = probe;
    d->window = probe ? 1 : policy->per_destination_start;
    d->streak = 0;
    d->streak_several = false;
    d->has_entries = true;
    set_backoff(s, d, next_attempt_unix_ms);
    dest_step(s, d);
    return BH_OK;
}

void bh_sched_dirty(struct bh_sched *s, uint32_t destination, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d != NULL) {
        d->has_entries = true;
        dest_step(s, d);
    }
}

enum bh_status bh_sched_fresh(struct bh_sched *s, const struct bh_sched_item *item,
                              struct bh_now now)
{
    struct dest *d = dest_find(s, item->destination);
    bool added = false;
    BH_ASSERT(item->fresh);
    s->now = now;
    if (d == NULL) {
        return BH_ENOTFOUND;
    }
    if (d->fresh_items >= BH_FRESH_ITEMS_MAX) {
        return BH_ELIMIT; /* one slow destination must not fill the whole lane */
    }
    const struct bh_sched_item *known = item_find(s, d->id, item->id, item->part);
    if (known != NULL && known->settled) {
        return BH_EBUSY; /* what keeps its name is no place for it */
    }
    const enum bh_status status = item_add(s, d, item, &added);
    if (status == BH_OK) {
        dest_step(s, d);
    }
    return status;
}

void bh_sched_refilled(struct bh_sched *s, uint32_t destination, const struct bh_sched_item *items,
                       uint32_t count, bool more, int64_t next_due_unix_ms, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    uint32_t brought = 0;
    s->now = now;
    if (d == NULL) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        bool added = false;
        if (entry_items(d) >= BH_WINDOW_ITEMS_MAX) {
            more = true;
            break;
        }
        if (item_add(s, d, &items[i], &added) != BH_OK) {
            more = true;
            sched_starve(s);
            break;
        }
        brought += added ? 1 : 0;
    }
    const bool stuck = brought == 0 && d->settled == NULL;
    d->refilling = false;
    item_forget_settled(s, d);
    if (stuck && (more || next_due_unix_ms <= now.unix_ms)) {
        next_due_unix_ms = now.unix_ms + TICK_MS; /* all it saw is here already: not in circles */
    } else {
        d->has_entries = d->has_entries || more;
    }
    d->next_due_unix_ms = next_due_unix_ms;
    dest_step(s, d);
}

void bh_sched_flush(struct bh_sched *s, uint32_t destination, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL) {
        return;
    }
    d->backoff_until_unix_ms = 0;
    d->parked = false;
    d->by_site = false;
    d->has_entries = true;
    d->plan_until_ms = 0;
    if (d->site != NULL) {
        site_forgive(s, d->site);
    }
    dest_step(s, d);
}

void bh_sched_set_held(struct bh_sched *s, uint32_t destination, bool held, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d != NULL) {
        if (d->held && !held) {
            pace_released(d);
        }
        d->held = held;
        d->has_entries = true;
        dest_step(s, d);
    }
}

void bh_sched_drop_window(struct bh_sched *s, uint32_t destination, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d != NULL) {
        item_drop_window(s, d);
        d->has_entries = true;
        d->plan_until_ms = 0;
        dest_step(s, d);
    }
}

void bh_sched_dest_failed(struct bh_sched *s, uint32_t destination, enum bh_sched_fault fault,
                          const struct bh_outcome *outcome, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d != NULL) {
        d->resolving = false;
        dest_failed(s, d, fault, outcome, false);
        dest_step(s, d);
    }
}

void bh_sched_resolved_to_end(struct bh_sched *s, uint32_t destination, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d != NULL) {
        d->resolving = false;
        d->ending = true;
        if (d->site != NULL) {
            site_detach(s, d);
        }
        d->plan_until_ms = now.mono_ms + TICK_MS;
        dest_step(s, d);
    }
}

uint32_t bh_sched_next_dest(const struct bh_sched *s, uint32_t after)
{
    const struct dest *last = after != 0 ? dest_find(s, after) : NULL;
    BH_ASSERT(after == 0 || last != NULL);
    const struct bh_map_node *node = bh_map_next(&s->dests, last != NULL ? &last->node : NULL);
    return node != NULL ? bh_get_be32(node->key.ptr) : 0;
}
