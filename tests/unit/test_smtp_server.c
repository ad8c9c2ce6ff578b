/* Conversations with the server core, read from tests/unit/transcripts/server. Each is run whole,
 * octet by octet and cut at random, and must come out the same. A line is one of
 *     @ SETTING VALUE     before anything else: see settings[]
 *     C: text             the client sends text and CRLF; C~ sends it without. \r \n \0 \\ \xNN
 *     C* N text           the client sends text N times, without CRLF
 *     S: text             the server says this next
 *     S! tls, S! close    the server asks for the handshake next, or closes
 *     M: summary          the driver is given this message next
 *     X: discard          the driver is told to drop content
 *     A: [MECHANISM] TEXT the driver is given this response to judge next; "-" for none at all
 *     ! EVENT             commit K ok|full|failed (K-th oldest), timeout, drain, lost, tls, pause,
 *                         full, open, fail (the driver cannot take this content),
 *                         auto (commit all), relay (the client may, as is found now),
 *                         auth more|ok|denied|garbled|failed [TEXT] (the verdict), no-deadline,
 *                         after MS (the deadline is then; let it pass),
 *                         later MS (it passes, before any deadline)
 *
 * What the server says and what the driver is given are two streams: each has its own order. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bh/rng.h"
#include "bh/smtp_server.h"

#define TEXT_MAX (1 << 20)

struct stream {
    char *text;
    size_t len;
};

struct run {
    struct bh_server_options options;
    struct bh_server server;
    struct bh_now now;
    bool may_relay;
    bool implicit_tls;
    enum bh_server_greeting greeting;
    bool started;
    bool closed;
    bool automatic;
    uint64_t next_id;
    size_t step; /* octets at a time; 0: at random */
    struct bh_rng rng;
    struct bh_server_txn *waiting[BH_SERVER_COMMITS_MAX];
    size_t waiting_count;
    char *content; /* of the transaction that is coming in */
    size_t content_len;
    char *input; /* sent by the client, not given to the core yet */
    size_t input_len;
    struct stream said;  /* by the server */
    struct stream given; /* to the driver */
};

static void add(struct stream *stream, const char *text, size_t len)
{
    assert_true(stream->len + len < TEXT_MAX);
    memcpy(stream->text + stream->len, text, len);
    stream->len += len;
    stream->text[stream->len] = '\0';
}

static void add_str(struct stream *stream, const char *text)
{
    add(stream, text, strlen(text));
}

/* Drop the last line if it is this one. */
static void take_back(struct stream *stream, const char *line)
{
    const size_t len = strlen(line);
    if (stream->len >= len && memcmp(stream->text + stream->len - len, line, len) == 0) {
        stream->len -= len;
        stream->text[stream->len] = '\0';
    }
}

static void add_escaped(struct stream *stream, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char one[8];
        const unsigned char c = (unsigned char)text[i];
        snprintf(one, sizeof(one), c < ' ' || c > '~' ? "\\x%02x" : "%c", c);
        add_str(stream, c == '\r' ? "\\r" : c == '\n' ? "\\n" : one);
    }
}

static void summarise(struct run *run, const struct bh_server_txn *txn)
{
    char text[1024];
    snprintf(text, sizeof(text), "M: <%.*s>", BH_FMT(txn->envelope.sender));
    add_str(&run->given, text);
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        const struct bh_recipient *r = &txn->recipients[i];
        snprintf(text, sizeof(text), " <%.*s>", BH_FMT(r->address));
        add_str(&run->given, text);
        if (r->notify != 0) {
            snprintf(text, sizeof(text), " notify=%u", r->notify);
            add_str(&run->given, text);
        }
        if (r->orcpt.len > 0) {
            snprintf(text, sizeof(text), " orcpt=%.*s", BH_FMT(r->orcpt));
            add_str(&run->given, text);
        }
    }
    if (txn->envelope.envid.len > 0) {
        snprintf(text, sizeof(text), " envid=%.*s", BH_FMT(txn->envelope.envid));
        add_str(&run->given, text);
    }
    snprintf(text, sizeof(text), "%s%s%s%s size=%llu ",
             txn->envelope.ret == BH_RET_FULL ? " ret=full" : "",
             txn->envelope.ret == BH_RET_HDRS ? " ret=hdrs" : "",
             txn->envelope.body == BH_BODY_8BITMIME ? " 8bit" : "",
             txn->envelope.smtputf8 ? " utf8" : "", (unsigned long long)txn->envelope.size);
    add_str(&run->given, text);
    if (txn->envelope.requiretls) {
        add_str(&run->given, "requiretls ");
    }
    if (txn->envelope.tls_optional) {
        add_str(&run->given, "tls-optional ");
    }
    if (txn->header_utf8) {
        add_str(&run->given, "header-utf8 ");
    }
    assert_int_equal(run->content_len, txn->envelope.size);
    add_escaped(&run->given, run->content, run->content_len < 200 ? run->content_len : 200);
    add_str(&run->given, "\n");
}

static void add_said(struct run *run, struct bh_slice bytes)
{
    while (bytes.len > 0) {
        const size_t lf = bh_slice_find(bytes, '\n');
        assert_true(lf < bytes.len && lf > 0 && bytes.ptr[lf - 1] == '\r');
        add_str(&run->said, "S: ");
        add(&run->said, bytes.ptr, lf - 1);
        add_str(&run->said, "\n");
        bytes = bh_slice_skip(bytes, lf + 1);
    }
}

static void answer(struct run *run, size_t k, enum bh_server_commit result)
{
    assert_true(k < run->waiting_count);
    struct bh_server_txn *txn = run->waiting[k];
    run->waiting_count--;
    for (; k < run->waiting_count; k++) {
        run->waiting[k] = run->waiting[k + 1];
    }
    bh_server_on_committed(&run->server, txn, result, ++run->next_id, run->now);
}

static void drain(struct run *run)
{
    struct bh_server_action action;
    while (bh_server_next(&run->server, &action)) {
        switch (action.kind) {
        case BH_SERVER_WRITE:
            add_said(run, action.bytes);
            break;
        case BH_SERVER_BEGIN:
            assert_null(action.txn->driver);
            action.txn->driver = run;
            run->content_len = 0;
            break;
        case BH_SERVER_CONTENT:
            assert_ptr_equal(action.txn->driver, run);
            assert_true(run->content_len + action.bytes.len < TEXT_MAX);
            memcpy(run->content + run->content_len, action.bytes.ptr, action.bytes.len);
            run->content_len += action.bytes.len;
            break;
        case BH_SERVER_DELIVER:
            summarise(run, action.txn);
            run->waiting[run->waiting_count++] = action.txn;
            assert_int_equal(run->waiting_count, bh_server_commits(&run->server));
            if (run->automatic) {
                answer(run, 0, BH_SERVER_COMMITTED);
            }
            break;
        case BH_SERVER_DISCARD:
            assert_ptr_equal(action.txn->driver, run);
            add_str(&run->given, "X: discard\n");
            break;
        case BH_SERVER_AUTH:
            add_str(&run->given, "A: ");
            if (action.mechanism.len > 0) {
                add(&run->given, action.mechanism.ptr, action.mechanism.len);
                add_str(&run->given, " ");
            }
            add_escaped(&run->given, action.bytes.ptr, action.bytes.len);
            add_str(&run->given, action.no_response ? "-\n" : "\n");
            break;
        case BH_SERVER_START_TLS:
            add_str(&run->said, "S! tls\n");
            break;
        case BH_SERVER_CLOSE:
            take_back(&run->said, "S! tls\n"); /* Whether injected octets came early or late. */
            add_str(&run->said, "S! close\n");
            run->closed = true;
            break;
        }
    }
}

/* Give the core what the client sent, as far as it takes it. A copy of the exact size each time, so
 * that the sanitizer sees the core read what it only borrowed. */
static void feed(struct run *run)
{
    drain(run);
    while (run->input_len > 0 && !run->closed) {
        const bool handshake = run->server.phase == BH_SERVER_PHASE_TLS;
        if (!handshake && !bh_server_wants_input(&run->server)) {
            return;
        }
        size_t len = run->step > 0 ? run->step : 1 + bh_rng_below(&run->rng, 40);
        len = len < run->input_len ? len : run->input_len;
        char *piece = malloc(len);
        assert_non_null(piece);
        memcpy(piece, run->input, len);
        memmove(run->input, run->input + len, run->input_len - len);
        run->input_len -= len;
        bh_server_on_bytes(&run->server, bh_slice(piece, len), run->now);
        drain(run);
        /* What the core could not parse yet stays with the client, as in a socket. */
        const size_t left = run->server.in.len;
        if (left > 0) {
            memmove(run->input + left, run->input, run->input_len);
            memcpy(run->input, run->server.in.ptr, left);
            run->input_len += left;
            run->server.in = BH_EMPTY;
        }
        free(piece);
        if (left > 0 && run->server.phase != BH_SERVER_PHASE_TLS) {
            return;
        }
    }
}

static void start(struct run *run)
{
    if (!run->started) {
        run->started = true;
        bh_server_init(&run->server, &run->options, run->may_relay, run->implicit_tls);
        bh_server_start(&run->server, run->greeting, run->now);
        drain(run);
    }
}

static void send_text(struct run *run, const char *text, bool crlf)
{
    char *at = run->input + run->input_len;
    for (; *text != '\0'; text++) {
        if (*text != '\\') {
            *at++ = *text;
            continue;
        }
        text++;
        switch (*text) {
        case 'r':
            *at++ = '\r';
            break;
        case 'n':
            *at++ = '\n';
            break;
        case '0':
            *at++ = '\0';
            break;
        case 'x': {
            const char hex[3] = {text[1], text[2], '\0'};
            *at++ = (char)strtol(hex, NULL, 16);
            text += 2;
            break;
        }
        default:
            *at++ = *text;
            break;
        }
    }
    if (crlf) {
        *at++ = '\r';
        *at++ = '\n';
    }
    run->input_len = (size_t)(at - run->input);
}

static void on_verdict(struct run *run, const char *text)
{
    static const struct {
        const char *word;
        enum bh_server_verdict verdict;
    } verdicts[] = {{"more", BH_SERVER_AUTH_MORE},
                    {"ok", BH_SERVER_AUTH_GRANTED},
                    {"denied", BH_SERVER_AUTH_DENIED},
                    {"garbled", BH_SERVER_AUTH_GARBLED},
                    {"failed", BH_SERVER_AUTH_FAILED}};
    struct bh_slice rest = bh_slice_str(text);
    const struct bh_slice word = bh_slice_word(&rest);
    for (size_t i = 0; i < BH_COUNT(verdicts); i++) {
        if (bh_slice_eq(word, bh_slice_str(verdicts[i].word))) {
            bh_server_on_auth(&run->server, verdicts[i].verdict, bh_slice_trim(rest), run->now);
            return;
        }
    }
    fail_msg("unknown verdict: %s", text);
}

static void on_event(struct run *run, const char *event)
{
    feed(run);
    char result[16] = "";
    unsigned k = 0;
    struct bh_server *s = &run->server;
    if (sscanf(event, "commit %u %15s", &k, result) == 2) {
        answer(run, k,
               strcmp(result, "ok") == 0     ? BH_SERVER_COMMITTED
               : strcmp(result, "full") == 0 ? BH_SERVER_FULL
                                             : BH_SERVER_FAILED);
    } else if (strcmp(event, "timeout") == 0) {
        const uint64_t deadline = bh_server_deadline_ms(s);
        assert_true(deadline != UINT64_MAX && deadline > run->now.mono_ms);
        run->now.mono_ms = deadline;
        bh_server_on_event(s, BH_SERVER_TIMEOUT, run->now);
    } else if (sscanf(event, "after %u", &k) == 1) {
        assert_int_equal(bh_server_deadline_ms(s), run->now.mono_ms + k);
        run->now.mono_ms += k;
        bh_server_on_event(s, BH_SERVER_TIMEOUT, run->now);
    } else if (sscanf(event, "later %u", &k) == 1) {
        assert_true(bh_server_deadline_ms(s) > run->now.mono_ms + k);
        run->now.mono_ms += k;
    } else if (strcmp(event, "no-deadline") == 0) {
        assert_true(bh_server_deadline_ms(s) == UINT64_MAX);
    } else if (strncmp(event, "auth ", 5) == 0) {
        on_verdict(run, event + 5);
    } else if (strcmp(event, "relay") == 0) {
        bh_server_allow_relay(s);
    } else if (strcmp(event, "drain") == 0) {
        bh_server_on_event(s, BH_SERVER_DRAIN, run->now);
    } else if (strcmp(event, "lost") == 0) {
        bh_server_on_event(s, BH_SERVER_LOST, run->now);
        run->closed = true;
    } else if (strcmp(event, "tls") == 0) {
        bh_server_on_event(s, BH_SERVER_TLS_UP, run->now);
    } else if (strcmp(event, "tls-failed") == 0) {
        bh_server_on_event(s, BH_SERVER_TLS_FAILED, run->now);
    } else if (strcmp(event, "fail") == 0) {
        bh_server_on_content_failed(s, BH_SERVER_FULL);
    } else if (strcmp(event, "auto") == 0) {
        run->automatic = true;
    } else if (strcmp(event, "pause") == 0) {
        bh_server_set_gate(s, BH_SERVER_GATE_PAUSED);
    } else if (strcmp(event, "full") == 0) {
        bh_server_set_gate(s, BH_SERVER_GATE_FULL);
    } else if (strcmp(event, "open") == 0) {
        bh_server_set_gate(s, BH_SERVER_GATE_OPEN);
    } else {
        fail_msg("unknown event: %s", event);
    }
    feed(run);
}

/* Stands in for IDNA: one name is known. */
static bool to_ascii(void *ctx, struct bh_slice domain, struct bh_buf *ascii)
{
    (void)ctx;
    if (!bh_slice_eq(domain, bh_slice_str("b\xc3\xbc"
                                          "cher.example"))) {
        return false;
    }
    return bh_buf_add(ascii, BH_LIT("xn--bcher-kva.example")) == BH_OK;
}

/* One domain has no connector. */
static bool routable(void *ctx, struct bh_slice sender, struct bh_slice recipient)
{
    (void)ctx;
    (void)sender;
    return !bh_slice_eq(bh_address_domain(recipient), BH_LIT("nowhere.example"));
}

/* One sender's messages have ended the process before. */
static bool suspect(void *ctx, const struct bh_server_txn *txn)
{
    (void)ctx;
    return bh_slice_eq(txn->envelope.sender, BH_LIT("poison@client.example"));
}

static void set(struct run *run, const char *name, unsigned long long value)
{
    struct bh_server_limits *l = &run->options.limits;
    if (strcmp(name, "relay") == 0) {
        run->may_relay = value != 0;
    } else if (strcmp(name, "starttls") == 0) {
        run->options.starttls = value != 0;
    } else if (strcmp(name, "tls") == 0) {
        run->implicit_tls = value != 0;
    } else if (strcmp(name, "auth") == 0) {
        run->options.auth = BH_LIT("SCRAM-SHA-256 PLAIN LOGIN");
    } else if (strcmp(name, "auth-failures") == 0) {
        l->auth_failures = (uint32_t)value;
    } else if (strcmp(name, "auth-delay") == 0) {
        l->auth_delay_ms = value;
    } else if (strcmp(name, "postmaster") == 0) {
        run->options.postmaster = BH_LIT("chief@example.org");
    } else if (strcmp(name, "busy") == 0) {
        run->greeting = BH_SERVER_GREET_BUSY;
    } else if (strcmp(name, "paused") == 0) {
        run->greeting = BH_SERVER_GREET_PAUSED;
    } else if (strcmp(name, "message-size") == 0) {
        l->message_size = value;
    } else if (strcmp(name, "recipients") == 0) {
        l->recipients = (uint32_t)value;
    } else if (strcmp(name, "commands") == 0) {
        l->commands = (uint32_t)value;
    } else if (strcmp(name, "errors") == 0) {
        l->errors = (uint32_t)value;
    } else if (strcmp(name, "hops") == 0) {
        l->hops = (uint32_t)value;
    } else if (strcmp(name, "content-line") == 0) {
        l->content_line = (uint32_t)value;
    } else if (strcmp(name, "commits") == 0) {
        l->commits = (uint32_t)value;
    } else if (strcmp(name, "min-rate") == 0) {
        l->min_rate = value;
    } else if (strcmp(name, "session-timeout") == 0) {
        l->session_timeout_ms = value;
    } else {
        fail_msg("unknown setting: %s", name);
    }
}

static void on_line(struct run *run, char *line, struct stream *said, struct stream *given)
{
    char name[32];
    unsigned long long value = 0;
    if (line[0] == '\0' || line[0] == '#') {
        return;
    }
    if (line[0] == '@') {
        assert_int_equal(sscanf(line, "@ %31s %llu", name, &value), 2);
        set(run, name, value);
        return;
    }
    start(run);
    if (strncmp(line, "C:", 2) == 0 || strncmp(line, "C~", 2) == 0) {
        send_text(run, line[2] == ' ' ? line + 3 : line + 2, line[1] == ':');
    } else if (line[0] == 'C' && line[1] == '*') {
        char *text = NULL;
        for (value = strtoull(line + 2, &text, 10); value > 0; value--) {
            send_text(run, text + 1, false);
        }
    } else if (line[0] == '!') {
        on_event(run, line + 2);
    } else {
        assert_true(line[0] == 'S' || line[0] == 'M' || line[0] == 'X' || line[0] == 'A');
        struct stream *stream = line[0] == 'S' ? said : given;
        add_str(stream, line);
        add_str(stream, "\n");
    }
}

static struct stream stream_new(void)
{
    struct stream stream = {calloc(1, TEXT_MAX), 0};
    assert_non_null(stream.text);
    return stream;
}

static void play(const char *script, size_t step, uint64_t seed)
{
    static struct run run;
    memset(&run, 0, sizeof(run));
    run.options = (struct bh_server_options){.hostname = BH_LIT("mx.test"),
                                             .postmaster = BH_EMPTY,
                                             .to_ascii = to_ascii,
                                             .routable = routable,
                                             .suspect = suspect};
    run.options.limits = bh_server_default_limits();
    run.may_relay = true;
    run.now = (struct bh_now){1000, 1764000000000};
    run.step = step;
    bh_rng_seed(&run.rng, seed);
    run.said = stream_new();
    run.given = stream_new();
    run.content = calloc(1, TEXT_MAX);
    run.input = calloc(1, TEXT_MAX);
    struct stream said = stream_new();
    struct stream given = stream_new();
    assert_true(run.content != NULL && run.input != NULL);

    char *copy = malloc(strlen(script) + 1);
    assert_non_null(copy);
    memcpy(copy, script, strlen(script) + 1);
    for (char *line = copy; line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        on_line(&run, line, &said, &given);
        line = end == NULL ? NULL : end + 1;
    }
    start(&run);
    feed(&run);
    assert_string_equal(run.said.text, said.text);
    assert_string_equal(run.given.text, given.text);
    assert_int_equal(run.waiting_count, bh_server_commits(&run.server));
    bh_server_fini(&run.server);
    free(copy);
    free(run.content);
    free(run.input);
    free(run.said.text);
    free(run.given.text);
    free(said.text);
    free(given.text);
}

static char *load(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, TEXT_MAX);
    assert_non_null(text);
    assert_true(fread(text, 1, TEXT_MAX - 1, file) > 0);
    fclose(file);
    return text;
}

static void transcripts_come_out_alike(void **unused)
{
    (void)unused;
    const char *folder = BH_TEST_DATA "/transcripts/server";
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    unsigned played = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        print_message("%s\n", entry->d_name);
        char *script = load(path);
        play(script, TEXT_MAX, 1);
        play(script, 1, 1);
        for (uint64_t seed = 1; seed <= 20; seed++) {
            play(script, 0, seed);
        }
        free(script);
        played++;
    }
    closedir(dir);
    assert_true(played >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(transcripts_come_out_alike)};
    return cmocka_run_group_tests_name("smtp_server", tests, NULL, NULL);
}
