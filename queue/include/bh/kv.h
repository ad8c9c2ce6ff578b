/* kv.h - a small ordered key-value store with transactions: what the queue's schema stands on.
 *
 * Two backends: LMDB (kv_lmdb.h) and one in memory that can fail and crash at any step
 * (kv_memory.h). One write transaction at a time, any number of read transactions, each of which
 * sees what was committed when it began. Keys are 1 to 511 octets in memcmp order.
 *
 * What get and the cursors return is borrowed from the store: until the next put or del in the same
 * transaction, or its end. Copy what must live longer. */
#pragma once

#include "bh/slice.h"
#include "bh/status.h"

#define BH_KV_KEY_MAX 511

enum bh_kv_db {
    BH_KV_MESSAGE,
    BH_KV_CONTENT,
    BH_KV_FRESH,
    BH_KV_ENTRY,
    BH_KV_READY,
    BH_KV_DUE,
    BH_KV_HISTORY,
    BH_KV_DESTINATION,
    BH_KV_DESTINATION_NAME,
    BH_KV_WAKE,
    BH_KV_POLICY,
    BH_KV_OPEN,
    BH_KV_JOB,
    BH_KV_META,
};
#define BH_KV_DB_COUNT 14

/** The name of a database in the file. Static storage. */
const char *bh_kv_db_name(enum bh_kv_db db);

enum bh_kv_mode { BH_KV_READ, BH_KV_WRITE };

/* Flags of put. */
enum {
    BH_KV_APPEND = 1, /* the key is probably above all others: a hint, never an error */
};

struct bh_kv;
struct bh_kv_txn;
struct bh_kv_cursor;

/* What a backend provides; its structs start with the ones below. */
struct bh_kv_ops {
    enum bh_status (*begin)(struct bh_kv *kv, enum bh_kv_mode mode, struct bh_kv_txn *parent,
                            struct bh_kv_txn **txn);
    enum bh_status (*commit)(struct bh_kv_txn *txn);
    void (*abort)(struct bh_kv_txn *txn);
    enum bh_status (*get)(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                          struct bh_slice *value);
    enum bh_status (*put)(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                          struct bh_slice value, unsigned flags);
    enum bh_status (*del)(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key);
    enum bh_status (*room)(struct bh_kv_txn *txn, size_t bytes);
    enum bh_status (*cursor_open)(struct bh_kv_txn *txn, enum bh_kv_db db,
                                  struct bh_kv_cursor **cursor);
    void (*cursor_close)(struct bh_kv_cursor *cursor);
    enum bh_status (*cursor_move)(struct bh_kv_cursor *cursor, int how, struct bh_slice seek,
                                  struct bh_slice *key, struct bh_slice *value);
    void (*close)(struct bh_kv *kv);
};

struct bh_kv {
    const struct bh_kv_ops *ops;
};

struct bh_kv_txn {
    struct bh_kv *kv;
    struct bh_kv_txn *parent; /* NULL for a top transaction */
    enum bh_kv_mode mode;
};

struct bh_kv_cursor {
    struct bh_kv_txn *txn;
    enum bh_kv_db db;
};

/** Close the store and free it; no transaction may be open. NULL is fine. */
void bh_kv_close(struct bh_kv *kv);

/** @param parent  NULL, or an open write transaction: the new one is nested in it, all of it or
 *                 nothing; the parent must rest until it ends. mode is then BH_KV_WRITE
 *  @return BH_OK, BH_ENOMEM, BH_EFULL, BH_EIO, BH_EBUSY (too many readers) */
BH_MUST_USE enum bh_status bh_kv_begin(struct bh_kv *kv, enum bh_kv_mode mode,
                                       struct bh_kv_txn *parent, struct bh_kv_txn **txn);
/** Ends the transaction whatever the result; on BH_OK it is durable (top) or part of its parent.
 *  @return BH_OK, BH_EFULL (no space: disk or map; nothing was committed) or BH_EIO (the store
 *          can't be trusted any more: stop) */
BH_MUST_USE enum bh_status bh_kv_commit(struct bh_kv_txn *txn);
/** End it without effect. Also how a read transaction ends. */
void bh_kv_abort(struct bh_kv_txn *txn);

/** @return BH_OK or BH_ENOTFOUND, BH_EIO */
BH_MUST_USE enum bh_status bh_kv_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                                     struct bh_slice *value);
/** Insert or replace. After an error the transaction (the nested one) must be aborted.
 *  @return BH_OK, BH_EFULL, BH_ENOMEM, BH_EIO */
BH_MUST_USE enum bh_status bh_kv_put(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                                     struct bh_slice value, unsigned flags);
/** @return BH_OK, BH_ENOTFOUND (nothing changed), else as put */
BH_MUST_USE enum bh_status bh_kv_del(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key);
/** Is there room for `bytes` of new mail besides the reserve that removals live on? Asked before
 * new mail is written, never before a removal. @return BH_OK or BH_EFULL */
BH_MUST_USE enum bh_status bh_kv_room(struct bh_kv_txn *txn, size_t bytes);

/** A cursor lives within its transaction and must be closed before it ends. After a put or del in
 * its database only first, last and seek may be called. */
BH_MUST_USE enum bh_status bh_kv_cursor_open(struct bh_kv_txn *txn, enum bh_kv_db db,
                                             struct bh_kv_cursor **cursor);
/** NULL is fine. */
void bh_kv_cursor_close(struct bh_kv_cursor *cursor);
/** All: BH_OK with *key and *value, or BH_ENOTFOUND past either end, or BH_EIO. */
BH_MUST_USE enum bh_status bh_kv_first(struct bh_kv_cursor *cursor, struct bh_slice *key,
                                       struct bh_slice *value);
BH_MUST_USE enum bh_status bh_kv_last(struct bh_kv_cursor *cursor, struct bh_slice *key,
                                      struct bh_slice *value);
/** The first key >= at. */
BH_MUST_USE enum bh_status bh_kv_seek(struct bh_kv_cursor *cursor, struct bh_slice at,
                                      struct bh_slice *key, struct bh_slice *value);
BH_MUST_USE enum bh_status bh_kv_next(struct bh_kv_cursor *cursor, struct bh_slice *key,
                                      struct bh_slice *value);
BH_MUST_USE enum bh_status bh_kv_prev(struct bh_kv_cursor *cursor, struct bh_slice *key,
                                      struct bh_slice *value);
