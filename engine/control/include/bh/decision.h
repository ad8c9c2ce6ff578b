/* decision.h - why an attempt went as it did, as a compact record for a message's history (the
 * seventh promise of the design: every outcome stays explainable). Encode and decode only: no
 * store, no clock. The queue keeps the last 8 of an entry and takes them as opaque octets. */
#pragma once

#include "bh/buf.h"
#include "bh/outcome.h"
#include "bh/status.h"

#define BH_DECISION_MAX 2048    /* octets encoded */
#define BH_DECISION_HOSTS_MAX 8 /* hosts kept; of more the first ones */

struct bh_decision {
    int64_t time_unix_ms;
    uint64_t generation; /* of the configuration */
    uint32_t round;      /* which attempt at this entry, from 1 */
    struct bh_slice connector;
    struct bh_slice rule;  /* "address space bank.example (exact)" */
    struct bh_slice route; /* "mx", "smarthost mail.example.com:587" */
    struct bh_outcome
        hosts[BH_DECISION_HOSTS_MAX]; /* each host tried, in order, with its verdict */
    size_t hosts_count;
    uint32_t hosts_more;         /* tried, but not kept */
    struct bh_slice tls_wanted;  /* the demand: "verify" */
    struct bh_slice tls_got;     /* "TLS 1.3 TLS_AES_256_GCM_SHA384 verified"; empty: clear text */
    struct bh_slice tls_reason;  /* why in clear, or which check failed */
    struct bh_slice tls_origin;  /* which input decided the demand; empty: not known (version 1) */
    struct bh_slice limit;       /* the limit that delayed it; empty: none */
    struct bh_outcome outcome;   /* what it came to */
    int64_t next_unix_ms;        /* the next attempt; 0: none */
    struct bh_slice next_reason; /* why then */
};

/** Encode within BH_DECISION_MAX octets; texts are cut, longest first to suffer, until it fits.
 *
 * @param out  appended to
 * @return BH_OK, or BH_ELIMIT (fewer than BH_DECISION_MAX octets of room) */
BH_MUST_USE enum bh_status bh_decision_encode(const struct bh_decision *decision,
                                              struct bh_buf *out);

/** @param decision  slices borrowed from record
 *  @return BH_OK, BH_ECORRUPT, or BH_EVERSION (written by a newer version) */
BH_MUST_USE enum bh_status bh_decision_decode(struct bh_slice record, struct bh_decision *decision);
