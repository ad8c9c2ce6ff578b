#include "leased.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/slice.h"

enum bh_status leased_init(struct leased_set *set, size_t max)
{
    size_t size = 64;
    while (size < max * 2) {
        size *= 2;
    }
    set->table = calloc(size, sizeof(*set->table));
    set->mask = size - 1;
    set->count = 0;
    if (set->table == NULL) {
        return BH_ENOMEM;
    }
    pthread_mutex_init(&set->lock, NULL);
    return BH_OK;
}

void leased_fini(struct leased_set *set)
{
    pthread_mutex_destroy(&set->lock);
    free(set->table);
    set->table = NULL;
}

static bool same(struct bh_queue_key a, struct bh_queue_key b)
{
    return a.destination == b.destination && a.id == b.id && a.part == b.part;
}

static size_t home(const struct leased_set *set, struct bh_queue_key key)
{
    const uint64_t mixed[2] = {key.id, (uint64_t)key.destination << 16 | key.part};
    return (size_t)bh_hash(bh_slice(mixed, sizeof(mixed)), 0) & set->mask;
}

/* Where the key is, or the empty place where it would go. */
static size_t find(const struct leased_set *set, struct bh_queue_key key)
{
    size_t i = home(set, key);
    while (set->table[i].destination != 0 && !same(set->table[i], key)) {
        i = (i + 1) & set->mask;
    }
    return i;
}

enum bh_status leased_add(struct leased_set *set, struct bh_queue_key key)
{
    BH_ASSERT(key.destination != 0);
    enum bh_status status = BH_OK;
    pthread_mutex_lock(&set->lock);
    const size_t i = find(set, key);
    if (set->table[i].destination != 0) {
        status = BH_EEXIST;
    } else if (set->count > set->mask / 2) {
        status = BH_EFULL;
    } else {
        set->table[i] = key;
        set->count++;
    }
    pthread_mutex_unlock(&set->lock);
    return status;
}

void leased_remove(struct leased_set *set, struct bh_queue_key key)
{
    pthread_mutex_lock(&set->lock);
    size_t hole = find(set, key);
    BH_ASSERT(set->table[hole].destination != 0);
    set->count--;
    /* Close the gap, so that no probe ends early. */
    for (size_t i = (hole + 1) & set->mask; set->table[i].destination != 0;
         i = (i + 1) & set->mask) {
        const size_t at = home(set, set->table[i]);
        if (((i - at) & set->mask) >= ((i - hole) & set->mask)) {
            set->table[hole] = set->table[i];
            hole = i;
        }
    }
    set->table[hole].destination = 0;
    pthread_mutex_unlock(&set->lock);
}

bool leased_has(void *ctx, struct bh_queue_key key)
{
    struct leased_set *set = ctx;
    pthread_mutex_lock(&set->lock);
    const bool has = set->table[find(set, key)].destination != 0;
    pthread_mutex_unlock(&set->lock);
    return has;
}
