#include "memory_idle.h"

#include <malloc.h>

#include "bh/log.h"

#define LOOK_MS 60000
#define FREE_MOST ((size_t)24 << 20) /* octets that may lie idle, for the next peak */

static void on_timer(uv_timer_t *timer)
{
    (void)timer;
#ifdef __GLIBC__
    const struct mallinfo2 info = mallinfo2();
    if (info.fordblks > FREE_MOST && malloc_trim(0) == 1) {
        bh_log(BH_LOG_DEBUG, "evt=memory_given_back idle=%zu used=%zu", info.fordblks,
               info.uordblks);
    }
#endif
}

void memory_idle_watch(uv_loop_t *loop, uv_timer_t *timer)
{
    uv_timer_init(loop, timer);
    uv_timer_start(timer, on_timer, LOOK_MS, LOOK_MS);
    uv_unref((uv_handle_t *)timer);
}
