#include "records.h"

#include "bh/assert.h"

enum {
    MESSAGE_8BIT = 1,
    MESSAGE_UTF8 = 2,
    MESSAGE_REQUIRETLS = 4,
    MESSAGE_TLS_OPTIONAL = 8,
    MESSAGE_FLAGS = 15
};

static void write_envelope(struct bh_writer *w, const struct bh_envelope *e)
{
    bh_write_u8(w, (uint8_t)((e->body == BH_BODY_8BITMIME ? MESSAGE_8BIT : 0U) |
                             (e->smtputf8 ? MESSAGE_UTF8 : 0U) |
                             (e->requiretls ? MESSAGE_REQUIRETLS : 0U) |
                             (e->tls_optional ? MESSAGE_TLS_OPTIONAL : 0U)));
    bh_write_u8(w, (uint8_t)e->ret);
    bh_write_varint(w, e->size);
    bh_write_slice(w, e->sender);
    bh_write_slice(w, e->envid);
}

static bool read_envelope(struct bh_reader *r, struct bh_envelope *e)
{
    const uint8_t flags = bh_read_u8(r);
    const uint8_t ret = bh_read_u8(r);
    e->size = bh_read_varint(r);
    e->sender = bh_read_slice(r);
    e->envid = bh_read_slice(r);
    e->body = (flags & MESSAGE_8BIT) != 0 ? BH_BODY_8BITMIME : BH_BODY_7BIT;
    e->smtputf8 = (flags & MESSAGE_UTF8) != 0;
    e->requiretls = (flags & MESSAGE_REQUIRETLS) != 0;
    e->tls_optional = (flags & MESSAGE_TLS_OPTIONAL) != 0;
    if (r->failed || flags > MESSAGE_FLAGS || ret > BH_RET_HDRS) {
        return false;
    }
    e->ret = (enum bh_ret)ret;
    return true;
}

static void write_origin(struct bh_writer *w, const struct bh_origin *o)
{
    bh_write_u8(w, o->client.family);
    const size_t len = o->client.family == 4 ? 4 : o->client.family == 6 ? 16 : 0;
    for (size_t i = 0; i < len; i++) {
        bh_write_u8(w, o->client.bytes[i]);
    }
    bh_write_slice(w, o->helo);
    bh_write_slice(w, o->user);
    bh_write_slice(w, o->listener);
    bh_write_slice(w, o->protocol);
    bh_write_i64(w, o->arrival_unix_ms);
}

static bool read_origin(struct bh_reader *r, struct bh_origin *o)
{
    o->client.family = bh_read_u8(r);
    if (o->client.family != 0 && o->client.family != 4 && o->client.family != 6) {
        return false;
    }
    const size_t len = o->client.family == 4 ? 4 : o->client.family == 6 ? 16 : 0;
    for (size_t i = 0; i < len; i++) {
        o->client.bytes[i] = bh_read_u8(r);
    }
    o->helo = bh_read_slice(r);
    o->user = bh_read_slice(r);
    o->listener = bh_read_slice(r);
    o->protocol = bh_read_slice(r);
    o->arrival_unix_ms = bh_read_i64(r);
    return !r->failed;
}

enum bh_status record_message_encode(const struct bh_message *m, struct bh_arena *arena,
                                     struct bh_slice *row)
{
    BH_ASSERT(m->part_count > 0);
    BH_ASSERT(m->part_count <= UINT16_MAX);
    const size_t size = 128 + m->envelope.sender.len + m->envelope.envid.len + m->origin.helo.len +
                        m->origin.user.len + m->origin.listener.len + m->origin.protocol.len +
                        (size_t)m->part_count * 6;
    struct bh_writer w = record_writer(arena, size);
    if (w.buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    bh_write_u8(&w, RECORD_VERSION);
    write_envelope(&w, &m->envelope);
    write_origin(&w, &m->origin);
    bh_write_u64(&w, m->content_id);
    bh_write_u32(&w, m->chunks);
    bh_write_u32(&w, m->part_count);
    for (uint32_t i = 0; i < m->part_count; i++) {
        bh_write_u32(&w, m->parts[i].destination);
        bh_write_u16(&w, m->parts[i].part);
    }
    BH_ASSERT(!w.overflow);
    *row = bh_buf_slice(&w.buf);
    return BH_OK;
}

enum bh_status record_message_decode(struct bh_slice row, struct bh_arena *arena,
                                     struct bh_message *m)
{
    struct bh_reader r = {.rest = row};
    *m = (struct bh_message){0};
    enum bh_status status;
    if (!record_read_version(&r, &status)) {
        return status;
    }
    if (!read_envelope(&r, &m->envelope) || !read_origin(&r, &m->origin)) {
        return BH_ECORRUPT;
    }
    m->content_id = bh_read_u64(&r);
    m->chunks = bh_read_u32(&r);
    m->part_count = bh_read_u32(&r);
    if (r.failed || m->part_count == 0 || m->part_count > UINT16_MAX ||
        r.rest.len != (size_t)m->part_count * 6) {
        return BH_ECORRUPT;
    }
    struct bh_queue_part_ref *parts = bh_arena_alloc(arena, m->part_count * sizeof(*parts));
    if (parts == NULL) {
        return BH_ENOMEM;
    }
    for (uint32_t i = 0; i < m->part_count; i++) {
        parts[i].destination = bh_read_u32(&r);
        parts[i].part = bh_read_u16(&r);
    }
    m->parts = parts;
    m->open = m->part_count;
    return record_read_end(&r);
}
