/* render.h - what the files that render rows share: render.c (the queue, bulk verbs, and who
 * renders what), render_message.c, render_config.c. */
#pragma once

#include "output.h"

#define LINE 1024

/* render.c */
/** "2 h 10 m" since that time; "" for no time. */
const char *render_ago(const struct output *out, const json_t *row, const char *key,
                       char text[TEXT_TIME]);
/** The same to a time ahead; "now" when it has come. */
const char *render_ahead(const struct output *out, const json_t *row, const char *key,
                         char text[TEXT_TIME]);
void render_time(const struct output *out, const json_t *row, const char *key);
/** "s", or "" for one. */
const char *render_plural(int64_t count);
/** A destination. */
void render_queue_row(struct output *out, const json_t *row);

/* render_message.c */
void render_list_row(struct output *out, const json_t *row);
void render_show_row(struct output *out, const json_t *row);
void render_why_row(struct output *out, const json_t *row);
/** What was kept of a message that is not in the queue any more. */
void render_gone(struct output *out);

/* render_config.c */
void render_connectors_row(struct output *out, const json_t *row);
void render_explain_row(struct output *out, const json_t *row);
void render_reload_row(struct output *out, const json_t *row);
/** The changes that were kept. */
void render_changes(const struct output *out);
void render_reload_end(struct output *out, const json_t *end);
