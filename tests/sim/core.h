/* core.h - the machine that a simulated daemon runs on: a virtual clock, one queue of events,
 * threads that are fibers, memory that dies with its process. All of it on one real thread, and all
 * of it decided by one seed.
 *
 * Two kinds of code run here. *Daemon code* runs on fibers and calls pthread, libuv, malloc, the
 * clock and so on; the linker hands these calls to this folder (--wrap, or a function of the same
 * name that is found first). *Simulator code* runs on the main stack, from events. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bh/rng.h"
#include "bh/slice.h"
#include "bh/status.h"

#define SIM_US 1
#define SIM_MS UINT64_C(1000)
#define SIM_SECOND (1000 * SIM_MS)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_HOUR (60 * SIM_MINUTE)

/* ---- the clock and what is to happen (clock.c) ---- */

typedef void sim_fn(void *ctx);

struct sim_event {
    uint64_t at_us, order; /* private */
    size_t index;          /* private: place in the heap + 1; 0: not waiting */
    sim_fn *fn;
    void *ctx;
    bool once; /* made by sim_after: freed when it has run */
    bool owns; /* its ctx, too, if it never runs */
};

/** Microseconds since the machine was switched on. */
uint64_t sim_now_us(void);
/** The wall clock, which may be wrong. */
int64_t sim_unix_ms(void);
/** The wall clock jumps. */
void sim_step_wall(int64_t by_ms);
/** Let it happen at a time, once; moved if it waits already. Its fn and ctx are set. */
void sim_event_at(struct sim_event *event, uint64_t at_us);
void sim_event_cancel(struct sim_event *event);
/** An event of its own, `delay_us` from now. */
void sim_after(uint64_t delay_us, sim_fn *fn, void *ctx);
/** The same; ctx is fn's to free, or goes with the clock if it never runs. */
void sim_after_own(uint64_t delay_us, sim_fn *fn, void *ctx);
/** The next event happens, and the clock moves to it. @return false: there is none */
bool sim_next_event(void);
/** When it would; UINT64_MAX: never. */
uint64_t sim_next_at_us(void);
void sim_clock_reset(uint64_t seed);

/* ---- chance: streams of their own, so that one more question here changes nothing there ---- */

enum sim_chance {
    CHANCE_THREADS,
    CHANCE_WORLD,
    CHANCE_NET,
    CHANCE_DISK,
    CHANCE_PARTNER,
    CHANCE_SENDER,
    CHANCE_DNS,
    CHANCE_OPERATOR,
    CHANCE_DAEMON,
    CHANCE_WIDER, /* what a world has beside the plain */
    CHANCE_PUBLISHED,
    CHANCE_AUTH,
    CHANCE_COUNT
};
struct bh_rng *sim_rng(enum sim_chance which);
/** True in `permille` of 1000 cases. */
bool sim_chance(enum sim_chance which, uint32_t permille);
/** Uniform in [low, high]. */
uint64_t sim_range(enum sim_chance which, uint64_t low, uint64_t high);

/* ---- threads (fiber.c) ---- */

struct fiber;

/** A thread of the daemon begins. */
struct fiber *fiber_create(void *(*run)(void *), void *arg);
/** The running one; NULL: simulator code. */
struct fiber *fiber_current(void);
/** Simulator code: one that can run does, until it waits. @return false: none can */
bool fiber_step(void);
/** Daemon code: wait until fiber_wake. */
void fiber_wait(void);
void fiber_wake(struct fiber *f);
/** Daemon code: let some time pass. */
void fiber_sleep(uint64_t us);
/** Daemon code: the whole process dies here. Never returns. */
_Noreturn void fiber_die(int status);
/** Simulator code: all fibers are gone, and never run again. */
void fiber_kill_all(void);
/** Whether a fiber asked for the end of the process since the last fiber_kill_all, and how. */
bool fiber_died(int *status);
/** One wake in how many permille lets another thread go first. */
void fiber_set_preempt(uint32_t permille);

/* ---- memory (memory.c) ---- */

/** Memory of the simulator: never the daemon's, whoever calls. Ends the program when there is none.
 */
void *sim_alloc(size_t size);
void *sim_grow(void *old, size_t size);
void sim_free(void *p);
/** Between these two what is allocated is not the daemon's (the disk's contents, say). They nest.
 */
void memory_foreign_begin(void);
void memory_foreign_end(void);
bool memory_is_foreign(void);
size_t memory_live_bytes(void); /* of the daemon */
size_t memory_live_count(void);
size_t memory_peak_bytes(void); /* since the process began */
/** The process is gone, and its memory with it. */
void memory_drop_all(void);
/** For a leak that was found: the sizes of what is left, and where it was asked for (for
 * addr2line). */
void memory_describe(char *text, size_t cap);

/* ---- what is said (say.c) ---- */

extern bool sim_tracing;
/** A line of the trace, with time and step. Costs nothing unless it is on. */
#define sim_trace(...)               \
    do {                             \
        if (sim_tracing) {           \
            sim_trace_(__VA_ARGS__); \
        }                            \
    } while (0)
void sim_trace_(const char *format, ...) BH_PRINTF(1, 2);
/** A promise is broken: says so, with seed and step, and leaves the seed. Any code; returns to
 * daemon code only as a fiber that never runs again. */
_Noreturn void sim_fail(const char *format, ...) BH_PRINTF(1, 2);
/** Digest of everything that was traced or would have been: two runs of a seed have the same. */
uint64_t sim_digest(void);
void sim_digest_add(uint64_t value);
extern uint64_t sim_seed, sim_step;
