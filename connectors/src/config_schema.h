/* config_schema.h - every setting there is: one row each, which drives reading, printing, explain
 * and diff. Built-in values are configuration text (bh_schema_builtin), read by the same code. */
#pragma once

#include "config_tree.h"

struct bh_load;
struct bh_setting;

enum bh_kind {
    BH_KIND_BOOL,    /* bool */
    BH_KIND_COUNT,   /* uint32_t in min..max; `zero` is the word for 0 */
    BH_KIND_PORT,    /* uint16_t */
    BH_KIND_PERCENT, /* uint32_t */
    BH_KIND_TIME,    /* uint64_t ms in min..max; `zero` is the word for 0 */
    BH_KIND_SIZE,    /* uint64_t octets in min..max; `zero` is the word for 0 */
    BH_KIND_RATE,    /* struct bh_rate; `zero` is the word for none */
    BH_KIND_DATE,    /* int64_t unix_ms, exclusive end of the day */
    BH_KIND_ENUM,    /* an enum, by choices */
    BH_KIND_TEXT,    /* struct bh_slice; `zero` is the word for none */
    BH_KIND_NAME,    /* struct bh_slice: a host name */
    BH_KIND_NAMES,   /* struct bh_names: host names */
    BH_KIND_PATH,    /* struct bh_slice: a file or folder that need not exist yet */
    BH_KIND_PATHS,   /* struct bh_names */
    BH_KIND_FILE,    /* struct bh_slice: a file that must exist */
    BH_KIND_TIMES,   /* struct bh_times */
    BH_KIND_NETS,    /* struct bh_nets */
    BH_KIND_IPS,     /* struct bh_ips */
    BH_KIND_SERVERS, /* struct bh_server_addrs */
    BH_KIND_BLOCK,   /* a nested struct, by block */
    BH_KIND_SPECIAL, /* read and print of its own; `at` is often the whole struct */
};

enum {
    BH_ONLY_CONNECTOR = 1, /* not in `defaults` */
    BH_REPEATS = 2,        /* may be stated more than once */
    BH_HEAD = 4,           /* the value between the block's name and its '{' */
    BH_RESETS = 8,         /* a block that replaces an inherited one whole */
    BH_LATER = 16,         /* a missing file is a warning: it may come at run time */
    BH_WAITS = 32,         /* likewise; and it is a file, never a credential */
};

struct bh_choice {
    const char *name;
    int value;
};

struct bh_block {
    const char *name;
    const struct bh_setting *settings;
    size_t count;
    size_t size; /* of the struct */
};

struct bh_setting {
    const char *name;
    enum bh_kind kind;
    unsigned flags;
    size_t at; /* offset in the block's struct */
    uint64_t min, max;
    const char *zero;
    const struct bh_choice *choices; /* ends with name NULL */
    const struct bh_block *block;
    /** SPECIAL, or a BLOCK that is read or printed otherwise. */
    void (*read)(struct bh_load *load, const struct bh_setting *setting,
                 const struct bh_config_node *node, void *at);
    /** The value as it would be written; nothing if there is none. @return BH_OK or BH_ELIMIT */
    enum bh_status (*print)(const void *at, struct bh_buf *out);
    const char *expected; /* SPECIAL: what is allowed, for messages */
};

#define BH_SETTINGS_MAX 40 /* in one block */

extern const struct bh_block bh_schema_engine, bh_schema_queue, bh_schema_resolver,
    bh_schema_listen, bh_schema_retry, bh_schema_connector;
/** The words that may start a statement at the top: NULL-terminated. */
extern const char *const bh_schema_top[];
extern const char bh_schema_builtin[];

const struct bh_setting *bh_schema_find(const struct bh_block *block, struct bh_slice name);
