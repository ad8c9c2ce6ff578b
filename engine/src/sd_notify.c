#include "sd_notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_FDS_START 3

void sd_notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(address.sun_path)) {
        return;
    }
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* the abstract namespace */
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    const socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    const ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                                (const struct sockaddr *)(const void *)&address, len);
    (void)sent; /* a manager that does not listen is its own trouble */
    close(fd);
}

uint64_t sd_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid())) {
        return 0;
    }
    errno = 0;
    const unsigned long long value = strtoull(usec, NULL, 10);
    return errno == 0 ? value / 2000 : 0;
}

static void name_of(int index, char *name, size_t cap)
{
    const char *names = getenv("LISTEN_FDNAMES");
    snprintf(name, cap, "unknown");
    for (int i = 0; names != NULL; i++) {
        const char *colon = strchr(names, ':');
        const size_t len = colon != NULL ? (size_t)(colon - names) : strlen(names);
        if (i == index && len > 0) {
            snprintf(name, cap, "%.*s", (int)len, names);
        }
        names = colon != NULL ? colon + 1 : NULL;
    }
}

int sd_listen_fds(struct sd_listen_fd fds[SD_LISTEN_MAX])
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid()) {
        return 0;
    }
    long n = strtol(count, NULL, 10);
    n = n < 0 ? 0 : n > SD_LISTEN_MAX ? SD_LISTEN_MAX : n;
    for (int i = 0; i < (int)n; i++) {
        fds[i].fd = LISTEN_FDS_START + i;
        name_of(i, fds[i].name, sizeof(fds[i].name));
        const int flags = fcntl(fds[i].fd, F_GETFD);
        if (flags < 0 || fcntl(fds[i].fd, F_SETFD, flags | FD_CLOEXEC) < 0) {
            return i;
        }
    }
    return (int)n;
}
