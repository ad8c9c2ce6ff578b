/* Conversations of the client core, in transcripts/client. Each runs with the server's lines whole,
 * and octet by octet: what goes out and what comes of it must be the same.
 *
 *   set KEY [VALUE]        options: lmtp, helo_only, implicit, proven, unknown, tls may|must,
 * speculative, no_speculation, piece N (octets of content given at a time, whatever the run; 0:
 * all), rcptmax N, off BITS, rate N, auth BITS give FROM TO[,TO] [8bit] [utf8] [requiretls]
 * [size=N] [notify=N] [ret=full] [envid=X] [orcpt=X] [body=TEXT] [probe] S: line                the
 * server says; lines in a row arrive together C: line                the client must have said this
 * next C                      the client must have said nothing more want sasl BIT begin|CHALLENGE
 * the driver is asked; "-" is an empty challenge ! sasl RESPONSE [complete] | ! sasl_long N
 * [complete] | ! sasl_failed    and answers ! connected | tls_up | tls_failed | lost | quit | wait
 * MS | stall | drain want result T I FATE HAPPENED CODE STAGE [relayed] want close graceful |
 * HAPPENED CODE STAGE want ends T MASK       BEFORE_END was told for transaction T and these
 * recipients want long AUTH_PLAIN|- N    the next line is that and a blank, or nothing, and N times
 * x want ready | trouble | rcptmax N | ahead N | ahead_trouble */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/smtp_client.h"

struct bh_clearance {
    int unused;
};

#define GIVEN_MAX 32
#define TO_MAX 8

struct given {
    struct bh_envelope envelope;
    struct bh_recipient recipients[TO_MAX];
    struct bh_client_result results[TO_MAX];
    struct bh_client_txn txn;
    struct bh_slice content;
    uint64_t ends;
    bool done;
    bool probe;
};

struct run {
    struct bh_client client;
    struct bh_client_options options;
    struct bh_clearance clearance;
    struct bh_arena arena;
    struct bh_now now;
    struct given given[GIVEN_MAX];
    size_t given_count;
    size_t step;  /* octets fed at a time; 0: all */
    size_t piece; /* octets of content given at a time; 0: all */
    bool stalled; /* writes don't complete */
    uint64_t unwritten;
    bool ready, closed, graceful;
    bool asked; /* WANT_SASL, not answered */
    struct bh_client_action sasl;
    char challenge[BH_REPLY_LINE_MAX];
    char response[BH_CLIENT_AUTH_LINE_MAX];
    struct bh_outcome outcome;
    char out[65536];
    size_t out_len, out_read;
    char in[65536];
    size_t in_len;
    const char *name;
    int line;
};

static struct given *given_of(struct run *r, const struct bh_client_txn *txn)
{
    for (size_t i = 0; i < r->given_count; i++) {
        if (&r->given[i].txn == txn) {
            return &r->given[i];
        }
    }
    fail_msg("%s:%d: an unknown transaction", r->name, r->line);
    abort(); /* fail_msg does not return, but is not declared so */
}

static void on_write(struct run *r, const struct bh_client_action *a)
{
    if (a->output == BH_OUTPUT_PREAMBLE) {
        assert_true(bh_preamble_allowed(a->bytes));
    } else {
        assert_true(r->client.clearance == &r->clearance);
        assert_true((a->output == BH_OUTPUT_CREDENTIAL) ==
                    (r->client.phase == BH_CLIENT_PHASE_AUTH));
    }
    assert_true(r->out_len + a->bytes.len <= sizeof(r->out));
    memcpy(r->out + r->out_len, a->bytes.ptr, a->bytes.len);
    r->out_len += a->bytes.len;
    if (r->stalled) {
        r->unwritten += a->bytes.len;
    } else {
        bh_client_on_written(&r->client, a->bytes.len, r->now);
    }
}

static void on_want_sasl(struct run *r, const struct bh_client_action *a)
{
    assert_false(r->asked || r->ready);
    r->asked = true;
    r->sasl = *a;
    assert_true(a->challenge.len <= sizeof(r->challenge));
    if (a->challenge.len > 0) {
        memcpy(r->challenge, a->challenge.ptr, a->challenge.len);
    }
    r->sasl.challenge.ptr = r->challenge;
}

static void on_want_content(struct run *r, const struct bh_client_action *a)
{
    const struct given *g = given_of(r, a->txn);
    const struct bh_slice rest = bh_slice_skip(g->content, (size_t)a->offset);
    const struct bh_slice piece = r->piece == 0 ? rest : bh_slice_take(rest, r->piece);
    bh_client_on_content(&r->client, piece, piece.len == rest.len, r->now);
}

static void drain(struct run *r)
{
    static char scratch[BH_CLIENT_OUT_MIN];
    struct bh_client_action a;
    struct bh_buf out = bh_buf(scratch, sizeof(scratch));
    while (bh_client_next(&r->client, &out, &a)) {
        switch (a.kind) {
        case BH_CLIENT_WRITE:
            on_write(r, &a);
            break;
        case BH_CLIENT_START_TLS:
            break;
        case BH_CLIENT_WANT_CLEARANCE:
            bh_client_on_clearance(&r->client, &r->clearance, r->now);
            break;
        case BH_CLIENT_WANT_SASL:
            on_want_sasl(r, &a);
            break;
        case BH_CLIENT_READY:
            r->ready = true;
            break;
        case BH_CLIENT_WANT_CONTENT:
            on_want_content(r, &a);
            break;
        case BH_CLIENT_BEFORE_END:
            assert_false(a.txn->end_sent);
            given_of(r, a.txn)->ends |= a.ending[0];
            break;
        case BH_CLIENT_DONE:
            assert_false(given_of(r, a.txn)->done);
            given_of(r, a.txn)->done = true;
            break;
        case BH_CLIENT_CLOSE:
            assert_false(r->closed);
            r->closed = true;
            r->graceful = a.graceful;
            r->outcome = *a.outcome;
            break;
        }
        out = bh_buf(scratch, sizeof(scratch));
    }
}

static void feed(struct run *r)
{
    size_t at = 0;
    const size_t len = r->in_len;
    r->in_len = 0;
    while (at < len) {
        const size_t n = r->step == 0 || len - at < r->step ? len - at : r->step;
        bh_client_on_bytes(&r->client, bh_slice(r->in + at, n), r->now);
        at += n;
        drain(r);
    }
}

static bool option(struct bh_slice word, const char *key, struct bh_slice *value)
{
    if (!bh_slice_starts(word, bh_slice_str(key))) {
        return false;
    }
    *value = bh_slice_skip(word, strlen(key));
    return true;
}

/* "\n" in a body stands for CRLF, "_" for a blank, "\r" for a CR alone. */
static struct bh_slice body_of(struct run *r, struct bh_slice text)
{
    struct bh_slice copy;
    char body[4096];
    size_t len = 0;
    for (size_t i = 0; i < text.len && len + 2 < sizeof(body); i++) {
        if (text.ptr[i] == '\\' && i + 1 < text.len) {
            i++;
            body[len++] = '\r';
            if (text.ptr[i] == 'n') {
                body[len++] = '\n';
            }
        } else {
            body[len++] = text.ptr[i] == '_' ? ' ' : text.ptr[i];
        }
    }
    assert_true(bh_arena_copy(&r->arena, bh_slice(body, len), &copy));
    return copy;
}

static void give_option(struct run *r, struct given *g, struct bh_slice word)
{
    struct bh_slice value;
    uint64_t number = 0;
    if (bh_slice_eq(word, BH_LIT("probe"))) {
        g->probe = true;
    } else if (bh_slice_eq(word, BH_LIT("8bit"))) {
        g->envelope.body = BH_BODY_8BITMIME;
    } else if (bh_slice_eq(word, BH_LIT("utf8"))) {
        g->envelope.smtputf8 = true;
    } else if (bh_slice_eq(word, BH_LIT("requiretls"))) {
        g->envelope.requiretls = true;
    } else if (bh_slice_eq(word, BH_LIT("ret=full"))) {
        g->envelope.ret = BH_RET_FULL;
    } else if (option(word, "size=", &value)) {
        assert_true(bh_slice_u64(value, UINT64_MAX, &g->envelope.size));
    } else if (option(word, "notify=", &value)) {
        assert_true(bh_slice_u64(value, 15, &number));
        for (size_t i = 0; i < TO_MAX; i++) {
            g->recipients[i].notify = (uint8_t)number;
        }
    } else if (option(word, "envid=", &value)) {
        g->envelope.envid = value;
    } else if (option(word, "orcpt=", &value)) {
        g->recipients[0].orcpt = value;
    } else if (option(word, "body=", &value)) {
        g->content = body_of(r, value);
    } else {
        fail_msg("%s:%d: unknown option %.*s", r->name, r->line, BH_FMT(word));
    }
}

static void do_give(struct run *r, struct bh_slice rest)
{
    assert_true(r->given_count < GIVEN_MAX);
    struct given *g = &r->given[r->given_count++];
    *g = (struct given){.content = BH_LIT("hi\r\n")};
    g->envelope.sender = bh_slice_word(&rest);
    if (bh_slice_eq(g->envelope.sender, BH_LIT("<>"))) {
        g->envelope.sender = BH_EMPTY;
    }
    g->envelope.envid = BH_EMPTY;
    struct bh_slice to = bh_slice_word(&rest);
    uint32_t count = 0;
    while (to.len > 0) {
        const size_t comma = bh_slice_find(to, ',');
        assert_true(count < TO_MAX);
        g->recipients[count].address = bh_slice_take(to, comma);
        g->recipients[count++].orcpt = BH_EMPTY;
        to = bh_slice_skip(to, comma + 1);
    }
    for (struct bh_slice word = bh_slice_word(&rest); word.len > 0; word = bh_slice_word(&rest)) {
        give_option(r, g, word);
    }
    g->txn = (struct bh_client_txn){.envelope = &g->envelope,
                                    .recipients = g->recipients,
                                    .results = g->results,
                                    .recipients_count = count,
                                    .arena = &r->arena,
                                    .envelope_only = g->probe};
    assert_true(bh_client_room(&r->client) > 0);
    bh_client_give(&r->client, &g->txn, r->now);
    drain(r);
}

static void do_set(struct run *r, struct bh_slice rest)
{
    const struct bh_slice key = bh_slice_word(&rest);
    const struct bh_slice value = bh_slice_word(&rest);
    uint64_t number = 0;
    if (bh_slice_eq(key, BH_LIT("lmtp"))) {
        r->options.lmtp = true;
    } else if (bh_slice_eq(key, BH_LIT("helo_only"))) {
        r->options.helo_only = true;
    } else if (bh_slice_eq(key, BH_LIT("implicit"))) {
        r->options.implicit_tls = true;
    } else if (bh_slice_eq(key, BH_LIT("proven"))) {
        r->options.peer_proven = true;
    } else if (bh_slice_eq(key, BH_LIT("speculative"))) {
        r->options.speculative = true;
    } else if (bh_slice_eq(key, BH_LIT("no_speculation"))) {
        r->options.speculation_off = true;
    } else if (bh_slice_eq(key, BH_LIT("piece"))) {
        assert_true(bh_slice_u64(value, 65536, &number));
        r->piece = (size_t)number;
    } else if (bh_slice_eq(key, BH_LIT("unknown"))) {
        r->options.route_unknown = true;
    } else if (bh_slice_eq(key, BH_LIT("tls"))) {
        r->options.tls = bh_slice_eq(value, BH_LIT("must")) ? BH_TLS_MUST : BH_TLS_MAY;
    } else if (bh_slice_eq(key, BH_LIT("rcptmax"))) {
        assert_true(bh_slice_u64(value, 100, &number));
        r->options.recipients_max = (uint32_t)number;
    } else if (bh_slice_eq(key, BH_LIT("off"))) {
        assert_true(bh_slice_u64(value, UINT32_MAX, &number));
        r->options.extensions_off = (uint32_t)number;
    } else if (bh_slice_eq(key, BH_LIT("auth"))) {
        assert_true(bh_slice_u64(value, 31, &number));
        r->options.auth = (uint32_t)number;
    } else if (bh_slice_eq(key, BH_LIT("rate"))) {
        assert_true(bh_slice_u64(value, UINT32_MAX, &r->options.min_rate));
    } else {
        fail_msg("%s:%d: unknown setting", r->name, r->line);
    }
}

/* The response must be kept until the next step: it is borrowed. */
static void do_sasl(struct run *r, struct bh_slice response, struct bh_slice rest)
{
    const bool complete = bh_slice_eq(bh_slice_word(&rest), BH_LIT("complete"));
    assert_true(r->asked && response.len <= sizeof(r->response));
    r->asked = false;
    memmove(r->response, response.ptr, response.len);
    bh_client_on_sasl(&r->client, bh_slice(r->response, response.len), complete, r->now);
}

static void do_sasl_failed(struct run *r)
{
    const struct bh_outcome failed = {
        .stage = BH_STAGE_AUTH, .happened = BH_HAPPENED_OUR_SECRET, .text = BH_LIT("no such file")};
    assert_true(r->asked);
    r->asked = false;
    bh_client_on_failed(&r->client, &failed, r->now);
}

static void do_event(struct run *r, struct bh_slice rest)
{
    const struct bh_slice what = bh_slice_word(&rest);
    uint64_t ms = 0;
    if (bh_slice_eq(what, BH_LIT("connected"))) {
        bh_client_on_event(&r->client, BH_CLIENT_CONNECTED, r->now);
    } else if (bh_slice_eq(what, BH_LIT("lost"))) {
        bh_client_on_event(&r->client, BH_CLIENT_LOST, r->now);
    } else if (bh_slice_eq(what, BH_LIT("quit"))) {
        bh_client_on_event(&r->client, BH_CLIENT_QUIT, r->now);
    } else if (bh_slice_eq(what, BH_LIT("tls_up"))) {
        bh_client_on_tls_up(&r->client, &r->clearance, r->now);
    } else if (bh_slice_eq(what, BH_LIT("tls_failed"))) {
        const struct bh_outcome failed = {.stage = BH_STAGE_TLS,
                                          .happened = BH_HAPPENED_TLS_FAILED,
                                          .text = BH_LIT("handshake failure")};
        bh_client_on_failed(&r->client, &failed, r->now);
    } else if (bh_slice_eq(what, BH_LIT("wait"))) {
        assert_true(bh_slice_u64(bh_slice_word(&rest), UINT32_MAX, &ms));
        r->now.mono_ms += ms;
        if (r->now.mono_ms >= bh_client_deadline_ms(&r->client)) {
            bh_client_on_event(&r->client, BH_CLIENT_TIMEOUT, r->now);
        }
    } else if (bh_slice_eq(what, BH_LIT("sasl"))) {
        const struct bh_slice response = bh_slice_word(&rest);
        do_sasl(r, bh_slice_eq(response, BH_LIT("-")) ? BH_EMPTY : response, rest);
    } else if (bh_slice_eq(what, BH_LIT("sasl_long"))) {
        assert_true(bh_slice_u64(bh_slice_word(&rest), sizeof(r->response), &ms));
        memset(r->response, 'x', (size_t)ms);
        do_sasl(r, bh_slice(r->response, (size_t)ms), rest);
    } else if (bh_slice_eq(what, BH_LIT("sasl_failed"))) {
        do_sasl_failed(r);
    } else if (bh_slice_eq(what, BH_LIT("stall"))) {
        r->stalled = true;
    } else if (bh_slice_eq(what, BH_LIT("drain"))) {
        assert_true(bh_slice_u64(bh_slice_word(&rest), UINT32_MAX, &ms));
        const uint64_t octets = ms < r->unwritten ? ms : r->unwritten;
        r->unwritten -= octets;
        bh_client_on_written(&r->client, octets, r->now);
    } else {
        fail_msg("%s:%d: unknown event", r->name, r->line);
    }
    drain(r);
}

static const char *const fates[] = {"untouched", "unfinished", "decided", "uncertain"};

static bool is_outcome(const struct bh_outcome *o, struct bh_slice rest)
{
    const struct bh_slice happened = bh_slice_word(&rest);
    uint64_t code = 0;
    const bool number = bh_slice_u64(bh_slice_word(&rest), 999, &code);
    return number && bh_slice_eq(happened, bh_slice_str(bh_happened_name(o->happened))) &&
           o->code == code &&
           bh_slice_eq(bh_slice_word(&rest), bh_slice_str(bh_stage_name(o->stage)));
}

static void want_result(struct run *r, struct bh_slice rest)
{
    uint64_t t = 0;
    uint64_t i = 0;
    assert_true(bh_slice_u64(bh_slice_word(&rest), GIVEN_MAX - 1, &t));
    assert_true(bh_slice_u64(bh_slice_word(&rest), TO_MAX - 1, &i));
    const struct given *g = &r->given[t];
    const struct bh_client_result *result = &g->results[i];
    const struct bh_slice fate = bh_slice_word(&rest);
    const bool relayed = bh_slice_ends_nocase(rest, BH_LIT(" relayed"));
    if (!g->done || !bh_slice_eq(fate, bh_slice_str(fates[result->fate])) ||
        (result->fate != BH_FATE_UNTOUCHED && !is_outcome(&result->outcome, rest)) ||
        relayed != result->relayed) {
        fail_msg("%s:%d step %zu: got %s %s %s %u %s relayed %d", r->name, r->line, r->step,
                 g->done ? "done" : "pending", fates[result->fate],
                 bh_happened_name(result->outcome.happened), result->outcome.code,
                 bh_stage_name(result->outcome.stage), result->relayed);
    }
}

/* Reads the line on the way. */
static bool is_long(struct run *r, struct bh_slice text, uint64_t count)
{
    const struct bh_slice line = bh_slice(r->out + r->out_read, r->out_len - r->out_read);
    const struct bh_slice rest = bh_slice_skip(line, text.len);
    bool good = bh_slice_starts(line, text) && rest.len == count + 2 &&
                bh_slice_eq(bh_slice_skip(rest, (size_t)count), BH_LIT("\r\n"));
    for (size_t i = 0; good && i < count; i++) {
        good = rest.ptr[i] == 'x';
    }
    r->out_read = r->out_len;
    return good;
}

static bool is_asked(const struct run *r, struct bh_slice rest)
{
    uint64_t mechanism = 0;
    const bool number = bh_slice_u64(bh_slice_word(&rest), 31, &mechanism);
    const struct bh_slice what = bh_slice_word(&rest);
    const bool begin = bh_slice_eq(what, BH_LIT("begin"));
    return number && r->asked && r->sasl.mechanism == mechanism && r->sasl.begin == begin &&
           (begin ||
            bh_slice_eq(r->sasl.challenge, bh_slice_eq(what, BH_LIT("-")) ? BH_EMPTY : what));
}

static void do_want(struct run *r, struct bh_slice rest)
{
    const struct bh_slice what = bh_slice_word(&rest);
    uint64_t a = 0;
    uint64_t b = 0;
    bool good = false;
    if (bh_slice_eq(what, BH_LIT("result"))) {
        want_result(r, rest);
        good = true;
    } else if (bh_slice_eq(what, BH_LIT("close"))) {
        good = r->closed && (bh_slice_eq(bh_slice_trim(rest), BH_LIT("graceful"))
                                 ? r->graceful
                                 : !r->graceful && is_outcome(&r->outcome, rest));
    } else if (bh_slice_eq(what, BH_LIT("ends"))) {
        good = bh_slice_u64(bh_slice_word(&rest), GIVEN_MAX - 1, &a) &&
               bh_slice_u64(bh_slice_word(&rest), UINT64_MAX, &b) && r->given[a].ends == b;
    } else if (bh_slice_eq(what, BH_LIT("sasl"))) {
        good = is_asked(r, rest);
    } else if (bh_slice_eq(what, BH_LIT("long"))) { /* a line of that many x, after this text */
        const struct bh_slice text = bh_slice_word(&rest);
        good = bh_slice_u64(bh_slice_word(&rest), sizeof(r->out), &a) &&
               is_long(r, bh_slice_eq(text, BH_LIT("-")) ? BH_EMPTY : BH_LIT("AUTH PLAIN "), a);
    } else if (bh_slice_eq(what, BH_LIT("ready"))) {
        good = r->ready;
    } else if (bh_slice_eq(what, BH_LIT("trouble"))) {
        good = r->client.facts.tls_trouble || r->client.facts.sync_trouble;
    } else if (bh_slice_eq(what, BH_LIT("ahead"))) {
        good = bh_slice_u64(bh_slice_word(&rest), 100, &a) && r->client.facts.ahead == a;
    } else if (bh_slice_eq(what, BH_LIT("ahead_trouble"))) {
        good = r->client.facts.ahead_trouble;
    } else if (bh_slice_eq(what, BH_LIT("rcptmax"))) {
        good = bh_slice_u64(bh_slice_word(&rest), 100, &a) && r->client.facts.recipients_max == a;
    }
    if (!good) {
        fail_msg("%s:%d step %zu: not so; closed %d graceful %d %s %u %s", r->name, r->line,
                 r->step, r->closed, r->graceful, bh_happened_name(r->outcome.happened),
                 r->outcome.code, bh_stage_name(r->outcome.stage));
    }
}

static void expect_line(struct run *r, struct bh_slice want)
{
    const struct bh_slice rest = bh_slice(r->out + r->out_read, r->out_len - r->out_read);
    const size_t end = bh_slice_find(rest, '\n');
    const struct bh_slice line =
        end < rest.len && end > 0 ? bh_slice_take(rest, end - 1) : BH_EMPTY;
    if (!bh_slice_eq(line, want) || end == rest.len) {
        fail_msg("%s:%d step %zu: wanted \"%.*s\", got \"%.*s\"", r->name, r->line, r->step,
                 BH_FMT(want), BH_FMT(rest));
    }
    r->out_read += end + 1;
}

static void run_line(struct run *r, struct bh_slice line)
{
    if (bh_slice_starts(line, BH_LIT("S: "))) {
        const struct bh_slice text = bh_slice_skip(line, 3);
        assert_true(r->in_len + text.len + 2 <= sizeof(r->in));
        memcpy(r->in + r->in_len, text.ptr, text.len);
        memcpy(r->in + r->in_len + text.len, "\r\n", 2);
        r->in_len += text.len + 2;
        return;
    }
    feed(r);
    if (bh_slice_starts(line, BH_LIT("C: "))) {
        expect_line(r, bh_slice_skip(line, 3));
    } else if (bh_slice_eq(line, BH_LIT("C"))) {
        if (r->out_read != r->out_len) {
            fail_msg("%s:%d step %zu: unexpected \"%.*s\"", r->name, r->line, r->step,
                     (int)(r->out_len - r->out_read), r->out + r->out_read);
        }
    } else if (bh_slice_starts(line, BH_LIT("! "))) {
        do_event(r, bh_slice_skip(line, 2));
    } else if (bh_slice_starts(line, BH_LIT("want "))) {
        do_want(r, bh_slice_skip(line, 5));
    } else if (bh_slice_starts(line, BH_LIT("give "))) {
        do_give(r, bh_slice_skip(line, 5));
    } else if (bh_slice_starts(line, BH_LIT("set "))) {
        do_set(r, bh_slice_skip(line, 4));
    } else if (line.len > 0 && line.ptr[0] != '#') {
        fail_msg("%s:%d: unknown line", r->name, r->line);
    }
}

static void run_transcript(const char *name, struct bh_slice text, size_t step, size_t piece)
{
    static struct run r;
    r = (struct run){.name = name, .step = step, .piece = piece, .now = {1000, 0}};
    r.options = (struct bh_client_options){.helo = BH_LIT("me.example"),
                                           .host = BH_LIT("mx.example"),
                                           .timeouts = bh_client_default_timeouts()};
    bh_arena_init(&r.arena, 65536);
    bh_client_init(&r.client, &r.options);
    while (text.len > 0) {
        const size_t end = bh_slice_find(text, '\n');
        r.line++;
        run_line(&r, bh_slice_take(text, end));
        text = bh_slice_skip(text, end + 1);
    }
    feed(&r);
    for (size_t i = 0; r.closed && i < r.given_count; i++) {
        assert_true(r.given[i].done); /* every transaction has had its DONE before CLOSE */
    }
    bh_arena_fini(&r.arena);
}

static bool is_text_file(const char *name)
{
    return bh_slice_ends_nocase(bh_slice_str(name), BH_LIT(".txt"));
}

static void transcripts_hold_for_every_split(void **unused)
{
    (void)unused;
    static char text[65536];
    size_t count = 0;
    DIR *dir = opendir(BH_TEST_DATA "/transcripts/client");
    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char path[1024];
        if (!is_text_file(e->d_name)) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/transcripts/client/%s", BH_TEST_DATA, e->d_name);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        const size_t len = fread(text, 1, sizeof(text), file);
        fclose(file);
        const size_t steps[] = {0, 1, 2, 7};
        for (size_t i = 0; i < BH_COUNT(steps); i++) {
            run_transcript(e->d_name, bh_slice(text, len), steps[i], 0);
            run_transcript(e->d_name, bh_slice(text, len), steps[i], 1);
        }
        count++;
    }
    closedir(dir);
    assert_true(count >= 20);
}

/* Without a clearance nothing but the preamble comes out, whatever the peer says. */
static void nothing_privileged_without_clearance(void **unused)
{
    (void)unused;
    static struct bh_client c;
    static char scratch[BH_CLIENT_OUT_MIN];
    const struct bh_client_options options = {
        .tls = BH_TLS_MUST, .helo = BH_LIT("me.example"), .timeouts = bh_client_default_timeouts()};
    const struct bh_now now = {1, 1};
    const struct bh_slice hostile = BH_LIT("220 hi\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 ok\r\n"
                                           "250 ok\r\n354 go\r\n250 ok\r\n");
    struct bh_client_result result[1];
    const struct bh_recipient to = {.address = BH_LIT("a@b.example"), .orcpt = BH_EMPTY};
    const struct bh_envelope envelope = {.sender = BH_EMPTY, .envid = BH_EMPTY};
    struct bh_arena arena;
    bh_arena_init(&arena, 4096);
    struct bh_client_txn txn = {.envelope = &envelope,
                                .recipients = &to,
                                .results = result,
                                .recipients_count = 1,
                                .arena = &arena};
    bh_client_init(&c, &options);
    bh_client_give(&c, &txn, now);
    bh_client_on_event(&c, BH_CLIENT_CONNECTED, now);
    bool closed = false;
    for (size_t i = 0; i <= hostile.len; i++) {
        struct bh_client_action a;
        struct bh_buf out = bh_buf(scratch, sizeof(scratch));
        while (bh_client_next(&c, &out, &a)) {
            assert_true(a.kind != BH_CLIENT_WANT_CLEARANCE && a.kind != BH_CLIENT_READY);
            if (a.kind == BH_CLIENT_WRITE) {
                assert_true(a.output == BH_OUTPUT_PREAMBLE && bh_preamble_allowed(a.bytes));
            }
            closed = closed || a.kind == BH_CLIENT_CLOSE;
            out = bh_buf(scratch, sizeof(scratch));
        }
        if (i < hostile.len) {
            bh_client_on_bytes(&c, bh_slice(hostile.ptr + i, 1), now);
        }
    }
    assert_true(closed);
    assert_int_equal(result[0].fate, BH_FATE_UNTOUCHED);
    bh_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transcripts_hold_for_every_split),
        cmocka_unit_test(nothing_privileged_without_clearance),
    };
    return cmocka_run_group_tests_name("smtp_client", tests, NULL, NULL);
}
