/* How audits, events and probes look to people. */
#include <inttypes.h>
#include <string.h>

#include "bh/date.h"
#include "output.h"

/* "9f3c..e1": enough to recognise it by. */
static void put_chain(const json_t *end)
{
    const char *chain = row_text(end, "chain");
    const size_t len = strlen(chain);
    printf("%.12s..%s", chain, len > 8 ? chain + len - 8 : "");
}

void render_audit_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"CONNECTOR", ">DELIVERED", ">IN CLEAR", ">UNAUTHENTICATED",
                                        ">BY NAME",  ">BY PIN",    ">BY DANE",  ""};
    if (strcmp(row_text(row, "kind"), "connector") != 0) {
        table_flush(out);
        printf("%s:%" PRId64 ": %s\n", row_text(row, "segment"), row_number(row, "line"),
               row_text(row, "text"));
        return;
    }
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "connector"));
    table_number(out, row_number(row, "delivered"));
    table_number(out, row_number(row, "clear"));
    table_number(out, row_number(row, "unauthenticated"));
    table_number(out, row_number(row, "name"));
    table_number(out, row_number(row, "pin"));
    table_number(out, row_number(row, "dane"));
    table_cell(out, row_flag(row, "below") ? "BELOW WHAT IS REQUIRED" : "");
}

void render_audit_end(struct output *out, const json_t *end)
{
    table_flush(out);
    if (row_number(end, "records") == 0) {
        printf("no records in that time\n");
        return;
    }
    printf("ledger %s: records %" PRId64 " to %" PRId64 ", chain ",
           row_flag(end, "whole")           ? "whole"
           : row_number(end, "breaks") == 0 ? "has gaps"
                                            : "BROKEN",
           row_number(end, "first_seq"), row_number(end, "seq"));
    put_chain(end);
    printf("\n");
    if (row_number(end, "breaks") > 0) {
        printf("  %" PRId64 " findings, above\n", row_number(end, "breaks"));
    }
    if (row_number(end, "lost") > 0) {
        printf("  %" PRId64 " deliveries are missing: the disk took no records then\n",
               row_number(end, "lost"));
    }
    if (row_number(end, "crashes") > 0) {
        printf("  the engine ended %" PRId64
               " times without order: its last deliveries may be missing\n",
               row_number(end, "crashes"));
    }
}

/* An event of `why`, on a line. */
/* "  (queue 27 ms, connect 3 ms, transfer 2 ms)": where an attempt's time went. */
static void event_times(const json_t *row)
{
    static const char *const parts[] = {"queue", "dns", "connect", "tls", "transfer"};
    const char *before = "  (";
    for (size_t i = 0; i < COUNT(parts); i++) {
        char key[16];
        char text[TEXT_TIME];
        snprintf(key, sizeof(key), "%s_ms", parts[i]);
        const int64_t ms = row_number(row, key);
        if (ms > 0) {
            if (ms < 1000) {
                snprintf(text, sizeof(text), "%d ms", (int)ms);
            } else {
                (void)text_span(ms, text);
            }
            printf("%s%s %s", before, parts[i], text);
            before = ", ";
        }
    }
    printf("%s", before[0] == ',' ? ")" : "");
}

void render_event(struct output *out, const json_t *row)
{
    char text[TEXT_TIME];
    if (strcmp(row_text(row, "kind"), "note") == 0) {
        printf("  note ");
        put_safe(stdout, row_text(row, "text"));
        printf("\n");
        return;
    }
    printf("    %s  %s", text_time(row_number(row, "time"), out->now_unix_ms, text),
           row_text(row, "evt"));
    static const char *const shown[] = {"result", "rcpt", "domain", "sender", "client", "mx",
                                        "ip",     "tls",  "verb",   "reason", "text"};
    for (size_t i = 0; i < COUNT(shown); i++) {
        const char *value = row_text(row, shown[i]);
        if (strcmp(shown[i], "text") == 0 && row_number(row, "code") != 0) {
            printf("  %" PRId64 " %s", row_number(row, "code"), row_text(row, "enhanced"));
        }
        if (value[0] != 0 &&
            (strcmp(shown[i], "ip") != 0 || strcmp(value, row_text(row, "mx")) != 0)) {
            printf("  %s", strcmp(shown[i], "tls") == 0 ? "tls " : "");
            put_safe(stdout, value);
        }
    }
    event_times(row);
    printf("\n");
}

/* ---- probe ---- */

/* "TLSv1.3 .., name mx.bank.test", or what was wanted and why it was not had. */
static void tls_cell(const json_t *row, char *text, size_t len)
{
    const char *got = row_text(row, "tls_got");
    const char *wanted = row_text(row, "tls_wanted");
    const char *origin = row_text(row, "tls_from");
    if (got[0] != 0) {
        snprintf(text, len, "%s", got);
    } else if (wanted[0] != 0) {
        snprintf(text, len, "wanted %s (%s)", wanted, origin);
    } else {
        text[0] = 0;
    }
}

/* How far it got and what was said there: "rcpt 250", "tls: certificate expired". */
static void reached_cell(const json_t *row, char *text, size_t len)
{
    const char *said = row_text(row, "text");
    const int64_t code = row_number(row, "code");
    if (code / 100 == 2) {
        snprintf(text, len, "%s %" PRId64, row_text(row, "stage"), code);
    } else if (code != 0) {
        snprintf(text, len, "%s %" PRId64 " %s %s", row_text(row, "stage"), code,
                 row_text(row, "enhanced"), said);
    } else {
        snprintf(text, len, "%s: %s", row_text(row, "stage"),
                 said[0] != 0 ? said : row_text(row, "happened"));
    }
}

void render_probe_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {">PREF", "HOST", "ADDRESS", "TLS", "~REACHED", "VERDICT"};
    char text[512];
    char address[TEXT_TIME + 16];
    if (strcmp(row_text(row, "kind"), "route") == 0) {
        put_safe(stdout, row_text(row, "address"));
        printf("  connector %s", row_text(row, "connector"));
        if (row_text(row, "rule")[0] != 0) {
            printf(" (%s)", row_text(row, "rule"));
        }
        printf("\n");
        if (row_text(row, "stage")[0] != 0) {
            reached_cell(row, text, sizeof(text));
            put_safe(stdout, text);
            printf("\n");
        }
        return;
    }
    table_columns(out, names, COUNT(names));
    table_number(out, row_number(row, "preference"));
    table_cell(out, row_text(row, "host"));
    snprintf(address, sizeof(address), "%s%s%s:%" PRId64,
             strchr(row_text(row, "ip"), ':') != NULL ? "[" : "",
             row_text(row, "ip")[0] != 0 ? row_text(row, "ip") : "-",
             strchr(row_text(row, "ip"), ':') != NULL ? "]" : "", row_number(row, "port"));
    table_cell(out, address);
    tls_cell(row, text, sizeof(text));
    table_cell(out, text);
    reached_cell(row, text, sizeof(text));
    table_cell(out, text);
    table_cell(out, row_text(row, "verdict"));
}

void render_probe_end(struct output *out, const json_t *end)
{
    table_flush(out);
    const int64_t bad = row_number(end, "bad");
    const int64_t targets = row_number(end, "targets");
    if (targets == 0) {
        printf("no target. No mail was sent.\n");
    } else if (bad > 0) {
        printf("%" PRId64 " of %" PRId64 " targets would get no mail. No mail was sent.\n", bad,
               targets);
    } else {
        printf("%" PRId64 " target%s, as the policy demands. No mail was sent.\n", targets,
               targets == 1 ? "" : "s");
    }
}

/* ---- policy show ---- */

/* "3 h 10 m ago", or "in 6 d". */
static const char *when(const struct output *out, int64_t unix_ms, char text[TEXT_TIME])
{
    char span[TEXT_TIME];
    const int64_t ago = out->now_unix_ms - unix_ms;
    snprintf(text, TEXT_TIME, ago >= 0 ? "%.30s ago" : "in %.30s",
             text_span(ago >= 0 ? ago : -ago, span));
    return text;
}

static void time_line(const struct output *out, const json_t *row, const char *key,
                      const char *label)
{
    char text[TEXT_TIME];
    const int64_t at = row_number(row, key);
    if (at != 0) {
        printf("  %-10s %s\n", label, when(out, at, text));
    }
}

static void list_line(const json_t *list, const char *label)
{
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one)
    {
        printf("  %-10s ", i == 0 ? label : "");
        put_safe(stdout, json_string_value(one));
        printf("\n");
    }
}

static void text_line(const json_t *row, const char *key, const char *label)
{
    if (row_text(row, key)[0] != 0) {
        printf("  %-10s ", label);
        put_safe(stdout, row_text(row, key));
        printf("\n");
    }
}

static void policy_sts(const struct output *out, const json_t *row)
{
    const bool stored = strcmp(row_text(row, "stored"), "yes") == 0;
    printf("MTA-STS  ");
    put_safe(stdout, row_text(row, "domain"));
    if (stored) {
        printf("  mode %s%s", row_text(row, "mode"),
               row_flag(row, "in_force") ? "" : ", past its time: not in force");
    } else if (strcmp(row_text(row, "stored"), "unreadable") == 0) {
        printf("  what is stored can't be read");
    } else {
        printf("  no policy is stored");
    }
    printf("\n");
    text_line(row, "origin", "origin");
    text_line(row, "policy_id", "id");
    if (strcmp(row_text(row, "announced_id"), row_text(row, "policy_id")) != 0) {
        text_line(row, "announced_id", "announced");
    }
    list_line(json_object_get(row, "mx"), "mx");
    time_line(out, row, "fetched_unix_ms", "fetched");
    time_line(out, row, "checked_unix_ms", "seen");
    time_line(out, row, "used_unix_ms", "asked for");
    time_line(out, row, "expires_unix_ms", "ends");
    time_line(out, row, "failed_unix_ms", "failed");
    text_line(row, "trouble", "trouble");
}

static void policy_dane(const struct output *out, const json_t *row)
{
    const json_t *records = json_object_get(row, "records");
    const int64_t more = row_number(row, "records_count") - (int64_t)json_array_size(records);
    printf("DANE     ");
    put_safe(stdout, row_text(row, "host"));
    printf(":%" PRId64 "  %s  (connector ", row_number(row, "port"), row_text(row, "dane"));
    put_safe(stdout, row_text(row, "connector"));
    printf(")\n");
    text_line(row, "base", "base");
    list_line(records, "records");
    if (more > 0) {
        printf("  %-10s and %" PRId64 " more\n", "", more);
    }
    text_line(row, "origin", "origin");
    time_line(out, row, "looked_unix_ms", "looked up");
    time_line(out, row, "until_unix_ms", "holds");
}

void render_policy_row(const struct output *out, const json_t *row)
{
    if (strcmp(row_text(row, "kind"), "sts") == 0) {
        policy_sts(out, row);
    } else {
        policy_dane(out, row);
    }
}

void render_policy_end(const json_t *end)
{
    if (row_number(end, "hosts") == 0) {
        printf("DANE     %s\n",
               row_flag(end, "live")
                   ? "the way to its hosts is not known: no mail for it lately (bhctl probe looks)"
                   : "known to the running engine alone");
    }
}

/* ---- the matrix ---- */

/* RFC 4180: quoted where it has to be. */
static void csv_field(const char *text, bool last)
{
    const bool quote = strpbrk(text, ",\"\r\n") != NULL;
    fputs(quote ? "\"" : "", stdout);
    for (const char *c = text; *c != 0; c++) {
        fputs(*c == '"' ? "\"" : "", stdout);
        putchar(*c);
    }
    fputs(quote ? "\"" : "", stdout);
    fputs(last ? "\r\n" : ",", stdout);
}

/* "2026-11-24T14:02:11Z", or nothing. */
static const char *iso(const json_t *row, const char *key, char text[BH_DATE_TEXT])
{
    const int64_t at = row_number(row, key);
    text[0] = 0;
    if (at != 0) {
        bh_date_iso(at / 1000 * 1000, text);
        char *const dot = strchr(text, '.');
        if (dot != NULL) {
            memcpy(dot, "Z", 2);
        }
    }
    return text;
}

/* "tls until 2026-12-01: new certificate is ordered". */
static void exceptions_cell(const json_t *row, char *text, size_t len)
{
    size_t at = 0;
    size_t i;
    const json_t *one;
    text[0] = 0;
    json_array_foreach(json_object_get(row, "exceptions"), i, one)
    {
        char date[BH_DATE_TEXT];
        bh_date_iso(row_number(one, "until_unix_ms") - 1, date); /* its last day */
        const int n = snprintf(text + at, len - at, "%s%s %s %.10s: %s", i > 0 ? "; " : "",
                               row_text(one, "what"), row_flag(one, "ended") ? "ended" : "until",
                               date, row_text(one, "reason"));
        if (n < 0 || (size_t)n >= len - at) {
            return;
        }
        at += (size_t)n;
    }
}

void render_partner_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"DOMAIN",    "CONNECTOR", "STATE",
                                        "ROUTE",     "TLS",       "LAST VERIFIED",
                                        "LAST HOST", "LAST TLS",  "EXCEPTIONS"};
    char verified[BH_DATE_TEXT];
    char exceptions[512];
    iso(row, "last_verified_unix_ms", verified);
    exceptions_cell(row, exceptions, sizeof(exceptions));
    const char *const cells[] = {
        row_text(row, "domain"),    row_text(row, "connector"), row_text(row, "state"),
        row_text(row, "route"),     row_text(row, "tls"),       verified,
        row_text(row, "last_host"), row_text(row, "last_tls"),  exceptions};
    if (!out->options->csv) {
        table_columns(out, names, COUNT(names));
    } else if (out->rows == 0) {
        for (size_t i = 0; i < COUNT(names); i++) {
            csv_field(names[i], i + 1 == COUNT(names));
        }
    }
    for (size_t i = 0; i < COUNT(cells); i++) {
        if (out->options->csv) {
            csv_field(cells[i], i + 1 == COUNT(cells));
        } else {
            table_cell(out, cells[i]);
        }
    }
}
