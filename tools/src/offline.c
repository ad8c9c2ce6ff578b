/* The same views with the daemon down: the store is opened read-only, and nothing of it is open
 * while rows are printed. */
#include <stdlib.h>
#include <string.h>

#include "bh/kv_lmdb.h"
#include "bh/view.h"
#include "bhctl.h"

/* The rows of one step, kept until its transaction has ended. */
struct rows {
    json_t *list;
    bool failed;
};

static void keep_row(void *ctx, struct bh_slice object)
{
    struct rows *rows = ctx;
    json_error_t where;
    json_t *row = json_loadb(object.ptr, object.len, JSON_ALLOW_NUL, &where);
    rows->failed = rows->failed || row == NULL || json_array_append_new(rows->list, row) != 0;
}

static void print_rows(struct output *out, json_t *list)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        output_row(out, row);
    }
    json_array_clear(list);
}

static int print_end(struct output *out, const struct bh_view *view)
{
    const struct bh_slice text = bh_view_end(view);
    json_error_t where;
    json_t *end = json_loadb(text.ptr, text.len, 0, &where);
    const int code = output_end(out, end, false);
    json_decref(end);
    return code;
}

static int run_view(const struct options *options, struct bh_kv *kv, struct bh_view *view,
                    struct output *out)
{
    struct rows rows = {.list = json_array()};
    const struct bh_view_sink sink = {keep_row, &rows};
    enum bh_status status = BH_MORE;
    while (status == BH_MORE) {
        struct bh_kv_txn *txn = NULL;
        status = kv != NULL ? bh_kv_begin(kv, BH_KV_READ, NULL, &txn) : BH_OK;
        if (status != BH_OK) {
            output_error(options, "the queue could not be read", bh_status_name(status));
            json_decref(rows.list);
            return EXIT_UNREACHABLE;
        }
        status = bh_view_step(view, txn, &sink);
        if (txn != NULL) {
            bh_kv_abort(txn);
        }
        print_rows(out, rows.list);
    }
    json_decref(rows.list);
    if (status == BH_OK && !rows.failed) {
        return print_end(out, view);
    }
    const struct bh_control_error *error = bh_view_error(view);
    output_error(options, error->what[0] != 0 ? error->what : "no memory", error->hint);
    return EXIT_NEGATIVE;
}

/* Open the store. @return the exit code when it can't be; *kv NULL with 0: there is none, and the
 * verb does without */
static int open_queue(const struct options *options, const char *path, bool needed,
                      struct bh_kv **kv)
{
    char error[256] = "";
    const struct bh_kv_lmdb_options how = {.path = path, .read_only = true};
    *kv = NULL;
    if (path == NULL) {
        if (needed) {
            output_error(options, "the engine is not running, and where its queue is is not known",
                         "give --path DIRECTORY, or --config FILE");
        }
        return needed ? EXIT_UNREACHABLE : EXIT_GOOD;
    }
    enum bh_status status = bh_kv_lmdb_open(&how, kv, error, sizeof(error));
    if (status == BH_OK) {
        struct bh_kv_txn *txn = NULL;
        status = bh_kv_begin(*kv, BH_KV_READ, NULL, &txn);
        if (status == BH_OK) {
            status = bh_queue_check_version(txn, error, sizeof(error));
            bh_kv_abort(txn);
        }
    }
    if (status == BH_OK || (!needed && *kv == NULL)) {
        return EXIT_GOOD;
    }
    bh_kv_close(*kv);
    *kv = NULL;
    if (!needed) {
        return EXIT_GOOD;
    }
    output_error(options, error[0] != 0 ? error : "the queue could not be opened",
                 bh_status_name(status));
    return EXIT_UNREACHABLE;
}

static bool needs_queue(enum bh_control_verb verb)
{
    return verb != BH_VERB_CONNECTORS && verb != BH_VERB_EXPLAIN && verb != BH_VERB_AUDIT;
}

int offline_ask(const struct options *options, const struct places *places,
                enum bh_control_verb verb, struct output *out)
{
    struct bh_control_request request;
    struct bh_control_error error;
    struct bh_kv *kv = NULL;
    struct bh_view *view = NULL;
    char *path = NULL;
    char *line = request_line(options, verb);
    int code = EXIT_BAD_USAGE;
    if (line == NULL || bh_control_parse(bh_slice_str(line), now_ms(), &request, &error) != BH_OK) {
        output_error(options, line != NULL ? error.what : "no memory",
                     line != NULL ? error.hint : NULL);
        free(line);
        return EXIT_BAD_USAGE;
    }
    if (options->path != NULL) {
        path = strdup(options->path);
    } else if (places->queue.len > 0) {
        path = strndup(places->queue.ptr, places->queue.len);
    }
    code = open_queue(options, path, needs_queue(verb), &kv);
    if (code == EXIT_GOOD) {
        const struct bh_view_options how = {
            .config = places->config,
            .events = options->events != NULL ? bh_slice_str(options->events) : BH_EMPTY,
            .now_unix_ms = now_ms()};
        if (bh_view_create(&request, &how, &view, &error) == BH_OK) {
            code = run_view(options, kv, view, out);
        } else {
            output_error(options, error.what[0] != 0 ? error.what : "no memory", error.hint);
            code = EXIT_BAD_USAGE;
        }
    }
    bh_view_destroy(view);
    bh_kv_close(kv);
    bh_control_request_fini(&request);
    free(path);
    free(line);
    return code;
}
