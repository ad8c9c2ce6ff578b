#include "queue_internal.h"

#define SLOT_WIDTH_MS (5 * BH_MINUTE_MS) /* of a new arrival slot */

/* ---- values ---- */

int64_t bh_destination_stopped_ms(const struct bh_destination *d, int64_t now_unix_ms)
{
    const bool stopped = d->held || d->parked;
    const int64_t running = stopped ? now_unix_ms - d->stopped_since_unix_ms : 0;
    return d->stopped_ms + (running > 0 ? running : 0);
}

int64_t bh_entry_age_ms(const struct bh_entry *e, const struct bh_destination *d,
                        int64_t now_unix_ms)
{
    const int64_t stopped = bh_destination_stopped_ms(d, now_unix_ms);
    int64_t age = now_unix_ms - e->arrival_unix_ms - (stopped - e->stopped_base_ms) - e->held_ms;
    if (e->state == BH_ENTRY_HELD) {
        /* Of the time on hold, what the destination stood still is counted above already. */
        age -= now_unix_ms - e->held_since_unix_ms - (stopped - e->held_stopped_ms);
    }
    return age > 0 ? age : 0;
}

uint64_t bh_destination_entries(const struct bh_destination *d)
{
    return d->count[BH_ENTRY_READY].entries + d->count[BH_ENTRY_DUE].entries +
           d->count[BH_ENTRY_HELD].entries;
}

int64_t bh_destination_next_event(const struct bh_destination *d, int64_t first_due_unix_ms)
{
    if (d->held) {
        return d->hold_until_unix_ms;
    }
    if (d->count[BH_ENTRY_READY].entries + d->count[BH_ENTRY_DUE].entries == 0) {
        return BH_QUEUE_NEVER;
    }
    if (d->next_event_unix_ms > 0) {
        return d->next_event_unix_ms;
    }
    if (d->count[BH_ENTRY_READY].entries > 0 || d->flush_up_to_id > 0) {
        return 0;
    }
    return first_due_unix_ms;
}

void bh_destination_ages(const struct bh_destination *d, int64_t now_unix_ms,
                         uint64_t ages[BH_AGE_BUCKETS])
{
    static const int64_t bounds[BH_AGE_BUCKETS - 1] = {5 * BH_MINUTE_MS, BH_HOUR_MS, 4 * BH_HOUR_MS,
                                                       BH_DAY_MS};
    for (unsigned i = 0; i < BH_AGE_BUCKETS; i++) {
        ages[i] = 0;
    }
    for (unsigned i = 0; i < d->slot_count; i++) {
        const struct bh_arrival_slot *slot = &d->slots[i];
        const int64_t middle = slot->start_unix_ms + (slot->end_unix_ms - slot->start_unix_ms) / 2;
        unsigned bucket = 0;
        while (bucket < BH_AGE_BUCKETS - 1 && now_unix_ms - middle > bounds[bucket]) {
            bucket++;
        }
        ages[bucket] += slot->count;
    }
}

const char *bh_entry_state_name(enum bh_entry_state state)
{
    static const char *const names[BH_ENTRY_STATES] = {"ready", "due", "held"};
    BH_ASSERT((unsigned)state < BH_ENTRY_STATES);
    return names[state];
}

/* ---- arrival slots: disjoint intervals, so that each entry's slot is found from its arrival ----
 */

/* The pair of neighbours that together look shortest from the newest slot becomes one. */
static void slots_merge(struct bh_destination *d)
{
    const int64_t newest = d->slots[d->slot_count - 1].end_unix_ms;
    unsigned best = 0;
    double best_cost = 0;
    for (unsigned i = 0; i + 1 < d->slot_count; i++) {
        const int64_t span = d->slots[i + 1].end_unix_ms - d->slots[i].start_unix_ms;
        const int64_t age = newest - d->slots[i].start_unix_ms;
        const double cost = (double)span / (double)age;
        /* The newest pair always costs 1: it is only taken if there is no other. */
        if (i == 0 || cost < best_cost) {
            best = i;
            best_cost = cost;
        }
    }
    d->slots[best].end_unix_ms = d->slots[best + 1].end_unix_ms;
    d->slots[best].count += d->slots[best + 1].count;
    memmove(&d->slots[best + 1], &d->slots[best + 2],
            (d->slot_count - best - 2) * sizeof(d->slots[0]));
    d->slot_count--;
}

/* The first slot that ends after the arrival; slot_count if none does. */
static unsigned slot_at(const struct bh_destination *d, int64_t arrival_unix_ms)
{
    unsigned i = 0;
    while (i < d->slot_count && d->slots[i].end_unix_ms <= arrival_unix_ms) {
        i++;
    }
    return i;
}

void slots_add(struct bh_destination *d, int64_t arrival_unix_ms)
{
    unsigned i = slot_at(d, arrival_unix_ms);
    if (i < d->slot_count && d->slots[i].start_unix_ms <= arrival_unix_ms) {
        d->slots[i].count++;
        return;
    }
    if (d->slot_count == BH_QUEUE_SLOTS_MAX) {
        slots_merge(d);
        slots_add(d, arrival_unix_ms); /* the merged pair may cover it now; depth 1 */
        return;
    }
    /* A new slot in the gap, as wide as a slot is, or the gap. */
    int64_t start = arrival_unix_ms - arrival_unix_ms % SLOT_WIDTH_MS;
    if (start > arrival_unix_ms) {
        start -= SLOT_WIDTH_MS; /* before 1970 */
    }
    int64_t end = start + SLOT_WIDTH_MS;
    if (i > 0 && start < d->slots[i - 1].end_unix_ms) {
        start = d->slots[i - 1].end_unix_ms;
    }
    if (i < d->slot_count && end > d->slots[i].start_unix_ms) {
        end = d->slots[i].start_unix_ms;
    }
    memmove(&d->slots[i + 1], &d->slots[i], (d->slot_count - i) * sizeof(d->slots[0]));
    d->slots[i] = (struct bh_arrival_slot){.start_unix_ms = start, .end_unix_ms = end, .count = 1};
    d->slot_count++;
}

bool slots_remove(struct bh_destination *d, int64_t arrival_unix_ms)
{
    const unsigned i = slot_at(d, arrival_unix_ms);
    if (i == d->slot_count || d->slots[i].start_unix_ms > arrival_unix_ms) {
        return false;
    }
    if (--d->slots[i].count == 0) {
        memmove(&d->slots[i], &d->slots[i + 1], (d->slot_count - i - 1) * sizeof(d->slots[0]));
        d->slot_count--;
    }
    return true;
}

void destination_count(struct bh_destination *d, const struct bh_entry *e)
{
    struct bh_count *count = &d->count[e->state];
    count->entries++;
    count->bytes += e->size;
    count->recipients += e->recipient_count;
    d->empty_since_unix_ms = 0;
}

bool destination_uncount(struct bh_destination *d, const struct bh_entry *e, int64_t now_unix_ms)
{
    struct bh_count *count = &d->count[e->state];
    if (count->entries == 0 || count->bytes < e->size || count->recipients < e->recipient_count) {
        return false;
    }
    count->entries--;
    count->bytes -= e->size;
    count->recipients -= e->recipient_count;
    if (bh_destination_entries(d) == 0) {
        d->empty_since_unix_ms = now_unix_ms;
        d->flush_up_to_id = 0;
        d->flush_unix_ms = 0;
    }
    return true;
}

void destination_rewind(struct bh_destination *d, uint64_t id)
{
    const uint64_t before = id > 0 ? id - 1 : 0;
    d->warn_cursor = d->warn_cursor < before ? d->warn_cursor : before;
    d->expire_cursor = d->expire_cursor < before ? d->expire_cursor : before;
    d->expire_null_cursor = d->expire_null_cursor < before ? d->expire_null_cursor : before;
}

/* ---- rows ---- */

enum bh_status destination_load(struct bh_kv_txn *txn, uint32_t id, struct bh_arena *arena,
                                struct bh_destination *d)
{
    const struct row_key key = key_destination(id);
    struct bh_slice row;
    enum bh_status status = row_get(txn, BH_KV_DESTINATION, key_slice(&key), arena, &row);
    if (status == BH_OK) {
        status = record_destination_decode(row, d);
        d->id = id;
    }
    return status;
}

bool destination_has_wake(const struct bh_destination *d)
{
    return bh_destination_entries(d) > 0 || (d->held && d->hold_until_unix_ms != BH_QUEUE_NEVER);
}

static enum bh_status save_wake(struct bh_kv_txn *txn, struct bh_destination *d)
{
    int64_t wake = -1;
    if (destination_has_wake(d)) {
        int64_t first_due = BH_QUEUE_NEVER;
        if (d->count[BH_ENTRY_DUE].entries > 0) {
            const enum bh_status status = bh_queue_first_due(txn, d->id, &first_due);
            if (status != BH_OK) {
                return status;
            }
        }
        wake = bh_destination_next_event(d, first_due);
    }
    if (wake == d->wake_unix_ms) {
        return BH_OK;
    }
    enum bh_status status = BH_OK;
    if (d->wake_unix_ms >= 0) {
        const struct row_key key = key_wake(d->wake_unix_ms, d->id);
        status = must_exist(bh_kv_del(txn, BH_KV_WAKE, key_slice(&key)));
    }
    if (status == BH_OK && wake >= 0) {
        const struct row_key key = key_wake(wake, d->id);
        status = bh_kv_put(txn, BH_KV_WAKE, key_slice(&key), BH_EMPTY, 0);
    }
    d->wake_unix_ms = wake;
    return status;
}

enum bh_status destination_save(struct bh_kv_txn *txn, struct bh_destination *d,
                                struct bh_arena *arena)
{
    enum bh_status status = save_wake(txn, d);
    struct bh_slice row;
    if (status == BH_OK) {
        status = record_destination_encode(d, arena, &row);
    }
    if (status == BH_OK) {
        const struct row_key key = key_destination(d->id);
        status = bh_kv_put(txn, BH_KV_DESTINATION, key_slice(&key), row, 0);
    }
    return status;
}

enum bh_status bh_queue_find_destination(struct bh_kv_txn *txn, struct bh_slice domain,
                                         struct bh_slice connector, uint32_t *id)
{
    if (domain.len > BH_DOMAIN_MAX || connector.len > BH_QUEUE_CONNECTOR_MAX) {
        return BH_ENOTFOUND;
    }
    const struct name_key name = key_name(domain, connector);
    struct bh_slice value;
    const enum bh_status status =
        bh_kv_get(txn, BH_KV_DESTINATION_NAME, bh_slice(name.octets, name.len), &value);
    if (status != BH_OK) {
        return status;
    }
    if (value.len != 4) {
        return BH_ECORRUPT;
    }
    *id = bh_get_be32(value.ptr);
    return BH_OK;
}

static enum bh_status create(struct bh_kv_txn *txn, struct bh_slice domain,
                             struct bh_slice connector, int64_t now_unix_ms,
                             struct bh_destination *d, struct bh_arena *arena)
{
    *d = (struct bh_destination){.domain = domain,
                                 .connector = connector,
                                 .created_unix_ms = now_unix_ms,
                                 .empty_since_unix_ms = now_unix_ms,
                                 .wake_unix_ms = -1};
    enum bh_status status = queue_next_destination_id(txn, &d->id);
    if (status != BH_OK) {
        return status;
    }
    char id[4];
    bh_put_be32(id, d->id);
    const struct name_key name = key_name(domain, connector);
    status = bh_kv_put(txn, BH_KV_DESTINATION_NAME, bh_slice(name.octets, name.len),
                       bh_slice(id, sizeof(id)), 0);
    return status == BH_OK ? destination_save(txn, d, arena) : status;
}

enum bh_status destination_resolve(struct bh_kv_txn *txn, struct bh_slice domain,
                                   struct bh_slice connector, int64_t now_unix_ms,
                                   struct bh_arena *arena, struct bh_destination *d)
{
    if (domain.len == 0 || domain.len > BH_DOMAIN_MAX || connector.len == 0 ||
        connector.len > BH_QUEUE_CONNECTOR_MAX || bh_slice_find(domain, '\0') != domain.len) {
        return BH_EINVAL;
    }
    uint32_t id;
    const enum bh_status status = bh_queue_find_destination(txn, domain, connector, &id);
    if (status == BH_OK) {
        return must_exist(destination_load(txn, id, arena, d));
    }
    return status == BH_ENOTFOUND ? create(txn, domain, connector, now_unix_ms, d, arena) : status;
}

enum bh_status bh_queue_read_destination(struct bh_kv_txn *txn, uint32_t id, struct bh_arena *arena,
                                         struct bh_destination *destination)
{
    return destination_load(txn, id, arena, destination);
}

enum bh_status bh_queue_next_destination(struct bh_kv_txn *txn, uint32_t after,
                                         struct bh_arena *arena, struct bh_destination *destination)
{
    if (after == UINT32_MAX) {
        return BH_ENOTFOUND;
    }
    const struct row_key from = key_destination(after + 1);
    struct bh_slice key;
    struct bh_slice value;
    const enum bh_status status = row_seek(txn, BH_KV_DESTINATION, key_slice(&from), &key, &value);
    if (status != BH_OK) {
        return status;
    }
    return key.len == 4 ? destination_load(txn, bh_get_be32(key.ptr), arena, destination)
                        : BH_ECORRUPT;
}

enum bh_status bh_queue_next_destination_of(struct bh_kv_txn *txn, struct bh_slice domain,
                                            uint32_t after, struct bh_arena *arena,
                                            struct bh_destination *destination)
{
    if (domain.len > BH_DOMAIN_MAX) {
        return BH_ENOTFOUND;
    }
    struct name_key prefix = key_name(domain, BH_EMPTY);
    for (size_t i = 0; i < prefix.len; i++) {
        prefix.octets[i] = bh_lower(prefix.octets[i]);
    }
    const struct bh_slice begin = bh_slice(prefix.octets, prefix.len);
    uint32_t next = 0;
    struct bh_kv_cursor *cursor;
    struct bh_slice key;
    struct bh_slice value;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_DESTINATION_NAME, &cursor);
    if (status != BH_OK) {
        return status;
    }
    for (status = bh_kv_seek(cursor, begin, &key, &value);
         status == BH_OK && bh_slice_starts(key, begin);
         status = bh_kv_next(cursor, &key, &value)) {
        if (value.len != 4) {
            status = BH_ECORRUPT;
            break;
        }
        const uint32_t id = bh_get_be32(value.ptr);
        next = id > after && (next == 0 || id < next) ? id : next;
    }
    bh_kv_cursor_close(cursor);
    if (status != BH_OK && status != BH_ENOTFOUND) {
        return status;
    }
    return next > 0 ? must_exist(destination_load(txn, next, arena, destination)) : BH_ENOTFOUND;
}
