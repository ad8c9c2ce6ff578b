/* dsn.h - delivery status notifications: whether one is wanted (RFC 3461) and its whole text
 * (RFC 3464, 6522, 6533). Pure: the time and everything unique come in, octets go out. What a
 * remote said may hold any octets; the report is well-formed all the same. */
#pragma once

#include "bh/buf.h"
#include "bh/envelope.h"
#include "bh/outcome.h"
#include "bh/status.h"

/* Of these, octets of content, a failure report returns the whole message; of more, the header. */
#define BH_DSN_CONTENT_MAX ((size_t)50 * 1024)

enum bh_dsn_action {
    BH_DSN_FAILED,
    BH_DSN_DELAYED,
    BH_DSN_DELIVERED,
    BH_DSN_RELAYED, /* handed to a system that does not promise reports (RFC 3461 5.2.2) */
    BH_DSN_EXPANDED,
};

/** Lower-case, as in the Action field (RFC 3464 2.3.3). Static storage. */
const char *bh_dsn_action_name(enum bh_dsn_action action);

/** Whether a sender is to be told (RFC 3461 4.1, 5.2, 6.2). NEVER beats all; a null sender is never
 * told; without NOTIFY failures and delays are reported, success is not.
 *
 * @param notify  BH_NOTIFY_ bits, 0 if the parameter was absent */
bool bh_dsn_wanted(uint8_t notify, enum bh_dsn_action action, bool sender_is_null);

/* RFC 3463. */
struct bh_dsn_status {
    uint8_t class; /* 2, 4 or 5; 0 for none given */
    uint16_t subject;
    uint16_t detail;
};

/** The status of an outcome: what the remote gave where its class fits the action, otherwise the
 * nearest code for what happened.
 *
 * @param expired  the action is failed because time ran out: 4.x.x stays, without one it is 4.4.7
 */
struct bh_dsn_status bh_dsn_status_of(const struct bh_outcome *outcome, enum bh_dsn_action action,
                                      bool expired);

struct bh_dsn_recipient {
    struct bh_recipient recipient;
    enum bh_dsn_action action;
    struct bh_outcome outcome;    /* of the last attempt */
    struct bh_dsn_status status;  /* class 0: bh_dsn_status_of(outcome) */
    bool expired;                 /* failed because time ran out */
    struct bh_slice remote_mta;   /* empty: outcome.host */
    int64_t last_attempt_unix_ms; /* 0: no attempt was made */
    int64_t retry_until_unix_ms;  /* for delayed: when we give up; 0: not told */
};

/* Everything a report is made of; all slices borrowed for the call. */
struct bh_dsn {
    struct bh_slice reporting_mta; /* our host name */
    struct bh_slice from;          /* local@domain, such as MAILER-DAEMON@mx.example.net */
    struct bh_slice to;            /* local@domain: the sender, or the postmaster */
    int64_t arrival_unix_ms;       /* of the original */
    int64_t now_unix_ms;
    uint64_t original_id; /* queue id of the original, told to people */
    uint64_t unique;      /* differs for every report of this host: Message-ID and boundary */
    const struct bh_envelope *envelope;
    struct bh_slice content; /* of the original, from its first octet: all of it, or at least its
                                header (what follows the first empty line may be missing) */
    bool content_is_whole;   /* nothing of the content is missing */
    size_t content_max;      /* octets that a failure report returns whole; 0: BH_DSN_CONTENT_MAX */
    const struct bh_dsn_recipient *recipients;
    size_t recipients_count; /* at least 1 */
};

struct bh_dsn_sink {
    /** Takes the next octets of the report. Anything but BH_OK ends the writing. */
    enum bh_status (*put)(void *ctx, struct bh_slice octets);
    void *ctx;
};

/* What the envelope of the report must say. */
struct bh_dsn_written {
    uint64_t size;     /* octets */
    enum bh_body body; /* BH_BODY_8BITMIME if any octet is above 127 */
    bool smtputf8;     /* its own header or its recipient is not ASCII */
};

/** Write one report: header, an explanation for people, one for programs, the original (all of it
 * for a failure when neither RET=HDRS nor REQUIRETLS was given and it has at most
 * BH_DSN_CONTENT_MAX octets; otherwise its header). Every line ends in CRLF and has fewer than 998
 * octets.
 *
 * @param written  may be NULL; set on BH_OK
 * @return BH_OK, or what the sink returned */
BH_MUST_USE enum bh_status bh_dsn_write(const struct bh_dsn *dsn, struct bh_dsn_sink sink,
                                        struct bh_dsn_written *written);

/** A sink that appends to a buffer; BH_ELIMIT when it is full. */
struct bh_dsn_sink bh_dsn_sink_buf(struct bh_buf *buf);
/** The size of the report, to make room for it. */
uint64_t bh_dsn_size(const struct bh_dsn *dsn);

/** Decode xtext (RFC 3461 4): "+XX" becomes the octet.
 * @return BH_OK, BH_EPROTO (not xtext), or BH_ELIMIT (out is full) */
BH_MUST_USE enum bh_status bh_xtext_decode(struct bh_slice xtext, struct bh_buf *out);
