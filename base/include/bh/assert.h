/* assert.h - what must hold, in release builds too. A failure is a bug: it says where and aborts.
 */
#pragma once

_Noreturn void bh_assert_failed(const char *expression, const char *file, int line);

#define BH_ASSERT(expression) \
    ((expression) ? (void)0 : bh_assert_failed(#expression, __FILE__, __LINE__))

#define BH_COUNT(array) (sizeof(array) / sizeof((array)[0]))
