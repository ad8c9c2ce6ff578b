/* Reading replies whole equals reading them octet by octet, and no bound is passed. */
#include <stdint.h>
#include <stdlib.h>

#include "bh/smtp_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bh_reply_parser whole;
    static struct bh_reply_parser single;
    whole = (struct bh_reply_parser){0};
    single = (struct bh_reply_parser){0};
    struct bh_slice in = bh_slice(data, size);
    struct bh_slice slow = in;
    for (;;) {
        struct bh_reply a = {0};
        struct bh_reply b = {0};
        const enum bh_status status = bh_reply_feed(&whole, &in, &a);
        enum bh_status other = BH_MORE;
        while (other == BH_MORE && slow.len > 0) {
            struct bh_slice one = bh_slice_take(slow, 1);
            other = bh_reply_feed(&single, &one, &b);
            slow = bh_slice_skip(slow, 1);
        }
        check(status == other);
        if (status != BH_OK) {
            return 0;
        }
        check(in.len == slow.len);
        check(a.code == b.code && a.code >= 200 && a.code <= 599 && a.cut == b.cut);
        check(a.enhanced_class == 0 || a.enhanced_class == a.code / 100);
        check(a.enhanced_class == b.enhanced_class && a.enhanced_subject == b.enhanced_subject);
        check(bh_slice_eq(a.text, b.text) && a.text.len <= BH_REPLY_TEXT_MAX);
        struct bh_ehlo ehlo;
        bh_ehlo_parse(&a, &ehlo);
        check(ehlo.rcpt_max <= 999999 && ehlo.mail_max <= 999999);
    }
}
