#include "bh/wire.h"

static char *claim(struct bh_writer *w, size_t len)
{
    if (w->overflow || bh_buf_room(&w->buf) < len) {
        w->overflow = true;
        return NULL;
    }
    char *at = w->buf.ptr + w->buf.len;
    w->buf.len += len;
    return at;
}

void bh_write_u8(struct bh_writer *w, uint8_t v)
{
    char *at = claim(w, 1);
    if (at != NULL) {
        *at = (char)v;
    }
}

void bh_write_u16(struct bh_writer *w, uint16_t v)
{
    char *at = claim(w, 2);
    if (at != NULL) {
        bh_put_be16(at, v);
    }
}

void bh_write_u32(struct bh_writer *w, uint32_t v)
{
    char *at = claim(w, 4);
    if (at != NULL) {
        bh_put_be32(at, v);
    }
}

void bh_write_u64(struct bh_writer *w, uint64_t v)
{
    char *at = claim(w, 8);
    if (at != NULL) {
        bh_put_be64(at, v);
    }
}

void bh_write_i64(struct bh_writer *w, int64_t v)
{
    bh_write_u64(w, (uint64_t)v);
}

void bh_write_varint(struct bh_writer *w, uint64_t v)
{
    while (v >= 0x80) {
        bh_write_u8(w, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    bh_write_u8(w, (uint8_t)v);
}

void bh_write_slice(struct bh_writer *w, struct bh_slice s)
{
    bh_write_varint(w, s.len);
    char *at = claim(w, s.len);
    if (at != NULL && s.len > 0) {
        memcpy(at, s.ptr, s.len);
    }
}

static const char *take(struct bh_reader *r, size_t len)
{
    if (r->failed || r->rest.len < len) {
        r->failed = true;
        return NULL;
    }
    const char *at = r->rest.ptr;
    r->rest = bh_slice_skip(r->rest, len);
    return at;
}

uint8_t bh_read_u8(struct bh_reader *r)
{
    const char *at = take(r, 1);
    return at != NULL ? (uint8_t)*at : 0;
}

uint16_t bh_read_u16(struct bh_reader *r)
{
    const char *at = take(r, 2);
    return at != NULL ? bh_get_be16(at) : 0;
}

uint32_t bh_read_u32(struct bh_reader *r)
{
    const char *at = take(r, 4);
    return at != NULL ? bh_get_be32(at) : 0;
}

uint64_t bh_read_u64(struct bh_reader *r)
{
    const char *at = take(r, 8);
    return at != NULL ? bh_get_be64(at) : 0;
}

int64_t bh_read_i64(struct bh_reader *r)
{
    return (int64_t)bh_read_u64(r);
}

uint64_t bh_read_varint(struct bh_reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint64_t octet = bh_read_u8(r);
        if (shift == 63 && octet > 1) {
            break; /* more than 64 bits */
        }
        v |= (octet & 0x7f) << shift;
        if (octet < 0x80) {
            return r->failed ? 0 : v;
        }
    }
    r->failed = true;
    return 0;
}

struct bh_slice bh_read_slice(struct bh_reader *r)
{
    const uint64_t len = bh_read_varint(r);
    const char *at = len <= r->rest.len ? take(r, (size_t)len) : NULL;
    if (at == NULL) {
        r->failed = true;
        return BH_EMPTY;
    }
    return bh_slice(at, (size_t)len);
}
