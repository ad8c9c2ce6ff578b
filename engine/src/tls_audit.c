#include "tls_audit.h"

#include <stdio.h>

enum bh_tls_version tls_version_of(const char *text)
{
    const struct bh_slice name = bh_slice_str(text);
    for (int v = BH_TLS_VERSION_1_0; v <= BH_TLS_VERSION_1_3; v++) {
        const struct bh_slice known = bh_slice_str(bh_tls_version_name((enum bh_tls_version)v));
        if (bh_slice_eq(name, known)) {
            return (enum bh_tls_version)v;
        }
    }
    return bh_slice_eq(name, BH_LIT("TLSv1")) ? BH_TLS_VERSION_1_0 : BH_TLS_VERSION_NONE;
}

/* A name of the certificate and an accepted one; ".example" accepts any name below it. */
static bool names_match(struct bh_slice certified, struct bh_slice accepted)
{
    if (accepted.len > 0 && accepted.ptr[0] == '.') {
        return certified.len > accepted.len && bh_slice_ends_nocase(certified, accepted);
    }
    if (bh_slice_starts(certified, BH_LIT("*."))) {
        return bh_slice_eq_nocase(bh_slice_skip(certified, 1),
                                  bh_slice_skip(accepted, bh_slice_find(accepted, '.')));
    }
    return bh_slice_eq_nocase(certified, accepted);
}

static bool is_named(const struct bh_names *accepted, const struct bh_tls_facts *facts)
{
    struct bh_slice rest = bh_slice_str(facts->names);
    while (rest.len > 0) {
        const size_t end = bh_slice_find(rest, ',');
        const struct bh_slice name = bh_slice_trim(bh_slice_take(rest, end));
        for (size_t i = 0; i < accepted->count; i++) {
            if (names_match(name, accepted->at[i])) {
                return true;
            }
        }
        rest = bh_slice_skip(rest, end + 1);
    }
    return false;
}

static void audit_verify(const struct bh_tls_demand *demand, const struct bh_tls_demand *met,
                         const struct bh_tls_facts *facts, char text[TLS_AUDIT_TEXT])
{
    /* The chain was checked with the authorities of the session's own demand, or the system's. */
    const struct bh_slice used = met->mode == BH_TLS_VERIFY ? met->ca_file : BH_EMPTY;
    if (!bh_slice_eq(used, demand->ca_file) || met->mode == BH_TLS_DANE) {
        snprintf(text, TLS_AUDIT_TEXT, "not known: its chain was checked with other authorities");
    } else if (!facts->verified) {
        snprintf(text, TLS_AUDIT_TEXT, "verify: %.140s", facts->verify_error);
    } else if (!is_named(&demand->names, facts)) {
        snprintf(text, TLS_AUDIT_TEXT, "verify: the certificate names %.120s", facts->names);
    }
}

static void audit_pin(const struct bh_tls_demand *demand, const struct bh_tls_facts *facts,
                      char text[TLS_AUDIT_TEXT])
{
    for (size_t i = 0; facts->has_spki && i < demand->pins.count; i++) {
        if (memcmp(facts->spki, demand->pins.at[i], BH_PIN_LEN) == 0) {
            return;
        }
    }
    snprintf(text, TLS_AUDIT_TEXT, "pin: its key is none of those pinned");
}

static void audit_dane(const struct bh_tls_demand *demand, const struct bh_tls_demand *met,
                       const struct bh_tls_facts *facts, char text[TLS_AUDIT_TEXT])
{
    if (bh_tls_demand_eq(demand, met)) {
        return;
    }
    bool others = false;
    for (size_t i = 0; i < demand->tlsa.count; i++) {
        const struct bh_tlsa *r = &demand->tlsa.at[i];
        const bool key_digest = r->usage == 3 && r->selector == 1 && r->matching == 1;
        others = others || !key_digest;
        if (key_digest && facts->has_spki &&
            bh_slice_eq(r->data, bh_slice(facts->spki, sizeof(facts->spki)))) {
            return;
        }
    }
    snprintf(text, TLS_AUDIT_TEXT, "%s",
             others ? "not known: its TLSA records are not all digests of its key"
                    : "dane: no TLSA record matches its key");
}

const char *tls_audit(const struct bh_tls_demand *demand, const struct bh_tls_demand *met,
                      const struct bh_tls_facts *facts, char text[TLS_AUDIT_TEXT])
{
    text[0] = '\0';
    if (!bh_tls_demand_requires_tls(demand)) {
        return text;
    }
    if (facts == NULL) {
        snprintf(text, TLS_AUDIT_TEXT, "%s: it is in clear text", bh_tls_mode_name(demand->mode));
        return text;
    }
    if (tls_version_of(facts->version) < demand->min_version) {
        snprintf(text, TLS_AUDIT_TEXT, "%s: %s is below %s", bh_tls_mode_name(demand->mode),
                 facts->version, bh_tls_version_name(demand->min_version));
        return text;
    }
    switch (demand->mode) {
    case BH_TLS_VERIFY:
        audit_verify(demand, met, facts, text);
        break;
    case BH_TLS_PIN:
        audit_pin(demand, facts, text);
        break;
    case BH_TLS_DANE:
        audit_dane(demand, met, facts, text);
        break;
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        break;
    }
    return text;
}
