/* Rows to the terminal: as one JSON document, as tables, or as text. Tables are printed in blocks,
 * so that a list of millions needs no memory. */
#include <inttypes.h>
#include <langinfo.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "output.h"

#define BLOCK_ROWS 1000

/* ---- Fields of rows ---- */

const char *row_text(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text != NULL ? text : "";
}

int64_t row_number(const json_t *row, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(row, key));
}

bool row_flag(const json_t *row, const char *key)
{
    return json_is_true(json_object_get(row, key));
}

/* "mx1.bank.example: 550 5.1.1 No such user", or what happened where nothing was said. */
void outcome_text(const json_t *o, char *text, size_t len)
{
    const char *host = row_text(o, "host");
    const char *said = row_text(o, "text");
    const int64_t code = row_number(o, "code");
    text[0] = 0;
    if (o == NULL) {
        return;
    }
    if (code != 0) {
        const char *enhanced = row_text(o, "enhanced");
        const bool repeated = enhanced[0] == 0 || strncmp(said, enhanced, strlen(enhanced)) == 0;
        snprintf(text, len, "%s%s%" PRId64 " %s%s%s", host, host[0] != 0 ? ": " : "", code,
                 repeated ? "" : enhanced, repeated ? "" : " ", said);
        return;
    }
    char happened[40];
    snprintf(happened, sizeof(happened), "%s", row_text(o, "happened"));
    for (char *c = happened; *c != 0; c++) {
        *c = *c == '_' ? ' ' : *c;
    }
    const bool more = said[0] != 0 && strcmp(said, happened) != 0; /* not the same words again */
    snprintf(text, len, "%s%s%s: %s%s%s", host, host[0] != 0 ? ": " : "", row_text(o, "stage"),
             happened, more ? ": " : "", more ? said : "");
}

/* ---- Tables ---- */

static struct libscols_table *new_table(void)
{
    struct libscols_table *table = scols_new_table();
    if (table != NULL) {
        scols_table_enable_maxout(table, 0);
        scols_table_set_column_separator(table, "  ");
    }
    return table;
}

void table_columns(struct output *out, const char *const *names, size_t count)
{
    if (out->table == NULL) {
        out->table = new_table();
        for (size_t i = 0; i < count && out->table != NULL; i++) {
            const bool right = names[i][0] == '>';
            const bool cut = names[i][0] == '~';
            scols_table_new_column(out->table, names[i] + (right || cut ? 1 : 0), 0,
                                   right                          ? SCOLS_FL_RIGHT
                                   : cut && isatty(STDOUT_FILENO) ? SCOLS_FL_TRUNC
                                                                  : 0);
        }
    }
    out->line = out->table != NULL ? scols_table_new_line(out->table, NULL) : NULL;
    out->column = 0;
}

void table_cell(struct output *out, const char *text)
{
    if (out->line != NULL) {
        scols_line_set_data(out->line, out->column++, text);
    }
}

void table_number(struct output *out, int64_t number)
{
    char text[TEXT_TIME];
    table_cell(out, text_count((uint64_t)number, text));
}

void table_flush(struct output *out)
{
    if (out->table == NULL || scols_table_get_nlines(out->table) == 0) {
        return;
    }
    scols_table_enable_noheadings(out->table, out->headed ? 1 : 0);
    scols_print_table(out->table);
    scols_table_remove_lines(out->table);
    out->headed = true;
    out->line = NULL;
}

void table_restart(struct output *out)
{
    scols_unref_table(out->table);
    out->table = NULL;
    out->line = NULL;
    out->headed = false;
}

/* ---- JSON ---- */

static void json_row(struct output *out, const json_t *row)
{
    fputs(out->rows == 0 ? "{\"rows\":[\n" : ",\n", stdout);
    json_dumpf(row, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
}

static void json_end(struct output *out, const json_t *end)
{
    fputs(out->rows == 0 ? "{\"rows\":[" : "\n", stdout);
    fputs("],\"end\":", stdout);
    json_dumpf(end, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    fputs("}\n", stdout);
}

/* ---- The whole ---- */

struct output *output_create(enum bh_control_verb verb, const struct options *options)
{
    struct output *out = calloc(1, sizeof(*out));
    if (out != NULL) {
        out->verb = verb;
        out->json = options->json;
        out->options = options;
        out->now_unix_ms = now_ms();
        out->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
        out->kept = json_array();
    }
    return out;
}

void output_row(struct output *out, const json_t *row)
{
    if (out->json) {
        json_row(out, row);
    } else {
        render_row(out, row);
        if (out->table != NULL && scols_table_get_nlines(out->table) >= BLOCK_ROWS) {
            table_flush(out);
        }
    }
    out->rows++;
}

int output_end(struct output *out, const json_t *end, bool running)
{
    int code = EXIT_GOOD;
    if (out->json) {
        json_end(out, end);
    } else {
        render_end(out, end, running);
    }
    if (row_flag(end, "negative")) {
        code = EXIT_NEGATIVE;
    }
    if (fflush(stdout) != 0) {
        fprintf(stderr, "bhctl: the output could not be written\n");
        code = EXIT_NEGATIVE;
    }
    return code;
}

void output_fail(struct output *out, const char *what, const char *hint)
{
    if (!out->json || out->rows == 0) {
        table_flush(out);
        if (!out->json) {
            render_failed(out);
            fflush(stdout);
        }
        output_error(out->options, what, hint);
        return;
    }
    /* One document with the rows that came before. */
    json_t *error = json_pack("{s:s,s:s}", "what", what, "hint", hint != NULL ? hint : "");
    fputs("\n],\"error\":", stdout);
    json_dumpf(error, stdout, JSON_COMPACT);
    fputs("}\n", stdout);
    json_decref(error);
}

void output_destroy(struct output *out)
{
    if (out != NULL) {
        scols_unref_table(out->table);
        json_decref(out->kept);
        free(out);
    }
}

void output_error(const struct options *options, const char *what, const char *hint)
{
    if (options->json) {
        json_t *error =
            json_pack("{s:{s:s,s:s}}", "error", "what", what, "hint", hint != NULL ? hint : "");
        json_dumpf(error, stdout, JSON_COMPACT);
        fputs("\n", stdout);
        json_decref(error);
        return;
    }
    fputs("bhctl: ", stderr);
    put_safe(stderr, what);
    fputs("\n", stderr);
    if (hint != NULL && hint[0] != 0) {
        fputs("  ", stderr);
        put_safe(stderr, hint);
        fputs("\n", stderr);
    }
}
