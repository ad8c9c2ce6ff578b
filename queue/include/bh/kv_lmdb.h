/* kv_lmdb.h - the key-value interface over LMDB: full sync, MDB_NOTLS, one environment a folder.
 *
 * The folder holds data.mdb, lock.mdb (LMDB's), and queue.lock, which a writing process keeps
 * locked so that a second daemon is refused. An environment is open at most once in a process,
 * since LMDB's locks break otherwise. */
#pragma once

#include "bh/kv.h"

/* Removals need pages of their own before they free any: this much is kept free, both below the map
 * size and as blocks allocated beyond the last page of the file. */
#define BH_KV_LMDB_RESERVE ((size_t)64 << 20)

struct bh_kv_lmdb_options {
    const char *path; /* the folder; created (0700) if missing, unless read_only */
    size_t size_max;  /* octets of map, at least twice the reserve; 0: what the file has */
    bool read_only;   /* for tools beside or without the daemon */
    size_t reserve;   /* 0: BH_KV_LMDB_RESERVE; for tests on small disks */
};

/** @param error  receives a sentence for the operator on failure, NUL-terminated
 *  @return BH_OK; BH_EBUSY another daemon has it, or this process has it open already;
 *          BH_EINVAL a network file system, or a size that can't be; BH_ENOTFOUND read_only and no
 *          queue there; BH_EFULL no space to create it; BH_EVERSION, BH_ECORRUPT, BH_EIO */
BH_MUST_USE enum bh_status bh_kv_lmdb_open(const struct bh_kv_lmdb_options *options,
                                           struct bh_kv **kv, char *error, size_t error_len);

struct bh_kv_lmdb_usage {
    uint64_t map_bytes;  /* the bound */
    uint64_t file_bytes; /* up to the last page used */
    uint64_t free_bytes; /* pages inside it that can be used again */
    uint64_t disk_bytes; /* free on the file system for us */
    uint32_t readers;    /* slots in use */
};

/** Frees the slots of readers that died, re-establishes the reserve on disk. Call at start (open
 * does) and every few seconds, on the writer's thread, with no write transaction open.
 * @return BH_OK, or BH_EFULL if the reserve could not be had, or BH_EIO */
BH_MUST_USE enum bh_status bh_kv_lmdb_upkeep(struct bh_kv *kv);
/** Any thread. @return BH_OK or BH_EIO */
BH_MUST_USE enum bh_status bh_kv_lmdb_usage(struct bh_kv *kv, struct bh_kv_lmdb_usage *usage);
/** Whether new mail that was refused may come again: there is a quarter of the reserve more than
 * where it is refused, in the map and on the disk. To be asked now and then, not for every message:
 * it walks the list of free pages. Any thread. */
bool bh_kv_lmdb_has_room(struct bh_kv *kv);
/** Copy the store, compacted, into the empty folder `path`. @return BH_OK, BH_EFULL or BH_EIO */
BH_MUST_USE enum bh_status bh_kv_lmdb_copy(struct bh_kv *kv, const char *path);

/** The name of a file system on which memory maps and locks are not to be trusted ("nfs", "cifs",
 * ...), by the magic number of statfs(2); NULL for all others. */
const char *bh_kv_lmdb_network_fs(uint64_t magic);
