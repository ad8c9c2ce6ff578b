/* secrets.h - passwords and tokens from files. Each worker has a store of its own: a secret is read
 * when first asked for and again once its file has changed, lies in memory that core dumps leave
 * out, and is wiped when it is dropped. Nothing here logs a secret. */
#pragma once

#include "bh/buf.h"

#define BH_SECRETS_MAX 64      /* files remembered; the one not asked for longest gives way */
#define BH_SECRET_LEN_MAX 8192 /* octets without the newline at the end */

struct bh_secrets;

/** @return NULL for want of memory */
struct bh_secrets *bh_secrets_create(void);
/** Wipes all. NULL is fine. */
void bh_secrets_destroy(struct bh_secrets *secrets);

/** The secret in a file, without one newline (or CRLF) at its end.
 * @param path    NUL-terminated behind its slice; or "credential:NAME", a file of the folder that
 *                the service manager names in CREDENTIALS_DIRECTORY
 * @param secret  set; borrowed until the next call with the same store
 * @param error   appended to (cut): "PATH: why"
 * @return BH_OK; BH_EIO: unreadable, not a regular file, empty, too long, or has a NUL or a line
 *         break within. Asks stat(2) each time, reads when device, inode, size or a time of the
 * file has changed. */
BH_MUST_USE enum bh_status bh_secrets_get(struct bh_secrets *secrets, struct bh_slice path,
                                          struct bh_slice *secret, struct bh_buf *error);

/** Who could read it, and can we? For load and explain; nothing is kept.
 * @param path   NUL-terminated behind its slice
 * @param error  appended to (cut): why it is unreadable, or what is wrong with its mode
 * @return BH_OK; BH_ELIMIT: readable, but others may read it too; BH_EIO: as bh_secrets_get */
BH_MUST_USE enum bh_status bh_secret_check(struct bh_slice path, struct bh_buf *error);
