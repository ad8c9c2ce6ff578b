/* tls_fixture.h - a certificate made on the spot, in two files of a folder of its own. */
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bh/tls.h"

struct tls_fixture {
    char folder[64];
    char certificate[96];
    char key[96];
};

static inline void tls_fixture_make(struct tls_fixture *f, const char *name)
{
    snprintf(f->folder, sizeof(f->folder), "/tmp/bh-test-XXXXXX");
    if (mkdtemp(f->folder) == NULL) {
        abort();
    }
    snprintf(f->certificate, sizeof(f->certificate), "%s/cert.pem", f->folder);
    snprintf(f->key, sizeof(f->key), "%s/key.pem", f->folder);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    X509_NAME *subject = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, subject);
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *alternative = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, name, -1);
    GENERAL_NAME_set0_value(alternative, GEN_DNS, text);
    sk_GENERAL_NAME_push(names, alternative);
    X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0);
    GENERAL_NAMES_free(names);
    X509_sign(x, key, EVP_sha256());
    FILE *file = fopen(f->certificate, "w");
    if (file == NULL || PEM_write_X509(file, x) != 1 || fclose(file) != 0) {
        abort();
    }
    file = fopen(f->key, "w");
    if (file == NULL || PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        fclose(file) != 0) {
        abort();
    }
    X509_free(x);
    EVP_PKEY_free(key);
}

static inline struct bh_tls_server_ctx *tls_fixture_server(const struct tls_fixture *f)
{
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    const struct bh_tls_server_params params = {.certificate = bh_slice_str(f->certificate),
                                                .key = bh_slice_str(f->key)};
    struct bh_tls_server_ctx *ctx = NULL;
    if (bh_tls_server_ctx_create(&params, &ctx, &error) != BH_OK) {
        fprintf(stderr, "%.*s\n", BH_FMT(bh_buf_slice(&error)));
        abort();
    }
    return ctx;
}

static inline void tls_fixture_remove(const struct tls_fixture *f)
{
    unlink(f->certificate);
    unlink(f->key);
    rmdir(f->folder);
}
