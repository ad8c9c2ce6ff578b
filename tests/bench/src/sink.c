/* sink.c - takes mail and forgets it: the far end of the benchmark (Linux, one thread, epoll).
 *
 *  - `-a ADDR -p PORT`: listen there (127.0.0.1 2525)
 *  - `-n COUNT`: write the report once COUNT messages are here, and go on
 *  - `-o FILE`: the report goes there
 *  - `-T SECS`: end after SECS seconds
 *  - `-L FILE`: a line per message: X-Blast-Id, X-Blast-Time, time of our reply, 1 if encrypted
 *  - `-C CERT -K KEY`: PEM files: offer STARTTLS
 *  - `-N`: give out no sessions: each handshake is a full one
 *  - `-P`, `-B`: do not offer PIPELINING, CHUNKING
 *  - `-H`: accept connections, read, never say a word
 *
 * A partner that throttles:
 *
 *  - `-x CONNS`: more connections than these get 421
 *  - `-m N`: 421 after N messages of one connection
 *  - `-r RATE`: more messages than these in a second get 450
 *
 * SIGUSR1: the report; SIGTERM and SIGINT: the report, and the end. Times are of CLOCK_REALTIME. */
#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_tool.h"
#include "sink.h"

struct connection {
    int fd;
    SSL *tls;
    bool handshaking, wants_write, draining, dead;
    struct connection *next; /* among the dead */
    struct sink_smtp smtp;
    struct bh_buf in, out;
    size_t out_sent;
    char in_storage[65536];
    char out_storage[16384];
};

static int epoll;
static bool hang;
static long connections_max;
static SSL_CTX *tls_context;
static struct connection *dead;

static void drop(struct connection *c)
{
    if (c->dead) {
        return;
    }
    sink_count.cut_off += c->smtp.phase != SINK_COMMAND;
    sink_count.open--;
    c->dead = true;
    SSL_free(c->tls);
    close(c->fd);
    c->next = dead; /* Freed behind the events of this turn, which may name it again. */
    dead = c;
}

static void interest(struct connection *c)
{
    const bool stuck = c->out.len > 0;
    bench_epoll(
        epoll, EPOLL_CTL_MOD, c->fd,
        (stuck ? 0U : (uint32_t)EPOLLIN) | (stuck || c->wants_write ? (uint32_t)EPOLLOUT : 0U), c);
}

/* Octets written or read, 0 for later, -1 for the end of the connection. */
static ssize_t tls_result(struct connection *c, int n)
{
    if (n > 0) {
        return n;
    }
    const int error = SSL_get_error(c->tls, n);
    c->wants_write = error == SSL_ERROR_WANT_WRITE;
    return c->wants_write || error == SSL_ERROR_WANT_READ ? 0 : -1;
}

static ssize_t socket_result(ssize_t n)
{
    return n > 0 ? n : n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t write_some(struct connection *c, struct bh_slice s)
{
    if (c->tls == NULL) {
        return socket_result(send(c->fd, s.ptr, s.len, MSG_NOSIGNAL));
    }
    ERR_clear_error();
    return tls_result(c, SSL_write(c->tls, s.ptr, (int)s.len));
}

static ssize_t read_some(struct connection *c)
{
    void *to = c->in.ptr + c->in.len;
    if (c->tls == NULL) {
        return socket_result(recv(c->fd, to, bh_buf_room(&c->in), 0));
    }
    ERR_clear_error();
    return tls_result(c, SSL_read(c->tls, to, (int)bh_buf_room(&c->in)));
}

static void start_tls(struct connection *c)
{
    c->tls = SSL_new(tls_context);
    if (c->tls == NULL || SSL_set_fd(c->tls, c->fd) != 1) {
        errno = 0;
        bench_die("SSL_new");
    }
    SSL_set_accept_state(c->tls);
    c->handshaking = true;
    c->in.len = 0; /* Nothing sent in clear survives STARTTLS. */
    sink_smtp_encrypted(&c->smtp);
}

/* Write what is there. False: wait for room, or the connection is gone. */
static bool flush(struct connection *c)
{
    while (c->out_sent < c->out.len) {
        const ssize_t n = write_some(c, bh_slice_skip(bh_buf_slice(&c->out), c->out_sent));
        if (n < 0) {
            drop(c);
        }
        if (n <= 0) {
            return false;
        }
        c->out_sent += (size_t)n;
    }
    c->out.len = c->out_sent = 0;
    if (c->smtp.closing && !c->draining) {
        /* Closing with unread input would send a reset, which can destroy replies on their way. */
        shutdown(c->fd, SHUT_WR);
        c->draining = true;
    }
    if (c->smtp.starttls) {
        start_tls(c);
    }
    return true;
}

static bool handshake(struct connection *c)
{
    ERR_clear_error();
    const int n = SSL_do_handshake(c->tls);
    if (n == 1) {
        c->handshaking = false;
        c->wants_write = false;
        sink_count.handshakes++;
        sink_count.handshakes_resumed += SSL_session_reused(c->tls) > 0;
        return true;
    }
    if (tls_result(c, n) < 0) {
        drop(c);
    }
    return false;
}

static void drain(struct connection *c)
{
    c->in.len = 0;
    for (;;) {
        const ssize_t n = socket_result(recv(c->fd, c->in.ptr, bh_buf_room(&c->in), 0));
        if (n < 0) {
            drop(c);
        }
        if (n <= 0) {
            return;
        }
    }
}

/* Feed what is buffered and answer. False: no more can be done now. */
static bool work(struct connection *c)
{
    for (;;) {
        const size_t used = sink_smtp_feed(&c->smtp, bh_buf_slice(&c->in), &c->out);
        bh_buf_consume(&c->in, used);
        if (!flush(c) || c->draining || c->handshaking) {
            return false;
        }
        if (used == 0 || c->in.len == 0) {
            return true;
        }
    }
}

static void on_ready(struct connection *c)
{
    if (c->draining || hang) {
        drain(c);
        return;
    }
    if ((c->handshaking && !handshake(c)) || (c->out.len > 0 && !work(c))) {
        goto done;
    }
    for (;;) {
        const size_t room = bh_buf_room(&c->in);
        const ssize_t n = read_some(c);
        if (n < 0) {
            drop(c);
        }
        if (n <= 0) {
            break;
        }
        c->in.len += (size_t)n;
        if (!work(c)) {
            break;
        }
        if (c->tls == NULL && (size_t)n < room) {
            break; /* Most likely that was all: spare one call. */
        }
    }
done:
    if (!c->dead) {
        interest(c);
    }
}

static void accept_all(int listener)
{
    for (;;) {
        const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        struct connection *c = (struct connection *)bench_alloc(sizeof(*c));
        memset(c, 0, offsetof(struct connection, in_storage));
        c->fd = fd;
        c->in = bh_buf(c->in_storage, sizeof(c->in_storage));
        c->out = bh_buf(c->out_storage, sizeof(c->out_storage));
        sink_count_open();
        bench_epoll(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
        if (connections_max > 0 && sink_count.open > (uint64_t)connections_max) {
            sink_count.refused_connections++;
            bh_buf_put(&c->out, BH_LIT("421 4.7.0 too many connections\r\n"));
            c->smtp.closing = true;
        } else if (!hang) {
            sink_smtp_begin(&c->smtp, &c->out);
        }
        if (!flush(c) && !c->dead) {
            interest(c);
        }
    }
}

static SSL_CTX *tls_load(const char *certificate, const char *key, bool no_resumption)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(2);
    }
    if (no_resumption) {
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(context, 0);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

static struct sockaddr_in options(int argc, char **argv, double *end_s)
{
    const char *address = "127.0.0.1";
    const char *certificate = NULL;
    const char *key = NULL;
    bool no_resumption = false;
    long port = 2525;
    int o;
    while ((o = getopt(argc, argv, "a:p:n:o:T:L:C:K:NPBHx:m:r:")) != -1) {
        switch (o) {
        case 'a':
            address = optarg;
            break;
        case 'p':
            port = bench_number(optarg, 1, 65535);
            break;
        case 'n':
            sink_opt.expected = bench_number(optarg, 0, 1000000000);
            break;
        case 'o':
            sink_opt.report = optarg;
            break;
        case 'T':
            *end_s = bench_seconds(CLOCK_MONOTONIC) + (double)bench_number(optarg, 1, 1000000);
            break;
        case 'L':
            sink_opt.arrivals = optarg;
            break;
        case 'C':
            certificate = optarg;
            break;
        case 'K':
            key = optarg;
            break;
        case 'N':
            no_resumption = true;
            break;
        case 'P':
            sink_opt.no_pipelining = true;
            break;
        case 'B':
            sink_opt.no_chunking = true;
            break;
        case 'H':
            hang = true;
            break;
        case 'x':
            connections_max = bench_number(optarg, 1, 1000000);
            break;
        case 'm':
            sink_opt.messages_per_connection = bench_number(optarg, 1, 1000000000);
            break;
        case 'r':
            sink_opt.rate = bench_number(optarg, 1, 1000000);
            break;
        default:
            fprintf(stderr, "the options are at the head of sink.c\n");
            exit(2);
        }
    }
    if (certificate != NULL && key != NULL) {
        tls_context = tls_load(certificate, key, no_resumption);
        sink_opt.tls = true;
    }
    return bench_address(address, port);
}

static void reap(void)
{
    while (dead != NULL) {
        struct connection *c = dead;
        dead = c->next;
        free(c);
    }
}

int main(int argc, char **argv)
{
    double end_s = 0;
    struct sockaddr_in address = options(argc, argv, &end_s);
    bench_raise_limits();
    signal(SIGPIPE, SIG_IGN); /* SSL_write has no MSG_NOSIGNAL. */
    int signals = bench_signals();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = bench_listen(&address);
    bench_epoll(epoll, EPOLL_CTL_ADD, signals, EPOLLIN, &signals);
    bench_epoll(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, &listener);
    for (;;) {
        struct epoll_event events[256];
        const int n = epoll_wait(epoll, events, 256, end_s > 0 ? 500 : -1);
        for (int i = 0; i < n; i++) {
            void *p = events[i].data.ptr;
            if (p == &listener) {
                accept_all(listener);
            } else if (p != &signals) {
                if (!((struct connection *)p)->dead) {
                    on_ready((struct connection *)p);
                }
            } else {
                for (int s = bench_signal_next(signals); s != 0; s = bench_signal_next(signals)) {
                    sink_report();
                    if (s != SIGUSR1) {
                        return 0;
                    }
                }
            }
        }
        reap();
        if (sink_opt.expected > 0 && sink_count.messages >= (uint64_t)sink_opt.expected) {
            sink_report();
            sink_opt.expected = 0;
        }
        if (end_s > 0 && bench_seconds(CLOCK_MONOTONIC) > end_s) {
            sink_report();
            return 0;
        }
    }
}
