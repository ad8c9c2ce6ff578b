#include "bh/smtp_client.h"

#include "client_internal.h"

struct bh_client_timeouts bh_client_default_timeouts(void)
{
    return (struct bh_client_timeouts){
        .greeting_ms = 300000,
        .ehlo_ms = 300000,
        .starttls_ms = 300000,
        .tls_ms = 60000,
        .auth_ms = 300000,
        .mail_ms = 300000,
        .rcpt_ms = 300000,
        .data_ms = 120000,
        .block_ms = 180000,
        .dot_ms = BH_CLIENT_DOT_MIN_MS,
        .rset_ms = 20000,
    };
}

void bh_client_init(struct bh_client *c, const struct bh_client_options *options)
{
    *c = (struct bh_client){.options = options, .phase = BH_CLIENT_PHASE_NEW};
}

/* Every step between phases; anything else is a bug of ours. */
void bh_client_set_phase(struct bh_client *c, enum bh_client_phase phase)
{
    static const uint16_t from[] = {
        [BH_CLIENT_PHASE_NEW] = 0,
        [BH_CLIENT_PHASE_GREETING] = 1 << BH_CLIENT_PHASE_NEW | 1 << BH_CLIENT_PHASE_TLS,
        [BH_CLIENT_PHASE_EHLO] = 1 << BH_CLIENT_PHASE_GREETING | 1 << BH_CLIENT_PHASE_TLS,
        [BH_CLIENT_PHASE_HELO] =
            1 << BH_CLIENT_PHASE_GREETING | 1 << BH_CLIENT_PHASE_EHLO | 1 << BH_CLIENT_PHASE_TLS,
        [BH_CLIENT_PHASE_STARTTLS] = 1 << BH_CLIENT_PHASE_EHLO,
        [BH_CLIENT_PHASE_TLS] = 1 << BH_CLIENT_PHASE_NEW | 1 << BH_CLIENT_PHASE_STARTTLS,
        [BH_CLIENT_PHASE_CLEARANCE] = 1 << BH_CLIENT_PHASE_EHLO | 1 << BH_CLIENT_PHASE_HELO,
        [BH_CLIENT_PHASE_AUTH] =
            1 << BH_CLIENT_PHASE_EHLO | 1 << BH_CLIENT_PHASE_HELO | 1 << BH_CLIENT_PHASE_CLEARANCE,
        [BH_CLIENT_PHASE_OPEN] = 1 << BH_CLIENT_PHASE_EHLO | 1 << BH_CLIENT_PHASE_HELO |
                                 1 << BH_CLIENT_PHASE_CLEARANCE | 1 << BH_CLIENT_PHASE_AUTH,
        [BH_CLIENT_PHASE_ENDING] = (1 << BH_CLIENT_PHASE_ENDING) - 1,
        [BH_CLIENT_PHASE_CLOSED] = 1 << BH_CLIENT_PHASE_ENDING,
    };
    BH_ASSERT((from[phase] >> c->phase & 1) != 0);
    BH_ASSERT((phase != BH_CLIENT_PHASE_OPEN && phase != BH_CLIENT_PHASE_AUTH) ||
              c->clearance != NULL);
    BH_ASSERT(phase != BH_CLIENT_PHASE_OPEN || c->options->auth == 0 ||
              c->facts.authenticated != 0);
    c->phase = phase;
    c->emit = true;
    c->active_ms = c->now.mono_ms;
}

struct bh_outcome bh_client_outcome(const struct bh_client *c, enum bh_stage stage,
                                    enum bh_happened happened)
{
    return (struct bh_outcome){.stage = stage,
                               .happened = happened,
                               .text = BH_EMPTY,
                               .host = c->options->host,
                               .ip = c->options->ip,
                               .port = c->options->port};
}

struct bh_outcome bh_client_reply_outcome(const struct bh_client *c, enum bh_stage stage,
                                          const struct bh_reply *reply, struct bh_buf *text)
{
    struct bh_outcome outcome = bh_client_outcome(c, stage, BH_HAPPENED_REPLY);
    outcome.code = reply->code;
    outcome.enhanced_class = reply->enhanced_class;
    outcome.enhanced_subject = reply->enhanced_subject;
    outcome.enhanced_detail = reply->enhanced_detail;
    text->len = 0;
    bh_buf_add_cut(text, reply->text);
    for (size_t i = 0; i < text->len; i++) {
        if (text->ptr[i] == '\n') {
            text->ptr[i] = ' ';
        }
    }
    outcome.text = bh_buf_slice(text);
    return outcome;
}

enum bh_stage bh_client_stage_of(enum bh_expect_kind kind)
{
    switch (kind) {
    case BH_EXPECT_RSET:
        return BH_STAGE_IDLE;
    case BH_EXPECT_MAIL:
        return BH_STAGE_MAIL;
    case BH_EXPECT_RCPT:
        return BH_STAGE_RCPT;
    case BH_EXPECT_DATA:
    case BH_EXPECT_LONE_DOT:
        return BH_STAGE_DATA;
    case BH_EXPECT_CHUNK:
        return BH_STAGE_BODY;
    case BH_EXPECT_DOT:
        return BH_STAGE_DOT;
    }
    return BH_STAGE_NONE;
}

static enum bh_stage stage_open(const struct bh_client *c)
{
    if (c->expect_count > 0) {
        return bh_client_stage_of((enum bh_expect_kind)c->expect[c->expect_first].kind);
    }
    const bool content =
        c->step == BH_STEP_CONTENT || c->step == BH_STEP_BEFORE_END || c->step == BH_STEP_END;
    return content ? BH_STAGE_BODY : BH_STAGE_IDLE;
}

enum bh_stage bh_client_stage(const struct bh_client *c)
{
    switch (c->phase) {
    case BH_CLIENT_PHASE_NEW:
        return BH_STAGE_CONNECT;
    case BH_CLIENT_PHASE_GREETING:
        return BH_STAGE_GREETING;
    case BH_CLIENT_PHASE_EHLO:
    case BH_CLIENT_PHASE_HELO:
        return BH_STAGE_EHLO;
    case BH_CLIENT_PHASE_STARTTLS:
        return BH_STAGE_STARTTLS;
    case BH_CLIENT_PHASE_TLS:
        return BH_STAGE_TLS;
    case BH_CLIENT_PHASE_CLEARANCE:
        return BH_STAGE_EHLO;
    case BH_CLIENT_PHASE_AUTH:
        return BH_STAGE_AUTH;
    case BH_CLIENT_PHASE_OPEN:
        return stage_open(c);
    case BH_CLIENT_PHASE_ENDING:
    case BH_CLIENT_PHASE_CLOSED:
        return c->outcome.stage;
    }
    return BH_STAGE_NONE;
}

/* After such an end the peer still reads commands, so that it can be told QUIT. */
static bool still_listens(const struct bh_outcome *outcome)
{
    return (outcome->happened == BH_HAPPENED_REPLY && outcome->code != 421) ||
           outcome->happened == BH_HAPPENED_TLS_NOT_OFFERED ||
           outcome->happened == BH_HAPPENED_AUTH_NOT_OFFERED;
}

void bh_client_end(struct bh_client *c, const struct bh_outcome *outcome, bool graceful)
{
    if (c->phase == BH_CLIENT_PHASE_ENDING || c->phase == BH_CLIENT_PHASE_CLOSED) {
        return; /* the first reason stands */
    }
    c->outcome =
        outcome != NULL ? *outcome : bh_client_outcome(c, BH_STAGE_NONE, BH_HAPPENED_REPLY);
    c->graceful = graceful;
    c->facts.ahead_trouble = c->facts.ahead_trouble || (!graceful && bh_client_flies_ahead(c));
    const bool between_commands = c->phase == BH_CLIENT_PHASE_OPEN
                                      ? c->sending == NULL && c->ends_due == 0
                                      : c->phase != BH_CLIENT_PHASE_TLS;
    c->may_quit = c->may_quit && between_commands && still_listens(&c->outcome);
    bh_client_set_phase(c, BH_CLIENT_PHASE_ENDING);
}

void bh_client_end_by_reply(struct bh_client *c, const struct bh_reply *reply)
{
    struct bh_buf text = bh_buf(c->outcome_text, sizeof(c->outcome_text));
    const struct bh_outcome outcome = bh_client_reply_outcome(c, bh_client_stage(c), reply, &text);
    bh_client_end(c, &outcome, false);
}

static void end_by(struct bh_client *c, enum bh_happened happened)
{
    const struct bh_outcome outcome = bh_client_outcome(c, bh_client_stage(c), happened);
    bh_client_end(c, &outcome, false);
}

static void on_greeting(struct bh_client *c, const struct bh_reply *reply)
{
    if (reply->code / 100 != 2) {
        bh_client_end_by_reply(c, reply);
        return;
    }
    c->may_quit = true;
    const bool helo = c->options->helo_only && !c->options->lmtp;
    bh_client_set_phase(c, helo ? BH_CLIENT_PHASE_HELO : BH_CLIENT_PHASE_EHLO);
}

/* Mail may flow, once they know who we are. */
static void on_cleared(struct bh_client *c)
{
    if (c->options->auth != 0) {
        bh_client_start_auth(c);
    } else {
        bh_client_set_phase(c, BH_CLIENT_PHASE_OPEN);
        c->emit_ready = true;
    }
}

/* The peer has introduced itself: encrypt, or see to the clearance. */
static void on_introduced(struct bh_client *c)
{
    const bool offered = bh_client_has(c, BH_EXT_STARTTLS);
    if (!c->facts.tls) {
        c->facts.starttls_offered = offered;
    }
    c->facts.recipients_max = c->facts.ehlo.rcpt_max;
    if (c->facts.tls) {
        on_cleared(c); /* by the handshake */
    } else if (c->options->tls != BH_TLS_NEVER && offered) {
        bh_client_set_phase(c, BH_CLIENT_PHASE_STARTTLS);
    } else if (c->options->tls == BH_TLS_MUST) {
        const struct bh_outcome outcome =
            bh_client_outcome(c, BH_STAGE_STARTTLS, BH_HAPPENED_TLS_NOT_OFFERED);
        bh_client_end(c, &outcome, false);
    } else {
        bh_client_set_phase(c, BH_CLIENT_PHASE_CLEARANCE);
    }
}

static void on_ehlo_reply(struct bh_client *c, const struct bh_reply *reply)
{
    c->facts.ehlo = (struct bh_ehlo){0}; /* what was said before TLS is forgotten (RFC 3207 4.2) */
    if (reply->code / 100 == 2) {
        bh_ehlo_parse(reply, &c->facts.ehlo);
        c->switched_off = c->facts.ehlo.extensions & c->options->extensions_off;
        c->facts.ehlo.extensions &= ~c->options->extensions_off;
        c->facts.esmtp = true;
        on_introduced(c);
    } else if (reply->code / 100 == 5 && !c->options->lmtp && reply->code != 521) {
        bh_client_set_phase(c, BH_CLIENT_PHASE_HELO); /* only on 5xx (RFC 5321 3.2) */
    } else {
        bh_client_end_by_reply(c, reply);
    }
}

static void on_helo_reply(struct bh_client *c, const struct bh_reply *reply)
{
    if (reply->code / 100 == 2) {
        c->facts.ehlo = (struct bh_ehlo){0};
        on_introduced(c);
    } else {
        bh_client_end_by_reply(c, reply);
    }
}

static void on_starttls_reply(struct bh_client *c, const struct bh_reply *reply)
{
    if (reply->code == 220) {
        bh_client_set_phase(c, BH_CLIENT_PHASE_TLS);
        return;
    }
    c->facts.tls_trouble = true;
    bh_client_end_by_reply(c, reply);
}

static void on_reply(struct bh_client *c, const struct bh_reply *reply)
{
    const bool asked = c->phase == BH_CLIENT_PHASE_GREETING || !c->emit;
    switch (c->phase) {
    case BH_CLIENT_PHASE_GREETING:
        on_greeting(c, reply);
        break;
    case BH_CLIENT_PHASE_EHLO:
    case BH_CLIENT_PHASE_HELO:
    case BH_CLIENT_PHASE_STARTTLS:
        if (!asked && reply->code != 421) {
            end_by(c, BH_HAPPENED_GARBLED); /* an answer before the question */
        } else if (reply->code == 421) {
            bh_client_end_by_reply(c, reply);
        } else if (c->phase == BH_CLIENT_PHASE_EHLO) {
            on_ehlo_reply(c, reply);
        } else if (c->phase == BH_CLIENT_PHASE_HELO) {
            on_helo_reply(c, reply);
        } else {
            on_starttls_reply(c, reply);
        }
        break;
    case BH_CLIENT_PHASE_CLEARANCE:
        if (reply->code == 421) {
            bh_client_end_by_reply(c, reply);
        } else {
            end_by(c, BH_HAPPENED_GARBLED);
        }
        break;
    case BH_CLIENT_PHASE_AUTH:
        bh_client_on_auth_reply(c, reply);
        break;
    case BH_CLIENT_PHASE_OPEN:
        bh_client_on_open_reply(c, reply);
        break;
    case BH_CLIENT_PHASE_NEW:
    case BH_CLIENT_PHASE_TLS:
    case BH_CLIENT_PHASE_ENDING:
    case BH_CLIENT_PHASE_CLOSED:
        break;
    }
}

/* Octets behind the 220 to STARTTLS came from somebody who is not inside TLS: to read them later as
 * if they had been would be reading what an attacker wrote. */
/* Between STARTTLS and the end of the handshake: a peer that goes away or falls silent here has
 * trouble with TLS. */
static bool at_tls(const struct bh_client *c)
{
    return c->phase == BH_CLIENT_PHASE_STARTTLS || c->phase == BH_CLIENT_PHASE_TLS;
}

static void injected(struct bh_client *c)
{
    c->facts.tls_trouble = true;
    const struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_STARTTLS, BH_HAPPENED_INJECTED);
    bh_client_end(c, &outcome, false);
}

void bh_client_on_bytes(struct bh_client *c, struct bh_slice bytes, struct bh_now now)
{
    c->now = now;
    BH_ASSERT(c->phase != BH_CLIENT_PHASE_NEW);
    while (bytes.len > 0 && c->phase < BH_CLIENT_PHASE_ENDING) {
        if (c->phase == BH_CLIENT_PHASE_TLS) {
            injected(c);
            return;
        }
        if (c->phase == BH_CLIENT_PHASE_AUTH && c->sasl == BH_SASL_STEP_WANT) {
            end_by(c, BH_HAPPENED_GARBLED); /* behind its 334 it has to wait for us */
            return;
        }
        struct bh_reply reply;
        const enum bh_status status = bh_reply_feed(&c->reply, &bytes, &reply);
        if (status == BH_MORE) {
            return;
        }
        if (status != BH_OK) {
            end_by(c, BH_HAPPENED_GARBLED);
            return;
        }
        c->active_ms = now.mono_ms;
        on_reply(c, &reply);
    }
}

/* The content trickles rather than flows, or nothing moves at all. */
static enum bh_happened why_late(const struct bh_client *c)
{
    const bool content =
        c->phase == BH_CLIENT_PHASE_OPEN && c->content_flows && c->emitted > c->written;
    const bool stalled = c->now.mono_ms - c->active_ms >= c->options->timeouts.block_ms;
    return content && !stalled ? BH_HAPPENED_TOO_SLOW : BH_HAPPENED_TIMEOUT;
}

static void on_timeout(struct bh_client *c)
{
    if (c->now.mono_ms < bh_client_deadline_ms(c)) {
        return; /* a timer that rang early, or before the last octets came in */
    }
    c->facts.tls_trouble = c->facts.tls_trouble || at_tls(c);
    if (c->phase == BH_CLIENT_PHASE_AUTH && c->sasl >= BH_SASL_STEP_CANCEL) {
        bh_client_end_cancelled(c);
        return;
    }
    struct bh_outcome outcome = bh_client_outcome(c, bh_client_stage(c), why_late(c));
    if (outcome.happened == BH_HAPPENED_TOO_SLOW && outcome.stage != BH_STAGE_DOT) {
        outcome.stage = BH_STAGE_BODY;
    }
    bh_client_end(c, &outcome, false);
}

void bh_client_on_event(struct bh_client *c, enum bh_client_event event, struct bh_now now)
{
    c->now = now;
    if (c->phase >= BH_CLIENT_PHASE_ENDING) {
        if (event == BH_CLIENT_LOST) {
            c->may_quit = false;
        }
        return;
    }
    switch (event) {
    case BH_CLIENT_CONNECTED:
        bh_client_set_phase(c, c->options->implicit_tls ? BH_CLIENT_PHASE_TLS
                                                        : BH_CLIENT_PHASE_GREETING);
        break;
    case BH_CLIENT_LOST:
        c->may_quit = false;
        c->facts.tls_trouble = c->facts.tls_trouble || at_tls(c);
        if (c->phase == BH_CLIENT_PHASE_AUTH && c->sasl >= BH_SASL_STEP_CANCEL) {
            bh_client_end_cancelled(c); /* what made us cancel says more */
        } else {
            end_by(c, BH_HAPPENED_LOST);
        }
        break;
    case BH_CLIENT_TIMEOUT:
        on_timeout(c);
        break;
    case BH_CLIENT_QUIT:
        c->quit = true;
        if (c->phase != BH_CLIENT_PHASE_OPEN) {
            c->may_quit = false; /* a reply may be due */
            bh_client_end(c, NULL, true);
        }
        break;
    }
}

void bh_client_on_tls_up(struct bh_client *c, const struct bh_clearance *clearance,
                         struct bh_now now)
{
    c->now = now;
    if (c->phase >= BH_CLIENT_PHASE_ENDING) {
        return;
    }
    BH_ASSERT(c->phase == BH_CLIENT_PHASE_TLS);
    BH_ASSERT(clearance != NULL);
    c->clearance = clearance;
    c->facts.tls = true;
    c->facts.ehlo = (struct bh_ehlo){0};
    bh_client_set_phase(c,
                        c->options->implicit_tls ? BH_CLIENT_PHASE_GREETING : BH_CLIENT_PHASE_EHLO);
}

void bh_client_on_clearance(struct bh_client *c, const struct bh_clearance *clearance,
                            struct bh_now now)
{
    c->now = now;
    if (c->phase >= BH_CLIENT_PHASE_ENDING) {
        return;
    }
    BH_ASSERT(c->phase == BH_CLIENT_PHASE_CLEARANCE);
    BH_ASSERT(clearance != NULL && c->options->tls != BH_TLS_MUST);
    c->clearance = clearance;
    on_cleared(c);
}

void bh_client_on_failed(struct bh_client *c, const struct bh_outcome *outcome, struct bh_now now)
{
    c->now = now;
    if (c->phase >= BH_CLIENT_PHASE_ENDING) {
        return;
    }
    /* With TLS 1.3 a peer may refuse us when our side of the handshake is done. */
    c->facts.tls_trouble = c->facts.tls_trouble || at_tls(c) || outcome->stage == BH_STAGE_TLS;
    c->may_quit = c->may_quit && c->phase != BH_CLIENT_PHASE_TLS;
    struct bh_outcome copy = *outcome;
    struct bh_buf text = bh_buf(c->outcome_text, sizeof(c->outcome_text));
    bh_buf_add_cut(&text, outcome->text);
    copy.text = bh_buf_slice(&text);
    copy.host = c->options->host;
    copy.ip = c->options->ip;
    copy.port = c->options->port;
    if (!bh_client_cancel_auth(c, &copy)) {
        bh_client_end(c, &copy, false);
    }
}

void bh_client_on_content(struct bh_client *c, struct bh_slice piece, bool last, struct bh_now now)
{
    c->now = now;
    if (c->step != BH_STEP_CONTENT || c->phase != BH_CLIENT_PHASE_OPEN) {
        return; /* the session ended in between */
    }
    BH_ASSERT(c->content_asked && (piece.len > 0 || last));
    c->content = piece;
    c->content_last = last;
    c->content_asked = false;
}

void bh_client_on_written(struct bh_client *c, uint64_t octets, struct bh_now now)
{
    c->now = now;
    BH_ASSERT(octets <= c->emitted - c->written);
    c->written += octets;
    c->active_ms = now.mono_ms;
    if (c->written == c->emitted && c->step != BH_STEP_CONTENT) {
        c->content_flows = false;
    }
}

uint32_t bh_client_room(const struct bh_client *c)
{
    return c->phase >= BH_CLIENT_PHASE_ENDING || c->quit ? 0 : BH_CLIENT_TXNS_MAX - c->count;
}

void bh_client_give(struct bh_client *c, struct bh_client_txn *txn, struct bh_now now)
{
    c->now = now;
    BH_ASSERT(bh_client_room(c) > 0);
    BH_ASSERT(txn->recipients_count > 0 && txn->recipients_count <= BH_CLIENT_RECIPIENTS_MAX);
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        txn->results[i] = (struct bh_client_result){
            .fate = BH_FATE_UNTOUCHED, .step = BH_RCPT_NEW, .outcome = {.text = BH_EMPTY}};
        txn->results[i].outcome.host = BH_EMPTY;
    }
    txn->undecided = txn->recipients_count;
    txn->end_sent = false;
    txn->started = false;
    txn->ahead = false;
    txn->content_at = 0;
    c->txns[c->count++] = txn;
}

bool bh_client_idle(const struct bh_client *c)
{
    return c->phase == BH_CLIENT_PHASE_OPEN && c->count == 0 && c->expect_count == 0 &&
           !c->emit_ready;
}

const struct bh_client_facts *bh_client_facts(const struct bh_client *c)
{
    return &c->facts;
}

/* The session is over: say how it stands with each recipient that has no word of its own. */
static void settle_at_end(struct bh_client *c, struct bh_client_txn *txn)
{
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        struct bh_client_result *result = &txn->results[i];
        if (result->step == BH_RCPT_DECIDED) {
            continue;
        }
        if (result->step == BH_RCPT_AGAIN) {
            result->fate = BH_FATE_DECIDED; /* the outcome of its RCPT stands */
            continue;
        }
        const bool touched = result->step != BH_RCPT_NEW || txn == c->sending;
        if (!touched) {
            continue;
        }
        /* Of one that is ahead the word on its recipients may be on its way, too. */
        const bool asked = result->step == BH_RCPT_ASKED && txn->ahead;
        const bool uncertain = txn->end_sent && (result->step == BH_RCPT_ACCEPTED || asked);
        result->fate = uncertain ? BH_FATE_UNCERTAIN : BH_FATE_UNFINISHED;
        result->outcome = c->outcome;
        result->outcome.text = BH_EMPTY;
        if (!bh_arena_copy(txn->arena, c->outcome.text, &result->outcome.text)) {
            result->outcome.text = BH_EMPTY;
        }
        if (uncertain) {
            result->outcome.stage = BH_STAGE_DOT;
        } else if (result->outcome.stage == BH_STAGE_DOT) {
            result->outcome.stage = BH_STAGE_MAIL; /* the dot was another transaction's */
        }
    }
}

static bool take_done(struct bh_client *c, bool any, struct bh_client_action *action)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct bh_client_txn *txn = c->txns[i];
        const bool complete =
            txn->undecided == 0 && txn != c->sending && !txn->end_sent && !txn->ahead;
        if (!complete && !any) {
            continue;
        }
        c->count--;
        memmove(&c->txns[i], &c->txns[i + 1], (c->count - i) * sizeof(struct bh_client_txn *));
        *action = (struct bh_client_action){.kind = BH_CLIENT_DONE, .txn = txn};
        return true;
    }
    return false;
}

static bool next_done(struct bh_client *c, struct bh_client_action *action)
{
    c->done_due = c->done_due && take_done(c, false, action);
    return c->done_due;
}

static bool next_ending(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    if (take_done(c, true, action)) {
        settle_at_end(c, action->txn);
        return true;
    }
    if (c->may_quit) {
        c->may_quit = false;
        bh_buf_put(out, BH_LIT("QUIT\r\n")); /* courteous; its reply is not waited for */
        bh_client_emit(c, out, BH_OUTPUT_PREAMBLE, action);
        return true;
    }
    *action = (struct bh_client_action){
        .kind = BH_CLIENT_CLOSE, .graceful = c->graceful, .outcome = &c->outcome};
    bh_client_set_phase(c, BH_CLIENT_PHASE_CLOSED);
    return true;
}

static bool next_command(struct bh_client *c, const char *verb, struct bh_slice argument,
                         struct bh_buf *out, struct bh_client_action *action)
{
    if (!c->emit) {
        return false;
    }
    c->emit = false;
    bh_buf_put(out, bh_slice_str(verb));
    if (argument.len > 0) {
        bh_buf_put_char(out, ' ');
        bh_buf_put(out, argument);
    }
    bh_buf_put(out, BH_LIT("\r\n"));
    bh_client_emit(c, out, BH_OUTPUT_PREAMBLE, action);
    return true;
}

static bool next_plain(struct bh_client *c, enum bh_client_action_kind kind,
                       struct bh_client_action *action)
{
    if (!c->emit) {
        return false;
    }
    c->emit = false;
    *action = (struct bh_client_action){.kind = kind};
    return true;
}

bool bh_client_next(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    BH_ASSERT(bh_buf_room(out) >= BH_CLIENT_OUT_MIN && out->len == 0);
    switch (c->phase) {
    case BH_CLIENT_PHASE_NEW:
    case BH_CLIENT_PHASE_GREETING:
    case BH_CLIENT_PHASE_CLOSED:
        return false;
    case BH_CLIENT_PHASE_EHLO:
        return next_command(c, c->options->lmtp ? "LHLO" : "EHLO", c->options->helo, out, action);
    case BH_CLIENT_PHASE_HELO:
        return next_command(c, "HELO", c->options->helo, out, action);
    case BH_CLIENT_PHASE_STARTTLS:
        return next_command(c, "STARTTLS", BH_EMPTY, out, action);
    case BH_CLIENT_PHASE_TLS:
        return next_plain(c, BH_CLIENT_START_TLS, action);
    case BH_CLIENT_PHASE_CLEARANCE:
        return next_plain(c, BH_CLIENT_WANT_CLEARANCE, action);
    case BH_CLIENT_PHASE_AUTH:
        return bh_client_next_auth(c, out, action);
    case BH_CLIENT_PHASE_OPEN:
        if (next_done(c, action) || bh_client_next_open(c, out, action)) {
            return true;
        }
        if (c->phase == BH_CLIENT_PHASE_ENDING) {
            return next_ending(c, out, action);
        }
        return next_done(c, action); /* what can't go to this peer was decided on the way */
    case BH_CLIENT_PHASE_ENDING:
        return next_ending(c, out, action);
    }
    return false;
}
