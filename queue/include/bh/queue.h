/* queue.h - the schema of the queue over a key-value store: what mail there is, where it goes, when
 * it is next looked at. Knows no SMTP session, DNS or configuration; has no clock, file or thread
 * of its own.
 *
 * One struct bh_queue belongs to one thread, the writer. Functions that take it want a write
 * transaction begun with bh_queue_begin. Functions that take only a transaction read, and may run
 * on any thread with a transaction of its own. After a function with a write transaction returned
 * an error other than those its comment calls "nothing changed", abort that (nested) transaction.
 *
 * Common results: BH_OK, BH_ENOMEM, BH_EIO, BH_EFULL, BH_ECORRUPT (a record is not as written). */
#pragma once

#include "bh/kv.h"
#include "bh/queue_types.h"
#include "bh/selection.h"

struct bh_queue;

struct bh_queue_limits {
    uint32_t fresh_max;    /* messages in the fresh lane; 0: BH_QUEUE_FRESH_MAX */
    uint32_t fresh_window; /* fresh parts of one destination; 0: 2,000 */
};

/** Open the queue in a store, creating what a new store lacks. Deletes half-received messages only
 * when bh_queue_sweep is called; counts the fresh lane (at most fresh_max rows).
 *
 * @param error  receives a sentence on failure, NUL-terminated
 * @return BH_OK; BH_EVERSION written by a newer version (nothing was touched); BH_ECORRUPT;
 *         BH_ENOMEM; BH_EIO; BH_EFULL */
BH_MUST_USE enum bh_status bh_queue_open(struct bh_kv *kv, const struct bh_queue_limits *limits,
                                         struct bh_queue **queue, char *error, size_t error_len);
/** Frees the queue, not the store. NULL is fine. */
void bh_queue_destroy(struct bh_queue *q);
/** For tools: is this store one that this version reads? @return as bh_queue_open; BH_ENOTFOUND if
 * it holds no queue yet */
BH_MUST_USE enum bh_status bh_queue_check_version(struct bh_kv_txn *txn, char *error,
                                                  size_t error_len);

/** Write transactions; nested with a parent, all or nothing within it. Through these, so that what
 * the queue remembers of the fresh lane follows. Results as bh_kv_begin and bh_kv_commit. */
BH_MUST_USE enum bh_status bh_queue_begin(struct bh_queue *q, struct bh_kv_txn *parent,
                                          struct bh_kv_txn **txn);
BH_MUST_USE enum bh_status bh_queue_commit(struct bh_queue *q, struct bh_kv_txn *txn);
void bh_queue_abort(struct bh_queue *q, struct bh_kv_txn *txn);
/** Messages in the fresh lane, as of the open transaction. */
uint32_t bh_queue_fresh_count(const struct bh_queue *q);

/* ---- Accepting mail ---------------------------------------------------------------------- */

enum bh_lane_hint { BH_HINT_FRESH_OK, BH_HINT_ENTRY };

struct bh_queue_group {
    struct bh_slice domain;    /* of the destination: lower-case A-label, or "[ip]" */
    struct bh_slice connector; /* its first-choice connector */
    const struct bh_recipient *recipients;
    size_t recipient_count; /* at least 1 */
    enum bh_lane_hint hint;
    struct bh_slice hold; /* not empty: the entries start held for this reason */
};

struct bh_queue_put {
    const struct bh_envelope *envelope;
    const struct bh_origin *origin;
    const struct bh_slice *content; /* pieces in order, none if open_id is given */
    size_t content_count;
    uint64_t open_id; /* content is what was appended under this id; 0: none */
    /** Called with the id before any content is written, so that a trace line in it can say the id:
     * it may change the octets of `content` and `head`, not their lengths. NULL: nobody needs it.
     */
    void (*stamp)(void *ctx, uint64_t id);
    void *stamp_ctx;
    struct bh_slice head; /* with open_id: goes over the first octets of its content; at most
                             BH_QUEUE_CHUNK, and no more than there is */
    const struct bh_queue_group *groups;
    size_t group_count; /* at least 1 */
    bool internal;      /* ours (a DSN): may use the reserve of space */
};

struct bh_queue_part {
    uint32_t destination;
    uint16_t part;
    uint16_t recipients;
    enum bh_lane lane;
    uint16_t group; /* index into groups */
    uint32_t first; /* index of its first recipient in that group */
};

struct bh_queue_put_result {
    uint64_t id;
    const struct bh_queue_part *parts; /* in the arena */
    size_t part_count;
};

/** Store a message. Groups of more than 100 recipients become several parts.
 *
 * @param arena  holds the result
 * @return BH_OK; BH_EFULL no room; BH_EINVAL a name that is too long, a group without recipients,
 *         content whose length is not envelope->size (nothing changed); BH_ENOTFOUND no such
 *         open_id (nothing changed); BH_ELIMIT more than 65,535 parts (nothing changed) */
BH_MUST_USE enum bh_status bh_queue_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                        const struct bh_queue_put *put, struct bh_now now,
                                        struct bh_arena *arena, struct bh_queue_put_result *result);

/** Begin a large message, whose chunks are committed as they arrive. */
BH_MUST_USE enum bh_status bh_queue_large_begin(struct bh_queue *q, struct bh_kv_txn *txn,
                                                struct bh_now now, uint64_t *open_id);
/** Append content. Every piece but the last is a multiple of BH_QUEUE_CHUNK octets.
 * @return BH_OK, BH_ENOTFOUND, BH_EFULL, BH_EINVAL after a piece that was no multiple */
BH_MUST_USE enum bh_status bh_queue_large_append(struct bh_queue *q, struct bh_kv_txn *txn,
                                                 uint64_t open_id, struct bh_slice content);
/** Give it up. At most `chunks_max` chunks go; BH_MORE: call again. BH_ENOTFOUND: it is gone. */
BH_MUST_USE enum bh_status bh_queue_large_discard(struct bh_queue *q, struct bh_kv_txn *txn,
                                                  uint64_t open_id, size_t chunks_max);
/** At start, before any large_begin: delete the half-received messages of an earlier process.
 * BH_MORE: commit and call again. */
BH_MUST_USE enum bh_status bh_queue_large_recover(struct bh_queue *q, struct bh_kv_txn *txn,
                                                  size_t chunks_max);

/* ---- Notices (DSNs) ---------------------------------------------------------------------- */

enum bh_notice_action {
    BH_NOTICE_FAILED,
    BH_NOTICE_DELAYED,
    BH_NOTICE_DELIVERED,
    BH_NOTICE_RELAYED,
    BH_NOTICE_EXPANDED,
};

struct bh_notice {
    enum bh_notice_action action;
    struct bh_recipient to;
    struct bh_outcome outcome;
    int64_t first_failure_unix_ms; /* 0 none */
    int64_t last_attempt_unix_ms;  /* 0 none */
};

/** Called inside the transaction that ends (or delays) recipients whose NOTIFY asks for a report,
 * before they are removed: the message and its content can be read with `txn`. It may put a DSN in
 * the same transaction (internal). The sender may be null: then there is nobody to tell, and what a
 * double bounce means is the hook's to decide. What it returns other than BH_OK fails the whole. */
typedef enum bh_status (*bh_queue_notify_hook)(void *ctx, struct bh_queue *q, struct bh_kv_txn *txn,
                                               const struct bh_message *message,
                                               const struct bh_notice *notices, size_t count);

struct bh_queue_notifier {
    bh_queue_notify_hook hook; /* NULL: nobody is told */
    void *ctx;
    struct bh_now now;
};

/* ---- Outcomes ----------------------------------------------------------------------------- */

enum bh_verdict {
    BH_VERDICT_KEEP,             /* still queued */
    BH_VERDICT_DELIVERED,        /* nobody to tell (the next hop tells, or nobody asked) */
    BH_VERDICT_DELIVERED_REPORT, /* final delivery here: "delivered" where NOTIFY=SUCCESS */
    BH_VERDICT_RELAYED,          /* to a host without DSN: "relayed" where NOTIFY=SUCCESS */
    BH_VERDICT_EXPANDED,         /* "expanded" where NOTIFY=SUCCESS */
    BH_VERDICT_BOUNCED,
    BH_VERDICT_EXPIRED,
    BH_VERDICT_CANCELLED, /* by an operator: nobody is told */
};

struct bh_settle_recipient {
    enum bh_verdict verdict;
    bool tried;     /* outcome holds what happened */
    bool charged;   /* counts as an attempt at this recipient */
    bool uncertain; /* the final dot was sent and no reply seen */
    struct bh_outcome outcome;
};

struct bh_settle {
    struct bh_queue_key key;
    enum bh_lane lane; /* where it was when leased; the other lane is tried too */
    const struct bh_settle_recipient *recipients; /* as many, and in the order, as the entry has */
    size_t recipient_count;
    bool charged;                  /* counts as an attempt of the entry */
    enum bh_entry_state remaining; /* where what remains goes */
    int64_t due_unix_ms;           /* BH_ENTRY_DUE */
    struct bh_slice reason;        /* BH_ENTRY_HELD */
    struct bh_slice decision;      /* appended to history; empty: none */
};

struct bh_settle_result {
    uint16_t removed;
    uint16_t remaining;
    bool message_gone; /* its last entry ended: content is deleted */
};

/** Apply what came of a lease to one entry. Mail of the fresh lane that remains untouched (all
 * KEEP, not tried, READY, no decision) stays fresh; else it becomes an entry.
 * @return BH_OK; BH_ENOTFOUND no such entry (nothing changed); BH_EINVAL another number of
 *         recipients (nothing changed) */
BH_MUST_USE enum bh_status bh_queue_settle(struct bh_queue *q, struct bh_kv_txn *txn,
                                           const struct bh_settle *settle,
                                           const struct bh_queue_notifier *notifier,
                                           struct bh_settle_result *result);

/** Move an entry to another connector's destination of the same or another domain. Not charged;
 * keeps its place by id, its state and its due time. If its destination is held, and the new one is
 * of the same domain and held for less long, the new one is held from then on as the old one is.
 * @param to  receives its new key
 * @return BH_OK, BH_ENOTFOUND (nothing changed), BH_EINVAL */
BH_MUST_USE enum bh_status bh_queue_rebind(struct bh_queue *q, struct bh_kv_txn *txn,
                                           struct bh_queue_key key, struct bh_slice domain,
                                           struct bh_slice connector, struct bh_now now,
                                           struct bh_queue_key *to);

/** What will come in for this destination's domain goes to another connector from now on: if the
 * destination is held, so is the other, as with bh_queue_rebind; it is created where it is missing.
 * @param to  receives its id; 0: nothing changed
 * @return BH_OK or BH_ENOTFOUND (no such destination) */
BH_MUST_USE enum bh_status bh_queue_carry_hold(struct bh_queue *q, struct bh_kv_txn *txn,
                                               uint32_t destination, struct bh_slice connector,
                                               struct bh_now now, uint32_t *to);

/** After a crash: these recipients may have been delivered. mask has bit i % 64 of mask[i / 64] for
 * recipient i. A fresh entry becomes a ready one. With `hold` not empty it is held for that reason.
 * @return BH_OK or BH_ENOTFOUND (nothing changed) */
BH_MUST_USE enum bh_status bh_queue_mark_uncertain(struct bh_queue *q, struct bh_kv_txn *txn,
                                                   struct bh_queue_key key, const uint64_t mask[2],
                                                   struct bh_slice hold, struct bh_slice decision,
                                                   struct bh_now now);
/** After a crash: the process died while it handled this message. The second time all its entries
 * are held. @param quarantined  whether that happened
 * @return BH_OK or BH_ENOTFOUND (nothing changed) */
BH_MUST_USE enum bh_status bh_queue_mark_crashed(struct bh_queue *q, struct bh_kv_txn *txn,
                                                 uint64_t id, struct bh_now now, bool *quarantined);

/* ---- Destinations -------------------------------------------------------------------------- */

/** The id of a destination, created if new. @return BH_OK, BH_EINVAL (a name too long), BH_ELIMIT
 */
BH_MUST_USE enum bh_status bh_queue_destination_for(struct bh_queue *q, struct bh_kv_txn *txn,
                                                    struct bh_slice domain,
                                                    struct bh_slice connector, struct bh_now now,
                                                    uint32_t *id);

/* What a change sets. */
enum {
    BH_SET_BACKOFF = 1, /* backoff_stage, glitches, next_event_unix_ms */
    BH_SET_LAST = 2,    /* last, last_unix_ms */
    BH_SET_SUCCESS = 4, /* last_success_unix_ms */
    BH_SET_HOLD = 8,    /* hold_reason, hold_by, hold_until_unix_ms */
    BH_CLEAR_HOLD = 16,
    BH_SET_PARK = 32, /* park_reason; next_event_unix_ms too */
    BH_CLEAR_PARK = 64,
    BH_SET_FLUSH = 128,   /* up to the newest id there is; also clears back-off */
    BH_CLEAR_FLUSH = 256, /* if it is still that of flush_up_to_id and flush_unix_ms */
    BH_END_HOLD = 512,    /* its time is over: if it is still held until hold_until_unix_ms */
    BH_SET_TLS = 2048,    /* last_tls; kept only beside BH_SET_LAST, now or earlier */
    BH_ADD_HOLD = 1024,   /* as BH_SET_HOLD, but one that holds it as long or longer stays */
};

struct bh_destination_change {
    unsigned set; /* bits above; hold and park may be set again to change their reason */
    uint32_t backoff_stage;
    uint32_t glitches;
    int64_t next_event_unix_ms;
    struct bh_outcome last;
    struct bh_slice last_tls;
    int64_t last_success_unix_ms;
    struct bh_slice hold_reason;
    struct bh_slice hold_by;
    int64_t hold_until_unix_ms; /* BH_QUEUE_NEVER: until released */
    struct bh_slice park_reason;
    uint64_t flush_up_to_id; /* BH_CLEAR_FLUSH: which flush is through */
    int64_t flush_unix_ms;
};

/** One record changes, and its wake row; no message does. @return BH_OK or BH_ENOTFOUND */
BH_MUST_USE enum bh_status bh_queue_destination_update(struct bh_queue *q, struct bh_kv_txn *txn,
                                                       uint32_t id,
                                                       const struct bh_destination_change *change,
                                                       struct bh_now now);
/** Delete destinations that have had no mail for a day, looking at up to `max` from where the last
 * call ended. @param deleted  how many */
BH_MUST_USE enum bh_status bh_queue_sweep(struct bh_queue *q, struct bh_kv_txn *txn, size_t max,
                                          struct bh_now now, size_t *deleted);

/* ---- The clock ------------------------------------------------------------------------------ */

/** Where a pass over due times stands; zero begins. */
struct bh_redate_pass {
    uint32_t destination;
    bool inside; /* of it: its due rows from the next three on */
    int64_t due_unix_ms;
    uint64_t due_id;
    uint16_t due_part;
};

/** Derive due times anew that were set by a clock which has since been stepped back (DESIGN 2,
 * promise 1): each wait that began in what is now the future begins now. Others stay.
 * @param rows_max  rows looked at, and room in `ids`
 * @param ids       receives the destinations of which something has changed
 * @return BH_OK the pass is done; BH_MORE commit, then call again with the same pass */
BH_MUST_USE enum bh_status bh_queue_redate_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                                 struct bh_now now, size_t rows_max,
                                                 struct bh_redate_pass *pass, uint32_t *ids,
                                                 size_t *count);
/** Has this queue seen a time later than now, by more than 5 minutes? From the newest id. */
BH_MUST_USE enum bh_status bh_queue_clock_is_behind(struct bh_kv_txn *txn, struct bh_now now,
                                                    bool *behind);

/* ---- Warnings and expiry ------------------------------------------------------------------- */

/** Where a pass over a destination stands; zero to begin one. */
struct bh_age_pass {
    uint64_t id;
    uint16_t part;
    bool null_class; /* private */
    bool begun;      /* private */
    bool stuck;      /* private */
};

struct bh_aged {
    struct bh_queue_key key;
    uint16_t recipients;
    bool sender_null;
};

struct bh_expire {
    uint32_t destination;
    int64_t expire_ms;         /* age at which mail with a sender ends; BH_QUEUE_NEVER: never */
    int64_t expire_null_ms;    /* ... and with a null sender */
    struct bh_outcome outcome; /* reported where a recipient has no outcome of its own */
    bool (*in_flight)(void *ctx, struct bh_queue_key key); /* skipped; NULL: none is */
    void *ctx;
    size_t rows_max;
};

/** End what is too old, oldest first. The caller has made sure that a bounce is due (an attempt
 * after expiry failed by their fault). Removed entries are told to `aged` (rows_max of them at
 * most).
 * @return BH_OK the pass is done; BH_MORE commit, then call again with the same pass;
 *         BH_ENOTFOUND no such destination */
BH_MUST_USE enum bh_status bh_queue_expire_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                                 const struct bh_expire *expire,
                                                 const struct bh_queue_notifier *notifier,
                                                 struct bh_age_pass *pass, struct bh_aged *aged,
                                                 size_t *aged_count);

struct bh_warn {
    uint32_t destination;
    int64_t warn_ms;
    struct bh_outcome outcome; /* as above */
    bool (*in_flight)(void *ctx, struct bh_queue_key key);
    void *ctx;
    size_t rows_max;
};

/** Warn senders of mail older than warn_ms, once. Results as above. */
BH_MUST_USE enum bh_status bh_queue_warn_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                               const struct bh_warn *warn,
                                               const struct bh_queue_notifier *notifier,
                                               struct bh_age_pass *pass, struct bh_aged *aged,
                                               size_t *aged_count);

/* ---- Bulk jobs ------------------------------------------------------------------------------ */

/** Durable once committed. up_to_id, id, created and counts are set here. @param id  receives it */
BH_MUST_USE enum bh_status bh_queue_job_create(struct bh_queue *q, struct bh_kv_txn *txn,
                                               const struct bh_job *job, struct bh_now now,
                                               uint64_t *id);

struct bh_job_slice {
    uint64_t job;
    size_t rows_max;                                       /* rows looked at */
    bool (*in_flight)(void *ctx, struct bh_queue_key key); /* NULL: none is */
    void *ctx;
    struct bh_outcome outcome; /* what BH_JOB_BOUNCE reports */
    /* Told of each entry acted upon; may be NULL. */
    void (*acted)(void *ctx, const struct bh_job *job, const struct bh_entry *entry);
};

/** @param job  receives the job after this slice, in the arena
 *  @return BH_OK it is done (it stays listed until removed), BH_MORE commit and call again,
 *          BH_ENOTFOUND no such job */
BH_MUST_USE enum bh_status bh_queue_job_slice(struct bh_queue *q, struct bh_kv_txn *txn,
                                              const struct bh_job_slice *slice,
                                              const struct bh_queue_notifier *notifier,
                                              struct bh_arena *arena, struct bh_job *job);
/** The next job after id `after` (0: the first). BH_ENOTFOUND: no more. */
BH_MUST_USE enum bh_status bh_queue_job_next(struct bh_kv_txn *txn, uint64_t after,
                                             struct bh_arena *arena, struct bh_job *job);
BH_MUST_USE enum bh_status bh_queue_job_remove(struct bh_queue *q, struct bh_kv_txn *txn,
                                               uint64_t id);
/** An entry that bulk jobs chose, and left alone because it was in flight; it is back. */
struct bh_job_follow {
    struct bh_queue_key key;
    enum bh_lane lane;    /* the other lane is tried too */
    const uint64_t *jobs; /* ids of those that chose it, in any order */
    size_t job_count;     /* 0: nobody knows; each that would choose it, whatever its state */
};

/** Carry out on it what these jobs, as far as they are still listed, mean for it, as if they had
 * met it when they chose it: it is held, cancelled or bounced; a hold that was taken back since, by
 * a release that is still listed, comes to nothing.
 * @return BH_OK; BH_ENOTFOUND no such entry (nothing changed) */
BH_MUST_USE enum bh_status bh_queue_jobs_follow(struct bh_queue *q, struct bh_kv_txn *txn,
                                                const struct bh_job_follow *follow,
                                                const struct bh_job_slice *slice,
                                                const struct bh_queue_notifier *notifier);
/** Remove the jobs that are done. */
BH_MUST_USE enum bh_status bh_queue_jobs_sweep(struct bh_queue *q, struct bh_kv_txn *txn);
/** At start: jobs that are done but left entries alone, which nobody has in flight any more, begin
 * anew. */
BH_MUST_USE enum bh_status bh_queue_jobs_reopen(struct bh_queue *q, struct bh_kv_txn *txn);

/* ---- Reading ------------------------------------------------------------------------------- */

/** @return BH_OK, BH_ENOTFOUND, BH_ENOMEM (arena), BH_ECORRUPT. Slices are copied into the arena.
 */
BH_MUST_USE enum bh_status bh_queue_read_message(struct bh_kv_txn *txn, uint64_t id,
                                                 struct bh_arena *arena,
                                                 struct bh_message *message);
/** From either lane. A fresh entry reads as ready and never tried. */
BH_MUST_USE enum bh_status bh_queue_read_entry(struct bh_kv_txn *txn, struct bh_queue_key key,
                                               struct bh_arena *arena, struct bh_entry *entry);
BH_MUST_USE enum bh_status bh_queue_read_destination(struct bh_kv_txn *txn, uint32_t id,
                                                     struct bh_arena *arena,
                                                     struct bh_destination *destination);
BH_MUST_USE enum bh_status bh_queue_find_destination(struct bh_kv_txn *txn, struct bh_slice domain,
                                                     struct bh_slice connector, uint32_t *id);
/** Content from `offset` on into the caller's buffer, as much as fits.
 * @return BH_OK; fewer octets than there was room means the end */
BH_MUST_USE enum bh_status bh_queue_read_content(struct bh_kv_txn *txn,
                                                 const struct bh_message *message, uint64_t offset,
                                                 struct bh_buf *out);
/** Decision records of an entry, oldest first. @return BH_OK with *count of them (0 to 8) */
BH_MUST_USE enum bh_status bh_queue_read_history(struct bh_kv_txn *txn, struct bh_queue_key key,
                                                 struct bh_arena *arena,
                                                 struct bh_slice decisions[BH_QUEUE_HISTORY_MAX],
                                                 size_t *count);

/* What a scheduler knows of an entry before it reads it. */
struct bh_queue_item {
    struct bh_queue_key key;
    enum bh_lane lane;
    enum bh_entry_state state;
    uint64_t size;
    int64_t arrival_unix_ms;
    int64_t due_unix_ms;
    uint64_t sender_hash;
    uint32_t attempts;
    uint16_t recipients;
    bool sender_null;
    bool uncertain;
};

/** Where hand-out of a destination stands; zero begins at the oldest. Lives in the caller's memory:
 * entries handed out keep their markers, so begin again when mail came back or arrived late, and
 * after the pass of a flush, which walks over due entries that are not its own. */
struct bh_refill_cursor {
    uint64_t ready_id;
    uint16_t ready_part;
    bool ready_begun;
    int64_t due_unix_ms;
    uint64_t due_id;
    uint16_t due_part;
    bool due_begun;
};

struct bh_refill {
    uint32_t destination;
    int64_t now_unix_ms;
    size_t items_max;
    uint64_t bytes_max;    /* of content; at least one item is given */
    unsigned ready_weight; /* items from ready for ... */
    unsigned due_weight;   /* ... these many from due; 0 and 0: 1 and 1 */
    uint64_t
        flush_up_to_id;    /* with these, due entries up to that id and not tried since that time */
    int64_t flush_unix_ms; /* are due whatever their time; 0: no flush */
    bool (*skip)(void *ctx, const struct bh_queue_item *item); /* leased already, or filtered */
    void *ctx;
    size_t rows_max; /* rows looked at; 0: no limit */
};

/** Entries to deliver next, from the entry lane: ready by id, due by time.
 * @return BH_OK nothing more after these, BH_MORE there is more, behind the cursor */
BH_MUST_USE enum bh_status bh_queue_refill(struct bh_kv_txn *txn, const struct bh_refill *refill,
                                           struct bh_refill_cursor *cursor,
                                           struct bh_queue_item *items, size_t *count);
/** When the first due entry of a destination is due; BH_QUEUE_NEVER for none. */
BH_MUST_USE enum bh_status bh_queue_first_due(struct bh_kv_txn *txn, uint32_t destination,
                                              int64_t *due_unix_ms);
/** The fresh lane in id order, after message `*id` (0: from the start), which is moved on. Up to
 * items_max entries; a message is never cut, so items_max is at least its parts.
 * @return BH_OK at the end, BH_MORE */
BH_MUST_USE enum bh_status bh_queue_scan_fresh(struct bh_kv_txn *txn, uint64_t *id,
                                               struct bh_queue_item *items, size_t items_max,
                                               size_t *count);
struct bh_queue_wake {
    int64_t at_unix_ms;
    uint32_t destination;
};
/** Destinations whose next event is at most `until`, earliest first, after *cursor if `after`.
 * @return BH_OK at the end, BH_MORE */
BH_MUST_USE enum bh_status bh_queue_scan_wake(struct bh_kv_txn *txn, int64_t until_unix_ms,
                                              const struct bh_queue_wake *after,
                                              struct bh_queue_wake *rows, size_t rows_max,
                                              size_t *count);
/** The earliest next event of all; BH_QUEUE_NEVER for none. */
BH_MUST_USE enum bh_status bh_queue_first_wake(struct bh_kv_txn *txn, int64_t *at_unix_ms);
/** Entries of a destination in id order after `after` (NULL: from the start). @return as above */
BH_MUST_USE enum bh_status bh_queue_list_entries(struct bh_kv_txn *txn, uint32_t destination,
                                                 const struct bh_queue_key *after,
                                                 struct bh_queue_item *items, size_t items_max,
                                                 size_t *count);
/** The next destination after id `after` (0: the first). BH_ENOTFOUND: no more. */
BH_MUST_USE enum bh_status bh_queue_next_destination(struct bh_kv_txn *txn, uint32_t after,
                                                     struct bh_arena *arena,
                                                     struct bh_destination *destination);
/** The same among those of one domain (written in any case). Costs what the domain has connectors,
 * not what the queue has destinations. */
BH_MUST_USE enum bh_status bh_queue_next_destination_of(struct bh_kv_txn *txn,
                                                        struct bh_slice domain, uint32_t after,
                                                        struct bh_arena *arena,
                                                        struct bh_destination *destination);
/** Entries matching a selection, fresh lane first, in bounded slices: for lists and dry runs.
 * Zero *cursor begins. Calls `found` for each match; `found` may return false to stop after it.
 * @return BH_OK at the end, BH_MORE */
struct bh_select_cursor {
    struct bh_queue_key at;
    bool fresh_done;
};
BH_MUST_USE enum bh_status bh_queue_select(struct bh_kv_txn *txn, const struct bh_selection *s,
                                           struct bh_select_cursor *cursor, size_t rows_max,
                                           bool (*found)(void *ctx,
                                                         const struct bh_message *message,
                                                         const struct bh_entry *entry),
                                           void *ctx);

/* ---- Small durable things of other rooms ------------------------------------------------------
 */

/** The policy database: octets by name (1 to 255 octets). */
BH_MUST_USE enum bh_status bh_queue_policy_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                               struct bh_slice name, struct bh_slice value);
/** @return BH_OK or BH_ENOTFOUND */
BH_MUST_USE enum bh_status bh_queue_policy_del(struct bh_queue *q, struct bh_kv_txn *txn,
                                               struct bh_slice name);
BH_MUST_USE enum bh_status bh_queue_policy_get(struct bh_kv_txn *txn, struct bh_slice name,
                                               struct bh_arena *arena, struct bh_slice *value);
/** The first after `after` (empty: the first of all). BH_ENOTFOUND: no more. */
BH_MUST_USE enum bh_status bh_queue_policy_next(struct bh_kv_txn *txn, struct bh_slice after,
                                                struct bh_arena *arena, struct bh_slice *name,
                                                struct bh_slice *value);

/* ---- The checker -------------------------------------------------------------------------------
 */

struct bh_queue_check_result {
    uint64_t problems;
    uint64_t messages;
    uint64_t entries; /* of both lanes */
    uint64_t fresh;   /* messages in the fresh lane */
    uint64_t recipients;
    uint64_t destinations;
    uint64_t content_bytes;
};

/** Does everything agree with everything: entries, markers, counts, wake rows, messages, content,
 * names, history? Reads the whole store.
 * @param problem  called with one sentence for each; may be NULL
 * @return BH_OK however many problems there are; else it could not be read */
BH_MUST_USE enum bh_status bh_queue_check(struct bh_kv_txn *txn,
                                          void (*problem)(void *ctx, const char *text), void *ctx,
                                          struct bh_queue_check_result *result);
