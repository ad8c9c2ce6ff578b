/* Streams of libuv over connections of the simulated network. */
#define _GNU_SOURCE /* struct ucred */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bh/assert.h"
#include "net.h"

#define ACCEPT_MAX 128
#define CUTS_MAX 6 /* of one write */
#define PORT_CONTROL 0

/* Octets on their way to the actor. */
struct packet {
    struct packet *next;
    struct net_conn *conn;
    struct sim_event arrival;
    uint64_t written_us; /* by the daemon */
    size_t len;
    bool fin, rst;
    char octets[];
};

struct write {
    struct write *next;
    uv_write_t *request;
    uv_write_cb done;
    const char *octets; /* the daemon's, until done */
    size_t len;
    uint64_t at_us; /* when it was asked for */
    int status;
};

/* The daemon's end. */
struct stream {
    struct work work; /* first: something to tell the daemon */
    struct stream *next, *prev;
    uv_stream_t *handle;
    struct net_conn *conn; /* NULL: none yet, or not any more */
    uint16_t port;         /* listening */
    bool listening, reading, live;
    uv_connection_cb on_connection;
    struct net_conn *queue[ACCEPT_MAX];
    size_t queued, told;
    uv_alloc_cb on_alloc;
    uv_read_cb on_read;
    uv_connect_t *connect;
    uv_connect_cb on_connect;
    int connect_status;
    bool connect_done;
    struct write *writes, **last_write; /* waiting for the window */
    struct write *written, **last_written;
    size_t write_queue;
    uv_shutdown_t *shutdown;
    uv_shutdown_cb on_shutdown;
    bool shut, shutdown_done;
};

/* One direction: when the line is free again, and when the last octet arrives. */
struct lane {
    uint64_t free_us, last_us;
};

struct net_conn {
    struct net_conn *next, *prev;
    struct stream *stream; /* NULL: closed, or not accepted yet */
    struct net_actor actor;
    struct net_path path;
    struct bh_ip from;
    bool actor_open; /* the actor has not ended it */
    bool dead;       /* a cut line */
    bool paused;
    unsigned holds;
    struct packet *out, **out_last; /* to the actor, in order */
    size_t in_flight;
    struct lane to, in;
    char *rx; /* arrived for the daemon, not read yet */
    size_t rx_len, rx_cap;
    bool rx_fin, rx_rst;
    uint64_t sent, seen; /* by the actor; read by the daemon */
    uint64_t written_us; /* by the daemon: what arrives now */
    size_t arrivals;     /* events on their way to the daemon */
};

static struct stream *streams;
static struct net_conn *conns;
static size_t conn_count;

static void stream_run(struct work *work);

static struct stream *stream_of(const uv_stream_t *handle)
{
    return handle->u.reserved[2];
}

static void tell(struct stream *s)
{
    if (s != NULL) {
        loop_post(&s->work);
    }
}

/* ---- connections ---- */

static struct net_conn *conn_create(const struct net_path *path)
{
    struct net_conn *c = sim_alloc(sizeof(*c));
    *c = (struct net_conn){.next = conns, .path = *path, .actor_open = true, .holds = 1};
    c->out_last = &c->out;
    if (conns != NULL) {
        conns->prev = c;
    }
    conns = c;
    conn_count++;
    return c;
}

void net_hold(struct net_conn *conn)
{
    conn->holds++;
}

void net_release(struct net_conn *c)
{
    if (--c->holds > 0) {
        return;
    }
    while (c->out != NULL) {
        struct packet *p = c->out;
        c->out = p->next;
        sim_event_cancel(&p->arrival);
        sim_free(p);
    }
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    conn_count--;
    sim_free(c->rx);
    sim_free(c);
}

/* When `len` octets that leave now arrive: behind those before them. */
static uint64_t arrival_of(const struct net_path *p, struct lane *lane, size_t len)
{
    const uint64_t now = sim_now_us();
    const uint64_t begin = lane->free_us > now ? lane->free_us : now;
    lane->free_us = begin + (p->bytes_per_s > 0 ? len * SIM_SECOND / p->bytes_per_s : 0);
    uint64_t at = lane->free_us + p->latency_us;
    at += p->jitter_us > 0 ? sim_range(CHANCE_NET, 0, p->jitter_us) : 0;
    lane->last_us = at > lane->last_us ? at : lane->last_us;
    return lane->last_us;
}

/* The size of the next piece of what is sent: sometimes cut anywhere. */
static size_t piece_of(const struct net_path *p, size_t len, unsigned *cuts)
{
    if (len > 1 && *cuts < CUTS_MAX && sim_chance(CHANCE_NET, p->split_permille)) {
        (*cuts)++;
        return (size_t)sim_range(CHANCE_NET, 1, len - 1);
    }
    return len;
}

/* ---- to the daemon ---- */

struct arrival {
    struct net_conn *conn;
    size_t len;
    bool fin, rst;
    char octets[];
};

static void arrive(void *ctx)
{
    struct arrival *a = ctx;
    struct net_conn *c = a->conn;
    c->arrivals--;
    if (!c->dead && !c->rx_rst && c->stream != NULL) {
        if (a->rst) {
            c->rx_rst = true;
            if (sim_chance(CHANCE_NET, 500)) {
                c->rx_len = 0; /* what was not read is lost with it */
            }
        }
        if (c->rx_len + a->len > c->rx_cap) {
            c->rx_cap = (c->rx_len + a->len) * 2;
            c->rx = sim_grow(c->rx, c->rx_cap);
        }
        if (a->len > 0) {
            memcpy(c->rx + c->rx_len, a->octets, a->len);
            c->rx_len += a->len;
        }
        c->rx_fin = c->rx_fin || a->fin;
        tell(c->stream);
    }
    sim_free(a);
    net_release(c);
}

static void to_daemon(struct net_conn *c, const char *octets, size_t len, bool fin, bool rst)
{
    struct arrival *a = sim_alloc(sizeof(*a) + len);
    *a = (struct arrival){.conn = c, .len = len, .fin = fin, .rst = rst};
    if (len > 0) {
        memcpy(a->octets, octets, len);
    }
    c->arrivals++;
    net_hold(c);
    sim_after_own(arrival_of(&c->path, &c->in, len) - sim_now_us(), arrive, a);
}

uint64_t net_send(struct net_conn *c, const char *octets, size_t len)
{
    BH_ASSERT(c->actor_open);
    unsigned cuts = 0;
    c->sent += len;
    while (len > 0 && !c->dead) {
        const size_t piece = piece_of(&c->path, len, &cuts);
        to_daemon(c, octets, piece, false, false);
        octets += piece;
        len -= piece;
        if (sim_chance(CHANCE_NET, c->path.cut_permille)) {
            net_cut(c);
        }
    }
    return c->sent;
}

uint64_t net_seen(const struct net_conn *c)
{
    return c->seen;
}

uint64_t net_written_us(const struct net_conn *c)
{
    return c->written_us;
}

bool net_held_open(const struct net_conn *c)
{
    return c->stream != NULL;
}

bool net_stands(const struct net_conn *c)
{
    return c->stream != NULL && c->actor_open && !c->dead && !c->rx_rst;
}

static void actor_ends(struct net_conn *c, bool rst)
{
    BH_ASSERT(c->actor_open);
    c->actor_open = false;
    if (!c->dead) {
        to_daemon(c, NULL, 0, !rst, rst);
    }
    net_release(c);
}

void net_end(struct net_conn *conn)
{
    actor_ends(conn, false);
}

void net_reset(struct net_conn *conn)
{
    actor_ends(conn, true);
}

void net_cut(struct net_conn *conn)
{
    if (!conn->dead) {
        conn->dead = true;
        sim_trace("a line goes dead");
    }
}

void net_cut_all(uint32_t permille)
{
    for (struct net_conn *c = conns; c != NULL; c = c->next) {
        if (sim_chance(CHANCE_NET, permille)) {
            net_cut(c);
        }
    }
}

/* ---- to the actor ---- */

static void push_writes(struct stream *s);

static void leave(void *ctx)
{
    struct packet *p = ctx;
    struct net_conn *c = p->conn;
    if (c->out != p) {
        sim_event_at(&p->arrival, c->out->arrival.at_us); /* behind one that waits for a pause */
        return;
    }
    if (c->paused && !p->rst && c->actor_open) {
        sim_event_at(&p->arrival, sim_now_us() + 10 * SIM_MS); /* it reads no more for now */
        return;
    }
    c->out = p->next;
    c->out_last = c->out == NULL ? &c->out : c->out_last;
    c->in_flight -= p->len;
    if (c->actor_open && !c->dead) {
        if (p->len > 0) {
            c->written_us = p->written_us;
            c->actor.on_data(c->actor.ctx, p->octets, p->len);
        }
        if ((p->fin || p->rst) && c->actor_open) {
            c->actor_open = false;
            c->actor.on_end(c->actor.ctx, p->fin);
            net_release(c);
        }
    }
    sim_free(p);
    if (c->stream != NULL && c->stream->writes != NULL) {
        push_writes(c->stream);
    }
    net_release(c);
}

static void to_actor(struct net_conn *c, const char *octets, size_t len, uint64_t written_us,
                     bool fin, bool rst)
{
    struct packet *p = sim_alloc(sizeof(*p) + len);
    *p = (struct packet){.conn = c,
                         .written_us = written_us,
                         .len = len,
                         .fin = fin,
                         .rst = rst,
                         .arrival = {.fn = leave, .ctx = p}};
    if (len > 0) {
        memcpy(p->octets, octets, len);
    }
    net_hold(c);
    c->in_flight += len;
    *c->out_last = p;
    c->out_last = &p->next;
    sim_event_at(&p->arrival, arrival_of(&c->path, &c->to, len));
}

void net_pause(struct net_conn *conn, bool paused)
{
    conn->paused = paused;
}

/* As much as the window takes. A dead line takes a window full and no more. */
static size_t send_some(struct net_conn *c, const char *octets, size_t len, uint64_t written_us)
{
    const size_t room = c->path.window > c->in_flight ? c->path.window - c->in_flight : 0;
    const size_t n = len < room ? len : room;
    size_t left = n;
    unsigned cuts = 0;
    while (left > 0) {
        const size_t piece = piece_of(&c->path, left, &cuts);
        if (c->dead) {
            c->in_flight += piece; /* never acknowledged */
        } else {
            to_actor(c, octets, piece, written_us, false, false);
        }
        octets += piece;
        left -= piece;
        if (sim_chance(CHANCE_NET, c->path.cut_permille)) {
            net_cut(c);
        }
    }
    return n;
}

static void finish_write(struct stream *s, struct write *w, int status)
{
    w->status = status;
    w->next = NULL;
    s->write_queue -= w->len;
    *s->last_written = w;
    s->last_written = &w->next;
    tell(s);
}

static void push_writes(struct stream *s)
{
    while (s->writes != NULL && s->conn != NULL) {
        struct write *w = s->writes;
        const size_t n = send_some(s->conn, w->octets, w->len, w->at_us);
        w->octets += n;
        w->len -= n;
        s->write_queue -= n;
        if (w->len > 0) {
            return;
        }
        s->writes = w->next;
        s->last_write = s->writes == NULL ? &s->writes : s->last_write;
        finish_write(s, w, 0);
    }
    if (s->writes == NULL && s->shutdown != NULL && !s->shut && s->conn != NULL) {
        s->shut = true;
        s->shutdown_done = true;
        to_actor(s->conn, NULL, 0, 0, true, false);
        tell(s);
    }
}

/* ---- the daemon's end: what libuv does ---- */

static struct stream *init(uv_loop_t *loop, uv_stream_t *handle, uv_handle_type type)
{
    struct stream *s = sim_alloc(sizeof(*s));
    handle->type = type;
    stream_init(loop, handle);
    *s = (struct stream){
        .work = {.run = stream_run, .loop = loop}, .next = streams, .handle = handle};
    s->last_write = &s->writes;
    s->last_written = &s->written;
    if (streams != NULL) {
        streams->prev = s;
    }
    streams = s;
    handle->u.reserved[2] = s;
    return s;
}

int uv_tcp_init(uv_loop_t *loop, uv_tcp_t *tcp)
{
    init(loop, (uv_stream_t *)tcp, UV_TCP);
    return 0;
}

int uv_tcp_init_ex(uv_loop_t *loop, uv_tcp_t *tcp, unsigned flags)
{
    (void)flags;
    return uv_tcp_init(loop, tcp);
}

int uv_pipe_init(uv_loop_t *loop, uv_pipe_t *pipe, int ipc)
{
    (void)ipc;
    init(loop, (uv_stream_t *)pipe, UV_NAMED_PIPE);
    return 0;
}

int uv_tcp_bind(uv_tcp_t *tcp, const struct sockaddr *address, unsigned flags)
{
    (void)tcp;
    (void)address;
    (void)flags;
    return 0;
}

int uv_tcp_nodelay(uv_tcp_t *tcp, int on)
{
    (void)tcp;
    (void)on;
    return 0;
}

static void keep_alive(struct stream *s, bool live)
{
    if (s->live != live) {
        s->live = live;
        loop_hold(s->work.loop, live ? 1 : -1);
    }
}

/* The descriptors that bind_listener gave: the port is in them. */
#define FD_BASE 100000

int uv_tcp_open(uv_tcp_t *tcp, uv_os_sock_t fd)
{
    stream_of((uv_stream_t *)tcp)->port = (uint16_t)(fd - FD_BASE);
    return 0;
}

int uv_pipe_open(uv_pipe_t *pipe, uv_file fd)
{
    (void)pipe;
    (void)fd;
    return UV_EINVAL;
}

int uv_pipe_bind(uv_pipe_t *pipe, const char *path)
{
    (void)path;
    stream_of((uv_stream_t *)pipe)->port = PORT_CONTROL;
    return 0;
}

int uv_fileno(const uv_handle_t *handle, uv_os_fd_t *fd)
{
    (void)handle;
    *fd = FD_BASE; /* which __wrap_getsockopt knows */
    return 0;
}

int uv_listen(uv_stream_t *handle, int backlog, uv_connection_cb cb)
{
    struct stream *s = stream_of(handle);
    (void)backlog;
    s->listening = true;
    s->on_connection = cb;
    keep_alive(s, true);
    return 0;
}

int uv_accept(uv_stream_t *listener, uv_stream_t *client)
{
    struct stream *s = stream_of(listener);
    struct stream *made = stream_of(client);
    if (s->queued == 0) {
        return UV_EAGAIN;
    }
    made->conn = s->queue[0];
    made->conn->stream = made;
    memmove(&s->queue[0], &s->queue[1], --s->queued * sizeof(s->queue[0]));
    s->told--;
    return 0;
}

int uv_tcp_getpeername(const uv_tcp_t *tcp, struct sockaddr *name, int *len)
{
    const struct stream *s = stream_of((const uv_stream_t *)tcp);
    struct sockaddr_in in = {.sin_family = AF_INET};
    if (s->conn == NULL) {
        return UV_ENOTCONN;
    }
    memcpy(&in.sin_addr, s->conn->from.bytes, 4);
    BH_ASSERT((size_t)*len >= sizeof(in));
    memcpy(name, &in, sizeof(in));
    *len = (int)sizeof(in);
    return 0;
}

int uv_read_start(uv_stream_t *handle, uv_alloc_cb alloc, uv_read_cb read)
{
    struct stream *s = stream_of(handle);
    s->on_alloc = alloc;
    s->on_read = read;
    s->reading = true;
    keep_alive(s, true);
    tell(s);
    return 0;
}

int uv_read_stop(uv_stream_t *handle)
{
    struct stream *s = stream_of(handle);
    s->reading = false;
    keep_alive(s, false);
    return 0;
}

int uv_try_write(uv_stream_t *handle, const uv_buf_t bufs[], unsigned count)
{
    struct stream *s = stream_of(handle);
    BH_ASSERT(count == 1);
    if (s->conn == NULL || s->conn->rx_rst || s->shut) {
        return UV_EPIPE;
    }
    if (s->writes != NULL) {
        return UV_EAGAIN;
    }
    const size_t n = send_some(s->conn, bufs[0].base, bufs[0].len, sim_now_us());
    return n > 0 || bufs[0].len == 0 ? (int)n : UV_EAGAIN;
}

int uv_write(uv_write_t *request, uv_stream_t *handle, const uv_buf_t bufs[], unsigned count,
             uv_write_cb done)
{
    struct stream *s = stream_of(handle);
    BH_ASSERT(count == 1);
    struct write *w = sim_alloc(sizeof(*w));
    *w = (struct write){.request = request,
                        .done = done,
                        .octets = bufs[0].base,
                        .len = bufs[0].len,
                        .at_us = sim_now_us()};
    request->handle = handle;
    s->write_queue += w->len;
    loop_hold(s->work.loop, 1);
    if (s->conn == NULL || s->conn->rx_rst || s->shut) {
        finish_write(s, w, UV_EPIPE);
        return 0;
    }
    *s->last_write = w;
    s->last_write = &w->next;
    push_writes(s);
    return 0;
}

size_t uv_stream_get_write_queue_size(const uv_stream_t *handle)
{
    return stream_of(handle)->write_queue;
}

int uv_shutdown(uv_shutdown_t *request, uv_stream_t *handle, uv_shutdown_cb done)
{
    struct stream *s = stream_of(handle);
    if (s->conn == NULL) {
        return UV_ENOTCONN;
    }
    request->handle = handle;
    s->shutdown = request;
    s->on_shutdown = done;
    loop_hold(s->work.loop, 1);
    push_writes(s);
    return 0;
}

/* ---- telling the daemon ---- */

static void tell_written(struct stream *s)
{
    while (s->written != NULL) {
        struct write *w = s->written;
        s->written = w->next;
        s->last_written = s->written == NULL ? &s->written : s->last_written;
        const struct write copy = *w;
        sim_free(w);
        loop_hold(s->work.loop, -1);
        uv_stream_t *handle = s->handle;
        copy.done(copy.request, copy.status);
        if (handle->flags != 0) {
            return; /* it was closed meanwhile: the rest is told from there */
        }
    }
}

static bool tell_connection(struct stream *s)
{
    if (s->connect != NULL && s->connect_done) {
        uv_connect_t *request = s->connect;
        s->connect = NULL;
        loop_hold(s->work.loop, -1);
        s->on_connect(request, s->connect_status);
        return true;
    }
    if (s->told < s->queued) {
        s->told++;
        s->on_connection(s->handle, 0);
        return true;
    }
    return false;
}

/* @return whether something was told */
static bool tell_read(struct stream *s)
{
    struct net_conn *c = s->conn;
    if (!s->reading || c == NULL) {
        return false;
    }
    uv_buf_t buf = {0};
    if (c->rx_len > 0) {
        s->on_alloc((uv_handle_t *)s->handle, 65536, &buf);
        size_t n = buf.len < c->rx_len ? buf.len : c->rx_len;
        if (n == 0 || buf.base == NULL) {
            s->on_read(s->handle, UV_ENOBUFS, &buf);
            return true;
        }
        if (n > 1 && sim_chance(CHANCE_NET, c->path.split_permille)) {
            n = (size_t)sim_range(CHANCE_NET, 1, n);
        }
        memcpy(buf.base, c->rx, n);
        c->rx_len -= n;
        memmove(c->rx, c->rx + n, c->rx_len);
        c->seen += n;
        s->on_read(s->handle, (ssize_t)n, &buf);
        return true;
    }
    if (c->rx_rst || c->rx_fin) {
        const int status = c->rx_rst ? UV_ECONNRESET : UV_EOF;
        s->reading = false;
        keep_alive(s, false);
        s->on_read(s->handle, status, &buf);
        return true;
    }
    return false;
}

static void stream_run(struct work *work)
{
    struct stream *s = (struct stream *)(void *)work;
    uv_stream_t *handle = s->handle;
    if (s->conn != NULL && s->conn->rx_rst) {
        while (s->writes != NULL) {
            struct write *w = s->writes;
            s->writes = w->next;
            finish_write(s, w, UV_ECONNRESET);
        }
        s->last_write = &s->writes;
    }
    tell_written(s);
    if (handle->flags == 0 && s->shutdown_done) {
        s->shutdown_done = false;
        loop_hold(work->loop, -1);
        uv_shutdown_t *request = s->shutdown;
        s->shutdown = NULL;
        s->on_shutdown(request, 0);
    }
    if (handle->flags == 0 && (tell_connection(s) || tell_read(s)) && handle->flags == 0) {
        loop_post(work); /* there may be more; others go first */
    }
}

/* ---- connecting ---- */

struct opening {
    struct net_conn *conn;
    int status;
};

static void connected(void *ctx)
{
    struct opening *o = ctx;
    struct net_conn *c = o->conn;
    if (c->stream != NULL) {
        c->stream->connect_done = true;
        c->stream->connect_status = o->status;
        tell(c->stream);
        if (o->status == 0 && c->actor_open && c->actor.on_open != NULL) {
            c->actor.on_open(c->actor.ctx);
        }
    }
    sim_free(o);
    net_release(c);
}

static struct bh_ip ip_of(const struct sockaddr *address, uint16_t *port)
{
    struct bh_ip ip = {0};
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        ip.family = 4;
        memcpy(ip.bytes, &in.sin_addr, 4);
        *port = ntohs(in.sin_port);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        ip.family = 6;
        memcpy(ip.bytes, &in6.sin6_addr, 16);
        *port = ntohs(in6.sin6_port);
    }
    return ip;
}

int uv_tcp_connect(uv_connect_t *request, uv_tcp_t *tcp, const struct sockaddr *address,
                   uv_connect_cb cb)
{
    struct stream *s = stream_of((uv_stream_t *)tcp);
    struct net_asked asked = {.path = {.latency_us = SIM_MS, .window = 65536}};
    asked.ip = ip_of(address, &asked.port);
    request->handle = (uv_stream_t *)tcp;
    struct net_conn *c = conn_create(&asked.path);
    const enum net_answer answer = world_on_connect(&asked, c);
    c->path = asked.path;
    c->actor = asked.actor;
    c->stream = s;
    s->conn = c;
    s->connect = request;
    s->on_connect = cb;
    loop_hold(s->work.loop, 1);
    net_hold(c); /* of the daemon's end */
    if (answer != NET_ACCEPT) {
        c->actor_open = false; /* nobody is there */
        net_release(c);
    }
    if (answer == NET_SILENCE) {
        c->dead = true;
        return 0; /* the caller's timeout ends it */
    }
    struct opening *o = sim_alloc(sizeof(*o));
    *o = (struct opening){.conn = c,
                          .status = answer == NET_ACCEPT   ? 0
                                    : answer == NET_REFUSE ? UV_ECONNREFUSED
                                                           : UV_EHOSTUNREACH};
    net_hold(c);
    sim_after_own(2 * c->path.latency_us, connected, o);
    return 0;
}

static void knock(void *ctx)
{
    struct net_conn *c = ctx;
    if (c->actor_open && c->actor.on_open != NULL) {
        c->actor.on_open(c->actor.ctx);
    }
    net_release(c);
}

struct net_conn *net_connect(uint16_t port, const struct bh_ip *from, const struct net_path *path,
                             const struct net_actor *actor)
{
    struct stream *found = NULL;
    size_t count = 0;
    for (struct stream *s = streams; s != NULL; s = s->next) {
        if (s->listening && s->port == port && s->queued < ACCEPT_MAX &&
            bh_rng_below(sim_rng(CHANCE_NET), ++count) == 0) {
            found = s;
        }
    }
    if (found == NULL) {
        return NULL;
    }
    struct net_conn *c = conn_create(path);
    c->actor = *actor;
    c->from = *from;
    found->queue[found->queued++] = c;
    net_hold(c); /* of the daemon's end, from the queue on */
    tell(found);
    net_hold(c);
    sim_after(path->latency_us, knock, c);
    return c;
}

/* ---- the end ---- */

static void let_conn_go(struct net_conn *c, bool graceful)
{
    c->stream = NULL;
    if (c->actor_open && !c->dead) {
        to_actor(c, NULL, 0, 0, graceful, !graceful);
    } else if (c->actor_open) {
        c->actor_open = false; /* the actor never hears of it: it forgets in its own time */
        c->actor.on_end(c->actor.ctx, false);
        net_release(c);
    }
}

static void drop_stream(struct stream *s)
{
    for (size_t i = 0; i < s->queued; i++) {
        let_conn_go(s->queue[i], false);
        net_release(s->queue[i]);
    }
    if (s->conn != NULL) {
        struct net_conn *c = s->conn;
        s->conn = NULL;
        if (s->shut) {
            c->stream = NULL;
        } else {
            /* Unread octets make a kernel send a reset; what is under way before it may be lost. */
            let_conn_go(c, c->rx_len == 0);
        }
        net_release(c);
    }
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        streams = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
}

struct cancelled {
    struct work work; /* first */
    struct stream *stream;
};

/* Requests that were open when the handle was closed end before its close callback. */
static void run_cancelled(struct work *work)
{
    struct cancelled *x = (struct cancelled *)(void *)work;
    struct stream *s = x->stream;
    uv_loop_t *loop = work->loop;
    sim_free(x);
    if (s->connect != NULL) {
        loop_hold(loop, -1);
        s->on_connect(s->connect, UV_ECANCELED);
    }
    for (struct write *w = s->written; w != NULL;) {
        struct write *next = w->next;
        loop_hold(loop, -1);
        w->done(w->request, w->status);
        sim_free(w);
        w = next;
    }
    if (s->shutdown != NULL) {
        loop_hold(loop, -1);
        s->on_shutdown(s->shutdown, UV_ECANCELED);
    }
    loop_hold(loop, -1);
    sim_free(s);
}

void stream_close(uv_handle_t *handle)
{
    struct stream *s = stream_of((uv_stream_t *)handle);
    s->reading = false;
    keep_alive(s, false);
    while (s->writes != NULL) {
        struct write *w = s->writes;
        s->writes = w->next;
        w->next = NULL;
        w->status = UV_ECANCELED;
        *s->last_written = w;
        s->last_written = &w->next;
    }
    drop_stream(s);
    loop_unpost(&s->work);
    struct cancelled *x = sim_alloc(sizeof(*x));
    *x = (struct cancelled){.work = {.run = run_cancelled, .loop = handle->loop}, .stream = s};
    loop_hold(handle->loop, 1);
    loop_post(&x->work);
}

void net_process_died(void)
{
    while (streams != NULL) {
        struct stream *s = streams;
        drop_stream(s);
        while (s->writes != NULL) {
            struct write *w = s->writes;
            s->writes = w->next;
            sim_free(w);
        }
        while (s->written != NULL) {
            struct write *w = s->written;
            s->written = w->next;
            sim_free(w);
        }
        sim_free(s);
    }
    loop_process_died();
}

void net_forget_all(void)
{
    while (conns != NULL) {
        conns->holds = 1;
        net_release(conns);
    }
}

size_t net_open_count(void)
{
    return conn_count;
}

/* ---- listening sockets ---- */

#include "bh/intake.h"

enum bh_status bh_intake_bind(const struct bh_listen_config *listen, uint32_t workers,
                              struct bh_intake_sockets *sockets, struct bh_buf *error)
{
    (void)error;
    *sockets = (struct bh_intake_sockets){.count = workers, .port = listen->port};
    for (uint32_t i = 0; i < workers; i++) {
        sockets->fds[i] = FD_BASE + listen->port;
    }
    return BH_OK;
}

/* Who is at the other end of the control socket: root. */
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
    if (fd == FD_BASE && level == SOL_SOCKET && option == SO_PEERCRED &&
        *len >= sizeof(struct ucred)) {
        const struct ucred root = {.pid = 1, .uid = 0, .gid = 0};
        memcpy(value, &root, sizeof(root));
        *len = sizeof(root);
        return 0;
    }
    errno = EBADF;
    return -1;
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *len)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(fd - FD_BASE))};
    memcpy(address, &in, sizeof(in));
    *len = sizeof(in);
    return 0;
}
