/* limit_words.h - what limits a destination now, in words and in parts, for operators. */
#pragma once

#include "bh/connector.h"
#include "bh/scheduler.h"
#include "bh/view.h"

/* With the texts that it needs; made on the engine's thread, read anywhere. */
struct limit_words {
    const char *by, *of, *what; /* static; NULL: nothing limits it */
    uint32_t used, max;
    bool half;
    char rate[BH_RATE_TEXT_MAX];
    char host[64];
    char text[160]; /* all of it: "host connections 10/10 at 192.0.2.1" */
};

/** @param c  the connector that carries its mail; NULL: its rates are not known
 * @param slowed  the partner has asked for fewer connections */
void limit_words(const struct bh_sched_limited *limited, const struct bh_connector *c, bool slowed,
                 struct limit_words *words);
/** The same for a view; borrows the texts. */
struct bh_live_limit limit_words_live(const struct limit_words *words);
