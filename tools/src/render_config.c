/* How the configuration looks to people: connectors, explain, reload. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "render.h"

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

#define SETTING_DEPTH_MAX 6

/* What decides most is shown whoever set it. */
static bool decides(const char *name, const char *value)
{
    return strcmp(name, "tls mode") == 0 || strncmp(name, "retry", 5) == 0 ||
           (strncmp(name, "limits ", 7) == 0 && strcmp(value, "unlimited") != 0);
}

/* Settings of a block and of the blocks in it, "limits connections"; all of them, or those that
 * decide most and those that somebody set. `from` stands in for the origin where it is not known.
 */
static void put_block(struct output *out, json_t *block, const char *path, const char *from,
                      bool all, unsigned depth)
{
    static const char *const names[] = {"SETTING", "VALUE", "FROM"};
    const char *key;
    json_t *setting;
    json_object_foreach(block, key, setting)
    {
        char name[LINE];
        snprintf(name, sizeof(name), "%s%s%s", path, path[0] != 0 ? " " : "", key);
        const json_t *value = json_object_get(setting, "value");
        if (value == NULL || json_is_object(value)) { /* a block; one of its keys may be `value` */
            if (depth < SETTING_DEPTH_MAX && json_is_object(setting)) {
                put_block(out, setting, name, from, all, depth + 1);
            }
            continue;
        }
        const char *origin = from != NULL ? from : row_text(setting, "from");
        const char *text = json_string_value(value);
        if (text == NULL ||
            (!all && strcmp(row_text(setting, "from"), "built-in") == 0 && !decides(name, text))) {
            continue;
        }
        table_columns(out, names, COUNT(names));
        table_cell(out, name);
        table_cell(out, text);
        table_cell(out, origin);
    }
}

static void put_settings(struct output *out, const json_t *row, bool all)
{
    json_t *described = json_object_get(row, "settings");
    const char *retry = row_text(row, "retry");
    char from[LINE];
    snprintf(from, sizeof(from), "%s%s", retry[0] != 0 ? "retry " : "its own retry", retry);
    table_flush(out);
    table_restart(out);
    put_block(out, json_object_get(described, "settings"), "", NULL, all, 0);
    put_block(out, json_object_get(described, "schedule"), "retry", from, all, 0);
    table_flush(out);
    table_restart(out);
}

void render_connectors_row(struct output *out, const json_t *row)
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

void render_explain_row(struct output *out, const json_t *row)
{
    if (row_text(row, "host")[0] != 0) {
        explain_host(row);
        return;
    }
    if (row_text(row, "address")[0] == 0) {
        render_queue_row(out, row); /* What is queued for it now. */
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

/* ---- reload ---- */

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

/* Changes are kept until the end, which says what they come to. */
void render_reload_row(struct output *out, const json_t *row)
{
    const json_t *error = json_object_get(row, "error");
    if (error != NULL) {
        config_error(error);
        return;
    }
    json_array_append_new(out->kept, json_deep_copy(row));
}

void render_changes(const struct output *out)
{
    size_t i;
    const json_t *row;
    json_array_foreach(out->kept, i, row)
    {
        printf("  %s ", row_text(row, "change"));
        put_safe(stdout, row_text(row, "text"));
        printf("\n");
    }
}

void render_reload_end(struct output *out, const json_t *end)
{
    const int64_t weakened = row_number(end, "weakened");
    const int64_t generation = row_number(end, "generation");
    const int64_t touched = row_number(end, "touched");
    printf("generation %" PRId64 " \u2192 %" PRId64 "%s\n", generation - 1, generation,
           row_flag(end, "plan") ? ", if it is reloaded" : "");
    render_changes(out);
    if (json_array_size(out->kept) == 0) {
        printf("nothing changes\n");
        return;
    }
    if (touched > 0) {
        printf("%" PRId64 " queued message%s to another connector\n", touched,
               touched == 1 ? " moves" : "s move");
    }
    if (weakened == 0) {
        printf("nothing is weakened\n");
    } else {
        printf("%" PRId64 " TLS demand%s weaker%s\n", weakened, weakened == 1 ? " is" : "s are",
               row_flag(end, "plan") ? ": that takes bhctl reload --allow-weaken" : "");
    }
}
