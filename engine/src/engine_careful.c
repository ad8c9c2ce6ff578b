/* Hosts that speculation did not go well with (DESIGN 7): for an hour they are spoken to step by
 * step, whatever the connector says and however well it begins. */
#include "engine_internal.h"

#define CAREFUL_MS ((uint64_t)BH_HOUR_MS)

bool ecareful_is(struct engine *e, const struct bh_sched_address *address)
{
    const uint64_t now_ms = engine_now(e).mono_ms;
    bool found = false;
    for (uint32_t i = 0; i < CAREFUL_HOSTS && !found; i++) {
        const struct careful_host *known = &e->careful[i];
        found = known->until_ms > now_ms && known->port == address->port &&
                bh_ip_eq(&known->ip, &address->ip);
    }
    return found;
}

void ecareful_note(struct engine *e, const struct worker_session *s)
{
    const struct bh_sched_address *address = &s->addresses[s->target];
    if (!s->was_ready || !s->ahead_trouble || ecareful_is(e, address)) {
        return;
    }
    bh_log(BH_LOG_INFO, "evt=step_by_step connector=%.*s host=%s minutes=%u",
           BH_FMT(s->connector->name), s->hosts[s->target].name, (unsigned)(CAREFUL_MS / 60000));
    e->careful[e->careful_next] =
        (struct careful_host){address->ip, address->port, engine_now(e).mono_ms + CAREFUL_MS};
    e->careful_next = (e->careful_next + 1) % CAREFUL_HOSTS;
}
