#include "bh/smtp_params.h"

#include "bh/smtp_address.h"
#include "bh/utf8.h"

#define BH_AUTH_PARAM_MAX 500 /* octets of the value of AUTH= (RFC 4954 5) */

/* One parameter: KEYWORD or KEYWORD=value, set off by blanks. */
struct param {
    struct bh_slice keyword;
    struct bh_slice value;
    bool has_value;
};

/* Takes the next parameter off the front. Returns false at the end. */
static bool next_param(struct bh_slice *text, struct param *param)
{
    const struct bh_slice word = bh_slice_word(text);
    const size_t equals = bh_slice_find(word, '=');
    param->keyword = bh_slice_take(word, equals);
    param->has_value = equals < word.len;
    param->value = param->has_value ? bh_slice_skip(word, equals + 1) : BH_EMPTY;
    return word.len > 0;
}

/* Parameters follow the path after a blank. */
static bool starts_well(struct bh_slice text)
{
    return text.len == 0 || text.ptr[0] == ' ' || text.ptr[0] == '\t';
}

static enum bh_params_status check(bool *seen, bool good)
{
    if (*seen) {
        return BH_PARAMS_TWICE;
    }
    *seen = true;
    return good ? BH_PARAMS_OK : BH_PARAMS_BAD_VALUE;
}

static bool read_ret(struct bh_slice value, enum bh_ret *ret)
{
    if (bh_slice_eq_nocase(value, BH_LIT("FULL"))) {
        *ret = BH_RET_FULL;
    } else if (bh_slice_eq_nocase(value, BH_LIT("HDRS"))) {
        *ret = BH_RET_HDRS;
    } else {
        return false;
    }
    return true;
}

/* BINARYMIME (RFC 3030) was not offered, so its value is as wrong as any other. */
static bool read_body(struct bh_slice value, enum bh_body *body)
{
    if (bh_slice_eq_nocase(value, BH_LIT("7BIT"))) {
        *body = BH_BODY_7BIT;
    } else if (bh_slice_eq_nocase(value, BH_LIT("8BITMIME"))) {
        *body = BH_BODY_8BITMIME;
    } else {
        return false;
    }
    return true;
}

/* Up to 20 digits (RFC 1870 4); what does not fit 64 bits is simply too much. */
static bool read_size(struct bh_slice value, uint64_t *size)
{
    if (bh_slice_u64(value, UINT64_MAX, size)) {
        return true;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (!bh_is_digit(value.ptr[i])) {
            return false;
        }
    }
    *size = UINT64_MAX;
    return value.len > 0 && value.len <= 20;
}

/* A mailbox in xtext, or <> (RFC 4954 5). */
static bool read_auth(struct bh_slice value)
{
    return bh_slice_eq(value, BH_LIT("<>")) ||
           (value.len > 0 && value.len <= BH_AUTH_PARAM_MAX && bh_xtext_valid(value));
}

struct mail_seen {
    bool ret;
    bool envid;
};

static enum bh_params_status mail_param(const struct param *p, struct bh_mail_params *params,
                                        struct mail_seen *seen)
{
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("SIZE"))) {
        return check(&params->has_size, read_size(p->value, &params->size));
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("BODY"))) {
        return check(&params->has_body, read_body(p->value, &params->body));
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("SMTPUTF8"))) {
        return check(&params->smtputf8, !p->has_value);
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("REQUIRETLS"))) {
        return check(&params->requiretls, !p->has_value);
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("AUTH"))) {
        return check(&params->has_auth, read_auth(p->value));
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("RET"))) {
        return check(&seen->ret, read_ret(p->value, &params->ret));
    }
    if (bh_slice_eq_nocase(p->keyword, BH_LIT("ENVID"))) {
        params->envid = p->value;
        return check(&seen->envid,
                     p->value.len > 0 && p->value.len <= BH_ENVID_MAX && bh_xtext_valid(p->value));
    }
    return BH_PARAMS_UNKNOWN;
}

enum bh_params_status bh_mail_params_parse(struct bh_slice text, struct bh_mail_params *params)
{
    *params = (struct bh_mail_params){.envid = BH_EMPTY};
    struct mail_seen seen = {0};
    enum bh_params_status status = starts_well(text) ? BH_PARAMS_OK : BH_PARAMS_SYNTAX;
    struct param param;
    while (status == BH_PARAMS_OK && next_param(&text, &param)) {
        status = mail_param(&param, params, &seen);
    }
    return status;
}

static uint8_t notify_bit(struct bh_slice word)
{
    static const struct {
        struct bh_slice name;
        uint8_t bit;
    } names[] = {
        {{"NEVER", 5}, BH_NOTIFY_NEVER},
        {{"SUCCESS", 7}, BH_NOTIFY_SUCCESS},
        {{"FAILURE", 7}, BH_NOTIFY_FAILURE},
        {{"DELAY", 5}, BH_NOTIFY_DELAY},
    };
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        if (bh_slice_eq_nocase(word, names[i].name)) {
            return names[i].bit;
        }
    }
    return 0;
}

/* NEVER alone, or a list of the others without a repeat (RFC 3461 4.1). */
static bool read_notify(struct bh_slice value, uint8_t *notify)
{
    *notify = 0;
    for (;;) {
        const size_t comma = bh_slice_find(value, ',');
        const uint8_t bit = notify_bit(bh_slice_take(value, comma));
        if (bit == 0 || (*notify & bit) != 0) {
            return false;
        }
        *notify = (uint8_t)(*notify | bit);
        if (comma == value.len) {
            break;
        }
        value = bh_slice_skip(value, comma + 1);
    }
    return (*notify & BH_NOTIFY_NEVER) == 0 || *notify == BH_NOTIFY_NEVER;
}

/* type;xtext. With SMTPUTF8 also "utf-8;" forms, whose unitext (RFC 6533 3) may hold UTF-8. */
static bool orcpt_valid(struct bh_slice value)
{
    const size_t semicolon = bh_slice_find(value, ';');
    if (value.len > BH_ORCPT_MAX || semicolon == 0 || semicolon >= value.len - 1) {
        return false;
    }
    const struct bh_slice type = bh_slice_take(value, semicolon);
    for (size_t i = 0; i < type.len; i++) {
        if (!bh_is_alpha(type.ptr[i]) && !bh_is_digit(type.ptr[i]) && type.ptr[i] != '-') {
            return false;
        }
    }
    const struct bh_slice address = bh_slice_skip(value, semicolon + 1);
    if (!bh_slice_eq_nocase(type, BH_LIT("utf-8"))) {
        return bh_xtext_valid(address);
    }
    for (size_t i = 0; i < address.len; i++) {
        const unsigned char c = (unsigned char)address.ptr[i];
        if (c < '!' || c == 127) {
            return false;
        }
    }
    return bh_utf8_valid(address);
}

enum bh_params_status bh_rcpt_params_parse(struct bh_slice text, struct bh_rcpt_params *params)
{
    *params = (struct bh_rcpt_params){.orcpt = BH_EMPTY};
    bool notify_seen = false;
    bool orcpt_seen = false;
    enum bh_params_status status = starts_well(text) ? BH_PARAMS_OK : BH_PARAMS_SYNTAX;
    struct param p;
    while (status == BH_PARAMS_OK && next_param(&text, &p)) {
        if (bh_slice_eq_nocase(p.keyword, BH_LIT("NOTIFY"))) {
            status = check(&notify_seen, read_notify(p.value, &params->notify));
        } else if (bh_slice_eq_nocase(p.keyword, BH_LIT("ORCPT"))) {
            params->orcpt = p.value;
            status = check(&orcpt_seen, p.value.len > 0 && orcpt_valid(p.value));
        } else {
            status = BH_PARAMS_UNKNOWN;
        }
    }
    return status;
}
