#include "bh/assert.h"
#include "bh/scheduler.h"

static int64_t jittered(const struct bh_retry_policy *retry, uint32_t interval_ms,
                        struct bh_rng *rng)
{
    const int64_t spread = (int64_t)interval_ms * retry->jitter_permille / 1000;
    if (spread <= 0) {
        return interval_ms;
    }
    return interval_ms - spread + (int64_t)bh_rng_below(rng, (uint64_t)spread * 2 + 1);
}

static uint32_t nth(const uint32_t *intervals, uint32_t count, uint32_t n)
{
    BH_ASSERT(count > 0 && count <= BH_INTERVALS_MAX);
    return intervals[n < count ? n : count - 1];
}

int64_t bh_retry_due(const struct bh_retry_policy *retry, uint32_t attempts, struct bh_rng *rng,
                     int64_t now_unix_ms)
{
    const uint32_t n = attempts > 0 ? attempts - 1 : 0;
    return now_unix_ms + jittered(retry, nth(retry->intervals_ms, retry->intervals, n), rng);
}

int64_t bh_retry_destination(const struct bh_retry_policy *retry, uint32_t *glitches,
                             uint32_t *stage, struct bh_rng *rng, int64_t now_unix_ms)
{
    if (*glitches < retry->glitches) {
        ++*glitches;
        return now_unix_ms + jittered(retry, retry->glitch_ms, rng);
    }
    const uint32_t interval = nth(retry->destination_ms, retry->destination_intervals, *stage);
    if (*stage + 1 < retry->destination_intervals) {
        ++*stage;
    }
    return now_unix_ms + jittered(retry, interval, rng);
}
