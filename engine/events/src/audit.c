#include "bh/audit.h"

#include <stdlib.h>

#include "bh/event_line.h"

void bh_audit_init(struct bh_audit *a, struct bh_slice connector, uint64_t since_unix_ms,
                   uint64_t until_unix_ms)
{
    *a = (struct bh_audit){
        .connector = connector, .since_unix_ms = since_unix_ms, .until_unix_ms = until_unix_ms};
}

void bh_audit_fini(struct bh_audit *a)
{
    while (a->first != NULL) {
        struct bh_audit_count *next = a->first->next;
        free(a->first);
        a->first = next;
    }
    bh_map_fini(&a->counts);
}

const char *bh_audit_what_text(enum bh_audit_what what)
{
    switch (what) {
    case BH_AUDIT_FINE:
        return "fine";
    case BH_AUDIT_BROKEN:
        return "this record was changed, or does not follow from the one before it";
    case BH_AUDIT_UNSEALED:
        return "a delivery that is not in the chain";
    case BH_AUDIT_DAMAGED:
        return "this line is no event";
    }
    return "";
}

static struct bh_audit_count *count_of(struct bh_audit *a, struct bh_slice name)
{
    name = bh_slice_take(name, BH_AUDIT_NAME_MAX);
    struct bh_map_node *node = bh_map_find(&a->counts, name);
    if (node != NULL) {
        return BH_CONTAINER(node, struct bh_audit_count, node);
    }
    struct bh_audit_count *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    memcpy(c->name_text, name.ptr, name.len);
    c->name = bh_slice(c->name_text, name.len);
    c->node.key = c->name;
    if (bh_map_insert(&a->counts, &c->node) != BH_OK) {
        free(c);
        return NULL;
    }
    if (a->last != NULL) {
        a->last->next = c;
    } else {
        a->first = c;
    }
    a->last = c;
    return c;
}

static enum bh_status count_delivery(struct bh_audit *a, struct bh_slice line)
{
    struct bh_slice connector = BH_EMPTY;
    struct bh_slice auth = BH_EMPTY;
    uint64_t time = 0;
    (void)bh_event_number(line, "time", &time);
    (void)bh_event_text(line, "connector", &connector);
    (void)bh_event_text(line, "auth", &auth);
    if (time < a->since_unix_ms || time > a->until_unix_ms ||
        (a->connector.len > 0 && !bh_slice_eq(connector, a->connector))) {
        return BH_OK;
    }
    struct bh_audit_count *c = count_of(a, connector);
    if (c == NULL) {
        return BH_ENOMEM;
    }
    c->delivered++;
    if (bh_slice_eq(auth, BH_LIT("name"))) {
        c->by_name++;
    } else if (bh_slice_eq(auth, BH_LIT("pin"))) {
        c->by_pin++;
    } else if (bh_slice_eq(auth, BH_LIT("dane"))) {
        c->by_dane++;
    } else if (bh_slice_eq(auth, BH_LIT("unauthenticated"))) {
        c->unauthenticated++;
    } else {
        c->clear++; /* a word that is not known proves nothing */
    }
    c->first_unix_ms = c->first_unix_ms == 0 ? time : c->first_unix_ms;
    c->last_unix_ms = time > c->last_unix_ms ? time : c->last_unix_ms;
    return BH_OK;
}

/* What the log says of itself. */
static void note_process(struct bh_audit *a, struct bh_slice line)
{
    struct bh_slice what = BH_EMPTY;
    struct bh_slice segment = BH_EMPTY;
    uint64_t at = 0;
    (void)bh_event_text(line, "what", &what);
    if (bh_slice_eq(what, BH_LIT("begin"))) {
        /* The first line of a log begins a segment; a process before it there was none. */
        a->crashes += a->ended || a->records <= 2 ? 0 : 1;
        a->ended = false;
        if (a->torn_pending && bh_event_text(line, "torn_in", &segment) &&
            bh_event_number(line, "torn_at", &at) && at == a->torn_offset &&
            bh_slice_eq(segment, bh_slice_str(a->torn_segment))) {
            a->torn_pending = false;
            a->torn++;
        }
    } else if (bh_slice_eq(what, BH_LIT("end"))) {
        a->ended = true;
    }
}

static void settle_torn(struct bh_audit *a, struct bh_audit_finding *finding)
{
    finding->what = BH_AUDIT_DAMAGED;
    memcpy(finding->segment, a->torn_segment, sizeof(finding->segment));
    finding->line = a->torn_line;
    a->torn_pending = false;
    a->breaks++;
}

static bool is_record(struct bh_slice line)
{
    struct bh_ledger ledger;
    return bh_ledger_adopt(&ledger, line);
}

static enum bh_audit_what check_record(struct bh_audit *a, struct bh_slice line)
{
    if (!a->started) {
        struct bh_ledger before;
        a->started = true;
        if (bh_ledger_before(&before, line)) {
            a->ledger = before;
        }
        const enum bh_ledger_verdict verdict = bh_ledger_check(&a->ledger, line);
        a->first_seq = a->ledger.seq;
        return verdict == BH_LEDGER_GOOD ? BH_AUDIT_FINE : BH_AUDIT_BROKEN;
    }
    return bh_ledger_check(&a->ledger, line) == BH_LEDGER_GOOD ? BH_AUDIT_FINE : BH_AUDIT_BROKEN;
}

enum bh_status bh_audit_line(struct bh_audit *a, const struct bh_event_line *line,
                             struct bh_audit_finding *finding)
{
    struct bh_slice evt = BH_EMPTY;
    uint64_t number = 0;
    *finding = (struct bh_audit_finding){.line = line->number};
    memcpy(finding->segment, line->segment, sizeof(finding->segment));
    if (line->text.len == 0 && line->whole) {
        return BH_OK;
    }
    if (!line->whole || !bh_event_well_formed(line->text) ||
        !bh_event_text(line->text, "evt", &evt)) {
        const bool had = a->torn_pending;
        if (had) {
            settle_torn(a, finding);
        }
        a->torn_pending = true;
        memcpy(a->torn_segment, line->segment, sizeof(a->torn_segment));
        a->torn_offset = line->offset;
        a->torn_line = line->number;
        a->torn_whole = line->whole;
        return BH_OK;
    }
    const bool delivery = bh_slice_eq(evt, BH_LIT("delivered"));
    enum bh_status status = BH_OK;
    if (is_record(line->text)) {
        finding->what = check_record(a, line->text);
        a->records++;
        if (bh_event_number(line->text, "lost", &number)) {
            a->lost += number;
        }
        if (bh_event_number(line->text, "dropped", &number)) {
            a->dropped += number;
        }
        if (bh_slice_eq(evt, BH_LIT("ledger"))) {
            note_process(a, line->text);
        }
    } else if (delivery || bh_slice_eq(evt, BH_LIT("ledger"))) {
        finding->what = BH_AUDIT_UNSEALED;
    }
    a->breaks += finding->what != BH_AUDIT_FINE ? 1 : 0;
    if (delivery) {
        status = count_delivery(a, line->text);
    }
    /* A process that ended in the middle of a line is followed by nothing but the next one's
     * beginning, perhaps behind the first line of a new segment. */
    if (a->torn_pending && finding->what == BH_AUDIT_FINE && !bh_slice_eq(evt, BH_LIT("ledger"))) {
        settle_torn(a, finding);
    }
    return status;
}

void bh_audit_end(struct bh_audit *a, struct bh_audit_finding *finding)
{
    *finding = (struct bh_audit_finding){.what = BH_AUDIT_FINE};
    if (a->torn_pending && a->torn_whole) {
        settle_torn(a, finding);
    }
    a->torn_pending = false;
}
