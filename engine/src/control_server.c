#include "control_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"
#include "probe.h"

#define CONNS_BACKLOG 64
#define STRANGERS_MAX 16 /* told one thing each, why they are refused */

struct conn {
    uv_pipe_t pipe;
    uv_write_t write;
    struct control_server *server;
    struct conn *next, *prev;
    struct bh_control_lines lines;
    char storage[BH_CONTROL_LINE_MAX];
    struct bh_control_reply *reply; /* under way */
    enum control_right right;
    bool writing, closing;
    struct bh_control_reply *flushing; /* whose octets the write under way sends */
    char *sending;                     /* of the write under way */
};

struct bh_now control_now(struct control_server *server)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (struct bh_now){.mono_ms = uv_now(&server->daemon->loop),
                           .unix_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000};
}

int reply_socket(const struct bh_control_reply *reply)
{
    uv_os_fd_t fd = -1;
    return reply->conn != NULL &&
                   uv_fileno((const uv_handle_t *)(const void *)&reply->conn->pipe, &fd) == 0
               ? fd
               : -1;
}

/* ---- connections ---- */

static void on_conn_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    free(c->sending);
    free(c);
}

/* A reply that is under way with the store or the engine lets go of its connection. */
static void close_conn(struct conn *c)
{
    if (c->closing) {
        return;
    }
    c->closing = true;
    c->server->strangers -= c->right == CONTROL_NOTHING ? 1 : 0;
    if (c->reply != NULL) {
        c->reply->conn = NULL;
        c->reply = NULL;
    }
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        c->server->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    uv_close((uv_handle_t *)&c->pipe, on_conn_closed);
}

static void serve_lines(struct conn *c);

static void on_written(uv_write_t *write, int status)
{
    struct conn *c = write->data;
    c->writing = false;
    free(c->sending);
    c->sending = NULL;
    struct bh_control_reply *reply = c->flushing;
    c->flushing = NULL;
    if (status != 0 || c->right == CONTROL_NOTHING) {
        close_conn(c);
    }
    if (reply != NULL) {
        reply->written(reply); /* also when its client has gone: it has to end */
    } else if (!c->closing) {
        serve_lines(c);
    }
}

/* ---- replies ---- */

struct bh_control_reply *reply_create(struct control_server *server, struct conn *conn)
{
    struct bh_control_reply *reply = calloc(1, sizeof(*reply));
    if (reply != NULL) {
        reply->server = server;
        reply->conn = conn;
        reply->now = control_now(server);
        reply->next = server->replies;
        if (reply->next != NULL) {
            reply->next->prev = reply;
        }
        server->replies = reply;
    }
    return reply;
}

static void reply_destroy(struct bh_control_reply *reply)
{
    if (reply->conn != NULL && reply->conn->reply == reply) {
        reply->conn->reply = NULL;
    }
    if (reply->prev != NULL) {
        reply->prev->next = reply->next;
    } else {
        reply->server->replies = reply->next;
    }
    if (reply->next != NULL) {
        reply->next->prev = reply->prev;
    }
    if (reply->has_request) {
        bh_control_request_fini(&reply->request);
    }
    if (reply->has_notifier) {
        notifier_fini(&reply->notifier);
    }
    bh_view_destroy(reply->view);
    control_count_fini(reply);
    free(reply->snapshot);
    bh_config_unref(reply->next_config);
    bh_config_unref(reply->former_config);
    probe_destroy(reply->probe);
    free(reply->out.ptr);
    free(reply);
}

/* Room for an answer line of this length. */
static bool make_room(struct bh_control_reply *reply, size_t len)
{
    const size_t need = reply->out.len + len + 64;
    if (need > reply->out.cap) {
        const size_t cap = need * 2;
        char *ptr = realloc(reply->out.ptr, cap);
        if (ptr == NULL) {
            reply->lost = true;
            return false;
        }
        reply->out.ptr = ptr;
        reply->out.cap = cap;
    }
    return true;
}

void reply_row(struct bh_control_reply *reply, struct bh_slice object)
{
    if (reply->conn != NULL && make_room(reply, object.len) &&
        bh_control_put_row(&reply->out, object) != BH_OK) {
        reply->lost = true;
    }
}

void reply_flush(struct bh_control_reply *reply, void (*written)(struct bh_control_reply *reply))
{
    struct conn *c = reply->conn;
    reply->written = written;
    if (c == NULL || reply->out.len == 0) {
        reply->out.len = 0;
        written(reply);
        return;
    }
    BH_ASSERT(!c->writing);
    uv_buf_t buf = uv_buf_init(reply->out.ptr, (unsigned)reply->out.len);
    c->sending = reply->out.ptr;
    reply->out = (struct bh_buf){0};
    c->writing = true;
    c->flushing = reply;
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) != 0) {
        c->writing = false;
        c->flushing = NULL;
        close_conn(c);
        written(reply);
    }
}

static void ended(struct bh_control_reply *reply)
{
    struct conn *c = reply->conn;
    reply_destroy(reply);
    if (c != NULL && !c->closing && !c->writing) {
        serve_lines(c);
    }
}

void reply_end(struct bh_control_reply *reply, struct bh_slice object)
{
    if (reply->lost) {
        reply_error(reply, "the daemon had no memory for the whole answer", "ask for less");
        return;
    }
    if (reply->conn != NULL && make_room(reply, object.len)) {
        const enum bh_status status = bh_control_put_end(&reply->out, object);
        BH_ASSERT(status == BH_OK);
    }
    reply_flush(reply, ended);
}

void reply_error(struct bh_control_reply *reply, const char *what, const char *hint)
{
    struct bh_control_error error = {{0}, {0}};
    struct bh_buf what_buf = bh_buf(error.what, sizeof(error.what) - 1);
    struct bh_buf hint_buf = bh_buf(error.hint, sizeof(error.hint) - 1);
    bh_buf_add_cut(&what_buf, bh_slice_str(what));
    bh_buf_add_cut(&hint_buf, bh_slice_str(hint));
    reply->lost = false;
    if (reply->conn == NULL) {
        bh_log(BH_LOG_ERROR, "evt=%s error=\"%s\"",
               reply->request.verb == BH_VERB_RELOAD ? "reload_refused" : "control_failed", what);
    } else if (make_room(reply, 2048) && bh_control_put_error(&reply->out, &error) != BH_OK) {
        close_conn(reply->conn);
    }
    reply_flush(reply, ended);
}

/* ---- work elsewhere ---- */

static void done_task(struct bh_store_task *task, enum bh_status status)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    reply->status = status;
    daemon_call(reply->server->daemon, &reply->call);
}

void reply_write(struct bh_control_reply *reply,
                 enum bh_status (*run)(struct bh_store_task *, struct bh_queue *,
                                       struct bh_kv_txn *),
                 void (*then)(struct daemon_call *, struct daemon *))
{
    reply->call.run = then;
    reply->now = control_now(reply->server);
    reply->task = (struct bh_store_task){.run = run,
                                         .done = done_task,
                                         .dirty_bytes = (size_t)1 << 20,
                                         .urgent = true,
                                         .removal = true,
                                         .atomic = true};
    bh_store_write_always(reply->server->daemon->store, &reply->task);
}

void reply_read(struct bh_control_reply *reply,
                enum bh_status (*run)(struct bh_store_task *, struct bh_queue *,
                                      struct bh_kv_txn *),
                void (*then)(struct daemon_call *, struct daemon *))
{
    reply->call.run = then;
    reply->task = (struct bh_store_task){.run = run, .done = done_task};
    if (bh_store_read(reply->server->daemon->store, &reply->task) != BH_OK) {
        reply_error(reply, "too much waits for the store", "try again");
    }
}

/* ---- requests ---- */

static void on_request(struct conn *c, struct bh_slice line)
{
    struct bh_control_error error;
    struct bh_control_reply *reply = reply_create(c->server, c);
    if (reply == NULL) {
        close_conn(c);
        return;
    }
    c->reply = reply;
    const enum bh_status status =
        bh_control_parse(line, reply->now.unix_ms, &reply->request, &error);
    if (status != BH_OK) {
        reply_error(reply, status == BH_EPROTO ? error.what : "no memory",
                    status == BH_EPROTO ? error.hint : "");
        return;
    }
    reply->has_request = true;
    if (c->right == CONTROL_NOTHING ||
        (c->right == CONTROL_LOOK && bh_control_needs_act(&reply->request))) {
        control_refusal(&reply->request, c->right, &c->server->groups, &error);
        bh_log(BH_LOG_INFO, "evt=control_refused verb=%s",
               bh_control_verb_name(reply->request.verb));
        reply_error(reply, error.what, error.hint);
        return;
    }
    bh_control_dispatch(&control_ops, c->server, &reply->request, reply);
}

/* One request at a time: the next is looked at when the answer is written. */
static void serve_lines(struct conn *c)
{
    struct bh_slice line;
    while (!c->closing && c->reply == NULL && !c->writing) {
        const enum bh_status status = bh_control_lines_next(&c->lines, &line);
        if (status == BH_MORE) {
            return;
        }
        if (status != BH_OK) {
            close_conn(c);
            return;
        }
        on_request(c, line);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = handle->data;
    (void)suggested;
    *buf = uv_buf_init(c->lines.buf.ptr + c->lines.buf.len, (unsigned)bh_buf_room(&c->lines.buf));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    (void)buf;
    if (count < 0) {
        close_conn(c);
        return;
    }
    c->lines.buf.len += (size_t)count;
    serve_lines(c);
}

static enum control_right right_of(const struct conn *c)
{
    uv_os_fd_t fd = -1;
    (void)uv_fileno((const uv_handle_t *)(const void *)&c->pipe, &fd);
    return control_right_of(fd, &c->server->groups);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct control_server *server = listener->data;
    if (status != 0) {
        return;
    }
    struct conn *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        size_t i = 0;
        while ((uv_stream_t *)server->listeners[i] != listener) {
            i++;
        }
        (void)bh_refuse(&server->refusals[i], listener, NULL, NULL);
        return;
    }
    c->server = server;
    c->right = CONTROL_LOOK; /* until it is known: not counted */
    c->lines.buf = bh_buf(c->storage, sizeof(c->storage));
    uv_pipe_init(&server->daemon->loop, &c->pipe, 0);
    c->pipe.data = c;
    c->next = server->conns;
    if (server->conns != NULL) {
        server->conns->prev = c;
    }
    server->conns = c;
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) != 0) {
        close_conn(c);
        return;
    }
    c->right = right_of(c);
    server->strangers += c->right == CONTROL_NOTHING ? 1 : 0;
    if (server->strangers > STRANGERS_MAX ||
        uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read) != 0) {
        close_conn(c);
    }
}

/* ---- life ---- */

static enum bh_status listen_on(struct control_server *server, struct bh_slice path)
{
    char text[sizeof(((struct sockaddr_un *)0)->sun_path)];
    if (path.len >= sizeof(text)) {
        bh_log(BH_LOG_ERROR, "evt=control_failed path=%.*s error=\"the path is too long\"",
               BH_FMT(path));
        return BH_EIO;
    }
    memcpy(text, path.ptr, path.len);
    text[path.len] = '\0';
    uv_pipe_t *pipe = calloc(1, sizeof(*pipe));
    if (pipe == NULL) {
        return BH_ENOMEM;
    }
    uv_pipe_init(&server->daemon->loop, pipe, 0);
    pipe->data = server;
    server->paths[server->listener_count] = strdup(text);
    server->listeners[server->listener_count++] = pipe;
    /* A stale socket of a dead daemon: the queue's lock has shown that no other runs. */
    struct stat info;
    if (lstat(text, &info) == 0 && S_ISSOCK(info.st_mode)) {
        unlink(text);
    }
    const mode_t mask = umask(0117);
    int error = uv_pipe_bind(pipe, text);
    umask(mask);
    if (error == 0) {
        control_set_mode(text, &server->groups);
        error = uv_listen((uv_stream_t *)pipe, CONNS_BACKLOG, on_connection);
    }
    if (error != 0) {
        bh_log(BH_LOG_ERROR, "evt=control_failed path=%s error=\"%s\"", text, uv_strerror(error));
        return BH_EIO;
    }
    return BH_OK;
}

void control_take_groups(struct control_server *server, const struct bh_config *config)
{
    struct bh_config_errors errors;
    struct control_groups groups;
    bh_config_errors_init(&errors);
    if (control_groups_find(config, &groups, &errors)) { /* it was when the file was loaded */
        server->groups = groups;
    }
    bh_config_errors_fini(&errors);
    for (size_t i = 0; i < server->listener_count; i++) {
        if (server->paths[i] != NULL) {
            control_set_mode(server->paths[i], &server->groups);
        }
    }
}

enum bh_status control_server_create(struct daemon *d, struct control_server **result)
{
    struct control_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return BH_ENOMEM;
    }
    server->daemon = d;
    server->generation = 1;
    *result = server;
    const struct bh_config *config = config_cell_get(&d->cell);
    enum bh_status status = BH_OK;
    control_take_groups(server, config);
    const struct bh_names *paths = &config->engine.control;
    for (size_t i = 0; status == BH_OK && i < paths->count && i < BH_COUNT(server->listeners);
         i++) {
        status = listen_on(server, paths->at[i]);
    }
    bh_config_unref(config);
    if (status == BH_OK) {
        control_resume_jobs(server);
    }
    return status;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

void control_server_destroy(struct control_server *server)
{
    if (server == NULL) {
        return;
    }
    server->closing = true;
    for (size_t i = 0; i < server->listener_count; i++) {
        uv_close((uv_handle_t *)server->listeners[i], free_handle);
        free(server->paths[i]);
    }
    server->listener_count = 0;
    while (server->conns != NULL) {
        close_conn(server->conns);
    }
}

void control_server_free(struct control_server *server)
{
    if (server == NULL) {
        return;
    }
    while (server->replies != NULL) {
        /* The first has none before it, so the next takes its place. */
        reply_destroy(server->replies); /* NOLINT(clang-analyzer-unix.Malloc) */
    }
    free(server);
}

void control_reload(struct control_server *server)
{
    struct bh_control_reply *reply = reply_create(server, NULL);
    if (reply != NULL) {
        reply->request.verb = BH_VERB_RELOAD;
        control_op_reload(server, &reply->request, reply);
    }
}
