/* sink_smtp.c - the sink's side of SMTP: takes everything, remembers two header fields, keeps
 * nothing. */
#include "sink.h"

#include <stdio.h>

#define COMMAND_MAX 2048

static void say(struct sink_smtp *s, struct bh_buf *replies, const char *text)
{
    if (bh_buf_add(replies, bh_slice_str(text)) != BH_OK) {
        s->closing = true; /* A peer that pipelines and never reads; sink_smtp_feed leaves room. */
    }
}

static void reset(struct sink_smtp *s)
{
    s->phase = SINK_COMMAND;
    s->mail = false;
    s->recipients = 0;
    s->octets = 0;
    s->at_line_start = true;
    s->after_cr = false;
    s->chunk_last = s->chunk_ignored = false;
    s->in_header = true;
    s->line_len = 0;
    s->id[0] = s->sent[0] = '\0';
}

void sink_smtp_begin(struct sink_smtp *s, struct bh_buf *replies)
{
    reset(s);
    say(s, replies, "220 sink ESMTP\r\n");
}

void sink_smtp_encrypted(struct sink_smtp *s)
{
    reset(s);
    s->greeted = s->starttls = false;
    s->encrypted = true;
}

static void message_done(struct sink_smtp *s, struct bh_buf *replies, bool chunked)
{
    sink_count_message(s, chunked);
    s->messages++;
    say(s, replies, "250 2.0.0 Ok: queued\r\n");
    reset(s);
    if (sink_opt.messages_per_connection > 0 && s->messages >= sink_opt.messages_per_connection) {
        sink_count.ended_connections++;
        say(s, replies, "421 4.4.2 enough messages on this connection\r\n");
        s->closing = true;
    }
}

static void take_field(struct bh_slice line, struct bh_slice name, char *out, size_t cap)
{
    if (bh_slice_starts_nocase(line, name)) {
        const struct bh_slice value =
            bh_slice_take(bh_slice_trim(bh_slice_skip(line, name.len)), cap - 1);
        memcpy(out, value.ptr, value.len);
        out[value.len] = '\0';
    }
}

/* Content in pieces that may end anywhere; `ends` when the piece is the last of a line. */
static void header(struct sink_smtp *s, struct bh_slice piece, bool ends)
{
    if (!s->in_header) {
        return;
    }
    const struct bh_slice kept = bh_slice_take(piece, sizeof(s->line) - s->line_len);
    memcpy(s->line + s->line_len, kept.ptr, kept.len);
    s->line_len += kept.len;
    if (!ends) {
        return;
    }
    struct bh_slice line = bh_slice(s->line, s->line_len);
    while (line.len > 0 && (line.ptr[line.len - 1] == '\r' || line.ptr[line.len - 1] == '\n')) {
        line.len--;
    }
    s->in_header = line.len > 0;
    s->line_len = 0;
    take_field(line, BH_LIT("X-Blast-Id:"), s->id, sizeof(s->id));
    take_field(line, BH_LIT("X-Blast-Time:"), s->sent, sizeof(s->sent));
}

/* DATA, line by line. The end is "." CRLF as a line of its own behind CRLF. */
static size_t feed_data(struct sink_smtp *s, struct bh_slice in, struct bh_buf *replies)
{
    const size_t at = bh_slice_find(in, '\n');
    const bool whole = at < in.len;
    const struct bh_slice line = bh_slice_take(in, whole ? at + 1 : at);
    if (s->at_line_start && !whole && line.len < 3) {
        return 0; /* It may be the end: wait for the rest. */
    }
    if (s->at_line_start && bh_slice_eq(line, BH_LIT(".\r\n"))) {
        message_done(s, replies, false);
        return line.len;
    }
    header(s, line, whole);
    s->octets += line.len - (s->at_line_start && line.ptr[0] == '.');
    const bool crlf = whole && (line.len > 1 ? line.ptr[line.len - 2] == '\r' : s->after_cr);
    s->after_cr = line.ptr[line.len - 1] == '\r';
    s->at_line_start = crlf;
    return line.len;
}

static void chunk_done(struct sink_smtp *s, struct bh_buf *replies)
{
    s->phase = SINK_COMMAND;
    if (s->chunk_ignored) {
        sink_count.bad_commands++;
        say(s, replies, "503 5.5.1 RCPT first\r\n");
    } else if (s->chunk_last) {
        message_done(s, replies, true);
    } else {
        say(s, replies, "250 2.0.0 chunk\r\n");
    }
}

static size_t feed_chunk(struct sink_smtp *s, struct bh_slice in, struct bh_buf *replies)
{
    struct bh_slice chunk = bh_slice_take(in, s->chunk_left);
    const size_t used = chunk.len;
    s->chunk_left -= used;
    s->octets += used;
    while (s->in_header && chunk.len > 0) {
        const size_t at = bh_slice_find(chunk, '\n');
        const struct bh_slice line = bh_slice_take(chunk, at + 1);
        header(s, line, at < chunk.len);
        chunk = bh_slice_skip(chunk, line.len);
    }
    if (s->chunk_left == 0) {
        chunk_done(s, replies);
    }
    return used;
}

static void on_ehlo(struct sink_smtp *s, struct bh_buf *replies)
{
    char text[256];
    reset(s);
    s->greeted = true;
    snprintf(text, sizeof(text),
             "250-sink\r\n%s250-SIZE 104857600\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n%s%s"
             "250 ENHANCEDSTATUSCODES\r\n",
             sink_opt.no_pipelining ? "" : "250-PIPELINING\r\n",
             sink_opt.no_chunking ? "" : "250-CHUNKING\r\n",
             sink_opt.tls && !s->encrypted ? "250-STARTTLS\r\n" : "");
    say(s, replies, text);
}

static void on_rcpt(struct sink_smtp *s, struct bh_buf *replies)
{
    if (!s->mail) {
        sink_count.bad_commands++;
        say(s, replies, "503 5.5.1 MAIL first\r\n");
    } else if (!sink_count_rate()) {
        say(s, replies, "450 4.7.1 too many messages, slow down\r\n");
    } else {
        s->recipients++;
        say(s, replies, "250 2.1.5 Ok\r\n");
    }
}

static void on_bdat(struct sink_smtp *s, struct bh_slice arguments, struct bh_buf *replies)
{
    const struct bh_slice size = bh_slice_word(&arguments);
    const struct bh_slice last = bh_slice_word(&arguments);
    if (!bh_slice_u64(size, UINT64_C(1) << 40, &s->chunk_left) ||
        (last.len > 0 && !bh_slice_eq_nocase(last, BH_LIT("LAST")))) {
        sink_count.bad_commands++;
        say(s, replies, "501 5.5.4 bad BDAT\r\n");
        s->closing = true; /* Nobody knows where the chunk ends. */
        return;
    }
    s->chunk_last = last.len > 0;
    s->chunk_ignored = s->recipients == 0;
    s->phase = SINK_CHUNK;
    if (s->chunk_left == 0) {
        chunk_done(s, replies);
    }
}

static void on_command(struct sink_smtp *s, struct bh_slice line, struct bh_buf *replies)
{
    struct bh_slice rest = line;
    const struct bh_slice verb = bh_slice_word(&rest);
    if (bh_slice_eq_nocase(verb, BH_LIT("MAIL"))) {
        const bool good = s->greeted && !s->mail;
        sink_count.bad_commands += !good;
        if (good) {
            reset(s);
            s->mail = true;
        }
        say(s, replies, good ? "250 2.1.0 Ok\r\n" : "503 5.5.1 bad sequence\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("RCPT"))) {
        on_rcpt(s, replies);
    } else if (bh_slice_eq_nocase(verb, BH_LIT("DATA"))) {
        s->phase = s->recipients > 0 ? SINK_DATA : SINK_COMMAND;
        say(s, replies,
            s->recipients > 0 ? "354 go ahead\r\n" : "554 5.5.1 no valid recipients\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("BDAT"))) {
        on_bdat(s, rest, replies);
    } else if (bh_slice_eq_nocase(verb, BH_LIT("EHLO"))) {
        on_ehlo(s, replies);
    } else if (bh_slice_eq_nocase(verb, BH_LIT("RSET"))) {
        reset(s);
        say(s, replies, "250 2.0.0 Ok\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("NOOP"))) {
        say(s, replies, "250 2.0.0 Ok\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("HELO"))) {
        reset(s);
        s->greeted = true;
        say(s, replies, "250 sink\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("STARTTLS")) && sink_opt.tls && !s->encrypted) {
        s->starttls = true;
        say(s, replies, "220 2.0.0 Ready to start TLS\r\n");
    } else if (bh_slice_eq_nocase(verb, BH_LIT("QUIT"))) {
        s->closing = true;
        say(s, replies, "221 2.0.0 Bye\r\n");
    } else {
        sink_count.bad_commands++;
        say(s, replies, "500 5.5.2 unknown command\r\n");
    }
}

static size_t feed_command(struct sink_smtp *s, struct bh_slice in, struct bh_buf *replies)
{
    const size_t at = bh_slice_find(in, '\n');
    if (at == in.len) {
        if (in.len > COMMAND_MAX) {
            say(s, replies, "500 5.5.2 line too long\r\n");
            s->closing = true;
        }
        return 0;
    }
    const bool crlf = at > 0 && in.ptr[at - 1] == '\r';
    on_command(s, bh_slice_take(in, crlf ? at - 1 : at), replies);
    return at + 1;
}

size_t sink_smtp_feed(struct sink_smtp *s, struct bh_slice in, struct bh_buf *replies)
{
    struct bh_slice rest = in;
    while (rest.len > 0 && !s->closing && !s->starttls && bh_buf_room(replies) > 1024) {
        size_t used = 0;
        switch (s->phase) {
        case SINK_COMMAND:
            used = feed_command(s, rest, replies);
            break;
        case SINK_DATA:
            used = feed_data(s, rest, replies);
            break;
        case SINK_CHUNK:
            used = feed_chunk(s, rest, replies);
            break;
        }
        if (used == 0) {
            break;
        }
        rest = bh_slice_skip(rest, used);
    }
    return in.len - rest.len;
}
