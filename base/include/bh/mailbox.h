/* mailbox.h - the only place where threads meet. Bounded in entries and octets; many posters, one
 * reader. A post hands the letter over for good. A letter that will be answered reserves the slot
 * of its answer in the mailbox of the asker first, so that answers always fit and two full
 * mailboxes cannot wait for each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bh/status.h"

/** Embed first in every letter. */
struct bh_letter {
    struct bh_letter *next; /* private while in a mailbox */
    size_t bytes;           /* what it counts against the bound in octets */
    uint32_t kind;          /* for its reader */
};

struct bh_mailbox;

/** @param ring     called after a post into an empty mailbox, on the poster's thread; must be safe
 *                  there (uv_async_send, a condition variable, an eventfd); may be NULL
 *  @param entries  most letters, @param bytes most octets, both with reservations
 *  @return NULL for want of memory */
struct bh_mailbox *bh_mailbox_create(size_t entries, size_t bytes, void (*ring)(void *ctx),
                                     void *ctx);
/** Must be empty, or its letters leak; NULL is fine. */
void bh_mailbox_destroy(struct bh_mailbox *box);

/** Hand a letter over. @return BH_OK, or BH_EFULL: the letter is still the caller's */
BH_MUST_USE enum bh_status bh_mailbox_post(struct bh_mailbox *box, struct bh_letter *letter);
/** Reserve room for an answer of up to `bytes`. @return BH_OK or BH_EFULL */
BH_MUST_USE enum bh_status bh_mailbox_reserve(struct bh_mailbox *box, size_t bytes);
/** Post into room that was reserved with the same `bytes`; always fits. */
void bh_mailbox_post_reserved(struct bh_mailbox *box, struct bh_letter *letter, size_t bytes);
/** Give a reservation back unused. */
void bh_mailbox_unreserve(struct bh_mailbox *box, size_t bytes);
/** Post whatever the bounds say: for letters that are bounded elsewhere (shut down, one per
 * session). Still counted. */
void bh_mailbox_post_always(struct bh_mailbox *box, struct bh_letter *letter);
/** Take all letters, in the order of their posts, as a list through `next`. @return NULL if none */
struct bh_letter *bh_mailbox_take_all(struct bh_mailbox *box);
/** Wait until there is a letter or the time is up (UINT64_MAX: no limit). For reader threads that
 * have no event loop. @return true if there is a letter */
bool bh_mailbox_wait(struct bh_mailbox *box, uint64_t timeout_ms);
/** Octets and entries held now, reservations included. For metrics. */
void bh_mailbox_load(struct bh_mailbox *box, size_t *entries, size_t *bytes);
