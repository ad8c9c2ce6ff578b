/* sched_policy.h - a connector's limits and schedule as the scheduler wants them. */
#pragma once

#include "bh/config.h"
#include "bh/scheduler.h"

/** @param held  the connector may not deliver now, whatever its own state (a lapsed exception) */
void sched_policy_of(const struct bh_connector *connector, bool held,
                     struct bh_sched_policy *policy);
