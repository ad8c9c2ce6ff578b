#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

/* Sites, the hosts behind them, and who waits for what they share. */

void site_release(struct bh_sched *s, struct site *site)
{
    if (site->dests == NULL && site->sessions == NULL && !site->blocked && !site->due &&
        site->pins == 0) {
        rate_unwait(s, site);
        bh_map_remove(&s->sites, &site->node);
        free(site);
    }
}

static void site_attach(struct site *site, struct dest *d)
{
    BH_ASSERT(d->site == NULL);
    d->site = site;
    d->site_prev = NULL;
    d->site_next = site->dests;
    if (site->dests != NULL) {
        site->dests->site_prev = d;
    }
    site->dests = d;
}

void site_detach(struct bh_sched *s, struct dest *d)
{
    struct site *site = d->site;
    detour_end_all(s, d);
    if (d->in_turn) {
        site_turn_remove(site, d);
    }
    if (d->site_prev != NULL) {
        d->site_prev->site_next = d->site_next;
    } else {
        site->dests = d->site_next;
    }
    if (d->site_next != NULL) {
        d->site_next->site_prev = d->site_prev;
    }
    d->site = NULL;
    d->site_next = NULL;
    d->site_prev = NULL;
    site_release(s, site);
}

void site_turn_add(struct site *site, struct dest *d)
{
    BH_ASSERT(!d->in_turn && d->site == site);
    d->in_turn = true;
    d->turn_next = NULL;
    d->turn_prev = site->turn_last;
    if (site->turn_last != NULL) {
        site->turn_last->turn_next = d;
    } else {
        site->turn_first = d;
    }
    site->turn_last = d;
    site->turn_count++;
}

void site_turn_remove(struct site *site, struct dest *d)
{
    BH_ASSERT(d->in_turn && site->turn_count > 0);
    if (d->turn_prev != NULL) {
        d->turn_prev->turn_next = d->turn_next;
    } else {
        site->turn_first = d->turn_next;
    }
    if (d->turn_next != NULL) {
        d->turn_next->turn_prev = d->turn_prev;
    } else {
        site->turn_last = d->turn_prev;
    }
    d->turn_next = NULL;
    d->turn_prev = NULL;
    d->in_turn = false;
    site->turn_count--;
}

/* Hosts */

static void host_key(unsigned char key[19], const struct bh_sched_address *address)
{
    key[0] = address->ip.family;
    memcpy(key + 1, address->ip.bytes, 16);
    bh_put_be16(key + 17, address->port);
}

void host_address(const struct host *host, struct bh_sched_address *address)
{
    *address = (struct bh_sched_address){.port = bh_get_be16(host->key + 17)};
    address->ip.family = host->key[0];
    memcpy(address->ip.bytes, host->key + 1, sizeof(address->ip.bytes));
}

struct host *host_find(const struct bh_sched *s, const struct bh_sched_address *address)
{
    unsigned char key[19];
    host_key(key, address);
    struct bh_map_node *node = bh_map_find(&s->hosts, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct host, node) : NULL;
}

struct host *host_get(struct bh_sched *s, const struct bh_sched_address *address)
{
    struct host *host = host_find(s, address);
    if (host != NULL) {
        return host;
    }
    host = calloc(1, sizeof(*host));
    if (host == NULL) {
        return NULL;
    }
    host_key(host->key, address);
    host->node.key = bh_slice(host->key, sizeof(host->key));
    rate_init(host->buckets, NULL, host);
    if (bh_map_insert(&s->hosts, &host->node) != BH_OK) {
        free(host);
        return NULL;
    }
    return host;
}

void host_release(struct bh_sched *s, struct host *host)
{
    if (host->limit.sessions > 0) {
        return;
    }
    if (host->failed_until_ms > s->now.mono_ms) {
        sched_set_timer(s, &s->host_timers, &host->timer, host->failed_until_ms);
        return;
    }
    if (rate_keeps(s, host->buckets)) {
        return;
    }
    bh_heap_remove(&s->host_timers, &host->timer);
    bh_map_remove(&s->hosts, &host->node);
    free(host);
}

bool site_avoids(const struct bh_sched *s, const struct site_address *a)
{
    const struct host *host = host_find(s, &a->address);
    return a->failed_until_ms > s->now.mono_ms ||
           (host != NULL && host->failed_until_ms > s->now.mono_ms);
}

static bool any_address_left(const struct bh_sched *s, const struct site *site)
{
    for (uint32_t i = 0; i < site->address_count; i++) {
        if (!site_avoids(s, &site->addresses[i])) {
            return true;
        }
    }
    return false;
}

void site_forgive(struct bh_sched *s, struct site *site)
{
    for (uint32_t i = 0; i < site->address_count; i++) {
        site->addresses[i].failed_until_ms = 0;
        struct host *host = host_find(s, &site->addresses[i].address);
        if (host != NULL) {
            host->failed_until_ms = 0;
            host_release(s, host);
        }
    }
    site->failed = false;
    site->round_failures = 0;
    site->clear_until_ms = 0;
    site->refused_until_ms = 0;
}

/* Plans */

static struct site *site_get(struct bh_sched *s, struct bh_slice key)
{
    struct bh_map_node *node = bh_map_find(&s->sites, key);
    if (node != NULL) {
        return BH_CONTAINER(node, struct site, node);
    }
    struct site *site = calloc(1, sizeof(*site) + key.len);
    if (site == NULL) {
        return NULL;
    }
    site->together = 1;
    memcpy(site->key, key.ptr, key.len);
    site->key_len = key.len;
    site->node.key = bh_slice(site->key, key.len);
    if (bh_map_insert(&s->sites, &site->node) != BH_OK) {
        free(site);
        return NULL;
    }
    return site;
}

/* The new list of addresses, with what is known to have failed carried over. */
static void site_set_addresses(struct site *site, const struct bh_sched_address *addresses,
                               uint32_t count)
{
    struct site_address fresh[BH_SITE_HOSTS_MAX] = {0};
    count = count < BH_SITE_HOSTS_MAX ? count : BH_SITE_HOSTS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        fresh[i] = (struct site_address){.address = addresses[i]};
        for (uint32_t k = 0; k < site->address_count; k++) {
            const struct bh_sched_address *old = &site->addresses[k].address;
            if (bh_ip_eq(&old->ip, &addresses[i].ip) && old->port == addresses[i].port) {
                fresh[i].failed_until_ms = site->addresses[k].failed_until_ms;
            }
        }
    }
    memcpy(site->addresses, fresh, count * sizeof(fresh[0]));
    site->address_count = count;
}

void bh_sched_resolved(struct bh_sched *s, uint32_t destination, struct bh_slice site_key,
                       const struct bh_sched_address *addresses, uint32_t count, uint64_t ttl_ms,
                       struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL) {
        return;
    }
    BH_ASSERT(count > 0);
    d->resolving = false;
    d->ending = false;
    if (d->site != NULL && !bh_slice_eq(d->site->node.key, site_key)) {
        site_detach(s, d);
    }
    if (d->site == NULL) {
        struct site *site = site_get(s, site_key);
        if (site == NULL) {
            sched_starve(s);
            return;
        }
        site_attach(site, d);
    }
    site_set_addresses(d->site, addresses, count);
    d->plan_until_ms = now.mono_ms + (ttl_ms > TICK_MS ? ttl_ms : TICK_MS);
    dest_step(s, d);
}

/* Once for many events */

void site_step_soon(struct bh_sched *s, struct site *site)
{
    if (!site->due) {
        site->due = true;
        site->due_next = NULL;
        *s->due_last = site;
        s->due_last = &site->due_next;
    }
}

bool site_step_due(struct bh_sched *s)
{
    struct site *site = s->due_first;
    if (site == NULL) {
        return false;
    }
    s->due_first = site->due_next;
    if (s->due_first == NULL) {
        s->due_last = &s->due_first;
    }
    site->due = false;
    site_step(s, site);
    site_release(s, site);
    return true;
}

/* Waiting for what is shared */

void site_block(struct bh_sched *s, struct site *site)
{
    if (site->blocked) {
        return;
    }
    site->blocked = true;
    site->blocked_next = NULL;
    if (s->blocked_last != NULL) {
        s->blocked_last->blocked_next = site;
    } else {
        s->blocked_first = site;
    }
    s->blocked_last = site;
    if (s->tick_ms == UINT64_MAX) {
        s->tick_ms = s->now.mono_ms + TICK_MS;
    }
}

void site_step_blocked(struct bh_sched *s, unsigned steps)
{
    const struct site *const end = s->blocked_last;
    bool last = false;
    while (steps > 0 && s->blocked_first != NULL && !last) {
        struct site *site = s->blocked_first;
        last = site == end; /* each at most once: it may block again */
        s->blocked_first = site->blocked_next;
        if (s->blocked_first == NULL) {
            s->blocked_last = NULL;
        }
        site->blocked = false;
        if (site->yielded) {
            site_block(s, site); /* behind those it makes room for */
        } else {
            site_step(s, site);
        }
        site_release(s, site);
        steps--;
    }
}

/* Failure and recovery */

uint64_t penalty_ms(const struct dest *d)
{
    if (d == NULL) {
        return ADDRESS_PENALTY_MS;
    }
    const struct bh_retry_policy *retry = &d->policy.retry;
    uint64_t half = retry->destination_ms[0] / 2;
    if (retry->glitches > 0 && retry->glitch_ms / 2 < half) {
        half = retry->glitch_ms / 2;
    }
    return half < ADDRESS_PENALTY_MS ? half : ADDRESS_PENALTY_MS;
}

static void penalise(struct bh_sched *s, struct site *site, const struct bh_sched_address *failed,
                     uint64_t until_ms, const struct bh_outcome *outcome)
{
    for (uint32_t i = 0; i < site->address_count; i++) {
        struct site_address *a = &site->addresses[i];
        if (bh_ip_eq(&a->address.ip, &failed->ip) && a->address.port == failed->port) {
            site->round_failures += site_avoids(s, a) ? 0 : 1;
            a->failed_until_ms = until_ms;
        }
    }
    /* What did not even connect failed for everybody; a greeting, or a demand that is not met, may
     * be this site's alone. */
    if (outcome->stage == BH_STAGE_CONNECT) {
        struct host *host = host_get(s, failed);
        if (host != NULL) {
            host->failed_until_ms = until_ms;
            host->failed_as = outcome->happened;
            host_release(s, host); /* arms its timer, unless sessions keep it */
        }
    }
}

bool site_refuses(const struct bh_sched *s, const struct site *site)
{
    return site->session_count == 0 && site->refused_until_ms > s->now.mono_ms;
}

bool site_is_dead(struct bh_sched *s, const struct site *site, struct bh_outcome *outcome)
{
    if (site->session_count > 0 || site->address_count == 0 || any_address_left(s, site)) {
        return false;
    }
    for (uint32_t i = 0; i < site->address_count; i++) {
        if (site->addresses[i].failed_until_ms > s->now.mono_ms && site->said.at_unix_ms != 0) {
            *outcome = site->said.outcome;
            return true;
        }
    }
    /* Other sites share the addresses, and their attempts failed a moment ago. */
    const struct bh_sched_address *first = &site->addresses[0].address;
    const struct host *host = host_find(s, first);
    *outcome = (struct bh_outcome){
        .stage = BH_STAGE_CONNECT,
        .happened = host != NULL ? host->failed_as : BH_HAPPENED_TIMEOUT,
        .ip = first->ip,
        .port = first->port,
        .text = BH_LIT("its host failed moments ago, seen by another destination"),
    };
    return true;
}

/* No connection stands and the round is over: what has work here fails as a whole. The opener is
 * stepped by the caller, so that it is not freed here. */
static void round_failed(struct bh_sched *s, struct site *site, struct dest *opener,
                         enum bh_sched_fault fault, const struct bh_outcome *outcome)
{
    site->failed = true;
    site->round_failures = 0;
    site->clear_until_ms = 0;
    if (opener != NULL && opener->site == site) {
        dest_failed(s, opener, fault, outcome, true);
        const bool together = fault == BH_SCHED_OURS && opener->policy.first_alone;
        if (together && outcome->stage == BH_STAGE_AUTH) {
            site->refused = *outcome;
            site->refused.text = BH_LIT("seen by another destination");
            site->refused.host = BH_EMPTY;
            site->refused_until_ms = opener->backoff_until_mono_ms;
        }
        for (struct dest *d = site->dests; d != NULL && together; d = d->site_next) {
            dest_wait_too(s, d, opener); /* one wrong password an interval, not one a domain */
        }
    }
    while (site->turn_first != NULL) {
        struct dest *d = site->turn_first;
        site_turn_remove(site, d);
        dest_failed(s, d, fault, outcome, true);
        if (d != opener) {
            dest_step(s, d);
        }
    }
}

void site_session_failed(struct bh_sched *s, struct site *site, struct dest *d,
                         const struct bh_sched_address *failed, uint32_t count,
                         enum bh_sched_fault fault, const struct bh_outcome *outcome)
{
    if (fault == BH_SCHED_OURS) {
        /* Says nothing about the addresses. */
        if (site->ready_count == 0) {
            round_failed(s, site, d, fault, outcome);
        } else if (d != NULL && d->site == site) { /* else it has gone another way meanwhile */
            dest_failed(s, d, fault, outcome, true);
        }
        return;
    }
    sched_keep_said(&site->said, outcome, s->now.unix_ms);
    for (uint32_t i = 0; i < count; i++) {
        penalise(s, site, &failed[i], s->now.mono_ms + penalty_ms(d), outcome);
    }
    if (site->ready_count > 0) {
        site->round_failures = 0; /* others are served: no round fails */
    } else if (site->round_failures >= dest_round_max(d) || !any_address_left(s, site)) {
        round_failed(s, site, d, fault, outcome);
    }
}

void site_recovered(struct bh_sched *s, struct site *site, bool clear)
{
    site->round_failures = 0;
    site->refused_until_ms = 0;
    if (!site->failed) {
        return;
    }
    site->failed = clear;
    for (struct dest *d = site->dests; d != NULL;) {
        struct dest *next = d->site_next;
        if (d->by_site && d->backoff_until_unix_ms > s->now.unix_ms && !(clear && d->young)) {
            d->by_site = false;
            d->backoff_until_unix_ms = 0;
            d->has_entries = true;
            dest_step(s, d);
        }
        d = next;
    }
}
