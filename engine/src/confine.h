/* confine.h - which files the daemon needs once it runs, and the sandbox that leaves it no others.
 */
#pragma once

#include "bh/config.h"
#include "bh/sandbox.h"

/** Allow the files that the configuration names and the system's own, then enter, as `engine {
 * sandbox }` says. Before the first thread; after privileges are dropped.
 * @param sandbox  with the configuration's own files in it; destroyed
 * @return false: it is required, and not to be had; said on standard error */
bool confine(struct bh_sandbox *sandbox, const struct bh_config *config);

/** A reader that allows what it reads, so that it is read again by a reload. The sandbox outlives
 * it. */
struct bh_config_reader confine_reader(const struct bh_config_reader *reader,
                                       struct bh_sandbox *sandbox);
