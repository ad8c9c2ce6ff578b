/* Whose turn it is. A client can say far more in one read than others say in a minute: ten thousand
 * NOOPs, or content as fast as the wire goes. A session does at most TURN_WORK, or one full read,
 * and then lets all others go first; it goes on with the loop's next turn, in the order in which
 * they came to wait. */
#include "intake_internal.h"

static void on_turn(uv_idle_t *idle)
{
    struct intake_turns *turns = idle->data;
    struct session *last = turns->last;
    /* Those who come to wait again while this runs are behind `last`, for the next turn. */
    for (bool more = turns->first != NULL; more;) {
        struct session *s = turns->first;
        more = s != last;
        turn_forget(s);
        session_pump(s); /* It may go, and no other does. */
    }
}

void turns_init(struct intake_turns *turns, uv_loop_t *loop)
{
    uv_idle_init(loop, &turns->idle);
    turns->idle.data = turns;
}

void turn_wait(struct session *s)
{
    struct intake_turns *turns = &s->intake->turns;
    if (s->waits_turn || s->stage == STAGE_CLOSED) {
        return;
    }
    s->waits_turn = true;
    s->turn_next = NULL;
    s->turn_prev = turns->last;
    if (turns->last != NULL) {
        turns->last->turn_next = s;
    } else {
        turns->first = s;
        uv_idle_start(&turns->idle, on_turn);
    }
    turns->last = s;
}

void turn_forget(struct session *s)
{
    struct intake_turns *turns = &s->intake->turns;
    if (!s->waits_turn) {
        return;
    }
    s->waits_turn = false;
    *(s->turn_prev != NULL ? &s->turn_prev->turn_next : &turns->first) = s->turn_next;
    *(s->turn_next != NULL ? &s->turn_next->turn_prev : &turns->last) = s->turn_prev;
    if (turns->first == NULL) {
        uv_idle_stop(&turns->idle);
    }
}
