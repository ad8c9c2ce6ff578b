/* Hosts that did not take well to being spoken to fast (DESIGN 7), for an hour. Where speculation
 * met trouble, content waits for replies, whatever the connector says and however well it begins.
 * Where commands sent together were called a fault, though the host offers that (RFC 2920), each
 * waits for the reply to the one before: else no session with it would ever come to anything. */
#include "engine_internal.h"

#define CAREFUL_MS ((uint64_t)BH_HOUR_MS)

/* NULL: nothing is known of it. */
static const struct careful_host *find(struct engine *e, const struct bh_sched_address *address)
{
    const uint64_t now_ms = engine_now(e).mono_ms;
    const struct careful_host *found = NULL;
    for (uint32_t i = 0; i < CAREFUL_HOSTS; i++) {
        const struct careful_host *known = &e->careful[i];
        if (known->until_ms > now_ms && known->port == address->port &&
            bh_ip_eq(&known->ip, &address->ip) && (found == NULL || known->no_pipelining)) {
            found = known;
        }
    }
    return found;
}

void ecareful_with(struct engine *e, const struct bh_sched_address *address,
                   struct session_host *host)
{
    const struct careful_host *known = find(e, address);
    host->step_by_step = known != NULL;
    host->no_pipelining = known != NULL && known->no_pipelining;
}

void ecareful_note(struct engine *e, const struct worker_session *s)
{
    const struct bh_sched_address *address = &s->addresses[s->target];
    const struct careful_host *known = find(e, address);
    const bool news = (s->sync_trouble && (known == NULL || !known->no_pipelining)) ||
                      (s->ahead_trouble && known == NULL);
    if (!s->was_ready || !news) {
        return;
    }
    bh_log(s->sync_trouble ? BH_LOG_WARN : BH_LOG_INFO, "evt=%s connector=%.*s host=%s minutes=%u",
           s->sync_trouble ? "no_pipelining" : "step_by_step", BH_FMT(s->connector->name),
           s->hosts[s->target].name, (unsigned)(CAREFUL_MS / 60000));
    e->careful[e->careful_next] = (struct careful_host){
        address->ip, address->port, engine_now(e).mono_ms + CAREFUL_MS, s->sync_trouble};
    e->careful_next = (e->careful_next + 1) % CAREFUL_HOSTS;
}
