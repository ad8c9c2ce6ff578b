/* config_describe.c - the values in force, as JSON with their origin and as configuration text. */
#include <stdio.h>
#include <stdlib.h>

#include "config_internal.h"

#define DEPTH_MAX 6
#define SCRATCH_FIRST ((size_t)4096)

/* ---- JSON ---- */

/* The blocks that may state a setting, strongest first: the connector's, the defaults', the
 * built-in. */
struct origin {
    const struct bh_config_node *blocks[3];
    const struct bh_config_node *resolver; /* the top-level block, which stands in for `defaults` */
};
static const char *const origin_names[] = {"connector", "defaults", "built-in"};

static void write_origin(struct bh_json *json, const struct origin *origin,
                         const struct bh_setting *setting)
{
    for (size_t i = 0; i < BH_COUNT(origin->blocks); i++) {
        const struct bh_config_node *block = origin->blocks[i];
        const struct bh_config_node *node = (setting->flags & BH_HEAD) == 0
                                                ? bh_config_node_child(block, setting->name)
                                            : block != NULL && block->values != NULL ? block
                                                                                     : NULL;
        if (node != NULL) {
            bh_json_key(json, "from");
            bh_json_cstr(json, origin_names[i]);
            if (i < 2) {
                bh_json_key(json, "file");
                bh_json_str(json, node->file->name);
                bh_json_key(json, "line");
                bh_json_u64(json, node->line);
            }
            return;
        }
    }
    bh_json_key(json, "from");
    bh_json_cstr(json, "built-in");
}

/* Print into heap storage that grows until it fits. @return false without memory */
static bool print_grown(const struct bh_setting *setting, const void *base, struct bh_buf *scratch)
{
    for (;;) {
        scratch->len = 0;
        if (bh_value_print(setting, base, scratch) == BH_OK) {
            return true;
        }
        const size_t cap = scratch->cap * 2;
        char *grown = realloc(scratch->ptr, cap);
        if (grown == NULL) {
            return false;
        }
        scratch->ptr = grown;
        scratch->cap = cap;
    }
}

static bool is_nested(const struct bh_setting *setting)
{
    return setting->kind == BH_KIND_BLOCK && setting->print == NULL;
}

static void write_block(struct bh_json *json, const struct bh_block *block, const void *base,
                        const struct origin *origin, struct bh_buf *scratch, unsigned depth)
{
    BH_ASSERT(depth < DEPTH_MAX);
    bh_json_begin_object(json);
    for (size_t i = 0; i < block->count; i++) {
        const struct bh_setting *setting = &block->settings[i];
        bh_json_key(json, setting->name);
        if (is_nested(setting)) {
            struct origin inner = {{NULL}, NULL};
            for (size_t j = 0; j < BH_COUNT(origin->blocks); j++) {
                inner.blocks[j] = bh_config_node_child(origin->blocks[j], setting->name);
            }
            if (setting->block == &bh_schema_resolver) {
                inner.blocks[1] = origin->resolver;
            }
            write_block(json, setting->block, (const char *)base + setting->at, &inner, scratch,
                        depth + 1);
            continue;
        }
        bh_json_begin_object(json);
        bh_json_key(json, "value");
        if (!print_grown(setting, base, scratch) || scratch->len == 0) {
            bh_json_null(json);
        } else {
            bh_json_str(json, bh_slice_trim(bh_buf_slice(scratch)));
        }
        write_origin(json, origin, setting);
        bh_json_end_object(json);
    }
    bh_json_end_object(json);
}

void bh_connector_describe(const struct bh_config *config, const struct bh_connector *connector,
                           struct bh_json *json)
{
    const struct bh_config_private *priv = config->priv;
    const struct origin origin = {{connector->line > 0 ? connector->node : NULL,
                                   bh_config_node_child(priv->root, "defaults"),
                                   bh_config_node_child(priv->builtin, "defaults")},
                                  bh_config_node_child(priv->root, "resolver")};
    struct bh_buf scratch = bh_buf(malloc(SCRATCH_FIRST), SCRATCH_FIRST);
    if (scratch.ptr == NULL) {
        json->overflow = true;
        return;
    }
    bh_json_begin_object(json);
    bh_json_key(json, "name");
    bh_json_str(json, connector->name);
    bh_json_key(json, "file");
    bh_json_str(json, connector->file);
    bh_json_key(json, "line");
    bh_json_u64(json, connector->line);
    bh_json_key(json, "generation");
    bh_json_u64(json, config->generation);
    bh_json_key(json, "settings");
    write_block(json, &bh_schema_connector, connector, &origin, &scratch, 0);
    bh_json_key(json, "schedule");
    const struct origin none = {{NULL}, NULL};
    write_block(json, &bh_schema_retry, &connector->retry, &none, &scratch, 0);
    bh_json_end_object(json);
    free(scratch.ptr);
}

/* ---- text ---- */

struct printing {
    struct bh_buf *out;
    const struct bh_connector *connector; /* NULL: another block */
    bool full;                            /* no room */
};

static void put(struct printing *p, struct bh_slice text)
{
    p->full = p->full || bh_buf_add(p->out, text) != BH_OK;
}

static void indent(struct printing *p, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++) {
        put(p, BH_LIT("    "));
    }
}

static void put_value(struct printing *p, const struct bh_setting *setting, const void *base)
{
    p->full = p->full || bh_value_print(setting, base, p->out) != BH_OK;
}

bool bh_block_is_absent(const struct bh_setting *setting, const void *at)
{
    const struct bh_setting *until = bh_schema_find(setting->block, BH_LIT("until"));
    if (until == NULL) {
        return false;
    }
    int64_t end = 0;
    memcpy(&end, (const char *)at + until->at, sizeof(end));
    return end == 0;
}

static void print_block(struct printing *p, const struct bh_block *block, const void *base,
                        unsigned depth)
{
    BH_ASSERT(depth < DEPTH_MAX);
    for (size_t i = 0; i < block->count && !p->full; i++) {
        const struct bh_setting *setting = &block->settings[i];
        const void *at = (const char *)base + setting->at;
        const size_t before = p->out->len;
        if ((setting->flags & BH_HEAD) != 0 ||
            (p->connector != NULL && base == &p->connector->tls &&
             !bh_tls_key_has_meaning(&p->connector->tls, setting->name))) {
            continue;
        }
        indent(p, depth);
        put(p, bh_slice_str(setting->name));
        put(p, BH_LIT(" "));
        const size_t named = p->out->len;
        if (!is_nested(setting)) {
            put_value(p, setting, base);
            if (p->out->len == named) {
                p->out->len = before;
                continue;
            }
        } else if (bh_block_is_absent(setting, at)) {
            p->out->len = before;
            continue;
        } else {
            if ((setting->block->settings[0].flags & BH_HEAD) != 0) {
                put_value(p, &setting->block->settings[0], at);
                put(p, BH_LIT(" "));
            }
            put(p, BH_LIT("{\n"));
            print_block(p, setting->block, at, depth + 1);
            indent(p, depth);
            put(p, BH_LIT("}"));
        }
        put(p, BH_LIT("\n"));
    }
}

static void print_top(struct printing *p, const char *word, struct bh_slice name,
                      const struct bh_block *block, const void *base)
{
    put(p, bh_slice_str(word));
    put(p, BH_LIT(" "));
    if (name.len > 0) {
        p->full = p->full || bh_value_print_text(name, p->out) != BH_OK;
        put(p, BH_LIT(" "));
    }
    put(p, BH_LIT("{\n"));
    print_block(p, block, base, 1);
    put(p, BH_LIT("}\n"));
}

/* unix:PATH as resolved, so that the text means the same in any folder. */
static void print_listen(struct printing *p, const struct bh_listen_config *listen)
{
    char text[512];
    struct bh_buf name = bh_buf(text, sizeof(text));
    if (listen->kind == BH_LISTEN_UNIX &&
        bh_buf_printf(&name, "unix:%.*s", BH_FMT(listen->path)) == BH_OK) {
        print_top(p, "listen", bh_buf_slice(&name), &bh_schema_listen, listen);
    } else {
        print_top(p, "listen", listen->text, &bh_schema_listen, listen);
    }
}

enum bh_status bh_config_print(const struct bh_config *config, struct bh_buf *out)
{
    struct printing p = {.out = out};
    print_top(&p, "engine", BH_EMPTY, &bh_schema_engine, &config->engine);
    print_top(&p, "queue", BH_EMPTY, &bh_schema_queue, &config->queue);
    print_top(&p, "resolver", BH_EMPTY, &bh_schema_resolver, &config->resolver);
    for (size_t i = 0; i < config->listens_count; i++) {
        print_listen(&p, &config->listens[i]);
    }
    for (size_t i = 0; i < config->retries_count; i++) {
        print_top(&p, "retry", config->retries[i].name, &bh_schema_retry, &config->retries[i]);
    }
    for (size_t i = 0; i < config->connectors_count; i++) {
        p.connector = &config->connectors[i];
        print_top(&p, "connector", p.connector->name, &bh_schema_connector, p.connector);
    }
    return p.full ? BH_ELIMIT : BH_OK;
}
