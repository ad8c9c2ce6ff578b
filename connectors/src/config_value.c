#include "config_value.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "config_units.h"

#define SHOWN_MAX 80
#define EXPECTED_MAX 320
#define ALLOWED_MAX 600 /* more than the names of any block */
#define DNS_PORT 53
#define TIMES_MAX 16 /* as many as the scheduler keeps: BH_INTERVALS_MAX */

/* ---- messages ---- */

static void add_error(struct bh_load *load, enum bh_config_level level,
                      const struct bh_config_node *node, const struct bh_config_value *value,
                      const char *format, va_list args) __attribute__((format(printf, 5, 0)));

static void add_error(struct bh_load *load, enum bh_config_level level,
                      const struct bh_config_node *node, const struct bh_config_value *value,
                      const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof(text), format, args);
    bh_config_errors_add(load->errors, level, node->file->name,
                         value != NULL ? value->line : node->line,
                         value != NULL ? value->column : node->column, "%s", text);
}

void bh_load_error(struct bh_load *load, const struct bh_config_node *node,
                   const struct bh_config_value *value, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_error(load, BH_CONFIG_ERROR, node, value, format, args);
    va_end(args);
}

void bh_load_warning(struct bh_load *load, const struct bh_config_node *node,
                     const struct bh_config_value *value, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_error(load, BH_CONFIG_WARNING, node, value, format, args);
    va_end(args);
}

void *bh_load_alloc(struct bh_load *load, size_t size)
{
    void *memory = bh_arena_alloc(load->arena, size);
    if (memory == NULL) {
        load->no_memory = true;
    }
    return memory;
}

struct bh_slice bh_load_shown(struct bh_slice text)
{
    return bh_slice_take(text, SHOWN_MAX);
}

/* ---- what is allowed, in words ---- */

static void list_choices(const struct bh_choice *choices, struct bh_buf *out)
{
    for (size_t i = 0; choices[i].name != NULL; i++) {
        const char *between = i == 0 ? "" : choices[i + 1].name == NULL ? " or " : ", ";
        bh_buf_add_cut(out, bh_slice_str(between));
        bh_buf_add_cut(out, bh_slice_str(choices[i].name));
    }
}

static const char *kind_words(enum bh_kind kind)
{
    switch (kind) {
    case BH_KIND_BOOL:
        return "yes or no";
    case BH_KIND_PORT:
        return "a port from 1 to 65535";
    case BH_KIND_PERCENT:
        return "a share such as 10%";
    case BH_KIND_TIME:
        return "a time such as 30s, 5m, 4h or 2d";
    case BH_KIND_SIZE:
        return "a size such as 512K, 25M or 2G";
    case BH_KIND_RATE:
        return "a rate such as 5/s, 60/min, 1000/h or 20000/d";
    case BH_KIND_DATE:
        return "a date such as 2026-12-31";
    case BH_KIND_TEXT:
        return "a text";
    case BH_KIND_NAME:
        return "a host name";
    case BH_KIND_NAMES:
        return "host names";
    case BH_KIND_PATH:
        return "a path";
    case BH_KIND_PATHS:
        return "paths";
    case BH_KIND_FILE:
        return "a file";
    case BH_KIND_TIMES:
        return "times such as 5m 15m 1h";
    case BH_KIND_NETS:
        return "networks such as 10.0.0.0/8 or 2001:db8::/32";
    case BH_KIND_IPS:
        return "addresses such as 192.0.2.1 or 2001:db8::1";
    case BH_KIND_SERVERS:
        return "servers such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53";
    case BH_KIND_BLOCK:
        return "a block { ... }";
    case BH_KIND_COUNT:
    case BH_KIND_ENUM:
    case BH_KIND_SPECIAL:
        break;
    }
    return "a value";
}

/* NUL-terminated. */
static const char *expected(const struct bh_setting *setting, char text[EXPECTED_MAX])
{
    struct bh_buf out = bh_buf(text, EXPECTED_MAX - 1);
    char number[80];
    if (setting->choices != NULL) {
        list_choices(setting->choices, &out);
    } else if (setting->kind == BH_KIND_COUNT) {
        snprintf(number, sizeof(number), "a number from %" PRIu64 " to %" PRIu64,
                 setting->zero != NULL ? 1 : setting->min, setting->max);
        bh_buf_add_cut(&out, bh_slice_str(number));
    } else {
        bh_buf_add_cut(&out, bh_slice_str(setting->expected != NULL ? setting->expected
                                                                    : kind_words(setting->kind)));
    }
    if (setting->zero != NULL) {
        bh_buf_add_cut(&out, BH_LIT(", or "));
        bh_buf_add_cut(&out, bh_slice_str(setting->zero));
    }
    text[out.len] = '\0';
    return text;
}

static void wrong(struct bh_load *load, const struct bh_setting *setting,
                  const struct bh_config_node *node, const struct bh_config_value *value)
{
    char text[EXPECTED_MAX];
    const char *brackets = value->text.len > 2 && value->text.ptr[0] == '[' && !value->quoted &&
                                   value->text.ptr[value->text.len - 1] == ']'
                               ? "; a list of one is written with blanks: [ value ]"
                               : "";
    if (setting->kind == BH_KIND_COUNT) {
        bh_load_error(load, node, value, "'%s' must be %s, got '%.*s'%s", setting->name,
                      expected(setting, text), BH_FMT(bh_load_shown(value->text)), brackets);
        return;
    }
    bh_load_error(load, node, value, "expected %s, got '%.*s'%s", expected(setting, text),
                  BH_FMT(bh_load_shown(value->text)), brackets);
}

/* ---- single values ---- */

bool bh_load_enum(struct bh_load *load, const struct bh_config_node *node,
                  const struct bh_config_value *value, const char *what,
                  const struct bh_choice *choices, int *chosen)
{
    const char *nearest = NULL;
    unsigned best = UINT_MAX;
    for (size_t i = 0; choices[i].name != NULL; i++) {
        const struct bh_slice name = bh_slice_str(choices[i].name);
        if (bh_slice_eq(value->text, name)) {
            *chosen = choices[i].value;
            return true;
        }
        const unsigned distance = bh_units_distance(value->text, name);
        if (distance < best) {
            best = distance;
            nearest = choices[i].name;
        }
    }
    char text[EXPECTED_MAX];
    struct bh_buf out = bh_buf(text, sizeof(text));
    list_choices(choices, &out);
    bh_load_error(load, node, value, "%s must be %.*s; got '%.*s'%s%s%s", what,
                  BH_FMT(bh_buf_slice(&out)), BH_FMT(bh_load_shown(value->text)),
                  nearest != NULL ? " (did you mean '" : "", nearest != NULL ? nearest : "",
                  nearest != NULL ? "'?)" : "");
    return false;
}

static bool is_label(struct bh_slice label)
{
    if (label.len == 0 || label.len > 63 || label.ptr[0] == '-' ||
        label.ptr[label.len - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < label.len; i++) {
        const char c = label.ptr[i];
        if (!bh_is_alpha(c) && !bh_is_digit(c) && c != '-' && c != '_') {
            return false;
        }
    }
    return true;
}

static bool is_host_name(struct bh_slice name)
{
    if (name.len == 0 || name.len > 253) {
        return false;
    }
    for (struct bh_slice rest = name;;) {
        const size_t dot = bh_slice_find(rest, '.');
        if (!is_label(bh_slice(rest.ptr, dot))) {
            return false;
        }
        if (dot == rest.len) {
            return true;
        }
        rest = bh_slice_skip(rest, dot + 1);
        if (rest.len == 0) {
            return false;
        }
    }
}

static bool is_ascii(struct bh_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.ptr[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

bool bh_load_name(struct bh_load *load, const struct bh_config_node *node,
                  const struct bh_config_value *value, struct bh_slice text, struct bh_slice *name)
{
    char ascii[256];
    struct bh_slice plain = text;
    if (!is_ascii(text)) {
        if (load->reader->to_ascii == NULL ||
            !load->reader->to_ascii(load->reader->ctx, text, ascii)) {
            bh_load_error(load, node, value, "'%.*s' has no form in ASCII (IDNA)",
                          BH_FMT(bh_load_shown(text)));
            return false;
        }
        plain = bh_slice_str(ascii);
    }
    if (plain.len > 1 && plain.ptr[plain.len - 1] == '.') {
        plain.len--;
    }
    if (!is_host_name(plain)) {
        bh_load_error(load, node, value, "'%.*s' is not a host name", BH_FMT(bh_load_shown(text)));
        return false;
    }
    char *copy = bh_load_alloc(load, plain.len + 1);
    if (copy == NULL) {
        return false;
    }
    for (size_t i = 0; i < plain.len; i++) {
        copy[i] = bh_lower(plain.ptr[i]);
    }
    *name = bh_slice(copy, plain.len);
    return true;
}

/* "credential:NAME": what the service manager hands over, found when it is needed (systemd's
 * LoadCredential=). */
static bool read_credential(struct bh_load *load, const struct bh_config_node *node,
                            const struct bh_config_value *value, struct bh_slice *path)
{
    const struct bh_slice name = bh_slice_skip(value->text, BH_CREDENTIAL_PREFIX.len);
    if (name.len == 0 || name.ptr[0] == '.' || bh_slice_find(name, '/') < name.len) {
        bh_load_error(load, node, value,
                      "'%.*s' names no credential: credential:NAME, as in systemd's "
                      "LoadCredential=NAME:...",
                      BH_FMT(bh_load_shown(value->text)));
        return false;
    }
    char *copy = bh_load_alloc(load, value->text.len + 1);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, value->text.ptr, value->text.len);
    copy[value->text.len] = '\0';
    *path = bh_slice(copy, value->text.len);
    return true;
}

/* A path, resolved against the file that names it; a FILE must exist. */
static bool read_path(struct bh_load *load, const struct bh_setting *setting,
                      const struct bh_config_node *node, const struct bh_config_value *value,
                      struct bh_slice *path)
{
    if (value->text.len == 0) {
        wrong(load, setting, node, value);
        return false;
    }
    if ((setting->flags & BH_LATER) != 0 && bh_slice_starts(value->text, BH_CREDENTIAL_PREFIX)) {
        return read_credential(load, node, value, path);
    }
    if (!bh_config_resolve_path(load->arena, node->file, value->text, path)) {
        load->no_memory = true;
        return false;
    }
    if (setting->kind == BH_KIND_FILE && !load->builtin &&
        load->reader->exists(load->reader->ctx, path->ptr) == BH_ENOTFOUND) {
        if ((setting->flags & BH_WAITS) != 0) {
            bh_load_warning(load, node, value,
                            "'%s' %.*s: no such file; until it is there mail waits", setting->name,
                            BH_FMT(bh_slice_take(*path, 256)));
        } else if ((setting->flags & BH_LATER) != 0) {
            bh_load_warning(load, node, value, "'%s' %.*s: no such file yet", setting->name,
                            BH_FMT(bh_slice_take(*path, 256)));
        } else {
            bh_load_error(load, node, value, "'%s' %.*s: no such file", setting->name,
                          BH_FMT(bh_slice_take(*path, 256)));
        }
    }
    return true;
}

static bool in_range(struct bh_load *load, const struct bh_setting *setting,
                     const struct bh_config_node *node, const struct bh_config_value *value,
                     uint64_t number)
{
    char low[BH_UNITS_TEXT_MAX];
    char high[BH_UNITS_TEXT_MAX];
    if (number >= setting->min && number <= setting->max &&
        (number > 0 || setting->zero == NULL || setting->min > 0)) {
        return true;
    }
    const uint64_t min = setting->min > 0 || setting->zero == NULL ? setting->min : 1;
    if (setting->kind == BH_KIND_TIME) {
        bh_units_time_text(min, low);
        bh_units_time_text(setting->max, high);
    } else if (setting->kind == BH_KIND_SIZE) {
        bh_units_size_text(min, low);
        bh_units_size_text(setting->max, high);
    } else {
        snprintf(low, sizeof(low), "%" PRIu64, min);
        snprintf(high, sizeof(high), "%" PRIu64, setting->max);
    }
    bh_load_error(load, node, value, "'%s' must be from %s to %s%s%s; got '%.*s'", setting->name,
                  low, high, setting->zero != NULL ? ", or " : "",
                  setting->zero != NULL ? setting->zero : "", BH_FMT(bh_load_shown(value->text)));
    return false;
}

/* COUNT, PORT, PERCENT, TIME, SIZE. The word for 0 has been handled. */
static bool read_number(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, const struct bh_config_value *value,
                        uint64_t *number)
{
    struct bh_slice text = value->text;
    bool good = false;
    if (setting->kind == BH_KIND_TIME) {
        good = bh_units_time(text, number);
    } else if (setting->kind == BH_KIND_SIZE) {
        good = bh_units_size(text, number);
    } else if (setting->kind == BH_KIND_PERCENT) {
        good = text.len > 1 && text.ptr[text.len - 1] == '%' &&
               bh_slice_u64(bh_slice(text.ptr, text.len - 1), UINT32_MAX, number);
    } else {
        good = bh_slice_u64(text, (uint64_t)1 << 50, number);
    }
    if (!good) {
        wrong(load, setting, node, value);
        return false;
    }
    return in_range(load, setting, node, value, *number);
}

static bool read_bool(struct bh_slice text, bool *value)
{
    *value = bh_slice_eq(text, BH_LIT("yes"));
    return *value || bh_slice_eq(text, BH_LIT("no"));
}

/* "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]:53" */
static bool read_server(struct bh_slice text, struct bh_server_addr *server)
{
    uint64_t port = DNS_PORT;
    if (!bh_ip_parse(text, &server->ip)) {
        const bool bracket = text.len > 0 && text.ptr[0] == '[';
        const size_t end = bh_slice_find(text, bracket ? ']' : ':');
        const struct bh_slice host =
            bracket ? bh_slice_skip(bh_slice(text.ptr, end), 1) : bh_slice(text.ptr, end);
        struct bh_slice rest = bh_slice_skip(text, bracket ? end + 1 : end);
        if (end == text.len || !bh_ip_parse(host, &server->ip)) {
            return false;
        }
        if (rest.len > 0 && (rest.ptr[0] != ':' ||
                             !bh_slice_u64(bh_slice_skip(rest, 1), 65535, &port) || port == 0)) {
            return false;
        }
    }
    server->port = (uint16_t)port;
    return true;
}

/* ---- lists ---- */

static size_t item_size(enum bh_kind kind)
{
    switch ((int)kind) {
    case BH_KIND_TIMES:
        return sizeof(uint64_t);
    case BH_KIND_NETS:
        return sizeof(struct bh_net);
    case BH_KIND_IPS:
        return sizeof(struct bh_ip);
    case BH_KIND_SERVERS:
        return sizeof(struct bh_server_addr);
    default:
        return sizeof(struct bh_slice);
    }
}

/* One item of a list into its place. @return false: the value is wrong, and that was told */
static bool read_item(struct bh_load *load, const struct bh_setting *setting,
                      const struct bh_config_node *node, const struct bh_config_value *value,
                      void *item)
{
    bool good = false;
    switch ((int)setting->kind) {
    case BH_KIND_NAMES:
        return bh_load_name(load, node, value, value->text, item);
    case BH_KIND_PATHS:
        return read_path(load, setting, node, value, item);
    case BH_KIND_TIMES: {
        uint64_t *ms = item;
        good = bh_units_time(value->text, ms) && *ms >= 1000 && *ms <= (uint64_t)30 * 86400000;
        break;
    }
    case BH_KIND_NETS:
        good = bh_net_parse(value->text, item);
        break;
    case BH_KIND_IPS:
        good = bh_ip_parse(value->text, item);
        break;
    case BH_KIND_SERVERS:
        good = read_server(value->text, item);
        break;
    default:
        break;
    }
    if (!good) {
        wrong(load, setting, node, value);
    }
    return good;
}

/* All list types have the same layout: a pointer and a count. */
struct any_list {
    const void *at;
    size_t count;
};
_Static_assert(sizeof(struct any_list) == sizeof(struct bh_names), "lists look alike");
_Static_assert(sizeof(struct any_list) == sizeof(struct bh_nets), "lists look alike");
_Static_assert(sizeof(struct any_list) == sizeof(struct bh_times), "lists look alike");
_Static_assert(sizeof(struct any_list) == sizeof(struct bh_server_addrs), "lists look alike");

static void read_list(struct bh_load *load, const struct bh_setting *setting,
                      const struct bh_config_node *node, void *at)
{
    struct any_list list = {0};
    if (setting->zero != NULL && node->values_count == 1 &&
        bh_slice_eq(node->values->text, bh_slice_str(setting->zero))) {
        memcpy(at, &list, sizeof(list));
        return;
    }
    const size_t size = item_size(setting->kind);
    if (setting->kind == BH_KIND_TIMES && node->values_count > TIMES_MAX) {
        bh_load_error(load, node, NULL, "'%s' takes at most %d times", setting->name, TIMES_MAX);
        return;
    }
    char *items = bh_load_alloc(load, size * node->values_count);
    if (items == NULL) {
        return;
    }
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        if (read_item(load, setting, node, value, items + list.count * size)) {
            list.count++;
        }
    }
    list.at = items;
    memcpy(at, &list, sizeof(list));
}

/* ---- a setting ---- */

static void put_number(const struct bh_setting *setting, uint64_t number, void *at)
{
    const uint32_t u32 = (uint32_t)number;
    const uint16_t u16 = (uint16_t)number;
    if (setting->kind == BH_KIND_TIME || setting->kind == BH_KIND_SIZE) {
        memcpy(at, &number, sizeof(number));
    } else if (setting->kind == BH_KIND_PORT) {
        memcpy(at, &u16, sizeof(u16));
    } else {
        memcpy(at, &u32, sizeof(u32));
    }
}

static size_t value_size(enum bh_kind kind)
{
    switch ((int)kind) {
    case BH_KIND_COUNT:
        return sizeof(uint32_t);
    case BH_KIND_RATE:
        return sizeof(struct bh_rate);
    case BH_KIND_TIME:
    case BH_KIND_SIZE:
        return sizeof(uint64_t);
    default:
        return sizeof(struct bh_slice);
    }
}

/* A kind with exactly one value. */
static void read_single(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_config_node *node, const struct bh_config_value *value,
                        void *at)
{
    uint64_t number = 0;
    int chosen = 0;
    if (setting->zero != NULL && !value->quoted &&
        bh_slice_eq(value->text, bh_slice_str(setting->zero))) {
        memset(at, 0, value_size(setting->kind));
        return;
    }
    switch ((int)setting->kind) {
    case BH_KIND_BOOL:
        if (!read_bool(value->text, at)) {
            wrong(load, setting, node, value);
        }
        break;
    case BH_KIND_COUNT:
    case BH_KIND_PORT:
    case BH_KIND_PERCENT:
    case BH_KIND_TIME:
    case BH_KIND_SIZE:
        if (read_number(load, setting, node, value, &number)) {
            put_number(setting, number, at);
        }
        break;
    case BH_KIND_RATE:
        if (!bh_units_rate(value->text, at)) {
            wrong(load, setting, node, value);
        }
        break;
    case BH_KIND_DATE:
        if (!bh_units_date(value->text, at)) {
            wrong(load, setting, node, value);
        }
        break;
    case BH_KIND_ENUM: {
        const bool head = (setting->flags & BH_HEAD) != 0;
        char what[64];
        const struct bh_slice name = head ? node->key : bh_slice_str(setting->name);
        snprintf(what, sizeof(what), "%s%.*s%s", head ? "" : "'", BH_FMT(bh_slice_take(name, 40)),
                 head ? "" : "'");
        if (bh_load_enum(load, node, value, what, setting->choices, &chosen)) {
            memcpy(at, &chosen, sizeof(chosen));
        }
        break;
    }
    case BH_KIND_TEXT:
        memcpy(at, &value->text, sizeof(value->text));
        break;
    case BH_KIND_NAME:
        (void)bh_load_name(load, node, value, value->text, at);
        break;
    default:
        (void)read_path(load, setting, node, value, at);
        break;
    }
}

static bool takes_several(enum bh_kind kind)
{
    return kind == BH_KIND_NAMES || kind == BH_KIND_PATHS || kind == BH_KIND_TIMES ||
           kind == BH_KIND_NETS || kind == BH_KIND_IPS || kind == BH_KIND_SERVERS ||
           kind == BH_KIND_SPECIAL;
}

static void read_nested(struct bh_load *load, const struct bh_setting *setting,
                        const struct bh_load_scope *up, const struct bh_config_node *node, void *at)
{
    const struct bh_setting *head = &setting->block->settings[0];
    const bool has_head = (head->flags & BH_HEAD) != 0;
    const struct bh_config_value *value = node->values;
    if ((setting->flags & BH_RESETS) != 0) {
        memset(at, 0, setting->block->size);
    }
    if (has_head && value != NULL) {
        read_single(load, head, node, value, (char *)at + head->at);
        value = value->next;
    }
    if (value != NULL) {
        bh_load_error(load, node, value, "'%s' takes %s; '%.*s' is too much", setting->name,
                      has_head ? "one value and a block" : "a block { ... } and no value",
                      BH_FMT(bh_load_shown(value->text)));
    }
    if (!node->has_block && node->values == NULL) {
        char text[EXPECTED_MAX];
        bh_load_error(load, node, NULL, "'%s' needs %s", setting->name,
                      has_head ? expected(head, text) : "a block { ... }");
        return;
    }
    const struct bh_load_scope scope = {setting->block, node, up};
    bh_load_block(load, &scope, at);
}

static void read_setting(struct bh_load *load, const struct bh_setting *setting,
                         const struct bh_load_scope *scope, const struct bh_config_node *node,
                         void *base)
{
    void *at = (char *)base + setting->at;
    char text[EXPECTED_MAX];
    if (setting->kind == BH_KIND_BLOCK) {
        if (setting->read != NULL) {
            setting->read(load, setting, node, at);
        } else {
            read_nested(load, setting, scope, node, at);
        }
        return;
    }
    if (node->has_block) {
        bh_load_error(load, node, NULL, "'%s' takes no block { ... }", setting->name);
    }
    if (node->values_count == 0) {
        bh_load_error(load, node, NULL, "'%s' needs a value: %s", setting->name,
                      expected(setting, text));
        return;
    }
    if (setting->kind == BH_KIND_SPECIAL) {
        setting->read(load, setting, node, at);
    } else if (takes_several(setting->kind)) {
        read_list(load, setting, node, at);
    } else {
        read_single(load, setting, node, node->values, at);
        if (node->values_count > 1) {
            bh_load_error(load, node, node->values->next,
                          "'%s' takes one value; '%.*s' is too much", setting->name,
                          BH_FMT(bh_load_shown(node->values->next->text)));
        }
    }
}

/* ---- a block ---- */

static bool known_at_top(struct bh_slice name)
{
    for (size_t i = 0; bh_schema_top[i] != NULL; i++) {
        if (bh_slice_eq(name, bh_slice_str(bh_schema_top[i]))) {
            return true;
        }
    }
    return false;
}

/* Where else the word would be known: an enclosing block that may have been meant to be closed. */
static bool tell_enclosing(struct bh_load *load, const struct bh_load_scope *scope,
                           const struct bh_config_node *node)
{
    for (const struct bh_load_scope *at = scope; at->block != NULL && at->up != NULL; at = at->up) {
        const bool known = at->up->block != NULL ? bh_schema_find(at->up->block, node->key) != NULL
                                                 : known_at_top(node->key);
        if (known) {
            bh_load_error(
                load, node, NULL, "unknown setting '%.*s' in %s; is the '{' of line %u closed?",
                BH_FMT(bh_load_shown(node->key)), scope->block->name, at->node->block_line);
            return true;
        }
    }
    return false;
}

/* ... or a block within this one. */
static bool tell_nested(struct bh_load *load, const struct bh_load_scope *scope,
                        const struct bh_config_node *node)
{
    for (size_t i = 0; scope->block != NULL && i < scope->block->count; i++) {
        const struct bh_setting *within = &scope->block->settings[i];
        if (within->block != NULL && bh_schema_find(within->block, node->key) != NULL) {
            bh_load_error(load, node, NULL,
                          "unknown setting '%.*s' in %s; it goes into its block '%s { ... }'",
                          BH_FMT(bh_load_shown(node->key)), scope->block->name, within->name);
            return true;
        }
    }
    return false;
}

/* The i-th word that may begin a statement here; NULL: no more. A value of the head is none. */
static const char *allowed_here(const struct bh_load_scope *scope, size_t *i)
{
    if (scope->block == NULL) {
        return bh_schema_top[(*i)++];
    }
    while (*i < scope->block->count && (scope->block->settings[*i].flags & BH_HEAD) != 0) {
        (*i)++;
    }
    return *i < scope->block->count ? scope->block->settings[(*i)++].name : NULL;
}

static void tell_allowed(struct bh_load *load, const struct bh_load_scope *scope,
                         const struct bh_config_node *node)
{
    char text[ALLOWED_MAX];
    struct bh_buf allowed = bh_buf(text, sizeof(text));
    size_t i = 0;
    for (const char *name = allowed_here(scope, &i); name != NULL; name = allowed_here(scope, &i)) {
        bh_buf_add_cut(&allowed, bh_slice_str(allowed.len > 0 ? ", " : ""));
        bh_buf_add_cut(&allowed, bh_slice_str(name));
    }
    bh_load_error(load, node, NULL, "unknown %s '%.*s'%s%s; allowed: %.*s",
                  scope->block != NULL ? "setting" : "statement", BH_FMT(bh_load_shown(node->key)),
                  scope->block != NULL ? " in " : "",
                  scope->block != NULL ? scope->block->name : "", BH_FMT(bh_buf_slice(&allowed)));
}

void bh_load_unknown(struct bh_load *load, const struct bh_load_scope *scope,
                     const struct bh_config_node *node)
{
    const char *nearest = NULL;
    unsigned best = UINT_MAX;
    size_t i = 0;
    for (const char *name = allowed_here(scope, &i); name != NULL; name = allowed_here(scope, &i)) {
        const unsigned distance = bh_units_distance(node->key, bh_slice_str(name));
        if (distance < best) {
            best = distance;
            nearest = name;
        }
    }
    if (tell_enclosing(load, scope, node) || (best > 1 && tell_nested(load, scope, node))) {
        return;
    }
    if (nearest == NULL) {
        tell_allowed(load, scope, node);
        return;
    }
    bh_load_error(load, node, NULL, "unknown %s '%.*s'%s%s (did you mean '%s'?)",
                  scope->block != NULL ? "setting" : "statement", BH_FMT(bh_load_shown(node->key)),
                  scope->block != NULL ? " in " : "",
                  scope->block != NULL ? scope->block->name : "", nearest);
}

void bh_load_block(struct bh_load *load, const struct bh_load_scope *scope, void *base)
{
    const struct bh_config_node *seen[BH_SETTINGS_MAX] = {NULL};
    for (const struct bh_config_node *node = scope->node->children;
         node != NULL && !load->no_memory; node = node->next) {
        const struct bh_setting *setting = bh_schema_find(scope->block, node->key);
        if (setting == NULL) {
            bh_load_unknown(load, scope, node);
            continue;
        }
        const size_t index = (size_t)(setting - scope->block->settings);
        BH_ASSERT(index < BH_SETTINGS_MAX);
        if (seen[index] != NULL && (setting->flags & BH_REPEATS) == 0) {
            bh_load_error(load, node, NULL, "'%s' is stated twice; the first is at %.*s:%u",
                          setting->name, BH_FMT(bh_slice_take(seen[index]->file->name, 200)),
                          seen[index]->line);
            continue;
        }
        seen[index] = node;
        if (load->in_defaults && (setting->flags & BH_ONLY_CONNECTOR) != 0) {
            bh_load_error(load, node, NULL, "'%s' belongs to a connector, not to defaults",
                          setting->name);
            continue;
        }
        read_setting(load, setting, scope, node, base);
    }
}
