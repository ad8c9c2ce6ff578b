/* resolver_internal.h - what the parts of the resolver share: lookups (resolver.c), the tries that
 * carry them (tries.c), and jobs that need many lookups (target_jobs.c). */
#pragma once

#include "bh/map.h"
#include "bh/resolver.h"
#include "channel.h"
#include "servers.h"

#define LOOKUP_ARENA_MAX ((size_t)512 << 10)

struct waiter {
    struct waiter *next;
    bh_resolver_answer_fn *cb;
    void *ctx;
};

/* One question, for all who ask it. In the map while it is open. */
struct lookup {
    struct bh_map_node node; /* key: the type, then the name */
    struct bh_resolver *resolver;
    struct lookup *next; /* in a server's queue, or among the done */
    struct waiter *waiters;
    struct waiter **waiters_tail;
    struct bh_arena arena;
    struct bh_slice name;    /* as asked */
    struct bh_slice current; /* what is asked now: the end of the CNAME chain so far */
    uint16_t type;
    uint16_t aliases; /* of earlier answers in the chain */
    uint32_t chain_ttl_s;
    bool chain_secure;
    unsigned hops;
    uint32_t tried; /* servers of this round, as bits */
    uint32_t round;
    size_t server;               /* being asked, or queued at */
    enum bh_dns_status failure;  /* the most telling so far; TIMEOUT at first */
    uint64_t sent_ms;            /* the last try, by uv_now */
    struct bh_dns_answer answer; /* when done */
};

struct lookup_queue {
    struct lookup *first;
    struct lookup *last;
};

struct channel_slot {
    struct dns_channel *channel; /* NULL: empty */
    size_t server;
    bool retiring; /* takes no more queries; destroyed when the last has ended */
};

#define CHANNEL_SLOTS ((size_t)24) /* 8 or as many as there are servers, and those that retire */

struct target_job;

struct bh_resolver {
    uv_loop_t *loop;
    struct bh_resolver_config config;
    struct bh_dns_cache *cache;
    bool own_cache;
    struct dns_servers servers;
    struct lookup_queue waiting[DNS_SERVERS_MAX];
    uint32_t budget[DNS_SERVERS_MAX]; /* queries that may be sent at once; see tries.c */
    uint64_t refilled_ms[DNS_SERVERS_MAX];
    struct channel_slot slots[CHANNEL_SLOTS];
    struct bh_map open; /* of struct lookup */
    size_t lookups;     /* open and done */
    size_t waiters;
    struct lookup_queue done;
    struct target_job *done_jobs;
    struct bh_rng rng;
    uint16_t ids[128]; /* random query ids not yet used */
    size_t ids_left;
    uv_timer_t kick;   /* runs settle() from the loop */
    uv_timer_t health; /* probes silent servers */
    uv_timer_t pace;   /* goes on with a burst */
    bool settling;
    bool closing;
    unsigned closing_handles; /* timers and channels whose close callback is to come */
    void (*on_destroyed)(void *ctx);
    void *on_destroyed_ctx;
    struct bh_resolver_stats stats;
};

void lookup_queue_push(struct lookup_queue *queue, struct lookup *lookup);
struct lookup *lookup_queue_pop(struct lookup_queue *queue); /* NULL: empty */

/* resolver.c */
uint64_t resolver_cache_now_ms(const struct bh_resolver *r);
/** Do what has become possible, until nothing has: callbacks, waiting lookups, old channels. */
void resolver_settle(struct bh_resolver *r);
/** Run resolver_settle soon, from the loop. */
void resolver_kick(struct bh_resolver *r);
/** Join or open a lookup, past the cache. `name` is normalised. @return as bh_resolver_query */
BH_MUST_USE enum bh_status resolver_join(struct bh_resolver *r, struct bh_slice name, uint16_t type,
                                         bh_resolver_answer_fn *cb, void *ctx);
/** The lookup is over; its callbacks come with the next settle. lookup->answer is set. */
void resolver_finish(struct lookup *lookup);
/** A handle or channel is closed; the last one frees the resolver. */
void resolver_release(struct bh_resolver *r);
/** Random ids for queries, from the kernel. @return BH_OK or BH_EIO */
BH_MUST_USE enum bh_status resolver_next_id(struct bh_resolver *r, uint16_t *id);

/* tries.c */
/** Queue the lookup at the next server, or finish it when there is none. */
void tries_next(struct lookup *lookup);
/** Send what waits, as far as channels have room. @return true if anything was sent or ended */
bool tries_pump(struct bh_resolver *r);
/** Destroy retired channels that are idle; with `all`, every channel. */
void tries_sweep(struct bh_resolver *r, bool all);
/** End what waits for a channel as cancelled. */
void tries_cancel_waiting(struct bh_resolver *r);
/** Arm the timer of the next probe. */
void tries_arm_health(struct bh_resolver *r);

/* target_jobs.c */
/** Call back and free the jobs that are done. @return true if there was one */
bool target_jobs_deliver(struct bh_resolver *r);
