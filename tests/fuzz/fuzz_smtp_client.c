/* A server that says anything. Whatever it says: nothing privileged leaves without a clearance,
 * nobody is delivered who was not answered 2xx after the end, each transaction is done once, and an
 * end that was sent without a reply is uncertain. The first octet chooses options; so does the
 * last, which is said, too; a 0 octet in between stands for an event. */
#include <stdint.h>
#include <stdlib.h>

#include "bh/smtp_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bh_clearance {
    int unused;
};

#define TXNS 3
#define TO 4

struct world {
    struct bh_client client;
    struct bh_client_options options;
    struct bh_client_txn txns[TXNS];
    struct bh_client_result results[TXNS][TO];
    bool done[TXNS];
    uint64_t ended[TXNS];
    bool cleared, closed, tls_due;
    bool agreed;  /* the mechanism has come to its end */
    size_t piece; /* octets of content at a time */
    unsigned answers;
};

static const struct bh_clearance clearance;
static const struct bh_slice content = {".hi\r\nthere", 10};

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

static void on_done(struct world *w, const struct bh_client_txn *txn)
{
    const size_t t = (size_t)(txn - w->txns);
    check(t < TXNS && !w->done[t]);
    w->done[t] = true;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        const struct bh_client_result *r = &txn->results[i];
        const bool end = (w->ended[t] >> i & 1) != 0;
        const bool delivered = r->fate == BH_FATE_DECIDED && r->outcome.code / 100 == 2;
        check(!delivered || (end && r->outcome.stage == BH_STAGE_DOT));
        check(r->fate != BH_FATE_UNCERTAIN || end);
        check(!end || r->fate == BH_FATE_DECIDED || r->fate == BH_FATE_UNCERTAIN);
    }
}

/* The third answer is that we can't go on; the second completes the mechanism. */
static void answer(struct world *w, const struct bh_client_action *a, struct bh_now now)
{
    static const struct bh_outcome failed = {
        .stage = BH_STAGE_AUTH, .happened = BH_HAPPENED_GARBLED, .text = {"", 0}, .host = {"", 0}};
    check(a->begin == (w->answers == 0));
    w->answers++;
    if (w->answers > 2) {
        bh_client_on_failed(&w->client, &failed, now);
        return;
    }
    w->agreed = w->agreed || w->answers == 2;
    bh_client_on_sasl(&w->client, bh_slice("c2VjcmV0", 8), w->agreed, now);
}

static void give_content(struct world *w, const struct bh_client_action *a, struct bh_now now)
{
    const struct bh_slice rest = bh_slice_skip(content, (size_t)a->offset);
    const struct bh_slice piece = bh_slice_take(rest, w->piece);
    bh_client_on_content(&w->client, piece, piece.len == rest.len, now);
}

static void drain(struct world *w, struct bh_now now)
{
    static char scratch[BH_CLIENT_OUT_MIN];
    struct bh_client_action a;
    struct bh_buf out = bh_buf(scratch, sizeof(scratch));
    while (bh_client_next(&w->client, &out, &a)) {
        check(!w->closed);
        switch (a.kind) {
        case BH_CLIENT_WRITE:
            check(a.output == BH_OUTPUT_CREDENTIAL ? w->cleared && w->options.auth != 0 : true);
            check(w->cleared || (a.output == BH_OUTPUT_PREAMBLE && bh_preamble_allowed(a.bytes)));
            bh_client_on_written(&w->client, a.bytes.len, now);
            break;
        case BH_CLIENT_START_TLS:
            w->tls_due = true;
            break;
        case BH_CLIENT_WANT_CLEARANCE:
            check(w->options.tls != BH_TLS_MUST);
            w->cleared = true;
            bh_client_on_clearance(&w->client, &clearance, now);
            break;
        case BH_CLIENT_WANT_SASL:
            check(w->cleared && (a.mechanism & w->options.auth) != 0);
            answer(w, &a, now);
            break;
        case BH_CLIENT_READY:
            check(w->cleared && (w->options.auth == 0 || w->agreed));
            break;
        case BH_CLIENT_WANT_CONTENT:
            give_content(w, &a, now);
            break;
        case BH_CLIENT_BEFORE_END:
            check((w->ended[a.txn - w->txns] & a.ending[0]) == 0);
            w->ended[a.txn - w->txns] |= a.ending[0];
            break;
        case BH_CLIENT_DONE:
            on_done(w, a.txn);
            break;
        case BH_CLIENT_CLOSE:
            w->closed = true;
            break;
        }
        out = bh_buf(scratch, sizeof(scratch));
    }
}

static void event(struct world *w, struct bh_now *now)
{
    if (w->tls_due) {
        w->tls_due = false;
        w->cleared = true;
        bh_client_on_tls_up(&w->client, &clearance, *now);
    } else {
        const uint64_t deadline = bh_client_deadline_ms(&w->client);
        now->mono_ms = deadline != UINT64_MAX ? deadline : now->mono_ms + 1;
        bh_client_on_event(&w->client, deadline != UINT64_MAX ? BH_CLIENT_TIMEOUT : BH_CLIENT_QUIT,
                           *now);
    }
}

static void give(struct world *w, struct bh_arena *arena, struct bh_now now)
{
    static const struct bh_envelope envelope = {
        .sender = {"a@b.example", 11}, .envid = {"e", 1}, .ret = BH_RET_HDRS, .size = 10};
    static const struct bh_recipient to[TO] = {
        {{"a@c.example", 11}, {"rfc822;x", 8}, BH_NOTIFY_SUCCESS},
        {{"b@c.example", 11}, {"", 0}, 0},
        {{"c@c.example", 11}, {"", 0}, BH_NOTIFY_NEVER},
        {{"d@c.example", 11}, {"", 0}, 0},
    };
    for (size_t t = 0; t < TXNS; t++) {
        w->txns[t] = (struct bh_client_txn){.envelope = &envelope,
                                            .recipients = to,
                                            .results = w->results[t],
                                            .recipients_count = (uint32_t)t + 2,
                                            .arena = arena};
        bh_client_give(&w->client, &w->txns[t], now);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    if (size == 0) {
        return 0;
    }
    struct bh_now now = {1, 1};
    struct bh_arena arena;
    bh_arena_init(&arena, 8192);
    w = (struct world){.options = {.lmtp = (data[0] & 1) != 0,
                                   .helo_only = (data[0] & 2) != 0,
                                   .implicit_tls = (data[0] & 4) != 0,
                                   .tls = (enum bh_tls_want)((data[0] >> 3) % 3),
                                   .recipients_max = data[0] >> 6,
                                   .speculative = (data[size - 1] & 1) != 0,
                                   .auth = (data[0] & 32) != 0 ? 31 : 0,
                                   .helo = {"me", 2},
                                   .host = {"mx", 2},
                                   .timeouts = bh_client_default_timeouts()},
                       .piece = (data[size - 1] & 2) != 0 ? 4 : content.len};
    bh_client_init(&w.client, &w.options);
    give(&w, &arena, now);
    bh_client_on_event(&w.client, BH_CLIENT_CONNECTED, now);
    drain(&w, now);
    for (size_t i = 1; i < size; i++) {
        now.mono_ms++;
        if (data[i] == 0) {
            event(&w, &now);
        } else {
            bh_client_on_bytes(&w.client, bh_slice(data + i, 1), now);
        }
        drain(&w, now);
    }
    bh_client_on_event(&w.client, BH_CLIENT_LOST, now);
    drain(&w, now);
    check(w.closed);
    for (size_t t = 0; t < TXNS; t++) {
        check(w.done[t]);
    }
    bh_arena_fini(&arena);
    return 0;
}
