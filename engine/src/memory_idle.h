/* memory_idle.h - memory that nobody uses goes back to the system.
 *
 * Content is read by one thread and freed by another, in pieces of all sizes: after a peak (a
 * partner that comes back to a long queue) the allocator keeps most of what it had. */
#pragma once

#include <uv.h>

/** Look once a minute, on this loop; the timer's handle is closed by whoever ends the loop. */
void memory_idle_watch(uv_loop_t *loop, uv_timer_t *timer);
