/* intake.h - the listening side: sockets, sessions, TLS, limits, and the way of a message into the
 * store. One struct bh_intake a worker, used on that worker's thread alone; what crosses threads
 * says so. The 250 goes out after the commit that holds the message, never before.
 *
 *     bh_intake_bind      one of the configured listeners, for all workers (main thread, at start)
 *     bh_intake_create    in each worker, with its share of the sockets
 *     bh_intake_drain     take no more, answer what awaits its commit, 421 to the rest
 *     bh_intake_destroy   when drained
 *
 * The process ignores SIGPIPE: clients hang up while they are being answered. */
#pragma once

#include <uv.h>

#include "bh/config.h"
#include "bh/inflight.h"
#include "bh/smtp_server.h"
#include "bh/store.h"

#define BH_INTAKE_SOCKETS_MAX 256 /* workers that one listener can serve */

/** The sockets of one listener. TCP: one a worker, bound to the same port with SO_REUSEPORT, so
 * that the kernel spreads connections. Unix and inherited sockets are one, and shared. */
struct bh_intake_sockets {
    int fds[BH_INTAKE_SOCKETS_MAX]; /* owned by the caller until a bh_intake_create took them */
    uint32_t count;                 /* as many as workers */
    uint16_t port;                  /* TCP: the port, also if the kernel chose it */
};

/** Open what a listener's block says. For BH_LISTEN_SYSTEMD the descriptor is found by its name in
 * LISTEN_FDNAMES (or is the only one). A stale Unix socket file is replaced.
 *
 * @param workers  1 to BH_INTAKE_SOCKETS_MAX
 * @param error    appended to on failure: what, why
 * @return BH_OK, BH_EIO, BH_ENOTFOUND (no such inherited descriptor), BH_EINVAL (path too long) */
BH_MUST_USE enum bh_status bh_intake_bind(const struct bh_listen_config *listen, uint32_t workers,
                                          struct bh_intake_sockets *sockets, struct bh_buf *error);

struct bh_intake_shared; /* counts of sessions, of all workers together; any thread */

/** @return NULL for want of memory */
struct bh_intake_shared *bh_intake_shared_create(void);
/** All workers' intakes must be gone. NULL is fine. */
void bh_intake_shared_destroy(struct bh_intake_shared *shared);
/** Sessions open now, in all. */
uint32_t bh_intake_shared_sessions(struct bh_intake_shared *shared);

/** A message that was just committed. Borrowed for the call. */
struct bh_intake_committed {
    uint64_t id;
    const struct bh_envelope *envelope;
    const struct bh_origin *origin;
    const struct bh_queue_group *groups;
    size_t group_count;
    const struct bh_queue_part *parts;
    size_t part_count;
    uint64_t generation; /* of the configuration it was matched against */
};

struct bh_intake_hooks {
    void *ctx;
    /** The configuration in force, a new reference. Worker threads. */
    const struct bh_config *(*config)(void *ctx);
    /** After the commit, on the writer's thread; must not block. May be NULL. */
    void (*on_committed)(void *ctx, const struct bh_intake_committed *committed);
    /** For matching with failover; worker threads; NULL: all connectors are available. */
    bh_connector_available *available;
    /** Asked about once a second while new transactions are refused because the store was full:
     * whether there is space again, with some to spare, so that the answer does not change with
     * every message. Worker threads; must not block for long. NULL: after a second, they are let
     * try. */
    bool (*has_room)(void *ctx);
    /** What this thread begins to do with a message that has no id yet, named by its fingerprint
     * (suspects.h), or NOTHING. Should that end the process, the next one knows what it was.
     * @param worker  the intake's number, or BH_INTAKE_STORE_THREAD for the calling thread of the
     *                store. May be NULL */
    void (*handling)(void *ctx, uint32_t worker, enum bh_handling_step step, uint64_t fingerprint);
    /** Whether content under this envelope is not to be read now. Worker threads; NULL: all is */
    bool (*refuse)(void *ctx, uint64_t fingerprint, struct bh_slice sender);
};

#define BH_INTAKE_STORE_THREAD UINT32_MAX

struct bh_intake_listener {
    struct bh_slice text; /* as in the configuration, by which a reload finds it again; copied */
    int fd;               /* taken over */
};

struct bh_intake_params {
    uv_loop_t *loop;
    struct bh_store *store;
    struct bh_intake_shared *shared;
    struct bh_intake_hooks hooks;
    uint32_t number;          /* of the worker, for the hooks */
    struct bh_slice hostname; /* ours, where neither listener nor engine block says; copied; empty:
                                 localhost */
    const struct bh_intake_listener *listeners;
    size_t listener_count;
    size_t content_max; /* octets of content held in memory by this worker; 0: 64 MiB */
};

struct bh_intake;

/** Start listening on this worker's loop. On failure the descriptors are closed.
 * @param error  appended to: a listener's certificate, mostly
 * @return BH_OK, BH_ENOMEM, BH_EIO, BH_EINVAL */
BH_MUST_USE enum bh_status bh_intake_create(const struct bh_intake_params *params,
                                            struct bh_intake **intake, struct bh_buf *error);
/** Whether an operator wants new transactions taken. Paused: new sessions get 421 too. Open: they
 * are taken unless the store is full, which the intake finds out by itself. */
void bh_intake_set_gate(struct bh_intake *intake, enum bh_server_gate gate);
/** Stop. `drained` is called on the loop when the last session is gone. */
void bh_intake_drain(struct bh_intake *intake, void (*drained)(void *ctx), void *ctx);
/** While draining: wait no longer for clients. What awaits its commit is still committed. */
void bh_intake_cut(struct bh_intake *intake);
/** Drained only; also from within `drained`. Its last handles close on the loop's next turns: run
 * the loop until then. NULL is fine. */
void bh_intake_destroy(struct bh_intake *intake);

struct bh_intake_stats {
    uint32_t sessions;
    uint64_t accepted_sessions;
    uint64_t refused_sessions; /* over a limit */
    uint64_t messages;         /* committed */
    uint64_t failed;           /* not committed: full or failed */
    size_t content_bytes;      /* in memory now */
};
void bh_intake_stats(const struct bh_intake *intake, struct bh_intake_stats *stats);
