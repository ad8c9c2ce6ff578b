/* queue_types.h - the records of the queue as values. Slices are borrowed from the arena that the
 * read function was given. Times are wall time; ages never count time that the mail was held or its
 * destination was held or parked. */
#pragma once

#include "bh/arena.h"
#include "bh/envelope.h"
#include "bh/outcome.h"
#include "bh/time.h"

#define BH_QUEUE_CHUNK 16368       /* octets of content in a row: four pages less LMDB's header */
#define BH_QUEUE_CONNECTOR_MAX 128 /* octets of a connector's name */
#define BH_QUEUE_REASON_MAX 200    /* octets of a reason; longer ones are cut */
#define BH_QUEUE_TEXT_MAX 200      /* octets of a remote's text kept for each recipient */
#define BH_QUEUE_DECISION_MAX 2048 /* octets of a decision record */
#define BH_QUEUE_HISTORY_MAX 8     /* decision records kept for each entry */
#define BH_QUEUE_FRESH_MAX 50000   /* messages in the fresh lane */
#define BH_QUEUE_SLOTS_MAX 24      /* arrival-time slots of a destination */
#define BH_QUEUE_NEVER INT64_MAX   /* a next event that no clock brings */
#define BH_QUEUE_ARENA ((size_t)1 << 20) /* an arena of this cap holds any one record decoded */

enum bh_lane { BH_LANE_FRESH, BH_LANE_ENTRY };
enum bh_entry_state { BH_ENTRY_READY, BH_ENTRY_DUE, BH_ENTRY_HELD };
#define BH_ENTRY_STATES 3

/** Names an entry: recipients of one message at one destination. */
struct bh_queue_key {
    uint32_t destination;
    uint64_t id;
    uint16_t part;
};

struct bh_origin {
    struct bh_ip client; /* family 0: none (local, ours) */
    struct bh_slice helo;
    struct bh_slice user;     /* as authenticated, empty for none */
    struct bh_slice listener; /* its name, or "submit", "dsn" */
    struct bh_slice protocol; /* as in Received: "ESMTPS" */
    int64_t arrival_unix_ms;
};

struct bh_queue_part_ref {
    uint32_t destination;
    uint16_t part;
};

struct bh_message {
    uint64_t id;
    struct bh_envelope envelope;
    struct bh_origin origin;
    uint64_t content_id; /* content rows go by this one */
    uint32_t chunks;
    const struct bh_queue_part_ref *parts; /* all that it was put with; ended ones included */
    uint32_t part_count;
    uint32_t open;   /* entries left, in both lanes */
    uint8_t crashes; /* how often the process died handling it */
};

struct bh_entry_recipient {
    struct bh_recipient to;
    uint32_t attempts;      /* charged ones */
    bool tried;             /* `last` holds something */
    bool uncertain;         /* the final dot was sent once and no reply seen */
    struct bh_outcome last; /* text cut to BH_QUEUE_TEXT_MAX; ip and port not kept */
    int64_t last_unix_ms;   /* when */
};

struct bh_entry {
    struct bh_queue_key key;
    enum bh_lane lane;
    enum bh_entry_state state;
    int64_t arrival_unix_ms;
    uint64_t size;        /* of the content */
    uint64_t sender_hash; /* of the sender: to tell senders apart without reading messages */
    bool sender_null;
    bool warned;
    bool uncertain;
    uint32_t attempts;             /* charged ones */
    int64_t due_unix_ms;           /* BH_ENTRY_DUE */
    int64_t tried_unix_ms;         /* last attempt, charged or not; 0 none */
    int64_t first_failure_unix_ms; /* 0 none */
    int64_t stopped_base_ms;       /* the destination's stopped time when this arrived */
    int64_t held_ms; /* own held time that ended, beyond the destination's stopped time */
    int64_t held_since_unix_ms; /* BH_ENTRY_HELD */
    int64_t held_stopped_ms;    /* the destination's stopped time at held_since */
    struct bh_slice reason;     /* BH_ENTRY_HELD */
    uint32_t history_next;
    struct bh_entry_recipient *recipients;
    uint16_t recipient_count; /* 1 to BH_RECIPIENTS_PER_ENTRY */
};

/** Mail that arrived in [start, end). Slots are disjoint and in order. */
struct bh_arrival_slot {
    int64_t start_unix_ms;
    int64_t end_unix_ms;
    uint32_t count;
};

struct bh_count {
    uint64_t entries;
    uint64_t bytes; /* of content, counted once an entry */
    uint64_t recipients;
};

/** A destination: a domain through its first-choice connector. Counts are of the entry lane. */
struct bh_destination {
    uint32_t id;
    struct bh_slice domain;
    struct bh_slice connector;
    int64_t created_unix_ms;
    int64_t empty_since_unix_ms; /* of the entry lane; 0 while it has mail */
    struct bh_count count[BH_ENTRY_STATES];
    struct bh_arrival_slot slots[BH_QUEUE_SLOTS_MAX];
    uint8_t slot_count;

    bool held; /* by an operator or a breaker */
    struct bh_slice hold_reason;
    struct bh_slice hold_by;
    int64_t hold_since_unix_ms;
    int64_t hold_until_unix_ms; /* BH_QUEUE_NEVER: until released */
    bool parked; /* our fault: configuration, secret, network; tried again at next_event */
    struct bh_slice park_reason;
    int64_t park_since_unix_ms;
    int64_t stopped_ms;            /* held or parked time that ended */
    int64_t stopped_since_unix_ms; /* while held or parked, else 0 */

    uint32_t backoff_stage; /* 0: not backing off */
    uint32_t glitches;
    int64_t next_event_unix_ms; /* no attempt before; 0: none */
    uint64_t flush_up_to_id;    /* 0: no flush */
    int64_t flush_unix_ms;
    uint64_t warn_cursor;        /* ids up to here are warned, held or not to be warned */
    uint64_t expire_cursor;      /* ids up to here are held or have a null sender */
    uint64_t expire_null_cursor; /* ids up to here are held or have a sender */
    bool tried;                  /* last_* hold something */
    struct bh_outcome last;
    int64_t last_unix_ms;
    struct bh_slice last_tls;     /* a summary for people */
    int64_t last_success_unix_ms; /* 0: none */
    int64_t wake_unix_ms;         /* private: the row in wake; -1 for none */
};

/** When the message with this id was given it: its arrival, or later by as much as the clock had
 * stepped back. */
int64_t bh_queue_id_unix_ms(uint64_t id);
/** Stopped (held or parked) time of a destination up to `now`. Never steps back. */
int64_t bh_destination_stopped_ms(const struct bh_destination *d, int64_t now_unix_ms);
/** Age of an entry without what it and its destination stood still. At least 0. */
int64_t bh_entry_age_ms(const struct bh_entry *e, const struct bh_destination *d,
                        int64_t now_unix_ms);
/** When the engine should look at a destination next, from its record and the due time of its
 * first due entry (BH_QUEUE_NEVER for none): 0 is at once. */
int64_t bh_destination_next_event(const struct bh_destination *d, int64_t first_due_unix_ms);
/** Entries of all states. */
uint64_t bh_destination_entries(const struct bh_destination *d);
/** Entries by age, from the arrival slots: at most 5 minutes, 1 hour, 4 hours, a day, older. Exact
 * to the width of a slot; sums to the number of entries. */
#define BH_AGE_BUCKETS 5
void bh_destination_ages(const struct bh_destination *d, int64_t now_unix_ms,
                         uint64_t ages[BH_AGE_BUCKETS]);
const char *bh_entry_state_name(enum bh_entry_state state); /* "ready", "due", "held" */
