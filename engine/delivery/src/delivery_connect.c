/* The race of addresses: the first one starts, another joins every BH_DELIVERY_STAGGER_MS or as
 * soon as one has failed; the first to stand wins, and the others are closed unjudged. */
#include <netinet/in.h>
#include <string.h>

#include "delivery_internal.h"

static enum bh_happened happened_of(int error)
{
    switch (error) {
    case UV_ECONNREFUSED:
        return BH_HAPPENED_REFUSED;
    case UV_ETIMEDOUT:
        return BH_HAPPENED_TIMEOUT;
    case UV_ECONNRESET:
        return BH_HAPPENED_LOST;
    case UV_EADDRNOTAVAIL:
        return BH_HAPPENED_OUR_SOURCE;
    case UV_EMFILE:
    case UV_ENFILE:
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return BH_HAPPENED_OUR_RESOURCE;
    default:
        return BH_HAPPENED_UNREACHABLE;
    }
}

void bh_delivery_fail_target(struct bh_delivery *d, uint32_t target,
                             const struct bh_outcome *outcome)
{
    BH_ASSERT(d->failures_count < BH_DELIVERY_TARGETS_MAX);
    struct bh_delivery_failure *f = &d->failures[d->failures_count];
    struct bh_buf text = bh_buf(d->failure_texts[d->failures_count], FAILURE_TEXT_MAX);
    bh_buf_add_cut(&text, outcome->text);
    f->target = target;
    f->outcome = *outcome;
    f->outcome.text = bh_buf_slice(&text);
    f->outcome.host = d->params.targets[target].host;
    f->outcome.ip = d->params.targets[target].ip;
    f->outcome.port = d->params.targets[target].port;
    d->failures_count++;
}

static void fail_by(struct bh_delivery *d, uint32_t target, enum bh_happened happened,
                    const char *text)
{
    const struct bh_outcome outcome = {
        .stage = BH_STAGE_CONNECT, .happened = happened, .text = bh_slice_str(text)};
    bh_delivery_fail_target(d, target, &outcome);
}

static void on_connect(uv_connect_t *request, int status)
{
    struct attempt *a = request->data;
    struct bh_delivery *d = a->d;
    if (a->closing || !a->connecting) {
        return; /* it lost the race, or the session is over */
    }
    a->connecting = false;
    if (status != 0) {
        bh_delivery_close_attempt(a);
        fail_by(d, a->target, happened_of(status), uv_strerror(status));
        d->next_start_ms = 0;
    } else {
        d->connect_ms = uv_now(d->worker->loop) - a->started_ms;
        for (uint32_t i = 0; i < d->started; i++) {
            struct attempt *other = &d->attempts[i];
            if (other != a && other->connecting) {
                other->connecting = false;
                bh_delivery_close_attempt(other);
                if (d->order_count < ATTEMPTS_MAX) {
                    d->order[d->order_count++] = other->target; /* if the winner won't talk */
                }
            }
        }
        bh_delivery_start_talk(d, a);
    }
    bh_delivery_pump(d);
}

/* @return the length, 0 for no address */
static size_t sockaddr_of(const struct bh_ip *ip, uint16_t port, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (ip->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        in->sin_family = AF_INET;
        bh_put_be16(&in->sin_port, port);
        memcpy(&in->sin_addr, ip->bytes, 4);
        return sizeof(*in);
    }
    if (ip->family == 6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
        in6->sin6_family = AF_INET6;
        bh_put_be16(&in6->sin6_port, port);
        memcpy(&in6->sin6_addr, ip->bytes, 16);
        return sizeof(*in6);
    }
    return 0;
}

static int start(struct bh_delivery *d, struct attempt *a)
{
    const struct bh_delivery_target *target = &d->params.targets[a->target];
    const struct bh_ip *source =
        target->ip.family == 4 ? &d->params.source_ipv4 : &d->params.source_ipv6;
    struct sockaddr_storage address;
    if (sockaddr_of(&target->ip, target->port, &address) == 0) {
        return UV_EINVAL;
    }
    int error = uv_tcp_init_ex(d->worker->loop, &a->tcp, (unsigned)address.ss_family);
    if (error != 0) {
        return error;
    }
    a->open = true;
    a->tcp.data = a;
    a->connect.data = a;
    struct sockaddr_storage from;
    if (sockaddr_of(source, 0, &from) > 0) {
        error = uv_tcp_bind(&a->tcp, (const struct sockaddr *)&from, 0);
    }
    if (error == 0) {
        (void)uv_tcp_nodelay(&a->tcp, 1); /* a lone RCPT must not wait for an acknowledgement */
        error = uv_tcp_connect(&a->connect, &a->tcp, (const struct sockaddr *)&address, on_connect);
    }
    a->connecting = error == 0;
    return error;
}

static void start_next(struct bh_delivery *d, uint64_t now_ms)
{
    struct attempt *a = &d->attempts[d->started];
    *a = (struct attempt){.d = d, .target = d->order[d->started], .started_ms = now_ms};
    d->started++;
    d->next_start_ms = now_ms + BH_DELIVERY_STAGGER_MS;
    const int error = start(d, a);
    if (error != 0) {
        bh_delivery_close_attempt(a);
        fail_by(d, a->target, happened_of(error), uv_strerror(error));
        d->next_start_ms = 0;
    }
}

static uint32_t expire(struct bh_delivery *d, uint64_t now_ms)
{
    uint32_t connecting = 0;
    for (uint32_t i = 0; i < d->started; i++) {
        struct attempt *a = &d->attempts[i];
        if (a->connecting && now_ms >= a->started_ms + d->params.connect_ms) {
            a->connecting = false;
            bh_delivery_close_attempt(a);
            fail_by(d, a->target, BH_HAPPENED_TIMEOUT, "no answer");
            d->next_start_ms = 0;
        }
        connecting += a->connecting ? 1 : 0;
    }
    return connecting;
}

void bh_delivery_connect(struct bh_delivery *d)
{
    const uint64_t now_ms = uv_now(d->worker->loop);
    uint32_t connecting = expire(d, now_ms);
    while (d->started < d->order_count && (connecting == 0 || now_ms >= d->next_start_ms)) {
        start_next(d, now_ms);
        connecting += d->attempts[d->started - 1].connecting ? 1 : 0;
    }
    if (connecting == 0) {
        BH_ASSERT(d->failures_count > 0);
        bh_delivery_finish(d, &d->failures[d->failures_count - 1].outcome, false);
    }
}

uint64_t bh_delivery_connect_deadline_ms(const struct bh_delivery *d)
{
    uint64_t deadline_ms = UINT64_MAX;
    if (d->started < d->order_count) {
        deadline_ms = d->next_start_ms;
    }
    for (uint32_t i = 0; i < d->started; i++) {
        const struct attempt *a = &d->attempts[i];
        if (a->connecting && a->started_ms + d->params.connect_ms < deadline_ms) {
            deadline_ms = a->started_ms + d->params.connect_ms;
        }
    }
    return deadline_ms;
}
