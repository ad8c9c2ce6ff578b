/* blast.c - the load generator: keeps sessions open and hands over messages as fast as they are
 * taken, or at a rate (Linux, one thread, epoll).
 *
 *  -a ADDR -p PORT  where to (127.0.0.1 2525); nothing but loopback
 *  -c CONNS         sessions at a time (20)         -m N     messages per session (no limit)
 *  -n COUNT         messages to get accepted (1000) -s SIZE  octets of body (4096)
 *  -d DOMAINS       recipients are in d0.ZONE to dN-1.ZONE (1)       -z ZONE (bench.test)
 *  -P MODE          0 a command at a time; 1 MAIL, RCPT and DATA together (default); 2 these ride
 * behind the final dot of the message before. 0 where PIPELINING is not offered -R RATE messages
 * per second, at most (no limit) -I PREFIX        of X-Blast-Id (process and time) -t SECS give up
 * (600)                   -o FILE  the report goes there
 *
 * A message that is refused for now, or whose connection is lost, is tried again until the time is
 * over. Latency runs from the last octet of a message to its reply. X-Blast-Time is when the
 * content was written; with -R when the message was due, so that a server which holds up the
 * generator cannot hide it. Exit status: 0 all accepted, 1 some refused for good, 3 the time was
 * over. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_tool.h"
#include "bh/buf.h"

#define NO_MESSAGE (-1)
#define REPLIES_MAX 8 /* An end, MAIL, RCPT and DATA of the next; never more. */

enum reply {
    REPLY_GREETING,
    REPLY_EHLO,
    REPLY_MAIL,
    REPLY_RCPT,
    REPLY_DATA,
    REPLY_END,
    REPLY_RSET,
    REPLY_QUIT,
};

struct session {
    int fd;        /* -1: closed */
    bool up;       /* EHLO is answered */
    bool refused;  /* a command of the current message was */
    bool for_good; /* with a 5xx */
    bool armed;    /* epoll also waits for room to write */
    long mode;
    long done;              /* messages ended on this connection */
    long current, next;     /* numbers of messages, or NO_MESSAGE */
    double not_before;      /* seconds: nothing is begun earlier */
    double end_sent;        /* seconds: when the last octet of `current` was written */
    unsigned head, waiting; /* of the ring of replies */
    enum reply expected[REPLIES_MAX];
    struct bh_buf out;
    size_t out_sent;
    struct bh_buf in;
    char in_storage[4096];
};

static struct {
    long sessions, total, per_session, domains, size, mode, limit_s;
    double rate;
    const char *zone, *report, *prefix;
    struct sockaddr_in to;
} opt = {20, 1000, 0, 1, 4096, 1, 600, 0, "bench.test", NULL, NULL, {0}};

static struct {
    long begun, accepted, failed, connections, lost, replies_4xx, replies_5xx, replies_421;
    double *latency_s;
    long *again; /* refused for now */
    long again_len;
} run;

static int epoll;
static char *body;
static char date[64];
static double began_s, began_unix_s;

static void put(struct session *s, struct bh_slice text)
{
    bh_buf_put(&s->out, text);
}

static void expect(struct session *s, enum reply reply)
{
    BH_ASSERT(s->waiting < REPLIES_MAX);
    s->expected[(s->head + s->waiting++) % REPLIES_MAX] = reply;
}

static void command(struct session *s, struct bh_slice text, enum reply reply)
{
    put(s, text);
    expect(s, reply);
}

/* Write what is there; the rest when the socket has room. False: the connection is gone. */
static bool flush(struct session *s)
{
    while (s->out_sent < s->out.len) {
        const ssize_t n =
            send(s->fd, s->out.ptr + s->out_sent, s->out.len - s->out_sent, MSG_NOSIGNAL);
        if (n >= 0) {
            s->out_sent += (size_t)n;
        } else if (errno == EAGAIN || errno == ENOTCONN) {
            break;
        } else if (errno != EINTR) {
            return false;
        }
    }
    if (s->out_sent == s->out.len) {
        s->out_sent = s->out.len = 0;
    }
    const bool stuck = s->out.len > 0;
    if (stuck != s->armed) {
        bench_epoll(epoll, EPOLL_CTL_MOD, s->fd, stuck ? EPOLLIN | EPOLLOUT : EPOLLIN, s);
        s->armed = stuck;
    }
    return true;
}

/* The number of the next message: new ones first, then what was refused. */
static long take(void)
{
    if (run.begun < opt.total) {
        const double elapsed = opt.rate > 0 ? bench_seconds(CLOCK_MONOTONIC) - began_s : 0;
        if (opt.rate > 0 && (double)run.begun >= elapsed * opt.rate) {
            return NO_MESSAGE;
        }
        return run.begun++;
    }
    return run.again_len > 0 ? run.again[--run.again_len] : NO_MESSAGE;
}

static void put_again(long message)
{
    if (message != NO_MESSAGE) {
        run.again[run.again_len++] = message;
    }
}

static void mail(struct session *s)
{
    bench_require(bh_buf_printf(&s->out, "MAIL FROM:<sender@bench.test>\r\n") == BH_OK);
    expect(s, REPLY_MAIL);
}

static void rcpt(struct session *s, long message)
{
    bench_require(bh_buf_printf(&s->out, "RCPT TO:<u%ld@d%ld.%s>\r\n", message,
                                message % opt.domains, opt.zone) == BH_OK);
    expect(s, REPLY_RCPT);
}

static void envelope(struct session *s, long message)
{
    mail(s);
    if (s->mode > 0) {
        rcpt(s, message);
        command(s, BH_LIT("DATA\r\n"), REPLY_DATA);
    }
}

static void content(struct session *s)
{
    const long message = s->current;
    const double due =
        opt.rate > 0 ? began_unix_s + (double)message / opt.rate : bench_seconds(CLOCK_REALTIME);
    bench_require(bh_buf_printf(&s->out,
                                "From: <sender@bench.test>\r\nTo: <u%ld@d%ld.%s>\r\n"
                                "Subject: bench message %ld\r\nDate: %s\r\n"
                                "Message-ID: <%s.%ld@bench.test>\r\nX-Blast-Id: %s.%ld\r\n"
                                "X-Blast-Time: %.6f\r\nMIME-Version: 1.0\r\n"
                                "Content-Type: text/plain; charset=us-ascii\r\n\r\n",
                                message, message % opt.domains, opt.zone, message, date, opt.prefix,
                                message, opt.prefix, message, due) == BH_OK);
    put(s, bh_slice(body, (size_t)opt.size));
    command(s, BH_LIT(".\r\n"), REPLY_END);
    s->end_sent = bench_seconds(CLOCK_MONOTONIC);
}

static bool another(const struct session *s, long ended)
{
    return opt.per_session == 0 || s->done + ended < opt.per_session;
}

/* Nothing is under way on this session: begin the next message, if there is one and it is time. */
static void begin(struct session *s)
{
    s->refused = s->for_good = false;
    s->current = s->next;
    s->next = NO_MESSAGE;
    if (s->current != NO_MESSAGE) {
        return; /* Its envelope is out already. */
    }
    if (!another(s, 0)) {
        command(s, BH_LIT("QUIT\r\n"), REPLY_QUIT);
        return;
    }
    if (s->not_before > 0 && bench_seconds(CLOCK_MONOTONIC) < s->not_before) {
        return;
    }
    s->current = take();
    if (s->current != NO_MESSAGE) {
        envelope(s, s->current);
    }
}

static void open_session(struct session *s)
{
    s->fd = bench_socket();
    s->up = s->armed = false;
    s->mode = 0;
    s->done = 0;
    s->head = s->waiting = 0;
    s->out.len = s->out_sent = 0;
    s->in = bh_buf(s->in_storage, sizeof(s->in_storage));
    s->current = s->next = NO_MESSAGE;
    run.connections++;
    expect(s, REPLY_GREETING);
    if (connect(s->fd, (const struct sockaddr *)&opt.to, sizeof(opt.to)) != 0 &&
        errno != EINPROGRESS) {
        bench_die("connect");
    }
    bench_epoll(epoll, EPOLL_CTL_ADD, s->fd, EPOLLIN, s);
}

static void close_session(struct session *s, bool in_order)
{
    close(s->fd);
    s->fd = -1;
    run.lost += !in_order;
    s->not_before = in_order ? 0 : bench_seconds(CLOCK_MONOTONIC) + 0.05;
    put_again(s->current);
    put_again(s->next);
    s->current = s->next = NO_MESSAGE;
}

static void note_refusal(struct session *s, int code)
{
    run.replies_4xx += code / 100 == 4;
    run.replies_5xx += code / 100 == 5;
    s->refused = true;
    s->for_good = s->for_good || code / 100 == 5;
}

static void end_message(struct session *s)
{
    if (!s->refused) {
        run.latency_s[run.accepted++] = bench_seconds(CLOCK_MONOTONIC) - s->end_sent;
    } else if (s->for_good) {
        run.failed++;
    } else {
        put_again(s->current);
        s->not_before = bench_seconds(CLOCK_MONOTONIC) + 0.02;
    }
    s->current = NO_MESSAGE;
    s->done++;
}

static void on_data_reply(struct session *s, int code)
{
    if (code != 354) {
        if (!s->refused) {
            note_refusal(s, code);
        }
        end_message(s);
        command(s, BH_LIT("RSET\r\n"), REPLY_RSET);
        return;
    }
    if (s->refused) { /* No recipient, and yet 354: an empty message ends it. */
        command(s, BH_LIT(".\r\n"), REPLY_END);
        return;
    }
    content(s);
    if (s->mode == 2 && another(s, 1)) {
        s->next = take();
        if (s->next != NO_MESSAGE) {
            envelope(s, s->next);
        }
    }
}

/* MAIL or RCPT a command at a time: the next command, or RSET after a refusal. */
static void step(struct session *s, enum reply answered)
{
    if (s->refused) {
        end_message(s);
        command(s, BH_LIT("RSET\r\n"), REPLY_RSET);
    } else if (answered == REPLY_MAIL) {
        rcpt(s, s->current);
    } else {
        command(s, BH_LIT("DATA\r\n"), REPLY_DATA);
    }
}

/* One whole reply. False: the session is over. */
static bool on_reply(struct session *s, int code)
{
    if (s->waiting == 0) {
        return false; /* A server that gives up on an idle session. */
    }
    const enum reply what = s->expected[s->head];
    s->head = (s->head + 1) % REPLIES_MAX;
    s->waiting--;
    if (code == 421) {
        run.replies_421++;
        return false;
    }
    switch (what) {
    case REPLY_GREETING:
        command(s, BH_LIT("EHLO blast.bench.test\r\n"), REPLY_EHLO);
        return code == 220;
    case REPLY_EHLO:
        s->up = true;
        begin(s);
        return code == 250;
    case REPLY_MAIL:
    case REPLY_RCPT:
        if (code / 100 != 2) {
            note_refusal(s, code);
        }
        if (s->mode == 0) {
            step(s, what);
        }
        return true;
    case REPLY_DATA:
        on_data_reply(s, code);
        return true;
    case REPLY_END:
        if (code / 100 != 2 && !s->refused) {
            note_refusal(s, code);
        }
        end_message(s);
        begin(s);
        return true;
    case REPLY_RSET:
        begin(s);
        return true;
    case REPLY_QUIT:
        return false;
    }
    return false;
}

/* One line of a reply. False: the session is over. */
static bool on_line(struct session *s, struct bh_slice line)
{
    uint64_t code = 0;
    if (!bh_slice_u64(bh_slice_take(line, 3), 599, &code) || code < 200) {
        return false;
    }
    if (s->waiting > 0 && s->expected[s->head] == REPLY_EHLO &&
        bh_slice_starts_nocase(bh_slice_skip(line, 4), BH_LIT("PIPELINING"))) {
        s->mode = opt.mode;
    }
    return (line.len > 3 && line.ptr[3] == '-') || on_reply(s, (int)code);
}

static void on_input(struct session *s)
{
    const ssize_t n = recv(s->fd, s->in.ptr + s->in.len, bh_buf_room(&s->in), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        close_session(s, s->up && s->waiting == 0 && s->current == NO_MESSAGE);
        return;
    }
    s->in.len += (size_t)n;
    struct bh_slice rest = bh_buf_slice(&s->in);
    for (size_t end = bh_slice_find(rest, '\n'); end < rest.len; end = bh_slice_find(rest, '\n')) {
        const bool quits = s->waiting > 0 && s->expected[s->head] == REPLY_QUIT;
        if (!on_line(s, bh_slice_take(rest, end))) {
            close_session(s, quits);
            return;
        }
        rest = bh_slice_skip(rest, end + 1);
    }
    bh_buf_consume(&s->in, s->in.len - rest.len);
    if (bh_buf_room(&s->in) == 0 || !flush(s)) {
        close_session(s, false);
    }
}

/* Sessions that are closed or at rest begin again once it is their time. */
static void wake(struct session *sessions)
{
    const double now = bench_seconds(CLOCK_MONOTONIC);
    for (long i = 0; i < opt.sessions; i++) {
        struct session *s = &sessions[i];
        if (now < s->not_before || (run.begun == opt.total && run.again_len == 0)) {
            continue;
        }
        if (s->fd < 0) {
            open_session(s);
        } else if (s->up && s->waiting == 0 && s->current == NO_MESSAGE) {
            begin(s);
            if (!flush(s)) {
                close_session(s, false);
            }
        }
    }
}

static bool deliver_all(struct session *sessions)
{
    struct epoll_event events[256];
    while (run.accepted + run.failed < opt.total) {
        const int n = epoll_wait(epoll, events, 256, opt.rate > 0 ? 1 : 20);
        if (bench_seconds(CLOCK_MONOTONIC) - began_s > (double)opt.limit_s) {
            return false;
        }
        for (int i = 0; i < n; i++) {
            struct session *s = (struct session *)events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) != 0 && !flush(s)) {
                close_session(s, false);
            } else if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
                on_input(s);
            }
        }
        if (n == 0 || run.again_len > 0 || run.lost > 0 || opt.per_session > 0 || opt.rate > 0) {
            wake(sessions);
        }
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(double q)
{
    return run.accepted > 0 ? run.latency_s[(long)(q * (double)(run.accepted - 1) + 0.5)] * 1e3 : 0;
}

static void report(bool in_time)
{
    const double elapsed = bench_seconds(CLOCK_MONOTONIC) - began_s;
    const struct bench_cpu cpu = bench_cpu();
    qsort(run.latency_s, (size_t)run.accepted, sizeof(*run.latency_s), by_value);
    FILE *out = bench_report_open(opt.report);
    fprintf(out,
            "{\"tool\":\"blast\",\"accepted\":%ld,\"failed\":%ld,\"unfinished\":%ld,"
            "\"elapsed_s\":%.4f,\"msgs_s\":%.1f,\"latency_ms\":{\"p50\":%.3f,\"p90\":%.3f,"
            "\"p99\":%.3f,\"max\":%.3f},\"connections\":%ld,\"lost\":%ld,\"replies_4xx\":%ld,"
            "\"replies_5xx\":%ld,\"replies_421\":%ld,\"began\":%.6f,\"cpu_s\":%.4f,"
            "\"in_time\":%s}\n",
            run.accepted, run.failed, opt.total - run.accepted - run.failed, elapsed,
            (double)run.accepted / elapsed, percentile_ms(.5), percentile_ms(.9),
            percentile_ms(.99), percentile_ms(1), run.connections, run.lost, run.replies_4xx,
            run.replies_5xx, run.replies_421, began_unix_s, cpu.user_s + cpu.system_s,
            in_time ? "true" : "false");
    bench_report_close(out, opt.report);
}

/* Lines of 76 letters, the last one whole. */
static void make_body(void)
{
    const size_t size = (size_t)opt.size;
    body = (char *)bench_alloc(size);
    for (size_t i = 0; i < size; i++) {
        body[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (char)('a' + (i * 7 + i / 78) % 26);
    }
    for (size_t i = size - 3; i < size; i++) {
        body[i] = 'x';
    }
    if (body[size - 4] == '\r') {
        body[size - 4] = 'x';
    }
    body[size - 2] = '\r';
    body[size - 1] = '\n';
}

static void options(int argc, char **argv)
{
    const char *address = "127.0.0.1";
    long port = 2525;
    int o;
    while ((o = getopt(argc, argv, "a:p:c:m:n:s:d:z:P:R:I:t:o:")) != -1) {
        switch (o) {
        case 'a':
            address = optarg;
            break;
        case 'p':
            port = bench_number(optarg, 1, 65535);
            break;
        case 'c':
            opt.sessions = bench_number(optarg, 1, 100000);
            break;
        case 'm':
            opt.per_session = bench_number(optarg, 0, 1000000000);
            break;
        case 'n':
            opt.total = bench_number(optarg, 1, 1000000000);
            break;
        case 's':
            opt.size = bench_number(optarg, 8, 100000000);
            break;
        case 'd':
            opt.domains = bench_number(optarg, 1, 100000000);
            break;
        case 'z':
            opt.zone = optarg;
            break;
        case 'P':
            opt.mode = bench_number(optarg, 0, 2);
            break;
        case 'R':
            opt.rate = (double)bench_number(optarg, 1, 1000000);
            break;
        case 'I':
            opt.prefix = optarg;
            break;
        case 't':
            opt.limit_s = bench_number(optarg, 1, 1000000);
            break;
        case 'o':
            opt.report = optarg;
            break;
        default:
            fprintf(stderr, "the options are at the head of blast.c\n");
            exit(2);
        }
    }
    opt.to = bench_address(address, port);
    if (ntohl(opt.to.sin_addr.s_addr) >> 24 != 127) {
        errno = 0;
        bench_die("blast sends to loopback only");
    }
}

int main(int argc, char **argv)
{
    char prefix[64];
    options(argc, argv);
    bench_raise_limits();
    if (opt.prefix == NULL) {
        snprintf(prefix, sizeof(prefix), "%ld-%ld", (long)getpid(), (long)time(NULL));
        opt.prefix = prefix;
    }
    make_body();
    const time_t now = time(NULL);
    struct tm tm;
    (void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&now, &tm));
    run.latency_s = (double *)bench_alloc((size_t)opt.total * sizeof(double));
    run.again = (long *)bench_alloc((size_t)opt.total * sizeof(long));
    struct session *sessions =
        (struct session *)bench_alloc((size_t)opt.sessions * sizeof(struct session));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    began_unix_s = bench_seconds(CLOCK_REALTIME);
    began_s = bench_seconds(CLOCK_MONOTONIC);
    for (long i = 0; i < opt.sessions; i++) {
        const size_t room = (size_t)opt.size + 4096; /* A message and the next one's envelope. */
        sessions[i].out = bh_buf(bench_alloc(room), room);
        sessions[i].not_before = 0;
        open_session(&sessions[i]);
    }
    const bool in_time = deliver_all(sessions);
    report(in_time);
    for (long i = 0; i < opt.sessions; i++) {
        if (sessions[i].fd >= 0 && sessions[i].waiting == 0) {
            (void)send(sessions[i].fd, "QUIT\r\n", 6, MSG_NOSIGNAL);
        }
        free(sessions[i].out.ptr);
    }
    free(sessions);
    free(run.latency_s);
    free(run.again);
    free(body);
    return !in_time ? 3 : run.failed > 0 ? 1 : 0;
}
