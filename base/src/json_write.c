#include "bh/json_write.h"

#include <inttypes.h>
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

void bh_json_str(struct bh_json *j, struct bh_slice s)
{
    before_value(j);
    put(j, BH_LIT("\""));
    while (s.len > 0) {
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

void bh_json_u64(struct bh_json *j, uint64_t v)
{
    char text[24];
    before_value(j);
    put(j, bh_slice(text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, v)));
}

void bh_json_i64(struct bh_json *j, int64_t v)
{
    char text[24];
    before_value(j);
    put(j, bh_slice(text, (size_t)snprintf(text, sizeof(text), "%" PRId64, v)));
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
