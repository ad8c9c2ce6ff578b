#include "bh/map.h"

#include <stdlib.h>

#include "bh/assert.h"

#define TABLE_MIN ((size_t)16)

void bh_map_fini(struct bh_map *map)
{
    free(map->table);
    *map = (struct bh_map){0};
}

static enum bh_status grow(struct bh_map *map)
{
    const size_t size = map->table == NULL ? TABLE_MIN : (map->mask + 1) * 2;
    struct bh_map_node **table = calloc(size, sizeof(struct bh_map_node *));
    if (table == NULL) {
        /* A crowded table still works; only the first one is needed. */
        return map->table == NULL ? BH_ENOMEM : BH_OK;
    }
    for (size_t i = 0; map->table != NULL && i <= map->mask; i++) {
        for (struct bh_map_node *node = map->table[i]; node != NULL;) {
            struct bh_map_node *next = node->next;
            struct bh_map_node **slot = &table[node->hash & (size - 1)];
            node->next = *slot;
            *slot = node;
            node = next;
        }
    }
    free(map->table);
    map->table = table;
    map->mask = size - 1;
    return BH_OK;
}

enum bh_status bh_map_insert(struct bh_map *map, struct bh_map_node *node)
{
    if (map->table == NULL || map->count > map->mask) {
        const enum bh_status status = grow(map);
        if (status != BH_OK) {
            return status;
        }
    }
    node->hash = bh_hash(node->key, 0);
    struct bh_map_node **slot = &map->table[node->hash & map->mask];
    node->next = *slot;
    *slot = node;
    map->count++;
    return BH_OK;
}

struct bh_map_node *bh_map_find(const struct bh_map *map, struct bh_slice key)
{
    if (map->table == NULL) {
        return NULL;
    }
    const uint64_t hash = bh_hash(key, 0);
    struct bh_map_node *node = map->table[hash & map->mask];
    while (node != NULL && (node->hash != hash || !bh_slice_eq(node->key, key))) {
        node = node->next;
    }
    return node;
}

void bh_map_remove(struct bh_map *map, struct bh_map_node *node)
{
    BH_ASSERT(map->table != NULL);
    struct bh_map_node **slot = &map->table[node->hash & map->mask];
    while (*slot != NULL && *slot != node) {
        slot = &(*slot)->next;
    }
    BH_ASSERT(*slot == node);
    *slot = node->next;
    node->next = NULL;
    map->count--;
}

struct bh_map_node *bh_map_next(const struct bh_map *map, const struct bh_map_node *after)
{
    if (map->table == NULL) {
        return NULL;
    }
    size_t i = 0;
    if (after != NULL) {
        if (after->next != NULL) {
            return after->next;
        }
        i = (size_t)(after->hash & map->mask) + 1;
    }
    while (i <= map->mask && map->table[i] == NULL) {
        i++;
    }
    return i <= map->mask ? map->table[i] : NULL;
}
