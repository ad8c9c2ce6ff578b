/* config_error.h - what is wrong with a configuration: a bounded list, every fault of one run.
 * Not shared between threads. */
#pragma once

#include "bh/arena.h"
#include "bh/buf.h"
#include "bh/json_write.h"

enum bh_config_level { BH_CONFIG_ERROR, BH_CONFIG_WARNING };

/** One line for the operator. Slices live as long as the collector. */
struct bh_config_error {
    enum bh_config_level level;
    struct bh_slice file;
    uint32_t line;   /* from 1; 0: the file as a whole */
    uint32_t column; /* octets from 1; 0 with line 0 */
    struct bh_slice text;
};

#define BH_CONFIG_ERRORS_MAX 200 /* kept; the rest are only counted */

struct bh_config_errors {
    struct bh_arena arena; /* private: the texts */
    struct bh_config_error
        list[BH_CONFIG_ERRORS_MAX]; /* in order of file, line, column once sorted */
    size_t count;                   /* entries of list */
    size_t errors;   /* all errors found, kept or not: 0 means the configuration is good */
    size_t warnings; /* all warnings found, kept or not */
};

void bh_config_errors_init(struct bh_config_errors *errors);
void bh_config_errors_fini(struct bh_config_errors *errors);
/** Add one; the text is cut to 400 octets. Past the bound, or without memory, it is counted only.
 */
void bh_config_errors_add(struct bh_config_errors *errors, enum bh_config_level level,
                          struct bh_slice file, uint32_t line, uint32_t column, const char *format,
                          ...) BH_PRINTF(6, 7);
/** "file:line:column: error: text", without a line end, cut to the room of `out`. */
void bh_config_error_text(const struct bh_config_error *error, struct bh_buf *out);
/** An object with file, line, column, level and text. */
void bh_config_error_json(const struct bh_config_error *error, struct bh_json *json);
