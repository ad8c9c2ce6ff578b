#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/secrets.h"

static char folder[64];
static char path[128];
static char reason[256];

static int make_folder(void **unused)
{
    (void)unused;
    (void)snprintf(folder, sizeof(folder), "/tmp/bh-secrets-XXXXXX");
    (void)snprintf(path, sizeof(path), "%s", mkdtemp(folder) != NULL ? folder : "");
    (void)snprintf(path + strlen(path), sizeof(path) - strlen(path), "/secret");
    return folder[0] == '\0';
}

static int remove_folder(void **unused)
{
    (void)unused;
    (void)unlink(path);
    return rmdir(folder);
}

/* Another file takes its place, as an editor or a tool of rotation does it. */
static void write_file(struct bh_slice octets, mode_t mode)
{
    char beside[160];
    (void)snprintf(beside, sizeof(beside), "%s.new", path);
    const int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, octets.ptr, octets.len), (ssize_t)octets.len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(rename(beside, path), 0);
}

static enum bh_status get(struct bh_secrets *secrets, struct bh_slice *secret)
{
    struct bh_buf error = bh_buf(reason, sizeof(reason) - 1);
    const enum bh_status status = bh_secrets_get(secrets, bh_slice_str(path), secret, &error);
    reason[error.len] = '\0';
    return status;
}

static void it_is_read_again_once_changed(void **unused)
{
    (void)unused;
    struct bh_secrets *secrets = bh_secrets_create();
    struct bh_slice secret;
    write_file(BH_LIT("first\n"), 0600);
    assert_int_equal(get(secrets, &secret), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("first")));
    assert_int_equal(get(secrets, &secret), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("first")));
    write_file(BH_LIT("other\r\n"), 0600); /* the same length */
    assert_int_equal(get(secrets, &secret), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("other")));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(get(secrets, &secret), BH_EIO); /* gone is gone: what was read is not used */
    assert_non_null(strstr(reason, "No such file"));
    write_file(BH_LIT("back"), 0600);
    assert_int_equal(get(secrets, &secret), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("back")));
    bh_secrets_destroy(secrets);
}

/* What a service manager hands over is named, not where it lies. */
static void a_credential_is_found_by_its_name(void **unused)
{
    (void)unused;
    struct bh_secrets *secrets = bh_secrets_create();
    struct bh_slice secret;
    const struct bh_slice named = BH_LIT("credential:secret");
    struct bh_buf error = bh_buf(reason, sizeof(reason) - 1);
    write_file(BH_LIT("handed over\n"), 0600);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    assert_int_equal(bh_secrets_get(secrets, named, &secret, &error), BH_EIO);
    reason[error.len] = '\0';
    assert_non_null(strstr(reason, "credential:secret: no service manager"));
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
    assert_int_equal(bh_secrets_get(secrets, named, &secret, &error), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("handed over")));
    assert_int_equal(bh_secret_check(named, &error), BH_OK);
    write_file(BH_LIT("another\n"), 0600);
    assert_int_equal(bh_secrets_get(secrets, named, &secret, &error), BH_OK);
    assert_true(bh_slice_eq(secret, BH_LIT("another")));
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    assert_int_equal(bh_secrets_get(secrets, named, &secret, &error), BH_EIO);
    bh_secrets_destroy(secrets);
}

static void what_is_no_secret(void **unused)
{
    (void)unused;
    static char longest[BH_SECRET_LEN_MAX + 3];
    memset(longest, 'x', sizeof(longest));
    const struct {
        struct bh_slice octets;
        enum bh_status status;
        const char *why;
    } cases[] = {
        {BH_EMPTY, BH_EIO, "empty"},
        {BH_LIT("\n"), BH_EIO, "empty"},
        {BH_LIT("one\ntwo\n"), BH_EIO, "one line"},
        {BH_LIT("one\n\n"), BH_EIO, "one line"},
        {BH_LIT("a\0b"), BH_EIO, "one line"},
        {BH_LIT(" blanks stay "), BH_OK, NULL},
        {bh_slice(longest, BH_SECRET_LEN_MAX), BH_OK, NULL},
        {bh_slice(longest, BH_SECRET_LEN_MAX + 1), BH_EIO, "too long"},
        {bh_slice(longest, BH_SECRET_LEN_MAX + 3), BH_EIO, "too long"},
    };
    struct bh_secrets *secrets = bh_secrets_create();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bh_slice secret;
        write_file(cases[i].octets, 0600);
        assert_int_equal(get(secrets, &secret), cases[i].status);
        if (cases[i].why != NULL) {
            assert_non_null(strstr(reason, cases[i].why));
            assert_non_null(strstr(reason, path));
        } else {
            assert_true(bh_slice_eq(secret, cases[i].octets));
        }
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: it must not be waited for */
    struct bh_slice secret;
    assert_int_equal(get(secrets, &secret), BH_EIO);
    assert_non_null(strstr(reason, "regular file"));
    assert_int_equal(unlink(path), 0);
    bh_secrets_destroy(secrets);
}

static void more_files_than_places(void **unused)
{
    (void)unused;
    struct bh_secrets *secrets = bh_secrets_create();
    char one[160];
    for (int i = 0; i < BH_SECRETS_MAX + 8; i++) {
        struct bh_buf error = bh_buf(reason, sizeof(reason));
        struct bh_slice secret;
        write_file(BH_LIT("secret"), 0600);
        (void)snprintf(one, sizeof(one), "%s%d", path, i);
        assert_int_equal(rename(path, one), 0);
        assert_int_equal(bh_secrets_get(secrets, bh_slice_str(one), &secret, &error), BH_OK);
        assert_true(bh_slice_eq(secret, BH_LIT("secret")));
        assert_int_equal(unlink(one), 0);
    }
    bh_secrets_destroy(secrets);
}

static void who_may_read_it(void **unused)
{
    (void)unused;
    struct bh_buf error = bh_buf(reason, sizeof(reason));
    write_file(BH_LIT("secret\n"), 0640);
    assert_int_equal(bh_secret_check(bh_slice_str(path), &error), BH_OK);
    assert_int_equal(error.len, 0);
    write_file(BH_LIT("secret\n"), 0644);
    assert_int_equal(bh_secret_check(bh_slice_str(path), &error), BH_ELIMIT);
    assert_true(bh_slice_find_slice(bh_buf_slice(&error), BH_LIT("others")) < error.len);
    assert_true(bh_slice_find_slice(bh_buf_slice(&error), BH_LIT("secret\n")) == error.len);
    error.len = 0;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bh_secret_check(bh_slice_str(path), &error), BH_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_read_again_once_changed),
        cmocka_unit_test(a_credential_is_found_by_its_name),
        cmocka_unit_test(what_is_no_secret),
        cmocka_unit_test(more_files_than_places),
        cmocka_unit_test(who_may_read_it),
    };
    return cmocka_run_group_tests_name("secrets", tests, make_folder, remove_folder);
}
