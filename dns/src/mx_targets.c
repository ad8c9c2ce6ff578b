/* mx_targets.c - a complete plan becomes a list, in steps:
 *   1. the state of each host, and what this machine's own place among the MX rules out
 *   2. the order of the sources, then of all hosts
 *   3. the addresses of each host, families alternating
 *   4. the targets: first a share of each host, then what is left
 *   5. without a target: the reason */
#include "bh/mx_targets.h"

#include <stdlib.h>

#include "mx_plan.h"

#define ROUND_MAX ((size_t)5)
#define ROUND_PER_HOST_MAX ((size_t)3)
#define TTL_WITHOUT_DNS_S UINT32_C(3600)
/* A list that works is not asked for again every few seconds for the sake of one sick host. */
#define TTL_BESIDE_FAILURE_S UINT32_C(60)

/* Step 1. */
static enum bh_host_state state_of(const struct plan_host *host)
{
    if (host->is_self) {
        return BH_HOST_SELF;
    }
    if (host->ips_len[PLAN_V4] + host->ips_len[PLAN_V6] > 0) {
        return BH_HOST_USABLE;
    }
    if (host->failed) {
        return BH_HOST_FAILED;
    }
    return host->is_filtered ? BH_HOST_FORBIDDEN : BH_HOST_NO_ADDRESS;
}

static void set_states(struct bh_target_plan *plan)
{
    for (size_t i = 0; i < plan->hosts_len; i++) {
        plan->hosts[i].host.state = state_of(&plan->hosts[i]);
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        const struct plan_host *self = &plan->hosts[i];
        for (size_t j = 0; self->is_self && j < plan->hosts_len; j++) {
            struct plan_host *other = &plan->hosts[j];
            if (!other->is_self && other->source == self->source &&
                other->host.preference >= self->host.preference) {
                other->host.state = BH_HOST_NOT_BETTER;
            }
        }
    }
}

/* Step 2: by priority; within it drawn by weight, without putting back (RFC 2782). */
static uint64_t draw_weight(const struct plan_source *source)
{
    return source->weight > 0 ? (uint64_t)source->weight * 64 : 1;
}

static struct plan_source *draw_source(struct bh_target_plan *plan, struct bh_rng *rng)
{
    uint32_t priority = UINT32_MAX;
    uint64_t total = 0;
    for (size_t i = 0; i < plan->sources_len; i++) {
        const struct plan_source *source = &plan->sources[i];
        if (source->rank > 0 || source->priority > priority) {
            continue;
        }
        total = source->priority < priority ? 0 : total;
        priority = source->priority;
        total += draw_weight(source);
    }
    uint64_t left = total > 0 ? bh_rng_below(rng, total) : 0;
    for (size_t i = 0; i < plan->sources_len; i++) {
        struct plan_source *source = &plan->sources[i];
        if (source->rank > 0 || source->priority != priority) {
            continue;
        }
        if (left < draw_weight(source)) {
            return source;
        }
        left -= draw_weight(source);
    }
    return NULL;
}

struct place {
    uint64_t rank;
    uint64_t dice;
    const struct plan_host *host;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->host->host.preference != y->host->host.preference) {
        return x->host->host.preference < y->host->host.preference ? -1 : 1;
    }
    return x->dice < y->dice ? -1 : x->dice > y->dice;
}

static struct place *order_hosts(struct bh_target_plan *plan, struct bh_rng *rng)
{
    struct plan_source *source = NULL;
    for (uint64_t rank = 1; (source = draw_source(plan, rng)) != NULL; rank++) {
        source->rank = rank;
    }
    struct place *places = bh_arena_alloc(plan->arena, (plan->hosts_len + 1) * sizeof(*places));
    if (places == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        const struct plan_host *host = &plan->hosts[i];
        places[i] = (struct place){plan->sources[host->source].rank, bh_rng_u64(rng), host};
    }
    qsort(places, plan->hosts_len, sizeof(*places), compare_places);
    return places;
}

static void shuffle(struct bh_ip *ips, size_t len, struct bh_rng *rng)
{
    for (size_t i = len; i > 1; i--) {
        const size_t j = (size_t)bh_rng_below(rng, i);
        const struct bh_ip kept = ips[i - 1];
        ips[i - 1] = ips[j];
        ips[j] = kept;
    }
}

/* Step 3. */
static bool fill_addresses(struct bh_target_plan *plan, const struct plan_host *from,
                           struct bh_rng *rng, struct bh_target_host *host)
{
    const size_t total = from->ips_len[PLAN_V4] + from->ips_len[PLAN_V6];
    if (host->state != BH_HOST_USABLE) {
        return true;
    }
    struct bh_ip *ips = bh_arena_alloc(plan->arena, total * sizeof(*ips));
    if (ips == NULL) {
        return false;
    }
    const bool six_first =
        plan->request.family == BH_FAMILY_PREFER_6 || plan->request.family == BH_FAMILY_ONLY_6;
    const size_t first = six_first ? PLAN_V6 : PLAN_V4;
    const size_t order[PLAN_FAMILIES] = {first, first == PLAN_V6 ? PLAN_V4 : PLAN_V6};
    size_t used[PLAN_FAMILIES] = {0};
    shuffle(from->ips[PLAN_V4], from->ips_len[PLAN_V4], rng);
    shuffle(from->ips[PLAN_V6], from->ips_len[PLAN_V6], rng);
    size_t len = 0;
    while (len < total && len < BH_TARGET_ADDRESSES_MAX) {
        for (size_t i = 0; i < PLAN_FAMILIES && len < BH_TARGET_ADDRESSES_MAX; i++) {
            const size_t family = order[i];
            if (used[family] < from->ips_len[family]) {
                ips[len++] = from->ips[family][used[family]++];
            }
        }
    }
    host->addresses = ips;
    host->addresses_len = len;
    return true;
}

/* Step 4. */
static size_t add_targets(const struct bh_target_host *host, size_t from, size_t to,
                          struct bh_target *targets)
{
    size_t count = 0;
    for (size_t i = from; i < to && i < host->addresses_len; i++) {
        targets[count++] = (struct bh_target){host, host->addresses[i], host->port};
    }
    return count;
}

static bool fill_targets(struct bh_target_plan *plan, struct bh_target_list *list)
{
    size_t total = 0;
    size_t usable = 0;
    for (size_t i = 0; i < list->hosts_len; i++) {
        total += list->hosts[i].addresses_len;
        usable += list->hosts[i].addresses_len > 0 ? 1 : 0;
    }
    if (total == 0) {
        return true;
    }
    struct bh_target *targets = bh_arena_alloc(plan->arena, total * sizeof(*targets));
    if (targets == NULL) {
        return false;
    }
    const struct bh_target_request *request = &plan->request;
    const size_t wanted =
        request->round_per_host_max > 0 ? request->round_per_host_max : ROUND_PER_HOST_MAX;
    const size_t share = usable > 1 ? wanted : BH_TARGET_ADDRESSES_MAX;
    size_t len = 0;
    for (size_t i = 0; i < list->hosts_len; i++) {
        len += add_targets(&list->hosts[i], 0, share, targets + len);
    }
    for (size_t i = 0; i < list->hosts_len; i++) {
        len += add_targets(&list->hosts[i], share, SIZE_MAX, targets + len);
    }
    BH_ASSERT(len == total);
    const size_t round_max = request->round_max > 0 ? request->round_max : ROUND_MAX;
    list->targets = targets;
    list->targets_len = len;
    list->round_len = len < round_max ? len : round_max;
    list->usable = true;
    return true;
}

/* Step 5. */
static enum bh_happened reason(const struct bh_target_plan *plan)
{
    enum bh_happened worst = BH_HAPPENED_NO_ADDRESS;
    size_t counts[BH_HOST_FAILED + 1] = {0};
    for (size_t i = 0; i < plan->sources_len; i++) {
        const struct plan_source *source = &plan->sources[i];
        if (source->failed && plan_failure_weight(source->failure) > plan_failure_weight(worst)) {
            worst = source->failure;
        }
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        const struct plan_host *host = &plan->hosts[i];
        counts[host->host.state]++;
        if (host->host.state == BH_HOST_FAILED &&
            plan_failure_weight(host->failure) > plan_failure_weight(worst)) {
            worst = host->failure;
        }
    }
    if (plan_failure_weight(worst) > 0) {
        return worst;
    }
    const bool configured = plan->sources[0].configured;
    const size_t ruled_out = counts[BH_HOST_SELF] + counts[BH_HOST_NOT_BETTER];
    if (!configured && plan->hosts_len > 0 && ruled_out == plan->hosts_len) {
        return BH_HAPPENED_LOOP;
    }
    if (counts[BH_HOST_FORBIDDEN] > 0 || (configured && ruled_out > 0)) {
        return BH_HAPPENED_ALL_FILTERED;
    }
    if (configured) {
        return BH_HAPPENED_OUR_CONFIG;
    }
    return plan->sources[0].failed ? plan->sources[0].failure : BH_HAPPENED_NO_ADDRESS;
}

static int compare_slices(const void *a, const void *b)
{
    const struct bh_slice *x = a;
    const struct bh_slice *y = b;
    return bh_slice_cmp(*x, *y);
}

static bool fill_site(struct bh_target_plan *plan, struct bh_target_list *list)
{
    struct bh_slice *names = bh_arena_alloc(plan->arena, (list->hosts_len + 1) * sizeof(*names));
    size_t len = 0;
    if (names == NULL) {
        return false;
    }
    const bool with_port = plan->sources[0].configured;
    for (size_t i = 0; i < list->hosts_len; i++) {
        const struct bh_target_host *host = &list->hosts[i];
        names[i] = host->name;
        if (with_port) {
            const size_t room = host->name.len + sizeof("[]:65535");
            char *text = bh_arena_alloc(plan->arena, room);
            if (text == NULL) {
                return false;
            }
            struct bh_buf buf = bh_buf(text, room);
            const bool brackets = bh_slice_find(host->name, ':') < host->name.len;
            const enum bh_status status =
                bh_buf_printf(&buf, "%s%.*s%s:%u", brackets ? "[" : "", BH_FMT(host->name),
                              brackets ? "]" : "", (unsigned)host->port);
            BH_ASSERT(status == BH_OK);
            names[i] = bh_buf_slice(&buf);
        }
        len += names[i].len + 1;
    }
    qsort(names, list->hosts_len, sizeof(*names), compare_slices);
    char *text = bh_arena_alloc(plan->arena, len + 1);
    if (text == NULL) {
        return false;
    }
    struct bh_buf site = bh_buf(text, len + 1);
    for (size_t i = 0; i < list->hosts_len; i++) {
        if (i > 0 && bh_slice_eq(names[i], names[i - 1])) {
            continue;
        }
        bh_buf_put(&site, i > 0 ? BH_LIT(",") : BH_EMPTY);
        bh_buf_put(&site, names[i]);
    }
    list->site = bh_buf_slice(&site);
    return true;
}

static uint32_t list_ttl(const struct bh_target_plan *plan, bool usable)
{
    uint32_t failure_ttl_s = plan->failure_ttl_s;
    if (usable && failure_ttl_s < TTL_BESIDE_FAILURE_S) {
        failure_ttl_s = TTL_BESIDE_FAILURE_S;
    }
    const uint32_t ttl_s = plan->ttl_s < failure_ttl_s ? plan->ttl_s : failure_ttl_s;
    return ttl_s == UINT32_MAX ? TTL_WITHOUT_DNS_S : ttl_s;
}

enum bh_status bh_target_plan_finish(struct bh_target_plan *plan, struct bh_rng *rng,
                                     struct bh_target_list *list_out)
{
    BH_ASSERT(bh_target_plan_is_complete(plan));
    struct bh_target_list list = {.happened = BH_HAPPENED_REPLY, .mx_secure = plan->mx_secure};
    if (plan->out_of_memory) {
        return BH_ENOMEM;
    }
    set_states(plan);
    const struct place *places = order_hosts(plan, rng);
    struct bh_target_host *hosts =
        bh_arena_alloc(plan->arena, (plan->hosts_len + 1) * sizeof(*hosts));
    if (places == NULL || hosts == NULL) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < plan->hosts_len; i++) {
        hosts[i] = places[i].host->host;
        if (!fill_addresses(plan, places[i].host, rng, &hosts[i])) {
            return BH_ENOMEM;
        }
    }
    list.hosts = hosts;
    list.hosts_len = plan->hosts_len;
    if (!fill_targets(plan, &list) || !fill_site(plan, &list)) {
        return BH_ENOMEM;
    }
    if (!list.usable) {
        list.happened = reason(plan);
    }
    list.ttl_s = list_ttl(plan, list.usable);
    *list_out = list;
    return BH_OK;
}

static bool copy_host(const struct bh_target_host *from, struct bh_arena *arena,
                      struct bh_target_host *to)
{
    *to = *from;
    struct bh_slice octets = bh_slice(from->addresses, from->addresses_len * sizeof(struct bh_ip));
    struct bh_slice copy;
    if (!bh_arena_copy(arena, from->name, &to->name) ||
        !bh_arena_copy(arena, from->canonical, &to->canonical) ||
        !bh_arena_copy(arena, octets, &copy)) {
        return false;
    }
    to->addresses = octets.len > 0 ? (const struct bh_ip *)(const void *)copy.ptr : NULL;
    return true;
}

enum bh_status bh_target_list_copy(const struct bh_target_list *list, struct bh_arena *arena,
                                   struct bh_target_list *copy)
{
    struct bh_target_list result = *list;
    struct bh_target_host *hosts = bh_arena_alloc(arena, (list->hosts_len + 1) * sizeof(*hosts));
    struct bh_target *targets = bh_arena_alloc(arena, (list->targets_len + 1) * sizeof(*targets));
    if (hosts == NULL || targets == NULL || !bh_arena_copy(arena, list->site, &result.site)) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < list->hosts_len; i++) {
        if (!copy_host(&list->hosts[i], arena, &hosts[i])) {
            return BH_ENOMEM;
        }
    }
    for (size_t i = 0; i < list->targets_len; i++) {
        targets[i] = list->targets[i];
        targets[i].host = hosts + (list->targets[i].host - list->hosts);
    }
    result.hosts = hosts;
    result.targets = targets;
    *copy = result;
    return BH_OK;
}

const char *bh_host_state_name(enum bh_host_state state)
{
    switch (state) {
    case BH_HOST_USABLE:
        return "usable";
    case BH_HOST_SELF:
        return "self";
    case BH_HOST_NOT_BETTER:
        return "not_better";
    case BH_HOST_FORBIDDEN:
        return "forbidden";
    case BH_HOST_NO_ADDRESS:
        return "no_address";
    case BH_HOST_FAILED:
        return "failed";
    }
    return "unknown";
}
