/* Sessions of the engine: opened, given work, closed; and what comes back from them. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/wire.h"
#include "probe.h"

/* Content that one reader loads in one go; more is shared out. A thousand domains make leases of a
 * message each, and a reader that is woken for each of them wakes us as often. */
#define LOADED_TOGETHER_MAX BH_LEASE_BYTES_MAX

static struct session_info *find_session(struct engine *e, uint32_t id)
{
    unsigned char key[4];
    bh_put_be32(key, id);
    struct bh_map_node *node = bh_map_find(&e->sessions, bh_slice(key, sizeof(key)));
    return node != NULL ? BH_CONTAINER(node, struct session_info, node) : NULL;
}

/* ---- opening ---- */

static struct session_info *make_session(struct engine *e, const struct bh_sched_action *action,
                                         struct dest_info *d, const struct bh_connector *c)
{
    struct worker_session *s = calloc(1, sizeof(*s));
    struct session_info *info = calloc(1, sizeof(*info));
    if (s == NULL || info == NULL) {
        free(s);
        free(info);
        return NULL;
    }
    s->id = action->session;
    s->number = ++e->next_number;
    s->destination = d->id;
    s->config = bh_config_ref(e->config);
    s->connector = c;
    s->lifted = elift_is(d->id);
    s->small_hello = d->tls_step == TLS_STEP_SMALL;
    s->clear = bh_sched_is_clear(e->sched, d->id); /* at the hosts whose demand allows it */
    info->worker = s;
    bh_put_be32(info->key, s->id);
    info->node.key = bh_slice(info->key, sizeof(info->key));
    if (etls_fill_session(s, d, action) != BH_OK ||
        bh_map_insert(&e->sessions, &info->node) != BH_OK) {
        bh_arena_fini(&s->demands);
        bh_config_unref(s->config);
        free(s);
        free(info);
        return NULL;
    }
    return info;
}

void outgoing_open(struct engine *e, const struct bh_sched_action *action)
{
    struct dest_info *d = edest_get(e, action->destination);
    const struct bh_connector *c = d != NULL ? edest_connector(e, d) : NULL;
    struct session_info *info = c != NULL ? make_session(e, action, d, c) : NULL;
    if (info == NULL) {
        const struct bh_outcome outcome = {
            .stage = BH_STAGE_CONNECT,
            .happened = c != NULL ? BH_HAPPENED_OUR_RESOURCE : BH_HAPPENED_OUR_CONFIG,
            .text = c != NULL ? BH_LIT("no memory for a session")
                              : BH_LIT("its connector is gone from the configuration")};
        bh_sched_session_closed(e->sched, action->session, NULL, 0, BH_SCHED_OURS, &outcome,
                                engine_now(e));
        return;
    }
    struct worker *worker = e->options.workers[e->next_worker++ % e->options.worker_count];
    for (uint32_t i = 0; i < info->worker->address_count; i++) {
        ecareful_with(e, &info->worker->addresses[i], &info->worker->hosts[i]);
    }
    worker_open(worker, info->worker);
}

void outgoing_close(struct engine *e, uint32_t id)
{
    struct session_info *info = find_session(e, id);
    if (info != NULL) {
        info->closing = true;
        worker_close(info->worker);
    }
}

void outgoing_close_all(struct engine *e)
{
    for (struct bh_map_node *node = bh_map_next(&e->sessions, NULL); node != NULL;
         node = bh_map_next(&e->sessions, node)) {
        struct session_info *info = BH_CONTAINER(node, struct session_info, node);
        info->closing = true;
        worker_close(info->worker);
    }
}

/* ---- leases ---- */

static void on_loaded_elsewhere(struct lease *lease)
{
    struct engine *e = lease->owner;
    lease->letter.kind = ENGINE_LEASE_LOADED;
    bh_mailbox_post_always(e->box, &lease->letter);
}

/* An entry that is leased twice at a time would be delivered twice: whatever else is wrong, not
 * that. */
static bool claim(struct engine *e, struct lease_item *item)
{
    const enum bh_status status = leased_add(e->options.leased, item->key, LEASED_BY_SESSION);
    if (status != BH_OK) {
        return false;
    }
    item->slot = bh_inflight_take(e->options.inflight);
    if (item->slot == UINT32_MAX) {
        leased_remove(e->options.leased, item->key);
        return false;
    }
    const struct bh_inflight_slot slot = {.state = BH_INFLIGHT_LEASED, .key = item->key};
    bh_inflight_set(e->options.inflight, item->slot, &slot);
    return true;
}

/* Fresh mail that leaves memory without an end is in no other list: its lane is read again. */
static void look_again(struct engine *e, bool fresh)
{
    if (fresh) {
        atomic_store(&e->lost_notes, true);
    }
}

/* Nothing of it can be leased now. With a session it goes back to its window; without one it would
 * be handed over again at once, so the store brings it back, with the next look at its lists. */
static void return_all(struct engine *e, const struct bh_sched_action *action)
{
    for (uint32_t i = action->count; i > 0; i--) {
        struct bh_sched_item *item = action->items[i - 1];
        if (action->session != 0) {
            bh_sched_item_returned(e->sched, item, engine_now(e));
        } else {
            look_again(e, item->fresh);
            bh_sched_item_skipped(e->sched, item, engine_now(e));
        }
    }
    outgoing_close(e, action->session); /* idle, it would be given the same again at once */
}

/* With a session: what it has shown. Without one nothing is sent, and the records say what would
 * have been wanted. */
static void want_tls(struct engine *e, const struct dest_info *d, const struct session_info *info,
                     struct lease *lease)
{
    const struct bh_connector *c = edest_connector(e, d);
    bool lapsed = false;
    if (info != NULL) {
        lease->tls = info->worker->seen;
    } else if (c != NULL) {
        tls_seen_want(&lease->tls, bh_connector_tls_demand(c, engine_now(e).unix_ms, &lapsed),
                      BH_LIT("connector"));
    }
}

/* It goes on for one lease: broken TLS is not remembered (DESIGN 6), so the next session tries it
 * anew. */
static bool is_clear_fallback(const struct worker_session *s)
{
    return s->clear && s->seen.proof == TLS_PROOF_CLEAR;
}

static uint64_t bytes_of(const struct bh_sched_action *action)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < action->count; i++) {
        bytes += action->items[i]->size;
    }
    return bytes;
}

/* A destination whose items come next; NULL: it can't be leased to this session. */
static struct lease_part *add_part(struct engine *e, struct lease *lease,
                                   const struct session_info *info, uint32_t sched_id)
{
    struct dest_info *d = edest_get(e, sched_id);
    const bool lifted = elift_is(sched_id);
    /* What a session has proved must be what this destination demands of its host today. Nothing
     * ends beside its destination's own rounds. */
    const bool can = d != NULL && (lease->session == 0 ? !lifted
                                                       : etls_session_serves(info->worker, d) &&
                                                             info->worker->lifted == lifted);
    struct lease_part *part =
        can ? lease_add_part(lease, d->domain, d->connector,
                             info != NULL ? info->worker->connector->name : efail_carrier(d))
            : NULL;
    if (part == NULL) {
        return NULL;
    }
    part->destination = elift_store_id(sched_id);
    part->sched_id = sched_id;
    part->lifted = lifted;
    part->early_ms = lifted ? (int64_t)d->policy.retry.glitch_ms : 0;
    if (lease->session != 0) {
        part->dns_ms = d->dns_ms;
        d->dns_ms = 0;
    }
    if (lease->part_count == 1) {
        want_tls(e, d, info, lease);
    }
    return part;
}

static void add_item(struct engine *e, struct lease *lease, struct lease_part *part,
                     struct bh_sched_item *sched)
{
    struct lease_item *item = &lease->items[lease->count];
    *item = (struct lease_item){
        .lease = lease,
        .part = part,
        .sched = sched,
        .key = {.destination = part->destination, .id = sched->id, .part = sched->part},
        .at = {.destination = part->destination, .id = sched->id, .part = sched->part},
        .lane = sched->fresh ? BH_LANE_FRESH : BH_LANE_ENTRY};
    if (claim(e, item)) {
        lease->count++;
    } else {
        look_again(e, sched->fresh);
        bh_sched_item_skipped(e->sched, sched, engine_now(e));
    }
}

/* Destinations that this session does not serve get theirs back: they find a session of their own
 * once no other has work for this one. @return false: it serves none of them; nothing was done */
static bool add_items(struct engine *e, struct lease *lease, const struct session_info *info,
                      const struct bh_sched_action *action)
{
    struct lease_part *parts[BH_LEASE_ITEMS_MAX];
    for (uint32_t i = 0; i < action->count; i++) {
        const uint32_t of = action->items[i]->destination;
        const bool same = i > 0 && action->items[i - 1]->destination == of;
        parts[i] = same ? parts[i - 1] : add_part(e, lease, info, of);
    }
    if (lease->part_count == 0) {
        return false;
    }
    for (uint32_t i = 0; i < action->count; i++) {
        if (parts[i] != NULL) {
            add_item(e, lease, parts[i], action->items[i]);
        }
    }
    for (uint32_t i = action->count; i > 0; i--) { /* each to the front of its window */
        if (parts[i - 1] == NULL) {
            bh_sched_item_returned(e->sched, action->items[i - 1], engine_now(e));
        }
    }
    return true;
}

static struct lease *make_lease(struct engine *e, const struct session_info *info,
                                const struct bh_sched_action *action)
{
    struct lease *lease =
        lease_create(e->config, action->count, action->session != 0 ? bytes_of(action) : 0);
    if (lease == NULL) {
        return NULL;
    }
    lease->session = action->session;
    lease->clear_fallback = info != NULL && is_clear_fallback(info->worker);
    lease->now_unix_ms = engine_now(e).unix_ms;
    lease->loaded = on_loaded_elsewhere;
    lease->owner = e;
    lease->inflight = e->options.inflight;
    lease->jobs = atomic_load(&e->options.leased->jobs);
    if (!add_items(e, lease, info, action)) {
        lease_destroy(lease);
        return NULL;
    }
    return lease;
}

void outgoing_lease(struct engine *e, const struct bh_sched_action *action)
{
    struct session_info *info = find_session(e, action->session);
    struct lease *lease = action->session == 0 || info != NULL ? make_lease(e, info, action) : NULL;
    if (lease == NULL) {
        return_all(e, action);
        return;
    }
    lease->open = lease->count;
    e->leases++;
    if (info != NULL) {
        BH_ASSERT(info->lease == NULL);
        info->lease = lease;
        lease->open++;
    }
    if (lease->count == 0) {
        outgoing_on_loaded(e, lease);
        return;
    }
    if (e->loading == NULL) {
        e->loading_end = &e->loading;
    }
    *e->loading_end = lease;
    e->loading_end = &lease->also;
    for (uint32_t i = 0; i < lease->count; i++) {
        e->loading_bytes += lease->items[i].sched->size;
    }
    if (e->loading_bytes >= LOADED_TOGETHER_MAX) {
        (void)outgoing_load(e); /* what fails of it is looked at by the one who pulls on */
    }
}

bool outgoing_load(struct engine *e)
{
    struct lease *lease = e->loading;
    e->loading = NULL;
    e->loading_bytes = 0;
    if (lease == NULL || lease_load(lease, e->options.store) == BH_OK) {
        return false;
    }
    while (lease != NULL) {
        struct lease *also = lease->also;
        for (uint32_t i = 0; i < lease->count; i++) {
            lease->items[i].what = LEASE_FAILED;
        }
        outgoing_on_loaded(e, lease);
        lease = also;
    }
    return true;
}

static struct judge_context context_of(struct engine *e, const struct lease_item *item,
                                       char got[TLS_SEEN_TEXT])
{
    const struct dest_info *d = edest_get(e, item->part->sched_id);
    const struct lease *lease = item->lease;
    const struct bh_connector *c = bh_config_connector(lease->config, item->part->carrier);
    if (c == NULL) {
        c = &lease->config->connectors[lease->config->connectors_count - 1];
    }
    BH_ASSERT(d != NULL);
    const struct bh_connector *rules = lease_rules(item, e->config);
    struct judge_context ctx = {
        .connector = c,
        .rules = rules != NULL ? rules : c,
        .retry = &d->policy.retry,
        .rng = &e->rng,
        .now = engine_now(e),
        .generation = lease->config->generation,
        .expiry_suspended = e->expiry_suspended,
        .route = c->route == BH_ROUTE_MX ? BH_LIT("mx") : BH_LIT("smarthosts"),
    };
    ctx.tls_wanted = bh_slice_str(lease->tls.wanted);
    ctx.tls_origin = bh_slice_str(lease->tls.origin);
    ctx.tls_reason = bh_slice_str(lease->tls.reason);
    if (lease->tls.version[0] != '\0') {
        ctx.tls_got = bh_slice_str(tls_seen_got(&lease->tls, got));
    }
    return ctx;
}

/* No session for it: its recipients end with what its destination ends with. */
static void end_item(struct engine *e, struct lease_item *item)
{
    const struct dest_info *d = edest_get(e, item->part->sched_id);
    char got[TLS_SEEN_TEXT];
    struct judge_context ctx = context_of(e, item, got);
    /* What need not meet the demand is not returned for it. */
    ctx.unmet_ends = d->unmet_ends && !(elift_wanted(e, d) && elift_takes(&item->message.envelope));
    if (judge_item_with(item, &d->end_outcome, &ctx) == BH_OK) {
        settle_add(e, item);
    } else {
        settle_skip(e, item);
    }
}

/* Younger than five minutes, or with REQUIRETLS: waits for TLS, uncharged (DESIGN 6,
 * opportunistic). That TLS is broken for now is no lack of REQUIRETLS: not a reason to return it.
 */
static void postpone(struct engine *e, struct lease_item *item)
{
    char got[TLS_SEEN_TEXT];
    const struct judge_context ctx = context_of(e, item, got);
    const bool never = item->message.envelope.requiretls;
    struct dest_info *d = edest_get(e, item->part->sched_id);
    if (d != NULL && never) {
        d->never_clear = true; /* from now on the scheduler is told which these are */
    }
    const int64_t now_ms = ctx.now.unix_ms;
    const struct bh_outcome outcome = {
        .stage = BH_STAGE_TLS,
        .happened = BH_HAPPENED_TLS_FAILED,
        .text = never ? BH_LIT("TLS is broken there; in clear never, for it has REQUIRETLS")
                      : BH_LIT("TLS is broken there; in clear only when older than 5 minutes")};
    if (item->entry.recipient_count == 0 || judge_item_with(item, &outcome, &ctx) != BH_OK) {
        settle_skip(e, item);
        return;
    }
    item->settle.charged = false;
    item->settle.remaining = BH_ENTRY_DUE;
    item->settle.due_unix_ms =
        never ? bh_retry_due(ctx.retry, item->entry.attempts + 1, ctx.rng, now_ms)
              : now_ms + CLEAR_MIN_AGE_MS - item->age_ms;
    settle_add(e, item);
}

/* Who takes over from its connector does not take this message (its sender, its size). */
static void wait_for_primary(struct engine *e, struct lease_item *item)
{
    const struct dest_info *d = edest_get(e, item->part->sched_id);
    char got[TLS_SEEN_TEXT];
    const struct judge_context ctx = context_of(e, item, got);
    const struct bh_outcome outcome = {
        .stage = BH_STAGE_ROUTE,
        .happened = BH_HAPPENED_OUR_CONFIG,
        .text = BH_LIT("its connector is down, and the one that takes over does not take it")};
    if (item->entry.recipient_count == 0 || judge_item_with(item, &outcome, &ctx) != BH_OK) {
        settle_skip(e, item);
        return;
    }
    item->settle.charged = false;
    item->settle.remaining = BH_ENTRY_DUE;
    item->settle.due_unix_ms = efail_next(d, ctx.now.unix_ms);
    settle_add(e, item);
}

/* Its session is through with it; the scheduler is told once. */
static void answered(struct engine *e, struct lease_item *item)
{
    if (!item->answered) {
        item->answered = true;
        bh_sched_item_answered(e->sched, item->sched);
    }
}

/* The session is through with the whole lease, or gone. */
static void let_go(struct engine *e, struct session_info *info)
{
    struct lease *lease = info->lease;
    if (lease == NULL) {
        return;
    }
    info->lease = NULL;
    for (uint32_t i = 0; i < lease->count; i++) {
        if (!lease->items[i].left) {
            answered(e, &lease->items[i]);
        }
    }
    lease_release(e, lease);
}

static void handle_undeliverable(struct engine *e, struct lease_item *item)
{
    switch (item->what) {
    case LEASE_DELIVER:
        break;
    case LEASE_GONE:
    case LEASE_FILTERED:
    case LEASE_FAILED: /* the next look at the wake rows brings what can be read by then */
        look_again(e, item->lane == BH_LANE_FRESH);
        settle_skip(e, item);
        break;
    case LEASE_REBIND:
        answered(e, item);
        settle_rebind(e, item);
        break;
    case LEASE_WAITS:
        answered(e, item);
        wait_for_primary(e, item);
        break;
    case LEASE_YOUNG:
        answered(e, item);
        postpone(e, item);
        break;
    }
}

static bool any_requiretls(const struct lease *lease, const struct lease_part *part)
{
    for (uint32_t i = 0; i < lease->count; i++) {
        const struct lease_item *item = &lease->items[i];
        if (item->part == part && item->what == LEASE_DELIVER &&
            item->message.envelope.requiretls) {
            return true;
        }
    }
    return false;
}

/* What it ends with is a fault of ours: it is parked instead. */
static bool parks(struct engine *e, const struct lease *lease)
{
    if (lease->session != 0 || lease->count == 0) {
        return false;
    }
    const struct dest_info *d = edest_get(e, lease->parts[0].sched_id);
    BH_ASSERT(d != NULL);
    return bh_outcome_policy(&d->end_outcome).fault != BH_FAULT_THEIRS;
}

static void give_back(struct engine *e, struct lease_item *item)
{
    item->what = LEASE_GONE;
    item->returned = true;
    settle_skip(e, item);
}

struct part_state {
    bool may;
    bool replan; /* its route is to be looked up anew */
};

/* Which destinations may still go with this session? What is demanded, and who is held, may have
 * changed since the reader looked. */
static void look_at_parts(struct engine *e, const struct lease *lease,
                          const struct session_info *info,
                          struct part_state states[BH_LEASE_ITEMS_MAX])
{
    const bool stale = lease->jobs != atomic_load(&e->options.leased->jobs);
    for (uint32_t i = 0; i < lease->part_count; i++) {
        const struct lease_part *part = &lease->parts[i];
        struct dest_info *d = edest_get(e, part->sched_id);
        BH_ASSERT(d != NULL);
        /* REQUIRETLS needs to know more of the route than anything before it. */
        const bool replan =
            lease->session != 0 && any_requiretls(lease, part) && etls_wants_route(d);
        const bool serves = !replan && info != NULL && !info->closing && !e->draining &&
                            etls_session_serves(info->worker, d);
        states[i] = (struct part_state){
            .may = !stale && !part->held && (lease->session == 0 || serves), .replan = replan};
        if (part->held) {
            bh_sched_set_held(e->sched, part->sched_id, true, engine_now(e));
        }
    }
}

/* Nothing of it goes out: the session is free again. */
static void lease_is_empty(struct engine *e, struct lease *lease, struct session_info *info)
{
    const uint32_t session = lease->session;
    if (info != NULL) {
        let_go(e, info);
    }
    if (info != NULL && is_clear_fallback(info->worker)) {
        outgoing_close(e, session);
    } else if (info == NULL || !info->closing) { /* one that closes takes no more */
        bh_sched_session_idle(e->sched, session, engine_now(e));
    }
    /* A part of which nothing was to be had is with the writer, which moves it (a reload): to look
     * again at once would be to spin until that is committed. Its wake row brings what stays. */
    for (uint32_t i = 0; i < lease->part_count; i++) {
        bool any = false;
        for (uint32_t k = 0; k < lease->count && !any; k++) {
            any = lease->items[k].part == &lease->parts[i];
        }
        if (any) {
            bh_sched_dirty(e->sched, lease->parts[i].sched_id, engine_now(e));
        }
    }
}

void outgoing_on_loaded(struct engine *e, struct lease *lease)
{
    struct session_info *info = find_session(e, lease->session);
    const uint32_t count = lease->count;
    struct part_state part_is[BH_LEASE_ITEMS_MAX] = {{0}};
    uint32_t deliverable = 0;
    const bool parked = parks(e, lease);
    lease->open++; /* holds it while we walk */
    look_at_parts(e, lease, info, part_is);
    for (uint32_t i = 0; i < count; i++) {
        struct lease_item *item = &lease->items[i];
        if (item->what != LEASE_DELIVER) {
            handle_undeliverable(e, item);
        } else if (!part_is[item->part - lease->parts].may || parked) {
            give_back(e, item);
        } else if (lease->session != 0) {
            deliverable++;
        } else {
            end_item(e, item);
        }
    }
    for (uint32_t i = 0; i < lease->part_count; i++) {
        if (part_is[i].replan) {
            bh_sched_drop_window(e->sched, lease->parts[i].sched_id, engine_now(e));
        }
    }
    if (parked) {
        const struct dest_info *d = edest_get(e, lease->parts[0].sched_id);
        bh_sched_dest_failed(e->sched, d->id, BH_SCHED_OURS, &d->end_outcome, engine_now(e));
    }
    if (lease->session != 0 && deliverable == 0) {
        lease_is_empty(e, lease, info);
    } else if (lease->session != 0) {
        worker_give(info->worker->worker, info->worker, lease);
    }
    lease_release(e, lease);
}

/* ---- what workers say ---- */

/* What its destination's row shows of TLS, from its next back-off on. */
static void note_tls(struct engine *e, const struct worker_session *s, const char *tls)
{
    struct dest_info *d = edest_get(e, s->destination);
    struct bh_slice text = bh_slice_take(bh_slice_str(tls), sizeof(d->last_tls) - 1);
    if (s->probe != NULL || d == NULL || bh_slice_eq(text, bh_slice_str(d->last_tls))) {
        return;
    }
    memcpy(d->last_tls, text.ptr, text.len);
    d->last_tls[text.len] = '\0';
}

void outgoing_on_ready(struct engine *e, struct worker_session *s)
{
    char tls[TLS_SEEN_TEXT];
    bh_log(BH_LOG_DEBUG, "evt=session_ready session=%u host=%s tls=\"%s\"", (unsigned)s->id,
           s->hosts[s->target].name, tls_seen_text(&s->seen, tls));
    if (is_clear_fallback(s)) {
        bh_sched_session_in_clear(e->sched, s->id);
    }
    bh_sched_session_ready(e->sched, s->id, &s->addresses[s->target], engine_now(e));
    note_tls(e, s, tls);
    eposture_note(e, s);
}

void outgoing_on_idle(struct engine *e, struct worker_session *s)
{
    struct session_info *info = find_session(e, s->id);
    if (info != NULL) {
        let_go(e, info);
    }
    if (is_clear_fallback(s)) {
        outgoing_close(e, s->id);
    } else {
        bh_sched_session_took(e->sched, s->id, s->took_ms);
        bh_sched_session_idle(e->sched, s->id, engine_now(e));
    }
}

/* Its host can't take it: who else could? The operator's configuration may rule out all others. */
static enum bh_sched_elsewhere elsewhere_of(struct engine *e, const struct lease_item *item,
                                            const struct bh_connector *connector)
{
    if (!judge_unfit(item, connector)) {
        return BH_ELSEWHERE_NONE;
    }
    const enum bh_sched_elsewhere elsewhere = bh_sched_item_unfit(e->sched, item->sched);
    const struct dest_info *d = edest_get(e, item->part->sched_id);
    return elsewhere == BH_ELSEWHERE_NONE && d != NULL && etls_has_later_host(d)
               ? BH_ELSEWHERE_LATER
               : elsewhere;
}

void outgoing_on_item(struct engine *e, struct lease_item *item)
{
    const struct session_info *info = find_session(e, item->lease->session);
    char got[TLS_SEEN_TEXT];
    struct judge_context ctx = context_of(e, item, got);
    const bool again = item->answered; /* for want of memory: the breaker has heard of it */
    const struct bh_outcome *refused = NULL;
    const enum judge_answer answer =
        again ? JUDGE_NO_ANSWER : judge_answer_of(item, ctx.rules, &refused);
    const enum bh_sched_elsewhere elsewhere = elsewhere_of(e, item, ctx.connector);
    answered(e, item);
    if (answer != JUDGE_NO_ANSWER) {
        item->breaker_open =
            bh_sched_answer(e->sched, item->part->sched_id, refused, engine_now(e));
    }
    ctx.breaker_open = item->breaker_open;
    ctx.elsewhere = elsewhere;
    if (judge_item(item, &ctx) != BH_OK) {
        /* It may have been delivered: it stays leased until there is memory to settle it. */
        item->next_settled = e->unjudged;
        e->unjudged = item;
    } else if (item->returned) {
        const uint32_t destination = item->part->sched_id;
        settle_skip(e, item);
        if (info == NULL) {
            /* Its session has closed already: nothing else makes the scheduler look again. */
            bh_sched_dirty(e->sched, destination, engine_now(e));
        }
    } else {
        if (item->slow) {
            bh_sched_slow(e->sched, item->part->sched_id, engine_now(e));
        }
        settle_add(e, item);
    }
}

void outgoing_retry_unjudged(struct engine *e)
{
    struct lease_item *item = e->unjudged;
    e->unjudged = NULL;
    while (item != NULL) {
        struct lease_item *next = item->next_settled;
        outgoing_on_item(e, item);
        item = next;
    }
}

/* The demand at the host that its outcome is about. */
static const struct bh_tls_demand *failed_demand(const struct worker_session *s)
{
    for (uint32_t i = 0; i < s->address_count; i++) {
        if (bh_ip_eq(&s->addresses[i].ip, &s->outcome.ip) &&
            s->addresses[i].port == s->outcome.port) {
            return &s->hosts[i].demand;
        }
    }
    return &s->hosts[0].demand;
}

static const char *failed_tls(const struct worker_session *s, char text[TLS_SEEN_TEXT])
{
    return s->was_ready ? tls_seen_text(&s->seen, text)
                        : tls_seen_failed(failed_demand(s), &s->outcome, text);
}

/* No message has a record of a session that was never ready: its destination's row says what was
 * wanted and what stood against it. A host that is down says nothing new of its TLS. */
static void note_failed_tls(struct engine *e, const struct dest_info *d,
                            const struct worker_session *s)
{
    char tls[TLS_SEEN_TEXT];
    const bool about_tls =
        s->outcome.stage == BH_STAGE_STARTTLS || s->outcome.stage == BH_STAGE_TLS;
    if (!s->was_ready && (about_tls || d->last_tls[0] == '\0')) {
        note_tls(e, s, failed_tls(s, tls));
    }
}

static void log_closed(const struct worker_session *s)
{
    char text[BH_LOG_QUOTE_MAX];
    char tls[TLS_SEEN_TEXT];
    char tls_quoted[BH_LOG_QUOTE_MAX];
    char ip[BH_IP_TEXT_MAX];
    if (s->failed) {
        bh_log(BH_LOG_INFO,
               "evt=session_failed connector=%.*s host=%.*s ip=%s stage=%s happened=%s code=%u "
               "text=%s tls=%s",
               BH_FMT(s->connector->name), BH_FMT(s->outcome.host), bh_ip_text(&s->outcome.ip, ip),
               bh_stage_name(s->outcome.stage), bh_happened_name(s->outcome.happened),
               s->outcome.code, bh_log_quote(s->outcome.text, text),
               bh_log_quote(bh_slice_str(failed_tls(s, tls)), tls_quoted));
    }
}

static bool any_host_may_be_clear(const struct worker_session *s)
{
    for (uint32_t i = 0; i < s->address_count; i++) {
        if (!bh_tls_demand_requires_tls(&s->hosts[i].demand)) {
            return true;
        }
    }
    return false;
}

static void log_broken(const struct worker_session *s, const char *next)
{
    bh_log(BH_LOG_WARN, "evt=tls_broken connector=%.*s host=%.*s next=%s",
           BH_FMT(s->connector->name), BH_FMT(s->outcome.host), next);
}

/* What is to be read of a destination whose mail waits so. */
static void tell_in_clear(struct worker_session *s)
{
    char text[BH_OUTCOME_TEXT_MAX];
    struct bh_buf buf = bh_buf(text, sizeof(text));
    bh_buf_add_cut(&buf, BH_LIT("TLS is broken there; in clear only when older than 5 minutes, "
                                "never with REQUIRETLS"));
    bh_buf_add_cut(&buf, s->outcome.text.len > 0 ? BH_LIT(": ") : BH_EMPTY);
    bh_buf_add_cut(&buf, s->outcome.text);
    memcpy(s->outcome_text, text, buf.len);
    s->outcome.text = bh_slice(s->outcome_text, buf.len);
}

/* A broken handshake where TLS is not demanded: once more with a small ClientHello, then in clear,
 * what is older than five minutes. @return true: the scheduler goes on with the next of these */
static bool step_down_tls(struct engine *e, struct worker_session *s)
{
    struct dest_info *d = edest_get(e, s->destination);
    if (d == NULL || s->clear || !s->tls_trouble || !any_host_may_be_clear(s) ||
        s->connector->auth.mech != BH_AUTH_NONE) {
        return false;
    }
    if (!s->small_hello) {
        if (d->tls_step == TLS_STEP_NORMAL) {
            log_broken(s, "small_hello");
        } /* else another session has met the same, and the next step is being tried */
        d->tls_step = TLS_STEP_SMALL;
        return true;
    }
    d->tls_step = TLS_STEP_NORMAL; /* broken TLS is not remembered (DESIGN 6) */
    note_failed_tls(e, d, s);
    tell_in_clear(s);
    if (!bh_sched_go_clear(e->sched, d->id, &s->outcome, engine_now(e))) {
        return false;
    }
    log_broken(s, "clear");
    return true;
}

void outgoing_on_closed(struct engine *e, struct worker_session *s)
{
    if (s->probe != NULL) {
        eprobe_on_closed(e, s);
        return;
    }
    struct session_info *info = find_session(e, s->id);
    BH_ASSERT(info != NULL && info->worker == s);
    log_closed(s);
    engine_act(e); /* a lease that was just given to it, too, is answered for below */
    let_go(e, info);
    ecareful_note(e, s);
    const bool again = s->failed && step_down_tls(e, s);
    const struct bh_policy policy = bh_outcome_policy(&s->outcome);
    const enum bh_sched_fault fault =
        policy.fault == BH_FAULT_OURS ? BH_SCHED_OURS : BH_SCHED_THEIRS;
    const bool failed = s->failed && !again && !e->draining;
    struct dest_info *d = failed ? edest_get(e, s->destination) : NULL;
    if (d != NULL) {
        eunmet_note(d, s);
        etls_note_failure(d);
        note_failed_tls(e, d, s);
    }
    bh_sched_session_closed(e->sched, s->id, s->failures, s->failure_count, fault,
                            failed ? &s->outcome : NULL, engine_now(e));
    bh_map_remove(&e->sessions, &info->node);
    free(info);
    worker_free(s);
}
