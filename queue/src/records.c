#include "records.h"

#include "bh/assert.h"

struct bh_slice record_cut(struct bh_slice s, size_t max)
{
    return bh_slice_take(s, max);
}

struct bh_writer record_writer(struct bh_arena *arena, size_t size)
{
    char *at = bh_arena_alloc(arena, size);
    return (struct bh_writer){.buf = bh_buf(at, at != NULL ? size : 0)};
}

bool record_read_version(struct bh_reader *r, enum bh_status *status)
{
    const uint8_t version = bh_read_u8(r);
    if (version > RECORD_VERSION) {
        *status = BH_EVERSION;
    } else {
        *status = version == RECORD_VERSION ? BH_OK : BH_ECORRUPT;
    }
    return *status == BH_OK;
}

enum bh_status record_read_end(const struct bh_reader *r)
{
    return !r->failed && r->rest.len == 0 ? BH_OK : BH_ECORRUPT;
}

/* ---- outcomes and recipients ---- */

void record_write_outcome(struct bh_writer *w, const struct bh_outcome *o, size_t text_max)
{
    bh_write_u8(w, (uint8_t)o->stage);
    bh_write_u8(w, (uint8_t)o->happened);
    bh_write_u16(w, o->code);
    bh_write_u8(w, o->enhanced_class);
    bh_write_u16(w, o->enhanced_subject);
    bh_write_u16(w, o->enhanced_detail);
    bh_write_slice(w, record_cut(o->text, text_max));
    bh_write_slice(w, record_cut(o->host, BH_DOMAIN_MAX));
}

bool record_read_outcome(struct bh_reader *r, struct bh_outcome *o)
{
    *o = (struct bh_outcome){0};
    const uint8_t stage = bh_read_u8(r);
    const uint8_t happened = bh_read_u8(r);
    o->code = bh_read_u16(r);
    o->enhanced_class = bh_read_u8(r);
    o->enhanced_subject = bh_read_u16(r);
    o->enhanced_detail = bh_read_u16(r);
    o->text = bh_read_slice(r);
    o->host = bh_read_slice(r);
    if (r->failed || stage > BH_STAGE_IDLE || happened > BH_HAPPENED_EXPIRED ||
        o->text.len > BH_OUTCOME_TEXT_MAX || o->host.len > BH_DOMAIN_MAX) {
        r->failed = true;
        return false;
    }
    o->stage = (enum bh_stage)stage;
    o->happened = (enum bh_happened)happened;
    return true;
}

void record_write_recipient(struct bh_writer *w, const struct bh_recipient *to)
{
    bh_write_slice(w, to->address);
    bh_write_slice(w, to->orcpt);
    bh_write_u8(w, to->notify);
}

bool record_read_recipient(struct bh_reader *r, struct bh_recipient *to)
{
    to->address = bh_read_slice(r);
    to->orcpt = bh_read_slice(r);
    to->notify = bh_read_u8(r);
    return !r->failed;
}

/* ---- entries ---- */

enum {
    ENTRY_STATE_MASK = 3,
    ENTRY_NULL = 4,
    ENTRY_WARNED = 8,
    ENTRY_UNCERTAIN = 16,
    ENTRY_FLAGS = 31,
};
enum { RECIPIENT_TRIED = 1, RECIPIENT_UNCERTAIN = 2 };

static void write_entry_head(struct bh_writer *w, const struct bh_entry *e)
{
    bh_write_u8(w, RECORD_VERSION);
    bh_write_u8(w,
                (uint8_t)((unsigned)e->state | (e->sender_null ? ENTRY_NULL : 0U) |
                          (e->warned ? ENTRY_WARNED : 0U) | (e->uncertain ? ENTRY_UNCERTAIN : 0U)));
    bh_write_i64(w, e->arrival_unix_ms);
    bh_write_varint(w, e->size);
    bh_write_u64(w, e->sender_hash);
    bh_write_varint(w, e->attempts);
    bh_write_i64(w, e->due_unix_ms);
    bh_write_i64(w, e->tried_unix_ms);
    bh_write_i64(w, e->first_failure_unix_ms);
    bh_write_i64(w, e->stopped_base_ms);
    bh_write_i64(w, e->held_ms);
    bh_write_i64(w, e->held_since_unix_ms);
    bh_write_i64(w, e->held_stopped_ms);
    bh_write_slice(w, record_cut(e->reason, BH_QUEUE_REASON_MAX));
    bh_write_u32(w, e->history_next);
    bh_write_varint(w, e->recipient_count);
}

enum bh_status record_entry_encode(const struct bh_entry *e, struct bh_arena *arena,
                                   struct bh_slice *row)
{
    BH_ASSERT(e->recipient_count > 0);
    BH_ASSERT(e->recipient_count <= BH_RECIPIENTS_PER_ENTRY);
    size_t size = 128 + BH_QUEUE_REASON_MAX;
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        size += RECORD_RECIPIENT_MAX(&e->recipients[i].to) + RECORD_OUTCOME_MAX;
    }
    struct bh_writer w = record_writer(arena, size);
    if (w.buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    write_entry_head(&w, e);
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        const struct bh_entry_recipient *r = &e->recipients[i];
        bh_write_u8(&w, (uint8_t)((r->tried ? RECIPIENT_TRIED : 0U) |
                                  (r->uncertain ? RECIPIENT_UNCERTAIN : 0U)));
        record_write_recipient(&w, &r->to);
        bh_write_varint(&w, r->attempts);
        if (r->tried) {
            record_write_outcome(&w, &r->last, BH_QUEUE_TEXT_MAX);
            bh_write_i64(&w, r->last_unix_ms);
        }
    }
    BH_ASSERT(!w.overflow);
    *row = bh_buf_slice(&w.buf);
    return BH_OK;
}

static enum bh_status read_entry_head(struct bh_reader *r, struct bh_entry *e)
{
    *e = (struct bh_entry){.lane = BH_LANE_ENTRY};
    enum bh_status status;
    if (!record_read_version(r, &status)) {
        return status;
    }
    const uint8_t flags = bh_read_u8(r);
    e->sender_null = (flags & ENTRY_NULL) != 0;
    e->warned = (flags & ENTRY_WARNED) != 0;
    e->uncertain = (flags & ENTRY_UNCERTAIN) != 0;
    e->arrival_unix_ms = bh_read_i64(r);
    e->size = bh_read_varint(r);
    e->sender_hash = bh_read_u64(r);
    const uint64_t attempts = bh_read_varint(r);
    e->due_unix_ms = bh_read_i64(r);
    e->tried_unix_ms = bh_read_i64(r);
    e->first_failure_unix_ms = bh_read_i64(r);
    e->stopped_base_ms = bh_read_i64(r);
    e->held_ms = bh_read_i64(r);
    e->held_since_unix_ms = bh_read_i64(r);
    e->held_stopped_ms = bh_read_i64(r);
    e->reason = bh_read_slice(r);
    e->history_next = bh_read_u32(r);
    const uint64_t count = bh_read_varint(r);
    if (r->failed || flags > ENTRY_FLAGS || (flags & ENTRY_STATE_MASK) >= BH_ENTRY_STATES ||
        attempts > UINT32_MAX || e->due_unix_ms < 0 || e->reason.len > BH_QUEUE_REASON_MAX ||
        count == 0 || count > BH_RECIPIENTS_PER_ENTRY) {
        return BH_ECORRUPT;
    }
    e->state = (enum bh_entry_state)(flags & ENTRY_STATE_MASK);
    e->attempts = (uint32_t)attempts;
    e->recipient_count = (uint16_t)count;
    return BH_OK;
}

enum bh_status record_entry_head(struct bh_slice row, struct bh_entry *e)
{
    struct bh_reader r = {.rest = row};
    return read_entry_head(&r, e);
}

static bool read_entry_recipient(struct bh_reader *r, struct bh_entry_recipient *to)
{
    const uint8_t flags = bh_read_u8(r);
    record_read_recipient(r, &to->to);
    const uint64_t attempts = bh_read_varint(r);
    if (flags > (RECIPIENT_TRIED | RECIPIENT_UNCERTAIN) || attempts > UINT32_MAX) {
        return false;
    }
    to->attempts = (uint32_t)attempts;
    to->tried = (flags & RECIPIENT_TRIED) != 0;
    to->uncertain = (flags & RECIPIENT_UNCERTAIN) != 0;
    if (to->tried) {
        record_read_outcome(r, &to->last);
        to->last_unix_ms = bh_read_i64(r);
        if (to->last.text.len > BH_QUEUE_TEXT_MAX) {
            return false;
        }
    }
    return !r->failed;
}

enum bh_status record_entry_decode(struct bh_slice row, struct bh_arena *arena, struct bh_entry *e)
{
    struct bh_reader r = {.rest = row};
    const enum bh_status status = read_entry_head(&r, e);
    if (status != BH_OK) {
        return status;
    }
    e->recipients = bh_arena_alloc(arena, e->recipient_count * sizeof(e->recipients[0]));
    if (e->recipients == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < e->recipient_count; i++) {
        if (!read_entry_recipient(&r, &e->recipients[i])) {
            return BH_ECORRUPT;
        }
    }
    return record_read_end(&r);
}

/* ---- the fresh lane ---- */

enum bh_status record_fresh_encode(const struct fresh_row *f, struct bh_arena *arena,
                                   struct bh_slice *row)
{
    BH_ASSERT(f->part_count > 0);
    BH_ASSERT(f->part_count <= FRESH_PARTS_MAX);
    size_t size = 64;
    for (uint16_t p = 0; p < f->part_count; p++) {
        size += 32;
        for (uint16_t i = 0; i < f->parts[p].recipient_count; i++) {
            size += RECORD_RECIPIENT_MAX(&f->parts[p].recipients[i]);
        }
    }
    struct bh_writer w = record_writer(arena, size);
    if (w.buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    bh_write_u8(&w, RECORD_VERSION);
    bh_write_u8(&w, f->sender_null ? 1 : 0);
    bh_write_i64(&w, f->arrival_unix_ms);
    bh_write_varint(&w, f->size);
    bh_write_u64(&w, f->sender_hash);
    bh_write_u8(&w, (uint8_t)f->part_count);
    for (uint16_t p = 0; p < f->part_count; p++) {
        const struct fresh_part *part = &f->parts[p];
        BH_ASSERT(part->recipient_count > 0);
        bh_write_u32(&w, part->destination);
        bh_write_u16(&w, part->part);
        bh_write_i64(&w, part->stopped_base_ms);
        bh_write_varint(&w, part->recipient_count);
        for (uint16_t i = 0; i < part->recipient_count; i++) {
            record_write_recipient(&w, &part->recipients[i]);
        }
    }
    BH_ASSERT(!w.overflow);
    *row = bh_buf_slice(&w.buf);
    return BH_OK;
}

static enum bh_status read_fresh_part(struct bh_reader *r, struct bh_arena *arena,
                                      struct fresh_part *part)
{
    part->destination = bh_read_u32(r);
    part->part = bh_read_u16(r);
    part->stopped_base_ms = bh_read_i64(r);
    const uint64_t count = bh_read_varint(r);
    if (r->failed || count == 0 || count > BH_RECIPIENTS_PER_ENTRY) {
        return BH_ECORRUPT;
    }
    part->recipient_count = (uint16_t)count;
    struct bh_recipient *to = bh_arena_alloc(arena, (size_t)count * sizeof(*to));
    if (to == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        if (!record_read_recipient(r, &to[i])) {
            return BH_ECORRUPT;
        }
    }
    part->recipients = to;
    return BH_OK;
}

enum bh_status record_fresh_decode(struct bh_slice row, struct bh_arena *arena, struct fresh_row *f)
{
    struct bh_reader r = {.rest = row};
    *f = (struct fresh_row){0};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    const uint8_t sender_null = bh_read_u8(&r);
    f->sender_null = sender_null == 1;
    f->arrival_unix_ms = bh_read_i64(&r);
    f->size = bh_read_varint(&r);
    f->sender_hash = bh_read_u64(&r);
    f->part_count = bh_read_u8(&r);
    if (r.failed || sender_null > 1 || f->part_count == 0 || f->part_count > FRESH_PARTS_MAX) {
        return BH_ECORRUPT;
    }
    for (uint16_t p = 0; p < f->part_count; p++) {
        status = read_fresh_part(&r, arena, &f->parts[p]);
        if (status != BH_OK) {
            return status;
        }
    }
    return record_read_end(&r);
}

/* ---- small rows ---- */

void record_state_encode(const struct message_state *s, char row[RECORD_STATE_LEN])
{
    row[0] = RECORD_VERSION;
    bh_put_be32(row + 1, s->open);
    row[5] = (char)s->crashes;
}

enum bh_status record_state_decode(struct bh_slice row, struct message_state *s)
{
    struct bh_reader r = {.rest = row};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    s->open = bh_read_u32(&r);
    s->crashes = bh_read_u8(&r);
    return record_read_end(&r);
}

void record_open_encode(const struct open_row *o, char row[RECORD_OPEN_LEN])
{
    row[0] = RECORD_VERSION;
    bh_put_be64(row + 1, (uint64_t)o->created_unix_ms);
    bh_put_be32(row + 9, o->chunks);
    bh_put_be64(row + 13, o->octets);
}

enum bh_status record_open_decode(struct bh_slice row, struct open_row *o)
{
    struct bh_reader r = {.rest = row};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    o->created_unix_ms = bh_read_i64(&r);
    o->chunks = bh_read_u32(&r);
    o->octets = bh_read_u64(&r);
    return record_read_end(&r);
}
