/* The server side: a context of a listener's certificate and key. */
#include <openssl/err.h>
#include <stdlib.h>

#include "tls_internal.h"

static void explain(struct bh_buf *error, const char *what, struct bh_slice file)
{
    char reason[160];
    ERR_error_string_n(ERR_get_error(), reason, sizeof(reason));
    ERR_clear_error();
    const struct bh_slice parts[] = {bh_slice_str(what), BH_LIT(" "), file, BH_LIT(": "),
                                     bh_slice_str(reason)};
    for (size_t i = 0; i < BH_COUNT(parts); i++) {
        bh_buf_add_cut(error, parts[i]);
    }
}

static bool load(SSL_CTX *ctx, const struct bh_tls_server_params *p, struct bh_buf *error)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, p->certificate.ptr) != 1) {
        explain(error, "certificate", p->certificate);
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, p->key.ptr, SSL_FILETYPE_PEM) != 1) {
        explain(error, "key", p->key);
        return false;
    }
    if (SSL_CTX_check_private_key(ctx) != 1) {
        explain(error, "key does not belong to the certificate:", p->key);
        return false;
    }
    return true;
}

enum bh_status bh_tls_server_ctx_create(const struct bh_tls_server_params *params,
                                        struct bh_tls_server_ctx **ctx, struct bh_buf *error)
{
    struct bh_tls_server_ctx *server = calloc(1, sizeof(*server));
    SSL_CTX *ssl = server != NULL ? SSL_CTX_new(TLS_server_method()) : NULL;
    if (ssl == NULL || bh_tls_ex_index() < 0) {
        SSL_CTX_free(ssl);
        free(server);
        return BH_ENOMEM;
    }
    const enum bh_tls_version floor =
        params->min_version != BH_TLS_VERSION_NONE ? params->min_version : BH_TLS_VERSION_1_2;
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (floor < BH_TLS_VERSION_1_2) {
        SSL_CTX_set_security_level(ssl, 0);
    }
    if (SSL_CTX_set_min_proto_version(ssl, bh_tls_version_number(floor)) != 1 ||
        !load(ssl, params, error)) {
        SSL_CTX_free(ssl);
        free(server);
        return BH_EINVAL;
    }
    server->ctx = ssl;
    *ctx = server;
    return BH_OK;
}

void bh_tls_server_ctx_destroy(struct bh_tls_server_ctx *ctx)
{
    if (ctx != NULL) {
        SSL_CTX_free(ctx->ctx); /* sessions hold references of their own */
        free(ctx);
    }
}

struct bh_tls *bh_tls_server_create(struct bh_tls_server_ctx *ctx)
{
    return bh_tls_wrap(ctx->ctx, false);
}
