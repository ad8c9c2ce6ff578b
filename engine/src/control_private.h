/* control_private.h - shared by the files of the control server. */
#pragma once

#include "bh/control.h"
#include "bh/refusal.h"
#include "bh/sts.h"
#include "bh/tls_demand.h"
#include "bh/view.h"
#include "control_peer.h"
#include "control_server.h"
#include "daemon.h"
#include "limit_words.h"

struct conn;

/* What the engine knew at one moment: made on its thread, then read by views anywhere. */
struct snapshot_dest {
    uint32_t id;
    uint32_t sessions, leased;
    struct limit_words limit;
    uint64_t left, left_ms;            /* messages, lately */
    uint64_t message_ns, recipient_ns; /* its slowest rates; 0: none */
    char carrier[64];                  /* the connector that takes over; empty: none does */
};
#define SNAPSHOT_HOSTS_MAX 32
#define SNAPSHOT_RECORDS_MAX 8 /* TLSA, of one host */
struct snapshot_host {
    char name[256], connector[128];
    uint16_t port;
    bool used, route_proven;
    char base[256];
    char records[SNAPSHOT_RECORDS_MAX][BH_PIN_LEN * 2 + 16]; /* cut: whole certificates are long */
    struct bh_slice record_texts[SNAPSHOT_RECORDS_MAX];
    size_t record_count;
    uint64_t record_all;
    int64_t made_unix_ms, until_unix_ms;
    const char *tls, *from, *reason, *dane, *weakened, *lifted; /* static storage */
};
struct snapshot {
    struct bh_live_engine engine;
    char dnssec[288];
    const char *sts_origin; /* static; NULL: nothing is known */
    char sts_trouble[BH_STS_TROUBLE_MAX], sts_announced[BH_STS_ID_MAX + 1];
    size_t host_count; /* of the domain that is explained */
    struct snapshot_host hosts[SNAPSHOT_HOSTS_MAX];
    size_t count;
    struct snapshot_dest dests[]; /* by id */
};

/* One answer under way. On the main thread, but for the task that it has with the store or the
 * engine; freed at its end. */
struct bh_control_reply {
    struct control_server *server;
    struct bh_control_reply *next, *prev; /* of all that are alive */
    struct conn *conn;                    /* NULL: nobody waits (SIGHUP, a job taken up at start) */
    struct bh_control_request request;
    bool has_request;
    bool lost; /* out of memory for the answer */
    struct bh_buf out;
    void (*written)(struct bh_control_reply *reply); /* when `out` has gone to the socket */
    struct daemon_call call;                         /* back to the main thread */
    struct engine_call engine_call;
    struct bh_store_task task;
    enum bh_status status;
    struct bh_now now;

    struct snapshot *snapshot; /* views */
    struct bh_view *view;

    uint32_t after; /* destinations: the last one looked at */
    bool more;
    bool hold;      /* destinations: hold, else release or flush; intake: pause */
    char asker[64]; /* intake and bulk verbs: who */
    size_t id_count;
    uint32_t ids[256];
    uint64_t destinations, matched, acted, in_flight;
    uint64_t freed, freed_all; /* mail that only its destination's hold kept: of a run, of all */

    struct notifier notifier; /* jobs */
    bool has_notifier;
    uint64_t job;
    bool flush_after;
    struct bh_selection selection;
    struct bh_select_cursor cursor; /* dry runs */
    struct bh_map counted;          /* their destinations */
    void (*counted_then)(struct bh_control_reply *reply);

    struct probe *probe;

    size_t claimed; /* reload: entries being moved, out of the engine's reach */
    struct bh_queue_key claims[200];
    const struct bh_config *next_config, *former_config; /* reload */
    uint64_t touched;
};

struct control_server {
    struct daemon *daemon;
    uv_pipe_t *listeners[8];
    struct bh_refusal refusals[8]; /* of each */
    char *paths[8];                /* of the listeners */
    size_t listener_count;
    struct control_groups groups; /* of the configuration in force */
    struct conn *conns;
    struct bh_control_reply *replies;
    size_t strangers; /* connections of those who may do nothing */
    uint64_t generation;
    bool closing;
};

/* control_server.c */
struct bh_control_reply *reply_create(struct control_server *server, struct conn *conn);
void reply_row(struct bh_control_reply *reply, struct bh_slice object);
/** {"end":{...}} with the object's text; sends everything and frees the reply. */
void reply_end(struct bh_control_reply *reply, struct bh_slice object);
void reply_error(struct bh_control_reply *reply, const char *what, const char *hint);
/** Send what there is, then call `written`. */
void reply_flush(struct bh_control_reply *reply, void (*written)(struct bh_control_reply *reply));
/** Run on the writer, then `then` on the main thread with reply->status set. */
void reply_write(struct bh_control_reply *reply,
                 enum bh_status (*run)(struct bh_store_task *, struct bh_queue *,
                                       struct bh_kv_txn *),
                 void (*then)(struct daemon_call *, struct daemon *));
/** The same on a reader. */
void reply_read(struct bh_control_reply *reply,
                enum bh_status (*run)(struct bh_store_task *, struct bh_queue *,
                                      struct bh_kv_txn *),
                void (*then)(struct daemon_call *, struct daemon *));
struct bh_now control_now(struct control_server *server);

/** Go by another configuration's groups. */
void control_take_groups(struct control_server *server, const struct bh_config *config);
/** The socket of who asks; -1: gone. */
int reply_socket(const struct bh_control_reply *reply);

/* control_count.c */
/** Count what reply->selection matches, then `then` on the main thread with reply->status set. */
void control_count(struct bh_control_reply *reply, void (*then)(struct bh_control_reply *reply));
/** Some of the destinations that were counted, each once: into reply->ids. None: id_count is 0. */
void control_count_take(struct bh_control_reply *reply);
void control_count_fini(struct bh_control_reply *reply);

/* control_pause.c */
/** Write into reply->asker who asks: a user of this machine. */
void control_know_asker(struct bh_control_reply *reply);
void control_op_intake(void *ctx, bool paused, struct bh_control_reply *reply);

/* control_ops.c */
extern const struct bh_control_ops control_ops;
/** Take up the bulk jobs that an earlier process left. */
void control_resume_jobs(struct control_server *server);

/* control_reload.c */
void control_op_reload(void *ctx, const struct bh_control_request *request,
                       struct bh_control_reply *reply);

/* control_probe.c */
void control_op_probe(void *ctx, const struct bh_control_request *request,
                      struct bh_control_reply *reply);

/* control_engine.c: on the engine's thread */
/** Fill reply->snapshot, then `then` on the main thread. */
void control_snapshot(struct bh_control_reply *reply,
                      void (*then)(struct daemon_call *, struct daemon *));
/** reply->ids were changed in the store (flushed; held; released): tell the scheduler. */
enum control_told { CONTROL_FLUSHED, CONTROL_HELD, CONTROL_RELEASED };
void control_tell(struct bh_control_reply *reply, enum control_told what,
                  void (*then)(struct daemon_call *, struct daemon *));
/** The wall clock is confirmed: expiry goes on. */
void control_confirm_clock(struct daemon *d);
/** The configuration in force has changed: the engine takes it up, then `then` on the main thread.
 */
void control_config_changed(struct bh_control_reply *reply,
                            void (*then)(struct daemon_call *, struct daemon *));
