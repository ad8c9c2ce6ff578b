/* sd_notify.h - what systemd wants to hear and gives (sd_notify(3), sd_listen_fds(3)), without its
 * library: a datagram, and some environment variables. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** Tell the service manager, such as "READY=1"; nothing happens without one. Any thread. */
void sd_notify_send(const char *state);
/** Half of the watchdog's interval in ms, or 0 without a watchdog for this process. */
uint64_t sd_watchdog_ms(void);

#define SD_LISTEN_MAX 64

struct sd_listen_fd {
    int fd;
    char name[64]; /* as in FileDescriptorName=, "unknown" without one */
};

/** Sockets handed over at start (LISTEN_PID is checked); they are made close-on-exec.
 * @return how many */
int sd_listen_fds(struct sd_listen_fd fds[SD_LISTEN_MAX]);
