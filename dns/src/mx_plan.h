/* mx_plan.h - what mx_plan.c gathers and mx_targets.c puts in order. */
#pragma once

#include "bh/mx_targets.h"

/** The families of a host's addresses. */
enum { PLAN_V4, PLAN_V6, PLAN_FAMILIES };

/** Addresses kept of one family before the list is cut. */
#define PLAN_FAMILY_MAX BH_TARGET_ADDRESSES_MAX

enum plan_step { PLAN_UNWANTED, PLAN_WANTED, PLAN_ASKED, PLAN_ANSWERED };

/** Where hosts come from: the domain's MX, or one smarthost. */
struct plan_source {
    struct bh_slice name;
    uint16_t port;
    uint16_t priority;
    uint16_t weight;
    enum plan_step mx;
    bool configured; /* a smarthost */
    bool failed;     /* `failure` says how the MX lookup ended without hosts */
    enum bh_happened failure;
    uint64_t rank; /* its place among the sources; set when the list is made */
};

struct plan_host {
    struct bh_target_host host;
    size_t source;
    enum plan_step step[PLAN_FAMILIES];
    struct bh_ip *ips[PLAN_FAMILIES]; /* PLAN_FAMILY_MAX each; filtered */
    size_t ips_len[PLAN_FAMILIES];
    bool all_secure; /* no answer without AD so far */
    bool is_self;
    bool is_filtered; /* at least one address was */
    bool failed;      /* `failure` says how */
    enum bh_happened failure;
    uint64_t dice; /* order within a preference; set when the list is made */
};

struct bh_target_plan {
    struct bh_target_request request;
    struct bh_arena *arena;
    struct plan_source *sources;
    size_t sources_len;
    struct plan_host *hosts;
    size_t hosts_len;
    size_t hosts_max;
    size_t hosts_per_source_max;
    size_t open; /* queries asked and not answered */
    bool out_of_memory;
    bool mx_secure;
    uint32_t ttl_s;         /* least of the answers; UINT32_MAX: none yet */
    uint32_t failure_ttl_s; /* least of the failures */
};

/** What a failed lookup means for mail. `status` must not be an answer. */
enum bh_happened plan_failure(enum bh_dns_status status);
/** Of several failures the one with the most weight is told; 0: no failure of a lookup. */
int plan_failure_weight(enum bh_happened happened);
