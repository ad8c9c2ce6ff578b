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
    set->unfollowed = 0;
    atomic_init(&set->jobs, 0);
    if (set->table == NULL) {
        return BH_ENOMEM;
    }
    pthread_mutex_init(&set->lock, NULL);
    return BH_OK;
}

void leased_fini(struct leased_set *set)
{
    for (size_t i = 0; set->table != NULL && set->count > 0 && i <= set->mask; i++) {
        leased_passed_fini(&set->table[i].passed);
    }
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
    while (set->table[i].key.destination != 0 && !same(set->table[i].key, key)) {
        i = (i + 1) & set->mask;
    }
    return i;
}

enum bh_status leased_add(struct leased_set *set, struct bh_queue_key key, enum leased_by by)
{
    BH_ASSERT(key.destination != 0);
    enum bh_status status = BH_OK;
    pthread_mutex_lock(&set->lock);
    const size_t i = find(set, key);
    if (set->table[i].key.destination != 0) {
        status = BH_EEXIST;
    } else if (set->count > set->mask / 2) {
        status = BH_EFULL;
    } else {
        set->table[i] = (struct leased_place){.key = key, .by_writer = by == LEASED_BY_WRITER};
        set->count++;
    }
    pthread_mutex_unlock(&set->lock);
    return status;
}

/* Close the gap, so that no probe ends early. */
static void close_gap(struct leased_set *set, size_t hole)
{
    set->count--;
    for (size_t i = (hole + 1) & set->mask; set->table[i].key.destination != 0;
         i = (i + 1) & set->mask) {
        const size_t at = home(set, set->table[i].key);
        if (((i - at) & set->mask) >= ((i - hole) & set->mask)) {
            set->table[hole] = set->table[i];
            hole = i;
        }
    }
    set->table[hole] = (struct leased_place){0};
}

void leased_passed_fini(struct leased_passed *passed)
{
    while (passed->first != NULL) {
        struct leased_pass *pass = passed->first;
        passed->first = pass->next;
        free(pass);
    }
    passed->unknown = false;
}

static bool was_passed(const struct leased_place *place)
{
    return place->passed.first != NULL || place->passed.unknown;
}

/* The notes of a place go to `passed`. */
static void take_passes(struct leased_place *place, struct leased_passed *passed)
{
    while (place->passed.first != NULL) {
        struct leased_pass *pass = place->passed.first;
        place->passed.first = pass->next;
        pass->next = passed->first;
        passed->first = pass;
    }
    passed->unknown = passed->unknown || place->passed.unknown;
    place->passed.unknown = false;
}

bool leased_leave(struct leased_set *set, struct bh_queue_key key, struct leased_passed *passed)
{
    pthread_mutex_lock(&set->lock);
    const size_t i = find(set, key);
    BH_ASSERT(set->table[i].key.destination != 0);
    const bool free_now = !was_passed(&set->table[i]);
    if (free_now) {
        close_gap(set, i);
    } else {
        take_passes(&set->table[i], passed);
    }
    pthread_mutex_unlock(&set->lock);
    return free_now;
}

void leased_remove(struct leased_set *set, struct bh_queue_key key)
{
    pthread_mutex_lock(&set->lock);
    const size_t i = find(set, key);
    BH_ASSERT(set->table[i].key.destination != 0);
    set->unfollowed -= was_passed(&set->table[i]) ? 1 : 0;
    leased_passed_fini(&set->table[i].passed);
    close_gap(set, i);
    pthread_mutex_unlock(&set->lock);
}

bool leased_has(void *ctx, struct bh_queue_key key)
{
    struct leased_set *set = ctx;
    pthread_mutex_lock(&set->lock);
    const bool has = set->table[find(set, key)].key.destination != 0;
    pthread_mutex_unlock(&set->lock);
    return has;
}

/* Once for each job, however often its slice is run. */
static void note_pass(struct leased_passed *passed, uint64_t job)
{
    for (const struct leased_pass *pass = passed->first; pass != NULL; pass = pass->next) {
        if (pass->job == job) {
            return;
        }
    }
    struct leased_pass *pass = job != 0 ? malloc(sizeof(*pass)) : NULL;
    if (pass == NULL) {
        passed->unknown = true;
        return;
    }
    *pass = (struct leased_pass){.next = passed->first, .job = job};
    passed->first = pass;
}

bool leased_pass(struct leased_set *set, struct bh_queue_key key, uint64_t job)
{
    pthread_mutex_lock(&set->lock);
    struct leased_place *place = &set->table[find(set, key)];
    const bool has = place->key.destination != 0 && !place->by_writer;
    if (has) {
        set->unfollowed += was_passed(place) ? 0 : 1;
        note_pass(&place->passed, job);
    }
    pthread_mutex_unlock(&set->lock);
    return has;
}

void leased_followed(struct leased_set *set)
{
    pthread_mutex_lock(&set->lock);
    BH_ASSERT(set->unfollowed > 0);
    set->unfollowed--;
    pthread_mutex_unlock(&set->lock);
}

size_t leased_unfollowed(struct leased_set *set)
{
    pthread_mutex_lock(&set->lock);
    const size_t count = set->unfollowed;
    pthread_mutex_unlock(&set->lock);
    return count;
}
