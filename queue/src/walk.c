/* The candidates of a selection, one at a time, each found anew from the key of the last, so that
 * rows may change between steps. With ids: by id, then by the parts that the message lists. Else:
 * the fresh lane by id, then the entry lane by destination; a destination that can't match is
 * skipped. */
#include "queue_internal.h"

void walk_init(struct walk *w, const struct bh_selection *selection)
{
    *w = (struct walk){.selection = selection, .up_to_id = UINT64_MAX};
    bh_arena_init(&w->arena, WORK_ARENA);
    bh_arena_init(&w->names, WORK_ARENA);
}

void walk_fini(struct walk *w)
{
    bh_arena_fini(&w->arena);
    bh_arena_fini(&w->names);
}

static enum bh_status name_destination(struct walk *w, struct bh_kv_txn *txn, uint32_t id)
{
    if (w->have_destination && w->destination.id == id) {
        return BH_OK;
    }
    bh_arena_reset(&w->names);
    w->have_destination = false;
    const enum bh_status status = destination_load(txn, id, &w->names, &w->destination);
    w->have_destination = status == BH_OK;
    return must_exist(status);
}

static struct bh_queue_key after(struct bh_queue_key key)
{
    if (key.part < UINT16_MAX) {
        key.part++;
    } else {
        key.part = 0;
        key.id++;
    }
    return key;
}

/* ---- by ids ---- */

static uint64_t least_id(const struct bh_selection *s, uint64_t from)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < s->id_count; i++) {
        if (s->ids[i] >= from && s->ids[i] < least) {
            least = s->ids[i];
        }
    }
    return least;
}

/* The place in the message's list behind the entry given last. */
static uint32_t next_part(const struct walk *w, const struct bh_message *m)
{
    for (uint32_t i = 0; i < m->part_count && w->at.id == m->id; i++) {
        if (m->parts[i].destination == w->at.destination && m->parts[i].part == w->at.part) {
            return i + 1;
        }
    }
    return 0;
}

static enum bh_status next_by_id(struct walk *w, struct bh_kv_txn *txn, struct bh_entry *e)
{
    uint64_t id = least_id(w->selection, w->at.id);
    while (id != UINT64_MAX) {
        struct bh_message m;
        bh_arena_reset(&w->arena);
        enum bh_status status = message_load(txn, id, &w->arena, &m);
        const uint32_t first = status == BH_OK ? next_part(w, &m) : 0;
        for (uint32_t i = first; status == BH_OK && i < m.part_count; i++) {
            const struct bh_queue_key key = {
                .destination = m.parts[i].destination, .id = id, .part = m.parts[i].part};
            status = any_load(txn, key, BH_LANE_ENTRY, &w->arena, e);
            if (status == BH_OK) {
                return BH_OK;
            }
            status = status == BH_ENOTFOUND ? BH_OK : status; /* that part has ended */
        }
        if (status != BH_OK && status != BH_ENOTFOUND) {
            return status;
        }
        id = id == UINT64_MAX - 1 ? UINT64_MAX : least_id(w->selection, id + 1);
    }
    return BH_ENOTFOUND;
}

/* ---- by lanes ---- */

/* Of the row of message `id`, the first part in the order (part) after the last one given. */
static enum bh_status first_fresh_part(struct walk *w, const struct fresh_row *row, uint64_t id,
                                       struct bh_entry *e)
{
    const struct fresh_part *best = NULL;
    for (uint16_t i = 0; i < row->part_count; i++) {
        const struct fresh_part *part = &row->parts[i];
        const bool passed = id == w->at.id && part->part <= w->at.part;
        if (!passed && (best == NULL || part->part < best->part)) {
            best = part;
        }
    }
    if (best == NULL) {
        return BH_ENOTFOUND;
    }
    const struct bh_queue_key key = {
        .destination = best->destination, .id = id, .part = best->part};
    return fresh_entry(row, key, &w->arena, e);
}

static enum bh_status next_fresh(struct walk *w, struct bh_kv_txn *txn, struct bh_entry *e)
{
    uint64_t from = w->at.id;
    for (;;) {
        const struct row_key at = key_id(from);
        struct bh_slice key;
        struct bh_slice value;
        struct bh_slice copy;
        enum bh_status status = row_seek(txn, BH_KV_FRESH, key_slice(&at), &key, &value);
        if (status != BH_OK) {
            return status;
        }
        if (key.len != 8) {
            return BH_ECORRUPT;
        }
        const uint64_t id = bh_get_be64(key.ptr);
        bh_arena_reset(&w->arena);
        if (!bh_arena_copy(&w->arena, value, &copy)) {
            return BH_ENOMEM;
        }
        struct fresh_row row;
        status = record_fresh_decode(copy, &w->arena, &row);
        if (status != BH_OK) {
            return status;
        }
        status = first_fresh_part(w, &row, id, e);
        if (status != BH_ENOTFOUND) {
            return status;
        }
        from = id + 1;
    }
}

/* Skips destinations that can't match. */
static enum bh_status next_entry(struct walk *w, struct bh_kv_txn *txn, size_t *rows,
                                 struct bh_entry *e)
{
    struct bh_queue_key from = after(w->at);
    for (;;) {
        const struct row_key at = key_entry(from);
        struct bh_slice key;
        struct bh_slice value;
        struct bh_slice copy;
        struct bh_queue_key found;
        enum bh_status status = row_seek(txn, BH_KV_ENTRY, key_slice(&at), &key, &value);
        if (status != BH_OK) {
            return status;
        }
        if (!key_entry_read(key, &found)) {
            return BH_ECORRUPT;
        }
        bh_arena_reset(&w->arena);
        if (!bh_arena_copy(&w->arena, value, &copy)) {
            return BH_ENOMEM;
        }
        status = name_destination(w, txn, found.destination);
        if (status != BH_OK) {
            return status;
        }
        if (bh_selection_matches_destination(w->selection, w->destination.domain,
                                             w->destination.connector)) {
            status = record_entry_decode(copy, &w->arena, e);
            e->key = found;
            return status;
        }
        if (found.destination == UINT32_MAX) {
            return BH_ENOTFOUND;
        }
        from = (struct bh_queue_key){.destination = found.destination + 1};
        if (w->selection->domain.len > 0) { /* all others are passed by at once */
            struct bh_destination next;
            status = bh_queue_next_destination_of(txn, w->selection->domain, found.destination,
                                                  &w->arena, &next);
            if (status != BH_OK) {
                return status;
            }
            from.destination = next.id;
        }
        w->at = (struct bh_queue_key){
            .destination = from.destination - 1, .id = UINT64_MAX, .part = UINT16_MAX - 1};
        if (*rows == 0) {
            return BH_MORE;
        }
        (*rows)--;
    }
}

static enum bh_status next_candidate(struct walk *w, struct bh_kv_txn *txn, size_t *rows,
                                     struct bh_entry *e)
{
    if (w->selection->id_count > 0) {
        return next_by_id(w, txn, e);
    }
    if (!w->fresh_done) {
        const enum bh_status status = next_fresh(w, txn, e);
        if (status != BH_ENOTFOUND) {
            return status;
        }
        w->fresh_done = true;
        w->at = (struct bh_queue_key){0};
    }
    return next_entry(w, txn, rows, e);
}

enum bh_status walk_next(struct walk *w, struct bh_kv_txn *txn, size_t *rows,
                         struct bh_entry *entry, struct bh_message *message)
{
    while (*rows > 0) {
        (*rows)--;
        enum bh_status status = next_candidate(w, txn, rows, entry);
        if (status != BH_OK) {
            return status;
        }
        w->at = entry->key;
        status = name_destination(w, txn, entry->key.destination);
        if (status != BH_OK) {
            return status;
        }
        if (entry->key.id > w->up_to_id) {
            continue;
        }
        status = message_load(txn, entry->key.id, &w->arena, message);
        if (status != BH_OK) {
            return must_exist(status);
        }
        if (bh_selection_matches(w->selection, message, entry, w->destination.domain,
                                 w->destination.connector)) {
            return BH_OK;
        }
    }
    return BH_MORE;
}

enum bh_status bh_queue_select(struct bh_kv_txn *txn, const struct bh_selection *s,
                               struct bh_select_cursor *cursor, size_t rows_max,
                               bool (*found)(void *ctx, const struct bh_message *message,
                                             const struct bh_entry *entry),
                               void *ctx)
{
    struct walk w;
    walk_init(&w, s);
    w.at = cursor->at;
    w.fresh_done = cursor->fresh_done;
    size_t rows = rows_max;
    bool go_on = true;
    enum bh_status status = BH_OK;
    while (go_on && status == BH_OK) {
        struct bh_entry entry;
        struct bh_message message;
        status = walk_next(&w, txn, &rows, &entry, &message);
        if (status == BH_OK) {
            go_on = found(ctx, &message, &entry);
        }
    }
    cursor->at = w.at;
    cursor->fresh_done = w.fresh_done;
    walk_fini(&w);
    if (status == BH_ENOTFOUND) {
        return BH_OK;
    }
    return status == BH_OK ? BH_MORE : status;
}
