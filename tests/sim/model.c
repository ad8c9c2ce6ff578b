/* What is known from outside: which mail was accepted, where it stands on disk after each commit,
 * what partners got. The promises are checked here, from that alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/queue.h"
#include "bh/queue_id.h"
#include "scenario.h"
#include "world.h"

#define WELL_MOST_US (30 * SIM_SECOND)
#define RESCUE_MOST_US (5 * SIM_MINUTE) /* three glitches of a minute, and then the relay */
#define MEMORY_BASE ((size_t)24 << 20)
#define MEMORY_CONNECTION ((size_t)3 << 20) /* a lease of 256 KiB and more, read and parsed */
#define MEMORY_DOMAIN ((size_t)1 << 20)

struct recipient recipients[RECIPIENTS_MAX];
struct message messages[MESSAGES_MAX];
unsigned recipient_count, message_count;

static struct seen {
    uint64_t newest_report; /* id of the newest message whose content was read */
    uint64_t entries, held; /* reports are among them */
    struct bh_arena arena;
    bool arena_made;
} seen;

void model_reset(void)
{
    for (unsigned i = 0; i < recipient_count; i++) {
        for (unsigned k = 0; k < recipients[i].accepted; k++) {
            if (recipients[i].acceptances[k].conn != NULL) {
                net_release(recipients[i].acceptances[k].conn);
            }
        }
        for (unsigned k = 0; k < DEFERRALS_MAX; k++) {
            if (recipients[i].deferrals[k].conn != NULL) {
                net_release(recipients[i].deferrals[k].conn);
            }
        }
    }
    memset(recipients, 0, sizeof(recipients[0]) * recipient_count);
    memset(messages, 0, sizeof(messages[0]) * message_count);
    recipient_count = 0;
    message_count = 0;
    seen.newest_report = 0;
    seen.entries = 0;
    seen.held = 0;
    if (!seen.arena_made) {
        bh_arena_init(&seen.arena, (size_t)16 << 20);
        seen.arena_made = true;
    }
}

/* ---- mail ---- */

struct message *model_plan(unsigned count, unsigned domain_first, unsigned domain_last, size_t size)
{
    if (message_count == MESSAGES_MAX || recipient_count + count > RECIPIENTS_MAX) {
        return NULL;
    }
    struct message *m = &messages[message_count];
    *m = (struct message){
        .number = message_count++, .first = recipient_count, .count = count, .size = size};
    for (unsigned i = 0; i < count; i++) {
        recipients[recipient_count] = (struct recipient){
            .number = recipient_count,
            .message = m->number,
            .domain = (unsigned)sim_range(CHANCE_SENDER, domain_first, domain_last)};
        recipient_count++;
    }
    return m;
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 29);
}

size_t model_content(const struct message *m, char *out, size_t cap)
{
    int n = snprintf(out, cap, "X-Sim: %u\r\nSubject: simulated\r\n\r\n", m->number);
    size_t len = (size_t)n;
    uint64_t h = m->number + 77;
    while (len < m->size && len + 80 < cap) {
        h = mix(h + 1);
        const size_t line = h % 70;
        if (h % 5 == 0) {
            out[len++] = '.';
        }
        for (size_t i = 0; i < line; i++) {
            out[len++] = (char)('a' + (h >> (i % 50)) % 26);
        }
        out[len++] = '\r';
        out[len++] = '\n';
    }
    return len;
}

struct recipient *model_find(const char *address, size_t len)
{
    unsigned number = 0;
    size_t i = 1;
    if (len < 3 || address[0] != 'r') {
        return NULL;
    }
    for (; i < len && address[i] >= '0' && address[i] <= '9'; i++) {
        number = number * 10 + (unsigned)(address[i] - '0');
    }
    return i > 1 && i < len && address[i] == '@' && number < recipient_count ? &recipients[number]
                                                                             : NULL;
}

void model_acked(struct message *m, const char *reply)
{
    m->state = MSG_ACKED;
    m->acked_us = sim_now_us();
    sim_trace("message %u is acknowledged: %s", m->number, reply);
    for (unsigned i = 0; i < m->count; i++) {
        const struct recipient *r = &recipients[m->first + i];
        if (!r->in_store && !r->ended) {
            sim_fail("message %u was acknowledged, and recipient %u is not on disk", m->number,
                     r->number);
        }
    }
}

/* ---- what partners say ---- */

static const char *where(const struct recipient *r, char text[96])
{
    snprintf(text, 96, "recipient %u of message %u (domain %u)", r->number, r->message, r->domain);
    return text;
}

void model_deferred(struct recipient *r, struct net_conn *conn, uint64_t reply_end)
{
    struct deferral *d = &r->deferrals[r->deferral_count++ % DEFERRALS_MAX];
    if (d->conn != NULL) {
        net_release(d->conn);
    }
    net_hold(conn);
    *d = (struct deferral){
        .conn = conn, .at_us = sim_now_us(), .reply_end = reply_end, .life = world.life};
    r->temp_failed = true;
}

/* The last one before `written_us` that the daemon has read. NULL: none, as far as is known */
static const struct deferral *deferral_at(const struct recipient *r, uint64_t written_us)
{
    for (unsigned back = 1; back <= r->deferral_count && back <= DEFERRALS_MAX; back++) {
        const struct deferral *d = &r->deferrals[(r->deferral_count - back) % DEFERRALS_MAX];
        if (d->at_us <= written_us && net_seen(d->conn) >= d->reply_end) {
            return d;
        }
    }
    return NULL;
}

/* Who was told to come back later comes later: not before the shortest interval. Of a domain with
 * one host, and where nobody asked for it, started anew, or changed the intervals. */
static void check_interval(const struct recipient *r, uint64_t written_us)
{
    char text[96];
    const struct conf *conf = NULL;
    uint64_t least_s = UINT64_MAX;
    const uint64_t since_us = sim_now_us() - written_us + 10 * SIM_MINUTE;
    const struct deferral *d = deferral_at(r, written_us);
    if (d == NULL || d->life != world.life || world.clock_stepped ||
        world.domains[r->domain].host_count > 1 || world.last_flush_us >= d->at_us ||
        world.last_flush_us + SIM_MINUTE > d->at_us) {
        return;
    }
    for (unsigned back = 0; world_conf_within(back, since_us, &conf); back++) {
        for (unsigned i = 0; i < 3; i++) {
            least_s = conf->intervals_s[i] < least_s ? conf->intervals_s[i] : least_s;
        }
    }
    const uint64_t gone_us = written_us - d->at_us;
    if (gone_us + 100 * SIM_MS < least_s * SIM_SECOND * 9 / 10) {
        sim_fail("%s was deferred %llu ms ago, and is tried again", where(r, text),
                 (unsigned long long)(gone_us / SIM_MS));
    }
}

/* NULL: it was not on disk yet, or nobody remembers */
static const struct standing *standing_at(const struct recipient *r, uint64_t written_us)
{
    for (unsigned back = 1; back <= r->standing_count && back <= STANDINGS_MAX; back++) {
        const struct standing *s = &r->standings[(r->standing_count - back) % STANDINGS_MAX];
        if (s->since_us <= written_us) {
            return s;
        }
    }
    return NULL;
}

void model_on_rcpt(struct recipient *r, uint64_t written_us)
{
    char text[96];
    const struct standing *s = standing_at(r, written_us);
    const int64_t written_unix_ms = sim_unix_ms() - (int64_t)((sim_now_us() - written_us) / SIM_MS);
    check_interval(r, written_us);
    if (s == NULL) {
        return;
    }
    if (!s->in_store && r->accepted == 0 && r->reported) {
        sim_fail("%s was returned, and is tried again", where(r, text));
    }
    /* What was leased before the hold may still go; what came after it never was. */
    if (s->held && (s->never_free || written_us - s->held_since_us > 15 * SIM_MINUTE)) {
        sim_fail("%s is held, and is tried", where(r, text));
    }
    const bool flushed = world.last_flush_us + 5 * SIM_MINUTE > written_us || s->flushed;
    if (s->in_store && s->due_known && !flushed && !world.clock_stepped &&
        s->due_unix_ms > written_unix_ms + 100) {
        sim_fail("%s is tried %lld ms before it is due", where(r, text),
                 (long long)(s->due_unix_ms - written_unix_ms));
    }
}

/* Promise 3: twice only where SMTP forces it. */
static void check_duplicate(const struct recipient *r)
{
    char text[96];
    for (unsigned i = 0; i < r->accepted; i++) {
        const struct acceptance *a = &r->acceptances[i];
        if (a->life != world.life || !process_running()) {
            continue; /* the process died between the 2xx and its commit */
        }
        if (a->conn != NULL && net_seen(a->conn) >= a->reply_end) {
            sim_fail("%s is delivered twice: the daemon had read the reply to the first",
                     where(r, text));
        }
        if (a->conn != NULL && net_stands(a->conn) && sim_now_us() - a->at_us < 600 * SIM_SECOND) {
            sim_fail("%s is delivered twice: the first reply was still on its way", where(r, text));
        }
    }
    if (r->accepted > 0 && !r->uncertain_told && !r->power_lost) {
        sim_fail("%s is delivered twice, and was not told to be uncertain", where(r, text));
    }
}

void model_on_accepted(struct recipient *r, struct net_conn *conn, uint64_t reply_end,
                       unsigned life)
{
    char text[96];
    const struct message *m = &messages[r->message];
    if (r->reported) {
        sim_fail("%s is delivered after it was returned", where(r, text));
    }
    if (m->state == MSG_REFUSED) {
        sim_fail("%s is delivered, and its sender was told that it was refused", where(r, text));
    }
    check_duplicate(r);
    sim_trace("%s is accepted", where(r, text));
    if (r->accepted < ACCEPTANCES_MAX) {
        net_hold(conn);
        r->acceptances[r->accepted++] = (struct acceptance){
            .conn = conn, .reply_end = reply_end, .life = life, .at_us = sim_now_us()};
        r->power_lost |= life <= world.power_lost_life;
    }
}

void model_on_crash(bool power)
{
    for (unsigned i = 0; i < recipient_count; i++) {
        recipients[i].power_lost |= power && recipients[i].accepted > 0;
    }
}

void model_uncertain_event(const char *line)
{
    const char *at = strstr(line, "\"msg\":\"");
    uint64_t id = 0;
    if (at == NULL || !bh_queue_id_parse(bh_slice(at + 7, BH_QUEUE_ID_TEXT - 1), &id)) {
        sim_fail("an event that names no message: %s", line);
    }
    for (unsigned i = 0; i < recipient_count; i++) {
        if (messages[recipients[i].message].queue_id == id) {
            recipients[i].uncertain_told = true;
        }
    }
}

void model_operator_removes(const char *domain, bool bounce)
{
    for (unsigned i = 0; i < recipient_count; i++) {
        struct recipient *r = &recipients[i];
        if (domain == NULL || strcmp(world.domains[r->domain].name, domain) == 0) {
            r->cancelled = r->cancelled || !bounce;
            r->bounce_asked = r->bounce_asked || bounce;
        }
    }
}

/* ---- what is on disk ---- */

/* A report: which recipients does it say have failed? */
static void read_report(struct bh_kv_txn *txn, const struct bh_message *message)
{
    static char content[65536];
    struct bh_buf buf = bh_buf(content, sizeof(content) - 1);
    if (bh_queue_read_content(txn, message, 0, &buf) != BH_OK) {
        sim_fail("a report can't be read");
    }
    content[buf.len] = '\0';
    char *at = content;
    while ((at = strstr(at, "Final-Recipient: rfc822;")) != NULL) {
        at += strlen("Final-Recipient: rfc822;");
        while (*at == ' ') {
            at++;
        }
        const char *action = strstr(at, "Action: ");
        struct recipient *r = model_find(at, strcspn(at, "\r\n"));
        if (r != NULL && action != NULL && strncmp(action + 8, "failed", 6) == 0) {
            sim_trace("recipient %u is reported as failed", r->number);
            r->reported = true;
        }
    }
}

static void note_message(struct bh_kv_txn *txn, uint64_t id)
{
    struct bh_message message;
    if (id <= seen.newest_report) {
        return;
    }
    if (bh_queue_read_message(txn, id, &seen.arena, &message) != BH_OK) {
        sim_fail("message %llu of an entry can't be read", (unsigned long long)id);
    }
    if (message.envelope.sender.len == 0) {
        read_report(txn, &message);
    }
}

static void note_recipient(struct recipient *r, const struct bh_entry *e,
                           const struct bh_destination *d)
{
    char text[96];
    const uint64_t now = sim_now_us();
    if (r->in_store) {
        sim_fail("%s is in the queue twice", where(r, text));
    }
    r->in_store = true;
    const bool held = e->state == BH_ENTRY_HELD || (d != NULL && d->held);
    const bool first = r->first_in_store_us == 0;
    r->first_in_store_us = first ? now : r->first_in_store_us;
    if (r->ended) {
        sim_fail("%s had ended and is in the queue again", where(r, text));
    }
    r->now = (struct standing){
        .in_store = true,
        .held = held,
        .never_free = held && (first || r->now.never_free),
        .held_since_us = !held         ? 0
                         : r->now.held ? r->now.held_since_us
                                       : now,
        .due_known = e->state == BH_ENTRY_DUE,
        .due_unix_ms = e->due_unix_ms,
        .flushed = d != NULL && d->flush_up_to_id >= e->key.id,
    };
    messages[r->message].queue_id = e->key.id;
}

static void note_entry(struct bh_kv_txn *txn, const struct bh_queue_key *key,
                       const struct bh_destination *d, uint64_t *newest)
{
    struct bh_entry entry;
    if (bh_queue_read_entry(txn, *key, &seen.arena, &entry) != BH_OK) {
        sim_fail("an entry of message %llu can't be read", (unsigned long long)key->id);
    }
    seen.entries++;
    seen.held += entry.state == BH_ENTRY_HELD || (d != NULL && d->held) ? 1 : 0;
    *newest = key->id > *newest ? key->id : *newest;
    note_message(txn, key->id);
    for (uint16_t i = 0; i < entry.recipient_count; i++) {
        const struct bh_slice address = entry.recipients[i].to.address;
        struct recipient *r = model_find(address.ptr, address.len);
        if (r != NULL) {
            note_recipient(r, &entry, d);
        }
    }
}

#define PAGE 64

static void walk_destinations(struct bh_kv_txn *txn, uint64_t *newest)
{
    struct bh_destination d;
    for (uint32_t after = 0;; after = d.id) {
        bh_arena_reset(&seen.arena);
        if (bh_queue_next_destination(txn, after, &seen.arena, &d) != BH_OK) {
            return;
        }
        const struct bh_destination copy = d;
        struct bh_queue_item items[PAGE];
        struct bh_queue_key last;
        size_t count = 0;
        enum bh_status status = BH_MORE;
        for (bool begun = false; status == BH_MORE; begun = true) {
            status = bh_queue_list_entries(txn, copy.id, begun ? &last : NULL, items, PAGE, &count);
            for (size_t i = 0; i < count; i++) {
                note_entry(txn, &items[i].key, &copy, newest);
                last = items[i].key;
            }
            if (status < 0) {
                sim_fail("the entries of a destination can't be read");
            }
        }
    }
}

static void walk_fresh(struct bh_kv_txn *txn, uint64_t *newest)
{
    struct bh_queue_item items[PAGE * 8];
    size_t count = 0;
    uint64_t id = 0;
    enum bh_status status = BH_MORE;
    bh_arena_reset(&seen.arena);
    while (status == BH_MORE) {
        status = bh_queue_scan_fresh(txn, &id, items, BH_COUNT(items), &count);
        if (status < 0) {
            sim_fail("the fresh lane can't be read");
        }
        for (size_t i = 0; i < count; i++) {
            note_entry(txn, &items[i].key, NULL, newest);
        }
    }
}

static bool same_standing(const struct standing *a, const struct standing *b)
{
    return a->in_store == b->in_store && a->held == b->held && a->never_free == b->never_free &&
           a->held_since_us == b->held_since_us && a->due_known == b->due_known &&
           a->due_unix_ms == b->due_unix_ms && a->flushed == b->flushed;
}

/* Remembered: what is asked of partners may have been on its way since long before. */
static void keep_standing(struct recipient *r)
{
    if (r->first_in_store_us == 0) {
        return;
    }
    if (!r->in_store) {
        r->now = (struct standing){0};
    }
    const unsigned newest = (r->standing_count + STANDINGS_MAX - 1) % STANDINGS_MAX;
    if (r->standing_count == 0 || !same_standing(&r->standings[newest], &r->now)) {
        r->now.since_us = sim_now_us();
        r->standings[r->standing_count++ % STANDINGS_MAX] = r->now;
    }
}

/* Promise 4: where only others are sick, the healthy one is served as if alone. */
static void check_latency(const struct recipient *r)
{
    char text[96];
    const struct message *m = &messages[r->message];
    if (world.set.sick_only && r->domain == DOMAIN_WELL && m->acked_us > 0 &&
        sim_now_us() - m->acked_us > WELL_MOST_US) {
        sim_fail("%s took %llu s, and its partner was well all the time", where(r, text),
                 (unsigned long long)((sim_now_us() - m->acked_us) / SIM_SECOND));
    }
    if (world.has.rescue && r->domain == DOMAIN_DEAD && m->acked_us > 0 &&
        sim_now_us() - m->acked_us > RESCUE_MOST_US) {
        sim_fail("%s took %llu s, and another connector could have carried it", where(r, text),
                 (unsigned long long)((sim_now_us() - m->acked_us) / SIM_SECOND));
    }
}

/* Promise 5. What it may take, by connections and what is on its way; nothing for what waits. */
static void check_memory(void)
{
    const size_t most =
        MEMORY_BASE + MEMORY_CONNECTION * net_open_count() + MEMORY_DOMAIN * world.set.domains;
    if (memory_live_bytes() > most) {
        sim_fail("the daemon has %zu octets with %zu connections and %llu entries",
                 memory_live_bytes(), net_open_count(), (unsigned long long)seen.entries);
    }
}

/* Promise 1: whoever was on disk and is not any more has ended, in exactly one way. */
static void check_end(struct recipient *r)
{
    char text[96];
    const struct message *m = &messages[r->message];
    if (r->in_store || !r->was_in_store) {
        return;
    }
    r->ended = true;
    const struct conf *conf = NULL;
    uint64_t least_s = UINT64_MAX;
    for (unsigned back = 0; world_conf_within(back, 6 * SIM_HOUR, &conf); back++) {
        least_s = conf->expire_s < least_s ? conf->expire_s : least_s;
    }
    const uint64_t age_us = sim_now_us() - r->first_in_store_us;
    const bool old = world.clock_stepped || age_us + SIM_SECOND >= least_s * SIM_SECOND;
    const bool untold = (m->null_sender || r->notify_never) && (r->perm_failed || old);
    if (r->accepted == 0 && !r->reported && !untold && !r->cancelled && !r->bounce_asked) {
        sim_fail("%s is gone from the queue: neither delivered, nor returned, nor removed",
                 where(r, text));
    }
    if (r->reported && r->accepted > 0 && r->acceptances[r->accepted - 1].life == world.life &&
        !r->uncertain_told) {
        sim_fail("%s is returned, and was delivered", where(r, text));
    }
    const bool ours = world.domains[r->domain].trouble_us < r->first_in_store_us;
    if (r->reported && !r->perm_failed && !r->bounce_asked && ours) {
        sim_fail("%s is returned, and neither its hosts nor its name servers were at fault",
                 where(r, text));
    }
    check_latency(r);
    if (r->reported && !r->perm_failed && !r->bounce_asked && !old) {
        sim_fail("%s is returned after %llu s, and nobody had refused it for good", where(r, text),
                 (unsigned long long)(age_us / SIM_SECOND));
    }
}

static void problem(void *ctx, const char *text)
{
    (void)ctx;
    sim_fail("verify: %s", text);
}

void model_on_commit(struct bh_kv *kv)
{
    struct bh_kv_txn *txn = NULL;
    if (scenario_on()) {
        return; /* nothing is known of this mail from outside */
    }
    if (bh_kv_begin(kv, BH_KV_READ, NULL, &txn) != BH_OK) {
        sim_fail("the store can't be read");
    }
    for (unsigned i = 0; i < recipient_count; i++) {
        recipients[i].was_in_store = recipients[i].in_store;
        recipients[i].in_store = false;
    }
    uint64_t newest = seen.newest_report;
    seen.entries = 0;
    seen.held = 0;
    walk_fresh(txn, &newest);
    walk_destinations(txn, &newest);
    seen.newest_report = newest;
    for (unsigned i = 0; i < recipient_count; i++) {
        check_end(&recipients[i]);
        keep_standing(&recipients[i]);
    }
    check_memory();
    /* The checker of `bhctl verify` reads everything: at every commit of a small world, at some of
     * a larger one. */
    if (world.set.check_every || seen.entries < 6 || sim_chance(CHANCE_DISK, 60)) {
        struct bh_queue_check_result result;
        if (bh_queue_check(txn, problem, NULL, &result) != BH_OK) {
            sim_fail("verify could not read the store");
        }
    }
    bh_kv_abort(txn);
    bh_arena_reset(&seen.arena);
}

uint64_t model_entries(void)
{
    return seen.entries;
}

bool model_all_ended(void)
{
    for (unsigned i = 0; i < recipient_count; i++) {
        const struct recipient *r = &recipients[i];
        if (r->in_store || (messages[r->message].state == MSG_ACKED && !r->ended)) {
            return false;
        }
    }
    return seen.entries == 0;
}

void model_describe(char *text, size_t cap)
{
    size_t len = (size_t)snprintf(text, cap, "%llu entries, %llu held;",
                                  (unsigned long long)seen.entries, (unsigned long long)seen.held);
    for (unsigned i = 0; i < recipient_count && len + 128 < cap; i++) {
        const struct recipient *r = &recipients[i];
        if (r->in_store) {
            len += (size_t)snprintf(text + len, cap - len, " recipient %u (domain %u)%s%s;", i,
                                    r->domain, r->now.held ? " held" : "",
                                    r->now.due_known ? " due" : "");
        }
    }
}
