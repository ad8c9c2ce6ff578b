/* Random policies against random peers: whatever is demanded and whatever the peer says, breaks or
 * repeats, the client core lets out nothing beyond its clearance. The driver of this test gives one
 * as the TLS layer would: for clear text only where the policy allows it, for TLS only once a
 * handshake stands. One seed, one conversation; BH_SEED repeats it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "bh/rng.h"
#include "bh/smtp_client.h"

#define CONVERSATIONS 6000
#define EVENTS 120

struct bh_clearance {
    bool of_tls;
};

struct world {
    struct bh_rng rng;
    struct bh_client client;
    struct bh_client_options options;
    struct bh_clearance plain, tls;
    struct bh_arena arena;
    struct bh_now now;
    bool cleared; /* one was given */
    bool inside;  /* a handshake stands */
    bool shaking; /* START_TLS was asked for */
    bool ready, closed;
    bool in_data;              /* after DATA, until its dot */
    uint8_t owed[64];          /* what a peer that means well would say next: index in `said` */
    unsigned owed_at, owed_to; /* it stands between these, modulo the size */
    unsigned privileged, in_clear, cleared_by_tls; /* what was seen, over all */
};

static uint64_t seed;

static uint32_t pick(struct world *w, uint32_t below)
{
    return (uint32_t)bh_rng_below(&w->rng, below);
}

enum { OK = 1, EHLO_FIRST = 2, EHLO_COUNT = 3, GO = 5, WELCOME = 7, CONTENT = 9 };
static const char *const said[] = {
    "220 hello\r\n",
    "250 ok\r\n",
    "250-peer\r\n250-STARTTLS\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1000\r\n",
    "250-peer\r\n250-REQUIRETLS\r\n250-CHUNKING\r\n250 8BITMIME\r\n",
    "250-peer\r\n250 STARTTLS\r\n",
    "220 go ahead\r\n",
    "220 go ahead\r\n250 injected\r\n",
    "235 welcome\r\n",
    "334 \r\n",
    "354 go\r\n",
    "421 closing\r\n",
    "454 4.7.0 not now\r\n",
    "502 no\r\n",
    "530 5.7.0 first\r\n",
    "550 no\r\n",
    "\x16\x03\x01",
    "2",
    "\r\n",
};

/* What the lines that went out ask for, in order. */
static void owe(struct world *w, struct bh_slice bytes)
{
    static const struct {
        const char *verb;
        uint8_t reply;
    } replies[] = {{"EHLO", EHLO_FIRST}, {"LHLO", EHLO_FIRST}, {"STARTTLS", GO},
                   {"AUTH", WELCOME},    {"DATA", CONTENT},    {"QUIT", OK}};
    while (bytes.len > 0) {
        const size_t end = bh_slice_find(bytes, '\n');
        const struct bh_slice line = bh_slice_take(bytes, end);
        uint8_t reply = OK;
        bytes = bh_slice_skip(bytes, end < bytes.len ? end + 1 : end);
        for (size_t i = 0; i < BH_COUNT(replies); i++) {
            reply = bh_slice_starts(line, bh_slice_str(replies[i].verb)) ? replies[i].reply : reply;
        }
        const bool dot = bh_slice_eq(line, BH_LIT(".\r"));
        if (w->in_data && !dot) {
            continue;
        }
        w->in_data = reply == CONTENT;
        if (reply == EHLO_FIRST) {
            reply = (uint8_t)(EHLO_FIRST + pick(w, EHLO_COUNT));
        }
        w->owed[w->owed_to++ % sizeof(w->owed)] = reply;
    }
}

/* The preamble is EHLO and its like; the rest needs what the policy says. */
static void on_write(struct world *w, const struct bh_client_action *a)
{
    if (a->output == BH_OUTPUT_PREAMBLE) {
        assert_true(bh_preamble_allowed(a->bytes));
    } else {
        assert_true(w->cleared);
        assert_true(w->inside || (w->options.tls != BH_TLS_MUST && !w->options.implicit_tls));
        w->privileged++;
        w->in_clear += w->inside ? 0 : 1;
        w->cleared_by_tls += w->inside ? 1 : 0;
    }
    /* Nothing of the mail, nor of the secret, lies in a preamble. */
    if (a->output == BH_OUTPUT_PREAMBLE) {
        const struct bh_slice secrets[] = {BH_LIT("MAIL"), BH_LIT("RCPT"), BH_LIT("AUTH"),
                                           BH_LIT("private")};
        for (size_t i = 0; i < BH_COUNT(secrets); i++) {
            assert_int_equal(bh_slice_find_slice(a->bytes, secrets[i]), a->bytes.len);
        }
    }
    owe(w, a->bytes);
    bh_client_on_written(&w->client, a->bytes.len, w->now);
}

static void on_action(struct world *w, const struct bh_client_action *a)
{
    switch (a->kind) {
    case BH_CLIENT_WRITE:
        on_write(w, a);
        break;
    case BH_CLIENT_START_TLS:
        assert_true(w->options.tls != BH_TLS_NEVER || w->options.implicit_tls);
        assert_false(w->inside);
        w->shaking = true;
        break;
    case BH_CLIENT_WANT_CLEARANCE:
        /* The TLS layer gives none where the demand is TLS; to be asked is a mistake already. */
        assert_true(w->options.tls != BH_TLS_MUST && !w->options.implicit_tls && !w->inside);
        w->cleared = true;
        bh_client_on_clearance(&w->client, &w->plain, w->now);
        break;
    case BH_CLIENT_WANT_SASL:
        assert_true(w->cleared);
        bh_client_on_sasl(&w->client, BH_LIT("cHJpdmF0ZQ=="), true, w->now);
        break;
    case BH_CLIENT_WANT_CONTENT:
        bh_client_on_content(&w->client, BH_LIT("private\r\n"), true, w->now);
        break;
    case BH_CLIENT_BEFORE_END:
        assert_true(w->cleared);
        break;
    case BH_CLIENT_READY:
        assert_true(w->cleared);
        w->ready = true;
        break;
    case BH_CLIENT_CLOSE:
        w->closed = true;
        break;
    case BH_CLIENT_DONE:
        break;
    }
}

static void drain(struct world *w)
{
    static char scratch[BH_CLIENT_OUT_MIN];
    struct bh_client_action a;
    struct bh_buf out = bh_buf(scratch, sizeof(scratch));
    while (!w->closed && bh_client_next(&w->client, &out, &a)) {
        on_action(w, &a);
        out = bh_buf(scratch, sizeof(scratch));
    }
}

static void something(struct world *w)
{
    const uint32_t roll = pick(w, 100);
    w->now.mono_ms += pick(w, 50);
    if (w->shaking) {
        w->shaking = false;
        if (roll < 70) {
            w->inside = true;
            w->cleared = true;
            bh_client_on_tls_up(&w->client, &w->tls, w->now);
        } else {
            const struct bh_outcome failed = {.stage = BH_STAGE_TLS,
                                              .happened = roll < 85 ? BH_HAPPENED_TLS_FAILED
                                                                    : BH_HAPPENED_TLS_UNVERIFIED};
            bh_client_on_failed(&w->client, &failed, w->now);
        }
    } else if (roll < 2) {
        bh_client_on_event(&w->client, BH_CLIENT_LOST, w->now);
    } else if (roll < 4) {
        w->now.mono_ms += 400000;
        bh_client_on_event(&w->client, BH_CLIENT_TIMEOUT, w->now);
    } else if (roll < 5) {
        bh_client_on_event(&w->client, BH_CLIENT_QUIT, w->now);
    } else {
        /* Mostly what moves it on: then the later phases are seen, too. */
        const bool owes = w->owed_at != w->owed_to && pick(w, 16) != 0;
        const uint32_t which = owes              ? w->owed[w->owed_at++ % sizeof(w->owed)]
                               : pick(w, 2) == 0 ? 0
                                                 : pick(w, BH_COUNT(said));
        const struct bh_slice words = bh_slice_str(said[which]);
        if (pick(w, 16) == 0) {
            bh_client_on_bytes(&w->client, bh_slice_take(words, pick(w, 5)), w->now);
        } else {
            bh_client_on_bytes(&w->client, words, w->now);
        }
    }
    drain(w);
}

static void converse(struct world *w, uint64_t start)
{
    const unsigned counts[] = {w->privileged, w->in_clear, w->cleared_by_tls};
    *w =
        (struct world){.privileged = counts[0], .in_clear = counts[1], .cleared_by_tls = counts[2]};
    bh_rng_seed(&w->rng, start);
    bh_arena_init(&w->arena, 1 << 16);
    w->now = (struct bh_now){1, 1};
    w->options = (struct bh_client_options){.tls = (enum bh_tls_want)pick(w, 3),
                                            .lmtp = pick(w, 6) == 0,
                                            .helo_only = pick(w, 8) == 0,
                                            .peer_proven = pick(w, 2) == 0,
                                            .route_unknown = pick(w, 4) == 0,
                                            .auth = pick(w, 3) == 0 ? 1U << pick(w, 3) : 0,
                                            .helo = BH_LIT("me.example"),
                                            .host = BH_LIT("mx.example"),
                                            .recipients_max = 1 + pick(w, 3),
                                            .timeouts = bh_client_default_timeouts()};
    w->options.implicit_tls = w->options.tls == BH_TLS_MUST && pick(w, 4) == 0;
    struct bh_client_result results[2] = {{0}};
    const struct bh_recipient to[2] = {{.address = BH_LIT("a@b.example")},
                                       {.address = BH_LIT("private@b.example")}};
    const struct bh_envelope envelope = {
        .sender = BH_LIT("private@me.example"), .requiretls = pick(w, 3) == 0, .size = 9};
    struct bh_client_txn txn = {.envelope = &envelope,
                                .recipients = to,
                                .results = results,
                                .recipients_count = 1 + pick(w, 2),
                                .arena = &w->arena};
    bh_client_init(&w->client, &w->options);
    bh_client_give(&w->client, &txn, w->now);
    bh_client_on_event(&w->client, BH_CLIENT_CONNECTED, w->now);
    drain(w);
    for (unsigned i = 0; i < EVENTS && !w->closed; i++) {
        something(w);
    }
    if (envelope.requiretls && !(w->inside && w->options.peer_proven)) {
        assert_true(results[0].outcome.code / 100 != 2); /* it went nowhere */
    }
    bh_arena_fini(&w->arena);
}

static void nothing_leaves_beyond_the_clearance(void **unused)
{
    static struct world w;
    const char *one = getenv("BH_SEED");
    const uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    (void)unused;
    for (seed = first; seed < first + (one != NULL ? 1 : CONVERSATIONS); seed++) {
        converse(&w, seed);
    }
    /* The peers are no fools: each kind of talk was had. */
    assert_true(one != NULL || (w.in_clear > 1000 && w.cleared_by_tls > 1000));
}

static int say_which_seed_failed(void **unused)
{
    (void)unused;
    print_message("last BH_SEED=%llu\n", (unsigned long long)seed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_leaves_beyond_the_clearance, say_which_seed_failed)};
    return cmocka_run_group_tests_name("smtp_client_random", tests, NULL, NULL);
}
