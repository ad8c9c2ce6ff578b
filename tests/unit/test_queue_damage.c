/* A store that somebody or something damaged, one row at a time: opening it, the checker and the
 * writer say so, instead of building on it. */
#include "queue_fixture.h"

#define T FIXTURE_NOW

struct world {
    struct bh_kv *kv;
    struct bh_kv_txn *txn; /* past the schema, as whoever damages it */
    struct bh_arena arena;
    struct bh_queue_key key; /* of an entry */
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    *state = w;
    bh_arena_init(&w->arena, (size_t)1 << 20);
    w->kv = bh_kv_memory_create((size_t)1 << 20, 0);
    struct bh_queue *q = fixture_open(w->kv);
    struct bh_kv_txn *txn;
    struct bh_queue_put_result result;
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    assert_int_equal(fixture_put(q, txn, "s@x", "a.test", 1, 100, BH_HINT_ENTRY, fixture_now(T),
                                 &w->arena, &result),
                     BH_OK);
    w->key = (struct bh_queue_key){
        .destination = result.parts[0].destination, .id = result.id, .part = result.parts[0].part};
    assert_int_equal(bh_queue_commit(q, txn), BH_OK);
    fixture_check(w->kv);
    bh_queue_destroy(q);
    assert_int_equal(bh_kv_begin(w->kv, BH_KV_WRITE, NULL, &w->txn), BH_OK);
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    if (w->txn != NULL) {
        bh_kv_abort(w->txn);
    }
    bh_kv_close(w->kv);
    bh_arena_fini(&w->arena);
    free(w);
    return 0;
}

static void keep(struct world *w)
{
    assert_int_equal(bh_kv_commit(w->txn), BH_OK);
    w->txn = NULL;
}

static void note(void *ctx, const char *text)
{
    char *first = ctx;
    if (first[0] == 0) {
        snprintf(first, 200, "%s", text);
    }
}

/* The first complaint; the store was read to its end. */
static void expect_problem(struct world *w, const char *part)
{
    char first[200] = "";
    struct bh_queue_check_result result;
    assert_int_equal(bh_queue_check(w->txn, note, first, &result), BH_OK);
    assert_true(result.problems > 0);
    if (strstr(first, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", first, part);
    }
}

static void without_its_version_it_is_no_new_store(void **state)
{
    struct world *w = *state;
    struct bh_queue *q = NULL;
    const struct bh_queue_limits limits = {0};
    char error[200] = "";
    assert_int_equal(bh_kv_del(w->txn, BH_KV_META, BH_LIT("schema")), BH_OK);
    keep(w);
    assert_int_equal(bh_queue_open(w->kv, &limits, &q, error, sizeof(error)), BH_ECORRUPT);
    assert_non_null(strstr(error, "corrupt"));
}

/* Ids given once more would let one destination's mail become another's. */
static void a_lost_mark_is_told_and_no_id_is_given_twice(void **state)
{
    struct world *w = *state;
    uint32_t id = 0;
    assert_int_equal(bh_kv_del(w->txn, BH_KV_META, BH_LIT("id")), BH_OK);
    expect_problem(w, "is above the mark");
    assert_int_equal(
        bh_kv_put(w->txn, BH_KV_META, BH_LIT("id"), bh_slice("\377\0\0\0\0\0\0\0", 8), 0), BH_OK);
    assert_int_equal(bh_kv_del(w->txn, BH_KV_META, BH_LIT("destination")), BH_OK);
    expect_problem(w, "destination: id 1 is above the mark");
    keep(w);
    struct bh_queue *q = fixture_open(w->kv);
    struct bh_kv_txn *txn;
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    assert_int_equal(
        bh_queue_destination_for(q, txn, BH_LIT("b.test"), BH_LIT("default"), fixture_now(T), &id),
        BH_ECORRUPT);
    bh_queue_abort(q, txn);
    bh_queue_destroy(q);
}

static void the_checker_reads_past_what_it_cannot_read(void **state)
{
    struct world *w = *state;
    assert_int_equal(bh_kv_put(w->txn, BH_KV_JOB, bh_slice("\0\0\0\0\0\0\0\1", 8), BH_LIT("?"), 0),
                     BH_OK);
    expect_problem(w, "job: a row that can't be read");
    assert_int_equal(bh_kv_del(w->txn, BH_KV_JOB, bh_slice("\0\0\0\0\0\0\0\1", 8)), BH_OK);
    assert_int_equal(
        bh_kv_put(w->txn, BH_KV_DESTINATION_NAME, bh_slice("a.test\0default", 14), BH_LIT("?"), 0),
        BH_OK);
    expect_problem(w, "destination: what a row leads to can't be read");
}

static void content_that_is_not_there_is_not_looked_for_chunk_by_chunk(void **state)
{
    struct world *w = *state;
    /* Half-received, by its record four billion chunks. */
    assert_int_equal(bh_kv_put(w->txn, BH_KV_OPEN, bh_slice("\0\0\0\0\0\0\0\1", 8),
                               bh_slice("\1\0\0\0\0\0\0\0\0\377\377\377\377\0\0\0\0\0\0\0\0", 21),
                               0),
                     BH_OK);
    expect_problem(w, "half-received message 1: chunk 0 of 4294967295 is missing");
}

/* The destination's record counts nothing, and an entry ends. */
static void counts_do_not_go_below_nothing(void **state)
{
    struct world *w = *state;
    struct bh_queue *q = NULL;
    struct bh_kv_txn *txn;
    struct bh_slice row;
    keep(w);
    q = fixture_open(w->kv);
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    uint32_t other = 0;
    assert_int_equal(bh_queue_destination_for(q, txn, BH_LIT("b.test"), BH_LIT("default"),
                                              fixture_now(T), &other),
                     BH_OK);
    /* The record of one that has just been made, over that of the other. */
    char empty[512];
    assert_int_equal(bh_kv_get(txn, BH_KV_DESTINATION, bh_slice("\0\0\0\2", 4), &row), BH_OK);
    assert_true(row.len <= sizeof(empty));
    memcpy(empty, row.ptr, row.len);
    assert_int_equal(
        bh_kv_put(txn, BH_KV_DESTINATION, bh_slice("\0\0\0\1", 4), bh_slice(empty, row.len), 0),
        BH_OK);
    const struct bh_settle_recipient delivered = {.verdict = BH_VERDICT_DELIVERED, .tried = true};
    const struct bh_settle settle = {.key = w->key,
                                     .lane = BH_LANE_ENTRY,
                                     .recipients = &delivered,
                                     .recipient_count = 1,
                                     .remaining = BH_ENTRY_READY,
                                     .reason = BH_EMPTY,
                                     .decision = BH_EMPTY};
    const struct bh_queue_notifier nobody = {.now = fixture_now(T)};
    struct bh_settle_result result;
    assert_int_equal(bh_queue_settle(q, txn, &settle, &nobody, &result), BH_ECORRUPT);
    bh_queue_abort(q, txn);
    bh_queue_destroy(q);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_its_version_it_is_no_new_store),
        TEST(a_lost_mark_is_told_and_no_id_is_given_twice),
        TEST(the_checker_reads_past_what_it_cannot_read),
        TEST(content_that_is_not_there_is_not_looked_for_chunk_by_chunk),
        TEST(counts_do_not_go_below_nothing),
    };
    return cmocka_run_group_tests_name("queue_damage", tests, NULL, NULL);
}
