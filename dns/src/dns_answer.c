#include "bh/dns_message.h"

enum bh_status bh_dns_answer_copy(const struct bh_dns_answer *answer, struct bh_arena *arena,
                                  struct bh_dns_answer *copy)
{
    struct bh_dns_answer result = *answer;
    result.records = NULL;
    if (!bh_arena_copy(arena, answer->name, &result.name)) {
        return BH_ENOMEM;
    }
    if (answer->records_len > 0) {
        result.records = bh_arena_alloc(arena, answer->records_len * sizeof(*result.records));
        if (result.records == NULL) {
            return BH_ENOMEM;
        }
    }
    for (size_t i = 0; i < answer->records_len; i++) {
        const struct bh_dns_record *from = &answer->records[i];
        struct bh_dns_record *to = &result.records[i];
        *to = *from;
        if (!bh_arena_copy(arena, from->name, &to->name) ||
            !bh_arena_copy(arena, from->data, &to->data)) {
            return BH_ENOMEM;
        }
    }
    *copy = result;
    return BH_OK;
}

bool bh_dns_is_answer(enum bh_dns_status status)
{
    return status == BH_DNS_FOUND || status == BH_DNS_NODATA || status == BH_DNS_NXDOMAIN;
}

const char *bh_dns_status_name(enum bh_dns_status status)
{
    switch (status) {
    case BH_DNS_FOUND:
        return "found";
    case BH_DNS_NODATA:
        return "nodata";
    case BH_DNS_NXDOMAIN:
        return "nxdomain";
    case BH_DNS_SERVFAIL:
        return "servfail";
    case BH_DNS_BOGUS:
        return "bogus";
    case BH_DNS_GARBLED:
        return "garbled";
    case BH_DNS_TIMEOUT:
        return "timeout";
    case BH_DNS_OVERLOAD:
        return "overload";
    case BH_DNS_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

const char *bh_dns_type_name(uint16_t type)
{
    switch (type) {
    case BH_DNS_A:
        return "A";
    case BH_DNS_NS:
        return "NS";
    case BH_DNS_CNAME:
        return "CNAME";
    case BH_DNS_SOA:
        return "SOA";
    case BH_DNS_MX:
        return "MX";
    case BH_DNS_TXT:
        return "TXT";
    case BH_DNS_AAAA:
        return "AAAA";
    case BH_DNS_TLSA:
        return "TLSA";
    default:
        return "TYPE";
    }
}
