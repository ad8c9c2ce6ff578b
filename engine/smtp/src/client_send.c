/* What goes out in PHASE_OPEN. One round of a transaction:
 * RSET (if the last one was left open), MAIL, RCPT..., DATA, content, the dot. With PIPELINING all
 * commands of a round go together, and those of the next round right behind the dot; without it
 * each waits until no reply is due. */
#include "client_internal.h"

static void expect(struct bh_client *c, enum bh_expect_kind kind, uint32_t recipient)
{
    BH_ASSERT(c->expect_count < BH_CLIENT_EXPECT_MAX);
    if (c->expect_count == 0) {
        c->active_ms = c->now.mono_ms; /* the wait for this reply begins */
    }
    const uint32_t at = (c->expect_first + c->expect_count) % BH_CLIENT_EXPECT_MAX;
    c->expect[at] = (struct bh_expect){(uint8_t)kind, (uint8_t)recipient};
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

static uint32_t round_max(const struct bh_client *c)
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

/* @return false: nothing to start */
static bool start_round(struct bh_client *c)
{
    struct bh_client_txn *txn = candidate(c);
    if (txn == NULL) {
        const bool quiet = c->expect_count == 0 && c->ended == NULL && !c->done_due;
        if (quiet && (c->quit || mails_used_up(c))) {
            bh_client_end(c, NULL, true);
        }
        return false;
    }
    c->sending = txn;
    c->rcpt_next = 0;
    c->asked = 0;
    c->answered = 0;
    c->accepted = 0;
    c->mail_failed = false;
    c->step = c->needs_rset ? BH_STEP_RSET : BH_STEP_MAIL;
    return true;
}

static void send_rset(struct bh_client *c, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT("RSET\r\n"));
    expect(c, BH_EXPECT_RSET, 0);
    c->needs_rset = false;
    c->step = BH_STEP_MAIL;
}

static void send_mail(struct bh_client *c, struct bh_buf *out)
{
    bh_client_put_mail(c, c->sending, out);
    expect(c, BH_EXPECT_MAIL, 0);
    c->sending->started = true;
    c->mail_due = true;
    c->mails++;
    c->step = BH_STEP_RCPT;
}

static void send_rcpt(struct bh_client *c, struct bh_buf *out)
{
    struct bh_client_txn *txn = c->sending;
    while (c->rcpt_next < txn->recipients_count && txn->results[c->rcpt_next].step != BH_RCPT_NEW) {
        c->rcpt_next++;
    }
    if (c->rcpt_next == txn->recipients_count || c->asked == round_max(c)) {
        c->step = BH_STEP_DATA;
        return;
    }
    bh_client_put_rcpt(c, &txn->recipients[c->rcpt_next], out);
    expect(c, BH_EXPECT_RCPT, c->rcpt_next);
    txn->results[c->rcpt_next].step = BH_RCPT_ASKED;
    c->asked++;
    c->rcpt_next++;
}

static void send_data(struct bh_client *c, struct bh_buf *out)
{
    const bool all_refused = c->answered == c->asked && c->accepted == 0;
    if (c->sending->envelope_only) {
        bh_buf_put(out, BH_LIT("RSET\r\n"));
        expect(c, BH_EXPECT_RSET, 0);
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
    expect(c, BH_EXPECT_DATA, 0);
    c->data_due = true;
    c->step = BH_STEP_WAIT;
}

static void send_lone_dot(struct bh_client *c, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT(".\r\n"));
    expect(c, BH_EXPECT_LONE_DOT, 0);
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
            send_data(c, out);
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
static void bad_content(struct bh_client *c)
{
    const struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_BODY, BH_HAPPENED_BAD_CONTENT);
    bh_client_decide_all(c, c->sending, 1U << BH_RCPT_ACCEPTED | 1U << BH_RCPT_NEW, &outcome);
    bh_client_end(c, NULL, true);
}

/* @return true: WANT_CONTENT is the action */
static bool send_content(struct bh_client *c, struct bh_buf *out)
{
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
        bad_content(c);
    } else if (status == BH_OK && c->content_last) {
        if (c->stuff.state == BH_DOT_AFTER_CR) {
            bad_content(c);
        } else {
            c->step = BH_STEP_BEFORE_END;
        }
    }
    return false;
}

/* Who gets this message by the dot that comes next. */
static void ending_mask(const struct bh_client_txn *txn, uint64_t mask[2])
{
    mask[0] = 0;
    mask[1] = 0;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_ACCEPTED) {
            mask[i / 64] |= (uint64_t)1 << (i % 64);
        }
    }
}

static void send_end(struct bh_client *c, struct bh_buf *out)
{
    struct bh_client_txn *txn = c->sending;
    BH_ASSERT(c->ended == NULL); /* DATA's reply comes after that of the dot before it */
    const enum bh_status status = bh_dot_stuff_end(&c->stuff, out);
    BH_ASSERT(status == BH_OK); /* room and line end were checked */
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step == BH_RCPT_ACCEPTED) {
            expect(c, BH_EXPECT_DOT, i);
            if (!c->options->lmtp) {
                break; /* one reply for all */
            }
        }
    }
    txn->end_sent = true;
    c->ended = txn;
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

bool bh_client_next_open(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    if (c->emit_ready) {
        c->emit_ready = false;
        *action = (struct bh_client_action){.kind = BH_CLIENT_READY};
        return true;
    }
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
