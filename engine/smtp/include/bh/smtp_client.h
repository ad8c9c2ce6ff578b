/* smtp_client.h - the sending side of SMTP and LMTP as a state machine (RFC 5321, 1870, 2033, 2034,
 * 2920, 3207, 3461, 4954, 6152, 6531, 8689, 9422). Octets and events go in, actions are pulled out
 * one at a time. No socket, clock, thread or log; no memory but what the caller lends.
 *
 * A driver's loop, on one thread:
 *     feed bh_client_on_bytes, _on_event, _give, _on_content, _on_written
 *     while (bh_client_next(c, &scratch, &action)) { do it }
 *     arm one timer for bh_client_deadline_ms(c)
 *
 * 1. greeting, EHLO (HELO after a 5xx, LHLO for LMTP), STARTTLS as wanted, EHLO again
 * 2. the clearance: after TLS it comes with the event; in clear text it is asked for by
 *    BH_CLIENT_WANT_CLEARANCE. Without one the core makes no privileged output at all
 * 3. AUTH, where the options want it: the mechanism is chosen here, what it says is the driver's
 *    (BH_CLIENT_WANT_SASL), and no MAIL goes before the 235
 * 4. transactions, in the order given: MAIL, RCPT..., DATA in one group where PIPELINING is
 * offered, the next group right behind the final dot; where CHUNKING is, BDAT in place of DATA,
 * once RCPT is answered. With both, and a peer that is known to keep in step, content goes before
 * any reply and several transactions are in flight (see client_ahead.c). Each ends in
 * BH_CLIENT_DONE
 * 5. BH_CLIENT_CLOSE, once; every transaction given has had its DONE by then */
#pragma once

#include "bh/arena.h"
#include "bh/dot_stuff.h"
#include "bh/envelope.h"
#include "bh/smtp_reply.h"
#include "bh/time.h"

struct bh_clearance; /* defined by the TLS layer; see bh/tls.h */

#define BH_CLIENT_TXNS_MAX 32         /* transactions given and not yet done */
#define BH_CLIENT_RECIPIENTS_MAX 100  /* of one transaction */
#define BH_CLIENT_OUT_MIN 4096        /* octets of room that bh_client_next needs */
#define BH_CLIENT_AUTH_LINE_MAX 12288 /* octets of a line of AUTH with its CRLF (RFC 4954 4.) */
#define BH_CLIENT_CHALLENGES_MAX 8    /* of one exchange; no mechanism needs half of it */
#define BH_CLIENT_CLEAN_MIN 20        /* transactions in a row, then speculation begins by itself */
#define BH_CLIENT_AHEAD_OCTETS 262144 /* larger messages wait for the replies to RCPT */
#define BH_CLIENT_DOT_MIN_MS 600000   /* RFC 5321 4.5.3.2.6; a shorter wait makes duplicates */

enum bh_tls_want {
    BH_TLS_NEVER, /* no STARTTLS, though offered */
    BH_TLS_MAY,   /* where offered; a refused STARTTLS ends the session */
    BH_TLS_MUST,  /* or no delivery */
};

/** All in ms; none is 0. */
struct bh_client_timeouts {
    uint64_t greeting_ms, ehlo_ms, starttls_ms, tls_ms, auth_ms, mail_ms, rcpt_ms, data_ms,
        block_ms, dot_ms, rset_ms;
};

/** The values of DEFAULTS: 300 s greeting, EHLO, STARTTLS, MAIL and RCPT, 60 s handshake, 120 s
 * DATA, 180 s a block, 600 s the dot, 20 s RSET. */
struct bh_client_timeouts bh_client_default_timeouts(void);

/** Borrowed and unchanged for as long as the session lives; outcomes point into it. */
struct bh_client_options {
    bool lmtp;
    bool helo_only;
    bool implicit_tls; /* handshake before the greeting */
    enum bh_tls_want tls;
    bool peer_proven;   /* certificate and route are authenticated as RFC 8689 section 4.2.1 wants:
                           only then may a REQUIRETLS message go */
    bool route_unknown; /* the certificate is; of the route our resolver can't say: such a message
                           waits, uncharged */
    uint32_t auth;      /* BH_SASL_ bits: one of them, the strongest offered, before any mail;
                           0: no authentication */
    struct bh_slice helo; /* our name */
    struct bh_slice host; /* the next hop, for outcomes */
    struct bh_ip ip;
    uint16_t port;
    uint32_t extensions_off; /* BH_EXT_ bits that count as not offered */
    uint32_t recipients_max; /* a transaction; 0: BH_CLIENT_RECIPIENTS_MAX */
    bool speculative;        /* content ahead of replies from the first message on; else once
                                BH_CLIENT_CLEAN_MIN transactions went through cleanly */
    bool speculation_off;    /* never: this host has answered such a session as nobody expects */
    uint64_t min_rate;       /* octets a second while sending content; 0: none */
    struct bh_client_timeouts timeouts; /* dot_ms below BH_CLIENT_DOT_MIN_MS counts as that */
};

/** How it stands with a recipient when its transaction is done. Look at this first: only the
 * outcome of a DECIDED recipient is for the outcome policy; the others say why the session ended.
 */
enum bh_client_fate {
    BH_FATE_UNTOUCHED,  /* nothing was sent for it: uncharged, outcome is empty */
    BH_FATE_UNFINISHED, /* the session ended before the end of the content was sent: nobody has the
                           message; outcome says how the session ended */
    BH_FATE_DECIDED,    /* outcome is the final word of this attempt: a reply, or why it can't go */
    BH_FATE_UNCERTAIN,  /* the end was sent and no reply came: it may have been delivered */
};

struct bh_client_result {
    enum bh_client_fate fate;
    bool relayed; /* delivered to a host without DSN, though NOTIFY asked for SUCCESS: we tell */
    uint8_t step; /* private */
    struct bh_outcome outcome; /* text in txn->arena, host in the options */
};

/** One message for some recipients. The driver's; lent to the core from give to DONE. */
struct bh_client_txn {
    const struct bh_envelope *envelope;
    const struct bh_recipient *recipients;
    struct bh_client_result *results; /* one for each recipient; the core initialises them */
    uint32_t recipients_count;        /* 1 to BH_CLIENT_RECIPIENTS_MAX */
    struct bh_arena *arena;           /* for texts; when it is full, texts are empty */
    void *user;                       /* the driver's own */
    bool envelope_only; /* a look at what they would say: RSET in place of DATA, and the reply to
                           RCPT is the last word */

    bool end_sent;       /* read only: the end of content was handed out, its reply is due */
    bool started;        /* private from here on: a command of it was handed out */
    bool ahead;          /* its content does not wait for replies */
    uint32_t undecided;  /* recipients */
    uint64_t content_at; /* octets of content taken in this round */
};

enum bh_client_event {
    BH_CLIENT_CONNECTED,
    BH_CLIENT_LOST,    /* closed or reset by them or by the network */
    BH_CLIENT_TIMEOUT, /* the deadline has passed */
    BH_CLIENT_QUIT,    /* ours: end it in good order once what was started is done; transactions not
                          started come back untouched */
};

/** What octets need to pass. */
enum bh_client_output {
    BH_OUTPUT_PREAMBLE,   /* nothing */
    BH_OUTPUT_PRIVILEGED, /* a clearance */
    BH_OUTPUT_CREDENTIAL, /* a clearance that says who the peer is, or a dated exception: it may
                             hold a password. Wipe what held it */
};

enum bh_client_action_kind {
    BH_CLIENT_WRITE,          /* send `bytes`, of type `output`; they lie in the scratch buffer */
    BH_CLIENT_START_TLS,      /* shake hands; then bh_client_on_tls_up or _on_failed */
    BH_CLIENT_WANT_CLEARANCE, /* for clear text: bh_client_on_clearance or _on_failed */
    BH_CLIENT_WANT_SASL,      /* `mechanism`; `begin`: its initial response, else the response to
                                 `challenge`: bh_client_on_sasl or _on_failed */
    BH_CLIENT_READY,          /* transactions can flow; see bh_client_facts */
    BH_CLIENT_WANT_CONTENT,   /* bh_client_on_content with what follows octet `offset` of txn */
    BH_CLIENT_BEFORE_END,     /* the next WRITE holds the end of `txn`'s content for the recipients
                                 of `ending`: write it down first, where it outlives a crash */
    BH_CLIENT_DONE,           /* txn->results are complete; txn is the driver's again */
    BH_CLIENT_CLOSE,          /* send what was written, then close. `outcome`, `graceful` */
};

struct bh_client_action {
    enum bh_client_action_kind kind;
    enum bh_client_output output;
    struct bh_slice bytes;
    struct bh_client_txn *txn;
    uint64_t offset;
    uint64_t ending[2]; /* a bit for each recipient by index */
    uint32_t mechanism; /* WANT_SASL: a BH_SASL_ bit */
    bool begin;
    struct bh_slice challenge;        /* in base64, as it stood behind 334; for this step only */
    bool graceful;                    /* CLOSE: by QUIT or a limit that they announced */
    const struct bh_outcome *outcome; /* CLOSE, not graceful: what ended the session */
};

/** What was learned, from READY on. */
struct bh_client_facts {
    struct bh_ehlo ehlo; /* as offered in the EHLO in force, less extensions_off */
    bool tls;
    bool esmtp;              /* EHLO or LHLO was accepted */
    bool starttls_offered;   /* in clear */
    uint32_t mechanism;      /* of AUTH that was chosen, a BH_SASL_ bit; 0: none */
    uint32_t authenticated;  /* by this mechanism, a BH_SASL_ bit; 0: not */
    bool tls_trouble;        /* STARTTLS was refused, or the handshake failed */
    bool sync_trouble;       /* it took pipelining for a fault, though it offered it */
    uint32_t recipients_max; /* a transaction, by LIMITS or as learned; 0: none */
    uint32_t transactions;   /* ended by a reply to the dot */
    uint32_t ahead;          /* of these: content went before the replies to the envelope */
    bool ahead_trouble;      /* such a session met a reply that it did not count on, or broke: this
                                host is better spoken to step by step */
};

enum bh_client_phase {
    BH_CLIENT_PHASE_NEW,
    BH_CLIENT_PHASE_GREETING,
    BH_CLIENT_PHASE_EHLO,
    BH_CLIENT_PHASE_HELO,
    BH_CLIENT_PHASE_STARTTLS,
    BH_CLIENT_PHASE_TLS,       /* the handshake is the driver's */
    BH_CLIENT_PHASE_CLEARANCE, /* asked for */
    BH_CLIENT_PHASE_AUTH,
    BH_CLIENT_PHASE_OPEN,   /* transactions */
    BH_CLIENT_PHASE_ENDING, /* DONE for what is left, QUIT, CLOSE */
    BH_CLIENT_PHASE_CLOSED,
};

/* What the sending side does next in PHASE_OPEN. */
enum bh_client_step {
    BH_STEP_IDLE,
    BH_STEP_RSET,
    BH_STEP_MAIL,
    BH_STEP_RCPT,
    BH_STEP_DATA,
    BH_STEP_WAIT, /* for the reply to DATA, or for the one that bars the next command */
    BH_STEP_CONTENT,
    BH_STEP_BEFORE_END,
    BH_STEP_END,
    BH_STEP_LONE_DOT,
};

/* In PHASE_AUTH. */
enum bh_sasl_step {
    BH_SASL_STEP_WANT,      /* ask the driver */
    BH_SASL_STEP_ASKED,     /* it owes an answer */
    BH_SASL_STEP_COMMAND,   /* AUTH is to go out */
    BH_SASL_STEP_LINE,      /* so is a response, or the rest of one */
    BH_SASL_STEP_REPLY,     /* the server owes a reply */
    BH_SASL_STEP_CANCEL,    /* "*" is to go out: the exchange came to nothing */
    BH_SASL_STEP_CANCELLED, /* its reply is due, whatever it says */
};

enum bh_expect_kind {
    BH_EXPECT_RSET,
    BH_EXPECT_MAIL,
    BH_EXPECT_RCPT,
    BH_EXPECT_DATA,
    BH_EXPECT_CHUNK, /* BDAT that is not the last */
    BH_EXPECT_DOT,   /* or the last BDAT */
    BH_EXPECT_LONE_DOT
};

#define BH_CLIENT_EXPECT_MAX 256 /* a power of two; more than two groups of 100 RCPT can need */

/* A reply still to come. */
struct bh_expect {
    uint8_t kind;      /* enum bh_expect_kind */
    uint8_t recipient; /* index, of RCPT and of an LMTP reply to the dot */
    bool ahead;        /* of a transaction whose content does not wait */
};

struct bh_client {
    const struct bh_client_options *options; /* all private */
    const struct bh_clearance *clearance;
    struct bh_now now;
    enum bh_client_phase phase;
    enum bh_client_step step;
    struct bh_client_facts facts;
    uint32_t switched_off; /* offered, and not used: extensions_off */

    struct bh_client_txn *txns[BH_CLIENT_TXNS_MAX]; /* oldest first */
    uint32_t count;
    struct bh_client_txn *sending;                    /* in its envelope or content */
    struct bh_client_txn *flying[BH_CLIENT_TXNS_MAX]; /* a ring: their end was sent, the reply is
                                           due; or ahead, from MAIL on. Replies are the first's */
    uint32_t flying_first, flying_count;
    uint32_t ends_due;                  /* of these: the end was sent */
    bool ahead;                         /* `sending` does not wait for replies */
    bool ahead_over;                    /* no more rounds: close once all replies are in */
    uint32_t clean;                     /* transactions in a row without a refusal */
    uint32_t rcpt_next;                 /* of `sending`: the next recipient to ask for */
    uint32_t asked, answered, accepted; /* RCPT of `sending`, in this round */
    bool mail_due, data_due;            /* of this round: the reply is to come */
    bool mail_failed;
    bool needs_rset;
    bool done_due;  /* a transaction may be complete */
    uint32_t mails; /* MAIL commands sent */

    struct bh_expect expect[BH_CLIENT_EXPECT_MAX]; /* a ring */
    uint32_t expect_first, expect_count;
    struct bh_reply_parser reply;

    struct bh_dot_stuff stuff;
    bool chunked;            /* the content goes by BDAT */
    bool chunk_open;         /* its command is out, octets of it are not */
    struct bh_slice content; /* borrowed from the driver */
    bool content_asked;
    bool content_last;

    enum bh_sasl_step sasl;
    uint32_t sasl_mechanism;
    uint32_t sasl_challenges;       /* taken */
    struct bh_slice sasl_challenge; /* borrowed from `reply` */
    struct bh_slice sasl_response;  /* borrowed from the driver: what is still to go out of it */
    bool sasl_held;                 /* an initial response too long for the command waits for 334 */
    bool sasl_complete;             /* as the driver says: 235 may be believed */

    bool emit;       /* the phase's command or action is still to be handed out */
    bool emit_ready; /* READY is still to be told */
    bool quit;       /* asked for */
    bool may_quit;   /* the peer is there and reads commands */
    bool graceful;
    struct bh_outcome outcome; /* why it ended */
    char outcome_text[BH_OUTCOME_TEXT_MAX];

    uint64_t active_ms;    /* the last progress, ours or theirs */
    uint64_t emitted;      /* octets handed out */
    uint64_t written;      /* octets that the driver has written */
    uint64_t content_ms;   /* when the content began */
    uint64_t content_from; /* `emitted` at that time */
    bool content_flows;    /* content may be among what is not yet written */
};

/** @param options borrowed until the results of the last transaction were used */
void bh_client_init(struct bh_client *c, const struct bh_client_options *options);

void bh_client_on_bytes(struct bh_client *c, struct bh_slice bytes, struct bh_now now);
void bh_client_on_event(struct bh_client *c, enum bh_client_event event, struct bh_now now);
/** The handshake is done and met the demand. @param clearance not NULL; borrowed for the session */
void bh_client_on_tls_up(struct bh_client *c, const struct bh_clearance *clearance,
                         struct bh_now now);
/** The grant for clear text. @param clearance not NULL; borrowed for the session */
void bh_client_on_clearance(struct bh_client *c, const struct bh_clearance *clearance,
                            struct bh_now now);
/** The answer to WANT_SASL.
 * @param response  in base64, borrowed until the next WANT_SASL, READY or CLOSE; at most
 *                  BH_CLIENT_AUTH_LINE_MAX - 2 octets. Empty: with `begin`, the mechanism has no
 *                  initial response; else the response is empty
 * @param complete  the mechanism has come to its end: a 235 that comes now may be believed */
void bh_client_on_sasl(struct bh_client *c, struct bh_slice response, bool complete,
                       struct bh_now now);
/** START_TLS, WANT_CLEARANCE or WANT_SASL came to nothing, or the driver can't go on (its memory,
 * its clearance): the session ends, out of an exchange of AUTH by cancelling it first. @param
 * outcome its text is copied, host and address are set here */
void bh_client_on_failed(struct bh_client *c, const struct bh_outcome *outcome, struct bh_now now);
/** The answer to WANT_CONTENT. @param piece borrowed until the next WANT_CONTENT or DONE; empty
 * only if last @param last nothing follows it */
void bh_client_on_content(struct bh_client *c, struct bh_slice piece, bool last, struct bh_now now);
/** So many octets of those handed out by WRITE have left the driver's queue. */
void bh_client_on_written(struct bh_client *c, uint64_t octets, struct bh_now now);

/** How many transactions may be given now; 0 once the session is ending. They may be given before
 * READY. */
uint32_t bh_client_room(const struct bh_client *c);
/** Hand over a transaction; bh_client_room must not be 0. */
void bh_client_give(struct bh_client *c, struct bh_client_txn *txn, struct bh_now now);
/** Open, with nothing in hand and nothing to wait for. */
bool bh_client_idle(const struct bh_client *c);

/** @param out scratch with at least BH_CLIENT_OUT_MIN octets of room, empty; used by WRITE
 *  @return false: nothing to do until the next input */
bool bh_client_next(struct bh_client *c, struct bh_buf *out, struct bh_client_action *action);
/** When TIMEOUT is due; UINT64_MAX: never. */
uint64_t bh_client_deadline_ms(const struct bh_client *c);
const struct bh_client_facts *bh_client_facts(const struct bh_client *c);

/** "SCRAM-SHA-256" ..., "" for no single BH_SASL_ bit; static storage. */
const char *bh_sasl_name(uint32_t mechanism);

/** Is this text nothing but whole lines of EHLO, HELO, LHLO, STARTTLS, NOOP, RSET or QUIT? Those
 * alone may go to a peer that has no clearance. The one function that writes to sockets asks. */
bool bh_preamble_allowed(struct bh_slice text);
