/* keys.h - the keys of the queue's databases. All integers big-endian, so that the order of keys is
 * the order of what they stand for. */
#pragma once

#include "bh/assert.h"
#include "bh/kv.h"
#include "bh/queue_types.h"
#include "bh/wire.h"

struct row_key {
    size_t len;
    char octets[32];
};

static inline struct bh_slice key_slice(const struct row_key *k)
{
    return bh_slice(k->octets, k->len);
}

/* message, fresh, open, job: id */
static inline struct row_key key_id(uint64_t id)
{
    struct row_key k = {.len = 8};
    bh_put_be64(k.octets, id);
    return k;
}

/* message: id, 1: what changes about a message. Sorts right behind the message. */
#define KEY_STATE_LEN 9
static inline struct row_key key_state(uint64_t id)
{
    struct row_key k = {.len = KEY_STATE_LEN};
    bh_put_be64(k.octets, id);
    k.octets[8] = 1;
    return k;
}

/* content: content id, chunk */
static inline struct row_key key_chunk(uint64_t content_id, uint32_t chunk)
{
    struct row_key k = {.len = 12};
    bh_put_be64(k.octets, content_id);
    bh_put_be32(k.octets + 8, chunk);
    return k;
}

/* entry, ready: destination, id, part */
#define KEY_ENTRY_LEN 14
static inline struct row_key key_entry(struct bh_queue_key e)
{
    struct row_key k = {.len = KEY_ENTRY_LEN};
    bh_put_be32(k.octets, e.destination);
    bh_put_be64(k.octets + 4, e.id);
    bh_put_be16(k.octets + 12, e.part);
    return k;
}

static inline bool key_entry_read(struct bh_slice key, struct bh_queue_key *e)
{
    if (key.len != KEY_ENTRY_LEN) {
        return false;
    }
    *e = (struct bh_queue_key){.destination = bh_get_be32(key.ptr),
                               .id = bh_get_be64(key.ptr + 4),
                               .part = bh_get_be16(key.ptr + 12)};
    return true;
}

/* due: destination, due ms, id, part */
#define KEY_DUE_LEN 22
static inline struct row_key key_due(struct bh_queue_key e, int64_t due_unix_ms)
{
    struct row_key k = {.len = KEY_DUE_LEN};
    bh_put_be32(k.octets, e.destination);
    bh_put_be64(k.octets + 4, (uint64_t)due_unix_ms);
    bh_put_be64(k.octets + 12, e.id);
    bh_put_be16(k.octets + 20, e.part);
    return k;
}

static inline bool key_due_read(struct bh_slice key, struct bh_queue_key *e, int64_t *due_unix_ms)
{
    if (key.len != KEY_DUE_LEN) {
        return false;
    }
    *e = (struct bh_queue_key){.destination = bh_get_be32(key.ptr),
                               .id = bh_get_be64(key.ptr + 12),
                               .part = bh_get_be16(key.ptr + 20)};
    *due_unix_ms = (int64_t)bh_get_be64(key.ptr + 4);
    return true;
}

/* history: destination, id, part, n */
static inline struct row_key key_history(struct bh_queue_key e, uint32_t n)
{
    struct row_key k = key_entry(e);
    bh_put_be32(k.octets + KEY_ENTRY_LEN, n);
    k.len = KEY_ENTRY_LEN + 4;
    return k;
}

/* destination: id */
static inline struct row_key key_destination(uint32_t id)
{
    struct row_key k = {.len = 4};
    bh_put_be32(k.octets, id);
    return k;
}

/* wake: next event ms, destination */
#define KEY_WAKE_LEN 12
static inline struct row_key key_wake(int64_t at_unix_ms, uint32_t destination)
{
    struct row_key k = {.len = KEY_WAKE_LEN};
    bh_put_be64(k.octets, (uint64_t)at_unix_ms);
    bh_put_be32(k.octets + 8, destination);
    return k;
}

/* destination_name: domain, NUL, connector. Fits: 255 + 1 + 128 octets. */
struct name_key {
    size_t len;
    char octets[BH_DOMAIN_MAX + 1 + BH_QUEUE_CONNECTOR_MAX];
};
_Static_assert(sizeof(((struct name_key *)0)->octets) <= BH_KV_KEY_MAX, "names must fit a key");

static inline struct name_key key_name(struct bh_slice domain, struct bh_slice connector)
{
    BH_ASSERT(domain.len <= BH_DOMAIN_MAX);
    BH_ASSERT(connector.len <= BH_QUEUE_CONNECTOR_MAX);
    struct name_key k;
    struct bh_buf buf = bh_buf(k.octets, sizeof(k.octets));
    bh_buf_put(&buf, domain);
    bh_buf_put_char(&buf, '\0');
    bh_buf_put(&buf, connector);
    k.len = buf.len;
    return k;
}
