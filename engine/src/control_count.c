/* What a selection matches, counted on a store reader without touching it: for dry runs, and to
 * know the destinations of single messages that are to be tried now. */
#include <stdlib.h>

#include "control_private.h"

#define SELECT_ROWS 1000 /* looked at in one transaction: a few milliseconds */

/* Destinations met so far. Entries come by destination, fresh ones by id, so that one may come
 * again. */
struct counted_destination {
    struct bh_map_node node;
    uint32_t id;
};

static void count_destination(struct bh_control_reply *reply, uint32_t id)
{
    if (reply->destinations > 0 && reply->after == id) {
        return; /* Most follow others of the same. */
    }
    reply->after = id;
    if (bh_map_find(&reply->counted, bh_slice(&id, sizeof(id))) != NULL) {
        return;
    }
    reply->destinations++;
    struct counted_destination *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return; /* At worst it is counted again. */
    }
    c->id = id;
    c->node.key = bh_slice(&c->id, sizeof(c->id));
    if (bh_map_insert(&reply->counted, &c->node) != BH_OK) {
        free(c);
    }
}

void control_count_take(struct bh_control_reply *reply)
{
    reply->id_count = 0;
    while (reply->id_count < BH_COUNT(reply->ids)) {
        struct bh_map_node *n = bh_map_next(&reply->counted, NULL);
        if (n == NULL) {
            return;
        }
        struct counted_destination *c = BH_CONTAINER(n, struct counted_destination, node);
        reply->ids[reply->id_count++] = c->id;
        bh_map_remove(&reply->counted, n);
        free(c);
    }
}

void control_count_fini(struct bh_control_reply *reply)
{
    for (struct bh_map_node *n = bh_map_next(&reply->counted, NULL); n != NULL;) {
        struct bh_map_node *next = bh_map_next(&reply->counted, n);
        free(BH_CONTAINER(n, struct counted_destination, node));
        n = next;
    }
    bh_map_fini(&reply->counted);
}

static bool count_match(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    struct bh_control_reply *reply = ctx;
    (void)message;
    reply->matched++;
    reply->in_flight += leased_has(&reply->server->daemon->leased, entry->key) ? 1 : 0;
    count_destination(reply, entry->key.destination);
    return true;
}

static enum bh_status run_count(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    (void)q;
    const enum bh_status status =
        bh_queue_select(txn, &reply->selection, &reply->cursor, SELECT_ROWS, count_match, reply);
    reply->more = status == BH_MORE;
    return status >= 0 ? BH_OK : status;
}

static void on_counted(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, call);
    (void)d;
    if (reply->status == BH_OK && reply->more && reply->conn != NULL) {
        reply_read(reply, run_count, on_counted);
    } else {
        reply->counted_then(reply);
    }
}

void control_count(struct bh_control_reply *reply, void (*then)(struct bh_control_reply *reply))
{
    reply->counted_then = then;
    reply->destinations = 0;
    reply_read(reply, run_count, on_counted);
}
