/* tls_wire.h - the double of TLS: what goes over the wire instead of it, and what a server shows.
 * Frames of type, length and octets; content is masked, so that nobody mistakes it for clear text.
 */
#pragma once

#include "bh/tls.h"

enum tls_frame {
    FRAME_HELLO = 0x16,
    FRAME_CERTIFICATE = 0x17,
    FRAME_DATA = 0x18,
    FRAME_CLOSE = 0x19,
    FRAME_ALERT = 0x1a
};
#define FRAME_HEAD 3
#define FRAME_MAX 16384
#define FRAME_MASK 0x5a

/** What a server shows of itself: its names, whether the chain is good, its key. */
struct tls_shown {
    char name[64];   /* the one name of the certificate; "*": it is whatever is asked for */
    uint8_t trusted; /* by the system's authorities */
    uint8_t spki[BH_PIN_LEN];
};

/** Frames out of octets that come in pieces. */
struct tls_frames {
    char octets[FRAME_HEAD + FRAME_MAX];
    size_t len;
};
/** @return octets taken of `in`; *ready: a whole frame is there, to be taken before the next call
 * (its type is octets[0], its content starts at FRAME_HEAD, *content_len long). *bad: no frame. */
size_t tls_frames_feed(struct tls_frames *f, const char *in, size_t len, bool *ready,
                       size_t *content_len, bool *bad);
void tls_frame_put(enum tls_frame type, const char *octets, size_t len,
                   void (*put)(void *ctx, const char *octets, size_t len), void *ctx);
