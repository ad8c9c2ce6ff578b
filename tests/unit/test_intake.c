/* The intake driver with a real store thread over the memory backend, real sockets on loopback, and
 * clients on a thread of their own that speak line by line. */
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "bh/intake.h"
#include "bh/kv_memory.h"
#include "bh/queue_id.h"
#include "tls_fixture.h"

#define MESSAGES_MAX 16
#define LARGE_LEN ((size_t)3 << 20)

struct fixture {
    char folder[64];
    const struct bh_config *config;
    struct bh_kv *kv;
    struct bh_queue *queue;
    struct bh_store *store;
    struct bh_intake_shared *shared;
    struct bh_intake *intake;
    uv_loop_t loop;
    uv_async_t finished; /* the client is done */
    uint16_t port;
    char path[96]; /* of the Unix socket */
    void (*client)(struct fixture *f);
    const char *failure; /* of the client; NULL: none */
    char said[512];      /* what came instead of what it expected */
    pthread_mutex_t lock;
    uint64_t ids[MESSAGES_MAX]; /* committed, by the hook on the writer's thread */
    size_t groups[MESSAGES_MAX];
    size_t id_count;
    int fd;
    SSL *ssl; /* of the client; NULL: in clear */
    bool draining;
    atomic_bool room; /* what the store is to say when it is asked; once */
    sem_t asked, let; /* it was asked and said no; it said yes */
    bool pause_when_asked;
    atomic_bool hold; /* the loop stands still when it next asks for the configuration */
    sem_t held, go;
    atomic_int flood_fd; /* 0: none */
    int flood_said;      /* octets that it had been sent when the configuration was asked for; -1 */
};

/* --- the client --- */

static void went_wrong(struct fixture *f, const char *what)
{
    if (f->failure == NULL) {
        f->failure = what;
    }
}

static void connect_to(struct fixture *f, bool local)
{
    const struct timeval patience = {20, 0};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(f->port)};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, f->path, sizeof(f->path));
    f->fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(f->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    const int status = local ? connect(f->fd, (struct sockaddr *)&un, sizeof(un))
                             : connect(f->fd, (struct sockaddr *)&v4, sizeof(v4));
    if (status != 0) {
        went_wrong(f, "connect");
    }
}

static void hang_up(struct fixture *f)
{
    close(f->fd);
    f->fd = -1;
}

static void say(struct fixture *f, const char *text, size_t len)
{
    while (len > 0 && f->failure == NULL) {
        const ssize_t sent = f->ssl != NULL ? SSL_write(f->ssl, text, (int)len)
                                            : send(f->fd, text, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            went_wrong(f, "send");
            return;
        }
        text += sent;
        len -= (size_t)sent;
    }
}

static void say_line(struct fixture *f, const char *text)
{
    say(f, text, strlen(text));
    say(f, "\r\n", 2);
}

/* The next line must start so. */
static void expect(struct fixture *f, const char *start)
{
    size_t len = 0;
    while (f->failure == NULL && len + 1 < sizeof(f->said)) {
        const ssize_t got =
            f->ssl != NULL ? SSL_read(f->ssl, f->said + len, 1) : recv(f->fd, f->said + len, 1, 0);
        if (got <= 0) {
            went_wrong(f, start);
            return;
        }
        len++;
        f->said[len] = '\0';
        if (f->said[len - 1] == '\n') {
            break;
        }
    }
    if (strncmp(f->said, start, strlen(start)) != 0) {
        went_wrong(f, start);
    }
}

/* Closed by the server; a reset counts, since it may leave octets of ours unread. */
static void expect_end(struct fixture *f)
{
    char octet;
    if (f->failure == NULL) {
        const ssize_t got = recv(f->fd, &octet, 1, 0);
        if (got > 0 || (got < 0 && errno != ECONNRESET)) {
            went_wrong(f, "end of the connection");
        }
    }
}

static void wait_for(struct fixture *f, sem_t *event, const char *what)
{
    struct timespec patience;
    clock_gettime(CLOCK_REALTIME, &patience);
    patience.tv_sec += 20;
    if (f->failure == NULL && sem_timedwait(event, &patience) != 0) {
        went_wrong(f, what);
    }
}

/* Somebody cleans up. When this returns the intake knows. */
static void make_room(struct fixture *f)
{
    atomic_store(&f->room, true);
    wait_for(f, &f->let, "to be asked for room");
}

static void hello(struct fixture *f)
{
    expect(f, "220 mx.test ");
    say_line(f, "HELO client.test");
    expect(f, "250 mx.test");
}

static void envelope(struct fixture *f)
{
    say_line(f, "MAIL FROM:<a@a.example>");
    say_line(f, "RCPT TO:<b@b.example>");
    say_line(f, "DATA");
    expect(f, "250 2.1.0");
    expect(f, "250 2.1.5");
    expect(f, "354 ");
}

/* --- the server's side --- */

static const struct bh_config *get_config(void *ctx)
{
    struct fixture *f = ctx;
    if (atomic_exchange(&f->hold, false)) {
        sem_post(&f->held);
        sem_wait(&f->go);
    } else if (atomic_load(&f->flood_fd) > 0 && f->flood_said < 0) {
        ioctl(atomic_load(&f->flood_fd), FIONREAD, &f->flood_said);
    }
    return bh_config_ref(f->config);
}

static void on_committed(void *ctx, const struct bh_intake_committed *committed)
{
    struct fixture *f = ctx;
    pthread_mutex_lock(&f->lock);
    if (f->id_count < MESSAGES_MAX) {
        f->groups[f->id_count] = committed->group_count;
        f->ids[f->id_count++] = committed->id;
    }
    pthread_mutex_unlock(&f->lock);
}

static bool has_room(void *ctx)
{
    struct fixture *f = ctx;
    if (f->pause_when_asked) {
        bh_intake_set_gate(f->intake, BH_SERVER_GATE_PAUSED);
    }
    const bool room = atomic_exchange(&f->room, false);
    sem_post(room ? &f->let : &f->asked);
    return room;
}

static void on_drained(void *ctx)
{
    struct fixture *f = ctx;
    uv_close((uv_handle_t *)&f->finished, NULL);
    uv_stop(&f->loop);
}

static void on_finished(uv_async_t *async)
{
    struct fixture *f = async->data;
    if (!f->draining) {
        f->draining = true;
        bh_intake_drain(f->intake, on_drained, f);
    }
}

static void *run_client(void *ctx)
{
    struct fixture *f = ctx;
    f->client(f);
    if (f->fd >= 0) {
        close(f->fd);
    }
    uv_async_send(&f->finished);
    return NULL;
}

static const char *engine_settings = "hostname mx.test";
static const char *own_hostname = "fallback.test";

static void load_config(struct fixture *f, const char *listen_settings)
{
    char path[128];
    memcpy(f->folder, "/tmp/bh-intake-XXXXXX", 22);
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/smtp", f->folder);
    snprintf(path, sizeof(path), "%s/conf", f->folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "engine { %s }\nqueue { path %s }\n"
            "listen 127.0.0.1:0 { %s }\nlisten unix:%s { relay-from local }\n",
            engine_settings, f->folder, listen_settings, f->path);
    fclose(file);
    struct bh_config_reader reader = bh_config_reader_posix();
    static struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    assert_int_equal(bh_config_parse(&reader, path, 1, &f->config, &errors), BH_OK);
    bh_config_errors_fini(&errors);
    unlink(path);
}

static void start(struct fixture *f, const char *listen_settings, size_t store_max)
{
    char text[512];
    struct bh_buf error = bh_buf(text, sizeof(text));
    pthread_mutex_init(&f->lock, NULL);
    sem_init(&f->asked, 0, 0);
    sem_init(&f->let, 0, 0);
    sem_init(&f->held, 0, 0);
    sem_init(&f->go, 0, 0);
    f->flood_said = -1;
    load_config(f, listen_settings);
    f->kv = bh_kv_memory_create(store_max, 16384);
    assert_non_null(f->kv);
    assert_int_equal(
        bh_queue_open(f->kv, &(struct bh_queue_limits){0}, &f->queue, text, sizeof(text)), BH_OK);
    const struct bh_store_options options = {.kv = f->kv, .queue = f->queue};
    assert_int_equal(bh_store_create(&options, &f->store), BH_OK);
    f->shared = bh_intake_shared_create();
    assert_non_null(f->shared);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    uv_async_init(&f->loop, &f->finished, on_finished);
    f->finished.data = f;

    struct bh_intake_sockets sockets[2];
    struct bh_intake_listener listeners[2];
    assert_int_equal(f->config->listens_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(bh_intake_bind(&f->config->listens[i], 1, &sockets[i], &error), BH_OK);
        listeners[i] = (struct bh_intake_listener){f->config->listens[i].text, sockets[i].fds[0]};
    }
    f->port = sockets[0].port;
    const struct bh_intake_params params = {
        .loop = &f->loop,
        .store = f->store,
        .shared = f->shared,
        .hooks = {.ctx = f,
                  .config = get_config,
                  .on_committed = on_committed,
                  .has_room = has_room},
        .hostname = bh_slice_str(own_hostname),
        .listeners = listeners,
        .listener_count = 2,
    };
    assert_int_equal(bh_intake_create(&params, &f->intake, &error), BH_OK);
}

static enum bh_server_gate gate_at_start = BH_SERVER_GATE_OPEN;

/* Runs the client to its end against a server with these settings, then stops everything but the
 * queue. */
static void run(struct fixture *f, void (*client)(struct fixture *), const char *listen_settings,
                size_t store_max)
{
    pthread_t thread;
    memset(f, 0, sizeof(*f));
    f->fd = -1;
    f->client = client;
    start(f, listen_settings, store_max);
    bh_intake_set_gate(f->intake, gate_at_start);
    assert_int_equal(pthread_create(&thread, NULL, run_client, f), 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    pthread_join(thread, NULL);
    assert_int_equal(bh_intake_shared_sessions(f->shared), 0);
    struct bh_intake_stats stats;
    bh_intake_stats(f->intake, &stats);
    assert_int_equal(stats.sessions, 0);
    assert_int_equal(stats.content_bytes, 0);
    assert_int_equal(stats.messages, f->id_count);
    bh_store_stop(f->store);
    bh_intake_destroy(f->intake);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    if (f->failure != NULL) {
        fail_msg("client: wanted \"%s\", last line \"%s\"", f->failure, f->said);
    }
}

static void stop(struct fixture *f)
{
    bh_intake_shared_destroy(f->shared);
    bh_queue_destroy(f->queue);
    bh_kv_close(f->kv);
    bh_config_unref(f->config);
    unlink(f->path);
    rmdir(f->folder);
    pthread_mutex_destroy(&f->lock);
    sem_destroy(&f->asked);
    sem_destroy(&f->let);
    sem_destroy(&f->held);
    sem_destroy(&f->go);
}

/* What the queue holds of message i, into storage of `cap` octets. */
static struct bh_slice content_of(struct fixture *f, size_t i, char *storage, size_t cap,
                                  struct bh_arena *arena, struct bh_message *message)
{
    struct bh_kv_txn *txn = NULL;
    struct bh_buf out = bh_buf(storage, cap);
    assert_true(i < f->id_count);
    bh_arena_init(arena, BH_QUEUE_ARENA);
    assert_int_equal(bh_kv_begin(f->kv, BH_KV_READ, NULL, &txn), BH_OK);
    assert_int_equal(bh_queue_read_message(txn, f->ids[i], arena, message), BH_OK);
    assert_int_equal(bh_queue_read_content(txn, message, 0, &out), BH_OK);
    bh_kv_abort(txn);
    assert_int_equal(message->envelope.size, out.len);
    return bh_buf_slice(&out);
}

static size_t rows(struct fixture *f, enum bh_kv_db db)
{
    struct bh_kv_txn *txn = NULL;
    struct bh_kv_cursor *cursor = NULL;
    struct bh_slice key;
    struct bh_slice value;
    size_t count = 0;
    assert_int_equal(bh_kv_begin(f->kv, BH_KV_READ, NULL, &txn), BH_OK);
    assert_int_equal(bh_kv_cursor_open(txn, db, &cursor), BH_OK);
    for (enum bh_status s = bh_kv_first(cursor, &key, &value); s == BH_OK;
         s = bh_kv_next(cursor, &key, &value)) {
        count++;
    }
    bh_kv_cursor_close(cursor);
    bh_kv_abort(txn);
    return count;
}

static bool holds(struct bh_slice text, const char *part)
{
    return bh_slice_find_slice(text, bh_slice_str(part)) < text.len;
}

#define ROOM ((size_t)64 << 20)
#define RELAY "relay-from 127.0.0.0/8"

/* --- the cases --- */

static void pipelining_client(struct fixture *f)
{
    static const char group[] = "MAIL FROM:<1@a.example>\r\nRCPT TO:<x@b.example>\r\nDATA\r\n"
                                "Subject: one\r\n\r\n..\r\n.\r\n"
                                "MAIL FROM:<>\r\nRCPT TO:<x@B.example>\r\nRCPT TO:<y@c.example>\r\n"
                                "RCPT TO:<z@b.example>\r\nRCPT TO:<x@b.example>\r\nDATA\r\n"
                                "two\r\n.\r\nQUIT\r\n";
    connect_to(f, false);
    hello(f);
    say(f, group, sizeof(group) - 1);
    expect(f, "250 2.1.0");
    expect(f, "250 2.1.5");
    expect(f, "354 ");
    expect(f, "250 2.0.0 Ok: queued as ");
    expect(f, "250 2.1.0");
    for (int i = 0; i < 4; i++) {
        expect(f, "250 2.1.5");
    }
    expect(f, "354 ");
    expect(f, "250 2.0.0 Ok: queued as ");
    expect(f, "221 ");
    expect_end(f);
}

static void pipelined_messages_are_queued(void **unused)
{
    (void)unused;
    struct fixture f;
    char storage[4096];
    char id[BH_QUEUE_ID_TEXT];
    struct bh_arena arena;
    struct bh_message message;
    run(&f, pipelining_client, RELAY, ROOM);
    assert_int_equal(f.id_count, 2);
    assert_int_equal(f.groups[0], 1);
    assert_int_equal(f.groups[1], 2);
    const struct bh_slice one = content_of(&f, 0, storage, sizeof(storage), &arena, &message);
    assert_true(bh_slice_starts(one, BH_LIT("Received: from client.test ([127.0.0.1])\r\n"
                                            "\tby mx.test with SMTP id ")));
    assert_true(holds(one, bh_queue_id_text(f.ids[0], id)));
    assert_true(holds(one, "for <x@b.example>;"));
    assert_true(holds(one, " +0000\r\nSubject: one\r\n\r\n.\r\n"));
    assert_true(bh_slice_eq(message.envelope.sender, BH_LIT("1@a.example")));
    bh_arena_fini(&arena);
    const struct bh_slice two = content_of(&f, 1, storage, sizeof(storage), &arena, &message);
    assert_false(holds(two, "for <")); /* It would tell one recipient of another. */
    assert_true(holds(two, bh_queue_id_text(f.ids[1], id)));
    assert_int_equal(message.part_count, 2);
    bh_arena_fini(&arena);
    stop(&f);
}

static void slow_client(struct fixture *f)
{
    static const char text[] = "MAIL FROM:<1@a.example>\r\nRCPT TO:<x@b.example>\r\nDATA\r\n";
    static const char content[] = "Subject: slow\r\n\r\n..x\r\n.\r\n";
    connect_to(f, true);
    hello(f);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        say(f, text + i, 1);
    }
    expect(f, "250 2.1.0");
    expect(f, "250 2.1.5");
    expect(f, "354 ");
    for (size_t i = 0; i < sizeof(content) - 1; i++) {
        say(f, content + i, 1);
    }
    expect(f, "250 2.0.0 Ok: queued as ");
}

static void a_unix_socket_octet_by_octet(void **unused)
{
    (void)unused;
    struct fixture f;
    char storage[4096];
    struct bh_arena arena;
    struct bh_message message;
    run(&f, slow_client, RELAY, ROOM);
    assert_int_equal(f.id_count, 1);
    const struct bh_slice text = content_of(&f, 0, storage, sizeof(storage), &arena, &message);
    assert_true(holds(text, "Received: from client.test (local)"));
    assert_true(holds(text, "Subject: slow\r\n\r\n.x\r\n"));
    bh_arena_fini(&arena);
    stop(&f);
}

static void smuggling_client(struct fixture *f)
{
    static const char text[] =
        "hello\r\n\n.\nMAIL FROM:<evil@a.example>\r\nRCPT TO:<b@b.example>\r\n"
        "DATA\r\nevil\r\n.\r\n";
    connect_to(f, false);
    hello(f);
    envelope(f);
    say(f, text, sizeof(text) - 1);
    expect(f, "554 5.5.2");
    say_line(f, "NOOP");
    expect(f, "250 2.0.0");
}

static void smuggled_messages_are_refused(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, smuggling_client, RELAY, ROOM);
    assert_int_equal(f.id_count, 0);
    assert_int_equal(rows(&f, BH_KV_MESSAGE), 0);
    stop(&f);
}

static void say_large(struct fixture *f, size_t len)
{
    char line[1000];
    for (size_t i = 0; i < sizeof(line) - 2; i++) {
        line[i] = (char)('a' + i % 26);
    }
    line[998] = '\r';
    line[999] = '\n';
    for (size_t sent = 0; sent < len; sent += sizeof(line)) {
        say(f, line, sizeof(line));
    }
}

static void full_client(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    envelope(f);
    say_large(f, 100000); /* one commit */
    say_line(f, ".");
    expect(f, "452 4.3.1");
    wait_for(f, &f->asked, "to be asked for room");
    say_line(f, "MAIL FROM:<a@a.example>"); /* It was told that there is none. */
    expect(f, "452 4.3.1");
    const int first = f->fd;
    connect_to(f, false); /* This holds for new sessions too. */
    hello(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "452 4.3.1");
    close(f->fd);
    f->fd = first;
    make_room(f);
    envelope(f);
    say_large(f, LARGE_LEN); /* stored as it comes */
    say_line(f, ".");
    expect(f, "452 4.3.1");
    make_room(f);
    envelope(f);
    say_line(f, "small enough");
    say_line(f, ".");
    expect(f, "250 2.0.0");
}

static void a_full_store_is_452(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, full_client, RELAY, 65536);
    assert_int_equal(f.id_count, 1);
    assert_int_equal(rows(&f, BH_KV_OPEN), 0);
    assert_int_equal(rows(&f, BH_KV_MESSAGE), 1);
    stop(&f);
}

static void full_and_paused_client(struct fixture *f)
{
    f->pause_when_asked = true; /* Not read before a message was refused. */
    connect_to(f, false);
    hello(f);
    envelope(f);
    say_large(f, 100000);
    say_line(f, ".");
    expect(f, "452 4.3.1");
    wait_for(f, &f->asked, "to be asked for room");
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "452 4.3.2");
    make_room(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "452 4.3.2");
}

static void room_ends_no_pause(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, full_and_paused_client, RELAY, 65536);
    assert_int_equal(f.id_count, 0);
    stop(&f);
}

static void nameless_client(struct fixture *f)
{
    connect_to(f, false);
    expect(f, "220 localhost ");
}

static void without_a_name_it_is_localhost(void **unused)
{
    (void)unused;
    struct fixture f;
    engine_settings = "";
    own_hostname = "";
    run(&f, nameless_client, RELAY, ROOM);
    stop(&f);
    engine_settings = "hostname mx.test";
    own_hostname = "fallback.test";
}

static void large_client(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    envelope(f);
    say_large(f, LARGE_LEN);
    say_line(f, ".");
    expect(f, "250 2.0.0 Ok: queued as ");
    envelope(f);
    say_large(f, LARGE_LEN);
    hang_up(f); /* half sent */
    connect_to(f, false);
    hello(f);
    envelope(f);
    say_large(f, LARGE_LEN);
    say(f, "a\nb\r\n.\r\n", 8); /* refused at its end */
    expect(f, "554 5.5.2");
}

static void large_messages_are_stored_as_they_come(void **unused)
{
    (void)unused;
    struct fixture f;
    struct bh_arena arena;
    struct bh_message message;
    char *storage = malloc(LARGE_LEN + 8192);
    assert_non_null(storage);
    run(&f, large_client, RELAY, ROOM);
    assert_int_equal(f.id_count, 1);
    const struct bh_slice text = content_of(&f, 0, storage, LARGE_LEN + 8192, &arena, &message);
    const size_t start = bh_slice_find_slice(text, BH_LIT("abcdefghij"));
    char id[BH_QUEUE_ID_TEXT];
    assert_true(start < 2048);
    assert_true(holds(bh_slice_take(text, start), bh_queue_id_text(f.ids[0], id)));
    const size_t lines = (LARGE_LEN + 999) / 1000;
    assert_int_equal(text.len - start, lines * 1000);
    for (size_t i = start; i < text.len; i += 1000) {
        assert_memory_equal(text.ptr + i, text.ptr + start, 1000);
    }
    bh_arena_fini(&arena);
    assert_int_equal(rows(&f, BH_KV_OPEN), 0);
    assert_int_equal(rows(&f, BH_KV_MESSAGE), 1);
    assert_int_equal(rows(&f, BH_KV_CONTENT), message.chunks); /* of the others nothing is left */
    stop(&f);
    free(storage);
}

static void two_clients(struct fixture *f)
{
    connect_to(f, false);
    expect(f, "220 ");
    const int first = f->fd;
    connect_to(f, false);
    expect(f, "421 4.7.0");
    expect_end(f);
    close(first);
}

static void sessions_of_a_client_are_counted(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, two_clients, RELAY "; limits { sessions-per-client 1 }", ROOM);
    stop(&f);
}

static void refused_client(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "250 2.1.0");
    say_line(f, "RCPT TO:<b@b.example>");
    expect(f, "550 5.7.1");
}

static void nobody_relays_by_default(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, refused_client, "", ROOM);
    stop(&f);
}

static void proxied_client(struct fixture *f)
{
    static const char header[] =
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x04\0\0\x19"
        "HELO client.test\r\n";
    connect_to(f, false);
    for (size_t i = 0; i < sizeof(header) - 1; i += 5) {
        say(f, header + i, sizeof(header) - 1 - i < 5 ? sizeof(header) - 1 - i : 5);
    }
    expect(f, "220 mx.test ");
    expect(f, "250 mx.test");
    envelope(f);
    say_line(f, ".");
    expect(f, "250 2.0.0");
    hang_up(f);
    connect_to(f, false);
    say_line(f, "EHLO not a header");
    expect_end(f);
}

static void a_listed_balancer_names_the_client(void **unused)
{
    (void)unused;
    struct fixture f;
    char storage[4096];
    struct bh_arena arena;
    struct bh_message message;
    run(&f, proxied_client, "relay-from 192.0.2.1; proxy-protocol-from 127.0.0.1", ROOM);
    assert_int_equal(f.id_count, 1);
    const struct bh_slice text = content_of(&f, 0, storage, sizeof(storage), &arena, &message);
    assert_true(holds(text, "([192.0.2.1])"));
    bh_arena_fini(&arena);
    stop(&f);
}

static void paused_client(struct fixture *f)
{
    connect_to(f, false);
    expect(f, "421 4.3.2");
    expect_end(f);
}

static void full_gate_client(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "452 4.3.1");
}

static void closed_gates_are_said(void **unused)
{
    (void)unused;
    struct fixture f;
    gate_at_start = BH_SERVER_GATE_PAUSED;
    run(&f, paused_client, RELAY, ROOM);
    stop(&f);
    gate_at_start = BH_SERVER_GATE_FULL;
    run(&f, full_gate_client, RELAY, ROOM);
    stop(&f);
    gate_at_start = BH_SERVER_GATE_OPEN;
}

/* One session idle, one with half a message of more than memory holds, when the end comes. */
static void drained_client(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    const int idle = f->fd;
    connect_to(f, false);
    hello(f);
    envelope(f);
    say_large(f, LARGE_LEN);
    uv_async_send(&f->finished);
    expect(f, "421 4.3.2");
    expect_end(f);
    close(f->fd);
    f->fd = idle;
    expect(f, "421 4.3.2");
    expect_end(f);
}

static void draining_ends_every_session(void **unused)
{
    (void)unused;
    struct fixture f;
    run(&f, drained_client, RELAY, ROOM);
    assert_int_equal(f.id_count, 0);
    assert_int_equal(rows(&f, BH_KV_OPEN), 0);
    assert_int_equal(rows(&f, BH_KV_CONTENT), 0);
    stop(&f);
}

static void shake_hands(struct fixture *f)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    f->ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_fd(f->ssl, f->fd);
    if (f->failure == NULL && SSL_connect(f->ssl) != 1) {
        went_wrong(f, "TLS handshake");
    }
}

static void end_tls(struct fixture *f)
{
    SSL_shutdown(f->ssl);
    SSL_free(f->ssl);
    f->ssl = NULL;
}

/* EHLO and its reply, whose last line is HELP. */
static void extended_hello(struct fixture *f)
{
    say_line(f, "EHLO client.test");
    do {
        expect(f, "250");
    } while (f->failure == NULL && strncmp(f->said, "250 HELP", 8) != 0);
}

static void starttls_client(struct fixture *f)
{
    connect_to(f, false);
    expect(f, "220 mx.test ");
    extended_hello(f);
    say_line(f, "STARTTLS");
    expect(f, "220 2.0.0");
    shake_hands(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "503 5.5.1"); /* The EHLO in clear is forgotten. */
    extended_hello(f);
    envelope(f);
    say_large(f, LARGE_LEN);
    say_line(f, ".");
    expect(f, "250 2.0.0");
    say_line(f, "QUIT");
    expect(f, "221 ");
    end_tls(f);
    hang_up(f);

    connect_to(f, false);
    expect(f, "220 mx.test ");
    say_line(f, "STARTTLS\r\nMAIL FROM:<evil@a.example>");
    expect(f, "220 2.0.0");
    expect_end(f); /* Octets behind STARTTLS end the session. */
}

static void implicit_client(struct fixture *f)
{
    connect_to(f, false);
    shake_hands(f);
    expect(f, "220 mx.test ");
    extended_hello(f);
    envelope(f);
    say_line(f, "hi");
    say_line(f, ".");
    expect(f, "250 2.0.0");
    end_tls(f);
    hang_up(f);
    connect_to(f, false);
    say_line(f, "EHLO in.clear");
    char octets[64];
    while (recv(f->fd, octets, sizeof(octets), 0) > 0) {
        /* An alert, then the end. */
    }
}

static void run_tls(const char *mode, void (*client)(struct fixture *))
{
    struct fixture f;
    struct tls_fixture tls;
    struct bh_arena arena;
    struct bh_message message;
    char settings[512];
    char *storage = malloc(LARGE_LEN + 8192);
    assert_non_null(storage);
    tls_fixture_make(&tls, "mx.test");
    snprintf(settings, sizeof(settings), RELAY "; tls %s { certificate %s; key %s }", mode,
             tls.certificate, tls.key);
    run(&f, client, settings, ROOM);
    assert_int_equal(f.id_count, 1);
    const struct bh_slice text = content_of(&f, 0, storage, LARGE_LEN + 8192, &arena, &message);
    assert_true(holds(bh_slice_take(text, 300), " with ESMTPS id "));
    assert_true(bh_slice_eq(message.origin.protocol, BH_LIT("ESMTPS")));
    bh_arena_fini(&arena);
    stop(&f);
    tls_fixture_remove(&tls);
    free(storage);
}

static void starttls_carries_mail(void **unused)
{
    (void)unused;
    run_tls("starttls", starttls_client);
}

static void implicit_tls_carries_mail(void **unused)
{
    (void)unused;
    run_tls("implicit", implicit_client);
}

/* Asks for the configuration, and so holds the loop, on a connection of its own. */
static void hold_loop(struct fixture *f)
{
    connect_to(f, false);
    hello(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "250 2.1.0");
    atomic_store(&f->hold, true);
    say_line(f, "RCPT TO:<b@b.example>");
    wait_for(f, &f->held, "the loop to ask for the configuration");
}

/* Ten thousand commands come in one read, and one of somebody else right behind them. */
static void flooding_client(struct fixture *f)
{
    static char flood[60000];
    for (size_t i = 0; i < sizeof(flood); i += 6) {
        memcpy(flood + i, "NOOP\r\n", 6);
    }
    connect_to(f, false);
    hello(f);
    const int flooder = f->fd;
    connect_to(f, false);
    hello(f);
    say_line(f, "MAIL FROM:<a@a.example>");
    expect(f, "250 2.1.0");
    const int other = f->fd;
    hold_loop(f);
    const int holder = f->fd;
    f->fd = flooder;
    say(f, flood, sizeof(flood));
    f->fd = other;
    say(f, "RCPT TO:<c@c.example>\r\n", 23); /* asks for the configuration, too */
    atomic_store(&f->flood_fd, flooder);
    sem_post(&f->go);
    expect(f, "250 2.1.5");
    close(other);
    f->fd = holder;
    expect(f, "250 2.1.5");
    close(holder);
    f->fd = flooder; /* All of them are answered in the end. */
    for (size_t i = 0; i < sizeof(flood); i += 6) {
        expect(f, "250 2.0.0");
    }
}

static void a_flood_of_commands_waits_for_others(void **unused)
{
    struct fixture f;
    (void)unused;
    run(&f, flooding_client, RELAY, ROOM);
    /* A turn is two kilobytes of commands or so, of sixty; the replies to it are 16 KiB and some.
     */
    assert_in_range(f.flood_said, 1, 40000);
    stop(&f);
}

#define CROWD 300

static void crowding_client(struct fixture *f)
{
    int crowd[CROWD];
    size_t told = 0;
    hold_loop(f);
    const int holder = f->fd;
    for (size_t i = 0; i < CROWD; i++) {
        connect_to(f, false);
        crowd[i] = f->fd;
    }
    sem_post(&f->go);
    for (size_t i = 0; i < CROWD; i++) {
        char said[4] = "";
        told += recv(crowd[i], said, 3, 0) == 3 && memcmp(said, "421", 3) == 0 ? 1 : 0;
    }
    for (size_t i = 0; i < CROWD; i++) {
        close(crowd[i]);
    }
    f->fd = holder;
    if (told != 256) {
        went_wrong(f, "256 who are told");
    }
}

static void of_those_who_are_too_many_not_all_are_told(void **unused)
{
    struct fixture f;
    (void)unused;
    run(&f, crowding_client, RELAY "; limits { sessions 1 }", ROOM);
    stop(&f);
}

int main(void)
{
    signal(SIGPIPE,
           SIG_IGN); /* As the daemon does: libuv writes to sockets that the peer closed. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined_messages_are_queued),
        cmocka_unit_test(a_unix_socket_octet_by_octet),
        cmocka_unit_test(smuggled_messages_are_refused),
        cmocka_unit_test(a_full_store_is_452),
        cmocka_unit_test(room_ends_no_pause),
        cmocka_unit_test(without_a_name_it_is_localhost),
        cmocka_unit_test(large_messages_are_stored_as_they_come),
        cmocka_unit_test(sessions_of_a_client_are_counted),
        cmocka_unit_test(nobody_relays_by_default),
        cmocka_unit_test(a_listed_balancer_names_the_client),
        cmocka_unit_test(closed_gates_are_said),
        cmocka_unit_test(draining_ends_every_session),
        cmocka_unit_test(a_flood_of_commands_waits_for_others),
        cmocka_unit_test(of_those_who_are_too_many_not_all_are_told),
        cmocka_unit_test(starttls_carries_mail),
        cmocka_unit_test(implicit_tls_carries_mail),
    };
    return cmocka_run_group_tests_name("intake", tests, NULL, NULL);
}
