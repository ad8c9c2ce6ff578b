/* Exceptions from a TLS demand, as time goes by (DESIGN 6): while one lasts the connector acts by
 * it; once it has ended the connector is held, and says so. It is spoken of each day from 14 days
 * before. */
#include "engine_internal.h"

#define SOON_MS (14 * BH_DAY_MS)
#define VERY_SOON_MS (3 * BH_DAY_MS)

static void tell(const struct bh_connector *c, int64_t left_ms)
{
    const struct bh_exception *x = &c->tls.exception;
    char reason[BH_LOG_QUOTE_MAX];
    (void)bh_log_quote(bh_slice_take(x->reason, 200), reason);
    if (left_ms <= 0) {
        bh_log(BH_LOG_ERROR,
               "evt=tls_exception_ended connector=%.*s reason=%s effect=\"its mail is held\"",
               BH_FMT(c->name), reason);
    } else if (left_ms <= SOON_MS) {
        bh_log(left_ms <= VERY_SOON_MS ? BH_LOG_ERROR : BH_LOG_WARN,
               "evt=tls_exception_ends connector=%.*s days=%lld reason=%s "
               "effect=\"then its mail is held\"",
               BH_FMT(c->name), (long long)((left_ms + BH_DAY_MS - 1) / BH_DAY_MS), reason);
    }
}

void eexception_tell(struct engine *e)
{
    const int64_t now_unix_ms = engine_now(e).unix_ms;
    e->exceptions_told_ms = uv_now(&e->loop);
    e->exceptions_unix_ms = now_unix_ms;
    for (size_t i = 0; i < e->config->connectors_count; i++) {
        const struct bh_connector *c = &e->config->connectors[i];
        if (c->tls.exception.until_unix_ms != 0) {
            tell(c, c->tls.exception.until_unix_ms - now_unix_ms);
        }
    }
}

void eexception_tick(struct engine *e)
{
    const int64_t now_unix_ms = engine_now(e).unix_ms;
    bool changed = false;
    for (size_t i = 0; i < e->config->connectors_count; i++) {
        const int64_t until = e->config->connectors[i].tls.exception.until_unix_ms;
        /* Either way: the clock may have been set back. */
        changed =
            changed || (until != 0 && (until <= now_unix_ms) != (until <= e->exceptions_unix_ms));
    }
    e->exceptions_unix_ms = now_unix_ms;
    if (changed) {
        engine_policy_changed(e);
    }
    if (changed || uv_now(&e->loop) - e->exceptions_told_ms >= (uint64_t)BH_DAY_MS) {
        eexception_tell(e);
    }
}
