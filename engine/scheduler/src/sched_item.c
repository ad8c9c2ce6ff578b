#include "sched_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/wire.h"

/* Items. Each is in `known` by destination, id and part for as long as it is in memory, so that a
 * refill, whose store still shows it, never brings it twice. What is answered while a refill is
 * under way stays known until that refill has come: the reader may have looked before the commit.
 */

static void make_key(unsigned char key[14], uint32_t destination, uint64_t id, uint16_t part)
{
    bh_put_be32(key, destination);
    bh_put_be64(key + 4, id);
    bh_put_be16(key + 12, part);
}

struct bh_sched_item *item_find(const struct bh_sched *s, uint32_t destination, uint64_t id,
                                uint16_t part)
{
    unsigned char key[14];
    make_key(key, destination, id, part);
    struct bh_map_node *node = bh_map_find(&s->known, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct bh_sched_item, node) : NULL;
}

enum bh_status item_add(struct bh_sched *s, struct dest *d, const struct bh_sched_item *item,
                        bool *added)
{
    *added = false;
    if (item_find(s, d->id, item->id, item->part) != NULL) {
        return BH_OK;
    }
    struct bh_sched_item *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        return BH_ENOMEM;
    }
    *copy = *item;
    copy->destination = d->id;
    copy->session = 0;
    copy->leased = false;
    copy->answered = false;
    copy->settled = false;
    copy->unfit = NULL;
    copy->next = NULL;
    copy->prev = NULL;
    make_key(copy->key, d->id, copy->id, copy->part);
    copy->node = (struct bh_map_node){.key = bh_slice(copy->key, sizeof(copy->key))};
    if (bh_map_insert(&s->known, &copy->node) != BH_OK) {
        free(copy);
        return BH_ENOMEM;
    }
    *d->last = copy;
    d->last = &copy->next;
    d->items++;
    d->fresh_items += copy->fresh ? 1 : 0;
    s->items++;
    flow_look(s, d);
    *added = true;
    return BH_OK;
}

/* It is in no list any more. */
static void free_item(struct bh_sched *s, struct bh_sched_item *item)
{
    if (!item->settled) {
        BH_ASSERT(s->items > 0);
        s->items--;
    }
    bh_map_remove(&s->known, &item->node);
    free(item->unfit);
    free(item);
}

/* Take a waiting item out of the window; mostly it is the first. */
static struct bh_sched_item *take_out(struct dest *d, struct bh_sched_item *item)
{
    struct bh_sched_item **at = &d->first;
    while (*at != item) {
        at = &(*at)->next;
    }
    *at = item->next;
    if (item->next == NULL) {
        d->last = at;
    }
    BH_ASSERT(d->items > 0);
    d->items--;
    d->fresh_items -= item->fresh ? 1 : 0;
    item->next = NULL;
    return item;
}

/* It is in no list. */
static void become_leased(struct bh_sched *s, struct dest *d, struct bh_sched_item *item,
                          struct session *session)
{
    item->next = d->leased;
    item->prev = NULL;
    if (d->leased != NULL) {
        d->leased->prev = item;
    }
    d->leased = item;
    item->leased = true;
    d->leased_count++;
    s->leased++;
    item->session = session != NULL ? session->id : 0;
    if (session != NULL) {
        session->leased++;
        s->lease_bytes += item->size;
    }
}

void item_lease(struct bh_sched *s, struct dest *d, struct bh_sched_item *item,
                struct session *session)
{
    become_leased(s, d, take_out(d, item), session);
}

void item_lease_detour(struct bh_sched *s, struct dest *d, struct bh_sched_item *item,
                       struct session *session)
{
    detour_remove(d, item);
    become_leased(s, d, item, session);
}

void item_end_detour(struct bh_sched *s, struct dest *d, struct bh_sched_item *item)
{
    (void)s;
    detour_remove(d, item);
    free(item->unfit);
    item->unfit = NULL;
    *d->last = item;
    d->last = &item->next;
    d->items++;
}

static void drop_detours(struct bh_sched *s, struct dest *d)
{
    while (d->detour_first != NULL) {
        struct bh_sched_item *item = d->detour_first;
        detour_remove(d, item);
        d->has_entries = true;
        free_item(s, item);
    }
}

void item_drop_window(struct bh_sched *s, struct dest *d)
{
    while (d->first != NULL) {
        if (d->first->fresh) {
            struct bh_sched_action *action = sched_emit(s, BH_SCHED_DEMOTE, d->id);
            if (action == NULL) {
                return;
            }
            action->count = 1;
            action->item = *d->first;
            action->item.next = NULL;
            action->item.unfit = NULL;
            action->item.node = (struct bh_map_node){0};
        }
        d->has_entries = true;
        free_item(s, take_out(d, d->first));
    }
    drop_detours(s, d);
    if (d->in_turn) {
        site_turn_remove(d->site, d);
    }
}

void item_forget_settled(struct bh_sched *s, struct dest *d)
{
    while (d->settled != NULL) {
        struct bh_sched_item *item = d->settled;
        d->settled = item->next;
        free_item(s, item);
    }
}

void item_free_all(struct bh_sched *s, struct dest *d)
{
    while (d->first != NULL) {
        free_item(s, take_out(d, d->first));
    }
    drop_detours(s, d);
    while (d->leased != NULL) {
        struct bh_sched_item *item = d->leased;
        d->leased = item->next;
        free_item(s, item);
    }
    item_forget_settled(s, d);
}

/* Answers */

/* Take a leased item out of its destination's list. */
static struct dest *unlease(struct bh_sched *s, struct bh_sched_item *item,
                            struct session **session)
{
    struct dest *d = dest_find(s, item->destination);
    BH_ASSERT(d != NULL && d->leased_count > 0 && s->leased > 0);
    BH_ASSERT(item->leased && !item->settled);
    item->leased = false;
    if (item->prev != NULL) {
        item->prev->next = item->next;
    } else {
        BH_ASSERT(d->leased == item);
        d->leased = item->next;
    }
    if (item->next != NULL) {
        item->next->prev = item->prev;
    }
    item->next = NULL;
    item->prev = NULL;
    d->leased_count--;
    s->leased--;
    *session = NULL;
    if (item->session != 0) {
        *session = session_find(s, item->session);
        BH_ASSERT(s->lease_bytes >= item->size);
        if (!item->answered) {
            BH_ASSERT(*session != NULL && (*session)->leased > 0);
            (*session)->leased--;
        }
        item->answered = false;
        s->lease_bytes -= item->size;
    }
    return d;
}

void bh_sched_item_answered(struct bh_sched *s, struct bh_sched_item *item)
{
    struct session *session = item->session != 0 ? session_find(s, item->session) : NULL;
    BH_ASSERT(item->leased && !item->answered);
    if (session != NULL) {
        BH_ASSERT(session->leased > 0);
        session->leased--;
        item->answered = true;
    }
}

/* It leaves memory; where a refill may still bring it, its name stays until then. */
static void settle(struct bh_sched *s, struct dest *d, struct bh_sched_item *item)
{
    if (!d->refilling) {
        free_item(s, item);
        return;
    }
    BH_ASSERT(s->items > 0);
    s->items--;
    item->settled = true;
    item->next = d->settled;
    d->settled = item;
}

static void succeeded(struct bh_sched *s, struct dest *d, struct session *session)
{
    if (session != NULL) {
        session_proven(s, session, d);
    }
    d->streak = 0;
    d->streak_several = false;
    d->success_ms = sched_mark(s);
    flow_count(s, d);
    if (d->young && d->backoff_until_unix_ms > s->now.unix_ms) {
        d->stage = 0; /* what went in clear has ended; the rest waits as it did */
        d->glitches = 0;
    } else if (d->was_failing && sched_emit(s, BH_SCHED_RECOVERED, d->id) != NULL) {
        d->was_failing = false;
        d->parked = false;
        d->by_site = false;
        d->stage = 0;
        d->glitches = 0;
        d->backoff_until_unix_ms = 0;
    }
}

static void deferred(struct bh_sched *s, struct dest *d, uint64_t sender_hash,
                     const struct bh_outcome *outcome)
{
    if (d->streak > 0 && d->streak_sender != sender_hash) {
        d->streak_several = true;
    }
    d->streak_sender = sender_hash;
    d->streak++;
    if (d->streak >= STREAK_MAX && d->streak_several && outcome != NULL) {
        dest_failed(s, d, BH_SCHED_THEIRS, outcome, false);
    }
}

void bh_sched_item_done(struct bh_sched *s, struct bh_sched_item *item, enum bh_sched_signal signal,
                        uint64_t sender_hash, const struct bh_outcome *outcome, struct bh_now now)
{
    struct session *session = NULL;
    s->now = now;
    struct dest *d = unlease(s, item, &session);
    d->in_vain = false;
    settle(s, d, item);
    if (outcome != NULL) {
        sched_keep_said(&d->said, outcome, now.unix_ms);
    }
    switch (signal) {
    case BH_SIGNAL_SUCCESS:
        succeeded(s, d, session);
        break;
    case BH_SIGNAL_DEFERRED:
        deferred(s, d, sender_hash, outcome);
        break;
    case BH_SIGNAL_NONE:
        break;
    }
    dest_step(s, d);
    site_step_blocked(s, 1); /* memory came free */
}

void bh_sched_item_detour(struct bh_sched *s, struct bh_sched_item *item,
                          const struct bh_outcome *outcome, struct bh_now now)
{
    struct session *session = NULL;
    s->now = now;
    struct dest *d = unlease(s, item, &session);
    if (outcome != NULL) {
        sched_keep_said(&d->said, outcome, now.unix_ms);
    }
    item->fresh = false;
    item->session = 0;
    if (item->unfit == NULL || d->site == NULL || !dest_may_run(s, d)) {
        d->has_entries = true;
        settle(s, d, item);
    } else {
        detour_add(d, item, false);
    }
    dest_step(s, d);
    site_step_blocked(s, 1);
}

/* The message did not go: neither its session nor any rate is charged for it. */
static void uncharge(struct bh_sched *s, struct dest *d, struct session *session,
                     uint32_t recipients)
{
    if (session == NULL) {
        return;
    }
    BH_ASSERT(session->messages > 0);
    session->messages--;
    rate_return_message(s, d, session, recipients);
}

void bh_sched_item_returned(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now)
{
    struct session *session = NULL;
    s->now = now;
    struct dest *d = unlease(s, item, &session);
    uncharge(s, d, session, item->recipients);
    item->session = 0;
    if (item->unfit != NULL && !item->fresh && d->site != NULL) {
        detour_add(d, item, true);
    } else {
        item->next = d->first;
        d->first = item;
        if (d->last == &d->first) {
            d->last = &item->next;
        }
        d->items++;
        d->fresh_items += item->fresh ? 1 : 0;
    }
    if (session == NULL) {
        dest_step(s, d);
    } /* else the end of the session, or of its lease, is told next: not a new session meanwhile */
}

static void leave(struct bh_sched *s, struct bh_sched_item *item, bool skipped, struct bh_now now)
{
    struct session *session = NULL;
    s->now = now;
    struct dest *d = unlease(s, item, &session);
    uncharge(s, d, session, item->recipients);
    d->in_vain = skipped;
    settle(s, d, item);
    dest_step(s, d);
    site_step_blocked(s, 1);
}

void bh_sched_item_gone(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now)
{
    leave(s, item, false, now);
}

void bh_sched_item_skipped(struct bh_sched *s, struct bh_sched_item *item, struct bh_now now)
{
    leave(s, item, true, now);
}
