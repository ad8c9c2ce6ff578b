/* `bhctl submit`: a text from a pipe made into a message. Whatever it is: lines end in CRLF and
 * nothing else does, recipients are addresses that cannot break a command, no Bcc is left in the
 * header, the body is what it was, and Date, Message-ID and From are there. The first octet picks
 * whether a lone dot ends the text, and whether recipients are taken from the header. */
#define _GNU_SOURCE /* fmemopen */
#include <stdlib.h>

#include "../../tools/src/submit.h"
#include "bh/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int64_t now_ms(void)
{
    return INT64_C(1795472708000);
}

static void check_lines(struct bh_slice m)
{
    for (size_t i = 0; i < m.len; i++) {
        BH_ASSERT(m.ptr[i] != '\n' || (i > 0 && m.ptr[i - 1] == '\r'));
        BH_ASSERT(m.ptr[i] != '\r' || (i + 1 < m.len && m.ptr[i + 1] == '\n'));
    }
    BH_ASSERT(m.len == 0 || m.ptr[m.len - 1] == '\n');
}

static void check_recipients(const struct submit *s)
{
    for (size_t i = 0; i < s->recipients_count; i++) {
        BH_ASSERT(strchr(s->recipients[i], '@') != NULL);
        for (const unsigned char *c = (const unsigned char *)s->recipients[i]; *c != 0; c++) {
            BH_ASSERT(*c > ' ' && *c != 127 && *c != '<' && *c != '>');
        }
    }
}

/* Is there a field of this name before the first empty line? */
static bool has_field(struct bh_slice m, const char *name)
{
    while (m.len > 0 && !bh_slice_starts(m, BH_LIT("\r\n"))) {
        const struct bh_slice rest = bh_slice_skip(m, strlen(name));
        if (bh_slice_starts_nocase(m, bh_slice_str(name)) &&
            bh_slice_starts(bh_slice_trim(rest), BH_LIT(":"))) {
            return true;
        }
        m = bh_slice_skip(m, bh_slice_find(m, '\n') + 1);
    }
    return false;
}

static void release(struct submit *s)
{
    for (size_t i = 0; i < s->recipients_count; i++) {
        free(s->recipients[i]);
    }
    s->recipients_count = 0;
    free(s->message);
}

static struct bh_slice message(const struct submit *s)
{
    return bh_slice(s->message_len > 0 ? s->message : "", s->message_len);
}

/* What follows the first empty line; empty without one. */
static struct bh_slice body(struct bh_slice m)
{
    return bh_slice_starts(m, BH_LIT("\r\n"))
               ? m
               : bh_slice_skip(m, bh_slice_find_slice(m, BH_LIT("\r\n\r\n")) + 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 16) {
        return 0;
    }
    char *copy = malloc(size);
    BH_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    FILE *file = fmemopen(copy + 1, size - 1, "r");
    BH_ASSERT(file != NULL);
    static struct submit s;
    s = (struct submit){.sender = copy, .host = "host.example"};
    char sender[] = "me@host.example";
    s.sender = sender;
    BH_ASSERT(message_read(&s, file, (data[0] & 1) != 0) == EX_OK);
    fclose(file);
    check_lines(message(&s));
    if ((data[0] & 2) != 0) {
        char *before = malloc(s.message_len + 1);
        BH_ASSERT(before != NULL);
        memcpy(before, message(&s).ptr, s.message_len);
        const struct bh_slice was = bh_slice(before, s.message_len);
        if (message_take_recipients(&s) != EX_OK) {
            free(before);
            release(&s);
            free(copy);
            return 0;
        }
        BH_ASSERT(!has_field(message(&s), "bcc"));
        BH_ASSERT(bh_slice_eq(body(message(&s)), body(was)));
        check_recipients(&s);
        free(before);
    }
    BH_ASSERT(message_complete(&s) == EX_OK);
    const struct bh_slice m = message(&s);
    check_lines(m);
    BH_ASSERT(has_field(m, "date") && has_field(m, "message-id") && has_field(m, "from"));
    release(&s);
    free(copy);
    return 0;
}
