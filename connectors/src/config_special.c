/* config_special.c - address spaces, senders, smarthosts, what a reply means: settings whose values
 * have a form of their own. */
#include "config_special.h"

#include <inttypes.h>
#include <stdio.h>

#include "bh/envelope.h"
#include "config_units.h"
#include "config_value.h"

#define WEIGHT_MAX 1000000

static void wrong(struct bh_load *load, const struct bh_setting *setting,
                  const struct bh_config_node *node, const struct bh_config_value *value)
{
    bh_load_error(load, node, value, "'%s' takes %s; got '%.*s'", setting->name, setting->expected,
                  BH_FMT(bh_load_shown(value->text)));
}

/* a + b + c in the arena. */
static bool join(struct bh_load *load, struct bh_slice a, struct bh_slice b, struct bh_slice c,
                 struct bh_slice *joined)
{
    char *octets = bh_load_alloc(load, a.len + b.len + c.len + 1);
    if (octets == NULL) {
        return false;
    }
    struct bh_buf buf = bh_buf(octets, a.len + b.len + c.len);
    bh_buf_put(&buf, a);
    bh_buf_put(&buf, b);
    bh_buf_put(&buf, c);
    *joined = bh_buf_slice(&buf);
    return true;
}

static enum bh_status print_names(const struct bh_names *names, struct bh_buf *out)
{
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < names->count && status == BH_OK; i++) {
        if (i > 0) {
            status = bh_buf_add(out, BH_LIT(" "));
        }
        if (status == BH_OK) {
            status = bh_value_print_text(names->at[i], out);
        }
    }
    return status;
}

static void read_each(struct bh_load *load, const struct bh_setting *setting,
                      const struct bh_config_node *node, void *at,
                      bool (*one)(struct bh_load *, const struct bh_setting *,
                                  const struct bh_config_node *, const struct bh_config_value *,
                                  struct bh_slice *))
{
    struct bh_names names = {0};
    struct bh_slice *items = bh_load_alloc(load, node->values_count * sizeof(*items));
    if (items == NULL) {
        return;
    }
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        if (one(load, setting, node, value, &items[names.count])) {
            names.count++;
        }
    }
    names.at = items;
    memcpy(at, &names, sizeof(names));
}

/* ---- address spaces ---- */

static bool read_domain(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, const struct bh_config_value *value,
                        struct bh_slice *domain)
{
    const struct bh_slice text = value->text;
    char ip_text[BH_IP_TEXT_MAX];
    struct bh_ip ip;
    if (bh_slice_eq(text, BH_LIT("*"))) {
        *domain = text;
        return true;
    }
    if (text.len > 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']') {
        struct bh_slice inner = bh_slice(text.ptr + 1, text.len - 2);
        if (bh_slice_starts_nocase(inner, BH_LIT("IPv6:"))) {
            inner = bh_slice_skip(inner, 5);
        }
        if (!bh_ip_parse(inner, &ip)) {
            wrong(load, setting, node, value);
            return false;
        }
        /* One spelling for each address, as the parser of addresses gives it (RFC 5321 4.1.3). */
        return join(load, ip.family == 6 ? BH_LIT("[IPv6:") : BH_LIT("["),
                    bh_slice_str(bh_ip_text(&ip, ip_text)), BH_LIT("]"), domain);
    }
    if (bh_slice_starts(text, BH_LIT("*."))) {
        struct bh_slice suffix;
        return bh_load_name(load, node, value, bh_slice_skip(text, 2), &suffix) &&
               join(load, BH_LIT("*."), suffix, BH_EMPTY, domain);
    }
    if (bh_ip_parse(text, &ip)) {
        bh_load_error(load, node, value, "an address as a domain is written [%.*s]",
                      BH_FMT(bh_load_shown(text)));
        return false;
    }
    return bh_load_name(load, node, value, text, domain);
}

void bh_read_domains(struct bh_load *load, const struct bh_setting *setting,
                     const struct bh_config_node *node, void *at)
{
    read_each(load, setting, node, at, read_domain);
}

enum bh_status bh_print_domains(const void *at, struct bh_buf *out)
{
    return print_names(at, out);
}

static bool read_sender(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, const struct bh_config_value *value,
                        struct bh_slice *sender)
{
    const struct bh_slice text = value->text;
    if (bh_slice_eq(text, BH_LIT("<>"))) {
        *sender = text;
        return true;
    }
    const struct bh_slice domain = bh_address_domain(text);
    if (bh_slice_find(text, '@') == text.len || domain.len == 0) {
        wrong(load, setting, node, value);
        return false;
    }
    const bool below = text.ptr[0] == '@' && bh_slice_starts(domain, BH_LIT("*."));
    struct bh_slice name;
    return bh_load_name(load, node, value, below ? bh_slice_skip(domain, 2) : domain, &name) &&
           join(load, bh_address_local(text), below ? BH_LIT("@*.") : BH_LIT("@"), name, sender);
}

void bh_read_senders(struct bh_load *load, const struct bh_setting *setting,
                     const struct bh_config_node *node, void *at)
{
    read_each(load, setting, node, at, read_sender);
}

enum bh_status bh_print_senders(const void *at, struct bh_buf *out)
{
    return print_names(at, out);
}

/* ---- smarthosts ---- */

#define SMARTHOSTS_MAX 16 /* as many as are planned with: BH_TARGET_SMARTHOSTS_MAX */

/* "host", "host:587", "[host]:587", "192.0.2.1:25", "2001:db8::1", "[2001:db8::1]:25" */
static bool read_smarthost(struct bh_load *load, const struct bh_setting *setting,
                           const struct bh_config_node *node, const struct bh_config_value *value,
                           struct bh_smarthost *to)
{
    const struct bh_slice text = value->text;
    *to = (struct bh_smarthost){.weight = 1, .mx_lookup = true};
    if (bh_ip_parse(text, &to->ip)) {
        to->mx_lookup = false;
        return true;
    }
    const bool bracket = text.len > 0 && text.ptr[0] == '[';
    const size_t end = bh_slice_find(text, bracket ? ']' : ':');
    const struct bh_slice host = bh_slice_skip(bh_slice(text.ptr, end), bracket ? 1 : 0);
    const struct bh_slice rest = bh_slice_skip(text, bracket ? end + 1 : end);
    uint64_t port = 0;
    if ((bracket && end == text.len) ||
        (rest.len > 0 && (rest.ptr[0] != ':' ||
                          !bh_slice_u64(bh_slice_skip(rest, 1), 65535, &port) || port == 0))) {
        wrong(load, setting, node, value);
        return false;
    }
    to->port = (uint16_t)port;
    if (bh_ip_parse(host, &to->ip)) {
        to->mx_lookup = false;
        return true;
    }
    to->mx_lookup = !bracket;
    return bh_load_name(load, node, value, host, &to->host);
}

/* `weight N` or `priority N` behind a host. @return the value of N, to go on from */
static const struct bh_config_value *read_share(struct bh_load *load,
                                                const struct bh_config_node *node,
                                                const struct bh_config_value *word,
                                                struct bh_smarthost *to)
{
    const bool weight = bh_slice_eq(word->text, BH_LIT("weight"));
    const struct bh_config_value *value = word->next;
    uint64_t number = 0;
    if (value == NULL || !bh_slice_u64(value->text, weight ? WEIGHT_MAX : 65535, &number) ||
        (weight && number == 0)) {
        bh_load_error(load, node, value != NULL ? value : word,
                      "'%.*s' needs a number from %d to %d", BH_FMT(word->text), weight ? 1 : 0,
                      weight ? WEIGHT_MAX : 65535);
    } else if (weight) {
        to->weight = (uint32_t)number;
    } else {
        to->priority = (uint16_t)number;
    }
    return value != NULL ? value : word;
}

void bh_read_smarthosts(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, void *at)
{
    struct bh_connector *connector = at;
    struct bh_smarthost *hosts = bh_load_alloc(load, node->values_count * sizeof(*hosts));
    size_t count = 0;
    if (hosts == NULL) {
        return;
    }
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        const bool share = bh_slice_eq(value->text, BH_LIT("weight")) ||
                           bh_slice_eq(value->text, BH_LIT("priority"));
        if (share && count == 0) {
            wrong(load, setting, node, value);
            value = value->next != NULL ? value->next : value;
        } else if (share) {
            value = read_share(load, node, value, &hosts[count - 1]);
        } else if (read_smarthost(load, setting, node, value, &hosts[count])) {
            count++;
        }
    }
    connector->route = BH_ROUTE_SMARTHOSTS;
    if (count > SMARTHOSTS_MAX) {
        bh_load_error(load, node, NULL, "at most %d smarthosts; got %zu", SMARTHOSTS_MAX, count);
    }
    connector->smarthosts = (struct bh_smarthosts){hosts, count};
}

enum bh_status bh_print_smarthosts(const void *at, struct bh_buf *out)
{
    const struct bh_connector *connector = at;
    const struct bh_smarthosts *list = &connector->smarthosts;
    if (connector->route != BH_ROUTE_SMARTHOSTS || list->count == 0) {
        return BH_OK;
    }
    enum bh_status status = bh_buf_add(out, BH_LIT("[ "));
    for (size_t i = 0; i < list->count && status == BH_OK; i++) {
        const struct bh_smarthost *host = &list->at[i];
        char ip[BH_IP_TEXT_MAX];
        const struct bh_slice name =
            host->ip.family != 0 ? bh_slice_str(bh_ip_text(&host->ip, ip)) : host->host;
        status = host->mx_lookup ? bh_buf_printf(out, "%.*s", BH_FMT(name))
                                 : bh_buf_printf(out, "[%.*s]", BH_FMT(name));
        if (status == BH_OK && host->port != 0) {
            status = bh_buf_printf(out, ":%u", (unsigned)host->port);
        }
        if (status == BH_OK) {
            status = bh_buf_printf(out, " priority %u weight %" PRIu32 " ",
                                   (unsigned)host->priority, host->weight);
        }
    }
    return status == BH_OK ? bh_buf_add(out, BH_LIT("]")) : status;
}

/* ---- replies ---- */

static const struct bh_choice reply_actions[] = {{"defer", BH_REPLY_DEFER},
                                                 {"hold", BH_REPLY_HOLD},
                                                 {"bounce", BH_REPLY_BOUNCE},
                                                 {"slow", BH_REPLY_SLOW},
                                                 {NULL, 0}};

/* "450", "45x", "4xx" */
static bool read_code(struct bh_slice text, struct bh_reply_rule *rule)
{
    if (text.len != 3 || (text.ptr[0] != '4' && text.ptr[0] != '5')) {
        return false;
    }
    unsigned code = (unsigned)(text.ptr[0] - '0');
    for (size_t i = 1; i < 3; i++) {
        if (bh_is_digit(text.ptr[i]) && (i == 1 || text.ptr[1] != 'x')) {
            code = code * 10 + (unsigned)(text.ptr[i] - '0');
        } else if (text.ptr[i] != 'x') {
            return false;
        }
    }
    rule->code = (uint16_t)code;
    return true;
}

static bool read_part(struct bh_slice text, int32_t *part)
{
    uint64_t number = 0;
    if (bh_slice_eq(text, BH_LIT("*"))) {
        *part = -1;
        return true;
    }
    if (!bh_slice_u64(text, 999, &number)) {
        return false;
    }
    *part = (int32_t)number;
    return true;
}

/* "4.7.1", "5.7.*", "5.*.*" */
static bool read_enhanced(struct bh_slice text, struct bh_reply_rule *rule)
{
    if (text.len < 5 || (text.ptr[0] != '4' && text.ptr[0] != '5') || text.ptr[1] != '.') {
        return false;
    }
    const struct bh_slice rest = bh_slice_skip(text, 2);
    const size_t dot = bh_slice_find(rest, '.');
    if (dot == rest.len || !read_part(bh_slice(rest.ptr, dot), &rule->enhanced_subject) ||
        !read_part(bh_slice_skip(rest, dot + 1), &rule->enhanced_detail)) {
        return false;
    }
    rule->enhanced_class = (uint8_t)(text.ptr[0] - '0');
    return true;
}

static bool read_condition(struct bh_slice text, struct bh_reply_rule *rule)
{
    if (text.len > 2 && text.ptr[0] == '/' && text.ptr[text.len - 1] == '/') {
        rule->pattern = bh_slice(text.ptr + 1, text.len - 2);
        return true;
    }
    return read_code(text, rule) || read_enhanced(text, rule);
}

/* reply CONDITION... -> ACTION */
static bool read_rule(struct bh_load *load, const struct bh_setting *setting,
                      const struct bh_config_node *node, struct bh_reply_rule *rule)
{
    const struct bh_config_value *value = node->values;
    *rule = (struct bh_reply_rule){.enhanced_subject = -1, .enhanced_detail = -1};
    if (!bh_slice_eq(value->text, BH_LIT("reply"))) {
        wrong(load, setting, node, value);
        return false;
    }
    size_t conditions = 0;
    const struct bh_config_value *last = value;
    for (value = value->next; value != NULL && !bh_slice_eq(value->text, BH_LIT("->"));
         value = value->next) {
        if (!read_condition(value->text, rule)) {
            wrong(load, setting, node, value);
            return false;
        }
        conditions++;
        last = value;
    }
    if (conditions == 0 || value == NULL || value->next == NULL || value->next->next != NULL) {
        bh_load_error(load, node, last, "'on' is written: on %s", setting->expected);
        return false;
    }
    int action = 0;
    if (!bh_load_enum(load, node, value->next, "what follows '->'", reply_actions, &action)) {
        return false;
    }
    rule->action = (enum bh_reply_action)action;
    return true;
}

void bh_read_reply_rules(struct bh_load *load, const struct bh_setting *setting,
                         const struct bh_config_node *node, void *at)
{
    struct bh_reply_rules *rules = at;
    struct bh_reply_rule rule;
    if (!read_rule(load, setting, node, &rule)) {
        return;
    }
    /* Lists are short and never shared with `defaults` once they grow: copy and add. */
    struct bh_reply_rule *grown = bh_load_alloc(load, (rules->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return;
    }
    if (rules->count > 0) {
        memcpy(grown, rules->at, rules->count * sizeof(*grown));
    }
    grown[rules->count] = rule;
    *rules = (struct bh_reply_rules){grown, rules->count + 1};
}

static enum bh_status print_rule(const struct bh_reply_rule *rule, struct bh_buf *out)
{
    enum bh_status status = bh_buf_add(out, BH_LIT("reply"));
    if (status == BH_OK && rule->code > 0) {
        const char *rest = rule->code < 10 ? "xx" : rule->code < 100 ? "x" : "";
        status = bh_buf_printf(out, " %u%s", (unsigned)rule->code, rest);
    }
    if (status == BH_OK && rule->enhanced_class > 0) {
        char subject[12] = "*";
        char detail[12] = "*";
        if (rule->enhanced_subject >= 0) {
            snprintf(subject, sizeof(subject), "%" PRId32, rule->enhanced_subject);
        }
        if (rule->enhanced_detail >= 0) {
            snprintf(detail, sizeof(detail), "%" PRId32, rule->enhanced_detail);
        }
        status = bh_buf_printf(out, " %u.%s.%s", (unsigned)rule->enhanced_class, subject, detail);
    }
    if (status == BH_OK && rule->pattern.len > 0) {
        /* The slashes stand around the pattern in the text it is a part of. */
        status = bh_buf_add(out, BH_LIT(" "));
        const struct bh_slice whole = bh_slice(rule->pattern.ptr - 1, rule->pattern.len + 2);
        status = status == BH_OK ? bh_value_print_text(whole, out) : status;
    }
    for (size_t i = 0; reply_actions[i].name != NULL && status == BH_OK; i++) {
        if (reply_actions[i].value == (int)rule->action) {
            status = bh_buf_printf(out, " -> %s", reply_actions[i].name);
        }
    }
    return status;
}

enum bh_status bh_print_reply_rules(const void *at, struct bh_buf *out)
{
    const struct bh_reply_rules *rules = at;
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < rules->count && status == BH_OK; i++) {
        if (i > 0) {
            status = bh_buf_add(out, BH_LIT("; on "));
        }
        if (status == BH_OK) {
            status = print_rule(&rules->at[i], out);
        }
    }
    return status;
}

/* ---- who may relay ---- */

void bh_read_relay_from(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, void *at)
{
    struct bh_listen_config *listen = at;
    struct bh_net *nets = bh_load_alloc(load, node->values_count * sizeof(*nets));
    size_t count = 0;
    if (nets == NULL) {
        return;
    }
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        if (bh_slice_eq(value->text, BH_LIT("local"))) {
            listen->relay_local = true;
        } else if (bh_slice_eq(value->text, BH_LIT("certificate"))) {
            listen->relay_certificate = true;
        } else if (bh_net_parse(value->text, &nets[count])) {
            if (nets[count].prefix_len == 0) {
                bh_load_warning(load, node, value,
                                "this lets the whole Internet relay through this listener");
            }
            count++;
        } else {
            wrong(load, setting, node, value);
        }
    }
    listen->relay_from = (struct bh_nets){nets, count};
}

enum bh_status bh_print_relay_from(const void *at, struct bh_buf *out)
{
    const struct bh_listen_config *listen = at;
    enum bh_status status = listen->relay_local ? bh_buf_add(out, BH_LIT("local ")) : BH_OK;
    if (status == BH_OK && listen->relay_certificate) {
        status = bh_buf_add(out, BH_LIT("certificate "));
    }
    for (size_t i = 0; i < listen->relay_from.count && status == BH_OK; i++) {
        char ip[BH_IP_TEXT_MAX];
        const struct bh_net *net = &listen->relay_from.at[i];
        status = bh_buf_printf(out, "%s/%u ", bh_ip_text(&net->ip, ip), (unsigned)net->prefix_len);
    }
    return status;
}
