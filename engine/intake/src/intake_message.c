/* A message's way into the store. Content gathers in blocks, the Received line first; when the last
 * octet is there, one task puts it all on the writer's thread. A large message is stored as it
 * comes:
 *
 *     FILLING ──16 blocks full──▶ APPENDING ──answer──▶ FILLING
 *     FILLING ──DELIVER──▶ PUTTING ──answer──▶ DONE: the reply goes out
 *     FILLING ──DISCARD──▶ DONE, or DISCARDING what the store has of a large one
 *
 * While a task runs its blocks (`storing`) and the message's fields belong to the store's thread;
 * the session goes on filling the other set, and waits when that is full too. */
#include <stdlib.h>

#include "intake_internal.h"

#define ARENA_MAX ((size_t)8 << 20)
#define DISCARD_CHUNKS 256 /* of content, removed by one task */

static struct message *of_task(struct bh_store_task *task)
{
    return BH_CONTAINER(task, struct message, task);
}

/* --- blocks --- */

static void free_blocks(struct message *m, struct buffer **blocks, uint32_t *count)
{
    for (uint32_t i = 0; i < *count; i++) {
        pool_put(&m->intake->blocks, blocks[i]);
        m->intake->content_bytes -= BLOCK_SIZE;
    }
    *count = 0;
}

static void message_free(struct message *m)
{
    if (m->session != NULL) {
        session_forget_message(m->session, m);
    }
    free_blocks(m, m->filling, &m->filling_count);
    free_blocks(m, m->storing, &m->storing_count);
    bh_config_unref(m->config);
    bh_arena_fini(&m->arena);
    free(m);
}

/* The block with room at the end, a new one if need be; NULL if all are full, or for want of
 * memory. */
static struct buffer *room(struct message *m)
{
    if (m->filling_count > 0 && m->filling[m->filling_count - 1]->len < BLOCK_SIZE) {
        return m->filling[m->filling_count - 1];
    }
    struct buffer *block = m->filling_count < BLOCKS_MAX ? pool_get(&m->intake->blocks) : NULL;
    if (block != NULL) {
        m->filling[m->filling_count++] = block;
        m->intake->content_bytes += BLOCK_SIZE;
    }
    return block;
}

static void take(struct message *m, struct bh_slice *content)
{
    struct buffer *block = NULL;
    while (content->len > 0 && (block = room(m)) != NULL) {
        const struct bh_slice piece = bh_slice_take(*content, BLOCK_SIZE - block->len);
        memcpy(block->octets + block->len, piece.ptr, piece.len);
        block->len += piece.len;
        m->size += piece.len;
        *content = bh_slice_skip(*content, piece.len);
    }
}

/* --- on the store's thread --- */

/* Should this end the process, the next one knows by which message. */
static void tell_storing(const struct message *m, enum bh_handling_step step)
{
    const struct bh_intake_hooks *hooks = &m->intake->params.hooks;
    if (hooks->handling != NULL) {
        hooks->handling(hooks->ctx, BH_INTAKE_STORE_THREAD, step, m->fingerprint);
    }
}

static enum bh_status append_blocks(struct message *m, struct bh_queue *q, struct bh_kv_txn *txn)
{
    enum bh_status status = BH_OK;
    for (uint32_t i = 0; i < m->storing_count && status == BH_OK; i++) {
        status = bh_queue_large_append(q, txn, m->open_id,
                                       bh_slice(m->storing[i]->octets, m->storing[i]->len));
    }
    return status;
}

/* The Received line with its id, over the place that was kept for it: every id has the same length.
 * Of a large message that place is in the store already, and the queue writes `head` over it. */
static void stamp(void *ctx, uint64_t id)
{
    struct message *m = ctx;
    char text[BH_RECEIVED_MAX];
    struct bh_buf line = bh_buf(text, sizeof(text));
    m->received.queue_id = id;
    const enum bh_status status = bh_received_line(&m->received, &line);
    BH_ASSERT(status == BH_OK && line.len == m->received_len);
    BH_ASSERT(m->open_id != 0 || (m->storing_count > 0 && m->storing[0]->len >= line.len));
    memcpy(m->open_id != 0 ? m->head : m->storing[0]->octets, line.ptr, line.len);
}

static enum bh_status run_append(struct bh_store_task *task, struct bh_queue *q,
                                 struct bh_kv_txn *txn)
{
    struct message *m = of_task(task);
    if (m->begin_large) {
        m->open_id = 0; /* This may be a second run, after a commit that failed. */
        const enum bh_status status = bh_queue_large_begin(q, txn, m->now, &m->open_id);
        if (status != BH_OK) {
            return status;
        }
    }
    tell_storing(m, BH_HANDLING_STORE);
    const enum bh_status status = append_blocks(m, q, txn);
    tell_storing(m, BH_HANDLING_NOTHING);
    return status;
}

static enum bh_status run_put(struct bh_store_task *task, struct bh_queue *q, struct bh_kv_txn *txn)
{
    struct message *m = of_task(task);
    struct bh_slice pieces[BLOCKS_MAX];
    struct bh_queue_put put = {.envelope = &m->txn->envelope,
                               .origin = &m->origin,
                               .groups = m->groups,
                               .group_count = m->group_count,
                               .open_id = m->open_id,
                               .stamp = stamp,
                               .stamp_ctx = m,
                               .head = BH_EMPTY};
    enum bh_status status = BH_OK;
    tell_storing(m, BH_HANDLING_STORE);
    if (m->open_id != 0) {
        put.head = bh_slice(m->head, m->received_len);
        status = append_blocks(m, q, txn);
    } else {
        for (uint32_t i = 0; i < m->storing_count; i++) {
            pieces[i] = bh_slice(m->storing[i]->octets, m->storing[i]->len);
        }
        put.content = pieces;
        put.content_count = m->storing_count;
    }
    if (status == BH_OK) {
        status = bh_queue_put(q, txn, &put, m->now, &m->arena, &m->result);
    }
    tell_storing(m, BH_HANDLING_NOTHING);
    return status;
}

static enum bh_status run_discard(struct bh_store_task *task, struct bh_queue *q,
                                  struct bh_kv_txn *txn)
{
    struct message *m = of_task(task);
    const enum bh_status status = bh_queue_large_discard(q, txn, m->open_id, DISCARD_CHUNKS);
    m->more = status == BH_MORE;
    return m->more ? BH_OK : status; /* What was removed counts, and the rest is another task. */
}

/* On the store's thread: the worker does the rest. */
static void done(struct bh_store_task *task, enum bh_status status)
{
    struct message *m = of_task(task);
    const struct bh_intake_hooks *hooks = &m->intake->params.hooks;
    m->status = status;
    if (task->run == run_put && status == BH_OK && hooks->on_committed != NULL) {
        const struct bh_intake_committed committed = {.id = m->result.id,
                                                      .envelope = &m->txn->envelope,
                                                      .origin = &m->origin,
                                                      .groups = m->groups,
                                                      .group_count = m->group_count,
                                                      .parts = m->result.parts,
                                                      .part_count = m->result.part_count,
                                                      .generation = m->config->generation};
        hooks->on_committed(hooks->ctx, &committed);
    }
    /* With the post the message, and soon the intake, may be gone: wait for the bell to have rung.
     */
    struct bh_intake *intake = m->intake;
    atomic_fetch_add(&intake->ringing, 1);
    bh_mailbox_post_always(intake->mailbox, &m->answer);
    atomic_fetch_sub(&intake->ringing, 1);
}

/* --- tasks, from the worker's thread --- */

static void lend_blocks(struct message *m)
{
    BH_ASSERT(m->storing_count == 0);
    for (uint32_t i = 0; i < m->filling_count; i++) {
        m->storing[i] = m->filling[i];
    }
    m->storing_count = m->filling_count;
    m->filling_count = 0;
}

/* Returns false if the store has too much to do: the message is still ours. */
static bool submit(struct message *m, enum message_step step,
                   enum bh_status (*run)(struct bh_store_task *, struct bh_queue *,
                                         struct bh_kv_txn *))
{
    const size_t bytes = (size_t)m->storing_count * BLOCK_SIZE;
    m->task.letter.bytes = sizeof(*m) + bytes;
    m->task.dirty_bytes = bytes + 4096;
    m->task.run = run;
    m->task.done = done;
    m->task.urgent = step != STEP_DISCARDING;
    m->task.removal = step == STEP_DISCARDING;
    m->task.atomic = step == STEP_APPENDING || m->open_id != 0;
    m->step = step;
    if (m->task.removal) {
        bh_store_write_always(m->intake->params.store, &m->task);
    } else if (bh_store_write(m->intake->params.store, &m->task) != BH_OK) {
        return false;
    }
    m->intake->tasks++;
    return true;
}

static enum bh_server_commit commit_result(enum bh_status status)
{
    if (status == BH_OK) {
        return BH_SERVER_COMMITTED;
    }
    return status == BH_EFULL ? BH_SERVER_FULL : BH_SERVER_FAILED;
}

/* The end of a message that was delivered by its client. */
static void answer(struct message *m, enum bh_server_commit result)
{
    struct session *s = m->session;
    struct bh_server_txn *txn = m->txn;
    struct bh_intake *intake = m->intake;
    const uint64_t id = result == BH_SERVER_COMMITTED ? m->result.id : 0;
    if (result == BH_SERVER_COMMITTED) {
        intake->stats.messages++;
    } else {
        intake->stats.failed++;
    }
    m->txn = NULL;
    bh_server_on_committed(&s->server, txn, result, id, intake_now());
}

/* Rid of it: at once, or after the store has removed what it holds of it. */
static void finish(struct message *m)
{
    if (m->session != NULL) {
        session_forget_message(m->session, m);
    }
    m->txn = NULL;
    if (m->open_id != 0 && m->step != STEP_DONE) {
        free_blocks(m, m->filling, &m->filling_count);
        free_blocks(m, m->storing, &m->storing_count);
        (void)submit(m, STEP_DISCARDING, run_discard); /* Removals are always taken. */
        return;
    }
    message_free(m);
}

/* A failed message: its client is told now if it has sent it all, else when it has. */
static void give_up(struct message *m, enum bh_server_commit why)
{
    if (m->discarded) {
        finish(m);
    } else if (m->whole) {
        answer(m, why);
        finish(m);
    } else {
        m->intake->stats.failed++;
        bh_server_on_content_failed(&m->session->server, why); /* DISCARD follows. */
        m->session->pending = BH_EMPTY;
    }
}

/* --- who gets it --- */

struct routed {
    struct bh_slice domain;
    struct bh_recipient recipient;
    struct bh_slice connector;
    uint32_t index;
};

static int by_domain(const void *a, const void *b)
{
    const struct routed *x = a;
    const struct routed *y = b;
    const int order = bh_slice_cmp(x->domain, y->domain);
    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

static enum bh_server_commit route(struct message *m, struct routed *routed)
{
    const struct bh_intake_hooks *hooks = &m->intake->params.hooks;
    const struct bh_server_txn *txn = m->txn;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        struct bh_match match;
        routed[i].recipient = txn->recipients[i];
        routed[i].domain = bh_address_domain(txn->recipients[i].address);
        routed[i].index = i;
        if (bh_config_match(m->config, routed[i].domain, txn->envelope.sender, txn->envelope.size,
                            hooks->available, hooks->ctx, &match) != BH_OK) {
            return BH_SERVER_NO_ROUTE;
        }
        routed[i].connector = bh_match_first_choice(&match)->name;
    }
    qsort(routed, txn->recipients_count, sizeof(*routed), by_domain);
    return BH_SERVER_COMMITTED;
}

/* One group a domain: the sender and the size are the same for all of it, so the connector is too.
 */
static enum bh_server_commit make_groups(struct message *m)
{
    const uint32_t count = m->txn->recipients_count;
    BH_ASSERT(count > 0);
    struct routed *routed = bh_arena_alloc(&m->arena, count * sizeof(*routed));
    struct bh_recipient *sorted = bh_arena_alloc(&m->arena, count * sizeof(*sorted));
    m->groups = bh_arena_alloc(&m->arena, count * sizeof(*m->groups));
    if (routed == NULL || sorted == NULL || m->groups == NULL) {
        return BH_SERVER_FAILED;
    }
    const enum bh_server_commit result = route(m, routed);
    if (result != BH_SERVER_COMMITTED) {
        return result;
    }
    for (uint32_t i = 0; i < count; i++) {
        sorted[i] = routed[i].recipient;
        if (i == 0 || !bh_slice_eq(routed[i].domain, routed[i - 1].domain)) {
            m->groups[m->group_count++] = (struct bh_queue_group){.domain = routed[i].domain,
                                                                  .connector = routed[i].connector,
                                                                  .recipients = &sorted[i],
                                                                  .hint = BH_HINT_FRESH_OK,
                                                                  .hold = BH_EMPTY};
        }
        m->groups[m->group_count - 1].recipient_count++;
    }
    return BH_SERVER_COMMITTED;
}

/* All of it is here: into the store. */
static void put(struct message *m)
{
    m->txn->envelope.size = m->size;
    m->now = intake_now(); /* Ids go by the end of the content, its Received line by the start. */
    m->config = m->intake->params.hooks.config(m->intake->params.hooks.ctx);
    const enum bh_server_commit routed = make_groups(m);
    if (routed != BH_SERVER_COMMITTED) {
        give_up(m, routed);
        return;
    }
    lend_blocks(m);
    if (!submit(m, STEP_PUTTING, run_put)) {
        m->step = STEP_FILLING;
        give_up(m, BH_SERVER_FULL);
    }
}

/* --- what the session calls --- */

static bool describe(struct session *s, struct message *m)
{
    const struct bh_server_txn *txn = m->txn;
    struct bh_slice helo = BH_EMPTY;
    struct bh_slice by = BH_EMPTY;
    struct bh_slice for_one = BH_EMPTY;
    struct bh_slice user = bh_server_user(&s->server);
    const bool authenticated = user.len > 0;
    user = authenticated ? user : bh_slice_str(s->certificate);
    /* Copies: the client may say EHLO anew, or go, while the store works on this. */
    if (!bh_arena_copy(&m->arena, bh_server_helo(&s->server), &helo) ||
        !bh_arena_copy(&m->arena, s->options.hostname, &by) ||
        !bh_arena_copy(&m->arena, user, &user) ||
        (txn->recipients_count == 1 &&
         !bh_arena_copy(&m->arena, txn->recipients[0].address, &for_one))) {
        return false;
    }
    const bool extended = bh_server_extended(&s->server);
    const bool tls = s->tls != NULL;
    m->received = (struct bh_received){.helo = helo,
                                       .client = s->client,
                                       .by = by,
                                       .extended = extended,
                                       .tls = tls,
                                       .authenticated = authenticated,
                                       .smtputf8 = txn->envelope.smtputf8,
                                       .for_one = for_one,
                                       .unix_ms = m->now.unix_ms};
    m->origin = (struct bh_origin){.client = s->client,
                                   .helo = helo,
                                   .user = user,
                                   .listener = bh_slice_str(s->listener->text),
                                   .protocol = bh_received_protocol(&m->received),
                                   .arrival_unix_ms = m->now.unix_ms};
    return true;
}

/* Keeps the place of the Received line at the front of the content. */
static bool reserve_received(struct message *m)
{
    char text[BH_RECEIVED_MAX];
    struct bh_buf line = bh_buf(text, sizeof(text));
    if (bh_received_line(&m->received, &line) != BH_OK) {
        return false;
    }
    m->received_len = line.len;
    m->head = bh_arena_alloc(&m->arena, line.len);
    struct bh_slice content = bh_buf_slice(&line);
    take(m, &content);
    return content.len == 0 && m->head != NULL;
}

bool message_begin(struct session *s, struct bh_server_txn *txn)
{
    struct bh_intake *intake = s->intake;
    if (intake->content_bytes >= intake->params.content_max) {
        return false;
    }
    struct message *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return false;
    }
    bh_arena_init(&m->arena, ARENA_MAX);
    m->intake = intake;
    m->txn = txn;
    m->now = intake_now();
    m->fingerprint = bh_suspect_fingerprint(&txn->envelope, txn->declared_size, txn->recipients,
                                            txn->recipients_count);
    m->session = s;
    m->next = s->messages;
    s->messages = m;
    if (!describe(s, m) || !reserve_received(m)) {
        message_free(m);
        return false;
    }
    txn->driver = m;
    s->message = m;
    return true;
}

void message_append(struct message *m, struct bh_slice *content)
{
    take(m, content);
    if (content->len == 0 || m->step != STEP_FILLING) {
        return; /* It fits, or an answer will make room. */
    }
    if (m->filling_count < BLOCKS_MAX) {
        give_up(m, BH_SERVER_FULL); /* No memory for a block. */
        return;
    }
    m->begin_large = m->open_id == 0;
    lend_blocks(m);
    if (!submit(m, STEP_APPENDING, run_append)) {
        m->step = STEP_FILLING;
        give_up(m, BH_SERVER_FULL);
        return;
    }
    take(m, content);
}

void message_deliver(struct message *m)
{
    m->whole = true;
    if (m->step == STEP_FILLING) {
        put(m);
    }
}

void message_discard(struct message *m)
{
    m->discarded = true;
    m->txn = NULL; /* The core frees it. */
    if (m->step == STEP_FILLING) {
        finish(m);
    }
}

/* --- answers --- */

static void on_appended(struct message *m)
{
    if (m->status == BH_EFULL) {
        intake_set_full(m->intake);
    }
    free_blocks(m, m->storing, &m->storing_count);
    m->step = STEP_FILLING;
    m->begin_large = false;
    if (m->status != BH_OK) {
        give_up(m, commit_result(m->status));
    } else if (m->discarded) {
        finish(m);
    } else if (m->whole) {
        put(m);
    }
}

static void on_put(struct message *m)
{
    if (m->status == BH_EFULL) {
        intake_set_full(m->intake);
    }
    /* The content is now the queue's, or is still listed as half received. */
    m->step = m->status == BH_OK ? STEP_DONE : STEP_FILLING;
    answer(m, commit_result(m->status));
    finish(m);
}

void message_on_answer(struct bh_letter *letter)
{
    struct message *m = BH_CONTAINER(letter, struct message, answer);
    struct session *s = m->session;
    switch (m->step) {
    case STEP_APPENDING:
        on_appended(m);
        break;
    case STEP_PUTTING:
        on_put(m);
        break;
    case STEP_DISCARDING:
        if (m->status == BH_OK && m->more) {
            (void)submit(m, STEP_DISCARDING, run_discard);
        } else {
            message_free(m); /* If it failed, the next start deletes what is left. */
        }
        break;
    case STEP_FILLING:
    case STEP_DONE:
        BH_ASSERT(false);
        break;
    }
    if (s != NULL) {
        session_pump(s);
    }
}
