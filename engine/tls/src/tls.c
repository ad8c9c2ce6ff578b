/* One session over memory BIOs, either side. */
#include "bh/tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>

#include "tls_internal.h"

static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static int index_of_tls = -1;

static void make_index(void)
{
    index_of_tls = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

int bh_tls_ex_index(void)
{
    return pthread_once(&index_once, make_index) == 0 ? index_of_tls : -1;
}

struct bh_tls *bh_tls_wrap(SSL_CTX *ctx, bool client)
{
    struct bh_tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL) {
        return NULL;
    }
    tls->ssl = SSL_new(ctx);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (tls->ssl == NULL || tls->in == NULL || tls->out == NULL ||
        SSL_set_ex_data(tls->ssl, bh_tls_ex_index(), tls) != 1) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        SSL_free(tls->ssl);
        free(tls);
        return NULL;
    }
    BIO_set_mem_eof_return(tls->in, -1); /* empty means "not yet", never "the end" */
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    tls->client = client;
    tls->state = BH_TLS_SHAKING;
    tls->facts = (struct bh_tls_facts){.version = "", .cipher = ""};
    if (client) {
        SSL_set_connect_state(tls->ssl);
    } else {
        SSL_set_accept_state(tls->ssl);
    }
    return tls;
}

void bh_tls_destroy(struct bh_tls *tls)
{
    if (tls != NULL) {
        /* OpenSSL marks a session that ends without close_notify as not resumable. A peer that
         * hangs up after the last reply proves nothing against the session. */
        if (tls->state == BH_TLS_UP || tls->state == BH_TLS_CLOSED) {
            SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        }
        SSL_free(tls->ssl);
        SSL_SESSION_free(tls->early);
        free((void *)(uintptr_t)tls->names.at);
        free(tls->pins);
        free(tls);
    }
}

void bh_tls_set_error(struct bh_tls *tls, const char *text)
{
    tls->error[0] = '\0';
    bh_tls_add_error(tls, text);
}

void bh_tls_add_error(struct bh_tls *tls, const char *text)
{
    bh_tls_put_text(tls->error, sizeof(tls->error), bh_slice_str(text));
}

static void fail(struct bh_tls *tls, const char *otherwise)
{
    bh_tls_explain_failure(tls, otherwise);
    tls->state = BH_TLS_FAILED;
}

int bh_tls_note_verify(int good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct bh_tls *tls = ssl != NULL ? SSL_get_ex_data(ssl, bh_tls_ex_index()) : NULL;
    if (good != 1 && tls != NULL && tls->verify_code == X509_V_OK) {
        tls->verify_code = X509_STORE_CTX_get_error(store);
        bh_tls_put_verify_error(tls->verify_text, sizeof(tls->verify_text), tls->verify_code,
                                X509_STORE_CTX_get_error_depth(store),
                                X509_STORE_CTX_get_current_cert(store));
    }
    /* OpenSSL keeps the first failure of a client that goes no further; a server's handshake would
     * end with it. */
    return tls != NULL && tls->client ? good : 1;
}

static void handshake_done(struct bh_tls *tls)
{
    bh_tls_judge(tls);
    if (tls->client) {
        bh_tls_keep_early(tls);
    }
    tls->state = BH_TLS_UP;
}

enum bh_tls_state bh_tls_handshake(struct bh_tls *tls)
{
    if (tls->state != BH_TLS_SHAKING) {
        return tls->state;
    }
    ERR_clear_error();
    const int result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        handshake_done(tls);
        return tls->state;
    }
    const int why = SSL_get_error(tls->ssl, result);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
        fail(tls, "handshake failed");
    }
    return tls->state;
}

enum bh_tls_state bh_tls_state(const struct bh_tls *tls)
{
    return tls->state;
}

enum bh_status bh_tls_feed(struct bh_tls *tls, struct bh_slice cipher)
{
    while (tls->first_len < TLS_FIRST_MAX && tls->first_len < cipher.len && !tls->fed) {
        tls->first[tls->first_len] = cipher.ptr[tls->first_len];
        tls->first_len++;
    }
    tls->fed = tls->fed || cipher.len > 0;
    while (cipher.len > 0) {
        const int n =
            BIO_write(tls->in, cipher.ptr, cipher.len < INT_MAX ? (int)cipher.len : INT_MAX);
        if (n <= 0) {
            fail(tls, "out of memory");
            return BH_ENOMEM;
        }
        cipher = bh_slice_skip(cipher, (size_t)n);
    }
    bh_tls_handshake(tls);
    return BH_OK;
}

enum bh_status bh_tls_read(struct bh_tls *tls, struct bh_buf *plain)
{
    if (tls->state == BH_TLS_SHAKING || (tls->state == BH_TLS_UP && bh_buf_room(plain) == 0)) {
        return BH_MORE;
    }
    if (tls->state != BH_TLS_UP) {
        return BH_EPROTO;
    }
    size_t n = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(tls->ssl, plain->ptr + plain->len, bh_buf_room(plain), &n);
    if (result == 1) {
        plain->len += n;
        return BH_OK;
    }
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return BH_MORE;
    case SSL_ERROR_ZERO_RETURN:
        tls->state = BH_TLS_CLOSED;
        return BH_EPROTO;
    default:
        fail(tls, "broken record");
        return BH_EPROTO;
    }
}

enum bh_status bh_tls_write(struct bh_tls *tls, struct bh_slice plain)
{
    if (tls->state == BH_TLS_SHAKING) {
        return BH_MORE;
    }
    if (tls->state == BH_TLS_FAILED || (tls->client && !tls->met)) {
        return BH_EPROTO;
    }
    if (plain.len == 0) {
        return BH_OK;
    }
    size_t n = 0;
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, plain.ptr, plain.len, &n) != 1 || n != plain.len) {
        fail(tls, "write failed"); /* memory takes all or there is none left */
        return BH_EPROTO;
    }
    return BH_OK;
}

void bh_tls_shutdown(struct bh_tls *tls)
{
    if (tls->state == BH_TLS_UP || tls->state == BH_TLS_CLOSED) {
        ERR_clear_error();
        SSL_shutdown(tls->ssl);
        ERR_clear_error();
    }
}

size_t bh_tls_pending(const struct bh_tls *tls)
{
    return BIO_ctrl_pending(tls->out);
}

size_t bh_tls_take(struct bh_tls *tls, struct bh_buf *out)
{
    const size_t before = out->len;
    while (bh_buf_room(out) > 0 && BIO_ctrl_pending(tls->out) > 0) {
        const size_t room = bh_buf_room(out);
        const int n = BIO_read(tls->out, out->ptr + out->len, room < INT_MAX ? (int)room : INT_MAX);
        if (n <= 0) {
            break;
        }
        out->len += (size_t)n;
    }
    return out->len - before;
}

const struct bh_tls_facts *bh_tls_facts(const struct bh_tls *tls)
{
    return &tls->facts;
}

struct bh_slice bh_tls_error(const struct bh_tls *tls)
{
    return bh_slice_str(tls->error);
}
