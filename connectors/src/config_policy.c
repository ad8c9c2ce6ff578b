/* config_policy.c - settings of TLS and of retry schedules that have a form of their own. */
#include <inttypes.h>
#include <stdio.h>

#include "config_special.h"
#include "config_units.h"
#include "config_value.h"

#define GLITCHES_MAX 100

static void wrong(struct bh_load *load, const struct bh_setting *setting,
                  const struct bh_config_node *node, const struct bh_config_value *value)
{
    bh_load_error(load, node, value, "'%s' takes %s; got '%.*s'", setting->name, setting->expected,
                  BH_FMT(bh_load_shown(value->text)));
}

/* ---- names ---- */

static bool read_accepted_name(struct bh_load *load, const struct bh_config_node *node,
                               const struct bh_config_value *value, struct bh_slice *name)
{
    if (value->text.len < 2 || value->text.ptr[0] != '.') {
        return bh_load_name(load, node, value, value->text, name);
    }
    struct bh_slice below;
    if (!bh_load_name(load, node, value, bh_slice_skip(value->text, 1), &below)) {
        return false;
    }
    char *copy = bh_load_alloc(load, below.len + 2);
    if (copy == NULL) {
        return false;
    }
    copy[0] = '.';
    memcpy(copy + 1, below.ptr, below.len);
    *name = bh_slice(copy, below.len + 1);
    return true;
}

void bh_read_tls_names(struct bh_load *load, const struct bh_setting *setting,
                       const struct bh_config_node *node, void *at)
{
    (void)setting;
    struct bh_tls_demand *demand = at;
    struct bh_slice *names = bh_load_alloc(load, node->values_count * sizeof(*names));
    size_t count = 0;
    if (names == NULL) {
        return;
    }
    demand->match_domain = false;
    demand->match_host = false;
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        if (bh_slice_eq(value->text, BH_LIT("recipient-domain"))) {
            demand->match_domain = true;
        } else if (bh_slice_eq(value->text, BH_LIT("mx-host"))) {
            demand->match_host = true;
        } else if (read_accepted_name(load, node, value, &names[count])) {
            count++;
        }
    }
    demand->names = (struct bh_names){names, count};
}

enum bh_status bh_print_tls_names(const void *at, struct bh_buf *out)
{
    const struct bh_tls_demand *demand = at;
    enum bh_status status =
        demand->match_domain ? bh_buf_add(out, BH_LIT("recipient-domain ")) : BH_OK;
    if (status == BH_OK && demand->match_host) {
        status = bh_buf_add(out, BH_LIT("mx-host "));
    }
    for (size_t i = 0; i < demand->names.count && status == BH_OK; i++) {
        status = bh_buf_printf(out, "%.*s ", BH_FMT(demand->names.at[i]));
    }
    return status;
}

/* ---- pins ---- */

static int hex_digit(char c)
{
    const char low = bh_lower(c);
    return bh_is_digit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static bool read_hex(struct bh_slice text, uint8_t pin[BH_PIN_LEN])
{
    if (text.len != 2 * (size_t)BH_PIN_LEN) {
        return false;
    }
    for (size_t i = 0; i < BH_PIN_LEN; i++) {
        const int high = hex_digit(text.ptr[2 * i]);
        const int low = hex_digit(text.ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        pin[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = memchr(digits, c, sizeof(digits) - 1);
    return at != NULL ? (int)(at - digits) : -1;
}

/* 32 octets are 43 digits and one '='; the last digit has two bits to spare. */
static bool read_base64(struct bh_slice text, uint8_t pin[BH_PIN_LEN])
{
    if (text.len != 44 || text.ptr[43] != '=') {
        return false;
    }
    uint32_t bits = 0;
    unsigned held = 0;
    size_t done = 0;
    for (size_t i = 0; i < 43; i++) {
        const int digit = base64_digit(text.ptr[i]);
        if (digit < 0) {
            return false;
        }
        bits = (bits << 6 | (uint32_t)digit) & 0xffff;
        held += 6;
        if (held >= 8) {
            held -= 8;
            pin[done++] = (uint8_t)(bits >> held);
        }
    }
    return done == BH_PIN_LEN && (bits & 3) == 0;
}

void bh_read_pins(struct bh_load *load, const struct bh_setting *setting,
                  const struct bh_config_node *node, void *at)
{
    struct bh_pins *pins = at;
    uint8_t(*list)[BH_PIN_LEN] = bh_load_alloc(load, node->values_count * BH_PIN_LEN);
    size_t count = 0;
    if (list == NULL) {
        return;
    }
    for (const struct bh_config_value *value = node->values; value != NULL; value = value->next) {
        struct bh_slice text = value->text;
        if (bh_slice_starts_nocase(text, BH_LIT("sha256:"))) {
            text = bh_slice_skip(text, 7);
        }
        if (read_hex(text, list[count]) || read_base64(text, list[count])) {
            count++;
        } else {
            wrong(load, setting, node, value);
        }
    }
    pins->at = (const uint8_t(*)[BH_PIN_LEN])list;
    pins->count = count;
}

enum bh_status bh_print_pins(const void *at, struct bh_buf *out)
{
    const struct bh_pins *pins = at;
    enum bh_status status = BH_OK;
    for (size_t i = 0; i < pins->count && status == BH_OK; i++) {
        char hex[2 * BH_PIN_LEN + 2];
        for (size_t j = 0; j < BH_PIN_LEN; j++) {
            snprintf(hex + 2 * j, 3, "%02x", (unsigned)pins->at[i][j]);
        }
        status = bh_buf_printf(out, i > 0 ? " %s" : "%s", hex);
    }
    return status;
}

/* ---- audit ---- */

void bh_read_audit(struct bh_load *load, const struct bh_setting *setting,
                   const struct bh_config_node *node, void *at)
{
    struct bh_tls_policy *policy = at;
    const struct bh_config_value *value = node->values;
    int mode = 0;
    if (value->next != NULL) {
        wrong(load, setting, node, value->next);
    } else if (bh_slice_eq(value->text, BH_LIT("none"))) {
        policy->audit = false;
    } else if (bh_load_enum(load, node, value, "'audit'", bh_choices_tls_mode, &mode)) {
        policy->audit = true;
        policy->audit_demand.mode = (enum bh_tls_mode)mode;
    }
}

enum bh_status bh_print_audit(const void *at, struct bh_buf *out)
{
    const struct bh_tls_policy *policy = at;
    return bh_buf_add(out, policy->audit ? bh_slice_str(bh_tls_mode_name(policy->audit_demand.mode))
                                         : BH_LIT("none"));
}

/* ---- retry ---- */

void bh_read_glitch(struct bh_load *load, const struct bh_setting *setting,
                    const struct bh_config_node *node, void *at)
{
    struct bh_retry *retry = at;
    const struct bh_slice text = node->values->text;
    const size_t x = bh_slice_find(text, 'x');
    uint64_t count = 0;
    uint64_t ms = 0;
    if (node->values->next != NULL) {
        wrong(load, setting, node, node->values->next);
        return;
    }
    const bool none = bh_slice_eq(text, BH_LIT("none"));
    if (!none && (!bh_slice_u64(bh_slice(text.ptr, x), GLITCHES_MAX, &count) || count == 0 ||
                  !bh_units_time(bh_slice_skip(text, x + 1), &ms) || ms < 1000 || ms > 3600000)) {
        wrong(load, setting, node, node->values);
        return;
    }
    retry->glitch_count = (uint32_t)count;
    retry->glitch_ms = ms;
}

enum bh_status bh_print_glitch(const void *at, struct bh_buf *out)
{
    const struct bh_retry *retry = at;
    char text[BH_UNITS_TEXT_MAX];
    if (retry->glitch_count == 0) {
        return bh_buf_add(out, BH_LIT("none"));
    }
    return bh_buf_printf(out, "%" PRIu32 "x%s", retry->glitch_count,
                         bh_units_time_text(retry->glitch_ms, text));
}

static void tell_unknown_schedule(struct bh_load *load, const struct bh_config_node *node,
                                  const struct bh_config_value *value)
{
    struct bh_slice nearest = BH_EMPTY;
    unsigned best = UINT32_MAX;
    for (struct bh_map_node *at = bh_map_next(&load->retries, NULL); at != NULL;
         at = bh_map_next(&load->retries, at)) {
        const unsigned distance = bh_units_distance(value->text, at->key);
        if (distance < best ||
            (distance == best && best != UINT32_MAX && bh_slice_cmp(at->key, nearest) < 0)) {
            best = distance;
            nearest = at->key;
        }
    }
    bh_load_error(load, node, value, "no retry schedule is named '%.*s'%s%.*s%s",
                  BH_FMT(bh_load_shown(value->text)), nearest.len > 0 ? " (did you mean '" : "",
                  BH_FMT(nearest), nearest.len > 0 ? "'?)" : "");
}

void bh_load_finish_retry(struct bh_load *load, const struct bh_config_node *node,
                          struct bh_retry *retry)
{
    const bool own_intervals = bh_config_node_child(node, "intervals") != NULL;
    if (own_intervals && bh_config_node_child(node, "destination-intervals") == NULL) {
        retry->destination_intervals = retry->intervals;
    }
    if (retry->warn_after_ms >= retry->expire_ms) {
        const struct bh_config_node *at = bh_config_node_child(node, "warn-after");
        at = at != NULL ? at : bh_config_node_child(node, "expire");
        bh_load_error(load, at != NULL ? at : node, NULL,
                      "'warn-after' must be shorter than 'expire', or never");
    }
}

void bh_read_retry(struct bh_load *load, const struct bh_setting *setting,
                   const struct bh_config_node *node, void *at)
{
    struct bh_retry *retry = at;
    if ((node->values_count == 1) == node->has_block || node->values_count > 1) {
        bh_load_error(load, node, NULL, "'retry' takes the name of a schedule, or a block { ... }");
        return;
    }
    if (node->has_block) {
        *retry = *load->standard;
        retry->name = BH_EMPTY;
        const struct bh_load_scope top = {0};
        const struct bh_load_scope outer = {&bh_schema_connector, node->parent, &top};
        const struct bh_load_scope scope = {setting->block, node, &outer};
        bh_load_block(load, &scope, retry);
        bh_load_finish_retry(load, node, retry);
        return;
    }
    const struct bh_map_node *found = bh_map_find(&load->retries, node->values->text);
    if (found == NULL) {
        tell_unknown_schedule(load, node, node->values);
        return;
    }
    *retry = ((const struct bh_named_retry *)(const void *)((const char *)found -
                                                            offsetof(struct bh_named_retry, node)))
                 ->retry;
}

enum bh_status bh_print_retry(const void *at, struct bh_buf *out)
{
    const struct bh_retry *retry = at;
    if (retry->name.len > 0) {
        return bh_value_print_text(retry->name, out);
    }
    enum bh_status status = bh_buf_add(out, BH_LIT("{ "));
    for (size_t i = 0; i < bh_schema_retry.count && status == BH_OK; i++) {
        const struct bh_setting *setting = &bh_schema_retry.settings[i];
        status = bh_buf_printf(out, "%s ", setting->name);
        status = status == BH_OK ? bh_value_print(setting, retry, out) : status;
        status = status == BH_OK ? bh_buf_add(out, BH_LIT("; ")) : status;
    }
    return status == BH_OK ? bh_buf_add(out, BH_LIT("}")) : status;
}
