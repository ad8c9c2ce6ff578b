/* The record of a pause, in a queue over the memory backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bh/kv_memory.h"
#include "bh/pause.h"

static void a_pause_is_kept_and_forgotten(void **unused)
{
    struct bh_kv *kv = bh_kv_memory_create((size_t)1 << 20, 0);
    struct bh_queue *q = NULL;
    struct bh_kv_txn *txn = NULL;
    struct bh_arena arena;
    struct bh_pause got;
    char error[200];
    char long_text[1000];
    const struct bh_queue_limits limits = {0};
    (void)unused;
    memset(long_text, 'x', sizeof(long_text));
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    assert_int_equal(bh_queue_open(kv, &limits, &q, error, sizeof(error)), BH_OK);
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_ENOTFOUND);
    assert_int_equal(bh_pause_clear(q, txn), BH_OK);

    struct bh_pause pause = {1764000000000, BH_LIT("anna"), BH_LIT("moving house")};
    assert_int_equal(bh_pause_put(q, txn, &pause), BH_OK);
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_OK);
    assert_int_equal(got.since_unix_ms, 1764000000000);
    assert_true(bh_slice_eq(got.by, BH_LIT("anna")));
    assert_true(bh_slice_eq(got.reason, BH_LIT("moving house")));

    pause.by = bh_slice(long_text, sizeof(long_text));
    pause.reason = pause.by;
    assert_int_equal(bh_pause_put(q, txn, &pause), BH_OK); /* the later one counts, cut */
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_OK);
    assert_int_equal(got.by.len, BH_PAUSE_BY_MAX);
    assert_int_equal(got.reason.len, BH_QUEUE_REASON_MAX);

    const struct bh_slice key = BH_LIT("intake/pause");
    assert_int_equal(bh_queue_policy_put(q, txn, key, BH_LIT("\x02")), BH_OK);
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_EVERSION);
    assert_int_equal(bh_queue_policy_put(q, txn, key, BH_LIT("\x01")), BH_OK);
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_ECORRUPT);
    assert_int_equal(bh_pause_clear(q, txn), BH_OK);
    assert_int_equal(bh_pause_get(txn, &arena, &got), BH_ENOTFOUND);
    assert_int_equal(bh_queue_commit(q, txn), BH_OK);
    bh_queue_destroy(q);
    bh_kv_close(kv);
    bh_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_pause_is_kept_and_forgotten)};
    return cmocka_run_group_tests_name("pause", tests, NULL, NULL);
}
