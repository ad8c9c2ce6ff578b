/* AUTH (RFC 4954). The core knows when it may come and how the exchange is framed; what is in it
 * the driver judges:
 *
 *     COMMAND ──AUTH──▶ DRIVER ──MORE──▶ CLIENT ──line──▶ DRIVER
 *                       DRIVER ──GRANTED, GARBLED, FAILED──▶ COMMAND
 *                       DRIVER ──DENIED──▶ DELAY ──time──▶ COMMAND, or the end of the session
 *
 * What a client pipelines behind AUTH waits its turn: whether it did cannot be told from how octets
 * arrive, and inside TLS nobody else can have put them there. */
#include "server_internal.h"

/* Why AUTH cannot come now, or NULL. */
static const char *refusal(const struct bh_server *s)
{
    if (s->options->auth.len == 0) {
        return "502 5.5.1 Command is not implemented";
    }
    if (!s->tls) {
        return "538 5.7.11 Authentication needs TLS";
    }
    if (!s->extended) {
        return "503 5.5.1 EHLO first";
    }
    if (s->user_len > 0) {
        return "503 5.5.1 Authenticated already";
    }
    return s->open != NULL ? "503 5.5.1 A transaction is open" : NULL;
}

static bool offered(const struct bh_server *s, struct bh_slice mechanism)
{
    struct bh_slice rest = s->options->auth;
    for (struct bh_slice name = bh_slice_word(&rest); name.len > 0; name = bh_slice_word(&rest)) {
        if (bh_slice_eq_nocase(name, mechanism)) {
            return true;
        }
    }
    return false;
}

/* Hand a response to the driver. */
static void ask(struct bh_server *s, struct bh_slice mechanism, struct bh_slice response)
{
    s->phase = BH_SERVER_PHASE_AUTH;
    s->auth_wait = BH_AUTH_WAIT_DRIVER;
    s->auth_mechanism = mechanism;
    s->auth_response = response;
    s->auth_due = true;
}

void bh_server_auth_command(struct bh_server *s, struct bh_slice args)
{
    const char *text = refusal(s);
    const struct bh_slice mechanism = bh_slice_word(&args);
    const struct bh_slice response = bh_slice_word(&args);
    if (text == NULL && (mechanism.len == 0 || bh_slice_trim(args).len > 0)) {
        text = "501 5.5.4 AUTH takes a mechanism, and an initial response or none";
    }
    if (text == NULL && !offered(s, mechanism)) {
        text = "504 5.5.4 Mechanism is not offered";
    }
    if (text != NULL) {
        bh_server_reply(s, text);
        return;
    }
    s->auth_no_response = response.len == 0;
    ask(s, mechanism, bh_slice_eq(response, BH_LIT("=")) ? BH_EMPTY : response);
}

void bh_server_auth_response(struct bh_server *s, struct bh_slice line)
{
    if (bh_slice_eq(line, BH_LIT("*"))) {
        s->phase = BH_SERVER_PHASE_COMMAND;
        bh_server_reply(s, "501 5.7.0 Authentication is cancelled");
        return;
    }
    s->auth_no_response = false;
    ask(s, BH_EMPTY, line);
}

bool bh_server_auth_delayed(const struct bh_server *s)
{
    return s->phase == BH_SERVER_PHASE_AUTH && s->auth_wait == BH_AUTH_WAIT_DELAY;
}

void bh_server_auth_denied(struct bh_server *s)
{
    const uint32_t most = s->options->limits.auth_failures;
    s->phase = BH_SERVER_PHASE_COMMAND;
    if (most > 0 && s->auth_failures >= most) {
        bh_server_reply_last(s, "421 4.7.0 Too many refused authentications");
    } else {
        bh_server_reply(s, "535 5.7.8 Authentication credentials are not right");
    }
}

/* Each refusal makes the next wait twice as long, so that guessing is slow. */
static void deny(struct bh_server *s)
{
    uint64_t delay_ms = s->options->limits.auth_delay_ms;
    for (uint32_t i = 0; i < s->auth_failures && delay_ms < BH_SERVER_AUTH_DELAY_MAX; i++) {
        delay_ms *= 2;
    }
    delay_ms = delay_ms < BH_SERVER_AUTH_DELAY_MAX ? delay_ms : BH_SERVER_AUTH_DELAY_MAX;
    s->auth_failures++;
    s->auth_wait = BH_AUTH_WAIT_DELAY;
    s->auth_until_ms = s->now.mono_ms + delay_ms;
    if (delay_ms == 0) {
        bh_server_auth_denied(s);
    }
}

static void challenge(struct bh_server *s, struct bh_slice text)
{
    char storage[BH_SERVER_CHALLENGE_MAX + 8];
    struct bh_buf line = bh_buf(storage, sizeof(storage));
    BH_ASSERT(text.len <= BH_SERVER_CHALLENGE_MAX);
    bh_buf_put(&line, BH_LIT("334 "));
    bh_buf_put(&line, text);
    bh_buf_put_char(&line, '\0');
    s->auth_wait = BH_AUTH_WAIT_CLIENT;
    bh_server_reply(s, storage);
}

static void grant(struct bh_server *s, struct bh_slice user)
{
    BH_ASSERT(user.len > 0 && user.len <= sizeof(s->user));
    memcpy(s->user, user.ptr, user.len);
    s->user_len = (uint16_t)user.len;
    s->may_relay = true;
    s->phase = BH_SERVER_PHASE_COMMAND;
    bh_server_reply(s, "235 2.7.0 Authentication succeeded");
}

void bh_server_on_auth(struct bh_server *s, enum bh_server_verdict verdict, struct bh_slice text,
                       struct bh_now now)
{
    bh_server_reply_sent(s);
    if (s->phase != BH_SERVER_PHASE_AUTH) {
        return; /* The session has ended while this was judged. */
    }
    BH_ASSERT(s->auth_wait == BH_AUTH_WAIT_DRIVER && !s->auth_due);
    s->now = now;
    s->active_ms = now.mono_ms;
    memset(s->line, 0, sizeof(s->line)); /* It held the response; nothing else is in it now. */
    switch (verdict) {
    case BH_SERVER_AUTH_MORE:
        challenge(s, text);
        return;
    case BH_SERVER_AUTH_GRANTED:
        grant(s, text);
        return;
    case BH_SERVER_AUTH_DENIED:
        deny(s);
        return;
    case BH_SERVER_AUTH_GARBLED:
        s->phase = BH_SERVER_PHASE_COMMAND;
        bh_server_reply(s, "501 5.5.2 The response is not what the mechanism speaks");
        return;
    case BH_SERVER_AUTH_FAILED:
        s->phase = BH_SERVER_PHASE_COMMAND;
        bh_server_reply(s, "454 4.7.0 Authentication is not possible now");
        return;
    }
}
