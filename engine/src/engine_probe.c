/* Probes on the engine's thread: a destination that the scheduler does not know finds its route as
 * every other; then a session of its own to each address. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "probe.h"

#define REPLY_ARENA ((size_t)16 * 1024)

static void keep_text(struct bh_outcome *outcome, char *text, size_t cap)
{
    struct bh_buf buf = bh_buf(text, cap);
    bh_buf_add_cut(&buf, outcome->text);
    outcome->text = bh_buf_slice(&buf);
    outcome->host = BH_EMPTY;
}

/* Told from the loop, when nobody is in the middle of its destination any more. */
static void run_done(struct engine_call *call, struct engine *e)
{
    struct probe *p = BH_CONTAINER(call, struct probe, end);
    struct dest_info *d = edest_get(e, p->id);
    if (d != NULL) {
        d->probe = NULL;
        edest_drop(e, d); /* or, where lookups are still out, once they are back */
    }
    for (struct probe **at = &e->probes; *at != NULL; at = &(*at)->next) {
        if (*at == p) {
            *at = p->next;
            break;
        }
    }
    e->pending--;
    p->done(p->ctx, p);
    engine_pump(e);
}

static void finish(struct engine *e, struct probe *p)
{
    p->end.run = run_done;
    p->resolving = false;
    engine_call(e, &p->end);
}

static void fail(struct engine *e, struct probe *p, const struct bh_outcome *outcome)
{
    p->failed = true;
    p->outcome = *outcome;
    keep_text(&p->outcome, p->text, sizeof(p->text));
    finish(e, p);
}

static void give_up(struct engine *e, struct probe *p, enum bh_happened happened, const char *text)
{
    const struct bh_outcome outcome = {
        .stage = BH_STAGE_ROUTE, .happened = happened, .text = bh_slice_str(text)};
    fail(e, p, &outcome);
}

static enum bh_status match(struct probe *p)
{
    struct bh_match found;
    const enum bh_status status =
        bh_config_match(p->config, p->domain, p->envelope.sender, 0, NULL, NULL, &found);
    if (status == BH_OK) {
        struct bh_buf name = bh_buf(p->connector_text, sizeof(p->connector_text));
        struct bh_buf rule = bh_buf(p->rule, sizeof(p->rule) - 1);
        bh_buf_add_cut(&name, found.connector->name);
        p->connector = bh_buf_slice(&name);
        bh_match_text(&found, &rule);
    }
    return status;
}

void eprobe_start(struct engine *e, struct probe *p)
{
    p->engine = e;
    p->next = e->probes;
    e->probes = p;
    e->pending++;
    p->id = UINT32_MAX - e->probe_count++ % 1000000; /* real ones count from 1 */
    bh_config_unref(p->config);
    p->config = bh_config_ref(e->config);
    if (e->draining || match(p) != BH_OK) {
        give_up(e, p, BH_HAPPENED_OUR_CONFIG,
                e->draining ? "the engine ends" : "no connector's address space has this domain");
        return;
    }
    struct dest_info *d =
        edest_get(e, p->id) == NULL ? edest_learn(e, p->id, p->domain, p->connector) : NULL;
    if (d == NULL) {
        give_up(e, p, BH_HAPPENED_OUR_RESOURCE, "no memory");
        return;
    }
    d->probe = p;
    p->resolving = true;
    edest_resolve(e, p->id);
}

void eprobe_on_no_route(struct engine *e, struct dest_info *d, const struct bh_outcome *outcome)
{
    struct probe *p = d->probe;
    if (d->route == NULL || d->route->host_count == 0) {
        fail(e, p, outcome);
    } else {
        eprobe_on_route(e, d); /* each host says why it is none */
    }
}

static struct probe_target *add_target(struct probe *p, const struct bh_target_host *host)
{
    if (p->count == PROBE_TARGETS_MAX) {
        return NULL;
    }
    struct probe_target *t = &p->targets[p->count++];
    struct bh_buf name = bh_buf(t->host, sizeof(t->host) - 1);
    *t = (struct probe_target){
        .probe = p, .preference = host->preference, .port = host->port, .verdict = PROBE_WOULD_NOT};
    bh_buf_add_cut(&name, host->name);
    bh_arena_init(&t->arena, REPLY_ARENA);
    return t;
}

static void say(struct probe_target *t, enum bh_stage stage, enum bh_happened happened,
                const char *text)
{
    t->outcome = (struct bh_outcome){
        .stage = stage, .happened = happened, .text = bh_slice_str(text), .host = BH_EMPTY};
    keep_text(&t->outcome, t->text, sizeof(t->text));
    t->ended = true;
}

static bool open_target(struct engine *e, struct dest_info *d, struct probe_target *t,
                        uint16_t rank)
{
    struct worker_session *s = calloc(1, sizeof(*s));
    struct bh_sched_action *action = calloc(1, sizeof(*action));
    bool good = s != NULL && action != NULL;
    if (good) {
        action->count = 1;
        action->addresses[0] =
            (struct bh_sched_address){.ip = t->ip, .port = t->port, .host = rank};
        s->number = ++e->next_number;
        s->destination = d->id;
        s->config = bh_config_ref(e->config);
        s->connector = edest_connector(e, d);
        s->probe = t;
        good = s->connector != NULL && etls_fill_session(s, d, action) == BH_OK;
        if (!good) {
            bh_arena_fini(&s->demands);
            bh_config_unref(s->config);
        }
    }
    free(action);
    if (!good) {
        free(s);
        return false;
    }
    t->seen = s->seen;
    t->probe->open++;
    worker_open(e->options.workers[e->next_worker++ % e->options.worker_count], s);
    return true;
}

static void probe_host(struct engine *e, struct dest_info *d, const struct bh_target_host *host)
{
    struct probe *p = d->probe;
    const struct host_plan *plan = NULL;
    uint16_t rank = 0;
    for (uint32_t i = 0; i < d->route->host_count; i++) {
        if (d->route->hosts[i].host == host) {
            plan = &d->route->hosts[i];
            rank = (uint16_t)i;
        }
    }
    if (plan == NULL) {
        struct probe_target *t = add_target(p, host);
        if (t != NULL) {
            const bool ours = host->state == BH_HOST_SELF || host->state == BH_HOST_NOT_BETTER ||
                              host->state == BH_HOST_FORBIDDEN;
            t->verdict = ours ? PROBE_LEFT_OUT : PROBE_WOULD_NOT;
            say(t, BH_STAGE_ROUTE, ours ? BH_HAPPENED_ALL_FILTERED : BH_HAPPENED_NO_ADDRESS,
                bh_host_state_name(host->state));
        }
        return;
    }
    for (size_t i = 0; i < host->addresses_len; i++) {
        struct probe_target *t = add_target(p, host);
        if (t == NULL) {
            return;
        }
        t->ip = host->addresses[i];
        if (plan->tls.verdict != BH_PLAN_USE) {
            say(t, BH_STAGE_ROUTE, plan->tls.happened, plan->tls.reason);
        } else if (!open_target(e, d, t, rank)) {
            say(t, BH_STAGE_CONNECT, BH_HAPPENED_OUR_RESOURCE, "no memory for a session");
        }
    }
}

void eprobe_on_route(struct engine *e, struct dest_info *d)
{
    struct probe *p = d->probe;
    if (!p->resolving) {
        return;
    }
    p->resolving = false;
    p->open = 1; /* while they are being opened */
    for (size_t i = 0; i < d->route->list.hosts_len; i++) {
        probe_host(e, d, &d->route->list.hosts[i]);
    }
    p->open--;
    if (p->open == 0) {
        finish(e, p);
    }
}

void eprobe_on_closed(struct engine *e, struct worker_session *s)
{
    struct probe_target *t = s->probe;
    struct probe *p = t->probe;
    if (t->outcome.stage == BH_STAGE_NONE && s->failed) {
        t->outcome = s->outcome; /* it did not open at all */
        keep_text(&t->outcome, t->text, sizeof(t->text));
    } else if (t->outcome.stage == BH_STAGE_NONE) {
        say(t, BH_STAGE_CONNECT, BH_HAPPENED_OUR_RESOURCE, "the engine ends");
    }
    t->ended = true;
    p->open--;
    worker_free(s);
    if (p->open == 0) {
        finish(e, p);
    }
}

void eprobe_drain(struct engine *e)
{
    for (struct probe *p = e->probes; p != NULL; p = p->next) {
        struct dest_info *d = p->resolving ? edest_get(e, p->id) : NULL;
        if (d != NULL) {
            d->probe = NULL;
            d->forget = true; /* its lookups find nobody */
            give_up(e, p, BH_HAPPENED_OUR_RESOURCE, "the engine ends");
        }
    }
}
