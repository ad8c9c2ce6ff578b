/* arena.h - memory that is freed together. Capped: meeting the cap is an ordinary result. */
#pragma once

#include <stddef.h>

#include "bh/slice.h"

struct bh_arena_block;

struct bh_arena {
    struct bh_arena_block *first;   /* private */
    struct bh_arena_block *current; /* private */
    size_t used;                    /* octets handed out since the last reset */
    size_t cap;                     /* most octets to hand out */
};

/** @param cap most octets that the arena will hand out; blocks come from malloc as needed */
void bh_arena_init(struct bh_arena *arena, size_t cap);
/** Free everything; the arena can be used again. */
void bh_arena_fini(struct bh_arena *arena);
/** Forget all that was handed out; keeps the first block for use again. */
void bh_arena_reset(struct bh_arena *arena);
/** Zeroed memory, aligned for any type. @return NULL at the cap or when malloc fails */
void *bh_arena_alloc(struct bh_arena *arena, size_t size);
/** A copy of the slice in the arena. @return false as above; *copy is then unchanged */
bool bh_arena_copy(struct bh_arena *arena, struct bh_slice s, struct bh_slice *copy);
