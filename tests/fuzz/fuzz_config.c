/* Whatever a file holds: parsing ends; every message points into its file; and what parses comes
 * back from its printed form as the same configuration. "%%" on a line of its own parts the main
 * file from one it may include. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/config.h"

#define MAIN_FILE "/c/main.conf"
#define PRINT_MAX ((size_t)4 << 20)

struct files {
    struct bh_slice main, included;
};

static struct bh_slice file_of(const struct files *files, struct bh_slice path)
{
    return bh_slice_eq(path, bh_slice_str(MAIN_FILE)) ? files->main : files->included;
}

static enum bh_status read_file(void *ctx, const char *path, struct bh_arena *arena,
                                struct bh_slice *text)
{
    return bh_arena_copy(arena, file_of(ctx, bh_slice_str(path)), text) ? BH_OK : BH_ENOMEM;
}

static enum bh_status glob_files(void *ctx, const char *pattern, struct bh_arena *arena,
                                 struct bh_names *paths)
{
    (void)ctx;
    (void)pattern;
    struct bh_slice *list = bh_arena_alloc(arena, sizeof(*list));
    if (list == NULL) {
        return BH_ENOMEM;
    }
    list[0] = BH_LIT("/c/d/one.conf");
    *paths = (struct bh_names){list, 1};
    return BH_OK;
}

static enum bh_status file_exists(void *ctx, const char *path)
{
    (void)ctx;
    return path[0] == '/' ? BH_OK : BH_EIO;
}

/* The line and column are inside the file, or just behind its end. */
static void check_place(const struct files *files, const struct bh_config_error *error)
{
    if (error->line == 0) {
        return;
    }
    BH_ASSERT(bh_slice_starts(error->file, BH_LIT("/c/"))); /* never the built-in text */
    struct bh_slice rest = file_of(files, error->file);
    for (uint32_t line = 1; line < error->line; line++) {
        const size_t end = bh_slice_find(rest, '\n');
        BH_ASSERT(end < rest.len);
        rest = bh_slice_skip(rest, end + 1);
    }
    const size_t bom = 3; /* not counted as columns */
    BH_ASSERT(error->column >= 1 && error->column <= bh_slice_find(rest, '\n') + 1 + bom);
}

static const struct bh_config *parse(struct files *files, bool must)
{
    const struct bh_config_reader reader = {
        .ctx = files, .read = read_file, .glob = glob_files, .exists = file_exists};
    struct bh_config_errors *errors = malloc(sizeof(*errors));
    const struct bh_config *config = NULL;
    BH_ASSERT(errors != NULL);
    bh_config_errors_init(errors);
    const enum bh_status status = bh_config_parse(&reader, MAIN_FILE, 1, &config, errors);
    BH_ASSERT((status == BH_OK) == (errors->errors == 0));
    BH_ASSERT((config != NULL) == (status == BH_OK));
    for (size_t i = 0; i < errors->count; i++) {
        check_place(files, &errors->list[i]);
    }
    BH_ASSERT(!must || status == BH_OK);
    bh_config_errors_fini(errors);
    free(errors);
    return config;
}

static void count_change(void *ctx, const struct bh_config_change *change)
{
    (void)change;
    (*(size_t *)ctx)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[2][PRINT_MAX];
    struct bh_slice whole = bh_slice(data, size);
    const size_t cut = bh_slice_find_slice(whole, BH_LIT("\n%%\n"));
    struct files files = {bh_slice_take(whole, cut), bh_slice_skip(whole, cut + 4)};
    const struct bh_config *config = parse(&files, false);
    if (config == NULL) {
        return 0;
    }
    struct bh_buf first = bh_buf(text[0], PRINT_MAX);
    struct bh_buf second = bh_buf(text[1], PRINT_MAX);
    if (bh_config_print(config, &first) == BH_OK) {
        struct files printed = {bh_buf_slice(&first), BH_EMPTY};
        const struct bh_config *again = parse(&printed, true);
        size_t changes = 0;
        BH_ASSERT(bh_config_diff(config, again, count_change, &changes) == 0 && changes == 0);
        BH_ASSERT(bh_config_print(again, &second) == BH_OK);
        BH_ASSERT(bh_slice_eq(bh_buf_slice(&first), bh_buf_slice(&second)));
        bh_config_unref(again);
    }
    bh_config_unref(config);
    return 0;
}
