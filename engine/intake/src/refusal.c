#include "bh/refusal.h"

static void take(struct bh_refusal *r);

static void on_closed(uv_handle_t *handle)
{
    struct bh_refusal *r = handle->data;
    r->busy = false;
    if (r->again && !uv_is_closing((const uv_handle_t *)r->listener)) {
        take(r);
    } else if (r->free != NULL) {
        r->free(r->ctx);
    }
}

static void take(struct bh_refusal *r)
{
    uv_loop_t *loop = r->listener->loop;
    r->again = false;
    r->busy = true;
    if (r->listener->type == UV_NAMED_PIPE) {
        (void)uv_pipe_init(loop, &r->u.pipe, 0); /* always 0; and so is the other without flags */
    } else {
        (void)uv_tcp_init(loop, &r->u.tcp);
    }
    r->u.handle.data = r;
    (void)uv_accept(r->listener, &r->u.stream); /* where it fails it has closed what waited */
    uv_close(&r->u.handle, on_closed);
}

bool bh_refuse(struct bh_refusal *refusal, uv_stream_t *listener, void (*free)(void *ctx),
               void *ctx)
{
    if (refusal->busy) {
        refusal->again = true;
        return false;
    }
    refusal->listener = listener;
    refusal->free = free;
    refusal->ctx = ctx;
    take(refusal);
    return true;
}
