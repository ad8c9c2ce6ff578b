/* proxy_v2.h - the PROXY protocol version 2 header that a load balancer sends ahead of everything
 * else. Pure; the driver reads it only from balancers that the configuration lists. */
#pragma once

#include "bh/ip.h"
#include "bh/status.h"

#define BH_PROXY_V2_MAX 1024 /* octets: more than addresses and any sensible set of TLVs */

struct bh_proxy_v2 {
    bool local;          /* the balancer itself speaks (health check): use the real peer */
    struct bh_ip client; /* family 0: Unix or unspecified */
    struct bh_ip server;
    uint16_t client_port;
    uint16_t server_port;
    size_t len; /* octets of the whole header, to be dropped from the stream */
};

/** @param bytes the stream from its first octet
 *  @return BH_OK; BH_MORE: not whole yet; BH_EPROTO: not such a header;
 *          BH_ELIMIT: it says that it is longer than BH_PROXY_V2_MAX */
BH_MUST_USE enum bh_status bh_proxy_v2_parse(struct bh_slice bytes, struct bh_proxy_v2 *proxy);
