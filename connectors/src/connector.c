#include "bh/connector.h"

#include <stdio.h>

#include "config_units.h"

const struct bh_tls_demand *bh_connector_tls_demand(const struct bh_connector *connector,
                                                    int64_t unix_ms, bool *lapsed)
{
    const struct bh_tls_policy *tls = &connector->tls;
    const bool has_exception = tls->exception.until_unix_ms != 0;
    *lapsed = has_exception && unix_ms >= tls->exception.until_unix_ms;
    return has_exception && !*lapsed ? &tls->exception_demand : &tls->demand;
}

bool bh_connector_allows_unauthenticated_auth(const struct bh_connector *connector, int64_t unix_ms)
{
    return unix_ms < connector->auth.unauthenticated_peer.until_unix_ms;
}

const char *bh_rate_text(struct bh_rate rate, char text[BH_RATE_TEXT_MAX])
{
    _Static_assert(BH_RATE_TEXT_MAX >= BH_UNITS_TEXT_MAX, "room for every rate");
    if (rate.count == 0) {
        snprintf(text, BH_RATE_TEXT_MAX, "unlimited");
        return text;
    }
    return bh_units_rate_text(rate, text);
}

uint64_t bh_times_nth_ms(const struct bh_times *times, uint64_t n)
{
    if (times->count == 0) {
        return 0;
    }
    return times->at_ms[n < times->count ? (size_t)n : times->count - 1];
}

/* Is the pattern found somewhere in the text? On a mismatch go back to the last '*' (one stands
 * before every pattern) and let it take one octet more, so the work is bounded by the product of
 * lengths. */
static bool matches_anywhere(struct bh_slice pattern, struct bh_slice text)
{
    size_t p = 0;
    size_t t = 0;
    size_t star = 0; /* position behind the last '*'; 0: the '*' that stands before every pattern */
    size_t star_text = 0; /* where the text went on behind it */
    while (p < pattern.len) {
        if (pattern.ptr[p] == '*') {
            p++;
            star = p;
            star_text = t;
        } else if (t < text.len &&
                   (pattern.ptr[p] == '?' || bh_lower(pattern.ptr[p]) == bh_lower(text.ptr[t]))) {
            p++;
            t++;
        } else if (star_text < text.len) {
            p = star;
            star_text++;
            t = star_text;
        } else {
            return false;
        }
    }
    return true;
}

static bool code_matches(uint16_t wanted, uint16_t code)
{
    if (wanted == 0) {
        return true;
    }
    return wanted == (wanted < 10 ? code / 100 : wanted < 100 ? code / 10 : code);
}

const struct bh_reply_rule *bh_reply_rules_match(const struct bh_reply_rules *rules, uint16_t code,
                                                 uint8_t enhanced_class, uint16_t enhanced_subject,
                                                 uint16_t enhanced_detail, struct bh_slice text)
{
    for (size_t i = 0; i < rules->count; i++) {
        const struct bh_reply_rule *rule = &rules->at[i];
        const bool enhanced =
            rule->enhanced_class == 0 ||
            (rule->enhanced_class == enhanced_class &&
             (rule->enhanced_subject < 0 || rule->enhanced_subject == enhanced_subject) &&
             (rule->enhanced_detail < 0 || rule->enhanced_detail == enhanced_detail));
        if (enhanced && code_matches(rule->code, code) &&
            (rule->pattern.len == 0 || matches_anywhere(rule->pattern, text))) {
            return rule;
        }
    }
    return NULL;
}
