#include "bh/dns_cache.h"

#include <stdlib.h>

#include "bh/map.h"
#include "bh/wire.h"

#define KEY_PREFIX ((size_t)6) /* the set and the type, before the name */
#define KEY_MAX (KEY_PREFIX + BH_DNS_NAME_MAX)

/* One block: this struct, its records, its key, then the octets that the answer points to. */
struct entry {
    struct bh_map_node node;
    struct entry *newer;
    struct entry *older;
    uint64_t expires_ms;
    size_t octets; /* of the whole block */
    struct bh_dns_answer answer;
    struct bh_dns_record records[];
};

struct bh_dns_cache {
    struct bh_dns_cache_config config;
    struct bh_map map;
    struct entry *newest;
    struct entry *oldest;
    size_t octets;
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
};

struct bh_dns_cache_config bh_dns_cache_defaults(void)
{
    return (struct bh_dns_cache_config){
        .entries_max = 50000,
        .octets_max = (size_t)32 << 20,
        .ttl_min_s = 5,
        .ttl_max_s = 3600,
        .negative_ttl_max_s = 300,
        .failure_ttl_s = 5,
    };
}

struct bh_dns_cache *bh_dns_cache_create(const struct bh_dns_cache_config *config)
{
    BH_ASSERT(config->entries_max > 0);
    BH_ASSERT(config->octets_max > 0);
    BH_ASSERT(config->ttl_min_s <= config->ttl_max_s);
    struct bh_dns_cache *cache = calloc(1, sizeof(*cache));
    if (cache != NULL) {
        cache->config = *config;
    }
    return cache;
}

static void unlink_entry(struct bh_dns_cache *cache, struct entry *entry)
{
    if (entry->newer != NULL) {
        entry->newer->older = entry->older;
    } else {
        cache->newest = entry->older;
    }
    if (entry->older != NULL) {
        entry->older->newer = entry->newer;
    } else {
        cache->oldest = entry->newer;
    }
    entry->newer = NULL;
    entry->older = NULL;
}

static void link_newest(struct bh_dns_cache *cache, struct entry *entry)
{
    entry->older = cache->newest;
    if (cache->newest != NULL) {
        cache->newest->newer = entry;
    } else {
        cache->oldest = entry;
    }
    cache->newest = entry;
}

static void drop(struct bh_dns_cache *cache, struct entry *entry)
{
    unlink_entry(cache, entry);
    bh_map_remove(&cache->map, &entry->node);
    BH_ASSERT(cache->octets >= entry->octets);
    cache->octets -= entry->octets;
    free(entry);
}

void bh_dns_cache_clear(struct bh_dns_cache *cache)
{
    while (cache->newest != NULL) {
        drop(cache, cache->newest);
    }
    BH_ASSERT(cache->octets == 0);
}

void bh_dns_cache_destroy(struct bh_dns_cache *cache)
{
    if (cache != NULL) {
        bh_dns_cache_clear(cache);
        bh_map_fini(&cache->map);
        free(cache);
    }
}

/* @return the key in `storage`, or an empty slice for a name that is too long to be one */
static struct bh_slice make_key(uint32_t set, struct bh_slice name, uint16_t type,
                                char storage[KEY_MAX])
{
    if (name.len > BH_DNS_NAME_MAX) {
        return BH_EMPTY;
    }
    bh_put_be32(storage, set);
    bh_put_be16(storage + 4, type);
    if (name.len > 0) {
        memcpy(storage + KEY_PREFIX, name.ptr, name.len);
    }
    return bh_slice(storage, KEY_PREFIX + name.len);
}

static struct entry *find(const struct bh_dns_cache *cache, struct bh_slice key)
{
    struct bh_map_node *node = bh_map_find(&cache->map, key);
    return node != NULL ? BH_CONTAINER(node, struct entry, node) : NULL;
}

enum bh_status bh_dns_cache_get(struct bh_dns_cache *cache, uint32_t set, struct bh_slice name,
                                uint16_t type, uint64_t now_ms, struct bh_arena *arena,
                                struct bh_dns_answer *answer)
{
    char storage[KEY_MAX];
    struct entry *entry = find(cache, make_key(set, name, type, storage));
    if (entry != NULL && entry->expires_ms <= now_ms) {
        drop(cache, entry);
        entry = NULL;
    }
    enum bh_status status = BH_ENOTFOUND;
    if (entry != NULL) {
        status = bh_dns_answer_copy(&entry->answer, arena, answer);
    }
    if (entry == NULL || status != BH_OK) {
        cache->misses++;
        return status;
    }
    answer->ttl_s = (uint32_t)((entry->expires_ms - now_ms + 999) / 1000);
    cache->hits++;
    unlink_entry(cache, entry);
    link_newest(cache, entry);
    return BH_OK;
}

static uint32_t clamp(uint32_t value, uint32_t least, uint32_t most)
{
    value = value < least ? least : value;
    return value > most ? most : value;
}

static uint32_t ttl_for(const struct bh_dns_cache_config *config,
                        const struct bh_dns_answer *answer)
{
    switch (answer->status) {
    case BH_DNS_FOUND:
        return clamp(answer->ttl_s, config->ttl_min_s, config->ttl_max_s);
    case BH_DNS_NODATA:
    case BH_DNS_NXDOMAIN:
        /* Without an SOA nobody said how long the answer holds (RFC 2308 section 5). */
        return answer->has_soa ? clamp(answer->ttl_s, config->ttl_min_s, config->negative_ttl_max_s)
                               : config->failure_ttl_s;
    case BH_DNS_SERVFAIL:
    case BH_DNS_BOGUS:
    case BH_DNS_GARBLED:
    case BH_DNS_TIMEOUT:
        return config->failure_ttl_s;
    case BH_DNS_OVERLOAD:
    case BH_DNS_CANCELLED:
        break;
    }
    return 0;
}

static struct bh_slice pack(char **at, struct bh_slice s)
{
    if (s.len == 0) {
        return BH_EMPTY;
    }
    memcpy(*at, s.ptr, s.len);
    const struct bh_slice packed = bh_slice(*at, s.len);
    *at += s.len;
    return packed;
}

static struct entry *make_entry(struct bh_slice key, const struct bh_dns_answer *answer)
{
    size_t octets = sizeof(struct entry) + answer->records_len * sizeof(struct bh_dns_record);
    const size_t texts_at = octets;
    octets += key.len + answer->name.len;
    for (size_t i = 0; i < answer->records_len; i++) {
        octets += answer->records[i].name.len + answer->records[i].data.len;
    }
    struct entry *entry = calloc(1, octets);
    if (entry == NULL) {
        return NULL;
    }
    char *at = (char *)entry + texts_at;
    entry->octets = octets;
    entry->node.key = pack(&at, key);
    entry->answer = *answer;
    entry->answer.name = pack(&at, answer->name);
    entry->answer.records = entry->records;
    for (size_t i = 0; i < answer->records_len; i++) {
        entry->records[i] = answer->records[i];
        entry->records[i].name = pack(&at, answer->records[i].name);
        entry->records[i].data = pack(&at, answer->records[i].data);
    }
    BH_ASSERT(at == (char *)entry + octets);
    return entry;
}

uint32_t bh_dns_cache_put(struct bh_dns_cache *cache, uint32_t set, struct bh_slice name,
                          const struct bh_dns_answer *answer, uint64_t now_ms)
{
    const uint32_t ttl_s = ttl_for(&cache->config, answer);
    char storage[KEY_MAX];
    const struct bh_slice key = make_key(set, name, answer->type, storage);
    struct entry *older = find(cache, key);
    if (older != NULL) {
        drop(cache, older);
    }
    if (ttl_s == 0 || key.len == 0) {
        return ttl_s;
    }
    struct entry *entry = make_entry(key, answer);
    if (entry == NULL || entry->octets > cache->config.octets_max) {
        free(entry);
        return ttl_s;
    }
    while (cache->map.count >= cache->config.entries_max ||
           cache->octets > cache->config.octets_max - entry->octets) {
        drop(cache, cache->oldest);
        cache->evictions++;
    }
    if (bh_map_insert(&cache->map, &entry->node) != BH_OK) {
        free(entry);
        return ttl_s;
    }
    entry->expires_ms = now_ms + (uint64_t)ttl_s * 1000;
    entry->answer.ttl_s = ttl_s;
    cache->octets += entry->octets;
    link_newest(cache, entry);
    return ttl_s;
}

/* Is `name` the same as `parent`, or below it? */
static bool is_within(struct bh_slice name, struct bh_slice parent)
{
    if (name.len <= parent.len) {
        return bh_slice_eq(name, parent);
    }
    const size_t dot = name.len - parent.len - 1;
    return parent.len == 0 ||
           (name.ptr[dot] == '.' && bh_slice_eq(bh_slice_skip(name, dot + 1), parent));
}

size_t bh_dns_cache_forget(struct bh_dns_cache *cache, struct bh_slice name)
{
    size_t count = 0;
    for (struct entry *entry = cache->newest; entry != NULL;) {
        struct entry *older = entry->older;
        if (is_within(bh_slice_skip(entry->node.key, KEY_PREFIX), name)) {
            drop(cache, entry);
            count++;
        }
        entry = older;
    }
    return count;
}

void bh_dns_cache_forget_one(struct bh_dns_cache *cache, uint32_t set, struct bh_slice name,
                             uint16_t type)
{
    char storage[KEY_MAX];
    struct entry *entry = find(cache, make_key(set, name, type, storage));
    if (entry != NULL) {
        drop(cache, entry);
    }
}

struct bh_dns_cache_stats bh_dns_cache_stats(const struct bh_dns_cache *cache)
{
    return (struct bh_dns_cache_stats){
        .hits = cache->hits,
        .misses = cache->misses,
        .evictions = cache->evictions,
        .entries = cache->map.count,
        .octets = cache->octets,
    };
}
