/* Policies in the store: rows "sts/" and the domain. */
#include "sts_internal.h"

#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/buf.h"
#include "bh/log.h"

#define PAGE_ROWS 500 /* looked at in one read transaction */
#define PAGE_NAMES 64 /* of each kind that a page may find; the next page goes on behind */
#define KEEP_EXPIRED_MS \
    (7 * BH_DAY_MS) /* lest a clock that is wrong for a while throws them away */

static struct bh_slice row_key(struct bh_buf *buf, const char *domain)
{
    bh_buf_put(buf, BH_STS_KEY_PREFIX);
    bh_buf_put(buf, bh_slice_str(domain));
    return bh_buf_slice(buf);
}

#define KEY_MAX (STS_NAME_MAX + 8)

/* ---- reading ---- */

struct load_task {
    struct engine_call call;
    struct bh_store_task task;
    struct sts_domain *domain;
    char name[STS_NAME_MAX];
    enum bh_status status;
    size_t len;
    char row[BH_STS_ROW_MAX + 1];
};

static enum bh_status run_load(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct load_task *l = BH_CONTAINER(task, struct load_task, task);
    char key[KEY_MAX];
    struct bh_buf buf = bh_buf(key, sizeof(key));
    struct bh_arena arena;
    struct bh_slice value = BH_EMPTY;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    l->status = bh_queue_policy_get(txn, row_key(&buf, l->name), &arena, &value);
    /* One that is too long is none of ours; cut, it can't be read. */
    l->len = value.len < sizeof(l->row) ? value.len : sizeof(l->row);
    if (l->status == BH_OK) {
        memcpy(l->row, value.ptr, l->len);
    }
    bh_arena_fini(&arena);
    return BH_OK;
}

static void on_loaded(struct engine_call *call, struct engine *engine)
{
    struct load_task *l = BH_CONTAINER(call, struct load_task, call);
    (void)engine;
    (*l->domain->sts->options.pending)--;
    l->domain->questions--;
    sts_on_row(l->domain, l->status, bh_slice(l->row, l->len));
    free(l);
}

static void done_load(struct bh_store_task *task, enum bh_status status)
{
    struct load_task *l = BH_CONTAINER(task, struct load_task, task);
    if (status != BH_OK) {
        l->status = status;
    }
    const struct sts_options *options = &l->domain->sts->options;
    options->post(options->ctx, &l->call);
}

enum bh_status sts_store_load(struct sts_domain *d)
{
    struct load_task *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return BH_ENOMEM;
    }
    l->call.run = on_loaded;
    l->task = (struct bh_store_task){.run = run_load, .done = done_load};
    l->task.letter.bytes = sizeof(*l);
    l->domain = d;
    memcpy(l->name, d->name, sizeof(l->name));
    const enum bh_status status = bh_store_read(d->sts->options.store, &l->task);
    if (status != BH_OK) {
        free(l);
        return status;
    }
    d->questions++; /* it must not be forgotten meanwhile */
    (*d->sts->options.pending)++;
    return BH_OK;
}

/* ---- writing ---- */

struct save_task {
    struct engine_call call;
    struct bh_store_task task;
    struct sts *sts;
    enum bh_status status;
    char name[STS_NAME_MAX];
    size_t len;
    char row[];
};

static enum bh_status run_save(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    const struct save_task *s = BH_CONTAINER(task, struct save_task, task);
    char key[KEY_MAX];
    struct bh_buf buf = bh_buf(key, sizeof(key));
    return bh_queue_policy_put(q, txn, row_key(&buf, s->name), bh_slice(s->row, s->len));
}

static void on_saved(struct engine_call *call, struct engine *engine)
{
    struct save_task *s = BH_CONTAINER(call, struct save_task, call);
    (void)engine;
    (*s->sts->options.pending)--;
    if (s->status != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=sts_not_stored domain=%s error=\"%s\"", s->name,
               bh_status_name(s->status));
        struct bh_map_node *node = bh_map_find(&s->sts->domains, bh_slice_str(s->name));
        if (node != NULL) {
            /* With the next lookup again. */
            BH_CONTAINER(node, struct sts_domain, node)->entry.dirty = true;
        }
    }
    free(s);
}

static void done_save(struct bh_store_task *task, enum bh_status status)
{
    struct save_task *s = BH_CONTAINER(task, struct save_task, task);
    s->status = status;
    s->sts->options.post(s->sts->options.ctx, &s->call);
}

void sts_store_save(struct sts_domain *d)
{
    if (!d->entry.dirty || d->sts->draining) {
        return;
    }
    char row[BH_STS_ROW_MAX];
    struct bh_buf out = bh_buf(row, sizeof(row));
    const enum bh_status written = bh_sts_entry_write(&d->entry, sts_now(d->sts), &out);
    BH_ASSERT(written == BH_OK); /* the bounds of a policy make it fit */
    struct save_task *s = calloc(1, sizeof(*s) + out.len);
    if (s == NULL) {
        return; /* stays dirty: with the next lookup */
    }
    s->call.run = on_saved;
    s->task =
        (struct bh_store_task){.run = run_save, .done = done_save, .dirty_bytes = out.len + 4096};
    s->task.letter.bytes = sizeof(*s) + out.len;
    s->sts = d->sts;
    memcpy(s->name, d->name, sizeof(s->name));
    s->len = out.len;
    memcpy(s->row, out.ptr, out.len);
    d->entry.dirty = false;
    (*d->sts->options.pending)++;
    bh_store_write_always(d->sts->options.store, &s->task);
}

/* ---- upkeep ---- */

/* Names found by one page: each "sts/" and a domain. */
struct names {
    size_t count;
    char at[PAGE_NAMES][KEY_MAX];
    size_t len[PAGE_NAMES];
    int64_t used_unix_ms[PAGE_NAMES];
};

struct scan_task {
    struct engine_call call;
    struct bh_store_task task;
    struct sts *sts;
    int64_t now_unix_ms;
    char after[KEY_MAX];
    size_t after_len;
    bool more;
    enum bh_status status;
    size_t rows; /* so far */
    struct names renew;
    struct names expired;
    struct names oldest; /* of all pages: least recently used first */
};

static void add_name(struct names *n, size_t at, struct bh_slice key, int64_t used_unix_ms)
{
    memcpy(n->at[at], key.ptr, key.len);
    n->len[at] = key.len;
    n->used_unix_ms[at] = used_unix_ms;
}

/* Into its place by use; the most recent one drops out of a full list. */
static void add_oldest(struct names *n, struct bh_slice key, int64_t used_unix_ms)
{
    size_t at = 0;
    while (at < n->count && n->used_unix_ms[at] <= used_unix_ms) {
        at++;
    }
    if (at == PAGE_NAMES) {
        return;
    }
    if (n->count < PAGE_NAMES) {
        n->count++;
    }
    for (size_t i = n->count - 1; i > at; i--) {
        memcpy(n->at[i], n->at[i - 1], sizeof(n->at[i]));
        n->len[i] = n->len[i - 1];
        n->used_unix_ms[i] = n->used_unix_ms[i - 1];
    }
    add_name(n, at, key, used_unix_ms);
}

static void look_at(struct scan_task *s, struct bh_slice key, struct bh_slice value,
                    struct bh_arena *arena)
{
    struct bh_sts_row row;
    s->rows++;
    if (key.len >= KEY_MAX || bh_sts_row_read(value, arena, &row) != BH_OK) {
        return;
    }
    const int64_t expires = bh_sts_row_expires(&row);
    if (s->now_unix_ms - KEEP_EXPIRED_MS >= expires) {
        add_name(&s->expired, s->expired.count++, key, row.used_unix_ms);
    } else if (bh_sts_row_wants_refresh(&row, s->now_unix_ms)) {
        add_name(&s->renew, s->renew.count++, key, row.used_unix_ms);
    }
    /* Where room is wanted, what is no longer in force goes first. */
    add_oldest(&s->oldest, key, s->now_unix_ms >= expires ? 0 : row.used_unix_ms);
}

static enum bh_status run_scan(struct bh_store_task *task, struct bh_queue *q,
                               struct bh_kv_txn *txn)
{
    struct scan_task *s = BH_CONTAINER(task, struct scan_task, task);
    struct bh_arena arena;
    enum bh_status status = BH_OK;
    (void)q;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (size_t i = 0;
         i < PAGE_ROWS && s->renew.count < PAGE_NAMES && s->expired.count < PAGE_NAMES; i++) {
        struct bh_slice key = BH_EMPTY;
        struct bh_slice value = BH_EMPTY;
        bh_arena_reset(&arena);
        status = bh_queue_policy_next(txn, bh_slice(s->after, s->after_len), &arena, &key, &value);
        if (status != BH_OK || !bh_slice_starts(key, BH_STS_KEY_PREFIX)) {
            s->more = false;
            break;
        }
        struct bh_buf after = bh_buf(s->after, sizeof(s->after));
        bh_buf_add_cut(&after, key);
        s->after_len = after.len;
        look_at(s, key, value, &arena);
    }
    bh_arena_fini(&arena);
    return status == BH_ENOTFOUND ? BH_OK : status;
}

/* Deletes what the writer, too, finds expired, or what is surplus. */
struct sweep_task {
    struct engine_call call;
    struct bh_store_task task;
    struct sts *sts;
    bool surplus;
    int64_t now_unix_ms;
    size_t count;
    struct names names;
};

static enum bh_status run_sweep(struct bh_store_task *task, struct bh_queue *q,
                                struct bh_kv_txn *txn)
{
    struct sweep_task *s = BH_CONTAINER(task, struct sweep_task, task);
    struct bh_arena arena;
    enum bh_status status = BH_OK;
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    for (size_t i = 0; i < s->count && status == BH_OK; i++) {
        const struct bh_slice key = bh_slice(s->names.at[i], s->names.len[i]);
        struct bh_slice value;
        struct bh_sts_row row;
        bh_arena_reset(&arena);
        status = bh_queue_policy_get(txn, key, &arena, &value);
        if (status == BH_OK && bh_sts_row_read(value, &arena, &row) == BH_OK &&
            (s->surplus || s->now_unix_ms - KEEP_EXPIRED_MS >= bh_sts_row_expires(&row))) {
            status = bh_queue_policy_del(q, txn, key);
        }
        status = status == BH_ENOTFOUND ? BH_OK : status;
    }
    bh_arena_fini(&arena);
    return status;
}

static void on_swept(struct engine_call *call, struct engine *engine)
{
    struct sweep_task *s = BH_CONTAINER(call, struct sweep_task, call);
    (void)engine;
    (*s->sts->options.pending)--;
    free(s);
}

static void done_sweep(struct bh_store_task *task, enum bh_status status)
{
    struct sweep_task *s = BH_CONTAINER(task, struct sweep_task, task);
    (void)status; /* what is left over is found again in an hour */
    s->sts->options.post(s->sts->options.ctx, &s->call);
}

static void sweep(struct sts *sts, const struct names *names, size_t count, bool surplus,
                  int64_t now_unix_ms)
{
    struct sweep_task *s = count > 0 ? calloc(1, sizeof(*s)) : NULL;
    if (s == NULL) {
        return;
    }
    s->call.run = on_swept;
    s->task = (struct bh_store_task){
        .run = run_sweep, .done = done_sweep, .removal = true, .dirty_bytes = count * 4096};
    s->task.letter.bytes = sizeof(*s);
    s->sts = sts;
    s->surplus = surplus;
    s->now_unix_ms = now_unix_ms;
    s->count = count;
    s->names = *names;
    (*sts->options.pending)++;
    bh_store_write_always(sts->options.store, &s->task);
}

static bool post_scan(struct scan_task *s);

static void on_scanned(struct engine_call *call, struct engine *engine)
{
    struct scan_task *s = BH_CONTAINER(call, struct scan_task, call);
    struct sts *sts = s->sts;
    (void)engine;
    (*sts->options.pending)--;
    if (s->status != BH_OK || sts->draining) {
        sts->scanning = false;
        free(s);
        return;
    }
    for (size_t i = 0; i < s->renew.count; i++) {
        const struct bh_slice key = bh_slice(s->renew.at[i], s->renew.len[i]);
        sts_renew(sts, bh_slice_skip(key, BH_STS_KEY_PREFIX.len));
    }
    if (!sts->options.clock_suspect(sts->options.ctx)) {
        sweep(sts, &s->expired, s->expired.count, false, s->now_unix_ms);
    }
    s->renew.count = s->expired.count = 0;
    if (s->more && post_scan(s)) {
        return;
    }
    if (!s->more && s->rows > STS_ROWS_MAX) {
        const size_t surplus = s->rows - STS_ROWS_MAX;
        bh_log(BH_LOG_WARN, "evt=sts_rows_dropped rows=%zu max=%d", s->rows, STS_ROWS_MAX);
        sweep(sts, &s->oldest, surplus < s->oldest.count ? surplus : s->oldest.count, true,
              s->now_unix_ms);
    }
    sts->scanning = false;
    free(s);
}

static void done_scan(struct bh_store_task *task, enum bh_status status)
{
    struct scan_task *s = BH_CONTAINER(task, struct scan_task, task);
    s->status = status;
    s->sts->options.post(s->sts->options.ctx, &s->call);
}

static bool post_scan(struct scan_task *s)
{
    s->task = (struct bh_store_task){.run = run_scan, .done = done_scan};
    s->task.letter.bytes = sizeof(*s);
    s->call.run = on_scanned;
    s->more = true;
    if (bh_store_read(s->sts->options.store, &s->task) != BH_OK) {
        s->more = true; /* not to the end: what is surplus isn't known */
        return false;
    }
    (*s->sts->options.pending)++;
    return true;
}

void sts_store_upkeep(struct sts *sts)
{
    struct scan_task *s = sts->scanning || sts->draining ? NULL : calloc(1, sizeof(*s));
    if (s == NULL) {
        return;
    }
    s->sts = sts;
    s->now_unix_ms = sts_now(sts).unix_ms;
    s->after_len = BH_STS_KEY_PREFIX.len;
    memcpy(s->after, BH_STS_KEY_PREFIX.ptr, s->after_len);
    sts->scanning = post_scan(s);
    if (!sts->scanning) {
        free(s);
    }
}
