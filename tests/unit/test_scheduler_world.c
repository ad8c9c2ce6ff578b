/* A random world around the scheduler core: a store, hosts that fail in several ways, operators who
 * hold, flush and reload, a clock that steps. Checked after every step from outside: each entry is
 * in one place, no limit is passed, nothing leaves that may not. Then the faults stop, and
 * everything must end and leave memory. One seed, one world. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bh/scheduler.h"

#define DESTS 7 /* ids 1..7 */
#define SITES 4
#define HOSTS 5
#define CONNECTORS 2
#define DEMANDS 3
#define ENTRIES_MAX 120
#define SESSIONS_MAX 64
#define EVENTS_MAX 512
#define SEEDS 1500
#define WENT_MAX 2000
#define RECIPIENTS_MAX 5

enum place { NOWHERE, FRESH, READY, DUE, ENDED };

struct entry {
    uint32_t dest;
    enum place place;
    int64_t due_unix_ms;
    int64_t clear_from_unix_ms; /* never sooner in clear */
    uint64_t size;
    uint16_t recipients;
    uint32_t attempts;
    bool leased;
    bool lost;      /* fresh, and skipped: the lane is read again with the next second */
    bool picky;     /* it needs what not every host has */
    uint32_t asked; /* hosts that could not take it since it last waited for its time, by bit */
    uint32_t asks;
};

enum behaviour {
    OK,
    REFUSE,
    HANG,
    GREET_421,
    MAIL_421,
    DROP_AFTER_ONE,
    DEFER,
    BROKEN_TLS,
    BEHAVIOURS
};

enum event_kind { RESOLVED, REFILLED, OPENED, DELIVERED, CLOSED };

struct event {
    enum event_kind kind;
    uint64_t at_ms;
    uint32_t dest, session;
    uint32_t host;
    uint32_t count;              /* of refill */
    struct bh_sched_item *items; /* the reader's view, when it looked before the answer */
    uint32_t item_count;
    bool looked, more;
    int64_t next_due_unix_ms;
};

struct model_site {
    uint64_t rest_until_ms; /* its last session came to nothing */
};

struct model_session {
    uint32_t id;    /* 0: unused */
    uint64_t dests; /* a bit for each whose lease it has, or for whom it is opened */
    struct model_site *site;
    bool tried; /* something of its leases */
    bool clear;
    uint32_t dest; /* for whom it was opened */
    uint32_t connector;
    uint32_t demand; /* of TLS, for which it was opened */
    uint32_t host_count;
    uint32_t hosts[BH_ROUND_ADDRESSES_MAX];
    bool ready, idle, closing;
    uint32_t delivered;
    uint32_t leased_count, leased_next;
    struct bh_sched_item *leased[BH_LEASE_ITEMS_MAX];
};

struct model_dest {
    bool loaded, held, parked;
    bool small;         /* TLS is tried in its second way */
    bool skipped;       /* something, and nothing was done since */
    uint64_t refill_ms; /* when its last refill was asked for */
    uint32_t stage, glitches;
    int64_t next_attempt_unix_ms;
    uint32_t site;
    uint32_t demand; /* of TLS, as its last plan says */
    struct bh_sched_policy policy;
};

/* What went by a rate, as somebody beside the core would write it down. */
struct model_rate {
    uint32_t count;
    struct {
        uint64_t at_ms, interval_ns;
        uint32_t session; /* that it went with */
        uint32_t charged; /* one, or a message's recipients */
        uint64_t item;    /* 0: a connection */
    } went[WENT_MAX];
};

struct world {
    struct bh_sched *s;
    struct bh_sched_params params;
    struct bh_rng rng;
    struct bh_now now;
    struct model_dest dests[DESTS + 1];
    struct entry entries[ENTRIES_MAX];
    uint32_t entry_count;
    struct model_session sessions[SESSIONS_MAX];
    struct event events[EVENTS_MAX];
    uint32_t event_count;
    enum behaviour hosts[HOSTS];
    uint32_t able;    /* hosts that take picky entries, by bit */
    bool job;         /* one that means all mail has begun: nothing leaves until it is through */
    uint64_t look_ms; /* when the fresh lane is read again */
    struct model_site sites[SITES][CONNECTORS + 1][DEMANDS];
    bool healed;
    uint64_t lease_bytes;
    uint32_t leased;
    unsigned long steps;
    struct bh_sched_rate rates[CONNECTORS][BH_SCOPES][BH_KINDS];
    bool reloading; /* rates are some of the old, some of the new */
    struct model_rate of_connectors[CONNECTORS][BH_KINDS], of_dests[DESTS + 1][BH_KINDS],
        of_hosts[HOSTS][BH_KINDS];
};

/* Every so many allocations fail, where a world is to be short of memory. */
static unsigned fail_one_in;
static struct bh_rng fail_rng;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails_now(void)
{
    return fail_one_in > 0 && bh_rng_below(&fail_rng, fail_one_in) == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails_now() ? NULL : __real_realloc(old, size);
}

static uint32_t pick(struct world *w, uint32_t below)
{
    return (uint32_t)bh_rng_below(&w->rng, below);
}

static struct event *later(struct world *w, enum event_kind kind, uint64_t in_ms)
{
    assert_true(w->event_count < EVENTS_MAX);
    struct event *e = &w->events[w->event_count++];
    *e = (struct event){.kind = kind, .at_ms = w->now.mono_ms + in_ms};
    return e;
}

static struct model_session *session_of(struct world *w, uint32_t id)
{
    for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
        if (w->sessions[i].id == id) {
            return &w->sessions[i];
        }
    }
    fail_msg("session %u is not known", id);
    abort(); /* not reached: fail_msg jumps, but does not say so */
}

static struct bh_sched_address address_of(uint32_t host)
{
    struct bh_sched_address a = {.port = 25, .host = (uint16_t)host};
    a.ip.family = 4;
    a.ip.bytes[0] = 192;
    a.ip.bytes[3] = (uint8_t)(host + 1);
    return a;
}

static uint32_t connector_of(const struct bh_sched_policy *policy)
{
    return (uint32_t)(policy->connector[0] - '0');
}

static void random_rates(struct world *w, uint32_t connector)
{
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
            w->rates[connector][scope][kind] = (struct bh_sched_rate){0};
            if (pick(w, 5) == 0) {
                w->rates[connector][scope][kind] = (struct bh_sched_rate){
                    .interval_ns = 1000000 * (1 + (uint64_t)pick(w, 900)) + pick(w, 1000000),
                    .slack_ns = pick(w, 2) * (uint64_t)pick(w, 2000000000)};
            }
        }
    }
}

/* ---- rates, seen from outside ---- */

/* Whatever of them went from any time on, the next one went no sooner than they take. */
static void went(const struct world *w, struct model_rate *m, const struct bh_sched_rate *rate,
                 uint32_t session, uint64_t item, uint32_t charged)
{
    uint64_t takes_ns = 0;
    if (rate->interval_ns == 0 || w->reloading) {
        return;
    }
    for (uint32_t i = m->count; i-- > 0;) {
        takes_ns += m->went[i].interval_ns * m->went[i].charged;
        /* Times count in whole ms. */
        assert_true(takes_ns <=
                    (w->now.mono_ms - m->went[i].at_ms) * 1000000 + rate->slack_ns + 1000);
    }
    assert_true(m->count < WENT_MAX);
    m->went[m->count].at_ms = w->now.mono_ms;
    m->went[m->count].interval_ns = rate->interval_ns;
    m->went[m->count].session = session;
    m->went[m->count].item = item;
    m->went[m->count].charged = charged;
    m->count++;
}

/* It did not go, after all. */
static void went_not(struct model_rate *m, uint32_t session, uint64_t item)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->went[i].session != session || m->went[i].item != item) {
            m->went[kept++] = m->went[i];
        }
    }
    m->count = kept;
}

static void message_went(struct world *w, const struct model_session *m,
                         const struct bh_sched_item *item)
{
    const struct bh_sched_policy *policy = &w->dests[item->destination].policy;
    const uint32_t connector = connector_of(policy);
    for (enum bh_sched_kind kind = BH_PER_MESSAGE; kind <= BH_PER_RECIPIENT; kind++) {
        const uint32_t charged = kind == BH_PER_MESSAGE ? 1 : item->recipients;
        went(w, &w->of_connectors[connector][kind], &w->rates[connector][BH_OF_CONNECTOR][kind],
             m->id, item->id, charged);
        went(w, &w->of_dests[item->destination][kind], &policy->rates[BH_OF_DESTINATION][kind],
             m->id, item->id, charged);
        went(w, &w->of_hosts[m->hosts[0]][kind], &policy->rates[BH_OF_HOST][kind], m->id, item->id,
             charged);
    }
}

static void message_went_not(struct world *w, const struct model_session *m,
                             const struct bh_sched_item *item)
{
    for (enum bh_sched_kind kind = BH_PER_MESSAGE; kind <= BH_PER_RECIPIENT; kind++) {
        went_not(&w->of_connectors[m->connector][kind], m->id, item->id);
        went_not(&w->of_dests[item->destination][kind], m->id, item->id);
        went_not(&w->of_hosts[m->hosts[0]][kind], m->id, item->id);
    }
}

/* All of a host's rates are counted anew: what is owed by an old one counts by the new one. */
static void forget_what_went(struct world *w)
{
    memset(w->of_connectors, 0, sizeof(w->of_connectors));
    memset(w->of_dests, 0, sizeof(w->of_dests));
    memset(w->of_hosts, 0, sizeof(w->of_hosts));
}

static struct bh_sched_policy random_policy(struct world *w, uint32_t dest)
{
    struct bh_sched_policy policy = {
        .connector = {(char)('0' + dest % CONNECTORS)},
        .connections_max = pick(w, 2) == 0 ? 0 : 1 + pick(w, 6),
        .per_destination_max = 1 + pick(w, 6),
        .per_destination_start = 1 + pick(w, 3),
        .per_host_max = 1 + pick(w, 4),
        .messages_per_connection = pick(w, 2) == 0 ? 0 : 1 + pick(w, 20),
        .connection_life_ms = pick(w, 2) == 0 ? 0 : 5000 + pick(w, 30000),
        .idle_ms = 1000 + pick(w, 5000),
        .active = w->healed || pick(w, 8) != 0,
        .retry = {.intervals_ms = {5000, 20000},
                  .intervals = 2,
                  .destination_ms = {4000, 10000, 30000},
                  .destination_intervals = 3,
                  .glitches = pick(w, 3),
                  .glitch_ms = 2000,
                  .jitter_permille = 100},
    };
    memcpy(policy.rates, w->rates[dest % CONNECTORS], sizeof(policy.rates));
    return policy;
}

/* Perhaps by another connector, whose rates count what it owes. */
static void new_policy(struct world *w, uint32_t dest, uint32_t as)
{
    w->dests[dest].policy = random_policy(w, as);
    memset(w->of_dests[dest], 0, sizeof(w->of_dests[dest]));
}

static bool has_entries(const struct world *w, uint32_t dest)
{
    for (uint32_t i = 0; i < w->entry_count; i++) {
        if (w->entries[i].dest == dest &&
            (w->entries[i].place == READY || w->entries[i].place == DUE)) {
            return true;
        }
    }
    return false;
}

static void load(struct world *w, uint32_t dest)
{
    struct model_dest *d = &w->dests[dest];
    const struct bh_sched_dest_state state = {
        .policy = &d->policy,
        .held = d->held,
        .parked = d->parked,
        .stage = d->stage,
        .glitches = d->glitches,
        .next_attempt_unix_ms = d->next_attempt_unix_ms,
        .has_entries = has_entries(w, dest),
    };
    enum bh_status status = BH_OK;
    do { /* what is loaded goes by its old policy until it is told of the new one */
        status = bh_sched_load(w->s, dest, &state, w->now);
    } while (status == BH_ENOMEM && d->loaded);
    assert_true(status == BH_OK || (status == BH_ENOMEM && fail_one_in > 0));
    d->skipped = d->loaded && d->skipped;
    d->loaded = d->loaded || status == BH_OK;
}

/* The reader's view of a destination's entry lane, leased ones included. */
static void look(struct world *w, struct event *e)
{
    e->items = __real_calloc(ENTRIES_MAX, sizeof(*e->items));
    assert_non_null(e->items);
    e->looked = true;
    e->next_due_unix_ms = INT64_MAX;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        const struct entry *entry = &w->entries[i];
        if (entry->dest != e->dest || (entry->place != READY && entry->place != DUE)) {
            continue;
        }
        if (entry->place == DUE && entry->due_unix_ms > w->now.unix_ms) {
            if (entry->due_unix_ms < e->next_due_unix_ms) {
                e->next_due_unix_ms = entry->due_unix_ms;
            }
        } else if (e->item_count == e->count) {
            e->more = true;
        } else {
            e->items[e->item_count++] =
                (struct bh_sched_item){.id = i + 1,
                                       .destination = e->dest,
                                       .recipients = entry->recipients,
                                       .size = entry->size,
                                       .clear_from_unix_ms = entry->clear_from_unix_ms};
        }
    }
}

/* What goes out */

static uint32_t sessions_where(const struct world *w, uint32_t connector, uint32_t dest,
                               uint32_t host)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
        const struct model_session *m = &w->sessions[i];
        bool at_host = host == UINT32_MAX;
        for (uint32_t k = 0; k < m->host_count; k++) {
            at_host = at_host || m->hosts[k] == host;
        }
        count +=
            m->id != 0 && at_host && (connector == UINT32_MAX || m->connector == connector) &&
                    (dest == UINT32_MAX || ((m->dests >> dest & 1) != 0 && !m->idle && !m->closing))
                ? 1
                : 0;
    }
    return count;
}

static void may_leave(const struct world *w, uint32_t dest)
{
    struct bh_sched_dest_info info;
    assert_true(bh_sched_info(w->s, dest, &info));
    assert_true(w->dests[dest].policy.active);
    assert_false(w->dests[dest].held);
    assert_true(info.backoff_until_unix_ms == 0);
}

static void on_open(struct world *w, const struct bh_sched_action *a)
{
    struct model_session *m = session_of(w, 0);
    struct model_dest *d = &w->dests[a->destination];
    may_leave(w, a->destination);
    assert_true(
        w->now.mono_ms >=
        w->sites[d->site][connector_of(&d->policy)][d->demand].rest_until_ms); /* not in circles */
    assert_in_range(a->count, 1, BH_ROUND_ADDRESSES_MAX);
    *m = (struct model_session){.id = a->session,
                                .dests = UINT64_C(1) << a->destination,
                                .dest = a->destination,
                                .clear = bh_sched_is_clear(w->s, a->destination),
                                .site = &w->sites[d->site][connector_of(&d->policy)][d->demand],
                                .connector = connector_of(&d->policy),
                                .demand = d->demand,
                                .host_count = a->count};
    for (uint32_t i = 0; i < a->count; i++) {
        m->hosts[i] = a->addresses[i].host;
        went(w, &w->of_hosts[m->hosts[i]][BH_PER_CONNECTION],
             &d->policy.rates[BH_OF_HOST][BH_PER_CONNECTION], m->id, 0, 1);
        assert_true(sessions_where(w, UINT32_MAX, UINT32_MAX, m->hosts[i]) <=
                    d->policy.per_host_max);
    }
    assert_true(sessions_where(w, UINT32_MAX, UINT32_MAX, UINT32_MAX) <= w->params.sessions_max);
    assert_true(d->policy.connections_max == 0 ||
                sessions_where(w, connector_of(&d->policy), UINT32_MAX, UINT32_MAX) <=
                    d->policy.connections_max);
    assert_true(sessions_where(w, UINT32_MAX, a->destination, UINT32_MAX) <=
                d->policy.per_destination_max);
    went(w, &w->of_connectors[m->connector][BH_PER_CONNECTION],
         &d->policy.rates[BH_OF_CONNECTOR][BH_PER_CONNECTION], m->id, 0, 1);
    went(w, &w->of_dests[a->destination][BH_PER_CONNECTION],
         &d->policy.rates[BH_OF_DESTINATION][BH_PER_CONNECTION], m->id, 0, 1);
    struct event *e = later(w, OPENED, 5 + pick(w, 300));
    e->session = a->session;
    for (uint32_t i = 0; i < a->count; i++) {
        e->host = m->hosts[i];
        if (w->hosts[e->host] != REFUSE && w->hosts[e->host] != HANG) {
            return;
        }
        e->at_ms += w->hosts[e->host] == HANG ? 30000 : 1;
    }
    e->host = UINT32_MAX;
}

static void take(struct world *w, const struct bh_sched_action *a)
{
    uint64_t bytes = 0;
    assert_in_range(a->count, 1, BH_LEASE_ITEMS_MAX);
    for (uint32_t i = 0; i < a->count; i++) {
        struct entry *entry = &w->entries[a->items[i]->id - 1];
        assert_int_equal(entry->dest, a->items[i]->destination);
        assert_true(a->session != 0 || entry->dest == a->destination);
        assert_false(entry->leased); /* in one place only */
        assert_true(entry->place == FRESH || entry->place == READY || entry->place == DUE);
        assert_int_equal(entry->place == FRESH, a->items[i]->fresh);
        assert_true(bh_sched_is_leased(w->s, entry->dest, a->items[i]->id, 0));
        entry->leased = true;
        bytes += entry->size;
        w->leased++;
    }
    if (a->session != 0) {
        assert_true(a->count == 1 || bytes <= BH_LEASE_BYTES_MAX);
        w->lease_bytes += bytes;
        assert_true(w->lease_bytes <= w->params.lease_bytes_max ||
                    (a->count == 1 && w->lease_bytes == bytes));
    }
}

static void settle(struct world *w, struct bh_sched_item *item, enum place place,
                   enum bh_sched_signal signal, const struct bh_outcome *outcome)
{
    struct entry *entry = &w->entries[item->id - 1];
    const uint32_t dest = entry->dest;
    entry->leased = false;
    entry->place = place;
    w->dests[dest].skipped = false;
    w->leased--;
    w->lease_bytes -= item->session != 0 ? item->size : 0;
    if (place == DUE) {
        entry->due_unix_ms =
            bh_retry_due(&w->dests[dest].policy.retry, ++entry->attempts, &w->rng, w->now.unix_ms);
    }
    bh_sched_item_done(w->s, item, signal, item->id, outcome, w->now);
    if (place == DUE) {
        bh_sched_dirty(w->s, dest, w->now);
    }
}

/* Cancelled by an operator before it was its turn in the lease. */
static void gone(struct world *w, const struct model_session *m, struct bh_sched_item *item)
{
    message_went_not(w, m, item);
    struct entry *entry = &w->entries[item->id - 1];
    entry->leased = false;
    entry->place = ENDED;
    w->dests[entry->dest].skipped = false;
    w->leased--;
    w->lease_bytes -= item->size;
    bh_sched_item_gone(w->s, item, w->now);
}

/* A bulk job means it: it is to be found again as it was. */
static void pass_over(struct world *w, const struct model_session *m, struct bh_sched_item *item)
{
    message_went_not(w, m, item);
    struct entry *entry = &w->entries[item->id - 1];
    entry->leased = false;
    entry->lost = entry->place == FRESH;
    w->dests[entry->dest].skipped = true;
    w->leased--;
    w->lease_bytes -= item->size;
    bh_sched_item_skipped(w->s, item, w->now);
}

static uint32_t leases_of(const struct world *w, uint32_t dest)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
        const struct model_session *m = &w->sessions[i];
        count += m->id != 0 && m->ready && !m->idle && !m->closing && (m->dests >> dest & 1) != 0;
    }
    return count;
}

static void on_lease(struct world *w, const struct bh_sched_action *a)
{
    take(w, a);
    if (a->session == 0) {
        for (uint32_t i = 0; i < a->count; i++) {
            settle(w, a->items[i], ENDED, BH_SIGNAL_NONE, NULL);
        }
        return;
    }
    struct model_session *m = session_of(w, a->session);
    assert_true(m->ready && m->idle && !m->closing);
    m->idle = false;
    m->dests = 0;
    assert_int_equal(a->items[0]->destination, a->destination);
    for (uint32_t i = 0; i < a->count; i++) {
        const uint32_t dest = a->items[i]->destination;
        const bool first = i == 0 || a->items[i - 1]->destination != dest;
        assert_true(first == ((m->dests >> dest & 1) == 0)); /* in a row */
        m->dests |= UINT64_C(1) << dest;
        may_leave(w, dest);
        assert_int_equal(connector_of(&w->dests[dest].policy), m->connector);
        message_went(w, m, a->items[i]);
        assert_true(!m->clear ||
                    w->entries[a->items[i]->id - 1].clear_from_unix_ms <= w->now.unix_ms);
        /* It has shown what this destination's plan demands; no other demand's session is used. */
        assert_int_equal(m->demand, w->dests[dest].demand);
        assert_true(leases_of(w, dest) <= w->dests[dest].policy.per_destination_max);
    }
    m->leased_count = a->count;
    m->leased_next = 0;
    memcpy(m->leased, a->items, a->count * sizeof(a->items[0]));
    later(w, DELIVERED, 1 + pick(w, 50))->session = a->session;
}

/* What was skipped a moment ago is not asked for in circles. */
static void on_refill(const struct world *w, struct model_dest *d)
{
    assert_true(!d->skipped || w->now.mono_ms - d->refill_ms >= 1000);
    d->skipped = false;
    d->refill_ms = w->now.mono_ms;
}

static void on_failure_stored(struct world *w, const struct bh_sched_action *a)
{
    struct model_dest *d = &w->dests[a->destination];
    d->parked = a->kind == BH_SCHED_PARK;
    d->stage = a->stage;
    d->glitches = a->glitches;
    d->next_attempt_unix_ms = a->until_unix_ms;
}

static void on_forget(struct world *w, uint32_t dest)
{
    w->dests[dest].loaded = false;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        assert_false(w->entries[i].dest == dest && w->entries[i].leased);
        assert_false(w->entries[i].dest == dest && w->entries[i].place == FRESH &&
                     !w->entries[i].lost);
    }
    assert_int_equal(sessions_where(w, UINT32_MAX, dest, UINT32_MAX), 0);
}

static void on_action(struct world *w, const struct bh_sched_action *a)
{
    struct event *e = NULL;
    switch (a->kind) {
    case BH_SCHED_RESOLVE:
        later(w, RESOLVED, 1 + pick(w, 200))->dest = a->destination;
        break;
    case BH_SCHED_REFILL:
        on_refill(w, &w->dests[a->destination]);
        e = later(w, REFILLED, 1 + pick(w, 200));
        e->dest = a->destination;
        e->count = a->count;
        if (pick(w, 2) == 0) {
            look(w, e); /* an old view: what happens until the answer is not in it */
        }
        break;
    case BH_SCHED_OPEN:
        on_open(w, a);
        break;
    case BH_SCHED_LEASE:
        on_lease(w, a);
        break;
    case BH_SCHED_CLOSE:
        assert_true(session_of(w, a->session)->idle);
        session_of(w, a->session)->closing = true;
        later(w, CLOSED, 1 + pick(w, 100))->session = a->session;
        break;
    case BH_SCHED_DEMOTE:
        assert_int_equal(w->entries[a->item.id - 1].place, FRESH);
        assert_false(w->entries[a->item.id - 1].leased);
        w->entries[a->item.id - 1].place = READY;
        bh_sched_dirty(w->s, a->destination, w->now);
        break;
    case BH_SCHED_BACKOFF:
    case BH_SCHED_PARK:
        on_failure_stored(w, a);
        break;
    case BH_SCHED_RECOVERED:
        w->dests[a->destination].parked = false;
        w->dests[a->destination].stage = 0;
        w->dests[a->destination].glitches = 0;
        w->dests[a->destination].next_attempt_unix_ms = 0;
        break;
    case BH_SCHED_FAILED_ROUND:
        assert_false(w->dests[a->destination].parked); /* never by a fault of ours */
        break;
    case BH_SCHED_BREAK:
        assert_true(false); /* no breaker here */
        break;
    case BH_SCHED_FORGET:
        on_forget(w, a->destination);
        break;
    }
}

static void drain(struct world *w)
{
    struct bh_sched_action action;
    while (bh_sched_next(w->s, &action)) {
        assert_true(action.destination <= DESTS);
        on_action(w, &action);
    }
    struct bh_sched_totals totals;
    bh_sched_totals(w->s, &totals);
    assert_int_equal(totals.sessions, sessions_where(w, UINT32_MAX, UINT32_MAX, UINT32_MAX));
    assert_int_equal(totals.leased, w->leased);
    assert_int_equal(totals.lease_bytes, w->lease_bytes);
    assert_true(totals.leased <= totals.items);
}

/* What comes in */

static void close_session(struct world *w, struct model_session *m, uint32_t failed_host,
                          const struct bh_outcome *outcome)
{
    const uint32_t id = m->id;
    struct bh_sched_address failed[BH_ROUND_ADDRESSES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->host_count && outcome != NULL; i++) {
        if (failed_host == UINT32_MAX || m->hosts[i] == failed_host) {
            failed[count++] = address_of(m->hosts[i]);
        } else if (!m->ready) {
            went_not(&w->of_hosts[m->hosts[i]][BH_PER_CONNECTION], m->id, 0);
        }
    }
    if (outcome == NULL && m->ready && !m->idle && !m->tried) {
        m->site->rest_until_ms = w->now.mono_ms + 1000;
    }
    const enum bh_sched_fault fault =
        !w->healed && pick(w, 20) == 0 ? BH_SCHED_OURS : BH_SCHED_THEIRS;
    *m = (struct model_session){0};
    bh_sched_session_closed(w->s, id, failed, count, fault, outcome, w->now);
}

static void give_back(struct world *w, struct model_session *m)
{
    while (m->leased_count > m->leased_next) {
        struct bh_sched_item *item = m->leased[--m->leased_count];
        w->entries[item->id - 1].leased = false;
        w->leased--;
        w->lease_bytes -= item->size;
        message_went_not(w, m, item);
        bh_sched_item_returned(w->s, item, w->now);
        drain(w);
    }
}

static const struct bh_outcome no_connection = {.stage = BH_STAGE_CONNECT,
                                                .happened = BH_HAPPENED_REFUSED};
static const struct bh_outcome go_away = {
    .stage = BH_STAGE_GREETING, .happened = BH_HAPPENED_REPLY, .code = 421};
static const struct bh_outcome try_later = {
    .stage = BH_STAGE_RCPT, .happened = BH_HAPPENED_REPLY, .code = 450};

/* Nothing of the lease may go. A caller that wants its session for nothing else closes it, and one
 * that finds nothing looks again. */
static void nothing_leaves(struct world *w, struct model_session *m)
{
    const uint32_t dest = w->entries[m->leased[m->leased_next]->id - 1].dest;
    const bool look = pick(w, 2) == 0;
    const bool back = pick(w, 2) == 0;
    if (back) {
        give_back(w, m); /* idle, it would be given the same again at once */
    }
    while (m->leased_next < m->leased_count) {
        pass_over(w, m, m->leased[m->leased_next++]);
        drain(w);
    }
    if (back || pick(w, 2) == 0) {
        close_session(w, m, UINT32_MAX, NULL);
    } else {
        const uint32_t id = m->id;
        m->idle = true;
        m->leased_count = 0;
        m->leased_next = 0;
        bh_sched_session_idle(w->s, id, w->now);
    }
    if (look) {
        bh_sched_dirty(w->s, dest, w->now);
    }
}

static const struct bh_outcome no_tls = {.stage = BH_STAGE_TLS, .happened = BH_HAPPENED_TLS_FAILED};

/* Tried in one way, in another, and then in clear. */
static void tls_failed(struct world *w, struct model_session *m, uint32_t host)
{
    struct model_dest *d = &w->dests[m->dest];
    const bool again = !d->small || bh_sched_go_clear(w->s, m->dest, &no_tls, w->now);
    d->small = !d->small;
    close_session(w, m, host, again ? NULL : &no_tls);
}

static void on_opened(struct world *w, const struct event *e)
{
    struct model_session *m = session_of(w, e->session);
    if (e->host != UINT32_MAX && w->hosts[e->host] == BROKEN_TLS && !m->clear) {
        tls_failed(w, m, e->host);
        return;
    }
    if (e->host == UINT32_MAX) {
        close_session(w, m, UINT32_MAX, &no_connection);
    } else if (w->hosts[e->host] == GREET_421) {
        close_session(w, m, e->host, &go_away);
    } else {
        const struct bh_sched_address a = address_of(e->host);
        for (uint32_t i = 0; i < m->host_count; i++) {
            if (m->hosts[i] != e->host) {
                went_not(&w->of_hosts[m->hosts[i]][BH_PER_CONNECTION], m->id, 0);
            }
        }
        m->ready = true;
        m->idle = true;
        m->host_count = 1;
        m->hosts[0] = e->host;
        if (m->clear) {
            bh_sched_session_in_clear(w->s, e->session);
        }
        bh_sched_session_ready(w->s, e->session, &a, w->now);
    }
}

/* Another host is asked at once, or later, or there is none: then all of the plan were asked. */
static void on_unfit(struct world *w, struct bh_sched_item *item, uint32_t host)
{
    struct entry *entry = &w->entries[item->id - 1];
    const struct model_dest *d = &w->dests[entry->dest];
    const struct bh_outcome said = {.stage = BH_STAGE_MAIL,
                                    .happened = BH_HAPPENED_NEEDS_REQUIRETLS};
    entry->asked |= 1U << host;
    entry->asks++;
    switch (bh_sched_item_unfit(w->s, item)) {
    case BH_ELSEWHERE_NONE:
        for (uint32_t i = 0; i <= d->site % 2; i++) {
            assert_true((entry->asked & 1U << (d->site + i)) != 0);
        }
        settle(w, item, ENDED, BH_SIGNAL_NONE, &said);
        break;
    case BH_ELSEWHERE_LATER:
        entry->asked = 0;
        settle(w, item, DUE, BH_SIGNAL_NONE, &said);
        break;
    case BH_ELSEWHERE_NOW:
        entry->leased = false;
        entry->place = READY;
        w->leased--;
        w->lease_bytes -= item->size;
        bh_sched_item_detour(w->s, item, &said, w->now);
        bh_sched_dirty(w->s, entry->dest, w->now);
        break;
    }
}

static void on_delivered(struct world *w, const struct event *e)
{
    struct model_session *m = session_of(w, e->session);
    const enum behaviour behaviour = w->hosts[m->hosts[0]];
    if (w->job) {
        nothing_leaves(w, m);
        return;
    }
    if (behaviour == MAIL_421 || (behaviour == DROP_AFTER_ONE && m->delivered > 0)) {
        give_back(w, m);
        close_session(w, m, m->hosts[0], &go_away);
        return;
    }
    struct bh_sched_item *item = m->leased[m->leased_next++];
    m->tried = true;
    m->delivered++;
    if (w->entries[item->id - 1].picky && (w->able & 1U << m->hosts[0]) == 0) {
        on_unfit(w, item, m->hosts[0]);
    } else if (behaviour == DEFER) {
        settle(w, item, DUE, BH_SIGNAL_DEFERRED, &try_later);
    } else if (pick(w, 20) == 0) {
        gone(w, m, item);
    } else {
        settle(w, item, ENDED, BH_SIGNAL_SUCCESS, NULL);
    }
    drain(w);
    if (m->leased_next < m->leased_count) {
        later(w, DELIVERED, 1 + pick(w, 50))->session = e->session;
    } else if (m->clear) {
        close_session(w, m, UINT32_MAX, NULL); /* broken TLS is not remembered */
    } else {
        m->idle = true;
        m->leased_count = 0;
        m->leased_next = 0;
        bh_sched_session_idle(w->s, e->session, w->now);
    }
}

static void on_resolved(struct world *w, uint32_t dest)
{
    const uint32_t roll = w->healed ? 100 : pick(w, 100);
    if (roll < 10) {
        const struct bh_outcome outcome = {.stage = BH_STAGE_ROUTE,
                                           .happened = BH_HAPPENED_DNS_TIMEOUT};
        bh_sched_dest_failed(w->s, dest, roll < 5 ? BH_SCHED_OURS : BH_SCHED_THEIRS, &outcome,
                             w->now);
        return;
    }
    if (roll < 13) {
        bh_sched_resolved_to_end(w->s, dest, w->now);
        return;
    }
    struct model_dest *d = &w->dests[dest];
    struct bh_sched_address addresses[2] = {address_of(d->site), address_of(d->site + 1)};
    /* What is published for it may have changed since. */
    d->demand = pick(w, 4) == 0 ? pick(w, DEMANDS) : d->demand;
    char key[3] = {(char)('a' + d->site), d->policy.connector[0], (char)('0' + d->demand)};
    bh_sched_resolved(w->s, dest, bh_slice(key, sizeof(key)), addresses, 1 + d->site % 2,
                      10000 + pick(w, 50000), w->now);
}

static void on_event(struct world *w, struct event *e)
{
    switch (e->kind) {
    case RESOLVED:
        on_resolved(w, e->dest);
        break;
    case REFILLED:
        if (!e->looked) {
            look(w, e);
        }
        bh_sched_refilled(w->s, e->dest, e->items, e->item_count, e->more, e->next_due_unix_ms,
                          w->now);
        free(e->items);
        break;
    case OPENED:
        on_opened(w, e);
        break;
    case DELIVERED:
        on_delivered(w, e);
        break;
    case CLOSED:
        close_session(w, session_of(w, e->session), UINT32_MAX, NULL);
        break;
    }
    drain(w);
}

/* At once, in a while, or never. */
static int64_t clear_from(struct world *w)
{
    const uint32_t roll = pick(w, 10);
    return roll == 0 ? INT64_MAX : roll < 4 ? 0 : w->now.unix_ms + pick(w, 60000);
}

static void add_mail(struct world *w)
{
    const uint32_t dest = 1 + pick(w, DESTS);
    const uint32_t burst = 1 + pick(w, 12);
    for (uint32_t i = 0; i < burst && w->entry_count < ENTRIES_MAX; i++) {
        struct entry *entry = &w->entries[w->entry_count++];
        *entry = (struct entry){.dest = dest,
                                .place = pick(w, 3) == 0 ? READY : FRESH,
                                .picky = pick(w, 4) == 0,
                                .clear_from_unix_ms = clear_from(w),
                                .recipients = (uint16_t)(1 + pick(w, RECIPIENTS_MAX)),
                                .size = 1 + pick(w, pick(w, 10) == 0 ? 400000 : 20000)};
        if (!w->dests[dest].loaded) {
            load(w, dest);
        }
        const struct bh_sched_item item = {.id = w->entry_count,
                                           .destination = dest,
                                           .recipients = entry->recipients,
                                           .size = entry->size,
                                           .clear_from_unix_ms = entry->clear_from_unix_ms,
                                           .fresh = true};
        if (entry->place == READY) {
            bh_sched_dirty(w->s, dest, w->now);
        } else {
            const enum bh_status status = bh_sched_fresh(w->s, &item, w->now);
            assert_true(status == BH_OK || fail_one_in > 0);
            if (status != BH_OK) {
                entry->place = READY;
                bh_sched_dirty(w->s, dest, w->now);
            }
        }
        drain(w);
    }
}

static void set_held(struct world *w, uint32_t dest, bool held)
{
    w->dests[dest].held = held;
    bh_sched_set_held(w->s, dest, held, w->now);
}

static void flush(struct world *w, uint32_t dest)
{
    w->dests[dest].parked = false;
    w->dests[dest].next_attempt_unix_ms = 0;
    bh_sched_flush(w->s, dest, w->now);
}

/* The store derives its times anew too; what a refill has read already is of the old clock. */
static void step_clock(struct world *w, int64_t by_ms)
{
    w->now.unix_ms += by_ms;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        w->entries[i].due_unix_ms += by_ms;
    }
    for (uint32_t dest = 1; dest <= DESTS; dest++) {
        w->dests[dest].next_attempt_unix_ms += w->dests[dest].loaded ? 0 : by_ms;
    }
    bh_sched_clock_stepped(w->s, w->now);
}

/* Other rates, of all that is loaded with the connector. */
static void reload_rates(struct world *w, uint32_t connector)
{
    random_rates(w, connector);
    w->reloading = true;
    for (uint32_t dest = 1; dest <= DESTS; dest++) {
        struct model_dest *d = &w->dests[dest];
        if (connector_of(&d->policy) != connector) {
            continue;
        }
        memcpy(d->policy.rates, w->rates[connector], sizeof(d->policy.rates));
        if (d->loaded) {
            load(w, dest);
            drain(w);
        }
    }
    w->reloading = false;
    forget_what_went(w);
}

static void something(struct world *w)
{
    const uint32_t dest = 1 + pick(w, DESTS);
    switch (pick(w, 11)) {
    case 10:
        w->job = !w->job;
        break;
    case 0:
        set_held(w, dest, true);
        break;
    case 1:
        set_held(w, dest, false);
        break;
    case 2:
        flush(w, dest);
        break;
    case 3:
        bh_sched_drop_window(w->s, dest, w->now);
        break;
    case 4:
        new_policy(w, dest, pick(w, 4) == 0 ? dest + 1 : dest);
        load(w, dest);
        break;
    case 9:
        if (pick(w, 6) == 0) {
            reload_rates(w, dest % CONNECTORS);
        }
        break;
    case 5:
        if (pick(w, 4) == 0) {
            step_clock(w, (int64_t)pick(w, 7200000) - 3600000);
        }
        break;
    case 6:
        w->hosts[pick(w, HOSTS)] = (enum behaviour)pick(w, BEHAVIOURS);
        break;
    default:
        add_mail(w);
        break;
    }
    drain(w);
}

static void heal(struct world *w)
{
    w->healed = true;
    w->job = false;
    fail_one_in = 0;
    for (uint32_t i = 0; i < HOSTS; i++) {
        w->hosts[i] = OK;
    }
    for (uint32_t dest = 1; dest <= DESTS; dest++) {
        new_policy(w, dest, dest);
        w->dests[dest].held = false;
        if (w->dests[dest].loaded) {
            load(w, dest);
        }
        drain(w);
    }
}

/* The wake rows of the store: a destination with something to do now is loaded. */
static void wake(struct world *w)
{
    for (uint32_t i = 0; i < w->entry_count; i++) {
        const struct entry *entry = &w->entries[i];
        struct model_dest *d = &w->dests[entry->dest];
        if (!d->loaded && d->policy.active && !d->held &&
            d->next_attempt_unix_ms <= w->now.unix_ms &&
            (entry->place == READY ||
             (entry->place == DUE && entry->due_unix_ms <= w->now.unix_ms))) {
            load(w, entry->dest);
            drain(w);
        }
    }
}

/* What was skipped in the fresh lane is found there again. */
static void read_fresh_lane(struct world *w)
{
    if (w->now.mono_ms < w->look_ms) {
        return;
    }
    w->look_ms = w->now.mono_ms + 1000;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct entry *entry = &w->entries[i];
        if (!entry->lost || entry->place != FRESH) {
            continue;
        }
        const struct bh_sched_item item = {.id = i + 1,
                                           .destination = entry->dest,
                                           .recipients = entry->recipients,
                                           .size = entry->size,
                                           .clear_from_unix_ms = entry->clear_from_unix_ms,
                                           .fresh = true};
        entry->lost = false;
        if (!w->dests[entry->dest].loaded) {
            load(w, entry->dest);
        }
        if (bh_sched_fresh(w->s, &item, w->now) != BH_OK) {
            entry->place = READY;
            bh_sched_dirty(w->s, entry->dest, w->now);
        }
        drain(w);
    }
}

static bool all_ended(const struct world *w)
{
    for (uint32_t i = 0; i < w->entry_count; i++) {
        if (w->entries[i].place != ENDED) {
            return false;
        }
    }
    return true;
}

/* Go on to the next thing that happens, `until_ms` at the latest. */
static void step(struct world *w, uint64_t until_ms)
{
    uint64_t at = bh_sched_deadline_ms(w->s);
    uint32_t first = UINT32_MAX;
    at = at < until_ms ? at : until_ms;
    for (uint32_t i = 0; i < w->event_count; i++) {
        if (w->events[i].at_ms <= at) {
            at = w->events[i].at_ms;
            first = i;
        }
    }
    if (at > w->now.mono_ms) {
        w->now.unix_ms += (int64_t)(at - w->now.mono_ms);
        w->now.mono_ms = at;
    }
    if (first != UINT32_MAX) {
        struct event e = w->events[first];
        w->events[first] = w->events[--w->event_count];
        on_event(w, &e);
    } else if (bh_sched_deadline_ms(w->s) <= w->now.mono_ms) {
        bh_sched_tick(w->s, w->now);
        drain(w);
    }
    w->steps++;
}

static void begin(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    bh_rng_seed(&w->rng, seed);
    w->now = (struct bh_now){.mono_ms = 1000, .unix_ms = 1700000000000};
    w->params = (struct bh_sched_params){
        .sessions_max = 1 + pick(w, 10), .lease_bytes_max = 20000 + pick(w, 400000), .seed = seed};
    w->s = bh_sched_create(&w->params);
    assert_non_null(w->s);
    w->able = pick(w, 1U << HOSTS);
    for (uint32_t connector = 0; connector < CONNECTORS; connector++) {
        random_rates(w, connector);
    }
    for (uint32_t dest = 1; dest <= DESTS; dest++) {
        w->dests[dest].policy = random_policy(w, dest);
        w->dests[dest].site = dest % SITES;
    }
}

static void assert_empty(const struct world *w)
{
    struct bh_sched_totals totals;
    bh_sched_totals(w->s, &totals);
    assert_int_equal(totals.destinations, 0);
    assert_int_equal(totals.sites, 0);
    assert_int_equal(totals.sessions, 0);
    assert_int_equal(totals.hosts, 0);
    assert_int_equal(totals.connectors, 0);
    assert_int_equal(totals.owing, 0);
    assert_int_equal(totals.items, 0);
    assert_true(bh_sched_deadline_ms(w->s) == UINT64_MAX);
}

static void run(struct world *w, uint64_t seed)
{
    begin(w, seed);
    bh_rng_seed(&fail_rng, seed);
    fail_one_in = seed % 4 == 0 ? 20 : 0;
    const uint64_t faults_end = w->now.mono_ms + 20000 + pick(w, 100000);
    uint64_t next = w->now.mono_ms;
    while (w->now.mono_ms < faults_end) {
        if (w->now.mono_ms >= next) {
            something(w);
            next = w->now.mono_ms + pick(w, 3000);
        }
        step(w, next);
        read_fresh_lane(w);
        wake(w);
    }
    heal(w);
    /* The worst that may be left: a due time read just before the clock was set back. */
    const uint64_t limit = w->now.mono_ms + (uint64_t)2 * 3600000;
    while (!all_ended(w) && w->now.mono_ms < limit) {
        step(w, w->now.mono_ms + 60000);
        read_fresh_lane(w);
        wake(w);
    }
    assert_true(all_ended(w));
    const uint64_t rest = w->now.mono_ms + 600000;
    while (w->now.mono_ms < rest) {
        step(w, rest);
    }
    assert_empty(w);
    assert_true(w->steps < 100000); /* it waits rather than going in circles */
    bh_sched_destroy(w->s);
    w->s = NULL;
}

static struct world world;
static uint64_t seed_now;

static int say_which_seed_failed(void **unused)
{
    (void)unused;
    if (world.s != NULL) {
        print_error("BH_SEED=%llu repeats it\n", (unsigned long long)seed_now);
        bh_sched_destroy(world.s);
        for (uint32_t i = 0; i < world.event_count; i++) {
            free(world.events[i].items);
        }
    }
    return 0;
}

static void worlds_stay_sound_and_come_to_rest(void **unused)
{
    (void)unused;
    const char *one = getenv("BH_SEED");
    const uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    const uint64_t last = one != NULL ? first : SEEDS;
    for (seed_now = first; seed_now <= last; seed_now++) {
        run(&world, seed_now);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(worlds_stay_sound_and_come_to_rest, say_which_seed_failed)};
    return cmocka_run_group_tests_name("scheduler_world", tests, NULL, NULL);
}
