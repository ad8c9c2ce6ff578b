/* scenario.h - what if: a configuration of the user's, a partner that is down, and mail for it. */
#pragma once

#include "world.h"

/** Run it and print what came of it. @return the exit status */
int scenario_run(const char *config, const char *scenario);

/* For the world's answers. */
bool scenario_on(void);
/** Is the host that has this name the partner of the scenario (else one that is always well)? */
struct host *scenario_host(const char *name);
bool scenario_is_down(const struct host *host, bool *silent);
/** A transaction of `recipients` was accepted. */
void scenario_taken(const struct host *host, size_t recipients);
/** An event of the log. */
void scenario_attempt(const char *line);
void scenario_talks(const struct host *host, uint32_t connections);
