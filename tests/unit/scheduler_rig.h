/* scheduler_rig.h - what the scheduler's tests share: a core, the time, and its actions by hand. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bh/assert.h"
#include "bh/scheduler.h"

struct rig {
    struct bh_sched *s;
    struct bh_now now;
    struct bh_sched_policy policy;
    struct bh_sched_action a; /* the last one pulled */
    uint64_t next_id;
};

static inline struct rig rig_of(uint32_t sessions_max, uint64_t lease_bytes_max)
{
    struct rig r = {.now = {.mono_ms = 50000, .unix_ms = 1700000000000}, .next_id = 1};
    r.policy = (struct bh_sched_policy){
        .connector = "one",
        .per_destination_max = 20,
        .per_destination_start = 5,
        .per_host_max = 100,
        .idle_ms = 5000,
        .active = true,
        .retry = {.intervals_ms = {300000, 900000},
                  .intervals = 2,
                  .destination_ms = {300000, 900000, 3600000},
                  .destination_intervals = 3,
                  .glitches = 2,
                  .glitch_ms = 60000,
                  .jitter_permille = 100},
    };
    const struct bh_sched_params params = {
        .sessions_max = sessions_max, .lease_bytes_max = lease_bytes_max, .seed = 7};
    r.s = bh_sched_create(&params);
    assert_non_null(r.s);
    return r;
}

static inline struct rig rig(void)
{
    return rig_of(500, UINT64_C(1) << 30);
}

static inline void expect(struct rig *r, enum bh_sched_action_kind kind, uint32_t destination)
{
    assert_true(bh_sched_next(r->s, &r->a));
    assert_int_equal(r->a.kind, kind);
    assert_int_equal(r->a.destination, destination);
}

static inline void nothing(struct rig *r)
{
    assert_false(bh_sched_next(r->s, &r->a));
}

static inline void load_as(struct rig *r, uint32_t destination, struct bh_sched_dest_state state)
{
    state.policy = &r->policy;
    assert_int_equal(bh_sched_load(r->s, destination, &state, r->now), BH_OK);
}

static inline void fresh_sized(struct rig *r, uint32_t destination, uint32_t count, uint64_t size)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct bh_sched_item item = {
            .id = r->next_id++, .destination = destination, .size = size, .fresh = true};
        assert_int_equal(bh_sched_fresh(r->s, &item, r->now), BH_OK);
    }
}

static inline void fresh(struct rig *r, uint32_t destination, uint32_t count)
{
    fresh_sized(r, destination, count, 1000);
}

static inline struct bh_sched_address host(uint8_t n)
{
    return (struct bh_sched_address){.ip = {.family = 4, .bytes = {192, 0, 2, n}}, .port = 25};
}

/* Answer to RESOLVE: site `key` with hosts first..last. */
static inline void resolved(struct rig *r, uint32_t destination, const char *key, uint8_t first,
                            uint8_t last)
{
    struct bh_sched_address addresses[16];
    uint32_t count = 0;
    for (uint8_t n = first; n <= last; n++) {
        addresses[count++] = host(n);
    }
    bh_sched_resolved(r->s, destination, bh_slice_str(key), addresses, count, 3600000, r->now);
}

static inline void ready(struct rig *r, uint32_t session, uint8_t at_host)
{
    const struct bh_sched_address address = host(at_host);
    bh_sched_session_ready(r->s, session, &address, r->now);
}

static inline void closed(struct rig *r, uint32_t session, uint8_t failed_host,
                          enum bh_sched_fault fault, const struct bh_outcome *outcome)
{
    const struct bh_sched_address failed = host(failed_host);
    bh_sched_session_closed(r->s, session, &failed, outcome != NULL ? 1 : 0, fault, outcome,
                            r->now);
}

/* Everything in the lease last pulled was taken by the partner, and the session is free. */
static inline void delivered(struct rig *r)
{
    const struct bh_sched_action lease = r->a;
    assert_int_equal(lease.kind, BH_SCHED_LEASE);
    for (uint32_t i = 0; i < lease.count; i++) {
        bh_sched_item_done(r->s, lease.items[i], BH_SIGNAL_SUCCESS, 0, NULL, r->now);
    }
    bh_sched_session_idle(r->s, lease.session, r->now);
}

/* To the next deadline. */
static inline uint64_t tick(struct rig *r)
{
    const uint64_t at = bh_sched_deadline_ms(r->s);
    assert_true(at != UINT64_MAX && at >= r->now.mono_ms);
    const uint64_t passed = at - r->now.mono_ms;
    r->now.mono_ms = at;
    r->now.unix_ms += (int64_t)passed;
    bh_sched_tick(r->s, r->now);
    return passed;
}

static inline void pass(struct rig *r, uint64_t ms)
{
    r->now.mono_ms += ms;
    r->now.unix_ms += (int64_t)ms;
    bh_sched_tick(r->s, r->now);
}

/* A destination with `count` fresh items at site `key` on one host; what it does first is pulled by
 * the caller. */
static inline void start(struct rig *r, uint32_t destination, uint32_t count, const char *key,
                         uint8_t at)
{
    load_as(r, destination, (struct bh_sched_dest_state){0});
    fresh(r, destination, count);
    expect(r, BH_SCHED_RESOLVE, destination);
    resolved(r, destination, key, at, at);
}

/* How many sessions are opened now; the last one is in r->a. */
static inline uint32_t opens(struct rig *r)
{
    uint32_t count = 0;
    while (bh_sched_next(r->s, &r->a)) {
        assert_int_equal(r->a.kind, BH_SCHED_OPEN);
        count++;
    }
    return count;
}

static inline struct bh_sched_dest_info info(struct rig *r, uint32_t destination)
{
    struct bh_sched_dest_info dest_info;
    assert_true(bh_sched_info(r->s, destination, &dest_info));
    return dest_info;
}
