/* How long each step may take (RFC 5321 4.5.3.2). */
#include "client_internal.h"

static uint64_t dot_ms(const struct bh_client *c)
{
    const uint64_t ms = c->options->timeouts.dot_ms;
    return ms > BH_CLIENT_DOT_MIN_MS ? ms : BH_CLIENT_DOT_MIN_MS;
}

static uint64_t reply_timeout_ms(const struct bh_client *c)
{
    const struct bh_client_timeouts *t = &c->options->timeouts;
    switch ((enum bh_expect_kind)c->expect[c->expect_first].kind) {
    case BH_EXPECT_RSET:
        return t->rset_ms;
    case BH_EXPECT_MAIL:
        return t->mail_ms;
    case BH_EXPECT_RCPT:
        return t->rcpt_ms;
    case BH_EXPECT_DATA:
    case BH_EXPECT_LONE_DOT:
        return t->data_ms;
    case BH_EXPECT_CHUNK: /* as long as a dot may take: what was sent may be whole (RFC 3030 2) */
    case BH_EXPECT_DOT:
        return dot_ms(c);
    }
    return t->data_ms;
}

/* While octets wait for the socket: each block has its time, and content a rate to keep up, after
 * one block's time of grace. Once the end of a message is among them, giving up makes its delivery
 * uncertain: then patience is that of the dot. */
static uint64_t writing_deadline_ms(const struct bh_client *c)
{
    const uint64_t block_ms = c->ends_due > 0 ? dot_ms(c) : c->options->timeouts.block_ms;
    const uint64_t stalled_ms = c->active_ms + block_ms;
    if (!c->content_flows || c->options->min_rate == 0) {
        return stalled_ms;
    }
    const uint64_t sent = c->written > c->content_from ? c->written - c->content_from : 0;
    const uint64_t slow_ms = c->content_ms + block_ms + sent * 1000 / c->options->min_rate;
    return slow_ms < stalled_ms ? slow_ms : stalled_ms;
}

uint64_t bh_client_deadline_ms(const struct bh_client *c)
{
    const struct bh_client_timeouts *t = &c->options->timeouts;
    switch (c->phase) {
    case BH_CLIENT_PHASE_GREETING:
        return c->active_ms + t->greeting_ms;
    case BH_CLIENT_PHASE_EHLO:
    case BH_CLIENT_PHASE_HELO:
        return c->active_ms + t->ehlo_ms;
    case BH_CLIENT_PHASE_STARTTLS:
        return c->active_ms + t->starttls_ms;
    case BH_CLIENT_PHASE_TLS:
        return c->active_ms + t->tls_ms;
    case BH_CLIENT_PHASE_AUTH:
        return c->sasl == BH_SASL_STEP_ASKED ? UINT64_MAX : c->active_ms + t->auth_ms;
    case BH_CLIENT_PHASE_OPEN:
        if (c->emitted > c->written) {
            return writing_deadline_ms(c);
        }
        return c->expect_count > 0 ? c->active_ms + reply_timeout_ms(c) : UINT64_MAX;
    case BH_CLIENT_PHASE_NEW:
    case BH_CLIENT_PHASE_CLEARANCE:
    case BH_CLIENT_PHASE_ENDING:
    case BH_CLIENT_PHASE_CLOSED:
        return UINT64_MAX;
    }
    return UINT64_MAX;
}
