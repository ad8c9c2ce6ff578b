/* sts.h - MTA-STS (RFC 8461): what a domain publishes, read, and what is remembered of it. Pure:
 * DNS answers, octets of a policy and the time go in; what to do next and what is in force come
 * out. The driver (engine/src/sts.h) carries the lookups. */
#pragma once

#include "bh/arena.h"
#include "bh/slice.h"
#include "bh/status.h"
#include "bh/time.h"

#define BH_STS_ID_MAX 32                        /* octets of a policy's id (RFC 8461 section 3.1) */
#define BH_STS_POLICY_MAX ((size_t)64 * 1024)   /* octets of a policy (section 3.3) */
#define BH_STS_MX_MAX ((size_t)256)             /* patterns of one policy: more is a mistake */
#define BH_STS_MX_OCTETS_MAX ((size_t)8 * 1024) /* of all patterns together */
#define BH_STS_MAX_AGE_S ((uint64_t)31557600)   /* a year, the most that counts (section 3.2) */
#define BH_STS_DOMAIN_MAX ((size_t)244)         /* so that "mta-sts." fits before it */
#define BH_STS_TROUBLE_MAX 160                  /* octets of text kept of a failure */

enum bh_sts_mode {
    BH_STS_MODE_NONE,    /* no policy */
    BH_STS_MODE_TESTING, /* failures are recorded, nothing is refused */
    BH_STS_MODE_ENFORCE, /* no delivery to a host that fails */
};

/** A policy as published. */
struct bh_sts_policy {
    enum bh_sts_mode mode;
    uint64_t max_age_s;
    const struct bh_slice
        *mx; /* patterns, lower case, without repeats: "mx.example", "*.example" */
    size_t mx_count;
};

/** "none", "testing", "enforce"; static storage. */
const char *bh_sts_mode_name(enum bh_sts_mode mode);

/** Read the TXT records of _mta-sts.DOMAIN (section 3.1). Records that don't begin with "v=STSv1;"
 * are other people's; of the rest there must be exactly one.
 *
 * @param records  each with its strings joined
 * @param id       on BH_OK the id, borrowed from the record
 * @param why      else why not, for people; static storage
 * @return BH_OK; BH_ENOTFOUND: none; BH_EPROTO: several, or one that breaks the grammar */
BH_MUST_USE enum bh_status bh_sts_read_txt(const struct bh_slice *records, size_t count,
                                           struct bh_slice *id, const char **why);

/** Read a policy (section 3.2). Lines end in CRLF or LF; the first of a repeated field counts;
 * unknown fields are skipped.
 *
 * @param body    borrowed for the call
 * @param arena   the patterns are made here
 * @param policy  written on BH_OK
 * @param why     else why not, for people; static storage
 * @return BH_OK, BH_EPROTO, BH_ELIMIT (past one of the bounds above), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sts_read_policy(struct bh_slice body, struct bh_arena *arena,
                                              struct bh_sts_policy *policy, const char **why);

/** Does a host match a pattern (section 4.1)? "*" stands for the whole left-most label, and exactly
 * one label. Case counts for nothing, nor does one dot at the end of the host. */
bool bh_sts_pattern_matches(struct bh_slice pattern, struct bh_slice host);
/** Does it match any of them? */
bool bh_sts_policy_matches(const struct bh_sts_policy *policy, struct bh_slice host);

/** How the Content-Type of a policy may look: text/plain, with any parameters (section 3.3). */
bool bh_sts_content_type_ok(struct bh_slice value);

/* ---- What is in force for a domain, as told to those who ask ----------------------------------
 */

enum bh_sts_origin {
    BH_STS_NOT_PUBLISHED, /* no record, and nothing remembered: mode none */
    BH_STS_NO_ANSWER,     /* the record could not be looked up, and nothing remembered: mode none */
    BH_STS_UNAVAILABLE,   /* a record, but no policy to be had, and nothing remembered: mode none */
    BH_STS_FROM_CACHE,    /* an earlier policy, still valid */
    BH_STS_FETCHED,       /* fetched just now */
    BH_STS_UNKNOWN,       /* our own store or memory failed: a policy may be in force, so defer */
};

/** Borrowed for the callback that brings it; bh_sts_fact_copy keeps it. */
struct bh_sts_fact {
    enum bh_sts_origin origin;
    struct bh_sts_policy policy; /* in force; mode none unless FROM_CACHE or FETCHED */
    struct bh_slice id;
    int64_t fetched_unix_ms; /* with a policy: when, 0 otherwise */
    int64_t expires_unix_ms;
    uint32_t ttl_s;          /* worth asking again after this */
    struct bh_slice trouble; /* why it could not be looked up or renewed; empty: no trouble */
    bool changed;            /* this lookup brought another policy than was known before */
    bool superseded; /* the record announces a newer policy, which could not be had yet: no time to
                        end mail for the one in force (section 5.1) */
};

/** "not-published", "cache" ...; static storage. */
const char *bh_sts_origin_name(enum bh_sts_origin origin);
/** A copy with all it points to. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sts_fact_copy(const struct bh_sts_fact *fact, struct bh_arena *arena,
                                            struct bh_sts_fact *copy);
