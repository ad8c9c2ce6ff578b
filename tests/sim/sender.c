/* Senders: clients that hand mail to the daemon, and remember what they were told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "world.h"

enum step { WAIT_GREETING, WAIT_EHLO, WAIT_MAIL, WAIT_RCPT, WAIT_DATA, WAIT_DOT, WAIT_QUIT };

struct sender {
    struct sender *next, *prev;
    struct net_conn *conn;
    struct message *message;
    struct sim_event patience;
    enum step step;
    unsigned asked; /* recipients */
    char in[4096];
    size_t in_len;
};

static struct sender *senders;
static unsigned planned; /* messages still to come */
static char content[(size_t)2 << 20], stuffed[(size_t)3 << 20];

static void begin(void *ctx);

static void forget(struct sender *s)
{
    sim_event_cancel(&s->patience);
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        senders = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    sim_free(s);
}

/* Without an answer to the dot nobody knows. */
static void lost(struct sender *s)
{
    if (s->message->state == MSG_SENDING) {
        s->message->state = s->step == WAIT_DOT ? MSG_MAYBE : MSG_REFUSED;
        sim_trace("sender of message %u loses its connection", s->message->number);
    }
}

static void on_end(void *ctx, bool graceful)
{
    struct sender *s = ctx;
    (void)graceful;
    lost(s);
    forget(s);
}

static void impatient(void *ctx)
{
    struct sender *s = ctx;
    lost(s);
    net_reset(s->conn);
    forget(s);
}

static void say(struct sender *s, const char *text)
{
    sim_trace("sender %u> %s", s->message->number, text);
    net_send(s->conn, text, strlen(text));
    net_send(s->conn, "\r\n", 2);
}

static void send_content(struct sender *s)
{
    const size_t len = model_content(s->message, content, sizeof(content));
    size_t out = 0;
    for (size_t i = 0; i < len; i++) {
        if (content[i] == '.' && (i == 0 || content[i - 1] == '\n')) {
            stuffed[out++] = '.';
        }
        stuffed[out++] = content[i];
    }
    memcpy(stuffed + out, ".\r\n", 3);
    net_send(s->conn, stuffed, out + 3);
    sim_trace("sender %u> %zu octets", s->message->number, out + 3);
}

static void ask_recipient(struct sender *s)
{
    const struct recipient *r = &recipients[s->message->first + s->asked];
    char text[200];
    snprintf(text, sizeof(text), "RCPT TO:<r%u@%s>%s", r->number, world.domains[r->domain].name,
             r->notify_never ? " NOTIFY=NEVER" : "");
    say(s, text);
    s->asked++;
}

static void next(struct sender *s)
{
    char text[200];
    switch (s->step) {
    case WAIT_GREETING:
        say(s, "EHLO client.sim.test");
        s->step = WAIT_EHLO;
        break;
    case WAIT_EHLO:
        if (s->message->null_sender) {
            say(s, "MAIL FROM:<>");
        } else {
            snprintf(text, sizeof(text), "MAIL FROM:<s%u@%s>", s->message->number,
                     world.domains[DOMAIN_SENDERS].name);
            say(s, text);
        }
        s->step = WAIT_MAIL;
        break;
    case WAIT_MAIL:
    case WAIT_RCPT:
        s->step = WAIT_RCPT;
        if (s->asked < s->message->count) {
            ask_recipient(s);
        } else {
            say(s, "DATA");
            s->step = WAIT_DATA;
        }
        break;
    case WAIT_DATA:
        s->step = WAIT_DOT;
        send_content(s);
        break;
    case WAIT_DOT:
    case WAIT_QUIT:
        say(s, "QUIT");
        s->step = WAIT_QUIT;
        break;
    }
}

static void on_reply(struct sender *s, const char *line)
{
    sim_trace("sender %u< %s", s->message->number, line);
    if (line[3] == '-') {
        return;
    }
    const bool good = line[0] == '2' || (line[0] == '3' && s->step == WAIT_DATA);
    if (s->step == WAIT_DOT) {
        if (good) {
            model_acked(s->message, line);
        } else {
            s->message->state = MSG_REFUSED;
        }
    } else if (!good && s->message->state == MSG_SENDING) {
        s->message->state = MSG_REFUSED;
        s->step = WAIT_DOT; /* then QUIT */
    }
    next(s);
}

static void on_data(void *ctx, const char *octets, size_t len)
{
    struct sender *s = ctx;
    for (size_t i = 0; i < len; i++) {
        BH_ASSERT(s->in_len < sizeof(s->in) - 1);
        if (octets[i] == '\n') {
            s->in[s->in_len] = '\0';
            s->in[strcspn(s->in, "\r")] = '\0';
            s->in_len = 0;
            if (s->step == WAIT_QUIT) {
                net_end(s->conn);
                forget(s);
                return;
            }
            on_reply(s, s->in);
        } else {
            s->in[s->in_len++] = octets[i];
        }
    }
}

static void again(struct message *m)
{
    sim_after(sim_range(CHANCE_SENDER, 1, 20) * SIM_SECOND, begin, m);
}

static void begin(void *ctx)
{
    struct message *m = ctx;
    const struct bh_ip from = {.family = 4, .bytes = {192, 0, 2, (uint8_t)(10 + m->number % 20)}};
    const struct net_path path = {.latency_us = sim_range(CHANCE_SENDER, 50, 20000),
                                  .window = 65536,
                                  .split_permille = world.faults ? 100 : 0};
    struct sender *s = sim_alloc(sizeof(*s));
    *s = (struct sender){.message = m, .patience = {.fn = impatient, .ctx = s}};
    const struct net_actor actor = {.ctx = s, .on_data = on_data, .on_end = on_end};
    s->conn = world.up ? net_connect(LISTEN_PORT, &from, &path, &actor) : NULL;
    if (s->conn == NULL) {
        sim_free(s);
        again(m); /* the daemon is down */
        return;
    }
    planned--;
    m->state = MSG_SENDING;
    s->next = senders;
    if (senders != NULL) {
        senders->prev = s;
    }
    senders = s;
    sim_event_at(&s->patience, sim_now_us() + 15 * SIM_MINUTE);
}

static size_t pick_size(void)
{
    if (sim_chance(CHANCE_SENDER, world.set.disk_full_permille > 0 ? 100 : 30)) {
        return (size_t)sim_range(CHANCE_SENDER, 200000, 600000);
    }
    return (size_t)sim_range(CHANCE_SENDER, 0, world.set.size_max);
}

void senders_start(void)
{
    const bool burst = sim_chance(CHANCE_SENDER, 300);
    for (unsigned i = 0; i < world.set.messages; i++) {
        const unsigned count = (unsigned)sim_range(CHANCE_SENDER, 1, world.set.recipients_max);
        struct message *m = model_plan(count, 1, world.set.domains - 1, pick_size());
        if (m == NULL) {
            break;
        }
        m->null_sender = sim_chance(CHANCE_SENDER, 50);
        for (unsigned k = 0; k < count; k++) {
            recipients[m->first + k].notify_never = sim_chance(CHANCE_SENDER, 100);
        }
        planned++;
        sim_after(burst ? SIM_SECOND : sim_range(CHANCE_SENDER, 0, world.set.arrivals_us), begin,
                  m);
    }
}

bool senders_done(void)
{
    return planned == 0 && senders == NULL;
}

void senders_reset(void)
{
    while (senders != NULL) {
        net_reset(senders->conn);
        forget(senders);
    }
    planned = 0;
}
