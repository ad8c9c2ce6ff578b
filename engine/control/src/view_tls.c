/* What is remembered of partners' TLS: regressions for `status`, and the matrix of `connectors`. */
#include <stdio.h>

#include "bh/posture.h"
#include "view_private.h"

/* The next row of a kind behind the cursor, which moves. BH_ENOTFOUND: no more. */
static enum bh_status next_row(struct bh_view *v, struct bh_kv_txn *txn, const char *prefix,
                               struct bh_slice *name, struct bh_slice *value)
{
    const struct bh_slice kind = bh_slice_str(prefix);
    const struct bh_slice after =
        v->row_after_len > 0 ? bh_slice(v->row_after, v->row_after_len) : kind;
    bh_arena_reset(&v->scratch);
    const enum bh_status status = bh_queue_policy_next(txn, after, &v->scratch, name, value);
    if (status == BH_OK && !bh_slice_starts(*name, kind)) {
        return BH_ENOTFOUND;
    }
    if (status == BH_OK) {
        v->row_after_len = name->len;
        memcpy(v->row_after, name->ptr, name->len);
        *name = bh_slice_skip(*name, kind.len);
    }
    return status;
}

/* ---- status ---- */

static void put_worse(struct bh_view *v, struct bh_slice host, const struct bh_posture *p,
                      unsigned worse)
{
    char text[BH_POSTURE_WORDS];
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "posture");
    view_str(&j, "host", host);
    view_cstr(&j, "text", bh_posture_text(p, worse, v->now_unix_ms, text));
    view_time(&j, "last_unix_ms", p->last_unix_ms);
    view_time(&j, "not_after_unix_ms", p->not_after_unix_ms);
    view_row_end(v, &j);
}

enum bh_status view_postures_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    for (size_t i = 0; i < BH_VIEW_ROWS; i++) {
        struct bh_slice host;
        struct bh_slice value;
        struct bh_posture p;
        const enum bh_status status = next_row(v, txn, BH_POSTURE_PREFIX, &host, &value);
        if (status != BH_OK) {
            return status == BH_ENOTFOUND ? BH_OK : status;
        }
        if (bh_posture_read(value, &p) != BH_OK) {
            continue; /* a newer version's */
        }
        const unsigned worse = bh_posture_worse(&p, v->now_unix_ms);
        if (worse != 0 && v->worse++ < VIEW_WORSE_MAX) {
            put_worse(v, host, &p, worse);
        }
    }
    return BH_MORE;
}

/* ---- the matrix ---- */

/* Has the connector's address space this domain? */
static bool in_space(struct bh_slice space, struct bh_slice domain)
{
    if (bh_slice_eq(space, BH_LIT("*"))) {
        return true;
    }
    if (bh_slice_starts(space, BH_LIT("*."))) {
        const struct bh_slice suffix = bh_slice_skip(space, 1);
        return domain.len > suffix.len && bh_slice_ends_nocase(domain, suffix);
    }
    return bh_slice_eq_nocase(space, domain);
}

/* The latest of the rows of a space: when a session was ready, and when its peer was known. */
static enum bh_status find_reached(struct bh_view *v, struct bh_kv_txn *txn,
                                   const struct bh_connector *c, struct bh_slice space,
                                   struct bh_reached *latest)
{
    char prefix[BH_QUEUE_CONNECTOR_MAX + 16];
    const int len = snprintf(prefix, sizeof(prefix), BH_REACHED_PREFIX "%.*s/", BH_FMT(c->name));
    *latest = (struct bh_reached){.auth = BH_EMPTY, .tls = BH_EMPTY, .host = BH_EMPTY};
    v->row_after_len = 0;
    if (txn == NULL || len < 0 || (size_t)len >= sizeof(prefix)) {
        return BH_OK;
    }
    while (true) {
        struct bh_slice domain;
        struct bh_slice value;
        struct bh_reached r;
        const enum bh_status status = next_row(v, txn, prefix, &domain, &value);
        if (status != BH_OK) {
            return status == BH_ENOTFOUND ? BH_OK : status;
        }
        if (!in_space(space, domain) || bh_reached_read(value, &r) != BH_OK) {
            continue;
        }
        const int64_t verified = r.verified_unix_ms > latest->verified_unix_ms
                                     ? r.verified_unix_ms
                                     : latest->verified_unix_ms;
        if (r.last_unix_ms > latest->last_unix_ms) {
            struct bh_slice *const texts[] = {&r.auth, &r.tls, &r.host};
            struct bh_buf keep = bh_buf(v->reached_texts, sizeof(v->reached_texts));
            for (size_t i = 0; i < BH_COUNT(texts); i++) {
                const size_t at = keep.len;
                const size_t kept = bh_buf_add_cut(&keep, *texts[i]);
                *texts[i] = bh_slice(keep.ptr + at, kept);
            }
            *latest = r;
        }
        latest->verified_unix_ms = verified;
    }
}

static void put_demand(struct bh_json *j, const struct bh_tls_demand *d)
{
    char text[512];
    struct bh_buf out = bh_buf(text, sizeof(text));
    bh_buf_add_cut(&out, bh_slice_str(bh_tls_mode_name(d->mode)));
    if (d->mode == BH_TLS_DANE) {
        bh_buf_add_cut(&out, BH_LIT(" else "));
        bh_buf_add_cut(&out, bh_slice_str(bh_tls_mode_name(d->fallback)));
    }
    const bool names = d->mode == BH_TLS_VERIFY;
    bh_buf_add_cut(&out, names && d->match_domain ? BH_LIT(", domain") : BH_EMPTY);
    bh_buf_add_cut(&out, names && d->match_host ? BH_LIT(", host") : BH_EMPTY);
    for (size_t i = 0; names && i < d->names.count; i++) {
        bh_buf_add_cut(&out, BH_LIT(", "));
        bh_buf_add_cut(&out, d->names.at[i]);
    }
    if (d->mode == BH_TLS_PIN) {
        (void)!bh_buf_printf(&out, ", %zu pins", d->pins.count);
    }
    bh_buf_add_cut(&out, d->implicit ? BH_LIT(", implicit") : BH_EMPTY);
    view_str(j, "tls", bh_buf_slice(&out));
}

static void put_exception(struct bh_view *v, struct bh_json *j, const struct bh_connector *c)
{
    const struct bh_exception *const all[] = {&c->tls.exception, &c->auth.unauthenticated_peer};
    static const char *const what[] = {"tls", "auth"};
    bh_json_key(j, "exceptions");
    bh_json_begin_array(j);
    for (size_t i = 0; i < BH_COUNT(all); i++) {
        if (all[i]->until_unix_ms != 0) {
            bh_json_begin_object(j);
            view_cstr(j, "what", what[i]);
            view_time(j, "until_unix_ms", all[i]->until_unix_ms);
            view_bool(j, "ended", v->now_unix_ms >= all[i]->until_unix_ms);
            view_str(j, "reason", all[i]->reason);
            bh_json_end_object(j);
        }
    }
    bh_json_end_array(j);
}

static enum bh_status put_partner(struct bh_view *v, struct bh_kv_txn *txn,
                                  const struct bh_connector *c, struct bh_slice domain)
{
    struct bh_reached reached;
    const enum bh_status status = find_reached(v, txn, c, domain, &reached);
    if (status != BH_OK) {
        return status;
    }
    bool lapsed = false;
    const struct bh_tls_demand *demand = bh_connector_tls_demand(c, v->now_unix_ms, &lapsed);
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "partner");
    view_str(&j, "domain", domain);
    view_str(&j, "connector", c->name);
    view_cstr(&j, "state", view_connector_state(v, c));
    view_route(&j, c);
    put_demand(&j, demand);
    view_bool(&j, "tls_required", bh_tls_demand_requires_tls(demand));
    view_bool(&j, "auth", c->auth.mech != BH_AUTH_NONE);
    view_time(&j, "last_verified_unix_ms", reached.verified_unix_ms);
    view_time(&j, "last_reached_unix_ms", reached.last_unix_ms);
    if (reached.last_unix_ms != 0) {
        view_str(&j, "last_tls", reached.tls);
        view_str(&j, "last_host", reached.host);
    }
    put_exception(v, &j, c);
    view_row_end(v, &j);
    return BH_OK;
}

/* A row for each domain of each connector's address space. */
enum bh_status view_matrix_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    for (; v->connector_next < v->config->connectors_count; v->connector_next++) {
        const struct bh_connector *c = &v->config->connectors[v->connector_next];
        for (; v->domain_next < c->domains.count; v->domain_next++) {
            if (v->step_rows >= VIEW_MATRIX_STEP) {
                return BH_MORE; /* each row may look at many of the store's */
            }
            const enum bh_status status = put_partner(v, txn, c, c->domains.at[v->domain_next]);
            if (status != BH_OK) {
                return status;
            }
        }
        v->domain_next = 0;
    }
    struct bh_json j = view_end_begin(v);
    view_u64(&j, "connectors", v->config->connectors_count);
    view_u64(&j, "generation", v->config->generation);
    view_end_end(v, &j);
    return BH_OK;
}
