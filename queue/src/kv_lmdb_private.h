/* kv_lmdb_private.h - the parts of the LMDB backend: transactions (kv_lmdb.c), the space they live
 * on (kv_lmdb_space.c), and how the file comes into being (kv_lmdb_file.c). */
#pragma once

#include <stdatomic.h>

#include <lmdb.h>

#include "bh/kv_lmdb.h"

struct lmdb_kv {
    struct bh_kv kv; /* first */
    MDB_env *env;
    MDB_dbi dbi[BH_KV_DB_COUNT];
    bool read_only;
    int lock_fd;    /* queue.lock, locked; -1 if read_only */
    unsigned place; /* in the list of open environments */
    size_t page;    /* octets */
    size_t reserve; /* octets */

    /* Of the writer's thread. */
    atomic_bool reserved;   /* the reserve on disk stands; read by others too */
    uint64_t reserved_from; /* offset in the file where it was last asked for */
    uint64_t budget;        /* octets that the open write transaction may fill with new mail */
    uint64_t dirty;         /* octets that it has put */
};

struct lmdb_kv *lmdb_of(struct bh_kv *kv);
/* What an error of LMDB means to us; unexpected ones are logged with `what`. */
enum bh_status lmdb_status(struct lmdb_kv *l, int rc, const char *what);

/* At the start of a top write transaction: how much new mail may it hold? */
void lmdb_space_begin(struct lmdb_kv *l);
/* The disk is as good as full: an EIO of a commit was a short write. */
bool lmdb_space_disk_full(struct lmdb_kv *l);
enum bh_status lmdb_space_reserve(struct lmdb_kv *l);
/* Claim an environment for this process. @return false if it is open already, or 16 are */
bool lmdb_claim(const char *path, unsigned *place);
void lmdb_unclaim(unsigned place);

/* Make the folder's data.mdb if there is none, whole or not at all, and see to it that it keeps its
 * name through a power cut. The folder's lock is held. @return 0, an errno, or an error of LMDB */
int lmdb_file_prepare(const char *folder);
