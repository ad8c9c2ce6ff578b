/* selection.h - which mail an operator means: the same conditions for every verb, for lists, and as
 * the filter at hand-out while a job runs. All conditions given must hold. Pure. */
#pragma once

#include "bh/queue_types.h"

#define BH_SELECTION_IDS_MAX 64

/* Which states match, as bits; 0: all. */
enum {
    BH_SELECT_READY = 1, /* the fresh lane included */
    BH_SELECT_DUE = 2,
    BH_SELECT_HELD = 4,
};

struct bh_selection {
    uint64_t ids[BH_SELECTION_IDS_MAX];
    uint32_t id_count;         /* 0: any message */
    struct bh_slice domain;    /* of the destination, lower case; empty: any */
    struct bh_slice connector; /* empty: any */
    struct bh_slice sender;    /* "local@domain", "@domain", "<>" for the null sender; empty: any */
    struct bh_slice recipient; /* "local@domain" or "@domain"; empty: any. One recipient is enough:
                                  an entry is chosen whole */
    int64_t arrived_from_unix_ms; /* inclusive; INT64_MIN: any */
    int64_t arrived_to_unix_ms;   /* exclusive; INT64_MAX: any */
    unsigned states;              /* BH_SELECT_ bits; 0: any */
};

/** Everything matches. */
void bh_selection_init(struct bh_selection *s);
/** Must hold of the destination alone; false: nothing there matches. */
bool bh_selection_matches_destination(const struct bh_selection *s, struct bh_slice domain,
                                      struct bh_slice connector);
/** Does it need bh_message to decide? */
bool bh_selection_needs_message(const struct bh_selection *s);
/** @param message  may be NULL if bh_selection_needs_message is false */
bool bh_selection_matches(const struct bh_selection *s, const struct bh_message *message,
                          const struct bh_entry *entry, struct bh_slice domain,
                          struct bh_slice connector);
/** "local@domain" by octets with an ASCII-case-free domain, or "@domain". */
bool bh_selection_address_matches(struct bh_slice pattern, struct bh_slice address);

enum bh_job_verb {
    BH_JOB_HOLD,
    BH_JOB_RELEASE,
    BH_JOB_CANCEL,  /* removed, nobody is told */
    BH_JOB_BOUNCE,  /* removed, senders are told */
    BH_JOB_REQUEUE, /* due becomes ready */
};
const char *bh_job_verb_name(enum bh_job_verb verb); /* "hold", ... */

struct bh_job {
    uint64_t id;
    enum bh_job_verb verb;
    struct bh_selection selection;
    struct bh_slice reason;
    struct bh_slice by;
    int64_t created_unix_ms;
    uint64_t up_to_id; /* newer mail is not meant */
    bool fresh_done;   /* private: cursor is in the entry lane */
    bool done;
    struct bh_queue_key cursor; /* private: last one looked at */
    uint64_t matched;
    uint64_t acted;
    uint64_t in_flight; /* matched, but being delivered at that moment: left alone */
};
