/* event_reader.h - the lines of the event log, over all its segments: all from an hour on, or those
 * of one message by the indexes. Reads files only, so that tools can do it beside the daemon and
 * without it. */
#pragma once

#include "bh/event_segment.h"

struct bh_event_reader;

struct bh_event_line {
    struct bh_slice text; /* without LF; good until the next call */
    uint64_t offset;      /* in its segment */
    uint64_t number;      /* of the line in its segment, from 1; 0: found by index */
    bool whole;           /* false: no LF (the end of its segment), or far too long */
    bool first;           /* of its segment */
    char segment[BH_SEGMENT_NAME];
};

struct bh_event_query {
    struct bh_slice folder;
    int64_t from_unix_ms; /* segments from this hour on */
    int64_t to_unix_ms;   /* segments up to this hour; INT64_MAX: all */
    uint64_t id;          /* lines of this message alone; 0: all lines */
};

/** @return BH_OK; BH_ENOTFOUND (no such folder); BH_EIO (errno says why, EACCES mostly); BH_ENOMEM
 */
BH_MUST_USE enum bh_status bh_event_reader_create(const struct bh_event_query *query,
                                                  struct bh_event_reader **reader);
/** NULL is fine. */
void bh_event_reader_destroy(struct bh_event_reader *reader);
/** How many octets to look at, from now on, before BH_MORE. */
void bh_event_reader_allow(struct bh_event_reader *reader, uint64_t octets);
/** @return BH_OK; BH_MORE (allow some again); BH_ENOTFOUND (the end); BH_EIO (a segment can't be
 * read; the next call goes on with the one after it); BH_ENOMEM */
BH_MUST_USE enum bh_status bh_event_reader_next(struct bh_event_reader *reader,
                                                struct bh_event_line *line);
/** The segment looked at last; empty: none yet. */
const char *bh_event_reader_segment(const struct bh_event_reader *reader);

/** Where the chain of a folder ends: the last record of its segments, read from behind.
 *
 * @param text   storage of BH_EVENT_LINE_MAX octets for the record
 * @param line   it, without LF; empty if there is none
 * @return BH_OK, BH_EIO, BH_ENOMEM */
BH_MUST_USE enum bh_status bh_event_last_record(int folder, char *text, struct bh_slice *line);
