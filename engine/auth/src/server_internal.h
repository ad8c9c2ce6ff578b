/* server_internal.h - what the files of AUTH's server side share: server_users.c (the file's text),
 * server_source.c (the file on disk), server_password.c (checking one), server_exchange.c (PLAIN,
 * LOGIN), server_scram.c, server_base64.c. */
#pragma once

#include <stdatomic.h>

#include "bh/auth_server.h"

#define SCRAM_ITERATIONS_MIN 4096 /* RFC 7677 section 4 */
#define SCRAM_ITERATIONS_MAX 10000000
#define SCRAM_SALT_MAX 64 /* octets */
#define HASH_MAX 384      /* octets of a crypt(3) hash (CRYPT_OUTPUT_SIZE) */
#define PASSWORD_MAX 511  /* octets (CRYPT_MAX_PASSPHRASE_SIZE - 1) */

struct scram_keys {
    uint32_t iterations; /* 0: none */
    uint8_t salt_len;
    uint8_t salt[SCRAM_SALT_MAX];
    uint8_t stored_key[BH_AUTH_SCRAM_KEY];
    uint8_t server_key[BH_AUTH_SCRAM_KEY];
};

struct auth_user {
    struct bh_slice name;
    const char *hash; /* NULL: none */
    struct scram_keys scram;
    uint32_t line;
};

struct bh_auth_users {
    atomic_uint references;
    struct auth_user *users; /* by name */
    size_t count;
    bool all_scram;
    char *text; /* of the file, to which names and hashes point */
    size_t text_len;
};

/** NULL: no such user. */
const struct auth_user *auth_users_find(const struct bh_auth_users *users, struct bh_slice name);
/** In either form; an unknown user costs as much time as a known one. */
bool auth_password_good(const struct bh_auth_users *users, struct bh_slice name,
                        struct bh_slice password);
/** SaltedPassword of RFC 5802 section 3. @return false: OpenSSL would not */
bool auth_scram_salted(struct bh_slice password, const struct scram_keys *keys,
                       uint8_t salted[BH_AUTH_SCRAM_KEY]);
bool auth_hmac(const uint8_t key[BH_AUTH_SCRAM_KEY], struct bh_slice text,
               uint8_t out[BH_AUTH_SCRAM_KEY]);
/** A secret of this process, for salts of users that do not exist. */
const uint8_t *auth_process_secret(void);

/** client-first-message, client-final-message, and the empty response at the end. */
enum bh_server_verdict auth_scram_first(struct bh_auth_exchange *e,
                                        const struct bh_auth_users *users, struct bh_slice message,
                                        struct bh_buf *challenge);
enum bh_server_verdict auth_scram_final(struct bh_auth_exchange *e, struct bh_slice message,
                                        struct bh_buf *challenge);

/** Strict: no blanks, no line breaks, whole quads, and nothing set behind the last octet.
 * @return BH_OK, BH_EINVAL (no base64), BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status auth_base64_decode(struct bh_slice text, struct bh_buf *out);
BH_MUST_USE enum bh_status auth_base64_encode(struct bh_slice octets, struct bh_buf *out);
