/* tls_certs.h - certificates of every kind that a partner may show, made on the spot, and a server
 * of bare OpenSSL that shows them: what judges must not be what is judged. */
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bh/tls.h"

struct made {
    X509 *certificate;
    EVP_PKEY *key;
};

struct made_as {
    const char *common; /* common name */
    const char *names;  /* alternative names, as OpenSSL's configuration has them; NULL: none */
    bool authority;
    long from_s, to_s; /* from now; 0 and 0: an hour ago to a day ahead */
};

#define CERTS_DAY 86400L

static inline void certs_must(bool good)
{
    if (!good) {
        fprintf(stderr, "a certificate could not be made\n");
        abort();
    }
}

static inline void certs_extend(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    certs_must(e != NULL && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* @param issuer  NULL: self-signed */
static inline struct made certs_make(const struct made_as *as, const struct made *issuer)
{
    static long serial = 1;
    struct made m = {X509_new(), EVP_EC_gen("P-256")};
    const bool dated = as->from_s != 0 || as->to_s != 0;
    certs_must(m.certificate != NULL && m.key != NULL);
    X509 *x = m.certificate;
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), dated ? as->from_s : -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), dated ? as->to_s : CERTS_DAY);
    X509_set_pubkey(x, m.key);
    X509_NAME *subject = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)as->common, -1,
                               -1, 0);
    X509_set_issuer_name(x, issuer != NULL ? X509_get_subject_name(issuer->certificate) : subject);
    if (as->authority) {
        certs_extend(x, NID_basic_constraints, "critical,CA:TRUE");
    }
    if (as->names != NULL) {
        certs_extend(x, NID_subject_alt_name, as->names);
    }
    certs_must(X509_sign(x, issuer != NULL ? issuer->key : m.key, EVP_sha256()) > 0);
    return m;
}

static inline void certs_free(struct made *m)
{
    X509_free(m->certificate);
    EVP_PKEY_free(m->key);
    *m = (struct made){NULL, NULL};
}

/* One or more certificates, then perhaps a key, as PEM. */
static inline void certs_write(const char *path, const struct made *const *certificates,
                               size_t count)
{
    FILE *file = fopen(path, "w");
    certs_must(file != NULL);
    for (size_t i = 0; i < count; i++) {
        certs_must(PEM_write_X509(file, certificates[i]->certificate) == 1);
    }
    certs_must(fclose(file) == 0);
}

static inline void certs_write_key(const char *path, const struct made *m)
{
    FILE *file = fopen(path, "w");
    certs_must(file != NULL && PEM_write_PrivateKey(file, m->key, NULL, NULL, 0, NULL, NULL) == 1 &&
               fclose(file) == 0);
}

/* ---- a server of bare OpenSSL ---- */

struct bare_server {
    const struct made *leaf;
    const struct made *intermediate; /* sent behind it; NULL: not */
    int version;                     /* the only one; 0: any */
    bool demands_client;             /* a client certificate, or no session */
    const struct made *client_root;
};

static inline SSL_CTX *bare_context(const struct bare_server *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    certs_must(ctx != NULL);
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_min_proto_version(ctx, s->version != 0 ? s->version : TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ctx, s->version);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"bare", 4);
    certs_must(SSL_CTX_use_certificate(ctx, s->leaf->certificate) == 1 &&
               SSL_CTX_use_PrivateKey(ctx, s->leaf->key) == 1);
    if (s->intermediate != NULL) {
        certs_must(SSL_CTX_add1_chain_cert(ctx, s->intermediate->certificate) == 1);
    }
    if (s->demands_client) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        if (s->client_root != NULL) {
            X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), s->client_root->certificate);
        }
    }
    return ctx;
}

static inline SSL *bare_session(SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *out = BIO_new(BIO_s_mem());
    certs_must(ssl != NULL && in != NULL && out != NULL);
    BIO_set_mem_eof_return(in, -1);
    SSL_set_bio(ssl, in, out);
    SSL_set_accept_state(ssl);
    return ssl;
}

/* Octets from one end to the other, until neither has any. The server reads along, so that it
 * handles alerts, and what it read is dropped. */
static inline void bare_pump(struct bh_tls *client, SSL *server)
{
    char storage[16384];
    for (bool moved = true; moved;) {
        moved = false;
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        if (bh_tls_take(client, &out) > 0) {
            BIO_write(SSL_get_rbio(server), out.ptr, (int)out.len);
            moved = true;
        }
        if (!SSL_is_init_finished(server)) {
            SSL_do_handshake(server);
        } else {
            char ignored[256];
            SSL_read(server, ignored, sizeof(ignored));
        }
        ERR_clear_error();
        const int n = BIO_read(SSL_get_wbio(server), storage, sizeof(storage));
        if (n > 0) {
            if (bh_tls_feed(client, bh_slice(storage, (size_t)n)) != BH_OK) {
                abort();
            }
            moved = true;
        }
    }
}
