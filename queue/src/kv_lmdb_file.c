/* The queue's file comes into being whole, its databases in it. LMDB makes data.mdb empty and then
 * writes its first two pages, so a power cut between them would leave a file that no later start
 * can read, and that an operator must not delete without knowing why. And no sync of a file covers
 * its name: until the folder is synced the file, with all acknowledged mail in it, may be gone
 * after a power cut. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kv_lmdb_private.h"

#define PATH_LEN_MAX 4096

struct paths {
    char data[PATH_LEN_MAX];
    char fresh[PATH_LEN_MAX];
    char fresh_lock[PATH_LEN_MAX]; /* LMDB's name for the lock file of a file */
};

static bool make_path(char *to, const char *folder, const char *name)
{
    const int len = snprintf(to, PATH_LEN_MAX, "%s/%s", folder, name);
    return len > 0 && len < PATH_LEN_MAX;
}

static int sync_folder(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        /* What is above the queue's folder need not be ours to read; then it was made before us. */
        return errno == EACCES ? 0 : errno;
    }
    const int rc =
        fsync(fd) == 0 || errno == EINVAL ? 0 : errno; /* EINVAL: it knows no such thing */
    close(fd);
    return rc;
}

static int create_databases(MDB_env *env)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc != MDB_SUCCESS) {
        return rc;
    }
    for (unsigned db = 0; db < BH_KV_DB_COUNT && rc == MDB_SUCCESS; db++) {
        MDB_dbi dbi;
        rc = mdb_dbi_open(txn, bh_kv_db_name((enum bh_kv_db)db), MDB_CREATE, &dbi);
    }
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn); /* and so synced */
}

static int write_first_pages(const char *path)
{
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc != MDB_SUCCESS) {
        return rc;
    }
    rc = mdb_env_set_maxdbs(env, BH_KV_DB_COUNT);
    if (rc == MDB_SUCCESS) {
        /* NOTLS: else it makes a thread key and deletes it, whose place OpenSSL's gets next; what
         * OpenSSL keeps there for threads is then never freed. */
        rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
    }
    if (rc == MDB_SUCCESS) {
        rc = create_databases(env);
    }
    mdb_env_close(env);
    return rc;
}

static int create(const struct paths *paths)
{
    /* What an earlier process left that did not get to the end. */
    if ((unlink(paths->fresh) != 0 && errno != ENOENT) ||
        (unlink(paths->fresh_lock) != 0 && errno != ENOENT)) {
        return errno;
    }
    const int rc = write_first_pages(paths->fresh);
    if (rc != MDB_SUCCESS) {
        unlink(paths->fresh);
    }
    unlink(paths->fresh_lock);
    if (rc == MDB_SUCCESS && rename(paths->fresh, paths->data) != 0) {
        return errno;
    }
    return rc;
}

int lmdb_file_prepare(const char *folder)
{
    struct paths paths;
    char parent[PATH_LEN_MAX];
    if (!make_path(paths.data, folder, "data.mdb") || !make_path(paths.fresh, folder, "new.mdb") ||
        !make_path(paths.fresh_lock, folder, "new.mdb-lock") || !make_path(parent, folder, "..")) {
        return ENAMETOOLONG;
    }
    int rc = access(paths.data, F_OK) == 0 ? 0 : errno;
    if (rc == ENOENT) {
        rc = create(&paths);
    }
    if (rc == 0) {
        rc = sync_folder(folder);
    }
    return rc == 0 ? sync_folder(parent) : rc;
}
