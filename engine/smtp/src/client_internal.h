/* client_internal.h - what the files of the client core share. */
#pragma once

#include "bh/smtp_client.h"

/* Room that the longest command needs: RCPT with NOTIFY and ORCPT. */
#define BH_COMMAND_MAX 1536

_Static_assert(BH_COMMAND_MAX > BH_ADDRESS_MAX + BH_ORCPT_MAX + BH_ENVID_MAX + 128,
               "a command fits");
_Static_assert(BH_CLIENT_OUT_MIN >= BH_COMMAND_MAX, "scratch holds a command");
_Static_assert(BH_CLIENT_EXPECT_MAX > 2 * (BH_CLIENT_RECIPIENTS_MAX + 3), "two groups fit");

/* Where a recipient stands in its attempt (bh_client_result.step). */
enum bh_rcpt_step {
    BH_RCPT_NEW,      /* not asked for in a round that counts */
    BH_RCPT_ASKED,    /* RCPT was handed out */
    BH_RCPT_ACCEPTED, /* 2xx; the reply to the dot decides */
    BH_RCPT_AGAIN,    /* "too many recipients": once more, if this round gets others through */
    BH_RCPT_DECIDED,
};

static inline bool bh_client_has(const struct bh_client *c, uint32_t extension)
{
    return (c->facts.ehlo.extensions & extension) != 0;
}

/** An outcome of this session, without text. */
struct bh_outcome bh_client_outcome(const struct bh_client *c, enum bh_stage stage,
                                    enum bh_happened happened);
/** An outcome from a reply; its text goes to `text` (cut). */
struct bh_outcome bh_client_reply_outcome(const struct bh_client *c, enum bh_stage stage,
                                          const struct bh_reply *reply, struct bh_buf *text);
/** The stage that the session is in: of the reply it waits for, or of what it sends. */
enum bh_stage bh_client_stage(const struct bh_client *c);
/** The session is over: no more commands; DONE, QUIT where it makes sense, CLOSE follow. */
void bh_client_end(struct bh_client *c, const struct bh_outcome *outcome, bool graceful);
/** The session ends by what the peer said in this phase. */
void bh_client_end_by_reply(struct bh_client *c, const struct bh_reply *reply);
/** The same, where the stage is not that of the next reply. */
void bh_client_ended_by(struct bh_client *c, enum bh_stage stage, const struct bh_reply *reply);
/** The stage that this reply belongs to. */
enum bh_stage bh_client_stage_of(enum bh_expect_kind kind);
void bh_client_set_phase(struct bh_client *c, enum bh_client_phase phase);

/** Decide a recipient. @param outcome its text must live in the arena of the transaction already */
void bh_client_decide(struct bh_client *c, struct bh_client_txn *txn, uint32_t recipient,
                      const struct bh_outcome *outcome);
/** Decide every recipient of the transaction that is at one of these steps (a bit for each). */
void bh_client_decide_all(struct bh_client *c, struct bh_client_txn *txn, unsigned steps,
                          const struct bh_outcome *outcome);
/** The outcome of a reply with its text in the arena of the transaction. */
struct bh_outcome bh_client_txn_outcome(const struct bh_client *c, struct bh_client_txn *txn,
                                        enum bh_stage stage, const struct bh_reply *reply);

/** Note that the reply to what was put out is due. */
void bh_client_expect(struct bh_client *c, enum bh_expect_kind kind, uint32_t recipient);
/** The oldest transaction in flight, whose replies come now; NULL: none. */
struct bh_client_txn *bh_client_first_flying(const struct bh_client *c);
/** Is one of those in flight ahead? */
bool bh_client_flies_ahead(const struct bh_client *c);
void bh_client_fly(struct bh_client *c, struct bh_client_txn *txn);
void bh_client_landed(struct bh_client *c);
/** How many recipients one transaction may have with this peer. */
uint32_t bh_client_round_max(const struct bh_client *c);

/** May the content of this transaction go before the replies to its envelope? */
bool bh_client_may_ahead(const struct bh_client *c, const struct bh_client_txn *txn);
/** A reply to a transaction whose content did not wait. */
void bh_client_on_ahead_reply(struct bh_client *c, const struct bh_reply *reply,
                              struct bh_expect expect);
/** A stored message that can't go over SMTP, found while its transaction is ahead. */
void bh_client_ahead_bad_content(struct bh_client *c);

/** Content by BDAT goes from here on. */
void bh_client_start_content(struct bh_client *c, bool chunked);
/** Make output of content that goes by BDAT. @return true: WANT_CONTENT is the action */
bool bh_client_send_chunk(struct bh_client *c, struct bh_buf *out);
/** The rest of the last chunk, which was announced. @return false: there is more to come */
bool bh_client_send_last(struct bh_client *c, struct bh_buf *out);
/** The message in hand can't go: its recipients are decided. */
void bh_client_bad_content(struct bh_client *c);

/** A reply in PHASE_OPEN. */
void bh_client_on_open_reply(struct bh_client *c, const struct bh_reply *reply);
/** The round of `sending` is over without content. */
void bh_client_round_over(struct bh_client *c);

/** Can this message go to this peer at all? Recipients that can't are decided.
 * @return false: none is left to send */
bool bh_client_preflight(struct bh_client *c, struct bh_client_txn *txn);
void bh_client_put_mail(const struct bh_client *c, const struct bh_client_txn *txn,
                        struct bh_buf *out);
void bh_client_put_rcpt(const struct bh_client *c, const struct bh_recipient *recipient,
                        struct bh_buf *out);

/** Choose a mechanism and begin, or end for want of one. */
void bh_client_start_auth(struct bh_client *c);
/** A reply in PHASE_AUTH. */
void bh_client_on_auth_reply(struct bh_client *c, const struct bh_reply *reply);
/** The driver can't go on: cancel the exchange, where one is under way.
 * @param outcome  how the session ends then; its text lies in c->outcome_text
 * @return false: there is none; end the session */
bool bh_client_cancel_auth(struct bh_client *c, const struct bh_outcome *outcome);
/** The exchange was cancelled, and the peer has said what it wanted to, or is gone. */
void bh_client_end_cancelled(struct bh_client *c);
/** Make output in PHASE_AUTH. @return false: nothing to do */
bool bh_client_next_auth(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action);

/** Make output in PHASE_OPEN. @return false: nothing to do */
bool bh_client_next_open(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action);
/** Hand out what lies in `out`, which isn't empty. */
void bh_client_emit(struct bh_client *c, const struct bh_buf *out, enum bh_client_output output,
                    struct bh_client_action *action);
