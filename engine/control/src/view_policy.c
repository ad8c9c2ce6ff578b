/* `policy show`: what is remembered of what a domain publishes about its TLS, where that is from,
 * and how old it is. MTA-STS policies are in the store; TLSA records live as long as the engine
 * needs the way to the domain. */
#include "bh/sts_cache.h"
#include "view_private.h"

static void put_patterns(struct bh_json *j, const struct bh_sts_policy *policy)
{
    bh_json_key(j, "mx");
    bh_json_begin_array(j);
    for (size_t i = 0; i < policy->mx_count; i++) {
        bh_json_str(j, policy->mx[i]);
    }
    bh_json_end_array(j);
}

static void put_stored(const struct bh_view *v, struct bh_json *j, const struct bh_sts_row *row)
{
    const int64_t expires = bh_sts_row_expires(row);
    view_cstr(j, "mode", bh_sts_mode_name(row->policy.mode));
    view_bool(j, "in_force", expires > v->now_unix_ms);
    view_str(j, "policy_id", row->id);
    put_patterns(j, &row->policy);
    view_u64(j, "max_age_s", row->policy.max_age_s);
    view_time(j, "fetched_unix_ms", row->fetched_unix_ms);
    view_time(j, "checked_unix_ms", row->checked_unix_ms);
    view_time(j, "expires_unix_ms", expires);
    view_time(j, "used_unix_ms", row->used_unix_ms);
    view_time(j, "failed_unix_ms", row->failed_unix_ms);
}

/* The stored policy, and beside it what the engine has seen since. */
static enum bh_status put_sts(struct bh_view *v, struct bh_kv_txn *txn, struct bh_slice domain)
{
    char name[BH_DOMAIN_MAX + 8];
    struct bh_buf key = bh_buf(name, sizeof(name));
    struct bh_slice value = BH_EMPTY;
    struct bh_sts_row stored = {0};
    struct bh_live_sts live = {.origin = BH_EMPTY};
    bh_buf_put(&key, BH_STS_KEY_PREFIX);
    bh_buf_put(&key, domain);
    enum bh_status status = txn != NULL
                                ? bh_queue_policy_get(txn, bh_buf_slice(&key), &v->scratch, &value)
                                : BH_ENOTFOUND;
    if (status != BH_OK && status != BH_ENOTFOUND) {
        return status;
    }
    const bool has_row = status == BH_OK;
    const bool readable = has_row && bh_sts_row_read(value, &v->scratch, &stored) == BH_OK;
    const bool known = v->live.sts != NULL && v->live.sts(v->live.ctx, &live);
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "sts");
    view_str(&j, "domain", domain);
    view_cstr(&j, "stored", readable ? "yes" : has_row ? "unreadable" : "no");
    view_str(&j, "origin", known ? live.origin : readable ? BH_LIT("store") : BH_LIT("unknown"));
    if (readable) {
        put_stored(v, &j, &stored);
    }
    if (known && live.announced.len > 0) {
        view_str(&j, "announced_id", live.announced);
    }
    const struct bh_slice trouble = known ? live.trouble : stored.trouble;
    if (trouble.len > 0) {
        view_str(&j, "trouble", trouble);
    }
    view_row_end(v, &j);
    return BH_OK;
}

static void put_dane(struct bh_view *v, const struct bh_live_host *host)
{
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "dane");
    view_str(&j, "host", host->name);
    view_u64(&j, "port", host->port);
    view_str(&j, "connector", host->connector);
    view_str(&j, "dane", host->dane);
    if (host->base.len > 0) {
        view_str(&j, "base", host->base);
        bh_json_key(&j, "records");
        bh_json_begin_array(&j);
        for (size_t i = 0; i < host->records_count; i++) {
            bh_json_str(&j, host->records[i]);
        }
        bh_json_end_array(&j);
        view_u64(&j, "records_count", host->records_all);
    }
    view_cstr(&j, "origin", "dns");
    view_time(&j, "looked_unix_ms", host->looked_unix_ms);
    view_time(&j, "until_unix_ms", host->until_unix_ms);
    view_row_end(v, &j);
}

enum bh_status view_policy_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    char storage[BH_DOMAIN_MAX];
    struct bh_slice domain = bh_address_domain(v->request.address);
    domain = view_key_domain(domain.len > 0 ? domain : v->request.address, storage);
    const enum bh_status status = put_sts(v, txn, domain);
    if (status != BH_OK) {
        return status;
    }
    struct bh_live_host host;
    size_t hosts = 0;
    while (v->live.host != NULL && v->live.host(v->live.ctx, hosts, &host)) {
        put_dane(v, &host);
        hosts++;
    }
    struct bh_json j = view_end_begin(v);
    view_str(&j, "domain", domain);
    view_u64(&j, "hosts", hosts);
    view_bool(&j, "live", v->live.host != NULL);
    view_end_end(v, &j);
    return BH_OK;
}
