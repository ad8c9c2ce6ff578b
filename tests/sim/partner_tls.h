/* partner_tls.h - the partners' side of TLS: of the double (partner_tls_double.c), or OpenSSL's
 * over memory (partner_tls_real.c, in bh-sim-tls). */
#pragma once

#include "world.h"

struct partner_tls;

typedef void partner_tls_put(void *ctx, const char *octets, size_t len);

struct partner_tls_sink {
    partner_tls_put *plain;  /* what the daemon said */
    partner_tls_put *cipher; /* to the wire */
    void *ctx;
};

enum partner_tls_state { PARTNER_TLS_SHAKING, PARTNER_TLS_UP, PARTNER_TLS_FAILED };

/** The hash of a key of a host: each generation has another. */
void partner_tls_key(const struct host *host, unsigned generation, uint8_t spki[BH_PIN_LEN]);
/** A file with authorities that a connector with `verify` has to name; NULL: none. */
const char *partner_tls_ca_file(void);
/** With the host's key of its present generation.
 * @param bad  shows a certificate that is not the host's  @param shown  what it shows */
struct partner_tls *partner_tls_create(const struct host *host, bool bad, struct tls_shown *shown);
void partner_tls_destroy(struct partner_tls *tls);
enum partner_tls_state partner_tls_hear(struct partner_tls *tls, const char *octets, size_t len,
                                        const struct partner_tls_sink *sink);
void partner_tls_say(struct partner_tls *tls, const char *octets, size_t len,
                     const struct partner_tls_sink *sink);
/** What it made for the run of the program goes. */
void partner_tls_end(void);
