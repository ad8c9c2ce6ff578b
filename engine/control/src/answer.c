/* Answers and lines: both ends of the control socket cut and write them with these. */
#include "bh/control.h"

void bh_control_dispatch(const struct bh_control_ops *ops, void *ctx,
                         const struct bh_control_request *request, struct bh_control_reply *reply)
{
    switch (request->verb) {
    case BH_VERB_STATUS:
    case BH_VERB_QUEUE:
    case BH_VERB_LIST:
    case BH_VERB_SHOW:
    case BH_VERB_WHY:
    case BH_VERB_CONNECTORS:
    case BH_VERB_EXPLAIN:
    case BH_VERB_VERIFY:
    case BH_VERB_AUDIT:
    case BH_VERB_POLICY:
        ops->view(ctx, request, reply);
        return;
    case BH_VERB_FLUSH:
        ops->flush(ctx, request, reply);
        return;
    case BH_VERB_HOLD:
    case BH_VERB_RELEASE:
    case BH_VERB_CANCEL:
    case BH_VERB_BOUNCE:
    case BH_VERB_REQUEUE:
        ops->bulk(ctx, request, reply);
        return;
    case BH_VERB_PAUSE:
    case BH_VERB_RESUME:
        ops->intake(ctx, request->verb == BH_VERB_PAUSE, reply);
        return;
    case BH_VERB_RELOAD:
        ops->reload(ctx, request, reply);
        return;
    case BH_VERB_JOBS:
        ops->jobs(ctx, reply);
        return;
    case BH_VERB_PROBE:
        ops->probe(ctx, request, reply);
        return;
    case BH_VERB_COUNT:
        break;
    }
    BH_ASSERT(false);
}

static enum bh_status put_object(struct bh_buf *out, struct bh_slice before, struct bh_slice object)
{
    const struct bh_slice after = BH_LIT("}\n");
    if (bh_buf_room(out) < before.len + object.len + after.len) {
        return BH_ELIMIT;
    }
    bh_buf_put(out, before);
    bh_buf_put(out, object);
    bh_buf_put(out, after);
    return BH_OK;
}

enum bh_status bh_control_put_row(struct bh_buf *out, struct bh_slice object)
{
    return put_object(out, BH_LIT("{\"row\":"), object);
}

enum bh_status bh_control_put_end(struct bh_buf *out, struct bh_slice object)
{
    return put_object(out, BH_LIT("{\"end\":"), object);
}

enum bh_status bh_control_put_error(struct bh_buf *out, const struct bh_control_error *error)
{
    char text[2 * 6 * sizeof(error->what) + 32]; /* each octet escaped, at worst */
    struct bh_json j = {.buf = bh_buf(text, sizeof(text))};
    bh_json_begin_object(&j);
    bh_json_key(&j, "what");
    bh_json_cstr(&j, error->what);
    bh_json_key(&j, "hint");
    bh_json_cstr(&j, error->hint);
    bh_json_end_object(&j);
    BH_ASSERT(!j.overflow);
    return put_object(out, BH_LIT("{\"error\":"), bh_buf_slice(&j.buf));
}

enum bh_status bh_control_lines_next(struct bh_control_lines *lines, struct bh_slice *line)
{
    bh_buf_consume(&lines->buf, lines->taken);
    lines->taken = 0;
    const struct bh_slice all = bh_buf_slice(&lines->buf);
    const size_t end = bh_slice_find(all, '\n');
    if (end == all.len) {
        return bh_buf_room(&lines->buf) > 0 ? BH_MORE : BH_ELIMIT;
    }
    *line = bh_slice_take(all, end);
    lines->taken = end + 1;
    return BH_OK;
}
