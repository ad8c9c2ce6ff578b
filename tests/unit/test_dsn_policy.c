#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/dsn.h"

static void wanted(void **unused)
{
    (void)unused;
    const uint8_t all = BH_NOTIFY_SUCCESS | BH_NOTIFY_FAILURE | BH_NOTIFY_DELAY;
    static const struct {
        uint8_t notify;
        bool failed, delayed, success;
    } cases[] = {
        {0, true, true, false},
        {BH_NOTIFY_NEVER, false, false, false},
        {BH_NOTIFY_FAILURE, true, false, false},
        {BH_NOTIFY_DELAY, false, true, false},
        {BH_NOTIFY_SUCCESS, false, false, true},
        {BH_NOTIFY_SUCCESS | BH_NOTIFY_FAILURE | BH_NOTIFY_DELAY, true, true, true},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        assert_int_equal(bh_dsn_wanted(cases[i].notify, BH_DSN_FAILED, false), cases[i].failed);
        assert_int_equal(bh_dsn_wanted(cases[i].notify, BH_DSN_DELAYED, false), cases[i].delayed);
        assert_int_equal(bh_dsn_wanted(cases[i].notify, BH_DSN_DELIVERED, false), cases[i].success);
        assert_int_equal(bh_dsn_wanted(cases[i].notify, BH_DSN_RELAYED, false), cases[i].success);
        assert_int_equal(bh_dsn_wanted(cases[i].notify, BH_DSN_EXPANDED, false), cases[i].success);
    }
    for (enum bh_dsn_action action = BH_DSN_FAILED; action <= BH_DSN_EXPANDED; action++) {
        assert_false(bh_dsn_wanted(all, action, true));
        assert_false(bh_dsn_wanted(all | BH_NOTIFY_NEVER, action, false));
    }
}

static void statuses(void **unused)
{
    (void)unused;
    static const struct {
        struct bh_outcome outcome;
        enum bh_dsn_action action;
        bool expired;
        struct bh_dsn_status want;
    } cases[] = {
        {{.stage = BH_STAGE_RCPT,
          .code = 550,
          .enhanced_class = 5,
          .enhanced_subject = 1,
          .enhanced_detail = 1},
         BH_DSN_FAILED,
         false,
         {5, 1, 1}},
        {{.stage = BH_STAGE_RCPT, .code = 550}, BH_DSN_FAILED, false, {5, 1, 0}},
        /* A class that does not fit what we report is not passed on. */
        {{.stage = BH_STAGE_DOT, .code = 550, .enhanced_class = 2},
         BH_DSN_FAILED,
         false,
         {5, 0, 0}},
        {{.stage = BH_STAGE_RCPT,
          .code = 452,
          .enhanced_class = 4,
          .enhanced_subject = 2,
          .enhanced_detail = 2},
         BH_DSN_FAILED,
         true,
         {4, 2, 2}},
        {{.stage = BH_STAGE_CONNECT, .happened = BH_HAPPENED_TIMEOUT},
         BH_DSN_FAILED,
         true,
         {4, 4, 7}},
        {{.stage = BH_STAGE_CONNECT, .happened = BH_HAPPENED_TIMEOUT},
         BH_DSN_DELAYED,
         false,
         {4, 4, 1}},
        {{.stage = BH_STAGE_ROUTE, .happened = BH_HAPPENED_NULL_MX},
         BH_DSN_FAILED,
         false,
         {5, 1, 10}},
        {{.stage = BH_STAGE_ROUTE, .happened = BH_HAPPENED_NXDOMAIN},
         BH_DSN_FAILED,
         false,
         {5, 1, 2}},
        {{.happened = BH_HAPPENED_NEEDS_SMTPUTF8}, BH_DSN_FAILED, false, {5, 6, 7}},
        {{.happened = BH_HAPPENED_NEEDS_REQUIRETLS}, BH_DSN_FAILED, false, {5, 7, 30}},
        {{.code = 250}, BH_DSN_RELAYED, false, {2, 1, 5}},
        {{.code = 250, .enhanced_class = 2, .enhanced_subject = 6},
         BH_DSN_DELIVERED,
         false,
         {2, 6, 0}},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_dsn_status got =
            bh_dsn_status_of(&cases[i].outcome, cases[i].action, cases[i].expired);
        assert_int_equal(got.class, cases[i].want.class);
        assert_int_equal(got.subject, cases[i].want.subject);
        assert_int_equal(got.detail, cases[i].want.detail);
    }
}

/* Whatever happened, the class says what became of the recipient. */
static void the_class_fits_the_action(void **unused)
{
    (void)unused;
    for (enum bh_happened h = BH_HAPPENED_REPLY; h <= BH_HAPPENED_EXPIRED; h++) {
        for (uint8_t given = 0; given <= 5; given++) {
            const struct bh_outcome o = {.happened = h, .enhanced_class = given};
            assert_int_equal(bh_dsn_status_of(&o, BH_DSN_FAILED, false).class, 5);
            assert_int_equal(bh_dsn_status_of(&o, BH_DSN_FAILED, true).class, 4);
            assert_int_equal(bh_dsn_status_of(&o, BH_DSN_DELAYED, false).class, 4);
            assert_int_equal(bh_dsn_status_of(&o, BH_DSN_RELAYED, false).class, 2);
        }
    }
}

static void xtext(void **unused)
{
    (void)unused;
    static const struct {
        const char *in;
        enum bh_status status;
        const char *out;
    } cases[] = {
        {"", BH_OK, ""},
        {"a@example.net", BH_OK, "a@example.net"},
        {"a+2Bb+3Dc@x.net", BH_OK, "a+b=c@x.net"},
        {"+0D+0A", BH_OK, "\r\n"},
        {"a+2", BH_EPROTO, NULL},
        {"a+2b", BH_EPROTO, NULL}, /* Lower-case digits are not xtext. */
        {"a=b", BH_EPROTO, NULL},
        {"a b", BH_EPROTO, NULL},
        {"\xc3\xbc", BH_EPROTO, NULL},
        {"0123456789abcdefX", BH_ELIMIT, NULL},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char storage[16];
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        assert_int_equal(bh_xtext_decode(bh_slice_str(cases[i].in), &out), cases[i].status);
        if (cases[i].out != NULL) {
            assert_true(bh_slice_eq(bh_buf_slice(&out), bh_slice_str(cases[i].out)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wanted),
        cmocka_unit_test(statuses),
        cmocka_unit_test(the_class_fits_the_action),
        cmocka_unit_test(xtext),
    };
    return cmocka_run_group_tests_name("dsn_policy", tests, NULL, NULL);
}
