#include "bh/event_line.h"

#include "bh/queue_id.h"

struct field {
    struct bh_slice key, value; /* without quotes */
    bool is_text;
};

struct walk {
    struct bh_slice rest;
    bool first, bad;
};

static bool take(struct walk *w, char c)
{
    if (w->rest.len == 0 || w->rest.ptr[0] != c) {
        return false;
    }
    w->rest = bh_slice_skip(w->rest, 1);
    return true;
}

/* Behind the opening quote, to behind the closing one. */
static bool take_text(struct walk *w, struct bh_slice *text)
{
    for (size_t i = 0; i < w->rest.len; i++) {
        if (w->rest.ptr[i] == '\\') {
            i++;
        } else if (w->rest.ptr[i] == '"') {
            *text = bh_slice_take(w->rest, i);
            w->rest = bh_slice_skip(w->rest, i + 1);
            return true;
        } else if ((unsigned char)w->rest.ptr[i] < 0x20) {
            return false;
        }
    }
    return false;
}

static bool take_word(struct walk *w, struct bh_slice *word)
{
    size_t len = 0;
    while (len < w->rest.len && (bh_is_alpha(w->rest.ptr[len]) || bh_is_digit(w->rest.ptr[len]) ||
                                 w->rest.ptr[len] == '-' || w->rest.ptr[len] == '.')) {
        len++;
    }
    *word = bh_slice_take(w->rest, len);
    w->rest = bh_slice_skip(w->rest, len);
    return len > 0;
}

/* @return false at the end, or at what is no field: then w->bad */
static bool next_field(struct walk *w, struct field *f)
{
    if (take(w, '}')) {
        w->bad = w->rest.len > 0;
        return false;
    }
    w->bad = true;
    if ((!w->first && !take(w, ',')) || !take(w, '"') || !take_text(w, &f->key) || !take(w, ':')) {
        return false;
    }
    w->first = false;
    f->is_text = take(w, '"');
    w->bad = !(f->is_text ? take_text(w, &f->value) : take_word(w, &f->value));
    return !w->bad;
}

static struct walk start(struct bh_slice line)
{
    struct walk w = {.rest = line, .first = true};
    w.bad = !take(&w, '{');
    return w;
}

static bool find(struct bh_slice line, const char *key, struct field *f)
{
    struct walk w = start(line);
    while (!w.bad && next_field(&w, f)) {
        if (bh_slice_eq(f->key, bh_slice_str(key))) {
            return true;
        }
    }
    return false;
}

bool bh_event_well_formed(struct bh_slice line)
{
    struct field f;
    struct walk w = start(line);
    while (!w.bad && next_field(&w, &f)) {
    }
    return !w.bad;
}

bool bh_event_text(struct bh_slice line, const char *key, struct bh_slice *value)
{
    struct field f;
    if (!find(line, key, &f) || !f.is_text) {
        return false;
    }
    *value = f.value;
    return true;
}

bool bh_event_number(struct bh_slice line, const char *key, uint64_t *value)
{
    struct field f;
    return find(line, key, &f) && !f.is_text && bh_slice_u64(f.value, UINT64_MAX, value);
}

bool bh_event_id(struct bh_slice line, uint64_t *id)
{
    struct bh_slice text;
    return bh_event_text(line, "msg", &text) && bh_queue_id_parse(text, id);
}
