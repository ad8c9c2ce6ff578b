/* The partners' side by OpenSSL: each host has a key and a certificate of its own, which is its own
 * authority; what is not a host's is in no file of authorities. */
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../unit/tls_fixture.h"
#include "bh/assert.h"
#include "partner_tls.h"

/* A host keeps its key here: of authorities with one name OpenSSL looks at the first alone. */
#define NOBODY HOSTS_MAX
#define IDENTITIES (NOBODY + 1)

struct partner_tls {
    struct bh_tls *tls;
};

static struct identity {
    bool made;
    struct tls_fixture files;
    struct bh_tls_server_ctx *ctx;
    uint8_t spki[BH_PIN_LEN];
} identities[IDENTITIES]; /* the last is nobody's */
static char ca_file[300];

static void read_key(struct identity *id)
{
    FILE *file = fopen(id->files.certificate, "r");
    BH_ASSERT(file != NULL);
    X509 *x = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    unsigned char *der = NULL;
    const int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    BH_ASSERT(len > 0);
    SHA256(der, (size_t)len, id->spki);
    OPENSSL_free(der);
    X509_free(x);
}

static struct identity *identity_of(unsigned number)
{
    struct identity *id = &identities[number];
    char name[32];
    if (!id->made) {
        snprintf(name, sizeof(name), number < NOBODY ? "mx%u.test" : "other%u.test", number);
        struct tls_fixture files = {0};
        tls_fixture_make(&files, name);
        id->files = files;
        id->ctx = tls_fixture_server(&id->files);
        read_key(id);
        id->made = true;
    }
    return id;
}

void partner_tls_key(const struct host *host, unsigned generation, uint8_t spki[BH_PIN_LEN])
{
    (void)generation;
    memcpy(spki, identity_of(host->number)->spki, BH_PIN_LEN);
}

/* All that are some host's, so that a host with another's certificate is told by its name. */
const char *partner_tls_ca_file(void)
{
    if (ca_file[0] == '\0') {
        snprintf(ca_file, sizeof(ca_file), "%s/authorities.pem", world.folder);
        FILE *out = fopen(ca_file, "w");
        BH_ASSERT(out != NULL);
        for (unsigned i = 0; i < NOBODY; i++) {
            char text[4096];
            FILE *in = fopen(identity_of(i)->files.certificate, "r");
            BH_ASSERT(in != NULL);
            const size_t len = fread(text, 1, sizeof(text), in);
            fwrite(text, 1, len, out);
            fclose(in);
        }
        fclose(out);
    }
    return ca_file;
}

struct partner_tls *partner_tls_create(const struct host *host, bool bad, struct tls_shown *shown)
{
    const struct identity *id = identity_of(bad ? NOBODY : host->number);
    struct partner_tls *t = sim_alloc(sizeof(*t));
    t->tls = bh_tls_server_create(id->ctx);
    BH_ASSERT(t->tls != NULL);
    *shown = host->shown;
    if (bad) {
        shown->trusted = 0;
        snprintf(shown->name, sizeof(shown->name), "other.test");
        memcpy(shown->spki, id->spki, BH_PIN_LEN);
    }
    return t;
}

void partner_tls_destroy(struct partner_tls *t)
{
    if (t != NULL) {
        bh_tls_destroy(t->tls);
        sim_free(t);
    }
}

static void flush(struct partner_tls *t, const struct partner_tls_sink *sink)
{
    char octets[4096];
    struct bh_buf out = bh_buf(octets, sizeof(octets));
    while (bh_tls_take(t->tls, &out) > 0) {
        sink->cipher(sink->ctx, octets, out.len);
        out.len = 0;
    }
}

enum partner_tls_state partner_tls_hear(struct partner_tls *t, const char *octets, size_t len,
                                        const struct partner_tls_sink *sink)
{
    char text[4096];
    enum bh_status status = BH_OK;
    if (bh_tls_feed(t->tls, bh_slice(octets, len)) != BH_OK) {
        return PARTNER_TLS_FAILED;
    }
    flush(t, sink);
    while (status == BH_OK) {
        struct bh_buf plain = bh_buf(text, sizeof(text));
        status = bh_tls_read(t->tls, &plain);
        if (plain.len > 0) {
            sink->plain(sink->ctx, text, plain.len);
        }
    }
    flush(t, sink);
    switch (bh_tls_state(t->tls)) {
    case BH_TLS_SHAKING:
        return PARTNER_TLS_SHAKING;
    case BH_TLS_UP:
    case BH_TLS_CLOSED:
        return PARTNER_TLS_UP;
    case BH_TLS_FAILED:
        break;
    }
    return PARTNER_TLS_FAILED;
}

void partner_tls_say(struct partner_tls *t, const char *octets, size_t len,
                     const struct partner_tls_sink *sink)
{
    if (bh_tls_write(t->tls, bh_slice(octets, len)) == BH_OK) {
        flush(t, sink);
    }
}

void partner_tls_end(void)
{
    for (unsigned i = 0; i < IDENTITIES; i++) {
        if (identities[i].made) {
            bh_tls_server_ctx_destroy(identities[i].ctx);
            tls_fixture_remove(&identities[i].files);
        }
    }
    if (ca_file[0] != '\0') {
        unlink(ca_file);
    }
}
