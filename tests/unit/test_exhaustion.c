/* Want of memory, systematically: a scenario runs again and again, and each time another of its
 * allocations fails, until it gets through. Each time it says that it failed, holds what its header
 * promises, leaks nothing (the address sanitizer looks) and works the next time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bh/assert.h"
#include "bh/dns_cache.h"
#include "bh/smtp_server.h"
#include "config_fixture.h"
#include "exhaust.h"

#define FAILURES_MAX 100000

/* ---- configuration ---- */

static const char before_text[] = "engine { hostname out1.us.example }\n"
                                  "queue { path /q }\n"
                                  "retry slow { intervals 1h 2h; expire 5d }\n"
                                  "listen 127.0.0.1:2525 { relay-from 10.0.0.0/8 192.0.2.0/24 }\n"
                                  "defaults { retry slow; limits { connections 20 } }\n"
                                  "connector default { domains * }\n"
                                  "connector bank { domains bank.example *.bank.example; tls "
                                  "verify { names mx.bank.example } }\n";
static const char after_text[] =
    "engine { hostname out2.us.example }\n"
    "queue { path /q }\n"
    "retry slow { intervals 1h 3h; expire 5d }\n"
    "listen 127.0.0.1:2525 { relay-from 10.0.0.0/8 }\n"
    "defaults { retry slow; limits { connections 21 } }\n"
    "connector default { domains * }\n"
    "connector bank { domains bank.example *.bank.example; tls opportunistic }\n"
    "connector new { domains new.example; retry slow }\n";

static void a_configuration_is_whole_or_none(void **unused)
{
    (void)unused;
    unsigned long n = 0;
    const struct bh_config *config = NULL;
    struct memory_file files[] = {{"t.conf", before_text}, {NULL, NULL}};
    const struct bh_config_reader reader = memory_reader(files);
    for (bool failed = true; failed; n++) {
        struct bh_config_errors errors;
        bh_config_errors_init(&errors);
        exhaust_at(n + 1);
        const enum bh_status status = bh_config_parse(&reader, "t.conf", 1, &config, &errors);
        failed = exhaust_end();
        assert_true(n < FAILURES_MAX);
        if (failed) {
            assert_int_not_equal(status, BH_OK);
        } else {
            assert_int_equal(status, BH_OK);
        }
        bh_config_errors_fini(&errors);
    }
    assert_true(n > 10);
    assert_non_null(bh_config_connector(config, BH_LIT("bank")));
    bh_config_unref(config);
}

static void count_change(void *ctx, const struct bh_config_change *change)
{
    (void)change;
    ++*(size_t *)ctx;
}

/* A reload that weakens must be told so, above all when not all of it can be. */
static void a_weakening_is_never_missed(void **unused)
{
    (void)unused;
    const char *told;
    const struct bh_config *before = parse_text(before_text, &told);
    const struct bh_config *after = parse_text(after_text, &told);
    assert_true(before != NULL && after != NULL);
    size_t changes = 0;
    assert_int_equal(bh_config_diff(before, after, count_change, &changes), 1);
    unsigned long n = 0;
    for (bool failed = true; failed; n++) {
        size_t some = 0;
        exhaust_at(n + 1);
        const size_t weaker = bh_config_diff(before, after, count_change, &some);
        failed = exhaust_end();
        assert_true(failed ? weaker == SIZE_MAX : weaker == 1 && some == changes);
    }
    assert_true(n > 3);
    bh_config_unref(before);
    bh_config_unref(after);
}

static void a_connector_is_described_or_not(void **unused)
{
    (void)unused;
    static char text[65536];
    const char *told;
    const struct bh_config *config = parse_text(before_text, &told);
    assert_non_null(config);
    unsigned long n = 0;
    for (bool failed = true; failed; n++) {
        struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
        exhaust_at(n + 1);
        bh_connector_describe(config, bh_config_connector(config, BH_LIT("bank")), &json);
        failed = exhaust_end();
        assert_int_equal(json.overflow, failed);
    }
    assert_true(n > 1);
    bh_config_unref(config);
}

/* ---- DNS ---- */

static struct bh_dns_answer negative(void)
{
    return (struct bh_dns_answer){
        .status = BH_DNS_NXDOMAIN, .type = 15, .has_soa = true, .ttl_s = 60, .name = BH_EMPTY};
}

/* A cache may forget, and nothing else. */
static void the_dns_cache_only_forgets(void **unused)
{
    (void)unused;
    const struct bh_dns_cache_config config = bh_dns_cache_defaults();
    struct bh_arena arena;
    bh_arena_init(&arena, 65536);
    unsigned long n = 0;
    for (bool failed = true; failed; n++) {
        exhaust_at(n + 1);
        struct bh_dns_cache *cache = bh_dns_cache_create(&config);
        for (unsigned i = 0; cache != NULL && i < 300; i++) {
            char name[32];
            snprintf(name, sizeof(name), "n%u.example", i);
            const struct bh_dns_answer answer = negative();
            assert_int_equal(bh_dns_cache_put(cache, 1, bh_slice_str(name), &answer, 1000), 60);
        }
        failed = exhaust_end();
        assert_true(cache != NULL || failed);
        unsigned found = 0;
        for (unsigned i = 0; cache != NULL && i < 300; i++) {
            char name[32];
            struct bh_dns_answer answer;
            snprintf(name, sizeof(name), "n%u.example", i);
            const enum bh_status status =
                bh_dns_cache_get(cache, 1, bh_slice_str(name), 15, 2000, &arena, &answer);
            assert_true(status == BH_OK || status == BH_ENOTFOUND);
            found += status == BH_OK ? 1 : 0;
            bh_arena_reset(&arena);
        }
        assert_true(cache == NULL || found == 300 || (failed && found >= 299));
        bh_dns_cache_destroy(cache);
    }
    assert_true(n > 300);
    bh_arena_fini(&arena);
}

/* ---- SMTP server ---- */

struct client {
    struct bh_server server;
    char said[8192]; /* all replies */
    size_t said_len;
    unsigned delivered;
};

/* Everything the core wants, with a store that takes every message. */
static void drain(struct client *c, struct bh_now now)
{
    struct bh_server_action action;
    while (bh_server_next(&c->server, &action)) {
        if (action.kind == BH_SERVER_WRITE) {
            assert_true(c->said_len + action.bytes.len < sizeof(c->said));
            memcpy(c->said + c->said_len, action.bytes.ptr, action.bytes.len);
            c->said_len += action.bytes.len;
        } else if (action.kind == BH_SERVER_DELIVER) {
            c->delivered++;
            bh_server_on_committed(&c->server, action.txn, BH_SERVER_COMMITTED, 7, now);
        }
    }
}

/* @return whether the reply begins with this digit */
static bool say(struct client *c, const char *text, char want, struct bh_now now)
{
    const size_t before = c->said_len;
    assert_true(bh_server_wants_input(&c->server));
    bh_server_on_bytes(&c->server, bh_slice_str(text), now);
    drain(c, now);
    return c->said_len > before && c->said[before] == want;
}

static void one_message(struct client *c, struct bh_now now)
{
    if (!say(c, "MAIL FROM:<a@us.example>\r\n", '2', now)) {
        return;
    }
    unsigned taken = 0;
    for (unsigned i = 0; i < 90; i++) {
        char line[64];
        snprintf(line, sizeof(line), "RCPT TO:<r%u@bank.example>\r\n", i);
        taken += say(c, line, '2', now) ? 1 : 0;
    }
    if (taken > 0 && say(c, "DATA\r\n", '3', now)) {
        say(c, "Subject: x\r\n\r\nhello\r\n.\r\n", '2', now);
    } else {
        say(c, "RSET\r\n", '2', now);
    }
}

/* What can't be remembered is refused for now, never for good, and the session goes on. */
static void the_server_refuses_for_now(void **unused)
{
    (void)unused;
    static struct client c;
    const struct bh_now now = {.mono_ms = 1000, .unix_ms = INT64_C(1800000000000)};
    const struct bh_server_options options = {.hostname = BH_LIT("us.example"),
                                              .postmaster = BH_EMPTY,
                                              .auth = BH_EMPTY,
                                              .limits = bh_server_default_limits()};
    unsigned long n = 0;
    unsigned refusals = 0;
    for (bool failed = true; failed; n++) {
        memset(&c, 0, sizeof(c));
        bh_server_init(&c.server, &options, true, false);
        bh_server_start(&c.server, BH_SERVER_GREET, now);
        drain(&c, now);
        assert_true(say(&c, "EHLO client.example\r\n", '2', now));
        exhaust_at(n + 1);
        one_message(&c, now);
        failed = exhaust_end();
        assert_null(strstr(c.said, "\r\n5"));
        refusals +=
            strstr(c.said, "\r\n4") != NULL ? 1 : 0; /* A map that can't grow still works. */
        assert_true(failed || strstr(c.said, "\r\n4") == NULL);
        c.said_len = 0;
        memset(c.said, 0, sizeof(c.said));
        const unsigned before = c.delivered;
        one_message(&c, now);
        assert_int_equal(c.delivered, before + 1);
        assert_null(strstr(c.said, "\r\n4"));
        bh_server_fini(&c.server);
    }
    assert_true(n > 3 && refusals > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_configuration_is_whole_or_none),
        cmocka_unit_test(a_weakening_is_never_missed),
        cmocka_unit_test(a_connector_is_described_or_not),
        cmocka_unit_test(the_dns_cache_only_forgets),
        cmocka_unit_test(the_server_refuses_for_now),
    };
    return cmocka_run_group_tests_name("exhaustion", tests, NULL, NULL);
}
