/* Content as it comes in, against a plain reading of it. Whatever the octets: DATA ends at the
 * first CRLF "." CRLF and nowhere else, however they are cut; hops, 8-bit octets and faults are
 * what a second look finds; and what dot stuffing makes of a message for the next hop is read back
 * as that message. The first octet picks the size of the pieces. */
#include <strings.h>

#include "bh/dot_stuff.h"
#include "bh/smtp_server.h"

#include "../../engine/smtp/src/content_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX ((size_t)1 << 17)

static const struct bh_server_limits limits = {
    .message_size = 3000, .hops = 3, .content_line = 200};
static const struct bh_server_limits no_limits = {0};

struct reading {
    struct bh_content_scan scan;
    struct bh_buf content;
    size_t used; /* octets of the stream */
    bool ended;
};

static void read_data(struct bh_slice in, size_t step, const struct bh_server_limits *l,
                      struct reading *r)
{
    bh_content_scan_reset(&r->scan);
    r->content.len = 0;
    r->used = 0;
    r->ended = false;
    while (!r->ended && r->used < in.len) {
        struct bh_slice piece = bh_slice_take(bh_slice_skip(in, r->used), step);
        while (piece.len > 0 && !r->ended) {
            const struct bh_content_step s = bh_content_scan_data(&r->scan, piece, l);
            BH_ASSERT(s.used > 0 && s.used <= piece.len);
            bh_buf_put(&r->content, s.content);
            piece = bh_slice_skip(piece, s.used);
            r->used += s.used;
            r->ended = s.ended;
        }
    }
}

static void read_chunk(struct bh_slice in, size_t step, struct bh_content_scan *scan)
{
    bh_content_scan_reset(scan);
    while (in.len > 0) {
        const struct bh_slice piece = bh_slice_take(in, step);
        const struct bh_content_step s = bh_content_scan_chunk(scan, piece, &limits);
        BH_ASSERT(s.used == piece.len && bh_slice_eq(s.content, piece) && !s.ended);
        in = bh_slice_skip(in, piece.len);
    }
    bh_content_scan_end(scan);
}

static void same(const struct bh_content_scan *a, const struct bh_content_scan *b)
{
    BH_ASSERT(a->fault == b->fault && a->hops == b->hops && a->in_body == b->in_body);
    BH_ASSERT(a->eight_bit == b->eight_bit && a->header_utf8 == b->header_utf8);
    BH_ASSERT(a->size == b->size && a->line == b->line);
}

/* Where DATA ends: behind the first CRLF.CRLF, the CRLF of the DATA command itself counted. */
static bool find_end(struct bh_slice in, size_t *end)
{
    if (bh_slice_starts(in, BH_LIT(".\r\n"))) {
        *end = 3;
        return true;
    }
    const size_t at = bh_slice_find_slice(in, BH_LIT("\r\n.\r\n"));
    *end = at + 5;
    return at < in.len;
}

static bool has_bare(struct bh_slice in)
{
    for (size_t i = 0; i < in.len; i++) {
        const bool after_cr = i > 0 && in.ptr[i - 1] == '\r';
        const bool before_lf = i + 1 < in.len && in.ptr[i + 1] == '\n';
        if ((in.ptr[i] == '\n' && !after_cr) || (in.ptr[i] == '\r' && !before_lf)) {
            return true;
        }
    }
    return false;
}

/* Of content without bare CR or LF. */
static void check_facts(struct bh_slice content, const struct bh_content_scan *scan)
{
    uint32_t hops = 0;
    bool body = false;
    bool high = false;
    bool high_header = false;
    while (content.len > 0) {
        const size_t end = bh_slice_find_slice(content, BH_LIT("\r\n"));
        const struct bh_slice line = bh_slice_take(content, end);
        body = body || (line.len == 0 && end < content.len);
        hops += !body && bh_slice_starts_nocase(line, BH_LIT("received:")) ? 1 : 0;
        for (size_t i = 0; i < line.len; i++) {
            high = high || (unsigned char)line.ptr[i] > 127;
            high_header = high_header || (!body && (unsigned char)line.ptr[i] > 127);
        }
        content = bh_slice_skip(content, end + 2);
    }
    BH_ASSERT(scan->hops == hops && scan->eight_bit == high && scan->in_body == body);
    BH_ASSERT(scan->header_utf8 == high_header);
}

/* What we would send of this message, in pieces; false: refused for a bare CR or LF. */
static bool stuff(struct bh_slice message, size_t step, struct bh_buf *wire)
{
    struct bh_dot_stuff d = {0};
    enum bh_status status = BH_OK;
    while (message.len > 0 && status == BH_OK) {
        struct bh_slice piece = bh_slice_take(message, step);
        message = bh_slice_skip(message, piece.len);
        status = bh_dot_stuff_feed(&d, &piece, wire);
        BH_ASSERT(status == BH_ECORRUPT || (status == BH_OK && piece.len == 0));
    }
    if (status == BH_OK) {
        status = bh_dot_stuff_end(&d, wire);
    }
    return status == BH_OK;
}

static void as_stream(struct bh_slice in, size_t step)
{
    static char storage[2][TEXT_MAX];
    static struct reading whole;
    static struct reading cut;
    whole.content = bh_buf(storage[0], TEXT_MAX);
    cut.content = bh_buf(storage[1], TEXT_MAX);
    read_data(in, in.len + 1, &limits, &whole);
    read_data(in, step, &limits, &cut);
    same(&whole.scan, &cut.scan);
    BH_ASSERT(whole.used == cut.used && whole.ended == cut.ended);
    BH_ASSERT(bh_slice_eq(bh_buf_slice(&whole.content), bh_buf_slice(&cut.content)));
    size_t end = 0;
    BH_ASSERT(whole.ended == find_end(in, &end));
    BH_ASSERT(!whole.ended || whole.used == end);
    if (whole.ended) {
        const struct bh_slice stream = bh_slice_take(in, end);
        BH_ASSERT((whole.scan.fault == BH_CONTENT_BARE) == has_bare(stream));
        if (whole.scan.fault == BH_CONTENT_FINE) {
            check_facts(bh_buf_slice(&whole.content), &whole.scan);
        }
    }
}

static void as_message(struct bh_slice in, size_t step)
{
    static char storage[2][TEXT_MAX];
    static char content[TEXT_MAX];
    struct bh_buf wire = bh_buf(storage[0], TEXT_MAX);
    struct bh_buf other = bh_buf(storage[1], TEXT_MAX);
    struct bh_content_scan scan;
    struct bh_content_scan slow;
    read_chunk(in, in.len + 1, &scan);
    read_chunk(in, step, &slow);
    same(&scan, &slow);
    BH_ASSERT((scan.fault == BH_CONTENT_BARE) == has_bare(in));
    const bool sent = stuff(in, in.len + 1, &wire);
    BH_ASSERT(sent == (scan.fault != BH_CONTENT_BARE));
    BH_ASSERT(sent == stuff(in, step, &other));
    if (!sent) {
        return;
    }
    BH_ASSERT(bh_slice_eq(bh_buf_slice(&wire), bh_buf_slice(&other)));
    struct reading back = {.content = bh_buf(content, TEXT_MAX)};
    read_data(bh_buf_slice(&wire), step, &no_limits, &back);
    BH_ASSERT(back.ended && back.used == wire.len && back.scan.fault != BH_CONTENT_BARE);
    /* A last line without its end is given one. */
    const bool whole = in.len == 0 || in.ptr[in.len - 1] == '\n';
    const struct bh_slice got = bh_buf_slice(&back.content);
    BH_ASSERT(bh_slice_eq(bh_slice_take(got, in.len), in));
    BH_ASSERT(whole ? got.len == in.len : bh_slice_eq(bh_slice_skip(got, in.len), BH_LIT("\r\n")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > TEXT_MAX / 3) {
        return 0;
    }
    const struct bh_slice in = bh_slice(data + 1, size - 1);
    as_stream(in, 1 + data[0] % 8);
    as_message(in, 1 + data[0] % 8);
    return 0;
}
