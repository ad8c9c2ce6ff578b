#include "bh/sts.h"

#include "bh/buf.h"

const char *bh_sts_mode_name(enum bh_sts_mode mode)
{
    switch (mode) {
    case BH_STS_MODE_NONE:
        return "none";
    case BH_STS_MODE_TESTING:
        return "testing";
    case BH_STS_MODE_ENFORCE:
        return "enforce";
    }
    return "?";
}

const char *bh_sts_origin_name(enum bh_sts_origin origin)
{
    switch (origin) {
    case BH_STS_NOT_PUBLISHED:
        return "not-published";
    case BH_STS_NO_ANSWER:
        return "no-answer";
    case BH_STS_UNAVAILABLE:
        return "unavailable";
    case BH_STS_FROM_CACHE:
        return "cache";
    case BH_STS_FETCHED:
        return "fetched";
    case BH_STS_UNKNOWN:
        return "unknown";
    }
    return "?";
}

/* ---- the record (section 3.1) ---- */

static bool is_alphanum(char c)
{
    return bh_is_alpha(c) || bh_is_digit(c);
}

/* 1 to 32 of letters, digits and, behind the first, "_", "-" and ".". */
static bool is_field_name(struct bh_slice name)
{
    if (name.len == 0 || name.len > 32 || !is_alphanum(name.ptr[0])) {
        return false;
    }
    for (size_t i = 1; i < name.len; i++) {
        const char c = name.ptr[i];
        if (!is_alphanum(c) && c != '_' && c != '-' && c != '.') {
            return false;
        }
    }
    return true;
}

static bool is_id(struct bh_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        if (!is_alphanum(value.ptr[i])) {
            return false;
        }
    }
    return value.len > 0 && value.len <= BH_STS_ID_MAX;
}

static bool is_txt_value(struct bh_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.ptr[i];
        if (c < 0x21 || c > 0x7e || c == '=' || c == ';') {
            return false;
        }
    }
    return value.len > 0;
}

/* The rest behind "v=STSv1" and its semicolon; RFC 8461 allows blanks between the two. */
static bool is_ours(struct bh_slice record, struct bh_slice *rest)
{
    const struct bh_slice version = BH_LIT("v=STSv1");
    if (!bh_slice_starts(record, version)) {
        return false;
    }
    const struct bh_slice tail = bh_slice_trim(bh_slice_skip(record, version.len));
    *rest = bh_slice_skip(tail, 1);
    return tail.len > 0 && tail.ptr[0] == ';';
}

static enum bh_status read_fields(struct bh_slice rest, struct bh_slice *id, const char **why)
{
    bool found = false;
    while (bh_slice_trim(rest).len > 0) {
        const size_t len = bh_slice_find(rest, ';');
        const struct bh_slice field = bh_slice_trim(bh_slice_take(rest, len));
        rest = bh_slice_skip(rest, len + 1);
        const size_t equals = bh_slice_find(field, '=');
        const struct bh_slice name = bh_slice_take(field, equals);
        const struct bh_slice value = bh_slice_skip(field, equals + 1);
        if (!is_field_name(name) || !is_txt_value(value)) {
            *why = "the record breaks its grammar";
            return BH_EPROTO;
        }
        if (bh_slice_eq(name, BH_LIT("id")) && !found) {
            if (!is_id(value)) {
                *why = "its id is not 1 to 32 letters and digits";
                return BH_EPROTO;
            }
            *id = value;
            found = true;
        }
    }
    if (!found) {
        *why = "the record has no id";
        return BH_EPROTO;
    }
    return BH_OK;
}

enum bh_status bh_sts_read_txt(const struct bh_slice *records, size_t count, struct bh_slice *id,
                               const char **why)
{
    struct bh_slice rest = BH_EMPTY;
    size_t ours = 0;
    for (size_t i = 0; i < count; i++) {
        if (is_ours(records[i], &rest)) {
            ours++;
        }
    }
    if (ours == 0) {
        *why = "no MTA-STS record";
        return BH_ENOTFOUND;
    }
    if (ours > 1) {
        *why = "several MTA-STS records";
        return BH_EPROTO;
    }
    for (size_t i = 0; !is_ours(records[i], &rest); i++) {
        /* The one that there is. */
    }
    struct bh_slice found = BH_EMPTY;
    const enum bh_status status = read_fields(rest, &found, why);
    if (status == BH_OK) {
        *id = found;
    }
    return status;
}

/* ---- hosts and patterns (section 4.1) ---- */

bool bh_sts_pattern_matches(struct bh_slice pattern, struct bh_slice host)
{
    if (host.len > 0 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len == 0) {
        return false;
    }
    if (!bh_slice_starts(pattern, BH_LIT("*."))) {
        return bh_slice_eq_nocase(pattern, host);
    }
    const size_t dot = bh_slice_find(host, '.');
    return dot > 0 && dot < host.len &&
           bh_slice_eq_nocase(bh_slice_skip(pattern, 1), bh_slice_skip(host, dot));
}

bool bh_sts_policy_matches(const struct bh_sts_policy *policy, struct bh_slice host)
{
    for (size_t i = 0; i < policy->mx_count; i++) {
        if (bh_sts_pattern_matches(policy->mx[i], host)) {
            return true;
        }
    }
    return false;
}

/* ---- what is in force ---- */

enum bh_status bh_sts_fact_copy(const struct bh_sts_fact *fact, struct bh_arena *arena,
                                struct bh_sts_fact *copy)
{
    struct bh_sts_fact to = *fact;
    struct bh_slice *mx = NULL;
    if (fact->policy.mx_count > 0) {
        mx = bh_arena_alloc(arena, fact->policy.mx_count * sizeof(*mx));
        if (mx == NULL) {
            return BH_ENOMEM;
        }
        for (size_t i = 0; i < fact->policy.mx_count; i++) {
            if (!bh_arena_copy(arena, fact->policy.mx[i], &mx[i])) {
                return BH_ENOMEM;
            }
        }
    }
    to.policy.mx = mx;
    if (!bh_arena_copy(arena, fact->id, &to.id) ||
        !bh_arena_copy(arena, fact->trouble, &to.trouble)) {
        return BH_ENOMEM;
    }
    *copy = to;
    return BH_OK;
}
