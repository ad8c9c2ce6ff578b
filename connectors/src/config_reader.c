/* config_reader.c - a configuration from real files. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/config.h"
#include "bh/unreadable.h"

#define FILE_MAX ((off_t)16 << 20)

static enum bh_status read_fd(int fd, struct bh_arena *arena, struct bh_slice *text)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return BH_EIO;
    }
    if (st.st_size > FILE_MAX) {
        return BH_ELIMIT;
    }
    const size_t size = (size_t)st.st_size;
    char *octets = bh_arena_alloc(arena, size + 1);
    if (octets == NULL) {
        return BH_ENOMEM;
    }
    size_t done = 0;
    while (done < size) {
        const ssize_t got = read(fd, octets + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return BH_EIO;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *text = bh_slice(octets, done);
    return BH_OK;
}

static enum bh_status posix_read(void *ctx, const char *path, struct bh_arena *arena,
                                 struct bh_slice *text)
{
    (void)ctx;
    /* Not to hang on a FIFO that somebody put there. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? BH_ENOTFOUND : BH_EIO;
    }
    const enum bh_status status = read_fd(fd, arena, text);
    close(fd);
    return status;
}

static int by_octets(const void *a, const void *b)
{
    return bh_slice_cmp(*(const struct bh_slice *)a, *(const struct bh_slice *)b);
}

static enum bh_status posix_glob(void *ctx, const char *pattern, struct bh_arena *arena,
                                 struct bh_names *paths)
{
    (void)ctx;
    glob_t found = {0};
    const int result = glob(pattern, GLOB_NOSORT, NULL, &found);
    enum bh_status status = result == 0 || result == GLOB_NOMATCH ? BH_OK
                            : result == GLOB_NOSPACE              ? BH_ENOMEM
                                                                  : BH_EIO;
    const size_t count = result == 0 ? found.gl_pathc : 0;
    struct bh_slice *list = bh_arena_alloc(arena, (count + 1) * sizeof(*list));
    if (list == NULL) {
        status = BH_ENOMEM;
    }
    for (size_t i = 0; i < count && status == BH_OK; i++) {
        const size_t len = strlen(found.gl_pathv[i]);
        struct bh_slice path;
        if (!bh_arena_copy(arena, bh_slice(found.gl_pathv[i], len + 1), &path)) {
            status = BH_ENOMEM;
            break;
        }
        path.len = len;
        list[i] = path;
    }
    if (status == BH_OK && count > 1) {
        qsort(list, count, sizeof(*list), by_octets); /* whatever the locale */
    }
    globfree(&found);
    if (status == BH_OK) {
        *paths = (struct bh_names){list, count};
    }
    return status;
}

static enum bh_status posix_exists(void *ctx, const char *path)
{
    (void)ctx;
    struct stat st;
    if (stat(path, &st) == 0) {
        return BH_OK;
    }
    return errno == ENOENT || errno == ENOTDIR ? BH_ENOTFOUND : BH_EIO;
}

_Static_assert(BH_CONFIG_WHY_MAX >= BH_UNREADABLE_MAX, "the words have room");

/* Tried again, for its errno: what the first try met is not told by read. */
static const char *posix_why(void *ctx, const char *path, char text[BH_CONFIG_WHY_MAX])
{
    (void)ctx;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return bh_unreadable(path, errno, text);
    }
    close(fd);
    return "not a regular file, or it cannot be read";
}

struct bh_config_reader bh_config_reader_posix(void)
{
    return (struct bh_config_reader){
        .read = posix_read, .glob = posix_glob, .exists = posix_exists, .why = posix_why};
}
