#include "bh/proxy_v2.h"

#include "bh/wire.h"

#define SIGNATURE_LEN 12
#define HEADER_LEN 16

static const char signature[SIGNATURE_LEN] = {'\r', '\n', '\r', '\n', '\0', '\r',
                                              '\n', 'Q',  'U',  'I',  'T',  '\n'};

enum { COMMAND_LOCAL = 0, COMMAND_PROXY = 1 };
enum { FAMILY_UNSPEC = 0, FAMILY_INET = 1, FAMILY_INET6 = 2, FAMILY_UNIX = 3 };

/* Source and destination address, then both ports. */
static bool read_addresses(struct bh_slice body, uint8_t family, size_t ip_len,
                           struct bh_proxy_v2 *proxy)
{
    if (body.len < 2 * ip_len + 4) {
        return false;
    }
    proxy->client.family = family;
    proxy->server.family = family;
    memcpy(proxy->client.bytes, body.ptr, ip_len);
    memcpy(proxy->server.bytes, body.ptr + ip_len, ip_len);
    proxy->client_port = bh_get_be16(body.ptr + 2 * ip_len);
    proxy->server_port = bh_get_be16(body.ptr + 2 * ip_len + 2);
    return true;
}

static bool read_body(struct bh_slice body, unsigned family, struct bh_proxy_v2 *proxy)
{
    switch (family) {
    case FAMILY_INET:
        return read_addresses(body, 4, 4, proxy);
    case FAMILY_INET6:
        return read_addresses(body, 6, 16, proxy);
    case FAMILY_UNSPEC:
    case FAMILY_UNIX:
        return true;
    default:
        return false;
    }
}

enum bh_status bh_proxy_v2_parse(struct bh_slice bytes, struct bh_proxy_v2 *proxy)
{
    const size_t known = bytes.len < SIGNATURE_LEN ? bytes.len : SIGNATURE_LEN;
    if (known > 0 && memcmp(bytes.ptr, signature, known) != 0) {
        return BH_EPROTO; /* Said at the first octet that differs, not after a time-out. */
    }
    if (bytes.len < HEADER_LEN) {
        return BH_MORE;
    }
    const unsigned version = (unsigned char)bytes.ptr[12] >> 4;
    const unsigned command = (unsigned char)bytes.ptr[12] & 15;
    const unsigned family = (unsigned char)bytes.ptr[13] >> 4;
    if (version != 2 || command > COMMAND_PROXY) {
        return BH_EPROTO;
    }
    const size_t body_len = bh_get_be16(bytes.ptr + 14);
    if (HEADER_LEN + body_len > BH_PROXY_V2_MAX) {
        return BH_ELIMIT;
    }
    if (bytes.len < HEADER_LEN + body_len) {
        return BH_MORE;
    }
    struct bh_proxy_v2 read = {.local = command == COMMAND_LOCAL, .len = HEADER_LEN + body_len};
    /* What a LOCAL header says about addresses must be ignored. */
    if (!read.local && !read_body(bh_slice(bytes.ptr + HEADER_LEN, body_len), family, &read)) {
        return BH_EPROTO;
    }
    *proxy = read;
    return BH_OK;
}
