/* envelope.h - what SMTP says about a message outside its content (RFC 5321, 3461, 6152, 6531,
 * 8689). Plain values; all slices are borrowed from an arena that the holder names. */
#pragma once

#include "bh/ip.h"
#include "bh/slice.h"

#define BH_ADDRESS_MAX 320 /* octets of local@domain: 64 + 1 + 255 (RFC 5321 4.5.3.1) */
#define BH_DOMAIN_MAX 255  /* octets */
#define BH_ENVID_MAX 100   /* octets as received, xtext (RFC 3461 4.4) */
#define BH_ORCPT_MAX 500   /* octets as received, type;xtext (RFC 3461 4.2) */
#define BH_RECIPIENTS_PER_ENTRY 100

enum bh_body { BH_BODY_7BIT, BH_BODY_8BITMIME };
enum bh_ret { BH_RET_UNSET, BH_RET_FULL, BH_RET_HDRS };

/* NOTIFY (RFC 3461 4.1) as bits; 0: the parameter was absent. */
enum {
    BH_NOTIFY_NEVER = 1,
    BH_NOTIFY_SUCCESS = 2,
    BH_NOTIFY_FAILURE = 4,
    BH_NOTIFY_DELAY = 8,
};

struct bh_recipient {
    struct bh_slice address; /* local@domain, no brackets; local-part byte for byte as given; domain
                                a lower-case A-label name without trailing dot, or "[192.0.2.1]" */
    struct bh_slice orcpt;   /* as received ("rfc822;xtext"), empty if absent */
    uint8_t notify;          /* BH_NOTIFY_ bits */
};

struct bh_envelope {
    struct bh_slice sender; /* local@domain; empty for <> */
    struct bh_slice envid;  /* as received (xtext), empty if absent */
    enum bh_ret ret;
    enum bh_body body; /* the larger of what was declared and what the content holds */
    bool smtputf8;     /* the SMTPUTF8 parameter was given */
    bool requiretls;   /* RFC 8689 */
    bool tls_optional; /* the header says TLS-Required: No, and REQUIRETLS was not given */
    uint64_t size;     /* octets of the stored content, with CRLFs, our Received line included */
};

/** The domain of local@domain: what follows the last '@'; empty if there is none. */
struct bh_slice bh_address_domain(struct bh_slice address);
/** The local part: what precedes the last '@'; all of it if there is none. */
struct bh_slice bh_address_local(struct bh_slice address);
/** Is it xtext (RFC 3461 4): printable ASCII without '=', '+' only before two upper-case hex
 * digits? Empty is. */
bool bh_xtext_valid(struct bh_slice s);
