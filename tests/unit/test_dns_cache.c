#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "bh/dns_cache.h"
#include "bh/rng.h"

static struct bh_arena arena;

static struct bh_dns_answer mx_answer(uint32_t ttl_s)
{
    static struct bh_dns_record record;
    record = (struct bh_dns_record){.preference = 10, .name = BH_LIT("mx.example")};
    return (struct bh_dns_answer){
        .status = BH_DNS_FOUND,
        .type = BH_DNS_MX,
        .secure = true,
        .ttl_s = ttl_s,
        .name = BH_LIT("example"),
        .records = &record,
        .records_len = 1,
    };
}

static enum bh_status get(struct bh_dns_cache *cache, uint32_t set, const char *name,
                          uint64_t now_ms, struct bh_dns_answer *answer)
{
    bh_arena_reset(&arena);
    return bh_dns_cache_get(cache, set, bh_slice_str(name), BH_DNS_MX, now_ms, &arena, answer);
}

static void ttl_by_kind(void **unused)
{
    (void)unused;
    static const struct {
        enum bh_dns_status status;
        bool has_soa;
        uint32_t ttl_s;
        uint32_t kept_s;
    } cases[] = {
        {BH_DNS_FOUND, false, 60, 60},       {BH_DNS_FOUND, false, 0, 5},
        {BH_DNS_FOUND, false, 999999, 3600}, {BH_DNS_NODATA, true, 60, 60},
        {BH_DNS_NXDOMAIN, true, 86400, 300}, {BH_DNS_NXDOMAIN, true, 0, 5},
        {BH_DNS_NXDOMAIN, false, 3600, 5},   {BH_DNS_SERVFAIL, false, 0, 5},
        {BH_DNS_BOGUS, false, 0, 5},         {BH_DNS_GARBLED, false, 0, 5},
        {BH_DNS_TIMEOUT, false, 0, 5},       {BH_DNS_OVERLOAD, false, 60, 0},
        {BH_DNS_CANCELLED, false, 60, 0},
    };
    const struct bh_dns_cache_config config = bh_dns_cache_defaults();
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_dns_cache *cache = bh_dns_cache_create(&config);
        assert_non_null(cache);
        struct bh_dns_answer answer = mx_answer(cases[i].ttl_s);
        answer.status = cases[i].status;
        answer.has_soa = cases[i].has_soa;
        const uint32_t kept_s = bh_dns_cache_put(cache, 0, BH_LIT("example"), &answer, 1000);
        assert_int_equal(kept_s, cases[i].kept_s);
        const uint64_t end_ms = 1000 + (uint64_t)kept_s * 1000;
        if (kept_s > 0) {
            assert_int_equal(get(cache, 0, "example", end_ms - 1, &answer), BH_OK);
            assert_int_equal(answer.ttl_s, 1);
            assert_int_equal(answer.status, cases[i].status);
            assert_true(answer.secure);
            assert_true(bh_slice_eq(answer.records[0].name, BH_LIT("mx.example")));
        }
        assert_int_equal(get(cache, 0, "example", end_ms, &answer), BH_ENOTFOUND);
        assert_int_equal(bh_dns_cache_stats(cache).entries, 0);
        assert_int_equal(bh_dns_cache_stats(cache).octets, 0);
        bh_dns_cache_destroy(cache);
    }
}

static void sets_are_apart_and_names_forgotten(void **unused)
{
    (void)unused;
    const struct bh_dns_cache_config config = bh_dns_cache_defaults();
    struct bh_dns_cache *cache = bh_dns_cache_create(&config);
    assert_non_null(cache);
    struct bh_dns_answer answer = mx_answer(60);
    static const char *const names[] = {"example", "a.example", "b.a.example", "notexample",
                                        "example.org"};
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        bh_dns_cache_put(cache, 1, bh_slice_str(names[i]), &answer, 0);
    }
    assert_int_equal(get(cache, 2, "example", 1, &answer), BH_ENOTFOUND);
    assert_int_equal(get(cache, 1, "example", 1, &answer), BH_OK);
    assert_int_equal(bh_dns_cache_forget(cache, BH_LIT("example")), 3);
    assert_int_equal(get(cache, 1, "b.a.example", 1, &answer), BH_ENOTFOUND);
    assert_int_equal(get(cache, 1, "notexample", 1, &answer), BH_OK);
    assert_int_equal(get(cache, 1, "example.org", 1, &answer), BH_OK);
    /* One answer alone: the root has everything below it. */
    bh_dns_cache_put(cache, 1, BH_EMPTY, &answer, 0);
    bh_dns_cache_forget_one(cache, 2, BH_EMPTY, BH_DNS_MX);
    bh_dns_cache_forget_one(cache, 1, BH_EMPTY, BH_DNS_NS);
    assert_int_equal(get(cache, 1, "", 1, &answer), BH_OK);
    bh_dns_cache_forget_one(cache, 1, BH_EMPTY, BH_DNS_MX);
    assert_int_equal(get(cache, 1, "", 1, &answer), BH_ENOTFOUND);
    assert_int_equal(get(cache, 1, "example.org", 1, &answer), BH_OK);
    bh_dns_cache_destroy(cache);
}

/* Whatever is put: never above the bounds, and the last used are there. */
static void bounds_hold_and_the_oldest_go(void **unused)
{
    (void)unused;
    struct bh_dns_cache_config config = bh_dns_cache_defaults();
    config.entries_max = 50;
    config.octets_max = 10000;
    struct bh_dns_cache *cache = bh_dns_cache_create(&config);
    assert_non_null(cache);
    struct bh_rng rng;
    bh_rng_seed(&rng, 4);
    struct bh_dns_answer answer = mx_answer(60);
    bh_dns_cache_put(cache, 0, BH_LIT("kept.example"), &answer, 0);
    for (unsigned i = 0; i < 5000; i++) {
        char name[64];
        struct bh_dns_record records[8] = {{.name = BH_LIT("mx.example.org")}};
        snprintf(name, sizeof(name), "n%u.example", (unsigned)bh_rng_below(&rng, 500));
        answer = mx_answer(60);
        answer.records = records;
        answer.records_len = (size_t)bh_rng_below(&rng, 9);
        bh_dns_cache_put(cache, 0, bh_slice_str(name), &answer, i);
        const struct bh_dns_cache_stats stats = bh_dns_cache_stats(cache);
        assert_true(stats.entries <= 50 && stats.octets <= 10000);
        struct bh_dns_answer seen;
        assert_int_equal(get(cache, 0, name, i, &seen), BH_OK);
        assert_int_equal(seen.records_len, answer.records_len);
        assert_int_equal(get(cache, 0, "kept.example", i, &seen), BH_OK); /* used, so not oldest */
    }
    assert_true(bh_dns_cache_stats(cache).evictions > 1000);
    /* Too big for the whole cache: not kept, and nothing else goes for it. */
    const size_t before = bh_dns_cache_stats(cache).entries;
    struct bh_dns_record many[256] = {{.preference = 1}};
    answer = mx_answer(60);
    answer.records = many;
    answer.records_len = BH_COUNT(many);
    assert_int_equal(bh_dns_cache_put(cache, 0, BH_LIT("huge.example"), &answer, 5000), 60);
    assert_int_equal(bh_dns_cache_stats(cache).entries, before);
    bh_dns_cache_clear(cache);
    assert_int_equal(bh_dns_cache_stats(cache).octets, 0);
    bh_dns_cache_destroy(cache);
}

static int open_arena(void **unused)
{
    (void)unused;
    bh_arena_init(&arena, (size_t)1 << 20);
    return 0;
}

static int close_arena(void **unused)
{
    (void)unused;
    bh_arena_fini(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ttl_by_kind),
        cmocka_unit_test(sets_are_apart_and_names_forgotten),
        cmocka_unit_test(bounds_hold_and_the_oldest_go),
    };
    return cmocka_run_group_tests_name("dns_cache", tests, open_arena, close_arena);
}
