/* Memory with an owner. What daemon code allocates is listed, so that it can die with its process,
 * so that leaks show when a process ends in good order, and so that promise 5 can be measured. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *p);
char *__real_strdup(const char *text);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *p);
char *__wrap_strdup(const char *text);

struct place {
    void *p; /* NULL: empty */
    size_t size;
    const char *by; /* who asked */
};

static struct memory {
    struct place *table; /* open addressing */
    size_t mask, count;
    size_t live, peak;
    unsigned foreign;
} m;

/* ---- the list ---- */

static size_t home(const void *p)
{
    return (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & m.mask;
}

static size_t find(const void *p)
{
    size_t i = home(p);
    while (m.table[i].p != NULL && m.table[i].p != p) {
        i = (i + 1) & m.mask;
    }
    return i;
}

static void widen(void)
{
    struct place *old = m.table;
    const size_t old_size = old != NULL ? m.mask + 1 : 0;
    const size_t size = old_size > 0 ? old_size * 2 : 4096;
    m.table = __real_calloc(size, sizeof(*m.table));
    if (m.table == NULL) {
        abort();
    }
    m.mask = size - 1;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].p != NULL) {
            m.table[find(old[i].p)] = old[i];
        }
    }
    __real_free(old);
}

static void note(void *p, size_t size, const char *by)
{
    if (m.table == NULL || m.count > m.mask / 2) {
        widen();
    }
    m.table[find(p)] = (struct place){p, size, by};
    m.count++;
    m.live += size;
    m.peak = m.live > m.peak ? m.live : m.peak;
}

static void forget(const void *p)
{
    size_t hole = m.table != NULL ? find(p) : 0;
    if (m.table == NULL || m.table[hole].p == NULL) {
        return; /* not the daemon's */
    }
    m.count--;
    m.live -= m.table[hole].size;
    for (size_t i = (hole + 1) & m.mask; m.table[i].p != NULL; i = (i + 1) & m.mask) {
        if (((i - home(m.table[i].p)) & m.mask) >= ((i - hole) & m.mask)) {
            m.table[hole] = m.table[i];
            hole = i;
        }
    }
    m.table[hole] = (struct place){0};
}

static void *owned(void *p, size_t size, const char *by)
{
    if (p != NULL && m.foreign == 0 && fiber_current() != NULL) {
        note(p, size, by);
    }
    return p;
}

/* ---- what daemon code calls ---- */

#define BY ((const char *)__builtin_return_address(0))
extern const char __executable_start[];

void *__wrap_malloc(size_t size)
{
    return owned(__real_malloc(size), size, BY);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return owned(__real_calloc(count, size), count * size, BY);
}

void *__wrap_realloc(void *old, size_t size)
{
    if (old != NULL) {
        forget(old);
    }
    return owned(__real_realloc(old, size), size, BY);
}

void __wrap_free(void *p)
{
    if (p != NULL) {
        forget(p);
        __real_free(p);
    }
}

char *__wrap_strdup(const char *text)
{
    return owned(__real_strdup(text), strlen(text) + 1, BY);
}

/* ---- the simulator's own ---- */

void *sim_alloc(size_t size)
{
    return sim_grow(NULL, size);
}

void *sim_grow(void *old, size_t size)
{
    void *p = old == NULL ? __real_calloc(1, size) : __real_realloc(old, size);
    if (p == NULL) {
        abort();
    }
    return p;
}

void sim_free(void *p)
{
    __real_free(p);
}

void memory_foreign_begin(void)
{
    m.foreign++;
}

void memory_foreign_end(void)
{
    m.foreign--;
}

bool memory_is_foreign(void)
{
    return m.foreign > 0;
}

size_t memory_live_bytes(void)
{
    return m.live;
}

size_t memory_live_count(void)
{
    return m.count;
}

size_t memory_peak_bytes(void)
{
    return m.peak;
}

void memory_drop_all(void)
{
    for (size_t i = 0; m.table != NULL && i <= m.mask; i++) {
        __real_free(m.table[i].p);
        m.table[i] = (struct place){0};
    }
    m.count = 0;
    m.live = 0;
    m.peak = 0;
    m.foreign = 0;
}

void memory_describe(char *text, size_t cap)
{
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; m.table != NULL && i <= m.mask && len + 48 < cap; i++) {
        if (m.table[i].p != NULL) {
            len += (size_t)snprintf(text + len, cap - len, " %zu by +0x%zx", m.table[i].size,
                                    (size_t)(m.table[i].by - __executable_start));
        }
    }
}
