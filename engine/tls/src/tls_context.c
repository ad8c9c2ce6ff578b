/* Client contexts: one for each set of files that a demand may name, in each worker.
 *
 * 1. A demand names a CA file (mode verify only) and a client certificate with its key, or none.
 *    Its context is found by those paths, or made: files read, digested, parsed.
 * 2. The digest of a demand includes the digests of what was read, so that nothing proven with the
 *    old content of a file counts once it has another.
 * 3. bh_tls_worker_refresh asks stat(2) about every file and reads anew what has changed. A context
 *    whose files are bad has no SSL_CTX but a reason; it is looked at again when it is asked for,
 *    at most once a second.
 * 4. The system's authorities are read once for the process, and again when their file changes. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "tls_internal.h"

#define RETRY_BAD_MS 1000
#define UNUSED_MS                                                                  \
    ((uint64_t)3600 * 1000) /* a context that nobody asked for is dropped after it \
                             */

/* ---- the system's authorities ---- */

static pthread_mutex_t system_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    bool tried;
    char path[TLS_PATH_MAX]; /* "": OpenSSL's folders, which it reads as it goes */
    struct tls_stamp stamp;
    X509_STORE *store; /* NULL: none; every peer is then unverified */
    uint8_t digest[BH_TLS_DIGEST_LEN];
    uint64_t version;
} authorities;

/* A bundle is read once; a folder would be read during handshakes. */
static const char *bundle_path(void)
{
    const char *named = getenv(X509_get_default_cert_file_env());
    const char *paths[] = {named, X509_get_default_cert_file(),
                           "/etc/ssl/certs/ca-certificates.crt",
                           "/etc/pki/tls/certs/ca-bundle.crt"};
    const size_t count = named != NULL ? 1 : BH_COUNT(paths);
    for (size_t i = named != NULL ? 0 : 1; i < count; i++) {
        if (strlen(paths[i]) < TLS_PATH_MAX && bh_tls_stamp(bh_slice_str(paths[i])).there) {
            return paths[i];
        }
    }
    return "";
}

static X509_STORE *load_bundle(const char *path, uint8_t digest[BH_TLS_DIGEST_LEN])
{
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct tls_file file;
    X509_STORE *store = NULL;
    const struct bh_slice name = bh_slice_str(path);
    if (path[0] == '\0' || bh_tls_file_read(&file, "CA file", name, &error) != BH_OK) {
        return NULL;
    }
    if (bh_tls_store_of(&file, name, &store, &error) == BH_OK) {
        memcpy(digest, file.digest, BH_TLS_DIGEST_LEN);
    }
    bh_tls_file_drop(&file);
    return store;
}

static X509_STORE *load_folders(void)
{
    X509_STORE *store = X509_STORE_new();
    if (store != NULL && X509_STORE_set_default_paths(store) != 1) {
        X509_STORE_free(store);
        store = NULL;
    }
    ERR_clear_error();
    return store;
}

/* With the lock held. A bundle that has become unreadable leaves the old one in force: it is
 * somebody else's file, rewritten by the system, and no demand names it. */
static void look_at_system(bool again)
{
    if (authorities.tried && !again) {
        return;
    }
    if (!authorities.tried) {
        snprintf(authorities.path, sizeof(authorities.path), "%s", bundle_path());
    }
    const struct tls_stamp stamp = bh_tls_stamp(bh_slice_str(authorities.path));
    if (authorities.tried && bh_tls_stamp_eq(&stamp, &authorities.stamp)) {
        return;
    }
    X509_STORE *store = load_bundle(authorities.path, authorities.digest);
    if (store == NULL && !authorities.tried) {
        store = load_folders();
    }
    authorities.tried = true;
    authorities.stamp = stamp;
    if (store != NULL) {
        X509_STORE_free(authorities.store); /* contexts hold references */
        authorities.store = store;
        authorities.version++;
    }
}

static uint64_t refresh_system(bool again)
{
    pthread_mutex_lock(&system_lock);
    look_at_system(again);
    const uint64_t version = authorities.version;
    pthread_mutex_unlock(&system_lock);
    return version;
}

static bool use_system(struct tls_context *c)
{
    pthread_mutex_lock(&system_lock);
    look_at_system(false);
    c->system_version = authorities.version;
    memcpy(c->ca_digest, authorities.digest, sizeof(c->ca_digest));
    if (authorities.store != NULL) {
        SSL_CTX_set1_cert_store(c->ctx, authorities.store);
    }
    pthread_mutex_unlock(&system_lock);
    return true;
}

/* ---- one context ---- */

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct bh_slice path_of(const struct tls_context *c, enum tls_client_file which)
{
    return bh_slice_str(c->paths[which]);
}

static enum bh_status load_ca(struct tls_context *c, struct bh_buf *error)
{
    const struct bh_slice path = path_of(c, TLS_FILE_CA);
    if (path.len == 0) {
        return use_system(c) ? BH_OK : BH_ENOMEM;
    }
    struct tls_file file;
    X509_STORE *store = NULL;
    enum bh_status status = bh_tls_file_read(&file, "CA file", path, error);
    if (status == BH_OK) {
        status = bh_tls_store_of(&file, path, &store, error);
    }
    if (status == BH_OK) {
        memcpy(c->ca_digest, file.digest, sizeof(c->ca_digest));
        SSL_CTX_set_cert_store(c->ctx, store);
    }
    bh_tls_file_drop(&file);
    return status;
}

static enum bh_status load_certificate(struct tls_context *c, struct bh_buf *error)
{
    const struct bh_slice path = path_of(c, TLS_FILE_CERTIFICATE);
    const struct bh_slice key_path = path_of(c, TLS_FILE_KEY);
    if (path.len == 0) {
        return BH_OK;
    }
    struct tls_file file;
    struct tls_file key = {.octets = NULL};
    enum bh_status status = bh_tls_file_read(&file, "client certificate", path, error);
    if (status == BH_OK) {
        memcpy(c->certificate_digest, file.digest, sizeof(c->certificate_digest));
        status = bh_tls_file_read(&key, "client key", key_path, error);
    }
    if (status == BH_OK) {
        status = bh_tls_use_chain(c->ctx, &file, path, error);
    }
    if (status == BH_OK) {
        status = bh_tls_use_key(c->ctx, &key, key_path, error);
    }
    bh_tls_file_drop(&file);
    bh_tls_file_drop(&key);
    return status;
}

/* Asked for a certificate, with none configured: worth knowing when the peer then hangs up. */
static int on_certificate_wanted(SSL *ssl, X509 **certificate, EVP_PKEY **key)
{
    struct bh_tls *tls = SSL_get_ex_data(ssl, bh_tls_ex_index());
    (void)certificate;
    (void)key;
    if (tls != NULL) {
        tls->certificate_wanted = true;
    }
    return 0;
}

static SSL_CTX *new_context(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_dane_enable(ctx) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_dane_set_flags(ctx, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, bh_tls_on_new_session);
    SSL_CTX_set_client_cert_cb(ctx, on_certificate_wanted);
    return ctx;
}

static void load(struct tls_context *c)
{
    struct bh_buf error = bh_buf(c->error, sizeof(c->error));
    SSL_CTX_free(c->ctx); /* sessions hold references */
    /* Before they are read: a change in between is then seen later, not missed. */
    for (size_t i = 0; i < TLS_CLIENT_FILES; i++) {
        c->stamps[i] = bh_tls_stamp(bh_slice_str(c->paths[i]));
    }
    c->checked_ms = now_ms();
    c->ctx = new_context();
    c->status = c->ctx != NULL ? load_ca(c, &error) : BH_ENOMEM;
    if (c->status == BH_OK) {
        c->status = load_certificate(c, &error);
    }
    if (c->status != BH_OK) {
        SSL_CTX_free(c->ctx);
        c->ctx = NULL;
    }
    c->error_len = error.len;
    ERR_clear_error();
}

static bool is_stale(const struct tls_context *c, uint64_t system_version)
{
    if (c->status != BH_OK ||
        (c->paths[TLS_FILE_CA][0] == '\0' && c->system_version != system_version)) {
        return true;
    }
    for (size_t i = 0; i < TLS_CLIENT_FILES; i++) {
        const struct tls_stamp now = bh_tls_stamp(bh_slice_str(c->paths[i]));
        if (!bh_tls_stamp_eq(&now, &c->stamps[i])) {
            return true;
        }
    }
    return false;
}

/* ---- the contexts of a worker ---- */

static void drop(struct bh_tls_worker *w, struct tls_context *c)
{
    for (struct tls_context **at = &w->contexts_first; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    bh_map_remove(&w->contexts, &c->node);
    SSL_CTX_free(c->ctx);
    free(c);
}

size_t bh_tls_worker_refresh(struct bh_tls_worker *worker)
{
    size_t taken_up = 0;
    const uint64_t system_version = refresh_system(true);
    const uint64_t now = now_ms();
    struct tls_context *next = NULL;
    for (struct tls_context *c = worker->contexts_first; c != NULL; c = next) {
        next = c->next;
        if (now - c->used_ms >= UNUSED_MS) {
            drop(worker, c);
        } else if (is_stale(c, system_version)) {
            load(c);
            taken_up += c->status == BH_OK ? 1 : 0;
        }
    }
    return taken_up;
}

static bool put_path(char *out, struct bh_slice path)
{
    if (path.len >= TLS_PATH_MAX || bh_slice_find(path, '\0') < path.len) {
        return false;
    }
    if (path.len > 0) {
        memcpy(out, path.ptr, path.len);
    }
    out[path.len] = '\0';
    return true;
}

/* NULL: a path that no file can have, or no memory. */
static struct tls_context *make(struct bh_tls_worker *w, const struct bh_slice *paths)
{
    struct tls_context *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    struct bh_buf key = bh_buf(c->key, sizeof(c->key));
    for (size_t i = 0; i < TLS_CLIENT_FILES; i++) {
        bh_buf_put(&key, paths[i]);
        bh_buf_put_char(&key, '\0');
        if (!put_path(c->paths[i], paths[i])) {
            free(c);
            return NULL;
        }
    }
    c->node.key = bh_buf_slice(&key);
    if (bh_map_insert(&w->contexts, &c->node) != BH_OK) {
        free(c);
        return NULL;
    }
    c->next = w->contexts_first;
    w->contexts_first = c;
    load(c);
    return c;
}

static struct tls_context *find(struct bh_tls_worker *w, const struct bh_slice *paths)
{
    char storage[TLS_CONTEXT_KEY_MAX];
    struct bh_buf key = bh_buf(storage, sizeof(storage));
    for (size_t i = 0; i < TLS_CLIENT_FILES; i++) {
        if (paths[i].len >= TLS_PATH_MAX) {
            return NULL;
        }
        bh_buf_put(&key, paths[i]);
        bh_buf_put_char(&key, '\0');
    }
    struct bh_map_node *node = bh_map_find(&w->contexts, bh_buf_slice(&key));
    return node != NULL ? BH_CONTAINER(node, struct tls_context, node) : make(w, paths);
}

enum bh_status bh_tls_context_of(struct bh_tls_worker *worker, const struct bh_tls_demand *demand,
                                 struct tls_context **context, struct bh_buf *error)
{
    const bool certificate = demand->client_cert.len > 0;
    const struct bh_slice paths[TLS_CLIENT_FILES] = {
        [TLS_FILE_CA] = demand->mode == BH_TLS_VERIFY ? demand->ca_file : BH_EMPTY,
        [TLS_FILE_CERTIFICATE] = certificate ? demand->client_cert : BH_EMPTY,
        [TLS_FILE_KEY] = certificate ? demand->client_key : BH_EMPTY,
    };
    struct tls_context *c = find(worker, paths);
    if (c == NULL) {
        return BH_ENOMEM;
    }
    c->used_ms = now_ms();
    if (c->status != BH_OK && c->used_ms - c->checked_ms >= RETRY_BAD_MS) {
        load(c);
    }
    if (c->status != BH_OK) {
        bh_buf_add_cut(error, bh_slice(c->error, c->error_len));
        return c->status;
    }
    *context = c;
    return BH_OK;
}

void bh_tls_contexts_clear(struct bh_tls_worker *worker)
{
    while (worker->contexts_first != NULL) {
        drop(worker, worker->contexts_first);
    }
    bh_map_fini(&worker->contexts);
}

/* ---- digests ---- */

/* Octets that the canonical form of the demand can need at most. */
static size_t canonical_max(const struct bh_tls_demand *d)
{
    size_t max = 256 + d->ciphers.len + d->ciphersuites.len + d->sni.len + d->client_cert.len +
                 d->client_key.len + d->ca_file.len + d->pins.count * (BH_PIN_LEN + 8);
    for (size_t i = 0; i < d->names.count; i++) {
        max += d->names.at[i].len + 8;
    }
    for (size_t i = 0; i < d->tlsa.count; i++) {
        max += d->tlsa.at[i].data.len + 16;
    }
    return max;
}

static enum bh_status digest_with(const struct bh_tls_demand *demand, const uint8_t *ca,
                                  const uint8_t *certificate, uint8_t digest[BH_TLS_DIGEST_LEN])
{
    const size_t cap = canonical_max(demand) + 3 * (BH_TLS_DIGEST_LEN + 8);
    char *storage = malloc(cap);
    if (storage == NULL) {
        return BH_ENOMEM;
    }
    struct bh_writer w = {.buf = bh_buf(storage, cap)};
    bh_tls_demand_write(demand, &w);
    if (ca != NULL) {
        bh_write_u8(&w, 1);
        bh_write_slice(&w, bh_slice(ca, BH_TLS_DIGEST_LEN));
    }
    if (certificate != NULL) {
        bh_write_u8(&w, 2);
        bh_write_slice(&w, bh_slice(certificate, BH_TLS_DIGEST_LEN));
    }
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

enum bh_status bh_tls_demand_digest(const struct bh_tls_demand *demand,
                                    uint8_t digest[BH_TLS_DIGEST_LEN])
{
    return digest_with(demand, NULL, NULL, digest);
}

enum bh_status bh_tls_context_digest(const struct tls_context *c,
                                     const struct bh_tls_demand *demand,
                                     uint8_t digest[BH_TLS_DIGEST_LEN])
{
    return digest_with(demand, demand->mode == BH_TLS_VERIFY ? c->ca_digest : NULL,
                       demand->client_cert.len > 0 ? c->certificate_digest : NULL, digest);
}

enum bh_status bh_tls_worker_digest(struct bh_tls_worker *worker,
                                    const struct bh_tls_demand *demand,
                                    uint8_t digest[BH_TLS_DIGEST_LEN], struct bh_buf *error)
{
    if (demand->mode == BH_TLS_OFF) {
        return bh_tls_demand_digest(demand, digest);
    }
    struct tls_context *context = NULL;
    const enum bh_status status = bh_tls_context_of(worker, demand, &context, error);
    return status == BH_OK ? bh_tls_context_digest(context, demand, digest) : status;
}
