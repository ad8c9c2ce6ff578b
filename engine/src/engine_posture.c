/* What a session that is ready has seen of its host, remembered in the store and compared with what
 * was there: a task of the writer for each host that is new, changed, or not seen for an hour. */
#include "engine_internal.h"

#include <stdlib.h>

#include "bh/assert.h"
#include "bh/posture.h"
#include "tls_audit.h"

struct posture_task {
    struct bh_store_task task;
    struct engine_call call;
    struct engine *engine;
    enum bh_status status;
    int64_t now_unix_ms;
    struct bh_posture_seen seen;
    struct bh_reached reached;
    struct tls_seen tls;
    char host[NAME_MAX_OCTETS];
    uint16_t port;
    char posture_name[300], reached_name[600], got[TLS_SEEN_TEXT];
    size_t posture_len, reached_len; /* 0: too long a name to be kept */
    unsigned worse;
    char text[BH_POSTURE_WORDS];
};

static enum bh_status note_host(struct posture_task *t, struct bh_queue *q, struct bh_kv_txn *txn)
{
    char storage[BH_POSTURE_VALUE_MAX];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    const struct bh_slice name = bh_slice(t->posture_name, t->posture_len);
    struct bh_arena arena;
    struct bh_posture p;
    struct bh_slice value;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_policy_get(txn, name, &arena, &value);
    if (status == BH_OK || status == BH_ENOTFOUND) {
        /* A row that can't be read is made anew. */
        const bool known = status == BH_OK && bh_posture_read(value, &p) == BH_OK;
        t->worse = bh_posture_observe(&p, known, &t->seen, t->now_unix_ms);
        bh_posture_text(&p, t->worse, t->now_unix_ms, t->text);
        status = bh_posture_write(&p, &out);
    }
    if (status == BH_OK) {
        status = bh_posture_put(q, txn, BH_POSTURE_PREFIX, name, bh_buf_slice(&out),
                                BH_POSTURE_ROWS_MAX);
    }
    bh_arena_fini(&arena);
    return status;
}

static enum bh_status note_destination(struct posture_task *t, struct bh_queue *q,
                                       struct bh_kv_txn *txn)
{
    char storage[BH_POSTURE_VALUE_MAX];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    const struct bh_slice name = bh_slice(t->reached_name, t->reached_len);
    struct bh_arena arena;
    struct bh_reached old;
    struct bh_reached reached = t->reached;
    struct bh_slice value;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    enum bh_status status = bh_queue_policy_get(txn, name, &arena, &value);
    if (status == BH_OK && reached.verified_unix_ms == 0 && bh_reached_read(value, &old) == BH_OK) {
        reached.verified_unix_ms = old.verified_unix_ms;
    }
    status = status == BH_OK || status == BH_ENOTFOUND ? bh_reached_write(&reached, &out) : status;
    if (status == BH_OK) {
        status = bh_posture_put(q, txn, BH_REACHED_PREFIX, name, bh_buf_slice(&out),
                                BH_POSTURE_ROWS_MAX);
    }
    bh_arena_fini(&arena);
    return status;
}

static enum bh_status run_note(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct posture_task *t = BH_CONTAINER(task, struct posture_task, task);
    enum bh_status status = t->posture_len > 0 ? note_host(t, q, txn) : BH_OK;
    if (status == BH_OK && t->reached_len > 0) {
        status = note_destination(t, q, txn);
    }
    return status;
}

static void noted(struct engine_call *call, struct engine *e)
{
    struct posture_task *t = BH_CONTAINER(call, struct posture_task, call);
    e->pending--;
    if (t->status == BH_OK && t->worse != 0) {
        char text[BH_LOG_QUOTE_MAX];
        struct event event;
        bh_log(BH_LOG_WARN, "evt=tls_worse host=%s port=%u text=%s", t->host, (unsigned)t->port,
               bh_log_quote(bh_slice_str(t->text), text));
        event_begin(&event, t->now_unix_ms, "tls_worse");
        bh_json_key(&event.json, "mx");
        bh_json_cstr(&event.json, t->host);
        bh_json_key(&event.json, "port");
        bh_json_u64(&event.json, t->port);
        bh_json_key(&event.json, "reason");
        bh_json_cstr(&event.json, t->text);
        event_end(e->options.events, &event);
    }
    free(t);
}

static void done_note(struct bh_store_task *task, enum bh_status status)
{
    struct posture_task *t = BH_CONTAINER(task, struct posture_task, task);
    t->status = status;
    t->call.run = noted;
    engine_call(t->engine, &t->call);
}

static uint64_t hash_seen(const struct tls_seen *seen)
{
    uint64_t h = bh_hash(bh_slice_str(seen->version), seen->offered ? 1 : 2);
    h = bh_hash(bh_slice_str(seen->issuer), h);
    h = bh_hash(bh_slice(seen->spki, sizeof(seen->spki)), h + (uint64_t)seen->proof);
    return bh_hash(bh_slice(&seen->not_after_unix_ms, sizeof(seen->not_after_unix_ms)), h);
}

/* Was the same told of this host for this destination within the hour? */
static bool is_news(struct engine *e, uint64_t key, const struct tls_seen *seen, uint64_t now_ms)
{
    struct posture_told *told = &e->postures[key % BH_COUNT(e->postures)];
    const uint64_t facts = hash_seen(seen);
    if (told->key == key && told->facts == facts && told->at_ms != 0 &&
        now_ms - told->at_ms < BH_HOUR_MS) {
        return false;
    }
    *told = (struct posture_told){.key = key, .facts = facts, .at_ms = now_ms > 0 ? now_ms : 1};
    return true;
}

void eposture_note(struct engine *e, const struct worker_session *s)
{
    const struct dest_info *d = edest_get(e, s->destination);
    const struct session_host *host = &s->hosts[s->target];
    const struct bh_now now = engine_now(e);
    uint64_t key = bh_hash(bh_slice_str(host->name), s->addresses[s->target].port);
    key = d != NULL ? bh_hash(d->domain, bh_hash(s->connector->name, key)) : key;
    if (e->draining || !is_news(e, key, &s->seen, now.mono_ms)) {
        return;
    }
    struct posture_task *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return; /* the next session brings it */
    }
    t->engine = e;
    t->now_unix_ms = now.unix_ms;
    t->tls = s->seen;
    t->port = s->addresses[s->target].port;
    memcpy(t->host, host->name, sizeof(t->host));
    t->seen = (struct bh_posture_seen){.offered = s->seen.offered,
                                       .version = tls_version_of(s->seen.version),
                                       .issuer = bh_slice_str(t->tls.issuer),
                                       .has_spki = s->seen.has_spki,
                                       .not_after_unix_ms = s->seen.not_after_unix_ms};
    memcpy(t->seen.spki, s->seen.spki, sizeof(t->seen.spki));
    t->reached =
        (struct bh_reached){.last_unix_ms = now.unix_ms,
                            .verified_unix_ms = s->seen.proof > TLS_PROOF_NONE ? now.unix_ms : 0,
                            .auth = bh_slice_str(tls_proof_name(s->seen.proof)),
                            .tls = bh_slice_str(tls_seen_got(&t->tls, t->got)),
                            .host = bh_slice_str(t->host)};
    struct bh_buf posture = bh_buf(t->posture_name, sizeof(t->posture_name));
    struct bh_buf reached = bh_buf(t->reached_name, sizeof(t->reached_name));
    if (bh_posture_name(bh_slice_str(t->host), t->port, &posture)) {
        t->posture_len = posture.len;
    }
    if (d != NULL && bh_reached_name(s->connector->name, d->domain, &reached)) {
        t->reached_len = reached.len;
    }
    t->task = (struct bh_store_task){
        .run = run_note, .done = done_note, .dirty_bytes = 16384, .atomic = true};
    e->pending++;
    bh_store_write_always(e->options.store, &t->task);
}
