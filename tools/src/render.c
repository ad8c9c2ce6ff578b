/* How each verb's rows look to people. The first line answers the question; times are relative. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "render.h"

/* "2 h 10 m" since then, or in time for what is ahead; "" for no time. */
const char *render_ago(const struct output *out, const json_t *row, const char *key,
                       char text[TEXT_TIME])
{
    const int64_t at = row_number(row, key);
    text[0] = 0;
    return at == 0 ? text : text_span(out->now_unix_ms - at, text);
}

const char *render_ahead(const struct output *out, const json_t *row, const char *key,
                         char text[TEXT_TIME])
{
    const int64_t at = row_number(row, key);
    text[0] = 0;
    if (at == 0) {
        return text;
    }
    return at <= out->now_unix_ms ? "now" : text_span(at - out->now_unix_ms, text);
}

void render_time(const struct output *out, const json_t *row, const char *key)
{
    char text[TEXT_TIME];
    const int64_t at = row_number(row, key);
    if (at != 0) {
        fputs(text_time(at, out->now_unix_ms, text), stdout);
    }
}

/* ---- queue and status ---- */

/* Who holds it, until when and why. */
static void hold_text(const struct output *out, const json_t *row, char text[LINE])
{
    char at[TEXT_TIME];
    const char *by = row_text(row, "hold_by");
    const int64_t until = row_number(row, "hold_until_unix_ms");
    const char *reason = row_text(row, "hold_reason");
    snprintf(text, LINE, "%s%s%s%s%s%s", by[0] != 0 ? "by " : "", by, until != 0 ? " until " : "",
             until != 0 ? text_time(until, out->now_unix_ms, at) : "",
             reason[0] != 0 && (by[0] != 0 || until != 0) ? ": " : "", reason);
}

#define FORECAST_FROM_MS 10000 /* what drains sooner needs no forecast */

/* "4,812 queued, 40/min, drains in 2 h, 37 expire before"; empty where it is nothing to speak of.
 */
static void forecast_text(const json_t *row, char *text, size_t len)
{
    const json_t *forecast = json_object_get(row, "forecast");
    const int64_t drains = row_number(forecast, "drains_in_ms");
    const int64_t hourly = row_number(forecast, "per_hour");
    const int64_t expire = row_number(forecast, "expire_before");
    char queued[TEXT_TIME];
    char rate[TEXT_TIME];
    char span[TEXT_TIME];
    char old[TEXT_TIME];
    text[0] = '\0';
    if (forecast == NULL || (drains < FORECAST_FROM_MS && expire == 0)) {
        return;
    }
    const char *unit = hourly >= 36000 ? "s" : hourly >= 60 ? "min" : "h";
    const int64_t in_unit = hourly >= 36000 ? 3600 : hourly >= 60 ? 60 : 1;
    text_count((uint64_t)((hourly + in_unit / 2) / in_unit), rate);
    snprintf(text, len, "   %s queued, %s%s/%s, drains in %s%s%s%s",
             text_count((uint64_t)row_number(forecast, "messages"), queued),
             strcmp(row_text(forecast, "by"), "limit") == 0 ? "at most "
             : hourly == 0                                  ? "<"
                                                            : "",
             hourly == 0 ? "1" : rate, unit, text_span(drains, span), expire > 0 ? ", " : "",
             expire > 0 ? text_count((uint64_t)expire, old) : "",
             expire > 0 ? " expire before" : "");
}

/* Why it stands, or what was said last. */
static void last_text(const struct output *out, const json_t *row, char text[LINE])
{
    const char *limit = row_text(row, "limit");
    const char *carrier = row_text(row, "carrier");
    char outcome[LINE / 2];
    char forecast[LINE / 4];
    outcome_text(json_object_get(row, "last"), outcome, sizeof(outcome));
    forecast_text(row, forecast, sizeof(forecast));
    if (row_text(row, "park_reason")[0] != 0) {
        snprintf(text, LINE, "%s", row_text(row, "park_reason"));
    } else if (strcmp(row_text(row, "state"), "held") == 0) {
        hold_text(out, row, text);
    } else if (row_number(row, "window_opens_unix_ms") != 0) {
        char at[TEXT_TIME];
        snprintf(text, LINE, "window opens %s",
                 text_time(row_number(row, "window_opens_unix_ms"), out->now_unix_ms, at));
    } else if (carrier[0] != 0) {
        snprintf(text, LINE, "carried by %s   %s%s%s%s", carrier, outcome,
                 limit[0] != 0 ? "   limited by: " : "", limit, forecast);
    } else {
        snprintf(text, LINE, "%s%s%s%s", outcome, limit[0] != 0 ? "   limited by: " : "", limit,
                 forecast);
    }
}

void render_queue_row(struct output *out, const json_t *row)
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
    table_cell(out, render_ago(out, row, "oldest_unix_ms", text));
    const json_t *ages = json_object_get(row, "ages");
    for (size_t i = 0; i < 5; i++) {
        table_number(out, (int64_t)json_integer_value(json_array_get(ages, i)));
    }
    table_cell(out, render_ahead(out, row, "next_unix_ms", text));
    table_cell(out, row_text(row, "tls"));
    last_text(out, row, last);
    table_cell(out, last);
}

const char *render_plural(int64_t count)
{
    return count == 1 ? "" : "s";
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
           render_plural(row_number(end, "destinations")));
    if (running) {
        printf(", %" PRId64 " connection%s", row_number(end, "connections"),
               render_plural(row_number(end, "connections")));
    }
    printf(", %" PRId64 " backing off, %" PRId64 " held, %" PRId64 " parked\n",
           row_number(end, "destinations_backoff"), row_number(end, "destinations_held"),
           row_number(end, "destinations_parked"));
    const int64_t held = row_number(end, "held");
    if (held > 0) { /* dead letters among them, whose destination shows nothing of it */
        printf("%" PRId64 " message%s held: bhctl list --state held\n", held,
               held == 1 ? " is" : "s are");
    }
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
    bool stands = false;
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
        printf(": %s, %" PRId64 " message%s, oldest %s", row_text(row, "state"),
               row_number(row, "messages"), render_plural(row_number(row, "messages")),
               render_ago(out, row, "oldest_unix_ms", oldest));
        if (row_number(row, "next_unix_ms") != 0 && strcmp(row_text(row, "state"), "held") != 0) {
            const char *next = render_ahead(out, row, "next_unix_ms", oldest);
            printf(", next try %s%s", strcmp(next, "now") == 0 ? "" : "in ", next);
        }
        if (last[0] != 0) {
            printf(": ");
            put_safe(stdout, last);
        }
        printf("\n");
        stands = true;
    }
    const int64_t more = row_number(end, "attention") - (int64_t)json_array_size(out->kept);
    if (more > 0) {
        printf("and %" PRId64 " more: bhctl queue\n", more);
    }
    if (stands) {
        printf("look at one: bhctl list --destination DOMAIN, bhctl why ID%s\n",
               running ? "; try now: bhctl flush --destination DOMAIN" : "");
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
        printf("%s would match in %" PRId64 " destination%s", matched,
               row_number(end, "destinations"), render_plural(row_number(end, "destinations")));
        if (row_number(end, "in_flight") > 0) {
            printf(" (%" PRId64 " in flight, decided by their partner)",
                   row_number(end, "in_flight"));
        }
        printf("\n");
        return;
    }
    char acted[TEXT_TIME];
    printf("%s matched, %s %s, %" PRId64 " in flight.\n", matched,
           text_count((uint64_t)row_number(end, "acted"), acted), done[out->verb],
           row_number(end, "in_flight"));
}

/* Of whole destinations what is queued now is tried once, paced; single messages become due. */
static void flush_end(struct output *out, const json_t *end)
{
    if (json_is_true(json_object_get(out->options->args, "dry_run"))) {
        bulk_end(out, end);
        return;
    }
    const int64_t destinations = row_number(end, "destinations");
    if (destinations == 0 && row_number(end, "matched") == 0) {
        printf("flush: nothing matches\n");
    } else if (destinations == 0) {
        printf("flush: %" PRId64 " matched, %" PRId64 " due at once, %" PRId64 " in flight\n",
               row_number(end, "matched"), row_number(end, "acted"), row_number(end, "in_flight"));
    } else {
        printf("flush: what is queued now in %" PRId64
               " destination%s is tried, paced; watch it: bhctl queue\n",
               destinations, render_plural(destinations));
    }
}

void render_failed(struct output *out)
{
    if (out->verb == BH_VERB_RELOAD) {
        render_changes(out); /* What it was that is refused. */
    } else if (out->verb == BH_VERB_WHY && json_array_size(out->kept) > 0) {
        render_gone(out);
    }
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
    table_cell(out, render_ago(out, row, "created_unix_ms", text));
    table_cell(out, row_text(row, "reason"));
}

void render_row(struct output *out, const json_t *row)
{
    switch (out->verb) {
    case BH_VERB_STATUS:
        json_array_append_new(out->kept, json_deep_copy(row));
        return;
    case BH_VERB_QUEUE:
        render_queue_row(out, row);
        return;
    case BH_VERB_LIST:
        render_list_row(out, row);
        return;
    case BH_VERB_SHOW:
        render_show_row(out, row);
        return;
    case BH_VERB_WHY:
        render_why_row(out, row);
        return;
    case BH_VERB_CONNECTORS:
        render_connectors_row(out, row);
        return;
    case BH_VERB_EXPLAIN:
        render_explain_row(out, row);
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
    case BH_VERB_POLICY:
        render_policy_row(out, row);
        return;
    case BH_VERB_RELOAD:
        render_reload_row(out, row);
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
        flush_end(out, end);
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
    case BH_VERB_POLICY:
        render_policy_end(end);
        return;
    case BH_VERB_RELOAD:
        render_reload_end(out, end);
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
    case BH_VERB_WHY:
        if (json_array_size(out->kept) > 0) {
            render_gone(out);
        }
        return;
    case BH_VERB_SHOW:
    case BH_VERB_CONNECTORS:
    case BH_VERB_JOBS:
    case BH_VERB_COUNT:
        table_flush(out);
        return;
    }
}
