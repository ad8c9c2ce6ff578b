/* main.c - the daemon: options, start in an order that fails early and clean, and the end.
 *
 *  1. configuration, listeners (the ports may need root), folders; then privileges are dropped, and
 *     what is left is confined (sandbox), while there is one thread
 *  2. the queue: one process, no network file system; half-received messages go, who was in flight
 *     is marked
 *  3. store threads, engine, workers; READY
 *  4. SIGTERM: no new mail, sessions end after their transaction, outcomes are committed, within
 *     the drain timeout */
#include "daemon.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/log.h"
#include "config_files.h"
#include "confine.h"
#include "control_server.h"
#include "life.h"
#include "memory_idle.h"
#include "privileges.h"
#include "receiving.h"
#include "sd_notify.h"

#define CONFIG_DEFAULT "/etc/bridgehead/bridgehead.conf"
#define DESCRIPTORS_WANTED 65536

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- letters to the main thread ---- */

static void ring(void *ctx)
{
    uv_async_send(ctx);
}

void daemon_call(struct daemon *d, struct daemon_call *call)
{
    bh_mailbox_post_always(d->box, &call->letter);
}

static void maybe_finish(struct daemon *d)
{
    if (atomic_load(&d->store_failed)) {
        /* Its commits fail with space free: nothing that follows could be kept (DESIGN 4). What was
         * acknowledged is on disk; a restart finds it. */
        bh_log(BH_LOG_ERROR, "evt=stopped reason=\"the store failed\"");
        _exit(EXIT_FAILURE);
    }
    if (d->stopping && atomic_load(&d->engine_drained) && atomic_load(&d->intakes_left) == 0) {
        uv_stop(&d->loop);
    }
}

static void on_doorbell(uv_async_t *async)
{
    struct daemon *d = async->data;
    for (struct bh_letter *letter = bh_mailbox_take_all(d->box); letter != NULL;) {
        struct bh_letter *next = letter->next;
        struct daemon_call *call = BH_CONTAINER(letter, struct daemon_call, letter);
        call->run(call, d);
        letter = next;
    }
    maybe_finish(d);
}

/* ---- hooks of threads ---- */

static void on_store_failed(void *ctx, enum bh_status status)
{
    struct daemon *d = ctx;
    bh_log(BH_LOG_ERROR, "evt=store_failed error=\"%s\"", bh_status_name(status));
    atomic_store(&d->store_failed, true);
    uv_async_send(&d->doorbell);
}

static enum bh_status on_store_idle(void *ctx)
{
    struct daemon *d = ctx;
    const enum bh_status status = bh_kv_lmdb_upkeep(d->kv);
    return status == BH_EFULL ? BH_OK : status;
}

static void on_engine_drained(void *ctx)
{
    struct daemon *d = ctx;
    atomic_store(&d->engine_drained, true);
    uv_async_send(&d->doorbell);
}

static const struct bh_config *get_config(void *ctx)
{
    return config_cell_get(&((struct daemon *)ctx)->cell);
}

static bool has_room(void *ctx)
{
    return bh_kv_lmdb_has_room(((struct daemon *)ctx)->kv);
}

static void on_committed(void *ctx, const struct bh_intake_committed *c)
{
    struct daemon *d = ctx;
    engine_note_put(d->engine, c->id, c->envelope->size, c->envelope->tls_optional, c->parts,
                    c->part_count, c->groups);

    struct event event;
    char ip[BH_IP_TEXT_MAX];
    event_begin(&event, c->origin->arrival_unix_ms, "received");
    event_id(&event, c->id);
    bh_json_key(&event.json, "sender");
    bh_json_str(&event.json, c->envelope->sender);
    bh_json_key(&event.json, "size");
    bh_json_u64(&event.json, c->envelope->size);
    bh_json_key(&event.json, "client");
    bh_json_cstr(&event.json,
                 c->origin->client.family != 0 ? bh_ip_text(&c->origin->client, ip) : "local");
    if (c->origin->user.len > 0) {
        bh_json_key(&event.json, "user");
        bh_json_str(&event.json, c->origin->user);
    }
    bh_json_key(&event.json, "protocol");
    bh_json_str(&event.json, c->origin->protocol);
    if (c->envelope->requiretls) {
        bh_json_key(&event.json, "requiretls");
        bh_json_bool(&event.json, true);
    }
    bh_json_key(&event.json, "parts");
    bh_json_u64(&event.json, c->part_count);
    event_end(d->events, &event);
}

/* ---- intake on the workers ---- */

static void on_intake_drained(void *ctx)
{
    struct daemon_worker *w = ctx;
    bh_intake_destroy(w->intake);
    w->intake = NULL;
    atomic_fetch_sub(&w->daemon->intakes_left, 1);
    uv_async_send(&w->daemon->doorbell);
}

static void on_worker_started(void *ctx, struct worker *worker, uv_loop_t *loop,
                              struct bh_tls_worker *tls)
{
    struct daemon_worker *w = ctx;
    struct daemon *d = w->daemon;
    const uint32_t number = (uint32_t)(w - d->workers);
    struct bh_intake_listener listeners[LISTENERS_MAX];
    char error_text[512];
    struct bh_buf error = bh_buf(error_text, sizeof(error_text));
    (void)worker;
    (void)tls;
    for (size_t i = 0; i < d->listener_count; i++) {
        listeners[i] = (struct bh_intake_listener){.text = d->listener_texts[i],
                                                   .fd = d->sockets[i].fds[number]};
    }
    const struct bh_config *config = get_config(d);
    const struct bh_intake_params params = {.loop = loop,
                                            .store = d->store,
                                            .shared = d->intake_shared,
                                            .hooks = {.ctx = d,
                                                      .config = get_config,
                                                      .on_committed = on_committed,
                                                      .has_room = has_room,
                                                      .handling = receiving_handling,
                                                      .refuse = receiving_refuse},
                                            .number = number,
                                            .hostname = config->engine.hostname,
                                            .listeners = listeners,
                                            .listener_count = d->listener_count};
    if (bh_intake_create(&params, &w->intake, &error) != BH_OK) {
        bh_log(BH_LOG_ERROR, "evt=listen_failed error=\"%.*s\"", BH_FMT(bh_buf_slice(&error)));
        atomic_store(&w->intake_failed, true);
    } else {
        bh_intake_set_gate(w->intake, (enum bh_server_gate)atomic_load(&w->gate));
    }
    uv_sem_post(&d->intakes_started);
    bh_config_unref(config);
}

static void on_worker_draining(void *ctx, struct worker *worker)
{
    struct daemon_worker *w = ctx;
    if (w->intake != NULL) {
        bh_intake_drain(w->intake, on_intake_drained, w);
    } else {
        (void)worker;
        atomic_fetch_sub(&w->daemon->intakes_left, 1);
        uv_async_send(&w->daemon->doorbell);
    }
}

static void run_gate(struct worker_call *call, struct worker *worker)
{
    struct daemon_worker *w = BH_CONTAINER(call, struct daemon_worker, gate_call);
    (void)worker;
    atomic_store(&w->gate_posted, false);
    if (w->intake != NULL) {
        bh_intake_set_gate(w->intake, (enum bh_server_gate)atomic_load(&w->gate));
    }
}

void daemon_set_paused(struct daemon *d, bool paused)
{
    d->paused = paused;
    for (uint32_t i = 0; i < d->worker_count; i++) {
        struct daemon_worker *w = &d->workers[i];
        atomic_store(&w->gate, paused ? (int)BH_SERVER_GATE_PAUSED : (int)BH_SERVER_GATE_OPEN);
        if (!atomic_exchange(&w->gate_posted, true)) {
            w->gate_call.run = run_gate;
            worker_call(w->worker, &w->gate_call);
        }
    }
    bh_log(BH_LOG_INFO, "evt=intake state=%s", paused ? "paused" : "open");
}

/* ---- the end ---- */

static void run_cut(struct worker_call *call, struct worker *worker)
{
    const struct daemon_worker *w = BH_CONTAINER(call, struct daemon_worker, cut_call);
    (void)worker;
    if (w->intake != NULL) {
        bh_intake_cut(w->intake);
    }
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    bh_log(BH_LOG_WARN, "evt=drain_timeout action=\"connections are dropped\"");
    for (uint32_t i = 0; i < d->worker_count; i++) {
        d->workers[i].cut_call.run = run_cut;
        worker_call(d->workers[i].worker, &d->workers[i].cut_call);
        worker_abort(d->workers[i].worker);
    }
    engine_hurry(d->engine);
}

void daemon_stop(struct daemon *d, const char *why)
{
    if (d->stopping) {
        return;
    }
    d->stopping = true;
    sd_notify_send("STOPPING=1");
    life_stop(d->life);
    bh_log(BH_LOG_INFO, "evt=stopping reason=\"%s\"", why);
    const struct bh_config *config = get_config(d);
    uv_timer_start(&d->drain_timer, on_drain_timeout, config->engine.drain_timeout_ms, 0);
    bh_config_unref(config);
    engine_drain(d->engine);
    for (uint32_t i = 0; i < d->worker_count; i++) {
        worker_drain(d->workers[i].worker);
    }
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct daemon *d = handle->data;
    if (signum == SIGHUP) {
        event_log_reopen(d->events);
        control_reload(d->control);
    } else {
        daemon_stop(d, signum == SIGTERM ? "SIGTERM" : "SIGINT");
    }
}

/* ---- start ---- */

static void print_errors(const struct bh_config_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        char text[1024];
        struct bh_buf line = bh_buf(text, sizeof(text));
        bh_config_error_text(&errors->list[i], &line);
        fprintf(stderr, "%.*s\n", BH_FMT(bh_buf_slice(&line)));
    }
    if (errors->errors > 0) {
        fprintf(stderr, "%zu error%s\n", errors->errors, errors->errors == 1 ? "" : "s");
    }
}

static bool load_first_config(struct daemon *d)
{
    struct bh_config_errors errors;
    const struct bh_config *config = NULL;
    bh_config_errors_init(&errors);
    const enum bh_status status =
        daemon_load_config(d->config_path, 1, d->sandbox, &config, &errors);
    print_errors(&errors);
    if (status == BH_ENOMEM) {
        fprintf(stderr, "%s: no memory\n", d->config_path);
    }
    bh_config_errors_fini(&errors);
    if (status != BH_OK) {
        return false;
    }
    config_cell_init(&d->cell, config);
    return true;
}

static void add_own_one(struct daemon *d, const struct bh_ip *ip, uint16_t port)
{
    if (d->own_count < BH_COUNT(d->own)) {
        d->own[d->own_count++] = (struct bh_own_address){.ip = *ip, .port = port};
    }
}

/* Where we listen, so that mail is never delivered to ourselves; a listener on all addresses stands
 * for each of this machine. */
static void add_own(struct daemon *d, const struct bh_ip *ip, uint16_t port)
{
    uv_interface_address_t *list = NULL;
    int count = 0;
    if (!bh_ip_is_unusable(ip)) {
        add_own_one(d, ip, port);
        return;
    }
    if (uv_interface_addresses(&list, &count) != 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        struct bh_ip own = {0};
        if (list[i].address.address4.sin_family == AF_INET) {
            own.family = 4;
            memcpy(own.bytes, &list[i].address.address4.sin_addr, 4);
        } else {
            own.family = 6;
            memcpy(own.bytes, &list[i].address.address6.sin6_addr, 16);
        }
        add_own_one(d, &own, port);
    }
    uv_free_interface_addresses(list, count);
}

static bool bind_listeners(struct daemon *d, const struct bh_config *config)
{
    if (config->listens_count > LISTENERS_MAX) {
        fprintf(stderr, "%.*s:%u: error: at most %d listeners\n",
                BH_FMT(config->listens[LISTENERS_MAX].file),
                (unsigned)config->listens[LISTENERS_MAX].line, LISTENERS_MAX);
        return false;
    }
    for (size_t i = 0; i < config->listens_count; i++) {
        const struct bh_listen_config *listen = &config->listens[i];
        char error_text[512];
        struct bh_buf error = bh_buf(error_text, sizeof(error_text));
        struct bh_intake_sockets *sockets = &d->sockets[i];
        if (bh_intake_bind(listen, d->worker_count, sockets, &error) != BH_OK) {
            fprintf(stderr, "%.*s:%u: error: cannot listen on %.*s: %.*s\n", BH_FMT(listen->file),
                    (unsigned)listen->line, BH_FMT(listen->text), BH_FMT(bh_buf_slice(&error)));
            return false;
        }
        d->listener_texts[i] = listen->text;
        d->listener_count++;
        if (listen->kind == BH_LISTEN_TCP) {
            char ip[BH_IP_TEXT_MAX];
            bh_ip_text(&listen->ip, ip);
            bh_log(BH_LOG_INFO,
                   listen->ip.family == 6 ? "evt=listening address=[%s]:%u"
                                          : "evt=listening address=%s:%u",
                   ip, sockets->port);
            add_own(d, &listen->ip, sockets->port);
        } else {
            bh_log(BH_LOG_INFO, "evt=listening address=%.*s", BH_FMT(listen->text));
        }
    }
    return true;
}

/* Nobody else's now; and whatever is read from here on is read as this user. */
static bool drop_privileges(struct daemon *d, const struct bh_config *config)
{
    struct privileges privileges;
    struct bh_config_errors errors;
    struct bh_sandbox *sandbox = d->sandbox;
    d->sandbox = NULL;
    if (!privileges_find(config, &privileges) || !privileges_folders(config, &privileges) ||
        !privileges_drop(&privileges, config->engine.core_dumps)) {
        bh_sandbox_destroy(sandbox);
        return false;
    }
    bh_config_errors_init(&errors);
    config_files_check(config, true, &errors);
    print_errors(&errors);
    const bool readable = errors.errors == 0;
    bh_config_errors_fini(&errors);
    if (!readable) {
        bh_sandbox_destroy(sandbox);
        return false;
    }
    return confine(sandbox, config);
}

static bool open_queue(struct daemon *d, const struct bh_config *config)
{
    char error[512] = "";
    char path[4096];
    snprintf(path, sizeof(path), "%.*s", BH_FMT(config->queue.path));
    const struct bh_kv_lmdb_options options = {.path = path,
                                               .size_max = (size_t)config->queue.max_size,
                                               .reserve = (size_t)config->queue.reserve};
    enum bh_status status = bh_kv_lmdb_open(&options, &d->kv, error, sizeof(error));
    if (status == BH_OK) {
        const struct bh_queue_limits limits = {.fresh_window = config->queue.fresh_window};
        status = bh_queue_open(d->kv, &limits, &d->queue, error, sizeof(error));
    }
    if (status != BH_OK) {
        fprintf(stderr, "queue %s: %s\n", path, error[0] != '\0' ? error : bh_status_name(status));
        return false;
    }
    return true;
}

/* ---- threads ---- */

static bool start_store(struct daemon *d)
{
    const struct bh_store_options options = {
        .kv = d->kv, .queue = d->queue, .idle = on_store_idle, .failed = on_store_failed, .ctx = d};
    return bh_store_create(&options, &d->store) == BH_OK;
}

static bool start_engine(struct daemon *d)
{
    const struct engine_options options = {.cell = &d->cell,
                                           .store = d->store,
                                           .kv = d->kv,
                                           .inflight = d->inflight,
                                           .leased = &d->leased,
                                           .events = d->events,
                                           .own_addresses = d->own,
                                           .own_address_count = d->own_count,
                                           .clock_unconfirmed = d->clock_unconfirmed,
                                           .clock_behind = d->clock_behind,
                                           .drained = on_engine_drained,
                                           .ctx = d};
    if (engine_create(&options, &d->engine) != BH_OK) {
        return false;
    }
    d->intake_shared = bh_intake_shared_create();
    atomic_store(&d->intakes_left, d->worker_count);
    for (uint32_t i = 0; i < d->worker_count; i++) {
        struct daemon_worker *w = &d->workers[i];
        w->daemon = d;
        atomic_store(&w->gate, d->paused ? (int)BH_SERVER_GATE_PAUSED : (int)BH_SERVER_GATE_OPEN);
        const struct worker_options worker = {.number = i,
                                              .engine = engine_mailbox(d->engine),
                                              .inflight = d->inflight,
                                              .started = on_worker_started,
                                              .draining = on_worker_draining,
                                              .ctx = w};
        if (d->intake_shared == NULL || worker_create(&worker, &w->worker) != BH_OK) {
            return false;
        }
        d->worker_list[i] = w->worker;
    }
    /* READY means that a client can connect. */
    bool listening = true;
    for (uint32_t i = 0; i < d->worker_count; i++) {
        uv_sem_wait(&d->intakes_started);
    }
    for (uint32_t i = 0; i < d->worker_count; i++) {
        listening = listening && !atomic_load(&d->workers[i].intake_failed);
    }
    if (!listening) {
        return false;
    }
    if (engine_start(d->engine, d->worker_list, d->worker_count) != BH_OK) {
        fprintf(stderr, "resolver: no usable name server in the configuration\n");
        return false;
    }
    return true;
}

static uint32_t count_workers(const struct bh_config *config)
{
    uint32_t count = config->engine.workers;
    if (count == 0) {
        const long cores = sysconf(_SC_NPROCESSORS_ONLN);
        count = cores > 0 ? (uint32_t)cores : 1;
    }
    return count < WORKERS_MAX ? count : WORKERS_MAX;
}

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS_WANTED) {
        limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool init_loop(struct daemon *d)
{
    if (uv_loop_init(&d->loop) != 0 || uv_async_init(&d->loop, &d->doorbell, on_doorbell) != 0) {
        return false;
    }
    d->doorbell.data = d;
    uv_timer_init(&d->loop, &d->drain_timer);
    d->drain_timer.data = d;
    memory_idle_watch(&d->loop, &d->memory_timer);
    d->box = bh_mailbox_create(SIZE_MAX, SIZE_MAX, ring, &d->doorbell);
    uv_signal_t *const handles[] = {&d->on_term, &d->on_int, &d->on_hup};
    const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < BH_COUNT(handles); i++) {
        uv_signal_init(&d->loop, handles[i]);
        handles[i]->data = d;
        if (uv_signal_start(handles[i], on_signal, signals[i]) != 0) {
            return false;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    return d->box != NULL && uv_sem_init(&d->intakes_started, 0) == 0;
}

static bool open_event_log(struct daemon *d, const struct bh_config *config)
{
    char path[4096];
    if (config->engine.event_log.len == 0) {
        return true;
    }
    snprintf(path, sizeof(path), "%.*s", BH_FMT(config->engine.event_log));
    const struct event_log_options options = {.folder = path,
                                              .keep_ms = config->engine.event_log_keep_ms,
                                              .size_max = config->engine.event_log_max_size};
    const enum bh_status status = event_log_create(&options, &d->events);
    if (status != BH_OK) {
        fprintf(stderr, "event log %s: %s\n", path,
                status == BH_EBUSY ? "another process writes there" : strerror(errno));
    }
    return status == BH_OK;
}

static bool start(struct daemon *d)
{
    const struct bh_config *config = get_config(d);
    daemon_set_log_level(config);
    d->worker_count = count_workers(config);
    raise_descriptors();
    bool ok = init_loop(d) && bind_listeners(d, config) && drop_privileges(d, config) &&
              open_queue(d, config) && open_event_log(d, config); /* the queue's lock first */
    if (ok) {
        const enum bh_status status = daemon_recover(d, config);
        if (status != BH_OK) {
            fprintf(stderr, "queue: cannot take up what was in flight: %s\n",
                    bh_status_name(status));
            ok = false;
        }
    }
    ok = ok && start_store(d) && start_engine(d) &&
         control_server_create(d, &d->control) == BH_OK && life_watch(d, &d->life) == BH_OK;
    bh_config_unref(config);
    return ok;
}

static void finish(struct daemon *d)
{
    control_server_destroy(d->control);
    for (uint32_t i = 0; i < d->worker_count; i++) {
        worker_join(d->workers[i].worker);
    }
    /* The engine still answers the store until its last task is done. */
    engine_join(d->engine);
    bh_store_stop(d->store);
    bh_intake_shared_destroy(d->intake_shared);
    bh_queue_destroy(d->queue);
    bh_kv_close(d->kv);
    bh_inflight_close(d->inflight);
    leased_fini(&d->leased);
    event_log_destroy(d->events);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

/* --check: as the user that would run, where we are root. */
static int check_files(struct daemon *d)
{
    const struct bh_config *config = get_config(d);
    struct privileges privileges;
    struct bh_config_errors errors;
    bh_config_errors_init(&errors);
    bool good = privileges_find(config, &privileges) &&
                (!privileges.change || privileges_drop(&privileges, true));
    if (good) {
        config_files_check(config, true, &errors);
        print_errors(&errors);
        good = errors.errors == 0;
    }
    bh_config_errors_fini(&errors);
    bh_config_unref(config);
    if (good) {
        puts("the configuration is good");
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void usage(FILE *out)
{
    fputs("usage: bridgehead [--config FILE] [--check]\n"
          "  --config FILE  the configuration (" CONFIG_DEFAULT ")\n"
          "  --check        check it and end: status 0 if it is good\n"
          "  --version\n"
          "Runs in the foreground; diagnostics go to standard error. SIGHUP reloads, SIGTERM ends\n"
          "in good order. See also: bhctl help\n",
          out);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *path = CONFIG_DEFAULT;
    bool check = false;
    for (int c; (c = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'v':
            puts("bridgehead " BH_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "bridgehead: unexpected argument '%s'\n", argv[optind]);
        usage(stderr);
        return 2;
    }
    /* Of this run: nothing of it is static but where it is, so that what it holds when the process
     * ends early is no leak. */
    static struct daemon *running;
    running = calloc(1, sizeof(*running));
    struct daemon *d = running;
    if (d == NULL) {
        return EXIT_FAILURE;
    }
    d->config_path = strdup(path);
    d->started_unix_ms = wall_ms();
    d->sandbox = bh_sandbox_create();
    if (d->config_path == NULL || !load_first_config(d)) {
        return EXIT_FAILURE; /* NOLINT(clang-analyzer-unix.Malloc): `running` still has it */
    }
    if (check) {
        return check_files(d);
    }
    if (!start(d)) {
        event_log_destroy(d->events); /* Its thread must not see the end of the process. */
        return EXIT_FAILURE;
    }
    bh_log(BH_LOG_INFO, "evt=ready version=%s workers=%u config=%s", BH_VERSION,
           (unsigned)d->worker_count, d->config_path);
    sd_notify_send("READY=1");
    uv_run(&d->loop, UV_RUN_DEFAULT);
    finish(d);
    uv_walk(&d->loop, close_handle, NULL);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    uv_loop_close(&d->loop);
    control_server_free(d->control);
    bh_mailbox_destroy(d->box);
    life_destroy(d->life);
    config_cell_fini(&d->cell);
    free(d->config_path);
    bh_log(BH_LOG_INFO, "evt=stopped");
    const int exit_code = d->exit_code;
    free(running);
    running = NULL;
    return exit_code;
}
