/* What came of an attempt, applied to one entry. The order matters:
 *
 *   1. read the entry, and the message if somebody is to be told or the entry ends
 *   2. tell (the hook may put a DSN, which changes destinations, perhaps this one)
 *   3. only now read the destination, change the entry, save the destination
 *   4. if the entry ended, count it off its message, which ends with its last one */
#include "bh/queue.h"

#include "notice.h"

bool notice_wanted(uint8_t notify, enum bh_notice_action action)
{
    if ((notify & BH_NOTIFY_NEVER) != 0) {
        return false;
    }
    switch (action) {
    case BH_NOTICE_FAILED:
        return notify == 0 || (notify & BH_NOTIFY_FAILURE) != 0;
    case BH_NOTICE_DELAYED:
        return notify == 0 || (notify & BH_NOTIFY_DELAY) != 0;
    case BH_NOTICE_DELIVERED:
    case BH_NOTICE_RELAYED:
    case BH_NOTICE_EXPANDED:
        break;
    }
    return (notify & BH_NOTIFY_SUCCESS) != 0;
}

bool notice_of_verdict(enum bh_verdict verdict, enum bh_notice_action *action)
{
    switch (verdict) {
    case BH_VERDICT_KEEP:
    case BH_VERDICT_DELIVERED:
    case BH_VERDICT_CANCELLED:
        return false;
    case BH_VERDICT_DELIVERED_REPORT:
        *action = BH_NOTICE_DELIVERED;
        return true;
    case BH_VERDICT_RELAYED:
        *action = BH_NOTICE_RELAYED;
        return true;
    case BH_VERDICT_EXPANDED:
        *action = BH_NOTICE_EXPANDED;
        return true;
    case BH_VERDICT_BOUNCED:
    case BH_VERDICT_EXPIRED:
        *action = BH_NOTICE_FAILED;
        return true;
    }
    return false;
}

void notices_add(struct notices *n, enum bh_notice_action action, const struct bh_entry *e,
                 const struct bh_entry_recipient *r, const struct bh_outcome *outcome)
{
    if (notice_wanted(r->to.notify, action)) {
        BH_ASSERT(n->count < BH_COUNT(n->list));
        n->list[n->count++] = (struct bh_notice){
            .action = action,
            .to = r->to,
            .outcome = *outcome,
            .first_failure_unix_ms = e->first_failure_unix_ms,
            .last_attempt_unix_ms = r->tried ? r->last_unix_ms : 0,
        };
    }
}

enum bh_status notices_tell(const struct notices *n, struct bh_queue *q, struct bh_kv_txn *txn,
                            const struct bh_message *message,
                            const struct bh_queue_notifier *notifier)
{
    if (n->count == 0 || notifier->hook == NULL) {
        return BH_OK;
    }
    return notifier->hook(notifier->ctx, q, txn, message, n->list, n->count);
}

struct settling {
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    const struct bh_settle *settle;
    const struct bh_queue_notifier *notifier;
    struct bh_arena arena;
    struct bh_entry was;
    struct bh_entry e;
    struct bh_message message;
    struct notices notices;
    struct bh_settle_result result;
};

/* One recipient: into the notices, and into the entry again if it stays. */
static void judge(struct settling *s, uint16_t i, bool *tried)
{
    const struct bh_settle_recipient *verdict = &s->settle->recipients[i];
    struct bh_entry_recipient r = s->was.recipients[i];
    const int64_t now = s->notifier->now.unix_ms;
    if (verdict->tried) {
        r.tried = true;
        r.last = verdict->outcome;
        r.last_unix_ms = now;
        *tried = true;
    }
    r.attempts += verdict->charged ? 1 : 0;
    r.uncertain |= verdict->uncertain;
    s->e.uncertain |= verdict->uncertain;
    if (verdict->verdict == BH_VERDICT_KEEP) {
        s->e.recipients[s->e.recipient_count++] = r;
        return;
    }
    s->result.removed++;
    enum bh_notice_action action;
    if (notice_of_verdict(verdict->verdict, &action)) {
        /* What was judged now, tried or not (an expiry, an operator), is what is told. */
        notices_add(&s->notices, action, &s->was, &r, &verdict->outcome);
    }
}

static bool is_untouched(const struct settling *s, bool tried)
{
    return s->was.lane == BH_LANE_FRESH && s->result.removed == 0 && !tried &&
           !s->settle->charged && s->settle->remaining == BH_ENTRY_READY &&
           s->settle->decision.len == 0 && !s->e.uncertain;
}

static enum bh_status end_entry(struct settling *s, struct bh_destination *d)
{
    enum bh_status status;
    if (s->was.lane == BH_LANE_FRESH) {
        status = fresh_erase(s->q, s->txn, s->was.key, &s->arena);
    } else {
        status = destination_load(s->txn, s->was.key.destination, &s->arena, d);
        status = must_exist(status);
        if (status == BH_OK) {
            status = entry_erase(s->txn, d, &s->was, false, s->notifier->now.unix_ms);
        }
        if (status == BH_OK) {
            status = destination_save(s->txn, d, &s->arena);
        }
    }
    if (status == BH_OK) {
        status = message_close_entry(s->txn, &s->message, &s->result.message_gone);
    }
    return status;
}

static enum bh_status keep_entry(struct settling *s, struct bh_destination *d)
{
    enum bh_status status = destination_load(s->txn, s->was.key.destination, &s->arena, d);
    if (status != BH_OK) {
        return must_exist(status);
    }
    entry_set_state(&s->e, d, s->settle->remaining, s->settle->due_unix_ms, s->settle->reason,
                    s->notifier->now.unix_ms);
    if (s->settle->decision.len > 0) {
        status = history_append(s->txn, &s->e, s->settle->decision);
    }
    return status == BH_OK ? any_store(s->q, s->txn, d, &s->was, &s->e, &s->arena) : status;
}

static enum bh_status settle_loaded(struct settling *s)
{
    const int64_t now = s->notifier->now.unix_ms;
    bool tried = false;
    s->e = s->was;
    s->e.recipient_count = 0;
    s->e.recipients =
        bh_arena_alloc(&s->arena, s->was.recipient_count * sizeof(s->e.recipients[0]));
    if (s->e.recipients == NULL) {
        return BH_ENOMEM;
    }
    for (uint16_t i = 0; i < s->was.recipient_count; i++) {
        judge(s, i, &tried);
    }
    s->result.remaining = s->e.recipient_count;
    if (is_untouched(s, tried)) {
        return BH_OK;
    }
    s->e.attempts += s->settle->charged ? 1 : 0;
    if (tried) {
        s->e.tried_unix_ms = now;
    }
    if (tried && s->e.recipient_count > 0 && s->e.first_failure_unix_ms == 0) {
        s->e.first_failure_unix_ms = now;
    }
    enum bh_status status = BH_OK;
    if (s->notices.count > 0 || s->e.recipient_count == 0) {
        status = must_exist(message_load(s->txn, s->was.key.id, &s->arena, &s->message));
    }
    if (status == BH_OK) {
        status = notices_tell(&s->notices, s->q, s->txn, &s->message, s->notifier);
    }
    struct bh_destination d;
    if (status == BH_OK) {
        status = s->e.recipient_count == 0 ? end_entry(s, &d) : keep_entry(s, &d);
    }
    return status;
}

enum bh_status bh_queue_settle(struct bh_queue *q, struct bh_kv_txn *txn,
                               const struct bh_settle *settle,
                               const struct bh_queue_notifier *notifier,
                               struct bh_settle_result *result)
{
    struct settling s;
    memset(&s, 0, offsetof(struct settling, notices)); /* a hundred notices are 13 KiB of zeros */
    s.q = q;
    s.txn = txn;
    s.settle = settle;
    s.notifier = notifier;
    s.notices.count = 0;
    s.result = (struct bh_settle_result){0};
    bh_arena_init(&s.arena, WORK_ARENA);
    enum bh_status status = any_load(txn, settle->key, settle->lane, &s.arena, &s.was);
    if (status == BH_OK && s.was.recipient_count != settle->recipient_count) {
        status = BH_EINVAL;
    }
    if (status == BH_OK) {
        status = settle_loaded(&s);
    }
    if (status == BH_OK) {
        *result = s.result;
    }
    bh_arena_fini(&s.arena);
    return status;
}
