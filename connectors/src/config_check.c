/* config_check.c - what is configured against what the engine can do. */
#include "bh/time.h"
#include "config_internal.h"

struct checking {
    const struct bh_config *config;
    uint32_t can;
    struct bh_config_errors *errors;
    bool good;
    bool told_auto;
};

static void refuse(struct checking *c, const struct bh_config_node *node, const char *what)
{
    c->good = false;
    bh_config_errors_add(c->errors, BH_CONFIG_ERROR, node->file->name, node->line, node->column,
                         "%s is not supported by this version; it is refused rather than weakened "
                         "or ignored",
                         what);
}

/* Point to the statement that asks for it: the connector's own, the defaults', or the connector. */
static const struct bh_config_node *place(const struct checking *c,
                                          const struct bh_connector *connector, const char *name,
                                          const char *inner)
{
    const struct bh_config_node *defaults = bh_config_node_child(c->config->priv->root, "defaults");
    const struct bh_config_node *blocks[] = {connector->node, defaults};
    const struct bh_config_node *outer = NULL;
    for (size_t i = 0; i < BH_COUNT(blocks); i++) {
        const struct bh_config_node *node = bh_config_node_child(blocks[i], name);
        outer = outer != NULL ? outer : node;
        const struct bh_config_node *found =
            inner != NULL ? bh_config_node_child(node, inner) : node;
        if (found != NULL) {
            return found;
        }
    }
    return outer != NULL ? outer : connector->node;
}

void bh_config_engine_place(const struct bh_config *config, const char *setting,
                            struct bh_slice *file, uint32_t *line, uint32_t *column)
{
    const struct bh_config_node *block = bh_config_node_child(config->priv->root, "engine");
    const struct bh_config_node *own = bh_config_node_child(block, setting);
    const struct bh_config_node *node = own != NULL ? own : block;
    *file = node != NULL ? node->file->name : BH_LIT("engine");
    *line = node != NULL ? node->line : 0;
    *column = node != NULL ? node->column : 0;
}

static void need(struct checking *c, const struct bh_connector *connector, bool used, uint32_t bit,
                 const char *name, const char *inner, const char *what)
{
    if (used && (c->can & bit) == 0) {
        refuse(c, place(c, connector, name, inner), what);
    }
}

static void check_mode(struct checking *c, const struct bh_connector *connector,
                       enum bh_tls_mode mode, enum bh_tls_mode fallback)
{
    const bool verify = mode == BH_TLS_VERIFY || (mode == BH_TLS_DANE && fallback == BH_TLS_VERIFY);
    const bool dane = mode == BH_TLS_DANE || mode == BH_TLS_DANE_ONLY;
    need(c, connector, verify, BH_CAN_TLS_VERIFY, "tls", NULL, "tls verify");
    need(c, connector, mode == BH_TLS_PIN, BH_CAN_TLS_PIN, "tls", NULL, "tls pin");
    need(c, connector, dane, BH_CAN_TLS_DANE, "tls", NULL, "tls dane");
    if (dane && !connector->resolver.trusted) {
        const struct bh_config_node *node = place(c, connector, "tls", NULL);
        c->good = false;
        bh_config_errors_add(c->errors, BH_CONFIG_ERROR, node->file->name, node->line, node->column,
                             "tls %s needs a resolver whose DNSSEC answers count: "
                             "resolver { trusted yes }",
                             bh_tls_mode_name(mode));
    }
    if (mode == BH_TLS_AUTO && (c->can & BH_CAN_TLS_AUTO) == 0 && !c->told_auto) {
        const struct bh_config_node *node = place(c, connector, "tls", NULL);
        c->told_auto = true;
        bh_config_errors_add(c->errors, BH_CONFIG_WARNING, node->file->name, node->line,
                             node->column,
                             "tls auto acts as opportunistic: this version has neither DANE nor "
                             "MTA-STS");
    }
}

static void check_tls(struct checking *c, const struct bh_connector *connector)
{
    const struct bh_tls_policy *tls = &connector->tls;
    const struct bh_tls_demand *demand = &tls->demand;
    const bool exception = tls->exception.until_unix_ms != 0;
    check_mode(c, connector, demand->mode, demand->fallback);
    if (exception && tls->exception_demand.mode != demand->mode) {
        check_mode(c, connector, tls->exception_demand.mode, demand->fallback);
    }
    need(c, connector, exception, BH_CAN_TLS_EXCEPTION, "tls", "exception", "a tls exception");
    need(c, connector, tls->audit, BH_CAN_TLS_AUDIT, "tls", "audit", "tls audit");
    need(c, connector, demand->client_cert.len > 0, BH_CAN_TLS_CLIENT_CERT, "tls",
         "client-certificate", "a client certificate");
    need(c, connector, demand->implicit, BH_CAN_TLS_IMPLICIT, "tls", "implicit", "implicit TLS");
    need(c, connector, demand->ciphers.len > 0, BH_CAN_TLS_CIPHERS, "tls", "ciphers", "'ciphers'");
    need(c, connector, demand->ciphersuites.len > 0, BH_CAN_TLS_CIPHERS, "tls", "ciphersuites",
         "'ciphersuites'");
    need(c, connector, demand->max_version != BH_TLS_VERSION_NONE, BH_CAN_TLS_CIPHERS, "tls",
         "max-version", "'max-version'");
    need(c, connector, demand->sni.len > 0, BH_CAN_TLS_CIPHERS, "tls", "sni", "'sni'");
    need(c, connector, tls->if_unmet == BH_IF_UNMET_BOUNCE, BH_CAN_TLS_IF_UNMET, "tls", "if-unmet",
         "if-unmet bounce");
}

static bool own_servers(const struct bh_resolver_policy *own, const struct bh_resolver_policy *all)
{
    return own->servers.at != all->servers.at || own->timeout_ms != all->timeout_ms ||
           own->attempts != all->attempts || own->min_ttl_ms != all->min_ttl_ms ||
           own->max_ttl_ms != all->max_ttl_ms || own->negative_ttl_ms != all->negative_ttl_ms ||
           own->trusted != all->trusted;
}

static bool has_rates(const struct bh_connector_limits *limits)
{
    for (enum bh_rate_scope scope = 0; scope < BH_RATE_SCOPES; scope++) {
        for (enum bh_rate_kind kind = 0; kind < BH_RATE_KINDS; kind++) {
            if (limits->rates[scope][kind].count > 0) {
                return true;
            }
        }
    }
    return false;
}

static void check_connector(struct checking *c, const struct bh_connector *connector)
{
    const struct bh_connector_limits *limits = &connector->limits;
    check_tls(c, connector);
    need(c, connector, connector->auth.mech != BH_AUTH_NONE, BH_CAN_AUTH, "auth", NULL, "auth");
    need(c, connector, connector->replies.count > 0, BH_CAN_REPLY_RULES, "on", NULL, "'on reply'");
    need(c, connector, connector->protocol == BH_PROTOCOL_LMTP, BH_CAN_LMTP, "protocol", NULL,
         "protocol lmtp");
    need(c, connector, own_servers(&connector->resolver, &c->config->resolver), BH_CAN_RESOLVER,
         "resolver", NULL, "a resolver of a connector's own");
    need(c, connector, has_rates(limits), BH_CAN_RATES, "limits", NULL, "a rate");
    need(c, connector, limits->message_size > 0, BH_CAN_MESSAGE_SIZE, "limits", "message-size",
         "'message-size'");
    need(c, connector, limits->shared, BH_CAN_SHARED_LIMITS, "limits", "shared", "'shared'");
    need(c, connector, connector->failover, BH_CAN_FAILOVER, "failover", NULL, "'failover'");
}

static void check_listens(struct checking *c)
{
    const struct bh_config_node *root = c->config->priv->root;
    size_t i = 0;
    for (const struct bh_config_node *node = root->children;
         node != NULL && i < c->config->listens_count; node = node->next) {
        if (!bh_slice_eq(node->key, BH_LIT("listen"))) {
            continue;
        }
        const struct bh_listen_config *listen = &c->config->listens[i++];
        if (listen->tls != BH_LISTEN_TLS_OFF && (c->can & BH_CAN_LISTEN_TLS) == 0) {
            refuse(c, node, "TLS of a listener");
        }
        if (listen->proxy_from.count > 0 && (c->can & BH_CAN_PROXY) == 0) {
            refuse(c, node, "'proxy-protocol-from'");
        }
        if (listen->kind == BH_LISTEN_SYSTEMD && (c->can & BH_CAN_SYSTEMD) == 0) {
            refuse(c, node, "a socket from systemd");
        }
    }
}

bool bh_config_check_supported(const struct bh_config *config, uint32_t can,
                               struct bh_config_errors *errors)
{
    struct checking c = {.config = config, .can = can, .errors = errors, .good = true};
    for (size_t i = 0; i < config->connectors_count; i++) {
        check_connector(&c, &config->connectors[i]);
    }
    check_listens(&c);
    return c.good;
}

/* ---- dates ---- */

static void check_date(struct checking *c, const struct bh_connector *connector, const char *name,
                       const char *inner, int64_t left_ms)
{
    const struct bh_config_node *node = place(c, connector, name, inner);
    const bool tls = bh_slice_eq(bh_slice_str(name), BH_LIT("tls"));
    const char *effect =
        tls ? "mail is held" : "credentials go to nobody who has not proven who it is";
    if (left_ms <= 0) {
        bh_config_errors_add(c->errors, BH_CONFIG_WARNING, node->file->name, node->line,
                             node->column, "'%s' has ended: %s", inner, effect);
    } else if (left_ms <= 14 * BH_DAY_MS) {
        bh_config_errors_add(c->errors, BH_CONFIG_WARNING, node->file->name, node->line,
                             node->column, "'%s' ends within %lld days; then %s", inner,
                             (long long)((left_ms + BH_DAY_MS - 1) / BH_DAY_MS), effect);
    }
}

void bh_config_check_dates(const struct bh_config *config, int64_t now_unix_ms,
                           struct bh_config_errors *errors)
{
    struct checking c = {.config = config, .errors = errors};
    for (size_t i = 0; i < config->connectors_count; i++) {
        const struct bh_connector *connector = &config->connectors[i];
        const int64_t tls = connector->tls.exception.until_unix_ms;
        const int64_t peer = connector->auth.unauthenticated_peer.until_unix_ms;
        if (tls != 0) {
            check_date(&c, connector, "tls", "exception", tls - now_unix_ms);
        }
        if (peer != 0) {
            check_date(&c, connector, "auth", "allow-unauthenticated-peer", peer - now_unix_ms);
        }
    }
}
