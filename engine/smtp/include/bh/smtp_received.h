/* smtp_received.h - the one trace line that a relay adds (RFC 5321 4.4, RFC 3848, RFC 6531 4.3). */
#pragma once

#include "bh/buf.h"
#include "bh/ip.h"

#define BH_RECEIVED_MAX 2048 /* octets: always enough for bh_received_line */

struct bh_received {
    struct bh_slice helo; /* what the client called itself; any octets, printed safely */
    struct bh_ip client;  /* family 0: a Unix socket or a local program */
    struct bh_slice by;   /* our host name */
    bool extended;        /* EHLO */
    bool tls;
    bool authenticated; /* by AUTH; who it was is not told */
    bool smtputf8;
    struct bh_slice for_one; /* the recipient if there is exactly one, else empty: more would give
                                blind copies away */
    uint64_t queue_id;
    int64_t unix_ms;
};

/** Append "Received: ..." with its folds and final CRLF; no line exceeds 998 octets.
 * @return BH_OK, or BH_ELIMIT with less than BH_RECEIVED_MAX octets of room */
BH_MUST_USE enum bh_status bh_received_line(const struct bh_received *r, struct bh_buf *out);

/** "SMTP", "ESMTP" or "UTF8SMTP", the latter two with "S" for TLS, then "A" for AUTH (RFC 3848,
 * RFC 6531 4.3). Static storage. */
struct bh_slice bh_received_protocol(const struct bh_received *r);
