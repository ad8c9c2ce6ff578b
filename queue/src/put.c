/* Accepting a message: its envelope and content, and for each destination its recipients, in parts
 * of at most 100, in the fresh lane where that is safe and cheap, else as entries. */
#include "queue_internal.h"

struct putting {
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    const struct bh_queue_put *put;
    int64_t now_unix_ms;
    struct bh_arena work; /* reset for each group */
    struct bh_arena kept; /* for the whole put */
    struct bh_message message;
    uint64_t sender_hash;
    struct bh_queue_part *parts; /* the result */
    size_t part_count;
    struct bh_queue_part_ref *refs;
    struct fresh_row fresh;
};

static size_t parts_of(const struct bh_queue_group *group)
{
    return (group->recipient_count + BH_RECIPIENTS_PER_ENTRY - 1) / BH_RECIPIENTS_PER_ENTRY;
}

static enum bh_status check(const struct bh_queue_put *put, size_t *part_count)
{
    *part_count = 0;
    if (put->group_count == 0 || put->group_count > UINT16_MAX ||
        put->envelope->sender.len > BH_ADDRESS_MAX) {
        return BH_EINVAL;
    }
    for (size_t i = 0; i < put->group_count; i++) {
        const struct bh_queue_group *group = &put->groups[i];
        if (group->recipient_count == 0 || group->domain.len == 0 ||
            group->domain.len > BH_DOMAIN_MAX || group->connector.len == 0 ||
            group->connector.len > BH_QUEUE_CONNECTOR_MAX ||
            bh_slice_find(group->domain, '\0') != group->domain.len) {
            return BH_EINVAL;
        }
        *part_count += parts_of(group);
    }
    if (*part_count > UINT16_MAX) {
        return BH_ELIMIT;
    }
    size_t octets = 0;
    for (size_t i = 0; i < put->content_count; i++) {
        octets += put->content[i].len;
    }
    if (put->open_id != 0) {
        return octets == 0 && put->head.len <= BH_QUEUE_CHUNK ? BH_OK : BH_EINVAL;
    }
    return put->head.len == 0 && octets == put->envelope->size ? BH_OK : BH_EINVAL;
}

/* ---- content ---- */

static enum bh_status put_chunk(struct putting *p, struct bh_slice chunk)
{
    const struct row_key key = key_chunk(p->message.content_id, p->message.chunks);
    p->message.chunks++;
    return bh_kv_put(p->txn, BH_KV_CONTENT, key_slice(&key), chunk, BH_KV_APPEND);
}

/* Cuts the pieces into chunks anew; a chunk that lies within one piece is not copied. */
static enum bh_status put_content(struct putting *p)
{
    char *storage = bh_arena_alloc(&p->kept, BH_QUEUE_CHUNK);
    if (storage == NULL) {
        return BH_ENOMEM;
    }
    struct bh_buf gathered = bh_buf(storage, BH_QUEUE_CHUNK);
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < p->put->content_count; i++) {
        struct bh_slice piece = p->put->content[i];
        while (piece.len > 0 && status == BH_OK) {
            if (gathered.len == 0 && piece.len >= BH_QUEUE_CHUNK) {
                status = put_chunk(p, bh_slice_take(piece, BH_QUEUE_CHUNK));
                piece = bh_slice_skip(piece, BH_QUEUE_CHUNK);
                continue;
            }
            piece = bh_slice_skip(piece, bh_buf_add_cut(&gathered, piece));
            if (bh_buf_room(&gathered) == 0) {
                status = put_chunk(p, bh_buf_slice(&gathered));
                gathered.len = 0;
            }
        }
    }
    return status == BH_OK && gathered.len > 0 ? put_chunk(p, bh_buf_slice(&gathered)) : status;
}

/* Content that came in as a large message is there already, under its own id. */
static enum bh_status adopt_content(struct putting *p)
{
    const struct row_key key = key_id(p->put->open_id);
    struct bh_slice row;
    struct open_row open;
    enum bh_status status = bh_kv_get(p->txn, BH_KV_OPEN, key_slice(&key), &row);
    if (status == BH_OK) {
        status = record_open_decode(row, &open);
    }
    if (status != BH_OK) {
        return status;
    }
    if (open.octets != p->put->envelope->size) {
        return BH_EINVAL;
    }
    p->message.content_id = p->put->open_id;
    p->message.chunks = open.chunks;
    return must_exist(bh_kv_del(p->txn, BH_KV_OPEN, key_slice(&key)));
}

/* The id of a large message is known only now: its trace line goes over the place kept for it. */
static enum bh_status put_head(struct putting *p)
{
    const struct bh_slice head = p->put->head;
    const struct row_key key = key_chunk(p->message.content_id, 0);
    struct bh_slice chunk;
    if (head.len == 0) {
        return BH_OK;
    }
    enum bh_status status = bh_kv_get(p->txn, BH_KV_CONTENT, key_slice(&key), &chunk);
    if (status != BH_OK || chunk.len < head.len) {
        return status == BH_OK ? BH_EINVAL : status;
    }
    char *storage = bh_arena_alloc(&p->kept, chunk.len);
    if (storage == NULL) {
        return BH_ENOMEM;
    }
    memcpy(storage, chunk.ptr, chunk.len);
    memcpy(storage, head.ptr, head.len);
    return bh_kv_put(p->txn, BH_KV_CONTENT, key_slice(&key), bh_slice(storage, chunk.len), 0);
}

/* ---- parts ---- */

static bool may_be_fresh(const struct putting *p, const struct bh_queue_group *group,
                         const struct bh_destination *d, size_t parts)
{
    const struct bh_queue *q = p->q;
    return group->hint == BH_HINT_FRESH_OK && group->hold.len == 0 &&
           p->fresh.part_count + parts <= FRESH_PARTS_MAX &&
           bh_queue_fresh_count(q) < q->limits.fresh_max &&
           fresh_count_get(q, d->id) + parts <= q->limits.fresh_window && !d->held && !d->parked &&
           d->backoff_stage == 0 && d->next_event_unix_ms <= p->now_unix_ms;
}

static enum bh_status put_fresh_part(struct putting *p, const struct bh_destination *d,
                                     const struct bh_queue_part *part,
                                     const struct bh_recipient *to)
{
    p->fresh.parts[p->fresh.part_count++] =
        (struct fresh_part){.destination = d->id,
                            .part = part->part,
                            .recipient_count = part->recipients,
                            .stopped_base_ms = bh_destination_stopped_ms(d, p->now_unix_ms),
                            .recipients = to};
    return fresh_count_add(p->q, d->id, 1);
}

static enum bh_status put_entry_part(struct putting *p, struct bh_destination *d,
                                     const struct bh_queue_part *part,
                                     const struct bh_recipient *to, struct bh_slice hold)
{
    struct bh_entry e = {
        .key = {.destination = d->id, .id = p->message.id, .part = part->part},
        .lane = BH_LANE_ENTRY,
        .state = BH_ENTRY_READY,
        .arrival_unix_ms = p->message.origin.arrival_unix_ms,
        .size = p->message.envelope.size,
        .sender_hash = p->sender_hash,
        .sender_null = p->message.envelope.sender.len == 0,
        .stopped_base_ms = bh_destination_stopped_ms(d, p->now_unix_ms),
        .recipient_count = part->recipients,
    };
    e.recipients = bh_arena_alloc(&p->work, e.recipient_count * sizeof(e.recipients[0]));
    if (e.recipients == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < e.recipient_count; i++) {
        e.recipients[i].to = to[i];
    }
    if (hold.len > 0) {
        entry_set_state(&e, d, BH_ENTRY_HELD, 0, hold, p->now_unix_ms);
    }
    return entry_insert(p->txn, d, &e, &p->work);
}

static enum bh_status put_group(struct putting *p, size_t index)
{
    const struct bh_queue_group *group = &p->put->groups[index];
    struct bh_destination d;
    bh_arena_reset(&p->work);
    enum bh_status status =
        destination_resolve(p->txn, group->domain, group->connector, p->now_unix_ms, &p->work, &d);
    if (status != BH_OK) {
        return status;
    }
    const size_t parts = parts_of(group);
    const bool fresh = may_be_fresh(p, group, &d, parts);
    for (size_t i = 0; i < parts && status == BH_OK; i++) {
        const size_t first = i * BH_RECIPIENTS_PER_ENTRY;
        const size_t left = group->recipient_count - first;
        struct bh_queue_part *part = &p->parts[p->part_count];
        *part = (struct bh_queue_part){
            .destination = d.id,
            .part = (uint16_t)p->part_count,
            .recipients =
                (uint16_t)(left < BH_RECIPIENTS_PER_ENTRY ? left : BH_RECIPIENTS_PER_ENTRY),
            .lane = fresh ? BH_LANE_FRESH : BH_LANE_ENTRY,
            .group = (uint16_t)index,
            .first = (uint32_t)first,
        };
        p->refs[p->part_count++] =
            (struct bh_queue_part_ref){.destination = d.id, .part = part->part};
        status = fresh ? put_fresh_part(p, &d, part, group->recipients + first)
                       : put_entry_part(p, &d, part, group->recipients + first, group->hold);
    }
    return status == BH_OK && !fresh ? destination_save(p->txn, &d, &p->work) : status;
}

static enum bh_status put_fresh_row(struct putting *p)
{
    if (p->fresh.part_count == 0) {
        return BH_OK;
    }
    p->fresh.arrival_unix_ms = p->message.origin.arrival_unix_ms;
    p->fresh.size = p->message.envelope.size;
    p->fresh.sender_hash = p->sender_hash;
    p->fresh.sender_null = p->message.envelope.sender.len == 0;
    struct bh_slice row;
    enum bh_status status = record_fresh_encode(&p->fresh, &p->kept, &row);
    if (status == BH_OK) {
        const struct row_key key = key_id(p->message.id);
        status = bh_kv_put(p->txn, BH_KV_FRESH, key_slice(&key), row, BH_KV_APPEND);
    }
    return status == BH_OK ? fresh_count_add(p->q, 0, 1) : status;
}

static enum bh_status put_message_row(struct putting *p)
{
    p->message.parts = p->refs;
    p->message.part_count = (uint32_t)p->part_count;
    struct bh_slice row;
    const enum bh_status status = record_message_encode(&p->message, &p->kept, &row);
    if (status != BH_OK) {
        return status;
    }
    const struct row_key key = key_id(p->message.id);
    return bh_kv_put(p->txn, BH_KV_MESSAGE, key_slice(&key), row, BH_KV_APPEND);
}

static enum bh_status put_all(struct putting *p)
{
    const struct bh_queue_put *put = p->put;
    /* Content that was appended asked for its room then. */
    const size_t room = put->open_id == 0 ? (size_t)put->envelope->size : 0;
    enum bh_status status = put->internal ? BH_OK : bh_kv_room(p->txn, room);
    if (status == BH_OK && put->open_id != 0) {
        status = adopt_content(p);
    }
    if (status == BH_OK) {
        status = queue_next_id(p->txn, p->now_unix_ms, &p->message.id);
    }
    if (status == BH_OK && put->stamp != NULL) {
        put->stamp(put->stamp_ctx, p->message.id);
    }
    if (status == BH_OK && put->open_id != 0) {
        status = put_head(p);
    }
    if (status == BH_OK && put->open_id == 0) {
        p->message.content_id = p->message.id;
        status = put_content(p);
    }
    for (size_t i = 0; i < put->group_count && status == BH_OK; i++) {
        status = put_group(p, i);
    }
    if (status == BH_OK) {
        status = put_fresh_row(p);
    }
    return status == BH_OK ? put_message_row(p) : status;
}

enum bh_status bh_queue_put(struct bh_queue *q, struct bh_kv_txn *txn,
                            const struct bh_queue_put *put, struct bh_now now,
                            struct bh_arena *arena, struct bh_queue_put_result *result)
{
    size_t part_count;
    enum bh_status status = check(put, &part_count);
    if (status != BH_OK) {
        return status;
    }
    struct putting p = {
        .q = q,
        .txn = txn,
        .put = put,
        .now_unix_ms = now.unix_ms,
        .message = {.envelope = *put->envelope, .origin = *put->origin},
        .sender_hash = bh_hash(put->envelope->sender, 0),
        .parts = bh_arena_alloc(arena, part_count * sizeof(*p.parts)),
    };
    bh_arena_init(&p.work, WORK_ARENA);
    bh_arena_init(&p.kept, WORK_ARENA);
    p.refs = bh_arena_alloc(&p.kept, part_count * sizeof(*p.refs));
    status = p.parts != NULL && p.refs != NULL ? put_all(&p) : BH_ENOMEM;
    if (status == BH_OK) {
        *result = (struct bh_queue_put_result){
            .id = p.message.id, .parts = p.parts, .part_count = p.part_count};
    }
    bh_arena_fini(&p.work);
    bh_arena_fini(&p.kept);
    return status;
}
