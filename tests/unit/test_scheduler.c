/* Single behaviours of the scheduler core when all goes well: what is resolved, opened, leased and
 * closed, within which limits. Failures are in test_scheduler_failures.c; what must hold whatever
 * happens is in test_scheduler_world.c. */
#include "scheduler_rig.h"

static const struct bh_outcome refused = {
    .stage = BH_STAGE_CONNECT, .happened = BH_HAPPENED_REFUSED, .text = {"connection refused", 18}};
static const struct bh_outcome closing = {
    .stage = BH_STAGE_GREETING, .happened = BH_HAPPENED_REPLY, .code = 421};
static void from_load_to_forget(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct bh_sched_totals totals;
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    assert_int_equal(r.a.count, 1);
    nothing(&r);
    const uint32_t session = r.a.session;
    ready(&r, session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, session);
    assert_int_equal(r.a.count, 1);
    assert_true(bh_sched_is_leased(r.s, 1, 1, 0));
    assert_true(bh_sched_has_item(r.s, 1, 1, 0));
    delivered(&r);
    assert_false(bh_sched_has_item(r.s, 1, 1, 0));
    nothing(&r);
    assert_int_equal(tick(&r), 5000); /* idle_ms */
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, session);
    closed(&r, session, 1, BH_SCHED_THEIRS, NULL);
    assert_int_equal(tick(&r), 60000 - 5000);
    expect(&r, BH_SCHED_FORGET, 1);
    assert_false(bh_sched_has(r.s, 1));
    bh_sched_totals(r.s, &totals);
    assert_int_equal(totals.destinations + totals.sites + totals.sessions + totals.items, 0);
    assert_int_equal(totals.hosts + totals.connectors, 0);
    assert_true(bh_sched_deadline_ms(r.s) == UINT64_MAX);
    bh_sched_destroy(r.s);
}

static void fill(struct bh_sched_item *items, uint32_t from, uint32_t count)
{
    memset(items, 0, count * sizeof(*items));
    for (uint32_t i = 0; i < count; i++) {
        items[i].id = 1000 + from + i;
        items[i].size = 10;
    }
}

static void refill_brings_each_item_once(void **unused)
{
    (void)unused;
    static struct bh_sched_item items[BH_WINDOW_ITEMS_MAX * 2];
    struct rig r = rig();
    r.policy.per_destination_max = 1;
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    expect(&r, BH_SCHED_REFILL, 1);
    assert_int_equal(r.a.count, BH_WINDOW_ITEMS_MAX);
    fill(items, 0, 60);
    bh_sched_refilled(r.s, 1, items, 60, true, INT64_MAX, r.now);
    expect(&r, BH_SCHED_REFILL, 1); /* below the low water */
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, BH_LEASE_ITEMS_MAX);
    const struct bh_sched_action lease = r.a;
    delivered(&r); /* after the refill was asked for */
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 60 - 32);
    bh_sched_refilled(r.s, 1, items, 60, false, INT64_MAX, r.now); /* an old view */
    assert_int_equal(info(&r, 1).items, 0);
    assert_int_equal(info(&r, 1).leased, 28);
    assert_false(bh_sched_has_item(r.s, 1, 1000, 0));
    assert_int_equal(lease.count, 32);
    /* The store still shows the 28 that are leased: they are counted in. */
    bh_sched_dirty(r.s, 1, r.now);
    struct bh_sched_action out = r.a;
    expect(&r, BH_SCHED_REFILL, 1);
    assert_int_equal(r.a.count, BH_WINDOW_ITEMS_MAX + 28);
    fill(items, 32, BH_WINDOW_ITEMS_MAX + 40);
    bh_sched_refilled(r.s, 1, items, BH_WINDOW_ITEMS_MAX + 40, false, INT64_MAX, r.now);
    assert_int_equal(info(&r, 1).items, BH_WINDOW_ITEMS_MAX); /* no more than the window */
    r.a = out;
    nothing(&r);
    bh_sched_destroy(r.s);
}

static void refill_without_news_waits(void **unused)
{
    (void)unused;
    struct bh_sched_item items[2];
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    expect(&r, BH_SCHED_REFILL, 1);
    fill(items, 0, 2);
    bh_sched_refilled(r.s, 1, items, 2, true, INT64_MAX, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    bh_sched_refilled(r.s, 1, items, 2, true, INT64_MAX, r.now);
    nothing(&r); /* not in circles */
    assert_int_equal(tick(&r), 1000);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);
}

/* The store goes on showing what a bulk job means: it must not be read in circles. */
static void what_was_skipped_is_asked_for_once_a_second(void **unused)
{
    (void)unused;
    struct bh_sched_item items[2];
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    fill(items, 0, 2);
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_refilled(r.s, 1, items, 2, false, INT64_MAX, r.now);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    for (uint32_t round = 0; round < 5; round++) {
        expect(&r, BH_SCHED_LEASE, 1);
        const struct bh_sched_action lease = r.a;
        for (uint32_t i = 0; i < lease.count; i++) {
            bh_sched_item_skipped(r.s, lease.items[i], r.now);
        }
        bh_sched_session_idle(r.s, lease.session, r.now);
        for (uint32_t i = 0; i < 10; i++) { /* however often it is told to look */
            bh_sched_dirty(r.s, 1, r.now);
            nothing(&r);
            pass(&r, 99);
        }
        nothing(&r);
        pass(&r, 10);
        expect(&r, BH_SCHED_REFILL, 1);
        bh_sched_refilled(r.s, 1, items, 2, false, INT64_MAX, r.now);
    }
    /* Once something is done, or gone from the store, that is news. */
    expect(&r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r.a;
    bh_sched_item_skipped(r.s, lease.items[0], r.now);
    bh_sched_dirty(r.s, 1, r.now);
    nothing(&r);
    bh_sched_item_gone(r.s, lease.items[1], r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);
}

/* Skipped in the fresh lane, and found there again, while a refill keeps its name. */
static void fresh_mail_found_again_is_not_dropped(void **unused)
{
    (void)unused;
    struct rig r = rig();
    const struct bh_sched_item item = {.id = 1, .destination = 1, .size = 1000, .fresh = true};
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r.a;
    bh_sched_dirty(r.s, 1, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_item_skipped(r.s, lease.items[0], r.now);
    bh_sched_session_idle(r.s, lease.session, r.now);
    assert_false(bh_sched_has_item(r.s, 1, 1, 0));
    assert_int_equal(bh_sched_fresh(r.s, &item, r.now), BH_EBUSY);
    bh_sched_refilled(r.s, 1, NULL, 0, false, INT64_MAX, r.now);
    assert_int_equal(bh_sched_fresh(r.s, &item, r.now), BH_OK);
    expect(&r, BH_SCHED_LEASE, 1);
    bh_sched_destroy(r.s);
}

static void due_time_asks_again(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){.has_entries = true});
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_refilled(r.s, 1, NULL, 0, false, r.now.unix_ms + 7000, r.now);
    nothing(&r);
    assert_int_equal(tick(&r), 7000);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_dirty(r.s, 1, r.now); /* while it is under way */
    nothing(&r);
    bh_sched_refilled(r.s, 1, NULL, 0, false, INT64_MAX, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);
}

static void fresh_mail_does_not_keep_retries_out(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 200);
    expect(&r, BH_SCHED_RESOLVE, 1);
    bh_sched_dirty(r.s, 1, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    fresh(&r, 1, BH_FRESH_ITEMS_MAX - 200);
    const struct bh_sched_item one_more = {.id = 99999, .destination = 1, .fresh = true};
    assert_int_equal(bh_sched_fresh(r.s, &one_more, r.now), BH_ELIMIT);
    const struct bh_sched_item unknown = {.id = 99999, .destination = 2, .fresh = true};
    assert_int_equal(bh_sched_fresh(r.s, &unknown, r.now), BH_ENOTFOUND);
    bh_sched_destroy(r.s);
}

static void destinations_take_turns(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    start(&r, 1, 100, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    start(&r, 2, 100, "a", 1);
    start(&r, 3, 40, "a", 1);
    ready(&r, session, 1);
    static const uint32_t order[] = {1, 2, 3, 1, 2, 3, 1, 2, 1, 2};
    for (size_t i = 0; i < BH_COUNT(order); i++) {
        expect(&r, BH_SCHED_LEASE, order[i]);
        delivered(&r);
    }
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* One session, many destinations with a message each: a lease carries those of as many as fit. */
static void one_lease_for_several_destinations(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    for (uint32_t d = 2; d <= 40; d++) {
        start(&r, d, 1, "a", 1);
    }
    ready(&r, session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, BH_LEASE_ITEMS_MAX);
    for (uint32_t i = 0; i < r.a.count; i++) {
        assert_int_equal(r.a.items[i]->destination, i + 1);
        assert_int_equal(info(&r, i + 1).sessions, 1);
    }
    nothing(&r); /* the session is busy */
    delivered(&r);
    expect(&r, BH_SCHED_LEASE, 33);
    assert_int_equal(r.a.count, 8);
    assert_int_equal(info(&r, 1).sessions, 0);
    delivered(&r);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* Where sessions are not scarce, each destination keeps one of its own. */
static void sessions_share_what_waits(void **unused)
{
    (void)unused;
    struct rig r = rig_of(8, UINT64_C(1) << 30); /* half of them for who has not delivered yet */
    uint32_t sessions[4] = {0};
    start(&r, 1, 4, "a", 1); /* opens for each of its messages */
    for (size_t i = 0; i < 4; i++) {
        expect(&r, BH_SCHED_OPEN, 1);
        sessions[i] = r.a.session;
    }
    for (uint32_t d = 2; d <= 8; d++) {
        start(&r, d, 1, "a", 1);
    }
    ready(&r, sessions[0], 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_in_range(r.a.count, 2, 4); /* not all of the eleven that wait */
    nothing(&r);
    ready(&r, sessions[1], 1);
    assert_true(bh_sched_next(r.s, &r.a));
    assert_in_range(r.a.count, 2, 4);
    bh_sched_destroy(r.s);
}

/* A destination that may not have another session is passed over; the failure of the session is not
 * held against those whose mail was not touched by it. */
/* So many messages for two idle sessions to one host, whose leases take so long. */
static void deliver_in(struct rig *r, uint32_t messages, uint64_t took_ms)
{
    struct bh_sched_action leases[2];
    uint32_t count = 0;
    fresh(r, 1, messages);
    while (bh_sched_next(r->s, &r->a)) {
        assert_int_equal(r->a.kind, BH_SCHED_LEASE);
        leases[count++] = r->a;
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < leases[i].count; k++) {
            bh_sched_item_done(r->s, leases[i].items[k], BH_SIGNAL_SUCCESS, 0, NULL, r->now);
        }
        bh_sched_session_took(r->s, leases[i].session, took_ms);
        bh_sched_session_idle(r->s, leases[i].session, r->now);
    }
    nothing(r);
}

static void quick_partners_take_several_at_once(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 2;
    r.policy.per_destination_max = 2;
    start(&r, 1, 2, "a", 1);
    assert_int_equal(opens(&r), 2);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 1);
    const uint32_t other = r.a.session - 1;
    delivered(&r);
    expect(&r, BH_SCHED_LEASE, 1); /* the second: the other session is not ready yet */
    delivered(&r);
    ready(&r, other, 1);
    nothing(&r);
    for (int i = 0; i < 10; i++) {
        deliver_in(&r, 2, 40); /* far, or slow: both work at the same time */
        fresh(&r, 1, 2);
        expect(&r, BH_SCHED_LEASE, 1);
        assert_int_equal(r.a.count, 1);
        delivered(&r);
        expect(&r, BH_SCHED_LEASE, 1);
        delivered(&r);
        nothing(&r);
    }
    for (int i = 0; i < 10; i++) {
        deliver_in(&r, 4, 2);
    }
    fresh(&r, 1, 4); /* what comes together goes together */
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 4);
    delivered(&r);
    nothing(&r);
    for (int i = 0; i < 3; i++) {
        deliver_in(&r, 2, 40);
    }
    fresh(&r, 1, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 1);
    bh_sched_destroy(r.s);
}

static void a_lease_respects_each_destination(void **unused)
{
    (void)unused;
    struct rig r = rig_of(1, UINT64_C(1) << 30);
    start(&r, 1, 1, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t session = r.a.session;
    start(&r, 2, 1, "a", 1);
    start(&r, 3, 1, "a", 1);
    bh_sched_set_held(r.s, 2, true, r.now);
    expect(&r, BH_SCHED_DEMOTE, 2);
    ready(&r, session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 2);
    assert_int_equal(r.a.items[1]->destination, 3);
    const struct bh_sched_action lease = r.a;
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_item_returned(r.s, lease.items[1], r.now);
    closed(&r, session, 1, BH_SCHED_THEIRS, &closing);
    assert_int_equal(info(&r, 3).items, 1);
    assert_true(info(&r, 3).backoff_until_unix_ms == 0);
    expect(&r, BH_SCHED_OPEN, 3);
    bh_sched_destroy(r.s);
}

static void window_begins_small_and_ramps(void **unused)
{
    (void)unused;
    struct rig r = rig();
    start(&r, 1, 100, "a", 1);
    assert_int_equal(opens(&r), 5);
    const uint32_t failing = r.a.session;
    closed(&r, failing, 1, BH_SCHED_THEIRS, &refused);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_int_equal(r.a.glitches, 1);
    assert_int_equal(r.a.stage, 0);
    assert_in_range((uint64_t)(r.a.until_unix_ms - r.now.unix_ms), 54000, 66000);
    expect(&r, BH_SCHED_FAILED_ROUND, 1);
    for (int i = 0; i < 100; i++) {
        expect(&r, BH_SCHED_DEMOTE, 1);
        assert_int_equal(r.a.item.id, 1 + i);
    }
    nothing(&r);
    assert_int_equal(info(&r, 1).window, 1);
    for (uint32_t other = failing - 4; other < failing; other++) {
        closed(&r, other, 1, BH_SCHED_THEIRS, &refused); /* the same round, late */
    }
    nothing(&r);
    pass(&r, 66000);
    expect(&r, BH_SCHED_REFILL, 1);
    fresh(&r, 1, 200);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    assert_int_equal(opens(&r), 1);
    const uint32_t session = r.a.session;
    ready(&r, session, 1);
    static const uint32_t windows[] = {2, 4, 5, 6};
    for (size_t i = 0; i < BH_COUNT(windows); i++) {
        struct bh_sched_action action;
        do {
            assert_true(bh_sched_next(r.s, &action));
            if (action.kind == BH_SCHED_RECOVERED) {
                assert_int_equal(i, 1); /* on the first success */
            }
        } while (action.kind != BH_SCHED_LEASE);
        r.a = action;
        delivered(&r);
        assert_int_equal(info(&r, 1).window, windows[i]);
    }
    assert_true(info(&r, 1).backoff_until_unix_ms == 0);
    bh_sched_destroy(r.s);
}

static void ended_while_working_halves_the_window(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 4;
    start(&r, 1, 8, "a", 1);
    assert_int_equal(opens(&r), 4);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 2); /* its share of what four sessions can take */
    const struct bh_sched_action lease = r.a;
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_item_returned(r.s, lease.items[1], r.now);
    closed(&r, lease.session, 1, BH_SCHED_THEIRS, &closing);
    assert_int_equal(info(&r, 1).window, 2);
    nothing(&r); /* three are still connecting */
    bh_sched_destroy(r.s);
}

static void returned_items_are_next_and_uncharged(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.messages_per_connection = 2;
    r.policy.per_destination_max = 1;
    start(&r, 1, 3, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 2);
    const struct bh_sched_action lease = r.a;
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_item_returned(r.s, lease.items[1], r.now);
    bh_sched_session_idle(r.s, lease.session, r.now);
    expect(&r, BH_SCHED_LEASE, 1); /* one message is left to the session */
    assert_int_equal(r.a.count, 1);
    assert_int_equal(r.a.items[0]->id, 2);
    delivered(&r);
    expect(&r, BH_SCHED_CLOSE, 0); /* worn out, with work waiting */
    assert_int_equal(r.a.session, lease.session);
    expect(&r, BH_SCHED_OPEN, 1);
    bh_sched_destroy(r.s);
}

static void connection_ends_with_its_life(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.connection_life_ms = 3000;
    r.policy.per_destination_max = 1;
    start(&r, 1, 64, "a", 1);
    expect(&r, BH_SCHED_OPEN, 1);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r.a;
    pass(&r, 3000);
    r.a = lease;
    delivered(&r);
    expect(&r, BH_SCHED_CLOSE, 0);
    bh_sched_destroy(r.s);
}

static void limits_bound_what_opens(void **unused)
{
    (void)unused;
    /* Two destinations, at two sites of one host. A limit of n lets an unproven destination have
     * half of it, and both together no more. */
    static const struct {
        uint32_t connector, total, host, destination, opens;
        enum bh_sched_limit by;
    } cases[] = {
        {0, 500, 100, 3, 3 + 3, BH_LIMITED_BY_DESTINATION},
        {4, 500, 100, 20, 2, BH_LIMITED_BY_CONNECTOR},
        {1, 500, 100, 20, 1, BH_LIMITED_BY_CONNECTOR},
        {0, 6, 100, 20, 3, BH_LIMITED_BY_TOTAL},
        {0, 500, 8, 20, 4, BH_LIMITED_BY_HOST},
        {0, 500, 1, 20, 1, BH_LIMITED_BY_HOST},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct rig r = rig_of(cases[i].total, UINT64_C(1) << 30);
        r.policy.connections_max = cases[i].connector;
        r.policy.per_host_max = cases[i].host;
        r.policy.per_destination_max = cases[i].destination;
        r.policy.per_destination_start = 20;
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        load_as(&r, 2, (struct bh_sched_dest_state){0});
        fresh(&r, 1, 50);
        fresh(&r, 2, 50);
        expect(&r, BH_SCHED_RESOLVE, 1);
        expect(&r, BH_SCHED_RESOLVE, 2);
        resolved(&r, 1, "a", 1, 1);
        resolved(&r, 2, "b", 1, 1);
        assert_int_equal(opens(&r), cases[i].opens);
        assert_int_equal(info(&r, 2).limited.by, cases[i].by);
        bh_sched_destroy(r.s);
    }
}

static void success_opens_the_other_half(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.connections_max = 6;
    r.policy.per_destination_start = 20;
    start(&r, 1, 50, "a", 1);
    assert_int_equal(opens(&r), 3);
    ready(&r, r.a.session, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    const struct bh_sched_action lease = r.a;
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    assert_int_equal(opens(&r), 3);
    bh_sched_destroy(r.s);
}

/* A session that has delivered its one item and stands idle. */
static uint32_t idle_after_success(struct rig *r, uint32_t destination, const char *key, uint8_t at)
{
    start(r, destination, 1, key, at);
    expect(r, BH_SCHED_OPEN, destination);
    const uint32_t session = r->a.session;
    ready(r, session, at);
    expect(r, BH_SCHED_LEASE, destination);
    delivered(r);
    nothing(r);
    return session;
}

/* First the total is full, then the host: idle sessions of others end for one limit after the
 * other, without a wait for their idle time. */
static void idle_sessions_end_for_each_limit_in_turn(void **unused)
{
    (void)unused;
    struct rig r = rig_of(2, UINT64_C(1) << 30);
    r.policy.per_host_max = 1;
    const uint32_t elsewhere = idle_after_success(&r, 1, "a", 1);
    const uint32_t same_host = idle_after_success(&r, 2, "b", 2);
    start(&r, 3, 1, "c", 2);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, elsewhere);
    nothing(&r);
    closed(&r, elsewhere, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, same_host);
    closed(&r, same_host, 2, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 3);
    bh_sched_destroy(r.s);
}

static void rate_spaces_messages(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.rates[BH_OF_CONNECTOR][BH_PER_MESSAGE] = (struct bh_sched_rate){
        .interval_ns = UINT64_C(2000000000), .slack_ns = UINT64_C(4000000000)};
    r.policy.idle_ms = 60000;
    start(&r, 1, 5, "a", 1);
    assert_int_equal(opens(&r), 3);
    ready(&r, r.a.session, 1);
    uint32_t sent = 0;
    uint64_t passed = 0;
    while (sent < 5) {
        while (bh_sched_next(r.s, &r.a)) {
            assert_int_equal(r.a.kind, BH_SCHED_LEASE);
            sent += r.a.count;
            delivered(&r);
        }
        assert_true(sent <= 3 + passed / 2000);
        if (sent < 5) {
            assert_int_equal(info(&r, 1).limited.by, BH_LIMITED_BY_RATE);
            passed += tick(&r);
        }
    }
    assert_in_range(passed, 4000, 4010);
    bh_sched_destroy(r.s);
}

static void memory_bounds_leases(void **unused)
{
    (void)unused;
    struct rig r = rig_of(500, 100000);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh_sized(&r, 1, 1, 500000); /* larger than all: goes alone */
    fresh_sized(&r, 1, 1, 70000);
    fresh_sized(&r, 1, 2, 20000);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    assert_int_equal(opens(&r), 4);
    const uint32_t last = r.a.session;
    ready(&r, last, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 1);
    const struct bh_sched_action big = r.a;
    ready(&r, last - 1, 1);
    nothing(&r);
    assert_int_equal(info(&r, 1).limited.by, BH_LIMITED_BY_MEMORY);
    r.a = big;
    delivered(&r);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.items[0]->size, 70000);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.items[0]->size, 20000);
    nothing(&r); /* both sessions are busy, and a third finds 10000 left */
    bh_sched_destroy(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_load_to_forget),
        cmocka_unit_test(refill_brings_each_item_once),
        cmocka_unit_test(refill_without_news_waits),
        cmocka_unit_test(what_was_skipped_is_asked_for_once_a_second),
        cmocka_unit_test(fresh_mail_found_again_is_not_dropped),
        cmocka_unit_test(due_time_asks_again),
        cmocka_unit_test(fresh_mail_does_not_keep_retries_out),
        cmocka_unit_test(destinations_take_turns),
        cmocka_unit_test(one_lease_for_several_destinations),
        cmocka_unit_test(sessions_share_what_waits),
        cmocka_unit_test(quick_partners_take_several_at_once),
        cmocka_unit_test(a_lease_respects_each_destination),
        cmocka_unit_test(window_begins_small_and_ramps),
        cmocka_unit_test(ended_while_working_halves_the_window),
        cmocka_unit_test(returned_items_are_next_and_uncharged),
        cmocka_unit_test(connection_ends_with_its_life),
        cmocka_unit_test(limits_bound_what_opens),
        cmocka_unit_test(success_opens_the_other_half),
        cmocka_unit_test(idle_sessions_end_for_each_limit_in_turn),
        cmocka_unit_test(rate_spaces_messages),
        cmocka_unit_test(memory_bounds_leases),
    };
    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
