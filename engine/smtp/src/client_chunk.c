/* Content by BDAT (RFC 3030): each piece that the driver gives is a chunk, the last one says so.
 * The octets go as they are. */
#include "client_internal.h"

#define COMMAND_MAX 32 /* "BDAT", a number of 20 digits, "LAST" */

static void put_command(struct bh_client *c, struct bh_buf *out)
{
    const enum bh_status status =
        bh_buf_printf(out, "BDAT %zu%s\r\n", c->content.len, c->content_last ? " LAST" : "");
    BH_ASSERT(status == BH_OK);
    c->chunk_open = true;
}

static void put_octets(struct bh_client *c, struct bh_buf *out, size_t max)
{
    const struct bh_slice piece = bh_slice_take(c->content, max);
    bh_buf_put(out, piece);
    c->content = bh_slice_skip(c->content, piece.len);
    c->sending->content_at += piece.len;
}

/* @return false: it can't go */
static bool check(struct bh_client *c)
{
    const bool whole = bh_dot_stuff_check(&c->stuff, c->content) == BH_OK &&
                       !(c->content_last && c->stuff.state == BH_DOT_AFTER_CR);
    if (!whole) {
        bh_client_bad_content(c);
    }
    return whole;
}

bool bh_client_send_chunk(struct bh_client *c, struct bh_buf *out)
{
    if (c->content.len == 0 && !c->content_last) {
        /* Its reply and that of the end must have their places. */
        const bool room = c->expect_count + 2 <= BH_CLIENT_EXPECT_MAX;
        return !c->content_asked && room && out->len == 0;
    }
    if (!c->chunk_open && !check(c)) {
        return false;
    }
    const size_t room = bh_buf_room(out);
    if (c->content_last && (c->chunk_open ? 0 : COMMAND_MAX) + c->content.len <= room) {
        c->step = BH_STEP_BEFORE_END;
        return false;
    }
    if (!c->chunk_open) {
        BH_ASSERT(room > COMMAND_MAX); /* content is made before commands, so `out` was empty */
        put_command(c, out);
    }
    /* Of the last chunk something is kept back, which only goes once it was announced. */
    const size_t kept = c->content_last ? 1 : 0;
    const size_t most = c->content.len - kept;
    put_octets(c, out, most < bh_buf_room(out) ? most : bh_buf_room(out));
    if (c->content.len == 0) {
        c->chunk_open = false;
        bh_client_expect(c, BH_EXPECT_CHUNK, 0);
    }
    return false;
}

bool bh_client_send_last(struct bh_client *c, struct bh_buf *out)
{
    if (!c->chunk_open) {
        put_command(c, out);
    }
    put_octets(c, out, bh_buf_room(out));
    c->chunk_open = c->content.len > 0;
    return !c->chunk_open;
}
