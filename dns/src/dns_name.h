/* dns_name.h - a domain name in wire form, lower case: how names are compared and compressed names
 * are read (RFC 1035 sections 3.1 and 4.1.4). */
#pragma once

#include "bh/dns_message.h"

#define BH_DNS_WIRE_MAX ((size_t)255)

struct bh_dns_wire {
    size_t len; /* with the root's zero octet; 1 is the root */
    uint8_t octets[BH_DNS_WIRE_MAX];
};

/** From text with escapes; one trailing dot is allowed. @return BH_OK or BH_EINVAL */
BH_MUST_USE enum bh_status bh_dns_wire_from_text(struct bh_slice text, struct bh_dns_wire *wire);
/** Text as dns_message.h describes it, appended; BH_DNS_NAME_MAX octets of room are enough.
 * @return BH_OK or BH_ELIMIT */
BH_MUST_USE enum bh_status bh_dns_wire_to_text(const struct bh_dns_wire *wire, struct bh_buf *out);
/** Read a possibly compressed name at *at, and move *at behind it.
 *
 * Every pointer must lead to before the place where the name, or the part pointed to, started: so
 * there is no loop. @return BH_OK or BH_EPROTO */
BH_MUST_USE enum bh_status bh_dns_wire_read(struct bh_slice message, size_t *at,
                                            struct bh_dns_wire *wire);
bool bh_dns_wire_eq(const struct bh_dns_wire *a, const struct bh_dns_wire *b);
