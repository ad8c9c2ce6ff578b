/* published.h - what domains and hosts publish about their TLS: signed zones, TLSA records (RFC
 * 7672), MTA-STS policies (RFC 8461). How it changes is remembered, and so is which policy the
 * daemon has got and when: from that model_policy.c knows what it must demand. */
#pragma once

#include "world.h"

#define TLSA_MAX 3
#define VERSIONS_MAX 48
#define SERVED_MAX 512
/* So long a fetch that failed counts: five minutes (RFC 8461 section 3.3), and some. */
#define STS_FAILED_US (6 * SIM_MINUTE)

/** A TLSA record. In the simulator a usable one is `3 1 1` and the whole hash of a key. */
struct tlsa_record {
    uint8_t usage, selector, matching, len;
    uint8_t data[BH_PIN_LEN];
};

/** The TLSA records of a host, from then on. */
struct tlsa_version {
    uint64_t from_us;
    unsigned count;
    struct tlsa_record records[TLSA_MAX];
};

/** A policy, and what tells of it, from then on. */
struct sts_version {
    uint64_t from_us;
    enum { STS_IS_NONE, STS_IS_TESTING, STS_IS_ENFORCE } mode;
    bool announced;    /* _mta-sts has its record */
    bool reachable;    /* the policy's host answers as it should */
    char patterns[32]; /* "*.test", or one name */
    bool lists_hosts;  /* those of the domain, by name */
    uint32_t max_age_s;
    unsigned id;
};

/** A policy that the daemon has got. It may hold it until the next one comes, and must until then
 * or until the end of a process that may not have stored it. */
struct served {
    unsigned domain, version;
    uint64_t at_us, may_us, must_us; /* UINT64_MAX: still */
};

struct published {
    uint32_t ttl_s;          /* of all that is published */
    uint64_t validates_us;   /* the resolvers validate from then on; before, nothing has AD */
    uint32_t bogus_permille; /* of signed answers */
    bool sts_often;          /* MTA-STS above all */
    struct {
        bool is_signed;
        unsigned generation; /* of its key */
        struct tlsa_version versions[VERSIONS_MAX];
        unsigned count;
    } hosts[HOSTS_MAX];
    struct {
        bool is_signed;
        struct sts_version versions[VERSIONS_MAX];
        unsigned count;     /* 0: nothing of MTA-STS */
        uint64_t failed_us; /* when the daemon last asked for it in vain */
    } domains[DOMAINS_MAX];
    struct served served[SERVED_MAX];
    unsigned served_count;
};
extern struct published published;

/** Drawn, in a world that has them; none in another. */
void published_draw(void);
/** They change from time to time while faults are on. */
void published_start(void);
/** All is as it should be, from now on. */
void published_heal(void);
/** The daemon's process has ended. */
void published_process_died(void);

/* For configurations. */
enum bh_tls_mode published_pick_mode(void);

/* For answers. */

/** The answer to a question for TLSA or of MTA-STS.
 *
 * @param leads  whether it leads to a policy
 * @return false: it is about something else */
bool published_answer(uint16_t id, const char *name, uint16_t type, struct dns_build *build,
                      bool *leads);
/** What an answer about this name has among its flags: AD, or nothing. */
unsigned published_ad(const char *name);
/** This time, does the validator find it forged? Then the answer is made. */
bool published_bogus(uint16_t id, const char *name, uint16_t type, struct dns_build *build);
/** A policy is asked for. @return what published_fetched is to be told when it has arrived */
unsigned published_fetch(const char *host, char *body, size_t body_cap, char *error,
                         size_t error_cap, uint64_t *delay_us);
void published_fetched(unsigned token);
/** A question was asked. Where it leads to no policy there may be none for the daemon. */
void published_asked(const char *name, uint16_t type, bool leads);

/* ---- model_policy.c ---- */

/** What a partner has seen of a connection. */
struct seen_link {
    const struct host *host;
    bool tls;
    bool smarthost; /* it is one, for this domain */
    const struct tls_shown *shown;
    uint64_t at_us; /* when the daemon said so */
    unsigned life;
};
/** May mail for the domain be told to it, where its connector has this mode (dane, dane-only or
 * auto)? Whatever the daemon may still hold of what was published counts. */
bool policy_allows(const struct conf *conf, unsigned domain, enum bh_tls_mode mode,
                   const struct seen_link *link);
