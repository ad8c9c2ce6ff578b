/* AUTH as a client (RFC 4954). The core chooses the mechanism and frames the exchange; what is said
 * in it comes from the driver, which alone holds the secret:
 *
 *     WANT ▶ ASKED ──response──▶ COMMAND ▶ REPLY ──235──▶ PHASE_OPEN
 *              ▲                   LINE ▶ REPLY ──4xx, 5xx──▶ the end
 *              └──────────334──────────────┘
 *              ASKED ──failed──▶ CANCEL ▶ CANCELLED ──any reply──▶ the end
 *
 * Whatever goes out here is typed credential: AUTH itself may carry the initial response. */
#include "client_internal.h"

/* The strongest first: those that prove who the server is, those that keep the password to
 * ourselves, those that give it away. A token gives less away than a password. */
static const struct {
    uint32_t bit;
    const char *name;
} mechanisms[] = {
    {BH_SASL_SCRAM_SHA_256, "SCRAM-SHA-256"},
    {BH_SASL_CRAM_MD5, "CRAM-MD5"},
    {BH_SASL_XOAUTH2, "XOAUTH2"},
    {BH_SASL_PLAIN, "PLAIN"},
    {BH_SASL_LOGIN, "LOGIN"},
};

const char *bh_sasl_name(uint32_t mechanism)
{
    for (size_t i = 0; i < BH_COUNT(mechanisms); i++) {
        if (mechanisms[i].bit == mechanism) {
            return mechanisms[i].name;
        }
    }
    return "";
}

static void end_with(struct bh_client *c, enum bh_happened happened, const char *why)
{
    struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_AUTH, happened);
    outcome.text = bh_slice_str(why);
    bh_client_end(c, &outcome, false);
}

void bh_client_start_auth(struct bh_client *c)
{
    const uint32_t common = c->facts.ehlo.auth & c->options->auth;
    bh_client_set_phase(c, BH_CLIENT_PHASE_AUTH);
    for (size_t i = 0; i < BH_COUNT(mechanisms) && c->sasl_mechanism == 0; i++) {
        c->sasl_mechanism = mechanisms[i].bit & common;
    }
    if (c->sasl_mechanism == 0) {
        end_with(c, BH_HAPPENED_AUTH_NOT_OFFERED,
                 bh_client_has(c, BH_EXT_AUTH) ? "none of our mechanisms is offered"
                                               : "AUTH is not offered");
        return;
    }
    c->facts.mechanism = c->sasl_mechanism;
    c->sasl = BH_SASL_STEP_WANT;
}

void bh_client_on_sasl(struct bh_client *c, struct bh_slice response, bool complete,
                       struct bh_now now)
{
    c->now = now;
    if (c->phase >= BH_CLIENT_PHASE_ENDING) {
        return;
    }
    BH_ASSERT(c->phase == BH_CLIENT_PHASE_AUTH && c->sasl == BH_SASL_STEP_ASKED);
    BH_ASSERT(response.len <= BH_CLIENT_AUTH_LINE_MAX - 2);
    c->active_ms = now.mono_ms;
    c->sasl_response = response;
    c->sasl_complete = complete;
    c->sasl = c->sasl_challenges == 0 ? BH_SASL_STEP_COMMAND : BH_SASL_STEP_LINE;
}

bool bh_client_cancel_auth(struct bh_client *c, const struct bh_outcome *outcome)
{
    if (c->phase != BH_CLIENT_PHASE_AUTH || c->sasl != BH_SASL_STEP_ASKED ||
        c->sasl_challenges == 0) {
        return false;
    }
    c->outcome = *outcome;
    c->active_ms = c->now.mono_ms;
    c->sasl = BH_SASL_STEP_CANCEL;
    return true;
}

void bh_client_end_cancelled(struct bh_client *c)
{
    const struct bh_outcome outcome = c->outcome;
    bh_client_end(c, &outcome, false);
}

static void on_challenge(struct bh_client *c, const struct bh_reply *reply)
{
    const bool whole = !reply->cut && bh_slice_find(reply->text, '\n') == reply->text.len;
    if (!whole || ++c->sasl_challenges > BH_CLIENT_CHALLENGES_MAX) {
        end_with(c, BH_HAPPENED_GARBLED, "a challenge of AUTH that can't be one");
        return;
    }
    if (c->sasl_held) {
        c->sasl_held = false;
        c->sasl_challenges = 0; /* it only asks for what the command had no room for */
        if (reply->text.len > 0) {
            end_with(c, BH_HAPPENED_GARBLED, "a challenge before the initial response");
            return;
        }
        c->sasl = BH_SASL_STEP_LINE;
        return;
    }
    c->sasl_challenge = bh_slice_trim(reply->text);
    c->sasl = BH_SASL_STEP_WANT;
}

static void on_verdict(struct bh_client *c, const struct bh_reply *reply)
{
    if (reply->code == 334) {
        on_challenge(c, reply);
    } else if (reply->code == 235 && !c->sasl_complete) {
        /* Whoever says yes before it could know, or has not proven itself, is not our peer. */
        end_with(c, BH_HAPPENED_GARBLED, "AUTH succeeded before the mechanism had come to its end");
    } else if (reply->code == 235) {
        c->facts.authenticated = c->sasl_mechanism;
        c->sasl_response = BH_EMPTY;
        bh_client_set_phase(c, BH_CLIENT_PHASE_OPEN);
        c->emit_ready = true;
    } else if (reply->code >= 400) {
        bh_client_end_by_reply(c, reply);
    } else {
        end_with(c, BH_HAPPENED_GARBLED, "a reply to AUTH that can't be one");
    }
}

void bh_client_on_auth_reply(struct bh_client *c, const struct bh_reply *reply)
{
    switch (c->sasl) {
    case BH_SASL_STEP_REPLY:
        on_verdict(c, reply);
        return;
    case BH_SASL_STEP_CANCEL:
    case BH_SASL_STEP_CANCELLED:
        bh_client_end_cancelled(c);
        return;
    case BH_SASL_STEP_WANT:
    case BH_SASL_STEP_ASKED:
    case BH_SASL_STEP_COMMAND:
    case BH_SASL_STEP_LINE:
        if (reply->code == 421) {
            bh_client_end_by_reply(c, reply);
        } else {
            end_with(c, BH_HAPPENED_GARBLED, "a reply that answers nothing");
        }
        return;
    }
}

static bool want(struct bh_client *c, struct bh_client_action *action)
{
    c->sasl = BH_SASL_STEP_ASKED;
    *action = (struct bh_client_action){.kind = BH_CLIENT_WANT_SASL,
                                        .mechanism = c->sasl_mechanism,
                                        .begin = c->sasl_challenges == 0,
                                        .challenge = c->sasl_challenge};
    return true;
}

/* As much of the response as there is room for, and the end of its line. */
static void put_response(struct bh_client *c, struct bh_buf *out)
{
    const size_t taken = bh_buf_add_cut(out, bh_slice_take(c->sasl_response, bh_buf_room(out) - 2));
    c->sasl_response = bh_slice_skip(c->sasl_response, taken);
    c->sasl = BH_SASL_STEP_LINE;
    if (c->sasl_response.len == 0) {
        bh_buf_put(out, BH_LIT("\r\n"));
        c->sasl = BH_SASL_STEP_REPLY;
    }
}

static void put_command(struct bh_client *c, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT("AUTH "));
    bh_buf_put(out, bh_slice_str(bh_sasl_name(c->sasl_mechanism)));
    const bool fits = out->len + 3 + c->sasl_response.len <= BH_CLIENT_AUTH_LINE_MAX;
    if (c->sasl_response.len > 0 && fits) {
        bh_buf_put_char(out, ' ');
        put_response(c, out);
    } else {
        c->sasl_held = c->sasl_response.len > 0;
        bh_buf_put(out, BH_LIT("\r\n"));
        c->sasl = BH_SASL_STEP_REPLY;
    }
}

bool bh_client_next_auth(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action)
{
    switch (c->sasl) {
    case BH_SASL_STEP_WANT:
        return want(c, action);
    case BH_SASL_STEP_ASKED:
    case BH_SASL_STEP_REPLY:
    case BH_SASL_STEP_CANCELLED:
        return false;
    case BH_SASL_STEP_COMMAND:
        put_command(c, out);
        break;
    case BH_SASL_STEP_LINE:
        put_response(c, out);
        break;
    case BH_SASL_STEP_CANCEL:
        bh_buf_put(out, BH_LIT("*\r\n"));
        c->sasl = BH_SASL_STEP_CANCELLED;
        break;
    }
    bh_client_emit(c, out, BH_OUTPUT_CREDENTIAL, action);
    return true;
}
