/* The system calls of the daemon, measured by running all integration tests under the filter, and
 * what the libraries below it are known to fall back to.
 *
 *  - on the list, some with bounds on their arguments: allowed
 *  - a means to run, watch or own another program, or to reach deeper into the kernel: the process
 *    ends. Nothing that we link ever asks for one, so who does is an intruder
 *  - anything else: EPERM and a line in the log, once each, by way of SIGSYS. A library that learns
 * to use another call must not bring the queue down; ENOSYS for calls newer than this list, since
 *    libraries try those first and know what to do then */
#define _GNU_SOURCE
#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#include "sandbox_internal.h"

#ifndef CLONE_THREAD
#define CLONE_THREAD 0x00010000
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* names of mappings, by newer C libraries */
#endif
#define NEW_CALLS 424 /* from here on all architectures count alike (Linux 5.1) */

static const char *const allowed[] = {
    /* memory */
    "brk", "madvise", "mremap", "msync", "munmap",
    /* threads, signals, time */
    "clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex",
    "futex_time64", "get_robust_list", "getcpu", "getitimer", "gettimeofday", "membarrier",
    "nanosleep", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigtimedwait", "sched_getaffinity", "sched_yield", "set_robust_list",
    "sigaltstack", "time",
    /* who and where we are */
    "getegid", "geteuid", "getgid", "getgroups", "getpid", "getppid", "getrandom", "getresgid",
    "getresuid", "getrusage", "gettid", "getuid", "sysinfo", "times", "uname",
    /* files */
    "access", "chmod", "chown", "close", "close_range", "dup", "dup2", "dup3", "faccessat",
    "faccessat2", "fadvise64", "fallocate", "fchmod", "fchmodat", "fchown", "fchownat", "fcntl",
    "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents",
    "getdents64", "lseek", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "pread64",
    "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readlink", "readlinkat",
    "readv", "rename", "renameat", "renameat2", "stat", "statfs", "statx", "sync_file_range",
    "umask", "unlink", "unlinkat", "write", "writev",
    /* events and sockets */
    "accept", "accept4", "bind", "connect", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "getpeername",
    "getsockname", "getsockopt", "listen", "pipe", "pipe2", "poll", "ppoll", "pselect6", "recvfrom",
    "recvmmsg", "recvmsg", "select", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"};

static const char *const deadly[] = {"add_key",
                                     "bpf",
                                     "chroot",
                                     "delete_module",
                                     "execve",
                                     "execveat",
                                     "finit_module",
                                     "fork",
                                     "init_module",
                                     "ioperm",
                                     "iopl",
                                     "kcmp",
                                     "kexec_file_load",
                                     "kexec_load",
                                     "keyctl",
                                     "modify_ldt",
                                     "mount",
                                     "move_mount",
                                     "open_by_handle_at",
                                     "open_tree",
                                     "perf_event_open",
                                     "personality",
                                     "pidfd_getfd",
                                     "pivot_root",
                                     "process_madvise",
                                     "process_vm_readv",
                                     "process_vm_writev",
                                     "ptrace",
                                     "reboot",
                                     "request_key",
                                     "setns",
                                     "swapoff",
                                     "swapon",
                                     "umount2",
                                     "unshare",
                                     "userfaultfd",
                                     "vfork"};

/* ---- what is neither ---- */

static atomic_uint_fast64_t told[16]; /* one bit a call */

static void tell(int number)
{
    char line[64];
    const unsigned n = (unsigned)number % (64 * BH_COUNT(told));
    const uint_fast64_t bit = (uint_fast64_t)1 << n % 64;
    if ((atomic_fetch_or(&told[n / 64], bit) & bit) != 0) {
        return;
    }
    /* In a signal handler, perhaps within the allocator: digits are put by hand. */
    static const char text[] = "evt=sandbox_denied syscall=";
    size_t len = sizeof(text) - 1;
    memcpy(line, text, len);
    char digits[16];
    size_t count = 0;
    for (unsigned rest = (unsigned)number; count == 0 || rest > 0; rest /= 10) {
        digits[count++] = (char)('0' + rest % 10);
    }
    while (count > 0) {
        line[len++] = digits[--count];
    }
    line[len++] = '\n';
    const ssize_t written = write(STDERR_FILENO, line, len);
    (void)written;
}

/* The call was not made; its result is what we put into the register of results. */
static void on_denied(int signum, siginfo_t *info, void *context)
{
    const int kept = errno;
    ucontext_t *at = context;
    const int number = info->si_syscall;
    const int error = number >= NEW_CALLS ? ENOSYS : EPERM;
    (void)signum;
#if defined(__x86_64__)
    at->uc_mcontext.gregs[REG_RAX] = -error;
#elif defined(__aarch64__)
    at->uc_mcontext.regs[0] = (unsigned long long)-(long long)error;
#else
    (void)at;
    (void)error;
#endif
    if (error == EPERM) {
        tell(number);
    }
    errno = kept;
}

static uint32_t denied_action(void)
{
#if defined(__x86_64__) || defined(__aarch64__)
    return SCMP_ACT_TRAP;
#else
    return SCMP_ACT_ERRNO(EPERM);
#endif
}

/* ---- the filter ---- */

/* 0 also for a call that this architecture does not have. */
static int add(scmp_filter_ctx filter, uint32_t action, const char *name)
{
    const int number = seccomp_syscall_resolve_name(name);
    return number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(filter, action, number, 0);
}

static int allow_if(scmp_filter_ctx filter, const char *name, struct scmp_arg_cmp condition)
{
    const int number = seccomp_syscall_resolve_name(name);
    return number == __NR_SCMP_ERROR
               ? 0
               : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &condition);
}

static struct scmp_arg_cmp masked(unsigned arg, scmp_datum_t mask, scmp_datum_t value)
{
    return (struct scmp_arg_cmp){
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

/* An int of the C library's call: what stands above it in the register means nothing. */
static struct scmp_arg_cmp is(unsigned arg, unsigned value)
{
    return masked(arg, UINT32_MAX, value);
}

static int add_memory(scmp_filter_ctx filter)
{
    /* Never both writable and executable; nothing becomes executable that was not mapped so. */
    const scmp_datum_t both = PROT_WRITE | PROT_EXEC;
    int error = 0;
    for (unsigned i = 0; i < 2; i++) {
        const char *name = i == 0 ? "mmap" : "mmap2";
        error |= allow_if(filter, name, masked(2, both, 0));
        error |= allow_if(filter, name, masked(2, both, PROT_WRITE));
        error |= allow_if(filter, name, masked(2, both, PROT_EXEC));
    }
    return error | allow_if(filter, "mprotect", masked(2, PROT_EXEC, 0));
}

static int add_bounded(scmp_filter_ctx filter)
{
    static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6};
    static const unsigned requests[] = {FIONBIO, FIONREAD, FIOCLEX, TCGETS, TIOCGWINSZ};
    static const unsigned options[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_SET_VMA};
    int error = add_memory(filter);
    for (size_t i = 0; i < BH_COUNT(families); i++) {
        error |= allow_if(filter, "socket", is(0, families[i]));
    }
    error |= allow_if(filter, "socketpair", is(0, AF_UNIX));
    for (size_t i = 0; i < BH_COUNT(requests); i++) {
        error |= allow_if(filter, "ioctl", is(1, requests[i]));
    }
    for (size_t i = 0; i < BH_COUNT(options); i++) {
        error |= allow_if(filter, "prctl", is(0, options[i]));
    }
    /* Threads, no processes: what clone3 asks for a filter cannot read, so there is none. */
    error |= allow_if(filter, "clone", masked(0, CLONE_THREAD, CLONE_THREAD));
    /* An abort of our own, and nobody else's. */
    error |= allow_if(filter, "tgkill", is(0, (unsigned)getpid()));
    /* Bounds are read, not changed. */
    error |= allow_if(filter, "prlimit64", masked(2, UINT64_MAX, 0));
    error |= add(filter, SCMP_ACT_ALLOW, "getrlimit");
    return error | add(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3");
}

static int build(scmp_filter_ctx filter)
{
    int error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    error |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    error |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
    error |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (size_t i = 0; i < BH_COUNT(allowed); i++) {
        error |= add(filter, SCMP_ACT_ALLOW, allowed[i]);
    }
    for (size_t i = 0; i < BH_COUNT(deadly); i++) {
        error |= add(filter, SCMP_ACT_KILL_PROCESS, deadly[i]);
    }
    return error | add_bounded(filter);
}

int sandbox_seccomp(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART};
    action.sa_sigaction = on_denied;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, NULL) != 0) {
        return errno;
    }
    scmp_filter_ctx filter = seccomp_init(denied_action());
    if (filter == NULL) {
        return ENOMEM;
    }
    const int error = build(filter) != 0 ? EINVAL : -seccomp_load(filter);
    seccomp_release(filter);
    return error;
}
