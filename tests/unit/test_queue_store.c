/* The store's threads: group commit, what becomes of it when the disk is full or a commit fails,
 * and readers. Over the store in memory; run under the thread sanitizer too. */
#include "queue_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "bh/map.h"
#include "bh/store.h"

struct world {
    struct bh_kv *kv;
    struct bh_queue *q;
    struct bh_store *store;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned done;
    atomic_uint idle_calls;
    atomic_int failed_with;
};

enum task_kind { PUT, REMOVE, READ, FAIL };

struct job {
    struct bh_store_task task;
    struct world *world;
    enum task_kind what;
    size_t size;
    enum bh_status fail_with;
    bool write_first;
    struct bh_queue_key key; /* of what was put; of what to remove */
    enum bh_status status;
    uint64_t messages; /* READ */
    unsigned order;    /* when it was done */
};

static enum bh_status run(struct bh_store_task *task, struct bh_queue *q, struct bh_kv_txn *txn)
{
    struct job *job = BH_CONTAINER(task, struct job, task);
    struct bh_arena arena;
    bh_arena_init(&arena, 1 << 20);
    enum bh_status status = BH_OK;
    struct bh_queue_put_result put;
    if (job->what == PUT || job->write_first) {
        status = fixture_put(q, txn, "a@here.test", "d.test", 1, job->size, BH_HINT_ENTRY,
                             fixture_now(FIXTURE_NOW), &arena, &put);
        if (status == BH_OK) {
            job->key = (struct bh_queue_key){
                .destination = put.parts[0].destination, .id = put.id, .part = put.parts[0].part};
        }
    }
    if (job->what == FAIL) {
        status = job->fail_with;
    } else if (job->what == REMOVE) {
        const struct bh_queue_notifier notifier = {.now = fixture_now(FIXTURE_NOW)};
        const struct bh_settle_recipient delivered = {.verdict = BH_VERDICT_DELIVERED};
        const struct bh_settle settle = {
            .key = job->key, .recipients = &delivered, .recipient_count = 1};
        struct bh_settle_result result;
        status = bh_queue_settle(q, txn, &settle, &notifier, &result);
    } else if (job->what == READ) {
        assert_null(q);
        job->messages = fixture_check_txn(txn).messages;
    }
    bh_arena_fini(&arena);
    return status;
}

static void done(struct bh_store_task *task, enum bh_status status)
{
    struct job *job = BH_CONTAINER(task, struct job, task);
    struct world *w = job->world;
    pthread_mutex_lock(&w->lock);
    job->status = status;
    job->order = ++w->done;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void wait_done(struct world *w, unsigned count)
{
    pthread_mutex_lock(&w->lock);
    while (w->done < count) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

static enum bh_status on_idle(void *ctx)
{
    struct world *w = ctx;
    atomic_fetch_add(&w->idle_calls, 1);
    return BH_OK;
}

static void on_failed(void *ctx, enum bh_status status)
{
    struct world *w = ctx;
    atomic_store(&w->failed_with, (int)status);
}

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    *state = w;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->kv = bh_kv_memory_create((size_t)64 << 20, 1 << 20);
    w->q = fixture_open(w->kv);
    const struct bh_store_options options = {
        .kv = w->kv, .queue = w->q, .idle = on_idle, .failed = on_failed, .ctx = w};
    return bh_store_create(&options, &w->store) != BH_OK;
}

static void stop(struct world *w)
{
    bh_store_stop(w->store);
    w->store = NULL;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    stop(w);
    bh_kv_memory_set_fault(w->kv, NULL, NULL);
    fixture_check(w->kv);
    bh_queue_destroy(w->q);
    bh_kv_close(w->kv);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return 0;
}

static void prepare(struct world *w, struct job *job, enum task_kind what, size_t size)
{
    *job = (struct job){.world = w, .what = what, .size = size};
    job->task.run = run;
    job->task.done = done;
    job->task.dirty_bytes = size;
    job->task.urgent = what == PUT;
    job->task.removal = what == REMOVE;
}

static void post(struct world *w, struct job *job)
{
    assert_int_equal(bh_store_write(w->store, &job->task), BH_OK);
}

#define JOBS 300
static struct job jobs[JOBS];

struct poster {
    struct world *world;
    struct job *jobs;
    size_t count;
};

static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (size_t i = 0; i < p->count; i++) {
        if (bh_store_write(p->world->store, &p->jobs[i].task) != BH_OK) {
            abort();
        }
    }
    return NULL;
}

static void many_posters_share_commits(void **state)
{
    struct world *w = *state;
    struct poster posters[3];
    pthread_t threads[3];
    for (size_t i = 0; i < JOBS; i++) {
        prepare(w, &jobs[i], PUT, 100 + i);
    }
    for (size_t t = 0; t < 3; t++) {
        posters[t] = (struct poster){.world = w, .jobs = jobs + t * 100, .count = 100};
        assert_int_equal(pthread_create(&threads[t], NULL, post_all, &posters[t]), 0);
    }
    struct job reads[4];
    for (size_t i = 0; i < BH_COUNT(reads); i++) {
        prepare(w, &reads[i], READ, 0);
        assert_int_equal(bh_store_read(w->store, &reads[i].task), BH_OK);
    }
    for (size_t t = 0; t < 3; t++) {
        pthread_join(threads[t], NULL);
    }
    wait_done(w, JOBS + BH_COUNT(reads));
    for (size_t i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].status, BH_OK);
        /* In the order of their posts: acknowledged so, and numbered so. */
        assert_true(i % 100 == 0 ||
                    (jobs[i].order > jobs[i - 1].order && jobs[i].key.id > jobs[i - 1].key.id));
    }
    for (size_t i = 0; i < BH_COUNT(reads); i++) {
        assert_int_equal(reads[i].status, BH_OK);
    }
    struct bh_store_stats stats;
    bh_store_stats(w->store, &stats);
    assert_int_equal(stats.tasks, JOBS);
    assert_true(stats.commits >= 1 && stats.commits <= JOBS);
    stop(w);
    assert_int_equal(fixture_check(w->kv).messages, JOBS);
}

static void a_removal_is_done_without_company(void **state)
{
    struct world *w = *state;
    prepare(w, &jobs[0], PUT, 100);
    post(w, &jobs[0]);
    wait_done(w, 1);
    prepare(w, &jobs[1], REMOVE, 0);
    jobs[1].key = jobs[0].key;
    bh_store_write_always(w->store, &jobs[1].task);
    wait_done(w, 2);
    assert_int_equal(jobs[1].status, BH_OK);
    stop(w);
    assert_int_equal(fixture_check(w->kv).messages, 0);
}

static void a_failure_is_its_own(void **state)
{
    struct world *w = *state;
    static const struct {
        enum bh_status with;
        bool write_first;
        bool atomic;
    } cases[] = {{BH_ENOTFOUND, false, false},
                 {BH_EINVAL, true, true},
                 {BH_ENOMEM, true, false},
                 {BH_ECORRUPT, true, true},
                 {BH_ENOMEM, false, true}};
    /* All at once, among puts: only what fails fails, and leaves nothing. */
    unsigned posted = 0;
    for (size_t i = 0; i < BH_COUNT(cases) * 2; i++) {
        prepare(w, &jobs[i], i % 2 == 0 ? PUT : FAIL, 50);
        jobs[i].fail_with = cases[i / 2].with;
        jobs[i].write_first = cases[i / 2].write_first;
        jobs[i].task.atomic = cases[i / 2].atomic;
        post(w, &jobs[i]);
        posted++;
    }
    wait_done(w, posted);
    for (size_t i = 0; i < posted; i++) {
        assert_int_equal(jobs[i].status, i % 2 == 0 ? BH_OK : cases[i / 2].with);
    }
    stop(w);
    assert_int_equal(fixture_check(w->kv).messages, BH_COUNT(cases));
}

static void full_refuses_mail_and_takes_removals(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 20; i++) {
        prepare(w, &jobs[i], PUT, 30000);
        post(w, &jobs[i]);
    }
    wait_done(w, 20);
    /* Somebody fills the disk: one more message of this size fits, no two. */
    bh_kv_memory_set_max(w->kv, bh_kv_memory_bytes(w->kv) + (1 << 20) + 40000);
    for (size_t i = 20; i < 40; i++) {
        const bool removal = i % 2 == 0 && i < 30;
        prepare(w, &jobs[i], removal ? REMOVE : PUT, 30000);
        jobs[i].key = jobs[i - 20].key;
        post(w, &jobs[i]);
    }
    wait_done(w, 40);
    unsigned stored = 0;
    unsigned refused = 0;
    for (size_t i = 20; i < 40; i++) {
        if (jobs[i].what == REMOVE) {
            assert_int_equal(jobs[i].status, BH_OK);
        } else {
            assert_true(jobs[i].status == BH_OK || jobs[i].status == BH_EFULL);
            stored += jobs[i].status == BH_OK ? 1 : 0;
            refused += jobs[i].status == BH_EFULL ? 1 : 0;
        }
    }
    /* Five went, so six fit. */
    assert_int_equal(stored, 6);
    assert_int_equal(refused, 9);
    /* Room again, mail again. */
    bh_kv_memory_set_max(w->kv, (size_t)64 << 20);
    prepare(w, &jobs[40], PUT, 30000);
    post(w, &jobs[40]);
    wait_done(w, 41);
    assert_int_equal(jobs[40].status, BH_OK);
    stop(w);
    assert_int_equal(fixture_check(w->kv).messages, 22);
    assert_int_equal(atomic_load(&w->failed_with), 0);
}

static enum bh_status fail_commit(void *ctx, enum bh_kv_step step)
{
    (void)ctx;
    return step == BH_KV_STEP_COMMIT ? BH_EIO : BH_OK;
}

static void a_failed_commit_stops_the_store(void **state)
{
    struct world *w = *state;
    prepare(w, &jobs[0], PUT, 100);
    post(w, &jobs[0]);
    wait_done(w, 1);
    stop(w);
    bh_kv_memory_set_fault(w->kv, fail_commit, NULL);
    const struct bh_store_options options = {
        .kv = w->kv, .queue = w->q, .failed = on_failed, .ctx = w};
    assert_int_equal(bh_store_create(&options, &w->store), BH_OK);
    for (size_t i = 1; i < 5; i++) {
        prepare(w, &jobs[i], PUT, 100);
        post(w, &jobs[i]);
    }
    wait_done(w, 5);
    for (size_t i = 1; i < 5; i++) {
        assert_int_equal(jobs[i].status, BH_EIO);
    }
    assert_int_equal(atomic_load(&w->failed_with), BH_EIO);
    struct bh_store_stats stats;
    bh_store_stats(w->store, &stats);
    assert_true(stats.stopped);
    stop(w);
    assert_int_equal(fixture_check(w->kv).messages, 1);
}

static enum bh_status fail_third_commit(void *ctx, enum bh_kv_step step)
{
    unsigned *commits = ctx;
    return step == BH_KV_STEP_COMMIT && ++*commits > 2 ? BH_EIO : BH_OK;
}

/* Full, so one by one, and then the store fails: what was stored before is not refused, or its
 * client would send it again. */
static void what_was_committed_is_told_so(void **state)
{
    struct world *w = *state;
    stop(w);
    unsigned commits = 0;
    bh_kv_memory_set_max(w->kv, bh_kv_memory_bytes(w->kv) + (1 << 20) + 200000);
    bh_kv_memory_set_fault(w->kv, fail_third_commit, &commits);
    const struct bh_store_options options = {
        .kv = w->kv, .queue = w->q, .failed = on_failed, .ctx = w};
    assert_int_equal(bh_store_create(&options, &w->store), BH_OK);
    for (size_t i = 0; i < 20; i++) {
        prepare(w, &jobs[i], PUT, 30000);
        jobs[i].task.urgent = i == 19; /* the others wait for it: one group */
        post(w, &jobs[i]);
    }
    wait_done(w, 20);
    stop(w);
    assert_int_equal(atomic_load(&w->failed_with), BH_EIO);
    unsigned told = 0;
    for (size_t i = 0; i < 20; i++) {
        assert_true(jobs[i].status == BH_OK || jobs[i].status == BH_EIO);
        told += jobs[i].status == BH_OK ? 1 : 0;
    }
    bh_kv_memory_set_fault(w->kv, NULL, NULL);
    assert_int_equal(told, fixture_check(w->kv).messages);
    assert_int_equal(told, 2);
}

static enum bh_status lack_memory(void *ctx, enum bh_kv_step step)
{
    const enum bh_kv_step *where = ctx;
    return step == *where ? BH_ENOMEM : BH_OK;
}

/* Nothing of the group was committed, whoever waits hears so, and the store goes on. */
static void want_of_memory_fails_the_group_alone(void **state)
{
    struct world *w = *state;
    static const enum bh_kv_step steps[] = {BH_KV_STEP_BEGIN, BH_KV_STEP_COMMIT};
    stop(w);
    for (size_t i = 0; i < BH_COUNT(steps); i++) {
        enum bh_kv_step where = steps[i];
        const unsigned before = w->done;
        bh_kv_memory_set_fault(w->kv, lack_memory, &where);
        const struct bh_store_options options = {
            .kv = w->kv, .queue = w->q, .failed = on_failed, .ctx = w};
        assert_int_equal(bh_store_create(&options, &w->store), BH_OK);
        for (size_t k = 0; k < 3; k++) {
            prepare(w, &jobs[k], PUT, 100);
            jobs[k].task.atomic = k == 1;
            post(w, &jobs[k]);
        }
        wait_done(w, before + 3);
        for (size_t k = 0; k < 3; k++) {
            assert_int_equal(jobs[k].status, BH_ENOMEM);
        }
        stop(w);
        bh_kv_memory_set_fault(w->kv, NULL, NULL);
        assert_int_equal(fixture_check(w->kv).messages, i);
        assert_int_equal(bh_store_create(&options, &w->store), BH_OK);
        prepare(w, &jobs[3], PUT, 100);
        post(w, &jobs[3]);
        wait_done(w, before + 4);
        assert_int_equal(jobs[3].status, BH_OK);
        stop(w);
    }
    assert_int_equal(atomic_load(&w->failed_with), 0);
}

static void stopping_finishes_what_was_posted(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 100; i++) {
        prepare(w, &jobs[i], PUT, 10);
        jobs[i].task.urgent = false;
        post(w, &jobs[i]);
    }
    stop(w);
    assert_int_equal(w->done, 100);
    assert_int_equal(fixture_check(w->kv).messages, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_posters_share_commits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_removal_is_done_without_company, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failure_is_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(full_refuses_mail_and_takes_removals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_commit_stops_the_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_committed_is_told_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(want_of_memory_fails_the_group_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stopping_finishes_what_was_posted, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("queue_store", tests, NULL, NULL);
}
