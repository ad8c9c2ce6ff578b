/* dns_message.h - DNS questions written and answers read (RFC 1035, 2308, 6891, 8914). Pure: octets
 * in, values out. An answer is read for one question: its CNAME chain is followed inside the
 * message, and what doesn't belong to the question is ignored. */
#pragma once

#include "bh/arena.h"
#include "bh/buf.h"
#include "bh/ip.h"
#include "bh/outcome.h"
#include "bh/status.h"

enum bh_dns_type {
    BH_DNS_A = 1,
    BH_DNS_NS = 2, /* asked to probe a server; its records are not read */
    BH_DNS_CNAME = 5,
    BH_DNS_SOA = 6,
    BH_DNS_MX = 15,
    BH_DNS_TXT = 16,
    BH_DNS_AAAA = 28,
    BH_DNS_TLSA = 52,
};

/** How a lookup ended. The first three are answers, the rest are failures to get one. */
enum bh_dns_status {
    BH_DNS_FOUND,     /* at least one record of the type */
    BH_DNS_NODATA,    /* the name exists, without such records */
    BH_DNS_NXDOMAIN,  /* the name (or the end of its CNAME chain) does not exist */
    BH_DNS_SERVFAIL,  /* every server answered with a failure (SERVFAIL, REFUSED, ...) */
    BH_DNS_BOGUS,     /* the validator says so: SERVFAIL with an extended error of RFC 8914 */
    BH_DNS_GARBLED,   /* an answer that breaks the protocol */
    BH_DNS_TIMEOUT,   /* no server answered */
    BH_DNS_OVERLOAD,  /* a bound or the memory of ours */
    BH_DNS_CANCELLED, /* the resolver was destroyed */
};

/** Text of a name: lower case, no trailing dot, "" for the root; octets that are no plain text as
 * \. \\ or \DDD. At most BH_DNS_NAME_MAX octets. */
#define BH_DNS_NAME_MAX ((size_t)1004)

struct bh_dns_record {
    struct bh_ip ip;      /* A, AAAA */
    uint16_t preference;  /* MX */
    uint8_t usage;        /* TLSA */
    uint8_t selector;     /* TLSA */
    uint8_t matching;     /* TLSA */
    struct bh_slice name; /* MX exchange, NS, CNAME; "" is the root: a null MX */
    struct bh_slice data; /* TLSA association data; TXT: its strings joined (RFC 7208 3.3) */
};

struct bh_dns_answer {
    enum bh_dns_status status;
    uint16_t type;
    uint8_t rcode;           /* as in the header, 0..15 */
    bool secure;             /* AD bit; the resolver clears it unless its servers are trusted */
    bool truncated;          /* TC bit */
    bool has_soa;            /* a negative answer with an SOA: its TTL is the zone's word */
    uint16_t aliases;        /* CNAMEs followed */
    uint16_t extended_error; /* RFC 8914 info code + 1; 0: none given */
    uint32_t ttl_s;       /* least of the records and the chain; negative: by RFC 2308 section 5 */
    struct bh_slice name; /* the last name of the chain: where the records are */
    struct bh_dns_record *records;
    size_t records_len;
};

/** Lower-case, drop one trailing dot, check label and name lengths (63, 253 octets).
 *
 * @param out storage of the caller for the result; room for name.len octets
 * @return BH_OK or BH_EINVAL */
BH_MUST_USE enum bh_status bh_dns_name_normalise(struct bh_slice name, struct bh_buf *out);
/** Letters, digits, hyphen, underscore in labels of 1 to 63: what may be a mail host. */
bool bh_dns_name_is_host(struct bh_slice name);

/** Write a question: RD and AD set (AD asks for the AD bit of the answer, RFC 6840 section 5.7).
 *
 * @param name          normalised text; "" is the root
 * @param udp_payload   EDNS buffer size to announce (RFC 6891), 0 for no OPT record
 * @param out           appended to; 300 octets are always enough
 * @return BH_OK, BH_EINVAL (not a name), BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_dns_write_query(uint16_t id, struct bh_slice name, uint16_t type,
                                              uint16_t udp_payload, struct bh_buf *out);

/** Read an answer to (name, type), both as asked.
 *
 * At most 256 records of the type are kept, and 16 CNAMEs followed.
 * @param message  borrowed for this call; what the answer keeps is copied to the arena
 * @return BH_OK       answer is written; its status may be any of FOUND, NODATA, NXDOMAIN,
 * SERVFAIL, BOGUS BH_EPROTO   not an answer to this question, or it breaks the format BH_ENOMEM the
 * arena is at its cap */
BH_MUST_USE enum bh_status bh_dns_read_answer(struct bh_slice message, struct bh_slice name,
                                              uint16_t type, struct bh_arena *arena,
                                              struct bh_dns_answer *answer);

/** A copy with everything it points to. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_dns_answer_copy(const struct bh_dns_answer *answer,
                                              struct bh_arena *arena, struct bh_dns_answer *copy);
/** True for FOUND, NODATA and NXDOMAIN. */
bool bh_dns_is_answer(enum bh_dns_status status);
/** Lower-case name, static storage: "nxdomain". */
const char *bh_dns_status_name(enum bh_dns_status status);
/** "MX", "TLSA"; "TYPE" for others. Static storage. */
const char *bh_dns_type_name(uint16_t type);
