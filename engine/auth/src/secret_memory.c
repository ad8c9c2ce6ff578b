#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#include "secret_memory.h"

#include <openssl/crypto.h>
#include <sys/mman.h>

void *secret_alloc(size_t len)
{
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    if (madvise(memory, len, MADV_DONTDUMP) != 0) {
        (void)munmap(memory, len);
        return NULL;
    }
    return memory;
}

void secret_free(void *memory, size_t len)
{
    if (memory != NULL) {
        OPENSSL_cleanse(memory, len);
        (void)munmap(memory, len);
    }
}
