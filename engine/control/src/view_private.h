/* view_private.h - what the views share. */
#pragma once

#include "bh/audit.h"
#include "bh/map.h"
#include "bh/view.h"

/* A destination's mail in the fresh lane, counted in memory: at most one for each fresh message. */
struct fresh_count {
    struct bh_map_node node; /* key: id */
    uint32_t id;
    uint64_t entries;
    uint64_t bytes;
    uint64_t recipients;
    int64_t oldest_unix_ms, newest_unix_ms;
    uint64_t ages[BH_AGE_BUCKETS];
};

/* A destination of `queue` while the largest are looked for. */
struct top_row {
    uint32_t id;
    uint64_t entries;
};

enum view_phase { PHASE_FRESH, PHASE_DESTINATIONS, PHASE_POSTURES, PHASE_ROWS, PHASE_END };

#define VIEW_WORSE_MAX 100  /* hosts whose TLS got worse, shown by `status` */
#define VIEW_MATRIX_STEP 50 /* rows of the matrix in a step */

struct view_totals {
    uint64_t destinations; /* with mail */
    uint64_t messages;     /* entries: a message counts once for each destination */
    uint64_t fresh, ready, due, held;
    uint64_t recipients, bytes;
    uint64_t destinations_held, destinations_parked, destinations_backoff;
    int64_t oldest_unix_ms; /* 0: no mail */
};

struct bh_view {
    struct bh_control_request request; /* its slices are in `memory` */
    const struct bh_config *config;
    struct bh_live live;
    int64_t now_unix_ms;
    struct bh_arena memory;          /* as long as the view */
    struct bh_arena scratch;         /* reset for each record */
    struct bh_kv_txn *txn;           /* of the step under way */
    char *row;                       /* BH_CONTROL_ROW_MAX octets */
    const struct bh_view_sink *sink; /* of the step under way */
    size_t step_rows;                /* given in the step under way */

    enum view_phase phase;
    struct bh_map fresh;
    uint64_t fresh_cursor;
    uint32_t destination_cursor;
    struct top_row *top; /* a heap, the smallest first; then sorted, the largest first */
    size_t top_count, top_max, top_next;
    struct view_totals totals;
    uint64_t attention; /* rows of `status` given */

    struct bh_select_cursor select;
    uint64_t listed;
    bool list_full;

    struct bh_message message; /* of show and why; in `memory` */
    size_t id_next;            /* which of the ids */
    bool message_read;
    uint32_t part_next;
    uint64_t content_next;

    struct bh_slice events_folder;  /* in `memory`; empty: none */
    struct bh_event_reader *events; /* of the id, or of the audit, under way */
    bool gone;                      /* why: the message is not in the queue any more */
    uint64_t event_count;           /* of the id */
    struct bh_audit *audit;
    uint64_t findings; /* rows given */
    const struct bh_audit_count *count_next;

    char row_after[256]; /* cursor in the policy database */
    size_t row_after_len;
    char reached_texts[512];
    uint64_t worse; /* hosts */
    size_t domain_next;

    size_t connector_next;
    bool negative;
    char end[2048];
    size_t end_len;
    struct bh_control_error error;
};

/** An object under construction in view->row. */
struct bh_json view_row_begin(struct bh_view *v);
/** Send it. A row that did not fit is sent as {"overflow":true}. */
void view_row_end(struct bh_view *v, struct bh_json *j);
struct bh_json view_end_begin(struct bh_view *v);
void view_end_end(struct bh_view *v, struct bh_json *j);
/** Keep the words of a failure. @return status */
enum bh_status view_fail(struct bh_view *v, enum bh_status status, const char *what,
                         struct bh_slice name);

void view_str(struct bh_json *j, const char *key, struct bh_slice value);
void view_cstr(struct bh_json *j, const char *key, const char *value);
void view_u64(struct bh_json *j, const char *key, uint64_t value);
/** Left out when 0 or BH_QUEUE_NEVER: no such time. */
void view_time(struct bh_json *j, const char *key, int64_t unix_ms);
void view_bool(struct bh_json *j, const char *key, bool value);
void view_id(struct bh_json *j, uint64_t id);
void view_outcome(struct bh_json *j, const char *key, const struct bh_outcome *o);

/** Count the fresh lane by destination, a slice a step. @return BH_MORE until it is done */
enum bh_status view_count_fresh(struct bh_view *v, struct bh_kv_txn *txn);
/** @return NULL: none */
const struct fresh_count *view_fresh_of(const struct bh_view *v, uint32_t id);
/** A row of `queue`: everything an operator wants of a destination. */
void view_put_destination(struct bh_view *v, const struct bh_destination *d);
/** What an entry of this destination waits for. */
void view_put_waiting(struct bh_view *v, struct bh_json *j, const struct bh_entry *e,
                      const struct bh_destination *d);
/** "active", "backoff", "held" (its connector, too), "window", "parked", or "idle" with no mail. */
const char *view_destination_state(const struct bh_view *v, const struct bh_destination *d,
                                   const struct fresh_count *fresh);

enum bh_status view_status_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_queue_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_list_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_show_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_why_step(struct bh_view *v, struct bh_kv_txn *txn);
/** Rows of the events of an id, a slice a step. @return BH_MORE until they are all given */
enum bh_status view_events_step(struct bh_view *v, uint64_t id);
enum bh_status view_audit_step(struct bh_view *v, struct bh_kv_txn *txn);
void view_events_fini(struct bh_view *v);
/** "active", "held", "disabled": of one whose TLS exception has ended, held. */
const char *view_connector_state(const struct bh_view *v, const struct bh_connector *c);
/** Why it is not active, appended (cut); nothing where nobody said. */
void view_connector_reason(const struct bh_view *v, const struct bh_connector *c,
                           struct bh_buf *reason);
void view_route(struct bh_json *j, const struct bh_connector *c);
/** Rows of hosts whose TLS got worse, a slice a step. @return BH_MORE until all were looked at */
enum bh_status view_postures_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_matrix_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_policy_step(struct bh_view *v, struct bh_kv_txn *txn);
/** The domain of an address as the queue keys it: lower case, no dot at its end. */
struct bh_slice view_key_domain(struct bh_slice domain, char storage[BH_DOMAIN_MAX]);
enum bh_status view_verify_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_connectors_step(struct bh_view *v, struct bh_kv_txn *txn);
enum bh_status view_explain_step(struct bh_view *v, struct bh_kv_txn *txn);
