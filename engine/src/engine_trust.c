/* May the AD bit of a resolver be believed? Only of one that the configuration names as trusted,
 * and that has shown that it validates: names that are known to be signed must come back with AD,
 * at start and hourly (DESIGN 6). While it does not, demands that need DANE wait; they never
 * weaken. */
#include "engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"

#define TEST_MS BH_HOUR_MS
#define TEST_AGAIN_MS (10 * BH_SECOND_MS) /* after a failure */
#define TEST_NAMES_MAX ((size_t)64 * 1024)

enum bh_status etrust_init(struct engine *e, struct resolver_slot *slot,
                           const struct bh_resolver_policy *policy)
{
    slot->engine = e;
    slot->trust = policy->trusted ? TRUST_UNTESTED : TRUST_NEVER;
    bh_arena_init(&slot->names_arena, TEST_NAMES_MAX);
    if (!policy->trusted) {
        return BH_OK;
    }
    /* Without names of its own: the root, which is signed. */
    const size_t count = policy->self_test.count > 0 ? policy->self_test.count : 1;
    struct bh_slice *at = bh_arena_alloc(&slot->names_arena, count * sizeof(*at));
    if (at == NULL) {
        return BH_ENOMEM;
    }
    at[0] = BH_EMPTY;
    for (size_t i = 0; i < policy->self_test.count; i++) {
        if (!bh_arena_copy(&slot->names_arena, policy->self_test.at[i], &at[i])) {
            bh_arena_fini(&slot->names_arena);
            return BH_ENOMEM;
        }
    }
    slot->self_test = (struct bh_names){.at = at, .count = count};
    return BH_OK;
}

void etrust_fini(struct resolver_slot *slot)
{
    while (slot->waiting != NULL) {
        struct tls_job *job = slot->waiting;
        slot->waiting = etls_next(job);
        etls_drop(job);
    }
    bh_arena_fini(&slot->names_arena);
}

/* What waits for this resolver is tried again at once. */
static void wake_parked(const struct resolver_slot *slot)
{
    struct engine *e = slot->engine;
    for (struct bh_map_node *node = bh_map_next(&e->dests, NULL); node != NULL;
         node = bh_map_next(&e->dests, node)) {
        struct dest_info *d = BH_CONTAINER(node, struct dest_info, node);
        if (d->untrusted) {
            d->untrusted = false;
            bh_sched_flush(e->sched, d->id, engine_now(e));
        }
    }
}

static void finish(struct resolver_slot *slot)
{
    struct engine *e = slot->engine;
    const bool good = !slot->failed;
    const bool news = !slot->tested || good != slot->was_good;
    slot->trust = good ? TRUST_GOOD : TRUST_BAD;
    slot->next_test_ms = uv_now(&e->loop) + (uint64_t)(good ? TEST_MS : TEST_AGAIN_MS);
    if (news && good) {
        bh_log(BH_LOG_INFO, "evt=resolver_trusted names=%zu", slot->self_test.count);
    } else if (news) {
        bh_log(BH_LOG_ERROR,
               "evt=resolver_untrusted text=\"%s\" effect=\"mail that needs DANE waits\"",
               slot->why);
    }
    if (news && good && slot->tested) {
        /* What it said while it did not validate looks like domains without signatures. */
        slot->recoveries++;
        bh_resolver_forget_all(slot->resolver);
    }
    slot->tested = true;
    slot->was_good = good;
    struct tls_job *job = slot->waiting;
    slot->waiting = NULL;
    while (job != NULL) {
        struct tls_job *next = etls_next(job);
        etls_resume(job);
        job = next;
    }
    if (news && good) {
        wake_parked(slot);
    }
    engine_pump(e);
}

static void judge(struct resolver_slot *slot, struct bh_slice name, bool secure, const char *what)
{
    if (!secure && !slot->failed) {
        slot->failed = true;
        snprintf(slot->why, sizeof(slot->why), "%.*s: %s", BH_FMT(bh_slice_take(name, 200)), what);
    }
    slot->open--;
    if (slot->open == 0) {
        finish(slot);
    }
}

static void on_answer(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    struct resolver_slot *slot = ctx;
    if (answer->status == BH_DNS_CANCELLED) {
        slot->open--; /* the end of the engine */
        return;
    }
    const bool there = answer->status == BH_DNS_FOUND || answer->status == BH_DNS_NODATA;
    judge(slot, name.len > 0 ? name : BH_LIT("the root"), there && answer->secure,
          there ? "its answer came without the AD bit" : bh_dns_status_name(answer->status));
}

void etrust_test(struct resolver_slot *slot)
{
    BH_ASSERT(slot->trust != TRUST_NEVER && slot->open == 0);
    slot->open = 1;
    slot->failed = false;
    if (!slot->tested) {
        slot->trust = TRUST_TESTING; /* later tests leave what stands until they have ended */
    }
    for (size_t i = 0; i < slot->self_test.count; i++) {
        const struct bh_slice name = slot->self_test.at[i];
        if (name.len > 0) {
            bh_resolver_forget(slot->resolver, name);
        } else {
            bh_resolver_forget_root(slot->resolver);
        }
        slot->open++;
        if (bh_resolver_query(slot->resolver, name, name.len > 0 ? BH_DNS_A : BH_DNS_NS, on_answer,
                              slot) != BH_OK) {
            slot->open--;
            slot->failed = true;
            snprintf(slot->why, sizeof(slot->why), "%.*s: could not be asked for",
                     BH_FMT(bh_slice_take(name, 200)));
        }
    }
    slot->open--;
    if (slot->open == 0) {
        finish(slot);
    }
}

void etrust_text(const struct engine *e, char *text, size_t cap)
{
    text[0] = '\0';
    for (uint32_t i = 0; i < e->resolver_count; i++) {
        const struct resolver_slot *slot = &e->resolvers[i];
        if (slot->trust == TRUST_BAD) {
            snprintf(text, cap, "failed: %s", slot->why);
            return;
        }
        if (slot->trust != TRUST_NEVER) {
            snprintf(text, cap, slot->trust == TRUST_GOOD ? "trusted" : "not tested yet");
        }
    }
}

void etrust_start(struct engine *e)
{
    for (size_t i = 0; i < e->config->connectors_count; i++) {
        if (e->config->connectors[i].resolver.trusted) {
            (void)engine_resolver(e, &e->config->connectors[i]);
        }
    }
    bool any = e->config->resolver.trusted;
    for (uint32_t i = 0; i < e->resolver_count; i++) {
        any = any || e->resolvers[i].trust != TRUST_NEVER;
    }
    if (!any) {
        bh_log(BH_LOG_INFO,
               "evt=dane_off text=\"no resolver is trusted: tls auto does without DANE\"");
    }
    etrust_tick(e);
}

void etrust_tick(struct engine *e)
{
    const uint64_t now_ms = uv_now(&e->loop);
    for (uint32_t i = 0; i < e->resolver_count; i++) {
        struct resolver_slot *slot = &e->resolvers[i];
        if (slot->trust != TRUST_NEVER && slot->open == 0 && now_ms >= slot->next_test_ms) {
            etrust_test(slot);
        }
    }
}
