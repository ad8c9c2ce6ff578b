/* view.h - what operators look at: rows of JSON made from the queue and the configuration. The same
 * code answers over the control socket and, with the daemon down, inside bhctl.
 *
 * A view is stepped: each step gets a read transaction of its own, gives at most BH_VIEW_ROWS rows
 * and keeps no pointer into the store, so that nothing is open while rows are printed or sent. */
#pragma once

#include "bh/config.h"
#include "bh/control.h"
#include "bh/queue.h"

#define BH_VIEW_ROWS 1000     /* rows looked at, and given, in a step */
#define BH_VIEW_TOP 50        /* destinations of `queue`, when not told */
#define BH_VIEW_TOP_MAX 10000 /* at most */

/* What only the running engine knows. */
struct bh_live_engine {
    bool intake_paused;
    uint32_t sessions_in;  /* SMTP sessions of clients */
    uint32_t sessions_out; /* connections to partners */
    uint64_t generation;   /* of the configuration */
    int64_t started_unix_ms;
    struct bh_slice dnssec; /* of the trusted resolvers: "trusted", "failed: ..."; empty: none is */
};

/* What limits a destination now. Words that are NULL do not apply. */
struct bh_live_limit {
    const char *by;       /* "connections", "rate", "memory" ...; NULL: nothing does */
    const char *of;       /* "destination", "host", "connector", "all" */
    const char *what;     /* of a rate: "messages", "recipients", "connections" */
    uint32_t used, max;   /* of connections */
    bool half;            /* max is half of the limit: it has had no success lately */
    struct bh_slice rate; /* "40/min" */
    struct bh_slice host; /* "192.0.2.1" */
    struct bh_slice text; /* all of it, for people: "destination connections 20/20" */
};

struct bh_live_destination {
    uint32_t connections;
    uint32_t in_flight;      /* messages leased to sessions */
    struct bh_slice carrier; /* the connector that takes over for its own; empty: none does */
    struct bh_live_limit limit;
    uint64_t left, left_ms;            /* messages taken lately, and in what time; 0: not known */
    uint64_t message_ns, recipient_ns; /* its slowest rates: one each so long; 0: none */
};

struct bh_live_connector {
    uint32_t connections;
    bool parked;
    struct bh_slice reason; /* of parked */
    int64_t parked_since_unix_ms;
};

/* One host of the way to a domain, and what TLS must be there. */
struct bh_live_host {
    struct bh_slice name;
    struct bh_slice connector; /* whose demand it is */
    uint16_t port;
    bool used;                /* false: left out, for the reason */
    struct bh_slice tls;      /* the effective mode; of a host that is used */
    struct bh_slice from;     /* which input decided: "connector", "dane" ... */
    struct bh_slice reason;   /* in words; may be empty */
    struct bh_slice dane;     /* what is known of its TLSA records: "usable", "insecure" ... */
    struct bh_slice weakened; /* what it publishes that the connector's mode does not ask for */
    struct bh_slice lifted;   /* what a message with TLS-Required: No is held to instead; empty */
    bool route_proven;
    /* Of policy: the TLSA records that count, and how old that is. */
    struct bh_slice base;           /* the name that they stand under; empty: none counts */
    const struct bh_slice *records; /* "3 1 1 ab34..." */
    size_t records_count;           /* given here */
    uint64_t records_all;
    int64_t looked_unix_ms; /* when the way to the domain was last made */
    int64_t until_unix_ms;  /* and for how long it holds */
};

/* What the engine knows of a domain's MTA-STS policy beside what is stored. */
struct bh_live_sts {
    struct bh_slice origin;    /* "cache", "not-published" ... */
    struct bh_slice announced; /* the id of the record, as last seen; may be empty */
    struct bh_slice trouble;   /* why it could not be looked up or renewed; may be empty */
};

/* Filled by the daemon from its snapshots; slices live until the next call. Each callback may be
 * NULL, or return false for "nothing known". Called on the thread that steps the view. */
struct bh_live {
    void *ctx;
    bool (*engine)(void *ctx, struct bh_live_engine *engine);
    bool (*destination)(void *ctx, uint32_t id, struct bh_live_destination *destination);
    bool (*connector)(void *ctx, struct bh_slice name, struct bh_live_connector *connector);
    /** The hosts of the domain that is explained or asked about, as last looked up. */
    bool (*host)(void *ctx, size_t index, struct bh_live_host *host);
    /** What is in force of MTA-STS for the domain that is asked about. */
    bool (*sts)(void *ctx, struct bh_live_sts *sts);
};

struct bh_view_options {
    const struct bh_config *config; /* may be NULL: views of the queue do without; a reference is
                                       taken */
    struct bh_live live;            /* all NULL: the engine is not running */
    struct bh_slice events;         /* folder of the event log; empty: the configuration's */
    int64_t now_unix_ms;
};

struct bh_view;

/** Prepare a view. The request is copied as far as it is needed.
 *
 * @param request  of a view verb (bh_control_verb_is_view)
 * @return BH_OK; BH_ENOMEM; BH_EINVAL (error says why: no configuration, a bad address) */
BH_MUST_USE enum bh_status bh_view_create(const struct bh_control_request *request,
                                          const struct bh_view_options *options,
                                          struct bh_view **view, struct bh_control_error *error);
/** NULL is fine. */
void bh_view_destroy(struct bh_view *view);

struct bh_view_sink {
    /** Takes one row: a JSON object, at most BH_CONTROL_ROW_MAX - 16 octets, borrowed for the call.
     */
    void (*row)(void *ctx, struct bh_slice object);
    void *ctx;
};

/** Go on. `connectors`, `explain`, `audit` and `policy` accept txn NULL (no queue yet).
 *
 * @return BH_MORE  call again, with a new transaction
 *         BH_OK    the view is whole; see bh_view_end
 *         BH_ENOTFOUND  no such message or connector (bh_view_error says which)
 *         BH_ENOMEM, BH_EIO, BH_ECORRUPT  as the queue's reading gave */
BH_MUST_USE enum bh_status bh_view_step(struct bh_view *view, struct bh_kv_txn *txn,
                                        const struct bh_view_sink *sink);

/** After BH_OK: the object of totals that ends the answer. Lives as long as the view. */
struct bh_slice bh_view_end(const struct bh_view *view);
/** After a failed step: why, in words. Lives as long as the view. */
const struct bh_control_error *bh_view_error(const struct bh_view *view);
/** After BH_OK: a negative finding (verify found problems, explain no active connector). The object
 * that ends the answer says so too, as "negative". */
bool bh_view_negative(const struct bh_view *view);
