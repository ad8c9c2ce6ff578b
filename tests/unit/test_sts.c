#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/buf.h"
#include "bh/sts.h"

static void records(void **unused)
{
    (void)unused;
    static const struct {
        const char *txt[3];
        enum bh_status status;
        const char *id;
    } cases[] = {
        {{"v=STSv1; id=20160831085700Z;"}, BH_OK, "20160831085700Z"},
        {{"v=STSv1;id=a"}, BH_OK, "a"},
        {{"v=STSv1 ;\tid=a ; "}, BH_OK, "a"},
        {{"v=STSv1; id=a; id=b"}, BH_OK, "a"},
        {{"v=STSv1; x-y.z_1=any!thing; id=a"}, BH_OK, "a"},
        {{"v=STSv1; id=12345678901234567890123456789012"},
         BH_OK,
         "12345678901234567890123456789012"},
        {{"v=STSv1; id=123456789012345678901234567890123"}, BH_EPROTO, NULL},
        {{"v=STSv1; id=a-b"}, BH_EPROTO, NULL},
        {{"v=STSv1; id="}, BH_EPROTO, NULL},
        {{"v=STSv1; id"}, BH_EPROTO, NULL},
        {{"v=STSv1;"}, BH_EPROTO, NULL},
        {{"v=STSv1; ; id=a"}, BH_EPROTO, NULL},
        {{"v=STSv1; id=a b"}, BH_EPROTO, NULL},
        {{"v=STSv1; -x=y; id=a"}, BH_EPROTO, NULL},
        {{"v=STSv1; x=y=z; id=a"}, BH_EPROTO, NULL},
        {{"v=STSv1; id=a", "v=STSv1; id=b"}, BH_EPROTO, NULL},
        {{"v=STSv1; id=a", "v=STSv1; id=a"}, BH_EPROTO, NULL},
        {{"v=spf1 -all", "v=STSv1; id=a", "hello"}, BH_OK, "a"},
        {{"v=STSv1; id=a", "v=STSv2; id=b"}, BH_OK, "a"},
        {{"v=STSv10; id=a"}, BH_ENOTFOUND, NULL},
        {{"V=STSv1; id=a"}, BH_ENOTFOUND, NULL},
        {{" v=STSv1; id=a"}, BH_ENOTFOUND, NULL},
        {{"v=STSv1"}, BH_ENOTFOUND, NULL},
        {{""}, BH_ENOTFOUND, NULL},
        {{NULL}, BH_ENOTFOUND, NULL},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_slice txt[3];
        size_t count = 0;
        while (count < BH_COUNT(txt) && cases[i].txt[count] != NULL) {
            txt[count] = bh_slice_str(cases[i].txt[count]);
            count++;
        }
        struct bh_slice id = BH_LIT("unchanged");
        const char *why = NULL;
        assert_int_equal(bh_sts_read_txt(txt, count, &id, &why), cases[i].status);
        assert_true(bh_slice_eq(id, bh_slice_str(cases[i].id != NULL ? cases[i].id : "unchanged")));
        assert_true((why != NULL) == (cases[i].status != BH_OK));
    }
}

static void policies(void **unused)
{
    (void)unused;
    static const struct {
        const char *body;
        enum bh_status status;
        enum bh_sts_mode mode;
        uint64_t max_age_s;
        const char *mx; /* joined by blanks */
    } cases[] = {
        {"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.NET\r\n"
         "max_age: 604800\r\n",
         BH_OK, BH_STS_MODE_ENFORCE, 604800, "mail.example.com *.example.net"},
        {"version:STSv1\nmode:testing\nmx:a.b\nmax_age:1", BH_OK, BH_STS_MODE_TESTING, 1, "a.b"},
        {"version: STSv1\nmode: none\nmax_age: 0\n", BH_OK, BH_STS_MODE_NONE, 0, ""},
        {"max_age: 9\nmx: a\nmode: enforce\nversion: STSv1\n", BH_OK, BH_STS_MODE_ENFORCE, 9, "a"},
        {"version: STSv1 \t\nmode: enforce \nmx: a \nmx: A\nmax_age: 9999999999 \n\n", BH_OK,
         BH_STS_MODE_ENFORCE, BH_STS_MAX_AGE_S, "a"},
        {"version: STSv1\nmode: enforce\nmode: none\nmx: a\nmax_age: 5\nmax_age: x\n", BH_OK,
         BH_STS_MODE_ENFORCE, 5, "a"},
        {"version: STSv1\nmode: enforce\nx.y-z_1: \xc3\xbc ber: so\nmx: a\nmax_age: 5\n", BH_OK,
         BH_STS_MODE_ENFORCE, 5, "a"},
        {"version: STSv1\nmode: enforce\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: testing\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv2\nversion: STSv1\nmode: none\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"mode: none\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: none\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: Enforce\nmx: a\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a\nmax_age: -5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a\nmax_age: 12345678901\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a\nmax_age:\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a b\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: *\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: mx*.b\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a..b\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: a.b.\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: -a.b\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\nmode: enforce\nmx: [192.0.2.1]\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version: STSv1\rmode: none\rmax_age: 5\r", BH_EPROTO, 0, 0, NULL},
        {"<html>\nversion: STSv1\nmode: none\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"version : STSv1\nmode: none\nmax_age: 5\n", BH_EPROTO, 0, 0, NULL},
        {"", BH_EPROTO, 0, 0, NULL},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_arena arena;
        struct bh_sts_policy policy = {0};
        const char *why = NULL;
        char joined[256];
        struct bh_buf mx = bh_buf(joined, sizeof(joined));
        bh_arena_init(&arena, 65536);
        assert_int_equal(bh_sts_read_policy(bh_slice_str(cases[i].body), &arena, &policy, &why),
                         cases[i].status);
        assert_true((why != NULL) == (cases[i].status != BH_OK));
        for (size_t k = 0; k < policy.mx_count; k++) {
            assert_int_equal(bh_buf_add(&mx, k > 0 ? BH_LIT(" ") : BH_EMPTY), BH_OK);
            assert_int_equal(bh_buf_add(&mx, policy.mx[k]), BH_OK);
        }
        if (cases[i].status == BH_OK) {
            assert_int_equal(policy.mode, cases[i].mode);
            assert_int_equal(policy.max_age_s, cases[i].max_age_s);
            assert_true(bh_slice_eq(bh_buf_slice(&mx), bh_slice_str(cases[i].mx)));
        }
        bh_arena_fini(&arena);
    }
}

/* The bounds on a policy, at them and one past them. */
static void policy_bounds(void **unused)
{
    (void)unused;
    static char body[BH_STS_POLICY_MAX + 2];
    for (size_t more = 0; more <= 1; more++) {
        struct bh_arena arena;
        struct bh_sts_policy policy;
        const char *why = NULL;
        bh_arena_init(&arena, 65536);
        struct bh_buf text = bh_buf(body, sizeof(body));
        assert_int_equal(bh_buf_printf(&text, "version: STSv1\nmode: enforce\nmax_age: 1\n"),
                         BH_OK);
        for (size_t i = 0; i < BH_STS_MX_MAX + more; i++) {
            assert_int_equal(bh_buf_printf(&text, "mx: m%u.example\n", (unsigned)i), BH_OK);
        }
        assert_int_equal(bh_sts_read_policy(bh_buf_slice(&text), &arena, &policy, &why),
                         more == 0 ? BH_OK : BH_ELIMIT);
        bh_arena_reset(&arena);

        text.len = 0;
        assert_int_equal(bh_buf_printf(&text, "version: STSv1\nmode: none\nmax_age: 1\nx: "),
                         BH_OK);
        while (text.len < BH_STS_POLICY_MAX + more) {
            bh_buf_put_char(&text, 'x');
        }
        assert_int_equal(bh_sts_read_policy(bh_buf_slice(&text), &arena, &policy, &why),
                         more == 0 ? BH_OK : BH_ELIMIT);
        bh_arena_fini(&arena);
    }
}

static void patterns(void **unused)
{
    (void)unused;
    static const struct {
        const char *pattern, *host;
        bool matches;
    } cases[] = {
        {"mx.example.com", "mx.example.com", true},
        {"mx.example.com", "MX.Example.com.", true},
        {"mx.example.com", "mx2.example.com", false},
        {"mx.example.com", "a.mx.example.com", false},
        {"*.example.com", "mx.example.com", true},
        {"*.example.com", "a.mx.example.com", false},
        {"*.example.com", "example.com", false},
        {"*.example.com", ".example.com", false},
        {"*.example.com", "mxexample.com", false},
        {"*.com", "example.com", true},
        {"example.com", "", false},
        {"*.example.com", "", false},
        {"*.example.com", "*.example.com", true},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        assert_int_equal(
            bh_sts_pattern_matches(bh_slice_str(cases[i].pattern), bh_slice_str(cases[i].host)),
            cases[i].matches);
    }
}

static void content_types(void **unused)
{
    (void)unused;
    assert_true(bh_sts_content_type_ok(BH_LIT("text/plain")));
    assert_true(bh_sts_content_type_ok(BH_LIT("Text/PLAIN ; charset=utf-8")));
    assert_false(bh_sts_content_type_ok(BH_LIT("text/html")));
    assert_false(bh_sts_content_type_ok(BH_LIT("text/plainer")));
    assert_false(bh_sts_content_type_ok(BH_LIT("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),       cmocka_unit_test(policies),
        cmocka_unit_test(policy_bounds), cmocka_unit_test(patterns),
        cmocka_unit_test(content_types),
    };
    return cmocka_run_group_tests_name("sts", tests, NULL, NULL);
}
