#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/utf8.h"

/* Write a code point the plain way, to compare with; surrogates too. */
static size_t encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    const size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint32_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3f));
    }
    out[0] = (char)(lead[len] | c);
    return len;
}

static void every_code_point(void **unused)
{
    (void)unused;
    for (uint32_t c = 0; c < 0x140000; c++) {
        char text[4];
        const size_t len = encode(c, text);
        const bool valid = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        assert_int_equal(bh_utf8_len(bh_slice(text, len)), valid ? len : 0);
        assert_int_equal(bh_utf8_len(bh_slice(text, len - 1)), 0);
        assert_int_equal(bh_utf8_valid(bh_slice(text, len)), valid);
        assert_int_equal(bh_is_ascii(bh_slice(text, len)), c < 0x80);
    }
}

static void overlong_and_broken(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
                                      "\x80",     "\xc3(",    "\xff",         "\xf5\x80\x80\x80",
                                      "a\xe2\x82"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(bh_utf8_valid(bh_slice_str(bad[i])));
    }
    assert_true(bh_utf8_valid(bh_slice_str("")));
    assert_true(bh_utf8_valid(bh_slice_str("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xa7")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code_point),
                                       cmocka_unit_test(overlong_and_broken)};
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
