/* config_units.h - numbers with units as they stand in a configuration, both ways; spelling hints.
 */
#pragma once

#include "bh/connector.h"

/** "30s", "5m", "4h", "2d", "250ms": one number, one unit. */
bool bh_units_time(struct bh_slice text, uint64_t *ms);
/** "512", "64K", "25M", "2G", "1T": octets, powers of 1024. */
bool bh_units_size(struct bh_slice text, uint64_t *octets);
/** "60/min", "5/s", "1000/h", "20000/d". */
bool bh_units_rate(struct bh_slice text, struct bh_rate *rate);
/** "2026-12-31": the first millisecond after that day in UTC. */
bool bh_units_date(struct bh_slice text, int64_t *end_unix_ms);

#define BH_UNITS_TEXT_MAX 32
/** The largest unit that leaves no rest. NUL-terminated. @return text */
const char *bh_units_time_text(uint64_t ms, char text[BH_UNITS_TEXT_MAX]);
const char *bh_units_size_text(uint64_t octets, char text[BH_UNITS_TEXT_MAX]);
const char *bh_units_rate_text(struct bh_rate rate, char text[BH_UNITS_TEXT_MAX]);
const char *bh_units_date_text(int64_t end_unix_ms, char text[BH_UNITS_TEXT_MAX]);

/** Is `candidate` near enough to what was written to be meant? Edits: insert, delete, replace,
 * swap.
 * @return the distance, or UINT_MAX if too far */
unsigned bh_units_distance(struct bh_slice written, struct bh_slice candidate);
