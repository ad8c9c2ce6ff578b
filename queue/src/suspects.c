#include "bh/suspects.h"

#include "bh/wire.h"

#define SUSPECTS_VERSION 1
#define SUSPECTS_KEY BH_LIT("intake/suspects")
#define SUSPECT_OCTETS 20

uint64_t bh_suspect_fingerprint(const struct bh_envelope *envelope, uint64_t declared_size,
                                const struct bh_recipient *recipients, uint32_t count)
{
    uint64_t sum = 0; /* of recipients: their order may change */
    for (uint32_t i = 0; i < count; i++) {
        sum += bh_hash(recipients[i].address, 1);
    }
    char octets[16];
    bh_put_be64(octets, sum);
    bh_put_be64(octets + 8, declared_size);
    uint64_t hash = bh_hash(envelope->sender, count);
    hash = bh_hash(envelope->envid, hash);
    hash = bh_hash(bh_slice(octets, sizeof(octets)), hash);
    return hash != 0 ? hash : 1;
}

enum bh_status bh_suspects_put(struct bh_queue *q, struct bh_kv_txn *txn,
                               const struct bh_suspects *suspects)
{
    char storage[8 + BH_SUSPECTS_MAX * SUSPECT_OCTETS];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, SUSPECTS_VERSION);
    bh_write_u32(&w, suspects->count);
    for (uint32_t i = 0; i < suspects->count; i++) {
        bh_write_u64(&w, suspects->list[i].fingerprint);
        bh_write_u32(&w, suspects->list[i].crashes);
        bh_write_i64(&w, suspects->list[i].last_unix_ms);
    }
    BH_ASSERT(!w.overflow);
    return bh_queue_policy_put(q, txn, SUSPECTS_KEY, bh_buf_slice(&w.buf));
}

enum bh_status bh_suspects_get(struct bh_kv_txn *txn, struct bh_arena *arena,
                               struct bh_suspects *suspects)
{
    struct bh_slice row;
    suspects->count = 0;
    const enum bh_status status = bh_queue_policy_get(txn, SUSPECTS_KEY, arena, &row);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    struct bh_reader r = {.rest = row};
    if (bh_read_u8(&r) > SUSPECTS_VERSION) {
        return BH_EVERSION;
    }
    const uint32_t count = bh_read_u32(&r);
    if (count > BH_SUSPECTS_MAX) {
        return BH_ECORRUPT;
    }
    for (uint32_t i = 0; i < count; i++) {
        suspects->list[i] = (struct bh_suspect){.fingerprint = bh_read_u64(&r),
                                                .crashes = bh_read_u32(&r),
                                                .last_unix_ms = bh_read_i64(&r)};
    }
    if (r.failed || r.rest.len > 0) {
        return BH_ECORRUPT;
    }
    suspects->count = count;
    return BH_OK;
}

/* The one to write over: its own, or a free place, or the one seen longest ago. */
static struct bh_suspect *place_for(struct bh_suspects *s, uint64_t fingerprint)
{
    struct bh_suspect *oldest = &s->list[0];
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->list[i].fingerprint == fingerprint) {
            return &s->list[i];
        }
        if (s->list[i].last_unix_ms < oldest->last_unix_ms) {
            oldest = &s->list[i];
        }
    }
    struct bh_suspect *place = s->count < BH_SUSPECTS_MAX ? &s->list[s->count++] : oldest;
    *place = (struct bh_suspect){.fingerprint = fingerprint};
    return place;
}

uint32_t bh_suspects_add(struct bh_suspects *suspects, uint64_t fingerprint, int64_t now_unix_ms)
{
    struct bh_suspect *s = place_for(suspects, fingerprint);
    s->crashes += s->crashes < UINT32_MAX ? 1 : 0;
    s->last_unix_ms = now_unix_ms;
    return s->crashes;
}

bool bh_suspects_forget(struct bh_suspects *suspects, int64_t now_unix_ms)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < suspects->count; i++) {
        if (now_unix_ms - suspects->list[i].last_unix_ms < BH_SUSPECT_FORGET_MS) {
            suspects->list[kept++] = suspects->list[i];
        }
    }
    const bool forgot = kept < suspects->count;
    suspects->count = kept;
    return forgot;
}

int64_t bh_suspect_until(const struct bh_suspect *suspect, int64_t now_unix_ms)
{
    if (suspect->crashes < 2) {
        return 0;
    }
    int64_t span = BH_SUSPECT_FIRST_MS;
    for (uint32_t i = 2; i < suspect->crashes && span < BH_SUSPECT_LONGEST_MS; i++) {
        span *= 2;
    }
    span = span < BH_SUSPECT_LONGEST_MS ? span : BH_SUSPECT_LONGEST_MS;
    const int64_t until = suspect->last_unix_ms + span;
    return until > now_unix_ms && until - now_unix_ms <= span ? until : 0;
}

bool bh_suspects_refuse(const struct bh_suspects *suspects, uint64_t fingerprint,
                        int64_t now_unix_ms)
{
    for (uint32_t i = 0; i < suspects->count; i++) {
        if (suspects->list[i].fingerprint == fingerprint) {
            return bh_suspect_until(&suspects->list[i], now_unix_ms) != 0;
        }
    }
    return false;
}
