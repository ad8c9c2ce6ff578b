/* Each row of the outcome policy, and what must hold for all outcomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/outcome_policy.h"

#define S(stage) BH_STAGE_##stage
#define H(happened) BH_HAPPENED_##happened

static const struct {
    enum bh_happened happened;
    enum bh_stage stage;
    uint16_t code;
    const char *enhanced; /* of the remote; "" for none */
    const char *want;     /* meaning scope fault next-host status */
} cases[] = {
    {H(REPLY), S(MAIL), 421, "", "temporary host theirs next 4.3.2"},
    {H(REPLY), S(DOT), 421, "", "temporary host theirs next 4.3.2"},
    {H(REPLY), S(IDLE), 421, "4.4.2", "temporary host theirs next 4.4.2"},
    {H(REPLY), S(DOT), 250, "", "delivered recipient theirs stay 2.0.0"},
    {H(REPLY), S(DOT), 250, "2.6.0", "delivered recipient theirs stay 2.6.0"},
    {H(REPLY), S(RCPT), 250, "", "temporary host unknown next 4.5.0"},
    {H(REPLY), S(NONE), 0, "", "temporary host unknown next 4.5.0"},
    {H(REPLY), S(DOT), 354, "", "temporary host unknown next 4.5.0"},
    {H(REPLY), S(GREETING), 554, "5.7.1", "temporary host theirs next 4.7.1"},
    {H(REPLY), S(GREETING), 521, "", "temporary host theirs next 4.3.2"},
    {H(REPLY), S(GREETING), 450, "", "temporary host theirs next 4.3.2"},
    {H(REPLY), S(EHLO), 550, "", "temporary host theirs next 4.3.2"},
    {H(REPLY), S(STARTTLS), 454, "", "temporary destination theirs next 4.7.5"},
    {H(REPLY), S(STARTTLS), 502, "", "temporary destination theirs next 4.7.5"},
    {H(REPLY), S(AUTH), 454, "4.7.0", "temporary host theirs next 4.7.0"},
    {H(REPLY), S(AUTH), 535, "", "temporary connector ours stay 4.7.8"},
    {H(REPLY), S(AUTH), 535, "5.7.9", "temporary connector ours stay 4.7.9"},
    {H(REPLY), S(MAIL), 530, "5.7.0", "temporary destination theirs next 4.7.0"},
    {H(REPLY), S(RCPT), 535, "", "temporary destination theirs next 4.7.0"},
    {H(REPLY), S(MAIL), 538, "", "temporary destination theirs next 4.7.0"},
    {H(REPLY), S(MAIL), 503, "", "temporary host theirs next 4.5.1"},
    {H(REPLY), S(MAIL), 451, "", "temporary message theirs stay 4.0.0"},
    {H(REPLY), S(MAIL), 552, "", "permanent message theirs stay 5.3.4"},
    {H(REPLY), S(MAIL), 554, "5.7.1", "permanent message theirs stay 5.7.1"},
    {H(REPLY), S(MAIL), 550, "", "permanent message theirs stay 5.0.0"},
    {H(REPLY), S(RCPT), 452, "", "temporary recipient theirs stay 4.5.3"},
    {H(REPLY), S(RCPT), 450, "4.2.1", "temporary recipient theirs stay 4.2.1"},
    {H(REPLY), S(RCPT), 450, "", "temporary recipient theirs stay 4.0.0"},
    {H(REPLY), S(RCPT), 552, "", "temporary recipient theirs stay 4.5.3"},
    {H(REPLY), S(RCPT), 552, "5.2.2", "temporary recipient theirs stay 4.2.2"},
    {H(REPLY), S(RCPT), 556, "", "permanent recipient theirs stay 5.1.10"},
    {H(REPLY), S(RCPT), 550, "5.1.1", "permanent recipient theirs stay 5.1.1"},
    {H(REPLY), S(RCPT), 554, "", "permanent recipient theirs stay 5.0.0"},
    {H(REPLY), S(DATA), 451, "", "temporary message theirs stay 4.0.0"},
    {H(REPLY), S(DATA), 554, "", "permanent message theirs stay 5.0.0"},
    {H(REPLY), S(BODY), 552, "", "permanent message theirs stay 5.3.4"},
    {H(REPLY), S(DOT), 451, "4.7.1", "temporary message theirs stay 4.7.1"},
    {H(REPLY), S(DOT), 554, "", "permanent message theirs stay 5.0.0"},
    {H(REPLY), S(IDLE), 500, "", "temporary host theirs next 4.5.0"},
    {H(TIMEOUT), S(CONNECT), 0, "", "temporary host theirs next 4.4.1"},
    {H(TIMEOUT), S(GREETING), 0, "", "temporary host theirs next 4.4.2"},
    {H(TIMEOUT), S(DOT), 0, "", "uncertain host theirs stay 4.4.2"},
    {H(LOST), S(CONNECT), 0, "", "temporary host theirs next 4.4.1"},
    {H(LOST), S(DATA), 0, "", "temporary host theirs next 4.4.2"},
    {H(LOST), S(DOT), 0, "", "uncertain host theirs stay 4.4.2"},
    {H(REFUSED), S(CONNECT), 0, "", "temporary host theirs next 4.4.1"},
    {H(UNREACHABLE), S(CONNECT), 0, "", "temporary host theirs next 4.4.1"},
    {H(TOO_SLOW), S(BODY), 0, "", "temporary host theirs next 4.4.2"},
    {H(TOO_SLOW), S(DOT), 0, "", "uncertain host theirs stay 4.4.2"},
    {H(GARBLED), S(GREETING), 0, "", "temporary host theirs next 4.5.0"},
    {H(GARBLED), S(DOT), 0, "", "uncertain host theirs stay 4.5.0"},
    {H(INJECTED), S(STARTTLS), 0, "", "temporary host theirs next 4.7.0"},
    {H(NXDOMAIN), S(ROUTE), 0, "", "permanent destination theirs stay 5.1.2"},
    {H(NULL_MX), S(ROUTE), 0, "", "permanent destination theirs stay 5.1.10"},
    {H(NO_ADDRESS), S(ROUTE), 0, "", "temporary destination theirs stay 4.4.4"},
    {H(DNS_FAILED), S(ROUTE), 0, "", "temporary destination theirs stay 4.4.3"},
    {H(DNS_BOGUS), S(ROUTE), 0, "", "temporary destination theirs stay 4.7.5"},
    {H(DNS_TIMEOUT), S(ROUTE), 0, "", "temporary destination ours stay 4.4.3"},
    {H(ALL_FILTERED), S(ROUTE), 0, "", "temporary destination ours stay 4.4.4"},
    {H(LOOP), S(ROUTE), 0, "", "temporary destination ours stay 4.4.6"},
    {H(TLS_NOT_OFFERED), S(STARTTLS), 0, "", "temporary host theirs next 4.7.4"},
    {H(TLS_FAILED), S(TLS), 0, "", "temporary host theirs next 4.7.5"},
    {H(TLS_UNVERIFIED), S(TLS), 0, "", "temporary host theirs next 4.7.5"},
    {H(TLS_UNVERIFIED), S(AUTH), 0, "", "temporary connector ours next 4.7.5"},
    {H(AUTH_NOT_OFFERED), S(AUTH), 0, "", "temporary connector ours next 4.7.4"},
    {H(TOO_BIG), S(MAIL), 0, "", "permanent message theirs next 5.3.4"},
    {H(NEEDS_8BITMIME), S(MAIL), 0, "", "permanent message theirs next 5.6.3"},
    {H(NEEDS_SMTPUTF8), S(MAIL), 0, "", "permanent message theirs next 5.6.7"},
    {H(NEEDS_REQUIRETLS), S(MAIL), 0, "", "permanent message theirs next 5.7.30"},
    {H(BAD_CONTENT), S(BODY), 0, "", "temporary message ours stay 4.6.0"},
    {H(OUR_CONFIG), S(ROUTE), 0, "", "temporary connector ours stay 4.3.5"},
    {H(OUR_SECRET), S(AUTH), 0, "", "temporary connector ours stay 4.3.5"},
    {H(OUR_SOURCE), S(CONNECT), 0, "", "temporary connector ours stay 4.3.5"},
    {H(OUR_NETWORK), S(CONNECT), 0, "", "temporary connector ours stay 4.4.0"},
    {H(OUR_RESOURCE), S(CONNECT), 0, "", "temporary connector ours stay 4.3.0"},
    {H(UNCERTAIN_CRASH), S(DOT), 0, "", "uncertain recipient ours stay 4.3.0"},
    {H(OPERATOR), S(NONE), 0, "", "permanent recipient unknown stay 5.0.0"},
    {H(EXPIRED), S(NONE), 0, "", "permanent recipient theirs stay 4.4.7"},
};

static void each_row(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_outcome o = {
            .happened = cases[i].happened, .stage = cases[i].stage, .code = cases[i].code};
        unsigned c = 0;
        unsigned s = 0;
        unsigned d = 0;
        if (sscanf(cases[i].enhanced, "%u.%u.%u", &c, &s, &d) == 3) {
            o.enhanced_class = (uint8_t)c;
            o.enhanced_subject = (uint16_t)s;
            o.enhanced_detail = (uint16_t)d;
        }
        const struct bh_policy p = bh_outcome_policy(&o);
        char got[128];
        snprintf(got, sizeof(got), "%s %s %s %s %u.%u.%u", bh_meaning_name(p.meaning),
                 bh_scope_name(p.scope), bh_fault_name(p.fault), p.next_host ? "next" : "stay",
                 p.status_class, p.status_subject, p.status_detail);
        assert_string_equal(got, cases[i].want);
    }
}

/* Every outcome there can be has an answer, and none breaks a promise. */
static void all_outcomes(void **unused)
{
    (void)unused;
    for (int h = BH_HAPPENED_REPLY; h <= BH_HAPPENED_EXPIRED; h++) {
        for (int s = BH_STAGE_NONE; s <= BH_STAGE_IDLE; s++) {
            for (unsigned code = 0; code < 600; code++) {
                const struct bh_outcome o = {.happened = (enum bh_happened)h,
                                             .stage = (enum bh_stage)s,
                                             .code = (uint16_t)code};
                const struct bh_policy p = bh_outcome_policy(&o);
                /* A mistake of ours never bounces mail. */
                assert_false(p.fault == BH_FAULT_OURS && p.meaning == BH_MEANS_PERMANENT);
                /* Delivered is a 2xx to the dot, and nothing else. */
                const bool answered =
                    h == BH_HAPPENED_REPLY && s == BH_STAGE_DOT && code / 100 == 2;
                assert_int_equal(p.meaning == BH_MEANS_DELIVERED, answered);
                /* Where the end was sent and no reply came, it is uncertain. */
                if (s == BH_STAGE_DOT && (h == BH_HAPPENED_LOST || h == BH_HAPPENED_TIMEOUT)) {
                    assert_int_equal(p.meaning, BH_MEANS_UNCERTAIN);
                }
                /* Before MAIL no reply ends a message. */
                if (h == BH_HAPPENED_REPLY && s < BH_STAGE_MAIL) {
                    assert_int_not_equal(p.meaning, BH_MEANS_PERMANENT);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row),
        cmocka_unit_test(all_outcomes),
    };
    return cmocka_run_group_tests_name("outcome_policy", tests, NULL, NULL);
}
