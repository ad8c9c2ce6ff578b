/* Operators: they ask for things over the control socket, as bhctl does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "world.h"

struct operator
{
    struct operator* next, *prev;
    struct net_conn *conn;
    char line[1024], answer[256];
    size_t answer_len;
    bool at_line_start;
    struct conf *reload; /* in force when the answer says so */
    bool heals;          /* repeated until it is answered well */
    struct sim_event patience;
};

static struct operator* operators;
static bool healing;
static unsigned heals_left;

static void ask(const char *line, struct conf *reload, bool heals);

static void forget(struct operator* o)
{
    sim_event_cancel(&o->patience);
    if (o->prev != NULL) {
        o->prev->next = o->next;
    } else {
        operators = o->next;
    }
    if (o->next != NULL) {
        o->next->prev = o->prev;
    }
    sim_free(o);
}

static void repeat(void *ctx)
{
    char *line = ctx;
    ask(line, NULL, true);
    sim_free(line);
}

static void finish(struct operator* o, bool answered)
{
    if (o->heals && !answered) {
        char *line = sim_alloc(sizeof(o->line));
        memcpy(line, o->line, sizeof(o->line));
        sim_after_own(10 * SIM_SECOND, repeat, line);
    } else if (o->heals) {
        heals_left--;
    }
    if (!answered && o->reload != NULL) {
        /* The daemon died, or hangs: it may be in force, and will be after a restart. */
        o->reload = NULL;
    }
    forget(o);
}

static void on_end(void *ctx, bool graceful)
{
    (void)graceful;
    finish(ctx, false);
}

static void impatient(void *ctx)
{
    struct operator* o = ctx;
    net_reset(o->conn);
    finish(o, false);
}

static void in_force(struct conf *conf)
{
    for (unsigned i = 0; i < world.conf_count; i++) {
        if (world.confs[i].until_us == 0 && &world.confs[i] != conf) {
            world.confs[i].until_us = sim_now_us();
        }
    }
}

static void on_answer(struct operator* o)
{
    sim_trace("operator< %.200s", o->answer);
    if (strncmp(o->answer, "{\"end\"", 6) == 0) {
        if (o->reload != NULL) {
            in_force(o->reload);
        }
        net_end(o->conn);
        finish(o, true);
    } else if (strncmp(o->answer, "{\"error\"", 8) == 0) {
        if (o->reload != NULL) {
            o->reload->until_us = o->reload->from_us + 1; /* refused */
        }
        net_end(o->conn);
        finish(o, true);
    }
}

static void on_data(void *ctx, const char *octets, size_t len)
{
    struct operator* o = ctx;
    for (size_t i = 0; i < len; i++) {
        if (octets[i] != '\n') {
            if (o->answer_len < sizeof(o->answer) - 1) {
                o->answer[o->answer_len++] = octets[i];
            }
            continue;
        }
        o->answer[o->answer_len] = '\0';
        o->answer_len = 0;
        const bool last = strncmp(o->answer, "{\"row\"", 6) != 0;
        if (last) {
            on_answer(o);
            return;
        }
    }
}

static void on_open(void *ctx)
{
    struct operator* o = ctx;
    net_send(o->conn, o->line, strlen(o->line));
}

static void ask(const char *line, struct conf *reload, bool heals)
{
    const struct bh_ip from = {.family = 4, .bytes = {127, 0, 0, 1}};
    const struct net_path path = {
        .latency_us = 50, .window = 65536, .split_permille = world.faults ? 50 : 0};
    struct operator* o = sim_alloc(sizeof(*o));
    *o = (struct operator){.reload = reload,
                           .heals = heals,
                           .at_line_start = true,
                           .patience = {.fn = impatient, .ctx = o}};
    snprintf(o->line, sizeof(o->line), "%s\n", line);
    sim_trace("operator> %s", line);
    const struct net_actor actor = {
        .ctx = o, .on_open = on_open, .on_data = on_data, .on_end = on_end};
    o->conn = world.up ? net_connect(0, &from, &path, &actor) : NULL;
    o->next = operators;
    if (operators != NULL) {
        operators->prev = o;
    }
    operators = o;
    if (o->conn == NULL) {
        finish(o, false);
        return;
    }
    sim_event_at(&o->patience, sim_now_us() + 5 * SIM_MINUTE);
}

/* ---- what they do ---- */

static const char *a_domain(void)
{
    return world.domains[sim_range(CHANCE_OPERATOR, 0, world.set.domains - 1)].name;
}

static void reload(bool heal)
{
    if (world.conf_count + (heal ? 0 : 1) >= CONFIGS_MAX) {
        return;
    }
    struct conf *conf = &world.confs[world.conf_count];
    *conf = *world_conf();
    conf->from_us = sim_now_us();
    conf->until_us = 0;
    if (heal) {
        conf_heal(conf);
    } else {
        conf_change(conf);
    }
    conf_write(conf, world.conf_path, world.folder);
    if (conf->broken) {
        ask("{\"verb\":\"reload\",\"args\":{\"allow_weaken\":true}}", NULL, false);
        /* Put back before anybody starts with it. */
        sim_trace("the broken configuration is mended");
        world.conf_broken_at = world.conf_count;
        return;
    }
    world.conf_count++;
    ask("{\"verb\":\"reload\",\"args\":{\"allow_weaken\":true}}", conf, heal);
}

static void bulk(const char *verb, const char *domain, const char *more)
{
    char line[400];
    if (domain != NULL) {
        snprintf(line, sizeof(line), "{\"verb\":\"%s\",\"args\":{\"destination\":\"%s\"%s}}", verb,
                 domain, more);
    } else {
        snprintf(line, sizeof(line), "{\"verb\":\"%s\",\"args\":{\"all\":true%s}}", verb, more);
    }
    ask(line, NULL, false);
}

static void act(void *ctx)
{
    (void)ctx;
    if (!world.faults) {
        return;
    }
    const char *domain = sim_chance(CHANCE_OPERATOR, 700) ? a_domain() : NULL;
    char more[64] = "";
    if (sim_chance(CHANCE_OPERATOR, world.set.reload_permille)) {
        reload(false);
    } else {
        switch (sim_range(CHANCE_OPERATOR, 0, 11)) {
        case 0:
        case 1:
            world.last_flush_us = sim_now_us();
            bulk("flush", domain, "");
            break;
        case 2:
            if (sim_chance(CHANCE_OPERATOR, 500)) {
                snprintf(more, sizeof(more), ",\"until_unix_ms\":%lld",
                         (long long)sim_unix_ms() +
                             (long long)sim_range(CHANCE_OPERATOR, 1000, 600000));
            }
            bulk("hold", domain, more);
            break;
        case 3:
        case 4:
            bulk("release", domain, "");
            break;
        case 5:
            model_operator_removes(domain, false);
            bulk("cancel", domain, "");
            break;
        case 6:
            model_operator_removes(domain, true);
            bulk("bounce", domain, "");
            break;
        case 7:
            world.last_flush_us = sim_now_us();
            bulk("requeue", domain, "");
            break;
        case 8:
            ask("{\"verb\":\"pause\"}", NULL, false);
            break;
        case 9:
            ask("{\"verb\":\"resume\"}", NULL, false);
            break;
        case 10:
            ask("{\"verb\":\"list\",\"args\":{}}", NULL, false);
            break;
        case 11:
            ask("{\"verb\":\"queue\",\"args\":{}}", NULL, false);
            break;
        }
    }
    operators_start();
}

void operators_start(void)
{
    if (world.set.operator_per_hour > 0) {
        const uint64_t mean = SIM_HOUR / world.set.operator_per_hour;
        sim_after(sim_range(CHANCE_OPERATOR, 1, 2 * mean), act, NULL);
    }
}

/* The faults are over: everything is let go. */
void operators_heal(void)
{
    healing = true;
    heals_left = 4;
    reload(true);
    ask("{\"verb\":\"resume\"}", NULL, true);
    ask("{\"verb\":\"release\",\"args\":{\"all\":true}}", NULL, true);
    if (sim_seed % 2 == 0) { /* in the others the queue drains by itself */
        world.last_flush_us = sim_now_us();
        ask("{\"verb\":\"flush\",\"args\":{\"all\":true}}", NULL, true);
    } else {
        heals_left--;
    }
}

bool operators_busy(void)
{
    return heals_left > 0 || operators != NULL;
}

void operators_reset(void)
{
    while (operators != NULL) {
        if (operators->conn != NULL) {
            net_reset(operators->conn);
        }
        forget(operators);
    }
    heals_left = 0;
    healing = false;
}
