/* tls_plan.h - from what a connector demands of TLS to what one host must prove for one
 * destination: the configured demand, what is published for the host (DANE, RFC 7672) and for the
 * domain (MTA-STS, RFC 8461) go in, an effective demand or the reason why there is none comes out
 * (DESIGN section 6). Pure: the lookups are the caller's. */
#pragma once

#include "bh/dane.h"
#include "bh/outcome.h"
#include "bh/sts.h"

/** What the lookups of the route say of a host. All borrowed. */
struct bh_plan_host {
    struct bh_slice name;      /* as in the MX record or the configuration, lower case */
    struct bh_slice canonical; /* the end of its CNAME chain; `name` if there is none */
    bool literal;              /* an address, not a name */
    bool smarthost;            /* named by the configuration */
    bool mx_secure;            /* the way to the name is authenticated: MX with AD, or configured */
    bool address_secure;       /* so are its addresses */
    bool incomplete;           /* one of its address lookups failed */
};

/** Which input decided. */
enum bh_tls_origin {
    BH_TLS_BY_CONNECTOR, /* its mode says all there is to say */
    BH_TLS_BY_EXCEPTION, /* its dated exception does */
    BH_TLS_BY_DANE,
    BH_TLS_BY_STS,
    BH_TLS_BY_FALLBACK, /* mode dane, nothing published: the connector's next mode */
    BH_TLS_BY_DEFAULT,  /* mode auto, nothing published */
    BH_TLS_BY_SENDER,   /* mode auto: TLS-Required: No lifts what is published */
};

enum bh_plan_verdict {
    BH_PLAN_USE,   /* hold the session to `demand` */
    BH_PLAN_LATER, /* a lookup failed: not this host, not now; `happened` says how */
    BH_PLAN_UNMET, /* what is published does not allow this host: theirs */
    BH_PLAN_OURS,  /* our configuration can't hold here: parks */
};

struct bh_tls_plan_input {
    const struct bh_tls_demand *configured;
    bool exception;         /* it is the one of the connector's exception */
    struct bh_slice domain; /* of the recipients: the next-hop domain */
    struct bh_plan_host host;
    struct bh_dane dane;
    const struct bh_sts_fact *sts; /* what is in force for the domain; NULL: not looked for */
    bool lifted;         /* for messages with TLS-Required: No alone (RFC 8689 section 5) */
    bool dnssec_unknown; /* a resolver is trusted, but has not shown that it validates: what it says
                            of DNSSEC counts for nothing, neither for nor against */
};

struct bh_tls_plan {
    enum bh_plan_verdict verdict;
    struct bh_tls_demand demand; /* effective; of USE */
    enum bh_tls_origin origin;
    enum bh_happened happened; /* of all but USE: for the outcome */
    const char *reason;        /* for people, static storage; why it is so, of USE too */
    bool route_proven;  /* the host's name is authentic: DNSSEC, an enforced MTA-STS policy, or the
                           configuration (RFC 8689 section 4.2.1) */
    bool route_unknown; /* it is not proven, and that may be our resolver's fault, or our store's */
    bool route_unasked; /* nor has MTA-STS been asked for it, as long as nothing needs the proof */
};

/** Decide.
 *
 * @param input  borrowed for the call; what its slices point to must outlive the plan
 * @param arena  arrays of names are made here
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_plan_make(const struct bh_tls_plan_input *input,
                                            struct bh_arena *arena, struct bh_tls_plan *plan);

/** A copy whose names, TLSA records and SNI live in the arena. Paths and cipher lists stay borrowed
 * from the configuration. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_demand_copy(const struct bh_tls_demand *demand,
                                              struct bh_arena *arena, struct bh_tls_demand *copy);

/** Lower-case names, static storage: "connector", "dane". */
const char *bh_tls_origin_name(enum bh_tls_origin origin);
