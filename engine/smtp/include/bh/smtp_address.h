/* smtp_address.h - paths of MAIL and RCPT (RFC 5321 4.1.2 and 4.1.3, RFC 6531 3.3) read and made
 * into the one form the queue knows: local@domain, local-part byte for byte as given, domain a
 * lower-case A-label name or a canonical address literal. Pure: no allocation, no state. */
#pragma once

#include "bh/buf.h"
#include "bh/envelope.h"

enum bh_path_status {
    BH_PATH_OK,
    BH_PATH_SYNTAX,     /* not a path, or octets that no address may have (controls, NUL) */
    BH_PATH_LOCAL,      /* the local-part breaks the grammar */
    BH_PATH_DOMAIN,     /* the domain breaks the grammar, or IDNA refuses it */
    BH_PATH_LITERAL,    /* [..] that is no IPv4 or IPv6 address */
    BH_PATH_TOO_LONG,   /* domain above 255 octets, a label above 63, or all above BH_ADDRESS_MAX */
    BH_PATH_NEEDS_UTF8, /* octets above 127 without the SMTPUTF8 parameter */
    BH_PATH_NOT_UTF8,   /* octets above 127 that are not UTF-8 */
    BH_PATH_NO_DOMAIN,  /* a local-part alone */
};

/** What a path said. Slices are borrowed from the parsed line. */
struct bh_path {
    bool null;              /* <> */
    bool literal;           /* the domain is an address literal: `ip` holds it */
    bool utf8_local;        /* octets above 127 in the local-part: needs SMTPUTF8 all the way */
    bool utf8_domain;       /* U-labels: the domain must be converted to A-labels */
    struct bh_slice local;  /* as given, quotes included */
    struct bh_slice domain; /* as given; empty for a local-part alone */
    struct bh_ip ip;        /* of an address literal */
};

/** Converts a U-label domain to A-labels, appending to `ascii`. Must keep no state.
 * @return false if IDNA refuses the name or it does not fit */
typedef bool bh_to_ascii_fn(void *ctx, struct bh_slice domain, struct bh_buf *ascii);

/** Read one path, "<" to ">", off the front of *line. Source routes are read and dropped (RFC 5321
 * appendix C). A local-part longer than 64 octets is accepted, as RFC 5321 4.5.3.1 asks where one
 * can (bounce addresses have them); the whole is limited to BH_ADDRESS_MAX.
 *
 * @param line  advanced past the ">" on BH_PATH_OK
 * @return BH_PATH_OK also for <> and for a local-part alone (domain empty): the caller judges both
 */
BH_MUST_USE enum bh_path_status bh_path_parse(struct bh_slice *line, struct bh_path *path);

/** Append the address of a path that has a domain, in the form of struct bh_recipient.address.
 *
 * @param smtputf8  the transaction has SMTPUTF8; without it octets above 127 are refused
 * @param to_ascii  NULL refuses U-labels
 * @param address   needs room for BH_ADDRESS_MAX octets */
BH_MUST_USE enum bh_path_status bh_path_address(const struct bh_path *path, bool smtputf8,
                                                bh_to_ascii_fn *to_ascii, void *to_ascii_ctx,
                                                struct bh_buf *address);

/** A host name in ASCII: labels of letters, digits, hyphens and underscores, no trailing dot. */
bool bh_domain_valid(struct bh_slice domain);
