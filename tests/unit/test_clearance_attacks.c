/* Whatever is done to a clearance, the one function that writes to sockets lets nothing privileged
 * pass without a good one: read at the other end of the socket, in release builds, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../engine/delivery/src/delivery_internal.h"
#include "tls_certs.h"

#define CONNECTION 42
#define GENERATION 7
/* More than a clearance has, and as aligned. What lies behind it is never looked at. */
#define CLEARANCE_OCTETS ((size_t)72)

static const struct bh_slice mail = {"MAIL FROM:<a@b.example>\r\n", 25};
static const struct bh_tls_demand off = {.mode = BH_TLS_OFF};
static const struct bh_tls_demand opportunistic = {.mode = BH_TLS_OPPORTUNISTIC,
                                                   .min_version = BH_TLS_VERSION_1_2};
static const struct bh_tls_demand encrypt = {.mode = BH_TLS_ENCRYPT,
                                             .min_version = BH_TLS_VERSION_1_2};

static uv_loop_t loop;
static struct bh_tls_worker *tls_worker;
static struct bh_delivery_worker *worker;
static struct bh_delivery *d;
static int far_end;
static struct made leaf;
static SSL_CTX *server_ctx;

/* ---- a session that writes into a pair of sockets ---- */

static int setup(void **unused)
{
    (void)unused;
    int ends[2];
    const struct made_as as = {.common = "mx.example", .names = "DNS:mx.example"};
    leaf = certs_make(&as, NULL);
    const struct bare_server server = {.leaf = &leaf};
    server_ctx = bare_context(&server);
    assert_int_equal(uv_loop_init(&loop), 0);
    tls_worker = bh_tls_worker_create(8);
    worker = bh_delivery_worker_create(&loop, tls_worker);
    d = calloc(1, sizeof(*d));
    assert_true(worker != NULL && d != NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    far_end = ends[1];
    d->worker = worker;
    d->state = DELIVERY_TALKING;
    d->params.id = CONNECTION;
    d->params.generation = GENERATION;
    d->won = &d->attempts[0];
    d->won->d = d;
    d->client.emitted = UINT64_MAX / 2; /* all that is written here was handed out */
    assert_int_equal(uv_tcp_init(&loop, &d->won->tcp), 0);
    assert_int_equal(uv_tcp_open(&d->won->tcp, ends[0]), 0);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    uv_close((uv_handle_t *)&d->won->tcp, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(far_end);
    free(d);
    bh_delivery_worker_destroy(worker);
    bh_tls_worker_destroy(tls_worker);
    SSL_CTX_free(server_ctx);
    certs_free(&leaf);
    return 0;
}

/* Octets that have arrived at the far end. */
static size_t arrived(void)
{
    char octets[4096];
    size_t total = 0;
    for (;;) {
        const ssize_t n = recv(far_end, octets, sizeof(octets), MSG_DONTWAIT);
        if (n <= 0) {
            assert_true(n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
            return total;
        }
        total += (size_t)n;
    }
}

/* With this clearance, as privileged or passed off as preamble: not an octet. */
static void nothing_passes(struct bh_clearance *clearance)
{
    d->clearance = clearance;
    assert_false(bh_delivery_wire(d, BH_OUTPUT_PRIVILEGED, mail));
    assert_false(bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, mail));
    assert_int_equal(arrived(), 0);
    d->clearance = NULL;
}

static void it_passes(struct bh_clearance *clearance)
{
    d->clearance = clearance;
    assert_true(bh_delivery_wire(d, BH_OUTPUT_PRIVILEGED, mail));
    assert_true(arrived() >= mail.len);
    d->clearance = NULL;
}

static void demand_now(const struct bh_tls_demand *demand)
{
    assert_int_equal(bh_tls_demand_digest(demand, d->digest), BH_OK);
}

static struct bh_clearance *plain(const struct bh_tls_demand *demand, uint64_t connection,
                                  uint64_t generation)
{
    struct bh_clearance *c = bh_clearance_plain(demand, connection, generation);
    assert_non_null(c);
    return c;
}

/* A session that is up, with its clearance. */
static struct bh_tls *session(const struct bh_tls_demand *demand, uint64_t connection,
                              uint64_t generation, struct bh_clearance **clearance)
{
    char text[128];
    struct bh_buf error = bh_buf(text, sizeof(text));
    const struct bh_tls_client_params params = {.demand = demand,
                                                .host = BH_LIT("mx.example"),
                                                .port = 25,
                                                .connection = connection,
                                                .generation = generation};
    struct bh_tls *tls = NULL;
    assert_int_equal(bh_tls_client_create(tls_worker, &params, &tls, &error), BH_OK);
    SSL *server = bare_session(server_ctx);
    bh_tls_handshake(tls);
    bare_pump(tls, server);
    SSL_free(server);
    assert_int_equal(bh_tls_state(tls), BH_TLS_UP);
    *clearance = bh_clearance_of_tls(tls);
    assert_non_null(*clearance);
    return tls;
}

/* ---- the attacks ---- */

static void none_zeroed_copied(void **unused)
{
    (void)unused;
    static uint64_t place[CLEARANCE_OCTETS / 8 + 1];
    struct bh_clearance *forged = (struct bh_clearance *)(void *)place;
    demand_now(&off);
    nothing_passes(NULL);
    memset(place, 0, sizeof(place));
    nothing_passes(forged);
    memset(place, 0xff, sizeof(place));
    nothing_passes(forged);
    struct bh_clearance *good = plain(&off, CONNECTION, GENERATION);
    memcpy(place, good, CLEARANCE_OCTETS);
    nothing_passes(forged); /* every octet the same, at another address */
    place[0] = (uint64_t)(uintptr_t)place;
    nothing_passes(forged); /* and its own address put right */
    it_passes(good);
    bh_clearance_destroy(good);
}

static void altered(void **unused)
{
    (void)unused;
    demand_now(&off);
    struct bh_clearance *c = plain(&off, CONNECTION, GENERATION);
    unsigned char *octets = (unsigned char *)c;
    unsigned char before[CLEARANCE_OCTETS];
    memcpy(before, c, sizeof(before));
    for (size_t i = 0; i < CLEARANCE_OCTETS * 8; i++) {
        octets[i / 8] ^= (unsigned char)(1U << i % 8);
        const bool padding = i / 8 > 56 && i / 8 < 64; /* behind the flag: says nothing */
        const bool flag = i / 8 == 56;                 /* a bool is 0 or 1, or not to be read */
        if (!padding && (!flag || i % 8 == 0)) {
            nothing_passes(c);
        }
        memcpy(octets, before, sizeof(before));
    }
    it_passes(c);
    bh_clearance_destroy(c);
}

/* A pointer kept past its clearance, where another one has come to lie. */
static void freed_and_used_again(void **unused)
{
    (void)unused;
    demand_now(&off);
    bool same_place = false;
    for (size_t i = 0; i < 64 && !same_place; i++) {
        struct bh_clearance *stale = plain(&off, CONNECTION, GENERATION);
        const uintptr_t place = (uintptr_t)stale;
        bh_clearance_destroy(stale);
        struct bh_clearance *next = plain(&off, CONNECTION + 1, GENERATION);
        same_place = (uintptr_t)next == place;
        nothing_passes(next); /* of another connection, wherever it lies */
        bh_clearance_destroy(next);
    }
    (void)same_place; /* not to be had where freed memory is kept from use, to find such bugs */
}

static void stale(void **unused)
{
    (void)unused;
    demand_now(&off);
    struct bh_clearance *reconnected = plain(&off, CONNECTION - 1, GENERATION);
    struct bh_clearance *reloaded = plain(&off, CONNECTION, GENERATION - 1);
    nothing_passes(reconnected);
    nothing_passes(reloaded);
    bh_clearance_destroy(reconnected);
    bh_clearance_destroy(reloaded);
}

static void another_or_a_weaker_demand(void **unused)
{
    (void)unused;
    struct bh_clearance *weaker[] = {plain(&off, CONNECTION, GENERATION),
                                     plain(&opportunistic, CONNECTION, GENERATION)};
    demand_now(&encrypt);
    nothing_passes(weaker[0]);
    nothing_passes(weaker[1]);
    demand_now(&opportunistic);
    nothing_passes(weaker[0]);
    it_passes(weaker[1]);
    for (size_t i = 0; i < BH_COUNT(weaker); i++) {
        bh_clearance_destroy(weaker[i]);
    }
}

static void cleared_for_tls_only_inside_it(void **unused)
{
    (void)unused;
    struct bh_clearance *c = NULL;
    struct bh_tls *tls = session(&encrypt, CONNECTION, GENERATION, &c);
    demand_now(&encrypt);
    nothing_passes(c); /* there is no TLS on this connection */
    d->tls = tls;
    nothing_passes(NULL);
    it_passes(c);

    /* A session of the connection before, kept by mistake, with its own clearance or with ours. */
    struct bh_clearance *older = NULL;
    struct bh_tls *before = session(&encrypt, CONNECTION - 1, GENERATION, &older);
    d->tls = before;
    nothing_passes(older);
    d->tls = tls;
    nothing_passes(older);

    /* Met `encrypt`; `verify` is asked. */
    const struct bh_slice name = BH_LIT("mx.example");
    struct bh_tls_demand verify = encrypt;
    verify.mode = BH_TLS_VERIFY;
    verify.names = (struct bh_names){&name, 1};
    char text[128];
    struct bh_buf error = bh_buf(text, sizeof(text));
    assert_int_equal(bh_tls_worker_digest(tls_worker, &verify, d->digest, &error), BH_OK);
    nothing_passes(c);
    demand_now(&encrypt);

    bh_tls_shutdown(tls);
    assert_true(bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, BH_EMPTY)); /* close_notify */
    assert_true(arrived() > 0);
    nothing_passes(older);
    d->tls = NULL;
    bh_clearance_destroy(c);
    bh_clearance_destroy(older);
    bh_tls_destroy(tls);
    bh_tls_destroy(before);
}

/* A peer that did not meet the demand has no clearance, and its session takes nothing, whoever
 * asks. */
static void unmet(void **unused)
{
    (void)unused;
    static const uint8_t pin[1][BH_PIN_LEN] = {{1}};
    struct bh_tls_demand pinned = encrypt;
    pinned.mode = BH_TLS_PIN;
    pinned.pins = (struct bh_pins){pin, 1};
    char text[128];
    struct bh_buf error = bh_buf(text, sizeof(text));
    const struct bh_tls_client_params params = {.demand = &pinned,
                                                .host = BH_LIT("mx.example"),
                                                .port = 25,
                                                .connection = CONNECTION,
                                                .generation = GENERATION};
    struct bh_tls *tls = NULL;
    assert_int_equal(bh_tls_client_create(tls_worker, &params, &tls, &error), BH_OK);
    SSL *server = bare_session(server_ctx);
    bh_tls_handshake(tls);
    bare_pump(tls, server);
    assert_int_equal(bh_tls_state(tls), BH_TLS_UP);
    assert_null(bh_clearance_of_tls(tls));
    demand_now(&off);
    struct bh_clearance *forced = plain(&off, CONNECTION, GENERATION);
    d->tls = tls;
    nothing_passes(NULL);
    nothing_passes(forced);
    d->tls = NULL;
    bh_clearance_destroy(forced);
    SSL_free(server);
    bh_tls_destroy(tls);
}

/* Credentials: to a peer that has shown who it is; else only by an exception, while it lasts, and
 * in clear text only where TLS is not wanted at all. */
static void credentials_need_more(void **unused)
{
    (void)unused;
    const struct bh_slice secret = BH_LIT("AUTH PLAIN AGEAYg==\r\n");
    const int64_t ever = INT64_MAX;
    const struct bh_tls_demand *const modes[] = {&off, &opportunistic, &encrypt};
    for (size_t i = 0; i < BH_COUNT(modes); i++) {
        struct bh_clearance *c = NULL;
        struct bh_tls *tls = NULL;
        if (modes[i] == &encrypt) {
            tls = session(modes[i], CONNECTION, GENERATION, &c);
        } else {
            c = plain(modes[i], CONNECTION, GENERATION);
        }
        demand_now(modes[i]);
        d->params.targets[0].demand = modes[i];
        d->tls = tls;
        d->clearance = c;
        assert_false(bh_clearance_is_authenticated(c));
        const int64_t until[] = {0, 1, bh_delivery_now(d).unix_ms - 1};
        for (size_t t = 0; t < BH_COUNT(until); t++) {
            d->params.auth.unauthenticated_until_unix_ms = until[t];
            assert_false(bh_delivery_may_credential(d));
            assert_false(bh_delivery_wire(d, BH_OUTPUT_CREDENTIAL, secret));
            /* With mail in the same write they go no sooner. */
            assert_false(bh_delivery_wire(d, BH_OUTPUT_CREDENTIAL, mail));
            assert_int_equal(arrived(), 0);
        }
        d->params.auth.unauthenticated_until_unix_ms = ever;
        const bool excepted = modes[i] != &opportunistic;
        assert_int_equal(bh_delivery_wire(d, BH_OUTPUT_CREDENTIAL, secret), excepted);
        assert_int_equal(arrived() > 0, excepted);
        /* An exception stands for the proof, not for the clearance. */
        d->clearance = NULL;
        assert_false(bh_delivery_wire(d, BH_OUTPUT_CREDENTIAL, secret));
        assert_int_equal(arrived(), 0);
        d->params.auth.unauthenticated_until_unix_ms = 0;
        d->tls = NULL;
        bh_clearance_destroy(c);
        bh_tls_destroy(tls);
    }
}

/* What may pass without one. */
static void only_the_preamble_passes_by_itself(void **unused)
{
    (void)unused;
    demand_now(&encrypt);
    const struct bh_slice greeting = BH_LIT("EHLO us.example\r\n");
    assert_true(bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, greeting));
    assert_int_equal(arrived(), greeting.len);
    assert_false(bh_delivery_wire(d, BH_OUTPUT_PRIVILEGED, greeting));
    const struct bh_slice smuggled[] = {
        BH_LIT("EHLO us.example\r\nMAIL FROM:<a@b>\r\n"), BH_LIT("AUTH PLAIN AGEAYg==\r\n"),
        BH_LIT("STARTTLS\r\nRCPT TO:<a@b>\r\n"), BH_LIT("\r\n"), BH_LIT("NOOP a@b\r\n")};
    for (size_t i = 0; i < BH_COUNT(smuggled); i++) {
        assert_false(bh_delivery_wire(d, BH_OUTPUT_PREAMBLE, smuggled[i]));
    }
    assert_int_equal(arrived(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_zeroed_copied),
        cmocka_unit_test(altered),
        cmocka_unit_test(freed_and_used_again),
        cmocka_unit_test(stale),
        cmocka_unit_test(another_or_a_weaker_demand),
        cmocka_unit_test(cleared_for_tls_only_inside_it),
        cmocka_unit_test(unmet),
        cmocka_unit_test(credentials_need_more),
        cmocka_unit_test(only_the_preamble_passes_by_itself),
    };
    return cmocka_run_group_tests_name("clearance_attacks", tests, setup, teardown);
}
