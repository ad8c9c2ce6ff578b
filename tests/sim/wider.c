/* What a world has beside the plain: drawn, and asked for. */
#include <string.h>

#include "bh/assert.h"
#include "published.h"

/* The dead stay dead, and who stands in for them well. */
void wider_keep_rescue(void)
{
    const struct domain *dead = &world.domains[DOMAIN_DEAD];
    world.hosts[world.relay].mood = (struct mood){0};
    for (unsigned i = 0; i < dead->host_count; i++) {
        world.hosts[dead->hosts[i]].mood = (struct mood){.refuse = 1000};
    }
}

/* A host that no domain names. */
static unsigned draw_extra(void)
{
    BH_ASSERT(world.host_count < HOSTS_MAX);
    world_draw_host(world.host_count);
    return world.host_count++;
}

static void draw_addresses(void)
{
    for (unsigned i = 0; i < world.host_count; i++) {
        const uint64_t families = sim_range(CHANCE_WIDER, 1, 3);
        world.hosts[i].v4 = (families & 1) != 0;
        world.hosts[i].v6 = (families & 2) != 0;
    }
}

/* From a stream of its own, so that what a plain world is does not change with this. */
void wider_draw(void)
{
    struct wider *w = &world.has;
    *w = (struct wider){.published = sim_chance(CHANCE_WIDER, 300)};
    w->failover = sim_chance(CHANCE_WIDER, 150);
    w->lmtp = sim_chance(CHANCE_WIDER, 100);
    w->ipv6 = sim_chance(CHANCE_WIDER, 150);
    w->auth = sim_chance(CHANCE_WIDER, 120);
    if (world.set.sick_only) {
        *w = (struct wider){.rescue = sim_chance(CHANCE_WIDER, 250)};
        w->failover = w->rescue;
    }
    world.relay = w->failover ? draw_extra() : 0;
    world.lmtp_server = w->lmtp ? draw_extra() : 0;
    if (w->lmtp) {
        world.hosts[world.lmtp_server].lmtp = true;
        world.hosts[world.lmtp_server].chunking = false;
    }
    world.auth_server = w->auth ? draw_extra() : 0;
    password_draw();
    for (unsigned i = 0; w->failover && i < world.set.hosts && !world.set.sick_only; i++) {
        if (sim_chance(CHANCE_WIDER, 400)) {
            world.hosts[i].mood.refuse = 1000; /* so that there is something to take over */
        }
    }
    if (w->rescue) {
        world.hosts[world.relay].path = (struct net_path){.latency_us = SIM_MS, .window = 65536};
        world.hosts[world.relay].think_us = 0;
        wider_keep_rescue();
    }
    if (w->ipv6) {
        draw_addresses();
    }
    published_draw();
}

bool wider_has(const char *what, bool *known)
{
    const struct {
        const char *name;
        bool has;
    } all[] = {{"published", world.has.published},
               {"failover", world.has.failover},
               {"lmtp", world.has.lmtp},
               {"ipv6", world.has.ipv6},
               {"auth", world.has.auth}};
    bool has = false;
    *known = false;
    for (size_t i = 0; i < BH_COUNT(all); i++) {
        *known = *known || strcmp(all[i].name, what) == 0;
        has = has || (all[i].has && strcmp(all[i].name, what) == 0);
    }
    return has;
}
