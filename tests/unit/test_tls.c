/* TLS over memory, both ends in one process, and what a clearance refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/x509v3.h>

#include "tls_fixture.h"

static struct tls_fixture fixture;
static struct bh_tls_server_ctx *server_ctx;
static struct bh_tls_worker *worker;

static struct bh_tls_demand demand_of(enum bh_tls_mode mode)
{
    return (struct bh_tls_demand){.mode = mode, .min_version = BH_TLS_VERSION_1_2};
}

/* Move what waits from one end to the other, `step` octets at a time. */
static bool pump(struct bh_tls *from, struct bh_tls *to, size_t step)
{
    bool moved = false;
    char storage[4096];
    for (;;) {
        struct bh_buf out = bh_buf(storage, step < sizeof(storage) ? step : sizeof(storage));
        if (bh_tls_take(from, &out) == 0) {
            return moved;
        }
        moved = true;
        assert_int_equal(bh_tls_feed(to, bh_buf_slice(&out)), BH_OK);
    }
}

static void shake(struct bh_tls *client, struct bh_tls *server, size_t step)
{
    bh_tls_handshake(client);
    while (pump(client, server, step) || pump(server, client, step)) {
    }
}

static struct bh_tls *client_of(const struct bh_tls_demand *demand, const char *host, bool small)
{
    const struct bh_tls_client_params params = {.demand = demand,
                                                .host = bh_slice_str(host),
                                                .port = 25,
                                                .connection = 7,
                                                .generation = 3,
                                                .small_hello = small};
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_tls *tls = NULL;
    const enum bh_status status = bh_tls_client_create(worker, &params, &tls, &error);
    assert_int_equal(status == BH_OK, tls != NULL);
    assert_int_equal(status == BH_OK, error.len == 0);
    return tls;
}

/* Send a text and get it at the other end. */
static void say(struct bh_tls *from, struct bh_tls *to, const char *text)
{
    char storage[64];
    struct bh_buf plain = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_tls_write(from, bh_slice_str(text)), BH_OK);
    pump(from, to, 4096);
    while (bh_tls_read(to, &plain) == BH_OK) {
    }
    assert_true(bh_slice_eq(bh_buf_slice(&plain), bh_slice_str(text)));
}

static void a_session_carries_text(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = demand_of(BH_TLS_ENCRYPT);
    for (size_t step = 1; step <= 4096; step = step * 7 + 1) {
        struct bh_tls *client = client_of(&demand, "mx.example", step % 2 == 0);
        struct bh_tls *server = bh_tls_server_create(server_ctx);
        assert_null(bh_clearance_of_tls(client)); /* not before the handshake */
        assert_int_equal(bh_tls_write(client, BH_LIT("x")), BH_MORE);
        shake(client, server, step);
        assert_int_equal(bh_tls_state(client), BH_TLS_UP);
        assert_int_equal(bh_tls_state(server), BH_TLS_UP);
        say(client, server, "EHLO me\r\n");
        say(server, client, "250 hi\r\n");
        const struct bh_tls_facts *facts = bh_tls_facts(client);
        assert_string_equal(facts->version, step % 2 == 0 ? "TLSv1.2" : "TLSv1.3");
        assert_false(facts->verified);
        assert_true(facts->verify_error[0] != '\0');
        assert_true(facts->name_matched);
        assert_true(facts->has_spki);
        bh_tls_shutdown(server);
        pump(server, client, 4096);
        char storage[8];
        struct bh_buf plain = bh_buf(storage, sizeof(storage));
        assert_int_equal(bh_tls_read(client, &plain), BH_EPROTO);
        assert_int_equal(bh_tls_state(client), BH_TLS_CLOSED);
        bh_tls_destroy(client);
        bh_tls_destroy(server);
    }
}

static bool resumes(const struct bh_tls_demand *demand, const char *host)
{
    struct bh_tls *client = client_of(demand, host, false);
    struct bh_tls *server = bh_tls_server_create(server_ctx);
    shake(client, server, 4096);
    assert_int_equal(bh_tls_state(client), BH_TLS_UP);
    say(server, client, "hi"); /* the tickets come with it */
    const bool resumed = bh_tls_facts(client)->resumed;
    bh_tls_destroy(client);
    bh_tls_destroy(server);
    return resumed;
}

static void resumption_is_keyed_by_demand_and_host(void **unused)
{
    (void)unused;
    struct bh_tls_demand encrypt = demand_of(BH_TLS_ENCRYPT);
    const struct bh_tls_demand opportunistic = demand_of(BH_TLS_OPPORTUNISTIC);
    assert_false(resumes(&encrypt, "r.example"));
    assert_true(resumes(&encrypt, "r.example"));
    assert_false(resumes(&encrypt, "other.example"));
    assert_false(resumes(&opportunistic, "r.example"));
    encrypt.min_version = BH_TLS_VERSION_1_3;
    assert_false(resumes(&encrypt, "r.example"));
    /* The cache is bounded by 3: what was used longest ago has made room. */
    encrypt.min_version = BH_TLS_VERSION_1_2;
    assert_false(resumes(&encrypt, "r.example"));
}

static void only_effective_demands_are_enforced(void **unused)
{
    (void)unused;
    const enum bh_tls_mode modes[] = {BH_TLS_VERIFY, BH_TLS_PIN, BH_TLS_DANE, BH_TLS_DANE_ONLY,
                                      BH_TLS_AUTO};
    for (size_t i = 0; i < BH_COUNT(modes); i++) {
        const struct bh_tls_demand demand = demand_of(modes[i]); /* with nothing to prove it by */
        assert_null(client_of(&demand, "mx.example", false));
        assert_null(bh_clearance_plain(&demand, 7, 3));
    }
    const struct bh_slice name = BH_LIT("mx.example");
    struct bh_tls_demand demand = demand_of(BH_TLS_VERIFY);
    demand.names = (struct bh_names){&name, 1};
    demand.match_host = true;
    assert_null(client_of(&demand, "mx.example", false));
}

static void clear_text_needs_a_grant(void **unused)
{
    (void)unused;
    struct bh_tls_demand demand = demand_of(BH_TLS_ENCRYPT);
    assert_null(bh_clearance_plain(&demand, 7, 3));
    demand = demand_of(BH_TLS_OPPORTUNISTIC);
    demand.implicit = true;
    assert_null(bh_clearance_plain(&demand, 7, 3));
    const enum bh_tls_mode modes[] = {BH_TLS_OFF, BH_TLS_OPPORTUNISTIC};
    for (size_t i = 0; i < BH_COUNT(modes); i++) {
        demand = demand_of(modes[i]);
        struct bh_clearance *grant = bh_clearance_plain(&demand, 7, 3);
        assert_non_null(grant);
        assert_false(bh_clearance_is_tls(grant));
        bh_clearance_destroy(grant);
    }
    assert_null(bh_clearance_plain(&demand, 0, 3)); /* no such connection */
}

static void a_clearance_is_valid_for_itself_alone(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = demand_of(BH_TLS_ENCRYPT);
    const struct bh_tls_demand other = demand_of(BH_TLS_OPPORTUNISTIC);
    uint8_t digest[BH_TLS_DIGEST_LEN];
    uint8_t wrong[BH_TLS_DIGEST_LEN];
    assert_int_equal(bh_tls_demand_digest(&demand, digest), BH_OK);
    assert_int_equal(bh_tls_demand_digest(&other, wrong), BH_OK);
    struct bh_tls *client = client_of(&demand, "mx.example", false);
    struct bh_tls *server = bh_tls_server_create(server_ctx);
    shake(client, server, 4096);
    struct bh_clearance *c = bh_clearance_of_tls(client);
    assert_non_null(c);
    assert_true(bh_clearance_is_tls(c));
    assert_true(bh_clearance_valid(c, 7, 3, digest));
    assert_false(bh_clearance_valid(c, 8, 3, digest));
    assert_false(bh_clearance_valid(c, 7, 4, digest));
    assert_false(bh_clearance_valid(c, 7, 3, wrong));
    assert_false(bh_clearance_valid(NULL, 7, 3, digest));
    assert_null(bh_clearance_of_tls(server));

    /* Its size is its own affair; 256 octets cover it and are aligned as it is. */
    static uint64_t place[32];
    assert_false(
        bh_clearance_valid((const struct bh_clearance *)(const void *)place, 7, 3, digest));
    memcpy(place, c, 72);
    assert_false(
        bh_clearance_valid((const struct bh_clearance *)(const void *)place, 7, 3, digest));
    /* Any octet changed in place breaks the seal or what it is compared with. */
    unsigned char *octets = (unsigned char *)c;
    for (size_t i = 0; i < 72; i++) {
        const bool padding = i > 56 && i < 64; /* behind a bool */
        octets[i] ^= 1;
        assert_true(padding || !bh_clearance_valid(c, 7, 3, digest));
        octets[i] ^= 1;
    }
    assert_true(bh_clearance_valid(c, 7, 3, digest));
    bh_clearance_destroy(c);
    bh_tls_destroy(client);
    bh_tls_destroy(server);
}

static void garbage_fails_the_session(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = demand_of(BH_TLS_ENCRYPT);
    struct bh_tls *client = client_of(&demand, "mx.example", false);
    bh_tls_handshake(client);
    assert_true(bh_tls_pending(client) > 0);
    assert_int_equal(bh_tls_feed(client, BH_LIT("220 this is no TLS record\r\n")), BH_OK);
    assert_int_equal(bh_tls_state(client), BH_TLS_FAILED);
    assert_true(bh_tls_error(client).len > 0);
    assert_null(bh_clearance_of_tls(client));
    assert_int_equal(bh_tls_write(client, BH_LIT("x")), BH_EPROTO);
    bh_tls_destroy(client);
}

static void a_floor_above_the_peer_fails(void **unused)
{
    (void)unused;
    struct bh_tls_demand demand = demand_of(BH_TLS_ENCRYPT);
    demand.max_version = BH_TLS_VERSION_1_1;
    demand.min_version = BH_TLS_VERSION_1_0;
    struct bh_tls *client = client_of(&demand, "mx.example", false);
    struct bh_tls *server = bh_tls_server_create(server_ctx);
    shake(client, server, 4096);
    assert_int_equal(bh_tls_state(client), BH_TLS_FAILED);
    assert_null(bh_clearance_of_tls(client));
    bh_tls_destroy(client);
    bh_tls_destroy(server);
}

static void a_small_hello_is_small(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = demand_of(BH_TLS_OPPORTUNISTIC);
    struct bh_tls *large = client_of(&demand, "mx.example", false);
    struct bh_tls *small = client_of(&demand, "mx.example", true);
    bh_tls_handshake(large);
    bh_tls_handshake(small);
    assert_true(bh_tls_pending(small) + 40 < bh_tls_pending(large));
    bh_tls_destroy(large);
    bh_tls_destroy(small);
}

static void a_bad_certificate_file_is_named(void **unused)
{
    (void)unused;
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_tls_server_ctx *ctx = NULL;
    const struct bh_tls_server_params params = {.certificate = BH_LIT("/nonexistent/cert.pem"),
                                                .key = BH_LIT("/nonexistent/key.pem")};
    assert_int_equal(bh_tls_server_ctx_create(&params, &ctx, &error), BH_EINVAL);
    assert_null(ctx);
    assert_true(bh_slice_find_slice(bh_buf_slice(&error), params.certificate) < error.len);
}

static int setup(void **unused)
{
    (void)unused;
    tls_fixture_make(&fixture, "mx.example");
    server_ctx = tls_fixture_server(&fixture);
    worker = bh_tls_worker_create(3);
    return worker != NULL ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    bh_tls_worker_destroy(worker);
    bh_tls_server_ctx_destroy(server_ctx);
    tls_fixture_remove(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_carries_text),
        cmocka_unit_test(resumption_is_keyed_by_demand_and_host),
        cmocka_unit_test(only_effective_demands_are_enforced),
        cmocka_unit_test(clear_text_needs_a_grant),
        cmocka_unit_test(a_clearance_is_valid_for_itself_alone),
        cmocka_unit_test(garbage_fails_the_session),
        cmocka_unit_test(a_floor_above_the_peer_fails),
        cmocka_unit_test(a_small_hello_is_small),
        cmocka_unit_test(a_bad_certificate_file_is_named),
    };
    return cmocka_run_group_tests_name("tls", tests, setup, teardown);
}
