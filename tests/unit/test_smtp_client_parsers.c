/* Replies, EHLO keywords, dot stuffing and the preamble: tables of cases, and for each way of
 * cutting the octets up the same result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/dot_stuff.h"
#include "bh/envelope.h"
#include "bh/smtp_client.h"
#include "bh/smtp_reply.h"

static const struct {
    const char *octets;
    enum bh_status status;
    uint16_t code;
    unsigned enhanced; /* as a decimal: 511 is 5.1.1 */
    const char *text;
    const char *rest;
} replies[] = {
    {"250 ok\r\n", BH_OK, 250, 0, "ok", ""},
    {"250\r\n", BH_OK, 250, 0, "", ""},
    {"250 \r\n", BH_OK, 250, 0, "", ""},
    {"250 ok\n", BH_OK, 250, 0, "ok", ""},
    {"550 5.1.1 no\r\n250 x", BH_OK, 550, 511, "no", "250 x"},
    {"550-5.1.1 no\r\n550 5.1.1 such user\r\n", BH_OK, 550, 511, "no\nsuch user", ""},
    {"550-see\r\n550 5.7.1 policy\r\n", BH_OK, 550, 571, "see\npolicy", ""},
    {"550 4.1.1 other class\r\n", BH_OK, 550, 0, "4.1.1 other class", ""},
    {"250 2.0.0\r\n", BH_OK, 250, 200, "", ""},
    {"550 5.1.1x no\r\n", BH_OK, 550, 0, "5.1.1x no", ""},
    {"550 5.1000.1 no\r\n", BH_OK, 550, 0, "5.1000.1 no", ""},
    {"250-a\r\n", BH_MORE, 0, 0, "", ""},
    {"250-a\r\n251 b\r\n", BH_EPROTO, 0, 0, "", ""},
    {"25 ok\r\n", BH_EPROTO, 0, 0, "", ""},
    {"2500 ok\r\n", BH_EPROTO, 0, 0, "", ""},
    {"199 ok\r\n", BH_EPROTO, 0, 0, "", ""},
    {"600 ok\r\n", BH_EPROTO, 0, 0, "", ""},
    {"250_ok\r\n", BH_EPROTO, 0, 0, "", ""},
    {"\r\n", BH_EPROTO, 0, 0, "", ""},
    {"250 a\rb\r\n", BH_EPROTO, 0, 0, "", ""},
    {"GET / HTTP/1.1\r\n", BH_EPROTO, 0, 0, "", ""},
};

static void replies_are_read_alike_in_pieces(void **unused)
{
    (void)unused;
    static struct bh_reply_parser p;
    for (size_t i = 0; i < BH_COUNT(replies); i++) {
        for (size_t step = 1; step < 32; step++) {
            p = (struct bh_reply_parser){0};
            struct bh_slice rest = bh_slice_str(replies[i].octets);
            struct bh_reply reply = {0};
            enum bh_status status = BH_MORE;
            while (status == BH_MORE && rest.len > 0) {
                struct bh_slice piece = bh_slice_take(rest, step);
                const size_t before = piece.len;
                status = bh_reply_feed(&p, &piece, &reply);
                rest = bh_slice_skip(rest, before - piece.len);
            }
            assert_int_equal(status, replies[i].status);
            if (status == BH_OK) {
                assert_int_equal(reply.code, replies[i].code);
                assert_int_equal(reply.enhanced_class * 100 + reply.enhanced_subject * 10 +
                                     reply.enhanced_detail,
                                 replies[i].enhanced);
                assert_true(bh_slice_eq(reply.text, bh_slice_str(replies[i].text)));
                assert_true(bh_slice_eq(rest, bh_slice_str(replies[i].rest)));
                assert_false(bh_reply_partial(&p));
            }
        }
    }
}

static void a_reply_has_bounds(void **unused)
{
    (void)unused;
    static struct bh_reply_parser p;
    static char line[BH_REPLY_LINE_MAX + 1];
    struct bh_reply reply;
    memset(line, 'x', sizeof(line));
    struct bh_slice in = bh_slice(line, sizeof(line));
    p = (struct bh_reply_parser){0};
    assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_EPROTO);

    p = (struct bh_reply_parser){0};
    for (size_t i = 0; i < BH_REPLY_LINES_MAX; i++) {
        in = BH_LIT("250-many\r\n");
        assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_MORE);
    }
    in = BH_LIT("250-many\r\n");
    assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_EPROTO);

    /* Text beyond what is kept is dropped by whole lines; the reply still counts. */
    p = (struct bh_reply_parser){0};
    memcpy(line, "250-", 4);
    for (size_t i = 0; i < 4; i++) {
        in = bh_slice(line, BH_REPLY_LINE_MAX - 2);
        assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_MORE);
        in = BH_LIT("\r\n");
        assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_MORE);
    }
    in = BH_LIT("250 end\r\n");
    assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_OK);
    assert_true(reply.cut);
    assert_true(reply.text.len <= BH_REPLY_TEXT_MAX);
    in = BH_LIT("354 go\r\n");
    assert_int_equal(bh_reply_feed(&p, &in, &reply), BH_OK);
    assert_false(reply.cut);
    assert_int_equal(reply.code, 354);
}

static const struct {
    const char *text;
    struct bh_ehlo want;
} ehlos[] = {
    {"mx.example", {0}},
    {"STARTTLS", {0}}, /* the first line is a greeting, whatever it says */
    {"mx\nSTARTTLS\npipelining\nX-UNKNOWN 1", {.extensions = BH_EXT_STARTTLS | BH_EXT_PIPELINING}},
    {"mx\nSIZE", {.extensions = BH_EXT_SIZE}},
    {"mx\nSIZE 0", {.extensions = BH_EXT_SIZE}},
    {"mx\nSIZE 52428800", {.extensions = BH_EXT_SIZE, .size = 52428800}},
    {"mx\nSIZE huge", {.extensions = BH_EXT_SIZE}},
    {"mx\nAUTH PLAIN login XOAUTH2",
     {.extensions = BH_EXT_AUTH, .auth = BH_SASL_PLAIN | BH_SASL_LOGIN | BH_SASL_XOAUTH2}},
    {"mx\nAUTH=LOGIN CRAM-MD5",
     {.extensions = BH_EXT_AUTH, .auth = BH_SASL_LOGIN | BH_SASL_CRAM_MD5}},
    {"mx\nLIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1 NEW=x",
     {.extensions = BH_EXT_LIMITS, .mail_max = 5, .rcpt_max = 20, .rcpt_domain_max = 1}},
    {"mx\nLIMITS RCPTMAX=20 MAILMAX=five", {0}},
    {"mx\nLIMITS RCPTMAX=0", {0}},
    {"mx\nLIMITS RCPTMAX", {0}},
    {"mx\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nREQUIRETLS\nENHANCEDSTATUSCODES\nBINARYMIME",
     {.extensions = BH_EXT_8BITMIME | BH_EXT_SMTPUTF8 | BH_EXT_DSN | BH_EXT_CHUNKING |
                    BH_EXT_REQUIRETLS | BH_EXT_ENHANCEDSTATUSCODES | BH_EXT_BINARYMIME}},
};

static void ehlo_keywords(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(ehlos); i++) {
        const struct bh_reply reply = {.code = 250, .text = bh_slice_str(ehlos[i].text)};
        struct bh_ehlo got;
        bh_ehlo_parse(&reply, &got);
        assert_int_equal(got.extensions, ehlos[i].want.extensions);
        assert_int_equal(got.auth, ehlos[i].want.auth);
        assert_int_equal(got.size, ehlos[i].want.size);
        assert_int_equal(got.mail_max, ehlos[i].want.mail_max);
        assert_int_equal(got.rcpt_max, ehlos[i].want.rcpt_max);
        assert_int_equal(got.rcpt_domain_max, ehlos[i].want.rcpt_domain_max);
    }
}

static void xtext(void **unused)
{
    (void)unused;
    assert_true(bh_xtext_valid(BH_LIT("")));
    assert_true(bh_xtext_valid(BH_LIT("rfc822;a+2Bb")));
    assert_false(bh_xtext_valid(BH_LIT("a+2b")));
    assert_false(bh_xtext_valid(BH_LIT("a+2")));
    assert_false(bh_xtext_valid(BH_LIT("a=b")));
    assert_false(bh_xtext_valid(BH_LIT("a b")));
}

static const struct {
    const char *message;
    enum bh_status status;
    const char *wire;
} stuffed[] = {
    {"", BH_OK, ".\r\n"},
    {"hi\r\n", BH_OK, "hi\r\n.\r\n"},
    {"no end", BH_OK, "no end\r\n.\r\n"},
    {".\r\n..\r\na.b\r\n", BH_OK, "..\r\n...\r\na.b\r\n.\r\n"},
    {"a long line, then .\r\n.x", BH_OK, "a long line, then .\r\n..x\r\n.\r\n"},
    {"a\n.\r\nMAIL FROM:<x>\r\n", BH_ECORRUPT, "a"},
    {"a\r.\r\n", BH_ECORRUPT, "a\r"},
    {"\n", BH_ECORRUPT, ""},
    {"a\r\r\n", BH_ECORRUPT, "a\r"},
    {"a\r", BH_ECORRUPT, "a\r"},
};

/* Encode in pieces of `step` octets through an output buffer of `cap`, drained after every call. */
static enum bh_status encode(struct bh_slice message, size_t step, size_t cap, struct bh_buf *wire)
{
    struct bh_dot_stuff d = {0};
    char storage[16];
    struct bh_buf out = bh_buf(storage, cap);
    enum bh_status status = BH_OK;
    bool ended = false;

    while (status >= 0 && !ended) {
        struct bh_slice piece = bh_slice_take(message, step);
        const size_t before = piece.len;
        status = before > 0 ? bh_dot_stuff_feed(&d, &piece, &out) : bh_dot_stuff_end(&d, &out);
        ended = before == 0 && status == BH_OK;
        message = bh_slice_skip(message, before - piece.len);
        bh_buf_put(wire, bh_buf_slice(&out));
        out.len = 0;
    }
    return status;
}

/* Neither the size of the pieces nor the room for output may change what goes on the wire. */
static void every_split_stuffs_alike(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(stuffed); i++) {
        for (size_t step = 1; step <= 16; step++) {
            for (size_t cap = 5; cap <= 16; cap++) {
                char storage[64];
                struct bh_buf wire = bh_buf(storage, sizeof(storage));
                assert_int_equal(encode(bh_slice_str(stuffed[i].message), step, cap, &wire),
                                 stuffed[i].status);
                assert_true(bh_slice_eq(bh_buf_slice(&wire), bh_slice_str(stuffed[i].wire)));
            }
        }
    }
}

static void the_preamble_is_seven_commands(void **unused)
{
    (void)unused;
    assert_true(bh_preamble_allowed(BH_LIT("EHLO me.example\r\n")));
    assert_true(bh_preamble_allowed(BH_LIT("STARTTLS\r\n")));
    assert_true(bh_preamble_allowed(BH_LIT("RSET\r\nNOOP\r\nQUIT\r\n")));
    assert_true(bh_preamble_allowed(BH_LIT("helo x\r\nLHLO y\r\n")));
    static const char *const bad[] = {"MAIL FROM:<a@b>\r\n",
                                      "AUTH PLAIN AGEAYg==\r\n",
                                      "EHLO x\r\nMAIL FROM:<a>\r\n",
                                      "EHLO x",
                                      "EHLO x\n",
                                      "\r\n",
                                      "EHLO x\rMAIL FROM:<a>\r\n",
                                      "QUITX\r\n",
                                      "DATA\r\n",
                                      "BDAT 1 LAST\r\n"};
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        assert_false(bh_preamble_allowed(bh_slice_str(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_read_alike_in_pieces),
        cmocka_unit_test(a_reply_has_bounds),
        cmocka_unit_test(ehlo_keywords),
        cmocka_unit_test(xtext),
        cmocka_unit_test(every_split_stuffs_alike),
        cmocka_unit_test(the_preamble_is_seven_commands),
    };
    return cmocka_run_group_tests_name("smtp_client_parsers", tests, NULL, NULL);
}
