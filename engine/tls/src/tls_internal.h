/* tls_internal.h - what the files of the TLS room share. */
#pragma once

#include <openssl/ssl.h>
#include <sys/types.h>
#include <time.h>

#include "bh/map.h"
#include "bh/tls.h"

#define TLS_KEY_LEN (BH_TLS_DIGEST_LEN + 2 + 256) /* digest, port, host */
#define TLS_ERROR_MAX 256
#define TLS_PATH_MAX 1024
#define TLS_SERVER_FILES 3
#define TLS_FIRST_MAX 40
#define USAGE_TA 2 /* of TLSA records: an authority (RFC 6698 section 2.1.1) */
#define USAGE_EE 3 /* the certificate itself */

/* What stat(2) says of a file: when two differ, the file has to be read again. */
struct tls_stamp {
    bool there;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

/* The content of a file. */
struct tls_file {
    char *octets;
    size_t len;
    uint8_t digest[BH_TLS_DIGEST_LEN];
};

enum tls_client_file { TLS_FILE_CA, TLS_FILE_CERTIFICATE, TLS_FILE_KEY };
#define TLS_CLIENT_FILES 3
#define TLS_CONTEXT_KEY_MAX ((size_t)TLS_CLIENT_FILES * TLS_PATH_MAX)

/* The files that a demand names, and the SSL_CTX made of them. */
struct tls_context {
    struct bh_map_node node;
    struct tls_context *next;
    char paths[TLS_CLIENT_FILES][TLS_PATH_MAX]; /* "": none; for the CA: the system's */
    struct tls_stamp stamps[TLS_CLIENT_FILES];
    uint64_t system_version; /* of the system's authorities */
    uint8_t ca_digest[BH_TLS_DIGEST_LEN], certificate_digest[BH_TLS_DIGEST_LEN]; /* contents */
    SSL_CTX *ctx;          /* NULL unless status is BH_OK */
    enum bh_status status; /* BH_EIO: error says what is wrong */
    uint64_t checked_ms, used_ms;
    size_t error_len;
    char error[TLS_ERROR_MAX];
    char key[TLS_CONTEXT_KEY_MAX];
};

/* One session that may be resumed: by the demand it met, the host and the port. */
struct tls_resume {
    struct bh_map_node node;
    struct tls_resume *newer, *older;
    SSL_SESSION *session;
    struct bh_tls_facts facts; /* of its first handshake */
    int64_t valid_until_unix;  /* the certificates behind those facts end then */
    uint64_t until_ms;         /* monotonic; not resumed later */
    size_t key_len;
    char key[TLS_KEY_LEN];
};

struct bh_tls_worker {
    struct bh_map contexts;
    struct tls_context *contexts_first;
    uint64_t generation; /* of the last session: with a new one files are looked at */
    uint32_t resume_max;
    struct bh_map resume;
    struct tls_resume *newest, *oldest;
};

struct bh_tls_server_ctx {
    SSL_CTX *ctx;
    struct tls_stamp stamps[TLS_SERVER_FILES];
    char paths[TLS_SERVER_FILES][TLS_PATH_MAX];
};

struct bh_tls {
    SSL *ssl;
    BIO *in, *out; /* memory; owned by ssl */
    enum bh_tls_state state;
    bool client;
    bool asks_client;             /* of servers */
    struct bh_tls_worker *worker; /* of clients, as all below */
    uint64_t connection, generation;
    uint8_t digest[BH_TLS_DIGEST_LEN];
    size_t key_len; /* 0: never resumed */
    char key[TLS_KEY_LEN];
    char host[256];
    enum bh_tls_mode mode;
    struct bh_names names; /* accepted, in one piece of memory; owned */
    uint8_t (*pins)[BH_PIN_LEN];
    size_t pins_count;

    int verify_code;                     /* the chain's first failure; X509_V_OK: none (yet) */
    char verify_text[BH_TLS_REASON_MAX]; /* it in words */
    bool certificate_wanted;             /* the peer asked for one, and we have none */
    bool met;                            /* the handshake met the demand; see tls_judge.c */
    bool key_alone;                      /* by its key; dates do not count */
    int64_t valid_until_unix;            /* end of the certificates that were relied on */
    SSL_SESSION *early;                  /* to be kept, if the demand is met; owned */
    bool has_prior;                      /* it was asked to resume: */
    uint64_t prior_until_ms;             /* when what it goes back to is too old */
    struct bh_tls_facts prior;           /* facts of the handshake to go back to */

    struct bh_tls_facts facts;
    bool fed;
    size_t first_len;
    char first[TLS_FIRST_MAX]; /* what the peer began with */
    char error[TLS_ERROR_MAX];
};

/** The session to resume, or NULL; good until the next call that takes this worker. One past its
 * age or the end of its certificates is not found. */
const struct tls_resume *bh_tls_resume_find(struct bh_tls_worker *worker, struct bh_slice key);
/** Keep it under tls->key with the facts of tls (one reference is taken over on true), pushing out
 * the oldest. */
bool bh_tls_resume_keep(struct bh_tls_worker *worker, const struct bh_tls *tls,
                        SSL_SESSION *session);
void bh_tls_resume_clear(struct bh_tls_worker *worker);
/** The index under which an SSL knows its bh_tls; -1: none could be had. */
int bh_tls_ex_index(void);
/** OpenSSL's number for a version; 0: no bound. */
int bh_tls_version_number(enum bh_tls_version version);
/** A session around an SSL of this context; takes no reference. @return NULL for want of memory */
struct bh_tls *bh_tls_wrap(SSL_CTX *ctx, bool client);
/** Verify callback for either side: note the first failure, with depth and certificate. It is
 * judged after the handshake, and here ends nothing. */
int bh_tls_note_verify(int good, X509_STORE_CTX *store);

/* tls_files.c */
/** A path of length 0, or a file that is not there: .there is false. */
struct tls_stamp bh_tls_stamp(struct bh_slice path);
bool bh_tls_stamp_eq(const struct tls_stamp *a, const struct tls_stamp *b);
/** "what path: why", appended (cut). */
void bh_tls_explain(struct bh_buf *error, const char *what, struct bh_slice path, const char *why);
/** Read a file of at most 4 MiB. @return BH_OK; BH_EIO: explained; BH_ENOMEM */
enum bh_status bh_tls_file_read(struct tls_file *file, const char *what, struct bh_slice path,
                                struct bh_buf *error);
/** Wipe it: it may be a key. A zeroed one is fine. */
void bh_tls_file_drop(struct tls_file *file);
/** The leaf and what follows it. @return BH_OK; BH_EIO: explained; BH_ENOMEM */
enum bh_status bh_tls_use_chain(SSL_CTX *ctx, const struct tls_file *file, struct bh_slice path,
                                struct bh_buf *error);
/** The key of the certificate that ctx has. @return as above */
enum bh_status bh_tls_use_key(SSL_CTX *ctx, const struct tls_file *file, struct bh_slice path,
                              struct bh_buf *error);
/** Authorities: every certificate of the file. @return as above */
enum bh_status bh_tls_store_of(const struct tls_file *file, struct bh_slice path,
                               X509_STORE **store, struct bh_buf *error);

/* tls_facts.c */
/** Append to a text ended by NUL, printable, cut to `cap` octets with the NUL. */
void bh_tls_put_text(char *text, size_t cap, struct bh_slice s);
void bh_tls_put_hex(char *text, size_t cap, const uint8_t *octets, size_t len);
/** The common name, else the whole. */
void bh_tls_put_name(char *text, size_t cap, const X509_NAME *name);
/** Seconds; 0: not a time. */
int64_t bh_tls_unix_time(const ASN1_TIME *when);
/** SHA-256 of the SubjectPublicKeyInfo. */
bool bh_tls_spki(const X509 *certificate, uint8_t digest[BH_PIN_LEN]);
/** Names, issuer, end, key. */
void bh_tls_learn_certificate(struct bh_tls_facts *facts, const X509 *certificate);
/** Replace `text` with what failed: "certificate expired 2026-01-01 (depth 1: Some CA)".
 * @param certificate  the one it failed for, or NULL */
void bh_tls_put_verify_error(char *text, size_t cap, int error, int depth, const X509 *certificate);

/* tls_context.c */
/** The context of the demand's files. @return BH_OK; BH_EIO: explained; BH_ENOMEM */
enum bh_status bh_tls_context_of(struct bh_tls_worker *worker, const struct bh_tls_demand *demand,
                                 struct tls_context **context, struct bh_buf *error);
/** Of the demand, with the contents of its files. */
enum bh_status bh_tls_context_digest(const struct tls_context *context,
                                     const struct bh_tls_demand *demand,
                                     uint8_t digest[BH_TLS_DIGEST_LEN]);
void bh_tls_contexts_clear(struct bh_tls_worker *worker);

/* tls_client.c */
/** OpenSSL's callback: a session that can be resumed. */
int bh_tls_on_new_session(SSL *ssl, SSL_SESSION *session);
/** The demand has been judged: keep or drop what came before that. */
void bh_tls_keep_early(struct bh_tls *tls);

/* tls_judge.c */
/** The handshake is done: fill the facts, decide `met`. */
void bh_tls_judge(struct bh_tls *tls);
/** Copied to one piece of memory, to be freed by its `at`. @param good  false: no memory */
struct bh_names bh_tls_names_copy(const struct bh_names *names, bool *good);
/** Has the certificate this name (".suffix": any below it; an address)? RFC 9525 section 6. */
bool bh_tls_certificate_names(const X509 *certificate, struct bh_slice name);

/* tls_failure.c, tls.c */
/** Put why it failed into tls->error, from OpenSSL's error queue. */
void bh_tls_explain_failure(struct bh_tls *tls, const char *otherwise);
void bh_tls_set_error(struct bh_tls *tls, const char *text);
void bh_tls_add_error(struct bh_tls *tls, const char *text);
