#include "bh/ip.h"

#include <arpa/inet.h>
#include <stdio.h>

bool bh_ip_parse(struct bh_slice text, struct bh_ip *ip)
{
    char copy[BH_IP_TEXT_MAX];
    struct bh_ip parsed = {0};
    if (text.len == 0 || text.len >= sizeof(copy) || bh_slice_find(text, '\0') < text.len) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, parsed.bytes) == 1) {
        parsed.family = 4;
    } else if (inet_pton(AF_INET6, copy, parsed.bytes) == 1) {
        parsed.family = 6;
    } else {
        return false;
    }
    *ip = parsed;
    return true;
}

static unsigned bits_of(const struct bh_ip *ip)
{
    return ip->family == 4 ? 32 : 128;
}

static bool bit(const struct bh_ip *ip, unsigned i)
{
    return (ip->bytes[i / 8] >> (7 - i % 8) & 1) != 0;
}

bool bh_net_parse(struct bh_slice text, struct bh_net *net)
{
    struct bh_net parsed = {0};
    const size_t slash = bh_slice_find(text, '/');
    if (!bh_ip_parse(bh_slice_take(text, slash), &parsed.ip)) {
        return false;
    }
    uint64_t prefix_len = bits_of(&parsed.ip);
    if (slash < text.len &&
        !bh_slice_u64(bh_slice_skip(text, slash + 1), prefix_len, &prefix_len)) {
        return false;
    }
    for (unsigned i = (unsigned)prefix_len; i < bits_of(&parsed.ip); i++) {
        if (bit(&parsed.ip, i)) {
            return false;
        }
    }
    parsed.prefix_len = (uint8_t)prefix_len;
    *net = parsed;
    return true;
}

const char *bh_ip_text(const struct bh_ip *ip, char text[BH_IP_TEXT_MAX])
{
    const int family = ip->family == 4 ? AF_INET : AF_INET6;
    if (ip->family == 0 || inet_ntop(family, ip->bytes, text, BH_IP_TEXT_MAX) == NULL) {
        snprintf(text, BH_IP_TEXT_MAX, "none");
    }
    return text;
}

bool bh_ip_eq(const struct bh_ip *a, const struct bh_ip *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

struct bh_ip bh_ip_unmap(const struct bh_ip *ip)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct bh_ip plain = *ip;
    if (ip->family == 6 && memcmp(ip->bytes, mapped, sizeof(mapped)) == 0) {
        plain = (struct bh_ip){.family = 4};
        memcpy(plain.bytes, ip->bytes + 12, 4);
    }
    return plain;
}

bool bh_net_contains(const struct bh_net *net, const struct bh_ip *ip)
{
    const struct bh_ip plain = bh_ip_unmap(ip);
    if (plain.family != net->ip.family) {
        return false;
    }
    for (unsigned i = 0; i < net->prefix_len; i++) {
        if (bit(&net->ip, i) != bit(&plain, i)) {
            return false;
        }
    }
    return true;
}

bool bh_ip_is_loopback(const struct bh_ip *ip)
{
    static const uint8_t one[16] = {[15] = 1};
    const struct bh_ip plain = bh_ip_unmap(ip);
    return (plain.family == 4 && plain.bytes[0] == 127) ||
           (plain.family == 6 && memcmp(plain.bytes, one, sizeof(one)) == 0);
}

bool bh_ip_is_unusable(const struct bh_ip *ip)
{
    static const uint8_t zero[16] = {0};
    const struct bh_ip plain = bh_ip_unmap(ip);
    if (plain.family == 4) {
        return plain.bytes[0] == 0 || plain.bytes[0] >= 224;
    }
    return plain.family != 6 || memcmp(plain.bytes, zero, sizeof(zero)) == 0 ||
           plain.bytes[0] == 0xff;
}
