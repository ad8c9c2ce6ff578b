#include "sched_internal.h"

/* What others may ask of the items here. */

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
