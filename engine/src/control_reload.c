/* Reload: the new configuration is parsed and checked whole, what it changes is told, and only then
 * it is put in force as the next generation. A bad file changes nothing; a weaker TLS demand needs
 * to be asked for. Then entries whose connector has changed are moved, in slices. */
#include "control_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "bh/log.h"
#include "config_files.h"

#define REBIND_ROWS 200
#define CARRY_ROWS 1000 /* destinations looked at in one transaction */
#define TOUCHED_MAX 200 /* destinations told one by one */

static struct bh_control_reply *reply_of(struct daemon_call *call)
{
    return BH_CONTAINER(call, struct bh_control_reply, call);
}

/* ---- rows ---- */

static void change_row(struct bh_control_reply *reply, const char *change, struct bh_slice text)
{
    char storage[4096];
    struct bh_json json = {.buf = bh_buf(storage, sizeof(storage))};
    bh_json_begin_object(&json);
    bh_json_key(&json, "change");
    bh_json_cstr(&json, change);
    bh_json_key(&json, "text");
    bh_json_str(&json, bh_slice_take(text, 1500));
    bh_json_end_object(&json);
    if (!json.overflow) {
        reply_row(reply, bh_buf_slice(&json.buf));
    }
}

static const char *tls_words(enum bh_tls_change tls)
{
    switch (tls) {
    case BH_TLS_SAME:
        return "";
    case BH_TLS_STRICTER:
        return "   (TLS stricter)";
    case BH_TLS_WEAKER:
        return "   (TLS WEAKER)";
    case BH_TLS_TRUST:
        return "   (TLS trusts something else)";
    }
    return "";
}

static void on_change(void *ctx, const struct bh_config_change *c)
{
    struct bh_control_reply *reply = ctx;
    char storage[2048];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    enum bh_status fits = BH_OK;
    const char *sign = "~";
    switch (c->kind) {
    case BH_CHANGE_ADDED:
        sign = "+";
        fits = bh_buf_printf(&text, "connector %.*s   %.*s", BH_FMT(c->connector),
                             BH_FMT(bh_slice_take(c->after, 1000)));
        break;
    case BH_CHANGE_REMOVED:
        sign = "-";
        fits = bh_buf_printf(&text, "connector %.*s", BH_FMT(c->connector));
        break;
    case BH_CHANGE_SETTING:
        if (c->connector.len > 0 && bh_slice_eq(c->setting, BH_LIT("tls mode"))) {
            return; /* Told as "tls", with what it comes to. */
        }
        fits = bh_buf_printf(
            &text, "%s%.*s%s%.*s   %.*s → %.*s%s%s", c->connector.len > 0 ? "connector " : "",
            BH_FMT(c->connector), c->connector.len > 0 ? " " : "", BH_FMT(c->setting),
            BH_FMT(bh_slice_take(c->before, 500)), BH_FMT(bh_slice_take(c->after, 500)),
            tls_words(c->tls),
            c->connector.len == 0 && daemon_waits_for_start(c->setting) ? "   (at the next start)"
                                                                        : "");
        break;
    case BH_CHANGE_MOVED:
        fits = bh_buf_printf(&text, "domains %.*s   %.*s → %.*s%s", BH_FMT(c->setting),
                             BH_FMT(c->before), BH_FMT(c->after), tls_words(c->tls));
        break;
    }
    if (fits == BH_OK) {
        bh_log(BH_LOG_INFO, "evt=config_change change=\"%s\" text=\"%.*s\"", sign,
               BH_FMT(bh_buf_slice(&text)));
        change_row(reply, sign, bh_buf_slice(&text));
    }
}

static void error_rows(struct bh_control_reply *reply, const struct bh_config_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        char storage[2048];
        char line_text[1024];
        struct bh_buf line = bh_buf(line_text, sizeof(line_text));
        struct bh_json json = {.buf = bh_buf(storage, sizeof(storage))};
        bh_config_error_text(&errors->list[i], &line);
        if (reply->conn == NULL) {
            bh_log(BH_LOG_ERROR, "evt=config_error text=\"%.*s\"", BH_FMT(bh_buf_slice(&line)));
        }
        bh_json_begin_object(&json);
        bh_json_key(&json, "error");
        bh_config_error_json(&errors->list[i], &json);
        bh_json_end_object(&json);
        if (!json.overflow) {
            reply_row(reply, bh_buf_slice(&json.buf));
        }
    }
}

/* ---- moving entries ---- */

/* Does the configuration give this message to another connector than its destination's? */
static bool moves(const struct bh_config *config, const struct bh_destination *d,
                  struct bh_slice sender, uint64_t size, struct bh_match *match)
{
    return bh_config_match(config, d->domain, sender, size, NULL, NULL, match) == BH_OK &&
           !bh_slice_eq(bh_match_first_choice(match)->name, d->connector);
}

/* Only these are walked through; sender and size conditions are met again at hand-out. */
static bool is_suspicious(const struct bh_config *config, const struct bh_destination *d)
{
    struct bh_match match;
    return bh_destination_entries(d) > 0 &&
           (bh_config_connector(config, d->connector) == NULL ||
            moves(config, d, BH_LIT("somebody@sender.invalid"), 1, &match));
}

/* Take an entry out of the engine's reach until this slice is committed: a lease that began in
 * between would deliver what has moved. */
static bool claim(struct bh_control_reply *reply, struct bh_queue_key key)
{
    if (reply->claimed == BH_COUNT(reply->claims) ||
        leased_add(&reply->server->daemon->leased, key, LEASED_BY_WRITER) != BH_OK) {
        return false;
    }
    reply->claims[reply->claimed++] = key;
    return true;
}

static void unclaim(struct bh_control_reply *reply)
{
    while (reply->claimed > 0) {
        leased_remove(&reply->server->daemon->leased, reply->claims[--reply->claimed]);
    }
}

static enum bh_status rebind_entries(struct bh_control_reply *reply, struct bh_queue *q,
                                     struct bh_kv_txn *txn, const struct bh_destination *d,
                                     struct bh_queue_key *after, bool *more)
{
    struct bh_queue_item items[REBIND_ROWS];
    struct bh_arena arena;
    size_t count = 0;
    enum bh_status status = bh_queue_list_entries(
        txn, d->id, after->destination == d->id ? after : NULL, items, REBIND_ROWS, &count);
    *more = status == BH_MORE;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (size_t i = 0; status >= 0 && i < count; i++) {
        struct bh_message message;
        struct bh_match match;
        struct bh_queue_key to;
        bh_arena_reset(&arena);
        *after = items[i].key;
        if (!claim(reply, items[i].key)) {
            continue; /* it is leased: met again at its next hand-out */
        }
        status = bh_queue_read_message(txn, items[i].key.id, &arena, &message);
        if (status == BH_OK &&
            moves(reply->next_config, d, message.envelope.sender, message.envelope.size, &match)) {
            status = bh_queue_rebind(q, txn, items[i].key, d->domain,
                                     bh_match_first_choice(&match)->name, reply->now, &to);
            reply->acted += status == BH_OK ? 1 : 0;
        }
        status = status == BH_ENOTFOUND ? BH_OK : status;
    }
    bh_arena_fini(&arena);
    return status >= 0 ? BH_OK : status;
}

static enum bh_status run_rebind(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_destination record;
    struct bh_queue_key at = reply->cursor.at; /* a run may be repeated */
    uint32_t after = reply->after;
    enum bh_status status = BH_OK;
    bool more = false;
    reply->more = false;
    unclaim(reply);
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (unsigned looked = 0; status == BH_OK && !reply->more; looked++) {
        bh_arena_reset(&arena);
        status = bh_queue_next_destination(txn, after, &arena, &record);
        if (status == BH_OK && is_suspicious(reply->next_config, &record)) {
            status = rebind_entries(reply, q, txn, &record, &at, &more);
            reply->more = true; /* one slice of one destination a transaction */
        }
        if (status == BH_OK && !more) {
            after = record.id;
            at = (struct bh_queue_key){0};
        }
        reply->more = reply->more || (status == BH_OK && looked >= REBIND_ROWS);
    }
    bh_arena_fini(&arena);
    reply->ids[0] = after; /* in force once this is committed */
    reply->selection.ids[0] = at.id;
    reply->selection.ids[1] = (uint64_t)at.destination << 16 | at.part;
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void rebound(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    unclaim(reply); /* it is committed, or undone */
    if (reply->status != BH_OK) {
        reply_error(reply, "entries could not be moved to their new connectors yet",
                    "they move when they are handed out");
        return;
    }
    reply->after = reply->ids[0];
    reply->cursor.at =
        (struct bh_queue_key){.destination = (uint32_t)(reply->selection.ids[1] >> 16),
                              .id = reply->selection.ids[0],
                              .part = (uint16_t)reply->selection.ids[1]};
    if (reply->more && !reply->server->closing) {
        reply_write(reply, run_rebind, rebound);
        return;
    }
    bh_log(BH_LOG_INFO, "evt=rebound generation=%llu entries=%llu",
           (unsigned long long)reply->next_config->generation, (unsigned long long)reply->acted);
    reply_end(reply, BH_LIT("{}"));
}

static void start_rebind(struct control_server *server)
{
    struct bh_control_reply *reply = reply_create(server, NULL);
    if (reply != NULL) {
        reply->next_config = config_cell_get(&server->daemon->cell);
        reply_write(reply, run_rebind, rebound);
    }
}

/* ---- how many messages move ---- */

static void touched_row(struct bh_control_reply *reply, const struct bh_destination *d,
                        const struct bh_match *match, uint64_t entries)
{
    char storage[1024];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    if (reply->destinations++ < TOUCHED_MAX &&
        bh_buf_printf(&text, "queue %.*s   %.*s → %.*s   %llu queued message%s", BH_FMT(d->domain),
                      BH_FMT(d->connector), BH_FMT(bh_match_first_choice(match)->name),
                      (unsigned long long)entries, entries == 1 ? "" : "s") == BH_OK) {
        change_row(reply, "~", bh_buf_slice(&text));
    }
}

static enum bh_status run_touched(struct bh_store_task *task, struct bh_queue *q,
                                  struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_destination record;
    enum bh_status status = BH_OK;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (unsigned looked = 0; status == BH_OK && looked < 1000; looked++) {
        struct bh_match match;
        bh_arena_reset(&arena);
        status = bh_queue_next_destination(txn, reply->after, &arena, &record);
        if (status != BH_OK) {
            break;
        }
        reply->after = record.id;
        const uint64_t entries = bh_destination_entries(&record);
        if (entries > 0 &&
            moves(reply->next_config, &record, BH_LIT("somebody@sender.invalid"), 1, &match)) {
            reply->touched += entries;
            touched_row(reply, &record, &match, entries);
        }
    }
    bh_arena_fini(&arena);
    reply->more = status == BH_OK;
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void end_reload(struct bh_control_reply *reply)
{
    char text[160];
    snprintf(text, sizeof(text),
             "{\"generation\":%llu,\"touched\":%llu,\"weakened\":%llu,\"plan\":%s}",
             (unsigned long long)reply->next_config->generation, (unsigned long long)reply->touched,
             (unsigned long long)reply->matched, reply->request.plan ? "true" : "false");
    reply_end(reply, bh_slice_str(text));
}

/* ---- holds ---- */

/* Mail for a domain that is held goes to another connector from now on: before any can come in
 * there, that is held, too. A hold of mail that was a connector's by a condition (its sender) is of
 * that alone, and goes along with what is queued. */
static enum bh_status carry_one(struct bh_control_reply *reply, struct bh_queue *q,
                                struct bh_kv_txn *txn, const struct bh_destination *record)
{
    const struct bh_slice sender = BH_LIT("somebody@sender.invalid");
    struct bh_match match;
    uint32_t to = 0;
    if (!record->held || moves(reply->former_config, record, sender, 1, &match) ||
        !moves(reply->next_config, record, sender, 1, &match)) {
        return BH_OK;
    }
    const enum bh_status status = bh_queue_carry_hold(
        q, txn, record->id, bh_match_first_choice(&match)->name, reply->now, &to);
    if (to != 0) {
        reply->ids[reply->id_count++] = to;
    }
    return status;
}

static enum bh_status run_carry(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct bh_control_reply *reply = BH_CONTAINER(task, struct bh_control_reply, task);
    struct bh_arena arena;
    struct bh_destination record;
    enum bh_status status = BH_OK;
    uint32_t after = reply->after; /* a run may be repeated */
    reply->id_count = 0;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (unsigned looked = 0;
         status == BH_OK && looked < CARRY_ROWS && reply->id_count < BH_COUNT(reply->ids);
         looked++) {
        bh_arena_reset(&arena);
        status = bh_queue_next_destination(txn, after, &arena, &record);
        if (status == BH_OK) {
            after = record.id;
            status = carry_one(reply, q, txn, &record);
        }
    }
    bh_arena_fini(&arena);
    reply->more = status == BH_OK;
    reply->job = after; /* becomes `after` once this is committed */
    return status == BH_ENOTFOUND ? BH_OK : status;
}

static void put_in_force(struct bh_control_reply *reply);
static void carry_holds(struct bh_control_reply *reply);

static void carried_told(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->more) {
        carry_holds(reply);
    } else {
        put_in_force(reply);
    }
}

static void carried(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status != BH_OK) {
        reply_error(reply, "holds could not be written for their new connectors",
                    "the running configuration is untouched; see bhctl status, then reload again");
        return;
    }
    reply->after = (uint32_t)reply->job;
    control_tell(reply, CONTROL_HELD, carried_told);
}

static void carry_holds(struct bh_control_reply *reply)
{
    reply_write(reply, run_carry, carried);
}

/* ---- a reload ---- */

static void config_changed(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    start_rebind(reply->server);
    end_reload(reply);
}

static void put_in_force(struct bh_control_reply *reply)
{
    struct control_server *server = reply->server;
    const struct bh_config *config = bh_config_ref(reply->next_config);
    server->generation = config->generation;
    event_log_keep(server->daemon->events, config->engine.event_log_keep_ms,
                   config->engine.event_log_max_size);
    control_take_groups(server, config);
    daemon_set_log_level(config);
    config_cell_set(&server->daemon->cell, config);
    bh_log(BH_LOG_INFO, "evt=reloaded generation=%llu", (unsigned long long)server->generation);
    /* The answer comes when the engine goes by it: what is sent after the answer meets the new
     * policy. Only then entries are moved, or the old connector might still deliver one. */
    control_config_changed(reply, config_changed);
}

static void touched_counted(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = reply_of(call);
    (void)d;
    if (reply->status == BH_OK && reply->more) {
        reply_read(reply, run_touched, touched_counted);
    } else if (reply->request.plan) {
        end_reload(reply);
    } else {
        reply->after = 0;
        reply->former_config = config_cell_get(&reply->server->daemon->cell);
        carry_holds(reply);
    }
}

void control_op_reload(void *ctx, const struct bh_control_request *request,
                       struct bh_control_reply *reply)
{
    struct control_server *server = ctx;
    struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    enum bh_status status = daemon_load_config(server->daemon->config_path, server->generation + 1,
                                               NULL, &reply->next_config, &errors);
    if (status == BH_OK) {
        config_files_check(reply->next_config, false, &errors);
        daemon_check_listeners(reply->next_config, &errors);
        if (errors.errors > 0) {
            status = BH_EINVAL;
        }
    }
    error_rows(reply, &errors);
    const size_t count = errors.errors;
    bh_config_errors_fini(&errors);
    if (status != BH_OK) {
        char what[120];
        snprintf(what, sizeof(what), "%zu error%s. The running configuration is untouched.", count,
                 count == 1 ? "" : "s");
        reply_error(reply, status == BH_ENOMEM ? "no memory" : what,
                    "mend the file, then: bhctl check, bhctl reload");
        return;
    }
    const struct bh_config *now = config_cell_get(&server->daemon->cell);
    reply->matched = bh_config_diff(now, reply->next_config, on_change, reply);
    bh_config_unref(now);
    if (reply->matched > 0 && !request->plan && !request->allow_weaken) {
        reply_error(reply,
                    "this would weaken a TLS demand. The running configuration is untouched.",
                    "if that is meant: bhctl reload --allow-weaken");
        return;
    }
    reply_read(reply, run_touched, touched_counted);
}
