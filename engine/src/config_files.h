/* config_files.h - the files that a configuration names, for whoever has to see to all of them. */
#pragma once

#include "bh/config.h"

struct config_file {
    const char *what;     /* "certificate", "ca-file", ... */
    struct bh_slice path; /* NUL-terminated behind */
    struct bh_slice file; /* where it is named; empty: not known */
    uint32_t line;
    bool secret; /* of a connector: it may come later */
};

/** Every file once for each place that names it. */
void config_files_each(const struct bh_config *config,
                       void (*each)(void *ctx, const struct config_file *file), void *ctx);

/** An error for each file that this process, as the user it is now, cannot read; a warning for
 * secrets, which may come later, and for those that others may read. */
void config_files_check(const struct bh_config *config, struct bh_config_errors *errors);
