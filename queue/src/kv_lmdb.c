#include "bh/kv_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"
#include "kv_backend.h"
#include "kv_lmdb_private.h"

struct lmdb_txn {
    struct bh_kv_txn txn; /* first */
    MDB_txn *mdb;
};

struct lmdb_cursor {
    struct bh_kv_cursor cursor; /* first */
    MDB_cursor *mdb;
};

struct lmdb_kv *lmdb_of(struct bh_kv *kv)
{
    return (struct lmdb_kv *)(void *)kv;
}

static MDB_txn *mdb_of(struct bh_kv_txn *txn)
{
    return ((struct lmdb_txn *)(void *)txn)->mdb;
}

enum bh_status lmdb_status(struct lmdb_kv *l, int rc, const char *what)
{
    switch (rc) {
    case MDB_SUCCESS:
        return BH_OK;
    case MDB_NOTFOUND:
        return BH_ENOTFOUND;
    case ENOMEM:
    case MDB_BAD_TXN: /* something in it failed before for want of memory; all else ends it at once
                       */
        return BH_ENOMEM;
    case MDB_READERS_FULL:
        return BH_EBUSY;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
        return BH_EFULL;
    case MDB_VERSION_MISMATCH:
        return BH_EVERSION;
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
        bh_log(BH_LOG_ERROR, "evt=store_corrupt during=%s error=\"%s\"", what, mdb_strerror(rc));
        return BH_ECORRUPT;
    default:
        /* LMDB says EIO for a short write, which is what a full disk gives. */
        if (rc == EIO && lmdb_space_disk_full(l)) {
            return BH_EFULL;
        }
        bh_log(BH_LOG_ERROR, "evt=store_error during=%s error=\"%s\"", what, mdb_strerror(rc));
        return BH_EIO;
    }
}

static MDB_val val_of(struct bh_slice s)
{
    /* LMDB takes keys and values through a pointer that is not const, and does not write to it. */
    union {
        const char *in;
        void *out;
    } pointer = {.in = s.ptr};
    return (MDB_val){.mv_size = s.len, .mv_data = pointer.out};
}

static struct bh_slice slice_of(MDB_val v)
{
    return bh_slice(v.mv_data, v.mv_size);
}

/* ---- transactions ---- */

static int begin_mdb(struct lmdb_kv *l, MDB_txn *parent, unsigned flags, MDB_txn **mdb)
{
    int rc = mdb_txn_begin(l->env, parent, flags, mdb);
    if (rc == MDB_MAP_RESIZED) {
        /* The daemon was given a larger map since this tool opened it. */
        rc = mdb_env_set_mapsize(l->env, 0);
        if (rc == MDB_SUCCESS) {
            rc = mdb_txn_begin(l->env, parent, flags, mdb);
        }
    }
    return rc;
}

static enum bh_status lmdb_begin(struct bh_kv *kv, enum bh_kv_mode mode, struct bh_kv_txn *parent,
                                 struct bh_kv_txn **txn)
{
    struct lmdb_kv *l = lmdb_of(kv);
    BH_ASSERT(mode == BH_KV_READ || !l->read_only);
    struct lmdb_txn *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return BH_ENOMEM;
    }
    t->txn = (struct bh_kv_txn){.kv = kv, .parent = parent, .mode = mode};
    const bool top_write = mode == BH_KV_WRITE && parent == NULL;
    if (top_write) {
        lmdb_space_begin(l);
    }
    const int rc = begin_mdb(l, parent != NULL ? mdb_of(parent) : NULL,
                             mode == BH_KV_READ ? MDB_RDONLY : 0, &t->mdb);
    if (rc != MDB_SUCCESS) {
        free(t);
        return lmdb_status(l, rc, "begin");
    }
    *txn = &t->txn;
    return BH_OK;
}

static enum bh_status lmdb_commit(struct bh_kv_txn *txn)
{
    struct lmdb_kv *l = lmdb_of(txn->kv);
    const int rc = mdb_txn_commit(mdb_of(txn));
    free(txn);
    return lmdb_status(l, rc, "commit");
}

static void lmdb_abort(struct bh_kv_txn *txn)
{
    mdb_txn_abort(mdb_of(txn));
    free(txn);
}

static enum bh_status lmdb_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                               struct bh_slice *value)
{
    struct lmdb_kv *l = lmdb_of(txn->kv);
    MDB_val k = val_of(key);
    MDB_val v;
    const int rc = mdb_get(mdb_of(txn), l->dbi[db], &k, &v);
    if (rc == MDB_SUCCESS) {
        *value = slice_of(v);
    }
    return lmdb_status(l, rc, "get");
}

static enum bh_status lmdb_put(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                               struct bh_slice value, unsigned flags)
{
    struct lmdb_kv *l = lmdb_of(txn->kv);
    MDB_val k = val_of(key);
    MDB_val v = val_of(value);
    int rc = MDB_KEYEXIST;
    if ((flags & BH_KV_APPEND) != 0) {
        rc = mdb_put(mdb_of(txn), l->dbi[db], &k, &v, MDB_APPEND);
    }
    if (rc == MDB_KEYEXIST) { /* not above all others, after all */
        rc = mdb_put(mdb_of(txn), l->dbi[db], &k, &v, 0);
    }
    /* A page can be counted more than once: an estimate that errs towards the reserve. */
    l->dirty +=
        key.len + (value.len > l->page / 2 ? (value.len / l->page + 1) * l->page : value.len);
    return lmdb_status(l, rc, "put");
}

static enum bh_status lmdb_del(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key)
{
    struct lmdb_kv *l = lmdb_of(txn->kv);
    MDB_val k = val_of(key);
    return lmdb_status(l, mdb_del(mdb_of(txn), l->dbi[db], &k, NULL), "del");
}

static enum bh_status lmdb_room(struct bh_kv_txn *txn, size_t bytes)
{
    const struct lmdb_kv *l = lmdb_of(txn->kv);
    return txn->mode == BH_KV_WRITE && l->budget >= l->dirty && l->budget - l->dirty >= bytes
               ? BH_OK
               : BH_EFULL;
}

/* ---- cursors ---- */

static enum bh_status lmdb_cursor_open(struct bh_kv_txn *txn, enum bh_kv_db db,
                                       struct bh_kv_cursor **cursor)
{
    struct lmdb_kv *l = lmdb_of(txn->kv);
    struct lmdb_cursor *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return BH_ENOMEM;
    }
    c->cursor = (struct bh_kv_cursor){.txn = txn, .db = db};
    const int rc = mdb_cursor_open(mdb_of(txn), l->dbi[db], &c->mdb);
    if (rc != MDB_SUCCESS) {
        free(c);
        return lmdb_status(l, rc, "cursor");
    }
    *cursor = &c->cursor;
    return BH_OK;
}

static void lmdb_cursor_close(struct bh_kv_cursor *cursor)
{
    struct lmdb_cursor *c = (struct lmdb_cursor *)(void *)cursor;
    mdb_cursor_close(c->mdb);
    free(c);
}

static enum bh_status lmdb_cursor_move(struct bh_kv_cursor *cursor, int how, struct bh_slice seek,
                                       struct bh_slice *key, struct bh_slice *value)
{
    static const MDB_cursor_op ops[] = {[KV_FIRST] = MDB_FIRST,
                                        [KV_LAST] = MDB_LAST,
                                        [KV_SEEK] = MDB_SET_RANGE,
                                        [KV_NEXT] = MDB_NEXT,
                                        [KV_PREV] = MDB_PREV};
    MDB_val k = val_of(seek);
    MDB_val v;
    const int rc = mdb_cursor_get(((struct lmdb_cursor *)(void *)cursor)->mdb, &k, &v, ops[how]);
    if (rc == MDB_SUCCESS) {
        *key = slice_of(k);
        *value = slice_of(v);
    }
    return lmdb_status(lmdb_of(cursor->txn->kv), rc, "cursor");
}

/* ---- open and close ---- */

static void lmdb_close(struct bh_kv *kv)
{
    struct lmdb_kv *l = lmdb_of(kv);
    mdb_env_close(l->env);
    if (l->lock_fd >= 0) {
        close(l->lock_fd); /* and so unlocked; the file stays, or two could lock two of them */
    }
    lmdb_unclaim(l->place);
    free(l);
}

static const struct bh_kv_ops lmdb_ops = {
    .begin = lmdb_begin,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .get = lmdb_get,
    .put = lmdb_put,
    .del = lmdb_del,
    .room = lmdb_room,
    .cursor_open = lmdb_cursor_open,
    .cursor_close = lmdb_cursor_close,
    .cursor_move = lmdb_cursor_move,
    .close = lmdb_close,
};

const char *bh_kv_lmdb_network_fs(uint64_t magic)
{
    static const struct {
        uint64_t magic;
        const char *name;
    } known[] = {{0x6969, "nfs"},        {0x517b, "smb"},      {0xff534d42, "cifs"},
                 {0xfe534d42, "smb2"},   {0x5346414f, "afs"},  {0x6b414653, "afs"},
                 {0x00c36400, "ceph"},   {0x73757245, "coda"}, {0x01021997, "9p"},
                 {0x0bd00bd0, "lustre"}, {0x47504653, "gpfs"}, {0x7461636f, "ocfs2"},
                 {0x01161970, "gfs2"}};
    for (size_t i = 0; i < BH_COUNT(known); i++) {
        if (known[i].magic == (magic & 0xffffffff)) {
            return known[i].name;
        }
    }
    return NULL;
}

/* The steps of open share one error text. */
struct opening {
    const struct bh_kv_lmdb_options *options;
    char *error;
    size_t error_len;
    struct lmdb_kv *l;
};

#define FAIL(opening, status, ...) \
    (snprintf((opening)->error, (opening)->error_len, __VA_ARGS__), (status))

static enum bh_status status_of_errno(int error)
{
    switch (error) {
    case ENOENT:
        return BH_ENOTFOUND;
    case ENOSPC:
    case EDQUOT:
        return BH_EFULL;
    case ENOMEM:
        return BH_ENOMEM;
    default:
        return BH_EIO;
    }
}

static enum bh_status check_folder(struct opening *o)
{
    const char *path = o->options->path;
    if (!o->options->read_only && mkdir(path, 0700) != 0 && errno != EEXIST) {
        const int error = errno;
        return FAIL(o, status_of_errno(error), "cannot create the queue folder %s: %s", path,
                    strerror(error));
    }
    struct statfs fs;
    if (statfs(path, &fs) != 0) {
        const int error = errno;
        return FAIL(o, status_of_errno(error), "cannot read the queue folder %s: %s", path,
                    strerror(error));
    }
    const char *network = bh_kv_lmdb_network_fs((uint64_t)fs.f_type);
    if (network != NULL) {
        return FAIL(o, BH_EINVAL,
                    "the queue folder %s is on a network file system (%s); it must be on a local "
                    "disk, where locks and syncs are kept",
                    path, network);
    }
    return BH_OK;
}

/* queue.lock stays locked as long as the descriptor is open, and no longer than this process. */
static enum bh_status lock_folder(struct opening *o)
{
    char path[4096];
    const int len = snprintf(path, sizeof(path), "%s/queue.lock", o->options->path);
    if (len < 0 || (size_t)len >= sizeof(path)) {
        return FAIL(o, BH_EINVAL, "the path of the queue folder is too long");
    }
    o->l->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (o->l->lock_fd < 0) {
        const int error = errno;
        return FAIL(o, status_of_errno(error), "cannot open %s: %s", path, strerror(error));
    }
    if (flock(o->l->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        const int error = errno;
        return error == EWOULDBLOCK
                   ? FAIL(o, BH_EBUSY, "another process is using the queue in %s", o->options->path)
                   : FAIL(o, BH_EIO, "cannot lock %s: %s", path, strerror(error));
    }
    return BH_OK;
}

static enum bh_status open_env(struct opening *o)
{
    struct lmdb_kv *l = o->l;
    const char *path = o->options->path;
    int rc = l->read_only ? MDB_SUCCESS : lmdb_file_prepare(path);
    if (rc == MDB_SUCCESS) {
        rc = mdb_env_create(&l->env);
    }
    if (rc == MDB_SUCCESS) {
        rc = mdb_env_set_maxdbs(l->env, 32);
    }
    if (rc == MDB_SUCCESS && o->options->size_max > 0) {
        rc = mdb_env_set_mapsize(l->env, o->options->size_max / 65536 * 65536);
    }
    if (rc == MDB_SUCCESS) {
        const unsigned flags = MDB_NOTLS | (l->read_only ? MDB_RDONLY : 0U);
        rc = mdb_env_open(l->env, path, flags, 0600);
    }
    if (rc == MDB_SUCCESS) {
        return BH_OK;
    }
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED) {
        return FAIL(o, BH_ECORRUPT, "%s/data.mdb is no queue, or damaged", path);
    }
    if (rc == MDB_VERSION_MISMATCH) {
        return FAIL(o, BH_EVERSION, "%s/data.mdb was written by another version of LMDB", path);
    }
    return FAIL(o, rc > 0 ? status_of_errno(rc) : BH_EIO, "cannot open the queue in %s: %s", path,
                mdb_strerror(rc));
}

static enum bh_status open_databases(struct opening *o)
{
    struct lmdb_kv *l = o->l;
    MDB_txn *txn;
    int rc = begin_mdb(l, NULL, l->read_only ? MDB_RDONLY : 0, &txn);
    if (rc == MDB_SUCCESS) {
        for (unsigned db = 0; db < BH_KV_DB_COUNT && rc == MDB_SUCCESS; db++) {
            rc = mdb_dbi_open(txn, bh_kv_db_name((enum bh_kv_db)db), l->read_only ? 0 : MDB_CREATE,
                              &l->dbi[db]);
        }
        if (rc == MDB_SUCCESS) {
            rc = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (rc == MDB_SUCCESS) {
        return BH_OK;
    }
    return FAIL(o, lmdb_status(l, rc, "open"), "%s the databases of the queue in %s: %s",
                l->read_only ? "cannot read" : "cannot create", o->options->path, mdb_strerror(rc));
}

static enum bh_status open_all(struct opening *o)
{
    struct lmdb_kv *l = o->l;
    enum bh_status status = l->read_only ? BH_OK : lock_folder(o);
    if (status == BH_OK) {
        status = open_env(o);
    }
    if (status != BH_OK) {
        return status;
    }
    int dead = 0;
    const int rc = mdb_reader_check(l->env, &dead); /* nothing else ever frees their slots */
    if (rc != MDB_SUCCESS) {
        return FAIL(o, BH_EIO, "cannot check the readers of the queue: %s", mdb_strerror(rc));
    }
    MDB_stat stat;
    mdb_env_stat(l->env, &stat);
    l->page = stat.ms_psize;
    if (!l->read_only) {
        const enum bh_status reserve = lmdb_space_reserve(l);
        if (reserve == BH_EIO) {
            return FAIL(o, BH_EIO, "cannot reserve space for the queue in %s", o->options->path);
        }
    }
    return open_databases(o);
}

enum bh_status bh_kv_lmdb_open(const struct bh_kv_lmdb_options *options, struct bh_kv **kv,
                               char *error, size_t error_len)
{
    struct opening o = {.options = options, .error = error, .error_len = error_len};
    const size_t reserve = options->reserve > 0 ? options->reserve : BH_KV_LMDB_RESERVE;
    if (options->size_max > 0 && options->size_max / 2 < reserve) {
        return FAIL(&o, BH_EINVAL, "the queue's max-size must be at least %zu MiB",
                    reserve * 2 >> 20);
    }
    enum bh_status status = check_folder(&o);
    if (status != BH_OK) {
        return status;
    }
    struct lmdb_kv *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return FAIL(&o, BH_ENOMEM, "out of memory");
    }
    l->kv.ops = &lmdb_ops;
    l->read_only = options->read_only;
    l->lock_fd = -1;
    l->reserve = reserve;
    o.l = l;
    if (!lmdb_claim(options->path, &l->place)) {
        free(l);
        return FAIL(&o, BH_EBUSY, "this process has the queue in %s open already", options->path);
    }
    status = open_all(&o);
    if (status != BH_OK) {
        lmdb_close(&l->kv);
        return status;
    }
    *kv = &l->kv;
    return BH_OK;
}
