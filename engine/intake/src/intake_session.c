/* One connection, from accept to close:
 *
 *     PROXY (from a listed balancer) ─▶ TLS (implicit) ─▶ SMTP ─▶ LINGER ─▶ CLOSED
 *
 * The pump is the only place that pulls actions. It stops where something is short (content with no
 * room, too much unsent), and is run again by what ends the shortage: an answer of the store, a
 * write that got through, more input. */
#include <stdlib.h>

#include "bh/log.h"
#include "intake_internal.h"

/* --- the end --- */

void session_free_if_done(struct session *s)
{
    if (s->handles > 0 || (s->server_ready && bh_server_commits(&s->server) > 0)) {
        return;
    }
    struct bh_intake *intake = s->intake;
    while (s->messages != NULL) {
        session_forget_message(s, s->messages); /* The store has them; nobody waits. */
    }
    if (s->server_ready) {
        bh_server_fini(&s->server);
    }
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        intake->sessions = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    intake->session_count--;
    bh_config_unref(s->config);
    auth_free(s->auth);
    free(s);
    intake_check_drained(intake);
}

static void on_closed(uv_handle_t *handle)
{
    struct session *s = handle->data;
    s->handles--;
    session_free_if_done(s);
}

/* What the core still has to say after the connection is gone: what to drop. */
static void drop_content(struct session *s)
{
    struct bh_server_action action;
    bh_server_on_event(&s->server, BH_SERVER_LOST, intake_now());
    s->pending = BH_EMPTY;
    while (bh_server_next(&s->server, &action)) {
        BH_ASSERT(action.kind == BH_SERVER_DISCARD);
        s->message = NULL;
        if (action.txn->driver != NULL) {
            message_discard(action.txn->driver);
        }
    }
}

void session_close(struct session *s)
{
    if (s->stage == STAGE_CLOSED) {
        return;
    }
    s->stage = STAGE_CLOSED;
    if (s->server_ready) {
        drop_content(s);
    }
    turn_forget(s);
    io_give_back(s);
    bh_tls_destroy(s->tls);
    s->tls = NULL;
    if (s->counted) {
        shared_leave(s->intake->params.shared, &s->client);
        s->counted = false;
    }
    s->intake->refused_count -= s->refused ? 1 : 0;
    s->refused = false;
    uv_close(&s->u.handle, on_closed);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}

void session_forget_message(struct session *s, struct message *m)
{
    struct message **at = &s->messages;
    while (*at != NULL && *at != m) {
        at = &(*at)->next;
    }
    if (*at == m) {
        *at = m->next;
    }
    if (s->message == m) {
        s->message = NULL;
    }
    m->session = NULL;
}

void session_on_eof(struct session *s)
{
    session_close(s);
}

/* --- time --- */

static uint64_t deadline(const struct session *s)
{
    uint64_t due = UINT64_MAX;
    switch (s->stage) {
    case STAGE_PROXY:
    case STAGE_TLS:
    case STAGE_LINGER:
        due = s->preamble_deadline_ms;
        break;
    case STAGE_SMTP:
        due = s->pending.len > 0 ? UINT64_MAX : bh_server_deadline_ms(&s->server);
        break; /* While content waits for the store, nobody waits for the client. */
    case STAGE_CLOSED:
        return UINT64_MAX;
    }
    const uint64_t stall = s->progress_ms + STALL_TIMEOUT_MS;
    return io_queued(s) > 0 && stall < due ? stall : due;
}

static void on_timer(uv_timer_t *timer)
{
    struct session *s = timer->data;
    const struct bh_now now = intake_now();
    s->armed_ms = UINT64_MAX;
    if (deadline(s) > now.mono_ms) {
        session_arm(s); /* It was armed for something earlier that has happened since. */
        return;
    }
    if (s->stage != STAGE_SMTP ||
        (io_queued(s) > 0 && s->progress_ms + STALL_TIMEOUT_MS <= now.mono_ms)) {
        session_close(s);
        return;
    }
    bh_server_on_event(&s->server, BH_SERVER_TIMEOUT, now);
    session_pump(s);
}

/* One timer, moved only when something is due before it would fire. */
void session_arm(struct session *s)
{
    const uint64_t due = deadline(s);
    if (s->stage == STAGE_CLOSED || due >= s->armed_ms) {
        return;
    }
    const uint64_t now_ms = intake_now().mono_ms;
    s->armed_ms = due;
    uv_timer_start(&s->timer, on_timer, due > now_ms ? due - now_ms : 0, 0);
}

/* --- what is handled --- */

/* Should this thread end the process, the next one knows over which message: the one whose content
 * is parsed, from its first octet to its last. Between the calls of the loop it handles nothing. */
static void tell_handling(struct bh_intake *intake, const struct message *m)
{
    const struct bh_intake_hooks *hooks = &intake->params.hooks;
    const uint64_t fingerprint = m != NULL ? m->fingerprint : 0;
    if (hooks->handling != NULL && intake->handled != fingerprint) {
        intake->handled = fingerprint;
        hooks->handling(hooks->ctx, intake->params.number,
                        fingerprint != 0 ? BH_HANDLING_RECEIVE : BH_HANDLING_NOTHING, fingerprint);
    }
}

/* Of the core, before it takes content. */
static bool suspect(void *ctx, const struct bh_server_txn *txn)
{
    const struct bh_intake *intake = ctx;
    const struct bh_intake_hooks *hooks = &intake->params.hooks;
    return hooks->refuse != NULL &&
           hooks->refuse(hooks->ctx,
                         bh_suspect_fingerprint(&txn->envelope, txn->declared_size, txn->recipients,
                                                txn->recipients_count),
                         txn->envelope.sender);
}

/* --- the pump --- */

static void begin(struct session *s, struct bh_server_txn *txn)
{
    if (!message_begin(s, txn)) {
        s->intake->stats.failed++;
        bh_server_on_content_failed(&s->server, BH_SERVER_FULL);
    }
}

static void append(struct session *s, struct bh_slice content)
{
    s->pending = content;
    if (s->message == NULL) {
        s->pending = BH_EMPTY;
        return;
    }
    message_append(s->message, &s->pending);
}

static void act(struct session *s, const struct bh_server_action *action)
{
    switch (action->kind) {
    case BH_SERVER_WRITE:
        (void)io_send(s, action->bytes);
        return;
    case BH_SERVER_BEGIN:
        begin(s, action->txn);
        return;
    case BH_SERVER_CONTENT:
        append(s, action->bytes);
        return;
    case BH_SERVER_DELIVER:
        s->message = NULL;
        message_deliver(action->txn->driver);
        return;
    case BH_SERVER_DISCARD:
        s->message = NULL;
        s->pending = BH_EMPTY;
        if (action->txn->driver != NULL) {
            message_discard(action->txn->driver);
        }
        return;
    case BH_SERVER_START_TLS:
        io_release(s);
        (void)io_start_tls(s);
        return;
    case BH_SERVER_AUTH:
        auth_judge(s, action);
        return;
    case BH_SERVER_CLOSE:
        s->closing = true;
        return;
    }
}

/* Content that found no room before. */
static bool flush_pending(struct session *s)
{
    if (s->pending.len > 0 && s->message != NULL) {
        message_append(s->message, &s->pending);
    }
    return s->pending.len == 0;
}

/* Replies are small, so many octets of them are many commands. */
static size_t turn_cost(const struct bh_server_action *action)
{
    return 1 + action->bytes.len / (action->kind == BH_SERVER_WRITE ? 512 : 16384);
}

static void pump(struct session *s)
{
    struct bh_server_action action;
    size_t work = 0;
    while (s->stage == STAGE_SMTP && !s->closing && flush_pending(s) &&
           io_queued(s) < WRITE_QUEUE_MAX) {
        if (work >= TURN_WORK) {
            turn_wait(s);
            return;
        }
        if (bh_server_next(&s->server, &action)) {
            work += turn_cost(&action);
            act(s, &action);
            tell_handling(s->intake, s->message);
            continue;
        }
        work++;
        io_release(s);
        const bool up = s->tls != NULL && bh_tls_state(s->tls) == BH_TLS_UP;
        if (!up || !io_next_plain(s)) {
            break;
        }
    }
}

void session_pump(struct session *s)
{
    if (s->stage == STAGE_CLOSED) {
        tell_handling(s->intake, NULL);
        session_free_if_done(s);
        return;
    }
    tell_handling(s->intake, s->message);
    if (!s->waits_turn) {
        pump(s);
    }
    tell_handling(s->intake, NULL);
    if (s->stage == STAGE_SMTP && s->closing) {
        io_linger(s);
    }
    if (s->stage != STAGE_CLOSED) {
        io_update_reading(s);
        session_arm(s);
    }
}

/* --- greeting and TLS --- */

static enum bh_server_greeting greeting(const struct session *s)
{
    if (!s->counted) {
        return BH_SERVER_GREET_BUSY;
    }
    const bool paused = s->intake->gate == BH_SERVER_GATE_PAUSED || s->intake->draining;
    return paused ? BH_SERVER_GREET_PAUSED : BH_SERVER_GREET;
}

static bool may_relay(const struct session *s)
{
    if (s->certificate[0] != '\0') {
        return true;
    }
    if (s->client.family == 0) {
        return s->settings->relay_local && s->listener->is_pipe;
    }
    for (size_t i = 0; i < s->settings->relay_from.count; i++) {
        if (bh_net_contains(&s->settings->relay_from.at[i], &s->client)) {
            return true;
        }
    }
    return false;
}

/* The connection is as it should be. */
static void start_smtp(struct session *s)
{
    s->stage = STAGE_SMTP;
    s->options.limits.auth_delay_ms =
        shared_auth_delay(s->intake->params.shared, &s->client, intake_now().mono_ms);
    bh_server_init(&s->server, &s->options, may_relay(s), s->tls != NULL);
    s->server_ready = true;
    bh_server_set_gate(&s->server, intake_gate(s->intake));
    bh_server_start(&s->server, greeting(s), intake_now());
}

/* Who the client is is known. One too many is told so in clear, but gets no handshake; and of many
 * at a time, who each take their time to go, only REFUSED_MAX are told. */
static void start_session(struct session *s)
{
    s->counted = shared_enter(s->intake->params.shared, &s->client, &s->settings->limits);
    s->intake->stats.refused_sessions += s->counted ? 0 : 1;
    const bool told =
        s->settings->tls != BH_LISTEN_TLS_IMPLICIT && s->intake->refused_count < REFUSED_MAX;
    if (!s->counted && !told) {
        session_close(s);
        return;
    }
    s->refused = !s->counted;
    s->intake->refused_count += s->refused ? 1 : 0;
    if (s->settings->tls == BH_LISTEN_TLS_IMPLICIT) {
        s->stage = STAGE_TLS;
        s->preamble_deadline_ms = intake_now().mono_ms + PREAMBLE_TIMEOUT_MS;
        (void)io_start_tls(s);
    } else {
        start_smtp(s);
    }
}

/* After the handshake: go on, by implicit TLS or by STARTTLS. */
static void on_tls_end(struct session *s, enum bh_tls_state state)
{
    const bool certified = state == BH_TLS_UP && auth_by_certificate(s);
    if (state == BH_TLS_UP && s->stage == STAGE_TLS) {
        start_smtp(s);
    } else if (state == BH_TLS_UP) {
        if (certified) {
            bh_server_allow_relay(&s->server);
        }
        bh_server_on_event(&s->server, BH_SERVER_TLS_UP, intake_now());
    } else {
        char ip[BH_IP_TEXT_MAX];
        char reason[BH_LOG_QUOTE_MAX];
        bh_log(BH_LOG_INFO, "evt=tls-failed listen=%s client=%s reason=%s", s->listener->text,
               bh_ip_text(&s->client, ip), bh_log_quote(bh_tls_error(s->tls), reason));
        (void)io_send(s, BH_EMPTY); /* The alert, if there is one. */
        session_close(s);
    }
}

static void on_cipher(struct session *s, struct bh_slice cipher)
{
    const bool shaking = bh_tls_state(s->tls) == BH_TLS_SHAKING;
    if (bh_tls_feed(s->tls, cipher) != BH_OK) {
        session_close(s);
        return;
    }
    const enum bh_tls_state state = bh_tls_state(s->tls);
    if (shaking && state != BH_TLS_SHAKING) {
        on_tls_end(s, state);
    }
    if (s->stage != STAGE_CLOSED) {
        (void)io_send(s, BH_EMPTY);
    }
}

/* --- input --- */

/* Gathers the PROXY header. What follows it is put at the front of the buffer. False: more is
 * needed, or the session is closed. */
static bool on_proxy(struct session *s, struct buffer *buffer)
{
    const struct bh_slice in = bh_slice(buffer->octets, buffer->len);
    const struct bh_slice piece = bh_slice_take(in, sizeof(s->proxy) - s->proxy_len);
    memcpy(s->proxy + s->proxy_len, piece.ptr, piece.len);
    const size_t before = s->proxy_len;
    s->proxy_len = (uint16_t)(s->proxy_len + piece.len);
    struct bh_proxy_v2 proxy;
    const enum bh_status status = bh_proxy_v2_parse(bh_slice(s->proxy, s->proxy_len), &proxy);
    if (status == BH_MORE) {
        return false;
    }
    if (status != BH_OK) {
        char ip[BH_IP_TEXT_MAX];
        bh_log(BH_LOG_WARN, "evt=proxy-header-bad listen=%s peer=%s", s->listener->text,
               bh_ip_text(&s->peer, ip));
        session_close(s);
        return false;
    }
    if (!proxy.local && proxy.client.family != 0) {
        s->client = bh_ip_unmap(&proxy.client);
    }
    BH_ASSERT(proxy.len > before);
    const struct bh_slice rest = bh_slice_skip(in, proxy.len - before);
    memmove(buffer->octets, rest.ptr, rest.len);
    buffer->len = rest.len;
    start_session(s);
    return s->stage != STAGE_CLOSED;
}

void session_on_read(struct session *s, struct buffer *buffer)
{
    if (s->stage == STAGE_LINGER || (s->stage == STAGE_PROXY && !on_proxy(s, buffer)) ||
        s->stage == STAGE_CLOSED) {
        buffer->len = 0;
    }
    tell_handling(s->intake, s->message);
    if (buffer->len > 0 && s->tls != NULL) {
        on_cipher(s, bh_slice(buffer->octets, buffer->len));
        pool_put(&s->intake->reads, buffer);
    } else if (buffer->len > 0 && s->stage == STAGE_SMTP) {
        pump(s); /* Ours first: it has said nothing yet if the PROXY header just ended. */
        if (bh_server_wants_input(&s->server) && s->stage == STAGE_SMTP) {
            s->lent = buffer;
            bh_server_on_bytes(&s->server, bh_slice(buffer->octets, buffer->len), intake_now());
        } else {
            pool_put(&s->intake->reads, buffer);
        }
    } else {
        pool_put(&s->intake->reads, buffer);
    }
    session_pump(s);
}

void session_drain(struct session *s)
{
    if (s->stage == STAGE_SMTP) {
        bh_server_on_event(&s->server, BH_SERVER_DRAIN, intake_now());
        session_pump(s);
    } else if (s->stage != STAGE_LINGER) {
        session_close(s);
    }
}

/* --- the start --- */

static struct bh_server_limits limits_of(const struct bh_listen_config *settings)
{
    struct bh_server_limits limits = bh_server_default_limits();
    const struct bh_listen_limits *wanted = &settings->limits;
    limits.message_size = wanted->message_size;
    limits.recipients = wanted->recipients > 0 ? wanted->recipients : limits.recipients;
    limits.commands = wanted->commands;
    limits.errors = wanted->errors;
    limits.hops = settings->max_hops;
    if (wanted->line_length >= 512 && wanted->line_length < BH_SERVER_LINE_MAX) {
        limits.command_line = wanted->line_length;
    }
    if (wanted->transactions >= 1 && wanted->transactions < BH_SERVER_COMMITS_MAX) {
        limits.commits = wanted->transactions;
    }
    limits.command_timeout_ms = settings->command_timeout_ms;
    limits.data_timeout_ms = settings->data_timeout_ms;
    limits.session_timeout_ms = settings->session_timeout_ms;
    limits.auth_failures = wanted->auth_failures;
    limits.min_rate = settings->min_rate;
    return limits;
}

/* Whether a recipient goes anywhere, by the configuration in force now. */
static bool routable(void *ctx, struct bh_slice sender, struct bh_slice recipient)
{
    struct bh_intake *intake = ctx;
    const struct bh_intake_hooks *hooks = &intake->params.hooks;
    const struct bh_config *config = hooks->config(hooks->ctx);
    struct bh_match match;
    const enum bh_status status = bh_config_match(config, bh_address_domain(recipient), sender, 0,
                                                  hooks->available, hooks->ctx, &match);
    bh_config_unref(config);
    return status == BH_OK;
}

static void set_options(struct session *s)
{
    const struct bh_config *config = s->config;
    struct bh_slice hostname = s->intake->params.hostname;
    if (s->settings->hostname.len > 0) {
        hostname = s->settings->hostname;
    } else if (config->engine.hostname.len > 0) {
        hostname = config->engine.hostname;
    }
    if (s->listener->auth != NULL) {
        bh_auth_source_mechanisms(s->listener->auth, s->mechanisms);
    }
    s->options = (struct bh_server_options){
        .hostname = hostname,
        .postmaster = config->engine.postmaster,
        .starttls = s->settings->tls == BH_LISTEN_TLS_STARTTLS && s->listener->tls != NULL,
        .auth = bh_slice_str(s->mechanisms),
        .limits = limits_of(s->settings),
        .to_ascii = intake_to_ascii,
        .routable = routable,
        .routable_ctx = s->intake,
        .suspect = suspect,
        .suspect_ctx = s->intake};
}

static struct bh_ip peer_of(const struct session *s)
{
    struct sockaddr_storage address;
    int len = (int)sizeof(address);
    struct bh_ip ip = {0};
    if (s->listener->is_pipe ||
        uv_tcp_getpeername(&s->u.tcp, (struct sockaddr *)&address, &len) != 0) {
        return ip;
    }
    if (address.ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, &address, sizeof(v4));
        ip.family = 4;
        memcpy(ip.bytes, &v4.sin_addr, 4);
    } else if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, &address, sizeof(v6));
        ip.family = 6;
        memcpy(ip.bytes, &v6.sin6_addr, 16);
    }
    return bh_ip_unmap(&ip);
}

static bool is_balancer(const struct session *s)
{
    for (size_t i = 0; i < s->settings->proxy_from.count && s->peer.family != 0; i++) {
        if (bh_net_contains(&s->settings->proxy_from.at[i], &s->peer)) {
            return true;
        }
    }
    return false;
}

static struct session *session_create(struct listener *listener)
{
    struct bh_intake *intake = listener->intake;
    struct session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    uv_loop_t *loop = intake->params.loop;
    if ((listener->is_pipe ? uv_pipe_init(loop, &s->u.pipe, 0) : uv_tcp_init(loop, &s->u.tcp)) !=
        0) {
        free(s);
        return NULL;
    }
    uv_timer_init(loop, &s->timer);
    s->intake = intake;
    s->listener = listener;
    s->settings = listener_settings(listener);
    s->config = bh_config_ref(listener->config);
    s->u.handle.data = s;
    s->timer.data = s;
    s->handles = 2;
    s->armed_ms = UINT64_MAX;
    s->pending = BH_EMPTY;
    s->next = intake->sessions;
    if (s->next != NULL) {
        s->next->prev = s;
    }
    intake->sessions = s;
    intake->session_count++;
    return s;
}

static void on_refused(void *ctx)
{
    struct bh_intake *intake = ctx;
    intake->handles--;
    intake_release(intake);
}

void session_accept(struct listener *listener)
{
    struct session *s = session_create(listener);
    if (s == NULL) {
        bh_log(BH_LOG_WARN, "evt=accept-failed listen=%s reason=\"out of memory\"", listener->text);
        if (bh_refuse(&listener->refusal, &listener->u.stream, on_refused, listener->intake)) {
            listener->intake->handles++;
        }
        return;
    }
    if (uv_accept(&listener->u.stream, &s->u.stream) != 0) {
        session_close(s);
        return;
    }
    listener->intake->stats.accepted_sessions++;
    if (!listener->is_pipe) {
        uv_tcp_nodelay(&s->u.tcp, 1);
    }
    s->peer = peer_of(s);
    s->client = s->peer;
    s->progress_ms = intake_now().mono_ms;
    set_options(s);
    if (is_balancer(s)) {
        s->stage = STAGE_PROXY;
        s->preamble_deadline_ms = intake_now().mono_ms + PREAMBLE_TIMEOUT_MS;
    } else {
        start_session(s);
    }
    session_pump(s);
}
