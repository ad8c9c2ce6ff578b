#include "mx_plan.h"

#include <stdlib.h>

/* A tag is an index and what was asked there. */
enum { ASK_MX, ASK_A, ASK_AAAA, ASK_KINDS };

enum bh_happened plan_failure(enum bh_dns_status status)
{
    switch (status) {
    case BH_DNS_TIMEOUT:
        return BH_HAPPENED_DNS_TIMEOUT;
    case BH_DNS_BOGUS:
        return BH_HAPPENED_DNS_BOGUS;
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

int plan_failure_weight(enum bh_happened happened)
{
    if (happened == BH_HAPPENED_OUR_RESOURCE) {
        return 4;
    }
    if (happened == BH_HAPPENED_DNS_BOGUS) {
        return 3;
    }
    if (happened == BH_HAPPENED_DNS_FAILED) {
        return 2;
    }
    return happened == BH_HAPPENED_DNS_TIMEOUT ? 1 : 0;
}

static bool is_self_name(const struct bh_target_filter *filter, struct bh_slice name)
{
    for (size_t i = 0; i < filter->own_names_len; i++) {
        struct bh_slice own = filter->own_names[i];
        if (own.len > 0 && own.ptr[own.len - 1] == '.') {
            own = bh_slice_take(own, own.len - 1);
        }
        if (bh_slice_eq_nocase(own, name)) {
            return true;
        }
    }
    return false;
}

static bool is_self_address(const struct bh_target_filter *filter, const struct bh_ip *ip,
                            uint16_t port)
{
    for (size_t i = 0; i < filter->own_addresses_len; i++) {
        const struct bh_own_address *own = &filter->own_addresses[i];
        const struct bh_ip own_ip = bh_ip_unmap(&own->ip);
        if (bh_ip_eq(&own_ip, ip) && (own->port == 0 || own->port == port)) {
            return true;
        }
    }
    return false;
}

static bool is_forbidden(const struct bh_target_filter *filter, const struct bh_ip *ip)
{
    if (bh_ip_is_loopback(ip) && !filter->allow_loopback) {
        return true;
    }
    for (size_t i = 0; i < filter->forbidden_len; i++) {
        if (bh_net_contains(&filter->forbidden[i], ip)) {
            return true;
        }
    }
    return false;
}

/* Take an address into its host, unless it is ourselves or filtered out. What the operator wrote as
 * an address is meant; what DNS says may be anything. */
static void add_address(struct bh_target_plan *plan, struct plan_host *host,
                        const struct bh_ip *given, bool configured)
{
    const struct bh_target_filter *filter = &plan->request.filter;
    const struct bh_ip ip = bh_ip_unmap(given);
    if (is_self_address(filter, &ip, host->host.port)) {
        host->is_self = true;
        return;
    }
    if (bh_ip_is_unusable(&ip) || (!configured && is_forbidden(filter, &ip))) {
        host->is_filtered = true;
        return;
    }
    const size_t family = ip.family == 4 ? PLAN_V4 : PLAN_V6;
    for (size_t i = 0; i < host->ips_len[family]; i++) {
        if (bh_ip_eq(&host->ips[family][i], &ip)) {
            return;
        }
    }
    if (host->ips_len[family] < PLAN_FAMILY_MAX) {
        host->ips[family][host->ips_len[family]++] = ip;
    }
}

/* A new host without lookups. NULL for want of memory, or of room: the plan keeps the best. */
static struct plan_host *add_host(struct bh_target_plan *plan, size_t source, struct bh_slice name,
                                  uint16_t preference)
{
    if (plan->hosts_len >= plan->hosts_max) {
        return NULL;
    }
    struct plan_host *host = &plan->hosts[plan->hosts_len];
    *host = (struct plan_host){.source = source, .all_secure = true};
    for (size_t family = 0; family < PLAN_FAMILIES; family++) {
        host->ips[family] =
            bh_arena_alloc(plan->arena, PLAN_FAMILY_MAX * sizeof(*host->ips[family]));
        if (host->ips[family] == NULL) {
            plan->out_of_memory = true;
            return NULL;
        }
    }
    host->host.name = name;
    host->host.canonical = name;
    host->host.preference = preference;
    host->host.port = plan->sources[source].port;
    plan->hosts_len++;
    return host;
}

static void add_named_host(struct bh_target_plan *plan, size_t source, struct bh_slice name,
                           uint16_t preference, bool mx_secure, bool implicit)
{
    struct plan_host *host = add_host(plan, source, name, preference);
    if (host == NULL) {
        return;
    }
    host->host.mx_secure = mx_secure;
    host->host.implicit = implicit;
    host->is_self = is_self_name(&plan->request.filter, name);
    if (!bh_dns_name_is_host(name)) {
        return; /* no lookups: it ends as a host without an address */
    }
    const enum bh_family_preference family = plan->request.family;
    host->step[PLAN_V4] = family == BH_FAMILY_ONLY_6 ? PLAN_UNWANTED : PLAN_WANTED;
    host->step[PLAN_V6] = family == BH_FAMILY_ONLY_4 ? PLAN_UNWANTED : PLAN_WANTED;
}

static void add_literal_host(struct bh_target_plan *plan, size_t source, const struct bh_ip *ip,
                             uint16_t preference)
{
    char text[BH_IP_TEXT_MAX];
    struct bh_slice name;
    if (!bh_arena_copy(plan->arena, bh_slice_str(bh_ip_text(ip, text)), &name)) {
        plan->out_of_memory = true;
        return;
    }
    struct plan_host *host = add_host(plan, source, name, preference);
    if (host != NULL) {
        host->host.literal = true;
        host->host.mx_secure = true; /* nobody's DNS is involved */
        add_address(plan, host, ip, plan->sources[source].configured);
    }
}

/* "192.0.2.1" (smarthosts only), "[192.0.2.1]", "[2001:db8::1]", "[IPv6:2001:db8::1]". */
static bool parse_literal(struct bh_slice text, bool brackets_needed, struct bh_ip *ip)
{
    if (text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']') {
        text = bh_slice(text.ptr + 1, text.len - 2);
        const struct bh_slice tag = BH_LIT("IPv6:");
        if (bh_slice_starts_nocase(text, tag)) {
            return bh_ip_parse(bh_slice_skip(text, tag.len), ip) && ip->family == 6;
        }
        brackets_needed = false;
    }
    return !brackets_needed && bh_ip_parse(text, ip);
}

static enum bh_status copy_host_name(struct bh_slice text, struct bh_arena *arena,
                                     struct bh_slice *name)
{
    char storage[BH_DNS_NAME_MAX];
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    if (bh_dns_name_normalise(text, &buf) != BH_OK || !bh_dns_name_is_host(bh_buf_slice(&buf))) {
        return BH_EINVAL;
    }
    return bh_arena_copy(arena, bh_buf_slice(&buf), name) ? BH_OK : BH_ENOMEM;
}

static enum bh_status add_source(struct bh_target_plan *plan, struct bh_slice text, bool lookup_mx,
                                 struct plan_source source)
{
    const size_t index = plan->sources_len;
    struct bh_ip ip;
    if (parse_literal(text, !source.configured, &ip)) {
        plan->sources[plan->sources_len++] = source;
        add_literal_host(plan, index, &ip, source.priority);
        return plan->out_of_memory ? BH_ENOMEM : BH_OK;
    }
    const enum bh_status status = copy_host_name(text, plan->arena, &source.name);
    if (status != BH_OK) {
        return status;
    }
    source.mx = lookup_mx ? PLAN_WANTED : PLAN_UNWANTED;
    plan->sources[plan->sources_len++] = source;
    if (!lookup_mx) {
        add_named_host(plan, index, source.name, source.priority, true, false);
    }
    return plan->out_of_memory ? BH_ENOMEM : BH_OK;
}

static enum bh_status add_sources(struct bh_target_plan *plan)
{
    const struct bh_target_request *request = &plan->request;
    if (request->smarthosts == NULL) {
        return add_source(plan, request->domain, true, (struct plan_source){.port = request->port});
    }
    for (size_t i = 0; i < request->smarthosts_len; i++) {
        const struct bh_target_smarthost *smarthost = &request->smarthosts[i];
        const enum bh_status status =
            add_source(plan, smarthost->host, smarthost->lookup_mx,
                       (struct plan_source){
                           .port = smarthost->port > 0 ? smarthost->port : request->port,
                           .priority = smarthost->priority,
                           .weight = smarthost->weight,
                           .configured = true,
                       });
        if (status != BH_OK) {
            return status;
        }
    }
    return BH_OK;
}

enum bh_status bh_target_plan_init(const struct bh_target_request *request, struct bh_arena *arena,
                                   struct bh_target_plan **plan_out)
{
    const size_t sources = request->smarthosts == NULL ? 1 : request->smarthosts_len;
    if (sources == 0 || sources > BH_TARGET_SMARTHOSTS_MAX || request->port == 0) {
        return BH_EINVAL;
    }
    struct bh_target_plan *plan = bh_arena_alloc(arena, sizeof(*plan));
    if (plan == NULL) {
        return BH_ENOMEM;
    }
    const size_t share = BH_TARGET_HOSTS_MAX / sources;
    *plan = (struct bh_target_plan){
        .request = *request,
        .arena = arena,
        .hosts_per_source_max = share > 4 ? share : 4,
        .mx_secure = true,
        .ttl_s = UINT32_MAX,
        .failure_ttl_s = UINT32_MAX,
    };
    plan->hosts_max = sources * plan->hosts_per_source_max;
    plan->sources = bh_arena_alloc(arena, sources * sizeof(*plan->sources));
    plan->hosts = bh_arena_alloc(arena, plan->hosts_max * sizeof(*plan->hosts));
    if (plan->sources == NULL || plan->hosts == NULL) {
        return BH_ENOMEM;
    }
    const enum bh_status status = add_sources(plan);
    if (status == BH_OK) {
        *plan_out = plan;
    }
    return status;
}

bool bh_target_plan_next_query(struct bh_target_plan *plan, struct bh_target_query *query)
{
    static const uint16_t types[PLAN_FAMILIES] = {[PLAN_V4] = BH_DNS_A, [PLAN_V6] = BH_DNS_AAAA};
    for (size_t i = 0; i < plan->sources_len; i++) {
        struct plan_source *source = &plan->sources[i];
        if (source->mx == PLAN_WANTED) {
            source->mx = PLAN_ASKED;
            plan->open++;
            *query = (struct bh_target_query){source->name, BH_DNS_MX, i * ASK_KINDS + ASK_MX};
            return true;
        }
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        for (size_t family = 0; family < PLAN_FAMILIES; family++) {
            struct plan_host *host = &plan->hosts[i];
            if (host->step[family] == PLAN_WANTED) {
                host->step[family] = PLAN_ASKED;
                plan->open++;
                *query = (struct bh_target_query){host->host.name, types[family],
                                                  i * ASK_KINDS + ASK_A + family};
                return true;
            }
        }
    }
    return false;
}

/* By preference, then by name, so that a list which is too long is always cut alike. */
static int compare_mx(const void *a, const void *b)
{
    const struct bh_dns_record *x = a;
    const struct bh_dns_record *y = b;
    if (x->preference != y->preference) {
        return x->preference < y->preference ? -1 : 1;
    }
    return bh_slice_cmp(x->name, y->name);
}

static bool has_host(const struct bh_target_plan *plan, size_t source, struct bh_slice name)
{
    for (size_t i = 0; i < plan->hosts_len; i++) {
        if (plan->hosts[i].source == source && bh_slice_eq(plan->hosts[i].host.name, name)) {
            return true;
        }
    }
    return false;
}

static void add_mx_hosts(struct bh_target_plan *plan, size_t source,
                         const struct bh_dns_answer *given)
{
    struct bh_dns_answer answer;
    if (bh_dns_answer_copy(given, plan->arena, &answer) != BH_OK) {
        plan->out_of_memory = true;
        return;
    }
    qsort(answer.records, answer.records_len, sizeof(*answer.records), compare_mx);
    size_t added = 0;
    bool null_only = true;
    for (size_t i = 0; i < answer.records_len && added < plan->hosts_per_source_max; i++) {
        const struct bh_dns_record *record = &answer.records[i];
        if (record->name.len == 0) {
            continue; /* "." beside others says nothing (RFC 7505 section 3) */
        }
        null_only = false;
        if (!has_host(plan, source, record->name)) {
            add_named_host(plan, source, record->name, record->preference, answer.secure, false);
            added++;
        }
    }
    if (null_only) {
        plan->sources[source].failed = true;
        plan->sources[source].failure = BH_HAPPENED_NULL_MX;
    }
}

static void on_mx(struct bh_target_plan *plan, size_t index, const struct bh_dns_answer *answer)
{
    struct plan_source *source = &plan->sources[index];
    BH_ASSERT(source->mx == PLAN_ASKED);
    source->mx = PLAN_ANSWERED;
    plan->mx_secure = plan->mx_secure && answer->secure && bh_dns_is_answer(answer->status);
    switch (answer->status) {
    case BH_DNS_FOUND:
        add_mx_hosts(plan, index, answer);
        return;
    case BH_DNS_NODATA: /* implicit MX (RFC 5321 section 5.1) */
        add_named_host(plan, index, source->name, 0, answer->secure, true);
        return;
    case BH_DNS_NXDOMAIN:
        source->failed = true;
        source->failure = BH_HAPPENED_NXDOMAIN;
        return;
    case BH_DNS_SERVFAIL:
    case BH_DNS_BOGUS:
    case BH_DNS_GARBLED:
    case BH_DNS_TIMEOUT:
    case BH_DNS_OVERLOAD:
    case BH_DNS_CANCELLED:
        source->failed = true;
        source->failure = plan_failure(answer->status);
        return;
    }
}

static void on_addresses(struct bh_target_plan *plan, size_t index, size_t family,
                         const struct bh_dns_answer *answer)
{
    struct plan_host *host = &plan->hosts[index];
    BH_ASSERT(host->step[family] == PLAN_ASKED);
    host->step[family] = PLAN_ANSWERED;
    if (!bh_dns_is_answer(answer->status)) {
        const enum bh_happened failure = plan_failure(answer->status);
        if (!host->failed || plan_failure_weight(failure) > plan_failure_weight(host->failure)) {
            host->failure = failure;
        }
        host->failed = true;
        host->host.incomplete = true;
        return;
    }
    host->all_secure = host->all_secure && answer->secure;
    host->host.address_secure = host->all_secure;
    if (answer->status != BH_DNS_FOUND) {
        return;
    }
    if (answer->aliases > 0 && !bh_arena_copy(plan->arena, answer->name, &host->host.canonical)) {
        plan->out_of_memory = true;
    }
    for (size_t i = 0; i < answer->records_len; i++) {
        add_address(plan, host, &answer->records[i].ip, false);
    }
}

void bh_target_plan_answer(struct bh_target_plan *plan, size_t tag,
                           const struct bh_dns_answer *answer)
{
    const size_t index = tag / ASK_KINDS;
    const size_t kind = tag % ASK_KINDS;
    BH_ASSERT(plan->open > 0);
    plan->open--;
    uint32_t *ttl_s = bh_dns_is_answer(answer->status) ? &plan->ttl_s : &plan->failure_ttl_s;
    *ttl_s = answer->ttl_s < *ttl_s ? answer->ttl_s : *ttl_s;
    if (kind == ASK_MX) {
        BH_ASSERT(index < plan->sources_len);
        on_mx(plan, index, answer);
    } else {
        BH_ASSERT(index < plan->hosts_len);
        on_addresses(plan, index, kind - ASK_A, answer);
    }
}

bool bh_target_plan_is_complete(const struct bh_target_plan *plan)
{
    for (size_t i = 0; i < plan->sources_len; i++) {
        if (plan->sources[i].mx == PLAN_WANTED) {
            return false;
        }
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        for (size_t family = 0; family < PLAN_FAMILIES; family++) {
            if (plan->hosts[i].step[family] == PLAN_WANTED) {
                return false;
            }
        }
    }
    return plan->open == 0;
}
