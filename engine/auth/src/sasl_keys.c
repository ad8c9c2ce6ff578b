/* What SCRAM-SHA-256 computes (RFC 5802 section 3):
 *
 *     SaltedPassword = PBKDF2(password, salt, rounds)
 *     ClientKey = HMAC(SaltedPassword, "Client Key"), StoredKey = SHA-256(ClientKey)
 *     ServerKey = HMAC(SaltedPassword, "Server Key")
 *     proof = ClientKey XOR HMAC(StoredKey, auth message) */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sasl_internal.h"

_Static_assert(SCRAM_KEY_LEN == 32, "the length of SHA-256");

enum bh_status sasl_scram_sign(const uint8_t key[SCRAM_KEY_LEN], struct bh_slice auth_message,
                               uint8_t signature[SCRAM_KEY_LEN])
{
    unsigned len = 0;
    const unsigned char *in = (const unsigned char *)auth_message.ptr;
    const bool good =
        HMAC(EVP_sha256(), key, SCRAM_KEY_LEN, in, auth_message.len, signature, &len) != NULL;
    return good && len == SCRAM_KEY_LEN ? BH_OK : BH_ENOMEM;
}

static bool hash(const uint8_t *in, uint8_t out[SCRAM_KEY_LEN])
{
    unsigned len = 0;
    return EVP_Digest(in, SCRAM_KEY_LEN, out, &len, EVP_sha256(), NULL) == 1 &&
           len == SCRAM_KEY_LEN;
}

enum bh_status sasl_scram_keys_of(struct bh_slice password, struct bh_slice salt, uint32_t rounds,
                                  struct sasl_scram_keys *keys)
{
    uint8_t salted[SCRAM_KEY_LEN];
    struct sasl_scram_keys made = {0};
    BH_ASSERT(rounds > 0 && rounds <= INT32_MAX && password.len <= INT32_MAX);
    BH_ASSERT(salt.len <= INT32_MAX);
    bool good =
        PKCS5_PBKDF2_HMAC(password.ptr, (int)password.len, (const unsigned char *)salt.ptr,
                          (int)salt.len, (int)rounds, EVP_sha256(), sizeof(salted), salted) == 1;
    good = good && sasl_scram_sign(salted, BH_LIT("Client Key"), made.client) == BH_OK &&
           sasl_scram_sign(salted, BH_LIT("Server Key"), made.server) == BH_OK &&
           hash(made.client, made.stored);
    if (good) {
        *keys = made;
    }
    OPENSSL_cleanse(salted, sizeof(salted));
    OPENSSL_cleanse(&made, sizeof(made));
    return good ? BH_OK : BH_ENOMEM;
}

bool sasl_scram_attribute(struct bh_slice *rest, char name, struct bh_slice *value)
{
    if (rest->len < 3 || rest->ptr[0] != name || rest->ptr[1] != '=') {
        return false;
    }
    const struct bh_slice from = bh_slice_skip(*rest, 2);
    const size_t comma = bh_slice_find(from, ',');
    if (comma == 0) {
        return false;
    }
    *value = bh_slice_take(from, comma);
    *rest = bh_slice_skip(from, comma < from.len ? comma + 1 : comma);
    return true;
}
