/* Configurations: drawn, changed and healed as the simulator means them, written as the daemon
 * reads them. */
#include <stdio.h>
#include <string.h>

#include "bh/assert.h"
#include "partner_tls.h"
#include "published.h"
#include "world.h"

static uint32_t pick(uint32_t low, uint32_t high)
{
    return (uint32_t)sim_range(CHANCE_WORLD, low, high);
}

static enum bh_tls_mode pick_tls(void)
{
    static const enum bh_tls_mode modes[] = {BH_TLS_OFF,    BH_TLS_OPPORTUNISTIC, BH_TLS_ENCRYPT,
                                             BH_TLS_VERIFY, BH_TLS_PIN,           BH_TLS_AUTO};
    return modes[pick(0, BH_COUNT(modes) - 1)];
}

/* The daemon takes no warning that would come with the end. */
static uint32_t pick_warning(uint32_t expire_s)
{
    const uint32_t after = pick(60, expire_s);
    return after < expire_s ? after : expire_s - 1;
}

static void make_times(struct conf *c)
{
    c->intervals_s[0] = pick(1, 60);
    c->intervals_s[1] = pick(30, 300);
    c->intervals_s[2] = pick(60, 1800);
    c->glitch_count = pick(1, 3);
    c->jitter = pick(0, 1) * 10;
    c->expire_s = sim_chance(CHANCE_WORLD, 400) ? pick(600, 7200) : 5 * 86400;
    c->expire_bounces_s = c->expire_s;
    c->warn_s = c->expire_s > 7200 ? pick(300, 14400) : pick_warning(c->expire_s);
}

/* Modes that ask what is published. */
static void ask_published(struct conf *c, unsigned domain)
{
    c->domains[domain].tls = published_pick_mode();
    if (!c->trusted) {
        c->domains[domain].tls = BH_TLS_AUTO;
    }
    c->domains[domain].fallback_encrypt = sim_chance(CHANCE_PUBLISHED, 300);
}

static void make_published(struct conf *c)
{
    c->trusted = sim_chance(CHANCE_PUBLISHED, 850);
    for (unsigned i = 0; i < DOMAINS_MAX; i++) {
        if (i != DOMAIN_SENDERS && sim_chance(CHANCE_PUBLISHED, 700)) {
            ask_published(c, i);
        }
    }
}

/* Credentials go to who is proven; in mode auto that depends on what is published. */
static void demand_for_auth(struct conf *c, unsigned domain)
{
    const uint64_t which = sim_range(CHANCE_AUTH, 0, 9);
    c->domains[domain].tls = which < 5 ? BH_TLS_VERIFY : which < 7 ? BH_TLS_PIN : BH_TLS_AUTO;
}

static bool wants_auth(const struct conf *c, unsigned domain)
{
    return world.has.auth && c->domains[domain].via == world.auth_server + 1;
}

static void make_routes(struct conf *c)
{
    const unsigned last = world.set.domains - 1;
    if (world.has.auth) {
        const unsigned domain = (unsigned)sim_range(CHANCE_AUTH, 1, last);
        c->domains[domain].via = world.auth_server + 1;
        demand_for_auth(c, domain);
    }
    if (world.has.lmtp) {
        const unsigned domain = (unsigned)sim_range(CHANCE_WIDER, 1, last);
        if (c->domains[domain].via == 0) {
            c->domains[domain].via = world.lmtp_server + 1;
        }
    }
    for (unsigned i = 1; world.has.failover && i <= last; i++) {
        c->domains[i].alternate =
            world.has.rescue ? i == DOMAIN_DEAD : sim_chance(CHANCE_WIDER, 700);
        c->domains[i].stricter = sim_chance(CHANCE_WIDER, 400);
    }
}

void conf_make(struct conf *c)
{
    *c = (struct conf){0};
    make_times(c);
    for (unsigned i = 0; i < DOMAINS_MAX; i++) {
        c->domains[i] =
            (struct conf_domain){.tls = pick_tls(), .own_connector = i != DOMAIN_SENDERS};
    }
    c->domains[DOMAIN_SENDERS].tls = BH_TLS_OPPORTUNISTIC;
    c->domains[DOMAIN_WELL].forbidden = sim_chance(CHANCE_WORLD, 150) && !world.set.sick_only;
    if (c->domains[DOMAIN_WELL].forbidden) { /* and mail that grows old meanwhile */
        c->expire_s = pick(600, 1800);
        c->expire_bounces_s = c->expire_s;
        c->warn_s = pick_warning(c->expire_s);
    }
    c->per_host = pick(1, 6);
    c->per_destination = pick(1, 8);
    c->initial = pick(1, c->per_destination);
    c->connections = pick(4, 40);
    c->idle_s = pick(1, 20);
    c->rate_per_minute = sim_chance(CHANCE_WORLD, 150) && !world.set.sick_only ? pick(20, 600) : 0;
    c->pipelining = sim_chance(CHANCE_WORLD, 800);
    c->chunking = sim_chance(CHANCE_WORLD, 600);
    c->uncertain_hold = sim_chance(CHANCE_WORLD, 200);
    c->fresh_window = pick(1, 4) > 1 ? 1000 : pick(1, 5);
    c->workers = pick(1, 3);
    if (world.has.published) {
        make_published(c);
    }
    make_routes(c);
}

void conf_change(struct conf *c)
{
    const unsigned domain = pick(1, world.set.domains - 1);
    c->broken = false;
    switch (pick(0, 9)) {
    case 0:
    case 1:
    case 2:
        c->domains[domain].tls = pick_tls();
        if (world.has.published && sim_chance(CHANCE_PUBLISHED, 700)) {
            ask_published(c, domain);
        }
        if (wants_auth(c, domain)) {
            demand_for_auth(c, domain);
        }
        break;
    case 3:
        c->per_host = pick(1, 6);
        break;
    case 4:
        c->per_destination = pick(1, 8);
        c->initial = pick(1, c->per_destination);
        break;
    case 5:
        make_times(c);
        break;
    case 6:
        c->domains[domain].held = !c->domains[domain].held;
        break;
    case 7:
        c->domains[domain].own_connector = !c->domains[domain].own_connector;
        break;
    case 8:
        c->broken = true;
        break;
    case 9:
        c->domains[domain].forbidden = !c->domains[domain].forbidden;
        c->uncertain_hold = !c->uncertain_hold;
        c->rate_per_minute = c->rate_per_minute == 0 ? pick(20, 600) : 0;
        break;
    }
}

void conf_heal(struct conf *c)
{
    c->broken = false;
    c->uncertain_hold = false;
    c->rate_per_minute = 0;
    for (unsigned i = 0; i < DOMAINS_MAX; i++) {
        c->domains[i].held = false;
        c->domains[i].forbidden = false;
        if (wants_auth(c, i)) {
            c->domains[i].tls = BH_TLS_VERIFY;
        }
        if (c->domains[i].tls == BH_TLS_DANE_ONLY) {
            c->domains[i].tls = BH_TLS_DANE; /* there may be nothing that it can be met by */
        }
    }
}

/* What a domain without a connector of its own gets: the default connector's. */
enum bh_tls_mode conf_tls(const struct conf *c, unsigned domain)
{
    return c->domains[domain].own_connector ? c->domains[domain].tls
                                            : c->domains[DOMAIN_SENDERS].tls;
}

/* The alternate's: never less than the first choice's. */
static enum bh_tls_mode alternate_tls(const struct conf_domain *d)
{
    const bool fixed =
        d->tls == BH_TLS_OFF || d->tls == BH_TLS_OPPORTUNISTIC || d->tls == BH_TLS_ENCRYPT;
    return fixed && d->stricter ? BH_TLS_VERIFY : d->tls;
}

bool conf_tls_at(const struct conf *c, unsigned domain, unsigned host, enum bh_tls_mode *mode)
{
    const struct conf_domain *d = &c->domains[domain];
    const struct domain *named = &world.domains[domain];
    *mode = conf_tls(c, domain);
    if (d->own_connector && d->alternate && host == world.relay) {
        *mode = alternate_tls(d);
        return true;
    }
    if (d->own_connector && d->via > 0) {
        return host == d->via - 1;
    }
    for (unsigned i = 0; i < named->host_count; i++) {
        if (named->hosts[i] == host) {
            return true;
        }
    }
    return false;
}

static void write_pins(FILE *out, const unsigned *hosts, unsigned count)
{
    fputs(" tls pin { pins", out);
    for (unsigned i = 0; i < count; i++) {
        fputc(' ', out);
        for (size_t k = 0; k < BH_PIN_LEN; k++) {
            fprintf(out, "%02x", world.hosts[hosts[i]].shown.spki[k]);
        }
    }
    fputs(" }", out);
}

/* @param hosts  where it takes mail */
static void write_tls(FILE *out, enum bh_tls_mode mode, bool fallback_encrypt,
                      const unsigned *hosts, unsigned host_count)
{
    if (mode == BH_TLS_VERIFY) {
        const char *ca_file = partner_tls_ca_file();
        fprintf(out, " tls verify { names mx-host;%s%s }", ca_file != NULL ? " ca-file " : "",
                ca_file != NULL ? ca_file : "");
    } else if (mode == BH_TLS_PIN) {
        write_pins(out, hosts, host_count);
    } else if (mode == BH_TLS_AUTO && world.has.published && partner_tls_ca_file() != NULL) {
        fprintf(out, " tls auto { ca-file %s }", partner_tls_ca_file());
    } else if (mode == BH_TLS_DANE && fallback_encrypt) {
        fputs(" tls dane { fallback-mode encrypt }", out);
    } else {
        fprintf(out, " tls %s", bh_tls_mode_name(mode));
    }
}

static void write_defaults(FILE *out, const struct conf *c)
{
    fprintf(out,
            "retry r { intervals %us %us %us; destination-intervals %us %us %us; glitch %ux%us\n"
            "  jitter %u%%; warn-after %us; expire %us; expire-bounces %us }\n",
            c->intervals_s[0], c->intervals_s[1], c->intervals_s[2], c->intervals_s[0],
            c->intervals_s[1], c->intervals_s[2], c->glitch_count, c->intervals_s[0], c->jitter,
            c->warn_s, c->expire_s, c->expire_bounces_s);
    fprintf(out,
            "defaults { retry r; pipelining %s; chunking %s; uncertain %s\n"
            "  limits { per-destination %u; initial %u; per-host %u; idle %us",
            c->pipelining ? "yes" : "no", c->chunking ? "yes" : "no",
            c->uncertain_hold ? "hold" : "retry", c->per_destination, c->initial, c->per_host,
            c->idle_s);
    if (c->rate_per_minute > 0) {
        static const char *const rates[] = {"recipient-rate",
                                            "connection-rate",
                                            "per-host-rate",
                                            "per-host-recipient-rate",
                                            "per-host-connection-rate",
                                            "per-destination-rate",
                                            "per-destination-recipient-rate",
                                            "per-destination-connection-rate",
                                            "rate"};
        fprintf(out, "; %s %u/min", rates[c->rate_per_minute % BH_COUNT(rates)],
                c->rate_per_minute);
    }
    fputs(" } }\n", out);
}

static void write_connector(FILE *out, const struct conf *c, unsigned i)
{
    const struct conf_domain *d = &c->domains[i];
    const struct domain *named = &world.domains[i];
    const unsigned via = d->via > 0 ? d->via - 1 : 0;
    fprintf(out, "connector c%u { domains %s;", i, named->name);
    write_tls(out, d->tls, d->fallback_encrypt, d->via > 0 ? &via : named->hosts,
              d->via > 0 ? 1 : named->host_count);
    if (d->via > 0) {
        fprintf(out, "; smarthosts [%s]:25%s", world.hosts[via].name,
                world.hosts[via].lmtp ? "; protocol lmtp" : "");
    }
    if (wants_auth(c, i)) {
        fprintf(out, "; auth auto { user bridgehead; password-file %s }", world.secret_path);
    }
    if (d->held) {
        fputs("; state held; reason \"by the simulator\"", out);
    }
    if (d->forbidden) {
        fputs("; resolver { forbidden-networks 198.51.100.0/24 2001:db8::/32 }", out);
    }
    fputs(" }\n", out);
    if (d->alternate) {
        fprintf(out, "connector a%u { domains %s; cost 10; failover yes; smarthosts [%s]:25;", i,
                named->name, world.hosts[world.relay].name);
        write_tls(out, alternate_tls(d), d->fallback_encrypt, &world.relay, 1);
        fputs(" }\n", out);
    }
}

void conf_write(const struct conf *c, const char *path, const char *folder)
{
    FILE *out = fopen(path, "w");
    BH_ASSERT(out != NULL);
    BH_ASSERT(c->warn_s < c->expire_s); /* else the daemon would rightly not start */
    fprintf(out,
            "engine { hostname relay.sim.test; control %s/control; event-log %s/events\n"
            "  workers %u; connections %u; drain-timeout 60s; log error\n"
            "  postmaster postmaster@%s }\n"
            "queue { path %s; fresh-window %u }\n"
            "resolver { servers 192.0.2.1:5301 192.0.2.2:5302; timeout 2s; trusted %s }\n"
            "listen 192.0.2.9:%u { relay-from 192.0.2.0/24 }\n",
            folder, folder, c->workers, c->connections, world.domains[DOMAIN_SENDERS].name, folder,
            c->fresh_window, c->trusted ? "yes" : "no", (unsigned)LISTEN_PORT);
    write_defaults(out, c);
    const struct domain *first = &world.domains[DOMAIN_SENDERS];
    fputs("connector default { domains *;", out);
    write_tls(out, c->domains[DOMAIN_SENDERS].tls, false, first->hosts, first->host_count);
    fputs(" }\n", out);
    for (unsigned i = 1; i < world.set.domains; i++) {
        if (c->domains[i].own_connector) {
            write_connector(out, c, i);
        }
    }
    if (c->broken) {
        fputs("connector oops { tls maybe }\n", out);
    }
    fclose(out);
}
