#include <stdio.h>
#include <string.h>

#include "partner_tls.h"

struct partner_tls {
    struct tls_frames frames;
    struct tls_shown shown;
    bool up;
};

void partner_tls_key(const struct host *host, unsigned generation, uint8_t spki[BH_PIN_LEN])
{
    for (size_t i = 0; i < BH_PIN_LEN; i++) {
        spki[i] = (uint8_t)(host->number * 16 + i);
    }
    spki[1] ^= (uint8_t)generation;
}

const char *partner_tls_ca_file(void)
{
    return NULL;
}

struct partner_tls *partner_tls_create(const struct host *host, bool bad, struct tls_shown *shown)
{
    struct partner_tls *t = sim_alloc(sizeof(*t));
    t->shown = host->shown;
    if (bad) {
        t->shown.trusted = 0;
        t->shown.spki[0] ^= 0xff;
        snprintf(t->shown.name, sizeof(t->shown.name), "other.test");
    }
    *shown = t->shown;
    return t;
}

void partner_tls_destroy(struct partner_tls *tls)
{
    sim_free(tls);
}

static void on_frame(struct partner_tls *t, size_t len, const struct partner_tls_sink *sink)
{
    char *octets = t->frames.octets + FRAME_HEAD;
    const unsigned char type = (unsigned char)t->frames.octets[0];
    if (type == FRAME_HELLO) {
        tls_frame_put(FRAME_CERTIFICATE, (const char *)&t->shown, sizeof(t->shown), sink->cipher,
                      sink->ctx);
        t->up = true;
    } else if (type == FRAME_DATA) {
        for (size_t i = 0; i < len; i++) {
            octets[i] = (char)(octets[i] ^ FRAME_MASK);
        }
        sink->plain(sink->ctx, octets, len);
    } /* close_notify: the end follows */
}

enum partner_tls_state partner_tls_hear(struct partner_tls *t, const char *octets, size_t len,
                                        const struct partner_tls_sink *sink)
{
    while (len > 0) {
        bool ready = false;
        bool wrong = false;
        size_t content = 0;
        const size_t taken = tls_frames_feed(&t->frames, octets, len, &ready, &content, &wrong);
        octets += taken;
        len -= taken;
        if (wrong) {
            sim_fail("a partner heard clear text where TLS had begun");
        }
        if (ready) {
            on_frame(t, content, sink);
            t->frames.len = 0;
        }
    }
    return t->up ? PARTNER_TLS_UP : PARTNER_TLS_SHAKING;
}

void partner_tls_say(struct partner_tls *tls, const char *octets, size_t len,
                     const struct partner_tls_sink *sink)
{
    (void)tls;
    tls_frame_put(FRAME_DATA, octets, len, sink->cipher, sink->ctx);
}

void partner_tls_end(void)
{
}
