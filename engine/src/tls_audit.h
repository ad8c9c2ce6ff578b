/* tls_audit.h - what a stricter demand would have refused of a session that served (DESIGN 6): the
 * audit mode of a connector, so that an operator can tighten without an outage. Pure. */
#pragma once

#include "bh/tls.h"

#define TLS_AUDIT_TEXT 160

/** "TLSv1.2", as facts have it, and OpenSSL's "TLSv1" for the first; NONE: no version's name. */
enum bh_tls_version tls_version_of(const char *text);

/** Would this demand have refused the session?
 *
 * @param demand  effective
 * @param met     the demand that the session met
 * @param facts   NULL: it is in clear text
 * @param text    receives why, or "not known: ..." where the facts do not tell; "" if it would not
 * @return text */
const char *tls_audit(const struct bh_tls_demand *demand, const struct bh_tls_demand *met,
                      const struct bh_tls_facts *facts, char text[TLS_AUDIT_TEXT]);
