#include "bh/smtp_received.h"

#include "bh/date.h"
#include "bh/envelope.h"
#include "bh/queue_id.h"

#define HELO_SHOWN_MAX 255 /* octets of the client's own name for itself */

/* What the client said, so that it can neither end the line, nor a comment, nor pose as a domain.
 */
static void put_helo(struct bh_slice helo, struct bh_buf *out)
{
    const struct bh_slice shown = bh_slice_take(helo, HELO_SHOWN_MAX);
    for (size_t i = 0; i < shown.len; i++) {
        const char c = shown.ptr[i];
        const bool plain =
            bh_is_alpha(c) || bh_is_digit(c) || (c != '\0' && strchr(".-_:[]", c) != NULL);
        bh_buf_put_char(out, plain ? c : '?');
    }
    if (shown.len == 0) {
        bh_buf_put(out, BH_LIT("unknown"));
    }
}

static void put_from(const struct bh_received *r, struct bh_buf *out)
{
    bh_buf_put(out, BH_LIT("Received: from "));
    put_helo(r->helo, out);
    if (r->client.family == 0) {
        bh_buf_put(out, BH_LIT(" (local)"));
        return;
    }
    char text[BH_IP_TEXT_MAX];
    bh_buf_put(out, r->client.family == 6 ? BH_LIT(" ([IPv6:") : BH_LIT(" (["));
    bh_buf_put(out, bh_slice_str(bh_ip_text(&r->client, text)));
    bh_buf_put(out, BH_LIT("])"));
}

struct bh_slice bh_received_protocol(const struct bh_received *r)
{
    static const struct bh_slice names[2][2][2] = {
        {{{"ESMTP", 5}, {"ESMTPA", 6}}, {{"ESMTPS", 6}, {"ESMTPSA", 7}}},
        {{{"UTF8SMTP", 8}, {"UTF8SMTPA", 9}}, {{"UTF8SMTPS", 9}, {"UTF8SMTPSA", 10}}}};
    if (!r->extended && !r->smtputf8) {
        return BH_LIT("SMTP");
    }
    return names[r->smtputf8 ? 1 : 0][r->tls ? 1 : 0][r->authenticated ? 1 : 0];
}

enum bh_status bh_received_line(const struct bh_received *r, struct bh_buf *out)
{
    BH_ASSERT(r->by.len <= BH_DOMAIN_MAX);
    BH_ASSERT(r->for_one.len <= BH_ADDRESS_MAX);
    if (bh_buf_room(out) < BH_RECEIVED_MAX) {
        return BH_ELIMIT;
    }
    char id[BH_QUEUE_ID_TEXT];
    char date[BH_DATE_TEXT];
    put_from(r, out);
    bh_buf_put(out, BH_LIT("\r\n\tby "));
    bh_buf_put(out, r->by);
    bh_buf_put(out, BH_LIT(" with "));
    bh_buf_put(out, bh_received_protocol(r));
    bh_buf_put(out, BH_LIT(" id "));
    bh_buf_put(out, bh_slice_str(bh_queue_id_text(r->queue_id, id)));
    if (r->for_one.len > 0) {
        bh_buf_put(out, BH_LIT("\r\n\tfor <"));
        bh_buf_put(out, r->for_one);
        bh_buf_put_char(out, '>');
    }
    bh_buf_put(out, BH_LIT(";\r\n\t"));
    bh_buf_put(out, bh_slice_str(bh_date_mail(r->unix_ms, date)));
    bh_buf_put(out, BH_LIT("\r\n"));
    return BH_OK;
}
