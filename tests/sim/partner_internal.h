/* partner_internal.h - one connection to a partner: partner.c speaks SMTP on it, partner_auth.c
 * AUTH. */
#pragma once

#include "published.h"

struct partner_tls;

#define TEXT_MAX 2048
#define CONTENT_MAX ((size_t)1 << 20)
#define RCPTS_MAX 128
#define VAIN_MAX 6

enum stage { STAGE_COMMAND, STAGE_DATA, STAGE_BDAT, STAGE_HELLO, STAGE_AUTH };

/* Of clear text: when the daemon wrote it, up to here. */
struct mark {
    size_t end;
    uint64_t written_us;
};

struct partner {
    struct partner *next, *prev;
    struct host *host;
    struct net_conn *conn;
    struct sim_event think;
    struct partner_tls *session; /* from STARTTLS on */
    struct tls_shown shown;
    enum stage stage;
    bool garbled; /* it said something that is no reply */
    bool asked;   /* for TLS, or to take a message */
    bool tls, starttls_offered, greeted, busy, hung, gone, reset_planned, slow;
    unsigned life;          /* of the process that it talks to */
    size_t reset_at, heard; /* the octet after which the line is reset */
    char *in;               /* clear text that waits */
    size_t in_len, in_cap;
    struct mark *marks; /* of what waits, in order: the last ends with it */
    size_t mark_count, mark_cap;
    uint64_t written_us; /* the end of what was taken last */
    char *content;
    size_t content_len, content_cap;
    size_t bdat_left;
    bool bdat_last;
    uint64_t opened_us;
    bool authenticated, refused, login; /* of AUTH; its mechanism */
    char user[64];
    bool mail;
    struct recipient *rcpts[RCPTS_MAX];
    size_t rcpt_count, others; /* of ours; reports and the like */
    char out[TEXT_MAX];
    size_t out_len;
    bool close_after;
};

/** What is known of the connection, for promise 2. */
struct seen_link partner_link(const struct partner *p);
/** A reply. @return the place of its last octet in what the daemon reads */
uint64_t partner_say(struct partner *p, const char *text);
/** Does the line begin with the verb, in any case? */
bool partner_is(const char *line, const char *verb);

/** The line behind AUTH; then those of its exchange, until the stage is another. */
void partner_on_auth(struct partner *p, const char *line);
void partner_on_auth_line(struct partner *p, const char *line);
