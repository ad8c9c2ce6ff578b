/* The resolver against a server of its own on loopback, on the same loop: real packets, no sleeps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bh/resolver.h"
#include "bh/wire.h"
#include "dns_build.h"

enum mood { NORMAL, SILENT, SERVFAIL, REFUSING, GARBAGE, BOGUS, NO_EDNS };

struct server {
    uv_poll_t udp;
    int fd;
    uv_tcp_t tcp;
    uint16_t port;
    char text[32];
    enum mood mood;
    unsigned udp_queries;
    unsigned tcp_queries;
    unsigned ad_missing; /* queries that did not ask for AD */
    unsigned edns;       /* queries with an OPT record */
    unsigned open;
    uint16_t client_port;
    uint8_t in[2048];
};

struct peer {
    uv_tcp_t tcp;
    struct server *server;
    uint8_t in[2048];
    size_t in_len;
    struct dns_build out;
};

static const struct {
    const char *name;
    uint16_t type;
    uint32_t ttl;
    const char *data;
} zone[] = {
    {"example.com", BH_DNS_MX, 60, "10 mx1.example.com"},
    {"example.com", BH_DNS_MX, 60, "20 mx2.example.com"},
    {"mx1.example.com", BH_DNS_A, 300, "192.0.2.1"},
    {"mx1.example.com", BH_DNS_AAAA, 300, "2001:db8::1"},
    {"mx2.example.com", BH_DNS_A, 300, "192.0.2.2"},
    {"alias.example", BH_DNS_CNAME, 30, "example.com"},
    {"lone.example", BH_DNS_CNAME, 30, "far.example"}, /* see serve(): without the rest */
    {"far.example", BH_DNS_MX, 60, "10 mx1.example.com"},
    {"plain.example", BH_DNS_A, 60, "192.0.2.9"},
    {"null.example", BH_DNS_MX, 60, "0 "},
    {"_25._tcp.mx1.example.com", BH_DNS_TLSA, 90, "030101abababab"},
    {"broken.example", BH_DNS_MX, 60, "10 servfail.example"},
    {"half.example", BH_DNS_MX, 60, "10 servfail.example"},
    {"half.example", BH_DNS_MX, 60, "20 mx2.example.com"},
};

static void query_name(const uint8_t *query, char name[256])
{
    size_t at = 12;
    size_t len = 0;
    while (query[at] != 0) {
        memcpy(name + len, query + at + 1, query[at]);
        len += query[at];
        name[len++] = '.';
        at += query[at] + 1U;
    }
    name[len > 0 ? len - 1 : 0] = '\0';
}

static bool known(const char *name)
{
    for (size_t i = 0; i < BH_COUNT(zone); i++) {
        if (strcmp(zone[i].name, name) == 0) {
            return true;
        }
    }
    return strncmp(name, "load", 4) == 0 || strncmp(name, "big.", 4) == 0;
}

static void add_records(struct dns_build *out, const char *name, uint16_t type)
{
    for (size_t i = 0; i < BH_COUNT(zone); i++) {
        if (strcmp(zone[i].name, name) != 0) {
            continue;
        }
        if (zone[i].type == BH_DNS_CNAME) {
            dns_build_text(out, DNS_ANSWER, name, BH_DNS_CNAME, zone[i].ttl, zone[i].data);
            if (strcmp(name, "lone.example") != 0) {
                add_records(out, zone[i].data, type);
            }
        } else if (zone[i].type == type) {
            dns_build_text(out, DNS_ANSWER, name, type, zone[i].ttl, zone[i].data);
        }
    }
}

static void serve_zone(struct dns_build *out, const char *name, uint16_t type, uint16_t id,
                       bool tcp)
{
    if (strcmp(name, "servfail.example") == 0) {
        dns_build_start(out, id, 2, name, type);
        return;
    }
    if (strncmp(name, "big.", 4) == 0 && !tcp) {
        dns_build_start(out, id, 0x0200, name, type); /* TC */
        return;
    }
    const bool exists = known(name);
    dns_build_start(out, id, 0x01a0 | (exists ? 0U : 3U), name, type); /* RD, RA, AD */
    for (int i = 0; strncmp(name, "big.", 4) == 0 && i < 40; i++) {
        char data[64];
        snprintf(data, sizeof(data), "%d a-rather-long-name-of-host-%d.example.com", i, i);
        dns_build_text(out, DNS_ANSWER, name, BH_DNS_MX, 60, data);
    }
    if (strncmp(name, "load", 4) == 0 && type == BH_DNS_A) {
        dns_build_text(out, DNS_ANSWER, name, BH_DNS_A, 60, "192.0.2.77");
    }
    add_records(out, name, type);
    if (out->octets[7] == 0) {
        dns_build_text(out, DNS_AUTHORITY, "example", BH_DNS_SOA, 300, "20");
    }
}

/* @return false to stay silent */
static bool serve(struct server *s, const uint8_t *query, struct dns_build *out, bool tcp)
{
    char name[256];
    const uint16_t id = bh_get_be16(query);
    query_name(query, name);
    const size_t after = 12 + strlen(name) + (name[0] != '\0' ? 2 : 1);
    const uint16_t type = bh_get_be16(query + after);
    const bool edns = query[11] == 1;
    s->ad_missing += (query[3] & 0x20) == 0 ? 1 : 0;
    s->edns += edns ? 1 : 0;
    switch (s->mood) {
    case SILENT:
        return false;
    case SERVFAIL:
        dns_build_start(out, id, 2, name, type);
        return true;
    case REFUSING:
        dns_build_start(out, id, 5, name, type);
        return true;
    case GARBAGE: /* the right question, then an answer that points at itself */
        dns_build_start(out, id, 0, name, type);
        out->octets[7] = 1;
        dns_put16(out, (unsigned)(0xc000 | out->len));
        return true;
    case BOGUS: {
        dns_build_start(out, id, 2, name, type);
        const size_t at = dns_build_rr(out, DNS_ADDITIONAL, "", 41, 0);
        dns_put16(out, 15);
        dns_put16(out, 2);
        dns_put16(out, 6);
        dns_build_end(out, at);
        return true;
    }
    case NO_EDNS:
        if (edns) {
            dns_build_start(out, id, 1, name, type);
            return true;
        }
        break;
    case NORMAL:
        break;
    }
    serve_zone(out, name, type, id, tcp);
    return true;
}

/* Reads all there is, as a server's thread would: libuv's own reader takes 32 a turn. */
static void on_udp(uv_poll_t *poll, int status, int events)
{
    static struct dns_build out;
    struct server *s = poll->data;
    (void)events;
    assert_int_equal(status, 0);
    for (;;) {
        struct sockaddr_in from;
        socklen_t from_len = sizeof(from);
        const ssize_t len =
            recvfrom(s->fd, s->in, sizeof(s->in), 0, (struct sockaddr *)&from, &from_len);
        if (len < 12) {
            return;
        }
        s->udp_queries++;
        s->client_port = from.sin_port;
        if (serve(s, s->in, &out, false)) {
            assert_int_equal(
                sendto(s->fd, out.octets, out.len, 0, (struct sockaddr *)&from, from_len),
                (ssize_t)out.len);
        }
    }
}

static void on_peer_closed(uv_handle_t *handle)
{
    struct peer *peer = handle->data;
    peer->server->open--;
    free(peer);
}

static void on_peer_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    (void)size;
    struct peer *peer = handle->data;
    *buf =
        uv_buf_init((char *)peer->in + peer->in_len, (unsigned)(sizeof(peer->in) - peer->in_len));
}

static void on_peer_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    (void)buf;
    struct peer *peer = stream->data;
    if (len < 0) {
        uv_close((uv_handle_t *)stream, on_peer_closed);
        return;
    }
    peer->in_len += (size_t)len;
    while (peer->in_len >= 2 && peer->in_len >= 2U + bh_get_be16(peer->in)) {
        peer->server->tcp_queries++;
        if (serve(peer->server, peer->in + 2, &peer->out, true)) {
            uint8_t prefix[2];
            bh_put_be16(prefix, (uint16_t)peer->out.len);
            uv_buf_t bufs[2] = {uv_buf_init((char *)prefix, 2),
                                uv_buf_init((char *)peer->out.octets, (unsigned)peer->out.len)};
            assert_int_equal(uv_try_write(stream, bufs, 2), (int)peer->out.len + 2);
        }
        const size_t used = 2U + bh_get_be16(peer->in);
        memmove(peer->in, peer->in + used, peer->in_len - used);
        peer->in_len -= used;
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *s = listener->data;
    assert_int_equal(status, 0);
    struct peer *peer = calloc(1, sizeof(*peer));
    assert_non_null(peer);
    peer->server = s;
    peer->tcp.data = peer;
    s->open++;
    assert_int_equal(uv_tcp_init(listener->loop, &peer->tcp), 0);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&peer->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&peer->tcp, on_peer_alloc, on_peer_read), 0);
}

static void on_server_closed(uv_handle_t *handle)
{
    ((struct server *)handle->data)->open--;
}

static void server_close(struct server *s)
{
    uv_close((uv_handle_t *)&s->udp, on_server_closed);
    uv_close((uv_handle_t *)&s->tcp, on_server_closed);
    close(s->fd);
}

/* UDP takes any free port; TCP must get the same, which may be taken: then again. */
static void server_open(uv_loop_t *loop, struct server *s, enum mood mood)
{
    *s = (struct server){.mood = mood};
    for (;;) {
        struct sockaddr_in address;
        socklen_t len = sizeof(address);
        assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
        s->fd = socket(AF_INET, SOCK_DGRAM, 0);
        /* Room for a whole burst: server and resolver share a thread, and on a busy machine
         * hundreds of queries come before it is the server's turn. What found no room would be
         * lost. */
        const int room = 4 << 20;
        setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
        assert_int_equal(bind(s->fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(getsockname(s->fd, (struct sockaddr *)&address, &len), 0);
        assert_int_equal(uv_poll_init(loop, &s->udp, s->fd), 0); /* makes it non-blocking */
        assert_int_equal(uv_tcp_init(loop, &s->tcp), 0);
        s->udp.data = s;
        s->tcp.data = s;
        s->open += 2;
        if (uv_tcp_bind(&s->tcp, (struct sockaddr *)&address, 0) == 0 &&
            uv_listen((uv_stream_t *)&s->tcp, 16, on_connection) == 0) {
            s->port = ntohs(address.sin_port);
            break;
        }
        server_close(s);
        while (s->open > 0) {
            uv_run(loop, UV_RUN_ONCE);
        }
    }
    snprintf(s->text, sizeof(s->text), "127.0.0.1:%u", (unsigned)s->port);
    assert_int_equal(uv_poll_start(&s->udp, UV_READABLE, on_udp), 0);
}

/* ---- one resolver and up to two servers ---- */

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* so that one turn of the loop never waits for long after its timers ran */
    struct server servers[2];
    size_t servers_len;
    struct bh_resolver *resolver;
    uint64_t now_ms; /* of the cache */
    bool destroyed;
};

struct seen {
    struct world *world;
    unsigned count;
    bool inside_call; /* set while a call that asks is on the stack */
    struct bh_dns_answer answer;
    struct bh_target_list list;
    struct bh_arena arena;
};

static uint64_t fake_now(void *ctx)
{
    return ((const struct world *)ctx)->now_ms;
}

static void on_tick(uv_timer_t *tick)
{
    (void)tick;
}

static void world_open(struct world *w, const enum mood *moods, size_t moods_len, bool trusted)
{
    *w = (struct world){.servers_len = moods_len, .now_ms = 1000};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    uv_timer_init(&w->loop, &w->tick);
    uv_timer_start(&w->tick, on_tick, 1, 1);
    struct bh_slice texts[2];
    for (size_t i = 0; i < moods_len; i++) {
        server_open(&w->loop, &w->servers[i], moods[i]);
        texts[i] = bh_slice_str(w->servers[i].text);
    }
    struct bh_resolver_config config = bh_resolver_defaults();
    config.servers = texts;
    config.servers_len = moods_len;
    for (size_t i = 0; i < moods_len; i++) {
        config.timeout_ms = moods[i] == SILENT ? 150 : config.timeout_ms;
    }
    config.trusted = trusted;
    config.probe_ms = 50;
    config.now_ms = fake_now;
    config.now_ctx = w;
    assert_int_equal(bh_resolver_create(&w->loop, &config, &w->resolver), BH_OK);
}

static void on_destroyed(void *ctx)
{
    ((struct world *)ctx)->destroyed = true;
}

static void world_close(struct world *w)
{
    if (w->resolver != NULL) {
        bh_resolver_destroy(w->resolver, on_destroyed, w);
        assert_false(w->destroyed);
    }
    uv_close((uv_handle_t *)&w->tick, NULL);
    for (size_t i = 0; i < w->servers_len; i++) {
        if (w->servers[i].open > 0) {
            server_close(&w->servers[i]);
        }
    }
    /* Every handle is closed: the loop ends by itself, and can be closed. */
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->destroyed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
}

static void on_answer(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    (void)name;
    struct seen *seen = ctx;
    assert_false(seen->inside_call);
    seen->count++;
    assert_int_equal(bh_dns_answer_copy(answer, &seen->arena, &seen->answer), BH_OK);
}

static void on_targets(void *ctx, const struct bh_target_list *list)
{
    struct seen *seen = ctx;
    assert_false(seen->inside_call);
    seen->count++;
    assert_int_equal(bh_target_list_copy(list, &seen->arena, &seen->list), BH_OK);
}

static void seen_open(struct seen *seen, struct world *w)
{
    *seen = (struct seen){.world = w};
    bh_arena_init(&seen->arena, (size_t)8 << 20);
}

static void run_until(struct world *w, const unsigned *count, unsigned wanted)
{
    while (*count < wanted) {
        assert_int_not_equal(uv_run(&w->loop, UV_RUN_ONCE), 0);
    }
}

static void ask(struct seen *seen, const char *name, uint16_t type)
{
    seen->inside_call = true;
    assert_int_equal(
        bh_resolver_query(seen->world->resolver, bh_slice_str(name), type, on_answer, seen), BH_OK);
    seen->inside_call = false;
    run_until(seen->world, &seen->count, seen->count + 1);
}

static void ask_targets(struct seen *seen, const char *domain)
{
    const struct bh_target_request request = {.domain = bh_slice_str(domain), .port = 25};
    seen->inside_call = true;
    assert_int_equal(bh_resolver_targets(seen->world->resolver, &request, on_targets, seen), BH_OK);
    seen->inside_call = false;
    run_until(seen->world, &seen->count, seen->count + 1);
}

/* ---- tests ---- */

static void each_kind_of_answer(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        uint16_t type;
        enum bh_dns_status status;
        size_t records;
        uint32_t ttl_s;
    } cases[] = {
        {"Example.COM.", BH_DNS_MX, BH_DNS_FOUND, 2, 60},
        {"alias.example", BH_DNS_MX, BH_DNS_FOUND, 2, 30},
        {"lone.example", BH_DNS_MX, BH_DNS_FOUND, 1, 30},
        {"plain.example", BH_DNS_MX, BH_DNS_NODATA, 0, 20},
        {"nowhere.example", BH_DNS_MX, BH_DNS_NXDOMAIN, 0, 20},
        {"_25._tcp.mx1.example.com", BH_DNS_TLSA, BH_DNS_FOUND, 1, 90},
        {"servfail.example", BH_DNS_A, BH_DNS_SERVFAIL, 0, 5},
        {"null.example", BH_DNS_MX, BH_DNS_FOUND, 1, 60},
    };
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        ask(&seen, cases[i].name, cases[i].type);
        assert_int_equal(seen.answer.status, cases[i].status);
        assert_int_equal(seen.answer.records_len, cases[i].records);
        assert_int_equal(seen.answer.ttl_s, cases[i].ttl_s);
        assert_int_equal(seen.answer.secure, bh_dns_is_answer(cases[i].status));
    }
    assert_int_equal(w.servers[0].ad_missing, 0);
    assert_true(w.servers[0].edns > 0);
    assert_int_equal(bh_resolver_query(w.resolver, BH_LIT("a..b"), BH_DNS_A, on_answer, &seen),
                     BH_EINVAL);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void ad_is_believed_only_when_trusted(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, false);
    seen_open(&seen, &w);
    ask(&seen, "example.com", BH_DNS_MX);
    assert_int_equal(seen.answer.status, BH_DNS_FOUND);
    assert_false(seen.answer.secure);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void truncation_goes_to_tcp(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    ask(&seen, "big.example", BH_DNS_MX);
    assert_int_equal(seen.answer.status, BH_DNS_FOUND);
    assert_int_equal(seen.answer.records_len, 40);
    assert_true(seen.answer.secure);
    assert_int_equal(w.servers[0].tcp_queries, 1);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

/* What a first server says, and what becomes of it with a healthy second one and without. */
static void the_next_server_is_asked(void **unused)
{
    (void)unused;
    static const struct {
        enum mood mood;
        enum bh_dns_status alone;
    } cases[] = {
        {SILENT, BH_DNS_TIMEOUT},  {SERVFAIL, BH_DNS_SERVFAIL}, {REFUSING, BH_DNS_SERVFAIL},
        {GARBAGE, BH_DNS_GARBLED}, {BOGUS, BH_DNS_BOGUS},       {NO_EDNS, BH_DNS_FOUND},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct world w;
        struct seen seen;
        world_open(&w, (const enum mood[]){cases[i].mood, NORMAL}, 2, true);
        seen_open(&seen, &w);
        ask(&seen, "example.com", BH_DNS_MX);
        assert_int_equal(seen.answer.status, BH_DNS_FOUND);
        assert_true(w.servers[0].udp_queries > 0);
        bh_arena_fini(&seen.arena);
        world_close(&w);

        world_open(&w, (const enum mood[]){cases[i].mood}, 1, true);
        seen_open(&seen, &w);
        ask(&seen, "example.com", BH_DNS_MX);
        assert_int_equal(seen.answer.status, cases[i].alone);
        assert_int_equal(seen.answer.secure, cases[i].alone == BH_DNS_FOUND);
        bh_arena_fini(&seen.arena);
        world_close(&w);
    }
}

static void a_silent_server_is_remembered_and_probed(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){SILENT, NORMAL}, 2, true);
    seen_open(&seen, &w);
    ask(&seen, "load1.example", BH_DNS_A);
    ask(&seen, "load2.example", BH_DNS_A);
    assert_int_equal(bh_resolver_stats(w.resolver).servers_silent, 1);
    const uint64_t timeouts = bh_resolver_stats(w.resolver).timeouts;
    assert_int_equal(timeouts, 2);
    for (unsigned i = 3; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%u.example", i);
        ask(&seen, name, BH_DNS_A);
        assert_int_equal(seen.answer.status, BH_DNS_FOUND);
    }
    /* No lookup paid for it again. */
    assert_int_equal(bh_resolver_stats(w.resolver).timeouts, timeouts);

    w.servers[0].mood = NORMAL;
    while (bh_resolver_stats(w.resolver).servers_silent > 0) {
        assert_int_not_equal(uv_run(&w.loop, UV_RUN_ONCE), 0); /* a probe finds it back */
    }
    const unsigned before = w.servers[0].udp_queries;
    ask(&seen, "load99.example", BH_DNS_A);
    assert_int_equal(w.servers[0].udp_queries, before + 1);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

/* A port that nobody listens on: the kernel says so at once, and the next server is asked. */
static void a_refused_port_fails_over(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL, NORMAL}, 2, true);
    seen_open(&seen, &w);
    server_close(&w.servers[0]);
    while (w.servers[0].open > 0) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    ask(&seen, "example.com", BH_DNS_MX);
    assert_int_equal(seen.answer.status, BH_DNS_FOUND);
    assert_int_equal(w.servers[1].udp_queries, 1);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void a_burst_loses_nothing(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    const unsigned burst = 1600;
    uint32_t most = 0;
    for (unsigned i = 0; i < burst; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%u.example", i);
        assert_int_equal(
            bh_resolver_query(w.resolver, bh_slice_str(name), BH_DNS_A, on_answer, &seen), BH_OK);
    }
    while (seen.count < burst) {
        assert_int_not_equal(uv_run(&w.loop, UV_RUN_ONCE), 0);
        const uint32_t in_flight = bh_resolver_stats(w.resolver).in_flight;
        most = in_flight > most ? in_flight : most;
    }
    const struct bh_resolver_stats stats = bh_resolver_stats(w.resolver);
    assert_int_equal(stats.timeouts, 0);
    assert_int_equal(stats.failures, 0);
    assert_true(most <= 8 * 128);
    assert_int_equal(w.servers[0].udp_queries, burst);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.waiting, 0);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void equal_questions_are_asked_once(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(
            bh_resolver_query(w.resolver, BH_LIT("EXAMPLE.com"), BH_DNS_MX, on_answer, &seen),
            BH_OK);
    }
    run_until(&w, &seen.count, 10);
    assert_int_equal(w.servers[0].udp_queries, 1);
    assert_int_equal(bh_resolver_stats(w.resolver).joined, 9);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void the_cache_keeps_to_the_ttl(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    ask(&seen, "example.com", BH_DNS_MX);
    w.now_ms += 59000;
    ask(&seen, "example.com", BH_DNS_MX);
    assert_int_equal(w.servers[0].udp_queries, 1);
    assert_int_equal(seen.answer.ttl_s, 1);
    assert_true(seen.answer.secure);
    w.now_ms += 1000;
    ask(&seen, "example.com", BH_DNS_MX);
    assert_int_equal(w.servers[0].udp_queries, 2);
    /* A failure for 5 s, a denial for the SOA's 20 s. */
    ask(&seen, "servfail.example", BH_DNS_A);
    ask(&seen, "nowhere.example", BH_DNS_A);
    w.now_ms += 5000;
    ask(&seen, "servfail.example", BH_DNS_A);
    assert_int_equal(w.servers[0].udp_queries, 5);
    ask(&seen, "nowhere.example", BH_DNS_A);
    assert_int_equal(w.servers[0].udp_queries, 5);
    bh_resolver_forget(w.resolver, BH_LIT("Nowhere.Example"));
    ask(&seen, "nowhere.example", BH_DNS_A);
    assert_int_equal(w.servers[0].udp_queries, 6);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void targets_of_domains(void **unused)
{
    (void)unused;
    static const struct {
        const char *domain;
        bool usable;
        enum bh_happened happened;
        size_t targets;
        const char *site;
    } cases[] = {
        {"example.com", true, BH_HAPPENED_REPLY, 3, "mx1.example.com,mx2.example.com"},
        {"alias.example", true, BH_HAPPENED_REPLY, 3, "mx1.example.com,mx2.example.com"},
        {"plain.example", true, BH_HAPPENED_REPLY, 1, "plain.example"},
        {"half.example", true, BH_HAPPENED_REPLY, 1, "mx2.example.com,servfail.example"},
        {"null.example", false, BH_HAPPENED_NULL_MX, 0, ""},
        {"nowhere.example", false, BH_HAPPENED_NXDOMAIN, 0, ""},
        {"servfail.example", false, BH_HAPPENED_DNS_FAILED, 0, ""},
        {"broken.example", false, BH_HAPPENED_DNS_FAILED, 0, "servfail.example"},
    };
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    /* Twice: from the network, then from the cache alone. */
    for (size_t i = 0; i < 2 * BH_COUNT(cases); i++) {
        const size_t at = i % BH_COUNT(cases);
        const unsigned before = w.servers[0].udp_queries;
        ask_targets(&seen, cases[at].domain);
        assert_int_equal(seen.list.usable, cases[at].usable);
        assert_int_equal(seen.list.happened, cases[at].happened);
        assert_int_equal(seen.list.targets_len, cases[at].targets);
        assert_true(bh_slice_eq(seen.list.site, bh_slice_str(cases[at].site)));
        assert_true(i < BH_COUNT(cases) || w.servers[0].udp_queries == before);
    }
    ask_targets(&seen, "example.com");
    assert_int_equal(seen.list.targets[0].ip.family, 6);
    assert_int_equal(seen.list.targets[1].ip.family, 4);
    assert_true(bh_slice_eq(seen.list.targets[2].host->name, BH_LIT("mx2.example.com")));
    assert_true(seen.list.mx_secure && seen.list.targets[0].host->address_secure);
    bh_resolver_forget(w.resolver, BH_LIT("example.com"));
    const unsigned before = w.servers[0].udp_queries;
    ask_targets(&seen, "example.com");
    assert_int_equal(w.servers[0].udp_queries, before + 5);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void destroy_cancels_what_is_open(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){SILENT}, 1, true);
    seen_open(&seen, &w);
    const struct bh_target_request request = {.domain = BH_LIT("example.com"), .port = 25};
    /* More than fit in the channels, so that some wait. */
    for (unsigned i = 0; i < 1500; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%u.example", i);
        assert_int_equal(
            bh_resolver_query(w.resolver, bh_slice_str(name), BH_DNS_A, on_answer, &seen), BH_OK);
    }
    assert_int_equal(bh_resolver_targets(w.resolver, &request, on_targets, &seen), BH_OK);
    while (w.servers[0].udp_queries == 0) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    assert_true(bh_resolver_stats(w.resolver).waiting > 0);
    bh_resolver_destroy(w.resolver, on_destroyed, &w);
    w.resolver = NULL;
    assert_int_equal(seen.count, 1501);
    assert_int_equal(seen.answer.status, BH_DNS_CANCELLED);
    assert_int_equal(seen.list.happened, BH_HAPPENED_OUR_RESOURCE);
    assert_false(w.destroyed);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void on_answer_destroy(void *ctx, struct bh_slice name, const struct bh_dns_answer *answer)
{
    (void)name;
    (void)answer;
    struct seen *seen = ctx;
    seen->count++;
    if (seen->world->resolver != NULL) {
        struct bh_resolver *resolver = seen->world->resolver;
        seen->world->resolver = NULL;
        bh_resolver_destroy(resolver, on_destroyed, seen->world);
    }
}

static void destroy_from_a_callback(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    for (unsigned i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%u.example", i / 2);
        assert_int_equal(
            bh_resolver_query(w.resolver, bh_slice_str(name), BH_DNS_A, on_answer_destroy, &seen),
            BH_OK);
    }
    run_until(&w, &seen.count, 1);
    assert_int_equal(seen.count, 300);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void channels_are_renewed(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    bh_resolver_destroy(w.resolver, on_destroyed, &w);
    struct bh_slice text = bh_slice_str(w.servers[0].text);
    struct bh_resolver_config config = bh_resolver_defaults();
    config.servers = &text;
    config.servers_len = 1;
    config.channel_life_ms = 1;
    while (!w.destroyed) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    w.destroyed = false;
    assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_OK);
    uint16_t ports[64] = {0};
    size_t distinct = 0;
    for (unsigned i = 0; i < 64; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%u.example", i);
        ask(&seen, name, BH_DNS_A);
        assert_int_equal(seen.answer.status, BH_DNS_FOUND);
        bool old = false;
        for (size_t j = 0; j < distinct; j++) {
            old = old || ports[j] == w.servers[0].client_port;
        }
        if (!old) {
            ports[distinct++] = w.servers[0].client_port;
        }
    }
    assert_true(distinct > 16);
    assert_true(bh_resolver_stats(w.resolver).channels <= 2);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void bounds_are_kept(void **unused)
{
    (void)unused;
    struct world w;
    struct seen seen;
    world_open(&w, (const enum mood[]){NORMAL}, 1, true);
    seen_open(&seen, &w);
    bh_resolver_destroy(w.resolver, on_destroyed, &w);
    struct bh_slice text = bh_slice_str(w.servers[0].text);
    struct bh_resolver_config config = bh_resolver_defaults();
    config.servers = &text;
    config.servers_len = 1;
    config.lookups_max = 2;
    while (!w.destroyed) {
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    w.destroyed = false;
    assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_OK);
    /* Two hosts with two lookups each do not fit: a mistake of ours, not of the domain. */
    ask_targets(&seen, "example.com");
    assert_true(seen.list.usable || seen.list.happened == BH_HAPPENED_OUR_RESOURCE);
    assert_true(bh_resolver_stats(w.resolver).refused > 0);
    for (unsigned i = 0; i < 3; i++) {
        const char *names[] = {"load1.example", "load2.example", "load3.example"};
        assert_int_equal(
            bh_resolver_query(w.resolver, bh_slice_str(names[i]), BH_DNS_A, on_answer, &seen),
            i < 2 ? BH_OK : BH_EFULL);
    }
    run_until(&w, &seen.count, 3);
    bh_arena_fini(&seen.arena);
    world_close(&w);
}

static void servers_are_checked(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"",          "localhost",       "127.0.0.1:", "127.0.0.1:0",
                                      "[::1",      "127.0.0.1:65536", "[::1]53",    "1.2.3.4:5:6",
                                      "[::1]:dns", "192.0.2.1:53,::1"};
    static const char *const good[] = {"127.0.0.1", "127.0.0.1:5302", "::1", "[::1]", "[::1]:5302"};
    struct world w = {0};
    assert_int_equal(uv_loop_init(&w.loop), 0);
    struct bh_resolver_config config = bh_resolver_defaults();
    config.servers_len = 1;
    for (size_t i = 0; i < BH_COUNT(bad); i++) {
        const struct bh_slice text = bh_slice_str(bad[i]);
        config.servers = &text;
        assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_EINVAL);
    }
    for (size_t i = 0; i < BH_COUNT(good); i++) {
        const struct bh_slice text = bh_slice_str(good[i]);
        config.servers = &text;
        assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_OK);
        bh_resolver_destroy(w.resolver, on_destroyed, &w);
        uv_run(&w.loop, UV_RUN_DEFAULT);
        assert_true(w.destroyed);
        w.destroyed = false;
    }
    /* No server is a mistake that is said, not a silent 127.0.0.1. */
    config.servers_len = 0;
    config.resolv_conf = "/dev/null";
    assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_EINVAL);
    config.resolv_conf = "/nonexistent/resolv.conf";
    assert_int_equal(bh_resolver_create(&w.loop, &config, &w.resolver), BH_EIO);
    assert_int_equal(uv_loop_close(&w.loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_answer),
        cmocka_unit_test(ad_is_believed_only_when_trusted),
        cmocka_unit_test(truncation_goes_to_tcp),
        cmocka_unit_test(the_next_server_is_asked),
        cmocka_unit_test(a_silent_server_is_remembered_and_probed),
        cmocka_unit_test(a_refused_port_fails_over),
        cmocka_unit_test(a_burst_loses_nothing),
        cmocka_unit_test(equal_questions_are_asked_once),
        cmocka_unit_test(the_cache_keeps_to_the_ttl),
        cmocka_unit_test(targets_of_domains),
        cmocka_unit_test(destroy_cancels_what_is_open),
        cmocka_unit_test(destroy_from_a_callback),
        cmocka_unit_test(channels_are_renewed),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(servers_are_checked),
    };
    return cmocka_run_group_tests_name("dns_resolver", tests, NULL, NULL);
}
