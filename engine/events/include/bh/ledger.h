/* ledger.h - records chained by hash, so that one that was changed, added or taken out later shows.
 *
 * A record is a flat JSON object on one line whose last keys are "seq" and "hash":
 *
 *     {"time":..,"evt":"delivered",..,"seq":18204,"hash":"9f3c..e1"}
 *
 * hash = SHA-256(hash of the record before it, as 32 octets | the line up to ,"hash"), lower-case
 * hexadecimal; the first record follows 32 zero octets and has seq 1. The chain shows tampering
 * with what it holds, not that its end was cut off: whoever wants that keeps the head elsewhere.
 * No file, no clock. */
#pragma once

#include "bh/buf.h"

#define BH_LEDGER_HASH 32                      /* octets */
#define BH_LEDGER_HEX (2 * BH_LEDGER_HASH + 1) /* as text, with a NUL */
#define BH_LEDGER_SEAL 128                     /* most octets that a seal adds to a line */

struct bh_ledger {
    uint8_t head[BH_LEDGER_HASH]; /* zero-initialised is the beginning of a chain */
    uint64_t seq;                 /* of the last record */
};

enum bh_ledger_verdict {
    BH_LEDGER_NO_RECORD, /* a line without a seal */
    BH_LEDGER_GOOD,
    BH_LEDGER_BROKEN, /* changed, or not the one that follows */
};

/** Make a record of an object: replace its final '}' by the seal, and go on to it.
 *
 * @param line  holds exactly the object; has BH_LEDGER_SEAL octets of room
 * @return BH_OK, or BH_ELIMIT (no room; nothing changed) */
BH_MUST_USE enum bh_status bh_ledger_seal(struct bh_ledger *ledger, struct bh_buf *line);

/** Does the line follow? After BH_LEDGER_BROKEN the chain goes on from what the line says of
 * itself, so that one change is one finding, or two.
 * @param line  without its LF */
enum bh_ledger_verdict bh_ledger_check(struct bh_ledger *ledger, struct bh_slice line);

/** Take the line, a record, as the last one. @return false if it is none */
bool bh_ledger_adopt(struct bh_ledger *ledger, struct bh_slice line);

/** Stand before the line, a record that tells in "prev" what it follows. @return false if it is no
 * such record */
bool bh_ledger_before(struct bh_ledger *ledger, struct bh_slice line);

/** The head in hexadecimal. @return text */
const char *bh_ledger_head_text(const struct bh_ledger *ledger, char text[BH_LEDGER_HEX]);
