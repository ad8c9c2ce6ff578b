/* From a list of targets to each host's demand: what the connector says and what is published are
 * made into one plan of a destination (engine/policy), and destinations with the same plan share a
 * site. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

#define SITE_KEY_MAX ((size_t)16 * 1024)

/* By name, then port: the same in every destination whose site has the same key. */
static int host_cmp(const void *a, const void *b)
{
    const struct host_plan *x = a;
    const struct host_plan *y = b;
    const int names = bh_slice_cmp(x->host->name, y->host->name);
    return names != 0 ? names : (int)x->host->port - (int)y->host->port;
}

static enum bh_status plan_host(const struct dest_info *d, const struct bh_connector *c,
                                const struct bh_tls_demand *configured, struct bh_arena *arena,
                                struct host_plan *plan)
{
    const struct bh_target_host *host = plan->host;
    const struct bh_tls_plan_input input = {.configured = configured,
                                            .exception = configured == &c->tls.exception_demand,
                                            .domain = d->domain,
                                            .host = {.name = host->name,
                                                     .canonical = host->canonical,
                                                     .literal = host->literal,
                                                     .smarthost = c->route == BH_ROUTE_SMARTHOSTS,
                                                     .mx_secure = host->mx_secure,
                                                     .address_secure = host->address_secure,
                                                     .incomplete = host->incomplete},
                                            .dane = plan->dane};
    enum bh_status status = bh_tls_plan_make(&input, arena, &plan->tls);
    if (status == BH_OK && plan->tls.verdict == BH_PLAN_USE) {
        status = bh_tls_demand_digest(&plan->tls.demand, plan->digest);
    }
    return status;
}

/* A plan for each host that can be reached, in order of name. */
static enum bh_status plan_hosts(struct engine *e, struct dest_info *d,
                                 const struct bh_connector *c)
{
    bool lapsed = false;
    const struct bh_tls_demand *configured =
        bh_connector_tls_demand(c, engine_now(e).unix_ms, &lapsed);
    d->hosts = bh_arena_alloc(&d->plan_arena, (d->plan.hosts_len + 1) * sizeof(*d->hosts));
    d->host_count = 0;
    if (d->hosts == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < d->plan.hosts_len; i++) {
        if (d->plan.hosts[i].state == BH_HOST_USABLE) {
            d->hosts[d->host_count++] = (struct host_plan){.host = &d->plan.hosts[i]};
        }
    }
    qsort(d->hosts, d->host_count, sizeof(*d->hosts), host_cmp);
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < d->host_count && status == BH_OK; i++) {
        status = plan_host(d, c, configured, &d->plan_arena, &d->hosts[i]);
    }
    return status;
}

static const struct host_plan *plan_of(const struct dest_info *d, const struct bh_target_host *host,
                                       uint16_t *rank)
{
    for (uint32_t i = 0; i < d->host_count; i++) {
        if (d->hosts[i].host == host) {
            *rank = (uint16_t)i;
            return &d->hosts[i];
        }
    }
    return NULL;
}

/* Connector and generation stand for source and every other setting; with each host goes what it
 * must prove, so that TLS policy is never shared where targets are. */
static bool write_site_key(const struct engine *e, const struct dest_info *d, struct bh_buf *key)
{
    struct bh_writer w = {.buf = *key};
    bh_write_slice(&w, d->connector);
    bh_write_u64(&w, e->config->generation);
    for (uint32_t i = 0; i < d->host_count; i++) {
        const struct host_plan *plan = &d->hosts[i];
        bh_write_slice(&w, plan->host->name);
        bh_write_u16(&w, plan->host->port);
        bh_write_u8(&w, (uint8_t)plan->tls.verdict);
        bh_write_slice(&w, bh_slice(plan->digest, sizeof(plan->digest)));
    }
    *key = w.buf;
    return !w.overflow;
}

/* Whatever keeps all hosts from being used: a failed lookup may pass, so it is told first; then
 * what is ours to put right. */
static void all_refused(struct engine *e, struct dest_info *d)
{
    static const enum bh_plan_verdict order[] = {BH_PLAN_LATER, BH_PLAN_OURS, BH_PLAN_UNMET};
    for (size_t v = 0; v < sizeof(order) / sizeof(order[0]); v++) {
        for (uint32_t i = 0; i < d->host_count; i++) {
            if (d->hosts[i].tls.verdict == order[v]) {
                edest_refused(e, d, &d->hosts[i]);
                return;
            }
        }
    }
    BH_ASSERT(false);
}

void etls_keep_plan(struct engine *e, struct dest_info *d, const struct bh_connector *c,
                    const struct bh_target_list *list)
{
    struct bh_sched_address addresses[BH_SITE_HOSTS_MAX];
    uint32_t count = 0;
    char key_text[SITE_KEY_MAX];
    struct bh_buf key = bh_buf(key_text, sizeof(key_text));
    d->has_plan = false;
    bh_arena_reset(&d->plan_arena);
    if (bh_target_list_copy(list, &d->plan_arena, &d->plan) != BH_OK ||
        plan_hosts(e, d, c) != BH_OK) {
        edest_route_failed(e, d, BH_HAPPENED_OUR_RESOURCE);
        return;
    }
    d->has_plan = true;
    for (size_t i = 0; i < d->plan.targets_len && count < BH_SITE_HOSTS_MAX; i++) {
        const struct bh_target *t = &d->plan.targets[i];
        uint16_t rank = 0;
        const struct host_plan *plan = plan_of(d, t->host, &rank);
        if (plan != NULL && plan->tls.verdict == BH_PLAN_USE) {
            addresses[count++] =
                (struct bh_sched_address){.ip = t->ip, .port = t->port, .host = rank};
        }
    }
    if (count == 0) {
        all_refused(e, d);
        return;
    }
    if (!write_site_key(e, d, &key)) {
        /* Too many names: a site of its own. */
        key = bh_buf(key_text, sizeof(key_text));
        bh_buf_put(&key, bh_slice(d->key, sizeof(d->key)));
    }
    bh_sched_resolved(e->sched, d->id, bh_buf_slice(&key), addresses, count,
                      (uint64_t)d->plan.ttl_s * 1000, engine_now(e));
}

const struct host_plan *etls_host(const struct dest_info *d, const struct bh_sched_address *address)
{
    const struct host_plan *plan =
        d->has_plan && address->host < d->host_count ? &d->hosts[address->host] : NULL;
    return plan != NULL && plan->tls.verdict == BH_PLAN_USE ? plan : NULL;
}

static void write_origin(struct session_host *host, const struct host_plan *plan)
{
    const enum bh_tls_origin origin = plan->tls.origin;
    const bool plain = origin == BH_TLS_BY_CONNECTOR || origin == BH_TLS_BY_EXCEPTION;
    snprintf(host->origin, sizeof(host->origin), "%s%s%s", bh_tls_origin_name(origin),
             plain ? "" : ": ", plain ? "" : plan->tls.reason);
}

enum bh_status etls_fill_session(struct worker_session *s, const struct dest_info *d,
                                 const struct bh_sched_action *action)
{
    bh_arena_init(&s->demands, SESSION_DEMANDS_MAX);
    for (uint32_t i = 0; i < action->count; i++) {
        const struct host_plan *plan = etls_host(d, &action->addresses[i]);
        if (plan == NULL) {
            continue; /* refused since: the next look at the plan brings the others */
        }
        struct session_host *host = &s->hosts[s->address_count];
        struct bh_buf name = bh_buf(host->name, sizeof(host->name) - 1);
        bh_buf_add_cut(&name, plan->host->name);
        host->name[name.len] = '\0';
        write_origin(host, plan);
        host->route_proven = plan->tls.route_proven;
        memcpy(host->digest, plan->digest, sizeof(host->digest));
        if (bh_tls_demand_copy(&plan->tls.demand, &s->demands, &host->demand) != BH_OK) {
            return BH_ENOMEM;
        }
        s->addresses[s->address_count++] = action->addresses[i];
    }
    if (s->address_count == 0) {
        return BH_ENOTFOUND;
    }
    tls_seen_want(&s->seen, &s->hosts[0].demand, bh_slice_str(s->hosts[0].origin));
    return BH_OK;
}

bool etls_session_serves(const struct worker_session *s, const struct dest_info *d)
{
    const struct session_host *host = &s->hosts[s->target];
    for (uint32_t i = 0; d->has_plan && i < d->host_count; i++) {
        const struct host_plan *plan = &d->hosts[i];
        if (plan->tls.verdict == BH_PLAN_USE && plan->host->port == s->addresses[s->target].port &&
            bh_slice_eq(plan->host->name, bh_slice_str(host->name))) {
            return memcmp(plan->digest, host->digest, sizeof(host->digest)) == 0;
        }
    }
    return false;
}
