/* delivery.h - one outgoing SMTP or LMTP session over libuv: connects, runs the client core, TLS,
 * one timer, and holds back when the peer reads slowly. All calls and callbacks happen on the
 * worker's own thread. Nothing is freed while a callback of it is on the stack. */
#pragma once

#include <uv.h>

#include "bh/smtp_client.h"
#include "bh/tls.h"

#define BH_DELIVERY_TARGETS_MAX 5    /* addresses tried for one session */
#define BH_DELIVERY_STAGGER_MS 250   /* until the next address is tried beside the first */
#define BH_DELIVERY_QUEUE_MAX 262144 /* octets waiting for the socket; above it nothing is made */

struct bh_delivery_worker;
struct bh_delivery; /* one session */

struct bh_delivery_target {
    struct bh_slice host; /* the next hop's name, or its address as text */
    struct bh_ip ip;
    uint16_t port;
    const struct bh_tls_demand *demand; /* effective; what this host must prove */
    bool route_proven;  /* the way to this host is authenticated as RFC 8689 wants: with a proven
                           peer, REQUIRETLS mail may go */
    bool route_unknown; /* it may be, but our resolver can't say: REQUIRETLS mail waits */
    bool step_by_step;  /* content never goes ahead of replies there */
    bool no_pipelining; /* each command waits for the reply to the one before, whatever it offers */
};

/** Who we are to the next hop. Borrowed: it must outlive the session. */
struct bh_delivery_auth {
    uint32_t mechanisms; /* BH_SASL_ bits that may be used; 0: no authentication */
    struct bh_slice user;
    struct bh_slice secret_file;           /* NUL-terminated behind its slice */
    int64_t unauthenticated_until_unix_ms; /* until then (exclusive) credentials may also go to a
                                              peer that did not prove who it is; 0: never */
};

/** Everything is copied but the demands and what `auth` points to, which must outlive the session.
 */
struct bh_delivery_params {
    uint64_t id;         /* never used again in this process; not 0: the clearance is bound to it */
    uint64_t generation; /* of the configuration */
    struct bh_delivery_target targets[BH_DELIVERY_TARGETS_MAX]; /* in the order to try */
    uint32_t targets_count;
    struct bh_ip source_ipv4, source_ipv6; /* family 0: the system chooses */
    struct bh_slice helo;                  /* our name */
    struct bh_delivery_auth auth;
    bool clear;       /* in clear though TLS is offered; only where the demand allows it. Such a
                         session ends with the first work it was given: the next tries TLS */
    bool small_hello; /* see bh/tls.h */
    bool lmtp;
    bool helo_only;
    uint32_t extensions_off; /* BH_EXT_ bits */
    bool speculative;        /* content ahead of replies from the first message on */
    uint32_t recipients_max;
    uint64_t min_rate;   /* octets a second */
    uint64_t connect_ms; /* one address */
    struct bh_client_timeouts timeouts;
};

/** One transaction of a lease; the caller's until `done` has told of it. */
struct bh_delivery_txn {
    struct bh_client_txn txn;       /* txn.user is the driver's; the rest as smtp_client.h says */
    const struct bh_slice *content; /* the whole message, in pieces in memory */
    size_t content_count;
    void *user;                   /* the caller's own */
    struct bh_delivery_txn *next; /* private */
    size_t content_next;          /* private */
};

/** One address that was tried and did not serve. */
struct bh_delivery_failure {
    uint32_t target; /* index */
    struct bh_outcome outcome;
};

struct bh_delivery_ready {
    uint32_t target; /* index of the address that answered */
    const struct bh_client_facts *facts;
    const struct bh_tls_facts *tls; /* NULL: clear text */
    uint64_t connect_ms, tls_ms;    /* how long each took */
};

struct bh_delivery_closed {
    bool graceful;                       /* in good order: outcome is empty */
    bool was_ready;                      /* READY had been told */
    struct bh_outcome outcome;           /* what ended it, or the last address's failure */
    bool tls_trouble;                    /* a try with small_hello, later in clear, may be due */
    const struct bh_client_facts *facts; /* NULL: no address answered */
    const struct bh_delivery_failure *failures;
    uint32_t failures_count;
};

/** All pointers are good for the call only. A callback may call give and close. */
struct bh_delivery_callbacks {
    void *ctx;
    /** Connected, greeted, cleared. Work may be given (before it, too). */
    void (*ready)(void *ctx, struct bh_delivery *d, const struct bh_delivery_ready *ready);
    /** The end of a message goes out right after this returns: write it down. `ending` has a bit
     * for each recipient. @return false: it can't be written down, the session ends before the end
     */
    bool (*before_end)(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn,
                       const uint64_t ending[2]);
    /** What is worked on from here on, within one call of the loop: if it kills the process, the
     * next one should know. NULL: nothing of anybody's. May be NULL itself. */
    void (*handling)(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn);
    /** These are done, linked by bh_delivery_next: results are in txn.results. They are the
     * caller's again. */
    void (*done)(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *first);
    /** Everything given is done; more may be given. */
    void (*idle)(void *ctx, struct bh_delivery *d);
    /** The end; every transaction was told by `done` before. `d` is gone after this returns, and
     * all outcomes with it. */
    void (*closed)(void *ctx, struct bh_delivery *d, const struct bh_delivery_closed *closed);
};

/** @param loop borrowed @param tls borrowed @return NULL for want of memory */
struct bh_delivery_worker *bh_delivery_worker_create(uv_loop_t *loop, struct bh_tls_worker *tls);
/** Every session must have told `closed`. NULL is fine. */
void bh_delivery_worker_destroy(struct bh_delivery_worker *worker);
/** Sessions open, those that are closing included. */
uint32_t bh_delivery_worker_sessions(const struct bh_delivery_worker *worker);

/** Start a session. @return BH_OK: `closed` will be told, later, whatever happens; BH_ENOMEM or
 * BH_EINVAL (no target, or a demand that this layer can't enforce): nothing will be told */
BH_MUST_USE enum bh_status bh_delivery_open(struct bh_delivery_worker *worker,
                                            const struct bh_delivery_params *params,
                                            const struct bh_delivery_callbacks *callbacks,
                                            struct bh_delivery **d);
/** Hand over a lease: up to BH_CLIENT_TXNS_MAX at once in all. A session that is ending gives them
 * back untouched.
 * @return BH_OK, or BH_ELIMIT: nothing was taken */
BH_MUST_USE enum bh_status bh_delivery_give(struct bh_delivery *d, struct bh_delivery_txn **txns,
                                            size_t count);
/** The next of a `done` list, or NULL. */
struct bh_delivery_txn *bh_delivery_next(const struct bh_delivery_txn *txn);
/** @param graceful  finish what was started, say QUIT; else drop the connection at once. `closed`
 *                   is told later, not within this call */
void bh_delivery_close(struct bh_delivery *d, bool graceful);
void *bh_delivery_user(const struct bh_delivery *d); /* callbacks.ctx */
uint64_t bh_delivery_id(const struct bh_delivery *d);
