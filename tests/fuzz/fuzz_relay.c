/* Our client talks to our server: what goes out is what comes in. An envelope and a content are
 * read from the input as intake reads them, sent by the client core with some of the server's
 * extensions off, and must arrive as they were: sender, parameters, each recipient once, every
 * octet of content. What the client reports as delivered the server has; what it refuses to send
 * the server never sees. The first two octets pick options and the size of the pieces; then a line
 * for MAIL
 * ("<a@b> SIZE=1"), lines for RCPT, an empty line, and the content. */
#include "bh/smtp_client.h"
#include "bh/smtp_params.h"
#include "bh/smtp_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bh_clearance {
    int unused;
};

#define TO_MAX 8
#define CONTENT_MAX ((size_t)1 << 17)
#define WIRE_MAX ((size_t)1 << 18)

static const struct bh_clearance clearance;
static char arrived[CONTENT_MAX];

/* What one side has said and the other has not yet read. */
struct wire {
    char octets[WIRE_MAX];
    size_t len;
    size_t at;
};

struct world {
    struct bh_client client;
    struct bh_client_options options;
    struct bh_client_txn txn;
    struct bh_client_result results[TO_MAX];
    struct bh_envelope envelope;
    struct bh_recipient to[TO_MAX];
    char addresses[TO_MAX + 1][BH_ADDRESS_MAX];
    uint32_t to_count;
    struct bh_slice content;
    struct bh_server server;
    struct bh_server_options server_options;
    struct bh_buf arrived;
    struct wire up, down;
    uint32_t messages; /* that the server took */
    bool closed;       /* by the client */
    bool done;
};

static const struct bh_now now = {1, 1};

static void put(struct wire *w, struct bh_slice s)
{
    BH_ASSERT(s.len <= sizeof(w->octets) - w->len);
    memcpy(w->octets + w->len, s.ptr, s.len);
    w->len += s.len;
}

/* The same as given, whatever the way. */
static void check_message(struct world *w, const struct bh_server_txn *got)
{
    const struct bh_envelope *sent = &w->envelope;
    const bool dsn = (w->options.extensions_off & BH_EXT_DSN) == 0;
    BH_ASSERT(bh_slice_eq(got->envelope.sender, sent->sender));
    BH_ASSERT(got->envelope.ret == (dsn ? sent->ret : BH_RET_UNSET));
    BH_ASSERT(bh_slice_eq(got->envelope.envid, dsn ? sent->envid : BH_EMPTY));
    BH_ASSERT(!sent->requiretls && !got->envelope.requiretls);
    BH_ASSERT(got->recipients_count <= w->to_count);
    for (uint32_t i = 0, at = 0; i < got->recipients_count; i++, at++) {
        const struct bh_recipient *r = &got->recipients[i];
        while (at < w->to_count && !bh_slice_eq(r->address, w->to[at].address)) {
            at++;
        }
        BH_ASSERT(at < w->to_count); /* in the order given */
        BH_ASSERT(r->notify == (dsn ? w->to[at].notify : 0));
        BH_ASSERT(bh_slice_eq(r->orcpt, dsn ? w->to[at].orcpt : BH_EMPTY));
    }
    const struct bh_slice in = bh_buf_slice(&w->arrived);
    const bool chunked = /* it goes as it is */
        (w->options.extensions_off & BH_EXT_CHUNKING) == 0 && !w->options.helo_only;
    const bool ended = chunked || w->content.len == 0 || w->content.ptr[w->content.len - 1] == '\n';
    BH_ASSERT(bh_slice_eq(bh_slice_take(in, w->content.len), w->content));
    BH_ASSERT(in.len == w->content.len + (ended ? 0 : 2));
}

static void serve(struct world *w)
{
    struct bh_server_action a;
    while (bh_server_next(&w->server, &a)) {
        switch (a.kind) {
        case BH_SERVER_WRITE:
            put(&w->down, a.bytes);
            break;
        case BH_SERVER_BEGIN:
        case BH_SERVER_DISCARD:
            w->arrived.len = 0;
            break;
        case BH_SERVER_CONTENT:
            bh_buf_put(&w->arrived, a.bytes);
            break;
        case BH_SERVER_DELIVER:
            check_message(w, a.txn);
            w->messages++;
            bh_server_on_committed(&w->server, a.txn, BH_SERVER_COMMITTED, 1, now);
            break;
        case BH_SERVER_CLOSE:
            break;
        case BH_SERVER_START_TLS:
        case BH_SERVER_AUTH:
            BH_ASSERT(false);
        }
    }
}

static void send_out(struct world *w)
{
    static char scratch[BH_CLIENT_OUT_MIN];
    struct bh_client_action a;
    struct bh_buf out = bh_buf(scratch, sizeof(scratch));
    while (bh_client_next(&w->client, &out, &a)) {
        switch (a.kind) {
        case BH_CLIENT_WRITE:
            put(&w->up, a.bytes);
            bh_client_on_written(&w->client, a.bytes.len, now);
            break;
        case BH_CLIENT_WANT_CLEARANCE:
            bh_client_on_clearance(&w->client, &clearance, now);
            break;
        case BH_CLIENT_WANT_CONTENT:
            bh_client_on_content(&w->client, bh_slice_skip(w->content, (size_t)a.offset), true,
                                 now);
            break;
        case BH_CLIENT_DONE:
            w->done = true;
            break;
        case BH_CLIENT_CLOSE:
            w->closed = true;
            break;
        case BH_CLIENT_READY:
        case BH_CLIENT_BEFORE_END:
            break;
        case BH_CLIENT_START_TLS:
        case BH_CLIENT_WANT_SASL:
            BH_ASSERT(false);
        }
        out = bh_buf(scratch, sizeof(scratch));
    }
}

/* Both sides, in pieces, until neither has anything to say. */
static void talk(struct world *w, size_t step)
{
    bool moved = true;
    while (moved) {
        moved = false;
        serve(w);
        send_out(w);
        if (w->down.at < w->down.len) {
            const struct bh_slice all =
                bh_slice(w->down.octets + w->down.at, w->down.len - w->down.at);
            const struct bh_slice piece = bh_slice_take(all, step);
            w->down.at += piece.len;
            bh_client_on_bytes(&w->client, piece, now);
            moved = true;
        }
        if (w->up.at < w->up.len && bh_server_wants_input(&w->server)) {
            const struct bh_slice all = bh_slice(w->up.octets + w->up.at, w->up.len - w->up.at);
            const struct bh_slice piece = bh_slice_take(all, step);
            w->up.at += piece.len;
            bh_server_on_bytes(&w->server, piece, now);
            moved = true;
        }
    }
}

static bool read_address(struct world *w, uint32_t at, struct bh_slice *line, bool smtputf8,
                         struct bh_slice *address)
{
    struct bh_path path;
    struct bh_buf out = bh_buf(w->addresses[at], BH_ADDRESS_MAX);
    if (bh_path_parse(line, &path) != BH_PATH_OK) {
        return false;
    }
    *address = BH_EMPTY;
    if (!path.null && bh_path_address(&path, smtputf8, NULL, NULL, &out) != BH_PATH_OK) {
        return false;
    }
    *address = bh_buf_slice(&out);
    return true;
}

static struct bh_slice take_line(struct bh_slice *in)
{
    const size_t end = bh_slice_find(*in, '\n');
    const struct bh_slice line = bh_slice_take(*in, end);
    *in = bh_slice_skip(*in, end + 1);
    return line;
}

/* As MAIL and RCPT would have been read. @return false: intake refuses it, so it is never sent */
static bool read_envelope(struct world *w, struct bh_slice *in)
{
    struct bh_mail_params mail;
    struct bh_slice line = take_line(in);
    if (!read_address(w, 0, &line, true, &w->envelope.sender) ||
        bh_mail_params_parse(line, &mail) != BH_PARAMS_OK || mail.requiretls) {
        return false;
    }
    w->envelope.smtputf8 = mail.smtputf8;
    w->envelope.body = mail.body;
    w->envelope.ret = mail.ret;
    w->envelope.envid = mail.envid;
    for (line = take_line(in); line.len > 0 && w->to_count < TO_MAX; line = take_line(in)) {
        struct bh_recipient *to = &w->to[w->to_count];
        struct bh_rcpt_params rcpt;
        if (!read_address(w, w->to_count + 1, &line, true, &to->address) || to->address.len == 0 ||
            bh_rcpt_params_parse(line, &rcpt) != BH_PARAMS_OK) {
            return false;
        }
        to->notify = rcpt.notify;
        to->orcpt = rcpt.orcpt;
        for (uint32_t i = 0; i < w->to_count; i++) {
            if (bh_slice_eq(w->to[i].address, to->address)) {
                return false; /* The server merges them, so they cannot be told apart. */
            }
        }
        w->to_count++;
    }
    return w->to_count > 0;
}

static void begin(struct world *w, uint8_t options)
{
    static const uint32_t off[] = {BH_EXT_PIPELINING, BH_EXT_DSN, BH_EXT_8BITMIME, BH_EXT_SMTPUTF8,
                                   BH_EXT_CHUNKING};
    w->options = (struct bh_client_options){.helo_only = (options & 32) != 0,
                                            .speculative = (options & 128) != 0,
                                            .helo = BH_LIT("client.test"),
                                            .host = BH_LIT("mx.test"),
                                            .recipients_max = (options & 64) != 0 ? 2 : 0,
                                            .timeouts = bh_client_default_timeouts()};
    for (size_t i = 0; i < BH_COUNT(off); i++) {
        w->options.extensions_off |= (options >> i & 1) != 0 ? off[i] : 0;
    }
    w->options.extensions_off |= w->options.helo_only ? BH_EXT_DSN : 0;
    w->server_options = (struct bh_server_options){.hostname = BH_LIT("mx.test"),
                                                   .postmaster = BH_LIT("p@x.example"),
                                                   .limits = bh_server_default_limits()};
    bh_server_init(&w->server, &w->server_options, true, false);
    bh_client_init(&w->client, &w->options);
    bh_server_start(&w->server, BH_SERVER_GREET, now);
    bh_client_on_event(&w->client, BH_CLIENT_CONNECTED, now);
}

static void check_results(const struct world *w)
{
    bool any = false;
    BH_ASSERT(w->done);
    for (uint32_t i = 0; i < w->to_count; i++) {
        const struct bh_client_result *r = &w->results[i];
        any = any || (r->fate == BH_FATE_DECIDED && r->outcome.code / 100 == 2 &&
                      r->outcome.stage == BH_STAGE_DOT);
        BH_ASSERT(r->fate != BH_FATE_UNCERTAIN);
    }
    BH_ASSERT(any == (w->messages > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    if (size < 3 || size > CONTENT_MAX / 4) {
        return 0;
    }
    memset(&w, 0, sizeof(w) - sizeof(w.up) - sizeof(w.down));
    w = (struct world){.messages = 0};
    w.arrived = bh_buf(arrived, CONTENT_MAX);
    struct bh_slice in = bh_slice(data + 2, size - 2);
    if (!read_envelope(&w, &in)) {
        return 0;
    }
    struct bh_arena arena;
    bh_arena_init(&arena, (size_t)1 << 16);
    w.content = in;
    w.envelope.size = in.len;
    w.txn = (struct bh_client_txn){.envelope = &w.envelope,
                                   .recipients = w.to,
                                   .results = w.results,
                                   .recipients_count = w.to_count,
                                   .arena = &arena};
    begin(&w, data[0]);
    bh_client_give(&w.client, &w.txn, now);
    talk(&w, 1 + (size_t)data[1] * 8);
    bh_client_on_event(&w.client, BH_CLIENT_QUIT, now);
    talk(&w, 1 + (size_t)data[1] * 8);
    check_results(&w);
    BH_ASSERT(w.closed);
    bh_server_fini(&w.server);
    bh_arena_fini(&arena);
    return 0;
}
