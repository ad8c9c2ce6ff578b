/* Landlock by its raw system calls: the C library has none, and the headers of the distribution are
 * older than the kernels that it runs on. Each version of the interface knows more accesses; one
 * that is not known stays as free as it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox_internal.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1
#define RULE_NET_PORT 2

#define FS(n) (UINT64_C(1) << (n))
enum {
    VERSION_REFER = 2,
    VERSION_TRUNCATE = 3,
    VERSION_NET = 4,
    VERSION_IOCTL = 5,
    VERSION_SCOPE = 6
};
#define FS_EXECUTE FS(0)
#define FS_WRITE_FILE FS(1)
#define FS_READ_FILE FS(2)
#define FS_READ_DIR FS(3)
#define FS_REMOVE_FILE FS(5)
#define FS_MAKE_REG FS(8)
#define FS_MAKE_SOCK FS(9)
#define FS_FIRST (FS(13) - 1) /* all of version 1 */
#define FS_REFER FS(13)
#define FS_TRUNCATE FS(14)
#define FS_IOCTL_DEV FS(15)
#define FS_OF_FILE (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define NET_BIND_TCP UINT64_C(1)
#define SCOPE_ABSTRACT_UNIX UINT64_C(1)
#define SCOPE_SIGNAL UINT64_C(2)

struct ruleset_attr { /* a kernel that knows less wants zeros in what it does not know */
    uint64_t handled_fs, handled_net, scoped;
};
struct path_beneath_attr {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));
struct net_port_attr {
    uint64_t allowed, port;
};

static uint64_t fs_of_version(int version)
{
    return FS_FIRST | (version >= VERSION_REFER ? FS_REFER : 0) |
           (version >= VERSION_TRUNCATE ? FS_TRUNCATE : 0) |
           (version >= VERSION_IOCTL ? FS_IOCTL_DEV : 0);
}

static uint64_t fs_of(unsigned access)
{
    uint64_t fs = 0;
    if ((access & SANDBOX_READ) != 0) {
        fs |= FS_READ_FILE | FS_READ_DIR;
    }
    if ((access & SANDBOX_WRITE) != 0) {
        fs |=
            FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_TRUNCATE | FS_MAKE_REG | FS_REMOVE_FILE;
    }
    if ((access & SANDBOX_SOCKETS) != 0) {
        fs |= FS_MAKE_SOCK | FS_REMOVE_FILE;
    }
    return fs;
}

/* systemd's socket for notes may be an abstract one, in containers. */
static bool notes_are_abstract(void)
{
    const char *notify = getenv("NOTIFY_SOCKET");
    return notify != NULL && notify[0] == '@';
}

static bool add_rules(int ruleset, const struct ruleset_attr *attr,
                      const struct sandbox_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct path_beneath_attr rule = {.allowed =
                                                   fs_of(rules[i].access) & attr->handled_fs &
                                                   (rules[i].folder ? UINT64_MAX : FS_OF_FILE),
                                               .parent = rules[i].fd};
        if (rule.allowed != 0 &&
            syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) != 0) {
            return false;
        }
    }
    /* A source address is bound before a connection is made, with a port of the kernel's choice. */
    const struct net_port_attr any_port = {.allowed = NET_BIND_TCP, .port = 0};
    return attr->handled_net == 0 ||
           syscall(SYS_landlock_add_rule, ruleset, RULE_NET_PORT, &any_port, 0) == 0;
}

int sandbox_landlock(const struct sandbox_rule *rules, size_t count)
{
    const long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    if (version < 1) {
        return 0;
    }
    const struct ruleset_attr attr = {
        .handled_fs = fs_of_version((int)version),
        .handled_net = version >= VERSION_NET ? NET_BIND_TCP : 0,
        .scoped = version >= VERSION_SCOPE
                      ? SCOPE_SIGNAL | (notes_are_abstract() ? 0 : SCOPE_ABSTRACT_UNIX)
                      : 0};
    const int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0) {
        return 0;
    }
    const bool done = add_rules(ruleset, &attr, rules, count) &&
                      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                      syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    const int error = errno;
    close(ruleset);
    errno = error;
    return done ? (int)version : 0;
}
