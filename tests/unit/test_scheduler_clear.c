/* In clear where TLS is broken: only what is old enough, and one round of attempts an interval,
 * however much mail waits and keeps coming. */
#include "scheduler_rig.h"

#define AGE_MS 300000
#define MINUTE_MS 60000

static const struct bh_outcome broken = {
    .stage = BH_STAGE_STARTTLS, .happened = BH_HAPPENED_REPLY, .code = 454};

/* Fresh mail of this destination that may go in clear from then on. */
static void mail(struct rig *r, uint32_t destination, uint32_t count, int64_t clear_from_unix_ms)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct bh_sched_item item = {.id = r->next_id++,
                                           .destination = destination,
                                           .size = 1000,
                                           .fresh = true,
                                           .clear_from_unix_ms = clear_from_unix_ms};
        assert_int_equal(bh_sched_fresh(r->s, &item, r->now), BH_OK);
    }
}

static void begin(struct rig *r, uint32_t destination)
{
    load_as(r, destination, (struct bh_sched_dest_state){0});
}

/* The session last opened meets broken TLS, twice. */
static void tls_fails(struct rig *r)
{
    const uint32_t destination = r->a.destination;
    closed(r, r->a.session, 1, BH_SCHED_THEIRS, NULL);
    expect(r, BH_SCHED_OPEN, destination);
    assert_true(bh_sched_go_clear(r->s, destination, &broken, r->now));
    closed(r, r->a.session, 1, BH_SCHED_THEIRS, NULL);
}

static void ready_in_clear(struct rig *r)
{
    assert_true(bh_sched_is_clear(r->s, r->a.destination));
    bh_sched_session_in_clear(r->s, r->a.session);
    ready(r, r->a.session, 1);
}

static void young_mail_opens_no_session_in_clear(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    r.policy.retry.jitter_permille = 0;
    begin(&r, 1);
    mail(&r, 1, 3, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    tls_fails(&r);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_true(r.a.young);
    assert_int_equal(r.a.stage, 0);
    assert_int_equal(r.a.until_unix_ms, r.now.unix_ms + MINUTE_MS);
    for (uint32_t i = 0; i < 3; i++) {
        expect(&r, BH_SCHED_DEMOTE, 1);
    }
    nothing(&r); /* no round failed: nothing expires by it */
    bh_sched_destroy(r.s);
}

/* It is tried again when it comes of age, where that is before the interval is over. */
static void it_waits_no_longer_than_till_it_is_old_enough(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    begin(&r, 1);
    mail(&r, 1, 1, r.now.unix_ms + 40000);
    mail(&r, 1, 1, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    tls_fails(&r);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_int_equal(r.a.until_unix_ms, r.now.unix_ms + 40000);
    bh_sched_destroy(r.s);

    /* ... but not in circles. */
    r = rig();
    r.policy.per_destination_start = 1;
    begin(&r, 1);
    mail(&r, 1, 1, r.now.unix_ms + 1);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    tls_fails(&r);
    expect(&r, BH_SCHED_BACKOFF, 1);
    assert_in_range(r.a.until_unix_ms, r.now.unix_ms + 30000, r.now.unix_ms + 66000);
    bh_sched_destroy(r.s);
}

/* What may never go in clear fails as with any other broken host, so that it can expire; what else
 * comes is not kept by it for longer and longer. */
static void what_may_never_go_in_clear_can_expire(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    r.policy.retry.glitches = 0;
    r.policy.retry.jitter_permille = 0;
    begin(&r, 1);
    for (uint32_t round = 0; round < 4; round++) {
        mail(&r, 1, 1, INT64_MAX);
        expect(&r, BH_SCHED_RESOLVE, 1);
        resolved(&r, 1, "a", 1, 1);
        expect(&r, BH_SCHED_OPEN, 1);
        tls_fails(&r);
        expect(&r, BH_SCHED_BACKOFF, 1);
        assert_int_equal(r.a.stage, 0);
        assert_int_equal(r.a.until_unix_ms, r.now.unix_ms + 300000);
        expect(&r, BH_SCHED_FAILED_ROUND, 1);
        expect(&r, BH_SCHED_DEMOTE, 1);
        nothing(&r);
        pass(&r, 300000);
        expect(&r, BH_SCHED_REFILL, 1);
        bh_sched_refilled(r.s, 1, NULL, 0, false, INT64_MAX, r.now);
        nothing(&r);
    }
    bh_sched_destroy(r.s);
}

static void session_in_clear_takes_what_is_old_enough(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    begin(&r, 1);
    begin(&r, 2);
    mail(&r, 1, 2, r.now.unix_ms + AGE_MS);
    mail(&r, 1, 2, r.now.unix_ms);
    mail(&r, 1, 1, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 1);
    mail(&r, 2, 1, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 2);
    resolved(&r, 2, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 2);
    const struct bh_sched_action first = r.a;
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const struct bh_sched_action second = r.a;
    r.a = first;
    closed(&r, first.session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 2);
    /* Another destination of the site has old mail: it goes, and the young one waits. */
    assert_true(bh_sched_go_clear(r.s, 2, &broken, r.now));
    closed(&r, r.a.session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_BACKOFF, 2);
    assert_true(r.a.young);
    expect(&r, BH_SCHED_DEMOTE, 2);
    nothing(&r);
    closed(&r, second.session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 1);
    ready_in_clear(&r);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 2);
    const struct bh_sched_action lease = r.a;
    assert_int_equal(lease.items[0]->id, 3);
    assert_int_equal(lease.items[1]->id, 4);
    nothing(&r);
    bh_sched_item_answered(r.s, lease.items[0]);
    bh_sched_item_answered(r.s, lease.items[1]);
    closed(&r, lease.session, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_BACKOFF, 1); /* the rest is too young: no session for it */
    assert_true(r.a.young);
    for (uint32_t i = 0; i < 3; i++) {
        expect(&r, BH_SCHED_DEMOTE, 1);
    }
    /* That the others are through, as the store says by now, does not end its wait. */
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_item_done(r.s, lease.items[1], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* While somebody is ready who has TLS, it is not needed. */
static void nothing_goes_in_clear_beside_a_session_with_tls(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 2;
    begin(&r, 1);
    mail(&r, 1, 40, 0);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t good = r.a.session;
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t bad = r.a.session;
    ready(&r, good, 1);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_false(bh_sched_go_clear(r.s, 1, &broken, r.now));
    closed(&r, bad, 1, BH_SCHED_THEIRS, &broken);
    assert_false(bh_sched_is_clear(r.s, 1));
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* TLS is well again: who waits for it is woken, young as its mail is. */
static void session_with_tls_ends_the_wait(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 1;
    begin(&r, 1);
    begin(&r, 2);
    mail(&r, 1, 1, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 1);
    mail(&r, 2, 1, r.now.unix_ms + AGE_MS);
    expect(&r, BH_SCHED_RESOLVE, 2);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t bad = r.a.session;
    resolved(&r, 2, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 2);
    const uint32_t good = r.a.session;
    assert_true(bh_sched_go_clear(r.s, 1, &broken, r.now));
    closed(&r, bad, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_BACKOFF, 1);
    expect(&r, BH_SCHED_DEMOTE, 1);
    nothing(&r);
    ready(&r, good, 1);
    assert_false(bh_sched_is_clear(r.s, 1));
    expect(&r, BH_SCHED_REFILL, 1);
    expect(&r, BH_SCHED_LEASE, 2);
    assert_int_equal(r.a.session, good);
    nothing(&r);
    bh_sched_destroy(r.s);
}

/* An idle one in clear is no way for mail that comes later. */
static void session_in_clear_without_work_ends(void **unused)
{
    (void)unused;
    struct rig r = rig();
    r.policy.per_destination_start = 2;
    begin(&r, 1);
    mail(&r, 1, 1, 0);
    mail(&r, 1, 1, 0);
    expect(&r, BH_SCHED_RESOLVE, 1);
    resolved(&r, 1, "a", 1, 1);
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t one = r.a.session;
    expect(&r, BH_SCHED_OPEN, 1);
    const uint32_t two = r.a.session;
    assert_true(bh_sched_go_clear(r.s, 1, &broken, r.now));
    closed(&r, one, 1, BH_SCHED_THEIRS, NULL);
    closed(&r, two, 1, BH_SCHED_THEIRS, NULL);
    expect(&r, BH_SCHED_OPEN, 1);
    const struct bh_sched_action first = r.a;
    expect(&r, BH_SCHED_OPEN, 1);
    const struct bh_sched_action second = r.a;
    r.a = first;
    ready_in_clear(&r);
    expect(&r, BH_SCHED_LEASE, 1);
    assert_int_equal(r.a.count, 1);
    const struct bh_sched_action lease = r.a;
    bh_sched_item_done(r.s, lease.items[0], BH_SIGNAL_SUCCESS, 0, NULL, r.now);
    bh_sched_session_idle(r.s, lease.session, r.now);
    expect(&r, BH_SCHED_LEASE, 1);
    r.a = second;
    ready_in_clear(&r);
    expect(&r, BH_SCHED_CLOSE, 0);
    assert_int_equal(r.a.session, second.session);
    bh_sched_destroy(r.s);
}

/* ---- a stream of mail to partners whose TLS stays broken ---- */

#define DESTS 4
#define ENTRIES 1300

struct entry {
    uint32_t dest;
    int64_t clear_from_unix_ms;
    bool fresh, stored, ended; /* in the fresh lane; in the entry lane; delivered */
};

struct stream {
    struct rig r;
    struct entry entries[ENTRIES];
    uint32_t count, ended;
    bool small[DESTS + 1];
    uint32_t tls, clear; /* sessions opened so */
    int64_t latest_ms;   /* how long one waited after it was old enough */
};

static void on_refill(struct stream *w, uint32_t dest)
{
    struct bh_sched_item items[BH_WINDOW_ITEMS_MAX];
    uint32_t count = 0;
    bool more = false;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct entry *entry = &w->entries[i];
        if (entry->dest == dest && entry->stored && !entry->ended) {
            more = count == BH_WINDOW_ITEMS_MAX;
            if (more) {
                break;
            }
            items[count++] =
                (struct bh_sched_item){.id = i + 1,
                                       .destination = dest,
                                       .size = 1000,
                                       .clear_from_unix_ms = entry->clear_from_unix_ms};
        }
    }
    bh_sched_refilled(w->r.s, dest, items, count, more, INT64_MAX, w->r.now);
}

static void on_open(struct stream *w, const struct bh_sched_action *open)
{
    const uint32_t dest = open->destination;
    w->r.now.mono_ms += 50;
    w->r.now.unix_ms += 50;
    if (bh_sched_is_clear(w->r.s, dest)) {
        w->clear++;
        bh_sched_session_in_clear(w->r.s, open->session);
        ready(&w->r, open->session, 1);
        return;
    }
    w->tls++;
    const bool again = !w->small[dest] || bh_sched_go_clear(w->r.s, dest, &broken, w->r.now);
    w->small[dest] = !w->small[dest];
    closed(&w->r, open->session, 1, BH_SCHED_THEIRS, again ? NULL : &broken);
}

static void on_lease(struct stream *w, const struct bh_sched_action *lease)
{
    w->r.now.mono_ms += 20;
    w->r.now.unix_ms += 20;
    for (uint32_t i = 0; i < lease->count; i++) {
        struct entry *entry = &w->entries[lease->items[i]->id - 1];
        const int64_t late_ms = w->r.now.unix_ms - entry->clear_from_unix_ms;
        assert_true(late_ms >= 0);
        w->latest_ms = late_ms > w->latest_ms ? late_ms : w->latest_ms;
        entry->ended = true;
        w->ended++;
        bh_sched_item_answered(w->r.s, lease->items[i]);
    }
    closed(&w->r, lease->session, 1, BH_SCHED_THEIRS, NULL);
    for (uint32_t i = 0; i < lease->count; i++) { /* the commit comes later */
        bh_sched_item_done(w->r.s, lease->items[i], BH_SIGNAL_SUCCESS, 0, NULL, w->r.now);
    }
}

static void pump(struct stream *w)
{
    struct bh_sched_action a;
    while (bh_sched_next(w->r.s, &a)) {
        switch (a.kind) {
        case BH_SCHED_RESOLVE:
            resolved(&w->r, a.destination, "a", 1, 1);
            break;
        case BH_SCHED_REFILL:
            on_refill(w, a.destination);
            break;
        case BH_SCHED_OPEN:
            on_open(w, &a);
            break;
        case BH_SCHED_LEASE:
            on_lease(w, &a);
            break;
        case BH_SCHED_DEMOTE:
            w->entries[a.item.id - 1].fresh = false;
            w->entries[a.item.id - 1].stored = true;
            bh_sched_dirty(w->r.s, a.destination, w->r.now);
            break;
        case BH_SCHED_CLOSE:
            closed(&w->r, a.session, 1, BH_SCHED_THEIRS, NULL);
            break;
        case BH_SCHED_FAILED_ROUND: /* nothing is to expire by it */
        case BH_SCHED_PARK:
        case BH_SCHED_BREAK:
            fail_msg("action %d", (int)a.kind);
            break;
        case BH_SCHED_FORGET:
        case BH_SCHED_BACKOFF:
        case BH_SCHED_RECOVERED:
            break;
        }
    }
}

static void a_stream_of_mail_costs_a_round_an_interval(void **unused)
{
    (void)unused;
    static struct stream w;
    w = (struct stream){.r = rig()};
    for (uint32_t dest = 1; dest <= DESTS; dest++) {
        begin(&w.r, dest);
    }
    pump(&w);
    const uint64_t began_ms = w.r.now.mono_ms;
    uint64_t arrival_ms = began_ms;
    while (w.ended < ENTRIES) {
        assert_true(w.r.now.mono_ms - began_ms < UINT64_C(7200000));
        if (w.count < ENTRIES && w.r.now.mono_ms >= arrival_ms) { /* one a second */
            struct entry *entry = &w.entries[w.count];
            *entry = (struct entry){.dest = 1 + w.count % DESTS,
                                    .clear_from_unix_ms = w.r.now.unix_ms + AGE_MS,
                                    .fresh = true};
            w.r.next_id = ++w.count;
            if (!bh_sched_has(w.r.s, entry->dest)) {
                begin(&w.r, entry->dest);
            }
            mail(&w.r, entry->dest, 1, entry->clear_from_unix_ms);
            arrival_ms += 1000;
        }
        const uint64_t deadline = bh_sched_deadline_ms(w.r.s);
        const uint64_t next = w.count < ENTRIES && arrival_ms < deadline ? arrival_ms : deadline;
        pass(&w.r, next > w.r.now.mono_ms ? next - w.r.now.mono_ms : 0);
        pump(&w);
    }
    const uint64_t minutes = (w.r.now.mono_ms - began_ms) / MINUTE_MS + 1;
    assert_in_range(minutes, 25, 30);
    print_message("%u sessions with TLS, %u in clear, in %u minutes; at most %u ms late\n", w.tls,
                  w.clear, (unsigned)minutes, (unsigned)w.latest_ms);
    /* 1,300 messages: with a session for each it would be thousands. */
    assert_true(w.tls <= 4 * DESTS * minutes);
    assert_true(w.clear <= 2 * DESTS * minutes);
    assert_true(w.latest_ms <= 100000);
    bh_sched_destroy(w.r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(young_mail_opens_no_session_in_clear),
        cmocka_unit_test(it_waits_no_longer_than_till_it_is_old_enough),
        cmocka_unit_test(what_may_never_go_in_clear_can_expire),
        cmocka_unit_test(session_in_clear_takes_what_is_old_enough),
        cmocka_unit_test(nothing_goes_in_clear_beside_a_session_with_tls),
        cmocka_unit_test(session_with_tls_ends_the_wait),
        cmocka_unit_test(session_in_clear_without_work_ends),
        cmocka_unit_test(a_stream_of_mail_costs_a_round_an_interval),
    };
    return cmocka_run_group_tests_name("scheduler_clear", tests, NULL, NULL);
}
