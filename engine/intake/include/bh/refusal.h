/* refusal.h - a connection that there is no memory for is closed, not left waiting.
 *
 * A connection that a listener's callback does not accept stays with the listener, which then takes
 * no other: libuv stops it until somebody does. So each listener has the room for one more handle,
 * here, in which what can't be served is accepted and closed. No allocation. */
#pragma once

#include <stdbool.h>

#include <uv.h>

/* Zero-initialised is ready. All private. */
struct bh_refusal {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_stream_t *listener;
    bool busy;  /* the last one is being closed */
    bool again; /* another waits for that */
    void (*free)(void *ctx);
    void *ctx;
};

/** In the callback of uv_listen: take what waits, and close it.
 *
 * @param free  called when no handle is open any more; NULL: the room outlives the loop
 * @return false if it was busy: then that goes on, and `free` is called once for both */
bool bh_refuse(struct bh_refusal *refusal, uv_stream_t *listener, void (*free)(void *ctx),
               void *ctx);
