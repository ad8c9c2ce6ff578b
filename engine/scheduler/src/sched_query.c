#include "sched_internal.h"

/* What others may ask: of items, and of destinations and what limits them. */

bool bh_sched_has_item(const struct bh_sched *s, uint32_t destination, uint64_t id, uint16_t part)
{
    const struct bh_sched_item *item = item_find(s, destination, id, part);
    return item != NULL && !item->settled;
}

bool bh_sched_is_leased(const struct bh_sched *s, uint32_t destination, uint64_t id, uint16_t part)
{
    const struct bh_sched_item *item = item_find(s, destination, id, part);
    return item != NULL && item->leased;
}

/* ---- destinations ---- */

/* @param limit NULL: nothing is known of it any more */
static void count_shared(struct bh_sched_limited *limited, const struct limit *limit, uint32_t max)
{
    const uint32_t half = max > 1 ? max / 2 : 1;
    limited->max = limited->half ? half : max;
    if (limit != NULL) {
        limited->used = limited->half ? limit->unproven : limit->sessions;
    }
}

/* What limits it, as it stands now. What stands before all of a site is told of those behind the
 * first in turn, too. */
static struct bh_sched_limited limited_of(const struct bh_sched *s, const struct dest *d)
{
    struct bh_sched_limited limited = d->limited;
    const struct site *site = d->site;
    if (d->items + d->detours == 0) {
        return (struct bh_sched_limited){.by = BH_LIMITED_BY_NOTHING};
    }
    if (limited.by == BH_LIMITED_BY_NOTHING && site != NULL && d->in_turn &&
        (site->blocked || site->lease_wait.at != NULL || site->open_wait.at != NULL)) {
        limited = site->limited;
    }
    const struct host *host = NULL;
    switch (limited.by) {
    case BH_LIMITED_BY_DESTINATION:
        limited.used = d->sessions;
        limited.max = d->window;
        break;
    case BH_LIMITED_BY_HOST:
        host = host_find(s, &limited.host);
        count_shared(&limited, host != NULL ? &host->limit : NULL, d->policy.per_host_max);
        break;
    case BH_LIMITED_BY_CONNECTOR:
        count_shared(&limited, &d->connector->limit, d->policy.connections_max);
        break;
    case BH_LIMITED_BY_TOTAL:
        count_shared(&limited, &s->limit, s->params.sessions_max);
        break;
    case BH_LIMITED_BY_NOTHING:
    case BH_LIMITED_BY_RATE:
    case BH_LIMITED_BY_MEMORY:
    case BH_LIMITED_BY_FIRST:
    case BH_LIMITED_BY_TRIAL:
    case BH_LIMITED_BY_AVOIDED:
    case BH_LIMITED_BY_REST:
        break;
    }
    return limited;
}

bool bh_sched_info(const struct bh_sched *s, uint32_t destination, struct bh_sched_dest_info *info)
{
    const struct dest *d = dest_find(s, destination);
    if (d == NULL) {
        return false;
    }
    *info = (struct bh_sched_dest_info){
        .items = d->items + d->detours,
        .leased = d->leased_count,
        .sessions = d->sessions,
        .window = d->window,
        .fresh = d->fresh_items,
        .held = d->held,
        .parked = d->parked,
        .resolving = d->resolving,
        .slowed = d->slow_max > 0 && d->slow_until_ms > s->now.mono_ms,
        .backoff_until_unix_ms =
            d->backoff_until_unix_ms > s->now.unix_ms ? d->backoff_until_unix_ms : 0,
        .next_due_unix_ms = d->next_due_unix_ms,
        .limited = limited_of(s, d),
        .said = d->said.at_unix_ms != 0 ? &d->said : NULL,
    };
    if (!flow_told(s, d, &info->left, &info->left_ms)) {
        info->left = 0;
        info->left_ms = 0;
    }
    return true;
}
