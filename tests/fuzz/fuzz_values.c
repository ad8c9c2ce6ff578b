/* Small things that are written in texts from outside: addresses, networks, dates, ids of messages,
 * base64, UTF-8, JSON. What is read and written again reads as the same; what is written from any
 * octets is read back by a parser that is not ours. The first octet picks which. */
#include <jansson.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/base64.h"
#include "bh/date.h"
#include "bh/ip.h"
#include "bh/json_write.h"
#include "bh/queue_id.h"
#include "bh/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_ip(struct bh_slice text)
{
    char out[BH_IP_TEXT_MAX];
    struct bh_ip ip;
    struct bh_ip again;
    struct bh_net net;
    if (bh_ip_parse(text, &ip)) {
        BH_ASSERT(bh_ip_parse(bh_slice_str(bh_ip_text(&ip, out)), &again));
        BH_ASSERT(bh_ip_eq(&ip, &again));
        const struct bh_ip plain = bh_ip_unmap(&ip);
        BH_ASSERT(plain.family == 4 || bh_ip_eq(&plain, &ip));
    }
    if (bh_net_parse(text, &net)) {
        BH_ASSERT(net.prefix_len <= (net.ip.family == 4 ? 32 : 128));
        BH_ASSERT(bh_net_contains(&net, &net.ip) || bh_ip_unmap(&net.ip).family != net.ip.family);
    }
}

static void on_date(struct bh_slice text)
{
    char out[BH_DATE_TEXT];
    int64_t at = 0;
    int64_t again = 0;
    if (bh_date_parse(text, &at)) {
        struct bh_slice iso = bh_slice_str(bh_date_iso(at, out));
        BH_ASSERT(bh_date_parse(bh_slice_take(iso, bh_slice_find(iso, '.')), &again));
        BH_ASSERT(at == again);
        const struct bh_date date = bh_date_of(at);
        BH_ASSERT(bh_date_unix_ms(&date) == at);
    }
}

static void on_id(struct bh_slice text)
{
    char out[BH_QUEUE_ID_TEXT];
    uint64_t id = 0;
    uint64_t again = 0;
    if (bh_queue_id_parse(text, &id)) {
        BH_ASSERT(bh_queue_id_parse(bh_slice_str(bh_queue_id_text(id, out)), &again));
        BH_ASSERT(id == again);
    }
    if (text.len >= sizeof(id)) {
        memcpy(&id, text.ptr, sizeof(id));
        BH_ASSERT(bh_queue_id_parse(bh_slice_str(bh_queue_id_text(id, out)), &again));
        BH_ASSERT(id == again);
    }
}

static void on_base64(struct bh_slice in)
{
    static char storage[2][1 << 16];
    struct bh_buf out = bh_buf(storage[0], sizeof(storage[0]));
    struct bh_buf back = bh_buf(storage[1], sizeof(storage[1]));
    if (bh_base64_encode(in, &out) == BH_OK) {
        BH_ASSERT(out.len == bh_base64_len(in.len));
        BH_ASSERT(bh_base64_decode(bh_buf_slice(&out), &back) == BH_OK);
        BH_ASSERT(bh_slice_eq(in, bh_buf_slice(&back)));
    }
    out.len = 0;
    back.len = 0;
    if (bh_base64_decode(in, &out) == BH_OK) {
        BH_ASSERT(bh_base64_encode(bh_buf_slice(&out), &back) == BH_OK);
        BH_ASSERT(bh_slice_eq(in, bh_buf_slice(&back))); /* the only text of these octets */
    }
}

/* jansson takes a text exactly if it is UTF-8 (and has no NUL, without a flag). */
static void on_utf8(struct bh_slice in)
{
    json_t *string = json_stringn(in.ptr, in.len);
    BH_ASSERT((string != NULL) == bh_utf8_valid(in));
    json_decref(string);
}

static void on_json(struct bh_slice in)
{
    static char storage[1 << 17];
    struct bh_json j = {.buf = bh_buf(storage, sizeof(storage))};
    bh_json_begin_object(&j);
    bh_json_key(&j, "text");
    bh_json_str(&j, in);
    bh_json_key(&j, "octets");
    bh_json_latin1(&j, in);
    bh_json_key(&j, "n");
    bh_json_i64(&j, (int64_t)bh_hash(in, 0));
    bh_json_end_object(&j);
    if (j.overflow) {
        return;
    }
    BH_ASSERT(memchr(j.buf.ptr, '\n', j.buf.len) == NULL); /* one line, whatever it holds */
    json_error_t error;
    json_t *object = json_loadb(j.buf.ptr, j.buf.len, JSON_ALLOW_NUL, &error);
    BH_ASSERT(object != NULL);
    const json_t *text = json_object_get(object, "text");
    BH_ASSERT(json_is_string(text));
    if (bh_utf8_valid(in)) {
        BH_ASSERT(bh_slice_eq(in, bh_slice(json_string_value(text), json_string_length(text))));
    }
    BH_ASSERT(json_integer_value(json_object_get(object, "n")) == (int64_t)bh_hash(in, 0));
    /* Octets above 127 are two of UTF-8. */
    const json_t *octets = json_object_get(object, "octets");
    size_t high = 0;
    for (size_t i = 0; i < in.len; i++) {
        high += (unsigned char)in.ptr[i] > 127 ? 1 : 0;
    }
    BH_ASSERT(json_string_length(octets) == in.len + high);
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(struct bh_slice) = {on_ip,     on_date, on_id,
                                                     on_base64, on_utf8, on_json};
    if (size > 0 && size < 1 << 14) {
        kinds[data[0] % BH_COUNT(kinds)](bh_slice(data + 1, size - 1));
    }
    return 0;
}
