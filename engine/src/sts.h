/* sts.h - MTA-STS on the engine's loop (RFC 8461): the record by DNS, the policy by HTTPS, both
 * remembered in the store. One thread: the engine's. Callbacks come from the loop, never from
 * inside the call that asked.
 *
 * A valid policy that was fetched once stays in force until its max_age is over, whatever becomes
 * of the record or of the policy's host; only a newer policy, fetched and verified, replaces it. */
#pragma once

#include <uv.h>

#include "bh/connector.h"
#include "bh/resolver.h"
#include "bh/store.h"
#include "bh/sts.h"
#include "letters.h"

struct sts;

/** How policies are fetched; borrowed for the call that asked for it. */
struct sts_settings {
    struct bh_resolver *resolver;
    const struct bh_nets *forbidden; /* never connected to */
    bool allow_loopback;
    struct bh_slice ca_file; /* NUL-terminated behind; empty: the system's store */
    uint16_t port;           /* 443 */
    uint64_t timeout_ms;     /* of one fetch, lookups of its host included */
};

struct sts_options {
    uv_loop_t *loop;
    struct bh_store *store;
    void (*settings)(void *ctx, struct sts_settings *settings);
    /** Carry a call to the engine's thread; from any thread. */
    void (*post)(void *ctx, struct engine_call *call);
    uint64_t *pending; /* counts tasks of the store whose answer is such a call */
    int64_t (*unix_ms)(void *ctx);
    bool (*clock_suspect)(void *ctx); /* it stepped: nothing ends, or is thrown away, for its age */
    void *ctx;
};

/** @param fact  what is in force; borrowed for the call, never NULL */
typedef void sts_fn(void *ctx, const struct bh_sts_fact *fact);

/** Before any thread starts. @return BH_OK, BH_ENOMEM */
BH_MUST_USE enum bh_status sts_create(const struct sts_options *options, struct sts **sts);

/** What is in force for a policy domain: the recipients' domain, or the smarthost's name (RFC 8461
 * section 3.4); never an address. A valid remembered policy answers at once but for the look at the
 * record; a first contact takes one fetch at most (`timeout_ms`). Equal lookups join.
 *
 * @param domain  A-labels, copied
 * @return BH_OK: cb comes exactly once. BH_EINVAL: no name that could have a policy. BH_ENOMEM,
 *         BH_EFULL, BH_EBUSY (draining): nothing is known, so defer */
BH_MUST_USE enum bh_status sts_lookup(struct sts *sts, struct bh_slice domain, sts_fn *cb,
                                      void *ctx);
/** The same, past every cache of DNS: before a message is ended because of a policy, a newer one is
 * looked for (section 5.1). fact->changed says that there is one. */
BH_MUST_USE enum bh_status sts_refresh_before_bounce(struct sts *sts, struct bh_slice domain,
                                                     sts_fn *cb, void *ctx);

/** What is known of a domain, without a look at anything: of what was looked up since the start.
 * @param fact  borrowed until the next call of any kind
 * @param announced  the id of its record, as last seen
 * @return false: nothing */
bool sts_peek(struct sts *sts, struct bh_slice domain, struct bh_sts_fact *fact,
              struct bh_slice *announced);
/** On the loop: renewals and what is past its time begin to be looked after. */
void sts_start(struct sts *sts);
/** The engine drains: nothing more is asked of the store, nor looked up anew. */
void sts_drain(struct sts *sts);
/** On the loop, before the resolvers are destroyed: every lookup still open is answered with
 * BH_STS_UNKNOWN, inside this call; handles close. */
void sts_stop(struct sts *sts);
/** After the loop has ended, or instead of it. NULL is fine. */
void sts_destroy(struct sts *sts);
