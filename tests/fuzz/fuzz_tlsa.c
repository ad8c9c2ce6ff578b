/* Property: of any records the usable ones are taken, each once, whatever their order; what can't
 * be taken whole is not taken in part. */
#include "bh/assert.h"
#include "bh/dane.h"
#include "bh/wire.h"

#define RECORDS_MAX ((size_t)200)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bh_dane read_set(const struct bh_tlsa *records, size_t count, struct bh_arena *arena)
{
    struct bh_dane dane = {0};
    bh_arena_init(arena, (size_t)1 << 20);
    BH_ASSERT(bh_dane_read(records, count, BH_LIT("mx"), arena, &dane) == BH_OK);
    return dane;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_tlsa records[RECORDS_MAX];
    struct bh_tlsa reversed[RECORDS_MAX];
    struct bh_reader r = {.rest = bh_slice(data, size)};
    size_t count = 0;
    bool any_usable = false;
    while (count < RECORDS_MAX && r.rest.len > 0) {
        struct bh_tlsa *record = &records[count];
        record->usage = bh_read_u8(&r);
        record->selector = bh_read_u8(&r);
        record->matching = bh_read_u8(&r);
        record->data = bh_read_slice(&r);
        if (r.failed) {
            break;
        }
        any_usable = any_usable || bh_tlsa_is_usable(record);
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        reversed[i] = records[count - 1 - i];
    }
    struct bh_arena one, two;
    const struct bh_dane a = read_set(records, count, &one);
    const struct bh_dane b = read_set(reversed, count, &two);
    BH_ASSERT(a.state == b.state);
    BH_ASSERT((a.state == BH_DANE_USABLE || a.state == BH_DANE_FAILED) == any_usable);
    BH_ASSERT((a.state == BH_DANE_NONE) == (count == 0));
    if (a.state == BH_DANE_USABLE) {
        const struct bh_tls_demand x = {.mode = BH_TLS_DANE, .tlsa = a.tlsa};
        const struct bh_tls_demand y = {.mode = BH_TLS_DANE, .tlsa = b.tlsa};
        BH_ASSERT(a.tlsa.count > 0 && a.tlsa.count == b.tlsa.count);
        BH_ASSERT(bh_tls_demand_eq(&x, &y));
        for (size_t i = 0; i < a.tlsa.count; i++) {
            BH_ASSERT(bh_tlsa_is_usable(&a.tlsa.at[i]));
        }
    } else {
        BH_ASSERT(a.tlsa.count == 0);
    }
    bh_arena_fini(&one);
    bh_arena_fini(&two);
    return 0;
}
