#include "bh/dot_stuff.h"

/* One octet, the careful way: around line ends, where the states change. */
static enum bh_status feed_octet(struct bh_dot_stuff *d, struct bh_slice *in, struct bh_buf *out)
{
    const char c = in->ptr[0];
    if ((c == '\n') != (d->state == BH_DOT_AFTER_CR)) {
        return BH_ECORRUPT; /* The queue stores CRLF only; check again where it would hurt. */
    }
    if (c == '.' && d->state == BH_DOT_LINE_START) {
        bh_buf_put_char(out, '.');
    }
    bh_buf_put_char(out, c);
    *in = bh_slice_skip(*in, 1);
    if (c == '\r') {
        d->state = BH_DOT_AFTER_CR;
    } else {
        d->state = c == '\n' ? BH_DOT_LINE_START : BH_DOT_IN_LINE;
    }
    return BH_OK;
}

/* Octets within a line that can be copied as they are: up to the next CR or LF, or the room. */
static size_t plain_run(struct bh_slice in, size_t room)
{
    const struct bh_slice window = bh_slice_take(in, room);
    const char *lf = memchr(window.ptr, '\n', window.len);
    const size_t to_lf = lf != NULL ? (size_t)(lf - window.ptr) : window.len;
    const char *cr = memchr(window.ptr, '\r', to_lf);
    return cr != NULL ? (size_t)(cr - window.ptr) : to_lf;
}

enum bh_status bh_dot_stuff_feed(struct bh_dot_stuff *d, struct bh_slice *in, struct bh_buf *out)
{
    BH_ASSERT(d->state != BH_DOT_ENDED);
    while (in->len > 0) {
        if (bh_buf_room(out) < 2) {
            return BH_MORE; /* Ask for the widest case, so that no octet is left half encoded. */
        }
        if (d->state == BH_DOT_IN_LINE) {
            const size_t run = plain_run(*in, bh_buf_room(out));
            bh_buf_put(out, bh_slice_take(*in, run));
            *in = bh_slice_skip(*in, run);
            if (in->len == 0 || bh_buf_room(out) < 2) {
                continue;
            }
        }
        const enum bh_status status = feed_octet(d, in, out);
        if (status != BH_OK) {
            return status;
        }
    }
    return BH_OK;
}

enum bh_status bh_dot_stuff_end(struct bh_dot_stuff *d, struct bh_buf *out)
{
    BH_ASSERT(d->state != BH_DOT_ENDED);
    if (d->state == BH_DOT_AFTER_CR) {
        return BH_ECORRUPT;
    }
    const struct bh_slice tail = bh_slice_str(d->state == BH_DOT_IN_LINE ? "\r\n.\r\n" : ".\r\n");
    if (bh_buf_room(out) < tail.len) {
        return BH_MORE;
    }
    bh_buf_put(out, tail);
    d->state = BH_DOT_ENDED;
    return BH_OK;
}

enum bh_status bh_dot_stuff_check(struct bh_dot_stuff *d, struct bh_slice in)
{
    while (in.len > 0) {
        if (d->state != BH_DOT_AFTER_CR) {
            in = bh_slice_skip(in, plain_run(in, in.len));
            d->state = BH_DOT_IN_LINE;
            if (in.len == 0) {
                break;
            }
        }
        if ((in.ptr[0] == '\n') != (d->state == BH_DOT_AFTER_CR)) {
            return BH_ECORRUPT;
        }
        d->state = in.ptr[0] == '\r' ? BH_DOT_AFTER_CR : BH_DOT_LINE_START;
        in = bh_slice_skip(in, 1);
    }
    return BH_OK;
}
