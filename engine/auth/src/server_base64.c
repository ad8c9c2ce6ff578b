#include "server_internal.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters, the last one or two of them perhaps '='. */
static bool decode_quad(const char *quad, bool last, char octets[3], size_t *count)
{
    const bool two = last && quad[3] == '=';
    const bool one = two && quad[2] == '=';
    uint32_t bits = 0;
    *count = one ? 1 : two ? 2 : 3;
    for (size_t i = 0; i < 4; i++) {
        const int value = i > *count ? 0 : value_of(quad[i]);
        if (value < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
    }
    for (size_t i = 0; i < 3; i++) {
        octets[i] = (char)(bits >> (16 - 8 * i) & 255);
    }
    return (one ? bits & 0xffff : two ? bits & 0xff : 0) == 0;
}

enum bh_status auth_base64_decode(struct bh_slice text, struct bh_buf *out)
{
    const size_t before = out->len;
    enum bh_status status = text.len % 4 == 0 ? BH_OK : BH_EINVAL;
    for (size_t i = 0; status == BH_OK && i < text.len; i += 4) {
        char octets[3];
        size_t count = 0;
        status = decode_quad(text.ptr + i, i + 4 == text.len, octets, &count)
                     ? bh_buf_add(out, bh_slice(octets, count))
                     : BH_EINVAL;
    }
    if (status != BH_OK) {
        out->len = before;
    }
    return status;
}

enum bh_status auth_base64_encode(struct bh_slice octets, struct bh_buf *out)
{
    if (bh_buf_room(out) < (octets.len + 2) / 3 * 4) {
        return BH_ELIMIT;
    }
    for (size_t i = 0; i < octets.len; i += 3) {
        const size_t count = octets.len - i < 3 ? octets.len - i : 3;
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++) {
            bits = bits << 8 | (j < count ? (uint32_t)(unsigned char)octets.ptr[i + j] : 0);
        }
        for (size_t j = 0; j < 4; j++) {
            bh_buf_put_char(out, j > count ? '=' : alphabet[bits >> (18 - 6 * j) & 63]);
        }
    }
    return BH_OK;
}
