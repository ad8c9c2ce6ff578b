#include "bh/smtp_params.h"
#include "bh/utf8.h"
#include "content_scan.h"
#include "server_internal.h"

/* --- greetings and the small commands --- */

static bool printable(struct bh_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.ptr[i] <= ' ' || text.ptr[i] == 127) {
            return false;
        }
    }
    return true;
}

/* The name is only ever printed, so anything that prints is taken: many clients have no good one.
 */
static void hello(struct bh_server *s, struct bh_slice name, bool extended)
{
    if (name.len == 0 || name.len > sizeof(s->helo) || !printable(name)) {
        bh_server_reply(s, "501 5.5.4 A host name or address literal is needed");
        return;
    }
    bh_server_txn_discard(s);
    s->bdat_failed = false;
    memcpy(s->helo, name.ptr, name.len);
    s->helo_len = (uint16_t)name.len;
    s->greeted = true;
    s->extended = extended;
    if (extended) {
        bh_server_reply_ehlo(s);
        return;
    }
    char text[BH_DOMAIN_MAX + 8];
    struct bh_buf out = bh_buf(text, sizeof(text));
    bh_buf_put(&out, BH_LIT("250 "));
    bh_buf_put(&out, s->options->hostname);
    bh_buf_put_char(&out, '\0');
    bh_server_reply(s, text);
}

static void on_ehlo(struct bh_server *s, struct bh_slice args)
{
    hello(s, args, true);
}

static void on_helo(struct bh_server *s, struct bh_slice args)
{
    hello(s, args, false);
}

static void on_rset(struct bh_server *s, struct bh_slice args)
{
    if (args.len > 0) {
        bh_server_reply(s, "501 5.5.4 RSET takes no argument");
        return;
    }
    bh_server_txn_discard(s);
    s->bdat_failed = false;
    bh_server_reply(s, "250 2.0.0 Ok");
}

static void on_noop(struct bh_server *s, struct bh_slice args)
{
    (void)args;
    bh_server_reply(s, "250 2.0.0 Ok");
}

static void on_quit(struct bh_server *s, struct bh_slice args)
{
    if (args.len > 0) {
        bh_server_reply(s, "501 5.5.4 QUIT takes no argument");
        return;
    }
    bh_server_reply_last(s, "221 2.0.0 Bye");
}

static void on_vrfy(struct bh_server *s, struct bh_slice args)
{
    bh_server_reply(s, args.len > 0 ? "252 2.0.0 Not verified, but try to send"
                                    : "501 5.5.4 An address is needed");
}

static void on_help(struct bh_server *s, struct bh_slice args)
{
    (void)args;
    bh_server_reply(
        s, "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT STARTTLS AUTH");
}

static void on_starttls(struct bh_server *s, struct bh_slice args)
{
    if (s->tls) {
        bh_server_reply(s, "503 5.5.1 TLS is active");
    } else if (!s->options->starttls) {
        bh_server_reply(s, "502 5.5.1 STARTTLS is not offered");
    } else if (args.len > 0) {
        bh_server_reply(s, "501 5.5.4 STARTTLS takes no argument");
    } else {
        bh_server_txn_discard(s);
        bh_server_reply(s, "220 2.0.0 Ready for TLS");
        s->phase = BH_SERVER_PHASE_TLS;
    }
}

/* Known to SMTP, and not for a relay. */
static void on_refused(struct bh_server *s, struct bh_slice args)
{
    (void)args;
    bh_server_reply(s, "502 5.5.1 Command is not implemented");
}

/* --- MAIL and RCPT --- */

static const char *path_fault(enum bh_path_status status, bool sender)
{
    switch (status) {
    case BH_PATH_OK:
        break;
    case BH_PATH_LOCAL:
        return sender ? "501 5.1.7 The local-part of the sender is malformed"
                      : "501 5.1.3 The local-part of the recipient is malformed";
    case BH_PATH_DOMAIN:
        return sender ? "501 5.1.7 The sender's domain is no domain name"
                      : "501 5.1.3 The recipient's domain is no domain name";
    case BH_PATH_LITERAL:
        return sender ? "501 5.1.7 The sender's address literal is malformed"
                      : "501 5.1.3 The recipient's address literal is malformed";
    case BH_PATH_TOO_LONG:
        return sender ? "501 5.1.7 The sender's address is too long"
                      : "501 5.1.3 The recipient's address is too long";
    case BH_PATH_NEEDS_UTF8:
        return sender ? "550 5.6.7 The sender's address needs SMTPUTF8"
                      : "553 5.6.7 The recipient's address needs SMTPUTF8";
    case BH_PATH_NOT_UTF8:
        return "501 5.5.2 The address is not UTF-8";
    case BH_PATH_NO_DOMAIN:
        return sender ? "553 5.1.7 The sender needs a domain"
                      : "553 5.1.3 The recipient needs a domain";
    case BH_PATH_SYNTAX:
        break;
    }
    return "501 5.5.4 An address in angle brackets is needed";
}

static const char *params_fault(enum bh_params_status status)
{
    switch (status) {
    case BH_PARAMS_OK:
        break;
    case BH_PARAMS_UNKNOWN:
        return "555 5.5.4 A parameter is not recognized";
    case BH_PARAMS_BAD_VALUE:
        return "501 5.5.4 A parameter has a bad value";
    case BH_PARAMS_TWICE:
        return "501 5.5.4 A parameter is given twice";
    case BH_PARAMS_SYNTAX:
        break;
    }
    return "501 5.5.4 The parameters are malformed";
}

/* What follows "FROM:" or "TO:". Blanks after the colon are against RFC 5321 4.1.1.2, and common.
 */
static bool after_keyword(struct bh_slice *args, struct bh_slice keyword)
{
    if (!bh_slice_starts_nocase(*args, keyword)) {
        return false;
    }
    *args = bh_slice_skip(*args, keyword.len);
    while (args->len > 0 && args->ptr[0] == ' ') {
        *args = bh_slice_skip(*args, 1);
    }
    return true;
}

/* Why MAIL cannot come now, or NULL. */
static const char *mail_refusal(const struct bh_server *s)
{
    if (!s->greeted) {
        return "503 5.5.1 EHLO or HELO first";
    }
    if (s->open != NULL) {
        return "503 5.5.1 A transaction is open already";
    }
    if (s->bdat_failed) {
        return "503 5.5.1 A chunk failed, RSET first";
    }
    switch (s->gate) {
    case BH_SERVER_GATE_OPEN:
        break;
    case BH_SERVER_GATE_PAUSED:
        return "452 4.3.2 Intake is paused, try again later";
    case BH_SERVER_GATE_FULL:
        return "452 4.3.1 The queue is full, try again later";
    }
    return NULL;
}

static bool over_size(const struct bh_server *s, uint64_t size)
{
    const uint64_t limit = s->options->limits.message_size;
    return limit > 0 && size > limit;
}

static void open_transaction(struct bh_server *s, struct bh_slice sender,
                             const struct bh_mail_params *params)
{
    if (!bh_server_txn_open(s)) {
        bh_server_reply(s, "452 4.3.1 Out of memory, try again later");
        return;
    }
    struct bh_envelope *envelope = &s->open->envelope;
    s->open->declared_size = params->size;
    envelope->ret = params->ret;
    envelope->body = params->body;
    envelope->smtputf8 = params->smtputf8;
    envelope->requiretls = params->requiretls;
    if ((sender.len > 0 && !bh_arena_copy(&s->open->arena, sender, &envelope->sender)) ||
        (params->envid.len > 0 &&
         !bh_arena_copy(&s->open->arena, params->envid, &envelope->envid))) {
        bh_server_txn_discard(s);
        bh_server_reply(s, "452 4.3.1 Out of memory, try again later");
        return;
    }
    bh_server_reply(s, "250 2.1.0 Ok");
}

static void on_mail(struct bh_server *s, struct bh_slice args)
{
    const char *refusal = mail_refusal(s);
    if (refusal != NULL) {
        bh_server_reply(s, refusal);
        return;
    }
    struct bh_path path;
    enum bh_path_status path_status =
        after_keyword(&args, BH_LIT("FROM:")) ? bh_path_parse(&args, &path) : BH_PATH_SYNTAX;
    if (path_status != BH_PATH_OK) {
        bh_server_reply(s, path_fault(path_status, true));
        return;
    }
    struct bh_mail_params params;
    enum bh_params_status params_status = bh_mail_params_parse(args, &params);
    if (params_status == BH_PARAMS_OK && args.len > 0 && !s->extended) {
        params_status = BH_PARAMS_UNKNOWN; /* HELO offered none. */
    }
    if (params_status == BH_PARAMS_OK && !s->tls && (params.requiretls || params.has_auth)) {
        params_status = BH_PARAMS_UNKNOWN; /* Offered inside TLS only (RFC 8689 2, RFC 4954 4). */
    }
    if (params_status == BH_PARAMS_OK && s->options->auth.len == 0 && params.has_auth) {
        params_status = BH_PARAMS_UNKNOWN;
    }
    if (params_status != BH_PARAMS_OK) {
        bh_server_reply(s, params_fault(params_status));
        return;
    }
    char storage[BH_ADDRESS_MAX];
    struct bh_buf sender = bh_buf(storage, sizeof(storage));
    if (!path.null) {
        path_status = bh_path_address(&path, params.smtputf8, s->options->to_ascii,
                                      s->options->to_ascii_ctx, &sender);
    }
    if (path_status != BH_PATH_OK) {
        bh_server_reply(s, path_fault(path_status, true));
    } else if (over_size(s, params.size)) {
        bh_server_reply(s, "552 5.3.4 Message is too big");
    } else {
        open_transaction(s, bh_buf_slice(&sender), &params);
    }
}

/* <postmaster> alone is every host's own (RFC 5321 4.5.1); ours is an address somewhere else. */
static enum bh_path_status recipient_address(const struct bh_server *s, const struct bh_path *path,
                                             struct bh_buf *address)
{
    const struct bh_slice postmaster = s->options->postmaster;
    if (!path->null && path->domain.len == 0 && postmaster.len > 0 &&
        bh_slice_eq_nocase(path->local, BH_LIT("postmaster"))) {
        BH_ASSERT(postmaster.len <= BH_ADDRESS_MAX);
        bh_buf_put(address, postmaster);
        return BH_PATH_OK;
    }
    return bh_path_address(path, s->open->envelope.smtputf8, s->options->to_ascii,
                           s->options->to_ascii_ctx, address);
}

static void add_recipient(struct bh_server *s, const struct bh_recipient *recipient)
{
    const enum bh_status status = bh_server_txn_recipient(s, recipient);
    if (status == BH_OK) {
        bh_server_reply(s, "250 2.1.5 Ok");
    } else if (status == BH_ELIMIT) {
        bh_server_reply(s, "452 4.5.3 Too many recipients");
    } else {
        bh_server_reply(s, "452 4.3.1 Out of memory, try again later");
    }
}

/* Why RCPT cannot come now, or NULL. */
static const char *rcpt_refusal(const struct bh_server *s)
{
    if (s->open == NULL) {
        return "503 5.5.1 MAIL first";
    }
    return s->bdat ? "503 5.5.1 Content has begun" : NULL;
}

/* What this client lacks. */
static const char *relay_refusal(const struct bh_server *s)
{
    if (s->options->auth.len == 0) {
        return "550 5.7.1 Relaying is not allowed for this client";
    }
    return s->tls ? "530 5.7.0 Authentication is needed"
                  : "530 5.7.0 TLS and authentication are needed";
}

static void on_rcpt(struct bh_server *s, struct bh_slice args)
{
    const char *refusal = rcpt_refusal(s);
    if (refusal != NULL) {
        bh_server_reply(s, refusal);
        return;
    }
    s->rcpt_tried = true;
    struct bh_path path;
    enum bh_path_status path_status =
        after_keyword(&args, BH_LIT("TO:")) ? bh_path_parse(&args, &path) : BH_PATH_SYNTAX;
    if (path_status != BH_PATH_OK) {
        bh_server_reply(s, path_fault(path_status, false));
        return;
    }
    struct bh_rcpt_params params;
    enum bh_params_status params_status = bh_rcpt_params_parse(args, &params);
    if (params_status == BH_PARAMS_OK && args.len > 0 && !s->extended) {
        params_status = BH_PARAMS_UNKNOWN;
    }
    if (params_status == BH_PARAMS_OK && !bh_is_ascii(params.orcpt) &&
        !s->open->envelope.smtputf8) {
        params_status = BH_PARAMS_BAD_VALUE;
    }
    if (params_status != BH_PARAMS_OK) {
        bh_server_reply(s, params_fault(params_status));
        return;
    }
    char storage[BH_ADDRESS_MAX];
    struct bh_buf address = bh_buf(storage, sizeof(storage));
    path_status = recipient_address(s, &path, &address);
    if (path_status != BH_PATH_OK) {
        bh_server_reply(s, path_fault(path_status, false));
    } else if (!s->may_relay) {
        bh_server_reply(s, relay_refusal(s));
    } else if (s->options->routable != NULL &&
               !s->options->routable(s->options->routable_ctx, s->open->envelope.sender,
                                     bh_buf_slice(&address))) {
        bh_server_reply(s, "550 5.4.4 No connector serves this address");
    } else {
        const struct bh_recipient recipient = {bh_buf_slice(&address), params.orcpt, params.notify};
        add_recipient(s, &recipient);
    }
}

/* --- content --- */

static const char *content_refusal(const struct bh_server *s)
{
    if (s->bdat_failed) {
        return "503 5.5.1 A chunk failed, RSET first";
    }
    if (s->open == NULL) {
        return "503 5.5.1 MAIL first";
    }
    if (s->open->recipients_count == 0) {
        return s->rcpt_tried ? "554 5.5.1 No valid recipients" : "503 5.5.1 RCPT first";
    }
    if (!s->bdat && s->options->suspect != NULL &&
        s->options->suspect(s->options->suspect_ctx, s->open)) {
        return "451 4.3.0 This message is not read now, since we failed at it before";
    }
    return NULL;
}

static void begin_content(struct bh_server *s)
{
    bh_content_scan_reset(&s->scan);
    s->refused = false;
    s->begin_due = true;
}

static void on_data(struct bh_server *s, struct bh_slice args)
{
    const char *refusal = content_refusal(s);
    if (refusal == NULL && args.len > 0) {
        refusal = "501 5.5.4 DATA takes no argument";
    }
    if (refusal == NULL && s->bdat) {
        refusal = "503 5.5.1 Content has begun by BDAT";
    }
    if (refusal != NULL) {
        bh_server_reply(s, refusal);
        return;
    }
    begin_content(s);
    bh_server_reply(s, "354 End content with CRLF . CRLF");
    s->phase = BH_SERVER_PHASE_DATA;
    s->content_ms = s->now.mono_ms;
    s->content_octets = 0;
}

/* Without a size nobody knows where the next command starts, so the session cannot go on. */
static bool chunk_args(struct bh_slice args, uint64_t *len, bool *last)
{
    if (!bh_slice_u64(bh_slice_word(&args), UINT64_MAX, len)) {
        return false;
    }
    const struct bh_slice word = bh_slice_word(&args);
    *last = bh_slice_eq_nocase(word, BH_LIT("LAST"));
    return (word.len == 0 || *last) && bh_slice_word(&args).len == 0;
}

static void on_bdat(struct bh_server *s, struct bh_slice args)
{
    if (!chunk_args(args, &s->chunk_len, &s->bdat_last)) {
        bh_server_reply_last(s, "421 5.5.4 BDAT needs a size, and LAST or nothing");
        return;
    }
    s->chunk_left = s->chunk_len;
    s->chunk_reply = s->extended ? content_refusal(s) : "503 5.5.1 EHLO first";
    s->phase = BH_SERVER_PHASE_BDAT; /* The octets come in any case, and are read. */
    s->content_ms = s->now.mono_ms;
    s->content_octets = 0;
    if (s->chunk_reply != NULL) {
        return;
    }
    if (!s->bdat) {
        s->bdat = true;
        begin_content(s);
    }
    if (over_size(s, s->chunk_len)) {
        s->scan.fault = BH_CONTENT_TOO_BIG; /* None of it needs to be kept. */
    }
}

/* --- the table --- */

static const struct {
    struct bh_slice name;
    void (*run)(struct bh_server *s, struct bh_slice args);
} commands[] = {
    {{"MAIL", 4}, on_mail},    {{"RCPT", 4}, on_rcpt},
    {{"DATA", 4}, on_data},    {{"BDAT", 4}, on_bdat},
    {{"EHLO", 4}, on_ehlo},    {{"HELO", 4}, on_helo},
    {{"RSET", 4}, on_rset},    {{"NOOP", 4}, on_noop},
    {{"QUIT", 4}, on_quit},    {{"VRFY", 4}, on_vrfy},
    {{"HELP", 4}, on_help},    {{"STARTTLS", 8}, on_starttls},
    {{"EXPN", 4}, on_refused}, {{"TURN", 4}, on_refused},
    {{"ETRN", 4}, on_refused}, {{"AUTH", 4}, bh_server_auth_command},
    {{"SEND", 4}, on_refused}, {{"SOML", 4}, on_refused},
    {{"SAML", 4}, on_refused}, {{"ATRN", 4}, on_refused},
};

static bool has_control(struct bh_slice line)
{
    for (size_t i = 0; i < line.len; i++) {
        const unsigned char c = (unsigned char)line.ptr[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return true;
        }
    }
    return false;
}

void bh_server_command(struct bh_server *s, struct bh_slice line)
{
    s->commands++;
    if (s->options->limits.commands > 0 && s->commands > s->options->limits.commands) {
        bh_server_reply_last(s, "421 4.7.0 Too many commands in one session");
        return;
    }
    if (has_control(line)) {
        bh_server_reply(s, "500 5.5.2 A command has a control character");
        return;
    }
    struct bh_slice args = line;
    const struct bh_slice name = bh_slice_word(&args);
    args = bh_slice_trim(args);
    for (size_t i = 0; i < BH_COUNT(commands); i++) {
        if (bh_slice_eq_nocase(name, commands[i].name)) {
            commands[i].run(s, args);
            return;
        }
    }
    bh_server_reply(s, "500 5.5.2 Command is not recognized");
}
