#include "bh/smtp_reply.h"

static void parse_size(struct bh_slice rest, struct bh_ehlo *ehlo)
{
    ehlo->extensions |= BH_EXT_SIZE;
    uint64_t size = 0;
    if (bh_slice_u64(bh_slice_word(&rest), UINT64_MAX, &size)) {
        ehlo->size = size; /* 0 states that there is no fixed limit (RFC 1870 section 4) */
    }
}

static void parse_auth(struct bh_slice rest, struct bh_ehlo *ehlo)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } mechs[] = {
        {"PLAIN", BH_SASL_PLAIN},       {"LOGIN", BH_SASL_LOGIN},
        {"CRAM-MD5", BH_SASL_CRAM_MD5}, {"SCRAM-SHA-256", BH_SASL_SCRAM_SHA_256},
        {"XOAUTH2", BH_SASL_XOAUTH2},
    };
    ehlo->extensions |= BH_EXT_AUTH;
    while (rest.len > 0) {
        const struct bh_slice word = bh_slice_word(&rest);
        for (size_t i = 0; i < sizeof(mechs) / sizeof(mechs[0]); i++) {
            if (bh_slice_eq_nocase(word, bh_slice_str(mechs[i].name))) {
                ehlo->auth |= mechs[i].bit;
            }
        }
    }
}

/* RFC 9422 section 4: NAME=VALUE pairs; a syntax error anywhere voids the whole keyword, an unknown
 * name does not. */
static void parse_limits(struct bh_slice rest, struct bh_ehlo *ehlo)
{
    struct bh_ehlo found = *ehlo;
    while (bh_slice_trim(rest).len > 0) {
        const struct bh_slice word = bh_slice_word(&rest);
        const size_t equals = bh_slice_find(word, '=');
        const struct bh_slice name = bh_slice_take(word, equals);
        uint64_t value = 0;
        if (equals == 0 || equals == word.len || equals + 1 == word.len) {
            return;
        }
        const bool number = bh_slice_u64(bh_slice_skip(word, equals + 1), 999999, &value);
        uint32_t *field = NULL;
        if (bh_slice_eq_nocase(name, BH_LIT("MAILMAX"))) {
            field = &found.mail_max;
        } else if (bh_slice_eq_nocase(name, BH_LIT("RCPTMAX"))) {
            field = &found.rcpt_max;
        } else if (bh_slice_eq_nocase(name, BH_LIT("RCPTDOMAINMAX"))) {
            field = &found.rcpt_domain_max;
        }
        if (field != NULL) {
            if (!number || value == 0) {
                return;
            }
            *field = (uint32_t)value;
        }
    }
    *ehlo = found;
    ehlo->extensions |= BH_EXT_LIMITS;
}

static void parse_line(struct bh_slice line, struct bh_ehlo *ehlo)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } flags[] = {
        {"8BITMIME", BH_EXT_8BITMIME},
        {"SMTPUTF8", BH_EXT_SMTPUTF8},
        {"DSN", BH_EXT_DSN},
        {"PIPELINING", BH_EXT_PIPELINING},
        {"CHUNKING", BH_EXT_CHUNKING},
        {"STARTTLS", BH_EXT_STARTTLS},
        {"REQUIRETLS", BH_EXT_REQUIRETLS},
        {"ENHANCEDSTATUSCODES", BH_EXT_ENHANCEDSTATUSCODES},
        {"BINARYMIME", BH_EXT_BINARYMIME},
    };
    const struct bh_slice keyword = bh_slice_word(&line);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (bh_slice_eq_nocase(keyword, bh_slice_str(flags[i].name))) {
            ehlo->extensions |= flags[i].bit;
            return;
        }
    }
    if (bh_slice_eq_nocase(keyword, BH_LIT("SIZE"))) {
        parse_size(line, ehlo);
    } else if (bh_slice_eq_nocase(keyword, BH_LIT("LIMITS"))) {
        parse_limits(line, ehlo);
    } else if (bh_slice_eq_nocase(keyword, BH_LIT("AUTH"))) {
        parse_auth(line, ehlo);
    } else if (bh_slice_starts_nocase(keyword, BH_LIT("AUTH="))) {
        parse_auth(bh_slice_skip(keyword, 5), ehlo); /* the form from before RFC 2554 */
        parse_auth(line, ehlo);
    }
}

void bh_ehlo_parse(const struct bh_reply *reply, struct bh_ehlo *ehlo)
{
    *ehlo = (struct bh_ehlo){0};
    struct bh_slice rest = reply->text;
    rest = bh_slice_skip(rest, bh_slice_find(rest, '\n') + 1); /* the first line greets */
    while (rest.len > 0) {
        const size_t end = bh_slice_find(rest, '\n');
        parse_line(bh_slice_take(rest, end), ehlo);
        rest = bh_slice_skip(rest, end + 1);
    }
}
