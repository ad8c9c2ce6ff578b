/* config_internal.h - what a configuration holds beside its public face. */
#pragma once

#include <stdatomic.h>

#include "config_value.h"

/** A connector in the list of one (address space, sender). Narrower size first, then lower cost. */
struct bh_candidate {
    const struct bh_connector *connector;
    struct bh_candidate *next;
};

struct bh_rule_list {
    struct bh_map_node node; /* key: address space, '\n', sender pattern (empty: anybody) */
    struct bh_slice space;
    struct bh_slice sender;
    struct bh_candidate *first;
    struct bh_rule_list *next;          /* all, in order of the files */
    struct bh_rule_list *next_of_space; /* of the same address space */
};

struct bh_space {
    struct bh_map_node node; /* key: the address space */
    bool has_senders;        /* some rule of it asks for a sender */
    struct bh_rule_list *lists;
};

struct bh_config_private {
    atomic_size_t references;
    struct bh_arena arena;
    const struct bh_config_node *builtin; /* roots of the two trees */
    const struct bh_config_node *root;
    struct bh_map names; /* struct bh_connector_name */
    struct bh_map spaces;
    struct bh_map rules;
    struct bh_rule_list *first_rule, *last_rule;
    struct bh_config config;
};

struct bh_connector_name {
    struct bh_map_node node;
    const struct bh_connector *connector;
};

/** Enter all connectors into the index; equal ones and weaker alternates are errors. */
void bh_index_build(struct bh_load *load, struct bh_config_private *priv);
/** Defaults that hang on other settings, and whether the settings of a connector fit together. */
void bh_load_finish_connector(struct bh_load *load, const struct bh_config *config,
                              struct bh_connector *connector);
/** The statement of a connector's block, NULL if it states none; inner may be NULL. */
const struct bh_config_node *bh_own_statement(const struct bh_connector *connector,
                                              const char *name, const char *inner);
/** Does this key of a tls block count in the modes that the policy may come to act in? */
bool bh_tls_key_has_meaning(const struct bh_tls_policy *tls, const char *key);
/** Would mail that goes by `after` rather than by `before` ever meet a weaker TLS demand: by the
 * demand itself, by an exception, or as DANE is lost with a trusted resolver? */
bool bh_connector_is_weaker(const struct bh_connector *after, const struct bh_connector *before);
/** Is this a block that counts only with its date, an exception, and without one? */
bool bh_block_is_absent(const struct bh_setting *setting, const void *at);
