#include "config_cell.h"

void config_cell_init(struct config_cell *cell, const struct bh_config *config)
{
    pthread_mutex_init(&cell->lock, NULL);
    cell->config = config;
}

void config_cell_fini(struct config_cell *cell)
{
    bh_config_unref(cell->config);
    cell->config = NULL;
    pthread_mutex_destroy(&cell->lock);
}

const struct bh_config *config_cell_get(struct config_cell *cell)
{
    pthread_mutex_lock(&cell->lock);
    const struct bh_config *config = bh_config_ref(cell->config);
    pthread_mutex_unlock(&cell->lock);
    return config;
}

void config_cell_set(struct config_cell *cell, const struct bh_config *config)
{
    pthread_mutex_lock(&cell->lock);
    const struct bh_config *old = cell->config;
    cell->config = config;
    pthread_mutex_unlock(&cell->lock);
    bh_config_unref(old);
}
