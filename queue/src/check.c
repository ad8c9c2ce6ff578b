/* The checker: does everything agree with everything?
 *
 * Each kind of row is walked once, and what it points to is looked up; that nothing is left over on
 * the other side then follows from counting: if every entry that should have a marker has it, and
 * there are as many markers as such entries, no marker is without its entry. */
#include <stdio.h>

#include "queue_internal.h"

struct checking {
    struct bh_kv_txn *txn;
    void (*problem)(void *ctx, const char *text);
    void *ctx;
    struct bh_queue_check_result *result;
    struct bh_arena arena; /* of one row */
    uint64_t parts_fresh;
    uint64_t parts_entry;
    uint64_t open;   /* entries that messages say are left */
    uint64_t chunks; /* that messages and half-received ones say there are */
    uint64_t markers[BH_ENTRY_STATES];
    uint64_t history;
    uint64_t wakes;
    struct bh_destination at; /* whose entries are walked: as the record says */
    struct bh_arena at_arena;
    struct bh_destination seen; /* ... as the entries say */
    bool have_at;
};

static void report(struct checking *c, const char *format, ...) BH_PRINTF(2, 3);

static void report(struct checking *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    c->result->problems++;
    if (c->problem != NULL) {
        c->problem(c->ctx, text);
    }
}

#define ID(id) ((unsigned long long)(id))

/* Walk a database, one row at a time, copied into the arena. */
static enum bh_status each(struct checking *c, enum bh_kv_db db,
                           enum bh_status (*row)(struct checking *c, struct bh_slice key,
                                                 struct bh_slice value))
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(c->txn, db, &cursor);
    if (status != BH_OK) {
        return status;
    }
    struct bh_slice key;
    struct bh_slice value;
    status = bh_kv_first(cursor, &key, &value);
    while (status == BH_OK) {
        bh_arena_reset(&c->arena);
        status = row(c, key, value);
        if (status == BH_ECORRUPT || status == BH_EVERSION) {
            /* Something that it points to. The rows behind it are looked at all the same. */
            report(c, "%s: what a row leads to can't be read", bh_kv_db_name(db));
            status = BH_OK;
        }
        if (status == BH_OK) {
            status = bh_kv_next(cursor, &key, &value);
        }
    }
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status count_rows(struct checking *c, enum bh_kv_db db, uint64_t want,
                                 const char *what)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(c->txn, db, &cursor);
    if (status != BH_OK) {
        return status;
    }
    uint64_t count = 0;
    struct bh_slice key;
    struct bh_slice value;
    status = bh_kv_first(cursor, &key, &value);
    while (status == BH_OK) {
        count++;
        status = bh_kv_next(cursor, &key, &value);
    }
    bh_kv_cursor_close(cursor);
    if (status == BH_ENOTFOUND && count != want) {
        report(c, "%s: %llu rows, where %llu are accounted for", what, ID(count), ID(want));
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* @return BH_OK with *there, or an error of reading */
static enum bh_status exists(struct checking *c, enum bh_kv_db db, struct row_key key, bool *there)
{
    struct bh_slice value;
    const enum bh_status status = bh_kv_get(c->txn, db, key_slice(&key), &value);
    *there = status == BH_OK;
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* A record that can't be decoded is a problem of the store, not of reading it. */
static bool bad_record(struct checking *c, enum bh_status status, const char *what, uint64_t id)
{
    if (status == BH_ECORRUPT || status == BH_EVERSION) {
        report(c, "%s %llu can't be read: %s", what, ID(id), bh_status_name(status));
        return true;
    }
    return false;
}

/* ---- messages and content ---- */

static enum bh_status check_content(struct checking *c, const char *what, uint64_t id,
                                    uint64_t content_id, uint32_t chunks, uint64_t size)
{
    struct bh_kv_cursor *cursor;
    struct bh_slice key;
    struct bh_slice chunk;
    uint64_t octets = 0;
    uint32_t i = 0;
    enum bh_status status = bh_kv_cursor_open(c->txn, BH_KV_CONTENT, &cursor);
    if (status != BH_OK) {
        return status;
    }
    /* The rows there are, never as many as a damaged record may say. */
    const struct row_key first = key_chunk(content_id, 0);
    status = bh_kv_seek(cursor, key_slice(&first), &key, &chunk);
    for (; status == BH_OK && i < chunks; i++) {
        const struct row_key at = key_chunk(content_id, i);
        if (!bh_slice_eq(key, key_slice(&at))) {
            break;
        }
        if (chunk.len == 0 || chunk.len > BH_QUEUE_CHUNK ||
            (i + 1 < chunks && chunk.len != BH_QUEUE_CHUNK)) {
            report(c, "%s %llu: chunk %u has %zu octets", what, ID(id), i, chunk.len);
        }
        octets += chunk.len;
        c->chunks++;
        status = bh_kv_next(cursor, &key, &chunk);
    }
    bh_kv_cursor_close(cursor);
    if (status != BH_OK && status != BH_ENOTFOUND) {
        return status;
    }
    if (i < chunks) {
        report(c, "%s %llu: chunk %u of %u is missing", what, ID(id), i, chunks);
    }
    if (octets != size) {
        report(c, "%s %llu: %llu octets of content, %llu by its record", what, ID(id), ID(octets),
               ID(size));
    }
    c->result->content_bytes += octets;
    return BH_OK;
}

static enum bh_status check_state_row(struct checking *c, struct bh_slice key)
{
    bool there;
    const uint64_t id = bh_get_be64(key.ptr);
    const enum bh_status status = exists(c, BH_KV_MESSAGE, key_id(id), &there);
    if (status == BH_OK && !there) {
        report(c, "message %llu: its state is there, it is not", ID(id));
    }
    return status;
}

static enum bh_status check_message(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    (void)value;
    if (key.len == KEY_STATE_LEN) {
        return check_state_row(c, key);
    }
    if (key.len != 8) {
        report(c, "message: a key of %zu octets", key.len);
        return BH_OK;
    }
    const uint64_t id = bh_get_be64(key.ptr);
    struct bh_message m;
    enum bh_status status = message_load(c->txn, id, &c->arena, &m);
    if (bad_record(c, status, "message", id) || status != BH_OK) {
        return status == BH_ECORRUPT || status == BH_EVERSION ? BH_OK : status;
    }
    c->result->messages++;
    c->open += m.open;
    struct fresh_row fresh = {.part_count = 0};
    const enum bh_status fresh_status = fresh_load(c->txn, id, &c->arena, &fresh);
    uint32_t open = 0;
    for (uint32_t i = 0; i < m.part_count && status == BH_OK; i++) {
        const struct bh_queue_key part = {
            .destination = m.parts[i].destination, .id = id, .part = m.parts[i].part};
        bool in_entry;
        status = exists(c, BH_KV_ENTRY, key_entry(part), &in_entry);
        bool in_fresh = false;
        for (uint16_t f = 0; fresh_status == BH_OK && f < fresh.part_count; f++) {
            in_fresh |=
                fresh.parts[f].destination == part.destination && fresh.parts[f].part == part.part;
        }
        if (in_entry && in_fresh) {
            report(c, "message %llu: part %u is in both lanes", ID(id), part.part);
        }
        open += in_entry || in_fresh ? 1 : 0;
    }
    if (open != m.open || open == 0) {
        report(c, "message %llu: %u entries, %u by its record", ID(id), open, m.open);
    }
    return status == BH_OK
               ? check_content(c, "message", id, m.content_id, m.chunks, m.envelope.size)
               : status;
}

static enum bh_status check_open(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    struct open_row open;
    const enum bh_status status = record_open_decode(value, &open);
    if (key.len != 8 || status != BH_OK) {
        report(c, "open: a row that can't be read");
        return BH_OK;
    }
    const uint64_t id = bh_get_be64(key.ptr);
    return check_content(c, "half-received message", id, id, open.chunks, open.octets);
}

/* ---- the fresh lane ---- */

static enum bh_status check_fresh(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    if (key.len != 8) {
        report(c, "fresh: a key of %zu octets", key.len);
        return BH_OK;
    }
    const uint64_t id = bh_get_be64(key.ptr);
    struct fresh_row row;
    enum bh_status status = record_fresh_decode(value, &c->arena, &row);
    if (bad_record(c, status, "fresh", id)) {
        return BH_OK;
    }
    c->result->fresh++;
    bool there = false;
    if (status == BH_OK) {
        status = exists(c, BH_KV_MESSAGE, key_id(id), &there);
    }
    if (status == BH_OK && !there) {
        report(c, "fresh %llu: there is no such message", ID(id));
    }
    for (uint16_t i = 0; i < row.part_count && status == BH_OK; i++) {
        c->parts_fresh++;
        c->result->recipients += row.parts[i].recipient_count;
        status = exists(c, BH_KV_DESTINATION, key_destination(row.parts[i].destination), &there);
        if (status == BH_OK && !there) {
            report(c, "fresh %llu: destination %u does not exist", ID(id),
                   row.parts[i].destination);
        }
    }
    return status;
}

/* ---- entries, and the counts of their destinations ---- */

static void compare_destination(struct checking *c)
{
    if (!c->have_at) {
        return;
    }
    for (unsigned i = 0; i < BH_ENTRY_STATES; i++) {
        const struct bh_count *want = &c->seen.count[i];
        const struct bh_count *have = &c->at.count[i];
        if (want->entries != have->entries || want->bytes != have->bytes ||
            want->recipients != have->recipients) {
            report(c,
                   "destination %u: %llu %s entries (%llu octets, %llu recipients), by its "
                   "record %llu (%llu, %llu)",
                   c->at.id, ID(want->entries), bh_entry_state_name((enum bh_entry_state)i),
                   ID(want->bytes), ID(want->recipients), ID(have->entries), ID(have->bytes),
                   ID(have->recipients));
        }
    }
    for (unsigned i = 0; i < c->at.slot_count; i++) {
        if (c->at.slots[i].count != 0) { /* each entry seen was taken off */
            report(c, "destination %u: an arrival slot counts %u too many", c->at.id,
                   c->at.slots[i].count);
        }
    }
}

static enum bh_status enter_destination(struct checking *c, uint32_t id)
{
    compare_destination(c);
    bh_arena_reset(&c->at_arena);
    c->seen = (struct bh_destination){.id = id};
    c->at = (struct bh_destination){.id = id};
    c->have_at = true;
    const enum bh_status status = destination_load(c->txn, id, &c->at_arena, &c->at);
    if (status == BH_ENOTFOUND) {
        report(c, "destination %u has entries but no record", id);
        return BH_OK;
    }
    return bad_record(c, status, "destination", id) ? BH_OK : status;
}

static void take_off_slot(struct checking *c, const struct bh_entry *e)
{
    for (unsigned i = 0; i < c->at.slot_count; i++) {
        struct bh_arrival_slot *slot = &c->at.slots[i];
        if (slot->start_unix_ms <= e->arrival_unix_ms && e->arrival_unix_ms < slot->end_unix_ms &&
            slot->count > 0) {
            slot->count--;
            return;
        }
    }
    report(c, "entry %u/%llu/%u: no arrival slot counts it", e->key.destination, ID(e->key.id),
           e->key.part);
}

static enum bh_status check_marker(struct checking *c, const struct bh_entry *e)
{
    c->markers[e->state]++;
    if (e->state == BH_ENTRY_HELD) {
        return BH_OK;
    }
    bool there;
    const enum bh_status status =
        e->state == BH_ENTRY_READY ? exists(c, BH_KV_READY, key_entry(e->key), &there)
                                   : exists(c, BH_KV_DUE, key_due(e->key, e->due_unix_ms), &there);
    if (status == BH_OK && !there) {
        report(c, "entry %u/%llu/%u is %s but has no marker", e->key.destination, ID(e->key.id),
               e->key.part, bh_entry_state_name(e->state));
    }
    return status;
}

static enum bh_status check_history(struct checking *c, const struct bh_entry *e)
{
    const uint32_t kept =
        e->history_next < BH_QUEUE_HISTORY_MAX ? e->history_next : BH_QUEUE_HISTORY_MAX;
    enum bh_status status = BH_OK;
    for (uint32_t n = e->history_next - kept; n != e->history_next && status == BH_OK; n++) {
        bool there;
        status = exists(c, BH_KV_HISTORY, key_history(e->key, n), &there);
        c->history++;
        if (status == BH_OK && !there) {
            report(c, "entry %u/%llu/%u: decision record %u is missing", e->key.destination,
                   ID(e->key.id), e->key.part, n);
        }
    }
    return status;
}

static enum bh_status check_entry(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    struct bh_queue_key at;
    if (!key_entry_read(key, &at)) {
        report(c, "entry: a key of %zu octets", key.len);
        return BH_OK;
    }
    struct bh_entry e;
    enum bh_status status = record_entry_decode(value, &c->arena, &e);
    if (bad_record(c, status, "entry", at.id) || status != BH_OK) {
        return status == BH_ENOMEM ? status : BH_OK;
    }
    e.key = at;
    if (!c->have_at || c->at.id != at.destination) {
        status = enter_destination(c, at.destination);
    }
    c->parts_entry++;
    c->result->recipients += e.recipient_count;
    destination_count(&c->seen, &e);
    take_off_slot(c, &e);
    bool there = true;
    if (status == BH_OK) {
        status = exists(c, BH_KV_MESSAGE, key_id(at.id), &there);
    }
    if (status == BH_OK && !there) {
        report(c, "entry %u/%llu/%u: there is no such message", at.destination, ID(at.id), at.part);
    }
    if (status == BH_OK) {
        status = check_marker(c, &e);
    }
    return status == BH_OK ? check_history(c, &e) : status;
}

/* ---- destinations ---- */

static enum bh_status check_wake(struct checking *c, const struct bh_destination *d)
{
    int64_t first_due;
    enum bh_status status = bh_queue_first_due(c->txn, d->id, &first_due);
    const int64_t want = destination_has_wake(d) ? bh_destination_next_event(d, first_due) : -1;
    if (status == BH_OK && want != d->wake_unix_ms) {
        report(c, "destination %u: next event %lld, by its record %lld", d->id, (long long)want,
               (long long)d->wake_unix_ms);
    }
    if (status == BH_OK && d->wake_unix_ms >= 0) {
        bool there;
        c->wakes++;
        status = exists(c, BH_KV_WAKE, key_wake(d->wake_unix_ms, d->id), &there);
        if (status == BH_OK && !there) {
            report(c, "destination %u: its wake row is missing", d->id);
        }
    }
    return status;
}

static enum bh_status check_destination(struct checking *c, struct bh_slice key,
                                        struct bh_slice value)
{
    if (key.len != 4) {
        report(c, "destination: a key of %zu octets", key.len);
        return BH_OK;
    }
    struct bh_destination d;
    enum bh_status status = record_destination_decode(value, &d);
    d.id = bh_get_be32(key.ptr);
    if (bad_record(c, status, "destination", d.id)) {
        return BH_OK;
    }
    c->result->destinations++;
    uint32_t named = 0;
    status = bh_queue_find_destination(c->txn, d.domain, d.connector, &named);
    if (status == BH_ENOTFOUND || (status == BH_OK && named != d.id)) {
        report(c, "destination %u: its name leads to %u", d.id, named);
        status = BH_OK;
    }
    if (bh_destination_entries(&d) > 0) {
        /* That its entries are there was seen if there is a first one; the rest is in the counts.
         */
        struct bh_queue_item item;
        size_t count = 0;
        const enum bh_status listed = bh_queue_list_entries(c->txn, d.id, NULL, &item, 1, &count);
        if (listed < 0 && !bad_record(c, listed, "entries of destination", d.id)) {
            return listed;
        }
        if (count == 0) {
            report(c, "destination %u: %llu entries by its record, none there", d.id,
                   ID(bh_destination_entries(&d)));
        }
    }
    if ((d.empty_since_unix_ms == 0) != (bh_destination_entries(&d) > 0)) {
        report(c, "destination %u: empty since %lld with %llu entries", d.id,
               (long long)d.empty_since_unix_ms, ID(bh_destination_entries(&d)));
    }
    return status == BH_OK ? check_wake(c, &d) : status;
}

/* What these rows say is their owners' business; that they have a version is everybody's. */
static enum bh_status check_policy(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    if (value.len == 0 || value.ptr[0] == 0) {
        report(c, "policy row %.*s: no version", BH_FMT(bh_slice_take(key, 255)));
    }
    return BH_OK;
}

static enum bh_status check_job(struct checking *c, struct bh_slice key, struct bh_slice value)
{
    struct bh_job job;
    if (key.len != 8 || record_job_decode(value, &job) != BH_OK) {
        report(c, "job: a row that can't be read");
    }
    return BH_OK;
}

/* The highest id among the keys of a database, 0 for none; keys of another length are reported
 * where their rows are. */
static enum bh_status highest(struct checking *c, enum bh_kv_db db, uint64_t *id)
{
    struct bh_kv_cursor *cursor;
    struct bh_slice key;
    struct bh_slice value;
    enum bh_status status = bh_kv_cursor_open(c->txn, db, &cursor);
    *id = 0;
    if (status == BH_OK) {
        status = bh_kv_last(cursor, &key, &value);
        if (status == BH_OK && key.len >= 4) {
            *id = key.len >= 8 ? bh_get_be64(key.ptr) : bh_get_be32(key.ptr);
        }
        bh_kv_cursor_close(cursor);
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* No id may be given twice: the marks are at or above all that there are. */
static enum bh_status check_marks(struct checking *c)
{
    static const enum bh_kv_db with_ids[] = {BH_KV_MESSAGE, BH_KV_OPEN, BH_KV_JOB,
                                             BH_KV_DESTINATION};
    for (size_t i = 0; i < BH_COUNT(with_ids); i++) {
        const bool destination = with_ids[i] == BH_KV_DESTINATION;
        uint64_t id;
        uint64_t mark;
        enum bh_status status = highest(c, with_ids[i], &id);
        if (status == BH_OK) {
            status = destination ? queue_last_destination_id(c->txn, &mark)
                                 : queue_last_id(c->txn, &mark);
        }
        if (status == BH_ECORRUPT || (status == BH_OK && mark < id)) {
            report(c, "%s: id %llu is above the mark of those given", bh_kv_db_name(with_ids[i]),
                   ID(id));
        } else if (status != BH_OK) {
            return status;
        }
    }
    return BH_OK;
}

static enum bh_status check_all(struct checking *c)
{
    enum bh_status status = each(c, BH_KV_MESSAGE, check_message);
    if (status == BH_OK) {
        status = each(c, BH_KV_OPEN, check_open);
    }
    if (status == BH_OK) {
        status = each(c, BH_KV_FRESH, check_fresh);
    }
    if (status == BH_OK) {
        status = each(c, BH_KV_ENTRY, check_entry);
        compare_destination(c);
    }
    if (status == BH_OK) {
        status = each(c, BH_KV_DESTINATION, check_destination);
    }
    if (status == BH_OK) {
        status = each(c, BH_KV_POLICY, check_policy);
    }
    if (status == BH_OK) {
        status = each(c, BH_KV_JOB, check_job);
    }
    if (status == BH_OK) {
        status = check_marks(c);
    }
    c->result->entries = c->parts_fresh + c->parts_entry;
    if (status == BH_OK && c->open != c->result->entries) {
        report(c, "%llu entries in both lanes, %llu by the messages", ID(c->result->entries),
               ID(c->open));
    }
    const struct {
        enum bh_kv_db db;
        uint64_t want;
    } totals[] = {{BH_KV_READY, c->markers[BH_ENTRY_READY]},
                  {BH_KV_DUE, c->markers[BH_ENTRY_DUE]},
                  {BH_KV_CONTENT, c->chunks},
                  {BH_KV_HISTORY, c->history},
                  {BH_KV_WAKE, c->wakes},
                  {BH_KV_DESTINATION_NAME, c->result->destinations}};
    for (size_t i = 0; i < BH_COUNT(totals) && status == BH_OK; i++) {
        status = count_rows(c, totals[i].db, totals[i].want, bh_kv_db_name(totals[i].db));
    }
    return status;
}

enum bh_status bh_queue_check(struct bh_kv_txn *txn, void (*problem)(void *ctx, const char *text),
                              void *ctx, struct bh_queue_check_result *result)
{
    *result = (struct bh_queue_check_result){0};
    struct checking c = {.txn = txn, .problem = problem, .ctx = ctx, .result = result};
    bh_arena_init(&c.arena, WORK_ARENA);
    bh_arena_init(&c.at_arena, WORK_ARENA);
    const enum bh_status status = check_all(&c);
    bh_arena_fini(&c.arena);
    bh_arena_fini(&c.at_arena);
    return status;
}
