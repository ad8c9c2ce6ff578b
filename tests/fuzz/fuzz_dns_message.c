/* Any octets as an answer to any question. Held: nothing outside the message is read (sanitizers);
 * a copy equals its original; what was read once is read the same again; TTL, counts and names are
 * within their bounds; and names survive being written in a query and normalised. */
#include <stdint.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/dns_message.h"

static bool same(const struct bh_dns_answer *a, const struct bh_dns_answer *b)
{
    bool equal = a->status == b->status && a->ttl_s == b->ttl_s && a->secure == b->secure &&
                 a->aliases == b->aliases && a->records_len == b->records_len &&
                 bh_slice_eq(a->name, b->name);
    for (size_t i = 0; equal && i < a->records_len; i++) {
        const struct bh_dns_record *x = &a->records[i];
        const struct bh_dns_record *y = &b->records[i];
        equal = bh_ip_eq(&x->ip, &y->ip) && x->preference == y->preference &&
                x->usage == y->usage && x->selector == y->selector && x->matching == y->matching &&
                bh_slice_eq(x->name, y->name) && bh_slice_eq(x->data, y->data);
    }
    return equal;
}

static void check_name(struct bh_slice name)
{
    char storage[BH_DNS_NAME_MAX];
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    BH_ASSERT(name.len <= BH_DNS_NAME_MAX);
    BH_ASSERT(bh_dns_name_normalise(name, &buf) == BH_OK);
    BH_ASSERT(bh_slice_eq(bh_buf_slice(&buf), name));
    char query[300];
    struct bh_buf out = bh_buf(query, sizeof(query));
    BH_ASSERT(bh_dns_write_query(1, name, BH_DNS_A, 1232, &out) == BH_OK);
}

static void check_answer(const struct bh_dns_answer *a)
{
    BH_ASSERT(a->ttl_s <= UINT32_C(0x7fffffff));
    BH_ASSERT((a->status == BH_DNS_FOUND) == (a->records_len > 0));
    BH_ASSERT(a->records_len <= 256);
    BH_ASSERT(a->aliases <= 16);
    check_name(a->name);
    for (size_t i = 0; i < a->records_len; i++) {
        check_name(a->records[i].name);
    }
}

/* Input: the question's type (a choice), the length of its name, the name's text, the message. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = {BH_DNS_A,   BH_DNS_AAAA, BH_DNS_MX,   BH_DNS_TLSA,
                                     BH_DNS_TXT, BH_DNS_NS,   BH_DNS_CNAME};
    if (size < 2 || size - 2 < data[1]) {
        return 0;
    }
    const uint16_t type = types[data[0] % BH_COUNT(types)];
    const struct bh_slice name = bh_slice(data + 2, data[1]);
    const struct bh_slice message = bh_slice(data + 2 + data[1], size - 2 - data[1]);
    struct bh_arena arena;
    struct bh_dns_answer first;
    struct bh_dns_answer again;
    struct bh_dns_answer copy;
    bh_arena_init(&arena, (size_t)4 << 20);
    const enum bh_status status = bh_dns_read_answer(message, name, type, &arena, &first);
    BH_ASSERT(status == BH_OK || status == BH_EPROTO);
    BH_ASSERT(bh_dns_read_answer(message, name, type, &arena, &again) == status);
    if (status == BH_OK) {
        check_answer(&first);
        BH_ASSERT(same(&first, &again));
        BH_ASSERT(bh_dns_answer_copy(&first, &arena, &copy) == BH_OK);
        BH_ASSERT(same(&first, &copy));
    }
    bh_arena_fini(&arena);
    return 0;
}
