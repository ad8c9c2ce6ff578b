#include "bh/assert.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/status.h"

_Noreturn void bh_assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "evt=bug at=%s:%d assertion=\"%s\"\n", file, line, expression);
    abort();
}

const char *bh_status_name(enum bh_status status)
{
    switch (status) {
    case BH_OK:
        return "ok";
    case BH_MORE:
        return "more";
    case BH_ENOMEM:
        return "no memory";
    case BH_ELIMIT:
        return "limit";
    case BH_EPROTO:
        return "protocol error";
    case BH_EIO:
        return "input/output error";
    case BH_ECORRUPT:
        return "corrupt";
    case BH_ENOTFOUND:
        return "not found";
    case BH_EFULL:
        return "full";
    case BH_EINVAL:
        return "invalid";
    case BH_EVERSION:
        return "newer version";
    case BH_EEXIST:
        return "exists";
    case BH_EBUSY:
        return "busy";
    }
    return "unknown";
}
