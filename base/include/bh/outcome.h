/* outcome.h - what happened to one try: of a destination, a host, a message or a recipient. Facts
 * only. What they mean (temporary or permanent, whose fault, what backs off) is decided in one
 * place, engine/scheduler/outcome_policy. */
#pragma once

#include "bh/ip.h"
#include "bh/slice.h"

/** How far it got. The order is the order of a session. */
enum bh_stage {
    BH_STAGE_NONE,
    BH_STAGE_ROUTE, /* finding the next hop: configuration, MX and address lookups */
    BH_STAGE_CONNECT,
    BH_STAGE_GREETING,
    BH_STAGE_EHLO,     /* EHLO, HELO or LHLO, before or after TLS */
    BH_STAGE_STARTTLS, /* the command and its reply */
    BH_STAGE_TLS,      /* handshake and verification */
    BH_STAGE_AUTH,
    BH_STAGE_MAIL,
    BH_STAGE_RCPT,
    BH_STAGE_DATA, /* DATA or BDAT before the content's end was sent */
    BH_STAGE_BODY, /* sending content */
    BH_STAGE_DOT,  /* the end of content was sent; the reply decides */
    BH_STAGE_IDLE, /* between transactions */
};

enum bh_happened {
    BH_HAPPENED_REPLY, /* the remote said `code`; the common case */
    BH_HAPPENED_TIMEOUT,
    BH_HAPPENED_LOST,        /* connection closed or reset */
    BH_HAPPENED_REFUSED,     /* connect: refused */
    BH_HAPPENED_UNREACHABLE, /* connect: no route, host unreachable */
    BH_HAPPENED_TOO_SLOW,    /* below the minimum data rate */
    BH_HAPPENED_GARBLED,     /* not SMTP, or a reply past its bounds */
    BH_HAPPENED_INJECTED,    /* octets behind the 220 to STARTTLS */
    BH_HAPPENED_NXDOMAIN,
    BH_HAPPENED_NULL_MX,
    BH_HAPPENED_NO_ADDRESS,   /* names exist, none has an address */
    BH_HAPPENED_DNS_FAILED,   /* SERVFAIL, refused or a garbled answer */
    BH_HAPPENED_DNS_BOGUS,    /* DNSSEC says no */
    BH_HAPPENED_DNS_TIMEOUT,  /* no resolver answered */
    BH_HAPPENED_ALL_FILTERED, /* every target is ourselves, forbidden or off by policy */
    BH_HAPPENED_LOOP,         /* we are the best MX */
    BH_HAPPENED_TLS_NOT_OFFERED,
    BH_HAPPENED_TLS_FAILED,       /* the handshake failed */
    BH_HAPPENED_TLS_UNVERIFIED,   /* it succeeded, but not as the policy demands */
    BH_HAPPENED_AUTH_NOT_OFFERED, /* or no mechanism in common */
    BH_HAPPENED_TOO_BIG,          /* over the SIZE that the remote announced */
    BH_HAPPENED_NEEDS_8BITMIME,   /* content has octets above 127, the remote lacks 8BITMIME */
    BH_HAPPENED_NEEDS_SMTPUTF8,
    BH_HAPPENED_NEEDS_REQUIRETLS,
    BH_HAPPENED_BAD_CONTENT,     /* the stored message cannot go over SMTP (bare CR or LF) */
    BH_HAPPENED_OUR_CONFIG,      /* our configuration can't serve it */
    BH_HAPPENED_OUR_SECRET,      /* an unreadable key, certificate or password file */
    BH_HAPPENED_OUR_SOURCE,      /* a source address that this machine does not have */
    BH_HAPPENED_OUR_NETWORK,     /* our network is down: no route anywhere */
    BH_HAPPENED_OUR_RESOURCE,    /* descriptors, memory, disk */
    BH_HAPPENED_UNCERTAIN_CRASH, /* we stopped between the final dot and the commit */
    BH_HAPPENED_OPERATOR,        /* cancelled or bounced by an operator */
    BH_HAPPENED_EXPIRED,
};

#define BH_OUTCOME_TEXT_MAX 512

struct bh_outcome {
    enum bh_stage stage;
    enum bh_happened happened;
    uint16_t code;          /* the reply's three digits, 0 for none */
    uint8_t enhanced_class; /* RFC 3463 class.subject.detail as the remote gave it; class 0: none */
    uint16_t enhanced_subject;
    uint16_t enhanced_detail;
    struct bh_slice text; /* the reply without its code (lines joined by a blank), or our reason;
                             cut to BH_OUTCOME_TEXT_MAX; may hold any octets */
    struct bh_slice host; /* who said it: the name of the next hop; empty if nobody did */
    struct bh_ip ip;      /* family 0: none */
    uint16_t port;
};

/** Lower-case names for logs and records, static storage: "rcpt", "tls_failed". */
const char *bh_stage_name(enum bh_stage stage);
const char *bh_happened_name(enum bh_happened happened);
