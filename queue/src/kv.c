#include "bh/kv.h"

#include "bh/assert.h"
#include "kv_backend.h"

const char *bh_kv_db_name(enum bh_kv_db db)
{
    static const char *const names[BH_KV_DB_COUNT] = {
        "message",     "content",          "fresh", "entry",  "ready", "due", "history",
        "destination", "destination_name", "wake",  "policy", "open",  "job", "meta"};
    BH_ASSERT((unsigned)db < BH_KV_DB_COUNT);
    return names[db];
}

void bh_kv_close(struct bh_kv *kv)
{
    if (kv != NULL) {
        kv->ops->close(kv);
    }
}

enum bh_status bh_kv_begin(struct bh_kv *kv, enum bh_kv_mode mode, struct bh_kv_txn *parent,
                           struct bh_kv_txn **txn)
{
    BH_ASSERT(parent == NULL || (parent->mode == BH_KV_WRITE && mode == BH_KV_WRITE));
    return kv->ops->begin(kv, mode, parent, txn);
}

enum bh_status bh_kv_commit(struct bh_kv_txn *txn)
{
    return txn->kv->ops->commit(txn);
}

void bh_kv_abort(struct bh_kv_txn *txn)
{
    txn->kv->ops->abort(txn);
}

static void check_key(struct bh_slice key)
{
    BH_ASSERT(key.len > 0);
    BH_ASSERT(key.len <= BH_KV_KEY_MAX);
}

enum bh_status bh_kv_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                         struct bh_slice *value)
{
    check_key(key);
    return txn->kv->ops->get(txn, db, key, value);
}

enum bh_status bh_kv_put(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                         struct bh_slice value, unsigned flags)
{
    BH_ASSERT(txn->mode == BH_KV_WRITE);
    check_key(key);
    return txn->kv->ops->put(txn, db, key, value, flags);
}

enum bh_status bh_kv_del(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key)
{
    BH_ASSERT(txn->mode == BH_KV_WRITE);
    check_key(key);
    return txn->kv->ops->del(txn, db, key);
}

enum bh_status bh_kv_room(struct bh_kv_txn *txn, size_t bytes)
{
    return txn->kv->ops->room(txn, bytes);
}

enum bh_status bh_kv_cursor_open(struct bh_kv_txn *txn, enum bh_kv_db db,
                                 struct bh_kv_cursor **cursor)
{
    return txn->kv->ops->cursor_open(txn, db, cursor);
}

void bh_kv_cursor_close(struct bh_kv_cursor *cursor)
{
    if (cursor != NULL) {
        cursor->txn->kv->ops->cursor_close(cursor);
    }
}

static enum bh_status move(struct bh_kv_cursor *cursor, enum kv_move how, struct bh_slice at,
                           struct bh_slice *key, struct bh_slice *value)
{
    return cursor->txn->kv->ops->cursor_move(cursor, (int)how, at, key, value);
}

enum bh_status bh_kv_first(struct bh_kv_cursor *cursor, struct bh_slice *key,
                           struct bh_slice *value)
{
    return move(cursor, KV_FIRST, BH_EMPTY, key, value);
}

enum bh_status bh_kv_last(struct bh_kv_cursor *cursor, struct bh_slice *key, struct bh_slice *value)
{
    return move(cursor, KV_LAST, BH_EMPTY, key, value);
}

enum bh_status bh_kv_seek(struct bh_kv_cursor *cursor, struct bh_slice at, struct bh_slice *key,
                          struct bh_slice *value)
{
    return at.len == 0 ? move(cursor, KV_FIRST, BH_EMPTY, key, value)
                       : move(cursor, KV_SEEK, at, key, value);
}

enum bh_status bh_kv_next(struct bh_kv_cursor *cursor, struct bh_slice *key, struct bh_slice *value)
{
    return move(cursor, KV_NEXT, BH_EMPTY, key, value);
}

enum bh_status bh_kv_prev(struct bh_kv_cursor *cursor, struct bh_slice *key, struct bh_slice *value)
{
    return move(cursor, KV_PREV, BH_EMPTY, key, value);
}
