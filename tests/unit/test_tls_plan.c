#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/tls_plan.h"

static const uint8_t key[32] = {1, 2, 3};
static const struct bh_tlsa ee = {3, 1, 1, {(const char *)key, sizeof(key)}};
static const struct bh_tlsa ta = {2, 0, 1, {(const char *)key, sizeof(key)}};
#define NAME(text)                \
    {                             \
        "" text, sizeof(text) - 1 \
    }

static const struct bh_slice mx_patterns[] = {NAME("mx.a.example"), NAME("*.b.example")};
static const struct bh_slice listed[] = {NAME("listed.example"), NAME(".suffix.example")};
static const uint8_t pins[1][BH_PIN_LEN] = {{9}};

enum names_wanted { NO_NAMES, LISTED, LISTED_DOMAIN_HOST, HOST, BASE_AND_DOMAIN };

/* What is demanded, what is published, and what must come of it. */
static const struct plan_case {
    enum bh_tls_mode mode, fallback;
    enum bh_dane_state dane;
    enum bh_sts_mode sts;
    const char *host;
    enum bh_plan_verdict verdict;
    enum bh_tls_mode effective;
    enum bh_tls_origin origin;
    enum names_wanted names;
} cases[] = {
    /* An explicit mode does what it says, whatever is published. */
    {BH_TLS_OFF, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_OPPORTUNISTIC, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_ENFORCE, "mx.a.example",
     BH_PLAN_USE, BH_TLS_OPPORTUNISTIC, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_ENCRYPT, BH_TLS_OFF, BH_DANE_FAILED, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_ENCRYPT, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_VERIFY, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_VERIFY, BH_TLS_BY_CONNECTOR, LISTED_DOMAIN_HOST},
    {BH_TLS_PIN, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_PIN, BH_TLS_BY_CONNECTOR, NO_NAMES},
    /* dane: records, else its next mode; a failed lookup is not an absence. */
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_USABLE, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_USE, BH_TLS_DANE, BH_TLS_BY_DANE, BASE_AND_DOMAIN},
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_UNUSABLE, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_USE, BH_TLS_ENCRYPT, BH_TLS_BY_DANE, NO_NAMES},
    {BH_TLS_DANE, BH_TLS_VERIFY, BH_DANE_UNUSABLE, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_VERIFY, BH_TLS_BY_FALLBACK, LISTED_DOMAIN_HOST},
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_NONE, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_OPPORTUNISTIC, BH_TLS_BY_FALLBACK, NO_NAMES},
    {BH_TLS_DANE, BH_TLS_ENCRYPT, BH_DANE_INSECURE, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_ENCRYPT, BH_TLS_BY_FALLBACK, NO_NAMES},
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_FAILED, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_LATER, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_NOT_ASKED, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_OURS, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE, BH_TLS_OPPORTUNISTIC, BH_DANE_UNTRUSTED, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_OURS, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_UNTRUSTED, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_OURS,
     BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    /* dane-only: nothing else will do. */
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_DANE, BH_TLS_BY_DANE, BASE_AND_DOMAIN},
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_UNUSABLE, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_UNMET, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_NONE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_UNMET,
     BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_INSECURE, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_UNMET, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_FAILED, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_LATER,
     BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_DANE_ONLY, BH_TLS_OFF, BH_DANE_NOT_ASKED, BH_STS_MODE_NONE, "mx.a.example",
     BH_PLAN_OURS, BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    /* auto: DANE, else an enforced policy, else where offered. */
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_USABLE, BH_STS_MODE_ENFORCE, "mx.z.example", BH_PLAN_USE,
     BH_TLS_DANE, BH_TLS_BY_DANE, BASE_AND_DOMAIN},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_FAILED, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_LATER,
     BH_TLS_OFF, BH_TLS_BY_CONNECTOR, NO_NAMES},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_NONE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_VERIFY, BH_TLS_BY_STS, HOST},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_UNUSABLE, BH_STS_MODE_ENFORCE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_VERIFY, BH_TLS_BY_STS, HOST},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_NONE, BH_STS_MODE_ENFORCE, "mx.z.example", BH_PLAN_UNMET,
     BH_TLS_OFF, BH_TLS_BY_STS, NO_NAMES},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_NONE, BH_STS_MODE_TESTING, "mx.z.example", BH_PLAN_USE,
     BH_TLS_OPPORTUNISTIC, BH_TLS_BY_DEFAULT, NO_NAMES},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_UNUSABLE, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_ENCRYPT, BH_TLS_BY_DANE, NO_NAMES},
    {BH_TLS_AUTO, BH_TLS_OFF, BH_DANE_NOT_ASKED, BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
     BH_TLS_OPPORTUNISTIC, BH_TLS_BY_DEFAULT, NO_NAMES},
};

static struct bh_sts_fact sts_fact;

static struct bh_tls_plan_input input_of(const struct plan_case *c, struct bh_tls_demand *demand,
                                         const struct bh_tlsa *record)
{
    sts_fact = (struct bh_sts_fact){.origin = BH_STS_FROM_CACHE,
                                    .policy = {.mode = c->sts, .mx = mx_patterns, .mx_count = 2},
                                    .id = BH_LIT("1")};
    *demand = (struct bh_tls_demand){.mode = c->mode,
                                     .fallback = c->fallback,
                                     .min_version = BH_TLS_VERSION_1_2,
                                     .match_domain = true,
                                     .match_host = true,
                                     .names = {listed, 2},
                                     .ca_file = BH_LIT("/ca.pem"),
                                     .pins = {pins, 1}};
    return (struct bh_tls_plan_input){.configured = demand,
                                      .domain = BH_LIT("d.example"),
                                      .host = {.name = bh_slice_str(c->host),
                                               .canonical = BH_LIT("base.example"),
                                               .mx_secure = true,
                                               .address_secure = true},
                                      .dane = {.state = c->dane,
                                               .happened = BH_HAPPENED_DNS_BOGUS,
                                               .base = BH_LIT("base.example"),
                                               .tlsa = {record, 1}},
                                      .sts = &sts_fact};
}

static bool has(const struct bh_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (bh_slice_eq(names->at[i], bh_slice_str(name))) {
            return true;
        }
    }
    return false;
}

static void check_names(const struct plan_case *c, const struct bh_names *names)
{
    switch (c->names) {
    case NO_NAMES:
        assert_int_equal(names->count, 0);
        break;
    case LISTED:
        assert_int_equal(names->count, 2);
        break;
    case LISTED_DOMAIN_HOST:
        assert_int_equal(names->count, 4);
        assert_true(has(names, "listed.example") && has(names, "d.example") && has(names, c->host));
        break;
    case HOST:
        assert_int_equal(names->count, 1);
        assert_true(has(names, c->host));
        break;
    case BASE_AND_DOMAIN:
        assert_int_equal(names->count, 2);
        assert_true(has(names, "base.example") && has(names, "d.example"));
        break;
    }
}

static void table(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct plan_case *c = &cases[i];
        struct bh_arena arena;
        struct bh_tls_demand demand;
        struct bh_tls_plan plan;
        const struct bh_tls_plan_input input = input_of(c, &demand, &ta);
        bh_arena_init(&arena, 65536);
        print_message("case %zu\n", i);
        assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
        assert_int_equal(plan.verdict, c->verdict);
        assert_int_equal(plan.origin, c->origin);
        if (plan.verdict == BH_PLAN_USE) {
            assert_int_equal(plan.demand.mode, c->effective);
            assert_true(bh_tls_demand_is_effective(&plan.demand));
            assert_int_equal(plan.demand.tlsa.count, c->effective == BH_TLS_DANE ? 1 : 0);
            check_names(c, &plan.demand.names);
        } else {
            assert_true(plan.reason[0] != '\0');
            assert_int_not_equal(plan.happened, BH_HAPPENED_REPLY);
        }
        bh_arena_fini(&arena);
    }
}

/* Usage 3 compares no names; the SNI is the base domain for both. */
static void dane_names(void **unused)
{
    (void)unused;
    const struct plan_case c = {BH_TLS_AUTO,      BH_TLS_OFF,     BH_DANE_USABLE,
                                BH_STS_MODE_NONE, "mx.a.example", BH_PLAN_USE,
                                BH_TLS_DANE,      BH_TLS_BY_DANE, NO_NAMES};
    struct bh_arena arena;
    struct bh_tls_demand demand;
    struct bh_tls_plan plan;
    bh_arena_init(&arena, 65536);
    struct bh_tls_plan_input input = input_of(&c, &demand, &ee);
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_int_equal(plan.demand.names.count, 0);
    assert_true(bh_slice_eq(plan.demand.sni, BH_LIT("base.example")));
    /* A smarthost's next-hop domain is its own name, not the recipient's. */
    input = input_of(&c, &demand, &ta);
    input.host.smarthost = true;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(has(&plan.demand.names, "mx.a.example"));
    assert_false(has(&plan.demand.names, "d.example"));
    bh_arena_fini(&arena);
}

/* Two destinations with different domains, one host: different demands, as the octets show. */
static void domain_is_part_of_the_demand(void **unused)
{
    (void)unused;
    const struct plan_case c = {BH_TLS_VERIFY,    BH_TLS_OFF,          BH_DANE_NOT_ASKED,
                                BH_STS_MODE_NONE, "mx.a.example",      BH_PLAN_USE,
                                BH_TLS_VERIFY,    BH_TLS_BY_CONNECTOR, LISTED_DOMAIN_HOST};
    struct bh_arena arena;
    struct bh_tls_demand demand;
    struct bh_tls_plan one, two, three;
    bh_arena_init(&arena, 65536);
    struct bh_tls_plan_input input = input_of(&c, &demand, &ee);
    assert_int_equal(bh_tls_plan_make(&input, &arena, &one), BH_OK);
    input.domain = BH_LIT("other.example");
    assert_int_equal(bh_tls_plan_make(&input, &arena, &two), BH_OK);
    demand.match_domain = false;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &three), BH_OK);
    assert_false(bh_tls_demand_eq(&one.demand, &two.demand));
    assert_false(bh_tls_demand_eq(&two.demand, &three.demand));
    bh_arena_fini(&arena);
}

static void verify_for_nothing_is_ours(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = {.mode = BH_TLS_VERIFY};
    const struct bh_tls_plan_input input = {
        .configured = &demand, .domain = BH_LIT("d"), .host = {.name = BH_LIT("h")}};
    struct bh_arena arena;
    struct bh_tls_plan plan;
    bh_arena_init(&arena, 4096);
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_int_equal(plan.verdict, BH_PLAN_OURS);
    assert_int_equal(plan.happened, BH_HAPPENED_OUR_CONFIG);
    bh_arena_fini(&arena);
}

static void route_is_proven(void **unused)
{
    (void)unused;
    struct plan_case c = cases[0];
    struct bh_arena arena;
    struct bh_tls_demand demand;
    struct bh_tls_plan plan;
    bh_arena_init(&arena, 65536);
    c.mode = BH_TLS_AUTO;
    c.dane = BH_DANE_INSECURE;
    c.sts = BH_STS_MODE_NONE;
    struct bh_tls_plan_input input = input_of(&c, &demand, &ee);
    input.host.mx_secure = false;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_false(plan.route_proven);
    sts_fact.policy.mode = BH_STS_MODE_ENFORCE;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(plan.route_proven);
    sts_fact.policy.mode = BH_STS_MODE_TESTING;
    input.host.smarthost = true;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(plan.route_proven);
    bh_arena_fini(&arena);
}

/* What a resolver says that has not shown that it validates, proves nothing, and refutes nothing.
 */
static void route_is_unknown(void **unused)
{
    (void)unused;
    struct plan_case c = cases[0];
    struct bh_arena arena;
    struct bh_tls_demand demand;
    struct bh_tls_plan plan;
    bh_arena_init(&arena, 65536);
    c.mode = BH_TLS_VERIFY;
    c.sts = BH_STS_MODE_NONE;
    struct bh_tls_plan_input input = input_of(&c, &demand, &ee);
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(plan.route_proven && !plan.route_unknown);
    input.dnssec_unknown = true;
    for (unsigned i = 0; i < 2; i++) { /* whether or not it says that the MX is signed */
        input.host.mx_secure = i == 0;
        assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
        assert_true(!plan.route_proven && plan.route_unknown);
    }
    input.dnssec_unknown = false;
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(!plan.route_proven && !plan.route_unknown);
    input.dnssec_unknown = true;
    input.host.smarthost = true; /* named by the operator */
    assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
    assert_true(plan.route_proven && !plan.route_unknown);
    bh_arena_fini(&arena);
}

static void copies_stand_alone(void **unused)
{
    (void)unused;
    char name[] = "name.example";
    char data[] = "association";
    char sni[] = "sni.example";
    const struct bh_slice names[] = {bh_slice_str(name)};
    const struct bh_tlsa record = {2, 0, 0, bh_slice_str(data)};
    const struct bh_tls_demand demand = {
        .mode = BH_TLS_DANE, .names = {names, 1}, .tlsa = {&record, 1}, .sni = bh_slice_str(sni)};
    struct bh_arena arena;
    struct bh_tls_demand copy;
    bh_arena_init(&arena, 4096);
    assert_int_equal(bh_tls_demand_copy(&demand, &arena, &copy), BH_OK);
    assert_true(bh_tls_demand_eq(&demand, &copy));
    name[0] = data[0] = sni[0] = 'X';
    assert_false(bh_tls_demand_eq(&demand, &copy));
    assert_true(bh_slice_eq(copy.names.at[0], BH_LIT("name.example")));
    assert_true(bh_slice_eq(copy.tlsa.at[0].data, BH_LIT("association")));
    assert_true(bh_slice_eq(copy.sni, BH_LIT("sni.example")));
    bh_arena_fini(&arena);
    bh_arena_init(&arena, 16);
    assert_int_equal(bh_tls_demand_copy(&demand, &arena, &copy), BH_ENOMEM);
    bh_arena_fini(&arena);
}

/* TLS-Required: No lifts what is published, in mode auto alone, and nothing that is ours. */
static void a_sender_lifts_what_is_published(void **unused)
{
    static const struct bh_tlsa *const record = &ta;
    size_t lifted = 0;
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct plan_case *c = &cases[i];
        struct bh_arena arena;
        struct bh_tls_demand demand;
        struct bh_tls_plan before;
        struct bh_tls_plan plan;
        struct bh_tls_plan_input input = input_of(c, &demand, record);
        bh_arena_init(&arena, 1 << 16);
        demand.sni = BH_LIT("sni.example");
        assert_int_equal(bh_tls_plan_make(&input, &arena, &before), BH_OK);
        input.lifted = true;
        assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
        if (c->mode == BH_TLS_AUTO && before.verdict != BH_PLAN_OURS &&
            before.origin != BH_TLS_BY_DEFAULT) {
            assert_int_equal(plan.verdict, BH_PLAN_USE);
            assert_int_equal(plan.origin, BH_TLS_BY_SENDER);
            assert_int_equal(plan.demand.mode, BH_TLS_OPPORTUNISTIC);
            assert_int_equal(plan.demand.min_version, BH_TLS_VERSION_1_2);
            assert_int_equal(plan.demand.names.count + plan.demand.tlsa.count, 0);
            assert_true(bh_slice_eq(plan.demand.sni, BH_LIT("sni.example")));
            lifted++;
        } else {
            assert_int_equal(plan.verdict, before.verdict);
            assert_int_equal(plan.origin, before.origin);
            assert_int_equal(plan.demand.mode, before.demand.mode);
        }
        bh_arena_fini(&arena);
    }
    assert_true(lifted >= 6);
}

/* Under a fixed mode an enforced policy proves the route and changes nothing else; until it was
 * asked, nobody knows. */
static void a_policy_proves_the_route_of_fixed_modes(void **unused)
{
    static const struct {
        enum bh_tls_mode mode;
        enum bh_sts_mode sts;
        bool asked, listed, proven, unasked;
    } rows[] = {
        {BH_TLS_VERIFY, BH_STS_MODE_ENFORCE, true, true, true, false},
        {BH_TLS_PIN, BH_STS_MODE_ENFORCE, true, true, true, false},
        {BH_TLS_VERIFY, BH_STS_MODE_ENFORCE, true, false, false, false},
        {BH_TLS_VERIFY, BH_STS_MODE_TESTING, true, true, false, false},
        {BH_TLS_VERIFY, BH_STS_MODE_ENFORCE, false, true, false, true},
        {BH_TLS_ENCRYPT, BH_STS_MODE_ENFORCE, true, true, false, false},
        {BH_TLS_ENCRYPT, BH_STS_MODE_ENFORCE, false, true, false, false},
        {BH_TLS_AUTO, BH_STS_MODE_NONE, false, true, false, false},
    };
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(rows); i++) {
        const struct plan_case c = {.mode = rows[i].mode,
                                    .dane = BH_DANE_NOT_ASKED,
                                    .sts = rows[i].sts,
                                    .host = rows[i].listed ? "mx.a.example" : "mx.z.example"};
        struct bh_arena arena;
        struct bh_tls_demand demand;
        struct bh_tls_plan plan;
        struct bh_tls_plan_input input = input_of(&c, &demand, &ta);
        bh_arena_init(&arena, 1 << 16);
        input.host.mx_secure = false;
        input.sts = rows[i].asked ? input.sts : NULL;
        assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
        assert_int_equal(plan.verdict, BH_PLAN_USE);
        assert_int_equal(plan.route_proven, rows[i].proven);
        assert_int_equal(plan.route_unasked, rows[i].unasked);
        assert_false(plan.route_unknown);
        if (rows[i].asked && rows[i].mode == BH_TLS_VERIFY) {
            sts_fact.origin = BH_STS_UNKNOWN; /* our own store */
            sts_fact.policy.mode = BH_STS_MODE_NONE;
            assert_int_equal(bh_tls_plan_make(&input, &arena, &plan), BH_OK);
            assert_true(plan.route_unknown && !plan.route_proven);
        }
        bh_arena_fini(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sender_lifts_what_is_published),
        cmocka_unit_test(a_policy_proves_the_route_of_fixed_modes),
        cmocka_unit_test(table),
        cmocka_unit_test(dane_names),
        cmocka_unit_test(domain_is_part_of_the_demand),
        cmocka_unit_test(verify_for_nothing_is_ours),
        cmocka_unit_test(route_is_proven),
        cmocka_unit_test(route_is_unknown),
        cmocka_unit_test(copies_stand_alone),
    };
    return cmocka_run_group_tests_name("tls_plan", tests, NULL, NULL);
}
