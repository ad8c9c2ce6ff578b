/* sched_internal.h - what the files of the scheduler core share. */
#pragma once

#include "bh/scheduler.h"

#define DEST_IDLE_MS 60000  /* a destination without work is remembered this long */
#define DEST_KEEP_MAX 10000 /* above this many, those at rest leave memory at once */
#define ADDRESS_PENALTY_MS 30000
#define LOW_WATER 64             /* refill below this many waiting items of the entry lane */
#define STREAK_MAX 10            /* deferrals in a row that back a destination off (DESIGN 4) */
#define SUCCESS_RECENT_MS 600000 /* a success this old no longer counts as recent */
#define BLOCKED_STEPS 64         /* blocked sites looked at after a session or memory came free */
#define TICK_MS 1000             /* while any site is blocked; what came to nothing waits as long */
#define FALSE_STARTS_MAX 8       /* sessions in a row that end well before they are ready */
#define YIELD_MS 10000           /* a session this old ends early for a site that has none */
#define QUICK_MS 5               /* a lease that took no longer was quick */
#define TOGETHER_MAX 16          /* items of a lease while other sessions are idle */

struct site;

/* An intrusive list: `at` is what points to this link, NULL when it is in no list. */
struct link {
    struct link *next, **at;
};

/* A limit that sites share, and when one without any session last met it. */
struct limit {
    uint32_t sessions;
    uint32_t unproven;  /* of them, sessions that have not delivered yet */
    uint64_t wanted_ms; /* 0: not lately */
};

/* What a rate has let pass (GCRA). */
struct gcra {
    uint64_t due_ns;      /* theoretical time of the next one, monotonic */
    uint64_t interval_ns; /* that due_ns was counted by; 0: nothing was */
    uint64_t spent_ms;    /* when something went last */
    uint32_t by;          /* serial of the connector that counted it; 0: there is but one */
};

struct bucket;

/* A site that waits for a rate. */
struct rate_wait {
    struct bucket *at; /* NULL: it does not wait */
    struct site *site;
    struct rate_wait *next, *prev;
};

/* A rate that sites share, and who waits for it. Its owner is one of the two. */
struct bucket {
    struct gcra gcra;
    struct bh_heap_node timer; /* when the next one passes, or when nothing is owed any more */
    struct rate_wait *first, *last;
    bool stepping; /* its owner is not freed meanwhile */
    struct connector *connector;
    struct host *host;
};

struct connector {
    struct bh_map_node node;
    char name[BH_SCHED_NAME_MAX + 1];
    uint32_t serial;
    uint32_t dests; /* loaded with it */
    struct limit limit;
    struct link *idle;                    /* sessions */
    struct bh_sched_rate rates[BH_KINDS]; /* as loaded last: they change for all at once */
    bool paced;                           /* it has some */
    struct bucket buckets[BH_KINDS];
};

struct host {
    struct bh_map_node node;
    struct bh_heap_node timer; /* the end of its penalty */
    unsigned char key[19];     /* family, address, port */
    struct limit limit;        /* sessions that are, or may get, connected to it */
    struct link *idle;
    uint64_t failed_until_ms;
    enum bh_happened failed_as;
    struct bucket buckets[BH_KINDS];
};

/* What the rates of a destination owe that is not in memory. */
struct owing {
    struct bh_map_node node;
    struct bh_heap_node timer;
    unsigned char key[4];
    struct gcra gcras[BH_KINDS];
};

/* Hosts that can't take an item, by name. */
struct bh_sched_unfit {
    uint32_t count;
    uint64_t names[BH_SITE_HOSTS_MAX];
};

enum session_state { SESSION_CONNECTING, SESSION_IDLE, SESSION_BUSY, SESSION_CLOSING };

struct session {
    struct bh_map_node node;
    struct bh_heap_node timer; /* of an idle session */
    struct link idle_site, idle_connector, idle_host;
    unsigned char key[4];
    uint32_t id;
    enum session_state state;
    struct site *site;
    struct session *site_next, *site_prev;
    struct dest *dests[BH_LEASE_ITEMS_MAX]; /* whose lease it has, or for whom it is being opened */
    uint32_t dest_count;                    /* 0 when idle */
    uint32_t succeeded;                     /* a bit for each: something of it was taken */
    struct host *hosts[BH_ROUND_ADDRESSES_MAX]; /* all it may reach while it connects, then one */
    uint32_t host_count;
    struct connector *connector;
    uint64_t opened_ms;
    uint32_t messages;
    uint32_t leased;      /* items not answered yet */
    uint32_t lease_items; /* that its last lease had */
    uint64_t leased_ms;   /* when it was made */
    bool unproven;
    bool delivered; /* ever */
    bool detour;    /* opened for what other hosts can't take, and for nothing else */
    bool clear;     /* takes what may go in clear, and nothing else */
    uint64_t name;  /* of its host, once it is ready */
    uint32_t life_ms, messages_max, idle_ms;
};

struct site_address {
    struct bh_sched_address address;
    uint64_t failed_until_ms;
};

struct site {
    struct bh_map_node node;
    struct session *sessions;
    uint32_t session_count;
    uint32_t ready_count;                /* idle or busy */
    struct link *idle;                   /* sessions */
    struct link *idle_detours;           /* those that were opened for a detour */
    struct link *detouring;              /* destinations with items on a detour */
    struct dest *dests;                  /* attached, whether they have work or not */
    struct dest *turn_first, *turn_last; /* with waiting items, next in turn first */
    uint32_t turn_count;
    uint32_t pins; /* not freed while somebody up the stack uses it */
    struct site_address addresses[BH_SITE_HOSTS_MAX];
    uint32_t address_count;
    uint32_t round_failures; /* addresses that failed since a session last got ready */
    uint64_t success_ms;     /* 0: none known */
    bool failed; /* its last round failed; a session that gets ready wakes its destinations */
    struct bh_sched_said said; /* how it failed */
    struct bh_outcome refused; /* our credentials, the last time; without its words */
    uint64_t refused_until_ms; /* they are tried again then; 0: nothing is known */
    uint32_t evicted;          /* an idle session of another, being closed for it; 0: none */
    uint32_t false_starts;     /* sessions that ended well without getting ready, in a row */
    uint64_t clear_until_ms;   /* TLS is broken; until then sessions are opened in clear */
    uint64_t rest_until_ms;    /* its last session came to nothing: no other is opened until then */
    bool yielded;              /* it gave up a session for another: it waits behind that one */
    uint32_t together;         /* items that one session gets though others are idle; at least 1 */
    bool due;                  /* to be stepped before the next action is pulled */
    struct site *due_next;
    bool blocked; /* met a shared limit; in the list of those */
    struct site *blocked_next;
    struct rate_wait lease_wait, open_wait; /* for a rate of its connector or of a host */
    struct bh_sched_limited limited;        /* what was met last; of those behind in turn, too */
    size_t key_len;
    char key[]; /* what names it */
};

/* Closed: counts. Open: the destination is held. Half open: one message at a time until one is
 * answered. */
enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF };

struct breaker {
    enum breaker_state state;
    uint64_t slot_ms; /* when the newer half of the window began; 0: nothing is counted */
    struct breaker_count {
        uint32_t refused, answered;
    } newer, older;
};

/* How much leaves a destination, over the time that it has work: in halves of a window, of which
 * the older is dropped when the newer one is full. */
struct flow {
    uint64_t since_ms,
        slot_ms; /* when the older and the newer half began; 0: nothing was counted */
    uint32_t older, newer;
    uint64_t idle_ms; /* without work since then; 0: it has some */
};

struct dest {
    struct bh_map_node node;
    struct bh_heap_node timer;
    unsigned char key[4];
    uint32_t id;
    struct bh_sched_policy policy;
    struct connector *connector;
    struct bh_sched_item *first, **last; /* waiting */
    uint32_t items;
    uint32_t fresh_items;
    struct bh_sched_item *detour_first, **detour_last; /* waiting for another host */
    uint32_t detours;
    uint32_t detours_opening;     /* sessions being opened for them */
    struct link detour_link;      /* while it has some */
    struct bh_sched_item *leased; /* with sessions, or handed over to be ended */
    uint32_t leased_count;
    struct bh_sched_item *settled; /* answered while a refill is under way, which may bring them */
    uint32_t sessions;             /* leased to it, or being opened for it */
    uint32_t opening;              /* of them, being opened */
    uint32_t window;               /* sessions it may have now */
    uint32_t slow_max;             /* ... and no more, while it is slowed; 0: it is not */
    uint64_t slow_until_ms;        /* then one more */
    struct breaker breaker;
    struct flow flow;
    bool held, parked, has_entries, refilling, resolving, ending, by_site, was_failing;
    bool young;         /* it backs off since its mail may not go in clear yet */
    bool in_vain;       /* something was skipped, and nothing done since the last refill */
    uint64_t refill_ms; /* when that was asked for */
    uint32_t stage, glitches;
    int64_t backoff_until_unix_ms;
    uint64_t backoff_until_mono_ms; /* the same, as it was when it began */
    int64_t next_due_unix_ms;
    uint64_t plan_until_ms;
    uint64_t idle_since_ms;
    uint64_t success_ms; /* 0: none known */
    struct site *site;
    struct dest *site_next, *site_prev;
    struct dest *turn_next, *turn_prev;
    bool in_turn;
    uint32_t streak;
    uint64_t streak_sender;
    bool streak_several;
    bool paced;                      /* it has rates of its own, or of its hosts */
    struct gcra gcras[BH_KINDS];     /* of its own rates */
    uint64_t pace_until_ms;          /* not in turn before */
    uint64_t open_at_ms;             /* no new connection before */
    struct bh_sched_limited limited; /* `used` and `max` are told when somebody asks */
    struct bh_sched_said said;
};

struct bh_sched {
    struct bh_sched_params params;
    struct bh_now now; /* of the event being handled */
    struct bh_map dests, sites, hosts, connectors, sessions, known, owing;
    struct bh_heap dest_timers, session_timers, rate_timers, host_timers, owing_timers;
    struct site *due_first, **due_last;
    struct site *blocked_first, *blocked_last;
    uint64_t tick_ms; /* next look at blocked sites; UINT64_MAX: none */
    uint32_t next_session, next_serial;
    struct limit limit; /* sessions in all */
    uint32_t items, leased;
    uint64_t lease_bytes;
    bool starved; /* an action or a timer found no memory: try all again at the next tick */
    struct bh_rng rng;
    struct bh_sched_action *actions; /* a ring */
    size_t action_first, action_count, action_cap;
};

/* sched.c */
/** Room for one more action. @return NULL for want of memory: change nothing, the tick tries again
 */
struct bh_sched_action *sched_emit(struct bh_sched *s, enum bh_sched_action_kind kind,
                                   uint32_t destination);
/** The last action is not to be, after all. */
void sched_unemit(struct bh_sched *s);
/** Something found no memory: look at everything again at the next tick. */
void sched_starve(struct bh_sched *s);
/** UINT64_MAX: none. */
void sched_set_timer(struct bh_sched *s, struct bh_heap *heap, struct bh_heap_node *node,
                     uint64_t at_ms);
uint64_t sched_mono_of(const struct bh_sched *s, int64_t unix_ms);
/** The monotonic time as a mark that 0 means "never" to. */
uint64_t sched_mark(const struct bh_sched *s);
/** @return NULL for want of memory */
struct connector *sched_connector(struct bh_sched *s, const char *name);
/** Forget it once nothing uses it and its rates owe nothing. */
void sched_connector_release(struct bh_sched *s, struct connector *c);
void sched_keep_said(struct bh_sched_said *said, const struct bh_outcome *outcome,
                     int64_t at_unix_ms);
void link_push(struct link **head, struct link *link);
void link_remove(struct link *link);

/* sched_item.c */
/** A copy at the end of the window; BH_OK too if it is known here already (then *added is false).
 */
BH_MUST_USE enum bh_status item_add(struct bh_sched *s, struct dest *d,
                                    const struct bh_sched_item *item, bool *added);
/** Here in any way, settled ones included. @return NULL if not */
struct bh_sched_item *item_find(const struct bh_sched *s, uint32_t destination, uint64_t id,
                                uint16_t part);
/** A waiting item becomes leased to a session, or (NULL) is handed over to be ended. */
void item_lease(struct bh_sched *s, struct dest *d, struct bh_sched_item *item,
                struct session *session);
/** Waiting items leave memory: the store has those of the entry lane; fresh ones are moved there.
 */
void item_drop_window(struct bh_sched *s, struct dest *d);
/** The refill is answered: what was settled meanwhile can be forgotten. */
void item_forget_settled(struct bh_sched *s, struct dest *d);
/** An item on a detour becomes leased to a session. */
void item_lease_detour(struct bh_sched *s, struct dest *d, struct bh_sched_item *item,
                       struct session *session);
/** An item on a detour waits as any other again: where it could not go is forgotten. */
void item_end_detour(struct bh_sched *s, struct dest *d, struct bh_sched_item *item);
/** Free all items of a destination. */
void item_free_all(struct bh_sched *s, struct dest *d);

/* sched_dest.c */
struct dest *dest_find(const struct bh_sched *s, uint32_t id);
bool dest_may_run(const struct bh_sched *s, const struct dest *d);
/** Addresses that may be tried for it in one round. @param d NULL: as many as may be */
uint32_t dest_round_max(const struct dest *d);
/** Look at a destination again after anything changed; may free it. */
void dest_step(struct bh_sched *s, struct dest *d);
/** What parked d has just parked the other one anew: d waits as long. The store is not told: after
 * a restart it is tried at its own time. */
void dest_wait_too(struct bh_sched *s, struct dest *d, const struct dest *other);
/** It backs off or parks; nothing happens if it may not run anyway. */
void dest_failed(struct bh_sched *s, struct dest *d, enum bh_sched_fault fault,
                 const struct bh_outcome *outcome, bool by_site);
/** TLS is broken, and none of its mail may go in clear yet: it backs off. It is not freed. */
void dest_too_young(struct bh_sched *s, struct dest *d);
void dest_destroy(struct bh_sched *s, struct dest *d);
/** Its time has changed. */
void dest_arm_timer(struct bh_sched *s, struct dest *d);

/* sched_clear.c */
bool site_is_clear(const struct bh_sched *s, const struct site *site);
bool clear_may_go(const struct bh_sched *s, const struct bh_sched_item *item);
/** How many of its waiting items may go in clear now; counts no further than `most`. */
uint32_t clear_count(const struct bh_sched *s, const struct dest *d, uint32_t most);
/** When the first of its waiting items may; INT64_MAX: none ever.
 * @param never there is one that never may */
int64_t clear_first(const struct dest *d, bool *never);
/** An idle session in clear for which nothing is left ends. */
void clear_close_idle(struct bh_sched *s, struct site *site);

/* sched_detour.c */
uint64_t host_name(const struct bh_sched_address *address);
bool detour_can_take(const struct bh_sched_item *item, uint64_t name);
/** What some hosts can't take goes to others: to idle sessions, or a session is opened. */
void detour_step_site(struct bh_sched *s, struct site *site);
/** It waits for another host, at the front or the end. */
void detour_add(struct dest *d, struct bh_sched_item *item, bool front);
/** It leaves the list. */
void detour_remove(struct dest *d, struct bh_sched_item *item);
/** Its site is another one from now on: all of its detours end. */
void detour_end_all(struct bh_sched *s, struct dest *d);

/* sched_pace.c */
/** How many connections it may have at most, now. */
uint32_t pace_window_max(struct bh_sched *s, struct dest *d);
/** Fewer connections: half, but not below the floor. */
void pace_shrink(struct dest *d);
void flow_turn(const struct bh_sched *s, struct dest *d);
/** It has got work, or has none left: the time without does not count. */
static inline void flow_look(const struct bh_sched *s, struct dest *d)
{
    if ((d->items + d->detours + d->leased_count > 0) != (d->flow.idle_ms == 0)) {
        flow_turn(s, d);
    }
}
/** A message has left. */
void flow_count(const struct bh_sched *s, struct dest *d);
/** What left, and in what time. @return false: not enough to tell */
bool flow_told(const struct bh_sched *s, const struct dest *d, uint32_t *left, uint64_t *ms);
/** It is held no more. */
void pace_released(struct dest *d);
/** One message shows how things stand: nothing else goes until it is answered. */
bool pace_waits(const struct dest *d);

/* sched_rate.c */
/** Why something may not go now. */
struct held_back {
    enum bh_sched_scope scope;
    enum bh_sched_kind kind;
    uint64_t next_ns;      /* when it may */
    struct bucket *bucket; /* NULL: of the destination itself */
    bool ahead;            /* only since there are others on their way */
};
/** Is there any rate at all to look at? */
static inline bool is_paced(const struct dest *d)
{
    return d->paced || d->connector->paced;
}

void rate_init(struct bucket buckets[BH_KINDS], struct connector *c, struct host *host);
/** May a message of d go now, behind `ahead` others that are on their way?
 * @param host  NULL: not known yet
 * @return false: *by tells the rate that holds it back longest */
bool rate_allows_message(const struct bh_sched *s, struct dest *d, struct host *host,
                         uint32_t ahead, struct held_back *by);
/** May a new connection be opened for d now? Its own and its connector's rate (host NULL), or the
 * host's. */
bool rate_allows_connection(const struct bh_sched *s, struct dest *d, struct host *host,
                            struct held_back *by);
void rate_spend_message(const struct bh_sched *s, struct dest *d, const struct session *session,
                        uint32_t recipients);
void rate_spend_connection(const struct bh_sched *s, struct dest *d, const struct session *session);
/** The message did not go, after all. What others have spent since then stays as it is: who waited
 * for it has waited, and a second one at once would be a burst. */
void rate_return_message(struct bh_sched *s, struct dest *d, const struct session *session,
                         uint32_t recipients);
/** The host was not connected to, after all. */
void rate_return_connection(struct bh_sched *s, const struct dest *d, struct host *host,
                            uint64_t opened_ms);
/** Let the site wait for a bucket. */
void rate_wait(struct bh_sched *s, struct site *site, struct rate_wait *wait,
               const struct held_back *by);
/** It waits for no rate any more; may free a connector or a host. */
void rate_unwait(struct bh_sched *s, struct site *site);
/** Who waits for the connector's rates, and a site that waits for any (or NULL), asks again. */
void rate_hurry(struct bh_sched *s, struct connector *c, struct site *site);
/** A bucket's timer fired: its sites in turn, until it is used up. */
void rate_step(struct bh_sched *s, struct bucket *bucket);
/** Does it still owe, or does anybody wait? Then its timer is set. */
bool rate_keeps(struct bh_sched *s, struct bucket buckets[BH_KINDS]);
/** What a destination owes is kept while it is not in memory. @return false for want of memory */
bool rate_put_owing(struct bh_sched *s, const struct dest *d);
/** ... and taken back. */
void rate_take_owing(struct bh_sched *s, struct dest *d);
void rate_release_owing(struct bh_sched *s, struct owing *owing);
/** When that is, in ms, not before. */
uint64_t rate_ms(uint64_t ns);

/* sched_site.c */
void site_detach(struct bh_sched *s, struct dest *d);
void site_turn_add(struct site *site, struct dest *d);
void site_turn_remove(struct site *site, struct dest *d);
/** Free it if nothing uses it. */
void site_release(struct bh_sched *s, struct site *site);
/** Step it once before the next action is pulled: events that come together cost one step, and
 * what came with them can go out together. */
void site_step_soon(struct bh_sched *s, struct site *site);
/** ... now. @return false: none is due */
bool site_step_due(struct bh_sched *s);
/** Let it wait for a shared limit; the tick and every session that ends look at it again. */
void site_block(struct bh_sched *s, struct site *site);
void site_step_blocked(struct bh_sched *s, unsigned steps);
/** No connection stands and every address failed moments ago: another try would learn nothing.
 * @param outcome how the last one failed; borrowed from the site */
bool site_is_dead(struct bh_sched *s, const struct site *site, struct bh_outcome *outcome);
/** No connection stands, and it refused our credentials moments ago. */
bool site_refuses(const struct bh_sched *s, const struct site *site);
/** Is an address avoided for what happened to it a moment ago? */
bool site_avoids(const struct bh_sched *s, const struct site_address *a);
/** Forget what its addresses failed at, and that it refused us (flush). */
void site_forgive(struct bh_sched *s, struct site *site);
/** An address that failed is avoided so long: the next round of the destination starts clean. */
uint64_t penalty_ms(const struct dest *d);
/** A session could not be had, or ended before it had delivered anything.
 * @param d whose session it was, or NULL */
void site_session_failed(struct bh_sched *s, struct site *site, struct dest *d,
                         const struct bh_sched_address *failed, uint32_t count,
                         enum bh_sched_fault fault, const struct bh_outcome *outcome);
/** A session got ready: destinations that failed with the site may try again. May free them.
 * @param clear it is one in clear: says nothing to those whose mail is too young for that */
void site_recovered(struct bh_sched *s, struct site *site, bool clear);
/** @return NULL for want of memory */
struct host *host_get(struct bh_sched *s, const struct bh_sched_address *address);
/** @return NULL if nothing is known of it */
struct host *host_find(const struct bh_sched *s, const struct bh_sched_address *address);
void host_address(const struct host *host, struct bh_sched_address *address);
/** A host is remembered while it is connected to, or to be avoided. */
void host_release(struct bh_sched *s, struct host *host);

/* sched_lease.c */
/** Hand work to idle sessions, open what is missing. */
void site_step(struct bh_sched *s, struct site *site);
/** Lease what is on a detour and may go to the host of this session, which is idle.
 * @return false: nothing now, and the site waits for what it takes */
bool lease_detours(struct bh_sched *s, struct dest *d, struct session *session);
/** Open a session for what is on a detour.
 * @return false: nothing can be opened now; `*none` is set where no host is left to try */
bool open_detour(struct bh_sched *s, struct dest *d, const struct bh_sched_item *item, bool *none);

/* sched_session.c */
struct session *session_find(const struct bh_sched *s, uint32_t id);
/** @return NULL for want of memory; else it is counted everywhere and connects */
struct session *session_create(struct bh_sched *s, struct dest *d, bool unproven);
/** It was created, but is not to be opened. */
void session_abandon(struct bh_sched *s, struct session *session);
/** Ask for its end in good order. @return false for want of memory: it stays idle */
bool sched_session_close(struct bh_sched *s, struct session *session);
void session_timer_fired(struct bh_sched *s, struct session *session);
/** It may reach this host. */
void session_add_host(struct session *session, struct host *host);
/** It has delivered something of this destination. */
void session_proven(struct bh_sched *s, struct session *session, const struct dest *d);
/** It takes a lease of this destination, or more for another one, and is idle no more. */
void session_begin_lease(struct bh_sched *s, struct session *session, struct dest *d);
