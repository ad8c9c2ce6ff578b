/* human.h - the part of a report that people read. Private to the report writer. */
#pragma once

#include "text.h"

/** The action that the report as a whole is about: the worst of its recipients'. */
enum bh_dsn_action human_main_action(const struct bh_dsn *dsn);
/** The text of the Subject field. Static storage. */
const char *human_subject(enum bh_dsn_action action);
/** The whole part, every line ended. @param utf8  UTF-8 may be written as it is */
void human_put(struct text_out *out, const struct bh_dsn *dsn, bool utf8);
/** What happened, as the end of a sentence that starts with a host, where no reply tells it:
 * "did not answer in time". Static storage. */
const char *human_happened(const struct bh_outcome *outcome);
