/* leased.h - which entries are with a session, or about to be: the one fact that the engine's
 * thread shares with the store's. Jobs, expiry and warnings ask it before they touch an entry,
 * inside their transaction. It holds no state of the queue; its lock is held for one look-up. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "bh/queue_types.h"
#include "bh/status.h"

/* Whose an entry is. What the writer keeps for itself, within one of its transactions, is no
 * hindrance to its other work. */
enum leased_by { LEASED_BY_SESSION, LEASED_BY_WRITER };

/* A bulk job chose an entry that was in flight, and could not act on it. */
struct leased_pass {
    struct leased_pass *next;
    uint64_t job;
};

/* The jobs that passed an entry. */
struct leased_passed {
    struct leased_pass *first;
    bool unknown; /* and others, which are not noted for want of memory */
};

struct leased_place {
    struct bh_queue_key key; /* destination 0: an empty place */
    bool by_writer;
    struct leased_passed passed;
};

struct leased_set {
    pthread_mutex_t lock;
    struct leased_place *table; /* open addressing */
    size_t mask;
    size_t count;
    size_t unfollowed;         /* passed by a job, which is not carried out on them yet */
    atomic_uint_fast64_t jobs; /* bulk jobs committed since start */
};

/** @param max most keys at a time. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status leased_init(struct leased_set *set, size_t max);
void leased_fini(struct leased_set *set);
/** @return BH_OK, BH_EEXIST (it is leased already), or BH_EFULL */
BH_MUST_USE enum bh_status leased_add(struct leased_set *set, struct bh_queue_key key,
                                      enum leased_by by);
/** Give it free again, unless a bulk job has passed it since it was taken: then the jobs must be
 * carried out on it first (and leased_followed called), before anybody else is given it.
 * @param passed  which they are is added to what is in it
 * @return false: it was passed, and is still taken */
BH_MUST_USE bool leased_leave(struct leased_set *set, struct bh_queue_key key,
                              struct leased_passed *passed);
/** Forget who passed. */
void leased_passed_fini(struct leased_passed *passed);
/** Give it free again, whatever passed it. */
void leased_remove(struct leased_set *set, struct bh_queue_key key);
/** For the queue's in_flight callbacks: ctx is the set. */
bool leased_has(void *ctx, struct bh_queue_key key);
/** The same for a bulk job: that it passed what is with a session is remembered. On the writer's
 * thread.
 * @param job  its id; 0: one that can't be told */
bool leased_pass(struct leased_set *set, struct bh_queue_key key, uint64_t job);
/** The jobs were carried out on one for which leased_leave had said false. */
void leased_followed(struct leased_set *set);
/** Passed entries on which their job is still to be carried out. */
size_t leased_unfollowed(struct leased_set *set);
