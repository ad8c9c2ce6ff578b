/* intake_internal.h - what the files of the intake driver share: intake.c (worker, listeners),
 * intake_session.c (one connection), intake_io.c (its octets in and out), intake_message.c (a
 * message's way into the store), intake_shared.c (what workers share), intake_bind.c (sockets),
 * intake_files.c (certificates and password files as they change), intake_auth.c (AUTH).
 */
#pragma once

#include <stdatomic.h>

#include "bh/auth_server.h"
#include "bh/intake.h"
#include "bh/proxy_v2.h"
#include "bh/refusal.h"
#include "bh/smtp_received.h"
#include "bh/suspects.h"
#include "bh/tls.h"

#define READ_SIZE 65536           /* octets of one read */
#define BLOCK_SIZE BH_QUEUE_CHUNK /* octets of content in one block */
#define BLOCKS_MAX 16             /* blocks of one message in memory: 256 KiB */
#define WRITE_QUEUE_MAX 65536     /* octets to send: above it, replies wait */
#define PREAMBLE_TIMEOUT_MS 60000 /* PROXY header or implicit TLS handshake */
#define STALL_TIMEOUT_MS 60000    /* a client that does not read its replies */
#define LINGER_TIMEOUT_MS 2000    /* after the last reply */
#define FULL_CHECK_MS 1000        /* between two looks for space in a full store */
#define FILES_CHECK_MS 5000       /* between two looks at certificates and password files */
#define AUTH_DELAY_MS 1000        /* before the first refusal of AUTH is told */
#define AUTH_REFUSALS_MS 3600000  /* for how long a client's refusals count */
#define AUTH_JOBS_MAX 64          /* responses being judged at a time, of all workers */
#define SPARE_BUFFERS_MAX 64
#define TURN_WORK 32 /* that a session does before others come; see turn_cost */
#define REFUSED_MAX                                                               \
    256 /* sessions of a worker that are told that they are too many; beyond them \
           none is told */
#define CONTENT_MAX_DEFAULT ((size_t)64 << 20)

struct session;
struct message;

/* A buffer of the pool: for reading, or a block of content. READ_SIZE and BLOCK_SIZE have a list
 * each. */
struct buffer {
    struct buffer *next;
    size_t len;
    char octets[];
};

struct pool {
    struct buffer *spare;
    size_t spare_count;
    size_t size;
};

/* Whether a listener's files have changed, found out on a thread that may wait for the disk. While
 * it runs, the listener keeps its context and its configuration. */
struct file_check {
    uv_work_t work;
    bool running;
    enum bh_status status;
    struct bh_tls_server_ctx *tls; /* made anew; NULL: no need, or it failed */
    size_t error_len;
    char error[256];
};

struct listener {
    struct bh_intake *intake;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    bool is_pipe;
    bool open;
    struct bh_refusal refusal;
    char text[160];
    const struct bh_config *config; /* with which `tls` was made, or the last that has it */
    const struct bh_listen_config *settings; /* of that configuration */
    struct bh_tls_server_ctx *tls;           /* NULL: off */
    struct bh_auth_source *auth;             /* NULL: no AUTH; belongs to the shared part */
    struct file_check check;
    char complaint[256]; /* the last about its files that was logged; "" for none */
};

/* Sessions that have more to do than one turn allows, in the order of their turns. */
struct intake_turns {
    uv_idle_t idle; /* runs while there are any */
    struct session *first;
    struct session *last;
};

struct bh_intake {
    struct bh_intake_params params;
    char hostname[BH_DOMAIN_MAX];
    struct listener *listeners;
    size_t listener_count;
    struct session *sessions; /* all, linked */
    uint32_t session_count;
    uint32_t refused_count; /* of them: one too many, being told so */
    struct intake_turns turns;
    uint32_t tasks;           /* in the store's hands */
    enum bh_server_gate gate; /* the operator's */
    bool full;                /* the store had no space: new transactions wait for some */
    uv_timer_t full_timer;    /* runs while full */
    uv_timer_t files_timer;
    bool draining;
    uint64_t handled; /* fingerprint of what was last told to be handled; 0: nothing */
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct bh_mailbox *mailbox; /* answers of the store */
    uv_async_t doorbell;
    atomic_uint ringing; /* threads of the store between posting an answer and having rung */
    uint32_t handles;    /* of the intake's own, not closed yet */
    bool destroyed;
    struct pool reads;
    struct pool blocks;
    size_t content_bytes;
    struct bh_intake_stats stats;
};

/* The AUTH of one session, judged on a thread of libuv's pool: crypt(3) is slow on purpose. */
struct auth_job {
    uv_work_t work;
    struct session *session;
    struct bh_auth_source *source;
    struct bh_auth_exchange exchange;
    bool running;
    bool no_response;
    enum bh_server_verdict verdict;
    size_t mechanism_len;
    size_t response_len;
    size_t challenge_len;
    char mechanism[32];
    char response[BH_SERVER_LINE_MAX];
    char challenge[BH_SERVER_CHALLENGE_MAX];
};

enum session_stage {
    STAGE_PROXY, /* the PROXY header is awaited */
    STAGE_TLS,   /* implicit TLS: handshake before the greeting */
    STAGE_SMTP,
    STAGE_LINGER, /* the last reply is out: wait for the client to close */
    STAGE_CLOSED, /* uv_close was called, or done */
};

struct session {
    struct bh_intake *intake;
    struct session *next;
    struct session *prev;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_timer_t timer;
    uv_shutdown_t shutdown;
    uint32_t handles; /* not closed yet: connection and timer; and a running AUTH */
    enum session_stage stage;
    bool reading;
    bool closing; /* CLOSE came: what was written goes out, then linger */
    bool counted; /* in the counts across workers */
    bool refused; /* in the worker's count of those who are told that they are too many */
    bool waits_turn;
    struct session *turn_next; /* while waits_turn */
    struct session *turn_prev;
    uint64_t preamble_deadline_ms;
    uint64_t progress_ms; /* of writing */
    uint64_t armed_ms;    /* UINT64_MAX: the timer is off */
    struct bh_ip peer;    /* who connected */
    struct bh_ip client;  /* who that is for: the same, or what the PROXY header says */
    const struct bh_config *config;
    const struct bh_listen_config *settings;
    struct listener *listener;
    struct bh_server_options options;
    struct bh_server server;
    bool server_ready;
    struct bh_tls *tls;
    struct buffer *lent; /* octets that the core may still borrow */
    bool lent_secret;    /* wipe them */
    uint16_t proxy_len;
    char proxy[BH_PROXY_V2_MAX];
    struct auth_job *auth; /* NULL before the first AUTH */
    char mechanisms[BH_AUTH_MECHANISMS_MAX];
    char certificate[8 + 2 * BH_PIN_LEN]; /* "cert:" and the key of a client that may relay by its
                                             certificate; "" for others */
    struct message *message;              /* content is coming in */
    struct bh_slice pending;  /* content that found no room yet; borrowed from the core */
    struct message *messages; /* all of this session that are not freed, linked */
};

enum message_step {
    STEP_FILLING,
    STEP_APPENDING, /* a task appends what came so far */
    STEP_PUTTING,
    STEP_DISCARDING,
    STEP_DONE,
};

struct message {
    struct bh_store_task task; /* first: tasks are cast back */
    struct bh_letter answer;   /* to the worker's mailbox */
    struct bh_intake *intake;
    struct session *session; /* NULL: the session does not care any more */
    struct message *next;    /* of the session */
    struct bh_server_txn *txn;
    enum message_step step;
    bool whole;            /* DELIVER came */
    bool more;             /* DISCARDING: the store has more of it */
    bool discarded;        /* DISCARD came: free it when the store gives it back */
    enum bh_status status; /* of the task that ended */
    struct bh_now now;
    uint64_t fingerprint; /* names it until it has an id */
    struct bh_arena arena;
    const struct bh_config *config;
    struct bh_received received;
    size_t received_len;
    char *head; /* the Received line again, for a large message */
    struct bh_origin origin;
    struct bh_queue_group *groups;
    size_t group_count;
    struct bh_queue_put_result result;
    bool begin_large; /* the next append is the first of a large message */
    uint64_t open_id; /* a large message, partly in the store; 0: none */
    uint64_t size;    /* octets taken so far, the Received line included */
    struct buffer *filling[BLOCKS_MAX];
    uint32_t filling_count;
    struct buffer *storing[BLOCKS_MAX]; /* in the store's hands */
    uint32_t storing_count;
};

/* --- intake.c --- */
struct bh_now intake_now(void);
struct buffer *pool_get(struct pool *pool);
void pool_put(struct pool *pool, struct buffer *buffer);
void pool_fini(struct pool *pool);
/** A session or task is gone: tell who waits for the last. */
void intake_check_drained(struct bh_intake *intake);
/** What sessions go by: the operator's gate, and else whether the store is full. */
enum bh_server_gate intake_gate(const struct bh_intake *intake);
/** The store had no space for a message: no new transactions until it has. */
void intake_set_full(struct bh_intake *intake);
bool intake_to_ascii(void *ctx, struct bh_slice domain, struct bh_buf *ascii);

/** Free the intake if it was destroyed and its last handle is gone. */
void intake_release(struct bh_intake *intake);
/** In this configuration, or NULL. */
const struct bh_listen_config *intake_find_listen(const struct bh_config *config,
                                                  struct bh_slice text);

/* --- intake_files.c --- */
/** A context of what listener->settings say; NULL with TLS off. */
enum bh_status files_load_tls(const struct bh_listen_config *settings,
                              struct bh_tls_server_ctx **ctx, struct bh_buf *error);
/** Of the configuration in force, if it has this listener still. */
const struct bh_listen_config *listener_settings(struct listener *listener);
/** Look after changed files from now on. */
void files_watch(struct bh_intake *intake);

/* --- intake_auth.c --- */
/** Judge a response; the verdict comes later. */
void auth_judge(struct session *s, const struct bh_server_action *action);
/** Wipe and free; not while it runs. NULL is fine. */
void auth_free(struct auth_job *job);
/** After the handshake: may the client relay because of its certificate? */
bool auth_by_certificate(struct session *s);

/* --- intake_session.c --- */
void session_accept(struct listener *listener);
void session_pump(struct session *s);
/** Octets from the socket, in a buffer that is now the session's; len 0 for none. */
void session_on_read(struct session *s, struct buffer *buffer);
void session_on_eof(struct session *s);
void session_arm(struct session *s);
void session_close(struct session *s); /* at once */
void session_drain(struct session *s);
void session_forget_message(struct session *s, struct message *m);
void session_free_if_done(struct session *s);

void turns_init(struct intake_turns *turns, uv_loop_t *loop);
/** The session has done enough: it is pumped again when the others have had their turn. Until then
 * it is not read, and session_pump does nothing. */
void turn_wait(struct session *s);
/** It does not wait any more. */
void turn_forget(struct session *s);

/* --- intake_io.c --- */
/** Read or not, as the core wants. */
void io_update_reading(struct session *s);
/** Send, through TLS if it is up. False: the connection is broken, and was closed. */
bool io_send(struct session *s, struct bh_slice bytes);
/** Start the handshake of the server side: what is read from now on is ciphertext. */
bool io_start_tls(struct session *s);
/** Fetch plain text for the core from what TLS holds. False: there is none now. */
bool io_next_plain(struct session *s);
/** The octets that the core borrowed go back to the pool, wiped if they held a secret. */
void io_give_back(struct session *s);
/** The same if the core is done with them. */
void io_release(struct session *s);
/** Say no more; wait for the client to close. */
void io_linger(struct session *s);
/** Octets that wait to be sent. */
size_t io_queued(const struct session *s);

/* --- intake_message.c --- */
/** False: no memory. */
bool message_begin(struct session *s, struct bh_server_txn *txn);
/** Takes what fits from the front of *content; what is left must come again after an answer. */
void message_append(struct message *m, struct bh_slice *content);
void message_deliver(struct message *m);
void message_discard(struct message *m);
/** An answer of the store, on the worker's thread. */
void message_on_answer(struct bh_letter *letter);

/* --- intake_shared.c --- */
/** Count one more. @return false: over a limit, not counted */
bool shared_enter(struct bh_intake_shared *shared, const struct bh_ip *client,
                  const struct bh_listen_limits *limits);
void shared_leave(struct bh_intake_shared *shared, const struct bh_ip *client);
/** The one source of this password file. @return NULL for want of memory */
struct bh_auth_source *shared_auth_source(struct bh_intake_shared *shared, struct bh_slice path);
/** Count one more AUTH being judged. @return false: there are AUTH_JOBS_MAX */
bool shared_auth_enter(struct bh_intake_shared *shared);
void shared_auth_leave(struct bh_intake_shared *shared);
/** This client (of IPv6: its /64) was refused; it is remembered across sessions. */
void shared_auth_refused(struct bh_intake_shared *shared, const struct bh_ip *client,
                         uint64_t mono_ms);
/** How long the next refusal of this client is to wait: twice as long for each in the last hour.
 * @return ms, at least AUTH_DELAY_MS, at most BH_SERVER_AUTH_DELAY_MAX */
uint64_t shared_auth_delay(struct bh_intake_shared *shared, const struct bh_ip *client,
                           uint64_t mono_ms);
