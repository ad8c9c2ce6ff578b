#include "bh/rng.h"

#include "bh/assert.h"

/* splitmix64 spreads any seed over the state; xoshiro256** by Blackman and Vigna (public domain
 * algorithms, written anew from their description). */
void bh_rng_seed(struct bh_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9E3779B97F4A7C15);
        uint64_t z = seed;
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        rng->s[i] = z ^ z >> 31;
    }
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

uint64_t bh_rng_u64(struct bh_rng *rng)
{
    uint64_t *s = rng->s;
    const uint64_t result = rotate(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t bh_rng_below(struct bh_rng *rng, uint64_t bound)
{
    BH_ASSERT(bound > 0);
    const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    uint64_t value = 0;
    do {
        value = bh_rng_u64(rng);
    } while (value >= limit);
    return value % bound;
}
