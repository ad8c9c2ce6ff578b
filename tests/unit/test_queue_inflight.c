/* The in-flight file: what a process that was killed leaves is what the next one reads. */
#include "queue_fixture.h"

#include <fcntl.h>
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
        cmocka_unit_test_setup_teardown(slots_are_given_once_and_run_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_files_say_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("queue_inflight", tests, NULL, NULL);
}
