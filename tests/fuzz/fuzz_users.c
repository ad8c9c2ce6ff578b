/* The file of users, whatever somebody put there. It is taken whole or not at all; a refusal names
 * a line and quotes nothing of it; line ends of either kind, comments and blank lines change
 * nothing; and a user without a line is never granted anything. */
#include <openssl/evp.h>
#include <stdlib.h>

#include "bh/auth_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ERROR_MAX 300

static enum bh_status parse(struct bh_slice text, size_t *count, char error[ERROR_MAX])
{
    struct bh_auth_users *users = NULL;
    struct bh_buf out = bh_buf(error, ERROR_MAX - 1);
    const enum bh_status status = bh_auth_users_parse(text, &users, &out);
    error[out.len] = 0;
    *count = status == BH_OK ? bh_auth_users_count(users) : 0;
    if (status == BH_OK) {
        static const char nobody[] = "AG5vYm9keQB4"; /* \0nobody\0x */
        struct bh_auth_exchange e = {0};
        char challenge[BH_SERVER_CHALLENGE_MAX];
        struct bh_buf asked = bh_buf(challenge, sizeof(challenge));
        /* Crypt is slow on purpose: only where there is nobody's hash to be checked instead. */
        BH_ASSERT(*count > 0 || bh_auth_step(&e, users, BH_LIT("PLAIN"), bh_slice_str(nobody),
                                             false, &asked) != BH_SERVER_AUTH_GRANTED);
    }
    bh_auth_users_unref(users);
    return status;
}

/* The sentences of the parser, which hold no octet of the file. */
static void check_error(const char *error, size_t lines)
{
    static const char *const sentences[] = {
        ": a name of 1 to 255 characters and ':' are needed",
        (": {SCRAM-SHA-256} needs iterations (4096 at least), salt, stored key and server key, "
         "commas between"),
        ": a hash of crypt(3) is needed, such as $y$..., or SCRAM keys", ": a NUL octet",
        ": this user has a line of this form already"};
    char *end = NULL;
    BH_ASSERT(strncmp(error, "line ", 5) == 0);
    const unsigned long line = strtoul(error + 5, &end, 10);
    BH_ASSERT(line >= 1 && line <= lines);
    bool known = false;
    for (size_t i = 0; i < BH_COUNT(sentences); i++) {
        known = known || strcmp(end, sentences[i]) == 0;
    }
    BH_ASSERT(known);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char other[3 << 16];
    char error[ERROR_MAX];
    char again[ERROR_MAX];
    size_t count = 0;
    size_t same = 0;
    size_t lines = 1;
    if (size > 1 << 16) {
        return 0;
    }
    struct bh_buf text = bh_buf(other, sizeof(other));
    for (size_t i = 0; i < size; i++) {
        const bool lone = data[i] == '\n' && (i == 0 || data[i - 1] != '\r');
        bh_buf_put(&text, lone ? BH_LIT("\r") : BH_EMPTY);
        bh_buf_put_char(&text, (char)data[i]);
        lines += data[i] == '\n' ? 1 : 0;
    }
    bh_buf_put(&text, BH_LIT("\n\r\n# the end\n"));
    const enum bh_status status = parse(bh_slice(data, size), &count, error);
    const enum bh_status second = parse(bh_buf_slice(&text), &same, again);
    if (size == 0 || data[size - 1] != '\r') {
        BH_ASSERT(status == second && count == same);
    }
    BH_ASSERT(count <= lines);
    if (status == BH_EINVAL) {
        check_error(error, lines);
    }
    return 0;
}
