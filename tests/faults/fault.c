#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bh/inflight.h"
#include "bh/queue.h"
#include "bh/rng.h"

/* Neither fault.h, crash.h nor clock.h: here the real ones are meant. */
int fault_clock_gettime(clockid_t clock, struct timespec *time);
void *fault_malloc(size_t size);
void *fault_calloc(size_t count, size_t size);
void fault_inflight_handling(struct bh_inflight *f, uint32_t thread, enum bh_handling_step step,
                             uint64_t id);
enum bh_status fault_queue_settle(struct bh_queue *q, struct bh_kv_txn *txn,
                                  const struct bh_settle *settle,
                                  const struct bh_queue_notifier *notifier,
                                  struct bh_settle_result *result);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bh_rng rng;
static unsigned long one_in;
static unsigned long failed;
static bool begun;

static unsigned long number_of(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 10) : 0;
}

static void tell(void)
{
    fprintf(stderr, "evt=faults failed=%lu\n", failed);
}

static bool fails(void)
{
    pthread_mutex_lock(&lock);
    if (!begun) {
        begun = true;
        one_in = number_of("BH_FAULT_ONE_IN");
        bh_rng_seed(&rng, number_of("BH_FAULT_SEED"));
        (void)atexit(tell);
    }
    const bool fail = one_in > 0 && bh_rng_below(&rng, one_in) == 0;
    failed += fail ? 1 : 0;
    pthread_mutex_unlock(&lock);
    return fail;
}

int fault_clock_gettime(clockid_t clock, struct timespec *time)
{
    const char *path = getenv("BH_FAULT_CLOCK");
    FILE *file = path != NULL && clock == CLOCK_REALTIME ? fopen(path, "r") : NULL;
    const int result = clock_gettime(clock, time);
    char text[32] = "";
    if (file != NULL) {
        if (fgets(text, sizeof(text), file) != NULL) {
            time->tv_sec += strtol(text, NULL, 10);
        }
        fclose(file);
    }
    return result;
}

void *fault_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *fault_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

void fault_inflight_handling(struct bh_inflight *f, uint32_t thread, enum bh_handling_step step,
                             uint64_t id)
{
    bh_inflight_handling(f, thread, step, id);
    if (step == BH_HANDLING_SEND && getenv("BH_FAULT_CRASH_SENDING") != NULL) {
        _exit(70); /* a crash as the next process sees it: nothing was tidied up */
    }
    /* A failed assertion in a step of intake. */
    const char *ends = getenv("BH_FAULT_CRASH_INTAKE");
    if (ends != NULL && step == BH_HANDLING_RECEIVE && strcmp(ends, "hang") == 0) {
        fprintf(stderr, "evt=fault_hangs\n");
        while (true) {
            (void)pause();
        }
    }
    if (ends != NULL && ((step == BH_HANDLING_RECEIVE && strcmp(ends, "receive") == 0) ||
                         (step == BH_HANDLING_STORE && strcmp(ends, "store") == 0))) {
        abort();
    }
}

enum bh_status fault_queue_settle(struct bh_queue *q, struct bh_kv_txn *txn,
                                  const struct bh_settle *settle,
                                  const struct bh_queue_notifier *notifier,
                                  struct bh_settle_result *result)
{
    const char *fault = getenv("BH_FAULT_SETTLE");
    if (fault != NULL) {
        return strcmp(fault, "full") == 0 ? BH_EFULL : BH_ECORRUPT;
    }
    return bh_queue_settle(q, txn, settle, notifier, result);
}
