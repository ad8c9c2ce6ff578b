/* fault.h - allocations that fail now and then: a variant of the daemon's wiring is built with this
 * header in front of each file (engine/daemon.cmake), for tests alone. BH_FAULT_ONE_IN says how
 * often, BH_FAULT_SEED in which order; without them nothing fails. */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#include "bh/queue.h"

/* BH_FAULT_SETTLE: "corrupt" or "full" is what each settle comes to. */
enum bh_status fault_queue_settle(struct bh_queue *q, struct bh_kv_txn *txn,
                                  const struct bh_settle *settle,
                                  const struct bh_queue_notifier *notifier,
                                  struct bh_settle_result *result);

void *fault_malloc(size_t size);
void *fault_calloc(size_t count, size_t size);

#define malloc fault_malloc
#define calloc fault_calloc
#define bh_queue_settle fault_queue_settle
