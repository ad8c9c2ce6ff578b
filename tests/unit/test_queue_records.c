/* Rows of the queue: what is written comes back, and other versions are told apart from damage. */
#include "queue_fixture.h"

#include "records.h"

#define SAVE_DIR getenv("BH_SAVE_CORPUS")

/* With BH_SAVE_CORPUS set to a folder, rows are kept there as seeds for the fuzzer. */
static void save(unsigned kind, struct bh_slice row)
{
    if (SAVE_DIR == NULL) {
        return;
    }
    char path[300];
    snprintf(path, sizeof(path), "%s/row_%u", SAVE_DIR, kind);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputc((int)kind, file);
    fwrite(row.ptr, 1, row.len, file);
    fclose(file);
}

static struct bh_arena arena;

static int set_up(void **unused)
{
    (void)unused;
    bh_arena_init(&arena, (size_t)16 << 20);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    bh_arena_fini(&arena);
    return 0;
}

static struct bh_slice exact(struct bh_slice row, size_t len)
{
    /* A copy of its own size, so that the sanitizer sees a read past its end. */
    char *copy = bh_arena_alloc(&arena, len + 1);
    memcpy(copy, row.ptr, len);
    return bh_slice(copy, len);
}

static void an_entry_comes_back(void **unused)
{
    (void)unused;
    struct bh_entry_recipient to[2] = {
        {.to = {.address = BH_LIT("a@x.test"), .orcpt = BH_LIT("rfc822;a@x.test"), .notify = 4},
         .attempts = 300,
         .tried = true,
         .uncertain = true,
         .last = {.stage = BH_STAGE_RCPT,
                  .code = 450,
                  .enhanced_class = 4,
                  .enhanced_subject = 2,
                  .enhanced_detail = 999,
                  .text = BH_LIT("later\nplease"),
                  .host = BH_LIT("mx.x.test")},
         .last_unix_ms = FIXTURE_NOW},
        {.to = {.address = BH_LIT("b@x.test"), .orcpt = BH_EMPTY}}};
    const struct bh_entry e = {.state = BH_ENTRY_HELD,
                               .arrival_unix_ms = FIXTURE_NOW,
                               .size = UINT64_MAX,
                               .sender_hash = 77,
                               .sender_null = true,
                               .uncertain = true,
                               .attempts = 9,
                               .stopped_base_ms = -5,
                               .held_ms = 12,
                               .held_since_unix_ms = 13,
                               .held_stopped_ms = 14,
                               .reason = BH_LIT("ticket"),
                               .history_next = 10,
                               .recipients = to,
                               .recipient_count = 2};
    struct bh_slice row;
    struct bh_entry back;
    assert_int_equal(record_entry_encode(&e, &arena, &row), BH_OK);
    save(1, row);
    assert_int_equal(record_entry_decode(row, &arena, &back), BH_OK);
    assert_int_equal(back.state, BH_ENTRY_HELD);
    assert_true(back.size == UINT64_MAX && back.sender_null && back.uncertain && !back.warned);
    assert_int_equal(back.stopped_base_ms, -5);
    assert_int_equal(back.history_next, 10);
    assert_true(bh_slice_eq(back.reason, BH_LIT("ticket")));
    assert_int_equal(back.recipients[0].last.enhanced_detail, 999);
    assert_true(bh_slice_eq(back.recipients[0].last.text, BH_LIT("later\nplease")));
    assert_true(bh_slice_eq(back.recipients[1].to.address, BH_LIT("b@x.test")));
    assert_false(back.recipients[1].tried);
    for (size_t len = 0; len < row.len; len++) {
        assert_int_equal(record_entry_decode(exact(row, len), &arena, &back), BH_ECORRUPT);
    }
    char newer[2] = {RECORD_VERSION + 1, 0};
    assert_int_equal(record_entry_decode(bh_slice(newer, 2), &arena, &back), BH_EVERSION);
}

static void the_others_come_back(void **unused)
{
    (void)unused;
    struct bh_slice row;
    const struct bh_queue_part_ref parts[] = {{1, 0}, {9, 1}};
    const struct bh_message m = {.envelope = {.sender = BH_LIT("s@x.test"),
                                              .envid = BH_LIT("QQ"),
                                              .ret = BH_RET_HDRS,
                                              .body = BH_BODY_8BITMIME,
                                              .requiretls = true,
                                              .size = 5},
                                 .origin = {.client = {.family = 6, .bytes = {0x20, 1}},
                                            .helo = BH_LIT("h"),
                                            .user = BH_LIT("u"),
                                            .listener = BH_LIT("l"),
                                            .protocol = BH_LIT("ESMTPS"),
                                            .arrival_unix_ms = FIXTURE_NOW},
                                 .content_id = 4,
                                 .chunks = 1,
                                 .parts = parts,
                                 .part_count = 2};
    struct bh_message m2;
    assert_int_equal(record_message_encode(&m, &arena, &row), BH_OK);
    save(0, row);
    assert_int_equal(record_message_decode(row, &arena, &m2), BH_OK);
    assert_true(bh_ip_eq(&m.origin.client, &m2.origin.client));
    assert_true(m2.envelope.requiretls && !m2.envelope.smtputf8 && m2.open == 2);
    assert_false(m2.envelope.tls_optional);
    struct bh_message optional = m;
    optional.envelope.requiretls = false;
    optional.envelope.tls_optional = true;
    assert_int_equal(record_message_encode(&optional, &arena, &row), BH_OK);
    assert_int_equal(record_message_decode(row, &arena, &m2), BH_OK);
    assert_true(m2.envelope.tls_optional && !m2.envelope.requiretls);
    assert_int_equal(m2.parts[1].destination, 9);

    const struct bh_recipient to = {.address = BH_LIT("a@b.test"), .orcpt = BH_EMPTY, .notify = 1};
    const struct fresh_row f = {
        .size = 3, .part_count = 1, .parts = {{4, 5, 1, 6, &to}}, .sender_null = true};
    struct fresh_row f2;
    assert_int_equal(record_fresh_encode(&f, &arena, &row), BH_OK);
    save(2, row);
    assert_int_equal(record_fresh_decode(row, &arena, &f2), BH_OK);
    assert_int_equal(f2.parts[0].stopped_base_ms, 6);
    assert_int_equal(f2.parts[0].recipients[0].notify, 1);

    const struct bh_destination d = {.domain = BH_LIT("b.test"),
                                     .connector = BH_LIT("c"),
                                     .count = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}},
                                     .slots = {{10, 20, 3}, {20, 25, 4}},
                                     .slot_count = 2,
                                     .held = true,
                                     .hold_reason = BH_LIT("r"),
                                     .hold_by = BH_LIT("b"),
                                     .hold_until_unix_ms = BH_QUEUE_NEVER,
                                     .parked = true,
                                     .park_reason = BH_LIT("p"),
                                     .tried = true,
                                     .last = {.text = BH_LIT("t"), .host = BH_LIT("h")},
                                     .last_tls = BH_LIT("TLS 1.3"),
                                     .wake_unix_ms = -1};
    struct bh_destination d2;
    assert_int_equal(record_destination_encode(&d, &arena, &row), BH_OK);
    save(3, row);
    assert_int_equal(record_destination_decode(row, &d2), BH_OK);
    assert_int_equal(d2.count[2].recipients, 9);
    assert_int_equal(d2.slots[1].count, 4);
    assert_true(d2.parked && bh_slice_eq(d2.park_reason, BH_LIT("p")));

    struct bh_job job = {.verb = BH_JOB_BOUNCE, .reason = BH_LIT("r"), .by = BH_LIT("b")};
    bh_selection_init(&job.selection);
    job.selection.domain = BH_LIT("d");
    job.selection.connector = BH_EMPTY;
    job.selection.sender = BH_LIT("<>");
    job.selection.recipient = BH_EMPTY;
    job.selection.ids[0] = 8;
    job.selection.id_count = 1;
    struct bh_job job2;
    assert_int_equal(record_job_encode(&job, &arena, &row), BH_OK);
    save(4, row);
    assert_int_equal(record_job_decode(row, &job2), BH_OK);
    assert_int_equal(job2.verb, BH_JOB_BOUNCE);
    assert_int_equal(job2.selection.ids[0], 8);
    assert_true(job2.selection.arrived_to_unix_ms == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_entry_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_others_come_back, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("queue_records", tests, NULL, NULL);
}
