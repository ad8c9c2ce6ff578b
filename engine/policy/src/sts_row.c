/* The stored form of a policy: version 1, the fields in the order below. */
#include "bh/sts_cache.h"
#include "bh/wire.h"

#define ROW_VERSION 1

_Static_assert(BH_STS_MX_OCTETS_MAX < UINT16_MAX, "a length of a pattern has at most two octets");

static int64_t later(int64_t unix_ms, int64_t by_ms)
{
    return unix_ms > INT64_MAX - by_ms ? INT64_MAX : unix_ms + by_ms;
}

int64_t bh_sts_row_expires(const struct bh_sts_row *row)
{
    return later(row->fetched_unix_ms, (int64_t)row->policy.max_age_s * 1000);
}

bool bh_sts_row_wants_refresh(const struct bh_sts_row *row, int64_t unix_ms)
{
    return unix_ms < bh_sts_row_expires(row) &&
           unix_ms >= later(row->fetched_unix_ms, BH_STS_REFRESH_MS) &&
           unix_ms >= later(row->failed_unix_ms, BH_STS_RETRY_MS) &&
           unix_ms < later(row->used_unix_ms, BH_STS_IN_USE_MS);
}

enum bh_status bh_sts_row_write(const struct bh_sts_row *row, struct bh_buf *out)
{
    struct bh_writer w = {.buf = *out};
    bh_write_u8(&w, ROW_VERSION);
    bh_write_u8(&w, (uint8_t)row->policy.mode);
    bh_write_u64(&w, row->policy.max_age_s);
    bh_write_slice(&w, row->id);
    bh_write_i64(&w, row->fetched_unix_ms);
    bh_write_i64(&w, row->checked_unix_ms);
    bh_write_i64(&w, row->failed_unix_ms);
    bh_write_i64(&w, row->used_unix_ms);
    bh_write_slice(&w, bh_slice_take(row->trouble, BH_STS_TROUBLE_MAX));
    bh_write_u16(&w, (uint16_t)row->policy.mx_count);
    for (size_t i = 0; i < row->policy.mx_count; i++) {
        bh_write_slice(&w, row->policy.mx[i]);
    }
    if (w.overflow) {
        return BH_ELIMIT;
    }
    *out = w.buf;
    return BH_OK;
}

static bool sane(const struct bh_sts_row *row)
{
    const bool has_mx = row->policy.mx_count > 0;
    return row->policy.mode <= BH_STS_MODE_ENFORCE && row->policy.max_age_s <= BH_STS_MAX_AGE_S &&
           (has_mx || row->policy.mode == BH_STS_MODE_NONE) && row->id.len > 0 &&
           row->id.len <= BH_STS_ID_MAX && row->trouble.len <= BH_STS_TROUBLE_MAX &&
           row->fetched_unix_ms >= 0 && row->checked_unix_ms >= 0 && row->failed_unix_ms >= 0 &&
           row->used_unix_ms >= 0;
}

enum bh_status bh_sts_row_read(struct bh_slice octets, struct bh_arena *arena,
                               struct bh_sts_row *row)
{
    struct bh_reader r = {.rest = octets};
    const uint8_t version = bh_read_u8(&r);
    if (r.failed || version == 0) {
        return BH_ECORRUPT;
    }
    if (version > ROW_VERSION) {
        return BH_EVERSION;
    }
    struct bh_sts_row read = {.policy.mode = (enum bh_sts_mode)bh_read_u8(&r)};
    read.policy.max_age_s = bh_read_u64(&r);
    read.id = bh_read_slice(&r);
    read.fetched_unix_ms = bh_read_i64(&r);
    read.checked_unix_ms = bh_read_i64(&r);
    read.failed_unix_ms = bh_read_i64(&r);
    read.used_unix_ms = bh_read_i64(&r);
    read.trouble = bh_read_slice(&r);
    read.policy.mx_count = bh_read_u16(&r);
    if (r.failed || !sane(&read) || read.policy.mx_count > BH_STS_MX_MAX) {
        return BH_ECORRUPT;
    }
    struct bh_slice *mx = bh_arena_alloc(arena, (read.policy.mx_count + 1) * sizeof(*mx));
    if (mx == NULL) {
        return BH_ENOMEM;
    }
    size_t mx_octets = 0;
    for (size_t i = 0; i < read.policy.mx_count; i++) {
        mx[i] = bh_read_slice(&r);
        mx_octets += mx[i].len;
        if (mx[i].len == 0) {
            return BH_ECORRUPT;
        }
    }
    if (r.failed || r.rest.len > 0 || mx_octets > BH_STS_MX_OCTETS_MAX) {
        return BH_ECORRUPT;
    }
    read.policy.mx = mx;
    *row = read;
    return BH_OK;
}
