#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "bh/date.h"
#include "bh/time.h"
#include "bhctl.h"

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *text_span(int64_t span_ms, char text[TEXT_TIME])
{
    const int64_t s = span_ms > 0 ? span_ms / 1000 : 0;
    if (s < 60) {
        snprintf(text, TEXT_TIME, "%" PRId64 " s", s);
    } else if (s < 3600) {
        snprintf(text, TEXT_TIME, "%" PRId64 " m", s / 60);
    } else if (s < 86400) {
        snprintf(text, TEXT_TIME, s % 3600 >= 60 ? "%" PRId64 " h %" PRId64 " m" : "%" PRId64 " h",
                 s / 3600, s % 3600 / 60);
    } else {
        snprintf(text, TEXT_TIME,
                 s % 86400 >= 3600 ? "%" PRId64 " d %" PRId64 " h" : "%" PRId64 " d", s / 86400,
                 s % 86400 / 3600);
    }
    return text;
}

const char *text_time(int64_t unix_ms, int64_t now_unix_ms, char text[TEXT_TIME])
{
    const time_t at = (time_t)(unix_ms / 1000);
    const time_t now = (time_t)(now_unix_ms / 1000);
    struct tm there;
    struct tm here;
    if (localtime_r(&at, &there) == NULL || localtime_r(&now, &here) == NULL) {
        return bh_date_iso(unix_ms, text);
    }
    const bool today = there.tm_year == here.tm_year && there.tm_yday == here.tm_yday;
    if (strftime(text, TEXT_TIME, today ? "%H:%M:%S" : "%Y-%m-%d %H:%M", &there) == 0) {
        return bh_date_iso(unix_ms, text);
    }
    return text;
}

const char *text_count(uint64_t n, char text[TEXT_TIME])
{
    char digits[24];
    const int len = snprintf(digits, sizeof(digits), "%" PRIu64, n);
    size_t at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            text[at++] = ',';
        }
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

const char *text_size(uint64_t octets, char text[TEXT_TIME])
{
    static const char *const units[] = {"KB", "MB", "GB", "TB", "PB", "EB"};
    if (octets < 1024) {
        snprintf(text, TEXT_TIME, "%" PRIu64 " B", octets);
        return text;
    }
    double size = (double)octets / 1024;
    size_t unit = 0;
    for (; size >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++) {
        size /= 1024;
    }
    snprintf(text, TEXT_TIME, "%.1f %s", size, units[unit]);
    return text;
}

void put_safe(FILE *file, const char *text)
{
    for (; text != NULL && *text != 0; text++) {
        const unsigned char c = (unsigned char)*text;
        const bool c1 = c == 0xc2 && (unsigned char)text[1] < 0xa0;
        if (c < 0x20 || c == 0x7f || c1) {
            fprintf(file, "\\x%02X", c);
        } else {
            fputc(c, file);
        }
    }
}

bool parse_span(const char *text, int64_t *span_ms)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', BH_SECOND_MS},
                 {'m', BH_MINUTE_MS},
                 {'h', BH_HOUR_MS},
                 {'d', BH_DAY_MS},
                 {'w', 7 * BH_DAY_MS}};
    const size_t len = strlen(text);
    uint64_t number = 0;
    if (len < 2 || !bh_slice_u64(bh_slice(text, len - 1), 1000000, &number)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (text[len - 1] == units[i].unit) {
            *span_ms = (int64_t)number * units[i].ms;
            return true;
        }
    }
    return false;
}

/* The next time that the local clock shows HH:MM. */
static bool next_clock_time(const char *text, int64_t now_unix_ms, int64_t *unix_ms)
{
    uint64_t hour = 0;
    uint64_t minute = 0;
    struct tm at;
    const time_t now = (time_t)(now_unix_ms / 1000);
    if (strlen(text) != 5 || text[2] != ':' || !bh_slice_u64(bh_slice(text, 2), 23, &hour) ||
        !bh_slice_u64(bh_slice(text + 3, 2), 59, &minute) || localtime_r(&now, &at) == NULL) {
        return false;
    }
    at.tm_hour = (int)hour;
    at.tm_min = (int)minute;
    at.tm_sec = 0;
    at.tm_isdst = -1;
    time_t then = mktime(&at);
    if (then <= now) {
        at.tm_mday++;
        at.tm_isdst = -1;
        then = mktime(&at);
    }
    *unix_ms = (int64_t)then * 1000;
    return then > now;
}

bool parse_since(const char *text, int64_t now_unix_ms, int64_t *unix_ms)
{
    int64_t span = 0;
    if (parse_span(text, &span)) {
        *unix_ms = now_unix_ms - span;
        return *unix_ms >= 0;
    }
    return bh_date_parse(bh_slice_str(text), unix_ms) && *unix_ms >= 0;
}

bool parse_until(const char *text, int64_t now_unix_ms, int64_t *unix_ms)
{
    int64_t span = 0;
    if (text[0] == '+' && parse_span(text + 1, &span)) {
        *unix_ms = now_unix_ms + span;
        return true;
    }
    return next_clock_time(text, now_unix_ms, unix_ms) ||
           bh_date_parse(bh_slice_str(text), unix_ms);
}
