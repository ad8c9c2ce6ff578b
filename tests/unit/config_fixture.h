/* config_fixture.h - configurations of tests: files in memory, errors as text. */
#pragma once

#include <stdio.h>

#include "bh/config.h"

struct memory_file {
    const char *path;
    const char *text;
};

/* ctx: memory_files, ended by a NULL path. */
static enum bh_status memory_read(void *ctx, const char *path, struct bh_arena *arena,
                                  struct bh_slice *text)
{
    for (const struct memory_file *file = ctx; file->path != NULL; file++) {
        if (strcmp(file->path, path) == 0) {
            return bh_arena_copy(arena, bh_slice_str(file->text), text) ? BH_OK : BH_ENOMEM;
        }
    }
    return BH_ENOTFOUND;
}

/* "PREFIX*SUFFIX"; the files stand sorted in their table. */
static enum bh_status memory_glob(void *ctx, const char *pattern, struct bh_arena *arena,
                                  struct bh_names *paths)
{
    const struct bh_slice whole = bh_slice_str(pattern);
    const size_t star = bh_slice_find(whole, '*');
    const struct bh_slice prefix = bh_slice(whole.ptr, star);
    const struct bh_slice suffix = bh_slice_skip(whole, star + 1);
    struct bh_slice *list = bh_arena_alloc(arena, 32 * sizeof(*list));
    size_t count = 0;
    if (list == NULL) {
        return BH_ENOMEM;
    }
    for (const struct memory_file *file = ctx; file->path != NULL && count < 32; file++) {
        const struct bh_slice path = bh_slice_str(file->path);
        if (bh_slice_starts(path, prefix) && bh_slice_ends_nocase(path, suffix)) {
            list[count++] = path;
        }
    }
    *paths = (struct bh_names){list, count};
    return BH_OK;
}

/* Whatever is named missing is missing. */
static enum bh_status memory_exists(void *ctx, const char *path)
{
    (void)ctx;
    return strstr(path, "missing") != NULL ? BH_ENOTFOUND : BH_OK;
}

static bool memory_to_ascii(void *ctx, struct bh_slice name, char out[256])
{
    (void)ctx;
    if (!bh_slice_eq(name, BH_LIT("b\xC3\xBC"
                                  "cher.example"))) {
        return false;
    }
    snprintf(out, 256, "xn--bcher-kva.example");
    return true;
}

static inline struct bh_config_reader memory_reader(struct memory_file *files)
{
    return (struct bh_config_reader){.ctx = files,
                                     .read = memory_read,
                                     .glob = memory_glob,
                                     .exists = memory_exists,
                                     .to_ascii = memory_to_ascii,
                                     .hostname = "this.host.example"};
}

/* All errors and warnings, a line each. */
static inline const char *errors_text(const struct bh_config_errors *errors)
{
    static char text[32768];
    struct bh_buf out = bh_buf(text, sizeof(text) - 1);
    for (size_t i = 0; i < errors->count; i++) {
        bh_config_error_text(&errors->list[i], &out);
        bh_buf_add_cut(&out, BH_LIT("\n"));
    }
    text[out.len] = '\0';
    return text;
}

/* Parse one text as "t.conf". @return the configuration, or NULL with the errors in *told */
static inline const struct bh_config *parse_text(const char *text, const char **told)
{
    struct memory_file files[] = {{"t.conf", text}, {NULL, NULL}};
    const struct bh_config_reader reader = memory_reader(files);
    struct bh_config_errors errors;
    const struct bh_config *config = NULL;
    bh_config_errors_init(&errors);
    if (bh_config_parse(&reader, "t.conf", 1, &config, &errors) != BH_OK) {
        config = NULL;
    }
    *told = errors_text(&errors);
    bh_config_errors_fini(&errors);
    return config;
}
