#include "bh/sasl.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "bh/base64.h"
#include "bh/utf8.h"
#include "sasl_internal.h"
#include "secret_memory.h"

#define MD5_LEN 16

_Static_assert(SASL_PLAIN_MAX >= BH_SASL_SECRET_MAX + 2 * BH_SASL_USER_MAX + 64, "all fit");

static void say(struct bh_buf *error, const char *text)
{
    (void)bh_buf_add_cut(error, bh_slice_str(text));
}

/* Octets that no mechanism can carry: NUL ends a field of PLAIN, ^A one of XOAUTH2, and SASLprep
 * forbids control characters (RFC 4013 section 2.3). */
static bool is_text(struct bh_slice s)
{
    bool good = s.len > 0 && bh_utf8_valid(s);
    for (size_t i = 0; i < s.len && good; i++) {
        good = (unsigned char)s.ptr[i] >= 0x20 && s.ptr[i] != 0x7f;
    }
    return good;
}

static bool known(uint32_t mechanism)
{
    return mechanism == BH_SASL_PLAIN || mechanism == BH_SASL_LOGIN ||
           mechanism == BH_SASL_CRAM_MD5 || mechanism == BH_SASL_SCRAM_SHA_256 ||
           mechanism == BH_SASL_XOAUTH2;
}

static const char *unusable(const struct bh_sasl_params *params)
{
    if (!known(params->mechanism)) {
        return "no such mechanism";
    }
    if (!is_text(params->user) || params->user.len > BH_SASL_USER_MAX) {
        return "the user is empty, too long, not UTF-8, or has a control character";
    }
    if (!is_text(params->secret) || params->secret.len > BH_SASL_SECRET_MAX) {
        return "the secret is empty, too long, not UTF-8, or has a control character";
    }
    if (params->nonce.len > SCRAM_NONCE_MAX / 2) {
        return "the nonce is too long";
    }
    return NULL;
}

/* 24 octets from the system, in letters that SCRAM takes. */
static enum bh_status make_nonce(struct scram *scram, struct bh_slice given)
{
    struct bh_buf nonce = bh_buf(scram->client_nonce, sizeof(scram->client_nonce));
    uint8_t octets[24];
    if (given.len > 0) {
        bh_buf_put(&nonce, given);
    } else {
        if (RAND_bytes(octets, sizeof(octets)) != 1) {
            return BH_ENOMEM;
        }
        const enum bh_status status = bh_base64_encode(bh_slice(octets, sizeof(octets)), &nonce);
        BH_ASSERT(status == BH_OK);
    }
    scram->client_nonce_len = nonce.len;
    return BH_OK;
}

enum bh_status bh_sasl_create(const struct bh_sasl_params *params, struct bh_sasl **sasl,
                              struct bh_buf *error)
{
    const char *why = unusable(params);
    if (why != NULL) {
        say(error, why);
        return BH_EINVAL;
    }
    struct bh_sasl *s = secret_alloc(sizeof(*s));
    if (s == NULL) {
        return BH_ENOMEM;
    }
    s->mechanism = params->mechanism;
    memcpy(s->user, params->user.ptr, params->user.len);
    s->user_len = params->user.len;
    memcpy(s->secret, params->secret.ptr, params->secret.len);
    s->secret_len = params->secret.len;
    if (make_nonce(&s->scram, params->nonce) != BH_OK) {
        bh_sasl_destroy(s);
        return BH_ENOMEM;
    }
    *sasl = s;
    return BH_OK;
}

void bh_sasl_destroy(struct bh_sasl *sasl)
{
    secret_free(sasl, sizeof(*sasl));
}

/* ---- messages ---- */

static void put_plain(const struct bh_sasl *sasl, struct bh_buf *out)
{
    bh_buf_put_char(out, '\0'); /* no other identity to act as (RFC 4616 section 2) */
    bh_buf_put(out, sasl_user(sasl));
    bh_buf_put_char(out, '\0');
    bh_buf_put(out, sasl_secret(sasl));
}

static void put_xoauth2(const struct bh_sasl *sasl, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT("user="));
    bh_buf_put(out, sasl_user(sasl));
    bh_buf_put(out, BH_LIT("\001auth=Bearer "));
    bh_buf_put(out, sasl_secret(sasl));
    bh_buf_put(out, BH_LIT("\001\001"));
}

/* user, blank, HMAC-MD5 of the challenge as hex (RFC 2195 section 2) */
static enum bh_status put_cram_md5(const struct bh_sasl *sasl, struct bh_slice challenge,
                                   struct bh_buf *out)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (HMAC(EVP_md5(), sasl->secret, (int)sasl->secret_len, (const unsigned char *)challenge.ptr,
             challenge.len, digest, &len) == NULL ||
        len != MD5_LEN) {
        return BH_ENOMEM;
    }
    bh_buf_put(out, sasl_user(sasl));
    bh_buf_put_char(out, ' ');
    for (unsigned i = 0; i < len; i++) {
        bh_buf_put_char(out, hex[digest[i] >> 4]);
        bh_buf_put_char(out, hex[digest[i] & 15]);
    }
    return BH_OK;
}

/* Its challenges are prompts of no fixed wording: the first asks for the user, the second for the
 * password. */
static void put_login(struct bh_sasl *sasl, struct bh_buf *out)
{
    bh_buf_put(out, sasl->challenges == 1 ? sasl_user(sasl) : sasl_secret(sasl));
    sasl->complete = sasl->challenges == 2;
}

static enum bh_status too_many(struct bh_buf *error)
{
    say(error, "a challenge too many");
    return BH_EPROTO;
}

static enum bh_status answer(struct bh_sasl *sasl, struct bh_slice challenge, struct bh_buf *out,
                             struct bh_buf *error)
{
    const unsigned n = sasl->challenges;
    enum bh_status status = BH_OK;
    switch (sasl->mechanism) {
    case BH_SASL_LOGIN:
        if (n > 2) {
            return too_many(error);
        }
        put_login(sasl, out);
        return BH_OK;
    case BH_SASL_CRAM_MD5:
        if (n > 1) {
            return too_many(error);
        }
        status = put_cram_md5(sasl, challenge, out);
        sasl->complete = status == BH_OK;
        return status;
    case BH_SASL_SCRAM_SHA_256:
        return sasl_scram_answer(sasl, challenge, out, error);
    case BH_SASL_XOAUTH2:
        /* An error, as JSON; the server goes on to its 535 once it has an empty response. */
        return n > 1 ? too_many(error) : BH_OK;
    default:
        return too_many(error); /* PLAIN says all at once */
    }
}

/* ---- the face ---- */

static void encode(struct bh_sasl *sasl, struct bh_buf *plain, struct bh_slice *response)
{
    struct bh_buf text = bh_buf(sasl->text, sizeof(sasl->text));
    const enum bh_status status = bh_base64_encode(bh_buf_slice(plain), &text);
    BH_ASSERT(status == BH_OK); /* SASL_PLAIN_MAX octets fit */
    OPENSSL_cleanse(plain->ptr, plain->len);
    *response = bh_buf_slice(&text);
}

void bh_sasl_begin(struct bh_sasl *sasl, struct bh_slice *response)
{
    struct bh_buf plain = bh_buf(sasl->plain, sizeof(sasl->plain));
    BH_ASSERT(sasl->challenges == 0);
    switch (sasl->mechanism) {
    case BH_SASL_PLAIN:
        put_plain(sasl, &plain);
        sasl->complete = true;
        break;
    case BH_SASL_XOAUTH2:
        put_xoauth2(sasl, &plain);
        sasl->complete = true;
        break;
    case BH_SASL_SCRAM_SHA_256:
        sasl_scram_first(sasl, &plain);
        break;
    default:
        break; /* the server speaks first */
    }
    encode(sasl, &plain, response);
}

enum bh_status bh_sasl_answer(struct bh_sasl *sasl, struct bh_slice challenge,
                              struct bh_slice *response, struct bh_buf *error)
{
    char storage[SASL_CHALLENGE_MAX];
    struct bh_buf decoded = bh_buf(storage, sizeof(storage));
    struct bh_buf plain = bh_buf(sasl->plain, sizeof(sasl->plain));
    /* What LOGIN and XOAUTH2 say is for people; some servers don't even encode it. */
    const bool wanted =
        sasl->mechanism == BH_SASL_CRAM_MD5 || sasl->mechanism == BH_SASL_SCRAM_SHA_256;
    if (wanted && bh_base64_decode(challenge, &decoded) != BH_OK) {
        say(error, "the challenge is not base64, or too long");
        return BH_EPROTO;
    }
    sasl->challenges++;
    const enum bh_status status = answer(sasl, bh_buf_slice(&decoded), &plain, error);
    if (status == BH_OK) {
        encode(sasl, &plain, response);
    }
    return status;
}

bool bh_sasl_complete(const struct bh_sasl *sasl)
{
    return sasl->complete;
}
