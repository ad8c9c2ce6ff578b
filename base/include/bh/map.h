/* map.h - an intrusive hash map. The owner embeds a node in its own struct; the map allocates only
 * its table. Keys are octets inside the owner's struct and must not change while it is in the map.
 */
#pragma once

#include "bh/slice.h"
#include "bh/status.h"

struct bh_map_node {
    struct bh_map_node *next; /* private */
    struct bh_slice key;      /* set before insert; borrowed from the owner */
    uint64_t hash;            /* private */
};

struct bh_map {
    struct bh_map_node **table;
    size_t mask;  /* table size - 1, or 0 with no table */
    size_t count; /* nodes in the map */
};

#define BH_CONTAINER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/** Zero-initialised is an empty map. Frees the table only; the nodes are their owners'. */
void bh_map_fini(struct bh_map *map);
/** node->key must not be in the map yet. @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_map_insert(struct bh_map *map, struct bh_map_node *node);
/** @return the node with this key, or NULL */
struct bh_map_node *bh_map_find(const struct bh_map *map, struct bh_slice key);
/** The node must be in the map. */
void bh_map_remove(struct bh_map *map, struct bh_map_node *node);
/** Walk all nodes: start with NULL; NULL at the end. The node last returned may be removed before
 * asking for the next only if `next` was fetched first. */
struct bh_map_node *bh_map_next(const struct bh_map *map, const struct bh_map_node *after);
