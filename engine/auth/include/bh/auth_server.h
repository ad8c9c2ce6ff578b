/* auth_server.h - the server's side of AUTH (RFC 4954): a file of users, and the exchanges that are
 * judged by it: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, 7677).
 *
 * The file has a line for each user, or two where both forms are there. Blank lines and lines that
 * start with # are skipped.
 *     NAME:$HASH                                   as crypt(3) makes and checks them
 *     NAME:{SCRAM-SHA-256}ITERATIONS,SALT,STORED-KEY,SERVER-KEY       the latter three in base64
 * PLAIN and LOGIN are checked by either form. SCRAM-SHA-256 is offered only if every user has the
 * keys for it: a client takes the strongest mechanism offered, whoever it is.
 *
 * crypt(3) is slow on purpose: call bh_auth_step where nobody waits for the thread. */
#pragma once

#include "bh/smtp_server.h"

#define BH_AUTH_MECHANISMS_MAX 64 /* octets of a list of mechanisms */
#define BH_AUTH_SCRAM_KEY 32      /* octets of SHA-256 */
#define BH_AUTH_DECODED_MAX 3072  /* octets of a response, base64 taken off */

struct bh_auth_users;  /* one reading of a file; immutable, counted */
struct bh_auth_source; /* a file, followed as it changes on disk; any thread */

/** Read the text of a file.
 * @param error  appended to (cut): the line and what is wrong with it; never a secret
 * @return BH_OK, BH_EINVAL, BH_ENOMEM */
BH_MUST_USE enum bh_status bh_auth_users_parse(struct bh_slice text, struct bh_auth_users **users,
                                               struct bh_buf *error);
/** Give one reference back; the last wipes and frees it. NULL is fine. Any thread. */
void bh_auth_users_unref(struct bh_auth_users *users);
size_t bh_auth_users_count(const struct bh_auth_users *users);

/** Follow a file. It is read now, and again by bh_auth_source_get when it has changed. A file that
 * cannot be read or has a fault is logged, and leaves what was read before in force.
 * @return NULL for want of memory */
struct bh_auth_source *bh_auth_source_create(struct bh_slice path);
/** Nobody may be using it. NULL is fine. */
void bh_auth_source_destroy(struct bh_auth_source *source);
struct bh_slice bh_auth_source_path(const struct bh_auth_source *source);
/** The users of the file as it is now. Asks stat(2), and may read the file: where nobody waits.
 * @return a reference; NULL: it was never good */
struct bh_auth_users *bh_auth_source_get(struct bh_auth_source *source);
/** What to offer by the last reading: "SCRAM-SHA-256 PLAIN LOGIN", or without the first. Touches no
 * disk. */
void bh_auth_source_mechanisms(struct bh_auth_source *source, char list[BH_AUTH_MECHANISMS_MAX]);

enum bh_auth_exchange_state {
    BH_EXCHANGE_IDLE,
    BH_EXCHANGE_PLAIN,       /* the response is awaited */
    BH_EXCHANGE_LOGIN_USER,  /* the name is awaited */
    BH_EXCHANGE_LOGIN_PASS,  /* the password is awaited */
    BH_EXCHANGE_SCRAM_FIRST, /* client-first-message is awaited */
    BH_EXCHANGE_SCRAM_FINAL, /* client-final-message is awaited */
    BH_EXCHANGE_SCRAM_END,   /* the proof was good: an empty response ends it */
};

/** One exchange; all private. Zeroed is ready. Wipe it with OPENSSL_cleanse when the session ends.
 */
struct bh_auth_exchange {
    enum bh_auth_exchange_state state;
    uint16_t user_len;
    uint16_t scram_len; /* "client-first-message-bare,server-first-message" */
    uint16_t nonce_at;  /* in `scram`: the nonce of both sides */
    uint16_t nonce_len;
    uint8_t header_len; /* of the GS2 header */
    bool known;         /* the user has SCRAM keys */
    char header[32];
    char user[BH_SERVER_USER_MAX];
    char scram[1536];
    uint8_t stored_key[BH_AUTH_SCRAM_KEY];
    uint8_t server_key[BH_AUTH_SCRAM_KEY];
};

/** Judge one response.
 *
 * @param users        by which; NULL: BH_SERVER_AUTH_FAILED
 * @param mechanism    begins an exchange by it; empty: goes on
 * @param response     base64
 * @param no_response  it begins without an initial response
 * @param challenge    room for BH_SERVER_CHALLENGE_MAX octets: MORE sets it, base64
 * @return the verdict; of GRANTED the user is bh_auth_exchange_user */
enum bh_server_verdict bh_auth_step(struct bh_auth_exchange *e, const struct bh_auth_users *users,
                                    struct bh_slice mechanism, struct bh_slice response,
                                    bool no_response, struct bh_buf *challenge);
/** Who it is about, as the client says; empty before it said. */
struct bh_slice bh_auth_exchange_user(const struct bh_auth_exchange *e);

/** A line of the file for this user: with crypt(3)'s preferred hash, or with SCRAM keys.
 * @param name  without ':' and control characters
 * @return BH_OK, BH_EINVAL (name), BH_ELIMIT (no room), BH_EIO (no hash or random octets) */
BH_MUST_USE enum bh_status bh_auth_line_crypt(struct bh_slice name, struct bh_slice password,
                                              struct bh_buf *line);
BH_MUST_USE enum bh_status bh_auth_line_scram(struct bh_slice name, struct bh_slice password,
                                              struct bh_buf *line);
