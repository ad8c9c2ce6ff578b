/* The server's side of AUTH: files of users, PLAIN, LOGIN, and SCRAM-SHA-256 against a client that
 * this test computes for itself. The keys of "user" are those of RFC 7677 section 3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "bh/auth_server.h"

#define PENCIL                                                                                   \
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=," \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
/* Of "secret", as `openssl passwd -5 -salt saltsalt` makes it. */
#define SHA256_SECRET "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"

static struct bh_auth_users *parse(const char *text)
{
    char storage[200];
    struct bh_buf error = bh_buf(storage, sizeof(storage));
    struct bh_auth_users *users = NULL;
    assert_int_equal(bh_auth_users_parse(bh_slice_str(text), &users, &error), BH_OK);
    assert_non_null(users);
    return users;
}

static void files_are_read_whole_or_not_at_all(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        const char *error; /* NULL: good */
        size_t count;
    } cases[] = {
        {"", NULL, 0},
        {"# nobody\n\n", NULL, 0},
        {"anna:" SHA256_SECRET "\r\nuser:" PENCIL, NULL, 2},
        {"user:" SHA256_SECRET "\nanna:" SHA256_SECRET "\nuser:" PENCIL "\n", NULL, 2},
        {"anna:" SHA256_SECRET "\nanna:" SHA256_SECRET "\n",
         "line 2: this user has a line of this form already", 0},
        {"anna\n", "line 1: a hash of crypt(3) is needed, such as $y$..., or SCRAM keys", 0},
        {"\nanna:secret words\n",
         "line 2: a hash of crypt(3) is needed, such as $y$..., or SCRAM keys", 0},
        {":x\n", "line 1: a name of 1 to 255 characters and ':' are needed", 0},
        {"a\tb:x\n", "line 1: a name of 1 to 255 characters and ':' are needed", 0},
        {"anna:*\n", "line 1: a hash of crypt(3) is needed, such as $y$..., or SCRAM keys", 0},
        {"a:{SCRAM-SHA-256}1000,W22ZaJ0SNY7soEsUEjb6gQ==,A=,A=\n",
         "line 1: {SCRAM-SHA-256} needs iterations (4096 at least), salt, stored key and server "
         "key, commas between",
         0},
        {"a:{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,AAAA,AAAA\n",
         "line 1: {SCRAM-SHA-256} needs iterations (4096 at least), salt, stored key and server "
         "key, commas between",
         0},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char storage[200];
        struct bh_buf error = bh_buf(storage, sizeof(storage));
        struct bh_auth_users *users = NULL;
        const enum bh_status status =
            bh_auth_users_parse(bh_slice_str(cases[i].text), &users, &error);
        assert_int_equal(status, cases[i].error == NULL ? BH_OK : BH_EINVAL);
        if (cases[i].error != NULL) {
            assert_true(bh_slice_eq(bh_buf_slice(&error), bh_slice_str(cases[i].error)));
        } else {
            assert_int_equal(bh_auth_users_count(users), cases[i].count);
        }
        bh_auth_users_unref(users);
    }
}

static void encode(struct bh_slice octets, char *text)
{
    EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)octets.ptr, (int)octets.len);
}

struct talk {
    struct bh_auth_exchange exchange;
    const struct bh_auth_users *users;
    char challenge[BH_SERVER_CHALLENGE_MAX]; /* decoded */
    size_t challenge_len;
};

static enum bh_server_verdict step_raw(struct talk *t, const char *mechanism,
                                       struct bh_slice response, bool none)
{
    char storage[BH_SERVER_CHALLENGE_MAX];
    struct bh_buf challenge = bh_buf(storage, sizeof(storage));
    const enum bh_server_verdict verdict =
        bh_auth_step(&t->exchange, t->users, bh_slice_str(mechanism), response, none, &challenge);
    t->challenge_len = 0;
    if (verdict == BH_SERVER_AUTH_MORE && challenge.len > 0) {
        int padding = 0;
        for (size_t i = challenge.len; i > 0 && storage[i - 1] == '='; i--) {
            padding++;
        }
        const int len = EVP_DecodeBlock((unsigned char *)t->challenge,
                                        (const unsigned char *)storage, (int)challenge.len);
        assert_true(len >= padding);
        t->challenge_len = (size_t)(len - padding);
    }
    return verdict;
}

static enum bh_server_verdict step(struct talk *t, const char *mechanism, struct bh_slice octets)
{
    char text[2048];
    assert_true(octets.len < 1500);
    encode(octets, text);
    return step_raw(t, mechanism, octets.len > 0 ? bh_slice_str(text) : BH_EMPTY, false);
}

static bool asked(const struct talk *t, const char *text)
{
    return bh_slice_eq(bh_slice(t->challenge, t->challenge_len), bh_slice_str(text));
}

static void plain_and_login(void **unused)
{
    (void)unused;
    struct bh_auth_users *users = parse("anna:" SHA256_SECRET "\nuser:" PENCIL "\n");
    static const struct {
        struct bh_slice message;
        enum bh_server_verdict verdict;
    } cases[] = {
        {{"\0anna\0secret", 12}, BH_SERVER_AUTH_GRANTED},
        {{"anna\0anna\0secret", 16}, BH_SERVER_AUTH_GRANTED},
        {{"user\0anna\0secret", 16}, BH_SERVER_AUTH_DENIED}, /* acting for somebody else */
        {{"\0anna\0secreT", 12}, BH_SERVER_AUTH_DENIED},
        {{"\0anna\0", 6}, BH_SERVER_AUTH_DENIED},
        {{"\0anna\0secret\0", 13}, BH_SERVER_AUTH_DENIED},
        {{"\0anne\0secret", 12}, BH_SERVER_AUTH_DENIED},
        {{"\0user\0pencil", 12}, BH_SERVER_AUTH_GRANTED}, /* by the keys of SCRAM */
        {{"\0user\0secret", 12}, BH_SERVER_AUTH_DENIED},
        {{"\0\0secret", 8}, BH_SERVER_AUTH_GARBLED},
        {{"\0anna", 5}, BH_SERVER_AUTH_GARBLED},
        {{"anna", 4}, BH_SERVER_AUTH_GARBLED},
        {{"", 0}, BH_SERVER_AUTH_GARBLED},
    };
    struct talk t = {.users = users};
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        assert_int_equal(step(&t, "PLAIN", cases[i].message), cases[i].verdict);
        assert_int_equal(step_raw(&t, "plain", BH_EMPTY, true), BH_SERVER_AUTH_MORE);
        assert_true(asked(&t, ""));
        assert_int_equal(step(&t, "", cases[i].message), cases[i].verdict);
        assert_int_equal(step(&t, "", cases[i].message), BH_SERVER_AUTH_GARBLED); /* it is over */
    }
    assert_int_equal(step_raw(&t, "LOGIN", BH_EMPTY, true), BH_SERVER_AUTH_MORE);
    assert_true(asked(&t, "Username:"));
    assert_int_equal(step(&t, "", BH_LIT("anna")), BH_SERVER_AUTH_MORE);
    assert_true(asked(&t, "Password:"));
    assert_int_equal(step(&t, "", BH_LIT("secret")), BH_SERVER_AUTH_GRANTED);
    assert_true(bh_slice_eq(bh_auth_exchange_user(&t.exchange), BH_LIT("anna")));
    assert_int_equal(step(&t, "LOGIN", BH_LIT("anna")), BH_SERVER_AUTH_MORE);
    assert_int_equal(step(&t, "", BH_LIT("secret2")), BH_SERVER_AUTH_DENIED);

    static const char *const no_base64[] = {"A",    "AAA",  "AA=A", "A===",     "AAAA ",
                                            "AAB=", "AB==", "====", "AA==AAAA", "AA-_"};
    for (size_t i = 0; i < BH_COUNT(no_base64); i++) {
        assert_int_equal(step_raw(&t, "PLAIN", bh_slice_str(no_base64[i]), false),
                         BH_SERVER_AUTH_GARBLED);
    }
    /* Not for everybody, so for nobody. */
    assert_int_equal(step_raw(&t, "SCRAM-SHA-256", BH_EMPTY, true), BH_SERVER_AUTH_FAILED);
    t.users = NULL;
    assert_int_equal(step(&t, "PLAIN", cases[0].message), BH_SERVER_AUTH_FAILED);
    bh_auth_users_unref(users);
}

/* --- SCRAM --- */

static void hmac(const uint8_t *key, size_t key_len, const char *text, uint8_t out[32])
{
    assert_non_null(HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text),
                         out, NULL));
}

struct scram {
    const char *name;
    const char *password;
    const char *header;  /* of the first message */
    const char *binding; /* in the last one; NULL: the same */
    const char *nonce;   /* in the last one; NULL: as the server said */
    uint8_t server_key[32];
    char signed_text[2048];
};

/* The client's last message, from the server's first. */
static void client_final(struct scram *c, const char *bare, const char *first, char *message,
                         size_t cap)
{
    char nonce[400];
    char salt64[100];
    char binding[64];
    unsigned iterations = 0;
    uint8_t salt[128];
    uint8_t salted[32];
    uint8_t key[32];
    uint8_t stored[32];
    uint8_t signature[32];
    char proof[64];
    assert_int_equal(sscanf(first, "r=%399[^,],s=%99[^,],i=%u", nonce, salt64, &iterations), 3);
    int salt_len = EVP_DecodeBlock(salt, (const unsigned char *)salt64, (int)strlen(salt64));
    for (size_t i = strlen(salt64); salt64[i - 1] == '='; i--) {
        salt_len--;
    }
    assert_int_equal(PKCS5_PBKDF2_HMAC(c->password, (int)strlen(c->password), salt, salt_len,
                                       (int)iterations, EVP_sha256(), 32, salted),
                     1);
    hmac(salted, 32, "Client Key", key);
    hmac(salted, 32, "Server Key", c->server_key);
    assert_int_equal(EVP_Digest(key, 32, stored, NULL, EVP_sha256(), NULL), 1);
    encode(bh_slice_str(c->binding != NULL ? c->binding : c->header), binding);
    char without[600];
    snprintf(without, sizeof(without), "c=%s,r=%s", binding, c->nonce != NULL ? c->nonce : nonce);
    snprintf(c->signed_text, sizeof(c->signed_text), "%s,%s,%s", bare, first, without);
    hmac(stored, 32, c->signed_text, signature);
    for (size_t i = 0; i < 32; i++) {
        key[i] ^= signature[i];
    }
    encode(bh_slice(key, 32), proof);
    snprintf(message, cap, "%s,p=%s", without, proof);
}

/* Up to the verdict on the proof. */
static enum bh_server_verdict scram(struct talk *t, struct scram *c)
{
    char bare[300];
    char first[400];
    char message[1200];
    char challenge[BH_SERVER_CHALLENGE_MAX + 1];
    snprintf(bare, sizeof(bare), "n=%s,r=rOprNGfwEbeRWgbNEkqO", c->name);
    snprintf(first, sizeof(first), "%s%s", c->header, bare);
    const enum bh_server_verdict verdict = step(t, "SCRAM-SHA-256", bh_slice_str(first));
    if (verdict != BH_SERVER_AUTH_MORE) {
        return verdict;
    }
    memcpy(challenge, t->challenge, t->challenge_len);
    challenge[t->challenge_len] = '\0';
    client_final(c, bare, challenge, message, sizeof(message));
    return step(t, "", bh_slice_str(message));
}

static void scram_proves_both_sides(void **unused)
{
    (void)unused;
    struct bh_auth_users *users = parse("user:" PENCIL "\na,b=c:" PENCIL "\n");
    static const struct {
        struct scram client;
        enum bh_server_verdict verdict;
    } cases[] = {
        {{.name = "user", .password = "pencil", .header = "n,,"}, BH_SERVER_AUTH_MORE},
        {{.name = "user", .password = "pencil", .header = "y,,"}, BH_SERVER_AUTH_MORE},
        {{.name = "user", .password = "pencil", .header = "n,a=user,"}, BH_SERVER_AUTH_MORE},
        {{.name = "a=2Cb=3Dc", .password = "pencil", .header = "n,,"}, BH_SERVER_AUTH_MORE},
        {{.name = "user", .password = "pencils", .header = "n,,"}, BH_SERVER_AUTH_DENIED},
        {{.name = "nobody", .password = "pencil", .header = "n,,"}, BH_SERVER_AUTH_DENIED},
        {{.name = "user", .password = "pencil", .header = "n,,", .binding = "y,,"},
         BH_SERVER_AUTH_DENIED},
        {{.name = "user", .password = "pencil", .header = "n,,", .nonce = "rOprNGfwEbeRWgbNEkqO"},
         BH_SERVER_AUTH_DENIED},
        {{.name = "user", .password = "pencil", .header = "n,a=root,"}, BH_SERVER_AUTH_GARBLED},
        {{.name = "user", .password = "pencil", .header = "p=tls-unique,,"},
         BH_SERVER_AUTH_GARBLED},
        {{.name = "a=2cb", .password = "pencil", .header = "n,,"}, BH_SERVER_AUTH_GARBLED},
        {{.name = "", .password = "pencil", .header = "n,,"}, BH_SERVER_AUTH_GARBLED},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct talk t = {.users = users};
        struct scram client = cases[i].client;
        assert_int_equal(scram(&t, &client), cases[i].verdict);
        if (cases[i].verdict == BH_SERVER_AUTH_MORE) {
            uint8_t signature[32];
            char text[64];
            char wanted[80];
            hmac(client.server_key, 32, client.signed_text, signature);
            encode(bh_slice(signature, 32), text);
            snprintf(wanted, sizeof(wanted), "v=%s", text);
            assert_true(asked(&t, wanted));
            assert_int_equal(step(&t, "", BH_EMPTY), BH_SERVER_AUTH_GRANTED);
        }
    }
    bh_auth_users_unref(users);
}

/* Who asks twice about a name learns nothing from the salt. */
static void an_unknown_user_has_a_salt_that_stays(void **unused)
{
    (void)unused;
    struct bh_auth_users *users = parse("user:" PENCIL "\n");
    char salts[2][64];
    for (size_t i = 0; i < 2; i++) {
        struct talk t = {.users = users};
        assert_int_equal(step(&t, "SCRAM-SHA-256", BH_LIT("n,,n=nobody,r=abc")),
                         BH_SERVER_AUTH_MORE);
        t.challenge[t.challenge_len] = '\0';
        assert_int_equal(sscanf(t.challenge, "r=%*[^,],s=%63[^,],i=4096", salts[i]), 1);
    }
    assert_string_equal(salts[0], salts[1]);
    bh_auth_users_unref(users);
}

static void lines_that_are_made_are_good(void **unused)
{
    (void)unused;
    char storage[1200];
    struct bh_buf line = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_auth_line_crypt(BH_LIT("anna"), BH_LIT("s3cret"), &line), BH_OK);
    bh_buf_put_char(&line, '\n');
    assert_int_equal(bh_auth_line_scram(BH_LIT("anna"), BH_LIT("s3cret"), &line), BH_OK);
    bh_buf_put_char(&line, '\0');
    struct bh_auth_users *users = parse(storage);
    assert_int_equal(bh_auth_users_count(users), 1);
    struct talk t = {.users = users};
    struct scram client = {.name = "anna", .password = "s3cret", .header = "n,,"};
    assert_int_equal(scram(&t, &client), BH_SERVER_AUTH_MORE);
    assert_int_equal(step(&t, "PLAIN", bh_slice("\0anna\0s3cret", 12)), BH_SERVER_AUTH_GRANTED);
    bh_auth_users_unref(users);
    assert_int_equal(bh_auth_line_crypt(BH_LIT("a:b"), BH_LIT("x"), &line), BH_EINVAL);
    assert_int_equal(bh_auth_line_scram(BH_LIT("anna"), BH_EMPTY, &line), BH_EINVAL);
}

static void write_file(const char *path, const char *text)
{
    char draft[128];
    snprintf(draft, sizeof(draft), "%s.new", path);
    FILE *file = fopen(draft, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(draft, path), 0); /* another inode: a change for sure */
}

static void a_file_is_followed_and_a_bad_one_is_not(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/bh-auth-XXXXXX";
    char path[64];
    char list[BH_AUTH_MECHANISMS_MAX];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/users", folder);
    struct bh_auth_source *source = bh_auth_source_create(bh_slice_str(path));
    assert_non_null(source);
    assert_null(bh_auth_source_get(source));
    write_file(path, "user:" PENCIL "\n");
    struct bh_auth_users *users = bh_auth_source_get(source);
    assert_non_null(users);
    bh_auth_source_mechanisms(source, list);
    assert_string_equal(list, "SCRAM-SHA-256 PLAIN LOGIN");
    write_file(path, "user:" PENCIL "\nanna:" SHA256_SECRET "\n");
    struct bh_auth_users *more = bh_auth_source_get(source);
    assert_int_equal(bh_auth_users_count(more), 2);
    assert_int_equal(bh_auth_users_count(users), 1); /* whoever holds the old one keeps it */
    bh_auth_source_mechanisms(source, list);
    assert_string_equal(list, "PLAIN LOGIN");
    write_file(path, "user:" PENCIL "\nanna:oops\n");
    struct bh_auth_users *same = bh_auth_source_get(source);
    assert_ptr_equal(same, more);
    assert_int_equal(unlink(path), 0);
    struct bh_auth_users *still = bh_auth_source_get(source);
    assert_ptr_equal(still, more);
    bh_auth_users_unref(users);
    bh_auth_users_unref(more);
    bh_auth_users_unref(same);
    bh_auth_users_unref(still);
    bh_auth_source_destroy(source);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read_whole_or_not_at_all),
        cmocka_unit_test(plain_and_login),
        cmocka_unit_test(scram_proves_both_sides),
        cmocka_unit_test(an_unknown_user_has_a_salt_that_stays),
        cmocka_unit_test(lines_that_are_made_are_good),
        cmocka_unit_test(a_file_is_followed_and_a_bad_one_is_not),
    };
    return cmocka_run_group_tests_name("auth_server", tests, NULL, NULL);
}
