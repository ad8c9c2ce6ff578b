#include "config_schema.h"

#include "config_special.h"

#define MINUTE ((uint64_t)60000)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define YEAR (366 * DAY)
#define MEGA ((uint64_t)1 << 20)
#define TERA ((uint64_t)1 << 40)
#define MILLION 1000000

#define ROWS(name_, rows, type)                          \
    {                                                    \
        name_, rows, BH_COUNT(rows), sizeof(struct type) \
    }

/* ---- what words stand for ---- */

const struct bh_choice bh_choices_tls_mode[] = {{"off", BH_TLS_OFF},
                                                {"opportunistic", BH_TLS_OPPORTUNISTIC},
                                                {"encrypt", BH_TLS_ENCRYPT},
                                                {"verify", BH_TLS_VERIFY},
                                                {"pin", BH_TLS_PIN},
                                                {"dane", BH_TLS_DANE},
                                                {"dane-only", BH_TLS_DANE_ONLY},
                                                {"auto", BH_TLS_AUTO},
                                                {NULL, 0}};
static const struct bh_choice fallbacks[] = {{"opportunistic", BH_TLS_OPPORTUNISTIC},
                                             {"encrypt", BH_TLS_ENCRYPT},
                                             {"verify", BH_TLS_VERIFY},
                                             {NULL, 0}};
static const struct bh_choice versions[] = {{"TLSv1.0", BH_TLS_VERSION_1_0},
                                            {"TLSv1.1", BH_TLS_VERSION_1_1},
                                            {"TLSv1.2", BH_TLS_VERSION_1_2},
                                            {"TLSv1.3", BH_TLS_VERSION_1_3},
                                            {NULL, 0}};
static const struct bh_choice ceilings[] = {
    {"none", BH_TLS_VERSION_NONE},   {"TLSv1.0", BH_TLS_VERSION_1_0},
    {"TLSv1.1", BH_TLS_VERSION_1_1}, {"TLSv1.2", BH_TLS_VERSION_1_2},
    {"TLSv1.3", BH_TLS_VERSION_1_3}, {NULL, 0}};
static const struct bh_choice if_unmet[] = {
    {"defer", BH_IF_UNMET_DEFER}, {"bounce", BH_IF_UNMET_BOUNCE}, {NULL, 0}};
static const struct bh_choice states[] = {{"active", BH_CONNECTOR_ACTIVE},
                                          {"held", BH_CONNECTOR_HELD},
                                          {"disabled", BH_CONNECTOR_DISABLED},
                                          {NULL, 0}};
static const struct bh_choice routes[] = {
    {"mx", BH_ROUTE_MX}, {"smarthosts", BH_ROUTE_SMARTHOSTS}, {NULL, 0}};
static const struct bh_choice protocols[] = {
    {"smtp", BH_PROTOCOL_SMTP}, {"lmtp", BH_PROTOCOL_LMTP}, {NULL, 0}};
static const struct bh_choice families[] = {{"any", BH_FAMILY_ANY},
                                            {"ipv4", BH_FAMILY_IPV4},
                                            {"ipv6", BH_FAMILY_IPV6},
                                            {"ipv4-only", BH_FAMILY_IPV4_ONLY},
                                            {"ipv6-only", BH_FAMILY_IPV6_ONLY},
                                            {NULL, 0}};
static const struct bh_choice mechs[] = {
    {"none", BH_AUTH_NONE},         {"auto", BH_AUTH_AUTO},
    {"plain", BH_AUTH_PLAIN},       {"login", BH_AUTH_LOGIN},
    {"cram-md5", BH_AUTH_CRAM_MD5}, {"scram-sha-256", BH_AUTH_SCRAM_SHA_256},
    {"xoauth2", BH_AUTH_XOAUTH2},   {NULL, 0}};
static const struct bh_choice uncertains[] = {
    {"retry", BH_UNCERTAIN_RETRY}, {"hold", BH_UNCERTAIN_HOLD}, {NULL, 0}};
static const struct bh_choice dead_letters[] = {{"auto", BH_DEAD_LETTER_AUTO},
                                                {"hold", BH_DEAD_LETTER_HOLD},
                                                {"postmaster", BH_DEAD_LETTER_POSTMASTER},
                                                {NULL, 0}};
static const struct bh_choice ledger_recipients[] = {
    {"address", BH_LEDGER_ADDRESS}, {"domain", BH_LEDGER_DOMAIN}, {NULL, 0}};
static const struct bh_choice logs[] = {{"error", BH_LOG_SET_ERROR},
                                        {"warn", BH_LOG_SET_WARN},
                                        {"info", BH_LOG_SET_INFO},
                                        {"debug", BH_LOG_SET_DEBUG},
                                        {NULL, 0}};
static const struct bh_choice sandboxes[] = {{"off", BH_SANDBOX_SET_OFF},
                                             {"on", BH_SANDBOX_SET_ON},
                                             {"required", BH_SANDBOX_SET_REQUIRED},
                                             {NULL, 0}};
static const struct bh_choice listen_tls[] = {{"off", BH_LISTEN_TLS_OFF},
                                              {"starttls", BH_LISTEN_TLS_STARTTLS},
                                              {"implicit", BH_LISTEN_TLS_IMPLICIT},
                                              {NULL, 0}};

/* ---- rows: name, kind, flags, offset, then what the kind needs ---- */

#define BOOL(name_, off)                               \
    {                                                  \
        .name = name_, .kind = BH_KIND_BOOL, .at = off \
    }
#define COUNT(name_, off, lo, hi, zero_)                                                     \
    {                                                                                        \
        .name = name_, .kind = BH_KIND_COUNT, .at = off, .min = lo, .max = hi, .zero = zero_ \
    }
#define TIME(name_, off, lo, hi, zero_)                                                     \
    {                                                                                       \
        .name = name_, .kind = BH_KIND_TIME, .at = off, .min = lo, .max = hi, .zero = zero_ \
    }
#define SIZE(name_, off, lo, hi, zero_)                                                     \
    {                                                                                       \
        .name = name_, .kind = BH_KIND_SIZE, .at = off, .min = lo, .max = hi, .zero = zero_ \
    }
#define PICK(name_, off, choices_, flags_)                                                   \
    {                                                                                        \
        .name = name_, .kind = BH_KIND_ENUM, .at = off, .choices = choices_, .flags = flags_ \
    }
#define PLAIN(name_, kind_, off, flags_, zero_)                                 \
    {                                                                           \
        .name = name_, .kind = kind_, .at = off, .flags = flags_, .zero = zero_ \
    }
#define NEST(name_, off, block_, flags_)                                                  \
    {                                                                                     \
        .name = name_, .kind = BH_KIND_BLOCK, .at = off, .block = block_, .flags = flags_ \
    }
#define OWN(name_, off, fn, flags_, expected_)                                   \
    {                                                                            \
        .name = name_, .kind = BH_KIND_SPECIAL, .at = off, .read = bh_read_##fn, \
        .print = bh_print_##fn, .flags = flags_, .expected = expected_           \
    }

#define E(field) offsetof(struct bh_engine_config, field)
#define EM(field) offsetof(struct bh_mta_sts_config, field)
static const struct bh_setting mta_sts_rows[] = {
    PLAIN("ca-file", BH_KIND_FILE, EM(ca_file), 0, "system"),
    {.name = "port", .kind = BH_KIND_PORT, .at = EM(port), .min = 1, .max = UINT16_MAX},
    TIME("fetch-timeout", EM(fetch_timeout_ms), 100, MINUTE, NULL), /* RFC 8461 section 3.3 */
};
static const struct bh_block mta_sts_block = ROWS("mta-sts", mta_sts_rows, bh_mta_sts_config);
static const struct bh_setting engine_rows[] = {
    PLAIN("hostname", BH_KIND_NAME, E(hostname), 0, NULL),
    PLAIN("user", BH_KIND_TEXT, E(user), 0, NULL),
    PLAIN("group", BH_KIND_TEXT, E(group), 0, NULL),
    COUNT("workers", E(workers), 0, 256, "auto"),
    PLAIN("postmaster", BH_KIND_TEXT, E(postmaster), 0, NULL),
    PLAIN("control", BH_KIND_PATHS, E(control), 0, NULL),
    PLAIN("event-log", BH_KIND_PATH, E(event_log), 0, "none"),
    TIME("event-log-keep", E(event_log_keep_ms), HOUR, 3660 * DAY, "forever"),
    SIZE("event-log-max-size", E(event_log_max_size), MEGA, 64 * TERA, "none"),
    PICK("ledger-recipients", E(ledger_recipients), ledger_recipients, 0),
    TIME("drain-timeout", E(drain_timeout_ms), 1000, 2 * HOUR, NULL),
    PICK("dead-letter", E(dead_letter), dead_letters, 0),
    COUNT("connections", E(connections), 1, MILLION, NULL),
    SIZE("min-rate", E(min_rate), 0, MEGA, "none"),
    PICK("log", E(log), logs, 0),
    PICK("sandbox", E(sandbox), sandboxes, 0),
    PLAIN("sandbox-read", BH_KIND_PATHS, E(sandbox_read), 0, "none"),
    BOOL("core-dumps", E(core_dumps)),
    PLAIN("control-look-group", BH_KIND_TEXT, E(look_group), 0, NULL),
    PLAIN("control-act-group", BH_KIND_TEXT, E(act_group), 0, NULL),
    NEST("mta-sts", E(mta_sts), &mta_sts_block, 0),
};
const struct bh_block bh_schema_engine = ROWS("engine", engine_rows, bh_engine_config);

#define Q(field) offsetof(struct bh_queue_config, field)
static const struct bh_setting queue_rows[] = {
    PLAIN("path", BH_KIND_PATH, Q(path), 0, NULL),
    SIZE("max-size", Q(max_size), 16 * MEGA, 64 * TERA, NULL),
    SIZE("reserve", Q(reserve), MEGA, TERA, NULL),
    COUNT("fresh-window", Q(fresh_window), 1, MILLION, NULL),
};
const struct bh_block bh_schema_queue = ROWS("queue", queue_rows, bh_queue_config);

#define R(field) offsetof(struct bh_resolver_policy, field)
static const struct bh_setting resolver_rows[] = {
    PLAIN("servers", BH_KIND_SERVERS, R(servers), 0, "system"),
    TIME("timeout", R(timeout_ms), 100, MINUTE, NULL),
    COUNT("attempts", R(attempts), 1, 20, NULL),
    TIME("min-ttl", R(min_ttl_ms), 0, DAY, "none"),
    TIME("max-ttl", R(max_ttl_ms), 1000, 7 * DAY, NULL),
    TIME("negative-ttl", R(negative_ttl_ms), 0, DAY, "none"),
    BOOL("trusted", R(trusted)),
    PLAIN("self-test", BH_KIND_NAMES, R(self_test), 0, "none"),
    PLAIN("forbidden-networks", BH_KIND_NETS, R(forbidden_networks), 0, "none"),
    BOOL("allow-loopback", R(allow_loopback)),
};
const struct bh_block bh_schema_resolver = ROWS("resolver", resolver_rows, bh_resolver_policy);

#define L(field) offsetof(struct bh_listen_config, field)
#define LL(field) offsetof(struct bh_listen_limits, field)
static const struct bh_setting listen_tls_rows[] = {
    PICK("mode", L(tls), listen_tls, BH_HEAD),
    PLAIN("certificate", BH_KIND_FILE, L(certificate), 0, NULL),
    PLAIN("key", BH_KIND_FILE, L(key), 0, NULL),
    PICK("min-version", L(min_version), versions, 0),
    PLAIN("client-ca", BH_KIND_FILE, L(client_ca), 0, "none"),
    OWN("client-pins", L(client_pins), pins, 0,
        "SHA-256 of public keys, as 64 hex digits or base64"),
};
static const struct bh_block listen_tls_block = ROWS("tls", listen_tls_rows, bh_listen_config);
static const struct bh_setting listen_limits_rows[] = {
    COUNT("sessions", LL(sessions), 1, MILLION, NULL),
    COUNT("sessions-per-client", LL(sessions_per_client), 1, MILLION, NULL),
    SIZE("message-size", LL(message_size), 64 * 1024, 4096 * MEGA, NULL), /* RFC 5321 4.5.3.1.7 */
    COUNT("recipients", LL(recipients), 100, 100000, NULL),               /* RFC 5321 4.5.3.1.8 */
    COUNT("line-length", LL(line_length), 512, 4096, NULL),               /* RFC 5321 4.5.3.1.4 */
    COUNT("commands", LL(commands), 0, MILLION, "unlimited"),
    COUNT("errors", LL(errors), 1, 10000, NULL),
    COUNT("transactions", LL(transactions), 1, 16, NULL), /* BH_SERVER_COMMITS_MAX */
    COUNT("auth-failures", LL(auth_failures), 1, 100, NULL),
};
static const struct bh_block listen_limits_block =
    ROWS("limits", listen_limits_rows, bh_listen_limits);
static const struct bh_setting listen_timeouts_rows[] = {
    TIME("command", L(command_timeout_ms), 1000, DAY, NULL),
    TIME("data", L(data_timeout_ms), 1000, DAY, NULL),
    TIME("session", L(session_timeout_ms), 0, 7 * DAY, "none"),
};
static const struct bh_block listen_timeouts_block =
    ROWS("timeouts", listen_timeouts_rows, bh_listen_config);
static const struct bh_setting listen_rows[] = {
    OWN("relay-from", 0, relay_from, 0,
        "networks such as 10.0.0.0/8 or 2001:db8::/32, local, or certificate"),
    PLAIN("auth-file", BH_KIND_FILE, L(auth_file), 0, "none"),
    PLAIN("proxy-protocol-from", BH_KIND_NETS, L(proxy_from), 0, NULL),
    NEST("tls", 0, &listen_tls_block, 0),
    PLAIN("hostname", BH_KIND_NAME, L(hostname), 0, NULL),
    COUNT("max-hops", L(max_hops), 5, 1000, NULL),
    SIZE("min-rate", L(min_rate), 0, MEGA, "none"),
    NEST("limits", L(limits), &listen_limits_block, 0),
    NEST("timeouts", 0, &listen_timeouts_block, 0),
};
const struct bh_block bh_schema_listen = ROWS("listen", listen_rows, bh_listen_config);

#define Y(field) offsetof(struct bh_retry, field)
static const struct bh_setting retry_rows[] = {
    PLAIN("intervals", BH_KIND_TIMES, Y(intervals), 0, NULL),
    PLAIN("destination-intervals", BH_KIND_TIMES, Y(destination_intervals), 0, NULL),
    OWN("glitch", 0, glitch, 0, "quick tries such as 3x60s, or none"),
    {.name = "jitter", .kind = BH_KIND_PERCENT, .at = Y(jitter_percent), .max = 50},
    TIME("warn-after", Y(warn_after_ms), 0, YEAR, "never"),
    TIME("expire", Y(expire_ms), MINUTE, YEAR, NULL),
    TIME("expire-bounces", Y(expire_bounces_ms), MINUTE, YEAR, NULL),
};
const struct bh_block bh_schema_retry = ROWS("retry", retry_rows, bh_retry);

#define T(field) offsetof(struct bh_tls_policy, field)
#define TD(field) offsetof(struct bh_tls_policy, demand.field)
static const struct bh_setting exception_rows[] = {
    PLAIN("until", BH_KIND_DATE, T(exception.until_unix_ms), 0, NULL),
    PLAIN("reason", BH_KIND_TEXT, T(exception.reason), 0, NULL),
    PICK("mode", T(exception_demand.mode), bh_choices_tls_mode, 0),
    PICK("min-version", T(exception_demand.min_version), versions, 0),
};
static const struct bh_block exception_block = ROWS("exception", exception_rows, bh_tls_policy);
static const struct bh_setting tls_rows[] = {
    PICK("mode", TD(mode), bh_choices_tls_mode, BH_HEAD),
    PICK("min-version", TD(min_version), versions, 0),
    PICK("max-version", TD(max_version), ceilings, 0),
    PLAIN("ciphers", BH_KIND_TEXT, TD(ciphers), 0, "built-in"),
    PLAIN("ciphersuites", BH_KIND_TEXT, TD(ciphersuites), 0, "built-in"),
    PLAIN("ca-file", BH_KIND_FILE, TD(ca_file), BH_WAITS, "system"),
    OWN("names", TD(mode), tls_names, 0,
        "recipient-domain, mx-host, names such as mx.bank.example or .bank.example"),
    OWN("pins", TD(pins), pins, 0, "SHA-256 of public keys, as 64 hex digits or base64"),
    PLAIN("client-certificate", BH_KIND_FILE, TD(client_cert), BH_WAITS, "none"),
    PLAIN("client-key", BH_KIND_FILE, TD(client_key), BH_WAITS, "none"),
    PLAIN("sni", BH_KIND_NAME, TD(sni), 0, "host"),
    BOOL("implicit", TD(implicit)),
    PICK("if-unmet", T(if_unmet), if_unmet, 0),
    OWN("audit", 0, audit, 0, "a tls mode, or none"),
    PICK("fallback-mode", TD(fallback), fallbacks, 0),
    NEST("exception", 0, &exception_block, BH_ONLY_CONNECTOR),
};
static const struct bh_block tls_block = ROWS("tls", tls_rows, bh_tls_policy);

#define A(field) offsetof(struct bh_auth, field)
static const struct bh_setting peer_rows[] = {
    PLAIN("until", BH_KIND_DATE, offsetof(struct bh_exception, until_unix_ms), 0, NULL),
    PLAIN("reason", BH_KIND_TEXT, offsetof(struct bh_exception, reason), 0, NULL),
};
static const struct bh_block peer_block =
    ROWS("allow-unauthenticated-peer", peer_rows, bh_exception);
static const struct bh_setting auth_rows[] = {
    PICK("mechanism", A(mech), mechs, BH_HEAD),
    PLAIN("user", BH_KIND_TEXT, A(user), 0, NULL),
    PLAIN("password-file", BH_KIND_FILE, A(password_file), BH_LATER, NULL),
    PLAIN("token-file", BH_KIND_FILE, A(token_file), BH_LATER, NULL),
    NEST("allow-unauthenticated-peer", A(unauthenticated_peer), &peer_block, BH_ONLY_CONNECTOR),
};
static const struct bh_block auth_block = ROWS("auth", auth_rows, bh_auth);

#define M(field) offsetof(struct bh_connector_limits, field)
#define RATE(name_, scope, kind) \
    PLAIN(name_, BH_KIND_RATE, M(rates[BH_RATE_##scope][BH_RATE_##kind]), 0, "unlimited")
static const struct bh_setting limits_rows[] = {
    COUNT("connections", M(connections), 0, MILLION, "unlimited"),
    COUNT("per-destination", M(per_destination), 1, 10000, NULL),
    COUNT("initial", M(initial), 1, 10000, NULL),
    COUNT("per-host", M(per_host), 1, 10000, NULL),
    BOOL("shared", M(shared)),
    RATE("rate", CONNECTOR, MESSAGES),
    RATE("recipient-rate", CONNECTOR, RECIPIENTS),
    RATE("connection-rate", CONNECTOR, CONNECTIONS),
    RATE("per-destination-rate", DESTINATION, MESSAGES),
    RATE("per-destination-recipient-rate", DESTINATION, RECIPIENTS),
    RATE("per-destination-connection-rate", DESTINATION, CONNECTIONS),
    RATE("per-host-rate", HOST, MESSAGES),
    RATE("per-host-recipient-rate", HOST, RECIPIENTS),
    RATE("per-host-connection-rate", HOST, CONNECTIONS),
    COUNT("recipients-per-transaction", M(recipients_per_transaction), 1, 100, NULL),
    COUNT("messages-per-connection", M(messages_per_connection), 0, MILLION, "unlimited"),
    TIME("connection-life", M(connection_life_ms), 1000, DAY, NULL),
    TIME("idle", M(idle_ms), 0, HOUR, "auto"),
    SIZE("message-size", M(message_size), 0, 4096 * MEGA, "unlimited"),
    COUNT("addresses-per-round", M(addresses_per_round), 1, 5, NULL), /* DEFAULTS 3.3 */
    BOOL("adaptive", M(adaptive)),
    COUNT("floor", M(floor), 1, 10000, NULL),
    COUNT("ceiling", M(ceiling), 0, 10000, "auto"),
};
static const struct bh_block limits_block = ROWS("limits", limits_rows, bh_connector_limits);

#define W(field) offsetof(struct bh_timeouts, field)
#define WAIT(name_, field) TIME(name_, W(field), 1000, HOUR, NULL)
static const struct bh_setting timeouts_rows[] = {
    WAIT("connect", connect_ms),
    WAIT("banner", banner_ms),
    WAIT("ehlo", ehlo_ms),
    WAIT("starttls", starttls_ms),
    WAIT("tls", tls_ms),
    WAIT("auth", auth_ms),
    WAIT("mail", mail_ms),
    WAIT("rcpt", rcpt_ms),
    WAIT("data", data_ms),
    WAIT("block", block_ms),
    TIME("dot", W(dot_ms), 600000, HOUR, NULL), /* below it duplicates come (RFC 5321 4.5.3.2.6) */
    WAIT("rset", rset_ms),
};
static const struct bh_block timeouts_block = ROWS("timeouts", timeouts_rows, bh_timeouts);

#define D(field) offsetof(struct bh_dsn_policy, field)
static const struct bh_setting dsn_rows[] = {
    SIZE("content-max", D(content_max), 0, 256 * 1024, "none"),
    BOOL("delay", D(delay)),
    BOOL("success", D(success)),
};
static const struct bh_block dsn_block = ROWS("dsn", dsn_rows, bh_dsn_policy);

#define K(field) offsetof(struct bh_breaker, field)
static const struct bh_choice breaker_modes[] = {
    {"on", BH_BREAKER_ON}, {"off", BH_BREAKER_OFF}, {NULL, 0}};
static const struct bh_setting breaker_rows[] = {
    PICK("mode", K(mode), breaker_modes, BH_HEAD),
    COUNT("refusals", K(refusals), 2, MILLION, NULL),
    {.name = "share", .kind = BH_KIND_PERCENT, .at = K(share_percent), .min = 1, .max = 100},
    TIME("window", K(window_ms), MINUTE, DAY, NULL),
    TIME("hold", K(hold_ms), MINUTE, 7 * DAY, NULL),
};
static const struct bh_block breaker_block = ROWS("breaker", breaker_rows, bh_breaker);

#define C(field) offsetof(struct bh_connector, field)
static const struct bh_setting connector_rows[] = {
    OWN("domains", C(domains), domains, BH_ONLY_CONNECTOR,
        "domains such as bank.example, *.bank.example, * or [192.0.2.1]"),
    OWN("senders", C(senders), senders, BH_ONLY_CONNECTOR,
        "senders such as a@us.example, @us.example, @*.us.example or <>"),
    {.name = "size-above",
     .kind = BH_KIND_SIZE,
     .flags = BH_ONLY_CONNECTOR,
     .at = C(size_above),
     .max = 4096 * MEGA,
     .zero = "none"},
    {.name = "size-below",
     .kind = BH_KIND_SIZE,
     .flags = BH_ONLY_CONNECTOR,
     .at = C(size_below),
     .max = 4096 * MEGA,
     .zero = "none"},
    COUNT("cost", C(cost), 0, MILLION, NULL),
    BOOL("failover", C(failover)),
    PICK("state", C(state), states, BH_ONLY_CONNECTOR),
    PLAIN("reason", BH_KIND_TEXT, C(reason), BH_ONLY_CONNECTOR, NULL),
    PICK("route", C(route), routes, 0),
    OWN("smarthosts", 0, smarthosts, 0,
        "hosts such as mx.example:587 or [192.0.2.1], each with `weight N` or `priority N`"),
    PICK("protocol", C(protocol), protocols, 0),
    {.name = "port", .kind = BH_KIND_PORT, .at = C(port), .min = 1, .max = 65535},
    PLAIN("source", BH_KIND_IPS, C(source), 0, "any"),
    PLAIN("helo", BH_KIND_NAME, C(helo), 0, "hostname"),
    PICK("family", C(family), families, 0),
    NEST("tls", C(tls), &tls_block, 0),
    NEST("auth", C(auth), &auth_block, BH_RESETS),
    {.name = "retry",
     .kind = BH_KIND_BLOCK,
     .at = C(retry),
     .block = &bh_schema_retry,
     .read = bh_read_retry,
     .print = bh_print_retry},
    NEST("limits", C(limits), &limits_block, 0),
    NEST("timeouts", C(timeouts), &timeouts_block, 0),
    BOOL("pipelining", C(pipelining)),
    BOOL("chunking", C(chunking)),
    BOOL("smtputf8", C(smtputf8)),
    BOOL("8bitmime", C(eightbitmime)),
    BOOL("dsn-extension", C(dsn_extension)),
    BOOL("speculative", C(speculative)),
    BOOL("helo-only", C(helo_only)),
    OWN("on", C(replies), reply_rules, BH_REPEATS,
        "reply 450, 4xx, 4.7.1 or /text/ -> defer, hold, bounce or slow"),
    PICK("uncertain", C(uncertain), uncertains, 0),
    OWN("window", C(windows), windows, 0,
        "always, or days and hours such as `mon-fri 08:00-18:00 sat 09:00-12:00 Europe/Berlin`"),
    NEST("breaker", C(breaker), &breaker_block, 0),
    NEST("dsn", C(dsn), &dsn_block, 0),
    NEST("resolver", C(resolver), &bh_schema_resolver, 0),
};
const struct bh_block bh_schema_connector = ROWS("connector", connector_rows, bh_connector);

_Static_assert(BH_COUNT(connector_rows) <= BH_SETTINGS_MAX, "duplicates are found by a table");

const char *const bh_schema_top[] = {"engine",   "listen",    "queue",   "resolver", "retry",
                                     "defaults", "connector", "include", NULL};

const struct bh_setting *bh_schema_find(const struct bh_block *block, struct bh_slice name)
{
    for (size_t i = 0; i < block->count; i++) {
        if ((block->settings[i].flags & BH_HEAD) == 0 &&
            bh_slice_eq(name, bh_slice_str(block->settings[i].name))) {
            return &block->settings[i];
        }
    }
    return NULL;
}
