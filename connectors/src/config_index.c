/* config_index.c - which connector takes a message. Rules hang in a hash map by (address space,
 * sender); a lookup asks for each label of the domain and, only where some rule asks for senders,
 * for each form of the sender. */
#include <inttypes.h>

#include "bh/envelope.h"
#include "config_internal.h"

#define KEY_MAX (2 + BH_DOMAIN_MAX + 1 + BH_ADDRESS_MAX + 2)

/* ---- building ---- */

static bool same_conditions(const struct bh_connector *a, const struct bh_connector *b)
{
    return a->cost == b->cost && a->size_above == b->size_above && a->size_below == b->size_below;
}

/* Narrower sizes first, then the lower cost. */
static bool goes_first(const struct bh_connector *a, const struct bh_connector *b)
{
    if (a->size_above != b->size_above) {
        return a->size_above > b->size_above;
    }
    if (a->size_below != b->size_below) {
        return b->size_below == 0 || (a->size_below != 0 && a->size_below < b->size_below);
    }
    return a->cost < b->cost;
}

static struct bh_slice make_key(struct bh_slice space, struct bh_slice sender, char key[KEY_MAX])
{
    struct bh_buf buf = bh_buf(key, KEY_MAX);
    bh_buf_add_cut(&buf, space);
    bh_buf_add_cut(&buf, BH_LIT("\n"));
    bh_buf_add_cut(&buf, sender);
    return bh_buf_slice(&buf);
}

static struct bh_space *space_of(const struct bh_config_private *priv, struct bh_slice space)
{
    struct bh_map_node *found = bh_map_find(&priv->spaces, space);
    return found != NULL ? BH_CONTAINER(found, struct bh_space, node) : NULL;
}

static struct bh_rule_list *list_of(const struct bh_config_private *priv, struct bh_slice space,
                                    struct bh_slice sender)
{
    char key[KEY_MAX];
    struct bh_map_node *found = bh_map_find(&priv->rules, make_key(space, sender, key));
    return found != NULL ? BH_CONTAINER(found, struct bh_rule_list, node) : NULL;
}

static struct bh_space *add_space(struct bh_load *load, struct bh_config_private *priv,
                                  struct bh_slice name)
{
    struct bh_space *space = space_of(priv, name);
    if (space != NULL) {
        return space;
    }
    space = bh_load_alloc(load, sizeof(*space));
    if (space == NULL) {
        return NULL;
    }
    space->node.key = name;
    load->no_memory |= bh_map_insert(&priv->spaces, &space->node) != BH_OK;
    return load->no_memory ? NULL : space;
}

static struct bh_rule_list *add_list(struct bh_load *load, struct bh_config_private *priv,
                                     struct bh_space *space, struct bh_slice sender)
{
    struct bh_rule_list *list = list_of(priv, space->node.key, sender);
    if (list != NULL) {
        return list;
    }
    list = bh_load_alloc(load, sizeof(*list));
    char key[KEY_MAX];
    if (list == NULL ||
        !bh_arena_copy(load->arena, make_key(space->node.key, sender, key), &list->node.key)) {
        load->no_memory = true;
        return NULL;
    }
    list->space = space->node.key;
    list->sender = sender;
    list->next_of_space = space->lists;
    space->lists = list;
    space->has_senders |= sender.len > 0;
    *(priv->last_rule != NULL ? &priv->last_rule->next : &priv->first_rule) = list;
    priv->last_rule = list;
    load->no_memory |= bh_map_insert(&priv->rules, &list->node) != BH_OK;
    return load->no_memory ? NULL : list;
}

static const struct bh_config_node *domains_place(const struct bh_connector *connector)
{
    const struct bh_config_node *node = bh_own_statement(connector, "domains", NULL);
    return node != NULL ? node : connector->node;
}

/* Two that nothing tells apart. */
static void tell_equal(struct bh_load *load, const struct bh_rule_list *list,
                       const struct bh_connector *connector, const struct bh_connector *other)
{
    if (other == connector) {
        bh_load_error(load, domains_place(connector), NULL, "'%.*s' is listed twice%s%.*s",
                      BH_FMT(bh_load_shown(list->space)),
                      list->sender.len > 0 ? " for sender " : "",
                      BH_FMT(bh_load_shown(list->sender)));
        return;
    }
    bh_load_error(
        load, domains_place(connector), NULL,
        "connectors '%.*s' and '%.*s' (%.*s:%u) both take '%.*s' under the same conditions "
        "and cost; give one a higher 'cost', or another condition",
        BH_FMT(connector->name), BH_FMT(other->name), BH_FMT(bh_slice_take(other->file, 120)),
        other->line, BH_FMT(bh_load_shown(list->space)));
}

static void add_candidate(struct bh_load *load, struct bh_rule_list *list,
                          const struct bh_connector *connector)
{
    struct bh_candidate *candidate = bh_load_alloc(load, sizeof(*candidate));
    if (candidate == NULL) {
        return;
    }
    candidate->connector = connector;
    struct bh_candidate **at = &list->first;
    while (*at != NULL && !goes_first(connector, (*at)->connector)) {
        if (same_conditions(connector, (*at)->connector)) {
            tell_equal(load, list, connector, (*at)->connector);
            return;
        }
        at = &(*at)->next;
    }
    candidate->next = *at;
    *at = candidate;
}

static void add_connector(struct bh_load *load, struct bh_config_private *priv,
                          const struct bh_connector *connector)
{
    const struct bh_slice anybody = BH_EMPTY;
    for (size_t i = 0; i < connector->domains.count; i++) {
        struct bh_space *space = add_space(load, priv, connector->domains.at[i]);
        const size_t senders = connector->senders.count;
        for (size_t j = 0; space != NULL && (j < senders || (j == 0 && senders == 0)); j++) {
            const struct bh_slice sender = senders > 0 ? connector->senders.at[j] : anybody;
            struct bh_rule_list *list = add_list(load, priv, space, sender);
            if (list != NULL) {
                add_candidate(load, list, connector);
            }
        }
    }
}

/* ---- failover must not weaken TLS ---- */

static void check_alternate(struct bh_load *load, const struct bh_space *space,
                            const struct bh_connector *alternate)
{
    for (const struct bh_rule_list *list = space->lists; list != NULL; list = list->next_of_space) {
        for (const struct bh_candidate *at = list->first; at != NULL; at = at->next) {
            const struct bh_connector *primary = at->connector;
            if (primary->cost >= alternate->cost || !bh_connector_is_weaker(alternate, primary)) {
                continue;
            }
            const struct bh_config_node *place = bh_own_statement(alternate, "failover", NULL);
            const bool dane = alternate->tls.demand.mode == BH_TLS_AUTO &&
                              primary->resolver.trusted && !alternate->resolver.trusted;
            bh_load_error(
                load, place != NULL ? place : alternate->node, NULL,
                "connector '%.*s' may take over '%.*s' from '%.*s' with a weaker TLS demand "
                "(%s, instead of %s)",
                BH_FMT(alternate->name), BH_FMT(bh_load_shown(space->node.key)),
                BH_FMT(primary->name),
                dane ? "auto without a trusted resolver"
                     : bh_tls_mode_name(alternate->tls.demand.mode),
                bh_tls_mode_name(primary->tls.demand.mode));
            return;
        }
    }
}

void bh_index_build(struct bh_load *load, struct bh_config_private *priv)
{
    const struct bh_config *config = &priv->config;
    for (size_t i = 0; i < config->connectors_count && !load->no_memory; i++) {
        add_connector(load, priv, &config->connectors[i]);
    }
    for (size_t i = 0; i < config->connectors_count && !load->no_memory; i++) {
        const struct bh_connector *connector = &config->connectors[i];
        for (size_t j = 0; connector->failover && j < connector->domains.count; j++) {
            const struct bh_space *space = space_of(priv, connector->domains.at[j]);
            if (space != NULL) {
                check_alternate(load, space, connector);
            }
        }
    }
}

/* ---- matching ---- */

struct question {
    const struct bh_config_private *priv;
    struct bh_slice sender; /* its domain in lower case */
    uint64_t size;
    bh_connector_available *available;
    void *ctx;
    struct bh_match *match;
    bool found; /* match->connector is the first choice */
    bool done;
};

static bool takes_size(const struct bh_connector *connector, uint64_t size)
{
    return size > connector->size_above || connector->size_above == 0
               ? connector->size_below == 0 || size < connector->size_below
               : false;
}

static bool is_available(const struct question *q, const struct bh_connector *connector)
{
    return connector->state == BH_CONNECTOR_ACTIVE &&
           (q->available == NULL || q->available(q->ctx, connector));
}

/* The first fitting candidate is the choice; if it is down, the next that may take over. */
static void ask_list(struct question *q, const struct bh_rule_list *list, enum bh_space_kind kind)
{
    for (const struct bh_candidate *at = list->first; at != NULL && !q->done; at = at->next) {
        const struct bh_connector *connector = at->connector;
        if (!takes_size(connector, q->size)) {
            continue;
        }
        if (!q->found) {
            *q->match = (struct bh_match){connector, kind, list->space, list->sender, NULL};
            q->found = true;
            q->done = is_available(q, connector);
        } else if (connector->failover && connector->cost > q->match->connector->cost &&
                   is_available(q, connector)) {
            *q->match =
                (struct bh_match){connector, kind, list->space, list->sender, q->match->connector};
            q->done = true;
        }
    }
}

static void ask_sender(struct question *q, const struct bh_space *space, enum bh_space_kind kind,
                       struct bh_slice sender)
{
    const struct bh_rule_list *list = list_of(q->priv, space->node.key, sender);
    if (list != NULL && !q->done) {
        ask_list(q, list, kind);
    }
}

/* @return true when this space has the answer */
static bool ask_space(struct question *q, struct bh_slice name, enum bh_space_kind kind)
{
    const struct bh_space *space = space_of(q->priv, name);
    if (space == NULL) {
        return false;
    }
    if (space->has_senders && q->sender.len == 0) {
        ask_sender(q, space, kind, BH_LIT("<>"));
    } else if (space->has_senders) {
        const struct bh_slice domain = bh_address_domain(q->sender);
        ask_sender(q, space, kind, q->sender);
        ask_sender(q, space, kind, bh_slice(domain.ptr - 1, domain.len + 1));
        for (struct bh_slice rest = domain; bh_slice_find(rest, '.') < rest.len;) {
            char text[3 + BH_DOMAIN_MAX];
            struct bh_buf below = bh_buf(text, sizeof(text));
            rest = bh_slice_skip(rest, bh_slice_find(rest, '.') + 1);
            bh_buf_add_cut(&below, BH_LIT("@*."));
            bh_buf_add_cut(&below, rest);
            ask_sender(q, space, kind, bh_buf_slice(&below));
        }
    }
    ask_sender(q, space, kind, BH_EMPTY);
    return q->found;
}

static bool ask_suffixes(struct question *q, struct bh_slice domain)
{
    char text[2 + BH_DOMAIN_MAX];
    for (struct bh_slice rest = domain; bh_slice_find(rest, '.') < rest.len;) {
        struct bh_buf suffix = bh_buf(text, sizeof(text));
        rest = bh_slice_skip(rest, bh_slice_find(rest, '.') + 1);
        bh_buf_add_cut(&suffix, BH_LIT("*."));
        bh_buf_add_cut(&suffix, rest);
        if (ask_space(q, bh_buf_slice(&suffix), BH_SPACE_SUFFIX)) {
            return true;
        }
    }
    return false;
}

/* Local part byte for byte, domain in lower case; an address without '@' or too long meets only
 * connectors that ask for no sender. */
static struct bh_slice lower_sender(struct bh_slice sender, char text[BH_ADDRESS_MAX])
{
    const size_t domain_len = bh_address_domain(sender).len;
    if (sender.len > BH_ADDRESS_MAX || domain_len == 0 || domain_len > BH_DOMAIN_MAX) {
        return sender.len == 0 ? sender : BH_LIT("?@");
    }
    for (size_t i = 0; i < sender.len; i++) {
        text[i] = i < sender.len - domain_len ? sender.ptr[i] : bh_lower(sender.ptr[i]);
    }
    return bh_slice(text, sender.len);
}

enum bh_status bh_config_match(const struct bh_config *config, struct bh_slice domain,
                               struct bh_slice sender, uint64_t size,
                               bh_connector_available *available, void *ctx, struct bh_match *match)
{
    char sender_text[BH_ADDRESS_MAX];
    struct question q = {.priv = config->priv,
                         .sender = lower_sender(sender, sender_text),
                         .size = size,
                         .available = available,
                         .ctx = ctx,
                         .match = match};
    if (domain.len == 0 || domain.len > BH_DOMAIN_MAX) {
        return BH_ENOTFOUND;
    }
    const bool literal = domain.ptr[0] == '[';
    const bool found =
        ask_space(&q, domain, BH_SPACE_EXACT) ||
        (!literal && (ask_suffixes(&q, domain) || ask_space(&q, BH_LIT("*"), BH_SPACE_ANY)));
    return found ? BH_OK : BH_ENOTFOUND;
}

const struct bh_connector *bh_match_first_choice(const struct bh_match *match)
{
    return match->instead_of != NULL ? match->instead_of : match->connector;
}

/* Which address space of the connector takes the domain: the most specific one. */
static struct bh_slice space_for(const struct bh_connector *connector, struct bh_slice domain)
{
    struct bh_slice best = BH_EMPTY;
    for (size_t i = 0; i < connector->domains.count; i++) {
        const struct bh_slice space = connector->domains.at[i];
        const struct bh_slice suffix = bh_slice_skip(space, 1); /* of "*.suffix", with its dot */
        const bool takes = bh_slice_eq(space, domain) || bh_slice_eq(space, BH_LIT("*")) ||
                           (space.len > 2 && space.ptr[0] == '*' && domain.len > suffix.len &&
                            bh_slice_eq(bh_slice_skip(domain, domain.len - suffix.len), suffix));
        if (takes && bh_slice_eq(space, domain)) {
            return space;
        }
        best = takes && space.len > best.len ? space : best;
    }
    return best;
}

static bool has_space(const struct bh_connector *connector, struct bh_slice space)
{
    for (size_t i = 0; i < connector->domains.count; i++) {
        if (bh_slice_eq(connector->domains.at[i], space)) {
            return true;
        }
    }
    return false;
}

const struct bh_connector *bh_config_alternate(const struct bh_config *config,
                                               const struct bh_connector *primary,
                                               struct bh_slice domain, uint32_t above)
{
    const struct bh_slice space = space_for(primary, domain);
    const struct bh_connector *best = NULL;
    for (size_t i = 0; space.len > 0 && i < config->connectors_count; i++) {
        const struct bh_connector *c = &config->connectors[i];
        if (c != primary && c->failover && c->state == BH_CONNECTOR_ACTIVE && c->cost > above &&
            (best == NULL || c->cost < best->cost) && has_space(c, space)) {
            best = c;
        }
    }
    return best;
}

void bh_match_text(const struct bh_match *match, struct bh_buf *out)
{
    static const char *const kinds[] = {"exact", "suffix", "any"};
    const struct bh_connector *connector = match->connector;
    char number[64];
    bh_buf_add_cut(out, BH_LIT("address space "));
    bh_buf_add_cut(out, match->space);
    bh_buf_add_cut(out, BH_LIT(" ("));
    bh_buf_add_cut(out, bh_slice_str(kinds[match->kind]));
    bh_buf_add_cut(out, BH_LIT(")"));
    if (match->sender.len > 0) {
        bh_buf_add_cut(out, BH_LIT(", sender "));
        bh_buf_add_cut(out, match->sender);
    }
    const struct {
        const char *words;
        uint64_t number;
    } conditions[] = {{", size above", connector->size_above},
                      {", size below", connector->size_below},
                      {", cost", connector->cost}};
    for (size_t i = 0; i < BH_COUNT(conditions); i++) {
        struct bh_buf text = bh_buf(number, sizeof(number));
        if (conditions[i].number > 0 && bh_buf_printf(&text, "%s %" PRIu64, conditions[i].words,
                                                      conditions[i].number) == BH_OK) {
            bh_buf_add_cut(out, bh_buf_slice(&text));
        }
    }
    if (match->instead_of != NULL) {
        bh_buf_add_cut(out, BH_LIT(", instead of "));
        bh_buf_add_cut(out, match->instead_of->name);
    }
}
