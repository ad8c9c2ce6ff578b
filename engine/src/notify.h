/* notify.h - reports to senders, written inside the transaction that ends (or delays) a recipient:
 * the hook of the queue's settle, expiry, warning and job functions. Runs on the store's writer.
 *
 * A failure of mail from <> is a double bounce: its report goes to the configured postmaster, or,
 * without one or with `dead-letter hold`, is queued held for an operator. A report about such a
 * report is never made. */
#pragma once

#include "bh/queue.h"
#include "config_cell.h"

/* A message put by the hook; told to the engine after the commit. */
struct notify_made {
    struct notify_made *next;
    uint64_t id;
    uint64_t size;
    struct bh_slice domain, connector;
    struct bh_queue_part *parts;
    size_t part_count;
};

/** What one task of the writer needs for its reports. Not shared. */
struct notifier {
    struct config_cell *cell;
    struct bh_arena arena;   /* of what is made; reset by notifier_begin */
    struct bh_arena scratch; /* of one report */
    struct notify_made *made;
    struct bh_queue_notifier queue; /* to be handed to the queue's functions */
};

#define NOTIFIER_ARENA ((size_t)8 << 20)

void notifier_init(struct notifier *n, struct config_cell *cell);
void notifier_fini(struct notifier *n);
/** Start of a run: forget what an earlier run of the same task made.
 * @return what the queue's functions take */
const struct bh_queue_notifier *notifier_begin(struct notifier *n, struct bh_now now);
