#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "bh/posture.h"
#include "queue_fixture.h"

#define NOW INT64_C(1795396330000)

static struct bh_posture_seen good(void)
{
    return (struct bh_posture_seen){.offered = true,
                                    .version = BH_TLS_VERSION_1_3,
                                    .issuer = BH_LIT("Bank Root"),
                                    .not_after_unix_ms = NOW + 90 * BH_DAY_MS};
}

/* What gets worse is told once; it stands until it is mended. */
static void each_regression_is_told_once(void **unused)
{
    struct bh_posture p;
    char text[BH_POSTURE_WORDS];
    struct bh_posture_seen seen = good();
    (void)unused;
    assert_int_equal(bh_posture_observe(&p, false, &seen, NOW), 0);
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 1), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 1), 0);

    seen.version = BH_TLS_VERSION_1_2;
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 2), BH_WORSE_VERSION);
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 3), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 3), BH_WORSE_VERSION);
    assert_string_equal(bh_posture_text(&p, BH_WORSE_VERSION, NOW, text),
                        "TLSv1.2 where it was TLSv1.3");

    const struct bh_posture_seen clear = {.issuer = BH_EMPTY};
    assert_int_equal(bh_posture_observe(&p, true, &clear, NOW + 4), BH_WORSE_NO_TLS);
    assert_int_equal(bh_posture_observe(&p, true, &clear, NOW + 5), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 5), BH_WORSE_NO_TLS);

    seen = good();
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 6), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 6), 0); /* mended */

    seen.issuer = BH_LIT("Somebody else");
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 7), BH_WORSE_ISSUER);
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 8), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 8), BH_WORSE_ISSUER);
    assert_int_equal(bh_posture_worse(&p, NOW + 8 * BH_DAY_MS), 0);

    seen.not_after_unix_ms = NOW + 13 * BH_DAY_MS;
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 9), BH_WORSE_EXPIRY);
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + BH_DAY_MS), 0);
    assert_true((bh_posture_worse(&p, NOW + BH_DAY_MS) & BH_WORSE_EXPIRY) != 0);
    bh_posture_text(&p, BH_WORSE_EXPIRY | BH_WORSE_ISSUER, NOW, text);
    assert_non_null(strstr(text, "Somebody else; its certificate ends 20"));
    seen.not_after_unix_ms = NOW + 400 * BH_DAY_MS;
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW + 2 * BH_DAY_MS), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 8 * BH_DAY_MS), 0);
}

/* A host that never offered STARTTLS has nothing to lose; its end comes nearer without a session.
 */
static void what_is_no_regression(void **unused)
{
    struct bh_posture p;
    const struct bh_posture_seen clear = {.issuer = BH_EMPTY};
    const struct bh_posture_seen seen = good();
    (void)unused;
    assert_int_equal(bh_posture_observe(&p, false, &clear, NOW), 0);
    assert_int_equal(bh_posture_observe(&p, true, &clear, NOW), 0);
    assert_int_equal(bh_posture_observe(&p, true, &seen, NOW), 0);
    assert_int_equal(bh_posture_worse(&p, NOW + 80 * BH_DAY_MS), BH_WORSE_EXPIRY);
}

static void rows_come_back(void **unused)
{
    char storage[BH_POSTURE_VALUE_MAX];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_posture p;
    struct bh_posture back;
    struct bh_posture_seen seen = good();
    (void)unused;
    seen.has_spki = true;
    seen.spki[31] = 7;
    bh_posture_observe(&p, false, &seen, NOW);
    assert_int_equal(bh_posture_write(&p, &out), BH_OK);
    assert_int_equal(bh_posture_read(bh_buf_slice(&out), &back), BH_OK);
    assert_true(back.offered && back.ever_offered && back.has_spki && back.spki[31] == 7);
    assert_true(bh_slice_eq(back.issuer, p.issuer) && back.last_unix_ms == NOW);
    assert_int_equal(back.not_after_unix_ms, p.not_after_unix_ms);
    for (size_t len = 0; len < out.len; len++) {
        assert_int_equal(bh_posture_read(bh_slice(storage, len), &back), BH_ECORRUPT);
    }
    storage[0] = 2;
    assert_int_equal(bh_posture_read(bh_buf_slice(&out), &back), BH_EVERSION);

    out.len = 0;
    const struct bh_reached reached = {.last_unix_ms = NOW,
                                       .verified_unix_ms = NOW - 5,
                                       .auth = BH_LIT("name"),
                                       .tls = BH_LIT("TLSv1.3"),
                                       .host = BH_LIT("mx.bank.test")};
    struct bh_reached again;
    assert_int_equal(bh_reached_write(&reached, &out), BH_OK);
    assert_int_equal(bh_reached_read(bh_buf_slice(&out), &again), BH_OK);
    assert_true(again.verified_unix_ms == NOW - 5 && bh_slice_eq(again.host, reached.host));
}

/* The rows are bounded: those that were not seen for longest go, and no others. */
static void the_oldest_rows_go(void **unused)
{
    (void)unused;
    struct bh_kv *kv = bh_kv_memory_create((size_t)64 << 20, 1 << 20);
    struct bh_queue *q = fixture_open(kv);
    struct bh_kv_txn *txn = NULL;
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    for (int i = 0; i < 250; i++) {
        char host[32];
        char name_text[300];
        char storage[BH_POSTURE_VALUE_MAX];
        struct bh_buf name = bh_buf(name_text, sizeof(name_text));
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        const struct bh_posture_seen seen = good();
        struct bh_posture p;
        bh_posture_observe(&p, false, &seen, NOW + i);
        snprintf(host, sizeof(host), "mx%d.test", (i * 7919) % 1000);
        assert_true(bh_posture_name(bh_slice_str(host), 25, &name));
        assert_int_equal(bh_posture_write(&p, &out), BH_OK);
        assert_int_equal(
            bh_posture_put(q, txn, BH_POSTURE_PREFIX, bh_buf_slice(&name), bh_buf_slice(&out), 100),
            BH_OK);
    }
    struct bh_arena arena;
    struct bh_slice name = BH_LIT("posture/");
    struct bh_slice value;
    size_t count = 0;
    bh_arena_init(&arena, (size_t)1 << 20);
    while (bh_queue_policy_next(txn, name, &arena, &name, &value) == BH_OK) {
        struct bh_posture p;
        assert_int_equal(bh_posture_read(value, &p), BH_OK);
        assert_true(p.last_unix_ms >= NOW + 150);
        count++;
    }
    assert_true(count > 90 && count <= 100);
    bh_arena_fini(&arena);
    /* Their count is a row, too. */
    assert_int_equal(fixture_check_txn(txn).problems, 0);
    bh_queue_abort(q, txn);
    bh_queue_destroy(q);
    bh_kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_regression_is_told_once),
        cmocka_unit_test(what_is_no_regression),
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(the_oldest_rows_go),
    };
    return cmocka_run_group_tests_name("posture", tests, NULL, NULL);
}
