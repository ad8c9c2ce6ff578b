/* leased.h - which entries are with a session, or about to be: the one fact that the engine's
 * thread shares with the store's. Jobs, expiry and warnings ask it before they touch an entry,
 * inside their transaction. It holds no state of the queue; its lock is held for one look-up. */
#pragma once

#include <pthread.h>

#include "bh/queue_types.h"
#include "bh/status.h"

struct leased_set {
    pthread_mutex_t lock;
    struct bh_queue_key *table; /* open addressing; destination 0 is an empty place */
    size_t mask;
    size_t count;
};

/** @param max most keys at a time. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status leased_init(struct leased_set *set, size_t max);
void leased_fini(struct leased_set *set);
/** @return BH_OK, BH_EEXIST (it is leased already), or BH_EFULL */
BH_MUST_USE enum bh_status leased_add(struct leased_set *set, struct bh_queue_key key);
void leased_remove(struct leased_set *set, struct bh_queue_key key);
/** For the queue's in_flight callbacks: ctx is the set. */
bool leased_has(void *ctx, struct bh_queue_key key);
