/* inflight.h - who was in flight: a small file of shared memory beside the store that survives the
 * death of the process (not of the machine). One slot for each delivery session, one for each
 * thread's parsing or writing step. Owners store without locks; start reads what a dead process
 * left. */
#pragma once

#include "bh/queue_types.h"

struct bh_inflight;

enum bh_inflight_state {
    BH_INFLIGHT_FREE,
    BH_INFLIGHT_LEASED,
    BH_INFLIGHT_DOT_SENT, /* the end of content was sent, the outcome is not committed */
};

struct bh_inflight_slot {
    enum bh_inflight_state state;
    struct bh_queue_key key;
    uint64_t mask[2]; /* recipients: bit i % 64 of mask[i / 64] */
};

enum bh_handling_step {
    BH_HANDLING_NOTHING,
    BH_HANDLING_RECEIVE, /* parsing content that a client sends */
    BH_HANDLING_STORE,   /* putting it into the store */
    BH_HANDLING_READ,
    BH_HANDLING_SEND,
    BH_HANDLING_REPORT, /* writing a DSN about it */
};

/* How the process ended, as far as it could write that down. */
enum bh_death {
    BH_DEATH_UNKNOWN, /* killed, or it left in order, or the machine stopped */
    BH_DEATH_OWN,     /* a fault, or a failed assertion */
    BH_DEATH_HUNG,    /* a watchdog ended it: some thread no longer went on */
};

/* Whether this step ended the process. */
enum bh_blame {
    BH_BLAME_NOT,    /* another thread's step did */
    BH_BLAME_MAYBE,  /* nothing is known of the end */
    BH_BLAME_LIKELY, /* its thread ended the process, or the process hung during it */
};

struct bh_handling {
    enum bh_handling_step step;
    enum bh_blame blame;
    uint64_t id; /* the message; RECEIVE and STORE: its fingerprint, since it has no id yet */
};

/** Open or create the file; its number of slots may differ from last time: what a dead process left
 * in it is read first, and kept until bh_inflight_clear.
 * @param path   of the file, made 0600
 * @param slots  delivery slots, 1 to 1,048,576; @param threads  handling slots, 1 to 1,024
 * @return BH_OK, BH_EINVAL, BH_ENOMEM, BH_EIO, BH_EFULL (no space: its blocks are allocated here)
 */
BH_MUST_USE enum bh_status bh_inflight_open(const char *path, uint32_t slots, uint32_t threads,
                                            struct bh_inflight **inflight);
/** Unmaps; the file stays. NULL is fine. */
void bh_inflight_close(struct bh_inflight *f);

/** What an earlier process left, read at open: slots not free, in any order. Owned by `f`. A file
 * that is no such file counts as empty. */
const struct bh_inflight_slot *bh_inflight_left(const struct bh_inflight *f, size_t *count);
const struct bh_handling *bh_inflight_left_handling(const struct bh_inflight *f, size_t *count);
/** Make it anew, empty, with the slots asked for at open. Call after the marks made of what was
 * left are committed, and before any slot is used. @return BH_OK, BH_EFULL or BH_EIO */
BH_MUST_USE enum bh_status bh_inflight_clear(struct bh_inflight *f);

/** A free slot, for one entry of one session at a time. Any thread.
 * @return its index, or UINT32_MAX if all are taken */
uint32_t bh_inflight_take(struct bh_inflight *f);
/** The rest by the slot's owner alone. */
void bh_inflight_set(struct bh_inflight *f, uint32_t slot, const struct bh_inflight_slot *value);
/** The step to DOT_SENT, to be called before the octets that end the content go out. */
void bh_inflight_dot_sent(struct bh_inflight *f, uint32_t slot);
/** The outcome is committed, or nothing was sent: free again. */
void bh_inflight_release(struct bh_inflight *f, uint32_t slot);
/** By thread number: what this thread handles now. For as long as it lives, a thread uses one
 * number. */
void bh_inflight_handling(struct bh_inflight *f, uint32_t thread, enum bh_handling_step step,
                          uint64_t id);
/** The process is about to end: notes which thread it is that ends it. For signal handlers. The
 * first note counts. Before bh_inflight_clear nothing is noted. */
void bh_inflight_dying(struct bh_inflight *f, enum bh_death death);
