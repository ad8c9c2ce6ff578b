/* `status` and `queue`. Steps: count the fresh lane by destination; walk all destinations for
 * totals and the largest; give their rows, each read again, so that memory holds ids and counts
 * alone. */
#include <stdlib.h>

#include "bh/forecast.h"
#include "bh/pause.h"
#include "bh/suspects.h"
#include "view_private.h"

#define STATUS_ATTENTION_MAX 20 /* rows; the rest are in the totals */
#define FRESH_STEP BH_VIEW_ROWS /* entries of the fresh lane a read transaction ... */
#define FRESH_STEP_MAX 65536    /* ... unless one message alone has more parts */

/* ---- The fresh lane ---- */

const struct fresh_count *view_fresh_of(const struct bh_view *v, uint32_t id)
{
    struct bh_map_node *n = bh_map_find(&v->fresh, bh_slice(&id, sizeof(id)));
    return n != NULL ? BH_CONTAINER(n, struct fresh_count, node) : NULL;
}

static struct fresh_count *fresh_of(struct bh_view *v, uint32_t id)
{
    struct bh_map_node *n = bh_map_find(&v->fresh, bh_slice(&id, sizeof(id)));
    if (n != NULL) {
        return BH_CONTAINER(n, struct fresh_count, node);
    }
    struct fresh_count *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return NULL;
    }
    f->id = id;
    f->node.key = bh_slice(&f->id, sizeof(f->id));
    if (bh_map_insert(&v->fresh, &f->node) != BH_OK) {
        free(f);
        return NULL;
    }
    return f;
}

/* Up to items_max entries behind the cursor, in the scratch arena. */
static enum bh_status scan_fresh(struct bh_view *v, struct bh_kv_txn *txn, size_t items_max,
                                 struct bh_queue_item **items, size_t *count)
{
    bh_arena_reset(&v->scratch);
    *count = 0;
    *items = bh_arena_alloc(&v->scratch, items_max * sizeof(**items));
    if (*items == NULL) {
        return BH_ENOMEM;
    }
    return bh_queue_scan_fresh(txn, &v->fresh_cursor, *items, items_max, count);
}

/* Which of the ages of bh_destination_ages. */
static size_t age_bucket(int64_t age_ms)
{
    static const int64_t up_to_ms[BH_AGE_BUCKETS - 1] = {5 * BH_MINUTE_MS, BH_HOUR_MS,
                                                         4 * BH_HOUR_MS, BH_DAY_MS};
    size_t bucket = 0;
    while (bucket < BH_COUNT(up_to_ms) && age_ms > up_to_ms[bucket]) {
        bucket++;
    }
    return bucket;
}

enum bh_status view_count_fresh(struct bh_view *v, struct bh_kv_txn *txn)
{
    struct bh_queue_item *items;
    size_t count;
    enum bh_status status = scan_fresh(v, txn, FRESH_STEP, &items, &count);
    if (status == BH_ELIMIT || (status == BH_MORE && count == 0)) {
        status = scan_fresh(v, txn, FRESH_STEP_MAX, &items, &count);
    }
    if (status < 0) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        struct fresh_count *f = fresh_of(v, items[i].key.destination);
        if (f == NULL) {
            return BH_ENOMEM;
        }
        f->entries++;
        f->ages[age_bucket(v->now_unix_ms - items[i].arrival_unix_ms)]++;
        f->bytes += items[i].size;
        f->recipients += items[i].recipients;
        if (items[i].arrival_unix_ms > f->newest_unix_ms) {
            f->newest_unix_ms = items[i].arrival_unix_ms;
        }
        if (f->oldest_unix_ms == 0 || items[i].arrival_unix_ms < f->oldest_unix_ms) {
            f->oldest_unix_ms = items[i].arrival_unix_ms;
        }
    }
    return status;
}

/* ---- One destination ---- */

static uint64_t entries_of(const struct bh_destination *d, const struct fresh_count *fresh)
{
    return bh_destination_entries(d) + (fresh != NULL ? fresh->entries : 0);
}

/* Arrival of its oldest mail; 0 for none. The start of the first slot, so at most as late. */
static int64_t oldest_of(const struct bh_destination *d, const struct fresh_count *fresh)
{
    int64_t oldest = fresh != NULL ? fresh->oldest_unix_ms : 0;
    for (uint8_t i = 0; i < d->slot_count; i++) {
        if (d->slots[i].count > 0) {
            const int64_t start = d->slots[i].start_unix_ms;
            return oldest == 0 || start < oldest ? start : oldest;
        }
    }
    return oldest;
}

/* The same by its oldest entry, for what people read: a slot may be a minute long, or a day. */
static int64_t oldest_exactly(struct bh_view *v, const struct bh_destination *d,
                              const struct fresh_count *fresh)
{
    struct bh_queue_item first;
    size_t count = 0;
    const enum bh_status status = bh_queue_list_entries(v->txn, d->id, NULL, &first, 1, &count);
    const int64_t fresh_unix_ms = fresh != NULL ? fresh->oldest_unix_ms : 0;
    if (status < 0 || count == 0) {
        return oldest_of(d, fresh);
    }
    return fresh_unix_ms > 0 && fresh_unix_ms < first.arrival_unix_ms ? fresh_unix_ms
                                                                      : first.arrival_unix_ms;
}

/* When its connector's delivery window opens; 0: it is open. */
static int64_t window_opens(const struct bh_view *v, const struct bh_destination *d)
{
    const struct bh_connector *c =
        v->config != NULL ? bh_config_connector(v->config, d->connector) : NULL;
    return c == NULL || bh_windows_open(&c->windows, v->now_unix_ms)
               ? 0
               : bh_windows_change(&c->windows, v->now_unix_ms);
}

/* Its connector, if the configuration holds it and no other takes over; NULL: it is open. */
static const struct bh_connector *held_connector(const struct bh_view *v,
                                                 const struct bh_destination *d)
{
    struct bh_match match;
    const struct bh_connector *c =
        v->config != NULL ? bh_config_connector(v->config, d->connector) : NULL;
    if (c == NULL || strcmp(view_connector_state(v, c), "active") == 0) {
        return NULL;
    }
    if (c->state == BH_CONNECTOR_ACTIVE) { /* its TLS exception has ended */
        return bh_config_alternate(v->config, c, d->domain, c->cost) != NULL ? NULL : c;
    }
    const bool carried =
        bh_config_match(v->config, d->domain, BH_EMPTY, 0, NULL, NULL, &match) == BH_OK &&
        match.instead_of == c;
    return carried ? NULL : c;
}

const char *view_destination_state(const struct bh_view *v, const struct bh_destination *d,
                                   const struct fresh_count *fresh)
{
    if (d->parked) {
        return "parked";
    }
    if (d->held || (entries_of(d, fresh) > 0 && held_connector(v, d) != NULL)) {
        return "held";
    }
    if (d->backoff_stage > 0 && d->next_event_unix_ms > v->now_unix_ms) {
        return "backoff";
    }
    if (entries_of(d, fresh) > 0 && window_opens(v, d) != 0) {
        return "window";
    }
    return entries_of(d, fresh) > 0 ? "active" : "idle";
}

static void put_counts(struct bh_json *j, const struct bh_destination *d,
                       const struct fresh_count *fresh)
{
    uint64_t recipients = fresh != NULL ? fresh->recipients : 0;
    uint64_t bytes = fresh != NULL ? fresh->bytes : 0;
    for (size_t s = 0; s < BH_ENTRY_STATES; s++) {
        recipients += d->count[s].recipients;
        bytes += d->count[s].bytes;
    }
    view_u64(j, "messages", entries_of(d, fresh));
    view_u64(j, "fresh", fresh != NULL ? fresh->entries : 0);
    view_u64(j, "ready", d->count[BH_ENTRY_READY].entries);
    view_u64(j, "due", d->count[BH_ENTRY_DUE].entries);
    view_u64(j, "held", d->count[BH_ENTRY_HELD].entries);
    view_u64(j, "recipients", recipients);
    view_u64(j, "bytes", bytes);
}

static void put_ages(const struct bh_view *v, struct bh_json *j, const struct bh_destination *d,
                     const struct fresh_count *fresh)
{
    uint64_t ages[BH_AGE_BUCKETS];
    bh_destination_ages(d, v->now_unix_ms, ages);
    for (size_t i = 0; i < BH_AGE_BUCKETS && fresh != NULL; i++) {
        ages[i] += fresh->ages[i];
    }
    bh_json_key(j, "ages");
    bh_json_begin_array(j);
    for (size_t i = 0; i < BH_AGE_BUCKETS; i++) {
        bh_json_u64(j, ages[i]);
    }
    bh_json_end_array(j);
}

/* Why it is held: as an operator said, or by its connector. */
static struct bh_slice stop_text(const struct bh_view *v, const struct bh_destination *d,
                                 char *storage, size_t cap)
{
    const struct bh_connector *c = held_connector(v, d);
    if (d->held || c == NULL) {
        return d->hold_reason;
    }
    struct bh_buf reason = bh_buf(storage, cap);
    bh_buf_add_cut(&reason, BH_LIT("connector "));
    bh_buf_add_cut(&reason, c->name);
    bh_buf_add_cut(&reason, BH_LIT(" is "));
    bh_buf_add_cut(&reason, bh_slice_str(view_connector_state(v, c)));
    const size_t bare = reason.len;
    bh_buf_add_cut(&reason, BH_LIT(": "));
    const size_t before = reason.len;
    view_connector_reason(v, c, &reason);
    return reason.len > before ? bh_buf_slice(&reason) : bh_slice(reason.ptr, bare);
}

static void put_stop(const struct bh_view *v, struct bh_json *j, const struct bh_destination *d)
{
    if (d->parked) {
        view_str(j, "park_reason", d->park_reason);
        view_time(j, "park_since_unix_ms", d->park_since_unix_ms);
    }
    if (d->held) {
        view_str(j, "hold_reason", d->hold_reason);
        view_str(j, "hold_by", d->hold_by);
        view_time(j, "hold_since_unix_ms", d->hold_since_unix_ms);
        view_time(j, "hold_until_unix_ms", d->hold_until_unix_ms);
    } else if (held_connector(v, d) != NULL) {
        char text[BH_QUEUE_REASON_MAX + 512];
        view_str(j, "hold_reason", stop_text(v, d, text, sizeof(text)));
        view_str(j, "hold_by", BH_LIT("configuration"));
    }
}

/* In words, and in parts for programs. */
static void put_limit(struct bh_json *j, const struct bh_live_limit *limit)
{
    if (limit->by == NULL) {
        return;
    }
    view_str(j, "limit", limit->text);
    bh_json_key(j, "limited");
    bh_json_begin_object(j);
    view_cstr(j, "by", limit->by);
    if (limit->of != NULL) {
        view_cstr(j, "of", limit->of);
    }
    if (limit->what != NULL) {
        view_cstr(j, "what", limit->what);
        view_str(j, "rate", limit->rate);
    }
    if (limit->max > 0) {
        view_u64(j, "used", limit->used);
        view_u64(j, "max", limit->max);
        view_bool(j, "half", limit->half);
    }
    if (limit->host.len > 0) {
        view_str(j, "host", limit->host);
    }
    bh_json_end_object(j);
}

/* When what is queued will have left, where it leaves at all. */
static void put_forecast(const struct bh_view *v, struct bh_json *j, const struct bh_destination *d,
                         const struct fresh_count *fresh, const struct bh_live_destination *live)
{
    const struct bh_slice carrier = live->carrier.len > 0 ? live->carrier : d->connector;
    const struct bh_connector *c =
        v->config != NULL ? bh_config_connector(v->config, carrier) : NULL;
    struct bh_forecast_facts facts = {
        .fresh = fresh != NULL ? fresh->entries : 0,
        .ready = d->count[BH_ENTRY_READY].entries,
        .due = d->count[BH_ENTRY_DUE].entries,
        .held = d->count[BH_ENTRY_HELD].entries,
        .recipients = fresh != NULL ? fresh->recipients : 0,
        .slots = d->slots,
        .slot_count = d->slot_count,
        .fresh_slot = {.start_unix_ms = fresh != NULL ? fresh->oldest_unix_ms : 0,
                       .end_unix_ms = fresh != NULL ? fresh->newest_unix_ms : 0},
        .left = live->left,
        .left_ms = live->left_ms,
        .message_ns = live->message_ns,
        .recipient_ns = live->recipient_ns,
        .expire_ms = c != NULL ? (int64_t)c->retry.expire_ms : 0,
        .now_unix_ms = v->now_unix_ms,
    };
    struct bh_forecast forecast;
    for (size_t s = 0; s < BH_ENTRY_STATES; s++) {
        facts.recipients += d->count[s].recipients;
    }
    if (strcmp(view_destination_state(v, d, fresh), "active") != 0 ||
        !bh_forecast(&facts, &forecast)) {
        return;
    }
    bh_json_key(j, "forecast");
    bh_json_begin_object(j);
    view_u64(j, "messages", forecast.messages);
    view_u64(j, "per_hour", (uint64_t)(forecast.per_minute * 60 + 0.5));
    view_cstr(j, "by", forecast.by_limit ? "limit" : "deliveries");
    view_u64(j, "drains_in_ms", (uint64_t)forecast.drains_in_ms);
    view_u64(j, "expire_before", forecast.expire_before);
    bh_json_end_object(j);
}

static void put_live(const struct bh_view *v, struct bh_json *j, const struct bh_destination *d,
                     const struct fresh_count *fresh)
{
    struct bh_live_destination live = {0};
    if (v->live.destination == NULL || !v->live.destination(v->live.ctx, d->id, &live)) {
        return;
    }
    view_u64(j, "connections", live.connections);
    view_u64(j, "in_flight", live.in_flight);
    if (live.carrier.len > 0) {
        view_str(j, "carrier", live.carrier);
    }
    put_limit(j, &live.limit);
    put_forecast(v, j, d, fresh, &live);
}

/* What limits it, for an entry that waits there. */
static void put_entry_limit(const struct bh_view *v, struct bh_json *j, uint32_t id)
{
    struct bh_live_destination live = {0};
    if (v->live.destination != NULL && v->live.destination(v->live.ctx, id, &live)) {
        put_limit(j, &live.limit);
    }
}

/* What an entry waits for when its destination stands: with `list`, `show` and `why`, so that
 * nobody has to look there too. */
void view_put_waiting(struct bh_view *v, struct bh_json *j, const struct bh_entry *e,
                      const struct bh_destination *d)
{
    const char *state = view_destination_state(v, d, NULL);
    const bool backs_off = strcmp(state, "backoff") == 0 || d->parked;
    const bool held = e->state == BH_ENTRY_HELD || strcmp(state, "held") == 0;
    int64_t next = e->state == BH_ENTRY_DUE ? e->due_unix_ms : 0;
    view_cstr(j, "destination_state", state);
    if (backs_off && d->next_event_unix_ms > next) {
        next = d->next_event_unix_ms;
    }
    view_time(j, "next_unix_ms", held ? 0 : next);
    /* Told while it is being tried again, too. */
    const bool failing = d->backoff_stage > 0 || d->parked;
    if (failing && d->last_tls.len > 0) {
        view_str(j, "destination_tls", d->last_tls);
    }
    if (e->state == BH_ENTRY_HELD) {
        return;
    }
    if (d->parked) {
        view_str(j, "destination_reason", d->park_reason);
    } else if (held) {
        char text[BH_QUEUE_REASON_MAX + 512];
        view_str(j, "destination_reason", stop_text(v, d, text, sizeof(text)));
    } else if (failing && d->tried) {
        view_outcome(j, "destination_last", &d->last);
        view_time(j, "destination_last_unix_ms", d->last_unix_ms);
    }
    if (!backs_off && !held) {
        put_entry_limit(v, j, d->id);
    }
}

void view_put_destination(struct bh_view *v, const struct bh_destination *d)
{
    const struct fresh_count *fresh = view_fresh_of(v, d->id);
    struct bh_json j = view_row_begin(v);
    view_str(&j, "domain", d->domain);
    view_str(&j, "connector", d->connector);
    view_cstr(&j, "state", view_destination_state(v, d, fresh));
    put_counts(&j, d, fresh);
    view_time(&j, "oldest_unix_ms", oldest_exactly(v, d, fresh));
    put_ages(v, &j, d, fresh);
    view_time(&j, "next_unix_ms", d->next_event_unix_ms);
    view_u64(&j, "backoff_stage", d->backoff_stage);
    view_u64(&j, "glitches", d->glitches);
    put_stop(v, &j, d);
    view_time(&j, "window_opens_unix_ms", entries_of(d, fresh) > 0 ? window_opens(v, d) : 0);
    if (d->tried) {
        view_outcome(&j, "last", &d->last);
        view_time(&j, "last_unix_ms", d->last_unix_ms);
        view_str(&j, "tls", d->last_tls);
    }
    view_time(&j, "success_unix_ms", d->last_success_unix_ms);
    put_live(v, &j, d, fresh);
    view_row_end(v, &j);
}

/* ---- The walk ---- */

static void add_totals(struct bh_view *v, const struct bh_destination *d,
                       const struct fresh_count *fresh)
{
    struct view_totals *t = &v->totals;
    const uint64_t entries = entries_of(d, fresh);
    if (entries == 0) {
        return;
    }
    const int64_t oldest = oldest_of(d, fresh);
    t->destinations++;
    t->messages += entries;
    t->fresh += fresh != NULL ? fresh->entries : 0;
    t->recipients += fresh != NULL ? fresh->recipients : 0;
    t->bytes += fresh != NULL ? fresh->bytes : 0;
    t->ready += d->count[BH_ENTRY_READY].entries;
    t->due += d->count[BH_ENTRY_DUE].entries;
    t->held += d->count[BH_ENTRY_HELD].entries;
    for (size_t s = 0; s < BH_ENTRY_STATES; s++) {
        t->recipients += d->count[s].recipients;
        t->bytes += d->count[s].bytes;
    }
    const char *state = view_destination_state(v, d, fresh);
    t->destinations_held += d->held || strcmp(state, "held") == 0 ? 1 : 0;
    t->destinations_parked += d->parked ? 1 : 0;
    t->destinations_backoff += strcmp(state, "backoff") == 0 ? 1 : 0;
    if (oldest > 0 && (t->oldest_unix_ms == 0 || oldest < t->oldest_unix_ms)) {
        t->oldest_unix_ms = oldest;
    }
}

/* Who paused intake, told with the engine down, too. */
static bool put_pause(struct bh_view *v, struct bh_kv_txn *txn, struct bh_json *j)
{
    struct bh_pause pause;
    bh_arena_reset(&v->scratch);
    if (bh_pause_get(txn, &v->scratch, &pause) != BH_OK) {
        return false;
    }
    view_time(j, "paused_since_unix_ms", pause.since_unix_ms);
    view_str(j, "paused_by", pause.by);
    view_str(j, "paused_reason", pause.reason);
    return true;
}

/* Clients that are told to come later, since we failed at what they send. */
static void put_suspects(struct bh_view *v, struct bh_kv_txn *txn, struct bh_json *j)
{
    struct bh_suspects suspects;
    uint64_t refused = 0;
    int64_t until_unix_ms = 0;
    bh_arena_reset(&v->scratch);
    if (bh_suspects_get(txn, &v->scratch, &suspects) != BH_OK) {
        return;
    }
    for (uint32_t i = 0; i < suspects.count; i++) {
        const int64_t until = bh_suspect_until(&suspects.list[i], v->now_unix_ms);
        refused += until > 0 ? 1 : 0;
        until_unix_ms = until > until_unix_ms ? until : until_unix_ms;
    }
    view_u64(j, "suspects_refused", refused);
    view_time(j, "suspects_until_unix_ms", until_unix_ms);
}

static void put_totals(struct bh_view *v, struct bh_kv_txn *txn, struct bh_json *j)
{
    const struct view_totals *t = &v->totals;
    view_u64(j, "destinations", t->destinations);
    view_u64(j, "messages", t->messages);
    view_u64(j, "fresh", t->fresh);
    view_u64(j, "ready", t->ready);
    view_u64(j, "due", t->due);
    view_u64(j, "held", t->held);
    view_u64(j, "recipients", t->recipients);
    view_u64(j, "bytes", t->bytes);
    view_u64(j, "destinations_held", t->destinations_held);
    view_u64(j, "destinations_parked", t->destinations_parked);
    view_u64(j, "destinations_backoff", t->destinations_backoff);
    view_time(j, "oldest_unix_ms", t->oldest_unix_ms);
    struct bh_live_engine engine = {0};
    const bool running = v->live.engine != NULL && v->live.engine(v->live.ctx, &engine);
    if (running && engine.dnssec.len > 0) {
        view_str(j, "dnssec", engine.dnssec);
    }
    view_bool(j, "running", running);
    put_suspects(v, txn, j);
    const bool paused = put_pause(v, txn, j);
    if (running) {
        view_bool(j, "intake_paused", engine.intake_paused);
        view_u64(j, "sessions_in", engine.sessions_in);
        view_u64(j, "connections", engine.sessions_out);
        view_u64(j, "generation", engine.generation);
        view_time(j, "started_unix_ms", engine.started_unix_ms);
    } else {
        view_bool(j, "intake_paused", paused);
    }
}

/* Keep the largest: a heap with the smallest of them on top. */
static bool smaller(const struct top_row *a, const struct top_row *b)
{
    return a->entries != b->entries ? a->entries < b->entries : a->id > b->id;
}

static void sift_down(struct top_row *top, size_t count, size_t at)
{
    while (true) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
            least = smaller(&top[child], &top[least]) ? child : least;
        }
        if (least == at) {
            return;
        }
        const struct top_row swap = top[at];
        top[at] = top[least];
        top[least] = swap;
        at = least;
    }
}

static void keep_if_large(struct bh_view *v, struct top_row row)
{
    if (v->top_count < v->top_max) {
        v->top[v->top_count++] = row;
        if (v->top_count == v->top_max) {
            for (size_t i = v->top_count; i-- > 0;) {
                sift_down(v->top, v->top_count, i);
            }
        }
    } else if (smaller(&v->top[0], &row)) {
        v->top[0] = row;
        sift_down(v->top, v->top_count, 0);
    }
}

static int larger_first(const void *a, const void *b)
{
    return smaller(a, b) ? 1 : -1;
}

static bool wants_attention(const struct bh_view *v, const struct bh_destination *d,
                            const struct fresh_count *fresh)
{
    const char *state = view_destination_state(v, d, fresh);
    return entries_of(d, fresh) > 0 && strcmp(state, "active") != 0;
}

/* A slice of the destinations, each told to `each`. @return BH_MORE until all were */
static enum bh_status walk(struct bh_view *v, struct bh_kv_txn *txn,
                           void (*each)(struct bh_view *v, const struct bh_destination *d))
{
    const struct bh_slice domain = v->request.selection.domain;
    for (size_t i = 0; i < BH_VIEW_ROWS; i++) {
        struct bh_destination d;
        bh_arena_reset(&v->scratch);
        const enum bh_status status =
            domain.len > 0
                ? bh_queue_next_destination_of(txn, domain, v->destination_cursor, &v->scratch, &d)
                : bh_queue_next_destination(txn, v->destination_cursor, &v->scratch, &d);
        if (status == BH_ENOTFOUND) {
            return BH_OK;
        }
        if (status != BH_OK) {
            return status;
        }
        v->destination_cursor = d.id;
        each(v, &d);
    }
    return BH_MORE;
}

static void status_each(struct bh_view *v, const struct bh_destination *d)
{
    const struct fresh_count *fresh = view_fresh_of(v, d->id);
    add_totals(v, d, fresh);
    if (wants_attention(v, d, fresh) && v->attention++ < STATUS_ATTENTION_MAX) {
        view_put_destination(v, d);
    }
}

enum bh_status view_status_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    if (v->phase == PHASE_FRESH) {
        const enum bh_status status = view_count_fresh(v, txn);
        v->phase = status == BH_OK ? PHASE_DESTINATIONS : PHASE_FRESH;
        return status == BH_OK ? BH_MORE : status;
    }
    if (v->phase == PHASE_DESTINATIONS) {
        const enum bh_status status = walk(v, txn, status_each);
        v->phase = status == BH_OK ? PHASE_POSTURES : PHASE_DESTINATIONS;
        return status == BH_OK ? BH_MORE : status;
    }
    const enum bh_status status = view_postures_step(v, txn);
    if (status != BH_OK) {
        return status;
    }
    struct bh_json j = view_end_begin(v);
    put_totals(v, txn, &j);
    view_u64(&j, "attention", v->attention);
    view_u64(&j, "tls_worse", v->worse);
    view_end_end(v, &j);
    return BH_OK;
}

static void queue_each(struct bh_view *v, const struct bh_destination *d)
{
    const struct bh_selection *s = &v->request.selection;
    if (!bh_selection_matches_destination(s, d->domain, d->connector)) {
        return;
    }
    const struct fresh_count *fresh = view_fresh_of(v, d->id);
    add_totals(v, d, fresh);
    if (entries_of(d, fresh) > 0 || v->request.selected) {
        keep_if_large(v, (struct top_row){d->id, entries_of(d, fresh)});
    }
}

static enum bh_status queue_rows(struct bh_view *v, struct bh_kv_txn *txn)
{
    while (v->top_next < v->top_count) {
        if (v->step_rows == BH_VIEW_ROWS) {
            return BH_MORE;
        }
        struct bh_destination d;
        bh_arena_reset(&v->scratch);
        const enum bh_status status =
            bh_queue_read_destination(txn, v->top[v->top_next].id, &v->scratch, &d);
        v->top_next++;
        if (status == BH_OK) {
            view_put_destination(v, &d);
        } else if (status != BH_ENOTFOUND) { /* Gone since: nothing to show. */
            return status;
        }
    }
    struct bh_json j = view_end_begin(v);
    put_totals(v, txn, &j);
    view_u64(&j, "shown", v->top_count);
    view_end_end(v, &j);
    return BH_OK;
}

enum bh_status view_queue_step(struct bh_view *v, struct bh_kv_txn *txn)
{
    enum bh_status status;
    switch (v->phase) {
    case PHASE_FRESH:
        status = view_count_fresh(v, txn);
        v->phase = status == BH_OK ? PHASE_DESTINATIONS : PHASE_FRESH;
        return status == BH_OK ? BH_MORE : status;
    case PHASE_DESTINATIONS:
        status = walk(v, txn, queue_each);
        if (status != BH_OK) {
            return status;
        }
        if (v->top_count > 0) {
            qsort(v->top, v->top_count, sizeof(*v->top), larger_first);
        }
        v->phase = PHASE_ROWS;
        return BH_MORE;
    case PHASE_ROWS:
    case PHASE_POSTURES: /* of `status` alone */
    case PHASE_END:
        break;
    }
    return queue_rows(v, txn);
}
