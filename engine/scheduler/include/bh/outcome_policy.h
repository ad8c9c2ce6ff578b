/* outcome_policy.h - what an outcome means. Outcomes are facts; this one table decides which are
 * final, what they speak of, whose fault they are, and which status a report gives (RFC 3463).
 * Pure, no memory. */
#pragma once

#include "bh/outcome.h"

enum bh_meaning {
    BH_MEANS_DELIVERED,
    BH_MEANS_TEMPORARY,
    BH_MEANS_PERMANENT,
    BH_MEANS_UNCERTAIN, /* the remote may have taken it: the connector says retry or hold */
};

/** What the outcome speaks of, and so what backs off. */
enum bh_scope {
    BH_SCOPE_RECIPIENT,
    BH_SCOPE_MESSAGE,
    BH_SCOPE_HOST, /* this session's host: try the next one; if it was the last, DESTINATION */
    BH_SCOPE_DESTINATION, /* every message for it */
    BH_SCOPE_CONNECTOR,   /* every destination of the connector */
};

enum bh_fault { BH_FAULT_THEIRS, BH_FAULT_OURS, BH_FAULT_UNKNOWN };

struct bh_policy {
    enum bh_meaning meaning;
    enum bh_scope scope;
    enum bh_fault fault;  /* OURS parks: it never bounces, and the time does not count. A bounce by
                             expiry needs an attempt that failed by THEIRS */
    bool next_host;       /* another host of the same route may do better now */
    uint8_t status_class; /* to report: the remote's own code where it gave one that fits */
    uint16_t status_subject;
    uint16_t status_detail;
};

/** Decide. Every outcome has an answer. */
struct bh_policy bh_outcome_policy(const struct bh_outcome *outcome);

/** Lower-case, static storage: "temporary", "destination", "theirs". */
const char *bh_meaning_name(enum bh_meaning meaning);
const char *bh_scope_name(enum bh_scope scope);
const char *bh_fault_name(enum bh_fault fault);
