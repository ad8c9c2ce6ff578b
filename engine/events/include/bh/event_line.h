/* event_line.h - one line of the event log: a flat JSON object, {"time":..,"evt":"..","msg":".."...
 * Looks at fields without a parser's tree, since an audit looks at millions. No file. */
#pragma once

#include "bh/slice.h"
#include "bh/status.h"

#define BH_EVENT_LINE_MAX 8192 /* octets without LF; longer ones are damage */

/** Is it a whole object of flat fields: strings, numbers, true, false, null? */
bool bh_event_well_formed(struct bh_slice line);
/** A string's value as written, escapes and all (names of ours have none).
 * @return false if there is no such field of that kind */
bool bh_event_text(struct bh_slice line, const char *key, struct bh_slice *value);
/** A whole number that is not negative. @return false likewise */
bool bh_event_number(struct bh_slice line, const char *key, uint64_t *value);
/** The queue id under "msg". @return false: it has none */
bool bh_event_id(struct bh_slice line, uint64_t *id);
