#include "queue_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define FRESH_WINDOW_DEFAULT 2000
#define ID_COUNTER_BITS 20 /* of an id: the rest is milliseconds, good for the next 500 years */

static struct bh_slice meta_schema(void)
{
    return BH_LIT("schema");
}

static struct bh_slice meta_id(void)
{
    return BH_LIT("id");
}

static struct bh_slice meta_destination(void)
{
    return BH_LIT("destination");
}

/* ---- rows ---- */

enum bh_status must_exist(enum bh_status status)
{
    return status == BH_ENOTFOUND ? BH_ECORRUPT : status;
}

enum bh_status row_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                       struct bh_arena *arena, struct bh_slice *row)
{
    struct bh_slice value;
    const enum bh_status status = bh_kv_get(txn, db, key, &value);
    if (status != BH_OK) {
        return status;
    }
    return bh_arena_copy(arena, value, row) ? BH_OK : BH_ENOMEM;
}

enum bh_status row_seek(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice at,
                        struct bh_slice *key, struct bh_slice *value)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, db, &cursor);
    if (status == BH_OK) {
        status = bh_kv_seek(cursor, at, key, value);
        bh_kv_cursor_close(cursor);
    }
    return status;
}

/* ---- numbers in meta ---- */

static enum bh_status meta_get(struct bh_kv_txn *txn, struct bh_slice name, uint64_t *value)
{
    struct bh_slice row;
    const enum bh_status status = bh_kv_get(txn, BH_KV_META, name, &row);
    if (status != BH_OK) {
        return status;
    }
    if (row.len != 8) {
        return BH_ECORRUPT;
    }
    *value = bh_get_be64(row.ptr);
    return BH_OK;
}

static enum bh_status meta_put(struct bh_kv_txn *txn, struct bh_slice name, uint64_t value)
{
    char row[8];
    bh_put_be64(row, value);
    return bh_kv_put(txn, BH_KV_META, name, bh_slice(row, sizeof(row)), 0);
}

enum bh_status queue_last_id(struct bh_kv_txn *txn, uint64_t *id)
{
    *id = 0;
    const enum bh_status status = meta_get(txn, meta_id(), id);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status queue_next_id(struct bh_kv_txn *txn, int64_t now_unix_ms, uint64_t *id)
{
    uint64_t last;
    const enum bh_status status = queue_last_id(txn, &last);
    if (status != BH_OK) {
        return status;
    }
    const uint64_t by_clock = now_unix_ms > 0 ? (uint64_t)now_unix_ms << ID_COUNTER_BITS : 0;
    *id = by_clock > last ? by_clock : last + 1;
    return meta_put(txn, meta_id(), *id);
}

int64_t bh_queue_id_unix_ms(uint64_t id)
{
    return (int64_t)(id >> ID_COUNTER_BITS);
}

enum bh_status queue_last_destination_id(struct bh_kv_txn *txn, uint64_t *id)
{
    *id = 0;
    const enum bh_status status = meta_get(txn, meta_destination(), id);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status queue_next_destination_id(struct bh_kv_txn *txn, uint32_t *id)
{
    uint64_t last;
    struct bh_slice row;
    enum bh_status status = queue_last_destination_id(txn, &last);
    if (status != BH_OK) {
        return status;
    }
    if (last >= UINT32_MAX) {
        return BH_ELIMIT;
    }
    *id = (uint32_t)last + 1;
    /* Where the mark was lost, the id is another destination's: its mail would become ours. */
    const struct row_key key = key_destination(*id);
    status = bh_kv_get(txn, BH_KV_DESTINATION, key_slice(&key), &row);
    if (status != BH_ENOTFOUND) {
        return status == BH_OK ? BH_ECORRUPT : status;
    }
    return meta_put(txn, meta_destination(), *id);
}

/* ---- opening ---- */

enum bh_status bh_queue_check_version(struct bh_kv_txn *txn, char *error, size_t error_len)
{
    uint64_t version;
    const enum bh_status status = meta_get(txn, meta_schema(), &version);
    if (status == BH_ENOTFOUND) {
        snprintf(error, error_len, "there is no queue in this store");
        return status;
    }
    if (status == BH_OK && version > SCHEMA_VERSION) {
        snprintf(error, error_len,
                 "the queue was written by a newer version of bridgehead (schema %llu, this one "
                 "reads up to %u): nothing was changed",
                 (unsigned long long)version, SCHEMA_VERSION);
        return BH_EVERSION;
    }
    if (status != BH_OK || version == 0) {
        snprintf(error, error_len, "the queue's schema version can't be read: %s",
                 bh_status_name(status == BH_OK ? BH_ECORRUPT : status));
        return status == BH_OK ? BH_ECORRUPT : status;
    }
    return BH_OK;
}

/* BH_ENOTFOUND of the version is a new store only if nothing else is there. */
static enum bh_status is_empty(struct bh_kv_txn *txn)
{
    enum bh_status status = BH_ENOTFOUND;
    for (int db = 0; db < BH_KV_DB_COUNT && status == BH_ENOTFOUND; db++) {
        struct bh_kv_cursor *cursor;
        struct bh_slice key;
        struct bh_slice value;
        status = bh_kv_cursor_open(txn, (enum bh_kv_db)db, &cursor);
        if (status == BH_OK) {
            status = bh_kv_first(cursor, &key, &value);
            bh_kv_cursor_close(cursor);
        }
    }
    return status == BH_ENOTFOUND ? BH_OK : status == BH_OK ? BH_ECORRUPT : status;
}

static enum bh_status first_use(struct bh_queue *q)
{
    struct bh_kv_txn *txn;
    enum bh_status status = bh_queue_begin(q, NULL, &txn);
    if (status != BH_OK) {
        return status;
    }
    status = is_empty(txn);
    if (status == BH_OK) {
        status = meta_put(txn, meta_schema(), SCHEMA_VERSION);
    }
    if (status != BH_OK) {
        bh_queue_abort(q, txn);
        return status;
    }
    return bh_queue_commit(q, txn);
}

static enum bh_status load(struct bh_queue *q, char *error, size_t error_len)
{
    struct bh_kv_txn *txn;
    enum bh_status status = bh_kv_begin(q->kv, BH_KV_READ, NULL, &txn);
    if (status != BH_OK) {
        snprintf(error, error_len, "the queue can't be read: %s", bh_status_name(status));
        return status;
    }
    status = bh_queue_check_version(txn, error, error_len);
    if (status == BH_OK) {
        status = fresh_count_all(q, txn);
        if (status != BH_OK) {
            snprintf(error, error_len, "the queue's fresh lane can't be read: %s",
                     bh_status_name(status));
        }
    }
    bh_kv_abort(txn);
    if (status == BH_ENOTFOUND) {
        status = first_use(q);
        if (status != BH_OK) {
            snprintf(error, error_len, "the queue can't be created: %s", bh_status_name(status));
        }
    }
    return status;
}

enum bh_status bh_queue_open(struct bh_kv *kv, const struct bh_queue_limits *limits,
                             struct bh_queue **queue, char *error, size_t error_len)
{
    struct bh_queue *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        snprintf(error, error_len, "out of memory");
        return BH_ENOMEM;
    }
    q->kv = kv;
    q->limits = *limits;
    if (q->limits.fresh_max == 0) {
        q->limits.fresh_max = BH_QUEUE_FRESH_MAX;
    }
    if (q->limits.fresh_window == 0) {
        q->limits.fresh_window = FRESH_WINDOW_DEFAULT;
    }
    const enum bh_status status = load(q, error, error_len);
    if (status != BH_OK) {
        bh_queue_destroy(q);
        return status;
    }
    *queue = q;
    return BH_OK;
}

void bh_queue_destroy(struct bh_queue *q)
{
    if (q != NULL) {
        BH_ASSERT(q->depth == 0);
        fresh_count_fini(q);
        free(q);
    }
}
