#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "config_fixture.h"
#include "judge.h"
#include "leased.h"

#include "bh/decision.h"

/* One message to one or two recipients, and what the session says of each. */
struct fixture {
    struct lease *lease;
    struct lease_item *item;
    struct bh_connector connector;
    struct bh_retry_policy retry;
    struct bh_rng rng;
    struct bh_client_result results[2];
    struct bh_entry_recipient recipients[2];
    struct judge_context ctx;
};

#define NOW_MS INT64_C(1700000000000)

static void set_up(struct fixture *f, size_t recipients)
{
    *f = (struct fixture){0};
    f->lease = calloc(1, sizeof(*f->lease) + sizeof(struct lease_item));
    bh_arena_init(&f->lease->arena, 1 << 20);
    bh_arena_init(&f->lease->judged, 1 << 20);
    f->item = &f->lease->items[0];
    f->item->lease = f->lease;
    f->item->key = (struct bh_queue_key){.destination = 1, .id = 7};
    f->item->entry.recipients = f->recipients;
    f->item->entry.recipient_count = (uint16_t)recipients;
    f->item->txn.txn.results = f->results;
    f->item->txn.txn.recipients_count = (uint32_t)recipients;
    f->connector.name = BH_LIT("partner");
    f->retry = (struct bh_retry_policy){.intervals_ms = {60000, 120000},
                                        .intervals = 2,
                                        .destination_ms = {60000},
                                        .destination_intervals = 1,
                                        .expire_ms = 5 * BH_DAY_MS,
                                        .expire_bounces_ms = BH_DAY_MS};
    bh_rng_seed(&f->rng, 1);
    f->ctx = (struct judge_context){.connector = &f->connector,
                                    .rules = &f->connector,
                                    .retry = &f->retry,
                                    .rng = &f->rng,
                                    .now = {.mono_ms = 1, .unix_ms = NOW_MS}};
}

static void tear_down(struct fixture *f)
{
    bh_arena_fini(&f->lease->arena);
    bh_arena_fini(&f->lease->judged);
    free(f->lease);
}

static struct bh_client_result reply(uint16_t code)
{
    return (struct bh_client_result){.fate = BH_FATE_DECIDED,
                                     .outcome = {.stage = code < 300 ? BH_STAGE_DOT : BH_STAGE_RCPT,
                                                 .happened = BH_HAPPENED_REPLY,
                                                 .code = code,
                                                 .text = BH_LIT("as the partner said"),
                                                 .host = BH_LIT("mx.partner.example")}};
}

static void accepted_is_delivered(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 1);
    f.results[0] = reply(250);
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_DELIVERED);
    assert_int_equal(f.item->signal, BH_SIGNAL_SUCCESS);
    f.results[0].relayed = true;
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_RELAYED);
    tear_down(&f);
}

/* Each recipient has an outcome of its own: one bounces, the other waits. */
static void recipients_are_judged_apart(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 2);
    f.results[0] = reply(550);
    f.results[1] = reply(450);
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_BOUNCED);
    assert_int_equal(f.item->settle.recipients[1].verdict, BH_VERDICT_KEEP);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_DUE);
    assert_true(f.item->settle.due_unix_ms == NOW_MS + 60000);
    assert_true(f.item->settle.charged);
    /* The attempt is explained. */
    struct bh_decision decision;
    assert_int_equal(bh_decision_decode(f.item->settle.decision, &decision), BH_OK);
    assert_int_equal(decision.outcome.code, 450);
    assert_true(decision.next_unix_ms == NOW_MS + 60000);
    tear_down(&f);
}

/* By rounds: who has the message already is in doubt with those who get it next. */
static void earlier_rounds_are_in_doubt_too(void **unused)
{
    static const struct {
        uint16_t code;
        uint64_t mask;
    } cases[] = {{250, 3}, {450, 2}, {550, 2}, {0, 2}};
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        const uint64_t ending[2] = {2, 0};
        uint64_t mask[2] = {0, 9};
        set_up(&f, 2);
        f.results[0] = cases[i].code > 0 ? reply(cases[i].code) : (struct bh_client_result){0};
        judge_in_doubt(f.item, ending, mask);
        assert_true(mask[0] == cases[i].mask && mask[1] == 0);
        tear_down(&f);
    }
}

/* What an open breaker keeps goes behind the others, uncharged; but what has expired ends. */
static void a_breaker_keeps_what_is_refused(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 1);
    f.ctx.breaker_open = true;
    f.results[0] = reply(550);
    f.results[0].outcome.enhanced_class = 5;
    f.results[0].outcome.enhanced_subject = 7;
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_KEEP);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_DUE);
    assert_true(f.item->settle.due_unix_ms == NOW_MS);
    assert_false(f.item->settle.charged);
    f.item->age_ms = 5 * BH_DAY_MS;
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_BOUNCED);
    tear_down(&f);
}

/* The end by age needs an attempt that failed by their fault; and never while the clock is not
 * trusted (promise 1). */
static void expiry(void **unused)
{
    static const struct {
        uint16_t code;
        int64_t age_ms;
        bool sender_null;
        bool suspended;
        enum bh_verdict verdict;
    } cases[] = {
        {450, 5 * BH_DAY_MS - 1, false, false, BH_VERDICT_KEEP},
        {450, 5 * BH_DAY_MS, false, false, BH_VERDICT_EXPIRED},
        {450, 5 * BH_DAY_MS, false, true, BH_VERDICT_KEEP},
        {450, BH_DAY_MS, true, false, BH_VERDICT_EXPIRED},
        {450, BH_DAY_MS, false, false, BH_VERDICT_KEEP},
        {250, 9 * BH_DAY_MS, false, false, BH_VERDICT_DELIVERED},
    };
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct fixture f;
        set_up(&f, 1);
        f.results[0] = reply(cases[i].code);
        f.item->age_ms = cases[i].age_ms;
        f.item->entry.sender_null = cases[i].sender_null;
        f.ctx.expiry_suspended = cases[i].suspended;
        assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
        assert_int_equal(f.item->settle.recipients[0].verdict, cases[i].verdict);
        tear_down(&f);
    }
}

/* However old: what failed by our own fault stays, uncharged. */
static void our_fault_never_bounces(void **unused)
{
    static const enum bh_happened ours[] = {BH_HAPPENED_OUR_CONFIG,   BH_HAPPENED_OUR_SECRET,
                                            BH_HAPPENED_OUR_SOURCE,   BH_HAPPENED_OUR_NETWORK,
                                            BH_HAPPENED_OUR_RESOURCE, BH_HAPPENED_ALL_FILTERED};
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(ours); i++) {
        struct fixture f;
        set_up(&f, 1);
        f.item->age_ms = 100 * BH_DAY_MS;
        const struct bh_outcome outcome = {.stage = BH_STAGE_ROUTE, .happened = ours[i]};
        assert_int_equal(judge_item_with(f.item, &outcome, &f.ctx), BH_OK);
        assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_KEEP);
        assert_false(f.item->settle.charged);
        assert_int_not_equal(f.item->settle.remaining, BH_ENTRY_HELD);
        tear_down(&f);
    }
}

static void untouched_goes_back(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 1);
    f.results[0] = (struct bh_client_result){.fate = BH_FATE_UNTOUCHED};
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_true(f.item->returned);
    assert_false(f.item->settle.charged);
    assert_int_equal(f.item->signal, BH_SIGNAL_NONE);
    tear_down(&f);
}

/* The end was sent and no reply came: the connector says what then happens (promise 3). */
static void uncertain(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 1);
    f.item->age_ms = 100 * BH_DAY_MS;
    f.results[0] =
        (struct bh_client_result){.fate = BH_FATE_UNCERTAIN,
                                  .outcome = {.stage = BH_STAGE_DOT, .happened = BH_HAPPENED_LOST}};
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_true(f.item->settle.recipients[0].uncertain);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_KEEP);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_DUE);
    f.connector.uncertain = BH_UNCERTAIN_HOLD;
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_HELD);
    assert_true(f.item->settle.reason.len > 0);
    tear_down(&f);
}

/* What the operator has ruled since the session began is what counts. */
static void rules_in_force_count(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 1);
    const struct bh_reply_rule bounces = {
        .code = 450, .enhanced_subject = -1, .enhanced_detail = -1, .action = BH_REPLY_BOUNCE};
    const struct bh_connector now = {.name = f.connector.name};
    const struct bh_outcome *refused = NULL;
    f.connector.uncertain = BH_UNCERTAIN_HOLD;
    f.connector.replies = (struct bh_reply_rules){&bounces, 1};
    f.ctx.rules = &now;
    f.results[0] =
        (struct bh_client_result){.fate = BH_FATE_UNCERTAIN,
                                  .outcome = {.stage = BH_STAGE_DOT, .happened = BH_HAPPENED_LOST}};
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_DUE);
    f.results[0] = reply(450);
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_int_equal(f.item->settle.recipients[0].verdict, BH_VERDICT_KEEP);
    assert_int_equal(judge_answer_of(f.item, &now, &refused), JUDGE_ANSWERED);
    assert_int_equal(judge_answer_of(f.item, &f.connector, &refused), JUDGE_NO_ANSWER);
    tear_down(&f);
}

/* The connector of a lease may take less by now, carry in another's stead, or be gone. */
static void rules_are_of_who_takes_it_now(void **unused)
{
    static const struct {
        const char *domain;
        const char *text;  /* of the configuration in force */
        const char *rules; /* NULL: none */
    } cases[] = {
        {"bank.test",
         "connector partner { domains bank.test; uncertain hold }\n"
         "connector all { domains * }\n",
         "partner"},
        {"bank.test",
         "connector other { domains bank.test }\n"
         "connector partner { domains shop.test }\n",
         "other"},
        {"bank.test",
         "connector first { domains bank.test }\n"
         "connector partner { domains bank.test; cost 9; failover yes }\n",
         "partner"},
        {"bank.test", "connector all { domains * }\n", "all"},
        {"[192.0.2.1]", "connector all { domains * }\n", NULL},
    };
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct fixture f;
        const char *told = "";
        const struct bh_config *config = parse_text(cases[i].text, &told);
        struct lease_part part = {.domain = bh_slice_str(cases[i].domain),
                                  .connector = BH_LIT("partner"),
                                  .carrier = BH_LIT("partner")};
        if (config == NULL) {
            fail_msg("%s", told);
        }
        set_up(&f, 1);
        f.item->part = &part;
        f.item->message.envelope.sender = BH_LIT("a@b.test");
        const struct bh_connector *rules = lease_rules(f.item, config);
        assert_int_equal(rules != NULL, cases[i].rules != NULL);
        if (rules != NULL) {
            assert_true(bh_slice_eq(rules->name, bh_slice_str(cases[i].rules)));
        }
        tear_down(&f);
        bh_config_unref(config);
    }
}

static void reply_rules_come_first(void **unused)
{
    static const struct {
        enum bh_reply_action action;
        enum bh_verdict verdict;
        enum bh_entry_state remaining;
    } cases[] = {{BH_REPLY_DEFER, BH_VERDICT_KEEP, BH_ENTRY_DUE},
                 {BH_REPLY_HOLD, BH_VERDICT_KEEP, BH_ENTRY_HELD},
                 {BH_REPLY_BOUNCE, BH_VERDICT_BOUNCED, BH_ENTRY_READY},
                 {BH_REPLY_SLOW, BH_VERDICT_KEEP, BH_ENTRY_DUE}};
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct fixture f;
        set_up(&f, 1);
        const struct bh_reply_rule rule = {
            .code = 550, .enhanced_subject = -1, .enhanced_detail = -1, .action = cases[i].action};
        f.connector.replies = (struct bh_reply_rules){&rule, 1};
        f.results[0] = reply(550);
        assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
        assert_int_equal(f.item->settle.recipients[0].verdict, cases[i].verdict);
        assert_int_equal(f.item->settle.remaining, cases[i].remaining);
        tear_down(&f);
    }
}

/* The set agrees with a plain list under random additions and removals. */
static void leased_keys(void **unused)
{
    enum { KEYS = 300 };
    struct leased_set set;
    bool in[KEYS] = {false};
    struct bh_rng rng;
    (void)unused;
    bh_rng_seed(&rng, 3);
    assert_int_equal(leased_init(&set, KEYS), BH_OK);
    for (int step = 0; step < 20000; step++) {
        const uint32_t k = (uint32_t)bh_rng_below(&rng, KEYS);
        const struct bh_queue_key key = {
            .destination = 1 + k % 7, .id = k / 7, .part = (uint16_t)(k % 3)};
        if (bh_rng_below(&rng, 2) == 0) {
            assert_int_equal(leased_add(&set, key, LEASED_BY_SESSION), in[k] ? BH_EEXIST : BH_OK);
            in[k] = true;
        } else if (in[k]) {
            leased_remove(&set, key);
            in[k] = false;
        }
        assert_int_equal(leased_has(&set, key), in[k]);
    }
    leased_fini(&set);
}

static size_t jobs_of(struct leased_passed *passed)
{
    size_t count = 0;
    for (const struct leased_pass *pass = passed->first; pass != NULL; pass = pass->next) {
        count++;
    }
    leased_passed_fini(passed);
    return count;
}

/* What a job passed is not given free before the job was carried out on it, once for each time. */
static void leased_and_passed(void **unused)
{
    const struct bh_queue_key key = {.destination = 1, .id = 2};
    struct leased_set set;
    struct leased_passed passed = {0};
    (void)unused;
    assert_int_equal(leased_init(&set, 8), BH_OK);
    assert_false(leased_pass(&set, key, 5));
    assert_int_equal(leased_add(&set, key, LEASED_BY_SESSION), BH_OK);
    assert_true(leased_pass(&set, key, 5));
    assert_true(leased_pass(&set, key, 5)); /* its slice is run again */
    assert_true(leased_pass(&set, key, 6));
    assert_int_equal(leased_unfollowed(&set), 1);
    assert_false(leased_leave(&set, key, &passed));
    assert_int_equal(jobs_of(&passed), 2);
    assert_true(leased_has(&set, key));
    assert_int_equal(leased_unfollowed(&set), 1);
    leased_followed(&set);
    assert_int_equal(leased_unfollowed(&set), 0);
    assert_true(leased_leave(&set, key, &passed));
    assert_false(leased_has(&set, key));

    assert_int_equal(leased_add(&set, key, LEASED_BY_SESSION), BH_OK);
    assert_true(leased_pass(&set, key, 5));
    assert_false(leased_leave(&set, key, &passed));
    assert_true(leased_pass(&set, key, 0)); /* another job, meanwhile: which one is not known */
    leased_followed(&set);
    assert_false(leased_leave(&set, key, &passed));
    assert_true(passed.unknown);
    assert_int_equal(jobs_of(&passed), 1);
    leased_followed(&set);
    assert_true(leased_leave(&set, key, &passed));
    assert_int_equal(leased_unfollowed(&set), 0);

    assert_int_equal(leased_add(&set, key, LEASED_BY_WRITER), BH_OK);
    assert_false(leased_pass(&set, key, 5)); /* the writer's own: no session has it */
    leased_remove(&set, key);
    assert_int_equal(leased_add(&set, key, LEASED_BY_SESSION), BH_OK);
    assert_true(leased_pass(&set, key, 5));
    leased_fini(&set); /* nothing leaks */
}

/* Another host may have what the message demands; with `tls off` none is asked. Going on there
 * costs the message nothing; waiting for one that is down does, and ends with the message's time.
 */
static void what_a_host_lacks_another_may_have(void **unused)
{
    static const struct {
        enum bh_happened happened;
        enum bh_tls_mode mode;
        enum bh_sched_elsewhere elsewhere;
        bool expired;
        enum bh_verdict verdict;
        bool charged, detours;
        enum bh_entry_state remaining;
    } cases[] = {
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_VERIFY, BH_ELSEWHERE_NOW, false, BH_VERDICT_KEEP,
         false, true, BH_ENTRY_READY},
        {BH_HAPPENED_NEEDS_SMTPUTF8, BH_TLS_OFF, BH_ELSEWHERE_NOW, false, BH_VERDICT_KEEP, false,
         true, BH_ENTRY_READY},
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_VERIFY, BH_ELSEWHERE_LATER, false, BH_VERDICT_KEEP,
         true, false, BH_ENTRY_DUE},
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_VERIFY, BH_ELSEWHERE_NONE, false, BH_VERDICT_BOUNCED,
         true, false, BH_ENTRY_READY},
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_VERIFY, BH_ELSEWHERE_LATER, true, BH_VERDICT_BOUNCED,
         true, false, BH_ENTRY_READY},
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_VERIFY, BH_ELSEWHERE_NOW, true, BH_VERDICT_BOUNCED,
         true, false, BH_ENTRY_READY},
        {BH_HAPPENED_NEEDS_REQUIRETLS, BH_TLS_OFF, BH_ELSEWHERE_NOW, false, BH_VERDICT_BOUNCED,
         true, false, BH_ENTRY_READY},
    };
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct fixture f;
        set_up(&f, 1);
        f.connector.tls.demand.mode = cases[i].mode;
        f.ctx.elsewhere = cases[i].elsewhere;
        f.item->age_ms = cases[i].expired ? 5 * BH_DAY_MS : 0;
        f.results[0] = (struct bh_client_result){
            .fate = BH_FATE_DECIDED,
            .outcome = {.stage = BH_STAGE_MAIL, .happened = cases[i].happened}};
        assert_int_equal(judge_unfit(f.item, &f.connector),
                         cases[i].happened != BH_HAPPENED_NEEDS_REQUIRETLS ||
                             cases[i].mode != BH_TLS_OFF);
        assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
        assert_int_equal(f.item->settle.recipients[0].verdict, cases[i].verdict);
        assert_int_equal(f.item->settle.recipients[0].charged, cases[i].charged);
        assert_int_equal(f.item->detours, cases[i].detours);
        assert_int_equal(f.item->settle.remaining, cases[i].remaining);
        assert_true(f.item->settle.due_unix_ms ==
                    (cases[i].remaining == BH_ENTRY_DUE ? NOW_MS + 60000 : 0));
        tear_down(&f);
    }
}

/* Who was refused for now by the same host keeps the entry waiting: no detour in its stead. */
static void a_deferral_comes_before_a_detour(void **unused)
{
    struct fixture f;
    (void)unused;
    set_up(&f, 2);
    f.ctx.elsewhere = BH_ELSEWHERE_NOW;
    f.results[0] = reply(450);
    f.results[1] = (struct bh_client_result){
        .fate = BH_FATE_DECIDED,
        .outcome = {.stage = BH_STAGE_MAIL, .happened = BH_HAPPENED_NEEDS_SMTPUTF8}};
    assert_int_equal(judge_item(f.item, &f.ctx), BH_OK);
    assert_false(f.item->detours);
    assert_int_equal(f.item->settle.remaining, BH_ENTRY_DUE);
    assert_true(f.item->settle.due_unix_ms == NOW_MS + 60000);
    tear_down(&f);
}

/* `if-unmet bounce` ends mail for a demand that their hosts don't meet, never for a fault of ours.
 */
static void unmet_demands_end(void **unused)
{
    (void)unused;
    static const struct {
        enum bh_happened happened;
        bool ends;
        enum bh_verdict verdict;
    } cases[] = {
        {BH_HAPPENED_TLS_UNVERIFIED, true, BH_VERDICT_BOUNCED},
        {BH_HAPPENED_TLS_NOT_OFFERED, true, BH_VERDICT_BOUNCED},
        {BH_HAPPENED_TLS_UNVERIFIED, false, BH_VERDICT_KEEP},
        {BH_HAPPENED_OUR_SECRET, true, BH_VERDICT_KEEP},
        {BH_HAPPENED_OUR_CONFIG, true, BH_VERDICT_KEEP},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct fixture f;
        set_up(&f, 1);
        const struct bh_outcome outcome = {.stage = BH_STAGE_TLS, .happened = cases[i].happened};
        f.ctx.unmet_ends = cases[i].ends;
        assert_int_equal(judge_item_with(f.item, &outcome, &f.ctx), BH_OK);
        assert_int_equal(f.item->settle.recipients[0].verdict, cases[i].verdict);
        assert_int_not_equal(f.item->signal, BH_SIGNAL_SUCCESS);
        tear_down(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_host_lacks_another_may_have),
        cmocka_unit_test(a_deferral_comes_before_a_detour),
        cmocka_unit_test(accepted_is_delivered),
        cmocka_unit_test(recipients_are_judged_apart),
        cmocka_unit_test(earlier_rounds_are_in_doubt_too),
        cmocka_unit_test(expiry),
        cmocka_unit_test(a_breaker_keeps_what_is_refused),
        cmocka_unit_test(our_fault_never_bounces),
        cmocka_unit_test(untouched_goes_back),
        cmocka_unit_test(uncertain),
        cmocka_unit_test(rules_in_force_count),
        cmocka_unit_test(rules_are_of_who_takes_it_now),
        cmocka_unit_test(reply_rules_come_first),
        cmocka_unit_test(leased_keys),
        cmocka_unit_test(leased_and_passed),
        cmocka_unit_test(unmet_demands_end),
    };
    return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
