/* config_finish.c - one connector, once all its statements are read: values that hang on others,
 * and whether they fit together. */
#include <inttypes.h>

#include "config_internal.h"
#include "config_special.h"

#define IDLE_MX_MS 5000         /* DEFAULTS 3.3 */
#define IDLE_SMARTHOST_MS 30000 /* DEFAULTS 3.3 */

const struct bh_config_node *bh_own_statement(const struct bh_connector *connector,
                                              const char *name, const char *inner)
{
    const struct bh_config_node *node = bh_config_node_child(connector->node, name);
    return inner == NULL ? node : bh_config_node_child(node, inner);
}

/* Where to point: the statement itself, else its block, else the connector. */
static const struct bh_config_node *place(const struct bh_connector *connector, const char *name,
                                          const char *inner)
{
    const struct bh_config_node *node = bh_own_statement(connector, name, inner);
    node = node != NULL ? node : bh_own_statement(connector, name, NULL);
    return node != NULL ? node : connector->node;
}

/* ---- TLS ---- */

static unsigned mode_bit(enum bh_tls_mode mode)
{
    return 1U << (unsigned)mode;
}

/* All modes in which this policy may come to act. */
static unsigned modes_of(const struct bh_tls_policy *tls)
{
    unsigned modes = mode_bit(tls->demand.mode);
    if (tls->audit) {
        modes |= mode_bit(tls->audit_demand.mode);
    }
    if (tls->exception.until_unix_ms != 0) {
        modes |= mode_bit(tls->exception_demand.mode);
    }
    if ((modes & mode_bit(BH_TLS_DANE)) != 0) {
        modes |= mode_bit(tls->demand.fallback);
    }
    return modes;
}

/* Keys that only some modes heed. */
static const struct {
    const char *key;
    unsigned modes;
    const char *text;
} keys[] = {
    {"names", 1U << BH_TLS_VERIFY, "tls verify, or dane with fallback-mode verify"},
    {"ca-file", 1U << BH_TLS_VERIFY | 1U << BH_TLS_AUTO,
     "tls verify, auto, or dane with fallback-mode verify"},
    {"pins", 1U << BH_TLS_PIN, "tls pin"},
    {"fallback-mode", 1U << BH_TLS_DANE, "tls dane"},
    {"implicit", ~(1U << BH_TLS_OFF), "any tls mode but off"},
    {"client-certificate", ~(1U << BH_TLS_OFF), "any tls mode but off"},
    {"client-key", ~(1U << BH_TLS_OFF), "any tls mode but off"},
    {"ciphers", ~(1U << BH_TLS_OFF), "any tls mode but off"},
    {"ciphersuites", ~(1U << BH_TLS_OFF), "any tls mode but off"},
    {"sni", ~(1U << BH_TLS_OFF), "any tls mode but off"},
};

bool bh_tls_key_has_meaning(const struct bh_tls_policy *tls, const char *key)
{
    for (size_t i = 0; i < BH_COUNT(keys); i++) {
        if (strcmp(keys[i].key, key) == 0) {
            return (modes_of(tls) & keys[i].modes) != 0;
        }
    }
    return true;
}

static void check_useless_keys(struct bh_load *load, const struct bh_connector *connector,
                               unsigned modes)
{
    for (size_t i = 0; i < BH_COUNT(keys); i++) {
        const struct bh_config_node *node = bh_own_statement(connector, "tls", keys[i].key);
        if (node != NULL && (modes & keys[i].modes) == 0) {
            bh_load_error(load, node, NULL, "'%s' has no meaning in tls %s; it goes with %s",
                          keys[i].key, bh_tls_mode_name(connector->tls.demand.mode), keys[i].text);
        }
    }
}

static void check_exception(struct bh_load *load, const struct bh_config_node *node,
                            const struct bh_exception *exception, bool allows)
{
    if (node == NULL) {
        return;
    }
    if (exception->until_unix_ms == 0) {
        bh_load_error(load, node, NULL, "'%.*s' needs 'until' with a date such as 2026-12-31",
                      BH_FMT(node->key));
    }
    if (exception->reason.len == 0) {
        bh_load_error(load, node, NULL, "'%.*s' needs a 'reason'", BH_FMT(node->key));
    }
    if (!allows) {
        bh_load_error(load, node, NULL,
                      "'%.*s' needs a 'mode', or a 'min-version': what is allowed until then",
                      BH_FMT(node->key));
    }
}

/* What it does not state is as without it. */
static void finish_exception(struct bh_load *load, const struct bh_connector *connector,
                             struct bh_tls_policy *tls)
{
    const struct bh_config_node *node = bh_own_statement(connector, "tls", "exception");
    const bool has_mode = bh_config_node_child(node, "mode") != NULL;
    const struct bh_config_node *floor = bh_config_node_child(node, "min-version");
    const enum bh_tls_mode mode = tls->exception_demand.mode;
    const enum bh_tls_version version = tls->exception_demand.min_version;
    tls->exception_demand = tls->demand;
    if (has_mode) {
        tls->exception_demand.mode = mode;
    }
    if (floor != NULL) {
        tls->exception_demand.min_version = version;
    }
    if (floor != NULL && version > tls->demand.min_version) {
        bh_load_error(load, floor, NULL, "an exception allows less: 'min-version' %s is above %s",
                      bh_tls_version_name(version), bh_tls_version_name(tls->demand.min_version));
    } else if (floor != NULL && version < BH_TLS_VERSION_1_2) {
        bh_load_warning(load, floor, NULL, "%s is broken (RFC 8996)", bh_tls_version_name(version));
    }
    check_exception(load, node, &tls->exception, has_mode || floor != NULL);
}

static void finish_tls(struct bh_load *load, struct bh_connector *connector)
{
    struct bh_tls_policy *tls = &connector->tls;
    const enum bh_tls_mode audit = tls->audit_demand.mode;
    tls->audit_demand = tls->demand;
    tls->audit_demand.mode = tls->audit ? audit : tls->demand.mode;
    finish_exception(load, connector, tls);

    const struct bh_tls_demand *demand = &tls->demand;
    const unsigned modes = modes_of(tls);
    if ((modes & mode_bit(BH_TLS_PIN)) != 0 && demand->pins.count == 0) {
        bh_load_error(load, place(connector, "tls", NULL), NULL, "tls pin needs 'pins'");
    }
    check_useless_keys(load, connector, modes);
    if (demand->max_version != BH_TLS_VERSION_NONE && demand->max_version < demand->min_version) {
        bh_load_error(load, place(connector, "tls", "max-version"), NULL,
                      "'max-version' %s is below 'min-version' %s",
                      bh_tls_version_name(demand->max_version),
                      bh_tls_version_name(demand->min_version));
    }
    if ((demand->client_cert.len > 0) != (demand->client_key.len > 0)) {
        bh_load_error(load, place(connector, "tls", "client-certificate"), NULL,
                      "'client-certificate' and 'client-key' go together");
    }
    const struct bh_config_node *floor = bh_own_statement(connector, "tls", "min-version");
    if (floor != NULL && demand->min_version < BH_TLS_VERSION_1_2) {
        bh_load_error(load, floor, NULL,
                      "%s is broken (RFC 8996); until a date: exception { until DATE; reason "
                      "\"...\"; min-version %s }",
                      bh_tls_version_name(demand->min_version),
                      bh_tls_version_name(demand->min_version));
    }
    const struct bh_config_node *own = bh_own_statement(connector, "tls", NULL);
    if (own != NULL && demand->mode == BH_TLS_OFF) {
        bh_load_warning(load, own, NULL,
                        "tls off also switches DANE and MTA-STS off for these domains");
    }
}

/* ---- credentials ---- */

static void check_auth(struct bh_load *load, const struct bh_connector *connector)
{
    const struct bh_auth *auth = &connector->auth;
    const struct bh_config_node *at = place(connector, "auth", NULL);
    const bool token = auth->mech == BH_AUTH_XOAUTH2;
    const struct bh_config_node *peer =
        bh_own_statement(connector, "auth", "allow-unauthenticated-peer");
    check_exception(load, peer, &auth->unauthenticated_peer, true);
    if (auth->mech == BH_AUTH_NONE) {
        if (auth->user.len > 0 || auth->password_file.len > 0 || auth->token_file.len > 0) {
            bh_load_error(load, at, NULL, "auth none takes no user and no file");
        }
        return;
    }
    if (auth->user.len == 0) {
        bh_load_error(load, at, NULL, "auth needs a 'user'");
    }
    if ((token ? auth->token_file : auth->password_file).len == 0) {
        bh_load_error(load, at, NULL, "auth needs a '%s'", token ? "token-file" : "password-file");
    }
    if ((token ? auth->password_file : auth->token_file).len > 0) {
        bh_load_error(load, at, NULL, "this mechanism has no use for a '%s'",
                      token ? "password-file" : "token-file");
    }
    if (peer != NULL) {
        return;
    }
    switch (connector->tls.demand.mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        bh_load_error(load, at, NULL,
                      "credentials go to an authenticated peer only: use tls verify, pin or "
                      "dane-only, or allow-unauthenticated-peer { until DATE; reason \"...\" }");
        break;
    case BH_TLS_AUTO:
    case BH_TLS_DANE:
        bh_load_warning(load, at, NULL,
                        "tls %s may not authenticate the peer: then credentials are not sent and "
                        "the mail waits; tls verify makes it sure",
                        bh_tls_mode_name(connector->tls.demand.mode));
        break;
    case BH_TLS_VERIFY:
    case BH_TLS_PIN:
    case BH_TLS_DANE_ONLY:
        break;
    }
}

/* ---- the rest ---- */

static void finish_route(struct bh_load *load, struct bh_connector *connector)
{
    const struct bh_config_node *route = bh_own_statement(connector, "route", NULL);
    if (route != NULL && connector->route == BH_ROUTE_SMARTHOSTS &&
        bh_own_statement(connector, "smarthosts", NULL) != NULL && route->values != NULL &&
        bh_slice_eq(route->values->text, BH_LIT("mx"))) {
        bh_load_error(load, route, NULL, "route mx and 'smarthosts' exclude each other");
    }
    if (connector->route == BH_ROUTE_MX) {
        connector->smarthosts = (struct bh_smarthosts){0};
        if (connector->protocol == BH_PROTOCOL_LMTP) {
            bh_load_error(load, place(connector, "protocol", NULL), NULL,
                          "protocol lmtp needs 'smarthosts': LMTP is not found by MX (RFC 2033)");
        }
        return;
    }
    if (connector->smarthosts.count == 0) {
        bh_load_error(load, place(connector, "route", NULL), NULL,
                      "route smarthosts needs 'smarthosts [ host ... ]'");
        return;
    }
    struct bh_smarthost *hosts = bh_load_alloc(load, connector->smarthosts.count * sizeof(*hosts));
    if (hosts == NULL) {
        return;
    }
    for (size_t i = 0; i < connector->smarthosts.count; i++) {
        hosts[i] = connector->smarthosts.at[i];
        if (hosts[i].port == 0) {
            hosts[i].port = connector->port;
        }
    }
    connector->smarthosts.at = hosts;
}

static void finish_limits(struct bh_load *load, struct bh_connector *connector)
{
    struct bh_connector_limits *limits = &connector->limits;
    if (limits->idle_ms == 0) {
        limits->idle_ms = connector->route == BH_ROUTE_SMARTHOSTS ? IDLE_SMARTHOST_MS : IDLE_MX_MS;
    }
    if (limits->ceiling == 0) {
        limits->ceiling = limits->per_destination;
    }
    if (limits->initial > limits->per_destination) {
        limits->initial = limits->per_destination;
    }
    if (limits->floor > limits->ceiling) {
        bh_load_error(load, place(connector, "limits", "floor"), NULL,
                      "'floor' %" PRIu32 " is above the ceiling of %" PRIu32, limits->floor,
                      limits->ceiling);
    }
    if (connector->size_below > 0 && connector->size_above >= connector->size_below) {
        bh_load_error(load, place(connector, "size-above", NULL), NULL,
                      "no message is above 'size-above' and below 'size-below'");
    }
}

static void check_source(struct bh_load *load, const struct bh_connector *connector)
{
    const enum bh_family family = connector->family;
    const unsigned wanted = family == BH_FAMILY_IPV4_ONLY   ? 4
                            : family == BH_FAMILY_IPV6_ONLY ? 6
                                                            : 0;
    bool found = connector->source.count == 0 || wanted == 0;
    size_t of_ipv4 = 0;
    for (size_t i = 0; i < connector->source.count; i++) {
        found |= connector->source.at[i].family == wanted;
        of_ipv4 += connector->source.at[i].family == 4 ? 1 : 0;
    }
    if (of_ipv4 > 1 || connector->source.count - of_ipv4 > 1) {
        bh_load_error(load, place(connector, "source", NULL), NULL,
                      "'source' takes one IPv4 address, one IPv6 address, or one of each");
    }
    if (!found) {
        bh_load_error(load, place(connector, "source", NULL), NULL,
                      "'source' has no IPv%u address, but 'family' is ipv%u-only", wanted, wanted);
    }
}

/* Mail for everybody if only conditions are stated. */
static void finish_domains(struct bh_load *load, struct bh_connector *connector)
{
    if (bh_own_statement(connector, "domains", NULL) != NULL || connector->domains.count > 0) {
        return;
    }
    if (connector->senders.count == 0 && connector->size_above == 0 && connector->size_below == 0) {
        bh_load_error(
            load, connector->node, NULL,
            "connector '%.*s' needs 'domains', or a condition: 'senders', 'size-above' or "
            "'size-below'",
            BH_FMT(bh_load_shown(connector->name)));
        return;
    }
    struct bh_slice *any = bh_load_alloc(load, sizeof(*any));
    if (any != NULL) {
        *any = BH_LIT("*");
        connector->domains = (struct bh_names){any, 1};
    }
}

void bh_load_finish_connector(struct bh_load *load, const struct bh_config *config,
                              struct bh_connector *connector)
{
    if (connector->helo.len == 0) {
        connector->helo = config->engine.hostname;
    }
    finish_domains(load, connector);
    finish_route(load, connector);
    finish_limits(load, connector);
    finish_tls(load, connector);
    check_auth(load, connector);
    check_source(load, connector);
    const struct bh_config_node *reason = bh_own_statement(connector, "reason", NULL);
    if (reason != NULL && connector->state == BH_CONNECTOR_ACTIVE) {
        bh_load_error(load, reason, NULL, "'reason' goes with state held or disabled");
    }
    if (connector->resolver.min_ttl_ms > connector->resolver.max_ttl_ms) {
        bh_load_error(load, place(connector, "resolver", NULL), NULL,
                      "'min-ttl' is above 'max-ttl'");
    }
}
