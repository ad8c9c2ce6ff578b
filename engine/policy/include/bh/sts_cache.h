/* sts_cache.h - what is remembered of one domain's MTA-STS policy, and what to do next (RFC 8461
 * sections 3.3 and 5.1). Pure.
 *
 *   1. bh_sts_entry_init, then bh_sts_entry_load with the stored row if there is one
 *   2. look up the record, tell bh_sts_entry_on_record; it says whether to fetch
 *   3. if so, fetch, and tell bh_sts_entry_on_body or bh_sts_entry_on_failure
 *   4. bh_sts_entry_fact is what is in force; with `dirty`, store what bh_sts_entry_write gives
 *
 * Time: the wall clock is read once, when the entry begins; from then on its time runs with the
 * monotonic clock, so that no step of the wall clock makes a policy live longer or shorter; nor
 * does one before the entry began, while it is known of (clock_suspect). A stored time that lies in
 * the future counts as now: no policy outlives its max_age from here. */
#pragma once

#include "bh/buf.h"
#include "bh/sts.h"

#define BH_STS_RETRY_MS (5 * BH_MINUTE_MS) /* after a fetch that failed (section 3.3) */
#define BH_STS_REFRESH_MS BH_DAY_MS        /* a policy is fetched anew after this (section 3.3) */
#define BH_STS_IN_USE_MS (35 * BH_DAY_MS)  /* renewed unasked while it was asked for within this */
/* A stored row: fixed fields, id, trouble, and each pattern behind a length of two octets. */
#define BH_STS_ROW_MAX ((size_t)512 + BH_STS_MX_OCTETS_MAX + 2 * BH_STS_MX_MAX)
#define BH_STS_ENTRY_ARENA (2 * BH_STS_ROW_MAX + 2 * BH_STS_MX_MAX * sizeof(struct bh_slice))

/** Rows are stored under this and the domain. */
#define BH_STS_KEY_PREFIX BH_LIT("sts/")

/** What is stored of a policy. */
struct bh_sts_row {
    struct bh_sts_policy policy;
    struct bh_slice id;
    int64_t fetched_unix_ms;
    int64_t checked_unix_ms; /* when the record was last seen */
    int64_t failed_unix_ms;  /* last fetch that failed since then; 0: none */
    int64_t used_unix_ms;    /* when mail last asked */
    struct bh_slice trouble; /* of the last failure */
};

/** When it ends. */
int64_t bh_sts_row_expires(const struct bh_sts_row *row);
/** Is it worth being renewed unasked: valid, in use, and fetched or tried long enough ago? */
bool bh_sts_row_wants_refresh(const struct bh_sts_row *row, int64_t unix_ms);
/** Append it. @return BH_OK or BH_ELIMIT (less than BH_STS_ROW_MAX of room) */
BH_MUST_USE enum bh_status bh_sts_row_write(const struct bh_sts_row *row, struct bh_buf *out);
/** @param octets  what bh_sts_row_write wrote; the row borrows from them
 *  @return BH_OK, BH_ECORRUPT, BH_EVERSION, BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sts_row_read(struct bh_slice octets, struct bh_arena *arena,
                                           struct bh_sts_row *row);

struct bh_sts_entry {
    struct bh_now began;              /* private: where its time line starts */
    struct bh_arena arena;            /* private: what the row points to */
    struct bh_sts_row row;            /* private: times on its own line */
    bool has_policy;                  /* private: row.policy and row.id were fetched once */
    bool unreadable;                  /* private: there is a row that can't be read */
    char trouble[BH_STS_TROUBLE_MAX]; /* private */
    char announced[BH_STS_ID_MAX];    /* private: the id of the record, as last seen */
    size_t announced_len;             /* private */
    enum bh_sts_origin without;       /* private: what to say without a policy */
    bool fresh;                       /* fetched since bh_sts_entry_begin */
    bool changed;                     /* so, and another than before */
    bool dirty;                       /* store it; the driver clears this */
};

void bh_sts_entry_init(struct bh_sts_entry *entry, struct bh_now now);
void bh_sts_entry_fini(struct bh_sts_entry *entry);
/** Take over a stored row. One that can't be read is remembered as such: until a policy is fetched
 * nobody knows what is in force.
 *
 * @param clock_suspect  the wall clock has stepped, and nobody has confirmed it: no policy ends by
 *                       that. What the row itself knows of the time counts instead, so that its age
 *                       goes on from when it was last written
 * @return as bh_sts_row_read */
BH_MUST_USE enum bh_status bh_sts_entry_load(struct bh_sts_entry *entry, struct bh_slice octets,
                                             bool clock_suspect, struct bh_now now);
/** A lookup begins. @param used  for mail, not by the daily renewal */
void bh_sts_entry_begin(struct bh_sts_entry *entry, bool used, struct bh_now now);

enum bh_sts_seen {
    BH_STS_SEEN,   /* one good record */
    BH_STS_ABSENT, /* none, or none that is good */
    BH_STS_FAILED, /* the lookup failed */
};

enum bh_sts_next {
    BH_STS_ANSWER, /* nothing to fetch */
    BH_STS_FETCH,  /* fetch, then answer */
    BH_STS_RENEW,  /* answer now, and fetch behind it */
};

/** @param id  of BH_STS_SEEN
 *  @param why  of the others, for people */
enum bh_sts_next bh_sts_entry_on_record(struct bh_sts_entry *entry, enum bh_sts_seen seen,
                                        struct bh_slice id, struct bh_slice why, struct bh_now now);
/** A policy came, over a connection that was verified. One that can't be read is a failure.
 * @return BH_OK, BH_EPROTO or BH_ELIMIT (a failure, noted), BH_ENOMEM (nothing changed) */
BH_MUST_USE enum bh_status bh_sts_entry_on_body(struct bh_sts_entry *entry, struct bh_slice body,
                                                struct bh_now now);
void bh_sts_entry_on_failure(struct bh_sts_entry *entry, struct bh_slice why, struct bh_now now);

/** Is a policy in force: fetched, and within its max_age? */
bool bh_sts_entry_valid(const struct bh_sts_entry *entry, struct bh_now now);
/** @param fact  borrows from the entry */
void bh_sts_entry_fact(const struct bh_sts_entry *entry, struct bh_now now,
                       struct bh_sts_fact *fact);
/** Its row, with the times of the wall clock. There must be a policy. @return as bh_sts_row_write
 */
BH_MUST_USE enum bh_status bh_sts_entry_write(const struct bh_sts_entry *entry, struct bh_now now,
                                              struct bh_buf *out);
