/* resolver.h - lookups on a libuv loop through c-ares: one cache, equal questions asked once,
 * server health of our own. One thread: that of its loop. Callbacks come from the loop, never from
 * inside the call that asked.
 *
 * c-ares 1.18 hides SERVFAIL, forgets silent servers at once and drops packets above some 200
 * queries in flight. So each channel has one server and one try, at most 128 queries, and lives a
 * few seconds (which renews its source port); choosing the next server is done here. */
#pragma once

#include <uv.h>

#include "bh/dns_cache.h"
#include "bh/mx_targets.h"

struct bh_resolver;

struct bh_resolver_config {
    const struct bh_slice
        *servers;            /* "192.0.2.1", "127.0.0.1:5302", "[::1]:53"; at most 8, in order */
    size_t servers_len;      /* 0: the nameserver lines of resolv_conf */
    const char *resolv_conf; /* NULL: /etc/resolv.conf */
    uint32_t timeout_ms;     /* one try at one server; 0: 2000 */
    uint32_t rounds;         /* over the servers, while none answers; 0: 2 */
    bool trusted;            /* the AD bit of these servers is believed (RFC 7672 section 2.1) */
    bool no_edns;            /* ask without OPT records */
    uint32_t channels_max;   /* 0: 8 */
    uint32_t channel_queries_max; /* in flight in one channel; 0: 128; at most 128 */
    uint32_t channel_life_ms;     /* then it takes no more queries; 0: 5000 */
    uint32_t lookups_max;         /* open lookups, waiting ones too; 0: 8192 */
    uint32_t silent_after;        /* timeouts in a row that make a server silent; 0: 2 */
    uint32_t probe_ms; /* a silent server is probed after this; doubles to 8 times; 0: 5000 */
    struct bh_dns_cache_config cache;
    struct bh_dns_cache *shared_cache; /* NULL: a cache of its own from `cache` */
    uint32_t set;                      /* key of its answers in a shared cache */
    uint64_t (*now_ms)(void *ctx);     /* clock of the cache; NULL: that of the loop */
    void *now_ctx;
};

/** All zero but the cache, which has its defaults. */
struct bh_resolver_config bh_resolver_defaults(void);

struct bh_resolver_stats {
    uint64_t queries;   /* asked by callers */
    uint64_t sent;      /* tries at servers */
    uint64_t joined;    /* met an equal question in flight */
    uint64_t timeouts;  /* tries that no server answered */
    uint64_t failures;  /* lookups that ended without an answer */
    uint64_t refused;   /* BH_EFULL */
    uint32_t in_flight; /* tries now */
    uint32_t waiting;   /* lookups that wait for a channel now */
    uint32_t channels;  /* open now */
    uint32_t servers;
    uint32_t servers_silent;
    struct bh_dns_cache_stats cache;
};

/** @param name  as asked, normalised. @param answer  borrowed for the call; never NULL */
typedef void bh_resolver_answer_fn(void *ctx, struct bh_slice name,
                                   const struct bh_dns_answer *answer);
/** @param list  borrowed for the call (bh_target_list_copy keeps it); never NULL */
typedef void bh_resolver_targets_fn(void *ctx, const struct bh_target_list *list);

/** Start. The config is copied.
 *
 * @return BH_OK; BH_EINVAL: a server that is no address, too many, or none to be found (reading the
 *         loopback address into an empty list, as c-ares does, would hide a mistake); BH_ENOMEM;
 *         BH_EIO: resolv_conf can't be read */
BH_MUST_USE enum bh_status bh_resolver_create(uv_loop_t *loop,
                                              const struct bh_resolver_config *config,
                                              struct bh_resolver **resolver);
/** Stop. Open lookups end with BH_DNS_CANCELLED (their callbacks run inside this call; they must
 * not ask again); `done` is called from the loop when the last handle is closed and the memory
 * freed. */
void bh_resolver_destroy(struct bh_resolver *resolver, void (*done)(void *ctx), void *ctx);

/** Look up. With BH_OK the callback comes exactly once.
 *
 * @return BH_OK, BH_EINVAL (no such name can be), BH_EFULL (lookups_max), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_resolver_query(struct bh_resolver *resolver, struct bh_slice name,
                                             uint16_t type, bh_resolver_answer_fn *cb, void *ctx);
/** Find the targets of a domain or of smarthosts. The request's own values are copied; what its
 * filter points to is borrowed until the callback.
 *
 * @return as above */
BH_MUST_USE enum bh_status bh_resolver_targets(struct bh_resolver *resolver,
                                               const struct bh_target_request *request,
                                               bh_resolver_targets_fn *cb, void *ctx);
/** Forget what is known, good or bad, of a domain, the names below it, and the hosts of its MX. */
void bh_resolver_forget(struct bh_resolver *resolver, struct bh_slice domain);
/** Forget the name servers of the root: bh_resolver_forget would be everything. */
void bh_resolver_forget_root(struct bh_resolver *resolver);
/** Forget everything that was answered. */
void bh_resolver_forget_all(struct bh_resolver *resolver);
struct bh_resolver_stats bh_resolver_stats(const struct bh_resolver *resolver);
