/* `bhctl probe`: begun on the engine's thread, told from the main one. */
#include <stdio.h>

#include "bh/assert.h"
#include "control_private.h"
#include "engine_internal.h"
#include "probe.h"

static void put(struct bh_json *json, const char *key, const char *text)
{
    if (text[0] != '\0') {
        bh_json_key(json, key);
        bh_json_cstr(json, text);
    }
}

static void put_outcome(struct bh_json *json, const struct bh_outcome *o)
{
    put(json, "stage", bh_stage_name(o->stage));
    put(json, "happened", bh_happened_name(o->happened));
    if (o->code != 0) {
        bh_json_key(json, "code");
        bh_json_u64(json, o->code);
    }
    if (o->enhanced_class != 0) {
        char text[24];
        snprintf(text, sizeof(text), "%u.%u.%u", (unsigned)o->enhanced_class,
                 (unsigned)o->enhanced_subject, (unsigned)o->enhanced_detail);
        put(json, "enhanced", text);
    }
    bh_json_key(json, "text");
    bh_json_str(json, o->text);
}

static void put_tls(struct bh_json *json, const struct tls_seen *seen)
{
    char text[TLS_SEEN_TEXT];
    char spki[2 * BH_PIN_LEN + 1];
    put(json, "tls_wanted", seen->wanted);
    put(json, "tls_from", seen->origin);
    if (seen->known) {
        put(json, "tls_got", tls_seen_got(seen, text));
        put(json, "auth", tls_proof_name(seen->proof));
    }
    put(json, "tls_version", seen->version);
    put(json, "cipher", seen->cipher);
    put(json, "matched", seen->matched);
    put(json, "tls_reason", seen->reason);
    put(json, "spki", tls_seen_spki(seen, spki));
    if (seen->version[0] != '\0') {
        bh_json_key(json, "would_verify");
        bh_json_bool(json, seen->would_verify);
    }
}

static void put_target(struct bh_control_reply *reply, const struct probe_target *t)
{
    char text[4096];
    char ip[BH_IP_TEXT_MAX];
    struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
    bh_json_begin_object(&json);
    put(&json, "kind", "target");
    put(&json, "host", t->host);
    if (t->ip.family != 0) {
        put(&json, "ip", bh_ip_text(&t->ip, ip));
    }
    bh_json_key(&json, "port");
    bh_json_u64(&json, t->port);
    bh_json_key(&json, "preference");
    bh_json_u64(&json, t->preference);
    put(&json, "verdict", probe_verdict_name(t->verdict));
    bh_json_key(&json, "bad");
    bh_json_bool(&json, probe_verdict_is_bad(t->verdict));
    put_tls(&json, &t->seen);
    put_outcome(&json, &t->outcome);
    if (t->ready) {
        bh_json_key(&json, "connect_ms");
        bh_json_u64(&json, t->connect_ms);
        bh_json_key(&json, "tls_ms");
        bh_json_u64(&json, t->tls_ms);
    }
    bh_json_end_object(&json);
    reply_row(reply, json.overflow ? BH_LIT("{\"overflow\":true}") : bh_buf_slice(&json.buf));
}

static void put_head(struct bh_control_reply *reply, const struct probe *p)
{
    char text[2048];
    struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
    bh_json_begin_object(&json);
    put(&json, "kind", "route");
    put(&json, "address", p->address);
    bh_json_key(&json, "domain");
    bh_json_str(&json, p->domain);
    bh_json_key(&json, "connector");
    bh_json_str(&json, p->connector);
    put(&json, "rule", p->rule);
    if (p->failed) {
        put_outcome(&json, &p->outcome);
    }
    bh_json_end_object(&json);
    reply_row(reply, json.overflow ? BH_LIT("{\"overflow\":true}") : bh_buf_slice(&json.buf));
}

static void put_end(struct bh_control_reply *reply, const struct probe *p)
{
    char text[256];
    uint64_t targets = 0;
    uint64_t bad = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        targets += p->targets[i].verdict != PROBE_LEFT_OUT ? 1 : 0;
        bad += probe_verdict_is_bad(p->targets[i].verdict) ? 1 : 0;
    }
    struct bh_json json = {.buf = bh_buf(text, sizeof(text))};
    bh_json_begin_object(&json);
    bh_json_key(&json, "targets");
    bh_json_u64(&json, targets);
    bh_json_key(&json, "bad");
    bh_json_u64(&json, bad);
    bh_json_key(&json, "negative");
    bh_json_bool(&json, p->failed || bad > 0 || targets == 0);
    bh_json_end_object(&json);
    reply_end(reply, bh_buf_slice(&json.buf));
}

static void probe_told(struct daemon_call *call, struct daemon *d)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, call);
    const struct probe *p = reply->probe;
    (void)d;
    put_head(reply, p);
    for (uint32_t i = 0; i < p->count; i++) {
        put_target(reply, &p->targets[i]);
    }
    put_end(reply, p);
}

/* On the engine's thread. */
static void probe_done(void *ctx, struct probe *probe)
{
    struct bh_control_reply *reply = ctx;
    BH_ASSERT(reply->probe == probe);
    reply->call.run = probe_told;
    daemon_call(reply->server->daemon, &reply->call);
}

static void run_start(struct engine_call *call, struct engine *e)
{
    struct bh_control_reply *reply = BH_CONTAINER(call, struct bh_control_reply, engine_call);
    eprobe_start(e, reply->probe);
    engine_pump(e);
}

void control_op_probe(void *ctx, const struct bh_control_request *request,
                      struct bh_control_reply *reply)
{
    struct control_server *server = ctx;
    const struct bh_slice domain = bh_slice_find(request->address, '@') < request->address.len
                                       ? bh_address_domain(request->address)
                                       : request->address;
    if (domain.len == 0 || domain.len > BH_DOMAIN_MAX) {
        reply_error(reply, "that is neither a domain nor an address", "expected local@domain");
        return;
    }
    const struct bh_config *config = config_cell_get(&server->daemon->cell);
    reply->probe = probe_create(config, request->address, request->sender);
    bh_config_unref(config);
    if (reply->probe == NULL) {
        reply_error(reply, "no memory", "");
        return;
    }
    reply->probe->done = probe_done;
    reply->probe->ctx = reply;
    reply->engine_call.run = run_start;
    engine_call(server->daemon->engine, &reply->engine_call);
}
