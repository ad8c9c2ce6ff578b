/* Promise 2 where policy is published: what must a connection prove before mail for a domain is
 * told to it? Computed from what was published, what the daemon was given of it and how long it may
 * still hold that; nothing of it from inside the daemon.
 *
 *   1. A fact that was replaced may count for WINDOW_US: the records' TTL, that of a route (300 s),
 *      and what a session then still had in hand. A process that began later holds nothing older.
 *   2. A lookup that failed, or that was found forged, is no fact: nothing is weaker for it.
 *   3. Each fact that may be held (the TLSA records of the host, whether its names are secure, the
 *      MTA-STS policy of the domain) is tried with each other one. One that allows it is enough. */
#include <stdio.h>
#include <string.h>

#include "published.h"

#define WINDOW_US (10 * SIM_MINUTE)
#define EDGE_US (5 * SIM_SECOND)

struct question {
    const struct conf *conf;
    unsigned domain;
    enum bh_tls_mode mode;
    const struct seen_link *link;
    uint64_t since_us, at_us; /* what was held between the two counts */
};

/* ---- what is demanded, by one set of facts ---- */

static bool is_usable(const struct tlsa_record *r)
{
    return r->usage == 3 && r->selector == 1 && r->matching == 1 && r->len == BH_PIN_LEN;
}

static bool has_usable(const struct tlsa_version *v)
{
    for (unsigned i = 0; i < v->count; i++) {
        if (is_usable(&v->records[i])) {
            return true;
        }
    }
    return false;
}

static bool matches(const struct tlsa_version *v, const struct seen_link *link)
{
    for (unsigned i = 0; link->tls && i < v->count; i++) {
        if (is_usable(&v->records[i]) &&
            memcmp(v->records[i].data, link->shown->spki, BH_PIN_LEN) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_verified(const struct seen_link *link)
{
    return link->tls && link->shown->trusted != 0 &&
           strcmp(link->shown->name, link->host->name) == 0;
}

static bool lists(const struct sts_version *v, unsigned domain, const struct host *host)
{
    const struct domain *d = &world.domains[domain];
    for (unsigned i = 0; v->lists_hosts && i < d->host_count; i++) {
        if (d->hosts[i] == host->number) {
            return true;
        }
    }
    return !v->lists_hosts && strcmp(v->patterns, "*.test") == 0;
}

/* @param tlsa  NULL: they do not apply  @param sts  NULL: no policy */
static bool allows(const struct question *q, const struct tlsa_version *tlsa,
                   const struct sts_version *sts)
{
    const struct seen_link *link = q->link;
    if (tlsa != NULL && has_usable(tlsa)) {
        return matches(tlsa, link);
    }
    const bool unusable = tlsa != NULL && tlsa->count > 0;
    switch (q->mode) {
    case BH_TLS_DANE_ONLY:
        return false;
    case BH_TLS_DANE:
        return link->tls || (!unusable && !q->conf->domains[q->domain].fallback_encrypt);
    case BH_TLS_AUTO:
        if (sts != NULL && sts->mode == STS_IS_ENFORCE && !link->smarthost) {
            return is_verified(link) && lists(sts, q->domain, link->host);
        }
        return link->tls || !unusable;
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
    case BH_TLS_VERIFY:
    case BH_TLS_PIN:
        break;
    }
    return false;
}

/* ---- MTA-STS: what may be held ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static const struct sts_version *version_of(const struct served *s)
{
    return &published.domains[s->domain].versions[s->version];
}

/* A time in the store that lies ahead of the clock counts as now: a clock that was wrong lengthens
 * it.
 */
static uint64_t may_end(const struct served *s)
{
    return world.clock_stepped ? s->may_us
                               : least(s->may_us, s->at_us + version_of(s)->max_age_s * SIM_SECOND);
}

static uint64_t must_end(const struct served *s)
{
    return least(s->must_us, s->at_us + version_of(s)->max_age_s * SIM_SECOND);
}

/* Was there a moment since then without a policy, and a look for one that led nowhere? After a
 * fetch that failed it is not tried again for five minutes (RFC 8461 section 3.3), and an answer
 * counts for a minute. Those that were served lie in order of time. */
static bool may_have_none(const struct question *q)
{
    uint64_t covered_us = q->since_us;
    const uint64_t failed_us = published.domains[q->domain].failed_us;
    if (failed_us == 0 || failed_us + STS_FAILED_US < q->since_us) {
        return false; /* in no life: that a fetch has failed is stored, too */
    }
    for (unsigned i = 0; i < published.served_count; i++) {
        const struct served *s = &published.served[i];
        const uint64_t end_us = must_end(s);
        if (s->domain == q->domain && s->at_us <= covered_us && end_us > covered_us) {
            covered_us = end_us;
        }
    }
    return covered_us < q->at_us + EDGE_US;
}

static bool allows_with_sts(const struct question *q, const struct tlsa_version *tlsa)
{
    if (q->mode != BH_TLS_AUTO || q->link->smarthost) { /* whose is no domain's to say */
        return allows(q, tlsa, NULL);
    }
    if (may_have_none(q) && allows(q, tlsa, NULL)) {
        return true;
    }
    for (unsigned i = 0; i < published.served_count; i++) {
        const struct served *s = &published.served[i];
        if (s->domain == q->domain && s->at_us <= q->at_us && may_end(s) >= q->since_us - EDGE_US &&
            allows(q, tlsa, version_of(s))) {
            return true;
        }
    }
    return false;
}

/* ---- DANE: what may be held ---- */

static bool may_be_insecure(const struct question *q)
{
    const unsigned host = q->link->host->number;
    return (!published.domains[q->domain].is_signed && !q->link->smarthost) ||
           !published.hosts[host].is_signed || q->since_us < published.validates_us;
}

bool policy_allows(const struct conf *conf, unsigned domain, enum bh_tls_mode mode,
                   const struct seen_link *link)
{
    const uint64_t began_us = link->life == world.life ? world.life_began_us : 0;
    struct question q = {
        .conf = conf, .domain = domain, .mode = mode, .link = link, .at_us = link->at_us};
    q.since_us = q.at_us > WINDOW_US ? q.at_us - WINDOW_US : 0;
    q.since_us = q.since_us > began_us ? q.since_us : began_us;
    if (!world.has.published) {
        return mode == BH_TLS_AUTO;
    }
    if (!conf->trusted) {
        return mode == BH_TLS_AUTO && allows_with_sts(&q, NULL);
    }
    if (q.at_us < published.validates_us) {
        return false; /* the self-test of the resolver can't have been passed */
    }
    if (may_be_insecure(&q) && allows_with_sts(&q, NULL)) {
        return true;
    }
    const unsigned host = link->host->number;
    for (unsigned i = 0; i < published.hosts[host].count; i++) {
        const bool last = i + 1 == published.hosts[host].count;
        const struct tlsa_version *v = &published.hosts[host].versions[i];
        if (v->from_us <= q.at_us && (last || v[1].from_us >= q.since_us) &&
            allows_with_sts(&q, v)) {
            return true;
        }
    }
    return false;
}
