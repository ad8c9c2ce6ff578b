/* wire.h - fixed-width big-endian integers and length-prefixed octets: queue keys and records.
 * Big-endian, so that the order of keys is the order of numbers. */
#pragma once

#include "bh/buf.h"

static inline void bh_put_be16(void *at, uint16_t v)
{
    unsigned char *p = (unsigned char *)at;
    p[0] = (unsigned char)(v >> 8);
    p[1] = (unsigned char)v;
}

static inline void bh_put_be32(void *at, uint32_t v)
{
    bh_put_be16(at, (uint16_t)(v >> 16));
    bh_put_be16((char *)at + 2, (uint16_t)v);
}

static inline void bh_put_be64(void *at, uint64_t v)
{
    bh_put_be32(at, (uint32_t)(v >> 32));
    bh_put_be32((char *)at + 4, (uint32_t)v);
}

static inline uint16_t bh_get_be16(const void *at)
{
    const unsigned char *p = (const unsigned char *)at;
    return (uint16_t)((unsigned)p[0] << 8 | p[1]);
}

static inline uint32_t bh_get_be32(const void *at)
{
    return (uint32_t)bh_get_be16(at) << 16 | bh_get_be16((const char *)at + 2);
}

static inline uint64_t bh_get_be64(const void *at)
{
    return (uint64_t)bh_get_be32(at) << 32 | bh_get_be32((const char *)at + 4);
}

/** Writes a record into storage of the caller. What doesn't fit sets `overflow` and writes nothing
 * more; check once at the end. */
struct bh_writer {
    struct bh_buf buf;
    bool overflow;
};

void bh_write_u8(struct bh_writer *w, uint8_t v);
void bh_write_u16(struct bh_writer *w, uint16_t v);
void bh_write_u32(struct bh_writer *w, uint32_t v);
void bh_write_u64(struct bh_writer *w, uint64_t v);
void bh_write_i64(struct bh_writer *w, int64_t v);
/** LEB128, 1 to 10 octets. */
void bh_write_varint(struct bh_writer *w, uint64_t v);
/** A varint length, then the octets. */
void bh_write_slice(struct bh_writer *w, struct bh_slice s);

/** Reads a record. What isn't there sets `failed` and reads as 0 or empty; check once at the end.
 */
struct bh_reader {
    struct bh_slice rest;
    bool failed;
};

uint8_t bh_read_u8(struct bh_reader *r);
uint16_t bh_read_u16(struct bh_reader *r);
uint32_t bh_read_u32(struct bh_reader *r);
uint64_t bh_read_u64(struct bh_reader *r);
int64_t bh_read_i64(struct bh_reader *r);
uint64_t bh_read_varint(struct bh_reader *r);
/** Borrowed from the record. */
struct bh_slice bh_read_slice(struct bh_reader *r);
