#include "bh/tls_plan.h"

#define NAMES_EXTRA 2 /* the domain's and the host's beside those configured */

/* ---- names ---- */

struct name_list {
    struct bh_slice *at;
    size_t count;
};

static void add_name(struct name_list *names, struct bh_slice name)
{
    bool known = name.len == 0;
    for (size_t i = 0; i < names->count && !known; i++) {
        known = bh_slice_eq_nocase(names->at[i], name);
    }
    if (!known) {
        names->at[names->count++] = name;
    }
}

static bool room_for(struct name_list *names, struct bh_arena *arena, size_t count)
{
    *names = (struct name_list){.at = bh_arena_alloc(arena, count * sizeof(struct bh_slice))};
    return names->at != NULL;
}

static void set_names(struct bh_tls_demand *demand, const struct name_list *names)
{
    demand->names = (struct bh_names){.at = names->at, .count = names->count};
    demand->match_domain = false;
    demand->match_host = false;
}

static void use(struct bh_tls_plan *plan, enum bh_tls_mode mode, enum bh_tls_origin origin,
                const char *reason)
{
    plan->verdict = BH_PLAN_USE;
    plan->demand.mode = mode;
    plan->origin = origin;
    plan->reason = reason;
}

static void refuse(struct bh_tls_plan *plan, enum bh_plan_verdict verdict,
                   enum bh_happened happened, const char *reason)
{
    plan->verdict = verdict;
    plan->happened = happened;
    plan->reason = reason;
}

static void use_without_names(struct bh_tls_plan *plan, enum bh_tls_mode mode,
                              enum bh_tls_origin origin, const char *reason)
{
    use(plan, mode, origin, reason);
    set_names(&plan->demand, &(struct name_list){0});
}

static enum bh_status use_verify(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                 struct bh_tls_plan *plan, enum bh_tls_origin origin,
                                 const char *reason)
{
    const struct bh_tls_demand *configured = in->configured;
    struct name_list names;
    if (!room_for(&names, arena, configured->names.count + NAMES_EXTRA)) {
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < configured->names.count; i++) {
        add_name(&names, configured->names.at[i]);
    }
    if (configured->match_domain) {
        add_name(&names, in->domain);
    }
    if (configured->match_host) {
        add_name(&names, in->host.name);
    }
    if (names.count == 0) {
        refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_CONFIG,
               "the connector names nothing that a certificate could be verified for");
        return BH_OK;
    }
    use(plan, BH_TLS_VERIFY, origin, reason);
    set_names(&plan->demand, &names);
    return BH_OK;
}

/* ---- DANE (RFC 7672) ---- */

static bool has_trust_anchor(const struct bh_tlsa_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->at[i].usage == 2) {
            return true;
        }
    }
    return false;
}

/* Usage 2 compares names: the TLSA base domain and the next-hop domain (section 3.2.2); of a
 * smarthost the latter is its name. Usage 3 compares none (section 3.1.1), so that they are left
 * out and more destinations have the same demand. */
static enum bh_status use_dane(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                               struct bh_tls_plan *plan)
{
    struct name_list names = {0};
    if (has_trust_anchor(&in->dane.tlsa)) {
        if (!room_for(&names, arena, 3)) {
            return BH_ENOMEM;
        }
        add_name(&names, in->dane.base);
        add_name(&names, in->host.smarthost ? in->host.name : in->domain);
        if (in->host.address_secure) {
            add_name(&names, in->host.canonical);
        }
    }
    use(plan, BH_TLS_DANE, BH_TLS_BY_DANE, "its host has usable TLSA records");
    set_names(&plan->demand, &names);
    plan->demand.fallback = BH_TLS_ENCRYPT;
    plan->demand.tlsa = in->dane.tlsa;
    plan->demand.sni = in->dane.base; /* section 8.1 */
    return BH_OK;
}

/* What DANE alone says. @return true if that settles it */
static bool dane_settles(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                         struct bh_tls_plan *plan, enum bh_status *status)
{
    *status = BH_OK;
    switch (in->dane.state) {
    case BH_DANE_USABLE:
        *status = use_dane(in, arena, plan);
        return true;
    case BH_DANE_FAILED:
        refuse(plan, BH_PLAN_LATER, in->dane.happened,
               in->dane.happened == BH_HAPPENED_DNS_BOGUS
                   ? "DNSSEC finds its TLSA records forged or broken"
                   : "its TLSA records could not be looked up");
        return true;
    case BH_DANE_UNTRUSTED:
        refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_CONFIG,
               "the trusted resolver failed its self-test: nothing it says of DNSSEC counts");
        return true;
    case BH_DANE_NOT_ASKED:
    case BH_DANE_INSECURE:
    case BH_DANE_NONE:
    case BH_DANE_UNUSABLE:
        return false;
    }
    return false;
}

static const char *why_no_dane(enum bh_dane_state state)
{
    switch (state) {
    case BH_DANE_NOT_ASKED:
        return "no trusted resolver: TLSA records were not asked for";
    case BH_DANE_INSECURE:
        return "its MX or addresses are not signed: DANE does not apply";
    case BH_DANE_NONE:
        return "it has no TLSA records";
    case BH_DANE_UNUSABLE:
        return "none of its TLSA records is usable";
    case BH_DANE_USABLE:
    case BH_DANE_FAILED:
    case BH_DANE_UNTRUSTED:
        break;
    }
    return "";
}

static enum bh_status plan_dane(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                struct bh_tls_plan *plan)
{
    enum bh_status status = BH_OK;
    if (dane_settles(in, arena, plan, &status)) {
        return status;
    }
    if (in->dane.state == BH_DANE_NOT_ASKED) {
        refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_CONFIG,
               "dane needs a trusted resolver, and there is none");
        return BH_OK;
    }
    const char *why = why_no_dane(in->dane.state);
    const enum bh_tls_mode fallback = in->configured->fallback;
    if (fallback == BH_TLS_VERIFY) {
        return use_verify(in, arena, plan, BH_TLS_BY_FALLBACK, why);
    }
    const bool encrypt = in->dane.state == BH_DANE_UNUSABLE || fallback == BH_TLS_ENCRYPT;
    use_without_names(plan, encrypt ? BH_TLS_ENCRYPT : BH_TLS_OPPORTUNISTIC,
                      in->dane.state == BH_DANE_UNUSABLE ? BH_TLS_BY_DANE : BH_TLS_BY_FALLBACK,
                      why);
    return BH_OK;
}

static enum bh_status plan_dane_only(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                     struct bh_tls_plan *plan)
{
    enum bh_status status = BH_OK;
    if (!dane_settles(in, arena, plan, &status)) {
        if (in->dane.state == BH_DANE_NOT_ASKED) {
            refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_CONFIG,
                   "dane-only needs a trusted resolver, and there is none");
        } else {
            refuse(plan, BH_PLAN_UNMET, BH_HAPPENED_TLS_UNVERIFIED, why_no_dane(in->dane.state));
        }
    }
    return status;
}

/* ---- MTA-STS (RFC 8461) ---- */

static enum bh_status use_sts(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                              struct bh_tls_plan *plan)
{
    struct name_list names;
    if (!bh_sts_policy_matches(&in->sts->policy, in->host.name)) {
        if (in->sts->superseded) {
            refuse(plan, BH_PLAN_LATER, BH_HAPPENED_TLS_UNVERIFIED,
                   "the domain's MTA-STS policy does not list this host, and the newer one that it "
                   "announces can't be fetched");
        } else {
            refuse(plan, BH_PLAN_UNMET, BH_HAPPENED_TLS_UNVERIFIED,
                   "the domain's MTA-STS policy does not list this host");
        }
        plan->origin = BH_TLS_BY_STS;
        return BH_OK;
    }
    if (!room_for(&names, arena, 1)) {
        return BH_ENOMEM;
    }
    add_name(&names, in->host.name);
    use(plan, BH_TLS_VERIFY, BH_TLS_BY_STS, "the domain enforces an MTA-STS policy");
    set_names(&plan->demand, &names);
    plan->route_proven = true;
    return BH_OK;
}

/* Nothing is refused, but what would be is told (RFC 8461 section 5). */
static const char *why_testing(const struct bh_tls_plan_input *in)
{
    return bh_sts_policy_matches(&in->sts->policy, in->host.name)
               ? "the domain tests an MTA-STS policy, which lists this host"
               : "the domain tests an MTA-STS policy, which does not list this host";
}

static enum bh_status plan_published(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                     struct bh_tls_plan *plan)
{
    enum bh_status status = BH_OK;
    if (dane_settles(in, arena, plan, &status)) {
        return status;
    }
    const bool sts = in->sts != NULL && !in->host.smarthost;
    if (sts && in->sts->origin == BH_STS_UNKNOWN) {
        refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_RESOURCE,
               "what is remembered of the domain's MTA-STS policy can't be read");
        return BH_OK;
    }
    if (sts && in->sts->policy.mode == BH_STS_MODE_ENFORCE) {
        return use_sts(in, arena, plan);
    }
    if (in->dane.state == BH_DANE_UNUSABLE) {
        use_without_names(plan, BH_TLS_ENCRYPT, BH_TLS_BY_DANE,
                          why_no_dane(in->dane.state)); /* RFC 7672 section 2.2 */
    } else {
        const bool testing = sts && in->sts->policy.mode == BH_STS_MODE_TESTING;
        use_without_names(plan, BH_TLS_OPPORTUNISTIC, BH_TLS_BY_DEFAULT,
                          testing ? why_testing(in) : why_no_dane(in->dane.state));
    }
    return BH_OK;
}

/* The sender would rather have the message arrive than have it protected: what the domain publishes
 * is not held against it. What our own configuration lacks or demands is none of theirs to lift. */
static void lift(const struct bh_tls_plan_input *in, struct bh_tls_plan *plan)
{
    const bool by_sts = plan->origin == BH_TLS_BY_STS;
    const bool by_dane = plan->origin == BH_TLS_BY_DANE;
    const char *why = by_sts    ? "the sender's TLS-Required: No lifts the domain's MTA-STS policy"
                      : by_dane ? "the sender's TLS-Required: No lifts its TLSA records"
                                : "the sender's TLS-Required: No lifts the failed lookup of its "
                                  "TLSA records";
    if (plan->verdict == BH_PLAN_OURS || plan->origin == BH_TLS_BY_DEFAULT) {
        return;
    }
    plan->demand = *in->configured;
    plan->demand.tlsa = (struct bh_tlsa_set){0};
    use_without_names(plan, BH_TLS_OPPORTUNISTIC, BH_TLS_BY_SENDER, why);
}

static enum bh_status plan_auto(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                struct bh_tls_plan *plan)
{
    const enum bh_status status = plan_published(in, arena, plan);
    if (status == BH_OK && in->lifted) {
        lift(in, plan);
    }
    return status;
}

/* ---- all modes ---- */

/* A fixed mode is not changed by a policy of the domain, but one that is enforced vouches for the
 * names of its hosts all the same (RFC 8689 section 4.2.1). Where no peer is known for who it is,
 * the route is of no use. */
static void prove_route(const struct bh_tls_plan_input *in, bool by_name, struct bh_tls_plan *plan)
{
    const enum bh_tls_mode mode = in->configured->mode;
    const bool fixed = mode == BH_TLS_VERIFY || mode == BH_TLS_PIN || mode == BH_TLS_DANE ||
                       mode == BH_TLS_DANE_ONLY;
    if (plan->route_proven || !by_name) {
        return;
    }
    if (fixed && in->sts != NULL && in->sts->policy.mode == BH_STS_MODE_ENFORCE &&
        bh_sts_policy_matches(&in->sts->policy, in->host.name)) {
        plan->route_proven = true;
        return;
    }
    plan->route_unasked = fixed && in->sts == NULL;
    plan->route_unknown =
        in->dnssec_unknown || (fixed && in->sts != NULL && in->sts->origin == BH_STS_UNKNOWN);
}

enum bh_status bh_tls_plan_make(const struct bh_tls_plan_input *in, struct bh_arena *arena,
                                struct bh_tls_plan *plan)
{
    const enum bh_tls_origin origin = in->exception ? BH_TLS_BY_EXCEPTION : BH_TLS_BY_CONNECTOR;
    enum bh_status status = BH_OK;
    const bool by_name = !in->host.smarthost && !in->host.literal;
    *plan = (struct bh_tls_plan){.demand = *in->configured,
                                 .origin = origin,
                                 .reason = "",
                                 .route_proven =
                                     in->host.smarthost ||
                                     (in->host.mx_secure && !(by_name && in->dnssec_unknown))};
    plan->demand.tlsa = (struct bh_tlsa_set){0};
    switch (in->configured->mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        use_without_names(plan, in->configured->mode, origin, "as the connector says");
        break;
    case BH_TLS_PIN:
        if (in->configured->pins.count == 0) {
            refuse(plan, BH_PLAN_OURS, BH_HAPPENED_OUR_CONFIG, "the connector pins no key");
        } else {
            use_without_names(plan, BH_TLS_PIN, origin, "as the connector says");
        }
        break;
    case BH_TLS_VERIFY:
        status = use_verify(in, arena, plan, origin, "as the connector says");
        break;
    case BH_TLS_DANE:
        status = plan_dane(in, arena, plan);
        break;
    case BH_TLS_DANE_ONLY:
        status = plan_dane_only(in, arena, plan);
        break;
    case BH_TLS_AUTO:
        status = plan_auto(in, arena, plan);
        break;
    }
    prove_route(in, by_name, plan);
    return status;
}

enum bh_status bh_tls_demand_copy(const struct bh_tls_demand *demand, struct bh_arena *arena,
                                  struct bh_tls_demand *copy)
{
    const size_t names = demand->names.count;
    const size_t records = demand->tlsa.count;
    struct bh_slice *at = bh_arena_alloc(arena, (names + 1) * sizeof(*at));
    struct bh_tlsa *tlsa = bh_arena_alloc(arena, (records + 1) * sizeof(*tlsa));
    if (at == NULL || tlsa == NULL) {
        return BH_ENOMEM;
    }
    bool good = true;
    for (size_t i = 0; i < names; i++) {
        good = good && bh_arena_copy(arena, demand->names.at[i], &at[i]);
    }
    for (size_t i = 0; i < records; i++) {
        tlsa[i] = demand->tlsa.at[i];
        good = good && bh_arena_copy(arena, demand->tlsa.at[i].data, &tlsa[i].data);
    }
    struct bh_tls_demand made = *demand;
    good = good && bh_arena_copy(arena, demand->sni, &made.sni);
    if (!good) {
        return BH_ENOMEM;
    }
    made.names.at = at;
    made.tlsa.at = tlsa;
    *copy = made;
    return BH_OK;
}

const char *bh_tls_origin_name(enum bh_tls_origin origin)
{
    switch (origin) {
    case BH_TLS_BY_CONNECTOR:
        return "connector";
    case BH_TLS_BY_EXCEPTION:
        return "exception";
    case BH_TLS_BY_DANE:
        return "dane";
    case BH_TLS_BY_STS:
        return "mta-sts";
    case BH_TLS_BY_FALLBACK:
        return "fallback";
    case BH_TLS_BY_DEFAULT:
        return "default";
    case BH_TLS_BY_SENDER:
        return "tls-required-no";
    }
    return "unknown";
}
