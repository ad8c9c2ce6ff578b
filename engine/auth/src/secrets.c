#include "bh/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/unreadable.h"
#include "secret_memory.h"

#define PATH_LEN_MAX 4096

struct entry {
    char *path; /* NULL: free */
    size_t path_len;
    uint64_t used; /* the higher, the later */
    struct stat seen;
    size_t len;
};

struct bh_secrets {
    struct entry entries[BH_SECRETS_MAX];
    char (*octets)[BH_SECRET_LEN_MAX + 2]; /* of each entry; room for CRLF while it is read */
    uint64_t uses;
};

#define OCTETS_LEN (BH_SECRETS_MAX * sizeof(*((struct bh_secrets *)0)->octets))

struct bh_secrets *bh_secrets_create(void)
{
    struct bh_secrets *secrets = calloc(1, sizeof(*secrets));
    if (secrets != NULL) {
        secrets->octets = secret_alloc(OCTETS_LEN);
    }
    if (secrets != NULL && secrets->octets == NULL) {
        free(secrets);
        secrets = NULL;
    }
    return secrets;
}

void bh_secrets_destroy(struct bh_secrets *secrets)
{
    if (secrets == NULL) {
        return;
    }
    for (size_t i = 0; i < BH_SECRETS_MAX; i++) {
        free(secrets->entries[i].path);
    }
    secret_free(secrets->octets, OCTETS_LEN);
    free(secrets);
}

/* ---- files ---- */

static enum bh_status explain(struct bh_buf *error, struct bh_slice path, const char *why)
{
    bh_buf_add_cut(error, path);
    bh_buf_add_cut(error, BH_LIT(": "));
    bh_buf_add_cut(error, bh_slice_str(why));
    return BH_EIO;
}

static enum bh_status explain_errno(struct bh_buf *error, struct bh_slice path, int number)
{
    char text[BH_UNREADABLE_MAX];
    return explain(error, path, bh_unreadable(path.ptr, number, text));
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

/* All of it, up to `cap` octets. @return octets, or -1 with errno */
static ssize_t read_all(int fd, char *out, size_t cap)
{
    size_t len = 0;
    while (len < cap) {
        const ssize_t got = read(fd, out + len, cap - len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
    }
    return (ssize_t)len;
}

/* An editor's newline at the end is not part of the secret. */
static size_t without_newline(const char *octets, size_t len)
{
    len -= len > 0 && octets[len - 1] == '\n' ? 1 : 0;
    len -= len > 0 && octets[len - 1] == '\r' ? 1 : 0;
    return len;
}

static const char *fault_of(const char *octets, size_t len)
{
    if (len == 0) {
        return "empty";
    }
    if (len > BH_SECRET_LEN_MAX) {
        return "too long for a password or token";
    }
    if (memchr(octets, '\0', len) != NULL || memchr(octets, '\n', len) != NULL ||
        memchr(octets, '\r', len) != NULL) {
        return "more than one line";
    }
    return NULL;
}

/* Where it lies: the path itself, or a credential's. @return NULL: nobody hands over credentials */
static const char *file_of(struct bh_slice path, char storage[PATH_LEN_MAX])
{
    static const struct bh_slice prefix = {"credential:", sizeof("credential:") - 1};
    const char *folder = NULL;
    int len = 0;
    if (!bh_slice_starts(path, prefix)) {
        return path.ptr;
    }
    folder = getenv("CREDENTIALS_DIRECTORY");
    if (folder != NULL) {
        len = snprintf(storage, PATH_LEN_MAX, "%s/%s", folder, path.ptr + prefix.len);
    }
    return len > 0 && len < PATH_LEN_MAX ? storage : NULL;
}

/* @param octets  room for BH_SECRET_LEN_MAX + 2 */
static enum bh_status load(struct bh_slice path, char *octets, size_t *len, struct stat *seen,
                           struct bh_buf *error)
{
    char storage[PATH_LEN_MAX];
    const char *file = file_of(path, storage);
    if (file == NULL) {
        return explain(
            error, path,
            "no service manager hands over credentials (CREDENTIALS_DIRECTORY is not set)");
    }
    /* A named pipe would have the open wait for a writer. */
    const int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return explain_errno(error, path, errno);
    }
    enum bh_status status = BH_OK;
    ssize_t got = -1;
    if (fstat(fd, seen) != 0) {
        status = explain_errno(error, path, errno);
    } else if (!S_ISREG(seen->st_mode)) {
        status = explain(error, path, "not a regular file");
    } else if ((got = read_all(fd, octets, BH_SECRET_LEN_MAX + 2)) < 0) {
        status = explain_errno(error, path, errno);
    }
    (void)close(fd);
    if (status != BH_OK) {
        return status;
    }
    *len = without_newline(octets, (size_t)got);
    const char *fault = fault_of(octets, *len);
    return fault != NULL ? explain(error, path, fault) : BH_OK;
}

/* ---- the store ---- */

static char *octets_of(struct bh_secrets *secrets, const struct entry *entry)
{
    return secrets->octets[entry - secrets->entries];
}

static void drop(struct bh_secrets *secrets, struct entry *entry)
{
    OPENSSL_cleanse(octets_of(secrets, entry), sizeof(*secrets->octets));
    free(entry->path);
    *entry = (struct entry){0};
}

/* Where this path is, or may be put: a free place, else that of the one not used for longest. */
static struct entry *place_of(struct bh_secrets *secrets, struct bh_slice path)
{
    struct entry *best = &secrets->entries[0];
    for (size_t i = 0; i < BH_SECRETS_MAX; i++) {
        struct entry *entry = &secrets->entries[i];
        if (entry->path != NULL && bh_slice_eq(bh_slice(entry->path, entry->path_len), path)) {
            return entry;
        }
        if (entry->used < best->used) {
            best = entry;
        }
    }
    if (best->path != NULL) {
        drop(secrets, best);
    }
    return best;
}

static enum bh_status fill(struct bh_secrets *secrets, struct entry *entry, struct bh_slice path,
                           struct bh_buf *error)
{
    if (entry->path != NULL) {
        drop(secrets, entry);
    }
    const enum bh_status status =
        load(path, octets_of(secrets, entry), &entry->len, &entry->seen, error);
    char *copy = status == BH_OK ? malloc(path.len) : NULL;
    if (status == BH_OK && copy == NULL) {
        drop(secrets, entry);
        return explain(error, path, "out of memory");
    }
    if (status != BH_OK) {
        drop(secrets, entry);
        return status;
    }
    memcpy(copy, path.ptr, path.len);
    entry->path = copy;
    entry->path_len = path.len;
    return BH_OK;
}

enum bh_status bh_secrets_get(struct bh_secrets *secrets, struct bh_slice path,
                              struct bh_slice *secret, struct bh_buf *error)
{
    struct stat now;
    BH_ASSERT(path.len > 0 && path.ptr[path.len] == '\0');
    struct entry *entry = place_of(secrets, path);
    char storage[PATH_LEN_MAX];
    const char *file = file_of(path, storage);
    const bool fresh = entry->path != NULL && file != NULL && stat(file, &now) == 0 &&
                       unchanged(&now, &entry->seen);
    if (!fresh) {
        const enum bh_status status = fill(secrets, entry, path, error);
        if (status != BH_OK) {
            return status;
        }
    }
    entry->used = ++secrets->uses;
    *secret = bh_slice(octets_of(secrets, entry), entry->len);
    return BH_OK;
}

enum bh_status bh_secret_check(struct bh_slice path, struct bh_buf *error)
{
    char octets[BH_SECRET_LEN_MAX + 2];
    size_t len = 0;
    struct stat seen;
    BH_ASSERT(path.len > 0 && path.ptr[path.len] == '\0');
    const enum bh_status status = load(path, octets, &len, &seen, error);
    OPENSSL_cleanse(octets, sizeof(octets));
    if (status == BH_OK && (seen.st_mode & S_IRWXO) != 0) {
        (void)explain(error, path, "others may read or change this secret: chmod o-rwx");
        return BH_ELIMIT;
    }
    return status;
}
