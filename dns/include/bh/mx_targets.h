/* mx_targets.h - from a domain or a list of smarthosts to the ordered addresses to try (RFC 5321
 * section 5, RFC 7505, RFC 7672 section 2.2). Pure: it says which lookups it wants, is told the
 * answers, and then gives the list.
 *
 *   1. bh_target_plan_init with the request
 *   2. while bh_target_plan_next_query: look up, and call bh_target_plan_answer (any order; an
 *      answer may bring more queries)
 *   3. when no query is open, bh_target_plan_finish
 *
 * Order: preference first, random within one preference; smarthosts by priority, weighted random
 * within it. The addresses of a host alternate between the families, the preferred one first. */
#pragma once

#include "bh/dns_message.h"
#include "bh/rng.h"

enum bh_family_preference {
    BH_FAMILY_PREFER_6, /* both, IPv6 first */
    BH_FAMILY_PREFER_4, /* both, IPv4 first */
    BH_FAMILY_ONLY_6,
    BH_FAMILY_ONLY_4,
};

#define BH_TARGET_HOSTS_MAX ((size_t)32)     /* MX hosts looked up for one list, best first */
#define BH_TARGET_ADDRESSES_MAX ((size_t)16) /* addresses kept of one host, both families */
#define BH_TARGET_SMARTHOSTS_MAX ((size_t)16)

/** One smarthost as configured. */
struct bh_target_smarthost {
    struct bh_slice host; /* a name (any case), or an address: "192.0.2.1", "[2001:db8::1]" */
    uint16_t port;        /* 0: the port of the request */
    uint16_t priority;    /* the lowest is tried first */
    uint16_t weight;      /* share within its priority; 0 counts as least */
    bool lookup_mx;       /* expand by its MX records first */
};

/** An address and port where we listen ourselves. Port 0: any port. */
struct bh_own_address {
    struct bh_ip ip;
    uint16_t port;
};

/** What must not be a target. Everything is borrowed until the list is finished. */
struct bh_target_filter {
    const struct bh_slice *own_names; /* host names that mean this machine */
    size_t own_names_len;
    const struct bh_own_address *own_addresses;
    size_t own_addresses_len;
    const struct bh_net *forbidden; /* an address given literally for a smarthost is exempt */
    size_t forbidden_len;
    bool allow_loopback; /* else 127.0.0.0/8 and ::1 are forbidden too */
};

/** What to find. Either a domain or smarthosts. Borrowed until the list is finished. */
struct bh_target_request {
    struct bh_slice domain; /* A-labels or an address literal "[192.0.2.1]"; for its MX */
    const struct bh_target_smarthost *smarthosts; /* NULL: by the domain's MX */
    size_t smarthosts_len;
    uint16_t port; /* > 0 */
    enum bh_family_preference family;
    size_t round_max;          /* most addresses in one round; 0: 5 */
    size_t round_per_host_max; /* of one host while others wait; 0: 3 */
    struct bh_target_filter filter;
};

/** Why a host is, or is not, in the list. */
enum bh_host_state {
    BH_HOST_USABLE,
    BH_HOST_SELF,       /* this machine */
    BH_HOST_NOT_BETTER, /* behind or beside this machine in preference (RFC 5321 section 5.1) */
    BH_HOST_FORBIDDEN,  /* all its addresses are filtered out */
    BH_HOST_NO_ADDRESS, /* no name, no address, or no possible host name */
    BH_HOST_FAILED,     /* its lookups failed; may work later */
};

struct bh_target_host {
    struct bh_slice
        name; /* as in the MX record or the configuration, lower case; a literal's text */
    struct bh_slice
        canonical; /* the end of the CNAME chain of its addresses; name if there is none */
    enum bh_host_state state;
    uint16_t preference; /* of the MX record, or the smarthost's priority */
    uint16_t port;
    bool implicit;  /* the domain itself, for want of MX records */
    bool literal;   /* an address, not a name */
    bool mx_secure; /* the way to this name is authenticated: MX answer with AD, or configured */
    bool address_secure; /* each answered address lookup had AD. TLSA may be asked only if so */
    bool incomplete;     /* one address lookup failed. DANE must not use such a host, nor weaken */
    const struct bh_ip *addresses; /* filtered, families alternating */
    size_t addresses_len;
};

/** One address to try. */
struct bh_target {
    const struct bh_target_host *host;
    struct bh_ip ip;
    uint16_t port;
};

struct bh_target_list {
    bool usable; /* false: see happened; the rest still explains why */
    enum bh_happened
        happened; /* if not usable: NXDOMAIN, NULL_MX, NO_ADDRESS, DNS_FAILED, DNS_BOGUS,
                     DNS_TIMEOUT, ALL_FILTERED, LOOP, OUR_RESOURCE, or OUR_CONFIG for
                     smarthosts that don't exist: a mistake of ours never bounces */
    const struct bh_target *targets; /* in the order to try */
    size_t targets_len;
    size_t round_len;                   /* the first round: targets[0 .. round_len) */
    const struct bh_target_host *hosts; /* all, in order, the unusable ones too */
    size_t hosts_len;
    struct bh_slice site; /* sorted names, joined by ',': the site key; smarthosts with :port */
    uint32_t ttl_s;       /* ask again after this */
    bool mx_secure;       /* the MX answer had AD (also a secure denial); true for smarthosts */
};

struct bh_target_query {
    struct bh_slice name; /* normalised; in the plan's arena */
    uint16_t type;
    size_t tag; /* give it back with the answer */
};

struct bh_target_plan;

/** Start a plan in the arena; the plan and its list live as long as the arena does.
 *
 * @param plan  written on BH_OK
 * @return BH_OK, BH_EINVAL (a name that can't be: over-long or empty), BH_ENOMEM */
BH_MUST_USE enum bh_status bh_target_plan_init(const struct bh_target_request *request,
                                               struct bh_arena *arena,
                                               struct bh_target_plan **plan);
/** The next lookup wanted. @return false if there is none now */
bool bh_target_plan_next_query(struct bh_target_plan *plan, struct bh_target_query *query);
/** Tell an answer or a failure; `answer` is borrowed for this call. Each tag exactly once. */
void bh_target_plan_answer(struct bh_target_plan *plan, size_t tag,
                           const struct bh_dns_answer *answer);
/** True when nothing is asked and nothing is left to ask. */
bool bh_target_plan_is_complete(const struct bh_target_plan *plan);
/** The list. The plan must be complete.
 *
 * @param rng   the order among equals
 * @param list  written on BH_OK; its pointers live in the arena
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_target_plan_finish(struct bh_target_plan *plan, struct bh_rng *rng,
                                                 struct bh_target_list *list);

/** A copy with everything it points to. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_target_list_copy(const struct bh_target_list *list,
                                               struct bh_arena *arena, struct bh_target_list *copy);
/** Lower-case name, static storage. */
const char *bh_host_state_name(enum bh_host_state state);
