#include "bh/dane.h"

#define SHA256_LEN 32
#define SHA512_LEN 64

/* One DER SEQUENCE that fills its octets: a certificate or a SubjectPublicKeyInfo. What is in it is
 * the TLS layer's to read. */
static bool is_der_sequence(struct bh_slice data)
{
    const unsigned char *octets = (const unsigned char *)data.ptr;
    if (data.len < 2 || octets[0] != 0x30) {
        return false;
    }
    if (octets[1] < 0x80) {
        return data.len == 2U + octets[1];
    }
    const size_t count = octets[1] & 0x7fU;
    if (count == 0 || count > 2 || data.len < 2 + count) {
        return false; /* BH_TLSA_DATA_MAX needs no more than two octets of length */
    }
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        len = len << 8 | octets[2 + i];
    }
    return len >= 0x80 && data.len == 2 + count + len;
}

bool bh_tlsa_is_usable(const struct bh_tlsa *record)
{
    if (record->usage < 2 || record->usage > 3 || record->selector > 1) {
        return false;
    }
    switch (record->matching) {
    case 0:
        return record->data.len <= BH_TLSA_DATA_MAX && is_der_sequence(record->data);
    case 1:
        return record->data.len == SHA256_LEN;
    case 2:
        return record->data.len == SHA512_LEN;
    default:
        return false;
    }
}

static bool has_record(const struct bh_tlsa *records, size_t count, const struct bh_tlsa *record)
{
    for (size_t i = 0; i < count; i++) {
        if (records[i].usage == record->usage && records[i].selector == record->selector &&
            records[i].matching == record->matching && bh_slice_eq(records[i].data, record->data)) {
            return true;
        }
    }
    return false;
}

enum bh_status bh_dane_read(const struct bh_tlsa *records, size_t count, struct bh_slice base,
                            struct bh_arena *arena, struct bh_dane *dane)
{
    struct bh_dane made = {.state = count > 0 ? BH_DANE_UNUSABLE : BH_DANE_NONE};
    struct bh_tlsa *usable = bh_arena_alloc(arena, BH_DANE_RECORDS_MAX * sizeof(*usable));
    size_t octets = 0;
    if (usable == NULL || !bh_arena_copy(arena, base, &made.base)) {
        return BH_ENOMEM;
    }
    made.tlsa.at = usable;
    for (size_t i = 0; i < count; i++) {
        if (!bh_tlsa_is_usable(&records[i]) || has_record(usable, made.tlsa.count, &records[i])) {
            continue;
        }
        octets += records[i].data.len;
        if (made.tlsa.count == BH_DANE_RECORDS_MAX || octets > BH_DANE_OCTETS_MAX) {
            *dane = (struct bh_dane){.state = BH_DANE_FAILED, .happened = BH_HAPPENED_DNS_FAILED};
            return BH_OK;
        }
        struct bh_tlsa *copy = &usable[made.tlsa.count];
        *copy = records[i];
        if (!bh_arena_copy(arena, records[i].data, &copy->data)) {
            return BH_ENOMEM;
        }
        made.tlsa.count++;
        made.state = BH_DANE_USABLE;
    }
    *dane = made;
    return BH_OK;
}

const char *bh_dane_state_name(enum bh_dane_state state)
{
    switch (state) {
    case BH_DANE_NOT_ASKED:
        return "not-asked";
    case BH_DANE_INSECURE:
        return "insecure";
    case BH_DANE_NONE:
        return "none";
    case BH_DANE_UNUSABLE:
        return "unusable";
    case BH_DANE_USABLE:
        return "usable";
    case BH_DANE_FAILED:
        return "failed";
    case BH_DANE_UNTRUSTED:
        return "untrusted";
    }
    return "unknown";
}
