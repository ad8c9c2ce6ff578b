/* channel.h - one c-ares channel on a libuv loop: one server, one try a query. Knows nothing of
 * lookups, health or caches. */
#pragma once

#include <uv.h>

#include "bh/slice.h"
#include "bh/status.h"

struct dns_channel;

enum dns_try {
    DNS_TRY_ANSWERED,  /* there is a message */
    DNS_TRY_SILENT,    /* no answer in time, or refused */
    DNS_TRY_FAILED,    /* we could not ask: memory, descriptors */
    DNS_TRY_CANCELLED, /* the channel was destroyed */
};

/** Called from inside c-ares: must neither send on nor destroy a channel. */
typedef void dns_try_fn(void *ctx, enum dns_try result, struct bh_slice message);

struct dns_channel_owner {
    void (*after_io)(void *ctx);  /* c-ares was entered and left; may send and destroy */
    void (*on_closed)(void *ctx); /* the channel's memory is about to be freed */
    void *ctx;
};

/** @param server  "192.0.2.1:53" or "[2001:db8::1]:53"
 *  @return BH_OK, BH_ENOMEM or BH_EINVAL (c-ares does not take the server) */
BH_MUST_USE enum bh_status dns_channel_create(uv_loop_t *loop, const char *server,
                                              uint32_t timeout_ms, struct dns_channel_owner owner,
                                              struct dns_channel **channel);
/** Queries in flight end as cancelled, inside this call; the memory goes from the loop, then
 * on_closed is called. Not from inside a dns_try_fn. */
void dns_channel_destroy(struct dns_channel *channel);
/** Send a whole query message. `cb` is called exactly once, perhaps inside this call. */
void dns_channel_send(struct dns_channel *channel, struct bh_slice query, dns_try_fn *cb,
                      void *ctx);
unsigned dns_channel_in_flight(const struct dns_channel *channel);
/** uv_now of its creation. */
uint64_t dns_channel_born_ms(const struct dns_channel *channel);
