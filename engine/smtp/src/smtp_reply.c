#include "bh/smtp_reply.h"

#include "bh/assert.h"

_Static_assert(BH_REPLY_TEXT_MAX > BH_REPLY_LINE_MAX, "the text of one line always fits");

static bool part(struct bh_slice *text, uint16_t *value)
{
    size_t n = 0;
    uint16_t v = 0;
    while (n < text->len && n < 3 && bh_is_digit(text->ptr[n])) {
        v = (uint16_t)(v * 10 + (text->ptr[n] - '0'));
        n++;
    }
    *text = bh_slice_skip(*text, n);
    *value = v;
    return n > 0;
}

static bool dot(struct bh_slice *text)
{
    const bool is = text->len > 0 && text->ptr[0] == '.';
    *text = bh_slice_skip(*text, is ? 1 : 0);
    return is;
}

bool bh_enhanced_parse(struct bh_slice text, uint8_t *class_digit, uint16_t *subject,
                       uint16_t *detail, struct bh_slice *rest)
{
    uint16_t c = 0;
    uint16_t s = 0;
    uint16_t d = 0;
    if (!part(&text, &c) || !dot(&text) || !part(&text, &s) || !dot(&text) || !part(&text, &d) ||
        (c != 2 && c != 4 && c != 5)) {
        return false;
    }
    if (text.len > 0 && text.ptr[0] != ' ' && text.ptr[0] != '\t') {
        return false;
    }
    *class_digit = (uint8_t)c;
    *subject = s;
    *detail = d;
    *rest = bh_slice_trim(text);
    return true;
}

/* Take the enhanced code off the text if it belongs to this reply: its class must be the first
 * digit of the code (RFC 2034 section 4). The first line that has one decides. */
static struct bh_slice take_enhanced(struct bh_reply_parser *p, struct bh_slice text)
{
    uint8_t class_digit = 0;
    uint16_t subject = 0;
    uint16_t detail = 0;
    struct bh_slice rest = text;
    if (!bh_enhanced_parse(text, &class_digit, &subject, &detail, &rest) ||
        class_digit != p->code / 100) {
        return text;
    }
    if (p->enhanced_class == 0) {
        p->enhanced_class = class_digit;
        p->enhanced_subject = subject;
        p->enhanced_detail = detail;
        return rest;
    }
    return p->enhanced_subject == subject && p->enhanced_detail == detail ? rest : text;
}

static void keep_text(struct bh_reply_parser *p, struct bh_slice text)
{
    const size_t separator = p->lines > 1 ? 1 : 0;
    if (p->cut || p->text_len + separator + text.len > sizeof(p->text)) {
        p->cut = true; /* whole lines only, so that no keyword is read in half */
        return;
    }
    if (separator > 0) {
        p->text[p->text_len++] = '\n';
    }
    if (text.len > 0) {
        memcpy(p->text + p->text_len, text.ptr, text.len);
        p->text_len += text.len;
    }
}

/* A whole line without its end. @return BH_OK: the reply's last line; BH_MORE; BH_EPROTO */
static enum bh_status take_line(struct bh_reply_parser *p, struct bh_slice line)
{
    uint16_t code = 0;
    struct bh_slice rest = line;
    if (line.len < 3 || !part(&rest, &code) || rest.len != line.len - 3 || code < 200 ||
        code > 599 || memchr(line.ptr, '\0', line.len) != NULL ||
        memchr(line.ptr, '\r', line.len) != NULL) {
        return BH_EPROTO;
    }
    if ((p->lines > 0 && code != p->code) || p->lines >= BH_REPLY_LINES_MAX) {
        return BH_EPROTO;
    }
    if (rest.len > 0 && rest.ptr[0] != ' ' && rest.ptr[0] != '-') {
        return BH_EPROTO;
    }
    const bool more = rest.len > 0 && rest.ptr[0] == '-';
    p->code = code;
    p->lines++;
    keep_text(p, take_enhanced(p, bh_slice_trim(bh_slice_skip(rest, 1))));
    return more ? BH_MORE : BH_OK;
}

static void restart(struct bh_reply_parser *p)
{
    p->code = 0;
    p->lines = 0;
    p->enhanced_class = 0;
    p->enhanced_subject = 0;
    p->enhanced_detail = 0;
    p->done = false;
    p->cut = false;
    p->line_len = 0;
    p->text_len = 0;
}

static void publish(struct bh_reply_parser *p, struct bh_reply *reply)
{
    *reply = (struct bh_reply){
        .code = p->code,
        .enhanced_class = p->enhanced_class,
        .enhanced_subject = p->enhanced_subject,
        .enhanced_detail = p->enhanced_detail,
        .text = bh_slice(p->text, p->text_len),
        .cut = p->cut,
    };
    p->done = true;
}

enum bh_status bh_reply_feed(struct bh_reply_parser *p, struct bh_slice *in, struct bh_reply *reply)
{
    if (p->done) {
        restart(p);
    }
    while (in->len > 0) {
        const char *end = memchr(in->ptr, '\n', in->len);
        const size_t len = end != NULL ? (size_t)(end - in->ptr) : in->len;
        if (p->line_len + len > sizeof(p->line)) {
            return BH_EPROTO;
        }
        memcpy(p->line + p->line_len, in->ptr, len);
        p->line_len += len;
        *in = bh_slice_skip(*in, len + (end != NULL ? 1 : 0));
        if (end == NULL) {
            return BH_MORE;
        }
        struct bh_slice line = bh_slice(p->line, p->line_len);
        p->line_len = 0;
        if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        const enum bh_status status = take_line(p, line);
        if (status == BH_OK) {
            publish(p, reply);
        }
        if (status != BH_MORE) {
            return status;
        }
    }
    return BH_MORE;
}

bool bh_reply_partial(const struct bh_reply_parser *p)
{
    return !p->done && (p->lines > 0 || p->line_len > 0);
}
