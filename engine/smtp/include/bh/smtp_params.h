/* smtp_params.h - the parameters of MAIL and RCPT (RFC 1870, 3461, 4954, 6152, 6531,
 * 8689). Pure. */
#pragma once

#include "bh/envelope.h"

enum bh_params_status {
    BH_PARAMS_OK,
    BH_PARAMS_UNKNOWN,   /* 555 5.5.4: a keyword that was not offered */
    BH_PARAMS_BAD_VALUE, /* 501 5.5.4: missing, superfluous or malformed value */
    BH_PARAMS_TWICE,     /* 501 5.5.4 */
    BH_PARAMS_SYNTAX,    /* 501 5.5.4: not a list of parameters */
};

struct bh_mail_params {
    bool has_size;
    bool has_body;
    bool smtputf8;
    bool requiretls;
    bool has_auth; /* AUTH= was given; its value is checked, and trusted in nothing */
    uint64_t size; /* octets, 0 if absent */
    enum bh_body body;
    enum bh_ret ret;
    struct bh_slice envid; /* borrowed from the text, as given */
};

struct bh_rcpt_params {
    uint8_t notify;        /* BH_NOTIFY_ bits */
    struct bh_slice orcpt; /* borrowed from the text, as given */
};

/** @param text what follows the path, from the blank on; empty is fine. *params is written in any
 * case */
BH_MUST_USE enum bh_params_status bh_mail_params_parse(struct bh_slice text,
                                                       struct bh_mail_params *params);
BH_MUST_USE enum bh_params_status bh_rcpt_params_parse(struct bh_slice text,
                                                       struct bh_rcpt_params *params);
