/* config_files.h - the files that a configuration names, for whoever has to see to all of them. */
#pragma once

#include "bh/config.h"

enum config_file_kind {
    CONFIG_FILE_OF_ALL,       /* needed to start */
    CONFIG_FILE_OF_CONNECTOR, /* a certificate, key or CA: while it can't be read, its mail waits */
    CONFIG_FILE_SECRET,       /* of a connector, likewise, and nobody else may read it */
};

struct config_file {
    const char *what;     /* "certificate", "ca-file", ... */
    struct bh_slice path; /* NUL-terminated behind */
    struct bh_slice file; /* where it is named; empty: not known */
    uint32_t line;
    enum config_file_kind kind;
};

/** Every file once for each place that names it. */
void config_files_each(const struct bh_config *config,
                       void (*each)(void *ctx, const struct config_file *file), void *ctx);

/** An error for each file that this process, as the user it is now, cannot read; a warning for
 * secrets, which may come later, and for those that others may read.
 * @param starting  a warning, too, for a certificate, key or CA of one connector: its mail waits. A
 *                  reload can be refused, and everything goes on as before */
void config_files_check(const struct bh_config *config, bool starting,
                        struct bh_config_errors *errors);
