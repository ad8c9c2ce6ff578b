#include "bh/envelope.h"

#include "bh/outcome.h"

static size_t last_at(struct bh_slice address)
{
    size_t i = address.len;
    while (i > 0 && address.ptr[i - 1] != '@') {
        i--;
    }
    return i; /* 0: none; else the index behind it */
}

struct bh_slice bh_address_domain(struct bh_slice address)
{
    const size_t at = last_at(address);
    return at > 0 ? bh_slice_skip(address, at) : BH_EMPTY;
}

struct bh_slice bh_address_local(struct bh_slice address)
{
    const size_t at = last_at(address);
    return at > 0 ? bh_slice_take(address, at - 1) : address;
}

const char *bh_stage_name(enum bh_stage stage)
{
    static const char *const names[] = {
        [BH_STAGE_NONE] = "none",       [BH_STAGE_ROUTE] = "route",
        [BH_STAGE_CONNECT] = "connect", [BH_STAGE_GREETING] = "greeting",
        [BH_STAGE_EHLO] = "ehlo",       [BH_STAGE_STARTTLS] = "starttls",
        [BH_STAGE_TLS] = "tls",         [BH_STAGE_AUTH] = "auth",
        [BH_STAGE_MAIL] = "mail",       [BH_STAGE_RCPT] = "rcpt",
        [BH_STAGE_DATA] = "data",       [BH_STAGE_BODY] = "body",
        [BH_STAGE_DOT] = "dot",         [BH_STAGE_IDLE] = "idle",
    };
    return (size_t)stage < sizeof(names) / sizeof(names[0]) ? names[stage] : "unknown";
}

const char *bh_happened_name(enum bh_happened happened)
{
    static const char *const names[] = {
        [BH_HAPPENED_REPLY] = "reply",
        [BH_HAPPENED_TIMEOUT] = "timeout",
        [BH_HAPPENED_LOST] = "connection_lost",
        [BH_HAPPENED_REFUSED] = "connection_refused",
        [BH_HAPPENED_UNREACHABLE] = "unreachable",
        [BH_HAPPENED_TOO_SLOW] = "too_slow",
        [BH_HAPPENED_GARBLED] = "garbled_reply",
        [BH_HAPPENED_INJECTED] = "injected_reply",
        [BH_HAPPENED_NXDOMAIN] = "no_such_domain",
        [BH_HAPPENED_NULL_MX] = "null_mx",
        [BH_HAPPENED_NO_ADDRESS] = "no_address",
        [BH_HAPPENED_DNS_FAILED] = "dns_failed",
        [BH_HAPPENED_DNS_BOGUS] = "dns_bogus",
        [BH_HAPPENED_DNS_TIMEOUT] = "dns_timeout",
        [BH_HAPPENED_ALL_FILTERED] = "no_allowed_target",
        [BH_HAPPENED_LOOP] = "mail_loop",
        [BH_HAPPENED_TLS_NOT_OFFERED] = "tls_not_offered",
        [BH_HAPPENED_TLS_FAILED] = "tls_failed",
        [BH_HAPPENED_TLS_UNVERIFIED] = "tls_unverified",
        [BH_HAPPENED_AUTH_NOT_OFFERED] = "auth_not_offered",
        [BH_HAPPENED_TOO_BIG] = "too_big",
        [BH_HAPPENED_NEEDS_8BITMIME] = "needs_8bitmime",
        [BH_HAPPENED_NEEDS_SMTPUTF8] = "needs_smtputf8",
        [BH_HAPPENED_NEEDS_REQUIRETLS] = "needs_requiretls",
        [BH_HAPPENED_BAD_CONTENT] = "bad_content",
        [BH_HAPPENED_OUR_CONFIG] = "our_config",
        [BH_HAPPENED_OUR_SECRET] = "our_secret",
        [BH_HAPPENED_OUR_SOURCE] = "our_source_address",
        [BH_HAPPENED_OUR_NETWORK] = "our_network",
        [BH_HAPPENED_OUR_RESOURCE] = "our_resources",
        [BH_HAPPENED_UNCERTAIN_CRASH] = "uncertain_after_crash",
        [BH_HAPPENED_OPERATOR] = "operator",
        [BH_HAPPENED_EXPIRED] = "expired",
    };
    return (size_t)happened < sizeof(names) / sizeof(names[0]) ? names[happened] : "unknown";
}

static bool is_upper_hex(char c)
{
    return bh_is_digit(c) || (c >= 'A' && c <= 'F');
}

bool bh_xtext_valid(struct bh_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        if (c == '+') {
            if (s.len - i < 3 || !is_upper_hex(s.ptr[i + 1]) || !is_upper_hex(s.ptr[i + 2])) {
                return false;
            }
            i += 2;
        } else if (c < '!' || c > '~' || c == '=') {
            return false;
        }
    }
    return true;
}
