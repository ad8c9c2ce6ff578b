#include "bh/window.h"

#include <string.h>

#define DAY_S 86400
#define DAY_MIN 1440
#define LOOK_AHEAD_MIN (8 * DAY_MIN)

/* ---- the calendar ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0 ? 1 : 0);
}

/* Days since 1970-01-01 (proleptic Gregorian, by eras of 400 years that begin in March). */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2 ? 1 : 0;
    const int64_t era = floor_div(year, 400);
    const int64_t of_era = year - era * 400;
    const int64_t of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t year_of(int64_t days)
{
    int64_t year = 1970 + floor_div(days, 366);
    while (days_of(year + 1, 1, 1) <= days) {
        year++;
    }
    return year;
}

/* 0: Sunday; 1970-01-01 was a Thursday. */
static unsigned weekday_of(int64_t days)
{
    return (unsigned)((days % 7 + 11) % 7);
}

/* ---- zones ---- */

/* Local seconds (as before the change) since 1970 of the change in this year. */
static int64_t change_of(const struct bh_zone_change *c, int64_t year)
{
    const int64_t first = days_of(year, c->month, 1);
    const int64_t next = c->month == 12 ? days_of(year + 1, 1, 1) : days_of(year, c->month + 1u, 1);
    int64_t day = first + (c->weekday + 7 - weekday_of(first)) % 7 + 7 * (c->week - 1);
    while (day >= next) {
        day -= 7;
    }
    return day * DAY_S + c->time_s;
}

int32_t bh_zone_offset_s(const struct bh_zone *zone, int64_t unix_s)
{
    if (!zone->has_summer) {
        return zone->standard_s;
    }
    const int64_t year = year_of(floor_div(unix_s + zone->standard_s, DAY_S));
    const int64_t summer = change_of(&zone->to_summer, year) - zone->standard_s;
    const int64_t standard = change_of(&zone->to_standard, year) - zone->summer_s;
    const bool is_summer = summer < standard ? unix_s >= summer && unix_s < standard
                                             : unix_s >= summer || unix_s < standard;
    return is_summer ? zone->summer_s : zone->standard_s;
}

/* What is left of a text that is read from its front. */
static bool take(struct bh_slice *text, char c)
{
    if (text->len == 0 || text->ptr[0] != c) {
        return false;
    }
    *text = bh_slice_skip(*text, 1);
    return true;
}

static bool take_number(struct bh_slice *text, unsigned max, unsigned *number)
{
    size_t len = 0;
    unsigned value = 0;
    while (len < text->len && len < 4 && bh_is_digit(text->ptr[len])) {
        value = value * 10 + (unsigned)(text->ptr[len++] - '0');
    }
    *text = bh_slice_skip(*text, len);
    *number = value;
    return len > 0 && value <= max;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct bh_slice *text, unsigned hours_max, int32_t *seconds)
{
    const bool minus = take(text, '-');
    unsigned part[3] = {0};
    if (!minus) {
        (void)take(text, '+');
    }
    if (!take_number(text, hours_max, &part[0])) {
        return false;
    }
    for (size_t i = 1; i < 3 && take(text, ':'); i++) {
        if (!take_number(text, 59, &part[i])) {
            return false;
        }
    }
    const int32_t total = (int32_t)(part[0] * 3600 + part[1] * 60 + part[2]);
    *seconds = minus ? -total : total;
    return true;
}

/* Letters, or anything in angle brackets. */
static bool take_name(struct bh_slice *text)
{
    size_t len = 0;
    if (take(text, '<')) {
        len = bh_slice_find(*text, '>');
        const bool closed = len < text->len && len >= 3;
        *text = bh_slice_skip(*text, closed ? len + 1 : text->len);
        return closed;
    }
    while (len < text->len && bh_is_alpha(text->ptr[len])) {
        len++;
    }
    *text = bh_slice_skip(*text, len);
    return len >= 3;
}

/* ,Mm.w.d[/time] */
static bool take_change(struct bh_slice *text, struct bh_zone_change *change)
{
    unsigned month = 0;
    unsigned week = 0;
    unsigned weekday = 0;
    if (!take(text, ',') || !take(text, 'M') || !take_number(text, 12, &month) ||
        !take(text, '.') || !take_number(text, 5, &week) || !take(text, '.') ||
        !take_number(text, 6, &weekday) || month == 0 || week == 0) {
        return false;
    }
    *change = (struct bh_zone_change){.month = (uint8_t)month,
                                      .week = (uint8_t)week,
                                      .weekday = (uint8_t)weekday,
                                      .time_s = 2 * 3600};
    return !take(text, '/') || take_time(text, 167, &change->time_s);
}

enum bh_status bh_zone_parse(struct bh_slice text, struct bh_zone *zone)
{
    *zone = (struct bh_zone){0};
    if (bh_slice_eq_nocase(text, BH_LIT("utc"))) {
        return BH_OK;
    }
    if (text.len > 0 && (text.ptr[0] == '+' || text.ptr[0] == '-')) {
        return take_time(&text, 14, &zone->standard_s) && text.len == 0 ? BH_OK : BH_EINVAL;
    }
    if (!take_name(&text) || !take_time(&text, 24, &zone->standard_s)) {
        return BH_EINVAL;
    }
    zone->standard_s = -zone->standard_s; /* POSIX counts westward */
    if (text.len == 0) {
        return BH_OK;
    }
    zone->has_summer = true;
    zone->summer_s = zone->standard_s + 3600;
    if (!take_name(&text)) {
        return BH_EINVAL;
    }
    if (text.len > 0 && text.ptr[0] != ',') {
        if (!take_time(&text, 24, &zone->summer_s)) {
            return BH_EINVAL;
        }
        zone->summer_s = -zone->summer_s;
    }
    const bool good = take_change(&text, &zone->to_summer) &&
                      take_change(&text, &zone->to_standard) && text.len == 0;
    return good ? BH_OK : BH_EINVAL;
}

enum bh_status bh_zone_of_file(struct bh_slice octets, struct bh_zone *zone)
{
    if (octets.len < 46 || memcmp(octets.ptr, "TZif", 4) != 0 || octets.ptr[4] < '2' ||
        octets.ptr[octets.len - 1] != '\n') {
        return BH_EINVAL;
    }
    size_t from = octets.len - 1;
    while (from > 0 && octets.ptr[from - 1] != '\n') {
        from--;
    }
    return bh_zone_parse(bh_slice(octets.ptr + from, octets.len - 1 - from), zone);
}

/* ---- windows ---- */

static const char *const day_names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static bool day_of(struct bh_slice text, unsigned *day)
{
    for (unsigned i = 0; i < 7; i++) {
        if (bh_slice_eq_nocase(text, bh_slice_str(day_names[i]))) {
            *day = i;
            return true;
        }
    }
    return false;
}

static bool parse_days(struct bh_slice text, uint8_t *days)
{
    *days = 0;
    if (bh_slice_eq_nocase(text, BH_LIT("daily"))) {
        *days = 0x7f;
        return true;
    }
    while (text.len > 0) {
        const size_t comma = bh_slice_find(text, ',');
        const struct bh_slice part = bh_slice(text.ptr, comma);
        const size_t dash = bh_slice_find(part, '-');
        unsigned first = 0;
        unsigned last = 0;
        if (!day_of(bh_slice(part.ptr, dash), &first)) {
            return false;
        }
        last = first;
        if (dash < part.len && !day_of(bh_slice_skip(part, dash + 1), &last)) {
            return false;
        }
        for (unsigned d = first;; d = (d + 1) % 7) {
            *days |= (uint8_t)(1u << d);
            if (d == last) {
                break;
            }
        }
        if (comma + 1 == text.len) {
            return false; /* a comma at the end */
        }
        text = bh_slice_skip(text, comma < text.len ? comma + 1 : text.len);
    }
    return *days != 0;
}

static bool take_minutes(struct bh_slice *text, uint16_t *minutes)
{
    unsigned hour = 0;
    unsigned minute = 0;
    if (!take_number(text, 24, &hour) || !take(text, ':') || !take_number(text, 59, &minute) ||
        hour * 60 + minute > DAY_MIN) {
        return false;
    }
    *minutes = (uint16_t)(hour * 60 + minute);
    return true;
}

bool bh_window_parse(struct bh_slice days, struct bh_slice hours, struct bh_window *window)
{
    return parse_days(days, &window->days) && take_minutes(&hours, &window->from_min) &&
           take(&hours, '-') && take_minutes(&hours, &window->to_min) && hours.len == 0 &&
           window->from_min != window->to_min && window->from_min < DAY_MIN;
}

enum bh_status bh_window_print(const struct bh_window *window, struct bh_buf *out)
{
    enum bh_status status = BH_OK;
    bool any = false;
    if (window->days == 0x7f) {
        status = bh_buf_add(out, BH_LIT("daily"));
    }
    for (unsigned i = 0; i < 7 && status == BH_OK && window->days != 0x7f; i++) {
        if ((window->days & 1u << i) != 0) {
            status = bh_buf_printf(out, "%s%s", any ? "," : "", day_names[i]);
            any = true;
        }
    }
    return status == BH_OK
               ? bh_buf_printf(out, " %02u:%02u-%02u:%02u", window->from_min / 60u,
                               window->from_min % 60u, window->to_min / 60u, window->to_min % 60u)
               : status;
}

bool bh_windows_open(const struct bh_windows *windows, int64_t unix_ms)
{
    const int64_t unix_s = floor_div(unix_ms, 1000);
    const int64_t local = unix_s + bh_zone_offset_s(&windows->zone, unix_s);
    const int64_t day = floor_div(local, DAY_S);
    const unsigned minute = (unsigned)((local - day * DAY_S) / 60);
    const unsigned today = (weekday_of(day) + 6) % 7;
    const unsigned yesterday = (today + 6) % 7;
    for (size_t i = 0; i < windows->count; i++) {
        const struct bh_window *w = &windows->at[i];
        const bool begins = (w->days & 1u << today) != 0;
        const bool began = (w->days & 1u << yesterday) != 0;
        const bool over = w->to_min < w->from_min;
        if ((begins && minute >= w->from_min && (over || minute < w->to_min)) ||
            (over && began && minute < w->to_min)) {
            return true;
        }
    }
    return windows->count == 0;
}

int64_t bh_windows_change(const struct bh_windows *windows, int64_t unix_ms)
{
    const bool open = bh_windows_open(windows, unix_ms);
    const int64_t minute = floor_div(unix_ms, 60000);
    for (int64_t i = 1; windows->count > 0 && i <= LOOK_AHEAD_MIN; i++) {
        /* Minute by minute: right across every change of the clocks, which are at whole minutes. */
        if (bh_windows_open(windows, (minute + i) * 60000) != open) {
            return (minute + i) * 60000;
        }
    }
    return INT64_MAX;
}
