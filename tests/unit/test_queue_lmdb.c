#define _XOPEN_SOURCE 700 /* nftw, mkdtemp */
/* The queue over LMDB in a folder of its own: durable, locked, and whole after kill -9. */
#include "queue_fixture.h"

#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bh/kv_lmdb.h"
#include "bh/rng.h"

static char folder[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int make_folder(void **unused)
{
    (void)unused;
    snprintf(folder, sizeof(folder), "/tmp/bh-queue-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **unused)
{
    (void)unused;
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static enum bh_status try_open(const char *path, bool read_only, size_t size, struct bh_kv **kv,
                               char *error)
{
    const struct bh_kv_lmdb_options options = {
        .path = path, .size_max = size, .read_only = read_only, .reserve = (size_t)4 << 20};
    return bh_kv_lmdb_open(&options, kv, error, 300);
}

static struct bh_kv *open_kv(size_t size)
{
    struct bh_kv *kv = NULL;
    char error[300] = "";
    if (try_open(folder, false, size, &kv, error) != BH_OK) {
        fail_msg("%s", error);
    }
    return kv;
}

#define SIZE ((size_t)64 << 20)

static bool exists(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* A process that died while it made the file leaves new.mdb, in any state; the file that is there
 * in the end is whole, and a tool that comes first can read it. */
static void an_unfinished_file_is_begun_anew(void **unused)
{
    (void)unused;
    char path[128];
    snprintf(path, sizeof(path), "%s/new.mdb", folder);
    FILE *left = fopen(path, "w");
    assert_non_null(left);
    assert_int_equal(fwrite(path, 1, sizeof(path), left), sizeof(path));
    assert_int_equal(fclose(left), 0);
    struct bh_kv *kv = open_kv(SIZE);
    bh_kv_close(kv);
    assert_true(exists("data.mdb"));
    assert_false(exists("new.mdb"));
    assert_false(exists("new.mdb-lock"));
    char error[300] = "";
    assert_int_equal(try_open(folder, true, SIZE, &kv, error), BH_OK);
    bh_kv_close(kv);
}

static void put_some(struct bh_queue *q, const char *domain, enum bh_lane_hint hint, size_t size)
{
    struct bh_arena arena;
    bh_arena_init(&arena, 1 << 20);
    struct bh_kv_txn *txn;
    struct bh_queue_put_result result;
    assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
    assert_int_equal(fixture_put(q, txn, "a@here.test", domain, 3, size, hint,
                                 fixture_now(FIXTURE_NOW), &arena, &result),
                     BH_OK);
    assert_int_equal(bh_queue_commit(q, txn), BH_OK);
    bh_arena_fini(&arena);
}

static void mail_is_there_after_reopening(void **unused)
{
    (void)unused;
    struct bh_kv *kv = open_kv(SIZE);
    struct bh_queue *q = fixture_open(kv);
    put_some(q, "one.test", BH_HINT_FRESH_OK, 100);
    put_some(q, "two.test", BH_HINT_ENTRY, 50000);
    bh_queue_destroy(q);
    bh_kv_close(kv);
    kv = open_kv(SIZE);
    q = fixture_open(kv);
    const struct bh_queue_check_result result = fixture_check(kv);
    assert_int_equal(result.messages, 2);
    assert_int_equal(result.entries, 2);
    assert_int_equal(result.fresh, 1);
    assert_int_equal(result.recipients, 6);
    assert_int_equal(result.content_bytes, 50100);
    assert_int_equal(bh_queue_fresh_count(q), 1);
    assert_int_equal(bh_kv_lmdb_upkeep(kv), BH_OK);
    struct bh_kv_lmdb_usage usage;
    assert_int_equal(bh_kv_lmdb_usage(kv, &usage), BH_OK);
    assert_true(usage.file_bytes > 50000 && usage.file_bytes < usage.map_bytes);
    bh_queue_destroy(q);
    bh_kv_close(kv);
}

static void a_second_opening_is_refused(void **unused)
{
    (void)unused;
    struct bh_kv *kv = open_kv(SIZE);
    struct bh_kv *second = NULL;
    char error[300] = "";
    assert_int_equal(try_open(folder, false, SIZE, &second, error), BH_EBUSY);
    assert_int_equal(try_open(folder, true, 0, &second, error), BH_EBUSY);
    /* Another process: refused to write, free to read. */
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_queue_lmdb", "--try-open", folder, (char *)NULL);
        _exit(99);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    bh_kv_close(kv);
}

/* In a process of its own, beside one that has the queue open. */
static int try_open_beside(const char *path)
{
    struct bh_kv *kv = NULL;
    char error[300] = "";
    if (try_open(path, false, SIZE, &kv, error) != BH_EBUSY || strstr(error, path) == NULL) {
        return 1;
    }
    if (try_open(path, true, 0, &kv, error) != BH_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    bh_kv_close(kv);
    return 0;
}

static void what_cannot_be_opened_says_why(void **unused)
{
    (void)unused;
    struct bh_kv *kv = NULL;
    char error[300] = "";
    char path[100];
    snprintf(path, sizeof(path), "%s/none", folder);
    assert_int_equal(try_open(path, true, 0, &kv, error), BH_ENOTFOUND);
    assert_non_null(strstr(error, path));
    assert_int_equal(try_open(folder, false, 1 << 20, &kv, error), BH_EINVAL);
    snprintf(path, sizeof(path), "%s/data.mdb", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 10000; i++) {
        fputs("this is not a queue ", file);
    }
    fclose(file);
    assert_int_equal(try_open(folder, false, SIZE, &kv, error), BH_ECORRUPT);
    assert_string_equal(bh_kv_lmdb_network_fs(0x6969), "nfs");
    assert_string_equal(bh_kv_lmdb_network_fs(0xff534d42), "cifs");
    assert_null(bh_kv_lmdb_network_fs(0xef53)); /* ext4 */
}

static void a_newer_schema_is_refused(void **unused)
{
    (void)unused;
    struct bh_kv *kv = open_kv(SIZE);
    bh_queue_destroy(fixture_open(kv));
    struct bh_kv_txn *txn;
    assert_int_equal(bh_kv_begin(kv, BH_KV_WRITE, NULL, &txn), BH_OK);
    const char version[8] = {0, 0, 0, 0, 0, 0, 0, 2};
    assert_int_equal(
        bh_kv_put(txn, BH_KV_META, BH_LIT("schema"), bh_slice(version, sizeof(version)), 0), BH_OK);
    assert_int_equal(bh_kv_commit(txn), BH_OK);
    struct bh_queue *q = NULL;
    char error[300] = "";
    const struct bh_queue_limits limits = {0};
    assert_int_equal(bh_queue_open(kv, &limits, &q, error, sizeof(error)), BH_EVERSION);
    assert_non_null(strstr(error, "newer version"));
    bh_kv_close(kv);
}

/* The map runs full: new mail is refused before removals are; after them mail fits again. */
static void a_full_map_still_removes(void **unused)
{
    (void)unused;
    struct bh_kv *kv = open_kv((size_t)16 << 20);
    struct bh_queue *q = fixture_open(kv);
    struct bh_arena arena;
    bh_arena_init(&arena, 64 << 20);
    struct bh_queue_put_result results[2000];
    size_t count = 0;
    enum bh_status status = BH_OK;
    while (status == BH_OK && count < 2000) {
        struct bh_kv_txn *txn;
        assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
        status = fixture_put(q, txn, "a@here.test", "full.test", 1, 40000, BH_HINT_ENTRY,
                             fixture_now(FIXTURE_NOW), &arena, &results[count]);
        if (status == BH_OK) {
            assert_int_equal(bh_queue_commit(q, txn), BH_OK);
            count++;
        } else {
            bh_queue_abort(q, txn);
        }
    }
    assert_int_equal(status, BH_EFULL);
    assert_true(count > 50);
    assert_false(bh_kv_lmdb_has_room(kv));
    fixture_check(kv);
    const struct bh_queue_notifier notifier = {.now = fixture_now(FIXTURE_NOW)};
    for (size_t i = 0; i < count; i++) {
        const struct bh_settle_recipient delivered = {.verdict = BH_VERDICT_DELIVERED,
                                                      .tried = true};
        const struct bh_settle settle = {.key = {.destination = results[i].parts[0].destination,
                                                 .id = results[i].id,
                                                 .part = results[i].parts[0].part},
                                         .lane = BH_LANE_ENTRY,
                                         .recipients = &delivered,
                                         .recipient_count = 1};
        struct bh_settle_result result;
        struct bh_kv_txn *txn;
        assert_int_equal(bh_queue_begin(q, NULL, &txn), BH_OK);
        assert_int_equal(bh_queue_settle(q, txn, &settle, &notifier, &result), BH_OK);
        assert_true(result.message_gone);
        assert_int_equal(bh_queue_commit(q, txn), BH_OK);
        if (i == 10) { /* Room for some, but with a margin of a MiB that is not enough. */
            put_some(q, "again.test", BH_HINT_ENTRY, 40000);
            assert_false(bh_kv_lmdb_has_room(kv));
        }
    }
    assert_true(bh_kv_lmdb_has_room(kv));
    put_some(q, "again.test", BH_HINT_ENTRY, 40000);
    const struct bh_queue_check_result result = fixture_check(kv);
    assert_int_equal(result.messages, 2);
    bh_arena_fini(&arena);
    bh_queue_destroy(q);
    bh_kv_close(kv);
}

/* ---- kill -9 ---- */

/* Puts until it is killed, and says each id once its commit has returned. */
static int put_until_killed(const char *path, int to)
{
    snprintf(folder, sizeof(folder), "%s", path);
    struct bh_kv *kv = open_kv(SIZE);
    struct bh_queue *q = fixture_open(kv);
    struct bh_arena arena;
    bh_arena_init(&arena, 1 << 20);
    for (unsigned n = 0;; n++) {
        struct bh_kv_txn *txn;
        uint64_t ids[4];
        bh_arena_reset(&arena);
        if (bh_queue_begin(q, NULL, &txn) != BH_OK) {
            return 1;
        }
        for (unsigned i = 0; i < 4; i++) {
            struct bh_queue_put_result result;
            if (fixture_put(q, txn, "a@here.test", i % 2 == 0 ? "x.test" : "y.test", 2, 3000 * i,
                            n % 2 == 0 ? BH_HINT_FRESH_OK : BH_HINT_ENTRY,
                            fixture_now(FIXTURE_NOW + n), &arena, &result) != BH_OK) {
                return 2;
            }
            ids[i] = result.id;
        }
        if (bh_queue_commit(q, txn) != BH_OK ||
            write(to, ids, sizeof(ids)) != (ssize_t)sizeof(ids)) {
            return 3;
        }
    }
}

/* Kill the child after some acknowledgements. @return how many ids it acknowledged */
static size_t kill_a_child(uint64_t *ids, size_t ids_max, size_t enough)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char fd[16];
        snprintf(fd, sizeof(fd), "%d", ends[1]);
        close(ends[0]);
        execl("/proc/self/exe", "test_queue_lmdb", "--put", folder, fd, (char *)NULL);
        _exit(99);
    }
    close(ends[1]);
    size_t octets = 0;
    ssize_t got = 1;
    while (octets < enough * sizeof(*ids) && got > 0) {
        got = read(ends[0], (char *)ids + octets, ids_max * sizeof(*ids) - octets);
        octets += got > 0 ? (size_t)got : 0;
    }
    kill(child, SIGKILL);
    do { /* acknowledged before it died */
        got = read(ends[0], (char *)ids + octets, ids_max * sizeof(*ids) - octets);
        octets += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    return octets / sizeof(*ids);
}

static void kill_9_loses_nothing_acknowledged(void **unused)
{
    (void)unused;
    static uint64_t ids[20000];
    size_t total = 0;
    struct bh_rng rng;
    bh_rng_seed(&rng, 9);
    for (int round = 0; round < 6; round++) {
        total += kill_a_child(ids + total, BH_COUNT(ids) - total, 4 + bh_rng_below(&rng, 60));
        struct bh_kv *kv = open_kv(SIZE);
        bh_queue_destroy(fixture_open(kv));
        fixture_check(kv);
        struct bh_kv_txn *txn;
        struct bh_arena arena;
        bh_arena_init(&arena, 1 << 20);
        assert_int_equal(bh_kv_begin(kv, BH_KV_READ, NULL, &txn), BH_OK);
        for (size_t i = 0; i < total; i++) {
            struct bh_message message;
            bh_arena_reset(&arena);
            assert_int_equal(bh_queue_read_message(txn, ids[i], &arena, &message), BH_OK);
            assert_true(i == 0 || ids[i] > ids[i - 1]);
        }
        bh_kv_abort(txn);
        bh_arena_fini(&arena);
        bh_kv_close(kv);
    }
    assert_true(total > 24);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--try-open") == 0) {
        return try_open_beside(argv[2]);
    }
    if (argc == 4 && strcmp(argv[1], "--put") == 0) {
        return put_until_killed(argv[2], (int)strtol(argv[3], NULL, 10));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mail_is_there_after_reopening, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_unfinished_file_is_begun_anew, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_second_opening_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_cannot_be_opened_says_why, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_newer_schema_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_full_map_still_removes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(kill_9_loses_nothing_acknowledged, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests_name("queue_lmdb", tests, NULL, NULL);
}
