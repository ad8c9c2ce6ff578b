/* life.h - systemd's watchdog is fed while every thread goes on: the engine, each worker, the
 * store's writer and a reader each answer a question before the next sign of life is given. One
 * that stands still (a loop without end, a disk that never answers) so ends the process, and the
 * next one takes up what was in flight. */
#pragma once

#include "daemon.h"

struct life;

/** On the main thread, once all threads run. Without a watchdog for this process nothing happens.
 * @return BH_OK or BH_ENOMEM */
BH_MUST_USE enum bh_status life_watch(struct daemon *d, struct life **life);
/** Ask no more; what is asked already is still answered. NULL is fine. */
void life_stop(struct life *life);
/** When every thread that was asked has ended and its timer is closed with the main thread's loop.
 * NULL is fine. */
void life_destroy(struct life *life);
