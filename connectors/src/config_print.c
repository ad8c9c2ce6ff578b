/* config_print.c - values back as text. */
#include <inttypes.h>
#include <stdio.h>

#include "config_units.h"
#include "config_value.h"

static bool is_plain(struct bh_slice text)
{
    if (text.len == 0 || text.ptr[0] == '#' || text.ptr[0] == '[') {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = (unsigned char)text.ptr[i];
        if (c <= ' ' || c == 0x7f || memchr("{};\"]", c, 5) != NULL) {
            return false;
        }
    }
    return true;
}

static enum bh_status print_quoted(struct bh_slice text, struct bh_buf *out)
{
    enum bh_status status = bh_buf_add(out, BH_LIT("\""));
    for (size_t i = 0; i < text.len && status == BH_OK; i++) {
        const char c = text.ptr[i];
        const struct bh_slice piece = c == '\n'   ? BH_LIT("\\n")
                                      : c == '\t' ? BH_LIT("\\t")
                                      : c == '"'  ? BH_LIT("\\\"")
                                      : c == '\\' ? BH_LIT("\\\\")
                                                  : bh_slice(text.ptr + i, 1);
        status = bh_buf_add(out, piece);
    }
    return status == BH_OK ? bh_buf_add(out, BH_LIT("\"")) : status;
}

enum bh_status bh_value_print_text(struct bh_slice text, struct bh_buf *out)
{
    return is_plain(text) ? bh_buf_add(out, text) : print_quoted(text, out);
}

static enum bh_status print_cstr(const char *text, struct bh_buf *out)
{
    return bh_buf_add(out, bh_slice_str(text));
}

static enum bh_status print_server(const struct bh_server_addr *server, struct bh_buf *out)
{
    char ip[BH_IP_TEXT_MAX];
    char text[BH_IP_TEXT_MAX + 16];
    snprintf(text, sizeof(text), server->ip.family == 6 ? "[%s]:%u" : "%s:%u",
             bh_ip_text(&server->ip, ip), (unsigned)server->port);
    return print_cstr(text, out);
}

static enum bh_status print_net(const struct bh_net *net, struct bh_buf *out)
{
    char ip[BH_IP_TEXT_MAX];
    char text[BH_IP_TEXT_MAX + 8];
    snprintf(text, sizeof(text), "%s/%u", bh_ip_text(&net->ip, ip), (unsigned)net->prefix_len);
    return print_cstr(text, out);
}

static enum bh_status print_item(enum bh_kind kind, const void *at, size_t i, struct bh_buf *out)
{
    char text[BH_IP_TEXT_MAX];
    char unit[BH_UNITS_TEXT_MAX];
    switch ((int)kind) {
    case BH_KIND_TIMES:
        return print_cstr(bh_units_time_text(((const struct bh_times *)at)->at_ms[i], unit), out);
    case BH_KIND_NETS:
        return print_net(&((const struct bh_nets *)at)->at[i], out);
    case BH_KIND_IPS:
        return print_cstr(bh_ip_text(&((const struct bh_ips *)at)->at[i], text), out);
    case BH_KIND_SERVERS:
        return print_server(&((const struct bh_server_addrs *)at)->at[i], out);
    default:
        return bh_value_print_text(((const struct bh_names *)at)->at[i], out);
    }
}

static size_t list_count(enum bh_kind kind, const void *at)
{
    switch ((int)kind) {
    case BH_KIND_TIMES:
        return ((const struct bh_times *)at)->count;
    case BH_KIND_NETS:
        return ((const struct bh_nets *)at)->count;
    case BH_KIND_IPS:
        return ((const struct bh_ips *)at)->count;
    case BH_KIND_SERVERS:
        return ((const struct bh_server_addrs *)at)->count;
    default:
        return ((const struct bh_names *)at)->count;
    }
}

static enum bh_status print_zero(const struct bh_setting *setting, struct bh_buf *out)
{
    return setting->zero != NULL ? print_cstr(setting->zero, out) : BH_OK;
}

static enum bh_status print_list(const struct bh_setting *setting, const void *at,
                                 struct bh_buf *out)
{
    const size_t count = list_count(setting->kind, at);
    if (count == 0) {
        return print_zero(setting, out);
    }
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < count && status == BH_OK; i++) {
        if (i > 0) {
            status = bh_buf_add(out, BH_LIT(" "));
        }
        if (status == BH_OK) {
            status = print_item(setting->kind, at, i, out);
        }
    }
    return status;
}

static enum bh_status print_enum(const struct bh_setting *setting, int value, struct bh_buf *out)
{
    for (size_t i = 0; setting->choices[i].name != NULL; i++) {
        if (setting->choices[i].value == value) {
            return print_cstr(setting->choices[i].name, out);
        }
    }
    return BH_OK;
}

static enum bh_status print_slice(const struct bh_setting *setting, struct bh_slice text,
                                  struct bh_buf *out)
{
    if (text.len == 0) {
        return print_zero(setting, out);
    }
    if (setting->zero != NULL && bh_slice_eq(text, bh_slice_str(setting->zero))) {
        return print_quoted(text, out);
    }
    return bh_value_print_text(text, out);
}

static enum bh_status print_number(const struct bh_setting *setting, uint64_t number,
                                   struct bh_buf *out)
{
    char text[BH_UNITS_TEXT_MAX];
    if (number == 0 && setting->zero != NULL) {
        return print_zero(setting, out);
    }
    switch ((int)setting->kind) {
    case BH_KIND_TIME:
        return print_cstr(bh_units_time_text(number, text), out);
    case BH_KIND_SIZE:
        return print_cstr(bh_units_size_text(number, text), out);
    default:
        snprintf(text, sizeof(text),
                 setting->kind == BH_KIND_PERCENT ? "%" PRIu64 "%%" : "%" PRIu64, number);
        return print_cstr(text, out);
    }
}

enum bh_status bh_value_print(const struct bh_setting *setting, const void *base,
                              struct bh_buf *out)
{
    const void *at = (const char *)base + setting->at;
    char text[BH_UNITS_TEXT_MAX];
    switch (setting->kind) {
    case BH_KIND_BOOL:
        return print_cstr(*(const bool *)at ? "yes" : "no", out);
    case BH_KIND_COUNT:
    case BH_KIND_PERCENT:
        return print_number(setting, *(const uint32_t *)at, out);
    case BH_KIND_PORT:
        return print_number(setting, *(const uint16_t *)at, out);
    case BH_KIND_TIME:
    case BH_KIND_SIZE:
        return print_number(setting, *(const uint64_t *)at, out);
    case BH_KIND_RATE: {
        const struct bh_rate *rate = at;
        return rate->count == 0 ? print_zero(setting, out)
                                : print_cstr(bh_units_rate_text(*rate, text), out);
    }
    case BH_KIND_DATE: {
        const int64_t end = *(const int64_t *)at;
        return end == 0 ? BH_OK : print_cstr(bh_units_date_text(end, text), out);
    }
    case BH_KIND_ENUM: {
        int value = 0;
        memcpy(&value, at, sizeof(value));
        return print_enum(setting, value, out);
    }
    case BH_KIND_TEXT:
    case BH_KIND_NAME:
    case BH_KIND_PATH:
    case BH_KIND_FILE:
        return print_slice(setting, *(const struct bh_slice *)at, out);
    case BH_KIND_NAMES:
    case BH_KIND_PATHS:
    case BH_KIND_TIMES:
    case BH_KIND_NETS:
    case BH_KIND_IPS:
    case BH_KIND_SERVERS:
        return print_list(setting, at, out);
    case BH_KIND_BLOCK:
    case BH_KIND_SPECIAL:
        return setting->print != NULL ? setting->print(at, out) : BH_OK;
    }
    return BH_OK;
}
