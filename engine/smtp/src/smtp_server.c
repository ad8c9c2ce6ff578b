#include "bh/smtp_server.h"

#include "content_scan.h"
#include "server_internal.h"

struct bh_server_limits bh_server_default_limits(void)
{
    return (struct bh_server_limits){
        .message_size = UINT64_C(25) << 20,
        .recipients = 1000,
        .commands = 0,
        .errors = 100,
        .hops = 50,
        .content_line = 65536,
        .command_line = BH_SERVER_LINE_MAX,
        .commits = BH_SERVER_COMMITS_MAX,
        .auth_failures = 3,
        .auth_delay_ms = 1000,
        .command_timeout_ms = 300000,
        .data_timeout_ms = 300000,
        .session_timeout_ms = 0,
        .min_rate = 0,
    };
}

void bh_server_init(struct bh_server *s, const struct bh_server_options *options, bool may_relay,
                    bool tls)
{
    BH_ASSERT(options->limits.commits >= 1);
    BH_ASSERT(options->limits.commits <= BH_SERVER_COMMITS_MAX);
    BH_ASSERT(options->limits.command_line >= 512);
    BH_ASSERT(options->limits.command_line <= BH_SERVER_LINE_MAX);
    BH_ASSERT(options->hostname.len > 0 && options->hostname.len <= BH_DOMAIN_MAX);
    memset(s, 0, sizeof(*s));
    s->options = options;
    s->may_relay = may_relay;
    s->tls = tls;
    s->in = BH_EMPTY;
}

void bh_server_fini(struct bh_server *s)
{
    bh_server_txn_free(s->open);
    bh_server_txn_free(s->spare);
    bh_server_txn_free(s->discarded);
    for (uint32_t i = 0; i < s->committing_count; i++) {
        bh_server_txn_free(s->committing[i]);
    }
    memset(s, 0, sizeof(*s));
}

void bh_server_start(struct bh_server *s, enum bh_server_greeting greeting, struct bh_now now)
{
    BH_ASSERT(s->phase == BH_SERVER_PHASE_NEW);
    s->now = now;
    s->started_ms = now.mono_ms;
    s->active_ms = now.mono_ms;
    s->phase = BH_SERVER_PHASE_COMMAND;
    char text[BH_DOMAIN_MAX + 40];
    struct bh_buf out = bh_buf(text, sizeof(text));
    switch (greeting) {
    case BH_SERVER_GREET:
        bh_buf_put(&out, BH_LIT("220 "));
        bh_buf_put(&out, s->options->hostname);
        bh_buf_put(&out, BH_LIT(" ESMTP bridgehead"));
        bh_buf_put_char(&out, '\0');
        bh_server_reply(s, text);
        return;
    case BH_SERVER_GREET_BUSY:
        bh_server_reply_last(s, "421 4.7.0 Too many sessions, try again later");
        return;
    case BH_SERVER_GREET_PAUSED:
        bh_server_reply_last(s, "421 4.3.2 Intake is paused, try again later");
        return;
    }
}

void bh_server_set_gate(struct bh_server *s, enum bh_server_gate gate)
{
    s->gate = gate;
}

void bh_server_allow_relay(struct bh_server *s)
{
    s->may_relay = true;
}

struct bh_slice bh_server_user(const struct bh_server *s)
{
    return bh_slice(s->user, s->user_len);
}

uint32_t bh_server_commits(const struct bh_server *s)
{
    return s->committing_count;
}

struct bh_slice bh_server_helo(const struct bh_server *s)
{
    return bh_slice(s->helo, s->helo_len);
}

bool bh_server_extended(const struct bh_server *s)
{
    return s->extended;
}

static bool is_content(const struct bh_server *s)
{
    return s->phase == BH_SERVER_PHASE_DATA || s->phase == BH_SERVER_PHASE_BDAT;
}

/* --- input --- */

/* Nothing is parsed while the driver owes actions, while replies have no room, or, between
 * transactions, while as many commits are awaited as may be. */
static bool may_parse(const struct bh_server *s)
{
    if (s->deliver_due || s->begin_due || (s->discarded != NULL && !s->discard_given) ||
        !bh_server_reply_fits(s)) {
        return false;
    }
    if (s->phase == BH_SERVER_PHASE_AUTH) {
        return s->auth_wait == BH_AUTH_WAIT_CLIENT;
    }
    return is_content(s) || (s->phase == BH_SERVER_PHASE_COMMAND &&
                             s->committing_count < s->options->limits.commits);
}

bool bh_server_wants_input(const struct bh_server *s)
{
    return s->in.len == 0 && may_parse(s);
}

void bh_server_on_bytes(struct bh_server *s, struct bh_slice bytes, struct bh_now now)
{
    s->now = now;
    s->active_ms = now.mono_ms;
    if (s->phase == BH_SERVER_PHASE_TLS) {
        s->phase = BH_SERVER_PHASE_CLOSING; /* Sent before TLS, to be read as if inside it. */
        return;
    }
    BH_ASSERT(bh_server_wants_input(s));
    s->in = bytes;
}

/* A line that is none. In an exchange of AUTH it ends that, too. */
static void bad_line(struct bh_server *s, const char *text)
{
    if (s->phase == BH_SERVER_PHASE_AUTH) {
        s->phase = BH_SERVER_PHASE_COMMAND;
    }
    bh_server_reply(s, text);
}

/* A line of commands, whole: without its CRLF in `line`. False: none yet, or it was bad and
 * answered. */
static bool take_line(struct bh_server *s, struct bh_slice *line)
{
    const size_t lf = bh_slice_find(s->in, '\n');
    const bool whole = lf < s->in.len;
    struct bh_slice piece = bh_slice_take(s->in, whole ? lf + 1 : lf);
    s->in = bh_slice_skip(s->in, piece.len);
    if (s->line_overflow || s->line_len + piece.len > s->options->limits.command_line) {
        s->line_overflow = !whole;
        s->line_len = 0;
        if (whole) {
            bad_line(s, s->phase == BH_SERVER_PHASE_AUTH ? "500 5.5.6 Line is too long"
                                                         : "500 5.5.2 Line is too long");
        }
        return false;
    }
    if (s->line_len > 0 || !whole) {
        memcpy(s->line + s->line_len, piece.ptr, piece.len);
        s->line_len = (uint16_t)(s->line_len + piece.len);
        piece = bh_slice(s->line, s->line_len);
    }
    if (!whole) {
        return false;
    }
    s->line_len = 0;
    if (piece.len < 2 || piece.ptr[piece.len - 2] != '\r') {
        bad_line(s, "500 5.5.2 A command ends in CRLF");
        return false;
    }
    *line = bh_slice_take(piece, piece.len - 2);
    return true;
}

/* The content of the open transaction is refused: nothing more of it goes to the driver. */
static void drop_faulty(struct bh_server *s)
{
    if (s->scan.fault != BH_CONTENT_FINE && s->open != NULL) {
        bh_server_txn_discard(s);
    }
}

/* The reply to content that was refused, by its faults or by the driver. */
static const char *content_refusal_text(const struct bh_server *s)
{
    return s->scan.fault != BH_CONTENT_FINE ? bh_server_fault_text(s->scan.fault)
                                            : bh_server_commit_text(s->refusal);
}

static void end_content(struct bh_server *s)
{
    s->phase = BH_SERVER_PHASE_COMMAND;
    if (s->open != NULL) {
        bh_server_txn_deliver(s);
    } else {
        bh_server_reply(s, content_refusal_text(s));
    }
}

static bool parse_data(struct bh_server *s, struct bh_slice *content)
{
    const struct bh_content_step step = bh_content_scan_data(&s->scan, s->in, &s->options->limits);
    s->in = bh_slice_skip(s->in, step.used);
    s->content_octets += step.used;
    drop_faulty(s);
    if (step.ended) {
        end_content(s);
    }
    *content = step.content;
    return step.content.len > 0 && s->open != NULL;
}

static void end_chunk(struct bh_server *s)
{
    const char *refusal = s->chunk_reply;
    s->phase = BH_SERVER_PHASE_COMMAND;
    if (refusal != NULL) {
        bh_server_reply(s, refusal);
        if (s->bdat_last) {
            s->bdat_failed = false;
            bh_server_txn_discard(s);
        }
        return;
    }
    if (s->bdat_last) {
        bh_content_scan_end(&s->scan);
        drop_faulty(s);
        end_content(s);
    } else if (s->open == NULL) {
        s->bdat_failed = true;
        bh_server_reply(s, content_refusal_text(s));
    } else {
        bh_server_reply(s, "250 2.0.0 Ok");
    }
}

static bool parse_chunk(struct bh_server *s, struct bh_slice *content)
{
    const struct bh_slice piece =
        bh_slice_take(s->in, s->chunk_left < s->in.len ? (size_t)s->chunk_left : s->in.len);
    s->in = bh_slice_skip(s->in, piece.len);
    s->chunk_left -= piece.len;
    s->content_octets += piece.len;
    if (s->chunk_reply == NULL) {
        (void)bh_content_scan_chunk(&s->scan, piece, &s->options->limits);
        drop_faulty(s);
    }
    *content = piece;
    const bool keep = s->chunk_reply == NULL && s->open != NULL && piece.len > 0;
    if (s->chunk_left == 0 && !keep) {
        end_chunk(s);
    }
    return keep;
}

/* One step on the input. True: an action has come of it. */
static bool parse(struct bh_server *s, struct bh_server_action *action)
{
    struct bh_slice content = BH_EMPTY;
    struct bh_slice line;
    bool keep = false;
    switch (s->phase) {
    case BH_SERVER_PHASE_COMMAND:
        if (take_line(s, &line)) {
            bh_server_command(s, line);
        }
        return false;
    case BH_SERVER_PHASE_AUTH:
        if (take_line(s, &line)) {
            bh_server_auth_response(s, line);
        }
        return false;
    case BH_SERVER_PHASE_DATA:
        keep = parse_data(s, &content);
        break;
    case BH_SERVER_PHASE_BDAT:
        keep = parse_chunk(s, &content);
        break;
    case BH_SERVER_PHASE_NEW:
    case BH_SERVER_PHASE_TLS:
    case BH_SERVER_PHASE_CLOSING:
    case BH_SERVER_PHASE_CLOSED:
        return false;
    }
    if (keep) {
        *action =
            (struct bh_server_action){.kind = BH_SERVER_CONTENT, .bytes = content, .txn = s->open};
    }
    return keep;
}

/* --- output --- */

/* What the driver must know before anything else is parsed. */
static bool next_due(struct bh_server *s, struct bh_server_action *action)
{
    if (s->discarded != NULL) {
        s->discard_given = true;
        *action = (struct bh_server_action){.kind = BH_SERVER_DISCARD, .txn = s->discarded};
        return true;
    }
    if (s->begin_due) {
        s->begin_due = false;
        s->began = true;
        *action = (struct bh_server_action){.kind = BH_SERVER_BEGIN, .txn = s->open};
        return true;
    }
    if (s->deliver_due) {
        s->deliver_due = false;
        *action = (struct bh_server_action){.kind = BH_SERVER_DELIVER,
                                            .txn = s->committing[s->committing_count - 1]};
        return true;
    }
    if (s->auth_due) {
        s->auth_due = false;
        *action = (struct bh_server_action){.kind = BH_SERVER_AUTH,
                                            .bytes = s->auth_response,
                                            .mechanism = s->auth_mechanism,
                                            .no_response = s->auth_no_response};
        return true;
    }
    return false;
}

static bool next_write(struct bh_server *s, struct bh_server_action *action)
{
    s->out_given = bh_server_sendable(s);
    *action =
        (struct bh_server_action){.kind = BH_SERVER_WRITE, .bytes = bh_slice(s->out, s->out_given)};
    return s->out_given > 0;
}

/* When every reply is out: shake hands or close. Octets behind STARTTLS were sent in clear by
 * somebody who hopes to have them read inside TLS (RFC 3207 6): that session ends. */
static bool next_end(struct bh_server *s, struct bh_server_action *action)
{
    if (s->committing_count > 0 || s->out_len > 0) {
        return false;
    }
    if (s->phase == BH_SERVER_PHASE_TLS && s->in.len > 0) {
        s->in = BH_EMPTY;
        s->phase = BH_SERVER_PHASE_CLOSING;
    }
    if (s->phase == BH_SERVER_PHASE_TLS && !s->tls_started) {
        s->tls_started = true;
        *action = (struct bh_server_action){.kind = BH_SERVER_START_TLS};
        return true;
    }
    if (s->phase == BH_SERVER_PHASE_CLOSING) {
        s->phase = BH_SERVER_PHASE_CLOSED;
        *action = (struct bh_server_action){.kind = BH_SERVER_CLOSE};
        return true;
    }
    return false;
}

static void drop_discarded(struct bh_server *s)
{
    if (s->discarded != NULL && s->discard_given) {
        bh_server_txn_recycle(s, s->discarded);
        s->discarded = NULL;
        s->discard_given = false;
    }
}

bool bh_server_next(struct bh_server *s, struct bh_server_action *action)
{
    bh_server_reply_sent(s);
    drop_discarded(s);
    for (;;) {
        if (next_due(s, action)) {
            return true;
        }
        const bool chunk_ended = s->phase == BH_SERVER_PHASE_BDAT && s->chunk_left == 0;
        if (!may_parse(s) || (s->in.len == 0 && !chunk_ended)) {
            break;
        }
        if (parse(s, action)) {
            return true;
        }
    }
    return next_write(s, action) || next_end(s, action);
}

/* --- events --- */

static void on_tls_up(struct bh_server *s)
{
    BH_ASSERT(s->phase == BH_SERVER_PHASE_TLS && s->tls_started);
    s->phase = BH_SERVER_PHASE_COMMAND;
    s->tls = true;
    s->greeted = false; /* All that was learned in clear is forgotten (RFC 3207 4.2). */
    s->extended = false;
    s->helo_len = 0;
    s->line_len = 0;
    s->line_overflow = false;
    s->bdat_failed = false;
}

static void on_lost(struct bh_server *s)
{
    if (s->deliver_due) { /* Not in the driver's hands yet, and the client will send it again. */
        s->deliver_due = false;
        s->open = s->committing[--s->committing_count];
    }
    bh_server_txn_discard(s);
    s->auth_due = false;
    s->phase = BH_SERVER_PHASE_CLOSED;
    s->in = BH_EMPTY;
    s->out_len = 0;
    s->out_given = 0;
    for (uint32_t i = 0; i < s->committing_count; i++) {
        s->committing[i]->reply_at = 0;
    }
}

static void end_session(struct bh_server *s, const char *text)
{
    if (s->phase == BH_SERVER_PHASE_TLS && s->tls_started) {
        s->phase = BH_SERVER_PHASE_CLOSING; /* Nobody could read a reply in a handshake. */
    } else if (s->phase != BH_SERVER_PHASE_CLOSING && s->phase != BH_SERVER_PHASE_CLOSED) {
        bh_server_reply_last(s, text);
    }
}

static bool session_over(const struct bh_server *s)
{
    const uint64_t limit = s->options->limits.session_timeout_ms;
    return limit > 0 && s->now.mono_ms >= s->started_ms + limit;
}

void bh_server_on_event(struct bh_server *s, enum bh_server_event event, struct bh_now now)
{
    bh_server_reply_sent(s);
    s->now = now;
    s->active_ms = now.mono_ms;
    switch (event) {
    case BH_SERVER_TLS_UP:
        on_tls_up(s);
        return;
    case BH_SERVER_TLS_FAILED:
        end_session(s, "");
        return;
    case BH_SERVER_TIMEOUT:
        if (bh_server_auth_delayed(s) && !session_over(s)) {
            bh_server_auth_denied(s);
            return;
        }
        end_session(s, "421 4.4.2 Time is up, try again");
        return;
    case BH_SERVER_DRAIN:
        end_session(s, "421 4.3.2 Going down, try again later");
        return;
    case BH_SERVER_LOST:
        on_lost(s);
        return;
    }
}

void bh_server_on_committed(struct bh_server *s, struct bh_server_txn *txn,
                            enum bh_server_commit result, uint64_t queue_id, struct bh_now now)
{
    BH_ASSERT(txn->committing);
    bh_server_reply_sent(s);
    s->now = now;
    s->active_ms = now.mono_ms;
    bh_server_reply_commit(s, txn, result, queue_id);
    if (s->phase == BH_SERVER_PHASE_CLOSED) {
        s->out_len = 0; /* The connection is gone: nobody is told. */
        for (uint32_t i = 0; i < s->committing_count; i++) {
            s->committing[i]->reply_at = 0;
        }
    }
    bh_server_txn_recycle(s, txn);
}

void bh_server_on_content_failed(struct bh_server *s, enum bh_server_commit why)
{
    BH_ASSERT(why != BH_SERVER_COMMITTED);
    if (s->open != NULL && s->began) {
        bh_server_reply_sent(s);
        s->refused = true;
        s->refusal = why;
        bh_server_txn_discard(s);
    }
}

/* When content must be there: an octet a while keeps no session. */
static uint64_t content_deadline(const struct bh_server *s)
{
    const struct bh_server_limits *limits = &s->options->limits;
    if (!is_content(s) || limits->min_rate == 0) {
        return UINT64_MAX;
    }
    return s->content_ms + limits->data_timeout_ms + s->content_octets * 1000 / limits->min_rate;
}

uint64_t bh_server_deadline_ms(const struct bh_server *s)
{
    const struct bh_server_limits *limits = &s->options->limits;
    const uint64_t whole =
        limits->session_timeout_ms > 0 ? s->started_ms + limits->session_timeout_ms : UINT64_MAX;
    if (bh_server_auth_delayed(s)) {
        return s->auth_until_ms < whole ? s->auth_until_ms : whole;
    }
    const bool ours = s->in.len > 0 || (s->committing_count > 0 && !is_content(s)) ||
                      (s->phase == BH_SERVER_PHASE_AUTH && s->auth_wait == BH_AUTH_WAIT_DRIVER);
    if (ours || s->phase == BH_SERVER_PHASE_NEW || s->phase == BH_SERVER_PHASE_CLOSING ||
        s->phase == BH_SERVER_PHASE_CLOSED) {
        return UINT64_MAX;
    }
    const uint64_t idle =
        s->active_ms + (is_content(s) ? limits->data_timeout_ms : limits->command_timeout_ms);
    const uint64_t slow = content_deadline(s);
    const uint64_t first = whole < idle ? whole : idle;
    return slow < first ? slow : first;
}
