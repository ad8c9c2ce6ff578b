/* The file of who was in flight, as an earlier process left it or anybody made it. Whatever it
 * holds: opening it gives only slots that could have been written, and never more than it has; and
 * what is written after it was made anew is what the next process reads. */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/inflight.h"
#include "bh/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOTS 8U
#define THREADS 3U

static struct bh_inflight *open_file(const char *path)
{
    struct bh_inflight *f = NULL;
    BH_ASSERT(bh_inflight_open(path, SLOTS, THREADS, &f) == BH_OK);
    return f;
}

static void check_left(const struct bh_inflight *f, size_t size)
{
    size_t slots = 0;
    size_t threads = 0;
    const struct bh_inflight_slot *left = bh_inflight_left(f, &slots);
    const struct bh_handling *handling = bh_inflight_left_handling(f, &threads);
    BH_ASSERT(64 * (slots + threads) <= size);
    for (size_t i = 0; i < slots; i++) {
        BH_ASSERT(left[i].state == BH_INFLIGHT_LEASED || left[i].state == BH_INFLIGHT_DOT_SENT);
    }
    for (size_t i = 0; i < threads; i++) {
        BH_ASSERT(handling[i].step > BH_HANDLING_NOTHING && handling[i].step <= BH_HANDLING_REPORT);
    }
}

static struct bh_inflight_slot slot_of(uint8_t octet)
{
    return (struct bh_inflight_slot){.state = BH_INFLIGHT_LEASED,
                                     .key = {.destination = octet, .id = 1000U + octet, .part = 3},
                                     .mask = {octet, ~(uint64_t)octet}};
}

/* Octets as what sessions did: each takes a slot, and its dot is sent or not. */
static size_t use(struct bh_inflight *f, const uint8_t *data, size_t size)
{
    size_t used = 0;
    for (; used < size && used < SLOTS; used++) {
        const struct bh_inflight_slot slot = slot_of(data[used]);
        const uint32_t at = bh_inflight_take(f);
        BH_ASSERT(at < SLOTS);
        bh_inflight_set(f, at, &slot);
        if ((data[used] & 1) != 0) {
            bh_inflight_dot_sent(f, at);
        }
    }
    bh_inflight_handling(f, 1, BH_HANDLING_SEND, size);
    return used;
}

static void read_back(const struct bh_inflight *f, const uint8_t *data, size_t used, size_t size)
{
    size_t slots = 0;
    size_t threads = 0;
    const struct bh_inflight_slot *left = bh_inflight_left(f, &slots);
    const struct bh_handling *handling = bh_inflight_left_handling(f, &threads);
    BH_ASSERT(slots == used && threads == 1);
    BH_ASSERT(handling[0].step == BH_HANDLING_SEND && handling[0].id == size);
    for (size_t i = 0; i < slots; i++) {
        const struct bh_inflight_slot want = slot_of(data[i]);
        BH_ASSERT(left[i].state ==
                  ((data[i] & 1) != 0 ? BH_INFLIGHT_DOT_SENT : BH_INFLIGHT_LEASED));
        BH_ASSERT(left[i].key.destination == want.key.destination &&
                  left[i].key.id == want.key.id && left[i].key.part == want.key.part);
        BH_ASSERT(left[i].mask[0] == want.mask[0] && left[i].mask[1] == want.mask[1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    bh_log_set_level((enum bh_log_level)0);
    const int fd = memfd_create("inflight", MFD_CLOEXEC);
    BH_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct bh_inflight *f = open_file(path);
    check_left(f, size);
    BH_ASSERT(bh_inflight_clear(f) == BH_OK);
    const size_t used = use(f, data, size);
    bh_inflight_close(f); /* The file stays, as after the death of the process. */
    f = open_file(path);
    read_back(f, data, used, size);
    bh_inflight_close(f);
    close(fd);
    return 0;
}
