/* Opening what the configuration says to listen on. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bh/intake.h"

static uint16_t port_of(int fd)
{
    struct sockaddr_in v4;
    socklen_t len = sizeof(v4);
    return getsockname(fd, (struct sockaddr *)&v4, &len) == 0 ? ntohs(v4.sin_port) : 0;
}

/* In a process of its own, since the descriptors have to be 3 and 4. Returns what went wrong, or 0.
 */
static int find_inherited(void)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct bh_intake_sockets sockets;
    char text[256];
    char pid[32];
    struct bh_buf error = bh_buf(text, sizeof(text));
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int first = socket(AF_INET, SOCK_STREAM, 0);
    const int second = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(first, (struct sockaddr *)&v4, sizeof(v4)) != 0 ||
        bind(second, (struct sockaddr *)&v4, sizeof(v4)) != 0) {
        return 1;
    }
    const uint16_t port = port_of(second);
    const int kept = dup(second);
    if (dup2(first, 3) != 3 || dup2(kept, 4) != 4) {
        return 2;
    }
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "other:smtp", 1);
    struct bh_listen_config listen = {
        .text = BH_LIT("systemd:smtp"), .kind = BH_LISTEN_SYSTEMD, .path = BH_LIT("smtp")};
    if (bh_intake_bind(&listen, 2, &sockets, &error) != BH_OK || sockets.count != 2 ||
        port_of(sockets.fds[0]) != port || port_of(sockets.fds[1]) != port) {
        return 3;
    }
    listen.path = BH_LIT("nobody");
    if (bh_intake_bind(&listen, 1, &sockets, &error) != BH_ENOTFOUND || error.len == 0) {
        return 4;
    }
    setenv("LISTEN_PID", "1", 1); /* Meant for another process. */
    listen.path = BH_LIT("smtp");
    return bh_intake_bind(&listen, 1, &sockets, &error) == BH_ENOTFOUND ? 0 : 5;
}

static void inherited_sockets_are_found_by_name(void **unused)
{
    (void)unused;
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(find_inherited());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void workers_share_a_port(void **unused)
{
    (void)unused;
    struct bh_intake_sockets sockets;
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_listen_config listen = {.text = BH_LIT("127.0.0.1:0"), .kind = BH_LISTEN_TCP};
    assert_true(bh_ip_parse(BH_LIT("127.0.0.1"), &listen.ip));
    assert_int_equal(bh_intake_bind(&listen, 3, &sockets, &error), BH_OK);
    assert_int_equal(sockets.count, 3);
    assert_true(sockets.port != 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(port_of(sockets.fds[i]), sockets.port);
        close(sockets.fds[i]);
    }
    listen.ip.bytes[0] = 192; /* 192.0.0.1: not an address of this machine */
    assert_int_equal(bh_intake_bind(&listen, 1, &sockets, &error), BH_EIO);
    assert_true(bh_slice_find_slice(bh_buf_slice(&error), BH_LIT("bind")) < error.len);
}

static enum bh_status bind_path(const char *path, struct bh_intake_sockets *sockets)
{
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    const struct bh_listen_config listen = {
        .text = BH_LIT("unix"), .kind = BH_LISTEN_UNIX, .path = bh_slice_str(path)};
    return bh_intake_bind(&listen, 1, sockets, &error);
}

/* What a dead process left is replaced; a socket in use, or another file, is not. */
static void only_a_stale_socket_is_replaced(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/bh-bind-XXXXXX";
    char path[64];
    char too_long[256];
    struct bh_intake_sockets sockets;
    struct bh_intake_sockets again;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/s", folder);
    assert_int_equal(bind_path(path, &sockets), BH_OK);
    assert_int_equal(listen(sockets.fds[0], 1), 0);
    assert_int_equal(bind_path(path, &again), BH_EIO);
    close(sockets.fds[0]);
    assert_int_equal(bind_path(path, &again), BH_OK);
    close(again.fds[0]);
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(bind_path(path, &again), BH_EIO);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    rmdir(folder);
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    assert_int_equal(bind_path(too_long, &again), BH_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inherited_sockets_are_found_by_name),
        cmocka_unit_test(workers_share_a_port),
        cmocka_unit_test(only_a_stale_socket_is_replaced),
    };
    return cmocka_run_group_tests_name("intake_bind", tests, NULL, NULL);
}
