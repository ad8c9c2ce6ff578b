#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bh/assert.h"
#include "bh/slice.h"
#include "bh/window.h"

static const char *const berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
static const char *const new_york = "EST5EDT,M3.2.0,M11.1.0";
static const char *const sydney = "AEST-10AEDT,M10.1.0,M4.1.0/3";

static struct bh_zone zone(const char *text)
{
    struct bh_zone z;
    assert_int_equal(bh_zone_parse(bh_slice_str(text), &z), BH_OK);
    return z;
}

/* Unix times of the changes are from `date -u -d`, in which the tables of the system speak. */
static void offsets(void **unused)
{
    (void)unused;
    const struct {
        const char *zone;
        int64_t unix_s;
        int32_t offset_s;
    } cases[] = {
        {"utc", 1774745999, 0},
        {"UTC", 0, 0},
        {"+05:30", 0, 19800},
        {"-08:00", 0, -28800},
        {berlin, 1774745999, 3600}, /* 2026-03-29 00:59:59 UTC */
        {berlin, 1774746000, 7200},
        {berlin, 1792889999, 7200}, /* 2026-10-25 00:59:59 UTC */
        {berlin, 1792890000, 3600},
        {berlin, 1798761600, 3600},     /* 2027-01-01 */
        {new_york, 1772953199, -18000}, /* 2026-03-08 06:59:59 UTC */
        {new_york, 1772953200, -14400},
        {new_york, 1793512799, -14400}, /* 2026-11-01 05:59:59 UTC */
        {new_york, 1793512800, -18000},
        {sydney, 1775318399, 39600}, /* 2026-04-04 15:59:59 UTC: summer ends */
        {sydney, 1775318400, 36000},
        {sydney, 1791043199, 36000}, /* 2026-10-03 15:59:59 UTC */
        {sydney, 1791043200, 39600},
        {sydney, 1767225600, 39600}, /* 2026-01-01 */
        {"<+0330>-3:30", 0, 12600},
        {"IST-1GMT0,M10.5.0,M3.5.0/1", 1768000000, 0}, /* Dublin: negative "summer" in winter */
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_zone z = zone(cases[i].zone);
        assert_int_equal(bh_zone_offset_s(&z, cases[i].unix_s), cases[i].offset_s);
    }
}

static void what_is_no_zone(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"",
                                      "u",
                                      "Europe/Berlin",
                                      "CET",
                                      "CET-1CEST",
                                      "CET-25",
                                      "CET-1CEST,M13.5.0,M10.5.0",
                                      "CET-1CEST,M3.6.0,M10.5.0",
                                      "CET-1CEST,M3.0.0,M10.5.0",
                                      "CET-1CEST,M3.5.7,M10.5.0",
                                      "CET-1CEST,M3.5.0",
                                      "CET-1CEST,M3.5.0,M10.5.0x",
                                      "<ab>-1",
                                      "<abc-1",
                                      "+15",
                                      "+1:60",
                                      "CET-1CEST,J60,J300"};
    struct bh_zone z;
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        assert_int_equal(bh_zone_parse(bh_slice_str(bad[i]), &z), BH_EINVAL);
    }
    char file[64] = "TZif2";
    memcpy(file + 46, "\nCET-1\n", 7);
    assert_int_equal(bh_zone_of_file(bh_slice(file, 53), &z), BH_OK);
    assert_int_equal(z.standard_s, 3600);
    assert_int_equal(bh_zone_of_file(bh_slice(file, 52), &z), BH_EINVAL);
    file[4] = 0; /* version 1 has no rule */
    assert_int_equal(bh_zone_of_file(bh_slice(file, 53), &z), BH_EINVAL);
}

static struct bh_window window(const char *days, const char *hours)
{
    struct bh_window w;
    assert_true(bh_window_parse(bh_slice_str(days), bh_slice_str(hours), &w));
    return w;
}

static void words(void **unused)
{
    (void)unused;
    static const struct {
        const char *days, *hours, *again;
    } cases[] = {
        {"mon-fri", "08:00-18:00", "mon,tue,wed,thu,fri 08:00-18:00"},
        {"sat-mon", "9:00-24:00", "mon,sat,sun 09:00-24:00"},
        {"Mon,wed", "22:00-06:00", "mon,wed 22:00-06:00"},
        {"daily", "00:00-00:01", "daily 00:00-00:01"},
        {"mon-sun", "0:00-24:00", "daily 00:00-24:00"},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char text[128];
        struct bh_buf out = bh_buf(text, sizeof(text));
        const struct bh_window w = window(cases[i].days, cases[i].hours);
        assert_int_equal(bh_window_print(&w, &out), BH_OK);
        assert_true(bh_slice_eq(bh_buf_slice(&out), bh_slice_str(cases[i].again)));
    }
    static const char *const bad[][2] = {
        {"", "08:00-18:00"},      {"mon,", "08:00-18:00"},   {"mon-", "08:00-18:00"},
        {"noday", "08:00-18:00"}, {"mon", "08:00"},          {"mon", "08:00-08:00"},
        {"mon", "24:00-08:00"},   {"mon", "08:00-24:01"},    {"mon", "08:60-09:00"},
        {"mon", "08:00-18:00-"},  {"mon--tue", "1:00-2:00"}, {"mon", "8-18"},
    };
    struct bh_window w;
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        assert_false(bh_window_parse(bh_slice_str(bad[i][0]), bh_slice_str(bad[i][1]), &w));
    }
}

/* From each time the next change, and what is then. */
static void opens_and_closes(void **unused)
{
    (void)unused;
    const struct bh_window office = window("mon-fri", "08:00-18:00");
    const struct bh_window night = window("sat", "22:00-06:00");
    const struct bh_window early = window("daily", "02:15-02:45");
    const struct {
        struct bh_window w;
        const char *zone;
        int64_t unix_s, change_s;
        bool open;
    } cases[] = {
        {office, "utc", 1795500000, 1795507200, false},  /* Tue 2026-11-24 06:00 -> 08:00 */
        {office, "utc", 1795507200, 1795543200, true},   /* 08:00 -> 18:00 */
        {office, "utc", 1795543200, 1795593600, false},  /* 18:00 -> Wed 08:00 */
        {office, berlin, 1795503599, 1795503600, false}, /* 08:00 in Berlin is 07:00 */
        {office, "utc", 1795802400, 1796025600, false},  /* Fri 18:00 -> Mon 08:00 */
        {office, berlin, 1774630800, 1774850400,
         false},                                       /* Fri 17:00 UTC -> Mon 06:00 UTC: summer */
        {night, "utc", 1795888800, 1795903200, false}, /* Sat 22:00 minus 4 h */
        {night, "utc", 1795903200, 1795903200 + 8 * 3600, true},  /* Sat 22:00 -> Sun 06:00 */
        {night, berlin, 1774731600, 1774731600 + 7 * 3600, true}, /* that night has 7 hours */
        {night, berlin, 1792872000, 1792872000 + 9 * 3600, true}, /* and that one 9 */
        {early, berlin, 1774741500, 1774829700, false}, /* a time that this night does not have */
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_windows ws = {.at = &cases[i].w, .count = 1, .zone = zone(cases[i].zone)};
        assert_int_equal(bh_windows_open(&ws, cases[i].unix_s * 1000), cases[i].open);
        assert_int_equal(bh_windows_change(&ws, cases[i].unix_s * 1000), cases[i].change_s * 1000);
        assert_int_equal(bh_windows_open(&ws, cases[i].change_s * 1000), !cases[i].open);
    }
    const struct bh_window all = window("daily", "00:00-24:00");
    const struct bh_windows always[] = {{.count = 0}, {.at = &all, .count = 1}};
    for (size_t i = 0; i < BH_COUNT(always); i++) {
        assert_true(bh_windows_open(&always[i], 1795500000000));
        assert_true(bh_windows_change(&always[i], 1795500000000) == INT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets),
        cmocka_unit_test(what_is_no_zone),
        cmocka_unit_test(words),
        cmocka_unit_test(opens_and_closes),
    };
    return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
