#include "tls_seen.h"

#include <stdio.h>

const char *tls_proof_name(enum tls_proof proof)
{
    switch (proof) {
    case TLS_PROOF_CLEAR:
        return "clear";
    case TLS_PROOF_NONE:
        return "unauthenticated";
    case TLS_PROOF_NAME:
        return "name";
    case TLS_PROOF_PIN:
        return "pin";
    case TLS_PROOF_DANE:
        return "dane";
    }
    return "clear";
}

static enum tls_proof proof_of(const struct bh_tls_demand *demand)
{
    switch (demand->mode) {
    case BH_TLS_VERIFY:
        return TLS_PROOF_NAME;
    case BH_TLS_PIN:
        return TLS_PROOF_PIN;
    case BH_TLS_DANE:
    case BH_TLS_DANE_ONLY:
        /* Only an effective demand has records; a configured one proves nothing by its mode. */
        return demand->tlsa.count > 0 ? TLS_PROOF_DANE : TLS_PROOF_NONE;
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
    case BH_TLS_AUTO:
        return TLS_PROOF_NONE;
    }
    return TLS_PROOF_NONE;
}

void tls_seen_want(struct tls_seen *seen, const struct bh_tls_demand *demand,
                   struct bh_slice origin)
{
    *seen = (struct tls_seen){.known = false};
    snprintf(seen->wanted, sizeof(seen->wanted), "%s", bh_tls_mode_name(demand->mode));
    snprintf(seen->origin, sizeof(seen->origin), "%.*s", BH_FMT(bh_slice_take(origin, 159)));
}

void tls_seen_inside(struct tls_seen *seen, const struct bh_tls_demand *demand,
                     const struct bh_tls_facts *facts)
{
    seen->known = true;
    seen->proof = proof_of(demand);
    snprintf(seen->version, sizeof(seen->version), "%s", facts->version);
    snprintf(seen->cipher, sizeof(seen->cipher), "%s", facts->cipher);
    seen->resumed = facts->resumed;
    seen->would_verify = facts->verified && facts->name_matched;
    /* "name mx.example, CA Root", "pin ab12", "TLSA 3 1 1 ab12": the word for how is told by
     * `proof`. */
    struct bh_slice matched = bh_slice_str(facts->proof);
    if (seen->proof == TLS_PROOF_NAME || seen->proof == TLS_PROOF_PIN) {
        matched = bh_slice_skip(matched, bh_slice_find(matched, ' ') + 1);
    }
    snprintf(seen->matched, sizeof(seen->matched), "%.*s", BH_FMT(bh_slice_take(matched, 255)));
    snprintf(seen->reason, sizeof(seen->reason), "%s", facts->verify_error);
    seen->offered = true;
    snprintf(seen->issuer, sizeof(seen->issuer), "%.127s", facts->issuer);
    seen->not_after_unix_ms = facts->not_after_unix * 1000;
    seen->has_spki = facts->has_spki;
    memcpy(seen->spki, facts->spki, sizeof(seen->spki));
}

void tls_seen_in_clear(struct tls_seen *seen, const char *reason, bool offered)
{
    seen->offered = offered;
    seen->known = true;
    seen->proof = TLS_PROOF_CLEAR;
    seen->version[0] = seen->cipher[0] = seen->matched[0] = '\0';
    seen->has_spki = false;
    snprintf(seen->reason, sizeof(seen->reason), "%s", reason);
}

const char *tls_seen_got(const struct tls_seen *seen, char text[TLS_SEEN_TEXT])
{
    if (!seen->known || seen->version[0] == '\0') {
        snprintf(text, TLS_SEEN_TEXT, "%s", seen->known ? "clear" : "unknown");
    } else {
        snprintf(text, TLS_SEEN_TEXT, "%s %s, %s%s%s%s", seen->version, seen->cipher,
                 tls_proof_name(seen->proof), seen->proof > TLS_PROOF_NONE ? " " : "",
                 seen->proof > TLS_PROOF_NONE ? seen->matched : "",
                 seen->resumed ? ", resumed" : "");
    }
    return text;
}

const char *tls_seen_text(const struct tls_seen *seen, char text[TLS_SEEN_TEXT])
{
    char got[TLS_SEEN_TEXT];
    snprintf(text, TLS_SEEN_TEXT, "%s:%.360s", seen->wanted, tls_seen_got(seen, got));
    return text;
}

const char *tls_seen_failed(const struct bh_tls_demand *demand, const struct bh_outcome *outcome,
                            char text[TLS_SEEN_TEXT])
{
    const char *wanted = bh_tls_mode_name(demand->mode);
    if (outcome->happened == BH_HAPPENED_TLS_NOT_OFFERED) {
        snprintf(text, TLS_SEEN_TEXT, "%s:none, STARTTLS is not offered", wanted);
    } else if (outcome->stage == BH_STAGE_STARTTLS || outcome->stage == BH_STAGE_TLS) {
        const struct bh_slice said = outcome->text.len > 0
                                         ? bh_slice_take(outcome->text, TLS_SEEN_TEXT - 64)
                                         : bh_slice_str(bh_happened_name(outcome->happened));
        snprintf(text, TLS_SEEN_TEXT, "%s:none, %s%.*s", wanted,
                 demand->implicit ? "" : "offered; ", BH_FMT(said));
    } else {
        snprintf(text, TLS_SEEN_TEXT, "%s:none", wanted);
    }
    return text;
}

const char *tls_seen_spki(const struct tls_seen *seen, char text[2 * BH_PIN_LEN + 1])
{
    text[0] = '\0';
    for (size_t i = 0; seen->has_spki && i < sizeof(seen->spki); i++) {
        snprintf(text + 2 * i, 3, "%02x", (unsigned)seen->spki[i]);
    }
    return text;
}
