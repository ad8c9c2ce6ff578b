/* A clearance is one object at one address. Its seal binds all that it says to that address and to
 * a secret of this process, so that a zeroed, copied, altered or long gone one is told apart: what
 * it guards against is our own mistakes, not somebody who can write to our memory. */
#include "clearance.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

struct bh_clearance {
    const struct bh_clearance *self;
    uint64_t connection;
    uint64_t generation;
    uint8_t digest[BH_TLS_DIGEST_LEN];
    bool tls;
    bool authenticated;
    uint64_t seal;
};

static pthread_once_t secret_once = PTHREAD_ONCE_INIT;
static uint64_t secret; /* 0: could not be made, and nothing is ever granted */

static void make_secret(void)
{
    uint64_t value = 0;
    if (RAND_bytes((unsigned char *)&value, sizeof(value)) == 1) {
        secret = value != 0 ? value : 1;
    }
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v;
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return h ^ (h >> 29);
}

static uint64_t seal_of(const struct bh_clearance *c)
{
    uint64_t h = mix(secret, (uint64_t)(uintptr_t)c);
    h = mix(h, c->connection);
    h = mix(h, c->generation);
    h = mix(h, (c->tls ? 2U : 1U) | (c->authenticated ? 4U : 0U));
    for (size_t i = 0; i < BH_TLS_DIGEST_LEN; i += 8) {
        h = mix(h, bh_get_be64(c->digest + i));
    }
    return h;
}

struct bh_clearance *bh_clearance_create(bool tls, bool authenticated, uint64_t connection,
                                         uint64_t generation,
                                         const uint8_t digest[BH_TLS_DIGEST_LEN])
{
    if (pthread_once(&secret_once, make_secret) != 0 || secret == 0 || connection == 0) {
        return NULL;
    }
    struct bh_clearance *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->self = c;
    c->connection = connection;
    c->generation = generation;
    memcpy(c->digest, digest, sizeof(c->digest));
    c->tls = tls;
    c->authenticated = tls && authenticated;
    c->seal = seal_of(c);
    return c;
}

struct bh_clearance *bh_clearance_plain(const struct bh_tls_demand *demand, uint64_t connection,
                                        uint64_t generation)
{
    uint8_t digest[BH_TLS_DIGEST_LEN];
    const bool allowed = demand->mode == BH_TLS_OFF || demand->mode == BH_TLS_OPPORTUNISTIC;
    if (!allowed || !bh_tls_demand_is_effective(demand) || demand->implicit ||
        bh_tls_demand_requires_tls(demand) || bh_tls_demand_digest(demand, digest) != BH_OK) {
        return NULL;
    }
    return bh_clearance_create(false, false, connection, generation, digest);
}

void bh_clearance_destroy(struct bh_clearance *clearance)
{
    if (clearance != NULL) {
        OPENSSL_cleanse(clearance, sizeof(*clearance));
        free(clearance);
    }
}

bool bh_clearance_valid(const struct bh_clearance *clearance, uint64_t connection,
                        uint64_t generation, const uint8_t digest[BH_TLS_DIGEST_LEN])
{
    return clearance != NULL && secret != 0 && clearance->self == clearance &&
           clearance->connection == connection && connection != 0 &&
           clearance->generation == generation &&
           memcmp(clearance->digest, digest, BH_TLS_DIGEST_LEN) == 0 &&
           clearance->seal == seal_of(clearance);
}

bool bh_clearance_is_tls(const struct bh_clearance *clearance)
{
    return clearance->tls;
}

bool bh_clearance_is_authenticated(const struct bh_clearance *clearance)
{
    return clearance->tls && clearance->authenticated;
}
