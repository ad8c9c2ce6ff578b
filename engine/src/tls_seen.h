/* tls_seen.h - what TLS one session was to have, what it got, and why: as values that outlive the
 * session, for logs, events, decision records and the ledger. */
#pragma once

#include "bh/config.h"
#include "bh/tls.h"
#include "tls_audit.h"

/** How the peer was known when mail went to it. The demand in force decides what counts: a session
 * that nobody demanded anything of is unauthenticated, whatever its certificate says. */
enum tls_proof { TLS_PROOF_CLEAR, TLS_PROOF_NONE, TLS_PROOF_NAME, TLS_PROOF_PIN, TLS_PROOF_DANE };

struct tls_seen {
    bool known;       /* a session got as far as to have an answer */
    char wanted[16];  /* the effective mode: "verify" */
    char origin[160]; /* which input decided it: "connector partner-bank", "TLSA records of .." */
    enum tls_proof proof;
    char version[16]; /* "TLSv1.3"; empty: clear text */
    char cipher[64];
    bool resumed;
    bool would_verify;         /* chain and name were good, demanded or not */
    char matched[256];         /* the name, or what else proved it; empty: nothing */
    char reason[160];          /* why in clear, or what a stricter demand would have refused */
    bool offered;              /* STARTTLS, or TLS was had */
    char issuer[128];          /* of the certificate */
    int64_t not_after_unix_ms; /* of it; 0: not known */
    bool has_spki;
    uint8_t spki[BH_PIN_LEN];
    char audit[TLS_AUDIT_TEXT]; /* what the connector's audit mode would have refused; empty:
                                   nothing */
};

#define TLS_SEEN_TEXT 384

/** "clear", "unauthenticated", "name", "pin", "dane"; static storage. */
const char *tls_proof_name(enum tls_proof proof);
/** Before the session opens: what is wanted and who says so. `origin` is cut to its room. */
void tls_seen_want(struct tls_seen *seen, const struct bh_tls_demand *demand,
                   struct bh_slice origin);
/** It is ready inside TLS, and met the demand. */
void tls_seen_inside(struct tls_seen *seen, const struct bh_tls_demand *demand,
                     const struct bh_tls_facts *facts);
/** It is ready in clear text. @param offered  STARTTLS was, all the same */
void tls_seen_in_clear(struct tls_seen *seen, const char *reason, bool offered);
/** What was got: "TLSv1.3 TLS_AES_256_GCM_SHA384, name mx.bank.test", "clear", or "unknown". */
const char *tls_seen_got(const struct tls_seen *seen, char text[TLS_SEEN_TEXT]);
/** "verify:TLSv1.3 TLS_AES_256_GCM_SHA384, name mx.bank.test". */
const char *tls_seen_text(const struct tls_seen *seen, char text[TLS_SEEN_TEXT]);
/** Of a session that was never ready: "verify:none, offered; name mismatch: certificate names
 * other.test, not mx.bank.test". What failed before TLS was spoken of is not told: "verify:none".
 */
const char *tls_seen_failed(const struct bh_tls_demand *demand, const struct bh_outcome *outcome,
                            char text[TLS_SEEN_TEXT]);
/** The digest of the peer's key in hexadecimal; empty: not known. */
const char *tls_seen_spki(const struct tls_seen *seen, char text[2 * BH_PIN_LEN + 1]);
