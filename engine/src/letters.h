/* letters.h - what the engine's thread is told, and by whom. Each struct starts with its letter. */
#pragma once

#include "lease.h"
#include "notify.h"

enum engine_letter {
    ENGINE_PUT,          /* writer: mail was committed (struct put_note) */
    ENGINE_DESTS,        /* reader: destinations and fresh items (struct dests_found) */
    ENGINE_REFILLED,     /* reader: (struct refill_task) */
    ENGINE_LEASE_LOADED, /* reader: (struct lease) */
    ENGINE_READY,        /* worker: (struct worker_session, its letters) */
    ENGINE_ITEM,         /* worker: decided (struct lease_item) */
    ENGINE_IDLE,
    ENGINE_CLOSED,
    ENGINE_SETTLED, /* writer: (struct settle_batch) */
    ENGINE_UPDATED, /* writer: a destination's record is written (struct dest_update) */
    ENGINE_PASSED,  /* writer: a slice of expiry or warning (struct age_task) */
    ENGINE_CALL,    /* anybody: run a function on the engine's thread (struct engine_call) */
};

#define NAME_MAX_OCTETS 256 /* a domain or a connector's name */

/** One part of committed mail. Names are inline, since the note outlives what they came from. */
struct put_part {
    uint32_t destination;
    uint16_t part;
    uint16_t recipients;
    enum bh_lane lane;
    struct bh_slice domain, connector; /* into the note */
};

struct put_note {
    struct bh_letter letter;
    uint64_t id;
    uint64_t size;
    bool tls_optional; /* TLS-Required: No */
    size_t count;
    struct put_part parts[]; /* then the names */
};

/** A function run on the engine's thread; `run` frees or reuses it. */
struct engine;
struct engine_call {
    struct bh_letter letter;
    void (*run)(struct engine_call *call, struct engine *engine);
};
