#include "bh/smtp_address.h"

#include "bh/utf8.h"

#define LABEL_MAX 63 /* octets of a label of a domain name (RFC 1035 2.3.4) */

static bool is_atext(char c)
{
    return bh_is_alpha(c) || bh_is_digit(c) ||
           (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL) || (unsigned char)c > 127;
}

static bool label_valid(struct bh_slice label)
{
    if (label.len == 0 || label.len > LABEL_MAX || label.ptr[0] == '-' ||
        label.ptr[label.len - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < label.len; i++) {
        /* Underscores are no host names, but in the DNS they exist, and mail is sent to them. */
        if (!bh_is_alpha(label.ptr[i]) && !bh_is_digit(label.ptr[i]) && label.ptr[i] != '-' &&
            label.ptr[i] != '_') {
            return false;
        }
    }
    return true;
}

bool bh_domain_valid(struct bh_slice domain)
{
    if (domain.len == 0 || domain.len > BH_DOMAIN_MAX) {
        return false;
    }
    for (;;) {
        const size_t dot = bh_slice_find(domain, '.');
        if (!label_valid(bh_slice_take(domain, dot))) {
            return false;
        }
        if (dot == domain.len) {
            return true;
        }
        domain = bh_slice_skip(domain, dot + 1);
    }
}

/* The local-part at the front of `s`: a dot-string or a quoted string.
 * Returns its length, or 0 if it breaks the grammar. */
static size_t quoted_len(struct bh_slice s)
{
    for (size_t i = 1; i < s.len; i++) {
        const unsigned char c = (unsigned char)s.ptr[i];
        if (c == '"') {
            return i + 1;
        }
        if (c == '\\') {
            i++;
            if (i == s.len || s.ptr[i] < ' ' || s.ptr[i] > '~') {
                return 0;
            }
        } else if (c < ' ' || c == 127) {
            return 0;
        }
    }
    return 0;
}

static size_t dot_string_len(struct bh_slice s)
{
    size_t i = 0;
    bool after_dot = true;
    while (i < s.len && (is_atext(s.ptr[i]) || s.ptr[i] == '.')) {
        if (s.ptr[i] == '.' && after_dot) {
            return 0;
        }
        after_dot = s.ptr[i] == '.';
        i++;
    }
    return after_dot ? 0 : i;
}

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]"; `text` is what stands between the brackets. */
static bool literal_parse(struct bh_slice text, struct bh_ip *ip)
{
    if (bh_slice_starts_nocase(text, BH_LIT("IPv6:"))) {
        return bh_ip_parse(bh_slice_skip(text, 5), ip) && ip->family == 6;
    }
    return bh_ip_parse(text, ip) && ip->family == 4;
}

/* "@a,@b:" in front of the mailbox: where the message should have come through, in 1982. */
static bool skip_source_route(struct bh_slice *s)
{
    while (s->len > 0 && s->ptr[0] == '@') {
        size_t end = 1;
        while (end < s->len && s->ptr[end] != ',' && s->ptr[end] != ':') {
            end++;
        }
        const struct bh_slice domain = bh_slice(s->ptr + 1, end - 1);
        if (end == s->len || (bh_is_ascii(domain) && !bh_domain_valid(domain))) {
            return false;
        }
        const bool last = s->ptr[end] == ':';
        *s = bh_slice_skip(*s, end + 1);
        if (last) {
            return true;
        }
    }
    return false;
}

static enum bh_path_status domain_parse(struct bh_slice *s, struct bh_path *path)
{
    if (s->len > 0 && s->ptr[0] == '[') {
        const size_t end = bh_slice_find(*s, ']');
        path->literal = true;
        if (end == s->len || !literal_parse(bh_slice(s->ptr + 1, end - 1), &path->ip)) {
            return BH_PATH_LITERAL;
        }
        path->domain = bh_slice_take(*s, end + 1);
    } else {
        size_t end = bh_slice_find(*s, '>');
        path->domain = bh_slice_take(*s, end);
        path->utf8_domain = !bh_is_ascii(path->domain);
        if (path->utf8_domain && !bh_utf8_valid(path->domain)) {
            return BH_PATH_NOT_UTF8;
        }
        if (path->domain.len > BH_DOMAIN_MAX) {
            return BH_PATH_TOO_LONG;
        }
        if (!path->utf8_domain && !bh_domain_valid(path->domain)) {
            return BH_PATH_DOMAIN;
        }
    }
    *s = bh_slice_skip(*s, path->domain.len);
    return BH_PATH_OK;
}

static enum bh_path_status mailbox_parse(struct bh_slice *s, struct bh_path *path)
{
    if (s->len > 0 && s->ptr[0] == '@' && !skip_source_route(s)) {
        return BH_PATH_SYNTAX;
    }
    const size_t len = s->len > 0 && s->ptr[0] == '"' ? quoted_len(*s) : dot_string_len(*s);
    path->local = bh_slice_take(*s, len);
    path->utf8_local = !bh_is_ascii(path->local);
    if (len == 0) {
        return BH_PATH_LOCAL;
    }
    if (path->utf8_local && !bh_utf8_valid(path->local)) {
        return BH_PATH_NOT_UTF8;
    }
    *s = bh_slice_skip(*s, len);
    if (s->len > 0 && s->ptr[0] == '@') {
        *s = bh_slice_skip(*s, 1);
        return domain_parse(s, path);
    }
    return BH_PATH_OK;
}

enum bh_path_status bh_path_parse(struct bh_slice *line, struct bh_path *path)
{
    struct bh_slice s = *line;
    *path = (struct bh_path){.local = BH_EMPTY, .domain = BH_EMPTY};
    if (s.len < 2 || s.ptr[0] != '<') {
        return BH_PATH_SYNTAX;
    }
    s = bh_slice_skip(s, 1);
    if (s.ptr[0] == '>') {
        path->null = true;
    } else {
        const enum bh_path_status status = mailbox_parse(&s, path);
        if (status != BH_PATH_OK) {
            return status;
        }
        if (path->local.len + 1 + path->domain.len > BH_ADDRESS_MAX) {
            return BH_PATH_TOO_LONG;
        }
    }
    if (s.len == 0 || s.ptr[0] != '>') {
        return BH_PATH_SYNTAX;
    }
    *line = bh_slice_skip(s, 1);
    return BH_PATH_OK;
}

static void put_literal(const struct bh_ip *ip, struct bh_buf *domain)
{
    char text[BH_IP_TEXT_MAX];
    bh_ip_text(ip, text);
    bh_buf_put(domain, ip->family == 6 ? BH_LIT("[IPv6:") : BH_LIT("["));
    bh_buf_put(domain, bh_slice_str(text));
    bh_buf_put_char(domain, ']');
}

static enum bh_path_status put_domain(const struct bh_path *path, bh_to_ascii_fn *to_ascii,
                                      void *ctx, struct bh_buf *domain)
{
    if (path->literal) {
        put_literal(&path->ip, domain);
        return BH_PATH_OK;
    }
    if (!path->utf8_domain) {
        bh_buf_put(domain, path->domain);
    } else if (to_ascii == NULL || !to_ascii(ctx, path->domain, domain)) {
        return BH_PATH_DOMAIN;
    }
    for (size_t i = 0; i < domain->len; i++) {
        domain->ptr[i] = bh_lower(domain->ptr[i]);
    }
    /* Judged again after IDNA, which lets through what is no host name. */
    return bh_domain_valid(bh_buf_slice(domain)) ? BH_PATH_OK : BH_PATH_DOMAIN;
}

enum bh_path_status bh_path_address(const struct bh_path *path, bool smtputf8,
                                    bh_to_ascii_fn *to_ascii, void *to_ascii_ctx,
                                    struct bh_buf *address)
{
    if (path->null || path->domain.len == 0) {
        return BH_PATH_NO_DOMAIN;
    }
    if ((path->utf8_local || path->utf8_domain) && !smtputf8) {
        return BH_PATH_NEEDS_UTF8;
    }
    char storage[BH_DOMAIN_MAX + 1];
    struct bh_buf domain = bh_buf(storage, sizeof(storage));
    const enum bh_path_status status = put_domain(path, to_ascii, to_ascii_ctx, &domain);
    if (status != BH_PATH_OK) {
        return status;
    }
    if (path->local.len + 1 + domain.len > BH_ADDRESS_MAX) {
        return BH_PATH_TOO_LONG;
    }
    bh_buf_put(address, path->local);
    bh_buf_put_char(address, '@');
    bh_buf_put(address, bh_buf_slice(&domain));
    return BH_PATH_OK;
}
