/* How each verb's rows look to people. The first line answers the question; times are relative. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

#define LINE 1024

/* "2 h 10 m" since then, or in time for what is ahead; "" for no time. */
static const char *ago(const struct output *out, const json_t *row, const char *key,
                       char text[TEXT_TIME])
{
    const int64_t at = row_number(row, key);
    text[0] = 0;
    return at == 0 ? text : text_span(out->now_unix_ms - at, text);
}

static const char *ahead(const struct output *out, const json_t *row, const char *key,
                         char text[TEXT_TIME])
{
    const int64_t at = row_number(row, key);
    text[0] = 0;
    if (at == 0) {
        return text;
    }
    return at <= out->now_unix_ms ? "now" : text_span(at - out->now_unix_ms, text);
}

static void put_time(const struct output *out, const json_t *row, const char *key)
{
    char text[TEXT_TIME];
    const int64_t at = row_number(row, key);
    if (at != 0) {
        fputs(text_time(at, out->now_unix_ms, text), stdout);
    }
}

/* ---- queue and status ---- */

/* Why it stands, or what was said last. */
static void last_text(const struct output *out, const json_t *row, char text[LINE])
{
    const char *limit = row_text(row, "limit");
    const char *carrier = row_text(row, "carrier");
    char outcome[LINE / 2];
    outcome_text(json_object_get(row, "last"), outcome, sizeof(outcome));
    if (row_text(row, "park_reason")[0] != 0) {
        snprintf(text, LINE, "parked: %s", row_text(row, "park_reason"));
    } else if (strcmp(row_text(row, "state"), "held") == 0) {
        snprintf(text, LINE, "held: %s", row_text(row, "hold_reason"));
    } else if (row_number(row, "window_opens_unix_ms") != 0) {
        char at[TEXT_TIME];
        snprintf(text, LINE, "window opens %s",
                 text_time(row_number(row, "window_opens_unix_ms"), out->now_unix_ms, at));
    } else if (carrier[0] != 0) {
        snprintf(text, LINE, "carried by %s   %s%s%s", carrier, outcome,
                 limit[0] != 0 ? "   limited by: " : "", limit);
    } else {
        snprintf(text, LINE, "%s%s%s", outcome, limit[0] != 0 ? "   limited by: " : "", limit);
    }
}

static void queue_row(struct output *out, const json_t *row)
{
    static const char *const wide[] = {
        "DESTINATION", "CONNECTOR", "STATE", ">MSGS", ">OLDEST", ">\u22645m", ">\u22641h",
        ">\u22644h",   ">\u22641d", ">>1d",  ">NEXT", "TLS",     "~LAST"};
    static const char *const plain[] = {"DESTINATION", "CONNECTOR", "STATE", ">MSGS", ">OLDEST",
                                        ">5m",         ">1h",       ">4h",   ">1d",   ">>1d",
                                        ">NEXT",       "TLS",       "~LAST"};
    char text[TEXT_TIME];
    char last[LINE];
    table_columns(out, out->utf8 ? wide : plain, COUNT(wide));
    table_cell(out, row_text(row, "domain"));
    table_cell(out, row_text(row, "connector"));
    table_cell(out, row_text(row, "state"));
    table_number(out, row_number(row, "messages"));
    table_cell(out, ago(out, row, "oldest_unix_ms", text));
    const json_t *ages = json_object_get(row, "ages");
    for (size_t i = 0; i < 5; i++) {
        table_number(out, (int64_t)json_integer_value(json_array_get(ages, i)));
    }
    table_cell(out, ahead(out, row, "next_unix_ms", text));
    table_cell(out, row_text(row, "tls"));
    last_text(out, row, last);
    table_cell(out, last);
}

static void put_total_line(const struct output *out, const json_t *end, bool running)
{
    char since[TEXT_TIME];
    char messages[TEXT_TIME];
    char destinations[TEXT_TIME];
    const char *head = !running                         ? "engine not running."
                       : row_flag(end, "intake_paused") ? "intake paused,"
                                                        : "delivering:";
    printf("%s %s queued in %s destination%s", head,
           text_count((uint64_t)row_number(end, "messages"), messages),
           text_count((uint64_t)row_number(end, "destinations"), destinations),
           row_number(end, "destinations") == 1 ? "" : "s");
    if (running) {
        printf(", %" PRId64 " connections", row_number(end, "connections"));
    }
    printf(", %" PRId64 " backing off, %" PRId64 " held, %" PRId64 " parked\n",
           row_number(end, "destinations_backoff"), row_number(end, "destinations_held"),
           row_number(end, "destinations_parked"));
    if (row_flag(end, "intake_paused") && row_text(end, "paused_by")[0] != '\0') {
        printf("intake is paused by ");
        put_safe(stdout, row_text(end, "paused_by"));
        printf(" since %s",
               text_time(row_number(end, "paused_since_unix_ms"), out->now_unix_ms, since));
        if (row_text(end, "paused_reason")[0] != '\0') {
            printf(": ");
            put_safe(stdout, row_text(end, "paused_reason"));
        }
        printf("\n");
    }
    if (row_number(end, "suspects_refused") > 0) {
        const bool one = row_number(end, "suspects_refused") == 1;
        printf("attention  intake: %" PRId64 " envelope%s 451 until %s: receiving %s ended the "
               "engine twice. Its log names the sender: evt=suspect_refused\n",
               row_number(end, "suspects_refused"), one ? " gets" : "s get",
               text_time(row_number(end, "suspects_until_unix_ms"), out->now_unix_ms, since),
               one ? "it" : "them");
    }
}

static void status_end(struct output *out, const json_t *end, bool running)
{
    put_total_line(out, end, running);
    size_t i;
    const json_t *row;
    json_array_foreach(out->kept, i, row)
    {
        char oldest[TEXT_TIME];
        char last[LINE];
        if (strcmp(row_text(row, "kind"), "posture") == 0) {
            printf("tls worse  ");
            put_safe(stdout, row_text(row, "host"));
            printf(": ");
            put_safe(stdout, row_text(row, "text"));
            printf("\n");
            continue;
        }
        last_text(out, row, last);
        printf("attention  ");
        put_safe(stdout, row_text(row, "connector"));
        printf("/");
        put_safe(stdout, row_text(row, "domain"));
        printf(": %s, %" PRId64 " messages, oldest %s", row_text(row, "state"),
               row_number(row, "messages"), ago(out, row, "oldest_unix_ms", oldest));
        if (last[0] != 0) {
            printf(": ");
            put_safe(stdout, last);
        }
        printf("\n");
    }
    const int64_t more = row_number(end, "attention") - (int64_t)json_array_size(out->kept);
    if (more > 0) {
        printf("and %" PRId64 " more: bhctl queue\n", more);
    }
}

static void queue_end(struct output *out, const json_t *end, bool running)
{
    table_flush(out);
    put_total_line(out, end, running);
    if (row_number(end, "shown") < row_number(end, "destinations")) {
        printf("the largest %" PRId64 " are shown: --top N shows more\n", row_number(end, "shown"));
    }
}

/* ---- list and show ---- */

static void list_row(struct output *out, const json_t *row)
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
    table_cell(out, ago(out, row, "arrival_unix_ms", text));
    table_cell(out, text_size((uint64_t)row_number(row, "size"), text));
    table_cell(out, row_text(row, row_text(row, "lane")[0] == 'f' ? "lane" : "state"));
    table_cell(out, row_text(row, "destination"));
    table_cell(out, sender[0] != 0 ? sender : "<>");
    table_cell(out, to);
    table_number(out, row_number(row, "attempts"));
    table_cell(out, ahead(out, row, "due_unix_ms", text));
    outcome_text(json_object_get(row, "last"), last, sizeof(last));
    table_cell(out, row_text(row, "hold_reason")[0] != 0 ? row_text(row, "hold_reason") : last);
}

static void message_line(struct output *out, const json_t *row)
{
    char text[TEXT_TIME];
    printf("%s from <", row_text(row, "id"));
    put_safe(stdout, row_text(row, "sender"));
    printf(">, accepted ");
    put_time(out, row, "arrival_unix_ms");
    if (row_text(row, "client")[0] != 0) {
        printf(" from %s", row_text(row, "client"));
    }
    printf(", %s\n", text_size((uint64_t)row_number(row, "size"), text));
}

static void recipient_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"RECIPIENT", "DESTINATION", "CONNECTOR", "STATE",
                                        ">TRIES",    ">NEXT",       "~LAST"};
    char text[TEXT_TIME];
    char last[LINE];
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "address"));
    table_cell(out, row_text(row, "destination"));
    table_cell(out, row_text(row, "connector"));
    table_cell(out, row_flag(row, "recipient_uncertain") ? "uncertain" : row_text(row, "state"));
    table_number(out, row_number(row, "recipient_attempts"));
    table_cell(out, ahead(out, row, "due_unix_ms", text));
    outcome_text(json_object_get(row, "last"), last, sizeof(last));
    table_cell(out, row_text(row, "hold_reason")[0] != 0 ? row_text(row, "hold_reason") : last);
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

static void show_row(struct output *out, const json_t *row)
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
    printf("  to ");
    put_safe(stdout, row_text(row, "recipient"));
    if (row_number(row, "recipient_count") > 1) {
        printf(" and %" PRId64 " more", row_number(row, "recipient_count") - 1);
    }
    printf(" by %s/%s: %s, attempts %" PRId64, row_text(row, "connector"),
           row_text(row, "destination"),
           row_text(row, row_text(row, "lane")[0] == 'f' ? "lane" : "state"),
           row_number(row, "attempts"));
    if (row_number(row, "due_unix_ms") != 0) {
        const char *due = ahead(out, row, "due_unix_ms", text);
        printf(", due %s%s", strcmp(due, "now") == 0 ? "" : "in ", due);
    }
    printf("; destination %s", row_text(row, "destination_state"));
    if (row_text(row, "reason")[0] != 0) {
        printf(" (");
        put_safe(stdout, row_text(row, "reason"));
        printf(")");
    }
    printf("\n");
    if (row_number(row, "attempts") == 0 && row_number(row, "tried_unix_ms") == 0) {
        printf("    not tried yet\n");
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
    put_time(out, row, "time_unix_ms");
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
        put_time(out, row, "next_unix_ms");
        printf(": ");
        put_safe(stdout, row_text(row, "next_reason"));
        printf("\n");
    }
}

static void why_row(struct output *out, const json_t *row)
{
    const char *kind = row_text(row, "kind");
    if (strcmp(kind, "message") == 0) {
        message_line(out, row);
        out->in_events = false;
    } else if (strcmp(kind, "entry") == 0) {
        entry_line(out, row);
    } else if (strcmp(kind, "attempt") == 0) {
        attempt_lines(out, row);
    } else {
        printf("%s", out->in_events ? "" : "  what the event log has of it:\n");
        out->in_events = true;
        render_event(out, row);
    }
}

/* ---- connectors and explain ---- */

static void join(const json_t *list, char *text, size_t len)
{
    size_t at = 0;
    size_t i;
    const json_t *item;
    text[0] = 0;
    json_array_foreach(list, i, item)
    {
        const int n =
            snprintf(text + at, len - at, "%s%s", i > 0 ? " " : "", json_string_value(item));
        if (n < 0 || (size_t)n >= len - at) {
            return;
        }
        at += (size_t)n;
    }
}

/* All settings, or those that decide most and those that somebody set. */
static void put_settings(struct output *out, const json_t *row, bool all)
{
    static const char *const names[] = {"SETTING", "VALUE", "FROM"};
    static const char *const always[] = {"tls", "retry", "limits"};
    json_t *settings = json_object_get(json_object_get(row, "settings"), "settings");
    const char *key;
    const json_t *setting;
    table_flush(out);
    table_restart(out);
    json_object_foreach(settings, key, setting)
    {
        bool shown = all || strcmp(row_text(setting, "from"), "built-in") != 0;
        for (size_t i = 0; i < COUNT(always) && !shown; i++) {
            shown = strncmp(key, always[i], strlen(always[i])) == 0;
        }
        if (!shown || json_is_null(json_object_get(setting, "value"))) {
            continue;
        }
        table_columns(out, names, COUNT(names));
        table_cell(out, key);
        table_cell(out, row_text(setting, "value"));
        table_cell(out, row_text(setting, "from"));
    }
    table_flush(out);
    table_restart(out);
}

static void connectors_row(struct output *out, const json_t *row)
{
    if (strcmp(row_text(row, "kind"), "partner") == 0) {
        render_partner_row(out, row);
        return;
    }
    static const char *const names[] = {"CONNECTOR", "STATE", "DOMAINS", "ROUTE",
                                        "TLS",       "RETRY", "~NOTE"};
    char domains[LINE];
    const char *parked = row_text(row, "park_reason");
    join(json_object_get(row, "domains"), domains, sizeof(domains));
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "connector"));
    table_cell(out, row_flag(row, "parked") ? "PARKED" : row_text(row, "state"));
    table_cell(out, domains);
    table_cell(out, row_text(row, "route"));
    table_cell(out, row_text(row, "tls"));
    table_cell(out, row_text(row, "retry")[0] != 0 ? row_text(row, "retry") : "own");
    table_cell(out, parked[0] != 0 ? parked : row_text(row, "reason"));
    if (json_object_get(row, "settings") != NULL) {
        put_settings(out, row, true);
    }
}

/* One host of the way there. */
static void explain_host(const json_t *row)
{
    const char *why = row_text(row, "why");
    const char *weaker = row_text(row, "weaker_than_published");
    const char *lifted = row_text(row, "tls_required_no");
    printf("  host      ");
    put_safe(stdout, row_text(row, "host"));
    printf(":%" PRId64 "  tls %s, by %s%s%s%s%s\n", row_number(row, "port"),
           row_flag(row, "used") ? row_text(row, "tls") : "none possible",
           row_text(row, "tls_from"), why[0] != 0 ? ": " : "", why,
           weaker[0] != 0 ? "; weaker than published: " : "", weaker);
    if (lifted[0] != 0) {
        printf("            with TLS-Required: No  tls %s\n", lifted);
    }
}

static void explain_row(struct output *out, const json_t *row)
{
    if (row_text(row, "host")[0] != 0) {
        explain_host(row);
        return;
    }
    if (row_text(row, "address")[0] == 0) {
        queue_row(out, row); /* What is queued for it now. */
        return;
    }
    put_safe(stdout, row_text(row, "address"));
    printf("  connector %s (%s)\n", row_text(row, "connector"), row_text(row, "state"));
    printf("  rule      %s\n", row_text(row, "rule"));
    if (row_text(row, "instead_of")[0] != 0) {
        printf("  instead   of %s, which is down or held\n", row_text(row, "instead_of"));
    }
    printf("  route     %s, %s\n", row_text(row, "route"), row_text(row, "protocol"));
    printf("  tls       %s%s\n", row_text(row, "tls"),
           row_flag(row, "tls_required") ? " (no delivery without)" : "");
    printf("  retry     %s\n", row_text(row, "retry")[0] != 0 ? row_text(row, "retry") : "its own");
    if (json_object_get(row, "secret_readable") != NULL) {
        printf("  secret    %s", row_flag(row, "secret_readable") ? "readable" : "not readable");
        printf("%s", row_text(row, "secret_problem")[0] != 0 ? ": " : "");
        put_safe(stdout, row_text(row, "secret_problem"));
        printf("\n");
    }
    put_settings(out, row, false);
}

/* ---- Bulk verbs, reload, verify ---- */

static void bulk_end(struct output *out, const json_t *end)
{
    static const char *const done[] = {[BH_VERB_HOLD] = "held",
                                       [BH_VERB_RELEASE] = "released",
                                       [BH_VERB_CANCEL] = "cancelled",
                                       [BH_VERB_BOUNCE] = "bounced",
                                       [BH_VERB_REQUEUE] = "requeued"};
    char matched[TEXT_TIME];
    text_count((uint64_t)row_number(end, "matched"), matched);
    if (json_is_true(json_object_get(out->options->args, "dry_run"))) {
        printf("%s would match in %" PRId64 " destinations\n", matched,
               row_number(end, "destinations"));
        return;
    }
    char acted[TEXT_TIME];
    printf("%s matched, %s %s, %" PRId64 " in flight.\n", matched,
           text_count((uint64_t)row_number(end, "acted"), acted), done[out->verb],
           row_number(end, "in_flight"));
}

/* As compilers say it, which editors can jump to. */
static void config_error(const json_t *error)
{
    put_safe(stderr, row_text(error, "file"));
    if (row_number(error, "line") > 0) {
        fprintf(stderr, ":%" PRId64 ":%" PRId64, row_number(error, "line"),
                row_number(error, "column"));
    }
    fputs(": ", stderr);
    put_safe(stderr, row_text(error, "level"));
    fputs(": ", stderr);
    put_safe(stderr, row_text(error, "text"));
    fputs("\n", stderr);
}

static void reload_row(const json_t *row)
{
    const json_t *error = json_object_get(row, "error");
    if (error != NULL) {
        config_error(error);
        return;
    }
    printf("  %s ", row_text(row, "change"));
    put_safe(stdout, row_text(row, "text"));
    printf("\n");
}

static void jobs_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"JOB",        "VERB", ">MATCHED", ">ACTED",
                                        ">IN FLIGHT", ">AGE", "~REASON"};
    char text[TEXT_TIME];
    table_columns(out, names, COUNT(names));
    table_number(out, row_number(row, "job"));
    table_cell(out, row_text(row, "verb"));
    table_number(out, row_number(row, "matched"));
    table_number(out, row_number(row, "acted"));
    table_number(out, row_number(row, "in_flight"));
    table_cell(out, ago(out, row, "created_unix_ms", text));
    table_cell(out, row_text(row, "reason"));
}

void render_row(struct output *out, const json_t *row)
{
    switch (out->verb) {
    case BH_VERB_STATUS:
        json_array_append_new(out->kept, json_deep_copy(row));
        return;
    case BH_VERB_QUEUE:
        queue_row(out, row);
        return;
    case BH_VERB_LIST:
        list_row(out, row);
        return;
    case BH_VERB_SHOW:
        show_row(out, row);
        return;
    case BH_VERB_WHY:
        why_row(out, row);
        return;
    case BH_VERB_CONNECTORS:
        connectors_row(out, row);
        return;
    case BH_VERB_EXPLAIN:
        explain_row(out, row);
        return;
    case BH_VERB_VERIFY:
        printf("problem  ");
        put_safe(stdout, row_text(row, "problem"));
        printf("\n");
        return;
    case BH_VERB_AUDIT:
        render_audit_row(out, row);
        return;
    case BH_VERB_PROBE:
        render_probe_row(out, row);
        return;
    case BH_VERB_RELOAD:
        reload_row(row);
        return;
    case BH_VERB_JOBS:
        jobs_row(out, row);
        return;
    case BH_VERB_FLUSH:
    case BH_VERB_HOLD:
    case BH_VERB_RELEASE:
    case BH_VERB_CANCEL:
    case BH_VERB_BOUNCE:
    case BH_VERB_REQUEUE:
    case BH_VERB_PAUSE:
    case BH_VERB_RESUME:
    case BH_VERB_COUNT:
        return; /* Their end says it all. */
    }
}

void render_end(struct output *out, const json_t *end, bool running)
{
    char text[TEXT_TIME];
    switch (out->verb) {
    case BH_VERB_STATUS:
        status_end(out, end, running);
        return;
    case BH_VERB_QUEUE:
        queue_end(out, end, running);
        return;
    case BH_VERB_VERIFY:
        if (row_number(end, "problems") == 0) {
            printf("entries, markers, counters and messages agree: ");
        } else {
            printf("%" PRId64 " problems: ", row_number(end, "problems"));
        }
        printf("%s messages, ", text_count((uint64_t)row_number(end, "messages"), text));
        printf("%s recipients\n", text_count((uint64_t)row_number(end, "recipients"), text));
        return;
    case BH_VERB_FLUSH:
        printf("flush: %" PRId64 " destinations\n", row_number(end, "destinations"));
        return;
    case BH_VERB_HOLD:
    case BH_VERB_RELEASE:
    case BH_VERB_CANCEL:
    case BH_VERB_BOUNCE:
    case BH_VERB_REQUEUE:
        bulk_end(out, end);
        return;
    case BH_VERB_PAUSE:
    case BH_VERB_RESUME:
        printf("intake %s\n", out->verb == BH_VERB_PAUSE ? "paused" : "resumed");
        return;
    case BH_VERB_AUDIT:
        render_audit_end(out, end);
        return;
    case BH_VERB_PROBE:
        render_probe_end(out, end);
        return;
    case BH_VERB_RELOAD:
        printf("generation %" PRId64 "\n", row_number(end, "generation"));
        return;
    case BH_VERB_EXPLAIN:
        table_flush(out);
        if (json_is_null(json_object_get(end, "connector"))) {
            printf("%s\n", row_text(end, "why"));
        }
        return;
    case BH_VERB_LIST:
        table_flush(out);
        if (out->rows == 0) {
            printf("nothing matches\n");
        }
        return;
    case BH_VERB_SHOW:
    case BH_VERB_WHY:
    case BH_VERB_CONNECTORS:
    case BH_VERB_JOBS:
    case BH_VERB_COUNT:
        table_flush(out);
        return;
    }
}
