/* scheduler.h - who is delivered next, over which connection. A core: events and the time go in,
 * actions come out; no socket, clock, thread or store. Memory comes from malloc and follows active
 * destinations, sites and sessions, and the bounded windows of items, never queued messages.
 *
 * A *destination* is a (domain, connector) pair of the queue. Destinations whose plan has the same
 * hosts under the same connector share a *site*, and with it connections. An *item* is one queue
 * entry (message and part) in memory, waiting or leased to a session.
 *
 * The life of a destination here:
 *  1. it is told of (fresh mail, a wake row, a note); it is loaded with its policy and back-off
 *  2. while it may run and has work: REFILL brings items from the store, RESOLVE brings a plan
 *  3. its site OPENs sessions within all limits and LEASEs them items, destinations in turn; one
 *     lease carries those of several, where many wait for few sessions
 *  4. results come back; a destination that fails as a whole BACKs OFF, its items go back to the
 * store
 *  5. without work it is forgotten (FORGET)
 */
#pragma once

#include "bh/heap.h"
#include "bh/map.h"
#include "bh/outcome.h"
#include "bh/rng.h"
#include "bh/time.h"

#define BH_LEASE_ITEMS_MAX 32
#define BH_LEASE_BYTES_MAX ((uint64_t)256 * 1024)
#define BH_ROUND_ADDRESSES_MAX 5 /* addresses tried in one round (DEFAULTS 3.3) */
#define BH_SITE_HOSTS_MAX 40     /* addresses kept of one plan */
#define BH_WINDOW_ITEMS_MAX 256  /* items of one destination held in memory from the entry lane */
#define BH_FRESH_ITEMS_MAX 4096  /* the same from the fresh lane */
#define BH_INTERVALS_MAX 16
#define BH_SCHED_NAME_MAX 64 /* octets of a connector's name */

/** When to try again. All times in ms. */
struct bh_retry_policy {
    uint32_t intervals_ms[BH_INTERVALS_MAX]; /* for a message; the last repeats */
    uint32_t intervals;
    uint32_t destination_ms[BH_INTERVALS_MAX]; /* for a destination as a whole; the last repeats */
    uint32_t destination_intervals;
    uint32_t glitches;         /* this many first failures of a destination are retried after */
    uint32_t glitch_ms;        /* this short time */
    uint32_t jitter_permille;  /* of the interval, both ways */
    int64_t expire_ms;         /* effective age at which a failed attempt ends a message */
    int64_t expire_bounces_ms; /* the same for the null sender */
    int64_t warn_ms;           /* effective age of the delay warning; 0: none */
};

/* What has a rate, and of what. */
enum bh_sched_scope { BH_OF_CONNECTOR, BH_OF_DESTINATION, BH_OF_HOST, BH_SCOPES };
enum bh_sched_kind { BH_PER_MESSAGE, BH_PER_RECIPIENT, BH_PER_CONNECTION, BH_KINDS };

/** A rate (GCRA): one each interval, on the whole. In any time t at most (t + slack) / interval + 1
 * go, and of recipients as many more as the last message had, which goes whole. */
struct bh_sched_rate {
    uint64_t interval_ns; /* 0: unlimited */
    uint64_t slack_ns;    /* one may be early by this */
};

/** The limits of a destination's connector, flat. Zero means unlimited unless said otherwise. */
struct bh_sched_policy {
    char connector[BH_SCHED_NAME_MAX + 1]; /* its name: connections and rates of one connector are
                                              counted together, whatever generation it is of */
    uint32_t connections_max;              /* of the connector */
    uint32_t per_destination_max;          /* never 0 */
    uint32_t per_destination_start;        /* never 0; also where adaptive concurrency starts */
    uint32_t per_destination_floor;        /* adaptive concurrency goes no lower; 0: as 1 */
    uint32_t per_host_max;                 /* by address, across connectors; never 0 */
    uint32_t round_addresses_max;          /* tried in one round; 0: BH_ROUND_ADDRESSES_MAX */
    uint32_t messages_per_connection;
    uint32_t connection_life_ms;                     /* measured from the session's opening */
    uint32_t idle_ms;                                /* an idle session is kept this long */
    struct bh_sched_rate rates[BH_SCOPES][BH_KINDS]; /* of a host by address, across connectors:
                                                        each takes its share of the host's time */
    uint32_t breaker_refusals;  /* messages refused by policy that hold a destination; 0: none do */
    uint32_t breaker_share;     /* ... if they are this percentage of those answered */
    uint64_t breaker_window_ms; /* ... within this time */
    uint64_t breaker_hold_ms;
    bool first_alone; /* the next hop asks who we are: while no session of a site is ready, one is
                         opened at a time, since several wrong passwords at once lock accounts */
    bool active;      /* false: connector held or disabled; nothing leaves */
    struct bh_retry_policy retry;
};

struct bh_sched_address {
    struct bh_ip ip;
    uint16_t port;
    uint16_t host; /* for the caller: index of the host's name in its plan */
    uint64_t name; /* the host, whichever of its addresses it is; 0: as the address and port */
};

/** What limits a destination right now, for operators. */
enum bh_sched_limit {
    BH_LIMITED_BY_NOTHING,
    BH_LIMITED_BY_DESTINATION, /* connections */
    BH_LIMITED_BY_HOST,        /* connections */
    BH_LIMITED_BY_CONNECTOR,   /* connections */
    BH_LIMITED_BY_TOTAL,       /* connections */
    BH_LIMITED_BY_RATE,
    BH_LIMITED_BY_MEMORY,
    BH_LIMITED_BY_FIRST,   /* one connection is to be ready before others are opened */
    BH_LIMITED_BY_TRIAL,   /* its breaker lets one message pass at a time */
    BH_LIMITED_BY_AVOIDED, /* all of its hosts failed moments ago */
    BH_LIMITED_BY_REST,    /* its last session came to nothing: for a second no other is opened */
};

struct bh_sched_limited {
    enum bh_sched_limit by;
    enum bh_sched_scope scope; /* of a rate */
    enum bh_sched_kind kind;   /* of a rate */
    bool half;                 /* of a shared limit, which who has had no success lately may use */
    uint32_t used, max;        /* connections */
    struct bh_sched_address host; /* of HOST, and of a host's rate */
};

struct bh_sched_item {
    uint64_t id;
    uint32_t destination;
    uint16_t part;
    uint16_t recipients;
    uint64_t size; /* octets of content */
    bool fresh;    /* lane */
    uint32_t session;
    bool answered;              /* private */
    int64_t clear_from_unix_ms; /* where TLS is broken it may go in clear from then on; INT64_MAX:
                                   never; 0: whenever */
    uint64_t user;              /* the caller's, e.g. its in-flight slot */
    /* private */
    struct bh_sched_item *next, *prev;
    struct bh_map_node node;
    unsigned char key[14];
    bool leased, settled;
    struct bh_sched_unfit *unfit; /* hosts that can't take it; NULL: none known */
};

enum bh_sched_action_kind {
    BH_SCHED_RESOLVE, /* destination: find its hosts; answer with bh_sched_resolved */
    BH_SCHED_REFILL,  /* destination: bring its first items, up to `count`; the store still shows
                         those leased or waiting here, which are counted in and told apart here;
                         answer with bh_sched_refilled */
    BH_SCHED_OPEN,    /* session, destination, addresses; answer with session_ready or _closed */
    BH_SCHED_LEASE,   /* session, destination, items, those of one destination in a row; where there
                         are several, `destination` is the first. Answer each item with item_done
                         or item_returned, then the session with session_idle or _closed */
    BH_SCHED_CLOSE,   /* session: end it in good order; answer with session_closed */
    BH_SCHED_DEMOTE, /* item: move from the fresh lane to an entry, uncharged; it is forgotten here.
                        Only items[0] */
    BH_SCHED_BACKOFF,      /* destination: store stage, glitches, until_unix_ms and said */
    BH_SCHED_PARK,         /* destination: ours or unknown fault; store said; time stops */
    BH_SCHED_RECOVERED,    /* destination: clear back-off and park in the store */
    BH_SCHED_FAILED_ROUND, /* destination: a round failed by their fault: expiry and warnings may
                              run */
    BH_SCHED_BREAK,        /* destination: its breaker is open; store the hold: until_unix_ms, count
                              messages refused of `stage` answered */
    BH_SCHED_FORGET,       /* destination: has left memory */
};

struct bh_sched_action {
    enum bh_sched_action_kind kind;
    uint32_t destination;
    uint32_t session;
    uint32_t count;                                  /* items or addresses */
    struct bh_sched_item *items[BH_LEASE_ITEMS_MAX]; /* LEASE: the core's, until done or returned;
                                                        DEMOTE: a copy lives in `item` */
    struct bh_sched_item item;
    struct bh_sched_address addresses[BH_ROUND_ADDRESSES_MAX];
    uint32_t stage;
    uint32_t glitches;
    int64_t until_unix_ms;
    bool young; /* BACKOFF: TLS is broken, and its mail may not go in clear yet */
};

/** The last thing said about a destination, kept with it. */
struct bh_sched_said {
    struct bh_outcome outcome; /* its slices point into this struct */
    char host[128];
    char text[256];
    int64_t at_unix_ms; /* 0: nothing was said */
};

/** What a view may know of a loaded destination. */
struct bh_sched_dest_info {
    uint32_t items, leased, sessions, window;
    uint64_t fresh;
    bool held, parked, resolving;
    int64_t backoff_until_unix_ms; /* 0: none */
    int64_t next_due_unix_ms;      /* INT64_MAX: none known */
    uint32_t left;                 /* messages that it took in the last minutes with work, ... */
    uint64_t left_ms;              /* ... in this time; 0: not known */
    bool slowed;                   /* the partner has asked for fewer connections */
    struct bh_sched_limited limited;
    const struct bh_sched_said *said;
};

struct bh_sched;

struct bh_sched_params {
    uint32_t sessions_max;    /* in all */
    uint64_t lease_bytes_max; /* content in memory for sessions, in all; one item may pass alone */
    uint64_t seed;            /* of jitter */
};

/** @return NULL for want of memory */
struct bh_sched *bh_sched_create(const struct bh_sched_params *params);
/** Frees everything, leased items included. NULL is fine. */
void bh_sched_destroy(struct bh_sched *s);

/** The next action; call until false after each event.
 * @param action written only on true */
bool bh_sched_next(struct bh_sched *s, struct bh_sched_action *action);
/** When bh_sched_tick wants to be called (monotonic ms); UINT64_MAX: never. */
uint64_t bh_sched_deadline_ms(const struct bh_sched *s);
void bh_sched_tick(struct bh_sched *s, struct bh_now now);
/** The wall clock stepped: all timers that lean on it are derived anew. A back-off ends after what
 * was left of it by either clock, the shorter; BACKOFF or PARK stores the new time. */
void bh_sched_clock_stepped(struct bh_sched *s, struct bh_now now);

/* Destinations */

/** State of a destination as the store has it. */
struct bh_sched_dest_state {
    const struct bh_sched_policy *policy; /* copied */
    bool held;
    bool parked;
    uint32_t stage;
    uint32_t glitches;
    int64_t next_attempt_unix_ms; /* of a backing-off destination; 0: none */
    bool has_entries;             /* the entry lane may hold something */
    bool broken; /* its breaker holds it, or did until now: then one message is tried */
};
bool bh_sched_has(const struct bh_sched *s, uint32_t destination);
/** Load, or update what is loaded (after hold, release, reload; in-memory items stay). Of what is
 * loaded already the policy and the hold are taken, not the back-off, which the store may not have
 * caught up with; but where the caller knows of no park any more, a park ends.
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sched_load(struct bh_sched *s, uint32_t destination,
                                         const struct bh_sched_dest_state *state,
                                         struct bh_now now);
/** Another connector carries a loaded destination's mail from now on, or its first choice does
 * again: sessions and hosts of the old one are not used for it any more, and its back-off stands as
 * said. Not for one that is not loaded (BH_ENOTFOUND).
 * @param next_attempt_unix_ms  0: at once
 * @param probe  what is tried may still be down: one session, more with each success
 * @return BH_OK, BH_ENOTFOUND, or BH_ENOMEM: nothing changed */
BH_MUST_USE enum bh_status bh_sched_carry(struct bh_sched *s, uint32_t destination,
                                          const struct bh_sched_policy *policy, uint32_t stage,
                                          uint32_t glitches, int64_t next_attempt_unix_ms,
                                          bool probe, struct bh_now now);
/** The store may hold new entries for it. Unknown destinations are ignored. */
void bh_sched_dirty(struct bh_sched *s, uint32_t destination, struct bh_now now);
/** New mail in the fresh lane of a loaded destination.
 * @return BH_OK, or BH_ENOMEM / BH_ENOTFOUND / BH_ELIMIT (its window is full) / BH_EBUSY (it left a
 *         moment ago, and a refill that may bring it is under way): the caller must demote it */
BH_MUST_USE enum bh_status bh_sched_fresh(struct bh_sched *s, const struct bh_sched_item *item,
                                          struct bh_now now);
/** Answer to REFILL.
 * @param items           copied
 * @param more            the store holds more that is ready now
 * @param next_due_unix_ms earliest due time of the rest; INT64_MAX: none */
void bh_sched_refilled(struct bh_sched *s, uint32_t destination, const struct bh_sched_item *items,
                       uint32_t count, bool more, int64_t next_due_unix_ms, struct bh_now now);
/** Flush: clears back-off, park, host penalties and the plan; limits and ramp stay, holds too. */
void bh_sched_flush(struct bh_sched *s, uint32_t destination, struct bh_now now);
void bh_sched_set_held(struct bh_sched *s, uint32_t destination, bool held, struct bh_now now);
/** Waiting items are dropped from memory, fresh ones through DEMOTE: the store hands them out anew
 * (after a reload, a job, a re-binding). */
void bh_sched_drop_window(struct bh_sched *s, uint32_t destination, struct bh_now now);
/** false if it is not loaded. */
bool bh_sched_info(const struct bh_sched *s, uint32_t destination, struct bh_sched_dest_info *info);
/** Is this entry leased now? */
bool bh_sched_is_leased(const struct bh_sched *s, uint32_t destination, uint64_t id, uint16_t part);
/** Is this entry here, waiting or leased? */
bool bh_sched_has_item(const struct bh_sched *s, uint32_t destination, uint64_t id, uint16_t part);
/** Walk the loaded destinations: start with 0, 0 at the end. Not while events are fed. */
uint32_t bh_sched_next_dest(const struct bh_sched *s, uint32_t after);

/* Plans */

/** Answer to RESOLVE: the hosts, in the order to try.
 * @param site_key names all that lets destinations share connections: connector, source, TLS
 *                 demand, port, sorted hosts; copied
 * @param ttl_ms   how long the plan holds */
void bh_sched_resolved(struct bh_sched *s, uint32_t destination, struct bh_slice site_key,
                       const struct bh_sched_address *addresses, uint32_t count, uint64_t ttl_ms,
                       struct bh_now now);

/** How a failure is to be taken; from the outcome policy. */
enum bh_sched_fault { BH_SCHED_THEIRS, BH_SCHED_OURS };

/** The destination as a whole failed (no route; a permanent answer is the caller's to settle per
 * message before this). It backs off (theirs) or parks (ours). */
void bh_sched_dest_failed(struct bh_sched *s, uint32_t destination, enum bh_sched_fault fault,
                          const struct bh_outcome *outcome, struct bh_now now);
/** Answer to RESOLVE when each of its messages is to end at once (no such domain): its waiting
 * items are handed over with LEASE to session 0, and the caller settles them. They count against no
 * limit. What comes later asks with RESOLVE again. */
void bh_sched_resolved_to_end(struct bh_sched *s, uint32_t destination, struct bh_now now);

/* Sessions */

/** The session is connected, greeted and, where demanded, encrypted: it can take a lease.
 * @param address the one that answered, of those given with OPEN */
void bh_sched_session_ready(struct bh_sched *s, uint32_t session,
                            const struct bh_sched_address *address, struct bh_now now);
/** The session has ended, or never came to be. Items still leased to it must have been answered.
 * @param failed   addresses that failed, with outcome; by fault THEIRS they are avoided for a while
 * @param outcome  NULL: it ended in good order (ours or idle). Where nothing came of it (of its
 *                 lease no message was tried, or a row of them never got ready), its site opens no
 *                 other for a second */
void bh_sched_session_closed(struct bh_sched *s, uint32_t session,
                             const struct bh_sched_address *failed, uint32_t failed_count,
                             enum bh_sched_fault fault, const struct bh_outcome *outcome,
                             struct bh_now now);
/** Told before session_idle: how long the partner took to answer the lease. Of those that answer
 * within a few milliseconds one session takes several messages, though others are idle. */
void bh_sched_session_took(struct bh_sched *s, uint32_t session, uint64_t ms);
/** All that was leased is answered and the session is free again. */
void bh_sched_session_idle(struct bh_sched *s, uint32_t session, struct bh_now now);

/* In clear, where TLS is broken and not demanded */

/** TLS is broken at the hosts of this destination. What is old enough may go in clear
 * (clear_from_unix_ms of each item): for a short time sessions of its site are opened in clear, for
 * destinations that have such mail. Those that have none back off until their first is old enough,
 * and try TLS again in between, as often as they would after a failure. The session that met it is
 * closed next, in good order.
 * @param outcome how TLS failed; kept with those
 * @return false: there is no need, for a session that is not in clear is ready. This one has failed
 */
BH_MUST_USE bool bh_sched_go_clear(struct bh_sched *s, uint32_t destination,
                                   const struct bh_outcome *outcome, struct bh_now now);
/** Is a session that is opened for this destination now to be one in clear? */
bool bh_sched_is_clear(const struct bh_sched *s, uint32_t destination);
/** Told before session_ready: it is in clear, and leases what is old enough. */
void bh_sched_session_in_clear(struct bh_sched *s, uint32_t session);

/* Items */

enum bh_sched_signal {
    BH_SIGNAL_SUCCESS,  /* the partner took it, or refused a recipient for good: it is alive */
    BH_SIGNAL_DEFERRED, /* a temporary refusal of this message */
    BH_SIGNAL_NONE,     /* says nothing about the partner */
};
/** Its session is through with it, what came of it is not committed yet: it stays leased, so that
 * nothing hands it out again, but its session may become idle or end meanwhile. Then item_done,
 * _returned or _gone, as ever. */
void bh_sched_item_answered(struct bh_sched *s, struct bh_sched_item *item);
/** An item was tried; the caller has settled it in the store, and that is committed: a refill asked
 * for from now on must no longer find it ready (one asked for earlier may). The item is freed.
 * After a deferral a call of bh_sched_dirty tells of the new due time.
 * @param sender_hash to tell senders apart: ten deferrals in a row from several senders without a
 *                    success back the destination off (DESIGN 4) */
void bh_sched_item_done(struct bh_sched *s, struct bh_sched_item *item, enum bh_sched_signal signal,
                        uint64_t sender_hash, const struct bh_outcome *outcome, struct bh_now now);
/** Not started: goes back to the front of its window, uncharged. */
void bh_sched_item_returned(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now);
/** Could another host of its plan take what the host of its session can't (it lacks an extension)?
 * A host that said so is remembered with the item, and by nothing else: all other mail goes there
 * as before. */
enum bh_sched_elsewhere {
    BH_ELSEWHERE_NONE,  /* every host was asked */
    BH_ELSEWHERE_LATER, /* there is one, but not now: it failed a moment ago, or many wait so */
    BH_ELSEWHERE_NOW,
};
/** The host of its session can't take a leased item; told before it is settled. May be told again.
 */
enum bh_sched_elsewhere bh_sched_item_unfit(struct bh_sched *s, struct bh_sched_item *item);
/** Instead of item_done, where another host is to be tried now: settled as ready in the entry lane,
 * uncharged, and that is committed. It stays here, for a session with a host that has not refused
 * it. Where none can be had, it is an ordinary item again, and no refusal is remembered. */
void bh_sched_item_detour(struct bh_sched *s, struct bh_sched_item *item,
                          const struct bh_outcome *outcome, struct bh_now now);
/** Leave memory without a word about the partner: it was moved, or is no more. */
void bh_sched_item_gone(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now);
/** Leave memory while the store goes on showing it as ready (a bulk job means it, it could not be
 * read): unless something of its destination is done meanwhile, entries are asked for once a second
 * and no sooner. */
void bh_sched_item_skipped(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now);

/** The partner has answered a message of a loaded destination; told before it is settled, and not
 * for what the operator has ruled on.
 * @param refused  for good, by policy (5.7.x), with nobody accepted: how; NULL: it was not
 * @return true: the breaker is open, and what was refused is to be kept, uncharged */
bool bh_sched_answer(struct bh_sched *s, uint32_t destination, const struct bh_outcome *refused,
                     struct bh_now now);
/** The partner wants less (a reply that the operator's rules call so): half the connections now,
 * one more for each minute without another such reply. */
void bh_sched_slow(struct bh_sched *s, uint32_t destination, struct bh_now now);

/* Totals, for status and metrics */
struct bh_sched_totals {
    uint32_t destinations, sites, sessions, items, leased;
    uint64_t lease_bytes;
    uint32_t hosts, connectors; /* remembered: in use, or still to be avoided or paced */
    uint32_t owing;             /* destinations that are gone, but not what their rates owe */
};
void bh_sched_totals(const struct bh_sched *s, struct bh_sched_totals *totals);

/** The next due time of a message deferred for the `attempts`-th time (1 = first).
 * @return wall time in ms */
int64_t bh_retry_due(const struct bh_retry_policy *retry, uint32_t attempts, struct bh_rng *rng,
                     int64_t now_unix_ms);
/** The next attempt of a destination that failed; advances glitches, then stage. */
int64_t bh_retry_destination(const struct bh_retry_policy *retry, uint32_t *glitches,
                             uint32_t *stage, struct bh_rng *rng, int64_t now_unix_ms);
