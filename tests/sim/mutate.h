/* mutate.h - bugs on purpose, to show that the checks find them. They live in the simulator alone:
 * in its doubles, and in front of functions that the linker lets it stand before. Production
 * objects are not touched. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum mutation {
    MUTATE_NOTHING,
    MUTATE_SKIP_COMMIT_WAIT,
    MUTATE_LOST_REMOVAL,
    MUTATE_LOST_MESSAGE,
    MUTATE_DOWNGRADE_ON_RETRY,
    MUTATE_LIMIT_OFF_BY_ONE,
    MUTATE_MISSED_WAKE_UP,
    MUTATE_ID_REUSED,
    MUTATE_REBIND_COPIES,
    MUTATE_RESERVE_LEAK,
    MUTATE_EARLY_RETRY,
    MUTATE_EARLY_HAND_OUT,
    MUTATE_LOST_REPORT,
    MUTATE_UNCERTAIN_FORGOTTEN,
    MUTATE_HOLD_IGNORED,
    MUTATE_CONTENT_CHANGED,
    MUTATE_OUTCOMES_SWAPPED,
    MUTATE_LEASE_LEAK,
    MUTATE_EARLY_EXPIRY,
    MUTATE_WAKE_ROWS_UNREAD,
    MUTATE_OURS_IS_THEIRS,
    MUTATE_CLEAR_GRANTED,
    MUTATE_SKIPPED_AT_ONCE,
    MUTATE_DUE_TIMES_STAY,
    MUTATE_DANE_MISMATCH,
    MUTATE_DANE_UNUSABLE,
    MUTATE_BOGUS_IS_NONE,
    MUTATE_SELF_TEST_UNREAD,
    MUTATE_STS_FORGOTTEN,
    MUTATE_STS_HOSTS_UNREAD,
    MUTATE_FAILOVER_WEAKER,
    MUTATE_FAILOVER_NEVER,
    MUTATE_LMTP_ONE_REPLY,
    MUTATE_V6_CUT,
    MUTATE_AUTH_HAMMERS,
    MUTATE_AUTH_TO_ANYBODY,
    MUTATE_COUNT,
};

/** @return false: no such mutation */
bool mutate_select(const char *name);
const char *mutate_name(enum mutation m);
const char *mutate_text(enum mutation m);
/** A new run begins. */
void mutate_reset(void);
/** Is this the mutation of the run, and is it daemon code that asks? */
bool mutated(enum mutation m);
