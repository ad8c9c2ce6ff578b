/* notice.h - who is told of what: recipients whose NOTIFY asks for a report, gathered and handed to
 * the hook inside the transaction. */
#pragma once

#include "queue_internal.h"

struct notices {
    struct bh_notice list[BH_RECIPIENTS_PER_ENTRY];
    size_t count;
};

/* RFC 3461 section 4.1: NEVER alone silences; without the parameter failure and delay are told. */
bool notice_wanted(uint8_t notify, enum bh_notice_action action);
/* The action that a verdict may have to be told by. @return false if none */
bool notice_of_verdict(enum bh_verdict verdict, enum bh_notice_action *action);
void notices_add(struct notices *n, enum bh_notice_action action, const struct bh_entry *e,
                 const struct bh_entry_recipient *r, const struct bh_outcome *outcome);
/* With the message loaded only if there is anything to tell. */
enum bh_status notices_tell(const struct notices *n, struct bh_queue *q, struct bh_kv_txn *txn,
                            const struct bh_message *message,
                            const struct bh_queue_notifier *notifier);
