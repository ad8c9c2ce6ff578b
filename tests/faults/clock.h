/* clock.h - a wall clock that a test can set, for the variant of the daemon that tests/faults
 * makes: it stands in front of the file that reads it. The file that BH_FAULT_CLOCK names holds the
 * seconds to add; without it the clock is right. */
#pragma once

#include <time.h>

int fault_clock_gettime(clockid_t clock, struct timespec *time);

#define clock_gettime fault_clock_gettime
