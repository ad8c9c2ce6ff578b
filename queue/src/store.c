/* Group commit.
 *
 * The writer takes all that waits into one transaction, commits, and answers. It never waits for
 * more to come; only tasks that nobody waits for (removals) are let lie for up to LAZY_MS, to share
 * a commit with others.
 *
 * Disk or map full: the group is undone. Its removals go first, since they give space; then each
 * other task stands alone, and fails alone if it does not fit. A commit that fails with space free
 * means that what is on disk is not known any more: the store stops for good.
 *
 * Out of memory, nothing was committed: the group fails, and whoever waits for it hears so. */
#include "bh/store.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "bh/assert.h"
#include "bh/map.h"

#define READERS 2
#define GROUP_DIRTY_MAX ((size_t)16 << 20) /* octets written by one transaction */
#define LAZY_MS 20                         /* most that a task that is not urgent waits */
#define IDLE_MS 1000                       /* between calls of idle */
#define ENTRIES_DEFAULT 65536
#define BYTES_DEFAULT ((size_t)256 << 20)

struct reader {
    struct bh_store *store;
    pthread_t thread;
    struct bh_mailbox *box;
    struct bh_letter stop;
};

struct bh_store {
    struct bh_store_options options;
    pthread_t writer;
    struct bh_mailbox *box;
    struct bh_letter stop;
    struct reader readers[READERS];
    unsigned threads;     /* started: the writer, then readers */
    pthread_mutex_t lock; /* guards stats */
    struct bh_store_stats stats;

    /* The writer's own. */
    struct bh_letter *first; /* tasks waiting, in the order of their posts */
    struct bh_letter **last;
    bool any_urgent;
    uint64_t lazy_since_ms; /* when the oldest of them was taken from the mailbox */
    bool stopping;
    bool failed;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t now_ms(void)
{
    return now_ns() / 1000000;
}

static struct bh_store_task *task_of(struct bh_letter *letter)
{
    return BH_CONTAINER(letter, struct bh_store_task, letter);
}

/* ---- one transaction ---- */

static bool wrote_nothing(enum bh_status status)
{
    return status == BH_ENOTFOUND || status == BH_EINVAL || status == BH_ELIMIT ||
           status == BH_EEXIST || status == BH_EBUSY;
}

static enum bh_status run_nested(struct bh_store *s, struct bh_store_task *task,
                                 struct bh_kv_txn *parent)
{
    struct bh_kv_txn *txn;
    enum bh_status status = bh_queue_begin(s->options.queue, parent, &txn);
    if (status != BH_OK) {
        return status;
    }
    status = task->run(task, s->options.queue, txn);
    if (status < 0) {
        bh_queue_abort(s->options.queue, txn);
        return status;
    }
    const enum bh_status committed = bh_queue_commit(s->options.queue, txn);
    return committed == BH_OK ? status : committed;
}

static enum bh_status commit(struct bh_store *s, struct bh_kv_txn *txn, uint64_t tasks)
{
    const uint64_t start = now_ns();
    const enum bh_status status = bh_queue_commit(s->options.queue, txn);
    pthread_mutex_lock(&s->lock);
    s->stats.commits++;
    s->stats.tasks += status == BH_OK ? tasks : 0;
    s->stats.commit_ns += now_ns() - start;
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* Run all tasks whose status is not below 0 yet, in one transaction.
 * @return BH_OK committed; BH_MORE one failed and may have written: it is marked, do it again;
 *         BH_EFULL; BH_ENOMEM; else the store has failed. Nothing was committed but on BH_OK */
static enum bh_status try_group(struct bh_store *s, struct bh_store_task *const *tasks,
                                size_t count)
{
    struct bh_kv_txn *txn;
    enum bh_status status = bh_queue_begin(s->options.queue, NULL, &txn);
    if (status != BH_OK) {
        return status == BH_EFULL || status == BH_ENOMEM ? status : BH_EIO;
    }
    uint64_t ran = 0;
    for (size_t i = 0; i < count; i++) {
        struct bh_store_task *task = tasks[i];
        if (task->status < 0) {
            continue;
        }
        task->status =
            task->atomic ? run_nested(s, task, txn) : task->run(task, s->options.queue, txn);
        ran++;
        if (task->status == BH_EFULL || task->status == BH_EIO) {
            status = task->status;
            break;
        }
        if (task->status < 0 && !task->atomic && !wrote_nothing(task->status)) {
            status = BH_MORE;
            break;
        }
    }
    if (status != BH_OK) {
        bh_queue_abort(s->options.queue, txn);
        return status;
    }
    return commit(s, txn, ran);
}

/* As above, again until it stands. For want of memory all of it fails, and the store does not:
 * whoever asked for something has to ask again, or to say so. */
static enum bh_status do_group(struct bh_store *s, struct bh_store_task *const *tasks, size_t count)
{
    enum bh_status status;
    do {
        status = try_group(s, tasks, count);
    } while (status == BH_MORE);
    for (size_t i = 0; status == BH_OK && i < count; i++) {
        tasks[i]->committed = true;
    }
    if (status != BH_ENOMEM) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (tasks[i]->status >= 0) {
            tasks[i]->status = BH_ENOMEM;
        }
    }
    return BH_OK;
}

static void clear(struct bh_store_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (tasks[i]->status == BH_EFULL) {
            tasks[i]->status = BH_OK;
        }
    }
}

/* @return BH_OK: each has its status; BH_EIO: the store has failed */
static enum bh_status do_each(struct bh_store *s, struct bh_store_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const enum bh_status status = do_group(s, &tasks[i], 1);
        if (status == BH_EFULL) {
            tasks[i]->status = BH_EFULL;
        } else if (status != BH_OK) {
            return BH_EIO;
        }
    }
    return BH_OK;
}

/* No space for the whole: removals first, together if that goes, then one by one what asks for
 * more. */
static enum bh_status do_when_full(struct bh_store *s, struct bh_store_task **tasks, size_t count)
{
    pthread_mutex_lock(&s->lock);
    s->stats.full++;
    pthread_mutex_unlock(&s->lock);
    clear(tasks, count);
    size_t removals = 0;
    for (size_t i = 0; i < count; i++) {
        if (tasks[i]->removal) {
            struct bh_store_task *removal = tasks[i];
            for (size_t k = i; k > removals; k--) { /* keeps both in order */
                tasks[k] = tasks[k - 1];
            }
            tasks[removals++] = removal;
        }
    }
    enum bh_status status = removals > 0 ? do_group(s, tasks, removals) : BH_OK;
    if (status == BH_EFULL) {
        clear(tasks, removals);
        status = do_each(s, tasks, removals);
    }
    return status == BH_OK ? do_each(s, tasks + removals, count - removals) : BH_EIO;
}

/* ---- the writer ---- */

static void fail(struct bh_store *s)
{
    s->failed = true;
    pthread_mutex_lock(&s->lock);
    s->stats.stopped = true;
    pthread_mutex_unlock(&s->lock);
    if (s->options.failed != NULL) {
        s->options.failed(s->options.ctx, BH_EIO);
    }
}

#define GROUP_MAX 1024 /* tasks in one transaction */

static size_t next_group(struct bh_store *s, struct bh_store_task *tasks[GROUP_MAX])
{
    size_t count = 0;
    size_t dirty = 0;
    while (s->first != NULL && count < GROUP_MAX) {
        struct bh_store_task *task = task_of(s->first);
        if (count > 0 && dirty + task->dirty_bytes > GROUP_DIRTY_MAX) {
            break;
        }
        s->first = task->letter.next;
        task->status = BH_OK;
        task->committed = false;
        dirty += task->dirty_bytes;
        tasks[count++] = task;
    }
    if (s->first == NULL) {
        s->last = &s->first;
    }
    return count;
}

static void write_all(struct bh_store *s)
{
    while (s->first != NULL) {
        struct bh_store_task *tasks[GROUP_MAX];
        const size_t count = next_group(s, tasks);
        enum bh_status status = s->failed ? BH_EIO : do_group(s, tasks, count);
        if (status == BH_EFULL) {
            status = do_when_full(s, tasks, count);
        }
        if (status != BH_OK && !s->failed) {
            fail(s);
        }
        for (size_t i = 0; i < count; i++) {
            /* One by one, on a full disk, some were stored before it failed: they are told so. */
            const bool stands = !s->failed || tasks[i]->committed;
            tasks[i]->done(tasks[i], stands ? tasks[i]->status : BH_EIO);
        }
    }
    s->any_urgent = false;
}

static void append(struct bh_store *s, struct bh_letter *letter)
{
    if (s->first == NULL) {
        s->lazy_since_ms = now_ms();
    }
    letter->next = NULL;
    *s->last = letter;
    s->last = &letter->next;
    s->any_urgent |= task_of(letter)->urgent;
}

static void take_mail(struct bh_store *s)
{
    for (struct bh_letter *letter = bh_mailbox_take_all(s->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        if (letter == &s->stop) {
            s->stopping = true;
        } else {
            append(s, letter);
        }
        letter = next;
    }
}

static uint64_t until(uint64_t at_ms, uint64_t now)
{
    return at_ms > now ? at_ms - now : 0;
}

static bool idle_succeeds(struct bh_store *s)
{
    const enum bh_status status = s->options.idle(s->options.ctx);
    return status == BH_OK || status == BH_ENOMEM; /* then it does its work the next time */
}

static void *writer_main(void *arg)
{
    struct bh_store *s = arg;
    uint64_t idle_at = now_ms() + IDLE_MS;
    while (!s->stopping) {
        const uint64_t now = now_ms();
        uint64_t wait = until(idle_at, now);
        if (s->first != NULL && until(s->lazy_since_ms + LAZY_MS, now) < wait) {
            wait = until(s->lazy_since_ms + LAZY_MS, now);
        }
        bh_mailbox_wait(s->box, wait);
        take_mail(s);
        if (s->any_urgent || s->stopping || s->failed || now_ms() >= s->lazy_since_ms + LAZY_MS) {
            write_all(s);
        }
        if (now_ms() >= idle_at) {
            if (s->options.idle != NULL && !s->failed && !idle_succeeds(s)) {
                fail(s);
            }
            idle_at = now_ms() + IDLE_MS;
        }
    }
    return NULL;
}

/* ---- readers ---- */

static void read_one(struct bh_store *s, struct bh_store_task *task)
{
    struct bh_kv_txn *txn;
    enum bh_status status = bh_kv_begin(s->options.kv, BH_KV_READ, NULL, &txn);
    if (status == BH_OK) {
        status = task->run(task, NULL, txn);
        bh_kv_abort(txn);
    }
    task->done(task, status);
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    for (bool stopping = false; !stopping;) {
        bh_mailbox_wait(r->box, UINT64_MAX);
        for (struct bh_letter *letter = bh_mailbox_take_all(r->box); letter != NULL;) {
            struct bh_letter *next = letter->next;
            if (letter == &r->stop) {
                stopping = true;
            } else {
                read_one(r->store, task_of(letter));
            }
            letter = next;
        }
    }
    return NULL;
}

/* ---- the face ---- */

/* Everything posted before is done: the stop letter is behind it. */
static void stop_threads(struct bh_store *s)
{
    if (s->threads > 0) {
        bh_mailbox_post_always(s->box, &s->stop);
        pthread_join(s->writer, NULL);
    }
    for (unsigned i = 0; i + 1 < s->threads; i++) {
        bh_mailbox_post_always(s->readers[i].box, &s->readers[i].stop);
        pthread_join(s->readers[i].thread, NULL);
    }
}

static void destroy(struct bh_store *s)
{
    bh_mailbox_destroy(s->box);
    for (unsigned i = 0; i < READERS; i++) {
        bh_mailbox_destroy(s->readers[i].box);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static enum bh_status start_threads(struct bh_store *s)
{
    if (pthread_create(&s->writer, NULL, writer_main, s) != 0) {
        return BH_EIO;
    }
    s->threads++;
    for (unsigned i = 0; i < READERS; i++) {
        if (pthread_create(&s->readers[i].thread, NULL, reader_main, &s->readers[i]) != 0) {
            return BH_EIO;
        }
        s->threads++;
    }
    return BH_OK;
}

enum bh_status bh_store_create(const struct bh_store_options *options, struct bh_store **store)
{
    struct bh_store *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return BH_ENOMEM;
    }
    s->options = *options;
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    const size_t entries = options->entries_max > 0 ? options->entries_max : ENTRIES_DEFAULT;
    const size_t bytes = options->bytes_max > 0 ? options->bytes_max : BYTES_DEFAULT;
    s->box = bh_mailbox_create(entries, bytes, NULL, NULL);
    bool whole = s->box != NULL;
    for (unsigned i = 0; i < READERS; i++) {
        s->readers[i].store = s;
        s->readers[i].box = bh_mailbox_create(entries, bytes, NULL, NULL);
        whole = whole && s->readers[i].box != NULL;
    }
    const enum bh_status status = whole ? start_threads(s) : BH_ENOMEM;
    if (status != BH_OK) {
        stop_threads(s);
        destroy(s);
        return status;
    }
    *store = s;
    return BH_OK;
}

enum bh_status bh_store_write(struct bh_store *store, struct bh_store_task *task)
{
    return bh_mailbox_post(store->box, &task->letter);
}

void bh_store_write_always(struct bh_store *store, struct bh_store_task *task)
{
    bh_mailbox_post_always(store->box, &task->letter);
}

enum bh_status bh_store_read(struct bh_store *store, struct bh_store_task *task)
{
    size_t least = SIZE_MAX;
    struct reader *reader = &store->readers[0];
    for (unsigned i = 0; i < READERS; i++) {
        size_t entries;
        size_t bytes;
        bh_mailbox_load(store->readers[i].box, &entries, &bytes);
        if (entries < least) {
            least = entries;
            reader = &store->readers[i];
        }
    }
    return bh_mailbox_post(reader->box, &task->letter);
}

void bh_store_stop(struct bh_store *store)
{
    if (store != NULL) {
        stop_threads(store);
        destroy(store);
    }
}

void bh_store_stats(struct bh_store *store, struct bh_store_stats *stats)
{
    pthread_mutex_lock(&store->lock);
    *stats = store->stats;
    pthread_mutex_unlock(&store->lock);
    bh_mailbox_load(store->box, &stats->waiting, &stats->waiting_bytes);
}
