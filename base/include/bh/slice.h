/* slice.h - borrowed octets, passed by value, never NUL-terminated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bh_slice {
    const char *ptr;
    size_t len;
};

static inline struct bh_slice bh_slice(const void *ptr, size_t len)
{
    return (struct bh_slice){(const char *)ptr, len};
}

static inline struct bh_slice bh_slice_str(const char *str)
{
    return (struct bh_slice){str, strlen(str)};
}

#define BH_LIT(literal) ((struct bh_slice){"" literal, sizeof(literal) - 1})
#define BH_EMPTY ((struct bh_slice){"", 0})

/** For printf: "%.*s" with BH_FMT(slice). */
#define BH_FMT(slice) (int)(slice).len, (slice).ptr

static inline bool bh_slice_eq(struct bh_slice a, struct bh_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/** The slice without its first `count` octets; empty if it has fewer. */
static inline struct bh_slice bh_slice_skip(struct bh_slice s, size_t count)
{
    return count < s.len ? bh_slice(s.ptr + count, s.len - count) : bh_slice(s.ptr + s.len, 0);
}

/** The first `count` octets, or all if it has fewer. */
static inline struct bh_slice bh_slice_take(struct bh_slice s, size_t count)
{
    return bh_slice(s.ptr, count < s.len ? count : s.len);
}

/** memcmp order, a shorter prefix first. */
int bh_slice_cmp(struct bh_slice a, struct bh_slice b);
/** Equal but for ASCII case. */
bool bh_slice_eq_nocase(struct bh_slice a, struct bh_slice b);
bool bh_slice_starts(struct bh_slice s, struct bh_slice prefix);
bool bh_slice_starts_nocase(struct bh_slice s, struct bh_slice prefix);
bool bh_slice_ends_nocase(struct bh_slice s, struct bh_slice suffix);
/** Index of the first `c`, or s.len. */
size_t bh_slice_find(struct bh_slice s, char c);
/** Index of the first place where `needle` (not empty) starts, or s.len. */
size_t bh_slice_find_slice(struct bh_slice s, struct bh_slice needle);
/** Without blanks and tabs at both ends. */
struct bh_slice bh_slice_trim(struct bh_slice s);
/** A decimal number of digits only, no sign.
 * @return false if empty, anything but digits, or above `max` */
bool bh_slice_u64(struct bh_slice s, uint64_t max, uint64_t *value);
/** Parse off the next word, separated by blanks or tabs; an empty slice at the end. */
struct bh_slice bh_slice_word(struct bh_slice *rest);

char bh_lower(char c); /* ASCII only */
char bh_upper(char c); /* ASCII only */
bool bh_is_digit(char c);
bool bh_is_alpha(char c);
/** FNV-1a with a final mix; for hash maps of trusted size, not for security. */
uint64_t bh_hash(struct bh_slice s, uint64_t seed);
