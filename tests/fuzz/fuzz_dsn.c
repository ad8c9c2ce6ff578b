/* Hostile replies, names and content: the report is well-formed all the same, with one group of
 * fields for each recipient. */
#include <stdlib.h>

#include "../unit/dsn_check.h"
#include "bh/dsn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Take a slice off the input: a length octet (times four), then the octets. */
static struct bh_slice take(struct bh_slice *in)
{
    if (in->len == 0) {
        return BH_EMPTY;
    }
    const size_t len = (size_t)(unsigned char)in->ptr[0] * 4;
    *in = bh_slice_skip(*in, 1);
    const struct bh_slice s = bh_slice_take(*in, len);
    *in = bh_slice_skip(*in, s.len);
    return s;
}

static uint8_t octet(struct bh_slice *in)
{
    const uint8_t c = in->len > 0 ? (uint8_t)in->ptr[0] : 0;
    *in = bh_slice_skip(*in, 1);
    return c;
}

static struct bh_dsn_recipient recipient_of(struct bh_slice *in)
{
    const uint8_t bits = octet(in);
    return (struct bh_dsn_recipient){
        .recipient = {.address = take(in), .orcpt = take(in)},
        .action = (enum bh_dsn_action)(bits % 5),
        .expired = (bits & 64) != 0,
        .outcome = {.stage = (enum bh_stage)(octet(in) % (BH_STAGE_IDLE + 1)),
                    .happened = (enum bh_happened)(octet(in) % (BH_HAPPENED_EXPIRED + 1)),
                    .code = (bits & 128) != 0 ? 550 : 0,
                    .enhanced_class = octet(in),
                    .enhanced_subject = 65535,
                    .text = take(in),
                    .host = take(in)},
        .last_attempt_unix_ms = bits,
        .retry_until_unix_ms = INT64_MAX,
    };
}

static char storage[1 << 20];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_slice in = bh_slice(data, size);
    const uint8_t bits = octet(&in);
    const struct bh_envelope envelope = {
        .sender = take(&in), .envid = take(&in), .ret = (enum bh_ret)(bits % 3)};
    struct bh_dsn_recipient recipients[3];
    const size_t count = 1 + bits / 8 % 3;
    for (size_t i = 0; i < count; i++) {
        recipients[i] = recipient_of(&in);
    }
    const struct bh_dsn dsn = {
        .reporting_mta = BH_LIT("mx.us.example"),
        .from = BH_LIT("MAILER-DAEMON@mx.us.example"),
        .to = envelope.sender,
        .now_unix_ms = 1795472708000,
        .unique = 0,
        .envelope = &envelope,
        .content = in,
        .content_is_whole = (bits & 128) == 0,
        .recipients = recipients,
        .recipients_count = count,
    };
    struct bh_buf buf = bh_buf(storage, sizeof(storage));
    const enum bh_status status = bh_dsn_write(&dsn, bh_dsn_sink_buf(&buf), NULL);
    if (status == BH_ELIMIT) {
        return 0; /* Quoted-printable of an input near a megabyte. */
    }
    const struct dsn_parts parts = dsn_parse(bh_buf_slice(&buf));
    const char *wrong = parts.wrong != NULL ? parts.wrong : dsn_check_status(parts.parts[1], count);
    if (status != BH_OK || wrong != NULL) {
        fprintf(stderr, "%s:\n%.*s", wrong, BH_FMT(bh_buf_slice(&buf)));
        abort();
    }
    return 0;
}
