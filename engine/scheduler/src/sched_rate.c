#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

/* Rates of messages, recipients and new connections, each of a connector, a destination and a host.
 * One type counts them all (GCRA: the theoretical time of the next one is all that is remembered).
 *
 *  - what is held back waits for the exact time: a destination by its own timer, a site in the list
 *    of the connector's or the host's bucket, whose timer lets them go in turn
 *  - a message goes whole, so of recipients what follows waits for all that it had
 *  - what did not go after all is given back, and who waits may go sooner
 *  - what is owed outlives what owes it (a connector between two generations, a destination without
 *    work, a host without sessions), until it is paid
 *  - a rate that changes keeps what is owed in messages, not in time
 */

#define NS_PER_MS UINT64_C(1000000)

static uint64_t now_ns(const struct bh_sched *s)
{
    return s->now.mono_ms * NS_PER_MS;
}

uint64_t rate_ms(uint64_t ns)
{
    return (ns + NS_PER_MS - 1) / NS_PER_MS;
}

/* ---- one rate ---- */

/* What is owed by another interval counts by the new one from now on; but what another connector
 * owes a host is time. */
static void adapt(struct gcra *g, const struct bh_sched_rate *rate, uint32_t by, uint64_t now)
{
    if (g->by != by || g->interval_ns == rate->interval_ns || rate->interval_ns == 0) {
        return;
    }
    if (g->due_ns > now && g->interval_ns > 0) {
        const double owed = (double)(g->due_ns - now) / (double)g->interval_ns;
        g->due_ns = now + (uint64_t)(owed * (double)rate->interval_ns);
    }
    g->interval_ns = rate->interval_ns;
}

static uint64_t due_ns(const struct gcra *g, uint64_t now)
{
    return g->due_ns > now ? g->due_ns : now;
}

/* When one more passes, behind `ahead` others; 0: now. */
static uint64_t next_ns(struct gcra *g, const struct bh_sched_rate *rate, uint32_t by, uint64_t now,
                        uint32_t ahead)
{
    if (rate->interval_ns == 0) {
        return 0;
    }
    adapt(g, rate, by, now);
    const uint64_t due = due_ns(g, now) + rate->interval_ns * ahead;
    return due <= now + rate->slack_ns ? 0 : due - rate->slack_ns;
}

static void spend(struct gcra *g, const struct bh_sched_rate *rate, uint32_t by, uint64_t now,
                  uint32_t count)
{
    if (rate->interval_ns > 0) {
        adapt(g, rate, by, now);
        g->due_ns = due_ns(g, now) + rate->interval_ns * count;
        g->interval_ns = rate->interval_ns;
        g->spent_ms = now / NS_PER_MS;
        g->by = by;
    }
}

/* @param spent_ms when it was spent */
static void give_back(struct gcra *g, const struct bh_sched_rate *rate, uint32_t by, uint64_t now,
                      uint64_t spent_ms, uint32_t count)
{
    if (rate->interval_ns == 0 || g->due_ns <= now || g->spent_ms != spent_ms) {
        return;
    }
    adapt(g, rate, by, now);
    const uint64_t back = rate->interval_ns * count;
    g->due_ns = g->due_ns > back ? g->due_ns - back : 0;
}

/* ---- those of a message or a connection ---- */

static void hold_back(struct held_back *by, enum bh_sched_scope scope, enum bh_sched_kind kind,
                      uint64_t next, struct bucket *bucket)
{
    if (next > by->next_ns) {
        *by = (struct held_back){scope, kind, next, bucket, false};
    }
}

static void look_at_bucket(const struct bh_sched *s, struct bucket *bucket,
                           enum bh_sched_scope scope, enum bh_sched_kind kind,
                           const struct bh_sched_rate *rate, uint32_t serial, uint32_t ahead,
                           struct held_back *by)
{
    hold_back(by, scope, kind, next_ns(&bucket->gcra, rate, serial, now_ns(s), ahead), bucket);
}

static void look_at_host(const struct bh_sched *s, const struct dest *d, struct host *host,
                         enum bh_sched_kind kind, uint32_t ahead, struct held_back *by)
{
    look_at_bucket(s, &host->buckets[kind], BH_OF_HOST, kind, &d->policy.rates[BH_OF_HOST][kind],
                   d->connector->serial, ahead, by);
}

static void look_at_own(const struct bh_sched *s, struct dest *d, enum bh_sched_kind kind,
                        uint32_t ahead, struct held_back *by)
{
    struct connector *c = d->connector;
    look_at_bucket(s, &c->buckets[kind], BH_OF_CONNECTOR, kind, &c->rates[kind], 0, ahead, by);
    hold_back(
        by, BH_OF_DESTINATION, kind,
        next_ns(&d->gcras[kind], &d->policy.rates[BH_OF_DESTINATION][kind], 0, now_ns(s), ahead),
        NULL);
}

bool rate_allows_message(const struct bh_sched *s, struct dest *d, struct host *host,
                         uint32_t ahead, struct held_back *by)
{
    if (!is_paced(d)) {
        return true;
    }
    *by = (struct held_back){0};
    for (enum bh_sched_kind kind = BH_PER_MESSAGE; kind <= BH_PER_RECIPIENT; kind++) {
        look_at_own(s, d, kind, ahead, by);
        if (host != NULL) {
            look_at_host(s, d, host, kind, ahead, by);
        }
    }
    if (by->next_ns > 0 && ahead > 0) {
        struct held_back alone;
        by->ahead = rate_allows_message(s, d, host, 0, &alone);
        *by = by->ahead ? *by : alone;
    }
    return by->next_ns == 0;
}

bool rate_allows_connection(const struct bh_sched *s, struct dest *d, struct host *host,
                            struct held_back *by)
{
    if (!is_paced(d)) {
        return true;
    }
    *by = (struct held_back){0};
    if (host != NULL) {
        look_at_host(s, d, host, BH_PER_CONNECTION, 0, by);
    } else {
        look_at_own(s, d, BH_PER_CONNECTION, 0, by);
    }
    return by->next_ns == 0;
}

static uint32_t at_least_one(uint32_t count)
{
    return count > 0 ? count : 1;
}

static void spend_own(const struct bh_sched *s, struct dest *d, enum bh_sched_kind kind,
                      uint32_t count)
{
    struct connector *c = d->connector;
    spend(&c->buckets[kind].gcra, &c->rates[kind], 0, now_ns(s), count);
    spend(&d->gcras[kind], &d->policy.rates[BH_OF_DESTINATION][kind], 0, now_ns(s), count);
}

static void spend_host(const struct bh_sched *s, const struct dest *d, struct host *host,
                       enum bh_sched_kind kind, uint32_t count)
{
    spend(&host->buckets[kind].gcra, &d->policy.rates[BH_OF_HOST][kind], d->connector->serial,
          now_ns(s), count);
}

void rate_spend_message(const struct bh_sched *s, struct dest *d, const struct session *session,
                        uint32_t recipients)
{
    if (!is_paced(d)) {
        return;
    }
    spend_own(s, d, BH_PER_MESSAGE, 1);
    spend_own(s, d, BH_PER_RECIPIENT, at_least_one(recipients));
    if (session->host_count > 0) {
        spend_host(s, d, session->hosts[0], BH_PER_MESSAGE, 1);
        spend_host(s, d, session->hosts[0], BH_PER_RECIPIENT, at_least_one(recipients));
    }
}

void rate_spend_connection(const struct bh_sched *s, struct dest *d, const struct session *session)
{
    if (!is_paced(d)) {
        return;
    }
    spend_own(s, d, BH_PER_CONNECTION, 1);
    for (uint32_t i = 0; i < session->host_count; i++) {
        spend_host(s, d, session->hosts[i], BH_PER_CONNECTION, 1);
    }
}

/* Who waits may go sooner. */
static void return_to_bucket(struct bh_sched *s, struct bucket *bucket,
                             const struct bh_sched_rate *rate, uint32_t by, uint64_t spent_ms,
                             uint32_t count)
{
    give_back(&bucket->gcra, rate, by, now_ns(s), spent_ms, count);
    if (bucket->first != NULL && rate->interval_ns > 0) {
        const uint64_t next = next_ns(&bucket->gcra, rate, by, now_ns(s), 0);
        const uint64_t at = next > 0 ? rate_ms(next) : s->now.mono_ms;
        if (bucket->timer.index == 0 || at < bucket->timer.at) {
            sched_set_timer(s, &s->rate_timers, &bucket->timer, at);
        }
    }
}

static void return_to_host(struct bh_sched *s, const struct dest *d, struct host *host,
                           enum bh_sched_kind kind, uint64_t spent_ms, uint32_t count)
{
    return_to_bucket(s, &host->buckets[kind], &d->policy.rates[BH_OF_HOST][kind],
                     d->connector->serial, spent_ms, count);
}

void rate_return_message(struct bh_sched *s, struct dest *d, const struct session *session,
                         uint32_t recipients)
{
    struct connector *c = session->connector; /* d may have another one meanwhile */
    const uint32_t counts[] = {[BH_PER_MESSAGE] = 1, [BH_PER_RECIPIENT] = at_least_one(recipients)};
    if (!d->paced && !c->paced) {
        return;
    }
    for (enum bh_sched_kind kind = BH_PER_MESSAGE; kind <= BH_PER_RECIPIENT; kind++) {
        return_to_bucket(s, &c->buckets[kind], &c->rates[kind], 0, session->leased_ms,
                         counts[kind]);
        if (c != d->connector) {
            continue; /* its rates are other ones now: what it has spent stays spent */
        }
        give_back(&d->gcras[kind], &d->policy.rates[BH_OF_DESTINATION][kind], 0, now_ns(s),
                  session->leased_ms, counts[kind]);
        if (session->host_count > 0) {
            return_to_host(s, d, session->hosts[0], kind, session->leased_ms, counts[kind]);
        }
    }
    d->pace_until_ms = 0;
}

void rate_return_connection(struct bh_sched *s, const struct dest *d, struct host *host,
                            uint64_t opened_ms)
{
    return_to_host(s, d, host, BH_PER_CONNECTION, opened_ms, 1);
}

/* ---- waiting ---- */

void rate_init(struct bucket buckets[BH_KINDS], struct connector *c, struct host *host)
{
    for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
        buckets[kind] = (struct bucket){.connector = c, .host = host};
    }
}

static void unlink_wait(struct rate_wait *wait)
{
    struct bucket *bucket = wait->at;
    BH_ASSERT(bucket != NULL);
    if (wait->prev != NULL) {
        wait->prev->next = wait->next;
    } else {
        bucket->first = wait->next;
    }
    if (wait->next != NULL) {
        wait->next->prev = wait->prev;
    } else {
        bucket->last = wait->prev;
    }
    wait->next = NULL;
    wait->prev = NULL;
    wait->at = NULL;
}

static void release_owner(struct bh_sched *s, struct bucket *bucket)
{
    if (bucket->connector != NULL) {
        sched_connector_release(s, bucket->connector);
    } else {
        host_release(s, bucket->host);
    }
}

static void leave(struct bh_sched *s, struct rate_wait *wait)
{
    struct bucket *bucket = wait->at;
    if (bucket != NULL) {
        unlink_wait(wait);
        release_owner(s, bucket);
    }
}

void rate_unwait(struct bh_sched *s, struct site *site)
{
    leave(s, &site->lease_wait);
    leave(s, &site->open_wait);
}

void rate_wait(struct bh_sched *s, struct site *site, struct rate_wait *wait,
               const struct held_back *by)
{
    struct bucket *bucket = by->bucket;
    const uint64_t at = rate_ms(by->next_ns);
    BH_ASSERT(bucket != NULL);
    if (bucket->timer.index == 0 || at < bucket->timer.at) {
        sched_set_timer(s, &s->rate_timers, &bucket->timer, at);
    }
    if (bucket->timer.index == 0) {
        site_block(s, site); /* no memory for the timer: the tick will do */
        return;
    }
    if (wait->at == bucket) {
        return; /* it keeps its place */
    }
    leave(s, wait);
    wait->site = site;
    wait->at = bucket;
    wait->prev = bucket->last;
    if (bucket->last != NULL) {
        bucket->last->next = wait;
    } else {
        bucket->first = wait;
    }
    bucket->last = wait;
}

static void hurry(struct bh_sched *s, struct bucket *bucket)
{
    if (bucket != NULL && bucket->first != NULL) {
        sched_set_timer(s, &s->rate_timers, &bucket->timer, s->now.mono_ms);
    }
}

void rate_hurry(struct bh_sched *s, struct connector *c, struct site *site)
{
    for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
        hurry(s, &c->buckets[kind]);
    }
    if (site != NULL) {
        hurry(s, site->lease_wait.at);
        hurry(s, site->open_wait.at);
    }
}

/* The one that finds it used up arms the timer again and waits at the end. */
void rate_step(struct bh_sched *s, struct bucket *bucket)
{
    const struct rate_wait *const end = bucket->last;
    bool last = false;
    bucket->stepping = true;
    while (bucket->first != NULL && !last && bucket->timer.index == 0) {
        struct rate_wait *wait = bucket->first;
        struct site *site = wait->site;
        last = wait == end;
        unlink_wait(wait);
        site->pins++;
        site_step(s, site);
        site->pins--;
        site_release(s, site);
    }
    bucket->stepping = false;
    release_owner(s, bucket);
}

/* ---- what is owed ---- */

bool rate_keeps(struct bh_sched *s, struct bucket buckets[BH_KINDS])
{
    bool keeps = false;
    for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
        struct bucket *bucket = &buckets[kind];
        if (bucket->gcra.due_ns > now_ns(s) && bucket->timer.index == 0) {
            sched_set_timer(s, &s->rate_timers, &bucket->timer, rate_ms(bucket->gcra.due_ns));
        }
        keeps =
            keeps || bucket->stepping || bucket->first != NULL || bucket->gcra.due_ns > now_ns(s);
    }
    for (enum bh_sched_kind kind = 0; kind < BH_KINDS && !keeps; kind++) {
        bh_heap_remove(&s->rate_timers, &buckets[kind].timer);
    }
    return keeps;
}

static uint64_t owes_until_ns(const struct gcra gcras[BH_KINDS])
{
    uint64_t until = 0;
    for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
        until = gcras[kind].due_ns > until ? gcras[kind].due_ns : until;
    }
    return until;
}

bool rate_put_owing(struct bh_sched *s, const struct dest *d)
{
    if (owes_until_ns(d->gcras) <= now_ns(s)) {
        return true;
    }
    struct owing *owing = calloc(1, sizeof(*owing));
    if (owing == NULL) {
        return false;
    }
    memcpy(owing->key, d->key, sizeof(owing->key));
    memcpy(owing->gcras, d->gcras, sizeof(owing->gcras));
    owing->node.key = bh_slice(owing->key, sizeof(owing->key));
    if (bh_map_insert(&s->owing, &owing->node) != BH_OK) {
        free(owing);
        return false;
    }
    rate_release_owing(s, owing);
    return true;
}

void rate_release_owing(struct bh_sched *s, struct owing *owing)
{
    const uint64_t until = owes_until_ns(owing->gcras);
    if (until > now_ns(s)) {
        sched_set_timer(s, &s->owing_timers, &owing->timer, rate_ms(until));
        return;
    }
    bh_heap_remove(&s->owing_timers, &owing->timer);
    bh_map_remove(&s->owing, &owing->node);
    free(owing);
}

void rate_take_owing(struct bh_sched *s, struct dest *d)
{
    struct bh_map_node *node = bh_map_find(&s->owing, d->node.key);
    if (node != NULL) {
        struct owing *owing = BH_CONTAINER(node, struct owing, node);
        memcpy(d->gcras, owing->gcras, sizeof(d->gcras));
        bh_heap_remove(&s->owing_timers, &owing->timer);
        bh_map_remove(&s->owing, &owing->node);
        free(owing);
    }
}
