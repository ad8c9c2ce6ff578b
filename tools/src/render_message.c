/* How messages look to people: list, show, why. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "render.h"

/* ---- list and show ---- */

/* Its destination's state where that is what it waits for. */
static const char *state_text(const json_t *row)
{
    const char *destination = row_text(row, "destination_state");
    const bool stands = strcmp(destination, "held") == 0 || strcmp(destination, "parked") == 0 ||
                        strcmp(destination, "backoff") == 0 || strcmp(destination, "window") == 0;
    if (strcmp(row_text(row, "state"), "held") != 0 && stands) {
        return destination;
    }
    return row_text(row, row_text(row, "lane")[0] == 'f' ? "lane" : "state");
}

/* Why it is held, or what its destination waits for, or what was said to it last. */
static void entry_text(const json_t *row, char text[LINE])
{
    char outcome[LINE];
    if (row_text(row, "hold_reason")[0] != 0) {
        snprintf(text, LINE, "%s", row_text(row, "hold_reason"));
    } else if (row_text(row, "destination_reason")[0] != 0) {
        snprintf(text, LINE, "%s", row_text(row, "destination_reason"));
    } else {
        const json_t *last = json_object_get(row, "destination_last");
        outcome_text(last != NULL ? last : json_object_get(row, "last"), outcome, sizeof(outcome));
        snprintf(text, LINE, "%s", outcome);
    }
}

void render_list_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"ID",   ">AGE", ">SIZE",  "STATE", "DESTINATION",
                                        "FROM", "TO",   ">TRIES", ">NEXT", "~LAST"};
    char text[TEXT_TIME];
    char to[LINE];
    char last[LINE];
    const json_t *recipients = json_object_get(row, "recipients");
    const char *first = json_string_value(json_array_get(recipients, 0));
    const int64_t count = row_number(row, "recipient_count");
    const char *sender = row_text(row, "sender");
    snprintf(to, sizeof(to), count > 1 ? "%s +%" PRId64 : "%s", first != NULL ? first : "",
             count - 1);
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "id"));
    table_cell(out, render_ago(out, row, "arrival_unix_ms", text));
    table_cell(out, text_size((uint64_t)row_number(row, "size"), text));
    table_cell(out, state_text(row));
    table_cell(out, row_text(row, "destination"));
    table_cell(out, sender[0] != 0 ? sender : "<>");
    table_cell(out, to);
    table_number(out, row_number(row, "attempts"));
    table_cell(out, render_ahead(out, row, "next_unix_ms", text));
    entry_text(row, last);
    table_cell(out, last);
}

static void message_line(struct output *out, const json_t *row)
{
    char text[TEXT_TIME];
    printf("%s from <", row_text(row, "id"));
    put_safe(stdout, row_text(row, "sender"));
    printf(">, accepted ");
    render_time(out, row, "arrival_unix_ms");
    if (row_text(row, "client")[0] != 0) {
        printf(" from %s", row_text(row, "client"));
    }
    printf(", %s\n", text_size((uint64_t)row_number(row, "size"), text));
}

/* Wanted and got, by what is newer: its own last attempt, or sessions of its destination that
 * failed before they had any mail. */
static void tls_text(const json_t *row, char *text, size_t len)
{
    const char *destination = row_text(row, "destination_tls");
    const bool newer =
        row_number(row, "destination_last_unix_ms") > row_number(row, "last_unix_ms");
    text[0] = 0;
    if (destination[0] != 0 && (newer || row_text(row, "tls_wanted")[0] == 0)) {
        snprintf(text, len, "%s", destination);
    } else if (row_text(row, "tls_wanted")[0] != 0) {
        const char *got = row_text(row, "tls_got");
        const char *why = row_text(row, "tls_reason");
        snprintf(text, len, "%s:%s%s%s", row_text(row, "tls_wanted"), got[0] != 0 ? got : "none",
                 why[0] != 0 ? ": " : "", why);
    }
}

static void recipient_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"RECIPIENT", "DESTINATION", "CONNECTOR", "STATE",
                                        ">TRIES",    ">NEXT",       "TLS",       "~LAST"};
    char text[TEXT_TIME];
    char last[LINE];
    char tls[512];
    tls_text(row, tls, sizeof(tls));
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "address"));
    table_cell(out, row_text(row, "destination"));
    table_cell(out, row_text(row, "connector"));
    table_cell(out, row_flag(row, "recipient_uncertain") ? "uncertain" : state_text(row));
    table_number(out, row_number(row, "recipient_attempts"));
    table_cell(out, render_ahead(out, row, "next_unix_ms", text));
    table_cell(out, tls);
    entry_text(row, last);
    table_cell(out, last);
}

/* Content came as one character for each octet: U+0000 to U+00FF. */
static void content_row(const json_t *row)
{
    const json_t *value = json_object_get(row, "latin1");
    const char *text = json_string_value(value);
    const size_t len = json_string_length(value);
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x80 || i + 1 == len) {
            putchar(c);
        } else {
            putchar((c & 0x03) << 6 | ((unsigned char)text[++i] & 0x3f));
        }
    }
}

void render_show_row(struct output *out, const json_t *row)
{
    const char *kind = row_text(row, "kind");
    if (strcmp(kind, "recipient") == 0) {
        recipient_row(out, row);
        return;
    }
    table_flush(out);
    if (strcmp(kind, "content") == 0) {
        content_row(row);
        return;
    }
    out->headed = false;
    message_line(out, row);
    printf("  helo ");
    put_safe(stdout, row_text(row, "helo"));
    if (row_text(row, "user")[0] != '\0') {
        printf("  user ");
        put_safe(stdout, row_text(row, "user"));
    }
    printf("  listener %s  protocol %s  body %s%s%s%s\n", row_text(row, "listener"),
           row_text(row, "protocol"), row_text(row, "body"),
           row_flag(row, "smtputf8") ? " smtputf8" : "",
           row_flag(row, "requiretls") ? " requiretls" : "",
           row_flag(row, "tls_optional") ? " TLS-Required: No" : "");
}

/* ---- why ---- */

static void entry_line(struct output *out, const json_t *row)
{
    char text[TEXT_TIME];
    char line[LINE];
    printf("  to ");
    put_safe(stdout, row_text(row, "recipient"));
    if (row_number(row, "recipient_count") > 1) {
        printf(" and %" PRId64 " more", row_number(row, "recipient_count") - 1);
    }
    printf(" by %s/%s: %s, %" PRId64 " attempt%s", row_text(row, "connector"),
           row_text(row, "destination"), state_text(row), row_number(row, "attempts"),
           render_plural(row_number(row, "attempts")));
    if (row_number(row, "next_unix_ms") != 0) {
        const char *next = render_ahead(out, row, "next_unix_ms", text);
        printf(", next %s%s", strcmp(next, "now") == 0 ? "" : "in ", next);
    }
    printf("\n");
    entry_text(row, line);
    if (line[0] != 0) {
        const char *state = state_text(row);
        const bool own = strcmp(state, row_text(row, "destination_state")) != 0 ||
                         strcmp(row_text(row, "state"), "held") == 0;
        printf("    %s", own ? "last: " : "its destination waits: ");
        put_safe(stdout, line);
        printf("\n");
    }
    if (row_text(row, "limit")[0] != 0) {
        printf("    its destination is limited by: ");
        put_safe(stdout, row_text(row, "limit"));
        printf("\n");
    }
    if (row_text(row, "destination_tls")[0] != 0) {
        printf("    TLS there, wanted:got: ");
        put_safe(stdout, row_text(row, "destination_tls"));
        printf("\n");
    }
}

static void labelled(const char *label, const char *text)
{
    if (text[0] != 0) {
        printf("               %s ", label);
        put_safe(stdout, text);
        printf("\n");
    }
}

static void attempt_lines(struct output *out, const json_t *row)
{
    char line[LINE];
    printf("    ");
    render_time(out, row, "time_unix_ms");
    printf("  round %" PRId64 ", connector %s, %s; generation %" PRId64 "\n",
           row_number(row, "round"), row_text(row, "connector"), row_text(row, "rule"),
           row_number(row, "generation"));
    size_t i;
    const json_t *host;
    json_array_foreach(json_object_get(row, "hosts"), i, host)
    {
        const json_t *outcome = json_object_get(host, "outcome");
        char address[TEXT_TIME + 4] = "";
        if (row_text(outcome, "ip")[0] != 0) {
            snprintf(address, sizeof(address), "[%s]", row_text(outcome, "ip"));
        }
        outcome_text(outcome, line, sizeof(line));
        labelled(address[0] != 0 ? address : "-", line);
    }
    if (row_number(row, "hosts_more") > 0) {
        printf("               and %" PRId64 " more hosts\n", row_number(row, "hosts_more"));
    }
    snprintf(line, sizeof(line), "wanted %s%s%s%s, got %s%s%s", row_text(row, "tls_wanted"),
             row_text(row, "tls_from")[0] != 0 ? " (" : "", row_text(row, "tls_from"),
             row_text(row, "tls_from")[0] != 0 ? ")" : "",
             row_text(row, "tls_got")[0] != 0 ? row_text(row, "tls_got") : "clear text",
             row_text(row, "tls_reason")[0] != 0 ? ": " : "", row_text(row, "tls_reason"));
    labelled("TLS", row_text(row, "tls_wanted")[0] != 0 ? line : "");
    labelled("delayed by", row_text(row, "limit"));
    outcome_text(json_object_get(row, "outcome"), line, sizeof(line));
    labelled("so", line);
    if (row_number(row, "next_unix_ms") != 0) {
        printf("               next ");
        render_time(out, row, "next_unix_ms");
        printf(": ");
        put_safe(stdout, row_text(row, "next_reason"));
        printf("\n");
    }
}

static const char *const ends[] = {"delivered", "bounced", "expired", "cancelled"};

/* For how many recipients this event is such an end. */
static int64_t ended_so(const json_t *row, const char *end)
{
    const char *evt = row_text(row, "evt");
    const int64_t recipients =
        row_number(row, "recipients") > 0 ? row_number(row, "recipients") : 1;
    if (strcmp(evt, "attempt") == 0) {
        return strcmp(row_text(row, "result"), end) == 0 ? 1 : 0;
    }
    if (strcmp(evt, "operator") == 0) {
        const char *verb = row_text(row, "verb");
        return (strcmp(verb, "cancel") == 0 && strcmp(end, "cancelled") == 0) ||
                       (strcmp(verb, "bounce") == 0 && strcmp(end, "bounced") == 0)
                   ? recipients
                   : 0;
    }
    return strcmp(evt, "expired") == 0 && strcmp(end, "expired") == 0 ? recipients : 0;
}

/* The answer for a message that has left: what became of its recipients, by the event log. Its
 * events were kept for this. */
void render_gone(struct output *out)
{
    int64_t counts[COUNT(ends)] = {0};
    char at[TEXT_TIME];
    const json_t *row;
    const char *id = "";
    int64_t last = 0;
    size_t i;
    json_array_foreach(out->kept, i, row)
    {
        for (size_t k = 0; k < COUNT(ends); k++) {
            counts[k] += ended_so(row, ends[k]);
        }
        id = row_text(row, "msg")[0] != 0 ? row_text(row, "msg") : id;
        last = row_number(row, "time") != 0 ? row_number(row, "time") : last;
    }
    printf("%s is not in the queue any more", id);
    const char *separator = ":";
    for (size_t k = 0; k < COUNT(ends); k++) {
        if (counts[k] > 0) {
            printf("%s %s for %" PRId64 " recipient%s", separator, ends[k], counts[k],
                   render_plural(counts[k]));
            separator = ",";
        }
    }
    printf("%s%s\n", last != 0 ? ", last seen " : "",
           last != 0 ? text_time(last, out->now_unix_ms, at) : "");
    printf("  what the event log has of it:\n");
    json_array_foreach(out->kept, i, row)
    {
        render_event(out, row);
    }
    json_array_clear(out->kept);
}

/* Events of a message that is not in the queue: until another's come, or the end. */
static void keep_gone(struct output *out, const json_t *row)
{
    const char *id = row_text(row, "msg");
    const char *before = row_text(json_array_get(out->kept, 0), "msg");
    if (json_array_size(out->kept) > 0 && id[0] != 0 && before[0] != 0 && strcmp(id, before) != 0) {
        render_gone(out);
    }
    json_array_append_new(out->kept, json_deep_copy(row));
}

void render_why_row(struct output *out, const json_t *row)
{
    const char *kind = row_text(row, "kind");
    if (strcmp(kind, "message") == 0) {
        if (json_array_size(out->kept) > 0) {
            render_gone(out);
        }
        message_line(out, row);
        snprintf(out->queued, sizeof(out->queued), "%s", row_text(row, "id"));
        out->in_events = false;
    } else if (strcmp(kind, "entry") == 0) {
        entry_line(out, row);
    } else if (strcmp(kind, "attempt") == 0) {
        attempt_lines(out, row);
    } else if (row_text(row, "msg")[0] != 0 ? strcmp(row_text(row, "msg"), out->queued) != 0
                                            : out->queued[0] == 0) {
        keep_gone(out, row);
    } else {
        printf("%s", out->in_events ? "" : "  what the event log has of it:\n");
        out->in_events = true;
        render_event(out, row);
    }
}
