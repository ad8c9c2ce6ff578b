#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config_fixture.h"

#define MEGA ((uint64_t)1 << 20)
#define ASSERT_SLICE(slice, text) assert_true(bh_slice_eq((slice), bh_slice_str(text)))

static const struct bh_config *must_parse(const char *text)
{
    const char *told = NULL;
    const struct bh_config *config = parse_text(text, &told);
    if (config == NULL) {
        print_error("%s", told);
    }
    assert_non_null(config);
    return config;
}

/* ---- matching ---- */

static const char spaces[] = "connector exact { domains mail.bank.example }\n"
                             "connector near { domains *.bank.example }\n"
                             "connector far { domains *.example }\n"
                             "connector bank { domains bank.example }\n"
                             "connector address { domains [192.0.2.1] [IPv6:2001:DB8::1] }\n"
                             "connector corp { senders @corp.example }\n"
                             "connector boss { senders Boss@corp.example }\n"
                             "connector below { senders @*.corp.example }\n"
                             "connector bounces { senders <> }\n"
                             "connector big { size-above 10M; smarthosts [ big.example ] }\n"
                             "connector bank-big { domains bank.example; size-above 5M }\n"
                             "connector bank-huge { domains bank.example; size-above 20M }\n"
                             "connector only { domains only.test; senders @a.test }\n"
                             "connector default { domains * }\n";

static const struct {
    const char *domain, *sender;
    uint64_t size;
    const char *name, *rule;
} matches[] = {
    {"mail.bank.example", "a@b.test", 0, "exact", "address space mail.bank.example (exact)"},
    {"x.bank.example", "a@b.test", 0, "near", "address space *.bank.example (suffix)"},
    {"x.mail.bank.example", "a@b.test", 0, "near", "address space *.bank.example (suffix)"},
    {"bank.example", "a@b.test", 0, "bank", "address space bank.example (exact)"},
    {"other.example", "a@b.test", 0, "far", "address space *.example (suffix)"},
    {"example", "a@b.test", 0, "default", "address space * (any)"},
    {"mybank.test", "a@b.test", 0, "default", "address space * (any)"},
    {"[192.0.2.1]", "a@b.test", 0, "address", "address space [192.0.2.1] (exact)"},
    {"[IPv6:2001:db8::1]", "", 0, "address", "address space [IPv6:2001:db8::1] (exact)"},
    {"[192.0.2.2]", "a@b.test", 0, NULL, NULL},
    {"", "a@b.test", 0, NULL, NULL},
    {"any.test", "x@CORP.example", 0, "corp", "address space * (any), sender @corp.example"},
    {"any.test", "Boss@corp.example", 0, "boss", "address space * (any), sender Boss@corp.example"},
    {"any.test", "boss@corp.example", 0, "corp", "address space * (any), sender @corp.example"},
    {"any.test", "x@a.b.corp.example", 0, "below", "address space * (any), sender @*.corp.example"},
    {"any.test", "", 0, "bounces", "address space * (any), sender <>"},
    {"any.test", "x@corp.example", 11 * MEGA, "corp",
     "address space * (any), sender @corp.example"},
    {"any.test", "x@b.test", 11 * MEGA, "big", "address space * (any), size above 10485760"},
    {"any.test", "x@b.test", 10 * MEGA, "default", "address space * (any)"},
    {"any.test", "no-at-sign", 0, "default", "address space * (any)"},
    {"bank.example", "x@corp.example", 0, "bank", "address space bank.example (exact)"},
    {"bank.example", "x@b.test", 6 * MEGA, "bank-big",
     "address space bank.example (exact), size above 5242880"},
    {"bank.example", "x@b.test", 21 * MEGA, "bank-huge",
     "address space bank.example (exact), size above 20971520"},
    {"only.test", "x@a.test", 0, "only", "address space only.test (exact), sender @a.test"},
    {"only.test", "x@b.test", 0, "default", "address space * (any)"},
};

static void the_most_specific_address_space_wins(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(spaces);
    for (size_t i = 0; i < BH_COUNT(matches); i++) {
        struct bh_match match;
        const enum bh_status status =
            bh_config_match(config, bh_slice_str(matches[i].domain),
                            bh_slice_str(matches[i].sender), matches[i].size, NULL, NULL, &match);
        assert_int_equal(status, matches[i].name != NULL ? BH_OK : BH_ENOTFOUND);
        if (status != BH_OK) {
            continue;
        }
        char text[256];
        struct bh_buf out = bh_buf(text, sizeof(text));
        bh_match_text(&match, &out);
        ASSERT_SLICE(match.connector->name, matches[i].name);
        ASSERT_SLICE(bh_buf_slice(&out), matches[i].rule);
    }
    bh_config_unref(config);
}

/* ctx: the names that are down, with blanks around each. */
static bool is_up(void *ctx, const struct bh_connector *connector)
{
    char word[80];
    snprintf(word, sizeof(word), " %.*s ", BH_FMT(connector->name));
    return strstr(ctx, word) == NULL;
}

static void a_costlier_connector_takes_over(void **unused)
{
    (void)unused;
    static const char text[] = "connector third { domains a.test; cost 30; failover yes }\n"
                               "connector first { domains a.test }\n"
                               "connector second { domains a.test; cost 10; failover yes }\n"
                               "connector idle { domains a.test; cost 20 }\n"
                               "connector sick { domains b.test; state held; reason \"moving\" }\n"
                               "connector nurse { domains b.test; cost 1; failover yes }\n"
                               "connector alone { domains c.test; state disabled }\n";
    static const struct {
        const char *domain, *down, *name, *instead_of;
    } cases[] = {
        {"a.test", "", "first", NULL},
        {"a.test", " first ", "second", "first"},
        {"a.test", " first  second ", "third", "first"},
        {"a.test", " first  second  third ", "first", NULL}, /* it waits where it belongs */
        {"b.test", "", "nurse", "sick"},
        {"c.test", "", "alone", NULL},
    };
    const struct bh_config *config = must_parse(text);
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_match match;
        char down[64];
        snprintf(down, sizeof(down), "%s", cases[i].down);
        assert_int_equal(bh_config_match(config, bh_slice_str(cases[i].domain), BH_EMPTY, 0, is_up,
                                         down, &match),
                         BH_OK);
        ASSERT_SLICE(match.connector->name, cases[i].name);
        assert_int_equal(match.instead_of != NULL, cases[i].instead_of != NULL);
        if (match.instead_of != NULL) {
            ASSERT_SLICE(match.instead_of->name, cases[i].instead_of);
        }
    }
    bh_config_unref(config);
}

static void who_may_take_over(void **unused)
{
    (void)unused;
    static const char text[] =
        "connector first { domains a.test *.b.test * }\n"
        "connector second { domains a.test; cost 10; failover yes }\n"
        "connector third { domains a.test *.b.test; cost 20; failover yes }\n"
        "connector idle { domains a.test; cost 5 }\n"
        "connector held { domains a.test; cost 7; failover yes; state held; reason \"moving\" }\n";
    static const struct {
        const char *domain;
        uint32_t above;
        const char *name;
    } cases[] = {
        {"a.test", 0, "second"},  {"a.test", 10, "third"}, {"a.test", 20, NULL},
        {"x.b.test", 0, "third"}, {"b.test", 0, NULL}, /* the suffix itself is of * */
        {"other.test", 0, NULL},
    };
    const struct bh_config *config = must_parse(text);
    const struct bh_connector *first = bh_config_connector(config, BH_LIT("first"));
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_connector *c =
            bh_config_alternate(config, first, bh_slice_str(cases[i].domain), cases[i].above);
        assert_int_equal(c != NULL, cases[i].name != NULL);
        if (c != NULL) {
            ASSERT_SLICE(c->name, cases[i].name);
        }
    }
    bh_config_unref(config);
}

/* Ten thousand connectors: built and asked without walking over them. */
static void many_connectors_match_alike(void **unused)
{
    (void)unused;
    enum { COUNT = 10000 };
    char *text = malloc((size_t)COUNT * 80);
    assert_non_null(text);
    size_t len = 0;
    for (int i = 0; i < COUNT; i++) {
        len += (size_t)snprintf(text + len, 80, "connector c%d { domains d%d.test *.d%d.test }\n",
                                i, i, i);
    }
    const struct bh_config *config = must_parse(text);
    for (int i = 0; i < COUNT; i++) {
        char domain[64];
        char name[32];
        struct bh_match match;
        snprintf(domain, sizeof(domain), i % 2 == 0 ? "d%d.test" : "x.y.d%d.test", i);
        snprintf(name, sizeof(name), "c%d", i);
        assert_int_equal(bh_config_match(config, bh_slice_str(domain), BH_LIT("a@b.test"), 0, NULL,
                                         NULL, &match),
                         BH_OK);
        ASSERT_SLICE(match.connector->name, name);
    }
    free(text);
    bh_config_unref(config);
}

/* ---- TLS demands ---- */

static const struct {
    const char *a, *b;
    bool a_weaker, b_weaker;
} demands[] = {
    {"off", "opportunistic", true, false},
    {"opportunistic", "auto", true, false},
    {"auto", "encrypt", true, true}, /* each lets through what the other refuses */
    {"auto", "verify", true, false},
    {"encrypt", "verify", true, false},
    {"verify", "pin { pins %1 }", true, false},
    {"verify", "dane-only", false, false},
    {"dane", "dane { fallback-mode encrypt }", true, false},
    {"dane { fallback-mode verify }", "verify", false, false},
    {"opportunistic", "opportunistic { implicit yes }", true, false},
    {"verify { min-version TLSv1.2 }", "verify { min-version TLSv1.3 }", true, false},
    {"verify", "verify { ca-file /ca }", true, false},
    {"verify { ca-file /ca }", "verify { ca-file /other }", false, false},
    {"verify { names a.test b.test }", "verify { names b.test }", true, false},
    {"verify { names .test }", "verify { names a.test }", true, false},
    {"verify { names a.test }", "verify { names b.test }", false, false},
    {"pin { pins %1 %2 }", "pin { pins %2 }", true, false},
    {"pin { pins %1 }", "pin { pins %2 }", false, false},
    {"verify { names a.test b.test }", "verify { names b.test a.test b.test }", false, false},
    {"off", "off { min-version TLSv1.3 }", false, false},
};

static const struct bh_config *with_tls(const char *mode)
{
    char text[1024];
    struct bh_buf out = bh_buf(text, sizeof(text) - 1);
    bh_buf_add_cut(&out, BH_LIT("connector a { domains a.test; tls "));
    for (const char *at = mode; *at != '\0'; at++) {
        if (*at == '%') {
            at++;
            for (int i = 0; i < 64; i++) {
                bh_buf_add_cut(&out, bh_slice(at, 1));
            }
        } else {
            bh_buf_add_cut(&out, bh_slice(at, 1));
        }
    }
    bh_buf_add_cut(&out, BH_LIT(" }\n"));
    text[out.len] = '\0';
    return must_parse(text);
}

static void demands_are_compared_and_written(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(demands); i++) {
        const struct bh_config *ca = with_tls(demands[i].a);
        const struct bh_config *cb = with_tls(demands[i].b);
        const struct bh_tls_demand *a = &bh_config_connector(ca, BH_LIT("a"))->tls.demand;
        const struct bh_tls_demand *b = &bh_config_connector(cb, BH_LIT("a"))->tls.demand;
        assert_int_equal(bh_tls_demand_is_weaker(a, b), demands[i].a_weaker);
        assert_int_equal(bh_tls_demand_is_weaker(b, a), demands[i].b_weaker);
        assert_false(bh_tls_demand_is_weaker(a, a));
        char octets[2][1024];
        struct bh_writer wa = {.buf = bh_buf(octets[0], sizeof(octets[0]))};
        struct bh_writer wb = {.buf = bh_buf(octets[1], sizeof(octets[1]))};
        bh_tls_demand_write(a, &wa);
        bh_tls_demand_write(b, &wb);
        assert_false(wa.overflow || wb.overflow);
        const bool same = bh_slice_eq(bh_buf_slice(&wa.buf), bh_buf_slice(&wb.buf));
        assert_int_equal(same, bh_tls_demand_eq(a, b));
        /* What is weaker in either direction can never have the same octets. */
        assert_false(same && (demands[i].a_weaker || demands[i].b_weaker));
        assert_int_equal(bh_tls_demand_trust_differs(a, b),
                         !same && !demands[i].a_weaker && !demands[i].b_weaker);
        bh_config_unref(ca);
        bh_config_unref(cb);
    }
}

static void an_exception_ends(void **unused)
{
    (void)unused;
    const struct bh_config *config = with_tls(
        "verify { exception { until 2026-11-23; reason r; mode encrypt } }; smarthosts [ h.test ]; "
        "auth plain { user u; password-file /p; allow-unauthenticated-peer { until 2026-11-23; "
        "reason r } }");
    const struct bh_connector *c = bh_config_connector(config, BH_LIT("a"));
    const int64_t end = INT64_C(1795478400000); /* 2026-11-24 00:00 UTC */
    bool lapsed = true;
    assert_int_equal(bh_connector_tls_demand(c, end - 1, &lapsed)->mode, BH_TLS_ENCRYPT);
    assert_false(lapsed);
    assert_true(bh_connector_allows_unauthenticated_auth(c, end - 1));
    assert_int_equal(bh_connector_tls_demand(c, end, &lapsed)->mode, BH_TLS_VERIFY);
    assert_true(lapsed);
    assert_false(bh_connector_allows_unauthenticated_auth(c, end));
    bh_config_unref(config);
    /* The floor alone: who it must be stays as it is. */
    config = with_tls("verify { exception { until 2026-11-23; reason r; min-version TLSv1.0 } }");
    c = bh_config_connector(config, BH_LIT("a"));
    const struct bh_tls_demand *demand = bh_connector_tls_demand(c, end - 1, &lapsed);
    assert_int_equal(demand->mode, BH_TLS_VERIFY);
    assert_int_equal(demand->min_version, BH_TLS_VERSION_1_0);
    assert_int_equal(bh_connector_tls_demand(c, end, &lapsed)->min_version, BH_TLS_VERSION_1_2);
    bh_config_unref(config);
}

/* ---- replies and times ---- */

static void replies_meet_their_rules(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(
        "connector a { domains a.test\n"
        "on reply 450 /try*later/ -> slow\n on reply 5.7.* -> hold\n"
        "on reply 45x -> bounce\n on reply 4xx 4.2.2 -> defer\n on reply /ab?d/ -> hold }");
    const struct bh_reply_rules *rules = &bh_config_connector(config, BH_LIT("a"))->replies;
    static const struct {
        uint16_t code;
        uint16_t enhanced[3];
        const char *text;
        int rule; /* -1: none */
    } cases[] = {
        {450, {0, 0, 0}, "please TRY again LATER ok", 0},
        {450, {0, 0, 0}, "later, try", 2},
        {550, {5, 7, 26}, "", 1},
        {550, {5, 1, 1}, "", -1},
        {459, {4, 7, 1}, "", 2},
        {421, {4, 2, 2}, "", 3},
        {421, {4, 2, 3}, "", -1},
        {421, {0, 0, 0}, "xaabcdx", 4},
        {421, {0, 0, 0}, "abd", -1},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_reply_rule *rule = bh_reply_rules_match(
            rules, cases[i].code, (uint8_t)cases[i].enhanced[0], cases[i].enhanced[1],
            cases[i].enhanced[2], bh_slice_str(cases[i].text));
        assert_int_equal(rule != NULL ? (int)(rule - rules->at) : -1, cases[i].rule);
    }
    bh_config_unref(config);
}

static void the_last_interval_repeats(void **unused)
{
    (void)unused;
    const uint64_t ms[] = {1, 2, 3};
    const struct bh_times times = {ms, 3};
    assert_int_equal(bh_times_nth_ms(&times, 0), 1);
    assert_int_equal(bh_times_nth_ms(&times, 2), 3);
    assert_int_equal(bh_times_nth_ms(&times, UINT64_MAX), 3);
}

/* ---- diff ---- */

static void tell_line(void *ctx, const struct bh_config_change *change)
{
    static const char *const kinds[] = {"added", "removed", "set", "moved"};
    static const char *const tls[] = {"", " stricter", " weaker", " trust"};
    struct bh_buf *out = ctx;
    assert_int_equal(bh_buf_printf(out, "%s %.*s|%.*s|%.*s|%.*s -> %.*s%s\n", kinds[change->kind],
                                   BH_FMT(change->connector), BH_FMT(change->setting),
                                   BH_FMT(change->sender), BH_FMT(change->before),
                                   BH_FMT(change->after), tls[change->tls]),
                     BH_OK);
}

static const struct {
    const char *before, *after;
    size_t weaker;
    const char *told;
} diffs[] = {
    {"connector a { domains a.test }", "# the same\nconnector a {\ndomains a.test\n}", 0, ""},
    {"", "connector bank { domains bank.test *.bank.test; tls verify }", 0,
     "added bank||| -> domains bank.test *.bank.test   tls verify\n"
     "moved |bank.test||default -> bank stricter\n"
     "moved |*.bank.test||default -> bank stricter\n"},
    {"connector a { domains a.test; tls verify }", "connector a { domains a.test; tls encrypt }", 1,
     "set a|tls mode||verify -> encrypt\n"
     "set a|tls||verify -> encrypt weaker\n"},
    {"connector a { domains a.test; limits { rate 5/s } }",
     "connector a { domains a.test; limits { rate 6/s }; retry { intervals 5m } }", 0,
     "set a|retry intervals||5m 15m 30m 1h 2h 4h -> 5m\n"
     "set a|retry destination-intervals||5m 15m 30m 1h 2h 4h -> 5m\n"
     "set a|retry||standard -> { intervals 5m; destination-intervals 5m; glitch 3x1m; jitter 10%; "
     "warn-after 4h; expire 5d; expire-bounces 1d; }\n"
     "set a|limits rate||5/s -> 6/s\n"},
    {"connector a { domains a.test; tls verify }\nconnector b { domains b.test }",
     "connector b { domains b.test a.test }\nengine { connections 9 }", 1,
     "set |engine connections||500 -> 9\n"
     "removed a||| -> \n"
     "set b|domains||b.test -> b.test a.test\n"
     "moved |a.test||a -> b weaker\n"},
    {"listen 127.0.0.1:25 { relay-from 10.0.0.0/8 }",
     "listen 127.0.0.1:25 { relay-from 10.1.0.0/16 }", 0,
     "set |listen 127.0.0.1:25 relay-from||10.0.0.0/8 -> 10.1.0.0/16\n"},
    {"connector a { domains a.test; tls verify }",
     "connector a { domains a.test; tls verify { exception { until 2030-01-01; reason r; mode "
     "encrypt } } }",
     1,
     "set a|tls exception until|| -> 2030-01-01\n"
     "set a|tls exception reason|| -> r\n"
     "set a|tls exception mode||verify -> encrypt\n"
     "set a|tls||verify -> verify weaker\n"},
    {"connector a { domains a.test; tls verify }",
     "connector a { domains a.test; tls verify { exception { until 2030-01-01; reason r; "
     "min-version TLSv1.0 } } }",
     1,
     "set a|tls exception until|| -> 2030-01-01\n"
     "set a|tls exception reason|| -> r\n"
     "set a|tls exception min-version||TLSv1.2 -> TLSv1.0\n"
     "set a|tls||verify -> verify weaker\n"},
    {"resolver { trusted yes }\nconnector a { domains a.test; tls verify }",
     "connector a { domains a.test; tls verify }", 1,
     "set |resolver trusted||yes -> no\n"
     "set default|tls||auto -> auto without DANE: no resolver is trusted weaker\n"},
    {"connector a { domains a.test }", "resolver { trusted yes }\nconnector a { domains a.test }",
     0, "set |resolver trusted||no -> yes\n"},
};

static void a_reload_tells_what_it_would_change(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(diffs); i++) {
        const struct bh_config *before = must_parse(diffs[i].before);
        const struct bh_config *after = must_parse(diffs[i].after);
        char text[4096];
        struct bh_buf out = bh_buf(text, sizeof(text) - 1);
        const size_t weaker = bh_config_diff(before, after, tell_line, &out);
        text[out.len] = '\0';
        assert_string_equal(text, diffs[i].told);
        assert_int_equal(weaker, diffs[i].weaker);
        bh_config_unref(before);
        bh_config_unref(after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_specific_address_space_wins),
        cmocka_unit_test(a_costlier_connector_takes_over),
        cmocka_unit_test(who_may_take_over),
        cmocka_unit_test(many_connectors_match_alike),
        cmocka_unit_test(demands_are_compared_and_written),
        cmocka_unit_test(an_exception_ends),
        cmocka_unit_test(replies_meet_their_rules),
        cmocka_unit_test(the_last_interval_repeats),
        cmocka_unit_test(a_reload_tells_what_it_would_change),
    };
    return cmocka_run_group_tests_name("config_match", tests, NULL, NULL);
}
