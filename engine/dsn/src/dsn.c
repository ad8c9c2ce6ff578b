/* The report as a whole:
 *
 *   header of the report
 *   1. text/plain                  for people (human.c)
 *   2. message/delivery-status     for programs; message/global-delivery-status when an address in
 * it is not ASCII (RFC 6533)
 *   3. message/rfc822 or text/rfc822-headers, or their global forms: the original
 *
 * The boundary is one that the original does not hold. No other line can look like it: text is
 * indented, or starts with words of ours. */
#include "bh/dsn.h"

#include <inttypes.h>

#include "bh/date.h"
#include "bh/queue_id.h"
#include "bh/utf8.h"
#include "human.h"
#include "text.h"

#define BOUNDARY_MAX 48

/* What is decided before the first octet is written. */
struct plan {
    const struct bh_dsn *dsn;
    bool global;              /* addresses are not all ASCII */
    bool whole;               /* return the whole message */
    struct bh_slice header;   /* of the original, its last CRLF included */
    struct bh_slice returned; /* header or whole content */
    char boundary[BOUNDARY_MAX];
};

/* The header of a message, without the empty line that ends it; whole lines up to the cap. */
static struct bh_slice header_of(struct bh_slice content)
{
    if (bh_slice_starts(content, BH_LIT("\r\n"))) {
        return bh_slice_take(content, 0);
    }
    const size_t end = bh_slice_find_slice(content, BH_LIT("\r\n\r\n"));
    struct bh_slice header = bh_slice_take(content, end < content.len ? end + 2 : content.len);
    if (header.len > BH_DSN_CONTENT_MAX) {
        size_t cut = BH_DSN_CONTENT_MAX;
        while (cut > 0 && header.ptr[cut - 1] != '\n') {
            cut--;
        }
        header = bh_slice_take(header, cut);
    }
    return header;
}

static bool needs_global(const struct bh_dsn *dsn)
{
    bool global = !bh_is_ascii(dsn->to);
    for (size_t i = 0; i < dsn->recipients_count && !global; i++) {
        global = !bh_is_ascii(dsn->recipients[i].recipient.address) ||
                 !bh_is_ascii(dsn->recipients[i].recipient.orcpt);
    }
    return global;
}

/* RET asks about failures only; other reports return the header (RFC 3461 4.3). Of a REQUIRETLS
 * message nothing but the header goes back, whatever RET says (RFC 8689 5). */
static bool returns_whole(const struct bh_dsn *dsn)
{
    const size_t max = dsn->content_max > 0 ? dsn->content_max : BH_DSN_CONTENT_MAX;
    return human_main_action(dsn) == BH_DSN_FAILED && dsn->envelope->ret != BH_RET_HDRS &&
           !dsn->envelope->requiretls && dsn->content_is_whole && dsn->content.len <= max &&
           text_is_clean(dsn->content);
}

static struct plan plan_of(const struct bh_dsn *dsn)
{
    struct plan plan = {
        .dsn = dsn,
        .global = needs_global(dsn),
        .whole = returns_whole(dsn),
        .header = header_of(dsn->content),
    };
    plan.returned = plan.whole ? dsn->content : plan.header;
    for (unsigned n = 0;; n++) {
        struct bh_buf boundary = bh_buf(plan.boundary, BOUNDARY_MAX);
        const enum bh_status status =
            bh_buf_printf(&boundary, "=_report.%016" PRIx64 ".%u", dsn->unique, n);
        BH_ASSERT(status == BH_OK);
        /* Each that is found takes its length of the content, so this ends. */
        if (bh_slice_find_slice(plan.returned, bh_buf_slice(&boundary)) == plan.returned.len) {
            plan.boundary[boundary.len] = 0;
            return plan;
        }
    }
}

/* The Message-ID of the original, "<left@right>" without blanks; empty if it has none like that. */
static struct bh_slice message_id_of(struct bh_slice header)
{
    const struct bh_slice name = BH_LIT("message-id:");
    while (header.len > 0) {
        const size_t end = bh_slice_find(header, '\n');
        struct bh_slice line = bh_slice_take(header, end);
        header = bh_slice_skip(header, end + 1);
        if (!bh_slice_starts_nocase(line, name)) {
            continue;
        }
        line = bh_slice_skip(line, name.len);
        const struct bh_slice id = bh_slice_trim(bh_slice_take(line, bh_slice_find(line, '\r')));
        bool good = id.len > 2 && id.len <= 500 && id.ptr[0] == '<' && id.ptr[id.len - 1] == '>';
        for (size_t i = 0; i < id.len && good; i++) {
            good = id.ptr[i] > ' ' && id.ptr[i] <= '~';
        }
        return good ? id : BH_EMPTY;
    }
    return BH_EMPTY;
}

/* A field whose value is kept on one line: addresses and names, at most 500 octets of input. */
static void put_field(struct text_out *out, const char *before, struct bh_slice value, bool utf8,
                      const char *after)
{
    char safe[TEXT_SAFE_MAX];
    text_str(out, before);
    /* Escaped octets are four times as long, and no line may reach 998. */
    struct bh_slice line = text_safe(value, 500, utf8, safe);
    if (line.len > 850) {
        line = text_safe(value, 200, utf8, safe);
    }
    text_put(out, line);
    text_str(out, after);
    text_str(out, "\r\n");
}

static void put_header(struct text_out *out, const struct plan *plan)
{
    const struct bh_dsn *dsn = plan->dsn;
    char date[BH_DATE_TEXT];
    put_field(out, "From: Mail Delivery System <", dsn->from, plan->global, ">");
    put_field(out, "To: <", dsn->to, plan->global, ">");
    text_printf(out, "Date: %s\r\n", bh_date_mail(dsn->now_unix_ms, date));
    text_printf(out, "Subject: %s\r\n", human_subject(human_main_action(dsn)));
    char left[80];
    struct bh_buf buf = bh_buf(left, sizeof(left));
    const enum bh_status status =
        bh_buf_printf(&buf, "Message-ID: <%" PRIx64 ".%016" PRIx64 ".report@",
                      (uint64_t)dsn->now_unix_ms, dsn->unique);
    BH_ASSERT(status == BH_OK);
    left[buf.len] = 0;
    put_field(out, left, bh_slice_take(dsn->reporting_mta, BH_DOMAIN_MAX), false, ">");
    const struct bh_slice original = message_id_of(plan->header);
    if (original.len > 0) {
        put_field(out, "In-Reply-To:\r\n ", original, false, "");
    }
    text_str(out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    text_printf(out,
                "Content-Type: multipart/report; report-type=%sdelivery-status;\r\n"
                " boundary=\"%s\"\r\n",
                plan->global ? "global-" : "", plan->boundary);
}

static void put_delimiter(struct text_out *out, const struct plan *plan, const char *after)
{
    text_printf(out, "\r\n--%s%s\r\n", plan->boundary, after);
}

static void put_human(struct text_out *out, const struct plan *plan)
{
    put_delimiter(out, plan, "");
    text_printf(out,
                "Content-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: %s\r\n"
                "Content-Language: en\r\n\r\n",
                plan->global ? "utf-8" : "us-ascii", plan->global ? "8bit" : "7bit");
    human_put(out, plan->dsn, plan->global);
}

/* "type;xtext" as it was given, decoded where that leaves a printable line. */
static void put_original_recipient(struct text_out *out, const struct plan *plan,
                                   struct bh_slice orcpt)
{
    char decoded[BH_ORCPT_MAX];
    struct bh_buf buf = bh_buf(decoded, sizeof(decoded));
    const size_t semicolon = bh_slice_find(orcpt, ';');
    const struct bh_slice type = bh_slice_take(orcpt, semicolon);
    struct bh_slice value = bh_slice_skip(orcpt, semicolon + 1);
    bool known = type.len > 0 && type.len <= 60 && value.len > 0;
    for (size_t i = 0; i < type.len && known; i++) {
        known = bh_is_alpha(type.ptr[i]) || bh_is_digit(type.ptr[i]) || type.ptr[i] == '-';
    }
    if (!known) {
        return;
    }
    if (bh_xtext_decode(value, &buf) == BH_OK) {
        bool printable = true;
        for (size_t i = 0; i < buf.len; i++) {
            printable = printable && (unsigned char)decoded[i] >= ' ' && decoded[i] != 0x7f;
        }
        value = printable ? bh_buf_slice(&buf) : value;
    }
    text_str(out, "Original-Recipient: ");
    text_put(out, type);
    put_field(out, "; ", value, plan->global, "");
}

static void put_diagnostic(struct text_out *out, const struct plan *plan,
                           const struct bh_outcome *o)
{
    char safe[TEXT_SAFE_MAX];
    char text[TEXT_SAFE_MAX + 128];
    struct bh_buf buf = bh_buf(text, sizeof(text));
    if (o->happened == BH_HAPPENED_REPLY && o->code == 0) {
        return;
    }
    enum bh_status status;
    if (o->code != 0) {
        status = o->enhanced_class != 0
                     ? bh_buf_printf(&buf, "smtp; %03u %u.%u.%u ", (unsigned)o->code,
                                     (unsigned)o->enhanced_class, (unsigned)o->enhanced_subject,
                                     (unsigned)o->enhanced_detail)
                     : bh_buf_printf(&buf, "smtp; %03u ", (unsigned)o->code);
    } else {
        status = bh_buf_printf(&buf, "x-bridgehead; %s ", human_happened(o));
    }
    BH_ASSERT(status == BH_OK);
    struct bh_slice said = o->text;
    if (o->code != 0 && o->enhanced_class != 0) {
        /* Some readers of replies keep the enhanced code in the text: say it once. */
        char code[24];
        struct bh_buf enhanced = bh_buf(code, sizeof(code));
        if (bh_buf_printf(&enhanced, "%u.%u.%u", (unsigned)o->enhanced_class,
                          (unsigned)o->enhanced_subject, (unsigned)o->enhanced_detail) == BH_OK &&
            bh_slice_starts(said, bh_buf_slice(&enhanced))) {
            said = bh_slice_skip(said, enhanced.len);
        }
    }
    bh_buf_add_cut(&buf, text_safe(said, BH_OUTCOME_TEXT_MAX, plan->global, safe));
    text_str(out, "Diagnostic-Code: ");
    text_fold(out, 17, " ", bh_buf_slice(&buf));
    text_str(out, "\r\n");
}

static void put_status_recipient(struct text_out *out, const struct plan *plan,
                                 const struct bh_dsn_recipient *r)
{
    char date[BH_DATE_TEXT];
    const struct bh_slice address = r->recipient.address;
    text_str(out, "\r\n");
    put_original_recipient(out, plan, r->recipient.orcpt);
    put_field(out, bh_is_ascii(address) ? "Final-Recipient: rfc822; " : "Final-Recipient: utf-8; ",
              address, plan->global, "");
    text_printf(out, "Action: %s\r\n", bh_dsn_action_name(r->action));
    const struct bh_dsn_status status =
        r->status.class != 0 ? r->status : bh_dsn_status_of(&r->outcome, r->action, r->expired);
    text_printf(out, "Status: %u.%u.%u\r\n", (unsigned)status.class % 10,
                (unsigned)status.subject % 1000, (unsigned)status.detail % 1000);
    const struct bh_slice remote = r->remote_mta.len > 0 ? r->remote_mta : r->outcome.host;
    if (remote.len > 0) {
        put_field(out, "Remote-MTA: dns; ", remote, plan->global, "");
    }
    put_diagnostic(out, plan, &r->outcome);
    if (r->last_attempt_unix_ms != 0) {
        text_printf(out, "Last-Attempt-Date: %s\r\n", bh_date_mail(r->last_attempt_unix_ms, date));
    }
    if (r->action == BH_DSN_DELAYED && r->retry_until_unix_ms != 0) {
        text_printf(out, "Will-Retry-Until: %s\r\n", bh_date_mail(r->retry_until_unix_ms, date));
    }
}

static void put_status(struct text_out *out, const struct plan *plan)
{
    const struct bh_dsn *dsn = plan->dsn;
    char date[BH_DATE_TEXT];
    put_delimiter(out, plan, "");
    text_printf(out,
                "Content-Type: message/%sdelivery-status\r\nContent-Transfer-Encoding: %s\r\n\r\n",
                plan->global ? "global-" : "", plan->global ? "8bit" : "7bit");
    put_field(out, "Reporting-MTA: dns; ", dsn->reporting_mta, plan->global, "");
    if (dsn->envelope->envid.len > 0) {
        char decoded[BH_ENVID_MAX];
        struct bh_buf buf = bh_buf(decoded, sizeof(decoded));
        const bool good = bh_xtext_decode(dsn->envelope->envid, &buf) == BH_OK;
        put_field(out, "Original-Envelope-Id: ", good ? bh_buf_slice(&buf) : dsn->envelope->envid,
                  plan->global, "");
    }
    char id[BH_QUEUE_ID_TEXT];
    text_printf(out, "X-Bridgehead-Queue-Id: %s\r\n", bh_queue_id_text(dsn->original_id, id));
    text_printf(out, "Arrival-Date: %s\r\n", bh_date_mail(dsn->arrival_unix_ms, date));
    for (size_t i = 0; i < dsn->recipients_count; i++) {
        put_status_recipient(out, plan, &dsn->recipients[i]);
    }
}

/* The original: as it is where that is clean, else its header in quoted-printable. */
static void put_original(struct text_out *out, const struct plan *plan)
{
    const bool ascii = bh_is_ascii(plan->returned);
    const bool header_global = !bh_is_ascii(plan->header) && bh_utf8_valid(plan->header);
    put_delimiter(out, plan, "");
    if (plan->whole) {
        text_printf(out, "Content-Type: message/%s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
                    header_global ? "global" : "rfc822", ascii ? "7bit" : "8bit");
        text_put(out, plan->returned);
        return;
    }
    const bool plain = ascii && text_is_clean(plan->returned);
    text_printf(out, "Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
                header_global ? "message/global-headers" : "text/rfc822-headers",
                plain ? "7bit" : "quoted-printable");
    if (plain) {
        text_put(out, plan->returned);
    } else {
        text_quoted_printable(out, plan->returned);
    }
}

enum bh_status bh_dsn_write(const struct bh_dsn *dsn, struct bh_dsn_sink sink,
                            struct bh_dsn_written *written)
{
    BH_ASSERT(dsn->recipients_count > 0);
    struct text_out out = {.sink = sink, .status = BH_OK};
    const struct plan plan = plan_of(dsn);
    put_header(&out, &plan);
    put_human(&out, &plan);
    put_status(&out, &plan);
    put_original(&out, &plan);
    put_delimiter(&out, &plan, "--");
    if (out.status == BH_OK && written != NULL) {
        written->size = out.size;
        written->body = out.high ? BH_BODY_8BITMIME : BH_BODY_7BIT;
        written->smtputf8 = !bh_is_ascii(dsn->to) || !bh_is_ascii(dsn->from);
    }
    return out.status;
}

static enum bh_status put_into_buf(void *ctx, struct bh_slice octets)
{
    struct bh_buf *buf = ctx;
    return bh_buf_add(buf, octets);
}

struct bh_dsn_sink bh_dsn_sink_buf(struct bh_buf *buf)
{
    return (struct bh_dsn_sink){put_into_buf, buf};
}

static enum bh_status put_nowhere(void *ctx, struct bh_slice octets)
{
    (void)ctx;
    (void)octets;
    return BH_OK;
}

uint64_t bh_dsn_size(const struct bh_dsn *dsn)
{
    struct bh_dsn_written written = {0};
    const enum bh_status status =
        bh_dsn_write(dsn, (struct bh_dsn_sink){put_nowhere, NULL}, &written);
    BH_ASSERT(status == BH_OK);
    return written.size;
}
