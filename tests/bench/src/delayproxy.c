/* delayproxy.c - makes a host look distant: a TCP proxy that delays all octets (Linux, one thread).
 *
 *  -l ADDR:PORT  listen there        -c ADDR:PORT  connect there
 *  -d MS         each way (50: a round trip is 100 ms)
 *  -b OCTETS     under way in one direction, at most (16 MiB, over 300 MB/s at 50 ms)
 *  -T SECS       end                 -o FILE       the report goes there
 *
 * Each piece leaves MS after it came; so do an end of stream and a reset. The far side is connected
 * to three delays after accept, so that the greeting comes two round trips after the client's
 * connect(), as from a distant host. A receiver that does not read holds up its sender once -b
 * octets are under way. Not modelled: loss, slow start, windows, and the time of connect() itself.
 *
 * SIGUSR1: a report; SIGTERM and SIGINT: a report, and the end. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench_tool.h"

enum piece_kind { PIECE_DATA, PIECE_END, PIECE_RESET };

struct piece {
    struct piece *next;
    int64_t due_ns;
    enum piece_kind kind;
    size_t len, sent;
    char octets[];
};

struct connection;

/* One of a connection's two sockets, and what was read from it and is on its way to the other. */
struct side {
    struct connection *connection;
    int fd; /* -1: not yet, or no more */
    bool connecting, read_done, write_done;
    uint32_t armed; /* what epoll waits for */
    struct piece *first, **last;
    size_t held;
};

struct connection {
    struct side sides[2]; /* the client's, the far one */
    bool dead;
    bool answered;  /* the last octets that passed went to the client */
    unsigned wakes; /* that still name it */
    struct connection *next;
};

/* All delays are alike, so due times leave a queue in the order in which they came. */
struct wake {
    struct wake *next;
    int64_t due_ns;
    struct side *side;
};

struct wakes {
    struct wake *first, **last;
};

static struct wakes departures = {NULL, &departures.first};
static struct wakes connects = {NULL, &connects.first};
static struct sockaddr_in far_address;
static int epoll, timer, listener;
static int64_t delay_ns = 50000000;
static int64_t timer_due_ns;
static size_t held_max = 16U << 20;
static struct connection *dead;
static const char *report_file;

static struct {
    uint64_t connections, open, open_max, octets_out, octets_back, resets;
    uint64_t turns; /* the client spoke after it was spoken to: round trips that it waited for */
    int64_t late_max_ns;
} count;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct side *other(struct side *s)
{
    struct connection *c = s->connection;
    return s == &c->sides[0] ? &c->sides[1] : &c->sides[0];
}

static void wake_later(struct wakes *wakes, int64_t due_ns, struct side *s)
{
    struct wake *w = (struct wake *)bench_alloc(sizeof(*w));
    *w = (struct wake){NULL, due_ns, s};
    *wakes->last = w;
    wakes->last = &w->next;
    s->connection->wakes++;
}

static struct side *wake_next(struct wakes *wakes, int64_t now)
{
    struct wake *w = wakes->first;
    if (w == NULL || w->due_ns > now) {
        return NULL;
    }
    struct side *s = w->side;
    if (now - w->due_ns > count.late_max_ns) {
        count.late_max_ns = now - w->due_ns;
    }
    wakes->first = w->next;
    if (wakes->first == NULL) {
        wakes->last = &wakes->first;
    }
    free(w);
    s->connection->wakes--;
    return s;
}

static void interest(struct side *s)
{
    struct side *o = other(s);
    uint32_t events = 0;
    if (s->fd < 0) {
        return;
    }
    if (!s->read_done && !s->connecting && s->held < held_max) {
        events |= EPOLLIN;
    }
    const bool stuck = o->first != NULL && o->first->due_ns <= now_ns() && !s->write_done;
    if (s->connecting || stuck) {
        events |= EPOLLOUT;
    }
    if (events != s->armed) {
        bench_epoll(epoll, EPOLL_CTL_MOD, s->fd, events, s);
        s->armed = events;
    }
}

static void pop(struct side *s)
{
    struct piece *p = s->first;
    s->held -= p->len - p->sent;
    s->first = p->next;
    if (s->first == NULL) {
        s->last = &s->first;
    }
    free(p);
}

static void end_connection(struct connection *c, bool reset)
{
    const struct linger hard = {1, 0};
    if (c->dead) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct side *s = &c->sides[i];
        if (s->fd >= 0 && reset) {
            (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        }
        if (s->fd >= 0) {
            close(s->fd);
        }
        s->fd = -1;
        while (s->first != NULL) {
            pop(s);
        }
    }
    count.open--;
    count.resets += reset;
    c->dead = true;
    c->next = dead;
    dead = c;
}

static void hold(struct side *s, enum piece_kind kind, const char *octets, size_t len)
{
    struct piece *p = (struct piece *)bench_alloc(sizeof(*p) + len);
    *p = (struct piece){NULL, now_ns() + delay_ns, kind, len, 0};
    if (len > 0) {
        memcpy(p->octets, octets, len);
    }
    *s->last = p;
    s->last = &p->next;
    s->held += len;
    wake_later(&departures, p->due_ns, s);
}

/* Write one piece to the other side. False: no room, try again when there is. */
static bool depart(struct side *s, struct side *to)
{
    struct piece *p = s->first;
    if (p->kind == PIECE_END) {
        shutdown(to->fd, SHUT_WR);
        to->write_done = true;
    }
    while (p->sent < p->len && !to->write_done) {
        const ssize_t n = send(to->fd, p->octets + p->sent, p->len - p->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        if (n < 0 && errno != EINTR) { /* The receiver is gone: the sender hears of it later. */
            to->write_done = to->read_done = true;
            hold(to, PIECE_RESET, NULL, 0);
            return false;
        }
        if (n > 0) {
            p->sent += (size_t)n;
            s->held -= (size_t)n;
            const bool back = s == &s->connection->sides[1];
            *(back ? &count.octets_back : &count.octets_out) += (uint64_t)n;
            s->connection->answered = s->connection->answered || back;
        }
    }
    pop(s);
    return true;
}

static bool over(const struct side *s)
{
    return s->read_done && s->write_done && s->first == NULL;
}

static void depart_all(struct side *s)
{
    struct side *to = other(s);
    struct connection *c = s->connection;
    const int64_t now = now_ns();
    if (c->dead || to->fd < 0 || to->connecting) {
        return;
    }
    while (s->first != NULL && s->first->due_ns <= now) {
        if (s->first->kind == PIECE_RESET) {
            end_connection(c, true);
            return;
        }
        if (!depart(s, to)) {
            break;
        }
    }
    if (over(&c->sides[0]) && over(&c->sides[1])) {
        end_connection(c, false);
        return;
    }
    interest(s);
    interest(to);
}

static void arrive(struct side *s)
{
    static char octets[262144];
    while (!s->read_done && s->held < held_max) {
        const ssize_t n = recv(s->fd, octets, sizeof(octets), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        s->read_done = n <= 0;
        if (n > 0 && s == &s->connection->sides[0] && s->connection->answered) {
            s->connection->answered = false;
            count.turns++;
        }
        hold(s,
             n > 0    ? PIECE_DATA
             : n == 0 ? PIECE_END
                      : PIECE_RESET,
             octets, n > 0 ? (size_t)n : 0);
        if (n < (ssize_t)sizeof(octets)) {
            break;
        }
    }
    interest(s);
}

static void connect_far(struct side *s)
{
    if (s->connection->dead) {
        return;
    }
    s->fd = bench_socket();
    s->connecting = true;
    if (connect(s->fd, (const struct sockaddr *)&far_address, sizeof(far_address)) != 0 &&
        errno != EINPROGRESS) {
        end_connection(s->connection, true);
        return;
    }
    s->armed = EPOLLOUT;
    bench_epoll(epoll, EPOLL_CTL_ADD, s->fd, EPOLLOUT, s);
}

static void on_connected(struct side *s)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error != 0) {
        end_connection(s->connection, true);
        return;
    }
    s->connecting = false;
    depart_all(other(s));
    if (!s->connection->dead) {
        interest(s);
    }
}

/* An error or a hang-up while nothing is read: no event of this socket will tell more. */
static void on_broken(struct side *s, bool error)
{
    if (!s->read_done && s->held < held_max) {
        arrive(s);
        return;
    }
    if (error && !(s->read_done && s->write_done)) {
        s->read_done = s->write_done = true;
        hold(s, PIECE_RESET, NULL, 0);
    }
    s->armed = 0;
    bench_epoll(epoll, EPOLL_CTL_DEL, s->fd, 0, s);
    bench_epoll(epoll, EPOLL_CTL_ADD, s->fd, EPOLLONESHOT, s);
}

static void on_ready(struct side *s, uint32_t events)
{
    if (s->connection->dead || s->fd < 0) {
        return;
    }
    if (s->connecting) {
        on_connected(s);
        return;
    }
    if ((events & EPOLLIN) != 0) {
        arrive(s);
    } else if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLOUT) == 0) {
        on_broken(s, (events & EPOLLERR) != 0);
    }
    if ((events & EPOLLOUT) != 0) {
        depart_all(other(s));
    }
}

static void accept_all(void)
{
    for (;;) {
        const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        struct connection *c = (struct connection *)bench_alloc(sizeof(*c));
        memset(c, 0, sizeof(*c));
        for (int i = 0; i < 2; i++) {
            c->sides[i].connection = c;
            c->sides[i].fd = -1;
            c->sides[i].last = &c->sides[i].first;
        }
        c->sides[0].fd = fd;
        c->sides[0].armed = EPOLLIN;
        count.connections++;
        if (++count.open > count.open_max) {
            count.open_max = count.open;
        }
        bench_epoll(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, &c->sides[0]);
        wake_later(&connects, now_ns() + 3 * delay_ns, &c->sides[1]);
    }
}

static void report(void)
{
    const struct bench_cpu cpu = bench_cpu();
    FILE *out = bench_report_open(report_file);
    fprintf(out,
            "{\"tool\":\"delayproxy\",\"connections\":%" PRIu64 ",\"open\":%" PRIu64
            ",\"open_max\":%" PRIu64 ",\"octets_out\":%" PRIu64 ",\"octets_back\":%" PRIu64
            ",\"resets\":%" PRIu64 ",\"turns\":%" PRIu64 ",\"late_max_ms\":%.3f,\"cpu_s\":%.4f}\n",
            count.connections, count.open, count.open_max, count.octets_out, count.octets_back,
            count.resets, count.turns, (double)count.late_max_ns / 1e6, cpu.user_s + cpu.system_s);
    bench_report_close(out, report_file);
}

static void reap(void)
{
    for (struct connection **at = &dead; *at != NULL;) {
        struct connection *c = *at;
        if (c->wakes > 0) {
            at = &c->next;
        } else {
            *at = c->next;
            free(c);
        }
    }
}

static void arm(void)
{
    int64_t due = departures.first != NULL ? departures.first->due_ns : 0;
    if (connects.first != NULL && (due == 0 || connects.first->due_ns < due)) {
        due = connects.first->due_ns;
    }
    if (due != 0 && due != timer_due_ns) {
        const struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        timer_due_ns = due;
    }
}

static void turn(void)
{
    const int64_t now = now_ns();
    for (struct side *s = wake_next(&connects, now); s != NULL; s = wake_next(&connects, now)) {
        connect_far(s);
    }
    for (struct side *s = wake_next(&departures, now); s != NULL; s = wake_next(&departures, now)) {
        depart_all(s);
    }
    reap();
    arm();
}

static void options(int argc, char **argv, struct sockaddr_in *near_address, double *end_s)
{
    const char *from = NULL;
    const char *to = NULL;
    int o;
    while ((o = getopt(argc, argv, "l:c:d:b:T:o:")) != -1) {
        switch (o) {
        case 'l':
            from = optarg;
            break;
        case 'c':
            to = optarg;
            break;
        case 'd':
            delay_ns = bench_number(optarg, 0, 100000) * 1000000;
            break;
        case 'b':
            held_max = (size_t)bench_number(optarg, 1, 1L << 40);
            break;
        case 'T':
            *end_s = bench_seconds(CLOCK_MONOTONIC) + (double)bench_number(optarg, 1, 1000000);
            break;
        case 'o':
            report_file = optarg;
            break;
        default:
            from = NULL;
            break;
        }
    }
    if (from == NULL || to == NULL) {
        fprintf(stderr, "the options are at the head of delayproxy.c\n");
        exit(2);
    }
    *near_address = bench_address(from, 0);
    far_address = bench_address(to, 0);
}

int main(int argc, char **argv)
{
    struct sockaddr_in near_address;
    double end_s = 0;
    options(argc, argv, &near_address, &end_s);
    bench_raise_limits();
    int signals = bench_signals();
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    listener = bench_listen(&near_address);
    bench_epoll(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, &listener);
    bench_epoll(epoll, EPOLL_CTL_ADD, timer, EPOLLIN, &timer);
    bench_epoll(epoll, EPOLL_CTL_ADD, signals, EPOLLIN, &signals);
    for (;;) {
        struct epoll_event events[256];
        const int n = epoll_wait(epoll, events, 256, end_s > 0 ? 500 : -1);
        for (int i = 0; i < n; i++) {
            void *p = events[i].data.ptr;
            if (p == &listener) {
                accept_all();
            } else if (p == &timer) {
                uint64_t expirations;
                (void)!read(timer, &expirations, sizeof(expirations));
                timer_due_ns = 0;
            } else if (p != &signals) {
                on_ready((struct side *)p, events[i].events);
            } else {
                for (int s = bench_signal_next(signals); s != 0; s = bench_signal_next(signals)) {
                    report();
                    if (s != SIGUSR1) {
                        return 0;
                    }
                }
            }
        }
        turn();
        if (end_s > 0 && bench_seconds(CLOCK_MONOTONIC) > end_s) {
            report();
            return 0;
        }
    }
}
