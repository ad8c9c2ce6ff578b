#include "dns_name.h"

#define LABEL_MAX ((size_t)63)

static uint8_t lower(uint8_t c)
{
    return (uint8_t)bh_lower((char)c);
}

/* One octet of a label from text, escapes undone. False at a broken escape. */
static bool take_octet(struct bh_slice *text, uint8_t *octet)
{
    uint8_t c = (uint8_t)text->ptr[0];
    *text = bh_slice_skip(*text, 1);
    if (c != '\\') {
        *octet = c;
        return true;
    }
    if (text->len == 0) {
        return false;
    }
    uint64_t value = 0;
    if (!bh_is_digit(text->ptr[0])) {
        *octet = (uint8_t)text->ptr[0];
        *text = bh_slice_skip(*text, 1);
        return true;
    }
    if (text->len < 3 || !bh_slice_u64(bh_slice_take(*text, 3), 255, &value)) {
        return false;
    }
    *octet = (uint8_t)value;
    *text = bh_slice_skip(*text, 3);
    return true;
}

enum bh_status bh_dns_wire_from_text(struct bh_slice text, struct bh_dns_wire *wire)
{
    struct bh_dns_wire w = {0};
    if (bh_slice_eq(text, BH_LIT("."))) {
        text = BH_EMPTY;
    }
    while (text.len > 0) {
        const size_t length_at = w.len++;
        if (length_at >= BH_DNS_WIRE_MAX) {
            return BH_EINVAL;
        }
        while (text.len > 0 && text.ptr[0] != '.') {
            uint8_t octet = 0;
            if (!take_octet(&text, &octet) || w.len >= BH_DNS_WIRE_MAX) {
                return BH_EINVAL;
            }
            w.octets[w.len++] = lower(octet);
        }
        const size_t label_len = w.len - length_at - 1;
        if (label_len == 0 || label_len > LABEL_MAX) {
            return BH_EINVAL;
        }
        w.octets[length_at] = (uint8_t)label_len;
        text = bh_slice_skip(text, 1); /* the dot, if there is one */
    }
    if (w.len >= BH_DNS_WIRE_MAX) {
        return BH_EINVAL;
    }
    w.octets[w.len++] = 0;
    *wire = w;
    return BH_OK;
}

static enum bh_status put_octet(uint8_t c, struct bh_buf *out)
{
    char text[4] = {(char)c};
    size_t len = 1;
    if (c == '.' || c == '\\') {
        text[0] = '\\';
        text[1] = (char)c;
        len = 2;
    } else if (c <= ' ' || c >= 0x7f) {
        text[0] = '\\';
        text[1] = (char)('0' + c / 100);
        text[2] = (char)('0' + c / 10 % 10);
        text[3] = (char)('0' + c % 10);
        len = 4;
    }
    return bh_buf_add(out, bh_slice(text, len));
}

enum bh_status bh_dns_wire_to_text(const struct bh_dns_wire *wire, struct bh_buf *out)
{
    size_t at = 0;
    while (at < wire->len && wire->octets[at] > 0) {
        const size_t end = at + 1 + wire->octets[at];
        BH_ASSERT(end < wire->len);
        if (at > 0 && bh_buf_add(out, BH_LIT(".")) != BH_OK) {
            return BH_ELIMIT;
        }
        for (at++; at < end; at++) {
            if (put_octet(wire->octets[at], out) != BH_OK) {
                return BH_ELIMIT;
            }
        }
    }
    return BH_OK;
}

enum bh_status bh_dns_wire_read(struct bh_slice message, size_t *at, struct bh_dns_wire *wire)
{
    struct bh_dns_wire w = {0};
    size_t pos = *at;
    size_t part_start = pos; /* pointers must lead to before this */
    size_t after = 0;        /* behind the first pointer: where the name ends in the record */
    for (;;) {
        if (pos >= message.len) {
            return BH_EPROTO;
        }
        const uint8_t c = (uint8_t)message.ptr[pos];
        if (c >= 0xc0) {
            if (message.len - pos < 2) {
                return BH_EPROTO;
            }
            const size_t target = (size_t)(c & 0x3f) << 8 | (uint8_t)message.ptr[pos + 1];
            after = after == 0 ? pos + 2 : after;
            if (target >= part_start) {
                return BH_EPROTO;
            }
            pos = part_start = target;
            continue;
        }
        if (c > LABEL_MAX || message.len - pos < (size_t)c + 1 || w.len + c + 1 > BH_DNS_WIRE_MAX) {
            return BH_EPROTO;
        }
        w.octets[w.len++] = c;
        for (size_t i = 1; i <= c; i++) {
            w.octets[w.len++] = lower((uint8_t)message.ptr[pos + i]);
        }
        pos += (size_t)c + 1;
        if (c == 0) {
            break;
        }
    }
    *at = after == 0 ? pos : after;
    *wire = w;
    return BH_OK;
}

bool bh_dns_wire_eq(const struct bh_dns_wire *a, const struct bh_dns_wire *b)
{
    return a->len == b->len && memcmp(a->octets, b->octets, a->len) == 0;
}

enum bh_status bh_dns_name_normalise(struct bh_slice name, struct bh_buf *out)
{
    struct bh_dns_wire wire;
    if (bh_dns_wire_from_text(name, &wire) != BH_OK || bh_dns_wire_to_text(&wire, out) != BH_OK) {
        return BH_EINVAL;
    }
    return BH_OK;
}

bool bh_dns_name_is_host(struct bh_slice name)
{
    size_t label_len = 0;
    if (name.len == 0 || name.len > 253) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        const char c = name.ptr[i];
        if (c == '.') {
            if (label_len == 0) {
                return false;
            }
            label_len = 0;
        } else if (bh_is_alpha(c) || bh_is_digit(c) || c == '-' || c == '_') {
            if (++label_len > LABEL_MAX) {
                return false;
            }
        } else {
            return false;
        }
    }
    return label_len > 0;
}
