/* config_peek.c - where the engine and its queue are, from a configuration that may be broken. */
#include "config_schema.h"
#include "config_tree.h"

#define TREE_CAP ((size_t)1 << 30) /* as that of a whole configuration */
#define PLACES_CAP ((size_t)1 << 20)
#define CONTROL_MAX 64

/* The next node in order of the files, whatever block a missing brace put it into. */
static const struct bh_config_node *following(const struct bh_config_node *node)
{
    if (node->children != NULL) {
        return node->children;
    }
    while (node != NULL && node->next == NULL) {
        node = node->parent;
    }
    return node != NULL ? node->next : NULL;
}

/* The first `key` with a value: that of a block of this name, else any. Both names that are looked
 * for have one meaning only, so that one outside its block is one whose block is broken. */
static const struct bh_config_node *find(const struct bh_config_node *root, const char *block,
                                         const char *key)
{
    const struct bh_slice want_block = bh_slice_str(block);
    const struct bh_slice want = bh_slice_str(key);
    const struct bh_config_node *astray = NULL;
    for (const struct bh_config_node *node = root; node != NULL; node = following(node)) {
        const bool found =
            bh_slice_eq(node->key, want) && node->values != NULL && node->values->text.len > 0;
        if (found && node->parent != NULL && bh_slice_eq(node->parent->key, want_block)) {
            return node;
        }
        astray = found && astray == NULL ? node : astray;
    }
    return astray;
}

static enum bh_status take_control(struct bh_config_places *places,
                                   const struct bh_config_node *node)
{
    const size_t most = node->values_count < CONTROL_MAX ? node->values_count : CONTROL_MAX;
    struct bh_slice *list = bh_arena_alloc(&places->arena, most * sizeof(*list));
    if (list == NULL) {
        return BH_ENOMEM;
    }
    size_t count = 0;
    for (const struct bh_config_value *value = node->values; value != NULL && count < most;
         value = value->next) {
        if (value->text.len == 0) {
            continue;
        }
        if (!bh_config_resolve_path(&places->arena, node->file, value->text, &list[count])) {
            return BH_ENOMEM;
        }
        count++;
    }
    places->control = (struct bh_names){list, count};
    return BH_OK;
}

/* What this tree states replaces what stood there. */
static enum bh_status take(struct bh_config_places *places, const struct bh_config_node *root)
{
    const struct bh_config_node *control = find(root, "engine", "control");
    const struct bh_config_node *queue = find(root, "queue", "path");
    const enum bh_status status = control != NULL ? take_control(places, control) : BH_OK;
    if (status == BH_OK && queue != NULL &&
        !bh_config_resolve_path(&places->arena, queue->file, queue->values->text, &places->queue)) {
        return BH_ENOMEM;
    }
    return status;
}

enum bh_status bh_config_peek(const struct bh_config_reader *reader, const char *path,
                              struct bh_config_places *places)
{
    struct bh_config_errors errors;
    struct bh_arena arena;
    bh_config_errors_init(&errors);
    bh_arena_init(&arena, TREE_CAP);
    *places = (struct bh_config_places){.queue = BH_EMPTY};
    bh_arena_init(&places->arena, PLACES_CAP);
    struct bh_config_tree builtin = {.arena = &arena, .errors = &errors};
    struct bh_config_tree tree = {.reader = reader, .arena = &arena, .errors = &errors};
    bh_config_tree_parse_text(&builtin, "(built-in)", bh_slice_str(bh_schema_builtin));
    enum bh_status status = builtin.no_memory ? BH_ENOMEM : take(places, builtin.root);
    if (status == BH_OK) {
        bh_config_tree_parse_file(&tree, path);
        status = tree.no_memory ? BH_ENOMEM : take(places, tree.root);
    }
    /* Only the first file is complained of as a whole; an include is, at its line. */
    if (status == BH_OK && errors.count > 0 && errors.list[0].line == 0) {
        status = BH_ENOTFOUND;
    }
    bh_arena_fini(&arena);
    bh_config_errors_fini(&errors);
    return status;
}

void bh_config_places_fini(struct bh_config_places *places)
{
    bh_arena_fini(&places->arena);
    *places = (struct bh_config_places){.queue = BH_EMPTY};
}
