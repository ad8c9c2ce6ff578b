#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/date.h"

static const struct {
    int64_t unix_ms;
    const char *mail;
    const char *iso;
} cases[] = {
    {0, "Thu, 01 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z"},
    {-1, "Wed, 31 Dec 1969 23:59:59 +0000", "1969-12-31T23:59:59.999Z"},
    {951782400000, "Tue, 29 Feb 2000 00:00:00 +0000", "2000-02-29T00:00:00.000Z"},
    {1795472707123, "Mon, 23 Nov 2026 22:25:07 +0000", "2026-11-23T22:25:07.123Z"},
    {4107542400000, "Mon, 01 Mar 2100 00:00:00 +0000", "2100-03-01T00:00:00.000Z"},
    {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31T23:59:59.999Z"},
    {INT64_MIN, "Sat, 01 Jan 0000 00:00:00 +0000", "0000-01-01T00:00:00.000Z"},
};

static void texts(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[BH_DATE_TEXT];
        assert_string_equal(bh_date_mail(cases[i].unix_ms, text), cases[i].mail);
        assert_string_equal(bh_date_iso(cases[i].unix_ms, text), cases[i].iso);
    }
}

/* Every day over eleven centuries is followed by its successor in the calendar, and comes back. */
static void days_follow_each_other(void **unused)
{
    (void)unused;
    struct bh_date last = bh_date_of(-12219292800000); /* 1582-10-15 */
    for (int64_t day = -141427 + 1; day < 300000; day++) {
        const struct bh_date date = bh_date_of(day * 86400000 + 12345678);
        assert_int_equal(bh_date_unix_ms(&date), day * 86400000 + 12345678);
        assert_int_equal(date.weekday, (last.weekday + 1) % 7);
        const bool next_day = date.day == last.day + 1 && date.month == last.month;
        const bool next_month = date.day == 1 && date.month == last.month % 12 + 1;
        assert_true(next_day || next_month);
        assert_int_equal(date.year, last.year + (next_month && date.month == 1 ? 1 : 0));
        last = date;
    }
}

static void parsing(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        int64_t unix_ms; /* -1: refused */
    } texts_in[] = {
        {"2026-11-23", 1795392000000},
        {"2026-11-23 22:25", 1795472700000},
        {"2026-11-23T22:25:07Z", 1795472707000},
        {"1970-01-01T00:00:00", 0},
        {"2026-02-29", -1},
        {"2026-13-01", -1},
        {"2026-11-23T24:00", -1},
        {"2026-11-23 22:2", -1},
        {"2026-11-23x", -1},
        {"", -1},
        {"23.11.2026", -1},
        {"2026-11-23T22:25:07Zx", -1},
    };
    for (size_t i = 0; i < sizeof(texts_in) / sizeof(texts_in[0]); i++) {
        int64_t at = -1;
        const bool parsed = bh_date_parse(bh_slice_str(texts_in[i].text), &at);
        assert_int_equal(parsed, texts_in[i].unix_ms != -1);
        assert_int_equal(at, texts_in[i].unix_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts),
                                       cmocka_unit_test(days_follow_each_other),
                                       cmocka_unit_test(parsing)};
    return cmocka_run_group_tests_name("date", tests, NULL, NULL);
}
