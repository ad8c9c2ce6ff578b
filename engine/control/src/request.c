/* Requests: JSON in, a checked struct out. What a verb takes is one table; everything else is
 * refused with the names that would do. */
#include "bh/control.h"

#include <jansson.h>
#include <stdio.h>

#include "bh/queue_id.h"

enum arg {
    ARG_IDS,
    ARG_DESTINATION,
    ARG_CONNECTOR,
    ARG_SENDER,
    ARG_RECIPIENT,
    ARG_OLDER,
    ARG_YOUNGER,
    ARG_STATE,
    ARG_ALL,
    ARG_REASON,
    ARG_UNTIL,
    ARG_DRY_RUN,
    ARG_PLAN,
    ARG_ALLOW_WEAKEN,
    ARG_CONTENT,
    ARG_MATRIX,
    ARG_ADDRESS,
    ARG_NAME,
    ARG_SIZE,
    ARG_TOP,
    ARG_LIMIT,
    ARG_SINCE,
    ARG_REQUIRE,
};
#define ARG_COUNT (ARG_REQUIRE + 1)
#define BIT(arg) (1U << (arg))
#define SELECTION                                                                 \
    (BIT(ARG_IDS) | BIT(ARG_DESTINATION) | BIT(ARG_CONNECTOR) | BIT(ARG_SENDER) | \
     BIT(ARG_RECIPIENT) | BIT(ARG_OLDER) | BIT(ARG_YOUNGER) | BIT(ARG_STATE) | BIT(ARG_ALL))

static const char *const arg_names[ARG_COUNT] = {
    [ARG_IDS] = "ids",
    [ARG_DESTINATION] = "destination",
    [ARG_CONNECTOR] = "connector",
    [ARG_SENDER] = "sender",
    [ARG_RECIPIENT] = "recipient",
    [ARG_OLDER] = "older_ms",
    [ARG_YOUNGER] = "younger_ms",
    [ARG_STATE] = "state",
    [ARG_ALL] = "all",
    [ARG_REASON] = "reason",
    [ARG_UNTIL] = "until_unix_ms",
    [ARG_DRY_RUN] = "dry_run",
    [ARG_PLAN] = "plan",
    [ARG_ALLOW_WEAKEN] = "allow_weaken",
    [ARG_CONTENT] = "content",
    [ARG_MATRIX] = "matrix",
    [ARG_ADDRESS] = "address",
    [ARG_NAME] = "name",
    [ARG_SIZE] = "size",
    [ARG_TOP] = "top",
    [ARG_LIMIT] = "limit",
    [ARG_SINCE] = "since_unix_ms",
    [ARG_REQUIRE] = "require",
};

static const struct {
    const char *name;
    unsigned takes;
    unsigned needs; /* all of these */
    bool view;
    bool needs_selection; /* any condition, or "all" */
} verbs[BH_VERB_COUNT] = {
    [BH_VERB_STATUS] = {"status", 0, 0, true, false},
    /* Its rows are destinations: what selects single messages would not be kept. */
    [BH_VERB_QUEUE] = {"queue",
                       BIT(ARG_DESTINATION) | BIT(ARG_CONNECTOR) | BIT(ARG_ALL) | BIT(ARG_TOP), 0,
                       true, false},
    [BH_VERB_LIST] = {"list", SELECTION | BIT(ARG_LIMIT), 0, true, false},
    [BH_VERB_SHOW] = {"show", BIT(ARG_IDS) | BIT(ARG_CONTENT), BIT(ARG_IDS), true, false},
    [BH_VERB_WHY] = {"why", BIT(ARG_IDS), BIT(ARG_IDS), true, false},
    [BH_VERB_CONNECTORS] = {"connectors", BIT(ARG_NAME) | BIT(ARG_MATRIX), 0, true, false},
    [BH_VERB_EXPLAIN] = {"explain", BIT(ARG_ADDRESS) | BIT(ARG_SENDER) | BIT(ARG_SIZE),
                         BIT(ARG_ADDRESS), true, false},
    [BH_VERB_VERIFY] = {"verify", 0, 0, true, false},
    [BH_VERB_AUDIT] = {"audit",
                       BIT(ARG_CONNECTOR) | BIT(ARG_SINCE) | BIT(ARG_UNTIL) | BIT(ARG_REQUIRE), 0,
                       true, false},
    [BH_VERB_POLICY] = {"policy", BIT(ARG_ADDRESS), BIT(ARG_ADDRESS), true, false},
    [BH_VERB_FLUSH] = {"flush", SELECTION | BIT(ARG_DRY_RUN), 0, false, true},
    [BH_VERB_HOLD] = {"hold", SELECTION | BIT(ARG_REASON) | BIT(ARG_UNTIL) | BIT(ARG_DRY_RUN), 0,
                      false, true},
    [BH_VERB_RELEASE] = {"release", SELECTION | BIT(ARG_REASON) | BIT(ARG_DRY_RUN), 0, false, true},
    [BH_VERB_CANCEL] = {"cancel", SELECTION | BIT(ARG_REASON) | BIT(ARG_DRY_RUN), 0, false, true},
    [BH_VERB_BOUNCE] = {"bounce", SELECTION | BIT(ARG_REASON) | BIT(ARG_DRY_RUN), 0, false, true},
    [BH_VERB_REQUEUE] = {"requeue", SELECTION | BIT(ARG_REASON) | BIT(ARG_DRY_RUN), 0, false, true},
    [BH_VERB_PAUSE] = {"pause", BIT(ARG_REASON), 0, false, false},
    [BH_VERB_RESUME] = {"resume", 0, 0, false, false},
    [BH_VERB_RELOAD] = {"reload", BIT(ARG_PLAN) | BIT(ARG_ALLOW_WEAKEN), 0, false, false},
    [BH_VERB_JOBS] = {"jobs", 0, 0, false, false},
    [BH_VERB_PROBE] = {"probe", BIT(ARG_ADDRESS) | BIT(ARG_SENDER), BIT(ARG_ADDRESS), false, false},
};

const char *bh_control_verb_name(enum bh_control_verb verb)
{
    BH_ASSERT(verb < BH_VERB_COUNT);
    return verbs[verb].name;
}

bool bh_control_verb_find(struct bh_slice name, enum bh_control_verb *verb)
{
    for (size_t i = 0; i < BH_VERB_COUNT; i++) {
        if (bh_slice_eq(name, bh_slice_str(verbs[i].name))) {
            *verb = (enum bh_control_verb)i;
            return true;
        }
    }
    return false;
}

bool bh_control_verb_is_view(enum bh_control_verb verb)
{
    BH_ASSERT(verb < BH_VERB_COUNT);
    return verbs[verb].view;
}

bool bh_control_needs_act(const struct bh_control_request *request)
{
    return !bh_control_verb_is_view(request->verb) && request->verb != BH_VERB_JOBS &&
           !request->dry_run && !request->plan;
}

static enum bh_status refuse(struct bh_control_error *error, const char *what, struct bh_slice name)
{
    snprintf(error->what, sizeof(error->what), "%s '%.*s'", what, BH_FMT(bh_slice_take(name, 80)));
    error->hint[0] = 0;
    return BH_EPROTO;
}

/* "allowed: a, b, c", cut to the room. */
static void hint_args(struct bh_control_error *error, enum bh_control_verb verb)
{
    struct bh_buf buf = bh_buf(error->hint, sizeof(error->hint) - 1);
    bh_buf_add_cut(&buf,
                   bh_slice_str(verbs[verb].takes == 0 ? "it takes no arguments" : "allowed: "));
    bool first = true;
    for (size_t i = 0; i < ARG_COUNT; i++) {
        if ((verbs[verb].takes & BIT(i)) != 0) {
            bh_buf_add_cut(&buf, first ? BH_EMPTY : BH_LIT(", "));
            bh_buf_add_cut(&buf, bh_slice_str(arg_names[i]));
            first = false;
        }
    }
    error->hint[buf.len] = 0;
}

/* What would have been right. */
static const char *expected(enum arg arg)
{
    switch (arg) {
    case ARG_IDS:
        return "expected queue ids, as bhctl list shows them, at most 64";
    case ARG_STATE:
        return "expected ready, due or held";
    case ARG_REQUIRE:
        return "expected tls or authenticated";
    case ARG_OLDER:
    case ARG_YOUNGER:
    case ARG_UNTIL:
    case ARG_SINCE:
    case ARG_SIZE:
    case ARG_TOP:
    case ARG_LIMIT:
        return "expected a whole number, not below 0";
    case ARG_ALL:
    case ARG_DRY_RUN:
    case ARG_PLAN:
    case ARG_ALLOW_WEAKEN:
    case ARG_CONTENT:
    case ARG_MATRIX:
        return "expected true or false";
    case ARG_DESTINATION:
    case ARG_CONNECTOR:
    case ARG_SENDER:
    case ARG_RECIPIENT:
    case ARG_REASON:
    case ARG_ADDRESS:
    case ARG_NAME:
        break;
    }
    return "expected text, at most 1000 octets";
}

static struct bh_slice text_of(const json_t *value)
{
    return bh_slice(json_string_value(value), json_string_length(value));
}

static bool get_text(const json_t *value, struct bh_slice *out)
{
    if (!json_is_string(value) || json_string_length(value) > 1000) {
        return false;
    }
    *out = text_of(value);
    return true;
}

static bool get_bool(const json_t *value, bool *out)
{
    *out = json_is_true(value);
    return json_is_boolean(value);
}

/* A whole number from 0 to 2^53, what every JSON program can hold. */
static bool get_number(const json_t *value, int64_t *out)
{
    *out = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
    return *out >= 0 && *out <= INT64_C(1) << 53;
}

static bool get_count(const json_t *value, uint64_t *out)
{
    int64_t number = 0;
    const bool good = get_number(value, &number);
    *out = good ? (uint64_t)number : 0;
    return good;
}

static bool get_ids(const json_t *value, struct bh_selection *s)
{
    const size_t count = json_array_size(value); /* 0 if it is no array */
    if (count == 0 || count > BH_SELECTION_IDS_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_string(id) || !bh_queue_id_parse(text_of(id), &s->ids[i])) {
            return false;
        }
    }
    s->id_count = (uint32_t)count;
    return true;
}

static bool get_state(const json_t *value, unsigned *states)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"ready", BH_SELECT_READY}, {"due", BH_SELECT_DUE}, {"held", BH_SELECT_HELD}};
    for (size_t i = 0; i < BH_COUNT(names) && json_is_string(value); i++) {
        if (bh_slice_eq(text_of(value), bh_slice_str(names[i].name))) {
            *states = names[i].bit;
            return true;
        }
    }
    return false;
}

static bool get_age(const json_t *value, int64_t now_unix_ms, int64_t *arrived)
{
    int64_t span = 0;
    if (!get_number(value, &span)) {
        return false;
    }
    *arrived = now_unix_ms - span;
    return true;
}

static bool get_require(const json_t *value, enum bh_require *require)
{
    const struct bh_slice text = json_is_string(value) ? text_of(value) : BH_EMPTY;
    if (bh_slice_eq(text, BH_LIT("tls"))) {
        *require = BH_REQUIRE_TLS;
    } else if (bh_slice_eq(text, BH_LIT("authenticated"))) {
        *require = BH_REQUIRE_AUTHENTICATED;
    } else {
        return false;
    }
    return true;
}

static bool get_arg(struct bh_control_request *r, enum arg arg, const json_t *value,
                    int64_t now_unix_ms)
{
    struct bh_selection *s = &r->selection;
    switch (arg) {
    case ARG_IDS:
        return get_ids(value, s);
    case ARG_DESTINATION:
        return get_text(value, &s->domain);
    case ARG_CONNECTOR:
        return get_text(value, &s->connector);
    case ARG_SENDER:
        return get_text(value, r->verb == BH_VERB_EXPLAIN || r->verb == BH_VERB_PROBE ? &r->sender
                                                                                      : &s->sender);
    case ARG_RECIPIENT:
        return get_text(value, &s->recipient);
    case ARG_OLDER:
        return get_age(value, now_unix_ms, &s->arrived_to_unix_ms);
    case ARG_YOUNGER:
        return get_age(value, now_unix_ms, &s->arrived_from_unix_ms);
    case ARG_STATE:
        return get_state(value, &s->states);
    case ARG_ALL:
        return get_bool(value, &r->all);
    case ARG_REASON:
        return get_text(value, &r->reason);
    case ARG_UNTIL:
        return get_number(value, &r->until_unix_ms);
    case ARG_DRY_RUN:
        return get_bool(value, &r->dry_run);
    case ARG_PLAN:
        return get_bool(value, &r->plan);
    case ARG_ALLOW_WEAKEN:
        return get_bool(value, &r->allow_weaken);
    case ARG_CONTENT:
        return get_bool(value, &r->content);
    case ARG_MATRIX:
        return get_bool(value, &r->matrix);
    case ARG_ADDRESS:
        return get_text(value, &r->address);
    case ARG_NAME:
        return get_text(value, &r->name);
    case ARG_SIZE:
        return get_count(value, &r->size);
    case ARG_TOP:
        return get_count(value, &r->top);
    case ARG_LIMIT:
        return get_count(value, &r->limit);
    case ARG_SINCE:
        return get_number(value, &r->since_unix_ms);
    case ARG_REQUIRE:
        return get_require(value, &r->require);
    }
    return false;
}

static enum bh_status get_args(struct bh_control_request *r, json_t *args, int64_t now_unix_ms,
                               struct bh_control_error *error)
{
    unsigned seen = 0;
    const char *key;
    json_t *value;
    json_object_foreach(args, key, value)
    {
        size_t arg = 0;
        while (arg < ARG_COUNT && strcmp(key, arg_names[arg]) != 0) {
            arg++;
        }
        if (arg == ARG_COUNT || (verbs[r->verb].takes & BIT(arg)) == 0) {
            refuse(error, "unknown argument", bh_slice_str(key));
            hint_args(error, r->verb);
            return BH_EPROTO;
        }
        if (!get_arg(r, (enum arg)arg, value, now_unix_ms)) {
            refuse(error, "bad value of argument", bh_slice_str(key));
            snprintf(error->hint, sizeof(error->hint), "%s", expected((enum arg)arg));
            return BH_EPROTO;
        }
        seen |= BIT(arg);
    }
    r->selected = (seen & SELECTION & ~BIT(ARG_ALL)) != 0 && r->verb != BH_VERB_EXPLAIN &&
                  r->verb != BH_VERB_PROBE;
    if ((seen & verbs[r->verb].needs) != verbs[r->verb].needs) {
        refuse(error, "an argument is missing for", bh_slice_str(verbs[r->verb].name));
        hint_args(error, r->verb);
        return BH_EPROTO;
    }
    if (verbs[r->verb].needs_selection && !r->selected && !r->all) {
        refuse(error, "nothing is selected for", bh_slice_str(verbs[r->verb].name));
        snprintf(error->hint, sizeof(error->hint),
                 "give a selection, or say that all mail is meant (--all)");
        return BH_EPROTO;
    }
    return BH_OK;
}

static enum bh_status get_request(struct bh_control_request *r, json_t *root, int64_t now_unix_ms,
                                  struct bh_control_error *error)
{
    const json_t *verb = json_object_get(root, "verb");
    json_t *args = json_object_get(root, "args");
    if (!json_is_string(verb) || json_object_size(root) != (args != NULL ? 2U : 1U) ||
        (args != NULL && !json_is_object(args))) {
        refuse(error, "no request", BH_LIT(""));
        snprintf(error->hint, sizeof(error->hint), "expected {\"verb\":\"..\",\"args\":{..}}");
        return BH_EPROTO;
    }
    if (!bh_control_verb_find(text_of(verb), &r->verb)) {
        refuse(error, "unknown verb", text_of(verb));
        snprintf(error->hint, sizeof(error->hint), "see bhctl help");
        return BH_EPROTO;
    }
    return get_args(r, args, now_unix_ms, error);
}

enum bh_status bh_control_parse(struct bh_slice line, int64_t now_unix_ms,
                                struct bh_control_request *request, struct bh_control_error *error)
{
    memset(request, 0, sizeof(*request));
    memset(error, 0, sizeof(*error));
    bh_selection_init(&request->selection);
    json_error_t where;
    json_t *root = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL) {
        snprintf(error->what, sizeof(error->what), "not a JSON object: %.120s (column %d)",
                 where.text, where.column);
        return json_error_code(&where) == json_error_out_of_memory ? BH_ENOMEM : BH_EPROTO;
    }
    request->json = root;
    const enum bh_status status = get_request(request, root, now_unix_ms, error);
    if (status != BH_OK) {
        bh_control_request_fini(request);
    }
    return status;
}

void bh_control_request_fini(struct bh_control_request *request)
{
    json_decref(request->json);
    memset(request, 0, sizeof(*request));
}
