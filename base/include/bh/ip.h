/* ip.h - IPv4 and IPv6 addresses and networks as values, without sockets. */
#pragma once

#include "bh/buf.h"

struct bh_ip {
    uint8_t family;    /* 4, 6, or 0 for none */
    uint8_t bytes[16]; /* network order; the first 4 for IPv4, rest zero */
};

struct bh_net {
    struct bh_ip ip;
    uint8_t prefix_len; /* bits */
};

#define BH_IP_TEXT_MAX 46

/** "192.0.2.1" or "2001:db8::1", no brackets, no zone. */
bool bh_ip_parse(struct bh_slice text, struct bh_ip *ip);
/** "10.0.0.0/8", or an address alone (whole length). Host bits must be zero. */
bool bh_net_parse(struct bh_slice text, struct bh_net *net);
/** NUL-terminated. @return text */
const char *bh_ip_text(const struct bh_ip *ip, char text[BH_IP_TEXT_MAX]);
bool bh_ip_eq(const struct bh_ip *a, const struct bh_ip *b);
/** An IPv4-mapped IPv6 address counts as its IPv4 address. */
bool bh_net_contains(const struct bh_net *net, const struct bh_ip *ip);
/** 127.0.0.0/8 or ::1. */
bool bh_ip_is_loopback(const struct bh_ip *ip);
/** Unspecified, multicast or broadcast: never a mail host. */
bool bh_ip_is_unusable(const struct bh_ip *ip);
/** ::ffff:a.b.c.d becomes a.b.c.d; others unchanged. */
struct bh_ip bh_ip_unmap(const struct bh_ip *ip);
