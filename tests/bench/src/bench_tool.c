#include "bench_tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

double bench_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

_Noreturn void bench_die(const char *what)
{
    if (errno != 0) {
        perror(what);
    } else {
        fprintf(stderr, "%s\n", what);
    }
    exit(2);
}

void bench_require(bool holds)
{
    if (!holds) {
        errno = 0;
        bench_die("a buffer of this tool is too small for what it was asked to do");
    }
}

long bench_number(const char *text, long min, long max)
{
    char *end = NULL;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        fprintf(stderr, "not a number between %ld and %ld: %s\n", min, max, text);
        exit(2);
    }
    return value;
}

struct sockaddr_in bench_address(const char *text, long port)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = port == 0 ? strrchr(text, ':') : text + strlen(text);
    struct sockaddr_in address = {.sin_family = AF_INET};
    const size_t len = colon != NULL ? (size_t)(colon - text) : sizeof(host);
    if (len >= sizeof(host)) {
        errno = 0;
        bench_die("an address is ADDR:PORT");
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (port == 0) {
        port = bench_number(text + len + 1, 1, 65535);
    }
    address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        errno = 0;
        bench_die("not an IPv4 address");
    }
    return address;
}

int bench_socket(void)
{
    const int one = 1;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
        bench_die("socket");
    }
    return fd;
}

int bench_listen(const struct sockaddr_in *address)
{
    const int one = 1;
    const int fd = bench_socket(); /* Accepted connections inherit TCP_NODELAY. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ||
        listen(fd, 4096) != 0) {
        bench_die("listen");
    }
    return fd;
}

void bench_raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int bench_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    const int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0) {
        bench_die("signalfd");
    }
    return fd;
}

int bench_signal_next(int fd)
{
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

void bench_epoll(int epoll, int op, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, op, fd, &event) != 0) {
        bench_die("epoll_ctl");
    }
}

void *bench_alloc(size_t size)
{
    void *p = malloc(size);
    if (p == NULL) {
        bench_die("malloc");
    }
    return p;
}

struct bench_cpu bench_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (struct bench_cpu){
        .user_s = (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6,
        .system_s = (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6,
        .rss_max_kib = u.ru_maxrss,
    };
}

static void partial_name(char *out, const char *path)
{
    if (snprintf(out, PATH_MAX, "%s.part", path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        bench_die(path);
    }
}

FILE *bench_report_open(const char *path)
{
    char part[PATH_MAX];
    if (path == NULL) {
        return stdout;
    }
    partial_name(part, path);
    FILE *file = fopen(part, "we");
    if (file == NULL) {
        bench_die(part);
    }
    return file;
}

void bench_report_close(FILE *file, const char *path)
{
    char part[PATH_MAX];
    if (path == NULL) {
        (void)fflush(file);
        return;
    }
    partial_name(part, path);
    if (fclose(file) != 0 || rename(part, path) != 0) {
        bench_die(path);
    }
}
