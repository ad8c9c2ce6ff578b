#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/audit.h"
#include "bh/event_line.h"
#include "bh/event_reader.h"
#include "bh/ledger.h"
#include "bh/queue_id.h"

/* A folder of segments, written here as the log writer would. */
struct folder {
    char path[64];
    int fd;
    struct bh_ledger ledger;
};

#define HOUR_0 INT64_C(497712) /* 2026-10-12 00:00 UTC */

static void make_folder(struct folder *f)
{
    *f = (struct folder){.fd = -1};
    snprintf(f->path, sizeof(f->path), "/tmp/bh-events-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->fd = open(f->path, O_RDONLY | O_DIRECTORY);
    assert_true(f->fd >= 0);
}

static void remove_folder(struct folder *f)
{
    char command[128];
    close(f->fd);
    snprintf(command, sizeof(command), "rm -r %s", f->path);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a path of ours */
}

static void append(const struct folder *f, const char *name, const void *octets, size_t len)
{
    const int fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, octets, len), (ssize_t)len);
    close(fd);
}

static void put_line(const struct folder *f, int64_t hour, const char *text)
{
    char name[BH_SEGMENT_NAME];
    append(f, bh_segment_name(hour, name), text, strlen(text));
    append(f, name, "\n", 1);
}

static void put_sealed(struct folder *f, int64_t hour, const char *object)
{
    char text[1024];
    struct bh_buf line = bh_buf(text, sizeof(text) - 1);
    bh_buf_put(&line, bh_slice_str(object));
    assert_int_equal(bh_ledger_seal(&f->ledger, &line), BH_OK);
    text[line.len] = '\0';
    put_line(f, hour, text);
}

static void put_segment(struct folder *f, int64_t hour)
{
    char head[BH_LEDGER_HEX];
    char text[256];
    snprintf(text, sizeof(text),
             "{\"time\":1,\"evt\":\"ledger\",\"what\":\"segment\",\"prev\":\"%s\"}",
             bh_ledger_head_text(&f->ledger, head));
    put_sealed(f, hour, text);
}

static void put_process(struct folder *f, int64_t hour, const char *what)
{
    char text[256];
    snprintf(text, sizeof(text), "{\"time\":1,\"evt\":\"ledger\",\"what\":%s}", what);
    put_sealed(f, hour, text);
}

static void put_delivery(struct folder *f, int64_t hour, uint64_t id, const char *connector,
                         const char *auth)
{
    char text[512];
    char id_text[BH_QUEUE_ID_TEXT];
    snprintf(
        text, sizeof(text),
        "{\"time\":%lld,\"evt\":\"delivered\",\"msg\":\"%s\",\"connector\":\"%s\",\"auth\":\"%s\"}",
        (long long)hour * BH_SEGMENT_MS, bh_queue_id_text(id, id_text), connector, auth);
    put_sealed(f, hour, text);
}

/* ---- one line ---- */

static void fields_are_found(void **unused)
{
    static const struct {
        const char *line;
        bool good;
    } cases[] = {
        {"{}", true},
        {"{\"a\":1}", true},
        {"{\"a\":-1,\"b\":\"x\\\"y\",\"c\":true,\"d\":null}", true},
        {"", false},
        {"{", false},
        {"{\"a\":1", false},
        {"{\"a\":}", false},
        {"{\"a\":1,}", false},
        {"{,\"a\":1}", false},
        {"{\"a\":1}x", false},
        {"{\"a\":\"x", false},
        {"{\"a\":\"x\\", false},
        {"{\"a\" 1}", false},
        {"[\"a\"]", false},
    };
    struct bh_slice text;
    uint64_t number = 0;
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        assert_int_equal(bh_event_well_formed(bh_slice_str(cases[i].line)), cases[i].good);
    }
    /* A remote's text that looks like fields is only text. */
    const struct bh_slice line =
        BH_LIT("{\"text\":\"x\\\",\\\"msg\\\":\\\"1\",\"code\":250,\"msg\":\"0000000000ABC\"}");
    assert_true(bh_event_number(line, "code", &number) && number == 250);
    assert_true(bh_event_text(line, "msg", &text) && text.len == 13);
    assert_true(bh_event_id(line, &number) && number == 10 * 32 * 32 + 11 * 32 + 12);
    assert_false(bh_event_text(line, "code", &text));
    assert_false(bh_event_number(line, "nothing", &number));
}

static void names_of_segments(void **unused)
{
    char text[BH_SEGMENT_NAME];
    int64_t hour = 0;
    (void)unused;
    assert_string_equal(bh_segment_name(HOUR_0 + 5, text), "events-2026101205.jsonl");
    assert_true(bh_segment_parse("events-2026101205.jsonl", &hour) && hour == HOUR_0 + 5);
    assert_false(bh_segment_parse("events-2026101205.idx", &hour));
    assert_false(bh_segment_parse("events-2026101299.jsonl", &hour));
    assert_false(bh_segment_parse("events-20261012xx.jsonl", &hour));
    assert_false(bh_segment_parse("..", &hour));
}

/* ---- the chain ---- */

static void a_chain_shows_every_change(void **unused)
{
    char lines[3][256];
    struct bh_ledger writer = {0};
    (void)unused;
    for (size_t i = 0; i < 3; i++) {
        struct bh_buf line = bh_buf(lines[i], sizeof(lines[i]) - 1);
        assert_int_equal(bh_buf_printf(&line, "{\"time\":%zu,\"evt\":\"delivered\"}", i), BH_OK);
        assert_int_equal(bh_ledger_seal(&writer, &line), BH_OK);
        lines[i][line.len] = '\0';
    }
    struct bh_ledger reader = {0};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(bh_ledger_check(&reader, bh_slice_str(lines[i])), BH_LEDGER_GOOD);
    }
    assert_memory_equal(reader.head, writer.head, sizeof(reader.head));
    assert_true(reader.seq == 3);
    /* Any octet of the one in the middle: it is no record any more, or it does not follow; or its
     * hash is another, and then the next does not follow. */
    for (size_t at = 0; lines[1][at] != '\0'; at++) {
        const char was = lines[1][at];
        lines[1][at] = (char)(was ^ 1);
        reader = (struct bh_ledger){0};
        unsigned good = 0;
        for (size_t i = 0; i < 3; i++) {
            good += bh_ledger_check(&reader, bh_slice_str(lines[i])) == BH_LEDGER_GOOD ? 1 : 0;
        }
        assert_true(good < 3);
        lines[1][at] = was;
    }
    /* One taken out, and one that comes twice. */
    reader = (struct bh_ledger){0};
    assert_int_equal(bh_ledger_check(&reader, bh_slice_str(lines[0])), BH_LEDGER_GOOD);
    assert_int_equal(bh_ledger_check(&reader, bh_slice_str(lines[2])), BH_LEDGER_BROKEN);
    assert_int_equal(bh_ledger_check(&reader, bh_slice_str(lines[2])), BH_LEDGER_BROKEN);
    assert_int_equal(bh_ledger_check(&reader, BH_LIT("{\"time\":1}")), BH_LEDGER_NO_RECORD);
    /* Without room nothing changes. */
    char small[200] = "{\"a\":1}";
    struct bh_buf line = {small, 7, 7 + BH_LEDGER_SEAL - 1};
    const struct bh_ledger before = writer;
    assert_int_equal(bh_ledger_seal(&writer, &line), BH_ELIMIT);
    assert_int_equal(line.len, 7);
    assert_true(writer.seq == before.seq);
}

/* ---- audits ---- */

struct audited {
    struct bh_audit audit;
    struct bh_audit_finding first; /* finding */
};

static void run_audit(const struct folder *f, struct audited *a, const char *connector)
{
    const struct bh_event_query query = {.folder = bh_slice_str(f->path), .to_unix_ms = INT64_MAX};
    struct bh_event_reader *reader = NULL;
    struct bh_event_line line;
    struct bh_audit_finding finding;
    enum bh_status status = BH_MORE;
    a->first = (struct bh_audit_finding){.what = BH_AUDIT_FINE};
    bh_audit_init(&a->audit, bh_slice_str(connector), 0, UINT64_MAX);
    assert_int_equal(bh_event_reader_create(&query, &reader), BH_OK);
    while (status != BH_ENOTFOUND) {
        if (status == BH_MORE) {
            bh_event_reader_allow(reader, 300); /* whatever the pieces */
        }
        status = bh_event_reader_next(reader, &line);
        assert_true(status == BH_OK || status == BH_MORE || status == BH_ENOTFOUND);
        if (status == BH_OK) {
            assert_int_equal(bh_audit_line(&a->audit, &line, &finding), BH_OK);
            a->first = a->first.what == BH_AUDIT_FINE ? finding : a->first;
        }
    }
    bh_audit_end(&a->audit, &finding);
    a->first = a->first.what == BH_AUDIT_FINE ? finding : a->first;
    bh_event_reader_destroy(reader);
}

/* Two hours, a restart in between. */
static void write_two_hours(struct folder *f)
{
    put_segment(f, HOUR_0);
    put_process(f, HOUR_0, "\"begin\"");
    put_delivery(f, HOUR_0, 100, "bank", "name");
    put_line(f, HOUR_0, "{\"time\":1,\"evt\":\"attempt\",\"msg\":\"0000000000034\"}");
    put_delivery(f, HOUR_0, 101, "bank", "clear");
    put_process(f, HOUR_0, "\"end\"");
    put_process(f, HOUR_0, "\"begin\"");
    put_segment(f, HOUR_0 + 1);
    put_delivery(f, HOUR_0 + 1, 102, "fax", "unauthenticated");
    put_delivery(f, HOUR_0 + 1, 103, "bank", "dane");
    put_process(f, HOUR_0 + 1, "\"end\"");
}

static void an_audit_counts(void **unused)
{
    struct folder f;
    struct audited a;
    (void)unused;
    make_folder(&f);
    write_two_hours(&f);
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_FINE);
    assert_true(a.audit.breaks == 0 && a.audit.crashes == 0 && a.audit.torn == 0);
    assert_true(a.audit.ledger.seq == f.ledger.seq && a.audit.first_seq == 1);
    const struct bh_audit_count *bank = a.audit.first;
    const struct bh_audit_count *fax = bank->next;
    assert_true(bh_slice_eq(bank->name, BH_LIT("bank")) && bh_slice_eq(fax->name, BH_LIT("fax")));
    assert_true(bank->delivered == 3 && bank->clear == 1 && bank->by_name == 1 &&
                bank->by_dane == 1);
    assert_true(fax->delivered == 1 && fax->unauthenticated == 1 && fax->next == NULL);
    bh_audit_fini(&a.audit);
    run_audit(&f, &a, "fax");
    assert_true(a.audit.first->delivered == 1 && a.audit.first->next == NULL);
    bh_audit_fini(&a.audit);
    remove_folder(&f);
}

static void change_octet(const struct folder *f, int64_t hour, const char *from, char to)
{
    char name[BH_SEGMENT_NAME];
    char text[8192] = "";
    const int fd = openat(f->fd, bh_segment_name(hour, name), O_RDWR);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    const char *at = strstr(text, from);
    assert_non_null(at);
    assert_int_equal(pwrite(fd, &to, 1, at - text), 1);
    close(fd);
}

static void tampering_is_found(void **unused)
{
    struct folder f;
    struct audited a;
    char name[BH_SEGMENT_NAME];
    (void)unused;
    make_folder(&f);
    write_two_hours(&f);
    change_octet(&f, HOUR_0, "\"auth\":\"clear\"", '#'); /* no event any more */
    run_audit(&f, &a, "");
    assert_true(a.audit.breaks > 0);
    bh_audit_fini(&a.audit);
    remove_folder(&f);

    make_folder(&f);
    write_two_hours(&f);
    change_octet(&f, HOUR_0, "clear", 'k');
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_BROKEN);
    assert_int_equal(a.first.line, 5);
    assert_string_equal(a.first.segment, bh_segment_name(HOUR_0, name));
    bh_audit_fini(&a.audit);
    remove_folder(&f);

    /* A delivery put in without a seal. */
    make_folder(&f);
    write_two_hours(&f);
    put_line(&f, HOUR_0 + 1,
             "{\"time\":1,\"evt\":\"delivered\",\"connector\":\"bank\",\"auth\":\"pin\"}");
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_UNSEALED);
    bh_audit_fini(&a.audit);
    remove_folder(&f);

    /* An hour taken out of the middle; and the oldest one, whose time to go had come. */
    make_folder(&f);
    write_two_hours(&f);
    put_segment(&f, HOUR_0 + 2);
    assert_int_equal(unlinkat(f.fd, bh_segment_name(HOUR_0 + 1, name), 0), 0);
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_BROKEN);
    assert_int_equal(a.first.line, 1);
    bh_audit_fini(&a.audit);
    assert_int_equal(unlinkat(f.fd, bh_segment_name(HOUR_0, name), 0), 0);
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_FINE);
    assert_true(a.audit.first_seq > 1);
    bh_audit_fini(&a.audit);
    remove_folder(&f);
}

/* A process that was killed while it wrote leaves half a line; the next one names it. */
static void a_torn_line_is_told_from_damage(void **unused)
{
    struct folder f;
    struct audited a;
    struct stat info;
    char name[BH_SEGMENT_NAME];
    char begin[128];
    (void)unused;
    make_folder(&f);
    put_segment(&f, HOUR_0);
    put_process(&f, HOUR_0, "\"begin\"");
    bh_segment_name(HOUR_0, name);
    assert_int_equal(fstatat(f.fd, name, &info, 0), 0);
    append(&f, name, "{\"time\":1,\"evt\":\"deli", 21);
    run_audit(&f, &a, "");
    assert_true(a.audit.breaks == 0); /* it may be being written */
    bh_audit_fini(&a.audit);
    append(&f, name, "\n", 1);
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_DAMAGED);
    bh_audit_fini(&a.audit);
    snprintf(begin, sizeof(begin), "\"begin\",\"torn_in\":\"%s\",\"torn_at\":%lld", name,
             (long long)info.st_size);
    put_segment(&f, HOUR_0 + 1);
    put_process(&f, HOUR_0 + 1, begin);
    put_delivery(&f, HOUR_0 + 1, 7, "bank", "name");
    run_audit(&f, &a, "");
    assert_true(a.audit.breaks == 0 && a.audit.torn == 1 && a.audit.crashes == 1);
    bh_audit_fini(&a.audit);
    /* Without such a record it is damage. */
    change_octet(&f, HOUR_0, "deli", '\x01');
    put_line(&f, HOUR_0 + 1, "{\"time\":1,\"evt");
    put_delivery(&f, HOUR_0 + 1, 8, "bank", "name");
    run_audit(&f, &a, "");
    assert_int_equal(a.first.what, BH_AUDIT_DAMAGED);
    assert_int_equal(a.first.line, 4);
    bh_audit_fini(&a.audit);
    remove_folder(&f);
}

static void the_chain_is_taken_up_again(void **unused)
{
    struct folder f;
    char text[BH_EVENT_LINE_MAX];
    struct bh_slice line;
    struct bh_ledger found = {0};
    (void)unused;
    make_folder(&f);
    assert_int_equal(bh_event_last_record(f.fd, text, &line), BH_OK);
    assert_int_equal(line.len, 0);
    put_segment(&f, HOUR_0);
    put_delivery(&f, HOUR_0, 1, "bank", "name");
    /* Far more other lines behind it than are read at a time, then half a line. */
    for (size_t i = 0; i < 5000; i++) {
        put_line(&f, HOUR_0,
                 "{\"time\":1,\"evt\":\"attempt\",\"msg\":\"0000000000034\",\"x\":\"yyyyyyyy\"}");
    }
    char name[BH_SEGMENT_NAME];
    append(&f, bh_segment_name(HOUR_0, name), "{\"seq\":", 7);
    append(&f, bh_segment_name(HOUR_0 + 3, name), "", 0);
    assert_int_equal(bh_event_last_record(f.fd, text, &line), BH_OK);
    assert_true(bh_ledger_adopt(&found, line));
    assert_memory_equal(found.head, f.ledger.head, sizeof(found.head));
    remove_folder(&f);
}

/* ---- indexes ---- */

static size_t count_of(const struct folder *f, uint64_t id)
{
    const struct bh_event_query query = {
        .folder = bh_slice_str(f->path), .to_unix_ms = INT64_MAX, .id = id};
    struct bh_event_reader *reader = NULL;
    struct bh_event_line line;
    size_t count = 0;
    assert_int_equal(bh_event_reader_create(&query, &reader), BH_OK);
    for (enum bh_status status = BH_MORE; status != BH_ENOTFOUND;) {
        uint64_t found = 0;
        if (status == BH_MORE) {
            bh_event_reader_allow(reader, 500);
        }
        status = bh_event_reader_next(reader, &line);
        assert_true(status == BH_OK || status == BH_MORE || status == BH_ENOTFOUND);
        count += status == BH_OK ? 1 : 0;
        assert_true(status != BH_OK || (bh_event_id(line.text, &found) && found == id));
    }
    bh_event_reader_destroy(reader);
    return count;
}

static void heal(const struct folder *f, int64_t hour)
{
    char name[BH_SEGMENT_NAME];
    const int segment = openat(f->fd, bh_segment_name(hour, name), O_RDONLY);
    const int index = openat(f->fd, bh_index_name(hour, name), O_RDWR | O_CREAT | O_APPEND, 0600);
    assert_true(segment >= 0 && index >= 0);
    assert_int_equal(bh_index_heal(segment, index), BH_OK);
    close(segment);
    close(index);
}

static off_t size_of(const struct folder *f, const char *name)
{
    struct stat info;
    assert_int_equal(fstatat(f->fd, name, &info, 0), 0);
    return info.st_size;
}

/* Whatever the index is like, the answer is the same. */
static void any_index_gives_the_same(void **unused)
{
    struct folder f;
    char index[BH_SEGMENT_NAME];
    (void)unused;
    make_folder(&f);
    put_segment(&f, HOUR_0);
    for (uint64_t i = 0; i < 900; i++) {
        put_delivery(&f, HOUR_0, 1000 + i % 300, "bank", "name");
    }
    put_segment(&f, HOUR_0 + 1);
    put_delivery(&f, HOUR_0 + 1, 1007, "bank", "name");
    assert_int_equal(count_of(&f, 1007), 4); /* without any */
    bh_index_name(HOUR_0, index);
    heal(&f, HOUR_0);
    const off_t whole = size_of(&f, index);
    assert_int_equal(whole, 8 + 900 * BH_INDEX_ENTRY);
    assert_int_equal(count_of(&f, 1007), 4);
    assert_int_equal(count_of(&f, 1299), 3);
    assert_int_equal(count_of(&f, 999), 0);

    /* Short, cut within an entry, with more than its segment holds, of another segment, no index.
     */
    const int fd = openat(f.fd, index, O_RDWR | O_APPEND);
    assert_int_equal(ftruncate(fd, whole / 2 + 3), 0);
    assert_int_equal(count_of(&f, 1007), 4);
    heal(&f, HOUR_0);
    assert_int_equal(size_of(&f, index), whole);
    char entry[BH_INDEX_ENTRY];
    bh_index_entry(entry, 1007, UINT64_C(1) << 40);
    append(&f, index, entry, sizeof(entry));
    assert_int_equal(count_of(&f, 1007), 4);
    heal(&f, HOUR_0);
    assert_int_equal(size_of(&f, index), whole);
    bh_index_entry(entry, 1007, 3);
    assert_int_equal(pwrite(fd, entry, sizeof(entry), 8), (ssize_t)sizeof(entry));
    assert_int_equal(count_of(&f, 1007), 4);
    assert_int_equal(ftruncate(fd, 0), 0);
    append(&f, index, "something else", 14);
    assert_int_equal(count_of(&f, 1007), 4);
    heal(&f, HOUR_0);
    assert_int_equal(size_of(&f, index), whole);
    assert_int_equal(count_of(&f, 1007), 4);
    close(fd);
    remove_folder(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(names_of_segments),
        cmocka_unit_test(a_chain_shows_every_change),
        cmocka_unit_test(an_audit_counts),
        cmocka_unit_test(tampering_is_found),
        cmocka_unit_test(a_torn_line_is_told_from_damage),
        cmocka_unit_test(the_chain_is_taken_up_again),
        cmocka_unit_test(any_index_gives_the_same),
    };
    return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
