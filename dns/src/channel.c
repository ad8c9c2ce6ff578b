#include "channel.h"

#include <sys/select.h> /* ares.h needs it and does not say so */

#include <ares.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/log.h"

#define EDNS_PAYLOAD 1232

/* One socket of c-ares that is watched. */
struct watch {
    uv_poll_t poll;
    struct dns_channel *channel;
    struct watch *next;
    ares_socket_t fd;
    int events; /* wanted; 0: closing */
};

struct query {
    struct dns_channel *channel;
    dns_try_fn *cb;
    void *ctx;
};

struct dns_channel {
    uv_loop_t *loop;
    uv_timer_t timer;
    ares_channel ares;
    struct dns_channel_owner owner;
    struct watch *watches;
    uint64_t born_ms;
    unsigned in_flight;
    unsigned handles; /* open or closing; the last close callback frees the channel */
    bool closing;
};

static void release(struct dns_channel *channel)
{
    BH_ASSERT(channel->handles > 0);
    if (--channel->handles == 0) {
        BH_ASSERT(channel->watches == NULL);
        BH_ASSERT(channel->in_flight == 0);
        channel->owner.on_closed(channel->owner.ctx);
        free(channel);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    struct dns_channel *channel = watch->channel;
    free(watch);
    release(channel);
}

static void on_timer(uv_timer_t *timer);

/* c-ares moves its timeouts at every entry. */
static void rearm(struct dns_channel *channel)
{
    struct timeval tv;
    if (channel->closing || ares_timeout(channel->ares, NULL, &tv) == NULL) {
        uv_timer_stop(&channel->timer);
        return;
    }
    const uint64_t ms = (uint64_t)tv.tv_sec * 1000 + ((uint64_t)tv.tv_usec + 999) / 1000;
    uv_timer_start(&channel->timer, on_timer, ms > 0 ? ms : 1, 0);
}

static void process(struct dns_channel *channel, ares_socket_t readable, ares_socket_t writable)
{
    ares_process_fd(channel->ares, readable, writable);
    rearm(channel);
}

static void on_timer(uv_timer_t *timer)
{
    struct dns_channel *channel = timer->data;
    /* After a long turn of the loop the timer comes before the sockets: an answer that is here
     * already must not count as late. Reading gives nothing if there is none. */
    ares_socket_t fds[4];
    size_t len = 0;
    for (const struct watch *watch = channel->watches; watch != NULL && len < BH_COUNT(fds);
         watch = watch->next) {
        if ((watch->events & UV_READABLE) != 0) {
            fds[len++] = watch->fd;
        }
    }
    for (size_t i = 0; i < len; i++) {
        ares_process_fd(channel->ares, fds[i], ARES_SOCKET_BAD);
    }
    process(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    channel->owner.after_io(channel->owner.ctx);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct dns_channel *channel = watch->channel;
    const ares_socket_t fd = watch->fd;
    /* On an error libuv gives no events and stops watching: let c-ares read the error from the
     * socket, and watch again if it kept it. */
    const bool failed = status < 0;
    process(channel, failed || (events & UV_READABLE) != 0 ? fd : ARES_SOCKET_BAD,
            failed || (events & UV_WRITABLE) != 0 ? fd : ARES_SOCKET_BAD);
    if (failed && watch->events != 0) {
        uv_poll_start(poll, watch->events, on_poll);
    }
    channel->owner.after_io(channel->owner.ctx);
}

static struct watch *add_watch(struct dns_channel *channel, ares_socket_t fd)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    const int error = uv_poll_init(channel->loop, &watch->poll, fd);
    if (error != 0) {
        bh_log(BH_LOG_WARN, "evt=dns_watch_failed error=%s", uv_err_name(error));
        free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    watch->channel = channel;
    watch->fd = fd;
    watch->next = channel->watches;
    channel->watches = watch;
    channel->handles++;
    return watch;
}

static void drop_watch(struct watch **slot)
{
    struct watch *watch = *slot;
    *slot = watch->next;
    watch->events = 0;
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

/* A socket that can't be watched ends its queries by their timeout. */
static void on_sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *channel = data;
    struct watch **slot = &channel->watches;
    while (*slot != NULL && (*slot)->fd != fd) {
        slot = &(*slot)->next;
    }
    const int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events == 0) {
        if (*slot != NULL) {
            drop_watch(slot);
        }
        return;
    }
    struct watch *watch = *slot != NULL ? *slot : add_watch(channel, fd);
    if (watch != NULL) {
        watch->events = events;
        uv_poll_start(&watch->poll, events, on_poll);
    }
}

/* Nothing comes from files or the environment: no hosts file, search list, aliases or rotation. */
static enum bh_status open_ares(struct dns_channel *channel, const char *server,
                                uint32_t timeout_ms)
{
    char lookups[] = "b";
    char no_file[] = "/dev/null";
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS | ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOALIASES,
        .timeout = (int)timeout_ms,
        .tries = 1,
        .ndots = 0,
        .lookups = lookups,
        .resolvconf_path = no_file,
        .ednspsz = EDNS_PAYLOAD,
        .sock_state_cb = on_sock_state,
        .sock_state_cb_data = channel,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
               ARES_OPT_LOOKUPS | ARES_OPT_NOROTATE | ARES_OPT_RESOLVCONF | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_STATE_CB;
#ifdef ARES_OPT_QUERY_CACHE
    options.qcache_max_ttl = 0; /* from c-ares 1.31: the only cache is ours */
    mask |= ARES_OPT_QUERY_CACHE;
#endif
    if (ares_init_options(&channel->ares, &options, mask) != ARES_SUCCESS) {
        return BH_ENOMEM;
    }
    if (ares_set_servers_ports_csv(channel->ares, server) != ARES_SUCCESS) {
        ares_destroy(channel->ares);
        return BH_EINVAL;
    }
    return BH_OK;
}

enum bh_status dns_channel_create(uv_loop_t *loop, const char *server, uint32_t timeout_ms,
                                  struct dns_channel_owner owner, struct dns_channel **channel_out)
{
    struct dns_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return BH_ENOMEM;
    }
    channel->loop = loop;
    channel->owner = owner;
    channel->born_ms = uv_now(loop);
    const enum bh_status status = open_ares(channel, server, timeout_ms);
    if (status != BH_OK) {
        free(channel);
        return status;
    }
    uv_timer_init(loop, &channel->timer);
    channel->timer.data = channel;
    channel->handles = 1;
    *channel_out = channel;
    return BH_OK;
}

void dns_channel_destroy(struct dns_channel *channel)
{
    BH_ASSERT(!channel->closing);
    channel->closing = true;
    ares_destroy(channel->ares); /* ends queries, and gives up the sockets through on_sock_state */
    while (channel->watches != NULL) {
        drop_watch(&channel->watches);
    }
    uv_timer_stop(&channel->timer);
    uv_close((uv_handle_t *)&channel->timer, on_timer_closed);
}

static enum dns_try result_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return DNS_TRY_ANSWERED;
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
        return DNS_TRY_CANCELLED;
    case ARES_ENOMEM:
        return DNS_TRY_FAILED;
    default: /* a timeout, a refusal, a TCP connection that broke */
        return DNS_TRY_SILENT;
    }
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *octets, int len)
{
    (void)timeouts;
    const struct query query = *(struct query *)arg;
    free(arg);
    BH_ASSERT(query.channel->in_flight > 0);
    query.channel->in_flight--;
    const bool answered = status == ARES_SUCCESS && octets != NULL && len > 0;
    query.cb(query.ctx, answered || status != ARES_SUCCESS ? result_of(status) : DNS_TRY_FAILED,
             answered ? bh_slice(octets, (size_t)len) : BH_EMPTY);
}

void dns_channel_send(struct dns_channel *channel, struct bh_slice query, dns_try_fn *cb, void *ctx)
{
    BH_ASSERT(!channel->closing);
    struct query *record = malloc(sizeof(*record));
    if (record == NULL) {
        cb(ctx, DNS_TRY_FAILED, BH_EMPTY);
        return;
    }
    *record = (struct query){channel, cb, ctx};
    channel->in_flight++;
    /* ares_send is deprecated in newer c-ares, which keeps it; it serves both. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    ares_send(channel->ares, (const unsigned char *)query.ptr, (int)query.len, on_answer, record);
#pragma GCC diagnostic pop
    rearm(channel);
}

unsigned dns_channel_in_flight(const struct dns_channel *channel)
{
    return channel->in_flight;
}

uint64_t dns_channel_born_ms(const struct dns_channel *channel)
{
    return channel->born_ms;
}
