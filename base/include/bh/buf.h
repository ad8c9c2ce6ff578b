/* buf.h - append to storage that its owner provides; never grows. */
#pragma once

#include <stdarg.h>

#include "bh/assert.h"
#include "bh/slice.h"
#include "bh/status.h"

struct bh_buf {
    char *ptr;
    size_t len;
    size_t cap;
};

static inline struct bh_buf bh_buf(void *storage, size_t cap)
{
    return (struct bh_buf){(char *)storage, 0, cap};
}

static inline size_t bh_buf_room(const struct bh_buf *buf)
{
    return buf->cap - buf->len;
}

static inline struct bh_slice bh_buf_slice(const struct bh_buf *buf)
{
    return bh_slice(buf->ptr, buf->len);
}

/** Append. The caller has checked the room: too little is a bug. */
static inline void bh_buf_put(struct bh_buf *buf, struct bh_slice s)
{
    BH_ASSERT(bh_buf_room(buf) >= s.len);
    if (s.len > 0) {
        memcpy(buf->ptr + buf->len, s.ptr, s.len);
        buf->len += s.len;
    }
}

static inline void bh_buf_put_char(struct bh_buf *buf, char c)
{
    BH_ASSERT(bh_buf_room(buf) >= 1);
    buf->ptr[buf->len++] = c;
}

/** Append all of it, or nothing.
 * @return BH_OK or BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_buf_add(struct bh_buf *buf, struct bh_slice s);
/** Append what fits. @return how many octets were appended */
size_t bh_buf_add_cut(struct bh_buf *buf, struct bh_slice s);
/** Formatted, all of it or nothing. One octet of room more than the text is needed (for the NUL,
 * which is not counted). @return BH_OK or BH_ELIMIT */
BH_MUST_USE enum bh_status bh_buf_printf(struct bh_buf *buf, const char *format, ...)
    BH_PRINTF(2, 3);
/** Drop the first `count` octets and move the rest to the front. */
void bh_buf_consume(struct bh_buf *buf, size_t count);
