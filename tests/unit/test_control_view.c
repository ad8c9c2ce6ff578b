/* The views over a queue in memory. With a folder as argument it makes a queue of the same mail
 * there instead, for check_bhctl.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "bh/decision.h"
#include "bh/kv_lmdb.h"
#include "bh/kv_memory.h"
#include "bh/queue_id.h"
#include "bh/view.h"

#define NOW 1795472707123
#define CONTENT "Subject: x\r\n\r\n\xff\x01 body\r\n"

struct store {
    struct bh_kv *kv;
    struct bh_queue *queue;
    uint64_t fresh_id;
    uint64_t due_id;
};

static struct bh_queue_put_result put_mail(struct store *s, struct bh_kv_txn *txn,
                                           struct bh_arena *arena, struct bh_slice domain,
                                           const char *recipient, enum bh_lane_hint hint)
{
    const struct bh_envelope envelope = {.sender = BH_LIT("billing@us.example"),
                                         .size = sizeof(CONTENT) - 1};
    const struct bh_origin origin = {.client = {4, {10, 0, 0, 7}},
                                     .helo = BH_LIT("app"),
                                     .listener = BH_LIT("127.0.0.1:2525"),
                                     .protocol = BH_LIT("ESMTP"),
                                     .arrival_unix_ms = NOW - 7800000};
    const struct bh_slice content = BH_LIT(CONTENT);
    const struct bh_recipient to = {.address = bh_slice_str(recipient)};
    const struct bh_queue_group group = {.domain = domain,
                                         .connector = BH_LIT("partner-bank"),
                                         .recipients = &to,
                                         .recipient_count = 1,
                                         .hint = hint};
    const struct bh_queue_put put = {.envelope = &envelope,
                                     .origin = &origin,
                                     .content = &content,
                                     .content_count = 1,
                                     .groups = &group,
                                     .group_count = 1};
    struct bh_queue_put_result result;
    const struct bh_now now = {.unix_ms = NOW - 7800000};
    assert_int_equal(bh_queue_put(s->queue, txn, &put, now, arena, &result), BH_OK);
    return result;
}

/* The second message was tried once, and deferred. */
static void defer(struct store *s, struct bh_kv_txn *txn, struct bh_queue_key key,
                  enum bh_lane lane)
{
    char storage[BH_DECISION_MAX];
    struct bh_buf record = bh_buf(storage, sizeof(storage));
    struct bh_decision decision = {.time_unix_ms = NOW - 60000,
                                   .generation = 42,
                                   .round = 1,
                                   .connector = BH_LIT("partner-bank"),
                                   .rule = BH_LIT("address space bank.example (exact)"),
                                   .route = BH_LIT("mx"),
                                   .hosts_count = 1,
                                   .tls_wanted = BH_LIT("verify"),
                                   .outcome = {.stage = BH_STAGE_RCPT,
                                               .code = 450,
                                               .text = BH_LIT("busy \x1b[2J"),
                                               .host = BH_LIT("mx1.bank.example")},
                                   .next_unix_ms = NOW + 240000,
                                   .next_reason = BH_LIT("message interval 1")};
    decision.hosts[0] = decision.outcome;
    assert_int_equal(bh_decision_encode(&decision, &record), BH_OK);
    const struct bh_settle_recipient recipient = {
        .verdict = BH_VERDICT_KEEP, .tried = true, .charged = true, .outcome = decision.outcome};
    const struct bh_settle settle = {.key = key,
                                     .lane = lane,
                                     .recipients = &recipient,
                                     .recipient_count = 1,
                                     .charged = true,
                                     .remaining = BH_ENTRY_DUE,
                                     .due_unix_ms = NOW + 240000,
                                     .decision = bh_buf_slice(&record)};
    const struct bh_queue_notifier notifier = {.now = {.unix_ms = NOW - 60000}};
    struct bh_settle_result result;
    assert_int_equal(bh_queue_settle(s->queue, txn, &settle, &notifier, &result), BH_OK);
    const struct bh_destination_change change = {.set = BH_SET_HOLD,
                                                 .hold_reason = BH_LIT("ticket 8812"),
                                                 .hold_by = BH_LIT("test"),
                                                 .hold_until_unix_ms = BH_QUEUE_NEVER};
    assert_int_equal(
        bh_queue_destination_update(s->queue, txn, key.destination, &change, notifier.now), BH_OK);
}

static void fill(struct store *s)
{
    char error[256];
    struct bh_arena arena;
    struct bh_kv_txn *txn;
    const struct bh_queue_limits limits = {0};
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    assert_int_equal(bh_queue_open(s->kv, &limits, &s->queue, error, sizeof(error)), BH_OK);
    assert_int_equal(bh_queue_begin(s->queue, NULL, &txn), BH_OK);
    s->fresh_id =
        put_mail(s, txn, &arena, BH_LIT("fax.example"), "f@fax.example", BH_HINT_FRESH_OK).id;
    const struct bh_queue_put_result due =
        put_mail(s, txn, &arena, BH_LIT("bank.example"), "r@bank.example", BH_HINT_ENTRY);
    s->due_id = due.id;
    const struct bh_queue_key key = {due.parts[0].destination, due.id, due.parts[0].part};
    defer(s, txn, key, due.parts[0].lane);
    assert_int_equal(bh_queue_commit(s->queue, txn), BH_OK);
    bh_arena_fini(&arena);
}

static int setup(void **state)
{
    static struct store s;
    s = (struct store){.kv = bh_kv_memory_create((size_t)64 << 20, 0)};
    assert_non_null(s.kv);
    fill(&s);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct store *s = *state;
    bh_queue_destroy(s->queue);
    bh_kv_close(s->kv);
    return 0;
}

struct answer {
    json_t *rows;
    json_t *end;
    enum bh_status status;
    bool negative;
};

static void keep(void *ctx, struct bh_slice object)
{
    json_error_t where;
    json_t *row =
        json_loadb(object.ptr, object.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (row == NULL) {
        fail_msg("%s in %.*s", where.text, BH_FMT(object));
    }
    json_array_append_new(ctx, row);
}

static struct answer ask(struct store *s, const char *line)
{
    struct bh_control_request request;
    struct bh_control_error error;
    struct bh_view *view;
    struct answer a = {.rows = json_array(), .status = BH_MORE};
    const struct bh_view_options options = {.now_unix_ms = NOW};
    const struct bh_view_sink sink = {keep, a.rows};
    assert_int_equal(bh_control_parse(bh_slice_str(line), NOW, &request, &error), BH_OK);
    assert_int_equal(bh_view_create(&request, &options, &view, &error), BH_OK);
    bh_control_request_fini(&request); /* The view must not need it any more. */
    while (a.status == BH_MORE) {
        const size_t before = json_array_size(a.rows);
        struct bh_kv_txn *txn;
        assert_int_equal(bh_kv_begin(s->kv, BH_KV_READ, NULL, &txn), BH_OK);
        a.status = bh_view_step(view, txn, &sink);
        bh_kv_abort(txn);
        assert_true(json_array_size(a.rows) - before <= BH_VIEW_ROWS);
    }
    if (a.status == BH_OK) {
        const struct bh_slice end = bh_view_end(view);
        a.end = json_loadb(end.ptr, end.len, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(a.end);
    } else {
        assert_true(bh_view_error(view)->what[0] != 0);
    }
    a.negative = bh_view_negative(view);
    bh_view_destroy(view);
    return a;
}

static void forget(struct answer *a)
{
    json_decref(a->rows);
    json_decref(a->end);
}

static const char *text(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    return value != NULL ? value : "";
}

static long long number(const json_t *row, const char *key)
{
    return (long long)json_integer_value(json_object_get(row, key));
}

static void queue_has_a_row_for_each_destination(void **state)
{
    struct answer a = ask(*state, "{\"verb\":\"queue\"}");
    assert_int_equal(a.status, BH_OK);
    assert_int_equal(json_array_size(a.rows), 2);
    size_t i;
    const json_t *row;
    json_array_foreach(a.rows, i, row)
    {
        const bool bank = strcmp(text(row, "domain"), "bank.example") == 0;
        assert_string_equal(text(row, "state"), bank ? "held" : "active");
        assert_string_equal(text(row, "hold_reason"), bank ? "ticket 8812" : "");
        assert_int_equal(number(row, "messages"), 1);
        assert_int_equal(number(row, "fresh"), bank ? 0 : 1);
        assert_int_equal(number(row, "due"), bank ? 1 : 0);
        assert_int_equal(number(row, "bytes"), sizeof(CONTENT) - 1);
        assert_true(number(row, "oldest_unix_ms") > NOW - 9000000);
        assert_int_equal(json_integer_value(json_array_get(json_object_get(row, "ages"), 2)), 1);
    }
    assert_int_equal(number(a.end, "messages"), 2);
    assert_int_equal(number(a.end, "destinations"), 2);
    assert_int_equal(number(a.end, "destinations_held"), 1);
    assert_false(json_is_true(json_object_get(a.end, "running")));
    forget(&a);
}

static void queue_keeps_to_top_and_selection(void **state)
{
    struct answer one = ask(*state, "{\"verb\":\"queue\",\"args\":{\"top\":1}}");
    assert_int_equal(json_array_size(one.rows), 1);
    assert_int_equal(number(one.end, "destinations"), 2);
    forget(&one);
    struct answer bank =
        ask(*state, "{\"verb\":\"queue\",\"args\":{\"destination\":\"bank.example\"}}");
    assert_int_equal(json_array_size(bank.rows), 1);
    assert_int_equal(number(bank.end, "messages"), 1);
    forget(&bank);
}

static void status_names_what_needs_attention(void **state)
{
    struct answer a = ask(*state, "{\"verb\":\"status\"}");
    assert_int_equal(a.status, BH_OK);
    assert_int_equal(json_array_size(a.rows), 1);
    assert_string_equal(text(json_array_get(a.rows, 0), "domain"), "bank.example");
    assert_int_equal(number(a.end, "attention"), 1);
    forget(&a);
}

static void list_selects(void **state)
{
    static const struct {
        const char *line;
        size_t rows;
    } cases[] = {
        {"{\"verb\":\"list\"}", 2},
        {"{\"verb\":\"list\",\"args\":{\"limit\":1}}", 1},
        {"{\"verb\":\"list\",\"args\":{\"state\":\"due\"}}", 1},
        {"{\"verb\":\"list\",\"args\":{\"recipient\":\"@fax.example\"}}", 1},
        {"{\"verb\":\"list\",\"args\":{\"sender\":\"<>\"}}", 0},
        {"{\"verb\":\"list\",\"args\":{\"older_ms\":3600000}}", 2},
        {"{\"verb\":\"list\",\"args\":{\"younger_ms\":3600000}}", 0},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct answer a = ask(*state, cases[i].line);
        assert_int_equal(a.status, BH_OK);
        assert_int_equal(json_array_size(a.rows), cases[i].rows);
        assert_int_equal(number(a.end, "listed"), cases[i].rows);
        forget(&a);
    }
}

static struct answer ask_about(struct store *s, const char *verb, uint64_t id, const char *more)
{
    char line[200];
    char id_text[BH_QUEUE_ID_TEXT];
    snprintf(line, sizeof(line), "{\"verb\":\"%s\",\"args\":{\"ids\":[\"%s\"]%s}}", verb,
             bh_queue_id_text(id, id_text), more);
    return ask(s, line);
}

static void show_gives_recipients_and_content(void **state)
{
    struct store *s = *state;
    struct answer a = ask_about(s, "show", s->due_id, ",\"content\":true");
    assert_int_equal(a.status, BH_OK);
    assert_int_equal(json_array_size(a.rows), 3);
    assert_string_equal(text(json_array_get(a.rows, 0), "sender"), "billing@us.example");
    assert_string_equal(text(json_array_get(a.rows, 0), "client"), "10.0.0.7");
    const json_t *recipient = json_array_get(a.rows, 1);
    assert_string_equal(text(recipient, "address"), "r@bank.example");
    assert_int_equal(number(json_object_get(recipient, "last"), "code"), 450);
    /* U+00FF stands for the octet 255. */
    assert_string_equal(text(json_array_get(a.rows, 2), "latin1"),
                        "Subject: x\r\n\r\n\xc3\xbf\x01 body\r\n");
    forget(&a);
}

static void why_tells_every_attempt(void **state)
{
    struct store *s = *state;
    struct answer due = ask_about(s, "why", s->due_id, "");
    assert_int_equal(json_array_size(due.rows), 3);
    const json_t *attempt = json_array_get(due.rows, 2);
    assert_string_equal(text(attempt, "kind"), "attempt");
    assert_string_equal(text(attempt, "rule"), "address space bank.example (exact)");
    assert_int_equal(number(attempt, "generation"), 42);
    assert_int_equal(number(attempt, "next_unix_ms"), NOW + 240000);
    assert_int_equal(json_array_size(json_object_get(attempt, "hosts")), 1);
    forget(&due);
    struct answer fresh = ask_about(s, "why", s->fresh_id, "");
    assert_int_equal(json_array_size(fresh.rows), 2);
    assert_string_equal(text(json_array_get(fresh.rows, 1), "lane"), "fresh");
    forget(&fresh);
}

/* More destinations and messages than one step looks at: none is lost or told twice, the largest
 * come first, and no step gives more rows than it may. */
static void many_steps(void **unused)
{
    (void)unused;
    enum { DESTINATIONS = 2500 };
    struct store s = {.kv = bh_kv_memory_create((size_t)64 << 20, 0)};
    struct bh_arena arena;
    struct bh_kv_txn *txn;
    const struct bh_queue_limits limits = {0};
    char error[256];
    bh_arena_init(&arena, BH_QUEUE_ARENA);
    assert_int_equal(bh_queue_open(s.kv, &limits, &s.queue, error, sizeof(error)), BH_OK);
    assert_int_equal(bh_queue_begin(s.queue, NULL, &txn), BH_OK);
    for (unsigned i = 0; i < DESTINATIONS; i++) {
        char domain[32];
        snprintf(domain, sizeof(domain), "d%u.example", i);
        for (unsigned n = 0; n < (i % 100 == 7 ? 2U : 1U); n++) {
            bh_arena_reset(&arena);
            put_mail(&s, txn, &arena, bh_slice_str(domain), "a@x.example",
                     i % 2 == 0 ? BH_HINT_FRESH_OK : BH_HINT_ENTRY);
        }
    }
    assert_int_equal(bh_queue_commit(s.queue, txn), BH_OK);
    bh_arena_fini(&arena);

    struct answer all = ask(&s, "{\"verb\":\"queue\",\"args\":{\"top\":10000}}");
    assert_int_equal(json_array_size(all.rows), DESTINATIONS);
    assert_int_equal(number(all.end, "messages"), DESTINATIONS + 25);
    forget(&all);
    struct answer top = ask(&s, "{\"verb\":\"queue\",\"args\":{\"top\":30}}");
    assert_int_equal(json_array_size(top.rows), 30);
    for (size_t i = 0; i < 30; i++) {
        assert_int_equal(number(json_array_get(top.rows, i), "messages"), i < 25 ? 2 : 1);
    }
    forget(&top);
    struct answer list = ask(&s, "{\"verb\":\"list\"}");
    assert_int_equal(json_array_size(list.rows), DESTINATIONS + 25);
    json_t *seen = json_object();
    size_t i;
    const json_t *row;
    json_array_foreach(list.rows, i, row)
    {
        json_object_set_new(seen, text(row, "id"), json_true());
    }
    assert_int_equal(json_object_size(seen), DESTINATIONS + 25);
    json_decref(seen);
    forget(&list);
    bh_queue_destroy(s.queue);
    bh_kv_close(s.kv);
}

static void no_such_message(void **state)
{
    struct answer a = ask_about(*state, "why", 1, "");
    assert_int_equal(a.status, BH_ENOTFOUND);
    forget(&a);
}

static void verify_agrees(void **state)
{
    struct answer a = ask(*state, "{\"verb\":\"verify\"}");
    assert_int_equal(a.status, BH_OK);
    assert_int_equal(number(a.end, "problems"), 0);
    assert_int_equal(number(a.end, "messages"), 2);
    assert_false(a.negative);
    forget(&a);
}

static void views_of_the_configuration_need_one(void **state)
{
    (void)state;
    struct bh_control_request request;
    struct bh_control_error error;
    struct bh_view *view = NULL;
    const struct bh_view_options options = {.now_unix_ms = NOW};
    assert_int_equal(bh_control_parse(BH_LIT("{\"verb\":\"connectors\"}"), NOW, &request, &error),
                     BH_OK);
    assert_int_equal(bh_view_create(&request, &options, &view, &error), BH_EINVAL);
    assert_string_equal(error.what, "no configuration");
    bh_control_request_fini(&request);
}

static int make_queue(const char *path)
{
    char error[256];
    struct store s = {0};
    const struct bh_kv_lmdb_options options = {
        .path = path, .size_max = (size_t)64 << 20, .reserve = (size_t)1 << 20};
    if (bh_kv_lmdb_open(&options, &s.kv, error, sizeof(error)) != BH_OK) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    fill(&s);
    char id[BH_QUEUE_ID_TEXT];
    printf("%s\n", bh_queue_id_text(s.due_id, id));
    bh_queue_destroy(s.queue);
    bh_kv_close(s.kv);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        return make_queue(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_has_a_row_for_each_destination),
        cmocka_unit_test(queue_keeps_to_top_and_selection),
        cmocka_unit_test(status_names_what_needs_attention),
        cmocka_unit_test(list_selects),
        cmocka_unit_test(show_gives_recipients_and_content),
        cmocka_unit_test(why_tells_every_attempt),
        cmocka_unit_test(many_steps),
        cmocka_unit_test(no_such_message),
        cmocka_unit_test(verify_agrees),
        cmocka_unit_test(views_of_the_configuration_need_one),
    };
    return cmocka_run_group_tests_name("control_view", tests, setup, teardown);
}
