/* AUTH (RFC 4954): who may have our credentials, and where they come from. */
#include "delivery_internal.h"

bool bh_delivery_may_credential(const struct bh_delivery *d)
{
    if (!bh_clearance_valid(d->clearance, d->params.id, d->params.generation, d->digest)) {
        return false;
    }
    if (bh_clearance_is_authenticated(d->clearance)) {
        return d->tls != NULL && bh_tls_state(d->tls) == BH_TLS_UP;
    }
    const bool excepted = bh_delivery_now(d).unix_ms < d->params.auth.unauthenticated_until_unix_ms;
    const bool off = d->won != NULL && d->params.targets[d->won->target].demand->mode == BH_TLS_OFF;
    return excepted && (bh_clearance_is_tls(d->clearance) || off);
}

void bh_delivery_end_sasl(struct bh_delivery *d)
{
    bh_sasl_destroy(d->sasl);
    d->sasl = NULL;
}

/* @return false: the core was told why not */
static bool create(struct bh_delivery *d, uint32_t mechanism, struct bh_buf *error)
{
    const struct bh_delivery_auth *auth = &d->params.auth;
    struct bh_slice secret;
    enum bh_status status = bh_secrets_get(d->worker->secrets, auth->secret_file, &secret, error);
    if (status == BH_OK) {
        const struct bh_sasl_params params = {
            .mechanism = mechanism, .user = auth->user, .secret = secret, .nonce = BH_EMPTY};
        bh_delivery_end_sasl(d);
        status = bh_sasl_create(&params, &d->sasl, error);
    }
    if (status == BH_OK) {
        return true;
    }
    bh_delivery_fail_core(
        d, BH_STAGE_AUTH, status == BH_ENOMEM ? BH_HAPPENED_OUR_RESOURCE : BH_HAPPENED_OUR_SECRET,
        error->len > 0 ? bh_buf_slice(error) : BH_LIT("no memory for authentication"));
    return false;
}

void bh_delivery_want_sasl(struct bh_delivery *d, const struct bh_client_action *action)
{
    char text[FAILURE_TEXT_MAX];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_slice response;
    if (!bh_delivery_may_credential(d)) {
        bh_delivery_fail_core(d, BH_STAGE_AUTH, BH_HAPPENED_TLS_UNVERIFIED,
                              BH_LIT("credentials go to an authenticated peer only"));
        return;
    }
    if (action->begin) {
        if (!create(d, action->mechanism, &error)) {
            return;
        }
        bh_sasl_begin(d->sasl, &response);
    } else {
        const enum bh_status status = bh_sasl_answer(d->sasl, action->challenge, &response, &error);
        if (status != BH_OK) {
            bh_delivery_fail_core(
                d, BH_STAGE_AUTH,
                status == BH_EPROTO ? BH_HAPPENED_GARBLED : BH_HAPPENED_OUR_RESOURCE,
                error.len > 0 ? bh_buf_slice(&error) : BH_LIT("no memory for authentication"));
            return;
        }
    }
    bh_client_on_sasl(&d->client, response, bh_sasl_complete(d->sasl), bh_delivery_now(d));
}
