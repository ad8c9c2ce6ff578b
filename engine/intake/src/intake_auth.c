/* Who a client is: by AUTH, or by its certificate. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "bh/log.h"
#include "intake_internal.h"

/* --- by AUTH --- */

/* On a thread of the pool. */
static void run_judge(uv_work_t *work)
{
    struct auth_job *job = work->data;
    struct bh_buf challenge = bh_buf(job->challenge, sizeof(job->challenge));
    struct bh_auth_users *users = bh_auth_source_get(job->source);
    job->verdict =
        bh_auth_step(&job->exchange, users, bh_slice(job->mechanism, job->mechanism_len),
                     bh_slice(job->response, job->response_len), job->no_response, &challenge);
    job->challenge_len = challenge.len;
    OPENSSL_cleanse(job->response, job->response_len);
    bh_auth_users_unref(users);
}

static void tell(const struct session *s, const struct auth_job *job)
{
    const bool granted = job->verdict == BH_SERVER_AUTH_GRANTED;
    char ip[BH_IP_TEXT_MAX];
    char user[BH_LOG_QUOTE_MAX];
    if (granted || job->verdict == BH_SERVER_AUTH_DENIED) {
        bh_log(granted ? BH_LOG_INFO : BH_LOG_WARN, "evt=auth-%s listen=%s client=%s user=%s",
               granted ? "granted" : "denied", s->listener->text, bh_ip_text(&s->client, ip),
               bh_log_quote(bh_auth_exchange_user(&job->exchange), user));
    }
}

static void on_judged(uv_work_t *work, int status)
{
    struct auth_job *job = work->data;
    struct session *s = job->session;
    job->running = false;
    s->handles--;
    shared_auth_leave(s->intake->params.shared);
    if (s->stage == STAGE_CLOSED) {
        session_free_if_done(s);
        return;
    }
    if (status != 0) {
        job->verdict = BH_SERVER_AUTH_FAILED;
    }
    tell(s, job);
    if (job->verdict == BH_SERVER_AUTH_DENIED) {
        shared_auth_refused(s->intake->params.shared, &s->client, intake_now().mono_ms);
    }
    const struct bh_slice text = job->verdict == BH_SERVER_AUTH_GRANTED
                                     ? bh_auth_exchange_user(&job->exchange)
                                     : bh_slice(job->challenge, job->challenge_len);
    bh_server_on_auth(&s->server, job->verdict, text, intake_now());
    session_pump(s);
}

static bool submit(struct session *s, const struct bh_server_action *action)
{
    struct auth_job *job = s->auth;
    if (job == NULL) {
        job = calloc(1, sizeof(*job));
        s->auth = job;
    }
    if (job == NULL || s->listener->auth == NULL ||
        action->mechanism.len > sizeof(job->mechanism) ||
        action->bytes.len > sizeof(job->response) || !shared_auth_enter(s->intake->params.shared)) {
        return false;
    }
    BH_ASSERT(!job->running); /* The core asks one thing at a time. */
    job->session = s;
    job->source = s->listener->auth;
    job->work.data = job;
    job->no_response = action->no_response;
    job->mechanism_len = action->mechanism.len;
    memcpy(job->mechanism, action->mechanism.ptr, action->mechanism.len);
    job->response_len = action->bytes.len;
    memcpy(job->response, action->bytes.ptr, action->bytes.len);
    if (uv_queue_work(s->intake->params.loop, &job->work, run_judge, on_judged) != 0) {
        shared_auth_leave(s->intake->params.shared);
        return false;
    }
    job->running = true;
    s->handles++;
    return true;
}

void auth_judge(struct session *s, const struct bh_server_action *action)
{
    s->lent_secret = true;
    if (!submit(s, action)) {
        bh_server_on_auth(&s->server, BH_SERVER_AUTH_FAILED, BH_EMPTY, intake_now());
    }
}

void auth_free(struct auth_job *job)
{
    if (job != NULL) {
        BH_ASSERT(!job->running);
        OPENSSL_cleanse(job, sizeof(*job));
        free(job);
    }
}

/* --- by certificate --- */

static bool pinned(const struct bh_pins *pins, const uint8_t spki[BH_PIN_LEN])
{
    for (size_t i = 0; i < pins->count; i++) {
        if (memcmp(pins->at[i], spki, BH_PIN_LEN) == 0) {
            return true;
        }
    }
    return false;
}

bool auth_by_certificate(struct session *s)
{
    const struct bh_tls_facts *facts = bh_tls_facts(s->tls);
    const struct bh_listen_config *settings = s->settings;
    if (!settings->relay_certificate || !facts->has_spki) {
        return false;
    }
    const bool good = (settings->client_ca.len > 0 && facts->peer_authenticated) ||
                      pinned(&settings->client_pins, facts->spki);
    char ip[BH_IP_TEXT_MAX];
    char key[2 * BH_PIN_LEN + 1];
    char reason[BH_LOG_QUOTE_MAX];
    for (size_t i = 0; i < BH_PIN_LEN; i++) {
        snprintf(key + 2 * i, 3, "%02x", (unsigned)facts->spki[i]);
    }
    if (good) {
        snprintf(s->certificate, sizeof(s->certificate), "cert:%s", key);
        bh_log(BH_LOG_INFO, "evt=certificate-granted listen=%s client=%s spki=%s",
               s->listener->text, bh_ip_text(&s->client, ip), key);
    } else {
        bh_log(BH_LOG_WARN, "evt=certificate-denied listen=%s client=%s spki=%s reason=%s",
               s->listener->text, bh_ip_text(&s->client, ip), key,
               bh_log_quote(bh_slice_str(facts->verify_error), reason));
    }
    return good;
}
