/* exhaust.h - the n-th allocation from now on fails. For one test file a program, which
 * bh_exhaust() of CMake links so that the program's own allocations come here; those of shared
 * libraries do not. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* left: allocations up to the one that fails; 0: none will */
static struct {
    unsigned long left;
    bool fired;
} exhaust;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static inline bool exhaust_now(void)
{
    if (exhaust.left == 0 || --exhaust.left > 0) {
        return false;
    }
    exhaust.fired = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return exhaust_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return exhaust_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return exhaust_now() ? NULL : __real_realloc(old, size);
}

static inline void exhaust_at(unsigned long n)
{
    exhaust.left = n;
    exhaust.fired = false;
}

/* @return whether one has failed since */
static inline bool exhaust_end(void)
{
    exhaust.left = 0;
    return exhaust.fired;
}
