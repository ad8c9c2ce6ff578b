#include "content_scan.h"

#include "tls_required.h"

static const char received[] = "received:";
#define RECEIVED_LEN (sizeof(received) - 1)

void bh_content_scan_reset(struct bh_content_scan *scan)
{
    *scan = (struct bh_content_scan){.line = BH_LINE_START};
}

/* Of several faults one is told, by rank: which is met first hangs on how the octets are cut. */
static void fault(struct bh_content_scan *scan, enum bh_content_fault found)
{
    if (scan->fault == BH_CONTENT_FINE || found < scan->fault) {
        scan->fault = found;
    }
}

static void count(struct bh_content_scan *scan, size_t octets,
                  const struct bh_server_limits *limits)
{
    scan->size += octets;
    if (limits->message_size > 0 && scan->size > limits->message_size) {
        fault(scan, BH_CONTENT_TOO_BIG);
    }
}

/* A header line that starts with "Received:" is one hop; the name may be cut by the input's end. */
static void match_received(struct bh_content_scan *scan, struct bh_slice run,
                           const struct bh_server_limits *limits)
{
    for (size_t i = 0; i < run.len && scan->name_len < RECEIVED_LEN; i++) {
        if (scan->name_len != scan->line_len + i ||
            bh_lower(run.ptr[i]) != received[scan->name_len]) {
            return;
        }
        scan->name_len++;
        if (scan->name_len == RECEIVED_LEN) {
            scan->hops++;
        }
    }
    if (limits->hops > 0 && scan->hops > limits->hops) {
        fault(scan, BH_CONTENT_LOOP);
    }
}

static bool has_eight_bit(struct bh_slice run)
{
    uint64_t all = 0;
    size_t i = 0;
    for (; i + sizeof(all) <= run.len; i += sizeof(all)) { /* every octet of every message */
        uint64_t eight;
        memcpy(&eight, run.ptr + i, sizeof(eight));
        all |= eight;
    }
    for (; i < run.len; i++) {
        all |= (unsigned char)run.ptr[i];
    }
    return (all & UINT64_C(0x8080808080808080)) != 0;
}

/* Octets within a line, none of them CR or LF. */
static void on_run(struct bh_content_scan *scan, struct bh_slice run,
                   const struct bh_server_limits *limits)
{
    if (run.len == 0) {
        return;
    }
    if (!scan->in_body) {
        match_received(scan, run, limits);
        bh_tls_required_run(&scan->tls_required, run, scan->line_len == 0);
    }
    if (has_eight_bit(run)) {
        scan->eight_bit = true;
        scan->header_utf8 = scan->header_utf8 || !scan->in_body;
    }
    if (memchr(run.ptr, '\0', run.len) != NULL) {
        fault(scan, BH_CONTENT_NUL);
    }
    scan->line_len += run.len;
    if (limits->content_line > 0 && scan->line_len > limits->content_line) {
        fault(scan, BH_CONTENT_TOO_LONG);
    }
    count(scan, run.len, limits);
    scan->line = BH_LINE_IN;
}

static void on_line_end(struct bh_content_scan *scan)
{
    if (!scan->in_body && scan->line_len == 0) {
        scan->in_body = true;
        bh_tls_required_end(&scan->tls_required);
    }
    scan->line_len = 0;
    scan->name_len = 0;
    scan->line = BH_LINE_START;
}

/* A CR or LF of the content itself. */
static void on_break(struct bh_content_scan *scan, char c, const struct bh_server_limits *limits)
{
    count(scan, 1, limits);
    if (c == '\r') {
        scan->line = BH_LINE_CR;
    } else if (scan->line == BH_LINE_CR) {
        on_line_end(scan);
    } else {
        fault(scan, BH_CONTENT_BARE);
        scan->line = BH_LINE_IN; /* No line ends here, so no dot that follows ends the content. */
    }
}

static size_t run_len(struct bh_slice s)
{
    const size_t cr = bh_slice_find(s, '\r');
    return bh_slice_find(bh_slice_take(s, cr), '\n');
}

/* One run of octets, or one CR or LF. Returns how many octets. */
static size_t on_content(struct bh_content_scan *scan, struct bh_slice s,
                         const struct bh_server_limits *limits)
{
    const char c = s.ptr[0];
    if (scan->line == BH_LINE_CR && c != '\n') {
        fault(scan, BH_CONTENT_BARE);
        scan->line = BH_LINE_IN;
    }
    if (c == '\r' || c == '\n') {
        on_break(scan, c, limits);
        return 1;
    }
    const size_t len = run_len(s);
    on_run(scan, bh_slice_take(s, len), limits);
    return len;
}

struct bh_content_step bh_content_scan_chunk(struct bh_content_scan *scan, struct bh_slice in,
                                             const struct bh_server_limits *limits)
{
    size_t at = 0;
    while (at < in.len) {
        at += on_content(scan, bh_slice_skip(in, at), limits);
    }
    return (struct bh_content_step){in, in.len, false};
}

void bh_content_scan_end(struct bh_content_scan *scan)
{
    if (scan->line == BH_LINE_CR) {
        fault(scan, BH_CONTENT_BARE);
    }
}

/* The octet after a dot that opens a line. Returns true if it was used up. */
static bool on_after_dot(struct bh_content_scan *scan, char c, bool *ended)
{
    if (scan->line == BH_LINE_DOT) {
        scan->line = c == '\r' ? BH_LINE_DOT_CR : BH_LINE_IN;
        return c == '\r';
    }
    if (c == '\n') {
        *ended = true;
        return true;
    }
    fault(scan, BH_CONTENT_BARE);
    scan->line = BH_LINE_IN;
    return false;
}

struct bh_content_step bh_content_scan_data(struct bh_content_scan *scan, struct bh_slice in,
                                            const struct bh_server_limits *limits)
{
    struct bh_content_step step = {bh_slice(in.ptr, 0), 0, false};
    while (step.used < in.len) {
        const char c = in.ptr[step.used];
        if (scan->line == BH_LINE_DOT || scan->line == BH_LINE_DOT_CR) {
            BH_ASSERT(step.content.len == 0);
            step.used += on_after_dot(scan, c, &step.ended) ? 1 : 0;
            if (step.ended) {
                return step;
            }
            step.content = bh_slice(in.ptr + step.used, 0);
        } else if (scan->line == BH_LINE_START && c == '.') {
            scan->line = BH_LINE_DOT;
            step.used++;
            if (step.content.len > 0) {
                return step; /* What follows the dot is the next piece. */
            }
            step.content = bh_slice(in.ptr + step.used, 0);
        } else {
            const size_t len = on_content(scan, bh_slice_skip(in, step.used), limits);
            step.content.len += len;
            step.used += len;
        }
    }
    return step;
}
