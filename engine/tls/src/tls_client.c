/* The client side: the demand applied to each session. What the peer showed is judged in
 * tls_judge.c. */
#include <openssl/err.h>
#include <stdlib.h>

#include "clearance.h"
#include "tls_internal.h"

/* For peers whose firewalls drop a ClientHello of more than 256 octets or so. */
#define SMALL_CIPHERS                                                                        \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:" \
    "AES128-GCM-SHA256:AES128-SHA"
#define SMALL_GROUPS "X25519:P-256"

int bh_tls_version_number(enum bh_tls_version version)
{
    switch (version) {
    case BH_TLS_VERSION_NONE:
        return 0;
    case BH_TLS_VERSION_1_0:
        return TLS1_VERSION;
    case BH_TLS_VERSION_1_1:
        return TLS1_1_VERSION;
    case BH_TLS_VERSION_1_2:
        return TLS1_2_VERSION;
    case BH_TLS_VERSION_1_3:
        return TLS1_3_VERSION;
    }
    return 0;
}

/* OpenSSL hands over a session that can be resumed: with TLS 1.2 as the handshake ends, with 1.3 in
 * a later read. It is kept for exactly the demand that its handshake met, so not before that has
 * been judged. */
int bh_tls_on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct bh_tls *tls = SSL_get_ex_data(ssl, bh_tls_ex_index());
    if (tls == NULL || tls->worker == NULL || tls->key_len == 0 || tls->state == BH_TLS_FAILED) {
        return 0;
    }
    if (tls->state == BH_TLS_SHAKING) {
        SSL_SESSION_free(tls->early);
        tls->early = session;
        return 1;
    }
    return tls->met && bh_tls_resume_keep(tls->worker, tls, session) ? 1 : 0;
}

void bh_tls_keep_early(struct bh_tls *tls)
{
    if (tls->early != NULL && (!tls->met || !bh_tls_resume_keep(tls->worker, tls, tls->early))) {
        SSL_SESSION_free(tls->early);
    }
    tls->early = NULL;
}

struct bh_tls_worker *bh_tls_worker_create(uint32_t resume_max)
{
    const struct bh_tls_demand plain = {.mode = BH_TLS_OPPORTUNISTIC};
    struct bh_tls_worker *w = calloc(1, sizeof(*w));
    char text[64];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct tls_context *context = NULL;
    if (w == NULL || bh_tls_ex_index() < 0) {
        free(w);
        return NULL;
    }
    w->resume_max = resume_max;
    /* The one that most sessions use, with the system's authorities: now, not in a handshake. */
    if (bh_tls_context_of(w, &plain, &context, &error) != BH_OK) {
        bh_tls_worker_destroy(w);
        return NULL;
    }
    return w;
}

void bh_tls_worker_destroy(struct bh_tls_worker *worker)
{
    if (worker != NULL) {
        bh_tls_resume_clear(worker);
        bh_tls_contexts_clear(worker);
        free(worker);
    }
}

/* A slice as a C string for OpenSSL. @return false: too long, or with a NUL inside */
static bool c_string(struct bh_slice s, char *text, size_t cap)
{
    if (s.len >= cap || (s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL)) {
        return false;
    }
    if (s.len > 0) {
        memcpy(text, s.ptr, s.len);
    }
    text[s.len] = '\0';
    return true;
}

static bool set_versions(SSL *ssl, const struct bh_tls_demand *demand, bool small_hello)
{
    const enum bh_tls_version floor =
        demand->min_version != BH_TLS_VERSION_NONE ? demand->min_version : BH_TLS_VERSION_1_2;
    enum bh_tls_version ceiling = demand->max_version;
    if (small_hello && floor <= BH_TLS_VERSION_1_2 &&
        (ceiling == BH_TLS_VERSION_NONE || ceiling > BH_TLS_VERSION_1_2)) {
        ceiling = BH_TLS_VERSION_1_2; /* what 1.3 adds is most of the hello */
    }
    if (floor < BH_TLS_VERSION_1_2) {
        SSL_set_security_level(ssl, 0); /* level 1 already refuses TLS 1.0 and 1.1 */
    }
    return SSL_set_min_proto_version(ssl, bh_tls_version_number(floor)) == 1 &&
           SSL_set_max_proto_version(ssl, bh_tls_version_number(ceiling)) == 1;
}

static bool set_ciphers(SSL *ssl, const struct bh_tls_demand *demand, bool small_hello)
{
    char text[2048];
    char groups[] = SMALL_GROUPS;
    bool good = true;
    if (demand->ciphers.len > 0) {
        good = c_string(demand->ciphers, text, sizeof(text)) && SSL_set_cipher_list(ssl, text) == 1;
    } else if (small_hello) {
        good = SSL_set_cipher_list(ssl, SMALL_CIPHERS) == 1;
    }
    if (good && demand->ciphersuites.len > 0) {
        good = c_string(demand->ciphersuites, text, sizeof(text)) &&
               SSL_set_ciphersuites(ssl, text) == 1;
    }
    if (good && small_hello) {
        SSL_set_options(ssl, SSL_OP_NO_TICKET);
        good = SSL_set1_groups_list(ssl, groups) == 1;
    }
    return good;
}

static bool is_address(const char *host)
{
    struct bh_ip ip;
    return bh_ip_parse(bh_slice_str(host), &ip);
}

/* The name goes into SNI, and is what TLSA records are for. */
static bool set_names(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    char sni[256];
    struct bh_slice host = p->host;
    if (host.len > 0 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    const struct bh_slice name = p->demand->sni.len > 0 ? p->demand->sni : host;
    if (!c_string(host, tls->host, sizeof(tls->host)) || !c_string(name, sni, sizeof(sni))) {
        return false;
    }
    const bool named = sni[0] != '\0' && !is_address(sni);
    if (named && SSL_set_tlsext_host_name(tls->ssl, sni) != 1) {
        return false;
    }
    /* Where the demand names nobody, the facts are about the host. */
    const struct bh_slice own = bh_slice_str(tls->host);
    const bool listed = (p->demand->mode == BH_TLS_VERIFY || p->demand->mode == BH_TLS_DANE) &&
                        p->demand->names.count > 0;
    const struct bh_names names = listed ? p->demand->names : (struct bh_names){&own, 1};
    bool good = false;
    tls->names = bh_tls_names_copy(&names, &good);
    return good;
}

static bool copy_pins(struct bh_tls *tls, const struct bh_tls_demand *demand)
{
    if (demand->mode != BH_TLS_PIN) {
        return true;
    }
    tls->pins = malloc(demand->pins.count * sizeof(*tls->pins));
    if (tls->pins == NULL) {
        return false;
    }
    memcpy(tls->pins, demand->pins.at, demand->pins.count * sizeof(*tls->pins));
    tls->pins_count = demand->pins.count;
    return true;
}

/* Records that OpenSSL refuses (a digest of the wrong length) match nothing; without one that it
 * takes, the demand is not met. */
static bool set_tlsa(struct bh_tls *tls, const struct bh_tls_demand *demand)
{
    if (demand->mode != BH_TLS_DANE) {
        return true;
    }
    const char *sni = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);
    if (SSL_dane_enable(tls->ssl, sni != NULL ? sni : tls->host) < 1) {
        return false;
    }
    for (size_t i = 0; i < demand->tlsa.count; i++) {
        const struct bh_tlsa *r = &demand->tlsa.at[i];
        const bool usable = r->usage == USAGE_TA || r->usage == USAGE_EE;
        /* OpenSSL takes usages 0 and 1, too; they mean nothing to SMTP (RFC 7672 section 3.1.3). */
        if (usable && SSL_dane_tlsa_add(tls->ssl, r->usage, r->selector, r->matching,
                                        (const unsigned char *)r->data.ptr, r->data.len) < 0) {
            return false;
        }
    }
    return SSL_set1_host(tls->ssl, NULL) == 1; /* names are compared by bh_tls_judge */
}

static bool set_key(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    struct bh_buf key = bh_buf(tls->key, sizeof(tls->key));
    char port[2];
    bh_put_be16(port, p->port);
    bh_buf_put(&key, bh_slice(tls->digest, sizeof(tls->digest)));
    bh_buf_put(&key, bh_slice(port, sizeof(port)));
    if (bh_buf_add(&key, bh_slice_str(tls->host)) != BH_OK) {
        return false;
    }
    tls->key_len = p->small_hello ? 0 : key.len;
    return true;
}

static bool set_session(struct bh_tls *tls)
{
    const struct tls_resume *known =
        tls->key_len > 0 ? bh_tls_resume_find(tls->worker, bh_slice(tls->key, tls->key_len)) : NULL;
    if (known == NULL) {
        return true;
    }
    tls->prior = known->facts;
    tls->valid_until_unix = known->valid_until_unix;
    tls->prior_until_ms = known->until_ms;
    tls->has_prior = true;
    return SSL_set_session(tls->ssl, known->session) == 1;
}

static bool configure(struct bh_tls *tls, const struct bh_tls_client_params *p)
{
    tls->mode = p->demand->mode;
    /* A peer that fails is told of exactly, so that nothing ends the handshake: bh_tls_judge looks
     * at it when it is done, and bh_tls_write sends nothing to a peer that has not met the demand.
     */
    SSL_set_verify(tls->ssl, SSL_VERIFY_NONE, bh_tls_note_verify);
    return set_versions(tls->ssl, p->demand, p->small_hello) &&
           set_ciphers(tls->ssl, p->demand, p->small_hello) && set_names(tls, p) &&
           copy_pins(tls, p->demand) && set_tlsa(tls, p->demand) && set_key(tls, p) &&
           set_session(tls);
}

static enum bh_status make(struct bh_tls_worker *worker, const struct bh_tls_client_params *params,
                           const struct tls_context *context, struct bh_tls *tls,
                           struct bh_buf *error)
{
    tls->worker = worker;
    tls->connection = params->connection;
    tls->generation = params->generation;
    const enum bh_status status = bh_tls_context_digest(context, params->demand, tls->digest);
    if (status != BH_OK) {
        return status;
    }
    ERR_clear_error();
    if (!configure(tls, params)) {
        const char *why = ERR_reason_error_string(ERR_peek_last_error());
        bh_buf_add_cut(error, BH_LIT("versions, ciphers or names of this TLS demand are refused"));
        bh_buf_add_cut(error, why != NULL ? BH_LIT(": ") : BH_EMPTY);
        bh_buf_add_cut(error, why != NULL ? bh_slice_str(why) : BH_EMPTY);
        ERR_clear_error();
        return BH_EINVAL;
    }
    return BH_OK;
}

enum bh_status bh_tls_client_create(struct bh_tls_worker *worker,
                                    const struct bh_tls_client_params *params, struct bh_tls **tls,
                                    struct bh_buf *error)
{
    const struct bh_tls_demand *demand = params->demand;
    if (!bh_tls_demand_is_effective(demand) || demand->mode == BH_TLS_OFF ||
        params->connection == 0) {
        bh_buf_add_cut(error, BH_LIT("this TLS demand can't be enforced"));
        return BH_EINVAL;
    }
    if (params->generation != worker->generation) {
        worker->generation = params->generation; /* a reload: files may have changed with it */
        (void)bh_tls_worker_refresh(worker);
    }
    struct tls_context *context = NULL;
    enum bh_status status = bh_tls_context_of(worker, demand, &context, error);
    if (status != BH_OK) {
        return status;
    }
    struct bh_tls *new = bh_tls_wrap(context->ctx, true);
    status = new != NULL ? make(worker, params, context, new, error) : BH_ENOMEM;
    if (status != BH_OK) {
        bh_tls_destroy(new);
        return status;
    }
    *tls = new;
    return BH_OK;
}

struct bh_clearance *bh_clearance_of_tls(const struct bh_tls *tls)
{
    if (!tls->client || tls->state != BH_TLS_UP || !tls->met) {
        return NULL;
    }
    const bool asked =
        tls->mode == BH_TLS_VERIFY || tls->mode == BH_TLS_PIN || tls->mode == BH_TLS_DANE;
    return bh_clearance_create(true, asked && tls->facts.peer_authenticated, tls->connection,
                               tls->generation, tls->digest);
}
