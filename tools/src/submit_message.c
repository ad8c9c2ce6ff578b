/* The message of `submit`: line ends, recipients out of its header, fields that must be there. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bh/date.h"
#include "submit.h"

#define MESSAGE_MAX ((size_t)1 << 30)

static bool grow(struct submit *s, size_t *cap, size_t need)
{
    if (need > MESSAGE_MAX) {
        return false;
    }
    if (need > *cap) {
        const size_t wanted = need > *cap * 2 ? need : *cap * 2;
        char *message = realloc(s->message, wanted);
        if (message == NULL) {
            return false;
        }
        s->message = message;
        *cap = wanted;
    }
    return true;
}

/* One line without its LF; a CR before the LF is dropped, and put back with it. */
static bool add_line(struct submit *s, size_t *cap, const char *line, size_t len)
{
    if (len > 0 && line[len - 1] == '\r') {
        len--;
    }
    if (!grow(s, cap, s->message_len + len + 2)) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        s->has_8bit = s->has_8bit || (unsigned char)line[i] > 127;
        /* A CR within a line would end it for some servers, and be refused by ours. */
        s->message[s->message_len++] = line[i] == '\r' ? ' ' : line[i];
    }
    s->message[s->message_len++] = '\r';
    s->message[s->message_len++] = '\n';
    return true;
}

int message_read(struct submit *s, FILE *file, bool dot_ends)
{
    char *line = NULL;
    size_t line_cap = 0;
    size_t cap = 0;
    int code = EX_OK;
    for (ssize_t len; code == EX_OK && (len = getline(&line, &line_cap, file)) > 0;) {
        len -= line[len - 1] == '\n' ? 1 : 0;
        if (dot_ends && len == 1 && line[0] == '.') {
            break;
        }
        if (!add_line(s, &cap, line, (size_t)len)) {
            fprintf(stderr, "bhctl: submit: no memory for the message\n");
            code = EX_TEMPFAIL;
        }
    }
    free(line);
    if (code == EX_OK && ferror(file) != 0) {
        perror("bhctl: submit: the message could not be read");
        code = EX_NOINPUT;
    }
    return code;
}

/* The next header field with its continuations, CRLFs included; an empty slice at its end. */
static struct bh_slice next_field(struct bh_slice *rest)
{
    size_t len = 0;
    if (rest->len == 0 || bh_slice_starts(*rest, BH_LIT("\r\n"))) {
        return bh_slice_take(*rest, 0);
    }
    do {
        const struct bh_slice line = bh_slice_skip(*rest, len);
        len += bh_slice_find(line, '\n') + 1;
    } while (len < rest->len && (rest->ptr[len] == ' ' || rest->ptr[len] == '\t'));
    const struct bh_slice field = bh_slice_take(*rest, len);
    *rest = bh_slice_skip(*rest, field.len);
    return field;
}

static bool field_is(struct bh_slice field, const char *name)
{
    const struct bh_slice n = bh_slice_str(name);
    return bh_slice_starts_nocase(field, n) &&
           bh_slice_starts(bh_slice_trim(bh_slice_skip(field, n.len)), BH_LIT(":"));
}

int submit_add_recipient(struct submit *s, const char *address, size_t len)
{
    bool good = len > 0 && len <= BH_ADDRESS_MAX;
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)address[i];
        good = good && c > ' ' && c != 0x7f && c != '<' && c != '>';
    }
    if (!good || s->recipients_count == SUBMIT_RECIPIENTS_MAX) {
        fprintf(stderr, "bhctl: submit: %s\n",
                good ? "too many recipients" : "a recipient that is no address");
        return EX_USAGE;
    }
    const bool local = memchr(address, '@', len) == NULL;
    const size_t size = len + 1 + (local ? strlen(s->host) + 1 : 0);
    char *copy = malloc(size);
    if (copy == NULL) {
        return EX_TEMPFAIL;
    }
    snprintf(copy, size, "%.*s%s%s", (int)len, address, local ? "@" : "", local ? s->host : "");
    s->recipients[s->recipients_count++] = copy;
    return EX_OK;
}

/* What an address list is cut into: RFC 5322 3.4 without its obsolete forms. */
struct list {
    char address[BH_ADDRESS_MAX + 1];
    size_t len;
    bool angle;    /* the address is the one in <>; what was before it is a name */
    bool too_long; /* more octets than an address has: fine for a name only */
    int code;
};

static void end_address(struct list *l, struct submit *s)
{
    if (l->too_long) {
        fprintf(stderr, "bhctl: submit: an address in the header is too long\n");
        l->code = EX_DATAERR;
    } else if (l->len > 0 && l->code == EX_OK) {
        l->code = submit_add_recipient(s, l->address, l->len);
    }
    l->len = 0;
    l->too_long = false;
    l->angle = false;
}

static void add_octet(struct list *l, char c)
{
    if (l->len < BH_ADDRESS_MAX) {
        l->address[l->len++] = c;
    } else {
        l->too_long = true;
    }
}

/* What came so far was a name, not an address. */
static void forget_name(struct list *l)
{
    l->len = 0;
    l->too_long = false;
}

/* Skip a comment, which may hold others. @return the index behind it */
static size_t skip_comment(struct bh_slice text, size_t i)
{
    size_t depth = 0;
    for (; i < text.len; i++) {
        if (text.ptr[i] == '\\') {
            i++;
        } else if (text.ptr[i] == '(') {
            depth++;
        } else if (text.ptr[i] == ')' && --depth == 0) {
            return i + 1;
        }
    }
    return text.len;
}

/* Take a quoted string with its quotes. @return the index behind it */
static size_t take_quoted(struct list *l, struct bh_slice text, size_t i)
{
    add_octet(l, '"');
    for (i++; i < text.len; i++) {
        const char c = text.ptr[i];
        add_octet(l, c);
        if (c == '\\' && i + 1 < text.len) {
            add_octet(l, text.ptr[++i]);
        } else if (c == '"') {
            return i + 1;
        }
    }
    return i;
}

static int add_list(struct submit *s, struct bh_slice text)
{
    struct list l = {.code = EX_OK};
    bool closed = false; /* behind a '>': nothing counts until the comma */
    for (size_t i = 0; i < text.len && l.code == EX_OK;) {
        const char c = text.ptr[i];
        if (c == '(') {
            i = skip_comment(text, i);
            continue;
        }
        if (c == '"') {
            struct list name = {.code = EX_OK};
            i = take_quoted(closed ? &name : &l, text, i);
            if (!l.angle && i < text.len && text.ptr[i] != '@') {
                forget_name(&l);
            }
            continue;
        }
        if (c == ',' || c == ';') {
            end_address(&l, s);
            closed = false;
        } else if (c == '<') {
            forget_name(&l);
            l.angle = true;
        } else if (c == ':' && !l.angle) {
            forget_name(&l); /* Of a group. */
        } else if (c == '>') {
            closed = true;
        } else if (c != ' ' && c != '\t' && c != '\r' && c != '\n' && !closed) {
            add_octet(&l, c);
        }
        i++;
    }
    end_address(&l, s);
    return l.code;
}

int message_take_recipients(struct submit *s)
{
    struct bh_slice rest = bh_slice(s->message, s->message_len);
    size_t kept = 0;
    int code = EX_OK;
    if (rest.len == 0) {
        return EX_OK; /* Not one line: there is no memory behind it either. */
    }
    for (struct bh_slice f; code == EX_OK && (f = next_field(&rest)).len > 0;) {
        const bool bcc = field_is(f, "bcc");
        if (bcc || field_is(f, "to") || field_is(f, "cc")) {
            code = add_list(s, bh_slice_skip(f, bh_slice_find(f, ':') + 1));
        }
        if (!bcc) {
            memmove(s->message + kept, f.ptr, f.len);
            kept += f.len;
        }
    }
    memmove(s->message + kept, rest.ptr, rest.len);
    s->message_len = kept + rest.len;
    return code;
}

int message_complete(struct submit *s)
{
    bool date = false;
    bool id = false;
    bool from = false;
    bool any = false;
    struct bh_slice rest = bh_slice(s->message, s->message_len);
    for (struct bh_slice f; (f = next_field(&rest)).len > 0; any = true) {
        /* Without a colon it is no header at all: the text starts here. */
        if (bh_slice_find(f, ':') == f.len) {
            break;
        }
        date = date || field_is(f, "date");
        id = id || field_is(f, "message-id");
        from = from || field_is(f, "from");
    }
    const bool ended = any || bh_slice_starts(rest, BH_LIT("\r\n"));
    const int64_t now = now_ms();
    char when[BH_DATE_TEXT];
    char added[1200];
    char sender[BH_ADDRESS_MAX + 1];
    snprintf(sender, sizeof(sender), "%s%.255s",
             s->sender[0] != '\0' ? s->sender : "MAILER-DAEMON@",
             s->sender[0] != '\0' ? "" : s->host); /* <> is no author (RFC 5322 3.6.2) */
    const int len = snprintf(added, sizeof(added), "%s%s%s%s%s%s%s",
                             date ? "" : "Date: ", date ? "" : bh_date_mail(now, when),
                             date ? "" : "\r\n", from ? "" : "From: <", from ? "" : sender,
                             from ? "" : ">\r\n", ended ? "" : "\r\n");
    char message_id[400] = "";
    if (!id) {
        snprintf(message_id, sizeof(message_id), "Message-ID: <%" PRId64 ".%ld@%.255s>\r\n", now,
                 (long)getpid(), s->host);
    }
    const size_t id_len = strlen(message_id);
    const size_t more = (size_t)len + id_len;
    char *message = malloc(more + s->message_len + 1);
    if (message == NULL || len < 0 || (size_t)len >= sizeof(added)) {
        free(message);
        return EX_TEMPFAIL;
    }
    memcpy(message, message_id, id_len);
    memcpy(message + id_len, added, (size_t)len);
    if (s->message_len > 0) {
        memcpy(message + more, s->message, s->message_len);
    }
    free(s->message);
    s->message = message;
    s->message_len += more;
    return EX_OK;
}
