/* records.h - the rows of the queue, octets to values and back. Each starts with the version of its
 * form. Decoding is strict: what encode would not have written is BH_ECORRUPT. Decoded slices are
 * borrowed from the row, so copy the row first. Pure. */
#pragma once

#include "bh/queue_types.h"
#include "bh/selection.h"
#include "bh/wire.h"

#define RECORD_VERSION 1

/* Parts of one message that the fresh lane takes: each settle rewrites the row. */
#define FRESH_PARTS_MAX 16

struct fresh_part {
    uint32_t destination;
    uint16_t part;
    uint16_t recipient_count;
    int64_t stopped_base_ms;
    const struct bh_recipient *recipients;
};

/* The row of a message in the fresh lane. */
struct fresh_row {
    int64_t arrival_unix_ms;
    uint64_t size;
    uint64_t sender_hash;
    bool sender_null;
    uint16_t part_count;
    struct fresh_part parts[FRESH_PARTS_MAX];
};

/* What changes about a message; without such a row all its parts are open. */
struct message_state {
    uint32_t open;
    uint8_t crashes;
};

struct open_row {
    int64_t created_unix_ms;
    uint32_t chunks;
    uint64_t octets;
};

/* Each encode: into the arena. BH_OK or BH_ENOMEM. Each decode: BH_OK, BH_ECORRUPT, BH_EVERSION (a
 * newer form) or BH_ENOMEM. What is in the key of a row (ids) is not set by decode. */
enum bh_status record_message_encode(const struct bh_message *m, struct bh_arena *arena,
                                     struct bh_slice *row);
enum bh_status record_message_decode(struct bh_slice row, struct bh_arena *arena,
                                     struct bh_message *m);
enum bh_status record_entry_encode(const struct bh_entry *e, struct bh_arena *arena,
                                   struct bh_slice *row);
enum bh_status record_entry_decode(struct bh_slice row, struct bh_arena *arena, struct bh_entry *e);
/* The same without recipients: e->recipients is NULL, recipient_count is set. No arena. */
enum bh_status record_entry_head(struct bh_slice row, struct bh_entry *e);
enum bh_status record_fresh_encode(const struct fresh_row *f, struct bh_arena *arena,
                                   struct bh_slice *row);
enum bh_status record_fresh_decode(struct bh_slice row, struct bh_arena *arena,
                                   struct fresh_row *f);
enum bh_status record_destination_encode(const struct bh_destination *d, struct bh_arena *arena,
                                         struct bh_slice *row);
enum bh_status record_destination_decode(struct bh_slice row, struct bh_destination *d);
enum bh_status record_job_encode(const struct bh_job *job, struct bh_arena *arena,
                                 struct bh_slice *row);
enum bh_status record_job_decode(struct bh_slice row, struct bh_job *job);

#define RECORD_STATE_LEN 6
void record_state_encode(const struct message_state *s, char row[RECORD_STATE_LEN]);
enum bh_status record_state_decode(struct bh_slice row, struct message_state *s);
#define RECORD_OPEN_LEN 21
void record_open_encode(const struct open_row *o, char row[RECORD_OPEN_LEN]);
enum bh_status record_open_decode(struct bh_slice row, struct open_row *o);

/* Shared by the records. */
struct bh_slice record_cut(struct bh_slice s, size_t max);
void record_write_outcome(struct bh_writer *w, const struct bh_outcome *o, size_t text_max);
bool record_read_outcome(struct bh_reader *r, struct bh_outcome *o);
#define RECORD_OUTCOME_MAX (BH_OUTCOME_TEXT_MAX + 255 + 64)
/* A writer over `size` octets of the arena; ptr NULL for want of memory. */
struct bh_writer record_writer(struct bh_arena *arena, size_t size);
/* Ends a decode: everything was there, and nothing more. */
enum bh_status record_read_end(const struct bh_reader *r);
bool record_read_version(struct bh_reader *r, enum bh_status *status);
bool record_read_recipient(struct bh_reader *r, struct bh_recipient *to);
void record_write_recipient(struct bh_writer *w, const struct bh_recipient *to);
#define RECORD_RECIPIENT_MAX(to) ((to)->address.len + (to)->orcpt.len + 32)
