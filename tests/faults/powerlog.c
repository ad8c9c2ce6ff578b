/* powerlog.c - in front of the daemon (LD_PRELOAD): a log of what becomes of the queue's file, so
 * that tests/integration/support/powerlog.py can make from it what a power cut at any moment could
 * leave.
 *
 *   BH_POWERLOG         the log; several processes may append to it, one after the other
 *   BH_POWERLOG_FOLDER  the queue's folder: its data.mdb is what is logged, from when it is new.mdb
 *   BH_POWERLOG_FAULT   a fault planted to see that the test finds it: `nosync`, where fdatasync
 * and fsync of data.mdb do nothing; `nodsync`, where O_DSYNC is left out
 *
 * Each record goes to the log in one appending write, so the order of the log is an order in time
 * that all threads and processes agree with:
 *
 *   write  before the call, since from then on any of its sectors may land; done after it
 *   sync   before and after: what was done before it began is durable once it has ended
 *   ack    before a socket is given "250 ... queued as ID": whoever saw the reply, the log has it
 *          earlier. An engine that spoke too early is found, however long the octets took.
 *
 * Calls go to the kernel directly; nothing here takes a lock, allocates, or fails quietly: a log
 * that can't be written ends the process, and so a call whose effect would not be modelled. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    KIND_OPEN = 'O',
    KIND_NAME = 'N', /* new.mdb is data.mdb from now on */
    KIND_WRITE = 'W',
    KIND_DONE = 'E', /* of the write with the same serial */
    KIND_SYNC = 'F',
    KIND_SYNCED = 'S', /* of the sync with the same serial */
    KIND_ACK = 'A',
};

/* What a descriptor stands for; also the `what` of a record. */
enum what { WHAT_NOTHING, WHAT_DATA, WHAT_DATA_DSYNC, WHAT_FOLDER, WHAT_PARENT };

#define FLAG_DURABLE 1 /* of KIND_DONE: written through */
#define FLAG_NAMED 1   /* of KIND_OPEN: as data.mdb */

struct record {
    uint64_t magic;
    uint8_t kind;
    uint8_t flags;
    uint16_t what;
    uint32_t pid;
    uint64_t serial;
    uint64_t offset;
    uint64_t
        len; /* octets that follow; then the magic number again: kill -9 can tear the last record */
};

#define MAGIC UINT64_C(0x9d06ce676f6c7062)
#define DESCRIPTORS 4096
#define PIECES 128 /* of one writev; LMDB gives 64 */

static int log_fd = -1;
static char data_path[PATH_MAX];
static char new_path[PATH_MAX];
static char folder_path[PATH_MAX];
static char parent_path[PATH_MAX];
static bool fault_nosync;
static bool fault_nodsync;
static atomic_uchar what_of[DESCRIPTORS];
static atomic_uint serials;

static _Noreturn void give_up(const char *why)
{
    dprintf(STDERR_FILENO, "evt=bug powerlog=\"%s\"\n", why);
    abort();
}

/* ---- the log ---- */

static void append(struct record record, const struct iovec *pieces, int count)
{
    uint64_t magic = MAGIC;
    struct iovec all[PIECES + 2] = {{.iov_base = &record, .iov_len = sizeof(record)}};
    if (count > PIECES) {
        give_up("more pieces than expected");
    }
    record.magic = magic;
    record.pid = (uint32_t)getpid();
    record.len = 0;
    for (int i = 0; i < count; i++) {
        all[i + 1] = pieces[i];
        record.len += pieces[i].iov_len;
    }
    all[count + 1] = (struct iovec){.iov_base = &magic, .iov_len = sizeof(magic)};
    const int saved = errno;
    const long len = (long)(sizeof(record) + record.len + sizeof(magic));
    if (syscall(SYS_writev, log_fd, all, count + 2) != len) {
        give_up("the log can not be written");
    }
    errno = saved;
}

static void note(enum kind kind, enum what what, unsigned flags, uint32_t serial)
{
    append((struct record){.kind = (uint8_t)kind,
                           .flags = (uint8_t)flags,
                           .what = (uint16_t)what,
                           .serial = serial},
           NULL, 0);
}

static uint32_t next_serial(void)
{
    return atomic_fetch_add(&serials, 1);
}

static enum what what_is(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && log_fd >= 0 ? (enum what)atomic_load(&what_of[fd])
                                                      : WHAT_NOTHING;
}

static bool is_data(int fd)
{
    return what_is(fd) == WHAT_DATA || what_is(fd) == WHAT_DATA_DSYNC;
}

static void copy_path(char *to, const char *folder, const char *name)
{
    if (snprintf(to, PATH_MAX, "%s%s", folder, name) >= PATH_MAX) {
        give_up("a path is too long");
    }
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("BH_POWERLOG");
    const char *folder = getenv("BH_POWERLOG_FOLDER");
    const char *fault = getenv("BH_POWERLOG_FAULT");
    if (path == NULL || folder == NULL) {
        return;
    }
    copy_path(data_path, folder, "/data.mdb");
    copy_path(new_path, folder, "/new.mdb");
    copy_path(folder_path, folder, "");
    copy_path(parent_path, folder, "/..");
    fault_nosync = fault != NULL && strcmp(fault, "nosync") == 0;
    fault_nodsync = fault != NULL && strcmp(fault, "nodsync") == 0;
    log_fd =
        (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (log_fd < 0) {
        give_up("the log can not be opened");
    }
}

/* ---- open and close ---- */

static enum what what_at(const char *path, int flags)
{
    if (log_fd < 0) {
        return WHAT_NOTHING;
    }
    if (strcmp(path, data_path) == 0 || strcmp(path, new_path) == 0) {
        return (flags & O_DSYNC) != 0 ? WHAT_DATA_DSYNC : WHAT_DATA;
    }
    if (strcmp(path, folder_path) == 0) {
        return WHAT_FOLDER;
    }
    return strcmp(path, parent_path) == 0 ? WHAT_PARENT : WHAT_NOTHING;
}

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    const enum what what = what_at(path, flags);
    if ((what == WHAT_DATA || what == WHAT_DATA_DSYNC) && (flags & O_TRUNC) != 0) {
        give_up("the queue's file is truncated");
    }
    if (fault_nodsync && what == WHAT_DATA_DSYNC) {
        flags &= ~O_SYNC; /* of which O_DSYNC is a part */
    }
    const int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd < 0 || what == WHAT_NOTHING) {
        return fd;
    }
    if (fd >= DESCRIPTORS) {
        give_up("too many descriptors");
    }
    atomic_store(&what_of[fd], (unsigned char)what);
    note(KIND_OPEN, what, strcmp(path, data_path) == 0 ? FLAG_NAMED : 0, 0);
    return fd;
}

int rename(const char *from, const char *to)
{
    const int result = (int)syscall(SYS_rename, from, to);
    if (result == 0 && log_fd >= 0 && strcmp(to, data_path) == 0) {
        if (strcmp(from, new_path) != 0) {
            give_up("another file takes the place of the queue's");
        }
        note(KIND_NAME, WHAT_DATA, 0, 0);
    }
    return result;
}

static mode_t mode_of(int flags, va_list more)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_at(folder, path, flags, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < DESCRIPTORS) {
        atomic_store(&what_of[fd], WHAT_NOTHING);
    }
    return (int)syscall(SYS_close, fd);
}

/* ---- the file's octets ---- */

static ssize_t write_data(int fd, const struct iovec *pieces, int count, off_t offset)
{
    const enum what what = what_is(fd);
    const uint32_t serial = next_serial();
    append((struct record){.kind = KIND_WRITE,
                           .what = (uint16_t)what,
                           .serial = serial,
                           .offset = (uint64_t)offset},
           pieces, count);
    const ssize_t done = syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
    size_t wanted = 0;
    for (int i = 0; i < count; i++) {
        wanted += pieces[i].iov_len;
    }
    if (done >= 0 && (size_t)done != wanted) {
        give_up("a short write, which is not modelled");
    }
    if (done >= 0) {
        note(KIND_DONE, what, what == WHAT_DATA_DSYNC && !fault_nodsync ? FLAG_DURABLE : 0, serial);
    }
    return done;
}

ssize_t pwrite(int fd, const void *octets, size_t len, off_t offset)
{
    if (!is_data(fd)) {
        return syscall(SYS_pwrite64, fd, octets, len, offset);
    }
    union {
        const void *in;
        void *out;
    } pointer = {.in = octets}; /* an iovec is for reading, too, and so not const */
    return write_data(fd, &(struct iovec){.iov_base = pointer.out, .iov_len = len}, 1, offset);
}

ssize_t pwrite64(int fd, const void *octets, size_t len, off_t offset)
{
    return pwrite(fd, octets, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return is_data(fd) ? write_data(fd, pieces, count, offset)
                       : syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return pwritev(fd, pieces, count, offset);
}

/* LMDB seeks, then writes pieces; nothing asks later where the descriptor stands. */
static ssize_t write_at_place(int fd, const struct iovec *pieces, int count)
{
    return write_data(fd, pieces, count, lseek(fd, 0, SEEK_CUR));
}

static int sync_file(int fd, long call)
{
    const enum what what = what_is(fd);
    if (what == WHAT_NOTHING) {
        return (int)syscall(call, fd);
    }
    if (fault_nosync && is_data(fd)) {
        return 0;
    }
    const uint32_t serial = next_serial();
    note(KIND_SYNC, what, 0, serial);
    const int result = (int)syscall(call, fd);
    if (result == 0) {
        note(KIND_SYNCED, what, 0, serial);
    }
    return result;
}

int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

/* ---- what the model does not know ---- */

int ftruncate(int fd, off_t len)
{
    if (is_data(fd)) {
        give_up("the queue's file is truncated");
    }
    return (int)syscall(SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off_t len)
{
    return ftruncate(fd, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (is_data(fd) && mode != FALLOC_FL_KEEP_SIZE) { /* which changes no octet that can be read */
        give_up("fallocate on the queue's file");
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
    return fallocate(fd, mode, offset, len);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (is_data(fd) && (protection & PROT_WRITE) != 0) {
        give_up("the queue's file is written through a map");
    }
    const union {
        long number;
        void *pointer;
    } result = {.number = syscall(SYS_mmap, at, len, protection, flags, fd, offset)};
    return result.pointer;
}

void *mmap64(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, len, protection, flags, fd, offset);
}

/* ---- acknowledgements ---- */

static void look_for_acks(struct iovec piece)
{
    static const char text[] = "queued as ";
    const char *at = piece.iov_base;
    const char *end = at + piece.iov_len;
    while (at < end && (at = memmem(at, (size_t)(end - at), text, sizeof(text) - 1)) != NULL) {
        at += sizeof(text) - 1;
        const char *stop = memchr(at, '\r', (size_t)(end - at));
        if (stop == NULL) {
            give_up("half a reply");
        }
        struct iovec id = {.iov_len = (size_t)(stop - at)};
        char copy[64];
        if (id.iov_len > sizeof(copy)) {
            give_up("a long queue id");
        }
        memcpy(copy, at, id.iov_len);
        id.iov_base = copy;
        append((struct record){.kind = KIND_ACK}, &id, 1);
    }
}

static void before_send(int fd, const struct iovec *pieces, size_t count)
{
    struct stat st;
    if (log_fd < 0 || fd == log_fd || fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    const int saved = errno;
    for (size_t i = 0; i < count; i++) {
        look_for_acks(pieces[i]);
    }
    errno = saved;
}

ssize_t write(int fd, const void *octets, size_t len)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = octets};
    const struct iovec piece = {.iov_base = pointer.out, .iov_len = len};
    if (is_data(fd)) {
        return write_at_place(fd, &piece, 1);
    }
    before_send(fd, &piece, 1);
    return syscall(SYS_write, fd, octets, len);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    if (is_data(fd)) {
        return write_at_place(fd, pieces, count);
    }
    before_send(fd, pieces, count > 0 ? (size_t)count : 0);
    return syscall(SYS_writev, fd, pieces, count);
}

ssize_t send(int fd, const void *octets, size_t len, int flags)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = octets};
    before_send(fd, &(struct iovec){.iov_base = pointer.out, .iov_len = len}, 1);
    return syscall(SYS_sendto, fd, octets, len, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    before_send(fd, message->msg_iov, message->msg_iovlen);
    return syscall(SYS_sendmsg, fd, message, flags);
}
