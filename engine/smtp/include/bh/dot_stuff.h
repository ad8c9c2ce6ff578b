/* dot_stuff.h - message data made safe for the SMTP DATA phase (RFC 5321 section 4.5.2).
 * Octets in, octets out: no socket, no clock, no allocation. Embed it by value in its owner. */
#pragma once

#include "bh/buf.h"
#include "bh/slice.h"
#include "bh/status.h"

enum bh_dot_state { BH_DOT_LINE_START, BH_DOT_IN_LINE, BH_DOT_AFTER_CR, BH_DOT_ENDED };

struct bh_dot_stuff {
    enum bh_dot_state state; /* private; zero-initialised is ready for a message */
};

/** Encode the next piece of a message, doubling every dot that opens a line.
 *
 * @param in   borrowed for this call; advanced past the octets encoded
 * @param out  appended to; its owner drains it between calls
 * @return BH_OK        all of *in is encoded
 *         BH_MORE      fewer than 2 octets of room: drain out, then call again with the same in
 *         BH_ECORRUPT  a CR or LF on its own, which no stored message may have: to some servers it
 *                      ends the message, and what follows is read as commands (RFC 5321 2.3.8) */
BH_MUST_USE enum bh_status bh_dot_stuff_feed(struct bh_dot_stuff *d, struct bh_slice *in,
                                             struct bh_buf *out);

/** End the message with its final dot, after a CRLF if the last line lacks one.
 *
 * @return BH_OK, or BH_MORE for fewer than 5 octets of room, or BH_ECORRUPT as above */
BH_MUST_USE enum bh_status bh_dot_stuff_end(struct bh_dot_stuff *d, struct bh_buf *out);

/** Are all line ends of a message's next piece CRLF? For content that goes unchanged (BDAT).
 * @return BH_OK, or BH_ECORRUPT as above */
BH_MUST_USE enum bh_status bh_dot_stuff_check(struct bh_dot_stuff *d, struct bh_slice in);
