/* sts_fetch.h - one small file over HTTPS, as RFC 8461 section 3.3 wants it: by libcurl on a loop,
 * with addresses that the caller has looked up. No redirect, no proxy, no cache, no cookie, TLS 1.2
 * or later, a certificate that is valid for the host by its subject alternative names. */
#pragma once

#include <uv.h>

#include "bh/ip.h"
#include "bh/slice.h"
#include "bh/status.h"

#define STS_FETCH_ADDRESSES_MAX 8

struct sts_fetcher;
struct sts_fetch;

struct sts_fetch_request {
    const char *host; /* NUL-terminated; also the name that the certificate must have */
    uint16_t port;
    const char *path;              /* with its leading "/" */
    const struct bh_ip *addresses; /* in the order to try */
    size_t address_count;          /* 1 to STS_FETCH_ADDRESSES_MAX */
    const char *ca_file;           /* NULL: the system's store */
    uint64_t timeout_ms;           /* of the whole */
    size_t octets_max;             /* of the body */
};

/** @param body   what came; empty after a failure
 *  @param error  empty: it is good. Else why not, for people. Both borrowed for the call */
typedef void sts_fetch_fn(void *ctx, struct bh_slice body, struct bh_slice error);

/** @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status sts_fetcher_create(uv_loop_t *loop, struct sts_fetcher **fetcher);
/** Begin. Everything of the request is copied. The callback comes once, from the loop.
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status sts_fetch_start(struct sts_fetcher *fetcher,
                                           const struct sts_fetch_request *request,
                                           sts_fetch_fn *cb, void *ctx, struct sts_fetch **fetch);
/** End it without its callback; not from inside a callback of its own. */
void sts_fetch_cancel(struct sts_fetch *fetch);
/** On the loop, with no fetch open: close its handles. */
void sts_fetcher_close(struct sts_fetcher *fetcher);
/** After the loop has ended. NULL is fine. */
void sts_fetcher_free(struct sts_fetcher *fetcher);
