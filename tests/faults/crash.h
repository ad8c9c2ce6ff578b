/* crash.h - in front of the worker's source: with BH_FAULT_CRASH_SENDING the process dies when it
 * begins to send any message, as soon as that is written down; with BH_FAULT_CRASH_INTAKE=receive
 * or store it aborts when it begins to parse content or to store it, with =hang the thread that
 * parses content stands still. For tests alone. */
#pragma once

#define bh_inflight_handling fault_inflight_handling
