/* server_internal.h - what the files of the server core share: smtp_server.c (its face and the
 * order of things), server_command.c (one function a command), server_auth.c (AUTH), server_txn.c
 * (transactions and their memory), server_reply.c (replies in order). */
#pragma once

#include "bh/smtp_server.h"

/* Room for replies, in octets: the longest (EHLO), the answer to a commit, and the last one. */
#define REPLY_ROOM 1024
#define COMMIT_ROOM 128
#define LAST_ROOM 256

/* --- server_reply.c --- */

/** Append a reply, without its CRLF. A 5xx counts as an error of the client; one too many turns
 * into 421 and ends the session. */
void bh_server_reply(struct bh_server *s, const char *text);
/** The reply to EHLO. */
void bh_server_reply_ehlo(struct bh_server *s);
/** The last reply: then the session closes. An open transaction is discarded. */
void bh_server_reply_last(struct bh_server *s, const char *text);
/** 250 with the queue id, where the reply of `txn` belongs. */
void bh_server_reply_commit(struct bh_server *s, struct bh_server_txn *txn,
                            enum bh_server_commit result, uint64_t queue_id);
/** The text for a result that is not BH_SERVER_COMMITTED. */
const char *bh_server_commit_text(enum bh_server_commit result);
/** The text for refused content. */
const char *bh_server_fault_text(enum bh_content_fault fault);
/** Octets that may be sent now: what precedes the first answer still owed. */
size_t bh_server_sendable(const struct bh_server *s);
/** True if any one command's reply fits. */
bool bh_server_reply_fits(const struct bh_server *s);
/** Drop what the last WRITE lent. */
void bh_server_reply_sent(struct bh_server *s);

/* --- server_command.c --- */

/** Carry out one line, without its CRLF. */
void bh_server_command(struct bh_server *s, struct bh_slice line);

/* --- server_auth.c --- */

/** AUTH (RFC 4954 section 4). */
void bh_server_auth_command(struct bh_server *s, struct bh_slice args);
/** A line of the exchange, without its CRLF. */
void bh_server_auth_response(struct bh_server *s, struct bh_slice line);
/** A refusal waits for its time. */
bool bh_server_auth_delayed(const struct bh_server *s);
/** Tell it. */
void bh_server_auth_denied(struct bh_server *s);

/* --- server_txn.c --- */

/** A transaction for MAIL: s->open. @return false without memory */
bool bh_server_txn_open(struct bh_server *s);
/** Add a recipient, or merge it into the same one. @return BH_OK, BH_ELIMIT (too many), BH_ENOMEM
 */
BH_MUST_USE enum bh_status bh_server_txn_recipient(struct bh_server *s,
                                                   const struct bh_recipient *recipient);
/** Drop the open transaction, telling the driver if it knows it. */
void bh_server_txn_discard(struct bh_server *s);
/** The end of the open transaction's content: hand it to the driver. */
void bh_server_txn_deliver(struct bh_server *s);
/** Take a transaction back into use, or free it. */
void bh_server_txn_recycle(struct bh_server *s, struct bh_server_txn *txn);
void bh_server_txn_free(struct bh_server_txn *txn);
