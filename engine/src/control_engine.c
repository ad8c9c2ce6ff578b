/* The control socket's errands on the engine's thread. */
#include <stdio.h>
#include <stdlib.h>

#include "bh/log.h"
#include "control_private.h"
#include "engine_internal.h"

/* Who carries its mail, where that is not its own connector. */
static void carrier_text(const struct dest_info *d, char *text, size_t cap)
{
    if (d != NULL && d->failover.over) {
        snprintf(text, cap, "%.*s", BH_FMT(d->failover.carrier));
    }
}

/* Of its connector's and its own rate the slower one; a host's is for each of its hosts. */
static uint64_t slowest_ns(const struct bh_sched_policy *policy, enum bh_sched_kind kind)
{
    const uint64_t connector = policy->rates[BH_OF_CONNECTOR][kind].interval_ns;
    const uint64_t destination = policy->rates[BH_OF_DESTINATION][kind].interval_ns;
    return connector > destination ? connector : destination;
}

static void take_flow(const struct bh_sched_dest_info *info, const struct dest_info *dest,
                      struct snapshot_dest *d)
{
    d->left = info->left;
    d->left_ms = info->left_ms;
    if (dest != NULL) {
        d->message_ns = slowest_ns(&dest->policy, BH_PER_MESSAGE);
        d->recipient_ns = slowest_ns(&dest->policy, BH_PER_RECIPIENT);
    }
}

static int by_id(const void *a, const void *b)
{
    const uint32_t x = ((const struct snapshot_dest *)a)->id;
    const uint32_t y = ((const struct snapshot_dest *)b)->id;
    return (x > y) - (x < y);
}

static void take_record(struct snapshot_host *host, const struct bh_tlsa *record)
{
    char *text = host->records[host->record_count];
    struct bh_buf out = bh_buf(text, sizeof(host->records[0]));
    (void)!bh_buf_printf(&out, "%u %u %u ", (unsigned)record->usage, (unsigned)record->selector,
                         (unsigned)record->matching);
    for (size_t i = 0; i < record->data.len && i < BH_PIN_LEN; i++) {
        (void)!bh_buf_printf(&out, "%02x", (unsigned)(unsigned char)record->data.ptr[i]);
    }
    bh_buf_add_cut(&out, record->data.len > BH_PIN_LEN ? BH_LIT("...") : BH_EMPTY);
    host->record_texts[host->record_count++] = bh_buf_slice(&out);
}

static void take_dane(struct snapshot_host *host, const struct route *route,
                      const struct host_plan *plan)
{
    const struct bh_dane *dane = &plan->dane;
    const bool usable = dane->state == BH_DANE_USABLE;
    snprintf(host->base, sizeof(host->base), "%.*s",
             BH_FMT(bh_slice_take(usable ? dane->base : BH_EMPTY, sizeof(host->base) - 1)));
    host->record_all = usable ? dane->tlsa.count : 0;
    for (size_t i = 0; i < host->record_all && i < SNAPSHOT_RECORDS_MAX; i++) {
        take_record(host, &dane->tlsa.at[i]);
    }
    host->made_unix_ms = route->made_unix_ms;
    host->until_unix_ms = route->made_unix_ms + (int64_t)route->ttl_s * 1000;
}

static void take_sts(struct snapshot *s, struct engine *e, struct bh_slice domain)
{
    struct bh_sts_fact fact;
    struct bh_slice announced;
    char storage[NAME_MAX_OCTETS];
    struct bh_buf lower = bh_buf(storage, sizeof(storage));
    for (size_t i = 0; i < domain.len && i < sizeof(storage); i++) {
        bh_buf_put_char(&lower, bh_lower(domain.ptr[i]));
    }
    if (sts_peek(e->sts, bh_buf_slice(&lower), &fact, &announced)) {
        s->sts_origin = bh_sts_origin_name(fact.origin);
        snprintf(s->sts_trouble, sizeof(s->sts_trouble), "%.*s", BH_FMT(fact.trouble));
        snprintf(s->sts_announced, sizeof(s->sts_announced), "%.*s", BH_FMT(announced));
    }
}

static void take_hosts(struct snapshot *s, struct engine *e, const struct dest_info *d)
{
    for (uint32_t i = 0; i < d->route->host_count && s->host_count < SNAPSHOT_HOSTS_MAX; i++) {
        const struct host_plan *plan = &d->route->hosts[i];
        struct snapshot_host *host = &s->hosts[s->host_count++];
        snprintf(host->name, sizeof(host->name), "%.*s",
                 BH_FMT(bh_slice_take(plan->host->name, sizeof(host->name) - 1)));
        snprintf(host->connector, sizeof(host->connector), "%.*s",
                 BH_FMT(bh_slice_take(efail_carrier(d), sizeof(host->connector) - 1)));
        host->port = plan->host->port;
        host->used = plan->tls.verdict == BH_PLAN_USE;
        host->route_proven = plan->tls.route_proven;
        host->tls = host->used ? bh_tls_mode_name(plan->tls.demand.mode) : "";
        host->from = bh_tls_origin_name(plan->tls.origin);
        host->reason = plan->tls.reason;
        host->dane = bh_dane_state_name(plan->dane.state);
        host->weakened = etls_weakened(plan);
        host->lifted = elift_of_host(e, d, plan);
        take_dane(host, d->route, plan);
    }
}

/* The way to a domain, by each connector that has mail for it. */
static void take_route(struct snapshot *s, struct engine *e, struct bh_slice address)
{
    const struct bh_slice part = bh_address_domain(address);
    const struct bh_slice domain = part.len > 0 ? part : address;
    take_sts(s, e, domain);
    for (struct bh_map_node *node = bh_map_next(&e->dests, NULL); node != NULL;
         node = bh_map_next(&e->dests, node)) {
        const struct dest_info *d = BH_CONTAINER(node, struct dest_info, node);
        if (d->route != NULL && d->probe == NULL && bh_slice_eq_nocase(d->domain, domain)) {
            take_hosts(s, e, d);
        }
    }
}

static void run_snapshot(struct engine_call *call, struct engine *e)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, engine_call);
    struct bh_sched_totals totals;
    bh_sched_totals(e->sched, &totals);
    struct snapshot *s = calloc(1, sizeof(*s) + totals.destinations * sizeof(struct snapshot_dest));
    if (s != NULL) {
        s->engine.sessions_out = totals.sessions;
        s->engine.generation = e->config->generation;
        etrust_text(e, s->dnssec, sizeof(s->dnssec));
        s->engine.dnssec = bh_slice_str(s->dnssec);
        if (reply->request.verb == BH_VERB_EXPLAIN || reply->request.verb == BH_VERB_POLICY) {
            take_route(s, e, reply->request.address);
        }
        for (uint32_t id = bh_sched_next_dest(e->sched, 0);
             id != 0 && s->count < totals.destinations; id = bh_sched_next_dest(e->sched, id)) {
            struct bh_sched_dest_info info;
            if (bh_sched_info(e->sched, id, &info)) {
                struct snapshot_dest *d = &s->dests[s->count++];
                d->id = id;
                d->sessions = info.sessions;
                d->leased = info.leased;
                const struct dest_info *dest = edest_get(e, id);
                carrier_text(dest, d->carrier, sizeof(d->carrier));
                limit_words(&info.limited, dest != NULL ? edest_connector(e, dest) : NULL,
                            info.slowed, &d->limit);
                take_flow(&info, dest, d);
            }
        }
        qsort(s->dests, s->count, sizeof(s->dests[0]), by_id);
    }
    reply->snapshot = s;
    daemon_call(reply->server->daemon, &reply->call);
}

void control_snapshot(struct bh_control_reply *reply,
                      void (*then)(struct daemon_call *, struct daemon *))
{
    reply->call.run = then;
    reply->engine_call.run = run_snapshot;
    engine_call(reply->server->daemon->engine, &reply->engine_call);
}

/* ---- destinations whose record was changed ---- */

static void tell_one(struct engine *e, uint32_t id, enum control_told what)
{
    struct dest_info *d = edest_get(e, id);
    switch (what) {
    case CONTROL_FLUSHED:
        if (d != NULL) {
            efail_flush(d);
            for (uint32_t i = 0; i < e->resolver_count; i++) {
                bh_resolver_forget(e->resolvers[i].resolver, d->domain);
            }
        }
        bh_sched_flush(e->sched, id, engine_now(e));
        break;
    case CONTROL_HELD:
        bh_sched_set_held(e->sched, id, true, engine_now(e));
        break;
    case CONTROL_RELEASED:
        bh_sched_set_held(e->sched, id, false, engine_now(e));
        break;
    }
}

struct tell_call {
    struct engine_call call;
    struct bh_control_reply *reply;
    enum control_told what;
};

static void run_tell(struct engine_call *call, struct engine *e)
{
    struct tell_call *t = BH_CONTAINER(call, struct tell_call, call);
    struct bh_control_reply *reply = t->reply;
    for (size_t i = 0; i < reply->id_count; i++) {
        tell_one(e, reply->ids[i], t->what);
    }
    edest_scan_wake(e); /* those that are not in memory */
    free(t);
    daemon_call(reply->server->daemon, &reply->call);
}

void control_tell(struct bh_control_reply *reply, enum control_told what,
                  void (*then)(struct daemon_call *, struct daemon *))
{
    struct tell_call *t = calloc(1, sizeof(*t));
    reply->call.run = then;
    if (t == NULL) {
        /* The store has it: the engine meets it with its next look at the wake rows. */
        daemon_call(reply->server->daemon, &reply->call);
        return;
    }
    t->reply = reply;
    t->what = what;
    t->call.run = run_tell;
    engine_call(reply->server->daemon->engine, &t->call);
}

/* ---- clock and configuration ---- */

static void run_confirm(struct engine_call *call, struct engine *e)
{
    free(call);
    eclock_confirm(e);
}

void engine_policy_changed(struct engine *e)
{
    for (uint32_t id = bh_sched_next_dest(e->sched, 0), next = 0; id != 0; id = next) {
        struct dest_info *d = edest_get(e, id);
        struct bh_sched_dest_info info;
        next = bh_sched_next_dest(e->sched, id); /* this one may leave memory below */
        if (d == NULL || !bh_sched_info(e->sched, id, &info)) {
            continue;
        }
        const bool was_over = d->failover.over;
        d->lifting = false;
        efail_begin(e, d);
        /* What was parked may be mended: tried again now. What it holds is matched and routed
         * anew. */
        const struct bh_sched_dest_state state = {
            .policy = &d->policy, .held = info.held, .has_entries = true};
        if (bh_sched_load(e->sched, id, &state, engine_now(e)) == BH_OK) {
            bh_sched_drop_window(e->sched, id, engine_now(e));
            if ((was_over || d->failover.over) &&
                bh_sched_carry(e->sched, id, &d->policy, 0, 0, 0, was_over, engine_now(e)) !=
                    BH_OK) {
                bh_log(BH_LOG_ERROR, "evt=carrier_not_told destination=%u error=\"no memory\"",
                       (unsigned)id);
            }
        }
    }
    /* Sessions end after the transaction under way: what follows goes by the new policy. */
    outgoing_close_all(e);
}

static void run_changed(struct engine_call *call, struct engine *e)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, engine_call);
    bh_config_unref(e->config);
    e->config = config_cell_get(e->options.cell);
    engine_policy_changed(e);
    eexception_tell(e);
    daemon_call(reply->server->daemon, &reply->call);
}

static void call_engine(struct daemon *d, void (*run)(struct engine_call *, struct engine *))
{
    struct engine_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        bh_log(BH_LOG_ERROR, "evt=engine_not_told error=\"no memory\"");
        return;
    }
    call->run = run;
    engine_call(d->engine, call);
}

void control_confirm_clock(struct daemon *d)
{
    call_engine(d, run_confirm);
}

void control_config_changed(struct bh_control_reply *reply,
                            void (*then)(struct daemon_call *, struct daemon *))
{
    reply->call.run = then;
    reply->engine_call.run = run_changed;
    engine_call(reply->server->daemon->engine, &reply->engine_call);
}
