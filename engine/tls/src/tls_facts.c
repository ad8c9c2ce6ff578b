/* What a certificate says, as bounded text that is safe to print. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "tls_internal.h"

void bh_tls_put_text(char *text, size_t cap, struct bh_slice s)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < s.len && len + 1 < cap; i++) {
        const char c = s.ptr[i];
        text[len++] = c >= ' ' && c <= '~' && c != '"' ? c : '?';
    }
    text[len] = '\0';
}

void bh_tls_put_hex(char *text, size_t cap, const uint8_t *octets, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        const char pair[] = {digits[octets[i] >> 4], digits[octets[i] & 15]};
        bh_tls_put_text(text, cap, bh_slice(pair, sizeof(pair)));
    }
}

int64_t bh_tls_unix_time(const ASN1_TIME *when)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0;
    int seconds = 0;
    const bool good =
        epoch != NULL && when != NULL && ASN1_TIME_diff(&days, &seconds, epoch, when) == 1;
    ASN1_TIME_free(epoch);
    return good ? (int64_t)days * 86400 + seconds : 0;
}

bool bh_tls_spki(const X509 *certificate, uint8_t digest[BH_PIN_LEN])
{
    unsigned char *der = NULL;
    const int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    unsigned digest_len = 0;
    const bool good = len > 0 &&
                      EVP_Digest(der, (size_t)len, digest, &digest_len, EVP_sha256(), NULL) == 1 &&
                      digest_len == BH_PIN_LEN;
    OPENSSL_free(der);
    return good;
}

void bh_tls_put_name(char *text, size_t cap, const X509_NAME *name)
{
    const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at >= 0) {
        const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
        unsigned char *utf8 = NULL;
        const int len = ASN1_STRING_to_UTF8(&utf8, value);
        if (len > 0) {
            bh_tls_put_text(text, cap, bh_slice(utf8, (size_t)len));
        }
        OPENSSL_free(utf8);
        return;
    }
    char whole[256];
    if (X509_NAME_oneline(name, whole, sizeof(whole)) != NULL) {
        bh_tls_put_text(text, cap, bh_slice_str(whole));
    }
}

static void add_name(struct bh_tls_facts *facts, struct bh_slice name)
{
    if (facts->names[0] != '\0') {
        bh_tls_put_text(facts->names, sizeof(facts->names), BH_LIT(", "));
    }
    bh_tls_put_text(facts->names, sizeof(facts->names), name);
}

static void add_address(struct bh_tls_facts *facts, const ASN1_OCTET_STRING *octets)
{
    struct bh_ip ip = {0};
    char text[BH_IP_TEXT_MAX];
    const int len = ASN1_STRING_length(octets);
    if (len == 4 || len == 16) {
        ip.family = len == 4 ? 4 : 6;
        memcpy(ip.bytes, ASN1_STRING_get0_data(octets), (size_t)len);
        add_name(facts, bh_slice_str(bh_ip_text(&ip, text)));
    }
}

/* RFC 9525: names are the alternative names; the common name of the subject is none. */
static void learn_names(struct bh_tls_facts *facts, const X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int kind = 0;
        const void *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &kind);
        const ASN1_STRING *octets = value;
        if (kind == GEN_DNS) {
            add_name(facts,
                     bh_slice(ASN1_STRING_get0_data(octets), (size_t)ASN1_STRING_length(octets)));
        } else if (kind == GEN_IPADD) {
            add_address(facts, octets);
        }
    }
    GENERAL_NAMES_free(names);
}

void bh_tls_learn_certificate(struct bh_tls_facts *facts, const X509 *certificate)
{
    facts->has_certificate = true;
    learn_names(facts, certificate);
    bh_tls_put_name(facts->issuer, sizeof(facts->issuer), X509_get_issuer_name(certificate));
    facts->not_after_unix = bh_tls_unix_time(X509_get0_notAfter(certificate));
    facts->has_spki = bh_tls_spki(certificate, facts->spki);
    ERR_clear_error();
}

/* "2026-01-01": the day says enough, and fits everywhere. */
static void put_day(char *text, size_t cap, const ASN1_TIME *when)
{
    struct tm tm;
    char day[16];
    if (when != NULL && ASN1_TIME_to_tm(when, &tm) == 1 &&
        strftime(day, sizeof(day), " %Y-%m-%d", &tm) > 0) {
        bh_tls_put_text(text, cap, bh_slice_str(day));
    }
}

/* Our words for the failures that partners have; OpenSSL's for the others. */
static const char *words_of(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "certificate expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "certificate not valid before";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "self-signed certificate";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return "unknown authority, self-signed";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return "unknown authority or incomplete chain, issuer";
    case X509_V_ERR_DANE_NO_MATCH:
        return "no TLSA record matches the certificate";
    default:
        return X509_verify_cert_error_string(error);
    }
}

void bh_tls_put_verify_error(char *text, size_t cap, int error, int depth, const X509 *certificate)
{
    text[0] = '\0';
    bh_tls_put_text(text, cap, bh_slice_str(words_of(error)));
    if (certificate == NULL) {
        return;
    }
    if (error == X509_V_ERR_CERT_HAS_EXPIRED) {
        put_day(text, cap, X509_get0_notAfter(certificate));
    } else if (error == X509_V_ERR_CERT_NOT_YET_VALID) {
        put_day(text, cap, X509_get0_notBefore(certificate));
    } else if (error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
               error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT ||
               error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE) {
        bh_tls_put_text(text, cap, BH_LIT(" "));
        bh_tls_put_name(text, cap, X509_get_issuer_name(certificate));
    }
    if (depth > 0) {
        char where[48];
        snprintf(where, sizeof(where), " (depth %d: ", depth);
        bh_tls_put_text(text, cap, bh_slice_str(where));
        bh_tls_put_name(text, cap, X509_get_subject_name(certificate));
        bh_tls_put_text(text, cap, BH_LIT(")"));
    }
}
