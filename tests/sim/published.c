#include "published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/dns_build.h"
#include "bh/assert.h"
#include "partner_tls.h"

#define AD 0x20
#define SURVIVES_US SIM_MINUTE /* so old a policy is stored */
#define NO_POLICY UINT32_MAX

struct published published;

static uint32_t pick(uint32_t low, uint32_t high)
{
    return (uint32_t)sim_range(CHANCE_PUBLISHED, low, high);
}

static bool chance(uint32_t permille)
{
    return sim_chance(CHANCE_PUBLISHED, permille);
}

/* ---- TLSA records ---- */

static struct tlsa_record record_of(const struct host *host, unsigned generation)
{
    struct tlsa_record r = {.usage = 3, .selector = 1, .matching = 1, .len = BH_PIN_LEN};
    partner_tls_key(host, generation, r.data);
    return r;
}

/* One of the ways in which a record can't be used (RFC 7672 section 3.1.3, RFC 6698). */
static struct tlsa_record unusable(const struct host *host)
{
    struct tlsa_record r = record_of(host, 0);
    switch (pick(0, 2)) {
    case 0:
        r.usage = 1; /* PKIX-EE */
        break;
    case 1:
        r.matching = 9;
        break;
    case 2:
        r.len = BH_PIN_LEN - 1;
        break;
    }
    return r;
}

enum tlsa_kind { TLSA_NONE, TLSA_GOOD, TLSA_BOTH, TLSA_WRONG, TLSA_UNUSABLE, TLSA_MIXED };

static void publish_tlsa(unsigned number, enum tlsa_kind kind)
{
    const struct host *host = &world.hosts[number];
    const unsigned generation = published.hosts[number].generation;
    struct tlsa_version v = {.from_us = sim_now_us()};
    if (published.hosts[number].count == VERSIONS_MAX) {
        return;
    }
    switch (kind) {
    case TLSA_NONE:
        break;
    case TLSA_BOTH: /* before a roll-over */
        v.records[v.count++] = record_of(host, generation + 1);
        v.records[v.count++] = record_of(host, generation);
        break;
    case TLSA_WRONG:
        v.records[v.count] = record_of(host, generation);
        v.records[v.count++].data[5] ^= 0xff;
        break;
    case TLSA_UNUSABLE:
        v.records[v.count++] = unusable(host);
        break;
    case TLSA_MIXED:
        v.records[v.count++] = unusable(host);
        v.records[v.count++] = record_of(host, generation);
        break;
    case TLSA_GOOD:
        v.records[v.count++] = record_of(host, generation);
        break;
    }
    sim_trace("%s publishes %u TLSA records, kind %u", host->name, v.count, (unsigned)kind);
    published.hosts[number].versions[published.hosts[number].count++] = v;
}

static enum tlsa_kind pick_tlsa(void)
{
    static const enum tlsa_kind kinds[] = {TLSA_GOOD,  TLSA_GOOD,     TLSA_GOOD,  TLSA_BOTH,
                                           TLSA_WRONG, TLSA_UNUSABLE, TLSA_MIXED, TLSA_NONE};
    return kinds[pick(0, BH_COUNT(kinds) - 1)];
}

static struct tlsa_version *tlsa_now(unsigned host)
{
    return &published.hosts[host].versions[published.hosts[host].count - 1];
}

static void roll_key(unsigned number)
{
    struct host *host = &world.hosts[number];
    const unsigned generation = ++published.hosts[number].generation;
    sim_trace("%s has key %u", host->name, generation);
    host->generation = generation;
    partner_tls_key(host, generation, host->shown.spki);
}

/* The rest of a roll-over: the new key, and some time later only its record. */
static void finish_rollover(void *ctx)
{
    const struct host *host = ctx;
    if (world.faults) {
        publish_tlsa(host->number, TLSA_GOOD);
    }
}

static void roll_over(void *ctx)
{
    struct host *host = ctx;
    if (world.faults) {
        roll_key(host->number);
    }
    sim_after(2 * published.ttl_s * SIM_SECOND, finish_rollover, host);
}

/* ---- MTA-STS ---- */

static void publish_sts(unsigned domain, bool good)
{
    static const uint32_t ages_s[] = {60, 600, 3600, 86400, 604800};
    unsigned *count = &published.domains[domain].count;
    const struct sts_version *last =
        *count > 0 ? &published.domains[domain].versions[*count - 1] : NULL;
    struct sts_version v = {.from_us = sim_now_us(),
                            .announced = good || chance(900),
                            .reachable = good || chance(last != NULL ? 500 : 800),
                            .max_age_s = ages_s[pick(0, BH_COUNT(ages_s) - 1)],
                            .id = last != NULL ? last->id + 1 : 1};
    if (*count == VERSIONS_MAX) {
        return;
    }
    v.mode = chance(700) ? STS_IS_ENFORCE : chance(500) ? STS_IS_TESTING : STS_IS_NONE;
    if (last != NULL && !good && chance(300)) { /* the same policy: only what leads to it differs */
        const struct sts_version changed = v;
        v = *last;
        v.from_us = changed.from_us;
        v.announced = changed.announced;
        v.reachable = changed.reachable;
    } else if (good || chance(600)) {
        v.lists_hosts = true;
    } else {
        snprintf(v.patterns, sizeof(v.patterns), "%s", chance(600) ? "*.test" : "elsewhere.test");
    }
    sim_trace("%s publishes policy %u: mode %u for %s, %s, %s, for %u s",
              world.domains[domain].name, v.id, (unsigned)v.mode,
              v.lists_hosts ? "its hosts" : v.patterns, v.announced ? "announced" : "not announced",
              v.reachable ? "reachable" : "not reachable", v.max_age_s);
    published.domains[domain].versions[(*count)++] = v;
}

/* ---- drawn, changed, healed ---- */

void published_draw(void)
{
    memset(&published, 0, sizeof(published));
    if (!world.has.published) {
        return;
    }
    published.ttl_s = pick(5, 60);
    published.validates_us = sim_now_us() + (chance(150) ? pick(60, 1200) * SIM_SECOND : 0);
    published.bogus_permille = chance(400) ? pick(20, 700) : 0;
    published.sts_often = chance(350);
    for (unsigned i = 0; i < world.host_count; i++) {
        published.hosts[i].is_signed = chance(750);
        publish_tlsa(i, chance(published.sts_often ? 200 : 650) ? pick_tlsa() : TLSA_NONE);
    }
    for (unsigned i = 0; i < world.set.domains; i++) {
        published.domains[i].is_signed = chance(700);
        if (published.sts_often || chance(550)) {
            publish_sts(i, false);
        }
    }
}

static void change(void *ctx)
{
    (void)ctx;
    if (!world.faults) {
        return;
    }
    const unsigned host = pick(0, world.host_count - 1);
    const unsigned domain = pick(0, world.set.domains - 1);
    switch (published.sts_often ? pick(2, 20) : pick(0, 5)) {
    case 0:
        publish_tlsa(host, pick_tlsa());
        break;
    case 1: /* as it should be done */
        publish_tlsa(host, TLSA_BOTH);
        sim_after(2 * published.ttl_s * SIM_SECOND, roll_over, &world.hosts[host]);
        break;
    case 2: /* and as it is done */
        roll_key(host);
        break;
    default:
        if (published.domains[domain].count > 0) {
            publish_sts(domain, false);
        }
        break;
    }
    published_start();
}

void published_start(void)
{
    sim_after(pick(30, published.sts_often ? 200 : 900) * SIM_SECOND, change, NULL);
}

void published_heal(void)
{
    published.bogus_permille = 0;
    for (unsigned i = 0; i < world.host_count; i++) {
        if (tlsa_now(i)->count > 0) {
            published.hosts[i].count -= published.hosts[i].count == VERSIONS_MAX ? 1 : 0;
            publish_tlsa(i, TLSA_GOOD);
        }
    }
    for (unsigned i = 0; i < world.set.domains; i++) {
        if (published.domains[i].count > 0) {
            published.domains[i].count -= published.domains[i].count == VERSIONS_MAX ? 1 : 0;
            publish_sts(i, true);
        }
    }
    if (published.validates_us > sim_now_us()) {
        published.validates_us = sim_now_us();
    }
}

enum bh_tls_mode published_pick_mode(void)
{
    const uint32_t which = published.sts_often ? 0 : pick(0, 9);
    return which < 6 ? BH_TLS_AUTO : which < 9 ? BH_TLS_DANE : BH_TLS_DANE_ONLY;
}

/* ---- answers ---- */

static bool is_host(const char *name, unsigned *host)
{
    return sscanf(name, "mx%u.test", host) == 1 && *host < world.host_count;
}

static bool is_domain(const char *name, unsigned *domain)
{
    for (*domain = 0; *domain < world.set.domains; (*domain)++) {
        if (strcmp(world.domains[*domain].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_signed(const char *name)
{
    unsigned number = 0;
    name += strncmp(name, "_25._tcp.", 9) == 0 ? 9 : 0;
    if (is_host(name, &number)) {
        return published.hosts[number].is_signed;
    }
    return is_domain(name, &number) ? published.domains[number].is_signed : name[0] == '\0';
}

unsigned published_ad(const char *name)
{
    return world.has.published && sim_now_us() >= published.validates_us && is_signed(name) ? AD
                                                                                            : 0;
}

bool published_bogus(uint16_t id, const char *name, uint16_t type, struct dns_build *build)
{
    if (!world.has.published || !world.faults || name[0] == '\0' || published_ad(name) == 0 ||
        !chance(published.bogus_permille)) {
        return false;
    }
    sim_trace("%s type %u is bogus", name, (unsigned)type);
    dns_build_start(build, id, 0x0182, name, type);
    /* OPT with an extended error (RFC 8914): DNSSEC bogus, signature expired, ... */
    const size_t at = dns_build_rr(build, DNS_ADDITIONAL, "", 41, 0);
    dns_put16(build, 15);
    dns_put16(build, 2);
    dns_put16(build, pick(6, 12));
    dns_build_end(build, at);
    return true;
}

static void answer_tlsa(const char *name, unsigned host, struct dns_build *build)
{
    const struct tlsa_version *v = tlsa_now(host);
    for (unsigned i = 0; i < v->count; i++) {
        const struct tlsa_record *r = &v->records[i];
        char text[2 * (BH_PIN_LEN + 3) + 1];
        int len = snprintf(text, sizeof(text), "%02x%02x%02x", r->usage, r->selector, r->matching);
        for (unsigned k = 0; k < r->len; k++) {
            len += snprintf(text + len, sizeof(text) - (size_t)len, "%02x", r->data[k]);
        }
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_TLSA, published.ttl_s, text);
    }
    if (v->count == 0) {
        dns_build_text(build, DNS_AUTHORITY, "test", BH_DNS_SOA, 30, "5");
    }
}

/* Where nobody could be mailed, it is theirs. */
static void may_be_refused(unsigned domain)
{
    world.domains[domain].trouble_us = sim_now_us();
}

bool published_answer(uint16_t id, const char *name, uint16_t type, struct dns_build *build,
                      bool *leads)
{
    unsigned number = 0;
    if (type == BH_DNS_MX && is_domain(name, &number) &&
        (published.served_count > 0 || world_conf()->domains[number].tls == BH_TLS_DANE_ONLY)) {
        may_be_refused(number);
    }
    if (strncmp(name, "_25._tcp.", 9) == 0 && is_host(name + 9, &number)) {
        dns_build_start(build, id, 0x0180 | published_ad(name), name, type);
        answer_tlsa(name, number, build);
        return true;
    }
    const bool record = strncmp(name, "_mta-sts.", 9) == 0 && is_domain(name + 9, &number);
    const bool host = !record && strncmp(name, "mta-sts.", 8) == 0 && is_domain(name + 8, &number);
    if ((!record && !host) || published.domains[number].count == 0) {
        return false;
    }
    const unsigned count = published.domains[number].count;
    const struct sts_version *v = &published.domains[number].versions[count - 1];
    dns_build_start(build, id, 0x0180, name, type);
    if (record && type == BH_DNS_TXT && v->announced) {
        char text[64];
        snprintf(text, sizeof(text), "v=STSv1; id=n%u;", v->id);
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_TXT, published.ttl_s, text);
        *leads = true;
    } else if (host && type == BH_DNS_A) {
        char text[32];
        snprintf(text, sizeof(text), "203.0.113.%u", number + 1);
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_A, published.ttl_s, text);
        *leads = true;
    } else {
        dns_build_text(build, DNS_AUTHORITY, "test", BH_DNS_SOA, 30, "5");
    }
    return true;
}

/* A look for a policy led nowhere. While one is held, and for long enough, it makes no difference.
 */
static void in_vain(unsigned domain)
{
    bool held = false;
    for (unsigned i = 0; i < published.served_count; i++) {
        const struct served *s = &published.served[i];
        const uint32_t age_s = published.domains[domain].versions[s->version].max_age_s;
        held = held || (s->domain == domain && s->must_us == UINT64_MAX &&
                        s->at_us + age_s * SIM_SECOND > sim_now_us() + STS_FAILED_US);
    }
    if (!held || world.clock_stepped) {
        published.domains[domain].failed_us = sim_now_us();
    }
}

void published_asked(const char *name, uint16_t type, bool leads)
{
    unsigned domain = 0;
    const bool record = strncmp(name, "_mta-sts.", 9) == 0 && is_domain(name + 9, &domain);
    const bool host = !record && strncmp(name, "mta-sts.", 8) == 0 && is_domain(name + 8, &domain);
    if (!leads && (record || (host && type == BH_DNS_A))) {
        in_vain(domain);
    }
}

/* ---- policies over the web ---- */

static void write_policy(const struct sts_version *v, unsigned domain, char *body, size_t cap)
{
    static const char *const modes[] = {"none", "testing", "enforce"};
    const struct domain *d = &world.domains[domain];
    int len = snprintf(body, cap, "version: STSv1\r\nmode: %s\r\nmax_age: %u\r\n", modes[v->mode],
                       v->max_age_s);
    for (unsigned i = 0; v->lists_hosts && i < d->host_count; i++) {
        len += snprintf(body + len, cap - (size_t)len, "mx: %s\r\n", world.hosts[d->hosts[i]].name);
    }
    if (!v->lists_hosts) {
        snprintf(body + len, cap - (size_t)len, "mx: %s\r\n", v->patterns);
    }
}

unsigned published_fetch(const char *host, char *body, size_t body_cap, char *error,
                         size_t error_cap, uint64_t *delay_us)
{
    unsigned domain = 0;
    *delay_us = pick(5, 500) * SIM_MS;
    if (strncmp(host, "mta-sts.", 8) != 0 || !is_domain(host + 8, &domain) ||
        published.domains[domain].count == 0) {
        snprintf(error, error_cap, "no such host");
        return NO_POLICY;
    }
    const unsigned version = published.domains[domain].count - 1;
    const struct sts_version *v = &published.domains[domain].versions[version];
    if (!v->reachable || (world.faults && chance(100))) {
        *delay_us = chance(300) ? 90 * SIM_SECOND : *delay_us;
        in_vain(domain);
        snprintf(error, error_cap, "the policy's host shows a certificate of another's");
        return NO_POLICY;
    }
    if (world.faults && chance(50)) {
        in_vain(domain);
        snprintf(body, body_cap, "<html>Under construction</html>");
        return NO_POLICY;
    }
    write_policy(v, domain, body, body_cap);
    return domain << 16 | version;
}

void published_fetched(unsigned token)
{
    if (token == NO_POLICY || published.served_count == SERVED_MAX) {
        return;
    }
    const unsigned domain = token >> 16;
    for (unsigned i = 0; i < published.served_count; i++) {
        struct served *s = &published.served[i];
        if (s->domain == domain) {
            s->may_us = s->may_us > sim_now_us() ? sim_now_us() : s->may_us;
            s->must_us = s->must_us > sim_now_us() ? sim_now_us() : s->must_us;
        }
    }
    sim_trace("the daemon has policy %u of %s",
              published.domains[domain].versions[token & 0xffff].id, world.domains[domain].name);
    published.served[published.served_count++] = (struct served){.domain = domain,
                                                                 .version = token & 0xffff,
                                                                 .at_us = sim_now_us(),
                                                                 .may_us = UINT64_MAX,
                                                                 .must_us = UINT64_MAX};
}

/* What is stored outlives the process, unless the disk or the clock is at fault. */
void published_process_died(void)
{
    const bool stored = world.set.disk_full_permille == 0 && world.set.disk_fail_permille == 0 &&
                        !world.clock_stepped;
    for (unsigned i = 0; i < published.served_count; i++) {
        struct served *s = &published.served[i];
        if (s->must_us == UINT64_MAX && (!stored || sim_now_us() < s->at_us + SURVIVES_US)) {
            s->must_us = sim_now_us();
        }
    }
}
