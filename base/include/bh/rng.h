/* rng.h - a small seeded random source (xoshiro256**) as a value: jitter, the order of equals,
 * simulation. Not for secrets. Drivers seed it from getrandom, tests from a number. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct bh_rng {
    uint64_t s[4];
};

void bh_rng_seed(struct bh_rng *rng, uint64_t seed);
uint64_t bh_rng_u64(struct bh_rng *rng);
/** Uniform in [0, bound); bound > 0. */
uint64_t bh_rng_below(struct bh_rng *rng, uint64_t bound);
