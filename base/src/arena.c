#include "bh/arena.h"

#include <stdlib.h>

#include "bh/assert.h"

#define BLOCK_MIN ((size_t)4096)

struct bh_arena_block {
    struct bh_arena_block *next;
    size_t size;
    size_t used;
    _Alignas(max_align_t) char data[];
};

void bh_arena_init(struct bh_arena *arena, size_t cap)
{
    *arena = (struct bh_arena){.cap = cap};
}

void bh_arena_fini(struct bh_arena *arena)
{
    for (struct bh_arena_block *block = arena->first; block != NULL;) {
        struct bh_arena_block *next = block->next;
        free(block);
        block = next;
    }
    arena->first = NULL;
    arena->current = NULL;
    arena->used = 0;
}

void bh_arena_reset(struct bh_arena *arena)
{
    struct bh_arena_block *first = arena->first;
    if (first != NULL) {
        for (struct bh_arena_block *block = first->next; block != NULL;) {
            struct bh_arena_block *next = block->next;
            free(block);
            block = next;
        }
        first->next = NULL;
        first->used = 0;
    }
    arena->current = first;
    arena->used = 0;
}

static struct bh_arena_block *add_block(struct bh_arena *arena, size_t size)
{
    const size_t want = size > BLOCK_MIN ? size : BLOCK_MIN;
    struct bh_arena_block *block = malloc(sizeof(*block) + want);
    if (block == NULL) {
        return NULL;
    }
    *block = (struct bh_arena_block){.size = want};
    if (arena->current != NULL) {
        arena->current->next = block;
    } else {
        arena->first = block;
    }
    arena->current = block;
    return block;
}

void *bh_arena_alloc(struct bh_arena *arena, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    if (size > arena->cap || arena->used > arena->cap - size) {
        return NULL;
    }
    const size_t rounded = (size + align - 1) / align * align;
    struct bh_arena_block *block = arena->current;
    if (block == NULL || block->size - block->used < rounded) {
        block = add_block(arena, rounded);
        if (block == NULL) {
            return NULL;
        }
    }
    void *memory = block->data + block->used;
    block->used += rounded;
    arena->used += size;
    BH_ASSERT(block->used <= block->size);
    memset(memory, 0, size);
    return memory;
}

bool bh_arena_copy(struct bh_arena *arena, struct bh_slice s, struct bh_slice *copy)
{
    if (s.len == 0) {
        *copy = BH_EMPTY;
        return true;
    }
    char *memory = bh_arena_alloc(arena, s.len);
    if (memory == NULL) {
        return false;
    }
    memcpy(memory, s.ptr, s.len);
    *copy = bh_slice(memory, s.len);
    return true;
}
