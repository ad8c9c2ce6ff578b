/* Room for removals. To remove anything LMDB first writes: new copies of the pages it changes. A
 * store that is filled to the last octet can't be emptied any more. So new mail stops while a
 * reserve is left, in both things that can run out:
 *
 *   the map:   pages up to its end, and freed pages inside the file
 *   the disk:  blocks beyond the last page, allocated ahead (FALLOC_FL_KEEP_SIZE) so that nobody
 *              else can take them; asked for again whenever the file has grown into them */
#define _GNU_SOURCE /* fallocate */
#include "kv_lmdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"

/* ---- environments open in this process ---- */

#define CLAIMS_MAX 16

static struct {
    pthread_mutex_t lock;
    struct {
        bool used;
        dev_t dev;
        ino_t ino;
    } claim[CLAIMS_MAX];
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool lmdb_claim(const char *path, unsigned *place)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    bool claimed = false;
    bool open_already = false;
    pthread_mutex_lock(&process.lock);
    for (unsigned i = 0; i < CLAIMS_MAX; i++) {
        if (process.claim[i].used) {
            open_already |= process.claim[i].dev == st.st_dev && process.claim[i].ino == st.st_ino;
        } else if (!claimed) {
            claimed = true;
            *place = i;
        }
    }
    if (claimed && !open_already) {
        process.claim[*place].used = true;
        process.claim[*place].dev = st.st_dev;
        process.claim[*place].ino = st.st_ino;
    }
    pthread_mutex_unlock(&process.lock);
    return claimed && !open_already;
}

void lmdb_unclaim(unsigned place)
{
    pthread_mutex_lock(&process.lock);
    process.claim[place].used = false;
    pthread_mutex_unlock(&process.lock);
}

/* ---- space ---- */

static int data_fd(struct lmdb_kv *l)
{
    mdb_filehandle_t fd = -1;
    mdb_env_get_fd(l->env, &fd);
    return fd;
}

/* Octets that this process could still write to the file system. */
static uint64_t disk_free(struct lmdb_kv *l)
{
    struct statvfs fs;
    if (fstatvfs(data_fd(l), &fs) != 0) {
        return 0;
    }
    return (uint64_t)(geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * fs.f_frsize;
}

bool lmdb_space_disk_full(struct lmdb_kv *l)
{
    const uint64_t least = l->reserve / 16 > 1 << 20 ? l->reserve / 16 : 1 << 20;
    return l->env != NULL && disk_free(l) < least;
}

static uint64_t file_end(struct lmdb_kv *l)
{
    MDB_envinfo info;
    mdb_env_info(l->env, &info);
    return ((uint64_t)info.me_last_pgno + 1) * l->page;
}

/* Pages in LMDB's list of free ones: its database 0 holds for each transaction an array of page
 * numbers, with their count in front. */
static uint64_t free_pages(struct lmdb_kv *l)
{
    MDB_txn *txn;
    if (mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn) != MDB_SUCCESS) {
        return 0;
    }
    uint64_t pages = 0;
    MDB_cursor *cursor;
    if (mdb_cursor_open(txn, 0, &cursor) == MDB_SUCCESS) {
        MDB_val key;
        MDB_val value;
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS) {
            size_t count;
            BH_ASSERT(value.mv_size >= sizeof(count));
            memcpy(&count, value.mv_data, sizeof(count));
            pages += count;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return pages;
}

enum bh_status lmdb_space_reserve(struct lmdb_kv *l)
{
    const uint64_t end = file_end(l);
    int rc;
    do {
        rc = fallocate(data_fd(l), FALLOC_FL_KEEP_SIZE, (off_t)end, (off_t)l->reserve);
    } while (rc != 0 && errno == EINTR);
    l->reserved_from = end;
    if (rc == 0) {
        l->reserved = true;
        return BH_OK;
    }
    const int error = errno;
    l->reserved = false;
    if (error == EOPNOTSUPP || error == ENOSYS) {
        l->reserved = disk_free(l) >= l->reserve; /* the best this file system can do */
        return l->reserved ? BH_OK : BH_EFULL;
    }
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
        return BH_EFULL;
    }
    bh_log(BH_LOG_ERROR, "evt=store_error during=reserve error=\"%s\"", strerror(error));
    return BH_EIO;
}

void lmdb_space_begin(struct lmdb_kv *l)
{
    MDB_envinfo info;
    mdb_env_info(l->env, &info);
    const uint64_t end = ((uint64_t)info.me_last_pgno + 1) * l->page;
    if (end > l->reserved_from + l->reserve / 4 && lmdb_space_reserve(l) == BH_EIO) {
        l->reserved = false;
    }
    uint64_t room = 0;
    if (l->reserved && info.me_mapsize > end) {
        room = info.me_mapsize - end;
    }
    if (room < 2 * (uint64_t)l->reserve) {
        room += free_pages(l) * l->page;
    }
    l->budget = room > l->reserve ? room - l->reserve : 0;
    l->dirty = 0;
}

enum bh_status bh_kv_lmdb_upkeep(struct bh_kv *kv)
{
    struct lmdb_kv *l = lmdb_of(kv);
    int dead = 0;
    const int rc = mdb_reader_check(l->env, &dead);
    if (rc != MDB_SUCCESS) {
        return lmdb_status(l, rc, "reader_check");
    }
    if (dead > 0) {
        bh_log(BH_LOG_INFO, "evt=store_readers_freed count=%d", dead);
    }
    if (l->read_only) {
        return BH_OK;
    }
    if (l->reserved && file_end(l) == l->reserved_from) {
        return BH_OK; /* it stands where it stood */
    }
    return lmdb_space_reserve(l);
}

enum bh_status bh_kv_lmdb_usage(struct bh_kv *kv, struct bh_kv_lmdb_usage *usage)
{
    struct lmdb_kv *l = lmdb_of(kv);
    MDB_envinfo info;
    const int rc = mdb_env_info(l->env, &info);
    if (rc != MDB_SUCCESS) {
        return lmdb_status(l, rc, "info");
    }
    *usage = (struct bh_kv_lmdb_usage){
        .map_bytes = info.me_mapsize,
        .file_bytes = ((uint64_t)info.me_last_pgno + 1) * l->page,
        .free_bytes = free_pages(l) * l->page,
        .disk_bytes = disk_free(l),
        .readers = info.me_numreaders,
    };
    return BH_OK;
}

bool bh_kv_lmdb_has_room(struct bh_kv *kv)
{
    struct lmdb_kv *l = lmdb_of(kv);
    const uint64_t margin = l->reserve / 4;
    struct bh_kv_lmdb_usage usage = {0};
    if (bh_kv_lmdb_usage(kv, &usage) != BH_OK) {
        return false;
    }
    const uint64_t wanted = l->reserve + margin;
    if (usage.free_bytes >= wanted) {
        return true; /* The file need not grow. */
    }
    /* Beyond the file's end it is as lmdb_space_begin counts. The reserve there is allocated
     * already, and no part of what is free on the disk. */
    const uint64_t beyond =
        usage.map_bytes > usage.file_bytes ? usage.map_bytes - usage.file_bytes : 0;
    return l->reserved && usage.free_bytes + beyond >= wanted && usage.disk_bytes >= margin;
}

enum bh_status bh_kv_lmdb_copy(struct bh_kv *kv, const char *path)
{
    struct lmdb_kv *l = lmdb_of(kv);
    return lmdb_status(l, mdb_env_copy2(l->env, path, MDB_CP_COMPACT), "copy");
}
