#include "bh/slice.h"

#include <stdio.h>

#include "bh/buf.h"

int bh_slice_cmp(struct bh_slice a, struct bh_slice b)
{
    const size_t least = a.len < b.len ? a.len : b.len;
    const int order = least > 0 ? memcmp(a.ptr, b.ptr, least) : 0;
    if (order != 0) {
        return order;
    }
    return (a.len > b.len) - (a.len < b.len);
}

char bh_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

char bh_upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
}

bool bh_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool bh_is_alpha(char c)
{
    const char lower = bh_lower(c);
    return lower >= 'a' && lower <= 'z';
}

bool bh_slice_eq_nocase(struct bh_slice a, struct bh_slice b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (bh_lower(a.ptr[i]) != bh_lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

bool bh_slice_starts(struct bh_slice s, struct bh_slice prefix)
{
    return s.len >= prefix.len && bh_slice_eq(bh_slice_take(s, prefix.len), prefix);
}

bool bh_slice_starts_nocase(struct bh_slice s, struct bh_slice prefix)
{
    return s.len >= prefix.len && bh_slice_eq_nocase(bh_slice_take(s, prefix.len), prefix);
}

bool bh_slice_ends_nocase(struct bh_slice s, struct bh_slice suffix)
{
    return s.len >= suffix.len && bh_slice_eq_nocase(bh_slice_skip(s, s.len - suffix.len), suffix);
}

size_t bh_slice_find(struct bh_slice s, char c)
{
    const char *at = s.len > 0 ? memchr(s.ptr, c, s.len) : NULL;
    return at != NULL ? (size_t)(at - s.ptr) : s.len;
}

size_t bh_slice_find_slice(struct bh_slice s, struct bh_slice needle)
{
    for (size_t i = 0; needle.len > 0 && i + needle.len <= s.len; i++) {
        const char *at = memchr(s.ptr + i, needle.ptr[0], s.len - needle.len - i + 1);
        if (at == NULL) {
            break;
        }
        i = (size_t)(at - s.ptr);
        if (memcmp(at, needle.ptr, needle.len) == 0) {
            return i;
        }
    }
    return s.len;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct bh_slice bh_slice_trim(struct bh_slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s = bh_slice_skip(s, 1);
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1])) {
        s.len--;
    }
    return s;
}

bool bh_slice_u64(struct bh_slice s, uint64_t max, uint64_t *value)
{
    uint64_t sum = 0;
    if (s.len == 0) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (!bh_is_digit(s.ptr[i])) {
            return false;
        }
        const uint64_t digit = (uint64_t)(s.ptr[i] - '0');
        if (sum > (UINT64_MAX - digit) / 10 || sum * 10 + digit > max) {
            return false;
        }
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

struct bh_slice bh_slice_word(struct bh_slice *rest)
{
    while (rest->len > 0 && is_blank(rest->ptr[0])) {
        *rest = bh_slice_skip(*rest, 1);
    }
    size_t len = 0;
    while (len < rest->len && !is_blank(rest->ptr[len])) {
        len++;
    }
    const struct bh_slice word = bh_slice_take(*rest, len);
    *rest = bh_slice_skip(*rest, len);
    return word;
}

uint64_t bh_hash(struct bh_slice s, uint64_t seed)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ seed;
    for (size_t i = 0; i < s.len; i++) {
        h = (h ^ (unsigned char)s.ptr[i]) * UINT64_C(1099511628211);
    }
    h ^= h >> 32;
    h *= UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

enum bh_status bh_buf_add(struct bh_buf *buf, struct bh_slice s)
{
    if (bh_buf_room(buf) < s.len) {
        return BH_ELIMIT;
    }
    bh_buf_put(buf, s);
    return BH_OK;
}

size_t bh_buf_add_cut(struct bh_buf *buf, struct bh_slice s)
{
    const struct bh_slice cut = bh_slice_take(s, bh_buf_room(buf));
    bh_buf_put(buf, cut);
    return cut.len;
}

enum bh_status bh_buf_printf(struct bh_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int len =
        vsnprintf(buf->ptr != NULL ? buf->ptr + buf->len : NULL, bh_buf_room(buf), format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= bh_buf_room(buf)) {
        return BH_ELIMIT;
    }
    buf->len += (size_t)len;
    return BH_OK;
}

void bh_buf_consume(struct bh_buf *buf, size_t count)
{
    BH_ASSERT(count <= buf->len);
    buf->len -= count;
    if (buf->len > 0 && count > 0) {
        memmove(buf->ptr, buf->ptr + count, buf->len);
    }
}
