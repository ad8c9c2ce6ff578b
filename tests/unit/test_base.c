#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "bh/arena.h"
#include "bh/heap.h"
#include "bh/ip.h"
#include "bh/json_write.h"
#include "bh/log.h"
#include "bh/map.h"
#include "bh/queue_id.h"
#include "bh/rng.h"
#include "bh/wire.h"

static void slices(void **unused)
{
    (void)unused;
    uint64_t v = 0;
    assert_true(bh_slice_u64(BH_LIT("18446744073709551615"), UINT64_MAX, &v));
    assert_true(v == UINT64_MAX);
    assert_false(bh_slice_u64(BH_LIT("18446744073709551616"), UINT64_MAX, &v));
    assert_false(bh_slice_u64(BH_LIT(""), 9, &v));
    assert_false(bh_slice_u64(BH_LIT("-1"), 9, &v));
    assert_false(bh_slice_u64(BH_LIT("10"), 9, &v));
    assert_int_equal(bh_slice_find_slice(BH_LIT("aaab"), BH_LIT("aab")), 1);
    assert_int_equal(bh_slice_find_slice(BH_LIT("aaa"), BH_LIT("aab")), 3);
    assert_int_equal(bh_slice_find_slice(BH_LIT("a"), BH_LIT("aab")), 1);
    assert_true(bh_slice_eq(bh_slice_trim(BH_LIT(" \ta b ")), BH_LIT("a b")));
    struct bh_slice rest = BH_LIT(" one\ttwo ");
    assert_true(bh_slice_eq(bh_slice_word(&rest), BH_LIT("one")));
    assert_true(bh_slice_eq(bh_slice_word(&rest), BH_LIT("two")));
    assert_int_equal(bh_slice_word(&rest).len, 0);
    assert_true(bh_slice_cmp(BH_LIT("a"), BH_LIT("ab")) < 0);
    assert_true(bh_slice_ends_nocase(BH_LIT("Mx.EXAMPLE"), BH_LIT(".example")));
}

static void arenas_meet_their_cap(void **unused)
{
    (void)unused;
    struct bh_arena arena;
    bh_arena_init(&arena, 10000);
    char *big = bh_arena_alloc(&arena, 9000);
    assert_non_null(big);
    big[8999] = 1;
    assert_null(bh_arena_alloc(&arena, 1001));
    assert_non_null(bh_arena_alloc(&arena, 1000));
    assert_null(bh_arena_alloc(&arena, 1));
    bh_arena_reset(&arena);
    const char *again = bh_arena_alloc(&arena, 10000);
    assert_non_null(again);
    assert_int_equal(again[8999], 0);
    bh_arena_fini(&arena);
}

static void records_read_as_written(void **unused)
{
    (void)unused;
    char storage[64];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, 0xfe);
    bh_write_u16(&w, 0xfedc);
    bh_write_u32(&w, 0xfedcba98);
    bh_write_i64(&w, -2);
    bh_write_varint(&w, UINT64_MAX);
    bh_write_varint(&w, 127);
    bh_write_slice(&w, BH_LIT("hello"));
    assert_false(w.overflow);
    for (size_t len = 0; len <= w.buf.len; len++) {
        struct bh_reader r = {.rest = bh_slice(storage, len)};
        const uint8_t u8 = bh_read_u8(&r);
        const uint16_t u16 = bh_read_u16(&r);
        const uint32_t u32 = bh_read_u32(&r);
        const int64_t i64 = bh_read_i64(&r);
        const uint64_t most = bh_read_varint(&r);
        const uint64_t small = bh_read_varint(&r);
        const struct bh_slice s = bh_read_slice(&r);
        assert_int_equal(r.failed, len < w.buf.len); /* cut anywhere: fails, never reads past */
        if (!r.failed) {
            assert_int_equal(u8, 0xfe);
            assert_int_equal(u16, 0xfedc);
            assert_int_equal(u32, 0xfedcba98);
            assert_true(i64 == -2 && most == UINT64_MAX && small == 127);
            assert_true(bh_slice_eq(s, BH_LIT("hello")));
        }
    }
    struct bh_reader huge = {.rest = BH_LIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")};
    (void)bh_read_varint(&huge);
    assert_true(huge.failed);
    struct bh_writer small = {.buf = bh_buf(storage, 3)};
    bh_write_u16(&small, 1);
    bh_write_u16(&small, 2);
    assert_true(small.overflow);
}

struct item {
    struct bh_map_node node;
    struct bh_heap_node timer;
    char key[16];
};

static void maps_and_heaps(void **unused)
{
    (void)unused;
    enum { COUNT = 1000 };
    static struct item items[COUNT];
    struct bh_map map = {0};
    struct bh_heap heap = {0};
    struct bh_rng rng;
    bh_rng_seed(&rng, 1);
    for (int i = 0; i < COUNT; i++) {
        snprintf(items[i].key, sizeof(items[i].key), "k%d", i);
        items[i].node.key = bh_slice_str(items[i].key);
        assert_int_equal(bh_map_insert(&map, &items[i].node), BH_OK);
        assert_int_equal(bh_heap_set(&heap, &items[i].timer, bh_rng_below(&rng, 500)), BH_OK);
    }
    for (int i = 0; i < COUNT; i += 3) {
        bh_map_remove(&map, &items[i].node);
        bh_heap_remove(&heap, &items[i].timer);
        bh_heap_remove(&heap, &items[i].timer); /* twice is fine */
    }
    for (int i = 1; i < COUNT; i += 3) {
        assert_int_equal(bh_heap_set(&heap, &items[i].timer, bh_rng_below(&rng, 500)), BH_OK);
    }
    size_t seen = 0;
    for (struct bh_map_node *n = bh_map_next(&map, NULL); n != NULL; n = bh_map_next(&map, n)) {
        seen++;
    }
    assert_int_equal(seen, map.count);
    assert_int_equal(heap.count, map.count);
    for (int i = 0; i < COUNT; i++) {
        const struct bh_map_node *found = bh_map_find(&map, bh_slice_str(items[i].key));
        assert_ptr_equal(found, i % 3 == 0 ? NULL : &items[i].node);
    }
    uint64_t last = 0;
    for (struct bh_heap_node *n; (n = bh_heap_first(&heap)) != NULL; bh_heap_remove(&heap, n)) {
        assert_true(n->at >= last);
        last = n->at;
    }
    bh_heap_fini(&heap);
    bh_map_fini(&map);
}

static void addresses(void **unused)
{
    (void)unused;
    static const struct {
        const char *net;
        const char *ip;
        bool contains;
    } cases[] = {
        {"10.0.0.0/8", "10.255.1.2", true},      {"10.0.0.0/8", "11.0.0.1", false},
        {"0.0.0.0/0", "192.0.2.1", true},        {"0.0.0.0/0", "2001:db8::1", false},
        {"192.0.2.1", "192.0.2.1", true},        {"192.0.2.1", "192.0.2.2", false},
        {"2001:db8::/33", "2001:db8::9", true},  {"2001:db8::/33", "2001:db8:8000::", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_net net;
        struct bh_ip ip;
        assert_true(bh_net_parse(bh_slice_str(cases[i].net), &net));
        assert_true(bh_ip_parse(bh_slice_str(cases[i].ip), &ip));
        assert_int_equal(bh_net_contains(&net, &ip), cases[i].contains);
    }
    static const char *const bad[] = {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "1.2.3", "x",
                                      "",           "::1/129",     "[::1]"};
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        struct bh_net net;
        assert_false(bh_net_parse(bh_slice_str(bad[i]), &net));
    }
    struct bh_ip ip;
    char text[BH_IP_TEXT_MAX];
    assert_true(bh_ip_parse(BH_LIT("2001:DB8:0::1"), &ip));
    assert_string_equal(bh_ip_text(&ip, text), "2001:db8::1");
    assert_true(bh_ip_parse(BH_LIT("::ffff:127.0.0.1"), &ip));
    assert_true(bh_ip_is_loopback(&ip));
    assert_true(bh_ip_parse(BH_LIT("0.0.0.0"), &ip));
    assert_true(bh_ip_is_unusable(&ip));
}

static void ids_sort_as_text(void **unused)
{
    (void)unused;
    static const uint64_t ids[] = {0, 1, 31, 32, 1u << 30, UINT64_C(1) << 59, UINT64_MAX};
    char last[BH_QUEUE_ID_TEXT] = "";
    for (size_t i = 0; i < BH_COUNT(ids); i++) {
        char text[BH_QUEUE_ID_TEXT];
        uint64_t back = 0;
        bh_queue_id_text(ids[i], text);
        assert_true(bh_queue_id_parse(bh_slice_str(text), &back));
        assert_true(back == ids[i]);
        assert_true(strcmp(last, text) < 0);
        memcpy(last, text, sizeof(last));
    }
    uint64_t id = 0;
    assert_true(bh_queue_id_parse(BH_LIT("000000000000o"), &id));
    assert_false(bh_queue_id_parse(BH_LIT("ZZZZZZZZZZZZZ"), &id)); /* 65 bits */
    assert_false(bh_queue_id_parse(BH_LIT("00000"), &id));
    assert_false(bh_queue_id_parse(bh_slice("000000000000\0", 13), &id));
}

static void json_of_hostile_text(void **unused)
{
    (void)unused;
    char storage[256];
    struct bh_json j = {.buf = bh_buf(storage, sizeof(storage))};
    bh_json_begin_object(&j);
    bh_json_key(&j, "a");
    bh_json_str(&j, BH_LIT("q\"b\\n\n\xff\xc3\xa9\xed\xa0\x80"));
    bh_json_key(&j, "b");
    bh_json_begin_array(&j);
    bh_json_u64(&j, 1);
    bh_json_i64(&j, -2);
    bh_json_bool(&j, true);
    bh_json_null(&j);
    bh_json_end_array(&j);
    bh_json_end_object(&j);
    bh_buf_put_char(&j.buf, '\0');
    assert_false(j.overflow);
    assert_string_equal(storage,
                        "{\"a\":\"q\\\"b\\\\n\\u000a\\u00ff\xc3\xa9\\u00ed\\u00a0\\u0080\","
                        "\"b\":[1,-2,true,null]}");
    struct bh_json latin1 = {.buf = bh_buf(storage, sizeof(storage))};
    bh_json_latin1(&latin1, BH_LIT("a\"\xc3\xa9\x7f\n"));
    bh_buf_put_char(&latin1.buf, '\0');
    assert_string_equal(storage, "\"a\\u0022\\u00c3\\u00a9\\u007f\\u000a\"");
    struct bh_json tiny = {.buf = bh_buf(storage, 4)};
    bh_json_str(&tiny, BH_LIT("long"));
    assert_true(tiny.overflow);

    char quoted[BH_LOG_QUOTE_MAX];
    assert_string_equal(bh_log_quote(BH_LIT("a\r\n\"b"), quoted), "\"a\\x0d\\x0a\\x22b\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices),
        cmocka_unit_test(arenas_meet_their_cap),
        cmocka_unit_test(maps_and_heaps),
        cmocka_unit_test(records_read_as_written),
        cmocka_unit_test(addresses),
        cmocka_unit_test(ids_sort_as_text),
        cmocka_unit_test(json_of_hostile_text),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
