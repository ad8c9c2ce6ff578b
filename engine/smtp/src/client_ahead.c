/* Transactions that are ahead: where a peer offers PIPELINING and CHUNKING and is known to keep in
 * step, RSET, MAIL, RCPT and BDAT with the whole content go out before any reply, and the next
 * transaction right behind: as many messages in one round trip as there are in hand.
 *
 * It rests on two things. BDAT says how long it is, so that a peer that refuses the envelope still
 * knows where the content ends (RFC 3030 section 3); and RSET brings it back into step before the
 * next message, whatever came of this one. Any reply but a 2xx is a sign to be careful: no further
 * transaction begins, replies to what is out already are waited for, since those messages may well
 * be taken, and then the session ends; the driver remembers the host (facts.ahead_trouble). */
#include "client_internal.h"

bool bh_client_may_ahead(const struct bh_client *c, const struct bh_client_txn *txn)
{
    const struct bh_client_options *options = c->options;
    const bool asked_for = options->speculative || c->clean >= BH_CLIENT_CLEAN_MIN;
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        fresh += txn->results[i].step == BH_RCPT_NEW;
    }
    return asked_for && !options->speculation_off && !options->lmtp && !txn->envelope_only &&
           !txn->started && bh_client_has(c, BH_EXT_PIPELINING) &&
           bh_client_has(c, BH_EXT_CHUNKING) && fresh <= bh_client_round_max(c) &&
           txn->envelope->size <= BH_CLIENT_AHEAD_OCTETS;
}

static void be_careful(struct bh_client *c)
{
    c->ahead_over = true;
    c->facts.ahead_trouble = true;
}

/* A complaint about the order of commands, or one that they did not understand: it says that we are
 * out of step, and nothing of the message. Taking it for a verdict would return innocent mail. 501
 * and 504 speak of what we said, and are as good a verdict as 550: ending the session for them
 * would leave all that is out uncertain, and have it twice. */
static bool out_of_step(const struct bh_client_txn *txn, const struct bh_reply *reply)
{
    bool open = false;
    for (uint32_t i = 0; i < txn->recipients_count && !open; i++) {
        open = txn->results[i].step == BH_RCPT_ASKED || txn->results[i].step == BH_RCPT_ACCEPTED;
    }
    return open && (reply->code == 500 || reply->code == 502 || reply->code == 503);
}

static void decide_open(struct bh_client *c, struct bh_client_txn *txn,
                        const struct bh_outcome *outcome)
{
    bh_client_decide_all(c, txn, 1U << BH_RCPT_ASKED | 1U << BH_RCPT_ACCEPTED, outcome);
}

static void on_rcpt(struct bh_client *c, struct bh_client_txn *txn, const struct bh_reply *reply,
                    uint32_t recipient)
{
    struct bh_client_result *result = &txn->results[recipient];
    if (result->step != BH_RCPT_ASKED) {
        return; /* decided by the reply to MAIL, or by ourselves */
    }
    if (reply->code / 100 == 2) {
        result->step = BH_RCPT_ACCEPTED;
        return;
    }
    const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_RCPT, reply);
    bh_client_decide(c, txn, recipient, &outcome);
}

static void on_last(struct bh_client *c, struct bh_client_txn *txn, const struct bh_reply *reply)
{
    const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_DOT, reply);
    decide_open(c, txn, &outcome);
    BH_ASSERT(txn->undecided == 0);
    c->clean += reply->code / 100 == 2;
    txn->end_sent = false;
    txn->ahead = false;
    c->ends_due--;
    bh_client_landed(c);
    c->facts.transactions++;
    c->facts.ahead++;
    c->done_due = true;
}

void bh_client_on_ahead_reply(struct bh_client *c, const struct bh_reply *reply,
                              struct bh_expect expect)
{
    struct bh_client_txn *txn = bh_client_first_flying(c);
    BH_ASSERT(txn != NULL && txn->ahead);
    if (reply->code / 100 != 2) {
        be_careful(c);
    }
    /* RSET can't fail in a session that is in step. */
    if (out_of_step(txn, reply) || (expect.kind == BH_EXPECT_RSET && reply->code / 100 != 2)) {
        bh_client_ended_by(c, bh_client_stage_of((enum bh_expect_kind)expect.kind), reply);
        return;
    }
    switch ((enum bh_expect_kind)expect.kind) {
    case BH_EXPECT_RSET:
        break;
    case BH_EXPECT_MAIL:
    case BH_EXPECT_CHUNK:
        if (reply->code / 100 != 2) {
            const enum bh_stage stage =
                expect.kind == BH_EXPECT_MAIL ? BH_STAGE_MAIL : BH_STAGE_BODY;
            const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, stage, reply);
            decide_open(c, txn, &outcome);
        }
        break;
    case BH_EXPECT_RCPT:
        on_rcpt(c, txn, reply, expect.recipient);
        break;
    case BH_EXPECT_DOT:
        on_last(c, txn, reply);
        break;
    case BH_EXPECT_DATA:
    case BH_EXPECT_LONE_DOT:
        BH_ASSERT(false); /* never sent ahead */
        break;
    }
}

void bh_client_ahead_bad_content(struct bh_client *c)
{
    const struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_BODY, BH_HAPPENED_BAD_CONTENT);
    decide_open(c, c->sending, &outcome);
    c->ahead_over = true; /* the messages before this one are still answered; then it ends */
    c->sending = NULL;
    c->step = BH_STEP_IDLE;
}
