/* Whether a password is right, by either form; and how both forms are made. */
#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

#include "server_internal.h"

#define NEW_ITERATIONS 10000 /* of the keys that bh_auth_line_scram makes */
#define NEW_SALT 16          /* octets */

bool auth_hmac(const uint8_t key[BH_AUTH_SCRAM_KEY], struct bh_slice text,
               uint8_t out[BH_AUTH_SCRAM_KEY])
{
    unsigned len = 0;
    return HMAC(EVP_sha256(), key, BH_AUTH_SCRAM_KEY, (const unsigned char *)text.ptr, text.len,
                out, &len) != NULL &&
           len == BH_AUTH_SCRAM_KEY;
}

bool auth_scram_salted(struct bh_slice password, const struct scram_keys *keys,
                       uint8_t salted[BH_AUTH_SCRAM_KEY])
{
    return PKCS5_PBKDF2_HMAC(password.ptr, (int)password.len, keys->salt, keys->salt_len,
                             (int)keys->iterations, EVP_sha256(), BH_AUTH_SCRAM_KEY, salted) == 1;
}

/* StoredKey and ServerKey of RFC 5802 section 3. */
static bool derive(struct bh_slice password, struct scram_keys *keys)
{
    uint8_t salted[BH_AUTH_SCRAM_KEY];
    uint8_t client_key[BH_AUTH_SCRAM_KEY];
    const bool good =
        auth_scram_salted(password, keys, salted) &&
        auth_hmac(salted, BH_LIT("Client Key"), client_key) &&
        auth_hmac(salted, BH_LIT("Server Key"), keys->server_key) &&
        EVP_Digest(client_key, sizeof(client_key), keys->stored_key, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_cleanse(salted, sizeof(salted));
    OPENSSL_cleanse(client_key, sizeof(client_key));
    return good;
}

static bool scram_good(const struct scram_keys *stored, struct bh_slice password)
{
    struct scram_keys made = *stored;
    const bool good = derive(password, &made) &&
                      CRYPTO_memcmp(made.stored_key, stored->stored_key, BH_AUTH_SCRAM_KEY) == 0;
    OPENSSL_cleanse(&made, sizeof(made));
    return good;
}

/* The password is a C string here: it has no NUL, as the caller saw. */
static bool hash_good(const char *hash, const char *password)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    if (data == NULL) {
        return false;
    }
    const char *made = crypt_r(password, hash, data);
    const size_t len = strlen(hash);
    const bool good = made != NULL && strlen(made) == len && CRYPTO_memcmp(made, hash, len) == 0;
    OPENSSL_cleanse(data, sizeof(*data));
    free(data);
    return good;
}

static bool user_good(const struct auth_user *user, const char *text, struct bh_slice password)
{
    return user->hash != NULL ? hash_good(user->hash, text) : scram_good(&user->scram, password);
}

bool auth_password_good(const struct bh_auth_users *users, struct bh_slice name,
                        struct bh_slice password)
{
    char text[PASSWORD_MAX + 1];
    if (users->count == 0 || password.len == 0 || password.len > PASSWORD_MAX ||
        memchr(password.ptr, '\0', password.len) != NULL) {
        return false;
    }
    memcpy(text, password.ptr, password.len);
    text[password.len] = '\0';
    const struct auth_user *user = auth_users_find(users, name);
    /* Somebody else's hash, so that a name that nobody has takes as long. */
    const bool good = user_good(user != NULL ? user : &users->users[0], text, password);
    OPENSSL_cleanse(text, sizeof(text));
    return good && user != NULL;
}

/* --- what differs from process to process --- */

static pthread_once_t secret_once = PTHREAD_ONCE_INIT;
static uint8_t secret[BH_AUTH_SCRAM_KEY];

static void make_secret(void)
{
    BH_ASSERT(RAND_bytes(secret, sizeof(secret)) == 1);
}

const uint8_t *auth_process_secret(void)
{
    pthread_once(&secret_once, make_secret);
    return secret;
}

/* --- lines of the file --- */

static bool name_fits(struct bh_slice name)
{
    bool good = name.len > 0 && name.len <= BH_SERVER_USER_MAX && name.ptr[0] != '#';
    for (size_t i = 0; good && i < name.len; i++) {
        good = (unsigned char)name.ptr[i] >= ' ' && name.ptr[i] != 127 && name.ptr[i] != ':';
    }
    return good;
}

enum bh_status bh_auth_line_crypt(struct bh_slice name, struct bh_slice password,
                                  struct bh_buf *line)
{
    char text[PASSWORD_MAX + 1];
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    if (!name_fits(name) || password.len == 0 || password.len > PASSWORD_MAX ||
        memchr(password.ptr, '\0', password.len) != NULL) {
        return BH_EINVAL;
    }
    struct crypt_data *data = calloc(1, sizeof(*data));
    if (data == NULL) {
        return BH_ENOMEM;
    }
    memcpy(text, password.ptr, password.len);
    text[password.len] = '\0';
    const char *made = crypt_gensalt_rn(NULL, 0, NULL, 0, setting, sizeof(setting)) != NULL
                           ? crypt_r(text, setting, data)
                           : NULL;
    enum bh_status status = made != NULL && made[0] != '*' ? BH_OK : BH_EIO;
    if (status == BH_OK) {
        status = bh_buf_printf(line, "%.*s:%s", BH_FMT(name), made);
    }
    OPENSSL_cleanse(text, sizeof(text));
    OPENSSL_cleanse(data, sizeof(*data));
    free(data);
    return status;
}

enum bh_status bh_auth_line_scram(struct bh_slice name, struct bh_slice password,
                                  struct bh_buf *line)
{
    struct scram_keys keys = {.iterations = NEW_ITERATIONS, .salt_len = NEW_SALT};
    if (!name_fits(name) || password.len == 0 || password.len > PASSWORD_MAX) {
        return BH_EINVAL;
    }
    if (RAND_bytes(keys.salt, NEW_SALT) != 1 || !derive(password, &keys)) {
        return BH_EIO;
    }
    enum bh_status status =
        bh_buf_printf(line, "%.*s:{SCRAM-SHA-256}%u,", BH_FMT(name), (unsigned)keys.iterations);
    const struct bh_slice parts[] = {bh_slice(keys.salt, NEW_SALT),
                                     bh_slice(keys.stored_key, BH_AUTH_SCRAM_KEY),
                                     bh_slice(keys.server_key, BH_AUTH_SCRAM_KEY)};
    for (size_t i = 0; i < BH_COUNT(parts) && status == BH_OK; i++) {
        status = i > 0 ? bh_buf_add(line, BH_LIT(",")) : BH_OK;
        status = status == BH_OK ? auth_base64_encode(parts[i], line) : status;
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    return status;
}
