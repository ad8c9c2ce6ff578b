#include "bh/posture.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/date.h"
#include "bh/wire.h"

#define VERSION 1
#define COUNT_LEN 9 /* version, count */

/* ---- what it means ---- */

static unsigned standing(const struct bh_posture *p)
{
    return (p->ever_offered && !p->offered ? BH_WORSE_NO_TLS : 0) |
           (p->offered && p->version < p->best ? BH_WORSE_VERSION : 0);
}

static void take_certificate(struct bh_posture *p, const struct bh_posture_seen *seen,
                             int64_t now_unix_ms, unsigned *worse)
{
    if (seen->issuer.len > 0) {
        if (p->issuer.len > 0 &&
            !bh_slice_eq(bh_slice_take(seen->issuer, BH_POSTURE_TEXT_MAX), p->issuer)) {
            *worse |= BH_WORSE_ISSUER;
            p->issuer_changed_unix_ms = now_unix_ms;
        }
        p->issuer = bh_slice_take(seen->issuer, BH_POSTURE_TEXT_MAX);
    }
    if (seen->has_spki) {
        p->has_spki = true;
        memcpy(p->spki, seen->spki, sizeof(p->spki));
    }
    if (seen->not_after_unix_ms != 0) {
        /* A row holds no time before 1970; long over is long over. */
        p->not_after_unix_ms = seen->not_after_unix_ms > 0 ? seen->not_after_unix_ms : 1;
        if (p->not_after_unix_ms - now_unix_ms < BH_POSTURE_EXPIRY_MS &&
            p->expiry_told_unix_ms != p->not_after_unix_ms) {
            p->expiry_told_unix_ms = p->not_after_unix_ms;
            *worse |= BH_WORSE_EXPIRY;
        }
    }
}

unsigned bh_posture_observe(struct bh_posture *p, bool known, const struct bh_posture_seen *seen,
                            int64_t now_unix_ms)
{
    if (!known) {
        *p = (struct bh_posture){.first_unix_ms = now_unix_ms, .issuer = BH_EMPTY};
    }
    const unsigned before = standing(p);
    p->last_unix_ms = now_unix_ms;
    p->offered = seen->offered;
    p->ever_offered = p->ever_offered || seen->offered;
    if (seen->version != BH_TLS_VERSION_NONE) {
        p->version = seen->version;
        p->best = seen->version > p->best ? seen->version : p->best;
    }
    unsigned worse = standing(p) & ~before;
    if (seen->version != BH_TLS_VERSION_NONE) {
        take_certificate(p, seen, now_unix_ms, &worse);
    }
    return worse;
}

unsigned bh_posture_worse(const struct bh_posture *p, int64_t now_unix_ms)
{
    unsigned worse = standing(p);
    if (p->issuer_changed_unix_ms != 0 &&
        now_unix_ms - p->issuer_changed_unix_ms < BH_POSTURE_ISSUER_MS) {
        worse |= BH_WORSE_ISSUER;
    }
    if (p->offered && p->not_after_unix_ms != 0 &&
        p->not_after_unix_ms - now_unix_ms < BH_POSTURE_EXPIRY_MS) {
        worse |= BH_WORSE_EXPIRY;
    }
    return worse;
}

const char *bh_posture_text(const struct bh_posture *p, unsigned worse, int64_t now_unix_ms,
                            char text[BH_POSTURE_WORDS])
{
    char one[BH_POSTURE_TEXT_MAX + 64];
    char date[BH_DATE_TEXT];
    struct bh_buf out = bh_buf(text, BH_POSTURE_WORDS - 1);
    for (unsigned bit = 1; bit <= BH_WORSE_EXPIRY; bit <<= 1) {
        one[0] = '\0';
        switch (worse & bit) {
        case BH_WORSE_NO_TLS:
            snprintf(one, sizeof(one), "STARTTLS is not offered any more");
            break;
        case BH_WORSE_VERSION:
            snprintf(one, sizeof(one), "%s where it was %s", bh_tls_version_name(p->version),
                     bh_tls_version_name(p->best));
            break;
        case BH_WORSE_ISSUER:
            snprintf(one, sizeof(one), "its certificate has another issuer: %.*s",
                     BH_FMT(p->issuer));
            break;
        case BH_WORSE_EXPIRY:
            snprintf(one, sizeof(one), "its certificate %s %.10s",
                     p->not_after_unix_ms < now_unix_ms ? "ended" : "ends",
                     bh_date_iso(p->not_after_unix_ms, date));
            break;
        default:
            break;
        }
        if (one[0] != '\0') {
            bh_buf_add_cut(&out, out.len > 0 ? BH_LIT("; ") : BH_EMPTY);
            bh_buf_add_cut(&out, bh_slice_str(one));
        }
    }
    text[out.len] = '\0';
    return text;
}

/* ---- rows ---- */

static enum bh_status end_write(struct bh_writer *w, struct bh_buf *out)
{
    if (bh_buf_room(out) < BH_POSTURE_VALUE_MAX) {
        return BH_ELIMIT;
    }
    BH_ASSERT(!w->overflow);
    bh_buf_put(out, bh_buf_slice(&w->buf));
    return BH_OK;
}

/* The time of the last sight comes first in every row: what goes is found by it. */
enum bh_status bh_posture_write(const struct bh_posture *p, struct bh_buf *out)
{
    char storage[BH_POSTURE_VALUE_MAX];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, VERSION);
    bh_write_i64(&w, p->last_unix_ms);
    bh_write_i64(&w, p->first_unix_ms);
    bh_write_u8(
        &w, (uint8_t)((p->offered ? 1 : 0) | (p->ever_offered ? 2 : 0) | (p->has_spki ? 4 : 0)));
    bh_write_u8(&w, (uint8_t)p->version);
    bh_write_u8(&w, (uint8_t)p->best);
    bh_write_slice(&w, bh_slice_take(p->issuer, BH_POSTURE_TEXT_MAX));
    bh_write_slice(&w, bh_slice(p->spki, sizeof(p->spki)));
    bh_write_i64(&w, p->not_after_unix_ms);
    bh_write_i64(&w, p->issuer_changed_unix_ms);
    bh_write_i64(&w, p->expiry_told_unix_ms);
    return end_write(&w, out);
}

enum bh_status bh_reached_write(const struct bh_reached *r, struct bh_buf *out)
{
    char storage[BH_POSTURE_VALUE_MAX];
    struct bh_writer w = {.buf = bh_buf(storage, sizeof(storage))};
    bh_write_u8(&w, VERSION);
    bh_write_i64(&w, r->last_unix_ms);
    bh_write_i64(&w, r->verified_unix_ms);
    bh_write_slice(&w, bh_slice_take(r->auth, 32));
    bh_write_slice(&w, bh_slice_take(r->tls, BH_POSTURE_TEXT_MAX));
    bh_write_slice(&w, bh_slice_take(r->host, 255));
    return end_write(&w, out);
}

static enum bh_status begin_read(struct bh_reader *r)
{
    const uint8_t version = bh_read_u8(r);
    return r->failed || version == 0 ? BH_ECORRUPT : version > VERSION ? BH_EVERSION : BH_OK;
}

enum bh_status bh_posture_read(struct bh_slice value, struct bh_posture *result)
{
    struct bh_reader r = {.rest = value};
    struct bh_posture p = {0};
    const enum bh_status status = begin_read(&r);
    if (status != BH_OK) {
        return status;
    }
    p.last_unix_ms = bh_read_i64(&r);
    p.first_unix_ms = bh_read_i64(&r);
    const uint8_t flags = bh_read_u8(&r);
    const uint8_t version = bh_read_u8(&r);
    const uint8_t best = bh_read_u8(&r);
    p.issuer = bh_read_slice(&r);
    const struct bh_slice spki = bh_read_slice(&r);
    p.not_after_unix_ms = bh_read_i64(&r);
    p.issuer_changed_unix_ms = bh_read_i64(&r);
    p.expiry_told_unix_ms = bh_read_i64(&r);
    const bool times_good = p.last_unix_ms >= 0 && p.first_unix_ms >= 0 &&
                            p.not_after_unix_ms >= 0 && p.issuer_changed_unix_ms >= 0 &&
                            p.expiry_told_unix_ms >= 0;
    if (r.failed || r.rest.len > 0 || flags > 7 || !times_good || version > BH_TLS_VERSION_1_3 ||
        best > BH_TLS_VERSION_1_3 || spki.len != sizeof(p.spki) ||
        p.issuer.len > BH_POSTURE_TEXT_MAX) {
        return BH_ECORRUPT;
    }
    p.offered = (flags & 1) != 0;
    p.ever_offered = (flags & 2) != 0;
    p.has_spki = (flags & 4) != 0;
    p.version = (enum bh_tls_version)version;
    p.best = (enum bh_tls_version)best;
    memcpy(p.spki, spki.ptr, sizeof(p.spki));
    *result = p;
    return BH_OK;
}

enum bh_status bh_reached_read(struct bh_slice value, struct bh_reached *result)
{
    struct bh_reader r = {.rest = value};
    struct bh_reached reached = {0};
    const enum bh_status status = begin_read(&r);
    if (status != BH_OK) {
        return status;
    }
    reached.last_unix_ms = bh_read_i64(&r);
    reached.verified_unix_ms = bh_read_i64(&r);
    reached.auth = bh_read_slice(&r);
    reached.tls = bh_read_slice(&r);
    reached.host = bh_read_slice(&r);
    if (r.failed || r.rest.len > 0) {
        return BH_ECORRUPT;
    }
    *result = reached;
    return BH_OK;
}

bool bh_posture_name(struct bh_slice host, uint16_t port, struct bh_buf *name)
{
    return bh_buf_printf(name, BH_POSTURE_PREFIX "%.*s:%u", BH_FMT(host), (unsigned)port) ==
               BH_OK &&
           name->len <= 255;
}

bool bh_reached_name(struct bh_slice connector, struct bh_slice domain, struct bh_buf *name)
{
    return bh_buf_printf(name, BH_REACHED_PREFIX "%.*s/%.*s", BH_FMT(connector), BH_FMT(domain)) ==
               BH_OK &&
           name->len <= 255;
}

/* ---- the bound ---- */

struct old_row {
    int64_t last_unix_ms;
    char name[256];
};

static int by_time(const void *a, const void *b)
{
    const int64_t x = ((const struct old_row *)a)->last_unix_ms;
    const int64_t y = ((const struct old_row *)b)->last_unix_ms;
    return (x > y) - (x < y);
}

static int64_t last_of(struct bh_slice value)
{
    struct bh_reader r = {.rest = value};
    (void)bh_read_u8(&r);
    const int64_t last = bh_read_i64(&r);
    return r.failed ? 0 : last;
}

/* All rows of a kind, with their times. */
static enum bh_status list_rows(struct bh_kv_txn *txn, const char *prefix, struct old_row *rows,
                                size_t cap, size_t *count)
{
    struct bh_arena arena;
    char after_text[256];
    struct bh_buf after = bh_buf(after_text, sizeof(after_text));
    enum bh_status status = BH_OK;
    *count = 0;
    bh_buf_put(&after, bh_slice_str(prefix)); /* no row has the bare prefix for its name */
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    while (status == BH_OK && *count < cap) {
        struct bh_slice name;
        struct bh_slice value;
        bh_arena_reset(&arena);
        status = bh_queue_policy_next(txn, bh_buf_slice(&after), &arena, &name, &value);
        if (status != BH_OK || !bh_slice_starts(name, bh_slice_str(prefix))) {
            status = status == BH_OK ? BH_ENOTFOUND : status;
            break;
        }
        struct old_row *row = &rows[(*count)++];
        row->last_unix_ms = last_of(value);
        after.len = 0;
        bh_buf_put(&after, name);
        memcpy(row->name, name.ptr, name.len);
        row->name[name.len] = '\0';
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* How many rows of a kind there are, near enough: in a row of its own, so that a new one costs no
 * walk. */
static struct bh_slice counter_name(const char *prefix, char storage[32])
{
    struct bh_buf name = bh_buf(storage, 32);
    bh_buf_put(&name, bh_slice_take(bh_slice_str(prefix), strlen(prefix) - 1));
    bh_buf_put(&name, BH_LIT("#"));
    return bh_buf_slice(&name);
}

/* One that can't be read says that all are to be counted. */
static enum bh_status read_count(struct bh_kv_txn *txn, struct bh_slice name, uint64_t *count)
{
    struct bh_arena arena;
    struct bh_slice value;
    *count = 0;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    const enum bh_status status = bh_queue_policy_get(txn, name, &arena, &value);
    if (status == BH_OK) {
        const bool good = value.len == COUNT_LEN && value.ptr[0] == VERSION;
        *count = good ? bh_get_be64(value.ptr + 1) : UINT64_MAX;
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* The hundredth part that was not seen for longest goes. */
static enum bh_status evict(struct bh_queue *q, struct bh_kv_txn *txn, const char *prefix,
                            size_t rows_max, uint64_t *left)
{
    size_t count = 0;
    struct old_row *rows = malloc((2 * rows_max + 1) * sizeof(*rows));
    if (rows == NULL) {
        return BH_ENOMEM;
    }
    enum bh_status status = list_rows(txn, prefix, rows, 2 * rows_max + 1, &count);
    const size_t keep = rows_max - rows_max / 100 - 1;
    if (count > 0) {
        qsort(rows, count, sizeof(*rows), by_time);
    }
    size_t gone = 0;
    while (status == BH_OK && count - gone > keep) {
        status = bh_queue_policy_del(q, txn, bh_slice_str(rows[gone++].name));
    }
    *left = count - gone;
    free(rows);
    return status;
}

static enum bh_status count_new(struct bh_queue *q, struct bh_kv_txn *txn, const char *prefix,
                                size_t rows_max)
{
    char storage[32];
    unsigned char value[COUNT_LEN] = {VERSION};
    uint64_t count = 0;
    const struct bh_slice name = counter_name(prefix, storage);
    enum bh_status status = read_count(txn, name, &count);
    if (status == BH_OK && count >= rows_max) {
        status = evict(q, txn, prefix, rows_max, &count);
    }
    bh_put_be64(value + 1, count + 1);
    return status == BH_OK ? bh_queue_policy_put(q, txn, name, bh_slice(value, sizeof(value)))
                           : status;
}

enum bh_status bh_posture_put(struct bh_queue *q, struct bh_kv_txn *txn, const char *prefix,
                              struct bh_slice name, struct bh_slice value, size_t rows_max)
{
    struct bh_arena arena;
    struct bh_slice old;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_policy_get(txn, name, &arena, &old);
    bh_arena_fini(&arena);
    if (status == BH_ENOTFOUND) {
        status = count_new(q, txn, prefix, rows_max);
    }
    return status == BH_OK ? bh_queue_policy_put(q, txn, name, value) : status;
}
