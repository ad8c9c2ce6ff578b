#include "bh/tls_demand.h"

#include "bh/assert.h"

#define DEMAND_VERSION 2 /* of the canonical octets */

const char *bh_tls_mode_name(enum bh_tls_mode mode)
{
    switch (mode) {
    case BH_TLS_OFF:
        return "off";
    case BH_TLS_OPPORTUNISTIC:
        return "opportunistic";
    case BH_TLS_ENCRYPT:
        return "encrypt";
    case BH_TLS_VERIFY:
        return "verify";
    case BH_TLS_PIN:
        return "pin";
    case BH_TLS_DANE:
        return "dane";
    case BH_TLS_DANE_ONLY:
        return "dane-only";
    case BH_TLS_AUTO:
        return "auto";
    }
    return "unknown";
}

const char *bh_tls_version_name(enum bh_tls_version version)
{
    switch (version) {
    case BH_TLS_VERSION_NONE:
        return "none";
    case BH_TLS_VERSION_1_0:
        return "TLSv1.0";
    case BH_TLS_VERSION_1_1:
        return "TLSv1.1";
    case BH_TLS_VERSION_1_2:
        return "TLSv1.2";
    case BH_TLS_VERSION_1_3:
        return "TLSv1.3";
    }
    return "unknown";
}

unsigned bh_tls_mode_rank(enum bh_tls_mode mode)
{
    switch (mode) {
    case BH_TLS_OFF:
        return 0;
    case BH_TLS_OPPORTUNISTIC:
        return 1;
    case BH_TLS_AUTO:
        return 2;
    case BH_TLS_ENCRYPT:
        return 3;
    case BH_TLS_DANE:
        return 4;
    case BH_TLS_VERIFY:
    case BH_TLS_DANE_ONLY:
        return 5;
    case BH_TLS_PIN:
        return 6;
    }
    return 0;
}

/* Strictness has two sides that do not follow from each other. */
struct degree {
    unsigned encryption; /* 0 none, 1 where offered, 2 always */
    unsigned
        authentication; /* 0 none, 1 where the domain publishes it, 2 always, 3 by pinned key */
};

static struct degree degree_of_mode(enum bh_tls_mode mode)
{
    switch (mode) {
    case BH_TLS_OFF:
        break;
    case BH_TLS_OPPORTUNISTIC:
        return (struct degree){1, 0};
    case BH_TLS_ENCRYPT:
        return (struct degree){2, 0};
    case BH_TLS_DANE:
    case BH_TLS_AUTO:
        return (struct degree){1, 1};
    case BH_TLS_VERIFY:
    case BH_TLS_DANE_ONLY:
        return (struct degree){2, 2};
    case BH_TLS_PIN:
        return (struct degree){2, 3};
    }
    return (struct degree){0, 0};
}

static struct degree degree_of(const struct bh_tls_demand *demand)
{
    struct degree degree = degree_of_mode(demand->mode);
    if (demand->mode == BH_TLS_DANE && demand->tlsa.count > 0) {
        return degree_of_mode(BH_TLS_DANE_ONLY);
    }
    if (demand->mode == BH_TLS_DANE) {
        const struct degree fallback = degree_of_mode(demand->fallback);
        degree.encryption = fallback.encryption;
        if (fallback.authentication > degree.authentication) {
            degree.authentication = fallback.authentication;
        }
    }
    if (demand->implicit && demand->mode != BH_TLS_OFF) {
        degree.encryption = 2;
    }
    return degree;
}

bool bh_tls_demand_requires_tls(const struct bh_tls_demand *demand)
{
    return degree_of(demand).encryption == 2;
}

static bool uses_tlsa(const struct bh_tls_demand *demand)
{
    return demand->mode == BH_TLS_DANE && demand->tlsa.count > 0;
}

/* Do the names of the certificate count? */
static bool uses_names(const struct bh_tls_demand *demand)
{
    return demand->mode == BH_TLS_VERIFY || uses_tlsa(demand) ||
           (demand->mode == BH_TLS_DANE && demand->fallback == BH_TLS_VERIFY);
}

/* Does the chain to the CA count? */
static bool uses_ca(const struct bh_tls_demand *demand)
{
    return (uses_names(demand) && !uses_tlsa(demand)) || demand->mode == BH_TLS_AUTO;
}

bool bh_tls_demand_is_effective(const struct bh_tls_demand *demand)
{
    if (demand->match_domain || demand->match_host) {
        return false;
    }
    switch (demand->mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        return true;
    case BH_TLS_VERIFY:
        return demand->names.count > 0;
    case BH_TLS_PIN:
        return demand->pins.count > 0;
    case BH_TLS_DANE:
        return demand->tlsa.count > 0;
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        break;
    }
    return false;
}

static bool uses_pins(const struct bh_tls_demand *demand)
{
    return demand->mode == BH_TLS_PIN;
}

/* ---- sets ---- */

static bool has_name(const struct bh_names *names, struct bh_slice name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (bh_slice_eq(names->at[i], name)) {
            return true;
        }
    }
    return false;
}

/* Every accepted name of `a` is one of `b`, by itself or by a ".suffix" above it. */
static bool names_within(const struct bh_tls_demand *a, const struct bh_tls_demand *b)
{
    if ((a->match_domain && !b->match_domain) || (a->match_host && !b->match_host)) {
        return false;
    }
    for (size_t i = 0; i < a->names.count; i++) {
        const struct bh_slice name = a->names.at[i];
        bool covered = has_name(&b->names, name);
        for (size_t j = 0; j < b->names.count && !covered; j++) {
            const struct bh_slice suffix = b->names.at[j];
            covered = suffix.len > 0 && suffix.ptr[0] == '.' && name.len > suffix.len &&
                      bh_slice_ends_nocase(name, suffix);
        }
        if (!covered) {
            return false;
        }
    }
    return true;
}

static bool pins_within(const struct bh_pins *a, const struct bh_pins *b)
{
    for (size_t i = 0; i < a->count; i++) {
        bool found = false;
        for (size_t j = 0; j < b->count && !found; j++) {
            found = memcmp(a->at[i], b->at[j], BH_PIN_LEN) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

bool bh_tls_demand_is_weaker(const struct bh_tls_demand *a, const struct bh_tls_demand *b)
{
    const struct degree da = degree_of(a);
    const struct degree db = degree_of(b);
    if (da.encryption < db.encryption || da.authentication < db.authentication) {
        return true;
    }
    if (db.encryption > 0 && a->min_version < b->min_version) {
        return true;
    }
    /* A narrower or different set is not weaker; a wider one is. */
    if (uses_names(a) && uses_names(b) && names_within(b, a) && !names_within(a, b)) {
        return true;
    }
    if (uses_pins(a) && uses_pins(b) && pins_within(&b->pins, &a->pins) &&
        !pins_within(&a->pins, &b->pins)) {
        return true;
    }
    /* From one authority to all of the system's store. */
    return uses_ca(a) && uses_ca(b) && a->ca_file.len == 0 && b->ca_file.len > 0;
}

bool bh_tls_demand_trust_differs(const struct bh_tls_demand *a, const struct bh_tls_demand *b)
{
    if (bh_tls_demand_is_weaker(a, b) || bh_tls_demand_is_weaker(b, a)) {
        return false;
    }
    return !bh_tls_demand_eq(a, b);
}

/* ---- canonical octets ---- */

/* The smallest name above `after` (NULL: the smallest), or NULL: sorted without repeats, in place.
 */
static const struct bh_slice *next_name(const struct bh_names *names, const struct bh_slice *after)
{
    const struct bh_slice *best = NULL;
    for (size_t i = 0; i < names->count; i++) {
        const struct bh_slice *name = &names->at[i];
        if ((after == NULL || bh_slice_cmp(*name, *after) > 0) &&
            (best == NULL || bh_slice_cmp(*name, *best) < 0)) {
            best = name;
        }
    }
    return best;
}

static const uint8_t *next_pin(const struct bh_pins *pins, const uint8_t *after)
{
    const uint8_t *best = NULL;
    for (size_t i = 0; i < pins->count; i++) {
        const uint8_t *pin = pins->at[i];
        if ((after == NULL || memcmp(pin, after, BH_PIN_LEN) > 0) &&
            (best == NULL || memcmp(pin, best, BH_PIN_LEN) < 0)) {
            best = pin;
        }
    }
    return best;
}

static void write_names(const struct bh_tls_demand *demand, struct bh_writer *w)
{
    bh_write_u8(w, (uint8_t)((demand->match_domain ? 1 : 0) | (demand->match_host ? 2 : 0)));
    for (const struct bh_slice *name = next_name(&demand->names, NULL);
         name != NULL && !w->overflow; name = next_name(&demand->names, name)) {
        bh_write_slice(w, *name);
    }
    bh_write_slice(w, BH_EMPTY); /* no name is empty: the end */
}

/* By usage, selector, matching type, then data. */
static int tlsa_cmp(const struct bh_tlsa *a, const struct bh_tlsa *b)
{
    const int heads[] = {a->usage - b->usage, a->selector - b->selector, a->matching - b->matching};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        if (heads[i] != 0) {
            return heads[i];
        }
    }
    return bh_slice_cmp(a->data, b->data);
}

static const struct bh_tlsa *next_tlsa(const struct bh_tlsa_set *set, const struct bh_tlsa *after)
{
    const struct bh_tlsa *best = NULL;
    for (size_t i = 0; i < set->count; i++) {
        const struct bh_tlsa *tlsa = &set->at[i];
        if ((after == NULL || tlsa_cmp(tlsa, after) > 0) &&
            (best == NULL || tlsa_cmp(tlsa, best) < 0)) {
            best = tlsa;
        }
    }
    return best;
}

static void write_tlsa(const struct bh_tls_demand *demand, struct bh_writer *w)
{
    for (const struct bh_tlsa *tlsa = next_tlsa(&demand->tlsa, NULL); tlsa != NULL && !w->overflow;
         tlsa = next_tlsa(&demand->tlsa, tlsa)) {
        bh_write_u8(w, 1);
        bh_write_u8(w, tlsa->usage);
        bh_write_u8(w, tlsa->selector);
        bh_write_u8(w, tlsa->matching);
        bh_write_slice(w, tlsa->data);
    }
    bh_write_u8(w, 0);
}

static void write_pins(const struct bh_tls_demand *demand, struct bh_writer *w)
{
    for (const uint8_t *pin = next_pin(&demand->pins, NULL); pin != NULL && !w->overflow;
         pin = next_pin(&demand->pins, pin)) {
        bh_write_slice(w, bh_slice(pin, BH_PIN_LEN));
    }
    bh_write_slice(w, BH_EMPTY);
}

void bh_tls_demand_write(const struct bh_tls_demand *demand, struct bh_writer *w)
{
    bh_write_u8(w, DEMAND_VERSION);
    bh_write_u8(w, (uint8_t)demand->mode);
    if (demand->mode == BH_TLS_OFF) {
        return;
    }
    if (demand->mode == BH_TLS_DANE) {
        bh_write_u8(w, (uint8_t)demand->fallback);
    }
    bh_write_u8(w, demand->implicit ? 1 : 0);
    bh_write_u8(w, (uint8_t)demand->min_version);
    bh_write_u8(w, (uint8_t)demand->max_version);
    bh_write_slice(w, demand->ciphers);
    bh_write_slice(w, demand->ciphersuites);
    bh_write_slice(w, demand->sni);
    bh_write_slice(w, demand->client_cert);
    bh_write_slice(w, demand->client_key);
    if (uses_ca(demand)) {
        bh_write_slice(w, demand->ca_file);
    }
    if (uses_names(demand)) {
        write_names(demand, w);
    }
    if (uses_pins(demand)) {
        write_pins(demand, w);
    }
    if (demand->mode == BH_TLS_DANE) {
        write_tlsa(demand, w);
    }
}

static bool same_names(const struct bh_names *a, const struct bh_names *b)
{
    const struct bh_slice *x = next_name(a, NULL);
    const struct bh_slice *y = next_name(b, NULL);
    while (x != NULL && y != NULL && bh_slice_eq(*x, *y)) {
        x = next_name(a, x);
        y = next_name(b, y);
    }
    return x == NULL && y == NULL;
}

static bool same_tlsa(const struct bh_tlsa_set *a, const struct bh_tlsa_set *b)
{
    const struct bh_tlsa *x = next_tlsa(a, NULL);
    const struct bh_tlsa *y = next_tlsa(b, NULL);
    while (x != NULL && y != NULL && tlsa_cmp(x, y) == 0) {
        x = next_tlsa(a, x);
        y = next_tlsa(b, y);
    }
    return x == NULL && y == NULL;
}

/* Exactly when the canonical octets are equal; a test holds the two together. */
bool bh_tls_demand_eq(const struct bh_tls_demand *a, const struct bh_tls_demand *b)
{
    if (a->mode != b->mode) {
        return false;
    }
    if (a->mode == BH_TLS_OFF) {
        return true;
    }
    const bool heads = (a->mode != BH_TLS_DANE || a->fallback == b->fallback) &&
                       a->implicit == b->implicit && a->min_version == b->min_version &&
                       a->max_version == b->max_version && bh_slice_eq(a->ciphers, b->ciphers) &&
                       bh_slice_eq(a->ciphersuites, b->ciphersuites) &&
                       bh_slice_eq(a->sni, b->sni) && bh_slice_eq(a->client_cert, b->client_cert) &&
                       bh_slice_eq(a->client_key, b->client_key);
    const bool names =
        !uses_names(a) || (a->match_domain == b->match_domain && a->match_host == b->match_host &&
                           same_names(&a->names, &b->names));
    const bool pins =
        !uses_pins(a) || (pins_within(&a->pins, &b->pins) && pins_within(&b->pins, &a->pins));
    const bool tlsa = a->mode != BH_TLS_DANE || same_tlsa(&a->tlsa, &b->tlsa);
    return heads && names && pins && tlsa && uses_ca(a) == uses_ca(b) &&
           (!uses_ca(a) || bh_slice_eq(a->ca_file, b->ca_file));
}
