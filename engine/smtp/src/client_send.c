/* What goes out in PHASE_OPEN. One round of a transaction:
 * RSET (if the last one was left open), MAIL, RCPT..., DATA, content, the dot. With PIPELINING all
 * commands of a round go together, and those of the next round right behind the dot; without it
 * each waits until no reply is due. With CHUNKING content goes by BDAT, once RCPT is answered; a
 * transaction that is ahead (client_ahead.c) does not wait for that. */
#include "client_internal.h"

void bh_client_expect(struct bh_client *c, enum bh_expect_kind kind, uint32_t recipient)
{
    BH_ASSERT(c->expect_count < BH_CLIENT_EXPECT_MAX);
    if (c->expect_count == 0) {
        c->active_ms = c->now.mono_ms; /* the wait for this reply begins */
    }
    const uint32_t at = (c->expect_first + c->expect_count) % BH_CLIENT_EXPECT_MAX;
    c->expect[at] = (struct bh_expect){(uint8_t)kind, (uint8_t)recipient, c->ahead};
    c->expect_count++;
}

static bool has_new(const struct bh_client_txn *txn)
{
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_NEW) {
            return true;
        }
    }
    return false;
}

/* They said that this many transactions are enough (RFC 9422). */
static bool mails_used_up(const struct bh_client *c)
{
    return c->facts.ehlo.mail_max > 0 && c->mails >= c->facts.ehlo.mail_max;
}

/* The next transaction to start a round of; NULL: none. */
static struct bh_client_txn *candidate(struct bh_client *c)
{
    if (mails_used_up(c)) {
        return NULL;
    }
    for (uint32_t i = 0; i < c->count; i++) {
        struct bh_client_txn *txn = c->txns[i];
        if (txn->undecided == 0 || !has_new(txn) || (c->quit && !txn->started)) {
            continue;
        }
        if (bh_client_preflight(c, txn)) {
            return txn;
        }
    }
    return NULL;
}

uint32_t bh_client_round_max(const struct bh_client *c)
{
    uint32_t max = c->options->recipients_max;
    if (max == 0 || max > BH_CLIENT_RECIPIENTS_MAX) {
        max = BH_CLIENT_RECIPIENTS_MAX;
    }
    if (c->facts.recipients_max > 0 && c->facts.recipients_max < max) {
        max = c->facts.recipients_max;
    }
    return max;
}

struct bh_client_txn *bh_client_first_flying(const struct bh_client *c)
{
    return c->flying_count > 0 ? c->flying[c->flying_first] : NULL;
}

void bh_client_fly(struct bh_client *c, struct bh_client_txn *txn)
{
    BH_ASSERT(c->flying_count < BH_CLIENT_TXNS_MAX);
    c->flying[(c->flying_first + c->flying_count) % BH_CLIENT_TXNS_MAX] = txn;
    c->flying_count++;
}

void bh_client_landed(struct bh_client *c)
{
    BH_ASSERT(c->flying_count > 0);
    c->flying_first = (c->flying_first + 1) % BH_CLIENT_TXNS_MAX;
    c->flying_count--;
}

/* Is a transaction in flight whose replies to the envelope are still due? */
bool bh_client_flies_ahead(const struct bh_client *c)
{
    const uint32_t last = c->flying_first + c->flying_count + BH_CLIENT_TXNS_MAX - 1;
    return c->flying_count > 0 && c->flying[last % BH_CLIENT_TXNS_MAX]->ahead;
}

/* @return false: nothing to start */
static bool start_round(struct bh_client *c)
{
    struct bh_client_txn *txn = c->ahead_over ? NULL : candidate(c);
    if (txn == NULL) {
        const bool quiet = c->expect_count == 0 && c->ends_due == 0 && !c->done_due;
        if (quiet && (c->quit || c->ahead_over || mails_used_up(c))) {
            bh_client_end(c, NULL, true);
        }
        return false;
    }
    const bool ahead = bh_client_may_ahead(c, txn);
    const uint32_t room = BH_CLIENT_EXPECT_MAX - c->expect_count;
    if (bh_client_flies_ahead(c) && (!ahead || room < txn->recipients_count + 4)) {
        return false; /* step by step again, or later */
    }
    c->ahead = ahead;
    txn->ahead = ahead;
    if (ahead) {
        bh_client_fly(c, txn);
    }
    c->sending = txn;
    c->rcpt_next = 0;
    c->asked = 0;
    c->answered = 0;
    c->accepted = 0;
    c->mail_failed = false;
    /* Whatever came of the BDAT before, RSET brings a peer back into step. */
    const bool reset = c->needs_rset || ahead || (c->ends_due > 0 && c->chunked);
    c->step = reset ? BH_STEP_RSET : BH_STEP_MAIL;
    return true;
}

static void send_rset(struct bh_client *c, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT("RSET\r\n"));
    bh_client_expect(c, BH_EXPECT_RSET, 0);
    c->needs_rset = false;
    c->step = BH_STEP_MAIL;
}

static void send_mail(struct bh_client *c, struct bh_buf *out)
{
    bh_client_put_mail(c, c->sending, out);
    bh_client_expect(c, BH_EXPECT_MAIL, 0);
    c->sending->started = true;
    c->mail_due = !c->ahead;
    c->mails++;
    c->step = BH_STEP_RCPT;
}

static void send_rcpt(struct bh_client *c, struct bh_buf *out)
{
    struct bh_client_txn *txn = c->sending;
    while (c->rcpt_next < txn->recipients_count && txn->results[c->rcpt_next].step != BH_RCPT_NEW) {
        c->rcpt_next++;
    }
    if (c->rcpt_next == txn->recipients_count || c->asked == bh_client_round_max(c)) {
        c->step = BH_STEP_DATA;
        return;
    }
    bh_client_put_rcpt(c, &txn->recipients[c->rcpt_next], out);
    bh_client_expect(c, BH_EXPECT_RCPT, c->rcpt_next);
    txn->results[c->rcpt_next].step = BH_RCPT_ASKED;
    c->asked++;
    c->rcpt_next++;
}

static bool by_chunks(const struct bh_client *c)
{
    return bh_client_has(c, BH_EXT_CHUNKING) && !c->options->lmtp && !c->sending->envelope_only;
}

/* With CHUNKING nothing is said in place of DATA: content goes once the envelope is answered.
 * @return false: it is not yet */
static bool wait_for_envelope(struct bh_client *c)
{
    if (!c->ahead && (c->mail_due || c->answered < c->asked)) {
        return false;
    }
    if (!c->ahead && c->accepted == 0) {
        bh_client_round_over(c); /* it needs an RSET, which goes with the next MAIL */
    } else {
        bh_client_start_content(c, true);
    }
    return true;
}

static void send_data(struct bh_client *c, struct bh_buf *out)
{
    const bool all_refused = c->answered == c->asked && c->accepted == 0;
    if (c->sending->envelope_only) {
        bh_buf_put(out, BH_LIT("RSET\r\n"));
        bh_client_expect(c, BH_EXPECT_RSET, 0);
        c->data_due = true; /* the round lasts until this is answered */
        c->step = BH_STEP_WAIT;
        return;
    }
    if (all_refused) {
        BH_ASSERT(!c->mail_due);
        bh_client_round_over(c); /* it needs an RSET, which goes with the next MAIL */
        return;
    }
    bh_buf_put(out, BH_LIT("DATA\r\n"));
    bh_client_expect(c, BH_EXPECT_DATA, 0);
    c->data_due = true;
    c->step = BH_STEP_WAIT;
}

static void send_lone_dot(struct bh_client *c, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT(".\r\n"));
    bh_client_expect(c, BH_EXPECT_LONE_DOT, 0);
    c->needs_rset = false;
    c->step = BH_STEP_WAIT;
    c->data_due = true; /* the round lasts until the dot is answered */
}

/* A command may go now: nothing is due, or the peer takes groups. */
static bool may_command(const struct bh_client *c)
{
    return c->expect_count == 0 || bh_client_has(c, BH_EXT_PIPELINING);
}

/* Commands of rounds, as many as there is room for. */
static void send_commands(struct bh_client *c, struct bh_buf *out)
{
    while (c->phase == BH_CLIENT_PHASE_OPEN && bh_buf_room(out) >= BH_COMMAND_MAX) {
        if (c->step == BH_STEP_LONE_DOT) {
            send_lone_dot(c, out);
            continue;
        }
        if (!may_command(c)) {
            return;
        }
        switch (c->step) {
        case BH_STEP_IDLE:
            if (!start_round(c)) {
                return;
            }
            break;
        case BH_STEP_RSET:
            send_rset(c, out);
            break;
        case BH_STEP_MAIL:
            send_mail(c, out);
            break;
        case BH_STEP_RCPT:
            send_rcpt(c, out);
            break;
        case BH_STEP_DATA:
            if (!by_chunks(c)) {
                send_data(c, out);
            } else if (!wait_for_envelope(c)) {
                return;
            }
            break;
        case BH_STEP_WAIT:
        case BH_STEP_CONTENT:
        case BH_STEP_BEFORE_END:
        case BH_STEP_END:
        case BH_STEP_LONE_DOT:
            return;
        }
    }
}

/* A stored message that can't go over SMTP. The peer waits for content and understands nothing
 * else: without the dot it drops what it has, and the session is over, by no fault of its own. */
void bh_client_bad_content(struct bh_client *c)
{
    if (c->ahead) {
        bh_client_ahead_bad_content(c);
        return;
    }
    const struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_BODY, BH_HAPPENED_BAD_CONTENT);
    bh_client_decide_all(c, c->sending, 1U << BH_RCPT_ACCEPTED | 1U << BH_RCPT_NEW, &outcome);
    bh_client_end(c, NULL, true);
}

/* @return true: WANT_CONTENT is the action */
static bool send_content(struct bh_client *c, struct bh_buf *out)
{
    if (c->chunked) {
        return bh_client_send_chunk(c, out);
    }
    if (c->content.len == 0 && !c->content_last) {
        if (c->content_asked) {
            return false;
        }
        return out->len == 0;
    }
    const size_t before = c->content.len;
    const enum bh_status status = bh_dot_stuff_feed(&c->stuff, &c->content, out);
    c->sending->content_at += before - c->content.len;
    if (status == BH_ECORRUPT) {
        bh_client_bad_content(c);
    } else if (status == BH_OK && c->content_last) {
        if (c->stuff.state == BH_DOT_AFTER_CR) {
            bh_client_bad_content(c);
        } else {
            c->step = BH_STEP_BEFORE_END;
        }
    }
    return false;
}

/* Who gets this message by the end that comes next: of one that is ahead, all who may yet be
 * accepted. */
static void ending_mask(const struct bh_client_txn *txn, uint64_t mask[2])
{
    mask[0] = 0;
    mask[1] = 0;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        const enum bh_rcpt_step step = (enum bh_rcpt_step)txn->results[i].step;
        if (step == BH_RCPT_ACCEPTED || (step == BH_RCPT_ASKED && txn->ahead)) {
            mask[i / 64] |= (uint64_t)1 << (i % 64);
        }
    }
}

static void expect_end(struct bh_client *c, const struct bh_client_txn *txn)
{
    if (!c->options->lmtp) {
        bh_client_expect(c, BH_EXPECT_DOT, 0); /* one reply for all */
        return;
    }
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_ACCEPTED) {
            bh_client_expect(c, BH_EXPECT_DOT, i);
        }
    }
}

static void send_end(struct bh_client *c, struct bh_buf *out)
{
    struct bh_client_txn *txn = c->sending;
    if (c->chunked) {
        if (!bh_client_send_last(c, out)) {
            return;
        }
    } else {
        const enum bh_status status = bh_dot_stuff_end(&c->stuff, out);
        BH_ASSERT(status == BH_OK); /* room and line end were checked */
    }
    if (!c->ahead) {
        BH_ASSERT(c->ends_due == 0); /* DATA's and RCPT's replies come after that of the last end */
        bh_client_fly(c, txn);
    }
    expect_end(c, txn);
    txn->end_sent = true;
    c->ends_due++;
    c->sending = NULL;
    c->needs_rset = false;
    c->step = BH_STEP_IDLE;
}

void bh_client_emit(struct bh_client *c, const struct bh_buf *out, enum bh_client_output output,
                    struct bh_client_action *action)
{
    BH_ASSERT(out->len > 0);
    BH_ASSERT(output == BH_OUTPUT_PREAMBLE || c->clearance != NULL);
    if (c->emitted == c->written) {
        c->active_ms = c->now.mono_ms; /* the wait for the socket begins */
    }
    c->emitted += out->len;
    *action = (struct bh_client_action){
        .kind = BH_CLIENT_WRITE, .output = output, .bytes = bh_buf_slice(out)};
}

static bool next_of_round(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    if (c->step == BH_STEP_CONTENT && send_content(c, out)) {
        c->content_asked = true;
        *action = (struct bh_client_action){
            .kind = BH_CLIENT_WANT_CONTENT, .txn = c->sending, .offset = c->sending->content_at};
        return true;
    }
    if (c->step == BH_STEP_BEFORE_END && out->len == 0) {
        c->step = BH_STEP_END;
        *action = (struct bh_client_action){.kind = BH_CLIENT_BEFORE_END, .txn = c->sending};
        ending_mask(c->sending, action->ending);
        return true;
    }
    if (c->step == BH_STEP_END) {
        send_end(c, out);
    }
    send_commands(c, out);
    if (out->len > 0) {
        bh_client_emit(c, out, BH_OUTPUT_PRIVILEGED, action);
        return true;
    }
    return false;
}

bool bh_client_next_open(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    if (c->emit_ready) {
        c->emit_ready = false;
        *action = (struct bh_client_action){.kind = BH_CLIENT_READY};
        return true;
    }
    const enum bh_client_step before = c->step;
    if (next_of_round(c, out, action)) {
        return true;
    }
    /* The last reply to an envelope lets its content go, which no command stands before. */
    return before != c->step && c->step == BH_STEP_CONTENT && next_of_round(c, out, action);
}
