#include "bh/json_write.h"

#include <stdio.h>

#include "bh/utf8.h"

static void put(struct bh_json *j, struct bh_slice s)
{
    if (j->overflow || bh_buf_add(&j->buf, s) != BH_OK) {
        j->overflow = true;
    }
}

static void before_value(struct bh_json *j)
{
    if (j->comma) {
        put(j, BH_LIT(","));
    }
    j->comma = true;
}

void bh_json_begin_object(struct bh_json *j)
{
    before_value(j);
    put(j, BH_LIT("{"));
    j->comma = false;
}

void bh_json_end_object(struct bh_json *j)
{
    put(j, BH_LIT("}"));
    j->comma = true;
}

void bh_json_begin_array(struct bh_json *j)
{
    before_value(j);
    put(j, BH_LIT("["));
    j->comma = false;
}

void bh_json_end_array(struct bh_json *j)
{
    put(j, BH_LIT("]"));
    j->comma = true;
}

void bh_json_key(struct bh_json *j, const char *key)
{
    before_value(j);
    put(j, BH_LIT("\""));
    put(j, bh_slice_str(key));
    put(j, BH_LIT("\":"));
    j->comma = false;
}

/* How many octets at the front stand for themselves. */
static size_t plain_len(struct bh_slice s)
{
    size_t len = 0;
    while (len < s.len && s.ptr[len] >= 0x20 && s.ptr[len] < 0x7f && s.ptr[len] != '"' &&
           s.ptr[len] != '\\') {
        len++;
    }
    return len;
}

void bh_json_str(struct bh_json *j, struct bh_slice s)
{
    before_value(j);
    put(j, BH_LIT("\""));
    while (s.len > 0) {
        const struct bh_slice plain = bh_slice_take(s, plain_len(s));
        if (plain.len > 0) {
            put(j, plain);
            s = bh_slice_skip(s, plain.len);
            continue;
        }
        const unsigned char c = (unsigned char)s.ptr[0];
        size_t len = 1;
        if (c >= 0x80) {
            len = bh_utf8_len(s);
        }
        if (c == '"' || c == '\\') {
            const char escaped[2] = {'\\', (char)c};
            put(j, bh_slice(escaped, 2));
        } else if (c < 0x20 || c == 0x7f || len == 0) {
            char escaped[8];
            snprintf(escaped, sizeof(escaped), "\\u%04x", c);
            put(j, bh_slice(escaped, 6));
            len = 1;
        } else {
            put(j, bh_slice_take(s, len));
        }
        s = bh_slice_skip(s, len);
    }
    put(j, BH_LIT("\""));
}

void bh_json_latin1(struct bh_json *j, struct bh_slice octets)
{
    before_value(j);
    put(j, BH_LIT("\""));
    for (size_t i = 0; i < octets.len; i++) {
        const unsigned char c = (unsigned char)octets.ptr[i];
        char escaped[8];
        if (c == '"' || c == '\\' || c < 0x20 || c >= 0x7f) {
            snprintf(escaped, sizeof(escaped), "\\u%04x", c);
            put(j, bh_slice(escaped, 6));
        } else {
            put(j, bh_slice(&octets.ptr[i], 1));
        }
    }
    put(j, BH_LIT("\""));
}

void bh_json_cstr(struct bh_json *j, const char *s)
{
    bh_json_str(j, bh_slice_str(s));
}

/* By hand: an event has a dozen numbers, and printf takes five times as long. */
static void put_number(struct bh_json *j, bool negative, uint64_t v)
{
    char text[24];
    size_t at = sizeof(text);
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    if (negative) {
        text[--at] = '-';
    }
    before_value(j);
    put(j, bh_slice(text + at, sizeof(text) - at));
}

void bh_json_u64(struct bh_json *j, uint64_t v)
{
    put_number(j, false, v);
}

void bh_json_i64(struct bh_json *j, int64_t v)
{
    put_number(j, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void bh_json_bool(struct bh_json *j, bool v)
{
    before_value(j);
    put(j, v ? BH_LIT("true") : BH_LIT("false"));
}

void bh_json_null(struct bh_json *j)
{
    before_value(j);
    put(j, BH_LIT("null"));
}
