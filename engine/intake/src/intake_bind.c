#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bh/intake.h"

#define INHERITED_FIRST 3 /* SD_LISTEN_FDS_START of sd_listen_fds(3) */

#ifndef SO_REUSEPORT
#define SO_REUSEPORT 15 /* Linux; POSIX names do not include it */
#endif

/* Of the error itself only what fits is said. */
static enum bh_status say(struct bh_buf *error, const struct bh_listen_config *listen,
                          const char *what, int number)
{
    char text[256];
    const char *why = number != 0 ? strerror(number) : "";
    const int len = snprintf(text, sizeof(text), "listen %.*s: %s%s%s", BH_FMT(listen->text), what,
                             number != 0 ? ": " : "", why);
    if (len > 0) {
        bh_buf_add_cut(error,
                       bh_slice(text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1));
    }
    return BH_EIO;
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

static socklen_t tcp_address(const struct bh_ip *ip, uint16_t port, union address *address)
{
    memset(address, 0, sizeof(*address));
    if (ip->family == 6) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons(port);
        memcpy(&address->v6.sin6_addr, ip->bytes, 16);
        return sizeof(address->v6);
    }
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = htons(port);
    memcpy(&address->v4.sin_addr, ip->bytes, 4);
    return sizeof(address->v4);
}

static bool prepare_tcp(int fd, uint8_t family)
{
    const int on = 1;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
           (family != 6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0);
}

static enum bh_status bind_tcp(const struct bh_listen_config *listen, uint16_t *port, int *fd,
                               struct bh_buf *error)
{
    union address address;
    socklen_t len = tcp_address(&listen->ip, *port, &address);
    *fd = socket(address.any.sa_family, SOCK_STREAM, 0);
    if (*fd < 0 || !prepare_tcp(*fd, listen->ip.family)) {
        return say(error, listen, "socket", errno);
    }
    if (bind(*fd, &address.any, len) != 0) {
        return say(error, listen, "bind", errno);
    }
    len = sizeof(address);
    if (getsockname(*fd, &address.any, &len) != 0) {
        return say(error, listen, "getsockname", errno);
    }
    *port = ntohs(listen->ip.family == 6 ? address.v6.sin6_port : address.v4.sin_port);
    return BH_OK;
}

/* A socket file that nobody listens on is what a dead process left behind. */
static bool is_stale(const union address *address, socklen_t len)
{
    struct stat st;
    if (stat(address->local.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) {
        return false;
    }
    const bool refused = connect(fd, &address->any, len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static enum bh_status bind_unix(const struct bh_listen_config *listen, int *fd,
                                struct bh_buf *error)
{
    union address address;
    memset(&address, 0, sizeof(address));
    address.local.sun_family = AF_UNIX;
    if (listen->path.len == 0 || listen->path.len >= sizeof(address.local.sun_path)) {
        say(error, listen, "the path is empty or too long for a socket", 0);
        return BH_EINVAL;
    }
    memcpy(address.local.sun_path, listen->path.ptr, listen->path.len);
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (*fd < 0 || fcntl(*fd, F_SETFD, FD_CLOEXEC) != 0) {
        return say(error, listen, "socket", errno);
    }
    if (is_stale(&address, sizeof(address.local))) {
        unlink(address.local.sun_path);
    }
    if (bind(*fd, &address.any, sizeof(address.local)) != 0) {
        return say(error, listen, "bind", errno);
    }
    return BH_OK;
}

/* sd_listen_fds(3): descriptors from 3 on, LISTEN_FDS of them, with names in LISTEN_FDNAMES. */
static enum bh_status find_inherited(const struct bh_listen_config *listen, int *fd,
                                     struct bh_buf *error)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    uint64_t count = 0;
    uint64_t owner = 0;
    if (pid == NULL || fds == NULL || !bh_slice_u64(bh_slice_str(fds), 1024, &count) ||
        !bh_slice_u64(bh_slice_str(pid), INT32_MAX, &owner) || owner != (uint64_t)getpid()) {
        say(error, listen, "no sockets were passed in (LISTEN_FDS)", 0);
        return BH_ENOTFOUND;
    }
    struct bh_slice rest = names == NULL ? BH_EMPTY : bh_slice_str(names);
    for (uint64_t i = 0; i < count; i++) {
        const size_t colon = bh_slice_find(rest, ':');
        if (bh_slice_eq(bh_slice_take(rest, colon), listen->path) ||
            (count == 1 && names == NULL)) {
            *fd = dup(INHERITED_FIRST + (int)i);
            return *fd >= 0 ? BH_OK : say(error, listen, "dup", errno);
        }
        rest = bh_slice_skip(rest, colon + 1);
    }
    say(error, listen, "no socket of this name was passed in (LISTEN_FDNAMES)", 0);
    return BH_ENOTFOUND;
}

static enum bh_status open_one(const struct bh_listen_config *listen,
                               struct bh_intake_sockets *sockets, uint32_t i, struct bh_buf *error)
{
    int *fd = &sockets->fds[i];
    if (listen->kind != BH_LISTEN_TCP && i > 0) {
        *fd = dup(sockets->fds[0]);
        return *fd >= 0 ? BH_OK : say(error, listen, "dup", errno);
    }
    switch (listen->kind) {
    case BH_LISTEN_TCP:
        return bind_tcp(listen, &sockets->port, fd, error);
    case BH_LISTEN_UNIX:
        return bind_unix(listen, fd, error);
    case BH_LISTEN_SYSTEMD:
        return find_inherited(listen, fd, error);
    }
    return BH_EINVAL;
}

enum bh_status bh_intake_bind(const struct bh_listen_config *listen, uint32_t workers,
                              struct bh_intake_sockets *sockets, struct bh_buf *error)
{
    BH_ASSERT(workers >= 1 && workers <= BH_INTAKE_SOCKETS_MAX);
    struct bh_intake_sockets opened = {.port = listen->port};
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < workers && status == BH_OK; i++) {
        opened.fds[i] = -1;
        opened.count = i + 1;
        status = open_one(listen, &opened, i, error);
    }
    if (status == BH_OK) {
        *sockets = opened;
        return BH_OK;
    }
    for (uint32_t i = 0; i < opened.count; i++) {
        if (opened.fds[i] >= 0) {
            close(opened.fds[i]);
        }
    }
    return status;
}
