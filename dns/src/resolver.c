#include "bh/resolver.h"

#include <sys/select.h> /* ares.h needs it and does not say so */

#include <ares.h>
#include <stdlib.h>
#include <sys/random.h>

#include "bh/log.h"
#include "bh/wire.h"
#include "resolver_internal.h"

#define WAITERS_PER_LOOKUP 8 /* of lookups_max, in all */

struct bh_resolver_config bh_resolver_defaults(void)
{
    return (struct bh_resolver_config){.cache = bh_dns_cache_defaults()};
}

void lookup_queue_push(struct lookup_queue *queue, struct lookup *lookup)
{
    lookup->next = NULL;
    if (queue->last != NULL) {
        queue->last->next = lookup;
    } else {
        queue->first = lookup;
    }
    queue->last = lookup;
}

struct lookup *lookup_queue_pop(struct lookup_queue *queue)
{
    struct lookup *lookup = queue->first;
    if (lookup != NULL) {
        queue->first = lookup->next;
        queue->last = queue->first == NULL ? NULL : queue->last;
        lookup->next = NULL;
    }
    return lookup;
}

uint64_t resolver_cache_now_ms(const struct bh_resolver *r)
{
    return r->config.now_ms != NULL ? r->config.now_ms(r->config.now_ctx) : uv_now(r->loop);
}

enum bh_status resolver_next_id(struct bh_resolver *r, uint16_t *id)
{
    if (r->ids_left == 0) {
        /* Up to 256 octets the kernel gives at once, or not at all. */
        if (getrandom(r->ids, sizeof(r->ids), 0) != (ssize_t)sizeof(r->ids)) {
            bh_log(BH_LOG_ERROR, "evt=getrandom_failed");
            return BH_EIO;
        }
        r->ids_left = BH_COUNT(r->ids);
    }
    *id = r->ids[--r->ids_left];
    return BH_OK;
}

/* ---- lookups ---- */

static struct lookup *make_lookup(struct bh_resolver *r, struct bh_slice name, uint16_t type)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        return NULL;
    }
    bh_arena_init(&lookup->arena, LOOKUP_ARENA_MAX);
    char *key = bh_arena_alloc(&lookup->arena, 2 + name.len);
    if (key == NULL) {
        free(lookup);
        return NULL;
    }
    bh_put_be16(key, type);
    memcpy(key + 2, name.ptr, name.len);
    lookup->node.key = bh_slice(key, 2 + name.len);
    lookup->name = bh_slice(key + 2, name.len);
    lookup->current = lookup->name;
    lookup->resolver = r;
    lookup->type = type;
    lookup->waiters_tail = &lookup->waiters;
    lookup->chain_ttl_s = UINT32_MAX;
    lookup->chain_secure = true;
    lookup->failure = BH_DNS_TIMEOUT;
    r->lookups++;
    return lookup;
}

static void free_lookup(struct lookup *lookup)
{
    BH_ASSERT(lookup->waiters == NULL);
    BH_ASSERT(lookup->resolver->lookups > 0);
    lookup->resolver->lookups--;
    bh_arena_fini(&lookup->arena);
    free(lookup);
}

static enum bh_status add_waiter(struct lookup *lookup, bh_resolver_answer_fn *cb, void *ctx)
{
    struct bh_resolver *r = lookup->resolver;
    if (r->waiters >= (size_t)r->config.lookups_max * WAITERS_PER_LOOKUP) {
        r->stats.refused++;
        return BH_EFULL;
    }
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (waiter == NULL) {
        return BH_ENOMEM;
    }
    *waiter = (struct waiter){NULL, cb, ctx};
    *lookup->waiters_tail = waiter;
    lookup->waiters_tail = &waiter->next;
    r->waiters++;
    return BH_OK;
}

static struct lookup *find_open(const struct bh_resolver *r, struct bh_slice name, uint16_t type)
{
    char key[2 + BH_DNS_NAME_MAX];
    BH_ASSERT(name.len <= BH_DNS_NAME_MAX);
    bh_put_be16(key, type);
    memcpy(key + 2, name.ptr, name.len);
    struct bh_map_node *node = bh_map_find(&r->open, bh_slice(key, 2 + name.len));
    return node != NULL ? BH_CONTAINER(node, struct lookup, node) : NULL;
}

enum bh_status resolver_join(struct bh_resolver *r, struct bh_slice name, uint16_t type,
                             bh_resolver_answer_fn *cb, void *ctx)
{
    struct lookup *open = find_open(r, name, type);
    r->stats.queries++;
    if (open != NULL) {
        r->stats.joined++;
        return add_waiter(open, cb, ctx);
    }
    if (r->lookups >= r->config.lookups_max) {
        r->stats.refused++;
        return BH_EFULL;
    }
    struct lookup *lookup = make_lookup(r, name, type);
    if (lookup == NULL) {
        return BH_ENOMEM;
    }
    enum bh_status status = add_waiter(lookup, cb, ctx);
    if (status != BH_OK) {
        free_lookup(lookup);
        return status;
    }
    status = bh_map_insert(&r->open, &lookup->node);
    if (status != BH_OK) {
        r->waiters--;
        free(lookup->waiters);
        lookup->waiters = NULL;
        free_lookup(lookup);
        return status;
    }
    tries_next(lookup);
    resolver_kick(r);
    return BH_OK;
}

void resolver_finish(struct lookup *lookup)
{
    struct bh_resolver *r = lookup->resolver;
    bh_map_remove(&r->open, &lookup->node);
    r->stats.failures += bh_dns_is_answer(lookup->answer.status) ? 0 : 1;
    lookup->answer.ttl_s = bh_dns_cache_put(r->cache, r->config.set, lookup->name, &lookup->answer,
                                            resolver_cache_now_ms(r));
    lookup_queue_push(&r->done, lookup);
    resolver_kick(r);
}

/* A hit is a lookup that is done before it was open. */
static enum bh_status from_cache(struct bh_resolver *r, struct bh_slice name, uint16_t type,
                                 bh_resolver_answer_fn *cb, void *ctx)
{
    struct lookup *lookup = make_lookup(r, name, type);
    if (lookup == NULL) {
        return BH_ENOMEM;
    }
    enum bh_status status =
        bh_dns_cache_get(r->cache, r->config.set, lookup->name, type, resolver_cache_now_ms(r),
                         &lookup->arena, &lookup->answer);
    if (status == BH_OK) {
        status = add_waiter(lookup, cb, ctx);
    }
    if (status != BH_OK) {
        free_lookup(lookup);
        return status;
    }
    r->stats.queries++;
    lookup_queue_push(&r->done, lookup);
    resolver_kick(r);
    return BH_OK;
}

enum bh_status bh_resolver_query(struct bh_resolver *r, struct bh_slice name, uint16_t type,
                                 bh_resolver_answer_fn *cb, void *ctx)
{
    BH_ASSERT(!r->closing);
    char storage[BH_DNS_NAME_MAX];
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    if (bh_dns_name_normalise(name, &buf) != BH_OK) {
        return BH_EINVAL;
    }
    if (r->lookups >= r->config.lookups_max) {
        r->stats.refused++;
        return BH_EFULL;
    }
    const struct bh_slice normal = bh_buf_slice(&buf);
    const enum bh_status status = from_cache(r, normal, type, cb, ctx);
    return status == BH_ENOTFOUND ? resolver_join(r, normal, type, cb, ctx) : status;
}

/* ---- the loop ---- */

static bool deliver_one(struct bh_resolver *r)
{
    struct lookup *lookup = lookup_queue_pop(&r->done);
    if (lookup == NULL) {
        return false;
    }
    for (struct waiter *waiter; (waiter = lookup->waiters) != NULL;) {
        lookup->waiters = waiter->next;
        r->waiters--;
        waiter->cb(waiter->ctx, lookup->name, &lookup->answer);
        free(waiter);
    }
    free_lookup(lookup);
    return true;
}

static void free_resolver(struct bh_resolver *r)
{
    void (*done)(void *) = r->on_destroyed;
    void *ctx = r->on_destroyed_ctx;
    BH_ASSERT(r->lookups == 0);
    BH_ASSERT(r->waiters == 0);
    bh_map_fini(&r->open);
    if (r->own_cache) {
        bh_dns_cache_destroy(r->cache);
    }
    ares_library_cleanup();
    free(r);
    if (done != NULL) {
        done(ctx);
    }
}

void resolver_settle(struct bh_resolver *r)
{
    if (r->settling || r->closing) {
        return; /* the outer one goes on until nothing moves */
    }
    r->settling = true;
    bool moved = true;
    while (moved && !r->closing) {
        moved = tries_pump(r);
        moved = deliver_one(r) || moved;
        moved = (!r->closing && target_jobs_deliver(r)) || moved;
    }
    r->settling = false;
    if (!r->closing) {
        tries_sweep(r, false);
    }
}

static void on_kick(uv_timer_t *timer)
{
    resolver_settle(timer->data);
}

void resolver_kick(struct bh_resolver *r)
{
    if (!r->closing && !r->settling && !uv_is_active((const uv_handle_t *)&r->kick)) {
        uv_timer_start(&r->kick, on_kick, 0, 0);
    }
}

/* ---- its life ---- */

static void apply_defaults(struct bh_resolver_config *config)
{
    const struct {
        uint32_t *value;
        uint32_t usual;
    } defaults[] = {
        {&config->timeout_ms, 2000},      {&config->rounds, 2},
        {&config->channels_max, 8},       {&config->channel_queries_max, 128},
        {&config->channel_life_ms, 5000}, {&config->lookups_max, 8192},
        {&config->silent_after, 2},       {&config->probe_ms, 5000},
    };
    for (size_t i = 0; i < BH_COUNT(defaults); i++) {
        if (*defaults[i].value == 0) {
            *defaults[i].value = defaults[i].usual;
        }
    }
    if (config->channels_max > 8) {
        config->channels_max = 8;
    }
    if (config->channel_queries_max > 128) {
        config->channel_queries_max = 128; /* above, c-ares 1.18 loses packets */
    }
}

static enum bh_status find_servers(struct bh_resolver *r, const struct bh_resolver_config *config)
{
    for (size_t i = 0; i < config->servers_len; i++) {
        if (dns_servers_add(&r->servers, config->servers[i]) != BH_OK) {
            char quoted[BH_LOG_QUOTE_MAX];
            bh_log(BH_LOG_ERROR, "evt=dns_server_bad server=%s",
                   bh_log_quote(config->servers[i], quoted));
            return BH_EINVAL;
        }
    }
    if (config->servers_len > 0) {
        return BH_OK;
    }
    return dns_servers_read(&r->servers,
                            config->resolv_conf != NULL ? config->resolv_conf : "/etc/resolv.conf");
}

static enum bh_status prepare(struct bh_resolver *r, const struct bh_resolver_config *config)
{
    uint64_t seed = 0;
    enum bh_status status = find_servers(r, config);
    if (status != BH_OK) {
        return status;
    }
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        return BH_EIO;
    }
    bh_rng_seed(&r->rng, seed);
    /* What is borrowed from the caller is not needed any more. */
    r->config.servers = NULL;
    r->config.resolv_conf = NULL;
    r->own_cache = config->shared_cache == NULL;
    r->cache = r->own_cache ? bh_dns_cache_create(&config->cache) : config->shared_cache;
    if (r->cache == NULL) {
        return BH_ENOMEM;
    }
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        if (r->own_cache) {
            bh_dns_cache_destroy(r->cache);
        }
        return BH_ENOMEM;
    }
    return BH_OK;
}

enum bh_status bh_resolver_create(uv_loop_t *loop, const struct bh_resolver_config *config,
                                  struct bh_resolver **resolver)
{
    struct bh_resolver *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return BH_ENOMEM;
    }
    r->loop = loop;
    r->config = *config;
    apply_defaults(&r->config);
    const enum bh_status status = prepare(r, config);
    if (status != BH_OK) {
        free(r);
        return status;
    }
    uv_timer_init(loop, &r->kick);
    uv_timer_init(loop, &r->health);
    uv_timer_init(loop, &r->pace);
    r->kick.data = r;
    r->health.data = r;
    r->pace.data = r;
    *resolver = r;
    return BH_OK;
}

void resolver_release(struct bh_resolver *r)
{
    BH_ASSERT(r->closing_handles > 0);
    if (--r->closing_handles == 0 && r->closing) {
        free_resolver(r);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    resolver_release(handle->data);
}

void bh_resolver_destroy(struct bh_resolver *r, void (*done)(void *ctx), void *ctx)
{
    BH_ASSERT(!r->closing);
    r->closing = true;
    r->on_destroyed = done;
    r->on_destroyed_ctx = ctx;
    r->closing_handles += 3;
    uv_close((uv_handle_t *)&r->kick, on_timer_closed);
    uv_close((uv_handle_t *)&r->health, on_timer_closed);
    uv_close((uv_handle_t *)&r->pace, on_timer_closed);
    tries_sweep(r, true);
    tries_cancel_waiting(r);
    bool moved = true;
    while (moved) {
        moved = deliver_one(r);
        moved = target_jobs_deliver(r) || moved;
    }
}

/* The hosts of the domain's MX are what a flush is about as much as the domain itself. */
void bh_resolver_forget(struct bh_resolver *r, struct bh_slice domain)
{
    char storage[BH_DNS_NAME_MAX];
    struct bh_buf name = bh_buf(storage, sizeof(storage));
    if (bh_dns_name_normalise(domain, &name) != BH_OK || name.len == 0) {
        return;
    }
    struct bh_arena arena;
    struct bh_dns_answer mx;
    bh_arena_init(&arena, LOOKUP_ARENA_MAX);
    if (bh_dns_cache_get(r->cache, r->config.set, bh_buf_slice(&name), BH_DNS_MX,
                         resolver_cache_now_ms(r), &arena, &mx) == BH_OK) {
        for (size_t i = 0; i < mx.records_len; i++) {
            if (mx.records[i].name.len > 0) {
                bh_dns_cache_forget(r->cache, mx.records[i].name);
            }
        }
    }
    bh_dns_cache_forget(r->cache, bh_buf_slice(&name));
    bh_arena_fini(&arena);
}

void bh_resolver_forget_root(struct bh_resolver *r)
{
    bh_dns_cache_forget_one(r->cache, r->config.set, BH_EMPTY, BH_DNS_NS);
}

void bh_resolver_forget_all(struct bh_resolver *r)
{
    bh_dns_cache_clear(r->cache);
}

struct bh_resolver_stats bh_resolver_stats(const struct bh_resolver *r)
{
    struct bh_resolver_stats stats = r->stats;
    stats.servers = (uint32_t)r->servers.len;
    for (size_t i = 0; i < r->servers.len; i++) {
        stats.servers_silent += r->servers.list[i].silent ? 1 : 0;
    }
    for (size_t i = 0; i < CHANNEL_SLOTS; i++) {
        stats.channels += r->slots[i].channel != NULL ? 1 : 0;
    }
    stats.cache = bh_dns_cache_stats(r->cache);
    return stats;
}
