/* event_segment.h - the files of the event log: a segment an hour (UTC), events-2026112322.jsonl,
 * and beside each an index by queue id, events-2026112322.idx. Lines are in the order of their
 * writing; a segment is never written to again once a later one exists.
 *
 * An index is 8 octets of magic, then {id, offset} of each line that has an id, big-endian, 16
 * octets each, offsets rising. It may lag behind its segment, be short or be missing: whoever reads
 * looks at what follows the last line indexed, and believes no entry without a look at the line. */
#pragma once

#include "bh/buf.h"

#define BH_SEGMENT_NAME 32
#define BH_SEGMENT_MS INT64_C(3600000)
#define BH_INDEX_ENTRY 16 /* octets */

/** "events-2026112322.jsonl"; hour counts from 1970. @return text */
const char *bh_segment_name(int64_t hour, char text[BH_SEGMENT_NAME]);
const char *bh_index_name(int64_t hour, char text[BH_SEGMENT_NAME]);
/** @return false if it is no segment's name */
bool bh_segment_parse(const char *name, int64_t *hour);

/** The segments of a folder from this hour on, in order. *hours is the caller's to free.
 * @return BH_OK, BH_ENOTFOUND (no such folder), BH_EIO (errno says why), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_segment_list(int folder, int64_t from_hour, int64_t **hours,
                                           size_t *count);

/** The entry of a line, to be written behind the others. */
void bh_index_entry(char out[BH_INDEX_ENTRY], uint64_t id, uint64_t offset);

/** Make an index whole: check it, cut off what is wrong, add what is missing, or make it anew.
 * @param segment, index  open for reading; the index for writing too, in append mode
 * @return BH_OK, BH_EIO, BH_ENOMEM */
BH_MUST_USE enum bh_status bh_index_heal(int segment, int index);

/** The next entry of an index. @param at  place in the file; 0 at first
 * @return BH_OK, BH_ENOTFOUND (no more), BH_ECORRUPT (no index, or not rising) */
struct bh_index_reader {
    int fd;
    uint64_t at;   /* private: octets read */
    uint64_t last; /* offset of the last entry given out */
    bool any;      /* one was given out */
    size_t next, have;
    char block[256 * BH_INDEX_ENTRY];
};
void bh_index_open(struct bh_index_reader *r, int fd);
BH_MUST_USE enum bh_status bh_index_next(struct bh_index_reader *r, uint64_t *id, uint64_t *offset);

/** Lines of one file, from any place on. */
struct bh_line_reader {
    int fd;
    uint64_t offset; /* of the octets in `block` */
    size_t start, len;
    bool skipping; /* inside a line that is too long */
    char *block;   /* private */
};
/** @return BH_OK or BH_ENOMEM. Call close, which leaves the file open. */
BH_MUST_USE enum bh_status bh_lines_open(struct bh_line_reader *r, int fd, uint64_t offset);
void bh_lines_close(struct bh_line_reader *r);
/** The next line, without its LF; good until the next call. One that has no LF (the end of the
 * file) or is too long is given, cut, with *whole false.
 * @return BH_OK, BH_ENOTFOUND (the end), BH_EIO */
BH_MUST_USE enum bh_status bh_lines_next(struct bh_line_reader *r, struct bh_slice *line,
                                         uint64_t *offset, bool *whole);
