#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/base64.h"

static const struct {
    const char *octets;
    const char *text;
} pairs[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xff\xfe\xfd", "//79"},
    {"\xfb\xef\xbe", "++++"},
};

/* RFC 4648 section 10, and the last two digits. */
static void both_ways(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char storage[32];
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        assert_int_equal(bh_base64_encode(bh_slice_str(pairs[i].octets), &out), BH_OK);
        assert_true(bh_slice_eq(bh_buf_slice(&out), bh_slice_str(pairs[i].text)));
        assert_int_equal(out.len, bh_base64_len(strlen(pairs[i].octets)));
        out.len = 0;
        assert_int_equal(bh_base64_decode(bh_slice_str(pairs[i].text), &out), BH_OK);
        assert_true(bh_slice_eq(bh_buf_slice(&out), bh_slice_str(pairs[i].octets)));
    }
}

static void nothing_else_is_taken(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",  "Zg==Zg==", "Z===",
                                      "====", "Zh==", "Zm9=", "Zm 9",     "Zm9v\n",
                                      "Zm-_", "=m9v", "Zg=a", "Zm9v ",    "\xc3\xa9m9"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char storage[32];
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        bh_buf_put(&out, BH_LIT("x"));
        assert_int_equal(bh_base64_decode(bh_slice_str(bad[i]), &out), BH_EPROTO);
        assert_int_equal(out.len, 1);
    }
    struct bh_buf out;
    char storage[32];
    out = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_base64_decode(bh_slice("Zm\0v", 4), &out), BH_EPROTO);
}

static void room_is_kept(void **unused)
{
    (void)unused;
    char storage[8];
    for (size_t cap = 0; cap < sizeof(storage); cap++) {
        struct bh_buf out = bh_buf(storage, cap);
        assert_int_equal(bh_base64_encode(BH_LIT("foob"), &out), BH_ELIMIT);
        assert_int_equal(out.len, 0);
        assert_int_equal(bh_base64_decode(BH_LIT("Zm9vYg=="), &out), cap < 4 ? BH_ELIMIT : BH_OK);
        assert_int_equal(out.len, cap < 4 ? 0 : 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),
        cmocka_unit_test(nothing_else_is_taken),
        cmocka_unit_test(room_is_kept),
    };
    return cmocka_run_group_tests_name("base64", tests, NULL, NULL);
}
