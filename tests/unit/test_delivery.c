/* The driver against a server of a few lines on the same loop, over loopback, on ports that the
 * kernel picks. Nothing here waits for time to pass but the stagger of addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../engine/delivery/src/delivery_internal.h"
#include "tls_fixture.h"

#define TXNS 40
#define INPUT_MAX ((size_t)4 * 1024 * 1024)

/* What the server does out of the ordinary. */
struct manners {
    bool pipelining, starttls;
    bool closes_at_rcpt;  /* 421 */
    bool drops_after_dot; /* hangs up instead of a reply */
    bool garbage;         /* greets with something else */
    bool refuses;         /* 554 greeting */
    bool injects;         /* octets behind the 220 to STARTTLS */
    bool bad_handshake;   /* answers the ClientHello in clear text */
    bool slow;            /* stops reading in the content, until told */
};

struct server {
    uv_tcp_t listener;
    uv_tcp_t peer;
    struct manners manners;
    uint16_t port;
    struct bh_tls *tls;
    bool open, peer_open, in_data, paused;
    unsigned connections, mails, messages, privileged_in_clear;
    char *input;
    size_t len;
    uint64_t content; /* octets of content */
};

struct world {
    uv_loop_t loop;
    struct bh_tls_worker *tls;
    struct bh_tls_server_ctx *server_tls;
    struct tls_fixture fixture;
    struct bh_delivery_worker *worker;
    struct server server;
    struct server second;
    struct bh_delivery *d;
    struct bh_arena arena;
    struct bh_tls_demand demand;
    struct bh_delivery_params params;
    struct bh_delivery_txn txns[TXNS];
    struct bh_client_result results[TXNS][2];
    size_t given;
    unsigned ready, ends, done, idle, closed;
    bool refuse_end, keep_open, was_tls;
    bool closed_graceful, tls_trouble;
    uint32_t target, failures;
    struct bh_outcome outcome;
    size_t queued_max;
    bool never_reads, stuck;
};

static struct world w;

/* ---- the server ---- */

struct answer {
    uv_write_t request;
    char octets[];
};

static void on_answered(uv_write_t *request, int status)
{
    (void)status;
    free(request->data);
}

static void answer_raw(struct server *s, const char *octets, size_t len)
{
    struct answer *a = malloc(sizeof(*a) + len);
    assert_non_null(a);
    memcpy(a->octets, octets, len);
    a->request.data = a;
    const uv_buf_t buf = uv_buf_init(a->octets, (unsigned)len);
    assert_int_equal(uv_write(&a->request, (uv_stream_t *)&s->peer, &buf, 1, on_answered), 0);
}

static void flush_tls(struct server *s)
{
    char storage[8192];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    while (bh_tls_take(s->tls, &out) > 0) {
        answer_raw(s, out.ptr, out.len);
        out.len = 0;
    }
}

static void answer(struct server *s, const char *text)
{
    if (s->tls == NULL) {
        answer_raw(s, text, strlen(text));
        return;
    }
    assert_int_equal(bh_tls_write(s->tls, bh_slice_str(text)), BH_OK);
    flush_tls(s);
}

static void on_peer_closed(uv_handle_t *handle)
{
    struct server *s = handle->data;
    bh_tls_destroy(s->tls);
    s->tls = NULL;
    s->peer_open = false;
}

static void hang_up(struct server *s)
{
    if (s->peer_open && !uv_is_closing((uv_handle_t *)&s->peer)) {
        uv_close((uv_handle_t *)&s->peer, on_peer_closed);
    }
}

static void on_command(struct server *s, struct bh_slice line)
{
    const bool privileged = !bh_slice_starts(line, BH_LIT("EHLO")) &&
                            !bh_slice_starts(line, BH_LIT("STARTTLS")) &&
                            !bh_slice_starts(line, BH_LIT("QUIT"));
    s->privileged_in_clear += privileged && s->tls == NULL ? 1 : 0;
    if (bh_slice_starts(line, BH_LIT("EHLO"))) {
        answer(s, "250-mx\r\n");
        if (s->manners.pipelining) {
            answer(s, "250-PIPELINING\r\n");
        }
        if (s->manners.starttls && s->tls == NULL) {
            answer(s, "250-STARTTLS\r\n");
        }
        answer(s, "250 8BITMIME\r\n");
    } else if (bh_slice_eq(line, BH_LIT("STARTTLS"))) {
        answer(s, s->manners.injects ? "220 go\r\n250 injected\r\n" : "220 go\r\n");
        s->tls = bh_tls_server_create(w.server_tls);
        assert_non_null(s->tls);
    } else if (bh_slice_starts(line, BH_LIT("MAIL"))) {
        s->mails++;
        answer(s, "250 ok\r\n");
    } else if (bh_slice_starts(line, BH_LIT("RCPT"))) {
        if (s->manners.closes_at_rcpt) {
            answer(s, "421 4.3.2 going down\r\n");
        } else if (bh_slice_starts(line, BH_LIT("RCPT TO:<nobody"))) {
            answer(s, "550 5.1.1 no such user\r\n");
        } else {
            answer(s, "250 ok\r\n");
        }
    } else if (bh_slice_eq(line, BH_LIT("DATA"))) {
        s->in_data = true;
        if (s->manners.slow) {
            s->paused = true;
            uv_read_stop((uv_stream_t *)&s->peer);
        }
        answer(s, "354 go\r\n");
    } else if (bh_slice_starts(line, BH_LIT("RSET"))) {
        answer(s, "250 ok\r\n");
    } else if (bh_slice_starts(line, BH_LIT("QUIT"))) {
        answer(s, "221 bye\r\n");
        hang_up(s);
    } else {
        answer(s, "500 what\r\n");
    }
}

static void on_line(struct server *s, struct bh_slice line)
{
    if (!s->in_data) {
        on_command(s, line);
    } else if (!bh_slice_eq(line, BH_LIT("."))) {
        s->content += line.len + 2;
    } else {
        s->in_data = false;
        s->messages++;
        if (s->manners.drops_after_dot) {
            hang_up(s);
        } else {
            answer(s, "250 2.0.0 taken\r\n");
        }
    }
}

static void take_lines(struct server *s)
{
    size_t at = 0;
    const struct bh_slice all = bh_slice(s->input, s->len);
    while (s->peer_open && !uv_is_closing((uv_handle_t *)&s->peer)) {
        const struct bh_slice rest = bh_slice_skip(all, at);
        const size_t end = bh_slice_find_slice(rest, BH_LIT("\r\n"));
        if (end == rest.len) {
            break;
        }
        at += end + 2;
        on_line(s, bh_slice_take(rest, end));
    }
    memmove(s->input, s->input + at, s->len - at);
    s->len -= at;
}

static void on_server_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char storage[65536];
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init(storage, sizeof(storage));
}

static void put_input(struct server *s, struct bh_slice octets)
{
    assert_true(s->len + octets.len <= INPUT_MAX);
    memcpy(s->input + s->len, octets.ptr, octets.len);
    s->len += octets.len;
}

static void on_server_cipher(struct server *s, struct bh_slice octets)
{
    char storage[16384];
    if (s->manners.bad_handshake) {
        answer_raw(s, "500 what is this\r\n", 18);
        return;
    }
    assert_int_equal(bh_tls_feed(s->tls, octets), BH_OK);
    flush_tls(s);
    struct bh_buf plain = bh_buf(storage, sizeof(storage));
    while (bh_tls_read(s->tls, &plain) == BH_OK) {
        put_input(s, bh_buf_slice(&plain));
        plain.len = 0;
    }
}

static void on_server_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    struct server *s = stream->data;
    if (len < 0) {
        hang_up(s);
        return;
    }
    if (s->tls != NULL) {
        on_server_cipher(s, bh_slice(buf->base, (size_t)len));
    } else {
        put_input(s, bh_slice(buf->base, (size_t)len));
    }
    take_lines(s);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *s = listener->data;
    assert_int_equal(status, 0);
    assert_false(s->peer_open);
    assert_int_equal(uv_tcp_init(&w.loop, &s->peer), 0);
    s->peer.data = s;
    s->peer_open = true;
    s->connections++;
    s->len = 0;
    s->in_data = false;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&s->peer), 0);
    uv_read_start((uv_stream_t *)&s->peer, on_server_alloc, on_server_read);
    if (s->manners.garbage) {
        answer(s, "HTTP/1.1 400 Bad Request\r\n");
    } else {
        answer(s, s->manners.refuses ? "554 no\r\n" : "220 mx ESMTP\r\n");
    }
}

static void start_server(struct server *s, struct manners manners)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    int len = sizeof(at);
    *s = (struct server){.manners = manners, .open = true};
    s->input = malloc(INPUT_MAX);
    assert_non_null(s->input);
    bh_put_be32(&at.sin_addr, 0x7f000001);
    assert_int_equal(uv_tcp_init(&w.loop, &s->listener), 0);
    s->listener.data = s;
    assert_int_equal(uv_tcp_bind(&s->listener, (const struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&s->listener, 4, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&s->listener, (struct sockaddr *)&at, &len), 0);
    s->port = bh_get_be16(&at.sin_port);
}

static void stop_server(struct server *s)
{
    if (s->open) {
        s->open = false;
        uv_close((uv_handle_t *)&s->listener, NULL);
        hang_up(s);
    }
}

/* ---- the engine's part ---- */

static void on_ready(void *ctx, struct bh_delivery *d, const struct bh_delivery_ready *ready)
{
    (void)ctx;
    (void)d;
    w.ready++;
    w.target = ready->target;
    w.was_tls = ready->tls != NULL;
}

static bool on_before_end(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *txn,
                          const uint64_t ending[2])
{
    (void)ctx;
    (void)d;
    assert_true(ending[0] != 0 && !txn->txn.end_sent);
    w.ends++;
    return !w.refuse_end;
}

static void on_done(void *ctx, struct bh_delivery *d, struct bh_delivery_txn *first)
{
    (void)ctx;
    (void)d;
    for (; first != NULL; first = bh_delivery_next(first)) {
        w.done++;
    }
}

static void on_idle(void *ctx, struct bh_delivery *d)
{
    (void)ctx;
    w.idle++;
    if (!w.keep_open) {
        bh_delivery_close(d, true);
    }
}

static void on_closed(void *ctx, struct bh_delivery *d, const struct bh_delivery_closed *closed)
{
    (void)ctx;
    (void)d;
    w.closed++;
    w.closed_graceful = closed->graceful;
    w.tls_trouble = closed->tls_trouble;
    w.failures = closed->failures_count;
    w.outcome = closed->outcome;
    w.outcome.text = BH_EMPTY;
    w.outcome.host = BH_EMPTY;
    stop_server(&w.server);
    stop_server(&w.second);
}

static const struct bh_envelope envelope = {.sender = {"a@b.example", 11}, .envid = {"", 0}};
static const struct bh_recipient recipients[2] = {{{"x@c.example", 11}, {"", 0}, 0},
                                                  {{"nobody@c.example", 16}, {"", 0}, 0}};
static const struct bh_slice hello[] = {{"Subject: hi\r\n", 13}, {"", 0}, {"\r\n.dot\r\n", 8}};

static void give(size_t count)
{
    struct bh_delivery_txn *lease[TXNS];
    for (size_t i = 0; i < count; i++) {
        struct bh_delivery_txn *txn = &w.txns[w.given];
        *txn = (struct bh_delivery_txn){.txn = {.envelope = &envelope,
                                                .recipients = recipients,
                                                .results = w.results[w.given],
                                                .recipients_count = 2,
                                                .arena = &w.arena},
                                        .content = hello,
                                        .content_count = BH_COUNT(hello)};
        lease[i] = txn;
        w.given++;
    }
    assert_int_equal(bh_delivery_give(w.d, lease, count), BH_OK);
}

static void open_session(enum bh_tls_mode mode, struct manners manners)
{
    start_server(&w.server, manners);
    w.demand = (struct bh_tls_demand){.mode = mode, .min_version = BH_TLS_VERSION_1_2};
    w.params =
        (struct bh_delivery_params){.id = 42,
                                    .generation = 1,
                                    .targets = {{.host = BH_LIT("mx.example"),
                                                 .ip = {.family = 4, .bytes = {127, 0, 0, 1}},
                                                 .port = w.server.port,
                                                 .demand = &w.demand}},
                                    .targets_count = 1,
                                    .helo = BH_LIT("me.example"),
                                    .connect_ms = 10000,
                                    .timeouts = bh_client_default_timeouts()};
}

static void start(void)
{
    const struct bh_delivery_callbacks callbacks = {.ready = on_ready,
                                                    .before_end = on_before_end,
                                                    .done = on_done,
                                                    .idle = on_idle,
                                                    .closed = on_closed};
    assert_int_equal(bh_delivery_open(w.worker, &w.params, &callbacks, &w.d), BH_OK);
}

static void run(void)
{
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(w.closed, 1);
    assert_int_equal(w.done, w.given);
    assert_int_equal(bh_delivery_worker_sessions(w.worker), 0);
}

static void sends_all(void)
{
    start();
    give(20);
    run();
    assert_true(w.closed_graceful);
    assert_int_equal(w.ready, 1);
    assert_int_equal(w.ends, 20);
    assert_int_equal(w.server.messages, 20);
    assert_int_equal(w.server.content, 20 * (13 + 2 + 7)); /* with the doubled dot */
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(w.results[i][0].fate, BH_FATE_DECIDED);
        assert_int_equal(w.results[i][0].outcome.code, 250);
        assert_int_equal(w.results[i][1].outcome.code, 550);
    }
}

static void plain_one_at_a_time(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){0});
    sends_all();
    assert_false(w.was_tls);
}

static void plain_pipelined(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true, .starttls = true});
    sends_all();
    assert_false(w.was_tls);
}

static void inside_tls(void **unused)
{
    (void)unused;
    open_session(BH_TLS_ENCRYPT, (struct manners){.pipelining = true, .starttls = true});
    sends_all();
    assert_true(w.was_tls);
    assert_int_equal(w.server.privileged_in_clear, 0);
}

static void not_offered_sends_nothing(void **unused)
{
    (void)unused;
    open_session(BH_TLS_ENCRYPT, (struct manners){.pipelining = true});
    start();
    give(2);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_TLS_NOT_OFFERED);
    assert_int_equal(w.server.privileged_in_clear, 0);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNTOUCHED);
}

static void injected_sends_nothing(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){.starttls = true, .injects = true});
    start();
    give(1);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_INJECTED);
    assert_true(w.tls_trouble);
    assert_int_equal(w.server.privileged_in_clear, 0);
}

static void broken_handshake_sends_nothing(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){.starttls = true, .bad_handshake = true});
    start();
    give(1);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_TLS_FAILED);
    assert_true(w.tls_trouble);
    assert_int_equal(w.server.privileged_in_clear, 0);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNTOUCHED);
}

static void closing_mid_way(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true, .closes_at_rcpt = true});
    start();
    give(3);
    run();
    assert_int_equal(w.outcome.code, 421);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNFINISHED);
    assert_int_equal(w.results[1][0].fate, BH_FATE_UNTOUCHED);
    assert_int_equal(w.results[2][1].fate, BH_FATE_UNTOUCHED);
}

static void lost_after_the_dot(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true, .drops_after_dot = true});
    start();
    give(3);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_LOST);
    assert_int_equal(w.outcome.stage, BH_STAGE_DOT);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNCERTAIN);
    assert_int_equal(w.results[0][1].outcome.code, 550);
    assert_int_equal(w.results[1][0].fate, BH_FATE_UNFINISHED);
    assert_int_equal(w.results[2][0].fate, BH_FATE_UNTOUCHED);
}

static void garbage(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.garbage = true});
    start();
    give(1);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_GARBLED);
    assert_int_equal(w.failures, 1);
}

static void the_end_waits_for_its_note(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true});
    w.refuse_end = true;
    start();
    give(2);
    run();
    assert_int_equal(w.server.messages, 0);
    assert_int_equal(w.outcome.happened, BH_HAPPENED_OUR_RESOURCE);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNFINISHED);
    assert_int_equal(w.results[1][0].fate, BH_FATE_UNTOUCHED);
}

/* Clear text must not come up for other hosts, since this one may never be spoken to in it. */
static void trouble_under_a_demand_asks_for_nothing_less(void **unused)
{
    (void)unused;
    open_session(BH_TLS_ENCRYPT, (struct manners){.starttls = true, .bad_handshake = true});
    start();
    give(1);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_TLS_FAILED);
    assert_false(w.tls_trouble);
    assert_int_equal(w.server.privileged_in_clear, 0);
}

/* A file of ours that can't be read is no trouble of the peer's: nothing goes in clear for it. */
static void our_own_fault_asks_for_nothing_less(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){.starttls = true});
    w.demand.client_cert = BH_LIT("/nonexistent/certificate.pem");
    w.demand.client_key = BH_LIT("/nonexistent/key.pem");
    start();
    give(1);
    run();
    assert_int_equal(w.outcome.happened, BH_HAPPENED_OUR_SECRET);
    assert_false(w.tls_trouble);
    assert_int_equal(w.server.privileged_in_clear, 0);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNTOUCHED);
}

static void a_host_that_refuses_is_followed_by_the_next(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.refuses = true});
    start_server(&w.second, (struct manners){.pipelining = true});
    w.params.targets[1] = w.params.targets[0];
    w.params.targets[1].port = w.second.port;
    w.params.targets_count = 2;
    start();
    give(2);
    run();
    assert_true(w.closed_graceful);
    assert_int_equal(w.failures, 1);
    assert_int_equal(w.target, 1);
    assert_int_equal(w.second.messages, 2);
}

static void a_refused_connection_is_followed_by_the_next(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true});
    /* A port that was ours a moment ago, and is nobody's now. */
    start_server(&w.second, (struct manners){0});
    w.params.targets[1] = w.params.targets[0];
    w.params.targets[0].port = w.second.port;
    w.params.targets_count = 2;
    stop_server(&w.second);
    uv_run(&w.loop, UV_RUN_NOWAIT);
    start();
    give(1);
    run();
    assert_true(w.closed_graceful);
    assert_int_equal(w.failures, 1);
    assert_int_equal(w.server.messages, 1);
}

/* In clear though TLS is offered: where asked for and the demand allows it. */
static void in_clear_when_told(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){.pipelining = true, .starttls = true});
    w.params.clear = true;
    sends_all();
    assert_false(w.was_tls);
}

/* Broken TLS is not remembered: what went on in clear ends with its work, though nobody closes it.
 */
static void in_clear_ends_with_its_work(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OPPORTUNISTIC, (struct manners){.pipelining = true, .starttls = true});
    w.params.clear = true;
    w.keep_open = true;
    sends_all();
    assert_false(w.was_tls);
    assert_int_equal(w.idle, 1);
}

/* The same flag against a demand for TLS changes nothing. */
static void never_in_clear_against_the_demand(void **unused)
{
    (void)unused;
    open_session(BH_TLS_ENCRYPT, (struct manners){.pipelining = true, .starttls = true});
    w.params.clear = true;
    w.params.small_hello = true;
    sends_all();
    assert_true(w.was_tls);
    assert_int_equal(w.server.privileged_in_clear, 0);
}

/* A socket that listens and never answers: its queue of one is full, so that SYNs are dropped. */
static uint16_t start_silent(int sockets[4])
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof(at);
    bh_put_be32(&at.sin_addr, 0x7f000001);
    sockets[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(sockets[0], (const struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(sockets[0], 0), 0);
    assert_int_equal(getsockname(sockets[0], (struct sockaddr *)&at, &len), 0);
    for (int i = 1; i < 4; i++) {
        sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(fcntl(sockets[i], F_SETFL, O_NONBLOCK), 0);
        (void)connect(sockets[i], (const struct sockaddr *)&at, sizeof(at));
    }
    return bh_get_be16(&at.sin_port);
}

static void a_silent_address_is_raced_by_the_next(void **unused)
{
    (void)unused;
    int sockets[4];
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true});
    w.params.targets[1] = w.params.targets[0];
    w.params.targets[0].port = start_silent(sockets);
    w.params.targets_count = 2;
    start();
    give(1);
    run();
    assert_true(w.closed_graceful);
    assert_int_equal(w.target, 1);
    assert_int_equal(w.failures, 0); /* it lost the race, and is not judged */
    assert_int_equal(w.server.messages, 1);
    for (size_t i = 0; i < 4; i++) {
        close(sockets[i]);
    }
}

static void a_silent_address_times_out(void **unused)
{
    (void)unused;
    int sockets[4];
    open_session(BH_TLS_OFF, (struct manners){0});
    w.params.targets[0].port = start_silent(sockets);
    w.params.connect_ms = 50;
    start();
    give(1);
    run();
    assert_int_equal(w.failures, 1);
    assert_int_equal(w.outcome.happened, BH_HAPPENED_TIMEOUT);
    assert_int_equal(w.outcome.stage, BH_STAGE_CONNECT);
    assert_int_equal(w.results[0][0].fate, BH_FATE_UNTOUCHED);
    for (size_t i = 0; i < 4; i++) {
        close(sockets[i]);
    }
}

/* While the peer reads nothing, no more than the bound is made; then everything arrives. */
static void on_check(uv_check_t *check)
{
    static size_t last;
    if (w.d == NULL || w.closed > 0) {
        uv_close((uv_handle_t *)check, NULL);
        return;
    }
    const size_t queued = w.d->won != NULL ? w.d->won->queued : 0;
    w.queued_max = queued > w.queued_max ? queued : w.queued_max;
    if (w.server.paused && queued > 0 && queued == last && !w.never_reads) {
        w.server.paused = false;
        uv_read_start((uv_stream_t *)&w.server.peer, on_server_alloc, on_server_read);
    }
    w.stuck = w.server.paused && queued > BH_DELIVERY_QUEUE_MAX && queued == last;
    last = queued;
}

static char line[65536];
static struct bh_slice large[300];

/* One large message to a server that stops reading in its content. */
static void give_large(void)
{
    memset(line, 'x', sizeof(line));
    for (size_t i = 80; i + 2 <= sizeof(line); i += 80) {
        memcpy(line + i, "\r\n", 2);
    }
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    for (size_t i = 0; i < BH_COUNT(large); i++) {
        large[i] = bh_slice(line, sizeof(line));
    }
    open_session(BH_TLS_OFF, (struct manners){.slow = true});
    static uv_check_t check; /* closed by its own callback */
    assert_int_equal(uv_check_init(&w.loop, &check), 0);
    uv_check_start(&check, on_check);
    uv_unref((uv_handle_t *)&check);
    start();
    give(1);
    w.txns[0].content = large;
    w.txns[0].content_count = BH_COUNT(large);
}

static void a_slow_reader_holds_back(void **unused)
{
    (void)unused;
    give_large();
    /* The loop has nothing else to wake it while both sides wait: turn it by hand. */
    while (w.closed == 0) {
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    run();
    assert_true(w.queued_max > 0);
    assert_true(w.queued_max <= BH_DELIVERY_QUEUE_MAX + PLAIN_MAX);
    assert_int_equal(w.server.content, sizeof(line) * BH_COUNT(large));
    assert_int_equal(w.results[0][0].outcome.code, 250);
}

/* More is queued than is ever made ahead, and the peer reads no octet of it: the end comes all the
 * same. */
static void the_end_needs_no_reader(void **unused)
{
    (void)unused;
    w.never_reads = true;
    give_large();
    while (!w.stuck) {
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    bh_delivery_close(w.d, false);
    for (unsigned turns = 0; w.closed == 0 && turns < 1000; turns++) {
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(w.closed, 1);
    assert_int_equal(w.done, 1);
    assert_int_not_equal(w.results[0][0].outcome.code, 250);
    hang_up(&w.server);
    run();
}

/* The one function that writes refuses whatever lacks a valid clearance. */
static void no_clearance_no_octet(void **unused)
{
    (void)unused;
    open_session(BH_TLS_ENCRYPT, (struct manners){.starttls = true});
    w.keep_open = true;
    start();
    while (w.server.connections == 0 || w.d->won == NULL) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    assert_false(bh_delivery_wire(w.d, BH_OUTPUT_PRIVILEGED, BH_LIT("MAIL FROM:<a@b>\r\n")));
    assert_false(bh_delivery_wire(w.d, BH_OUTPUT_PREAMBLE, BH_LIT("MAIL FROM:<a@b>\r\n")));
    /* A clearance of another session, and one for clear text under another demand. */
    const struct bh_tls_demand off = {.mode = BH_TLS_OFF};
    struct bh_clearance *other = bh_clearance_plain(&off, 42, 1);
    assert_non_null(other);
    w.d->clearance = other;
    assert_false(bh_delivery_wire(w.d, BH_OUTPUT_PRIVILEGED, BH_LIT("MAIL FROM:<a@b>\r\n")));
    w.d->clearance = NULL;
    bh_clearance_destroy(other);
    while (w.ready == 0) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    /* Inside TLS, but for a generation or a connection that is not this one. */
    w.d->params.generation++;
    assert_false(bh_delivery_wire(w.d, BH_OUTPUT_PRIVILEGED, BH_LIT("MAIL FROM:<a@b>\r\n")));
    w.d->params.generation--;
    /* Cleared for TLS, and TLS is gone: never into the bare socket. */
    struct bh_tls *tls = w.d->tls;
    w.d->tls = NULL;
    assert_false(bh_delivery_wire(w.d, BH_OUTPUT_PRIVILEGED, BH_LIT("MAIL FROM:<a@b>\r\n")));
    w.d->tls = tls;
    bh_delivery_close(w.d, false);
    run();
    assert_int_equal(w.server.mails, 0);
    assert_int_equal(w.server.privileged_in_clear, 0);
}

static void a_drop_returns_the_lease(void **unused)
{
    (void)unused;
    open_session(BH_TLS_OFF, (struct manners){.pipelining = true});
    start();
    give(32);
    struct bh_delivery_txn *one_more = &w.txns[39];
    assert_int_equal(bh_delivery_give(w.d, &one_more, 1), BH_ELIMIT);
    bh_delivery_close(w.d, false);
    run();
    assert_true(w.closed_graceful);
    assert_int_equal(w.server.messages, 0);
    for (size_t i = 0; i < 32; i++) {
        assert_int_equal(w.results[i][0].fate, BH_FATE_UNTOUCHED);
    }
}

static void demands_that_cannot_be_met_are_not_opened(void **unused)
{
    (void)unused;
    open_session(BH_TLS_VERIFY, (struct manners){.starttls = true});
    const struct bh_delivery_callbacks callbacks = {.closed = on_closed};
    assert_int_equal(bh_delivery_open(w.worker, &w.params, &callbacks, &w.d), BH_EINVAL);
    stop_server(&w.server);
}

static int setup(void **unused)
{
    (void)unused;
    w = (struct world){0};
    assert_int_equal(uv_loop_init(&w.loop), 0);
    tls_fixture_make(&w.fixture, "mx.example");
    w.server_tls = tls_fixture_server(&w.fixture);
    w.tls = bh_tls_worker_create(4);
    w.worker = bh_delivery_worker_create(&w.loop, w.tls);
    bh_arena_init(&w.arena, (size_t)1 << 20);
    return w.worker != NULL ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w.loop), 0); /* no handle is left behind */
    bh_delivery_worker_destroy(w.worker);
    bh_tls_worker_destroy(w.tls);
    bh_tls_server_ctx_destroy(w.server_tls);
    tls_fixture_remove(&w.fixture);
    bh_arena_fini(&w.arena);
    free(w.server.input);
    free(w.second.input);
    return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(plain_one_at_a_time),
        CASE(plain_pipelined),
        CASE(inside_tls),
        CASE(not_offered_sends_nothing),
        CASE(injected_sends_nothing),
        CASE(broken_handshake_sends_nothing),
        CASE(trouble_under_a_demand_asks_for_nothing_less),
        CASE(our_own_fault_asks_for_nothing_less),
        CASE(closing_mid_way),
        CASE(lost_after_the_dot),
        CASE(garbage),
        CASE(the_end_waits_for_its_note),
        CASE(a_host_that_refuses_is_followed_by_the_next),
        CASE(a_refused_connection_is_followed_by_the_next),
        CASE(in_clear_when_told),
        CASE(in_clear_ends_with_its_work),
        CASE(never_in_clear_against_the_demand),
        CASE(a_silent_address_is_raced_by_the_next),
        CASE(a_silent_address_times_out),
        CASE(a_slow_reader_holds_back),
        CASE(the_end_needs_no_reader),
        CASE(no_clearance_no_octet),
        CASE(a_drop_returns_the_lease),
        CASE(demands_that_cannot_be_met_are_not_opened),
    };
    return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
