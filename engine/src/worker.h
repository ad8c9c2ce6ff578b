/* worker.h - an I/O worker: a thread with a loop of its own that carries sessions in both
 * directions: intake on its listeners, delivery to partners. It does what the engine says; it
 * decides nothing about mail. */
#pragma once

#include "letters.h"

#include "bh/tls_plan.h"

struct worker;
struct probe_target;

#define SESSION_DEMANDS_MAX ((size_t)256 * 1024) /* octets of names and TLSA records */

/** One of a session's addresses: whose it is, and what it must prove. */
struct session_host {
    char name[NAME_MAX_OCTETS];
    struct bh_tls_demand demand;       /* effective; its own names and records are in the session */
    uint8_t digest[BH_TLS_DIGEST_LEN]; /* of the demand */
    char origin[160];                  /* what decided it, and why */
    bool audited;                      /* a stricter demand is tried out beside it */
    const char *audit_refusal;         /* why no host could meet that; static. NULL: `audit` says */
    struct bh_tls_demand audit;        /* effective */
    bool route_proven;                 /* its name is authentic (RFC 8689 section 4.2.1) */
    bool route_unknown;                /* it may be: our resolver can't say */
    bool step_by_step;                 /* no speculation with it */
    bool no_pipelining;                /* whatever it offers */
};

/** A session, from its opening to worker_free; made by the engine with calloc. */
struct worker_session {
    struct bh_letter open;   /* engine to worker, once */
    struct bh_letter close;  /* engine to worker, at most once */
    struct bh_letter ready;  /* worker to engine */
    struct bh_letter idle;   /* worker to engine, one at a time */
    struct bh_letter closed; /* worker to engine, the last */
    bool close_sent;

    uint32_t id;     /* the scheduler's */
    uint64_t number; /* never used again: the clearance is bound to it */
    uint32_t destination;
    struct probe_target *probe; /* NULL: a session for mail */
    struct worker *worker;
    const struct bh_config *config; /* counted */
    const struct bh_connector *connector;
    bool clear, small_hello;
    bool lifted;          /* for messages with TLS-Required: No alone */
    struct tls_seen seen; /* wanted: the engine's; got: told with `ready` */
    struct bh_sched_address addresses[BH_ROUND_ADDRESSES_MAX];
    struct session_host hosts[BH_ROUND_ADDRESSES_MAX];
    struct bh_arena demands;
    uint32_t address_count;

    struct bh_delivery *delivery; /* the worker's from here on */
    struct lease *lease;          /* given */
    uint32_t given;               /* items not decided */
    uint64_t ready_ms, done_ms;   /* monotonic: when it was ready; when the last item was done */
    uint64_t given_ms;            /* ... and when it was given its lease */
    bool setup_told;              /* who waited for the connection was told how long */

    /* Told with `ready`. */
    uint32_t target;
    uint64_t connect_ms, tls_ms;

    /* Told with `idle`. */
    uint64_t took_ms; /* from its lease, or from when it was ready, to the last answer */

    /* Told with `closed`. */
    bool failed; /* outcome says how */
    bool was_ready;
    bool unmet; /* every address failed to meet its demand, and that alone */
    bool unmet_any;
    bool tls_trouble;
    bool ahead_trouble, sync_trouble; /* see bh/smtp_client.h */
    struct bh_outcome outcome;
    char outcome_host[NAME_MAX_OCTETS];
    char outcome_text[BH_OUTCOME_TEXT_MAX];
    struct bh_sched_address failures[BH_ROUND_ADDRESSES_MAX];
    uint32_t failure_count;
};

struct worker_options {
    uint32_t number;
    struct bh_mailbox *engine; /* where its letters go */
    struct bh_inflight *inflight;
    /** On the worker's thread: set up intake on its loop; and later take it down. */
    void (*started)(void *ctx, struct worker *worker, uv_loop_t *loop, struct bh_tls_worker *tls);
    /** Stop accepting, end sessions in good order. */
    void (*draining)(void *ctx, struct worker *worker);
    void *ctx;
};

/** Start the thread. @return BH_OK, BH_ENOMEM, BH_EIO */
BH_MUST_USE enum bh_status worker_create(const struct worker_options *options,
                                         struct worker **worker);
/** Engine's thread: open; give a loaded lease to a session; end a session in good order. */
void worker_open(struct worker *worker, struct worker_session *session);
void worker_give(struct worker *worker, struct worker_session *session, struct lease *lease);
void worker_close(struct worker_session *session);
/** After ENGINE_CLOSED: the worker frees it behind whatever is still on its way there. */
void worker_free(struct worker_session *session);
/** On the worker's thread, for callbacks of sessions (probe.c): note what READY and the end say. */
void worker_note_ready(struct worker_session *s, const struct bh_delivery_ready *ready);
void worker_note_closed(struct worker_session *s, struct bh_delivery *d,
                        const struct bh_delivery_closed *closed);
/** Run a function on the worker's thread; any thread. The letter is the caller's. */
struct worker_call {
    struct bh_letter letter;
    void (*run)(struct worker_call *call, struct worker *worker);
};
void worker_call(struct worker *worker, struct worker_call *call);
uint32_t worker_number(const struct worker *worker);
/** Begin to end: drains intake, closes sessions in good order. Any thread, once. */
void worker_drain(struct worker *worker);
/** After worker_drain: give up what is still open. Any thread, once. */
void worker_abort(struct worker *worker);
/** All its sessions are closed and its intake is drained: end the thread and free it. Nobody posts
 * to it any more. */
void worker_join(struct worker *worker);
