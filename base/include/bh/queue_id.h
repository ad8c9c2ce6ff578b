/* queue_id.h - message ids as operators see them. An id is 64 bits, given in time order; its text
 * is 13 characters of Crockford's base 32, so that text order is id order, nothing looks like
 * something else, and case does not matter. */
#pragma once

#include "bh/slice.h"

#define BH_QUEUE_ID_TEXT 14 /* 13 characters and a NUL */

/** NUL-terminated. @return text */
const char *bh_queue_id_text(uint64_t id, char text[BH_QUEUE_ID_TEXT]);
/** Upper or lower case; I and L read as 1, O as 0. @return false if it is no id */
bool bh_queue_id_parse(struct bh_slice text, uint64_t *id);
