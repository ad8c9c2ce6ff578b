/* When a queue will have drained, and what grows too old before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/forecast.h"

#define NOW INT64_C(1700000000000)
#define MINUTE_NS UINT64_C(60000000000)

static const struct bh_arrival_slot none[1];
/* 4800 messages within the last hour; and 100 of those that are a day old. */
static const struct bh_arrival_slot hour[] = {{NOW - BH_HOUR_MS, NOW, 4800}};
static const struct bh_arrival_slot old_and_new[] = {
    {NOW - BH_DAY_MS, NOW - BH_DAY_MS + BH_HOUR_MS, 100}, {NOW - BH_HOUR_MS, NOW, 4800}};

static const struct {
    struct bh_forecast_facts facts;
    bool known;
    struct bh_forecast forecast;
} cases[] = {
    /* Nothing is there, or nothing is known of how fast it leaves. */
    {{.slots = none, .left = 10, .left_ms = 1000}, false, {0}},
    {{.slots = none, .held = 7, .left = 10, .left_ms = 1000}, false, {0}},
    {{.slots = none, .ready = 7, .recipients = 7}, false, {0}},
    /* By what has left: 40 a minute, and what waits in any lane but what is held. */
    {{.slots = hour,
      .slot_count = 1,
      .fresh = 12,
      .ready = 4700,
      .due = 100,
      .recipients = 4812,
      .left = 200,
      .left_ms = 300000},
     true,
     {.messages = 4812, .per_minute = 40, .drains_in_ms = 4812 * 1500}},
    {{.slots = none, .ready = 10, .held = 30, .recipients = 40, .left = 60, .left_ms = 60000},
     true,
     {.messages = 10, .per_minute = 60, .drains_in_ms = 10000}},
    /* By what may leave, where nothing has yet; and never faster than that. */
    {{.slots = none, .ready = 500, .recipients = 500, .message_ns = MINUTE_NS / 40},
     true,
     {.messages = 500, .per_minute = 40, .by_limit = true, .drains_in_ms = 750000}},
    {{.slots = none,
      .ready = 500,
      .recipients = 500,
      .message_ns = MINUTE_NS / 40,
      .left = 6,
      .left_ms = 4500},
     true,
     {.messages = 500, .per_minute = 40, .drains_in_ms = 750000}},
    {{.slots = none,
      .ready = 500,
      .recipients = 500,
      .message_ns = MINUTE_NS / 40,
      .left = 20,
      .left_ms = 60000},
     true,
     {.messages = 500, .per_minute = 20, .drains_in_ms = 1500000}},
    /* Recipients, four a message. */
    {{.slots = none,
      .ready = 100,
      .recipients = 400,
      .message_ns = MINUTE_NS / 40,
      .recipient_ns = MINUTE_NS / 80},
     true,
     {.messages = 100, .per_minute = 20, .by_limit = true, .drains_in_ms = 300000}},
    /* 4800 take two hours: with a schedule of a day none grows too old, ... */
    {{.slots = hour,
      .slot_count = 1,
      .ready = 4800,
      .recipients = 4800,
      .left = 200,
      .left_ms = 300000,
      .expire_ms = BH_DAY_MS},
     true,
     {.messages = 4800, .per_minute = 40, .drains_in_ms = 7200000}},
    /* ... with one of 90 minutes those behind the half hour: they come at 80 a minute, and leave at
     * 40; the turn of a message n behind the first is n/40 minutes from now, its end n/80 + 30. */
    {{.slots = hour,
      .slot_count = 1,
      .ready = 4800,
      .recipients = 4800,
      .left = 200,
      .left_ms = 300000,
      .expire_ms = 90 * BH_MINUTE_MS},
     true,
     {.messages = 4800, .per_minute = 40, .drains_in_ms = 7200000, .expire_before = 2400}},
    /* The same of fresh mail, behind what is older: 60 minutes, and then as before. */
    {{.slots = old_and_new,
      .slot_count = 1,
      .ready = 100,
      .fresh = 4800,
      .recipients = 4900,
      .fresh_slot = {NOW - BH_HOUR_MS, NOW, 0},
      .left = 200,
      .left_ms = 300000,
      .expire_ms = 90 * BH_MINUTE_MS},
     true,
     {.messages = 4900, .per_minute = 40, .drains_in_ms = 7350000, .expire_before = 2700}},
    /* Two have left: too few to go by where a rate says more. */
    {{.slots = none,
      .ready = 500,
      .recipients = 500,
      .message_ns = MINUTE_NS / 40,
      .left = 2,
      .left_ms = 60000},
     true,
     {.messages = 500, .per_minute = 40, .by_limit = true, .drains_in_ms = 750000}},
    {{.slots = none, .ready = 500, .recipients = 500, .left = 2, .left_ms = 60000},
     true,
     {.messages = 500, .per_minute = 2, .drains_in_ms = 15000000}},
    /* Half of them are held. */
    {{.slots = hour,
      .slot_count = 1,
      .ready = 2400,
      .held = 2400,
      .recipients = 4800,
      .left = 100,
      .left_ms = 300000,
      .expire_ms = 90 * BH_MINUTE_MS},
     true,
     {.messages = 2400, .per_minute = 20, .drains_in_ms = 7200000, .expire_before = 1200}},
    /* The old ones are too old already, and leave first. */
    {{.slots = old_and_new,
      .slot_count = 2,
      .ready = 4900,
      .recipients = 4900,
      .left = 200,
      .left_ms = 300000,
      .expire_ms = 4 * BH_HOUR_MS},
     true,
     {.messages = 4900, .per_minute = 40, .drains_in_ms = 7350000, .expire_before = 100}},
    /* One a day. */
    {{.slots = none, .ready = 1000000, .recipients = 1000000, .message_ns = 1440 * MINUTE_NS},
     true,
     {.messages = 1000000,
      .per_minute = 1.0 / 1440,
      .by_limit = true,
      .drains_in_ms = INT64_C(365000) * BH_DAY_MS}},
};

static void cases_are_forecast(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bh_forecast_facts facts = cases[i].facts;
        const struct bh_forecast *want = &cases[i].forecast;
        struct bh_forecast got = {0};
        facts.now_unix_ms = NOW;
        assert_int_equal(bh_forecast(&facts, &got), cases[i].known);
        assert_int_equal(got.messages, want->messages);
        assert_true(got.per_minute >= want->per_minute * 0.999 &&
                    got.per_minute <= want->per_minute * 1.001);
        assert_int_equal(got.by_limit, want->by_limit);
        assert_in_range(got.drains_in_ms, want->drains_in_ms > 0 ? want->drains_in_ms - 1 : 0,
                        want->drains_in_ms + 1);
        assert_int_equal(got.expire_before, want->expire_before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cases_are_forecast)};
    return cmocka_run_group_tests_name("forecast", tests, NULL, NULL);
}
