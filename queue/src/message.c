#include "queue_internal.h"

/* The row behind the message: absent as long as nothing about the message has changed. */
static enum bh_status load_state(struct bh_kv_txn *txn, struct bh_message *m)
{
    const struct row_key key = key_state(m->id);
    struct bh_slice row;
    enum bh_status status = bh_kv_get(txn, BH_KV_MESSAGE, key_slice(&key), &row);
    if (status == BH_ENOTFOUND) {
        return BH_OK;
    }
    struct message_state state;
    if (status == BH_OK) {
        status = record_state_decode(row, &state);
    }
    if (status == BH_OK) {
        m->open = state.open;
        m->crashes = state.crashes;
    }
    return status;
}

enum bh_status message_load(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                            struct bh_message *m)
{
    const struct row_key key = key_id(id);
    struct bh_slice row;
    enum bh_status status = row_get(txn, BH_KV_MESSAGE, key_slice(&key), arena, &row);
    if (status == BH_OK) {
        status = record_message_decode(row, arena, m);
        m->id = id;
    }
    return status == BH_OK ? load_state(txn, m) : status;
}

enum bh_status bh_queue_read_message(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                                     struct bh_message *message)
{
    return message_load(txn, id, arena, message);
}

enum bh_status message_save_state(struct bh_kv_txn *txn, const struct bh_message *m)
{
    const struct row_key key = key_state(m->id);
    const struct message_state state = {.open = m->open, .crashes = m->crashes};
    char row[RECORD_STATE_LEN];
    record_state_encode(&state, row);
    return bh_kv_put(txn, BH_KV_MESSAGE, key_slice(&key), bh_slice(row, sizeof(row)), 0);
}

enum bh_status content_erase(struct bh_kv_txn *txn, uint64_t content_id, uint32_t from,
                             uint32_t count)
{
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < count && status == BH_OK; i++) {
        const struct row_key key = key_chunk(content_id, from + i);
        status = must_exist(bh_kv_del(txn, BH_KV_CONTENT, key_slice(&key)));
    }
    return status;
}

static enum bh_status erase(struct bh_kv_txn *txn, const struct bh_message *m)
{
    struct row_key key = key_id(m->id);
    enum bh_status status = must_exist(bh_kv_del(txn, BH_KV_MESSAGE, key_slice(&key)));
    if (status == BH_OK) {
        key = key_state(m->id);
        status = bh_kv_del(txn, BH_KV_MESSAGE, key_slice(&key));
        status = status == BH_ENOTFOUND ? BH_OK : status;
    }
    return status == BH_OK ? content_erase(txn, m->content_id, 0, m->chunks) : status;
}

enum bh_status message_close_entry(struct bh_kv_txn *txn, const struct bh_message *m, bool *gone)
{
    if (m->open == 0) {
        return BH_ECORRUPT;
    }
    *gone = m->open == 1;
    if (*gone) {
        return erase(txn, m);
    }
    struct bh_message left = *m;
    left.open--;
    return message_save_state(txn, &left);
}

enum bh_status bh_queue_read_content(struct bh_kv_txn *txn, const struct bh_message *message,
                                     uint64_t offset, struct bh_buf *out)
{
    while (bh_buf_room(out) > 0 && offset < message->envelope.size) {
        const struct row_key key =
            key_chunk(message->content_id, (uint32_t)(offset / BH_QUEUE_CHUNK));
        struct bh_slice chunk;
        const enum bh_status status = bh_kv_get(txn, BH_KV_CONTENT, key_slice(&key), &chunk);
        if (status != BH_OK) {
            return must_exist(status);
        }
        const size_t skip = (size_t)(offset % BH_QUEUE_CHUNK);
        if (chunk.len <= skip) {
            return BH_ECORRUPT;
        }
        offset += bh_buf_add_cut(out, bh_slice_skip(chunk, skip));
    }
    return BH_OK;
}

/* ---- large messages: chunks are committed as they arrive ---- */

static enum bh_status open_load(struct bh_kv_txn *txn, uint64_t open_id, struct open_row *open)
{
    const struct row_key key = key_id(open_id);
    struct bh_slice row;
    const enum bh_status status = bh_kv_get(txn, BH_KV_OPEN, key_slice(&key), &row);
    return status == BH_OK ? record_open_decode(row, open) : status;
}

static enum bh_status open_save(struct bh_kv_txn *txn, uint64_t open_id,
                                const struct open_row *open)
{
    const struct row_key key = key_id(open_id);
    char row[RECORD_OPEN_LEN];
    record_open_encode(open, row);
    return bh_kv_put(txn, BH_KV_OPEN, key_slice(&key), bh_slice(row, sizeof(row)), 0);
}

enum bh_status bh_queue_large_begin(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_now now,
                                    uint64_t *open_id)
{
    (void)q;
    enum bh_status status = bh_kv_room(txn, BH_QUEUE_CHUNK);
    if (status == BH_OK) {
        status = queue_next_id(txn, now.unix_ms, open_id);
    }
    const struct open_row open = {.created_unix_ms = now.unix_ms};
    return status == BH_OK ? open_save(txn, *open_id, &open) : status;
}

enum bh_status bh_queue_large_append(struct bh_queue *q, struct bh_kv_txn *txn, uint64_t open_id,
                                     struct bh_slice content)
{
    (void)q;
    struct open_row open;
    enum bh_status status = open_load(txn, open_id, &open);
    if (status != BH_OK) {
        return status;
    }
    if (open.octets % BH_QUEUE_CHUNK != 0) {
        return BH_EINVAL;
    }
    status = bh_kv_room(txn, content.len);
    while (content.len > 0 && status == BH_OK) {
        const struct bh_slice chunk = bh_slice_take(content, BH_QUEUE_CHUNK);
        const struct row_key key = key_chunk(open_id, open.chunks);
        status = bh_kv_put(txn, BH_KV_CONTENT, key_slice(&key), chunk, 0);
        open.chunks++;
        open.octets += chunk.len;
        content = bh_slice_skip(content, chunk.len);
    }
    return status == BH_OK ? open_save(txn, open_id, &open) : status;
}

enum bh_status bh_queue_large_discard(struct bh_queue *q, struct bh_kv_txn *txn, uint64_t open_id,
                                      size_t chunks_max)
{
    (void)q;
    struct open_row open;
    enum bh_status status = open_load(txn, open_id, &open);
    if (status != BH_OK) {
        return status;
    }
    /* From the end, so that what is left is still a whole beginning. */
    const uint32_t count = open.chunks < chunks_max ? open.chunks : (uint32_t)chunks_max;
    open.chunks -= count;
    open.octets = (uint64_t)open.chunks * BH_QUEUE_CHUNK;
    status = content_erase(txn, open_id, open.chunks, count);
    if (status != BH_OK) {
        return status;
    }
    if (open.chunks > 0) {
        status = open_save(txn, open_id, &open);
        return status == BH_OK ? BH_MORE : status;
    }
    const struct row_key key = key_id(open_id);
    return must_exist(bh_kv_del(txn, BH_KV_OPEN, key_slice(&key)));
}

enum bh_status bh_queue_large_recover(struct bh_queue *q, struct bh_kv_txn *txn, size_t chunks_max)
{
    struct bh_slice key;
    struct bh_slice value;
    const enum bh_status status = row_seek(txn, BH_KV_OPEN, BH_EMPTY, &key, &value);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    if (key.len != 8) {
        return BH_ECORRUPT;
    }
    const enum bh_status discarded =
        bh_queue_large_discard(q, txn, bh_get_be64(key.ptr), chunks_max);
    return discarded == BH_OK ? BH_MORE : discarded;
}
