/* A password file as it is on disk. Two locks: `loading` is held while the file is read, so that it
 * is read once; `held` only while a pointer is taken or put, so that whoever asks what to offer
 * never waits for the disk. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/log.h"
#include "bh/unreadable.h"
#include "server_internal.h"

#define FILE_MAX ((size_t)64 << 20)

/* By which a changed file is known. */
struct stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
    struct timespec changed;
};

struct bh_auth_source {
    pthread_mutex_t loading;
    pthread_mutex_t held;
    struct stamp stamp; /* of the last reading, good or not; under `loading` */
    bool tried;
    struct bh_auth_users *users; /* under `held` */
    size_t path_len;
    char path[];
};

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same(const struct stamp *a, const struct stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           same_time(&a->modified, &b->modified) && same_time(&a->changed, &b->changed);
}

/* All zero if it is not there. */
static struct stamp stamp_of(const char *path)
{
    struct stat st;
    struct stamp stamp = {0};
    if (stat(path, &st) == 0) {
        stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
    }
    return stamp;
}

static enum bh_status read_all(const char *path, char **text, size_t *len, struct bh_buf *error)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > FILE_MAX) {
        char why[BH_UNREADABLE_MAX];
        bh_buf_add_cut(error, bh_slice_str(fd < 0 ? bh_unreadable(path, errno, why)
                                                  : "not a file, or above 64 MiB"));
        if (fd >= 0) {
            close(fd);
        }
        return BH_EIO;
    }
    const size_t cap = (size_t)st.st_size;
    *text = malloc(cap + 1);
    *len = 0;
    ssize_t got = *text != NULL ? 1 : -1;
    while (got > 0 && *len < cap) {
        got = read(fd, *text + *len, cap - *len);
        *len += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        bh_buf_add_cut(error, bh_slice_str(*text != NULL ? strerror(errno) : "out of memory"));
    }
    close(fd);
    return got < 0 ? BH_EIO : BH_OK;
}

static struct bh_auth_users *load(const struct bh_auth_source *source)
{
    char storage[BH_UNREADABLE_MAX];
    struct bh_buf error = bh_buf(storage, sizeof(storage));
    struct bh_auth_users *users = NULL;
    char *text = NULL;
    size_t len = 0;
    enum bh_status status = read_all(source->path, &text, &len, &error);
    if (status == BH_OK) {
        status = bh_auth_users_parse(bh_slice(text, len), &users, &error);
    }
    if (text != NULL) {
        OPENSSL_cleanse(text, len);
        free(text);
    }
    if (status == BH_OK) {
        bh_log(BH_LOG_INFO, "evt=auth-file file=%s users=%zu", source->path, users->count);
        return users;
    }
    char reason[BH_LOG_QUOTE_MAX];
    bh_log(
        BH_LOG_ERROR, "evt=auth-file-bad file=%s reason=%s", source->path,
        bh_log_quote(status == BH_ENOMEM ? BH_LIT("out of memory") : bh_buf_slice(&error), reason));
    return NULL;
}

/* Read it again if it has changed. */
static void follow(struct bh_auth_source *source)
{
    pthread_mutex_lock(&source->loading);
    const struct stamp now = stamp_of(source->path);
    if (!source->tried || !same(&now, &source->stamp)) {
        source->tried = true;
        source->stamp = now; /* Of before: what changes while it is read is read again. */
        struct bh_auth_users *users = load(source);
        if (users != NULL) {
            pthread_mutex_lock(&source->held);
            struct bh_auth_users *old = source->users;
            source->users = users;
            pthread_mutex_unlock(&source->held);
            bh_auth_users_unref(old);
        }
    }
    pthread_mutex_unlock(&source->loading);
}

struct bh_auth_source *bh_auth_source_create(struct bh_slice path)
{
    struct bh_auth_source *source = calloc(1, sizeof(*source) + path.len + 1);
    if (source == NULL) {
        return NULL;
    }
    memcpy(source->path, path.ptr, path.len);
    source->path_len = path.len;
    pthread_mutex_init(&source->loading, NULL);
    pthread_mutex_init(&source->held, NULL);
    follow(source);
    return source;
}

void bh_auth_source_destroy(struct bh_auth_source *source)
{
    if (source != NULL) {
        bh_auth_users_unref(source->users);
        pthread_mutex_destroy(&source->loading);
        pthread_mutex_destroy(&source->held);
        free(source);
    }
}

struct bh_slice bh_auth_source_path(const struct bh_auth_source *source)
{
    return bh_slice(source->path, source->path_len);
}

struct bh_auth_users *bh_auth_source_get(struct bh_auth_source *source)
{
    follow(source);
    pthread_mutex_lock(&source->held);
    struct bh_auth_users *users = source->users;
    if (users != NULL) {
        atomic_fetch_add(&users->references, 1);
    }
    pthread_mutex_unlock(&source->held);
    return users;
}

void bh_auth_source_mechanisms(struct bh_auth_source *source, char list[BH_AUTH_MECHANISMS_MAX])
{
    pthread_mutex_lock(&source->held);
    const bool scram = source->users != NULL && source->users->all_scram;
    pthread_mutex_unlock(&source->held);
    struct bh_buf text = bh_buf(list, BH_AUTH_MECHANISMS_MAX);
    bh_buf_put(&text, scram ? BH_LIT("SCRAM-SHA-256 PLAIN LOGIN") : BH_LIT("PLAIN LOGIN"));
    bh_buf_put_char(&text, '\0');
}
