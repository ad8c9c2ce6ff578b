#include "config_units.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "bh/time.h"

#define HINT_LEN_MAX 40 /* octets of a word that gets a spelling hint */
#define VALUE_MAX ((uint64_t)1 << 50)

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first, for printing. */
static const struct unit time_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
static const struct unit size_units[] = {
    {"T", (uint64_t)1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}};
static const struct unit rate_units[] = {
    {"/d", 86400000}, {"/h", 3600000}, {"/min", 60000}, {"/s", 1000}};

/* Digits, then the name of a unit. */
static bool split(struct bh_slice text, const struct unit *units, size_t count, uint64_t *value,
                  uint64_t *factor)
{
    size_t digits = 0;
    while (digits < text.len && bh_is_digit(text.ptr[digits])) {
        digits++;
    }
    if (!bh_slice_u64(bh_slice(text.ptr, digits), VALUE_MAX, value)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (bh_slice_eq(bh_slice_skip(text, digits), bh_slice_str(units[i].name))) {
            *factor = units[i].factor;
            return true;
        }
    }
    return false;
}

static bool multiply(uint64_t value, uint64_t factor, uint64_t *product)
{
    if (value > VALUE_MAX / factor) {
        return false;
    }
    *product = value * factor;
    return true;
}

bool bh_units_time(struct bh_slice text, uint64_t *ms)
{
    uint64_t value = 0;
    uint64_t factor = 1;
    return split(text, time_units, BH_COUNT(time_units), &value, &factor) &&
           multiply(value, factor, ms);
}

bool bh_units_size(struct bh_slice text, uint64_t *octets)
{
    uint64_t value = 0;
    uint64_t factor = 1;
    return split(text, size_units, BH_COUNT(size_units), &value, &factor) &&
           multiply(value, factor, octets);
}

bool bh_units_rate(struct bh_slice text, struct bh_rate *rate)
{
    uint64_t value = 0;
    uint64_t factor = 1;
    if (!split(text, rate_units, BH_COUNT(rate_units), &value, &factor) || value == 0 ||
        value > UINT32_MAX) {
        return false;
    }
    *rate = (struct bh_rate){(uint32_t)value, (uint32_t)factor};
    return true;
}

/* Days from 1970-01-01 in the Gregorian calendar; the year starts in March, so that the leap day
 * comes last. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    const int64_t y = month <= 2 ? year - 1 : year;
    const int64_t era = y / 400;
    const int64_t year_of_era = y - era * 400;
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    const int64_t day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    const int64_t shifted = days + 719468;
    const int64_t era = shifted / 146097;
    const int64_t day_of_era = shifted - era * 146097;
    const int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const int64_t day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t march_month = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * march_month + 2) / 5 + 1;
    *month = march_month + (march_month < 10 ? 3 : -9);
    *year = year_of_era + era * 400 + (*month <= 2 ? 1 : 0);
}

bool bh_units_date(struct bh_slice text, int64_t *end_unix_ms)
{
    uint64_t year = 0;
    uint64_t month = 0;
    uint64_t day = 0;
    if (text.len != 10 || text.ptr[4] != '-' || text.ptr[7] != '-' ||
        !bh_slice_u64(bh_slice(text.ptr, 4), 9999, &year) ||
        !bh_slice_u64(bh_slice(text.ptr + 5, 2), 12, &month) ||
        !bh_slice_u64(bh_slice(text.ptr + 8, 2), 31, &day) || year < 1970) {
        return false;
    }
    const int64_t days = days_from_civil((int64_t)year, (int64_t)month, (int64_t)day);
    int64_t y = 0;
    int64_t m = 0;
    int64_t d = 0;
    civil_from_days(days, &y, &m, &d); /* 2026-02-30 comes back as another day */
    if (y != (int64_t)year || m != (int64_t)month || d != (int64_t)day) {
        return false;
    }
    *end_unix_ms = (days + 1) * BH_DAY_MS;
    return true;
}

static const char *with_unit(uint64_t value, const struct unit *units, size_t count,
                             char text[BH_UNITS_TEXT_MAX])
{
    for (size_t i = 0; i < count; i++) {
        if (value % units[i].factor == 0 && (value > 0 || i + 1 == count)) {
            snprintf(text, BH_UNITS_TEXT_MAX, "%" PRIu64 "%s", value / units[i].factor,
                     units[i].name);
            break;
        }
    }
    return text;
}

const char *bh_units_time_text(uint64_t ms, char text[BH_UNITS_TEXT_MAX])
{
    return ms == 0 ? "0s" : with_unit(ms, time_units, BH_COUNT(time_units), text);
}

const char *bh_units_size_text(uint64_t octets, char text[BH_UNITS_TEXT_MAX])
{
    return with_unit(octets, size_units, BH_COUNT(size_units), text);
}

const char *bh_units_rate_text(struct bh_rate rate, char text[BH_UNITS_TEXT_MAX])
{
    for (size_t i = 0; i < BH_COUNT(rate_units); i++) {
        if (rate.per_ms == rate_units[i].factor) {
            snprintf(text, BH_UNITS_TEXT_MAX, "%" PRIu32 "%s", rate.count, rate_units[i].name);
            return text;
        }
    }
    snprintf(text, BH_UNITS_TEXT_MAX, "unlimited");
    return text;
}

const char *bh_units_date_text(int64_t end_unix_ms, char text[BH_UNITS_TEXT_MAX])
{
    int64_t year = 0;
    int64_t month = 0;
    int64_t day = 0;
    civil_from_days(end_unix_ms / BH_DAY_MS - 1, &year, &month, &day);
    snprintf(text, BH_UNITS_TEXT_MAX, "%04d-%02d-%02d", (int)year, (int)month, (int)day);
    return text;
}

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned bh_units_distance(struct bh_slice written, struct bh_slice candidate)
{
    unsigned rows[3][HINT_LEN_MAX + 1]; /* two before, before, now */
    if (written.len > HINT_LEN_MAX || candidate.len > HINT_LEN_MAX || written.len == 0) {
        return UINT_MAX;
    }
    for (unsigned j = 0; j <= candidate.len; j++) {
        rows[0][j] = j;
        rows[1][j] = j;
    }
    for (unsigned i = 1; i <= written.len; i++) {
        const unsigned *before = rows[i % 3];
        unsigned *now = rows[(i + 1) % 3];
        const unsigned *two_before = rows[(i + 2) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= candidate.len; j++) {
            const char a = bh_lower(written.ptr[i - 1]);
            const char b = bh_lower(candidate.ptr[j - 1]);
            unsigned best = before[j - 1] + (a == b ? 0 : 1);
            best = smaller(best, smaller(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a == bh_lower(candidate.ptr[j - 2]) &&
                b == bh_lower(written.ptr[i - 2])) {
                best = smaller(best, two_before[j - 2] + 1);
            }
            now[j] = best;
        }
    }
    const unsigned distance = rows[(written.len + 1) % 3][candidate.len];
    const unsigned allowed = written.len <= 3 ? 1 : written.len <= 6 ? 2 : 3;
    return distance <= allowed && distance < candidate.len ? distance : UINT_MAX;
}
