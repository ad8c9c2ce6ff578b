/* The double at the TLS interface: everything of bh/tls.h but clearances, which are the real ones
 * and are made here only where the demand is met. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "clearance.h"
#include "core.h"
#include "mutate.h"
#include "tls_wire.h"

struct bh_tls_worker {
    int unused;
};
struct bh_tls_server_ctx {
    int unused;
};

struct bh_tls {
    struct bh_tls_demand demand; /* its mode and flags */
    char names[8][BH_IP_TEXT_MAX + 256];
    size_t name_count;
    uint8_t pins[8][BH_PIN_LEN]; /* pinned, or of TLSA records of a key */
    size_t pin_count;
    bool any_tlsa_name; /* a TLSA record of usage 2 */
    uint8_t digest[BH_TLS_DIGEST_LEN];
    uint64_t connection, generation;
    enum bh_tls_state state;
    bool said_hello, met;
    struct bh_tls_facts facts;
    char error[BH_TLS_REASON_MAX];
    struct tls_frames frames;
    char *out, *plain;
    size_t out_len, out_cap, plain_len, plain_cap;
};

/* ---- frames ---- */

size_t tls_frames_feed(struct tls_frames *f, const char *in, size_t len, bool *ready,
                       size_t *content_len, bool *bad)
{
    size_t taken = 0;
    *ready = false;
    *bad = false;
    while (taken < len && !*ready) {
        f->octets[f->len++] = in[taken++];
        const unsigned char type = (unsigned char)f->octets[0];
        if (type < FRAME_HELLO || type > FRAME_ALERT) {
            *bad = true;
            return taken;
        }
        if (f->len >= FRAME_HEAD) {
            *content_len = bh_get_be16(f->octets + 1);
            *bad = *content_len > FRAME_MAX;
            *ready = !*bad && f->len == FRAME_HEAD + *content_len;
            if (*bad) {
                return taken;
            }
        }
    }
    return taken;
}

void tls_frame_put(enum tls_frame type, const char *octets, size_t len,
                   void (*put)(void *ctx, const char *octets, size_t len), void *ctx)
{
    char frame[FRAME_HEAD + FRAME_MAX];
    do {
        const size_t n = len < FRAME_MAX ? len : FRAME_MAX;
        frame[0] = (char)type;
        bh_put_be16(frame + 1, (uint16_t)n);
        for (size_t i = 0; i < n; i++) {
            frame[FRAME_HEAD + i] = type == FRAME_DATA ? (char)(octets[i] ^ FRAME_MASK) : octets[i];
        }
        put(ctx, frame, FRAME_HEAD + n);
        octets = n > 0 ? octets + n : octets;
        len -= n;
    } while (len > 0);
}

static bool append(char **at, size_t *len, size_t *cap, const char *octets, size_t n)
{
    if (*len + n > *cap) {
        const size_t wanted = (*len + n) * 2;
        char *grown = realloc(*at, wanted);
        if (grown == NULL) {
            return false;
        }
        *at = grown;
        *cap = wanted;
    }
    if (n > 0) {
        memcpy(*at + *len, octets, n);
    }
    *len += n;
    return true;
}

static void put_out(void *ctx, const char *octets, size_t len)
{
    struct bh_tls *t = ctx;
    if (!append(&t->out, &t->out_len, &t->out_cap, octets, len)) {
        t->state = BH_TLS_FAILED;
    }
}

/* ---- workers, contexts, digests ---- */

struct bh_tls_worker *bh_tls_worker_create(uint32_t resume_max)
{
    (void)resume_max;
    return calloc(1, sizeof(struct bh_tls_worker));
}

void bh_tls_worker_destroy(struct bh_tls_worker *worker)
{
    free(worker);
}

size_t bh_tls_worker_refresh(struct bh_tls_worker *worker)
{
    (void)worker;
    return 0;
}

enum bh_status bh_tls_demand_digest(const struct bh_tls_demand *demand,
                                    uint8_t digest[BH_TLS_DIGEST_LEN])
{
    char octets[16384];
    struct bh_writer w = {.buf = bh_buf(octets, sizeof(octets))};
    bh_tls_demand_write(demand, &w);
    if (w.overflow) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < BH_TLS_DIGEST_LEN / 8; i++) {
        bh_put_be64(digest + 8 * i, bh_hash(bh_buf_slice(&w.buf), i + 1));
    }
    return BH_OK;
}

enum bh_status bh_tls_worker_digest(struct bh_tls_worker *worker,
                                    const struct bh_tls_demand *demand,
                                    uint8_t digest[BH_TLS_DIGEST_LEN], struct bh_buf *error)
{
    (void)worker;
    (void)error;
    return bh_tls_demand_digest(demand, digest);
}

enum bh_status bh_tls_server_ctx_create(const struct bh_tls_server_params *params,
                                        struct bh_tls_server_ctx **ctx, struct bh_buf *error)
{
    (void)params;
    (void)error;
    *ctx = calloc(1, sizeof(struct bh_tls_server_ctx));
    return *ctx != NULL ? BH_OK : BH_ENOMEM;
}

void bh_tls_server_ctx_destroy(struct bh_tls_server_ctx *ctx)
{
    free(ctx);
}

bool bh_tls_server_ctx_stale(const struct bh_tls_server_ctx *ctx)
{
    (void)ctx;
    return false;
}

struct bh_tls *bh_tls_server_create(struct bh_tls_server_ctx *ctx)
{
    (void)ctx;
    return NULL; /* the simulated senders speak clear text */
}

/* ---- sessions ---- */

enum bh_status bh_tls_client_create(struct bh_tls_worker *worker,
                                    const struct bh_tls_client_params *params, struct bh_tls **tls,
                                    struct bh_buf *error)
{
    const struct bh_tls_demand *demand = params->demand;
    struct bh_tls *t = calloc(1, sizeof(*t));
    (void)worker;
    (void)error;
    if (t == NULL) {
        return BH_ENOMEM;
    }
    t->demand = (struct bh_tls_demand){.mode = demand->mode, .implicit = demand->implicit};
    for (size_t i = 0; i < demand->names.count && t->name_count < BH_COUNT(t->names); i++) {
        struct bh_buf name = bh_buf(t->names[t->name_count], sizeof(t->names[0]) - 1);
        bh_buf_add_cut(&name, demand->names.at[i]);
        t->names[t->name_count++][name.len] = '\0';
    }
    for (size_t i = 0; i < demand->pins.count && t->pin_count < BH_COUNT(t->pins); i++) {
        memcpy(t->pins[t->pin_count++], demand->pins.at[i], BH_PIN_LEN);
    }
    for (size_t i = 0; i < demand->tlsa.count && t->pin_count < BH_COUNT(t->pins); i++) {
        const struct bh_tlsa *r = &demand->tlsa.at[i];
        if (r->selector == 1 && r->matching == 1 && r->data.len == BH_PIN_LEN) {
            memcpy(t->pins[t->pin_count++], r->data.ptr, BH_PIN_LEN);
        }
    }
    t->connection = params->connection;
    t->generation = params->generation;
    t->facts.version = "";
    t->facts.cipher = "";
    if (bh_tls_demand_digest(demand, t->digest) != BH_OK) {
        free(t);
        return BH_ENOMEM;
    }
    *tls = t;
    return BH_OK;
}

void bh_tls_destroy(struct bh_tls *tls)
{
    if (tls != NULL) {
        free(tls->out);
        free(tls->plain);
        free(tls);
    }
}

static bool name_matches(const char *wanted, const char *name)
{
    const size_t w = strlen(wanted);
    const size_t n = strlen(name);
    if (wanted[0] == '.') {
        return n > w && strcmp(name + n - w, wanted) == 0;
    }
    return strcmp(wanted, name) == 0;
}

static bool meets(const struct bh_tls *t, const struct tls_shown *shown)
{
    bool named = strcmp(shown->name, "*") == 0;
    bool pinned = named;
    for (size_t i = 0; i < t->name_count; i++) {
        named = named || name_matches(t->names[i], shown->name);
    }
    for (size_t i = 0; i < t->pin_count; i++) {
        pinned = pinned || memcmp(t->pins[i], shown->spki, BH_PIN_LEN) == 0;
    }
    switch (t->demand.mode) {
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        return true;
    case BH_TLS_VERIFY:
        return named && shown->trusted != 0;
    case BH_TLS_DANE:
        return pinned || mutated(MUTATE_DANE_MISMATCH);
    case BH_TLS_PIN:
        return pinned;
    case BH_TLS_OFF:
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        break;
    }
    return false;
}

static void on_certificate(struct bh_tls *t, const char *octets, size_t len)
{
    struct tls_shown shown;
    if (len != sizeof(shown)) {
        t->state = BH_TLS_FAILED;
        return;
    }
    memcpy(&shown, octets, sizeof(shown));
    shown.name[sizeof(shown.name) - 1] = '\0';
    t->met = meets(t, &shown);
    t->state = BH_TLS_UP;
    t->facts.version = "TLSv1.3";
    t->facts.cipher = "SIMULATED";
    t->facts.has_certificate = true;
    t->facts.verified = shown.trusted != 0;
    t->facts.has_spki = true;
    memcpy(t->facts.spki, shown.spki, BH_PIN_LEN);
    const bool asks = t->demand.mode == BH_TLS_VERIFY || t->demand.mode == BH_TLS_PIN ||
                      t->demand.mode == BH_TLS_DANE;
    t->facts.peer_authenticated = asks && t->met;
    t->facts.name_matched = t->facts.peer_authenticated;
    if (!t->met) {
        snprintf(t->error, sizeof(t->error), "%s", "the certificate is not what is demanded");
        snprintf(t->facts.verify_error, sizeof(t->facts.verify_error), "%s",
                 "not what is demanded");
    }
}

static void on_frame(struct bh_tls *t, size_t len)
{
    char *octets = t->frames.octets + FRAME_HEAD;
    switch ((unsigned char)t->frames.octets[0]) {
    case FRAME_CERTIFICATE:
        if (t->state == BH_TLS_SHAKING) {
            on_certificate(t, octets, len);
        }
        break;
    case FRAME_DATA:
        for (size_t i = 0; i < len; i++) {
            octets[i] = (char)(octets[i] ^ FRAME_MASK);
        }
        if (t->state != BH_TLS_UP ||
            !append(&t->plain, &t->plain_len, &t->plain_cap, octets, len)) {
            t->state = BH_TLS_FAILED;
        }
        break;
    case FRAME_CLOSE:
        t->state = BH_TLS_CLOSED;
        break;
    default:
        t->state = BH_TLS_FAILED;
        snprintf(t->error, sizeof(t->error), "%s", "the peer sent an alert");
        break;
    }
}

enum bh_status bh_tls_feed(struct bh_tls *t, struct bh_slice cipher)
{
    while (cipher.len > 0 && t->state != BH_TLS_FAILED) {
        bool ready = false;
        bool bad = false;
        size_t len = 0;
        cipher = bh_slice_skip(
            cipher, tls_frames_feed(&t->frames, cipher.ptr, cipher.len, &ready, &len, &bad));
        if (bad) {
            t->state = BH_TLS_FAILED;
            snprintf(t->error, sizeof(t->error), "%s", "what came is no TLS");
        } else if (ready) {
            on_frame(t, len);
            t->frames.len = 0;
        }
    }
    return BH_OK;
}

enum bh_tls_state bh_tls_handshake(struct bh_tls *t)
{
    if (!t->said_hello) {
        t->said_hello = true;
        tls_frame_put(FRAME_HELLO, "hello", 5, put_out, t);
    }
    return t->state;
}

enum bh_tls_state bh_tls_state(const struct bh_tls *tls)
{
    return tls->state;
}

enum bh_status bh_tls_read(struct bh_tls *t, struct bh_buf *plain)
{
    const size_t room = bh_buf_room(plain);
    const size_t n = t->plain_len < room ? t->plain_len : room;
    if (n == 0) {
        return t->state == BH_TLS_FAILED || t->state == BH_TLS_CLOSED ? BH_EPROTO : BH_MORE;
    }
    bh_buf_put(plain, bh_slice(t->plain, n));
    t->plain_len -= n;
    memmove(t->plain, t->plain + n, t->plain_len);
    return BH_OK;
}

enum bh_status bh_tls_write(struct bh_tls *t, struct bh_slice plain)
{
    if (t->state == BH_TLS_SHAKING) {
        return BH_MORE;
    }
    if (t->state != BH_TLS_UP || !t->met) {
        return BH_EPROTO;
    }
    tls_frame_put(FRAME_DATA, plain.ptr, plain.len, put_out, t);
    return t->state == BH_TLS_UP ? BH_OK : BH_ENOMEM;
}

void bh_tls_shutdown(struct bh_tls *t)
{
    if (t->state == BH_TLS_UP) {
        tls_frame_put(FRAME_CLOSE, NULL, 0, put_out, t);
    }
}

size_t bh_tls_pending(const struct bh_tls *t)
{
    return t->out_len;
}

size_t bh_tls_take(struct bh_tls *t, struct bh_buf *out)
{
    const size_t room = bh_buf_room(out);
    const size_t n = t->out_len < room ? t->out_len : room;
    bh_buf_put(out, bh_slice(t->out, n));
    t->out_len -= n;
    memmove(t->out, t->out + n, t->out_len);
    return n;
}

const struct bh_tls_facts *bh_tls_facts(const struct bh_tls *tls)
{
    return &tls->facts;
}

struct bh_slice bh_tls_error(const struct bh_tls *tls)
{
    return bh_slice_str(tls->error);
}

struct bh_clearance *bh_clearance_of_tls(const struct bh_tls *t)
{
    if (t->state != BH_TLS_UP || !t->met) {
        return NULL;
    }
    return bh_clearance_create(true, t->facts.peer_authenticated, t->connection, t->generation,
                               t->digest);
}
