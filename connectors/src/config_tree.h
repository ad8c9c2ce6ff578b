/* config_tree.h - configuration text as a tree of statements, before anybody knows what they mean.
 *
 *     statement = word value* ( end | '{' statement* '}' )      end = newline | ';' | before '}'
 *     value     = word | "string" | '[' value* ']' over lines   comment = '#' to the end of the
 * line
 *
 * A '[' that touches its word and is closed in it, as in [192.0.2.1]:25, belongs to the word.
 * `include PATTERN` is replaced by the statements of the files it names. */
#pragma once

#include "bh/config.h"

struct bh_config_file {
    struct bh_slice name;   /* path, NUL-terminated behind */
    struct bh_slice folder; /* with its '/', or empty */
    const struct bh_config_file *includer;
};

struct bh_config_value {
    struct bh_slice text; /* NUL-terminated behind */
    uint32_t line, column;
    bool quoted;
    struct bh_config_value *next;
};

struct bh_config_node {
    struct bh_slice key;
    const struct bh_config_file *file;
    uint32_t line, column;
    struct bh_config_value *values;
    size_t values_count;
    bool has_block;
    uint32_t block_line; /* of its '{' */
    struct bh_config_node *children, *last_child;
    struct bh_config_node *next;
    struct bh_config_node *parent; /* NULL: the root */
};

struct bh_config_tree {
    const struct bh_config_reader *reader; /* NULL: include is refused */
    struct bh_arena *arena;
    struct bh_config_errors *errors;
    struct bh_config_node *root;
    uint32_t files;
    bool no_memory;
};

/** Parse text that stands alone. Its octets must outlive the tree. */
void bh_config_tree_parse_text(struct bh_config_tree *tree, const char *name, struct bh_slice text);
/** Parse a file and what it includes. */
void bh_config_tree_parse_file(struct bh_config_tree *tree, const char *path);
/** The first child with this key, or NULL. node may be NULL. */
const struct bh_config_node *bh_config_node_child(const struct bh_config_node *node,
                                                  const char *key);
/** path against the folder of the file, NUL-terminated behind. @return false without memory */
bool bh_config_resolve_path(struct bh_arena *arena, const struct bh_config_file *file,
                            struct bh_slice path, struct bh_slice *resolved);
