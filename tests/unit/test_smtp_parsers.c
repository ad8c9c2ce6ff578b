/* The small parsers of the SMTP server: paths, the trace line, dates, the PROXY header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bh/proxy_v2.h"
#include "bh/smtp_address.h"
#include "bh/smtp_received.h"

static const struct {
    const char *path;
    bool smtputf8;
    enum bh_path_status status;
    const char *address;
} paths[] = {
    {"<a@b>", false, BH_PATH_OK, "a@b"},
    {"<A.b-c+d/e=f@Mail.EXAMPLE.Org> SIZE=1", false, BH_PATH_OK, "A.b-c+d/e=f@mail.example.org"},
    {"<\"a \\\"@b\"@x.example>", false, BH_PATH_OK, "\"a \\\"@b\"@x.example"},
    {"<@r.example,@s.example:a@b.example>", false, BH_PATH_OK, "a@b.example"},
    {"<@r.example:>", false, BH_PATH_LOCAL, NULL},
    {"<@r.example,a@b.example>", false, BH_PATH_SYNTAX, NULL},
    {"<a_b@under_score.example>", false, BH_PATH_OK, "a_b@under_score.example"},
    {"<a@[192.0.2.7]>", false, BH_PATH_OK, "a@[192.0.2.7]"},
    {"<a@[IPv6:2001:DB8:0::1]>", false, BH_PATH_OK, "a@[IPv6:2001:db8::1]"},
    {"<a@[2001:db8::1]>", false, BH_PATH_LITERAL, NULL},
    {"<a@[IPv6:192.0.2.7]>", false, BH_PATH_LITERAL, NULL},
    {"<a@[300.0.2.7]>", false, BH_PATH_LITERAL, NULL},
    {"<a@[x-tag:foo]>", false, BH_PATH_LITERAL, NULL},
    {"<a@[192.0.2.7>", false, BH_PATH_LITERAL, NULL},
    {"a@b", false, BH_PATH_SYNTAX, NULL},
    {"<a@b", false, BH_PATH_SYNTAX, NULL},
    {"<", false, BH_PATH_SYNTAX, NULL},
    {"", false, BH_PATH_SYNTAX, NULL},
    {"<a>", false, BH_PATH_NO_DOMAIN, NULL},
    {"<a@>", false, BH_PATH_DOMAIN, NULL},
    {"<@b>", false, BH_PATH_SYNTAX, NULL},
    {"<.a@b>", false, BH_PATH_LOCAL, NULL},
    {"<a..b@c>", false, BH_PATH_LOCAL, NULL},
    {"<a.@c>", false, BH_PATH_LOCAL, NULL},
    {"<a b@c>", false, BH_PATH_SYNTAX, NULL},
    {"<\"a@c>", false, BH_PATH_LOCAL, NULL},
    {"<\"a\x01\"@c>", false, BH_PATH_LOCAL, NULL},
    {"<a@b..c>", false, BH_PATH_DOMAIN, NULL},
    {"<a@b.c.>", false, BH_PATH_DOMAIN, NULL},
    {"<a@-b>", false, BH_PATH_DOMAIN, NULL},
    {"<a@b->", false, BH_PATH_DOMAIN, NULL},
    {"<a@b@c>", false, BH_PATH_DOMAIN, NULL},
    {"<a@b c>", false, BH_PATH_DOMAIN, NULL},
    {"<a@b,c>", false, BH_PATH_DOMAIN, NULL},
    {"<\xc3\xbc@b>", false, BH_PATH_NEEDS_UTF8, NULL},
    {"<\xc3\xbc@b>", true, BH_PATH_OK, "\xc3\xbc@b"},
    {"<\xc3@b>", true, BH_PATH_NOT_UTF8, NULL},
    {"<\xed\xa0\x80@b>", true, BH_PATH_NOT_UTF8, NULL},
    {"<\xc0\x80@b>", true, BH_PATH_NOT_UTF8, NULL},
    {"<a@\xc3\xbc.example>", true, BH_PATH_DOMAIN, NULL},
    {"<a@\xff.example>", true, BH_PATH_NOT_UTF8, NULL},
};

static enum bh_path_status read_path(struct bh_slice text, bool smtputf8, struct bh_buf *address)
{
    struct bh_path path;
    const enum bh_path_status status = bh_path_parse(&text, &path);
    return status == BH_PATH_OK ? bh_path_address(&path, smtputf8, NULL, NULL, address) : status;
}

static void paths_are_read(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(paths); i++) {
        char storage[BH_ADDRESS_MAX];
        struct bh_buf address = bh_buf(storage, sizeof(storage));
        print_message("%s\n", paths[i].path);
        assert_int_equal(read_path(bh_slice_str(paths[i].path), paths[i].smtputf8, &address),
                         paths[i].status);
        if (paths[i].address != NULL) {
            assert_true(bh_slice_eq(bh_buf_slice(&address), bh_slice_str(paths[i].address)));
        }
    }
}

/* <local@label.label...> with a local-part and labels of given lengths. */
static enum bh_path_status read_long(size_t local, size_t labels, size_t label_len)
{
    char text[2048];
    char storage[BH_ADDRESS_MAX];
    struct bh_buf out = bh_buf(text, sizeof(text));
    struct bh_buf address = bh_buf(storage, sizeof(storage));
    bh_buf_put_char(&out, '<');
    for (size_t i = 0; i < local; i++) {
        bh_buf_put_char(&out, 'a');
    }
    for (size_t i = 0; i < labels; i++) {
        bh_buf_put_char(&out, i == 0 ? '@' : '.');
        for (size_t k = 0; k < label_len; k++) {
            bh_buf_put_char(&out, 'd');
        }
    }
    bh_buf_put_char(&out, '>');
    return read_path(bh_buf_slice(&out), false, &address);
}

static void lengths_are_bounded(void **unused)
{
    (void)unused;
    assert_int_equal(read_long(64, 4, 63), BH_PATH_OK); /* 64 + 1 + 255 */
    assert_int_equal(read_long(65, 4, 63), BH_PATH_TOO_LONG);
    assert_int_equal(read_long(1, 5, 63), BH_PATH_TOO_LONG);
    assert_int_equal(read_long(1, 1, 64), BH_PATH_DOMAIN);
    assert_int_equal(read_long(200, 1, 63), BH_PATH_OK); /* as bounce addresses have them */
}

static void xtext_is_checked(void **unused)
{
    (void)unused;
    assert_true(bh_xtext_valid(BH_LIT("a+2Bb!~")));
    assert_false(bh_xtext_valid(BH_LIT("a+2bb")));
    assert_false(bh_xtext_valid(BH_LIT("a+2")));
    assert_false(bh_xtext_valid(BH_LIT("a=b")));
    assert_false(bh_xtext_valid(BH_LIT("a b")));
}

static void received_says_what_it_may(void **unused)
{
    (void)unused;
    char storage[BH_RECEIVED_MAX];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_received r = {.helo = BH_LIT("c (x)\r\nEvil: 1"),
                            .by = BH_LIT("mx.test"),
                            .extended = true,
                            .tls = true,
                            .for_one = BH_LIT("a@b.example"),
                            .queue_id = 1,
                            .unix_ms = 1795472700000};
    assert_true(bh_ip_parse(BH_LIT("2001:db8::1"), &r.client));
    assert_int_equal(bh_received_line(&r, &out), BH_OK);
    assert_true(
        bh_slice_eq(bh_buf_slice(&out),
                    BH_LIT("Received: from c??x???Evil:?1 ([IPv6:2001:db8::1])\r\n"
                           "\tby mx.test with ESMTPS id 0000000000001\r\n\tfor <a@b.example>;\r\n"
                           "\tMon, 23 Nov 2026 22:25:00 +0000\r\n")));
    out.len = 0;
    r.client.family = 0;
    r.extended = false;
    r.for_one = BH_EMPTY;
    r.helo = BH_EMPTY;
    assert_int_equal(bh_received_line(&r, &out), BH_OK);
    assert_true(
        bh_slice_eq(bh_buf_slice(&out), BH_LIT("Received: from unknown (local)\r\n"
                                               "\tby mx.test with SMTP id 0000000000001;\r\n"
                                               "\tMon, 23 Nov 2026 22:25:00 +0000\r\n")));
    assert_int_equal(bh_received_line(&r, &out), BH_ELIMIT);

    r = (struct bh_received){.extended = true, .authenticated = true};
    assert_true(bh_slice_eq(bh_received_protocol(&r), BH_LIT("ESMTPA")));
    r.tls = true;
    assert_true(bh_slice_eq(bh_received_protocol(&r), BH_LIT("ESMTPSA")));
    r.smtputf8 = true;
    assert_true(bh_slice_eq(bh_received_protocol(&r), BH_LIT("UTF8SMTPSA")));
    r.authenticated = false;
    assert_true(bh_slice_eq(bh_received_protocol(&r), BH_LIT("UTF8SMTPS")));
}

static const char proxy_v4[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\2\1\xc0\0\2\2\x04\0\0\x19"
                               "\x04\0\0";

static void proxy_header_is_read(void **unused)
{
    (void)unused;
    struct bh_proxy_v2 proxy;
    char text[BH_IP_TEXT_MAX];
    const struct bh_slice whole = bh_slice(proxy_v4, sizeof(proxy_v4) - 1);
    for (size_t len = 0; len < whole.len; len++) {
        assert_int_equal(bh_proxy_v2_parse(bh_slice_take(whole, len), &proxy), BH_MORE);
    }
    assert_int_equal(bh_proxy_v2_parse(whole, &proxy), BH_OK);
    assert_string_equal(bh_ip_text(&proxy.client, text), "192.0.2.1");
    assert_string_equal(bh_ip_text(&proxy.server, text), "192.0.2.2");
    assert_int_equal(proxy.client_port, 1024);
    assert_int_equal(proxy.server_port, 25);
    assert_int_equal(proxy.len, whole.len);
    assert_false(proxy.local);

    char other[sizeof(proxy_v4)];
    static const struct {
        size_t at;
        unsigned char octet;
        enum bh_status status;
    } cases[] = {
        {0, 'E', BH_EPROTO},   {11, 'x', BH_EPROTO},  {12, 0x11, BH_EPROTO},
        {12, 0x22, BH_EPROTO}, {13, 0x41, BH_EPROTO}, {13, 0x21, BH_EPROTO}, /* IPv6 in 15 octets */
        {14, 0x7f, BH_ELIMIT}, {12, 0x20, BH_OK},     {13, 0x00, BH_OK},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        memcpy(other, proxy_v4, sizeof(other));
        other[cases[i].at] = (char)cases[i].octet;
        assert_int_equal(bh_proxy_v2_parse(bh_slice(other, whole.len), &proxy), cases[i].status);
    }
    assert_int_equal(proxy.client.family, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_read),       cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(xtext_is_checked),     cmocka_unit_test(received_says_what_it_may),
        cmocka_unit_test(proxy_header_is_read),
    };
    return cmocka_run_group_tests_name("smtp_parsers", tests, NULL, NULL);
}
