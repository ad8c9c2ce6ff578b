#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "bh/rng.h"
#include "bh/sts_cache.h"

#define T0 ((int64_t)1700000000000)

static struct bh_now at(int64_t ms)
{
    return (struct bh_now){.mono_ms = (uint64_t)ms + 5000, .unix_ms = T0 + ms};
}

static enum bh_sts_next seen(struct bh_sts_entry *e, const char *id, int64_t ms)
{
    bh_sts_entry_begin(e, true, at(ms));
    return bh_sts_entry_on_record(e, BH_STS_SEEN, bh_slice_str(id), BH_EMPTY, at(ms));
}

static enum bh_status body(struct bh_sts_entry *e, const char *text, int64_t ms)
{
    return bh_sts_entry_on_body(e, bh_slice_str(text), at(ms));
}

static struct bh_sts_fact fact_of(const struct bh_sts_entry *e, int64_t ms)
{
    struct bh_sts_fact fact;
    bh_sts_entry_fact(e, at(ms), &fact);
    return fact;
}

#define ENFORCE "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 86400\n"
#define ENFORCE_B "version: STSv1\nmode: enforce\nmx: b.example\nmax_age: 864000\n"
#define NONE "version: STSv1\nmode: none\nmax_age: 60\n"

static void first_contact(void **unused)
{
    (void)unused;
    struct bh_sts_entry e;
    bh_sts_entry_init(&e, at(0));
    bh_sts_entry_begin(&e, true, at(0));
    assert_int_equal(
        bh_sts_entry_on_record(&e, BH_STS_ABSENT, BH_EMPTY, BH_LIT("no record"), at(0)),
        BH_STS_ANSWER);
    assert_int_equal(fact_of(&e, 0).origin, BH_STS_NOT_PUBLISHED);
    assert_int_equal(bh_sts_entry_on_record(&e, BH_STS_FAILED, BH_EMPTY, BH_LIT("servfail"), at(0)),
                     BH_STS_ANSWER);
    assert_int_equal(fact_of(&e, 0).origin, BH_STS_NO_ANSWER);
    assert_true(bh_slice_eq(fact_of(&e, 0).trouble, BH_LIT("servfail")));

    /* A fetch that fails is not repeated for five minutes. */
    assert_int_equal(seen(&e, "1", 0), BH_STS_FETCH);
    bh_sts_entry_on_failure(&e, BH_LIT("connection refused"), at(10));
    assert_int_equal(fact_of(&e, 10).origin, BH_STS_UNAVAILABLE);
    assert_false(e.dirty);
    assert_int_equal(seen(&e, "1", 10 + BH_STS_RETRY_MS - 1), BH_STS_ANSWER);
    assert_true(bh_slice_eq(fact_of(&e, 10).trouble, BH_LIT("connection refused")));
    assert_int_equal(seen(&e, "1", 10 + BH_STS_RETRY_MS), BH_STS_FETCH);
    assert_int_equal(body(&e, "<html>", 10 + BH_STS_RETRY_MS), BH_EPROTO);
    assert_int_equal(seen(&e, "1", 11 + BH_STS_RETRY_MS), BH_STS_ANSWER);
    assert_int_equal(fact_of(&e, 11 + BH_STS_RETRY_MS).policy.mode, BH_STS_MODE_NONE);
    bh_sts_entry_fini(&e);
}

static void a_valid_policy(void **unused)
{
    (void)unused;
    struct bh_sts_entry e;
    bh_sts_entry_init(&e, at(0));
    assert_int_equal(seen(&e, "1", 0), BH_STS_FETCH);
    assert_int_equal(body(&e, ENFORCE, 0), BH_OK);
    struct bh_sts_fact fact = fact_of(&e, 0);
    assert_true(fact.changed && e.dirty);
    assert_int_equal(fact.origin, BH_STS_FETCHED);
    assert_int_equal(fact.policy.mode, BH_STS_MODE_ENFORCE);
    assert_int_equal(fact.fetched_unix_ms, T0);
    assert_int_equal(fact.expires_unix_ms, T0 + BH_DAY_MS);

    /* The same id: nothing to fetch, until a day has gone. */
    assert_int_equal(seen(&e, "1", BH_DAY_MS - 1), BH_STS_ANSWER);
    fact = fact_of(&e, BH_DAY_MS - 1);
    assert_int_equal(fact.origin, BH_STS_FROM_CACHE);
    assert_false(fact.changed || fact.superseded);

    /* A newer id that can't be had: the old one holds, and nothing may be ended because of it. */
    assert_int_equal(seen(&e, "2", BH_HOUR_MS), BH_STS_FETCH);
    bh_sts_entry_on_failure(&e, BH_LIT("timeout"), at(BH_HOUR_MS));
    fact = fact_of(&e, BH_HOUR_MS);
    assert_int_equal(fact.policy.mode, BH_STS_MODE_ENFORCE);
    assert_true(fact.superseded);
    assert_true(bh_slice_eq(fact.id, BH_LIT("1")));

    assert_int_equal(seen(&e, "2", 2 * BH_HOUR_MS), BH_STS_FETCH);
    assert_int_equal(body(&e, ENFORCE_B, 2 * BH_HOUR_MS), BH_OK);
    fact = fact_of(&e, 2 * BH_HOUR_MS);
    assert_true(fact.changed);
    assert_false(fact.superseded);
    assert_int_equal(fact.trouble.len, 0);
    assert_true(bh_sts_policy_matches(&fact.policy, BH_LIT("b.example")));

    /* After a day it is renewed, and nobody waits. */
    assert_int_equal(seen(&e, "2", 27 * BH_HOUR_MS), BH_STS_RENEW);
    assert_int_equal(body(&e, ENFORCE_B, 27 * BH_HOUR_MS), BH_OK);
    assert_false(fact_of(&e, 27 * BH_HOUR_MS).changed);

    /* Withdrawn. */
    assert_int_equal(seen(&e, "3", 28 * BH_HOUR_MS), BH_STS_FETCH);
    assert_int_equal(body(&e, NONE, 28 * BH_HOUR_MS), BH_OK);
    assert_int_equal(fact_of(&e, 28 * BH_HOUR_MS).policy.mode, BH_STS_MODE_NONE);
    assert_int_equal(seen(&e, "3", 28 * BH_HOUR_MS + 1000), BH_STS_ANSWER);
    bh_sts_entry_fini(&e);
}

/* A policy that must not be kept holds for the mail it was fetched for. */
static void no_age(void **unused)
{
    (void)unused;
    struct bh_sts_entry e;
    bh_sts_entry_init(&e, at(0));
    assert_int_equal(seen(&e, "1", 0), BH_STS_FETCH);
    assert_int_equal(body(&e, "version: STSv1\nmode: enforce\nmx: a\nmax_age: 0\n", 0), BH_OK);
    assert_int_equal(fact_of(&e, 1).policy.mode, BH_STS_MODE_ENFORCE);
    assert_int_equal(seen(&e, "1", 2), BH_STS_FETCH);
    assert_int_equal(fact_of(&e, 2).policy.mode, BH_STS_MODE_NONE);
    bh_sts_entry_fini(&e);
}

/* What was stored but can't be read: nobody knows what is in force, until it is fetched anew. */
static void unreadable(void **unused)
{
    (void)unused;
    struct bh_sts_entry e;
    bh_sts_entry_init(&e, at(0));
    assert_int_equal(bh_sts_entry_load(&e, BH_LIT("\x02later"), false, at(0)), BH_EVERSION);
    assert_int_equal(bh_sts_entry_load(&e, BH_LIT("\x01torn"), false, at(0)), BH_ECORRUPT);
    bh_sts_entry_begin(&e, true, at(0));
    assert_int_equal(bh_sts_entry_on_record(&e, BH_STS_ABSENT, BH_EMPTY, BH_EMPTY, at(0)),
                     BH_STS_ANSWER);
    assert_int_equal(fact_of(&e, 0).origin, BH_STS_UNKNOWN);
    assert_int_equal(seen(&e, "1", 0), BH_STS_FETCH);
    assert_int_equal(body(&e, ENFORCE, 0), BH_OK);
    assert_int_equal(fact_of(&e, 0).origin, BH_STS_FETCHED);
    bh_sts_entry_fini(&e);
}

static void rows(void **unused)
{
    (void)unused;
    static char octets[BH_STS_ROW_MAX];
    static char mx[BH_STS_MX_MAX][64];
    struct bh_slice patterns[BH_STS_MX_MAX];
    struct bh_arena arena;
    bh_arena_init(&arena, BH_STS_ENTRY_ARENA);
    for (size_t i = 0; i < BH_STS_MX_MAX; i++) {
        snprintf(mx[i], sizeof(mx[i]), "%032u", (unsigned)i);
        patterns[i] = bh_slice(mx[i], BH_STS_MX_OCTETS_MAX / BH_STS_MX_MAX);
    }
    char trouble[BH_STS_TROUBLE_MAX] = "x";
    /* The largest row there can be fits. */
    const struct bh_sts_row row = {.policy = {.mode = BH_STS_MODE_TESTING,
                                              .max_age_s = BH_STS_MAX_AGE_S,
                                              .mx = patterns,
                                              .mx_count = BH_STS_MX_MAX},
                                   .id = BH_LIT("12345678901234567890123456789012"),
                                   .fetched_unix_ms = T0,
                                   .checked_unix_ms = T0 + 1,
                                   .failed_unix_ms = T0 + 2,
                                   .used_unix_ms = T0 + 3,
                                   .trouble = bh_slice(trouble, sizeof(trouble))};
    struct bh_buf out = bh_buf(octets, sizeof(octets));
    struct bh_sts_row read;
    assert_int_equal(bh_sts_row_write(&row, &out), BH_OK);
    assert_int_equal(bh_sts_row_read(bh_buf_slice(&out), &arena, &read), BH_OK);
    assert_int_equal(read.policy.mode, row.policy.mode);
    assert_int_equal(read.policy.max_age_s, row.policy.max_age_s);
    assert_int_equal(read.policy.mx_count, BH_STS_MX_MAX);
    for (size_t i = 0; i < BH_STS_MX_MAX; i++) {
        assert_true(bh_slice_eq(read.policy.mx[i], patterns[i]));
    }
    assert_true(bh_slice_eq(read.id, row.id) && bh_slice_eq(read.trouble, row.trouble));
    assert_int_equal(read.fetched_unix_ms, T0);
    assert_int_equal(read.checked_unix_ms, T0 + 1);
    assert_int_equal(read.failed_unix_ms, T0 + 2);
    assert_int_equal(read.used_unix_ms, T0 + 3);
    struct bh_sts_entry e;
    bh_sts_entry_init(&e, at(0));
    assert_int_equal(bh_sts_entry_load(&e, bh_buf_slice(&out), false, at(0)), BH_OK);
    bh_sts_entry_fini(&e);
    for (size_t cut = 0; cut < 200; cut++) {
        bh_arena_reset(&arena);
        assert_int_equal(bh_sts_row_read(bh_slice(octets, cut), &arena, &read), BH_ECORRUPT);
    }
    assert_int_equal(bh_sts_row_read(bh_slice(octets, out.len - 1), &arena, &read), BH_ECORRUPT);
    bh_arena_fini(&arena);
}

/* A policy ends by its age, not by a step of the clock, be it before its row is read. */
static void a_clock_that_has_stepped(void **unused)
{
    (void)unused;
    static char octets[BH_STS_ROW_MAX];
    struct bh_buf out = bh_buf(octets, sizeof(octets));
    struct bh_sts_entry e;
    const int64_t later = 30 * BH_DAY_MS;
    bh_sts_entry_init(&e, at(0));
    assert_int_equal(seen(&e, "1", 0), BH_STS_FETCH);
    assert_int_equal(body(&e, ENFORCE, 0), BH_OK);
    assert_int_equal(bh_sts_entry_write(&e, at(0), &out), BH_OK);

    assert_int_equal(bh_sts_entry_load(&e, bh_buf_slice(&out), false, at(later)), BH_OK);
    assert_false(bh_sts_entry_valid(&e, at(later)));
    assert_int_equal(bh_sts_entry_load(&e, bh_buf_slice(&out), true, at(later)), BH_OK);
    assert_true(bh_sts_entry_valid(&e, at(later)));
    bh_sts_entry_begin(&e, true, at(later));
    assert_int_equal(fact_of(&e, later).policy.mode, BH_STS_MODE_ENFORCE);
    assert_true(bh_sts_entry_valid(&e, at(later + BH_DAY_MS - 1)));
    assert_false(bh_sts_entry_valid(&e, at(later + BH_DAY_MS)));
    bh_sts_entry_fini(&e);
}

static void refreshes(void **unused)
{
    (void)unused;
    const struct bh_sts_row row = {
        .policy.max_age_s = 10 * 86400, .fetched_unix_ms = T0, .used_unix_ms = T0};
    assert_false(bh_sts_row_wants_refresh(&row, T0 + BH_DAY_MS - 1));
    assert_true(bh_sts_row_wants_refresh(&row, T0 + BH_DAY_MS));
    assert_false(bh_sts_row_wants_refresh(&row, T0 + 10 * BH_DAY_MS));
    struct bh_sts_row other = row;
    other.failed_unix_ms = T0 + BH_DAY_MS;
    assert_false(bh_sts_row_wants_refresh(&other, T0 + BH_DAY_MS + BH_STS_RETRY_MS - 1));
    assert_true(bh_sts_row_wants_refresh(&other, T0 + BH_DAY_MS + BH_STS_RETRY_MS));
    other = row;
    other.used_unix_ms = T0 + BH_DAY_MS - BH_STS_IN_USE_MS;
    assert_false(bh_sts_row_wants_refresh(&other, T0 + BH_DAY_MS));
}

/* ---- the model ----
 *
 * Random records, fetches, failures, restarts and steps of the wall clock, against what is known of
 * the last policy that was really fetched. Wall time at a restart is never ahead of what it was at
 * the last write, since nobody could tell that from time gone by. */

struct model {
    struct bh_rng rng;
    struct bh_sts_entry e;
    int64_t now_ms;      /* true time */
    int64_t wall_off_ms; /* of the wall clock */
    char row[BH_STS_ROW_MAX];
    size_t row_len;
    int64_t row_off_ms;
    bool has_policy;
    enum bh_sts_mode mode;
    unsigned mx;        /* number of its one pattern */
    int64_t fetched_ms; /* true time */
    int64_t began_ms;   /* true time of the fetch or of the last restart since */
    int64_t max_age_ms;
    unsigned id; /* as published */
    int64_t failed_ms;
};

static struct bh_now now_of(const struct model *m)
{
    return (struct bh_now){.mono_ms = (uint64_t)m->now_ms,
                           .unix_ms = T0 + m->now_ms + m->wall_off_ms};
}

static void save(struct model *m)
{
    if (m->e.dirty) {
        struct bh_buf out = bh_buf(m->row, sizeof(m->row));
        assert_int_equal(bh_sts_entry_write(&m->e, now_of(m), &out), BH_OK);
        m->row_len = out.len;
        m->row_off_ms = m->wall_off_ms;
        m->e.dirty = false;
    }
}

static void restart(struct model *m)
{
    bh_sts_entry_fini(&m->e);
    m->wall_off_ms = m->row_off_ms;
    if (bh_rng_below(&m->rng, 2) == 0) {
        m->wall_off_ms -= (int64_t)bh_rng_below(&m->rng, (uint64_t)(40 * BH_DAY_MS));
    }
    bh_sts_entry_init(&m->e, now_of(m));
    if (m->row_len > 0) {
        assert_int_equal(bh_sts_entry_load(&m->e, bh_slice(m->row, m->row_len), false, now_of(m)),
                         BH_OK);
        m->began_ms = m->now_ms;
    }
    m->failed_ms = INT64_MIN / 2; /* that of a domain without policy is forgotten */
}

static void fetch(struct model *m)
{
    char text[256];
    const uint64_t how = bh_rng_below(&m->rng, 6);
    if (how == 0) {
        bh_sts_entry_on_failure(&m->e, BH_LIT("no route"), now_of(m));
        m->failed_ms = m->now_ms;
    } else if (how == 1) {
        assert_int_equal(bh_sts_entry_on_body(&m->e, BH_LIT("mode: none\n"), now_of(m)), BH_EPROTO);
        m->failed_ms = m->now_ms;
    } else {
        m->mode = (enum bh_sts_mode)bh_rng_below(&m->rng, 3);
        m->mx = (unsigned)bh_rng_below(&m->rng, 1000);
        const uint64_t age = 1 + bh_rng_below(&m->rng, 20 * 86400);
        snprintf(text, sizeof(text), "version: STSv1\nmode: %s\nmx: m%u.example\nmax_age: %llu\n",
                 bh_sts_mode_name(m->mode), m->mx, (unsigned long long)age);
        assert_int_equal(bh_sts_entry_on_body(&m->e, bh_slice_str(text), now_of(m)), BH_OK);
        m->has_policy = true;
        m->fetched_ms = m->began_ms = m->now_ms;
        m->max_age_ms = (int64_t)age * 1000;
        m->failed_ms = INT64_MIN / 2;
    }
}

static void compare(const struct model *m)
{
    struct bh_sts_fact fact;
    bh_sts_entry_fact(&m->e, now_of(m), &fact);
    char mx[32];
    snprintf(mx, sizeof(mx), "m%u.example", m->mx);
    const bool fetched_now = m->has_policy && m->fetched_ms == m->now_ms;
    if (m->has_policy && (m->now_ms - m->fetched_ms < m->max_age_ms || fetched_now)) {
        /* Never weaker, nor other, than the last policy fetched. */
        assert_int_equal(fact.policy.mode, m->mode);
        assert_true(bh_sts_policy_matches(&fact.policy, bh_slice_str(mx)));
        assert_int_equal(fact.policy.mx_count, 1);
    }
    if (!m->has_policy || (m->now_ms - m->began_ms >= m->max_age_ms && !fetched_now)) {
        /* Never for longer than its max_age after it was fetched, or read back under a clock that
         * went backwards. */
        assert_int_equal(fact.policy.mode, BH_STS_MODE_NONE);
        assert_int_equal(fact.policy.mx_count, 0);
    }
}

static void look_up(struct model *m)
{
    static const enum bh_sts_seen how[] = {BH_STS_SEEN, BH_STS_SEEN, BH_STS_SEEN, BH_STS_ABSENT,
                                           BH_STS_FAILED};
    char id[16];
    m->id += bh_rng_below(&m->rng, 4) == 0;
    snprintf(id, sizeof(id), "%u", m->id);
    bh_sts_entry_begin(&m->e, true, now_of(m));
    const enum bh_sts_next next =
        bh_sts_entry_on_record(&m->e, how[bh_rng_below(&m->rng, BH_COUNT(how))], bh_slice_str(id),
                               BH_LIT("trouble"), now_of(m));
    compare(m);
    if (next != BH_STS_ANSWER) {
        assert_true(m->now_ms - m->failed_ms >= BH_STS_RETRY_MS);
        fetch(m);
        compare(m);
    }
    save(m);
}

static void step(struct model *m)
{
    static const int64_t spans[] = {0, BH_SECOND_MS, 10 * BH_MINUTE_MS, BH_DAY_MS, 10 * BH_DAY_MS};
    m->now_ms +=
        (int64_t)bh_rng_below(&m->rng, (uint64_t)spans[bh_rng_below(&m->rng, BH_COUNT(spans))] + 1);
    const uint64_t what = bh_rng_below(&m->rng, 10);
    if (what == 0) {
        restart(m);
    } else if (what == 1) {
        m->wall_off_ms +=
            (int64_t)bh_rng_below(&m->rng, (uint64_t)(60 * BH_DAY_MS)) - 30 * BH_DAY_MS;
    } else {
        look_up(m);
    }
    bh_sts_entry_begin(&m->e, false, now_of(m));
    compare(m);
}

static void never_weaker(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        static struct model m;
        m = (struct model){.failed_ms = INT64_MIN / 2, .now_ms = 5000};
        bh_rng_seed(&m.rng, seed);
        bh_sts_entry_init(&m.e, now_of(&m));
        for (unsigned i = 0; i < 300; i++) {
            step(&m);
        }
        bh_sts_entry_fini(&m.e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_contact), cmocka_unit_test(a_valid_policy),
        cmocka_unit_test(no_age),        cmocka_unit_test(unreadable),
        cmocka_unit_test(rows),          cmocka_unit_test(refreshes),
        cmocka_unit_test(never_weaker),  cmocka_unit_test(a_clock_that_has_stepped),
    };
    return cmocka_run_group_tests_name("sts_cache", tests, NULL, NULL);
}
