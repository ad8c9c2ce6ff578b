/* Which reports are wanted, and which status they give. */
#include "bh/dsn.h"

const char *bh_dsn_action_name(enum bh_dsn_action action)
{
    switch (action) {
    case BH_DSN_FAILED:
        return "failed";
    case BH_DSN_DELAYED:
        return "delayed";
    case BH_DSN_DELIVERED:
        return "delivered";
    case BH_DSN_RELAYED:
        return "relayed";
    case BH_DSN_EXPANDED:
        return "expanded";
    }
    return "failed";
}

bool bh_dsn_wanted(uint8_t notify, enum bh_dsn_action action, bool sender_is_null)
{
    if (sender_is_null || (notify & BH_NOTIFY_NEVER) != 0) {
        return false;
    }
    switch (action) {
    case BH_DSN_FAILED:
        return notify == 0 || (notify & BH_NOTIFY_FAILURE) != 0;
    case BH_DSN_DELAYED:
        return notify == 0 || (notify & BH_NOTIFY_DELAY) != 0;
    case BH_DSN_DELIVERED:
    case BH_DSN_RELAYED:
    case BH_DSN_EXPANDED:
        return (notify & BH_NOTIFY_SUCCESS) != 0;
    }
    return false;
}

/* The detail of RFC 3463 nearest to what happened, without its class. */
static struct bh_dsn_status nearest(const struct bh_outcome *outcome)
{
    switch (outcome->happened) {
    case BH_HAPPENED_REPLY:
        return outcome->stage == BH_STAGE_AUTH   ? (struct bh_dsn_status){0, 7, 0}
               : outcome->stage == BH_STAGE_MAIL ? (struct bh_dsn_status){0, 1, 0}
               : outcome->stage == BH_STAGE_RCPT ? (struct bh_dsn_status){0, 1, 0}
                                                 : (struct bh_dsn_status){0, 0, 0};
    case BH_HAPPENED_REFUSED:
    case BH_HAPPENED_UNREACHABLE:
        return (struct bh_dsn_status){0, 4, 1};
    case BH_HAPPENED_TIMEOUT:
        return outcome->stage == BH_STAGE_CONNECT ? (struct bh_dsn_status){0, 4, 1}
                                                  : (struct bh_dsn_status){0, 4, 2};
    case BH_HAPPENED_LOST:
    case BH_HAPPENED_TOO_SLOW:
    case BH_HAPPENED_UNCERTAIN_CRASH:
        return (struct bh_dsn_status){0, 4, 2};
    case BH_HAPPENED_GARBLED:
    case BH_HAPPENED_INJECTED:
        return (struct bh_dsn_status){0, 5, 0};
    case BH_HAPPENED_NXDOMAIN:
        return (struct bh_dsn_status){0, 1, 2};
    case BH_HAPPENED_NULL_MX:
        return (struct bh_dsn_status){0, 1, 10}; /* RFC 7505 */
    case BH_HAPPENED_NO_ADDRESS:
    case BH_HAPPENED_ALL_FILTERED:
        return (struct bh_dsn_status){0, 4, 4};
    case BH_HAPPENED_DNS_FAILED:
    case BH_HAPPENED_DNS_BOGUS:
    case BH_HAPPENED_DNS_TIMEOUT:
        return (struct bh_dsn_status){0, 4, 3};
    case BH_HAPPENED_LOOP:
        return (struct bh_dsn_status){0, 4, 6};
    case BH_HAPPENED_TLS_NOT_OFFERED:
        return (struct bh_dsn_status){0, 7, 10}; /* RFC 7672: encryption needed */
    case BH_HAPPENED_NEEDS_REQUIRETLS:
        return (struct bh_dsn_status){0, 7, 30}; /* RFC 8689 */
    case BH_HAPPENED_TLS_FAILED:
    case BH_HAPPENED_TLS_UNVERIFIED:
        return (struct bh_dsn_status){0, 7, 5};
    case BH_HAPPENED_AUTH_NOT_OFFERED:
        return (struct bh_dsn_status){0, 7, 4};
    case BH_HAPPENED_TOO_BIG:
        return (struct bh_dsn_status){0, 3, 4};
    case BH_HAPPENED_NEEDS_8BITMIME:
        return (struct bh_dsn_status){0, 6, 3};
    case BH_HAPPENED_NEEDS_SMTPUTF8:
        return (struct bh_dsn_status){0, 6, 7}; /* RFC 6531 */
    case BH_HAPPENED_BAD_CONTENT:
        return (struct bh_dsn_status){0, 6, 0};
    case BH_HAPPENED_OUR_CONFIG:
    case BH_HAPPENED_OUR_SECRET:
    case BH_HAPPENED_OUR_SOURCE:
        return (struct bh_dsn_status){0, 3, 5};
    case BH_HAPPENED_OUR_NETWORK:
        return (struct bh_dsn_status){0, 4, 4};
    case BH_HAPPENED_OUR_RESOURCE:
        return (struct bh_dsn_status){0, 3, 0};
    case BH_HAPPENED_OPERATOR:
        return (struct bh_dsn_status){0, 7, 0};
    case BH_HAPPENED_EXPIRED:
        return (struct bh_dsn_status){0, 4, 7};
    }
    return (struct bh_dsn_status){0, 0, 0};
}

struct bh_dsn_status bh_dsn_status_of(const struct bh_outcome *outcome, enum bh_dsn_action action,
                                      bool expired)
{
    const bool success =
        action == BH_DSN_DELIVERED || action == BH_DSN_RELAYED || action == BH_DSN_EXPANDED;
    const uint8_t want = success ? 2 : (action == BH_DSN_DELAYED || expired) ? 4 : 5;
    if (outcome->enhanced_class == want) {
        return (struct bh_dsn_status){want, outcome->enhanced_subject, outcome->enhanced_detail};
    }
    if (success) {
        /* RFC 3463 3.2: other address status of a success is 2.1.5, a valid destination. */
        return action == BH_DSN_EXPANDED ? (struct bh_dsn_status){2, 0, 0}
                                         : (struct bh_dsn_status){2, 1, 5};
    }
    if (expired) {
        return (struct bh_dsn_status){4, 4, 7};
    }
    struct bh_dsn_status status = nearest(outcome);
    status.class = want;
    return status;
}

static int hex_value(char c)
{
    if (bh_is_digit(c)) {
        return c - '0';
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; /* RFC 3461 4: upper case only. */
}

enum bh_status bh_xtext_decode(struct bh_slice xtext, struct bh_buf *out)
{
    while (xtext.len > 0) {
        char c = xtext.ptr[0];
        size_t used = 1;
        if (c < '!' || c > '~' || c == '=') {
            return BH_EPROTO;
        }
        if (c == '+') {
            if (xtext.len < 3 || hex_value(xtext.ptr[1]) < 0 || hex_value(xtext.ptr[2]) < 0) {
                return BH_EPROTO;
            }
            c = (char)(hex_value(xtext.ptr[1]) * 16 + hex_value(xtext.ptr[2]));
            used = 3;
        }
        if (bh_buf_room(out) < 1) {
            return BH_ELIMIT;
        }
        bh_buf_put_char(out, c);
        xtext = bh_slice_skip(xtext, used);
    }
    return BH_OK;
}
