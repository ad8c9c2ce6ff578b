/* control_server.h - the control socket: a Unix socket that bhctl speaks to. On the main thread;
 * views run on store readers, actions on the writer and the engine. */
#pragma once

#include "bh/kv.h"

#include "bh/status.h"

struct daemon;
struct control_server;

/** Open the sockets of the configuration (their mode by control_set_mode). @return BH_OK; BH_EIO
 * (logged), BH_ENOMEM */
BH_MUST_USE enum bh_status control_server_create(struct daemon *d, struct control_server **server);
/** Close everything; the loop has to run on for its close callbacks. NULL is fine. */
void control_server_destroy(struct control_server *server);
/** Last of all, when no thread and no callback can come back to an answer that was under way. NULL
 * is fine. */
void control_server_free(struct control_server *server);
/** SIGHUP: reload, with the result in the log. */
void control_reload(struct control_server *server);
/** Had an operator paused intake when the process before this one ended? Says so in the log. */
bool control_was_paused(struct bh_kv_txn *txn, struct bh_arena *arena);
