#include "judge.h"

#include "bh/decision.h"
#include "bh/outcome_policy.h"

/* What the recipients that stay make of the entry. */
struct remains {
    bool any;       /* somebody stays */
    bool charged;   /* by an attempt at this message */
    bool uncertain; /* nobody knows whether they have it */
    bool deferred;  /* the partner refused this message for now */
    bool elsewhere; /* another host is to be asked at once */
    bool later;     /* there is one, which can't be asked now */
    bool host;      /* a reply that speaks of the host or more */
    bool slow;      /* a reply rule says that the partner wants less */
    bool refused;   /* kept, since the breaker is open */
    bool stuck;     /* it can never go as it is, by our fault */
    struct bh_slice hold;
};

static bool is_expired(const struct lease_item *item, const struct judge_context *ctx)
{
    const int64_t limit =
        item->entry.sender_null ? ctx->retry->expire_bounces_ms : ctx->retry->expire_ms;
    return !ctx->expiry_suspended && item->age_ms >= limit;
}

static void keep(struct bh_settle_recipient *r, struct remains *remains)
{
    r->verdict = BH_VERDICT_KEEP;
    remains->any = true;
}

static const struct bh_reply_rule *rule_for(const struct bh_outcome *outcome,
                                            const struct bh_connector *rules)
{
    if (outcome->happened != BH_HAPPENED_REPLY || outcome->code < 400) {
        return NULL;
    }
    return bh_reply_rules_match(&rules->replies, outcome->code, outcome->enhanced_class,
                                outcome->enhanced_subject, outcome->enhanced_detail, outcome->text);
}

/* A reply rule of the connector overrides what the table says. @return true if one did */
static bool apply_rule(const struct bh_outcome *outcome, const struct judge_context *ctx,
                       struct bh_settle_recipient *r, struct remains *remains)
{
    const struct bh_reply_rule *rule = rule_for(outcome, ctx->rules);
    if (rule == NULL) {
        return false;
    }
    r->charged = true;
    remains->charged = true;
    switch (rule->action) {
    case BH_REPLY_BOUNCE:
        r->verdict = BH_VERDICT_BOUNCED;
        break;
    case BH_REPLY_HOLD:
        keep(r, remains);
        remains->hold = BH_LIT("held by a reply rule of its connector");
        break;
    case BH_REPLY_SLOW:
        remains->slow = true;
        keep(r, remains);
        remains->deferred = true;
        break;
    case BH_REPLY_DEFER:
        keep(r, remains);
        remains->deferred = true;
        break;
    }
    return true;
}

static bool refused_by_policy(const struct bh_outcome *outcome)
{
    const struct bh_policy policy = bh_outcome_policy(outcome);
    return outcome->happened == BH_HAPPENED_REPLY && policy.meaning == BH_MEANS_PERMANENT &&
           policy.fault == BH_FAULT_THEIRS && outcome->enhanced_class == 5 &&
           outcome->enhanced_subject == 7;
}

enum judge_answer judge_answer_of(const struct lease_item *item, const struct bh_connector *rules,
                                  const struct bh_outcome **refused)
{
    bool other = false;
    *refused = NULL;
    for (uint32_t i = 0; i < item->txn.txn.recipients_count; i++) {
        const struct bh_client_result *result = &item->txn.txn.results[i];
        if (result->fate != BH_FATE_DECIDED || result->outcome.happened != BH_HAPPENED_REPLY ||
            rule_for(&result->outcome, rules) != NULL) {
            continue;
        }
        if (refused_by_policy(&result->outcome)) {
            *refused = &result->outcome;
        } else {
            other = true;
            if (bh_outcome_policy(&result->outcome).meaning == BH_MEANS_DELIVERED) {
                *refused = NULL;
                return JUDGE_ANSWERED;
            }
        }
    }
    return *refused != NULL ? JUDGE_REFUSED_BY_POLICY : other ? JUDGE_ANSWERED : JUDGE_NO_ANSWER;
}

/* No host is given TLS by this connector. */
static bool is_in_vain(const struct bh_outcome *outcome, const struct bh_connector *connector)
{
    return outcome->happened == BH_HAPPENED_NEEDS_REQUIRETLS &&
           connector->tls.demand.mode == BH_TLS_OFF;
}

bool judge_unfit(const struct lease_item *item, const struct bh_connector *connector)
{
    for (uint32_t i = 0; i < item->txn.txn.recipients_count; i++) {
        const struct bh_client_result *result = &item->txn.txn.results[i];
        if (result->fate == BH_FATE_DECIDED && !is_in_vain(&result->outcome, connector)) {
            const struct bh_policy policy = bh_outcome_policy(&result->outcome);
            if (policy.meaning == BH_MEANS_PERMANENT && policy.next_host) {
                return true;
            }
        }
    }
    return false;
}

void judge_in_doubt(const struct lease_item *item, const uint64_t ending[2], uint64_t mask[2])
{
    mask[0] = ending[0];
    mask[1] = ending[1];
    for (uint32_t i = 0; i < item->txn.txn.recipients_count; i++) {
        const struct bh_client_result *result = &item->txn.txn.results[i];
        if (result->fate == BH_FATE_DECIDED &&
            bh_outcome_policy(&result->outcome).meaning == BH_MEANS_DELIVERED) {
            mask[i / 64] |= (uint64_t)1 << (i % 64);
        }
    }
}

static void judge_decided(const struct lease_item *item, const struct bh_outcome *outcome,
                          bool relayed, const struct judge_context *ctx,
                          struct bh_settle_recipient *r, struct remains *remains)
{
    if (apply_rule(outcome, ctx, r, remains)) {
        return;
    }
    const struct bh_policy policy = bh_outcome_policy(outcome);
    const bool about_message =
        policy.scope == BH_SCOPE_RECIPIENT || policy.scope == BH_SCOPE_MESSAGE;
    switch (policy.meaning) {
    case BH_MEANS_DELIVERED:
        r->charged = true;
        r->verdict = relayed                                        ? BH_VERDICT_RELAYED
                     : ctx->connector->protocol == BH_PROTOCOL_LMTP ? BH_VERDICT_DELIVERED_REPORT
                                                                    : BH_VERDICT_DELIVERED;
        return;
    case BH_MEANS_PERMANENT:
        if (policy.fault != BH_FAULT_THEIRS) {
            break; /* a mistake of ours never bounces mail */
        }
        if (ctx->breaker_open && refused_by_policy(outcome) && !is_expired(item, ctx)) {
            remains->refused = true;
            keep(r, remains);
            return;
        }
        if (policy.next_host && ctx->elsewhere != BH_ELSEWHERE_NONE &&
            !is_in_vain(outcome, ctx->connector) && !is_expired(item, ctx)) {
            /* The same round goes on at the next host: that costs the message nothing. */
            r->charged = ctx->elsewhere == BH_ELSEWHERE_LATER;
            remains->elsewhere |= !r->charged;
            remains->later |= r->charged;
            remains->charged |= r->charged;
            keep(r, remains);
            return;
        }
        r->charged = true;
        r->verdict = BH_VERDICT_BOUNCED;
        return;
    case BH_MEANS_TEMPORARY:
        if (ctx->unmet_ends && policy.fault == BH_FAULT_THEIRS) {
            r->charged = true;
            r->verdict = BH_VERDICT_BOUNCED;
            return;
        }
        break;
    case BH_MEANS_UNCERTAIN:
        r->uncertain = true;
        remains->uncertain = true;
        remains->charged = true;
        r->charged = true;
        keep(r, remains);
        return;
    }
    remains->host = remains->host || !about_message;
    remains->stuck = remains->stuck || (about_message && policy.fault == BH_FAULT_OURS);
    r->charged = about_message && policy.fault != BH_FAULT_OURS;
    remains->charged = remains->charged || r->charged;
    remains->deferred = remains->deferred || r->charged;
    if (policy.fault == BH_FAULT_THEIRS && is_expired(item, ctx)) {
        r->verdict = BH_VERDICT_EXPIRED;
    } else {
        keep(r, remains);
    }
}

/* The session ended before the end of this message. By a reply (421) it says nothing of the
 * message: uncharged. A connection that breaks may have been broken by the message itself: charged,
 * so that such a one is not tried at once again for ever. */
static void judge_unfinished(const struct lease_item *item, const struct bh_client_result *result,
                             const struct judge_context *ctx, struct bh_settle_recipient *r,
                             struct remains *remains)
{
    r->charged = result->outcome.happened != BH_HAPPENED_REPLY;
    remains->charged = remains->charged || r->charged;
    if (r->charged && bh_outcome_policy(&result->outcome).fault == BH_FAULT_THEIRS &&
        is_expired(item, ctx)) {
        r->verdict = BH_VERDICT_EXPIRED;
    } else {
        keep(r, remains);
    }
}

static void judge_recipient(const struct lease_item *item, const struct bh_client_result *result,
                            const struct judge_context *ctx, struct bh_settle_recipient *r,
                            struct remains *remains)
{
    *r = (struct bh_settle_recipient){.verdict = BH_VERDICT_KEEP};
    switch (result->fate) {
    case BH_FATE_UNTOUCHED:
        keep(r, remains);
        return;
    case BH_FATE_UNFINISHED:
        r->tried = true;
        r->outcome = result->outcome;
        judge_unfinished(item, result, ctx, r, remains);
        return;
    case BH_FATE_DECIDED:
        r->tried = true;
        r->outcome = result->outcome;
        judge_decided(item, &result->outcome, result->relayed, ctx, r, remains);
        return;
    case BH_FATE_UNCERTAIN:
        r->tried = true;
        r->charged = true;
        r->uncertain = true;
        r->outcome = result->outcome;
        remains->uncertain = true;
        remains->charged = true;
        keep(r, remains);
        return;
    }
}

static void decide_remaining(struct lease_item *item, const struct remains *remains,
                             const struct judge_context *ctx, const char **why)
{
    struct bh_settle *settle = &item->settle;
    settle->charged = remains->charged;
    if (remains->hold.len > 0) {
        settle->remaining = BH_ENTRY_HELD;
        settle->reason = remains->hold;
        *why = "held by a reply rule";
    } else if (remains->uncertain && ctx->rules->uncertain == BH_UNCERTAIN_HOLD) {
        settle->remaining = BH_ENTRY_HELD;
        settle->reason = BH_LIT("uncertain: the end was sent and no reply seen");
        *why = "uncertain, and its connector says hold";
    } else if (remains->charged) {
        settle->remaining = BH_ENTRY_DUE;
        settle->due_unix_ms =
            bh_retry_due(ctx->retry, item->entry.attempts + 1, ctx->rng, ctx->now.unix_ms);
        *why = remains->later && !remains->deferred
                   ? "another host may take it, which can't be asked now"
                   : "retry schedule of the message";
    } else if (remains->refused) {
        /* Behind the others: not this one alone shows, after each hold, whether it is over. */
        settle->remaining = BH_ENTRY_DUE;
        settle->due_unix_ms = ctx->now.unix_ms;
        *why = "not charged: its destination is held by its breaker";
    } else if (remains->stuck) {
        settle->remaining = BH_ENTRY_HELD;
        settle->reason = BH_LIT("it cannot be sent as it is stored");
        *why = "held for an operator: our fault never bounces mail";
    } else if (remains->host) {
        /* The session may go on in spite of what was said (530 to MAIL): not at once again. */
        settle->remaining = BH_ENTRY_DUE;
        settle->due_unix_ms = ctx->now.unix_ms + (int64_t)ctx->retry->glitch_ms;
        *why = "not charged: the host refused, not for this message";
    } else if (remains->elsewhere) {
        settle->remaining = BH_ENTRY_READY;
        item->detours = true;
        *why = "not charged: another host may take it, and is asked next";
    } else {
        settle->remaining = BH_ENTRY_READY;
        *why = "not charged: goes with its destination";
    }
}

static void write_decision(struct lease_item *item, const struct judge_context *ctx,
                           const struct bh_outcome *outcome, const char *why)
{
    char rule_text[512];
    struct bh_buf rule = bh_buf(rule_text, sizeof(rule_text));
    struct bh_buf record =
        bh_buf(bh_arena_alloc(&item->lease->judged, BH_DECISION_MAX), BH_DECISION_MAX);
    if (record.ptr == NULL) {
        return; /* the outcome counts, its explanation is lost */
    }
    if (item->match.connector != NULL) {
        bh_match_text(&item->match, &rule);
    }
    struct bh_decision decision = {
        .time_unix_ms = ctx->now.unix_ms,
        .generation = ctx->generation,
        .round = item->entry.attempts + 1,
        .connector = ctx->connector->name,
        .rule = bh_buf_slice(&rule),
        .route = ctx->route,
        .tls_wanted = ctx->tls_wanted,
        .tls_origin = ctx->tls_origin,
        .tls_got = ctx->tls_got,
        .tls_reason = ctx->tls_reason,
        .outcome = *outcome,
        .next_unix_ms = item->settle.remaining == BH_ENTRY_DUE ? item->settle.due_unix_ms : 0,
        .next_reason = bh_slice_str(why),
    };
    if (outcome->host.len > 0) {
        decision.hosts[0] = *outcome;
        decision.hosts_count = 1;
    }
    if (bh_decision_encode(&decision, &record) == BH_OK) {
        item->settle.decision = bh_buf_slice(&record);
    }
}

/* The outcome that stands for the whole entry: the worst for the operator. */
static void choose_said(struct lease_item *item)
{
    const struct bh_settle *settle = &item->settle;
    int best = -1;
    for (size_t i = 0; i < settle->recipient_count; i++) {
        const struct bh_settle_recipient *r = &settle->recipients[i];
        const int weight = !r->tried                       ? -1
                           : r->verdict == BH_VERDICT_KEEP ? 3
                           : r->verdict == BH_VERDICT_BOUNCED || r->verdict == BH_VERDICT_EXPIRED
                               ? 2
                               : 1;
        if (weight > best) {
            best = weight;
            item->said = r->outcome;
            item->has_said = true;
        }
    }
}

static void finish(struct lease_item *item, const struct judge_context *ctx,
                   const struct remains *remains)
{
    const char *why = "";
    bool ended = false;
    bool touched = false;
    for (size_t i = 0; i < item->settle.recipient_count; i++) {
        ended = ended || item->settle.recipients[i].verdict != BH_VERDICT_KEEP;
        touched = touched || item->settle.recipients[i].tried;
    }
    choose_said(item);
    item->returned = !touched;
    item->slow = remains->slow;
    item->signal = ctx->unmet_ends     ? BH_SIGNAL_NONE /* it says nothing good of the partner */
                   : ended             ? BH_SIGNAL_SUCCESS
                   : remains->deferred ? BH_SIGNAL_DEFERRED
                                       : BH_SIGNAL_NONE;
    if (remains->any) {
        decide_remaining(item, remains, ctx, &why);
        if (touched) {
            write_decision(item, ctx, &item->said, why);
        }
    }
}

static struct bh_settle_recipient *begin(struct lease_item *item)
{
    const size_t count = item->entry.recipient_count;
    struct bh_settle_recipient *recipients =
        bh_arena_alloc(&item->lease->judged, count * sizeof(struct bh_settle_recipient));
    item->settle = (struct bh_settle){.key = item->key,
                                      .lane = item->lane,
                                      .recipients = recipients,
                                      .recipient_count = count,
                                      .remaining = BH_ENTRY_READY};
    item->has_said = false;
    item->detours = false;
    return recipients;
}

enum bh_status judge_item(struct lease_item *item, const struct judge_context *ctx)
{
    struct remains remains = {0};
    struct bh_settle_recipient *recipients = begin(item);
    if (recipients == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < item->settle.recipient_count; i++) {
        judge_recipient(item, &item->txn.txn.results[i], ctx, &recipients[i], &remains);
    }
    finish(item, ctx, &remains);
    return BH_OK;
}

enum bh_status judge_item_with(struct lease_item *item, const struct bh_outcome *outcome,
                               const struct judge_context *ctx)
{
    struct remains remains = {0};
    struct bh_settle_recipient *recipients = begin(item);
    if (recipients == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < item->settle.recipient_count; i++) {
        recipients[i] = (struct bh_settle_recipient){.tried = true, .outcome = *outcome};
        judge_decided(item, outcome, false, ctx, &recipients[i], &remains);
    }
    finish(item, ctx, &remains);
    return BH_OK;
}
