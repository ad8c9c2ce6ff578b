/* config.h - the configuration of one generation: parsed and checked whole, immutable, counted.
 * Any thread may read it while it holds a reference. The parser itself is a core: files come
 * through bh_config_reader. */
#pragma once

#include "bh/config_error.h"
#include "bh/connector.h"
#include "bh/map.h"

#define BH_CONFIG_WHY_MAX 512

/** Where files come from. bh_config_reader_posix is the one for real files. */
struct bh_config_reader {
    void *ctx;
    /** Read a whole text file into the arena.
     * @return BH_OK, BH_ENOTFOUND, BH_EIO (there, but not readable), BH_ELIMIT (over 16 MiB),
     * BH_ENOMEM */
    enum bh_status (*read)(void *ctx, const char *path, struct bh_arena *arena,
                           struct bh_slice *text);
    /** The files that a pattern names, sorted by octets; each NUL-terminated behind its slice. None
     * is BH_OK with count 0. @return as read */
    enum bh_status (*glob)(void *ctx, const char *pattern, struct bh_arena *arena,
                           struct bh_names *paths);
    /** Is there such a file? @return BH_OK, BH_ENOTFOUND, or BH_EIO when that cannot be told */
    enum bh_status (*exists)(void *ctx, const char *path);
    /** Why a file cannot be read, for BH_EIO of read; NULL: only that it cannot.
     * @return text, NUL-terminated */
    const char *(*why)(void *ctx, const char *path, char text[BH_CONFIG_WHY_MAX]);
    /** A U-label name as a lower-case A-label name, NUL-terminated; @return false if it can't be
     * one. NULL: names outside ASCII are refused. */
    bool (*to_ascii)(void *ctx, struct bh_slice name, char out[256]);
    /** The machine's name, for `hostname` and `helo` where none is stated; NULL: they stay empty.
     */
    const char *hostname;
};

/** Real files; without to_ascii, which its user may set. */
struct bh_config_reader bh_config_reader_posix(void);

/** What becomes of a bounce that bounces. Auto: as postmaster if there is one, else as hold. */
enum bh_dead_letter { BH_DEAD_LETTER_AUTO, BH_DEAD_LETTER_HOLD, BH_DEAD_LETTER_POSTMASTER };
/** How the delivery ledger names recipients. */
enum bh_ledger_recipients { BH_LEDGER_ADDRESS, BH_LEDGER_DOMAIN };
/** What the process may do once it has started: on goes without what the kernel lacks. */
enum bh_sandbox_setting { BH_SANDBOX_SET_OFF, BH_SANDBOX_SET_ON, BH_SANDBOX_SET_REQUIRED };
enum bh_log_setting { BH_LOG_SET_ERROR, BH_LOG_SET_WARN, BH_LOG_SET_INFO, BH_LOG_SET_DEBUG };

/** How MTA-STS policies are fetched (RFC 8461 section 3.3). */
struct bh_mta_sts_config {
    struct bh_slice ca_file;   /* empty: the system's store */
    uint16_t port;             /* of every policy's host */
    uint64_t fetch_timeout_ms; /* lookups of the host included */
};

struct bh_engine_config {
    struct bh_slice hostname;    /* empty: the machine's name, which the daemon fills in */
    struct bh_slice user, group; /* empty: stay */
    uint32_t workers;            /* 0: one a core */
    struct bh_slice postmaster;  /* for double bounces; empty: they are held */
    struct bh_names control;     /* socket paths */
    struct bh_slice event_log;   /* directory; empty: none */
    uint64_t event_log_keep_ms;  /* how old its segments get; 0: any age */
    uint64_t event_log_max_size; /* octets of all segments; 0: no bound */
    enum bh_ledger_recipients ledger_recipients;
    uint64_t drain_timeout_ms; /* how long SIGTERM waits for sessions */
    enum bh_dead_letter dead_letter;
    uint32_t connections; /* outgoing, in all */
    uint64_t min_rate;    /* octets a second while sending content; 0: none */
    enum bh_log_setting log;
    enum bh_sandbox_setting sandbox;
    struct bh_names sandbox_read; /* files and folders that may be read besides those named */
    bool core_dumps;              /* a core holds what was in memory */
    struct bh_slice look_group, act_group; /* of the control socket; empty: none, our own */
    struct bh_mta_sts_config mta_sts;
};

enum bh_listen_kind { BH_LISTEN_TCP, BH_LISTEN_UNIX, BH_LISTEN_SYSTEMD };
enum bh_listen_tls { BH_LISTEN_TLS_OFF, BH_LISTEN_TLS_STARTTLS, BH_LISTEN_TLS_IMPLICIT };

struct bh_listen_limits {
    uint32_t sessions, sessions_per_client;
    uint64_t message_size;
    uint32_t recipients;
    uint32_t line_length;   /* octets of a command line, CRLF included */
    uint32_t commands;      /* in a session; 0: unlimited */
    uint32_t errors;        /* bad commands before 421 */
    uint32_t transactions;  /* pipelined, awaiting their commit */
    uint32_t auth_failures; /* refused AUTH before 421 */
};

struct bh_listen_config {
    struct bh_slice text; /* as configured: "127.0.0.1:2525", "unix:/run/x", "systemd:smtp" */
    struct bh_slice file;
    uint32_t line;
    enum bh_listen_kind kind;
    struct bh_ip ip;      /* tcp; 0.0.0.0 or :: for all */
    uint16_t port;        /* tcp; 0: the kernel chooses */
    struct bh_slice path; /* unix: path, systemd: name; NUL-terminated behind */
    struct bh_nets relay_from;
    bool relay_local;          /* peers of a Unix socket may send ("local" in relay-from) */
    bool relay_certificate;    /* who shows a certificate of client_ca or client_pins may send */
    struct bh_nets proxy_from; /* who must speak PROXY protocol v2 */
    enum bh_listen_tls tls;
    struct bh_slice certificate, key; /* paths */
    enum bh_tls_version min_version;
    struct bh_slice client_ca;  /* path: who may have signed clients' certificates; empty: nobody */
    struct bh_pins client_pins; /* of clients' keys */
    struct bh_slice auth_file;  /* path: who may authenticate; empty: no AUTH */
    uint64_t min_rate;          /* octets a second of content, below which a client is too slow */
    struct bh_slice hostname;   /* empty: the engine's */
    uint32_t max_hops;
    struct bh_listen_limits limits;
    uint64_t command_timeout_ms, data_timeout_ms, session_timeout_ms; /* session 0: none */
};

struct bh_queue_config {
    struct bh_slice path;  /* directory */
    uint64_t max_size;     /* of the map */
    uint64_t reserve;      /* kept free beyond the last page */
    uint32_t fresh_window; /* messages in the fresh lane */
};

struct bh_config {
    uint64_t generation;
    struct bh_engine_config engine;
    struct bh_queue_config queue;
    struct bh_resolver_policy resolver;
    const struct bh_listen_config *listens;
    size_t listens_count;
    const struct bh_connector
        *connectors; /* in order of the files; a built-in "default" comes last */
    size_t connectors_count;
    const struct bh_retry *retries; /* named schedules, built-in ones included */
    size_t retries_count;
    struct bh_config_private *priv; /* private: arena, index, count of references */
};

/** Parse, check and resolve a configuration.
 *
 * @param path        NUL-terminated; includes and relative file names start from its folder
 * @param generation  becomes config->generation
 * @param config      on BH_OK a configuration with one reference; else unchanged
 * @param errors      initialised; every error and warning is added
 * @return BH_OK, BH_EINVAL (errors has at least one error), or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_config_parse(const struct bh_config_reader *reader, const char *path,
                                           uint64_t generation, const struct bh_config **config,
                                           struct bh_config_errors *errors);
/** Where to find the engine and its queue. */
struct bh_config_places {
    struct bh_arena arena;   /* private: the texts */
    struct bh_names control; /* socket paths, at least one; each NUL-terminated behind */
    struct bh_slice queue;   /* directory, NUL-terminated behind */
};

/** Read `engine control` and `queue path` out of a configuration that need not be good: for tools
 * that must find the engine after somebody broke the file. Statements are read as far as they can
 * be, includes too; every error is ignored, and what is not stated is as built in. Nothing is
 * checked: don't run an engine by it.
 *
 * @param path    NUL-terminated; relative paths start from the folder of their file
 * @param places  initialised whatever is returned, for bh_config_places_fini; up to 1 MiB of it
 *                comes from malloc
 * @return BH_OK; BH_ENOTFOUND: the file itself can't be read, and places are the built-in ones;
 * BH_ENOMEM: places may be incomplete */
BH_MUST_USE enum bh_status bh_config_peek(const struct bh_config_reader *reader, const char *path,
                                          struct bh_config_places *places);
/** Free what is in it. */
void bh_config_places_fini(struct bh_config_places *places);

/** Another reference. Any thread. @return config */
const struct bh_config *bh_config_ref(const struct bh_config *config);
/** Give one back; the last one frees it. Any thread; NULL is fine. */
void bh_config_unref(const struct bh_config *config);

/** @return the connector with this name, or NULL */
const struct bh_connector *bh_config_connector(const struct bh_config *config,
                                               struct bh_slice name);

/* What the engine can do. bh_config_check_supported refuses what needs a bit that is not given, so
 * that nothing configured is silently weaker or left out. */
enum {
    BH_CAN_TLS_VERIFY = 1 << 0,
    BH_CAN_TLS_PIN = 1 << 1,
    BH_CAN_TLS_DANE = 1 << 2, /* dane, dane-only */
    BH_CAN_TLS_AUTO = 1 << 3, /* without it `tls auto` is a warning: it acts as opportunistic */
    BH_CAN_TLS_AUDIT = 1 << 4,
    BH_CAN_TLS_EXCEPTION = 1 << 5,
    BH_CAN_TLS_CLIENT_CERT = 1 << 6,
    BH_CAN_TLS_IMPLICIT = 1 << 7,
    BH_CAN_TLS_CIPHERS = 1 << 8,  /* ciphers, ciphersuites, max-version, sni */
    BH_CAN_TLS_IF_UNMET = 1 << 9, /* if-unmet bounce */
    BH_CAN_AUTH = 1 << 10,
    BH_CAN_REPLY_RULES = 1 << 11,
    BH_CAN_LMTP = 1 << 12,
    BH_CAN_RESOLVER = 1 << 13, /* a resolver of a connector's own */
    BH_CAN_RATES = 1 << 14,
    BH_CAN_SHARED_LIMITS = 1 << 15,
    BH_CAN_FAILOVER = 1 << 16,
    BH_CAN_LISTEN_TLS = 1 << 17,
    BH_CAN_PROXY = 1 << 18,
    BH_CAN_SYSTEMD = 1 << 19,
    BH_CAN_MESSAGE_SIZE = 1 << 20, /* of a connector */
    BH_CAN_ALL = (1 << 21) - 1,
    /* What the engine of this version does. The rest is refused at load, never silently weaker. */
    BH_CAN_NOW = BH_CAN_TLS_VERIFY | BH_CAN_TLS_PIN | BH_CAN_TLS_DANE | BH_CAN_TLS_AUTO |
                 BH_CAN_TLS_AUDIT | BH_CAN_TLS_EXCEPTION | BH_CAN_TLS_IF_UNMET |
                 BH_CAN_TLS_CLIENT_CERT | BH_CAN_TLS_IMPLICIT | BH_CAN_TLS_CIPHERS | BH_CAN_LMTP |
                 BH_CAN_RESOLVER | BH_CAN_RATES | BH_CAN_REPLY_RULES | BH_CAN_LISTEN_TLS |
                 BH_CAN_PROXY | BH_CAN_SYSTEMD | BH_CAN_FAILOVER | BH_CAN_AUTH,
};

/** Where the engine's block states a setting, for errors that only a running process can find; the
 * block itself where it does not. Line 0: there is no such block. */
void bh_config_engine_place(const struct bh_config *config, const char *setting,
                            struct bh_slice *file, uint32_t *line, uint32_t *column);

/** Refuse what the engine cannot do: an error for each use. @return false if there was one */
bool bh_config_check_supported(const struct bh_config *config, uint32_t can,
                               struct bh_config_errors *errors);
/** Warn of exceptions that have ended by this wall time, or will within 14 days. */
void bh_config_check_dates(const struct bh_config *config, int64_t now_unix_ms,
                           struct bh_config_errors *errors);

/* ---- matching ---- */

enum bh_space_kind { BH_SPACE_EXACT, BH_SPACE_SUFFIX, BH_SPACE_ANY };

struct bh_match {
    const struct bh_connector *connector;
    enum bh_space_kind kind;
    struct bh_slice space; /* the address space that matched, as configured; of the configuration */
    struct bh_slice sender; /* the sender pattern that matched; empty: anybody */
    const struct bh_connector
        *instead_of; /* the cheaper connector that is down or held; NULL: none */
};

/** Is this connector able to take mail now? Called for connectors that are active by configuration.
 */
typedef bool bh_connector_available(void *ctx, const struct bh_connector *connector);

/** Which connector takes this message (DESIGN section 5): the most specific address space (exact,
 * longest
 * *.suffix, *) that has a connector whose conditions hold; among those the most specific sender,
 * then the narrower size, then the lowest cost; then failover. Hash lookups only.
 *
 * @param domain     lower-case A-label name without trailing dot, or "[192.0.2.1]"
 * @param sender     local@domain, empty for <>
 * @param size       octets
 * @param available  NULL: all are
 * @return BH_OK, or BH_ENOTFOUND: no connector names it (an address literal; or no `*`) */
BH_MUST_USE enum bh_status bh_config_match(const struct bh_config *config, struct bh_slice domain,
                                           struct bh_slice sender, uint64_t size,
                                           bh_connector_available *available, void *ctx,
                                           struct bh_match *match);
/** What the message is queued under, and what it goes back to: the cheaper connector, where another
 * takes over for it. */
const struct bh_connector *bh_match_first_choice(const struct bh_match *match);

/** Who may take over from a connector for a domain: active, `failover yes`, the same address space,
 * and the lowest cost above `above`. Linear in the connectors.
 * @param above  cost of the one to be replaced, or of the last that took over
 * @return NULL: nobody */
const struct bh_connector *bh_config_alternate(const struct bh_config *config,
                                               const struct bh_connector *primary,
                                               struct bh_slice domain, uint32_t above);
/** The rule in words: "address space *.bank.example (suffix), sender @us.example, size above
 * 1048576, cost 5". Cut to the room of `out`. */
void bh_match_text(const struct bh_match *match, struct bh_buf *out);

/* ---- explain, print, diff ---- */

/** All effective settings of a connector as a JSON object: for each setting its value and where it
 * came from ("connector", "defaults" or "built-in") with file and line. */
void bh_connector_describe(const struct bh_config *config, const struct bh_connector *connector,
                           struct bh_json *json);

/** The configuration as text with every value resolved; parsing it gives the same configuration.
 * @return BH_OK or BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_config_print(const struct bh_config *config, struct bh_buf *out);

enum bh_change {
    BH_CHANGE_ADDED,   /* a connector */
    BH_CHANGE_REMOVED, /* a connector */
    BH_CHANGE_SETTING, /* of a connector, or of a block such as "engine": connector is then empty */
    BH_CHANGE_MOVED,   /* a domain goes from connector `before` to connector `after` */
};

enum bh_tls_change { BH_TLS_SAME, BH_TLS_STRICTER, BH_TLS_WEAKER, BH_TLS_TRUST };

/** One difference. Slices live during the callback only. */
struct bh_config_change {
    enum bh_change kind;
    struct bh_slice connector;     /* its name; MOVED: empty */
    struct bh_slice setting;       /* "limits rate"; MOVED: the address space */
    struct bh_slice sender;        /* MOVED: the sender condition, empty for anybody */
    struct bh_slice before, after; /* values, or names of connectors; empty: none */
    enum bh_tls_change tls;        /* MOVED, and SETTING "tls": what it does to the demand */
};

/** Tell every difference, connectors in order of name. ADDED, REMOVED and MOVED tell of connectors
 * and address spaces; SETTING "tls" is told once for each connector whose whole demand changed.
 * @return how many changes make a TLS demand weaker: a reload needs --allow-weaken if not 0. For
 * want of memory not all was told, and it is SIZE_MAX */
size_t bh_config_diff(const struct bh_config *before, const struct bh_config *after,
                      void (*tell)(void *ctx, const struct bh_config_change *change), void *ctx);
