/* The key-value interface: both backends against one reference, with cursors, nested transactions
 * and readers that keep what they saw. */
#define _XOPEN_SOURCE 700 /* nftw, mkdtemp */
#include "queue_fixture.h"

#include <ftw.h>
#include <unistd.h>

#include "bh/kv_lmdb.h"
#include "bh/rng.h"
#include "bh/wire.h"

#define KEYS 300

/* What should be there: for each key the length of its value + 1, or 0 for no row. */
struct reference {
    uint16_t value[KEYS];
};

static struct bh_slice key_of(uint32_t number, char storage[8])
{
    bh_put_be32(storage, number * 3); /* gaps, to seek into */
    return bh_slice(storage, 4);
}

static struct bh_slice value_of(uint16_t len)
{
    static char octets[2000];
    memset(octets, 'v', sizeof(octets));
    return bh_slice(octets, len);
}

static void compare(struct bh_kv_txn *txn, const struct reference *r)
{
    struct bh_kv_cursor *cursor;
    struct bh_slice key;
    struct bh_slice value;
    char storage[8];
    assert_int_equal(bh_kv_cursor_open(txn, BH_KV_META, &cursor), BH_OK);
    enum bh_status status = bh_kv_first(cursor, &key, &value);
    uint32_t last = KEYS;
    for (uint32_t i = 0; i < KEYS; i++) {
        if (r->value[i] == 0) {
            assert_int_equal(bh_kv_get(txn, BH_KV_META, key_of(i, storage), &value), BH_ENOTFOUND);
            continue;
        }
        assert_int_equal(status, BH_OK);
        assert_true(bh_slice_eq(key, key_of(i, storage)));
        assert_int_equal(value.len, r->value[i] - 1);
        assert_int_equal(bh_kv_get(txn, BH_KV_META, key_of(i, storage), &value), BH_OK);
        assert_int_equal(value.len, r->value[i] - 1);
        last = i;
        status = bh_kv_next(cursor, &key, &value);
    }
    assert_int_equal(status, BH_ENOTFOUND);
    /* Backwards from the end, and a seek into a gap. */
    if (last < KEYS) {
        assert_int_equal(bh_kv_last(cursor, &key, &value), BH_OK);
        assert_true(bh_slice_eq(key, key_of(last, storage)));
        uint32_t before = last;
        while (before > 0 && r->value[before - 1] == 0) {
            before--;
        }
        assert_int_equal(bh_kv_prev(cursor, &key, &value), before > 0 ? BH_OK : BH_ENOTFOUND);
        if (before > 0) {
            assert_true(bh_slice_eq(key, key_of(before - 1, storage)));
            char gap[4];
            bh_put_be32(gap, (before - 1) * 3 + 1);
            assert_int_equal(bh_kv_seek(cursor, bh_slice(gap, 4), &key, &value), BH_OK);
            assert_true(bh_slice_eq(key, key_of(last, storage)) || before - 1 < last);
            assert_true(bh_slice_cmp(key, bh_slice(gap, 4)) > 0);
        }
    }
    bh_kv_cursor_close(cursor);
}

static void change(struct bh_kv_txn *txn, struct reference *r, struct bh_rng *rng)
{
    char storage[8];
    const uint32_t i = (uint32_t)bh_rng_below(rng, KEYS);
    if (bh_rng_below(rng, 3) == 0) {
        assert_int_equal(bh_kv_del(txn, BH_KV_META, key_of(i, storage)),
                         r->value[i] != 0 ? BH_OK : BH_ENOTFOUND);
        r->value[i] = 0;
    } else {
        const uint16_t len = (uint16_t)bh_rng_below(rng, 1500);
        const unsigned flags = bh_rng_below(rng, 2) == 0 ? BH_KV_APPEND : 0;
        assert_int_equal(bh_kv_put(txn, BH_KV_META, key_of(i, storage), value_of(len), flags),
                         BH_OK);
        r->value[i] = (uint16_t)(len + 1);
    }
}

static void work(struct bh_kv *kv)
{
    struct bh_rng rng;
    bh_rng_seed(&rng, 4);
    struct reference done = {{0}};
    for (int round = 0; round < 120; round++) {
        struct bh_kv_txn *reader;
        struct bh_kv_txn *txn;
        const struct reference seen = done;
        struct reference now = done;
        assert_int_equal(bh_kv_begin(kv, BH_KV_READ, NULL, &reader), BH_OK);
        assert_int_equal(bh_kv_begin(kv, BH_KV_WRITE, NULL, &txn), BH_OK);
        for (int i = 0; i < 10; i++) {
            change(txn, &now, &rng);
        }
        struct bh_kv_txn *nested;
        struct reference inner = now;
        assert_int_equal(bh_kv_begin(kv, BH_KV_WRITE, txn, &nested), BH_OK);
        for (int i = 0; i < 10; i++) {
            change(nested, &inner, &rng);
        }
        compare(nested, &inner);
        if (bh_rng_below(&rng, 2) == 0) {
            assert_int_equal(bh_kv_commit(nested), BH_OK);
            now = inner;
        } else {
            bh_kv_abort(nested);
        }
        compare(txn, &now);
        if (bh_rng_below(&rng, 4) > 0) {
            assert_int_equal(bh_kv_commit(txn), BH_OK);
            done = now;
        } else {
            bh_kv_abort(txn);
        }
        compare(reader, &seen);
        bh_kv_abort(reader);
    }
}

static void memory_is_ordered_and_transactional(void **unused)
{
    (void)unused;
    struct bh_kv *kv = bh_kv_memory_create(1 << 24, 0);
    assert_non_null(kv);
    work(kv);
    bh_kv_close(kv);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void lmdb_is_ordered_and_transactional(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/bh-kv-XXXXXX";
    assert_non_null(mkdtemp(folder));
    const struct bh_kv_lmdb_options options = {
        .path = folder, .size_max = 32 << 20, .reserve = 1 << 20};
    struct bh_kv *kv = NULL;
    char error[300];
    assert_int_equal(bh_kv_lmdb_open(&options, &kv, error, sizeof(error)), BH_OK);
    work(kv);
    bh_kv_close(kv);
    assert_int_equal(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static enum bh_status crash_at_del(void *ctx, enum bh_kv_step step)
{
    if (step != BH_KV_STEP_DEL) {
        return BH_OK;
    }
    bh_kv_memory_crash(ctx);
    return BH_EIO;
}

static void memory_crashes_and_runs_full(void **unused)
{
    (void)unused;
    struct bh_kv *kv = bh_kv_memory_create(1000, 200);
    struct bh_kv_txn *txn;
    struct bh_slice value;
    assert_int_equal(bh_kv_begin(kv, BH_KV_WRITE, NULL, &txn), BH_OK);
    assert_int_equal(bh_kv_room(txn, 800), BH_OK);
    assert_int_equal(bh_kv_room(txn, 801), BH_EFULL);
    assert_int_equal(bh_kv_put(txn, BH_KV_META, BH_LIT("a"), value_of(900), 0), BH_OK);
    assert_int_equal(bh_kv_room(txn, 1), BH_EFULL);
    assert_int_equal(bh_kv_put(txn, BH_KV_META, BH_LIT("b"), value_of(200), 0), BH_EFULL);
    assert_int_equal(bh_kv_commit(txn), BH_OK);
    assert_int_equal(bh_kv_memory_bytes(kv), 901);

    bh_kv_memory_set_fault(kv, crash_at_del, kv);
    assert_int_equal(bh_kv_begin(kv, BH_KV_WRITE, NULL, &txn), BH_OK);
    assert_int_equal(bh_kv_put(txn, BH_KV_META, BH_LIT("c"), value_of(5), 0), BH_OK);
    assert_int_equal(bh_kv_del(txn, BH_KV_META, BH_LIT("a")), BH_EIO);
    assert_int_equal(bh_kv_get(txn, BH_KV_META, BH_LIT("a"), &value), BH_EIO);
    assert_int_equal(bh_kv_commit(txn), BH_EIO);
    assert_int_equal(bh_kv_begin(kv, BH_KV_READ, NULL, &txn), BH_OK);
    assert_int_equal(bh_kv_get(txn, BH_KV_META, BH_LIT("a"), &value), BH_OK);
    assert_int_equal(bh_kv_get(txn, BH_KV_META, BH_LIT("c"), &value), BH_ENOTFOUND);
    bh_kv_abort(txn);
    bh_kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_ordered_and_transactional),
        cmocka_unit_test(lmdb_is_ordered_and_transactional),
        cmocka_unit_test(memory_crashes_and_runs_full),
    };
    return cmocka_run_group_tests_name("queue_kv", tests, NULL, NULL);
}
