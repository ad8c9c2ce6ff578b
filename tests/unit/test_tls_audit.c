#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tls_audit.h"

#define NAME(text)                \
    {                             \
        "" text, sizeof(text) - 1 \
    }

static const struct bh_slice accepted[] = {NAME("mx.a.example"), NAME(".b.example")};
static const uint8_t pins[1][BH_PIN_LEN] = {{7}};
static const uint8_t other_key[BH_PIN_LEN] = {8};
static const struct bh_tls_demand met = {.mode = BH_TLS_OPPORTUNISTIC};

/* What the audit says of a session: "" for nothing. */
static void expect(const struct bh_tls_demand *demand, const struct bh_tls_facts *facts,
                   const char *wanted)
{
    char text[TLS_AUDIT_TEXT];
    tls_audit(demand, &met, facts, text);
    if (wanted[0] == '\0') {
        assert_string_equal(text, "");
    } else {
        assert_memory_equal(text, wanted, strlen(wanted));
    }
}

static struct bh_tls_facts facts_of(const char *names, bool verified)
{
    struct bh_tls_facts facts = {.version = "TLSv1.2", .verified = verified, .has_spki = true};
    strncpy(facts.names, names, sizeof(facts.names) - 1);
    strncpy(facts.verify_error, verified ? "" : "self-signed", sizeof(facts.verify_error) - 1);
    facts.spki[0] = 7;
    return facts;
}

static void encryption(void **unused)
{
    (void)unused;
    struct bh_tls_facts facts = facts_of("x.example", false);
    struct bh_tls_demand demand = {.mode = BH_TLS_ENCRYPT, .min_version = BH_TLS_VERSION_1_2};
    expect(&demand, NULL, "encrypt: it is in clear text");
    expect(&demand, &facts, "");
    demand.min_version = BH_TLS_VERSION_1_3;
    expect(&demand, &facts, "encrypt: TLSv1.2 is below TLSv1.3");
    facts.version = "TLSv1";
    demand.min_version = BH_TLS_VERSION_1_0;
    expect(&demand, &facts, "");
    demand.mode = BH_TLS_OPPORTUNISTIC;
    expect(&demand, NULL, "");
}

static void names(void **unused)
{
    (void)unused;
    static const struct {
        const char *names;
        const char *wanted;
    } cases[] = {
        {"mx.a.example", ""},
        {"x.example, MX.A.EXAMPLE", ""},
        {"*.a.example", ""},
        {"*.example", "verify: the certificate names"},
        {"deep.x.b.example", ""},
        {"b.example", "verify: the certificate names"},
        {"a.example", "verify: the certificate names"},
        {"", "verify: the certificate names"},
        {"*.b.example", ""},
        {"evilb.example", "verify: the certificate names"},
    };
    const struct bh_tls_demand demand = {.mode = BH_TLS_VERIFY, .names = {accepted, 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct bh_tls_facts facts = facts_of(cases[i].names, true);
        print_message("case %zu\n", i);
        expect(&demand, &facts, cases[i].wanted);
    }
    struct bh_tls_facts facts = facts_of("mx.a.example", false);
    expect(&demand, &facts, "verify: self-signed");
}

/* What the facts do not tell is not claimed, either way. */
static void other_authorities(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = {
        .mode = BH_TLS_VERIFY, .names = {accepted, 2}, .ca_file = BH_LIT("/ca.pem")};
    const struct bh_tls_facts facts = facts_of("mx.a.example", true);
    expect(&demand, &facts, "not known:");
}

static void keys(void **unused)
{
    (void)unused;
    struct bh_tls_facts facts = facts_of("x.example", false);
    const struct bh_tls_demand pinned = {.mode = BH_TLS_PIN, .pins = {pins, 1}};
    expect(&pinned, &facts, "");
    const struct bh_tlsa records[] = {{3, 1, 1, {(const char *)other_key, sizeof(other_key)}},
                                      {3, 1, 1, {(const char *)pins[0], BH_PIN_LEN}},
                                      {2, 0, 1, {(const char *)pins[0], BH_PIN_LEN}}};
    struct bh_tls_demand dane = {.mode = BH_TLS_DANE, .tlsa = {records, 3}};
    expect(&dane, &facts, "");
    facts.spki[0] = 9;
    expect(&pinned, &facts, "pin:");
    expect(&dane, &facts, "not known:");
    dane.tlsa.count = 2;
    expect(&dane, &facts, "dane: no TLSA record matches");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encryption),
        cmocka_unit_test(names),
        cmocka_unit_test(other_authorities),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests_name("tls_audit", tests, NULL, NULL);
}
