/* `list`, `show`, `why` and `verify`. */
#include <stdio.h>

#include "bh/decision.h"
#include "bh/queue_id.h"
#include "view_private.h"

#define LIST_RECIPIENTS_MAX 5 /* named in a row; the rest are counted */
#define SHOW_CHUNK BH_QUEUE_CHUNK

/* ---- list ---- */

static void put_entry_fields(struct bh_json *j, const struct bh_entry *e)
{
    view_u64(j, "part", e->key.part);
    view_cstr(j, "lane", e->lane == BH_LANE_FRESH ? "fresh" : "entry");
    view_cstr(j, "state", bh_entry_state_name(e->state));
    view_u64(j, "attempts", e->attempts);
    if (e->state == BH_ENTRY_DUE) {
        view_time(j, "due_unix_ms", e->due_unix_ms);
    }
    if (e->state == BH_ENTRY_HELD) {
        view_str(j, "hold_reason", e->reason);
        view_time(j, "hold_since_unix_ms", e->held_since_unix_ms);
    }
    view_time(j, "tried_unix_ms", e->tried_unix_ms);
    view_time(j, "first_failure_unix_ms", e->first_failure_unix_ms);
    view_bool(j, "warned", e->warned);
    view_bool(j, "uncertain", e->uncertain);
}

struct listing {
    struct bh_view *view;
    struct bh_kv_txn *txn;
    struct bh_arena *arena; /* of destinations */
    uint32_t destination;   /* that `record` is of; 0: none yet */
    struct bh_destination record;
    enum bh_status status;
};

/* Name the destination of an entry; most follow others of the same. */
static bool know_destination(struct listing *l, uint32_t id)
{
    if (l->destination == id) {
        return true;
    }
    bh_arena_reset(l->arena);
    l->status = bh_queue_read_destination(l->txn, id, l->arena, &l->record);
    l->destination = l->status == BH_OK ? id : 0;
    return l->status == BH_OK;
}

static bool list_found(void *ctx, const struct bh_message *message, const struct bh_entry *entry)
{
    struct listing *l = ctx;
    struct bh_view *v = l->view;
    if (!know_destination(l, entry->key.destination)) {
        return false;
    }
    struct bh_json j = view_row_begin(v);
    view_id(&j, entry->key.id);
    view_str(&j, "destination", l->record.domain);
    view_str(&j, "connector", l->record.connector);
    if (message != NULL) {
        view_str(&j, "sender", message->envelope.sender);
    }
    view_time(&j, "arrival_unix_ms", entry->arrival_unix_ms);
    view_u64(&j, "size", entry->size);
    put_entry_fields(&j, entry);
    view_put_waiting(v, &j, entry, &l->record);
    view_u64(&j, "recipient_count", entry->recipient_count);
    bh_json_key(&j, "recipients");
    bh_json_begin_array(&j);
    for (size_t i = 0; i < entry->recipient_count && i < LIST_RECIPIENTS_MAX; i++) {
        bh_json_str(&j, entry->recipients[i].to.address);
    }
    bh_json_end_array(&j);
    if (entry->recipient_count > 0 && entry->recipients[0].tried) {
        view_outcome(&j, "last", &entry->recipients[0].last);
    }
    view_row_end(v, &j);
    v->listed++;
    v->list_full = v->request.limit != 0 && v->listed == v->request.limit;
    return !v->list_full;
}

enum bh_status view_list_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    struct listing l = {.view = v, .txn = txn, .arena = &v->scratch};
    const enum bh_status status =
        bh_queue_select(txn, &v->request.selection, &v->select, BH_VIEW_ROWS, list_found, &l);
    if (l.status < 0 && l.status != BH_ENOTFOUND) {
        return l.status;
    }
    if (status == BH_MORE && !v->list_full) {
        return BH_MORE;
    }
    if (status < 0) {
        return status;
    }
    struct bh_json j = view_end_begin(v);
    view_u64(&j, "listed", v->listed);
    view_bool(&j, "whole", !v->list_full);
    view_end_end(v, &j);
    return BH_OK;
}

/* ---- show ---- */

static enum bh_status not_in_queue(struct bh_view *v, uint64_t id)
{
    char text[BH_QUEUE_ID_TEXT];
    if (v->request.verb != BH_VERB_WHY) {
        snprintf(v->error.hint, sizeof(v->error.hint),
                 "it may have been delivered: `bhctl why` looks into the event log too");
    }
    return view_fail(v, BH_ENOTFOUND, "no message in the queue with id",
                     bh_slice_str(bh_queue_id_text(id, text)));
}

static enum bh_status read_message(struct bh_view *v, struct bh_kv_txn *txn)
{
    const uint64_t id = v->request.selection.ids[v->id_next];
    const enum bh_status status = bh_queue_read_message(txn, id, &v->memory, &v->message);
    if (status == BH_ENOTFOUND) {
        return not_in_queue(v, id);
    }
    v->message_read = status == BH_OK;
    v->part_next = 0;
    v->content_next = 0;
    return status;
}

static void put_notify(struct bh_json *j, uint8_t notify)
{
    static const struct {
        uint8_t bit;
        const char *name;
    } names[] = {{BH_NOTIFY_NEVER, "never"},
                 {BH_NOTIFY_SUCCESS, "success"},
                 {BH_NOTIFY_FAILURE, "failure"},
                 {BH_NOTIFY_DELAY, "delay"}};
    bh_json_key(j, "notify");
    bh_json_begin_array(j);
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        if ((notify & names[i].bit) != 0) {
            bh_json_cstr(j, names[i].name);
        }
    }
    bh_json_end_array(j);
}

static void put_message(struct bh_view *v)
{
    const struct bh_message *m = &v->message;
    const struct bh_envelope *e = &m->envelope;
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "message");
    view_id(&j, m->id);
    view_str(&j, "sender", e->sender);
    if (e->envid.len > 0) {
        view_str(&j, "envid", e->envid);
    }
    if (e->ret != BH_RET_UNSET) {
        view_cstr(&j, "ret", e->ret == BH_RET_FULL ? "full" : "hdrs");
    }
    view_cstr(&j, "body", e->body == BH_BODY_8BITMIME ? "8bitmime" : "7bit");
    view_bool(&j, "smtputf8", e->smtputf8);
    view_bool(&j, "requiretls", e->requiretls);
    view_bool(&j, "tls_optional", e->tls_optional);
    view_u64(&j, "size", e->size);
    view_time(&j, "arrival_unix_ms", m->origin.arrival_unix_ms);
    if (m->origin.client.family != 0) {
        char ip[BH_IP_TEXT_MAX];
        view_cstr(&j, "client", bh_ip_text(&m->origin.client, ip));
    }
    view_str(&j, "helo", m->origin.helo);
    view_str(&j, "user", m->origin.user);
    view_str(&j, "listener", m->origin.listener);
    view_str(&j, "protocol", m->origin.protocol);
    view_u64(&j, "parts", m->part_count);
    view_u64(&j, "open", m->open);
    view_row_end(v, &j);
}

/* A row for each recipient: together they may be more than a row holds. */
static void put_recipients(struct bh_view *v, const struct bh_entry *e,
                           const struct bh_destination *d, const struct bh_decision *latest)
{
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct bh_entry_recipient *r = &e->recipients[i];
        struct bh_json j = view_row_begin(v);
        view_cstr(&j, "kind", "recipient");
        view_id(&j, e->key.id);
        view_str(&j, "address", r->to.address);
        if (r->to.orcpt.len > 0) {
            view_str(&j, "orcpt", r->to.orcpt);
        }
        put_notify(&j, r->to.notify);
        view_str(&j, "destination", d->domain);
        view_str(&j, "connector", d->connector);
        put_entry_fields(&j, e);
        view_put_waiting(v, &j, e, d);
        view_u64(&j, "recipient_attempts", r->attempts);
        view_bool(&j, "recipient_uncertain", r->uncertain);
        if (r->tried) {
            view_outcome(&j, "last", &r->last);
            view_time(&j, "last_unix_ms", r->last_unix_ms);
        }
        if (latest != NULL) {
            view_str(&j, "tls_wanted", latest->tls_wanted);
            view_str(&j, "tls_from", latest->tls_origin);
            view_str(&j, "tls_got", latest->tls_got);
            view_str(&j, "tls_reason", latest->tls_reason);
        }
        view_row_end(v, &j);
    }
}

/* The next part of the message that is still queued. BH_ENOTFOUND: there is none. */
static enum bh_status next_entry(struct bh_view *v, struct bh_kv_txn *txn, struct bh_entry *e,
                                 struct bh_destination *d)
{
    while (v->part_next < v->message.part_count) {
        const struct bh_queue_part_ref *ref = &v->message.parts[v->part_next++];
        const struct bh_queue_key key = {ref->destination, v->message.id, ref->part};
        bh_arena_reset(&v->scratch);
        enum bh_status status = bh_queue_read_entry(txn, key, &v->scratch, e);
        if (status == BH_ENOTFOUND) {
            continue; /* Its recipients have ended. */
        }
        if (status == BH_OK) {
            status = bh_queue_read_destination(txn, key.destination, &v->scratch, d);
        }
        return status == BH_ENOTFOUND ? BH_ECORRUPT : status;
    }
    return BH_ENOTFOUND;
}

/* Octets as text of their own number, so that JSON carries any content: U+0000 to U+00FF. */
static void put_content(struct bh_view *v, struct bh_slice octets)
{
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "content");
    bh_json_key(&j, "latin1");
    bh_json_latin1(&j, octets);
    view_row_end(v, &j);
}

static enum bh_status content_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    /* An octet takes at most six in JSON, and a row must hold them. */
    char octets[SHOW_CHUNK / 2];
    for (size_t i = 0; i < 64; i++) {
        struct bh_buf out = bh_buf(octets, sizeof(octets));
        const enum bh_status status =
            bh_queue_read_content(txn, &v->message, v->content_next, &out);
        if (status != BH_OK) {
            return status;
        }
        if (out.len > 0) {
            put_content(v, bh_buf_slice(&out));
        }
        v->content_next += out.len;
        if (out.len < sizeof(octets)) {
            return BH_OK;
        }
    }
    return BH_MORE;
}

/* The message, or for `why` that it is gone: what happened to it is in the event log. */
static enum bh_status begin_message(struct bh_view *v, struct bh_kv_txn *txn)
{
    const enum bh_status status = read_message(v, txn);
    v->gone = status == BH_ENOTFOUND && v->request.verb == BH_VERB_WHY;
    v->event_count = 0;
    if (v->gone) {
        v->message_read = true;
        v->message = (struct bh_message){.id = v->request.selection.ids[v->id_next]};
        v->error.what[0] = '\0';
        return BH_OK;
    }
    if (status == BH_OK) {
        put_message(v);
    }
    return status;
}

/* One message: its envelope, then `each` entry, then its content if asked for. */
static enum bh_status message_step(struct bh_view *v, struct bh_kv_txn *txn,
                                   enum bh_status (*each)(struct bh_view *v, struct bh_kv_txn *txn,
                                                          const struct bh_entry *e,
                                                          const struct bh_destination *d))
{
    if (!v->message_read) {
        const enum bh_status status = begin_message(v, txn);
        if (status != BH_OK) {
            return status;
        }
    }
    while (v->step_rows < BH_VIEW_ROWS) {
        struct bh_entry e;
        struct bh_destination d;
        enum bh_status status = next_entry(v, txn, &e, &d);
        if (status == BH_OK) {
            status = each(v, txn, &e, &d);
        }
        if (status == BH_ENOTFOUND) {
            if (v->request.content) {
                status = content_step(v, txn);
                if (status != BH_OK) {
                    return status;
                }
            }
            if (v->request.verb == BH_VERB_WHY) {
                status = view_events_step(v, v->request.selection.ids[v->id_next]);
                if (status == BH_OK && v->gone && v->event_count == 0) {
                    return not_in_queue(v, v->request.selection.ids[v->id_next]);
                }
                if (status != BH_OK) {
                    return status;
                }
            }
            v->id_next++;
            v->message_read = false;
            return v->id_next < v->request.selection.id_count ? BH_MORE : BH_OK;
        }
        if (status != BH_OK) {
            return status;
        }
    }
    return BH_MORE;
}

static enum bh_status show_entry(struct bh_view *v, struct bh_kv_txn *txn, const struct bh_entry *e,
                                 const struct bh_destination *d)
{
    struct bh_slice records[BH_QUEUE_HISTORY_MAX];
    struct bh_decision latest;
    size_t count = 0;
    const enum bh_status status = bh_queue_read_history(txn, e->key, &v->scratch, records, &count);
    if (status != BH_OK && status != BH_ENOTFOUND) {
        return status;
    }
    const bool known =
        status == BH_OK && count > 0 && bh_decision_decode(records[count - 1], &latest) == BH_OK;
    put_recipients(v, e, d, known ? &latest : NULL);
    return BH_OK;
}

enum bh_status view_show_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    return message_step(v, txn, show_entry);
}

/* ---- why ---- */

static void put_decision(struct bh_view *v, const struct bh_entry *e, const struct bh_decision *d)
{
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "attempt");
    view_id(&j, e->key.id);
    view_u64(&j, "part", e->key.part);
    view_time(&j, "time_unix_ms", d->time_unix_ms);
    view_u64(&j, "round", d->round);
    view_u64(&j, "generation", d->generation);
    view_str(&j, "connector", d->connector);
    view_str(&j, "rule", d->rule);
    view_str(&j, "route", d->route);
    bh_json_key(&j, "hosts");
    bh_json_begin_array(&j);
    for (size_t i = 0; i < d->hosts_count; i++) {
        bh_json_begin_object(&j);
        view_outcome(&j, "outcome", &d->hosts[i]);
        bh_json_end_object(&j);
    }
    bh_json_end_array(&j);
    view_u64(&j, "hosts_more", d->hosts_more);
    view_str(&j, "tls_wanted", d->tls_wanted);
    view_str(&j, "tls_from", d->tls_origin);
    view_str(&j, "tls_got", d->tls_got);
    view_str(&j, "tls_reason", d->tls_reason);
    view_str(&j, "limit", d->limit);
    view_outcome(&j, "outcome", &d->outcome);
    view_time(&j, "next_unix_ms", d->next_unix_ms);
    view_str(&j, "next_reason", d->next_reason);
    view_row_end(v, &j);
}

static void put_entry(struct bh_view *v, const struct bh_entry *e, const struct bh_destination *d)
{
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "kind", "entry");
    view_id(&j, e->key.id);
    view_str(&j, "destination", d->domain);
    view_str(&j, "connector", d->connector);
    put_entry_fields(&j, e);
    view_u64(&j, "recipient_count", e->recipient_count);
    view_str(&j, "recipient", e->recipients[0].to.address);
    view_put_waiting(v, &j, e, d);
    if (e->recipients[0].tried) {
        view_outcome(&j, "last", &e->recipients[0].last);
    }
    view_row_end(v, &j);
}

static enum bh_status why_entry(struct bh_view *v, struct bh_kv_txn *txn, const struct bh_entry *e,
                                const struct bh_destination *d)
{
    struct bh_slice records[BH_QUEUE_HISTORY_MAX];
    size_t count = 0;
    put_entry(v, e, d);
    const enum bh_status status = bh_queue_read_history(txn, e->key, &v->scratch, records, &count);
    if (status != BH_OK) {
        return status == BH_ENOTFOUND ? BH_OK : status;
    }
    for (size_t i = 0; i < count; i++) {
        struct bh_decision decision;
        if (bh_decision_decode(records[i], &decision) == BH_OK) {
            put_decision(v, e, &decision);
        }
    }
    return BH_OK;
}

enum bh_status view_why_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    return message_step(v, txn, why_entry);
}

/* ---- verify ---- */

static void put_problem(void *ctx, const char *text)
{
    struct bh_view *v = ctx;
    struct bh_json j = view_row_begin(v);
    view_cstr(&j, "problem", text);
    view_row_end(v, &j);
}

enum bh_status view_verify_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    struct bh_queue_check_result result = {0};
    const enum bh_status status = bh_queue_check(txn, put_problem, v, &result);
    if (status != BH_OK) {
        return status;
    }
    v->negative = result.problems > 0;
    struct bh_json j = view_end_begin(v);
    view_u64(&j, "problems", result.problems);
    view_u64(&j, "messages", result.messages);
    view_u64(&j, "entries", result.entries);
    view_u64(&j, "fresh", result.fresh);
    view_u64(&j, "recipients", result.recipients);
    view_u64(&j, "destinations", result.destinations);
    view_u64(&j, "content_bytes", result.content_bytes);
    view_bool(&j, "negative", v->negative);
    view_end_end(v, &j);
    return BH_OK;
}
