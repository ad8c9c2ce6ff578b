#include "lease.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/log.h"

#define ARENA_EXTRA ((size_t)8 << 20) /* envelopes and replies of a whole lease */

/* An item is most of a kilobyte, and most leases have few: what is not needed is not cleared. */
struct lease *lease_create(const struct bh_config *config, uint32_t items, uint64_t bytes)
{
    struct lease *lease =
        calloc(1, sizeof(*lease) + items * (sizeof(struct lease_item) + sizeof(struct lease_part)));
    if (lease != NULL) {
        lease->room = items;
        lease->parts = (struct lease_part *)(void *)&lease->items[items];
        bh_arena_init(&lease->arena, (size_t)bytes + ARENA_EXTRA);
        bh_arena_init(&lease->judged, ARENA_EXTRA);
        lease->config = bh_config_ref(config);
    }
    return lease;
}

struct lease_part *lease_add_part(struct lease *lease, struct bh_slice domain,
                                  struct bh_slice connector, struct bh_slice carrier)
{
    BH_ASSERT(lease->part_count < lease->room);
    struct lease_part *part = &lease->parts[lease->part_count];
    if (!bh_arena_copy(&lease->arena, domain, &part->domain) ||
        !bh_arena_copy(&lease->arena, connector, &part->connector) ||
        !bh_arena_copy(&lease->arena, carrier, &part->carrier)) {
        return NULL;
    }
    lease->part_count++;
    return part;
}

void lease_destroy(struct lease *lease)
{
    if (lease != NULL) {
        bh_arena_fini(&lease->arena);
        bh_arena_fini(&lease->judged);
        bh_config_unref(lease->config);
        free(lease);
    }
}

/* Is an unfinished bulk job about to act on this entry? Its filter holds from its commit on. */
static enum bh_status is_filtered(struct bh_kv_txn *txn, const struct lease_item *item,
                                  struct bh_arena *scratch, bool *filtered)
{
    struct bh_job job = {0};
    enum bh_status status = BH_OK;
    *filtered = false;
    for (uint64_t after = 0; !*filtered; after = job.id) {
        bh_arena_reset(scratch);
        status = bh_queue_job_next(txn, after, scratch, &job);
        if (status != BH_OK) {
            break;
        }
        const bool acts = job.verb != BH_JOB_RELEASE && job.verb != BH_JOB_REQUEUE;
        *filtered = acts && !job.done && item->key.id <= job.up_to_id &&
                    bh_selection_matches(&job.selection, &item->message, &item->entry,
                                         item->part->domain, item->part->connector);
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* Only the one that carries this lease is. */
static bool is_carrier(void *ctx, const struct bh_connector *connector)
{
    const struct lease_part *part = ctx;
    return bh_slice_eq(connector->name, part->carrier);
}

/* Which connector is meant for this message, and may the one that carries this lease take it? */
static enum lease_what match_item(struct lease *lease, struct lease_item *item)
{
    struct lease_part *part = item->part;
    const struct bh_envelope *envelope = &item->message.envelope;
    if (bh_config_match(lease->config, part->domain, envelope->sender, envelope->size, NULL, NULL,
                        &item->match) != BH_OK) {
        return lease->session == 0 ? LEASE_DELIVER : LEASE_GONE;
    }
    if (!bh_slice_eq(bh_match_first_choice(&item->match)->name, part->connector)) {
        return LEASE_REBIND;
    }
    if (bh_slice_eq(part->carrier, part->connector)) {
        return LEASE_DELIVER;
    }
    struct bh_match match;
    if (bh_config_match(lease->config, part->domain, envelope->sender, envelope->size, is_carrier,
                        part, &match) == BH_OK &&
        is_carrier(part, match.connector)) {
        item->match = match;
        return LEASE_DELIVER;
    }
    return LEASE_WAITS;
}

const struct bh_connector *lease_rules(const struct lease_item *item,
                                       const struct bh_config *config)
{
    struct lease_part *part = item->part;
    const struct bh_envelope *envelope = &item->message.envelope;
    struct bh_match match;
    const enum bh_status status = bh_config_match(config, part->domain, envelope->sender,
                                                  envelope->size, is_carrier, part, &match);
    return status == BH_OK ? match.connector : NULL;
}

static enum bh_status load_content(struct bh_kv_txn *txn, struct lease *lease,
                                   struct lease_item *item)
{
    const size_t size = (size_t)item->message.envelope.size;
    struct bh_buf buf = bh_buf(bh_arena_alloc(&lease->arena, size > 0 ? size : 1), size);
    if (buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    const enum bh_status status = bh_queue_read_content(txn, &item->message, 0, &buf);
    if (status == BH_OK && buf.len != size) {
        return BH_ECORRUPT;
    }
    item->content = bh_buf_slice(&buf);
    return status;
}

static enum bh_status prepare_txn(struct lease *lease, struct lease_item *item)
{
    const size_t count = item->entry.recipient_count;
    struct bh_client_result *results =
        bh_arena_alloc(&lease->arena, count * sizeof(struct bh_client_result));
    item->recipients = bh_arena_alloc(&lease->arena, count * sizeof(struct bh_recipient));
    if (results == NULL || item->recipients == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        item->recipients[i] = item->entry.recipients[i].to;
    }
    item->txn = (struct bh_delivery_txn){
        .txn = {.envelope = &item->message.envelope,
                .recipients = item->recipients,
                .results = results,
                .recipients_count = (uint32_t)count,
                .arena = &lease->arena},
        .content = &item->content,
        .content_count = 1,
        .user = item,
    };
    return BH_OK;
}

/* Everything that decides whether this entry may go now, then all that is needed to send it. */
static enum bh_status load_item(struct bh_kv_txn *txn, struct lease *lease, struct lease_item *item,
                                struct bh_arena *scratch)
{
    const struct lease_part *part = item->part;
    const struct bh_destination *destination = &part->row;
    enum bh_status status = bh_queue_read_entry(txn, item->key, &lease->arena, &item->entry);
    if (status == BH_OK) {
        status = bh_queue_read_message(txn, item->key.id, &lease->arena, &item->message);
    }
    if (status == BH_ENOTFOUND) {
        item->what = LEASE_GONE;
        return BH_OK;
    }
    bool filtered = false;
    if (status == BH_OK) {
        status = is_filtered(txn, item, scratch, &filtered);
    }
    if (status != BH_OK) {
        return status;
    }
    const struct bh_entry *entry = &item->entry;
    const bool flushed = destination->flush_up_to_id >= item->key.id &&
                         entry->tried_unix_ms < destination->flush_unix_ms;
    item->lane = entry->lane;
    item->age_ms = bh_entry_age_ms(entry, destination, lease->now_unix_ms);
    if (entry->state == BH_ENTRY_HELD ||
        (entry->state == BH_ENTRY_DUE && !flushed &&
         entry->due_unix_ms > lease->now_unix_ms + part->early_ms) ||
        (part->lifted &&
         (!item->message.envelope.tls_optional || item->message.envelope.requiretls))) {
        item->what = LEASE_GONE;
    } else if (filtered) {
        item->what = LEASE_FILTERED;
    } else {
        item->what = match_item(lease, item);
    }
    if (item->what == LEASE_DELIVER && lease->clear_fallback &&
        (item->message.envelope.requiretls || item->age_ms < CLEAR_MIN_AGE_MS)) {
        item->what = LEASE_YOUNG;
    }
    if (item->what == LEASE_DELIVER) {
        status = prepare_txn(lease, item);
        if (status == BH_OK && lease->session != 0) {
            status = load_content(txn, lease, item);
        }
    }
    return status;
}

uint32_t store_thread_number(void)
{
    static atomic_uint next;
    static _Thread_local uint32_t mine; /* number + 1 */
    if (mine == 0) {
        mine = atomic_fetch_add(&next, 1) + 1;
    }
    return (mine - 1) % STORE_THREADS_MAX;
}

static enum bh_status read_part(struct bh_kv_txn *txn, struct lease *lease, struct lease_part *part)
{
    const enum bh_status status =
        bh_queue_read_destination(txn, part->destination, &lease->arena, &part->row);
    part->read = status == BH_OK;
    part->held = part->read && part->row.held && part->row.hold_until_unix_ms > lease->now_unix_ms;
    return status;
}

static void load_one(struct lease *lease, struct bh_kv_txn *txn)
{
    struct bh_arena scratch;
    bh_arena_init(&scratch, BH_QUEUE_ARENA);
    for (uint32_t i = 0; i < lease->count; i++) {
        struct lease_item *item = &lease->items[i];
        /* If this message kills the process, the next one will know which it was. */
        bh_inflight_handling(lease->inflight, store_thread_number(), BH_HANDLING_READ,
                             item->key.id);
        enum bh_status status = item->part->read ? BH_OK : read_part(txn, lease, item->part);
        if (status == BH_OK) {
            status = load_item(txn, lease, item, &scratch);
        }
        if (status != BH_OK) {
            item->what = status == BH_ENOTFOUND ? LEASE_GONE : LEASE_FAILED;
            bh_log(BH_LOG_ERROR, "evt=load_failed destination=%u error=\"%s\"",
                   (unsigned)item->part->destination, bh_status_name(status));
        }
    }
    bh_inflight_handling(lease->inflight, store_thread_number(), BH_HANDLING_NOTHING, 0);
    bh_arena_fini(&scratch);
}

static enum bh_status run_load(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    (void)q;
    for (struct lease *lease = BH_CONTAINER(task, struct lease, task); lease != NULL;
         lease = lease->also) {
        load_one(lease, txn);
    }
    return BH_OK;
}

static void done_load(struct bh_store_task *task, enum bh_status status)
{
    struct lease *lease = BH_CONTAINER(task, struct lease, task);
    while (lease != NULL) {
        struct lease *also = lease->also; /* it is not ours any more once it is told of */
        for (uint32_t i = 0; i < lease->count && status != BH_OK; i++) {
            lease->items[i].what = LEASE_FAILED;
        }
        lease->loaded(lease);
        lease = also;
    }
}

enum bh_status lease_load(struct lease *lease, struct bh_store *store)
{
    lease->task = (struct bh_store_task){.run = run_load, .done = done_load};
    return bh_store_read(store, &lease->task);
}
