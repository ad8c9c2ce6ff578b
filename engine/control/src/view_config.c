/* `connectors` and `explain`: the configuration in force, and the queue's view of it. */
#include <stdio.h>

#include "bh/secrets.h"
#include "view_private.h"

static void put_names(struct bh_json *j, const char *key, const struct bh_names *names)
{
    bh_json_key(j, key);
    bh_json_begin_array(j);
    for (size_t i = 0; i < names->count; i++) {
        bh_json_str(j, names->at[i]);
    }
    bh_json_end_array(j);
}

static bool exception_ended(const struct bh_view *v, const struct bh_connector *c)
{
    bool lapsed = false;
    (void)bh_connector_tls_demand(c, v->now_unix_ms, &lapsed);
    return lapsed;
}

void view_connector_reason(const struct bh_view *v, const struct bh_connector *c,
                           struct bh_buf *reason)
{
    if (c->state == BH_CONNECTOR_ACTIVE && exception_ended(v, c)) {
        bh_buf_add_cut(reason, BH_LIT("its TLS exception has ended: "));
        bh_buf_add_cut(reason, c->tls.exception.reason);
    } else {
        bh_buf_add_cut(reason, c->reason);
    }
}

const char *view_connector_state(const struct bh_view *v, const struct bh_connector *c)
{
    switch (c->state) {
    case BH_CONNECTOR_ACTIVE:
        return exception_ended(v, c) ? "held" : "active";
    case BH_CONNECTOR_HELD:
        return "held";
    case BH_CONNECTOR_DISABLED:
        return "disabled";
    }
    return "active";
}

/* "mx", or the smarthosts "a:587, [b]:25". */
void view_route(struct bh_json *j, const struct bh_connector *c)
{
    char text[512];
    struct bh_buf buf = bh_buf(text, sizeof(text));
    bh_buf_add_cut(&buf, c->route == BH_ROUTE_MX ? BH_LIT("mx") : BH_EMPTY);
    for (size_t i = 0; c->route == BH_ROUTE_SMARTHOSTS && i < c->smarthosts.count; i++) {
        const struct bh_smarthost *s = &c->smarthosts.at[i];
        char ip[BH_IP_TEXT_MAX];
        const struct bh_slice host =
            s->ip.family != 0 ? bh_slice_str(bh_ip_text(&s->ip, ip)) : s->host;
        const bool bracket = s->ip.family != 0 || !s->mx_lookup;
        if (bh_buf_printf(&buf, "%s%s%.*s%s:%u", i > 0 ? ", " : "", bracket ? "[" : "",
                          BH_FMT(host), bracket ? "]" : "", (unsigned)s->port) != BH_OK) {
            bh_buf_add_cut(&buf, BH_LIT(" ..."));
            break;
        }
    }
    view_str(j, "route", bh_buf_slice(&buf));
}

static void put_exception(struct bh_view *v, struct bh_json *j, const struct bh_exception *x)
{
    const int64_t left_ms = x->until_unix_ms - v->now_unix_ms;
    bh_json_key(j, "exception");
    bh_json_begin_object(j);
    view_cstr(j, "state", left_ms <= 0 ? "ended" : left_ms <= 14 * BH_DAY_MS ? "ends" : "lasts");
    view_time(j, "until_unix_ms", x->until_unix_ms);
    view_str(j, "reason", x->reason);
    bh_json_end_object(j);
}

static void put_connector_fields(struct bh_view *v, struct bh_json *j, const struct bh_connector *c)
{
    view_str(j, "connector", c->name);
    char text[512];
    struct bh_buf reason = bh_buf(text, sizeof(text));
    view_cstr(j, "state", view_connector_state(v, c));
    view_connector_reason(v, c, &reason);
    if (reason.len > 0) {
        view_str(j, "reason", bh_buf_slice(&reason));
    }
    put_names(j, "domains", &c->domains);
    put_names(j, "senders", &c->senders);
    view_u64(j, "cost", c->cost);
    view_route(j, c);
    view_cstr(j, "protocol", c->protocol == BH_PROTOCOL_LMTP ? "lmtp" : "smtp");
    bool lapsed = false;
    const struct bh_tls_demand *demand = bh_connector_tls_demand(c, v->now_unix_ms, &lapsed);
    view_cstr(j, "tls", bh_tls_mode_name(demand->mode));
    view_bool(j, "tls_required", bh_tls_demand_requires_tls(demand));
    if (c->tls.exception.until_unix_ms != 0) {
        put_exception(v, j, &c->tls.exception);
    }
    view_str(j, "retry", c->retry.name);
    view_str(j, "file", c->file);
    view_u64(j, "line", c->line);
    struct bh_live_connector live = {0};
    if (v->live.connector != NULL && v->live.connector(v->live.ctx, c->name, &live)) {
        view_u64(j, "connections", live.connections);
        view_bool(j, "parked", live.parked);
        if (live.parked) {
            view_str(j, "park_reason", live.reason);
            view_time(j, "park_since_unix_ms", live.parked_since_unix_ms);
        }
    }
}

static void put_connector(struct bh_view *v, const struct bh_connector *c, bool whole)
{
    struct bh_json j = view_row_begin(v);
    put_connector_fields(v, &j, c);
    if (whole) {
        bh_json_key(&j, "settings");
        bh_connector_describe(v->config, c, &j);
    }
    view_row_end(v, &j);
}

enum bh_status view_connectors_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    if (v->request.matrix && v->request.name.len == 0) {
        return view_matrix_step(v, txn);
    }
    if (v->request.name.len > 0) {
        const struct bh_connector *c = bh_config_connector(v->config, v->request.name);
        if (c == NULL) {
            return view_fail(v, BH_ENOTFOUND, "no connector with the name", v->request.name);
        }
        put_connector(v, c, true);
        return BH_OK;
    }
    for (; v->connector_next < v->config->connectors_count; v->connector_next++) {
        if (v->step_rows == BH_VIEW_ROWS) {
            return BH_MORE;
        }
        put_connector(v, &v->config->connectors[v->connector_next], false);
    }
    struct bh_json j = view_end_begin(v);
    view_u64(&j, "connectors", v->config->connectors_count);
    view_u64(&j, "generation", v->config->generation);
    view_end_end(v, &j);
    return BH_OK;
}

/* ---- explain ---- */

struct bh_slice view_key_domain(struct bh_slice domain, char storage[BH_DOMAIN_MAX])
{
    domain = bh_slice_take(domain, BH_DOMAIN_MAX);
    for (size_t i = 0; i < domain.len; i++) {
        storage[i] = bh_lower(domain.ptr[i]);
    }
    const bool dot = domain.len > 1 && storage[domain.len - 1] == '.';
    return bh_slice(storage, domain.len - (dot ? 1 : 0));
}

/* What is queued for the domain through its connector now. No queue: nothing. */
static enum bh_status put_queued(struct bh_view *v, struct bh_kv_txn *txn, struct bh_slice domain,
                                 const struct bh_connector *c)
{
    uint32_t id = 0;
    struct bh_destination d;
    if (txn == NULL) {
        return BH_OK;
    }
    enum bh_status status = bh_queue_find_destination(txn, domain, c->name, &id);
    if (status == BH_OK) {
        status = bh_queue_read_destination(txn, id, &v->scratch, &d);
    }
    if (status == BH_OK) {
        view_put_destination(v, &d);
    }
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* Could a session read the secret now? Never what it is. */
static void put_secret(struct bh_json *j, const struct bh_auth *auth)
{
    const struct bh_slice path =
        auth->mech == BH_AUTH_XOAUTH2 ? auth->token_file : auth->password_file;
    char text[256];
    struct bh_buf reason = bh_buf(text, sizeof(text));
    if (auth->mech == BH_AUTH_NONE || path.len == 0) {
        return;
    }
    view_bool(j, "secret_readable", bh_secret_check(path, &reason) != BH_EIO);
    if (reason.len > 0) {
        view_str(j, "secret_problem", bh_buf_slice(&reason));
    }
}

/* What TLS must be at each host, as far as the engine has looked. */
static void put_hosts(struct bh_view *v)
{
    struct bh_live_host host;
    for (size_t i = 0; v->live.host != NULL && v->live.host(v->live.ctx, i, &host); i++) {
        struct bh_json j = view_row_begin(v);
        view_str(&j, "host", host.name);
        view_u64(&j, "port", host.port);
        view_str(&j, "connector", host.connector);
        view_bool(&j, "used", host.used);
        if (host.used) {
            view_str(&j, "tls", host.tls);
        }
        view_str(&j, "tls_from", host.from);
        if (host.reason.len > 0) {
            view_str(&j, "why", host.reason);
        }
        view_str(&j, "dane", host.dane);
        if (host.weakened.len > 0) {
            view_str(&j, "weaker_than_published", host.weakened);
        }
        if (host.lifted.len > 0) {
            view_str(&j, "tls_required_no", host.lifted);
        }
        view_bool(&j, "route_proven", host.route_proven);
        view_row_end(v, &j);
    }
}

enum bh_status view_explain_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    char storage[BH_DOMAIN_MAX];
    const struct bh_slice domain = view_key_domain(bh_address_domain(v->request.address), storage);
    struct bh_match match;
    const enum bh_status status =
        bh_config_match(v->config, domain, v->request.sender, v->request.size, NULL, NULL, &match);
    if (status == BH_ENOTFOUND) {
        v->negative = true;
        struct bh_json j = view_end_begin(v);
        bh_json_key(&j, "connector");
        bh_json_null(&j);
        view_cstr(&j, "why", "no connector's address space has this domain");
        view_bool(&j, "negative", true);
        view_end_end(v, &j);
        return BH_OK;
    }
    if (status != BH_OK) {
        return status;
    }
    char rule[512];
    struct bh_buf text = bh_buf(rule, sizeof(rule));
    bh_match_text(&match, &text);
    struct bh_json j = view_row_begin(v);
    view_str(&j, "address", v->request.address);
    view_str(&j, "domain", domain);
    view_str(&j, "rule", bh_buf_slice(&text));
    put_connector_fields(v, &j, match.connector);
    if (match.instead_of != NULL) {
        view_str(&j, "instead_of", match.instead_of->name);
    }
    put_secret(&j, &match.connector->auth);
    bh_json_key(&j, "settings");
    bh_connector_describe(v->config, match.connector, &j);
    view_row_end(v, &j);
    put_hosts(v);

    const enum bh_status queued = put_queued(v, txn, domain, match.connector);
    if (queued != BH_OK) {
        return queued;
    }
    v->negative = match.connector->state != BH_CONNECTOR_ACTIVE;
    struct bh_json end = view_end_begin(v);
    view_u64(&end, "generation", v->config->generation);
    view_str(&end, "connector", match.connector->name);
    view_bool(&end, "negative", v->negative);
    view_end_end(v, &end);
    return BH_OK;
}
