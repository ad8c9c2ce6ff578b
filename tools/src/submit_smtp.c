/* A small SMTP client that waits for each reply: local, one message, no TLS. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bh/utf8.h"
#include "submit.h"

#define REPLY_TIMEOUT_MS (5 * 60 * 1000) /* RFC 5321 4.5.3.2 */
#define REPLY_MAX 4096                   /* octets of a line */

struct session {
    int fd;
    char in[REPLY_MAX];
    size_t in_len;
    size_t in_at;   /* taken of it */
    char text[512]; /* the last line of the last reply */
    bool dsn, eightbit, smtputf8;
};

static bool send_all(struct session *s, const char *octets, size_t len)
{
    while (len > 0) {
        const ssize_t sent = send(s->fd, octets, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        octets += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* The next line without its CRLF. @return false: the connection is lost, too slow or not SMTP */
static bool read_line(struct session *s, struct bh_slice *line)
{
    memmove(s->in, s->in + s->in_at, s->in_len - s->in_at);
    s->in_len -= s->in_at;
    s->in_at = 0;
    while (true) {
        const struct bh_slice all = bh_slice(s->in, s->in_len);
        const size_t end = bh_slice_find(all, '\n');
        if (end < all.len) {
            *line = bh_slice_take(all, end > 0 && all.ptr[end - 1] == '\r' ? end - 1 : end);
            s->in_at = end + 1;
            return true;
        }
        struct pollfd ready = {.fd = s->fd, .events = POLLIN};
        if (s->in_len == sizeof(s->in) || poll(&ready, 1, REPLY_TIMEOUT_MS) <= 0) {
            return false;
        }
        const ssize_t got = read(s->fd, s->in + s->in_len, sizeof(s->in) - s->in_len);
        if (got <= 0) {
            return false;
        }
        s->in_len += (size_t)got;
    }
}

static void note_extension(struct session *s, struct bh_slice line)
{
    s->dsn = s->dsn || bh_slice_eq_nocase(line, BH_LIT("DSN"));
    s->eightbit = s->eightbit || bh_slice_eq_nocase(line, BH_LIT("8BITMIME"));
    s->smtputf8 = s->smtputf8 || bh_slice_eq_nocase(line, BH_LIT("SMTPUTF8"));
}

/* A whole reply. @return its code, 0: none came */
static int read_reply(struct session *s, bool ehlo)
{
    struct bh_slice line;
    uint64_t code = 0;
    while (read_line(s, &line)) {
        if (line.len < 3 || !bh_slice_u64(bh_slice_take(line, 3), 599, &code) || code < 200) {
            return 0;
        }
        if (ehlo && line.len > 4) {
            note_extension(s, bh_slice_skip(line, 4));
        }
        if (line.len == 3 || line.ptr[3] != '-') {
            snprintf(s->text, sizeof(s->text), "%.*s",
                     BH_FMT(bh_slice_take(line, sizeof(s->text) - 1)));
            return (int)code;
        }
    }
    return 0;
}

static int command(struct session *s, const char *format, ...) BH_PRINTF(2, 3);

static int command(struct session *s, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(line, sizeof(line) - 2, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(line) - 2) {
        return 0;
    }
    memcpy(line + len, "\r\n", 2);
    return send_all(s, line, (size_t)len + 2)
               ? read_reply(s, bh_slice_starts(bh_slice_str(line), BH_LIT("EHLO")))
               : 0;
}

static int complain(const struct session *s, int code, const char *about, int refused)
{
    fprintf(stderr, "bhctl: submit: %s: ", about);
    put_safe(stderr, code != 0 ? s->text : "the connection was lost");
    fputs("\n", stderr);
    return code < 500 ? EX_TEMPFAIL : refused; /* 0: no reply came. */
}

/* xtext of RFC 3461 section 4. */
static void put_xtext(const char *text, char *out, size_t len)
{
    size_t at = 0;
    for (; *text != 0 && at + 4 < len; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c > ' ' && c < 0x7f && c != '+' && c != '=') {
            out[at++] = (char)c;
        } else {
            snprintf(out + at, 4, "+%02X", c);
            at += 3;
        }
    }
    out[at] = 0;
}

static bool needs_smtputf8(const struct submit *m)
{
    bool needs = !bh_is_ascii(bh_slice_str(m->sender));
    for (size_t i = 0; i < m->recipients_count; i++) {
        needs = needs || !bh_is_ascii(bh_slice_str(m->recipients[i]));
    }
    const struct bh_slice all = bh_slice(m->message, m->message_len);
    return needs || !bh_is_ascii(bh_slice_take(all, bh_slice_find_slice(all, BH_LIT("\r\n\r\n"))));
}

static int mail_from(struct session *s, const struct submit *m)
{
    char envid[3 * BH_ENVID_MAX + 16] = "";
    const bool utf8 = s->smtputf8 && needs_smtputf8(m);
    if (m->envid != NULL && s->dsn) {
        snprintf(envid, sizeof(envid), " ENVID=");
        put_xtext(m->envid, envid + strlen(envid), sizeof(envid) - strlen(envid));
    }
    return command(s, "MAIL FROM:<%s>%s%s%s%s%s", m->sender,
                   m->has_8bit && s->eightbit ? " BODY=8BITMIME" : "", utf8 ? " SMTPUTF8" : "",
                   m->ret != NULL && s->dsn ? " RET=" : "", m->ret != NULL && s->dsn ? m->ret : "",
                   envid);
}

/* The content, with a dot put before each line that starts with one. */
static bool send_content(struct session *s, const struct submit *m)
{
    struct bh_slice rest = bh_slice(m->message, m->message_len);
    while (rest.len > 0) {
        if (rest.ptr[0] == '.' && !send_all(s, ".", 1)) {
            return false;
        }
        /* On to the next line that starts with a dot. */
        const size_t len = bh_slice_find_slice(rest, BH_LIT("\n."));
        const size_t count = len < rest.len ? len + 1 : rest.len;
        if (!send_all(s, rest.ptr, count)) {
            return false;
        }
        rest = bh_slice_skip(rest, count);
    }
    return send_all(s, ".\r\n", 3);
}

/* All recipients are taken, or nothing is sent. */
static int recipients(struct session *s, const struct submit *m)
{
    int worst = EX_OK;
    for (size_t i = 0; i < m->recipients_count; i++) {
        const int code = command(s, "RCPT TO:<%s>%s%s", m->recipients[i],
                                 m->notify != NULL && s->dsn ? " NOTIFY=" : "",
                                 m->notify != NULL && s->dsn ? m->notify : "");
        if (code / 100 != 2) {
            const int result = complain(s, code, m->recipients[i], EX_NOUSER);
            worst = worst == EX_NOUSER ? EX_NOUSER : result;
        }
        if (code == 0) {
            break;
        }
    }
    return worst;
}

static int transaction(struct session *s, const struct submit *m)
{
    int code = read_reply(s, false);
    if (code != 220) {
        return complain(s, code, "greeting", EX_UNAVAILABLE);
    }
    code = command(s, "EHLO %s", m->host);
    if (code != 250) {
        return complain(s, code, "EHLO", EX_UNAVAILABLE);
    }
    code = mail_from(s, m);
    if (code != 250) {
        return complain(s, code, "sender", EX_UNAVAILABLE);
    }
    const int result = recipients(s, m);
    if (result != EX_OK) {
        return result;
    }
    code = command(s, "DATA");
    if (code != 354) {
        return complain(s, code, "DATA", EX_UNAVAILABLE);
    }
    code = send_content(s, m) ? read_reply(s, false) : 0;
    if (code / 100 != 2) {
        return complain(s, code, "message", EX_UNAVAILABLE);
    }
    return EX_OK;
}

int smtp_send(int fd, const struct submit *s)
{
    struct session session = {.fd = fd};
    const int result = transaction(&session, s);
    if (result == EX_OK && isatty(STDOUT_FILENO)) {
        put_safe(stdout, session.text); /* It names the queue id. */
        fputs("\n", stdout);
    }
    command(&session, "QUIT"); /* Its reply changes nothing. */
    return result;
}
