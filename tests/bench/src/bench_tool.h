/* bench_tool.h - what the tools of the benchmark share: clocks, numbers of the command line,
 * sockets. They are programs of one thread that end at the first thing that cannot be: no error is
 * carried. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <netinet/in.h>

struct bench_cpu {
    double user_s;
    double system_s;
    long rss_max_kib;
};

/** The time of a clock, in seconds. */
double bench_seconds(clockid_t clock);
/** End the program with a message, and errno's text if it is not 0. */
_Noreturn void bench_die(const char *what);
/** What must hold for the tool to make sense, side effects and all. */
void bench_require(bool holds);
/** A number of the command line between `min` and `max`; anything else ends the program. */
long bench_number(const char *text, long min, long max);
/** "ADDR:PORT", or ADDR with the port given apart if `port` is not 0. */
struct sockaddr_in bench_address(const char *text, long port);
/** A non-blocking TCP socket that does not wait to fill segments. */
int bench_socket(void);
int bench_listen(const struct sockaddr_in *address);
/** As many descriptors as the system grants. */
void bench_raise_limits(void);
/** A descriptor that is readable after SIGUSR1, SIGTERM or SIGINT. */
int bench_signals(void);
/** Which of them came next; 0 if none. */
int bench_signal_next(int fd);
void bench_epoll(int epoll, int op, int fd, uint32_t events, void *data);
void *bench_alloc(size_t size);
struct bench_cpu bench_cpu(void);
/** Where a report goes: `path`, written whole and then renamed into place, or standard output. */
FILE *bench_report_open(const char *path);
void bench_report_close(FILE *file, const char *path);
