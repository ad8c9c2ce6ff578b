/* Envelopes whose receiving ended the process: how they are known again, for how long they are
 * refused, and that the record survives. */
#include "queue_fixture.h"

#include "bh/suspects.h"
#include "bh/wire.h"

static uint64_t print_of(const char *sender, const char *envid, uint64_t size,
                         const char *const *to, uint32_t count)
{
    struct bh_recipient recipients[4] = {0};
    const struct bh_envelope envelope = {.sender = bh_slice_str(sender),
                                         .envid = bh_slice_str(envid)};
    assert_true(count <= BH_COUNT(recipients));
    for (uint32_t i = 0; i < count; i++) {
        recipients[i].address = bh_slice_str(to[i]);
    }
    return bh_suspect_fingerprint(&envelope, size, recipients, count);
}

static void a_fingerprint_is_of_what_comes_again(void **unused)
{
    (void)unused;
    const char *const to[] = {"a@x.example", "b@x.example", "c@y.example"};
    const char *const turned[] = {"c@y.example", "a@x.example", "b@x.example"};
    const char *const twice[] = {"a@x.example", "a@x.example", "c@y.example"};
    const uint64_t one = print_of("s@us.example", "", 100, to, 3);
    assert_true(one != 0);
    assert_true(one == print_of("s@us.example", "", 100, turned, 3));
    const uint64_t others[] = {
        print_of("t@us.example", "", 100, to, 3),    print_of("s@us.example", "id1", 100, to, 3),
        print_of("s@us.example", "", 101, to, 3),    print_of("s@us.example", "", 100, to, 2),
        print_of("s@us.example", "", 100, twice, 3), print_of("", "", 0, to, 1)};
    for (size_t i = 0; i < BH_COUNT(others); i++) {
        assert_true(others[i] != one && others[i] != 0);
    }
}

static void the_while_doubles_and_ends(void **unused)
{
    (void)unused;
    struct bh_suspects s = {0};
    int64_t now = FIXTURE_NOW;
    assert_int_equal(bh_suspects_add(&s, 7, now), 1);
    assert_false(bh_suspects_refuse(&s, 7, now)); /* once may be chance */
    static const int64_t hours[] = {1, 2, 4, 8, 16, 24, 24};
    for (size_t i = 0; i < BH_COUNT(hours); i++) {
        assert_int_equal(bh_suspects_add(&s, 7, now), i + 2);
        assert_int_equal(s.count, 1);
        assert_true(bh_suspects_refuse(&s, 7, now));
        assert_false(bh_suspects_refuse(&s, 8, now));
        const int64_t span = hours[i] * BH_HOUR_MS;
        assert_int_equal(bh_suspect_until(&s.list[0], now), now + span);
        assert_true(bh_suspects_refuse(&s, 7, now + span - 1));
        assert_false(bh_suspects_refuse(&s, 7, now + span));
        assert_false(bh_suspects_refuse(&s, 7, now - 1)); /* the clock went back */
        now += span;
    }
    assert_false(bh_suspects_forget(&s, now));
    assert_true(bh_suspects_forget(&s, now + BH_SUSPECT_FORGET_MS));
    assert_int_equal(s.count, 0);
}

static void the_latest_are_kept(void **unused)
{
    (void)unused;
    struct bh_suspects s = {0};
    for (uint32_t i = 0; i < BH_SUSPECTS_MAX + 3; i++) {
        bh_suspects_add(&s, 100 + i, FIXTURE_NOW + i);
    }
    assert_int_equal(s.count, BH_SUSPECTS_MAX);
    for (uint32_t i = 0; i < BH_SUSPECTS_MAX + 3; i++) {
        assert_int_equal(bh_suspects_add(&s, 100 + BH_SUSPECTS_MAX + 2 - i, FIXTURE_NOW + 99),
                         i < BH_SUSPECTS_MAX ? 2 : 1);
        if (i == BH_SUSPECTS_MAX) {
            break;
        }
    }
}

static void the_record_is_kept(void **unused)
{
    (void)unused;
    struct bh_kv *kv = bh_kv_memory_create((size_t)1 << 20, 0);
    struct bh_queue *q = fixture_open(kv);
    struct bh_kv_txn *txn = NULL;
    struct bh_arena arena;
    struct bh_suspects s = {0};
    struct bh_suspects got = {.count = 5};
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    assert_int_equal(bh_suspects_get(txn, &arena, &got), BH_OK);
    assert_int_equal(got.count, 0);
    for (uint32_t i = 0; i < BH_SUSPECTS_MAX; i++) {
        bh_suspects_add(&s, UINT64_MAX - i, FIXTURE_NOW + i);
    }
    assert_int_equal(bh_suspects_put(q, txn, &s), BH_OK);
    assert_int_equal(bh_suspects_get(txn, &arena, &got), BH_OK);
    assert_int_equal(got.count, BH_SUSPECTS_MAX);
    assert_true(got.list[3].fingerprint == UINT64_MAX - 3 && got.list[3].crashes == 1 &&
                got.list[3].last_unix_ms == FIXTURE_NOW + 3);

    const struct bh_slice key = BH_LIT("intake/suspects");
    static const struct {
        struct bh_slice row;
        enum bh_status status;
    } bad[] = {{{"\x02", 1}, BH_EVERSION},
               {{"\x01", 1}, BH_ECORRUPT},
               {{"\x01\x00\x00\x00\x01", 5}, BH_ECORRUPT},
               {{"\x01\x7f\xff\xff\xff", 5}, BH_ECORRUPT},
               {{"\x01\x00\x00\x00\x00x", 6}, BH_ECORRUPT}};
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        assert_int_equal(bh_queue_policy_put(q, txn, key, bad[i].row), BH_OK);
        assert_int_equal(bh_suspects_get(txn, &arena, &got), bad[i].status);
        assert_int_equal(got.count, 0);
    }
    assert_int_equal(bh_queue_commit(q, txn), BH_OK);
    bh_queue_destroy(q);
    bh_kv_close(kv);
    bh_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fingerprint_is_of_what_comes_again),
        cmocka_unit_test(the_while_doubles_and_ends),
        cmocka_unit_test(the_latest_are_kept),
        cmocka_unit_test(the_record_is_kept),
    };
    return cmocka_run_group_tests_name("queue_suspects", tests, NULL, NULL);
}
