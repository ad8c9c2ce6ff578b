/* forecast.h - when a destination's mail will have left, and what grows too old before. Arithmetic
 * on counts that the store and the scheduler keep anyway: its cost does not grow with the queue. */
#pragma once

#include "bh/queue_types.h"

struct bh_forecast_facts {
    uint64_t fresh, ready, due, held;    /* entries; what is held does not leave */
    uint64_t recipients;                 /* of all of them */
    const struct bh_arrival_slot *slots; /* of all but the fresh ones, oldest first */
    size_t slot_count;
    struct bh_arrival_slot fresh_slot; /* when those arrived; its count is not read */
    uint64_t left, left_ms; /* messages taken lately, and in what time; left_ms 0: not known */
    uint64_t message_ns;    /* the slowest rate for its messages: one each so long; 0: none */
    uint64_t recipient_ns;  /* the same of recipients */
    int64_t expire_ms;      /* age at which a failed attempt ends a message; 0: not known */
    int64_t now_unix_ms;
};

struct bh_forecast {
    uint64_t messages;      /* that are to leave */
    double per_minute;      /* how many leave */
    bool by_limit;          /* nothing has left lately: that is what its rates allow, at most */
    int64_t drains_in_ms;   /* with what is queued now, in the order in which it came */
    uint64_t expire_before; /* grow older than expire_ms before their turn, by arrival; whatever
                               time the destination stood still */
};

/** @return false: nothing is to leave, or nothing says how fast */
bool bh_forecast(const struct bh_forecast_facts *facts, struct bh_forecast *forecast);
