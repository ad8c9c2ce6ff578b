/* The log writer, with real files: the chain over restarts, torn lines, what is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "event_log.h"

#include "bh/audit.h"
#include "bh/event_line.h"

struct fixture {
    char path[64];
    int folder;
    struct event_log_options options;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->path, sizeof(f->path), "/tmp/bh-event-log-XXXXXX");
    if (mkdtemp(f->path) == NULL) {
        free(f);
        return -1;
    }
    f->folder = open(f->path, O_RDONLY | O_DIRECTORY);
    f->options.folder = f->path;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    close(f->folder);
    snprintf(command, sizeof(command), "rm -r %s", f->path);
    const int status = system(command); /* NOLINT(cert-env33-c): a path of ours */
    free(f);
    return status;
}

static struct event_log *start(struct fixture *f)
{
    struct event_log *log = NULL;
    assert_int_equal(event_log_create(&f->options, &log), BH_OK);
    return log;
}

static void deliver(struct event_log *log, uint64_t id)
{
    struct event event;
    event_begin(&event, 1, "delivered");
    event_id(&event, id);
    bh_json_key(&event.json, "connector");
    bh_json_cstr(&event.json, "bank");
    bh_json_key(&event.json, "auth");
    bh_json_cstr(&event.json, "name");
    event_record(log, &event);
}

static void attempt(struct event_log *log, uint64_t id)
{
    struct event event;
    event_begin(&event, 1, "attempt");
    event_id(&event, id);
    event_end(log, &event);
}

/* @param id  0: all lines, audited. @return how many lines */
static size_t read_log(const struct fixture *f, uint64_t id, struct bh_audit *audit)
{
    const struct bh_event_query query = {
        .folder = bh_slice_str(f->path), .to_unix_ms = INT64_MAX, .id = id};
    struct bh_event_reader *reader = NULL;
    struct bh_event_line line;
    struct bh_audit_finding finding;
    size_t count = 0;
    bh_audit_init(audit, BH_EMPTY, 0, UINT64_MAX);
    assert_int_equal(bh_event_reader_create(&query, &reader), BH_OK);
    for (enum bh_status status = BH_MORE; status != BH_ENOTFOUND; count += status == BH_OK) {
        bh_event_reader_allow(reader, UINT64_MAX);
        status = bh_event_reader_next(reader, &line);
        if (status == BH_OK && id == 0) {
            assert_int_equal(bh_audit_line(audit, &line, &finding), BH_OK);
        }
    }
    bh_audit_end(audit, &finding);
    bh_event_reader_destroy(reader);
    return count;
}

static int64_t hour_now(void)
{
    return (int64_t)time(NULL) * 1000 / BH_SEGMENT_MS;
}

static void a_restart_keeps_the_chain(void **state)
{
    struct fixture *f = *state;
    struct bh_audit audit;
    for (uint64_t run = 0; run < 3; run++) {
        struct event_log *log = start(f);
        for (uint64_t i = 1; i <= 50; i++) {
            attempt(log, run * 100 + i);
            deliver(log, run * 100 + i);
        }
        if (run == 1) {
            event_log_reopen(log);
        }
        deliver(log, 99);
        event_log_destroy(log);
    }
    read_log(f, 0, &audit);
    assert_true(audit.breaks == 0 && audit.crashes == 0 && audit.lost == 0);
    assert_int_equal(audit.first->delivered, 153);
    assert_true(audit.first_seq == 1 && audit.ledger.seq >= 153 + 6 + 1);
    bh_audit_fini(&audit);
    assert_int_equal(read_log(f, 99, &audit), 3);
    assert_int_equal(read_log(f, 107, &audit), 2);
}

/* The end of a killed process: no "end", and half a line. */
static void a_torn_line_is_marked(void **state)
{
    struct fixture *f = *state;
    struct bh_audit audit;
    char name[BH_SEGMENT_NAME];
    struct event_log *log = start(f);
    deliver(log, 1);
    event_log_destroy(log);
    /* Cut into the last record. */
    int64_t *hours = NULL;
    size_t count = 0;
    struct stat info;
    assert_int_equal(bh_segment_list(f->folder, 0, &hours, &count), BH_OK);
    assert_true(count > 0);
    const int fd = openat(f->folder, bh_segment_name(hours[count - 1], name), O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &info) == 0);
    assert_int_equal(ftruncate(fd, info.st_size - 40), 0);
    close(fd);
    free(hours);
    log = start(f);
    deliver(log, 2);
    event_log_destroy(log);
    read_log(f, 0, &audit);
    assert_true(audit.breaks == 0 && audit.torn == 1 && audit.crashes == 1);
    assert_int_equal(audit.first->delivered, 2);
    bh_audit_fini(&audit);
}

static void put_old_segment(const struct fixture *f, int64_t hours_ago, size_t size)
{
    char name[BH_SEGMENT_NAME];
    const int64_t hour = hour_now() - hours_ago;
    int fd = openat(f->folder, bh_segment_name(hour, name), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    close(fd);
    fd = openat(f->folder, bh_index_name(hour, name), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static size_t segments(const struct fixture *f)
{
    int64_t *hours = NULL;
    size_t count = 0;
    assert_int_equal(bh_segment_list(f->folder, 0, &hours, &count), BH_OK);
    free(hours);
    return count;
}

static void old_segments_go(void **state)
{
    struct fixture *f = *state;
    char name[BH_SEGMENT_NAME];
    put_old_segment(f, 100, 10);
    put_old_segment(f, 50, 10);
    put_old_segment(f, 3, 10);
    f->options.keep_ms = (uint64_t)60 * BH_SEGMENT_MS;
    event_log_destroy(start(f));
    assert_int_equal(segments(f), 3); /* two, and the one of now */
    assert_int_equal(faccessat(f->folder, bh_index_name(hour_now() - 100, name), F_OK, 0), -1);
    /* By size: all but the current one, however large that is. */
    f->options.keep_ms = 0;
    f->options.size_max = 5;
    event_log_destroy(start(f));
    assert_true(segments(f) <= 2); /* one, unless the hour turned just now */
    struct bh_audit audit;
    read_log(f, 0, &audit);
    assert_int_equal(audit.breaks, 0);
    bh_audit_fini(&audit);
}

/* The writer says nothing of its state: its file has not grown for a while. */
static void wait_until_full(const struct fixture *f, off_t least)
{
    off_t last = 0;
    for (int still = 0, i = 0; still < 20 && i < 2000; i++) {
        char name[BH_SEGMENT_NAME];
        struct stat info = {0};
        int64_t *hours = NULL;
        size_t count = 0;
        assert_int_equal(bh_segment_list(f->folder, 0, &hours, &count), BH_OK);
        if (count > 0) {
            (void)fstatat(f->folder, bh_segment_name(hours[count - 1], name), &info, 0);
        }
        free(hours);
        still = info.st_size >= least && info.st_size == last ? still + 1 : 0;
        last = info.st_size;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    assert_true(last >= least);
}

/* A disk that takes nothing for a while: records wait and follow whole, events are dropped and
 * counted in the next record. The bound of a file's size stands in for the disk. */
static void a_full_disk_loses_no_record(void **state)
{
    struct fixture *f = *state;
    struct bh_audit audit;
    struct rlimit before;
    struct event_log *log = start(f);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    deliver(log, 1);
    const struct rlimit small = {.rlim_cur = 4000, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (uint64_t i = 2; i <= 200; i++) {
        deliver(log, i);
        attempt(log, i);
    }
    wait_until_full(f, 3700);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    deliver(log, 201);
    event_log_destroy(log);
    read_log(f, 0, &audit);
    assert_true(audit.breaks == 0 && audit.lost == 0);
    assert_int_equal(audit.first->delivered, 201);
    assert_true(audit.dropped > 0);
    bh_audit_fini(&audit);
}

/* Of the whole process. */
static unsigned long long writes_so_far(void)
{
    unsigned long long count = 0;
    char line[128];
    FILE *io = fopen("/proc/self/io", "r");
    assert_non_null(io);
    while (fgets(line, sizeof(line), io) != NULL) {
        if (strncmp(line, "syscw: ", 7) == 0) {
            count = strtoull(line + 7, NULL, 10);
        }
    }
    fclose(io);
    return count;
}

/* A system call for each line cost the CPU of a tenth of a message. */
static void lines_are_written_together(void **state)
{
    struct fixture *f = *state;
    struct bh_audit audit;
    struct event_log *log = start(f);
    const unsigned long long before = writes_so_far();
    for (uint64_t i = 1; i <= 5000; i++) {
        attempt(log, i);
        deliver(log, i);
    }
    event_log_destroy(log);
    assert_in_range(writes_so_far() - before, 1, 2000);
    read_log(f, 0, &audit);
    assert_true(audit.breaks == 0 && audit.lost == 0 && audit.dropped == 0);
    assert_int_equal(audit.first->delivered, 5000);
    bh_audit_fini(&audit);
    assert_int_equal(read_log(f, 4711, &audit), 2); /* by the index */
}

static void no_folder_is_no_log(void **state)
{
    struct event_log *log = NULL;
    const struct event_log_options none = {.folder = NULL};
    (void)state;
    assert_int_equal(event_log_create(&none, &log), BH_OK);
    assert_null(log);
    deliver(log, 1);
    attempt(log, 1);
    event_log_reopen(log);
    event_log_destroy(log);
    const struct event_log_options missing = {.folder = "/proc/nothing/here"};
    assert_int_equal(event_log_create(&missing, &log), BH_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_restart_keeps_the_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(a_torn_line_is_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(old_segments_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_no_record, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_are_written_together, setup, teardown),
        cmocka_unit_test(no_folder_is_no_log),
    };
    return cmocka_run_group_tests_name("event_log", tests, NULL, NULL);
}
