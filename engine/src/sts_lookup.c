/* Questions to the resolver and to the policy's host. */
#include "sts_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/buf.h"

#define POLICY_PATH "/.well-known/mta-sts.txt"

/* An open question. Answers to one of an earlier round are thrown away. */
struct question {
    struct sts_domain *domain;
    uint64_t round;
};

/* The domain that it is still of interest to, or NULL. */
static struct sts_domain *take(struct question *q, enum sts_state state)
{
    struct sts_domain *d = q->domain;
    const bool current = q->round == d->round && d->state == state && !d->sts->stopped;
    free(q);
    d->questions--;
    return current ? d : NULL;
}

static enum bh_status ask(struct sts_domain *d, struct bh_resolver *resolver, const char *name,
                          uint16_t type, bh_resolver_answer_fn *cb)
{
    struct question *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return BH_ENOMEM;
    }
    *q = (struct question){.domain = d, .round = d->round};
    const enum bh_status status = bh_resolver_query(resolver, bh_slice_str(name), type, cb, q);
    if (status != BH_OK) {
        free(q);
        return status;
    }
    d->questions++;
    return BH_OK;
}

static struct sts_settings settings_of(const struct sts *sts)
{
    struct sts_settings settings = {0};
    sts->options.settings(sts->options.ctx, &settings);
    return settings;
}

/* ---- the record (RFC 8461 section 3.1) ---- */

#define RECORDS_MAX 256 /* the answer reader keeps no more */

static void on_txt(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    struct sts_domain *d = take(ctx, STS_RECORD);
    struct bh_slice records[RECORDS_MAX];
    struct bh_slice id = BH_EMPTY;
    const char *why = "no MTA-STS record";
    char text[64];
    size_t count = 0;
    (void)name;
    if (d == NULL) {
        return;
    }
    d->ttl_s = answer->ttl_s > 0 ? answer->ttl_s : 1;
    if (!bh_dns_is_answer(answer->status)) {
        d->ttl_s = 60;
        snprintf(text, sizeof(text), "its record can't be looked up: %s",
                 bh_dns_status_name(answer->status));
        sts_on_record(d, BH_STS_FAILED, BH_EMPTY, bh_slice_str(text));
        return;
    }
    for (size_t i = 0; i < answer->records_len && count < RECORDS_MAX; i++) {
        records[count++] = answer->records[i].data;
    }
    const bool good =
        answer->status == BH_DNS_FOUND && bh_sts_read_txt(records, count, &id, &why) == BH_OK;
    sts_on_record(d, good ? BH_STS_SEEN : BH_STS_ABSENT, id, good ? BH_EMPTY : bh_slice_str(why));
}

void sts_ask_record(struct sts_domain *d, bool force)
{
    char name[STS_NAME_MAX + 16];
    const struct sts_settings settings = settings_of(d->sts);
    snprintf(name, sizeof(name), "_mta-sts.%s", d->name);
    if (force) {
        bh_resolver_forget(settings.resolver, bh_slice_str(name));
    }
    if (ask(d, settings.resolver, name, BH_DNS_TXT, on_txt) != BH_OK) {
        /* Answered from the next tick: never from inside the call that asked. */
        d->deadline_ms = 0;
        d->unasked = true;
    }
}

/* ---- the addresses of its host ---- */

static bool may_connect(const struct sts_settings *settings, const struct bh_ip *ip)
{
    if (bh_ip_is_unusable(ip) || (bh_ip_is_loopback(ip) && !settings->allow_loopback)) {
        return false;
    }
    for (size_t i = 0; i < settings->forbidden->count; i++) {
        if (bh_net_contains(&settings->forbidden->at[i], ip)) {
            return false;
        }
    }
    return true;
}

static void refuse(struct sts_domain *d, const char *why)
{
    snprintf(d->refused, sizeof(d->refused), "%s", why);
}

static void fetch(struct sts_domain *d);

static void on_address(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    struct sts_domain *d = take(ctx, STS_ADDRESSES);
    (void)name;
    if (d == NULL) {
        return;
    }
    const struct sts_settings settings = settings_of(d->sts);
    for (size_t i = 0; answer->status == BH_DNS_FOUND && i < answer->records_len; i++) {
        const struct bh_ip ip = answer->records[i].ip;
        if (!may_connect(&settings, &ip)) {
            refuse(d, "the address of its policy's host is in a forbidden network");
        } else if (d->address_count < STS_FETCH_ADDRESSES_MAX) {
            d->addresses[d->address_count++] = ip;
        }
    }
    if (!bh_dns_is_answer(answer->status)) {
        char text[sizeof(d->refused)];
        snprintf(text, sizeof(text), "its policy's host can't be looked up: %s",
                 bh_dns_status_name(answer->status));
        refuse(d, text);
    }
    d->addresses_open--;
    if (d->addresses_open > 0) {
        return;
    }
    if (d->address_count == 0) {
        sts_on_policy(d, BH_EMPTY, bh_slice_str(d->refused));
        return;
    }
    d->state = STS_WAITING;
    sts_next_fetch(d->sts);
}

void sts_ask_policy(struct sts_domain *d)
{
    char name[STS_NAME_MAX + 16];
    const struct sts_settings settings = settings_of(d->sts);
    snprintf(name, sizeof(name), "mta-sts.%s", d->name);
    d->address_count = 0;
    d->addresses_open = 0;
    d->deadline_ms = uv_now(d->sts->options.loop) + settings.timeout_ms;
    refuse(d, "its policy's host has no address");
    d->addresses_open += ask(d, settings.resolver, name, BH_DNS_AAAA, on_address) == BH_OK;
    d->addresses_open += ask(d, settings.resolver, name, BH_DNS_A, on_address) == BH_OK;
    if (d->addresses_open == 0) {
        d->deadline_ms = 0; /* given up at the next tick */
    }
}

/* ---- the policy (section 3.3) ---- */

static void on_fetched(void *ctx, struct bh_slice body, struct bh_slice error)
{
    struct sts_domain *d = ctx;
    d->fetch = NULL;
    d->sts->fetching--;
    sts_on_policy(d, body, error);
}

static void fetch(struct sts_domain *d)
{
    char host[STS_NAME_MAX + 16];
    const struct sts_settings settings = settings_of(d->sts);
    const uint64_t now_ms = uv_now(d->sts->options.loop);
    snprintf(host, sizeof(host), "mta-sts.%s", d->name);
    const struct sts_fetch_request request = {
        .host = host,
        .port = settings.port,
        .path = POLICY_PATH,
        .addresses = d->addresses,
        .address_count = d->address_count,
        .ca_file = settings.ca_file.len > 0 ? settings.ca_file.ptr : NULL,
        .timeout_ms = d->deadline_ms > now_ms ? d->deadline_ms - now_ms : 1,
        .octets_max = BH_STS_POLICY_MAX};
    if (sts_fetch_start(d->sts->fetcher, &request, on_fetched, d, &d->fetch) != BH_OK) {
        d->deadline_ms = 0; /* given up at the next tick */
        return;
    }
    d->state = STS_FETCHING;
    d->sts->fetching++;
}

void sts_next_fetch(struct sts *sts)
{
    if (sts->stopped) {
        return;
    }
    for (struct sts_domain *d = sts->busy.first; d != NULL && sts->fetching < STS_FETCHES_MAX;
         d = d->next) {
        if (d->state == STS_WAITING) {
            fetch(d);
        }
    }
}

void sts_abandon(struct sts_domain *d, struct bh_slice why)
{
    if (d->fetch != NULL) {
        sts_fetch_cancel(d->fetch);
        d->fetch = NULL;
        d->sts->fetching--;
    }
    sts_on_policy(d, BH_EMPTY, why);
}
