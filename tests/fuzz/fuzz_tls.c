/* What a peer says in a handshake, altered on its way or made up, and TLSA records of any octets.
 * Held: a clearance exists only for a session that is up, only where the peer has the key that the
 * demand is about; what has no clearance takes no plain text; a session that failed stays failed
 * and says why.
 *
 * Input: choices (1 octet), matching and selector (1), length of TLSA data (1), the data, then
 * either pairs of (place, difference) for the server's octets, or what is said in its stead. */
#include <stdint.h>
#include <stdlib.h>

#include "../unit/tls_certs.h"
#include "bh/assert.h"

static struct made root, good, wrong;
static SSL_CTX *contexts[2]; /* that show `good`, `wrong` */
static struct bh_tls_worker *worker;
static uint8_t pin[1][BH_PIN_LEN];
static uint64_t connection;

static void pin_of(const struct made *m, uint8_t out[BH_PIN_LEN])
{
    unsigned char *der = NULL;
    unsigned size = 0;
    const int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(m->certificate), &der);
    BH_ASSERT(len > 0);
    EVP_Digest(der, (size_t)len, out, &size, EVP_sha256(), NULL);
    OPENSSL_free(der);
}

static void make_world(void)
{
    const struct made_as root_as = {.common = "Root", .authority = true};
    const struct made_as leaf_as = {.common = "mx", .names = "DNS:mx.example"};
    root = certs_make(&root_as, NULL);
    good = certs_make(&leaf_as, &root);
    wrong = certs_make(&leaf_as, NULL);
    const struct bare_server servers[] = {{.leaf = &good}, {.leaf = &wrong}};
    contexts[0] = bare_context(&servers[0]);
    contexts[1] = bare_context(&servers[1]);
    worker = bh_tls_worker_create(0); /* nothing is resumed: runs do not lean on one another */
    pin_of(&good, pin[0]);
    BH_ASSERT(worker != NULL);
}

/* Is this the only record that matches what `good` shows? */
static bool is_record_of_good(const struct bh_tlsa *t)
{
    unsigned char *der = NULL;
    unsigned char digest[64];
    unsigned size = 0;
    const int len = t->selector == 0
                        ? i2d_X509(good.certificate, &der)
                        : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(good.certificate), &der);
    BH_ASSERT(len > 0);
    struct bh_slice want = bh_slice(der, (size_t)len);
    if (t->matching != 0) {
        EVP_Digest(der, (size_t)len, digest, &size, t->matching == 1 ? EVP_sha256() : EVP_sha512(),
                   NULL);
        want = bh_slice(digest, size);
    }
    const bool same = t->matching <= 2 && t->selector <= 1 && bh_slice_eq(t->data, want);
    OPENSSL_free(der);
    return same;
}

static void feed_pieces(struct bh_tls *tls, struct bh_slice octets, size_t step)
{
    while (octets.len > 0) {
        const struct bh_slice piece = bh_slice_take(octets, step);
        BH_ASSERT(bh_tls_feed(tls, piece) == BH_OK);
        octets = bh_slice_skip(octets, piece.len);
    }
}

/* A handshake with a real server; its octets are altered as `changes` says. */
static void shake(struct bh_tls *client, SSL *server, struct bh_slice changes)
{
    char storage[16384];
    size_t said = 0;
    for (bool moved = true; moved;) {
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        moved = bh_tls_take(client, &out) > 0;
        BIO_write(SSL_get_rbio(server), out.ptr, (int)out.len);
        SSL_do_handshake(server);
        ERR_clear_error();
        const int n = BIO_read(SSL_get_wbio(server), storage, sizeof(storage));
        if (n <= 0) {
            continue;
        }
        moved = true;
        for (size_t i = 0; i + 3 <= changes.len; i += 3) {
            const size_t at = (size_t)((uint8_t)changes.ptr[i] << 8 | (uint8_t)changes.ptr[i + 1]);
            if (at >= said && at - said < (size_t)n) {
                storage[at - said] = (char)(storage[at - said] ^ changes.ptr[i + 2]);
            }
        }
        said += (size_t)n;
        feed_pieces(client, bh_slice(storage, (size_t)n), sizeof(storage));
    }
}

static void check(struct bh_tls *tls, bool may_clear)
{
    struct bh_clearance *clearance = bh_clearance_of_tls(tls);
    const enum bh_tls_state state = bh_tls_state(tls);
    if (clearance != NULL) {
        BH_ASSERT(state == BH_TLS_UP && may_clear);
    } else {
        BH_ASSERT(bh_tls_write(tls, BH_LIT("MAIL FROM:<>\r\n")) != BH_OK);
    }
    if (state == BH_TLS_FAILED) {
        BH_ASSERT(bh_tls_error(tls).len > 0);
        BH_ASSERT(bh_tls_feed(tls, BH_LIT("x")) == BH_OK);
        BH_ASSERT(bh_tls_state(tls) == BH_TLS_FAILED);
    }
    bh_clearance_destroy(clearance);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum bh_tls_mode modes[] = {BH_TLS_ENCRYPT, BH_TLS_PIN, BH_TLS_DANE, BH_TLS_DANE};
    if (worker == NULL) {
        make_world();
    }
    if (size < 3 || size - 3 < data[2]) {
        return 0;
    }
    const struct bh_slice name = BH_LIT("mx.example");
    connection++;
    const struct bh_tlsa tlsa = {.usage = 3,
                                 .selector = data[1] >> 4,
                                 .matching = data[1] & 15,
                                 .data = bh_slice(data + 3, data[2])};
    const struct bh_slice rest = bh_slice(data + 3 + data[2], size - 3 - data[2]);
    const bool impostor = (data[0] & 4) != 0;
    const struct bh_tls_demand demand = {.mode = modes[data[0] & 3],
                                         .min_version = BH_TLS_VERSION_1_2,
                                         .max_version = (data[0] & 8) != 0 ? BH_TLS_VERSION_1_2
                                                                           : BH_TLS_VERSION_NONE,
                                         .names = {&name, 1},
                                         .pins = {(const uint8_t(*)[BH_PIN_LEN])pin, 1},
                                         .tlsa = {&tlsa, 1}};
    const struct bh_tls_client_params params = {.demand = &demand,
                                                .host = name,
                                                .port = 25,
                                                .connection = connection,
                                                .generation = 1,
                                                .small_hello = (data[0] & 16) != 0};
    char text[128];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_tls *tls = NULL;
    const enum bh_status status = bh_tls_client_create(worker, &params, &tls, &error);
    if (status != BH_OK) {
        BH_ASSERT(status == BH_EINVAL && error.len > 0);
        return 0;
    }
    bh_tls_handshake(tls);
    if ((data[0] & 32) != 0) {
        feed_pieces(tls, rest, 1 + (data[0] >> 6));
        check(tls, false); /* a handshake that nobody answered proves nothing */
    } else {
        SSL *server = bare_session(contexts[impostor ? 1 : 0]);
        shake(tls, server, rest);
        check(tls, demand.mode == BH_TLS_ENCRYPT ||
                       (!impostor && (demand.mode == BH_TLS_PIN || is_record_of_good(&tlsa))));
        SSL_free(server);
    }
    bh_tls_destroy(tls);
    return 0;
}
