/* Promise 2, seen from a partner: who may be told of whom, over which connection. */
#include <string.h>

#include "partner_tls.h"
#include "published.h"

/* A session may outlive a key of its host's. */
bool partner_is_own_key(const struct seen_link *link)
{
    uint8_t spki[BH_PIN_LEN];
    for (unsigned i = 0; i <= link->host->generation; i++) {
        partner_tls_key(link->host, i, spki);
        if (memcmp(link->shown->spki, spki, BH_PIN_LEN) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_satisfied(const struct seen_link *link, const struct conf *conf, unsigned domain)
{
    const bool good_name = strcmp(link->shown->name, link->host->name) == 0;
    enum bh_tls_mode mode = BH_TLS_OFF;
    if (!conf_tls_at(conf, domain, link->host->number, &mode)) {
        return false;
    }
    switch (mode) {
    case BH_TLS_OFF:
    case BH_TLS_OPPORTUNISTIC:
        return true;
    case BH_TLS_ENCRYPT:
        return link->tls;
    case BH_TLS_DANE:
    case BH_TLS_DANE_ONLY:
    case BH_TLS_AUTO:
        return policy_allows(conf, domain, mode, link);
    case BH_TLS_VERIFY:
        return link->tls && good_name && link->shown->trusted != 0;
    case BH_TLS_PIN:
        return link->tls && partner_is_own_key(link);
    }
    return false;
}

static bool is_host_of(const struct host *host, unsigned domain)
{
    const struct domain *d = &world.domains[domain];
    for (unsigned i = 0; i < d->host_count; i++) {
        if (d->hosts[i] == host->number) {
            return true;
        }
    }
    return false;
}

/* A session in flight may end its transaction under the configuration before: some minutes. */
void partner_check(const struct seen_link *seen, const struct recipient *r)
{
    const struct conf *conf = NULL;
    struct seen_link link = *seen;
    bool known = false;
    bool good = false;
    enum bh_tls_mode mode = BH_TLS_OFF;
    const uint64_t since_us = sim_now_us() - link.at_us + 5 * SIM_MINUTE;
    link.smarthost = !is_host_of(link.host, r->domain);
    for (unsigned back = 0; !good && world_conf_within(back, since_us, &conf); back++) {
        known = known || conf_tls_at(conf, r->domain, link.host->number, &mode);
        good = is_satisfied(&link, conf, r->domain);
    }
    if (!known) {
        sim_fail("recipient %u came to %s, which is no host of its domain", r->number,
                 link.host->name);
    }
    if (!good) {
        (void)conf_tls_at(world_conf(), r->domain, link.host->number, &mode);
        sim_fail("recipient %u is told to %s %s, and its connector demands tls %s", r->number,
                 link.host->name,
                 link.tls ? "over TLS that does not meet the demand" : "in clear text",
                 bh_tls_mode_name(mode));
    }
}
