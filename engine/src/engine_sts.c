/* What the MTA-STS driver asks of the engine. */
#include "engine_internal.h"

static void settings(void *ctx, struct sts_settings *to)
{
    struct engine *e = ctx;
    const struct bh_config *config = e->config;
    /* A policy is the domain's, whatever connector its mail takes: so the resolver of all. */
    *to = (struct sts_settings){.resolver = engine_global_resolver(e),
                                .forbidden = &config->resolver.forbidden_networks,
                                .allow_loopback = config->resolver.allow_loopback,
                                .ca_file = config->engine.mta_sts.ca_file,
                                .port = config->engine.mta_sts.port,
                                .timeout_ms = config->engine.mta_sts.fetch_timeout_ms};
}

static void post(void *ctx, struct engine_call *call)
{
    engine_call(ctx, call);
}

static int64_t unix_ms(void *ctx)
{
    return engine_now(ctx).unix_ms;
}

static bool clock_suspect(void *ctx)
{
    const struct engine *e = ctx;
    return e->expiry_suspended;
}

enum bh_status ests_create(struct engine *e)
{
    const struct sts_options options = {.loop = &e->loop,
                                        .store = e->options.store,
                                        .settings = settings,
                                        .post = post,
                                        .pending = &e->pending,
                                        .unix_ms = unix_ms,
                                        .clock_suspect = clock_suspect,
                                        .ctx = e};
    return sts_create(&options, &e->sts);
}
