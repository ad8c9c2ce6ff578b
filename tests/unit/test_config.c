#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config_fixture.h"

#define EXAMPLES BH_TEST_DATA "/../../tools/examples/"

static const struct bh_config *must_parse(const char *text)
{
    const char *told = NULL;
    const struct bh_config *config = parse_text(text, &told);
    if (config == NULL) {
        print_error("%s", told);
    }
    assert_non_null(config);
    return config;
}

static const struct bh_connector *connector(const struct bh_config *config, const char *name)
{
    const struct bh_connector *found = bh_config_connector(config, bh_slice_str(name));
    assert_non_null(found);
    return found;
}

#define ASSERT_SLICE(slice, text) assert_true(bh_slice_eq((slice), bh_slice_str(text)))

static void nothing_stated_is_a_working_configuration(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse("listen 127.0.0.1:0 { relay-from 127.0.0.1 }\n"
                                                "queue { path /q }\n");
    assert_int_equal(config->connectors_count, 1);
    const struct bh_connector *c = connector(config, "default");
    assert_int_equal(c->route, BH_ROUTE_MX);
    assert_int_equal(c->tls.demand.mode, BH_TLS_AUTO);
    assert_int_equal(c->tls.demand.min_version, BH_TLS_VERSION_1_2);
    assert_int_equal(c->limits.per_destination, 20);
    assert_int_equal(c->limits.initial, 5);
    assert_int_equal(c->limits.per_host, 10);
    assert_int_equal(c->limits.connections, 0);
    assert_int_equal(c->limits.idle_ms, 5000);
    assert_int_equal(c->timeouts.dot_ms, 600000);
    assert_int_equal(c->timeouts.connect_ms, 30000);
    assert_int_equal(c->retry.intervals.count, 6);
    assert_int_equal(c->retry.glitch_count, 3);
    assert_int_equal(c->retry.glitch_ms, 60000);
    assert_int_equal(c->retry.expire_ms, 5 * 86400000ULL);
    ASSERT_SLICE(c->helo, "this.host.example");
    assert_int_equal(config->engine.connections, 500);
    assert_int_equal(config->engine.min_rate, 500);
    ASSERT_SLICE(config->queue.path, "/q");
    assert_int_equal(config->listens_count, 1);
    assert_int_equal(config->listens[0].limits.message_size, 35 << 20);
    assert_int_equal(config->queue.fresh_window, 50000);
    bh_config_unref(config);
}

static const char good[] =
    "retry urgent { intervals 30s 1m; warn-after 30m; expire 4h }\n"
    "defaults {\n"
    "  helo out1.us.example\n"
    "  limits { connections 7; per-destination 3 }\n"
    "  on reply 5xx -> bounce\n"
    "}\n"
    "connector bank\n{\n"
    "  domains [ bank.example\n *.BANK.example.  b\xC3\xBC"
    "cher.example ]\n"
    "  tls verify { ca-file ca.pem; names mx.bank.example .b.example; if-unmet bounce }\n"
    "  limits { rate 60/min; per-host-connection-rate 5/s }\n"
    "  retry urgent\n"
    "  on reply 450 \"/try later/\" -> slow\n"
    "  timeouts { dot 15m }\n"
    "}\n"
    "connector hub { senders @Corp.example; smarthosts [ mx.hub.example:587 weight 10\n"
    "  [direct.hub.example] priority 5\n 192.0.2.7:2525 [2001:db8::1]:26 ]; port 24\n"
    "  tls pin { pins sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= }\n"
    "  retry { intervals 1m; expire 2h; warn-after never }\n"
    "  auth auto { user \"a b\\\"c\"; password-file /p } }\n";

static void values_are_resolved_from_defaults_and_own(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(good);
    const struct bh_connector *bank = connector(config, "bank");
    assert_int_equal(bank->domains.count, 3);
    ASSERT_SLICE(bank->domains.at[1], "*.bank.example");
    ASSERT_SLICE(bank->domains.at[2], "xn--bcher-kva.example");
    ASSERT_SLICE(bank->helo, "out1.us.example");
    assert_int_equal(bank->limits.connections, 7);
    assert_int_equal(bank->limits.per_destination, 3);
    assert_int_equal(bank->limits.initial, 3); /* never above per-destination */
    const struct bh_rate rate = bank->limits.rates[BH_RATE_CONNECTOR][BH_RATE_MESSAGES];
    assert_int_equal(rate.count, 60);
    assert_int_equal(rate.per_ms, 60000);
    assert_int_equal(bank->limits.rates[BH_RATE_HOST][BH_RATE_CONNECTIONS].count, 5);
    assert_int_equal(bank->limits.rates[BH_RATE_HOST][BH_RATE_CONNECTIONS].per_ms, 1000);
    assert_int_equal(bank->limits.rates[BH_RATE_HOST][BH_RATE_MESSAGES].count, 0);
    char rate_text[BH_RATE_TEXT_MAX];
    assert_string_equal(bh_rate_text(rate, rate_text), "60/min");
    assert_string_equal(bh_rate_text((struct bh_rate){0}, rate_text), "unlimited");
    assert_false(bank->tls.demand.match_domain);
    assert_int_equal(bank->tls.demand.names.count, 2);
    ASSERT_SLICE(bank->tls.demand.ca_file, "ca.pem");
    assert_int_equal(bank->tls.if_unmet, BH_IF_UNMET_BOUNCE);
    ASSERT_SLICE(bank->retry.name, "urgent");
    assert_int_equal(bank->retry.destination_intervals.count, 2);
    assert_int_equal(bank->retry.glitch_count, 3);
    assert_int_equal(bank->timeouts.dot_ms, 900000);
    assert_int_equal(bank->timeouts.mail_ms, 300000);
    assert_int_equal(bank->replies.count, 2);
    assert_int_equal(bank->replies.at[0].action, BH_REPLY_SLOW); /* its own first */

    const struct bh_connector *hub = connector(config, "hub");
    ASSERT_SLICE(hub->domains.at[0], "*");
    ASSERT_SLICE(hub->senders.at[0], "@corp.example");
    assert_int_equal(hub->route, BH_ROUTE_SMARTHOSTS);
    assert_int_equal(hub->smarthosts.count, 4);
    assert_true(hub->smarthosts.at[0].mx_lookup);
    assert_int_equal(hub->smarthosts.at[0].weight, 10);
    assert_false(hub->smarthosts.at[1].mx_lookup);
    assert_int_equal(hub->smarthosts.at[1].port, 24);
    assert_int_equal(hub->smarthosts.at[1].priority, 5);
    assert_int_equal(hub->smarthosts.at[2].ip.family, 4);
    assert_int_equal(hub->smarthosts.at[2].port, 2525);
    assert_int_equal(hub->smarthosts.at[3].ip.family, 6);
    assert_int_equal(hub->limits.idle_ms, 30000);
    assert_int_equal(hub->tls.demand.pins.at[0][0], 0xe3);
    assert_int_equal(hub->tls.demand.pins.at[0][31], 0x55);
    ASSERT_SLICE(hub->auth.user, "a b\"c");
    assert_int_equal(hub->retry.warn_after_ms, 0);
    assert_int_equal(hub->retry.name.len, 0);
    bh_config_unref(config);
}

/* Every mistake of a file in one run: what, where, what is allowed. */
static const struct {
    const char *text;
    const char *errors;
} bad[] = {
    {"retry standard { intervals 5m 5x }\n"
     "connector a {\n"
     "    domains a.example\n"
     "    tls verfy\n"
     "    tls { min_version TLSv1.2 }\n"
     "    limits {\n"
     "        rate 60/minute\n"
     "        connections 0\n"
     "    timeouts { dot 60s }\n"
     "    }\n"
     "}\n"
     "conector b { }\n",
     "t.conf:1:31: error: expected times such as 5m 15m 1h, got '5x'\n"
     "t.conf:4:9: error: tls must be off, opportunistic, encrypt, verify, pin, dane, dane-only or "
     "auto; got 'verfy' (did you mean 'verify'?)\n"
     "t.conf:5:5: error: 'tls' is stated twice; the first is at t.conf:4\n"
     "t.conf:7:14: error: expected a rate such as 5/s, 60/min, 1000/h or 20000/d, or unlimited, "
     "got "
     "'60/minute'\n"
     "t.conf:8:21: error: 'connections' must be from 1 to 1000000, or unlimited; got '0'\n"
     "t.conf:9:5: error: unknown setting 'timeouts' in limits; is the '{' of line 6 closed?\n"
     "t.conf:12:1: error: unknown statement 'conector' (did you mean 'connector'?)\n"},
    {"connector a {\n domains a.example\n rate 60/min\n timeout 5s\n limits { message-size 5M "
     "}\n}\n"
     "queue { path q\n zebra 1 }\nzebra 2\n",
     "t.conf:3:2: error: unknown setting 'rate' in connector; it goes into its block 'limits { ... "
     "}'\n"
     "t.conf:4:2: error: unknown setting 'timeout' in connector (did you mean 'timeouts'?)\n"
     "t.conf:8:2: error: unknown setting 'zebra' in queue; allowed: path, max-size, reserve, "
     "fresh-window\n"
     "t.conf:9:1: error: unknown statement 'zebra'; allowed: engine, listen, queue, resolver, "
     "retry, defaults, connector, include\n"},
    {"connector a {\n domains a.example\n tls off {\n names x.example\n",
     "t.conf:3:2: warning: tls off also switches DANE and MTA-STS off for these domains\n"
     "t.conf:4:2: error: 'names' has no meaning in tls off; it goes with tls verify, or dane with "
     "fallback-mode verify\n"
     "t.conf:5:1: error: 'tls' block opened at line 3 is not closed\n"
     "t.conf:5:1: error: 'connector' block opened at line 1 is not closed\n"},
    {"connector a { domains a.example; timeouts { dot 60s }; tls verify { ca-file /missing.pem } "
     "}\n",
     "t.conf:1:49: error: 'dot' must be from 10m to 1h; got '60s'\n"
     "t.conf:1:77: warning: 'ca-file' /missing.pem: no such file; until it is there mail waits\n"},
    {"connector a { domains a.example }\nconnector a { domains b.example }\n",
     "t.conf:2:11: error: connector 'a' is stated twice; the first is at t.conf:1\n"},
    {"connector a { domains a.example }\nconnector b { domains *.x a.example }\n",
     "t.conf:2:15: error: connectors 'b' and 'a' (t.conf:1) both take 'a.example' under the same "
     "conditions and cost; give one a higher 'cost', or another condition\n"},
    {"connector a { domains x.example; tls verify }\n"
     "connector b { domains x.example; cost 5; failover yes; tls encrypt }\n",
     "t.conf:2:42: error: connector 'b' may take over 'x.example' from 'a' with a weaker TLS "
     "demand "
     "(encrypt, instead of verify)\n"},
    {"resolver { trusted yes }\nconnector a { domains x.example }\n"
     "connector b { domains x.example; cost 5; failover yes; resolver { trusted no } }\n",
     "t.conf:3:42: error: connector 'b' may take over 'x.example' from 'a' with a weaker TLS "
     "demand "
     "(auto without a trusted resolver, instead of auto)\n"},
    {"connector a { domains x.example; tls verify { exception { until 2030-01-01; reason r; mode "
     "encrypt } } }\n"
     "connector b { domains x.example; cost 5; failover yes; tls verify { exception { until "
     "2031-01-01; reason r; mode encrypt } } }\n",
     "t.conf:2:42: error: connector 'b' may take over 'x.example' from 'a' with a weaker TLS "
     "demand "
     "(verify, instead of verify)\n"},
    {"defaults { domains a.example; resolver { trusted yes } }\n",
     "t.conf:1:12: error: 'domains' belongs to a connector, not to defaults\n"
     "t.conf:1:31: error: the resolver of all connectors is the block 'resolver'\n"},
    {"connector a { domains a.example; smarthosts [ h.example ]; tls encrypt\n"
     " auth plain { user u; password-file /p } }\n",
     "t.conf:2:2: error: credentials go to an authenticated peer only: use tls verify, pin or "
     "dane-only, or allow-unauthenticated-peer { until DATE; reason \"...\" }\n"},
    {"connector a { domains a.example; tls verify\n"
     " auth plain { user u; password-file credential:a/b } }\n",
     "t.conf:2:2: error: auth needs a 'password-file'\n"
     "t.conf:2:37: error: 'credential:a/b' names no credential: credential:NAME, as in systemd's "
     "LoadCredential=NAME:...\n"},
    {"listen 127.0.0.1:1 { relay-from certificate }\n"
     "listen 127.0.0.1:2 { auth-file /etc/users }\n"
     "listen 127.0.0.1:3 { relay-from certificate; tls starttls { certificate /c; key /k } }\n"
     "listen 127.0.0.1:4 { relay-from 10.0.0.0/8; tls starttls { certificate /c; key /k; "
     "client-ca /ca } }\n"
     "listen 127.0.0.1:5 { auth-file /missing; limits { line-length 5000 }; tls implicit { "
     "certificate /c; key /k } }\n",
     "t.conf:1:1: error: relay-from certificate needs tls starttls or implicit, with 'client-ca' "
     "or 'client-pins'\n"
     "t.conf:2:22: error: 'auth-file' needs tls starttls or implicit: AUTH is offered inside TLS "
     "only\n"
     "t.conf:3:1: error: relay-from certificate needs tls starttls or implicit, with 'client-ca' "
     "or 'client-pins'\n"
     "t.conf:4:45: warning: 'client-ca' and 'client-pins' give no right: state relay-from "
     "certificate\n"
     "t.conf:5:32: error: 'auth-file' /missing: no such file\n"
     "t.conf:5:63: error: 'line-length' must be from 512 to 4096; got '5000'\n"},
    {"connector a { domains 192.0.2.1 a..b *. [x] }\n",
     "t.conf:1:23: error: an address as a domain is written [192.0.2.1]\n"
     "t.conf:1:33: error: 'a..b' is not a host name\n"
     "t.conf:1:38: error: '' is not a host name\n"
     "t.conf:1:41: error: 'domains' takes domains such as bank.example, *.bank.example, * or "
     "[192.0.2.1]; got '[x]'\n"},
    {"queue { path q; max-size 100M }\nlisten unix:/x\n",
     "t.conf:1:17: error: 'max-size' must be at least twice 'reserve', which is 64 MiB\n"
     "t.conf:2:1: warning: nobody may send through this listener: state relay-from local\n"},
    {"}\n{ x }\n\"a\nlisten 1.2.3.4 { } x\n",
     "t.conf:1:1: error: '}' without an open block\n"
     "t.conf:2:1: error: a block needs a name before its '{'\n"
     "t.conf:3:1: error: this \" is not closed on its line\n"
     "t.conf:4:1: warning: nobody may send through this listener: state relay-from\n"
     "t.conf:4:8: error: expected an address such as 127.0.0.1:2525, [::1]:25, unix:/run/x or "
     "systemd:NAME, got '1.2.3.4'\n"
     "t.conf:4:20: error: unknown statement 'x'; allowed: engine, listen, queue, resolver, retry, "
     "defaults, connector, include\n"},
    {"connector a { domains a.example; retry urgnt; cost 5 6; failover maybe; state; on reply 250 "
     "-> "
     "defer }\nretry urgent { intervals 1m; warn-after 9d }\n",
     "t.conf:1:40: error: no retry schedule is named 'urgnt' (did you mean 'urgent'?)\n"
     "t.conf:1:54: error: 'cost' takes one value; '6' is too much\n"
     "t.conf:1:66: error: expected yes or no, got 'maybe'\n"
     "t.conf:1:73: error: 'state' needs a value: active, held or disabled\n"
     "t.conf:1:89: error: 'on' takes reply 450, 4xx, 4.7.1 or /text/ -> defer, hold, bounce or "
     "slow; "
     "got '250'\n"
     "t.conf:2:30: error: 'warn-after' must be shorter than 'expire', or never\n"},
    {"connector a { domains a.example; tls verify { exception { until 2026-02-30; mode encrypt } } "
     "}",
     "t.conf:1:47: error: 'exception' needs 'until' with a date such as 2026-12-31\n"
     "t.conf:1:47: error: 'exception' needs a 'reason'\n"
     "t.conf:1:65: error: expected a date such as 2026-12-31, got '2026-02-30'\n"},
    {"connector a { domains a.example; tls encrypt { min-version TLSv1.1 } }\n"
     "connector b { domains b.example; tls encrypt { exception { until 2030-01-01; reason r } } }\n"
     "connector c { domains c.example; tls encrypt { exception { until 2030-01-01; reason r; "
     "min-version TLSv1.3 } } }\n"
     "connector d { domains d.example; tls encrypt { exception { min-version TLSv1.0 } } }\n",
     "t.conf:1:48: error: TLSv1.1 is broken (RFC 8996); until a date: exception { until DATE; "
     "reason \"...\"; min-version TLSv1.1 }\n"
     "t.conf:2:48: error: 'exception' needs a 'mode', or a 'min-version': what is allowed until "
     "then\n"
     "t.conf:3:88: error: an exception allows less: 'min-version' TLSv1.3 is above TLSv1.2\n"
     "t.conf:4:48: error: 'exception' needs 'until' with a date such as 2026-12-31\n"
     "t.conf:4:48: error: 'exception' needs a 'reason'\n"
     "t.conf:4:60: warning: TLSv1.0 is broken (RFC 8996)\n"},
    {"defaults { tls { min-version TLSv1.0 } }\nconnector a { domains a.example }\n",
     "t.conf:1:18: error: TLSv1.0 is broken (RFC 8996); until a date: exception { until DATE; "
     "reason \"...\"; min-version TLSv1.0 }\n"},
    {"listen 127.0.0.1:0 { relay-from 127.0.0.1; limits { transactions 17 } }\n"
     "connector a { domains a.example; source 192.0.2.1 192.0.2.2\n"
     " limits { addresses-per-round 6 }; timeouts { quit 5s }; dsn { content-max 1M }\n"
     " retry { intervals 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 11m 12m 13m 14m 15m 16m 17m } }\n"
     "connector b { domains b.example; smarthosts [ a1 a2 a3 a4 a5 a6 a7 a8 a9 b1 b2 b3 b4 b5 b6 "
     "b7 "
     "b8 ] }\n",
     "t.conf:1:66: error: 'transactions' must be from 1 to 16; got '17'\n"
     "t.conf:2:34: error: 'source' takes one IPv4 address, one IPv6 address, or one of each\n"
     "t.conf:3:31: error: 'addresses-per-round' must be from 1 to 5; got '6'\n"
     "t.conf:3:47: error: unknown setting 'quit' in timeouts; allowed: connect, banner, ehlo, "
     "starttls, tls, auth, mail, rcpt, data, block, dot, rset\n"
     "t.conf:3:76: error: 'content-max' must be from 1 to 256K, or none; got '1M'\n"
     "t.conf:4:10: error: 'intervals' takes at most 16 times\n"
     "t.conf:5:34: error: at most 16 smarthosts; got 17\n"},
    {"defaults {\n limits { floor 30 }\n tls pin\n }\n",
     "t.conf:2:11: error: 'floor' 30 is above the ceiling of 20\n"
     "t.conf:3:2: error: tls pin needs 'pins'\n"},
    {"connector a { domains [ a.example\n",
     "t.conf:2:1: error: the list opened at line 1 is not closed by ']'\n"
     "t.conf:2:1: error: 'connector' block opened at line 1 is not closed\n"},
    {"connector x { cost 1 }\nconnector y { domains a; protocol lmtp; family ipv6-only; source "
     "192.0.2.1 }",
     "t.conf:1:1: error: connector 'x' needs 'domains', or a condition: 'senders', 'size-above' or "
     "'size-below'\n"
     "t.conf:2:26: error: protocol lmtp needs 'smarthosts': LMTP is not found by MX (RFC 2033)\n"
     "t.conf:2:59: error: 'source' has no IPv6 address, but 'family' is ipv6-only\n"},
};

static void every_mistake_is_told_with_its_place(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        const char *told = NULL;
        assert_null(parse_text(bad[i].text, &told));
        assert_string_equal(told, bad[i].errors);
    }
}

static void errors_are_bounded_but_all_counted(void **unused)
{
    (void)unused;
    static char text[20000];
    for (size_t i = 0; i < 1000; i++) {
        memcpy(text + i * 10, "conectors\n", 10);
    }
    struct memory_file files[] = {{"t.conf", text}, {NULL, NULL}};
    const struct bh_config_reader reader = memory_reader(files);
    struct bh_config_errors errors;
    const struct bh_config *config = NULL;
    bh_config_errors_init(&errors);
    assert_int_equal(bh_config_parse(&reader, "t.conf", 1, &config, &errors), BH_EINVAL);
    assert_null(config);
    assert_int_equal(errors.errors, 1000);
    assert_int_equal(errors.count, BH_CONFIG_ERRORS_MAX);

    char storage[512];
    struct bh_json json = {.buf = bh_buf(storage, sizeof(storage))};
    bh_config_error_json(&errors.list[3], &json);
    assert_false(json.overflow);
    ASSERT_SLICE(
        bh_buf_slice(&json.buf),
        "{\"file\":\"t.conf\",\"line\":4,\"column\":1,\"level\":"
        "\"error\",\"text\":\"unknown statement 'conectors' (did you mean 'connector'?)\"}");
    bh_config_errors_fini(&errors);
}

static const char *parse_files(struct memory_file *files, const struct bh_config **config)
{
    const struct bh_config_reader reader = memory_reader(files);
    struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    const enum bh_status status = bh_config_parse(&reader, "/c/m.conf", 9, config, &errors);
    assert_int_equal(status, errors.errors > 0 ? BH_EINVAL : BH_OK);
    const char *told = errors_text(&errors);
    bh_config_errors_fini(&errors);
    return told;
}

static void files_include_files(void **unused)
{
    (void)unused;
    struct memory_file files[] = {
        {"/c/d/1.conf", "connector one { domains one.example; include \"one.inc\" }\n"},
        {"/c/d/2.conf", "connector two { domains two.example; tls verify { ca-file ca.pem } }\n"},
        {"/c/d/one.inc", "cost 7\n"},
        {"/c/m.conf", "include d/*.conf\ninclude none/*.conf\n"},
        {NULL, NULL}};
    const struct bh_config *config = NULL;
    assert_string_equal(parse_files(files, &config), "");
    assert_int_equal(config->generation, 9);
    assert_int_equal(connector(config, "one")->cost, 7);
    ASSERT_SLICE(connector(config, "two")->tls.demand.ca_file, "/c/d/ca.pem");
    ASSERT_SLICE(connector(config, "two")->file, "/c/d/2.conf");
    bh_config_unref(config);

    struct memory_file loop[] = {{"/c/a.conf", "include m.conf\n"},
                                 {"/c/m.conf", "include a.conf\ninclude gone.conf\n"},
                                 {NULL, NULL}};
    assert_string_equal(parse_files(loop, &config),
                        "/c/a.conf:1:9: error: /c/m.conf includes itself\n"
                        "/c/m.conf:2:9: error: /c/gone.conf: no such file\n");
    struct memory_file none[] = {{NULL, NULL}};
    assert_string_equal(parse_files(none, &config), "/c/m.conf: error: /c/m.conf: no such file\n");
}

static char *read_whole(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, file) > 0);
    fclose(file);
    return text;
}

/* Parse a real file; its warnings may be whatever. */
static const struct bh_config *parse_example(const char *path)
{
    const struct bh_config_reader reader = bh_config_reader_posix();
    struct bh_config_errors errors;
    const struct bh_config *config = NULL;
    bh_config_errors_init(&errors);
    if (bh_config_parse(&reader, path, 1, &config, &errors) != BH_OK) {
        print_error("%s", errors_text(&errors));
    }
    assert_non_null(config);
    bh_config_errors_fini(&errors);
    return config;
}

static void the_examples_parse(void **unused)
{
    (void)unused;
    const struct bh_config *config = parse_example(EXAMPLES "quickstart.conf");
    assert_int_equal(config->connectors_count, 3);
    assert_int_equal(connector(config, "partner-bank")->tls.demand.mode, BH_TLS_VERIFY);
    assert_int_equal(connector(config, "legacy")->tls.demand.mode, BH_TLS_OFF);
    bh_config_unref(config);
}

/* The annotated example leaves no setting out: each that exists is printed by bh_config_print. */
static void the_annotated_example_names_every_setting(void **unused)
{
    (void)unused;
    char *text = read_whole(EXAMPLES "bridgehead.conf");
    const struct bh_config *config = parse_example(EXAMPLES "bridgehead.conf");
    struct bh_buf out = bh_buf(malloc(1 << 18), 1 << 18);
    assert_non_null(out.ptr);
    assert_int_equal(bh_config_print(config, &out), BH_OK);
    size_t words = 0;
    for (struct bh_slice rest = bh_buf_slice(&out); rest.len > 0;) {
        const size_t end = bh_slice_find(rest, '\n');
        struct bh_slice line = bh_slice_trim(bh_slice(rest.ptr, end));
        const struct bh_slice word = bh_slice_word(&line);
        rest = bh_slice_skip(rest, end + 1);
        if (!bh_slice_eq(word, BH_LIT("}"))) {
            if (bh_slice_find_slice(bh_slice_str(text), word) == strlen(text)) {
                fail_msg("%.*s is not in bridgehead.conf", BH_FMT(word));
            }
            words++;
        }
    }
    assert_true(words > 100);
    free(out.ptr);
    free(text);
    bh_config_unref(config);
}

static void printing_and_parsing_again_changes_nothing(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(good);
    char *text = calloc(1, 1 << 17);
    assert_non_null(text);
    struct bh_buf out = bh_buf(text, (1 << 17) - 1);
    assert_int_equal(bh_config_print(config, &out), BH_OK);
    const struct bh_config *again = must_parse(text);
    assert_int_equal(bh_config_diff(config, again, NULL, NULL), 0);
    char *second = calloc(1, 1 << 17);
    assert_non_null(second);
    struct bh_buf out2 = bh_buf(second, (1 << 17) - 1);
    assert_int_equal(bh_config_print(again, &out2), BH_OK);
    assert_string_equal(text, second);
    struct bh_buf small = bh_buf(second, 100);
    assert_int_equal(bh_config_print(again, &small), BH_ELIMIT);
    free(text);
    free(second);
    bh_config_unref(config);
    bh_config_unref(again);
}

static bool holds(const struct bh_json *json, const char *text)
{
    return bh_slice_find_slice(bh_buf_slice(&json->buf), bh_slice_str(text)) < json->buf.len;
}

static void explain_says_where_a_value_comes_from(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(good);
    char *storage = malloc(1 << 16);
    assert_non_null(storage);
    struct bh_json json = {.buf = bh_buf(storage, 1 << 16)};
    bh_connector_describe(config, connector(config, "bank"), &json);
    assert_false(json.overflow);
    assert_true(holds(&json, "\"rate\":{\"value\":\"60/min\",\"from\":\"connector\",\"file\":"
                             "\"t.conf\",\"line\":12}"));
    assert_true(holds(&json, "\"connections\":{\"value\":\"7\",\"from\":\"defaults\",\"file\":"
                             "\"t.conf\",\"line\":4}"));
    assert_true(holds(&json, "\"per-host\":{\"value\":\"10\",\"from\":\"built-in\"}"));
    assert_true(holds(&json, "\"mode\":{\"value\":\"verify\",\"from\":\"connector\",\"file\":"
                             "\"t.conf\",\"line\":11}"));
    struct bh_json tight = {.buf = bh_buf(storage, 50)};
    bh_connector_describe(config, connector(config, "bank"), &tight);
    assert_true(tight.overflow);
    free(storage);
    bh_config_unref(config);
}

static void what_the_engine_cannot_do_is_refused(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(good);
    struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    assert_true(bh_config_check_supported(config, BH_CAN_ALL, &errors));
    assert_int_equal(errors.count, 0);
    assert_false(
        bh_config_check_supported(config, BH_CAN_ALL & ~(uint32_t)BH_CAN_TLS_VERIFY, &errors));
    assert_string_equal(errors_text(&errors),
                        "t.conf:11:3: error: tls verify is not supported by this version; it is "
                        "refused rather than weakened or ignored\n");
    assert_false(bh_config_check_supported(config, 0, &errors));
    assert_int_equal(errors.warnings, 1); /* tls auto */
    bh_config_errors_fini(&errors);
    bh_config_unref(config);
}

/* "control control ... | queue" */
static const char *peeked(const char *text)
{
    static char said[512];
    struct memory_file files[] = {
        {"/e/b.conf", "queue { path q2 }\nengine {\n"}, {"/e/t.conf", text}, {NULL, NULL}};
    const struct bh_config_reader reader = memory_reader(files);
    struct bh_config_places places;
    struct bh_buf out = bh_buf(said, sizeof(said) - 1);
    const enum bh_status status = bh_config_peek(&reader, "/e/t.conf", &places);
    assert_int_equal(status, BH_OK);
    for (size_t i = 0; i < places.control.count; i++) {
        assert_int_equal(places.control.at[i].ptr[places.control.at[i].len], 0);
        bh_buf_add_cut(&out, places.control.at[i]);
        bh_buf_add_cut(&out, BH_LIT(" "));
    }
    bh_buf_add_cut(&out, BH_LIT("| "));
    bh_buf_add_cut(&out, places.queue);
    assert_int_equal(places.queue.ptr[places.queue.len], 0);
    said[out.len] = 0;
    bh_config_places_fini(&places);
    return said;
}

static void a_broken_file_still_says_where_things_are(void **unused)
{
    (void)unused;
    static const struct {
        const char *text, *places;
    } cases[] = {
        {"", "/run/bridgehead/control | /var/lib/bridgehead/queue"},
        {"engine { control [/a b] }\nqueue { path /q }", "/a /e/b | /q"},
        /* not closed, so that what follows is in it; not opened; one too many */
        {"connector x {\n tls off\nengine {\n control /a\nqueue {\n path /q\n}", "/a | /q"},
        {"engine\n control /a\n}\n}\nqueue\n path /q\n}", "/a | /q"},
        {"} engine { control /a } { }", "/a | /var/lib/bridgehead/queue"},
        {"enigne { control /a; wokers }\nconnector c { domians *; tls verfy; cost x }\n"
         "queue { path /q; max-size many; path /later }",
         "/a | /q"},
        /* the right block wins over what only has the name */
        {"control /astray\nengine { control /a }", "/a | /var/lib/bridgehead/queue"},
        /* no value, an empty one, a string that does not end */
        {"engine { control }\nqueue { path \"\" }",
         "/run/bridgehead/control | /var/lib/bridgehead/queue"},
        {"engine { control \"/a }\nqueue { path /q }", "/run/bridgehead/control | /q"},
        /* includes: one that is broken, one that is not there, one that never ends */
        {"include b.conf\nengine { control /a }", "/a | /e/q2"},
        {"include missing.conf\ninclude t.conf\nqueue { path /q }", "/run/bridgehead/control | /q"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(peeked(cases[i].text), cases[i].places);
    }
}

static void peeking_at_no_file_gives_what_is_built_in(void **unused)
{
    (void)unused;
    struct memory_file files[] = {{NULL, NULL}};
    const struct bh_config_reader reader = memory_reader(files);
    struct bh_config_places places;
    assert_int_equal(bh_config_peek(&reader, "/e/t.conf", &places), BH_ENOTFOUND);
    assert_int_equal(places.control.count, 1);
    ASSERT_SLICE(places.control.at[0], "/run/bridgehead/control");
    ASSERT_SLICE(places.queue, "/var/lib/bridgehead/queue");
    bh_config_places_fini(&places);
}

static void references_are_counted(void **unused)
{
    (void)unused;
    const struct bh_config *config = must_parse(good);
    assert_ptr_equal(bh_config_ref(config), config);
    bh_config_unref(config);
    ASSERT_SLICE(connector(config, "bank")->name, "bank"); /* the sanitizer watches */
    bh_config_unref(config);
    bh_config_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_stated_is_a_working_configuration),
        cmocka_unit_test(values_are_resolved_from_defaults_and_own),
        cmocka_unit_test(every_mistake_is_told_with_its_place),
        cmocka_unit_test(errors_are_bounded_but_all_counted),
        cmocka_unit_test(files_include_files),
        cmocka_unit_test(the_examples_parse),
        cmocka_unit_test(the_annotated_example_names_every_setting),
        cmocka_unit_test(printing_and_parsing_again_changes_nothing),
        cmocka_unit_test(explain_says_where_a_value_comes_from),
        cmocka_unit_test(what_the_engine_cannot_do_is_refused),
        cmocka_unit_test(a_broken_file_still_says_where_things_are),
        cmocka_unit_test(peeking_at_no_file_gives_what_is_built_in),
        cmocka_unit_test(references_are_counted),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
