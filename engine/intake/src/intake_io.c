/* Octets of one session: socket, TLS and core in between. Ciphertext is all fed at once; plain text
 * comes out of TLS a buffer at a time, as the core takes it. Replies are short, and go out at once
 * where the socket takes them. */
#include <openssl/crypto.h>
#include <stdlib.h>

#include "bh/log.h"
#include "intake_internal.h"

struct write {
    uv_write_t request;
    struct session *session;
    char octets[];
};

size_t io_queued(const struct session *s)
{
    return uv_stream_get_write_queue_size(&s->u.stream);
}

/* --- reading --- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct session *s = handle->data;
    struct buffer *buffer = pool_get(&s->intake->reads);
    *buf = buffer == NULL ? uv_buf_init(NULL, 0) : uv_buf_init(buffer->octets, (unsigned)READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct session *s = stream->data;
    struct buffer *buffer =
        buf->base == NULL ? NULL
                          : (struct buffer *)(void *)(buf->base - offsetof(struct buffer, octets));
    if (count > 0 && buffer != NULL) { /* there is nothing to read into without one */
        buffer->len = (size_t)count;
        session_on_read(s, buffer);
        if ((size_t)count == READ_SIZE && s->stage != STAGE_CLOSED) {
            turn_wait(s); /* There is more, and libuv would read on. */
            io_update_reading(s);
        }
        return;
    }
    pool_put(&s->intake->reads, buffer);
    if (count < 0) {
        session_on_eof(s);
    }
}

static bool wants(const struct session *s)
{
    if (s->waits_turn) {
        return false;
    }
    switch (s->stage) {
    case STAGE_PROXY:
    case STAGE_TLS:
    case STAGE_LINGER:
        return true;
    case STAGE_CLOSED:
        return false;
    case STAGE_SMTP:
        break;
    }
    const bool shaking = s->tls != NULL && bh_tls_state(s->tls) == BH_TLS_SHAKING;
    return shaking || (!s->closing && s->lent == NULL && s->pending.len == 0 &&
                       bh_server_wants_input(&s->server) && io_queued(s) < WRITE_QUEUE_MAX);
}

void io_update_reading(struct session *s)
{
    const bool want = wants(s);
    if (want == s->reading) {
        return;
    }
    s->reading = want;
    if (!want) {
        uv_read_stop(&s->u.stream);
    } else if (uv_read_start(&s->u.stream, on_alloc, on_read) != 0) {
        session_close(s);
    }
}

void io_give_back(struct session *s)
{
    if (s->lent != NULL && s->lent_secret) {
        OPENSSL_cleanse(s->lent->octets, s->lent->len);
    }
    s->lent_secret = false;
    pool_put(&s->intake->reads, s->lent);
    s->lent = NULL;
}

void io_release(struct session *s)
{
    if (s->lent != NULL && s->server.in.len == 0 && s->pending.len == 0) {
        io_give_back(s);
    }
}

bool io_next_plain(struct session *s)
{
    if (s->tls == NULL || s->lent != NULL || !bh_server_wants_input(&s->server)) {
        return false;
    }
    struct buffer *buffer = pool_get(&s->intake->reads);
    if (buffer == NULL) {
        return false;
    }
    struct bh_buf plain = bh_buf(buffer->octets, READ_SIZE);
    const enum bh_status status = bh_tls_read(s->tls, &plain);
    if (plain.len == 0) {
        pool_put(&s->intake->reads, buffer);
        if (status == BH_EPROTO) {
            session_on_eof(s);
        }
        return false;
    }
    buffer->len = plain.len;
    s->lent = buffer;
    bh_server_on_bytes(&s->server, bh_buf_slice(&plain), intake_now());
    return true;
}

/* --- writing --- */

static void on_written(uv_write_t *request, int status)
{
    struct write *write = BH_CONTAINER(request, struct write, request);
    struct session *s = write->session;
    free(write);
    s->progress_ms = intake_now().mono_ms;
    if (status != 0) {
        session_close(s);
    } else {
        session_pump(s);
    }
}

static bool send_raw(struct session *s, struct bh_slice bytes)
{
    if (io_queued(s) == 0) {
        char *base = NULL;
        memcpy(&base, &bytes.ptr, sizeof(base)); /* uv_buf_t has no const; nothing is written. */
        const uv_buf_t now = uv_buf_init(base, (unsigned)bytes.len);
        const int sent = uv_try_write(&s->u.stream, &now, 1);
        if (sent < 0 && sent != UV_EAGAIN) {
            return false;
        }
        bytes = bh_slice_skip(bytes, sent > 0 ? (size_t)sent : 0);
        s->progress_ms = intake_now().mono_ms;
    }
    if (bytes.len == 0) {
        return true;
    }
    struct write *write = malloc(sizeof(*write) + bytes.len);
    if (write == NULL) {
        return false;
    }
    memcpy(write->octets, bytes.ptr, bytes.len);
    write->session = s;
    const uv_buf_t rest = uv_buf_init(write->octets, (unsigned)bytes.len);
    if (uv_write(&write->request, &s->u.stream, &rest, 1, on_written) != 0) {
        free(write);
        return false;
    }
    return true;
}

/* What TLS has to say: replies, and its own handshake. */
static bool send_cipher(struct session *s)
{
    char storage[16384];
    bool good = true;
    while (good && bh_tls_pending(s->tls) > 0) {
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        if (bh_tls_take(s->tls, &out) == 0) {
            break;
        }
        good = send_raw(s, bh_buf_slice(&out));
    }
    return good;
}

bool io_send(struct session *s, struct bh_slice bytes)
{
    bool good;
    if (s->tls == NULL) {
        good = send_raw(s, bytes);
    } else {
        good = (bytes.len == 0 || bh_tls_write(s->tls, bytes) == BH_OK) && send_cipher(s);
    }
    if (!good) {
        session_close(s);
    }
    return good;
}

bool io_start_tls(struct session *s)
{
    BH_ASSERT(s->tls == NULL && s->lent == NULL);
    s->tls = s->listener->tls == NULL ? NULL : bh_tls_server_create(s->listener->tls);
    if (s->tls == NULL) {
        bh_log(BH_LOG_ERROR, "evt=tls-failed listen=%s reason=\"no context\"", s->listener->text);
        session_close(s);
    }
    return s->tls != NULL;
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct session *s = request->data;
    if (status != 0) {
        session_close(s);
    }
}

void io_linger(struct session *s)
{
    if (s->tls != NULL && bh_tls_state(s->tls) == BH_TLS_UP) {
        bh_tls_shutdown(s->tls);
        if (!io_send(s, BH_EMPTY)) {
            return;
        }
    }
    s->stage = STAGE_LINGER;
    s->preamble_deadline_ms = intake_now().mono_ms + LINGER_TIMEOUT_MS;
    s->shutdown.data = s;
    if (uv_shutdown(&s->shutdown, &s->u.stream, on_shutdown) != 0) {
        session_close(s);
        return;
    }
    io_update_reading(s);
    session_arm(s);
}
