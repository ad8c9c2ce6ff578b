#include "notify.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/dsn.h"
#include "bh/log.h"
#include "bh/queue_id.h"

#define HEADER_MAX ((size_t)256 * 1024) /* of an original returned with a report */

static const struct bh_slice double_bounce_listener = {"double-bounce", 13};

void notifier_init(struct notifier *n, struct config_cell *cell)
{
    *n = (struct notifier){.cell = cell};
    bh_arena_init(&n->arena, NOTIFIER_ARENA);
    bh_arena_init(&n->scratch, NOTIFIER_ARENA);
}

void notifier_fini(struct notifier *n)
{
    bh_arena_fini(&n->arena);
    bh_arena_fini(&n->scratch);
    n->made = NULL;
}

static enum bh_dsn_action dsn_action(enum bh_notice_action action)
{
    switch (action) {
    case BH_NOTICE_FAILED:
        return BH_DSN_FAILED;
    case BH_NOTICE_DELAYED:
        return BH_DSN_DELAYED;
    case BH_NOTICE_DELIVERED:
        return BH_DSN_DELIVERED;
    case BH_NOTICE_RELAYED:
        return BH_DSN_RELAYED;
    case BH_NOTICE_EXPANDED:
        return BH_DSN_EXPANDED;
    }
    return BH_DSN_FAILED;
}

/* Who is told, and how the report travels. */
struct addressee {
    struct bh_slice to;
    struct bh_slice hold;     /* not empty: queued held, for want of a postmaster */
    struct bh_slice listener; /* origin of the report */
};

/* @return BH_OK, BH_ENOTFOUND if nobody is to be told, or BH_ENOMEM: that is no reason to tell
 * nobody */
static enum bh_status choose_addressee(const struct bh_config *config,
                                       const struct bh_message *message, bool any_failed,
                                       struct bh_arena *arena, struct addressee *who)
{
    *who = (struct addressee){.to = message->envelope.sender, .listener = BH_LIT("dsn")};
    if (message->envelope.sender.len > 0) {
        return BH_OK;
    }
    if (!any_failed || bh_slice_eq(message->origin.listener, double_bounce_listener)) {
        return BH_ENOTFOUND;
    }
    who->listener = double_bounce_listener;
    who->to = config->engine.postmaster;
    if (who->to.len == 0) {
        const struct bh_slice host = config->engine.hostname;
        char *text = bh_arena_alloc(arena, host.len + 16);
        if (text == NULL) {
            return BH_ENOMEM;
        }
        const int len = snprintf(text, host.len + 16, "postmaster@%.*s", BH_FMT(host));
        who->to = bh_slice(text, (size_t)len);
        who->hold = BH_LIT("double bounce: a report could not be delivered, and no postmaster is "
                           "configured");
    } else if (config->engine.dead_letter == BH_DEAD_LETTER_HOLD) {
        who->hold = BH_LIT("double bounce: a report could not be delivered (dead-letter hold)");
    }
    return BH_OK;
}

/* What the connector in force for these recipients says of reports. They are of one entry, and so
 * of one domain. Where none takes it any more: nothing is left out. */
struct report_rules {
    bool success;
    uint64_t content_max;
    int64_t retry_until_unix_ms;
};

static struct report_rules rules_of(const struct bh_config *config,
                                    const struct bh_message *message,
                                    const struct bh_notice *notice)
{
    struct bh_match match;
    if (bh_config_match(config, bh_address_domain(notice->to.address), message->envelope.sender,
                        message->envelope.size, NULL, NULL, &match) != BH_OK) {
        return (struct report_rules){.success = true, .content_max = BH_DSN_CONTENT_MAX};
    }
    return (struct report_rules){
        .success = match.connector->dsn.success,
        .content_max = match.connector->dsn.content_max,
        .retry_until_unix_ms =
            message->origin.arrival_unix_ms + (int64_t)match.connector->retry.expire_ms,
    };
}

static bool tells_success(enum bh_dsn_action action)
{
    return action == BH_DSN_DELIVERED || action == BH_DSN_RELAYED || action == BH_DSN_EXPANDED;
}

static size_t choose_recipients(const struct bh_message *message, const struct bh_notice *notices,
                                size_t count, bool double_bounce, const struct report_rules *rules,
                                struct bh_dsn_recipient *out)
{
    size_t chosen = 0;
    for (size_t i = 0; i < count; i++) {
        const struct bh_notice *notice = &notices[i];
        const enum bh_dsn_action action = dsn_action(notice->action);
        const bool wanted = double_bounce ? action == BH_DSN_FAILED
                                          : bh_dsn_wanted(notice->to.notify, action,
                                                          message->envelope.sender.len == 0);
        if (!wanted || (tells_success(action) && !rules->success)) {
            continue;
        }
        const bool expired =
            notice->outcome.happened == BH_HAPPENED_EXPIRED ||
            (action == BH_DSN_FAILED && notice->outcome.code >= 400 && notice->outcome.code < 500);
        out[chosen++] = (struct bh_dsn_recipient){
            .recipient = notice->to,
            .action = action,
            .outcome = notice->outcome,
            .expired = expired,
            .last_attempt_unix_ms = notice->last_attempt_unix_ms,
            .retry_until_unix_ms = action == BH_DSN_DELAYED ? rules->retry_until_unix_ms : 0,
        };
    }
    return chosen;
}

/* The original's octets that the report may return, and whether that is all of them. */
static enum bh_status read_original(struct bh_kv_txn *txn, const struct bh_message *message,
                                    struct bh_arena *arena, struct bh_slice *content, bool *whole)
{
    const uint64_t size = message->envelope.size;
    const size_t want = size < HEADER_MAX ? (size_t)size : HEADER_MAX;
    struct bh_buf buf = bh_buf(bh_arena_alloc(arena, want > 0 ? want : 1), want);
    if (buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    const enum bh_status status = bh_queue_read_content(txn, message, 0, &buf);
    *content = bh_buf_slice(&buf);
    *whole = buf.len == size;
    return status;
}

static enum bh_status remember(struct notifier *n, const struct bh_queue_put_result *put,
                               uint64_t size, struct bh_slice domain, struct bh_slice connector)
{
    struct notify_made *made = bh_arena_alloc(&n->arena, sizeof(*made));
    const size_t bytes = put->part_count * sizeof(*put->parts);
    struct bh_queue_part *parts = bh_arena_alloc(&n->arena, bytes);
    if (made == NULL || parts == NULL) {
        return BH_ENOMEM;
    }
    memcpy(parts, put->parts, bytes);
    *made = (struct notify_made){.next = n->made,
                                 .id = put->id,
                                 .size = size,
                                 .parts = parts,
                                 .part_count = put->part_count};
    if (!bh_arena_copy(&n->arena, domain, &made->domain) ||
        !bh_arena_copy(&n->arena, connector, &made->connector)) {
        return BH_ENOMEM;
    }
    n->made = made;
    return BH_OK;
}

static enum bh_status put_report(struct notifier *n, struct bh_queue *q, struct bh_kv_txn *txn,
                                 const struct bh_config *config, const struct bh_message *message,
                                 const struct addressee *who, struct bh_slice text,
                                 const struct bh_dsn_written *written, struct bh_now now)
{
    const struct bh_slice domain = bh_address_domain(who->to);
    struct bh_match match;
    struct bh_slice connector = BH_LIT("default");
    struct bh_slice hold = who->hold;
    if (bh_config_match(config, domain, BH_EMPTY, written->size, NULL, NULL, &match) == BH_OK) {
        connector = bh_match_first_choice(&match)->name;
    } else if (hold.len == 0) {
        hold = BH_LIT("no connector takes the sender's domain");
    }
    /* NOTIFY stays unset: a report that bounces is a double bounce, which the hook has to hear of.
     */
    const struct bh_recipient to = {.address = who->to};
    const struct bh_envelope envelope = {
        .body = written->body,
        .smtputf8 = written->smtputf8,
        /* What it tells of needs the same protection (RFC 8689 5). */
        .requiretls = message->envelope.requiretls,
        .size = written->size};
    const struct bh_origin origin = {.listener = who->listener,
                                     .protocol = BH_LIT("local"),
                                     .helo = config->engine.hostname,
                                     .arrival_unix_ms = now.unix_ms};
    const struct bh_queue_group group = {.domain = domain,
                                         .connector = connector,
                                         .recipients = &to,
                                         .recipient_count = 1,
                                         .hint = BH_HINT_FRESH_OK,
                                         .hold = hold};
    const struct bh_queue_put put = {.envelope = &envelope,
                                     .origin = &origin,
                                     .content = &text,
                                     .content_count = 1,
                                     .groups = &group,
                                     .group_count = 1,
                                     .internal = true};
    struct bh_queue_put_result result;
    const enum bh_status status = bh_queue_put(q, txn, &put, now, &n->scratch, &result);
    return status == BH_OK ? remember(n, &result, written->size, domain, connector) : status;
}

static enum bh_status write_report(struct notifier *n, struct bh_queue *q, struct bh_kv_txn *txn,
                                   const struct bh_config *config, const struct bh_message *message,
                                   const struct addressee *who, const struct report_rules *rules,
                                   const struct bh_dsn_recipient *recipients, size_t count)
{
    const struct bh_now now = n->queue.now;
    char from[BH_ADDRESS_MAX];
    const int from_len = snprintf(from, sizeof(from), "MAILER-DAEMON@%.*s",
                                  BH_FMT(bh_slice_take(config->engine.hostname, 255)));
    struct bh_dsn dsn = {
        .reporting_mta = config->engine.hostname,
        .from = bh_slice(from, (size_t)from_len),
        .to = who->to,
        .arrival_unix_ms = message->origin.arrival_unix_ms,
        .now_unix_ms = now.unix_ms,
        .original_id = message->id,
        /* Differs for each report of this message: an entry ends its recipients only once. */
        .unique = message->id * 31 + (uint64_t)now.unix_ms * 7919 + count +
                  bh_hash(recipients[0].recipient.address, 0),
        .envelope = &message->envelope,
        .recipients = recipients,
        .recipients_count = count,
        .content_max = rules->content_max > 0 ? (size_t)rules->content_max : 1, /* 0: the header */
    };
    for (size_t i = 0; i < count; i++) {
        if (recipients[i].outcome.happened == BH_HAPPENED_NEEDS_8BITMIME) {
            /* The way back may not carry 8-bit content either: the header alone, so that the report
             * itself arrives. */
            dsn.content_max = 1;
        }
    }
    enum bh_status status =
        read_original(txn, message, &n->scratch, &dsn.content, &dsn.content_is_whole);
    if (status != BH_OK) {
        return status;
    }
    const uint64_t size = bh_dsn_size(&dsn);
    struct bh_buf buf = bh_buf(bh_arena_alloc(&n->scratch, (size_t)size), (size_t)size);
    struct bh_dsn_written written;
    if (buf.ptr == NULL) {
        return BH_ENOMEM;
    }
    status = bh_dsn_write(&dsn, bh_dsn_sink_buf(&buf), &written);
    if (status != BH_OK) {
        return status;
    }
    return put_report(n, q, txn, config, message, who, bh_buf_slice(&buf), &written, now);
}

static enum bh_status notify(struct notifier *n, struct bh_queue *q, struct bh_kv_txn *txn,
                             const struct bh_config *config, const struct bh_message *message,
                             const struct bh_notice *notices, size_t count)
{
    bool any_failed = false;
    for (size_t i = 0; i < count; i++) {
        any_failed = any_failed || notices[i].action == BH_NOTICE_FAILED;
    }
    struct bh_dsn_recipient *recipients =
        bh_arena_alloc(&n->scratch, count * sizeof(struct bh_dsn_recipient));
    if (recipients == NULL) {
        return BH_ENOMEM;
    }
    struct addressee who;
    const enum bh_status status = choose_addressee(config, message, any_failed, &n->scratch, &who);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    const bool double_bounce = bh_slice_eq(who.listener, double_bounce_listener);
    const struct report_rules rules = rules_of(config, message, &notices[0]);
    const size_t chosen =
        choose_recipients(message, notices, count, double_bounce, &rules, recipients);
    return chosen > 0 ? write_report(n, q, txn, config, message, &who, &rules, recipients, chosen)
                      : BH_OK;
}

static enum bh_status hook(void *ctx, struct bh_queue *q, struct bh_kv_txn *txn,
                           const struct bh_message *message, const struct bh_notice *notices,
                           size_t count)
{
    struct notifier *n = ctx;
    bh_arena_reset(&n->scratch);
    const struct bh_config *config = config_cell_get(n->cell);
    const enum bh_status status = notify(n, q, txn, config, message, notices, count);
    bh_config_unref(config);
    return status;
}

const struct bh_queue_notifier *notifier_begin(struct notifier *n, struct bh_now now)
{
    bh_arena_reset(&n->arena);
    n->made = NULL;
    n->queue = (struct bh_queue_notifier){.hook = hook, .ctx = n, .now = now};
    return &n->queue;
}
