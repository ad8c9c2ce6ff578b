/* The server side: a context of a listener's certificate, its key, and who may have signed the
 * certificates of its clients. */
#include <openssl/err.h>
#include <stdlib.h>

#include "tls_internal.h"

static bool copy_path(char *out, struct bh_slice path)
{
    if (path.len >= TLS_PATH_MAX) {
        return false;
    }
    if (path.len > 0) {
        memcpy(out, path.ptr, path.len);
    }
    out[path.len] = '\0';
    return true;
}

/* A bad certificate fails nothing here: the listener looks at the facts. Sessions are not resumed
 * where certificates count, so that each handshake shows and proves its own. */
static void ask_client(SSL_CTX *ctx)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, bh_tls_note_verify);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ctx, 0);
}

static enum bh_status load_client_ca(SSL_CTX *ctx, struct bh_slice path, struct bh_buf *error)
{
    struct tls_file file;
    X509_STORE *store = NULL;
    enum bh_status status = bh_tls_file_read(&file, "CA file", path, error);
    if (status == BH_OK) {
        status = bh_tls_store_of(&file, path, &store, error);
    }
    bh_tls_file_drop(&file);
    if (status != BH_OK) {
        return status;
    }
    SSL_CTX_set_cert_store(ctx, store);
    /* Clients choose their certificate by these names. */
    STACK_OF(X509) *authorities = X509_STORE_get1_all_certs(store);
    for (int i = 0; i < sk_X509_num(authorities); i++) {
        SSL_CTX_add_client_CA(ctx, sk_X509_value(authorities, i));
    }
    sk_X509_pop_free(authorities, X509_free);
    return BH_OK;
}

static enum bh_status load(SSL_CTX *ctx, const struct bh_tls_server_params *p, struct bh_buf *error)
{
    struct tls_file certificate = {.octets = NULL};
    struct tls_file key = {.octets = NULL};
    enum bh_status status = bh_tls_file_read(&certificate, "certificate", p->certificate, error);
    if (status == BH_OK) {
        status = bh_tls_file_read(&key, "key", p->key, error);
    }
    if (status == BH_OK) {
        status = bh_tls_use_chain(ctx, &certificate, p->certificate, error);
    }
    if (status == BH_OK) {
        status = bh_tls_use_key(ctx, &key, p->key, error);
    }
    if (status == BH_OK && p->ask_client && p->client_ca.len > 0) {
        status = load_client_ca(ctx, p->client_ca, error);
    }
    bh_tls_file_drop(&certificate);
    bh_tls_file_drop(&key);
    return status;
}

static enum bh_status configure(SSL_CTX *ssl, const struct bh_tls_server_params *params)
{
    const enum bh_tls_version floor =
        params->min_version != BH_TLS_VERSION_NONE ? params->min_version : BH_TLS_VERSION_1_2;
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (floor < BH_TLS_VERSION_1_2) {
        SSL_CTX_set_security_level(ssl, 0);
    }
    if (params->ask_client) {
        ask_client(ssl);
    }
    return SSL_CTX_set_min_proto_version(ssl, bh_tls_version_number(floor)) == 1 ? BH_OK
                                                                                 : BH_EINVAL;
}

static bool remember_files(struct bh_tls_server_ctx *server, const struct bh_tls_server_params *p)
{
    const struct bh_slice paths[TLS_SERVER_FILES] = {p->certificate, p->key,
                                                     p->ask_client ? p->client_ca : BH_EMPTY};
    for (size_t i = 0; i < TLS_SERVER_FILES; i++) {
        if (!copy_path(server->paths[i], paths[i])) {
            return false;
        }
        server->stamps[i] = bh_tls_stamp(paths[i]);
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
    /* Before they are read: a change in between is then seen later, not missed. */
    enum bh_status status = remember_files(server, params) ? configure(ssl, params) : BH_EINVAL;
    if (status == BH_OK) {
        status = load(ssl, params, error);
    }
    if (status != BH_OK) {
        SSL_CTX_free(ssl);
        free(server);
        return status == BH_ENOMEM ? BH_ENOMEM : BH_EINVAL;
    }
    server->ctx = ssl;
    *ctx = server;
    return BH_OK;
}

bool bh_tls_server_ctx_stale(const struct bh_tls_server_ctx *ctx)
{
    for (size_t i = 0; i < TLS_SERVER_FILES; i++) {
        const struct tls_stamp now = bh_tls_stamp(bh_slice_str(ctx->paths[i]));
        if (!bh_tls_stamp_eq(&now, &ctx->stamps[i])) {
            return true;
        }
    }
    return false;
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
    struct bh_tls *tls = bh_tls_wrap(ctx->ctx, false);
    if (tls != NULL) {
        tls->asks_client = SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE;
    }
    return tls;
}
