/* Does the peer meet the demand? Judged here once, after the handshake and before anything else is
 * said, from what the handshake showed:
 *
 *   off                     no session is ever made
 *   opportunistic, encrypt  by being TLS
 *   verify                  the chain leads to the demand's CA, and the leaf has an accepted name
 *   pin                     the leaf's key is one of the pinned ones
 *   dane                    a TLSA record matched; with usage 2 the leaf has an accepted name, too
 *
 * OpenSSL builds and checks the chain, and matches TLSA records with the digest agility of RFC 7671
 * section 9; what it finds ends no handshake, so that facts can be told of a peer that failed. On
 * resumption it checks nothing: such a session is what its first one was, if that met this very
 * demand, and its certificates have not ended since. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#include "tls_internal.h"

/* ---- what of a demand is still needed when the handshake ends ---- */

struct bh_names bh_tls_names_copy(const struct bh_names *names, bool *good)
{
    size_t octets = 0;
    *good = true;
    for (size_t i = 0; i < names->count; i++) {
        octets += names->at[i].len;
    }
    if (names->count == 0) {
        return (struct bh_names){NULL, 0};
    }
    struct bh_slice *at = malloc(names->count * sizeof(*at) + octets);
    if (at == NULL) {
        *good = false;
        return (struct bh_names){NULL, 0};
    }
    char *text = (char *)(at + names->count);
    for (size_t i = 0; i < names->count; i++) {
        const struct bh_slice name = names->at[i];
        if (name.len > 0) {
            memcpy(text, name.ptr, name.len);
        }
        at[i] = bh_slice(text, name.len);
        text += name.len;
    }
    return (struct bh_names){at, names->count};
}

/* ---- names ---- */

static struct bh_slice without_dot(struct bh_slice name)
{
    if (name.len > 0 && name.ptr[name.len - 1] == '.') {
        name.len--; /* OpenSSL matches no name with a trailing dot */
    }
    return name;
}

bool bh_tls_certificate_names(const X509 *certificate, struct bh_slice name)
{
    /* OpenSSL's prototypes take it without const, and only read. */
    X509 *leaf = (X509 *)(uintptr_t)certificate;
    struct bh_ip ip;
    name = without_dot(name);
    if (name.len == 0 || bh_slice_find(name, '\0') < name.len || bh_slice_eq(name, BH_LIT("."))) {
        return false;
    }
    if (bh_ip_parse(name, &ip)) {
        return X509_check_ip(leaf, ip.bytes, ip.family == 4 ? 4 : 16, 0) == 1;
    }
    /* RFC 9525: the subject's common name is no name, a wildcard is a whole label. A reference with
     * a leading dot stands for every name below it. */
    return X509_check_host(leaf, name.ptr, name.len,
                           X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
                           NULL) == 1;
}

/* The accepted name that the certificate has, or NULL. */
static const struct bh_slice *name_of(const struct bh_tls *tls, const X509 *leaf)
{
    for (size_t i = 0; i < tls->names.count; i++) {
        if (bh_tls_certificate_names(leaf, tls->names.at[i])) {
            return &tls->names.at[i];
        }
    }
    return NULL;
}

/* ---- texts ---- */

static void put_error(struct bh_tls *tls, struct bh_slice text)
{
    bh_tls_put_text(tls->facts.verify_error, sizeof(tls->facts.verify_error), text);
}

static void put_mismatch(struct bh_tls *tls, struct bh_slice wanted)
{
    char *text = tls->facts.verify_error;
    const size_t cap = sizeof(tls->facts.verify_error);
    const bool none = tls->facts.names[0] == '\0';
    char names[80] = "";
    bh_tls_put_text(names, sizeof(names), bh_slice_str(tls->facts.names));
    put_error(tls, none ? BH_LIT("name mismatch: certificate has no names")
                        : BH_LIT("name mismatch: certificate names "));
    bh_tls_put_text(text, cap, bh_slice_str(names));
    bh_tls_put_text(text, cap, BH_LIT(", wanted "));
    bh_tls_put_text(text, cap, wanted);
}

static void put_proof(struct bh_tls *tls, const char *what, struct bh_slice of)
{
    tls->facts.proof[0] = '\0';
    bh_tls_put_text(tls->facts.proof, sizeof(tls->facts.proof), bh_slice_str(what));
    bh_tls_put_text(tls->facts.proof, sizeof(tls->facts.proof), of);
}

/* "name mx.example, CA Example Root" */
static void prove_by_name(struct bh_tls *tls, struct bh_slice name)
{
    const STACK_OF(X509) *chain = SSL_get0_verified_chain(tls->ssl);
    const int count = chain != NULL ? sk_X509_num(chain) : 0;
    put_proof(tls, "name ", name);
    if (count > 0) {
        bh_tls_put_text(tls->facts.proof, sizeof(tls->facts.proof), BH_LIT(", CA "));
        bh_tls_put_name(tls->facts.proof, sizeof(tls->facts.proof),
                        X509_get_subject_name(sk_X509_value(chain, count - 1)));
    }
}

/* ---- by mode ---- */

static bool meets_pin(struct bh_tls *tls)
{
    char hex[2 * BH_PIN_LEN + 1] = "";
    bh_tls_put_hex(hex, sizeof(hex), tls->facts.spki, sizeof(tls->facts.spki));
    for (size_t i = 0; tls->facts.has_spki && i < tls->pins_count; i++) {
        if (memcmp(tls->pins[i], tls->facts.spki, BH_PIN_LEN) == 0) {
            put_proof(tls, "pin ", bh_slice_str(hex));
            tls->key_alone = true;
            return true;
        }
    }
    bh_tls_set_error(tls, "the certificate's key is not pinned: SHA-256 ");
    bh_tls_add_error(tls, hex);
    return false;
}

static void prove_by_tlsa(struct bh_tls *tls)
{
    uint8_t usage = 0;
    uint8_t selector = 0;
    uint8_t matching = 0;
    const unsigned char *data = NULL;
    size_t len = 0;
    char text[32];
    if (SSL_get0_dane_tlsa(tls->ssl, &usage, &selector, &matching, &data, &len) < 0) {
        return;
    }
    snprintf(text, sizeof(text), "TLSA %u %u %u ", usage, selector, matching);
    put_proof(tls, text, BH_EMPTY);
    bh_tls_put_hex(tls->facts.proof, sizeof(tls->facts.proof), data, len < 64 ? len : 64);
}

/* The record that matched decides whether names count: RFC 7672 section 3.1. */
static bool meets_tlsa(struct bh_tls *tls, const struct bh_slice *name)
{
    uint8_t usage = 0;
    if (!tls->facts.verified || SSL_get0_dane_authority(tls->ssl, NULL, NULL) < 0 ||
        SSL_get0_dane_tlsa(tls->ssl, &usage, NULL, NULL, NULL, NULL) < 0) {
        bh_tls_set_error(tls,
                         tls->verify_text[0] != '\0' ? tls->verify_text : "no TLSA record matches");
        return false;
    }
    prove_by_tlsa(tls);
    if (usage == USAGE_EE) {
        tls->key_alone = true; /* neither names nor dates count */
        return true;
    }
    if (usage != USAGE_TA || name == NULL) {
        bh_tls_set_error(tls, tls->facts.verify_error);
        return false;
    }
    return true;
}

static bool meets_verify(struct bh_tls *tls, const struct bh_slice *name)
{
    if (!tls->facts.verified || name == NULL) {
        bh_tls_set_error(tls, tls->facts.verify_error);
        return false;
    }
    return true;
}

static bool meets(struct bh_tls *tls, const struct bh_slice *name)
{
    switch (tls->mode) {
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        return true;
    case BH_TLS_VERIFY:
        return meets_verify(tls, name);
    case BH_TLS_PIN:
        return meets_pin(tls);
    case BH_TLS_DANE:
        return meets_tlsa(tls, name);
    case BH_TLS_OFF:
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        break;
    }
    bh_tls_set_error(tls, "no effective demand");
    return false;
}

static bool asks_proof(enum bh_tls_mode mode)
{
    return mode == BH_TLS_VERIFY || mode == BH_TLS_PIN || mode == BH_TLS_DANE;
}

/* ---- the judgement ---- */

static void learn_chain(struct bh_tls *tls)
{
    const long result = SSL_get_verify_result(tls->ssl);
    tls->facts.verified = result == X509_V_OK && tls->verify_code == X509_V_OK;
    if (tls->facts.verified) {
        return;
    }
    if (tls->verify_text[0] == '\0') {
        bh_tls_put_verify_error(tls->verify_text, sizeof(tls->verify_text), (int)result, 0, NULL);
    }
    put_error(tls, bh_slice_str(tls->verify_text));
}

/* When the first of the certificates that were relied on ends. */
static int64_t chain_end(const struct bh_tls *tls)
{
    const STACK_OF(X509) *chain = SSL_get0_verified_chain(tls->ssl);
    int64_t end = tls->facts.not_after_unix;
    for (int i = 0; chain != NULL && i < sk_X509_num(chain); i++) {
        const int64_t one = bh_tls_unix_time(X509_get0_notAfter(sk_X509_value(chain, i)));
        end = one < end ? one : end;
    }
    return end;
}

static void judge_first(struct bh_tls *tls)
{
    const X509 *leaf = SSL_get0_peer_certificate(tls->ssl);
    if (leaf == NULL) {
        put_error(tls, BH_LIT("no certificate"));
        bh_tls_set_error(tls, "no certificate");
        tls->met = tls->client && !asks_proof(tls->mode);
        return;
    }
    bh_tls_learn_certificate(&tls->facts, leaf);
    learn_chain(tls);
    if (!tls->client) {
        tls->facts.peer_authenticated = tls->facts.verified && tls->asks_client;
        return;
    }
    const struct bh_slice *name = name_of(tls, leaf);
    tls->facts.name_matched = name != NULL;
    if (tls->facts.verified && name == NULL && tls->names.count > 0) {
        put_mismatch(tls, tls->names.at[0]);
    }
    if (tls->facts.verified && name != NULL) {
        prove_by_name(tls, *name);
    }
    tls->met = meets(tls, name);
    if (tls->met && tls->key_alone && tls->mode == BH_TLS_DANE) {
        tls->facts.verify_error[0] = '\0'; /* RFC 7672 section 3.1.1: names are not looked at */
    }
    tls->facts.peer_authenticated =
        asks_proof(tls->mode) ? tls->met : tls->facts.verified && name != NULL;
    if (!tls->facts.peer_authenticated) {
        tls->facts.proof[0] = '\0';
    }
    tls->valid_until_unix = tls->facts.verified && !tls->key_alone ? chain_end(tls) : INT64_MAX;
}

/* OpenSSL took no new look, so nothing new is claimed. */
static void judge_resumed(struct bh_tls *tls)
{
    uint8_t spki[BH_PIN_LEN];
    const X509 *leaf = SSL_get0_peer_certificate(tls->ssl);
    if (!tls->has_prior) {
        bh_tls_set_error(tls, "resumed what is not known");
        return;
    }
    if ((leaf != NULL) != tls->prior.has_certificate ||
        (leaf != NULL &&
         (!bh_tls_spki(leaf, spki) || memcmp(spki, tls->prior.spki, sizeof(spki)) != 0))) {
        bh_tls_set_error(tls, "resumed with another certificate");
        return;
    }
    tls->facts = tls->prior;
    tls->met = true;
}

void bh_tls_judge(struct bh_tls *tls)
{
    const bool resumed = SSL_session_reused(tls->ssl) == 1;
    if (tls->client && resumed) {
        judge_resumed(tls);
    } else if (tls->client || tls->asks_client) {
        judge_first(tls);
    }
    tls->facts.resumed = resumed;
    tls->facts.version = SSL_get_version(tls->ssl);
    tls->facts.cipher = SSL_get_cipher_name(tls->ssl);
    ERR_clear_error();
}
