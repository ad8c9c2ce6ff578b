/* tries.c - carrying a lookup to servers, in steps:
 *   1. tries_next picks a server not yet tried in this round, silent ones last, and queues there
 *   2. tries_pump sends the head of each queue when a channel of that server has room
 *   3. an answer ends the lookup; SERVFAIL and the like go on to the next server; so does silence
 *   4. with all servers tried: another round if none of them said anything, else the failure */
#include <stdlib.h>

#include "bh/log.h"
#include "resolver_internal.h"

#define HOPS_MAX 8
#define QUERY_MAX 320
#define EDNS_PAYLOAD 1232
/* A server's socket buffer of the usual size holds some 270 small packets; what comes on top is
 * lost, and costs a timeout (measured: 200 at once pass, 400 do not). So no more than BURST are
 * sent without an answer or a pause: an answer shows that a packet was taken out, and after
 * PAUSE_MS a server that lives has read them all. Answers from before the pause count for nothing:
 * the pause did already. */
#define BURST 100
#define PAUSE_MS 10

static uint32_t channels_per_server(const struct bh_resolver *r)
{
    const uint32_t share = r->config.channels_max / (uint32_t)r->servers.len;
    return share > 0 ? share : 1;
}

static void after_io(void *ctx)
{
    resolver_settle(ctx);
}

static void on_channel_closed(void *ctx)
{
    resolver_release(ctx);
}

static struct dns_channel *open_channel(struct bh_resolver *r, size_t server)
{
    for (size_t i = 0; i < CHANNEL_SLOTS; i++) {
        struct channel_slot *slot = &r->slots[i];
        if (slot->channel != NULL) {
            continue;
        }
        const struct dns_channel_owner owner = {after_io, on_channel_closed, r};
        const enum bh_status status = dns_channel_create(
            r->loop, r->servers.list[server].text, r->config.timeout_ms, owner, &slot->channel);
        if (status != BH_OK) {
            bh_log(BH_LOG_ERROR, "evt=dns_channel_failed server=%s status=\"%s\"",
                   r->servers.list[server].text, bh_status_name(status));
            slot->channel = NULL;
            return NULL;
        }
        slot->server = server;
        slot->retiring = false;
        return slot->channel;
    }
    return NULL;
}

/* A channel of this server with room. Sets *failed when one was needed and could not be made. */
static struct dns_channel *channel_with_room(struct bh_resolver *r, size_t server, bool *failed)
{
    const uint64_t now_ms = uv_now(r->loop);
    uint32_t count = 0;
    size_t used = 0;
    for (size_t i = 0; i < CHANNEL_SLOTS; i++) {
        struct channel_slot *slot = &r->slots[i];
        used += slot->channel != NULL ? 1 : 0;
        if (slot->channel == NULL || slot->server != server || slot->retiring) {
            continue;
        }
        if (now_ms - dns_channel_born_ms(slot->channel) >= r->config.channel_life_ms) {
            slot->retiring = true;
            continue;
        }
        if (dns_channel_in_flight(slot->channel) < r->config.channel_queries_max) {
            return slot->channel;
        }
        count++;
    }
    if (count >= channels_per_server(r) || used >= CHANNEL_SLOTS) {
        return NULL;
    }
    struct dns_channel *channel = open_channel(r, server);
    *failed = channel == NULL;
    return channel;
}

static void fail(struct lookup *lookup, enum bh_dns_status status)
{
    lookup->answer =
        (struct bh_dns_answer){.status = status, .type = lookup->type, .name = lookup->current};
    resolver_finish(lookup);
}

void tries_next(struct lookup *lookup)
{
    struct bh_resolver *r = lookup->resolver;
    if (r->closing) {
        fail(lookup, BH_DNS_CANCELLED);
        return;
    }
    size_t server = dns_servers_pick(&r->servers, lookup->tried);
    if (server == r->servers.len) {
        lookup->round++;
        if (lookup->failure != BH_DNS_TIMEOUT || lookup->round >= r->config.rounds) {
            fail(lookup, lookup->failure);
            return;
        }
        lookup->tried = 0;
        server = dns_servers_pick(&r->servers, 0);
    }
    lookup->tried |= UINT32_C(1) << server;
    lookup->server = server;
    lookup_queue_push(&r->waiting[server], lookup);
    r->stats.waiting++;
}

static void note_answered(struct bh_resolver *r, size_t server)
{
    if (dns_server_answered(&r->servers.list[server])) {
        bh_log(BH_LOG_INFO, "evt=dns_server_back server=%s", r->servers.list[server].text);
    }
}

static void note_timeout(struct bh_resolver *r, size_t server)
{
    r->stats.timeouts++;
    if (!dns_server_timed_out(&r->servers.list[server], r->config.silent_after, r->config.probe_ms,
                              uv_now(r->loop))) {
        return;
    }
    bh_log(BH_LOG_WARN, "evt=dns_server_silent server=%s", r->servers.list[server].text);
    tries_arm_health(r);
    /* What waits for it may do better elsewhere. */
    struct lookup_queue queue = r->waiting[server];
    r->waiting[server] = (struct lookup_queue){0};
    for (struct lookup *lookup; (lookup = lookup_queue_pop(&queue)) != NULL;) {
        r->stats.waiting--;
        lookup->tried &= ~(UINT32_C(1) << server);
        tries_next(lookup);
    }
}

/* A failure that says more than silence is kept; bogus says most. */
static void keep_failure(struct lookup *lookup, enum bh_dns_status status)
{
    if (lookup->failure == BH_DNS_TIMEOUT || status == BH_DNS_BOGUS) {
        lookup->failure = status;
    }
}

/* An authority that is asked directly gives the alias only: go on at its end. */
static bool follow(struct lookup *lookup, const struct bh_dns_answer *answer)
{
    if (answer->status != BH_DNS_NODATA || answer->aliases == 0 || answer->has_soa ||
        lookup->hops >= HOPS_MAX) {
        return false;
    }
    lookup->hops++;
    lookup->current = answer->name;
    lookup->tried = 0;
    lookup->round = 0;
    lookup->failure = BH_DNS_TIMEOUT;
    tries_next(lookup);
    return true;
}

static void on_message(struct lookup *lookup, struct bh_slice message)
{
    struct bh_dns_answer answer;
    const enum bh_status status =
        bh_dns_read_answer(message, lookup->current, lookup->type, &lookup->arena, &answer);
    if (status == BH_ENOMEM) {
        fail(lookup, BH_DNS_OVERLOAD);
        return;
    }
    if (status != BH_OK || (answer.truncated && bh_dns_is_answer(answer.status))) {
        keep_failure(lookup, BH_DNS_GARBLED);
        tries_next(lookup);
        return;
    }
    if (!bh_dns_is_answer(answer.status)) {
        keep_failure(lookup, answer.status);
        tries_next(lookup);
        return;
    }
    /* A negative answer without an SOA holds no TTL of its own: the chain's must not give it one.
     */
    if (answer.status == BH_DNS_FOUND || answer.has_soa || answer.aliases > 0) {
        lookup->chain_ttl_s =
            answer.ttl_s < lookup->chain_ttl_s ? answer.ttl_s : lookup->chain_ttl_s;
    }
    lookup->chain_secure = lookup->chain_secure && answer.secure;
    lookup->aliases = (uint16_t)(lookup->aliases + answer.aliases);
    if (follow(lookup, &answer)) {
        return;
    }
    answer.ttl_s = lookup->chain_ttl_s;
    answer.secure = lookup->chain_secure && lookup->resolver->config.trusted;
    answer.aliases = lookup->aliases;
    lookup->answer = answer;
    resolver_finish(lookup);
}

static void on_pace(uv_timer_t *timer)
{
    resolver_settle(timer->data);
}

/* May one more be sent to this server now? If not, the pump runs again after the pause. */
static bool may_send(struct bh_resolver *r, size_t server)
{
    const uint64_t now_ms = uv_now(r->loop);
    if (now_ms - r->refilled_ms[server] >= PAUSE_MS) {
        r->budget[server] = BURST;
        r->refilled_ms[server] = now_ms;
    }
    if (r->budget[server] > 0) {
        return true;
    }
    if (!uv_is_active((const uv_handle_t *)&r->pace)) {
        uv_timer_start(&r->pace, on_pace, PAUSE_MS, 0);
    }
    return false;
}

static void on_try(void *ctx, enum dns_try result, struct bh_slice message)
{
    struct lookup *lookup = ctx;
    struct bh_resolver *r = lookup->resolver;
    BH_ASSERT(r->stats.in_flight > 0);
    r->stats.in_flight--;
    switch (result) {
    case DNS_TRY_ANSWERED:
        r->budget[lookup->server] += lookup->sent_ms >= r->refilled_ms[lookup->server] ? 1 : 0;
        note_answered(r, lookup->server);
        on_message(lookup, message);
        return;
    case DNS_TRY_SILENT:
        note_timeout(r, lookup->server);
        tries_next(lookup);
        return;
    case DNS_TRY_FAILED:
        fail(lookup, BH_DNS_OVERLOAD);
        return;
    case DNS_TRY_CANCELLED:
        fail(lookup, BH_DNS_CANCELLED);
        return;
    }
}

static enum bh_status write_query(struct bh_resolver *r, struct bh_slice name, uint16_t type,
                                  struct bh_buf *buf)
{
    uint16_t id = 0;
    const enum bh_status status = resolver_next_id(r, &id);
    return status != BH_OK
               ? status
               : bh_dns_write_query(id, name, type, r->config.no_edns ? 0 : EDNS_PAYLOAD, buf);
}

static void send_lookup(struct lookup *lookup, struct dns_channel *channel)
{
    struct bh_resolver *r = lookup->resolver;
    char octets[QUERY_MAX];
    struct bh_buf buf = bh_buf(octets, sizeof(octets));
    if (write_query(r, lookup->current, lookup->type, &buf) != BH_OK) {
        fail(lookup, BH_DNS_OVERLOAD);
        return;
    }
    r->stats.sent++;
    r->stats.in_flight++;
    r->budget[lookup->server]--;
    lookup->sent_ms = uv_now(r->loop);
    dns_channel_send(channel, bh_buf_slice(&buf), on_try, lookup);
}

bool tries_pump(struct bh_resolver *r)
{
    bool moved = false;
    for (size_t server = 0; server < r->servers.len; server++) {
        while (r->waiting[server].first != NULL && may_send(r, server)) {
            bool failed = false;
            struct dns_channel *channel = channel_with_room(r, server, &failed);
            if (channel == NULL && !failed) {
                break;
            }
            struct lookup *lookup = lookup_queue_pop(&r->waiting[server]);
            r->stats.waiting--;
            moved = true;
            if (failed) {
                fail(lookup, BH_DNS_OVERLOAD);
            } else {
                send_lookup(lookup, channel);
            }
        }
    }
    return moved;
}

void tries_sweep(struct bh_resolver *r, bool all)
{
    for (size_t i = 0; i < CHANNEL_SLOTS; i++) {
        struct channel_slot *slot = &r->slots[i];
        if (slot->channel != NULL &&
            (all || (slot->retiring && dns_channel_in_flight(slot->channel) == 0))) {
            struct dns_channel *channel = slot->channel;
            slot->channel = NULL;
            r->closing_handles++;
            dns_channel_destroy(channel);
        }
    }
}

void tries_cancel_waiting(struct bh_resolver *r)
{
    for (size_t server = 0; server < r->servers.len; server++) {
        for (struct lookup *lookup; (lookup = lookup_queue_pop(&r->waiting[server])) != NULL;) {
            r->stats.waiting--;
            fail(lookup, BH_DNS_CANCELLED);
        }
    }
}

/* What a probe needs to know when it ends. */
struct probe {
    struct bh_resolver *resolver;
    size_t server;
};

static void on_probe(void *ctx, enum dns_try result, struct bh_slice message)
{
    (void)message;
    const struct probe probe = *(struct probe *)ctx;
    struct bh_resolver *r = probe.resolver;
    struct dns_server *server = &r->servers.list[probe.server];
    free(ctx);
    if (result == DNS_TRY_ANSWERED) {
        note_answered(r, probe.server);
    } else if (result == DNS_TRY_SILENT) {
        dns_server_timed_out(server, r->config.silent_after, r->config.probe_ms, uv_now(r->loop));
    } else {
        server->probe_at_ms = uv_now(r->loop) + r->config.probe_ms;
    }
    server->probing = false;
    tries_arm_health(r);
}

/* Ask for the root's servers, with no mail waiting for the answer. */
static void send_probe(struct bh_resolver *r, size_t server)
{
    char octets[QUERY_MAX];
    struct bh_buf buf = bh_buf(octets, sizeof(octets));
    bool failed = false;
    struct dns_channel *channel = channel_with_room(r, server, &failed);
    struct probe *probe = malloc(sizeof(*probe));
    if (channel == NULL || probe == NULL || write_query(r, BH_EMPTY, BH_DNS_NS, &buf) != BH_OK) {
        free(probe);
        r->servers.list[server].probe_at_ms = uv_now(r->loop) + r->config.probe_ms;
        return;
    }
    *probe = (struct probe){r, server};
    r->servers.list[server].probing = true;
    dns_channel_send(channel, bh_buf_slice(&buf), on_probe, probe);
}

static void on_health(uv_timer_t *timer)
{
    struct bh_resolver *r = timer->data;
    for (size_t i = 0; i < r->servers.len; i++) {
        const struct dns_server *server = &r->servers.list[i];
        if (server->silent && !server->probing && server->probe_at_ms <= uv_now(r->loop)) {
            send_probe(r, i);
        }
    }
    tries_arm_health(r);
    resolver_settle(r);
}

void tries_arm_health(struct bh_resolver *r)
{
    uint64_t at_ms = UINT64_MAX;
    for (size_t i = 0; i < r->servers.len; i++) {
        const struct dns_server *server = &r->servers.list[i];
        if (server->silent && !server->probing && server->probe_at_ms < at_ms) {
            at_ms = server->probe_at_ms;
        }
    }
    if (r->closing) {
        return;
    }
    if (at_ms == UINT64_MAX) {
        uv_timer_stop(&r->health);
        return;
    }
    const uint64_t now_ms = uv_now(r->loop);
    uv_timer_start(&r->health, on_health, at_ms > now_ms ? at_ms - now_ms : 1, 0);
}
