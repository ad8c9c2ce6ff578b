/* secret_memory.h - memory for what must be neither in a core dump nor left behind. */
#pragma once

#include <stddef.h>

/** Zeroed pages that core dumps leave out. @return NULL for want of memory */
void *secret_alloc(size_t len);
/** Wipe and give back. @param len as allocated; NULL is fine */
void secret_free(void *memory, size_t len);
