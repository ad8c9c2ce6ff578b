/* Destinations of the engine: what is known of them by name, how they are found in the store, and
 * the way to their hosts. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"
#include "probe.h"

#define FIND_ITEMS_MAX 512
#define FIND_DESTS_MAX 128
#define REFILL_MAX 1024
#define LIFT_ROWS_MAX 4096 /* looked at for TLS-Required: No in one task */

/* ---- what is known ---- */

struct dest_info *edest_get(struct engine *e, uint32_t id)
{
    unsigned char key[4];
    bh_put_be32(key, id);
    struct bh_map_node *node = bh_map_find(&e->dests, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct dest_info, node) : NULL;
}

static struct bh_slice keep_name(char text[NAME_MAX_OCTETS], struct bh_slice name)
{
    struct bh_buf buf = bh_buf(text, NAME_MAX_OCTETS - 1);
    bh_buf_add_cut(&buf, name);
    return bh_buf_slice(&buf);
}

const struct bh_connector *edest_connector(const struct engine *e, const struct dest_info *d)
{
    return bh_config_connector(e->config, efail_carrier(d));
}

void edest_set_policy(struct engine *e, struct dest_info *d)
{
    const struct bh_connector *connector = edest_connector(e, d);
    bool lapsed = false;
    if (connector == NULL) {
        /* Removed from the configuration: the last one, the built-in default, lends its limits
         * until its messages have moved. */
        connector = &e->config->connectors[e->config->connectors_count - 1];
    } else {
        (void)bh_connector_tls_demand(connector, engine_now(e).unix_ms, &lapsed);
    }
    /* Outside its windows nothing leaves; engine_windows tells the scheduler when that changes. */
    const int64_t now = engine_now(e).unix_ms;
    const bool closed = !bh_windows_open(&connector->windows, now);
    sched_policy_of(connector, lapsed || closed, &d->policy);
    if (connector->windows.count > 0) {
        const int64_t change = bh_windows_change(&connector->windows, now);
        e->windows_unix_ms = change < e->windows_unix_ms ? change : e->windows_unix_ms;
    }
    if (edest_connector(e, d) == NULL) {
        d->policy.active = true;
    }
}

void edest_watch_windows(struct engine *e)
{
    const int64_t now = engine_now(e).unix_ms;
    if (e->windows_unix_ms > now && e->windows_seen_unix_ms <= now) {
        e->windows_seen_unix_ms = now;
        return;
    }
    /* A window opens or closes, or the clock went back. */
    e->windows_unix_ms = INT64_MAX;
    e->windows_seen_unix_ms = now;
    for (uint32_t id = bh_sched_next_dest(e->sched, 0), next = 0; id != 0; id = next) {
        struct dest_info *d = edest_get(e, id);
        struct bh_sched_dest_info info;
        next = bh_sched_next_dest(e->sched, id); /* this one may leave memory below */
        const struct bh_connector *c = d != NULL ? edest_connector(e, d) : NULL;
        if (c == NULL || c->windows.count == 0 || !bh_sched_info(e->sched, id, &info)) {
            continue;
        }
        const bool was_active = d->policy.active;
        edest_set_policy(e, d);
        const struct bh_sched_dest_state state = {
            .policy = &d->policy, .held = info.held, .parked = info.parked, .has_entries = true};
        if (was_active != d->policy.active) {
            bh_log(BH_LOG_INFO, "evt=window domain=%.*s connector=%.*s state=%s", BH_FMT(d->domain),
                   BH_FMT(c->name), d->policy.active ? "open" : "closed");
            if (bh_sched_load(e->sched, id, &state, engine_now(e)) != BH_OK) {
                e->windows_unix_ms = now; /* once more with the next tick */
            }
        }
    }
}

struct dest_info *edest_learn(struct engine *e, uint32_t id, struct bh_slice domain,
                              struct bh_slice connector)
{
    struct dest_info *d = edest_get(e, id);
    if (d != NULL) {
        d->forget = false;
        return d;
    }
    d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    d->id = id;
    d->domain = keep_name(d->domain_text, domain);
    d->connector = keep_name(d->connector_text, connector);
    bh_put_be32(d->key, id);
    d->node.key = bh_slice(d->key, sizeof(d->key));
    if (bh_map_insert(&e->dests, &d->node) != BH_OK) {
        free(d);
        return NULL;
    }
    efail_begin(e, d);
    return d;
}

void edest_drop(struct engine *e, struct dest_info *d)
{
    if (d->aging || d->resolving > 0) {
        d->forget = true;
        return;
    }
    e->carried -= d->failover.over ? 1 : 0;
    bh_map_remove(&e->dests, &d->node);
    etls_free_route(d->route);
    free(d);
}

/* ---- finding them in the store ---- */

enum find_mode { FIND_FRESH, FIND_WAKE, FIND_ONE };

struct found_dest {
    uint32_t id;
    char domain_text[NAME_MAX_OCTETS], connector_text[NAME_MAX_OCTETS];
    struct bh_slice domain, connector;
    bool held, hold_ended, broken, parked;
    uint32_t stage, glitches;
    int64_t next_event_unix_ms;
    int64_t hold_until_unix_ms;
    struct bh_outcome last; /* without its words */
    uint64_t entries;
};

struct find_task {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    enum find_mode mode;
    enum bh_status status;
    uint64_t fresh_after;
    struct bh_queue_wake wake_after;
    bool has_wake_after;
    int64_t now_unix_ms;
    bool more;
    size_t item_count;
    struct bh_queue_item items[FIND_ITEMS_MAX];
    size_t dest_count;
    struct found_dest dests[FIND_DESTS_MAX];
};

static bool has_dest(const struct find_task *f, uint32_t id)
{
    for (size_t i = 0; i < f->dest_count; i++) {
        if (f->dests[i].id == id) {
            return true;
        }
    }
    return false;
}

static enum bh_status add_dest(struct find_task *f, struct bh_kv_txn *txn, struct bh_arena *arena,
                               uint32_t id)
{
    struct bh_destination record;
    bh_arena_reset(arena);
    const enum bh_status status = bh_queue_read_destination(txn, id, arena, &record);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    struct found_dest *d = &f->dests[f->dest_count++];
    const bool ended = record.held && record.hold_until_unix_ms <= f->now_unix_ms;
    *d = (struct found_dest){
        .id = id,
        .held = record.held, /* also where its time is over: until that is written */
        .hold_ended = ended,
        .broken = record.held && bh_slice_eq(record.hold_by, BH_LIT("breaker")),
        .parked = record.parked,
        .stage = record.backoff_stage > 0 ? record.backoff_stage - 1 : 0,
        .glitches = record.glitches,
        .next_event_unix_ms = record.next_event_unix_ms,
        .hold_until_unix_ms = record.hold_until_unix_ms,
        .last = {.stage = record.last.stage, .happened = record.last.happened},
        .entries = bh_destination_entries(&record),
    };
    d->domain = keep_name(d->domain_text, record.domain);
    d->connector = keep_name(d->connector_text, record.connector);
    return BH_OK;
}

static enum bh_status find_fresh(struct find_task *f, struct bh_kv_txn *txn, struct bh_arena *arena)
{
    enum bh_status status =
        bh_queue_scan_fresh(txn, &f->fresh_after, f->items, FIND_ITEMS_MAX, &f->item_count);
    f->more = status == BH_MORE;
    for (size_t i = 0; status >= 0 && i < f->item_count; i++) {
        if (!has_dest(f, f->items[i].key.destination)) {
            if (f->dest_count == FIND_DESTS_MAX) {
                /* The rest comes with the next page, from this message on. */
                f->fresh_after = f->items[i].key.id - 1;
                while (i > 0 && f->items[i - 1].key.id == f->items[i].key.id) {
                    i--;
                }
                f->item_count = i;
                f->more = true;
                break;
            }
            status = add_dest(f, txn, arena, f->items[i].key.destination);
        }
    }
    return status;
}

static enum bh_status find_wake(struct find_task *f, struct bh_kv_txn *txn, struct bh_arena *arena)
{
    struct bh_queue_wake rows[FIND_DESTS_MAX];
    size_t count = 0;
    enum bh_status status =
        bh_queue_scan_wake(txn, f->now_unix_ms, f->has_wake_after ? &f->wake_after : NULL, rows,
                           FIND_DESTS_MAX, &count);
    f->more = status == BH_MORE;
    for (size_t i = 0; status >= 0 && i < count; i++) {
        status = add_dest(f, txn, arena, rows[i].destination);
        f->wake_after = rows[i];
        f->has_wake_after = true;
    }
    return status;
}

static enum bh_status run_find(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct find_task *f = BH_CONTAINER(task, struct find_task, task);
    struct bh_arena arena;
    enum bh_status status = BH_OK;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    switch (f->mode) {
    case FIND_FRESH:
        status = find_fresh(f, txn, &arena);
        break;
    case FIND_WAKE:
        status = find_wake(f, txn, &arena);
        break;
    case FIND_ONE:
        status = add_dest(f, txn, &arena, f->items[0].key.destination);
        break;
    }
    bh_arena_fini(&arena);
    return status >= 0 ? BH_OK : status;
}

static void done_find(struct bh_store_task *task, enum bh_status status)
{
    struct find_task *f = BH_CONTAINER(task, struct find_task, task);
    f->status = status;
    f->letter.kind = ENGINE_DESTS;
    bh_mailbox_post_always(f->engine->box, &f->letter);
}

static bool post_find(struct engine *e, struct find_task *f)
{
    if (e->draining) {
        free(f);
        return false;
    }
    f->engine = e;
    f->now_unix_ms = engine_now(e).unix_ms;
    f->task = (struct bh_store_task){.run = run_find, .done = done_find};
    if (bh_store_read(e->options.store, &f->task) != BH_OK) {
        free(f);
        return false;
    }
    e->pending++;
    return true;
}

void edest_scan_fresh(struct engine *e)
{
    struct find_task *f = e->scanning_fresh ? NULL : calloc(1, sizeof(*f));
    if (f != NULL) {
        f->mode = FIND_FRESH;
        e->scanning_fresh = post_find(e, f);
    }
    if (!e->scanning_fresh) {
        atomic_store(&e->lost_notes, true); /* the wake timer tries again */
    }
}

void edest_scan_wake(struct engine *e)
{
    if (e->scanning_wake) {
        return; /* the timer asks again */
    }
    struct find_task *f = calloc(1, sizeof(*f));
    if (f != NULL) {
        f->mode = FIND_WAKE;
        e->scanning_wake = post_find(e, f);
    }
}

static void find_one(struct engine *e, uint32_t id)
{
    struct find_task *f = calloc(1, sizeof(*f));
    if (f != NULL) {
        f->mode = FIND_ONE;
        f->items[0].key.destination = id;
        (void)post_find(e, f); /* otherwise its wake row brings it */
    }
}

static void load_found(struct engine *e, const struct found_dest *found, bool entries)
{
    struct dest_info *d = edest_learn(e, found->id, found->domain, found->connector);
    if (d == NULL) {
        return; /* its wake row brings it again */
    }
    if (found->hold_ended) {
        /* Of this hold alone: an operator may have set another since. The scheduler is told when it
         * is known what stands. */
        const struct bh_destination_change change = {
            .set = BH_END_HOLD, .hold_until_unix_ms = found->hold_until_unix_ms};
        edest_update(e, found->id, &change);
    }
    if (bh_sched_has(e->sched, found->id)) {
        if (entries && found->entries > 0) {
            bh_sched_dirty(e->sched, found->id, engine_now(e));
        }
        return;
    }
    const struct bh_sched_dest_state state = {
        .policy = &d->policy,
        .held = found->held,
        .broken = found->broken,
        .parked = found->parked,
        .stage = found->stage,
        .glitches = found->glitches,
        .next_attempt_unix_ms = found->next_event_unix_ms,
        .has_entries = found->entries > 0,
    };
    if (bh_sched_load(e->sched, found->id, &state, engine_now(e)) != BH_OK) {
        edest_drop(e, d);
    } else {
        efail_resume(d, found->stage, found->glitches, &found->last);
    }
}

static void add_fresh(struct engine *e, const struct bh_sched_item *item)
{
    if (bh_sched_has_item(e->sched, item->destination, item->id, item->part)) {
        return;
    }
    if (bh_sched_fresh(e->sched, item, engine_now(e)) != BH_OK) {
        settle_demote(e, item);
    }
}

static void on_fresh_found(struct engine *e, const struct find_task *f)
{
    for (size_t i = 0; i < f->item_count; i++) {
        const struct bh_queue_item *item = &f->items[i];
        const struct bh_sched_item fresh = {.id = item->key.id,
                                            .destination = item->key.destination,
                                            .part = item->key.part,
                                            .recipients = item->recipients,
                                            .size = item->size,
                                            .clear_from_unix_ms =
                                                item->arrival_unix_ms + CLEAR_MIN_AGE_MS,
                                            .fresh = true};
        add_fresh(e, &fresh);
    }
}

void edest_on_found(struct engine *e, struct bh_letter *letter)
{
    struct find_task *f = BH_CONTAINER(letter, struct find_task, letter);
    e->pending--;
    if (f->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=scan_failed error=\"%s\"", bh_status_name(f->status));
        f->more = false;
    }
    for (size_t i = 0; f->status == BH_OK && i < f->dest_count; i++) {
        load_found(e, &f->dests[i], f->mode != FIND_FRESH);
    }
    if (f->mode == FIND_FRESH) {
        on_fresh_found(e, f);
        e->scanning_fresh = false;
    } else if (f->mode == FIND_WAKE) {
        e->scanning_wake = false;
    }
    if (f->more && !e->draining) {
        /* The next page, with the same task. */
        f->item_count = 0;
        f->dest_count = 0;
        f->more = false;
        const enum find_mode mode = f->mode;
        const bool posted = post_find(e, f);
        if (!posted && mode == FIND_FRESH) {
            atomic_store(&e->lost_notes, true);
        }
        e->scanning_fresh = mode == FIND_FRESH ? posted : e->scanning_fresh;
        e->scanning_wake = mode == FIND_WAKE ? posted : e->scanning_wake;
        return;
    }
    if (f->mode == FIND_FRESH && f->status != BH_OK) {
        atomic_store(&e->lost_notes, true); /* read again with the next tick */
    }
    free(f);
}

/* ---- new mail ---- */

static void on_fresh_part(struct engine *e, const struct put_note *note,
                          const struct put_part *part)
{
    const struct bh_sched_item item = {.id = note->id,
                                       .destination = part->destination,
                                       .part = part->part,
                                       .recipients = part->recipients,
                                       .size = note->size,
                                       .clear_from_unix_ms =
                                           engine_now(e).unix_ms + CLEAR_MIN_AGE_MS,
                                       .fresh = true};
    struct dest_info *d = edest_learn(e, part->destination, part->domain, part->connector);
    if (d == NULL) {
        settle_demote(e, &item);
        return;
    }
    if (!bh_sched_has(e->sched, d->id)) {
        /* The fresh lane means: no back-off, no hold. There may be entries all the same. */
        const struct bh_sched_dest_state state = {.policy = &d->policy, .has_entries = true};
        if (bh_sched_load(e->sched, d->id, &state, engine_now(e)) != BH_OK) {
            edest_drop(e, d);
            settle_demote(e, &item);
            return;
        }
    }
    add_fresh(e, &item);
}

void edest_on_put(struct engine *e, struct put_note *note)
{
    e->received++;
    for (size_t i = 0; i < note->count && !e->draining; i++) {
        const struct put_part *part = &note->parts[i];
        struct dest_info *d = edest_get(e, part->destination);
        if (note->tls_optional && part->lane != BH_LANE_FRESH && d != NULL && d->lifting) {
            elift_look(e, d);
        }
        if (part->lane == BH_LANE_FRESH) {
            on_fresh_part(e, note, part);
        } else if (bh_sched_has(e->sched, part->destination)) {
            bh_sched_dirty(e->sched, part->destination, engine_now(e));
        } else {
            find_one(e, part->destination);
        }
    }
    free(note);
}

/* ---- refill ---- */

struct refill_task {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    uint32_t destination; /* the store's */
    uint32_t sched_id;    /* the scheduler's */
    bool lifted;          /* only messages with TLS-Required: No are wanted */
    bool never_clear;     /* look which of them may never go in clear */
    struct bh_refill_cursor cursor;
    struct bh_kv_txn *txn; /* of the reader, for what it skips */
    struct bh_arena skip_arena;
    enum bh_status status;
    int64_t now_unix_ms;
    int64_t next_due_unix_ms;
    bool more;
    uint64_t flush_up_to_id; /* a flush of the destination is under way; 0: none */
    int64_t flush_unix_ms;
    size_t count;
    int64_t clear_from_unix_ms[REFILL_MAX];
    struct bh_queue_item items[REFILL_MAX];
};

/* When each may go in clear, where TLS is broken: the session that would carry it decides, and by
 * its effective age; this spares one that would carry nothing. */
static void note_ages(struct refill_task *r)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct bh_queue_item *item = &r->items[i];
        struct bh_message message;
        r->clear_from_unix_ms[i] = item->arrival_unix_ms + CLEAR_MIN_AGE_MS;
        if (r->never_clear) {
            bh_arena_reset(&r->skip_arena);
            if (bh_queue_read_message(r->txn, item->key.id, &r->skip_arena, &message) == BH_OK &&
                message.envelope.requiretls) {
                r->clear_from_unix_ms[i] = INT64_MAX;
            }
        }
    }
}

/* What must wait for what is published. */
static bool must_wait(void *ctx, const struct bh_queue_item *item)
{
    struct refill_task *r = ctx;
    struct bh_message message;
    bh_arena_reset(&r->skip_arena);
    return bh_queue_read_message(r->txn, item->key.id, &r->skip_arena, &message) != BH_OK ||
           !elift_takes(&message.envelope);
}

static enum bh_status run_refill(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct refill_task *r = BH_CONTAINER(task, struct refill_task, task);
    struct bh_arena arena;
    struct bh_destination record;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_read_destination(txn, r->destination, &arena, &record);
    size_t count = r->count;
    r->count = 0;
    r->next_due_unix_ms = INT64_MAX;
    if (status == BH_OK) {
        const struct bh_refill refill = {.destination = r->destination,
                                         .now_unix_ms = r->now_unix_ms,
                                         .items_max = count,
                                         .bytes_max = UINT64_MAX,
                                         .ready_weight = 3,
                                         .due_weight = 1,
                                         .flush_up_to_id = record.flush_up_to_id,
                                         .flush_unix_ms = record.flush_unix_ms,
                                         .skip = r->lifted ? must_wait : NULL,
                                         .ctx = r,
                                         .rows_max = r->lifted ? LIFT_ROWS_MAX : 0};
        r->txn = txn;
        bh_arena_init(&r->skip_arena, BH_QUEUE_ARENA);
        status = bh_queue_refill(txn, &refill, &r->cursor, r->items, &count);
        r->more = status == BH_MORE;
        r->flush_up_to_id = record.flush_up_to_id;
        r->flush_unix_ms = record.flush_unix_ms;
        r->count = status >= 0 ? count : 0;
        note_ages(r);
        bh_arena_fini(&r->skip_arena);
    }
    int64_t due = BH_QUEUE_NEVER;
    if (status >= 0 && !r->lifted && bh_queue_first_due(txn, r->destination, &due) == BH_OK &&
        due > r->now_unix_ms) {
        r->next_due_unix_ms = due;
    }
    bh_arena_fini(&arena);
    return status >= 0 || status == BH_ENOTFOUND ? BH_OK : status;
}

static void done_refill(struct bh_store_task *task, enum bh_status status)
{
    struct refill_task *r = BH_CONTAINER(task, struct refill_task, task);
    r->status = status;
    r->letter.kind = ENGINE_REFILLED;
    bh_mailbox_post_always(r->engine->box, &r->letter);
}

void edest_refill(struct engine *e, uint32_t id, uint32_t count)
{
    struct refill_task *r = malloc(sizeof(*r));
    enum bh_status status = BH_ENOMEM;
    if (r != NULL) {
        const struct dest_info *d = edest_get(e, id);
        memset(r, 0, offsetof(struct refill_task, clear_from_unix_ms)); /* the rest is 80 KiB */
        r->engine = e;
        r->destination = elift_store_id(id);
        r->sched_id = id;
        r->lifted = elift_is(id);
        r->never_clear = d != NULL && d->never_clear;
        r->now_unix_ms = engine_now(e).unix_ms;
        if (r->lifted && d != NULL) {
            r->cursor = d->lift_cursor;
            r->now_unix_ms += (int64_t)d->policy.retry.glitch_ms;
        }
        /* The count allows for what is here or leased: that still shows in the store. */
        r->count = count < REFILL_MAX ? count : REFILL_MAX;
        r->task = (struct bh_store_task){.run = run_refill, .done = done_refill};
        status = bh_store_read(e->options.store, &r->task);
    }
    if (status != BH_OK) {
        free(r);
        /* Asked again with the next look at the wake rows. */
        bh_sched_refilled(e->sched, id, NULL, 0, false, INT64_MAX, engine_now(e));
        return;
    }
    e->pending++;
}

void edest_on_refilled(struct engine *e, struct bh_letter *letter)
{
    struct refill_task *r = BH_CONTAINER(letter, struct refill_task, letter);
    struct bh_sched_item items[REFILL_MAX];
    e->pending--;
    for (size_t i = 0; i < r->count; i++) {
        items[i] = (struct bh_sched_item){.id = r->items[i].key.id,
                                          .destination = r->sched_id,
                                          .part = r->items[i].key.part,
                                          .recipients = r->items[i].recipients,
                                          .size = r->items[i].size,
                                          .clear_from_unix_ms = r->clear_from_unix_ms[i]};
    }
    if (r->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=refill_failed destination=%u error=\"%s\"",
               (unsigned)r->destination, bh_status_name(r->status));
    }
    const bool ok = r->status == BH_OK;
    struct dest_info *d = edest_get(e, r->sched_id);
    if (r->lifted && d != NULL) {
        d->lift_cursor = ok && r->more ? r->cursor : (struct bh_refill_cursor){0};
    }
    if (ok && !r->lifted && r->flush_up_to_id != 0 && !r->more && r->count == 0) {
        /* All that was queued before the flush has been tried since. */
        const struct bh_destination_change change = {.set = BH_CLEAR_FLUSH,
                                                     .flush_up_to_id = r->flush_up_to_id,
                                                     .flush_unix_ms = r->flush_unix_ms};
        edest_update(e, r->destination, &change);
    }
    bh_sched_refilled(e->sched, r->sched_id, items, ok ? (uint32_t)r->count : 0, ok && r->more,
                      ok ? r->next_due_unix_ms : INT64_MAX, engine_now(e));
    free(r);
}

/* ---- changing their records ---- */

struct dest_update {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    uint32_t id;
    struct bh_now now;
    enum bh_status status;
    struct bh_destination_change change;
    bool held; /* BH_END_HOLD: by its record, after it */
    char host[NAME_MAX_OCTETS], text[BH_OUTCOME_TEXT_MAX], tls[160], reason[BH_QUEUE_REASON_MAX],
        hold[BH_QUEUE_REASON_MAX];
};

static enum bh_status run_update(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct dest_update *u = BH_CONTAINER(task, struct dest_update, task);
    enum bh_status status = bh_queue_destination_update(q, txn, u->id, &u->change, u->now);
    if (status == BH_OK && (u->change.set & BH_END_HOLD) != 0) {
        struct bh_arena arena;
        struct bh_destination record = {0};
        bh_arena_init(&arena, BH_QUEUE_ARENA);
        status = bh_queue_read_destination(txn, u->id, &arena, &record);
        u->held = record.held;
        bh_arena_fini(&arena);
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void done_update(struct bh_store_task *task, enum bh_status status)
{
    struct dest_update *u = BH_CONTAINER(task, struct dest_update, task);
    u->status = status;
    u->letter.kind = ENGINE_UPDATED;
    bh_mailbox_post_always(u->engine->box, &u->letter);
}

static struct bh_slice copy_cut(char *storage, size_t cap, struct bh_slice s)
{
    struct bh_buf buf = bh_buf(storage, cap);
    bh_buf_add_cut(&buf, s);
    return bh_buf_slice(&buf);
}

void edest_update(struct engine *e, uint32_t id, const struct bh_destination_change *change)
{
    struct dest_update *u = malloc(sizeof(*u));
    if (u == NULL) {
        bh_log(BH_LOG_ERROR, "evt=destination_update_lost destination=%u error=\"no memory\"",
               (unsigned)id);
        return; /* back-off lives on in memory; after a restart it is tried at once */
    }
    *u = (struct dest_update){
        .engine = e, .id = elift_store_id(id), .now = engine_now(e), .change = *change};
    u->change.last.host = copy_cut(u->host, sizeof(u->host), change->last.host);
    u->change.last.text = copy_cut(u->text, sizeof(u->text), change->last.text);
    u->change.last_tls = copy_cut(u->tls, sizeof(u->tls), change->last_tls);
    u->change.hold_reason = copy_cut(u->hold, sizeof(u->hold), change->hold_reason);
    u->change.park_reason = copy_cut(u->reason, sizeof(u->reason), change->park_reason);
    u->task = (struct bh_store_task){
        .run = run_update, .done = done_update, .removal = true, .dirty_bytes = 4096};
    e->pending++;
    bh_store_write_always(e->options.store, &u->task);
}

void edest_on_updated(struct engine *e, struct bh_letter *letter)
{
    struct dest_update *u = BH_CONTAINER(letter, struct dest_update, letter);
    e->pending--;
    if (u->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=destination_update_failed destination=%u error=\"%s\"",
               (unsigned)u->id, bh_status_name(u->status));
    } else if ((u->change.set & BH_END_HOLD) != 0) {
        bh_sched_set_held(e->sched, u->id, u->held, engine_now(e));
    }
    free(u);
}

/* ---- the way to their hosts ---- */

struct resolve_ctx {
    struct engine *engine;
    uint32_t id;
    const struct bh_config *config; /* counted: the filter's nets are its */
    uint32_t changes;               /* of the carrier, when it was asked */
    const struct resolver_slot *slot;
    uint32_t recoveries; /* of its trust, likewise */
    struct bh_slice own_name;
    struct bh_target_smarthost smarthosts[BH_TARGET_SMARTHOSTS_MAX];
    char literals[BH_TARGET_SMARTHOSTS_MAX][BH_IP_TEXT_MAX + 2];
};

static enum bh_family_preference family_of(enum bh_family family)
{
    switch (family) {
    case BH_FAMILY_ANY:
    case BH_FAMILY_IPV6:
        return BH_FAMILY_PREFER_6;
    case BH_FAMILY_IPV4:
        return BH_FAMILY_PREFER_4;
    case BH_FAMILY_IPV4_ONLY:
        return BH_FAMILY_ONLY_4;
    case BH_FAMILY_IPV6_ONLY:
        return BH_FAMILY_ONLY_6;
    }
    return BH_FAMILY_PREFER_6;
}

void edest_route_failed(struct engine *e, struct dest_info *d, enum bh_happened happened)
{
    struct bh_outcome outcome = {.stage = BH_STAGE_ROUTE, .happened = happened, .host = d->domain};
    const char *text = "";
    switch (bh_outcome_policy(&outcome).meaning) {
    case BH_MEANS_PERMANENT:
        text = happened == BH_HAPPENED_NULL_MX ? "the domain accepts no mail (null MX, RFC 7505)"
                                               : "no such domain";
        break;
    case BH_MEANS_TEMPORARY:
    case BH_MEANS_DELIVERED:
    case BH_MEANS_UNCERTAIN:
        text = happened == BH_HAPPENED_ALL_FILTERED
                   ? "every host is this machine or in a forbidden network"
               : happened == BH_HAPPENED_DNS_TIMEOUT ? "no resolver answered"
               : happened == BH_HAPPENED_NO_ADDRESS  ? "none of its hosts has an address"
               : happened == BH_HAPPENED_OUR_CONFIG
                   ? "no connector takes it, or its smarthosts do not exist"
               : happened == BH_HAPPENED_LOOP ? "this machine is its best MX"
                                              : "its name could not be looked up";
        break;
    }
    const int len = snprintf(d->end_text, sizeof(d->end_text), "%.*s: %s", BH_FMT(d->domain), text);
    outcome.text = bh_slice(d->end_text, (size_t)len);
    d->end_outcome = outcome;
    if (d->probe != NULL) {
        eprobe_on_no_route(e, d, &outcome);
        return;
    }
    const struct bh_policy policy = bh_outcome_policy(&outcome);
    bh_log(BH_LOG_INFO, "evt=no_route domain=%.*s connector=%.*s happened=%s", BH_FMT(d->domain),
           BH_FMT(d->connector), bh_happened_name(happened));
    if (policy.meaning == BH_MEANS_PERMANENT && policy.fault == BH_FAULT_THEIRS) {
        bh_sched_resolved_to_end(e->sched, d->id, engine_now(e));
    } else {
        bh_sched_dest_failed(e->sched, d->id,
                             policy.fault == BH_FAULT_THEIRS ? BH_SCHED_THEIRS : BH_SCHED_OURS,
                             &outcome, engine_now(e));
    }
}

void edest_refused(struct engine *e, struct dest_info *d, const struct host_plan *plan)
{
    struct bh_buf text = bh_buf(d->end_text, sizeof(d->end_text));
    struct bh_outcome outcome = {
        .stage = BH_STAGE_ROUTE, .happened = plan->tls.happened, .host = plan->host->name};
    bh_buf_add_cut(&text, plan->host->name);
    bh_buf_add_cut(&text, BH_LIT(": "));
    bh_buf_add_cut(&text, bh_slice_str(plan->tls.reason));
    outcome.text = bh_buf_slice(&text);
    d->end_outcome = outcome;
    d->untrusted = plan->dane.state == BH_DANE_UNTRUSTED;
    d->unmet_ends = eunmet_ends(e, d, plan);
    d->published_unmet = true;
    const bool theirs = bh_outcome_policy(&outcome).fault == BH_FAULT_THEIRS;
    char quoted[BH_LOG_QUOTE_MAX];
    bh_log(theirs ? BH_LOG_INFO : BH_LOG_WARN,
           "evt=tls_no_host domain=%.*s connector=%.*s happened=%s text=%s", BH_FMT(d->domain),
           BH_FMT(d->connector), bh_happened_name(outcome.happened),
           bh_log_quote(outcome.text, quoted));
    if (d->unmet_ends) {
        bh_sched_resolved_to_end(e->sched, d->id, engine_now(e));
        return;
    }
    bh_sched_dest_failed(e->sched, d->id, theirs ? BH_SCHED_THEIRS : BH_SCHED_OURS, &outcome,
                         engine_now(e));
}

static void on_targets(void *ctx, const struct bh_target_list *list)
{
    struct resolve_ctx *r = ctx;
    struct engine *e = r->engine;
    struct dest_info *d = edest_get(e, r->id);
    BH_ASSERT(d != NULL && d->resolving > 0);
    d->resolving--;
    if (e->draining) {
        /* The next process asks anew. What came of this, and of a lookup that ends with the
         * resolver, must ask nothing more of the store, which answers to an engine that may be
         * gone by then. */
        if (d->forget) {
            edest_drop(e, d);
        }
        bh_config_unref(r->config);
        free(r);
        return;
    }
    if (!d->forget && (r->config != e->config || r->changes != d->failover.changes ||
                       r->recoveries != r->slot->recoveries)) {
        /* A reload came in between, or another connector took over: this is the old way. Or it was
         * asked of a resolver that did not validate then, and does now. */
        const uint32_t id = d->id;
        bh_config_unref(r->config);
        free(r);
        edest_resolve(e, id);
        engine_pump(e);
        return;
    }
    if (d->forget) {
        edest_drop(e, d);
    } else if (list->usable) {
        etls_begin(e, d, edest_connector(e, d), list);
    } else {
        edest_route_failed(e, d, list->happened);
    }
    bh_config_unref(r->config);
    free(r);
    engine_pump(e);
}

static size_t fill_smarthosts(struct resolve_ctx *r, const struct bh_connector *c)
{
    size_t count = 0;
    for (size_t i = 0; i < c->smarthosts.count && count < BH_TARGET_SMARTHOSTS_MAX; i++) {
        const struct bh_smarthost *from = &c->smarthosts.at[i];
        struct bh_target_smarthost *to = &r->smarthosts[count];
        *to = (struct bh_target_smarthost){
            .host = from->host,
            .port = from->port,
            .priority = from->priority,
            .weight = from->weight < UINT16_MAX ? (uint16_t)from->weight : UINT16_MAX,
            .lookup_mx = from->mx_lookup};
        if (from->ip.family != 0) {
            bh_ip_text(&from->ip, r->literals[count]);
            to->host = bh_slice_str(r->literals[count]);
        }
        count++;
    }
    return count;
}

void edest_resolve(struct engine *e, uint32_t id)
{
    struct dest_info *d = edest_get(e, id);
    BH_ASSERT(d != NULL);
    if (eunmet_begin(d)) {
        bh_sched_resolved_to_end(e->sched, id, engine_now(e));
        return;
    }
    const struct bh_connector *c = edest_connector(e, d);
    d->tls_step = TLS_STEP_NORMAL;
    if (c == NULL) {
        /* Its messages are given to their new connectors as they are handed out. */
        d->end_outcome = (struct bh_outcome){
            .stage = BH_STAGE_ROUTE,
            .happened = BH_HAPPENED_OUR_CONFIG,
            .text = BH_LIT("its connector is gone from the configuration, and no other takes it")};
        if (d->probe != NULL) {
            eprobe_on_no_route(e, d, &d->end_outcome);
        } else {
            bh_sched_resolved_to_end(e->sched, id, engine_now(e));
        }
        return;
    }
    struct resolve_ctx *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        edest_route_failed(e, d, BH_HAPPENED_OUR_RESOURCE);
        return;
    }
    r->engine = e;
    r->id = id;
    r->config = bh_config_ref(e->config);
    r->changes = d->failover.changes;
    r->own_name = e->config->engine.hostname;
    struct bh_target_request request = {
        .port = c->port > 0 ? c->port : 25,
        .family = family_of(c->family),
        .round_max = c->limits.addresses_per_round,
        .filter = {.own_names = &r->own_name,
                   .own_names_len = r->own_name.len > 0 ? 1 : 0,
                   .own_addresses = e->options.own_addresses,
                   .own_addresses_len = e->options.own_address_count,
                   .forbidden = c->resolver.forbidden_networks.at,
                   .forbidden_len = c->resolver.forbidden_networks.count,
                   .allow_loopback = c->resolver.allow_loopback}};
    if (c->route == BH_ROUTE_SMARTHOSTS) {
        request.smarthosts_len = fill_smarthosts(r, c);
        request.smarthosts = r->smarthosts;
    } else {
        request.domain = d->domain;
    }
    r->slot = engine_resolver(e, c);
    r->recoveries = r->slot->recoveries;
    d->resolving++;
    d->asked_ms = engine_now(e).mono_ms;
    const enum bh_status status = bh_resolver_targets(r->slot->resolver, &request, on_targets, r);
    if (status != BH_OK) {
        d->resolving--;
        bh_config_unref(r->config);
        free(r);
        edest_route_failed(e, d,
                           status == BH_EINVAL ? BH_HAPPENED_NXDOMAIN : BH_HAPPENED_OUR_RESOURCE);
    }
}
