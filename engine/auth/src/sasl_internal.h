/* sasl_internal.h - what the files of the client share. */
#pragma once

#include "bh/sasl.h"
#include "bh/smtp_reply.h"

/* Octets of a message before base64. */
#define SASL_PLAIN_MAX ((size_t)BH_SASL_RESPONSE_MAX / 4 * 3)
#define SASL_CHALLENGE_MAX 4096
/* user, nonce of both, salt and rounds in base64, and the letters between */
#define SCRAM_TEXT_MAX 2048

#define SCRAM_NONCE_MAX 256 /* octets, ours and theirs together */
#define SCRAM_SALT_MAX 256
#define SCRAM_KEY_LEN 32

struct scram {
    char client_nonce[SCRAM_NONCE_MAX];
    size_t client_nonce_len;
    char first_bare[SCRAM_TEXT_MAX]; /* client-first-message-bare */
    size_t first_bare_len;
    uint8_t server_signature[SCRAM_KEY_LEN];
};

/* All of it is wiped at once: it holds the secret and what was made of it. */
struct bh_sasl {
    uint32_t mechanism;
    unsigned challenges; /* answered */
    bool complete;
    char user[BH_SASL_USER_MAX];
    size_t user_len;
    char secret[BH_SASL_SECRET_MAX];
    size_t secret_len;
    struct scram scram;
    char plain[SASL_PLAIN_MAX];
    char text[BH_SASL_RESPONSE_MAX];
};

/** client-first-message. */
void sasl_scram_first(struct bh_sasl *sasl, struct bh_buf *plain);
/** client-final-message, or the last word on the server's signature. @return as bh_sasl_answer */
enum bh_status sasl_scram_answer(struct bh_sasl *sasl, struct bh_slice challenge,
                                 struct bh_buf *plain, struct bh_buf *error);

static inline struct bh_slice sasl_user(const struct bh_sasl *sasl)
{
    return bh_slice(sasl->user, sasl->user_len);
}

static inline struct bh_slice sasl_secret(const struct bh_sasl *sasl)
{
    return bh_slice(sasl->secret, sasl->secret_len);
}

/* ---- SCRAM-SHA-256 (RFC 5802 section 3) ---- */

struct sasl_scram_keys {
    uint8_t client[SCRAM_KEY_LEN]; /* ClientKey */
    uint8_t stored[SCRAM_KEY_LEN]; /* StoredKey = H(ClientKey) */
    uint8_t server[SCRAM_KEY_LEN]; /* ServerKey */
};

/** From a password. @param rounds 1 or more @return BH_OK or BH_ENOMEM (the library failed) */
BH_MUST_USE enum bh_status sasl_scram_keys_of(struct bh_slice password, struct bh_slice salt,
                                              uint32_t rounds, struct sasl_scram_keys *keys);
/** HMAC(key, auth_message): ClientSignature by the stored key, ServerSignature by the server key.
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status sasl_scram_sign(const uint8_t key[SCRAM_KEY_LEN],
                                           struct bh_slice auth_message,
                                           uint8_t signature[SCRAM_KEY_LEN]);
/** The next attribute of a SCRAM message, "r=..." up to a comma or the end.
 * @param rest  advanced past it and its comma
 * @return false: the message does not go on with this attribute, or its value is empty */
bool sasl_scram_attribute(struct bh_slice *rest, char name, struct bh_slice *value);
