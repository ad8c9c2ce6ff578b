/* judge.h - from what happened to each recipient to what becomes of the entry: settled, tried again
 * later, ended, held. The one place where outcomes, the connector's policy and the age of a message
 * meet. Pure but for the arena of the lease. */
#pragma once

#include "lease.h"

struct judge_context {
    const struct bh_connector *connector; /* its session's */
    const struct bh_connector *rules;     /* whose `replies` and `uncertain` count: lease_rules */
    const struct bh_retry_policy *retry;
    struct bh_rng *rng;
    struct bh_now now;
    uint64_t generation;
    enum bh_sched_elsewhere elsewhere; /* could another host take what this one can't */
    bool breaker_open;                 /* refusals by policy are kept, uncharged */
    bool unmet_ends;       /* a demand that their hosts don't meet ends mail: `if-unmet bounce` */
    bool expiry_suspended; /* the wall clock stepped and nobody has confirmed it */
    struct bh_slice route; /* for the decision record */
    struct bh_slice tls_wanted, tls_origin, tls_got, tls_reason;
};

/** Did its host lack what the message needs, so that another one could still take it? */
bool judge_unfit(const struct lease_item *item, const struct bh_connector *connector);
/** Whose delivery nobody would know of, should the process end before the outcome is committed: who
 * gets the message by the end of content that goes out next, and who was told 2xx in an earlier
 * round of this transaction (a partner that takes few recipients at a time): their outcomes are
 * known to nobody else before the last round's.
 * @param ending  of the next end: bit i % 64 of [i / 64] for recipient i; as `mask`
 * Also called on the worker that has the item. */
void judge_in_doubt(const struct lease_item *item, const uint64_t ending[2], uint64_t mask[2]);
/** Fill item->settle, signal, said, returned from item->txn. All is in lease->judged.
 * @return BH_OK, or BH_ENOMEM: the item is to be returned untouched */
BH_MUST_USE enum bh_status judge_item(struct lease_item *item, const struct judge_context *ctx);
/** What the partner's answer to an item says to the breaker of its destination.
 * @param rules    as of the context
 * @param refused  how, for JUDGE_REFUSED_BY_POLICY; else NULL. The item's */
enum judge_answer {
    JUDGE_NO_ANSWER, /* none, or one on which the operator has ruled */
    JUDGE_ANSWERED,
    JUDGE_REFUSED_BY_POLICY, /* 5.7.x, and nobody accepted */
};
enum judge_answer judge_answer_of(const struct lease_item *item, const struct bh_connector *rules,
                                  const struct bh_outcome **refused);
/** The same for an item that no session tried: one outcome for each of its recipients (no such
 * domain, no route). */
BH_MUST_USE enum bh_status judge_item_with(struct lease_item *item,
                                           const struct bh_outcome *outcome,
                                           const struct judge_context *ctx);
