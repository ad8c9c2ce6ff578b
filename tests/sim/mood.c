/* Moods of hosts: how often each thing goes wrong there. */
#include "world.h"

static uint32_t maybe(uint32_t permille, uint32_t most)
{
    return sim_chance(CHANCE_WORLD, permille) ? (uint32_t)sim_range(CHANCE_WORLD, 1, most) : 0;
}

void mood_make(struct mood *m)
{
    const uint32_t some = 150;
    *m = (struct mood){
        .refuse = maybe(some, 500),
        .silence = maybe(some, 300),
        .greet_421 = maybe(some, 500),
        .greet_hang = maybe(60, 200),
        .ehlo_5xx = maybe(60, 300),
        .no_starttls = maybe(300, 1000),
        .starttls_454 = maybe(some, 500),
        .tls_garbage = maybe(some, 500),
        .tls_reset = maybe(some, 500),
        .bad_certificate = maybe(300, 1000),
        .mail_4xx = maybe(some, 500),
        .mail_5xx = maybe(60, 200),
        .rcpt_4xx = maybe(some, 500),
        .rcpt_5xx = maybe(some, 300),
        .data_4xx = maybe(some, 300),
        .dot_4xx = maybe(some, 500),
        .dot_5xx = maybe(some, 200),
        .say_421 = maybe(some, 200),
        .reset_command = maybe(some, 100),
        .reset_octet = maybe(some, 500),
        .lose_reply = maybe(250, 300),
        .hang = maybe(60, 50),
        .trickle = maybe(some, 500),
        .greylist = maybe(200, 1000),
        .garbage_reply = maybe(60, 100),
        .multi_line = maybe(200, 500),
    };
    if (sim_chance(CHANCE_WORLD, 30)) {
        m->refuse = 1000; /* down */
    }
}
