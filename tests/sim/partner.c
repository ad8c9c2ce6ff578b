/* Partners: hosts that take mail over SMTP, well or badly. What they see is told to the model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "partner_internal.h"
#include "partner_tls.h"
#include "scenario.h"
#include "world.h"

static struct partner *partners;

static bool bad(uint32_t permille)
{
    return world.faults && sim_chance(CHANCE_PARTNER, permille);
}

/* ---- the end ---- */

static void forget(struct partner *p)
{
    sim_event_cancel(&p->think);
    if (p->prev != NULL) {
        p->prev->next = p->next;
    } else {
        partners = p->next;
    }
    if (p->next != NULL) {
        p->next->prev = p->prev;
    }
    partner_tls_destroy(p->session);
    sim_free(p->in);
    sim_free(p->marks);
    sim_free(p->content);
    sim_free(p);
}

static void reset(struct partner *p)
{
    sim_trace("%s resets", p->host->name);
    net_reset(p->conn);
    p->gone = true;
}

/* How many domains go there: each has its glitches, of a second maybe. */
static unsigned domains_of(const struct host *h)
{
    unsigned count = 0;
    enum bh_tls_mode mode = BH_TLS_OFF;
    for (unsigned i = 0; i < world.set.domains; i++) {
        count += conf_tls_at(world_conf(), i, h->number, &mode) ? 1 : 0;
    }
    return count > 0 ? count : 1;
}

/* Sessions that are opened in a row, to be closed again, cost us and everybody else (promise 4). */
static void came_to_nothing(struct host *h)
{
    if (sim_now_us() - h->vain_us > 10 * SIM_SECOND) {
        h->vain_us = sim_now_us();
        h->vain = 0;
    }
    if (++h->vain > VAIN_MAX * domains_of(h)) {
        sim_fail("%s has had %u sessions within ten seconds that asked for nothing", h->name,
                 h->vain);
    }
}

/* Who goes after a refusal has read it. */
static void note_refusal(struct partner *p)
{
    if (p->refused && !p->garbled) {
        p->refused = false;
        password_refusal_read();
    }
}

static void on_end(void *ctx, bool graceful)
{
    struct partner *p = ctx;
    struct host *h = p->host;
    const bool in_vain = p->greeted && !p->asked;
    if (graceful) {
        note_refusal(p);
    }
    forget(p);
    if (in_vain) {
        came_to_nothing(h);
    }
}

/* ---- saying ---- */

static void put_wire(void *ctx, const char *octets, size_t len)
{
    struct partner *p = ctx;
    if (!p->gone) {
        net_send(p->conn, octets, len);
    }
}

static void mark(struct partner *p)
{
    const uint64_t written_us = net_written_us(p->conn);
    if (p->mark_count == 0 || p->marks[p->mark_count - 1].written_us != written_us) {
        if (p->mark_count == p->mark_cap) {
            p->mark_cap = p->mark_cap * 2 + 8;
            p->marks = sim_grow(p->marks, p->mark_cap * sizeof(p->marks[0]));
        }
        p->marks[p->mark_count++].written_us = written_us;
    }
    p->marks[p->mark_count - 1].end = p->in_len;
}

static void keep_text(void *ctx, const char *octets, size_t len)
{
    struct partner *p = ctx;
    if (len == 0) {
        return;
    }
    if (p->in_len + len > p->in_cap) {
        p->in_cap = (p->in_len + len) * 2;
        p->in = sim_grow(p->in, p->in_cap);
    }
    memcpy(p->in + p->in_len, octets, len);
    p->in_len += len;
    mark(p);
}

static struct partner_tls_sink sink_of(struct partner *p)
{
    return (struct partner_tls_sink){.plain = keep_text, .cipher = put_wire, .ctx = p};
}

static uint64_t send_text(struct partner *p, const char *octets, size_t len)
{
    if (p->tls) {
        const struct partner_tls_sink sink = sink_of(p);
        partner_tls_say(p->session, octets, len, &sink);
        return net_send(p->conn, NULL, 0);
    }
    return net_send(p->conn, octets, len);
}

/* @return the place of its last octet in what the daemon reads */
uint64_t partner_say(struct partner *p, const char *text)
{
    char line[TEXT_MAX];
    int n = snprintf(line, sizeof(line), "%s\r\n", text);
    sim_trace("%s> %s", p->host->name, text);
    if (bad(p->host->mood.garbage_reply)) {
        p->garbled = true;
        n = snprintf(line, sizeof(line), "\x01 what?\r\n");
    } else if (strlen(text) > 4 && text[3] == ' ' && bad(p->host->mood.multi_line)) {
        n = snprintf(line, sizeof(line), "%.3s-one moment\r\n%s\r\n", text, text);
    }
    if (bad(p->host->mood.trickle)) {
        uint64_t end = 0;
        for (int i = 0; i < n; i++) {
            end = send_text(p, line + i, 1);
        }
        return end;
    }
    return send_text(p, line, (size_t)n);
}

static void hang(struct partner *p)
{
    sim_trace("%s hangs", p->host->name);
    p->hung = true;
}

static void run(struct partner *p);

static void thought(void *ctx)
{
    struct partner *p = ctx;
    p->busy = false;
    run(p);
    if (p->gone) {
        forget(p);
    }
}

static void think(struct partner *p, uint64_t us)
{
    if (us > 0) {
        p->busy = true;
        p->think = (struct sim_event){.fn = thought, .ctx = p};
        sim_event_at(&p->think, sim_now_us() + us);
    }
}

/* What is known of the connection, for promise 2. */
struct seen_link partner_link(const struct partner *p)
{
    return (struct seen_link){.host = p->host,
                              .tls = p->tls,
                              .shown = &p->shown,
                              .at_us = p->written_us,
                              .life = p->life};
}

static void check_rcpt(const struct partner *p, const struct recipient *r)
{
    const struct seen_link link = partner_link(p);
    partner_check(&link, r);
}

/* As the daemon sees it: what it has closed counts no more. */
uint32_t partners_talking(const struct host *host)
{
    uint32_t count = 0;
    for (const struct partner *p = partners; p != NULL; p = p->next) {
        count += p->host == host && p->greeted && net_held_open(p->conn) ? 1 : 0;
    }
    return count;
}

static void check_limit(const struct host *host)
{
    const struct conf *conf = NULL;
    uint32_t most = 0;
    if (scenario_on()) {
        scenario_talks(host, partners_talking(host));
        return;
    }
    for (unsigned back = 0; world_conf_within(back, 10 * SIM_MINUTE, &conf); back++) {
        most = conf->per_host > most ? conf->per_host : most;
    }
    most *= host->v4 && host->v6 ? 2 : 1; /* it goes by address */
    if (partners_talking(host) > most) {
        sim_fail("%s has %u connections, and the limit of a host is %u", host->name,
                 partners_talking(host), most);
    }
}

/* ---- transactions ---- */

static void end_txn(struct partner *p)
{
    p->mail = false;
    p->rcpt_count = 0;
    p->others = 0;
    p->content_len = 0;
}

static void check_content(const struct partner *p)
{
    static char expected[CONTENT_MAX];
    const struct recipient *r = p->rcpts[0];
    const size_t len = model_content(&messages[r->message], expected, sizeof(expected));
    if (p->content_len < len || memcmp(p->content + p->content_len - len, expected, len) != 0) {
        sim_fail("the content of message %u is not what was accepted", r->message);
    }
    for (size_t i = 1; i < p->rcpt_count; i++) {
        if (p->rcpts[i]->message != r->message) {
            sim_fail("messages %u and %u came as one", r->message, p->rcpts[i]->message);
        }
    }
}

static void perm_fail(struct partner *p)
{
    for (size_t i = 0; i < p->rcpt_count; i++) {
        p->rcpts[i]->perm_failed = true;
    }
}

/* @param reply_end  of what told it; behind garbage no reply counts */
static void defer(struct partner *p, struct recipient *r, uint64_t reply_end)
{
    model_deferred(r, p->conn, p->garbled ? UINT64_MAX : reply_end);
}

static void temp_fail(struct partner *p, const char *text)
{
    const uint64_t reply_end = partner_say(p, text);
    for (size_t i = 0; i < p->rcpt_count; i++) {
        defer(p, p->rcpts[i], reply_end);
    }
}

/* LMTP (RFC 2033 section 4.2): a reply for each that was accepted by RCPT, in their order.
 * @return false: the connection is no more */
static bool answer_each(struct partner *p)
{
    const struct mood *mood = &p->host->mood;
    for (size_t i = 0; i < p->rcpt_count; i++) {
        struct recipient *r = p->rcpts[i];
        if (bad(mood->dot_5xx)) {
            r->perm_failed = true;
            partner_say(p, "554 5.6.0 not to this one");
        } else if (bad(mood->dot_4xx)) {
            defer(p, r, partner_say(p, "451 4.3.0 later"));
        } else if (bad(mood->lose_reply)) {
            model_on_accepted(r, p->conn, UINT64_MAX, p->life);
            reset(p);
            return false;
        } else {
            const uint64_t end = partner_say(p, "250 2.0.0 taken");
            model_on_accepted(r, p->conn, p->garbled ? UINT64_MAX : end, p->life);
        }
    }
    for (size_t i = 0; i < p->others; i++) {
        partner_say(p, "250 2.0.0 taken");
    }
    return true;
}

/* @return false: the connection is no more */
static bool answer_all(struct partner *p)
{
    const struct mood *mood = &p->host->mood;
    if (bad(mood->dot_5xx)) {
        perm_fail(p);
        partner_say(p, "554 5.6.0 not like this");
    } else if (bad(mood->dot_4xx)) {
        temp_fail(p, "451 4.3.0 later");
    } else if (bad(mood->lose_reply)) {
        /* Taken, and the reply never comes. */
        for (size_t i = 0; i < p->rcpt_count; i++) {
            model_on_accepted(p->rcpts[i], p->conn, UINT64_MAX, p->life);
        }
        reset(p);
        return false;
    } else {
        /* Behind garbage no reply counts. */
        const uint64_t at = partner_say(p, "250 2.0.0 taken");
        const uint64_t end = p->garbled ? UINT64_MAX : at;
        if (scenario_on()) {
            scenario_taken(p->host, p->others);
        }
        for (size_t i = 0; i < p->rcpt_count; i++) {
            model_on_accepted(p->rcpts[i], p->conn, end, p->life);
        }
    }
    return true;
}

static void end_content(struct partner *p)
{
    if (p->rcpt_count > 0) {
        check_content(p);
    }
    if (p->host->lmtp ? answer_each(p) : answer_all(p)) {
        end_txn(p);
        p->stage = STAGE_COMMAND;
    }
}

static void keep_content(struct partner *p, const char *octets, size_t len)
{
    if (p->content_len + len > p->content_cap) {
        p->content_cap = (p->content_len + len) * 2;
        p->content = sim_grow(p->content, p->content_cap);
    }
    memcpy(p->content + p->content_len, octets, len);
    p->content_len += len;
}

/* ---- commands ---- */

bool partner_is(const char *line, const char *verb)
{
    const size_t len = strlen(verb);
    for (size_t i = 0; i < len; i++) {
        if ((line[i] & ~0x20) != (verb[i] & ~0x20)) {
            return false;
        }
    }
    return true;
}

static void on_ehlo(struct partner *p)
{
    if (bad(p->host->mood.ehlo_5xx)) {
        partner_say(p, "502 5.5.1 no");
        return;
    }
    if (!p->greeted) {
        p->greeted = true;
        check_limit(p->host);
    }
    char text[256];
    p->starttls_offered = !p->tls && !bad(p->host->mood.no_starttls);
    snprintf(text, sizeof(text), "250-%s\r\n250-SIZE 10000000\r\n%s%s%s%s250 8BITMIME\r\n",
             p->host->name, p->host->pipelining ? "250-PIPELINING\r\n" : "",
             p->host->chunking ? "250-CHUNKING\r\n" : "",
             p->starttls_offered ? "250-STARTTLS\r\n" : "",
             p->tls && password_is_wanted(p->host) ? password_offer(p->host) : "");
    sim_trace("%s> %s", p->host->name, p->starttls_offered ? "250 ... STARTTLS" : "250 ...");
    send_text(p, text, strlen(text));
    end_txn(p);
}

static void on_starttls(struct partner *p)
{
    p->asked = true;
    if (bad(p->host->mood.starttls_454)) {
        partner_say(p, "454 4.7.0 not now");
    } else {
        partner_say(p, "220 2.0.0 go");
        p->stage = STAGE_HELLO;
        p->in_len = 0;
        p->mark_count = 0;
    }
}

/* Which message a MAIL speaks of shows in its sender; the null sender may be any. */
static void mail_failed(const char *line)
{
    const char *at = strstr(line, "<s");
    const unsigned number = at != NULL ? (unsigned)strtoul(at + 2, NULL, 10) : UINT32_MAX;
    for (unsigned i = 0; i < recipient_count; i++) {
        const struct message *m = &messages[recipients[i].message];
        recipients[i].perm_failed |= at != NULL ? m->number == number : m->null_sender;
    }
}

/* ---- mail ---- */

static void on_mail(struct partner *p, const char *line)
{
    end_txn(p);
    p->asked = true;
    if (password_is_wanted(p->host) && !p->authenticated) {
        sim_fail("mail is told to %s without a password", p->host->name);
    }
    if (bad(p->host->mood.mail_5xx)) {
        mail_failed(line);
        partner_say(p, "550 5.1.8 not from you");
    } else if (bad(p->host->mood.mail_4xx)) {
        partner_say(p, "451 4.7.1 later");
    } else {
        p->mail = true;
        partner_say(p, "250 2.1.0 ok");
    }
}

static bool greylisted(const struct partner *p, struct recipient *r)
{
    if (!r->greylisted && bad(p->host->mood.greylist)) {
        r->greylisted = true;
        return true;
    }
    return false;
}

static void on_rcpt(struct partner *p, const char *line)
{
    const char *at = strchr(line, '<');
    struct recipient *r = at != NULL ? model_find(at + 1, strlen(at + 1)) : NULL;
    if (r != NULL) {
        check_rcpt(p, r);
        model_on_rcpt(r, p->written_us);
    }
    if (!p->mail) {
        if (r != NULL) {
            r->perm_failed = true; /* behind a MAIL that was refused for good, say */
        }
        partner_say(p, "503 5.5.1 MAIL first");
    } else if (bad(p->host->mood.rcpt_5xx)) {
        if (r != NULL) {
            r->perm_failed = true;
        }
        partner_say(p, "550 5.1.1 no such mailbox");
    } else if (bad(p->host->mood.rcpt_4xx) || (r != NULL && greylisted(p, r))) {
        const uint64_t reply_end = partner_say(p, "451 4.2.1 later");
        if (r != NULL) {
            defer(p, r, reply_end);
        }
    } else {
        if (r != NULL && p->rcpt_count < RCPTS_MAX) {
            p->rcpts[p->rcpt_count++] = r;
        } else {
            p->others++;
        }
        partner_say(p, "250 2.1.5 ok");
    }
}

static void on_data(struct partner *p)
{
    if (p->rcpt_count + p->others == 0) {
        partner_say(p, "554 5.5.1 no valid recipients");
    } else if (bad(p->host->mood.data_4xx)) {
        temp_fail(p, "451 4.3.0 later");
    } else {
        partner_say(p, "354 go on");
        p->stage = STAGE_DATA;
    }
}

static void on_bdat(struct partner *p, const char *line)
{
    p->bdat_left = strtoul(line + 5, NULL, 10);
    p->bdat_last = strstr(line, "LAST") != NULL || strstr(line, "last") != NULL;
    p->stage = STAGE_BDAT;
}

static void on_line(struct partner *p, const char *line)
{
    const struct mood *mood = &p->host->mood;
    sim_trace("%s< %s%s", p->host->name, line, p->tls ? " (tls)" : "");
    if (bad(mood->reset_command)) {
        reset(p);
        return;
    }
    if (bad(mood->hang)) {
        hang(p);
        return;
    }
    if (bad(mood->say_421)) {
        partner_say(p, "421 4.3.2 closing");
        net_end(p->conn);
        p->gone = true;
        return;
    }
    const bool hello = partner_is(line, "EHLO") || partner_is(line, "HELO");
    if (p->host->lmtp ? partner_is(line, "LHLO") : hello) {
        on_ehlo(p);
    } else if (partner_is(line, "STARTTLS")) {
        on_starttls(p);
    } else if (partner_is(line, "AUTH")) {
        partner_on_auth(p, line);
    } else if (partner_is(line, "MAIL")) {
        on_mail(p, line);
    } else if (partner_is(line, "RCPT")) {
        on_rcpt(p, line);
    } else if (partner_is(line, "DATA")) {
        on_data(p);
    } else if (partner_is(line, "BDAT")) {
        on_bdat(p, line);
    } else if (partner_is(line, "RSET")) {
        end_txn(p);
        partner_say(p, "250 2.0.0 ok");
    } else if (partner_is(line, "NOOP")) {
        partner_say(p, "250 2.0.0 ok");
    } else if (partner_is(line, "QUIT")) {
        note_refusal(p);
        partner_say(p, "221 2.0.0 bye");
        net_end(p->conn);
        p->gone = true;
    } else {
        partner_say(p, "500 5.5.2 what?");
    }
}

/* ---- hearing ---- */

static void drop(struct partner *p, size_t len)
{
    size_t gone = 0;
    if (len == 0) {
        return;
    }
    while (p->marks[gone].end < len) {
        gone++;
    }
    p->written_us = p->marks[gone].written_us;
    gone += p->marks[gone].end == len ? 1 : 0;
    p->mark_count -= gone;
    memmove(p->marks, p->marks + gone, p->mark_count * sizeof(p->marks[0]));
    for (size_t i = 0; i < p->mark_count; i++) {
        p->marks[i].end -= len;
    }
    p->in_len -= len;
    memmove(p->in, p->in + len, p->in_len);
}

/* @return whether a line was taken */
static bool take_line(struct partner *p, char line[TEXT_MAX])
{
    const char *lf = p->in_len > 0 ? memchr(p->in, '\n', p->in_len) : NULL;
    if (lf == NULL) {
        return false;
    }
    const size_t len = (size_t)(lf - p->in) + 1;
    BH_ASSERT(len < TEXT_MAX);
    memcpy(line, p->in, len);
    line[len] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    drop(p, len);
    return true;
}

static bool take_data(struct partner *p)
{
    const char *lf = p->in_len > 0 ? memchr(p->in, '\n', p->in_len) : NULL;
    if (lf == NULL) {
        return false;
    }
    const size_t len = (size_t)(lf - p->in) + 1;
    if (len == 3 && p->in[0] == '.') {
        drop(p, len);
        end_content(p);
        think(p, p->host->think_us);
        return true;
    }
    const size_t dot = p->in[0] == '.' ? 1 : 0;
    keep_content(p, p->in + dot, len - dot);
    drop(p, len);
    return true;
}

static bool take_bdat(struct partner *p)
{
    const size_t n = p->bdat_left < p->in_len ? p->bdat_left : p->in_len;
    keep_content(p, p->in, n);
    drop(p, n);
    p->bdat_left -= n;
    if (p->bdat_left > 0) {
        return false;
    }
    p->stage = STAGE_COMMAND;
    if (p->rcpt_count + p->others == 0) {
        p->content_len = 0;
        partner_say(p, "503 5.5.1 no valid recipients");
    } else if (p->bdat_last) {
        end_content(p);
    } else {
        partner_say(p, "250 2.0.0 go on");
    }
    think(p, p->host->think_us);
    return true;
}

static void run(struct partner *p)
{
    char line[TEXT_MAX];
    bool more = true;
    while (more && !p->busy && !p->hung && !p->gone && p->stage != STAGE_HELLO) {
        switch (p->stage) {
        case STAGE_COMMAND:
            more = take_line(p, line);
            if (more) {
                on_line(p, line);
                think(p, p->gone ? 0 : p->host->think_us);
            }
            break;
        case STAGE_AUTH:
            more = take_line(p, line);
            if (more) {
                partner_on_auth_line(p, line);
            }
            break;
        case STAGE_DATA:
            more = take_data(p);
            break;
        case STAGE_BDAT:
            more = take_bdat(p);
            break;
        case STAGE_HELLO:
            break;
        }
    }
}

/* The first octets after STARTTLS: what answers them. */
static bool begin_tls(struct partner *p)
{
    const struct mood *mood = &p->host->mood;
    if (bad(mood->tls_garbage)) {
        net_send(p->conn, "HTTP/1.1 400 Bad Request\r\n", 26);
        hang(p);
        return false;
    }
    if (bad(mood->tls_reset)) {
        reset(p);
        return false;
    }
    p->session = partner_tls_create(p->host, bad(mood->bad_certificate), &p->shown);
    return true;
}

static void hear_tls(struct partner *p, const char *octets, size_t len)
{
    const struct partner_tls_sink sink = sink_of(p);
    if (p->hung || (p->session == NULL && !begin_tls(p))) {
        return;
    }
    switch (partner_tls_hear(p->session, octets, len, &sink)) {
    case PARTNER_TLS_SHAKING:
        break;
    case PARTNER_TLS_UP:
        p->tls = true;
        p->stage = p->stage == STAGE_HELLO ? STAGE_COMMAND : p->stage;
        break;
    case PARTNER_TLS_FAILED:
        sim_trace("%s: TLS has failed", p->host->name);
        reset(p);
        break;
    }
}

static void on_octets(void *ctx, const char *octets, size_t len)
{
    struct partner *p = ctx;
    p->heard += len;
    if (p->reset_planned && p->heard >= p->reset_at && world.faults) {
        reset(p);
        forget(p);
        return;
    }
    if (p->tls || p->stage == STAGE_HELLO) {
        hear_tls(p, octets, len);
    } else {
        keep_text(p, octets, len);
    }
    run(p);
    if (p->gone) {
        forget(p);
    }
}

static void on_open(void *ctx)
{
    struct partner *p = ctx;
    const struct mood *mood = &p->host->mood;
    if (bad(mood->greet_421)) {
        partner_say(p, "421 4.3.2 too busy");
        net_end(p->conn);
        forget(p);
        return;
    }
    if (bad(mood->greet_hang)) {
        hang(p);
        return;
    }
    char text[128];
    snprintf(text, sizeof(text), "220 %s ESMTP simulated", p->host->name);
    partner_say(p, text);
}

bool partner_answers(struct host *host, struct net_conn *conn, struct net_asked *asked)
{
    struct partner *p = sim_alloc(sizeof(*p));
    *p = (struct partner){.next = partners,
                          .host = host,
                          .conn = conn,
                          .life = world.life,
                          .opened_us = sim_now_us()};
    if (partners != NULL) {
        partners->prev = p;
    }
    partners = p;
    p->reset_planned = bad(host->mood.reset_octet);
    p->reset_at = p->reset_planned ? (size_t)sim_range(CHANCE_PARTNER, 1, 4000) : 0;
    asked->actor =
        (struct net_actor){.ctx = p, .on_open = on_open, .on_data = on_octets, .on_end = on_end};
    return true;
}

void partners_reset(void)
{
    while (partners != NULL) {
        net_reset(partners->conn);
        forget(partners);
    }
}
