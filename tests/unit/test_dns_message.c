#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <strings.h>

#include <arpa/nameser.h>

#include "bh/rng.h"
#include "bh/wire.h"
#include "dns_build.h"

static struct dns_build built;
static struct bh_arena arena;

static enum bh_status read_built(const char *name, uint16_t type, struct bh_dns_answer *answer)
{
    bh_arena_reset(&arena);
    /* A copy of the exact size, so that a read past its end is seen. */
    uint8_t *octets = malloc(built.len);
    assert_non_null(octets);
    memcpy(octets, built.octets, built.len);
    const enum bh_status status =
        bh_dns_read_answer(bh_slice(octets, built.len), bh_slice_str(name), type, &arena, answer);
    free(octets);
    return status;
}

static void records_of_each_type(void **unused)
{
    (void)unused;
    static const struct {
        uint16_t type;
        const char *data;
    } cases[] = {
        {BH_DNS_A, "192.0.2.1"},       {BH_DNS_AAAA, "2001:db8::1"},
        {BH_DNS_MX, "10 mx.example"},  {BH_DNS_TLSA, "030101abcdef0123"},
        {BH_DNS_TXT, "v=STSv1; id=1"}, {BH_DNS_NS, "ns.example"},
    };
    struct bh_dns_answer a[BH_COUNT(cases)];
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        dns_build_start(&built, 7, 0x0120, "x.example", cases[i].type);
        dns_build_text(&built, DNS_ANSWER, "X.Example", cases[i].type, 77, cases[i].data);
        dns_build_text(&built, DNS_ANSWER, "other.example", cases[i].type, 5, cases[i].data);
        assert_int_equal(read_built("x.example", cases[i].type, &a[i]), BH_OK);
        assert_int_equal(a[i].status, BH_DNS_FOUND);
        assert_int_equal(a[i].records_len, 1);
        assert_int_equal(a[i].ttl_s, 77);
        assert_true(a[i].secure);
        const struct bh_dns_record *r = &a[i].records[0];
        struct bh_ip ip;
        switch (cases[i].type) {
        case BH_DNS_A:
        case BH_DNS_AAAA:
            assert_true(bh_ip_parse(bh_slice_str(cases[i].data), &ip) && bh_ip_eq(&ip, &r->ip));
            break;
        case BH_DNS_MX:
            assert_int_equal(r->preference, 10);
            assert_true(bh_slice_eq(r->name, BH_LIT("mx.example")));
            break;
        case BH_DNS_TLSA:
            assert_int_equal(r->usage * 100 + r->selector * 10 + r->matching, 311);
            assert_true(bh_slice_eq(r->data, BH_LIT("\xab\xcd\xef\x01\x23")));
            break;
        case BH_DNS_TXT:
            assert_true(bh_slice_eq(r->data, BH_LIT("v=STSv1; id=1")));
            break;
        default:
            assert_true(bh_slice_eq(r->name, BH_LIT("ns.example")));
            break;
        }
    }
}

static void aliases_are_followed_inside(void **unused)
{
    (void)unused;
    struct bh_dns_answer a;
    dns_build_start(&built, 7, 0, "a.example", BH_DNS_A);
    dns_build_text(&built, DNS_ANSWER, "c.example", BH_DNS_A, 300, "192.0.2.3"); /* any order */
    dns_build_text(&built, DNS_ANSWER, "b.example", BH_DNS_CNAME, 20, "c.example");
    dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_CNAME, 200, "B.example");
    dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_A, 1, "192.0.2.66"); /* not at the end */
    assert_int_equal(read_built("a.example", BH_DNS_A, &a), BH_OK);
    assert_int_equal(a.records_len, 1);
    assert_int_equal(a.records[0].ip.bytes[3], 3);
    assert_int_equal(a.aliases, 2);
    assert_int_equal(a.ttl_s, 20);
    assert_true(bh_slice_eq(a.name, BH_LIT("c.example")));

    /* CNAME only: no data, and where to go on. */
    dns_build_start(&built, 7, 0, "a.example", BH_DNS_MX);
    dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_CNAME, 9, "b.example");
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_OK);
    assert_int_equal(a.status, BH_DNS_NODATA);
    assert_false(a.has_soa);
    assert_int_equal(a.ttl_s, 9);
    assert_true(bh_slice_eq(a.name, BH_LIT("b.example")));

    /* A ring of aliases ends. */
    dns_build_text(&built, DNS_ANSWER, "b.example", BH_DNS_CNAME, 9, "a.example");
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
}

static void denials_and_failures(void **unused)
{
    (void)unused;
    struct bh_dns_answer a;
    static const struct {
        unsigned flags;
        const char *soa; /* its last field; the record's TTL is 300 */
        enum bh_dns_status status;
        uint32_t ttl_s;
    } cases[] = {
        {0x0120, "60", BH_DNS_NODATA, 60},        {0x0123, "900", BH_DNS_NXDOMAIN, 300},
        {0x0103, NULL, BH_DNS_NXDOMAIN, 0},       {0x0100, NULL, BH_DNS_NODATA, 0},
        {0x0102, NULL, BH_DNS_SERVFAIL, 0},       {0x0105, NULL, BH_DNS_SERVFAIL, 0},
        {0x0100, "4294967295", BH_DNS_NODATA, 0},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        dns_build_start(&built, 7, cases[i].flags, "a.example", BH_DNS_MX);
        if (cases[i].soa != NULL) {
            dns_build_text(&built, DNS_AUTHORITY, "example", BH_DNS_SOA, 300, cases[i].soa);
        }
        assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_OK);
        assert_int_equal(a.status, cases[i].status);
        assert_int_equal(a.ttl_s, cases[i].ttl_s);
        assert_int_equal(a.secure, (cases[i].flags & 0x20) != 0);
        assert_int_equal(a.has_soa, cases[i].soa != NULL);
    }
}

/* BADVERS hides its code in the OPT record; a validator's reason stands there too. */
static void opt_records_are_read(void **unused)
{
    (void)unused;
    struct bh_dns_answer a;
    dns_build_start(&built, 7, 0, "a.example", BH_DNS_A);
    dns_build_end(&built, dns_build_rr(&built, DNS_ADDITIONAL, "", 41, UINT32_C(0x01000000)));
    assert_int_equal(read_built("a.example", BH_DNS_A, &a), BH_OK);
    assert_int_equal(a.status, BH_DNS_SERVFAIL);
    for (unsigned code = 0; code < 30; code++) {
        dns_build_start(&built, 7, 2, "a.example", BH_DNS_A);
        const size_t at = dns_build_rr(&built, DNS_ADDITIONAL, "", 41, 0);
        dns_put16(&built, 15);
        dns_put16(&built, 2);
        dns_put16(&built, code);
        dns_build_end(&built, at);
        assert_int_equal(read_built("a.example", BH_DNS_A, &a), BH_OK);
        assert_int_equal(a.extended_error, code + 1);
        assert_int_equal(a.status, code >= 6 && code <= 12 ? BH_DNS_BOGUS : BH_DNS_SERVFAIL);
    }
}

static void compressed(unsigned pointer)
{
    dns_build_start(&built, 7, 0, "a.example", BH_DNS_MX);
    const size_t at = dns_build_rr(&built, DNS_ANSWER, "a.example", BH_DNS_MX, 60);
    dns_put16(&built, 10);
    built.octets[built.len++] = 2;
    built.octets[built.len++] = 'm';
    built.octets[built.len++] = 'X';
    dns_put16(&built, 0xc000 | pointer);
    dns_build_end(&built, at);
}

static void pointers_lead_backwards_only(void **unused)
{
    (void)unused;
    struct bh_dns_answer a;
    compressed(12);
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_OK);
    assert_true(bh_slice_eq(a.records[0].name, BH_LIT("mx.a.example")));
    const size_t label_at = built.len - 5;
    compressed((unsigned)label_at); /* to its own start */
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
    compressed((unsigned)built.len - 2); /* to itself */
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
    compressed(0x3fff); /* past the end */
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
}

/* Cut anywhere, a message is refused; and never read past its end (the sanitizer sees to it). */
static void every_cut_is_refused(void **unused)
{
    (void)unused;
    struct bh_dns_answer a;
    dns_build_start(&built, 7, 0x0120, "a.example", BH_DNS_MX);
    dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_CNAME, 60, "b.example");
    dns_build_text(&built, DNS_ANSWER, "b.example", BH_DNS_MX, 60, "10 mx.example");
    dns_build_text(&built, DNS_AUTHORITY, "example", BH_DNS_SOA, 300, "60");
    dns_build_end(&built, dns_build_rr(&built, DNS_ADDITIONAL, "", 41, 0));
    const size_t whole = built.len;
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_OK);
    for (built.len = 1; built.len < whole; built.len++) {
        assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
    }
    built.len = whole;
    assert_int_equal(read_built("other.example", BH_DNS_MX, &a), BH_EPROTO);
    assert_int_equal(read_built("a.example", BH_DNS_A, &a), BH_EPROTO);
    built.octets[2] &= 0x7f; /* a query, not an answer */
    assert_int_equal(read_built("a.example", BH_DNS_MX, &a), BH_EPROTO);
}

static void queries_are_written(void **unused)
{
    (void)unused;
    char storage[300];
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_dns_write_query(0x1234, BH_LIT("mx1.Example"), BH_DNS_TLSA, 1232, &buf),
                     BH_OK);
    const struct bh_slice want = BH_LIT("\x12\x34\x01\x20\0\1\0\0\0\0\0\1\3mx1\7example\0\0\x34\0\1"
                                        "\0\0\x29\x04\xd0\0\0\0\0\0\0");
    assert_true(bh_slice_eq(bh_buf_slice(&buf), want));
    buf.len = 0;
    assert_int_equal(bh_dns_write_query(1, BH_LIT("a..b"), BH_DNS_A, 0, &buf), BH_EINVAL);
    buf.cap = 20;
    assert_int_equal(bh_dns_write_query(1, BH_LIT("example"), BH_DNS_A, 0, &buf), BH_ELIMIT);
}

static void names_are_normalised(void **unused)
{
    (void)unused;
    char long_label[65];
    memset(long_label, 'a', sizeof(long_label));
    static const struct {
        const char *in;
        const char *out; /* NULL: refused */
    } cases[] = {
        {"Example.COM.", "example.com"},
        {"", ""},
        {".", ""},
        {"a..b", NULL},
        {".a", NULL},
        {"a\\", NULL},
        {"a\\999", NULL},
        {"a\\.b.c", "a\\.b.c"},
        {"a\\032b", "a\\032b"},
        {"a b", "a\\032b"},
        {"_25._tcp.x", "_25._tcp.x"},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char storage[BH_DNS_NAME_MAX];
        struct bh_buf buf = bh_buf(storage, sizeof(storage));
        const enum bh_status status = bh_dns_name_normalise(bh_slice_str(cases[i].in), &buf);
        assert_int_equal(status, cases[i].out != NULL ? BH_OK : BH_EINVAL);
        assert_true(cases[i].out == NULL ||
                    bh_slice_eq(bh_buf_slice(&buf), bh_slice_str(cases[i].out)));
    }
    char storage[BH_DNS_NAME_MAX];
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    assert_int_equal(bh_dns_name_normalise(bh_slice(long_label, 63), &buf), BH_OK);
    assert_int_equal(bh_dns_name_normalise(bh_slice(long_label, 64), &buf), BH_EINVAL);
    assert_true(bh_dns_name_is_host(BH_LIT("mx-1.a_b.example")));
    assert_false(bh_dns_name_is_host(BH_LIT("a\\032b")));
    assert_false(bh_dns_name_is_host(BH_LIT("")));
    assert_false(bh_dns_name_is_host(BH_LIT("a..b")));
}

/* ---- libresolv as the second opinion ---- */

static unsigned oracle_count(uint16_t type, const char *owner)
{
    ns_msg msg;
    ns_rr rr;
    unsigned count = 0;
    if (ns_initparse(built.octets, (int)built.len, &msg) != 0) {
        return UINT32_MAX;
    }
    for (int i = 0; i < ns_msg_count(msg, ns_s_an); i++) {
        if (ns_parserr(&msg, ns_s_an, i, &rr) != 0) {
            return UINT32_MAX;
        }
        if (ns_rr_type(rr) != type || ns_rr_class(rr) != ns_c_in ||
            strcasecmp(ns_rr_name(rr), owner) != 0) {
            continue;
        }
        char exchange[NS_MAXDNAME];
        if (ns_rr_rdlen(rr) < 3 ||
            ns_name_uncompress(built.octets, built.octets + built.len, ns_rr_rdata(rr) + 2,
                               exchange, sizeof(exchange)) < 0) {
            return UINT32_MAX;
        }
        count++;
    }
    return count;
}

/* Any message, whole or damaged in one place: what we take, libresolv takes with as many records.
 */
static void libresolv_agrees(void **unused)
{
    (void)unused;
    struct bh_rng rng;
    bh_rng_seed(&rng, 20);
    unsigned both = 0;
    for (unsigned round = 0; round < 20000; round++) {
        compressed((unsigned)(12 + bh_rng_below(&rng, 3)));
        for (uint64_t i = bh_rng_below(&rng, 4); i > 0; i--) {
            dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_MX, 60, "10 mx.example");
        }
        dns_build_text(&built, DNS_ANSWER, "a.example", BH_DNS_A, 60, "192.0.2.1");
        if (round % 2 != 0) {
            built.octets[bh_rng_below(&rng, built.len)] = (uint8_t)bh_rng_u64(&rng);
        }
        struct bh_dns_answer a;
        if (read_built("a.example", BH_DNS_MX, &a) != BH_OK) {
            /* Whole, it is refused only for a pointer into the middle of a label. */
            assert_true(round % 2 != 0 || oracle_count(BH_DNS_MX, "a.example") == UINT32_MAX);
            continue;
        }
        if (a.status != BH_DNS_FOUND) {
            assert_int_equal(round % 2, 1);
            continue;
        }
        char owner[BH_DNS_NAME_MAX + 1];
        snprintf(owner, sizeof(owner), "%.*s", BH_FMT(a.name));
        assert_int_equal(a.records_len, oracle_count(BH_DNS_MX, owner));
        both++;
    }
    assert_true(both > 5000);
}

static int open_arena(void **unused)
{
    (void)unused;
    bh_arena_init(&arena, (size_t)1 << 20);
    return 0;
}

static int close_arena(void **unused)
{
    (void)unused;
    bh_arena_fini(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_of_each_type),
        cmocka_unit_test(aliases_are_followed_inside),
        cmocka_unit_test(denials_and_failures),
        cmocka_unit_test(opt_records_are_read),
        cmocka_unit_test(pointers_lead_backwards_only),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(queries_are_written),
        cmocka_unit_test(names_are_normalised),
        cmocka_unit_test(libresolv_agrees),
    };
    return cmocka_run_group_tests_name("dns_message", tests, open_arena, close_arena);
}
