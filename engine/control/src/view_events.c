/* What the event log's files say: the events of a message for `why`, and `audit`. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/event_line.h"
#include "view_private.h"

#define STEP_OCTETS ((uint64_t)4 << 20) /* looked at in a step: some milliseconds */
#define CLOCK_SLACK_MS (2 * BH_SEGMENT_MS)
#define FINDINGS_MAX 100

void view_events_fini(struct bh_view *v)
{
    bh_event_reader_destroy(v->events);
    v->events = NULL;
    if (v->audit != NULL) {
        bh_audit_fini(v->audit);
        free(v->audit);
        v->audit = NULL;
    }
}

static void put_note(struct bh_view *v, const char *text, const char *more)
{
    char line[400];
    struct bh_json j = view_row_begin(v);
    snprintf(line, sizeof(line), "%s %s: %s", text, more, strerror(errno));
    view_cstr(&j, "kind", "note");
    view_cstr(&j, "text", line);
    view_row_end(v, &j);
}

/* ---- why ---- */

/* An event is an object already: {"kind":"event", and the rest of it. One that is damaged would
 * break the answer: it is named instead. */
static void put_event(struct bh_view *v, const struct bh_event_line *line)
{
    struct bh_json j = view_row_begin(v);
    json_error_t where;
    json_t *object = json_loadb(line->text.ptr, line->text.len, JSON_REJECT_DUPLICATES, &where);
    view_cstr(&j, "kind", "event");
    if (json_is_object(object) && bh_event_well_formed(line->text)) {
        bh_buf_add_cut(&j.buf, BH_LIT(","));
        bh_buf_add_cut(&j.buf, bh_slice_take(bh_slice_skip(line->text, 1), line->text.len - 2));
    } else {
        view_cstr(&j, "damaged", line->segment);
        view_u64(&j, "offset", line->offset);
    }
    json_decref(object);
    view_row_end(v, &j);
    v->event_count++;
}

static enum bh_status open_events(struct bh_view *v, uint64_t id)
{
    const struct bh_event_query query = {.folder = v->events_folder,
                                         .from_unix_ms = bh_queue_id_unix_ms(id) - CLOCK_SLACK_MS,
                                         .to_unix_ms = INT64_MAX,
                                         .id = id};
    return bh_event_reader_create(&query, &v->events);
}

enum bh_status view_events_step(struct bh_view *v, uint64_t id)
{
    if (v->events_folder.len == 0) {
        return BH_OK;
    }
    if (v->events == NULL) {
        const enum bh_status status = open_events(v, id);
        if (status == BH_EIO) {
            put_note(v, "the event log could not be read:", "its folder");
        }
        if (status != BH_OK) {
            return status == BH_ENOMEM ? status : BH_OK;
        }
    }
    bh_event_reader_allow(v->events, STEP_OCTETS);
    while (v->step_rows < BH_VIEW_ROWS) {
        struct bh_event_line line;
        const enum bh_status status = bh_event_reader_next(v->events, &line);
        if (status == BH_OK) {
            put_event(v, &line);
        } else if (status == BH_EIO) {
            put_note(v, "a part of the event log could not be read:",
                     bh_event_reader_segment(v->events));
        } else {
            if (status != BH_MORE) {
                bh_event_reader_destroy(v->events);
                v->events = NULL;
            }
            return status == BH_ENOTFOUND ? BH_OK : status;
        }
    }
    return BH_MORE;
}

/* ---- audit ---- */

static enum bh_status open_audit(struct bh_view *v)
{
    const struct bh_control_request *r = &v->request;
    const int64_t until = r->until_unix_ms > 0 ? r->until_unix_ms : INT64_MAX;
    const struct bh_event_query query = {
        .folder = v->events_folder, .from_unix_ms = r->since_unix_ms, .to_unix_ms = until};
    const enum bh_status status = bh_event_reader_create(&query, &v->events);
    if (status == BH_ENOTFOUND || status == BH_EIO) {
        snprintf(v->error.hint, sizeof(v->error.hint), "%s", strerror(errno));
        return view_fail(v, BH_ENOTFOUND, "no event log to be read in", v->events_folder);
    }
    v->audit = status == BH_OK ? malloc(sizeof(*v->audit)) : NULL;
    if (v->audit == NULL) {
        return BH_ENOMEM;
    }
    bh_audit_init(v->audit, r->selection.connector, (uint64_t)r->since_unix_ms, (uint64_t)until);
    return BH_OK;
}

static void put_finding(struct bh_view *v, const struct bh_audit_finding *finding)
{
    if (finding->what == BH_AUDIT_FINE || v->findings++ >= FINDINGS_MAX) {
        return;
    }
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "finding");
    view_cstr(&j, "segment", finding->segment);
    view_u64(&j, "line", finding->line);
    view_cstr(&j, "text", bh_audit_what_text(finding->what));
    view_row_end(v, &j);
}

/* @return BH_MORE until all lines were looked at */
static enum bh_status read_all(struct bh_view *v)
{
    struct bh_audit_finding finding;
    bh_event_reader_allow(v->events, STEP_OCTETS);
    while (true) {
        struct bh_event_line line;
        enum bh_status status = bh_event_reader_next(v->events, &line);
        if (status == BH_EIO) {
            snprintf(v->error.hint, sizeof(v->error.hint), "%s", strerror(errno));
            return view_fail(
                v, BH_EIO, "could not be read:", bh_slice_str(bh_event_reader_segment(v->events)));
        }
        if (status == BH_ENOTFOUND) {
            bh_audit_end(v->audit, &finding);
            put_finding(v, &finding);
            return BH_OK;
        }
        if (status == BH_OK) {
            status = bh_audit_line(v->audit, &line, &finding);
            put_finding(v, &finding);
        }
        if (status != BH_OK) {
            return status;
        }
    }
}

static bool below(const struct bh_audit_count *c, enum bh_require require)
{
    switch (require) {
    case BH_REQUIRE_NOTHING:
        return false;
    case BH_REQUIRE_TLS:
        return c->clear > 0;
    case BH_REQUIRE_AUTHENTICATED:
        return c->clear + c->unauthenticated > 0;
    }
    return false;
}

static void put_count(struct bh_view *v, const struct bh_audit_count *c)
{
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "connector");
    view_str(&j, "connector", c->name);
    view_u64(&j, "delivered", c->delivered);
    view_u64(&j, "clear", c->clear);
    view_u64(&j, "unauthenticated", c->unauthenticated);
    view_u64(&j, "name", c->by_name);
    view_u64(&j, "pin", c->by_pin);
    view_u64(&j, "dane", c->by_dane);
    view_time(&j, "first_unix_ms", (int64_t)c->first_unix_ms);
    view_time(&j, "last_unix_ms", (int64_t)c->last_unix_ms);
    if (v->request.require != BH_REQUIRE_NOTHING) {
        view_bool(&j, "below", below(c, v->request.require));
    }
    view_row_end(v, &j);
    v->negative = v->negative || below(c, v->request.require);
}

static void put_audit_end(struct bh_view *v)
{
    const struct bh_audit *a = v->audit;
    char head[BH_LEDGER_HEX];
    const bool whole = a->breaks == 0 && a->lost == 0;
    v->negative = v->negative || !whole;
    struct bh_json j = view_end_begin(v);
    view_bool(&j, "whole", whole);
    view_cstr(&j, "chain", bh_ledger_head_text(&a->ledger, head));
    view_u64(&j, "seq", a->ledger.seq);
    view_u64(&j, "first_seq", a->first_seq);
    view_u64(&j, "records", a->records);
    view_u64(&j, "breaks", a->breaks);
    view_u64(&j, "lost", a->lost);
    view_u64(&j, "events_dropped", a->dropped);
    view_u64(&j, "torn", a->torn);
    view_u64(&j, "crashes", a->crashes);
    view_bool(&j, "negative", v->negative);
    view_end_end(v, &j);
}

enum bh_status view_audit_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    (void)txn;
    if (v->audit == NULL) {
        const enum bh_status status = open_audit(v);
        if (status != BH_OK) {
            return status;
        }
    }
    if (v->events != NULL) {
        const enum bh_status status = read_all(v);
        if (status != BH_OK) {
            return status;
        }
        bh_event_reader_destroy(v->events);
        v->events = NULL;
        v->count_next = v->audit->first;
        if (v->count_next == NULL && v->request.selection.connector.len > 0) {
            const struct bh_audit_count none = {.name = v->request.selection.connector};
            put_count(v, &none);
        }
    }
    for (; v->count_next != NULL; v->count_next = v->count_next->next) {
        if (v->step_rows >= BH_VIEW_ROWS) {
            return BH_MORE;
        }
        put_count(v, v->count_next);
    }
    put_audit_end(v);
    return BH_OK;
}
