/* config_window.c - `window DAYS HOURS ... [ZONE]`, or `window always`. */
#include "bh/window.h"
#include "config_special.h"
#include "config_value.h"

#define ZONEINFO "/usr/share/zoneinfo/"

static void wrong(struct bh_load *load, const struct bh_setting *setting,
                  const struct bh_config_node *node, const struct bh_config_value *value)
{
    bh_load_error(load, node, value, "'%.*s' is no part of a window; it is written: %s",
                  BH_FMT(bh_load_shown(value->text)), setting->expected);
}

/* "Europe/Berlin": nothing that leads out of the folder. */
static bool is_zone_name(struct bh_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        const char c = name.ptr[i];
        if (!bh_is_alpha(c) && !bh_is_digit(c) && c != '/' && c != '_' && c != '-' && c != '+') {
            return false;
        }
    }
    return name.len > 0 && name.len < 64 && bh_is_alpha(name.ptr[0]);
}

static bool read_zone(struct bh_load *load, const struct bh_config_node *node,
                      const struct bh_config_value *value, struct bh_windows *windows)
{
    char path[sizeof(ZONEINFO) + 64];
    struct bh_buf buf = bh_buf(path, sizeof(path));
    struct bh_slice octets;
    windows->zone_text = value->text;
    if (bh_zone_parse(value->text, &windows->zone) == BH_OK) {
        return true;
    }
    if (!is_zone_name(value->text) ||
        bh_buf_printf(&buf, ZONEINFO "%.*s", BH_FMT(value->text)) != BH_OK) {
        bh_load_error(load, node, value,
                      "'%.*s' is no time zone; it is utc, +05:30, a name such as Europe/Berlin, or "
                      "POSIX TZ such as CET-1CEST,M3.5.0,M10.5.0/3",
                      BH_FMT(bh_load_shown(value->text)));
        return false;
    }
    if (load->reader->read(load->reader->ctx, path, load->arena, &octets) != BH_OK ||
        bh_zone_of_file(octets, &windows->zone) != BH_OK) {
        bh_load_error(load, node, value, "there is no time zone '%.*s' in " ZONEINFO,
                      BH_FMT(bh_load_shown(value->text)));
        return false;
    }
    return true;
}

void bh_read_windows(struct bh_load *load, const struct bh_setting *setting,
                     const struct bh_config_node *node, void *at)
{
    struct bh_windows windows = {0};
    const struct bh_config_value *value = node->values;
    if (value->next == NULL && bh_slice_eq(value->text, BH_LIT("always"))) {
        *(struct bh_windows *)at = windows;
        return;
    }
    struct bh_window *list = bh_load_alloc(load, BH_WINDOWS_MAX * sizeof(*list));
    while (list != NULL && value != NULL) {
        if (value->next == NULL && windows.count > 0) {
            if (!read_zone(load, node, value, &windows)) {
                return;
            }
            break;
        }
        if (windows.count == BH_WINDOWS_MAX || value->next == NULL ||
            !bh_window_parse(value->text, value->next->text, &list[windows.count])) {
            wrong(load, setting, node, value);
            return;
        }
        windows.count++;
        value = value->next->next;
    }
    windows.at = list;
    *(struct bh_windows *)at = windows;
}

enum bh_status bh_print_windows(const void *at, struct bh_buf *out)
{
    const struct bh_windows *windows = at;
    enum bh_status status = BH_OK;
    if (windows->count == 0) {
        return bh_buf_add(out, BH_LIT("always"));
    }
    for (size_t i = 0; i < windows->count && status == BH_OK; i++) {
        status = i > 0 ? bh_buf_add(out, BH_LIT(" ")) : BH_OK;
        status = status == BH_OK ? bh_window_print(&windows->at[i], out) : status;
    }
    if (status == BH_OK && windows->zone_text.len > 0) {
        status = bh_buf_add(out, BH_LIT(" "));
        status = status == BH_OK ? bh_value_print_text(windows->zone_text, out) : status;
    }
    return status;
}
