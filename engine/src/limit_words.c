#include "limit_words.h"

#include <stdio.h>

#include "bh/assert.h"

static const char *const scopes[BH_SCOPES] = {
    [BH_OF_CONNECTOR] = "connector", [BH_OF_DESTINATION] = "destination", [BH_OF_HOST] = "host"};
static const char *const kinds[BH_KINDS] = {[BH_PER_MESSAGE] = "message",
                                            [BH_PER_RECIPIENT] = "recipient",
                                            [BH_PER_CONNECTION] = "connection"};
static const char *const things[BH_KINDS] = {[BH_PER_MESSAGE] = "messages",
                                             [BH_PER_RECIPIENT] = "recipients",
                                             [BH_PER_CONNECTION] = "connections"};

static void host_words(const struct bh_sched_address *host, struct limit_words *w)
{
    char ip[BH_IP_TEXT_MAX];
    bh_ip_text(&host->ip, ip);
    if (host->port == 25) {
        snprintf(w->host, sizeof(w->host), "%s", ip);
    } else {
        snprintf(w->host, sizeof(w->host), host->ip.family == 6 ? "[%s]:%u" : "%s:%u", ip,
                 (unsigned)host->port);
    }
}

/* @param note behind the counts */
static void connection_words(const struct bh_sched_limited *limited, const char *of,
                             const char *note, struct limit_words *w)
{
    w->by = "connections";
    w->of = of;
    w->used = limited->used;
    w->max = limited->max;
    w->half = limited->half;
    if (limited->by == BH_LIMITED_BY_HOST) {
        host_words(&limited->host, w);
    }
    const bool all = limited->by == BH_LIMITED_BY_TOTAL;
    snprintf(w->text, sizeof(w->text), "%s %u/%u%s%s%s%s",
             all                                      ? "connections in all"
             : limited->by == BH_LIMITED_BY_HOST      ? "host connections"
             : limited->by == BH_LIMITED_BY_CONNECTOR ? "connector connections"
                                                      : "destination connections",
             (unsigned)w->used, (unsigned)w->max, w->host[0] != 0 ? " at " : "", w->host,
             w->half ? " (half of the limit, without recent success)" : "", note);
}

static void rate_words(const struct bh_sched_limited *limited, const struct bh_connector *c,
                       struct limit_words *w)
{
    w->by = "rate";
    w->of = scopes[limited->scope];
    w->what = things[limited->kind];
    if (c != NULL) {
        bh_rate_text(c->limits.rates[limited->scope][limited->kind], w->rate);
    }
    if (limited->scope == BH_OF_HOST) {
        host_words(&limited->host, w);
    }
    snprintf(w->text, sizeof(w->text), "%s %s rate %s%s%s", w->of, kinds[limited->kind], w->rate,
             w->host[0] != 0 ? " at " : "", w->host);
}

static void other_words(const char *by, const char *text, struct limit_words *w)
{
    w->by = by;
    snprintf(w->text, sizeof(w->text), "%s", text);
}

void limit_words(const struct bh_sched_limited *limited, const struct bh_connector *c, bool slowed,
                 struct limit_words *words)
{
    *words = (struct limit_words){0};
    switch (limited->by) {
    case BH_LIMITED_BY_NOTHING:
        break;
    case BH_LIMITED_BY_DESTINATION:
        connection_words(limited, "destination", slowed ? " (the partner asked for fewer)" : "",
                         words);
        break;
    case BH_LIMITED_BY_HOST:
        connection_words(limited, "host", "", words);
        break;
    case BH_LIMITED_BY_CONNECTOR:
        connection_words(limited, "connector", "", words);
        break;
    case BH_LIMITED_BY_TOTAL:
        connection_words(limited, "all", "", words);
        break;
    case BH_LIMITED_BY_RATE:
        rate_words(limited, c, words);
        break;
    case BH_LIMITED_BY_MEMORY:
        other_words("memory", "memory for content", words);
        break;
    case BH_LIMITED_BY_FIRST:
        other_words("login", "one connection until it has logged in", words);
        break;
    case BH_LIMITED_BY_TRIAL:
        other_words("breaker", "one message to see whether policy still refuses", words);
        break;
    case BH_LIMITED_BY_AVOIDED:
        other_words("hosts", "all its hosts failed moments ago", words);
        break;
    case BH_LIMITED_BY_REST:
        other_words("rest", "a second's rest, since its last connection came to nothing", words);
        break;
    }
}

struct bh_live_limit limit_words_live(const struct limit_words *words)
{
    return (struct bh_live_limit){.by = words->by,
                                  .of = words->of,
                                  .what = words->what,
                                  .used = words->used,
                                  .max = words->max,
                                  .half = words->half,
                                  .rate = bh_slice_str(words->rate),
                                  .host = bh_slice_str(words->host),
                                  .text = bh_slice_str(words->text)};
}
