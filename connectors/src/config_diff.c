/* config_diff.c - what a reload would change. */
#include <stdio.h>
#include <stdlib.h>

#include "bh/envelope.h"
#include "config_internal.h"

#define DEPTH_MAX 6
#define PATH_MAX_LEN 160
#define SCRATCH_FIRST ((size_t)4096)

struct diffing {
    const struct bh_config *before, *after;
    void (*tell)(void *ctx, const struct bh_config_change *change);
    void *ctx;
    struct bh_buf texts[2]; /* heap: values before and after */
    size_t weaker;
    bool untold; /* something, for want of memory */
};

static void tell(struct diffing *d, const struct bh_config_change *change)
{
    d->weaker += change->tls == BH_TLS_WEAKER ? 1 : 0;
    if (d->tell != NULL) {
        d->tell(d->ctx, change);
    }
}

/* ---- TLS ---- */

static bool has_exception(const struct bh_tls_policy *tls)
{
    return tls->exception.until_unix_ms != 0;
}

/* Does an exception come that lets through more than before, or last longer than before? */
static bool exception_weakens(const struct bh_tls_policy *before, const struct bh_tls_policy *after)
{
    if (!has_exception(after)) {
        return false;
    }
    if (!has_exception(before)) {
        return bh_tls_demand_is_weaker(&after->exception_demand, &before->demand);
    }
    const bool longer = after->exception.until_unix_ms > before->exception.until_unix_ms &&
                        bh_tls_demand_is_weaker(&after->exception_demand, &before->demand);
    return longer || bh_tls_demand_is_weaker(&after->exception_demand, &before->exception_demand);
}

/* Mode auto asks for TLSA records where a resolver is trusted, and does without them elsewhere. */
static bool loses_dane(const struct bh_connector *before, const struct bh_connector *after)
{
    return before->tls.demand.mode == BH_TLS_AUTO && after->tls.demand.mode == BH_TLS_AUTO &&
           before->resolver.trusted && !after->resolver.trusted;
}

bool bh_connector_is_weaker(const struct bh_connector *after, const struct bh_connector *before)
{
    return bh_tls_demand_is_weaker(&after->tls.demand, &before->tls.demand) ||
           exception_weakens(&before->tls, &after->tls) || loses_dane(before, after);
}

static enum bh_tls_change tls_change(const struct bh_connector *was, const struct bh_connector *is)
{
    const struct bh_tls_policy *before = &was->tls;
    const struct bh_tls_policy *after = &is->tls;
    if (bh_connector_is_weaker(is, was)) {
        return BH_TLS_WEAKER;
    }
    if (bh_tls_demand_is_weaker(&before->demand, &after->demand) ||
        (has_exception(before) && !has_exception(after))) {
        return BH_TLS_STRICTER;
    }
    return bh_tls_demand_eq(&before->demand, &after->demand) ? BH_TLS_SAME : BH_TLS_TRUST;
}

/* ---- settings ---- */

static bool print_grown(const struct bh_setting *setting, const void *base, struct bh_buf *text)
{
    for (;;) {
        text->len = 0;
        if (bh_value_print(setting, base, text) == BH_OK) {
            return true;
        }
        char *grown = realloc(text->ptr, text->cap * 2);
        if (grown == NULL) {
            return false;
        }
        text->ptr = grown;
        text->cap *= 2;
    }
}

struct place {
    struct bh_slice connector;
    char path[PATH_MAX_LEN]; /* "limits " */
};

static void diff_block(struct diffing *d, const struct bh_block *block, const void *before,
                       const void *after, const struct place *place, unsigned depth);

static void diff_setting(struct diffing *d, const struct bh_setting *setting, const void *before,
                         const void *after, const struct place *place, unsigned depth)
{
    if (setting->kind == BH_KIND_BLOCK) {
        if (bh_block_is_absent(setting, (const char *)before + setting->at) &&
            bh_block_is_absent(setting, (const char *)after + setting->at)) {
            return;
        }
        struct place inner = {.connector = place->connector};
        snprintf(inner.path, sizeof(inner.path), "%.100s%s ", place->path, setting->name);
        diff_block(d, setting->block, (const char *)before + setting->at,
                   (const char *)after + setting->at, &inner, depth + 1);
        if (setting->print == NULL) {
            return;
        }
    }
    if (!print_grown(setting, before, &d->texts[0]) || !print_grown(setting, after, &d->texts[1])) {
        d->untold = true;
        return;
    }
    const struct bh_slice old = bh_slice_trim(bh_buf_slice(&d->texts[0]));
    const struct bh_slice new = bh_slice_trim(bh_buf_slice(&d->texts[1]));
    const bool schedule = setting->kind == BH_KIND_BLOCK;
    if (bh_slice_eq(old, new) ||
        (schedule && (old.ptr[0] == '{' || new.ptr[0] == '{') && old.ptr[0] == new.ptr[0])) {
        return; /* an inline schedule is told by its settings */
    }
    char name[PATH_MAX_LEN + 64];
    snprintf(name, sizeof(name), "%s%s", place->path, setting->name);
    tell(d, &(struct bh_config_change){.kind = BH_CHANGE_SETTING,
                                       .connector = place->connector,
                                       .setting = bh_slice_str(name),
                                       .before = old,
                                       .after = new});
}

static void diff_block(struct diffing *d, const struct bh_block *block, const void *before,
                       const void *after, const struct place *place, unsigned depth)
{
    BH_ASSERT(depth < DEPTH_MAX);
    for (size_t i = 0; i < block->count; i++) {
        diff_setting(d, &block->settings[i], before, after, place, depth);
    }
}

/* ---- connectors ---- */

static int by_name(const void *a, const void *b)
{
    return bh_slice_cmp((*(const struct bh_connector *const *)a)->name,
                        (*(const struct bh_connector *const *)b)->name);
}

static void diff_connector(struct diffing *d, const struct bh_connector *before,
                           const struct bh_connector *after)
{
    const struct place place = {.connector = after->name};
    const bool own_resolver = bh_own_statement(before, "resolver", NULL) != NULL ||
                              bh_own_statement(after, "resolver", NULL) != NULL;
    for (size_t i = 0; i < bh_schema_connector.count; i++) {
        const struct bh_setting *setting = &bh_schema_connector.settings[i];
        /* The resolver of all is told once, not for each connector. */
        if (setting->block != &bh_schema_resolver || own_resolver) {
            diff_setting(d, setting, before, after, &place, 0);
        }
    }
    const enum bh_tls_change tls = tls_change(before, after);
    if (tls != BH_TLS_SAME) {
        tell(d, &(struct bh_config_change){
                    .kind = BH_CHANGE_SETTING,
                    .connector = after->name,
                    .setting = BH_LIT("tls"),
                    .before = bh_slice_str(bh_tls_mode_name(before->tls.demand.mode)),
                    .after = loses_dane(before, after)
                                 ? BH_LIT("auto without DANE: no resolver is trusted")
                                 : bh_slice_str(bh_tls_mode_name(after->tls.demand.mode)),
                    .tls = tls});
    }
}

/* A new connector: whom it takes, and its TLS. */
static struct bh_slice in_short(struct diffing *d, const struct bh_connector *connector)
{
    struct bh_buf *text = &d->texts[1];
    text->len = 0;
    bh_buf_add_cut(text, BH_LIT("domains"));
    for (size_t i = 0; i < connector->domains.count; i++) {
        bh_buf_add_cut(text, BH_LIT(" "));
        bh_buf_add_cut(text, connector->domains.at[i]);
    }
    bh_buf_add_cut(text, BH_LIT("   tls "));
    bh_buf_add_cut(text, bh_slice_str(bh_tls_mode_name(connector->tls.demand.mode)));
    return bh_buf_slice(text);
}

static void diff_connectors(struct diffing *d)
{
    const size_t count = d->before->connectors_count + d->after->connectors_count;
    const struct bh_connector **list = calloc(count, sizeof(*list));
    if (list == NULL) {
        d->untold = true;
        return;
    }
    size_t used = 0;
    for (size_t i = 0; i < d->before->connectors_count; i++) {
        if (bh_config_connector(d->after, d->before->connectors[i].name) == NULL) {
            list[used++] = &d->before->connectors[i];
        }
    }
    for (size_t i = 0; i < d->after->connectors_count; i++) {
        list[used++] = &d->after->connectors[i];
    }
    qsort(list, used, sizeof(*list), by_name);
    for (size_t i = 0; i < used; i++) {
        const struct bh_connector *before = bh_config_connector(d->before, list[i]->name);
        const struct bh_connector *after = bh_config_connector(d->after, list[i]->name);
        if (before != NULL && after != NULL) {
            diff_connector(d, before, after);
        } else {
            tell(d, &(struct bh_config_change){
                        .kind = after != NULL ? BH_CHANGE_ADDED : BH_CHANGE_REMOVED,
                        .connector = list[i]->name,
                        .after = after != NULL ? in_short(d, after) : BH_EMPTY});
        }
    }
    free(list);
}

/* ---- where address spaces go ---- */

/* A domain that only this address space (or one less specific) takes. */
static struct bh_slice sample_domain(struct bh_slice space, char text[BH_DOMAIN_MAX + 16])
{
    struct bh_buf buf = bh_buf(text, BH_DOMAIN_MAX + 16);
    if (bh_slice_eq(space, BH_LIT("*"))) {
        return BH_LIT("any--bh.invalid");
    }
    if (!bh_slice_starts(space, BH_LIT("*."))) {
        return space;
    }
    bh_buf_add_cut(&buf, BH_LIT("any--bh"));
    bh_buf_add_cut(&buf, bh_slice_skip(space, 1));
    return bh_buf_slice(&buf);
}

static struct bh_slice sample_sender(struct bh_slice pattern, char text[BH_ADDRESS_MAX + 32])
{
    struct bh_buf buf = bh_buf(text, BH_ADDRESS_MAX + 32);
    if (pattern.len == 0) {
        return BH_LIT("any--bh@any--bh.invalid");
    }
    if (bh_slice_eq(pattern, BH_LIT("<>"))) {
        return BH_EMPTY;
    }
    if (pattern.ptr[0] != '@') {
        return pattern;
    }
    const bool below = bh_slice_starts(pattern, BH_LIT("@*."));
    bh_buf_add_cut(&buf, below ? BH_LIT("any--bh@any--bh") : BH_LIT("any--bh"));
    bh_buf_add_cut(&buf, below ? bh_slice_skip(pattern, 2) : pattern);
    return bh_buf_slice(&buf);
}

static uint64_t sample_size(const struct bh_connector *connector)
{
    return connector->size_above > 0   ? connector->size_above + 1
           : connector->size_below > 0 ? connector->size_below - 1
                                       : 0;
}

static const struct bh_connector *first_choice(const struct bh_config *config,
                                               const struct bh_rule_list *list, uint64_t size)
{
    char domain[BH_DOMAIN_MAX + 16];
    char sender[BH_ADDRESS_MAX + 32];
    struct bh_match match;
    if (bh_config_match(config, sample_domain(list->space, domain),
                        sample_sender(list->sender, sender), size, NULL, NULL, &match) != BH_OK) {
        return NULL;
    }
    return match.instead_of != NULL ? match.instead_of : match.connector;
}

static void diff_rule(struct diffing *d, const struct bh_rule_list *list)
{
    struct bh_slice told_before = BH_EMPTY;
    struct bh_slice told_after = BH_EMPTY;
    for (const struct bh_candidate *at = list->first; at != NULL; at = at->next) {
        const uint64_t size = sample_size(at->connector);
        const struct bh_connector *before = first_choice(d->before, list, size);
        const struct bh_connector *after = first_choice(d->after, list, size);
        const struct bh_slice old = before != NULL ? before->name : BH_EMPTY;
        const struct bh_slice new = after != NULL ? after->name : BH_EMPTY;
        if (bh_slice_eq(old, new) ||
            (bh_slice_eq(old, told_before) && bh_slice_eq(new, told_after))) {
            continue;
        }
        told_before = old;
        told_after = new;
        tell(d, &(struct bh_config_change){.kind = BH_CHANGE_MOVED,
                                           .setting = list->space,
                                           .sender = list->sender,
                                           .before = old,
                                           .after = new,
                                           .tls = before != NULL &&after != NULL
                                                      ? tls_change(before, after)
                                                      : BH_TLS_SAME});
    }
}

static void diff_rules(struct diffing *d)
{
    for (const struct bh_rule_list *list = d->after->priv->first_rule; list != NULL;
         list = list->next) {
        diff_rule(d, list);
    }
    for (const struct bh_rule_list *list = d->before->priv->first_rule; list != NULL;
         list = list->next) {
        if (bh_map_find(&d->after->priv->rules, list->node.key) == NULL) {
            diff_rule(d, list);
        }
    }
}

/* ---- listeners ---- */

static const struct bh_listen_config *same_listen(const struct bh_config *config,
                                                  const struct bh_listen_config *listen)
{
    for (size_t i = 0; i < config->listens_count; i++) {
        if (bh_slice_eq(config->listens[i].text, listen->text)) {
            return &config->listens[i];
        }
    }
    return NULL;
}

static void diff_listens(struct diffing *d)
{
    for (size_t i = 0; i < d->before->listens_count; i++) {
        const struct bh_listen_config *before = &d->before->listens[i];
        const struct bh_listen_config *after = same_listen(d->after, before);
        if (after == NULL) {
            tell(d, &(struct bh_config_change){.kind = BH_CHANGE_SETTING,
                                               .setting = BH_LIT("listen"),
                                               .before = before->text});
            continue;
        }
        struct place place = {.connector = BH_EMPTY};
        snprintf(place.path, sizeof(place.path), "listen %.100s ", before->text.ptr);
        diff_block(d, &bh_schema_listen, before, after, &place, 0);
    }
    for (size_t i = 0; i < d->after->listens_count; i++) {
        if (same_listen(d->before, &d->after->listens[i]) == NULL) {
            tell(d, &(struct bh_config_change){.kind = BH_CHANGE_SETTING,
                                               .setting = BH_LIT("listen"),
                                               .after = d->after->listens[i].text});
        }
    }
}

size_t bh_config_diff(const struct bh_config *before, const struct bh_config *after,
                      void (*tell_)(void *ctx, const struct bh_config_change *change), void *ctx)
{
    struct diffing d = {.before = before, .after = after, .tell = tell_, .ctx = ctx};
    d.texts[0] = bh_buf(malloc(SCRATCH_FIRST), SCRATCH_FIRST);
    d.texts[1] = bh_buf(malloc(SCRATCH_FIRST), SCRATCH_FIRST);
    if (d.texts[0].ptr == NULL || d.texts[1].ptr == NULL) {
        d.untold = true;
    } else {
        const struct place engine = {.path = "engine "};
        const struct place queue = {.path = "queue "};
        const struct place resolver = {.path = "resolver "};
        diff_block(&d, &bh_schema_engine, &before->engine, &after->engine, &engine, 0);
        diff_block(&d, &bh_schema_queue, &before->queue, &after->queue, &queue, 0);
        diff_block(&d, &bh_schema_resolver, &before->resolver, &after->resolver, &resolver, 0);
        diff_listens(&d);
        diff_connectors(&d);
        diff_rules(&d);
    }
    free(d.texts[0].ptr);
    free(d.texts[1].ptr);
    return d.untold ? SIZE_MAX : d.weaker; /* what can't be told counts as weaker */
}
