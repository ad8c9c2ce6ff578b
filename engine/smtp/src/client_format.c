#include "client_internal.h"

static void put(struct bh_buf *out, const char *text)
{
    bh_buf_put(out, bh_slice_str(text));
}

static bool has_high(struct bh_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] > 127) {
            return true;
        }
    }
    return false;
}

/* Between < and > nothing may end the command or the path. The local part may be a quoted string,
 * and only there are blanks and angle brackets at home (RFC 5321 4.1.2). */
static bool address_safe(struct bh_slice address)
{
    bool quoted = false;
    if (address.len > BH_ADDRESS_MAX) {
        return false;
    }
    for (size_t i = 0; i < address.len; i++) {
        const unsigned char c = (unsigned char)address.ptr[i];
        if (c < ' ' || c == 127) {
            return false;
        }
        if (c == '\\' && quoted && i + 1 < address.len) {
            i++;
            if ((unsigned char)address.ptr[i] < ' ' || address.ptr[i] == 127) {
                return false;
            }
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted && (c == ' ' || c == '<' || c == '>')) {
            return false;
        }
    }
    return !quoted;
}

/* A parameter's value goes out octet by octet as it came in; one that could break the command is
 * left out. */
static bool value_safe(struct bh_slice value, size_t max)
{
    for (size_t i = 0; i < value.len; i++) {
        const unsigned char c = (unsigned char)value.ptr[i];
        if (c <= ' ' || c == 127) {
            return false;
        }
    }
    return value.len > 0 && value.len <= max;
}

/* Does the message need SMTPUTF8 at this peer? As declared, or by an address. */
static bool needs_utf8(const struct bh_envelope *envelope, const struct bh_recipient *recipient)
{
    return envelope->smtputf8 || has_high(envelope->sender) || has_high(recipient->address);
}

/* An extension is missing. Where the peer offers it, our own configuration is in the way: that
 * returns no mail, it waits for an operator. */
static enum bh_happened misses(const struct bh_client *c, uint32_t extension,
                               enum bh_happened theirs, struct bh_slice ours, struct bh_slice *text)
{
    if ((c->switched_off & extension) == 0) {
        return theirs;
    }
    *text = ours;
    return BH_HAPPENED_BAD_CONTENT;
}

/* @param text set where there is more to say */
static enum bh_happened why_not(const struct bh_client *c, const struct bh_envelope *envelope,
                                const struct bh_recipient *recipient, struct bh_slice *text)
{
    const struct bh_ehlo *ehlo = &c->facts.ehlo;
    if (envelope->requiretls &&
        !(c->facts.tls && c->options->peer_proven && bh_client_has(c, BH_EXT_REQUIRETLS))) {
        /* What we could not find out is no reason to return mail. */
        const bool ours =
            c->facts.tls && c->options->route_unknown && bh_client_has(c, BH_EXT_REQUIRETLS);
        if (ours) {
            *text = BH_LIT("REQUIRETLS needs a proven route, and whether this one is can't be "
                           "known while our resolver has not passed its self-test, or our store "
                           "can't be read");
        }
        return ours ? BH_HAPPENED_OUR_CONFIG : BH_HAPPENED_NEEDS_REQUIRETLS;
    }
    if (ehlo->size > 0 && envelope->size > ehlo->size) {
        return BH_HAPPENED_TOO_BIG;
    }
    if (!address_safe(envelope->sender) || !address_safe(recipient->address) ||
        recipient->address.len == 0) {
        return BH_HAPPENED_BAD_CONTENT;
    }
    if (needs_utf8(envelope, recipient) && !bh_client_has(c, BH_EXT_SMTPUTF8)) {
        return misses(c, BH_EXT_SMTPUTF8, BH_HAPPENED_NEEDS_SMTPUTF8,
                      BH_LIT("it needs SMTPUTF8, which its connector switches off"), text);
    }
    if (envelope->body == BH_BODY_8BITMIME && !bh_client_has(c, BH_EXT_8BITMIME)) {
        return misses(c, BH_EXT_8BITMIME, BH_HAPPENED_NEEDS_8BITMIME,
                      BH_LIT("it needs 8BITMIME, which its connector switches off"), text);
    }
    return BH_HAPPENED_REPLY;
}

bool bh_client_preflight(struct bh_client *c, struct bh_client_txn *txn)
{
    bool any = false;
    for (uint32_t i = 0; i < txn->recipients_count; i++) {
        if (txn->results[i].step != BH_RCPT_NEW) {
            continue;
        }
        struct bh_slice text = BH_EMPTY;
        const enum bh_happened why = why_not(c, txn->envelope, &txn->recipients[i], &text);
        if (why == BH_HAPPENED_REPLY) {
            any = true;
        } else {
            struct bh_outcome outcome = bh_client_outcome(c, BH_STAGE_MAIL, why);
            outcome.text = text.len > 0 ? text : outcome.text;
            bh_client_decide(c, txn, i, &outcome);
        }
    }
    return any;
}

/* SMTPUTF8 is said where this transaction needs it, for any of its recipients of this round. */
static bool says_utf8(const struct bh_client *c, const struct bh_client_txn *txn)
{
    if (!bh_client_has(c, BH_EXT_SMTPUTF8)) {
        return false;
    }
    bool needed = false;
    for (uint32_t i = 0; i < txn->recipients_count && !needed; i++) {
        needed =
            txn->results[i].step == BH_RCPT_NEW && needs_utf8(txn->envelope, &txn->recipients[i]);
    }
    return needed;
}

void bh_client_put_mail(const struct bh_client *c, const struct bh_client_txn *txn,
                        struct bh_buf *out)
{
    const struct bh_envelope *envelope = txn->envelope;
    put(out, "MAIL FROM:<");
    bh_buf_put(out, envelope->sender);
    put(out, ">");
    if (bh_client_has(c, BH_EXT_SIZE) && envelope->size > 0) {
        const enum bh_status status =
            bh_buf_printf(out, " SIZE=%llu", (unsigned long long)envelope->size);
        BH_ASSERT(status == BH_OK);
    }
    if (bh_client_has(c, BH_EXT_8BITMIME) && envelope->body == BH_BODY_8BITMIME) {
        put(out, " BODY=8BITMIME");
    }
    if (says_utf8(c, txn)) {
        put(out, " SMTPUTF8");
    }
    if (envelope->requiretls) {
        put(out, " REQUIRETLS"); /* preflight saw that it is offered */
    }
    if (bh_client_has(c, BH_EXT_DSN)) {
        if (envelope->ret != BH_RET_UNSET) {
            put(out, envelope->ret == BH_RET_FULL ? " RET=FULL" : " RET=HDRS");
        }
        if (value_safe(envelope->envid, BH_ENVID_MAX)) {
            put(out, " ENVID=");
            bh_buf_put(out, envelope->envid);
        }
    }
    put(out, "\r\n");
}

static void put_notify(uint8_t notify, struct bh_buf *out)
{
    static const struct {
        uint8_t bit;
        const char *name;
    } names[] = {
        {BH_NOTIFY_NEVER, "NEVER"},
        {BH_NOTIFY_SUCCESS, "SUCCESS"},
        {BH_NOTIFY_FAILURE, "FAILURE"},
        {BH_NOTIFY_DELAY, "DELAY"},
    };
    const char *separator = " NOTIFY=";
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        if ((notify & names[i].bit) != 0) {
            put(out, separator);
            put(out, names[i].name);
            separator = ",";
            if (names[i].bit == BH_NOTIFY_NEVER) {
                break; /* NEVER stands alone (RFC 3461 4.1) */
            }
        }
    }
}

void bh_client_put_rcpt(const struct bh_client *c, const struct bh_recipient *recipient,
                        struct bh_buf *out)
{
    put(out, "RCPT TO:<");
    bh_buf_put(out, recipient->address);
    put(out, ">");
    if (bh_client_has(c, BH_EXT_DSN)) {
        put_notify(recipient->notify, out);
        if (value_safe(recipient->orcpt, BH_ORCPT_MAX)) {
            put(out, " ORCPT=");
            bh_buf_put(out, recipient->orcpt);
        }
    }
    put(out, "\r\n");
}

bool bh_preamble_allowed(struct bh_slice text)
{
    static const struct {
        const char *verb;
        bool named; /* our name follows it; else nothing does */
    } verbs[] = {{"EHLO", true},  {"HELO", true},  {"LHLO", true}, {"STARTTLS", false},
                 {"NOOP", false}, {"RSET", false}, {"QUIT", false}};
    while (text.len > 0) {
        const size_t end = bh_slice_find(text, '\n');
        if (end == text.len || end == 0 || text.ptr[end - 1] != '\r') {
            return false;
        }
        struct bh_slice line = bh_slice_take(text, end - 1);
        if (memchr(line.ptr, '\r', line.len) != NULL) {
            return false;
        }
        const struct bh_slice verb = bh_slice_word(&line);
        bool known = false;
        for (size_t i = 0; i < BH_COUNT(verbs) && !known; i++) {
            known = bh_slice_eq_nocase(verb, bh_slice_str(verbs[i].verb)) &&
                    (verbs[i].named || line.len == 0);
        }
        if (!known) {
            return false;
        }
        text = bh_slice_skip(text, end + 1);
    }
    return true;
}
