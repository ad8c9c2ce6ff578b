/* The record, version 2: the fields of struct bh_decision in order; version 1 has no tls_origin.
 * Integers that are mostly small are varints, times are fixed, texts have a length before them. */
#include "bh/decision.h"

#include "bh/assert.h"
#include "bh/wire.h"

#define VERSION 2

/* Enough of an address's or a name's octets to recognise it by. */
#define NAME_MAX_LEN 255

/* How much of each text is kept, tried from the widest; the last fits whatever there is:
 * (8 + 1) outcomes of at most 32 + 40 + 24 octets and 9 texts of 32, with the numbers, are below
 * 1,300 octets. */
static const struct {
    size_t name;   /* of a host */
    size_t remote; /* what a host said */
    size_t own;    /* our own texts */
} cuts[] = {{NAME_MAX_LEN, BH_OUTCOME_TEXT_MAX, 512}, {128, 160, 160}, {64, 64, 80}, {40, 24, 32}};

static void write_outcome(struct bh_writer *w, const struct bh_outcome *o, size_t name, size_t text)
{
    bh_write_u8(w, (uint8_t)o->stage);
    bh_write_u8(w, (uint8_t)o->happened);
    bh_write_u16(w, o->code);
    bh_write_u8(w, o->enhanced_class);
    bh_write_varint(w, o->enhanced_subject);
    bh_write_varint(w, o->enhanced_detail);
    bh_write_u8(w, o->ip.family);
    bh_write_slice(w, bh_slice(o->ip.bytes, o->ip.family == 4 ? 4 : o->ip.family == 6 ? 16 : 0));
    bh_write_varint(w, o->port);
    bh_write_slice(w, bh_slice_take(o->host, name));
    bh_write_slice(w, bh_slice_take(o->text, text));
}

static void write_all(struct bh_writer *w, const struct bh_decision *d, size_t level)
{
    const size_t own = cuts[level].own;
    const size_t kept =
        d->hosts_count < BH_DECISION_HOSTS_MAX ? d->hosts_count : BH_DECISION_HOSTS_MAX;
    bh_write_u8(w, VERSION);
    bh_write_i64(w, d->time_unix_ms);
    bh_write_varint(w, d->generation);
    bh_write_varint(w, d->round);
    bh_write_slice(w, bh_slice_take(d->connector, own));
    bh_write_slice(w, bh_slice_take(d->rule, own));
    bh_write_slice(w, bh_slice_take(d->route, own));
    bh_write_u8(w, (uint8_t)kept);
    for (size_t i = 0; i < kept; i++) {
        write_outcome(w, &d->hosts[i], cuts[level].name, cuts[level].remote);
    }
    bh_write_varint(w, d->hosts_more);
    bh_write_slice(w, bh_slice_take(d->tls_wanted, own));
    bh_write_slice(w, bh_slice_take(d->tls_got, own));
    bh_write_slice(w, bh_slice_take(d->tls_reason, own));
    bh_write_slice(w, bh_slice_take(d->tls_origin, own));
    bh_write_slice(w, bh_slice_take(d->limit, own));
    write_outcome(w, &d->outcome, cuts[level].name, cuts[level].remote);
    bh_write_i64(w, d->next_unix_ms);
    bh_write_slice(w, bh_slice_take(d->next_reason, own));
}

enum bh_status bh_decision_encode(const struct bh_decision *decision, struct bh_buf *out)
{
    if (bh_buf_room(out) < BH_DECISION_MAX) {
        return BH_ELIMIT;
    }
    for (size_t level = 0; level < BH_COUNT(cuts); level++) {
        struct bh_writer w = {.buf = bh_buf(out->ptr + out->len, BH_DECISION_MAX)};
        write_all(&w, decision, level);
        if (!w.overflow) {
            out->len += w.buf.len;
            return BH_OK;
        }
    }
    BH_ASSERT(false);
    return BH_ELIMIT;
}

/* A varint of at most `max`; more fails the record. */
static uint64_t read_up_to(struct bh_reader *r, uint64_t max)
{
    const uint64_t v = bh_read_varint(r);
    r->failed = r->failed || v > max;
    return r->failed ? 0 : v;
}

static void read_outcome(struct bh_reader *r, struct bh_outcome *o)
{
    const uint8_t stage = bh_read_u8(r);
    const uint8_t happened = bh_read_u8(r);
    r->failed = r->failed || stage > BH_STAGE_IDLE || happened > BH_HAPPENED_EXPIRED;
    o->stage = r->failed ? BH_STAGE_NONE : (enum bh_stage)stage;
    o->happened = r->failed ? BH_HAPPENED_REPLY : (enum bh_happened)happened;
    o->code = bh_read_u16(r);
    o->enhanced_class = bh_read_u8(r);
    o->enhanced_subject = (uint16_t)read_up_to(r, UINT16_MAX);
    o->enhanced_detail = (uint16_t)read_up_to(r, UINT16_MAX);
    o->ip.family = bh_read_u8(r);
    const struct bh_slice ip = bh_read_slice(r);
    const size_t want = o->ip.family == 4 ? 4 : o->ip.family == 6 ? 16 : 0;
    r->failed = r->failed || ip.len != want || (want == 0 && o->ip.family != 0);
    if (!r->failed && want > 0) {
        memcpy(o->ip.bytes, ip.ptr, want);
    }
    o->port = (uint16_t)read_up_to(r, UINT16_MAX);
    o->host = bh_read_slice(r);
    o->text = bh_read_slice(r);
}

enum bh_status bh_decision_decode(struct bh_slice record, struct bh_decision *decision)
{
    struct bh_reader r = {.rest = record};
    struct bh_decision d = {0};
    const uint8_t version = bh_read_u8(&r);
    if (r.failed || version == 0) {
        return BH_ECORRUPT;
    }
    if (version > VERSION) {
        return BH_EVERSION;
    }
    d.time_unix_ms = bh_read_i64(&r);
    d.generation = bh_read_varint(&r);
    d.round = (uint32_t)read_up_to(&r, UINT32_MAX);
    d.connector = bh_read_slice(&r);
    d.rule = bh_read_slice(&r);
    d.route = bh_read_slice(&r);
    d.hosts_count = bh_read_u8(&r);
    if (d.hosts_count > BH_DECISION_HOSTS_MAX) {
        return BH_ECORRUPT;
    }
    for (size_t i = 0; i < d.hosts_count; i++) {
        read_outcome(&r, &d.hosts[i]);
    }
    d.hosts_more = (uint32_t)read_up_to(&r, UINT32_MAX);
    d.tls_wanted = bh_read_slice(&r);
    d.tls_got = bh_read_slice(&r);
    d.tls_reason = bh_read_slice(&r);
    d.tls_origin = version >= 2 ? bh_read_slice(&r) : BH_EMPTY;
    d.limit = bh_read_slice(&r);
    read_outcome(&r, &d.outcome);
    d.next_unix_ms = bh_read_i64(&r);
    d.next_reason = bh_read_slice(&r);
    if (r.failed || r.rest.len > 0) {
        return BH_ECORRUPT;
    }
    *decision = d;
    return BH_OK;
}
