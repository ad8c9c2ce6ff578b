/* The exchanges of PLAIN and LOGIN, and the way into SCRAM. */
#include <openssl/crypto.h>

#include "server_internal.h"

static enum bh_server_verdict ask(struct bh_auth_exchange *e, enum bh_auth_exchange_state state,
                                  const char *text, struct bh_buf *challenge)
{
    e->state = state;
    return auth_base64_encode(bh_slice_str(text), challenge) == BH_OK ? BH_SERVER_AUTH_MORE
                                                                      : BH_SERVER_AUTH_FAILED;
}

/* False: it is no name that a user can have. */
static bool keep_user(struct bh_auth_exchange *e, struct bh_slice name)
{
    if (name.len == 0 || name.len > sizeof(e->user) || memchr(name.ptr, '\0', name.len) != NULL) {
        return false;
    }
    memcpy(e->user, name.ptr, name.len);
    e->user_len = (uint16_t)name.len;
    return true;
}

static enum bh_server_verdict judge(struct bh_auth_exchange *e, const struct bh_auth_users *users,
                                    struct bh_slice password)
{
    return auth_password_good(users, bh_auth_exchange_user(e), password) ? BH_SERVER_AUTH_GRANTED
                                                                         : BH_SERVER_AUTH_DENIED;
}

/* [authorize-as] NUL name NUL password (RFC 4616). Nobody may act for somebody else. */
static enum bh_server_verdict on_plain(struct bh_auth_exchange *e,
                                       const struct bh_auth_users *users, struct bh_slice message)
{
    const size_t first = bh_slice_find(message, '\0');
    const struct bh_slice acting_for = bh_slice_take(message, first);
    const struct bh_slice rest = bh_slice_skip(message, first + 1);
    const size_t second = bh_slice_find(rest, '\0');
    const struct bh_slice name = bh_slice_take(rest, second);
    if (first >= message.len || second >= rest.len || !keep_user(e, name)) {
        return BH_SERVER_AUTH_GARBLED;
    }
    const enum bh_server_verdict verdict = judge(e, users, bh_slice_skip(rest, second + 1));
    return acting_for.len == 0 || bh_slice_eq(acting_for, name) ? verdict : BH_SERVER_AUTH_DENIED;
}

static enum bh_server_verdict on_login_user(struct bh_auth_exchange *e, struct bh_slice message,
                                            struct bh_buf *challenge)
{
    return keep_user(e, message) ? ask(e, BH_EXCHANGE_LOGIN_PASS, "Password:", challenge)
                                 : BH_SERVER_AUTH_GARBLED;
}

static enum bh_server_verdict go_on(struct bh_auth_exchange *e, const struct bh_auth_users *users,
                                    struct bh_slice message, struct bh_buf *challenge)
{
    switch (e->state) {
    case BH_EXCHANGE_IDLE:
        break;
    case BH_EXCHANGE_PLAIN:
        return on_plain(e, users, message);
    case BH_EXCHANGE_LOGIN_USER:
        return on_login_user(e, message, challenge);
    case BH_EXCHANGE_LOGIN_PASS:
        return judge(e, users, message);
    case BH_EXCHANGE_SCRAM_FIRST:
        return auth_scram_first(e, users, message, challenge);
    case BH_EXCHANGE_SCRAM_FINAL:
        return auth_scram_final(e, message, challenge);
    case BH_EXCHANGE_SCRAM_END:
        return message.len == 0 ? BH_SERVER_AUTH_GRANTED : BH_SERVER_AUTH_GARBLED;
    }
    return BH_SERVER_AUTH_GARBLED;
}

/* False: not known, or not offered. */
static bool begin(struct bh_auth_exchange *e, const struct bh_auth_users *users,
                  struct bh_slice mechanism)
{
    OPENSSL_cleanse(e, sizeof(*e));
    if (bh_slice_eq_nocase(mechanism, BH_LIT("PLAIN"))) {
        e->state = BH_EXCHANGE_PLAIN;
    } else if (bh_slice_eq_nocase(mechanism, BH_LIT("LOGIN"))) {
        e->state = BH_EXCHANGE_LOGIN_USER;
    } else if (bh_slice_eq_nocase(mechanism, BH_LIT("SCRAM-SHA-256")) && users->all_scram) {
        e->state = BH_EXCHANGE_SCRAM_FIRST;
    }
    return e->state != BH_EXCHANGE_IDLE;
}

enum bh_server_verdict bh_auth_step(struct bh_auth_exchange *e, const struct bh_auth_users *users,
                                    struct bh_slice mechanism, struct bh_slice response,
                                    bool no_response, struct bh_buf *challenge)
{
    char storage[BH_AUTH_DECODED_MAX];
    struct bh_buf message = bh_buf(storage, sizeof(storage));
    if (users == NULL || (mechanism.len > 0 && !begin(e, users, mechanism))) {
        return BH_SERVER_AUTH_FAILED;
    }
    if (no_response) {
        return ask(e, e->state, e->state == BH_EXCHANGE_LOGIN_USER ? "Username:" : "", challenge);
    }
    if (auth_base64_decode(response, &message) != BH_OK) {
        return BH_SERVER_AUTH_GARBLED;
    }
    const enum bh_server_verdict verdict = go_on(e, users, bh_buf_slice(&message), challenge);
    if (verdict != BH_SERVER_AUTH_MORE) {
        e->state = BH_EXCHANGE_IDLE;
    }
    OPENSSL_cleanse(storage, sizeof(storage));
    return verdict;
}

struct bh_slice bh_auth_exchange_user(const struct bh_auth_exchange *e)
{
    return bh_slice(e->user, e->user_len);
}
