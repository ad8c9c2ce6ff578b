/* Configurations read by the tool: quietly for where things are, aloud for `check`. */
#include <idn2.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bhctl.h"

/* A name with letters beyond ASCII as the A-label that DNS knows. */
static bool to_ascii(void *ctx, struct bh_slice name, char out[256])
{
    (void)ctx;
    char text[1024];
    char *ascii = NULL;
    if (name.len >= sizeof(text)) {
        return false;
    }
    memcpy(text, name.ptr, name.len);
    text[name.len] = 0;
    const int result = idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    const bool good = result == IDN2_OK && strlen(ascii) < 256;
    if (good) {
        memcpy(out, ascii, strlen(ascii) + 1);
    }
    if (result == IDN2_OK) {
        idn2_free(ascii);
    }
    return good;
}

static enum bh_status parse(const char *path, const struct bh_config **config,
                            struct bh_config_errors *errors)
{
    struct bh_config_reader reader = bh_config_reader_posix();
    reader.to_ascii = to_ascii;
    return bh_config_parse(&reader, path, 0, config, errors);
}

const struct bh_config *load_config(const char *path)
{
    struct bh_config_errors *errors = malloc(sizeof(*errors));
    const struct bh_config *config = NULL;
    if (errors == NULL) {
        return NULL;
    }
    bh_config_errors_init(errors);
    if (parse(path, &config, errors) != BH_OK) {
        config = NULL;
    }
    bh_config_errors_fini(errors);
    free(errors);
    return config;
}

void places_find(const char *path, struct places *places)
{
    *places = (struct places){.config = load_config(path), .queue = BH_EMPTY};
    if (places->config != NULL) {
        places->control = places->config->engine.control;
        places->queue = places->config->queue.path;
        return;
    }
    const struct bh_config_reader reader = bh_config_reader_posix();
    if (bh_config_peek(&reader, path, &places->peeked) == BH_OK) {
        places->control = places->peeked.control;
        places->queue = places->peeked.queue;
    }
}

void places_fini(struct places *places)
{
    bh_config_places_fini(&places->peeked);
    bh_config_unref(places->config);
}

static void print_errors(const struct options *options, const struct bh_config_errors *errors)
{
    char text[4096];
    for (size_t i = 0; i < errors->count; i++) {
        if (options->json) {
            struct bh_json j = {.buf = bh_buf(text, sizeof(text))};
            bh_config_error_json(&errors->list[i], &j);
            printf("%s%.*s", i > 0 ? ",\n" : "{\"rows\":[\n", BH_FMT(bh_buf_slice(&j.buf)));
        } else {
            struct bh_buf buf = bh_buf(text, sizeof(text) - 1);
            bh_config_error_text(&errors->list[i], &buf);
            text[buf.len] = 0;
            put_safe(stdout, text);
            putchar('\n');
        }
    }
}

int check_file(const struct options *options, const char *path)
{
    struct bh_config_errors *errors = malloc(sizeof(*errors));
    const struct bh_config *config = NULL;
    if (errors == NULL) {
        return EXIT_NEGATIVE;
    }
    bh_config_errors_init(errors);
    const enum bh_status status = parse(path, &config, errors);
    if (status == BH_OK) {
        (void)bh_config_check_supported(config, BH_CAN_NOW, errors);
        bh_config_check_dates(config, (int64_t)time(NULL) * 1000, errors);
    }
    const bool good = status == BH_OK && errors->errors == 0;
    print_errors(options, errors);
    if (options->json) {
        printf("%s],\"end\":{\"good\":%s,\"errors\":%zu,\"warnings\":%zu}}\n",
               errors->count > 0 ? "\n" : "{\"rows\":[", good ? "true" : "false", errors->errors,
               errors->warnings);
    } else if (good) {
        printf("%s is good: %zu connectors%s\n", path, config->connectors_count,
               errors->warnings > 0 ? ", with warnings" : "");
    } else {
        printf("%zu error%s. The running configuration is untouched.\n", errors->errors,
               errors->errors == 1 ? "" : "s");
    }
    if (status == BH_OK) {
        bh_config_unref(config);
    }
    bh_config_errors_fini(errors);
    free(errors);
    return good ? EXIT_GOOD : EXIT_NEGATIVE;
}
