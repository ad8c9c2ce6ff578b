#include "records.h"

#include "bh/assert.h"

enum { JOB_FRESH_DONE = 1, JOB_DONE = 2, JOB_FLAGS = 3 };

static void write_selection(struct bh_writer *w, const struct bh_selection *s)
{
    bh_write_u8(w, (uint8_t)s->id_count);
    for (uint32_t i = 0; i < s->id_count; i++) {
        bh_write_u64(w, s->ids[i]);
    }
    bh_write_slice(w, s->domain);
    bh_write_slice(w, s->connector);
    bh_write_slice(w, s->sender);
    bh_write_slice(w, s->recipient);
    bh_write_i64(w, s->arrived_from_unix_ms);
    bh_write_i64(w, s->arrived_to_unix_ms);
    bh_write_u8(w, (uint8_t)s->states);
}

static bool read_selection(struct bh_reader *r, struct bh_selection *s)
{
    s->id_count = bh_read_u8(r);
    if (s->id_count > BH_SELECTION_IDS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < s->id_count; i++) {
        s->ids[i] = bh_read_u64(r);
    }
    s->domain = bh_read_slice(r);
    s->connector = bh_read_slice(r);
    s->sender = bh_read_slice(r);
    s->recipient = bh_read_slice(r);
    s->arrived_from_unix_ms = bh_read_i64(r);
    s->arrived_to_unix_ms = bh_read_i64(r);
    s->states = bh_read_u8(r);
    return !r->failed && s->states <= (BH_SELECT_READY | BH_SELECT_DUE | BH_SELECT_HELD);
}

enum bh_status record_job_encode(const struct bh_job *job, struct bh_arena *arena,
                                 struct bh_slice *row)
{
    const struct bh_selection *s = &job->selection;
    BH_ASSERT(s->id_count <= BH_SELECTION_IDS_MAX);
    const size_t size = 256 + 2 * BH_QUEUE_REASON_MAX + (size_t)s->id_count * 8 + s->domain.len +
                        s->connector.len + s->sender.len + s->recipient.len;
    struct bh_writer w = record_writer(arena, size);
    if (w.buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    bh_write_u8(&w, RECORD_VERSION);
    bh_write_u8(&w, (uint8_t)job->verb);
    bh_write_u8(&w,
                (uint8_t)((job->fresh_done ? JOB_FRESH_DONE : 0U) | (job->done ? JOB_DONE : 0U)));
    write_selection(&w, s);
    bh_write_slice(&w, record_cut(job->reason, BH_QUEUE_REASON_MAX));
    bh_write_slice(&w, record_cut(job->by, BH_QUEUE_REASON_MAX));
    bh_write_i64(&w, job->created_unix_ms);
    bh_write_u64(&w, job->up_to_id);
    bh_write_u32(&w, job->cursor.destination);
    bh_write_u64(&w, job->cursor.id);
    bh_write_u16(&w, job->cursor.part);
    bh_write_u64(&w, job->matched);
    bh_write_u64(&w, job->acted);
    bh_write_u64(&w, job->in_flight);
    BH_ASSERT(!w.overflow);
    *row = bh_buf_slice(&w.buf);
    return BH_OK;
}

enum bh_status record_job_decode(struct bh_slice row, struct bh_job *job)
{
    struct bh_reader r = {.rest = row};
    *job = (struct bh_job){0};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    const uint8_t verb = bh_read_u8(&r);
    const uint8_t flags = bh_read_u8(&r);
    if (!read_selection(&r, &job->selection) || verb > BH_JOB_REQUEUE || flags > JOB_FLAGS) {
        return BH_ECORRUPT;
    }
    job->verb = (enum bh_job_verb)verb;
    job->fresh_done = (flags & JOB_FRESH_DONE) != 0;
    job->done = (flags & JOB_DONE) != 0;
    job->reason = bh_read_slice(&r);
    job->by = bh_read_slice(&r);
    job->created_unix_ms = bh_read_i64(&r);
    job->up_to_id = bh_read_u64(&r);
    job->cursor.destination = bh_read_u32(&r);
    job->cursor.id = bh_read_u64(&r);
    job->cursor.part = bh_read_u16(&r);
    job->matched = bh_read_u64(&r);
    job->acted = bh_read_u64(&r);
    job->in_flight = bh_read_u64(&r);
    if (job->reason.len > BH_QUEUE_REASON_MAX || job->by.len > BH_QUEUE_REASON_MAX) {
        return BH_ECORRUPT;
    }
    return record_read_end(&r);
}
