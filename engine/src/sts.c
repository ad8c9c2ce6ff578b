/* Rounds and their answers; see sts_internal.h. */
#include "sts_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/buf.h"
#include "bh/log.h"

#define TICK_MS 100
#define ASK_AGAIN_S 300
#define UPKEEP_FIRST_MS ((uint64_t)BH_MINUTE_MS)
#define UPKEEP_MS ((uint64_t)BH_HOUR_MS)

struct bh_now sts_now(const struct sts *sts)
{
    return (struct bh_now){.mono_ms = uv_now(sts->options.loop),
                           .unix_ms = sts->options.unix_ms(sts->options.ctx)};
}

/* ---- lists ---- */

static void list_remove(struct sts_list *list, struct sts_domain *d)
{
    *(d->prev != NULL ? &d->prev->next : &list->first) = d->next;
    *(d->next != NULL ? &d->next->prev : &list->last) = d->prev;
    d->prev = d->next = NULL;
}

static void list_append(struct sts_list *list, struct sts_domain *d)
{
    d->prev = list->last;
    d->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = d;
    list->last = d;
}

static void set_state(struct sts_domain *d, enum sts_state state)
{
    struct sts *sts = d->sts;
    if ((d->state == STS_IDLE) != (state == STS_IDLE)) {
        list_remove(d->state == STS_IDLE ? &sts->idle : &sts->busy, d);
        list_append(state == STS_IDLE ? &sts->idle : &sts->busy, d);
    }
    d->state = state;
}

static void free_domain(struct sts_domain *d)
{
    BH_ASSERT(d->waiters == NULL && d->questions == 0 && d->fetch == NULL);
    bh_map_remove(&d->sts->domains, &d->node);
    list_remove(d->state == STS_IDLE ? &d->sts->idle : &d->sts->busy, d);
    bh_sts_entry_fini(&d->entry);
    free(d);
}

/* Room for one more: the least recently used that nothing is open for. What it knew and did not
 * store is only that there is nothing. */
static void make_room(struct sts *sts)
{
    struct sts_domain *d = sts->idle.first;
    while (d != NULL && sts->domains.count >= STS_DOMAINS_MAX) {
        struct sts_domain *next = d->next;
        if (d->questions == 0) {
            free_domain(d);
        }
        d = next;
    }
}

bool sts_peek(struct sts *sts, struct bh_slice domain, struct bh_sts_fact *fact,
              struct bh_slice *announced)
{
    struct bh_map_node *node = bh_map_find(&sts->domains, domain);
    const struct sts_domain *d = node != NULL ? BH_CONTAINER(node, struct sts_domain, node) : NULL;
    if (d == NULL || !d->loaded) {
        return false;
    }
    bh_sts_entry_fact(&d->entry, sts_now(sts), fact);
    *announced = bh_slice(d->entry.announced, d->entry.announced_len);
    return true;
}

static struct sts_domain *learn(struct sts *sts, struct bh_slice name)
{
    struct bh_map_node *node = bh_map_find(&sts->domains, name);
    if (node != NULL) {
        return BH_CONTAINER(node, struct sts_domain, node);
    }
    make_room(sts);
    struct sts_domain *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    struct bh_buf text = bh_buf(d->name, sizeof(d->name) - 1);
    bh_buf_put(&text, name);
    d->sts = sts;
    d->node.key = bh_buf_slice(&text);
    if (bh_map_insert(&sts->domains, &d->node) != BH_OK) {
        free(d);
        return NULL;
    }
    bh_sts_entry_init(&d->entry, sts_now(sts));
    list_append(&sts->idle, d);
    return d;
}

/* ---- answers ---- */

static void answer(struct sts_domain *d, const struct bh_sts_fact *fact)
{
    /* Callbacks may ask again: only those who waited for this round are answered. */
    struct sts_waiter *due = NULL;
    for (struct sts_waiter **at = &d->waiters; *at != NULL;) {
        struct sts_waiter *w = *at;
        if (w->round <= d->round) {
            *at = w->next;
            w->next = due;
            due = w;
        } else {
            at = &w->next;
        }
    }
    while (due != NULL) {
        struct sts_waiter *w = due;
        due = w->next;
        w->cb(w->ctx, fact);
        free(w);
    }
}

static void answer_fact(struct sts_domain *d)
{
    struct bh_sts_fact fact;
    bh_sts_entry_fact(&d->entry, sts_now(d->sts), &fact);
    /* Nothing is not looked for too often, and what could not be had soon again. */
    fact.ttl_s = d->ttl_s;
    if (fact.origin == BH_STS_NOT_PUBLISHED && fact.ttl_s < ASK_AGAIN_S) {
        fact.ttl_s = ASK_AGAIN_S;
    } else if (fact.origin == BH_STS_UNAVAILABLE && fact.ttl_s > ASK_AGAIN_S) {
        fact.ttl_s = ASK_AGAIN_S;
    }
    answer(d, &fact);
}

static void answer_unknown(struct sts_domain *d, struct bh_slice why)
{
    const struct bh_sts_fact fact = {.origin = BH_STS_UNKNOWN, .ttl_s = 60, .trouble = why};
    answer(d, &fact);
}

static enum bh_status begin_round(struct sts_domain *d);

/* The round is over. Who asked for a later one gets it. */
static void end_round(struct sts_domain *d)
{
    sts_store_save(d);
    set_state(d, STS_IDLE);
    d->answered = true;
    d->questions++; /* who is answered may ask for others, and room be made for them */
    answer_fact(d);
    d->questions--;
    if (d->waiters != NULL && d->state == STS_IDLE && begin_round(d) != BH_OK) {
        d->round++;
        answer_unknown(d, BH_LIT("no memory"));
    }
}

/* ---- rounds ---- */

static void start_tick(struct sts *sts);

static void begin_lookup(struct sts_domain *d)
{
    bool force = false;
    for (const struct sts_waiter *w = d->waiters; w != NULL; w = w->next) {
        force |= w->force;
    }
    bh_sts_entry_begin(&d->entry, d->waiters != NULL, sts_now(d->sts));
    set_state(d, STS_RECORD);
    sts_ask_record(d, force);
}

static enum bh_status begin_round(struct sts_domain *d)
{
    struct sts *sts = d->sts;
    if (sts->draining) {
        return BH_EBUSY;
    }
    if (!d->loaded) {
        const enum bh_status status = sts_store_load(d);
        if (status != BH_OK) {
            return status;
        }
        set_state(d, STS_LOADING);
    }
    d->round++;
    d->answered = false;
    start_tick(sts);
    if (d->loaded) {
        begin_lookup(d);
    }
    return BH_OK;
}

void sts_on_row(struct sts_domain *d, enum bh_status status, struct bh_slice row)
{
    struct sts *sts = d->sts;
    if (d->state != STS_LOADING) {
        return; /* stopped meanwhile */
    }
    if (status == BH_OK) {
        const enum bh_status read = bh_sts_entry_load(
            &d->entry, row, sts->options.clock_suspect(sts->options.ctx), sts_now(sts));
        if (read != BH_OK) {
            bh_log(BH_LOG_ERROR, "evt=sts_row_unreadable domain=%s error=\"%s\"", d->name,
                   bh_status_name(read));
        }
    }
    d->loaded = status == BH_OK || status == BH_ENOTFOUND;
    if (d->loaded && !sts->draining) {
        begin_lookup(d);
        return;
    }
    set_state(d, STS_IDLE);
    d->answered = true;
    answer_unknown(d, d->loaded ? BH_LIT("the engine is ending")
                                : BH_LIT("the store could not be read"));
}

void sts_on_record(struct sts_domain *d, enum bh_sts_seen seen, struct bh_slice id,
                   struct bh_slice why)
{
    switch (bh_sts_entry_on_record(&d->entry, seen, id, why, sts_now(d->sts))) {
    case BH_STS_ANSWER:
        end_round(d);
        return;
    case BH_STS_FETCH:
        break;
    case BH_STS_RENEW:
        d->answered = true;
        break;
    }
    set_state(d, STS_ADDRESSES);
    sts_ask_policy(d);
    if (d->answered) {
        answer_fact(d);
    }
}

static void log_policy(const struct sts_domain *d)
{
    struct bh_sts_fact fact;
    bh_sts_entry_fact(&d->entry, sts_now(d->sts), &fact);
    bh_log(BH_LOG_INFO, "evt=sts_policy domain=%s mode=%s id=%.*s mx=%zu max_age_s=%llu changed=%d",
           d->name, bh_sts_mode_name(fact.policy.mode), BH_FMT(fact.id), fact.policy.mx_count,
           (unsigned long long)fact.policy.max_age_s, fact.changed);
}

/* That a policy in force can't be renewed is for the operator to know: the domain may be under
 * attack, or about to lose its protection (RFC 8461 section 3.3). */
static void log_failure(const struct sts_domain *d)
{
    char text[BH_LOG_QUOTE_MAX];
    struct bh_sts_fact fact;
    bh_sts_entry_fact(&d->entry, sts_now(d->sts), &fact);
    const bool in_force = fact.policy.mode != BH_STS_MODE_NONE;
    bh_log(in_force ? BH_LOG_WARN : BH_LOG_INFO,
           "evt=sts_fetch_failed domain=%s in_force=%s expires_unix_ms=%lld text=%s", d->name,
           bh_sts_mode_name(fact.policy.mode), (long long)fact.expires_unix_ms,
           bh_log_quote(fact.trouble, text));
}

void sts_on_policy(struct sts_domain *d, struct bh_slice body, struct bh_slice error)
{
    struct sts *sts = d->sts;
    const struct bh_now now = sts_now(sts);
    bool good = error.len == 0;
    if (!good) {
        bh_sts_entry_on_failure(&d->entry, error, now);
    } else {
        const enum bh_status status = bh_sts_entry_on_body(&d->entry, body, now);
        good = status == BH_OK;
        if (status == BH_ENOMEM) {
            bh_sts_entry_on_failure(&d->entry, BH_LIT("no memory"), now);
        }
    }
    if (good) {
        log_policy(d);
    } else {
        log_failure(d);
    }
    end_round(d);
    sts_next_fetch(sts);
}

/* ---- asking ---- */

/* As a key: lower case, no dot at the end. @return false if it can have no policy */
static bool normalise(struct bh_slice domain, struct bh_buf *name)
{
    struct bh_ip ip;
    return domain.len <= BH_STS_DOMAIN_MAX + 1 && bh_dns_name_normalise(domain, name) == BH_OK &&
           name->len > 0 && name->len <= BH_STS_DOMAIN_MAX &&
           bh_dns_name_is_host(bh_buf_slice(name)) && !bh_ip_parse(bh_buf_slice(name), &ip);
}

static enum bh_status ask(struct sts *sts, struct bh_slice domain, bool force, sts_fn *cb,
                          void *ctx)
{
    char text[STS_NAME_MAX];
    struct bh_buf name = bh_buf(text, sizeof(text) - 1);
    if (!normalise(domain, &name)) {
        return BH_EINVAL;
    }
    if (sts->draining) {
        return BH_EBUSY;
    }
    struct sts_domain *d = learn(sts, bh_buf_slice(&name));
    struct sts_waiter *w = d != NULL ? calloc(1, sizeof(*w)) : NULL;
    if (w == NULL) {
        return BH_ENOMEM;
    }
    *w = (struct sts_waiter){.next = d->waiters, .cb = cb, .ctx = ctx, .force = force};
    w->round = d->round + (d->state == STS_IDLE || (force && d->state != STS_LOADING) ? 1 : 0);
    d->waiters = w;
    if (d->state == STS_IDLE) {
        const enum bh_status status = begin_round(d);
        if (status != BH_OK) {
            d->waiters = w->next;
            free(w);
            return status;
        }
    }
    return BH_OK;
}

enum bh_status sts_lookup(struct sts *sts, struct bh_slice domain, sts_fn *cb, void *ctx)
{
    return ask(sts, domain, false, cb, ctx);
}

enum bh_status sts_refresh_before_bounce(struct sts *sts, struct bh_slice domain, sts_fn *cb,
                                         void *ctx)
{
    return ask(sts, domain, true, cb, ctx);
}

void sts_renew(struct sts *sts, struct bh_slice name)
{
    struct sts_domain *d = sts->draining ? NULL : learn(sts, name);
    if (d != NULL && d->state == STS_IDLE) {
        (void)begin_round(d); /* otherwise the next upkeep asks again */
    }
}

/* ---- timers ---- */

static void on_tick(uv_timer_t *timer)
{
    struct sts *sts = timer->data;
    const uint64_t now_ms = uv_now(sts->options.loop);
    for (struct sts_domain *d = sts->busy.first, *next = NULL; d != NULL; d = next) {
        next = d->next;
        if (d->answered && d->waiters != NULL) {
            answer_fact(d); /* who came while it was being renewed */
        }
        if (d->unasked) {
            d->unasked = false;
            sts_on_record(d, BH_STS_FAILED, BH_EMPTY, BH_LIT("its record can't be looked up now"));
        } else if (d->state >= STS_ADDRESSES && now_ms >= d->deadline_ms) {
            sts_abandon(d, BH_LIT("its host took too long"));
        }
    }
    if (sts->busy.first == NULL) {
        uv_timer_stop(&sts->tick);
    }
}

static void start_tick(struct sts *sts)
{
    if (!uv_is_active((const uv_handle_t *)&sts->tick)) {
        uv_timer_start(&sts->tick, on_tick, TICK_MS, TICK_MS);
    }
}

static void on_upkeep(uv_timer_t *timer)
{
    sts_store_upkeep(timer->data);
}

/* ---- life ---- */

enum bh_status sts_create(const struct sts_options *options, struct sts **result)
{
    struct sts *sts = calloc(1, sizeof(*sts));
    if (sts == NULL || sts_fetcher_create(options->loop, &sts->fetcher) != BH_OK) {
        free(sts);
        return BH_ENOMEM;
    }
    sts->options = *options;
    uv_timer_init(options->loop, &sts->tick);
    uv_timer_init(options->loop, &sts->upkeep);
    sts->tick.data = sts;
    sts->upkeep.data = sts;
    *result = sts;
    return BH_OK;
}

void sts_start(struct sts *sts)
{
    uv_timer_start(&sts->upkeep, on_upkeep, UPKEEP_FIRST_MS, UPKEEP_MS);
}

void sts_drain(struct sts *sts)
{
    sts->draining = true;
    uv_timer_stop(&sts->upkeep);
}

void sts_stop(struct sts *sts)
{
    sts_drain(sts);
    sts->stopped = true;
    while (sts->busy.first != NULL) {
        struct sts_domain *d = sts->busy.first;
        if (d->fetch != NULL) {
            sts_fetch_cancel(d->fetch);
            d->fetch = NULL;
        }
        set_state(d, STS_IDLE);
        d->round++; /* whoever waits for a later round, too */
        answer_unknown(d, BH_LIT("the engine is ending"));
    }
    uv_close((uv_handle_t *)&sts->tick, NULL);
    uv_close((uv_handle_t *)&sts->upkeep, NULL);
    sts_fetcher_close(sts->fetcher);
}

void sts_destroy(struct sts *sts)
{
    if (sts == NULL) {
        return;
    }
    for (struct sts_domain *d = sts->idle.first; d != NULL;) {
        struct sts_domain *next = d->next;
        free_domain(d);
        d = next;
    }
    bh_map_fini(&sts->domains);
    sts_fetcher_free(sts->fetcher);
    free(sts);
}
