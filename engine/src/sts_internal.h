/* sts_internal.h - what the files of the MTA-STS driver share.
 *
 * A domain is looked up in rounds: its row (once), its record, and, where the entry says so, the
 * addresses of its policy's host and the policy. Who asks joins the round under way; who must not
 * be answered from a cache waits for one that began after he asked. */
#pragma once

#include "bh/arena.h"
#include "bh/map.h"
#include "bh/sts_cache.h"
#include "sts.h"
#include "sts_fetch.h"

#define STS_DOMAINS_MAX 4096 /* in memory */
#define STS_ROWS_MAX 20000   /* stored */
#define STS_FETCHES_MAX 32   /* at a time */
#define STS_NAME_MAX 256

enum sts_state {
    STS_IDLE,
    STS_LOADING,   /* its row is being read */
    STS_RECORD,    /* its record is being looked up */
    STS_ADDRESSES, /* those of its policy's host */
    STS_WAITING,   /* for its turn to fetch */
    STS_FETCHING,
};

struct sts_waiter {
    struct sts_waiter *next;
    sts_fn *cb;
    void *ctx;
    uint64_t round; /* answered by this round or a later one */
    bool force;
};

struct sts_domain {
    struct bh_map_node node;
    struct sts_domain *prev, *next; /* in the list of its kind: idle or busy */
    struct sts *sts;
    char name[STS_NAME_MAX];
    struct bh_sts_entry entry;
    bool loaded;
    enum sts_state state;
    uint64_t round;
    bool answered; /* this round answers at once: it goes on for a renewal alone */
    struct sts_waiter *waiters;
    uint32_t questions; /* open with the resolver, of earlier rounds too */
    uint32_t addresses_open;
    struct bh_ip addresses[STS_FETCH_ADDRESSES_MAX];
    size_t address_count;
    char refused[96]; /* why an address was not taken */
    uint64_t deadline_ms;
    uint32_t ttl_s; /* of its record */
    bool unasked;   /* the question for its record could not be asked: told at the next tick */
    struct sts_fetch *fetch;
};

struct sts_list {
    struct sts_domain *first, *last;
};

struct sts {
    struct sts_options options;
    struct sts_fetcher *fetcher;
    uv_timer_t tick;   /* deadlines, answers that are due; runs while anything is busy */
    uv_timer_t upkeep; /* renewals, age */
    struct bh_map domains;
    struct sts_list idle; /* least recently used first */
    struct sts_list busy;
    uint32_t fetching;
    bool draining, stopped;
    bool scanning;
};

struct bh_now sts_now(const struct sts *sts);
/** A round without anybody who waits: for the daily renewal. */
void sts_renew(struct sts *sts, struct bh_slice name);

/* sts_store.c */
/** Read its row; sts_on_row follows. @return BH_OK, BH_ENOMEM, BH_EFULL */
BH_MUST_USE enum bh_status sts_store_load(struct sts_domain *d);
/** @param status  BH_OK, BH_ENOTFOUND (no row), or why it can't be told */
void sts_on_row(struct sts_domain *d, enum bh_status status, struct bh_slice row);
/** Write its row, if there is anything new. */
void sts_store_save(struct sts_domain *d);
/** Look through all rows: what has expired goes, what is due for renewal is renewed. */
void sts_store_upkeep(struct sts *sts);

/* sts_lookup.c */
/** Ask for the record. */
void sts_ask_record(struct sts_domain *d, bool force);
/** Fetch the policy: addresses first. */
void sts_ask_policy(struct sts_domain *d);
/** Whoever waits for his turn. */
void sts_next_fetch(struct sts *sts);
/** Give up what is under way for the policy, for this reason. */
void sts_abandon(struct sts_domain *d, struct bh_slice why);

/* sts.c */
void sts_on_record(struct sts_domain *d, enum bh_sts_seen seen, struct bh_slice id,
                   struct bh_slice why);
/** A policy, or why there is none. */
void sts_on_policy(struct sts_domain *d, struct bh_slice body, struct bh_slice error);
