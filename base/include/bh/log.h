/* log.h - diagnostics: one event a line, key=value, on standard error. Drivers log, cores don't.
 * With JOURNAL_STREAM set by systemd each line starts with its priority as <N>. */
#pragma once

#include "bh/slice.h"
#include "bh/status.h"

enum bh_log_level { BH_LOG_ERROR = 3, BH_LOG_WARN = 4, BH_LOG_INFO = 6, BH_LOG_DEBUG = 7 };

/** Lines above this level are dropped; BH_LOG_INFO at start. Any thread. */
void bh_log_set_level(enum bh_log_level level);
bool bh_log_on(enum bh_log_level level);
/** One line. The text is made of key=value pairs; quote peers' text with bh_log_quote. */
void bh_log(enum bh_log_level level, const char *format, ...) BH_PRINTF(2, 3);

#define BH_LOG_QUOTE_MAX 512
/** A peer's text made safe: in double quotes, control octets and quotes as \xNN, cut to fit.
 * @return text, NUL-terminated */
const char *bh_log_quote(struct bh_slice s, char text[BH_LOG_QUOTE_MAX]);
