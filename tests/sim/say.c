/* What the simulator says: the trace, and the end of a run that broke a promise. The daemon's own
 * diagnostics go into the trace. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "bh/log.h"
#include "core.h"
#include "world.h"

bool sim_tracing;
uint64_t sim_seed, sim_step;
static uint64_t digest;

void sim_digest_add(uint64_t value)
{
    digest = (digest ^ value) * UINT64_C(0x100000001b3);
    digest ^= digest >> 31;
}

uint64_t sim_digest(void)
{
    return digest;
}

void say_reset(void)
{
    digest = UINT64_C(0xcbf29ce484222325);
}

__attribute__((format(printf, 1, 0))) static void print(const char *format, va_list args)
{
    const uint64_t us = sim_now_us();
    printf("%8llu %5llu.%06llu ", (unsigned long long)sim_step,
           (unsigned long long)(us / SIM_SECOND), (unsigned long long)(us % SIM_SECOND));
    vprintf(format, args);
    putchar('\n');
}

void sim_trace_(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print(format, args);
    va_end(args);
}

_Noreturn void sim_fail(const char *format, ...)
{
    static char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim_trace("FAILED: %s", text);
    world_failed(text);
}

/* ---- what the daemon says ---- */

_Noreturn void bh_assert_failed(const char *expression, const char *file, int line)
{
    const char *name = strrchr(file, '/');
    sim_fail("assertion failed at %s:%d: %s", name != NULL ? name + 1 : file, line, expression);
}

const char *bh_status_name(enum bh_status status)
{
    static const char *const names[] = {
        "ok",      "no memory", "limit", "protocol error", "input/output error",
        "corrupt", "not found", "full",  "invalid",        "version",
        "exists",  "busy"};
    const int at = -(int)status;
    return at < 0 ? "more" : at < (int)(sizeof(names) / sizeof(names[0])) ? names[at] : "unknown";
}

void bh_log_set_level(enum bh_log_level level)
{
    (void)level;
}

bool bh_log_on(enum bh_log_level level)
{
    return sim_tracing || level <= BH_LOG_WARN;
}

void bh_log(enum bh_log_level level, const char *format, ...)
{
    char text[2048];
    va_list args;
    (void)level;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    world_on_log(text);
    sim_trace("  log %s", text);
}

const char *bh_log_quote(struct bh_slice s, char text[BH_LOG_QUOTE_MAX])
{
    size_t out = 0;
    text[out++] = '"';
    for (size_t i = 0; i < s.len && out + 6 < BH_LOG_QUOTE_MAX; i++) {
        const char c = s.ptr[i];
        text[out++] = c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? c : '?';
    }
    text[out++] = '"';
    text[out] = '\0';
    return text;
}
