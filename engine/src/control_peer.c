#define _GNU_SOURCE /* struct ucred */
#include "control_peer.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/log.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59 /* Linux 4.13 */
#endif
#define PEER_GROUPS_MAX 65536 /* NGROUPS_MAX of the kernel */

/* ---- groups ---- */

static bool find_group(const struct bh_config *config, struct bh_slice name, const char *setting,
                       gid_t *gid, char shown[64], struct bh_config_errors *errors)
{
    char text[256];
    snprintf(text, sizeof(text), "%.*s", BH_FMT(name));
    const struct group *group = getgrnam(text);
    if (group == NULL) {
        struct bh_slice file;
        uint32_t line;
        uint32_t column;
        bh_config_engine_place(config, setting, &file, &line, &column);
        bh_config_errors_add(errors, BH_CONFIG_ERROR, file, line, column,
                             "%s: there is no group '%.*s'", setting,
                             BH_FMT(bh_slice_take(name, 64)));
        return false;
    }
    *gid = group->gr_gid;
    snprintf(shown, 64, "%s", group->gr_name);
    return true;
}

bool control_groups_find(const struct bh_config *config, struct control_groups *groups,
                         struct bh_config_errors *errors)
{
    const struct bh_engine_config *engine = &config->engine;
    bool good = true;
    *groups = (struct control_groups){.act_gid = getegid()};
    if (engine->act_group.len > 0) {
        good = find_group(config, engine->act_group, "control-act-group", &groups->act_gid,
                          groups->act_name, errors);
    } else {
        const struct group *own = getgrgid(groups->act_gid);
        snprintf(groups->act_name, sizeof(groups->act_name), "%s",
                 own != NULL ? own->gr_name : "of the daemon");
    }
    if (engine->look_group.len > 0) {
        groups->look = true;
        good = find_group(config, engine->look_group, "control-look-group", &groups->look_gid,
                          groups->look_name, errors) &&
               good;
    }
    return good;
}

/* ---- who is there ---- */

/* Its list of supplementary groups, as it was when it connected. */
static gid_t *groups_of(int fd, size_t *count)
{
    gid_t few[64];
    socklen_t len = sizeof(few);
    *count = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &len) != 0 &&
        (errno != ERANGE || len > PEER_GROUPS_MAX * sizeof(gid_t))) {
        return NULL;
    }
    gid_t *list = malloc(len > 0 ? len : 1);
    if (list != NULL && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, list, &len) == 0) {
        *count = len / sizeof(gid_t);
        return list;
    }
    free(list);
    return NULL;
}

enum control_right control_right_of(int fd, const struct control_groups *groups)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0) {
        return CONTROL_NOTHING;
    }
    if (peer.uid == 0 || peer.uid == geteuid() || peer.gid == groups->act_gid) {
        return CONTROL_ACT;
    }
    enum control_right right =
        groups->look && peer.gid == groups->look_gid ? CONTROL_LOOK : CONTROL_NOTHING;
    size_t count = 0;
    gid_t *list = groups_of(fd, &count);
    for (size_t i = 0; i < count && right != CONTROL_ACT; i++) {
        if (list[i] == groups->act_gid) {
            right = CONTROL_ACT;
        } else if (groups->look && list[i] == groups->look_gid) {
            right = CONTROL_LOOK;
        }
    }
    free(list);
    return right;
}

void control_set_mode(const char *path, const struct control_groups *groups)
{
    const bool one = !groups->look || groups->look_gid == groups->act_gid;
    const bool given =
        one && (groups->act_gid == getegid() || chown(path, (uid_t)-1, groups->act_gid) == 0);
    if (chmod(path, given ? 0660 : 0666) != 0) {
        bh_log(BH_LOG_ERROR, "evt=control_failed path=%s error=\"its mode cannot be set\"", path);
    }
}

void control_refusal(const struct bh_control_request *request, enum control_right right,
                     const struct control_groups *groups, struct bh_control_error *error)
{
    const bool act = bh_control_needs_act(request);
    snprintf(error->what, sizeof(error->what), "%s: %s", bh_control_verb_name(request->verb),
             right == CONTROL_LOOK ? "you may look, but not change anything"
                                   : "you may neither look nor change anything here");
    if (groups->look && !act) {
        snprintf(error->hint, sizeof(error->hint),
                 "root, the daemon's user and members of the groups %s and %s may",
                 groups->look_name, groups->act_name);
    } else {
        snprintf(error->hint, sizeof(error->hint),
                 "root, the daemon's user and members of the group %s may", groups->act_name);
    }
}
