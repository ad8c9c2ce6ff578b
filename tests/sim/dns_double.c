/* The double below the resolver: a channel to a name server, with answers made of octets. Caches,
 * tries, health of servers, MX plans and the reading of answers are the real ones above it. */
#include <stdlib.h>
#include <string.h>

#include "../unit/dns_build.h"
#include "bh/assert.h"
#include "channel.h"
#include "net.h"
#include "world.h"

struct query {
    struct work work; /* first */
    struct sim_event timer;
    struct query *next;
    struct dns_channel *channel;
    dns_try_fn *cb;
    void *ctx;
    enum dns_try result;
    size_t len;
    char octets[2048];
};

struct dns_channel {
    struct dns_channel *next;
    uv_loop_t *loop;
    uv_timer_t closer; /* whose close callback frees the channel */
    uint32_t timeout_ms;
    struct dns_channel_owner owner;
    struct query *queries;
    unsigned in_flight;
    uint64_t born_ms;
    unsigned server;
};

static struct dns_channel *channels;

enum bh_status dns_channel_create(uv_loop_t *loop, const char *server, uint32_t timeout_ms,
                                  struct dns_channel_owner owner, struct dns_channel **channel)
{
    struct dns_channel *c = sim_alloc(sizeof(*c));
    *c = (struct dns_channel){.next = channels,
                              .loop = loop,
                              .timeout_ms = timeout_ms,
                              .owner = owner,
                              .born_ms = uv_now(loop),
                              .server = (unsigned)server[strlen(server) - 4]};
    channels = c;
    uv_timer_init(loop, &c->closer);
    c->closer.data = c;
    *channel = c;
    return BH_OK;
}

static void unlink_query(struct query *q)
{
    struct query **at = &q->channel->queries;
    while (*at != q) {
        at = &(*at)->next;
    }
    *at = q->next;
    q->channel->in_flight--;
}

static void run_answer(struct work *work)
{
    struct query *q = (struct query *)(void *)work;
    struct dns_channel *c = q->channel;
    unlink_query(q);
    q->cb(q->ctx, q->result,
          q->result == DNS_TRY_ANSWERED ? bh_slice(q->octets, q->len) : BH_EMPTY);
    sim_free(q);
    c->owner.after_io(c->owner.ctx);
}

/* "a.b" from the question of a query. */
static bool read_question(struct bh_slice query, char name[256], uint16_t *type)
{
    const unsigned char *at = (const unsigned char *)query.ptr + 12;
    const unsigned char *end = (const unsigned char *)query.ptr + query.len;
    size_t len = 0;
    while (at < end && *at != 0) {
        if (len + *at + 2 > 256 || at + *at + 1 > end) {
            return false;
        }
        if (len > 0) {
            name[len++] = '.';
        }
        memcpy(name + len, at + 1, *at);
        len += *at;
        at += *at + 1;
    }
    name[len] = '\0';
    if (at + 5 > end) {
        return false;
    }
    *type = bh_get_be16(at + 1);
    return true;
}

void dns_channel_send(struct dns_channel *c, struct bh_slice query, dns_try_fn *cb, void *ctx)
{
    static struct dns_build build;
    struct query *q = sim_alloc(sizeof(*q));
    char name[256];
    uint16_t type = 0;
    *q = (struct query){.work = {.run = run_answer, .loop = c->loop},
                        .next = c->queries,
                        .channel = c,
                        .cb = cb,
                        .ctx = ctx,
                        .result = DNS_TRY_SILENT};
    c->queries = q;
    c->in_flight++;
    uint64_t delay_us = (uint64_t)c->timeout_ms * SIM_MS;
    if (read_question(query, name, &type)) {
        const uint16_t id = bh_get_be16(query.ptr);
        if (world_on_query(c->server, id, name, type, &build, &delay_us)) {
            q->result = DNS_TRY_ANSWERED;
            BH_ASSERT(build.len <= sizeof(q->octets));
            memcpy(q->octets, build.octets, build.len);
            q->len = build.len;
        }
    }
    if (delay_us > (uint64_t)c->timeout_ms * SIM_MS) {
        q->result = DNS_TRY_SILENT;
        delay_us = (uint64_t)c->timeout_ms * SIM_MS;
    }
    loop_post_after(&q->work, delay_us, &q->timer);
}

static void on_closed(uv_handle_t *handle)
{
    struct dns_channel *c = handle->data;
    for (struct dns_channel **at = &channels; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    const struct dns_channel_owner owner = c->owner;
    sim_free(c);
    owner.on_closed(owner.ctx);
}

void dns_channel_destroy(struct dns_channel *c)
{
    while (c->queries != NULL) {
        struct query *q = c->queries;
        sim_event_cancel(&q->timer);
        if (q->work.queued) {
            loop_unpost(&q->work);
        }
        unlink_query(q);
        q->cb(q->ctx, DNS_TRY_CANCELLED, BH_EMPTY);
        sim_free(q);
    }
    uv_close((uv_handle_t *)&c->closer, on_closed);
}

unsigned dns_channel_in_flight(const struct dns_channel *c)
{
    return c->in_flight;
}

uint64_t dns_channel_born_ms(const struct dns_channel *c)
{
    return c->born_ms;
}

void dns_process_died(void)
{
    while (channels != NULL) {
        struct dns_channel *c = channels;
        channels = c->next;
        while (c->queries != NULL) {
            struct query *q = c->queries;
            c->queries = q->next;
            sim_event_cancel(&q->timer);
            sim_free(q);
        }
        sim_free(c);
    }
}
