#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bh/decision.h"

static char storage[BH_DECISION_MAX];

static struct bh_decision encode_decode(const struct bh_decision *d)
{
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_decision_encode(d, &out), BH_OK);
    struct bh_decision back;
    assert_int_equal(bh_decision_decode(bh_buf_slice(&out), &back), BH_OK);
    return back;
}

static struct bh_decision ordinary(void)
{
    struct bh_decision d = {
        .time_unix_ms = 1795396330000,
        .generation = 42,
        .round = 9,
        .connector = BH_LIT("partner-bank"),
        .rule = BH_LIT("address space bank.example (exact)"),
        .route = BH_LIT("mx"),
        .hosts_count = 2,
        .hosts_more = 1,
        .tls_wanted = BH_LIT("verify"),
        .tls_got = BH_LIT("TLS 1.3 TLS_AES_256_GCM_SHA384 unverified"),
        .tls_reason = BH_LIT("certificate expired 2026-11-23 00:00Z"),
        .tls_origin = BH_LIT("connector"),
        .next_unix_ms = 1795396390000,
        .next_reason = BH_LIT("destination backs off, glitch 1 of 3"),
    };
    d.hosts[0] = (struct bh_outcome){.stage = BH_STAGE_TLS,
                                     .happened = BH_HAPPENED_TLS_UNVERIFIED,
                                     .host = BH_LIT("mx1.bank.example"),
                                     .ip = {4, {192, 0, 2, 10}},
                                     .port = 25};
    d.hosts[1] = (struct bh_outcome){.stage = BH_STAGE_RCPT,
                                     .code = 450,
                                     .enhanced_class = 4,
                                     .enhanced_subject = 2,
                                     .enhanced_detail = 65535,
                                     .host = BH_LIT("mx2.bank.example"),
                                     .text = BH_LIT("4.2.1 \xff busy"),
                                     .ip = {6, {0x20, 1, 0xd, 0xb8}},
                                     .port = 2525};
    d.outcome = d.hosts[1];
    return d;
}

static void assert_slice_eq(struct bh_slice a, struct bh_slice b)
{
    assert_true(bh_slice_eq(a, b));
}

static void what_goes_in_comes_out(void **unused)
{
    (void)unused;
    const struct bh_decision d = ordinary();
    const struct bh_decision back = encode_decode(&d);
    assert_int_equal(back.time_unix_ms, d.time_unix_ms);
    assert_int_equal(back.generation, 42);
    assert_int_equal(back.round, 9);
    assert_slice_eq(back.connector, d.connector);
    assert_slice_eq(back.rule, d.rule);
    assert_slice_eq(back.route, d.route);
    assert_int_equal(back.hosts_count, 2);
    assert_int_equal(back.hosts_more, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(back.hosts[i].stage, d.hosts[i].stage);
        assert_int_equal(back.hosts[i].happened, d.hosts[i].happened);
        assert_int_equal(back.hosts[i].code, d.hosts[i].code);
        assert_int_equal(back.hosts[i].enhanced_detail, d.hosts[i].enhanced_detail);
        assert_true(bh_ip_eq(&back.hosts[i].ip, &d.hosts[i].ip));
        assert_int_equal(back.hosts[i].port, d.hosts[i].port);
        assert_slice_eq(back.hosts[i].host, d.hosts[i].host);
        assert_slice_eq(back.hosts[i].text, d.hosts[i].text);
    }
    assert_slice_eq(back.tls_wanted, d.tls_wanted);
    assert_slice_eq(back.tls_got, d.tls_got);
    assert_slice_eq(back.tls_reason, d.tls_reason);
    assert_slice_eq(back.tls_origin, d.tls_origin);
    assert_slice_eq(back.limit, d.limit);
    assert_slice_eq(back.outcome.text, d.outcome.text);
    assert_int_equal(back.next_unix_ms, d.next_unix_ms);
    assert_slice_eq(back.next_reason, d.next_reason);
}

/* The worst case: all hosts, all texts far too long. */
static void the_longest_is_cut_to_fit(void **unused)
{
    (void)unused;
    static char big[4096];
    memset(big, 'x', sizeof(big));
    struct bh_decision d = ordinary();
    const struct bh_slice text = bh_slice(big, sizeof(big));
    d.hosts_count = 100; /* More than are kept. */
    d.generation = UINT64_MAX;
    d.round = UINT32_MAX;
    d.hosts_more = UINT32_MAX;
    for (size_t i = 0; i < BH_DECISION_HOSTS_MAX; i++) {
        d.hosts[i] = d.hosts[1];
        d.hosts[i].text = text;
        d.hosts[i].host = text;
    }
    d.connector = d.rule = d.route = d.tls_wanted = d.tls_got = d.tls_reason = text;
    d.tls_origin = text;
    d.limit = d.next_reason = d.outcome.text = d.outcome.host = text;
    const struct bh_decision back = encode_decode(&d);
    assert_int_equal(back.hosts_count, BH_DECISION_HOSTS_MAX);
    assert_true(back.rule.len >= 32);
    assert_true(back.hosts[7].host.len >= 40);
    assert_true(back.outcome.text.len >= 24);
}

static void damage_is_seen(void **unused)
{
    (void)unused;
    const struct bh_decision d = ordinary();
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_decision back;
    assert_int_equal(bh_decision_encode(&d, &out), BH_OK);
    for (size_t len = 0; len < out.len; len++) {
        assert_int_equal(bh_decision_decode(bh_slice(storage, len), &back), BH_ECORRUPT);
    }
    storage[out.len] = 0;
    assert_int_equal(bh_decision_decode(bh_slice(storage, out.len + 1), &back), BH_ECORRUPT);
    storage[0] = 3;
    assert_int_equal(bh_decision_decode(bh_buf_slice(&out), &back), BH_EVERSION);
}

/* A queue that an older version wrote is read on: its records lack the last text of TLS. */
static void version_1_is_read(void **unused)
{
    (void)unused;
    struct bh_decision d = ordinary();
    struct bh_decision back;
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    d.tls_origin = BH_EMPTY;
    assert_int_equal(bh_decision_encode(&d, &out), BH_OK);
    const struct bh_slice record = bh_buf_slice(&out);
    const size_t at =
        bh_slice_find_slice(record, BH_LIT("2026-11-23 00:00Z")) + strlen("2026-11-23 00:00Z");
    assert_true(at < record.len && storage[at] == 0); /* the length of the empty origin */
    memmove(storage + at, storage + at + 1, record.len - at - 1);
    storage[0] = 1;
    assert_int_equal(bh_decision_decode(bh_slice(storage, record.len - 1), &back), BH_OK);
    assert_int_equal(back.tls_origin.len, 0);
    assert_slice_eq(back.tls_reason, d.tls_reason);
    assert_slice_eq(back.next_reason, d.next_reason);
}

static void too_little_room(void **unused)
{
    (void)unused;
    const struct bh_decision d = ordinary();
    struct bh_buf out = bh_buf(storage, sizeof(storage) - 1);
    assert_int_equal(bh_decision_encode(&d, &out), BH_ELIMIT);
    assert_int_equal(out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out), cmocka_unit_test(the_longest_is_cut_to_fit),
        cmocka_unit_test(damage_is_seen),         cmocka_unit_test(version_1_is_read),
        cmocka_unit_test(too_little_room),
    };
    return cmocka_run_group_tests_name("control_decision", tests, NULL, NULL);
}
