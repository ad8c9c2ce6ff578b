/* What a dead process left, taken up in one transaction before any thread starts. The marks are on
 * disk before the file that told of them is made anew. */
#include <stdio.h>
#include <time.h>

#include "bh/arena.h"
#include "bh/decision.h"
#include "bh/log.h"
#include "bh/queue_id.h"
#include "control_server.h"
#include "daemon.h"
#include "receiving.h"

#define SLOTS_PER_SESSION 64 /* leased items of a session whose outcomes wait for their commit */
#define SLOTS_MAX 131072u

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct bh_now now_of(const struct daemon *d)
{
    return (struct bh_now){.mono_ms = uv_now(&d->loop), .unix_ms = wall_ms()};
}

static enum bh_status recover_large(struct daemon *d)
{
    enum bh_status status = BH_MORE;
    while (status == BH_MORE) {
        struct bh_kv_txn *txn = NULL;
        status = bh_queue_begin(d->queue, NULL, &txn);
        if (status != BH_OK) {
            return status;
        }
        status = bh_queue_large_recover(d->queue, txn, 1024);
        if (status < 0) {
            bh_queue_abort(d->queue, txn);
            return status;
        }
        const enum bh_status committed = bh_queue_commit(d->queue, txn);
        if (committed != BH_OK) {
            return committed;
        }
    }
    return BH_OK;
}

static struct bh_slice uncertain_hold(struct daemon *d, struct bh_kv_txn *txn,
                                      struct bh_queue_key key, struct bh_arena *arena)
{
    struct bh_destination record;
    struct bh_slice hold = BH_EMPTY;
    const struct bh_config *config = config_cell_get(&d->cell);
    if (bh_queue_read_destination(txn, key.destination, arena, &record) == BH_OK) {
        const struct bh_connector *c = bh_config_connector(config, record.connector);
        if (c != NULL && c->uncertain == BH_UNCERTAIN_HOLD) {
            hold = BH_LIT("uncertain: the process ended between the final dot and the commit");
        }
    }
    bh_config_unref(config);
    return hold;
}

static enum bh_status mark_slot(struct daemon *d, struct bh_kv_txn *txn,
                                const struct bh_inflight_slot *slot, struct bh_arena *arena)
{
    char record[BH_DECISION_MAX];
    struct bh_buf decision = bh_buf(record, sizeof(record));
    const struct bh_decision why = {
        .time_unix_ms = wall_ms(),
        .outcome = {.stage = BH_STAGE_DOT,
                    .happened = BH_HAPPENED_UNCERTAIN_CRASH,
                    .text = BH_LIT("we stopped between the final dot and our commit")},
        .next_reason = BH_LIT("it may have been delivered")};
    char id[BH_QUEUE_ID_TEXT];
    if (bh_decision_encode(&why, &decision) != BH_OK) {
        return BH_ENOMEM;
    }
    bh_arena_reset(arena);
    const struct bh_slice hold = uncertain_hold(d, txn, slot->key, arena);
    const enum bh_status status = bh_queue_mark_uncertain(d->queue, txn, slot->key, slot->mask,
                                                          hold, bh_buf_slice(&decision), now_of(d));
    if (status == BH_OK) {
        struct event event;
        bh_log(BH_LOG_WARN, "evt=uncertain msg=%s destination=%u action=%s",
               bh_queue_id_text(slot->key.id, id), (unsigned)slot->key.destination,
               hold.len > 0 ? "hold" : "retry");
        event_begin(&event, wall_ms(), "uncertain");
        event_id(&event, slot->key.id);
        event_end(d->events, &event);
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status mark_left(struct daemon *d, struct bh_kv_txn *txn, struct bh_arena *arena)
{
    size_t count = 0;
    enum bh_status status = BH_OK;
    const struct bh_inflight_slot *slots = bh_inflight_left(d->inflight, &count);
    for (size_t i = 0; status == BH_OK && i < count; i++) {
        if (slots[i].state == BH_INFLIGHT_DOT_SENT) {
            status = mark_slot(d, txn, &slots[i], arena);
        }
    }
    const struct bh_handling *handling = bh_inflight_left_handling(d->inflight, &count);
    if (status == BH_OK) {
        status = bh_queue_jobs_reopen(d->queue, txn);
    }
    for (size_t i = 0; status == BH_OK && i < count; i++) {
        bool quarantined = false;
        const bool queued = handling[i].step != BH_HANDLING_NOTHING &&
                            handling[i].step != BH_HANDLING_RECEIVE &&
                            handling[i].step != BH_HANDLING_STORE;
        if (queued && handling[i].id != 0 && handling[i].blame != BH_BLAME_NOT) {
            status = bh_queue_mark_crashed(d->queue, txn, handling[i].id, now_of(d), &quarantined);
            status = status == BH_ENOTFOUND ? BH_OK : status;
        }
        if (quarantined) {
            char id[BH_QUEUE_ID_TEXT];
            bh_log(BH_LOG_ERROR, "evt=quarantined msg=%s", bh_queue_id_text(handling[i].id, id));
        }
    }
    return status;
}

enum bh_status daemon_recover(struct daemon *d, const struct bh_config *config)
{
    char path[4096];
    snprintf(path, sizeof(path), "%.*s/inflight", BH_FMT(config->queue.path));
    uint32_t slots = config->engine.connections * SLOTS_PER_SESSION;
    slots = slots > SLOTS_MAX ? SLOTS_MAX : slots;
    enum bh_status status =
        bh_inflight_open(path, slots, WORKERS_MAX + STORE_THREADS_MAX, &d->inflight);
    if (status == BH_OK) {
        status = leased_init(&d->leased, slots);
    }
    if (status == BH_OK) {
        status = recover_large(d);
    }
    struct bh_kv_txn *txn = NULL;
    if (status == BH_OK) {
        status = bh_queue_begin(d->queue, NULL, &txn);
    }
    if (status != BH_OK) {
        return status;
    }
    struct bh_arena arena;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    status = mark_left(d, txn, &arena);
    if (status == BH_OK) {
        status = receiving_recover(d, txn, &arena);
    }
    if (status == BH_OK) {
        status = bh_queue_clock_is_behind(txn, now_of(d), &d->clock_behind);
    }
    bh_arena_reset(&arena);
    d->paused = control_was_paused(txn, &arena);
    bh_arena_reset(&arena);
    d->clock_unconfirmed = engine_clock_stepped_before(txn, &arena);
    bh_arena_fini(&arena);
    if (status != BH_OK) {
        bh_queue_abort(d->queue, txn);
        return status;
    }
    status = bh_queue_commit(d->queue, txn);
    if (status == BH_OK) {
        status = bh_inflight_clear(d->inflight);
    }
    if (status == BH_OK) {
        dying_watch(d->inflight);
    }
    return status;
}
