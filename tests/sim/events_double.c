/* The double of the event log: what would go to disk goes to the checks, in the order it was said.
 */
#include <stdlib.h>

#include "bh/queue_id.h"
#include "core.h"
#include "event_log.h"
#include "world.h"

struct event_log {
    int unused;
};

enum bh_status event_log_create(const struct event_log_options *options, struct event_log **log)
{
    (void)options;
    *log = calloc(1, sizeof(**log));
    return *log != NULL ? BH_OK : BH_ENOMEM;
}

void event_log_destroy(struct event_log *log)
{
    free(log);
}

void event_log_reopen(struct event_log *log)
{
    (void)log;
}

void event_log_keep(struct event_log *log, uint64_t keep_ms, uint64_t size_max)
{
    (void)log;
    (void)keep_ms;
    (void)size_max;
}

void event_begin(struct event *event, int64_t unix_ms, const char *name)
{
    event->json = (struct bh_json){.buf = bh_buf(event->text, sizeof(event->text) - 1)};
    bh_json_begin_object(&event->json);
    bh_json_key(&event->json, "time");
    bh_json_i64(&event->json, unix_ms);
    bh_json_key(&event->json, "evt");
    bh_json_cstr(&event->json, name);
}

void event_id(struct event *event, uint64_t id)
{
    char text[BH_QUEUE_ID_TEXT];
    bh_json_key(&event->json, "msg");
    bh_json_cstr(&event->json, bh_queue_id_text(id, text));
}

static void say(struct event *event)
{
    bh_json_end_object(&event->json);
    event->text[event->json.buf.len] = '\0';
    world_on_event(event->text);
}

void event_end(struct event_log *log, struct event *event)
{
    if (log != NULL) {
        say(event);
    }
}

void event_record(struct event_log *log, struct event *event)
{
    if (log != NULL) {
        bh_json_end_object(&event->json);
    }
}
