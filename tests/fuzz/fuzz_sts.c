/* What a domain publishes, and what was stored of it. A policy reads alike with either line end,
 * and what was read can be stored and read back; a stored row that reads is the one that would be
 * written. */
#include <stdint.h>

#include "bh/sts_cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char text[4 * BH_STS_POLICY_MAX], octets[BH_STS_ROW_MAX];

static void same(const struct bh_sts_policy *a, const struct bh_sts_policy *b)
{
    BH_ASSERT(a->mode == b->mode && a->max_age_s == b->max_age_s && a->mx_count == b->mx_count);
    for (size_t i = 0; i < a->mx_count; i++) {
        BH_ASSERT(bh_slice_eq(a->mx[i], b->mx[i]));
    }
}

static void records(struct bh_slice in)
{
    struct bh_slice list[16];
    size_t count = 0;
    const char *why = NULL;
    struct bh_slice id = BH_EMPTY;
    while (in.len > 0 && count < BH_COUNT(list)) {
        list[count] = bh_slice_take(in, bh_slice_find(in, '\0'));
        in = bh_slice_skip(in, list[count].len + 1);
        count++;
    }
    if (bh_sts_read_txt(list, count, &id, &why) == BH_OK) {
        BH_ASSERT(id.len > 0 && id.len <= BH_STS_ID_MAX);
    } else {
        BH_ASSERT(why != NULL);
    }
}

static void policy(struct bh_slice in, struct bh_arena *arena)
{
    struct bh_sts_policy read, again;
    struct bh_sts_row back;
    const char *why = NULL;
    const enum bh_status status = bh_sts_read_policy(in, arena, &read, &why);
    BH_ASSERT((status == BH_OK) == (why == NULL));
    if (status != BH_OK) {
        return;
    }
    struct bh_buf crlf = bh_buf(text, sizeof(text));
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] == '\n' && (i == 0 || in.ptr[i - 1] != '\r')) {
            bh_buf_put_char(&crlf, '\r');
        }
        bh_buf_put_char(&crlf, in.ptr[i]);
    }
    if (crlf.len <= BH_STS_POLICY_MAX) {
        BH_ASSERT(bh_sts_read_policy(bh_buf_slice(&crlf), arena, &again, &why) == BH_OK);
        same(&read, &again);
    }
    const struct bh_sts_row row = {.policy = read, .id = BH_LIT("x")};
    struct bh_buf out = bh_buf(octets, sizeof(octets));
    BH_ASSERT(bh_sts_row_write(&row, &out) == BH_OK);
    BH_ASSERT(bh_sts_row_read(bh_buf_slice(&out), arena, &back) == BH_OK);
    same(&read, &back.policy);
}

static void stored(struct bh_slice in, struct bh_arena *arena)
{
    struct bh_sts_row row, again;
    if (bh_sts_row_read(in, arena, &row) == BH_OK) {
        struct bh_buf out = bh_buf(octets, sizeof(octets));
        if (bh_sts_row_write(&row, &out) == BH_OK) {
            BH_ASSERT(bh_sts_row_read(bh_buf_slice(&out), arena, &again) == BH_OK);
            same(&row.policy, &again.policy);
            BH_ASSERT(bh_slice_eq(row.id, again.id) && bh_slice_eq(row.trouble, again.trouble));
            BH_ASSERT(row.fetched_unix_ms == again.fetched_unix_ms &&
                      row.used_unix_ms == again.used_unix_ms);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_arena arena;
    if (size == 0) {
        return 0;
    }
    const struct bh_slice in = bh_slice(data + 1, size - 1);
    bh_arena_init(&arena, (size_t)1 << 20);
    switch (data[0] % 4) {
    case 0:
        records(in);
        break;
    case 1:
        policy(in, &arena);
        break;
    case 2:
        stored(in, &arena);
        break;
    default:
        (void)bh_sts_content_type_ok(in);
        (void)bh_sts_pattern_matches(bh_slice_take(in, bh_slice_find(in, ' ')), in);
        break;
    }
    bh_arena_fini(&arena);
    return 0;
}
