#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bh/dane.h"

static char octets[BH_TLSA_DATA_MAX + 1];

/* Which records can be used (RFC 6698 section 2.1, RFC 7672 section 3.1). */
static void usable(void **unused)
{
    (void)unused;
    static const struct {
        uint8_t usage, selector, matching;
        size_t len;
        bool usable;
    } cases[] = {
        {3, 1, 1, 32, true},    {3, 0, 1, 32, true},  {2, 1, 1, 32, true},  {2, 0, 2, 64, true},
        {0, 1, 1, 32, false},   {1, 1, 1, 32, false}, {4, 1, 1, 32, false}, {255, 1, 1, 32, false},
        {3, 2, 1, 32, false},   {3, 1, 3, 32, false}, {3, 1, 1, 31, false}, {3, 1, 1, 33, false},
        {3, 1, 1, 0, false},    {3, 1, 2, 32, false}, {3, 1, 2, 64, true},  {3, 1, 0, 0, false},
        {3, 1, 255, 32, false},
    };
    memset(octets, 'x', sizeof(octets));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct bh_tlsa record = {cases[i].usage, cases[i].selector, cases[i].matching,
                                       bh_slice(octets, cases[i].len)};
        print_message("case %zu\n", i);
        assert_int_equal(bh_tlsa_is_usable(&record), cases[i].usable);
    }
}

/* Whole values: one DER SEQUENCE, no more and no less, within the bound. */
static void whole_values(void **unused)
{
    (void)unused;
    static const struct {
        unsigned char head[4];
        size_t len;
        bool usable;
    } cases[] = {
        {{0x30, 0x05}, 7, true},
        {{0x30, 0x05}, 8, false},
        {{0x30, 0x05}, 6, false},
        {{0x31, 0x05}, 7, false},
        {{0x30, 0x80}, 2, false},
        {{0x30, 0x81, 0x80}, 0x83, true},
        {{0x30, 0x81, 0x05}, 8, false}, /* not the shortest form */
        {{0x30, 0x82, 0x01, 0x00}, 0x104, true},
        {{0x30, 0x82, 0x0f, 0xfc}, BH_TLSA_DATA_MAX, true},
        {{0x30, 0x82, 0x0f, 0xfd}, BH_TLSA_DATA_MAX + 1, false},
        {{0x30, 0x82, 0x01}, 3, false},
        {{0x30}, 1, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct bh_tlsa record = {3, 0, 0, bh_slice(octets, cases[i].len)};
        memset(octets, 0, sizeof(octets));
        memcpy(octets, cases[i].head, sizeof(cases[i].head));
        print_message("case %zu\n", i);
        assert_int_equal(bh_tlsa_is_usable(&record), cases[i].usable);
    }
}

static struct bh_dane read_set(const struct bh_tlsa *records, size_t count, struct bh_arena *arena)
{
    struct bh_dane dane = {0};
    bh_arena_init(arena, 262144);
    assert_int_equal(bh_dane_read(records, count, BH_LIT("mx.example"), arena, &dane), BH_OK);
    return dane;
}

static void sets(void **unused)
{
    (void)unused;
    struct bh_arena arena;
    memset(octets, 'x', sizeof(octets));
    const struct bh_tlsa mixed[] = {{0, 1, 1, bh_slice(octets, 32)},
                                    {3, 1, 1, bh_slice(octets, 32)},
                                    {3, 1, 9, bh_slice(octets, 32)},
                                    {3, 1, 1, bh_slice(octets, 32)},
                                    {2, 0, 2, bh_slice(octets, 64)}};
    struct bh_dane dane = read_set(mixed, 5, &arena);
    assert_int_equal(dane.state, BH_DANE_USABLE);
    assert_int_equal(dane.tlsa.count, 2);
    assert_true(bh_slice_eq(dane.base, BH_LIT("mx.example")));
    bh_arena_fini(&arena);

    dane = read_set(mixed, 1, &arena);
    assert_int_equal(dane.state, BH_DANE_UNUSABLE);
    bh_arena_fini(&arena);

    dane = read_set(mixed, 0, &arena);
    assert_int_equal(dane.state, BH_DANE_NONE);
    bh_arena_fini(&arena);
}

/* A set that is too large to be obeyed as a whole is no absence of records. */
static void too_many(void **unused)
{
    (void)unused;
    static char digests[BH_DANE_RECORDS_MAX + 1][32];
    struct bh_tlsa records[BH_DANE_RECORDS_MAX + 1];
    struct bh_arena arena;
    for (size_t i = 0; i <= BH_DANE_RECORDS_MAX; i++) {
        digests[i][0] = (char)i;
        records[i] = (struct bh_tlsa){3, 1, 1, bh_slice(digests[i], 32)};
    }
    struct bh_dane dane = read_set(records, BH_DANE_RECORDS_MAX, &arena);
    assert_int_equal(dane.state, BH_DANE_USABLE);
    bh_arena_fini(&arena);
    dane = read_set(records, BH_DANE_RECORDS_MAX + 1, &arena);
    assert_int_equal(dane.state, BH_DANE_FAILED);
    assert_int_equal(dane.happened, BH_HAPPENED_DNS_FAILED);
    bh_arena_fini(&arena);
    bh_arena_init(&arena, 256);
    assert_int_equal(bh_dane_read(records, 3, BH_LIT("mx.example"), &arena, &dane), BH_ENOMEM);
    bh_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usable),
        cmocka_unit_test(whole_values),
        cmocka_unit_test(sets),
        cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests_name("dane", tests, NULL, NULL);
}
