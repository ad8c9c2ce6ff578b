/* From a list of targets to each host's demand: what is published is looked up where the connector
 * wants it, and made into one plan of the destination (engine/policy). Destinations with the same
 * plan share a site.
 *
 *   1. etls_begin: the targets are known
 *   2. if the demand asks for DANE: the TLSA records of each host whose name and addresses are
 *      authenticated (RFC 7672 section 2.2); the end of its CNAME chain first, then its own name
 *      beside it, in mode auto, the domain's MTA-STS policy (RFC 8461)
 *   3. finish: a demand for each host, the site's key, the addresses that may be used */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"
#include "probe.h"

#define SITE_KEY_MAX ((size_t)16 * 1024)
#define ROUTE_ARENA ((size_t)1024 * 1024) /* the targets, and the TLSA records of their hosts */
#define ANSWER_RECORDS_MAX 256            /* as many as an answer keeps */

struct tls_job {
    struct engine *engine;
    uint32_t id; /* of the destination */
    const struct bh_config *config;
    struct resolver_slot *slot;
    struct route *route;
    struct host_job {
        struct tls_job *job;
        struct host_plan *plan;
        bool original; /* its own name is being asked for, after the end of its chain */
    } * asked;
    uint32_t open;    /* lookups, and 1 while they are being started */
    bool dane;        /* wanted */
    uint32_t changes; /* of the carrier, as it began */
    bool sts;         /* the domain's MTA-STS policy is wanted */
    bool sts_anew;    /* and was looked for past all caches */
    struct bh_sts_fact fact;
    struct tls_job *next;
};

void etls_free_route(struct route *route)
{
    if (route != NULL) {
        bh_arena_fini(&route->arena);
        free(route);
    }
}

/* By name, then port: the same in every destination whose site has the same key. */
static int host_cmp(const void *a, const void *b)
{
    const struct host_plan *x = a;
    const struct host_plan *y = b;
    const int names = bh_slice_cmp(x->host->name, y->host->name);
    return names != 0 ? names : (int)x->host->port - (int)y->host->port;
}

static struct route *make_route(const struct bh_target_list *list)
{
    struct route *route = calloc(1, sizeof(*route));
    if (route == NULL) {
        return NULL;
    }
    bh_arena_init(&route->arena, ROUTE_ARENA);
    const bool copied = bh_target_list_copy(list, &route->arena, &route->list) == BH_OK;
    const size_t size = (route->list.hosts_len + 1) * sizeof(*route->hosts);
    route->hosts = copied ? bh_arena_alloc(&route->arena, size) : NULL;
    if (route->hosts == NULL) {
        etls_free_route(route);
        return NULL;
    }
    route->ttl_s = route->list.ttl_s;
    for (size_t i = 0; i < route->list.hosts_len; i++) {
        if (route->list.hosts[i].state == BH_HOST_USABLE) {
            route->hosts[route->host_count++] = (struct host_plan){.host = &route->list.hosts[i]};
        }
    }
    qsort(route->hosts, route->host_count, sizeof(*route->hosts), host_cmp);
    return route;
}

/* ---- what each host must prove ---- */

static enum bh_status plan_hosts(struct engine *e, const struct dest_info *d,
                                 const struct bh_connector *c, const struct bh_sts_fact *fact,
                                 enum trust trust, struct route *route)
{
    bool lapsed = false;
    const struct bh_tls_demand *configured =
        bh_connector_tls_demand(c, engine_now(e).unix_ms, &lapsed);
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < route->host_count && status == BH_OK; i++) {
        struct host_plan *plan = &route->hosts[i];
        const struct bh_target_host *host = plan->host;
        struct bh_tls_plan_input input = {.configured = configured,
                                          .exception = configured == &c->tls.exception_demand,
                                          .domain = d->domain,
                                          .host = {.name = host->name,
                                                   .canonical = host->canonical,
                                                   .literal = host->literal,
                                                   .smarthost = c->route == BH_ROUTE_SMARTHOSTS,
                                                   .mx_secure = host->mx_secure,
                                                   .address_secure = host->address_secure,
                                                   .incomplete = host->incomplete},
                                          .dane = plan->dane,
                                          .sts = fact,
                                          .lifted = elift_is(d->id),
                                          .dnssec_unknown =
                                              trust != TRUST_NEVER && trust != TRUST_GOOD};
        status = bh_tls_plan_make(&input, &route->arena, &plan->tls);
        if (status == BH_OK && plan->tls.verdict == BH_PLAN_USE) {
            status = bh_tls_demand_digest(&plan->tls.demand, plan->digest);
        }
        plan->audited = c->tls.audit;
        if (status == BH_OK && plan->audited) {
            input.configured = &c->tls.audit_demand;
            input.exception = false;
            status = bh_tls_plan_make(&input, &route->arena, &plan->audit);
        }
    }
    return status;
}

const char *etls_weakened(const struct host_plan *plan)
{
    const bool used = plan->tls.verdict == BH_PLAN_USE;
    const bool dane = plan->dane.state == BH_DANE_USABLE || plan->dane.state == BH_DANE_UNUSABLE;
    if (!used || !dane || plan->tls.origin == BH_TLS_BY_DANE) {
        return "";
    }
    switch (plan->tls.demand.mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
        return "its TLSA records demand TLS";
    case BH_TLS_ENCRYPT:
        return plan->dane.state == BH_DANE_USABLE ? "its TLSA records say who it must be" : "";
    case BH_TLS_VERIFY:
    case BH_TLS_PIN:
    case BH_TLS_DANE:
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        break;
    }
    return "";
}

/* At most once an hour for a destination: an operator may mean it. */
static void tell_weakened(struct engine *e, struct dest_info *d)
{
    const uint64_t now_ms = uv_now(&e->loop);
    for (uint32_t i = 0; i < d->route->host_count; i++) {
        const char *what = etls_weakened(&d->route->hosts[i]);
        if (what[0] != '\0' &&
            (d->told_weaker_ms == 0 || now_ms - d->told_weaker_ms >= (uint64_t)BH_HOUR_MS)) {
            d->told_weaker_ms = now_ms > 0 ? now_ms : 1;
            bh_log(BH_LOG_WARN,
                   "evt=tls_weaker_than_published domain=%.*s connector=%.*s host=%.*s tls=%s "
                   "text=\"%s\"",
                   BH_FMT(d->domain), BH_FMT(efail_carrier(d)),
                   BH_FMT(d->route->hosts[i].host->name),
                   bh_tls_mode_name(d->route->hosts[i].tls.demand.mode), what);
        }
    }
}

static const struct host_plan *plan_of(const struct route *route, const struct bh_target_host *host,
                                       uint16_t *rank)
{
    for (uint32_t i = 0; i < route->host_count; i++) {
        if (route->hosts[i].host == host) {
            *rank = (uint16_t)i;
            return &route->hosts[i];
        }
    }
    return NULL;
}

/* It waits for what is not known yet, rather than being returned. */
static bool is_route_unknown(const struct bh_tls_plan *plan)
{
    return plan->route_unknown || plan->route_unasked;
}

/* Connector and generation stand for source and every other setting; with each host goes what it
 * must prove, and whether its name is proven, so that TLS policy is never shared where targets are.
 */
static bool write_site_key(const struct engine *e, const struct dest_info *d, struct bh_buf *key)
{
    struct bh_writer w = {.buf = *key};
    bh_write_slice(&w, efail_carrier(d));
    bh_write_u64(&w, e->config->generation);
    bh_write_u8(&w, elift_is(d->id) ? 1 : 0); /* it carries TLS-Required: No alone */
    for (uint32_t i = 0; i < d->route->host_count; i++) {
        const struct host_plan *plan = &d->route->hosts[i];
        bh_write_slice(&w, plan->host->name);
        bh_write_u16(&w, plan->host->port);
        bh_write_u8(&w, (uint8_t)plan->tls.verdict);
        bh_write_u8(&w, (uint8_t)(plan->tls.route_proven         ? 1
                                  : is_route_unknown(&plan->tls) ? 2
                                                                 : 0));
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
        for (uint32_t i = 0; i < d->route->host_count; i++) {
            if (d->route->hosts[i].tls.verdict == order[v]) {
                edest_refused(e, d, &d->route->hosts[i]);
                return;
            }
        }
    }
    BH_ASSERT(false);
}

static void log_left_out(const struct dest_info *d)
{
    for (uint32_t i = 0; i < d->route->host_count; i++) {
        const struct host_plan *plan = &d->route->hosts[i];
        if (plan->tls.verdict != BH_PLAN_USE) {
            bh_log(BH_LOG_INFO, "evt=tls_host_left_out domain=%.*s host=%.*s dane=%s text=\"%s\"",
                   BH_FMT(d->domain), BH_FMT(plan->host->name),
                   bh_dane_state_name(plan->dane.state), plan->tls.reason);
        }
    }
}

/* REQUIRETLS mail then waits for the resolver's self-test, and is tried again when it passes. */
static bool any_route_unknown(const struct route *route)
{
    bool unknown = false;
    for (uint32_t i = 0; i < route->host_count; i++) {
        unknown = unknown || route->hosts[i].tls.route_unknown;
    }
    return unknown;
}

/* The route is complete: the destination's from now on. */
static void keep_route(struct engine *e, struct dest_info *d)
{
    struct bh_sched_address addresses[BH_SITE_HOSTS_MAX];
    uint32_t count = 0;
    char key_text[SITE_KEY_MAX];
    struct bh_buf key = bh_buf(key_text, sizeof(key_text));
    const struct bh_target_list *list = &d->route->list;
    if (d->probe != NULL) {
        eprobe_on_route(e, d);
        return;
    }
    for (size_t i = 0; i < list->targets_len && count < BH_SITE_HOSTS_MAX; i++) {
        const struct bh_target *t = &list->targets[i];
        uint16_t rank = 0;
        const struct host_plan *plan = plan_of(d->route, t->host, &rank);
        if (plan != NULL && plan->tls.verdict == BH_PLAN_USE) {
            addresses[count++] =
                (struct bh_sched_address){.ip = t->ip,
                                          .port = t->port,
                                          .host = rank,
                                          .name = bh_hash(plan->host->name, plan->host->port)};
        }
    }
    if (count == 0) {
        all_refused(e, d);
        return;
    }
    d->untrusted = any_route_unknown(d->route);
    log_left_out(d);
    tell_weakened(e, d);
    if (!write_site_key(e, d, &key)) {
        /* Too many names: a site of its own. */
        key = bh_buf(key_text, sizeof(key_text));
        bh_buf_put(&key, bh_slice(d->key, sizeof(d->key)));
    }
    d->dns_ms = d->asked_ms > 0 ? engine_now(e).mono_ms - d->asked_ms : 0;
    d->asked_ms = 0;
    bh_sched_resolved(e->sched, d->id, bh_buf_slice(&key), addresses, count,
                      (uint64_t)d->route->ttl_s * 1000, engine_now(e));
}

/* ---- TLSA records ---- */

void etls_drop(struct tls_job *job)
{
    etls_free_route(job->route);
    bh_config_unref(job->config);
    free(job->asked);
    free(job);
}

static bool ask_sts(struct tls_job *job, bool anew);

/* Mail is not kept, and in the end returned, for a policy that may have been replaced: first a
 * newer one is looked for (RFC 8461 section 5.1). @return true: it is being looked for */
static bool look_anew(struct tls_job *job)
{
    bool unmet = false;
    for (uint32_t i = 0; i < job->route->host_count; i++) {
        const struct bh_tls_plan *plan = &job->route->hosts[i].tls;
        unmet |= plan->verdict == BH_PLAN_UNMET && plan->origin == BH_TLS_BY_STS;
    }
    if (!unmet || job->sts_anew) {
        return false;
    }
    job->open = 1;
    if (ask_sts(job, true)) {
        job->open--;
        return true;
    }
    job->open = 0;
    return false;
}

static void finish(struct tls_job *job)
{
    struct engine *e = job->engine;
    struct dest_info *d = edest_get(e, job->id);
    BH_ASSERT(d != NULL && d->resolving > 0 && job->open == 0);
    const struct bh_sts_fact *fact = job->sts ? &job->fact : NULL;
    enum bh_status planned = BH_OK;
    if (!e->draining && !d->forget && job->config == e->config &&
        job->changes == d->failover.changes) {
        planned = plan_hosts(e, d, edest_connector(e, d), fact, job->slot->trust, job->route);
        if (planned == BH_OK && look_anew(job)) {
            return;
        }
    }
    d->resolving--;
    if (e->draining) {
        etls_drop(job); /* the next process asks anew */
        return;
    }
    if (d->forget) {
        edest_drop(e, d);
    } else if (job->config != e->config || job->changes != d->failover.changes) {
        edest_resolve(e, job->id); /* a reload, or another carrier, came in between */
    } else if (planned != BH_OK) {
        edest_route_failed(e, d, BH_HAPPENED_OUR_RESOURCE);
    } else {
        etls_free_route(d->route);
        d->route = job->route;
        d->route->made_unix_ms = engine_now(e).unix_ms;
        d->route->sts_anew = job->sts_anew;
        job->route = NULL;
        d->sts_unmet = false;
        keep_route(e, d);
    }
    etls_drop(job);
}

static void one_less(struct tls_job *job)
{
    job->open--;
    if (job->open == 0) {
        struct engine *e = job->engine;
        finish(job);
        engine_pump(e);
    }
}

static enum bh_happened failure_of(enum bh_dns_status status)
{
    switch (status) {
    case BH_DNS_BOGUS:
        return BH_HAPPENED_DNS_BOGUS;
    case BH_DNS_TIMEOUT:
        return BH_HAPPENED_DNS_TIMEOUT;
    case BH_DNS_OVERLOAD:
    case BH_DNS_CANCELLED:
        return BH_HAPPENED_OUR_RESOURCE;
    case BH_DNS_FOUND:
    case BH_DNS_NODATA:
    case BH_DNS_NXDOMAIN:
    case BH_DNS_SERVFAIL:
    case BH_DNS_GARBLED:
        break;
    }
    return BH_HAPPENED_DNS_FAILED;
}

static void fail_dane(struct host_job *h, enum bh_happened happened)
{
    h->plan->dane = (struct bh_dane){.state = BH_DANE_FAILED, .happened = happened};
}

static struct bh_slice base_of(const struct host_job *h)
{
    return h->original ? h->plan->host->name : h->plan->host->canonical;
}

static void read_records(struct host_job *h, const struct bh_dns_answer *answer)
{
    struct bh_tlsa records[ANSWER_RECORDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < answer->records_len && count < ANSWER_RECORDS_MAX; i++) {
        const struct bh_dns_record *r = &answer->records[i];
        records[count++] = (struct bh_tlsa){
            .usage = r->usage, .selector = r->selector, .matching = r->matching, .data = r->data};
    }
    if (bh_dane_read(records, count, base_of(h), &h->job->route->arena, &h->plan->dane) != BH_OK) {
        fail_dane(h, BH_HAPPENED_OUR_RESOURCE);
    }
}

static void on_tlsa(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer);

static void ask_tlsa(struct host_job *h)
{
    char text[NAME_MAX_OCTETS + 16];
    struct bh_buf name = bh_buf(text, sizeof(text));
    enum bh_status status =
        bh_buf_printf(&name, "_%u._tcp.%.*s", (unsigned)h->plan->host->port, BH_FMT(base_of(h)));
    if (status == BH_OK) {
        status =
            bh_resolver_query(h->job->slot->resolver, bh_buf_slice(&name), BH_DNS_TLSA, on_tlsa, h);
    }
    if (status == BH_OK) {
        h->job->open++;
    } else if (status == BH_EINVAL || status == BH_ELIMIT) {
        h->plan->dane.state = BH_DANE_NONE; /* too long a name to have any */
    } else {
        fail_dane(h, BH_HAPPENED_OUR_RESOURCE);
    }
}

static void on_tlsa(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    struct host_job *h = ctx;
    struct tls_job *job = h->job;
    (void)name;
    if (!bh_dns_is_answer(answer->status)) {
        fail_dane(h, failure_of(answer->status));
        one_less(job);
        return;
    }
    job->route->ttl_s = answer->ttl_s < job->route->ttl_s ? answer->ttl_s : job->route->ttl_s;
    if (answer->status == BH_DNS_FOUND && answer->secure) {
        read_records(h, answer);
    } else if (!h->original && !bh_slice_eq(h->plan->host->canonical, h->plan->host->name)) {
        h->original = true; /* RFC 7672 section 2.2.2: then the name before its alias */
        ask_tlsa(h);
    } else {
        h->plan->dane.state = BH_DANE_NONE;
    }
    one_less(job);
}

/* ---- the domain's MTA-STS policy ---- */

/* Under an enforced policy each retry is to see a newer one, and the intervals begin at minutes. */
#define STS_ROUTE_TTL_S 240

static void on_sts(void *ctx, const struct bh_sts_fact *fact)
{
    struct tls_job *job = ctx;
    struct route *route = job->route;
    uint32_t ttl_s = fact->ttl_s;
    if (bh_sts_fact_copy(fact, &route->arena, &job->fact) != BH_OK) {
        job->fact = (struct bh_sts_fact){.origin = BH_STS_UNKNOWN};
    }
    if (fact->policy.mode == BH_STS_MODE_ENFORCE && ttl_s > STS_ROUTE_TTL_S) {
        ttl_s = STS_ROUTE_TTL_S;
    }
    route->ttl_s = ttl_s < route->ttl_s ? ttl_s : route->ttl_s;
    one_less(job);
}

/* @return true: on_sts will come */
static bool ask_sts(struct tls_job *job, bool anew)
{
    struct engine *e = job->engine;
    const struct dest_info *d = edest_get(e, job->id);
    const enum bh_status status = anew ? sts_refresh_before_bounce(e->sts, d->domain, on_sts, job)
                                       : sts_lookup(e->sts, d->domain, on_sts, job);
    job->sts_anew = anew;
    if (status == BH_OK) {
        job->open++;
        return true;
    }
    if (status == BH_EINVAL) {
        job->fact = (struct bh_sts_fact){.origin = BH_STS_NOT_PUBLISHED};
    }
    return false; /* otherwise what was known stands */
}

void etls_note_failure(struct dest_info *d)
{
    for (uint32_t i = 0; d->route != NULL && i < d->route->host_count; i++) {
        d->sts_unmet |= d->route->hosts[i].tls.origin == BH_TLS_BY_STS;
    }
}

/* TLSA is asked for only where the way to the host is authenticated. */
static void look_at_host(struct host_job *h)
{
    const struct bh_target_host *host = h->plan->host;
    if (host->literal || !host->mx_secure || !host->address_secure) {
        h->plan->dane.state = BH_DANE_INSECURE;
    } else if (host->incomplete) {
        fail_dane(h, BH_HAPPENED_DNS_FAILED);
    } else {
        ask_tlsa(h);
    }
}

void etls_resume(struct tls_job *job)
{
    job->open = 1;
    job->fact = (struct bh_sts_fact){.origin = BH_STS_UNKNOWN};
    if (job->sts) {
        (void)ask_sts(job, edest_get(job->engine, job->id)->sts_unmet);
    }
    for (uint32_t i = 0; i < job->route->host_count; i++) {
        struct host_plan *plan = &job->route->hosts[i];
        job->asked[i] = (struct host_job){.job = job, .plan = plan};
        switch (job->dane ? job->slot->trust : TRUST_NEVER) {
        case TRUST_NEVER:
            plan->dane.state = BH_DANE_NOT_ASKED;
            break;
        case TRUST_UNTESTED:
        case TRUST_TESTING:
        case TRUST_BAD:
            /* An address has no name that records could stand under. */
            plan->dane.state = plan->host->literal ? BH_DANE_INSECURE : BH_DANE_UNTRUSTED;
            break;
        case TRUST_GOOD:
            look_at_host(&job->asked[i]);
            break;
        }
    }
    one_less(job);
}

struct tls_job *etls_next(const struct tls_job *job)
{
    return job->next;
}

static bool wants_dane(const struct bh_tls_demand *demand)
{
    return demand->mode == BH_TLS_DANE || demand->mode == BH_TLS_DANE_ONLY ||
           demand->mode == BH_TLS_AUTO;
}

static struct tls_job *make_job(struct engine *e, const struct dest_info *d,
                                const struct bh_connector *c, const struct bh_target_list *list)
{
    struct tls_job *job = calloc(1, sizeof(*job));
    struct route *route = make_route(list);
    struct host_job *asked = route != NULL ? calloc(route->host_count + 1, sizeof(*asked)) : NULL;
    if (job == NULL || asked == NULL) {
        etls_free_route(route);
        free(asked);
        free(job);
        return NULL;
    }
    bool lapsed = false;
    const struct bh_tls_demand *demand = bh_connector_tls_demand(c, engine_now(e).unix_ms, &lapsed);
    *job = (struct tls_job){.engine = e,
                            .id = d->id,
                            .config = bh_config_ref(e->config),
                            .slot = engine_resolver(e, c),
                            .changes = d->failover.changes,
                            .route = route,
                            .asked = asked,
                            .dane = wants_dane(demand) ||
                                    (c->tls.audit && wants_dane(&c->tls.audit_demand)),
                            .sts = c->route == BH_ROUTE_MX &&
                                   (d->route_wanted || demand->mode == BH_TLS_AUTO ||
                                    (c->tls.audit && c->tls.audit_demand.mode == BH_TLS_AUTO))};
    /* A weaker explicit mode is told of what is published, where that costs no wait. */
    job->dane = job->dane || (demand->mode <= BH_TLS_ENCRYPT && job->slot->trust == TRUST_GOOD);
    return job;
}

void etls_begin(struct engine *e, struct dest_info *d, const struct bh_connector *c,
                const struct bh_target_list *list)
{
    struct tls_job *job = make_job(e, d, c, list);
    if (job == NULL) {
        edest_route_failed(e, d, BH_HAPPENED_OUR_RESOURCE);
        return;
    }
    d->resolving++;
    if (job->dane && job->slot->trust == TRUST_UNTESTED) {
        etrust_test(job->slot);
    }
    if (job->dane && job->slot->trust == TRUST_TESTING) {
        job->next = job->slot->waiting;
        job->slot->waiting = job;
    } else {
        etls_resume(job);
    }
}

/* ---- sessions ---- */

const struct host_plan *etls_host(const struct dest_info *d, const struct bh_sched_address *address)
{
    const struct host_plan *plan = d->route != NULL && address->host < d->route->host_count
                                       ? &d->route->hosts[address->host]
                                       : NULL;
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
        host->route_unknown = is_route_unknown(&plan->tls);
        memcpy(host->digest, plan->digest, sizeof(host->digest));
        if (bh_tls_demand_copy(&plan->tls.demand, &s->demands, &host->demand) != BH_OK) {
            return BH_ENOMEM;
        }
        host->audited = plan->audited;
        host->audit_refusal = plan->audit.verdict != BH_PLAN_USE ? plan->audit.reason : NULL;
        if (host->audited && host->audit_refusal == NULL &&
            bh_tls_demand_copy(&plan->audit.demand, &s->demands, &host->audit) != BH_OK) {
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

bool etls_wants_route(struct dest_info *d)
{
    bool unasked = false;
    for (uint32_t i = 0; d->route != NULL && i < d->route->host_count; i++) {
        unasked = unasked || d->route->hosts[i].tls.route_unasked;
    }
    d->route_wanted = d->route_wanted || unasked;
    return unasked;
}

bool etls_has_later_host(const struct dest_info *d)
{
    bool later = d->route == NULL;
    for (size_t i = 0; !later && i < d->route->list.hosts_len; i++) {
        later = d->route->list.hosts[i].state == BH_HOST_FAILED;
    }
    for (uint32_t i = 0; !later && i < d->route->host_count; i++) {
        const enum bh_plan_verdict verdict = d->route->hosts[i].tls.verdict;
        later = verdict == BH_PLAN_LATER || verdict == BH_PLAN_OURS;
    }
    return later;
}

bool etls_session_serves(const struct worker_session *s, const struct dest_info *d)
{
    const struct session_host *host = &s->hosts[s->target];
    for (uint32_t i = 0; d->route != NULL && i < d->route->host_count; i++) {
        const struct host_plan *plan = &d->route->hosts[i];
        if (plan->tls.verdict == BH_PLAN_USE && plan->host->port == s->addresses[s->target].port &&
            bh_slice_eq(plan->host->name, bh_slice_str(host->name))) {
            /* The same host by a signed MX and by one that is not: proven for the first only. */
            return plan->tls.route_proven == host->route_proven &&
                   is_route_unknown(&plan->tls) == host->route_unknown &&
                   memcmp(plan->digest, host->digest, sizeof(host->digest)) == 0;
        }
    }
    return false;
}
