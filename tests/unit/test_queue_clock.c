/* What a wall clock that was fast, and has been stepped back, leaves in the queue. */
#include "queue_fixture.h"

#define T FIXTURE_NOW
#define FAST (T + BH_DAY_MS) /* what the clock said before */

struct world {
    struct bh_kv *kv;
    struct bh_queue *q;
    struct bh_kv_txn *txn;
    struct bh_arena arena;
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

static struct bh_queue_key put(struct world *w, const char *domain, int64_t now_ms)
{
    struct bh_queue_put_result result;
    assert_int_equal(fixture_put(w->q, w->txn, "s@x", domain, 1, 100, BH_HINT_ENTRY,
                                 fixture_now(now_ms), &w->arena, &result),
                     BH_OK);
    return (struct bh_queue_key){
        .destination = result.parts[0].destination, .id = result.id, .part = result.parts[0].part};
}

static void defer(struct world *w, struct bh_queue_key key, bool tried, int64_t due_ms,
                  int64_t now_ms)
{
    const struct bh_settle_recipient recipient = {.verdict = BH_VERDICT_KEEP,
                                                  .tried = tried,
                                                  .charged = tried,
                                                  .outcome = {.stage = BH_STAGE_RCPT, .code = 450}};
    const struct bh_settle params = {.key = key,
                                     .lane = BH_LANE_ENTRY,
                                     .recipients = &recipient,
                                     .recipient_count = 1,
                                     .charged = tried,
                                     .remaining = BH_ENTRY_DUE,
                                     .due_unix_ms = due_ms,
                                     .decision = BH_LIT("decision")};
    const struct bh_queue_notifier n = {.now = fixture_now(now_ms)};
    struct bh_settle_result result;
    assert_int_equal(bh_queue_settle(w->q, w->txn, &params, &n, &result), BH_OK);
}

static void back_off(struct world *w, uint32_t id, int64_t next_ms, int64_t now_ms)
{
    const struct bh_destination_change change = {.set = BH_SET_BACKOFF | BH_SET_LAST,
                                                 .backoff_stage = 1,
                                                 .last = {.stage = BH_STAGE_CONNECT},
                                                 .next_event_unix_ms = next_ms};
    assert_int_equal(bh_queue_destination_update(w->q, w->txn, id, &change, fixture_now(now_ms)),
                     BH_OK);
}

static int64_t due_of(struct world *w, struct bh_queue_key key)
{
    struct bh_entry e;
    assert_int_equal(bh_queue_read_entry(w->txn, key, &w->arena, &e), BH_OK);
    return e.due_unix_ms;
}

static struct bh_destination destination(struct world *w, uint32_t id)
{
    struct bh_destination d;
    assert_int_equal(bh_queue_read_destination(w->txn, id, &w->arena, &d), BH_OK);
    return d;
}

/* All slices of a pass. @return how many destinations were told */
static size_t redate(struct world *w, size_t rows_max, int64_t now_ms)
{
    struct bh_redate_pass pass = {0};
    uint32_t ids[100];
    size_t told = 0;
    enum bh_status status = BH_MORE;
    assert_true(rows_max <= BH_COUNT(ids));
    for (unsigned slices = 0; status == BH_MORE; slices++) {
        size_t count;
        status =
            bh_queue_redate_slice(w->q, w->txn, fixture_now(now_ms), rows_max, &pass, ids, &count);
        told += count;
        assert_true(slices < 1000);
    }
    assert_int_equal(status, BH_OK);
    return told;
}

static void waits_that_began_in_the_future_begin_anew(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key old = put(w, "a.test", FAST);
    const struct bh_queue_key untried = put(w, "a.test", FAST);
    const struct bh_queue_key right = put(w, "a.test", T);
    const struct bh_queue_key elsewhere = put(w, "b.test", FAST);
    defer(w, old, true, FAST + BH_HOUR_MS, FAST);
    defer(w, untried, false, FAST + 10 * BH_MINUTE_MS, FAST);
    defer(w, right, true, T + 4 * BH_HOUR_MS, T);
    defer(w, elsewhere, true, FAST + 2 * BH_HOUR_MS, FAST + BH_MINUTE_MS);
    assert_int_equal(redate(w, 100, T), 2);
    assert_int_equal(due_of(w, old), T + BH_HOUR_MS);
    assert_int_equal(due_of(w, untried), T + 10 * BH_MINUTE_MS);
    assert_int_equal(due_of(w, right), T + 4 * BH_HOUR_MS);
    assert_int_equal(due_of(w, elsewhere), T + 119 * BH_MINUTE_MS);
    /* Whoever looks at the wake rows finds them in time. */
    assert_int_equal(destination(w, old.destination).wake_unix_ms, T + 10 * BH_MINUTE_MS);
    assert_int_equal(destination(w, elsewhere.destination).wake_unix_ms, T + 119 * BH_MINUTE_MS);
    assert_int_equal(redate(w, 100, T + BH_MINUTE_MS), 0); /* once is enough */
}

static void a_back_off_begins_anew(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key stale = put(w, "a.test", FAST);
    const struct bh_queue_key right = put(w, "b.test", T);
    const struct bh_queue_key derived = put(w, "c.test", FAST);
    back_off(w, stale.destination, FAST + 30 * BH_MINUTE_MS, FAST);
    back_off(w, right.destination, T + 30 * BH_MINUTE_MS, T);
    back_off(w, derived.destination, T + 20 * BH_MINUTE_MS, FAST); /* the scheduler was first */
    assert_int_equal(redate(w, 100, T), 1);
    assert_int_equal(destination(w, stale.destination).next_event_unix_ms, T + 30 * BH_MINUTE_MS);
    assert_int_equal(destination(w, stale.destination).wake_unix_ms, T + 30 * BH_MINUTE_MS);
    assert_int_equal(destination(w, right.destination).next_event_unix_ms, T + 30 * BH_MINUTE_MS);
    assert_int_equal(destination(w, derived.destination).next_event_unix_ms, T + 20 * BH_MINUTE_MS);
    assert_int_equal(redate(w, 100, T + BH_MINUTE_MS), 0);
}

static void slices_miss_nothing(void **state)
{
    struct world *w = *state;
    static const size_t sizes[] = {1, 2, 3, 7, 100};
    for (size_t k = 0; k < BH_COUNT(sizes); k++) {
        const int64_t fast = FAST + (int64_t)k * BH_DAY_MS;
        struct bh_queue_key keys[30];
        for (int i = 0; i < 30; i++) {
            char domain[16];
            snprintf(domain, sizeof(domain), "d%d.test", i % 4);
            keys[i] = put(w, domain, fast);
            defer(w, keys[i], true, fast + BH_HOUR_MS + i % 5, fast);
        }
        (void)redate(w, sizes[k], T);
        for (int i = 0; i < 30; i++) {
            assert_int_equal(due_of(w, keys[i]), T + BH_HOUR_MS + i % 5);
        }
    }
}

static void a_slow_clock_changes_nothing(void **state)
{
    struct world *w = *state;
    const struct bh_queue_key key = put(w, "a.test", T);
    defer(w, key, true, T + BH_HOUR_MS, T);
    back_off(w, key.destination, T + BH_HOUR_MS, T);
    assert_int_equal(redate(w, 100, T + BH_DAY_MS), 0);
    assert_int_equal(redate(w, 100, T - 4 * BH_MINUTE_MS), 0); /* it rights itself */
    assert_int_equal(due_of(w, key), T + BH_HOUR_MS);
}

static void ids_tell_of_a_clock_that_is_behind(void **state)
{
    struct world *w = *state;
    bool behind = true;
    assert_int_equal(bh_queue_clock_is_behind(w->txn, fixture_now(T), &behind), BH_OK);
    assert_false(behind); /* nothing was ever put */
    put(w, "a.test", T);
    assert_int_equal(bh_queue_clock_is_behind(w->txn, fixture_now(T), &behind), BH_OK);
    assert_false(behind);
    assert_int_equal(bh_queue_clock_is_behind(w->txn, fixture_now(T - BH_HOUR_MS), &behind), BH_OK);
    assert_true(behind);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(waits_that_began_in_the_future_begin_anew),
        TEST(a_back_off_begins_anew),
        TEST(slices_miss_nothing),
        TEST(a_slow_clock_changes_nothing),
        TEST(ids_tell_of_a_clock_that_is_behind),
    };
    return cmocka_run_group_tests_name("queue clock", tests, NULL, NULL);
}
