/* tls_internal.h - what the files of the TLS room share. */
#pragma once

#include <openssl/ssl.h>

#include "bh/map.h"
#include "bh/tls.h"

#define TLS_KEY_LEN (BH_TLS_DIGEST_LEN + 2 + 256) /* digest, port, host */
#define TLS_ERROR_MAX 200

/* One session that may be resumed: by the demand it met, the host and the port. */
struct tls_resume {
    struct bh_map_node node;
    struct tls_resume *newer, *older;
    SSL_SESSION *session;
    size_t key_len;
    char key[TLS_KEY_LEN];
};

struct bh_tls_worker {
    SSL_CTX *ctx; /* of clients */
    uint32_t resume_max;
    struct bh_map resume;
    struct tls_resume *newest, *oldest;
};

struct bh_tls_server_ctx {
    SSL_CTX *ctx;
};

struct bh_tls {
    SSL *ssl;
    BIO *in, *out; /* memory; owned by ssl */
    enum bh_tls_state state;
    bool client;
    struct bh_tls_worker *worker; /* of clients */
    uint64_t connection, generation;
    uint8_t digest[BH_TLS_DIGEST_LEN];
    size_t key_len; /* 0: never resumed */
    char key[TLS_KEY_LEN];
    char host[256];
    bool met; /* the handshake met the demand */
    struct bh_tls_facts facts;
    size_t error_len;
    char error[TLS_ERROR_MAX];
};

/** The session to resume, or NULL; the cache keeps its own reference. */
SSL_SESSION *bh_tls_resume_find(struct bh_tls_worker *worker, struct bh_slice key);
/** Keep it (one reference is taken over on true), pushing out the oldest. */
bool bh_tls_resume_keep(struct bh_tls_worker *worker, struct bh_slice key, SSL_SESSION *session);
void bh_tls_resume_clear(struct bh_tls_worker *worker);
/** The index under which an SSL knows its bh_tls; -1: none could be had. */
int bh_tls_ex_index(void);
/** OpenSSL's number for a version; 0: no bound. */
int bh_tls_version_number(enum bh_tls_version version);
/** A session around an SSL of this context; takes no reference. @return NULL for want of memory */
struct bh_tls *bh_tls_wrap(SSL_CTX *ctx, bool client);
