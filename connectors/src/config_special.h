/* config_special.h - the settings that need code of their own to read or print. */
#pragma once

#include "config_schema.h"

#define BH_SPECIAL(name)                                                        \
    void bh_read_##name(struct bh_load *load, const struct bh_setting *setting, \
                        const struct bh_config_node *node, void *at);           \
    enum bh_status bh_print_##name(const void *at, struct bh_buf *out)

BH_SPECIAL(domains);     /* struct bh_names */
BH_SPECIAL(senders);     /* struct bh_names */
BH_SPECIAL(smarthosts);  /* struct bh_connector: route and smarthosts */
BH_SPECIAL(tls_names);   /* struct bh_tls_demand: names and the match_ flags */
BH_SPECIAL(pins);        /* struct bh_pins */
BH_SPECIAL(audit);       /* struct bh_tls_policy: audit and the mode of audit_demand */
BH_SPECIAL(retry);       /* struct bh_retry: a name or a block */
BH_SPECIAL(glitch);      /* struct bh_retry: glitch_count and glitch_ms */
BH_SPECIAL(reply_rules); /* struct bh_reply_rules */
BH_SPECIAL(windows);     /* struct bh_windows */
BH_SPECIAL(relay_from);  /* struct bh_listen_config: relay_from and relay_local */

/** Mode names, for `tls`, `audit` and exceptions. */
extern const struct bh_choice bh_choices_tls_mode[];
