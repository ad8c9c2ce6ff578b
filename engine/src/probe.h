/* probe.h - a look at every target that mail to an address may go to, by the way that mail takes:
 * the connector's route, what is published about each host, the session under its effective demand,
 * MAIL and RCPT. No content: the transaction ends in RSET. The engine's thread resolves and opens,
 * a worker talks, the main thread tells. */
#pragma once

#include "bh/config.h"
#include "bh/delivery.h"
#include "letters.h"
#include "tls_seen.h"

#define PROBE_TARGETS_MAX 40
#define PROBE_NAME_MAX 256
#define PROBE_TIMEOUT_MS 30000 /* no wait of a probe's session is longer */

enum probe_verdict {
    PROBE_OK,          /* mail would go there */
    PROBE_REFUSED,     /* by the peer's word on MAIL or RCPT; TLS was as it must be */
    PROBE_LATER_CLEAR, /* TLS is broken, and nothing demands it: old mail would go in clear */
    PROBE_WOULD_NOT,   /* mail would not be delivered there */
    PROBE_LEFT_OUT,    /* no target: this machine, or a forbidden network */
};

/** One address of a host, or a host without any that may be used. */
struct probe_target {
    struct probe *probe;
    char host[PROBE_NAME_MAX];
    struct bh_ip ip; /* family 0: none was tried */
    uint16_t port, preference;
    enum probe_verdict verdict;
    struct tls_seen seen;
    bool ended; /* its session, if it had one, is over */
    bool ready; /* all demands were met */
    uint64_t connect_ms, tls_ms;
    struct bh_outcome outcome; /* how far it got, and how that ended */
    char text[BH_OUTCOME_TEXT_MAX];

    struct bh_delivery_txn txn; /* the worker's */
    struct bh_client_result results[1];
    struct bh_arena arena;
};

struct probe {
    struct engine *engine;
    struct probe *next;             /* of the engine's */
    const struct bh_config *config; /* counted */
    char address[PROBE_NAME_MAX + BH_ADDRESS_MAX];
    char sender[BH_ADDRESS_MAX + 1];
    struct bh_slice domain, connector; /* in texts below */
    char domain_text[PROBE_NAME_MAX], connector_text[PROBE_NAME_MAX], rule[512];
    struct bh_envelope envelope;
    struct bh_recipient recipient;

    uint32_t id;    /* of its destination, which the scheduler does not know */
    bool resolving; /* until the route is known */
    bool failed;    /* there is no route: outcome says why */
    struct bh_outcome outcome;
    char text[BH_OUTCOME_TEXT_MAX];
    uint32_t open; /* sessions */
    uint32_t count;
    struct probe_target targets[PROBE_TARGETS_MAX];

    struct engine_call end; /* private */
    /** On the engine's thread: all is known. */
    void (*done)(void *ctx, struct probe *probe);
    void *ctx;
};

/** @param address  local@domain, or a domain: then its postmaster's
 *  @return NULL for want of memory */
struct probe *probe_create(const struct bh_config *config, struct bh_slice address,
                           struct bh_slice sender);
/** After done. NULL is fine. */
void probe_destroy(struct probe *probe);
/** The name for rows: "ok", "refused", "would not deliver" ...; static storage. */
const char *probe_verdict_name(enum probe_verdict verdict);
/** Is it a finding that an operator must act on? */
bool probe_verdict_is_bad(enum probe_verdict verdict);

/* On the engine's thread. */
struct dest_info;
struct worker_session;
/** Begin; `done` is called later, whatever happens. */
void eprobe_start(struct engine *e, struct probe *probe);
/** Its destination's route is known, or there is none. */
void eprobe_on_route(struct engine *e, struct dest_info *d);
void eprobe_on_no_route(struct engine *e, struct dest_info *d, const struct bh_outcome *outcome);
/** One of its sessions is over; frees it. */
void eprobe_on_closed(struct engine *e, struct worker_session *s);
/** The engine ends: what is still looking for its route is given up. */
void eprobe_drain(struct engine *e);

/* On a worker's thread. */
/** The callbacks of a probe's session. */
struct bh_delivery_callbacks probe_callbacks(struct worker_session *s);
