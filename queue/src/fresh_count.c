/* How much of the fresh lane belongs to whom: counted in memory, with a journal, so that a
 * transaction that does not commit leaves no trace here either. */
#include "queue_internal.h"

#include <stdlib.h>

static struct bh_slice count_key(const uint32_t *destination)
{
    return bh_slice(destination, sizeof(*destination));
}

static struct fresh_count *lookup(const struct bh_queue *q, uint32_t destination)
{
    struct bh_map_node *node = bh_map_find(&q->fresh, count_key(&destination));
    return node != NULL ? BH_CONTAINER(node, struct fresh_count, node) : NULL;
}

static struct fresh_count *lookup_or_create(struct bh_queue *q, uint32_t destination)
{
    struct fresh_count *count = lookup(q, destination);
    if (count != NULL) {
        return count;
    }
    count = calloc(1, sizeof(*count));
    if (count == NULL) {
        return NULL;
    }
    count->destination = destination;
    count->node.key = count_key(&count->destination);
    if (bh_map_insert(&q->fresh, &count->node) != BH_OK) {
        free(count);
        return NULL;
    }
    return count;
}

uint32_t fresh_count_get(const struct bh_queue *q, uint32_t destination)
{
    const struct fresh_count *count = lookup(q, destination);
    return count != NULL ? count->count : 0;
}

uint32_t bh_queue_fresh_count(const struct bh_queue *q)
{
    return fresh_count_get(q, 0);
}

enum bh_status fresh_count_add(struct bh_queue *q, uint32_t destination, int32_t by)
{
    if (q->journal_len == q->journal_cap) {
        const size_t cap = q->journal_cap > 0 ? q->journal_cap * 2 : 256;
        struct fresh_delta *journal = realloc(q->journal, cap * sizeof(*journal));
        if (journal == NULL) {
            return BH_ENOMEM;
        }
        q->journal = journal;
        q->journal_cap = cap;
    }
    struct fresh_count *count = lookup_or_create(q, destination);
    if (count == NULL) {
        return BH_ENOMEM;
    }
    BH_ASSERT(by > 0 || count->count >= (uint32_t)-by);
    count->count = (uint32_t)((int64_t)count->count + by);
    q->journal[q->journal_len++] = (struct fresh_delta){.count = count, .by = by};
    return BH_OK;
}

/* Counters that fell to zero go, so that memory follows the destinations that have fresh mail. A
 * counter may stand in the journal many times: the first line that meets it takes it out. */
static void forget_journal(struct bh_queue *q)
{
    for (size_t i = 0; i < q->journal_len; i++) {
        struct fresh_count *count = q->journal[i].count;
        if (count->count == 0 && !count->dying) {
            count->dying = true;
            bh_map_remove(&q->fresh, &count->node);
        } else {
            q->journal[i].count = NULL;
        }
    }
    for (size_t i = 0; i < q->journal_len; i++) {
        free(q->journal[i].count);
    }
    q->journal_len = 0;
}

static void take_back(struct bh_queue *q, size_t mark)
{
    while (q->journal_len > mark) {
        const struct fresh_delta *line = &q->journal[--q->journal_len];
        line->count->count = (uint32_t)((int64_t)line->count->count - line->by);
    }
}

enum bh_status bh_queue_begin(struct bh_queue *q, struct bh_kv_txn *parent, struct bh_kv_txn **txn)
{
    BH_ASSERT((parent == NULL) == (q->depth == 0));
    BH_ASSERT(q->depth < NEST_MAX);
    const enum bh_status status = bh_kv_begin(q->kv, BH_KV_WRITE, parent, txn);
    if (status == BH_OK) {
        q->marks[q->depth++] = q->journal_len;
    }
    return status;
}

enum bh_status bh_queue_commit(struct bh_queue *q, struct bh_kv_txn *txn)
{
    BH_ASSERT(q->depth > 0);
    const enum bh_status status = bh_kv_commit(txn);
    q->depth--;
    if (status != BH_OK) {
        take_back(q, q->marks[q->depth]);
    }
    if (q->depth == 0) {
        forget_journal(q);
    }
    return status;
}

void bh_queue_abort(struct bh_queue *q, struct bh_kv_txn *txn)
{
    BH_ASSERT(q->depth > 0);
    bh_kv_abort(txn);
    q->depth--;
    take_back(q, q->marks[q->depth]);
}

enum bh_status fresh_count_all(struct bh_queue *q, struct bh_kv_txn *txn)
{
    struct bh_kv_cursor *cursor;
    enum bh_status status = bh_kv_cursor_open(txn, BH_KV_FRESH, &cursor);
    if (status != BH_OK) {
        return status;
    }
    struct bh_arena arena;
    bh_arena_init(&arena, WORK_ARENA);
    struct bh_slice key;
    struct bh_slice value;
    status = bh_kv_first(cursor, &key, &value);
    while (status == BH_OK) {
        struct fresh_row row;
        bh_arena_reset(&arena);
        status = record_fresh_decode(value, &arena, &row);
        for (uint16_t p = 0; status == BH_OK && p < row.part_count; p++) {
            status = fresh_count_add(q, row.parts[p].destination, 1);
        }
        if (status == BH_OK) {
            status = fresh_count_add(q, 0, 1);
        }
        if (status == BH_OK) {
            status = bh_kv_next(cursor, &key, &value);
        }
    }
    q->journal_len = 0;
    bh_arena_fini(&arena);
    bh_kv_cursor_close(cursor);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

void fresh_count_fini(struct bh_queue *q)
{
    for (struct bh_map_node *node = bh_map_next(&q->fresh, NULL); node != NULL;) {
        struct bh_map_node *next = bh_map_next(&q->fresh, node);
        free(BH_CONTAINER(node, struct fresh_count, node));
        node = next;
    }
    bh_map_fini(&q->fresh);
    free(q->journal);
}
