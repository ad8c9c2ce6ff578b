/* Threads as fibers, one at a time. A thread runs until it waits (for a condition, a loop's next
 * event, another's end, the disk), and sometimes lets another go first after it has unlocked a
 * mutex: which one goes next is the seed's choice. No fiber is ever put aside with a mutex locked,
 * but for a condition, which gives it back. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "bh/assert.h"
#include "core.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old,
                                     size_t *size_old);
void __asan_unpoison_memory_region(void const volatile *p, size_t size);
#endif

#define STACK_BYTES ((size_t)1 << 20)
#define FIBERS_MAX 256

struct fiber {
    ucontext_t context;
    void *fake_stack;
    char *stack;
    void *(*run)(void *);
    void *arg;
    bool used, runnable, done, joined;
    const void *waits_for; /* a condition or a fiber; NULL: anything */
    bool timed_out;
    struct sim_event alarm;
};

static struct fibers {
    struct fiber all[FIBERS_MAX];
    size_t count; /* places ever used in this process life */
    struct fiber *current;
    ucontext_t main;
    void *main_fake_stack;
    const void *main_bottom;
    size_t main_size;
    bool died;
    int status;
    uint32_t preempt;
} f;

/* ---- switching ---- */

static void to_fiber(struct fiber *to)
{
    f.current = to;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&f.main_fake_stack, to->stack, STACK_BYTES);
#endif
    swapcontext(&f.main, &to->context);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(f.main_fake_stack, NULL, NULL);
#endif
    f.current = NULL;
}

/* @param gone  it will not come back */
static void to_main(struct fiber *from, bool gone)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(gone ? NULL : &from->fake_stack, f.main_bottom, f.main_size);
#else
    (void)gone;
#endif
    swapcontext(&from->context, &f.main);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, &f.main_bottom, &f.main_size);
#endif
}

static void wake_joiners(const struct fiber *ended)
{
    for (size_t i = 0; i < f.count; i++) {
        if (f.all[i].used && f.all[i].waits_for == ended) {
            fiber_wake(&f.all[i]);
        }
    }
}

static void begin(void)
{
    struct fiber *me = f.current;
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &f.main_bottom, &f.main_size);
#endif
    me->run(me->arg);
    me->done = true;
    wake_joiners(me);
    to_main(me, true);
    abort();
}

static void ring_alarm(void *ctx)
{
    struct fiber *me = ctx;
    me->timed_out = true;
    fiber_wake(me);
}

struct fiber *fiber_create(void *(*run)(void *), void *arg)
{
    size_t i = 0;
    while (i < FIBERS_MAX && f.all[i].used) {
        i++;
    }
    BH_ASSERT(i < FIBERS_MAX);
    f.count = i >= f.count ? i + 1 : f.count;
    struct fiber *made = &f.all[i];
    char *stack = made->stack;
    if (stack == NULL) {
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        BH_ASSERT(stack != MAP_FAILED);
    }
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(stack, STACK_BYTES); /* of one that died with frames on it */
#endif
    *made = (struct fiber){.stack = stack, .run = run, .arg = arg, .used = true, .runnable = true};
    made->alarm = (struct sim_event){.fn = ring_alarm, .ctx = made};
    getcontext(&made->context);
    made->context.uc_stack.ss_sp = stack;
    made->context.uc_stack.ss_size = STACK_BYTES;
    made->context.uc_link = NULL;
    makecontext(&made->context, begin, 0);
    return made;
}

struct fiber *fiber_current(void)
{
    return f.current;
}

bool fiber_step(void)
{
    size_t ready = 0;
    BH_ASSERT(f.current == NULL);
    for (size_t i = 0; i < f.count; i++) {
        ready += f.all[i].used && f.all[i].runnable && !f.all[i].done ? 1 : 0;
    }
    if (ready == 0 || f.died) {
        return false;
    }
    size_t pick = ready > 1 ? (size_t)bh_rng_below(sim_rng(CHANCE_THREADS), ready) : 0;
    for (size_t i = 0; i < f.count; i++) {
        struct fiber *one = &f.all[i];
        if (one->used && one->runnable && !one->done && pick-- == 0) {
            sim_digest_add(i);
            to_fiber(one);
            break;
        }
    }
    return true;
}

void fiber_wait(void)
{
    struct fiber *me = f.current;
    BH_ASSERT(me != NULL);
    me->runnable = false;
    to_main(me, false);
}

void fiber_wake(struct fiber *one)
{
    one->runnable = true;
}

/* Others may go first; this one goes on when its turn comes. */
static void yield(void)
{
    to_main(f.current, false);
}

void fiber_sleep(uint64_t us)
{
    struct fiber *me = f.current;
    me->timed_out = false;
    sim_event_at(&me->alarm, sim_now_us() + us);
    while (!me->timed_out) {
        fiber_wait();
    }
}

_Noreturn void fiber_die(int status)
{
    BH_ASSERT(f.current != NULL);
    f.died = true;
    f.status = status;
    to_main(f.current, true);
    abort();
}

bool fiber_died(int *status)
{
    *status = f.status;
    return f.died;
}

void fiber_kill_all(void)
{
    BH_ASSERT(f.current == NULL);
    for (size_t i = 0; i < f.count; i++) {
        sim_event_cancel(&f.all[i].alarm);
        f.all[i].used = false;
    }
    f.count = 0;
    f.died = false;
    f.status = 0;
}

void fiber_set_preempt(uint32_t permille)
{
    f.preempt = permille;
}

/* ---- what daemon code calls ---- */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_sched_yield(void);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    (void)attr;
    struct fiber *made = fiber_create(run, arg);
    memcpy(thread, &made, sizeof(made));
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    struct fiber *other = NULL;
    memcpy(&other, &thread, sizeof(other));
    (void)result;
    struct fiber *me = f.current;
    me->waits_for = other;
    while (!other->done) {
        fiber_wait();
    }
    me->waits_for = NULL;
    other->used = false;
    return 0;
}

/* The simulator's own lock, in the first octets of the mutex: is it locked? */
static bool *locked(pthread_mutex_t *mutex)
{
    return (bool *)(void *)mutex;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    BH_ASSERT(!*locked(mutex)); /* nobody is put aside while it is locked */
    *locked(mutex) = true;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    BH_ASSERT(*locked(mutex));
    *locked(mutex) = false;
    if (f.current != NULL && !memory_is_foreign() && sim_chance(CHANCE_THREADS, f.preempt)) {
        yield();
    }
    return 0;
}

static int wait_on(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    struct fiber *me = f.current;
    me->waits_for = cond;
    *locked(mutex) = false;
    fiber_wait();
    while (*locked(mutex)) {
        yield();
    }
    *locked(mutex) = true;
    me->waits_for = NULL;
    return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    return wait_on(cond, mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    struct fiber *me = f.current;
    me->timed_out = false;
    sim_event_at(&me->alarm,
                 (uint64_t)until->tv_sec * SIM_SECOND + ((uint64_t)until->tv_nsec + 999) / 1000);
    wait_on(cond, mutex);
    sim_event_cancel(&me->alarm);
    return me->timed_out ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    for (size_t i = 0; i < f.count; i++) {
        if (f.all[i].used && f.all[i].waits_for == cond) {
            fiber_wake(&f.all[i]);
        }
    }
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    for (size_t i = 0; i < f.count; i++) {
        if (f.all[i].used && f.all[i].waits_for == cond && !f.all[i].runnable) {
            fiber_wake(&f.all[i]);
            break;
        }
    }
    return 0;
}

int __wrap_sched_yield(void)
{
    yield();
    return 0;
}
