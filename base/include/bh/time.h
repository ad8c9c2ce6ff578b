/* time.h - the time, as an argument. Cores never ask a clock. */
#pragma once

#include <stdint.h>

/** One instant on both clocks. Only wall time is ever stored. */
struct bh_now {
    uint64_t mono_ms; /* never steps; its zero means nothing */
    int64_t unix_ms;  /* wall clock; may step */
};

#define BH_SECOND_MS ((int64_t)1000)
#define BH_MINUTE_MS (60 * BH_SECOND_MS)
#define BH_HOUR_MS (60 * BH_MINUTE_MS)
#define BH_DAY_MS (24 * BH_HOUR_MS)
