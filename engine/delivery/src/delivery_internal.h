/* delivery_internal.h - what the files of the delivery driver share. */
#pragma once

#include "bh/delivery.h"
#include "bh/sasl.h"
#include "bh/secrets.h"

#define PLAIN_MAX ((size_t)65536)  /* octets of commands and content made at a time */
#define CIPHER_MAX ((size_t)65536) /* octets of ciphertext moved at a time */
#define HOST_MAX 256
#define FAILURE_TEXT_MAX 256
#define ATTEMPTS_MAX (2 * BH_DELIVERY_TARGETS_MAX)

_Static_assert(PLAIN_MAX >= 4 * BH_CLIENT_OUT_MIN, "the core has room");

struct bh_delivery_worker {
    uv_loop_t *loop;
    struct bh_tls_worker *tls;
    struct bh_secrets *secrets;
    uint32_t sessions;
    char plain[PLAIN_MAX];   /* in use during one call only */
    char cipher[CIPHER_MAX]; /* likewise */
    char input[PLAIN_MAX];   /* likewise: what was read */
    char decoded[PLAIN_MAX]; /* likewise: what was read, out of TLS */
};

/* One address, tried once. */
struct attempt {
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct bh_delivery *d;
    uint32_t target;
    uint64_t started_ms;
    size_t queued; /* octets that the socket has not taken */
    bool connecting;
    bool open; /* the handle is not closed yet */
    bool closing;
};

enum delivery_state {
    DELIVERY_CONNECTING,
    DELIVERY_TALKING,
    DELIVERY_FINISHED, /* the handles are closing */
};

struct bh_delivery {
    struct bh_delivery_worker *worker;
    struct bh_delivery_params params; /* slices into the arrays below */
    struct bh_delivery_callbacks callbacks;
    char hosts[BH_DELIVERY_TARGETS_MAX][HOST_MAX];
    char helo[HOST_MAX];
    uint8_t digest[BH_TLS_DIGEST_LEN]; /* of the demand on the address that talks */

    enum delivery_state state;
    struct attempt attempts[ATTEMPTS_MAX];
    uint32_t order[ATTEMPTS_MAX]; /* targets to try; one that lost the race comes once more */
    uint32_t order_count, started;
    uint64_t next_start_ms; /* when the next address joins the race */
    struct attempt *won;
    uint64_t connect_ms, tls_ms;
    struct bh_delivery_failure failures[BH_DELIVERY_TARGETS_MAX];
    char failure_texts[BH_DELIVERY_TARGETS_MAX][FAILURE_TEXT_MAX];
    uint32_t failures_count;

    struct bh_client_options options;
    const struct bh_client_txn *handling; /* told; not to be looked into */
    struct bh_client client;
    struct bh_tls *tls;
    struct bh_clearance *clearance;
    struct bh_sasl *sasl; /* holds the secret while AUTH is under way */
    uint64_t tls_started_ms;

    uv_timer_t timer;
    bool timer_open;
    uint64_t armed_ms; /* UINT64_MAX: not armed */

    struct bh_delivery_txn *waiting, **waiting_end; /* given before READY */
    struct bh_delivery_txn *done, **done_end;       /* to be told */
    uint32_t given;                                 /* waiting, or in the core */

    bool busy, again;
    bool quit, drop; /* asked for from outside */
    bool ready, tell_ready, idle_told;
    bool served;   /* something was given */
    bool answered; /* an address answered */
    bool tls_trouble;
    bool graceful;
    struct bh_outcome outcome;
    char outcome_text[BH_OUTCOME_TEXT_MAX];
};

struct bh_now bh_delivery_now(const struct bh_delivery *d);
/** Do what there is to do: connect, drain the core, tell. Safe to call from anywhere in the room.
 */
void bh_delivery_pump(struct bh_delivery *d);
/** Everything is over: no more talk, handles close. */
void bh_delivery_finish(struct bh_delivery *d, const struct bh_outcome *outcome, bool graceful);

/* delivery_connect.c */
/** Start, time out and give up addresses. */
void bh_delivery_connect(struct bh_delivery *d);
uint64_t bh_delivery_connect_deadline_ms(const struct bh_delivery *d);
void bh_delivery_fail_target(struct bh_delivery *d, uint32_t target,
                             const struct bh_outcome *outcome);
void bh_delivery_close_attempt(struct attempt *a);

/* delivery_talk.c */
/** The connection to this address stands: start the core on it. */
void bh_delivery_start_talk(struct bh_delivery *d, struct attempt *a);
/** Drain the core. */
void bh_delivery_talk(struct bh_delivery *d);
void bh_delivery_end_talk(struct bh_delivery *d);

/** The core can't go on: what happened is ours, or said by us. */
void bh_delivery_fail_core(struct bh_delivery *d, enum bh_stage stage, enum bh_happened happened,
                           struct bh_slice text);

/* delivery_auth.c */
/** Answer WANT_SASL. The secret is read here, after the clearance was looked at. */
void bh_delivery_want_sasl(struct bh_delivery *d, const struct bh_client_action *action);
/** AUTH is over, whatever came of it: the secret is wiped. */
void bh_delivery_end_sasl(struct bh_delivery *d);
/** May a credential go to this peer, over this connection, now? Only to one that proved who it is
 * under a demand that asks for it; else while a dated exception lasts, and then in clear text only
 * where the demand is off: never because TLS was not offered. */
bool bh_delivery_may_credential(const struct bh_delivery *d);

/* delivery_wire.c */
/** The one function that writes to a socket. Privileged output, and anything that is not plainly
 * preamble, goes out only under a valid clearance for this connection, generation and demand; one
 * for TLS only inside TLS. Empty `plain` moves what TLS has to say.
 * @return false: refused, or out of memory or the socket's favour; the session must end */
bool bh_delivery_wire(struct bh_delivery *d, enum bh_client_output output, struct bh_slice plain);
