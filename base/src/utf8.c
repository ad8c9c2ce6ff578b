#include "bh/utf8.h"

size_t bh_utf8_len(struct bh_slice s)
{
    if (s.len == 0) {
        return 0;
    }
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t len = 0;
    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
    }
    if (len == 0 || s.len < len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    const bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                     (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : len;
}

bool bh_utf8_valid(struct bh_slice s)
{
    while (s.len > 0) {
        const size_t len = bh_utf8_len(s);
        if (len == 0) {
            return false;
        }
        s = bh_slice_skip(s, len);
    }
    return true;
}

bool bh_is_ascii(struct bh_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] >= 0x80) {
            return false;
        }
    }
    return true;
}
