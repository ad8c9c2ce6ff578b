/* tls_demand.h - everything a connector demands of TLS, as one value. Sessions and resumed TLS
 * sessions are keyed by a digest of its canonical octets, so two demands that differ in anything
 * that could let through what the other refuses have different octets (DESIGN section 6). */
#pragma once

#include "bh/wire.h"

enum bh_tls_mode {
    BH_TLS_OFF,           /* never STARTTLS */
    BH_TLS_OPPORTUNISTIC, /* where offered, unverified */
    BH_TLS_ENCRYPT,       /* TLS or no delivery, unverified */
    BH_TLS_VERIFY,        /* chain and name, or no delivery */
    BH_TLS_PIN,           /* one of the pinned keys, or no delivery */
    BH_TLS_DANE,          /* TLSA where usable, else `fallback` */
    BH_TLS_DANE_ONLY,     /* usable TLSA, or no delivery */
    BH_TLS_AUTO,          /* DANE, else an enforced MTA-STS policy, else opportunistic */
};

enum bh_tls_version {
    BH_TLS_VERSION_NONE, /* no bound stated */
    BH_TLS_VERSION_1_0,
    BH_TLS_VERSION_1_1,
    BH_TLS_VERSION_1_2,
    BH_TLS_VERSION_1_3,
};

/** Some names or paths: an array and its length. */
struct bh_names {
    const struct bh_slice *at;
    size_t count;
};

#define BH_PIN_LEN 32 /* octets: SHA-256 of a SubjectPublicKeyInfo */

struct bh_pins {
    const uint8_t (*at)[BH_PIN_LEN];
    size_t count;
};

#define BH_TLSA_DATA_MAX 4096 /* octets of one record's association data: a whole certificate */

/** A TLSA record that can be used (RFC 6698 section 2.1, RFC 7672 section 3.1): usage 2 (DANE-TA)
 * or 3 (DANE-EE), selector 0 or 1, matching type 0 to 2. */
struct bh_tlsa {
    uint8_t usage, selector, matching;
    struct bh_slice data;
};

struct bh_tlsa_set {
    const struct bh_tlsa *at;
    size_t count;
};

/** What TLS must be, in one of two forms.
 *
 * *Configured*: a connector's. dane and auto still have to be looked up, match_domain and
 * match_host are still to be replaced by names.
 *
 * *Effective*: what one session to one host must prove for one destination, made from a configured
 * one by looking up what the domain publishes (engine/policy). Its mode is off, opportunistic,
 * encrypt, verify, pin or dane; dane has usable records in `tlsa`; verify lists every accepted name
 * in `names`; match_domain and match_host are false. Sessions, clearances and resumption know
 * effective demands only. See bh_tls_demand_is_effective.
 *
 * Borrowed from its configuration, or from whoever made it effective. Every path is NUL-terminated
 * behind its slice. Fields that the mode gives no meaning are still here as configured; the
 * canonical octets leave them out. */
struct bh_tls_demand {
    enum bh_tls_mode mode;
    enum bh_tls_mode
        fallback;  /* of mode dane without usable TLSA: opportunistic, encrypt, verify */
    bool implicit; /* TLS from the first octet, no STARTTLS */
    enum bh_tls_version min_version; /* 1.2 by default */
    enum bh_tls_version max_version; /* NONE: no ceiling */
    bool match_domain;               /* verify: the recipient's domain is an accepted name */
    bool match_host;                 /* verify: the name of the host (MX or smarthost) is one */
    struct bh_names names;   /* verify, and dane with usage 2: accepted names; ".example" means any
                                name below it */
    struct bh_tlsa_set tlsa; /* effective dane: one must match. Never from a configuration */
    struct bh_slice ca_file; /* empty: the system's store */
    struct bh_pins pins;
    struct bh_slice ciphers;      /* OpenSSL list for TLS 1.2; empty: built-in */
    struct bh_slice ciphersuites; /* for TLS 1.3; empty: built-in */
    struct bh_slice sni;          /* empty: the host's name */
    struct bh_slice client_cert;  /* path; empty: none */
    struct bh_slice client_key;   /* path; with client_cert only */
};

/** "off", "dane-only" ...; static storage. */
const char *bh_tls_mode_name(enum bh_tls_mode mode);
/** "TLSv1.2" ..., "none"; static storage. */
const char *bh_tls_version_name(enum bh_tls_version version);

/** Append the canonical octets: a version octet, then each field that has meaning in the mode,
 * names and pins sorted without repeats. The same demand gives the same octets in every run and
 * build. Check w->overflow. Files count by path: a holder that keys by content adds a digest of the
 * file. */
void bh_tls_demand_write(const struct bh_tls_demand *demand, struct bh_writer *w);

/** Can a session be held to it as it stands? */
bool bh_tls_demand_is_effective(const struct bh_tls_demand *demand);

/** How strict a mode is, for lists and colours: 0 off, 1 opportunistic, 2 auto, 3 encrypt, 4 dane,
 * 5 verify and dane-only, 6 pin. Not for decisions: auto and encrypt each refuse what the other
 * lets pass. */
unsigned bh_tls_mode_rank(enum bh_tls_mode mode);

/** Must a delivery go over TLS, whatever the peer offers? True for encrypt, verify, pin, dane-only,
 * for dane with such a fallback, and for implicit TLS. */
bool bh_tls_demand_requires_tls(const struct bh_tls_demand *demand);

/** Does `a` let through a delivery that `b` refuses? By requirement of TLS, degree of
 * authentication, floor of the version, and more accepted names, pins or authorities. A replaced CA
 * file, pin set or name set that is neither wider nor narrower is a change of trust, not a
 * weakening: see bh_tls_demand_trust_differs. */
bool bh_tls_demand_is_weaker(const struct bh_tls_demand *a, const struct bh_tls_demand *b);
/** Equally strict in form, but trusting something else (CA file, pins, names, ciphers)? */
bool bh_tls_demand_trust_differs(const struct bh_tls_demand *a, const struct bh_tls_demand *b);
bool bh_tls_demand_eq(const struct bh_tls_demand *a, const struct bh_tls_demand *b);
