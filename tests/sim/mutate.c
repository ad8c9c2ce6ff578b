#include "mutate.h"

#include <string.h>

#include "bh/dane.h"
#include "bh/dns_message.h"
#include "bh/dsn.h"
#include "bh/inflight.h"
#include "bh/outcome_policy.h"
#include "bh/queue.h"
#include "bh/scheduler.h"
#include "bh/sts_cache.h"
#include "bh/tls.h"
#include "bh/tls_plan.h"
#include "core.h"
#include "engine_internal.h"
#include "judge.h"
#include "net.h"
#include "notify.h"
#include "sched_policy.h"

static const struct {
    const char *name, *text;
} mutations[MUTATE_COUNT] = {
    [MUTATE_NOTHING] = {"none", "no bug"},
    [MUTATE_SKIP_COMMIT_WAIT] = {"skip-commit-wait",
                                 "senders are answered before the transaction is on disk"},
    [MUTATE_LOST_REMOVAL] = {"lost-removal", "now and then an outcome is not written"},
    [MUTATE_LOST_MESSAGE] = {"lost-message", "now and then who was deferred is removed"},
    [MUTATE_DOWNGRADE_ON_RETRY] = {"downgrade-on-retry",
                                   "from the second look on, encrypt demands nothing"},
    [MUTATE_LIMIT_OFF_BY_ONE] = {"limit-off-by-one", "a host gets one connection too many"},
    [MUTATE_MISSED_WAKE_UP] = {"missed-wake-up", "now and then a doorbell is not heard"},
    [MUTATE_ID_REUSED] = {"id-reused", "now and then a message gets the id of the one before"},
    [MUTATE_REBIND_COPIES] = {"rebind-copies",
                              "after a reload an entry is at its new connector and at the old one"},
    [MUTATE_RESERVE_LEAK] = {"reserve-leak", "new mail may use the space that outcomes need"},
    [MUTATE_EARLY_RETRY] = {"early-retry", "a deferred message is due at once"},
    [MUTATE_EARLY_HAND_OUT] = {"early-hand-out", "what is due within ten minutes is due"},
    [MUTATE_LOST_REPORT] = {"lost-report", "nobody is told that mail has failed"},
    [MUTATE_UNCERTAIN_FORGOTTEN] = {"uncertain-forgotten",
                                    "that the dot was sent is not noted before it goes out"},
    [MUTATE_HOLD_IGNORED] = {"hold-ignored", "the record of a held destination reads as not held"},
    [MUTATE_CONTENT_CHANGED] = {"content-changed", "now and then an octet of content flips"},
    [MUTATE_OUTCOMES_SWAPPED] = {"outcomes-swapped",
                                 "the first two recipients have each other's outcome"},
    [MUTATE_LEASE_LEAK] = {"lease-leak", "now and then a lease is not freed"},
    [MUTATE_EARLY_EXPIRY] = {"early-expiry", "mail ages twenty times as fast"},
    [MUTATE_WAKE_ROWS_UNREAD] = {"wake-rows-unread", "what is due is not looked for"},
    [MUTATE_OURS_IS_THEIRS] = {"ours-is-theirs", "a mistake of ours counts as the partner's"},
    [MUTATE_CLEAR_GRANTED] = {"clear-granted",
                              "clear text is granted where the demand wants TLS, and used"},
    [MUTATE_SKIPPED_AT_ONCE] = {"skipped-at-once",
                                "what a bulk job means is looked for again without a pause"},
    [MUTATE_DUE_TIMES_STAY] = {"due-times-stay",
                               "after a step of the clock backwards due times are of the old one"},
    [MUTATE_DANE_MISMATCH] = {"dane-mismatch", "a key that no TLSA record names is accepted"},
    [MUTATE_DANE_UNUSABLE] = {"dane-unusable", "TLSA records that can't be used count as none"},
    [MUTATE_BOGUS_IS_NONE] = {"bogus-is-none", "a forged answer for TLSA counts as no records"},
    [MUTATE_SELF_TEST_UNREAD] = {"self-test-unread", "resolvers are believed that do not validate"},
    [MUTATE_STS_FORGOTTEN] = {"sts-forgotten",
                              "an MTA-STS policy is dropped when a newer one can't be fetched"},
    [MUTATE_STS_HOSTS_UNREAD] = {"sts-hosts-unread",
                                 "hosts that an MTA-STS policy does not list are used"},
    [MUTATE_FAILOVER_WEAKER] = {"failover-weaker",
                                "a connector that takes over demands nothing of TLS"},
    [MUTATE_FAILOVER_NEVER] = {"failover-never", "no connector takes over"},
    [MUTATE_LMTP_ONE_REPLY] = {"lmtp-one-reply",
                               "the first reply to content counts for all recipients over LMTP"},
    [MUTATE_V6_CUT] = {"v6-cut", "the last octet of an IPv6 address is lost"},
    [MUTATE_AUTH_HAMMERS] = {"auth-hammers", "credentials that were refused are tried again soon"},
    [MUTATE_AUTH_TO_ANYBODY] = {"auth-to-anybody",
                                "a peer that is not authenticated counts as authenticated"},
};

static enum mutation selected;
static uint64_t last_id;
static bool refused_now; /* AUTH, just now */
static unsigned looks;

const char *mutate_name(enum mutation m)
{
    return mutations[m].name;
}

const char *mutate_text(enum mutation m)
{
    return mutations[m].text;
}

bool mutate_select(const char *name)
{
    for (unsigned i = 0; i < MUTATE_COUNT; i++) {
        if (strcmp(mutations[i].name, name) == 0) {
            selected = (enum mutation)i;
            return true;
        }
    }
    return false;
}

bool mutated(enum mutation m)
{
    return selected == m && fiber_current() != NULL && !memory_is_foreign();
}

static bool rarely(void)
{
    return sim_chance(CHANCE_THREADS, 30);
}

static bool lose_bell(void)
{
    return mutated(MUTATE_MISSED_WAKE_UP) && sim_chance(CHANCE_THREADS, 2);
}

void mutate_reset(void)
{
    last_id = 0;
    refused_now = false;
    looks = 0;
    loop_bell_is_lost = selected == MUTATE_MISSED_WAKE_UP ? lose_bell : NULL;
}

/* ---- in front of the daemon's functions ---- */

/* Each pair: what the linker calls ours, and what it calls theirs. */
#define BEFORE(type, name, args) \
    type __real_##name args;     \
    type __wrap_##name args;     \
    type __wrap_##name args

BEFORE(enum bh_status, bh_queue_settle,
       (struct bh_queue * q, struct bh_kv_txn *txn, const struct bh_settle *settle,
        const struct bh_queue_notifier *notifier, struct bh_settle_result *result))
{
    struct bh_settle_recipient changed[128];
    struct bh_settle copy = *settle;
    if (mutated(MUTATE_LOST_REMOVAL) && rarely()) {
        return BH_OK;
    }
    if (mutated(MUTATE_LOST_MESSAGE) && settle->recipient_count <= 128 && rarely()) {
        memcpy(changed, settle->recipients, settle->recipient_count * sizeof(changed[0]));
        changed[0].verdict = BH_VERDICT_DELIVERED;
        copy.recipients = changed;
    }
    return __real_bh_queue_settle(q, txn, &copy, notifier, result);
}

BEFORE(enum bh_status, bh_tls_plan_make,
       (const struct bh_tls_plan_input *input, struct bh_arena *arena, struct bh_tls_plan *plan))
{
    const enum bh_status status = __real_bh_tls_plan_make(input, arena, plan);
    const bool again = looks++ > 3;
    if (mutated(MUTATE_DOWNGRADE_ON_RETRY) && again && plan->demand.mode == BH_TLS_ENCRYPT) {
        plan->demand.mode = BH_TLS_OPPORTUNISTIC;
    }
    return status;
}

BEFORE(void, sched_policy_of,
       (const struct bh_connector *connector, bool held, struct bh_sched_policy *policy))
{
    __real_sched_policy_of(connector, held, policy);
    policy->per_host_max += mutated(MUTATE_LIMIT_OFF_BY_ONE) ? 1 : 0;
}

BEFORE(enum bh_status, queue_next_id, (struct bh_kv_txn * txn, int64_t now_unix_ms, uint64_t *id))
{
    const enum bh_status status = __real_queue_next_id(txn, now_unix_ms, id);
    if (mutated(MUTATE_ID_REUSED) && last_id != 0 && rarely()) {
        *id = last_id;
    }
    last_id = *id;
    return status;
}

static bool rebinding;

BEFORE(enum bh_status, bh_queue_rebind,
       (struct bh_queue * q, struct bh_kv_txn *txn, struct bh_queue_key key, struct bh_slice domain,
        struct bh_slice connector, struct bh_now now, struct bh_queue_key *to))
{
    rebinding = mutated(MUTATE_REBIND_COPIES);
    const enum bh_status status = __real_bh_queue_rebind(q, txn, key, domain, connector, now, to);
    rebinding = false;
    return status;
}

BEFORE(enum bh_status, bh_kv_del, (struct bh_kv_txn * txn, enum bh_kv_db db, struct bh_slice key))
{
    return rebinding && db == BH_KV_ENTRY ? BH_OK : __real_bh_kv_del(txn, db, key);
}

BEFORE(int64_t, bh_retry_due,
       (const struct bh_retry_policy *retry, uint32_t attempts, struct bh_rng *rng,
        int64_t now_unix_ms))
{
    const int64_t due = __real_bh_retry_due(retry, attempts, rng, now_unix_ms);
    return mutated(MUTATE_EARLY_RETRY) ? now_unix_ms : due;
}

#define EARLY_MS (10 * BH_MINUTE_MS)

BEFORE(enum bh_status, bh_queue_refill,
       (struct bh_kv_txn * txn, const struct bh_refill *refill, struct bh_refill_cursor *cursor,
        struct bh_queue_item *items, size_t *count))
{
    struct bh_refill early = *refill;
    early.now_unix_ms += mutated(MUTATE_EARLY_HAND_OUT) ? EARLY_MS : 0;
    return __real_bh_queue_refill(txn, &early, cursor, items, count);
}

BEFORE(enum bh_status, lease_load, (struct lease * lease, struct bh_store *store))
{
    for (struct lease *l = lease; mutated(MUTATE_EARLY_HAND_OUT) && l != NULL; l = l->also) {
        for (uint32_t i = 0; i < l->part_count; i++) {
            l->parts[i].early_ms = EARLY_MS;
        }
    }
    return __real_lease_load(lease, store);
}

BEFORE(const struct bh_queue_notifier *, notifier_begin, (struct notifier * n, struct bh_now now))
{
    const struct bh_queue_notifier *notifier = __real_notifier_begin(n, now);
    if (mutated(MUTATE_LOST_REPORT)) {
        n->queue.hook = NULL;
    }
    return notifier;
}

BEFORE(void, bh_inflight_dot_sent, (struct bh_inflight * f, uint32_t slot))
{
    if (!mutated(MUTATE_UNCERTAIN_FORGOTTEN)) {
        __real_bh_inflight_dot_sent(f, slot);
    }
}

BEFORE(enum bh_status, bh_queue_read_destination,
       (struct bh_kv_txn * txn, uint32_t id, struct bh_arena *arena,
        struct bh_destination *destination))
{
    const enum bh_status status = __real_bh_queue_read_destination(txn, id, arena, destination);
    if (status == BH_OK && mutated(MUTATE_HOLD_IGNORED)) {
        destination->held = false;
    }
    return status;
}

BEFORE(void, bh_sched_set_held,
       (struct bh_sched * s, uint32_t destination, bool held, struct bh_now now))
{
    __real_bh_sched_set_held(s, destination, held && !mutated(MUTATE_HOLD_IGNORED), now);
}

BEFORE(enum bh_status, bh_queue_redate_slice,
       (struct bh_queue * q, struct bh_kv_txn *txn, struct bh_now now, size_t rows_max,
        struct bh_redate_pass *pass, uint32_t *ids, size_t *count))
{
    if (mutated(MUTATE_DUE_TIMES_STAY)) {
        *count = 0;
        return BH_OK;
    }
    return __real_bh_queue_redate_slice(q, txn, now, rows_max, pass, ids, count);
}

BEFORE(void, bh_sched_item_skipped,
       (struct bh_sched * s, struct bh_sched_item *item, struct bh_now now))
{
    if (mutated(MUTATE_SKIPPED_AT_ONCE)) {
        bh_sched_item_gone(s, item, now);
    } else {
        __real_bh_sched_item_skipped(s, item, now);
    }
}

BEFORE(enum bh_status, bh_queue_read_content,
       (struct bh_kv_txn * txn, const struct bh_message *message, uint64_t offset,
        struct bh_buf *out))
{
    const enum bh_status status = __real_bh_queue_read_content(txn, message, offset, out);
    if (status == BH_OK && out->len > 0 && mutated(MUTATE_CONTENT_CHANGED) && rarely() &&
        out->ptr[out->len - 3] == 'a') {
        out->ptr[out->len - 3] = 'b';
    }
    return status;
}

BEFORE(enum bh_status, judge_item, (struct lease_item * item, const struct judge_context *ctx))
{
    struct bh_client_result *results = item->txn.txn.results;
    if (mutated(MUTATE_OUTCOMES_SWAPPED) && item->txn.txn.recipients_count > 1) {
        const struct bh_client_result first = results[0];
        results[0] = results[1];
        results[1] = first;
    }
    if (mutated(MUTATE_LMTP_ONE_REPLY) && ctx->connector->protocol == BH_PROTOCOL_LMTP) {
        for (size_t i = 1; i < item->txn.txn.recipients_count; i++) {
            results[i] = results[0];
        }
    }
    return __real_judge_item(item, ctx);
}

BEFORE(void, lease_destroy, (struct lease * lease))
{
    if (!mutated(MUTATE_LEASE_LEAK) || !rarely()) {
        __real_lease_destroy(lease);
    }
}

BEFORE(int64_t, bh_entry_age_ms,
       (const struct bh_entry *e, const struct bh_destination *d, int64_t now_unix_ms))
{
    const int64_t age = __real_bh_entry_age_ms(e, d, now_unix_ms);
    return mutated(MUTATE_EARLY_EXPIRY) ? age * 20 : age;
}

BEFORE(enum bh_status, bh_queue_scan_wake,
       (struct bh_kv_txn * txn, int64_t until_unix_ms, const struct bh_queue_wake *after,
        struct bh_queue_wake *rows, size_t rows_max, size_t *count))
{
    if (mutated(MUTATE_WAKE_ROWS_UNREAD)) {
        *count = 0;
        return BH_OK;
    }
    return __real_bh_queue_scan_wake(txn, until_unix_ms, after, rows, rows_max, count);
}

BEFORE(struct bh_policy, bh_outcome_policy, (const struct bh_outcome *outcome))
{
    struct bh_policy policy = __real_bh_outcome_policy(outcome);
    if (mutated(MUTATE_OURS_IS_THEIRS) && policy.fault == BH_FAULT_OURS) {
        policy.fault = BH_FAULT_THEIRS;
    }
    if (mutated(MUTATE_AUTH_HAMMERS) && outcome->stage == BH_STAGE_AUTH && outcome->code == 535) {
        refused_now = true;
    }
    return policy;
}

BEFORE(bool, bh_tls_demand_requires_tls, (const struct bh_tls_demand *demand))
{
    return !mutated(MUTATE_CLEAR_GRANTED) && __real_bh_tls_demand_requires_tls(demand);
}

BEFORE(struct bh_clearance *, bh_clearance_plain,
       (const struct bh_tls_demand *demand, uint64_t connection, uint64_t generation))
{
    struct bh_tls_demand lesser = *demand;
    if (mutated(MUTATE_CLEAR_GRANTED)) {
        lesser.mode = BH_TLS_OPPORTUNISTIC;
    }
    return __real_bh_clearance_plain(&lesser, connection, generation);
}

BEFORE(bool, bh_clearance_valid,
       (const struct bh_clearance *clearance, uint64_t connection, uint64_t generation,
        const uint8_t digest[BH_TLS_DIGEST_LEN]))
{
    return (clearance != NULL && mutated(MUTATE_CLEAR_GRANTED)) ||
           __real_bh_clearance_valid(clearance, connection, generation, digest);
}

/* ---- what is published ---- */

BEFORE(enum bh_status, bh_dane_read,
       (const struct bh_tlsa *records, size_t count, struct bh_slice base, struct bh_arena *arena,
        struct bh_dane *dane))
{
    const enum bh_status status = __real_bh_dane_read(records, count, base, arena, dane);
    if (mutated(MUTATE_DANE_UNUSABLE) && dane->state == BH_DANE_UNUSABLE) {
        dane->state = BH_DANE_NONE;
    }
    return status;
}

BEFORE(enum bh_status, bh_dns_read_answer,
       (struct bh_slice octets, struct bh_slice name, uint16_t type, struct bh_arena *arena,
        struct bh_dns_answer *answer))
{
    const enum bh_status status = __real_bh_dns_read_answer(octets, name, type, arena, answer);
    if (mutated(MUTATE_BOGUS_IS_NONE) && type == BH_DNS_TLSA && answer->status == BH_DNS_BOGUS) {
        answer->status = BH_DNS_NODATA;
    }
    for (size_t i = 0; mutated(MUTATE_V6_CUT) && type == BH_DNS_AAAA && i < answer->records_len;
         i++) {
        answer->records[i].ip.bytes[15] = 0;
    }
    if (mutated(MUTATE_SELF_TEST_UNREAD) && name.len == 0) {
        answer->secure = true;
    }
    return status;
}

BEFORE(void, bh_sts_entry_on_failure,
       (struct bh_sts_entry * entry, struct bh_slice why, struct bh_now now))
{
    __real_bh_sts_entry_on_failure(entry, why, now);
    if (mutated(MUTATE_STS_FORGOTTEN)) {
        entry->has_policy = false;
        entry->dirty = false;
    }
}

BEFORE(bool, bh_sts_policy_matches, (const struct bh_sts_policy *policy, struct bh_slice host))
{
    return mutated(MUTATE_STS_HOSTS_UNREAD) || __real_bh_sts_policy_matches(policy, host);
}

/* ---- one connector for another ---- */

BEFORE(const struct bh_tls_demand *, bh_connector_tls_demand,
       (const struct bh_connector *connector, int64_t unix_ms, bool *lapsed))
{
    static const struct bh_tls_demand nothing = {.mode = BH_TLS_OPPORTUNISTIC};
    const struct bh_tls_demand *demand = __real_bh_connector_tls_demand(connector, unix_ms, lapsed);
    return mutated(MUTATE_FAILOVER_WEAKER) && connector->failover ? &nothing : demand;
}

BEFORE(bool, efail_backoff,
       (struct engine * e, struct dest_info *d, const struct bh_sched_action *action,
        const struct bh_outcome *said))
{
    return !mutated(MUTATE_FAILOVER_NEVER) && __real_efail_backoff(e, d, action, said);
}

/* ---- AUTH ---- */

BEFORE(int64_t, bh_retry_destination,
       (const struct bh_retry_policy *retry, uint32_t *glitches, uint32_t *stage,
        struct bh_rng *rng, int64_t now_unix_ms))
{
    const int64_t at = __real_bh_retry_destination(retry, glitches, stage, rng, now_unix_ms);
    const bool soon = mutated(MUTATE_AUTH_HAMMERS) && refused_now;
    refused_now = false;
    return soon ? now_unix_ms + 2000 : at;
}

BEFORE(bool, bh_clearance_is_authenticated, (const struct bh_clearance *clearance))
{
    return mutated(MUTATE_AUTH_TO_ANYBODY) || __real_bh_clearance_is_authenticated(clearance);
}
