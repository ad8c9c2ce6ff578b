/* heap.h - an intrusive binary heap of deadlines: insert, change and remove in O(log n). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bh/status.h"

struct bh_heap_node {
    uint64_t at;  /* the deadline; set through the functions below */
    size_t index; /* private: position + 1, 0 when not in a heap */
};

struct bh_heap {
    struct bh_heap_node **nodes;
    size_t count;
    size_t cap;
};

void bh_heap_fini(struct bh_heap *heap);
/** Insert, or move if it is in the heap already. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_heap_set(struct bh_heap *heap, struct bh_heap_node *node,
                                       uint64_t at);
/** No effect if it is not in a heap. */
void bh_heap_remove(struct bh_heap *heap, struct bh_heap_node *node);
/** The earliest, or NULL. */
struct bh_heap_node *bh_heap_first(const struct bh_heap *heap);
