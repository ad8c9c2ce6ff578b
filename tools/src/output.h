/* output.h - between the writing of rows (output.c) and their looks (render.c). */
#pragma once

#include "bhctl.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct libscols_table;
struct libscols_line;

struct output {
    enum bh_control_verb verb;
    bool json;
    bool utf8; /* the terminal shows it */
    const struct options *options;
    int64_t now_unix_ms;
    uint64_t rows;
    struct libscols_table *table; /* NULL: none yet */
    struct libscols_line *line;   /* the last of it */
    size_t column;
    bool in_events;  /* of `why` */
    char queued[32]; /* of `why`: the message that the rows are of, if it is in the queue */
    bool headed;     /* its heading was printed */
    json_t *kept;    /* rows that are shown at the end */
};

/** "" if it is not there. */
const char *row_text(const json_t *row, const char *key);
/** 0 if it is not there. */
int64_t row_number(const json_t *row, const char *key);
bool row_flag(const json_t *row, const char *key);
void outcome_text(const json_t *outcome, char *text, size_t len);

/** Begin a line of the table; its columns are made with the first. A name after '>' is aligned
 * right, after '~' cut to the terminal. */
void table_columns(struct output *out, const char *const *names, size_t count);
void table_cell(struct output *out, const char *text);
void table_number(struct output *out, int64_t number);
void table_flush(struct output *out);
/** Forget the columns: the next line begins another table. */
void table_restart(struct output *out);

/* render_tls.c */
void render_audit_row(struct output *out, const json_t *row);
void render_audit_end(struct output *out, const json_t *end);
void render_probe_row(struct output *out, const json_t *row);
void render_probe_end(struct output *out, const json_t *end);
void render_policy_row(const struct output *out, const json_t *row);
void render_policy_end(const json_t *end);
void render_partner_row(struct output *out, const json_t *row);
void render_event(struct output *out, const json_t *row);

void render_row(struct output *out, const json_t *row);
/** An error comes instead of an end: what was kept for it is shown. */
void render_failed(struct output *out);
void render_end(struct output *out, const json_t *end, bool running);
