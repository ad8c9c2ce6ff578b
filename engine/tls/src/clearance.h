/* clearance.h - the making of clearances, for the session code only. */
#pragma once

#include "bh/tls.h"

/** @return NULL for want of memory */
struct bh_clearance *bh_clearance_create(bool tls, uint64_t connection, uint64_t generation,
                                         const uint8_t digest[BH_TLS_DIGEST_LEN]);
