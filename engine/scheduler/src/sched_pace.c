#include "sched_internal.h"

/* How fast a destination may go: connections that it has asked us to spare, and the breaker; and
 * how fast it went.
 *
 * The breaker counts messages that were answered in two halves of its window; the older half is
 * dropped when the newer one is full, so that between half a window and a whole one counts. It
 * opens when enough were refused by policy and they dominate: the destination is held, and what it
 * refused from then on is kept. When the hold ends it is half open: one message at a time, until
 * one is answered. That one closes it, or opens it again. */

#define SLOW_STEP_MS 60000 /* without such a reply, for one connection more */
#define SLOW_WISH_MS 10000 /* such replies within this time are one */

/* ---- fewer connections ---- */

static uint32_t floor_of(const struct dest *d)
{
    const uint32_t at_least =
        d->policy.per_destination_floor > 0 ? d->policy.per_destination_floor : 1;
    return at_least < d->policy.per_destination_max ? at_least : d->policy.per_destination_max;
}

void pace_shrink(struct dest *d)
{
    const uint32_t at_least = floor_of(d);
    const uint32_t half = d->window / 2;
    if (d->window > at_least) {
        d->window = half > at_least ? half : at_least;
    }
}

uint32_t pace_window_max(struct bh_sched *s, struct dest *d)
{
    const uint32_t max = d->policy.per_destination_max;
    while (d->slow_max > 0 && d->slow_until_ms <= s->now.mono_ms) {
        d->slow_max++;
        d->slow_until_ms += SLOW_STEP_MS;
        if (d->slow_max >= max) {
            d->slow_max = 0;
        }
    }
    return d->slow_max > 0 && d->slow_max < max ? d->slow_max : max;
}

void bh_sched_slow(struct bh_sched *s, uint32_t destination, struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL) {
        return;
    }
    /* The replies to what was under way together are one wish. */
    if (d->slow_max == 0 || now.mono_ms + SLOW_STEP_MS >= d->slow_until_ms + SLOW_WISH_MS) {
        pace_shrink(d);
        d->slow_until_ms = now.mono_ms + SLOW_STEP_MS;
    }
    d->slow_max = d->window;
}

/* ---- what leaves ---- */

#define FLOW_HALF_MS 150000
#define FLOW_LEAST_MS 1000

void flow_turn(const struct bh_sched *s, struct dest *d)
{
    struct flow *f = &d->flow;
    if (f->idle_ms > 0) {
        const uint64_t idle = s->now.mono_ms - f->idle_ms;
        f->since_ms += f->slot_ms > 0 ? idle : 0;
        f->slot_ms += f->slot_ms > 0 ? idle : 0;
        f->idle_ms = 0;
    } else {
        f->idle_ms = sched_mark(s);
    }
}

/* The first one only says when it began. */
void flow_count(const struct bh_sched *s, struct dest *d)
{
    struct flow *f = &d->flow;
    const uint64_t now = sched_mark(s);
    if (f->slot_ms == 0 || now - f->slot_ms >= (uint64_t)2 * FLOW_HALF_MS) {
        *f = (struct flow){.since_ms = now, .slot_ms = now, .idle_ms = f->idle_ms};
        return;
    }
    if (now - f->slot_ms >= FLOW_HALF_MS) {
        f->older = f->newer;
        f->newer = 0;
        f->since_ms = f->slot_ms;
        f->slot_ms += FLOW_HALF_MS;
    }
    f->newer++;
}

bool flow_told(const struct bh_sched *s, const struct dest *d, uint32_t *left, uint64_t *ms)
{
    const struct flow *f = &d->flow;
    const uint64_t now = f->idle_ms > 0 ? f->idle_ms : s->now.mono_ms;
    *left = f->older + f->newer;
    *ms = f->slot_ms > 0 ? now - f->since_ms : 0;
    return f->slot_ms > 0 &&
           now - f->slot_ms<(uint64_t)2 * FLOW_HALF_MS && * ms >= FLOW_LEAST_MS && * left> 0;
}

/* ---- the breaker ---- */

static void count(struct bh_sched *s, struct dest *d, bool refused)
{
    struct breaker *b = &d->breaker;
    const uint64_t half = d->policy.breaker_window_ms / 2;
    const uint64_t now = sched_mark(s);
    if (b->slot_ms == 0 || now - b->slot_ms >= 2 * half) {
        b->older = (struct breaker_count){0};
        b->newer = (struct breaker_count){0};
        b->slot_ms = now;
    } else if (now - b->slot_ms >= half) {
        b->older = b->newer;
        b->newer = (struct breaker_count){0};
        b->slot_ms += half;
    }
    b->newer.answered++;
    b->newer.refused += refused ? 1 : 0;
}

static bool dominates(const struct dest *d)
{
    const struct breaker *b = &d->breaker;
    const uint64_t refused = (uint64_t)b->newer.refused + b->older.refused;
    const uint64_t answered = (uint64_t)b->newer.answered + b->older.answered;
    return refused >= d->policy.breaker_refusals &&
           refused * 100 >= answered * d->policy.breaker_share;
}

/* @return false for want of memory: the next refusal opens it */
static bool open_breaker(struct bh_sched *s, struct dest *d, const struct bh_outcome *refused)
{
    struct breaker *b = &d->breaker;
    struct bh_sched_action *action = sched_emit(s, BH_SCHED_BREAK, d->id);
    if (action == NULL) {
        return false;
    }
    action->count = b->newer.refused + b->older.refused;
    action->stage = b->newer.answered + b->older.answered;
    action->until_unix_ms = s->now.unix_ms + (int64_t)d->policy.breaker_hold_ms;
    sched_keep_said(&d->said, refused, s->now.unix_ms);
    b->state = BREAKER_OPEN;
    b->slot_ms = 0;
    d->held = true;
    d->window = 1;
    dest_step(s, d);
    return true;
}

void pace_released(struct dest *d)
{
    if (d->breaker.state == BREAKER_OPEN) {
        d->breaker.state = BREAKER_HALF;
        d->window = 1;
    }
}

bool pace_waits(const struct dest *d)
{
    return d->breaker.state == BREAKER_HALF && d->leased_count > 0;
}

bool bh_sched_answer(struct bh_sched *s, uint32_t destination, const struct bh_outcome *refused,
                     struct bh_now now)
{
    struct dest *d = dest_find(s, destination);
    s->now = now;
    if (d == NULL || d->policy.breaker_refusals == 0) {
        return false;
    }
    struct breaker *b = &d->breaker;
    switch (b->state) {
    case BREAKER_OPEN:
        return refused != NULL;
    case BREAKER_HALF:
        count(s, d, refused != NULL);
        if (refused != NULL) {
            (void)open_breaker(s, d, refused);
            return true;
        }
        b->state = BREAKER_CLOSED;
        return false;
    case BREAKER_CLOSED:
        break;
    }
    count(s, d, refused != NULL);
    if (refused == NULL || !dominates(d)) {
        return false;
    }
    (void)open_breaker(s, d, refused);
    return true;
}
