/* The sandbox would hold for the simulator itself: it is not entered. */
#include <stdlib.h>

#include "bh/sandbox.h"

struct bh_sandbox {
    int unused;
};

struct bh_sandbox *bh_sandbox_create(void)
{
    return calloc(1, sizeof(struct bh_sandbox));
}

void bh_sandbox_destroy(struct bh_sandbox *sandbox)
{
    free(sandbox);
}

void bh_sandbox_read(struct bh_sandbox *sandbox, const char *path)
{
    (void)sandbox;
    (void)path;
}

void bh_sandbox_read_file(struct bh_sandbox *sandbox, const char *path)
{
    (void)sandbox;
    (void)path;
}

void bh_sandbox_write(struct bh_sandbox *sandbox, const char *path)
{
    (void)sandbox;
    (void)path;
}

void bh_sandbox_sockets(struct bh_sandbox *sandbox, const char *path)
{
    (void)sandbox;
    (void)path;
}

enum bh_status bh_sandbox_enter(struct bh_sandbox *sandbox, struct bh_sandbox_result *result)
{
    (void)sandbox;
    *result = (struct bh_sandbox_result){.lacks = "simulated"};
    return BH_OK;
}

bool bh_sandbox_possible(void)
{
    return false;
}
