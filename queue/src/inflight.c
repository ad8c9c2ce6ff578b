/* The file: a header of 64 octets, then slots of 64, then handling slots of 64. Native byte order
 * and layout: it is read by the next process on the same machine, and is only a hint after power
 * loss.
 *
 * A slot is written by its owner alone. Its state is stored last, with release, so that whatever
 * state is read, what it speaks of is there; a process that dies halfway through leaves the slot
 * free. */
#include "bh/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"

#define MAGIC UINT64_C(0x62682d666c743031) /* "bh-flt01" */
#define SLOTS_MAX (1U << 20)
#define THREADS_MAX 1024U

struct header {
    uint64_t magic;
    uint32_t slots;
    uint32_t threads;
    atomic_uint_least32_t death; /* enum bh_death */
    uint32_t dying; /* the number of the thread that noted it, plus 1; 0: it has none */
    uint8_t unused[40];
};

struct slot {
    atomic_uint_least32_t state; /* enum bh_inflight_state, or SLOT_TAKEN */
    uint32_t destination;
    uint64_t id;
    uint64_t mask[2];
    uint16_t part;
    uint8_t unused[30];
};

struct handling {
    _Atomic uint64_t id;
    atomic_uint_least32_t step;
    uint8_t unused[48];
};

/* The number by which this thread handles messages, plus 1. */
static _Thread_local uint32_t handling_number;

#define SLOT_TAKEN 3 /* its owner has not set it yet: to the next process as free */

_Static_assert(sizeof(struct header) == 64, "one cache line");
_Static_assert(sizeof(struct slot) == 64, "one cache line");
_Static_assert(sizeof(struct handling) == 64, "one cache line");

struct bh_inflight {
    int fd;
    char *map;
    size_t map_len;
    struct slot *slots;
    struct handling *handling;
    uint32_t slot_count;
    uint32_t thread_count;
    bool clear;                   /* bh_inflight_clear was called */
    atomic_uint_least32_t search; /* where the next search for a free slot begins */
    struct bh_inflight_slot *left;
    size_t left_count;
    struct bh_handling *left_handling;
    size_t left_handling_count;
};

static enum bh_status system_error(const char *what)
{
    const int error = errno;
    if (error == ENOSPC || error == EDQUOT) {
        return BH_EFULL;
    }
    bh_log(BH_LOG_ERROR, "evt=inflight_error during=%s error=\"%s\"", what, strerror(error));
    return BH_EIO;
}

static bool read_at(int fd, void *to, size_t len, uint64_t offset)
{
    return pread(fd, to, len, (off_t)offset) == (ssize_t)len;
}

static void keep_slot(struct bh_inflight *f, const struct slot *slot)
{
    const uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (state == BH_INFLIGHT_LEASED || state == BH_INFLIGHT_DOT_SENT) {
        f->left[f->left_count++] = (struct bh_inflight_slot){
            .state = (enum bh_inflight_state)state,
            .key = {.destination = slot->destination, .id = slot->id, .part = slot->part},
            .mask = {slot->mask[0], slot->mask[1]},
        };
    }
}

static enum bh_blame blame_of(const struct header *header, uint32_t thread)
{
    switch (atomic_load(&header->death)) {
    case BH_DEATH_OWN: /* A thread without a number may have tripped over what another left. */
        return header->dying == 0            ? BH_BLAME_MAYBE
               : header->dying == thread + 1 ? BH_BLAME_LIKELY
                                             : BH_BLAME_NOT;
    case BH_DEATH_HUNG: /* Threads that go on are rarely caught in the middle of a step. */
        return BH_BLAME_LIKELY;
    default:
        return BH_BLAME_MAYBE;
    }
}

static void keep_handling(struct bh_inflight *f, const struct header *header, uint32_t thread,
                          const struct handling *handling)
{
    const uint32_t step = atomic_load(&handling->step);
    if (step != BH_HANDLING_NOTHING && step <= BH_HANDLING_REPORT) {
        f->left_handling[f->left_handling_count++] =
            (struct bh_handling){.step = (enum bh_handling_step)step,
                                 .blame = blame_of(header, thread),
                                 .id = atomic_load(&handling->id)};
    }
}

/* What a dead process left. A file that is too short, or no such file, says nothing. */
static enum bh_status read_left(struct bh_inflight *f)
{
    struct header header;
    struct stat st;
    if (!read_at(f->fd, &header, sizeof(header), 0) || header.magic != MAGIC ||
        header.slots > SLOTS_MAX || header.threads > THREADS_MAX || fstat(f->fd, &st) != 0 ||
        (uint64_t)st.st_size < 64 * (1 + (uint64_t)header.slots + header.threads)) {
        return BH_OK;
    }
    f->left = calloc((size_t)header.slots + 1, sizeof(*f->left));
    f->left_handling = calloc((size_t)header.threads + 1, sizeof(*f->left_handling));
    if (f->left == NULL || f->left_handling == NULL) {
        return BH_ENOMEM;
    }
    uint64_t offset = sizeof(header);
    for (uint32_t i = 0; i < header.slots; i++, offset += 64) {
        struct slot slot;
        if (!read_at(f->fd, &slot, sizeof(slot), offset)) {
            return system_error("read");
        }
        keep_slot(f, &slot);
    }
    for (uint32_t i = 0; i < header.threads; i++, offset += 64) {
        struct handling handling;
        if (!read_at(f->fd, &handling, sizeof(handling), offset)) {
            return system_error("read");
        }
        keep_handling(f, &header, i, &handling);
    }
    return BH_OK;
}

enum bh_status bh_inflight_open(const char *path, uint32_t slots, uint32_t threads,
                                struct bh_inflight **inflight)
{
    if (slots == 0 || slots > SLOTS_MAX || threads == 0 || threads > THREADS_MAX) {
        return BH_EINVAL;
    }
    struct bh_inflight *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return BH_ENOMEM;
    }
    f->slot_count = slots;
    f->thread_count = threads;
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const enum bh_status status = f->fd >= 0 ? read_left(f) : system_error("open");
    if (status != BH_OK) {
        bh_inflight_close(f);
        return status;
    }
    *inflight = f;
    return BH_OK;
}

void bh_inflight_close(struct bh_inflight *f)
{
    if (f == NULL) {
        return;
    }
    if (f->map != NULL) {
        munmap(f->map, f->map_len);
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    free(f->left);
    free(f->left_handling);
    free(f);
}

const struct bh_inflight_slot *bh_inflight_left(const struct bh_inflight *f, size_t *count)
{
    *count = f->left_count;
    return f->left;
}

const struct bh_handling *bh_inflight_left_handling(const struct bh_inflight *f, size_t *count)
{
    *count = f->left_handling_count;
    return f->left_handling;
}

enum bh_status bh_inflight_clear(struct bh_inflight *f)
{
    BH_ASSERT(!f->clear);
    f->map_len = 64 * (1 + (size_t)f->slot_count + f->thread_count);
    if (ftruncate(f->fd, 0) != 0) {
        return system_error("truncate");
    }
    /* Blocks now: a store into a map with no block behind it, on a full disk, ends the process. */
    const int error = posix_fallocate(f->fd, 0, (off_t)f->map_len);
    if (error != 0) {
        errno = error;
        return system_error("allocate");
    }
    void *map = mmap(NULL, f->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED) {
        return system_error("map");
    }
    f->map = map;
    f->slots = (struct slot *)(void *)(f->map + sizeof(struct header));
    f->handling = (struct handling *)(void *)(f->slots + f->slot_count);
    struct header *header = (struct header *)(void *)f->map;
    header->slots = f->slot_count;
    header->threads = f->thread_count;
    atomic_thread_fence(memory_order_release);
    header->magic = MAGIC;
    f->left_count = 0;
    f->left_handling_count = 0;
    f->clear = true;
    return BH_OK;
}

uint32_t bh_inflight_take(struct bh_inflight *f)
{
    BH_ASSERT(f->clear);
    const uint32_t start =
        atomic_fetch_add_explicit(&f->search, 1, memory_order_relaxed) % f->slot_count;
    for (uint32_t i = 0; i < f->slot_count; i++) {
        const uint32_t at = (start + i) % f->slot_count;
        uint_least32_t expected = BH_INFLIGHT_FREE;
        if (atomic_compare_exchange_strong_explicit(&f->slots[at].state, &expected, SLOT_TAKEN,
                                                    memory_order_acquire, memory_order_relaxed)) {
            return at;
        }
    }
    return UINT32_MAX;
}

void bh_inflight_set(struct bh_inflight *f, uint32_t slot, const struct bh_inflight_slot *value)
{
    BH_ASSERT(slot < f->slot_count);
    BH_ASSERT(value->state != BH_INFLIGHT_FREE);
    struct slot *at = &f->slots[slot];
    /* Not valid while it changes, should the process die between two stores. */
    atomic_store_explicit(&at->state, SLOT_TAKEN, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    at->destination = value->key.destination;
    at->id = value->key.id;
    at->part = value->key.part;
    at->mask[0] = value->mask[0];
    at->mask[1] = value->mask[1];
    atomic_store_explicit(&at->state, (uint_least32_t)value->state, memory_order_release);
}

void bh_inflight_dot_sent(struct bh_inflight *f, uint32_t slot)
{
    BH_ASSERT(slot < f->slot_count);
    BH_ASSERT(atomic_load(&f->slots[slot].state) == BH_INFLIGHT_LEASED);
    atomic_store_explicit(&f->slots[slot].state, BH_INFLIGHT_DOT_SENT, memory_order_release);
}

void bh_inflight_release(struct bh_inflight *f, uint32_t slot)
{
    BH_ASSERT(slot < f->slot_count);
    BH_ASSERT(atomic_load(&f->slots[slot].state) != BH_INFLIGHT_FREE);
    atomic_store_explicit(&f->slots[slot].state, BH_INFLIGHT_FREE, memory_order_release);
}

void bh_inflight_handling(struct bh_inflight *f, uint32_t thread, enum bh_handling_step step,
                          uint64_t id)
{
    BH_ASSERT(f->clear);
    BH_ASSERT(thread < f->thread_count);
    handling_number = thread + 1;
    struct handling *at = &f->handling[thread];
    atomic_store_explicit(&at->step, BH_HANDLING_NOTHING, memory_order_release);
    atomic_store_explicit(&at->id, id, memory_order_release);
    atomic_store_explicit(&at->step, (uint_least32_t)step, memory_order_release);
}

void bh_inflight_dying(struct bh_inflight *f, enum bh_death death)
{
    if (f->map == NULL) {
        return;
    }
    struct header *header = (struct header *)(void *)f->map;
    uint_least32_t expected = BH_DEATH_UNKNOWN;
    if (atomic_compare_exchange_strong(&header->death, &expected, (uint_least32_t)death)) {
        header->dying = handling_number;
    }
}
