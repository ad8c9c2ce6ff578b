/* queue_fixture.h - what the tests of the queue share: putting simple messages, and the checker. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bh/assert.h"
#include "bh/kv_memory.h"
#include "bh/queue.h"

#define FIXTURE_NOW INT64_C(1800000000000)

static inline struct bh_now fixture_now(int64_t unix_ms)
{
    return (struct bh_now){.mono_ms = 1, .unix_ms = unix_ms};
}

static inline struct bh_queue *fixture_open(struct bh_kv *kv)
{
    struct bh_queue *q = NULL;
    char error[200] = "";
    const struct bh_queue_limits limits = {.fresh_max = 40, .fresh_window = 15};
    const enum bh_status status = bh_queue_open(kv, &limits, &q, error, sizeof(error));
    if (status != BH_OK) {
        fail_msg("open: %s", error);
    }
    return q;
}

static inline void fixture_problem(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "checker: %s\n", text);
}

/* The checker finds nothing, in the state that `txn` sees. */
static inline struct bh_queue_check_result fixture_check_txn(struct bh_kv_txn *txn)
{
    struct bh_queue_check_result result;
    assert_int_equal(bh_queue_check(txn, fixture_problem, NULL, &result), BH_OK);
    assert_int_equal(result.problems, 0);
    return result;
}

static inline struct bh_queue_check_result fixture_check(struct bh_kv *kv)
{
    struct bh_kv_txn *txn;
    assert_int_equal(bh_kv_begin(kv, BH_KV_READ, NULL, &txn), BH_OK);
    const struct bh_queue_check_result result = fixture_check_txn(txn);
    bh_kv_abort(txn);
    return result;
}

/* A message of `size` octets for `recipients` at one destination. */
static inline enum bh_status fixture_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                         const char *sender, const char *domain, size_t recipients,
                                         size_t size, enum bh_lane_hint hint, struct bh_now now,
                                         struct bh_arena *arena, struct bh_queue_put_result *result)
{
    struct bh_recipient *to = calloc(recipients, sizeof(*to));
    char *content = malloc(size + 1);
    char(*names)[64] = calloc(recipients, sizeof(*names));
    assert_true(to != NULL && content != NULL && names != NULL);
    memset(content, 'x', size);
    for (size_t i = 0; i < recipients; i++) {
        snprintf(names[i], sizeof(names[i]), "r%zu@%s", i, domain);
        to[i].address = bh_slice_str(names[i]);
        to[i].orcpt = BH_EMPTY;
    }
    const struct bh_queue_group group = {.domain = bh_slice_str(domain),
                                         .connector = BH_LIT("default"),
                                         .recipients = to,
                                         .recipient_count = recipients,
                                         .hint = hint};
    const struct bh_envelope envelope = {.sender = bh_slice_str(sender), .size = size};
    const struct bh_origin origin = {.helo = BH_LIT("client.test"),
                                     .listener = BH_LIT("main"),
                                     .protocol = BH_LIT("ESMTP"),
                                     .arrival_unix_ms = now.unix_ms};
    const struct bh_slice piece = bh_slice(content, size);
    const struct bh_queue_put put = {.envelope = &envelope,
                                     .origin = &origin,
                                     .content = &piece,
                                     .content_count = 1,
                                     .groups = &group,
                                     .group_count = 1};
    const enum bh_status status = bh_queue_put(q, txn, &put, now, arena, result);
    free(names);
    free(to);
    free(content);
    return status;
}
