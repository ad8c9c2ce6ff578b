#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <idn2.h>

#include "bh/log.h"
#include "intake_internal.h"

#define BACKLOG 1024
#define ANSWERS_MAX 65536 /* letters; answers are bounded by the messages, which sessions bound */

struct bh_now intake_now(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct bh_now){uv_hrtime() / 1000000,
                           (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000};
}

/* --- buffers --- */

struct buffer *pool_get(struct pool *pool)
{
    struct buffer *buffer = pool->spare;
    if (buffer != NULL) {
        pool->spare = buffer->next;
        pool->spare_count--;
    } else {
        buffer = malloc(sizeof(*buffer) + pool->size);
    }
    if (buffer != NULL) {
        buffer->next = NULL;
        buffer->len = 0;
    }
    return buffer;
}

void pool_put(struct pool *pool, struct buffer *buffer)
{
    if (buffer == NULL) {
        return;
    }
    if (pool->spare_count >= SPARE_BUFFERS_MAX) {
        free(buffer);
        return;
    }
    buffer->next = pool->spare;
    pool->spare = buffer;
    pool->spare_count++;
}

void pool_fini(struct pool *pool)
{
    while (pool->spare != NULL) {
        struct buffer *buffer = pool->spare;
        pool->spare = buffer->next;
        free(buffer);
    }
    pool->spare_count = 0;
}

/* U-labels by IDNA 2008. What it lets through that is no host name, the caller finds. */
bool intake_to_ascii(void *ctx, struct bh_slice domain, struct bh_buf *ascii)
{
    (void)ctx;
    char name[BH_DOMAIN_MAX + 1];
    uint8_t *converted = NULL;
    if (domain.len > BH_DOMAIN_MAX || memchr(domain.ptr, '\0', domain.len) != NULL) {
        return false;
    }
    memcpy(name, domain.ptr, domain.len);
    name[domain.len] = '\0';
    const int flags = IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL | IDN2_USE_STD3_ASCII_RULES;
    if (idn2_lookup_u8((const uint8_t *)name, &converted, flags) != IDN2_OK) {
        return false;
    }
    const bool fits = bh_buf_add(ascii, bh_slice_str((const char *)converted)) == BH_OK;
    idn2_free(converted);
    return fits;
}

/* --- answers of the store --- */

/* The store's writer, or whoever posted into the empty mailbox. */
static void ring(void *ctx)
{
    struct bh_intake *intake = ctx;
    uv_async_send(&intake->doorbell);
}

static void on_doorbell(uv_async_t *async)
{
    struct bh_intake *intake = async->data;
    struct bh_letter *letter = bh_mailbox_take_all(intake->mailbox);
    while (letter != NULL) {
        struct bh_letter *next = letter->next;
        BH_ASSERT(intake->tasks > 0);
        intake->tasks--;
        message_on_answer(letter);
        letter = next;
    }
    intake_check_drained(intake);
}

/* --- ending --- */

void intake_check_drained(struct bh_intake *intake)
{
    if (intake->draining && intake->session_count == 0 && intake->tasks == 0 &&
        intake->drained != NULL) {
        void (*drained)(void *ctx) = intake->drained;
        intake->drained = NULL;
        drained(intake->drained_ctx);
    }
}

void intake_release(struct bh_intake *intake)
{
    if (intake->handles > 0 || !intake->destroyed) {
        return;
    }
    for (size_t i = 0; i < intake->listener_count; i++) {
        bh_tls_server_ctx_destroy(intake->listeners[i].tls);
        bh_config_unref(intake->listeners[i].config);
    }
    free(intake->listeners);
    bh_mailbox_destroy(intake->mailbox);
    pool_fini(&intake->reads);
    pool_fini(&intake->blocks);
    free(intake);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    listener->intake->handles--;
    intake_release(listener->intake);
}

static void on_own_closed(uv_handle_t *handle)
{
    struct bh_intake *intake = handle->data;
    intake->handles--;
    intake_release(intake);
}

static void close_listeners(struct bh_intake *intake)
{
    for (size_t i = 0; i < intake->listener_count; i++) {
        if (intake->listeners[i].open) {
            intake->listeners[i].open = false;
            uv_close(&intake->listeners[i].u.handle, on_listener_closed);
        }
    }
}

void bh_intake_drain(struct bh_intake *intake, void (*drained)(void *ctx), void *ctx)
{
    close_listeners(intake);
    intake->draining = true;
    intake->drained = drained;
    intake->drained_ctx = ctx;
    for (struct session *s = intake->sessions; s != NULL;) {
        struct session *next = s->next; /* A session may go while it drains, no other does. */
        session_drain(s);
        s = next;
    }
    intake_check_drained(intake);
}

void bh_intake_cut(struct bh_intake *intake)
{
    BH_ASSERT(intake->draining);
    for (struct session *s = intake->sessions; s != NULL;) {
        struct session *next = s->next;
        session_close(s);
        s = next;
    }
}

void bh_intake_destroy(struct bh_intake *intake)
{
    if (intake == NULL) {
        return;
    }
    BH_ASSERT(intake->session_count == 0 && intake->tasks == 0);
    while (atomic_load(&intake->ringing) > 0) {
        sched_yield(); /* The store's thread is a few instructions from having rung. */
    }
    close_listeners(intake);
    intake->destroyed = true;
    uv_close((uv_handle_t *)&intake->doorbell, on_own_closed);
    intake->turns.idle.data = intake; /* Nobody waits any more. */
    uv_close((uv_handle_t *)&intake->turns.idle, on_own_closed);
    uv_close((uv_handle_t *)&intake->full_timer, on_own_closed);
    uv_close((uv_handle_t *)&intake->files_timer, on_own_closed);
}

/* --- starting --- */

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = stream->data;
    if (status < 0) {
        bh_log(BH_LOG_WARN, "evt=accept-failed listen=%s reason=\"%s\"", listener->text,
               uv_strerror(status));
        return;
    }
    session_accept(listener);
}

const struct bh_listen_config *intake_find_listen(const struct bh_config *config,
                                                  struct bh_slice text)
{
    for (size_t i = 0; i < config->listens_count; i++) {
        if (bh_slice_eq(config->listens[i].text, text)) {
            return &config->listens[i];
        }
    }
    return NULL;
}

static int open_listener(struct listener *listener, int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        close(fd);
        return UV_EINVAL;
    }
    uv_loop_t *loop = listener->intake->params.loop;
    listener->is_pipe = address.ss_family == AF_UNIX;
    int status = listener->is_pipe ? uv_pipe_init(loop, &listener->u.pipe, 0)
                                   : uv_tcp_init(loop, &listener->u.tcp);
    if (status != 0) {
        close(fd);
        return status;
    }
    listener->open = true;
    listener->u.handle.data = listener;
    listener->intake->handles++;
    status =
        listener->is_pipe ? uv_pipe_open(&listener->u.pipe, fd) : uv_tcp_open(&listener->u.tcp, fd);
    if (status != 0) {
        close(fd);
        return status;
    }
    return uv_listen(&listener->u.stream, BACKLOG, on_connection);
}

static enum bh_status start_listener(struct bh_intake *intake,
                                     const struct bh_intake_listener *wanted,
                                     struct listener *listener, struct bh_buf *error)
{
    listener->intake = intake;
    struct bh_buf text = bh_buf(listener->text, sizeof(listener->text) - 1);
    const struct bh_config *config = intake->params.hooks.config(intake->params.hooks.ctx);
    listener->config = config;
    listener->settings = intake_find_listen(config, wanted->text);
    if (listener->settings == NULL || bh_buf_add(&text, wanted->text) != BH_OK) {
        bh_buf_add_cut(error, BH_LIT("no such listener in the configuration: "));
        bh_buf_add_cut(error, wanted->text);
        close(wanted->fd);
        return BH_EINVAL;
    }
    enum bh_status status = files_load_tls(listener->settings, &listener->tls, error);
    if (status == BH_OK && listener->settings->auth_file.len > 0) {
        listener->auth = shared_auth_source(intake->params.shared, listener->settings->auth_file);
        status = listener->auth == NULL ? BH_ENOMEM : BH_OK;
    }
    if (status != BH_OK) {
        close(wanted->fd);
        return status;
    }
    const int opened = open_listener(listener, wanted->fd);
    if (opened != 0) {
        bh_buf_add_cut(error, wanted->text);
        bh_buf_add_cut(error, BH_LIT(": "));
        bh_buf_add_cut(error, bh_slice_str(uv_strerror(opened)));
        return BH_EIO;
    }
    return BH_OK;
}

static enum bh_status start_all(struct bh_intake *intake, struct bh_buf *error)
{
    const struct bh_intake_params *params = &intake->params;
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < params->listener_count; i++) {
        if (status == BH_OK) {
            intake->listener_count = i + 1;
            status = start_listener(intake, &params->listeners[i], &intake->listeners[i], error);
        } else {
            close(params->listeners[i].fd);
        }
    }
    return status;
}

static struct bh_intake *allocate(const struct bh_intake_params *params)
{
    struct bh_intake *intake = calloc(1, sizeof(*intake));
    if (intake == NULL) {
        return NULL;
    }
    intake->params = *params;
    intake->reads.size = READ_SIZE;
    intake->blocks.size = BLOCK_SIZE;
    intake->listeners =
        calloc(params->listener_count > 0 ? params->listener_count : 1, sizeof(struct listener));
    intake->mailbox = bh_mailbox_create(ANSWERS_MAX, SIZE_MAX, ring, intake);
    if (intake->listeners == NULL || intake->mailbox == NULL ||
        uv_async_init(params->loop, &intake->doorbell, on_doorbell) != 0) {
        bh_mailbox_destroy(intake->mailbox);
        free(intake->listeners);
        free(intake);
        return NULL;
    }
    uv_timer_init(params->loop, &intake->full_timer);
    uv_timer_init(params->loop, &intake->files_timer);
    turns_init(&intake->turns, params->loop);
    intake->handles = 4;
    intake->doorbell.data = intake;
    intake->full_timer.data = intake;
    intake->files_timer.data = intake;
    return intake;
}

enum bh_status bh_intake_create(const struct bh_intake_params *params, struct bh_intake **intake,
                                struct bh_buf *error)
{
    const struct bh_slice hostname =
        params->hostname.len > 0 ? params->hostname : BH_LIT("localhost");
    BH_ASSERT(hostname.len <= BH_DOMAIN_MAX);
    BH_ASSERT(params->hooks.config != NULL);
    struct bh_intake *made = allocate(params);
    if (made == NULL) {
        for (size_t i = 0; i < params->listener_count; i++) {
            close(params->listeners[i].fd);
        }
        return BH_ENOMEM;
    }
    if (made->params.content_max == 0) {
        made->params.content_max = CONTENT_MAX_DEFAULT;
    }
    memcpy(made->hostname, hostname.ptr, hostname.len);
    made->params.hostname = bh_slice(made->hostname, hostname.len);
    const enum bh_status status = start_all(made, error);
    made->params.listeners = NULL; /* The caller's, for this call only. */
    if (status != BH_OK) {
        bh_intake_destroy(made);
        return status;
    }
    files_watch(made);
    *intake = made;
    return BH_OK;
}

/* --- whether new mail is taken --- */

enum bh_server_gate intake_gate(const struct bh_intake *intake)
{
    if (intake->gate != BH_SERVER_GATE_OPEN) {
        return intake->gate;
    }
    return intake->full ? BH_SERVER_GATE_FULL : BH_SERVER_GATE_OPEN;
}

static void tell_sessions(struct bh_intake *intake)
{
    for (struct session *s = intake->sessions; s != NULL; s = s->next) {
        if (s->server_ready) {
            bh_server_set_gate(&s->server, intake_gate(intake));
        }
    }
}

static void on_full_timer(uv_timer_t *timer)
{
    struct bh_intake *intake = timer->data;
    const struct bh_intake_hooks *hooks = &intake->params.hooks;
    if (hooks->has_room != NULL && !hooks->has_room(hooks->ctx)) {
        return;
    }
    uv_timer_stop(timer);
    intake->full = false;
    bh_log(BH_LOG_INFO, "evt=intake-room reason=\"the queue has space again\"");
    tell_sessions(intake);
}

void intake_set_full(struct bh_intake *intake)
{
    if (intake->full) {
        return;
    }
    intake->full = true;
    bh_log(BH_LOG_WARN,
           "evt=intake-full reason=\"no space in the queue: new mail gets 452 4.3.1\"");
    uv_timer_start(&intake->full_timer, on_full_timer, FULL_CHECK_MS, FULL_CHECK_MS);
    tell_sessions(intake);
}

void bh_intake_set_gate(struct bh_intake *intake, enum bh_server_gate gate)
{
    intake->gate = gate;
    tell_sessions(intake);
}

void bh_intake_stats(const struct bh_intake *intake, struct bh_intake_stats *stats)
{
    *stats = intake->stats;
    stats->sessions = intake->session_count;
    stats->content_bytes = intake->content_bytes;
}
