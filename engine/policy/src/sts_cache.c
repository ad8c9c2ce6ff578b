#include "bh/sts_cache.h"

/* The entry's own time: the wall clock where it began, going on with the monotonic one. */
static int64_t time_of(const struct bh_sts_entry *e, struct bh_now now)
{
    return e->began.unix_ms + (int64_t)(now.mono_ms - e->began.mono_ms);
}

static void set_trouble(struct bh_sts_entry *e, struct bh_slice why)
{
    struct bh_buf buf = bh_buf(e->trouble, sizeof(e->trouble));
    bh_buf_add_cut(&buf, why);
    e->row.trouble = bh_buf_slice(&buf);
}

void bh_sts_entry_init(struct bh_sts_entry *e, struct bh_now now)
{
    *e = (struct bh_sts_entry){.began = now};
    bh_arena_init(&e->arena, BH_STS_ENTRY_ARENA);
}

void bh_sts_entry_fini(struct bh_sts_entry *e)
{
    bh_arena_fini(&e->arena);
}

static int64_t not_after(int64_t unix_ms, int64_t limit)
{
    return unix_ms < limit ? unix_ms : limit;
}

static int64_t newest_of(const struct bh_sts_row *row)
{
    const int64_t times[] = {row->checked_unix_ms, row->failed_unix_ms, row->used_unix_ms};
    int64_t newest = row->fetched_unix_ms;
    for (size_t i = 0; i < BH_COUNT(times); i++) {
        newest = times[i] > newest ? times[i] : newest;
    }
    return newest;
}

enum bh_status bh_sts_entry_load(struct bh_sts_entry *e, struct bh_slice octets, bool clock_suspect,
                                 struct bh_now now)
{
    struct bh_slice kept;
    struct bh_sts_row row;
    enum bh_status status = BH_ENOMEM;
    e->began = now;
    bh_arena_reset(&e->arena);
    if (octets.len <= BH_STS_ROW_MAX && bh_arena_copy(&e->arena, octets, &kept)) {
        status = bh_sts_row_read(kept, &e->arena, &row);
    } else if (octets.len > BH_STS_ROW_MAX) {
        status = BH_ECORRUPT;
    }
    e->has_policy = status == BH_OK;
    e->unreadable = status != BH_OK;
    if (status != BH_OK) {
        return status;
    }
    row.fetched_unix_ms = not_after(row.fetched_unix_ms, now.unix_ms);
    row.checked_unix_ms = not_after(row.checked_unix_ms, now.unix_ms);
    row.failed_unix_ms = not_after(row.failed_unix_ms, now.unix_ms);
    row.used_unix_ms = not_after(row.used_unix_ms, now.unix_ms);
    if (clock_suspect) {
        e->began.unix_ms = newest_of(&row);
    }
    e->row = row;
    set_trouble(e, row.trouble);
    return BH_OK;
}

void bh_sts_entry_begin(struct bh_sts_entry *e, bool used, struct bh_now now)
{
    const int64_t t = time_of(e, now);
    e->fresh = false;
    e->changed = false;
    if (used && t - e->row.used_unix_ms >= BH_DAY_MS) {
        e->row.used_unix_ms = t;
        e->dirty = e->has_policy;
    }
}

bool bh_sts_entry_valid(const struct bh_sts_entry *e, struct bh_now now)
{
    return e->has_policy && time_of(e, now) < bh_sts_row_expires(&e->row);
}

static bool may_fetch(const struct bh_sts_entry *e, int64_t t)
{
    return e->row.failed_unix_ms == 0 || t - e->row.failed_unix_ms >= BH_STS_RETRY_MS;
}

static bool is_newer(const struct bh_sts_entry *e)
{
    return !bh_slice_eq(bh_slice(e->announced, e->announced_len), e->row.id);
}

static enum bh_sts_next on_seen(struct bh_sts_entry *e, struct bh_now now)
{
    const int64_t t = time_of(e, now);
    e->row.checked_unix_ms = t;
    e->without = BH_STS_UNAVAILABLE;
    if (!may_fetch(e, t)) {
        return BH_STS_ANSWER;
    }
    if (!bh_sts_entry_valid(e, now) || is_newer(e)) {
        return BH_STS_FETCH;
    }
    return t - e->row.fetched_unix_ms >= BH_STS_REFRESH_MS ? BH_STS_RENEW : BH_STS_ANSWER;
}

enum bh_sts_next bh_sts_entry_on_record(struct bh_sts_entry *e, enum bh_sts_seen seen,
                                        struct bh_slice id, struct bh_slice why, struct bh_now now)
{
    struct bh_buf announced = bh_buf(e->announced, sizeof(e->announced));
    switch (seen) {
    case BH_STS_SEEN:
        bh_buf_add_cut(&announced, id);
        e->announced_len = announced.len;
        if (e->row.failed_unix_ms == 0) {
            set_trouble(e, BH_EMPTY);
        }
        return on_seen(e, now);
    case BH_STS_ABSENT:
        e->without = BH_STS_NOT_PUBLISHED;
        break;
    case BH_STS_FAILED:
        e->without = BH_STS_NO_ANSWER;
        break;
    }
    e->announced_len = 0;
    set_trouble(e, why);
    return BH_STS_ANSWER;
}

/* Does it say the same? */
static bool same_policy(const struct bh_sts_policy *a, const struct bh_sts_policy *b)
{
    if (a->mode != b->mode || a->mx_count != b->mx_count) {
        return false;
    }
    for (size_t i = 0; i < a->mx_count; i++) {
        if (!bh_slice_eq(a->mx[i], b->mx[i])) {
            return false;
        }
    }
    return true;
}

enum bh_status bh_sts_entry_on_body(struct bh_sts_entry *e, struct bh_slice body, struct bh_now now)
{
    struct bh_arena arena;
    struct bh_sts_policy policy;
    struct bh_slice id = BH_EMPTY;
    const char *why = "";
    bh_arena_init(&arena, BH_STS_ENTRY_ARENA);
    enum bh_status status = bh_sts_read_policy(body, &arena, &policy, &why);
    if (status == BH_OK && !bh_arena_copy(&arena, bh_slice(e->announced, e->announced_len), &id)) {
        status = BH_ENOMEM;
    }
    if (status != BH_OK) {
        bh_arena_fini(&arena);
        if (status != BH_ENOMEM) {
            char text[BH_STS_TROUBLE_MAX];
            struct bh_buf buf = bh_buf(text, sizeof(text));
            bh_buf_add_cut(&buf, BH_LIT("the policy can't be used: "));
            bh_buf_add_cut(&buf, bh_slice_str(why));
            bh_sts_entry_on_failure(e, bh_buf_slice(&buf), now);
        }
        return status;
    }
    const int64_t t = time_of(e, now);
    e->changed = !e->has_policy || !same_policy(&policy, &e->row.policy);
    bh_arena_fini(&e->arena);
    e->arena = arena;
    e->row = (struct bh_sts_row){.policy = policy,
                                 .id = id,
                                 .fetched_unix_ms = t,
                                 .checked_unix_ms = t,
                                 .used_unix_ms = e->row.used_unix_ms};
    e->has_policy = true;
    e->unreadable = false;
    e->fresh = true;
    e->dirty = true;
    return BH_OK;
}

void bh_sts_entry_on_failure(struct bh_sts_entry *e, struct bh_slice why, struct bh_now now)
{
    e->row.failed_unix_ms = time_of(e, now);
    e->dirty = e->has_policy;
    set_trouble(e, why);
}

void bh_sts_entry_fact(const struct bh_sts_entry *e, struct bh_now now, struct bh_sts_fact *fact)
{
    *fact = (struct bh_sts_fact){.origin = e->without, .trouble = e->row.trouble};
    if (e->unreadable) {
        fact->origin = BH_STS_UNKNOWN;
        return;
    }
    /* A policy may say that it must not be kept at all: it holds for whom it was fetched for. */
    if (!e->fresh && !bh_sts_entry_valid(e, now)) {
        return;
    }
    const int64_t to_wall = now.unix_ms - time_of(e, now);
    fact->origin = e->fresh ? BH_STS_FETCHED : BH_STS_FROM_CACHE;
    fact->policy = e->row.policy;
    fact->id = e->row.id;
    fact->fetched_unix_ms = e->row.fetched_unix_ms + to_wall;
    fact->expires_unix_ms = bh_sts_row_expires(&e->row) + to_wall;
    fact->changed = e->changed;
    fact->superseded = e->announced_len > 0 && is_newer(e);
}

enum bh_status bh_sts_entry_write(const struct bh_sts_entry *e, struct bh_now now,
                                  struct bh_buf *out)
{
    BH_ASSERT(e->has_policy);
    struct bh_sts_row row = e->row;
    const int64_t to_wall = now.unix_ms - time_of(e, now);
    int64_t *const times[] = {&row.fetched_unix_ms, &row.checked_unix_ms, &row.failed_unix_ms,
                              &row.used_unix_ms};
    for (size_t i = 0; i < BH_COUNT(times); i++) {
        if (*times[i] != 0) {
            const int64_t wall = *times[i] + to_wall;
            *times[i] = wall > 0 ? wall : 0;
        }
    }
    return bh_sts_row_write(&row, out);
}
