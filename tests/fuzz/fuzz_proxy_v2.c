/* Property: the answer for a stream never changes once it is not "more", however the stream is cut.
 */
#include "bh/proxy_v2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_proxy_v2 whole = {0};
    const enum bh_status status = bh_proxy_v2_parse(bh_slice(data, size), &whole);
    BH_ASSERT(status != BH_OK || (whole.len <= size && whole.len <= BH_PROXY_V2_MAX));
    for (size_t len = 0; len <= size && len <= BH_PROXY_V2_MAX + 1; len++) {
        struct bh_proxy_v2 part = {0};
        const enum bh_status early = bh_proxy_v2_parse(bh_slice(data, len), &part);
        if (early != BH_MORE) {
            BH_ASSERT(early == status);
            BH_ASSERT(early != BH_OK || part.len == whole.len);
            BH_ASSERT(early != BH_OK || bh_ip_eq(&part.client, &whole.client));
            return 0;
        }
    }
    BH_ASSERT(status == BH_MORE);
    return 0;
}
