#include "sched_internal.h"

/* In clear, where TLS is broken and nothing demands it: only what is old enough (DESIGN 6). For as
 * long as an address that failed is avoided, sessions of the site are opened in clear, for
 * destinations that have such mail; then TLS is tried anew, for it may be well again. A destination
 * all of whose mail is too young backs off: it costs one round of attempts an interval, however
 * many messages wait, and none of them is written. */

bool site_is_clear(const struct bh_sched *s, const struct site *site)
{
    return site->clear_until_ms > s->now.mono_ms;
}

bool clear_may_go(const struct bh_sched *s, const struct bh_sched_item *item)
{
    return item->clear_from_unix_ms <= s->now.unix_ms;
}

uint32_t clear_count(const struct bh_sched *s, const struct dest *d, uint32_t most)
{
    uint32_t count = 0;
    for (const struct bh_sched_item *i = d->first; i != NULL && count < most; i = i->next) {
        count += clear_may_go(s, i) ? 1 : 0;
    }
    return count;
}

int64_t clear_first(const struct dest *d, bool *never)
{
    int64_t first = INT64_MAX;
    *never = false;
    for (const struct bh_sched_item *i = d->first; i != NULL; i = i->next) {
        *never = *never || i->clear_from_unix_ms == INT64_MAX;
        first = i->clear_from_unix_ms < first ? i->clear_from_unix_ms : first;
    }
    return first;
}

void clear_close_idle(struct bh_sched *s, struct site *site)
{
    struct link *next = NULL;
    for (struct link *link = site->idle; link != NULL; link = next) {
        struct session *session = BH_CONTAINER(link, struct session, idle_site);
        next = link->next;
        if (session->clear) {
            (void)sched_session_close(s, session);
        }
    }
}

/* Somebody stands there who got ready in another way: there is no need. */
static bool is_served(const struct site *site)
{
    bool served = false;
    for (const struct session *i = site->sessions; i != NULL && !served; i = i->site_next) {
        served = !i->clear && (i->state == SESSION_IDLE || i->state == SESSION_BUSY);
    }
    return served;
}

bool bh_sched_go_clear(struct bh_sched *s, uint32_t destination, const struct bh_outcome *outcome,
                       struct bh_now now)
{
    const struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL || d->site == NULL || is_served(d->site)) {
        return false;
    }
    struct site *site = d->site;
    site->clear_until_ms = now.mono_ms + penalty_ms(d);
    site->failed = true;
    site->false_starts = 0; /* it was a try of its own, and the last one */
    sched_keep_said(&site->said, outcome, now.unix_ms);
    return true;
}

bool bh_sched_is_clear(const struct bh_sched *s, uint32_t destination)
{
    const struct dest *d = dest_find(s, destination);
    return d != NULL && d->site != NULL && site_is_clear(s, d->site);
}

void bh_sched_session_in_clear(struct bh_sched *s, uint32_t session_id)
{
    struct session *session = session_find(s, session_id);
    if (session != NULL) {
        session->clear = true;
    }
}
