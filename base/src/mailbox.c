#include "bh/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "bh/assert.h"

struct bh_mailbox {
    pthread_mutex_t lock;
    pthread_cond_t posted;
    struct bh_letter *first;
    struct bh_letter **last;
    size_t entries; /* letters and reservations */
    size_t bytes;
    size_t letters, letter_bytes; /* of these, without reservations */
    size_t entries_max;
    size_t bytes_max;
    bool waiting; /* the reader sleeps in bh_mailbox_wait */
    void (*ring)(void *ctx);
    void *ctx;
};

struct bh_mailbox *bh_mailbox_create(size_t entries, size_t bytes, void (*ring)(void *ctx),
                                     void *ctx)
{
    struct bh_mailbox *box = calloc(1, sizeof(*box));
    if (box == NULL) {
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->posted, &attr);
    pthread_condattr_destroy(&attr);
    box->last = &box->first;
    box->entries_max = entries;
    box->bytes_max = bytes;
    box->ring = ring;
    box->ctx = ctx;
    return box;
}

void bh_mailbox_destroy(struct bh_mailbox *box)
{
    if (box != NULL) {
        pthread_cond_destroy(&box->posted);
        pthread_mutex_destroy(&box->lock);
        free(box);
    }
}

/* With the lock held; gives it back. The bell rings only for the first letter of a batch: whoever
 * drains takes all. */
static void append_and_unlock(struct bh_mailbox *box, struct bh_letter *letter)
{
    const bool was_empty = box->first == NULL;
    letter->next = NULL;
    *box->last = letter;
    box->last = &letter->next;
    box->letters++;
    box->letter_bytes += letter->bytes;
    if (box->waiting) {
        pthread_cond_signal(&box->posted);
    }
    pthread_mutex_unlock(&box->lock);
    if (was_empty && box->ring != NULL) {
        box->ring(box->ctx);
    }
}

static bool fits(const struct bh_mailbox *box, size_t bytes)
{
    /* A letter larger than the whole bound may pass alone, or it could never pass. */
    return box->entries < box->entries_max &&
           (box->entries == 0 || box->bytes + bytes <= box->bytes_max);
}

enum bh_status bh_mailbox_post(struct bh_mailbox *box, struct bh_letter *letter)
{
    pthread_mutex_lock(&box->lock);
    if (!fits(box, letter->bytes)) {
        pthread_mutex_unlock(&box->lock);
        return BH_EFULL;
    }
    box->entries++;
    box->bytes += letter->bytes;
    append_and_unlock(box, letter);
    return BH_OK;
}

enum bh_status bh_mailbox_reserve(struct bh_mailbox *box, size_t bytes)
{
    enum bh_status status = BH_EFULL;
    pthread_mutex_lock(&box->lock);
    if (fits(box, bytes)) {
        box->entries++;
        box->bytes += bytes;
        status = BH_OK;
    }
    pthread_mutex_unlock(&box->lock);
    return status;
}

void bh_mailbox_post_reserved(struct bh_mailbox *box, struct bh_letter *letter, size_t bytes)
{
    pthread_mutex_lock(&box->lock);
    BH_ASSERT(box->entries > 0 && box->bytes >= bytes);
    box->bytes = box->bytes - bytes + letter->bytes;
    append_and_unlock(box, letter);
}

void bh_mailbox_unreserve(struct bh_mailbox *box, size_t bytes)
{
    pthread_mutex_lock(&box->lock);
    BH_ASSERT(box->entries > 0 && box->bytes >= bytes);
    box->entries--;
    box->bytes -= bytes;
    pthread_mutex_unlock(&box->lock);
}

void bh_mailbox_post_always(struct bh_mailbox *box, struct bh_letter *letter)
{
    pthread_mutex_lock(&box->lock);
    box->entries++;
    box->bytes += letter->bytes;
    append_and_unlock(box, letter);
}

struct bh_letter *bh_mailbox_take_all(struct bh_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct bh_letter *letters = box->first;
    BH_ASSERT(box->entries >= box->letters && box->bytes >= box->letter_bytes);
    box->entries -= box->letters; /* not one by one: who posts waits for the lock meanwhile */
    box->bytes -= box->letter_bytes;
    box->letters = 0;
    box->letter_bytes = 0;
    box->first = NULL;
    box->last = &box->first;
    pthread_mutex_unlock(&box->lock);
    return letters;
}

bool bh_mailbox_wait(struct bh_mailbox *box, uint64_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms != UINT64_MAX) {
        const uint64_t ns = (uint64_t)until.tv_nsec + timeout_ms % 1000 * 1000000;
        until.tv_sec += (time_t)(timeout_ms / 1000 + ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
    }
    pthread_mutex_lock(&box->lock);
    box->waiting = true;
    int error = 0;
    while (box->first == NULL && error != ETIMEDOUT) {
        error = timeout_ms == UINT64_MAX ? pthread_cond_wait(&box->posted, &box->lock)
                                         : pthread_cond_timedwait(&box->posted, &box->lock, &until);
    }
    box->waiting = false;
    const bool any = box->first != NULL;
    pthread_mutex_unlock(&box->lock);
    return any;
}

void bh_mailbox_load(struct bh_mailbox *box, size_t *entries, size_t *bytes)
{
    pthread_mutex_lock(&box->lock);
    *entries = box->entries;
    *bytes = box->bytes;
    pthread_mutex_unlock(&box->lock);
}
