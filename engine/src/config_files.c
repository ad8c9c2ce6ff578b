#include "config_files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "bh/secrets.h"
#include "bh/unreadable.h"

struct walk {
    void (*each)(void *ctx, const struct config_file *file);
    void *ctx;
    struct bh_slice file;
    uint32_t line;
};

static void name(const struct walk *w, const char *what, struct bh_slice path,
                 enum config_file_kind kind)
{
    if (path.len > 0) {
        const struct config_file file = {
            .what = what, .path = path, .file = w->file, .line = w->line, .kind = kind};
        w->each(w->ctx, &file);
    }
}

static void name_demand(const struct walk *w, const struct bh_tls_demand *demand)
{
    name(w, "ca-file", demand->ca_file, CONFIG_FILE_OF_CONNECTOR);
    name(w, "client-certificate", demand->client_cert, CONFIG_FILE_OF_CONNECTOR);
    name(w, "client-key", demand->client_key, CONFIG_FILE_OF_CONNECTOR);
}

static void name_connector(struct walk *w, const struct bh_connector *c)
{
    w->file = c->file;
    w->line = c->line;
    name_demand(w, &c->tls.demand); /* exceptions and audits have other modes, not other files */
    name(w, "password-file", c->auth.password_file, CONFIG_FILE_SECRET);
    name(w, "token-file", c->auth.token_file, CONFIG_FILE_SECRET);
}

static void name_listener(struct walk *w, const struct bh_listen_config *listen)
{
    w->file = listen->file;
    w->line = listen->line;
    if (listen->tls != BH_LISTEN_TLS_OFF) {
        name(w, "certificate", listen->certificate, CONFIG_FILE_OF_ALL);
        name(w, "key", listen->key, CONFIG_FILE_OF_ALL);
        name(w, "client-ca", listen->client_ca, CONFIG_FILE_OF_ALL);
    }
    name(w, "auth-file", listen->auth_file, CONFIG_FILE_OF_ALL);
}

void config_files_each(const struct bh_config *config,
                       void (*each)(void *ctx, const struct config_file *file), void *ctx)
{
    struct walk w = {.each = each, .ctx = ctx};
    name(&w, "mta-sts ca-file", config->engine.mta_sts.ca_file, CONFIG_FILE_OF_ALL);
    for (size_t i = 0; i < config->listens_count; i++) {
        name_listener(&w, &config->listens[i]);
    }
    for (size_t i = 0; i < config->connectors_count; i++) {
        name_connector(&w, &config->connectors[i]);
    }
}

/* ---- can we? ---- */

/* A secret may come later, so it is no error; but say at once that mail will wait for it. */
static void check_secret(const struct config_file *file, struct bh_config_errors *errors)
{
    char storage[BH_UNREADABLE_MAX];
    struct bh_buf reason = bh_buf(storage, sizeof(storage));
    const enum bh_status status = bh_secret_check(file->path, &reason);
    if (status == BH_ELIMIT) {
        bh_config_errors_add(errors, BH_CONFIG_WARNING, file->file, file->line, 1, "%.*s",
                             BH_FMT(bh_buf_slice(&reason)));
    } else if (status != BH_OK) {
        bh_config_errors_add(errors, BH_CONFIG_WARNING, file->file, file->line, 1,
                             "%.*s; until it is readable the mail of this connector waits",
                             BH_FMT(bh_buf_slice(&reason)));
    }
}

struct checking {
    struct bh_config_errors *errors;
    bool starting;
};

static void check(void *ctx, const struct config_file *file)
{
    const struct checking *c = ctx;
    struct bh_config_errors *errors = c->errors;
    char text[BH_UNREADABLE_MAX];
    if (file->kind == CONFIG_FILE_SECRET) {
        check_secret(file, errors);
        return;
    }
    const int fd = open(file->path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        close(fd);
        return;
    }
    const char *why = bh_unreadable(file->path.ptr, errno, text);
    /* One partner's certificate is no reason to keep the daemon from starting for all. */
    const bool waits = file->kind == CONFIG_FILE_OF_CONNECTOR && c->starting;
    bh_config_errors_add(errors, waits ? BH_CONFIG_WARNING : BH_CONFIG_ERROR, file->file,
                         file->line, file->line > 0 ? 1 : 0, "%s %.*s: %s%s", file->what,
                         BH_FMT(bh_slice_take(file->path, 160)), why,
                         waits ? "; until it is readable the mail of this connector waits" : "");
}

void config_files_check(const struct bh_config *config, bool starting,
                        struct bh_config_errors *errors)
{
    struct checking c = {.errors = errors, .starting = starting};
    config_files_each(config, check, &c);
}
