/* A world, drawn from its seed, and its course: mail and faults, then no more faults, then the
 * queue must drain. */
#include "world.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/dns_build.h"
#include "bh/assert.h"
#include "mutate.h"
#include "partner_tls.h"
#include "published.h"
#include "scenario.h"

#define DRAIN_US (12 * SIM_HOUR)
#define SPINS_MAX 300000U

struct world world;
static char failure[2048];
static jmp_buf end_of_run;
static bool guarded; /* it may be jumped to */

static uint32_t pick(uint32_t low, uint32_t high)
{
    return (uint32_t)sim_range(CHANCE_WORLD, low, high);
}

static uint32_t maybe(uint32_t permille, uint32_t low, uint32_t high)
{
    return sim_chance(CHANCE_WORLD, permille) ? pick(low, high) : 0;
}

/* ---- drawn ---- */

/* For promise 4: one domain is well, and nothing but partners is at fault. */
static void only_partners_are_sick(struct settings *s)
{
    s->sick_only = true;
    s->domains = pick(3, 5);
    s->dns_servfail = s->dns_silent = s->dns_nxdomain = s->dns_slow = 0;
    s->crash_per_hour = s->kv_step_crash = s->operator_per_hour = 0;
    s->clock_steps = s->cut_per_hour = 0;
    s->disk_full_permille = s->disk_slow_us = s->disk_fail_permille = 0;
}

static void draw_settings(void)
{
    struct settings *s = &world.set;
    *s = (struct settings){.domains = pick(2, 5), .hosts = pick(2, 6)};
    s->messages = pick(0, 9) > 0 ? pick(3, 25) : pick(40, 120);
    s->recipients_max = pick(1, 4);
    s->arrivals_us = pick(1, 40) * SIM_MINUTE;
    s->faults_us = s->arrivals_us + pick(1, 60) * SIM_MINUTE;
    s->size_max = pick(100, 20000);
    s->dns_servfail = maybe(300, 20, 700);
    s->dns_silent = maybe(300, 20, 700);
    s->dns_nxdomain = maybe(150, 10, 300);
    s->dns_slow = maybe(300, 50, 1000);
    s->crash_per_hour = maybe(400, 1, 40);
    s->power_permille = pick(0, 1000);
    s->kv_step_crash = maybe(250, 1, 100);
    s->operator_per_hour = maybe(500, 5, 120);
    s->reload_permille = pick(0, 600);
    s->clock_steps = maybe(150, 1, 3);
    s->cut_per_hour = maybe(200, 5, 60);
    s->disk_full_permille = maybe(150, 100, 900);
    if (s->disk_full_permille > 0) { /* and mail that would fill it */
        s->messages = pick(40, 120);
        s->size_max = pick(5000, 60000);
        s->arrivals_us = pick(1, 10) * SIM_MINUTE;
    }
    s->disk_slow_us = maybe(300, 1000, 500000);
    s->disk_fail_permille = maybe(60, 1, 20);
    s->check_every = sim_chance(CHANCE_WORLD, 100);
    if (sim_chance(CHANCE_WORLD, 120)) {
        only_partners_are_sick(s);
    }
}

static void draw_path(struct net_path *path)
{
    static const uint32_t latencies_ms[] = {0, 1, 5, 20, 100, 400};
    *path =
        (struct net_path){.latency_us = latencies_ms[pick(0, 5)] * SIM_MS + pick(20, 900),
                          .jitter_us = maybe(300, 10, 20000),
                          .bytes_per_s = sim_chance(CHANCE_WORLD, 300) ? pick(2000, 2000000) : 0,
                          .window = pick(0, 3) > 0 ? 65536 : pick(256, 16384),
                          .split_permille = maybe(400, 50, 900),
                          .cut_permille = maybe(60, 1, 10)};
}

void world_draw_host(unsigned i)
{
    struct host *h = &world.hosts[i];
    *h = (struct host){
        .number = i, .v4 = true, .ip = {.family = 4, .bytes = {198, 51, 100, (uint8_t)(i + 1)}}};
    snprintf(h->name, sizeof(h->name), "mx%u.test", i);
    snprintf(h->shown.name, sizeof(h->shown.name), "mx%u.test", i);
    h->shown.trusted = 1;
    partner_tls_key(h, 0, h->shown.spki);
    h->pipelining = sim_chance(CHANCE_WORLD, 700);
    h->chunking = sim_chance(CHANCE_WORLD, 500);
    h->think_us = maybe(400, 100, 300000);
    draw_path(&h->path);
    mood_make(&h->mood);
}

static void draw_hosts(void)
{
    world.host_count = world.set.hosts;
    for (unsigned i = 0; i < world.set.hosts; i++) {
        world_draw_host(i);
        if (world.set.sick_only && i == 0) { /* that of the domain that is well */
            struct host *h = &world.hosts[i];
            h->mood = (struct mood){0};
            h->path = (struct net_path){.latency_us = 5 * SIM_MS, .window = 65536};
            h->think_us = 0;
        }
    }
}

static void draw_domains(void)
{
    for (unsigned i = 0; i < world.set.domains; i++) {
        struct domain *d = &world.domains[i];
        *d = (struct domain){.host_count = pick(1, 2), .ttl_s = pick(5, 600)};
        snprintf(d->name, sizeof(d->name), i == DOMAIN_SENDERS ? "senders.test" : "d%u.test", i);
        const unsigned first = world.set.sick_only ? 1 : 0;
        const unsigned hosts = world.set.hosts - first;
        d->hosts[0] = first + pick(0, hosts - 1);
        d->hosts[1] = first + (d->hosts[0] - first + 1) % hosts;
        d->host_count = hosts == 1 ? 1 : d->host_count;
        if (world.set.sick_only && i == DOMAIN_WELL) {
            d->hosts[0] = 0;
            d->host_count = 1;
        }
    }
}

/* ---- what happens to it ---- */

static void start_daemon(void *ctx)
{
    (void)ctx;
    if (!process_running()) {
        /* With the file as the operator left it. */
        struct conf *last = &world.confs[world.conf_count - 1];
        conf_write(last, world.conf_path, world.folder);
        for (unsigned i = 0; i + 1 < world.conf_count; i++) {
            if (world.confs[i].until_us == 0) {
                world.confs[i].until_us = sim_now_us();
            }
        }
        last->until_us = 0;
        process_start();
    }
}

static void start_again(void *ctx)
{
    world.restart_planned = false;
    start_daemon(ctx);
}

static void plan(uint32_t per_hour, sim_fn *fn)
{
    if (per_hour > 0 && world.faults) {
        sim_after(sim_range(CHANCE_WORLD, 1, 2 * SIM_HOUR / per_hour), fn, NULL);
    }
}

static void crash(void *ctx)
{
    (void)ctx;
    if (!world.faults) {
        return;
    }
    if (sim_chance(CHANCE_WORLD, 250)) {
        process_stop();
    } else {
        process_kill(sim_chance(CHANCE_WORLD, world.set.power_permille));
    }
    plan(world.set.crash_per_hour, crash);
}

static void cut(void *ctx)
{
    (void)ctx;
    if (world.faults) {
        net_cut_all(pick(50, 1000));
        plan(world.set.cut_per_hour, cut);
    }
}

static void fill_disk(void *ctx)
{
    (void)ctx;
    if (world.faults) {
        disk_set_full(sim_chance(CHANCE_DISK, world.set.disk_full_permille));
        sim_after(sim_range(CHANCE_DISK, 1, 300) * SIM_SECOND, fill_disk, NULL);
    }
}

static void step_clock(void *ctx)
{
    (void)ctx;
    if (world.faults) {
        const uint64_t ms = sim_range(CHANCE_WORLD, 1, 7200000);
        const int64_t by = (int64_t)(ms % 4 == 0 ? ms * 18 : ms) * /* hours, at times days */
                           (sim_chance(CHANCE_WORLD, 500) ? 1 : -1);
        world.clock_stepped = true;
        sim_step_wall(by);
    }
}

static void change_moods(void *ctx)
{
    (void)ctx;
    if (world.faults) {
        const unsigned i = pick(world.set.sick_only ? 1 : 0, world.host_count - 1);
        if (sim_chance(CHANCE_WORLD, 500)) {
            mood_make(&world.hosts[i].mood);
        } else {
            world.hosts[i].mood = (struct mood){0};
        }
        if (world.has.rescue) {
            wider_keep_rescue();
        }
        sim_after(sim_range(CHANCE_WORLD, 1, 1200) * SIM_SECOND, change_moods, NULL);
    }
}

static void heal(void *ctx)
{
    (void)ctx;
    sim_trace("the faults are over");
    world.faults = false;
    disk_set_full(false);
    for (unsigned i = 0; i < world.host_count; i++) {
        world.hosts[i].mood = (struct mood){0};
        world.hosts[i].path.cut_permille = 0;
    }
    if (world.has.published) {
        published_heal();
    }
    password_heal();
    operators_heal();
}

/* ---- what it answers ---- */

static struct domain *find_domain(const char *name)
{
    for (unsigned i = 0; i < world.set.domains; i++) {
        if (strcmp(world.domains[i].name, name) == 0) {
            return &world.domains[i];
        }
    }
    return NULL;
}

static struct host *host_of(const struct bh_ip *ip)
{
    for (unsigned i = 0; i < world.host_count; i++) {
        struct host *h = &world.hosts[i];
        const bool v6 = ip->family == 6 && ip->bytes[0] == 0x20 && ip->bytes[1] == 1 &&
                        ip->bytes[2] == 0x0d && ip->bytes[3] == 0xb8 && ip->bytes[15] == i + 1;
        if (v6 ? h->v6 : h->v4 && ip->family == 4 && memcmp(h->ip.bytes, ip->bytes, 4) == 0) {
            return h;
        }
    }
    return NULL;
}

static void host_in_trouble(unsigned host)
{
    enum bh_tls_mode mode = BH_TLS_OFF;
    for (unsigned i = 0; i < world.set.domains; i++) {
        struct domain *d = &world.domains[i];
        for (unsigned k = 0; k < d->host_count; k++) {
            d->trouble_us = d->hosts[k] == host ? sim_now_us() : d->trouble_us;
        }
        if (host >= world.set.hosts && conf_tls_at(world_conf(), i, host, &mode)) {
            d->trouble_us = sim_now_us();
        }
    }
}

/* A name is not answered for as it should be. */
static void name_in_trouble(const char *name)
{
    unsigned host = 0;
    name += strncmp(name, "_25._tcp.", 9) == 0 || strncmp(name, "_mta-sts.", 9) == 0 ? 9 : 0;
    struct domain *d = find_domain(name);
    if (d != NULL) {
        d->trouble_us = sim_now_us();
    } else if (sscanf(name, "mx%u.test", &host) == 1) {
        host_in_trouble(host);
    }
}

enum net_answer world_on_connect(struct net_asked *asked, struct net_conn *conn)
{
    bool silent = false;
    const bool port = asked->port == 25 || scenario_on();
    struct host *h = port ? host_of(&asked->ip) : NULL;
    if (h == NULL) {
        sim_fail("the daemon connects to an address that no answer named");
        return NET_REFUSE;
    }
    host_in_trouble(h->number); /* it may turn out to be; it is asked, at least */
    asked->path = h->path;
    if (scenario_on() && scenario_is_down(h, &silent)) {
        return silent ? NET_SILENCE : NET_REFUSE;
    }
    if (!world.faults) {
        asked->path.cut_permille = 0;
    } else if (sim_chance(CHANCE_PARTNER, h->mood.silence)) {
        return NET_SILENCE;
    } else if (sim_chance(CHANCE_PARTNER, h->mood.refuse)) {
        return sim_chance(CHANCE_PARTNER, 800) ? NET_REFUSE : NET_UNREACHABLE;
    }
    sim_trace("a connection to %s", h->name);
    partner_answers(h, conn, asked);
    return NET_ACCEPT;
}

static void put_mx(struct dns_build *build, const struct domain *d)
{
    char text[80];
    for (unsigned i = 0; i < d->host_count; i++) {
        snprintf(text, sizeof(text), "%u %s", 10 * i, world.hosts[d->hosts[i]].name);
        dns_build_text(build, DNS_ANSWER, d->name, BH_DNS_MX, d->ttl_s, text);
    }
}

static void nxdomain_said(const struct domain *d)
{
    for (unsigned i = 0; i < recipient_count; i++) {
        if (&world.domains[recipients[i].domain] == d) {
            recipients[i].perm_failed = true;
        }
    }
}

/* Every name has an address: the partner's, or that of one who is always well. */
static void answer_scenario(uint16_t id, const char *name, uint16_t type, struct dns_build *build)
{
    char text[300];
    dns_build_start(build, id, 0x0180, name, type);
    if (type == BH_DNS_MX) {
        snprintf(text, sizeof(text), "10 mx.%s", name);
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_MX, 300, text);
    } else if (type == BH_DNS_A) {
        snprintf(text, sizeof(text), "198.51.100.%u", scenario_host(name)->number + 1);
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_A, 300, text);
    } else {
        dns_build_text(build, DNS_AUTHORITY, "test", BH_DNS_SOA, 300, "300");
    }
}

static bool answer(uint16_t id, const char *name, uint16_t type, struct dns_build *build,
                   uint64_t *delay_us, bool *leads)
{
    const struct settings *s = &world.set;
    const struct domain *d = find_domain(name);
    unsigned host = 0;
    if (world.faults && sim_chance(CHANCE_DNS, s->dns_silent)) {
        name_in_trouble(name);
        return false;
    }
    *delay_us = sim_range(CHANCE_DNS, 200, 20000) + (world.faults ? s->dns_slow * SIM_MS : 0);
    if (world.faults && s->dns_slow > 0) {
        name_in_trouble(name); /* it may come too late */
    }
    if (world.faults && sim_chance(CHANCE_DNS, s->dns_servfail)) {
        name_in_trouble(name);
        dns_build_start(build, id, 0x0182, name, type);
        return true;
    }
    if (published_bogus(id, name, type, build)) {
        name_in_trouble(name);
        return true;
    }
    if (world.has.published && published_answer(id, name, type, build, leads)) {
        return true;
    }
    const bool is_host = sscanf(name, "mx%u.test", &host) == 1 && host < world.host_count;
    const bool known = d != NULL || is_host || name[0] == '\0';
    if (!known || (d != NULL && world.faults && sim_chance(CHANCE_DNS, s->dns_nxdomain))) {
        if (d != NULL) {
            nxdomain_said(d);
            name_in_trouble(name);
        }
        dns_build_start(build, id, 0x0183, name, type);
        dns_build_text(build, DNS_AUTHORITY, "test", BH_DNS_SOA, 30, "30");
        return true;
    }
    dns_build_start(build, id, 0x0180 | published_ad(name), name, type);
    if (d != NULL && type == BH_DNS_MX) {
        put_mx(build, d);
    } else if (is_host && type == BH_DNS_AAAA && world.hosts[host].v6) {
        char text[32];
        snprintf(text, sizeof(text), "2001:db8::%x", host + 1);
        dns_build_text(build, DNS_ANSWER, name, type, (uint32_t)sim_range(CHANCE_DNS, 5, 600),
                       text);
    } else if (is_host && type == BH_DNS_A && world.hosts[host].v4) {
        char text[32];
        snprintf(text, sizeof(text), "198.51.100.%u", host + 1);
        dns_build_text(build, DNS_ANSWER, name, BH_DNS_A, (uint32_t)sim_range(CHANCE_DNS, 5, 600),
                       text);
    } else {
        dns_build_text(build, DNS_AUTHORITY, "test", BH_DNS_SOA, 30, "30");
    }
    return true;
}

bool world_on_query(unsigned server, uint16_t id, const char *name, uint16_t type,
                    struct dns_build *build, uint64_t *delay_us)
{
    bool leads = false;
    (void)server;
    if (scenario_on()) {
        *delay_us = 5 * SIM_MS;
        answer_scenario(id, name, type, build);
        return true;
    }
    const bool answered = answer(id, name, type, build, delay_us, &leads);
    sim_trace("  asked for %s, type %u%s", name, (unsigned)type, answered ? "" : ": silence");
    if (world.has.published) {
        published_asked(name, type, leads);
    }
    return answered;
}

unsigned world_on_fetch(const char *host, char *body, size_t body_cap, char *error,
                        size_t error_cap, uint64_t *delay_us)
{
    if (world.has.published) {
        return published_fetch(host, body, body_cap, error, error_cap, delay_us);
    }
    *delay_us = 100 * SIM_MS;
    snprintf(error, error_cap, "no such file");
    return 0;
}

void world_on_fetched(unsigned token)
{
    if (world.has.published) {
        published_fetched(token);
    }
}

/* ---- what it hears ---- */

void world_on_log(const char *line)
{
    if (strstr(line, "evt=clearance_violation") != NULL ||
        strstr(line, "evt=settle_without_entry") != NULL ||
        (strstr(line, "evt=settle_failed") != NULL && strstr(line, "\"full\"") != NULL &&
         !disk_is_full_of_reports())) {
        sim_fail("the daemon says: %s", line);
    }
    if (strstr(line, "evt=ready") != NULL) {
        world.ready = true;
    }
}

void world_on_event(const char *line)
{
    sim_trace("  event %s", line);
    if (scenario_on()) {
        scenario_attempt(line);
        return;
    }
    const char *rcpt = strstr(line, "\"rcpt\":\"");
    if (rcpt != NULL && strstr(line, "\"result\":\"uncertain\"") != NULL) {
        struct recipient *r = model_find(rcpt + 8, strlen(rcpt + 8));
        if (r != NULL) {
            r->uncertain_told = true;
        }
    }
    if (strstr(line, "\"evt\":\"uncertain\"") != NULL) {
        model_uncertain_event(line);
    }
}

const struct conf *world_conf(void)
{
    return &world.confs[world.conf_count - 1];
}

bool world_conf_within(unsigned back, uint64_t since_us, const struct conf **conf)
{
    const uint64_t now = sim_now_us();
    for (unsigned i = world.conf_count; i > 0; i--) {
        const struct conf *c = &world.confs[i - 1];
        const bool counts = c->until_us == 0 || c->until_us + since_us > now;
        if (counts && back-- == 0) {
            *conf = c;
            return true;
        }
    }
    return false;
}

/* ---- its course ---- */

_Noreturn void world_failed(const char *text)
{
    if (!guarded) {
        fprintf(stderr, "seed %llu failed outside of its run: %s\n", (unsigned long long)sim_seed,
                text);
        abort();
    }
    snprintf(failure, sizeof(failure), "%s", text);
    if (fiber_current() != NULL) {
        fiber_die(-2); /* back on the main stack, the failure is seen */
    }
    longjmp(end_of_run, 1);
}

const char *world_failure(void)
{
    return failure;
}

static void make_folder(void)
{
    if (world.folder[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(world.folder, sizeof(world.folder), "%s/bh-sim-XXXXXX",
                 base != NULL ? base : "/tmp");
        BH_ASSERT(mkdtemp(world.folder) != NULL);
        snprintf(world.conf_path, sizeof(world.conf_path), "%s/sim.conf", world.folder);
        snprintf(world.secret_path, sizeof(world.secret_path), "%s/secret", world.folder);
    }
    char path[400];
    snprintf(path, sizeof(path), "%s/inflight", world.folder);
    unlink(path);
}

void world_end(void)
{
    char path[400];
    partner_tls_end();
    if (world.folder[0] != '\0') {
        snprintf(path, sizeof(path), "%s/inflight", world.folder);
        unlink(path);
        snprintf(path, sizeof(path), "%s/sim.conf", world.folder);
        unlink(path);
        unlink(world.secret_path);
        rmdir(world.folder);
    }
}

void world_blank(uint64_t seed)
{
    char folder[256], conf_path[300], secret_path[300];
    memcpy(folder, world.folder, sizeof(folder));
    memcpy(conf_path, world.conf_path, sizeof(conf_path));
    memcpy(secret_path, world.secret_path, sizeof(secret_path));
    memset(&world, 0, sizeof(world));
    memcpy(world.folder, folder, sizeof(folder));
    memcpy(world.conf_path, conf_path, sizeof(conf_path));
    memcpy(world.secret_path, secret_path, sizeof(secret_path));
    make_folder();
    sim_seed = seed;
    sim_step = 0;
    say_reset();
    sim_clock_reset(seed);
    model_reset();
    mutate_reset();
    disk_new();
    failure[0] = '\0';
    world.begin_us = sim_now_us();
}

static void draw(uint64_t seed)
{
    world_blank(seed);
    draw_settings();
    draw_hosts();
    draw_domains();
    wider_draw();
    fiber_set_preempt(maybe(500, 1, 200));
    conf_make(&world.confs[0]);
    world.confs[0].from_us = sim_now_us();
    world.conf_count = 1;
    conf_write(&world.confs[0], world.conf_path, world.folder);
    world.faults = true;
    world.begin_us = sim_now_us();
}

static void set_off(void)
{
    process_start();
    senders_start();
    operators_start();
    if (world.has.published) {
        published_start();
    }
    password_start();
    plan(world.set.crash_per_hour, crash);
    plan(world.set.cut_per_hour, cut);
    if (world.set.disk_full_permille > 0) {
        sim_after(SIM_SECOND, fill_disk, NULL);
    }
    for (uint32_t i = 0; i < world.set.clock_steps; i++) {
        sim_after(sim_range(CHANCE_WORLD, 1, world.set.faults_us), step_clock, NULL);
    }
    sim_after(SIM_MINUTE, change_moods, NULL);
    sim_after(world.set.faults_us, heal, NULL);
}

/* A process that has died is started again, some time later. */
static void supervise(void)
{
    if (!process_running() && !world.restart_planned) {
        world.restart_planned = true;
        sim_after(sim_range(CHANCE_WORLD, 100, 30000) * SIM_MS, start_again, NULL);
    }
}

static void check_drained(void)
{
    char text[1024];
    if (sim_now_us() > world.begin_us + world.set.faults_us + DRAIN_US) {
        model_describe(text, sizeof(text));
        sim_fail("the faults have been over for %u hours, and the queue has not drained: %s",
                 (unsigned)(DRAIN_US / SIM_HOUR), text);
    }
}

/* One thread runs until it waits, or one event happens. */
void world_step(void)
{
    static uint64_t at_us, spins;
    sim_step++;
    spins = sim_now_us() == at_us ? spins + 1 : 0;
    at_us = sim_now_us();
    if (spins > SPINS_MAX) {
        sim_fail("the daemon spins: the clock has stood still for %u steps", SPINS_MAX);
    }
    if (!fiber_step() && !sim_next_event()) {
        sim_fail("nothing will ever happen again");
    }
    if (failure[0] != '\0') {
        longjmp(end_of_run, 1);
    }
    process_poll();
}

static void go(void)
{
    for (;;) {
        world_step();
        supervise();
        if (!world.faults && sim_step % 64 == 0) {
            check_drained();
            if (senders_done() && !operators_busy() && model_all_ended() && world.ready) {
                return;
            }
        }
    }
}

/* The last thing: it ends in good order, and leaves nothing. */
static void end_in_order(void)
{
    process_stop();
    const uint64_t until = sim_now_us() + SIM_HOUR;
    world.restart_planned = true;
    while (process_running()) {
        if (sim_now_us() > until) {
            sim_fail("the daemon does not end in good order");
        }
        world_step();
    }
}

void world_clean(void)
{
    world.over = true;
    if (process_running()) {
        process_kill(false);
    }
    partners_reset();
    senders_reset();
    operators_reset();
    model_reset();
    sim_clock_reset(sim_seed);
    net_forget_all();
    disk_gone();
}

bool world_guard(uint64_t (*run)(void), uint64_t *result)
{
    guarded = true;
    if (setjmp(end_of_run) == 0) {
        *result = run();
    }
    guarded = false;
    return failure[0] == '\0';
}

static uint64_t run_all(void)
{
    set_off();
    go();
    end_in_order();
    return 0;
}

bool world_has(uint64_t seed, const char *what, bool *known)
{
    draw(seed);
    const bool has = wider_has(what, known);
    world_clean();
    return has;
}

bool world_run(uint64_t seed)
{
    uint64_t unused = 0;
    draw(seed);
    const bool good = world_guard(run_all, &unused);
    world_clean();
    return good;
}
