/* sandbox_internal.h - the two halves, each for the calling thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bh/sandbox.h"

enum sandbox_access { SANDBOX_READ = 1, SANDBOX_WRITE = 2, SANDBOX_SOCKETS = 4 };

struct sandbox_rule {
    int fd; /* O_PATH */
    bool folder;
    unsigned access; /* bits of enum sandbox_access */
};

/** @return the version in force, 0 and errno where there is none */
int sandbox_landlock(const struct sandbox_rule *rules, size_t count);
/** @return 0, or an errno */
int sandbox_seccomp(void);
