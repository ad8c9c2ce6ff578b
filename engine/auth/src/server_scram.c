/* SCRAM-SHA-256 (RFC 5802, 7677), without channel binding:
 *
 *     client-first   n,,n=NAME,r=CLIENTNONCE
 *     server-first   r=CLIENTNONCE SERVERNONCE,s=SALT,i=ITERATIONS
 *     client-final   c=HEADER,r=NONCE,p=PROOF
 *     server-final   v=SIGNATURE, as a challenge; an empty response ends it (RFC 4954 section 4)
 *
 * A user who does not exist gets a salt that stays the same, and is told at the end, as one whose
 * proof is wrong. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "server_internal.h"

#define SERVER_NONCE 18      /* octets, 24 in base64 */
#define CLIENT_NONCE_MAX 256 /* octets */

static struct bh_slice take_until(struct bh_slice *rest, char c)
{
    const size_t at = bh_slice_find(*rest, c);
    const struct bh_slice piece = bh_slice_take(*rest, at);
    *rest = bh_slice_skip(*rest, at + 1);
    return piece;
}

/* "x=" off the front of the next attribute. */
static bool take_attribute(struct bh_slice *rest, const char *name, struct bh_slice *value)
{
    struct bh_slice piece = take_until(rest, ',');
    if (!bh_slice_starts(piece, bh_slice_str(name))) {
        return false;
    }
    *value = bh_slice_skip(piece, 2);
    return true;
}

static bool printable(struct bh_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '!' || s.ptr[i] > '~') {
            return false;
        }
    }
    return true;
}

/* =2C is a comma and =3D an equals sign; any other '=' is wrong (RFC 5802 section 5.1). */
static bool keep_name(struct bh_auth_exchange *e, struct bh_slice name)
{
    struct bh_buf out = bh_buf(e->user, sizeof(e->user));
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (c == '=') {
            const struct bh_slice code = bh_slice_take(bh_slice_skip(name, i + 1), 2);
            if (!bh_slice_eq(code, BH_LIT("2C")) && !bh_slice_eq(code, BH_LIT("3D"))) {
                return false;
            }
            c = code.ptr[0] == '2' ? ',' : '=';
            i += 2;
        }
        if (c == '\0' || bh_buf_room(&out) == 0) {
            return false;
        }
        bh_buf_put_char(&out, c);
    }
    e->user_len = (uint16_t)out.len;
    return out.len > 0;
}

/* "n,,": or with "a=" and the same name. We offer no channel binding, so 'y' is as good as 'n', and
 * 'p' is a mechanism of another name. */
static bool take_header(struct bh_auth_exchange *e, struct bh_slice *rest,
                        struct bh_slice *acting_for)
{
    const struct bh_slice whole = *rest;
    const struct bh_slice flag = take_until(rest, ',');
    const struct bh_slice authorize = take_until(rest, ',');
    const size_t len = whole.len - rest->len;
    if ((!bh_slice_eq(flag, BH_LIT("n")) && !bh_slice_eq(flag, BH_LIT("y"))) ||
        (authorize.len > 0 && !bh_slice_starts(authorize, BH_LIT("a="))) ||
        len > sizeof(e->header)) {
        return false;
    }
    memcpy(e->header, whole.ptr, len);
    e->header_len = (uint8_t)len;
    *acting_for = bh_slice_skip(authorize, 2);
    return true;
}

/* The salt of somebody who does not exist hangs on the name alone. */
static bool decoy(const struct bh_auth_users *users, struct bh_slice name, struct scram_keys *keys)
{
    uint8_t salt[BH_AUTH_SCRAM_KEY];
    const struct scram_keys *like = &users->users[0].scram;
    if (!auth_hmac(auth_process_secret(), name, salt)) {
        return false;
    }
    *keys = (struct scram_keys){.iterations = like->iterations, .salt_len = like->salt_len};
    for (size_t i = 0; i < keys->salt_len; i++) {
        keys->salt[i] = salt[i % sizeof(salt)];
    }
    return RAND_bytes(keys->stored_key, sizeof(keys->stored_key)) == 1;
}

static enum bh_status put_server_first(struct bh_slice client_nonce, const struct scram_keys *keys,
                                       struct bh_buf *out)
{
    uint8_t random[SERVER_NONCE];
    if (RAND_bytes(random, sizeof(random)) != 1) {
        return BH_EIO;
    }
    enum bh_status status = bh_buf_printf(out, "r=%.*s", BH_FMT(client_nonce));
    status = status == BH_OK ? auth_base64_encode(bh_slice(random, sizeof(random)), out) : status;
    status = status == BH_OK ? bh_buf_add(out, BH_LIT(",s=")) : status;
    status =
        status == BH_OK ? auth_base64_encode(bh_slice(keys->salt, keys->salt_len), out) : status;
    return status == BH_OK ? bh_buf_printf(out, ",i=%u", (unsigned)keys->iterations) : status;
}

/* Keeps what both sides will sign, and gives the challenge. */
static enum bh_server_verdict answer(struct bh_auth_exchange *e, const struct scram_keys *keys,
                                     struct bh_slice bare, struct bh_slice client_nonce,
                                     struct bh_buf *challenge)
{
    struct bh_buf all = bh_buf(e->scram, sizeof(e->scram));
    enum bh_status status = bh_buf_add(&all, bare);
    status = status == BH_OK ? bh_buf_add(&all, BH_LIT(",")) : status;
    const size_t at = all.len;
    status = status == BH_OK ? put_server_first(client_nonce, keys, &all) : status;
    if (status != BH_OK) {
        return status == BH_ELIMIT ? BH_SERVER_AUTH_GARBLED : BH_SERVER_AUTH_FAILED;
    }
    const struct bh_slice first = bh_slice_skip(bh_buf_slice(&all), at);
    e->scram_len = (uint16_t)all.len;
    e->nonce_at = (uint16_t)(at + 2);
    e->nonce_len = (uint16_t)(bh_slice_find(first, ',') - 2);
    memcpy(e->stored_key, keys->stored_key, sizeof(e->stored_key));
    memcpy(e->server_key, keys->server_key, sizeof(e->server_key));
    e->state = BH_EXCHANGE_SCRAM_FINAL;
    return auth_base64_encode(first, challenge) == BH_OK ? BH_SERVER_AUTH_MORE
                                                         : BH_SERVER_AUTH_FAILED;
}

enum bh_server_verdict auth_scram_first(struct bh_auth_exchange *e,
                                        const struct bh_auth_users *users, struct bh_slice message,
                                        struct bh_buf *challenge)
{
    struct bh_slice rest = message;
    struct bh_slice acting_for = BH_EMPTY;
    struct bh_slice name = BH_EMPTY;
    struct bh_slice nonce = BH_EMPTY;
    if (!take_header(e, &rest, &acting_for)) {
        return BH_SERVER_AUTH_GARBLED;
    }
    const struct bh_slice bare = rest;
    if (!take_attribute(&rest, "n=", &name) || !take_attribute(&rest, "r=", &nonce) ||
        !keep_name(e, name) || nonce.len == 0 || nonce.len > CLIENT_NONCE_MAX ||
        !printable(nonce) || (acting_for.len > 0 && !bh_slice_eq(acting_for, name))) {
        return BH_SERVER_AUTH_GARBLED;
    }
    const struct auth_user *user = auth_users_find(users, bh_auth_exchange_user(e));
    struct scram_keys keys;
    e->known = user != NULL && user->scram.iterations > 0;
    if (e->known) {
        keys = user->scram;
    } else if (!decoy(users, bh_auth_exchange_user(e), &keys)) {
        return BH_SERVER_AUTH_FAILED;
    }
    const enum bh_server_verdict verdict = answer(e, &keys, bare, nonce, challenge);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return verdict;
}

/* ClientSignature over what was said; from proof and signature comes the key that was stored. */
static bool proof_good(const struct bh_auth_exchange *e, struct bh_slice proof,
                       struct bh_slice signed_text)
{
    uint8_t key[BH_AUTH_SCRAM_KEY];
    uint8_t digest[BH_AUTH_SCRAM_KEY];
    struct bh_buf sent = bh_buf(digest, sizeof(digest));
    if (!auth_hmac(e->stored_key, signed_text, key) || auth_base64_decode(proof, &sent) != BH_OK ||
        sent.len != sizeof(digest)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] ^= digest[i];
    }
    const bool good = EVP_Digest(key, sizeof(key), digest, NULL, EVP_sha256(), NULL) == 1 &&
                      CRYPTO_memcmp(digest, e->stored_key, sizeof(digest)) == 0;
    OPENSSL_cleanse(key, sizeof(key));
    return good && e->known;
}

static enum bh_server_verdict finish(struct bh_auth_exchange *e, struct bh_slice signed_text,
                                     struct bh_buf *challenge)
{
    uint8_t signature[BH_AUTH_SCRAM_KEY];
    char storage[64];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    if (!auth_hmac(e->server_key, signed_text, signature) ||
        bh_buf_add(&text, BH_LIT("v=")) != BH_OK ||
        auth_base64_encode(bh_slice(signature, sizeof(signature)), &text) != BH_OK ||
        auth_base64_encode(bh_buf_slice(&text), challenge) != BH_OK) {
        return BH_SERVER_AUTH_FAILED;
    }
    e->state = BH_EXCHANGE_SCRAM_END;
    return BH_SERVER_AUTH_MORE;
}

enum bh_server_verdict auth_scram_final(struct bh_auth_exchange *e, struct bh_slice message,
                                        struct bh_buf *challenge)
{
    char storage[sizeof(e->scram) + 1024];
    struct bh_buf signed_text = bh_buf(storage, sizeof(storage));
    char header[sizeof(e->header)];
    struct bh_buf bound = bh_buf(header, sizeof(header));
    struct bh_slice rest = message;
    struct bh_slice binding = BH_EMPTY;
    struct bh_slice nonce = BH_EMPTY;
    const size_t proof_at = bh_slice_find_slice(message, BH_LIT(",p="));
    if (proof_at >= message.len || !take_attribute(&rest, "c=", &binding) ||
        !take_attribute(&rest, "r=", &nonce) || auth_base64_decode(binding, &bound) != BH_OK ||
        bh_buf_add(&signed_text, bh_slice(e->scram, e->scram_len)) != BH_OK ||
        bh_buf_add(&signed_text, BH_LIT(",")) != BH_OK ||
        bh_buf_add(&signed_text, bh_slice_take(message, proof_at)) != BH_OK) {
        return BH_SERVER_AUTH_GARBLED;
    }
    if (!bh_slice_eq(bh_buf_slice(&bound), bh_slice(e->header, e->header_len)) ||
        !bh_slice_eq(nonce, bh_slice(e->scram + e->nonce_at, e->nonce_len)) ||
        !proof_good(e, bh_slice_skip(message, proof_at + 3), bh_buf_slice(&signed_text))) {
        return BH_SERVER_AUTH_DENIED;
    }
    return finish(e, bh_buf_slice(&signed_text), challenge);
}
