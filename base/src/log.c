#include "bh/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static atomic_int level_now = BH_LOG_INFO;

void bh_log_set_level(enum bh_log_level level)
{
    atomic_store(&level_now, (int)level);
}

bool bh_log_on(enum bh_log_level level)
{
    return (int)level <= atomic_load_explicit(&level_now, memory_order_relaxed);
}

static int write_prefix(char *line, size_t cap, enum bh_log_level level)
{
    if (getenv("JOURNAL_STREAM") != NULL) {
        return snprintf(line, cap, "<%d>", (int)level);
    }
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    return snprintf(line, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s ", utc.tm_year + 1900,
                    utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                    now.tv_nsec / 1000000,
                    level == BH_LOG_ERROR  ? "error"
                    : level == BH_LOG_WARN ? "warn"
                    : level == BH_LOG_INFO ? "info"
                                           : "debug");
}

void bh_log(enum bh_log_level level, const char *format, ...)
{
    if (!bh_log_on(level)) {
        return;
    }
    char line[2048];
    int len = write_prefix(line, sizeof(line), level);
    va_list args;
    va_start(args, format);
    const int text = vsnprintf(line + len, sizeof(line) - (size_t)len - 1, format, args);
    va_end(args);
    if (text < 0) {
        return;
    }
    len += text;
    if (len > (int)sizeof(line) - 2) {
        len = (int)sizeof(line) - 2;
    }
    line[len++] = '\n';
    /* One write a line, so that lines of several threads do not mix. A diagnostic that can't be
     * written is lost: mail does not wait for it. */
    const ssize_t written = write(STDERR_FILENO, line, (size_t)len);
    (void)written;
}

const char *bh_log_quote(struct bh_slice s, char text[BH_LOG_QUOTE_MAX])
{
    static const char hex[] = "0123456789abcdef";
    size_t out = 0;
    text[out++] = '"';
    for (size_t i = 0; i < s.len && out + 6 < BH_LOG_QUOTE_MAX; i++) {
        const unsigned char c = (unsigned char)s.ptr[i];
        if (c >= 0x20 && c != 0x7f && c != '"' && c != '\\') {
            text[out++] = (char)c;
        } else {
            text[out++] = '\\';
            text[out++] = 'x';
            text[out++] = hex[c >> 4];
            text[out++] = hex[c & 15];
        }
    }
    text[out++] = '"';
    text[out] = '\0';
    return text;
}
