#include "sched_policy.h"

#include <string.h>

#include "bh/assert.h"

static uint32_t clamp32(uint64_t value)
{
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static uint32_t copy_times(const struct bh_times *times, uint32_t out[BH_INTERVALS_MAX])
{
    uint32_t count = 0;
    for (size_t i = 0; i < times->count && count < BH_INTERVALS_MAX; i++) {
        out[count++] = clamp32(times->at_ms[i]);
    }
    BH_ASSERT(count > 0);
    /* More intervals than fit: the last one repeats, as configured. */
    out[count - 1] = clamp32(times->at_ms[times->count - 1]);
    return count;
}

static int64_t as_age(uint64_t ms)
{
    return ms < (uint64_t)INT64_MAX ? (int64_t)ms : INT64_MAX;
}

static void copy_retry(const struct bh_retry *from, struct bh_retry_policy *to)
{
    to->intervals = copy_times(&from->intervals, to->intervals_ms);
    to->destination_intervals = copy_times(&from->destination_intervals, to->destination_ms);
    to->glitches = from->glitch_count;
    to->glitch_ms = clamp32(from->glitch_ms);
    to->jitter_permille = from->jitter_percent * 10;
    to->expire_ms = as_age(from->expire_ms);
    to->expire_bounces_ms = as_age(from->expire_bounces_ms);
    to->warn_ms = as_age(from->warn_after_ms);
}

static uint32_t at_least_one(uint32_t value)
{
    return value > 0 ? value : 1;
}

/* A timer is late by a little, which is made up for; at high rates several go in one ms. */
#define RATE_SLACK_NS UINT64_C(10000000)

static struct bh_sched_rate rate_of(struct bh_rate rate)
{
    struct bh_sched_rate out = {0};
    if (rate.count > 0) {
        const uint64_t interval_ns = (uint64_t)rate.per_ms * 1000000 / rate.count;
        out.interval_ns = interval_ns > 0 ? interval_ns : 1;
        out.slack_ns = RATE_SLACK_NS;
    }
    return out;
}

_Static_assert(BH_OF_CONNECTOR == (int)BH_RATE_CONNECTOR && BH_OF_HOST == (int)BH_RATE_HOST &&
                   BH_OF_DESTINATION == (int)BH_RATE_DESTINATION &&
                   BH_SCOPES == (int)BH_RATE_SCOPES,
               "the scheduler and the configuration name the same");
_Static_assert(BH_PER_MESSAGE == (int)BH_RATE_MESSAGES && BH_KINDS == (int)BH_RATE_KINDS &&
                   BH_PER_RECIPIENT == (int)BH_RATE_RECIPIENTS,
               "the scheduler and the configuration name the same");

void sched_policy_of(const struct bh_connector *connector, bool held,
                     struct bh_sched_policy *policy)
{
    const struct bh_connector_limits *limits = &connector->limits;
    *policy = (struct bh_sched_policy){
        .connections_max = limits->connections,
        .per_destination_max = at_least_one(limits->per_destination),
        .per_destination_start = at_least_one(limits->initial),
        .per_host_max = at_least_one(limits->per_host),
        .round_addresses_max = limits->addresses_per_round,
        .messages_per_connection = limits->messages_per_connection,
        .connection_life_ms = clamp32(limits->connection_life_ms),
        .idle_ms = clamp32(limits->idle_ms),
        .first_alone = connector->auth.mech != BH_AUTH_NONE,
        .active = !held && connector->state == BH_CONNECTOR_ACTIVE,
    };
    BH_ASSERT(connector->name.len <= BH_SCHED_NAME_MAX);
    memcpy(policy->connector, connector->name.ptr, connector->name.len);
    /* Without adaptation connections never shrink for what a partner does, only for what it says.
     */
    policy->per_destination_floor =
        at_least_one(limits->adaptive ? limits->floor : limits->initial);
    if (connector->breaker.mode == BH_BREAKER_ON) {
        policy->breaker_refusals = connector->breaker.refusals;
        policy->breaker_share = connector->breaker.share_percent;
        policy->breaker_window_ms = connector->breaker.window_ms;
        policy->breaker_hold_ms = connector->breaker.hold_ms;
    }
    if (limits->adaptive && limits->ceiling > 0) {
        policy->per_destination_max = limits->ceiling;
    }
    if (policy->per_destination_start > policy->per_destination_max) {
        policy->per_destination_start = policy->per_destination_max;
    }
    for (enum bh_sched_scope scope = 0; scope < BH_SCOPES; scope++) {
        for (enum bh_sched_kind kind = 0; kind < BH_KINDS; kind++) {
            policy->rates[scope][kind] = rate_of(limits->rates[scope][kind]);
        }
    }
    copy_retry(&connector->retry, &policy->retry);
    if (!connector->dsn.delay) {
        policy->retry.warn_ms = 0;
    }
}
