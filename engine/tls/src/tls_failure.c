/* Why a handshake failed, in words for an operator who has to tell a partner what to repair. */
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tls_internal.h"

/* TLS records begin with 20 to 23; SSL 2 is long gone. */
static bool is_record(char first)
{
    return first >= 20 && first <= 23;
}

static void add_versions(struct bh_tls *tls)
{
    static const struct {
        long number;
        const char *name;
    } versions[] = {{TLS1_VERSION, "1.0"}, {TLS1_1_VERSION, "1.1"}, {TLS1_2_VERSION, "1.2"}};
    const long floor = SSL_get_min_proto_version(tls->ssl);
    const long ceiling = SSL_get_max_proto_version(tls->ssl);
    const char *from = "1.3";
    const char *to = "1.3";
    for (size_t i = 0; i < BH_COUNT(versions); i++) {
        from = versions[i].number == floor ? versions[i].name : from;
        to = versions[i].number == ceiling ? versions[i].name : to;
    }
    bh_tls_add_error(tls, tls->client ? " (we offer TLS " : " (we accept TLS ");
    bh_tls_add_error(tls, from);
    bh_tls_add_error(tls, " to ");
    bh_tls_add_error(tls, to);
    bh_tls_add_error(tls, ")");
}

static void explain_alert(struct bh_tls *tls, int alert)
{
    const bool about_ours =
        alert == SSL3_AD_BAD_CERTIFICATE || alert == SSL3_AD_UNSUPPORTED_CERTIFICATE ||
        alert == SSL3_AD_CERTIFICATE_REVOKED || alert == SSL3_AD_CERTIFICATE_EXPIRED ||
        alert == SSL3_AD_CERTIFICATE_UNKNOWN || alert == TLS1_AD_UNKNOWN_CA ||
        alert == TLS1_AD_ACCESS_DENIED;
    const bool wants =
        alert == TLS13_AD_CERTIFICATE_REQUIRED ||
        (tls->certificate_wanted && (about_ours || alert == SSL3_AD_HANDSHAKE_FAILURE));
    if (tls->client && wants) {
        bh_tls_set_error(tls, "the peer wants a client certificate");
    } else if (tls->client && about_ours) {
        bh_tls_set_error(tls, "the peer refused our client certificate");
    } else if (alert == TLS1_AD_PROTOCOL_VERSION) {
        bh_tls_set_error(tls, "no protocol version in common");
        add_versions(tls);
    } else if (tls->client && alert == SSL3_AD_HANDSHAKE_FAILURE) {
        bh_tls_set_error(tls, "the peer found no common cipher or parameters");
    } else {
        bh_tls_set_error(tls, "the peer ended the handshake");
    }
    bh_tls_add_error(tls, ": alert ");
    bh_tls_add_error(tls, alert == TLS13_AD_CERTIFICATE_REQUIRED
                              ? "certificate required" /* OpenSSL 3.0 has no name for it */
                              : SSL_alert_desc_string_long(alert));
}

static void explain_ours(struct bh_tls *tls, int reason, const char *otherwise)
{
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_VERSION_TOO_HIGH:
        bh_tls_set_error(tls, "no protocol version in common");
        add_versions(tls);
        return;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_WRONG_CIPHER_RETURNED:
    case SSL_R_NO_CIPHERS_AVAILABLE:
        bh_tls_set_error(tls, "no cipher in common");
        return;
    case SSL_R_DH_KEY_TOO_SMALL:
        bh_tls_set_error(tls, "the peer's Diffie-Hellman key is too small");
        return;
    default: {
        const char *text = ERR_reason_error_string(ERR_peek_last_error());
        bh_tls_set_error(tls, text != NULL ? text : otherwise);
        return;
    }
    }
}

void bh_tls_explain_failure(struct bh_tls *tls, const char *otherwise)
{
    const unsigned long code = ERR_peek_last_error();
    const int reason = ERR_GET_REASON(code);
    if (tls->state == BH_TLS_SHAKING && tls->first_len > 0 && !is_record(tls->first[0])) {
        char text[TLS_FIRST_MAX + 1] = "";
        bh_tls_put_text(text, sizeof(text), bh_slice(tls->first, tls->first_len));
        bh_tls_set_error(tls, "the peer does not speak TLS: ");
        bh_tls_add_error(tls, text);
    } else if (code == 0 || ERR_GET_LIB(code) != ERR_LIB_SSL) {
        const char *text = code != 0 ? ERR_reason_error_string(code) : NULL;
        bh_tls_set_error(tls, text != NULL ? text : otherwise);
    } else if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
        explain_alert(tls, reason - SSL_AD_REASON_OFFSET);
    } else {
        explain_ours(tls, reason, otherwise);
    }
    ERR_clear_error();
}
