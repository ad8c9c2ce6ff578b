/* dane.h - the TLSA records of a mail host (RFC 6698, RFC 7671, RFC 7672): which can be used, and
 * what is known of them. Pure; the lookups are the caller's. */
#pragma once

#include "bh/arena.h"
#include "bh/outcome.h"
#include "bh/status.h"
#include "bh/tls_demand.h"

#define BH_DANE_RECORDS_MAX 64                 /* usable records of one host: more is a mistake */
#define BH_DANE_OCTETS_MAX ((size_t)16 * 1024) /* of their association data together */

enum bh_dane_state {
    BH_DANE_NOT_ASKED, /* not wanted, or no resolver is trusted for it */
    BH_DANE_INSECURE,  /* the way to the host is not authenticated: DANE does not apply */
    BH_DANE_NONE,      /* no TLSA records, authentically; or the answer was not authenticated */
    BH_DANE_UNUSABLE,  /* there are, but none that can be used: encryption is still due */
    BH_DANE_USABLE,
    BH_DANE_FAILED,    /* bogus, SERVFAIL, no answer: not to be taken for "none" */
    BH_DANE_UNTRUSTED, /* the trusted resolver failed its self-test: nothing is known */
};

/** The TLSA records of a host. */
struct bh_dane {
    enum bh_dane_state state;
    enum bh_happened happened; /* of FAILED: DNS_FAILED, DNS_BOGUS, DNS_TIMEOUT */
    struct bh_slice base;      /* of USABLE: the TLSA base domain (RFC 7672 section 2.2.3) */
    struct bh_tlsa_set tlsa;   /* of USABLE, each once */
};

/** Can this record be used? Usage 2 or 3 (RFC 7672 section 3.1.3 leaves 0 and 1 out), selector 0 or
 * 1, a digest of the right length, or one DER value as a whole. */
bool bh_tlsa_is_usable(const struct bh_tlsa *record);

/** What the records of an authenticated answer make.
 *
 * @param records  as in the answer, borrowed
 * @param base     the name they were found for, below _port._tcp
 * @param arena    the usable ones are copied here, each once
 * @param dane     written on BH_OK: NONE (no record), UNUSABLE, USABLE, or FAILED for a set past
 *                 the bounds above: it can't be obeyed as a whole, so the host is not used
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_dane_read(const struct bh_tlsa *records, size_t count,
                                        struct bh_slice base, struct bh_arena *arena,
                                        struct bh_dane *dane);

/** Lower-case name, static storage: "unusable". */
const char *bh_dane_state_name(enum bh_dane_state state);
