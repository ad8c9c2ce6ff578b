#include "text.h"

#include <stdarg.h>
#include <stdio.h>

#include "bh/utf8.h"

void text_put(struct text_out *out, struct bh_slice octets)
{
    if (out->status != BH_OK || octets.len == 0) {
        return;
    }
    out->high = out->high || !bh_is_ascii(octets);
    out->size += octets.len;
    out->status = out->sink.put(out->sink.ctx, octets);
}

void text_str(struct text_out *out, const char *str)
{
    text_put(out, bh_slice_str(str));
}

void text_printf(struct text_out *out, const char *format, ...)
{
    char text[513];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    BH_ASSERT(len >= 0 && (size_t)len < sizeof(text));
    text_put(out, bh_slice(text, (size_t)len));
}

/* Controls, line ends and direction marks that UTF-8 can spell: C1, U+200E/F, U+2028 to U+202E,
 * U+2066 to U+2069. They could break lines in a reader, or show a text other than what it says. */
static bool is_harmless(struct bh_slice c)
{
    const unsigned char *p = (const unsigned char *)c.ptr;
    if (p[0] == 0xc2 && p[1] < 0xa0) {
        return false;
    }
    if (p[0] == 0xe2 && p[1] == 0x80) {
        return p[2] != 0x8e && p[2] != 0x8f && (p[2] < 0xa8 || p[2] > 0xae);
    }
    return !(p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

struct bh_slice text_safe(struct bh_slice in, size_t in_max, bool utf8, char storage[TEXT_SAFE_MAX])
{
    struct bh_buf buf = bh_buf(storage, TEXT_SAFE_MAX);
    const struct bh_slice dots = BH_LIT("...");
    const size_t whole = in.len;
    in = bh_slice_take(in, in_max);
    bool cut = in.len < whole;
    while (in.len > 0) {
        const unsigned char c = (unsigned char)in.ptr[0];
        size_t len = 1;
        char one[5] = {(char)c, 0};
        size_t one_len = 1;
        if (c == '\r' || c == '\n' || c == '\t') {
            one[0] = ' ';
        } else if (c < 0x20 || c == 0x7f) {
            one_len = 0;
        } else if (c >= 0x80) {
            len = utf8 ? bh_utf8_len(in) : 0;
            const bool keep = len > 0 && is_harmless(bh_slice_take(in, len));
            one_len = keep ? len : 0;
            memcpy(one, in.ptr, keep ? len : 0);
            len = keep ? len : 1;
        }
        if (one_len == 0) {
            snprintf(one, sizeof(one), "\\x%02X", c);
            one_len = 4;
        }
        if (bh_buf_room(&buf) < one_len + dots.len) {
            cut = true;
            break;
        }
        bh_buf_put(&buf, bh_slice(one, one_len));
        in = bh_slice_skip(in, len);
    }
    if (cut) {
        bh_buf_put(&buf, dots);
    }
    return bh_buf_slice(&buf);
}

/* How much of a word goes on a line with room for `room` octets: all, or whole characters. */
static size_t fitting(struct bh_slice word, size_t room)
{
    if (word.len <= room) {
        return word.len;
    }
    size_t len = 0;
    while (true) {
        size_t step = bh_utf8_len(bh_slice_skip(word, len));
        step = step > 0 ? step : 1;
        if (len + step > room) {
            return len > 0 ? len : step;
        }
        len += step;
    }
}

#define LINE_SOFT 76

void text_fold(struct text_out *out, size_t column, const char *indent, struct bh_slice text)
{
    const size_t indent_len = strlen(indent);
    bool first = true;
    for (struct bh_slice word; (word = bh_slice_word(&text)).len > 0; first = false) {
        const size_t blank = first ? 0 : 1;
        if (column > indent_len && column + blank + word.len > LINE_SOFT) {
            text_str(out, "\r\n");
            text_str(out, indent);
            column = indent_len;
        } else if (!first) {
            text_str(out, " ");
            column++;
        }
        while (true) {
            const size_t room = column < LINE_SOFT ? LINE_SOFT - column : 1;
            const size_t len = fitting(word, room);
            text_put(out, bh_slice_take(word, len));
            column += len;
            word = bh_slice_skip(word, len);
            if (word.len == 0) {
                break;
            }
            text_str(out, "\r\n");
            text_str(out, indent);
            column = indent_len;
        }
    }
}

bool text_is_clean(struct bh_slice content)
{
    size_t line = 0;
    for (size_t i = 0; i < content.len; i++) {
        const char c = content.ptr[i];
        if (c == '\r' && i + 1 < content.len && content.ptr[i + 1] == '\n') {
            i++;
            line = 0;
        } else if (c == '\r' || c == '\n' || c == 0 || ++line >= 998) {
            return false;
        }
    }
    return true;
}

/* One octet in quoted-printable, or as it is where that is safe. */
static struct bh_slice quote(unsigned char c, bool ends_line, char one[4])
{
    const bool plain =
        (c > 0x20 && c < 0x7f && c != '=') || ((c == ' ' || c == '\t') && !ends_line);
    if (plain) {
        one[0] = (char)c;
        return bh_slice(one, 1);
    }
    snprintf(one, 4, "=%02X", c);
    return bh_slice(one, 3);
}

void text_quoted_printable(struct text_out *out, struct bh_slice content)
{
    size_t column = 0;
    while (content.len > 0) {
        if (content.len >= 2 && content.ptr[0] == '\r' && content.ptr[1] == '\n') {
            text_str(out, "\r\n");
            column = 0;
            content = bh_slice_skip(content, 2);
            continue;
        }
        char one[4];
        const struct bh_slice next = bh_slice_skip(content, 1);
        const bool ends_line = next.len == 0 || next.ptr[0] == '\r';
        struct bh_slice octet = quote((unsigned char)content.ptr[0], ends_line, one);
        if (column + octet.len > 75) {
            text_str(out, "=\r\n");
            column = 0;
        }
        if (column == 0 && content.ptr[0] == '-') {
            octet = BH_LIT("=2D"); /* No line may start like a boundary. */
        }
        text_put(out, octet);
        column += octet.len;
        content = next;
    }
    if (column > 0) {
        text_str(out, "\r\n");
    }
}
