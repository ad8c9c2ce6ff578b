/* connector.h - a connector: all its policy, resolved (built-in values, then `defaults`, then its
 * own block). Immutable; lives as long as its bh_config. Times are milliseconds, sizes octets. */
#pragma once

#include "bh/ip.h"
#include "bh/tls_demand.h"
#include "bh/window.h"

struct bh_config_node; /* private: the parsed statement, for explain and diff */

struct bh_nets {
    const struct bh_net *at;
    size_t count;
};

struct bh_ips {
    const struct bh_ip *at;
    size_t count;
};

struct bh_times {
    const uint64_t *at_ms;
    size_t count;
};

/** `count` per `per_ms`; count 0: unlimited. */
struct bh_rate {
    uint32_t count;
    uint32_t per_ms;
};

enum bh_connector_state {
    BH_CONNECTOR_ACTIVE,
    BH_CONNECTOR_HELD,     /* its mail waits; failover may take over */
    BH_CONNECTOR_DISABLED, /* the same, meant to last; it never bounces */
};

enum bh_route { BH_ROUTE_MX, BH_ROUTE_SMARTHOSTS };
enum bh_protocol { BH_PROTOCOL_SMTP, BH_PROTOCOL_LMTP };
enum bh_family {
    BH_FAMILY_ANY,
    BH_FAMILY_IPV4,
    BH_FAMILY_IPV6,
    BH_FAMILY_IPV4_ONLY,
    BH_FAMILY_IPV6_ONLY
};
enum bh_if_unmet { BH_IF_UNMET_DEFER, BH_IF_UNMET_BOUNCE };
enum bh_auth_mech {
    BH_AUTH_NONE,
    BH_AUTH_AUTO,
    BH_AUTH_PLAIN,
    BH_AUTH_LOGIN,
    BH_AUTH_CRAM_MD5,
    BH_AUTH_SCRAM_SHA_256,
    BH_AUTH_XOAUTH2
};
enum bh_uncertain { BH_UNCERTAIN_RETRY, BH_UNCERTAIN_HOLD };
enum bh_reply_action { BH_REPLY_DEFER, BH_REPLY_HOLD, BH_REPLY_BOUNCE, BH_REPLY_SLOW };

struct bh_smarthost {
    struct bh_slice host; /* lower-case A-label name; empty when `ip` is given */
    struct bh_ip ip;      /* family 0: a name */
    uint16_t port;
    uint16_t priority; /* lower first */
    uint32_t weight;   /* share among the same priority */
    bool mx_lookup;    /* false: bracketed or an address: A/AAAA only */
};

struct bh_smarthosts {
    const struct bh_smarthost *at;
    size_t count;
};

/** An exception that allows less than policy, or none: until_unix_ms is 0. */
struct bh_exception {
    int64_t until_unix_ms; /* exclusive: start of the day after DATE, UTC */
    struct bh_slice reason;
};

struct bh_tls_policy {
    struct bh_tls_demand demand;
    enum bh_if_unmet if_unmet;
    bool audit; /* audit_demand records what it would have refused */
    struct bh_tls_demand audit_demand;
    struct bh_exception exception;
    struct bh_tls_demand exception_demand; /* in force until the exception ends */
};

/** In place of a path: a secret that the service manager hands over, by its name behind this. */
#define BH_CREDENTIAL_PREFIX BH_LIT("credential:")

struct bh_auth {
    enum bh_auth_mech mech;
    struct bh_slice user;
    struct bh_slice password_file; /* path, or empty */
    struct bh_slice token_file;    /* path, or empty */
    struct bh_exception
        unauthenticated_peer; /* credentials may go to an unverified peer until then */
};

struct bh_retry {
    struct bh_slice name;                  /* "standard", or empty for an inline schedule */
    struct bh_times intervals;             /* of a message; the last repeats; never empty */
    struct bh_times destination_intervals; /* of a destination; never empty */
    uint32_t glitch_count;                 /* quick tries after a connect-class failure */
    uint64_t glitch_ms;
    uint32_t jitter_percent; /* each interval +- this */
    uint64_t warn_after_ms;  /* 0: never */
    uint64_t expire_ms;
    uint64_t expire_bounces_ms;
};

/** Whose rate it is, and of what. */
enum bh_rate_scope { BH_RATE_CONNECTOR, BH_RATE_DESTINATION, BH_RATE_HOST, BH_RATE_SCOPES };
enum bh_rate_kind { BH_RATE_MESSAGES, BH_RATE_RECIPIENTS, BH_RATE_CONNECTIONS, BH_RATE_KINDS };

struct bh_connector_limits {
    uint32_t connections;     /* 0: unlimited */
    uint32_t per_destination; /* connections */
    uint32_t initial;         /* connections to a destination without recent success */
    uint32_t per_host;        /* connections to one address, across connectors */
    bool shared; /* `connections` and the rates are meant for a fleet, not this node alone */
    struct bh_rate rates[BH_RATE_SCOPES][BH_RATE_KINDS]; /* of a host: by address */
    uint32_t recipients_per_transaction;
    uint32_t messages_per_connection; /* 0: unlimited */
    uint64_t connection_life_ms;
    uint64_t idle_ms;
    uint64_t message_size; /* 0: unlimited */
    uint32_t addresses_per_round;
    bool adaptive; /* concurrency follows success between floor and ceiling */
    uint32_t floor;
    uint32_t ceiling; /* 0 in the file: per_destination; resolved here */
};

struct bh_timeouts {
    uint64_t connect_ms, banner_ms, ehlo_ms, starttls_ms, tls_ms, auth_ms, mail_ms, rcpt_ms,
        data_ms, block_ms, dot_ms, rset_ms;
};

/** `on reply WHAT -> ACTION`. All parts that are set must agree. */
struct bh_reply_rule {
    uint16_t code;            /* 0: any; below 10: the first digit; below 100: the first two */
    uint8_t enhanced_class;   /* 0: any */
    int32_t enhanced_subject; /* -1: any */
    int32_t enhanced_detail;  /* -1: any */
    struct bh_slice
        pattern; /* empty: any; '*' any text, '?' any octet; case and place don't matter */
    enum bh_reply_action action;
};

struct bh_reply_rules {
    const struct bh_reply_rule *at; /* first match wins */
    size_t count;
};

enum bh_breaker_mode { BH_BREAKER_OFF, BH_BREAKER_ON };

/** Holds a destination whose refusals by policy (5.7.x) suddenly dominate. */
struct bh_breaker {
    enum bh_breaker_mode mode;
    uint32_t refusals;      /* at least so many messages refused */
    uint32_t share_percent; /* ... and this share of all that were answered */
    uint64_t window_ms;     /* ... within this time */
    uint64_t hold_ms;       /* then one message is tried */
};

struct bh_dsn_policy {
    uint64_t content_max; /* a longer original comes back as headers only */
    bool delay;           /* delay warnings at retry.warn_after */
    bool success;         /* success and relayed reports where NOTIFY asks */
};

struct bh_server_addr {
    struct bh_ip ip;
    uint16_t port;
};

struct bh_server_addrs {
    const struct bh_server_addr *at;
    size_t count;
};

struct bh_resolver_policy {
    struct bh_server_addrs servers; /* empty: those of resolv.conf */
    uint64_t timeout_ms;            /* one try */
    uint32_t attempts;              /* over all servers */
    uint64_t min_ttl_ms, max_ttl_ms, negative_ttl_ms;
    bool trusted;                      /* its AD bit counts, after the self-test */
    struct bh_names self_test;         /* names that must come back with AD */
    struct bh_nets forbidden_networks; /* never a target */
    bool allow_loopback;
};

struct bh_connector {
    struct bh_slice name;
    uint32_t index; /* position in config->connectors */
    struct bh_slice file;
    uint32_t line;                     /* 0: built in */
    const struct bh_config_node *node; /* private; never NULL */

    enum bh_connector_state state;
    struct bh_slice reason; /* of held or disabled */
    uint32_t cost;
    bool failover; /* takes over while a cheaper connector of the same address space is down */

    struct bh_names domains; /* "bank.example", "*.bank.example", "*", "[192.0.2.1]" */
    struct bh_names senders; /* "a@b.example", "@b.example", "@*.b.example", "<>"; none: anybody */
    uint64_t size_above;     /* only messages larger; 0: no bound */
    uint64_t size_below;     /* only messages smaller; 0: no bound */

    enum bh_route route;
    struct bh_smarthosts smarthosts;
    enum bh_protocol protocol;
    uint16_t port;        /* of MX hosts, and of smarthosts that state none */
    struct bh_ips source; /* both families */
    struct bh_slice helo; /* the engine's hostname by default */
    enum bh_family family;

    struct bh_tls_policy tls;
    struct bh_auth auth;
    struct bh_retry retry;
    struct bh_connector_limits limits;
    struct bh_timeouts timeouts;
    bool pipelining, chunking, smtputf8, eightbitmime, dsn_extension;
    bool speculative; /* content ahead of RCPT replies */
    bool helo_only;
    struct bh_reply_rules replies;
    enum bh_uncertain uncertain;
    struct bh_breaker breaker;
    struct bh_windows windows; /* when its mail may go */
    struct bh_dsn_policy dsn;
    struct bh_resolver_policy resolver;
};

/** The demand in force at this wall time: the exception's while it lasts, else the connector's own.
 * @param lapsed  set to true when an exception has ended: the connector must be held for that
 * reason */
const struct bh_tls_demand *bh_connector_tls_demand(const struct bh_connector *connector,
                                                    int64_t unix_ms, bool *lapsed);

/** May credentials go to a peer that proved nothing? Only while a dated exception says so. */
bool bh_connector_allows_unauthenticated_auth(const struct bh_connector *connector,
                                              int64_t unix_ms);

#define BH_RATE_TEXT_MAX 32
/** As it stands in a file: "60/min", "unlimited". NUL-terminated. @return text */
const char *bh_rate_text(struct bh_rate rate, char text[BH_RATE_TEXT_MAX]);

/** The wait before try `n` (from 0): the n-th interval, the last one for any later. Without jitter.
 */
uint64_t bh_times_nth_ms(const struct bh_times *times, uint64_t n);

/** The first rule that a reply meets, or NULL. Linear in the text for each '*' of a pattern.
 * @param enhanced_class 0: the reply had no enhanced code */
const struct bh_reply_rule *bh_reply_rules_match(const struct bh_reply_rules *rules, uint16_t code,
                                                 uint8_t enhanced_class, uint16_t enhanced_subject,
                                                 uint16_t enhanced_detail, struct bh_slice text);
