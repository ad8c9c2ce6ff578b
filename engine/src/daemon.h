/* daemon.h - the process: what main wires together, for the control socket and the reload. All of
 * it belongs to the main thread, which is the status thread of the design. */
#pragma once

#include <stdatomic.h>

#include "bh/inflight.h"
#include "bh/intake.h"
#include "bh/kv_lmdb.h"
#include "bh/resolver.h"
#include "bh/sandbox.h"
#include "bh/suspects.h"
#include "engine.h"

#define WORKERS_MAX 64
#define LISTENERS_MAX 64

struct control_server;
struct life;

struct daemon_worker {
    struct daemon *daemon;
    struct worker *worker;
    struct bh_intake *intake; /* the worker's thread alone */
    struct worker_call gate_call, cut_call;
    atomic_int gate; /* wanted */
    atomic_bool gate_posted;
    atomic_bool intake_failed;
};

struct daemon {
    uv_loop_t loop;
    uv_signal_t on_term, on_int, on_hup;
    uv_async_t doorbell; /* drained, failed, control answers */
    uv_timer_t drain_timer;
    uv_timer_t memory_timer;
    char *config_path;
    struct config_cell cell;
    struct bh_sandbox *sandbox; /* until it is entered */
    struct bh_kv *kv;
    struct bh_queue *queue;
    struct bh_inflight *inflight;
    struct leased_set leased;
    struct bh_suspects suspects; /* read at start, then only looked at, by workers */
    struct bh_store *store;
    struct event_log *events;
    struct engine *engine;
    struct bh_intake_shared *intake_shared;
    struct daemon_worker workers[WORKERS_MAX];
    struct worker *worker_list[WORKERS_MAX];
    uint32_t worker_count;
    struct bh_intake_sockets sockets[LISTENERS_MAX];
    struct bh_slice listener_texts[LISTENERS_MAX];
    size_t listener_count;
    struct bh_own_address own[512];
    size_t own_count;
    struct control_server *control;
    struct life *life;      /* NULL without a watchdog */
    struct bh_mailbox *box; /* letters for the main thread */
    int64_t started_unix_ms;
    bool paused; /* intake, by an operator */
    bool clock_unconfirmed;
    bool clock_behind;
    bool stopping;
    uv_sem_t intakes_started;
    atomic_uint intakes_left;
    atomic_bool engine_drained, store_failed, cut_sent;
    int exit_code;
};

/** A function run on the main thread; any thread may post it. */
struct daemon_call {
    struct bh_letter letter;
    void (*run)(struct daemon_call *call, struct daemon *d);
};
void daemon_call(struct daemon *d, struct daemon_call *call);
/** Open or close intake for operators. Main thread. */
void daemon_set_paused(struct daemon *d, bool paused);
/** Begin to end in good order. Main thread. */
void daemon_stop(struct daemon *d, const char *why);

/* recover.c */
/** At start, before there are threads: half-received messages go, who was in flight is marked, jobs
 * that left something alone begin anew; opens the in-flight file.
 * @return BH_OK, or what the store or the file says */
BH_MUST_USE enum bh_status daemon_recover(struct daemon *d, const struct bh_config *config);

/* config_load.c */
/** Parse and check the file, with what this engine can do; whether the files it names can be read
 * is asked by config_files_check, as the user that is to read them.
 * @param sandbox  NULL, or what is to allow reading the configuration again
 * @return BH_OK or BH_EINVAL, BH_ENOMEM */
BH_MUST_USE enum bh_status daemon_load_config(const char *path, uint64_t generation,
                                              struct bh_sandbox *sandbox,
                                              const struct bh_config **config,
                                              struct bh_config_errors *errors);
/** Log as much as the configuration says, from now on. */
void daemon_set_log_level(const struct bh_config *config);
/** Is a change of this setting ("engine workers"; "listen" for a listener that comes or goes) kept
 * only from the next start on? */
bool daemon_waits_for_start(struct bh_slice setting);
/** Warn of certificates and keys of listeners that cannot be loaded: after a reload these go on
 * with what they have. */
void daemon_check_listeners(const struct bh_config *config, struct bh_config_errors *errors);
