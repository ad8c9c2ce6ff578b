#include "human.h"

#include "bh/date.h"
#include "bh/queue_id.h"

#define INDENT "    "

enum bh_dsn_action human_main_action(const struct bh_dsn *dsn)
{
    static const enum bh_dsn_action worst_first[] = {BH_DSN_FAILED, BH_DSN_DELAYED, BH_DSN_RELAYED,
                                                     BH_DSN_EXPANDED, BH_DSN_DELIVERED};
    for (size_t a = 0; a < BH_COUNT(worst_first); a++) {
        for (size_t i = 0; i < dsn->recipients_count; i++) {
            if (dsn->recipients[i].action == worst_first[a]) {
                return worst_first[a];
            }
        }
    }
    return BH_DSN_FAILED;
}

const char *human_subject(enum bh_dsn_action action)
{
    switch (action) {
    case BH_DSN_FAILED:
        return "Your message could not be delivered";
    case BH_DSN_DELAYED:
        return "Your message is delayed";
    case BH_DSN_DELIVERED:
        return "Your message was delivered";
    case BH_DSN_RELAYED:
        return "Your message was passed on";
    case BH_DSN_EXPANDED:
        return "Your message was sent on to a list";
    }
    return "Your message";
}

static const char *introduction(enum bh_dsn_action action)
{
    switch (action) {
    case BH_DSN_FAILED:
        return "Your message could not be delivered to the recipients below. It will not be tried "
               "again; what was said about each of them may help to put it right.";
    case BH_DSN_DELAYED:
        return "Your message has not reached the recipients below yet. It will be tried again; you "
               "need not send it again.";
    case BH_DSN_DELIVERED:
        return "Your message was delivered to the recipients below, as you asked to be told.";
    case BH_DSN_RELAYED:
        return "Your message was passed on to the mail systems of the recipients below. They do "
               "not "
               "send reports of delivery, so this is the last you will hear of it unless it fails.";
    case BH_DSN_EXPANDED:
        return "Your message was sent on to the members of the lists below.";
    }
    return "";
}

static const char *dns_happened(enum bh_happened happened)
{
    switch ((int)happened) {
    case BH_HAPPENED_NXDOMAIN:
        return "the domain does not exist";
    case BH_HAPPENED_NULL_MX:
        return "the domain says that it takes no mail";
    case BH_HAPPENED_NO_ADDRESS:
        return "no mail host of the domain has an address";
    case BH_HAPPENED_DNS_BOGUS:
        return "the domain's DNS records fail their signature check";
    case BH_HAPPENED_DNS_FAILED:
        return "the domain's name servers gave no usable answer";
    default:
        return "the name service did not answer";
    }
}

static const char *content_happened(enum bh_happened happened)
{
    switch ((int)happened) {
    case BH_HAPPENED_TOO_BIG:
        return "takes no message of this size";
    case BH_HAPPENED_NEEDS_8BITMIME:
        return "cannot take the 8-bit text of this message";
    case BH_HAPPENED_NEEDS_SMTPUTF8:
        return "cannot take internationalized addresses or headers";
    case BH_HAPPENED_NEEDS_REQUIRETLS:
        return "cannot promise the TLS protection that the message demands";
    default:
        return "cannot take the message: it holds a bare carriage return or line feed";
    }
}

const char *human_happened(const struct bh_outcome *outcome)
{
    switch (outcome->happened) {
    case BH_HAPPENED_REPLY:
        return "said";
    case BH_HAPPENED_TIMEOUT:
        return outcome->stage <= BH_STAGE_CONNECT ? "could not be reached in time"
                                                  : "did not answer in time";
    case BH_HAPPENED_LOST:
        return "closed the connection";
    case BH_HAPPENED_REFUSED:
        return "refused the connection";
    case BH_HAPPENED_UNREACHABLE:
        return "could not be reached";
    case BH_HAPPENED_TOO_SLOW:
        return "took the message too slowly";
    case BH_HAPPENED_GARBLED:
    case BH_HAPPENED_INJECTED:
        return "answered something that is not proper SMTP";
    case BH_HAPPENED_NXDOMAIN:
    case BH_HAPPENED_NULL_MX:
    case BH_HAPPENED_NO_ADDRESS:
    case BH_HAPPENED_DNS_FAILED:
    case BH_HAPPENED_DNS_BOGUS:
    case BH_HAPPENED_DNS_TIMEOUT:
        return dns_happened(outcome->happened);
    case BH_HAPPENED_ALL_FILTERED:
        return "no mail host of the domain may be used from here";
    case BH_HAPPENED_LOOP:
        return "mail for the domain leads back to this system";
    case BH_HAPPENED_TLS_NOT_OFFERED:
        return "offers no TLS, which is required";
    case BH_HAPPENED_TLS_FAILED:
        return "failed in the TLS handshake";
    case BH_HAPPENED_TLS_UNVERIFIED:
        return "could not prove who it is by its TLS certificate, which is required";
    case BH_HAPPENED_AUTH_NOT_OFFERED:
        return "offers no way to authenticate that can be used";
    case BH_HAPPENED_TOO_BIG:
    case BH_HAPPENED_NEEDS_8BITMIME:
    case BH_HAPPENED_NEEDS_SMTPUTF8:
    case BH_HAPPENED_NEEDS_REQUIRETLS:
    case BH_HAPPENED_BAD_CONTENT:
        return content_happened(outcome->happened);
    case BH_HAPPENED_OUR_CONFIG:
    case BH_HAPPENED_OUR_SECRET:
    case BH_HAPPENED_OUR_SOURCE:
    case BH_HAPPENED_OUR_NETWORK:
    case BH_HAPPENED_OUR_RESOURCE:
        return "this mail system could not send it, through no fault of the recipient";
    case BH_HAPPENED_UNCERTAIN_CRASH:
        return "this mail system stopped while it waited for the final answer";
    case BH_HAPPENED_OPERATOR:
        return "the operator of this mail system ended the delivery";
    case BH_HAPPENED_EXPIRED:
        return "it could not be delivered in time";
    }
    return "it could not be delivered";
}

static const char *in_reply_to(enum bh_stage stage)
{
    switch (stage) {
    case BH_STAGE_GREETING:
        return " on connection";
    case BH_STAGE_MAIL:
        return " about the sender";
    case BH_STAGE_RCPT:
        return " about the recipient";
    case BH_STAGE_DATA:
    case BH_STAGE_BODY:
    case BH_STAGE_DOT:
        return " about the message";
    case BH_STAGE_AUTH:
        return " about our credentials";
    case BH_STAGE_NONE:
    case BH_STAGE_ROUTE:
    case BH_STAGE_CONNECT:
    case BH_STAGE_EHLO:
    case BH_STAGE_STARTTLS:
    case BH_STAGE_TLS:
    case BH_STAGE_IDLE:
        break;
    }
    return "";
}

static void put_line(struct text_out *out, struct bh_slice safe)
{
    text_str(out, INDENT);
    text_fold(out, strlen(INDENT), INDENT, safe);
    text_str(out, "\r\n");
}

/* Who said it, and what: "mx.example.net [192.0.2.1] said about the recipient:" and the reply. */
static void put_outcome(struct text_out *out, const struct bh_dsn_recipient *r, bool utf8)
{
    char host[TEXT_SAFE_MAX];
    char line[TEXT_SAFE_MAX];
    const struct bh_outcome *o = &r->outcome;
    const struct bh_slice who =
        text_safe(o->host.len > 0 ? o->host : r->remote_mta, 255, utf8, host);
    struct bh_buf buf = bh_buf(line, sizeof(line));

    bh_buf_add_cut(&buf, who);
    if (who.len > 0 && o->ip.family != 0) {
        char ip[BH_IP_TEXT_MAX];
        bh_buf_add_cut(&buf, BH_LIT(" ["));
        bh_buf_add_cut(&buf, bh_slice_str(bh_ip_text(&o->ip, ip)));
        bh_buf_add_cut(&buf, BH_LIT("]"));
    }
    bh_buf_add_cut(&buf, who.len > 0 ? BH_LIT(" ") : BH_EMPTY);
    if (o->happened == BH_HAPPENED_REPLY) {
        bh_buf_add_cut(&buf, bh_slice_str(who.len > 0 ? "said" : "The mail host said"));
        bh_buf_add_cut(&buf, bh_slice_str(in_reply_to(o->stage)));
    } else {
        bh_buf_add_cut(&buf, bh_slice_str(human_happened(o)));
    }
    bh_buf_add_cut(&buf, o->text.len > 0 || o->code != 0 ? BH_LIT(":") : BH_LIT("."));
    put_line(out, bh_buf_slice(&buf));

    char text[TEXT_SAFE_MAX];
    buf.len = 0;
    if (o->code != 0) {
        char code[8];
        struct bh_buf number = bh_buf(code, sizeof(code));
        if (bh_buf_printf(&number, "%u ", (unsigned)o->code) == BH_OK) {
            bh_buf_add_cut(&buf, bh_buf_slice(&number));
        }
    }
    bh_buf_add_cut(&buf, text_safe(o->text, BH_OUTCOME_TEXT_MAX, utf8, text));
    if (buf.len > 0) {
        put_line(out, bh_buf_slice(&buf));
    }
}

static void put_recipient(struct text_out *out, const struct bh_dsn_recipient *r, bool utf8)
{
    char safe[TEXT_SAFE_MAX];
    text_str(out, "<");
    text_fold(out, 1, " ", text_safe(r->recipient.address, BH_ADDRESS_MAX, utf8, safe));
    text_str(out, ">\r\n");
    if (r->action == BH_DSN_DELIVERED && r->outcome.code == 0) {
        put_line(out, BH_LIT("Delivered."));
    } else {
        put_outcome(out, r, utf8);
    }
    if (r->action == BH_DSN_FAILED && r->expired) {
        put_line(out, BH_LIT("It was tried until its time ran out."));
    }
    char date[BH_DATE_TEXT];
    if (r->action == BH_DSN_DELAYED && r->retry_until_unix_ms != 0) {
        text_printf(out, INDENT "It will be tried until %s.\r\n",
                    bh_date_mail(r->retry_until_unix_ms, date));
    }
    text_str(out, "\r\n");
}

static void put_address(struct text_out *out, const char *name, struct bh_slice address, bool utf8)
{
    char safe[TEXT_SAFE_MAX];
    text_str(out, name);
    text_str(out, "<");
    text_fold(out, strlen(name) + 1, INDENT, text_safe(address, BH_ADDRESS_MAX, utf8, safe));
    text_str(out, ">\r\n");
}

void human_put(struct text_out *out, const struct bh_dsn *dsn, bool utf8)
{
    char safe[TEXT_SAFE_MAX];
    text_str(out, "This is the mail system at ");
    text_fold(out, 27, INDENT, text_safe(dsn->reporting_mta, BH_DOMAIN_MAX, utf8, safe));
    text_str(out, ".\r\n\r\n");
    bool told[BH_DSN_EXPANDED + 1] = {false};
    for (size_t i = 0; i < dsn->recipients_count; i++) {
        const enum bh_dsn_action action = dsn->recipients[i].action;
        if (told[action]) {
            continue;
        }
        told[action] = true;
        text_fold(out, 0, "", bh_slice_str(introduction(action)));
        text_str(out, "\r\n\r\n");
        for (size_t j = i; j < dsn->recipients_count; j++) {
            if (dsn->recipients[j].action == action) {
                put_recipient(out, &dsn->recipients[j], utf8);
            }
        }
    }
    char text[BH_DATE_TEXT];
    text_str(out, "About the message:\r\n");
    put_address(out, INDENT "sender    ", dsn->envelope->sender, utf8);
    text_printf(out, INDENT "accepted  %s\r\n", bh_date_mail(dsn->arrival_unix_ms, text));
    char id[BH_QUEUE_ID_TEXT];
    text_printf(out, INDENT "queue id  %s\r\n", bh_queue_id_text(dsn->original_id, id));
}
