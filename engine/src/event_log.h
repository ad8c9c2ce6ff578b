/* event_log.h - what happened to mail, as JSON lines, one object an event, in segments named by the
 * hour (UTC): events-2026112322.jsonl, each with an index by queue id beside it (see
 * bh/event_segment.h). The queue id holds the time of arrival, so the events of a message are found
 * from the segment of that hour on.
 *
 * Records of the delivery ledger are chained by hash (bh/ledger.h), across segments and restarts.
 *
 * A thread of its own writes; mail never waits for diagnostics. When the writer falls behind, or
 * the disk is full, ordinary events are dropped first, and their number is logged. Records wait, up
 * to a bound of their own; how many were lost past it stands in the next record. */
#pragma once

#include "bh/json_write.h"
#include "bh/status.h"

struct event_log;

struct event_log_options {
    const char *folder; /* NUL-terminated; created if missing (0750). NULL: no log, every call is a
                           no-op */
    uint64_t keep_ms;   /* segments older than this go; 0: none for their age */
    uint64_t size_max;  /* octets of all segments, past which the oldest go; 0: no bound */
};

/** Takes up the chain where the last process left it.
 *  @return BH_OK, BH_ENOMEM, BH_EBUSY (another process writes there), BH_EIO (errno says why) */
BH_MUST_USE enum bh_status event_log_create(const struct event_log_options *options,
                                            struct event_log **log);
/** Writes what waits, then ends the thread. NULL is fine. */
void event_log_destroy(struct event_log *log);
/** Close the segment; the next event opens it anew (after rotation). Any thread. */
void event_log_reopen(struct event_log *log);
/** What is kept, from now on; as in the options. Any thread. */
void event_log_keep(struct event_log *log, uint64_t keep_ms, uint64_t size_max);

#define EVENT_MAX 4096

/** Begin an event: {"time":..,"evt":..}; add keys with bh_json_, then event_log_end. */
struct event {
    struct bh_json json;
    char text[EVENT_MAX];
};
void event_begin(struct event *event, int64_t unix_ms, const char *name);
/** The queue id under "msg". */
void event_id(struct event *event, uint64_t id);
/** Hand it over. Any thread. Events that did not fit their room are dropped and counted. */
void event_end(struct event_log *log, struct event *event);
/** The same as a record of the ledger. */
void event_record(struct event_log *log, struct event *event);
