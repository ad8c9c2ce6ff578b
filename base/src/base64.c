#include "bh/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum bh_status bh_base64_encode(struct bh_slice octets, struct bh_buf *out)
{
    if (octets.len > SIZE_MAX / 2 || bh_buf_room(out) < bh_base64_len(octets.len)) {
        return BH_ELIMIT;
    }
    const uint8_t *in = (const uint8_t *)octets.ptr;
    for (size_t i = 0; i < octets.len; i += 3) {
        const size_t left = octets.len - i;
        const uint32_t group = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)in[i + 2] : 0);
        bh_buf_put_char(out, digits[group >> 18]);
        bh_buf_put_char(out, digits[group >> 12 & 63]);
        bh_buf_put_char(out, left > 1 ? digits[group >> 6 & 63] : '=');
        bh_buf_put_char(out, left > 2 ? digits[group & 63] : '=');
    }
    return BH_OK;
}

/* @return 0 to 63, or -1 */
static int value_of(char c)
{
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* One group of four. @return octets, 0 for none */
static size_t decode_group(const char *in, bool last, char out[3])
{
    const size_t pad = last && in[3] == '=' ? (in[2] == '=' ? 2 : 1) : 0;
    uint32_t group = 0;
    for (size_t i = 0; i < 4; i++) {
        const int value = i < 4 - pad ? value_of(in[i]) : 0;
        if (value < 0) {
            return 0;
        }
        group = group << 6 | (uint32_t)value;
    }
    if ((pad == 1 && (group & 0xff) != 0) || (pad == 2 && (group & 0xffff) != 0)) {
        return 0; /* bits that no octet has */
    }
    out[0] = (char)(uint8_t)(group >> 16);
    out[1] = (char)(uint8_t)(group >> 8);
    out[2] = (char)(uint8_t)group;
    return 3 - pad;
}

enum bh_status bh_base64_decode(struct bh_slice text, struct bh_buf *out)
{
    const size_t before = out->len;
    if (text.len % 4 != 0) {
        return BH_EPROTO;
    }
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < text.len && status == BH_OK; i += 4) {
        char octets[3];
        const size_t len = decode_group(text.ptr + i, i + 4 == text.len, octets);
        status = len == 0 ? BH_EPROTO : bh_buf_add(out, bh_slice(octets, len));
    }
    if (status != BH_OK) {
        out->len = before;
    }
    return status;
}
