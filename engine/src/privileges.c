#define _GNU_SOURCE /* setresuid, getgrouplist */
#include "privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bh/log.h"
#include "bh/unreadable.h"

#define GROUPS_MAX 1024
#define CAPABILITIES_MAX 64 /* of any kernel */

/* ---- who ---- */

/* At the start alone: whoever has given root up has no other user to become. */
bool privileges_check(const struct bh_config *config, struct bh_config_errors *errors)
{
    const struct bh_engine_config *engine = &config->engine;
    const char *wrong = NULL;
    char name[256];
    if (geteuid() != 0 || engine->user.len == 0) {
        return true;
    }
    snprintf(name, sizeof(name), "%.*s", BH_FMT(engine->user));
    if (getpwnam(name) == NULL) {
        wrong = "user";
    } else if (engine->group.len > 0) {
        snprintf(name, sizeof(name), "%.*s", BH_FMT(engine->group));
        wrong = getgrnam(name) == NULL ? "group" : NULL;
    }
    if (wrong != NULL) {
        struct bh_slice file;
        uint32_t line;
        uint32_t column;
        bh_config_engine_place(config, wrong, &file, &line, &column);
        bh_config_errors_add(errors, BH_CONFIG_ERROR, file, line, column,
                             "%s: there is no %s '%s' on this machine", wrong, wrong, name);
    }
    return wrong == NULL;
}

bool privileges_find(const struct bh_config *config, struct privileges *p)
{
    static char kept[sizeof(p->user)]; /* for messages, as long as the process */
    char name[256];
    *p = (struct privileges){.uid = geteuid(), .gid = getegid()};
    const struct passwd *pw = NULL;
    if (geteuid() == 0 && config->engine.user.len > 0) {
        snprintf(name, sizeof(name), "%.*s", BH_FMT(config->engine.user));
        pw = getpwnam(name);
        if (pw == NULL) {
            fprintf(stderr, "engine user: no such user '%s'\n", name);
            return false;
        }
        p->change = true;
        p->uid = pw->pw_uid;
        p->gid = pw->pw_gid;
    } else {
        pw = getpwuid(p->uid);
    }
    if (pw != NULL) {
        snprintf(p->user, sizeof(p->user), "%s", pw->pw_name);
        memcpy(kept, p->user, sizeof(kept));
        bh_unreadable_user(kept);
    }
    if (p->change && config->engine.group.len > 0) {
        snprintf(name, sizeof(name), "%.*s", BH_FMT(config->engine.group));
        const struct group *gr = getgrnam(name);
        if (gr == NULL) {
            fprintf(stderr, "engine group: no such group '%s'\n", name);
            return false;
        }
        p->gid = gr->gr_gid;
    }
    return true;
}

/* ---- folders that only root may be able to make ---- */

static bool make_folder(const char *path, mode_t mode, const struct privileges *p)
{
    if (mkdir(path, mode) != 0) {
        /* One that is there is somebody's decision; who uses it says what is wrong with it. */
        return true;
    }
    if (p->change && chown(path, p->uid, p->gid) != 0) {
        fprintf(stderr, "%s: cannot give it to user %s: %s\n", path, p->user, strerror(errno));
        return false;
    }
    return true;
}

bool privileges_folders(const struct bh_config *config, const struct privileges *p)
{
    char path[4096];
    snprintf(path, sizeof(path), "%.*s", BH_FMT(config->queue.path));
    bool good = make_folder(path, 0700, p);
    if (config->engine.event_log.len > 0) {
        snprintf(path, sizeof(path), "%.*s", BH_FMT(config->engine.event_log));
        good = good && make_folder(path, 0750, p);
    }
    for (size_t i = 0; i < config->engine.control.count; i++) {
        snprintf(path, sizeof(path), "%.*s", BH_FMT(config->engine.control.at[i]));
        char *slash = strrchr(path, '/');
        if (slash != NULL && slash != path) {
            *slash = '\0';
            good = good && make_folder(path, 0755, p);
        }
    }
    return good;
}

/* ---- becoming that user ---- */

static bool failed(const char *what)
{
    fprintf(stderr, "cannot drop privileges: %s: %s\n", what,
            errno != 0 ? strerror(errno) : "not in force afterwards");
    return false;
}

/* As of the user's memberships, so that a key readable for a group can be read. */
static bool set_groups(const struct privileges *p)
{
    static gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    if (getgrouplist(p->user, p->gid, groups, &count) < 0) {
        errno = E2BIG;
        return false;
    }
    return setgroups((size_t)count, groups) == 0;
}

static bool become(const struct privileges *p)
{
    uid_t uids[3];
    gid_t gids[3];
    errno = 0;
    if (!set_groups(p)) {
        return failed("setgroups");
    }
    if (setresgid(p->gid, p->gid, p->gid) != 0) {
        return failed("setresgid");
    }
    if (setresuid(p->uid, p->uid, p->uid) != 0) {
        return failed("setresuid");
    }
    if (getresuid(&uids[0], &uids[1], &uids[2]) != 0 ||
        getresgid(&gids[0], &gids[1], &gids[2]) != 0) {
        return failed("getresuid");
    }
    for (size_t i = 0; i < 3; i++) {
        if (uids[i] != p->uid || gids[i] != p->gid) {
            return failed("user and group");
        }
    }
    if (p->uid != 0 && setuid(0) == 0) {
        errno = 0;
        return failed("the way back to root is open");
    }
    return true;
}

/* ---- capabilities ---- */

/* None may be had again, by whatever is executed; only who has CAP_SETPCAP can say so. */
static void drop_bounding_set(void)
{
    for (unsigned long i = 0; i < CAPABILITIES_MAX; i++) {
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1) {
            (void)prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
        }
    }
}

enum held { HELD_NONE, HELD_SOME, HELD_UNKNOWN };

static enum held held_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0) {
        return HELD_UNKNOWN;
    }
    for (size_t i = 0; i < BH_COUNT(data); i++) {
        if (data[i].effective != 0 || data[i].permitted != 0 || data[i].inheritable != 0) {
            return HELD_SOME;
        }
    }
    return HELD_NONE;
}

/* Who has none already is not asked: a service manager's filter may refuse the call. */
static bool drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof(none));
    errno = 0;
    if (held_capabilities() == HELD_NONE) {
        return true;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) != 0) {
        return failed("capset");
    }
    return held_capabilities() == HELD_NONE || failed("capabilities");
}

/* ---- core files ---- */

/* A core made by root's debugger holds registers and headers, but no memory. */
static void leave_memory_out_of_cores(void)
{
    const int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0x10", 4) != 4) {
        bh_log(BH_LOG_WARN, "evt=core_filter error=\"%s\"", strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

bool privileges_drop(const struct privileges *p, bool core_dumps)
{
    drop_bounding_set();
    if (!core_dumps) {
        leave_memory_out_of_cores(); /* the file is root's once we are not dumpable */
    }
    if (p->change && !become(p)) {
        return false;
    }
    if (!drop_capabilities()) {
        return false;
    }
    errno = 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
        return failed("no_new_privs");
    }
    /* A change of user has cleared it, whatever was wanted. */
    if (prctl(PR_SET_DUMPABLE, core_dumps ? 1 : 0, 0, 0, 0) != 0) {
        return failed("dumpable");
    }
    if (geteuid() == 0) {
        bh_log(BH_LOG_WARN,
               "evt=privileges uid=0 hint=\"it stays root, though without capabilities; "
               "set engine { user }\"");
    }
    return true;
}
