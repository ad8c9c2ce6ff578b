#include "bh/view.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/queue_id.h"
#include "view_private.h"

#define MEMORY_MAX ((size_t)8 << 20)  /* one message with all its parts, and the request */
#define SCRATCH_MAX ((size_t)8 << 20) /* one record at a time, or a slice of the fresh lane */

/* ---- Writing rows ---- */

struct bh_json view_row_begin(struct bh_view *v)
{
    struct bh_json j = {.buf = bh_buf(v->row, BH_CONTROL_ROW_MAX - 16)};
    bh_json_begin_object(&j);
    return j;
}

void view_row_end(struct bh_view *v, struct bh_json *j)
{
    bh_json_end_object(j);
    v->sink->row(v->sink->ctx, j->overflow ? BH_LIT("{\"overflow\":true}") : bh_buf_slice(&j->buf));
    v->step_rows++;
}

struct bh_json view_end_begin(struct bh_view *v)
{
    struct bh_json j = {.buf = bh_buf(v->end, sizeof(v->end))};
    bh_json_begin_object(&j);
    return j;
}

void view_end_end(struct bh_view *v, struct bh_json *j)
{
    bh_json_end_object(j);
    BH_ASSERT(!j->overflow);
    v->end_len = j->buf.len;
}

enum bh_status view_fail(struct bh_view *v, enum bh_status status, const char *what,
                         struct bh_slice name)
{
    snprintf(v->error.what, sizeof(v->error.what), "%s%s%.*s", what, name.len > 0 ? " " : "",
             BH_FMT(bh_slice_take(name, 100)));
    return status;
}

void view_str(struct bh_json *j, const char *key, struct bh_slice value)
{
    bh_json_key(j, key);
    bh_json_str(j, value);
}

void view_cstr(struct bh_json *j, const char *key, const char *value)
{
    bh_json_key(j, key);
    bh_json_cstr(j, value);
}

void view_u64(struct bh_json *j, const char *key, uint64_t value)
{
    bh_json_key(j, key);
    bh_json_u64(j, value);
}

void view_time(struct bh_json *j, const char *key, int64_t unix_ms)
{
    if (unix_ms > 0 && unix_ms != BH_QUEUE_NEVER) {
        bh_json_key(j, key);
        bh_json_i64(j, unix_ms);
    }
}

void view_bool(struct bh_json *j, const char *key, bool value)
{
    bh_json_key(j, key);
    bh_json_bool(j, value);
}

void view_id(struct bh_json *j, uint64_t id)
{
    char text[BH_QUEUE_ID_TEXT];
    view_cstr(j, "id", bh_queue_id_text(id, text));
}

void view_outcome(struct bh_json *j, const char *key, const struct bh_outcome *o)
{
    bh_json_key(j, key);
    bh_json_begin_object(j);
    view_cstr(j, "stage", bh_stage_name(o->stage));
    view_cstr(j, "happened", bh_happened_name(o->happened));
    if (o->code != 0) {
        view_u64(j, "code", o->code);
    }
    if (o->enhanced_class != 0) {
        char text[24];
        snprintf(text, sizeof(text), "%u.%u.%u", (unsigned)o->enhanced_class,
                 (unsigned)o->enhanced_subject, (unsigned)o->enhanced_detail);
        view_cstr(j, "enhanced", text);
    }
    view_str(j, "text", o->text);
    view_str(j, "host", o->host);
    if (o->ip.family != 0) {
        char ip[BH_IP_TEXT_MAX];
        view_cstr(j, "ip", bh_ip_text(&o->ip, ip));
        view_u64(j, "port", o->port);
    }
    bh_json_end_object(j);
}

/* ---- The life of a view ---- */

/* The request's texts, out of its JSON. */
static bool copy_request(struct bh_view *v, const struct bh_control_request *request)
{
    v->request = *request;
    v->request.json = NULL;
    struct bh_slice *const texts[] = {
        &v->request.selection.domain,
        &v->request.selection.connector,
        &v->request.selection.sender,
        &v->request.selection.recipient,
        &v->request.reason,
        &v->request.address,
        &v->request.name,
        &v->request.sender,
    };
    for (size_t i = 0; i < BH_COUNT(texts); i++) {
        if (texts[i]->len > 0 && !bh_arena_copy(&v->memory, *texts[i], texts[i])) {
            return false;
        }
    }
    return true;
}

static size_t top_max_of(const struct bh_control_request *request)
{
    if (request->verb != BH_VERB_QUEUE) {
        return 0;
    }
    const uint64_t top = request->top == 0 ? BH_VIEW_TOP : request->top;
    return top < BH_VIEW_TOP_MAX ? (size_t)top : BH_VIEW_TOP_MAX;
}

enum bh_status bh_view_create(const struct bh_control_request *request,
                              const struct bh_view_options *options, struct bh_view **view,
                              struct bh_control_error *error)
{
    BH_ASSERT(bh_control_verb_is_view(request->verb));
    memset(error, 0, sizeof(*error));
    const bool needs_config =
        request->verb == BH_VERB_CONNECTORS || request->verb == BH_VERB_EXPLAIN;
    struct bh_slice events = options->events;
    if (events.len == 0 && options->config != NULL) {
        events = options->config->engine.event_log;
    }
    if (request->verb == BH_VERB_AUDIT && events.len == 0) {
        snprintf(error->what, sizeof(error->what), "where the event log is is not known");
        snprintf(error->hint, sizeof(error->hint),
                 "give --events DIRECTORY, or event-log in the engine block");
        return BH_EINVAL;
    }
    if (needs_config && options->config == NULL) {
        snprintf(error->what, sizeof(error->what), "no configuration");
        snprintf(error->hint, sizeof(error->hint), "name one with --config FILE");
        return BH_EINVAL;
    }
    if (request->verb == BH_VERB_EXPLAIN && bh_address_domain(request->address).len == 0) {
        snprintf(error->what, sizeof(error->what), "'%.*s' is no address",
                 BH_FMT(bh_slice_take(request->address, 100)));
        snprintf(error->hint, sizeof(error->hint), "expected local@domain");
        return BH_EINVAL;
    }
    struct bh_view *v = calloc(1, sizeof(*v));
    if (v == NULL) {
        return BH_ENOMEM;
    }
    bh_arena_init(&v->memory, MEMORY_MAX);
    bh_arena_init(&v->scratch, SCRATCH_MAX);
    v->row = malloc(BH_CONTROL_ROW_MAX);
    v->top_max = top_max_of(request);
    v->top = v->top_max > 0 ? calloc(v->top_max, sizeof(*v->top)) : NULL;
    v->config = options->config != NULL ? bh_config_ref(options->config) : NULL;
    v->live = options->live;
    v->now_unix_ms = options->now_unix_ms;
    const bool kept = events.len == 0 || bh_arena_copy(&v->memory, events, &v->events_folder);
    if (!kept || v->row == NULL || (v->top_max > 0 && v->top == NULL) ||
        !copy_request(v, request)) {
        bh_view_destroy(v);
        return BH_ENOMEM;
    }
    *view = v;
    return BH_OK;
}

void bh_view_destroy(struct bh_view *view)
{
    if (view == NULL) {
        return;
    }
    for (struct bh_map_node *n = bh_map_next(&view->fresh, NULL); n != NULL;) {
        struct bh_map_node *next = bh_map_next(&view->fresh, n);
        free(BH_CONTAINER(n, struct fresh_count, node));
        n = next;
    }
    bh_map_fini(&view->fresh);
    view_events_fini(view);
    bh_config_unref(view->config);
    bh_arena_fini(&view->memory);
    bh_arena_fini(&view->scratch);
    free(view->top);
    free(view->row);
    free(view);
}

static enum bh_status step(struct bh_view *v, struct bh_kv_txn *txn)
{
    switch ((int)v->request.verb) {
    case BH_VERB_STATUS:
        return view_status_step(v, txn);
    case BH_VERB_QUEUE:
        return view_queue_step(v, txn);
    case BH_VERB_LIST:
        return view_list_step(v, txn);
    case BH_VERB_SHOW:
        return view_show_step(v, txn);
    case BH_VERB_WHY:
        return view_why_step(v, txn);
    case BH_VERB_CONNECTORS:
        return view_connectors_step(v, txn);
    case BH_VERB_EXPLAIN:
        return view_explain_step(v, txn);
    case BH_VERB_VERIFY:
        return view_verify_step(v, txn);
    case BH_VERB_AUDIT:
        return view_audit_step(v, txn);
    case BH_VERB_POLICY:
        return view_policy_step(v, txn);
    default:
        return BH_EINVAL;
    }
}

enum bh_status bh_view_step(struct bh_view *view, struct bh_kv_txn *txn,
                            const struct bh_view_sink *sink)
{
    view->sink = sink;
    view->txn = txn;
    view->step_rows = 0;
    bh_arena_reset(&view->scratch);
    const enum bh_status status = step(view, txn);
    view->sink = NULL;
    view->txn = NULL;
    if (status < 0 && view->error.what[0] == 0) {
        return view_fail(view, status,
                         "the queue could not be read:", bh_slice_str(bh_status_name(status)));
    }
    if (status == BH_OK && view->end_len == 0) {
        struct bh_json j = view_end_begin(view);
        view_end_end(view, &j);
    }
    return status;
}

struct bh_slice bh_view_end(const struct bh_view *view)
{
    return bh_slice(view->end, view->end_len);
}

const struct bh_control_error *bh_view_error(const struct bh_view *view)
{
    return &view->error;
}

bool bh_view_negative(const struct bh_view *view)
{
    return view->negative;
}
