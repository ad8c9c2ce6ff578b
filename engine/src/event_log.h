/* event_log.h - what happened to mail, as JSON lines, one object an event, in segments named by the
 * hour (UTC): events-2026112322.jsonl. The queue id holds the time of arrival, so the events of a
 * message are found from the segment of that hour on. A thread of its own writes; mail never waits
 * for diagnostics: when the writer falls behind, lines are dropped and their number is logged. */
#pragma once

#include "bh/json_write.h"
#include "bh/status.h"

struct event_log;

/** @param dir  folder, NUL-terminated; created if missing (0750). NULL: no log, every call is a
 * no-op
 *  @return BH_OK, BH_ENOMEM, BH_EIO (errno says why) */
BH_MUST_USE enum bh_status event_log_create(const char *dir, struct event_log **log);
/** Writes what waits, then ends the thread. NULL is fine. */
void event_log_destroy(struct event_log *log);
/** Close the segment; the next event opens it anew (after rotation). Any thread. */
void event_log_reopen(struct event_log *log);

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
