/* content_scan.h - message content as it comes in: dots taken off, its end found, its faults noted.
 * Content ends at CRLF "." CRLF and nowhere else: a server that also ends it at a bare LF lets one
 * message smuggle in another (RFC 5321 2.3.8 and 4.1.1.4). After a fault reading goes on to that
 * end. */
#pragma once

#include "bh/smtp_server.h"

struct bh_content_step {
    struct bh_slice content; /* to keep; borrowed from the input */
    size_t used;             /* octets of input done with */
    bool ended;              /* DATA only: the final dot was read */
};

void bh_content_scan_reset(struct bh_content_scan *scan);
/** The next piece of content sent by DATA. Call until all input is used or the content has ended.
 */
struct bh_content_step bh_content_scan_data(struct bh_content_scan *scan, struct bh_slice in,
                                            const struct bh_server_limits *limits);
/** The same for octets of a BDAT chunk, which has no dots and no end of its own. */
struct bh_content_step bh_content_scan_chunk(struct bh_content_scan *scan, struct bh_slice in,
                                             const struct bh_server_limits *limits);
/** No more octets will come: notes a CR that nothing followed. */
void bh_content_scan_end(struct bh_content_scan *scan);
