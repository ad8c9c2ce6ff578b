/* Any octets: decoding never reads past them, and what decodes encodes to a record that decodes to
 * the same, and encodes to the same octets again. */
#include <stdlib.h>

#include "bh/decision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_decision first;
    struct bh_decision second;
    static char a[BH_DECISION_MAX];
    static char b[BH_DECISION_MAX];
    struct bh_buf once = bh_buf(a, sizeof(a));
    struct bh_buf twice = bh_buf(b, sizeof(b));
    if (bh_decision_decode(bh_slice(data, size), &first) != BH_OK) {
        return 0;
    }
    if (bh_decision_encode(&first, &once) != BH_OK ||
        bh_decision_decode(bh_buf_slice(&once), &second) != BH_OK ||
        bh_decision_encode(&second, &twice) != BH_OK ||
        !bh_slice_eq(bh_buf_slice(&once), bh_buf_slice(&twice)) ||
        second.time_unix_ms != first.time_unix_ms || second.hosts_count != first.hosts_count ||
        second.outcome.happened != first.outcome.happened) {
        abort();
    }
    return 0;
}
