/* tls_required.h - finds "TLS-Required: No" in a header as it passes (RFC 8689 section 3): the
 * sender would rather have the message delivered without TLS than not at all. Pure; a field may be
 * folded, and its octets may come in any pieces. A header with more than one such field says
 * nothing: the section allows one. */
#pragma once

#include "bh/smtp_server.h"

/** Octets within a header line, none of them CR or LF.
 * @param starts  the first of them opens the line */
void bh_tls_required_run(struct bh_tls_required *t, struct bh_slice run, bool starts);
/** The header has ended. Once. */
void bh_tls_required_end(struct bh_tls_required *t);
/** After the end: was it there, once, and nothing else? */
bool bh_tls_required_says_no(const struct bh_tls_required *t);
