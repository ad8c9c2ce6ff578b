/* What the queue promises, one behaviour at a time, over the store in memory. */
#include "queue_fixture.h"

struct world {
    struct bh_kv *kv;
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    struct bh_arena arena;
    unsigned notices[BH_NOTICE_EXPANDED + 1];
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    *state = w;
    bh_arena_init(&w->arena, (size_t)16 << 20);
    w->kv = bh_kv_memory_create((size_t)64 << 20, 0);
    w->q = fixture_open(w->kv);
    return bh_queue_begin(w->q, NULL, &w->txn) != BH_OK;
}

/* Every test ends in a commit, and in a queue with nothing to complain of. */
static int tear_down(void **state)
{
    struct world *w = *state;
    assert_int_equal(bh_queue_commit(w->q, w->txn), BH_OK);
    fixture_check(w->kv);
    bh_queue_destroy(w->q);
    bh_kv_close(w->kv);
    bh_arena_fini(&w->arena);
    free(w);
    return 0;
}

static enum bh_status count_notices(void *ctx, struct bh_queue *q, struct bh_kv_txn *txn,
                                    const struct bh_message *message,
                                    const struct bh_notice *notices, size_t count)
{
    struct world *w = ctx;
    (void)q;
    (void)txn;
    assert_true(message->id > 0);
    for (size_t i = 0; i < count; i++) {
        w->notices[notices[i].action]++;
    }
    return BH_OK;
}

static struct bh_queue_notifier notifier(struct world *w, int64_t now_ms)
{
    return (struct bh_queue_notifier){.hook = count_notices, .ctx = w, .now = fixture_now(now_ms)};
}

static struct bh_queue_key put(struct world *w, const char *sender, const char *domain,
                               enum bh_lane_hint hint, int64_t now_ms)
{
    struct bh_queue_put_result result;
    assert_int_equal(fixture_put(w->q, w->txn, sender, domain, 1, 100, hint, fixture_now(now_ms),
                                 &w->arena, &result),
                     BH_OK);
    assert_int_equal(result.part_count, 1);
    return (struct bh_queue_key){
        .destination = result.parts[0].destination, .id = result.id, .part = result.parts[0].part};
}

static struct bh_settle_result settle(struct world *w, struct bh_queue_key key,
                                      enum bh_verdict verdict, enum bh_entry_state remaining,
                                      int64_t due_ms, int64_t now_ms)
{
    const struct bh_settle_recipient recipient = {.verdict = verdict,
                                                  .tried = true,
                                                  .charged = true,
                                                  .outcome = {.stage = BH_STAGE_RCPT, .code = 450}};
    const struct bh_settle params = {.key = key,
                                     .lane = BH_LANE_FRESH,
                                     .recipients = &recipient,
                                     .recipient_count = 1,
                                     .charged = true,
                                     .remaining = remaining,
                                     .due_unix_ms = due_ms,
                                     .reason = BH_LIT("because"),
                                     .decision = BH_LIT("decision")};
    const struct bh_queue_notifier n = notifier(w, now_ms);
    struct bh_settle_result result;
    assert_int_equal(bh_queue_settle(w->q, w->txn, &params, &n, &result), BH_OK);
    return result;
}

static struct bh_destination destination(struct world *w, uint32_t id)
{
    struct bh_destination d;
    assert_int_equal(bh_queue_read_destination(w->txn, id, &w->arena, &d), BH_OK);
    return d;
}

static void change(struct world *w, uint32_t id, unsigned set, int64_t next_ms, int64_t now_ms)
{
    const struct bh_destination_change c = {.set = set,
                                            .backoff_stage = set & BH_SET_BACKOFF ? 1 : 0,
                                            .next_event_unix_ms = next_ms,
                                            .hold_until_unix_ms = BH_QUEUE_NEVER,
                                            .hold_reason = BH_LIT("r"),
                                            .hold_by = BH_LIT("b"),
                                            .park_reason = BH_LIT("p")};
    assert_int_equal(bh_queue_destination_update(w->q, w->txn, id, &c, fixture_now(now_ms)), BH_OK);
}

#define T FIXTURE_NOW

static void ids_never_step_back(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key a = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    const struct bh_queue_key b = put(w, "s@x", "a.test", BH_HINT_ENTRY, T - BH_DAY_MS);
    const struct bh_queue_key c = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + 1);
    assert_true(a.id < b.id && b.id < c.id);
    assert_int_equal(c.id, (uint64_t)(T + 1) << 20);
}

static void fresh_mail_becomes_an_entry_at_its_first_deferral(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_FRESH_OK, T);
    assert_int_equal(bh_queue_fresh_count(w->q), 1);
    struct bh_destination d = destination(w, key.destination);
    assert_int_equal(bh_destination_entries(&d), 0); /* counts are of the entry lane */
    settle(w, key, BH_VERDICT_KEEP, BH_ENTRY_DUE, T + 300000, T);
    assert_int_equal(bh_queue_fresh_count(w->q), 0);
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, key, &w->arena, &e), BH_OK);
    assert_int_equal(e.lane, BH_LANE_ENTRY);
    assert_int_equal(e.state, BH_ENTRY_DUE);
    assert_int_equal(e.attempts, 1);
    assert_int_equal(e.recipients[0].last.code, 450);
    int64_t at;
    assert_int_equal(bh_queue_first_wake(w->txn, &at), BH_OK);
    assert_int_equal(at, T + 300000);
    assert_true(settle(w, key, BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, T).message_gone);
    assert_int_equal(bh_queue_read_entry(w->txn, key, &w->arena, &e), BH_ENOTFOUND);
    assert_int_equal(bh_queue_first_wake(w->txn, &at), BH_OK);
    assert_true(at == BH_QUEUE_NEVER);
}

static void the_fresh_lane_is_for_healthy_destinations_with_room(void **state)
{
    struct world *w = *state;
    struct bh_queue_put_result result;
    uint32_t sick = 0;
    for (int i = 0; i < 50; i++) {
        /* 15 in the window of a destination, 40 in all. */
        char domain[32];
        snprintf(domain, sizeof(domain), "d%d.test", i / 20);
        assert_int_equal(fixture_put(w->q, w->txn, "s@x", domain, 1, 10, BH_HINT_FRESH_OK,
                                     fixture_now(T), &w->arena, &result),
                         BH_OK);
        assert_int_equal(result.parts[0].lane, i % 20 < 15 ? BH_LANE_FRESH : BH_LANE_ENTRY);
        sick = result.parts[0].destination;
    }
    assert_int_equal(bh_queue_fresh_count(w->q), 40);
    change(w, sick, BH_SET_BACKOFF, T + 1000, T);
    struct bh_queue_item items[64];
    uint64_t id = 0;
    size_t count;
    assert_int_equal(bh_queue_scan_fresh(w->txn, &id, items, BH_COUNT(items), &count), BH_OK);
    assert_int_equal(count, 40);
    settle(w, items[0].key, BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, T);
    assert_int_equal(bh_queue_fresh_count(w->q), 39);
    char domain[32];
    snprintf(domain, sizeof(domain), "d2.test"); /* backs off */
    assert_int_equal(fixture_put(w->q, w->txn, "s@x", domain, 1, 10, BH_HINT_FRESH_OK,
                                 fixture_now(T), &w->arena, &result),
                     BH_OK);
    assert_int_equal(result.parts[0].lane, BH_LANE_ENTRY);
}

static void many_recipients_become_parts_of_a_hundred(void **state)
{
    struct world *w = *state;
    struct bh_queue_put_result result;
    assert_int_equal(fixture_put(w->q, w->txn, "s@x", "a.test", 250, 10, BH_HINT_FRESH_OK,
                                 fixture_now(T), &w->arena, &result),
                     BH_OK);
    assert_int_equal(result.part_count, 3);
    assert_int_equal(result.parts[2].recipients, 50);
    assert_int_equal(result.parts[2].first, 200);
    struct bh_message m;
    assert_int_equal(bh_queue_read_message(w->txn, result.id, &w->arena, &m), BH_OK);
    assert_int_equal(m.open, 3);
}

static void refill_takes_from_both_by_weight(void **state)
{
    struct world *w = *state;
    struct bh_queue_key keys[12];
    for (int i = 0; i < 12; i++) {
        keys[i] = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + i);
        if (i >= 6) { /* retries, the later ones due earlier; the last is not due yet */
            settle(w, keys[i], BH_VERDICT_KEEP, BH_ENTRY_DUE, i == 11 ? T + 5000 : T + 100 - i, T);
        }
    }
    struct bh_refill refill = {.destination = keys[0].destination,
                               .now_unix_ms = T + 1000,
                               .items_max = 6,
                               .bytes_max = UINT64_MAX,
                               .ready_weight = 2,
                               .due_weight = 1};
    struct bh_refill_cursor cursor = {0};
    struct bh_queue_item items[12];
    size_t count;
    assert_int_equal(bh_queue_refill(w->txn, &refill, &cursor, items, &count), BH_MORE);
    assert_int_equal(count, 6);
    static const int want[] = {0, 1, 10, 2, 3, 9};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(items[i].key.id, keys[want[i]].id);
    }
    assert_int_equal(bh_queue_refill(w->txn, &refill, &cursor, items, &count), BH_OK);
    assert_int_equal(count, 5); /* 4, 8, 5, 7, 6 */
    assert_int_equal(items[4].key.id, keys[6].id);
    /* At least one, however large; then no more than fit. */
    cursor = (struct bh_refill_cursor){0};
    refill.bytes_max = 50;
    assert_int_equal(bh_queue_refill(w->txn, &refill, &cursor, items, &count), BH_MORE);
    assert_int_equal(count, 1);
    /* A flush makes due what was not tried since, whatever its time. */
    cursor = (struct bh_refill_cursor){0};
    refill.bytes_max = UINT64_MAX;
    refill.items_max = 12;
    refill.flush_up_to_id = keys[11].id;
    refill.flush_unix_ms = T + 1;
    assert_int_equal(bh_queue_refill(w->txn, &refill, &cursor, items, &count), BH_OK);
    assert_int_equal(count, 12);
    refill.flush_unix_ms = T; /* tried at T: not before the flush */
    cursor = (struct bh_refill_cursor){0};
    assert_int_equal(bh_queue_refill(w->txn, &refill, &cursor, items, &count), BH_OK);
    assert_int_equal(count, 11);
}

static size_t expire(struct world *w, uint32_t destination_id, int64_t now_ms, size_t rows)
{
    struct bh_age_pass pass = {0};
    struct bh_aged aged[50];
    const struct bh_queue_notifier n = notifier(w, now_ms);
    const struct bh_expire params = {.destination = destination_id,
                                     .expire_ms = 5 * BH_DAY_MS,
                                     .expire_null_ms = BH_DAY_MS,
                                     .outcome = {.happened = BH_HAPPENED_EXPIRED},
                                     .rows_max = rows};
    size_t total = 0;
    size_t count;
    enum bh_status status;
    do {
        status = bh_queue_expire_slice(w->q, w->txn, &params, &n, &pass, aged, &count);
        total += count;
    } while (status == BH_MORE);
    assert_int_equal(status, BH_OK);
    return total;
}

static void time_on_hold_or_parked_does_not_age(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key a = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    const struct bh_queue_key b = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + 1);
    settle(w, b, BH_VERDICT_KEEP, BH_ENTRY_HELD, 0, T + 2 * BH_DAY_MS);
    /* Stays on hold: passes walk on beyond b because of it. */
    const struct bh_queue_key c = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + 2);
    settle(w, c, BH_VERDICT_KEEP, BH_ENTRY_HELD, 0, T + 2);
    /* Parked for three days from day 2, held as well in the middle of it: three days count once. */
    change(w, a.destination, BH_SET_PARK, T, T + 2 * BH_DAY_MS);
    change(w, a.destination, BH_SET_HOLD, 0, T + 3 * BH_DAY_MS);
    change(w, a.destination, BH_CLEAR_HOLD, 0, T + 4 * BH_DAY_MS);
    change(w, a.destination, BH_CLEAR_PARK, 0, T + 5 * BH_DAY_MS);
    struct bh_entry e;
    struct bh_destination d = destination(w, a.destination);
    assert_int_equal(bh_queue_read_entry(w->txn, a, &w->arena, &e), BH_OK);
    assert_int_equal(bh_entry_age_ms(&e, &d, T + 7 * BH_DAY_MS), 4 * BH_DAY_MS);
    assert_int_equal(bh_queue_read_entry(w->txn, b, &w->arena, &e), BH_OK);
    assert_int_equal(bh_entry_age_ms(&e, &d, T + 7 * BH_DAY_MS), 2 * BH_DAY_MS - 1);
    assert_int_equal(expire(w, a.destination, T + 8 * BH_DAY_MS - 1, 10), 0);
    /* a at 5 days; b is on hold, and passed over for good, until it is released. */
    assert_int_equal(expire(w, a.destination, T + 8 * BH_DAY_MS, 1), 1);
    assert_int_equal(expire(w, a.destination, T + 30 * BH_DAY_MS, 10), 0);
    assert_true(destination(w, a.destination).expire_cursor >= b.id);
    settle(w, b, BH_VERDICT_KEEP, BH_ENTRY_READY, 0, T + 30 * BH_DAY_MS);
    assert_int_equal(expire(w, a.destination, T + 32 * BH_DAY_MS, 10), 0);
    assert_int_equal(expire(w, a.destination, T + 33 * BH_DAY_MS + 1, 10), 1);
    assert_int_equal(w->notices[BH_NOTICE_FAILED], 2);
}

static void null_senders_expire_by_their_own_time(void **state)
{
    struct world *w = *state;
    struct bh_queue_key first = {0};
    for (int i = 0; i < 20; i++) {
        first = put(w, i % 2 == 0 ? "" : "s@x", "a.test", BH_HINT_ENTRY, T + i);
    }
    assert_int_equal(expire(w, first.destination, T + BH_DAY_MS + 5, 3), 3); /* 0, 2, 4 */
    assert_int_equal(expire(w, first.destination, T + BH_DAY_MS + 100, 3), 7);
    assert_int_equal(expire(w, first.destination, T + 5 * BH_DAY_MS + 100, 3), 10);
    const struct bh_destination d = destination(w, first.destination);
    assert_int_equal(bh_destination_entries(&d), 0);
    assert_int_equal(d.slot_count, 0);
}

static void senders_are_warned_once(void **state)
{
    struct world *w = *state;
    struct bh_queue_key key = {0};
    for (int i = 0; i < 5; i++) {
        key = put(w, i == 2 ? "" : "s@x", "a.test", BH_HINT_ENTRY, T + i);
    }
    const struct bh_queue_notifier n = notifier(w, T + 4 * BH_HOUR_MS + 3);
    const struct bh_warn warn = {
        .destination = key.destination, .warn_ms = 4 * BH_HOUR_MS, .rows_max = 2};
    for (int round = 0; round < 2; round++) {
        struct bh_age_pass pass = {0};
        struct bh_aged aged[2];
        size_t count;
        enum bh_status status;
        do {
            status = bh_queue_warn_slice(w->q, w->txn, &warn, &n, &pass, aged, &count);
        } while (status == BH_MORE);
        assert_int_equal(status, BH_OK);
        assert_int_equal(w->notices[BH_NOTICE_DELAYED], 3); /* 0, 1, 3 */
    }
}

static void a_hold_or_backoff_decides_the_next_event(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    assert_int_equal(destination(w, key.destination).wake_unix_ms, 0);
    change(w, key.destination, BH_SET_BACKOFF, T + 500, T);
    assert_int_equal(destination(w, key.destination).wake_unix_ms, T + 500);
    change(w, key.destination, BH_SET_HOLD, 0, T);
    assert_true(destination(w, key.destination).wake_unix_ms == BH_QUEUE_NEVER);
    change(w, key.destination, BH_CLEAR_HOLD, 0, T);
    assert_int_equal(destination(w, key.destination).wake_unix_ms, T + 500);
    change(w, key.destination, BH_SET_FLUSH, 0, T);
    assert_int_equal(destination(w, key.destination).wake_unix_ms, 0);
    assert_int_equal(destination(w, key.destination).flush_up_to_id, key.id);
    struct bh_queue_wake rows[4];
    size_t count;
    assert_int_equal(bh_queue_scan_wake(w->txn, T, NULL, rows, 4, &count), BH_OK);
    assert_int_equal(count, 1);
    assert_int_equal(rows[0].destination, key.destination);
}

static void history_keeps_the_last_eight(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    for (int i = 0; i < 11; i++) {
        settle(w, key, BH_VERDICT_KEEP, BH_ENTRY_DUE, T + i, T);
    }
    struct bh_slice decisions[BH_QUEUE_HISTORY_MAX];
    size_t count;
    assert_int_equal(bh_queue_read_history(w->txn, key, &w->arena, decisions, &count), BH_OK);
    assert_int_equal(count, 8);
    struct bh_queue_key to;
    assert_int_equal(
        bh_queue_rebind(w->q, w->txn, key, BH_LIT("a.test"), BH_LIT("bank"), fixture_now(T), &to),
        BH_OK);
    assert_int_not_equal(to.destination, key.destination);
    assert_int_equal(bh_queue_read_history(w->txn, key, &w->arena, decisions, &count), BH_OK);
    assert_int_equal(count, 0);
    assert_int_equal(bh_queue_read_history(w->txn, to, &w->arena, decisions, &count), BH_OK);
    assert_int_equal(count, 8);
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, to, &w->arena, &e), BH_OK);
    assert_int_equal(e.attempts, 11); /* nothing charged */
    assert_int_equal(e.due_unix_ms, T + 10);
}

/* A reload that gives a domain to another connector must not free what is held. */
static void a_hold_goes_along_with_its_mail(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    const struct bh_queue_key other = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    const struct bh_queue_key third = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    struct bh_destination_change hold = {.set = BH_SET_HOLD,
                                         .hold_reason = BH_LIT("ticket 8812"),
                                         .hold_by = BH_LIT("operator"),
                                         .hold_until_unix_ms = T + BH_HOUR_MS};
    const struct bh_now later = fixture_now(T + BH_MINUTE_MS);
    assert_int_equal(
        bh_queue_destination_update(w->q, w->txn, key.destination, &hold, fixture_now(T)), BH_OK);
    struct bh_queue_key to;
    assert_int_equal(
        bh_queue_rebind(w->q, w->txn, key, BH_LIT("a.test"), BH_LIT("bank"), later, &to), BH_OK);
    struct bh_destination d = destination(w, to.destination);
    assert_true(d.held);
    assert_true(bh_slice_eq(d.hold_reason, BH_LIT("ticket 8812")));
    assert_true(bh_slice_eq(d.hold_by, BH_LIT("operator")));
    assert_int_equal(d.hold_since_unix_ms, T);
    assert_int_equal(d.hold_until_unix_ms, T + BH_HOUR_MS);
    assert_int_equal(d.wake_unix_ms, T + BH_HOUR_MS);
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, to, &w->arena, &e), BH_OK);
    assert_int_equal(bh_entry_age_ms(&e, &d, T + BH_HOUR_MS), 0); /* no time passed for it */
    /* Another domain is not meant by it; a longer hold stays; one whose time is over is none. */
    assert_int_equal(
        bh_queue_rebind(w->q, w->txn, other, BH_LIT("b.test"), BH_LIT("bank"), later, &to), BH_OK);
    assert_false(destination(w, to.destination).held);
    hold.hold_reason = BH_LIT("longer");
    hold.hold_until_unix_ms = BH_QUEUE_NEVER;
    assert_int_equal(bh_queue_destination_update(w->q, w->txn, d.id, &hold, later), BH_OK);
    assert_int_equal(
        bh_queue_rebind(w->q, w->txn, third, BH_LIT("a.test"), BH_LIT("bank"), later, &to), BH_OK);
    assert_int_equal(to.destination, d.id);
    assert_true(destination(w, d.id).hold_until_unix_ms == BH_QUEUE_NEVER);
    const struct bh_queue_key last = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    assert_int_equal(last.destination, key.destination);
    assert_int_equal(bh_queue_rebind(w->q, w->txn, last, BH_LIT("a.test"), BH_LIT("late"),
                                     fixture_now(T + BH_HOUR_MS), &to),
                     BH_OK);
    assert_false(destination(w, to.destination).held);
}

static void a_hold_goes_ahead_of_mail(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    uint32_t to = 99;
    assert_int_equal(
        bh_queue_carry_hold(w->q, w->txn, key.destination, BH_LIT("bank"), fixture_now(T), &to),
        BH_OK);
    assert_int_equal(to, 0); /* there is none */
    change(w, key.destination, BH_SET_HOLD, 0, T);
    assert_int_equal(
        bh_queue_carry_hold(w->q, w->txn, key.destination, BH_LIT("default"), fixture_now(T), &to),
        BH_OK);
    assert_int_equal(to, 0); /* that is where it is */
    assert_int_equal(
        bh_queue_carry_hold(w->q, w->txn, key.destination, BH_LIT("bank"), fixture_now(T), &to),
        BH_OK);
    const struct bh_destination d = destination(w, to);
    assert_true(d.held && d.hold_until_unix_ms == BH_QUEUE_NEVER);
    assert_true(bh_slice_eq(d.domain, BH_LIT("a.test")));
    assert_true(bh_slice_eq(d.connector, BH_LIT("bank")));
    assert_true(destination(w, key.destination).held);
}

static void notices_follow_notify(void **state)
{
    struct world *w = *state;
    settle(w, put(w, "s@x", "a.test", BH_HINT_FRESH_OK, T), BH_VERDICT_RELAYED, BH_ENTRY_READY, 0,
           T);
    settle(w, put(w, "s@x", "a.test", BH_HINT_FRESH_OK, T), BH_VERDICT_CANCELLED, BH_ENTRY_READY, 0,
           T);
    assert_int_equal(w->notices[BH_NOTICE_RELAYED], 0); /* nobody asked for success */
    assert_int_equal(w->notices[BH_NOTICE_FAILED], 0);
    settle(w, put(w, "s@x", "a.test", BH_HINT_FRESH_OK, T), BH_VERDICT_BOUNCED, BH_ENTRY_READY, 0,
           T);
    assert_int_equal(w->notices[BH_NOTICE_FAILED], 1);
}

static void a_message_that_kills_twice_is_quarantined(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_FRESH_OK, T);
    bool quarantined = true;
    assert_int_equal(bh_queue_mark_crashed(w->q, w->txn, key.id, fixture_now(T), &quarantined),
                     BH_OK);
    assert_false(quarantined);
    const uint64_t mask[2] = {1, 0};
    assert_int_equal(
        bh_queue_mark_uncertain(w->q, w->txn, key, mask, BH_EMPTY, BH_LIT("crash"), fixture_now(T)),
        BH_OK);
    assert_int_equal(bh_queue_mark_crashed(w->q, w->txn, key.id, fixture_now(T), &quarantined),
                     BH_OK);
    assert_true(quarantined);
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, key, &w->arena, &e), BH_OK);
    assert_int_equal(e.state, BH_ENTRY_HELD);
    assert_true(e.uncertain && e.recipients[0].uncertain);
    assert_true(bh_slice_starts(e.reason, BH_LIT("quarantined")));
}

static bool is_in_flight(void *ctx, struct bh_queue_key key)
{
    return key.id == ((const struct bh_queue_key *)ctx)->id;
}

static struct bh_job run_job(struct world *w, enum bh_job_verb verb, struct bh_queue_key *in_flight)
{
    struct bh_job job = {.verb = verb, .reason = BH_LIT("why"), .by = BH_LIT("me")};
    uint64_t id;
    bh_selection_init(&job.selection);
    job.selection.domain = BH_LIT("a.test");
    job.selection.states = BH_SELECT_READY;
    assert_int_equal(bh_queue_job_create(w->q, w->txn, &job, fixture_now(T), &id), BH_OK);
    const struct bh_queue_notifier n = notifier(w, T);
    const struct bh_job_slice slice = {
        .job = id, .rows_max = 100, .in_flight = is_in_flight, .ctx = in_flight};
    assert_int_equal(bh_queue_job_slice(w->q, w->txn, &slice, &n, &w->arena, &job), BH_OK);
    return job;
}

/* A job meets what was in flight when that is back, and only what it means. */
static void jobs_follow_what_was_in_flight(void **state)
{
    static const enum bh_job_verb verbs[] = {BH_JOB_HOLD, BH_JOB_CANCEL, BH_JOB_BOUNCE,
                                             BH_JOB_REQUEUE};
    struct world *w = *state;
    for (size_t i = 0; i < BH_COUNT(verbs); i++) {
        struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
        struct bh_queue_key other = put(w, "s@x", "b.test", BH_HINT_ENTRY, T);
        struct bh_job job = run_job(w, verbs[i], &key);
        struct bh_queue_key newer = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + 1);
        assert_int_equal(job.in_flight, 1);
        settle(w, key, BH_VERDICT_KEEP, BH_ENTRY_DUE, T + 1000, T); /* deferred by the partner */
        const struct bh_job_slice slice = {.outcome = {.happened = BH_HAPPENED_OPERATOR}};
        const struct bh_queue_notifier n = notifier(w, T);
        struct bh_queue_key *const keys[] = {&key, &other, &newer};
        for (size_t k = 0; k < BH_COUNT(keys); k++) {
            const struct bh_job_follow follow = {
                .key = *keys[k], .lane = BH_LANE_ENTRY, .jobs = &job.id, .job_count = k == 0};
            assert_int_equal(bh_queue_jobs_follow(w->q, w->txn, &follow, &slice, &n), BH_OK);
        }
        struct bh_entry e;
        const enum bh_status there = bh_queue_read_entry(w->txn, key, &w->arena, &e);
        switch (verbs[i]) {
        case BH_JOB_HOLD:
            assert_int_equal(there, BH_OK);
            assert_int_equal(e.state, BH_ENTRY_HELD);
            break;
        case BH_JOB_CANCEL:
        case BH_JOB_BOUNCE:
            assert_int_equal(there, BH_ENOTFOUND);
            assert_int_equal(
                bh_queue_jobs_follow(w->q, w->txn, &(struct bh_job_follow){.key = key}, &slice, &n),
                BH_ENOTFOUND);
            break;
        case BH_JOB_RELEASE:
        case BH_JOB_REQUEUE: /* it has just been tried */
            assert_int_equal(e.state, BH_ENTRY_DUE);
            break;
        }
        for (size_t k = 1; k < BH_COUNT(keys); k++) {
            assert_int_equal(bh_queue_read_entry(w->txn, *keys[k], &w->arena, &e), BH_OK);
            assert_int_equal(e.state, BH_ENTRY_READY);
            settle(w, *keys[k], BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, T);
        }
        assert_int_equal(bh_queue_jobs_sweep(w->q, w->txn), BH_OK);
        assert_int_equal(bh_queue_job_next(w->txn, 0, &w->arena, &job), BH_ENOTFOUND);
    }
    assert_int_equal(w->notices[BH_NOTICE_FAILED], 1);
}

/* Of the jobs that are listed when it is back, those that chose it count: one that was for other
 * states did not, whatever it has become since. A hold that was taken back comes to nothing. */
static void jobs_follow_in_their_order(void **state)
{
    static const struct {
        enum bh_job_verb verb[3];
        unsigned states[3];
        bool chosen[3];
        enum bh_entry_state becomes;
        bool gone;
    } cases[] = {
        {{BH_JOB_CANCEL}, {BH_SELECT_DUE}, {false}, BH_ENTRY_DUE, false},
        {{BH_JOB_CANCEL, BH_JOB_HOLD}, {BH_SELECT_DUE, 0}, {false, true}, BH_ENTRY_HELD, false},
        {{BH_JOB_HOLD, BH_JOB_CANCEL}, {0, BH_SELECT_DUE}, {true, false}, BH_ENTRY_HELD, false},
        {{BH_JOB_HOLD, BH_JOB_CANCEL}, {0, 0}, {true, true}, BH_ENTRY_DUE, true},
        {{BH_JOB_HOLD, BH_JOB_RELEASE}, {0, 0}, {true, false}, BH_ENTRY_DUE, false},
        {{BH_JOB_HOLD, BH_JOB_RELEASE}, {0, BH_SELECT_HELD}, {true, false}, BH_ENTRY_DUE, false},
        {{BH_JOB_RELEASE, BH_JOB_HOLD}, {0, 0}, {false, true}, BH_ENTRY_HELD, false},
        {{BH_JOB_HOLD, BH_JOB_RELEASE, BH_JOB_HOLD},
         {0, 0, 0},
         {true, false, true},
         BH_ENTRY_HELD,
         false},
    };
    struct world *w = *state;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
        uint64_t jobs[3];
        size_t count = 0;
        for (size_t k = 0; k < 3; k++) {
            struct bh_job job = {.verb = cases[i].verb[k], .reason = BH_LIT("why")};
            uint64_t id;
            bh_selection_init(&job.selection);
            job.selection.states = cases[i].states[k];
            if (k > 0 && cases[i].verb[k] == BH_JOB_HOLD && !cases[i].chosen[k]) {
                continue; /* no such job */
            }
            assert_int_equal(bh_queue_job_create(w->q, w->txn, &job, fixture_now(T), &id), BH_OK);
            if (cases[i].chosen[k]) {
                jobs[count++] = id;
            }
        }
        settle(w, key, BH_VERDICT_KEEP, BH_ENTRY_DUE, T + 1000, T);
        const struct bh_job_slice slice = {.outcome = {.happened = BH_HAPPENED_OPERATOR}};
        const struct bh_queue_notifier n = notifier(w, T);
        const struct bh_job_follow follow = {
            .key = key, .lane = BH_LANE_ENTRY, .jobs = jobs, .job_count = count};
        struct bh_entry e;
        if (count > 0) { /* else nobody passed it, and nothing follows */
            assert_int_equal(bh_queue_jobs_follow(w->q, w->txn, &follow, &slice, &n), BH_OK);
        }
        const enum bh_status there = bh_queue_read_entry(w->txn, key, &w->arena, &e);
        assert_int_equal(there, cases[i].gone ? BH_ENOTFOUND : BH_OK);
        if (there == BH_OK) {
            assert_int_equal(e.state, cases[i].becomes);
            assert_true(e.state != BH_ENTRY_DUE || e.due_unix_ms == T + 1000);
            settle(w, key, BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, T);
        }
        struct bh_job job;
        while (bh_queue_job_next(w->txn, 0, &w->arena, &job) == BH_OK) {
            assert_int_equal(bh_queue_job_remove(w->q, w->txn, job.id), BH_OK);
        }
    }
}

static void a_job_begins_anew_after_a_crash(void **state)
{
    struct world *w = *state;
    struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    struct bh_queue_key nobody = {0};
    struct bh_job job = run_job(w, BH_JOB_CANCEL, &key);
    assert_int_equal(bh_queue_jobs_reopen(w->q, w->txn), BH_OK);
    const struct bh_queue_notifier n = notifier(w, T);
    const struct bh_job_slice slice = {
        .job = job.id, .rows_max = 100, .in_flight = is_in_flight, .ctx = &nobody};
    assert_int_equal(bh_queue_job_slice(w->q, w->txn, &slice, &n, &w->arena, &job), BH_OK);
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, key, &w->arena, &e), BH_ENOTFOUND);
    assert_int_equal(job.acted, 1);
    assert_int_equal(job.in_flight, 0);
}

/* The engine ends a hold or a flush by what it read a moment ago: never a newer one. */
static void a_newer_hold_or_flush_stays(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    const struct bh_destination_change until = {
        .set = BH_SET_HOLD, .hold_reason = BH_LIT("r"), .hold_until_unix_ms = T + 5};
    struct bh_destination_change end = {.set = BH_END_HOLD, .hold_until_unix_ms = T + 5};
    assert_int_equal(
        bh_queue_destination_update(w->q, w->txn, key.destination, &until, fixture_now(T)), BH_OK);
    change(w, key.destination, BH_SET_HOLD, 0, T + 6); /* by an operator, for good */
    assert_int_equal(
        bh_queue_destination_update(w->q, w->txn, key.destination, &end, fixture_now(T + 7)),
        BH_OK);
    assert_true(destination(w, key.destination).held);
    end.hold_until_unix_ms = BH_QUEUE_NEVER;
    assert_int_equal(
        bh_queue_destination_update(w->q, w->txn, key.destination, &end, fixture_now(T + 8)),
        BH_OK);
    assert_false(destination(w, key.destination).held);

    /* A breaker's hold yields to one that lasts longer, and takes the place of one that does not.
     */
    struct bh_destination_change add = {.set = BH_ADD_HOLD,
                                        .hold_reason = BH_LIT("refused"),
                                        .hold_by = BH_LIT("breaker"),
                                        .hold_until_unix_ms = T + 20};
    change(w, key.destination, BH_SET_HOLD, 0, T + 9);
    assert_int_equal(
        bh_queue_destination_update(w->q, w->txn, key.destination, &add, fixture_now(T + 9)),
        BH_OK);
    assert_true(destination(w, key.destination).hold_until_unix_ms == BH_QUEUE_NEVER);
    change(w, key.destination, BH_CLEAR_HOLD, 0, T + 9);
    for (int i = 0; i < 2; i++, add.hold_until_unix_ms += 5) {
        assert_int_equal(
            bh_queue_destination_update(w->q, w->txn, key.destination, &add, fixture_now(T + 9)),
            BH_OK);
        assert_true(destination(w, key.destination).hold_until_unix_ms == add.hold_until_unix_ms);
    }
    change(w, key.destination, BH_CLEAR_HOLD, 0, T + 9);

    change(w, key.destination, BH_SET_FLUSH, 0, T + 10);
    struct bh_destination d = destination(w, key.destination);
    const struct bh_destination_change clear = {.set = BH_CLEAR_FLUSH,
                                                .flush_up_to_id = d.flush_up_to_id,
                                                .flush_unix_ms = d.flush_unix_ms};
    change(w, key.destination, BH_SET_FLUSH, 0, T + 20);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            bh_queue_destination_update(w->q, w->txn, key.destination, &clear, fixture_now(T + 21)),
            BH_OK);
        d = destination(w, key.destination);
        assert_true(d.flush_up_to_id == key.id && d.flush_unix_ms == T + 20);
    }
}

static void jobs_resume_and_leave_newer_mail_alone(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 10; i++) {
        put(w, i % 2 == 0 ? "s@x.test" : "t@y.test", i < 5 ? "a.test" : "b.test",
            i % 3 == 0 ? BH_HINT_FRESH_OK : BH_HINT_ENTRY, T);
    }
    struct bh_job job = {.verb = BH_JOB_HOLD, .reason = BH_LIT("why"), .by = BH_LIT("me")};
    bh_selection_init(&job.selection);
    job.selection.sender = BH_LIT("@X.test");
    uint64_t id;
    assert_int_equal(bh_queue_job_create(w->q, w->txn, &job, fixture_now(T), &id), BH_OK);
    put(w, "s@x.test", "a.test", BH_HINT_ENTRY, T + 1); /* newer */
    const struct bh_queue_notifier n = notifier(w, T);
    const struct bh_job_slice slice = {.job = id, .rows_max = 2};
    unsigned slices = 0;
    enum bh_status status;
    do {
        status = bh_queue_job_slice(w->q, w->txn, &slice, &n, &w->arena, &job);
        slices++;
    } while (status == BH_MORE);
    assert_int_equal(status, BH_OK);
    assert_true(slices > 3);
    assert_int_equal(job.matched, 5);
    assert_int_equal(job.acted, 5);
    assert_int_equal(bh_queue_fresh_count(w->q), 2); /* 3 and 9 are t's */
    assert_int_equal(bh_queue_job_next(w->txn, 0, &w->arena, &job), BH_OK);
    assert_true(job.done && job.id == id);
    assert_int_equal(bh_queue_job_remove(w->q, w->txn, id), BH_OK);
    assert_int_equal(bh_queue_job_next(w->txn, 0, &w->arena, &job), BH_ENOTFOUND);
}

static void empty_destinations_go_after_a_day(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "s@x", "a.test", BH_HINT_ENTRY, T);
    put(w, "s@x", "b.test", BH_HINT_FRESH_OK, T);
    size_t deleted;
    settle(w, key, BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, T);
    assert_int_equal(bh_queue_sweep(w->q, w->txn, 100, fixture_now(T + BH_DAY_MS - 1), &deleted),
                     BH_OK);
    assert_int_equal(deleted, 0);
    assert_int_equal(bh_queue_sweep(w->q, w->txn, 100, fixture_now(T + BH_DAY_MS), &deleted),
                     BH_OK);
    assert_int_equal(deleted, 1); /* b has fresh mail */
    struct bh_destination d;
    assert_int_equal(bh_queue_read_destination(w->txn, key.destination, &w->arena, &d),
                     BH_ENOTFOUND);
}

static void ages_are_counted_over_any_spread(void **state)
{
    struct world *w = *state;
    struct bh_queue_key keys[200];
    for (int i = 0; i < 200; i++) {
        keys[i] = put(w, "s@x", "a.test", BH_HINT_ENTRY, T + i * 17 * BH_MINUTE_MS);
    }
    const int64_t now = T + 199 * 17 * BH_MINUTE_MS;
    uint64_t ages[BH_AGE_BUCKETS];
    struct bh_destination d = destination(w, keys[0].destination);
    bh_destination_ages(&d, now, ages);
    assert_int_equal(ages[0] + ages[1] + ages[2] + ages[3] + ages[4], 200);
    assert_true(ages[0] >= 1 && ages[4] > 100);
    assert_true(d.slots[0].start_unix_ms <= T);
    for (int i = 0; i < 200; i += 2) {
        settle(w, keys[i], BH_VERDICT_DELIVERED, BH_ENTRY_READY, 0, now);
    }
    d = destination(w, keys[0].destination);
    bh_destination_ages(&d, now, ages);
    assert_int_equal(ages[0] + ages[1] + ages[2] + ages[3] + ages[4], 100);
}

static bool count_found(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    unsigned *count = ctx;
    (void)message;
    (void)entry;
    (*count)++;
    return true;
}

/* What is asked of one destination costs nothing for the others: a flush, a list, a job. */
static void one_domain_is_found_without_the_others(void **state)
{
    struct world *w = *state;
    char name[32];
    uint32_t id = 0;
    const struct bh_queue_key a = put(w, "s@x", "bank.test", BH_HINT_ENTRY, T);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "d%d.test", i);
        put(w, "s@x", name, BH_HINT_ENTRY, T);
    }
    assert_int_equal(bh_queue_destination_for(w->q, w->txn, BH_LIT("bank.test"), BH_LIT("other"),
                                              fixture_now(T), &id),
                     BH_OK);
    put(w, "s@x", "bank.tes", BH_HINT_ENTRY, T);
    const struct bh_queue_key last = put(w, "s@x", "d77.test", BH_HINT_ENTRY, T);

    struct bh_destination d;
    const struct bh_slice bank = BH_LIT("Bank.TEST");
    assert_int_equal(bh_queue_next_destination_of(w->txn, bank, 0, &w->arena, &d), BH_OK);
    assert_int_equal(d.id, a.destination);
    assert_int_equal(bh_queue_next_destination_of(w->txn, bank, d.id, &w->arena, &d), BH_OK);
    assert_int_equal(d.id, id);
    assert_int_equal(bh_queue_next_destination_of(w->txn, bank, d.id, &w->arena, &d), BH_ENOTFOUND);
    assert_int_equal(bh_queue_next_destination_of(w->txn, BH_LIT("test"), 0, &w->arena, &d),
                     BH_ENOTFOUND);

    struct bh_selection selection;
    struct bh_select_cursor cursor = {0};
    unsigned found = 0;
    bh_selection_init(&selection);
    selection.domain = BH_LIT("d77.test");
    assert_int_equal(bh_queue_select(w->txn, &selection, &cursor, 10, count_found, &found), BH_OK);
    assert_int_equal(found, 2);
    assert_true(last.destination > a.destination);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ids_never_step_back),
        TEST(fresh_mail_becomes_an_entry_at_its_first_deferral),
        TEST(the_fresh_lane_is_for_healthy_destinations_with_room),
        TEST(many_recipients_become_parts_of_a_hundred),
        TEST(refill_takes_from_both_by_weight),
        TEST(time_on_hold_or_parked_does_not_age),
        TEST(null_senders_expire_by_their_own_time),
        TEST(senders_are_warned_once),
        TEST(a_hold_or_backoff_decides_the_next_event),
        TEST(history_keeps_the_last_eight),
        TEST(a_hold_goes_along_with_its_mail),
        TEST(a_hold_goes_ahead_of_mail),
        TEST(notices_follow_notify),
        TEST(a_message_that_kills_twice_is_quarantined),
        TEST(jobs_resume_and_leave_newer_mail_alone),
        TEST(jobs_follow_what_was_in_flight),
        TEST(jobs_follow_in_their_order),
        TEST(a_job_begins_anew_after_a_crash),
        TEST(a_newer_hold_or_flush_stays),
        TEST(empty_destinations_go_after_a_day),
        TEST(ages_are_counted_over_any_spread),
        TEST(one_domain_is_found_without_the_others),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
