/* config_cell.h - the configuration in force, for every thread: one counted pointer behind a lock
 * that is held for the count alone. */
#pragma once

#include <pthread.h>

#include "bh/config.h"

struct config_cell {
    pthread_mutex_t lock;
    const struct bh_config *config;
};

/** Takes over the reference. */
void config_cell_init(struct config_cell *cell, const struct bh_config *config);
void config_cell_fini(struct config_cell *cell);
/** The configuration in force, with a reference that the caller gives back by bh_config_unref. */
const struct bh_config *config_cell_get(struct config_cell *cell);
/** Put another in force; takes over the reference, gives back that of the old one. */
void config_cell_set(struct config_cell *cell, const struct bh_config *config);
