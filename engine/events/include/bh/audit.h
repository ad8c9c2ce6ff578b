/* audit.h - the ledger looked at line by line: how much was delivered and how well protected, by
 * connector, and whether the chain of records is whole. No file: lines go in, counts come out. */
#pragma once

#include "bh/event_reader.h"
#include "bh/ledger.h"
#include "bh/map.h"

#define BH_AUDIT_CONNECTORS_MAX 100000
#define BH_AUDIT_NAME_MAX 128

struct bh_audit_count {
    struct bh_map_node node; /* private; key: name */
    char name_text[BH_AUDIT_NAME_MAX];
    struct bh_slice name;
    uint64_t delivered; /* recipients */
    uint64_t clear, unauthenticated, by_name, by_pin, by_dane;
    uint64_t first_unix_ms, last_unix_ms;
    struct bh_audit_count *next; /* in the order of their first record */
};

enum bh_audit_what {
    BH_AUDIT_FINE,
    BH_AUDIT_BROKEN,   /* a record that was changed, or does not follow from the one before it */
    BH_AUDIT_UNSEALED, /* a delivery without a seal */
    BH_AUDIT_DAMAGED,  /* a line that is no event, and that no process accounted for */
};

struct bh_audit {
    struct bh_slice connector; /* only this one's; empty: all */
    uint64_t since_unix_ms, until_unix_ms;

    struct bh_map counts; /* private; see first */
    struct bh_audit_count *first, *last;
    struct bh_ledger ledger;
    bool started;       /* a record was seen */
    uint64_t first_seq; /* of it */
    uint64_t records;   /* chained ones, of all kinds */
    uint64_t breaks;    /* findings other than FINE */
    uint64_t torn;      /* lines that a killed process left, and the next accounted for */
    uint64_t crashes;   /* beginnings without an end before them */
    uint64_t lost;      /* records that had no room */
    uint64_t dropped;   /* other events, likewise */
    bool ended;         /* the last process record was an end */
    bool torn_pending;  /* private: a line that is no event waits for its account */
    char torn_segment[BH_SEGMENT_NAME];
    uint64_t torn_offset;
    uint64_t torn_line;
    bool torn_whole; /* it has an LF: no write under way */
};

/** @param connector  borrowed */
void bh_audit_init(struct bh_audit *audit, struct bh_slice connector, uint64_t since_unix_ms,
                   uint64_t until_unix_ms);
void bh_audit_fini(struct bh_audit *audit);

/** A finding, and where. */
struct bh_audit_finding {
    enum bh_audit_what what;
    char segment[BH_SEGMENT_NAME];
    uint64_t line; /* from 1 */
};

/** Look at the next line of the log, in order. @return BH_OK, or BH_ENOMEM
 * @param finding  written always; FINE mostly */
BH_MUST_USE enum bh_status bh_audit_line(struct bh_audit *audit, const struct bh_event_line *line,
                                         struct bh_audit_finding *finding);
/** After the last line. A line that was torn at the very end is no damage: its process may be
 * writing it now. */
void bh_audit_end(struct bh_audit *audit, struct bh_audit_finding *finding);
const char *bh_audit_what_text(enum bh_audit_what what);
