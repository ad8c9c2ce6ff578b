/* The policy file of RFC 8461 section 3.2. The grammar gives its fields no order. */
#include "bh/buf.h"
#include "bh/sts.h"

struct reading {
    struct bh_arena *arena;
    const char *why;
    bool version, mode, max_age; /* seen */
    struct bh_sts_policy policy;
    struct bh_slice *mx;
    size_t mx_octets;
};

static enum bh_status refuse(struct reading *r, const char *why)
{
    r->why = why;
    return BH_EPROTO;
}

static bool is_name(struct bh_slice name)
{
    if (name.len == 0 || name.len > 32 || !(bh_is_alpha(name.ptr[0]) || bh_is_digit(name.ptr[0]))) {
        return false;
    }
    for (size_t i = 1; i < name.len; i++) {
        const char c = name.ptr[i];
        if (!bh_is_alpha(c) && !bh_is_digit(c) && c != '_' && c != '-' && c != '.') {
            return false;
        }
    }
    return true;
}

/* No control octets; octets outside ASCII may be there (UTF-8 in a field that we don't know). */
static bool is_value(struct bh_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        const unsigned char c = (unsigned char)value.ptr[i];
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    return value.len > 0;
}

static enum bh_status on_mode(struct reading *r, struct bh_slice value)
{
    for (enum bh_sts_mode mode = BH_STS_MODE_NONE; mode <= BH_STS_MODE_ENFORCE; mode++) {
        if (bh_slice_eq(value, bh_slice_str(bh_sts_mode_name(mode)))) {
            r->policy.mode = mode;
            return BH_OK;
        }
    }
    return refuse(r, "its mode is none of enforce, testing, none");
}

static enum bh_status on_max_age(struct reading *r, struct bh_slice value)
{
    uint64_t age = 0;
    if (value.len > 10 || !bh_slice_u64(value, UINT64_MAX, &age)) {
        return refuse(r, "its max_age is not a number of 1 to 10 digits");
    }
    r->policy.max_age_s = age < BH_STS_MAX_AGE_S ? age : BH_STS_MAX_AGE_S;
    return BH_OK;
}

/* A domain of RFC 5321 section 4.1.2, which "*." may lead. */
static bool is_pattern(struct bh_slice value)
{
    if (bh_slice_starts(value, BH_LIT("*."))) {
        value = bh_slice_skip(value, 2);
    }
    if (value.len == 0 || value.len > 253) {
        return false;
    }
    size_t label = 0;
    for (size_t i = 0; i <= value.len; i++) {
        const char c = i < value.len ? value.ptr[i] : '.';
        if (c == '.') {
            if (label == 0 || label > 63 || value.ptr[i - 1] == '-' ||
                value.ptr[i - label] == '-') {
                return false;
            }
            label = 0;
        } else if (bh_is_alpha(c) || bh_is_digit(c) || c == '-' || c == '_') {
            label++;
        } else {
            return false;
        }
    }
    return true;
}

static enum bh_status on_mx(struct reading *r, struct bh_slice value)
{
    if (!is_pattern(value)) {
        return refuse(r, "one of its mx is neither a host nor \"*.\" and a domain");
    }
    for (size_t i = 0; i < r->policy.mx_count; i++) {
        if (bh_slice_eq_nocase(r->mx[i], value)) {
            return BH_OK;
        }
    }
    if (r->policy.mx_count == BH_STS_MX_MAX || r->mx_octets + value.len > BH_STS_MX_OCTETS_MAX) {
        r->why = "it has too many mx";
        return BH_ELIMIT;
    }
    if (r->mx == NULL) {
        r->mx = bh_arena_alloc(r->arena, BH_STS_MX_MAX * sizeof(*r->mx));
    }
    char *text = r->mx != NULL ? bh_arena_alloc(r->arena, value.len) : NULL;
    if (text == NULL) {
        r->why = "no memory";
        return BH_ENOMEM;
    }
    for (size_t i = 0; i < value.len; i++) {
        text[i] = bh_lower(value.ptr[i]);
    }
    r->mx[r->policy.mx_count++] = bh_slice(text, value.len);
    r->mx_octets += value.len;
    return BH_OK;
}

/* Of every field but mx the first counts. */
static bool first(bool *seen)
{
    const bool is_first = !*seen;
    *seen = true;
    return is_first;
}

static enum bh_status on_line(struct reading *r, struct bh_slice line)
{
    const size_t colon = bh_slice_find(line, ':');
    const struct bh_slice name = bh_slice_take(line, colon);
    const struct bh_slice value = bh_slice_trim(bh_slice_skip(line, colon + 1));
    if (colon == line.len || !is_name(name) || !is_value(value)) {
        return refuse(r, "one of its lines is not \"name: value\"");
    }
    if (bh_slice_eq(name, BH_LIT("mx"))) {
        return on_mx(r, value);
    }
    if (bh_slice_eq(name, BH_LIT("version")) && first(&r->version)) {
        return bh_slice_eq(value, BH_LIT("STSv1")) ? BH_OK : refuse(r, "its version is not STSv1");
    }
    if (bh_slice_eq(name, BH_LIT("mode")) && first(&r->mode)) {
        return on_mode(r, value);
    }
    if (bh_slice_eq(name, BH_LIT("max_age")) && first(&r->max_age)) {
        return on_max_age(r, value);
    }
    return BH_OK;
}

static enum bh_status read_lines(struct reading *r, struct bh_slice body)
{
    while (body.len > 0) {
        const size_t len = bh_slice_find(body, '\n');
        struct bh_slice line = bh_slice_take(body, len);
        body = bh_slice_skip(body, len + 1);
        if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        /* Empty lines are beyond the grammar, and harmless: editors leave them at the end. */
        if (bh_slice_trim(line).len > 0) {
            const enum bh_status status = on_line(r, line);
            if (status != BH_OK) {
                return status;
            }
        }
    }
    if (!r->version || !r->mode || !r->max_age) {
        return refuse(r, !r->version ? "it has no version"
                         : !r->mode  ? "it has no mode"
                                     : "it has no max_age");
    }
    if (r->policy.mode != BH_STS_MODE_NONE && r->policy.mx_count == 0) {
        return refuse(r, "it has no mx");
    }
    return BH_OK;
}

enum bh_status bh_sts_read_policy(struct bh_slice body, struct bh_arena *arena,
                                  struct bh_sts_policy *policy, const char **why)
{
    struct reading r = {.arena = arena, .why = "it is too large"};
    const enum bh_status status = body.len > BH_STS_POLICY_MAX ? BH_ELIMIT : read_lines(&r, body);
    if (status != BH_OK) {
        *why = r.why;
        return status;
    }
    r.policy.mx = r.mx;
    *policy = r.policy;
    return BH_OK;
}

bool bh_sts_content_type_ok(struct bh_slice value)
{
    const size_t end = bh_slice_find(value, ';');
    return bh_slice_eq_nocase(bh_slice_trim(bh_slice_take(value, end)), BH_LIT("text/plain"));
}
