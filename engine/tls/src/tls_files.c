/* PEM files: read whole, then parsed from memory, so that what is digested is what is used. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/unreadable.h"
#include "tls_internal.h"

#define FILE_MAX ((size_t)4 * 1024 * 1024) /* a bundle of all public authorities is 220 KB */

struct tls_stamp bh_tls_stamp(struct bh_slice path)
{
    struct stat st;
    if (path.len == 0 || stat(path.ptr, &st) != 0) {
        return (struct tls_stamp){.there = false};
    }
    return (struct tls_stamp){.there = true,
                              .device = st.st_dev,
                              .inode = st.st_ino,
                              .size = st.st_size,
                              .modified = st.st_mtim,
                              .changed = st.st_ctim};
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool bh_tls_stamp_eq(const struct tls_stamp *a, const struct tls_stamp *b)
{
    return a->there == b->there &&
           (!a->there ||
            (a->device == b->device && a->inode == b->inode && a->size == b->size &&
             same_time(a->modified, b->modified) && same_time(a->changed, b->changed)));
}

void bh_tls_explain(struct bh_buf *error, const char *what, struct bh_slice path, const char *why)
{
    const struct bh_slice parts[] = {bh_slice_str(what), BH_LIT(" "), path, BH_LIT(": "),
                                     bh_slice_str(why)};
    for (size_t i = 0; i < BH_COUNT(parts); i++) {
        bh_buf_add_cut(error, parts[i]);
    }
}

/* OpenSSL's own reason, or ours where it has none. */
static void explain_ssl(struct bh_buf *error, const char *what, struct bh_slice path,
                        const char *otherwise)
{
    const unsigned long code = ERR_peek_last_error();
    /* "unsupported" is what OpenSSL calls a file of anything else. */
    const bool none = code == 0 || ERR_GET_REASON(code) == PEM_R_NO_START_LINE ||
                      ERR_GET_REASON(code) == ERR_R_UNSUPPORTED;
    const char *reason = none ? NULL : ERR_reason_error_string(code);
    bh_tls_explain(error, what, path, reason != NULL ? reason : otherwise);
    ERR_clear_error();
}

static enum bh_status read_all(int fd, struct tls_file *file, const char **why)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        *why = "not a regular file";
        return BH_EIO;
    }
    if (st.st_size < 0 || (size_t)st.st_size > FILE_MAX) {
        *why = "too large";
        return BH_EIO;
    }
    const size_t cap = (size_t)st.st_size;
    file->octets = malloc(cap + 1);
    if (file->octets == NULL) {
        return BH_ENOMEM;
    }
    while (file->len < cap) {
        const ssize_t n = read(fd, file->octets + file->len, cap - file->len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            *why = strerror(errno);
            return BH_EIO;
        }
        if (n == 0) {
            break;
        }
        file->len += (size_t)n;
    }
    return BH_OK;
}

enum bh_status bh_tls_file_read(struct tls_file *file, const char *what, struct bh_slice path,
                                struct bh_buf *error)
{
    *file = (struct tls_file){.octets = NULL};
    const int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char text[BH_UNREADABLE_MAX];
    const char *why = fd < 0 ? bh_unreadable(path.ptr, errno, text) : "cannot be read";
    enum bh_status status = fd < 0 ? BH_EIO : read_all(fd, file, &why);
    if (fd >= 0) {
        close(fd);
    }
    unsigned len = 0;
    if (status == BH_OK &&
        (EVP_Digest(file->octets, file->len, file->digest, &len, EVP_sha256(), NULL) != 1 ||
         len != BH_TLS_DIGEST_LEN)) {
        status = BH_ENOMEM;
    }
    if (status == BH_EIO) {
        bh_tls_explain(error, what, path, why);
    }
    if (status != BH_OK) {
        bh_tls_file_drop(file);
    }
    return status;
}

void bh_tls_file_drop(struct tls_file *file)
{
    if (file->octets != NULL) {
        OPENSSL_cleanse(file->octets, file->len);
        free(file->octets);
    }
    *file = (struct tls_file){.octets = NULL};
}

static BIO *bio_of(const struct tls_file *file)
{
    return BIO_new_mem_buf(file->len > 0 ? file->octets : "", (int)file->len);
}

/* Never ask a terminal: a key under a passphrase can't be used. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* The next certificate, or NULL with *bad telling the end from a broken one. */
static X509 *next_certificate(BIO *bio, bool *bad)
{
    ERR_clear_error();
    X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
    const unsigned long code = ERR_peek_last_error();
    *bad = certificate == NULL &&
           !(ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE);
    return certificate;
}

static enum bh_status use_chain(SSL_CTX *ctx, BIO *bio, struct bh_slice path, struct bh_buf *error)
{
    bool bad = false;
    bool good = true;
    size_t count = 0;
    X509 *certificate = next_certificate(bio, &bad);
    while (certificate != NULL && good) {
        good = count == 0 ? SSL_CTX_use_certificate(ctx, certificate) == 1
                          : SSL_CTX_add1_chain_cert(ctx, certificate) == 1;
        count++;
        X509_free(certificate);
        certificate = good ? next_certificate(bio, &bad) : NULL;
    }
    if (count == 0 || bad || !good) {
        explain_ssl(error, "certificate", path, "holds no PEM certificate");
        return BH_EIO;
    }
    ERR_clear_error();
    return BH_OK;
}

enum bh_status bh_tls_use_chain(SSL_CTX *ctx, const struct tls_file *file, struct bh_slice path,
                                struct bh_buf *error)
{
    BIO *bio = bio_of(file);
    const enum bh_status status = bio != NULL ? use_chain(ctx, bio, path, error) : BH_ENOMEM;
    BIO_free(bio);
    return status;
}

enum bh_status bh_tls_use_key(SSL_CTX *ctx, const struct tls_file *file, struct bh_slice path,
                              struct bh_buf *error)
{
    BIO *bio = bio_of(file);
    if (bio == NULL) {
        return BH_ENOMEM;
    }
    ERR_clear_error();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    enum bh_status status = BH_OK;
    if (key == NULL) {
        explain_ssl(error, "key", path, "holds no PEM private key");
        status = BH_EIO;
    } else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        bh_tls_explain(error, "key", path, "does not belong to the certificate");
        status = BH_EIO;
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return status;
}

static enum bh_status fill_store(X509_STORE *store, BIO *bio, struct bh_slice path,
                                 struct bh_buf *error)
{
    bool bad = false;
    bool good = true;
    size_t count = 0;
    for (X509 *certificate = next_certificate(bio, &bad); certificate != NULL && good;
         certificate = good ? next_certificate(bio, &bad) : NULL) {
        good = X509_STORE_add_cert(store, certificate) == 1;
        X509_free(certificate);
        count++;
    }
    if (count == 0 || bad || !good) {
        explain_ssl(error, "CA file", path, "holds no PEM certificate");
        return BH_EIO;
    }
    ERR_clear_error();
    return BH_OK;
}

enum bh_status bh_tls_store_of(const struct tls_file *file, struct bh_slice path,
                               X509_STORE **store, struct bh_buf *error)
{
    BIO *bio = bio_of(file);
    X509_STORE *new = X509_STORE_new();
    enum bh_status status = BH_ENOMEM;
    if (bio != NULL && new != NULL) {
        status = fill_store(new, bio, path, error);
    }
    BIO_free(bio);
    if (status != BH_OK) {
        X509_STORE_free(new);
        return status;
    }
    *store = new;
    return BH_OK;
}
