#include "bh/date.h"

#include <stdio.h>

#include "bh/assert.h"

/* Days from 1970-01-01 of a civil date. Counted in eras of 400 years of 146,097 days, from a year
 * that starts in March, so that the leap day is the last of its year. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2 ? 1 : 0;
    const int64_t era = (year >= 0 ? year : year - 399) / 400;
    const int64_t year_of_era = year - era * 400;
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    const int64_t day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, struct bh_date *date)
{
    days += 719468;
    const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const int64_t day_of_era = days - era * 146097;
    const int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const int64_t day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t month = (5 * day_of_year + 2) / 153;
    date->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    date->month = (int)(month < 10 ? month + 3 : month - 9);
    date->year = (int)(year_of_era + era * 400 + (date->month <= 2 ? 1 : 0));
}

struct bh_date bh_date_of(int64_t unix_ms)
{
    const int64_t first = -62167219200000; /* 0000-01-01T00:00:00Z */
    const int64_t last = 253402300799999;  /* 9999-12-31T23:59:59.999Z */
    unix_ms = unix_ms < first ? first : unix_ms > last ? last : unix_ms;

    const int64_t day_ms = 86400000;
    int64_t days = unix_ms / day_ms;
    int64_t rest = unix_ms % day_ms;
    if (rest < 0) {
        days--;
        rest += day_ms;
    }
    struct bh_date date = {0};
    civil_from_days(days, &date);
    date.weekday = (int)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday. */
    date.hour = (int)(rest / 3600000);
    date.minute = (int)(rest / 60000 % 60);
    date.second = (int)(rest / 1000 % 60);
    date.ms = (int)(rest % 1000);
    return date;
}

int64_t bh_date_unix_ms(const struct bh_date *date)
{
    const int64_t days = days_from_civil(date->year, date->month, date->day);
    return ((days * 24 + date->hour) * 60 + date->minute) * 60000 + date->second * INT64_C(1000) +
           date->ms;
}

const char *bh_date_mail(int64_t unix_ms, char text[BH_DATE_TEXT])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const struct bh_date d = bh_date_of(unix_ms);
    const int len =
        snprintf(text, BH_DATE_TEXT, "%s, %02d %s %04d %02d:%02d:%02d +0000", days[d.weekday],
                 d.day, months[d.month - 1], d.year, d.hour, d.minute, d.second);
    BH_ASSERT(len > 0 && len < BH_DATE_TEXT);
    return text;
}

const char *bh_date_iso(int64_t unix_ms, char text[BH_DATE_TEXT])
{
    const struct bh_date d = bh_date_of(unix_ms);
    const int len = snprintf(text, BH_DATE_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", d.year,
                             d.month, d.day, d.hour, d.minute, d.second, d.ms);
    BH_ASSERT(len > 0 && len < BH_DATE_TEXT);
    return text;
}

/* Take `digits` digits and then the octet `after` (0: none) off the text. */
static bool take_number(struct bh_slice *text, size_t digits, char after, int *number)
{
    uint64_t value = 0;
    const size_t need = digits + (after != 0 ? 1 : 0);
    if (text->len < need || !bh_slice_u64(bh_slice_take(*text, digits), 9999, &value) ||
        (after != 0 && text->ptr[digits] != after)) {
        return false;
    }
    *number = (int)value;
    *text = bh_slice_skip(*text, need);
    return true;
}

static bool take_time(struct bh_slice *text, struct bh_date *date)
{
    if (!take_number(text, 2, ':', &date->hour) || !take_number(text, 2, 0, &date->minute)) {
        return false;
    }
    if (text->len > 0 && text->ptr[0] == ':') {
        *text = bh_slice_skip(*text, 1);
        return take_number(text, 2, 0, &date->second);
    }
    return true;
}

bool bh_date_parse(struct bh_slice text, int64_t *unix_ms)
{
    struct bh_date date = {0};
    if (!take_number(&text, 4, '-', &date.year) || !take_number(&text, 2, '-', &date.month) ||
        !take_number(&text, 2, 0, &date.day)) {
        return false;
    }
    if (text.len > 0 && (text.ptr[0] == 'T' || text.ptr[0] == ' ')) {
        text = bh_slice_skip(text, 1);
        if (!take_time(&text, &date)) {
            return false;
        }
        if (text.len > 0 && text.ptr[0] == 'Z') {
            text = bh_slice_skip(text, 1);
        }
    }
    if (text.len > 0 || date.hour > 23 || date.minute > 59 || date.second > 59) {
        return false;
    }
    const int64_t at = bh_date_unix_ms(&date);
    const struct bh_date back = bh_date_of(at); /* February 30 comes back as March. */
    if (back.year != date.year || back.month != date.month || back.day != date.day) {
        return false;
    }
    *unix_ms = at;
    return true;
}
