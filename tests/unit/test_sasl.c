/* The examples of the RFCs, a server's lies, and what must never go out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/base64.h"
#include "bh/sasl.h"
#include "bh/smtp_reply.h"

static char reason[256];

static struct bh_sasl *make(uint32_t mechanism, const char *user, const char *secret,
                            const char *nonce)
{
    struct bh_sasl *sasl = NULL;
    struct bh_buf error = bh_buf(reason, sizeof(reason));
    const struct bh_sasl_params params = {.mechanism = mechanism,
                                          .user = bh_slice_str(user),
                                          .secret = bh_slice_str(secret),
                                          .nonce = bh_slice_str(nonce)};
    assert_int_equal(bh_sasl_create(&params, &sasl, &error), BH_OK);
    return sasl;
}

/* Is the response, out of base64, this text? */
static void assert_says(struct bh_slice response, struct bh_slice want)
{
    char storage[BH_SASL_RESPONSE_MAX];
    struct bh_buf plain = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_base64_decode(response, &plain), BH_OK);
    assert_int_equal(plain.len, want.len);
    assert_true(bh_slice_eq(bh_buf_slice(&plain), want));
}

static enum bh_status answer(struct bh_sasl *sasl, const char *challenge, struct bh_slice *response)
{
    char storage[6000];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    struct bh_buf error = bh_buf(reason, sizeof(reason) - 1);
    assert_int_equal(bh_base64_encode(bh_slice_str(challenge), &text), BH_OK);
    const enum bh_status status = bh_sasl_answer(sasl, bh_buf_slice(&text), response, &error);
    reason[error.len] = '\0';
    return status;
}

static void plain(void **unused)
{
    (void)unused;
    struct bh_slice response;
    struct bh_sasl *sasl = make(BH_SASL_PLAIN, "tim", "tanstaaftanstaaf", "");
    assert_false(bh_sasl_complete(sasl));
    bh_sasl_begin(sasl, &response);
    assert_says(response, BH_LIT("\0tim\0tanstaaftanstaaf"));
    assert_true(bh_sasl_complete(sasl));
    assert_int_equal(answer(sasl, "more?", &response), BH_EPROTO);
    bh_sasl_destroy(sasl);
}

static void login(void **unused)
{
    (void)unused;
    struct bh_slice response;
    struct bh_sasl *sasl = make(BH_SASL_LOGIN, "tim", "secret", "");
    bh_sasl_begin(sasl, &response);
    assert_int_equal(response.len, 0);
    assert_int_equal(answer(sasl, "Username:", &response), BH_OK);
    assert_says(response, BH_LIT("tim"));
    assert_false(bh_sasl_complete(sasl)); /* a 235 now would be a server that asks no password */
    assert_int_equal(answer(sasl, "Password:", &response), BH_OK);
    assert_says(response, BH_LIT("secret"));
    assert_true(bh_sasl_complete(sasl));
    assert_int_equal(answer(sasl, "Password:", &response), BH_EPROTO);
    bh_sasl_destroy(sasl);
}

/* RFC 2195 section 2. */
static void cram_md5(void **unused)
{
    (void)unused;
    struct bh_slice response;
    struct bh_sasl *sasl = make(BH_SASL_CRAM_MD5, "tim", "tanstaaftanstaaf", "");
    bh_sasl_begin(sasl, &response);
    assert_int_equal(response.len, 0);
    assert_int_equal(answer(sasl, "<1896.697170952@postoffice.reston.mci.net>", &response), BH_OK);
    assert_says(response, BH_LIT("tim b913a602c7eda7a495b4e6e7334d3890"));
    assert_true(bh_sasl_complete(sasl));
    assert_int_equal(answer(sasl, "<again>", &response), BH_EPROTO);
    bh_sasl_destroy(sasl);
}

static void xoauth2(void **unused)
{
    (void)unused;
    struct bh_slice response;
    struct bh_sasl *sasl = make(BH_SASL_XOAUTH2, "someuser@example.com", "ya29.vF9dft4qmTc2N", "");
    bh_sasl_begin(sasl, &response);
    assert_says(response,
                BH_LIT("user=someuser@example.com\001auth=Bearer ya29.vF9dft4qmTc2N\001\001"));
    assert_true(bh_sasl_complete(sasl));
    assert_int_equal(answer(sasl, "{\"status\":\"401\",\"schemes\":\"bearer\"}", &response), BH_OK);
    assert_int_equal(response.len, 0); /* the 535 comes after it */
    assert_int_equal(answer(sasl, "{}", &response), BH_EPROTO);
    bh_sasl_destroy(sasl);
}

#define NONCE "rOprNGfwEbeRWgbNEkqO"
#define FIRST                                                              \
    "r=" NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==" \
    ",i=4096"

static struct bh_sasl *scram(void)
{
    struct bh_slice response;
    struct bh_sasl *sasl = make(BH_SASL_SCRAM_SHA_256, "user", "pencil", NONCE);
    bh_sasl_begin(sasl, &response);
    assert_says(response, BH_LIT("n,,n=user,r=" NONCE));
    return sasl;
}

/* RFC 7677 section 3. */
static void scram_sha_256(void **unused)
{
    (void)unused;
    struct bh_slice response;
    struct bh_sasl *sasl = scram();
    assert_int_equal(answer(sasl, FIRST, &response), BH_OK);
    assert_says(response, BH_LIT("c=biws,r=" NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                 "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
    assert_false(bh_sasl_complete(sasl)); /* not until the server has proven itself */
    assert_int_equal(answer(sasl, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", &response),
                     BH_OK);
    assert_int_equal(response.len, 0);
    assert_true(bh_sasl_complete(sasl));
    assert_int_equal(answer(sasl, "v=x", &response), BH_EPROTO);
    bh_sasl_destroy(sasl);
}

static void scram_names_are_escaped_and_nonces_differ(void **unused)
{
    (void)unused;
    struct bh_slice one;
    struct bh_slice two;
    struct bh_sasl *a = make(BH_SASL_SCRAM_SHA_256, "a=b,c", "x", NONCE);
    bh_sasl_begin(a, &one);
    assert_says(one, BH_LIT("n,,n=a=3Db=2Cc,r=" NONCE));
    bh_sasl_destroy(a);
    a = make(BH_SASL_SCRAM_SHA_256, "u", "x", "");
    struct bh_sasl *b = make(BH_SASL_SCRAM_SHA_256, "u", "x", "");
    bh_sasl_begin(a, &one);
    bh_sasl_begin(b, &two);
    assert_false(bh_slice_eq(one, two));
    bh_sasl_destroy(a);
    bh_sasl_destroy(b);
}

static void scram_believes_no_wrong_server(void **unused)
{
    (void)unused;
    static const struct {
        const char *first, *final, *why;
    } cases[] = {
        {"r=" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", NULL, "nonce"}, /* added nothing */
        {"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", NULL, "nonce"},
        {"r=" NONCE "\001x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", NULL, "nonce"},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095", NULL, "rounds"},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=600001", NULL, "rounds"},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999", NULL, "rounds"},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1", NULL, "rounds"},
        {"r=" NONCE "x,s=W22Za,i=4096", NULL, "salt"},
        {"r=" NONCE "x,i=4096", NULL, "lacks"},
        {"m=ext,r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", NULL, "lacks"},
        {"", NULL, "lacks"},
        {FIRST, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "signature"},
        {FIRST, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95GA=", "signature"},
        {FIRST, "v=", "signature"},
        {FIRST, "", "signature"},
        {FIRST, "e=other-error", "refuses by SCRAM: other-error"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bh_slice response;
        struct bh_sasl *sasl = scram();
        enum bh_status status = answer(sasl, cases[i].first, &response);
        if (cases[i].final != NULL) {
            assert_int_equal(status, BH_OK);
            status = answer(sasl, cases[i].final, &response);
        }
        assert_int_equal(status, BH_EPROTO);
        assert_non_null(strstr(reason, cases[i].why));
        assert_false(bh_sasl_complete(sasl));
        bh_sasl_destroy(sasl);
    }
}

static void challenges_that_must_be_base64(void **unused)
{
    (void)unused;
    static const uint32_t strict[] = {BH_SASL_CRAM_MD5, BH_SASL_SCRAM_SHA_256};
    for (size_t i = 0; i < 2; i++) {
        struct bh_slice response;
        struct bh_buf error = bh_buf(reason, sizeof(reason));
        struct bh_sasl *sasl = make(strict[i], "u", "x", "");
        bh_sasl_begin(sasl, &response);
        assert_int_equal(bh_sasl_answer(sasl, BH_LIT("no base64"), &response, &error), BH_EPROTO);
        bh_sasl_destroy(sasl);
    }
}

static void what_cannot_be_said(void **unused)
{
    (void)unused;
    char user[BH_SASL_USER_MAX + 1];
    static char secret[BH_SASL_SECRET_MAX + 1];
    memset(user, 'u', sizeof(user));
    memset(secret, 'x', sizeof(secret));
    const struct {
        uint32_t mechanism;
        struct bh_slice user, secret;
        enum bh_status status;
    } cases[] = {
        {BH_SASL_PLAIN, bh_slice(user, BH_SASL_USER_MAX), bh_slice(secret, BH_SASL_SECRET_MAX),
         BH_OK},
        {BH_SASL_XOAUTH2, bh_slice(user, BH_SASL_USER_MAX), bh_slice(secret, BH_SASL_SECRET_MAX),
         BH_OK},
        {BH_SASL_PLAIN, bh_slice(user, sizeof(user)), BH_LIT("x"), BH_EINVAL},
        {BH_SASL_PLAIN, BH_LIT("u"), bh_slice(secret, sizeof(secret)), BH_EINVAL},
        {BH_SASL_PLAIN, BH_EMPTY, BH_LIT("x"), BH_EINVAL},
        {BH_SASL_PLAIN, BH_LIT("u"), BH_EMPTY, BH_EINVAL},
        {BH_SASL_PLAIN, BH_LIT("u\0v"), BH_LIT("x"), BH_EINVAL},
        {BH_SASL_XOAUTH2, BH_LIT("u"), BH_LIT("x\001auth=y"), BH_EINVAL},
        {BH_SASL_LOGIN, BH_LIT("u"), BH_LIT("x\r\nRSET"), BH_EINVAL},
        {BH_SASL_LOGIN, BH_LIT("u"), BH_LIT("\xff"), BH_EINVAL},
        {BH_SASL_PLAIN, BH_LIT("\xc3\xbcser"),
         BH_LIT("gr\xc3\xb6\xc3\x9f"
                "e"),
         BH_OK},
        {0, BH_LIT("u"), BH_LIT("x"), BH_EINVAL},
        {BH_SASL_PLAIN | BH_SASL_LOGIN, BH_LIT("u"), BH_LIT("x"), BH_EINVAL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bh_sasl *sasl = NULL;
        struct bh_buf error = bh_buf(reason, sizeof(reason));
        const struct bh_sasl_params params = {
            .mechanism = cases[i].mechanism, .user = cases[i].user, .secret = cases[i].secret};
        assert_int_equal(bh_sasl_create(&params, &sasl, &error), cases[i].status);
        if (sasl != NULL) {
            struct bh_slice response;
            bh_sasl_begin(sasl, &response);
            assert_true(response.len > 0 && response.len <= BH_SASL_RESPONSE_MAX);
        }
        bh_sasl_destroy(sasl);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(login),
        cmocka_unit_test(cram_md5),
        cmocka_unit_test(xoauth2),
        cmocka_unit_test(scram_sha_256),
        cmocka_unit_test(scram_names_are_escaped_and_nonces_differ),
        cmocka_unit_test(scram_believes_no_wrong_server),
        cmocka_unit_test(challenges_that_must_be_base64),
        cmocka_unit_test(what_cannot_be_said),
    };
    return cmocka_run_group_tests_name("sasl", tests, NULL, NULL);
}
