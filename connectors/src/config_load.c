/* config_load.c - from files to one immutable configuration:
 *  1. two trees: the built-in text, and the files;
 *  2. engine, queue and resolver: the built-in block, then the stated one;
 *  3. retry schedules, since `defaults` and connectors name them;
 *  4. defaults: built-in, then stated: the value every connector starts from;
 *  5. connectors and listeners;
 *  6. the index, which finds what contradicts across connectors. */
#include <stdlib.h>

#include "config_internal.h"

#define ARENA_CAP ((size_t)1 << 30) /* about 100 KB a connector for 10,000 of them */
#define NAME_MAX_LEN 64

struct loading {
    struct bh_load load;
    struct bh_config_private *priv;
    struct bh_config *config;
    struct bh_connector base; /* what `defaults` give */
    struct bh_named_retry *first_retry, *last_retry;
};

static const struct bh_load_scope top_scope = {0};

/* ---- blocks that stand once ---- */

/* The next statement with this key; start with the first child. */
static const struct bh_config_node *next_named(const struct bh_config_node *node, const char *key)
{
    const struct bh_slice want = bh_slice_str(key);
    while (node != NULL && !bh_slice_eq(node->key, want)) {
        node = node->next;
    }
    return node;
}

static void need_block(struct loading *l, const struct bh_config_node *node, size_t values,
                       const char *form)
{
    if (!node->has_block || node->values_count != values) {
        bh_load_error(&l->load, node, NULL, "'%.*s' is written: %s", BH_FMT(node->key), form);
    }
}

static void read_once(struct loading *l, const struct bh_config_node *root,
                      const struct bh_block *block, const char *key, void *base)
{
    const struct bh_config_node *first = next_named(root->children, key);
    if (first == NULL) {
        return;
    }
    need_block(l, first, 0, "a name of settings { ... }, without values");
    const struct bh_load_scope scope = {block, first, &top_scope};
    bh_load_block(&l->load, &scope, base);
    for (const struct bh_config_node *node = next_named(first->next, key); node != NULL;
         node = next_named(node->next, key)) {
        bh_load_error(&l->load, node, NULL, "'%s' is stated twice; the first is at %.*s:%u", key,
                      BH_FMT(bh_slice_take(first->file->name, 200)), first->line);
    }
}

static void both(struct loading *l, const struct bh_block *block, const char *key, void *base)
{
    l->load.builtin = true;
    read_once(l, l->priv->builtin, block, key, base);
    l->load.builtin = false;
    read_once(l, l->priv->root, block, key, base);
}

static void check_engine(struct loading *l)
{
    struct bh_engine_config *engine = &l->config->engine;
    const struct bh_config_node *node = bh_config_node_child(l->priv->root, "engine");
    const struct bh_config_node *at = bh_config_node_child(node, "postmaster");
    const struct bh_slice address = engine->postmaster;
    if (at != NULL &&
        (bh_slice_find(address, '@') == address.len || bh_slice_find(address, '@') == 0 ||
         bh_slice_find(address, ' ') != address.len)) {
        bh_load_error(&l->load, at, at->values,
                      "'postmaster' takes an address such as postmaster@us.example");
    }
    if (engine->dead_letter == BH_DEAD_LETTER_POSTMASTER && address.len == 0) {
        bh_load_error(&l->load, node, NULL,
                      "dead-letter postmaster needs 'postmaster' with an address");
    }
    if (engine->hostname.len == 0 && l->load.reader->hostname != NULL) {
        engine->hostname = bh_slice_str(l->load.reader->hostname);
        char *copy = bh_load_alloc(&l->load, engine->hostname.len + 1);
        if (copy != NULL) {
            memcpy(copy, engine->hostname.ptr, engine->hostname.len);
            engine->hostname.ptr = copy;
        }
    }
}

/* ---- names ---- */

static bool is_name(struct bh_slice name)
{
    if (name.len == 0 || name.len > NAME_MAX_LEN) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        const char c = name.ptr[i];
        if (!bh_is_alpha(c) && !bh_is_digit(c) && c != '-' && c != '_' && (c != '.' || i == 0)) {
            return false;
        }
    }
    return true;
}

/* @return the name of `connector NAME {` or `retry NAME {`; NULL after an error */
static const struct bh_config_value *block_name(struct loading *l,
                                                const struct bh_config_node *node)
{
    need_block(l, node, 1, "a name and a block: connector partner-bank { ... }");
    if (node->values != NULL && !is_name(node->values->text)) {
        bh_load_error(&l->load, node, node->values,
                      "a name is 1 to %d letters, digits, '-', '_' and '.'; got '%.*s'",
                      NAME_MAX_LEN, BH_FMT(bh_load_shown(node->values->text)));
        return NULL;
    }
    return node->values;
}

/* ---- retry schedules ---- */

static void read_retry(struct loading *l, const struct bh_config_node *node)
{
    const struct bh_config_value *name = block_name(l, node);
    if (name == NULL) {
        return;
    }
    struct bh_map_node *found = bh_map_find(&l->load.retries, name->text);
    struct bh_named_retry *entry =
        found != NULL ? BH_CONTAINER(found, struct bh_named_retry, node) : NULL;
    if (entry != NULL && entry->at != NULL) {
        bh_load_error(&l->load, node, name, "retry '%.*s' is stated twice; the first is at %.*s:%u",
                      BH_FMT(name->text), BH_FMT(bh_slice_take(entry->at->file->name, 200)),
                      entry->at->line);
        return;
    }
    if (entry == NULL) {
        entry = bh_load_alloc(&l->load, sizeof(*entry));
        if (entry == NULL) {
            return;
        }
        entry->node.key = name->text;
        if (bh_map_insert(&l->load.retries, &entry->node) != BH_OK) {
            l->load.no_memory = true;
            return;
        }
        *(l->last_retry != NULL ? &l->last_retry->next : &l->first_retry) = entry;
        l->last_retry = entry;
    }
    entry->at = l->load.builtin ? NULL : node;
    if (l->load.standard != NULL) {
        entry->retry = *l->load.standard;
    }
    entry->retry.name = entry->node.key;
    const struct bh_load_scope scope = {&bh_schema_retry, node, &top_scope};
    bh_load_block(&l->load, &scope, &entry->retry);
    bh_load_finish_retry(&l->load, node, &entry->retry);
}

static void read_retries(struct loading *l)
{
    l->load.builtin = true;
    for (const struct bh_config_node *node = next_named(l->priv->builtin->children, "retry");
         node != NULL; node = next_named(node->next, "retry")) {
        read_retry(l, node);
    }
    l->load.builtin = false;
    /* What a schedule leaves open comes from the built-in standard, whatever the files make of it.
     */
    struct bh_retry *standard = bh_load_alloc(&l->load, sizeof(*standard));
    if (standard == NULL || l->first_retry == NULL) {
        return;
    }
    *standard = l->first_retry->retry;
    l->load.standard = standard;
    for (const struct bh_config_node *node = next_named(l->priv->root->children, "retry");
         node != NULL && !l->load.no_memory; node = next_named(node->next, "retry")) {
        read_retry(l, node);
    }
    struct bh_retry *list = bh_load_alloc(&l->load, l->load.retries.count * sizeof(*list));
    size_t count = 0;
    for (const struct bh_named_retry *at = l->first_retry; at != NULL && list != NULL;
         at = at->next) {
        list[count++] = at->retry;
    }
    l->config->retries = list;
    l->config->retries_count = count;
}

/* ---- connectors ---- */

static bool add_name(struct loading *l, const struct bh_connector *connector)
{
    struct bh_connector_name *name = bh_load_alloc(&l->load, sizeof(*name));
    if (name == NULL) {
        return false;
    }
    name->node.key = connector->name;
    name->connector = connector;
    l->load.no_memory |= bh_map_insert(&l->priv->names, &name->node) != BH_OK;
    return !l->load.no_memory;
}

static void read_connector(struct loading *l, const struct bh_config_node *node,
                           struct bh_connector *connector)
{
    const struct bh_config_value *name = block_name(l, node);
    *connector = l->base;
    connector->index = (uint32_t)l->config->connectors_count;
    connector->node = node;
    connector->file = node->file->name;
    connector->line = node->line;
    connector->replies = (struct bh_reply_rules){0};
    const struct bh_load_scope scope = {&bh_schema_connector, node, &top_scope};
    bh_load_block(&l->load, &scope, connector);
    /* A connector's own rules come before those of `defaults`. */
    const size_t own = connector->replies.count;
    const size_t inherited = l->base.replies.count;
    struct bh_reply_rule *rules = bh_load_alloc(&l->load, (own + inherited) * sizeof(*rules));
    if (rules == NULL) {
        return;
    }
    if (own > 0) {
        memcpy(rules, connector->replies.at, own * sizeof(*rules));
    }
    if (inherited > 0) {
        memcpy(rules + own, l->base.replies.at, inherited * sizeof(*rules));
    }
    connector->replies = (struct bh_reply_rules){rules, own + inherited};
    if (name == NULL) {
        return;
    }
    connector->name = name->text;
    bh_load_finish_connector(&l->load, l->config, connector);
    const struct bh_connector *other = bh_config_connector(l->config, name->text);
    if (other != NULL) {
        bh_load_error(&l->load, node, name,
                      "connector '%.*s' is stated twice; the first is at %.*s:%u",
                      BH_FMT(name->text), BH_FMT(bh_slice_take(other->file, 200)), other->line);
        return;
    }
    if (add_name(l, connector)) {
        l->config->connectors_count++;
    }
}

static bool takes_everything(const struct bh_connector *connector)
{
    if (connector->senders.count > 0 || connector->size_above > 0 || connector->size_below > 0) {
        return false;
    }
    for (size_t i = 0; i < connector->domains.count; i++) {
        if (bh_slice_eq(connector->domains.at[i], BH_LIT("*"))) {
            return true;
        }
    }
    return false;
}

/* What no connector names goes by MX, as everywhere. */
static void add_default(struct loading *l, struct bh_connector *connector)
{
    for (size_t i = 0; i < l->config->connectors_count; i++) {
        if (takes_everything(&l->config->connectors[i])) {
            return;
        }
    }
    struct bh_slice *any = bh_load_alloc(&l->load, sizeof(*any));
    if (any == NULL) {
        return;
    }
    *any = BH_LIT("*");
    *connector = l->base;
    connector->name = bh_config_connector(l->config, BH_LIT("default")) == NULL
                          ? BH_LIT("default")
                          : BH_LIT("built-in-default");
    connector->index = (uint32_t)l->config->connectors_count;
    connector->file = BH_LIT("(built-in)");
    /* What is wrong with it stands in `defaults`. */
    const struct bh_config_node *defaults = bh_config_node_child(l->priv->root, "defaults");
    connector->node =
        defaults != NULL ? defaults : bh_config_node_child(l->priv->builtin, "connector");
    connector->domains = (struct bh_names){any, 1};
    BH_ASSERT(connector->node != NULL);
    bh_load_finish_connector(&l->load, l->config, connector);
    if (add_name(l, connector)) {
        l->config->connectors_count++;
    }
}

static void read_connectors(struct loading *l)
{
    l->load.in_defaults = true;
    both(l, &bh_schema_connector, "defaults", &l->base);
    l->load.in_defaults = false;
    l->base.resolver = l->config->resolver;
    const struct bh_config_node *own =
        bh_config_node_child(bh_config_node_child(l->priv->root, "defaults"), "resolver");
    if (own != NULL) {
        bh_load_error(&l->load, own, NULL,
                      "the resolver of all connectors is the block 'resolver'");
    }
    size_t count = 1;
    for (const struct bh_config_node *node = l->priv->root->children; node != NULL;
         node = node->next) {
        count++;
    }
    struct bh_connector *connectors = bh_load_alloc(&l->load, count * sizeof(*connectors));
    if (connectors == NULL) {
        return;
    }
    l->config->connectors = connectors;
    for (const struct bh_config_node *node = next_named(l->priv->root->children, "connector");
         node != NULL && !l->load.no_memory; node = next_named(node->next, "connector")) {
        read_connector(l, node, &connectors[l->config->connectors_count]);
    }
    if (!l->load.no_memory) {
        add_default(l, &connectors[l->config->connectors_count]);
    }
}

/* ---- listeners ---- */

static bool read_tcp_address(struct bh_slice text, struct bh_listen_config *listen)
{
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':') {
        colon--;
    }
    uint64_t port = 0;
    if (colon == 0 || !bh_slice_u64(bh_slice_skip(text, colon), 65535, &port)) {
        return false;
    }
    struct bh_slice host = bh_slice(text.ptr, colon - 1);
    const bool bracket = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    host = bracket ? bh_slice(host.ptr + 1, host.len - 2) : host;
    listen->kind = BH_LISTEN_TCP;
    listen->port = (uint16_t)port;
    return bh_ip_parse(host, &listen->ip) && bracket == (listen->ip.family == 6);
}

static bool read_address(struct loading *l, const struct bh_config_node *node, struct bh_slice text,
                         struct bh_listen_config *listen)
{
    if (bh_slice_starts(text, BH_LIT("unix:")) && text.len > 5) {
        listen->kind = BH_LISTEN_UNIX;
        l->load.no_memory |= !bh_config_resolve_path(l->load.arena, node->file,
                                                     bh_slice_skip(text, 5), &listen->path);
        return true;
    }
    if (bh_slice_starts(text, BH_LIT("systemd:")) && text.len > 8) {
        listen->kind = BH_LISTEN_SYSTEMD;
        listen->path = bh_slice_skip(text, 8);
        return true;
    }
    return read_tcp_address(text, listen);
}

/* Who may send, and whether what they show for it can be asked for. */
static void check_clients(struct loading *l, const struct bh_config_node *node,
                          const struct bh_config_node *tls, const struct bh_listen_config *listen)
{
    const bool asks = listen->client_ca.len > 0 || listen->client_pins.count > 0;
    const bool uses_tls = listen->tls != BH_LISTEN_TLS_OFF;
    const struct bh_config_node *auth = bh_config_node_child(node, "auth-file");
    if (listen->relay_certificate && (!asks || !uses_tls)) {
        bh_load_error(&l->load, node, NULL,
                      "relay-from certificate needs tls starttls or implicit, with 'client-ca' or "
                      "'client-pins'");
    } else if (asks && !listen->relay_certificate) {
        bh_load_warning(
            &l->load, tls != NULL ? tls : node, NULL,
            "'client-ca' and 'client-pins' give no right: state relay-from certificate");
    }
    if (listen->auth_file.len > 0 && !uses_tls) {
        bh_load_error(
            &l->load, auth != NULL ? auth : node, NULL,
            "'auth-file' needs tls starttls or implicit: AUTH is offered inside TLS only");
    }
    if (listen->relay_from.count == 0 && !listen->relay_local && !listen->relay_certificate &&
        listen->auth_file.len == 0) {
        bh_load_warning(&l->load, node, NULL,
                        listen->kind == BH_LISTEN_UNIX
                            ? "nobody may send through this listener: state relay-from local"
                            : "nobody may send through this listener: state relay-from");
    }
}

static void check_listen(struct loading *l, const struct bh_config_node *node,
                         const struct bh_listen_config *listen)
{
    const struct bh_config_node *tls = bh_config_node_child(node, "tls");
    if (listen->tls != BH_LISTEN_TLS_OFF &&
        (listen->certificate.len == 0 || listen->key.len == 0)) {
        bh_load_error(&l->load, tls != NULL ? tls : node, NULL,
                      "tls starttls and implicit need 'certificate' and 'key'");
    }
    check_clients(l, node, tls, listen);
    for (size_t i = 0; i < l->config->listens_count; i++) {
        const struct bh_listen_config *other = &l->config->listens[i];
        if (bh_slice_eq(other->text, listen->text) &&
            (listen->kind != BH_LISTEN_TCP || listen->port != 0)) {
            bh_load_error(&l->load, node, node->values,
                          "listen %.*s is stated twice; the first is at %.*s:%u",
                          BH_FMT(bh_load_shown(listen->text)),
                          BH_FMT(bh_slice_take(other->file, 200)), other->line);
        }
    }
}

static void read_listens(struct loading *l)
{
    struct bh_listen_config base = {0};
    const struct bh_config_node *builtin = bh_config_node_child(l->priv->builtin, "listen");
    BH_ASSERT(builtin != NULL);
    const struct bh_load_scope builtin_scope = {&bh_schema_listen, builtin, &top_scope};
    bh_load_block(&l->load, &builtin_scope, &base);
    size_t count = 0;
    for (const struct bh_config_node *node = next_named(l->priv->root->children, "listen");
         node != NULL; node = next_named(node->next, "listen")) {
        count++;
    }
    struct bh_listen_config *listens = bh_load_alloc(&l->load, (count + 1) * sizeof(*listens));
    l->config->listens = listens;
    for (const struct bh_config_node *node = next_named(l->priv->root->children, "listen");
         node != NULL && !l->load.no_memory; node = next_named(node->next, "listen")) {
        struct bh_listen_config *listen = &listens[l->config->listens_count];
        *listen = base;
        listen->file = node->file->name;
        listen->line = node->line;
        if (node->values_count != 1) {
            bh_load_error(&l->load, node, NULL, "'listen' takes one address and a block");
            continue;
        }
        listen->text = node->values->text;
        if (!read_address(l, node, listen->text, listen)) {
            bh_load_error(&l->load, node, node->values,
                          "expected an address such as 127.0.0.1:2525, [::1]:25, unix:/run/x or "
                          "systemd:NAME, got '%.*s'",
                          BH_FMT(bh_load_shown(listen->text)));
        }
        const struct bh_load_scope scope = {&bh_schema_listen, node, &top_scope};
        bh_load_block(&l->load, &scope, listen);
        if (listen->hostname.len == 0) {
            listen->hostname = l->config->engine.hostname;
        }
        check_listen(l, node, listen);
        l->config->listens_count++;
    }
}

/* ---- the whole ---- */

static void check_top(struct loading *l)
{
    for (const struct bh_config_node *node = l->priv->root->children; node != NULL;
         node = node->next) {
        bool known = false;
        for (size_t i = 0; bh_schema_top[i] != NULL; i++) {
            known |= bh_slice_eq(node->key, bh_slice_str(bh_schema_top[i]));
        }
        if (!known) {
            bh_load_unknown(&l->load, &top_scope, node);
        }
    }
}

/* What the store would refuse at start. */
static void check_queue(struct loading *l)
{
    const struct bh_queue_config *queue = &l->config->queue;
    if (queue->max_size / 2 < queue->reserve) {
        const struct bh_config_node *block = bh_config_node_child(l->priv->root, "queue");
        const struct bh_config_node *size = bh_config_node_child(block, "max-size");
        bh_load_error(&l->load, size != NULL ? size : block, NULL,
                      "'max-size' must be at least twice 'reserve', which is %llu MiB",
                      (unsigned long long)queue->reserve >> 20);
    }
}

static void load_all(struct loading *l)
{
    check_top(l);
    both(l, &bh_schema_engine, "engine", &l->config->engine);
    check_engine(l);
    both(l, &bh_schema_queue, "queue", &l->config->queue);
    check_queue(l);
    both(l, &bh_schema_resolver, "resolver", &l->config->resolver);
    const struct bh_resolver_policy *resolver = &l->config->resolver;
    if (resolver->min_ttl_ms > resolver->max_ttl_ms) {
        bh_load_error(&l->load, bh_config_node_child(l->priv->root, "resolver"), NULL,
                      "'min-ttl' is above 'max-ttl'");
    }
    if (!l->load.no_memory) {
        read_retries(l);
    }
    if (!l->load.no_memory) {
        read_connectors(l);
    }
    if (!l->load.no_memory) {
        read_listens(l);
    }
    if (!l->load.no_memory) {
        bh_index_build(&l->load, l->priv);
    }
}

static bool parse_trees(struct loading *l, const char *path)
{
    struct bh_config_tree builtin = {.arena = l->load.arena, .errors = l->load.errors};
    bh_config_tree_parse_text(&builtin, "(built-in)", bh_slice_str(bh_schema_builtin));
    struct bh_config_tree tree = {
        .reader = l->load.reader, .arena = l->load.arena, .errors = l->load.errors};
    if (!builtin.no_memory) {
        bh_config_tree_parse_file(&tree, path);
    }
    l->priv->builtin = builtin.root;
    l->priv->root = tree.root;
    return !builtin.no_memory && !tree.no_memory;
}

static bool comes_before(const struct bh_config_error *a, const struct bh_config_error *b)
{
    const int files = bh_slice_cmp(a->file, b->file);
    if (files != 0) {
        return files < 0;
    }
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

/* As a reader goes through the files; what stands at the same place keeps its order. */
static void sort_errors(struct bh_config_errors *errors)
{
    for (size_t i = 1; i < errors->count; i++) {
        const struct bh_config_error moved = errors->list[i];
        size_t at = i;
        for (; at > 0 && comes_before(&moved, &errors->list[at - 1]); at--) {
            errors->list[at] = errors->list[at - 1];
        }
        errors->list[at] = moved;
    }
}

static void free_private(struct bh_config_private *priv)
{
    bh_map_fini(&priv->names);
    bh_map_fini(&priv->spaces);
    bh_map_fini(&priv->rules);
    bh_arena_fini(&priv->arena);
    free(priv);
}

enum bh_status bh_config_parse(const struct bh_config_reader *reader, const char *path,
                               uint64_t generation, const struct bh_config **config,
                               struct bh_config_errors *errors)
{
    struct bh_config_private *priv = calloc(1, sizeof(*priv));
    if (priv == NULL) {
        return BH_ENOMEM;
    }
    const size_t errors_before = errors->errors;
    bh_arena_init(&priv->arena, ARENA_CAP);
    priv->config.generation = generation;
    priv->config.priv = priv;
    struct loading l = {.load = {.reader = reader, .arena = &priv->arena, .errors = errors},
                        .priv = priv,
                        .config = &priv->config};
    if (parse_trees(&l, path)) {
        load_all(&l);
    } else {
        l.load.no_memory = true;
    }
    bh_map_fini(&l.load.retries);
    sort_errors(errors);
    if (l.load.no_memory || errors->errors > errors_before) {
        free_private(priv);
        return l.load.no_memory ? BH_ENOMEM : BH_EINVAL;
    }
    atomic_init(&priv->references, 1);
    *config = &priv->config;
    return BH_OK;
}

const struct bh_config *bh_config_ref(const struct bh_config *config)
{
    atomic_fetch_add_explicit(&config->priv->references, 1, memory_order_relaxed);
    return config;
}

void bh_config_unref(const struct bh_config *config)
{
    if (config != NULL &&
        atomic_fetch_sub_explicit(&config->priv->references, 1, memory_order_acq_rel) == 1) {
        free_private(config->priv);
    }
}

const struct bh_connector *bh_config_connector(const struct bh_config *config, struct bh_slice name)
{
    const struct bh_map_node *found = bh_map_find(&config->priv->names, name);
    return found == NULL
               ? NULL
               : ((const struct bh_connector_name *)(const void *)((const char *)found -
                                                                   offsetof(
                                                                       struct bh_connector_name,
                                                                       node)))
                     ->connector;
}
