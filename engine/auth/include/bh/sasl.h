/* sasl.h - SASL as a client (RFC 4422, RFC 4954): PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195),
 * SCRAM-SHA-256 (RFC 5802, RFC 7677) and XOAUTH2. Challenges go in, responses come out, both in
 * base64; no socket, no file. One exchange is used by one thread. */
#pragma once

#include "bh/buf.h"

#define BH_SASL_USER_MAX 255
#define BH_SASL_SECRET_MAX 8192 /* octets: tokens are long, passwords are not */
#define BH_SASL_RESPONSE_MAX \
    12286 /* octets of a response in base64 (RFC 4954 section 4, less CRLF) */

/* Rounds of PBKDF2 that a SCRAM server may ask for: fewer make stolen proofs easy to guess from
 * (RFC 7677 section 4), more are an attack on our time. */
#define BH_SCRAM_ROUNDS_MIN 4096
#define BH_SCRAM_ROUNDS_MAX 600000

struct bh_sasl; /* one exchange */

struct bh_sasl_params {
    uint32_t mechanism; /* one BH_SASL_ bit of bh/smtp_reply.h */
    struct bh_slice user;
    struct bh_slice secret; /* password, or the token of XOAUTH2 */
    struct bh_slice nonce;  /* SCRAM: for tests; empty: random */
};

/** Everything is copied. User and secret are taken as they are: SASLprep (RFC 4013) is not applied,
 * so what is not ASCII must be given in its prepared form, in UTF-8 and NFC.
 * @param error  appended to (cut): why not, without the secret
 * @return BH_OK
 *         BH_EINVAL  no such mechanism; an empty user or secret, NUL or a control character in it,
 *                    not UTF-8, or too long for the mechanism
 *         BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sasl_create(const struct bh_sasl_params *params,
                                          struct bh_sasl **sasl, struct bh_buf *error);
/** Wipes what it knew. NULL is fine. */
void bh_sasl_destroy(struct bh_sasl *sasl);

/** Begin. @param response  set to the initial response in base64, borrowed until the next call;
 *                          empty: the mechanism has none, the server speaks first */
void bh_sasl_begin(struct bh_sasl *sasl, struct bh_slice *response);

/** Answer a challenge.
 * @param challenge  in base64, as it stood behind 334
 * @param response   set to the response in base64 (maybe empty), borrowed until the next call
 * @param error      appended to (cut): what was wrong with the challenge
 * @return BH_OK; BH_EPROTO: it makes no sense here, or the server is not who it should be: cancel;
 *         BH_ENOMEM */
BH_MUST_USE enum bh_status bh_sasl_answer(struct bh_sasl *sasl, struct bh_slice challenge,
                                          struct bh_slice *response, struct bh_buf *error);

/** May the server's 235 be believed? False while we have not said all, or, with SCRAM, while the
 * server has not proven that it knows the password too. */
bool bh_sasl_complete(const struct bh_sasl *sasl);
