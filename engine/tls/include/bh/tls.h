/* tls.h - TLS over memory, and clearances. Ciphertext goes in, plain text comes out, and the other
 * way round; no socket is touched here. One thread a worker: a worker, its contexts and sessions
 * stay on the thread that made them.
 *
 * A *clearance* says that one connection, under one configuration generation, has met one TLS
 * demand (or needs none). It is made here and nowhere else; the one function that writes mail to
 * sockets checks it. */
#pragma once

#include "bh/buf.h"
#include "bh/outcome.h"
#include "bh/tls_demand.h"

#define BH_TLS_DIGEST_LEN 32      /* SHA-256 */
#define BH_TLS_PENDING_MAX 262144 /* octets of ciphertext waiting; above it, stop writing */

struct bh_tls_worker;     /* contexts, resumption cache */
struct bh_tls_server_ctx; /* certificate and key of listeners */
struct bh_tls;            /* one session, either side */
struct bh_clearance;

/** @param resume_max TLS sessions kept for resumption @return NULL for want of memory */
struct bh_tls_worker *bh_tls_worker_create(uint32_t resume_max);
/** All its sessions must be gone. NULL is fine. */
void bh_tls_worker_destroy(struct bh_tls_worker *worker);

/** Look at every file that demands name (CA, client certificate, key) and at the system's
 * authorities, and read anew what has changed. Asks stat(2) for each; call it every minute or so. A
 * session of a generation not seen before does it, too.
 * @return how many sets of files were taken up */
size_t bh_tls_worker_refresh(struct bh_tls_worker *worker);

/** SHA-256 over the canonical octets of the demand. Files count by path. */
BH_MUST_USE enum bh_status bh_tls_demand_digest(const struct bh_tls_demand *demand,
                                                uint8_t digest[BH_TLS_DIGEST_LEN]);
/** With the contents of its files, as a session made now would be held to it: what clearances for
 * TLS are bound to. Where the demand names no file (and is not verify), the same as
 * bh_tls_demand_digest.
 * @param error  appended to (cut): which file is bad, and how
 * @return BH_OK; BH_EIO: a file is bad; BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_worker_digest(struct bh_tls_worker *worker,
                                                const struct bh_tls_demand *demand,
                                                uint8_t digest[BH_TLS_DIGEST_LEN],
                                                struct bh_buf *error);

/* ---- sessions ---- */

enum bh_tls_state {
    BH_TLS_SHAKING, /* handshake under way */
    BH_TLS_UP,
    BH_TLS_CLOSED, /* the peer said close_notify */
    BH_TLS_FAILED, /* for good; see bh_tls_error */
};

struct bh_tls_client_params {
    const struct bh_tls_demand *demand; /* borrowed for the call */
    struct bh_slice host;               /* next hop, for SNI and the resumption key */
    uint16_t port;
    uint64_t connection; /* an id that is never used again in this process; not 0 */
    uint64_t generation; /* of the configuration */
    bool small_hello; /* few ciphers and groups, no ticket: for peers that choke on a large one */
};

/** @param error  appended to (cut): what is wrong with what is ours, with the file
 * @return BH_OK
 *         BH_EINVAL  the demand can't be enforced: it is not effective, its ciphers are unknown ...
 *         BH_EIO     a file of ours (CA, client certificate, key) is unreadable or bad
 *         BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_client_create(struct bh_tls_worker *worker,
                                                const struct bh_tls_client_params *params,
                                                struct bh_tls **tls, struct bh_buf *error);

/** Every path is NUL-terminated behind its slice. */
struct bh_tls_server_params {
    struct bh_slice certificate, key; /* PEM files */
    enum bh_tls_version min_version;  /* NONE: 1.2 */
    bool ask_client;           /* ask for a client certificate; none, or a bad one, fails nothing:
                                  look at the facts */
    struct bh_slice client_ca; /* PEM file, with ask_client: who may have signed it; empty: nobody,
                                  so that only facts.spki says who it is */
};

/** Load a certificate chain and its key. Sessions hold a reference, so that a new context can take
 * its place at any time; any thread may make sessions from it, one at a time.
 * @param error  appended to (cut): what was wrong, with the file
 * @return BH_OK, BH_EINVAL (file, key or match), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_server_ctx_create(const struct bh_tls_server_params *params,
                                                    struct bh_tls_server_ctx **ctx,
                                                    struct bh_buf *error);
void bh_tls_server_ctx_destroy(struct bh_tls_server_ctx *ctx);
/** Has one of its files changed on disk since it was loaded (or gone away)? Asks stat(2). */
bool bh_tls_server_ctx_stale(const struct bh_tls_server_ctx *ctx);
/** @return NULL for want of memory */
struct bh_tls *bh_tls_server_create(struct bh_tls_server_ctx *ctx);

/** NULL is fine. */
void bh_tls_destroy(struct bh_tls *tls);

/** Take ciphertext from the socket, all of it, and go on with the handshake.
 * @return BH_OK or BH_ENOMEM. Then look at bh_tls_state, take ciphertext, read. */
BH_MUST_USE enum bh_status bh_tls_feed(struct bh_tls *tls, struct bh_slice cipher);
/** Start or go on with the handshake; a client calls it once to get its first flight. */
enum bh_tls_state bh_tls_handshake(struct bh_tls *tls);
enum bh_tls_state bh_tls_state(const struct bh_tls *tls);
/** Append plain text to the room there is.
 * @return BH_OK: something came, call again; BH_MORE: nothing until more is fed (or no room);
 *         BH_EPROTO: the session failed or was closed; see bh_tls_state */
BH_MUST_USE enum bh_status bh_tls_read(struct bh_tls *tls, struct bh_buf *plain);
/** Encrypt all of it. A client's session that did not meet its demand takes nothing.
 * @return BH_OK, BH_MORE (not up yet), BH_EPROTO (failed, or the demand is not met), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_tls_write(struct bh_tls *tls, struct bh_slice plain);
/** Queue close_notify. */
void bh_tls_shutdown(struct bh_tls *tls);
/** Octets of ciphertext that wait for the socket. */
size_t bh_tls_pending(const struct bh_tls *tls);
/** Move ciphertext to the room of `out`. @return octets moved */
size_t bh_tls_take(struct bh_tls *tls, struct bh_buf *out);

#define BH_TLS_REASON_MAX 160
#define BH_TLS_PROOF_MAX 256
#define BH_TLS_NAMES_MAX 512
#define BH_TLS_ISSUER_MAX 160

/** What the handshake showed, good for as long as the session. Texts are printable ASCII, ended by
 * NUL and cut to their room; what the peer wrote into its certificate and is not printable is '?'.
 * A resumed session has the facts of the handshake that it goes back to. */
struct bh_tls_facts {
    const char *version; /* "TLSv1.3", static; "" before the handshake */
    const char *cipher;  /* static */
    bool resumed;
    bool verified;     /* chain to an authority: the demand's with verify and dane, else the
                          system's; computed in every mode */
    bool name_matched; /* the certificate has an accepted name (demand's, or the host's) */
    /** The demand asked for proof of who the peer is and got it; or it asked for none, and the
     * peer would have met `verify` with the system's authorities and the host's name. Of a
     * server's session: it asked for a client certificate, and its chain is good. */
    bool peer_authenticated;
    bool has_certificate;
    char verify_error[BH_TLS_REASON_MAX]; /* why not verified, or not named: "certificate expired
                                             2026-01-01", "name mismatch: certificate names
                                             a.example"; "" if it is both */
    char proof[BH_TLS_PROOF_MAX];   /* what an authenticated peer was known by: "name mx.example,
                                       CA Example Root", "pin ab12...", "TLSA 3 1 1 ab12..." */
    char names[BH_TLS_NAMES_MAX];   /* of the leaf, parted by ", " */
    char issuer[BH_TLS_ISSUER_MAX]; /* of the leaf: its common name, else the whole */
    int64_t not_after_unix;         /* of the leaf; 0: unknown */
    bool has_spki;
    uint8_t spki[BH_PIN_LEN]; /* SHA-256 of the peer's SubjectPublicKeyInfo */
};
const struct bh_tls_facts *bh_tls_facts(const struct bh_tls *tls);
/** Why it failed, or is up but has not met its demand, for people; borrowed from the session. */
struct bh_slice bh_tls_error(const struct bh_tls *tls);

/* ---- clearances ---- */

/** The clearance of a client session whose handshake is up and met the demand.
 * @return NULL otherwise. Destroy it when the connection ends. */
struct bh_clearance *bh_clearance_of_tls(const struct bh_tls *tls);
/** The grant for clear text: only for off and opportunistic without implicit TLS. It is bound to
 * bh_tls_demand_digest.
 * @return NULL for any other demand, or for want of memory */
struct bh_clearance *bh_clearance_plain(const struct bh_tls_demand *demand, uint64_t connection,
                                        uint64_t generation);
/** Wipes it. NULL is fine. */
void bh_clearance_destroy(struct bh_clearance *clearance);
/** True only for a clearance made here, at this address, and for exactly these. NULL, zeroed,
 * copied or altered ones are false, in release builds too. */
bool bh_clearance_valid(const struct bh_clearance *clearance, uint64_t connection,
                        uint64_t generation, const uint8_t digest[BH_TLS_DIGEST_LEN]);
/** Was it granted for TLS (not for clear text)? */
bool bh_clearance_is_tls(const struct bh_clearance *clearance);
/** Did the demand ask who the peer is (verify, pin, dane), and has the peer proven it? Credentials
 * go under no other one. A peer that happens to have a good certificate under a demand that asks
 * for none is not authenticated: its name may have come from anybody. */
bool bh_clearance_is_authenticated(const struct bh_clearance *clearance);
