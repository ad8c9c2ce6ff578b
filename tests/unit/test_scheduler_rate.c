/* Single behaviours of the scheduler core: rates of messages, recipients and new connections, of a
 * connector, a destination and a host. */
#include "scheduler_rig.h"

#define SECOND_NS UINT64_C(1000000000)

/* What went out, and when. */
struct seen {
    uint32_t messages, recipients, opened, ticks;
    uint64_t last_ms;           /* of a message */
    uint64_t from_ms;           /* of the first one */
    uint32_t by_destination[5]; /* messages */
    uint32_t by_host[8];        /* connections that stood */
    uint8_t hosts;              /* of the plan: 1 to so many */
    const char *site;
};

static void rate(struct rig *r, enum bh_sched_scope scope, enum bh_sched_kind kind, uint64_t ns)
{
    r->policy.rates[scope][kind] = (struct bh_sched_rate){.interval_ns = ns};
}

static void mail(struct rig *r, uint32_t destination, uint32_t count, uint16_t recipients)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct bh_sched_item item = {.id = r->next_id++,
                                           .destination = destination,
                                           .recipients = recipients,
                                           .size = 1000,
                                           .fresh = true};
        assert_int_equal(bh_sched_fresh(r->s, &item, r->now), BH_OK);
    }
}

static void deliver(struct rig *r, struct seen *seen)
{
    for (uint32_t i = 0; i < r->a.count; i++) {
        if (seen->messages++ == 0) {
            seen->from_ms = r->now.mono_ms;
        }
        seen->recipients += r->a.items[i]->recipients;
        seen->by_destination[r->a.items[i]->destination]++;
    }
    seen->last_ms = r->now.mono_ms;
    delivered(r);
}

/* Everything that happens at once: names and connections answer immediately, at the first host that
 * may be tried, and all mail is taken. */
static void now(struct rig *r, struct seen *seen)
{
    while (bh_sched_next(r->s, &r->a)) {
        switch ((int)r->a.kind) {
        case BH_SCHED_RESOLVE:
            resolved(r, r->a.destination, seen->site != NULL ? seen->site : "a", 1,
                     seen->hosts > 0 ? seen->hosts : 1);
            break;
        case BH_SCHED_REFILL:
            bh_sched_refilled(r->s, r->a.destination, NULL, 0, false, INT64_MAX, r->now);
            break;
        case BH_SCHED_OPEN:
            seen->opened++;
            seen->by_host[r->a.addresses[0].ip.bytes[3]]++;
            ready(r, r->a.session, r->a.addresses[0].ip.bytes[3]);
            break;
        case BH_SCHED_LEASE:
            deliver(r, seen);
            break;
        case BH_SCHED_CLOSE:
            closed(r, r->a.session, 1, BH_SCHED_THEIRS, NULL);
            break;
        default:
            break;
        }
    }
}

/* Until so many messages have gone. Every tick is for something, idle sessions and the rest apart.
 */
static void until(struct rig *r, struct seen *seen, uint32_t messages)
{
    now(r, seen);
    while (seen->messages < messages) {
        assert_true(seen->ticks < 10000);
        seen->ticks++;
        (void)tick(r);
        now(r, seen);
    }
}

static uint64_t took_ms(const struct seen *seen)
{
    return seen->last_ms - seen->from_ms;
}

/* Ten messages of three recipients at one each 2 s, whatever has the rate. */
static void each_rate_spaces_what_it_is_of(void **unused)
{
    (void)unused;
    static const struct {
        enum bh_sched_kind kind;
        uint64_t takes_ms;
    } cases[] = {{BH_PER_MESSAGE, 18000}, {BH_PER_RECIPIENT, 54000}, {BH_PER_CONNECTION, 18000}};
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        for (size_t i = 0; i < BH_COUNT(cases); i++) {
            struct rig r = rig();
            struct seen seen = {0};
            rate(&r, scope, cases[i].kind, 2 * SECOND_NS);
            r.policy.messages_per_connection = 1;
            r.policy.idle_ms = 3600000;
            load_as(&r, 1, (struct bh_sched_dest_state){0});
            mail(&r, 1, 10, 3);
            until(&r, &seen, 1);
            assert_int_equal(info(&r, 1).limited.by, BH_LIMITED_BY_RATE);
            assert_int_equal(info(&r, 1).limited.scope, scope);
            assert_int_equal(info(&r, 1).limited.kind, cases[i].kind);
            if (scope == BH_OF_HOST) {
                assert_int_equal(info(&r, 1).limited.host.ip.bytes[3], 1);
            }
            until(&r, &seen, 10);
            assert_int_equal(took_ms(&seen), cases[i].takes_ms);
            assert_int_equal(seen.ticks, 9); /* it waits for the time, and does not look for it */
            bh_sched_destroy(r.s);
        }
    }
}

static void recipients_of_a_message_go_together(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    rate(&r, BH_OF_CONNECTOR, BH_PER_RECIPIENT, SECOND_NS);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    mail(&r, 1, 1, 100);
    mail(&r, 1, 1, 1);
    mail(&r, 1, 1, 7);
    mail(&r, 1, 1, 1);
    until(&r, &seen, 2);
    assert_int_equal(took_ms(&seen), 100000);
    until(&r, &seen, 3);
    assert_int_equal(took_ms(&seen), 101000);
    until(&r, &seen, 4);
    assert_int_equal(took_ms(&seen), 108000);
    bh_sched_destroy(r.s);
}

/* Destinations behind one smarthost: the rate of one is no other's. */
static void a_destination_waits_for_itself_alone(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    load_as(&r, 2, (struct bh_sched_dest_state){0});
    rate(&r, BH_OF_DESTINATION, BH_PER_MESSAGE, 60 * SECOND_NS);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    load_as(&r, 3, (struct bh_sched_dest_state){0});
    mail(&r, 1, 3, 1);
    mail(&r, 3, 3, 1);
    mail(&r, 2, 100, 1);
    until(&r, &seen, 102);
    assert_int_equal(took_ms(&seen), 0);
    assert_int_equal(seen.by_destination[2], 100);
    assert_int_equal(info(&r, 1).limited.scope, BH_OF_DESTINATION);
    until(&r, &seen, 106);
    assert_int_equal(took_ms(&seen), 120000);
    bh_sched_destroy(r.s);
}

/* What one host may not have yet, the other one gets; then all wait. */
static void hosts_are_paced_each_for_itself(void **unused)
{
    (void)unused;
    for (enum bh_sched_kind kind = BH_PER_MESSAGE; kind < BH_KINDS; kind++) {
        struct rig r = rig();
        struct seen seen = {.hosts = 2};
        rate(&r, BH_OF_HOST, kind, 10 * SECOND_NS);
        r.policy.idle_ms = 3600000;
        r.policy.messages_per_connection = kind == BH_PER_CONNECTION ? 1 : 0;
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        mail(&r, 1, 6, 1);
        until(&r, &seen, 6);
        assert_int_equal(took_ms(&seen), 20000);
        assert_int_equal(seen.by_host[1], seen.by_host[2]);
        bh_sched_destroy(r.s);
    }
}

/* One address behind two connectors: neither sees the other's mail, but the host sees both. */
static void a_host_counts_across_connectors(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    rate(&r, BH_OF_HOST, BH_PER_MESSAGE, 10 * SECOND_NS);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    r.policy.connector[0] = 't';
    load_as(&r, 2, (struct bh_sched_dest_state){0});
    mail(&r, 1, 3, 1);
    now(&r, &seen);
    seen.site = "b";
    mail(&r, 2, 3, 1);
    until(&r, &seen, 6);
    assert_int_equal(took_ms(&seen), 50000);
    assert_int_equal(seen.by_destination[1], 3); /* and they take turns */
    bh_sched_destroy(r.s);
}

/* Its last message went before all of it left memory. */
static void what_is_owed_outlives_who_owes_it(void **unused)
{
    (void)unused;
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        struct rig r = rig();
        struct seen seen = {0};
        struct bh_sched_totals totals;
        rate(&r, scope, BH_PER_RECIPIENT, 3600 * SECOND_NS);
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        mail(&r, 1, 1, 2);
        until(&r, &seen, 1);
        while (bh_sched_has(r.s, 1)) {
            (void)tick(&r);
            now(&r, &seen);
        }
        bh_sched_totals(r.s, &totals);
        assert_int_equal(totals.sessions, 0);
        assert_int_equal(totals.sites, 0);
        assert_int_equal(totals.connectors + totals.hosts + totals.owing, 1);
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        mail(&r, 1, 1, 1);
        until(&r, &seen, 2);
        assert_int_equal(took_ms(&seen), 7200000);
        pass(&r, 3600001); /* and is forgotten once it is paid */
        now(&r, &seen);
        while (bh_sched_has(r.s, 1) || bh_sched_deadline_ms(r.s) != UINT64_MAX) {
            (void)tick(&r);
            now(&r, &seen);
        }
        bh_sched_totals(r.s, &totals);
        assert_int_equal(totals.connectors + totals.hosts + totals.owing, 0);
        bh_sched_destroy(r.s);
    }
}

/* What a reload does beside: what waits is brought anew, and goes by a site of the new generation.
 */
static void reloaded(struct rig *r, struct seen *seen)
{
    bh_sched_drop_window(r->s, 1, r->now);
    seen->site = "b";
    now(r, seen);
    mail(r, 1, 3 - seen->messages, 1);
}

/* A message has gone, the next one waits; then the rate is another one. */
static void a_changed_rate_keeps_what_is_owed(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t before_s, pass_ms, after_s; /* 0: unlimited */
        uint64_t at_ms, next_ms;             /* from the first message on */
    } cases[] = {
        {3600, 600000, 3600, 3600000, 7200000},                      /* not changed at all */
        {3600, 1800000, 60, 1830000, 1890000},                       /* half of it was paid */
        {60, 30000, 3600, 1830000, 5430000},                         /* the same the other way */
        {60, 59000, 1, 59017, 60017},                                /* never a burst */
        {60, 30000, 0, 30000, 30000},           {0, 1000, 60, 0, 0}, /* all went at once before */
    };
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        for (size_t i = 0; i < BH_COUNT(cases); i++) {
            struct rig r = rig();
            struct seen seen = {0};
            rate(&r, scope, BH_PER_MESSAGE, cases[i].before_s * SECOND_NS);
            r.policy.idle_ms = 3600000;
            load_as(&r, 1, (struct bh_sched_dest_state){0});
            mail(&r, 1, 3, 1);
            until(&r, &seen, 1);
            pass(&r, cases[i].pass_ms);
            now(&r, &seen);
            rate(&r, scope, BH_PER_MESSAGE, cases[i].after_s * SECOND_NS);
            load_as(&r, 1, (struct bh_sched_dest_state){0});
            reloaded(&r, &seen);
            until(&r, &seen, 2);
            assert_in_range(took_ms(&seen), cases[i].at_ms, cases[i].at_ms + 1);
            until(&r, &seen, 3);
            assert_in_range(took_ms(&seen), cases[i].next_ms, cases[i].next_ms + 1);
            bh_sched_destroy(r.s);
        }
    }
}

/* A reload tells one destination after the other; who waits may be any of them. */
static void a_raised_rate_wakes_who_waits_for_it(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    rate(&r, BH_OF_CONNECTOR, BH_PER_MESSAGE, 3600 * SECOND_NS);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    load_as(&r, 2, (struct bh_sched_dest_state){0});
    mail(&r, 1, 2, 1);
    until(&r, &seen, 1);
    rate(&r, BH_OF_CONNECTOR, BH_PER_MESSAGE, 0);
    load_as(&r, 2, (struct bh_sched_dest_state){0}); /* which has no mail */
    until(&r, &seen, 2);
    assert_int_equal(took_ms(&seen), 0);
    bh_sched_destroy(r.s);
}

/* It was leased, and did not go. */
static void what_did_not_go_is_not_charged(void **unused)
{
    (void)unused;
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        struct rig r = rig();
        struct seen seen = {0};
        rate(&r, scope, BH_PER_RECIPIENT, 10 * SECOND_NS);
        load_as(&r, 1, (struct bh_sched_dest_state){0});
        mail(&r, 1, 2, 5);
        expect(&r, BH_SCHED_RESOLVE, 1);
        resolved(&r, 1, "a", 1, 1);
        expect(&r, BH_SCHED_OPEN, 1);
        ready(&r, r.a.session, 1);
        expect(&r, BH_SCHED_LEASE, 1);
        assert_int_equal(r.a.count, 1);
        const struct bh_sched_action lease = r.a;
        pass(&r, 4000);
        nothing(&r);
        const uint64_t returned_ms = r.now.mono_ms;
        bh_sched_item_returned(r.s, lease.items[0], r.now);
        bh_sched_session_idle(r.s, lease.session, r.now);
        until(&r, &seen, 2);
        assert_int_equal(seen.from_ms, returned_ms); /* at once */
        assert_int_equal(took_ms(&seen), 50000);
        bh_sched_destroy(r.s);
    }
}

/* The first host does not answer. While that is not known, either of both may be connected to. */
static void a_host_that_was_not_reached_is_not_charged(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    rate(&r, BH_OF_HOST, BH_PER_CONNECTION, 60 * SECOND_NS);
    r.policy.messages_per_connection = 1;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    mail(&r, 1, 1, 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 2);
    expect(&r, BH_SCHED_OPEN, 1);
    assert_int_equal(r.a.count, 2);
    nothing(&r);
    pass(&r, 100);
    ready(&r, r.a.session, 2);
    expect(&r, BH_SCHED_LEASE, 1);
    deliver(&r, &seen);
    mail(&r, 1, 1, 1);
    until(&r, &seen, 2);
    assert_int_equal(seen.by_host[1], 1); /* at once */
    assert_int_equal(took_ms(&seen), 0);
    mail(&r, 1, 1, 1);
    until(&r, &seen, 3);
    assert_int_equal(seen.by_host[2], 1); /* a minute after the first */
    assert_int_equal(took_ms(&seen), 60000 - 100);
    bh_sched_destroy(r.s);
}

static void a_burst_is_what_the_slack_allows(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    r.policy.rates[BH_OF_CONNECTOR][BH_PER_MESSAGE] =
        (struct bh_sched_rate){.interval_ns = 1000000, .slack_ns = 10000000}; /* 1000/s */
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    mail(&r, 1, 2011, 1);
    until(&r, &seen, 11);
    assert_int_equal(took_ms(&seen), 0);
    until(&r, &seen, 2011);
    assert_int_equal(took_ms(&seen), 2000);
    bh_sched_destroy(r.s);
}

/* For the forecast: what has left in the last minutes, over the time that there was something to
 * leave. */
static void what_leaves_is_counted_while_there_is_work(void **unused)
{
    (void)unused;
    struct rig r = rig();
    struct seen seen = {0};
    rate(&r, BH_OF_CONNECTOR, BH_PER_MESSAGE, 10 * SECOND_NS);
    r.policy.idle_ms = 3600000;
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    mail(&r, 1, 10, 1);
    until(&r, &seen, 1);
    assert_int_equal(info(&r, 1).left_ms, 0); /* nothing is known yet */
    until(&r, &seen, 10);
    assert_int_equal(info(&r, 1).left, 9);
    assert_int_equal(info(&r, 1).left_ms, 90000);
    pass(&r, 40000);
    now(&r, &seen);
    assert_int_equal(info(&r, 1).left_ms, 90000); /* it had nothing to send */
    mail(&r, 1, 101, 1);
    until(&r, &seen, 11);
    assert_int_equal(info(&r, 1).left, 10);
    assert_int_equal(info(&r, 1).left_ms, 90000);
    until(&r, &seen, 61); /* 500 s more: what is older than 300 s does not count */
    assert_in_range(info(&r, 1).left_ms, 150000, 300000);
    assert_in_range(info(&r, 1).left, info(&r, 1).left_ms / 10000 - 1,
                    info(&r, 1).left_ms / 10000 + 1);
    rate(&r, BH_OF_CONNECTOR, BH_PER_MESSAGE, SECOND_NS);
    load_as(&r, 1, (struct bh_sched_dest_state){0});
    until(&r, &seen, 111);
    assert_in_range(info(&r, 1).left, 50, 80); /* it follows */
    pass(&r, 1);
    bh_sched_destroy(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rate_spaces_what_it_is_of),
        cmocka_unit_test(recipients_of_a_message_go_together),
        cmocka_unit_test(a_destination_waits_for_itself_alone),
        cmocka_unit_test(hosts_are_paced_each_for_itself),
        cmocka_unit_test(a_host_counts_across_connectors),
        cmocka_unit_test(what_is_owed_outlives_who_owes_it),
        cmocka_unit_test(a_changed_rate_keeps_what_is_owed),
        cmocka_unit_test(a_raised_rate_wakes_who_waits_for_it),
        cmocka_unit_test(what_did_not_go_is_not_charged),
        cmocka_unit_test(a_host_that_was_not_reached_is_not_charged),
        cmocka_unit_test(a_burst_is_what_the_slack_allows),
        cmocka_unit_test(what_leaves_is_counted_while_there_is_work),
    };
    return cmocka_run_group_tests_name("scheduler_rate", tests, NULL, NULL);
}
