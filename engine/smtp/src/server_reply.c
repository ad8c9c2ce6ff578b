#include <stdio.h>

#include "bh/queue_id.h"
#include "server_internal.h"

static void put(struct bh_server *s, struct bh_slice text)
{
    BH_ASSERT(sizeof(s->out) - s->out_len >= text.len);
    memcpy(s->out + s->out_len, text.ptr, text.len);
    s->out_len += text.len;
}

size_t bh_server_sendable(const struct bh_server *s)
{
    return s->committing_count > 0 ? s->committing[0]->reply_at : s->out_len;
}

bool bh_server_reply_fits(const struct bh_server *s)
{
    return sizeof(s->out) - s->out_len >=
           REPLY_ROOM + LAST_ROOM + (size_t)(s->committing_count + 1) * COMMIT_ROOM;
}

void bh_server_reply_sent(struct bh_server *s)
{
    const size_t sent = s->out_given;
    BH_ASSERT(sent <= bh_server_sendable(s));
    if (sent == 0) {
        return;
    }
    memmove(s->out, s->out + sent, s->out_len - sent);
    s->out_len -= sent;
    for (uint32_t i = 0; i < s->committing_count; i++) {
        s->committing[i]->reply_at -= sent;
    }
    s->out_given = 0;
}

void bh_server_reply_last(struct bh_server *s, const char *text)
{
    put(s, bh_slice_str(text));
    put(s, BH_LIT("\r\n"));
    bh_server_txn_discard(s);
    s->phase = BH_SERVER_PHASE_CLOSING;
    s->in = BH_EMPTY;
}

void bh_server_reply(struct bh_server *s, const char *text)
{
    if (text[0] == '5') {
        s->errors++;
        if (s->options->limits.errors > 0 && s->errors > s->options->limits.errors) {
            bh_server_reply_last(s, "421 4.7.0 Too many errors");
            return;
        }
    }
    put(s, bh_slice_str(text));
    put(s, BH_LIT("\r\n"));
}

void bh_server_reply_ehlo(struct bh_server *s)
{
    char size[32];
    put(s, BH_LIT("250-"));
    put(s, s->options->hostname);
    put(s, BH_LIT("\r\n250-PIPELINING\r\n250-"));
    snprintf(size, sizeof(size), "SIZE %llu", (unsigned long long)s->options->limits.message_size);
    put(s, bh_slice_str(size));
    put(s, BH_LIT("\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n"
                  "250-ENHANCEDSTATUSCODES\r\n"));
    if (s->options->starttls && !s->tls) {
        put(s, BH_LIT("250-STARTTLS\r\n"));
    }
    if (s->tls) {
        put(s, BH_LIT("250-REQUIRETLS\r\n")); /* Inside TLS only (RFC 8689 section 2). */
    }
    if (s->tls && s->options->auth.len > 0) {
        put(s, BH_LIT("250-AUTH "));
        put(s, s->options->auth);
        put(s, BH_LIT("\r\n"));
    }
    put(s, BH_LIT("250 HELP\r\n"));
}

const char *bh_server_commit_text(enum bh_server_commit result)
{
    switch (result) {
    case BH_SERVER_FULL:
        return "452 4.3.1 The queue is full, try again later";
    case BH_SERVER_STOPPING:
        return "451 4.3.2 Going down, try again later";
    case BH_SERVER_NO_ROUTE:
        return "550 5.4.4 No connector serves a recipient";
    case BH_SERVER_FAILED:
    case BH_SERVER_COMMITTED:
        break;
    }
    BH_ASSERT(result == BH_SERVER_FAILED);
    return "451 4.3.0 The message could not be stored, try again later";
}

const char *bh_server_fault_text(enum bh_content_fault fault)
{
    switch (fault) {
    case BH_CONTENT_BARE:
        return "554 5.5.2 Content has a CR or LF on its own; lines end in CRLF";
    case BH_CONTENT_NUL:
        return "554 5.6.0 Content has a NUL octet";
    case BH_CONTENT_TOO_LONG:
        return "554 5.6.0 Content has a line that is too long";
    case BH_CONTENT_TOO_BIG:
        return "552 5.3.4 Message is too big";
    case BH_CONTENT_LOOP:
        return "554 5.4.6 Too many Received lines: a mail loop";
    case BH_CONTENT_FINE:
        break;
    }
    BH_ASSERT(fault != BH_CONTENT_FINE);
    return "";
}

void bh_server_reply_commit(struct bh_server *s, struct bh_server_txn *txn,
                            enum bh_server_commit result, uint64_t queue_id)
{
    char text[COMMIT_ROOM];
    char id[BH_QUEUE_ID_TEXT];
    uint32_t k = 0;
    while (k < s->committing_count && s->committing[k] != txn) {
        k++;
    }
    BH_ASSERT(k < s->committing_count);
    const int printed = result == BH_SERVER_COMMITTED
                            ? snprintf(text, sizeof(text), "250 2.0.0 Ok: queued as %s\r\n",
                                       bh_queue_id_text(queue_id, id))
                            : snprintf(text, sizeof(text), "%s\r\n", bh_server_commit_text(result));
    BH_ASSERT(printed > 0 && (size_t)printed < sizeof(text));
    const size_t len = (size_t)printed;
    const size_t at = txn->reply_at;
    BH_ASSERT(sizeof(s->out) - s->out_len >= len);
    memmove(s->out + at + len, s->out + at, s->out_len - at);
    memcpy(s->out + at, text, len);
    s->out_len += len;
    s->committing_count--;
    for (; k < s->committing_count; k++) {
        s->committing[k] = s->committing[k + 1];
        s->committing[k]->reply_at += len;
    }
}
