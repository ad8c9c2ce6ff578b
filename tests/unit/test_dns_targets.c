#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "bh/mx_targets.h"

/* A world of answers as text: "name TYPE data", data a list, or nxdomain, nodata, servfail, bogus,
 * timeout. A name that isn't there has no data of the type. A "!" before the data clears AD. */
struct fact {
    const char *name;
    uint16_t type;
    const char *data;
};

static struct bh_arena arena;

static enum bh_dns_status status_of(const char *data)
{
    static const struct {
        const char *word;
        enum bh_dns_status status;
    } words[] = {
        {"nxdomain", BH_DNS_NXDOMAIN}, {"nodata", BH_DNS_NODATA},   {"servfail", BH_DNS_SERVFAIL},
        {"bogus", BH_DNS_BOGUS},       {"timeout", BH_DNS_TIMEOUT}, {"overload", BH_DNS_OVERLOAD},
    };
    for (size_t i = 0; i < BH_COUNT(words); i++) {
        if (strcmp(words[i].word, data) == 0) {
            return words[i].status;
        }
    }
    return BH_DNS_FOUND;
}

static void fill(const char *data, uint16_t type, struct bh_dns_answer *answer,
                 struct bh_dns_record *records)
{
    struct bh_slice rest = bh_slice_str(data);
    answer->status = status_of(data);
    answer->records = records;
    if (answer->status != BH_DNS_FOUND) {
        return;
    }
    for (struct bh_slice word; (word = bh_slice_word(&rest)).len > 0;) {
        struct bh_dns_record *record = &records[answer->records_len++];
        *record = (struct bh_dns_record){.name = BH_EMPTY};
        if (type == BH_DNS_MX) {
            const size_t colon = bh_slice_find(word, ':');
            uint64_t preference = 0;
            assert_true(bh_slice_u64(bh_slice_take(word, colon), 65535, &preference));
            record->preference = (uint16_t)preference;
            record->name = bh_slice_skip(word, colon + 1);
        } else {
            assert_true(bh_ip_parse(word, &record->ip));
        }
    }
}

static void answer_query(const struct fact *facts, const struct bh_target_query *query,
                         struct bh_target_plan *plan)
{
    struct bh_dns_record records[64];
    struct bh_dns_answer answer = {
        .type = query->type, .secure = true, .ttl_s = 100, .status = BH_DNS_NODATA};
    answer.name = query->name;
    for (; facts->name != NULL; facts++) {
        if (facts->type == query->type && bh_slice_eq(bh_slice_str(facts->name), query->name)) {
            answer.secure = facts->data[0] != '!';
            fill(facts->data + (answer.secure ? 0 : 1), query->type, &answer, records);
        }
    }
    if (!bh_dns_is_answer(answer.status)) {
        answer.secure = false;
        answer.ttl_s = 5;
    }
    bh_target_plan_answer(plan, query->tag, &answer);
}

static struct bh_target_list make_list(const struct bh_target_request *request,
                                       const struct fact *facts, uint64_t seed)
{
    struct bh_target_plan *plan = NULL;
    struct bh_target_query query;
    struct bh_target_list list;
    struct bh_rng rng;
    bh_rng_seed(&rng, seed);
    bh_arena_reset(&arena);
    assert_int_equal(bh_target_plan_init(request, &arena, &plan), BH_OK);
    while (bh_target_plan_next_query(plan, &query)) {
        assert_false(bh_target_plan_is_complete(plan));
        answer_query(facts, &query, plan);
    }
    assert_int_equal(bh_target_plan_finish(plan, &rng, &list), BH_OK);
    return list;
}

/* "ip ip ip" in the order to try; the reason if there is none. */
static const char *text_of(const struct bh_target_list *list, char text[1024])
{
    struct bh_buf buf = bh_buf(text, 1024);
    text[0] = '\0';
    for (size_t i = 0; i < list->targets_len; i++) {
        char ip[BH_IP_TEXT_MAX];
        assert_int_equal(
            bh_buf_printf(&buf, "%s%s", i > 0 ? " " : "", bh_ip_text(&list->targets[i].ip, ip)),
            BH_OK);
    }
    assert_int_equal(list->usable, list->targets_len > 0);
    return list->usable ? text : bh_happened_name(list->happened);
}

static const struct fact facts[] = {
    {"two.test", BH_DNS_MX, "20:b.test 10:a.test"},
    {"a.test", BH_DNS_A, "192.0.2.1 192.0.2.1"},
    {"a.test", BH_DNS_AAAA, "2001:db8::1"},
    {"b.test", BH_DNS_A, "192.0.2.2"},
    {"implicit.test", BH_DNS_A, "192.0.2.3"},
    {"nothing.test", BH_DNS_A, "nodata"},
    {"gone.test", BH_DNS_MX, "nxdomain"},
    {"null.test", BH_DNS_MX, "0:"},
    {"dot.test", BH_DNS_MX, "0: 10:b.test"},
    {"sick.test", BH_DNS_MX, "servfail"},
    {"slow.test", BH_DNS_MX, "timeout"},
    {"forged.test", BH_DNS_MX, "bogus"},
    {"ours.test", BH_DNS_MX, "overload"},
    {"noaddr.test", BH_DNS_MX, "10:x.test 20:y.test"},
    {"noaddr.test", BH_DNS_A, "192.0.2.99"}, /* never a fallback when there are MX records */
    {"x.test", BH_DNS_A, "nxdomain"},
    {"x.test", BH_DNS_AAAA, "nxdomain"},
    {"partsick.test", BH_DNS_MX, "10:x.test 20:s.test"},
    {"s.test", BH_DNS_A, "servfail"},
    {"s.test", BH_DNS_AAAA, "timeout"},
    {"halfsick.test", BH_DNS_MX, "10:h.test"},
    {"h.test", BH_DNS_A, "192.0.2.7"},
    {"h.test", BH_DNS_AAAA, "servfail"},
    {"loop.test", BH_DNS_MX, "10:self.test 20:b.test"},
    {"backup.test", BH_DNS_MX, "10:b.test 20:self.test 20:a.test 30:h.test"},
    {"byip.test", BH_DNS_MX, "10:b.test 20:me.test 30:a.test"},
    {"me.test", BH_DNS_A, "198.51.100.5"},
    {"me.test", BH_DNS_AAAA, "2001:db8::5"},
    {"self.test", BH_DNS_A, "192.0.2.250"},
    {"local.test", BH_DNS_MX, "10:lo.test"},
    {"lo.test", BH_DNS_A, "127.0.0.1"},
    {"lo.test", BH_DNS_AAAA, "::1"},
    {"mapped.test", BH_DNS_MX, "10:m.test"},
    {"m.test", BH_DNS_AAAA, "::ffff:127.0.0.1 ::ffff:10.1.2.3"},
    {"zero.test", BH_DNS_MX, "10:z.test"},
    {"z.test", BH_DNS_A, "0.0.0.0 255.255.255.255 224.0.0.1"},
    {"private.test", BH_DNS_MX, "10:p.test 20:b.test"},
    {"p.test", BH_DNS_A, "10.1.2.3"},
    {"odd.test", BH_DNS_MX, "10:bad\\032name 20:b.test"},
    {"many.test", BH_DNS_MX, "10:many-a.test 20:b.test"},
    {"many-a.test", BH_DNS_A,
     "192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14 192.0.2.15 192.0.2.16 192.0.2.17"},
    {"plainmx.test", BH_DNS_MX, "!10:a.test"},
    {"plainaddr.test", BH_DNS_MX, "10:u.test"},
    {"u.test", BH_DNS_A, "!192.0.2.8"},
    {NULL, 0, NULL},
};

static struct bh_target_filter filter(void)
{
    static const struct bh_slice names[] = {{"Self.test.", 10}, {"other.self.test", 15}};
    static struct bh_own_address addresses[2];
    static struct bh_net nets[1];
    assert_true(bh_ip_parse(BH_LIT("198.51.100.5"), &addresses[0].ip));
    addresses[0].port = 25;
    assert_true(bh_ip_parse(BH_LIT("192.0.2.2"), &addresses[1].ip));
    addresses[1].port = 2525; /* our other port: no loop on 25 */
    assert_true(bh_net_parse(BH_LIT("10.0.0.0/8"), &nets[0]));
    return (struct bh_target_filter){
        .own_names = names,
        .own_names_len = 2,
        .own_addresses = addresses,
        .own_addresses_len = 2,
        .forbidden = nets,
        .forbidden_len = 1,
    };
}

static void domains(void **unused)
{
    (void)unused;
    static const struct {
        const char *domain;
        const char *want;
    } cases[] = {
        {"two.test", "2001:db8::1 192.0.2.1 192.0.2.2"},
        {"TWO.test.", "2001:db8::1 192.0.2.1 192.0.2.2"},
        {"implicit.test", "192.0.2.3"},
        {"nothing.test", "no_address"},
        {"gone.test", "no_such_domain"},
        {"null.test", "null_mx"},
        {"dot.test", "192.0.2.2"},
        {"sick.test", "dns_failed"},
        {"slow.test", "dns_timeout"},
        {"forged.test", "dns_bogus"},
        {"ours.test", "our_resources"},
        {"noaddr.test", "no_address"},
        {"partsick.test", "dns_failed"},
        {"halfsick.test", "192.0.2.7"},
        {"loop.test", "mail_loop"},
        {"self.test", "mail_loop"},
        {"backup.test", "192.0.2.2"},
        {"byip.test", "192.0.2.2"},
        {"local.test", "no_allowed_target"},
        {"mapped.test", "no_allowed_target"},
        {"zero.test", "no_allowed_target"},
        {"private.test", "192.0.2.2"},
        {"odd.test", "192.0.2.2"},
        {"[192.0.2.9]", "192.0.2.9"},
        {"[IPv6:2001:db8::9]", "2001:db8::9"},
        {"[127.0.0.1]", "no_allowed_target"},
        {"[10.1.2.3]", "no_allowed_target"},
        {"[198.51.100.5]", "mail_loop"},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char text[1024];
        const struct bh_target_request request = {
            .domain = bh_slice_str(cases[i].domain), .port = 25, .filter = filter()};
        const struct bh_target_list list = make_list(&request, facts, i);
        assert_string_equal(text_of(&list, text), cases[i].want);
    }
    static const char *const bad[] = {"", "a..b", "192.0.2.1 x", "[::1", "exa mple.com"};
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        struct bh_target_plan *plan = NULL;
        const struct bh_target_request request = {.domain = bh_slice_str(bad[i]), .port = 25};
        bh_arena_reset(&arena);
        assert_int_equal(bh_target_plan_init(&request, &arena, &plan), BH_EINVAL);
    }
}

static void what_a_list_says(void **unused)
{
    (void)unused;
    struct bh_target_request request = {
        .domain = BH_LIT("byip.test"), .port = 25, .filter = filter()};
    struct bh_target_list list = make_list(&request, facts, 1);
    assert_int_equal(list.hosts_len, 3);
    assert_int_equal(list.hosts[0].state, BH_HOST_USABLE);
    assert_int_equal(list.hosts[1].state, BH_HOST_SELF);
    assert_int_equal(list.hosts[2].state, BH_HOST_NOT_BETTER);
    assert_true(bh_slice_eq(list.site, BH_LIT("a.test,b.test,me.test")));
    assert_true(list.mx_secure && list.hosts[0].mx_secure && list.hosts[0].address_secure);
    assert_int_equal(list.ttl_s, 100);

    request.domain = BH_LIT("plainmx.test");
    list = make_list(&request, facts, 1);
    assert_false(list.mx_secure || list.hosts[0].mx_secure);
    assert_true(list.hosts[0].address_secure);

    request.domain = BH_LIT("plainaddr.test");
    list = make_list(&request, facts, 1);
    assert_true(list.hosts[0].mx_secure);
    assert_false(list.hosts[0].address_secure);

    /* A denied MX with AD is a secure way to the domain itself. */
    request.domain = BH_LIT("implicit.test");
    list = make_list(&request, facts, 1);
    assert_true(list.hosts[0].implicit && list.hosts[0].mx_secure);

    /* One family failed: usable, but DANE must know; not asked again every 5 s for it. */
    request.domain = BH_LIT("halfsick.test");
    list = make_list(&request, facts, 1);
    assert_true(list.hosts[0].incomplete);
    assert_int_equal(list.ttl_s, 60);
    request.domain = BH_LIT("partsick.test");
    list = make_list(&request, facts, 1);
    assert_int_equal(list.ttl_s, 5);
    assert_int_equal(list.hosts[1].state, BH_HOST_FAILED);

    /* Seven addresses do not keep the second host out of the round. */
    request.domain = BH_LIT("many.test");
    list = make_list(&request, facts, 1);
    assert_int_equal(list.targets_len, 8);
    assert_int_equal(list.round_len, 5);
    assert_ptr_equal(list.targets[2].host, &list.hosts[0]);
    assert_ptr_equal(list.targets[3].host, &list.hosts[1]);
    request.round_max = 2;
    list = make_list(&request, facts, 1);
    assert_int_equal(list.round_len, 2);

    struct bh_arena other;
    struct bh_target_list copy;
    char text[1024];
    char text_copy[1024];
    bh_arena_init(&other, (size_t)1 << 20);
    assert_int_equal(bh_target_list_copy(&list, &other, &copy), BH_OK);
    assert_string_equal(text_of(&list, text), text_of(&copy, text_copy));
    assert_ptr_equal(copy.targets[3].host, &copy.hosts[1]);
    bh_arena_fini(&other);
}

static void families(void **unused)
{
    (void)unused;
    static const struct {
        enum bh_family_preference family;
        const char *want;
    } cases[] = {
        {BH_FAMILY_PREFER_6, "2001:db8::1 192.0.2.1 192.0.2.2"},
        {BH_FAMILY_PREFER_4, "192.0.2.1 2001:db8::1 192.0.2.2"},
        {BH_FAMILY_ONLY_6, "2001:db8::1"},
        {BH_FAMILY_ONLY_4, "192.0.2.1 192.0.2.2"},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char text[1024];
        const struct bh_target_request request = {
            .domain = BH_LIT("two.test"), .port = 25, .family = cases[i].family};
        const struct bh_target_list list = make_list(&request, facts, i);
        assert_string_equal(text_of(&list, text), cases[i].want);
    }
}

static void equals_are_shuffled(void **unused)
{
    (void)unused;
    static const struct fact equal[] = {
        {"equal.test", BH_DNS_MX, "10:a.test 10:b.test 5:h.test"},
        {"a.test", BH_DNS_A, "192.0.2.1"},
        {"b.test", BH_DNS_A, "192.0.2.2"},
        {"h.test", BH_DNS_A, "192.0.2.7"},
        {NULL, 0, NULL},
    };
    const struct bh_target_request request = {.domain = BH_LIT("equal.test"), .port = 25};
    unsigned a_first = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        const struct bh_target_list list = make_list(&request, equal, seed);
        assert_int_equal(list.targets_len, 3);
        assert_int_equal(list.targets[0].ip.bytes[3], 7);
        a_first += list.targets[1].ip.bytes[3] == 1 ? 1 : 0;
        assert_true(bh_slice_eq(list.site, BH_LIT("a.test,b.test,h.test")));
    }
    assert_true(a_first > 400 && a_first < 600);
}

static void smarthosts(void **unused)
{
    (void)unused;
    static const struct {
        struct bh_target_smarthost hosts[2];
        size_t len;
        const char *want;
        const char *site;
    } cases[] = {
        {{{.host = {"b.test", 6}, .port = 587, .priority = 2},
          {.host = {"H.test", 6}, .priority = 1}},
         2,
         "192.0.2.7 192.0.2.2",
         "b.test:587,h.test:25"},
        {{{.host = {"two.test", 8}, .lookup_mx = true}},
         1,
         "2001:db8::1 192.0.2.1 192.0.2.2",
         "a.test:25,b.test:25"},
        /* What the operator wrote as an address is meant. */
        {{{.host = {"127.0.0.1", 9}, .port = 2525}}, 1, "127.0.0.1", "127.0.0.1:2525"},
        {{{.host = {"[::1]", 5}, .port = 24}}, 1, "::1", "[::1]:24"},
        {{{.host = {"10.1.2.3", 8}}}, 1, "10.1.2.3", "10.1.2.3:25"},
        {{{.host = {"lo.test", 7}}}, 1, "no_allowed_target", "lo.test:25"},
        /* Ourselves, but on the other port it is somebody else. */
        {{{.host = {"me.test", 7}, .port = 26}}, 1, "2001:db8::5 198.51.100.5", "me.test:26"},
        {{{.host = {"me.test", 7}}}, 1, "no_allowed_target", "me.test:25"},
        /* A smarthost that does not exist is a mistake of ours: it bounces nothing. */
        {{{.host = {"x.test", 6}}}, 1, "our_config", "x.test:25"},
        {{{.host = {"gone.test", 9}, .lookup_mx = true}}, 1, "our_config", ""},
        {{{.host = {"null.test", 9}, .lookup_mx = true}}, 1, "our_config", ""},
        {{{.host = {"s.test", 6}}, {.host = {"x.test", 6}}},
         2,
         "dns_failed",
         "s.test:25,x.test:25"},
        {{{.host = {"s.test", 6}}, {.host = {"b.test", 6}}}, 2, "192.0.2.2", "b.test:25,s.test:25"},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char text[1024];
        const struct bh_target_request request = {.smarthosts = cases[i].hosts,
                                                  .smarthosts_len = cases[i].len,
                                                  .port = 25,
                                                  .filter = filter()};
        const struct bh_target_list list = make_list(&request, facts, i);
        assert_string_equal(text_of(&list, text), cases[i].want);
        assert_true(bh_slice_eq(list.site, bh_slice_str(cases[i].site)));
        assert_true(list.hosts_len == 0 || cases[i].hosts[0].lookup_mx || list.mx_secure);
    }
}

static void weights_share(void **unused)
{
    (void)unused;
    const struct bh_target_smarthost hosts[] = {
        {.host = BH_LIT("192.0.2.1"), .priority = 1, .weight = 10},
        {.host = BH_LIT("192.0.2.2"), .priority = 1, .weight = 1},
        {.host = BH_LIT("192.0.2.3"), .priority = 0, .weight = 0},
    };
    const struct bh_target_request request = {
        .smarthosts = hosts, .smarthosts_len = 3, .port = 587};
    unsigned first = 0;
    for (uint64_t seed = 0; seed < 1100; seed++) {
        const struct bh_target_list list = make_list(&request, facts, seed);
        assert_int_equal(list.targets_len, 3);
        assert_int_equal(list.targets[0].ip.bytes[3], 3);
        first += list.targets[1].ip.bytes[3] == 1 ? 1 : 0;
    }
    assert_true(first > 950 && first < 1050);
}

/* At whatever octet the arena ends, the result is a refusal, not a crash. */
static void a_small_arena_is_an_ordinary_result(void **unused)
{
    (void)unused;
    bool finished = false;
    for (size_t cap = 0; !finished; cap += 512) {
        struct bh_arena small;
        struct bh_target_plan *plan = NULL;
        struct bh_target_query query;
        struct bh_target_list list;
        struct bh_rng rng;
        bh_rng_seed(&rng, 1);
        bh_arena_init(&small, cap);
        const struct bh_target_request request = {.domain = BH_LIT("two.test"), .port = 25};
        enum bh_status status = bh_target_plan_init(&request, &small, &plan);
        if (status == BH_OK) {
            while (bh_target_plan_next_query(plan, &query)) {
                answer_query(facts, &query, plan);
            }
            status = bh_target_plan_finish(plan, &rng, &list);
        }
        assert_true(status == BH_OK || status == BH_ENOMEM);
        finished = status == BH_OK;
        bh_arena_fini(&small);
        assert_true(cap < (size_t)1 << 20);
    }
}

static int open_arena(void **unused)
{
    (void)unused;
    bh_arena_init(&arena, (size_t)4 << 20);
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
        cmocka_unit_test(domains),
        cmocka_unit_test(what_a_list_says),
        cmocka_unit_test(families),
        cmocka_unit_test(equals_are_shuffled),
        cmocka_unit_test(smarthosts),
        cmocka_unit_test(weights_share),
        cmocka_unit_test(a_small_arena_is_an_ordinary_result),
    };
    return cmocka_run_group_tests_name("dns_targets", tests, open_arena, close_arena);
}
