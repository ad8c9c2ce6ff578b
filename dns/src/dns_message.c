/* dns_message.c - reading an answer, in steps:
 *   1. the header and the question, which must be ours
 *   2. one pass over all records, so that a broken message is refused as a whole
 *   3. the CNAME chain from the question's name, in the answer section
 *   4. the records of the type at the end of the chain
 *   5. without any: the SOA for the negative TTL (RFC 2308) */
#include "bh/dns_message.h"

#include "bh/wire.h"
#include "dns_name.h"

#define HEADER_LEN ((size_t)12)
#define CLASS_IN 1
#define TYPE_OPT 41
#define OPTION_EXTENDED_ERROR 15
#define ALIASES_MAX 16
#define RECORDS_MAX ((size_t)256)
#define TTL_MAX UINT32_C(0x7fffffff) /* with the top bit set it is 0 (RFC 2181 section 8) */

enum { RCODE_NOERROR = 0, RCODE_NXDOMAIN = 3 };

/* One record, not copied. */
struct rr {
    struct bh_dns_wire owner;
    uint16_t type;
    uint16_t class;
    uint32_t ttl_s;
    size_t data_at; /* in the message */
    size_t data_len;
};

struct message {
    struct bh_slice octets;
    uint8_t rcode;
    uint16_t answers;
    uint16_t authorities;
    uint16_t additionals;
    size_t answers_at;
    size_t authorities_at;
    uint8_t extended_rcode;  /* upper bits, from the OPT record */
    uint16_t extended_error; /* as in struct bh_dns_answer */
};

static uint8_t octet_at(struct bh_slice s, size_t at)
{
    return (uint8_t)s.ptr[at];
}

enum bh_status bh_dns_write_query(uint16_t id, struct bh_slice name, uint16_t type,
                                  uint16_t udp_payload, struct bh_buf *out)
{
    struct bh_dns_wire wire;
    if (bh_dns_wire_from_text(name, &wire) != BH_OK) {
        return BH_EINVAL;
    }
    char fixed[HEADER_LEN] = {0};
    bh_put_be16(fixed, id);
    fixed[2] = 0x01; /* RD */
    fixed[3] = 0x20; /* AD */
    fixed[5] = 1;    /* one question */
    fixed[11] = udp_payload > 0 ? 1 : 0;
    char tail[4];
    bh_put_be16(tail, type);
    bh_put_be16(tail + 2, CLASS_IN);
    char opt[11] = {0}; /* the root, type, payload size; no extended code, flags or options */
    bh_put_be16(opt + 1, TYPE_OPT);
    bh_put_be16(opt + 3, udp_payload);
    const size_t opt_len = udp_payload > 0 ? sizeof(opt) : 0;
    if (bh_buf_room(out) < sizeof(fixed) + wire.len + sizeof(tail) + opt_len) {
        return BH_ELIMIT;
    }
    bh_buf_put(out, bh_slice(fixed, sizeof(fixed)));
    bh_buf_put(out, bh_slice(wire.octets, wire.len));
    bh_buf_put(out, bh_slice(tail, sizeof(tail)));
    bh_buf_put(out, bh_slice(opt, opt_len));
    return BH_OK;
}

static enum bh_status read_rr(struct bh_slice octets, size_t *at, struct rr *rr)
{
    size_t pos = *at;
    const enum bh_status status = bh_dns_wire_read(octets, &pos, &rr->owner);
    if (status != BH_OK) {
        return status;
    }
    if (octets.len - pos < 10) {
        return BH_EPROTO;
    }
    const char *fixed = octets.ptr + pos;
    rr->type = bh_get_be16(fixed);
    rr->class = bh_get_be16(fixed + 2);
    rr->ttl_s = bh_get_be32(fixed + 4);
    rr->data_len = bh_get_be16(fixed + 8);
    rr->data_at = pos + 10;
    if (octets.len - rr->data_at < rr->data_len) {
        return BH_EPROTO;
    }
    *at = rr->data_at + rr->data_len;
    return BH_OK;
}

static uint32_t ttl_of(const struct rr *rr)
{
    return rr->ttl_s <= TTL_MAX ? rr->ttl_s : 0;
}

/* The OPT record: the class is a size, the TTL holds flags (RFC 6891 section 6.1.3). */
static enum bh_status read_opt(struct message *m, const struct rr *rr)
{
    struct bh_slice rest = bh_slice(m->octets.ptr + rr->data_at, rr->data_len);
    m->extended_rcode = (uint8_t)(rr->ttl_s >> 24);
    while (rest.len > 0) {
        if (rest.len < 4 || rest.len - 4 < bh_get_be16(rest.ptr + 2)) {
            return BH_EPROTO;
        }
        const uint16_t code = bh_get_be16(rest.ptr);
        const size_t len = bh_get_be16(rest.ptr + 2);
        if (code == OPTION_EXTENDED_ERROR && len >= 2 && m->extended_error == 0) {
            const uint16_t info = bh_get_be16(rest.ptr + 4);
            m->extended_error = info < UINT16_MAX ? (uint16_t)(info + 1) : info;
        }
        rest = bh_slice_skip(rest, 4 + len);
    }
    return BH_OK;
}

/* Step 1. A server that fails may leave the question out. */
static enum bh_status read_question(struct message *m, const struct bh_dns_wire *name,
                                    uint16_t type, size_t *at)
{
    const uint16_t questions = bh_get_be16(m->octets.ptr + 4);
    const bool failed = m->rcode != RCODE_NOERROR && m->rcode != RCODE_NXDOMAIN;
    if (questions == 0 && failed) {
        return BH_OK;
    }
    struct bh_dns_wire asked;
    if (questions != 1 || bh_dns_wire_read(m->octets, at, &asked) != BH_OK ||
        m->octets.len - *at < 4) {
        return BH_EPROTO;
    }
    const char *fixed = m->octets.ptr + *at;
    *at += 4;
    const bool ours = bh_dns_wire_eq(&asked, name) && bh_get_be16(fixed) == type &&
                      bh_get_be16(fixed + 2) == CLASS_IN;
    return ours ? BH_OK : BH_EPROTO;
}

/* Step 2. */
static enum bh_status walk(struct message *m, size_t at)
{
    const size_t sections[] = {m->answers, m->authorities, m->additionals};
    for (size_t section = 0; section < BH_COUNT(sections); section++) {
        if (section == 0) {
            m->answers_at = at;
        } else if (section == 1) {
            m->authorities_at = at;
        }
        for (size_t i = 0; i < sections[section]; i++) {
            struct rr rr;
            enum bh_status status = read_rr(m->octets, &at, &rr);
            if (status == BH_OK && section == 2 && rr.type == TYPE_OPT) {
                status = read_opt(m, &rr);
            }
            if (status != BH_OK) {
                return status;
            }
        }
    }
    return BH_OK;
}

/* A name that must fill the rest of the record's data from `offset`. */
static enum bh_status read_data_name(const struct message *m, const struct rr *rr, size_t offset,
                                     struct bh_dns_wire *name)
{
    if (rr->data_len <= offset) {
        return BH_EPROTO;
    }
    /* Nothing behind the record's end may be read as part of it; pointers lead backwards only. */
    const size_t end = rr->data_at + rr->data_len;
    size_t at = rr->data_at + offset;
    const enum bh_status status = bh_dns_wire_read(bh_slice_take(m->octets, end), &at, name);
    return status == BH_OK && at != end ? BH_EPROTO : status;
}

static enum bh_status copy_name(const struct bh_dns_wire *wire, struct bh_arena *arena,
                                struct bh_slice *name)
{
    char text[BH_DNS_NAME_MAX];
    struct bh_buf buf = bh_buf(text, sizeof(text));
    const enum bh_status status = bh_dns_wire_to_text(wire, &buf);
    BH_ASSERT(status == BH_OK);
    return bh_arena_copy(arena, bh_buf_slice(&buf), name) ? BH_OK : BH_ENOMEM;
}

/* Step 3: `name` moves to the end of the chain. */
static enum bh_status follow_aliases(const struct message *m, struct bh_dns_wire *name,
                                     struct bh_dns_answer *answer)
{
    for (;;) {
        size_t at = m->answers_at;
        bool moved = false;
        for (size_t i = 0; i < m->answers && !moved; i++) {
            struct rr rr;
            if (read_rr(m->octets, &at, &rr) != BH_OK) {
                return BH_EPROTO;
            }
            if (rr.type != BH_DNS_CNAME || rr.class != CLASS_IN ||
                !bh_dns_wire_eq(&rr.owner, name)) {
                continue;
            }
            if (answer->aliases >= ALIASES_MAX || read_data_name(m, &rr, 0, name) != BH_OK) {
                return BH_EPROTO;
            }
            answer->aliases++;
            answer->ttl_s = ttl_of(&rr) < answer->ttl_s ? ttl_of(&rr) : answer->ttl_s;
            moved = true;
        }
        if (!moved) {
            return BH_OK;
        }
    }
}

static enum bh_status read_text(struct bh_slice data, struct bh_arena *arena, struct bh_slice *text)
{
    char *joined = bh_arena_alloc(arena, data.len > 0 ? data.len : 1);
    if (joined == NULL) {
        return BH_ENOMEM;
    }
    struct bh_buf buf = bh_buf(joined, data.len);
    if (data.len == 0) {
        return BH_EPROTO;
    }
    while (data.len > 0) {
        const size_t len = octet_at(data, 0);
        if (data.len - 1 < len) {
            return BH_EPROTO;
        }
        bh_buf_put(&buf, bh_slice_take(bh_slice_skip(data, 1), len));
        data = bh_slice_skip(data, 1 + len);
    }
    *text = bh_buf_slice(&buf);
    return BH_OK;
}

static enum bh_status read_ip(struct bh_slice data, uint8_t family, struct bh_ip *ip)
{
    const size_t len = family == 4 ? 4 : 16;
    if (data.len != len) {
        return BH_EPROTO;
    }
    *ip = (struct bh_ip){.family = family};
    memcpy(ip->bytes, data.ptr, len);
    return BH_OK;
}

static enum bh_status read_name_record(const struct message *m, const struct rr *rr, size_t offset,
                                       struct bh_arena *arena, struct bh_slice *name)
{
    struct bh_dns_wire wire;
    const enum bh_status status = read_data_name(m, rr, offset, &wire);
    return status == BH_OK ? copy_name(&wire, arena, name) : status;
}

static enum bh_status read_data(const struct message *m, const struct rr *rr,
                                struct bh_arena *arena, struct bh_dns_record *record)
{
    const struct bh_slice data = bh_slice(m->octets.ptr + rr->data_at, rr->data_len);
    switch (rr->type) {
    case BH_DNS_A:
        return read_ip(data, 4, &record->ip);
    case BH_DNS_AAAA:
        return read_ip(data, 6, &record->ip);
    case BH_DNS_MX:
        if (data.len < 3) {
            return BH_EPROTO;
        }
        record->preference = bh_get_be16(data.ptr);
        return read_name_record(m, rr, 2, arena, &record->name);
    case BH_DNS_NS:
    case BH_DNS_CNAME:
        return read_name_record(m, rr, 0, arena, &record->name);
    case BH_DNS_TXT:
        return read_text(data, arena, &record->data);
    case BH_DNS_TLSA:
        if (data.len < 3) {
            return BH_EPROTO;
        }
        record->usage = octet_at(data, 0);
        record->selector = octet_at(data, 1);
        record->matching = octet_at(data, 2);
        return bh_arena_copy(arena, bh_slice_skip(data, 3), &record->data) ? BH_OK : BH_ENOMEM;
    default:
        return bh_arena_copy(arena, data, &record->data) ? BH_OK : BH_ENOMEM;
    }
}

/* Step 4, twice: without an arena it only counts. */
static enum bh_status collect(const struct message *m, const struct bh_dns_wire *name,
                              struct bh_arena *arena, struct bh_dns_answer *answer, size_t *count)
{
    size_t at = m->answers_at;
    *count = 0;
    for (size_t i = 0; i < m->answers && *count < RECORDS_MAX; i++) {
        struct rr rr;
        enum bh_status status = read_rr(m->octets, &at, &rr);
        if (status != BH_OK) {
            return status;
        }
        if (rr.type != answer->type || rr.class != CLASS_IN || !bh_dns_wire_eq(&rr.owner, name)) {
            continue;
        }
        if (arena != NULL) {
            status = read_data(m, &rr, arena, &answer->records[*count]);
            if (status != BH_OK) {
                return status;
            }
            answer->ttl_s = ttl_of(&rr) < answer->ttl_s ? ttl_of(&rr) : answer->ttl_s;
        }
        ++*count;
    }
    return BH_OK;
}

/* Step 5: the lesser of the SOA's TTL and its last field (RFC 2308 section 5). */
static enum bh_status read_negative_ttl(const struct message *m, struct bh_dns_answer *answer)
{
    size_t at = m->authorities_at;
    for (size_t i = 0; i < m->authorities; i++) {
        struct rr rr;
        if (read_rr(m->octets, &at, &rr) != BH_OK) {
            return BH_EPROTO;
        }
        if (rr.type != BH_DNS_SOA || rr.class != CLASS_IN) {
            continue;
        }
        if (rr.data_len < 22) { /* two root names and five numbers */
            return BH_EPROTO;
        }
        uint32_t ttl_s = bh_get_be32(m->octets.ptr + rr.data_at + rr.data_len - 4);
        ttl_s = ttl_s <= TTL_MAX ? ttl_s : 0;
        ttl_s = ttl_of(&rr) < ttl_s ? ttl_of(&rr) : ttl_s;
        answer->ttl_s = ttl_s < answer->ttl_s ? ttl_s : answer->ttl_s;
        answer->has_soa = true;
        return BH_OK;
    }
    if (answer->aliases == 0) {
        answer->ttl_s = 0; /* else the chain's: an authority may leave its end to be asked for */
    }
    return BH_OK;
}

static enum bh_dns_status status_of(const struct message *m, size_t records)
{
    /* RFC 8914: bogus, expired or not yet valid signatures, missing keys, signatures or proofs. */
    const bool bogus = m->extended_error >= 6 + 1 && m->extended_error <= 12 + 1;
    if (m->extended_rcode != 0) {
        return BH_DNS_SERVFAIL; /* BADVERS hides behind a NOERROR in the header */
    }
    if (m->rcode == RCODE_NXDOMAIN) {
        return BH_DNS_NXDOMAIN;
    }
    if (m->rcode != RCODE_NOERROR) {
        return bogus ? BH_DNS_BOGUS : BH_DNS_SERVFAIL;
    }
    return records > 0 ? BH_DNS_FOUND : BH_DNS_NODATA;
}

static enum bh_status read_answer(const struct message *m, struct bh_dns_wire *name,
                                  struct bh_arena *arena, struct bh_dns_answer *answer)
{
    size_t count = 0;
    enum bh_status status = BH_OK;
    if (answer->type != BH_DNS_CNAME) {
        status = follow_aliases(m, name, answer);
    }
    if (status == BH_OK) {
        status = collect(m, name, NULL, answer, &count);
    }
    if (status == BH_OK) {
        status = copy_name(name, arena, &answer->name);
    }
    if (status != BH_OK) {
        return status;
    }
    answer->status = status_of(m, count);
    if (answer->status == BH_DNS_FOUND) {
        answer->records = bh_arena_alloc(arena, count * sizeof(*answer->records));
        if (answer->records == NULL) {
            return BH_ENOMEM;
        }
        answer->records_len = count;
        return collect(m, name, arena, answer, &count);
    }
    if (bh_dns_is_answer(answer->status)) {
        return read_negative_ttl(m, answer);
    }
    answer->ttl_s = 0;
    return BH_OK;
}

enum bh_status bh_dns_read_answer(struct bh_slice message, struct bh_slice name, uint16_t type,
                                  struct bh_arena *arena, struct bh_dns_answer *answer)
{
    struct bh_dns_wire wire;
    if (message.len < HEADER_LEN || bh_dns_wire_from_text(name, &wire) != BH_OK) {
        return BH_EPROTO;
    }
    const uint8_t flags = octet_at(message, 2);
    struct message m = {
        .octets = message,
        .rcode = octet_at(message, 3) & 0x0f,
        .answers = bh_get_be16(message.ptr + 6),
        .authorities = bh_get_be16(message.ptr + 8),
        .additionals = bh_get_be16(message.ptr + 10),
    };
    if ((flags & 0x80) == 0 || (flags & 0x78) != 0) { /* QR, and no opcode but QUERY */
        return BH_EPROTO;
    }
    size_t at = HEADER_LEN;
    enum bh_status status = read_question(&m, &wire, type, &at);
    if (status == BH_OK) {
        status = walk(&m, at);
    }
    if (status != BH_OK) {
        return status;
    }
    struct bh_dns_answer result = {
        .type = type,
        .rcode = m.rcode,
        .secure = (octet_at(message, 3) & 0x20) != 0,
        .truncated = (flags & 0x02) != 0,
        .extended_error = m.extended_error,
        .ttl_s = TTL_MAX,
    };
    status = read_answer(&m, &wire, arena, &result);
    if (status == BH_OK) {
        *answer = result;
    }
    return status;
}
