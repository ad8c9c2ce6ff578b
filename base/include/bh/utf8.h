/* utf8.h - which octets are UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above
 * U+10FFFF. */
#pragma once

#include "bh/slice.h"

/** The length of the valid sequence at the start of s, 1 to 4; 0 if there is none or s is empty. */
size_t bh_utf8_len(struct bh_slice s);
/** All of it; the empty slice is valid. */
bool bh_utf8_valid(struct bh_slice s);
/** No octet above 127. */
bool bh_is_ascii(struct bh_slice s);
