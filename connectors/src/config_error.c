#include "bh/config_error.h"

#include <stdio.h>

#define TEXT_MAX 800
#define ARENA_CAP ((size_t)1 << 20)

void bh_config_errors_init(struct bh_config_errors *errors)
{
    errors->count = 0;
    errors->errors = 0;
    errors->warnings = 0;
    bh_arena_init(&errors->arena, ARENA_CAP);
}

void bh_config_errors_fini(struct bh_config_errors *errors)
{
    bh_arena_fini(&errors->arena);
    errors->count = 0;
}

void bh_config_errors_add(struct bh_config_errors *errors, enum bh_config_level level,
                          struct bh_slice file, uint32_t line, uint32_t column, const char *format,
                          ...)
{
    if (level == BH_CONFIG_ERROR) {
        errors->errors++;
    } else {
        errors->warnings++;
    }
    if (errors->count == BH_CONFIG_ERRORS_MAX) {
        return;
    }
    char text[TEXT_MAX + 1];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const size_t kept = len < 0 ? 0 : len < TEXT_MAX ? (size_t)len : TEXT_MAX;
    struct bh_config_error error = {.level = level, .line = line, .column = column};
    /* The collector outlives the configuration, so it keeps its own copy of the file's name. */
    if (bh_arena_copy(&errors->arena, file, &error.file) &&
        bh_arena_copy(&errors->arena, bh_slice(text, kept), &error.text)) {
        errors->list[errors->count++] = error;
    }
}

static const char *level_name(enum bh_config_level level)
{
    return level == BH_CONFIG_ERROR ? "error" : "warning";
}

void bh_config_error_text(const struct bh_config_error *error, struct bh_buf *out)
{
    char number[48];
    bh_buf_add_cut(out, error->file);
    const int len = error->line > 0
                        ? snprintf(number, sizeof(number), ":%u:%u: %s: ", error->line,
                                   error->column, level_name(error->level))
                        : snprintf(number, sizeof(number), ": %s: ", level_name(error->level));
    bh_buf_add_cut(out, bh_slice(number, (size_t)len));
    bh_buf_add_cut(out, error->text);
}

void bh_config_error_json(const struct bh_config_error *error, struct bh_json *json)
{
    bh_json_begin_object(json);
    bh_json_key(json, "file");
    bh_json_str(json, error->file);
    bh_json_key(json, "line");
    bh_json_u64(json, error->line);
    bh_json_key(json, "column");
    bh_json_u64(json, error->column);
    bh_json_key(json, "level");
    bh_json_cstr(json, level_name(error->level));
    bh_json_key(json, "text");
    bh_json_str(json, error->text);
    bh_json_end_object(json);
}
