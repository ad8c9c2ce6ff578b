/* dns_cache.h - answers kept for their TTL, bounded in entries and octets; the least recently used
 * go first. Negative answers by RFC 2308, failures for a few seconds. Pure: the time is an
 * argument. Memory: one block per entry from malloc, freed on eviction. */
#pragma once

#include "bh/dns_message.h"

struct bh_dns_cache;

struct bh_dns_cache_config {
    size_t entries_max;          /* > 0 */
    size_t octets_max;           /* of all entries with their bookkeeping; > 0 */
    uint32_t ttl_min_s;          /* floor of FOUND, so that TTL 0 makes no storm */
    uint32_t ttl_max_s;          /* ceiling of FOUND */
    uint32_t negative_ttl_max_s; /* ceiling of NODATA and NXDOMAIN */
    uint32_t failure_ttl_s;      /* SERVFAIL, BOGUS, GARBLED, TIMEOUT; 0: not kept */
};

/** 50,000 entries, 32 MiB, TTL 5 s to 1 h, negative up to 5 min, failures 5 s. */
struct bh_dns_cache_config bh_dns_cache_defaults(void);

struct bh_dns_cache_stats {
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions; /* for want of room, not by age */
    size_t entries;
    size_t octets;
};

/** @return NULL for want of memory */
struct bh_dns_cache *bh_dns_cache_create(const struct bh_dns_cache_config *config);
void bh_dns_cache_destroy(struct bh_dns_cache *cache);

/** Look up. A hit is copied to the arena with the TTL that is left (at least 1 s).
 *
 * @param set   the resolver set that answered: sets never see each other's answers
 * @param name  normalised
 * @return BH_OK, BH_ENOTFOUND, BH_ENOMEM (the arena is at its cap; counted as a miss) */
BH_MUST_USE enum bh_status bh_dns_cache_get(struct bh_dns_cache *cache, uint32_t set,
                                            struct bh_slice name, uint16_t type, uint64_t now_ms,
                                            struct bh_arena *arena, struct bh_dns_answer *answer);
/** Keep a copy, in place of an older one. OVERLOAD and CANCELLED are never kept, and for want of
 * memory nothing is: a cache may forget.
 *
 * @return the TTL in seconds under which the answer is to be used: after floor and ceiling */
uint32_t bh_dns_cache_put(struct bh_dns_cache *cache, uint32_t set, struct bh_slice name,
                          const struct bh_dns_answer *answer, uint64_t now_ms);
/** Drop what is known of this name and the names below it, in every set. O(entries).
 * @return how many entries went */
size_t bh_dns_cache_forget(struct bh_dns_cache *cache, struct bh_slice name);
/** Drop this name's answer of this type alone, if there is one. */
void bh_dns_cache_forget_one(struct bh_dns_cache *cache, uint32_t set, struct bh_slice name,
                             uint16_t type);
/** Drop everything. */
void bh_dns_cache_clear(struct bh_dns_cache *cache);
struct bh_dns_cache_stats bh_dns_cache_stats(const struct bh_dns_cache *cache);
