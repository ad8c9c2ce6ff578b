#include "records.h"

#include "bh/assert.h"

enum { DESTINATION_HELD = 1, DESTINATION_PARKED = 2, DESTINATION_TRIED = 4, DESTINATION_FLAGS = 7 };
#define TLS_MAX 200 /* octets of the TLS summary kept */

static void write_counts(struct bh_writer *w, const struct bh_destination *d)
{
    for (unsigned i = 0; i < BH_ENTRY_STATES; i++) {
        bh_write_varint(w, d->count[i].entries);
        bh_write_varint(w, d->count[i].bytes);
        bh_write_varint(w, d->count[i].recipients);
    }
    BH_ASSERT(d->slot_count <= BH_QUEUE_SLOTS_MAX);
    bh_write_u8(w, d->slot_count);
    for (unsigned i = 0; i < d->slot_count; i++) {
        bh_write_i64(w, d->slots[i].start_unix_ms);
        bh_write_i64(w, d->slots[i].end_unix_ms);
        bh_write_varint(w, d->slots[i].count);
    }
}

static bool read_counts(struct bh_reader *r, struct bh_destination *d)
{
    for (unsigned i = 0; i < BH_ENTRY_STATES; i++) {
        d->count[i].entries = bh_read_varint(r);
        d->count[i].bytes = bh_read_varint(r);
        d->count[i].recipients = bh_read_varint(r);
    }
    d->slot_count = bh_read_u8(r);
    if (d->slot_count > BH_QUEUE_SLOTS_MAX) {
        return false;
    }
    int64_t last_end = INT64_MIN;
    for (unsigned i = 0; i < d->slot_count; i++) {
        struct bh_arrival_slot *slot = &d->slots[i];
        slot->start_unix_ms = bh_read_i64(r);
        slot->end_unix_ms = bh_read_i64(r);
        const uint64_t count = bh_read_varint(r);
        if (r->failed || count == 0 || count > UINT32_MAX || slot->start_unix_ms < last_end ||
            slot->end_unix_ms <= slot->start_unix_ms) {
            return false;
        }
        slot->count = (uint32_t)count;
        last_end = slot->end_unix_ms;
    }
    return !r->failed;
}

static void write_stops(struct bh_writer *w, const struct bh_destination *d)
{
    if (d->held) {
        bh_write_slice(w, record_cut(d->hold_reason, BH_QUEUE_REASON_MAX));
        bh_write_slice(w, record_cut(d->hold_by, BH_QUEUE_REASON_MAX));
        bh_write_i64(w, d->hold_since_unix_ms);
        bh_write_i64(w, d->hold_until_unix_ms);
    }
    if (d->parked) {
        bh_write_slice(w, record_cut(d->park_reason, BH_QUEUE_REASON_MAX));
        bh_write_i64(w, d->park_since_unix_ms);
    }
    bh_write_i64(w, d->stopped_ms);
    bh_write_i64(w, d->stopped_since_unix_ms);
}

static bool read_stops(struct bh_reader *r, struct bh_destination *d)
{
    if (d->held) {
        d->hold_reason = bh_read_slice(r);
        d->hold_by = bh_read_slice(r);
        d->hold_since_unix_ms = bh_read_i64(r);
        d->hold_until_unix_ms = bh_read_i64(r);
    }
    if (d->parked) {
        d->park_reason = bh_read_slice(r);
        d->park_since_unix_ms = bh_read_i64(r);
    }
    d->stopped_ms = bh_read_i64(r);
    d->stopped_since_unix_ms = bh_read_i64(r);
    return !r->failed && d->hold_reason.len <= BH_QUEUE_REASON_MAX &&
           d->hold_by.len <= BH_QUEUE_REASON_MAX && d->park_reason.len <= BH_QUEUE_REASON_MAX;
}

static void write_progress(struct bh_writer *w, const struct bh_destination *d)
{
    bh_write_u32(w, d->backoff_stage);
    bh_write_u32(w, d->glitches);
    bh_write_i64(w, d->next_event_unix_ms);
    bh_write_u64(w, d->flush_up_to_id);
    bh_write_i64(w, d->flush_unix_ms);
    bh_write_u64(w, d->warn_cursor);
    bh_write_u64(w, d->expire_cursor);
    bh_write_u64(w, d->expire_null_cursor);
    bh_write_i64(w, d->last_success_unix_ms);
    bh_write_i64(w, d->wake_unix_ms);
    if (d->tried) {
        record_write_outcome(w, &d->last, BH_OUTCOME_TEXT_MAX);
        bh_write_i64(w, d->last_unix_ms);
        bh_write_slice(w, record_cut(d->last_tls, TLS_MAX));
    }
}

static bool read_progress(struct bh_reader *r, struct bh_destination *d)
{
    d->backoff_stage = bh_read_u32(r);
    d->glitches = bh_read_u32(r);
    d->next_event_unix_ms = bh_read_i64(r);
    d->flush_up_to_id = bh_read_u64(r);
    d->flush_unix_ms = bh_read_i64(r);
    d->warn_cursor = bh_read_u64(r);
    d->expire_cursor = bh_read_u64(r);
    d->expire_null_cursor = bh_read_u64(r);
    d->last_success_unix_ms = bh_read_i64(r);
    d->wake_unix_ms = bh_read_i64(r);
    if (d->tried) {
        record_read_outcome(r, &d->last);
        d->last_unix_ms = bh_read_i64(r);
        d->last_tls = bh_read_slice(r);
    }
    return !r->failed && d->next_event_unix_ms >= 0 && d->wake_unix_ms >= -1 &&
           d->last_tls.len <= TLS_MAX;
}

enum bh_status record_destination_encode(const struct bh_destination *d, struct bh_arena *arena,
                                         struct bh_slice *row)
{
    const size_t size = 512 + BH_ENTRY_STATES * 30 + BH_QUEUE_SLOTS_MAX * 26 + BH_DOMAIN_MAX +
                        BH_QUEUE_CONNECTOR_MAX + 3 * BH_QUEUE_REASON_MAX + RECORD_OUTCOME_MAX +
                        TLS_MAX;
    struct bh_writer w = record_writer(arena, size);
    if (w.buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    bh_write_u8(&w, RECORD_VERSION);
    bh_write_u8(&w, (uint8_t)((d->held ? DESTINATION_HELD : 0U) |
                              (d->parked ? DESTINATION_PARKED : 0U) |
                              (d->tried ? DESTINATION_TRIED : 0U)));
    bh_write_slice(&w, d->domain);
    bh_write_slice(&w, d->connector);
    bh_write_i64(&w, d->created_unix_ms);
    bh_write_i64(&w, d->empty_since_unix_ms);
    write_counts(&w, d);
    write_stops(&w, d);
    write_progress(&w, d);
    BH_ASSERT(!w.overflow);
    *row = bh_buf_slice(&w.buf);
    return BH_OK;
}

enum bh_status record_destination_decode(struct bh_slice row, struct bh_destination *d)
{
    struct bh_reader r = {.rest = row};
    *d = (struct bh_destination){0};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    const uint8_t flags = bh_read_u8(&r);
    d->held = (flags & DESTINATION_HELD) != 0;
    d->parked = (flags & DESTINATION_PARKED) != 0;
    d->tried = (flags & DESTINATION_TRIED) != 0;
    d->domain = bh_read_slice(&r);
    d->connector = bh_read_slice(&r);
    d->created_unix_ms = bh_read_i64(&r);
    d->empty_since_unix_ms = bh_read_i64(&r);
    if (r.failed || flags > DESTINATION_FLAGS || d->domain.len > BH_DOMAIN_MAX ||
        d->connector.len > BH_QUEUE_CONNECTOR_MAX || !read_counts(&r, d) || !read_stops(&r, d) ||
        !read_progress(&r, d)) {
        return BH_ECORRUPT;
    }
    return record_read_end(&r);
}
