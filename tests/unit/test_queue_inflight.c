/* The in-flight file: what a process that was killed leaves is what the next one reads. */
#include "queue_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bh/inflight.h"

static char path[64];

static int set_up(void **unused)
{
    (void)unused;
    snprintf(path, sizeof(path), "/tmp/bh-inflight-XXXXXX");
    const int fd = mkstemp(path);
    return fd < 0 || close(fd) != 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    return unlink(path);
}

static struct bh_inflight *open_file(uint32_t slots, uint32_t threads)
{
    struct bh_inflight *f = NULL;
    assert_int_equal(bh_inflight_open(path, slots, threads, &f), BH_OK);
    return f;
}

static struct bh_inflight_slot leased(uint64_t id)
{
    return (struct bh_inflight_slot){.state = BH_INFLIGHT_LEASED,
                                     .key = {.destination = 7, .id = id, .part = 3},
                                     .mask = {5, UINT64_C(1) << 35}};
}

/* Runs in the child that is killed. */
static void die_in_flight(void)
{
    struct bh_inflight *f = NULL;
    if (bh_inflight_open(path, 4, 2, &f) != BH_OK || bh_inflight_clear(f) != BH_OK) {
        _exit(1);
    }
    for (uint64_t id = 1; id <= 3; id++) {
        const struct bh_inflight_slot slot = leased(id);
        const uint32_t at = bh_inflight_take(f);
        bh_inflight_set(f, at, &slot);
        if (id == 2) {
            bh_inflight_dot_sent(f, at);
        } else if (id == 3) {
            bh_inflight_dot_sent(f, at);
            bh_inflight_release(f, at);
        }
    }
    (void)bh_inflight_take(f); /* taken, never set */
    bh_inflight_handling(f, 1, BH_HANDLING_SEND, 42);
    bh_inflight_handling(f, 0, BH_HANDLING_READ, 41);
    bh_inflight_handling(f, 0, BH_HANDLING_NOTHING, 0);
    kill(getpid(), SIGKILL);
}

static void what_was_in_flight_survives(void **unused)
{
    (void)unused;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        die_in_flight();
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));

    /* Read, and read again: it stays until it is cleared. Another number of slots is fine. */
    for (int round = 0; round < 2; round++) {
        struct bh_inflight *f = open_file(100, 8);
        size_t count;
        const struct bh_inflight_slot *left = bh_inflight_left(f, &count);
        assert_int_equal(count, 2);
        assert_int_equal(left[0].state, BH_INFLIGHT_LEASED);
        assert_int_equal(left[0].key.id, 1);
        assert_int_equal(left[1].state, BH_INFLIGHT_DOT_SENT);
        assert_int_equal(left[1].key.id, 2);
        assert_int_equal(left[1].key.part, 3);
        assert_true(left[1].mask[0] == 5 && left[1].mask[1] == UINT64_C(1) << 35);
        const struct bh_handling *handling = bh_inflight_left_handling(f, &count);
        assert_int_equal(count, 1);
        assert_int_equal(handling[0].step, BH_HANDLING_SEND);
        assert_int_equal(handling[0].id, 42);
        assert_int_equal(handling[0].blame, BH_BLAME_MAYBE); /* killed: nobody knows */
        if (round == 1) {
            assert_int_equal(bh_inflight_clear(f), BH_OK);
        }
        bh_inflight_close(f);
    }
    struct bh_inflight *f = open_file(100, 8);
    size_t count;
    bh_inflight_left(f, &count);
    assert_int_equal(count, 0);
    bh_inflight_left_handling(f, &count);
    assert_int_equal(count, 0);
    bh_inflight_close(f);
}

/* A thread that handles a message, and dies of it if told to. */
struct handler {
    struct bh_inflight *f;
    uint32_t number;
    bool dies;
};

static void *handle(void *ctx)
{
    const struct handler *h = ctx;
    bh_inflight_handling(h->f, h->number, BH_HANDLING_RECEIVE, 50 + h->number);
    if (h->dies) {
        bh_inflight_dying(h->f, BH_DEATH_OWN);
    }
    return NULL;
}

static void who_ends_the_process_is_known(void **unused)
{
    (void)unused;
    /* Of three threads the second dies; one without a number does; a watchdog ends it. */
    static const struct {
        uint32_t dies;
        enum bh_death death;
        enum bh_blame blame[3];
    } cases[] = {{1, BH_DEATH_OWN, {BH_BLAME_NOT, BH_BLAME_LIKELY, BH_BLAME_NOT}},
                 {9, BH_DEATH_OWN, {BH_BLAME_MAYBE, BH_BLAME_MAYBE, BH_BLAME_MAYBE}},
                 {9, BH_DEATH_HUNG, {BH_BLAME_LIKELY, BH_BLAME_LIKELY, BH_BLAME_LIKELY}}};
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_inflight *f = open_file(2, 3);
        bh_inflight_dying(f, BH_DEATH_OWN); /* too early to be noted */
        assert_int_equal(bh_inflight_clear(f), BH_OK);
        for (uint32_t number = 0; number < 3; number++) {
            pthread_t thread;
            struct handler h = {f, number, number == cases[i].dies};
            assert_int_equal(pthread_create(&thread, NULL, handle, &h), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
        }
        bh_inflight_dying(f, cases[i].death); /* the first note counts */
        bh_inflight_close(f);
        f = open_file(2, 3);
        size_t count;
        const struct bh_handling *left = bh_inflight_left_handling(f, &count);
        assert_int_equal(count, 3);
        for (size_t k = 0; k < 3; k++) {
            assert_int_equal(left[k].id, 50 + k);
            assert_int_equal(left[k].blame, cases[i].blame[k]);
        }
        assert_int_equal(bh_inflight_clear(f), BH_OK);
        bh_inflight_close(f);
    }
}

static void slots_are_given_once_and_run_out(void **unused)
{
    (void)unused;
    struct bh_inflight *f = open_file(3, 1);
    assert_int_equal(bh_inflight_clear(f), BH_OK);
    bool given[3] = {false};
    for (int i = 0; i < 3; i++) {
        const uint32_t at = bh_inflight_take(f);
        assert_true(at < 3 && !given[at]);
        given[at] = true;
    }
    assert_int_equal(bh_inflight_take(f), UINT32_MAX);
    bh_inflight_release(f, 1);
    assert_int_equal(bh_inflight_take(f), 1);
    bh_inflight_close(f);
}

static void other_files_say_nothing(void **unused)
{
    (void)unused;
    static const char *const contents[] = {"", "something else altogether, and longer than a slot, "
                                               "so that there is a whole header to misread"};
    for (size_t i = 0; i < BH_COUNT(contents); i++) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(contents[i], file);
        fclose(file);
        struct bh_inflight *f = open_file(4, 4);
        size_t count;
        bh_inflight_left(f, &count);
        assert_int_equal(count, 0);
        bh_inflight_close(f);
    }
    struct bh_inflight *f = NULL;
    assert_int_equal(bh_inflight_open(path, 0, 1, &f), BH_EINVAL);
    assert_int_equal(bh_inflight_open("/nonexistent/inflight", 1, 1, &f), BH_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_in_flight_survives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_ends_the_process_is_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slots_are_given_once_and_run_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_files_say_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("queue_inflight", tests, NULL, NULL);
}
