/* Single behaviours of the scheduler core: the breaker, and destinations that want less. */
#include "scheduler_rig.h"

static const struct bh_outcome policy = {.stage = BH_STAGE_RCPT,
                                         .happened = BH_HAPPENED_REPLY,
                                         .code = 550,
                                         .enhanced_class = 5,
                                         .enhanced_subject = 7,
                                         .enhanced_detail = 1,
                                         .text = {"listed", 6}};

static struct rig breaker_rig(void)
{
    struct rig r = rig();
    r.policy.breaker_refusals = 4;
    r.policy.breaker_share = 80;
    r.policy.breaker_window_ms = 600000;
    r.policy.breaker_hold_ms = 3600000;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    return r;
}

static bool answer(struct rig *r, bool refused)
{
    return bh_sched_answer(r->s, 1, refused ? &policy : NULL, r->now);
}

/* '.' was taken, 'x' refused by policy, '-' 300 s go by; 'X' is refused and kept: it is open. */
static void opens_when_refusals_dominate(void **unused)
{
    (void)unused;
    static const char *const cases[] = {
        "xxxX",                                     /* so many */
        ".xxxX",                                    /* 4 of 5 */
        "..xxxxx",                                  /* 5 of 7: fewer than the share */
        "..xxxxxxxX",                               /* 8 of 10 */
        "xxx-X",                                    /* within the window */
        "xxx--xxxX",                                /* before it does not count */
        "xx-xX",      "................xxxx--xxxX", /* neither do old successes */
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct rig r = breaker_rig();
        fresh(&r, 1, 1); /* it has work, so it stays in memory */
        for (const char *c = cases[i]; *c != 0; c++) {
            if (*c == '-') {
                r.now.mono_ms += 300000;
                r.now.unix_ms += 300000;
                continue;
            }
            assert_int_equal(answer(&r, *c != '.'), *c == 'X');
            assert_int_equal(info(&r, 1).held, *c == 'X');
        }
        bh_sched_destroy(r.s);
    }
}

static void open_keeps_and_half_open_tries_one(void **unused)
{
    (void)unused;
    struct rig r = breaker_rig();
    start(&r, 1, 40, "a", 1);
    const uint32_t sessions = opens(&r);
    assert_int_equal(sessions, 5);
    const uint32_t session = r.a.session;
    ready(&r, session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r.a;
    assert_true(lease.count > 4);
    for (uint32_t i = 0; i < lease.count; i++) {
        assert_int_equal(answer(&r, true), i >= 3);
    }
    uint32_t broken = 0;
    while (bh_sched_next(r.s, &r.a)) {
        if (r.a.kind == BH_SCHED_BREAK) {
            broken++;
            assert_int_equal(r.a.count, 4);
            assert_int_equal(r.a.stage, 4);
            assert_int_equal(r.a.until_unix_ms, r.now.unix_ms + 3600000);
        } else {
            assert_int_equal(r.a.kind, BH_SCHED_DEMOTE); /* what waited goes back */
        }
    }
    assert_int_equal(broken, 1);
    assert_true(info(&r, 1).held);
    assert_true(bh_slice_eq(info(&r, 1).said->outcome.text, BH_LIT("listed")));
    assert_false(answer(&r, false)); /* what was under way and taken stays taken */
    for (uint32_t i = 0; i < lease.count; i++) {
        bh_sched_item_done(r.s, lease.items[i], BH_SIGNAL_NONE, 0, NULL, r.now);
    }
    bh_sched_session_idle(r.s, session, r.now);
    nothing(&r);

    for (int round = 0; round < 2; round++) {
        pass(&r, 4000);
        while (bh_sched_next(r.s, &r.a)) {
        }
        bh_sched_set_held(r.s, 1, false, r.now);
        fresh(&r, 1, 10);
        do {
            assert_true(bh_sched_next(r.s, &r.a));
            if (r.a.kind == BH_SCHED_REFILL) {
                bh_sched_refilled(r.s, 1, NULL, 0, false, INT64_MAX, r.now);
            } else if (r.a.kind == BH_SCHED_RESOLVE) {
                resolved(&r, 1, "a", 1, 1);
            } else if (r.a.kind == BH_SCHED_OPEN) {
                ready(&r, r.a.session, 1);
            }
        } while (r.a.kind != BH_SCHED_LEASE);
        assert_int_equal(r.a.count, 1);
        const struct bh_sched_action one = r.a;
        while (bh_sched_next(r.s, &r.a)) {
            assert_true(r.a.kind != BH_SCHED_LEASE); /* not before it is answered */
        }
        const bool refused = round == 0;
        assert_int_equal(answer(&r, refused), refused);
        assert_int_equal(info(&r, 1).held, refused);
        bh_sched_item_done(r.s, one.items[0], refused ? BH_SIGNAL_NONE : BH_SIGNAL_SUCCESS, 0, NULL,
                           r.now);
        bh_sched_session_idle(r.s, one.session, r.now);
    }
    uint32_t leased = 0;
    while (bh_sched_next(r.s, &r.a)) {
        leased += r.a.kind == BH_SCHED_LEASE ? r.a.count : 0;
    }
    assert_true(leased > 1); /* closed again */
    bh_sched_destroy(r.s);
}

static void without_a_breaker_nothing_opens(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    for (int i = 0; i < 100; i++) {
        assert_false(answer(&r, true));
    }
    assert_false(answer(&r, false));
    assert_false(bh_sched_answer(r.s, 99, &policy, r.now)); /* not loaded */
    bh_sched_destroy(r.s);
}

/* Time passes without a tick: idle sessions and the destination stay. */
static void go_on(struct rig *r, uint64_t ms)
{
    r->now.mono_ms += ms;
    r->now.unix_ms += (int64_t)ms;
}

/* One lease of one session, delivered. */
static void deliver_one(struct rig *r)
{
    fresh(r, 1, 1);
    while (bh_sched_next(r->s, &r->a)) {
        if (r->a.kind == BH_SCHED_OPEN) {
            ready(r, r->a.session, 1);
        } else if (r->a.kind == BH_SCHED_RESOLVE) {
            resolved(r, 1, "a", 1, 1);
        } else if (r->a.kind == BH_SCHED_LEASE) {
            delivered(r);
        }
    }
}

static void slow_halves_and_recovers(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 16;
    r.policy.per_destination_floor = 3;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    assert_int_equal(info(&r, 1).window, 16);
    for (int i = 0; i < 10; i++) {
        bh_sched_slow(r.s, 1, r.now); /* a whole lease says so: one wish */
    }
    assert_int_equal(info(&r, 1).window, 8);
    for (int i = 0; i < 10; i++) {
        deliver_one(&r); /* success does not undo it */
    }
    assert_int_equal(info(&r, 1).window, 8);
    go_on(&r, 30000);
    bh_sched_slow(r.s, 1, r.now);
    assert_int_equal(info(&r, 1).window, 4);
    go_on(&r, 30000);
    bh_sched_slow(r.s, 1, r.now);
    assert_int_equal(info(&r, 1).window, 3); /* the floor */
    for (uint32_t minute = 1; minute <= 20; minute++) {
        go_on(&r, 60000);
        deliver_one(&r);
        const uint32_t want = 3 + minute < 20 ? 3 + minute : 20;
        assert_int_equal(info(&r, 1).window, want);
    }
    bh_sched_destroy(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_when_refusals_dominate),
        cmocka_unit_test(open_keeps_and_half_open_tries_one),
        cmocka_unit_test(without_a_breaker_nothing_opens),
        cmocka_unit_test(slow_halves_and_recovers),
    };
    return cmocka_run_group_tests_name("scheduler_pace", tests, NULL, NULL);
}
