/* What some hosts of a plan can't take goes to others, and leaves the order of all other mail
 * alone. */
#include "scheduler_rig.h"

#define UNFIT_SAID                                                       \
    {                                                                    \
        .stage = BH_STAGE_MAIL, .happened = BH_HAPPENED_NEEDS_REQUIRETLS \
    }

/* One fresh message at hosts 1 to `last`, leased to a session with the first. */
static void at_first_host(struct rig *r, uint32_t destination, uint8_t last)
{
    load_as(r, destination, (struct bh_sched_dest_state){0});
    fresh(r, destination, 1);
    expect(r, BH_SCHED_RESOLVE, destination);
    resolved(r, destination, "site", 1, last);
    expect(r, BH_SCHED_OPEN, destination);
    ready(r, r->a.session, 1);
    expect(r, BH_SCHED_LEASE, destination);
}

/* The one item of the lease last pulled can't go to its host; its session stays. */
static enum bh_sched_elsewhere unfit(struct rig *r)
{
    const struct bh_sched_action lease = r->a;
    const struct bh_outcome said = UNFIT_SAID;
    assert_int_equal(lease.count, 1);
    const enum bh_sched_elsewhere elsewhere = bh_sched_item_unfit(r->s, lease.items[0]);
    assert_int_equal(elsewhere, bh_sched_item_unfit(r->s, lease.items[0])); /* told again */
    bh_sched_item_answered(r->s, lease.items[0]);
    bh_sched_session_idle(r->s, lease.session, r->now);
    if (elsewhere == BH_ELSEWHERE_NOW) {
        bh_sched_item_detour(r->s, lease.items[0], &said, r->now);
    } else {
        bh_sched_item_done(r->s, lease.items[0], BH_SIGNAL_NONE, 0, &said, r->now);
    }
    return elsewhere;
}

/* A session is opened to hosts first..last, in this order. */
static void expect_open(struct rig *r, uint32_t destination, uint8_t first, uint8_t last)
{
    expect(r, BH_SCHED_OPEN, destination);
    assert_int_equal(r->a.count, last - first + 1);
    for (uint32_t i = 0; i < r->a.count; i++) {
        const struct bh_sched_address wanted = host((uint8_t)(first + i));
        assert_true(bh_ip_eq(&r->a.addresses[i].ip, &wanted.ip));
    }
}

static void each_host_is_asked_once(void **unused)
{
    (void)unused;
    struct rig r = rig();
    at_first_host(&r, 1, 3);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect_open(&r, 1, 2, 3);
    ready(&r, r.a.session, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_false(r.a.items[0]->fresh); /* it was settled into the entry lane */
    const uint32_t second = r.a.session;
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, second); /* nothing is left for it */
    expect_open(&r, 1, 3, 3);
    closed(&r, second, 2, BH_SCHED_THEIRS, NULL);
    bh_sched_session_ready(r.s, r.a.session, &r.a.addresses[0], r.now);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NONE); /* its end */
    expect(&r, BH_SCHED_CLOSE, 0);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* The first host is as good as ever for what it can take, and idle sessions elsewhere are not. */
static void other_mail_goes_its_way(void **unused)
{
    (void)unused;
    struct rig r = rig();
    at_first_host(&r, 1, 2);
    const uint32_t first = r.a.session;
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect_open(&r, 1, 2, 2);
    const uint32_t second = r.a.session;
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, first);
    struct rig held = r;
    ready(&r, second, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, second);
    assert_int_equal(r.a.items[0]->id, 1);
    fresh(&r, 1, 1);
    struct rig detour = r;
    expect_open(&r, 1, 1, 2); /* in the plan's order */
    delivered(&detour);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, second); /* it is not kept for what has another way */
    delivered(&held);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, first);
    bh_sched_destroy(r.s);
}

/* A session that is idle there already takes it, and no other is opened. */
static void an_idle_session_elsewhere_takes_it(void **unused)
{
    (void)unused;
    struct rig r = rig();
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 2);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "site", 1, 2);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t first = r.a.session;
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t second = r.a.session;
    ready(&r, second, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    struct rig at_second = r;
    ready(&r, first, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    struct rig at_first = r;
    delivered(&at_second);
    assert_int_equal(unfit(&at_first), BH_ELSEWHERE_NOW);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.session, second);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* The other host is down: the item waits by the message's own schedule, not in circles. */
static void a_host_that_is_down_is_not_asked(void **unused)
{
    (void)unused;
    struct rig r = rig();
    const struct bh_outcome refused = {.stage = BH_STAGE_CONNECT, .happened = BH_HAPPENED_REFUSED};
    at_first_host(&r, 1, 2);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect_open(&r, 1, 2, 2);
    closed(&r, r.a.session, 2, BH_SCHED_THEIRS, &refused);
    expect(&r, BH_SCHED_LEASE, 1); /* nowhere else: the first host is asked once more */
    assert_int_equal(unfit(&r), BH_ELSEWHERE_LATER);
    nothing(&r);
    assert_int_equal(info(&r, 1).items, 0);
    bh_sched_destroy(r.s);
}

/* One connection is all there is, and the session with the first host has it. */
static void the_only_connection_is_given_up_for_it(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.connections_max = 1;
    at_first_host(&r, 1, 2);
    const uint32_t first = r.a.session;
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, first);
    closed(&r, first, 1, BH_SCHED_THEIRS, NULL);
    expect_open(&r, 1, 2, 2);
    ready(&r, r.a.session, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    delivered(&r);
    expect(&r, BH_SCHED_CLOSE, 0);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* Both addresses of one host are the same host. */
static void a_host_is_known_by_its_name(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct bh_sched_address addresses[2] = {host(1), host(2)};
    addresses[0].name = addresses[1].name = 7;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    fresh(&r, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    bh_sched_resolved(r.s, 1, BH_LIT("site"), addresses, 2, 3600000, r.now);
    expect(&r, BH_SCHED_OPEN, 1);
    bh_sched_session_ready(r.s, r.a.session, &addresses[0], r.now);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NONE);
    bh_sched_destroy(r.s);
}

/* Held, it goes nowhere; a new plan with other hosts begins anew. */
static void holds_and_plans_end_detours(void **unused)
{
    (void)unused;
    struct rig r = rig();
    at_first_host(&r, 1, 2);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect_open(&r, 1, 2, 2);
    bh_sched_set_held(r.s, 1, true, r.now);
    ready(&r, r.a.session, 2);
    expect(&r, BH_SCHED_CLOSE, 0);
    nothing(&r);
    assert_int_equal(info(&r, 1).items, 0); /* the store brings it back */
    bh_sched_set_held(r.s, 1, false, r.now);
    expect(&r, BH_SCHED_REFILL, 1);
    bh_sched_destroy(r.s);

    r = rig();
    at_first_host(&r, 1, 2);
    assert_int_equal(unfit(&r), BH_ELSEWHERE_NOW);
    expect_open(&r, 1, 2, 2);
    resolved(&r, 1, "another", 1, 2);
    expect_open(&r, 1, 1, 2);
    bh_sched_destroy(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_host_is_asked_once),
        cmocka_unit_test(other_mail_goes_its_way),
        cmocka_unit_test(an_idle_session_elsewhere_takes_it),
        cmocka_unit_test(a_host_that_is_down_is_not_asked),
        cmocka_unit_test(the_only_connection_is_given_up_for_it),
        cmocka_unit_test(a_host_is_known_by_its_name),
        cmocka_unit_test(holds_and_plans_end_detours),
    };
    return cmocka_run_group_tests_name("scheduler_detour", tests, NULL, NULL);
}
