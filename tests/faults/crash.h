/* crash.h - in front of the worker's source: with BH_FAULT_CRASH_SENDING the process dies when it
 * begins to send any message, as soon as that is written down. For tests alone. */
#pragma once

#define bh_inflight_handling fault_inflight_handling
