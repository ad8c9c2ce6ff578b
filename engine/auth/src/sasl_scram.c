/* SCRAM-SHA-256 as a client (RFC 5802 section 5), without channel binding:
 *
 *     C: n,,n=user,r=NONCE
 *     S: r=NONCE+theirs,s=SALT,i=ROUNDS
 *     C: c=biws,r=NONCE+theirs,p=PROOF
 *     S: v=SIGNATURE
 *     C: (empty), and only now may a 235 be believed */
#include <openssl/crypto.h>

#include "bh/base64.h"
#include "sasl_internal.h"

static void say(struct bh_buf *error, const char *text)
{
    (void)bh_buf_add_cut(error, bh_slice_str(text));
}

/* '=' and ',' have other work to do in a message (RFC 5802 5.1, saslname). */
static void put_user(struct bh_buf *out, struct bh_slice user)
{
    for (size_t i = 0; i < user.len; i++) {
        if (user.ptr[i] == '=') {
            bh_buf_put(out, BH_LIT("=3D"));
        } else if (user.ptr[i] == ',') {
            bh_buf_put(out, BH_LIT("=2C"));
        } else {
            bh_buf_put_char(out, user.ptr[i]);
        }
    }
}

void sasl_scram_first(struct bh_sasl *sasl, struct bh_buf *plain)
{
    struct scram *scram = &sasl->scram;
    struct bh_buf bare = bh_buf(scram->first_bare, sizeof(scram->first_bare));
    _Static_assert(SCRAM_TEXT_MAX > 3 * BH_SASL_USER_MAX + SCRAM_NONCE_MAX + 16, "it fits");
    bh_buf_put(&bare, BH_LIT("n="));
    put_user(&bare, sasl_user(sasl));
    bh_buf_put(&bare, BH_LIT(",r="));
    bh_buf_put(&bare, bh_slice(scram->client_nonce, scram->client_nonce_len));
    scram->first_bare_len = bare.len;
    bh_buf_put(plain, BH_LIT("n,,"));
    bh_buf_put(plain, bh_buf_slice(&bare));
}

struct server_first {
    struct bh_slice nonce;
    uint8_t salt[SCRAM_SALT_MAX];
    size_t salt_len;
    uint32_t rounds;
};

static const char *read_first(const struct scram *scram, struct bh_slice message,
                              struct server_first *first)
{
    struct bh_slice salt;
    struct bh_slice rounds;
    uint64_t count = 0;
    const struct bh_slice ours = bh_slice(scram->client_nonce, scram->client_nonce_len);
    if (!sasl_scram_attribute(&message, 'r', &first->nonce) ||
        !sasl_scram_attribute(&message, 's', &salt) ||
        !sasl_scram_attribute(&message, 'i', &rounds)) {
        return "the SCRAM challenge lacks nonce, salt or rounds";
    }
    if (first->nonce.len > SCRAM_NONCE_MAX || first->nonce.len <= ours.len ||
        !bh_slice_starts(first->nonce, ours)) {
        return "the server's SCRAM nonce does not go on from ours";
    }
    for (size_t i = 0; i < first->nonce.len; i++) {
        if (first->nonce.ptr[i] < 0x21 || first->nonce.ptr[i] > 0x7e) {
            return "the server's SCRAM nonce is not printable";
        }
    }
    struct bh_buf octets = bh_buf(first->salt, sizeof(first->salt));
    if (bh_base64_decode(salt, &octets) != BH_OK) {
        return "the SCRAM salt is not base64, or too long";
    }
    first->salt_len = octets.len;
    if (!bh_slice_u64(rounds, UINT32_MAX, &count) || count < BH_SCRAM_ROUNDS_MIN ||
        count > BH_SCRAM_ROUNDS_MAX) {
        return "the SCRAM rounds are not between 4096 and 600000";
    }
    first->rounds = (uint32_t)count;
    return NULL;
}

/* client-first-message-bare, server-first-message, client-final-message-without-proof */
static void put_auth_message(const struct scram *scram, struct bh_slice challenge,
                             struct bh_slice without_proof, struct bh_buf *out)
{
    bh_buf_put(out, bh_slice(scram->first_bare, scram->first_bare_len));
    bh_buf_put_char(out, ',');
    bh_buf_put(out, challenge);
    bh_buf_put_char(out, ',');
    bh_buf_put(out, without_proof);
}

static enum bh_status answer_first(struct bh_sasl *sasl, struct bh_slice challenge,
                                   struct bh_buf *plain, struct bh_buf *error)
{
    struct scram *scram = &sasl->scram;
    struct server_first first;
    const char *wrong = read_first(scram, challenge, &first);
    if (wrong != NULL) {
        say(error, wrong);
        return BH_EPROTO;
    }
    bh_buf_put(plain, BH_LIT("c=biws,r="));
    bh_buf_put(plain, first.nonce);
    char storage[SCRAM_TEXT_MAX + SASL_CHALLENGE_MAX + SCRAM_NONCE_MAX + 16];
    struct bh_buf message = bh_buf(storage, sizeof(storage));
    put_auth_message(scram, challenge, bh_buf_slice(plain), &message);

    struct sasl_scram_keys keys;
    uint8_t proof[SCRAM_KEY_LEN];
    enum bh_status status = sasl_scram_keys_of(
        sasl_secret(sasl), bh_slice(first.salt, first.salt_len), first.rounds, &keys);
    if (status == BH_OK) {
        status = sasl_scram_sign(keys.stored, bh_buf_slice(&message), proof);
    }
    if (status == BH_OK) {
        status = sasl_scram_sign(keys.server, bh_buf_slice(&message), scram->server_signature);
    }
    if (status == BH_OK) {
        for (size_t i = 0; i < sizeof(proof); i++) {
            proof[i] ^= keys.client[i];
        }
        bh_buf_put(plain, BH_LIT(",p="));
        status = bh_base64_encode(bh_slice(proof, sizeof(proof)), plain);
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    OPENSSL_cleanse(proof, sizeof(proof));
    return status;
}

/* The server proves that it knows the keys too; whoever can't is not the server. */
static enum bh_status check_final(struct bh_sasl *sasl, struct bh_slice message,
                                  struct bh_buf *error)
{
    struct bh_slice value;
    uint8_t signature[SCRAM_KEY_LEN + 3];
    struct bh_buf octets = bh_buf(signature, sizeof(signature));
    if (sasl_scram_attribute(&message, 'e', &value)) {
        say(error, "the server refuses by SCRAM: ");
        for (size_t i = 0; i < value.len && i < 64; i++) {
            const char c = value.ptr[i];
            (void)bh_buf_add_cut(error, c > 0x20 && c < 0x7f ? bh_slice(&c, 1) : BH_LIT("?"));
        }
        return BH_EPROTO;
    }
    if (!sasl_scram_attribute(&message, 'v', &value) || bh_base64_decode(value, &octets) != BH_OK ||
        octets.len != SCRAM_KEY_LEN ||
        CRYPTO_memcmp(signature, sasl->scram.server_signature, SCRAM_KEY_LEN) != 0) {
        say(error, "the server's SCRAM signature is wrong: it does not know the password");
        return BH_EPROTO;
    }
    sasl->complete = true;
    return BH_OK;
}

enum bh_status sasl_scram_answer(struct bh_sasl *sasl, struct bh_slice challenge,
                                 struct bh_buf *plain, struct bh_buf *error)
{
    switch (sasl->challenges) {
    case 1:
        return answer_first(sasl, challenge, plain, error);
    case 2:
        return check_final(sasl, challenge, error);
    default:
        say(error, "a challenge too many");
        return BH_EPROTO;
    }
}
