/* The parameters of MAIL and RCPT. What is accepted can be written down in the one canonical form
 * and reads as the same; nothing accepted holds an octet that could end a command; and parameters
 * mean the same in either case of their keywords. The first octet picks MAIL or RCPT. */
#include "bh/smtp_params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct bh_buf *out, const char *name, struct bh_slice value)
{
    if (value.len > 0) {
        bh_buf_put(out, bh_slice_str(name));
        bh_buf_put(out, value);
    }
}

static void check_value(struct bh_slice value, size_t max)
{
    BH_ASSERT(value.len <= max);
    for (size_t i = 0; i < value.len; i++) {
        BH_ASSERT((unsigned char)value.ptr[i] > ' ' && value.ptr[i] != 127);
    }
}

static void print_mail(const struct bh_mail_params *p, struct bh_buf *out)
{
    if (p->has_size) {
        BH_ASSERT(bh_buf_printf(out, " SIZE=%llu", (unsigned long long)p->size) == BH_OK);
    }
    if (p->has_body) {
        put(out, " BODY=", p->body == BH_BODY_8BITMIME ? BH_LIT("8BITMIME") : BH_LIT("7BIT"));
    }
    put(out, "", p->smtputf8 ? BH_LIT(" SMTPUTF8") : BH_EMPTY);
    put(out, "", p->requiretls ? BH_LIT(" REQUIRETLS") : BH_EMPTY);
    put(out, "", p->has_auth ? BH_LIT(" AUTH=<>") : BH_EMPTY);
    put(out, "", p->ret == BH_RET_FULL ? BH_LIT(" RET=FULL") : BH_EMPTY);
    put(out, "", p->ret == BH_RET_HDRS ? BH_LIT(" RET=HDRS") : BH_EMPTY);
    put(out, " ENVID=", p->envid);
}

static void on_mail(struct bh_slice text)
{
    char storage[2048];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_mail_params p;
    struct bh_mail_params q;
    if (bh_mail_params_parse(text, &p) != BH_PARAMS_OK) {
        return;
    }
    check_value(p.envid, BH_ENVID_MAX);
    BH_ASSERT(bh_xtext_valid(p.envid));
    print_mail(&p, &out);
    BH_ASSERT(bh_mail_params_parse(bh_buf_slice(&out), &q) == BH_PARAMS_OK);
    BH_ASSERT(p.has_size == q.has_size && p.size == q.size && p.has_body == q.has_body);
    BH_ASSERT(p.body == q.body && p.smtputf8 == q.smtputf8 && p.requiretls == q.requiretls);
    BH_ASSERT(p.has_auth == q.has_auth && p.ret == q.ret && bh_slice_eq(p.envid, q.envid));
}

static void print_rcpt(const struct bh_rcpt_params *p, struct bh_buf *out)
{
    static const char *const names[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    const char *separator = " NOTIFY=";
    for (size_t i = 0; i < BH_COUNT(names); i++) {
        if ((p->notify >> i & 1) != 0) {
            put(out, separator, bh_slice_str(names[i]));
            separator = ",";
        }
    }
    put(out, " ORCPT=", p->orcpt);
}

static void on_rcpt(struct bh_slice text)
{
    char storage[2048];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    struct bh_rcpt_params p;
    struct bh_rcpt_params q;
    if (bh_rcpt_params_parse(text, &p) != BH_PARAMS_OK) {
        return;
    }
    check_value(p.orcpt, BH_ORCPT_MAX);
    BH_ASSERT((p.notify & BH_NOTIFY_NEVER) == 0 || p.notify == BH_NOTIFY_NEVER);
    print_rcpt(&p, &out);
    BH_ASSERT(bh_rcpt_params_parse(bh_buf_slice(&out), &q) == BH_PARAMS_OK);
    BH_ASSERT(p.notify == q.notify && bh_slice_eq(p.orcpt, q.orcpt));
}

/* Keywords of the other case, values as they were. */
static struct bh_slice swap_case(struct bh_slice text, char *storage)
{
    bool keyword = true;
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.ptr[i];
        keyword = c == ' ' || c == '\t' || (keyword && c != '=');
        storage[i] = !keyword ? c : bh_upper(c) == c ? bh_lower(c) : bh_upper(c);
    }
    return bh_slice(storage, text.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char storage[4096];
    if (size == 0 || size > sizeof(storage)) {
        return 0;
    }
    const struct bh_slice text = bh_slice(data + 1, size - 1);
    const struct bh_slice other = swap_case(text, storage);
    struct bh_mail_params mail;
    struct bh_rcpt_params rcpt;
    if (data[0] % 2 == 0) {
        on_mail(text);
        BH_ASSERT(bh_mail_params_parse(text, &mail) == bh_mail_params_parse(other, &mail));
    } else {
        on_rcpt(text);
        BH_ASSERT(bh_rcpt_params_parse(text, &rcpt) == bh_rcpt_params_parse(other, &rcpt));
    }
    return 0;
}
