/* Any octets as a row: reading never goes past them, and what is read writes and reads the same. */
#include <stdlib.h>

#include "bh/posture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char a[BH_POSTURE_VALUE_MAX];
    char b[BH_POSTURE_VALUE_MAX];
    char text[BH_POSTURE_WORDS];
    struct bh_buf once = bh_buf(a, sizeof(a));
    struct bh_buf twice = bh_buf(b, sizeof(b));
    struct bh_posture p;
    struct bh_reached r;
    if (bh_posture_read(bh_slice(data, size), &p) == BH_OK) {
        check(bh_posture_write(&p, &once) == BH_OK);
        check(bh_posture_read(bh_buf_slice(&once), &p) == BH_OK);
        check(bh_posture_write(&p, &twice) == BH_OK);
        check(bh_slice_eq(bh_buf_slice(&once), bh_buf_slice(&twice)));
        (void)bh_posture_text(&p, bh_posture_worse(&p, 0), 0, text);
    }
    once.len = 0;
    twice.len = 0;
    if (bh_reached_read(bh_slice(data, size), &r) == BH_OK) {
        check(bh_reached_write(&r, &once) == BH_OK);
        check(bh_reached_read(bh_buf_slice(&once), &r) == BH_OK);
        check(bh_reached_write(&r, &twice) == BH_OK);
        check(bh_slice_eq(bh_buf_slice(&once), bh_buf_slice(&twice)));
    }
    return 0;
}
