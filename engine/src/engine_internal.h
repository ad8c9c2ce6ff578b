/* engine_internal.h - what the files of the engine's thread share. */
#pragma once

#include "bh/decision.h"
#include "bh/inflight.h"
#include "bh/log.h"
#include "bh/outcome_policy.h"
#include "bh/queue_id.h"
#include "bh/resolver.h"
#include "bh/tls_plan.h"
#include "engine.h"
#include "judge.h"
#include "sched_policy.h"
#include "sts.h"

#include <pthread.h>
#include <stdatomic.h>

#define LETTERS_MAX 65536 /* notes waiting for the engine */
#define LETTERS_BYTES_MAX ((size_t)64 << 20)
#define LEASE_BYTES_TOTAL ((uint64_t)256 << 20)
#define WAKE_SCAN_MS 1000                /* looks at wake rows that came due */
#define CLOCK_STEP_MS (5 * BH_MINUTE_MS) /* promise 1: a larger step suspends expiry */
#define SETTLE_BATCH_MAX 128
#define AGE_ROWS_MAX 64
#define RESOLVERS_MAX 16

/* How a destination's TLS is tried after a broken handshake, within one round (DESIGN 6); then its
 * site goes in clear, as the scheduler says. */
enum tls_step { TLS_STEP_NORMAL, TLS_STEP_SMALL };

/* One host of a destination's route, and what it must prove for it. */
struct host_plan {
    const struct bh_target_host *host;
    struct bh_dane dane;
    struct bh_tls_plan tls;
    bool audited; /* the connector tries out a stricter demand */
    struct bh_tls_plan audit;
    uint8_t digest[BH_TLS_DIGEST_LEN]; /* of the demand, where the host is used */
};

/* The way to a destination's hosts, with all it points to. */
struct route {
    struct bh_arena arena;
    struct bh_target_list list;
    struct host_plan *hosts; /* those with addresses, by name and port; the scheduler's addresses
                                have the index here, which is that of every other destination of
                                the site */
    uint32_t host_count;
    uint32_t ttl_s; /* the least of all answers that made it */
    int64_t made_unix_ms;
    bool sts_anew; /* the domain's MTA-STS policy was looked for past all caches */
};

struct dest_info {
    struct bh_map_node node;
    unsigned char key[4];
    uint32_t id;
    char domain_text[NAME_MAX_OCTETS], connector_text[NAME_MAX_OCTETS];
    struct bh_slice domain, connector;
    struct failover {
        bool over; /* an alternate carries its mail */
        char carrier_text[NAME_MAX_OCTETS];
        struct bh_slice carrier;  /* its name */
        uint32_t failures;        /* of the carrier, in a row */
        uint32_t stage, glitches; /* where the back-off of the first choice stands */
        int64_t retry_unix_ms;    /* when that is tried again; INT64_MAX: it is held */
        bool told;                /* its failed round ends nothing */
        uint32_t changes;         /* how often the carrier changed: a way by the old one is stale */
    } failover;
    char last_tls[160]; /* of its last session that came to speak of TLS */
    struct bh_sched_policy policy;
    uint64_t asked_ms;   /* monotonic: when the look for its hosts began; 0: none is under way */
    uint64_t dns_ms;     /* how long it took; told with the first lease after it */
    bool in_store;       /* its record was read, or its mail was put while we looked */
    struct probe *probe; /* NULL: one of the scheduler's */
    struct route *route; /* as last found; NULL: none yet */
    bool route_wanted;   /* it has REQUIRETLS mail: MTA-STS is asked for a proof of its route */
    bool untrusted;      /* it waits for its resolver to pass the self-test */
    uint64_t told_weaker_ms; /* monotonic: its hosts publish more than its connector asks */
    bool unmet;              /* this round, a host could not meet the demand */
    bool published_unmet;    /* this round, what is published kept mail from a host */
    bool lifting;            /* so did the last one: TLS-Required: No is looked for */
    struct bh_refill_cursor lift_cursor; /* how far, of what is looked at in its stead */
    bool otherwise;                      /* and one failed in another way */
    bool unmet_ends; /* end_outcome is a demand that is not met: `if-unmet bounce` */
    bool end_now;    /* by unmet_outcome, at the next look for its hosts */
    struct bh_outcome unmet_outcome;
    char unmet_text[BH_OUTCOME_TEXT_MAX], unmet_host[NAME_MAX_OCTETS];
    struct bh_outcome end_outcome; /* what its messages end with (no such domain) */
    char end_text[BH_OUTCOME_TEXT_MAX];
    enum tls_step tls_step;
    bool never_clear; /* it has had mail that is old enough for clear, and has REQUIRETLS */
    bool sts_unmet;   /* an MTA-STS policy kept its mail: a newer one is looked for before more */
    bool aging;       /* a pass of expiry or warnings is under way */
    bool age_again;
    bool forget; /* left the scheduler while something was under way */
    uint32_t resolving;
    int64_t last_warn_pass_unix_ms;
};

struct session_info {
    struct bh_map_node node;
    unsigned char key[4];
    struct worker_session *worker;
    struct lease
        *lease; /* loading, or with the session; held until the session is through with it */
    bool closing;
};

struct settle_batch {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    struct notifier notifier;
    enum bh_status status;
    struct bh_now now;
    size_t count;
    struct lease_item *items[SETTLE_BATCH_MAX];
    struct settle_batch *next;
};

/* May a resolver's AD bit be believed? (DESIGN 6) */
enum trust {
    TRUST_NEVER, /* the configuration does not name it as trusted */
    TRUST_UNTESTED,
    TRUST_TESTING,
    TRUST_GOOD,
    TRUST_BAD, /* it failed its self-test: demands that need DANE wait */
};

struct tls_job; /* engine_tls.c: a route whose TLSA records are being looked up */

struct resolver_slot {
    struct engine *engine;
    struct bh_resolver *resolver;
    uint64_t hash; /* of its settings */
    enum trust trust;
    bool tested, was_good; /* at least once; the last time */
    uint32_t open;         /* questions of the self-test */
    bool failed;           /* this one */
    uint32_t recoveries;   /* times that it passed after it had failed */
    char why[256];         /* what failed, of the last test */
    uint64_t next_test_ms; /* monotonic */
    struct bh_arena names_arena;
    struct bh_names self_test; /* its own copies */
    struct tls_job *waiting;   /* for the end of the test */
};

#define CAREFUL_HOSTS 64 /* remembered as not to be speculated with */

struct engine {
    struct engine_options options;
    pthread_t thread;
    bool started;
    uv_loop_t loop;
    uv_async_t doorbell;
    uv_timer_t timer;      /* the scheduler's deadline */
    uv_timer_t wake_timer; /* wake rows, clock */
    struct bh_mailbox *box;
    const struct bh_config *config; /* counted */
    struct bh_sched *sched;
    struct resolver_slot resolvers[RESOLVERS_MAX];
    uint32_t resolver_count; /* the first is the global one */
    struct sts *sts;
    struct bh_map dests, sessions;
    struct bh_rng rng;
    uint64_t next_number; /* of sessions */
    uint32_t next_worker;

    struct settle_batch *batch;  /* being filled */
    struct settle_batch *failed; /* to be tried again */
    bool hurried;                /* the drain timeout is over */
    struct lease_item *unjudged; /* for want of memory */
    struct lease *loading;       /* made, to be loaded together */
    struct lease **loading_end;
    uint64_t loading_bytes;
    struct lease_item *unbatched;  /* judged, and without a batch for want of memory */
    struct lease_item *unfollowed; /* owed a bulk job, which waits for memory or disk */
    bool sweeping;                 /* jobs that are done are being removed */
    uint64_t settling;             /* batches with the writer */
    uint64_t pending;              /* other tasks whose answer is a letter */
    uint64_t leases;               /* not yet freed */

    int64_t windows_unix_ms;      /* when the next delivery window opens or closes */
    int64_t windows_seen_unix_ms; /* when that was last looked at */
    uint32_t carried;             /* destinations that an alternate carries */
    struct posture_told { /* lately told to the store; a place for each hash, the last one stays */
        uint64_t key, facts, at_ms;
    } postures[4096];
    struct careful_host { /* a ring: the oldest makes room */
        struct bh_ip ip;
        uint16_t port;
        uint64_t until_ms;
        bool no_pipelining; /* nor speculation, then; else that alone */
    } careful[CAREFUL_HOSTS];
    uint32_t careful_next;
    struct probe *probes; /* under way */
    uint32_t probe_count;

    bool scanning_wake;
    struct bh_queue_wake wake_after;
    bool scanning_fresh;
    atomic_bool lost_notes;

    int64_t clock_offset_ms; /* wall - monotonic, as last seen */
    bool clock_begun;
    bool expiry_suspended;
    bool suspended_written; /* as the store has it */
    bool clock_writing;     /* ... and that is being changed */
    bool sweeping_dests;
    bool redate_wanted, redating; /* the wall clock has stepped back */
    uint64_t next_sweep_ms;       /* monotonic */
    uint64_t exceptions_told_ms;  /* monotonic */
    int64_t exceptions_unix_ms;   /* as of when they were looked at */
    bool draining, drained;
    uint64_t delivered, deferred, bounced, received; /* since start, for status */
};

/** The time. A step of the wall clock shows in it only once eclock_watch has seen it, and with it
 * suspended expiry: whoever is the first to read it judges nothing by it. The engine's thread. */
struct bh_now engine_now(struct engine *e);
/** ... as the clock says, for eclock_watch. */
struct bh_now engine_clock(const struct engine *e);
/** What has gone wrong at this address lately is not tried with this host. */
void ecareful_with(struct engine *e, const struct bh_sched_address *address,
                   struct session_host *host);
/** A session has closed: what it says about that. */
void ecareful_note(struct engine *e, const struct worker_session *s);
/** Carry out what the scheduler wants, then arm its timer. Call after every event fed to it. */
void engine_pump(struct engine *e);
/** The first half of it: the actions that stand now, carried out. */
void engine_act(struct engine *e);

/** The resolver of a connector: its own where its settings differ from the global ones. */
struct resolver_slot *engine_resolver(struct engine *e, const struct bh_connector *connector);
/** That of the configuration in force, for what is no connector's. */
struct bh_resolver *engine_global_resolver(struct engine *e);

/* engine_clock.c */
/** The thread begins: the clock as it is now is taken for right. */
void eclock_begin(struct engine *e);
/** Has the wall clock stepped? Before anything is judged by it. May end what is loaded. */
void eclock_watch(struct engine *e);
/** An operator has looked at it. */
void eclock_confirm(struct engine *e);

/* engine_redate.c */
/** Derive the store's due times anew, if e->redate_wanted. */
void eredate_tick(struct engine *e);

/* engine_sweep.c */
/** Delete some destinations that have had no mail for a day, now and then. */
void esweep_tick(struct engine *e);

/* engine_sts.c */
/** Make e->sts. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status ests_create(struct engine *e);

/* engine_dest.c */
struct dest_info *edest_get(struct engine *e, uint32_t id);
/** Known from now on; created if new. @return NULL for want of memory */
struct dest_info *edest_learn(struct engine *e, uint32_t id, struct bh_slice domain,
                              struct bh_slice connector);
void edest_drop(struct engine *e, struct dest_info *d);
const struct bh_connector *edest_connector(const struct engine *e, const struct dest_info *d);
void edest_set_policy(struct engine *e, struct dest_info *d);
/** Delivery windows that opened or closed since the last look. */
void edest_watch_windows(struct engine *e);
void edest_resolve(struct engine *e, uint32_t id);
void edest_on_put(struct engine *e, struct put_note *note);
void edest_on_found(struct engine *e, struct bh_letter *letter);
void edest_scan_fresh(struct engine *e);
void edest_scan_wake(struct engine *e);
void edest_refill(struct engine *e, uint32_t id, uint32_t count);
void edest_on_refilled(struct engine *e, struct bh_letter *letter);
/** Write a change of a destination's record; with company, soon. */
void edest_update(struct engine *e, uint32_t id, const struct bh_destination_change *change);
void edest_on_updated(struct engine *e, struct bh_letter *letter);

/** No way to its hosts: it ends, backs off or parks, as the outcome policy says. */
void edest_route_failed(struct engine *e, struct dest_info *d, enum bh_happened happened);
/** No host of its route may be used, as this one says. */
void edest_refused(struct engine *e, struct dest_info *d, const struct host_plan *plan);

/* engine_tls.c */
/** The hosts of a destination are known: look up what is published about their TLS, where its
 * connector wants it, then decide what each must prove, and tell the scheduler. Counts in
 * d->resolving while it lasts. */
void etls_begin(struct engine *e, struct dest_info *d, const struct bh_connector *c,
                const struct bh_target_list *list);
/** What a host publishes that its connector's explicit mode does not ask for; static; "": nothing.
 */
const char *etls_weakened(const struct host_plan *plan);
/** The self-test of its resolver has ended: go on. */
void etls_resume(struct tls_job *job);
/** The engine ends: it is given up. */
void etls_drop(struct tls_job *job);
/** The one that waits behind it. */
struct tls_job *etls_next(const struct tls_job *job);
/** NULL is fine. */
void etls_free_route(struct route *route);
/** A session for it failed: if an MTA-STS policy ruled it, a newer one is looked for before the
 * next (RFC 8461 section 5.1). */
void etls_note_failure(struct dest_info *d);
/** The host behind a scheduler's address of the destination's site; NULL: none that may be used. */
const struct host_plan *etls_host(const struct dest_info *d,
                                  const struct bh_sched_address *address);
/** The session's addresses with their hosts and demands. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status etls_fill_session(struct worker_session *s, const struct dest_info *d,
                                             const struct bh_sched_action *action);
/** It has mail with REQUIRETLS. @return true: its plan was made without looking for a proof of the
 * route, and the next one will not be */
bool etls_wants_route(struct dest_info *d);
/** Is there a host that could not be looked up, or may not be used for now? */
bool etls_has_later_host(const struct dest_info *d);
/** Has a session that is ready proven what the destination demands today of that host? */
bool etls_session_serves(const struct worker_session *s, const struct dest_info *d);

/* engine_lift.c */
/** Is it not one of the store's, but what carries another's mail with TLS-Required: No? */
bool elift_is(uint32_t id);
/** The destination of the store behind it: the same, or the one whose mail it carries. */
uint32_t elift_store_id(uint32_t id);
/** May this message go without what is published? */
bool elift_takes(const struct bh_envelope *envelope);
/** Does the connector let what is published be lifted, and is there anything to lift? */
bool elift_wanted(struct engine *e, const struct dest_info *d);
/** Its round failed: if what is published stood in the way, mail that need not wait goes on. */
void elift_round_failed(struct engine *e, struct dest_info *d);
/** A message that need not wait is in its entry lane. */
void elift_look(struct engine *e, struct dest_info *d);
/** Entries of a destination changed: once more, if it is being looked at. */
void elift_dirty(struct engine *e, uint32_t id);
/** What a host's plan makes of such a message, for explain; static; "": the same as of any other.
 */
const char *elift_of_host(struct engine *e, const struct dest_info *d,
                          const struct host_plan *plan);

/* engine_exception.c */
/** Say which exceptions end soon, or have ended. */
void eexception_tell(struct engine *e);
/** Look whether one has ended since; say so, and hold its connector. */
void eexception_tick(struct engine *e);
/** What connectors demand has changed (a new configuration, an exception that ended): every loaded
 * destination goes by what is in force now, and sessions end after their transaction. */
void engine_policy_changed(struct engine *e);

/* engine_unmet.c */
/** A session failed for it. */
void eunmet_note(struct dest_info *d, const struct worker_session *s);
/** Its round failed by their fault. Where every host failed to meet the demand, and its connector
 * says `if-unmet bounce`, its mail ends now. */
void eunmet_round_failed(struct engine *e, struct dest_info *d);
/** No host of its route may be used, as this one says: does that end its mail? */
bool eunmet_ends(struct engine *e, const struct dest_info *d, const struct host_plan *plan);
/** A round begins. @return true: its mail ends instead, by end_outcome */
bool eunmet_begin(struct dest_info *d);

/* engine_trust.c */
/** A resolver was made: note whether it is trusted, and what it is tested with.
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status etrust_init(struct engine *e, struct resolver_slot *slot,
                                       const struct bh_resolver_policy *policy);
/** Test all resolvers that the configuration trusts, if they were not. */
void etrust_start(struct engine *e);
/** Test one now; `slot->trust` is TRUST_TESTING until the end, which resumes who waits. */
void etrust_test(struct resolver_slot *slot);
/** Tests that are due (hourly; sooner after a failure). */
void etrust_tick(struct engine *e);
void etrust_fini(struct resolver_slot *slot);
/** For status: "trusted", "failed: ..."; empty where no resolver is trusted. */
void etrust_text(const struct engine *e, char *text, size_t cap);

/* engine_failover.c */
/** The name of the connector that carries its mail now: its first choice, or one that takes over.
 */
struct bh_slice efail_carrier(const struct dest_info *d);
/** Loaded, or the configuration changed: an alternate takes over at once where the first choice is
 * held. Sets the policy. */
void efail_begin(struct engine *e, struct dest_info *d);
/** It backs off. @return true: another connector carries its mail from now on, and the record is
 * written */
bool efail_backoff(struct engine *e, struct dest_info *d, const struct bh_sched_action *action,
                   const struct bh_outcome *said);
/** The alternate that carries its mail delivers again: a park is over, and its record is that of
 * the first choice once more. */
void efail_recovered(struct engine *e, const struct dest_info *d);
/** It is loaded, with what the store knows of its last failures. */
void efail_resume(struct dest_info *d, uint32_t stage, uint32_t glitches,
                  const struct bh_outcome *last);
/** Try first choices again whose time has come. */
void efail_tick(struct engine *e);
/** Try the first choice at once. */
void efail_flush(struct dest_info *d);
/** When a message that only the first choice takes is due. */
int64_t efail_next(const struct dest_info *d, int64_t now_unix_ms);

/* engine_posture.c */
/** A session is ready: remember what it has seen of its host's TLS, and tell what got worse. */
void eposture_note(struct engine *e, const struct worker_session *s);

/* engine_session.c */
void outgoing_open(struct engine *e, const struct bh_sched_action *action);
void outgoing_close(struct engine *e, uint32_t id);
void outgoing_lease(struct engine *e, const struct bh_sched_action *action);
/** Leases that were made since the last time go to a reader. @return true if they could not: that
 * has been told to the scheduler, which may have new actions */
bool outgoing_load(struct engine *e);
void outgoing_on_loaded(struct engine *e, struct lease *lease);
void outgoing_on_ready(struct engine *e, struct worker_session *s);
void outgoing_on_item(struct engine *e, struct lease_item *item);
void outgoing_retry_unjudged(struct engine *e);
void outgoing_on_idle(struct engine *e, struct worker_session *s);
void outgoing_on_closed(struct engine *e, struct worker_session *s);
/** Close all in good order (reload, drain). */
void outgoing_close_all(struct engine *e);

/* engine_settle.c */
/** Hand a judged item to the writer, with others. */
void settle_add(struct engine *e, struct lease_item *item);
void settle_flush(struct engine *e);
void settle_on_done(struct engine *e, struct settle_batch *batch);
/** Batches that met a full disk, and what found no memory. */
void settle_retry(struct engine *e);
/** The time to end in is over: what can't be settled now is left to the next start. */
void settle_hurry(struct engine *e);
/** Give up a hold on a lease: it is freed with its last one. */
void lease_release(struct engine *e, struct lease *lease);
/** A settled item leaves its lease. */
void settle_leave(struct engine *e, struct lease_item *item);
/** The item leaves its lease without a settle. */
void settle_skip(struct engine *e, struct lease_item *item);
/** Move a fresh item, or one whose connector changed. */
void settle_demote(struct engine *e, const struct bh_sched_item *item);
void settle_rebind(struct engine *e, struct lease_item *item);

/* engine_follow.c */
/** A bulk job passed this item while it was leased: the job is carried out on what is left of it,
 * then it leaves its lease. */
void follow_item(struct engine *e, struct lease_item *item);
/** What found no memory, or a full disk. */
void follow_retry(struct engine *e);

/* engine_age.c */
/** Run expiry (if `expire`) and warnings over a destination, in slices. */
void age_pass(struct engine *e, uint32_t destination, bool expire,
              const struct bh_outcome *outcome);
void age_on_passed(struct engine *e, struct bh_letter *letter);

/** Told of reports made by the writer. */
void engine_note_made(struct engine *e, const struct notify_made *made);
