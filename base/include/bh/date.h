/* date.h - the calendar, in UTC, as a pure function: no time zone files, no locale, no clock. */
#pragma once

#include "bh/slice.h"

/* The proleptic Gregorian calendar, years 0 to 9999; what lies outside is clamped. */
struct bh_date {
    int year;
    int month;   /* 1 to 12 */
    int day;     /* 1 to 31 */
    int hour;    /* 0 to 23 */
    int minute;  /* 0 to 59 */
    int second;  /* 0 to 59 */
    int weekday; /* 0 Sunday to 6 Saturday */
    int ms;      /* 0 to 999 */
};

struct bh_date bh_date_of(int64_t unix_ms);
/** The instant of a date; its weekday is ignored. Fields past their range carry over. */
int64_t bh_date_unix_ms(const struct bh_date *date);

#define BH_DATE_TEXT 32 /* octets, with the NUL */

/** "Mon, 23 Nov 2026 22:25:00 +0000" (RFC 5322 3.3), NUL-terminated. @return text */
const char *bh_date_mail(int64_t unix_ms, char text[BH_DATE_TEXT]);
/** "2026-11-23T22:25:00.123Z" (RFC 3339), NUL-terminated. @return text */
const char *bh_date_iso(int64_t unix_ms, char text[BH_DATE_TEXT]);
/** "2026-11-23T22:25:00Z", "2026-11-23 22:25[:00]Z", or the day alone; a final Z may be left out:
 * always UTC. @return false if it is none of these */
bool bh_date_parse(struct bh_slice text, int64_t *unix_ms);
