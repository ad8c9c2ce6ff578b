/* The keywords of an EHLO reply: case, repetition, unknown keywords and the line that greets change
 * nothing of what was understood, and what was understood can be said again in few words. */
#include "bh/buf.h"
#include "bh/smtp_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX ((size_t)4096)

static struct bh_ehlo read_lines(struct bh_slice greeting, struct bh_slice lines,
                                 struct bh_slice more)
{
    static char storage[3 * TEXT_MAX];
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    bh_buf_put(&text, greeting);
    bh_buf_put_char(&text, '\n');
    bh_buf_put(&text, lines);
    bh_buf_put_char(&text, '\n');
    bh_buf_put(&text, more);
    const struct bh_reply reply = {.code = 250, .text = bh_buf_slice(&text)};
    struct bh_ehlo ehlo;
    bh_ehlo_parse(&reply, &ehlo);
    return ehlo;
}

static void same(struct bh_ehlo a, struct bh_ehlo b)
{
    BH_ASSERT(a.extensions == b.extensions && a.auth == b.auth && a.size == b.size);
    BH_ASSERT(a.mail_max == b.mail_max && a.rcpt_max == b.rcpt_max);
    BH_ASSERT(a.rcpt_domain_max == b.rcpt_domain_max);
}

static void print(const struct bh_ehlo *e, struct bh_buf *out)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } plain[] = {{BH_EXT_SIZE, "SIZE"},
                 {BH_EXT_8BITMIME, "8BITMIME"},
                 {BH_EXT_SMTPUTF8, "SMTPUTF8"},
                 {BH_EXT_DSN, "DSN"},
                 {BH_EXT_PIPELINING, "PIPELINING"},
                 {BH_EXT_CHUNKING, "CHUNKING"},
                 {BH_EXT_STARTTLS, "STARTTLS"},
                 {BH_EXT_AUTH, "AUTH"},
                 {BH_EXT_REQUIRETLS, "REQUIRETLS"},
                 {BH_EXT_LIMITS, "LIMITS"},
                 {BH_EXT_ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES"},
                 {BH_EXT_BINARYMIME, "BINARYMIME"}};
    static const char *const mechanisms[] = {" PLAIN", " LOGIN", " CRAM-MD5", " SCRAM-SHA-256",
                                             " XOAUTH2"};
    const struct {
        const char *name;
        uint32_t value;
    } limits[] = {{" MAILMAX", e->mail_max},
                  {" RCPTMAX", e->rcpt_max},
                  {" RCPTDOMAINMAX", e->rcpt_domain_max}};
    for (size_t i = 0; i < BH_COUNT(plain); i++) {
        if ((e->extensions & plain[i].bit) == 0) {
            continue;
        }
        bh_buf_put(out, bh_slice_str(plain[i].name));
        for (size_t m = 0; plain[i].bit == BH_EXT_AUTH && m < BH_COUNT(mechanisms); m++) {
            bh_buf_put(out, (e->auth >> m & 1) != 0 ? bh_slice_str(mechanisms[m]) : BH_EMPTY);
        }
        for (size_t l = 0; plain[i].bit == BH_EXT_LIMITS && l < BH_COUNT(limits); l++) {
            BH_ASSERT(limits[l].value == 0 ||
                      bh_buf_printf(out, "%s=%u", limits[l].name, limits[l].value) == BH_OK);
        }
        if (plain[i].bit == BH_EXT_SIZE && e->size > 0) {
            BH_ASSERT(bh_buf_printf(out, " %llu", (unsigned long long)e->size) == BH_OK);
        }
        bh_buf_put_char(out, '\n');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char storage[TEXT_MAX];
    if (size > TEXT_MAX) {
        return 0;
    }
    const struct bh_slice lines = bh_slice(data, size);
    const struct bh_ehlo one = read_lines(BH_LIT("mx.test"), lines, BH_EMPTY);
    BH_ASSERT(one.auth == 0 || (one.extensions & BH_EXT_AUTH) != 0);
    BH_ASSERT(one.size == 0 || (one.extensions & BH_EXT_SIZE) != 0);
    BH_ASSERT(one.mail_max <= 999999 && one.rcpt_max <= 999999 && one.rcpt_domain_max <= 999999);
    same(one, read_lines(BH_LIT("STARTTLS"), lines, BH_LIT("X-STARTTLS\nPIPELININGS 1\n")));
    same(one, read_lines(BH_EMPTY, lines, lines));
    for (size_t i = 0; i < size; i++) {
        storage[i] = bh_upper((char)data[i]) == (char)data[i] ? bh_lower((char)data[i])
                                                              : bh_upper((char)data[i]);
    }
    same(one, read_lines(BH_EMPTY, bh_slice(storage, size), BH_EMPTY));
    struct bh_buf text = bh_buf(storage, sizeof(storage));
    print(&one, &text);
    same(one, read_lines(BH_EMPTY, bh_buf_slice(&text), BH_EMPTY));
    return 0;
}
