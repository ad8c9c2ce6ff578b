/* unreadable.h - why this process may not read a file, in words that say what to mend: which user,
 * which file or folder, whose it is and its mode. For drivers; any thread. */
#pragma once

#include "bh/slice.h"

#define BH_UNREADABLE_MAX 512

/** As whom we run, for the words: called once, before threads. @param name  kept; NULL: uid alone
 */
void bh_unreadable_user(const char *name);

/** @param error  errno of the call that failed
 * @return text, NUL-terminated: what the error means, with EACCES in full: "user mail (uid 8) may
 * not read it: it belongs to uid 0, gid 0, mode 0600" */
const char *bh_unreadable(const char *path, int error, char text[BH_UNREADABLE_MAX]);
