#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "bh/control.h"

#define NOW 1795472707123

static const struct {
    const char *line;
    const char *what; /* part of the error; NULL: good */
    const char *hint;
} cases[] = {
    {"{\"verb\":\"status\"}", NULL, NULL},
    {"{\"verb\":\"status\",\"args\":{}}", NULL, NULL},
    {"{\"verb\":\"list\"}", NULL, NULL},
    {"{\"verb\":\"hold\",\"args\":{\"all\":true}}", NULL, NULL},
    {"{\"verb\":\"pause\",\"args\":{\"reason\":\"backup\"}}", NULL, NULL},
    {"", "not a JSON object", ""},
    {"[]", "no request", "expected {"},
    {"{\"verb\":\"status\",\"verb\":\"queue\"}", "not a JSON object", ""},
    {"{\"verb\":\"status\"} x", "not a JSON object", ""},
    {"{\"verb\":\"\xff\"}", "not a JSON object", ""},
    {"{\"verb\":1}", "no request", "expected {"},
    {"{\"verb\":\"status\",\"more\":1}", "no request", "expected {"},
    {"{\"verb\":\"statsu\"}", "unknown verb 'statsu'", "bhctl help"},
    {"{\"verb\":\"status\",\"args\":{\"top\":1}}", "unknown argument 'top'", "no arguments"},
    {"{\"verb\":\"reload\",\"args\":{\"pln\":true}}", "unknown argument 'pln'",
     "allowed: plan, allow_weaken"},
    {"{\"verb\":\"reload\",\"args\":{\"plan\":1}}", "bad value of argument 'plan'",
     "true or false"},
    {"{\"verb\":\"queue\",\"args\":{\"top\":-1}}", "bad value of argument 'top'", "a whole number"},
    {"{\"verb\":\"list\",\"args\":{\"state\":\"lost\"}}", "bad value of argument 'state'",
     "ready, due or held"},
    {"{\"verb\":\"show\"}", "an argument is missing for 'show'", "ids"},
    {"{\"verb\":\"show\",\"args\":{\"ids\":[]}}", "bad value of argument 'ids'", ""},
    {"{\"verb\":\"show\",\"args\":{\"ids\":[\"no id\"]}}", "bad value of argument 'ids'",
     "queue ids"},
    {"{\"verb\":\"queue\",\"args\":{\"sender\":\"a@x\"}}", "unknown argument 'sender'",
     "allowed: destination, connector, all, top"},
    {"{\"verb\":\"cancel\"}", "nothing is selected for 'cancel'", "--all"},
    {"{\"verb\":\"cancel\",\"args\":{\"all\":false}}", "nothing is selected for 'cancel'", "--all"},
};

/* What a member of the group that may look is refused. */
static void who_changes_things(void **unused)
{
    static const struct {
        const char *line;
        bool acts;
    } asked[] = {
        {"{\"verb\":\"status\"}", false},
        {"{\"verb\":\"audit\"}", false},
        {"{\"verb\":\"jobs\"}", false},
        {"{\"verb\":\"hold\",\"args\":{\"all\":true}}", true},
        {"{\"verb\":\"hold\",\"args\":{\"all\":true,\"dry_run\":true}}", false},
        {"{\"verb\":\"hold\",\"args\":{\"all\":true,\"dry_run\":false}}", true},
        {"{\"verb\":\"flush\",\"args\":{\"all\":true}}", true},
        {"{\"verb\":\"flush\",\"args\":{\"all\":true,\"dry_run\":true}}", false},
        {"{\"verb\":\"reload\",\"args\":{\"plan\":true}}", false},
        {"{\"verb\":\"reload\"}", true},
        {"{\"verb\":\"resume\"}", true},
        {"{\"verb\":\"probe\",\"args\":{\"address\":\"a.example\"}}", true},
    };
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(asked); i++) {
        struct bh_control_request request;
        struct bh_control_error error;
        assert_int_equal(bh_control_parse(bh_slice_str(asked[i].line), NOW, &request, &error),
                         BH_OK);
        assert_int_equal(bh_control_needs_act(&request), asked[i].acts);
        bh_control_request_fini(&request);
    }
}

static void good_and_bad(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_control_request request;
        struct bh_control_error error;
        const enum bh_status status =
            bh_control_parse(bh_slice_str(cases[i].line), NOW, &request, &error);
        assert_int_equal(status, cases[i].what == NULL ? BH_OK : BH_EPROTO);
        if (cases[i].what != NULL) {
            assert_non_null(strstr(error.what, cases[i].what));
            assert_non_null(strstr(error.hint, cases[i].hint));
        }
        bh_control_request_fini(&request);
    }
}

static void all_of_a_selection(void **unused)
{
    (void)unused;
    struct bh_control_request r;
    struct bh_control_error error;
    const struct bh_slice line =
        BH_LIT("{\"verb\":\"hold\",\"args\":{\"ids\":[\"0000000000001\",\"000000000000Z\"],"
               "\"destination\":\"bank.example\",\"connector\":\"partner\",\"sender\":\"<>\","
               "\"recipient\":\"@bank.example\",\"older_ms\":3600000,\"younger_ms\":7200000,"
               "\"state\":\"due\",\"reason\":\"their cert\",\"until_unix_ms\":1795500000000,"
               "\"dry_run\":true}}");
    assert_int_equal(bh_control_parse(line, NOW, &r, &error), BH_OK);
    assert_int_equal(r.verb, BH_VERB_HOLD);
    assert_true(r.selected && r.dry_run && !r.all);
    assert_int_equal(r.selection.id_count, 2);
    assert_int_equal(r.selection.ids[1], 31);
    assert_true(bh_slice_eq(r.selection.domain, BH_LIT("bank.example")));
    assert_true(bh_slice_eq(r.selection.connector, BH_LIT("partner")));
    assert_true(bh_slice_eq(r.selection.sender, BH_LIT("<>")));
    assert_true(bh_slice_eq(r.selection.recipient, BH_LIT("@bank.example")));
    assert_int_equal(r.selection.arrived_to_unix_ms, NOW - 3600000);
    assert_int_equal(r.selection.arrived_from_unix_ms, NOW - 7200000);
    assert_int_equal(r.selection.states, BH_SELECT_DUE);
    assert_true(bh_slice_eq(r.reason, BH_LIT("their cert")));
    assert_int_equal(r.until_unix_ms, 1795500000000);
    bh_control_request_fini(&r);
}

/* A nest of arrays or an overlong name costs an error, nothing more. */
static void hostile_lines(void **unused)
{
    (void)unused;
    static char line[BH_CONTROL_LINE_MAX];
    struct bh_control_request r;
    struct bh_control_error error;
    memset(line, '[', sizeof(line));
    assert_int_equal(bh_control_parse(bh_slice(line, sizeof(line)), NOW, &r, &error), BH_EPROTO);
    memset(line, 'x', sizeof(line));
    memcpy(line, "{\"verb\":\"", 9);
    memcpy(line + sizeof(line) - 2, "\"}", 2);
    assert_int_equal(bh_control_parse(bh_slice(line, sizeof(line)), NOW, &r, &error), BH_EPROTO);
    assert_true(strlen(error.what) < 120);
}

static void verbs_by_name(void **unused)
{
    (void)unused;
    for (enum bh_control_verb v = BH_VERB_STATUS; v < BH_VERB_COUNT; v++) {
        enum bh_control_verb found = BH_VERB_COUNT;
        assert_true(bh_control_verb_find(bh_slice_str(bh_control_verb_name(v)), &found));
        assert_int_equal(found, v);
        assert_int_equal(bh_control_verb_is_view(v), v <= BH_VERB_POLICY);
    }
}

static const char *called;

static void on_view(void *ctx, const struct bh_control_request *r, struct bh_control_reply *reply)
{
    (void)ctx, (void)r, (void)reply;
    called = "view";
}
static void on_flush(void *ctx, const struct bh_control_request *r, struct bh_control_reply *reply)
{
    (void)ctx, (void)r, (void)reply;
    called = "flush";
}
static void on_bulk(void *ctx, const struct bh_control_request *r, struct bh_control_reply *reply)
{
    (void)ctx, (void)r, (void)reply;
    called = "bulk";
}
static void on_intake(void *ctx, bool paused, struct bh_control_reply *reply)
{
    (void)ctx, (void)reply;
    called = paused ? "pause" : "resume";
}
static void on_reload(void *ctx, const struct bh_control_request *r, struct bh_control_reply *reply)
{
    (void)ctx, (void)r, (void)reply;
    called = "reload";
}
static void on_jobs(void *ctx, struct bh_control_reply *reply)
{
    (void)ctx, (void)reply;
    called = "jobs";
}

static void on_probe(void *ctx, const struct bh_control_request *r, struct bh_control_reply *reply)
{
    (void)ctx, (void)r, (void)reply;
    called = "probe";
}

static void every_verb_is_dispatched(void **unused)
{
    (void)unused;
    const struct bh_control_ops ops = {on_view,   on_flush, on_bulk, on_intake,
                                       on_reload, on_jobs,  on_probe};
    for (enum bh_control_verb v = BH_VERB_STATUS; v < BH_VERB_COUNT; v++) {
        const struct bh_control_request r = {.verb = v};
        called = NULL;
        bh_control_dispatch(&ops, NULL, &r, NULL);
        const char *name = bh_control_verb_name(v);
        const char *want = bh_control_verb_is_view(v)                  ? "view"
                           : v >= BH_VERB_HOLD && v <= BH_VERB_REQUEUE ? "bulk"
                                                                       : name;
        assert_string_equal(called, want);
    }
}

static void answers(void **unused)
{
    (void)unused;
    char storage[4096];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_control_error error = {0};
    memset(error.what, 1, sizeof(error.what) - 1); /* The widest: each octet is escaped. */
    memset(error.hint, 1, sizeof(error.hint) - 1);
    assert_int_equal(bh_control_put_row(&out, BH_LIT("{\"a\":1}")), BH_OK);
    assert_int_equal(bh_control_put_end(&out, BH_LIT("{}")), BH_OK);
    const struct bh_slice want = BH_LIT("{\"row\":{\"a\":1}}\n{\"end\":{}}\n");
    assert_true(bh_slice_eq(bh_buf_slice(&out), want));
    assert_int_equal(bh_control_put_error(&out, &error), BH_OK);
    struct bh_buf small = bh_buf(storage, 10);
    assert_int_equal(bh_control_put_row(&small, BH_LIT("{\"a\":1}")), BH_ELIMIT);
    assert_int_equal(small.len, 0);
}

/* However the octets arrive, the lines are the same. */
static void lines_of_every_split(void **unused)
{
    (void)unused;
    const struct bh_slice text = BH_LIT("one\n\ntwo and\nthree\nrest");
    static const char *const want[] = {"one", "", "two and", "three"};
    for (size_t step = 1; step <= text.len; step++) {
        char storage[16];
        struct bh_control_lines lines = {.buf = bh_buf(storage, sizeof(storage))};
        size_t seen = 0;
        struct bh_slice rest = text;
        while (true) {
            struct bh_slice line;
            const enum bh_status status = bh_control_lines_next(&lines, &line);
            if (status == BH_OK) {
                assert_true(bh_slice_eq(line, bh_slice_str(want[seen++])));
                continue;
            }
            assert_int_equal(status, BH_MORE);
            if (rest.len == 0) {
                break;
            }
            const size_t put = bh_buf_add_cut(&lines.buf, bh_slice_take(rest, step));
            rest = bh_slice_skip(rest, put);
        }
        assert_int_equal(seen, BH_COUNT(want));
    }
    char storage[4];
    struct bh_control_lines lines = {.buf = bh_buf(storage, sizeof(storage))};
    struct bh_slice line;
    bh_buf_put(&lines.buf, BH_LIT("long"));
    assert_int_equal(bh_control_lines_next(&lines, &line), BH_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_and_bad),
        cmocka_unit_test(who_changes_things),
        cmocka_unit_test(all_of_a_selection),
        cmocka_unit_test(hostile_lines),
        cmocka_unit_test(verbs_by_name),
        cmocka_unit_test(every_verb_is_dispatched),
        cmocka_unit_test(answers),
        cmocka_unit_test(lines_of_every_split),
    };
    return cmocka_run_group_tests_name("control_request", tests, NULL, NULL);
}
