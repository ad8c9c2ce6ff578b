/* suspects.h - envelopes whose receiving has ended the process. A message that is being received
 * has no id yet, so that it is known again by a fingerprint of its envelope when its client comes
 * back. After the second time no content is read under that envelope for a while: its client is
 * told to come later, so nothing is lost, and the process lives. Then it is let in again; if that
 * ends the process too, the while doubles.
 *
 * A small record in the store, written at start, so that tools can tell of it with the engine down.
 */
#pragma once

#include "bh/envelope.h"
#include "bh/queue.h"

#define BH_SUSPECTS_MAX 32 /* remembered: the latest */
#define BH_SUSPECT_FIRST_MS BH_HOUR_MS
#define BH_SUSPECT_LONGEST_MS BH_DAY_MS
#define BH_SUSPECT_FORGET_MS (7 * BH_DAY_MS) /* after the last time */

struct bh_suspect {
    uint64_t fingerprint;
    uint32_t crashes;
    int64_t last_unix_ms;
};

struct bh_suspects {
    uint32_t count;
    struct bh_suspect list[BH_SUSPECTS_MAX];
};

/** What a client will send again, as far as it is known before the content: sender, ENVID, the size
 * that MAIL declared, recipients in any order. Never 0. */
uint64_t bh_suspect_fingerprint(const struct bh_envelope *envelope, uint64_t declared_size,
                                const struct bh_recipient *recipients, uint32_t count);

/** @return BH_OK, also for none; BH_ECORRUPT, BH_EVERSION (a newer form), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_suspects_get(struct bh_kv_txn *txn, struct bh_arena *arena,
                                           struct bh_suspects *suspects);
BH_MUST_USE enum bh_status bh_suspects_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                           const struct bh_suspects *suspects);
/** Its receiving has ended the process, once more.
 * @return how often by now */
uint32_t bh_suspects_add(struct bh_suspects *suspects, uint64_t fingerprint, int64_t now_unix_ms);
/** Drop what has not been seen for BH_SUSPECT_FORGET_MS. @return whether something was */
bool bh_suspects_forget(struct bh_suspects *suspects, int64_t now_unix_ms);
/** Until when it is refused; 0: it is not, also where that lies further ahead than it was ever set,
 * because the clock went back. */
int64_t bh_suspect_until(const struct bh_suspect *suspect, int64_t now_unix_ms);
/** Whether this one is refused now. */
bool bh_suspects_refuse(const struct bh_suspects *suspects, uint64_t fingerprint,
                        int64_t now_unix_ms);
