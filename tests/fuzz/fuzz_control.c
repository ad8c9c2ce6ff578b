/* Any octets as a stream of requests, whole and octet by octet: the same lines come out, and each
 * is either a request or an error with words, the same every time. */
#include <stdlib.h>

#include "bh/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A digest of all that was parsed from the stream in pieces of `step`. */
static uint64_t parse_all(struct bh_slice in, size_t step)
{
    static char storage[4096];
    struct bh_control_lines lines = {.buf = bh_buf(storage, sizeof(storage))};
    uint64_t digest = 0;
    while (true) {
        struct bh_slice line;
        const enum bh_status status = bh_control_lines_next(&lines, &line);
        if (status == BH_MORE && in.len > 0) {
            in = bh_slice_skip(in, bh_buf_add_cut(&lines.buf, bh_slice_take(in, step)));
            continue;
        }
        if (status != BH_OK) {
            return digest + (status == BH_ELIMIT ? 1 : 0);
        }
        struct bh_control_request request;
        struct bh_control_error error;
        if (bh_control_parse(line, 1795472707123, &request, &error) == BH_OK) {
            digest = bh_hash(request.reason, digest + request.verb + request.selection.id_count);
            if (bh_control_verb_is_view(request.verb) && request.dry_run) {
                abort(); /* Views take no such argument. */
            }
            bh_control_request_fini(&request);
        } else if (error.what[0] == 0) {
            abort();
        } else {
            digest = bh_hash(bh_slice_str(error.what), digest);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bh_slice in = bh_slice(data, size);
    if (parse_all(in, SIZE_MAX) != parse_all(in, 1)) {
        abort();
    }
    return 0;
}
