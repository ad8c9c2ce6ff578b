#include <pthread.h>
#include <stdlib.h>

#include "intake_internal.h"

#define REFUSALS_SLOTS 1024

/* Refused AUTH of one client. Each client has one slot, which it may share: the last one to be
 * refused has it, so that the table stays as small as this whoever comes. */
struct refusals {
    struct bh_ip client;
    uint32_t count;
    uint64_t last_ms;
};

/* One lock, held for a hash lookup at the start and at the end of each session. The table is
 * bounded by the sessions themselves. */
struct bh_intake_shared {
    pthread_mutex_t lock;
    struct bh_map clients;
    uint32_t sessions;
    pthread_mutex_t sources_lock; /* held while a file is read for the first time */
    struct source *sources;
    atomic_uint auth_jobs;
    struct refusals refusals[REFUSALS_SLOTS]; /* under `lock` */
};

/* A password file, for as long as the process lives. */
struct source {
    struct source *next;
    struct bh_auth_source *source;
};

struct client {
    struct bh_map_node node; /* key: the octets of `ip` */
    struct bh_ip ip;
    uint32_t sessions;
};

struct bh_intake_shared *bh_intake_shared_create(void)
{
    struct bh_intake_shared *shared = calloc(1, sizeof(*shared));
    if (shared != NULL && pthread_mutex_init(&shared->lock, NULL) != 0) {
        free(shared);
        return NULL;
    }
    if (shared != NULL && pthread_mutex_init(&shared->sources_lock, NULL) != 0) {
        pthread_mutex_destroy(&shared->lock);
        free(shared);
        return NULL;
    }
    return shared;
}

void bh_intake_shared_destroy(struct bh_intake_shared *shared)
{
    if (shared != NULL) {
        BH_ASSERT(shared->sessions == 0);
        bh_map_fini(&shared->clients);
        while (shared->sources != NULL) {
            struct source *source = shared->sources;
            shared->sources = source->next;
            bh_auth_source_destroy(source->source);
            free(source);
        }
        pthread_mutex_destroy(&shared->sources_lock);
        pthread_mutex_destroy(&shared->lock);
        free(shared);
    }
}

static struct source *add_source(struct bh_intake_shared *shared, struct bh_slice path)
{
    struct source *source = calloc(1, sizeof(*source));
    struct bh_auth_source *file = source != NULL ? bh_auth_source_create(path) : NULL;
    if (file == NULL) {
        free(source);
        return NULL;
    }
    source->source = file;
    source->next = shared->sources;
    shared->sources = source;
    return source;
}

struct bh_auth_source *shared_auth_source(struct bh_intake_shared *shared, struct bh_slice path)
{
    pthread_mutex_lock(&shared->sources_lock);
    struct source *source = shared->sources;
    while (source != NULL && !bh_slice_eq(bh_auth_source_path(source->source), path)) {
        source = source->next;
    }
    if (source == NULL) {
        source = add_source(shared, path);
    }
    struct bh_auth_source *file = source != NULL ? source->source : NULL;
    pthread_mutex_unlock(&shared->sources_lock);
    return file;
}

bool shared_auth_enter(struct bh_intake_shared *shared)
{
    if (atomic_fetch_add(&shared->auth_jobs, 1) < AUTH_JOBS_MAX) {
        return true;
    }
    atomic_fetch_sub(&shared->auth_jobs, 1);
    return false;
}

void shared_auth_leave(struct bh_intake_shared *shared)
{
    atomic_fetch_sub(&shared->auth_jobs, 1);
}

/* Of IPv6 the network: whoever has one has all its addresses. */
static struct bh_ip client_of(const struct bh_ip *ip)
{
    struct bh_ip client = {.family = ip->family};
    memcpy(client.bytes, ip->bytes, ip->family == 6 ? 8 : 4);
    return client;
}

static struct refusals *refusals_of(struct bh_intake_shared *shared, const struct bh_ip *client)
{
    const uint64_t hash = bh_hash(bh_slice(client->bytes, sizeof(client->bytes)), client->family);
    return &shared->refusals[hash % REFUSALS_SLOTS];
}

static bool counts(const struct refusals *r, const struct bh_ip *client, uint64_t mono_ms)
{
    return r->count > 0 && bh_ip_eq(&r->client, client) && mono_ms - r->last_ms < AUTH_REFUSALS_MS;
}

void shared_auth_refused(struct bh_intake_shared *shared, const struct bh_ip *ip, uint64_t mono_ms)
{
    const struct bh_ip client = client_of(ip);
    pthread_mutex_lock(&shared->lock);
    struct refusals *r = refusals_of(shared, &client);
    const uint32_t before = counts(r, &client, mono_ms) ? r->count : 0;
    *r = (struct refusals){client, before < UINT32_MAX ? before + 1 : before, mono_ms};
    pthread_mutex_unlock(&shared->lock);
}

uint64_t shared_auth_delay(struct bh_intake_shared *shared, const struct bh_ip *ip,
                           uint64_t mono_ms)
{
    const struct bh_ip client = client_of(ip);
    pthread_mutex_lock(&shared->lock);
    const struct refusals *r = refusals_of(shared, &client);
    const uint32_t count = counts(r, &client, mono_ms) ? r->count : 0;
    pthread_mutex_unlock(&shared->lock);
    uint64_t delay_ms = AUTH_DELAY_MS;
    for (uint32_t i = 0; i < count && delay_ms < BH_SERVER_AUTH_DELAY_MAX; i++) {
        delay_ms *= 2;
    }
    return delay_ms < BH_SERVER_AUTH_DELAY_MAX ? delay_ms : BH_SERVER_AUTH_DELAY_MAX;
}

uint32_t bh_intake_shared_sessions(struct bh_intake_shared *shared)
{
    pthread_mutex_lock(&shared->lock);
    const uint32_t sessions = shared->sessions;
    pthread_mutex_unlock(&shared->lock);
    return sessions;
}

static struct client *find(struct bh_intake_shared *shared, const struct bh_ip *ip)
{
    struct bh_map_node *node = bh_map_find(&shared->clients, bh_slice(ip, sizeof(*ip)));
    return node == NULL ? NULL : BH_CONTAINER(node, struct client, node);
}

static struct client *find_or_add(struct bh_intake_shared *shared, const struct bh_ip *ip)
{
    struct client *client = find(shared, ip);
    if (client != NULL) {
        return client;
    }
    client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return NULL;
    }
    client->ip = *ip;
    client->node.key = bh_slice(&client->ip, sizeof(client->ip));
    if (bh_map_insert(&shared->clients, &client->node) != BH_OK) {
        free(client);
        return NULL;
    }
    return client;
}

static bool enter_locked(struct bh_intake_shared *shared, const struct bh_ip *ip,
                         const struct bh_listen_limits *limits)
{
    if (limits->sessions > 0 && shared->sessions >= limits->sessions) {
        return false;
    }
    struct client *client = find_or_add(shared, ip);
    if (client == NULL) {
        return false;
    }
    /* Programs on a Unix socket have no address, and are one client each. */
    if (ip->family != 0 && limits->sessions_per_client > 0 &&
        client->sessions >= limits->sessions_per_client) {
        return false;
    }
    client->sessions++;
    shared->sessions++;
    return true;
}

bool shared_enter(struct bh_intake_shared *shared, const struct bh_ip *client,
                  const struct bh_listen_limits *limits)
{
    pthread_mutex_lock(&shared->lock);
    const bool entered = enter_locked(shared, client, limits);
    pthread_mutex_unlock(&shared->lock);
    return entered;
}

void shared_leave(struct bh_intake_shared *shared, const struct bh_ip *ip)
{
    pthread_mutex_lock(&shared->lock);
    struct client *client = find(shared, ip);
    BH_ASSERT(client != NULL && client->sessions > 0 && shared->sessions > 0);
    shared->sessions--;
    client->sessions--;
    if (client->sessions == 0) {
        bh_map_remove(&shared->clients, &client->node);
        free(client);
    }
    pthread_mutex_unlock(&shared->lock);
}
