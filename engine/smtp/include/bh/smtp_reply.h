/* smtp_reply.h - what a server says: replies of one or more lines (RFC 5321 4.2), enhanced status
 * codes (RFC 2034), the keywords of an EHLO reply. Pure: no allocation. */
#pragma once

#include "bh/outcome.h"
#include "bh/slice.h"
#include "bh/status.h"

/* Bounds past which a peer is not taken to speak SMTP. RFC 5321 says 512 octets a line; real
 * servers send longer ones. */
#define BH_REPLY_LINE_MAX 2048
#define BH_REPLY_LINES_MAX 128
#define BH_REPLY_TEXT_MAX                                                  \
    4096 /* octets of text kept of one reply; the rest is read and dropped \
          */

/** A whole reply. */
struct bh_reply {
    uint16_t code;          /* 200 to 599 */
    uint8_t enhanced_class; /* 0: none, or its class was not the first digit of the code */
    uint16_t enhanced_subject;
    uint16_t enhanced_detail;
    struct bh_slice text; /* lines joined by '\n', without code and enhanced code; borrowed from the
                             parser until it is fed again */
    bool cut;             /* text is not all of it; its last line is whole */
};

struct bh_reply_parser {
    uint16_t code; /* all private; zero-initialised is ready */
    uint16_t lines;
    uint8_t enhanced_class;
    bool done;
    bool cut;
    uint16_t enhanced_subject, enhanced_detail;
    size_t line_len;
    size_t text_len;
    char line[BH_REPLY_LINE_MAX];
    char text[BH_REPLY_TEXT_MAX];
};

/** Feed octets up to the end of one reply.
 *
 * @param in  advanced past what was read; stops behind the reply's last line
 * @return BH_OK: *reply is whole; BH_MORE: all of *in is read; BH_EPROTO: not a reply: no three
 *         digits in 200..599, a code that changes between lines, a NUL, a line or a number of lines
 *         past its bound. A line may end in LF alone. */
BH_MUST_USE enum bh_status bh_reply_feed(struct bh_reply_parser *p, struct bh_slice *in,
                                         struct bh_reply *reply);
/** Is a reply begun and not ended? */
bool bh_reply_partial(const struct bh_reply_parser *p);

/** "5.1.1" and a blank or the end, class 2, 4 or 5, at most three digits a part.
 * @param rest  set to what follows it, on true only */
bool bh_enhanced_parse(struct bh_slice text, uint8_t *class_digit, uint16_t *subject,
                       uint16_t *detail, struct bh_slice *rest);

/* Extensions, as bits. */
enum {
    BH_EXT_SIZE = 1 << 0,
    BH_EXT_8BITMIME = 1 << 1,
    BH_EXT_SMTPUTF8 = 1 << 2,
    BH_EXT_DSN = 1 << 3,
    BH_EXT_PIPELINING = 1 << 4,
    BH_EXT_CHUNKING = 1 << 5,
    BH_EXT_STARTTLS = 1 << 6,
    BH_EXT_AUTH = 1 << 7,
    BH_EXT_REQUIRETLS = 1 << 8,
    BH_EXT_LIMITS = 1 << 9,
    BH_EXT_ENHANCEDSTATUSCODES = 1 << 10,
    BH_EXT_BINARYMIME = 1 << 11,
};

/* AUTH mechanisms, as bits. */
enum {
    BH_SASL_PLAIN = 1 << 0,
    BH_SASL_LOGIN = 1 << 1,
    BH_SASL_CRAM_MD5 = 1 << 2,
    BH_SASL_SCRAM_SHA_256 = 1 << 3,
    BH_SASL_XOAUTH2 = 1 << 4,
};

struct bh_ehlo {
    uint32_t extensions;      /* BH_EXT_ bits */
    uint32_t auth;            /* BH_SASL_ bits */
    uint64_t size;            /* octets; 0: no limit was stated */
    uint32_t mail_max;        /* LIMITS (RFC 9422); 0: none */
    uint32_t rcpt_max;        /* 0: none */
    uint32_t rcpt_domain_max; /* 0: none */
};

/** Read the keyword lines of a 250 reply to EHLO or LHLO: all but its first line. Unknown keywords
 * are left out; one with a malformed value counts without it (SIZE) or not at all (LIMITS). */
void bh_ehlo_parse(const struct bh_reply *reply, struct bh_ehlo *ehlo);
