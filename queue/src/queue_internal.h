/* queue_internal.h - what the sources of the schema share. */
#pragma once

#include "bh/map.h"
#include "bh/queue.h"
#include "keys.h"
#include "records.h"

#define SCHEMA_VERSION 1U
#define NEST_MAX 8                   /* nested transactions */
#define WORK_ARENA ((size_t)8 << 20) /* most octets that one operation needs at a time */

/* Fresh parts of one destination; destination 0 counts messages. Never on disk: writing counts of
 * destinations for mail that is gone in milliseconds was measured to be the larger cost. */
struct fresh_count {
    struct bh_map_node node; /* key: the id below */
    uint32_t destination;
    uint32_t count;
    bool dying; /* private to the end of a transaction */
};

struct fresh_delta {
    struct fresh_count *count;
    int32_t by;
};

struct bh_queue {
    struct bh_kv *kv;
    struct bh_queue_limits limits;
    struct bh_map fresh;         /* of struct fresh_count */
    struct fresh_delta *journal; /* what to take back should the transaction not commit */
    size_t journal_len;
    size_t journal_cap;
    size_t marks[NEST_MAX]; /* journal_len at each begin */
    unsigned depth;
    uint32_t sweep_cursor; /* destination last looked at */
};

/* ---- fresh_count.c ---- */

uint32_t fresh_count_get(const struct bh_queue *q, uint32_t destination);
enum bh_status fresh_count_add(struct bh_queue *q, uint32_t destination, int32_t by);
enum bh_status fresh_count_all(struct bh_queue *q, struct bh_kv_txn *txn);
void fresh_count_fini(struct bh_queue *q);

/* ---- queue.c ---- */

/* The next id of a message, above all given before, whatever the clock does. */
enum bh_status queue_next_id(struct bh_kv_txn *txn, int64_t now_unix_ms, uint64_t *id);
/* The newest id given; 0 for none. */
enum bh_status queue_last_id(struct bh_kv_txn *txn, uint64_t *id);
/* @return BH_ECORRUPT if the next id is somebody's already: the mark was lost */
enum bh_status queue_next_destination_id(struct bh_kv_txn *txn, uint32_t *id);
enum bh_status queue_last_destination_id(struct bh_kv_txn *txn, uint64_t *id);

/* A row copied into the arena. */
enum bh_status row_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                       struct bh_arena *arena, struct bh_slice *row);
/* BH_ENOTFOUND where a row must be means that the store is damaged. */
enum bh_status must_exist(enum bh_status status);
/* One row by a fresh cursor: the first at or above `at`. Borrowed, as from a cursor. */
enum bh_status row_seek(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice at,
                        struct bh_slice *key, struct bh_slice *value);

/* ---- destination.c ---- */

enum bh_status destination_load(struct bh_kv_txn *txn, uint32_t id, struct bh_arena *arena,
                                struct bh_destination *d);
/* Writes the record and brings its wake row in line. */
enum bh_status destination_save(struct bh_kv_txn *txn, struct bh_destination *d,
                                struct bh_arena *arena);
/* Existing or new (not yet saved: *created). */
enum bh_status destination_resolve(struct bh_kv_txn *txn, struct bh_slice domain,
                                   struct bh_slice connector, int64_t now_unix_ms,
                                   struct bh_arena *arena, struct bh_destination *d);
bool destination_has_wake(const struct bh_destination *d);
void destination_count(struct bh_destination *d, const struct bh_entry *e);
/* @return false: the record counts less than this one entry. The store is damaged */
BH_MUST_USE bool destination_uncount(struct bh_destination *d, const struct bh_entry *e,
                                     int64_t now_unix_ms);
/* Put an entry's arrival into a slot, or take it out. @return false if no slot has it */
void slots_add(struct bh_destination *d, int64_t arrival_unix_ms);
bool slots_remove(struct bh_destination *d, int64_t arrival_unix_ms);
/* Age passes begin again at this message. */
/* Of two destinations of one domain: mail moves from one to the other, and what holds it goes
 * along. A hold that lasts as long or longer stays. `to` borrows the words of `from`. */
void destination_take_hold(struct bh_destination *to, const struct bh_destination *from,
                           int64_t now_unix_ms);
void destination_rewind(struct bh_destination *d, uint64_t id);

/* ---- entry.c: rows of the entry lane; the caller saves d ---- */

enum bh_status entry_insert(struct bh_kv_txn *txn, struct bh_destination *d,
                            const struct bh_entry *e, struct bh_arena *arena);
/* History goes too, unless keep_history. */
enum bh_status entry_erase(struct bh_kv_txn *txn, struct bh_destination *d,
                           const struct bh_entry *e, bool keep_history, int64_t now_unix_ms);
/* From `was` (same key) to `e`. */
enum bh_status entry_replace(struct bh_kv_txn *txn, struct bh_destination *d,
                             const struct bh_entry *was, const struct bh_entry *e,
                             struct bh_arena *arena);
/* Keeps the books of held time when a state changes. */
void entry_set_state(struct bh_entry *e, const struct bh_destination *d, enum bh_entry_state state,
                     int64_t due_unix_ms, struct bh_slice reason, int64_t now_unix_ms);
enum bh_status history_append(struct bh_kv_txn *txn, struct bh_entry *e, struct bh_slice decision);
enum bh_status entry_load(struct bh_kv_txn *txn, struct bh_queue_key key, struct bh_arena *arena,
                          struct bh_entry *e);

/* ---- fresh.c ---- */

enum bh_status fresh_load(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                          struct fresh_row *row);
/* The part as an entry: ready, never tried. @return BH_OK, BH_ENOTFOUND, BH_ENOMEM */
enum bh_status fresh_entry(const struct fresh_row *row, struct bh_queue_key key,
                           struct bh_arena *arena, struct bh_entry *e);
/* Take a part out of the fresh lane. */
enum bh_status fresh_erase(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_queue_key key,
                           struct bh_arena *arena);
/* An entry of either lane; e->lane says which. */
enum bh_status any_load(struct bh_kv_txn *txn, struct bh_queue_key key, enum bh_lane first,
                        struct bh_arena *arena, struct bh_entry *e);
/* Write an entry that may have been fresh: out of that lane, into the entry lane. Saves d. */
enum bh_status any_store(struct bh_queue *q, struct bh_kv_txn *txn, struct bh_destination *d,
                         const struct bh_entry *was, struct bh_entry *e, struct bh_arena *arena);

/* ---- message.c ---- */

enum bh_status message_load(struct bh_kv_txn *txn, uint64_t id, struct bh_arena *arena,
                            struct bh_message *m);
/* One entry of the message has ended. @param gone  it was the last: message and content are deleted
 */
enum bh_status message_close_entry(struct bh_kv_txn *txn, const struct bh_message *m, bool *gone);
enum bh_status message_save_state(struct bh_kv_txn *txn, const struct bh_message *m);
enum bh_status content_erase(struct bh_kv_txn *txn, uint64_t content_id, uint32_t from,
                             uint32_t count);

/* ---- walk.c: candidates of a selection, one at a time, in both lanes ---- */

struct walk {
    const struct bh_selection *selection;
    struct bh_queue_key at; /* last one given; zero at the start */
    bool fresh_done;
    uint64_t up_to_id;     /* UINT64_MAX: any */
    struct bh_arena arena; /* of the entry and message given; reset at each step */
    struct bh_arena names; /* of the destination below */
    struct bh_destination destination;
    bool have_destination;
};

void walk_init(struct walk *w, const struct bh_selection *selection);
void walk_fini(struct walk *w);
/* The next entry that matches. `rows` is lowered by each row looked at.
 * @return BH_OK; BH_MORE rows ran out; BH_ENOTFOUND at the end */
enum bh_status walk_next(struct walk *w, struct bh_kv_txn *txn, size_t *rows,
                         struct bh_entry *entry, struct bh_message *message);
