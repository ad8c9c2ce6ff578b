/* AUTH at a smarthost: what it offers and takes, the file with our password, and that nobody but
 * the host itself, proven, is told it, and no more than once an interval after it was refused. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bh/assert.h"
#include "partner_internal.h"

#define USER "bridgehead"
#define SLACK_US SIM_SECOND /* until the engine has heard */

enum password_answer { PASSWORD_GOOD, PASSWORD_BAD, PASSWORD_LATER };

static struct auth {
    unsigned wanted, in_file; /* generations of the password */
    uint64_t file_changed_us;
    uint64_t refused_us; /* when the daemon had read it; 0: never */
    unsigned refused_life;
} auth;

static bool chance(uint32_t permille)
{
    return sim_chance(CHANCE_AUTH, permille);
}

static uint32_t pick(uint32_t low, uint32_t high)
{
    return (uint32_t)sim_range(CHANCE_AUTH, low, high);
}

/* Each generation has another length: a file that changes within a tick of the real clock shows it.
 */
static void password(unsigned generation, char out[64])
{
    snprintf(out, 64, "secret-%.*s%u", (int)(generation % 40),
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", generation % 10);
}

static void write_file(unsigned generation)
{
    char text[64], path[320];
    password(generation, text);
    snprintf(path, sizeof(path), "%s.new", world.secret_path);
    FILE *out = fopen(path, "w");
    BH_ASSERT(out != NULL);
    fprintf(out, "%s\n", text);
    fclose(out);
    const bool moved = rename(path, world.secret_path) == 0;
    BH_ASSERT(moved);
    auth.in_file = generation;
    auth.file_changed_us = sim_now_us();
    sim_trace("the password file has password %u, and %u is wanted", generation, auth.wanted);
}

void password_draw(void)
{
    auth = (struct auth){0};
    if (!world.has.auth) {
        return;
    }
    struct host *h = &world.hosts[world.auth_server];
    h->auth_hidden = chance(300) ? pick(50, 1000) : 0;
    h->auth_refused = chance(400) ? pick(50, 1000) : 0;
    h->auth_later = chance(200) ? pick(50, 500) : 0;
    write_file(chance(800) ? 0 : 1);
}

static void change(void *ctx)
{
    (void)ctx;
    if (!world.faults) {
        return;
    }
    struct host *h = &world.hosts[world.auth_server];
    switch (pick(0, 3)) {
    case 0:
        auth.wanted++;
        sim_trace("password %u is wanted", auth.wanted);
        break;
    case 1:
        write_file(auth.wanted);
        break;
    case 2:
        h->auth_refused = chance(500) ? pick(50, 1000) : 0;
        break;
    case 3:
        h->auth_hidden = chance(500) ? pick(50, 1000) : 0;
        break;
    }
    password_start();
}

void password_start(void)
{
    if (world.has.auth) {
        sim_after(pick(30, 900) * SIM_SECOND, change, NULL);
    }
}

void password_heal(void)
{
    if (world.has.auth) {
        struct host *h = &world.hosts[world.auth_server];
        h->auth_hidden = h->auth_refused = h->auth_later = 0;
        write_file(auth.wanted);
    }
}

bool password_is_wanted(const struct host *host)
{
    return world.has.auth && host->number == world.auth_server;
}

const char *password_offer(const struct host *host)
{
    return world.faults && chance(host->auth_hidden) ? "" : "250-AUTH PLAIN LOGIN\r\n";
}

/* ---- what must not be ---- */

static uint64_t least_interval_s(void)
{
    const struct conf *conf = NULL;
    uint64_t least_s = UINT64_MAX;
    for (unsigned back = 0; world_conf_within(back, 10 * SIM_MINUTE, &conf); back++) {
        for (unsigned i = 0; i < 3; i++) {
            least_s = conf->intervals_s[i] < least_s ? conf->intervals_s[i] : least_s;
        }
    }
    return least_s;
}

/* Somebody asked for it: it may be tried at once. */
static bool is_asked_for(void)
{
    const struct conf *conf = NULL;
    return world.last_flush_us + SIM_MINUTE > auth.refused_us || world.clock_stepped ||
           auth.file_changed_us + SIM_MINUTE > auth.refused_us || auth.refused_life != world.life ||
           world_conf_within(1, 10 * SIM_MINUTE, &conf);
}

static void begun(const struct seen_link *link, uint64_t opened_us)
{
    if (!link->tls || !partner_is_own_key(link)) {
        sim_fail("credentials are told to %s %s", link->host->name,
                 link->tls ? "over TLS that proves nothing of it" : "in clear text");
    }
    if (auth.refused_us == 0 || opened_us < auth.refused_us + SLACK_US || is_asked_for()) {
        return;
    }
    const uint64_t gone_us = opened_us - auth.refused_us;
    if (gone_us + SLACK_US < least_interval_s() * SIM_SECOND * 9 / 10) {
        sim_fail("%s refused our credentials %llu ms ago, and is told them again", link->host->name,
                 (unsigned long long)(gone_us / SIM_MS));
    }
}

void password_refusal_read(void)
{
    auth.refused_us = sim_now_us();
    auth.refused_life = world.life;
}

/* ---- the password ---- */

static size_t decode(const char *text, char *out, size_t cap)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    unsigned bits = 0;
    unsigned count = 0;
    for (; *text != '\0' && *text != '=' && len + 1 < cap; text++) {
        const char *at = strchr(digits, *text);
        if (at == NULL) {
            break;
        }
        bits = bits << 6 | (unsigned)(at - digits);
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[len++] = (char)(bits >> count & 0xff);
        }
    }
    out[len] = '\0';
    return len;
}

static enum password_answer judge(const struct host *host, const char *user, const char *given)
{
    char good[64];
    password(auth.wanted, good);
    if (world.faults && chance(host->auth_later)) {
        return PASSWORD_LATER;
    }
    const bool right = strcmp(user, USER) == 0 && strcmp(given, good) == 0;
    return right && !(world.faults && chance(host->auth_refused)) ? PASSWORD_GOOD : PASSWORD_BAD;
}

/* ---- the exchange ---- */

static void answer_auth(struct partner *p, const char *password)
{
    p->stage = STAGE_COMMAND;
    switch (judge(p->host, p->user, password)) {
    case PASSWORD_GOOD:
        p->authenticated = true;
        partner_say(p, "235 2.7.0 welcome");
        break;
    case PASSWORD_BAD:
        p->refused = true;
        partner_say(p, "535 5.7.8 no");
        break;
    case PASSWORD_LATER:
        partner_say(p, "454 4.7.0 later");
        break;
    }
}

static void on_plain(struct partner *p, const char *text)
{
    char octets[300];
    const size_t len = decode(text, octets, sizeof(octets));
    const size_t user_at = strlen(octets) + 1; /* behind an identity to act as */
    const size_t user_len = user_at < len ? strlen(octets + user_at) : 0;
    snprintf(p->user, sizeof(p->user), "%.60s", user_len > 0 ? octets + user_at : "");
    answer_auth(p, user_at + user_len + 1 < len ? octets + user_at + user_len + 1 : "");
}

void partner_on_auth_line(struct partner *p, const char *line)
{
    char octets[300];
    if (!p->login) {
        on_plain(p, line);
        return;
    }
    (void)decode(line, octets, sizeof(octets));
    if (p->user[0] == '\0') {
        snprintf(p->user, sizeof(p->user), "%.60s", octets);
        partner_say(p, "334 UGFzc3dvcmQ6");
    } else {
        answer_auth(p, octets);
    }
}

void partner_on_auth(struct partner *p, const char *line)
{
    const struct seen_link link = partner_link(p);
    begun(&link, p->opened_us);
    p->asked = true;
    const char *initial = strlen(line) > 11 ? line + 11 : "";
    p->login = partner_is(line + 5, "LOGIN");
    p->user[0] = '\0';
    p->stage = STAGE_AUTH;
    if (!p->login && initial[0] != '\0') {
        on_plain(p, initial);
    } else {
        partner_say(p, p->login ? "334 VXNlcm5hbWU6" : "334 ");
    }
}
