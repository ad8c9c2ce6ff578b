/* lease.h - work on its way to a session and back: some entries, of one destination or of several
 * that share the session, loaded by a store reader, delivered by a worker, judged by the engine,
 * settled by the writer. Whoever holds it owns it; it passes through mailboxes. */
#pragma once

#include "bh/config.h"
#include "bh/delivery.h"
#include "bh/inflight.h"
#include "bh/queue.h"
#include "bh/scheduler.h"
#include "bh/store.h"
#include "leased.h"
#include "tls_seen.h"

#define CLEAR_MIN_AGE_MS (5 * BH_MINUTE_MS) /* DESIGN 6, mode opportunistic */
#define STORE_THREADS_MAX 8                 /* the first handling slots; then one for each worker */

enum lease_what {
    LEASE_DELIVER,
    LEASE_GONE,     /* no such entry any more, or not its time */
    LEASE_REBIND,   /* the configuration in force gives it another connector */
    LEASE_FILTERED, /* a bulk job means it */
    LEASE_WAITS,    /* its connector is down, and who takes over does not take this one */
    LEASE_YOUNG,    /* a session in clear by fallback takes no mail younger than 5 minutes,
                        and none with REQUIRETLS */
    LEASE_FAILED,   /* could not be read */
};

struct lease;

/* The items of one destination. */
struct lease_part {
    uint32_t destination;      /* the store's */
    uint32_t sched_id;         /* the scheduler's: the same, or what carries TLS-Required: No */
    bool lifted;               /* only such messages may go */
    int64_t early_ms;          /* what is due this soon may go, too */
    uint64_t dns_ms;           /* that its first message waited for the way to the hosts */
    bool held;                 /* by its record */
    bool read;                 /* the record was found */
    struct bh_slice domain;    /* in the arena */
    struct bh_slice connector; /* its first choice */
    struct bh_slice carrier;   /* who carries it now: the same, or one that takes over */
    struct bh_destination row; /* the reader's */
};

struct lease_item {
    struct bh_letter letter; /* worker to engine: decided */
    struct lease *lease;
    struct lease_part *part;
    struct bh_sched_item *sched; /* the scheduler's, until item_done, _returned or _gone */
    struct bh_queue_key key;
    enum bh_lane lane;
    uint32_t slot; /* in flight; UINT32_MAX: none */
    enum lease_what what;

    struct bh_message message; /* from the reader on */
    struct bh_entry entry;
    struct bh_slice content;
    int64_t age_ms; /* effective, when loaded */
    struct bh_match match;
    struct bh_recipient *recipients;

    struct bh_delivery_txn txn; /* the worker's */
    uint64_t started_ms;        /* monotonic */
    struct {
        uint64_t connect_ms, tls_ms; /* of its session; 0 if an earlier message waited for it */
        uint64_t transfer_ms;        /* from the end of the one before it to its last reply */
    } took;

    struct bh_settle settle; /* the engine's judgement; in lease->judged */
    enum bh_sched_signal signal;
    struct bh_outcome said;
    bool has_said;
    bool answered;          /* the scheduler was told that its session is through with it */
    bool left;              /* settled, or given up: it only waits for its lease to be freed */
    bool settled;           /* the writer has settled it */
    struct bh_queue_key at; /* where it is now: another key once it was moved */
    bool breaker_open;      /* of its destination, when it was answered */
    bool slow;              /* its partner wants less */
    bool detours;           /* kept, for another host at once */
    bool returned;          /* untouched: goes back without a settle */
    bool changed;           /* without a settle: moved, or what a bulk job made of it */
    struct lease_item *next_settled;

    struct leased_passed passed; /* the bulk jobs that chose it meanwhile */
};

struct lease {
    struct bh_letter letter;
    struct bh_store_task task;
    struct lease *also;                  /* loaded behind it, by the same task; NULL: none */
    void (*loaded)(struct lease *lease); /* on the reader's thread, after the load */
    void *owner;
    struct bh_inflight *inflight;   /* borrowed; where the reader says what it handles */
    const struct bh_config *config; /* counted */
    uint32_t session; /* 0: for no session; each item is to end, and they are of one destination */
    bool clear_fallback;
    bool expired_clock; /* expiry is suspended (wall clock step) */
    uint64_t jobs;      /* committed when it was asked for */
    int64_t now_unix_ms;
    struct tls_seen tls; /* of its session, as it was handed out: no worker writes it */
    uint32_t count, part_count;
    uint32_t open;            /* items not yet settled; the engine's */
    struct bh_arena arena;    /* reader, then worker */
    struct bh_arena judged;   /* engine, then writer */
    uint32_t room;            /* items, and parts, that it was made for */
    struct lease_part *parts; /* behind the items; each has one */
    struct lease_item items[];
};

_Static_assert(sizeof(struct lease_item) % _Alignof(struct lease_part) == 0,
               "parts lie right behind the items");

/** @param items at most so many; @param bytes octets of content that will be loaded
 * @return NULL for want of memory */
struct lease *lease_create(const struct bh_config *config, uint32_t items, uint64_t bytes);
/** Another destination. @return NULL for want of memory */
struct lease_part *lease_add_part(struct lease *lease, struct bh_slice domain,
                                  struct bh_slice connector, struct bh_slice carrier);
void lease_destroy(struct lease *lease);
/** Whose rules say what an outcome means (`replies`, `uncertain`): the connector that `config`, the
 * one in force, has for this item now. A session may be minutes behind a reload: what an operator
 * has ruled since counts, so that nothing is held, returned or tried again by what he took back.
 * @return NULL: none takes its domain any more */
const struct bh_connector *lease_rules(const struct lease_item *item,
                                       const struct bh_config *config);
/** The number of the calling thread of the store, for bh_inflight_handling: the first to ask has 0.
 */
uint32_t store_thread_number(void);
/** Load it, and what is chained behind it by `also`, on a store reader; lease->loaded is called
 * there for each. @return as bh_store_read */
BH_MUST_USE enum bh_status lease_load(struct lease *lease, struct bh_store *store);
