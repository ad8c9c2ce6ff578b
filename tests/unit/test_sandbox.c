#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bh/sandbox.h"

/* Each test acts in a child of its own, since there is no way back out. */

#define NO_LANDLOCK 77
#define NO_SECCOMP 78

static char folder[64];

static const char *in_folder(const char *name, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name)
{
    char path[128];
    const int fd = open(in_folder(name, path), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "text", 4), 4);
    assert_int_equal(close(fd), 0);
}

static int make_folder(void **unused)
{
    char path[128];
    (void)unused;
    (void)snprintf(folder, sizeof(folder), "/tmp/bh-sandbox-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    const char *const names[] = {"readable", "writable", "sockets", "secret"};
    for (size_t i = 0; i < 4; i++) {
        if (mkdir(in_folder(names[i], path), 0700) != 0) {
            return 1;
        }
    }
    put_file("readable/a");
    put_file("writable/a");
    put_file("secret/a");
    return symlink("../secret/a", in_folder("readable/link", path));
}

static int remove_folder(void **unused)
{
    static const char *const names[] = {"readable/a", "readable/b", "readable/link", "writable/a",
                                        "writable/b", "sockets/s",  "secret/a",      "readable",
                                        "writable",   "sockets",    "secret",        "."};
    char path[128];
    (void)unused;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)remove(in_folder(names[i], path));
    }
    (void)rmdir(folder);
    return 0;
}

/* ---- in the child ---- */

/* The child's result: 0, or the line of the first check that failed. */
#define CHECK(condition)     \
    do {                     \
        if (!(condition)) {  \
            return __LINE__; \
        }                    \
    } while (0)
#define REFUSED(call, error) CHECK((errno = 0, (long)(call) == -1 && errno == (error)))

static void enter(struct bh_sandbox_result *result)
{
    char path[128];
    struct bh_sandbox *sandbox = bh_sandbox_create();
    if (sandbox == NULL) {
        _exit(1);
    }
    bh_sandbox_read_file(sandbox, in_folder("readable/a", path));
    bh_sandbox_write(sandbox, in_folder("writable", path));
    bh_sandbox_sockets(sandbox, in_folder("sockets", path));
    if (bh_sandbox_enter(sandbox, result) != BH_OK) {
        _exit(2);
    }
    bh_sandbox_destroy(sandbox);
}

/* @return the child's status as of waitpid; what it wrote to standard error is in `said` */
static int in_child(int (*act)(void), bool landlock, char *said, size_t cap)
{
    int ends[2];
    int status = 0;
    assert_int_equal(pipe(ends), 0);
    (void)fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct bh_sandbox_result result;
        (void)dup2(ends[1], STDERR_FILENO);
        enter(&result);
        if (landlock && result.landlock == 0) {
            _exit(NO_LANDLOCK);
        }
        if (!landlock && !result.seccomp) {
            _exit(NO_SECCOMP);
        }
        const int line = act();
        if (line != 0) {
            dprintf(STDERR_FILENO, "line %d errno %d\n", line, errno);
        }
        _exit(line == 0 ? 0 : 1);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t got = 1; got > 0 && len + 1 < cap;) {
        got = read(ends[0], said + len, cap - len - 1);
        len += got > 0 ? (size_t)got : 0;
    }
    said[len] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void succeeds(int (*act)(void), bool landlock)
{
    char said[512];
    if (!bh_sandbox_possible()) {
        skip();
    }
    const int status = in_child(act, landlock, said, sizeof(said));
    if (WIFEXITED(status) &&
        (WEXITSTATUS(status) == NO_LANDLOCK || WEXITSTATUS(status) == NO_SECCOMP)) {
        print_message("the kernel of this machine has no %s\n", landlock ? "Landlock" : "seccomp");
        skip();
    }
    if (status != 0) {
        print_message("%s (status %d)\n", said, status);
    }
    assert_int_equal(status, 0);
}

static void is_killed(int (*act)(void))
{
    char said[512];
    if (!bh_sandbox_possible()) {
        skip();
    }
    const int status = in_child(act, false, said, sizeof(said));
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SECCOMP) {
        skip();
    }
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* ---- files ---- */

static int touch_files(void)
{
    char path[128];
    char to[128];
    int fd = open(in_folder("readable/a", path), O_RDONLY);
    CHECK(fd >= 0 && close(fd) == 0);
    REFUSED(open(path, O_WRONLY), EACCES);
    REFUSED(open(in_folder("readable/b", path), O_WRONLY | O_CREAT, 0600), EACCES);
    REFUSED(open(in_folder("secret/a", path), O_RDONLY), EACCES);
    REFUSED(open(in_folder("readable/link", path), O_RDONLY), EACCES);
    REFUSED(open("/etc/shadow", O_RDONLY), EACCES);
    REFUSED(open("/proc/self/environ", O_RDONLY), EACCES);
    REFUSED(unlink(in_folder("readable/a", path)), EACCES);
    fd = open(in_folder("writable/b", path), O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && ftruncate(fd, 0) == 0 && close(fd) == 0);
    CHECK(rename(path, in_folder("writable/a", to)) == 0);
    REFUSED(rename(to, in_folder("secret/a", path)), EACCES);
    CHECK(unlink(to) == 0);
    REFUSED(symlink("/", in_folder("writable/b", path)), EPERM);
    return 0;
}

static void only_what_was_allowed_is_opened(void **unused)
{
    (void)unused;
    succeeds(touch_files, true);
}

/* Once the parent has replaced it by rename. */
static int wait_then_open(int replaced)
{
    char path[128];
    char octet;
    CHECK(read(replaced, &octet, 1) == 1);
    const int fd = open(in_folder("readable/a", path), O_RDONLY);
    CHECK(fd >= 0 && read(fd, &octet, 1) == 1 && octet == 'n');
    return 0;
}

static int bind_sockets(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char path[128];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(local.sun_path, in_folder("sockets/s", path), strlen(in_folder("sockets/s", path)) + 1);
    CHECK(bind(fd, (const struct sockaddr *)&local, sizeof(local)) == 0);
    CHECK(unlink(path) == 0);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(local.sun_path, in_folder("readable/s", path),
           strlen(in_folder("readable/s", path)) + 1);
    REFUSED(bind(fd, (const struct sockaddr *)&local, sizeof(local)), EACCES);
    REFUSED(open(in_folder("sockets/f", path), O_WRONLY | O_CREAT, 0600), EACCES);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (const struct sockaddr *)&tcp, sizeof(tcp)) == 0);
    return 0;
}

static void sockets_are_made_where_they_were_allowed(void **unused)
{
    (void)unused;
    succeeds(bind_sockets, true);
}

static int bind_a_port(void)
{
    struct sockaddr_in tcp = {
        .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(2525)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    REFUSED(bind(fd, (const struct sockaddr *)&tcp, sizeof(tcp)), EACCES);
    return 0;
}

static void no_port_is_bound_but_of_the_kernels_choice(void **unused)
{
    (void)unused;
    if (syscall(444, NULL, 0, 1) < 4) {
        print_message("the kernel's Landlock does not know TCP\n");
        skip();
    }
    succeeds(bind_a_port, true);
}

/* ---- system calls ---- */

static int run_program(void)
{
    char name[] = "/bin/true";
    char *const argv[] = {name, NULL};
    (void)execve(name, argv, NULL);
    return 1;
}

static int run_program_by_descriptor(void)
{
    char *const argv[] = {NULL};
    (void)syscall(SYS_execveat, 0, "", argv, argv, 0x1000);
    return 1;
}

static int watch_parent(void)
{
    (void)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
    return 1;
}

static int read_parent(void)
{
    (void)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
    return 1;
}

static int leave_namespace(void)
{
    (void)unshare(0);
    return 1;
}

static void means_of_an_intruder_end_the_process(void **unused)
{
    (void)unused;
    is_killed(run_program);
    is_killed(run_program_by_descriptor);
    is_killed(watch_parent);
    is_killed(read_parent);
    is_killed(leave_namespace);
}

static int ask_for_more(void)
{
    const size_t page = 4096;
    REFUSED(socket(AF_NETLINK, SOCK_RAW, 0), EPERM);
    REFUSED(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
    REFUSED(socket(AF_VSOCK, SOCK_STREAM, 0), EPERM);
    REFUSED(fork(), EPERM);
    REFUSED(kill(getppid(), 0), EPERM);
    REFUSED(setuid(0), EPERM);
    REFUSED(prctl(PR_SET_DUMPABLE, 1), EPERM);
    REFUSED(syscall(SYS_clone3, NULL, 0), ENOSYS);
    REFUSED(syscall(SYS_io_uring_setup, 1, NULL), ENOSYS);
    CHECK(mmap(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
               0) == MAP_FAILED &&
          errno == EPERM);
    char *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    REFUSED(mprotect(memory, page, PROT_READ | PROT_EXEC), EPERM);
    CHECK(mprotect(memory, page, PROT_READ) == 0);
    const int fd = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 || errno == EAFNOSUPPORT);
    return 0;
}

static void what_is_not_on_the_list_is_refused(void **unused)
{
    (void)unused;
    succeeds(ask_for_more, false);
}

static int ask_twice(void)
{
    REFUSED(setsid(), EPERM);
    REFUSED(setsid(), EPERM);
    return 0;
}

static void a_refusal_is_told_once(void **unused)
{
    char said[512];
    char wanted[64];
    (void)unused;
    if (!bh_sandbox_possible() || in_child(ask_twice, false, said, sizeof(said)) != 0) {
        skip();
    }
    (void)snprintf(wanted, sizeof(wanted), "evt=sandbox_denied syscall=%d\n", (int)SYS_setsid);
    assert_string_equal(said, wanted);
}

static void *try_all(void *unused)
{
    (void)unused;
    static char bad;
    return ask_for_more() == 0 && touch_files() == 0 ? NULL : &bad;
}

static int in_a_thread(void)
{
    pthread_t thread;
    void *result = NULL;
    CHECK(pthread_create(&thread, NULL, try_all, NULL) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == NULL);
    return 0;
}

static void threads_are_in_it_from_their_start(void **unused)
{
    (void)unused;
    put_file("writable/a");
    succeeds(in_a_thread, true);
}

/* ---- start ---- */

static void *wait_for_end(void *lock)
{
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

static void it_is_not_entered_beside_other_threads(void **unused)
{
    (void)unused;
    (void)fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        pthread_t thread;
        struct bh_sandbox_result result;
        struct bh_sandbox *sandbox = bh_sandbox_create();
        pthread_mutex_lock(&lock);
        const bool good = sandbox != NULL &&
                          pthread_create(&thread, NULL, wait_for_end, &lock) == 0 &&
                          bh_sandbox_enter(sandbox, &result) == BH_EIO &&
                          open("/proc/self/status", O_RDONLY) >= 0;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_file_that_takes_anothers_place_is_read(void **unused)
{
    char path[128];
    char to[128];
    int status = 0;
    int ends[2];
    (void)unused;
    if (!bh_sandbox_possible()) {
        skip();
    }
    assert_int_equal(pipe(ends), 0);
    (void)fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct bh_sandbox_result result;
        enter(&result);
        _exit(wait_then_open(ends[0]) == 0 ? 0 : 1);
    }
    const int fd = open(in_folder("readable/b", path), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "new", 3), 3);
    assert_int_equal(close(fd), 0);
    assert_int_equal(rename(path, in_folder("readable/a", to)), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_what_was_allowed_is_opened, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_file_that_takes_anothers_place_is_read, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(sockets_are_made_where_they_were_allowed, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(no_port_is_bound_but_of_the_kernels_choice, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(means_of_an_intruder_end_the_process, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(what_is_not_on_the_list_is_refused, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_refusal_is_told_once, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(threads_are_in_it_from_their_start, make_folder,
                                        remove_folder),
        cmocka_unit_test(it_is_not_entered_beside_other_threads),
    };
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
