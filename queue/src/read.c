/* Reading for the scheduler and for lists: bounded pages, each from a key, none keeps a cursor. */
#include "queue_internal.h"

enum bh_status bh_queue_read_entry(struct bh_kv_txn *txn, struct bh_queue_key key,
                                   struct bh_arena *arena, struct bh_entry *entry)
{
    return any_load(txn, key, BH_LANE_ENTRY, arena, entry);
}

enum bh_status bh_queue_read_history(struct bh_kv_txn *txn, struct bh_queue_key key,
                                     struct bh_arena *arena,
                                     struct bh_slice decisions[BH_QUEUE_HISTORY_MAX], size_t *count)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_HISTORY, &cursor);
    if (status != BH_OK) {
        return status;
    }
    const struct row_key prefix = key_entry(key);
    struct bh_slice at;
    struct bh_slice value;
    *count = 0;
    status = bh_kv_seek(cursor, key_slice(&prefix), &at, &value);
    while (status == BH_OK && bh_slice_starts(at, key_slice(&prefix))) {
        if (*count == BH_QUEUE_HISTORY_MAX) {
            status = BH_ECORRUPT;
            break;
        }
        if (!bh_arena_copy(arena, value, &decisions[*count])) {
            status = BH_ENOMEM;
            break;
        }
        (*count)++;
        status = bh_kv_next(cursor, &at, &value);
    }
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* ---- hand-out ---- */

static void item_of(const struct bh_entry *e, struct bh_queue_item *item)
{
    *item = (struct bh_queue_item){
        .key = e->key,
        .lane = e->lane,
        .state = e->state,
        .size = e->size,
        .arrival_unix_ms = e->arrival_unix_ms,
        .due_unix_ms = e->due_unix_ms,
        .sender_hash = e->sender_hash,
        .attempts = e->attempts,
        .recipients = e->recipient_count,
        .sender_null = e->sender_null,
        .uncertain = e->uncertain,
    };
}

/* Head of the entry behind a marker, which must be there. */
static enum bh_status read_head(struct bh_kv_txn *txn, struct bh_queue_key key, struct bh_entry *e)
{
    const struct row_key k = key_entry(key);
    struct bh_slice row;
    const enum bh_status status = bh_kv_get(txn, BH_KV_ENTRY, key_slice(&k), &row);
    if (status != BH_OK) {
        return must_exist(status);
    }
    const enum bh_status decoded = record_entry_head(row, e);
    e->key = key;
    return decoded;
}

/* One of the two sources of a refill: a cursor over its markers. */
struct source {
    struct bh_kv_cursor *cursor;
    struct bh_slice key; /* of the marker that is next */
    bool ended;
};

struct refilling {
    struct bh_kv_txn *txn;
    const struct bh_refill *refill;
    struct bh_refill_cursor *at;
    struct source ready;
    struct source due;
    struct bh_queue_item *items;
    size_t count;
    uint64_t bytes;
    size_t rows;
};

static enum bh_status note(struct source *s, enum bh_status status)
{
    s->ended = status != BH_OK;
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status start(struct refilling *r, struct source *s, enum bh_kv_db db,
                            struct bh_slice from, bool past)
{
    struct bh_slice value;
    enum bh_status status = bh_kv_cursor_open(r->txn, db, &s->cursor);
    if (status == BH_OK) {
        status = bh_kv_seek(s->cursor, from, &s->key, &value);
    }
    if (status == BH_OK && past && bh_slice_eq(s->key, from)) {
        status = bh_kv_next(s->cursor, &s->key, &value);
    }
    return note(s, status);
}

static enum bh_status advance(struct source *s)
{
    struct bh_slice value;
    return note(s, bh_kv_next(s->cursor, &s->key, &value));
}

static bool ready_key(struct refilling *r, struct bh_queue_key *key)
{
    if (r->ready.ended || !key_entry_read(r->ready.key, key) ||
        key->destination != r->refill->destination) {
        r->ready.ended = true;
        return false;
    }
    return true;
}

static bool due_key(struct refilling *r, struct bh_queue_key *key, int64_t *due_unix_ms)
{
    if (r->due.ended || !key_due_read(r->due.key, key, due_unix_ms) ||
        key->destination != r->refill->destination ||
        (*due_unix_ms > r->refill->now_unix_ms && r->refill->flush_unix_ms == 0)) {
        r->due.ended = true;
        return false;
    }
    return true;
}

/* Markers up to here are done with, whether their entry was taken or left. */
static void pass(struct refilling *r, const struct bh_entry *e, bool from_ready,
                 int64_t due_unix_ms)
{
    if (from_ready) {
        r->at->ready_begun = true;
        r->at->ready_id = e->key.id;
        r->at->ready_part = e->key.part;
    } else {
        r->at->due_begun = true;
        r->at->due_unix_ms = due_unix_ms;
        r->at->due_id = e->key.id;
        r->at->due_part = e->key.part;
    }
}

/* @param full  set when the entry did not fit: it is the first of the next refill */
static enum bh_status take(struct refilling *r, struct bh_queue_key key, bool from_ready,
                           int64_t due_unix_ms, bool *taken, bool *full)
{
    struct bh_entry e = {0};
    const enum bh_status status = read_head(r->txn, key, &e);
    if (status != BH_OK) {
        return status;
    }
    r->rows++;
    const struct bh_refill *f = r->refill;
    const bool flushed = e.key.id <= f->flush_up_to_id && e.tried_unix_ms < f->flush_unix_ms;
    struct bh_queue_item item;
    item_of(&e, &item);
    *taken = (from_ready || due_unix_ms <= f->now_unix_ms || flushed) &&
             (f->skip == NULL || !f->skip(f->ctx, &item));
    *full =
        *taken && (r->count == f->items_max ||
                   (r->count > 0 && (r->bytes > f->bytes_max || e.size > f->bytes_max - r->bytes)));
    if (*full) {
        *taken = false;
        return BH_OK;
    }
    pass(r, &e, from_ready, due_unix_ms);
    if (*taken) {
        r->items[r->count++] = item;
        r->bytes += e.size;
    }
    return BH_OK;
}

/* The turn of one source: up to `weight` entries of it. */
static enum bh_status turn(struct refilling *r, bool from_ready, unsigned weight, bool *full)
{
    struct source *s = from_ready ? &r->ready : &r->due;
    enum bh_status status = BH_OK;
    for (unsigned given = 0; given < weight && status == BH_OK && !*full;) {
        struct bh_queue_key key;
        int64_t due_unix_ms = 0;
        const bool there = from_ready ? ready_key(r, &key) : due_key(r, &key, &due_unix_ms);
        if (!there) {
            break;
        }
        if (r->refill->rows_max > 0 && r->rows == r->refill->rows_max) {
            *full = true;
            break;
        }
        bool taken = false;
        status = take(r, key, from_ready, due_unix_ms, &taken, full);
        given += taken ? 1 : 0;
        if (status == BH_OK && !*full) {
            status = advance(s);
        }
    }
    return status;
}

static enum bh_status refill(struct refilling *r)
{
    const struct bh_refill *f = r->refill;
    const bool unweighted = f->ready_weight == 0 && f->due_weight == 0;
    const unsigned ready_weight = unweighted ? 1 : f->ready_weight;
    const unsigned due_weight = unweighted ? 1 : f->due_weight;
    const struct row_key ready = key_entry((struct bh_queue_key){
        .destination = f->destination, .id = r->at->ready_id, .part = r->at->ready_part});
    const struct row_key due = key_due((struct bh_queue_key){.destination = f->destination,
                                                             .id = r->at->due_id,
                                                             .part = r->at->due_part},
                                       r->at->due_unix_ms);
    enum bh_status status = start(r, &r->ready, BH_KV_READY, key_slice(&ready), r->at->ready_begun);
    if (status == BH_OK) {
        status = start(r, &r->due, BH_KV_DUE, key_slice(&due), r->at->due_begun);
    }
    bool full = false;
    r->ready.ended |= ready_weight == 0;
    r->due.ended |= due_weight == 0;
    while (status == BH_OK && !full && !(r->ready.ended && r->due.ended)) {
        status = turn(r, true, ready_weight, &full);
        if (status == BH_OK && !full) {
            status = turn(r, false, due_weight, &full);
        }
    }
    return status == BH_OK && full ? BH_MORE : status;
}

enum bh_status bh_queue_refill(struct bh_kv_txn *txn, const struct bh_refill *params,
                               struct bh_refill_cursor *cursor, struct bh_queue_item *items,
                               size_t *count)
{
    struct refilling r = {.txn = txn, .refill = params, .at = cursor, .items = items};
    const enum bh_status status = refill(&r);
    bh_kv_cursor_close(r.ready.cursor);
    bh_kv_cursor_close(r.due.cursor);
    *count = r.count;
    return status;
}

enum bh_status bh_queue_first_due(struct bh_kv_txn *txn, uint32_t destination, int64_t *due_unix_ms)
{
    const struct row_key from = key_due((struct bh_queue_key){.destination = destination}, 0);
    struct bh_slice key;
    struct bh_slice value;
    struct bh_queue_key found;
    *due_unix_ms = BH_QUEUE_NEVER;
    const enum bh_status status = row_seek(txn, BH_KV_DUE, key_slice(&from), &key, &value);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    int64_t due;
    if (!key_due_read(key, &found, &due)) {
        return BH_ECORRUPT;
    }
    if (found.destination == destination) {
        *due_unix_ms = due;
    }
    return BH_OK;
}

/* ---- scans ---- */

/* The parts of one row that fit. @return BH_MORE if they do not all fit (none is given then) */
static enum bh_status give_fresh(struct bh_slice row, uint64_t id, struct bh_arena *arena,
                                 struct bh_queue_item *items, size_t items_max, size_t *count)
{
    struct fresh_row fresh;
    const enum bh_status status = record_fresh_decode(row, arena, &fresh);
    if (status != BH_OK) {
        return status;
    }
    if (items_max - *count < fresh.part_count) {
        return BH_MORE;
    }
    for (uint16_t i = 0; i < fresh.part_count; i++) {
        const struct fresh_part *part = &fresh.parts[i];
        items[(*count)++] = (struct bh_queue_item){
            .key = {.destination = part->destination, .id = id, .part = part->part},
            .lane = BH_LANE_FRESH,
            .state = BH_ENTRY_READY,
            .size = fresh.size,
            .arrival_unix_ms = fresh.arrival_unix_ms,
            .sender_hash = fresh.sender_hash,
            .recipients = part->recipient_count,
            .sender_null = fresh.sender_null,
        };
    }
    return BH_OK;
}

enum bh_status bh_queue_scan_fresh(struct bh_kv_txn *txn, uint64_t *id, struct bh_queue_item *items,
                                   size_t items_max, size_t *count)
{
    BH_ASSERT(items_max >= FRESH_PARTS_MAX);
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_FRESH, &cursor);
    if (status != BH_OK) {
        return status;
    }
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    const struct row_key from = key_id(*id + 1);
    struct bh_slice key;
    struct bh_slice value;
    *count = 0;
    status = bh_kv_seek(cursor, key_slice(&from), &key, &value);
    while (status == BH_OK) {
        if (key.len != 8) {
            status = BH_ECORRUPT;
            break;
        }
        bh_arena_reset(&arena);
        const uint64_t at = bh_get_be64(key.ptr);
        status = give_fresh(value, at, &arena, items, items_max, count);
        if (status == BH_OK) {
            *id = at;
            status = bh_kv_next(cursor, &key, &value);
        }
    }
    bh_arena_fini(&arena);
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status bh_queue_scan_wake(struct bh_kv_txn *txn, int64_t until_unix_ms,
                                  const struct bh_queue_wake *after, struct bh_queue_wake *rows,
                                  size_t rows_max, size_t *count)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_WAKE, &cursor);
    if (status != BH_OK) {
        return status;
    }
    struct row_key from = {.len = 0};
    if (after != NULL) {
        from = key_wake(after->at_unix_ms, after->destination);
    }
    struct bh_slice key;
    struct bh_slice value;
    *count = 0;
    status = bh_kv_seek(cursor, key_slice(&from), &key, &value);
    if (status == BH_OK && after != NULL && bh_slice_eq(key, key_slice(&from))) {
        status = bh_kv_next(cursor, &key, &value);
    }
    while (status == BH_OK) {
        if (key.len != KEY_WAKE_LEN) {
            status = BH_ECORRUPT;
            break;
        }
        const struct bh_queue_wake row = {.at_unix_ms = (int64_t)bh_get_be64(key.ptr),
                                          .destination = bh_get_be32(key.ptr + 8)};
        if (row.at_unix_ms > until_unix_ms) {
            break;
        }
        if (*count == rows_max) {
            status = BH_MORE;
            break;
        }
        rows[(*count)++] = row;
        status = bh_kv_next(cursor, &key, &value);
    }
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

enum bh_status bh_queue_first_wake(struct bh_kv_txn *txn, int64_t *at_unix_ms)
{
    struct bh_queue_wake row = {.at_unix_ms = BH_QUEUE_NEVER};
    size_t count;
    const enum bh_status status = bh_queue_scan_wake(txn, BH_QUEUE_NEVER, NULL, &row, 1, &count);
    *at_unix_ms = row.at_unix_ms;
    return status == BH_MORE ? BH_OK : status;
}

enum bh_status bh_queue_list_entries(struct bh_kv_txn *txn, uint32_t destination,
                                     const struct bh_queue_key *after, struct bh_queue_item *items,
                                     size_t items_max, size_t *count)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_ENTRY, &cursor);
    if (status != BH_OK) {
        return status;
    }
    const struct row_key from =
        key_entry(after != NULL ? *after : (struct bh_queue_key){.destination = destination});
    struct bh_slice key;
    struct bh_slice value;
    *count = 0;
    status = bh_kv_seek(cursor, key_slice(&from), &key, &value);
    if (status == BH_OK && after != NULL && bh_slice_eq(key, key_slice(&from))) {
        status = bh_kv_next(cursor, &key, &value);
    }
    while (status == BH_OK) {
        struct bh_queue_key at;
        if (!key_entry_read(key, &at)) {
            status = BH_ECORRUPT;
            break;
        }
        if (at.destination != destination) {
            break;
        }
        if (*count == items_max) {
            status = BH_MORE;
            break;
        }
        struct bh_entry e;
        status = record_entry_head(value, &e);
        if (status == BH_OK) {
            e.key = at;
            item_of(&e, &items[(*count)++]);
            status = bh_kv_next(cursor, &key, &value);
        }
    }
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}
