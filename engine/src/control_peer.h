/* control_peer.h - who may do what over the control socket: root and the daemon's own user
 * everything, members of two groups of the configuration something, others nothing. */
#pragma once

#include <sys/types.h>

#include "bh/config.h"
#include "bh/control.h"

enum control_right { CONTROL_NOTHING, CONTROL_LOOK, CONTROL_ACT };

struct control_groups {
    bool look; /* is there one? Whoever may act may look */
    gid_t look_gid, act_gid;
    char look_name[64], act_name[64]; /* for messages */
};

/** The groups of a configuration. An error for each that is not there. @return false: there was one
 */
bool control_groups_find(const struct bh_config *config, struct control_groups *groups,
                         struct bh_config_errors *errors);
/** By the credentials that the kernel keeps of who connected. */
enum control_right control_right_of(int fd, const struct control_groups *groups);
/** Let those connect that may do anything: 0660 for one group where it can be given to it, else
 * 0666, and the credentials decide. */
void control_set_mode(const char *path, const struct control_groups *groups);
/** Why this request is refused, and who may. */
void control_refusal(const struct bh_control_request *request, enum control_right right,
                     const struct control_groups *groups, struct bh_control_error *error);
