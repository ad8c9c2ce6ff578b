/* With a folder as argument it writes its samples there instead, for check_dsn.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/dsn.h"
#include "dsn_check.h"

#define HEADER                                                                 \
    "Received: from app by mx.us.example; Mon, 23 Nov 2026 01:12:09 +0000\r\n" \
    "Message-ID: <1@us.example>\r\nSubject: invoice\r\n"
#define CONTENT HEADER "\r\nHello\r\n.\r\n--x\r\n"
#define UMLAUT "m\xc3\xbcller"

struct sample {
    const char *name;
    struct bh_envelope envelope;
    struct bh_slice content;
    bool partial; /* content is not whole */
    struct bh_dsn_recipient recipients[3];
    size_t count;
    /* What must be found in the report, and in which part (0: its header); NULL ends the list. */
    struct {
        int part;
        const char *text;
    } finds[8];
};

/* BH_LIT is no constant initializer. */
/* clang-format off */
#define TEXT(literal) {"" literal, sizeof(literal) - 1}
#define ADDRESS(literal) {.address = TEXT(literal)}
/* clang-format on */

static const struct sample samples[] = {
    {
        .name = "rejected",
        .envelope = {.sender = TEXT("billing@us.example"), .envid = TEXT("Q+2B1")},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = {.address = TEXT("r@bank.example"),
                                      .orcpt = TEXT("rfc822;R+2Bx@bank.example")},
                        .outcome = {.stage = BH_STAGE_RCPT,
                                    .code = 550,
                                    .enhanced_class = 5,
                                    .enhanced_subject = 1,
                                    .enhanced_detail = 1,
                                    .text = TEXT("5.1.1 No such user"),
                                    .host = TEXT("mx1.bank.example"),
                                    .ip = {4, {192, 0, 2, 10}}},
                        .last_attempt_unix_ms = 1795472707123}},
        .count = 1,
        .finds = {{0, "\r\nTo: <billing@us.example>\r\n"},
                  {0, "\r\nIn-Reply-To:\r\n <1@us.example>\r\n"},
                  {0, "\r\nAuto-Submitted: auto-replied\r\n"},
                  {1,
                   "mx1.bank.example [192.0.2.10] said about the recipient:\r\n    550 5.1.1 No"},
                  {2, "\r\nOriginal-Envelope-Id: Q+1\r\n"},
                  {2, "\r\nOriginal-Recipient: rfc822; R+x@bank.example\r\n"
                      "Final-Recipient: rfc822; r@bank.example\r\nAction: failed\r\n"
                      "Status: 5.1.1\r\nRemote-MTA: dns; mx1.bank.example\r\n"
                      "Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n"
                      "Last-Attempt-Date: Mon, 23 Nov 2026 22:25:07 +0000\r\n"},
                  {3, "message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" CONTENT}},
    },
    {
        .name = "headers_asked",
        .envelope = {.sender = TEXT("billing@us.example"), .ret = BH_RET_HDRS},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = ADDRESS("a@x.example"),
                        .expired = true,
                        .outcome = {.stage = BH_STAGE_CONNECT,
                                    .happened = BH_HAPPENED_TIMEOUT,
                                    .host = TEXT("mx.x.example")}}},
        .count = 1,
        .finds = {{1, "mx.x.example could not be reached in time."},
                  {1, "until its time ran out"},
                  {2, "\r\nStatus: 4.4.7\r\n"},
                  {3, "text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" HEADER}},
    },
    {
        .name = "requiretls",
        .envelope = {.sender = TEXT("billing@us.example"), .ret = BH_RET_FULL, .requiretls = true},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = ADDRESS("a@x.example"),
                        .outcome = {.stage = BH_STAGE_MAIL,
                                    .happened = BH_HAPPENED_NEEDS_REQUIRETLS,
                                    .host = TEXT("mx.x.example")}}},
        .count = 1,
        .finds = {{1, "cannot promise the TLS protection"},
                  {2, "\r\nStatus: 5.7.30\r\n"},
                  {3, "text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" HEADER}},
    },
    {
        .name = "delayed_and_failed",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = ADDRESS("late@x.example"),
                        .action = BH_DSN_DELAYED,
                        .outcome = {.stage = BH_STAGE_GREETING, .code = 421, .text = TEXT("busy")},
                        .retry_until_unix_ms = 1795904707123},
                       {.recipient = ADDRESS("gone@x.example"),
                        .outcome = {.stage = BH_STAGE_ROUTE, .happened = BH_HAPPENED_NXDOMAIN}}},
        .count = 2,
        .finds = {{0, "\r\nSubject: Your message could not be delivered\r\n"},
                  {1, "It will be tried until Sat, 28 Nov 2026 22:25:07 +0000."},
                  {2, "Action: delayed\r\nStatus: 4.0.0\r\n"},
                  {2, "\r\nWill-Retry-Until: Sat, 28 Nov 2026 22:25:07 +0000\r\n"},
                  {2, "Action: failed\r\nStatus: 5.1.2\r\n"}},
    },
    {
        .name = "relayed",
        .envelope = {.sender = TEXT("billing@us.example"), .ret = BH_RET_FULL},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = ADDRESS("a@x.example"),
                        .action = BH_DSN_RELAYED,
                        .outcome = {.stage = BH_STAGE_DOT, .code = 250, .text = TEXT("ok")}}},
        .count = 1,
        .finds = {{0, "\r\nSubject: Your message was passed on\r\n"},
                  {2, "Action: relayed\r\nStatus: 2.1.5\r\n"},
                  {3, "text/rfc822-headers\r\n"}}, /* RET=FULL asks about failures only. */
    },
    {
        .name = "utf8",
        .envelope = {.sender = TEXT(UMLAUT "@us.example"), .smtputf8 = true},
        .content = TEXT("Subject: gr\xc3\xbc\xc3\x9f\r\n\r\n\xff\r\n"),
        .recipients = {{.recipient = {.address = TEXT(UMLAUT "@x.example"),
                                      .orcpt = TEXT("utf-8;m\\x{FC}ller@x.example")},
                        .outcome = {.stage = BH_STAGE_RCPT,
                                    .code = 550,
                                    .text = TEXT("kein " UMLAUT "\xff hier")}}},
        .count = 1,
        .finds = {{0, "report-type=global-delivery-status"},
                  {0, "\r\nTo: <" UMLAUT "@us.example>\r\n"},
                  {1, "550 kein " UMLAUT "\\xFF hier\r\n"},
                  {2, "message/global-delivery-status\r\n"},
                  {2, "\r\nFinal-Recipient: utf-8; " UMLAUT "@x.example\r\n"},
                  {3, "message/global\r\nContent-Transfer-Encoding: 8bit\r\n"}},
    },
    {
        .name = "hostile_reply",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT(CONTENT),
        .recipients = {{.recipient = ADDRESS("a@x.example"),
                        .outcome = {.stage = BH_STAGE_DOT,
                                    .code = 554,
                                    .text = TEXT("go\r\n\r\n--=_report.000000000000002a.0--\r\n"
                                                 "Bcc: x\0y\x1b[2J\x7f\xff" UMLAUT),
                                    .host = TEXT("mx\r\nX: y")}}},
        .count = 1,
        .finds = {{1, "mx X: y said about the message:"},
                  {1, "\\x00y\\x1B[2J\\x7F\\xFFm\\xC3\\xBCller"},
                  {2, "\r\nRemote-MTA: dns; mx  X: y\r\n"}},
    },
    {
        .name = "boundary_in_content",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT("A: b\r\n\r\n--=_report.000000000000002a.0\r\n"
                        "--=_report.000000000000002a.1--\r\n"),
        .recipients = {{.recipient = ADDRESS("a@x.example")}},
        .count = 1,
        .finds = {{0, "boundary=\"=_report.000000000000002a.2\""}},
    },
    {
        .name = "dirty_content",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT("A: b\rc \r\n-x: caf\xe9\r\n\r\nbare\nline\r\n"),
        .recipients = {{.recipient = ADDRESS("a@x.example")}},
        .count = 1,
        .finds = {{3, "text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
                      "A: b=0Dc=20\r\n=2Dx: caf=E9\r\n"}},
    },
    {
        .name = "no_header",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT("\r\nbody without end"),
        .recipients = {{.recipient = ADDRESS("\"a b\"@x.example"), .action = BH_DSN_DELIVERED}},
        .count = 1,
        .finds = {{1, "<\"a b\"@x.example>\r\n    Delivered.\r\n"},
                  {2, "Final-Recipient: rfc822; \"a b\"@x.example\r\n"},
                  {3, "text/rfc822-headers\r\n"}},
    },
    {
        .name = "part_of_content",
        .envelope = {.sender = TEXT("billing@us.example")},
        .content = TEXT(HEADER "\r\nthe first chunk"),
        .partial = true,
        .recipients = {{.recipient = ADDRESS("a@x.example")}},
        .count = 1,
        .finds = {{3, "text/rfc822-headers\r\n"}},
    },
};

static struct bh_dsn dsn_of(const struct sample *s)
{
    return (struct bh_dsn){
        .reporting_mta = BH_LIT("mx.us.example"),
        .from = BH_LIT("MAILER-DAEMON@mx.us.example"),
        .to = s->envelope.sender,
        .arrival_unix_ms = 1795396329000,
        .now_unix_ms = 1795472708000,
        .original_id = 0x123456789abcdef,
        .unique = 42,
        .envelope = &s->envelope,
        .content = s->content,
        .content_is_whole = !s->partial,
        .recipients = s->recipients,
        .recipients_count = s->count,
    };
}

static char storage[1 << 20];

static struct bh_slice write_report(const struct bh_dsn *dsn, struct bh_dsn_written *written)
{
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_dsn_write(dsn, bh_dsn_sink_buf(&buf), written), BH_OK);
    assert_int_equal(written->size, buf.len);
    assert_int_equal(bh_dsn_size(dsn), buf.len);
    return bh_buf_slice(&buf);
}

static bool holds(struct bh_slice s, const char *text)
{
    return bh_slice_find_slice(s, bh_slice_str(text)) < s.len;
}

static void every_sample_is_a_report(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(samples); i++) {
        const struct sample *s = &samples[i];
        const struct bh_dsn dsn = dsn_of(s);
        struct bh_dsn_written written;
        const struct bh_slice report = write_report(&dsn, &written);
        const struct dsn_parts p = dsn_parse(report);
        const char *wrong =
            p.wrong != NULL ? p.wrong : dsn_check_status(p.parts[1], dsn.recipients_count);
        if (wrong != NULL) {
            fail_msg("%s: %s\n%.*s", s->name, wrong, BH_FMT(report));
        }
        for (size_t f = 0; f < BH_COUNT(s->finds) && s->finds[f].text != NULL; f++) {
            const int part = s->finds[f].part;
            if (!holds(part == 0 ? p.header : p.parts[part - 1], s->finds[f].text)) {
                fail_msg("%s: no '%s' in part %d of\n%.*s", s->name, s->finds[f].text, part,
                         BH_FMT(report));
            }
        }
    }
}

static void the_envelope_is_told(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(samples); i++) {
        const struct bh_dsn dsn = dsn_of(&samples[i]);
        struct bh_dsn_written written;
        const struct bh_slice report = write_report(&dsn, &written);
        bool high = false;
        for (size_t o = 0; o < report.len; o++) {
            high = high || (unsigned char)report.ptr[o] > 127;
        }
        assert_int_equal(written.body, high ? BH_BODY_8BITMIME : BH_BODY_7BIT);
        assert_int_equal(written.smtputf8, strcmp(samples[i].name, "utf8") == 0);
    }
}

/* Of a big message only the header is returned, and of a huge header whole lines up to the cap. */
static void big_messages_are_cut(void **unused)
{
    (void)unused;
    static char content[3 * BH_DSN_CONTENT_MAX];
    const char line[] = "X-Line: 0123456789 0123456789 0123456789\r\n";
    for (size_t i = 0; i < sizeof(content); i++) {
        content[i] = line[i % (sizeof(line) - 1)];
    }
    struct bh_dsn dsn = dsn_of(&samples[0]);
    for (size_t cap = BH_DSN_CONTENT_MAX - 1; cap <= BH_DSN_CONTENT_MAX + 1; cap++) {
        memcpy(content + 38, "\r\n\r\n", 4);
        dsn.content = bh_slice(content, cap);
        struct bh_dsn_written written;
        const struct dsn_parts p = dsn_parse(write_report(&dsn, &written));
        assert_null(p.wrong);
        assert_int_equal(holds(p.parts[2], "message/rfc822"), cap <= BH_DSN_CONTENT_MAX);
    }
    memcpy(content + 38, "9\r\nX", 4);
    dsn.content = bh_slice(content, sizeof(content));
    struct bh_dsn_written written;
    const struct dsn_parts p = dsn_parse(write_report(&dsn, &written));
    assert_null(p.wrong);
    assert_true(p.parts[2].len < BH_DSN_CONTENT_MAX + 200);
    assert_true(p.parts[2].len > BH_DSN_CONTENT_MAX - 200);
}

static enum bh_status put_until(void *ctx, struct bh_slice octets)
{
    size_t *room = ctx;
    if (octets.len > *room) {
        *room = 0;
        return BH_EFULL;
    }
    *room -= octets.len;
    return BH_OK;
}

static void the_sinks_failure_comes_back(void **unused)
{
    (void)unused;
    const struct bh_dsn dsn = dsn_of(&samples[0]);
    const uint64_t size = bh_dsn_size(&dsn);
    for (size_t room = 0; room < size; room += 7) {
        size_t left = room;
        assert_int_equal(bh_dsn_write(&dsn, (struct bh_dsn_sink){put_until, &left}, NULL),
                         BH_EFULL);
    }
    struct bh_buf small = bh_buf(storage, 100);
    assert_int_equal(bh_dsn_write(&dsn, bh_dsn_sink_buf(&small), NULL), BH_ELIMIT);
}

static int write_samples(const char *folder)
{
    for (size_t i = 0; i < BH_COUNT(samples); i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s.eml", folder, samples[i].name);
        FILE *file = fopen(path, "wb");
        if (file == NULL) {
            perror(path);
            return 1;
        }
        const struct bh_dsn dsn = dsn_of(&samples[i]);
        struct bh_buf buf = bh_buf(storage, sizeof(storage));
        const bool written = bh_dsn_write(&dsn, bh_dsn_sink_buf(&buf), NULL) == BH_OK &&
                             fwrite(buf.ptr, 1, buf.len, file) == buf.len;
        if (fclose(file) != 0 || !written) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        return write_samples(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_is_a_report),
        cmocka_unit_test(the_envelope_is_told),
        cmocka_unit_test(big_messages_are_cut),
        cmocka_unit_test(the_sinks_failure_comes_back),
    };
    return cmocka_run_group_tests_name("dsn", tests, NULL, NULL);
}
