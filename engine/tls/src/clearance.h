/* clearance.h - the making of clearances, for the session code only. */
#pragma once

#include "bh/tls.h"

/** @param authenticated  the demand asked who the peer is, and it proved it; with tls only
 * @return NULL for want of memory */
struct bh_clearance *bh_clearance_create(bool tls, bool authenticated, uint64_t connection,
                                         uint64_t generation,
                                         const uint8_t digest[BH_TLS_DIGEST_LEN]);
