/* The client side: one context a worker, the demand applied to each session. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

#include "clearance.h"
#include "tls_internal.h"

/* For peers whose firewalls drop a ClientHello of more than 256 octets or so. */
#define SMALL_CIPHERS                                                                        \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:" \
    "AES128-GCM-SHA256:AES128-SHA"
#define SMALL_GROUPS "X25519:P-256"

enum bh_status bh_tls_demand_digest(const struct bh_tls_demand *demand,
                                    uint8_t digest[BH_TLS_DIGEST_LEN])
{
    /* Names and pins are bounded by the configuration; 64 KiB is far above what it lets through. */
    const size_t cap = (size_t)64 * 1024;
    char *storage = malloc(cap);
    if (storage == NULL) {
        return BH_ENOMEM;
    }
    struct bh_writer w = {.buf = bh_buf(storage, cap)};
    bh_tls_demand_write(demand, &w);
    enum bh_status status = BH_ELIMIT;
    if (!w.overflow) {
        unsigned len = 0;
        status = EVP_Digest(w.buf.ptr, w.buf.len, digest, &len, EVP_sha256(), NULL) == 1 &&
                         len == BH_TLS_DIGEST_LEN
                     ? BH_OK
                     : BH_ENOMEM;
    }
    free(storage);
    return status;
}

bool bh_tls_demand_supported(const struct bh_tls_demand *demand)
{
    switch (demand->mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
    case BH_TLS_AUTO:
        return demand->client_cert.len == 0;
    case BH_TLS_VERIFY:
    case BH_TLS_PIN:
    case BH_TLS_DANE:
    case BH_TLS_DANE_ONLY:
        return false;
    }
    return false;
}

int bh_tls_version_number(enum bh_tls_version version)
{
    switch (version) {
    case BH_TLS_VERSION_NONE:
        return 0;
    case BH_TLS_VERSION_1_0:
        return TLS1_VERSION;
    case BH_TLS_VERSION_1_1:
        return TLS1_1_VERSION;
    case BH_TLS_VERSION_1_2:
        return TLS1_2_VERSION;
    case BH_TLS_VERSION_1_3:
        return TLS1_3_VERSION;
    }
    return 0;
}

/* OpenSSL hands over a session that can be resumed: with TLS 1.2 as the handshake ends, with 1.3 in
 * a later read. Each supported demand is met once the handshake is, so that it may be kept. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct bh_tls *tls = SSL_get_ex_data(ssl, bh_tls_ex_index());
    if (tls == NULL || tls->worker == NULL || tls->key_len == 0 || tls->state == BH_TLS_FAILED) {
        return 0;
    }
    return bh_tls_resume_keep(tls->worker, bh_slice(tls->key, tls->key_len), session) ? 1 : 0;
}

static pthread_once_t authorities_once = PTHREAD_ONCE_INIT;
static X509_STORE *authorities; /* the system's, for the life of the process; NULL: none */

/* Loading the bundle takes some 60 ms: once, and shared by all workers, which only read it. A
 * machine without one is no error, only one where every peer is unverified. */
static void load_authorities(void)
{
    X509_STORE *store = X509_STORE_new();
    if (store != NULL && X509_STORE_set_default_paths(store) == 1) {
        authorities = store;
    } else {
        X509_STORE_free(store);
    }
    ERR_clear_error();
}

struct bh_tls_worker *bh_tls_worker_create(uint32_t resume_max)
{
    struct bh_tls_worker *w = calloc(1, sizeof(*w));
    SSL_CTX *ctx = w != NULL ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (ctx == NULL || bh_tls_ex_index() < 0) {
        SSL_CTX_free(ctx);
        free(w);
        return NULL;
    }
    w->ctx = ctx;
    w->resume_max = resume_max;
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);
    if (pthread_once(&authorities_once, load_authorities) == 0 && authorities != NULL) {
        SSL_CTX_set1_cert_store(ctx, authorities);
    }
    return w;
}

void bh_tls_worker_destroy(struct bh_tls_worker *worker)
{
    if (worker != NULL) {
        bh_tls_resume_clear(worker);
        SSL_CTX_free(worker->ctx);
        free(worker);
    }
}

/* A slice as a C string for OpenSSL. @return false: too long, or with a NUL inside */
static bool c_string(struct bh_slice s, char *text, size_t cap)
{
    if (s.len >= cap || (s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL)) {
        return false;
    }
    if (s.len > 0) {
        memcpy(text, s.ptr, s.len);
    }
    text[s.len] = '\0';
    return true;
}

static bool set_versions(SSL *ssl, const struct bh_tls_demand *demand, bool small_hello)
{
    const enum bh_tls_version floor =
        demand->min_version != BH_TLS_VERSION_NONE ? demand->min_version : BH_TLS_VERSION_1_2;
    enum bh_tls_version ceiling = demand->max_version;
    if (small_hello && floor <= BH_TLS_VERSION_1_2 &&
        (ceiling == BH_TLS_VERSION_NONE || ceiling > BH_TLS_VERSION_1_2)) {
        ceiling = BH_TLS_VERSION_1_2; /* what 1.3 adds is most of the hello */
    }
    if (floor < BH_TLS_VERSION_1_2) {
        SSL_set_security_level(ssl, 0); /* level 1 already refuses TLS 1.0 and 1.1 */
    }
    return SSL_set_min_proto_version(ssl, bh_tls_version_number(floor)) == 1 &&
           SSL_set_max_proto_version(ssl, bh_tls_version_number(ceiling)) == 1;
}

static bool set_ciphers(SSL *ssl, const struct bh_tls_demand *demand, bool small_hello)
{
    char text[2048];
    char groups[] = SMALL_GROUPS;
    bool good = true;
    if (demand->ciphers.len > 0) {
        good = c_string(demand->ciphers, text, sizeof(text)) && SSL_set_cipher_list(ssl, text) == 1;
    } else if (small_hello) {
        good = SSL_set_cipher_list(ssl, SMALL_CIPHERS) == 1;
    }
    if (good && demand->ciphersuites.len > 0) {
        good = c_string(demand->ciphersuites, text, sizeof(text)) &&
               SSL_set_ciphersuites(ssl, text) == 1;
    }
    if (good && small_hello) {
        SSL_set_options(ssl, SSL_OP_NO_TICKET);
        good = SSL_set1_groups_list(ssl, groups) == 1;
    }
    return good;
}

static bool is_address(const char *host)
{
    struct bh_ip ip;
    return bh_ip_parse(bh_slice_str(host), &ip);
}

/* The name goes into SNI; the same name is compared with the certificate for the facts. */
static bool set_names(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    char sni[256];
    struct bh_slice host = p->host;
    if (host.len > 0 && host.ptr[host.len - 1] == '.') {
        host.len--; /* OpenSSL matches no name with a trailing dot */
    }
    const struct bh_slice name = p->demand->sni.len > 0 ? p->demand->sni : host;
    if (!c_string(host, tls->host, sizeof(tls->host)) || !c_string(name, sni, sizeof(sni))) {
        return false;
    }
    return sni[0] == '\0' || is_address(sni) || SSL_set_tlsext_host_name(tls->ssl, sni) == 1;
}

static bool set_key(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    struct bh_buf key = bh_buf(tls->key, sizeof(tls->key));
    char port[2];
    bh_put_be16(port, p->port);
    bh_buf_put(&key, bh_slice(tls->digest, sizeof(tls->digest)));
    bh_buf_put(&key, bh_slice(port, sizeof(port)));
    if (bh_buf_add(&key, bh_slice_str(tls->host)) != BH_OK) {
        return false;
    }
    tls->key_len = p->small_hello ? 0 : key.len;
    return true;
}

static bool configure(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    if (bh_tls_demand_digest(p->demand, tls->digest) != BH_OK ||
        !set_versions(tls->ssl, p->demand, p->small_hello) ||
        !set_ciphers(tls->ssl, p->demand, p->small_hello) || !set_names(tls, p) ||
        !set_key(tls, p)) {
        return false;
    }
    /* No supported mode refuses a certificate; the result is computed all the same. */
    SSL_set_verify(tls->ssl, SSL_VERIFY_NONE, bh_tls_note_verify);
    SSL_SESSION *session =
        tls->key_len > 0 ? bh_tls_resume_find(tls->worker, bh_slice(tls->key, tls->key_len)) : NULL;
    return session == NULL || SSL_set_session(tls->ssl, session) == 1;
}

enum bh_status bh_tls_client_create(struct bh_tls_worker *worker,
                                    const struct bh_tls_client_params *params, struct bh_tls **tls,
                                    struct bh_buf *error)
{
    if (!bh_tls_demand_supported(params->demand) || params->demand->mode == BH_TLS_OFF ||
        params->connection == 0) {
        bh_buf_add_cut(error, BH_LIT("this TLS demand can't be enforced"));
        return BH_EINVAL;
    }
    struct bh_tls *new = bh_tls_wrap(worker->ctx, true);
    if (new == NULL) {
        return BH_ENOMEM;
    }
    new->worker = worker;
    new->connection = params->connection;
    new->generation = params->generation;
    if (!configure(new, params)) {
        ERR_clear_error();
        bh_tls_destroy(new);
        bh_buf_add_cut(error, BH_LIT("versions, ciphers or names of this TLS demand are refused"));
        return BH_EINVAL;
    }
    *tls = new;
    return BH_OK;
}

struct bh_clearance *bh_clearance_of_tls(const struct bh_tls *tls)
{
    if (!tls->client || tls->state != BH_TLS_UP || !tls->met) {
        return NULL;
    }
    return bh_clearance_create(true, tls->connection, tls->generation, tls->digest);
}
