/* The built-in values, each at one place: the "Take" lines of DEFAULTS, section by section, in the
 * syntax of every configuration. */
#include "config_schema.h"

const char bh_schema_builtin[] =
    "engine {\n"
    "  workers auto\n"
    "  control /run/bridgehead/control\n"
    "  event-log /var/log/bridgehead\n"
    "  event-log-keep 90d; event-log-max-size 16G\n" /* whichever is met first */
    "  ledger-recipients address\n"
    "  drain-timeout 10m\n" /* must outlast a wait for the reply to the final dot: 600 s */
    "  dead-letter auto\n"
    "  connections 500\n" /* 3.3 */
    "  min-rate 500\n"    /* 3.2: octets a second */
    "  log info\n"
    "  sandbox on; sandbox-read none; core-dumps no\n"
    "  mta-sts { ca-file system; port 443; fetch-timeout 1m }\n" /* RFC 8461 section 3.3 */
    "}\n"
    "queue {\n"
    "  path /var/lib/bridgehead/queue\n"
    "  max-size 64G\n" /* sparse; DESIGN 4 */
    "  reserve 64M\n"  /* DESIGN 4 */
    "  fresh-window 50000\n"
    "}\n"
    "resolver {\n"
    "  servers system; timeout 5s; attempts 3\n"
    "  min-ttl 5s; max-ttl 1d; negative-ttl 15m\n"
    "  trusted no; allow-loopback no\n"
    /* This network, link-local (cloud metadata lives there), multicast and reserved. Loopback has
     * its own switch. */
    "  forbidden-networks 0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 ::/128 fe80::/10 "
    "ff00::/8\n"
    "}\n"
    "listen builtin {\n"
    "  tls off { min-version TLSv1.2; client-ca none }\n" /* 3.4 */
    "  auth-file none\n"
    "  max-hops 50\n"  /* 3.5, as Postfix */
    "  min-rate 500\n" /* 3.2: octets a second */
    "  limits {\n"
    "    sessions 1000; sessions-per-client 200\n"
    "    message-size 35M\n" /* 3.5, as Exchange: backends send what partners take */
    "    recipients 1000; line-length 4096; commands unlimited; errors 20; transactions 16\n"
    "    auth-failures 3\n"
    "  }\n"
    "  timeouts { command 5m; data 5m; session none }\n" /* RFC 5321 4.5.3.2.7 */
    "}\n"
    "retry standard {\n" /* 3.1 */
    "  intervals 5m 15m 30m 1h 2h 4h; destination-intervals 5m 15m 30m 1h 2h 4h\n"
    "  glitch 3x60s; jitter 10%; warn-after 4h; expire 5d; expire-bounces 1d\n"
    "}\n"
    "retry exchange2003 {\n" /* 3.1 */
    "  intervals 15m 30m 60m 240m; destination-intervals 15m 30m 60m 240m\n"
    "  glitch none; jitter 10%; warn-after 12h; expire 2d; expire-bounces 1d\n"
    "}\n"
    "defaults {\n"
    "  cost 0; failover no\n"
    "  route mx; protocol smtp; port 25; source any; helo hostname; family any\n"
    "  tls auto {\n"            /* DESIGN 6 */
    "    min-version TLSv1.2\n" /* 3.4: RFC 8996, RFC 9325 */
    "    max-version none; ciphers built-in; ciphersuites built-in; ca-file system\n"
    "    names recipient-domain mx-host; sni host; implicit no\n"
    "    if-unmet defer; audit none; fallback-mode opportunistic\n"
    "  }\n"
    "  auth none\n"
    "  retry standard\n"
    "  limits {\n" /* 3.3 */
    "    connections unlimited; per-destination 20; initial 5; per-host 10; shared no\n"
    "    rate unlimited; recipient-rate unlimited; connection-rate unlimited\n"
    "    per-destination-rate unlimited; per-destination-recipient-rate unlimited\n"
    "    per-destination-connection-rate unlimited; per-host-rate unlimited\n"
    "    per-host-recipient-rate unlimited; per-host-connection-rate unlimited\n"
    "    recipients-per-transaction 100\n"
    "    messages-per-connection unlimited; connection-life 300s\n"
    "    idle auto\n" /* 5 s, 30 s to smarthosts */
    "    message-size unlimited; addresses-per-round 5; adaptive yes; floor 1; ceiling auto\n"
    "  }\n"
    "  timeouts {\n" /* 3.2 */
    "    connect 30s; banner 300s; ehlo 300s; starttls 300s; tls 60s; auth 300s; mail 300s\n"
    "    rcpt 300s; data 120s; block 180s; dot 600s; rset 20s\n"
    "  }\n"
    "  pipelining yes; chunking yes; smtputf8 yes; 8bitmime yes; dsn-extension yes\n"
    "  speculative no; helo-only no; uncertain retry\n"
    "  window always\n"
    "  breaker on { refusals 20; share 80%; window 10m; hold 1h }\n"
    "  dsn { content-max 50K; delay yes; success yes }\n" /* 3.5, as Postfix */
    "}\n"
    "connector default { domains * }\n";
