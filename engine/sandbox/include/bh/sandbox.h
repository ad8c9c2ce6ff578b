/* sandbox.h - what this process may still do once it has started: which files it reaches (Landlock)
 * and which system calls it makes (seccomp). Entered once, before the first thread is made, since
 * Landlock holds for the calling thread and what it starts; there is no way back. */
#pragma once

#include "bh/buf.h"
#include "bh/status.h"

struct bh_sandbox;

/** Nothing is allowed yet. @return NULL for want of memory */
struct bh_sandbox *bh_sandbox_create(void);
/** Also after bh_sandbox_enter, which stays in force. NULL is fine. */
void bh_sandbox_destroy(struct bh_sandbox *sandbox);

/* What is not there is passed over: a rule holds for a file or folder, not for its name. Paths are
 * NUL-terminated. */

/** Read this file, or everything beneath this folder. */
void bh_sandbox_read(struct bh_sandbox *sandbox, const char *path);
/** Read this file and those that will take its place by rename: the folder it stands in, and that
 * of the file it leads to as a symbolic link. Directly under / only the file itself. */
void bh_sandbox_read_file(struct bh_sandbox *sandbox, const char *path);
/** Read, change, make and remove files in this folder and beneath. */
void bh_sandbox_write(struct bh_sandbox *sandbox, const char *path);
/** Make and remove sockets in this folder. */
void bh_sandbox_sockets(struct bh_sandbox *sandbox, const char *path);

struct bh_sandbox_result {
    int landlock;    /* version of its interface that is in force; 0: none is */
    bool seccomp;    /* its filter is in force */
    char lacks[160]; /* why one is not; empty: both are */
};

/** Put it in force for this thread and all that it starts, for good; sets no_new_privs.
 *
 * Files: nothing but what was allowed. TCP: no port is bound but one that the kernel chooses.
 * System calls: those of a list; others fail with EPERM (newer ones than the list with ENOSYS, for
 * which libraries know another way) and are logged once each as evt=sandbox_denied; those by which
 * another program would be run, watched or let into the kernel end the process.
 *
 * @return BH_OK: both are in force, or what the kernel lacks stands in result->lacks;
 *         BH_EIO: other threads run already, which would be left outside; nothing is in force */
BH_MUST_USE enum bh_status bh_sandbox_enter(struct bh_sandbox *sandbox,
                                            struct bh_sandbox_result *result);

/** Whether this build can have one: not under a sanitizer, whose runtime reads /proc and makes
 * calls of its own. */
bool bh_sandbox_possible(void);
