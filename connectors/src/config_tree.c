#include "config_tree.h"

#include "config_lex.h"

#define INCLUDE_DEPTH_MAX 8
#define FILES_MAX 20000
#define SHOWN_MAX 64 /* octets of the file's text in a message */

struct parser {
    struct bh_config_tree *tree;
    const struct bh_config_file *file;
    struct bh_lexer lexer;
    struct bh_config_node *root; /* where this file's statements go */
    struct bh_config_node *at;   /* the block that is open */
    unsigned depth;              /* of includes */
};

static void parse_path(struct bh_config_tree *tree, const char *path,
                       const struct bh_config_node *by, struct bh_config_node *root,
                       unsigned depth);

#define FAIL(p, line_, column_, ...)                                                              \
    bh_config_errors_add((p)->tree->errors, BH_CONFIG_ERROR, (p)->file->name, (line_), (column_), \
                         __VA_ARGS__)

static void *allocate(struct bh_config_tree *tree, size_t size)
{
    void *memory = bh_arena_alloc(tree->arena, size);
    if (memory == NULL) {
        tree->no_memory = true;
    }
    return memory;
}

static bool copy_text(struct bh_config_tree *tree, struct bh_slice text, struct bh_slice *copy)
{
    char *octets = allocate(tree, text.len + 1);
    if (octets == NULL) {
        return false;
    }
    if (text.len > 0) {
        memcpy(octets, text.ptr, text.len);
    }
    *copy = bh_slice(octets, text.len);
    return true;
}

bool bh_config_resolve_path(struct bh_arena *arena, const struct bh_config_file *file,
                            struct bh_slice path, struct bh_slice *resolved)
{
    const bool absolute = path.len > 0 && path.ptr[0] == '/';
    const struct bh_slice folder = absolute ? BH_EMPTY : file->folder;
    while (!absolute && folder.len > 0 && bh_slice_starts(path, BH_LIT("./"))) {
        path = bh_slice_skip(path, 2);
    }
    char *octets = bh_arena_alloc(arena, folder.len + path.len + 1);
    if (octets == NULL) {
        return false;
    }
    struct bh_buf buf = bh_buf(octets, folder.len + path.len);
    bh_buf_put(&buf, folder);
    bh_buf_put(&buf, path);
    *resolved = bh_buf_slice(&buf);
    return true;
}

const struct bh_config_node *bh_config_node_child(const struct bh_config_node *node,
                                                  const char *key)
{
    const struct bh_slice want = bh_slice_str(key);
    for (const struct bh_config_node *child = node != NULL ? node->children : NULL; child != NULL;
         child = child->next) {
        if (bh_slice_eq(child->key, want)) {
            return child;
        }
    }
    return NULL;
}

/* The text of a word or a string. */
static bool token_text(struct parser *p, const struct bh_token *token, struct bh_slice *text)
{
    if (token->kind == BH_TOKEN_WORD) {
        return copy_text(p->tree, token->text, text);
    }
    switch ((int)bh_lexer_unescape(p->tree->arena, token->text, text)) {
    case BH_OK:
        return true;
    case BH_EPROTO:
        FAIL(p, token->line, token->column,
             "unknown escape in a string; allowed are \\\" \\\\ \\n and \\t");
        *text = BH_EMPTY;
        return true;
    default:
        p->tree->no_memory = true;
        return false;
    }
}

static bool add_value(struct parser *p, struct bh_config_node *node, struct bh_config_value **last,
                      const struct bh_token *token)
{
    struct bh_config_value *value = allocate(p->tree, sizeof(*value));
    if (value == NULL || !token_text(p, token, &value->text)) {
        return false;
    }
    value->line = token->line;
    value->column = token->column;
    value->quoted = token->kind == BH_TOKEN_STRING;
    if (*last == NULL) {
        node->values = value;
    } else {
        (*last)->next = value;
    }
    *last = value;
    node->values_count++;
    return true;
}

/* After '[': values up to its ']'. */
static bool read_list(struct parser *p, struct bh_config_node *node, struct bh_config_value **last,
                      const struct bh_token *open)
{
    for (;;) {
        const struct bh_lexer before = p->lexer;
        const struct bh_token token = bh_lexer_next(&p->lexer);
        switch (token.kind) {
        case BH_TOKEN_WORD:
        case BH_TOKEN_STRING:
            if (!add_value(p, node, last, &token)) {
                return false;
            }
            break;
        case BH_TOKEN_NEWLINE:
            break;
        case BH_TOKEN_CLOSE_LIST:
            return true;
        case BH_TOKEN_SEMICOLON:
            FAIL(p, token.line, token.column, "no ';' in a list: blanks or lines part its values");
            break;
        case BH_TOKEN_OPEN_LIST:
            FAIL(p, token.line, token.column, "a list in a list is not allowed");
            break;
        case BH_TOKEN_BAD:
            FAIL(p, token.line, token.column, "%.*s", BH_FMT(token.text));
            break;
        case BH_TOKEN_OPEN_BLOCK:
        case BH_TOKEN_CLOSE_BLOCK:
        case BH_TOKEN_END:
            FAIL(p, token.line, token.column, "the list opened at line %u is not closed by ']'",
                 open->line);
            p->lexer = before;
            return true;
        }
    }
}

/* Is the next token behind empty lines a '{'? Then it opens the block of the statement before. */
static bool block_follows(struct parser *p)
{
    struct bh_lexer ahead = p->lexer;
    struct bh_token token = bh_lexer_next(&ahead);
    while (token.kind == BH_TOKEN_NEWLINE) {
        token = bh_lexer_next(&ahead);
    }
    return token.kind == BH_TOKEN_OPEN_BLOCK;
}

/* The values of a statement and its end. @return false without memory */
static bool read_values(struct parser *p, struct bh_config_node *node)
{
    struct bh_config_value *last = NULL;
    for (;;) {
        const struct bh_lexer before = p->lexer;
        const struct bh_token token = bh_lexer_next(&p->lexer);
        switch (token.kind) {
        case BH_TOKEN_WORD:
        case BH_TOKEN_STRING:
            if (!add_value(p, node, &last, &token)) {
                return false;
            }
            break;
        case BH_TOKEN_OPEN_LIST:
            if (!read_list(p, node, &last, &token)) {
                return false;
            }
            break;
        case BH_TOKEN_OPEN_BLOCK:
            node->has_block = true;
            node->block_line = token.line;
            return true;
        case BH_TOKEN_NEWLINE:
            if (!block_follows(p)) {
                return true;
            }
            break;
        case BH_TOKEN_SEMICOLON:
            return true;
        case BH_TOKEN_CLOSE_LIST:
            FAIL(p, token.line, token.column, "']' without a list");
            break;
        case BH_TOKEN_BAD:
            FAIL(p, token.line, token.column, "%.*s", BH_FMT(token.text));
            break;
        case BH_TOKEN_CLOSE_BLOCK:
        case BH_TOKEN_END:
            p->lexer = before;
            return true;
        }
    }
}

static void append(struct bh_config_node *parent, struct bh_config_node *node)
{
    if (parent->last_child == NULL) {
        parent->children = node;
    } else {
        parent->last_child->next = node;
    }
    parent->last_child = node;
}

static void include(struct parser *p, const struct bh_config_node *node)
{
    struct bh_config_tree *tree = p->tree;
    if (node->values_count != 1 || node->has_block) {
        FAIL(p, node->line, node->column,
             "'include' takes one value: a file, or a pattern such as "
             "\"conf.d/*.conf\"");
        return;
    }
    const struct bh_config_value *value = node->values;
    if (tree->reader == NULL || p->depth >= INCLUDE_DEPTH_MAX) {
        FAIL(p, value->line, value->column, "includes are nested deeper than %d files",
             INCLUDE_DEPTH_MAX);
        return;
    }
    struct bh_slice path;
    if (!bh_config_resolve_path(tree->arena, p->file, value->text, &path)) {
        tree->no_memory = true;
        return;
    }
    if (bh_slice_find(path, '*') == path.len && bh_slice_find(path, '?') == path.len) {
        parse_path(tree, path.ptr, node, p->at, p->depth + 1);
        return;
    }
    struct bh_names paths = {0};
    const enum bh_status status =
        tree->reader->glob(tree->reader->ctx, path.ptr, tree->arena, &paths);
    if (status != BH_OK) {
        FAIL(p, value->line, value->column, "'include' %.*s: %s", BH_FMT(bh_slice_take(path, 256)),
             bh_status_name(status));
        return;
    }
    for (size_t i = 0; i < paths.count && !tree->no_memory; i++) {
        parse_path(tree, paths.at[i].ptr, node, p->at, p->depth + 1);
    }
}

static bool read_statement(struct parser *p, const struct bh_token *token)
{
    struct bh_config_node *node = allocate(p->tree, sizeof(*node));
    if (node == NULL || !token_text(p, token, &node->key)) {
        return false;
    }
    node->file = p->file;
    node->line = token->line;
    node->column = token->column;
    node->parent = p->at;
    if (!read_values(p, node)) {
        return false;
    }
    if (bh_slice_eq(node->key, BH_LIT("include"))) {
        include(p, node);
        /* A block behind it is an error already told; read over it as a block of nobody. */
    } else {
        append(p->at, node);
    }
    if (node->has_block) {
        p->at = node;
    }
    return !p->tree->no_memory;
}

/* A '{' that nothing names: its statements are read, so that their own errors show, and dropped. */
static bool open_nameless(struct parser *p, const struct bh_token *token)
{
    FAIL(p, token->line, token->column, "a block needs a name before its '{'");
    struct bh_config_node *node = allocate(p->tree, sizeof(*node));
    if (node == NULL) {
        return false;
    }
    node->file = p->file;
    node->block_line = token->line;
    node->parent = p->at;
    p->at = node;
    return true;
}

static void report_open_blocks(struct parser *p, const struct bh_token *end)
{
    for (; p->at != p->root; p->at = p->at->parent) {
        FAIL(p, end->line, end->column, "'%.*s' block opened at line %u is not closed",
             BH_FMT(bh_slice_take(p->at->key, SHOWN_MAX)), p->at->block_line);
    }
}

static void parse(struct parser *p)
{
    for (;;) {
        const struct bh_token token = bh_lexer_next(&p->lexer);
        switch (token.kind) {
        case BH_TOKEN_NEWLINE:
        case BH_TOKEN_SEMICOLON:
            break;
        case BH_TOKEN_WORD:
        case BH_TOKEN_STRING:
            if (!read_statement(p, &token)) {
                return;
            }
            break;
        case BH_TOKEN_OPEN_BLOCK:
            if (!open_nameless(p, &token)) {
                return;
            }
            break;
        case BH_TOKEN_CLOSE_BLOCK:
            if (p->at == p->root) {
                FAIL(p, token.line, token.column, "'}' without an open block");
            } else {
                p->at = p->at->parent;
            }
            break;
        case BH_TOKEN_OPEN_LIST:
        case BH_TOKEN_CLOSE_LIST:
            FAIL(p, token.line, token.column, "expected the name of a setting, got '%.*s'",
                 BH_FMT(token.text));
            break;
        case BH_TOKEN_BAD:
            FAIL(p, token.line, token.column, "%.*s", BH_FMT(token.text));
            break;
        case BH_TOKEN_END:
            report_open_blocks(p, &token);
            return;
        }
    }
}

static void parse_octets(struct bh_config_tree *tree, const struct bh_config_file *file,
                         struct bh_slice text, struct bh_config_node *root, unsigned depth)
{
    struct parser p = {.tree = tree,
                       .file = file,
                       .lexer = {.text = text, .line = 1},
                       .root = root,
                       .at = root,
                       .depth = depth};
    parse(&p);
}

static struct bh_config_file *new_file(struct bh_config_tree *tree, const char *path,
                                       const struct bh_config_file *includer)
{
    struct bh_config_file *file = allocate(tree, sizeof(*file));
    if (file == NULL || !copy_text(tree, bh_slice_str(path), &file->name)) {
        return NULL;
    }
    size_t len = file->name.len;
    while (len > 0 && file->name.ptr[len - 1] != '/') {
        len--;
    }
    file->folder = bh_slice(file->name.ptr, len);
    file->includer = includer;
    return file;
}

static const char *why(enum bh_status status)
{
    switch ((int)status) {
    case BH_ENOTFOUND:
        return "no such file";
    case BH_ELIMIT:
        return "larger than 16 MiB";
    case BH_ENOMEM:
        return "no memory";
    default:
        return "cannot be read";
    }
}

/* `by` is the include statement, NULL for the first file. */
static void parse_path(struct bh_config_tree *tree, const char *path,
                       const struct bh_config_node *by, struct bh_config_node *root, unsigned depth)
{
    struct bh_config_file *file = new_file(tree, path, by != NULL ? by->file : NULL);
    if (file == NULL) {
        return;
    }
    const struct bh_slice told = by != NULL ? by->file->name : file->name;
    const uint32_t line = by != NULL ? by->values->line : 0;
    const uint32_t column = by != NULL ? by->values->column : 0;
    for (const struct bh_config_file *up = file->includer; up != NULL; up = up->includer) {
        if (bh_slice_eq(up->name, file->name)) {
            bh_config_errors_add(tree->errors, BH_CONFIG_ERROR, told, line, column,
                                 "%.*s includes itself", BH_FMT(bh_slice_take(file->name, 256)));
            return;
        }
    }
    if (++tree->files > FILES_MAX) {
        bh_config_errors_add(tree->errors, BH_CONFIG_ERROR, told, line, column,
                             "more than %d files", FILES_MAX);
        return;
    }
    struct bh_slice text = BH_EMPTY;
    const enum bh_status status = tree->reader->read(tree->reader->ctx, path, tree->arena, &text);
    if (status != BH_OK) {
        char words[BH_CONFIG_WHY_MAX];
        const bool told_why = status == BH_EIO && tree->reader->why != NULL;
        tree->no_memory |= status == BH_ENOMEM;
        bh_config_errors_add(tree->errors, BH_CONFIG_ERROR, told, line, column, "%.*s: %s",
                             BH_FMT(bh_slice_take(file->name, 256)),
                             told_why ? tree->reader->why(tree->reader->ctx, path, words)
                                      : why(status));
        return;
    }
    if (bh_slice_starts(text, BH_LIT("\xEF\xBB\xBF"))) {
        text = bh_slice_skip(text, 3);
    }
    parse_octets(tree, file, text, root, depth);
}

static bool make_root(struct bh_config_tree *tree)
{
    tree->root = allocate(tree, sizeof(*tree->root));
    return tree->root != NULL;
}

void bh_config_tree_parse_text(struct bh_config_tree *tree, const char *name, struct bh_slice text)
{
    if (!make_root(tree)) {
        return;
    }
    const struct bh_config_file *file = new_file(tree, name, NULL);
    if (file != NULL) {
        parse_octets(tree, file, text, tree->root, 0);
    }
}

void bh_config_tree_parse_file(struct bh_config_tree *tree, const char *path)
{
    if (make_root(tree)) {
        parse_path(tree, path, NULL, tree->root, 0);
    }
}
