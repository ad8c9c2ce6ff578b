/* What becomes of leased mail, written in batches: one task of the writer for many entries. Only
 * after its commit an entry leaves the lease, and its slot in flight is free. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"

/* ---- events ---- */

static const char *result_name(enum bh_verdict verdict)
{
    switch (verdict) {
    case BH_VERDICT_KEEP:
        return "deferred";
    case BH_VERDICT_DELIVERED:
    case BH_VERDICT_DELIVERED_REPORT:
        return "delivered";
    case BH_VERDICT_RELAYED:
        return "relayed";
    case BH_VERDICT_EXPANDED:
        return "expanded";
    case BH_VERDICT_BOUNCED:
        return "bounced";
    case BH_VERDICT_EXPIRED:
        return "expired";
    case BH_VERDICT_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

/* What a remote said or we had to say; where that is nothing, what happened. */
static struct bh_slice text_of(const struct bh_outcome *o)
{
    return o->text.len > 0 || o->happened == BH_HAPPENED_REPLY
               ? o->text
               : bh_slice_str(bh_happened_name(o->happened));
}

static void put_text(struct bh_json *json, const char *key, const char *text)
{
    if (text[0] != '\0') {
        bh_json_key(json, key);
        bh_json_cstr(json, text);
    }
}

/* Wanted and got together for eyes, and apart for programs. */
static void put_tls(struct bh_json *json, const struct tls_seen *tls)
{
    char text[TLS_SEEN_TEXT];
    char spki[2 * BH_PIN_LEN + 1];
    put_text(json, "tls", tls_seen_text(tls, text));
    put_text(json, "tls_wanted", tls->wanted);
    put_text(json, "tls_from", tls->origin);
    if (tls->known) {
        put_text(json, "auth", tls_proof_name(tls->proof));
    }
    put_text(json, "tls_version", tls->version);
    put_text(json, "cipher", tls->cipher);
    put_text(json, "matched", tls->matched);
    put_text(json, "spki", tls_seen_spki(tls, spki));
    put_text(json, "tls_reason", tls->reason);
    put_text(json, "audit_would_refuse", tls->audit);
}

/* Where its time went: what is not the resolver's, the connection's or the partner's was in the
 * queue. */
static void put_times(struct bh_json *json, const struct lease_item *item, int64_t age_ms)
{
    const bool first = item == &item->lease->items[0] || item[-1].part != item->part;
    const struct {
        const char *name;
        uint64_t ms;
    } parts[] = {{"dns_ms", first ? item->part->dns_ms : 0},
                 {"connect_ms", item->took.connect_ms},
                 {"tls_ms", item->took.tls_ms},
                 {"transfer_ms", item->took.transfer_ms}};
    uint64_t sum = 0;
    for (size_t i = 0; i < BH_COUNT(parts); i++) {
        sum += parts[i].ms;
    }
    bh_json_key(json, "age_ms");
    bh_json_i64(json, age_ms);
    bh_json_key(json, "queue_ms");
    bh_json_u64(json, age_ms > 0 && (uint64_t)age_ms > sum ? (uint64_t)age_ms - sum : 0);
    for (size_t i = 0; i < BH_COUNT(parts); i++) {
        bh_json_key(json, parts[i].name);
        bh_json_u64(json, parts[i].ms);
    }
}

static void tell_recipient(struct engine *e, const struct lease_item *item, size_t i)
{
    const struct bh_settle_recipient *r = &item->settle.recipients[i];
    const struct bh_outcome *o = &r->outcome;
    struct event event;
    char ip[BH_IP_TEXT_MAX];
    event_begin(&event, engine_now(e).unix_ms, "attempt");
    event_id(&event, item->key.id);
    bh_json_key(&event.json, "rcpt");
    bh_json_str(&event.json, item->entry.recipients[i].to.address);
    bh_json_key(&event.json, "result");
    bh_json_cstr(&event.json, r->uncertain ? "uncertain" : result_name(r->verdict));
    bh_json_key(&event.json, "connector");
    bh_json_str(&event.json, item->part->carrier);
    if (item->match.instead_of != NULL) {
        bh_json_key(&event.json, "instead_of");
        bh_json_str(&event.json, item->part->connector);
    }
    bh_json_key(&event.json, "mx");
    bh_json_str(&event.json, o->host);
    if (o->ip.family != 0) {
        bh_json_key(&event.json, "ip");
        bh_json_cstr(&event.json, bh_ip_text(&o->ip, ip));
    }
    put_tls(&event.json, &item->lease->tls);
    bh_json_key(&event.json, "stage");
    bh_json_cstr(&event.json, bh_stage_name(o->stage));
    bh_json_key(&event.json, "happened");
    bh_json_cstr(&event.json, bh_happened_name(o->happened));
    bh_json_key(&event.json, "code");
    bh_json_u64(&event.json, o->code);
    if (o->enhanced_class != 0) {
        char enhanced[24];
        snprintf(enhanced, sizeof(enhanced), "%u.%u.%u", (unsigned)o->enhanced_class,
                 (unsigned)o->enhanced_subject, (unsigned)o->enhanced_detail);
        bh_json_key(&event.json, "enhanced");
        bh_json_cstr(&event.json, enhanced);
    }
    bh_json_key(&event.json, "text");
    bh_json_str(&event.json, bh_slice_take(text_of(o), 256));
    put_times(&event.json, item, engine_now(e).unix_ms - item->entry.arrival_unix_ms);
    if (r->verdict == BH_VERDICT_KEEP && item->settle.remaining == BH_ENTRY_DUE) {
        bh_json_key(&event.json, "next");
        bh_json_i64(&event.json, item->settle.due_unix_ms);
    }
    event_end(e->options.events, &event);
}

static bool was_delivered(const struct bh_settle_recipient *r)
{
    return r->verdict == BH_VERDICT_DELIVERED || r->verdict == BH_VERDICT_DELIVERED_REPORT ||
           r->verdict == BH_VERDICT_RELAYED || r->verdict == BH_VERDICT_EXPANDED;
}

/* A record of the ledger: who got mail, from whom, and how well that was protected. */
static void record_delivery(struct engine *e, const struct lease_item *item, size_t i)
{
    const struct bh_settle_recipient *r = &item->settle.recipients[i];
    const struct bh_slice address = item->entry.recipients[i].to.address;
    const struct bh_outcome *o = &r->outcome;
    const bool whole = item->lease->config->engine.ledger_recipients == BH_LEDGER_ADDRESS;
    struct event event;
    char ip[BH_IP_TEXT_MAX];
    event_begin(&event, engine_now(e).unix_ms, "delivered");
    event_id(&event, item->key.id);
    bh_json_key(&event.json, "connector");
    bh_json_str(&event.json, item->match.connector != NULL ? item->match.connector->name
                                                           : item->part->connector);
    bh_json_key(&event.json, whole ? "rcpt" : "domain");
    bh_json_str(&event.json, whole ? bh_slice_take(address, 320) : item->part->domain);
    bh_json_key(&event.json, "mx");
    bh_json_str(&event.json, bh_slice_take(o->host, 255));
    if (o->ip.family != 0) {
        bh_json_key(&event.json, "ip");
        bh_json_cstr(&event.json, bh_ip_text(&o->ip, ip));
        bh_json_key(&event.json, "port");
        bh_json_u64(&event.json, o->port);
    }
    put_tls(&event.json, &item->lease->tls);
    event_record(e->options.events, &event);
}

static void log_recipient(const struct lease_item *item, size_t i)
{
    const struct bh_settle_recipient *r = &item->settle.recipients[i];
    const enum bh_log_level level = r->verdict == BH_VERDICT_DELIVERED ? BH_LOG_DEBUG : BH_LOG_INFO;
    char id[BH_QUEUE_ID_TEXT];
    char rcpt[BH_LOG_QUOTE_MAX];
    char text[BH_LOG_QUOTE_MAX];
    char tls[TLS_SEEN_TEXT];
    char why[BH_LOG_QUOTE_MAX];
    if (bh_log_on(level)) {
        bh_log(level,
               "evt=attempt msg=%s rcpt=%s mx=%.*s tls=\"%s\" tls_reason=%s code=%u result=%s "
               "text=%s",
               bh_queue_id_text(item->key.id, id),
               bh_log_quote(bh_slice_take(item->entry.recipients[i].to.address, 200), rcpt),
               BH_FMT(r->outcome.host), tls_seen_text(&item->lease->tls, tls),
               bh_log_quote(bh_slice_str(item->lease->tls.reason), why), r->outcome.code,
               r->uncertain ? "uncertain" : result_name(r->verdict),
               bh_log_quote(bh_slice_take(text_of(&r->outcome), 200), text));
    }
}

static void count_recipient(struct engine *e, const struct bh_settle_recipient *r)
{
    switch (r->verdict) {
    case BH_VERDICT_KEEP:
        e->deferred++;
        break;
    case BH_VERDICT_DELIVERED:
    case BH_VERDICT_DELIVERED_REPORT:
    case BH_VERDICT_RELAYED:
    case BH_VERDICT_EXPANDED:
        e->delivered++;
        break;
    case BH_VERDICT_BOUNCED:
    case BH_VERDICT_EXPIRED:
        e->bounced++;
        break;
    case BH_VERDICT_CANCELLED:
        break;
    }
}

static void tell(struct engine *e, const struct lease_item *item)
{
    for (size_t i = 0; i < item->settle.recipient_count; i++) {
        const struct bh_settle_recipient *r = &item->settle.recipients[i];
        if (r->tried) {
            count_recipient(e, r);
            log_recipient(item, i);
            tell_recipient(e, item, i);
            if (was_delivered(r)) {
                record_delivery(e, item, i);
            }
        }
    }
}

/* ---- leaving a lease ---- */

void lease_release(struct engine *e, struct lease *lease)
{
    BH_ASSERT(lease->open > 0);
    if (--lease->open == 0) {
        lease_destroy(lease);
        e->leases--;
    }
}

/* @return false: a bulk job passed it meanwhile, and comes first; then this is asked again */
static bool leave_lease(struct engine *e, struct lease_item *item)
{
    BH_ASSERT(!item->left);
    if (!leased_leave(e->options.leased, item->key, &item->passed)) {
        follow_item(e, item);
        return false;
    }
    item->left = true;
    if (item->slot != UINT32_MAX) {
        bh_inflight_release(e->options.inflight, item->slot);
        item->slot = UINT32_MAX;
    }
    lease_release(e, item->lease);
    return true;
}

void settle_skip(struct engine *e, struct lease_item *item)
{
    struct bh_sched_item *sched = item->sched;
    const bool returned = item->returned;
    const bool changed = item->changed;
    if (!leave_lease(e, item)) {
        return;
    }
    if (returned) {
        bh_sched_item_returned(e->sched, sched, engine_now(e));
    } else if (!changed) {
        bh_sched_item_skipped(e->sched, sched, engine_now(e));
    } else {
        bh_sched_item_gone(e->sched, sched, engine_now(e));
    }
}

/* It can't be settled: what may have gone out must not go out again, and nothing else waits for it.
 * It stays in the leased set and in its in-flight slot, as in a process that died: the next start
 * finds it there, and marks it uncertain if its content was sent. */
static void abandon(struct engine *e, struct lease_item *item, enum bh_status why)
{
    char id[BH_QUEUE_ID_TEXT];
    bh_log(
        BH_LOG_ERROR,
        "evt=settle_given_up msg=%s destination=%u error=\"%s\" action=\"not tried again by this "
        "process; bhctl check\"",
        bh_queue_id_text(item->key.id, id), (unsigned)item->key.destination, bh_status_name(why));
    BH_ASSERT(!item->left);
    item->left = true;
    lease_release(e, item->lease);
}

/* ---- batches ---- */

static enum bh_status run_settle(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct settle_batch *b = BH_CONTAINER(task, struct settle_batch, task);
    const struct bh_queue_notifier *notifier = notifier_begin(&b->notifier, b->now);
    for (size_t i = 0; i < b->count; i++) {
        struct bh_settle_result result;
        bh_inflight_handling(b->engine->options.inflight, store_thread_number(), BH_HANDLING_REPORT,
                             b->items[i]->key.id);
        const enum bh_status status =
            bh_queue_settle(q, txn, &b->items[i]->settle, notifier, &result);
        bh_inflight_handling(b->engine->options.inflight, store_thread_number(),
                             BH_HANDLING_NOTHING, 0);
        if (status == BH_ENOTFOUND) {
            char id[BH_QUEUE_ID_TEXT];
            bh_log(BH_LOG_ERROR, "evt=settle_without_entry msg=%s",
                   bh_queue_id_text(b->items[i]->key.id, id));
        } else if (status != BH_OK) {
            return status;
        }
    }
    return BH_OK;
}

static void done_settle(struct bh_store_task *task, enum bh_status status)
{
    struct settle_batch *b = BH_CONTAINER(task, struct settle_batch, task);
    b->status = status;
    b->letter.kind = ENGINE_SETTLED;
    bh_mailbox_post_always(b->engine->box, &b->letter);
}

void settle_add(struct engine *e, struct lease_item *item)
{
    if (e->batch == NULL) {
        e->batch = calloc(1, sizeof(*e->batch));
        if (e->batch == NULL) {
            /* It is judged, and its session is answered: once is enough. It waits for a batch. */
            item->next_settled = e->unbatched;
            e->unbatched = item;
            return;
        }
        e->batch->engine = e;
        notifier_init(&e->batch->notifier, e->options.cell);
    }
    e->batch->items[e->batch->count++] = item;
    if (e->batch->count == SETTLE_BATCH_MAX) {
        settle_flush(e);
    }
}

static void post_batch(struct engine *e, struct settle_batch *b)
{
    b->now = engine_now(e);
    b->task = (struct bh_store_task){.run = run_settle,
                                     .done = done_settle,
                                     .dirty_bytes = b->count * 4096,
                                     .removal = true,
                                     .atomic = true};
    e->settling++;
    bh_store_write_always(e->options.store, &b->task);
}

void settle_flush(struct engine *e)
{
    if (e->batch != NULL) {
        struct settle_batch *b = e->batch;
        e->batch = NULL;
        post_batch(e, b);
    }
}

void settle_retry(struct engine *e)
{
    struct settle_batch *b = e->failed;
    e->failed = NULL;
    while (b != NULL) {
        struct settle_batch *next = b->next;
        b->next = NULL;
        post_batch(e, b);
        b = next;
    }
    struct lease_item *item = e->unbatched;
    e->unbatched = NULL;
    while (item != NULL) {
        struct lease_item *next = item->next_settled;
        settle_add(e, item);
        item = next;
    }
}

static bool anybody_stays(const struct lease_item *item)
{
    for (size_t i = 0; i < item->settle.recipient_count; i++) {
        if (item->settle.recipients[i].verdict == BH_VERDICT_KEEP) {
            return true;
        }
    }
    return false;
}

void settle_leave(struct engine *e, struct lease_item *item)
{
    struct bh_sched_item *sched = item->sched;
    const enum bh_sched_signal signal = item->signal;
    const uint64_t sender_hash = item->entry.sender_hash;
    const uint32_t destination = item->part->sched_id;
    const uint32_t store_id = item->key.destination;
    const bool optional = elift_takes(&item->message.envelope);
    const bool remains = anybody_stays(item);
    struct dest_info *d = edest_get(e, destination);
    const bool warn = d != NULL && destination == store_id && !item->entry.warned &&
                      d->policy.retry.warn_ms > 0 && item->age_ms >= d->policy.retry.warn_ms;
    /* The outcome's text lives in the lease, which may end with this item. */
    struct lease *lease = item->lease;
    lease->open++;
    if (!leave_lease(e, item)) {
        lease_release(e, lease);
        return;
    }
    const struct bh_outcome *said = item->has_said ? &item->said : NULL;
    if (item->detours) {
        bh_sched_item_detour(e->sched, sched, said, engine_now(e));
    } else {
        bh_sched_item_done(e->sched, sched, signal, sender_hash, said, engine_now(e));
    }
    if (warn) {
        age_pass(e, destination, false, item->has_said ? &item->said : NULL);
    }
    if (remains) {
        bh_sched_dirty(e->sched, destination, engine_now(e));
    }
    if (remains && destination != store_id) {
        bh_sched_dirty(e->sched, store_id, engine_now(e));
    } else if (remains && optional && d != NULL && d->unmet_ends) {
        elift_look(e, d);
    }
    lease_release(e, lease);
}

/* One of them can't be settled: it must not keep the others from it. */
static void split_batch(struct engine *e, struct settle_batch *b)
{
    while (b->count > 1) {
        struct settle_batch *one = calloc(1, sizeof(*one));
        if (one == NULL) {
            break;
        }
        one->engine = e;
        notifier_init(&one->notifier, e->options.cell);
        one->items[one->count++] = b->items[--b->count];
        post_batch(e, one);
    }
    b->next = e->failed;
    e->failed = b;
}

/* Will it fail again the next time? Stored data is not what it should be; or this process ends and
 * has waited for space or memory as long as it may. */
static bool is_hopeless(const struct engine *e, const struct settle_batch *b)
{
    return (b->count == 1 && (b->status == BH_ECORRUPT || b->status == BH_EINVAL)) || e->hurried;
}

static void abandon_batch(struct engine *e, struct settle_batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        abandon(e, b->items[i], b->status);
    }
    notifier_fini(&b->notifier);
    free(b);
}

void settle_hurry(struct engine *e)
{
    e->hurried = true;
    struct settle_batch *b = e->failed;
    e->failed = NULL;
    while (b != NULL) {
        struct settle_batch *next = b->next;
        abandon_batch(e, b);
        b = next;
    }
}

void settle_on_done(struct engine *e, struct settle_batch *b)
{
    e->settling--;
    if (b->status != BH_OK && is_hopeless(e, b)) {
        abandon_batch(e, b);
        return;
    }
    if (b->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=settle_failed items=%zu error=\"%s\"", b->count,
               bh_status_name(b->status));
        if (b->count > 1 && b->status != BH_EIO && b->status != BH_EFULL) {
            split_batch(e, b);
        } else {
            b->next = e->failed; /* nothing is lost: the timer tries again */
            e->failed = b;
        }
        return;
    }
    for (const struct notify_made *made = b->notifier.made; made != NULL; made = made->next) {
        engine_note_made(e, made);
    }
    for (size_t i = 0; i < b->count; i++) {
        b->items[i]->settled = true;
        tell(e, b->items[i]);
        settle_leave(e, b->items[i]);
    }
    notifier_fini(&b->notifier);
    free(b);
}

/* ---- moving entries ---- */

struct move_task {
    struct bh_letter letter;
    struct bh_store_task task;
    struct engine *engine;
    struct bh_queue_key key;
    struct bh_now now;
    enum bh_status status;
    bool demote;
    struct lease_item *item; /* rebind */
    struct bh_queue_key to;
    char connector[NAME_MAX_OCTETS], domain[NAME_MAX_OCTETS];
    struct bh_slice connector_name, domain_name;
    struct engine_call call;
};

/* A fresh entry becomes one of the entry lane: a settle that keeps everybody, due at once. */
static enum bh_status run_demote(struct move_task *m, struct bh_queue *q, struct bh_kv_txn *txn)
{
    struct bh_arena arena;
    struct bh_entry entry;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_read_entry(txn, m->key, &arena, &entry);
    struct bh_settle_recipient *recipients =
        status == BH_OK
            ? bh_arena_alloc(&arena, entry.recipient_count * sizeof(struct bh_settle_recipient))
            : NULL;
    if (status == BH_OK && entry.lane == BH_LANE_FRESH) {
        const struct bh_settle settle = {.key = m->key,
                                         .lane = BH_LANE_FRESH,
                                         .recipients = recipients,
                                         .recipient_count = entry.recipient_count,
                                         .remaining = BH_ENTRY_DUE,
                                         .due_unix_ms = m->now.unix_ms};
        const struct bh_queue_notifier nobody = {.now = m->now};
        struct bh_settle_result result;
        status =
            recipients != NULL ? bh_queue_settle(q, txn, &settle, &nobody, &result) : BH_ENOMEM;
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static enum bh_status run_move(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct move_task *m = BH_CONTAINER(task, struct move_task, task);
    if (m->demote) {
        return run_demote(m, q, txn);
    }
    return bh_queue_rebind(q, txn, m->key, m->domain_name, m->connector_name, m->now, &m->to);
}

/* On the engine's thread. */
static void moved(struct engine_call *call, struct engine *e)
{
    struct move_task *m = BH_CONTAINER(call, struct move_task, call);
    e->pending--;
    if (m->status != BH_OK && m->status != BH_ENOTFOUND) {
        bh_log(BH_LOG_ERROR, "evt=move_failed destination=%u error=\"%s\"",
               (unsigned)m->key.destination, bh_status_name(m->status));
    }
    if (m->item != NULL) {
        m->item->at = m->status == BH_OK ? m->to : m->item->key;
        m->item->changed = m->status == BH_OK;
        settle_skip(e, m->item);
    }
    if (m->demote && m->status != BH_OK) {
        atomic_store(&e->lost_notes, true); /* it is still fresh: its lane is read again */
    }
    bh_sched_dirty(e->sched, m->key.destination, engine_now(e));
    elift_dirty(e, m->key.destination);
    if (!m->demote && m->status == BH_OK) {
        /* The destination it moved to may not be known here yet. */
        struct put_note *note = calloc(1, sizeof(*note) + sizeof(struct put_part));
        if (note != NULL) {
            note->count = 1;
            note->parts[0] = (struct put_part){
                .destination = m->to.destination, .part = m->to.part, .lane = BH_LANE_ENTRY};
            e->received--; /* it is no new mail */
            edest_on_put(e, note);
        }
    }
    free(m);
}

static void done_move(struct bh_store_task *task, enum bh_status status)
{
    struct move_task *m = BH_CONTAINER(task, struct move_task, task);
    m->status = status;
    m->call.run = moved;
    engine_call(m->engine, &m->call);
}

static void post_move(struct engine *e, struct move_task *m)
{
    m->engine = e;
    m->now = engine_now(e);
    m->task = (struct bh_store_task){
        .run = run_move, .done = done_move, .dirty_bytes = 8192, .removal = true, .atomic = true};
    e->pending++;
    bh_store_write_always(e->options.store, &m->task);
}

void settle_demote(struct engine *e, const struct bh_sched_item *item)
{
    struct move_task *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        atomic_store(&e->lost_notes, true); /* the fresh lane is read anew */
        return;
    }
    m->demote = true;
    m->key =
        (struct bh_queue_key){.destination = item->destination, .id = item->id, .part = item->part};
    post_move(e, m);
}

void settle_rebind(struct engine *e, struct lease_item *item)
{
    struct move_task *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        settle_skip(e, item);
        bh_sched_dirty(e->sched, item->key.destination, engine_now(e));
        return;
    }
    struct bh_buf connector = bh_buf(m->connector, sizeof(m->connector));
    struct bh_buf domain = bh_buf(m->domain, sizeof(m->domain));
    bh_buf_add_cut(&connector, bh_match_first_choice(&item->match)->name);
    bh_buf_add_cut(&domain, item->part->domain);
    m->connector_name = bh_buf_slice(&connector);
    m->domain_name = bh_buf_slice(&domain);
    m->key = item->key;
    m->item = item;
    post_move(e, m);
}
