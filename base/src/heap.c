#include "bh/heap.h"

#include <stdlib.h>

#include "bh/assert.h"

void bh_heap_fini(struct bh_heap *heap)
{
    free(heap->nodes);
    *heap = (struct bh_heap){0};
}

static void place(struct bh_heap *heap, struct bh_heap_node *node, size_t i)
{
    heap->nodes[i] = node;
    node->index = i + 1;
}

static void sift(struct bh_heap *heap, struct bh_heap_node *node, size_t i)
{
    while (i > 0 && heap->nodes[(i - 1) / 2]->at > node->at) {
        place(heap, heap->nodes[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < heap->count && heap->nodes[child + 1]->at < heap->nodes[child]->at) {
            child++;
        }
        if (child >= heap->count || heap->nodes[child]->at >= node->at) {
            break;
        }
        place(heap, heap->nodes[child], i);
        i = child;
    }
    place(heap, node, i);
}

enum bh_status bh_heap_set(struct bh_heap *heap, struct bh_heap_node *node, uint64_t at)
{
    if (node->index == 0) {
        if (heap->count == heap->cap) {
            const size_t cap = heap->cap > 0 ? heap->cap * 2 : 64;
            struct bh_heap_node **nodes = realloc(heap->nodes, cap * sizeof(struct bh_heap_node *));
            if (nodes == NULL) {
                return BH_ENOMEM;
            }
            heap->nodes = nodes;
            heap->cap = cap;
        }
        heap->nodes[heap->count] = node;
        node->index = ++heap->count;
    }
    node->at = at;
    sift(heap, node, node->index - 1);
    return BH_OK;
}

void bh_heap_remove(struct bh_heap *heap, struct bh_heap_node *node)
{
    if (node->index == 0) {
        return;
    }
    const size_t i = node->index - 1;
    BH_ASSERT(i < heap->count && heap->nodes[i] == node);
    node->index = 0;
    struct bh_heap_node *last = heap->nodes[--heap->count];
    if (last != node) {
        heap->nodes[i] = last;
        sift(heap, last, i);
    }
}

struct bh_heap_node *bh_heap_first(const struct bh_heap *heap)
{
    return heap->count > 0 ? heap->nodes[0] : NULL;
}
