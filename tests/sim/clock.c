/* Virtual time. A heap of events by time, then by the order in which they were asked for. */
#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>
#include <time.h>

#include "bh/assert.h"
#include "core.h"

#define START_US (1000 * SIM_SECOND)
#define START_UNIX_MS INT64_C(1767225600000) /* 2026-01-01 */

static struct clock {
    uint64_t now_us;
    int64_t wall_offset_ms; /* wall - monotonic */
    uint64_t order;
    struct sim_event **heap;
    size_t count, cap;
    struct bh_rng rng[CHANCE_COUNT];
} c;

uint64_t sim_now_us(void)
{
    return c.now_us;
}

int64_t sim_unix_ms(void)
{
    return (int64_t)(c.now_us / SIM_MS) + c.wall_offset_ms;
}

void sim_step_wall(int64_t by_ms)
{
    c.wall_offset_ms += by_ms;
    sim_trace("wall clock steps by %lld ms", (long long)by_ms);
}

/* ---- the heap ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void place(struct sim_event *e, size_t i)
{
    c.heap[i] = e;
    e->index = i + 1;
}

static void rise(size_t i)
{
    struct sim_event *e = c.heap[i];
    while (i > 0 && before(e, c.heap[(i - 1) / 2])) {
        place(c.heap[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    place(e, i);
}

static void sink(size_t i)
{
    struct sim_event *e = c.heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= c.count) {
            break;
        }
        if (child + 1 < c.count && before(c.heap[child + 1], c.heap[child])) {
            child++;
        }
        if (!before(c.heap[child], e)) {
            break;
        }
        place(c.heap[child], i);
        i = child;
    }
    place(e, i);
}

void sim_event_cancel(struct sim_event *event)
{
    if (event->index == 0) {
        return;
    }
    const size_t i = event->index - 1;
    event->index = 0;
    struct sim_event *last = c.heap[--c.count];
    if (last != event) {
        place(last, i);
        rise(i);
        sink(last->index - 1);
    }
}

void sim_event_at(struct sim_event *event, uint64_t at_us)
{
    sim_event_cancel(event);
    event->at_us = at_us > c.now_us ? at_us : c.now_us;
    event->order = c.order++;
    if (c.count == c.cap) {
        c.cap = c.cap > 0 ? c.cap * 2 : 256;
        c.heap = sim_grow(c.heap, c.cap * sizeof(struct sim_event *));
    }
    place(event, c.count++);
    rise(c.count - 1);
}

static void after(uint64_t delay_us, sim_fn *fn, void *ctx, bool owns)
{
    struct sim_event *event = sim_alloc(sizeof(*event));
    *event = (struct sim_event){.fn = fn, .ctx = ctx, .once = true, .owns = owns};
    sim_event_at(event, c.now_us + delay_us);
}

void sim_after(uint64_t delay_us, sim_fn *fn, void *ctx)
{
    after(delay_us, fn, ctx, false);
}

void sim_after_own(uint64_t delay_us, sim_fn *fn, void *ctx)
{
    after(delay_us, fn, ctx, true);
}

uint64_t sim_next_at_us(void)
{
    return c.count > 0 ? c.heap[0]->at_us : UINT64_MAX;
}

bool sim_next_event(void)
{
    if (c.count == 0) {
        return false;
    }
    struct sim_event *event = c.heap[0];
    sim_event_cancel(event);
    c.now_us = event->at_us;
    sim_digest_add(c.now_us);
    sim_fn *fn = event->fn;
    void *ctx = event->ctx;
    if (event->once) {
        sim_free(event);
    }
    fn(ctx);
    return true;
}

void sim_clock_reset(uint64_t seed)
{
    while (c.count > 0) {
        struct sim_event *event = c.heap[0];
        sim_event_cancel(event);
        if (event->owns) {
            sim_free(event->ctx);
        }
        if (event->once) {
            sim_free(event);
        }
    }
    c.now_us = START_US;
    c.wall_offset_ms = START_UNIX_MS - (int64_t)(START_US / SIM_MS);
    c.order = 0;
    for (size_t i = 0; i < CHANCE_COUNT; i++) {
        bh_rng_seed(&c.rng[i], seed * 1000003 + i);
    }
}

/* ---- chance ---- */

struct bh_rng *sim_rng(enum sim_chance which)
{
    return &c.rng[which];
}

bool sim_chance(enum sim_chance which, uint32_t permille)
{
    return permille > 0 && bh_rng_below(&c.rng[which], 1000) < permille;
}

uint64_t sim_range(enum sim_chance which, uint64_t low, uint64_t high)
{
    BH_ASSERT(low <= high);
    return low + bh_rng_below(&c.rng[which], high - low + 1);
}

/* ---- what the daemon asks the kernel ---- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    if (clock == CLOCK_REALTIME) {
        const int64_t ms = sim_unix_ms();
        out->tv_sec = (time_t)(ms / 1000);
        out->tv_nsec = (long)(ms % 1000 * 1000000 + (int64_t)(c.now_us % 1000) * 1000);
    } else {
        out->tv_sec = (time_t)(c.now_us / SIM_SECOND);
        out->tv_nsec = (long)(c.now_us % SIM_SECOND * 1000);
    }
    return 0;
}

ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < len; i++) {
        ((unsigned char *)out)[i] = (unsigned char)bh_rng_u64(&c.rng[CHANCE_DAEMON]);
    }
    return (ssize_t)len;
}
