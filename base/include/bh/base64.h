/* base64.h - base64 as SASL in SMTP uses it (RFC 4648 section 4, RFC 4954 section 4): padded, no
 * line breaks. */
#pragma once

#include "bh/buf.h"

/** Octets of the text of `len` octets. `len` is far below SIZE_MAX / 2. */
static inline size_t bh_base64_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

/** Append the text of `octets`, all of it or nothing. @return BH_OK or BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_base64_encode(struct bh_slice octets, struct bh_buf *out);

/** Append the octets of `text`, all of them or nothing. Only the one right text of given octets is
 * taken: whole groups, padding where it belongs, unused bits 0, and nothing else.
 * @return BH_OK, BH_EPROTO (not base64), BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_base64_decode(struct bh_slice text, struct bh_buf *out);
