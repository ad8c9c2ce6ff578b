/* privileges.h - what the process gives up once its ports are bound. */
#pragma once

#include <sys/types.h>

#include "bh/config.h"

/** As whom it is to run. */
struct privileges {
    bool change;   /* started as root, with `engine { user }` */
    char user[64]; /* its name; empty: the user has none */
    uid_t uid;
    gid_t gid;
};

/** Are there such a user and group, where the process may become them? An error names the
 * statement.
 * @return false if not */
bool privileges_check(const struct bh_config *config, struct bh_config_errors *errors);
/** Look the user and the group up. @return false: there is none; said on standard error */
bool privileges_find(const struct bh_config *config, struct privileges *p);
/** Make the folders of queue, event log and control sockets where they are missing, and give them
 * to the user. What is there is left as it is. @return false: said on standard error */
bool privileges_folders(const struct bh_config *config, const struct privileges *p);
/** Become the user, with the groups it is a member of, and give up every capability and the means
 * to get one again, for good; each step is checked. Unless `core_dumps`, no core is written, and
 * one made by root's debugger holds no memory; no other process of the user can look into this one.
 * @return false: said on standard error; the process must end */
bool privileges_drop(const struct privileges *p, bool core_dumps);
