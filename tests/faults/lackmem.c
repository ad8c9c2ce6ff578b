/* lackmem.c - in front of the daemon (LD_PRELOAD): memory runs out for a while. The file that
 * BH_LACKMEM names holds a number of eight octets, in native order, which may be changed at any
 * time: one allocation in so many fails, whoever asks, in our code or in a library; 0: none does.
 * The second eight octets count the failures. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);

struct shared {
    _Atomic uint64_t one_in;
    _Atomic uint64_t failed;
};

static struct shared *shared;
static atomic_uint_least64_t state = 88172645463325252; /* of the random numbers */

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("BH_LACKMEM");
    const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *map = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) {
        abort();
    }
    shared = map;
}

/* Numbers that differ between threads that race are as good. */
static uint64_t next_random(void)
{
    uint64_t x = atomic_load_explicit(&state, memory_order_relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    atomic_store_explicit(&state, x, memory_order_relaxed);
    return x;
}

static int fails(void)
{
    const uint64_t one_in =
        shared != NULL ? atomic_load_explicit(&shared->one_in, memory_order_relaxed) : 0;
    if (one_in == 0 || next_random() % one_in != 0) {
        return 0;
    }
    atomic_fetch_add(&shared->failed, 1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return size > 0 && fails() ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void **memory, size_t align, size_t size)
{
    void *at = fails() ? NULL : __libc_memalign(align, size);
    if (at == NULL) {
        return ENOMEM;
    }
    *memory = at;
    return 0;
}

void *aligned_alloc(size_t align, size_t size)
{
    return fails() ? NULL : __libc_memalign(align, size);
}
