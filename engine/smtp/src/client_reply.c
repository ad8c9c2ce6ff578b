/* Replies to the commands of transactions. The ring of expected replies says which command each
 * answers; handlers are named after that command. */
#include "client_internal.h"

#define STEP(s) (1U << (s))

static bool is_ok(const struct bh_reply *reply)
{
    return reply->code / 100 == 2;
}

static bool is_refusal(const struct bh_reply *reply)
{
    return reply->code >= 400;
}

void bh_client_decide(struct bh_client *c, struct bh_client_txn *txn, uint32_t recipient,
                      const struct bh_outcome *outcome)
{
    struct bh_client_result *result = &txn->results[recipient];
    BH_ASSERT(result->step != BH_RCPT_DECIDED);
    BH_ASSERT(txn->undecided > 0);
    result->step = BH_RCPT_DECIDED;
    result->fate = BH_FATE_DECIDED;
    result->outcome = *outcome;
    result->relayed = outcome->happened == BH_HAPPENED_REPLY && outcome->code / 100 == 2 &&
                      !bh_client_has(c, BH_EXT_DSN) &&
                      (txn->recipients[recipient].notify & BH_NOTIFY_SUCCESS) != 0;
    txn->undecided--;
    if (txn->undecided == 0) {
        c->done_due = true;
    }
}

void bh_client_decide_all(struct bh_client *c, struct bh_client_txn *txn, unsigned steps,
                          const struct bh_outcome *outcome)
{
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if ((STEP(txn->results[i].step) & steps) != 0) {
            bh_client_decide(c, txn, i, outcome);
        }
    }
}

struct bh_outcome bh_client_txn_outcome(const struct bh_client *c, struct bh_client_txn *txn,
                                        enum bh_stage stage, const struct bh_reply *reply)
{
    char storage[BH_OUTCOME_TEXT_MAX];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    struct bh_outcome outcome = bh_client_reply_outcome(c, stage, reply, &text);
    outcome.text = BH_EMPTY;
    if (!bh_arena_copy(txn->arena, bh_buf_slice(&text), &outcome.text)) {
        outcome.text = BH_EMPTY; /* the code alone is still the whole truth of the verdict */
    }
    return outcome;
}

/* Recipients who were answered "too many" get their last word from that answer. */
static void decide_again(struct bh_client *c, struct bh_client_txn *txn)
{
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_AGAIN) {
            const struct bh_outcome outcome = txn->results[i].outcome;
            bh_client_decide(c, txn, i, &outcome);
        }
    }
}

void bh_client_round_over(struct bh_client *c)
{
    struct bh_client_txn *txn = c->sending;
    decide_again(c, txn);
    c->sending = NULL;
    c->step = BH_STEP_IDLE;
    c->done_due = true;
}

static bool round_answered(const struct bh_client *c)
{
    return !c->mail_due && !c->data_due && c->answered == c->asked;
}

/* A round without DATA ends once all its replies are in. */
static void maybe_round_over(struct bh_client *c)
{
    if (c->sending != NULL && c->step == BH_STEP_WAIT && round_answered(c)) {
        bh_client_round_over(c);
    }
}

static void garbled(struct bh_client *c, const struct bh_reply *reply)
{
    struct bh_buf text = bh_buf(c->outcome_text, sizeof(c->outcome_text));
    struct bh_outcome outcome = bh_client_reply_outcome(c, bh_client_stage(c), reply, &text);
    outcome.happened = BH_HAPPENED_GARBLED;
    bh_client_end(c, &outcome, false);
}

void bh_client_ended_by(struct bh_client *c, enum bh_stage stage, const struct bh_reply *reply)
{
    struct bh_buf text = bh_buf(c->outcome_text, sizeof(c->outcome_text));
    const struct bh_outcome outcome = bh_client_reply_outcome(c, stage, reply, &text);
    bh_client_end(c, &outcome, false);
}

/* Some servers offer PIPELINING and then complain about it (Exim, old proxies). */
static bool blames_pipelining(const struct bh_client *c, const struct bh_reply *reply)
{
    static const char *const words[] = {"synchroni", "Synchroni", "SYNCHRONI"};
    if (!bh_client_has(c, BH_EXT_PIPELINING) || (reply->code != 503 && reply->code != 554)) {
        return false;
    }
    bool found = false;
    for (size_t i = 0; i < BH_COUNT(words) && !found; i++) {
        found = bh_slice_find_slice(reply->text, bh_slice_str(words[i])) < reply->text.len;
    }
    return found;
}

static void on_rset_reply(struct bh_client *c, const struct bh_reply *reply)
{
    if (!is_ok(reply)) {
        bh_client_ended_by(c, BH_STAGE_IDLE,
                           reply); /* RSET can't fail in a session that is in step */
    } else if (c->sending != NULL && c->sending->envelope_only && c->step == BH_STEP_WAIT) {
        c->data_due = false; /* it stands where DATA would */
        c->needs_rset = false;
    }
}

static void on_mail_reply(struct bh_client *c, const struct bh_reply *reply)
{
    BH_ASSERT(c->sending != NULL && c->mail_due);
    c->mail_due = false;
    if (is_ok(reply)) {
        c->needs_rset = true;
        return;
    }
    struct bh_client_txn *txn = c->sending;
    const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_MAIL, reply);
    c->mail_failed = true;
    bh_client_decide_all(c, txn,
                         STEP(BH_RCPT_NEW) | STEP(BH_RCPT_ASKED) | STEP(BH_RCPT_ACCEPTED) |
                             STEP(BH_RCPT_AGAIN),
                         &outcome);
    if (!c->data_due) {
        c->step = BH_STEP_WAIT;
    }
}

/* "Too many recipients" is said with 452 or, by RFC 821's slip, with 552 (RFC 5321 4.5.3.1.10).
 * An enhanced code that says something else means something else. */
static bool too_many(const struct bh_reply *reply)
{
    const bool code = reply->code == 452 || reply->code == 552;
    const bool other = reply->enhanced_class != 0 &&
                       !(reply->enhanced_subject == 5 && reply->enhanced_detail == 3);
    return code && !other;
}

static void on_rcpt_reply(struct bh_client *c, const struct bh_reply *reply, uint32_t recipient)
{
    BH_ASSERT(c->sending != NULL && c->answered < c->asked);
    struct bh_client_txn *txn = c->sending;
    struct bh_client_result *result = &txn->results[recipient];
    c->answered++;
    if (result->step == BH_RCPT_DECIDED) {
        return; /* by the reply to MAIL */
    }
    BH_ASSERT(result->step == BH_RCPT_ASKED);
    if (is_ok(reply) && !txn->envelope_only) {
        result->step = BH_RCPT_ACCEPTED;
        c->accepted++;
        return;
    }
    const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_RCPT, reply);
    if (too_many(reply) && !txn->envelope_only) {
        result->step = BH_RCPT_AGAIN;
        result->outcome = outcome;
    } else {
        bh_client_decide(c, txn, recipient, &outcome);
    }
}

/* This many were taken, the rest were too many: smaller rounds from now on, and the rest again. */
static void learn_recipients_max(struct bh_client *c, struct bh_client_txn *txn)
{
    bool any = false;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_AGAIN) {
            txn->results[i].step = BH_RCPT_NEW;
            any = true;
        }
    }
    if (any && (c->facts.recipients_max == 0 || c->accepted < c->facts.recipients_max)) {
        c->facts.recipients_max = c->accepted;
    }
}

void bh_client_start_content(struct bh_client *c, bool chunked)
{
    if (!c->ahead) {
        learn_recipients_max(c, c->sending);
    }
    c->step = BH_STEP_CONTENT;
    c->chunked = chunked;
    c->chunk_open = false;
    c->stuff = (struct bh_dot_stuff){0};
    c->content = BH_EMPTY;
    c->content_asked = false;
    c->content_last = false;
    c->sending->content_at = 0;
    c->content_ms = c->now.mono_ms;
    c->content_from = c->emitted;
    c->content_flows = true;
}

static void on_data_reply(struct bh_client *c, const struct bh_reply *reply)
{
    BH_ASSERT(c->sending != NULL && c->data_due);
    c->data_due = false;
    if (reply->code == 354) {
        if (c->accepted > 0 && !c->mail_failed) {
            bh_client_start_content(c, false);
        } else if (c->options->lmtp) {
            garbled(c, reply); /* no reply would follow the dot: RFC 2033 4.2 forbids this one */
        } else {
            c->step = BH_STEP_LONE_DOT; /* nobody gets an empty message: end it at once */
        }
        return;
    }
    if (!is_refusal(reply)) {
        garbled(c, reply);
        return;
    }
    struct bh_client_txn *txn = c->sending;
    if (c->accepted > 0) {
        const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_DATA, reply);
        bh_client_decide_all(c, txn, STEP(BH_RCPT_ACCEPTED) | STEP(BH_RCPT_NEW), &outcome);
    }
    bh_client_round_over(c);
}

static void on_dot_reply(struct bh_client *c, const struct bh_reply *reply, uint32_t recipient)
{
    struct bh_client_txn *txn = bh_client_first_flying(c);
    BH_ASSERT(txn != NULL && txn->end_sent);
    const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_DOT, reply);
    if (c->options->lmtp) {
        bh_client_decide(c, txn, recipient, &outcome);
        for (uint32_t i = 0; i < txn->recipients_count; i++) {
            if (txn->results[i].step == BH_RCPT_ACCEPTED) {
                return; /* a reply for each accepted recipient (RFC 2033 4.2) */
            }
        }
    } else {
        bh_client_decide_all(c, txn, STEP(BH_RCPT_ACCEPTED), &outcome);
    }
    c->clean += is_ok(reply);
    /* After a refused BDAT some peers want RSET before anything else (RFC 3030 section 2). */
    c->needs_rset = c->needs_rset || (!is_ok(reply) && c->chunked && c->sending == NULL);
    txn->end_sent = false;
    c->ends_due--;
    bh_client_landed(c);
    c->facts.transactions++;
    c->done_due = true;
}

/* A chunk before the last. Refused, the message is; and the peer takes no more of it, while more
 * may be on its way. */
static void on_chunk_reply(struct bh_client *c, const struct bh_reply *reply)
{
    struct bh_client_txn *txn =
        c->sending != NULL && c->ends_due == 0 ? c->sending : bh_client_first_flying(c);
    BH_ASSERT(txn != NULL);
    if (!is_ok(reply)) {
        const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_BODY, reply);
        bh_client_decide_all(c, txn, STEP(BH_RCPT_ACCEPTED) | STEP(BH_RCPT_NEW), &outcome);
        bh_client_ended_by(c, BH_STAGE_BODY, reply);
    }
}

/* 421 may come at any point, also in place of the reply to the dot (RFC 5321 3.8). */
static void on_closing_reply(struct bh_client *c, const struct bh_reply *reply,
                             const struct bh_expect *expect)
{
    const enum bh_stage stage = bh_client_stage(c);
    if (expect != NULL && expect->kind == BH_EXPECT_DOT) {
        on_dot_reply(c, reply, expect->recipient); /* it was answered: not delivered */
    }
    bh_client_ended_by(c, stage, reply);
}

/* A reply that answers no command. During the content a server may say early why it will not take
 * the message; it then no longer listens for commands. */
static void on_unasked_reply(struct bh_client *c, const struct bh_reply *reply)
{
    const bool in_content =
        c->step == BH_STEP_CONTENT || c->step == BH_STEP_BEFORE_END || c->step == BH_STEP_END;
    if (reply->code == 421) {
        bh_client_ended_by(c, bh_client_stage(c), reply);
    } else if (in_content && is_refusal(reply)) {
        struct bh_client_txn *txn = c->sending;
        const struct bh_outcome outcome = bh_client_txn_outcome(c, txn, BH_STAGE_BODY, reply);
        bh_client_decide_all(c, txn, STEP(BH_RCPT_ACCEPTED), &outcome);
        bh_client_ended_by(c, BH_STAGE_BODY, reply);
    } else {
        garbled(c, reply);
    }
}

static void dispatch(struct bh_client *c, const struct bh_reply *reply, struct bh_expect expect)
{
    switch ((enum bh_expect_kind)expect.kind) {
    case BH_EXPECT_RSET:
        on_rset_reply(c, reply);
        break;
    case BH_EXPECT_MAIL:
        on_mail_reply(c, reply);
        break;
    case BH_EXPECT_RCPT:
        on_rcpt_reply(c, reply, expect.recipient);
        break;
    case BH_EXPECT_DATA:
        on_data_reply(c, reply);
        break;
    case BH_EXPECT_CHUNK:
        on_chunk_reply(c, reply);
        break;
    case BH_EXPECT_DOT:
        on_dot_reply(c, reply, expect.recipient);
        break;
    case BH_EXPECT_LONE_DOT:
        bh_client_round_over(c); /* whatever it says, no recipient hangs on it */
        break;
    }
}

void bh_client_on_open_reply(struct bh_client *c, const struct bh_reply *reply)
{
    if (c->expect_count == 0) {
        on_unasked_reply(c, reply);
        return;
    }
    const struct bh_expect expect = c->expect[c->expect_first];
    if (is_refusal(reply)) {
        c->clean = 0;
    }
    if (reply->code == 421) {
        on_closing_reply(c, reply, &expect);
        return;
    }
    if (reply->code / 100 == 3 && expect.kind != BH_EXPECT_DATA) {
        garbled(c, reply);
        return;
    }
    if (expect.kind != BH_EXPECT_DOT && blames_pipelining(c, reply)) {
        c->facts.sync_trouble = true;
        bh_client_ended_by(c, BH_STAGE_IDLE, reply); /* it speaks of the session, of no message */
        return;
    }
    c->expect_first = (c->expect_first + 1) % BH_CLIENT_EXPECT_MAX;
    c->expect_count--;
    if (expect.ahead) {
        bh_client_on_ahead_reply(c, reply, expect);
        return;
    }
    dispatch(c, reply, expect);
    if (c->phase == BH_CLIENT_PHASE_OPEN) {
        maybe_round_over(c);
    }
}
