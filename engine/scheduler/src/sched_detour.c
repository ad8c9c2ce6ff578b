#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

/* Detours: items that some hosts of their plan can't take, for want of an extension (REQUIRETLS,
 * RFC 8689 section 4.2.1; SMTPUTF8). Each remembers which hosts those are, so that neither an open
 * session nor the order of the plan brings it back to one of them, while all other mail goes there
 * as before.
 *
 *  1. they wait in a list of their own, beside the window
 *  2. whatever session is idle at a host that may take one leases it
 *  3. else a session is opened, one at a time for a destination, to hosts that may; it carries
 *     detours alone, and closes once none is left for it
 *  4. where no such host is left to try now, the item waits in the window again and forgets; its
 *     next refusal finds those hosts avoided, and is told so: LATER
 */

#define DETOURS_MAX 64 /* of a destination; what is more waits by the message's own schedule */

uint64_t host_name(const struct bh_sched_address *address)
{
    return address->name != 0
               ? address->name
               : bh_hash(bh_slice(address->ip.bytes, sizeof(address->ip.bytes)), address->port);
}

bool detour_can_take(const struct bh_sched_item *item, uint64_t name)
{
    for (uint32_t i = 0; item->unfit != NULL && i < item->unfit->count; i++) {
        if (item->unfit->names[i] == name) {
            return false;
        }
    }
    return true;
}

void detour_add(struct dest *d, struct bh_sched_item *item, bool front)
{
    BH_ASSERT(d->site != NULL && !item->fresh);
    item->next = front ? d->detour_first : NULL;
    item->prev = NULL;
    if (front) {
        d->detour_first = item;
        d->detour_last = item->next == NULL ? &item->next : d->detour_last;
    } else {
        *d->detour_last = item;
        d->detour_last = &item->next;
    }
    if (d->detours++ == 0) {
        link_push(&d->site->detouring, &d->detour_link);
    }
}

void detour_remove(struct dest *d, struct bh_sched_item *item)
{
    struct bh_sched_item **at = &d->detour_first;
    while (*at != item) {
        at = &(*at)->next; /* at most DETOURS_MAX, and as many as a lease gives back */
    }
    *at = item->next;
    if (item->next == NULL) {
        d->detour_last = at;
    }
    item->next = NULL;
    BH_ASSERT(d->detours > 0);
    if (--d->detours == 0) {
        link_remove(&d->detour_link);
    }
}

void detour_end_all(struct bh_sched *s, struct dest *d)
{
    while (d->detour_first != NULL) {
        item_end_detour(s, d, d->detour_first);
    }
}

enum bh_sched_elsewhere bh_sched_item_unfit(struct bh_sched *s, struct bh_sched_item *item)
{
    const struct dest *d = dest_find(s, item->destination);
    const struct session *session = item->session != 0 ? session_find(s, item->session) : NULL;
    enum bh_sched_elsewhere elsewhere = BH_ELSEWHERE_NONE;
    BH_ASSERT(d != NULL && item->leased);
    if (session == NULL || d->site == NULL) {
        return BH_ELSEWHERE_LATER; /* its plan has changed: nothing can be said */
    }
    if (item->unfit == NULL) {
        item->unfit = calloc(1, sizeof(*item->unfit));
        if (item->unfit == NULL) {
            return BH_ELSEWHERE_LATER;
        }
    }
    if (detour_can_take(item, session->name) && item->unfit->count < BH_SITE_HOSTS_MAX) {
        item->unfit->names[item->unfit->count++] = session->name;
    }
    for (uint32_t i = 0; i < d->site->address_count; i++) {
        const struct site_address *a = &d->site->addresses[i];
        if (detour_can_take(item, host_name(&a->address))) {
            if (!site_avoids(s, a) && d->detours < DETOURS_MAX) {
                return BH_ELSEWHERE_NOW;
            }
            elsewhere = BH_ELSEWHERE_LATER;
        }
    }
    return elsewhere;
}

/* Idle sessions take what they can. */
static void lease_to(struct bh_sched *s, struct dest *d, struct link *idle)
{
    while (idle != NULL && d->detours > 0) {
        struct link *next = idle->next;
        (void)lease_detours(s, d, BH_CONTAINER(idle, struct session, idle_site));
        idle = next;
    }
}

/* For the first of those that no session takes: the others may go with it. */
static void open_for(struct bh_sched *s, struct dest *d)
{
    while (d->detour_first != NULL && d->detours_opening == 0) {
        bool none = false;
        struct bh_sched_item *item = d->detour_first;
        if (open_detour(s, d, item, &none) || !none) {
            return;
        }
        item_end_detour(s, d, item);
        if (!d->in_turn) {
            site_turn_add(d->site, d);
        }
    }
}

void detour_step_site(struct bh_sched *s, struct site *site)
{
    struct link *next = NULL;
    for (struct link *link = site->detouring; link != NULL; link = next) {
        struct dest *d = BH_CONTAINER(link, struct dest, detour_link);
        next = link->next;
        if (dest_may_run(s, d)) {
            lease_to(s, d, site->idle_detours);
            lease_to(s, d, site->idle);
            open_for(s, d);
        }
    }
    while (site->idle_detours != NULL &&
           sched_session_close(s, BH_CONTAINER(site->idle_detours, struct session, idle_site))) {
    }
}
