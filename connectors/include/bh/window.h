/* window.h - when mail of a connector may go: hours of weekdays in a time zone. Pure: the zone is a
 * rule in the form of POSIX TZ, from its text or from the last line of a zoneinfo file. */
#pragma once

#include "bh/buf.h"
#include "bh/slice.h"
#include "bh/status.h"

#include <stdbool.h>
#include <stdint.h>

#define BH_WINDOWS_MAX 16

/** A day of each year on which the clocks change: the n-th weekday of a month. */
struct bh_zone_change {
    uint8_t month;   /* 1 to 12 */
    uint8_t week;    /* 1 to 5; 5: the last one */
    uint8_t weekday; /* 0: Sunday */
    int32_t time_s;  /* local time before the change, from midnight; may be negative or past 24 h */
};

struct bh_zone {
    int32_t standard_s; /* seconds that local time is ahead of UTC */
    int32_t summer_s;
    bool has_summer;
    struct bh_zone_change to_summer, to_standard;
};

struct bh_window {
    uint8_t days;              /* bit 0: Monday ... bit 6: Sunday; on which it begins */
    uint16_t from_min, to_min; /* minutes of the local day; to 1440; to < from: over midnight */
};

struct bh_windows {
    const struct bh_window *at;
    size_t count;              /* 0: always open */
    struct bh_zone zone;       /* of all of them */
    struct bh_slice zone_text; /* as configured; empty: UTC */
};

/** "utc", "+05:30", "-08:00", or POSIX TZ such as "CET-1CEST,M3.5.0,M10.5.0/3" (days by month, week
 * and weekday, which is what all zones in force use; 0 to 167 hours).
 * @return BH_OK, or BH_EINVAL: it is none of these */
BH_MUST_USE enum bh_status bh_zone_parse(struct bh_slice text, struct bh_zone *zone);
/** The rule at the end of a TZif file (RFC 8536, version 2 and up), which is the one in force now.
 * @return BH_OK, or BH_EINVAL */
BH_MUST_USE enum bh_status bh_zone_of_file(struct bh_slice octets, struct bh_zone *zone);
/** How far local time is ahead of UTC. */
int32_t bh_zone_offset_s(const struct bh_zone *zone, int64_t unix_s);

/** DAYS FROM-TO, such as "mon-fri" "08:00-18:00"; "daily", "mon,wed", "sat-mon", "22:00-06:00".
 * @return false if it is none */
bool bh_window_parse(struct bh_slice days, struct bh_slice hours, struct bh_window *window);
/** Words that mean it again. @return as bh_buf_printf */
enum bh_status bh_window_print(const struct bh_window *window, struct bh_buf *out);

bool bh_windows_open(const struct bh_windows *windows, int64_t unix_ms);
/** The next minute at which they open or close. INT64_MAX: none within 8 days (they never do). */
int64_t bh_windows_change(const struct bh_windows *windows, int64_t unix_ms);
