/* config_value.h - statements read into structs by their schema, and structs printed back. */
#pragma once

#include "config_schema.h"

/** What reading needs to know. */
struct bh_load {
    const struct bh_config_reader *reader;
    struct bh_arena *arena;
    struct bh_config_errors *errors;
    bool no_memory;
    bool builtin;          /* reading the built-in text: files are not looked for */
    bool in_defaults;      /* inside `defaults` */
    struct bh_map retries; /* named schedules that are known so far: struct bh_named_retry */
    const struct bh_retry *standard;
};

struct bh_named_retry {
    struct bh_map_node node;
    struct bh_retry retry;
    const struct bh_config_node *at;
    struct bh_named_retry *next; /* in order of the files */
};

/** An error at a value, or at the statement when value is NULL. */
void bh_load_error(struct bh_load *load, const struct bh_config_node *node,
                   const struct bh_config_value *value, const char *format, ...) BH_PRINTF(4, 5);
void bh_load_warning(struct bh_load *load, const struct bh_config_node *node,
                     const struct bh_config_value *value, const char *format, ...) BH_PRINTF(4, 5);
/** Zeroed; NULL sets load->no_memory. */
void *bh_load_alloc(struct bh_load *load, size_t size);

/** Read the statements of a block into its struct: unknown, repeated and bad ones are errors.
 * @param up  the statement's own block, for "is the '{' of line N closed?"; NULL at the top */
struct bh_load_scope {
    const struct bh_block *block; /* NULL: the top of the file */
    const struct bh_config_node *node;
    const struct bh_load_scope *up;
};
void bh_load_block(struct bh_load *load, const struct bh_load_scope *scope, void *base);
/** "unknown setting", with the nearest spelling or the block it belongs to. */
void bh_load_unknown(struct bh_load *load, const struct bh_load_scope *scope,
                     const struct bh_config_node *node);
/** Several words in one array; the values of a statement. NULL and no_memory without memory. */
bool bh_load_enum(struct bh_load *load, const struct bh_config_node *node,
                  const struct bh_config_value *value, const char *what,
                  const struct bh_choice *choices, int *chosen);
/** A host name as a lower-case A-label name without trailing dot; an error is told. */
bool bh_load_name(struct bh_load *load, const struct bh_config_node *node,
                  const struct bh_config_value *value, struct bh_slice text, struct bh_slice *name);
/** "got 'x'" parts: a value cut to what a message can hold. */
struct bh_slice bh_load_shown(struct bh_slice text);

/** The value of one setting as it would be written, without its name. Nothing for "none stated".
 * @param base the block's struct. @return BH_OK or BH_ELIMIT */
enum bh_status bh_value_print(const struct bh_setting *setting, const void *base,
                              struct bh_buf *out);
/** Text as a word, or quoted where a word can't hold it. */
enum bh_status bh_value_print_text(struct bh_slice text, struct bh_buf *out);

/** What a schedule leaves open, and whether it makes sense. */
void bh_load_finish_retry(struct bh_load *load, const struct bh_config_node *node,
                          struct bh_retry *retry);
