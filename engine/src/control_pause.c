/* pause and resume of intake. It is written down before it is answered, and taken up again at the
 * next start. */
#define _GNU_SOURCE /* struct ucred */
#include <pwd.h>
#include <stdio.h>
#include <sys/socket.h>

#include "bh/log.h"
#include "bh/pause.h"
#include "control_private.h"

/* Who is at the other end of the control socket, as a user of this machine. */
static const char *asker(const struct bh_control_reply *reply, char text[BH_PAUSE_BY_MAX])
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    const int fd = reply_socket(reply);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0) {
        return "operator";
    }
    char storage[4096];
    struct passwd entry;
    struct passwd *found = NULL;
    if (getpwuid_r(peer.uid, &entry, storage, sizeof(storage), &found) == 0 && found != NULL) {
        snprintf(text, BH_PAUSE_BY_MAX, "%s", entry.pw_name);
    } else {
        snprintf(text, BH_PAUSE_BY_MAX, "uid %lu", (unsigned long)peer.uid);
    }
    return text;
}

void control_know_asker(struct bh_control_reply *reply)
{
    char text[BH_PAUSE_BY_MAX];
    snprintf(reply->asker, sizeof(reply->asker), "%s", asker(reply, text));
}

static enum bh_status run_pause(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    if (!reply->hold) {
        return bh_pause_clear(q, txn);
    }
    const struct bh_pause pause = {.since_unix_ms = reply->now.unix_ms,
                                   .by = bh_slice_str(reply->asker),
                                   .reason = reply->request.reason};
    return bh_pause_put(q, txn, &pause);
}

static void written(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, call);
    (void)d;
    if (reply->status != BH_OK) {
        reply_error(reply,
                    reply->hold ? "intake is paused, but that could not be written down"
                                : "intake is open, but that could not be written down",
                    "a restart would forget it: ask again when the store has space");
        return;
    }
    reply_end(reply, reply->hold ? BH_LIT("{\"paused\":true}") : BH_LIT("{\"paused\":false}"));
}

void control_op_intake(void *ctx, bool paused, struct bh_control_reply *reply)
{
    struct control_server *server = ctx;
    control_know_asker(reply);
    reply->hold = paused;
    daemon_set_paused(server->daemon, paused); /* At once, even if it can't be written down. */
    if (!paused) {
        control_confirm_clock(server->daemon);
    }
    reply_write(reply, run_pause, written);
}

bool control_was_paused(struct bh_kv_txn *txn, struct bh_arena *arena)
{
    struct bh_pause pause;
    char by[BH_LOG_QUOTE_MAX];
    char reason[BH_LOG_QUOTE_MAX];
    const enum bh_status status = bh_pause_get(txn, arena, &pause);
    if (status == BH_ENOTFOUND) {
        return false;
    }
    if (status == BH_OK) {
        bh_log(BH_LOG_WARN, "evt=intake-paused since_unix_ms=%lld by=%s reason=%s",
               (long long)pause.since_unix_ms, bh_log_quote(pause.by, by),
               bh_log_quote(pause.reason, reason));
    } else {
        bh_log(BH_LOG_ERROR, "evt=intake-paused error=\"%s\"", bh_status_name(status));
    }
    return true; /* What cannot be read is taken for a pause: it is no mail lost. */
}
