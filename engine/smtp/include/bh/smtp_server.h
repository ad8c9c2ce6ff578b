/* smtp_server.h - the receiving side of SMTP as a state machine (RFC 5321, 1870, 2034, 2920, 3030,
 * 3207, 3461, 4954, 6152, 6531, 8689). Octets and events go in, actions are pulled out one at a
 * time. No socket, clock, thread or log; memory comes from malloc, through one capped arena a
 * transaction.
 *
 * A driver's loop, on one thread:
 *     if (bh_server_wants_input(s)) { read; bh_server_on_bytes(s, bytes, now); }
 *     while (bh_server_next(s, &action)) { do it }
 *     arm one timer for bh_server_deadline_ms(s)
 * Octets are read in place, so they stay borrowed until wants_input is true again: a driver that is
 * short of anything stops pulling, the core stops parsing, and the socket is not read.
 *
 * Several transactions may await their commit; the core parses on and sends replies in order. */
#pragma once

#include "bh/arena.h"
#include "bh/buf.h"
#include "bh/envelope.h"
#include "bh/map.h"
#include "bh/smtp_address.h"
#include "bh/time.h"

#define BH_SERVER_LINE_MAX 4096     /* octets of a command with its CRLF, all extensions together */
#define BH_SERVER_OUT_MAX 8192      /* octets of replies waiting */
#define BH_SERVER_COMMITS_MAX 16    /* transactions that may await their commit */
#define BH_SERVER_HELO_MAX 255      /* octets */
#define BH_SERVER_USER_MAX 255      /* octets of a name as authenticated */
#define BH_SERVER_CHALLENGE_MAX 900 /* octets of a challenge, in base64 */
#define BH_SERVER_AUTH_DELAY_MAX 30000 /* ms: the delay of a refusal grows up to this */

struct bh_server_limits {
    uint64_t message_size; /* octets of content, announced as SIZE; 0: none */
    uint32_t
        recipients; /* a transaction, after merging duplicates; at least 100 (RFC 5321 4.5.3.1.8) */
    uint32_t commands;      /* a session; 0: none */
    uint32_t errors;        /* 5xx replies to commands in a session; 0: none */
    uint32_t hops;          /* Received lines */
    uint32_t content_line;  /* octets of a line of content without its CRLF; 0: none. Lines above
                               998 are relayed as they are, since folding them breaks signatures */
    uint32_t command_line;  /* octets of a command with its CRLF, 512 to BH_SERVER_LINE_MAX */
    uint32_t commits;       /* transactions awaiting commit, 1 to BH_SERVER_COMMITS_MAX */
    uint32_t auth_failures; /* refused AUTH of a session: this many end it with 421; 0: none */
    uint64_t auth_delay_ms; /* before the first refusal is told; doubles with each; 0: at once */
    uint64_t command_timeout_ms; /* waiting for a command (RFC 5321 4.5.3.2.7: 5 minutes) */
    uint64_t data_timeout_ms;    /* waiting for content */
    uint64_t min_rate; /* octets a second: content that takes longer than at this rate, and
                          data_timeout_ms, ends the session; 0: none */
    uint64_t session_timeout_ms; /* the whole session; 0: none */
};

/** Values that suit a relay: 25 MiB, 1000 recipients, 50 hops, 64 KiB lines, 5 minutes; 3 refused
 * AUTH, the first after a second. */
struct bh_server_limits bh_server_default_limits(void);

struct bh_server_txn;

/** Set once by the driver; borrowed and unchanged for as long as the session lives. */
struct bh_server_options {
    struct bh_slice hostname;   /* ours, in the greeting */
    struct bh_slice postmaster; /* RCPT TO:<postmaster> goes here; empty: 550 */
    bool starttls;              /* offer STARTTLS while the session is in clear */
    struct bh_slice auth; /* mechanisms to offer inside TLS, blanks between: "SCRAM-SHA-256 PLAIN";
                             empty: no AUTH. In clear none is offered, and AUTH gets 538 */
    struct bh_server_limits limits;
    bh_to_ascii_fn *to_ascii; /* see smtp_address.h; NULL: U-label domains are refused */
    void *to_ascii_ctx;
    /** Can this recipient go anywhere? Asked at RCPT, of clients that may relay; NULL: all can. */
    bool (*routable)(void *ctx, struct bh_slice sender, struct bh_slice recipient);
    void *routable_ctx;
    /** Must the content of this transaction not be read now? Asked at DATA and at the first BDAT,
     * which get 451 4.3.0 then; NULL: none must. */
    bool (*suspect)(void *ctx, const struct bh_server_txn *txn);
    void *suspect_ctx;
};

enum bh_server_greeting {
    BH_SERVER_GREET,      /* 220 */
    BH_SERVER_GREET_BUSY, /* 421 4.7.0: too many sessions, in all or from this client; then close */
    BH_SERVER_GREET_PAUSED, /* 421 4.3.2: intake is paused or stopping; then close */
};

/** Whether new transactions are taken; applies to MAIL. */
enum bh_server_gate {
    BH_SERVER_GATE_OPEN,
    BH_SERVER_GATE_PAUSED, /* 452 4.3.2 */
    BH_SERVER_GATE_FULL,   /* 452 4.3.1 */
};

enum bh_server_event {
    BH_SERVER_TLS_UP,     /* the handshake that START_TLS asked for is done */
    BH_SERVER_TLS_FAILED, /* it failed: the session ends */
    BH_SERVER_TIMEOUT,    /* the deadline has passed */
    BH_SERVER_DRAIN,      /* stop: what awaits its commit is answered, then 421 and close */
    BH_SERVER_LOST, /* the connection is gone; commits may still be answered, nothing is sent */
};

/** One message on its way in. Readable by the driver from BEGIN until it has answered DELIVER with
 * bh_server_on_committed, or until DISCARD. Belongs to the core. */
struct bh_server_txn {
    struct bh_envelope envelope;     /* size counts the content alone until the driver adds its
                                        Received line; body is right from DELIVER on */
    struct bh_recipient *recipients; /* in the order given, exact duplicates merged */
    uint32_t recipients_count;
    uint64_t declared_size; /* SIZE of MAIL; 0: none */
    bool header_utf8;       /* the header has octets above 127 */
    void *driver;           /* the driver's own; NULL at BEGIN */

    struct bh_arena arena;    /* private from here on */
    struct bh_map by_address; /* private */
    uint32_t recipients_cap;  /* private */
    bool committing;          /* private: DELIVER was emitted */
    size_t reply_at;          /* private: where in the replies its answer belongs */
};

enum bh_server_action_kind {
    BH_SERVER_WRITE,     /* send `bytes` (borrowed until the next call into the core) */
    BH_SERVER_BEGIN,     /* content of `txn` follows */
    BH_SERVER_CONTENT,   /* append `bytes` (borrowed likewise) to the content of `txn` */
    BH_SERVER_DELIVER,   /* the content of `txn` is whole: commit, then bh_server_on_committed */
    BH_SERVER_DISCARD,   /* `txn` will not be delivered: drop its content; it is freed after this */
    BH_SERVER_START_TLS, /* send what was written, then shake hands; input is the TLS layer's now */
    BH_SERVER_AUTH,  /* `bytes` is the client's response as sent, in base64 (borrowed likewise, a
                        secret): judge it, then bh_server_on_auth */
    BH_SERVER_CLOSE, /* send what was written, then close */
};

struct bh_server_action {
    enum bh_server_action_kind kind;
    struct bh_slice bytes;
    struct bh_server_txn *txn;
    struct bh_slice mechanism; /* AUTH: begins an exchange by this one (borrowed likewise); empty:
                                  goes on with the one that began */
    bool no_response;          /* AUTH: it begins without an initial response, not an empty one */
};

enum bh_server_commit {
    BH_SERVER_COMMITTED, /* on disk: 250 2.0.0 with the queue id */
    BH_SERVER_FULL,      /* 452 4.3.1 */
    BH_SERVER_FAILED,    /* 451 4.3.0 */
    BH_SERVER_STOPPING,  /* 451 4.3.2 */
    BH_SERVER_NO_ROUTE,  /* 550 5.4.4: no connector serves a recipient, by configuration */
};

enum bh_server_verdict {
    BH_SERVER_AUTH_MORE,    /* 334 and the challenge; the next line is the response */
    BH_SERVER_AUTH_GRANTED, /* 235: the client may relay */
    BH_SERVER_AUTH_DENIED,  /* 535 5.7.8, after a delay; 421 4.7.0 if it was one too many */
    BH_SERVER_AUTH_GARBLED, /* 501 5.5.2: no base64, or not what the mechanism speaks */
    BH_SERVER_AUTH_FAILED,  /* 454 4.7.0: our fault, or too much to do */
};

enum bh_server_phase {
    BH_SERVER_PHASE_NEW, /* before bh_server_start */
    BH_SERVER_PHASE_COMMAND,
    BH_SERVER_PHASE_DATA,
    BH_SERVER_PHASE_BDAT,    /* octets of a chunk outstanding */
    BH_SERVER_PHASE_TLS,     /* STARTTLS was accepted */
    BH_SERVER_PHASE_AUTH,    /* an exchange of AUTH is under way */
    BH_SERVER_PHASE_CLOSING, /* the last reply is in the buffer */
    BH_SERVER_PHASE_CLOSED,  /* CLOSE was emitted, or the connection is lost */
};

enum bh_server_auth_wait {
    BH_AUTH_WAIT_DRIVER, /* AUTH is to be emitted, or was */
    BH_AUTH_WAIT_CLIENT, /* for a response */
    BH_AUTH_WAIT_DELAY,  /* the refusal is told when the time comes */
};

enum bh_content_line { BH_LINE_START, BH_LINE_IN, BH_LINE_CR, BH_LINE_DOT, BH_LINE_DOT_CR };

/* Why content is refused. Of several reasons the first of these is told. */
enum bh_content_fault {
    BH_CONTENT_FINE,
    BH_CONTENT_BARE, /* a CR or LF alone */
    BH_CONTENT_NUL,
    BH_CONTENT_TOO_LONG, /* a line */
    BH_CONTENT_TOO_BIG,
    BH_CONTENT_LOOP,
};

/* "TLS-Required: No" (RFC 8689 section 3) among header fields; see tls_required.h. */
enum bh_tls_required_state {
    BH_TLS_REQUIRED_NAME, /* `name_len` octets of the name matched */
    BH_TLS_REQUIRED_OTHER,
    BH_TLS_REQUIRED_BLANK, /* behind the colon */
    BH_TLS_REQUIRED_N,
    BH_TLS_REQUIRED_NO, /* the value so far is "No", and blanks perhaps */
};

struct bh_tls_required {
    enum bh_tls_required_state state;
    uint32_t name_len;
    uint32_t fields; /* with this name */
    bool no;         /* one of them says No */
};

/* Reads content as it passes: line structure, octets above 127, hops. */
struct bh_content_scan {
    enum bh_content_line line;
    enum bh_content_fault fault;
    bool in_body;
    bool eight_bit;
    bool header_utf8;
    uint32_t hops;
    uint32_t name_len; /* octets of "received:" matched so far on this line; above 9: no match */
    uint64_t line_len; /* octets of this line so far, without CR and LF */
    uint64_t size;
    struct bh_tls_required tls_required;
};

struct bh_server {
    const struct bh_server_options *options; /* all private */
    struct bh_now now;
    enum bh_server_phase phase;
    enum bh_server_gate gate;
    bool may_relay;
    bool tls;
    bool greeted;     /* EHLO or HELO was accepted */
    bool extended;    /* by EHLO */
    bool tls_started; /* START_TLS was emitted */
    enum bh_server_auth_wait auth_wait;
    bool auth_due;         /* emit AUTH */
    bool auth_no_response; /* of that AUTH */
    struct bh_slice auth_mechanism;
    struct bh_slice auth_response;
    uint32_t auth_failures;
    uint64_t auth_until_ms; /* of the delay */
    uint32_t commands;
    uint32_t errors;
    uint64_t started_ms;
    uint64_t active_ms;      /* the last sign of life, theirs or ours */
    uint64_t content_ms;     /* when DATA or the chunk began */
    uint64_t content_octets; /* of it, as they came */
    struct bh_slice in;      /* not yet parsed */

    struct bh_server_txn *open;      /* MAIL was accepted; NULL once its content is refused */
    struct bh_server_txn *spare;     /* kept for use again */
    struct bh_server_txn *discarded; /* DISCARD is to be emitted, or was by the last call */
    struct bh_server_txn *committing[BH_SERVER_COMMITS_MAX]; /* in the order of their replies */
    uint32_t committing_count;
    bool discard_given; /* DISCARD was emitted */
    bool deliver_due;   /* emit DELIVER for the last of `committing` */
    bool begin_due;
    bool began;      /* BEGIN was emitted for `open` */
    bool rcpt_tried; /* a RCPT of this transaction was answered */
    bool bdat;       /* `open` came by BDAT so far */
    bool bdat_last;
    bool bdat_failed; /* a chunk was refused: no more chunks and no MAIL before RSET */
    bool refused;     /* the driver gave up on this content, for the reason `refusal` */
    enum bh_server_commit refusal;
    const char *chunk_reply; /* this chunk is dropped, and answered so */
    uint64_t chunk_len;
    uint64_t chunk_left;
    struct bh_content_scan scan;

    uint16_t helo_len;
    uint16_t user_len;
    uint16_t line_len;
    bool line_overflow;
    size_t out_len;
    size_t out_given; /* octets at the front of `out` that the last WRITE lent */
    char helo[BH_SERVER_HELO_MAX];
    char user[BH_SERVER_USER_MAX]; /* as authenticated */
    char line[BH_SERVER_LINE_MAX];
    char out[BH_SERVER_OUT_MAX];
};

/** @param options borrowed until bh_server_fini; @param may_relay this client is in a listed
 * network; besides it those who authenticate may give recipients, and nobody else
 *  @param tls the connection is inside TLS already (implicit TLS) */
void bh_server_init(struct bh_server *s, const struct bh_server_options *options, bool may_relay,
                    bool tls);
/** Frees what is left, transactions awaiting their commit included: call it only when the driver
 * holds none of them (bh_server_commits is 0), or when it will never touch them again. */
void bh_server_fini(struct bh_server *s);

/** Say hello, or say why not. Once, before any input. */
void bh_server_start(struct bh_server *s, enum bh_server_greeting greeting, struct bh_now now);
/** This client may relay, for a reason that was not known at the start: a certificate. */
void bh_server_allow_relay(struct bh_server *s);
/** May change at any time; takes effect at the next MAIL. */
void bh_server_set_gate(struct bh_server *s, enum bh_server_gate gate);

/** True if all earlier octets are parsed and more can be. */
bool bh_server_wants_input(const struct bh_server *s);
/** Octets from the client, in clear. wants_input must hold, or the phase be TLS (the octets are
 * then an injection, and the session ends). Borrowed until wants_input holds again. */
void bh_server_on_bytes(struct bh_server *s, struct bh_slice bytes, struct bh_now now);
void bh_server_on_event(struct bh_server *s, enum bh_server_event event, struct bh_now now);
/** The answer to a DELIVER, in any order. Frees txn.
 * @param queue_id used with BH_SERVER_COMMITTED */
void bh_server_on_committed(struct bh_server *s, struct bh_server_txn *txn,
                            enum bh_server_commit result, uint64_t queue_id, struct bh_now now);
/** The driver cannot take the content of the open transaction (memory, store): its content is
 * dropped from here on, DISCARD follows, and the end of the content is answered with 452 or 451. */
void bh_server_on_content_failed(struct bh_server *s, enum bh_server_commit why);

/** The verdict on the response of the last AUTH. If the session has ended since, nothing happens.
 * @param text  MORE: the challenge in base64, at most BH_SERVER_CHALLENGE_MAX octets; GRANTED: who
 *              it is, 1 to BH_SERVER_USER_MAX octets; else unused */
void bh_server_on_auth(struct bh_server *s, enum bh_server_verdict verdict, struct bh_slice text,
                       struct bh_now now);

/** @return false: nothing to do until the next input */
bool bh_server_next(struct bh_server *s, struct bh_server_action *action);
/** When TIMEOUT is due; UINT64_MAX: never (the next move is ours). */
uint64_t bh_server_deadline_ms(const struct bh_server *s);
/** Transactions whose DELIVER is unanswered. */
uint32_t bh_server_commits(const struct bh_server *s);
/** What the client called itself; empty before EHLO or HELO. */
struct bh_slice bh_server_helo(const struct bh_server *s);
/** Who the client is, as authenticated; empty: nobody. */
struct bh_slice bh_server_user(const struct bh_server *s);
/** EHLO was used (for the protocol name in Received). */
bool bh_server_extended(const struct bh_server *s);
