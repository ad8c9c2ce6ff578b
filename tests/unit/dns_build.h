/* dns_build.h - DNS messages made by hand for tests, without the code under test. Names are never
 * compressed unless a test writes the pointer itself. */
#pragma once

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/dns_message.h"

enum { DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL };

struct dns_build {
    uint8_t octets[60000];
    size_t len;
};

static inline void dns_put16(struct dns_build *b, unsigned v)
{
    b->octets[b->len++] = (uint8_t)(v >> 8);
    b->octets[b->len++] = (uint8_t)v;
}

static inline void dns_put_name(struct dns_build *b, const char *name)
{
    while (*name != '\0') {
        const size_t len = strcspn(name, ".");
        b->octets[b->len++] = (uint8_t)len;
        memcpy(b->octets + b->len, name, len);
        b->len += len;
        name += len + (name[len] == '.' ? 1 : 0);
    }
    b->octets[b->len++] = 0;
}

/** A response with its question. `flags` are the second 16 bits of the header, without QR. */
static inline void dns_build_start(struct dns_build *b, uint16_t id, unsigned flags,
                                   const char *name, uint16_t type)
{
    b->len = 0;
    dns_put16(b, id);
    dns_put16(b, 0x8000 | flags);
    dns_put16(b, 1);
    for (int i = 0; i < 3; i++) {
        dns_put16(b, 0);
    }
    dns_put_name(b, name);
    dns_put16(b, type);
    dns_put16(b, 1);
}

/** The fixed part of a record; its data follows, dns_build_end closes it. */
static inline size_t dns_build_rr(struct dns_build *b, int section, const char *owner,
                                  uint16_t type, uint32_t ttl)
{
    const size_t count_at = 6 + 2 * (size_t)section;
    const unsigned count = (unsigned)b->octets[count_at] << 8 | b->octets[count_at + 1];
    b->octets[count_at] = (uint8_t)((count + 1) >> 8);
    b->octets[count_at + 1] = (uint8_t)(count + 1);
    dns_put_name(b, owner);
    dns_put16(b, type);
    dns_put16(b, 1);
    dns_put16(b, ttl >> 16);
    dns_put16(b, ttl & 0xffff);
    dns_put16(b, 0);
    return b->len;
}

static inline void dns_build_end(struct dns_build *b, size_t data_at)
{
    const size_t len = b->len - data_at;
    b->octets[data_at - 2] = (uint8_t)(len >> 8);
    b->octets[data_at - 1] = (uint8_t)len;
}

/** A record from text: "192.0.2.1", "2001:db8::1", "10 mx.example", "host.example" (CNAME, NS), hex
 * (TLSA), one string (TXT), "TTL" (SOA: its last field). */
static inline void dns_build_text(struct dns_build *b, int section, const char *owner,
                                  uint16_t type, uint32_t ttl, const char *data)
{
    const size_t at = dns_build_rr(b, section, owner, type, ttl);
    switch (type) {
    case BH_DNS_A:
        inet_pton(AF_INET, data, b->octets + b->len);
        b->len += 4;
        break;
    case BH_DNS_AAAA:
        inet_pton(AF_INET6, data, b->octets + b->len);
        b->len += 16;
        break;
    case BH_DNS_MX:
        dns_put16(b, (unsigned)strtoul(data, NULL, 10));
        dns_put_name(b, strchr(data, ' ') + 1);
        break;
    case BH_DNS_TXT:
        b->octets[b->len++] = (uint8_t)strlen(data);
        memcpy(b->octets + b->len, data, strlen(data));
        b->len += strlen(data);
        break;
    case BH_DNS_SOA:
        dns_put_name(b, "ns.example");
        dns_put_name(b, "");
        for (int i = 0; i < 4; i++) {
            dns_put16(b, 0);
            dns_put16(b, 3600);
        }
        dns_put16(b, (unsigned)(strtoul(data, NULL, 10) >> 16));
        dns_put16(b, (unsigned)(strtoul(data, NULL, 10) & 0xffff));
        break;
    case BH_DNS_TLSA:
        for (size_t i = 0; data[2 * i] != '\0'; i++) {
            const char digits[3] = {data[2 * i], data[2 * i + 1], '\0'};
            b->octets[b->len++] = (uint8_t)strtoul(digits, NULL, 16);
        }
        break;
    default:
        dns_put_name(b, data);
        break;
    }
    dns_build_end(b, at);
}
