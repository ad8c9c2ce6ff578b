#include "daemon.h"

#include "bh/log.h"
#include "bh/tls.h"
#include "confine.h"
#include "control_peer.h"
#include "privileges.h"

#include <idn2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libidn2's STD3 flag deletes octets instead of refusing the name, so the result is checked here
 * (LIBRARIES, surprise 9). */
static bool is_ldh(const char *name)
{
    for (; *name != '\0'; name++) {
        const char c = *name;
        if (!bh_is_alpha(c) && !bh_is_digit(c) && c != '-' && c != '.' && c != '_' && c != '*') {
            return false;
        }
    }
    return true;
}

static bool to_ascii(void *ctx, struct bh_slice name, char out[256])
{
    char *ascii = NULL;
    char text[512];
    (void)ctx;
    if (name.len == 0 || name.len >= sizeof(text) || bh_slice_find(name, '\0') < name.len) {
        return false;
    }
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    const int error = idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    const bool good = error == IDN2_OK && strlen(ascii) < 256 && is_ldh(ascii);
    if (good) {
        for (size_t i = 0; i <= strlen(ascii); i++) {
            out[i] = bh_lower(ascii[i]);
        }
    }
    idn2_free(ascii);
    return good;
}

enum bh_status daemon_load_config(const char *path, uint64_t generation, struct bh_sandbox *sandbox,
                                  const struct bh_config **config, struct bh_config_errors *errors)
{
    struct bh_config_reader reader = bh_config_reader_posix();
    reader = confine_reader(&reader, sandbox);
    char hostname[256];
    reader.to_ascii = to_ascii;
    if (gethostname(hostname, sizeof(hostname)) == 0) {
        hostname[sizeof(hostname) - 1] = '\0';
        reader.hostname = hostname;
    }
    const struct bh_config *parsed = NULL;
    const enum bh_status status = bh_config_parse(&reader, path, generation, &parsed, errors);
    if (status != BH_OK) {
        return status;
    }
    if (!bh_config_check_supported(parsed, BH_CAN_NOW, errors)) {
        bh_config_unref(parsed);
        return BH_EINVAL;
    }
    struct control_groups groups;
    const bool user = privileges_check(parsed, errors);
    if (!control_groups_find(parsed, &groups, errors) || !user) {
        bh_config_unref(parsed);
        return BH_EINVAL;
    }
    *config = parsed;
    return BH_OK;
}

void daemon_set_log_level(const struct bh_config *config)
{
    bh_log_set_level(config->engine.log == BH_LOG_SET_ERROR  ? BH_LOG_ERROR
                     : config->engine.log == BH_LOG_SET_WARN ? BH_LOG_WARN
                     : config->engine.log == BH_LOG_SET_INFO ? BH_LOG_INFO
                                                             : BH_LOG_DEBUG);
}

bool daemon_waits_for_start(struct bh_slice setting)
{
    static const char *const names[] = {
        "engine user",    "engine group",        "engine workers",
        "engine control", "engine event-log",    "engine connections",
        "engine sandbox", "engine sandbox-read", "engine core-dumps",
        "listen",         "queue path",          "queue max-size",
        "queue reserve",  "queue fresh-window",
    };
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        if (bh_slice_eq(setting, bh_slice_str(names[i]))) {
            return true;
        }
    }
    return false;
}

/* As intake does it, to say at once what it would find. */
static void check_listener(const struct bh_listen_config *listen, struct bh_config_errors *errors)
{
    const struct bh_tls_server_params params = {.certificate = listen->certificate,
                                                .key = listen->key,
                                                .min_version = listen->min_version,
                                                .ask_client = listen->client_ca.len > 0 ||
                                                              listen->client_pins.count > 0,
                                                .client_ca = listen->client_ca};
    char storage[256];
    struct bh_buf reason = bh_buf(storage, sizeof(storage));
    struct bh_tls_server_ctx *ctx = NULL;
    if (bh_tls_server_ctx_create(&params, &ctx, &reason) == BH_OK) {
        bh_tls_server_ctx_destroy(ctx);
        return;
    }
    bh_config_errors_add(errors, BH_CONFIG_WARNING, listen->file, listen->line, 1,
                         "%.*s; this listener goes on with the certificate it has",
                         BH_FMT(bh_buf_slice(&reason)));
}

void daemon_check_listeners(const struct bh_config *config, struct bh_config_errors *errors)
{
    for (size_t i = 0; i < config->listens_count; i++) {
        if (config->listens[i].tls != BH_LISTEN_TLS_OFF) {
            check_listener(&config->listens[i], errors);
        }
    }
}
