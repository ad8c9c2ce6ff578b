/* Property: what the server says and hands on does not depend on how the client's octets are cut,
 * and every transaction that began ends in one delivery or one discard. */
#include "bh/smtp_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STREAM_MAX (1 << 20)

struct trace {
    char said[STREAM_MAX];
    size_t said_len;
    char given[STREAM_MAX];
    size_t given_len;
};

static struct trace whole;
static struct trace cut;

static void put(char *text, size_t *len, struct bh_slice s)
{
    const size_t room = STREAM_MAX - *len;
    const size_t fits = s.len < room ? s.len : room;
    if (fits > 0) {
        memcpy(text + *len, s.ptr, fits);
        *len += fits;
    }
}

static void put_message(struct trace *t, const struct bh_server_txn *txn)
{
    put(t->given, &t->given_len, txn->envelope.sender);
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        put(t->given, &t->given_len, BH_LIT(" "));
        put(t->given, &t->given_len, txn->recipients[i].address);
        BH_ASSERT(txn->recipients[i].address.len <= BH_ADDRESS_MAX);
    }
    put(t->given, &t->given_len, BH_LIT("\n"));
}

/* A verdict that hangs on the response alone. */
static void judge(struct bh_server *s, const struct bh_server_action *action)
{
    const enum bh_server_verdict verdict =
        action->bytes.len == 0 ? BH_SERVER_AUTH_MORE
                               : (enum bh_server_verdict)((unsigned char)action->bytes.ptr[0] % 5);
    BH_ASSERT(s->tls && s->user_len == 0 && s->open == NULL);
    bh_server_on_auth(s, verdict, BH_LIT("dGV4dA=="), s->now);
}

/* The content given to the driver, less what was discarded. */
static void drain(struct bh_server *s, struct trace *t, size_t *content_at, uint64_t *content_len)
{
    struct bh_server_action action;
    while (bh_server_next(s, &action)) {
        switch (action.kind) {
        case BH_SERVER_WRITE:
            BH_ASSERT(action.bytes.len > 0);
            put(t->said, &t->said_len, action.bytes);
            break;
        case BH_SERVER_BEGIN:
            *content_at = t->given_len;
            *content_len = 0;
            break;
        case BH_SERVER_CONTENT:
            put(t->given, &t->given_len, action.bytes);
            *content_len += action.bytes.len;
            break;
        case BH_SERVER_DELIVER:
            BH_ASSERT(action.txn->envelope.size == *content_len);
            put_message(t, action.txn);
            bh_server_on_committed(s, action.txn, BH_SERVER_COMMITTED, 1, s->now);
            *content_at = t->given_len;
            break;
        case BH_SERVER_DISCARD:
            t->given_len = *content_at;
            break;
        case BH_SERVER_AUTH:
            put(t->given, &t->given_len, action.mechanism);
            put(t->given, &t->given_len, action.bytes);
            *content_at = t->given_len;
            judge(s, &action);
            break;
        case BH_SERVER_START_TLS:
            put(t->said, &t->said_len, BH_LIT("<tls>"));
            break;
        case BH_SERVER_CLOSE:
            put(t->said, &t->said_len, BH_LIT("<close>"));
            break;
        }
    }
}

static void run(struct bh_slice input, size_t step, struct trace *t)
{
    static struct bh_server s;
    const struct bh_now now = {1, 1};
    struct bh_server_options options = {.hostname = BH_LIT("mx.test"),
                                        .postmaster = BH_LIT("p@x.example"),
                                        .auth = BH_LIT("PLAIN LOGIN")};
    options.limits = bh_server_default_limits();
    options.limits.message_size = 300;
    options.limits.recipients = 3;
    options.limits.content_line = 100;
    options.limits.hops = 2;
    options.limits.errors = 20;
    options.limits.auth_delay_ms = 0; /* Nobody watches the clock here. */
    t->said_len = 0;
    t->given_len = 0;
    size_t content_at = 0;
    uint64_t content_len = 0;
    bh_server_init(&s, &options, false, true);
    bh_server_allow_relay(&s);
    bh_server_start(&s, BH_SERVER_GREET, now);
    drain(&s, t, &content_at, &content_len);
    while (input.len > 0 && bh_server_wants_input(&s)) {
        const struct bh_slice piece = bh_slice_take(input, step);
        bh_server_on_bytes(&s, piece, now);
        input = bh_slice_skip(input, piece.len);
        drain(&s, t, &content_at, &content_len);
    }
    bh_server_on_event(&s, BH_SERVER_LOST, now);
    drain(&s, t, &content_at, &content_len);
    BH_ASSERT(bh_server_commits(&s) == 0);
    t->given_len = content_at < t->given_len ? content_at : t->given_len;
    bh_server_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bh_slice input = bh_slice(data, size);
    run(input, size + 1, &whole);
    for (size_t step = 1; step <= 7; step += 3) {
        run(input, step, &cut);
        BH_ASSERT(
            bh_slice_eq(bh_slice(whole.said, whole.said_len), bh_slice(cut.said, cut.said_len)));
        BH_ASSERT(bh_slice_eq(bh_slice(whole.given, whole.given_len),
                              bh_slice(cut.given, cut.given_len)));
    }
    return 0;
}
