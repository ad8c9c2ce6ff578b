/* Single behaviours of the scheduler core when something fails: back-off, park, hosts avoided,
 * recovery, and what operators do about it. */
#include "scheduler_rig.h"

static const struct bh_outcome refused = {
    .stage = BH_STAGE_CONNECT, .happened = BH_HAPPENED_REFUSED, .text = {"connection refused", 18}};
static const struct bh_outcome closing = {
    .stage = BH_STAGE_GREETING, .happened = BH_HAPPENED_REPLY, .code = 421};
static const struct bh_outcome later = {
    .stage = BH_STAGE_RCPT, .happened = BH_HAPPENED_REPLY, .code = 450};
static const struct bh_outcome no_source = {.stage = BH_STAGE_CONNECT,
                                            .happened = BH_HAPPENED_OUR_SOURCE};

/* Fails its only session, so that the destination backs off. */
static void fail_round(struct rig *r, uint32_t destination, uint8_t at)
{
    expect(r, BH_SCHED_OPEN, destination);
    closed(r, r->a.session, at, BH_SCHED_THEIRS, &refused);
    expect(r, BH_SCHED_BACKOFF, destination);
}

/* Pulls what is there until an action of this kind. */
static void until(struct rig *r, enum bh_sched_action_kind kind)
{
    do {
        assert_true(bh_sched_next(r->s, &r->a));
    } while (r->a.kind != kind);
}

static uint32_t count_of(struct rig *r, enum bh_sched_action_kind kind)
{
    uint32_t count = 0;
    while (bh_sched_next(r->s, &r->a)) {
        count += r->a.kind == kind ? 1 : 0;
    }
    return count;
}

static void glitches_then_stages(void **unused)
{
    (void)unused;
    struct rig r = rig();
    static const struct {
        uint32_t glitches, stage;
        uint64_t ms;
    } want[] = {{1, 0, 60000},  {2, 0, 60000},   {2, 1, 300000},
                {2, 2, 900000}, {2, 2, 3600000}, {2, 2, 3600000}};
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    for (size_t i = 0; i < BH_COUNT(want); i++) {
        bh_sched_dest_failed(r.s, 1, BH_SCHED_THEIRS, &refused, r.now);
        until(&r, BH_SCHED_BACKOFF);
        assert_int_equal(r.a.glitches, want[i].glitches);
        assert_int_equal(r.a.stage, want[i].stage);
        const uint64_t ms = (uint64_t)(r.a.until_unix_ms - r.now.unix_ms);
        assert_in_range(ms, want[i].ms * 9 / 10, want[i].ms * 11 / 10);
        expect(&r, BH_SCHED_FAILED_ROUND, 1);
        bh_sched_dest_failed(r.s, 1, BH_SCHED_THEIRS, &refused, r.now); /* the same round */
        nothing(&r);
        pass(&r, ms);
    }
    bh_sched_destroy(r.s);
}

static void message_intervals_are_jittered(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct bh_rng rng;
    bool early = false;
    bool late = false;
    bh_rng_seed(&rng, 3);
    for (uint32_t i = 0; i < 1000; i++) {
        const int64_t first = bh_retry_due(&r.policy.retry, 1, &rng, 1000) - 1000;
        const int64_t later_one = bh_retry_due(&r.policy.retry, 2 + i, &rng, 1000) - 1000;
        assert_in_range((uint64_t)first, 270000, 330000);
        assert_in_range((uint64_t)later_one, 810000, 990000);
        early = early || first < 280000;
        late = late || first > 320000;
    }
    assert_true(early && late);
    r.policy.retry.jitter_permille = 0;
    assert_int_equal(bh_retry_due(&r.policy.retry, 1, &rng, 5), 300005);
    bh_sched_destroy(r.s);
}

static void faults_of_ours_park(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    closed(&r, r.a.session, 1, BH_SCHED_OURS, &no_source);
    expect(&r, BH_SCHED_PARK, 1);
    expect(&r, BH_SCHED_DEMOTE, 1); /* and no FAILED_ROUND: it does not age the mail */
    nothing(&r);
    assert_true(info(&r, 1).parked);
    assert_int_equal(info(&r, 1).said->outcome.happened, BH_HAPPENED_OUR_SOURCE);
    /* It says nothing about the host: another destination may try it. */
    start(&r, 2, 1, "b", 1);
    expect(&r, BH_SCHED_OPEN, 2);
    /* A reload after which the store knows of no park ends it. */
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    assert_false(info(&r, 1).parked);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);
}

static const struct bh_outcome wrong_password = {.stage = BH_STAGE_AUTH,
                                                 .happened = BH_HAPPENED_REPLY,
                                                 .code = 535,
                                                 .text = {"", 0},
                                                 .host = {"", 0}};

/* Where the next hop asks who we are, a wrong password is said once an interval: neither by several
 * sessions, nor as a glitch, nor by each domain behind it. */
static void one_wrong_password_an_interval(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.first_alone = true;
    start(&r, 1, 4, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    nothing(&r); /* four messages, one session */
    start(&r, 2, 4, "a", 1);
    nothing(&r); /* another domain, the same next hop */
    closed(&r, session, 1, BH_SCHED_OURS, &wrong_password);
    unsigned parked = 0;
    while (bh_sched_next(r.s, &r.a)) {
        assert_true(r.a.kind == BH_SCHED_PARK || r.a.kind == BH_SCHED_DEMOTE);
        if (r.a.kind == BH_SCHED_PARK) {
            parked++;
            assert_true(r.a.until_unix_ms >= r.now.unix_ms + 270000); /* no glitch of a minute */
        }
    }
    assert_int_equal(parked, 2);
    /* A domain that comes later asks nobody: it waits for the same try. */
    const int64_t until_unix_ms = info(&r, 1).backoff_until_unix_ms;
    start(&r, 3, 4, "a", 1);
    expect(&r, BH_SCHED_PARK, 3);
    while (bh_sched_next(r.s, &r.a)) {
        assert_int_equal(r.a.kind, BH_SCHED_DEMOTE);
    }
    assert_true(info(&r, 3).parked && info(&r, 3).backoff_until_unix_ms >= until_unix_ms);
    /* An operator who asks for it is heard: it may have been mended. */
    bh_sched_flush(r.s, 3, r.now);
    fresh(&r, 3, 1);
    unsigned opened = 0;
    while (bh_sched_next(r.s, &r.a)) {
        opened += r.a.kind == BH_SCHED_OPEN ? 1 : 0;
        if (r.a.kind == BH_SCHED_RESOLVE) {
            resolved(&r, 3, "a", 1, 1);
        }
    }
    assert_int_equal(opened, 1);
    bh_sched_destroy(r.s);
}

static void first_session_ready_lets_the_others_come(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.first_alone = true;
    start(&r, 1, 40, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    start(&r, 2, 1, "a", 1);
    nothing(&r);
    ready(&r, session, 1);
    unsigned opened = 0;
    while (bh_sched_next(r.s, &r.a)) {
        opened += r.a.kind == BH_SCHED_OPEN ? 1 : 0;
    }
    assert_true(opened > 0);
    bh_sched_destroy(r.s);
}

static void fresh_mail_is_moved_when_nothing_may_leave(void **unused)
{
    (void)unused;
    for (int way = 0; way < 3; way++) {
        struct rig r = rig();
        struct bh_sched_dest_state state = {.held = way == 0};
        state.next_attempt_unix_ms = way == 1 ? r.now.unix_ms + 60000 : 0;
        r.policy.active = way != 2;
        load_as(&r, 1, state);
        fresh(&r, 1, 2);
        expect(&r, BH_SCHED_DEMOTE, 1);
        assert_int_equal(r.a.item.id, 1);
        expect(&r, BH_SCHED_DEMOTE, 1);
        nothing(&r);
        assert_int_equal(info(&r, 1).items, 0);
        bh_sched_set_held(r.s, 1, false, r.now);
        bh_sched_flush(r.s, 1, r.now);
        r.policy.active = true;
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        expect(&r, BH_SCHED_REFILL, 1);
        bh_sched_destroy(r.s);
    }
}

static void flush_lifts_no_hold(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){.held = true, .has_entries = true});
    bh_sched_flush(r.s, 1, r.now);
    nothing(&r);
    bh_sched_set_held(r.s, 1, false, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);
}

static void next_host_is_tried_in_the_same_round(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 2);
    expect(&r, BH_SCHED_OPEN, 1);
    assert_int_equal(r.a.count, 2);
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, &closing);
    expect(&r, BH_SCHED_OPEN, 1);
    assert_int_equal(r.a.count, 1);
    const struct bh_sched_address second = host(2);
    assert_true(bh_ip_eq(&r.a.addresses[0].ip, &second.ip));
    closed(&r, r.a.session, 2, BH_SCHED_THEIRS, &closing);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_int_equal(count_of(&r, BH_SCHED_FAILED_ROUND), 1);
    bh_sched_destroy(r.s);
}

static void round_ends_after_five_addresses(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 9);
    for (uint8_t at = 1; at <= 5; at++) {
        expect(&r, BH_SCHED_OPEN, 1);
        assert_int_equal(r.a.count, BH_ROUND_ADDRESSES_MAX);
        pass(&r, 31000); /* each as slow as makes the penalty of the first end */
        closed(&r, r.a.session, (uint8_t)r.a.addresses[0].ip.bytes[3], BH_SCHED_THEIRS, &refused);
    }
    expect(&r, BH_SCHED_BACKOFF, 1);
    bh_sched_destroy(r.s);
}

static void round_has_as_many_addresses_as_its_connector_says(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    r.policy.round_addresses_max = 2;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 9);
    expect(&r, BH_SCHED_OPEN, 1);
    assert_int_equal(r.a.count, 2);
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, &refused);
    expect(&r, BH_SCHED_OPEN, 1);
    closed(&r, r.a.session, 2, BH_SCHED_THEIRS, &refused);
    expect(&r, BH_SCHED_BACKOFF, 1);
    bh_sched_destroy(r.s);
}

static void dead_host_fails_others_at_once(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 1, "a", 1);
    fail_round(&r, 1, 1);
    assert_int_equal(count_of(&r, BH_SCHED_DEMOTE), 1);
    start(&r, 2, 1, "a", 1); /* of the same site */
    expect(&r, BH_SCHED_BACKOFF, 2);
    assert_int_equal(info(&r, 2).said->outcome.happened, BH_HAPPENED_REFUSED);
    assert_int_equal(info(&r, 2).said->outcome.text.len, 18);
    assert_int_equal(count_of(&r, BH_SCHED_DEMOTE), 1);
    start(&r, 3, 1, "b", 1); /* of another, with the same host */
    expect(&r, BH_SCHED_BACKOFF, 3);
    assert_int_equal(info(&r, 3).said->outcome.happened, BH_HAPPENED_REFUSED);
    assert_int_equal(count_of(&r, BH_SCHED_DEMOTE), 1);
    /* A flush forgives the host. */
    bh_sched_flush(r.s, 3, r.now);
    expect(&r, BH_SCHED_REFILL, 3);
    fresh(&r, 3, 1);
    expect(&r, BH_SCHED_RESOLVE, 3);
    resolved(&r, 3, "b", 1, 1);
    expect(&r, BH_SCHED_OPEN, 3);
    bh_sched_destroy(r.s);
}

static void greeting_refused_is_the_sites_alone(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, &closing);
    assert_int_equal(count_of(&r, BH_SCHED_BACKOFF), 1);
    start(&r, 2, 1, "b", 1);
    expect(&r, BH_SCHED_OPEN, 2);
    bh_sched_destroy(r.s);
}

static void recovery_wakes_who_failed_with_it(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    start(&r, 2, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 2);
    const uint32_t second = r.a.session;
    closed(&r, session, 1, BH_SCHED_THEIRS, &refused);
    assert_int_equal(count_of(&r, BH_SCHED_BACKOFF), 2);
    /* It failed by itself, not with the site. */
    load_as(&r, 3, (struct bh_sched_dest_state){.next_attempt_unix_ms = r.now.unix_ms + 60000});
    ready(&r, second, 1);
    assert_int_equal(count_of(&r, BH_SCHED_REFILL), 2);
    assert_true(info(&r, 1).backoff_until_unix_ms == 0 && info(&r, 2).backoff_until_unix_ms == 0);
    assert_true(info(&r, 3).backoff_until_unix_ms != 0);
    assert_int_equal(info(&r, 1).window, 1);
    bh_sched_destroy(r.s);
}

static void host_that_never_delivers_is_not_tried_in_circles(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    delivered(&r); /* it has had success, so it counts as proven */
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, NULL);
    nothing(&r);
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    bh_sched_item_returned(r.s, r.a.items[0], r.now);
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, &closing);
    expect(&r, BH_SCHED_BACKOFF, 1);
    bh_sched_destroy(r.s);
}

/* How many sessions are opened in ten seconds, where each comes to nothing as `end` makes it. */
static uint32_t opened_in_vain(struct rig *r, void (*end)(struct rig *r))
{
    uint32_t count = 0;
    const uint64_t until = r->now.mono_ms + 10000;
    start(r, 1, 20, "a", 1);
    while (r->now.mono_ms < until) {
        while (bh_sched_next(r->s, &r->a)) {
            assert_int_equal(r->a.kind, BH_SCHED_OPEN);
            count++;
            end(r);
            pass(r, 1);
            assert_true(count < 1000);
        }
        tick(r);
    }
    return count;
}

/* It gets a lease, and is closed since nothing of it may go: TLS is broken, and the mail is young;
 * its plan is another one by now; ... */
static void end_without_a_try(struct rig *r)
{
    ready(r, r->a.session, 1);
    expect(r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r->a;
    for (uint32_t i = lease.count; i > 0; i--) {
        bh_sched_item_returned(r->s, lease.items[i - 1], r->now);
    }
    closed(r, lease.session, 1, BH_SCHED_THEIRS, NULL);
}

static void end_before_it_is_ready(struct rig *r)
{
    closed(r, r->a.session, 1, BH_SCHED_THEIRS, NULL);
}

static void sessions_that_come_to_nothing_are_opened_once_a_second(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    r.policy.per_destination_max = 1;
    assert_in_range(opened_in_vain(&r, end_without_a_try), 9, 11);
    bh_sched_destroy(r.s);

    r = rig();
    r.policy.per_destination_start = 1;
    r.policy.per_destination_max = 1;
    /* The first ones may follow at once: TLS is tried in one way, then in another, then in clear.
     */
    assert_in_range(opened_in_vain(&r, end_before_it_is_ready), 10, 20);
    bh_sched_destroy(r.s);
}

static void ending_hands_over_what_waits(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    expect(&r, BH_SCHED_REFILL, 1);
    fresh(&r, 1, 40);
    expect(&r, BH_SCHED_RESOLVE, 1);
    bh_sched_resolved_to_end(r.s, 1, r.now);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, 0);
    assert_int_equal(r.a.count, 32);
    for (uint32_t i = 0; i < r.a.count; i++) {
        bh_sched_item_done(r.s, r.a.items[i], BH_SIGNAL_NONE, 0, NULL, r.now);
    }
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 8);
    nothing(&r);
    pass(&r, 2000);
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1); /* asked again: the domain may exist by now */
    bh_sched_destroy(r.s);
}

static void deferrals_from_several_senders_back_off(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t senders;
        int success_at;
        bool backs_off;
    } cases[] = {{1, -1, false}, {2, -1, true}, {2, 5, false}};
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct rig r = rig();
        r.policy.per_destination_start = 1;
        start(&r, 1, 10, "a", 1);
        expect(&r, BH_SCHED_OPEN, 1);
        ready(&r, r.a.session, 1);
        expect(&r, BH_SCHED_LEASE, 1);
        const struct bh_sched_action lease = r.a;
        assert_int_equal(lease.count, 10);
        for (uint32_t k = 0; k < 10; k++) {
            const bool success = (int)k == cases[i].success_at;
            bh_sched_item_done(r.s, lease.items[k],
                               success ? BH_SIGNAL_SUCCESS : BH_SIGNAL_DEFERRED,
                               k % cases[i].senders, success ? NULL : &later, r.now);
        }
        assert_int_equal(count_of(&r, BH_SCHED_BACKOFF), cases[i].backs_off ? 1 : 0);
        bh_sched_destroy(r.s);
    }
}

static void clock_set_back_does_not_prolong_a_backoff(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    bh_sched_dest_failed(r.s, 1, BH_SCHED_THEIRS, &refused, r.now);
    until(&r, BH_SCHED_BACKOFF);
    const int64_t left = r.a.until_unix_ms - r.now.unix_ms;
    assert_int_equal(count_of(&r, BH_SCHED_BACKOFF), 0);
    r.now.unix_ms -= 3600000;
    bh_sched_clock_stepped(r.s, r.now);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_int_equal(r.a.until_unix_ms - r.now.unix_ms, left);
    r.now.unix_ms += 7200000; /* and forward: due at once */
    bh_sched_clock_stepped(r.s, r.now);
    assert_true(info(&r, 1).backoff_until_unix_ms == 0);
    bh_sched_destroy(r.s);
}

static void reload_changes_limits_and_routes(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 20, "a", 1);
    assert_int_equal(opens(&r), 5);
    const uint32_t old = r.a.session;
    r.policy.per_destination_max = 2;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    assert_int_equal(info(&r, 1).window, 2);
    r.policy.connector[0] = '2';
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    expect(&r, BH_SCHED_RESOLVE, 1);
    ready(&r, old, 1);
    nothing(&r); /* a session of the old connector takes none of its items */
    resolved(&r, 1, "b", 2, 2);
    nothing(&r); /* the four that still connect use up its window */
    /* Nor does it matter what our mistakes were by the old policy. */
    closed(&r, old - 4, 1, BH_SCHED_OURS, &no_source);
    assert_false(info(&r, 1).parked);
    for (uint32_t session = old - 3; session < old; session++) {
        closed(&r, session, 1, BH_SCHED_THEIRS, NULL);
    }
    assert_int_equal(opens(&r), 2);
    assert_int_equal(r.a.addresses[0].ip.bytes[3], 2);
    bh_sched_destroy(r.s);
}

static void idle_session_goes_for_a_site_that_waits(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    ready(&r, session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    delivered(&r);
    start(&r, 2, 1, "b", 2);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, session);
    nothing(&r);
    closed(&r, session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 2);
    bh_sched_destroy(r.s);
}

static void busy_site_yields_to_one_without_sessions(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    start(&r, 1, 1000, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    start(&r, 2, 1, "b", 2);
    nothing(&r);
    ready(&r, session, 1);
    for (int i = 0; i < 10; i++) { /* a connection is young: it goes on */
        expect(&r, BH_SCHED_LEASE, 1);
        const struct bh_sched_action lease = r.a;
        pass(&r, 1000);
        r.a = lease;
        delivered(&r);
    }
    expect(&r, BH_SCHED_CLOSE, 0);
    nothing(&r);
    closed(&r, session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 2);
    bh_sched_destroy(r.s);
}

static void who_waits_comes_before_the_site_whose_session_ended(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    r.policy.per_destination_max = 1;
    start(&r, 1, 2, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 2);
    const struct bh_sched_action lease = r.a;
    start(&r, 2, 1, "b", 2);
    nothing(&r);
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_item_returned(r.s, lease.items[1], r.now);
    closed(&r, lease.session, 1, BH_SCHED_THEIRS, &closing);
    expect(&r, BH_SCHED_OPEN, 2);
    nothing(&r);
    bh_sched_destroy(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(glitches_then_stages),
        cmocka_unit_test(message_intervals_are_jittered),
        cmocka_unit_test(faults_of_ours_park),
        cmocka_unit_test(one_wrong_password_an_interval),
        cmocka_unit_test(first_session_ready_lets_the_others_come),
        cmocka_unit_test(fresh_mail_is_moved_when_nothing_may_leave),
        cmocka_unit_test(flush_lifts_no_hold),
        cmocka_unit_test(next_host_is_tried_in_the_same_round),
        cmocka_unit_test(round_ends_after_five_addresses),
        cmocka_unit_test(round_has_as_many_addresses_as_its_connector_says),
        cmocka_unit_test(dead_host_fails_others_at_once),
        cmocka_unit_test(greeting_refused_is_the_sites_alone),
        cmocka_unit_test(recovery_wakes_who_failed_with_it),
        cmocka_unit_test(host_that_never_delivers_is_not_tried_in_circles),
        cmocka_unit_test(sessions_that_come_to_nothing_are_opened_once_a_second),
        cmocka_unit_test(ending_hands_over_what_waits),
        cmocka_unit_test(deferrals_from_several_senders_back_off),
        cmocka_unit_test(clock_set_back_does_not_prolong_a_backoff),
        cmocka_unit_test(reload_changes_limits_and_routes),
        cmocka_unit_test(idle_session_goes_for_a_site_that_waits),
        cmocka_unit_test(who_waits_comes_before_the_site_whose_session_ended),
        cmocka_unit_test(busy_site_yields_to_one_without_sessions),
    };
    return cmocka_run_group_tests_name("scheduler_failures", tests, NULL, NULL);
}
