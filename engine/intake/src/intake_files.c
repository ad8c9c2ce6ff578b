/* What a listener reads from files, and its configuration: taken up while it serves. Sessions keep
 * what they began with; a file with a fault leaves what is in force, and is told once. */
#include "bh/log.h"
#include "intake_internal.h"

enum bh_status files_load_tls(const struct bh_listen_config *settings,
                              struct bh_tls_server_ctx **ctx, struct bh_buf *error)
{
    if (settings->tls == BH_LISTEN_TLS_OFF) {
        *ctx = NULL;
        return BH_OK;
    }
    const struct bh_tls_server_params params = {.certificate = settings->certificate,
                                                .key = settings->key,
                                                .min_version = settings->min_version,
                                                .ask_client = settings->client_ca.len > 0 ||
                                                              settings->client_pins.count > 0,
                                                .client_ca = settings->client_ca};
    return bh_tls_server_ctx_create(&params, ctx, error);
}

/* Once for each fault, however often it is met. */
static void complain(struct listener *listener, struct bh_slice error)
{
    char reason[BH_LOG_QUOTE_MAX];
    struct bh_buf text = bh_buf(listener->complaint, sizeof(listener->complaint) - 1);
    if (bh_slice_eq(error, bh_slice_str(listener->complaint))) {
        return;
    }
    bh_buf_add_cut(&text, error);
    listener->complaint[text.len] = '\0';
    bh_log(BH_LOG_ERROR, "evt=listener-tls-bad listen=%s reason=%s in_force=\"%s\"", listener->text,
           bh_log_quote(error, reason),
           listener->tls != NULL ? "the certificate of before" : "none");
}

static void put_in_force(struct listener *listener, struct bh_tls_server_ctx *tls)
{
    bh_tls_server_ctx_destroy(listener->tls); /* Sessions have references of their own. */
    listener->tls = tls;
    listener->complaint[0] = '\0';
}

/* --- the configuration --- */

/* Take up a newer configuration, if it has this listener still. */
static void refresh(struct listener *listener)
{
    const struct bh_intake_hooks *hooks = &listener->intake->params.hooks;
    const struct bh_config *config = hooks->config(hooks->ctx);
    const struct bh_listen_config *settings =
        config->generation == listener->config->generation || listener->check.running
            ? NULL
            : intake_find_listen(config, bh_slice_str(listener->text));
    if (settings == NULL) {
        bh_config_unref(config);
        return;
    }
    char storage[256];
    struct bh_buf error = bh_buf(storage, sizeof(storage) - 1);
    const struct bh_config *old = listener->config;
    struct bh_tls_server_ctx *tls = NULL;
    listener->config = config;
    listener->settings = settings;
    if (files_load_tls(settings, &tls, &error) == BH_OK) {
        put_in_force(listener, tls);
    } else {
        complain(listener, bh_buf_slice(&error));
    }
    listener->auth = settings->auth_file.len > 0
                         ? shared_auth_source(listener->intake->params.shared, settings->auth_file)
                         : NULL;
    bh_config_unref(old);
}

const struct bh_listen_config *listener_settings(struct listener *listener)
{
    refresh(listener);
    return listener->settings;
}

/* --- files that change --- */

/* On a thread of the pool. */
static void run_check(uv_work_t *work)
{
    struct listener *listener = work->data;
    struct file_check *check = &listener->check;
    struct bh_buf error = bh_buf(check->error, sizeof(check->error) - 1);
    check->status = BH_OK;
    check->tls = NULL;
    if (listener->auth != NULL) {
        bh_auth_users_unref(bh_auth_source_get(listener->auth)); /* It tells its faults itself. */
    }
    if (listener->settings->tls != BH_LISTEN_TLS_OFF &&
        (listener->tls == NULL || bh_tls_server_ctx_stale(listener->tls))) {
        check->status = files_load_tls(listener->settings, &check->tls, &error);
    }
    check->error_len = error.len;
}

static void on_checked(uv_work_t *work, int status)
{
    struct listener *listener = work->data;
    struct file_check *check = &listener->check;
    struct bh_intake *intake = listener->intake;
    check->running = false;
    if (status == 0 && check->status != BH_OK) {
        complain(listener, bh_slice(check->error, check->error_len));
    } else if (status == 0 && check->tls != NULL) {
        put_in_force(listener, check->tls);
        bh_log(BH_LOG_INFO, "evt=listener-tls-new listen=%s", listener->text);
    }
    check->tls = NULL;
    intake->handles--;
    intake_release(intake);
}

static void on_files_timer(uv_timer_t *timer)
{
    struct bh_intake *intake = timer->data;
    for (size_t i = 0; i < intake->listener_count && !intake->draining; i++) {
        struct listener *listener = &intake->listeners[i];
        const bool has_files =
            listener->settings->tls != BH_LISTEN_TLS_OFF || listener->auth != NULL;
        if (!has_files || listener->check.running) {
            continue;
        }
        listener->check.work.data = listener;
        if (uv_queue_work(intake->params.loop, &listener->check.work, run_check, on_checked) == 0) {
            listener->check.running = true;
            intake->handles++;
        }
    }
}

void files_watch(struct bh_intake *intake)
{
    uv_timer_start(&intake->files_timer, on_files_timer, FILES_CHECK_MS, FILES_CHECK_MS);
}
