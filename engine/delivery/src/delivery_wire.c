#include <openssl/crypto.h>
#include <stdlib.h>

#include "bh/log.h"
#include "delivery_internal.h"

/* Octets that the socket did not take at once. */
struct write_request {
    uv_write_t request;
    struct attempt *attempt;
    size_t len;
    uint64_t plain; /* octets of the core's output that are complete with it */
    bool secret;    /* credentials in clear, by an exception: wiped when they are gone */
    char octets[];
};

static void drop(struct write_request *w)
{
    if (w->secret) {
        OPENSSL_cleanse(w->octets, w->len);
    }
    free(w);
}

static void on_written(uv_write_t *request, int status)
{
    struct write_request *w = request->data;
    struct bh_delivery *d = w->attempt->d;
    w->attempt->queued -= w->len;
    const bool current = d->state == DELIVERY_TALKING && d->won == w->attempt;
    if (current && status == 0) {
        bh_client_on_written(&d->client, w->plain, bh_delivery_now(d));
    } else if (current && status != UV_ECANCELED) {
        bh_client_on_event(&d->client, BH_CLIENT_LOST, bh_delivery_now(d));
    }
    drop(w);
    if (current) {
        bh_delivery_pump(d);
    }
}

static bool queue(struct bh_delivery *d, struct bh_slice octets, uint64_t plain)
{
    struct write_request *w = malloc(sizeof(*w) + octets.len);
    if (w == NULL) {
        return false;
    }
    w->request.data = w;
    w->attempt = d->won;
    w->len = octets.len;
    w->plain = plain;
    w->secret = d->tls == NULL && d->client.phase == BH_CLIENT_PHASE_AUTH;
    memcpy(w->octets, octets.ptr, octets.len);
    const uv_buf_t buf = uv_buf_init(w->octets, (unsigned)octets.len);
    if (uv_write(&w->request, (uv_stream_t *)&d->won->tcp, &buf, 1, on_written) != 0) {
        drop(w);
        return false;
    }
    d->won->queued += octets.len;
    return true;
}

/* To the socket as it is. `plain` octets of the core's output are complete with the last of it. */
static bool put_raw(struct bh_delivery *d, struct bh_slice octets, uint64_t plain)
{
    if (d->won->queued == 0) {
        char *at = octets.len > 0 ? (char *)(uintptr_t)octets.ptr : NULL;
        const uv_buf_t buf = uv_buf_init(at, (unsigned)octets.len);
        const int taken = uv_try_write((uv_stream_t *)&d->won->tcp, &buf, 1);
        if (taken < 0 && taken != UV_EAGAIN) {
            return false;
        }
        octets = bh_slice_skip(octets, taken > 0 ? (size_t)taken : 0);
        if (octets.len == 0) {
            if (plain > 0) {
                bh_client_on_written(&d->client, plain, bh_delivery_now(d));
            }
            return true;
        }
    }
    return queue(d, octets, plain);
}

static bool put_cipher(struct bh_delivery *d, uint64_t plain)
{
    while (bh_tls_pending(d->tls) > 0) {
        struct bh_buf cipher = bh_buf(d->worker->cipher, sizeof(d->worker->cipher));
        if (bh_tls_take(d->tls, &cipher) == 0) {
            return false;
        }
        const bool last = bh_tls_pending(d->tls) == 0;
        if (!put_raw(d, bh_buf_slice(&cipher), last ? plain : 0)) {
            return false;
        }
    }
    return true;
}

static bool may_go(const struct bh_delivery *d, enum bh_client_output output, struct bh_slice plain)
{
    if (plain.len == 0) {
        return true;
    }
    if (bh_clearance_valid(d->clearance, d->params.id, d->params.generation, d->digest)) {
        const bool inside = d->tls != NULL && bh_tls_state(d->tls) == BH_TLS_UP;
        if (output == BH_OUTPUT_CREDENTIAL && !bh_delivery_may_credential(d)) {
            return false;
        }
        return inside || !bh_clearance_is_tls(d->clearance);
    }
    return output == BH_OUTPUT_PREAMBLE && bh_preamble_allowed(plain);
}

bool bh_delivery_wire(struct bh_delivery *d, enum bh_client_output output, struct bh_slice plain)
{
    if (!may_go(d, output, plain)) {
        bh_log(BH_LOG_ERROR, "evt=clearance_violation session=%llu octets=%zu",
               (unsigned long long)d->params.id, plain.len);
        return false;
    }
    if (d->won == NULL || d->won->closing) {
        return false;
    }
    if (d->tls == NULL) {
        return plain.len == 0 || put_raw(d, plain, plain.len);
    }
    if (plain.len > 0 && bh_tls_write(d->tls, plain) != BH_OK) {
        return false;
    }
    return put_cipher(d, plain.len);
}
